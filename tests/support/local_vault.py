"""The local vault as a process, its owner's commands, and agents that the built archive installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.harness import ARCHIVE_COMMAND, ROOT, TIMEOUT_S
from vault.domains.secrets import find, plaintext
from vault.schema import open_store


class LocalVault:
    """`python -m vault serve` as a process, and its owner's commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        serve = [sys.executable, "-m", "vault", "serve", "--dir", str(directory), "--port", "0"]
        self.process = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def owner(self, *words: str, text_in: str = "") -> str:
        """What one of the owner's commands prints."""
        command = [sys.executable, "-m", "vault", *words, "--dir", str(self.directory)]
        done = subprocess.run(
            command, cwd=ROOT, input=text_in, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def reply(self, ticket: str, words: str, *files: Path, status: str = "waiting_on_customer") -> None:
        """An answer of the staff, with files."""
        attached = [option for file in files for option in ("--attach", str(file))]
        self.owner("reply", ticket, "--status", status, *attached, text_in=words)

    def value_of(self, secret_id: str) -> str:
        """What is stored, as only the vault can tell."""
        with open_store(self.directory) as store, store.transaction() as db:
            row = find(db, secret_id)
            return plaintext(db, store.keys, row, row["version"])

    def close(self) -> None:
        """Stops the server, which must end well."""
        self.process.terminate()
        assert self.process.wait(TIMEOUT_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def install(vault: LocalVault, scopes: str = "all") -> str:
    """A new agent, by the archive's own `install`; its id."""
    token = vault.owner("agent-token", "--scopes", scopes)
    env = {**os.environ, "SIKKERKEY_API_URL": vault.url}
    command = [*ARCHIVE_COMMAND, "install", "-", "--name", "end to end"]
    done = subprocess.run(command, input=token, env=env, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    found = re.search(r"agent ([0-9a-f-]{36})", done.stdout)
    assert found, done.stdout
    return found[1]
