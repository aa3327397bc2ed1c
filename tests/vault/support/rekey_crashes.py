"""A process that changes the root key and is killed at every line on the way, to be run by itself: it forks.

    python -m tests.vault.support.rekey_crashes DIRECTORY BEFORE AFTER      BEFORE and AFTER are "file" or a passphrase

DIRECTORY holds a vault. Prints a JSON object: how many lines there are, and at how many of them a vault was left that
opens with the old key and with the new one.
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
from vault.domains import secrets
from vault.errors import VaultError
from vault.schema import open_store
from vault.store import Store

WATCHED = ("rootkey.py", "store.py", "files.py")
NOW_MS = 1_767_225_600_000


def passphrase(word: str) -> str | None:
    return None if word == "file" else word


def every_value(store: Store) -> dict[str, list[str]]:
    """What only the vault can tell: each version of each secret."""
    with store.transaction() as db:
        ids = [row["id"] for row in db.execute("SELECT id FROM secrets ORDER BY id")]
        found = {each: secrets.find(db, each) for each in ids}
        return {
            each: [secrets.plaintext(db, store.keys, row, n + 1) for n in range(row["version"])]
            for each, row in found.items()
        }


def change(directory: Path, before: str, after: str, die_at: int) -> None:
    """Change the root key, and die before the line with that number."""
    lines = 0

    def watch(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        if Path(frame.f_code.co_filename).name not in WATCHED:
            return None
        lines += event == "line"
        if lines == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return watch

    store = open_store(directory, passphrase(before))
    sys.settrace(watch)
    store.rekey(NOW_MS, passphrase(after))
    sys.settrace(None)
    store.close()


def opened_by(directory: Path, before: str, after: str) -> tuple[str, dict[str, list[str]]]:
    """Which key opens what was left behind, and what it opens; the other one must not."""
    with open_store(directory) as store, store.transaction() as db:
        changed = db.execute("SELECT 1 FROM audit WHERE action = 'vault_rekey'").fetchone() is not None
    name, right, wrong = ("new", after, before) if changed else ("old", before, after)
    assert right == wrong or not opens(directory, wrong)
    with open_store(directory, passphrase(right)) as store:
        return name, every_value(store)


def opens(directory: Path, word: str) -> bool:
    try:
        with open_store(directory, passphrase(word)) as store:
            return not store.sealed
    except VaultError:
        return False


def main(template: Path, before: str, after: str) -> None:
    rootkey.MEMORY_KIB, rootkey.ITERATIONS = 64, 1  # hundreds of passphrases are tried here
    with open_store(template, passphrase(before)) as store:
        expected = every_value(store)
    work, line, counts = template.with_name("work"), 0, {"old": 0, "new": 0}
    finished = False
    while not finished:
        line += 1
        shutil.copytree(template, work)
        child = os.fork()
        if child == 0:
            change(work, before, after, line)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        finished = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        assert finished or os.WIFSIGNALED(status), status
        name, values = opened_by(work, before, after)
        assert values == expected, line
        assert finished <= (name == "new"), line
        counts[name] += 1
        left = {path.name for path in work.iterdir()} - {"vault.db", "init.lock"}
        assert left == ({"root.key"} if (after if name == "new" else before) == "file" else set()), (line, left)
        shutil.rmtree(work)
    print(json.dumps({"lines": line, **counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
