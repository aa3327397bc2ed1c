"""Restrictions of the server: actions that remain are listed and callable, withheld ones are neither."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_actions
import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_mcp import Restriction, available_tools, read_restrictions
from tests.support.harness import AGENT_ID, SOURCE_COMMAND, Recorder, Server, make_slot
from tests.support.rows import each_of
from tests.support.shell import Shell
from tests.support.table_calls import BY_NAME, ROWS, Logged, Row, StubApi, reply

READ_ONLY = Restriction("--read-only", "--read-only")
WHO = "hint: the user restricted this server; only they can change that, where they configured it"


def only(*names: str) -> Restriction:
    """Like `--tools`."""
    return Restriction("--tools", "--tools", names)


def without(*names: str) -> Restriction:
    """Like `--exclude`."""
    return Restriction("--exclude", "--exclude", names)


def offered(*restrictions: Restriction) -> set[str]:
    """Every action that is listed, as tool.action."""
    listing = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), restrictions).listing()
    return {
        f"{tool['name']}.{action}"
        for tool in listing
        for action in tool["inputSchema"]["properties"].get("action", {}).get("enum", [tool["name"]])
    }


def call(row: Row, arguments: Any, *restrictions: Restriction) -> tuple[str, int]:
    """The text of a call's result, empty for a file, and how many requests it sent."""
    return Restricted(*restrictions).call(row, arguments)


class Restricted:
    """The tools of a restricted server without a network."""

    def __init__(self, *restrictions: Restriction) -> None:
        self.api = StubApi(reply(body=b'{"ok":true}'))
        self.tools = sikkerkey_mcp.VaultTools(lambda: self.api, restrictions)

    def call(self, row: Row, arguments: Any) -> tuple[str, int]:
        """Like the function."""
        self.api.sent.clear()
        result = self.tools.call(row.tool.name, arguments, Logged())
        text: str = result["content"][0].get("text", "")
        return text, len(self.api.sent)


def refusal(name: str, source: str) -> tuple[str, int]:
    return f"{name} is withheld by {source}\n{WHO}", 0


# what is offered


def test_without_restrictions_everything_is_offered() -> None:
    assert offered() == {str(row) for row in ROWS}


def test_read_only_offers_the_reads_that_create_no_credential() -> None:
    harmless = {str(row) for row in ROWS if row.action.effect == "read" and not row.action.mints}
    assert offered(READ_ONLY) == harmless


def test_read_that_creates_a_credential_is_withheld_as_well() -> None:
    row = BY_NAME["manage_machines.list"]
    assert READ_ONLY.withholds(row.tool, row.action._replace(mints=True))


def test_read_only_refuses_every_other_action_and_sends_nothing() -> None:
    server = Restricted(READ_ONLY)
    for row in ROWS:
        text, sent = server.call(row, row.minimal)
        if row.action.effect == "read":
            assert sent > 1 if row.tool.name == "review" else sent == bool(row.action.path), row
        else:
            assert (text, sent) == refusal(str(row), "--read-only"), row


def test_every_tool_of_a_read_only_server_is_marked_as_read_only() -> None:
    listing = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), [READ_ONLY]).listing()
    assert [tool["name"] for tool in listing if not tool["annotations"]["readOnlyHint"]] == []


def test_option_tools_keeps_the_named_tools_and_actions() -> None:
    assert offered(only("manage_sdks", "manage_trash.restore", "whoami")) == {
        "manage_sdks.list",
        "manage_sdks.get",
        "manage_trash.restore",
        "whoami.whoami",
    }


def test_option_exclude_removes_the_named_tools_and_actions() -> None:
    gone = {str(row) for row in ROWS} - offered(without("manage_sdks", "manage_trash.purge", "whoami"))
    assert gone == {"manage_sdks.list", "manage_sdks.get", "manage_trash.purge", "whoami.whoami"}


def test_several_restrictions_all_apply() -> None:
    restrictions = (only("manage_trash", "manage_sdks"), without("manage_sdks.get"), READ_ONLY, only("manage_trash"))
    assert offered(*restrictions) == {"manage_trash.list"}


def test_withheld_action_removes_the_arguments_that_only_it_has() -> None:
    [tool] = available_tools([BY_NAME["manage_secrets.list"].tool], [without("manage_secrets.dynamic_create")])
    before, after = (
        sikkerkey_actions.tool_schema(some)["properties"] for some in (BY_NAME["manage_secrets.list"].tool, tool)
    )
    assert set(before) - set(after) == {"existingSecretId", "staticFields"}
    assert set(before["action"]["enum"]) - set(after["action"]["enum"]) == {"dynamic_create"}
    assert "dynamic_create(" not in sikkerkey_actions.tool_description(tool)


def test_tool_with_one_action_left_still_takes_it_by_name() -> None:
    row = BY_NAME["manage_sdks.list"]
    assert call(row, {"action": "list"}, only("manage_sdks.list")) == ('{"ok":true}', 1)


# what is refused


@pytest.mark.parametrize("name", ["manage_sdks", "manage_sdks.list"])
def test_refusal_of_an_excluded_action_names_the_option(name: str) -> None:
    row = BY_NAME["manage_sdks.list"]
    assert call(row, {"action": "list"}, without(name)) == refusal("manage_sdks.list", "--exclude")


def test_refusal_of_an_action_outside_tools_names_the_option() -> None:
    assert call(BY_NAME["whoami.whoami"], {}, only("manage_sdks")) == refusal("whoami", "--tools")


@each_of("arguments", [{}, {"action": "no_such"}, {"action": 1}, {"action": ["list"]}])
def test_tool_without_actions_refuses_every_call(arguments: Any) -> None:
    assert call(BY_NAME["manage_sdks.list"], arguments, without("manage_sdks")) == refusal("manage_sdks", "--exclude")


def test_refusal_of_a_wrong_action_lists_the_remaining_ones() -> None:
    text, _ = call(BY_NAME["manage_sdks.list"], {"action": "no_such"}, without("manage_sdks.get"))
    assert text.startswith("action must be one of: list")


def test_refusal_names_the_first_restriction_that_applies() -> None:
    restrictions = [
        READ_ONLY,
        Restriction("SIKKERKEY_EXCLUDE", "--exclude", ("manage_trash.list", "manage_trash.purge")),
    ]
    row = BY_NAME["manage_trash.purge"]
    assert call(row, row.minimal, *restrictions) == refusal("manage_trash.purge", "--read-only")
    assert call(row, {"action": "list"}, *restrictions) == refusal("manage_trash.list", "SIKKERKEY_EXCLUDE")


# the instructions


def test_instructions_begin_with_the_restriction() -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), [READ_ONLY, without("support", "manage_team.invite")])
    assert tools.instructions.split("\n", maxsplit=1)[0] == (
        "The user restricted this server (--read-only, --exclude support,manage_team.invite): "
        "what is not listed is withheld on purpose."
    )


def test_instructions_without_a_restriction_mention_none() -> None:
    assert sikkerkey_mcp.VaultTools(lambda: StubApi(reply())).instructions == sikkerkey_mcp.INSTRUCTIONS


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\w+\.\w+", text))


def test_instructions_name_no_action_that_does_not_exist() -> None:
    assert named_in(sikkerkey_mcp.INSTRUCTIONS) - set(BY_NAME) == set()


def test_instructions_omit_text_about_withheld_actions() -> None:
    text = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), [READ_ONLY]).instructions
    assert named_in(text) <= {"manage_secrets.await_person"}
    assert "Values go in and never come out" in text
    assert "Start with whoami" in text
    partly = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), [without("manage_projects.delete")]).instructions
    assert len(partly.split("\n")) == len(sikkerkey_mcp.INSTRUCTIONS.split("\n")) + 1


@pytest.mark.parametrize("restrictions", [[], [without("support")], [without(*(str(row) for row in ROWS[1:]))]])
def test_instructions_stay_under_two_kilobytes(restrictions: list[Restriction]) -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()), restrictions)
    assert len(tools.instructions.encode()) < 2_000


# how they are set


def in_force(monkeypatch: pytest.MonkeyPatch, options: dict[str, str], **variables: str) -> list[tuple[Any, ...]]:
    for name, value in variables.items():
        monkeypatch.setenv(f"SIKKERKEY_{name.upper()}", value)
    return [tuple(each) for each in read_restrictions(options)]


def test_options_and_variables_apply_together(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"--read-only": "1", "--tools": "whoami, manage_sdks.list", "--exclude": "support"}
    variables = {"read_only": "on", "tools": "whoami", "exclude": "manage_team,manage_trash.purge"}
    assert in_force(monkeypatch, options, **variables) == [
        ("--read-only", "--read-only", ()),
        ("SIKKERKEY_READ_ONLY", "--read-only", ()),
        ("--tools", "--tools", ("whoami", "manage_sdks.list")),
        ("SIKKERKEY_TOOLS", "--tools", ("whoami",)),
        ("--exclude", "--exclude", ("support",)),
        ("SIKKERKEY_EXCLUDE", "--exclude", ("manage_team", "manage_trash.purge")),
    ]


def test_read_only_is_set_by_these_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("1", "true", "yes", "on", "TRUE", "Yes", " on "):
        assert in_force(monkeypatch, {}, read_only=text) == [("SIKKERKEY_READ_ONLY", "--read-only", ())], text
    for text in ("0", "false", "no", "off", "No"):
        assert in_force(monkeypatch, {}, read_only=text) == [], text


def test_any_other_word_for_read_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = r"^SIKKERKEY_READ_ONLY must be one of: 1, true, yes, on, 0, false, no, off$"
    for text in ("", " ", "2", "y", "enabled", "tru", "--read-only", "ja"):
        with pytest.raises(sikkerkey_mcp.ConfigError, match=rule):
            in_force(monkeypatch, {}, read_only=text)


def test_all_and_none_restrict_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_force(monkeypatch, {"--tools": "all", "--exclude": " none "}, tools=" all", exclude="none") == []


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_empty_restrictions_are_an_error_everywhere(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, variable in (("--tools", "SIKKERKEY_TOOLS"), ("--exclude", "SIKKERKEY_EXCLUDE")):
        with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{option} is empty"):
            sikkerkey_mcp.read_settings([option, text], {})
        with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{variable} is empty"):
            sikkerkey_mcp.read_settings([], {variable: text})
    for variable in ("SIKKERKEY_READ_ONLY", "SIKKERKEY_VALUES", "SIKKERKEY_CONFIRM", "SIKKERKEY_MAX_CALLS"):
        with pytest.raises(sikkerkey_mcp.ConfigError, match=f"^{variable} must be"):
            sikkerkey_mcp.read_settings([], {variable: text})


def test_commands_refuse_an_empty_restriction(
    home: Path, shell: Shell, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, recorder.url)
    monkeypatch.setenv("SIKKERKEY_TOOLS", "")
    commands = (["tools"], ["call", "whoami"], ["config", "generic"], ["config", "cursor", "--write"])
    for words in commands:
        ran = shell(*words)
        assert (ran.status, ran.out) == (1, ""), words
        assert "SIKKERKEY_TOOLS is empty" in ran.err, words
    assert '"fail"' in shell("doctor", "--json").out
    assert recorder.seen == [] or not any(seen.headers.get("authorization") for seen in recorder.seen)


HOW = "hint: use TOOL or TOOL.ACTION, separated by commas"


UNKNOWN_NAMES = {
    "manage_secret": "manage_secret, which is no tool or action\nhint: did you mean manage_secrets?",
    "whoami,read_audit.lst": "read_audit.lst, which is no tool or action\nhint: did you mean read_audit.list?",
    "xyzzy": f"xyzzy, which is no tool or action\n{HOW}",
    ",": f"nothing, which is no tool or action\n{HOW}",
    "whoami,": f"nothing, which is no tool or action\n{HOW}",
    "\x1b[2J": f"<U+001B>[2J, which is no tool or action\n{HOW}",
}


@pytest.mark.parametrize("option", ["--tools", "--exclude"])
def test_unknown_name_is_refused_with_the_nearest(option: str) -> None:
    for text, error in UNKNOWN_NAMES.items():
        with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
            read_restrictions({option: text})
        assert refused.value.full_text() == f"{option} names {error}"


def test_restrictions_that_leave_nothing_are_refused() -> None:
    with pytest.raises(sikkerkey_mcp.ConfigError, match=r"^--read-only, --tools leave nothing to offer$") as refused:
        read_restrictions({"--read-only": "1", "--tools": "manage_trash.purge"})
    assert refused.value.hint == "remove or correct one of them"


# the command line

# Each command line, the agent that it chooses, and the restrictions that it sets.
LINES: dict[str, tuple[str, dict[str, str]]] = {
    "": ("", {}),
    "serve": ("", {}),
    "serve --agent a": ("a", {}),
    "serve --agent=a": ("a", {}),
    "serve --read-only": ("", {"--read-only": "1"}),
    "serve --read-only --read-only": ("", {"--read-only": "1"}),
    "serve --tools a,b --exclude c --agent d --read-only": (
        "d",
        {"--read-only": "1", "--tools": "a,b", "--exclude": "c"},
    ),
    "serve --exclude=c --tools=a --exclude d --tools b": ("", {"--exclude": "c,d", "--tools": "a,b"}),
}


def test_serve_takes_its_options_in_any_order() -> None:
    for line, expected in LINES.items():
        assert sikkerkey_options.parse_serve_options(line.split()[1:]) == expected, line


@each_of("line", ["--tools", "--tools --read-only", "--read-only=1", "--no-such", "a", "--agent -x"])
def test_wrong_usage_of_serve_is_refused(line: str) -> None:
    with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
        sikkerkey_options.parse_serve_options(line.split())
    assert refused.value.hint == "correct the server's arguments; `sikkerkey-mcp serve --help` lists them"


def test_wrong_word_after_serve_is_not_repeated() -> None:
    with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
        sikkerkey_options.parse_serve_options(["canary"])
    assert "canary" not in refused.value.full_text()


def test_restricted_server_lists_and_runs_the_remaining_actions(
    home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, recorder.url)
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "manage_trash.restore")
    options = ("--agent", AGENT_ID, "--exclude", "whoami", "--tools", "manage_trash,whoami", "--read-only")
    with Server((*SOURCE_COMMAND, "serve", *options)) as server:
        instructions = server.initialize()["result"]["instructions"]
        [tool] = server.request("tools/list")["result"]["tools"]
        texts = [
            server.call("manage_trash", action=action)["content"][0]["text"] for action in ("list", "restore", "purge")
        ]
        missing = server.call("whoami")["content"][0]["text"]
    restrictions = "--read-only, --tools manage_trash,whoami, --exclude whoami, SIKKERKEY_EXCLUDE manage_trash.restore"
    assert f"({restrictions})" in instructions
    arguments = ["action", "search", "limit", "offset"]
    assert (tool["name"], list(tool["inputSchema"]["properties"])) == ("manage_trash", arguments)
    assert texts == [
        "{}",
        refusal("manage_trash.restore", "--read-only")[0],
        refusal("manage_trash.purge", "--read-only")[0],
    ]
    assert missing == refusal("whoami", "--exclude")[0]
    assert [seen.path for seen in recorder.seen] == ["/v1/ai/trash"]
