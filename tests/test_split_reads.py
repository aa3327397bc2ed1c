"""--split-reads: reads have tools of their own, marked read-only; the same actions are offered as without it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_refusals
from sikkerkey_mcp import MOVED_ACTIONS, READ_TOOLS, TOOLS, Restriction, split_reads
from tests.support.harness import AGENT_ID, SOURCE_COMMAND, Recorder, Server, make_slot
from tests.support.in_process_client import InProcessClient, request
from tests.support.rows import each_of
from tests.support.schema_check import conforms
from tests.support.shell import Shell
from tests.support.table_calls import BY_NAME, ROWS, Logged, Row, StubApi, reply
from tests.test_completion import words

TOOLS_MAX = 40  # Cursor sends no more to the model
READ_ONLY = Restriction("--read-only", "--read-only")
SPLIT = split_reads(TOOLS)


def only(*names: str) -> Restriction:
    return Restriction("--tools", "--tools", names)


def without(*names: str) -> Restriction:
    return Restriction("--exclude", "--exclude", names)


NOBODY = "this program cannot ask a person"  # what await_person says in a program without clients


def shown(row: Row) -> str:
    """The row as tool.action with --split-reads."""
    return MOVED_ACTIONS.get(str(row), str(row))


class Splitting:
    """The tools of a server with --split-reads and without a network."""

    def __init__(self, *restrictions: Restriction) -> None:
        self.api = StubApi(reply(body=b'[{"id":"thing_1"}]'))
        self.tools = sikkerkey_mcp.VaultTools(lambda: self.api, restrictions, split=True)

    def offered(self) -> set[str]:
        """Every action that is listed, as tool.action."""
        return {
            f"{tool['name']}.{action}"
            for tool in self.tools.listing()
            for action in tool["inputSchema"]["properties"].get("action", {}).get("enum", [tool["name"]])
        }

    def call(self, tool: str, **arguments: Any) -> tuple[str, int]:
        """The text of a call's result, empty for a file, and how many requests it sent."""
        self.api.sent.clear()
        result = self.tools.call(tool, arguments, Logged())
        text: str = result["content"][0].get("text", "")
        return text, len(self.api.sent)


# the tools


def test_every_action_is_in_exactly_one_tool() -> None:
    found = [f"{tool.reads_of or tool.name}.{action.name}" for tool in SPLIT for action in tool.actions]
    assert sorted(found) == sorted(map(str, ROWS))


def test_no_two_tools_have_the_same_name() -> None:
    names = [tool.name for tool in SPLIT]
    assert len(set(names)) == len(names) < TOOLS_MAX
    assert set(READ_TOOLS.values()) & {tool.name for tool in TOOLS} == set()


def test_tools_are_read_only_or_have_no_reads() -> None:
    listing = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in Splitting().tools.listing()}
    for tool in SPLIT:
        reads = {action.effect == "read" and not action.mints for action in tool.actions}
        assert reads == {listing[tool.name]}, tool.name


def test_tools_whose_names_begin_with_read_are_the_read_only_ones() -> None:
    read_only = {tool.name for tool in SPLIT if all(action.effect == "read" for action in tool.actions)}
    assert {name for name in read_only if name.startswith("manage_")} == set()
    assert {tool.name for tool in SPLIT if tool.name.startswith("read_")} <= read_only


def test_read_that_creates_a_credential_stays_with_the_writes() -> None:
    [tool] = [tool for tool in TOOLS if tool.name == "manage_trash"]
    reads = [action for action in tool.actions if action.effect == "read"]
    minting = [reads[0]._replace(name="mint", mints=True), *tool.actions]
    halves = split_reads([tool._replace(actions=tuple(minting))])
    assert [[action.name for action in half.actions] for half in halves] == [["list"], ["mint", "restore", "purge"]]


def test_default_has_the_tools_of_the_table() -> None:
    listing = sikkerkey_mcp.VaultTools(lambda: StubApi(reply())).listing()
    assert listing == [sikkerkey_mcp.tool_listing(tool) for tool in TOOLS]


def test_listing_conforms_to_the_protocol_and_leads_from_each_half_to_the_other() -> None:
    listing = {tool["name"]: tool for tool in Splitting().tools.listing()}
    conforms({"tools": list(listing.values())}, "ListToolsResult")
    assert " read_secrets has the read-only actions." in listing["manage_secrets"]["description"]
    assert " manage_secrets has the actions that change something." in listing["read_secrets"]["description"]
    assert listing["read_secrets"]["title"] == "Secrets (read-only)"


# calls


def test_every_action_is_called_in_its_own_tool_only() -> None:
    server, names = Splitting(), {tool.name for tool in SPLIT}
    for row in ROWS:
        tool = shown(row).partition(".")[0]
        text, sent = server.call(tool, **row.minimal)
        assert sent > 0 or text.startswith(NOBODY), (row, text)
        for other in {row.tool.name, READ_TOOLS.get(row.tool.name, tool)} & names - {tool}:
            text, sent = server.call(other, **row.minimal)
            assert sent == 0, row
            assert text.endswith(f"hint: that is an action of {tool}"), row


def test_tools_without_the_option_do_not_exist() -> None:
    tools = sikkerkey_mcp.VaultTools(lambda: StubApi(reply()))
    assert [name for name in READ_TOOLS.values() if tools.has(name)] == []


def test_tool_that_has_only_reads_is_replaced() -> None:
    tools = Splitting().tools
    assert (tools.has("read_sdks"), tools.has("manage_sdks")) == (True, False)


# restrictions


@each_of(
    "restrictions",
    [
        (),
        (READ_ONLY,),
        (only("manage_secrets", "read_trash", "read_alerts.list", "manage_sdks"),),
        (only("read_secrets", "manage_trash"), READ_ONLY),
        (without("manage_secrets", "read_trash", "read_alerts.list", "read_audit"),),
        (without("manage_secrets.list", "read_machines.get"), without("support")),
    ],
)
def test_same_actions_are_offered_as_without_the_option(restrictions: tuple[Restriction, ...]) -> None:
    unsplit = {
        f"{tool.name}.{action.name}"
        for tool in sikkerkey_mcp.available_tools(TOOLS, restrictions)
        for action in tool.actions
    }
    server = Splitting(*restrictions)
    assert server.offered() == {shown(BY_NAME[name]) for name in unsplit}
    for row in ROWS:
        tool = shown(row).partition(".")[0]
        text, sent = server.call(tool, **row.minimal)
        is_answered = sent > 0 or text.startswith(NOBODY)
        assert is_answered == (str(row) in unsplit), (row, text)
        assert is_answered is (" is withheld by --" not in text.partition("\n")[0][:90]), row


def test_name_of_a_read_tool_means_the_reads_of_its_tool() -> None:
    reads = {"list", "get", "versions", "dynamic_list", "dynamic_get", "await_person"}
    assert Splitting(only("read_secrets")).offered() == {f"read_secrets.{name}" for name in reads}
    assert Splitting(only("read_secrets.get")).offered() == {"read_secrets.get"}
    left = Splitting(without("read_secrets")).offered()
    assert {name for name in left if "_secrets." in name and name.startswith("read_secrets.")} == set()
    assert "manage_secrets.rotate" in left


def test_refusal_names_the_tool_that_was_called() -> None:
    server = Splitting(without("read_trash"))
    text, sent = server.call("read_trash", action="list")
    assert (text.partition("\n")[0], sent) == ("read_trash.list is withheld by --exclude", 0)


def test_refusal_leads_to_no_withheld_action() -> None:
    text, sent = Splitting(without("read_trash")).call("manage_trash", action="list")
    assert sent == 0
    assert "read_trash" not in text


def test_description_leads_to_no_withheld_tool() -> None:
    [tool] = Splitting(only("manage_trash.restore")).tools.listing()
    assert "read_trash" not in tool["description"]
    [tool] = Splitting(only("read_trash")).tools.listing()
    assert "manage_trash" not in tool["description"]


def test_names_with_and_without_the_option_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_secrets", "read_secrets.list", "read_sdks", "manage_secrets.list", "manage_sdks"):
        [restriction] = sikkerkey_mcp.read_restrictions({"--exclude": name})
        assert restriction.names == (name,)
    for name in ("read_secrets.delete", "read_whoami", "read_audit.purge"):
        with pytest.raises(sikkerkey_mcp.ConfigError):
            sikkerkey_mcp.read_restrictions({"--tools": name})


# texts


def test_texts_name_only_actions_that_exist_with_the_option() -> None:
    exist = {f"{tool.name}.{action.name}" for tool in SPLIT for action in tool.actions}
    tools = Splitting().tools
    client = InProcessClient(tools=tools)
    texts = [tool.instructions for tool in (tools,)]
    for tool in tools.listing():
        texts += [
            tool["description"],
            *(arg.get("description", "") for arg in tool["inputSchema"]["properties"].values()),
        ]
    arguments = {"onboard_ci_runner": {"projectId": "proj_1"}, "retire_machine": {"machineId": "machine_1"}}
    for prompt in sikkerkey_mcp.PROMPTS:
        asked = request("prompts/get", name=prompt.name, arguments=arguments.get(prompt.name, {}))
        texts.append(client.send(asked)["result"]["messages"][0]["content"]["text"])
    named = {name for text in texts for name in sikkerkey_mcp.actions_in(text)}
    assert named - exist == set()
    assert {"read_secrets.list", "manage_secrets.rotate", "read_alerts.actions"} <= named


def test_hint_of_the_vaults_refusal_names_existing_actions() -> None:
    api = StubApi(reply(409))
    tools = sikkerkey_mcp.VaultTools(lambda: api, split=True)
    hints = "; ".join(sikkerkey_refusals.NEXT_STEP.values())
    exist = {f"{tool.name}.{action.name}" for tool in SPLIT for action in tool.actions}
    assert sikkerkey_mcp.actions_in(sikkerkey_mcp.in_split_names(hints)) <= exist
    failing = sikkerkey_mcp.ServiceError("failed", "see manage_secrets.list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools, "answer", lambda *_: (_ for _ in ()).throw(failing))
        text = tools.call("read_secrets", {"action": "list", "projectId": "p"}, Logged())["content"][0]["text"]
    assert text == "failed\nhint: see read_secrets.list"


# resources, prompts and completion


def test_resources_and_prompts_stay_the_same() -> None:
    split, usual = Splitting().tools.resources, sikkerkey_mcp.VaultTools(lambda: StubApi(reply())).resources
    for kind in ("resources", "resourceTemplates", "prompts"):
        assert split.listing(kind) == usual.listing(kind)


def test_resources_and_suggestions_are_answered() -> None:
    resources = Splitting().tools.resources
    context = sikkerkey_mcp.Context()
    for uri in ("sikkerkey://projects", "sikkerkey://projects/proj_1/secrets", "sikkerkey://whoami"):
        assert resources.contents(uri, context)[0]["uri"] == uri
    reference = {"type": "ref/prompt", "name": "retire_machine"}
    assert resources.suggestions(reference, "machineId", "thing", {}, context) == ["thing_1"]


# the command line


def test_option_or_variable_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sikkerkey_options.reads_are_split({})
    assert sikkerkey_options.reads_are_split(sikkerkey_options.parse_serve_options(["--split-reads"])[1])
    for text, expected in (("1", True), ("Yes", True), ("0", False), ("off", False), ("", False)):
        monkeypatch.setenv("SIKKERKEY_SPLIT_READS", text)
        assert sikkerkey_options.reads_are_split({}) is expected, text
        assert sikkerkey_options.reads_are_split({"--split-reads": "1"}), text
    monkeypatch.setenv("SIKKERKEY_SPLIT_READS", "tru")
    with pytest.raises(sikkerkey_mcp.ConfigError, match=r"^SIKKERKEY_SPLIT_READS must be one of: 1, true, yes, on, "):
        sikkerkey_options.reads_are_split({"--split-reads": "1"})


def test_server_is_started_with_it(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    options = ("--agent", AGENT_ID, "--split-reads", "--tools", "manage_trash")
    with Server((*SOURCE_COMMAND, "serve", *options)) as server:
        server.initialize()
        names = [tool["name"] for tool in server.request("tools/list")["result"]["tools"]]
        results = [server.call(name, action="list") for name in names]
    assert names == ["read_trash", "manage_trash"]
    assert ["isError" in result for result in results] == [False, True]
    assert [seen.path for seen in recorder.seen] == ["/v1/ai/trash"]


def test_command_tools_lists_what_the_environment_sets(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "read_secrets" not in shell("tools").out
    monkeypatch.setenv("SIKKERKEY_SPLIT_READS", "1")
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "read_trash")
    listed = re.findall(r"(?m)^([a-z_]+) +[0-9]+ ", shell("tools").out)
    assert listed == [tool.name for tool in SPLIT if tool.name != "read_trash"]
    monkeypatch.setenv("SIKKERKEY_SPLIT_READS", "maybe")
    assert "SIKKERKEY_SPLIT_READS must be one of" in shell("tools").err


def test_command_call_takes_both_names(
    home: Path, recorder: Recorder, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, recorder.url)
    for variable in ("", "1"):
        monkeypatch.setenv("SIKKERKEY_SPLIT_READS", variable)
        for tool in ("read_trash", "manage_trash"):
            assert shell("call", tool, "list").status == 0, tool
        assert shell("call", "read_trash", "purge", "secretId=s", "--yes").status == 2
    assert {seen.path for seen in recorder.seen} == {"/v1/ai/trash"}
    assert len(recorder.seen) == 4
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "read_trash")
    for tool in ("read_trash", "manage_trash"):
        ran = shell("call", tool, "list")
        assert (ran.status, f"{tool}.list is withheld by SIKKERKEY_EXCLUDE" in ran.err) == (1, True), tool
    assert len(recorder.seen) == 4


def test_shell_completion_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("call read_secrets ") == []
    monkeypatch.setenv("SIKKERKEY_SPLIT_READS", "1")
    assert words("call read_tr") == ["read_trash"]
    assert words("call read_trash ") == ["list"]
    assert words("call manage_trash ") == ["restore", "purge"]
    monkeypatch.setenv("SIKKERKEY_SPLIT_READS", "maybe")
    assert "list" in words("call manage_trash ")
