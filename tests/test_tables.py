"""Tables for people: what they leave out, how they fit a terminal, and the options that choose a format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sikkerkey_cli import grammar, tables, terminal
from tests.support.harness import AGENT_ID, CannedResponse, Recorder, make_slot
from tests.support.shell import Shell, at_terminal

USAGE = 2
PROJECTS = [
    {"id": "proj_0000000000000001", "name": "Webshop", "description": None, "secretCount": 15},
    {"id": "proj_0000000000000002", "name": "søger 😀", "description": "", "secretCount": None},
]


@pytest.fixture
def vault(home: Path, recorder: Recorder) -> Recorder:
    """The vault of this computer's only agent, which lists PROJECTS."""
    make_slot(home, recorder.url)
    recorder.answer = lambda _seen: CannedResponse(body=json.dumps(PROJECTS).encode())
    return recorder


def lines(rows: list[Any], *wanted: str, width: int | None = None) -> list[str]:
    return tables.columns(rows, wanted, width).splitlines()


def test_columns_that_say_nothing_are_left_out() -> None:
    rows = [{"a": 1, "b": None, "c": "", "d": [], "e": None}, {"a": None, "b": None, "e": 0}]
    assert lines(rows) == ["a  e", "1  -", "-  0"]


def test_wanted_columns_are_shown_in_their_order_even_if_empty() -> None:
    rows = [{"a": 1, "b": None, "c": False}]
    assert lines(rows, "c", "b") == ["c      b", "false  -"]


def test_lists_of_names_and_inner_objects_are_spread_out() -> None:
    assert tables.members({"items": ["b", "a"]}).splitlines() == ["items", "b", "a"]
    shown = tables.members({"cascade": {"secrets": 15, "grants": None}, "preview": True})
    assert shown.splitlines() == ["cascade.secrets  15", "cascade.grants   -", "preview          true"]


def test_of_several_lists_that_with_the_wanted_columns_is_shown() -> None:
    value = {"byProject": [{"projectId": "p", "count": 1}], "total": 1, "items": [{"id": "s", "projectId": "p"}]}
    assert tables.members(value, ["projectId", "id"]).splitlines() == ["projectId  id", "p          s"]
    assert tables.members(value, ["id"]).splitlines() == ["id", "s"]


def test_long_texts_are_shortened_unless_their_column_is_wanted() -> None:
    rows = [{"note": "y" * 80 + "\x1b", "id": 1}]
    assert lines(rows)[1] == f"{'y' * 60}...  1"
    assert lines(rows, "note")[1] == f"{'y' * 80}<U+001B>"


def test_empty_lists_and_allowlists_are_words() -> None:
    rows = [{"scopes": [], "projectAllowlist": None}, {"scopes": ["a", "b"], "projectAllowlist": []}]
    assert lines(rows) == ["scopes  projectAllowlist", "none    all projects", "a, b    none"]
    assert (
        tables.members({"projectAllowlist": None, "note": None})
        == "projectAllowlist  all projects\nnote              -"
    )


def test_long_cells_are_wrapped_at_spaces_to_the_width() -> None:
    rows = [
        {"id": "proj_1", "about": "a shop on the web", "count": 1},
        {"id": "p", "about": "日本 日本 日本", "count": 2},
    ]
    assert lines(rows, width=23) == [
        "id      about   count",
        "proj_1  a shop  1",
        "        on the",
        "        web",
        "p       日本    2",
        "        日本",
        "        日本",
    ]


def test_columns_that_cannot_fit_become_paragraphs() -> None:
    rows = [{"id": "proj_0000000000000001", "url": "https://hooks.example.com", "note": "a few words too many"}] * 2
    paragraph = [
        "id    proj_0000000000000001",
        "url   https://hooks.example.com",
        "note  a few words too many",
    ]
    assert lines(rows, width=30) == [*paragraph, "", *paragraph]


def test_no_line_is_longer_than_the_terminal() -> None:
    rows = [{name: f"{name} " * 9 for name in ("one", "two", "three", "four")}]
    for width in range(30, 200, 7):
        assert all(terminal.text_width(line) <= width for line in lines(rows, width=width)), width


def test_formats_have_short_and_long_names(shell: Shell, vault: Recorder) -> None:
    words = ("call", "manage_projects", "list")
    table = shell(*words, "--table")
    assert table.out.splitlines() == [
        "id                     name      secretCount",
        "proj_0000000000000001  Webshop   15",
        "proj_0000000000000002  søger 😀  -",
    ]
    for same in (("-o", "table"), ("--output", "table"), ("--output=table",), ("-otable",)):
        assert shell(*words, *same) == table, same
    plain = shell(*words)
    assert json.loads(plain.out)["items"][0]["name"] == "Webshop"
    for same in (("-o", "json"), ("--json",)):
        assert shell(*words, *same) == plain, same


def test_columns_choose_and_order_what_a_table_shows(shell: Shell, vault: Recorder) -> None:
    ran = shell("call", "manage_projects", "list", "--columns", "name,id")
    assert ran.out.splitlines() == [
        "name      id",
        "Webshop   proj_0000000000000001",
        "søger 😀  proj_0000000000000002",
    ]
    unknown = shell("call", "manage_projects", "list", "--columns", "nam")
    assert (unknown.status, len(vault.seen)) == (USAGE, 1)
    assert unknown.err == "sikkerkey-mcp: error: nam is no member of this answer\nhint: did you mean name?\n"


def test_format_must_be_known_and_only_one(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    for words, reason in (
        (("call", "whoami", "-o", "yaml"), "must be json or table; --to-file FILE writes to a file"),
        (("call", "whoami", "-o", "jsn"), "must be json or table; --to-file FILE writes to a file"),
        (("whoami", "-o", "./x.json"), "must be json or table"),
        (("call", "whoami", "--json", "--table"), "either JSON or a table"),
        (("call", "whoami", "--json", "--columns", "id"), "either JSON or a table"),
        (("call", "whoami", "-o", "x.json", "--to-file", "y"), "--to-file names the file"),
        (("config", "cursor", "--write", "--json"), "not for a change of the file"),
    ):
        ran = shell(*words)
        assert (ran.status, ran.out, reason in ran.err) == (USAGE, "", True), (words, ran.err)
    assert vault.seen == []


def test_output_still_takes_the_name_of_a_file(
    shell: Shell, vault: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell("call", "manage_projects", "list", "--output", "list.json").out == ""
    assert json.loads((tmp_path / "list.json").read_text())["total"] == 2
    assert shell("call", "manage_projects", "list", "-o", "json").out != ""
    assert not (tmp_path / "json").exists()


def test_every_command_with_results_has_json(shell: Shell, vault: Recorder, home: Path) -> None:
    [agent] = json.loads(shell("whoami", "--json").out)
    assert (agent["agentId"], agent["apiUrl"]) == (AGENT_ID, vault.url)
    vault.answer = lambda _seen: CannedResponse(body=b'{"name": "a", "projectAllowlist": null}')
    assert json.loads(shell("whoami", "--remote", "-o", "json").out) == {"name": "a", "projectAllowlist": None}
    assert shell("whoami", "--remote").out == "name: a\nprojectAllowlist: all projects\n"
    block = json.loads(shell("config", "cursor", "-o", "json").out)
    assert (block["client"], block["format"], "sikkerkey" in block["block"]) == ("cursor", "json", True)
    assert json.loads(shell("tools", "-o", "json").out)[0]["tool"] == "whoami"
    assert json.loads(shell("fill", "-o", "json").out) == []
    assert shell("log", "-o", "json").out == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_valid_whatever_the_terminal_supports(vault: Recorder, encoding: str) -> None:
    shown = at_terminal(["call", "manage_projects", "list", "-o", "json"], b"", {"PYTHONIOENCODING": encoding})
    assert json.loads(shown.decode(encoding))["items"][1]["name"] == "søger 😀"


def test_help_is_wrapped_to_the_terminal_and_keeps_its_columns() -> None:
    for name, command in grammar.COMMANDS.items():
        shown = grammar.wrapped_help(command.examples, 66)
        assert all(len(line) <= 66 or " " not in line.strip() for line in shown.splitlines()), name
        assert shown.split() == command.examples.split(), name
        assert grammar.wrapped_help(command.examples, None) == command.examples, name
    assert "--since -24h       also a date, or a time such\n" + " " * 39 + "as" in grammar.wrapped_help(
        grammar.COMMANDS["log"].examples, 66
    )
