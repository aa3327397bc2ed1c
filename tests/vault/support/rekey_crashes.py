"""Changes the root key in child processes, and kills each one before a different call that touches the disk.

    python -m tests.vault.support.rekey_crashes DIRECTORY BEFORE AFTER      BEFORE and AFTER are "file" or a passphrase

DIRECTORY holds a vault. After each crash, exactly one of the two keys must open the vault, with all values. Prints a
JSON object: the number of calls, and how many crashes left a vault with the old key and with the new one. This is a
separate program because it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from vault import rootkey
from vault import store as vault_store
from vault.domains import secrets
from vault.errors import VaultError
from vault.schema import open_store
from vault.store import Store

# Functions in C through which the vault changes its database and its files. Nothing on disk changes between them.
DISK_CALLS = {"execute", "open", "write", "flush", "fsync", "rename", "unlink", "close"}
NOW_MS = 1_767_225_600_000


def passphrase(word: str) -> str | None:
    return None if word == "file" else word


def every_value(store: Store) -> dict[str, list[str]]:
    """All versions of all secrets, decrypted."""
    with store.transaction() as db:
        ids = [row["id"] for row in db.execute("SELECT id FROM secrets ORDER BY id")]
        found = {each: secrets.find(db, each) for each in ids}
        return {
            each: [secrets.plaintext(db, store.keys, row, n + 1) for n in range(row["version"])]
            for each, row in found.items()
        }


def change_root_key(directory: Path, before: str, after: str, crash_at: int) -> None:
    """Change the root key, and kill this process before the disk call with that number."""
    calls = 0

    def watch(_frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "c_call" and argument.__name__ in DISK_CALLS
        if calls == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(directory, passphrase(before))
    sys.setprofile(watch)
    store.rekey(NOW_MS, passphrase(after))
    sys.setprofile(None)
    store.close()


def opened_by(directory: Path, before: str, after: str) -> tuple[str, dict[str, list[str]]]:
    """Which key opens the vault after a crash, and all values. The other key must not open it."""
    with open_store(directory) as store:
        with store.transaction() as db:
            changed = db.execute("SELECT 1 FROM audit WHERE action = 'vault_rekey'").fetchone() is not None
        name, right, wrong = ("new", after, before) if changed else ("old", before, after)
        assert store.sealed is (right != "file")
        assert right == wrong or not opens(store, wrong)
        assert opens(store, right)
        return name, every_value(store)


def opens(store: Store, word: str) -> bool:
    """Whether a passphrase or the key file opens the vault."""
    try:
        store.unseal(NOW_MS, passphrase(word))
    except VaultError:
        return False
    return True


def main(template: Path, before: str, after: str) -> None:
    rootkey.MEMORY_KIB, rootkey.ITERATIONS = 64, 1  # many passphrases are tried here
    # A killed process loses no writes, so this test does not need SQLite's fsync calls.
    vault_store.PRAGMAS += ("synchronous=OFF",)
    with open_store(template, passphrase(before)) as store:
        expected = every_value(store)
    copy, call, counts = template.with_name("copy"), 0, {"old": 0, "new": 0}
    finished = False
    while not finished:
        call += 1
        shutil.copytree(template, copy)
        child = os.fork()
        if child == 0:
            change_root_key(copy, before, after, call)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        finished = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        assert finished or os.WIFSIGNALED(status), status
        name, values = opened_by(copy, before, after)
        assert values == expected, call
        assert finished <= (name == "new"), call
        counts[name] += 1
        left = {path.name for path in copy.iterdir()} - {"vault.db", "init.lock"}
        assert left == ({"root.key"} if (after if name == "new" else before) == "file" else set()), (call, left)
        shutil.rmtree(copy)
    print(json.dumps({"calls": call - 1, **counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
