"""The grammar of the owner's commands: directories, names for ids, suggestions, completion, and how output looks."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import sikkerkey_mcp
from tests.vault.support.commands import run_command, run_line, run_on_terminal
from tests.vault.support.served_vault import ROOT, Agent, Vault
from vault import VERSION, place
from vault.control import Control
from vault.errors import VaultError
from vault.owner import commands_vault, looks
from vault.owner.cli import all_commands
from vault.owner.completion import candidates
from vault.schema import open_store
from vault.server import ListenOptions

WORDS = "several unrelated words"


def run(*line: str) -> tuple[int, str, str]:
    return run_line(line, io.StringIO(), io.StringIO())


# ---- the directory ---------------------------------------------------------------------------------------------------


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, variables, expected in (
        ("linux", {"HOME": "/home/a"}, "/home/a/.local/share/sikkerkey-vault"),
        ("linux", {"HOME": "/home/a", "XDG_DATA_HOME": "/data"}, "/data/sikkerkey-vault"),
        ("linux", {"HOME": "/home/a", "XDG_DATA_HOME": "data"}, "/home/a/.local/share/sikkerkey-vault"),
        ("darwin", {"HOME": "/Users/a"}, "/Users/a/Library/Application Support/sikkerkey-vault"),
        ("darwin", {"HOME": "/Users/a", "SIKKERKEY_VAULT_DIR": "/v"}, "/v"),
    ):
        monkeypatch.setattr(sys, "platform", system)
        with mock.patch.dict(os.environ, variables, clear=True):
            assert place.default_directory() == Path(expected), (system, variables)
    for variables in ({"SIKKERKEY_VAULT_DIR": "v", "HOME": "/home/a"}, {"HOME": "home"}):
        with mock.patch.dict(os.environ, variables, clear=True), pytest.raises(VaultError):
            place.default_directory()


def test_commands_use_the_default_directory_and_hints_omit_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "my vault"
    monkeypatch.setenv("SIKKERKEY_VAULT_DIR", str(directory))
    hint = "hint: name another --dir, or create one: python -m vault init\n"
    assert run("agents")[2] == f"vault: error: there is no vault in '{directory}'\n{hint}"
    assert run("init")[0] == 0
    assert run("agents")[2] == "hint: no agents yet; create a token: python -m vault agent-token --scopes all\n"
    monkeypatch.setenv("SIKKERKEY_VAULT_DIR", str(tmp_path / "other"))
    hint = f"hint: no agents yet; create a token: python -m vault agent-token --scopes all --dir '{directory}'\n"
    assert run("agents", "--dir", str(directory))[2] == hint
    monkeypatch.chdir(tmp_path)
    assert run("agents", "--dir", "my vault")[2] == hint
    monkeypatch.setenv("SIKKERKEY_VAULT_DIR", "relative")
    assert run("agents")[::2] == (
        1,
        "vault: error: SIKKERKEY_VAULT_DIR is not an absolute path\nhint: set it to one, or use --dir\n",
    )


# ---- names for ids ---------------------------------------------------------------------------------------------------


def test_an_agent_is_named_by_id_name_or_beginning_of_its_id(vault: Vault, agent: Agent) -> None:
    for text in (agent.id, "AI agent", agent.id[:8]):
        status, out, _ = run_command(vault.directory, "disable", text)
        assert (status, out) == (0, f"disabled AI agent ({agent.id})\n"), text


def test_an_ambiguous_or_unknown_name_lists_candidates(vault: Vault, agent: Agent) -> None:
    first, second = agent.project("Webshop"), agent.project("Webshop")
    status, out, err = run_command(vault.directory, "secrets", "Webshop")
    assert (status, out) == (1, "")
    message, hint = err.splitlines()
    assert message == "vault: error: project Webshop is ambiguous"
    assert hint.startswith("hint: give the whole id: ")
    assert {f"{first} (Webshop)", f"{second} (Webshop)"} == set(hint.partition("id: ")[2].split(", "))
    assert run_command(vault.directory, "secrets", "proj_")[2].startswith("vault: error: project proj_ is ambiguous")
    for text in ("Webshp", "webshop"):
        assert "hint: did you mean " in run_command(vault.directory, "secrets", text)[2], text
    assert "hint: there are " in run_command(vault.directory, "secrets", "zzz")[2]
    for number in range(5):
        agent.project(f"x\x1b{number}")
    many = run_command(vault.directory, "secrets", "proj_")[2]
    assert many.count("(") == 5
    assert many.endswith(", ...\n")
    assert "\x1b" not in many
    assert run_command(vault.directory, "secrets", "")[2].startswith("vault: error: there is no project \n")


def test_a_name_comes_before_the_beginning_of_an_id(vault: Vault, agent: Agent) -> None:
    other = agent.project("Other")
    named = agent.project(other[:9])
    found = json.loads(run_command(vault.directory, "unfreeze", other[:9], "--json")[1])
    assert found["id"] == named


def test_approve_without_a_name_takes_the_only_one_that_waits(vault: Vault) -> None:
    assert run_command(vault.directory, "approve")[2].startswith("vault: error: nothing is waiting for approval\n")
    pending = vault.pending()
    listed = run_command(vault.directory, "agents")[2]
    assert listed == f"hint: to approve AI agent: python -m vault approve {pending.id} --dir {vault.directory}\n"
    assert run_command(vault.directory, "approve")[1].startswith(f"approved AI agent ({pending.id})")
    first, second = vault.pending(), vault.pending()
    status, _, err = run_command(vault.directory, "approve")
    assert (status, err.splitlines()[0]) == (1, "vault: error: 2 agents and machines are waiting for approval")
    assert first.id in err
    assert second.id in err


# ---- grammar ---------------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_release() -> None:
    assert VERSION == sikkerkey_mcp.VERSION
    assert run("--version") == (0, f"sikkerkey-vault {VERSION}\n", "")


def test_a_mistyped_command_or_option_is_suggested() -> None:
    for line, message, hint in (
        (["polices"], "there is no command polices", "did you mean policies? python -m vault --help"),
        (["xyzzy"], "there is no command xyzzy", "python -m vault --help"),
        (
            ["agent-token", "--scpes", "all"],
            "unknown option --scpes",
            "did you mean --scopes? python -m vault agent-token --help",
        ),
        (["agents", "--colour=x"], "unknown option --colour", "python -m vault agents --help"),
        (["agents", "x"], "too many arguments", "python -m vault --help"),
        (["\x1b[2J"], "there is no command \ufffd[2J", "python -m vault --help"),
    ):
        assert run(*line) == (2, "", f"vault: error: {message}\nhint: {hint}\n"), line


def test_every_command_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    line = all_commands()
    for name in line.commands:
        assert run_line([name, "--help"], io.StringIO(), io.StringIO())[0] == 0, name
    assert capsys.readouterr().err == ""
    listed = line.parser.format_help()
    assert [name for name in line.commands if f"\n  {name}  " not in listed] == []
    assert run("help") == run("--help") == (0, listed, "")
    assert run("help", "put") == run("put", "--help")


def test_a_sealed_vault_is_served_after_its_passphrase_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "vault"
    served: list[object] = []
    monkeypatch.setattr("vault.server.serve", lambda *arguments: served.append(arguments))
    open_store(directory, WORDS).close()
    assert run_on_terminal(directory, "serve", hidden=[WORDS])[0] == 0
    assert run_command(directory, "serve")[0] == 0  # without a terminal it starts sealed
    (tmp_path / "open").mkdir(0o700)
    open_store(tmp_path / "open").close()
    for other in (tmp_path / "open", tmp_path / "new"):
        assert run_on_terminal(other, "serve")[0] == 0
    assert served == [
        (directory, ListenOptions(), WORDS),
        (directory, ListenOptions(), None),
        (tmp_path / "open", ListenOptions(), None),
        (tmp_path / "new", ListenOptions(), None),
    ]
    with open_store(directory) as store, Control(store, lambda: 0, "http://here", "https://here"):
        assert commands_vault._needs_passphrase(directory) is False, "the server has it open already"


# ---- completion ------------------------------------------------------------------------------------------------------


def words(line: str) -> list[str]:
    """The candidates for the last word of a line."""
    *before, current = line.split(" ")
    return [found.word for found in candidates(all_commands(), [word for word in before if word], current)]


def test_commands_and_options_are_completed() -> None:
    assert words("") == list(all_commands().commands)
    assert words("re") == ["rekey", "restore", "revoke", "reveal", "reply"]
    assert words("--v") == ["--version"]
    assert words("trash --") == ["--help", "--dir", "--json", "--restore", "--passphrase-file"]
    assert words("completion ") == ["bash", "zsh", "fish"]
    assert words("rekey --to ") == ["passphrase", "key-file"]
    assert words("agent-token --scopes audit.read,team") == ["audit.read,team.read", "audit.read,team.write"]
    assert words("nope ") == words("backup ") == words("secrets x ") == []


def test_names_are_those_of_the_vault(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_VAULT_DIR", str(vault.directory))
    shop, twice, again = agent.project("Web shop"), agent.project("Twice"), agent.project("Twice")
    hostile = agent.project("a\tb")
    secret = agent.secret(shop, "hunter2").rpartition("/")[2]
    assert secret
    assert set(words("secrets ")) == {"Web shop", twice, again, hostile}
    assert words("secrets Web") == ["Web shop"]
    assert words("reveal ") == ["db"]
    assert words("disable ") == words("approve ") == words("made --agent ") == ["AI agent"]
    assert f"x,{twice}" in words("scopes y --projects x,")
    assert words(f"secrets --dir {vault.directory}x ") == []
    monkeypatch.setenv("SIKKERKEY_VAULT_DIR", "relative")
    assert words("secrets ") == []
    assert set(words(f"secrets --dir {vault.directory} ")) == {"Web shop", twice, again, hostile}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_script_works_in_bash(vault: Vault, agent: Agent) -> None:
    agent.project("Web shop")
    script = run("completion", "bash")[1]
    line = f"sikkerkey-vault secrets --dir {vault.directory} We"
    test = f"{script}\nCOMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _sikkerkey_vault; echo \"${{COMPREPLY[0]}}\""
    shown = subprocess.run(["bash", "-c", test], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "'Web shop'\n"


# ---- looks -----------------------------------------------------------------------------------------------------------


def test_tables_are_as_wide_as_the_terminal(vault: Vault, agent: Agent) -> None:
    project = agent.project("Webshop")
    agent.secret(project, "x", note="a note that is longer than what is left of the line " * 3)
    piped = run_command(vault.directory, "secrets", "Webshop")[1].splitlines()
    assert len(piped) == 2
    assert len(piped[1]) > 200
    wide = run_on_terminal(vault.directory, "secrets", "Webshop", columns=100)[1].splitlines()
    assert len(wide) > 3
    assert max(map(len, wide)) <= 100
    assert wide[2].startswith(" " * 60)
    narrow = run_on_terminal(vault.directory, "secrets", "Webshop", columns=60)[1].splitlines()
    assert [line.split()[0] for line in narrow if not line.startswith(" ")] == [
        "ID", "NAME", "TYPE", "VERSION", "CHANGED", "NOTE",
    ]  # fmt: skip
    assert max(map(len, narrow)) <= 60


def test_wide_characters_take_two_columns() -> None:
    table = looks.format_table(("A", "B"), [("秘密", "x"), ("e\u0301", "y")])
    assert table.splitlines() == ["A     B", "秘密  x", "e\u0301     y"]


def test_colour_is_for_terminals_that_show_it(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.id
    for term, no_color, is_coloured in (("xterm", "", True), ("dumb", "", False), ("xterm", "1", False)):
        monkeypatch.setenv("TERM", term)
        out = run_on_terminal(vault.directory, "agents", no_color=no_color)[1]
        err = run_on_terminal(vault.directory, "approve", "x", no_color=no_color)[2]
        assert ("\x1b[32mapproved\x1b[0m" in out) is is_coloured, (term, no_color)
        assert ("\x1b[31merror\x1b[0m" in err) is is_coloured, (term, no_color)
    assert "\x1b" not in run_command(vault.directory, "agents")[1]
