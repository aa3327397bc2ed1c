"""Completion: the candidates, and the scripts in real shells."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import sikkerkey_mcp
from sikkerkey_cli import clients, completion, grammar
from sikkerkey_cli.completion import candidates
from tests.support.harness import AGENT_ID, TIMEOUT_S, CannedResponse, Recorder, make_slot
from tests.support.rows import each_of
from tests.support.shell import COMMAND, PROGRAM, Shell
from tests.support.table_calls import ROWS

OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"


def words(line: str) -> list[str]:
    """The candidates for the last word of a line."""
    *before, current = line.split(" ")
    return [found.word for found in candidates([word for word in before if word], current)]


def test_commands_are_those_of_the_parser() -> None:
    assert words("") == [*grammar.COMMANDS, "help"]
    assert words("help ") == list(grammar.COMMANDS)
    assert words("re") == ["revoke"]
    assert words("nope ") == []


def test_options_are_those_of_the_command() -> None:
    assert words("doctor -") == ["--help", "--output", "--json", "--agent"]
    assert words("doctor --json --") == ["--help", "--output", "--agent"]
    assert words("doctor --output ") == words("call whoami -o ") == ["json", "table"]
    assert words("--v") == ["--version", "--verbose"]


def test_values_of_options_are_offered(home: Path) -> None:
    make_slot(home, "https://vault.test")
    assert words("config cursor --values ") == ["any", "from-person"]
    assert words("setup --client cu") == ["cursor"]
    assert words("setup --agent ") == [AGENT_ID, "new"]
    assert words("config cursor --max-calls ") == []


def test_agents_are_those_of_the_home(home: Path) -> None:
    make_slot(home, "https://vault.test")
    make_slot(home, "https://vault.test", OTHER_ID)
    for line in (
        "serve --agent ",
        "call --agent ",
        "call whoami --agent ",
        "revoke ",
        "revoke --server ",
        "revoke x --by ",
    ):
        assert words(line) == [AGENT_ID, OTHER_ID], line


def test_agents_have_names_that_need_no_quotes(home: Path) -> None:
    make_slot(home, "https://vault.test", name="laptop")
    make_slot(home, "https://vault.test", OTHER_ID, name="my server")
    assert words("call whoami --agent ") == ["laptop", AGENT_ID, OTHER_ID]
    assert words("whoami --agent l") == ["laptop"]


LISTS = {
    "/v1/ai/projects": [{"id": "proj_1", "name": "Webshop"}, {"id": "proj_2", "name": "Data Warehouse"}],
    "/v1/ai/projects/proj_2/secrets": [{"id": "sk_1", "name": "DB"}, {"id": "sk_2", "name": "S$(x)"}],
    "/v1/ai/projects/proj_1/secrets": [{"id": "sk_3", "name": "same"}, {"id": "sk_4", "name": "same"}],
}


def test_names_of_the_vault_are_completed(home: Path, recorder: Recorder, shell: Shell) -> None:
    make_slot(home, recorder.url)
    recorder.answer = lambda seen: CannedResponse(body=json.dumps(LISTS.get(seen.path, [])).encode())
    assert words("call manage_secrets list project=") == ["project=Webshop", "project=proj_1", "project=proj_2"]
    assert words("call manage_secrets list projectId=W") == ["projectId=Webshop"]
    assert words("call manage_secrets get project=proj_2 secret=") == ["secret=DB", "secret=sk_1", "secret=sk_2"]
    assert words("call manage_secrets get project=Webshop secret=") == ["secret=sk_3", "secret=sk_4"]
    grants = "call manage_project_machines grants_set project=proj_2 machine=m secrets=sk_1,"
    assert words(grants) == ["secrets=sk_1,DB", "secrets=sk_1,sk_1", "secrets=sk_1,sk_2"]
    line = "sikkerkey-mcp call --agent 'test agent' manage_secrets get project='Data Warehouse' secret=D"
    assert shell("__complete", "zsh", line) == (0, "secret=DB\tsk_1\n", "")
    assert words("call manage_secrets get secret=") == []  # no project: nothing is asked


def test_a_vault_that_does_not_answer_stops_no_shell(
    home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, recorder.url)
    asked = threading.Event()

    def wait(_seen: object) -> CannedResponse:
        asked.wait(TIMEOUT_S)
        return CannedResponse()

    recorder.answer = wait
    monkeypatch.setattr(completion, "ANSWER_MAX_S", 0.0)
    assert words("call manage_secrets list project=") == []
    asked.set()
    for thread in threading.enumerate():
        if thread.name == "completion":
            thread.join(TIMEOUT_S)
    recorder.answer = lambda _seen: CannedResponse(403)
    monkeypatch.setattr(completion, "ANSWER_MAX_S", TIMEOUT_S)
    assert words("call manage_secrets list project=") == []


def test_value_of_another_option_has_no_candidates() -> None:
    for line in ("install --name ", "call --to-file ", "config cursor --tools ", "serve --exclude "):
        assert words(line) == [], line


def test_completion_offers_nothing_if_the_home_cannot_be_read(home: Path) -> None:
    (home / ".sikkerkey").write_text("")
    assert words("serve --agent ") == []


def test_clients_and_shells_are_those_of_the_parser() -> None:
    assert words("completion ") == ["bash", "zsh", "fish", "powershell"]
    assert words("config ") == list(clients.CLIENTS)
    assert "--write" in words("config cursor -")


def test_tools_and_actions_are_those_of_the_table() -> None:
    assert words("call ") == words("tools describe ") == [tool.name for tool in sikkerkey_mcp.TOOLS]
    assert words("call manage_trash ") == words("tools describe manage_trash ") == ["list", "restore", "purge"]
    assert words("call --table manage_trash p") == ["purge"]
    assert words("call nope ") == words("call nope nope ") == words("tools list ") == []


def test_arguments_are_those_of_the_action() -> None:
    for row in ROWS:
        action = f" {row.action.name}" if sikkerkey_mcp.has_actions(row.tool) else ""
        assert words(f"call {row.tool.name}{action} ") == [f"{arg.name}=" for arg in row.action.args], row


def test_given_argument_is_not_offered_again() -> None:
    assert words("call manage_secrets rename projectId=p ") == ["secretId=", "name="]


def test_values_are_offered_where_the_table_lists_them() -> None:
    assert words("call manage_secrets rotate charset=") == [
        *("charset=symbols", "charset=alphanumeric", "charset=numbers", "charset=uuid")
    ]
    assert words("call manage_canaries config triggerFreezeProject=t") == ["triggerFreezeProject=true"]
    assert words("call manage_secrets create value=") == ["value=-"]
    assert words("call manage_secrets create name=") == words("call manage_secrets create nope=") == []


def test_bash_gets_the_text_after_the_last_equals_sign(shell: Shell) -> None:
    line = "sikkerkey-mcp call manage_secrets rotate charset=al"
    assert shell("__complete", "bash", line) == (0, "alphanumeric\t\n", "")
    assert shell("__complete", "zsh", line).out == "charset=alphanumeric\t\n"


@each_of("line", [[], [""], ["bash"], ["bash", ""], ["bash", "sikkerkey-mcp 'x\" "]])
def test_unusual_lines_cause_no_error(shell: Shell, line: list[str]) -> None:
    assert shell("__complete", *line).status == 0


# the shells themselves


@pytest.fixture
def bin_path(tmp_path: Path) -> str:
    """A PATH with a `sikkerkey-mcp` that prints its arguments, each in brackets."""
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "sikkerkey-mcp"
    command.write_text("#!/bin/sh\nprintf 'got:'; printf '[%s]' \"$@\"; echo\n")
    command.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def script(name: str) -> str:
    """The completion script for a shell."""
    ended = subprocess.run([*COMMAND, "completion", name], capture_output=True, text=True, check=True)
    return ended.stdout


def needs(name: str) -> str:
    """The path of a shell; skips the test if it is not installed."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def typed(command: Sequence[str], env: dict[str, str], start: str, lines: Sequence[str]) -> list[str]:
    """The arguments of `sikkerkey-mcp` for each line, when the lines are typed with tabs in an interactive shell."""
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        command, env={**os.environ, **env}, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as process:
        os.close(terminal)
        try:
            _wait(keyboard, f"{start}; echo rea''dy\n", r"ready\r\n")
            return [_wait(keyboard, line + "\n", r"got:(.*?)\r\n") for line in lines]
        finally:
            process.kill()
            os.close(keyboard)


def _wait(keyboard: int, text: str, wanted: str) -> str:
    os.write(keyboard, text.encode())
    shown, until_s = "", time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        if select.select([keyboard], [], [], 0.1)[0]:
            shown += os.read(keyboard, 4096).decode("utf-8", "replace")
        if found := re.search(wanted, shown):
            return found[found.lastindex or 0]
    raise AssertionError(f"no {wanted} in {shown!r}")


LINES = [
    "sikkerkey-mcp call manage_tr\trest\tsec\tx",
    "sikkerkey-mcp call manage_secrets rotate charset=al\t",
    "sikkerkey-mcp who\t--rem\t",
]
GOT = [
    "[call][manage_trash][restore][secretId=x]",
    "[call][manage_secrets][rotate][charset=alphanumeric]",
    "[whoami][--remote]",
]


def test_bash_completes(bin_path: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script("bash"))
    env = {"PATH": bin_path, "TERM": "xterm", "PS1": "$ "}
    command = [needs("bash"), "--norc", "--noprofile", "-i"]
    assert typed(command, env, f"source {tmp_path}/script", LINES) == GOT


def test_zsh_completes(bin_path: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script("zsh"))
    env = {"PATH": bin_path, "TERM": "xterm", "PS1": "$ "}
    start = f"autoload -U compinit; compinit -D -u; source {tmp_path}/script"
    assert typed([needs("zsh"), "-f", "-i"], env, start, LINES) == GOT


def test_fish_completes(bin_path: str, tmp_path: Path) -> None:
    fish = needs("fish")
    (tmp_path / "script").write_text(script("fish"))

    def ask(line: str) -> list[str]:
        code = f"source {tmp_path}/script; complete -C '{line}'"
        env = {**os.environ, "PATH": bin_path}
        ended = subprocess.run([fish, "--no-config", "-c", code], env=env, capture_output=True, text=True, check=True)
        return [found.split("\t")[0] for found in ended.stdout.splitlines()]

    assert ask("sikkerkey-mcp call manage_trash ") == ["list", "purge", "restore"]
    assert ask("sikkerkey-mcp call manage_trash restore sec") == ["secretId="]
    assert ask("sikkerkey-mcp call manage_secrets rotate charset=al") == ["charset=alphanumeric"]
    assert f"{tmp_path}/script" in ask(f"sikkerkey-mcp call whoami --to-file {tmp_path}/scr")


def test_powershell_script_passes_the_line_before_the_cursor() -> None:
    shown = script("powershell")
    assert shown.startswith("Register-ArgumentCompleter -Native -CommandName 'sikkerkey-mcp', 'sikkerkey-mcp.pyz' -S")
    assert f"& '{sys.executable}' '-I' '{PROGRAM}' '__complete' powershell $line 2>$null" in shown
    for opening, closing in (("{", "}"), ("(", ")"), ("[", "]")):
        assert shown.count(opening) == shown.count(closing)


@each_of(("name", "quoted"), [
    ("bash", "'/opt/it'\"'\"'s \\ $x/mcp.pyz'"),
    ("zsh", "'/opt/it'\"'\"'s \\ $x/mcp.pyz'"),
    ("fish", "'/opt/it\\'s \\\\ $x/mcp.pyz'"),
    ("powershell", "'/opt/it''s \\ $x/mcp.pyz'"),
])  # fmt: skip
def test_program_path_is_quoted_for_the_shell(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, quoted: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/it's \\ $x/mcp.pyz"])
    assert quoted in shell("completion", name).out
