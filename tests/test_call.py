"""`tools` and `call`: their output, requests and refusals, and the values that they never accept or repeat."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_http
import sikkerkey_mcp
from sikkerkey_cli import call, terminal, tools
from sikkerkey_cli.words import READ_MAX_BYTES, Words
from tests.support.harness import TIMEOUT_S, CannedResponse, Recorder, make_slot
from tests.support.rows import each_of
from tests.support.schema_check import wait_until
from tests.support.shell import COMMAND, Shell, Terminal, at_terminal, run_process
from tests.support.table_calls import ROWS

SECRET = "canary-5d41402a"
MACHINE_ID = "00000000-0000-4000-8000-000000000001"
# Complete ids, which are not looked up.
PROJECT, MACHINE = "projectId=proj_0000000000000001", f"machineId={MACHINE_ID}"
STORED, CANARY = "secretId=sk_0000000000000001", "canaryId=sk_0000000000000001"
UPDATE_PATH = "/v1/ai/projects/proj_0000000000000001/secrets/sk_0000000000000001/update"
USAGE = 2
LISTED = "hint: `sikkerkey-mcp tools` lists them\n"


@pytest.fixture
def vault(home: Path, recorder: Recorder) -> Recorder:
    """The vault of this computer's only agent."""
    make_slot(home, recorder.url)
    return recorder


def answering(vault: Recorder, value: Any) -> None:
    vault.answer = lambda _seen: CannedResponse(body=json.dumps(value).encode())


def sent(vault: Recorder) -> list[tuple[str, str, Any]]:
    return [(seen.method, seen.path, seen.json() if seen.body else None) for seen in vault.seen]


def stdin_is(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Replaces stdin with one that contains `data`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


# tools


def test_tools_are_listed_with_their_numbers_of_actions(shell: Shell) -> None:
    ran = shell("tools")
    rows = [line.split("  ")[0] for line in ran.out.splitlines()]
    assert (ran.status, rows, ran.err) == (0, ["TOOL", *(tool.name for tool in sikkerkey_mcp.TOOLS)], "")
    assert shell("tools", "list") == ran


def test_list_as_json_contains_the_whole_table(shell: Shell) -> None:
    listed = json.loads(shell("tools", "list", "--json").out)
    actions = [(action["tool"], action["action"]) for tool in listed for action in tool["actions"]]
    assert actions == [(row.tool.name, row.action.name) for row in ROWS]


def test_every_action_can_be_described(capsys: pytest.CaptureFixture[str]) -> None:
    for row in ROWS:
        words = ["describe", row.tool.name, row.action.name]
        assert tools.command_tools(argparse.Namespace(words=words, json=False)) == 0, row
        text = capsys.readouterr().out
        assert tools.command_tools(argparse.Namespace(words=words, json=True)) == 0, row
        members = json.loads(capsys.readouterr().out)
        names = [arg.name for arg in row.action.args]
        assert tools.describe(row.action) in text, row
        assert [line.split()[0] for line in text.split("\n\n")[1].splitlines()] == (names or ["example:"]), row
        identity = (members["action"], members["scope"], members["effect"])
        assert identity == (row.action.name, row.action.scope, row.action.effect), row
        assert [argument["name"] for argument in members["arguments"]] == names, row


def test_description_of_an_action_says_what_its_arguments_must_be(shell: Shell) -> None:
    action = tools.find_action(tools.find_tool("manage_temporary_secrets"), "create")
    project, name, value = action.args[:3]
    assert shell("tools", "describe", "manage_temporary_secrets", "create").out.splitlines()[:7] == [
        "manage_temporary_secrets create",
        f"  {action.text}",
        "  write; scope projects.secrets.write; returns a credential, only once",
        "",
        f"projectId         required  id             {project.text}",
        f"name              required  string         {name.text} (1 to 256 characters)",
        f"value             optional  string         {value.text}"
        " (at most 102,400 bytes in UTF-8; plaintext: never shown, logged or repeated)",
    ]


def test_description_of_a_tool_lists_its_actions(shell: Shell) -> None:
    tool = tools.find_tool("manage_trash")
    listing, restore, purge = map(tools.describe, tool.actions)
    assert shell("tools", "describe", "manage_trash").out == (
        f"{tool.text}\n\n"
        "ACTION   EFFECT       SCOPE        DESCRIPTION\n"
        f"list     read         trash.read   {listing}\n"
        f"restore  write        trash.write  {restore}\n"
        f"purge    destructive  trash.write  {purge}\n"
    )


def test_example_of_every_action_has_its_required_arguments() -> None:
    for row in ROWS:
        words = tools.example(row.tool, row.action).replace("'", "").split()
        assert words[:2] == ["sikkerkey-mcp", "call"], row
        given = Words(tools.find_tool(words[2]), words[3:])
        required = sorted(arg.name for arg in row.action.args if arg.required)
        assert (given.action, sorted(given.given)) == (row.action, required), row


# call: requests


def test_answer_is_json_with_a_row_a_line(shell: Shell, vault: Recorder) -> None:
    vault.answer = lambda _seen: CannedResponse(
        body=b'[{"id": 12345678901234567890, "secretCount": 1.5, "name": "s\xc3\xb8ger"}]'
    )
    out = '{"items":[\n{"id":12345678901234567890,"secretCount":1.5,"name":"søger"}\n],"total":1}\n'
    assert shell("call", "manage_projects", "list") == (0, out, "")
    assert sent(vault) == [("GET", "/v1/ai/projects", None)]


def test_tool_with_a_single_action_takes_no_action(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "whoami") == (0, "{}\n", "")
    assert sent(vault) == [("GET", "/v1/ai/whoami", None)]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["pageSize=20", "page=1"], {"page": 1, "pageSize": 20}),
        (["from=2026-01-01T00:00Z"], {"from": 1_767_225_600_000}),
        (["to=2026-01-02"], {"to": 1_767_312_000_000}),
        (["to=1767312000001"], {"to": 1_767_312_000_001}),
        (["search="], {"search": ""}),
        (["search=7"], {"search": "7"}),
        (["search=true"], {"search": "true"}),
        (["search=a=b"], {"search": "a=b"}),
        (["search=@@home"], {"search": "@home"}),
        (['severities=["high", "critical"]'], {"severities": ["high", "critical"]}),
        (["severities=high"], {"severities": ["high"]}),
        (["severities=high, critical,low"], {"severities": ["high", "critical", "low"]}),
        (["actions=[]", "sourceIp=10.0.0.1"], {"actions": [], "sourceIp": "10.0.0.1"}),
    ],
)
def test_values_have_the_types_of_the_table(shell: Shell, vault: Recorder, words: list[str], body: Any) -> None:
    assert shell("call", "read_audit", "query", *words).status == 0
    assert [seen.json() for seen in vault.seen] == [body]


def test_names_of_audit_actions_may_be_separated_by_commas(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "read_audit", "query", "actions=secret_read,secret_update").status == 0
    looked_up, asked = vault.seen
    assert (looked_up.path, asked.json()) == ("/v1/ai/audit/actions", {"actions": ["secret_read", "secret_update"]})


def test_commas_separate_the_items_of_every_list_and_nothing_else(shell: Shell, vault: Recorder) -> None:
    words = (PROJECT, "name=n", "description=a,b", "ipAllowlistEnabled=true", "ipAllowlistCidrs=10.0.0.0/8, fd00::/8")
    assert shell("call", "manage_policies", "create", *words).status == 0
    assert shell("call", "manage_policies", "create", *words[:4], 'ipAllowlistCidrs=["10.0.0.0/8,x"]').status == 0
    assert [(seen.json()["description"], seen.json()["ipAllowlistCidrs"]) for seen in vault.seen] == [
        ("a,b", ["10.0.0.0/8", "fd00::/8"]),
        ("a,b", ["10.0.0.0/8,x"]),
    ]


def test_relative_times_without_a_sign_are_past_for_reads_and_future_for_changes() -> None:
    words = Words(tools.find_tool("read_audit"), ["query", "from=7d", "to=yesterday"])
    assert words.others() == {"from": "-7d", "to": "yesterday"}
    words = Words(tools.find_tool("manage_policies"), ["create", "ttlExpiresAt=90d", "name=7d"])
    assert words.others() == {"ttlExpiresAt": "+90d", "name": "7d"}


def test_argument_of_another_action_is_named_with_its_action(shell: Shell, vault: Recorder) -> None:
    ran = shell("call", "read_audit", "list", "from=-1h")
    assert ran.err.endswith("\nhint: from is an argument of query, export, reads_over_time\n")
    assert vault.seen == []


def test_booleans_and_objects_are_json(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    (tmp_path / "fields.json").write_text(f'{{"user": "{SECRET}"}}\n')
    ran = shell(
        *("call", "manage_secrets", "dynamic_create", "existingSecretId=sk_0000000000000001", "intervalSeconds=300"),
        *('fields=["password"]', f"staticFields=@{tmp_path}/fields.json"),
    )
    assert (ran.status, vault.seen[0].json()["staticFields"]) == (0, {"user": SECRET})
    assert shell("call", "manage_canaries", "config", CANARY, "triggerFreezeProject=false", "--yes").status == 0
    assert vault.seen[1].json() == {"triggerFreezeProject": False}


@pytest.mark.parametrize(
    "order",
    [
        ["call", "read_audit", "list", "page=2", "--table"],
        ["call", "--table", "read_audit", "list", "page=2"],
        ["call", "read_audit", "--table", "list", "page=2"],
        ["call", "read_audit", "list", "--table", "page=2"],
    ],
)
def test_options_may_be_given_anywhere(shell: Shell, vault: Recorder, order: list[str]) -> None:
    assert shell(*order).status == 0
    assert sent(vault) == [("POST", "/v1/ai/audit/query", {"page": 2, "sortDir": "desc"})]


PEM = "-----BEGIN X-----\nAA==\n-----END X-----\n"


@each_of(
    ("data", "value"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n\n"),
        (PEM.encode(), PEM),
        (b"", ""),
        (b"@x", "@x"),
        ("sø \U0001f511\n".encode(), "sø \U0001f511"),
    ],
)
def test_value_is_the_content_of_a_file_or_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, value: str
) -> None:
    (tmp_path / "value").write_bytes(data)
    stdin_is(monkeypatch, data)
    tool = tools.find_tool("manage_secrets")
    words = Words(tool, ["update_value", f"note=@{tmp_path}/value", "value=-"])
    assert words.others() == {"note": value, "value": value}


def test_value_from_stdin_is_sent(shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_is(monkeypatch, b"hunter2\n")
    assert shell("call", "manage_secrets", "update_value", PROJECT, STORED, "value=-").status == 0
    assert sent(vault) == [("POST", UPDATE_PATH, {"value": "hunter2"})]


def test_agent_is_chosen(shell: Shell, vault: Recorder, home: Path) -> None:
    make_slot(home, vault.url, "other")
    assert shell("call", "whoami").status == 1
    assert shell("call", "whoami", "--agent", "other").status == 0
    assert [seen.headers["x-agent-id"] for seen in vault.seen] == ["other"]


# call: refusals


@each_of(
    ("words", "error"),
    [
        ([], f"call needs a tool\n{LISTED}"),
        (["nope"], f"unknown tool\n{LISTED}"),
        (["manage_project"], "unknown tool\nhint: did you mean manage_projects?\n"),
        (
            ["manage_trash"],
            "manage_trash needs an action\nhint: `sikkerkey-mcp tools describe manage_trash` lists them\n",
        ),
        (
            ["manage_trash", "purged"],
            "unknown action of manage_trash\nhint: did you mean purge?\n",
        ),
        (
            ["manage_trash", "restore", SECRET],
            "arguments have the form key=value\nhint: example: sikkerkey-mcp call manage_trash restore secretId=ID\n",
        ),
        (["manage_trash", "restore", "secretId=a", "secretId=b"], "secretId is given twice\n"),
        (
            ["manage_secrets", "create", "note=-", "value=-"],
            "only one argument can be read from stdin\nhint: use key=@FILE for the others\n",
        ),
        (
            ["support", "attachment", "attachmentId=a"],
            "attachment returns a file\nhint: --to-file FILE says where to store it\n",
        ),
        (
            ["manage_trash", "purge", STORED],
            "not a terminal, so this cannot be confirmed\nhint: pass --yes to confirm\n",
        ),
    ],
)
def test_wrong_usage_is_status_2_and_sends_nothing(
    shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch, words: list[str], error: str
) -> None:
    stdin_is(monkeypatch, b"")
    assert shell("call", *words) == (USAGE, "", f"sikkerkey-mcp: error: {error}")
    assert vault.seen == []


def test_plaintext_is_not_accepted_on_the_command_line(shell: Shell, vault: Recorder) -> None:
    plaintexts = [(row, arg.name) for row in ROWS for arg in row.action.args if arg.plaintext]
    assert plaintexts
    for row, name in plaintexts:
        for value in (SECRET, "", f"@@{SECRET}", f'{{"a":"{SECRET}"}}'):
            ran = shell("call", row.tool.name, row.action.name, f"{name}={value}")
            assert (ran.status, ran.out, vault.seen) == (USAGE, "", []), (row, name)
            assert ran.err.startswith(f"sikkerkey-mcp: error: {name} is plaintext and cannot be given on "), row
            assert SECRET not in ran.err, (row, name)


@each_of(
    ("words", "error"),
    [
        (["read_audit", "list", "pageSize=201"], "pageSize must be between 1 and 200"),
        (["read_audit", "list", "pageSize=ten"], "pageSize must be an integer"),
        (["read_audit", "list", "pageSize=1.5"], "pageSize must be an integer"),
        (["read_audit", "list", f"page={'9' * 5000}"], "page must be "),
        (["read_audit", "list", "wat=1"], "unknown argument wat for list; it takes: to?, page?"),
        (["manage_trash", "restore"], "secretId is required for restore"),
        (["manage_trash", "restore", "secretId="], "secretId must be an id: "),
        (["manage_canaries", "config", CANARY, "triggerFreezeProject=yes"], "triggerFreezeProject must be true "),
        (["read_audit", "query", "severities=loud"], "each item of severities must be one of: info, "),
        (["read_audit", "query", "severities=high,,low"], "severities must be an array of strings"),
        (["read_audit", "query", "severities="], "severities must be an array of strings"),
    ],
)
def test_invalid_arguments_are_refused_as_for_a_model(
    shell: Shell, vault: Recorder, words: list[str], error: str
) -> None:
    ran = shell("call", *words)
    assert (ran.status, ran.out, vault.seen) == (USAGE, "", [])
    assert ran.err.startswith(f"sikkerkey-mcp: error: {error}")
    assert "\nhint: " in ran.err


def test_hint_shows_how_to_name_what_is_missing_or_mistyped(shell: Shell, vault: Recorder) -> None:
    for words, hint in (
        ("manage_secrets list", "an id or a name: project=NAME"),
        ("manage_secrets get", "an id or a name: project=NAME secret=NAME"),
        (
            f"manage_secrets create {PROJECT}",
            "`sikkerkey-mcp tools describe manage_secrets create` lists its arguments",
        ),
        ("manage_projects create nmae=x", "did you mean name?"),
        ("manage_secrets list projct=x", "did you mean projectId?"),
    ):
        ran = shell("call", *words.split())
        assert (ran.status, vault.seen) == (USAGE, []), words
        assert ran.err.endswith(f"\nhint: {hint}\n"), (words, ran.err)


def test_hint_shows_how_to_write_a_list(shell: Shell, vault: Recorder) -> None:
    ran = shell("call", "read_audit", "query", "severities={}")
    assert ran.err.endswith("""\nhint: severities=A,B or, as JSON quoted for the shell, severities='["A", "B"]'\n""")


def test_file_that_cannot_be_used_is_named_by_its_argument(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    note = ("call", "manage_secrets", "update_note", PROJECT, STORED)
    missing = shell(*note, f"note=@{tmp_path}/no")
    assert missing == (
        1,
        "",
        "sikkerkey-mcp: error: the file for note cannot be read: No such file or directory\n"
        "hint: write note=@@... for a value that begins with @\n",
    )
    (tmp_path / "binary").write_bytes(b"\xff")
    binary = shell(*note, f"note=@{tmp_path}/binary")
    assert binary.err == "sikkerkey-mcp: error: the input for note is not UTF-8 text\n"
    (tmp_path / "huge").write_bytes(b"x" * (READ_MAX_BYTES + 1))
    huge = shell(*note, f"note=@{tmp_path}/huge")
    assert huge.err == "sikkerkey-mcp: error: the input for note is larger than 4,194,304 bytes\n"
    assert vault.seen == []


def test_refusal_of_the_vault_is_status_1_with_its_hint(shell: Shell, vault: Recorder) -> None:
    vault.answer = lambda _seen: CannedResponse(404, b'{"error":"no \\u001b[31msuch"}')
    assert shell("call", "manage_trash", "restore", STORED) == (
        1,
        "",
        'sikkerkey-mcp: error: the vault answered 404, saying "no <U+001B>[31msuch"\nhint: check the ids with a list '
        "action; anything outside this agent's project allowlist also looks absent\n",
    )


def test_restrictions_of_the_environment_apply_to_call(
    shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_READ_ONLY", "1")
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "read_audit")
    for action in ("restore", "purge"):  # refused before purge asks for confirmation
        ran = shell("call", "manage_trash", action, STORED)
        assert (ran.status, vault.seen) == (1, [])
        assert ran.err.startswith(f"sikkerkey-mcp: error: manage_trash.{action} is withheld by SIKKERKEY_READ_ONLY\n")
    assert "read_audit" not in shell("tools").out
    assert shell("call", "manage_trash", "list").status == 0


# call: destructive actions


def test_yes_skips_the_confirmation(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "manage_trash", "purge", STORED, "--yes").status == 0
    assert len(vault.seen) == 1


def test_preview_needs_no_confirmation(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "manage_machines", "revoke", MACHINE, "preview=true").status == 0
    assert sent(vault) == [("POST", f"/v1/ai/machines/{MACHINE_ID}/revoke", {"preview": True})]


@pytest.mark.parametrize(("typed", "count"), [(b"y\n", 1), (b"YES\n", 1), (b"n\n", 0), (b"\n", 0), (b"\x04", 0)])
def test_destructive_action_asks_for_confirmation_on_a_terminal(vault: Recorder, typed: bytes, count: int) -> None:
    shown = at_terminal(["call", "manage_trash", "purge", STORED], typed, {}, (b"[y/N]",))
    question = "Destroy the secret sk_0000000000000001 with all its versions? This cannot be undone. [y/N] "
    assert shown.decode().startswith(question)
    assert (b"; nothing was sent and nothing was changed\r\n" in shown) is (count == 0)
    assert [seen.path.rpartition("/")[2] for seen in vault.seen] == ["trash", "purge"][: count + 1]


def test_value_is_typed_twice_and_not_echoed(vault: Recorder) -> None:
    for again, status, count in ((SECRET, 0, 1), ("another", 1, 1)):
        person = Terminal([*COMMAND, "call", "manage_secrets", "update_value", PROJECT, STORED, "value=-"], {})
        person.type("value: ", f"{SECRET}\n")
        person.type("value again: ", f"{again}\n")
        ended = person.end()
        assert (ended.status, SECRET in ended.shown, len(vault.seen)) == (status, False, count), again
    assert ended.shown.endswith("error: the two entries of value differ; nothing was sent\r\n")
    assert [seen.json() for seen in vault.seen] == [{"value": SECRET}]


def test_an_empty_value_is_questioned(shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("call", "manage_secrets", "update_value", PROJECT, STORED, "value=-")
    stdin_is(monkeypatch, b"\n")
    refused = "sikkerkey-mcp: error: value is empty\nhint: if that is meant, pass --yes\n"
    assert shell(*words) == (USAGE, "", refused)
    assert vault.seen == []
    stdin_is(monkeypatch, b"\n")
    assert shell(*words, "--yes").status == 0
    person = Terminal([*COMMAND, *words], {})
    person.type("value: ", "\n")
    person.type("Store an empty value? [y/N] ", "y\n")
    assert person.end().status == 0
    assert [seen.json() for seen in vault.seen] == [{"value": ""}, {"value": ""}]


# call: output


def test_terminal_gets_indented_json_in_which_nothing_moves_the_cursor(vault: Recorder) -> None:
    answering(vault, {"name": "a\x1b[2J\u202e\x9b", "projects": [None, {"e": {}, "l": []}]})
    shown = at_terminal(["call", "manage_machines", "get", MACHINE, "--json"], b"", {}).decode().replace("\r\n", "\n")
    name = '{\n  "name": "a\\u001b[2J\\u202e\\u009b",\n  "projects": ['
    assert shown == name + '\n    null,\n    {\n      "e": {},\n      "l": []\n    }\n  ]\n}\n'


def test_terminal_gets_a_table_in_which_nothing_moves_the_cursor(vault: Recorder) -> None:
    answering(vault, {"name": "a\x1b[2J\u202e", "note": None, "projects": [{"id": "p1", "name": "b\x9b"}]})
    words = ["call", "manage_machines", "get", MACHINE]
    assert at_terminal(words, b"", {}).decode().splitlines() == [
        "name  a<U+001B>[2J<U+202E>",
        "note  -",
        "",
        "projects:",
        "id  name",
        "p1  b<U+009B>",
    ]


def test_a_file_is_the_same_with_and_without_a_terminal(vault: Recorder, tmp_path: Path) -> None:
    answering(vault, {"items": [{"id": "p1", "note": None, "createdAt": 1_769_846_400_000}], "total": 1})
    words = ["call", "manage_trash", "list", "--to-file"]
    assert at_terminal([*words, str(tmp_path / "a")], b"", {}) == b""
    assert run_process(*words, str(tmp_path / "b")).stdout == ""
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != b""


def test_hidden_characters_are_escaped_in_json_for_a_pipe(shell: Shell, vault: Recorder) -> None:
    answering(vault, {"\u202ename": None, "name": "\x9b\U000e0041\u200b\x7fø"})
    out = shell("call", "manage_machines", "get", MACHINE).out
    assert out == '{"\\u202ename":null,"name":"\\u009b\\udb40\\udc41\\u200b\\u007fø"}\n'
    assert json.loads(out) == {"\u202ename": None, "name": "\x9b\U000e0041\u200b\x7fø"}


def test_table_aligns_lists_of_objects_and_cleans_them(shell: Shell, vault: Recorder) -> None:
    rows = [
        {"id": "p1", "name": "日本", "fieldNames": ["a", "b"], "note": None},
        {"id": "p10", "name": "x\x1b[2J\n", "version": 7, "fieldNames": [], "note": "y" * 80},
    ]
    answering(vault, {"total": 2, "note": "t\tu", "items": rows})
    assert shell("call", "manage_trash", "list", "--table").out.splitlines() == [
        f"id   name                  fieldNames  {'note':63}  version",
        f"p1   日本                  a, b        {'-':63}  -",
        f"p10  x<U+001B>[2J<U+000A>  none        {'y' * 60}...  7",
        "",
        "total  2",
        "note   t u",
    ]
    answering(vault, {"total": 2, "items": rows})
    assert len(shell("call", "manage_trash", "list", "--table").out.splitlines()) == 3, (
        "the total of all rows says nothing"
    )


def test_table_shows_times_as_dates_of_utc(shell: Shell, vault: Recorder) -> None:
    row = {"id": 1795358147679, "createdAt": 1795358147679, "revokedAt": None, "purgeAt": 7, "enabledAt": True}
    answering(vault, {"updatedAt": 1767225600000, "items": [row]})
    assert shell("call", "manage_trash", "list", "--table").out.splitlines() == [
        "id             createdAt                 purgeAt  enabledAt",
        "1795358147679  2026-11-22T14:35:47.679Z  7        true",
        "",
        "updatedAt  2026-01-01T00:00:00.000Z",
    ]


def test_empty_table_names_its_list(shell: Shell, vault: Recorder) -> None:
    answering(vault, [])
    assert shell("call", "manage_trash", "list", "--table").out == "items  none\ntotal  0\n"


def test_csv_stays_csv(shell: Shell, vault: Recorder) -> None:
    vault.answer = lambda _seen: CannedResponse(200, b"id,detail\n1,\x1b\n", {"Content-Type": "text/csv"})
    assert shell("call", "read_audit", "export").out == "id,detail\n1,\x1b\n\n"
    shown = at_terminal(["call", "read_audit", "export"], b"", {})
    assert shown == b"id,detail\r\n1,<U+001B>\r\n\r\n"


# call: --to-file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_attachment_is_written_to_a_private_file(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    data = bytes(range(256))
    vault.answer = lambda _seen: CannedResponse(200, data, {"Content-Type": "image/png"})
    path = tmp_path / "a.png"
    attachment = ("call", "support", "attachment", "attachmentId=a", "--to-file", str(path))
    assert shell(*attachment) == (0, "", "")
    assert (path.read_bytes(), mode(path)) == (data, 0o600)
    there = shell(*attachment)
    assert there == (1, "", f"sikkerkey-mcp: error: {path} already exists\nhint: --overwrite replaces it\n")
    assert len(vault.seen) == 1
    vault.answer = lambda _seen: CannedResponse(200, b"n\xc3\xa9w\r\n", {"Content-Type": "text/plain"})
    path.chmod(0o644)
    assert shell(*attachment, "--overwrite").status == 0
    assert (path.read_bytes(), mode(path)) == (b"n\xc3\xa9w\r\n", 0o600)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "home"]


def test_json_is_written_to_a_file(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    answering(vault, {"token": SECRET})
    path = tmp_path / "token.json"
    lists = ("projectIds=[]", "secretIds=[]")
    words = ("name=ci", *lists, "tokenLifetimeSeconds=60", "machineLifetimeSeconds=60", "maxUses=1")
    ran = shell("call", "manage_enrollment", "create", *words, "--to-file", str(path), "--yes")
    assert (ran, path.read_bytes(), mode(path)) == (
        (0, "", "Created an enrollment token ci.\n"),
        f'{{"token":"{SECRET}"}}\n'.encode(),
        0o600,
    )


def test_unwritable_output_is_found_before_anything_is_sent(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    ran = shell("call", "whoami", "--to-file", str(tmp_path / "no" / "file"))
    assert (ran.status, ran.out, vault.seen) == (1, "", [])
    assert ran.err == f"sikkerkey-mcp: error: {tmp_path}/no/file cannot be written: No such file or directory\n"


def test_refused_call_leaves_no_file_and_keeps_the_old_one(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    vault.answer = lambda _seen: CannedResponse(404)
    place = tmp_path / "place"
    place.mkdir()
    assert shell("call", "whoami", "--to-file", str(place / "new")).status == 1
    assert os.listdir(place) == []
    (place / "old").write_text("mine")
    assert shell("call", "whoami", "--to-file", str(place / "old"), "--overwrite").status == 1
    assert (os.listdir(place), (place / "old").read_text()) == (["old"], "mine")


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_full_disk_is_reported_after_the_call(
    shell: Shell, vault: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: list[str]
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    place = tmp_path / "place"
    place.mkdir()
    assert shell("call", "whoami", "--to-file", str(place / "x"), *overwrite) == (
        1,
        "",
        f"sikkerkey-mcp: error: the call succeeded, but its result cannot be written to {place}/x: "
        "No space left on device\nhint: check with list or get before you repeat it\n",
    )
    assert (os.listdir(place), len(vault.seen)) == ([], 1)


def test_only_regular_files_are_replaced(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path, Path(os.devnull)):
        ran = shell("call", "whoami", "--to-file", str(place), "--overwrite")
        assert (ran.status, vault.seen) == (1, [])
        assert ran.err.startswith(f"sikkerkey-mcp: error: {place} is not a regular file\nhint: ")


def test_result_that_cannot_be_renamed_is_kept(
    shell: Shell, vault: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    answering(vault, {"name": SECRET})
    path = tmp_path / "x"
    ran = shell("call", "manage_machines", "get", MACHINE, "--to-file", str(path), "--overwrite")
    (kept,) = tmp_path.glob("x.*.new")
    assert (ran.status, kept.read_text(), mode(kept)) == (1, f'{{"name":"{SECRET}"}}\n', 0o600)
    assert ran.err.endswith(f"{path}: Operation not permitted\nhint: it is kept in {kept}\n")


# as a process


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (b"\x04", b"no value was entered; nothing was sent"),
        (b"\xffab\n", b"the value is not UTF-8 text"),
    ],
)
def test_prompt_without_valid_input_ends_with_an_error(vault: Recorder, typed: bytes, reason: bytes) -> None:
    words = ["call", "manage_secrets", "create", PROJECT, "name=n", "value=-"]
    shown = at_terminal(words, typed, {"PYTHONUTF8": "1"}, (b"value: ",))
    assert shown.split(b"value: ", 1)[1].strip() == b"sikkerkey-mcp: error: " + reason
    assert vault.seen == []


def test_value_is_in_no_process_list_and_no_output(vault: Recorder, home: Path) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("there is no /proc to look at")
    seen: list[bytes] = []

    def look(_seen: object) -> CannedResponse:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen.append((process / name).read_bytes())
                except OSError:
                    continue
        return CannedResponse(body=f'{{"id":"sk_1","value":"{SECRET}"}}'.encode())

    vault.answer = look
    ended = run_process("call", "manage_secrets", "create", PROJECT, "name=n", "value=-", stdin=f"{SECRET}\n")
    assert (ended.returncode, json.loads(ended.stdout)["id"]) == (0, "sk_1")
    assert any(b"value=-" in text for text in seen)
    assert not any(SECRET.encode() in text for text in seen)
    assert SECRET not in ended.stdout + ended.stderr
    assert not any(SECRET.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())


def interrupted(vault: Recorder, *words: str) -> tuple[int, bytes, bytes]:
    """How `call` ends if Ctrl-C is pressed while it waits for the answer: the status, stdout and stderr."""

    def interrupt(seen: Any) -> CannedResponse:
        if seen.method == "GET" and len(words) > 1:  # what a write reads first
            return CannedResponse(body=b"[]")
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)
        return CannedResponse()

    vault.answer = interrupt
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "call", *words], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def test_interrupted_read_is_quiet(vault: Recorder) -> None:
    assert interrupted(vault, "whoami") == (130, b"", b"")


def test_interrupted_write_says_that_it_may_have_been_processed(vault: Recorder) -> None:
    words = ("manage_secrets", "update_note", PROJECT, STORED, "note=n")
    complaint = "stopped, and the vault may have processed the call: look before you repeat it, with"
    status, out, err = interrupted(vault, *words)
    assert (status, out) == (130, b"")
    assert err.decode() == f"{complaint} `sikkerkey-mcp call manage_secrets list {PROJECT}`\n"


def test_write_that_is_interrupted_before_it_is_sent_is_quiet(
    vault: Recorder, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sikkerkey_http._Connection, "connect", interrupt)
    assert shell("call", "manage_trash", "restore", STORED) == (130, "", "")
    assert vault.seen == []


def test_every_write_has_a_read_that_shows_what_became_of_it() -> None:
    for row in ROWS:
        if row.action.effect != "read":
            given = {arg.name: "x" for arg in row.action.args if arg.required}
            said = call._how_to_look(call.Call(row.tool, row.action, given, given, {}), "a b")
            assert re.search(r"with `sikkerkey-mcp call \w+ \w+( \w+=x)* --agent 'a b'`$", said), row


@pytest.mark.parametrize("words", ["call whoami", "tools list", "call --help", "completion bash", "doctor --json"])
def test_closed_pipe_is_not_an_error(vault: Recorder, words: str) -> None:
    gone, output = os.pipe()
    os.close(gone)
    ended = subprocess.run([*COMMAND, *words.split()], stdout=output, stderr=subprocess.PIPE, check=False)
    os.close(output)
    assert ended.stderr == b""


class TerminalStream(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def patient_terminal(monkeypatch: pytest.MonkeyPatch) -> TerminalStream:
    """A terminal that shows progress without delay."""
    monkeypatch.setattr(terminal, "PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(terminal, "SPINNER_STEP_S", 0.001)
    monkeypatch.setattr(sys, "stderr", shown := TerminalStream())
    return shown


@each_of("variables", [{}, {"NO_COLOR": "1"}], ids=["colour", "NO_COLOR"])
def test_progress_of_a_long_wait_turns_and_is_overwritten(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    patient = patient_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with terminal.Progress("asking"):
        wait_until(lambda: "\r- asking, 0 s\r" in patient.getvalue())
    assert re.fullmatch(r"(\r[|/\\-] asking, [0-9]+ s)+\r {13,}\r", patient.getvalue())


def test_progress_is_shown_once_where_nothing_can_be_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = patient_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with terminal.Progress("asking"):
        wait_until(lambda: patient.getvalue() == "asking ...")
    assert patient.getvalue() == "asking ...\n"


def test_progress_is_not_shown_into_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = patient_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    tried = threading.Event()

    class Watched:
        """The lock of the prompt, which tells when somebody else tries to take it."""

        lock = threading.RLock()

        def acquire(self, *, blocking: bool = True) -> bool:
            tried.set()
            return self.lock.acquire(blocking=blocking)

        def release(self) -> None:
            self.lock.release()

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_exception: object) -> None:
            self.lock.release()

    def typed(_prompt: str) -> str:
        tried.clear()
        before = patient.getvalue()
        assert tried.wait(TIMEOUT_S)
        assert patient.getvalue() == before
        return "typed"

    monkeypatch.setattr(terminal, "_prompt_lock", Watched())
    monkeypatch.setattr(getpass, "getpass", typed)
    with terminal.Progress("asking"):
        assert terminal.prompt_hidden("token") == "typed"
        wait_until(lambda: "asking" in patient.getvalue())


def test_what_is_interrupted_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = patient_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")

    def ask() -> None:
        with terminal.Progress("asking"):
            wait_until(lambda: "asking" in patient.getvalue())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert patient.getvalue().endswith(" s")


def test_progress_starts_no_thread_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with terminal.Progress("asking"):
            pass
        assert (started, stream is None or stream.getvalue() == "") == ([], True)


def test_progress_of_a_short_wait_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PROGRESS_AFTER_S", 1_000.0)
    monkeypatch.setattr(sys, "stderr", shown := TerminalStream())
    with terminal.Progress("asking"):
        pass
    assert shown.getvalue() == ""
