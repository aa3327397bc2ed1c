"""The vault's archive and the client's: with an interpreter, two files are a whole installation."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.archive_runs import OTHER_PYTHONS, find_python
from tests.support.harness import ARCHIVE, Server

VAULT_ARCHIVE = ARCHIVE.with_name("sikkerkey-vault.pyz")
FLAGS = ("-I", "-S")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the vault runs on Linux and macOS")


class Installation:
    """A running vault, with the commands of its owner and of an agent's user."""

    def __init__(self, python: str, directory: Path) -> None:
        self.python, self.directory = python, directory
        command = [*self.vault("serve"), "--port", "0"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=directory)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def vault(self, command: str, *arguments: str) -> list[str]:
        place = str(self.directory / "data of the vault")
        return [self.python, *FLAGS, str(VAULT_ARCHIVE), command, *arguments, "--dir", place]

    def client(self, *arguments: str) -> list[str]:
        return [self.python, *FLAGS, str(ARCHIVE), *arguments]

    def run(self, command: list[str], text: str = "", **settings: str) -> str:
        environment = {**os.environ, **settings}
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def register(self) -> None:
        token = self.run(self.vault("agent-token", "--scopes", "all"))
        installed = self.run(self.client("install", "-"), token, SIKKERKEY_API_URL=self.url)
        self.run(self.vault("approve", installed.split()[2]))

    def stop(self) -> str:
        self.process.terminate()
        _, errors = self.process.communicate(timeout=20)
        return errors


def oldest_python() -> str:
    """The oldest supported Python, or this one. test_readme.py uses the same commands with this one."""
    try:
        return find_python(OTHER_PYTHONS[0])
    except pytest.skip.Exception:
        return sys.executable


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(oldest_python(), tmp_path)
    try:
        assert made.url, made.stop()
        yield made
    finally:
        made.stop()


def test_two_files_are_a_whole_installation(installation: Installation) -> None:
    installation.register()
    with Server(installation.client("serve")) as server:
        server.initialize()
        created: Any = server.call("manage_projects", action="create", name="archive")
        project = json.loads(created["content"][0]["text"])["id"]
        secret = {"projectId": project, "name": "KEY", "value": "sealed by AES-GCM"}
        assert not server.call("manage_secrets", action="create", **secret).get("isError")
        assert server.close() == 0
    kept = b"".join(path.read_bytes() for path in installation.directory.glob("data*/vault.db*"))
    assert b"sealed by AES-GCM" not in kept
    assert installation.stop() == ""


@pytest.mark.parametrize("name", [OTHER_PYTHONS[1], OTHER_PYTHONS[-1]])
def test_vault_can_be_made_by_every_python(name: str, tmp_path: Path) -> None:
    """Every command loads all modules and a style sheet; importlib.resources differs in 3.10 and in later versions."""
    command = [find_python(name), *FLAGS, str(VAULT_ARCHIVE), "init", "--dir", str(tmp_path / "vault")]
    subprocess.run(command, capture_output=True, check=True)
    assert (tmp_path / "vault" / "vault.db").exists()


def test_refusal_on_windows_lists_the_vaults_platforms() -> None:
    code = "import sys, os; os.name, sys.version = 'nt', '3.13.0 (AMD64)'\nimport runpy\n"
    code += f"runpy.run_path({str(VAULT_ARCHIVE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sikkerkey-vault: error: this Python is for windows-amd64, but the archive is for linux-" in done.stderr


def test_usage_and_advice_name_the_archive_as_it_was_typed(tmp_path: Path) -> None:
    command = [sys.executable, *FLAGS, str(VAULT_ARCHIVE)]
    typed = shlex.join([Path(sys.executable).name, str(VAULT_ARCHIVE)])
    shown = subprocess.run([*command, "approve", "--help"], capture_output=True, text=True, check=True).stdout
    assert " ".join(shown.split()).startswith(f"usage: {typed} approve ")
    refused = subprocess.run([*command, "agents", "--dir", str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"create one: {typed} init --dir {tmp_path}" in refused.stderr
    assert "python -m vault" not in shown + refused.stderr
