"""`doctor` in broken situations: every remedy, run in a shell as it is printed, until all is ok."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sikkerkey_identity
from sikkerkey_cli import doctor
from sikkerkey_cli.doctor import Line
from tests.support.harness import TIMEOUT_S
from tests.support.local_vault import LocalVault
from tests.support.shell import PROGRAM, Shell, run_process

ROUNDS_MAX = 5  # of doctor and its remedies: a file moved away, a new agent, its approval, its entry, all ok
WAIT = ("resolve the failures above first", "resolve the checks marked fail first")


class Computer:
    """A computer with an approved agent that Cursor uses."""

    def __init__(self, home: Path, vault: LocalVault, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.vault, self.monkeypatch, self._shell = home, vault, monkeypatch, shell
        self._tools = home / "tools"
        self._tools.mkdir()
        (self._tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (self._tools / "sudo").chmod(0o700)
        monkeypatch.setenv("SIKKERKEY_API_URL", vault.url)
        self.install("laptop")
        self.approve()
        assert shell("config", "cursor", "--write").status == 0

    @property
    def agent(self) -> str:
        """The first agent."""
        return sikkerkey_identity.installed_agents()[0]

    @property
    def slot(self) -> Path:
        """Its directory."""
        return self.home / ".sikkerkey" / "agents" / self.agent

    def install(self, name: str) -> None:
        """A new agent, in this process."""
        token = io.StringIO(self.vault.owner("agent-token", "--scopes", "all"))
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", token)
            assert self._shell("install", "-", "--name", name).status == 0

    def approve(self) -> None:
        """The owner approves every agent of this computer."""
        for agent in sikkerkey_identity.installed_agents():
            self.vault.owner("approve", agent)

    def run(self, command: str) -> None:
        """Runs a command in a shell, which may change variables. `install` gets a new token."""
        token = self.vault.owner("agent-token", "--scopes", "all") if "install" in command else ""
        variables = self.home / "variables"
        script = f'{command}\nstatus=$?\nenv -0 > "{variables}"\nexit $status'
        env = {**os.environ, "PATH": f"{self._tools}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", script], input=token, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        assert done.returncode == 0, (command, done.stderr)
        after = dict(line.split("=", 1) for line in variables.read_text().split("\0") if "=" in line)
        for name in {name for name in {*os.environ, *after} if name.startswith(("SIKKERKEY_", "SSL_"))}:
            if name in after:
                self.monkeypatch.setenv(name, after[name])
            else:
                self.monkeypatch.delenv(name)

    def problems(self) -> list[Line]:
        """What `doctor` does not find ok."""
        lines = [Line(**line) for line in json.loads(self._shell("doctor", "--json").out)]
        return [line for line in lines if line.state != "ok"]

    def apply(self, remedy: str) -> None:
        """Does what a remedy says: as the owner, or in the shell."""
        if remedy == doctor.APPROVE:
            self.approve()
        elif remedy == doctor.ENABLE:
            self.vault.owner("enable", self.agent)
        elif remedy not in WAIT:
            self.run(remedy)


def open_key(computer: Computer) -> None:
    """Others can read the key."""
    (computer.slot / "private.pem").chmod(0o644)


def open_home(computer: Computer) -> None:
    """Others can replace the agents."""
    (computer.home / ".sikkerkey").chmod(0o777)


def linked_key(computer: Computer) -> None:
    """The key is a link."""
    shutil.move(computer.slot / "private.pem", computer.home / "it's the key")
    (computer.slot / "private.pem").symlink_to(computer.home / "it's the key")


def damaged_key(computer: Computer) -> None:
    """The key is no key."""
    (computer.slot / "private.pem").write_text("-----BEGIN")


def damaged_identity(computer: Computer) -> None:
    """The identity is no JSON."""
    (computer.slot / "identity.json").write_text("{")


def wrong_address(computer: Computer) -> None:
    """The identity has an address that is refused."""
    path = computer.slot / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "apiUrl": "http://vault.test"}))


def pipe_as_identity(computer: Computer) -> None:
    """A FIFO in the place of the identity."""
    (computer.slot / "identity.json").unlink()
    os.mkfifo(computer.slot / "identity.json", 0o600)


def no_agent(computer: Computer) -> None:
    """The agent was deleted on this computer."""
    shutil.rmtree(computer.slot)


def revoked_at_the_vault(computer: Computer) -> None:
    """Another agent revoked this one; the vault's address is known from the agent alone."""
    elsewhere = {"SIKKERKEY_HOME": str(computer.home / "elsewhere")}
    token = computer.vault.owner("agent-token", "--scopes", "all")
    installed = run_process("install", "-", stdin=token, env=elsewhere)
    computer.vault.owner("approve", installed.stdout.split()[2])
    revoked = run_process("call", "manage_ai_agents", "revoke", f"agentId={computer.agent}", "--yes", env=elsewhere)
    assert revoked.returncode == 0, revoked.stderr
    computer.monkeypatch.delenv("SIKKERKEY_API_URL")


def disabled(computer: Computer) -> None:
    """The owner disabled the agent."""
    computer.vault.owner("disable", computer.agent)


def second_agent(computer: Computer) -> None:
    """A second agent, and no choice."""
    computer.install("second")


def wrong_choice(computer: Computer) -> None:
    """The environment names an agent that does not exist."""
    computer.monkeypatch.setenv("SIKKERKEY_AGENT_ID", "nobody")


def wrong_variable(computer: Computer) -> None:
    """A restriction that cannot be read."""
    computer.monkeypatch.setenv("SIKKERKEY_READ_ONLY", "perhaps")


def contradiction(computer: Computer) -> None:
    """Restrictions that leave nothing."""
    computer.monkeypatch.setenv("SIKKERKEY_TOOLS", "whoami")
    computer.monkeypatch.setenv("SIKKERKEY_EXCLUDE", "whoami")


def wrong_store(computer: Computer) -> None:
    """A certificate file that does not exist."""
    computer.monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")


def change_entry(computer: Computer, change: Callable[[list[str]], list[str]]) -> None:
    path = computer.home / ".cursor" / "mcp.json"
    document = json.loads(path.read_text())
    entry = document["mcpServers"]["sikkerkey"]
    entry["args"] = change(entry["args"])
    path.write_text(json.dumps(document))


def entry_of_a_gone_agent(computer: Computer) -> None:
    """The client's entry names an agent that was replaced."""
    change_entry(computer, lambda args: [*args[:-1], "gone"])


def entry_with_wrong_options(computer: Computer) -> None:
    """The client's entry has an option that does not exist."""
    change_entry(computer, lambda args: [*args, "--read-onyl"])


def entry_without_isolation(computer: Computer) -> None:
    """The client's entry lets other modules in."""
    change_entry(computer, lambda args: args[1:])


def no_entry(computer: Computer) -> None:
    """The client's file has no entry."""
    (computer.home / ".cursor" / "mcp.json").write_text("{}")


SITUATIONS: list[Callable[[Computer], None]] = [
    open_key, open_home, linked_key, damaged_key, damaged_identity, wrong_address,
    pipe_as_identity, no_agent, revoked_at_the_vault, disabled, second_agent, wrong_choice, wrong_variable,
    contradiction, wrong_store, entry_of_a_gone_agent, entry_with_wrong_options, entry_without_isolation, no_entry,
]  # fmt: skip


def test_computer_of_these_tests_is_ok(
    home: Path, local_vault: LocalVault, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [PROGRAM])
    assert Computer(home, local_vault, shell, monkeypatch).problems() == []


@pytest.mark.parametrize("spoil", SITUATIONS, ids=lambda spoil: spoil.__name__)
def test_remedies_as_printed_end_with_all_ok(
    spoil: Callable[[Computer], None],
    home: Path,
    local_vault: LocalVault,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", [PROGRAM])
    computer = Computer(home, local_vault, shell, monkeypatch)
    spoil(computer)
    problems = computer.problems()
    assert problems, "doctor notices nothing"
    for _ in range(ROUNDS_MAX):
        for remedy in dict.fromkeys(line.remedy for line in problems):
            computer.apply(remedy)
        problems = computer.problems()
        if not problems:
            return
    raise AssertionError(problems)
