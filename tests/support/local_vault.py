"""The local vault as a process, commands of its owner, and agents that use it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import sikkerkey_http
from sikkerkey_cli.__main__ import main
from tests.support.harness import ROOT, TIMEOUT_S
from tests.vault.support.commands import run_command
from vault.domains.secrets import find, plaintext
from vault.schema import open_store


class LocalVault:
    """`python -m vault serve` as a process, and its owner's commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        options = ["--dir", str(directory), "--port", "0", "--webhooks-to-loopback"]
        serve = [sys.executable, "-m", "vault", "serve", *options]
        self.process = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def owner(self, command: str, *arguments: str, text_in: str = "") -> str:
        """Runs a command of the owner in this process and returns its output."""
        status, output, errors = run_command(self.directory, command, *arguments, typed=text_in)
        assert status == 0, errors
        return output.strip()

    def reply(self, ticket: str, words: str, *files: Path, status: str = "waiting_on_customer") -> None:
        """Answers a support ticket, with files."""
        attached = [option for file in files for option in ("--attach", str(file))]
        self.owner("reply", ticket, "--status", status, *attached, text_in=words)

    def value_of(self, secret_id: str) -> str:
        """The stored value, read from the vault's own files."""
        with open_store(self.directory) as store, store.transaction() as db:
            row = find(db, secret_id)
            return plaintext(db, store.keys, row, row["version"])

    def close(self) -> None:
        """Stops the server, which must exit with status 0."""
        self.process.terminate()
        assert self.process.wait(TIMEOUT_S) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def install(vault: LocalVault, scopes: str = "all") -> str:
    """Installs a new agent in this process and returns its id. test_readme.py does it with the archive."""
    shown, token = io.StringIO(), io.StringIO(vault.owner("agent-token", "--scopes", scopes))
    with (
        mock.patch.dict(os.environ, SIKKERKEY_API_URL=vault.url),
        mock.patch.object(sikkerkey_http.KeepAliveHandler, "_put_back", lambda _self, connection: connection.close()),
        mock.patch.object(sys, "stdin", token),
        contextlib.redirect_stdout(shown),
    ):
        assert main(["install", "-", "--name", "end to end"]) == 0
    found = re.search(r"agent ([0-9a-f-]{36})", shown.getvalue())
    assert found, shown.getvalue()
    return found[1]
