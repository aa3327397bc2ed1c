"""What `make test-clients` relies on, without the clients: its model, its recorder, its judgement, its record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ARCHIVE, TIMEOUT_S, Server
from tests.support.schema_check import wait_until
from tools.clients import __main__ as trials
from tools.clients import dialects, judge, record, script, wire
from tools.clients.dialects import Asked, Call, Say
from tools.clients.model import Exchange, Model, dialect_of
from tools.clients.script import CALLS, DONE, MARK, Script
from tools.clients.trial import Failed, servers_of
from tools.clients.wire import Session

# What clients send, cut down to what is read: one tool, one earlier call with its result, one text.
TOOL = {"name": "whoami"}
ASKED: dict[str, tuple[str, Any]] = {
    "Anthropic Messages": (
        "/v1/messages?beta=true",
        {
            "system": [{"type": "text", "text": "be good"}],
            "tools": [TOOL, {"name": "hidden", "defer_loading": True}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hello"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "whoami", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "me"}]},
            ],
        },
    ),
    "OpenAI Responses": (
        "/v1/responses",
        {
            "instructions": "be good",
            "tools": [{"type": "function", **TOOL}],
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
                {"type": "function_call", "call_id": "a", "name": "whoami", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "me"},
            ],
        },
    ),
    "Chat Completions": (
        "/v1/chat/completions",
        {
            "tools": [{"type": "function", "function": TOOL}],
            "messages": [
                {"role": "system", "content": "be good"},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": TOOL}]},
                {"role": "tool", "tool_call_id": "a", "content": "me"},
            ],
        },
    ),
    "Gemini": (
        "/v1beta/models/any:generateContent",
        {
            "systemInstruction": {"parts": [{"text": "be good"}]},
            "tools": [{"functionDeclarations": [TOOL]}],
            "contents": [
                {"role": "user", "parts": [{"text": "hello"}]},
                {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "whoami", "args": {}}}]},
                {"role": "user", "parts": [{"functionResponse": {"id": "a", "response": {"output": "me"}}}]},
            ],
        },
    ),
}


@pytest.mark.parametrize("dialect", ASKED)
def test_model_understands_what_it_is_asked(dialect: str) -> None:
    path, body = ASKED[dialect]
    found, _ = dialect_of(path)
    assert found is not None
    asked = found.read(body)
    assert list(asked.tools) == ["whoami"]
    assert asked.results == {"a": "me"}
    assert [part.strip() for part in asked.instructions.splitlines() if part.strip()] == ["be good", "hello"]


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("answer", [Call("id-1", "whoami", {"name": 'a "b"'}), Say("words")], ids=["call", "text"])
def test_model_answers_over_http_with_all_that_it_says(dialect: str, streamed: bool, answer: Any) -> None:
    path, body = ASKED[dialect]
    if streamed and dialect == "Gemini":
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    with Model(lambda _asked: answer) as model:
        request = urllib.request.Request(model.url + path, json.dumps({**body, "stream": streamed}).encode())
        with urllib.request.urlopen(request) as reply:
            told = reply.read().decode()
            kind = reply.headers["Content-Type"]
    assert kind == (dialects.EVENTS if streamed else dialects.JSON)
    said = told.replace("\\", "")
    for part in [answer.text] if isinstance(answer, Say) else ["id-1", "whoami", 'a "b"']:
        assert part in said
    assert [exchange.answer for exchange in model.exchanges] == [answer]


def test_model_knows_nothing_else() -> None:
    with Model(lambda _asked: Say("words")) as model, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(model.url + "/v1/models")


# ---------------------------------------------------------------------------------------------------------------------
# script
# ---------------------------------------------------------------------------------------------------------------------

NAMES = {tool for tool, _ in CALLS}
TOOLS: dict[str, Any] = {f"mcp__{name}": {} for name in NAMES}
GIVEN = ['{"agentId":"a"}', 'Output:\n{"id":"proj_1"}', '{"id":"sk_1"}', '{"items":[{"id":"sk_1"}]}', "no such id"]


def said_after(count: int, given: list[str] = GIVEN, tools: dict[str, Any] = TOOLS) -> Any:
    """What the script says to a conversation with `count` results."""
    results = {f"call_{number}": text for number, text in enumerate(given[:count])}
    return Script("mcp__{}")(Asked(tools, results, ""))


def test_script_takes_ids_from_results_and_ends() -> None:
    said = [said_after(count) for count in range(len(CALLS) + 1)]
    assert [call.arguments.get("projectId") for call in said[:-1]] == [None, None, "proj_1", "proj_1", "../../etc"]
    assert said[-1] == Say(DONE)


def test_script_stops_where_a_result_was_lost() -> None:
    assert said_after(2, ["{}", "something went wrong"]) == Say("stopped before call 3: an earlier result holds no id")


def test_script_searches_for_tools_that_are_not_shown_and_gives_up_once() -> None:
    search = said_after(0, tools={"ToolSearch": {}})
    assert set(search.arguments["query"][len("select:") :].split(",")) == set(TOOLS)
    again = Script("mcp__{}")(Asked({"ToolSearch": {}}, {script.SEARCH: "nothing"}, ""))
    assert again == Say("stopped: mcp__whoami is not among the 1 tools that are offered")


def test_script_says_something_to_a_request_without_tools() -> None:
    assert said_after(0, tools={}) == Say(DONE)


def test_script_waits_where_a_client_asks_for_it() -> None:
    schema = {"parameters": {"properties": {"wait_for_previous": {"type": "boolean"}}}}
    assert said_after(0, tools={"mcp__whoami": schema}).arguments == {"wait_for_previous": True}


# ---------------------------------------------------------------------------------------------------------------------
# recorder
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose Python records sessions."""
    wire.make_interpreter(tmp_path / "python")
    return tmp_path / "python"


def recorded(environment: Path) -> Session:
    """The one session that was recorded."""
    [session] = wire.take_sessions(environment.parent / "kept.jsonl", environment)
    return session


def command(environment: Path) -> list[str]:
    """A server under that Python."""
    return [str(environment / "bin" / "python"), "-I", str(ARCHIVE), "serve"]


def test_recorder_keeps_what_passes_and_changes_nothing(environment: Path) -> None:
    with Server(command(environment)) as server:
        server.initialize("2025-06-18")
        listed = server.request("tools/list")
        assert server.close() == 0
    session = recorded(environment)
    assert session.revision == "2025-06-18"
    assert [message["method"] for message in session.asked] == ["initialize", "notifications/initialized", "tools/list"]
    assert session.told[-1] == listed
    assert session.lines == server.lines


def test_recorded_server_still_ends_by_a_signal(environment: Path) -> None:
    with Server(command(environment)) as server:
        server.initialize()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(TIMEOUT_S) == 0
        assert server.read() is None


def test_other_commands_are_not_recorded(environment: Path) -> None:
    subprocess.run([*command(environment)[:-1], "--version"], check=True, capture_output=True, timeout=TIMEOUT_S)
    assert wire.take_sessions(environment.parent / "kept.jsonl", environment) == []


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system lists no processes")
def test_server_that_outlives_its_client_is_counted() -> None:
    agent = "11111111-2222-3333-4444-555555555555"
    waiting = [sys.executable, "-c", "input()", "serve", "--agent", agent]
    assert servers_of(agent) == 0
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        wait_until(lambda: servers_of(agent) == 1)
        process.communicate(b"\n")
    assert servers_of(agent) == 0


# ---------------------------------------------------------------------------------------------------------------------
# judgement
# ---------------------------------------------------------------------------------------------------------------------


def result(text: str, **members: Any) -> Any:
    """A result of `tools/call`."""
    structured = {} if members else {"structuredContent": json.loads(text)}
    return {"content": [{"type": "text", "text": text}], **structured, **members}


RESULTS = [*(result(text.partition("\n")[2] or text) for text in GIVEN[:-1]), result(GIVEN[-1], isError=True)]


def session_with(results: list[Any]) -> Session:
    """A session in which the calls of the script had these results."""
    asked = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
        for number, (tool, _) in enumerate(CALLS)
    ]
    told = [{"jsonrpc": "2.0", "id": number, "result": it} for number, it in enumerate(results)]
    return Session(asked, told, [json.dumps(message).encode() + b"\n" for message in told])


def test_session_as_it_should_be_is_accepted() -> None:
    session = judge.check_server([session_with(RESULTS)])
    judge.check_handed_on(GIVEN, judge.check_calls(session))


@pytest.mark.parametrize(
    ("results", "complaint"),
    [
        (RESULTS[:-1], "the calls that arrived"),
        ([*RESULTS[:-1], RESULTS[0]], r"calls \[\] were refused"),
        ([{**RESULTS[0], "structuredContent": {"agentId": "b"}}, *RESULTS[1:]], "structuredContent of a result differ"),
        ([{"content": "none"}, *RESULTS[1:]], "does not conform"),
        ([*RESULTS[:-1], result(f"not {MARK}", isError=True)], "repeated the value"),
    ],
    ids=["lost", "not refused", "two answers", "malformed", "value"],
)
def test_fault_of_the_server_is_found(results: list[Any], complaint: str) -> None:
    with pytest.raises(Failed, match=complaint):
        judge.check_calls(judge.check_server([session_with(results)]))


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_result_that_was_changed_on_the_way_is_found(number: int) -> None:
    given = [*GIVEN]
    given[number] = given[number].replace("a", "b").replace("1", "2").replace("no", "na")
    with pytest.raises(Failed, match=f"another result of call {number + 1} "):
        judge.check_handed_on(given, RESULTS)


@pytest.mark.parametrize("place", ["tools", "instructions"])
def test_value_that_reached_the_model_otherwise_is_found(place: str) -> None:
    fine = Asked(TOOLS, {f"call_{number}": text for number, text in enumerate(GIVEN)}, "")
    told: dict[str, Any] = {"tools": {MARK: {}}, "instructions": MARK}
    good, bad = (Exchange("/", {}, it, Say(DONE)) for it in (fine, fine._replace(**{place: told[place]})))
    assert judge.check_conversation([good], RESULTS) == fine
    with pytest.raises(Failed, match="given the value"):
        judge.check_conversation([bad, good], RESULTS)


@pytest.mark.parametrize(
    ("answer", "complaint"), [(Call("a", "b", {}), "did not hand on"), (Say("stopped: because"), "stopped: because")]
)
def test_conversation_that_broke_off_is_found(answer: Any, complaint: str) -> None:
    with pytest.raises(Failed, match=complaint):
        judge.check_conversation([Exchange("/", {}, Asked({}, {}, ""), answer)], [])


@pytest.mark.parametrize(
    ("text", "verdict"), [("some\nlines here", "whole"), ("some and no more", "cut"), ("else", "not shown")]
)
def test_instructions_are_compared(text: str, verdict: str) -> None:
    assert judge.shown_instructions(Asked({}, {}, text), "some\nlines") == verdict


# ---------------------------------------------------------------------------------------------------------------------
# record
# ---------------------------------------------------------------------------------------------------------------------


def test_record_holds_every_client_in_the_version_that_is_pinned() -> None:
    kept = {outcome.client: outcome.version for outcome in record.load()}
    assert list(kept) == [client.title for client in trials.CLIENTS], "`make test-clients` writes it"
    pinned = {client.title: client.package.version for client in trials.CLIENTS if client.package}
    assert {title: kept[title] for title in pinned} == pinned, "`make test-clients` tries them"


def test_fresh_outcomes_replace_earlier_ones_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    old = [record.Outcome(name, "npm x", "1", "2026-01-01", "", [], "passed") for name in ("a", "b", "gone")]
    record.keep(old, ["a", "b", "gone"], path)
    fresh = old[1]._replace(version="2", outcome="failed: why")
    record.keep([fresh], ["b", "a"], path)
    assert record.load(path) == [fresh, old[0]]


def test_table_names_what_could_not_be_run() -> None:
    outcome = record.Outcome("A", "npm a", "1", "2026-01-01", "2025-11-25", ["x", "y"], "not run: no network")
    tried, others = record.rows([outcome])
    assert tried == ["A", "1", "2025-11-25", "x; y", "not run: no network", "2026-01-01"]
    assert others[0].startswith("Claude Desktop, Cursor, ")
    assert others[4] == "not run here"
