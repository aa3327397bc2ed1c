"""The owner's command line: what it prints, where, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.harness import START_MS, Agent, Vault
from vault.cli import main
from vault.terminal import printable

UNKNOWN = "00000000-0000-0000-0000-000000000000"


class Owner:
    """Runs commands against one directory; answers status, standard output and standard error."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capture = capture

    def __call__(self, command: str, *arguments: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        try:
            status = main([command, "--dir", str(self.directory), *arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *self._capture.readouterr()


@pytest.fixture
def owner(vault: Vault, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(vault.directory, capsys)


def test_agent_token_prints_the_token_and_nothing_else(vault: Vault, owner: Owner) -> None:
    status, out, err = owner("agent-token", "--scopes", "projects.read, audit.read,projects.read", "--name", "Bob")
    assert (status, err.count("hint: ")) == (0, 2)
    vault.clock.now_ms = START_MS  # the command used the real clock, which is later than this one
    reply = vault.register(out.strip(), Ed25519PrivateKey.generate())
    assert reply.json["name"] == "Bob"
    _, listing, _ = owner("agents", "--json")
    assert [row["scopes"] for row in json.loads(listing)] == [["projects.read", "audit.read"]]


def test_a_token_can_be_bound_to_projects(vault: Vault, owner: Owner, agent: Agent) -> None:
    project_id = agent.project()
    _, out, _ = owner("agent-token", "--scopes", "all", "--projects", project_id)
    agent_id = vault.register(out.strip(), Ed25519PrivateKey.generate()).json["agentId"]
    rows = {row["agentId"]: row for row in json.loads(owner("agents", "--json")[1])}
    assert rows[agent_id]["projectAllowlist"] == [project_id]
    assert rows[agent.id]["projectAllowlist"] is None


def test_agents_shows_a_table(vault: Vault, owner: Owner) -> None:
    status, out, err = owner("agents")
    assert (status, out) == (0, "")
    assert err.startswith("hint: no agents yet")
    agent = vault.pending(("audit.read",))
    header, row = owner("agents")[1].splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "SCOPES", "PROJECTS"]
    assert row.split() == [agent.id, "AI", "agent", "pending", "audit.read", "all"]


def test_a_hostile_name_cannot_steer_the_terminal(vault: Vault, owner: Owner) -> None:
    hostile = "a\x1b[2J\u202eb\u200b\u3164\nc"
    reply = vault.register(vault.token(), Ed25519PrivateKey.generate(), name=hostile)
    _, out, _ = owner("agents")
    assert len(out.splitlines()) == 2
    assert "a\ufffd[2J\ufffdb\ufffd\ufffd\ufffdc" in out
    assert hostile not in owner("approve", reply.json["agentId"])[1]
    assert printable("søger 秘密 🔑\u00a0x") == "søger 秘密 🔑 x"


def test_approve_disable_and_enable_say_what_they_did(vault: Vault, owner: Owner) -> None:
    agent = vault.pending()
    status, out, err = owner("enable", agent.id)
    assert (status, out) == (0, f"enabled AI agent ({agent.id})\n")
    assert err.startswith("hint: the agent is pending until")
    assert owner("approve", agent.id) == (0, f"approved AI agent ({agent.id})\n", "")
    assert owner("disable", agent.id) == (0, f"disabled AI agent ({agent.id})\n", "")
    assert json.loads(owner("agents", "--json")[1])[0]["state"] == "disabled"
    assert owner("approve", agent.id)[2].startswith("hint: the agent is disabled")
    assert [row["user_id"] for row in vault.audited("ai_agent_disable")] == ["owner"]


@pytest.mark.parametrize("command", ["approve", "disable", "enable"])
def test_an_unknown_agent_is_an_error(owner: Owner, command: str) -> None:
    status, out, err = owner(command, UNKNOWN)
    hint = "hint: list them with: python -m vault agents --dir DIR\n"
    assert (status, out, err) == (1, "", f"vault: error: there is no agent {UNKNOWN}\n{hint}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scopes", "projects.read,magic"], "unknown scope magic"),
        (["--scopes", "\x1b[2J"], "unknown scope \ufffd[2J"),
        (["--scopes", ","], "no scope given"),
        (["--scopes", "all", "--projects", "proj_x"], "there is no project proj_x"),
        (["--scopes", "all", "--projects", ""], "no project given"),
        (["--scopes", "all", "--name", "x" * 256], "the name must have 1 to 255 characters"),
    ],
)
def test_a_token_that_cannot_be_made_is_explained(owner: Owner, arguments: list[str], message: str) -> None:
    status, out, err = owner("agent-token", *arguments)
    assert (status, out, err.splitlines()[0]) == (1, "", f"vault: error: {message}")
    assert err.splitlines()[1].startswith("hint: ")


def test_the_hint_for_an_unknown_scope_lists_those_that_exist(owner: Owner) -> None:
    assert "projects.secrets.write" in owner("agent-token", "--scopes", "magic")[2]


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--colour"]])
def test_a_wrong_command_line_is_status_2(owner: Owner, arguments: list[str]) -> None:
    status, out, err = owner("serve", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("vault: error: ")
    assert err.splitlines()[1].startswith("hint: python -m vault ")


def test_a_directory_that_cannot_be_used_is_an_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    status, _, err = Owner(tmp_path / "file" / "vault", capsys)("agents")
    assert (status, err.splitlines()[0].endswith("cannot be used: not a directory")) == (1, True)
