"""The parts of `make test-clients`, tested without the clients: model, script, recorder, checks, record."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest

from tests.support.harness import ARCHIVE, TIMEOUT_S, CannedResponse, Recorder, Server
from tests.support.in_process_client import modern
from tests.support.rows import each_of
from tests.support.schema_check import wait_until
from tools.clients import __main__ as trials
from tools.clients import (
    asking,
    browser,
    checks,
    dialects,
    large_vault,
    persons,
    record,
    script,
    set_ups,
    split_reads,
    terminal,
    wire,
)
from tools.clients.assistants import ASSISTANTS
from tools.clients.dialects import Answer, Call, ModelRequest, Text
from tools.clients.model import Exchange, Model, dialect_of
from tools.clients.script import CALLS, DONE, MARK, Script
from tools.clients.trial import Failed, Trial, count_servers
from tools.clients.wire import Session

# The members of client requests that are parsed: one tool, one earlier call with its result, one text.
TOOL = {"name": "whoami"}
REQUESTS: dict[str, tuple[str, Any]] = {
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


def test_model_parses_requests_of_every_dialect() -> None:
    for name, (path, body) in REQUESTS.items():
        dialect, _ = dialect_of(path)
        assert dialect is not None, name
        parsed = dialect.read(body)
        assert list(parsed.tools) == ["whoami"], name
        assert parsed.results == {"a": "me"}, name
        texts = [line.strip() for line in parsed.instructions.splitlines() if line.strip()]
        assert texts == ["be good", "hello"], name


@each_of("dialect", REQUESTS)
@each_of("streamed", [False, True])
@each_of("answer", [Call("id-1", "whoami", {"name": 'a "b"'}), Text("words")], ids=["call", "text"])
def test_model_answers_over_http(dialect: str, streamed: bool, answer: Any) -> None:
    path, body = REQUESTS[dialect]
    if streamed and dialect == "Gemini":
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    with Model(lambda _request: answer) as model:
        request = urllib.request.Request(model.url + path, json.dumps({**body, "stream": streamed}).encode())
        with urllib.request.urlopen(request) as reply:
            text = reply.read().decode()
            kind = reply.headers["Content-Type"]
    assert kind == (dialects.EVENTS if streamed else dialects.JSON)
    unescaped = text.replace("\\", "")
    for part in [answer.text] if isinstance(answer, Text) else ["id-1", "whoami", 'a "b"']:
        assert part in unescaped
    assert [exchange.answer for exchange in model.exchanges] == [answer]


def test_model_answers_other_paths_with_404() -> None:
    with Model(lambda _request: Text("words")) as model:
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(model.url + "/v1/models")
        caught.value.close()


# ---------------------------------------------------------------------------------------------------------------------
# script
# ---------------------------------------------------------------------------------------------------------------------

NAMES = {tool for tool, _ in CALLS}
TOOLS: dict[str, Any] = {f"mcp__{name}": {} for name in NAMES}
RECEIVED = ['{"agentId":"a"}', 'Output:\n{"id":"proj_1"}', '{"id":"sk_1"}', '{"items":[{"id":"sk_1"}]}', "no such id"]


def answer_after(count: int, given: list[str] = RECEIVED, tools: dict[str, Any] = TOOLS) -> Any:
    """The script's answer to a request with `count` results."""
    results = {f"call_{number}": text for number, text in enumerate(given[:count])}
    return Script("mcp__{}")(ModelRequest(tools, results, ""))


def test_script_takes_ids_from_results_and_ends() -> None:
    answers = [answer_after(count) for count in range(len(CALLS) + 1)]
    assert [call.arguments.get("projectId") for call in answers[:-1]] == [None, None, "proj_1", "proj_1", "../../etc"]
    assert answers[-1] == Text(DONE)


def test_script_stops_if_a_result_was_lost() -> None:
    assert answer_after(2, ["{}", "something went wrong"]) == Text(
        "stopped before call 3: an earlier result contains no id"
    )


def test_script_searches_once_for_tools_that_are_not_declared() -> None:
    search = answer_after(0, tools={"ToolSearch": {}})
    assert set(search.arguments["query"][len("select:") :].split(",")) == set(TOOLS)
    again = Script("mcp__{}")(ModelRequest({"ToolSearch": {}}, {script.SEARCH: "nothing"}, ""))
    assert again == Text("stopped: mcp__whoami is not among the 1 tools offered")


def test_script_answers_a_request_without_tools() -> None:
    assert answer_after(0, tools={}) == Text(DONE)


def test_script_sets_wait_for_previous_if_a_tool_declares_it() -> None:
    schema = {"parameters": {"properties": {"wait_for_previous": {"type": "boolean"}}}}
    assert answer_after(0, tools={"mcp__whoami": schema}).arguments == {"wait_for_previous": True}


# ---------------------------------------------------------------------------------------------------------------------
# recorder
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose Python records sessions of the server."""
    wire.make_interpreter(tmp_path / "python")
    return tmp_path / "python"


def recorded(environment: Path) -> Session:
    """The only recorded session."""
    [session] = wire.take_sessions(environment.parent / "kept.jsonl", environment)
    return session


def command(environment: Path) -> list[str]:
    """The command that starts a server with that Python."""
    return [str(environment / "bin" / "python"), "-I", str(ARCHIVE), "serve"]


def test_recorder_records_a_session_and_changes_nothing(environment: Path) -> None:
    with Server(command(environment)) as server:
        server.initialize("2025-06-18")
        listed = server.request("tools/list")
        assert server.close() == 0
    session = recorded(environment)
    assert session.revision == "2025-06-18"
    assert [message["method"] for message in session.from_client] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
    ]
    assert session.from_server[-1] == listed
    assert session.lines == server.lines


def test_the_negotiated_revision_is_that_of_the_first_request_after_a_probe() -> None:
    discover, listed = modern("server/discover", 1), modern("tools/list", 2)
    initialize = {"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    results = {1: {"supportedVersions": ["2026-07-28"]}, 2: {"tools": []}, 3: {"protocolVersion": "2025-06-18"}}

    def revision(*sent: Any, refused: tuple[int, ...] = ()) -> str:
        answered = [{"id": it["id"], "result": results[it["id"]]} for it in sent if it["id"] not in refused]
        return Session(list(sent), answered, []).revision

    assert revision(discover, listed) == revision(listed) == revision(discover) == "2026-07-28"
    assert revision(discover, initialize) == revision(discover, initialize, refused=(1,)) == "2025-06-18"
    assert revision(discover, refused=(1,)) == revision() == ""


def test_recorded_server_still_exits_on_a_signal(environment: Path) -> None:
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
    assert count_servers(agent) == 0
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        wait_until(lambda: count_servers(agent) == 1)
        process.communicate(b"\n")
    assert count_servers(agent) == 0


# ---------------------------------------------------------------------------------------------------------------------
# checks
# ---------------------------------------------------------------------------------------------------------------------


def result(text: str, **members: Any) -> Any:
    """A result of `tools/call`."""
    structured = {} if members else {"structuredContent": json.loads(text)}
    return {"content": [{"type": "text", "text": text}], **structured, **members}


RESULTS = [*(result(text.partition("\n")[2] or text) for text in RECEIVED[:-1]), result(RECEIVED[-1], isError=True)]


def session_with(results: list[Any]) -> Session:
    """A session with the script's calls and these results."""
    from_client = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
        for number, (tool, _) in enumerate(CALLS)
    ]
    from_server = [{"jsonrpc": "2.0", "id": number, "result": it} for number, it in enumerate(results)]
    return Session(from_client, from_server, [json.dumps(message).encode() + b"\n" for message in from_server])


def test_correct_session_is_accepted() -> None:
    session = checks.check_server([session_with(RESULTS)])
    checks.check_passed_on(RECEIVED, checks.check_calls(session))


@each_of(
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
def test_wrong_session_is_rejected(results: list[Any], complaint: str) -> None:
    with pytest.raises(Failed, match=complaint):
        checks.check_calls(checks.check_server([session_with(results)]))


def test_result_that_the_client_changed_is_rejected() -> None:
    for number in range(len(CALLS)):
        received = [*RECEIVED]
        received[number] = received[number].replace("a", "b").replace("1", "2").replace("no", "na")
        with pytest.raises(Failed, match=f"different result of call {number + 1} "):
            checks.check_passed_on(received, RESULTS)


def test_value_in_tools_or_instructions_is_rejected() -> None:
    fine = ModelRequest(TOOLS, {f"call_{number}": text for number, text in enumerate(RECEIVED)}, "")
    good = Exchange("/", {}, fine, Text(DONE))
    assert checks.check_conversation([good], RESULTS) == fine
    for leaking in (fine._replace(tools={MARK: {}}), fine._replace(instructions=MARK)):
        with pytest.raises(Failed, match="received the value"):
            checks.check_conversation([good._replace(request=leaking), good], RESULTS)


@pytest.mark.parametrize(
    ("answer", "complaint"), [(Call("a", "b", {}), "did not pass on"), (Text("stopped: because"), "stopped: because")]
)
def test_unfinished_conversation_is_rejected(answer: Any, complaint: str) -> None:
    with pytest.raises(Failed, match=complaint):
        checks.check_conversation([Exchange("/", {}, ModelRequest({}, {}, ""), answer)], [])


@pytest.mark.parametrize(
    ("text", "verdict"), [("some\nlines here", "whole"), ("some and no more", "cut"), ("else", "not shown")]
)
def test_instructions_are_compared(text: str, verdict: str) -> None:
    assert checks.shown_instructions(ModelRequest({}, {}, text), "some\nlines") == verdict


# ---------------------------------------------------------------------------------------------------------------------
# --split-reads
# ---------------------------------------------------------------------------------------------------------------------


def session_of(calls: list[Any], **members: Any) -> Session:
    """A session in which these calls arrived."""
    from_client = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        for number, (tool, arguments) in enumerate(calls)
    ]
    from_server = [{"jsonrpc": "2.0", "id": number, "result": result("{}", **members)} for number in range(len(calls))]
    return Session(from_client, from_server, [])


def test_every_tool_with_writes_and_every_read_tool_is_called() -> None:
    reads, others = ([tool for tool, _ in calls] for calls in (split_reads.reads(), split_reads.others()))
    assert {"whoami", "read_projects", "read_audit"} <= set(reads)
    assert {"manage_projects", "manage_temporary_secrets", "support"} <= set(others)
    assert set(reads) & set(others) == set()


def test_session_in_which_only_reads_arrived_is_accepted() -> None:
    split_reads.check([session_of(split_reads.reads())], [Text(DONE)])


def test_session_in_which_a_write_arrived_or_a_read_did_not_is_rejected() -> None:
    reads, write = split_reads.reads(), split_reads.others()[0]
    for calls in ([], reads[:-1], [*reads, write]):
        with pytest.raises(Failed, match="the calls that arrived are"):
            split_reads.check([session_of(calls)], [Text(DONE)])
    with pytest.raises(Failed, match="whoami, read_projects failed"):
        split_reads.check([session_of(reads, isError=True)], [Text(DONE)])
    unfinished: list[list[Answer]] = [[], [Text("stopped")], [Text(DONE), Call("a", "b", {})]]
    for answers in unfinished:
        with pytest.raises(Failed, match="the session ended before the last call"):
            split_reads.check([session_of(reads)], answers)


def test_script_makes_the_calls_that_it_is_given() -> None:
    calls = [*split_reads.reads(), *split_reads.others()]
    tools: dict[str, Any] = {f"mcp__{tool}": {} for tool, _ in calls}
    for number, (tool, arguments) in enumerate(calls):
        results = {f"call_{each}": "refused by the user" for each in range(number)}
        answer = Script("mcp__{}", calls)(ModelRequest(tools, results, ""))
        assert answer == Call(f"call_{number}", f"mcp__{tool}", arguments)


# ---------------------------------------------------------------------------------------------------------------------
# large vault
# ---------------------------------------------------------------------------------------------------------------------

Pages = dict[str, list[large_vault.Page]]
ROWS = 40  # on each page


def page_of(listing: large_vault.Listing, arguments: dict[str, Any]) -> str:
    """The page of a list as the server sends it."""
    start, total = arguments.get("offset", 0), len(listing.names)
    end = min(start + ROWS, total)
    rows = [{"name": name} for name in listing.names[start:end]]
    return json.dumps({"items": rows, "total": total, **({"next": {"offset": end}} if end < total else {})})


def good_pages() -> Pages:
    """The pages that the script asks for, which arrive as they were sent."""
    paging = large_vault.Paging("mcp__{}")
    texts: list[str] = []
    pages: Pages = {listing.title: [] for listing in large_vault.LISTINGS}
    while call := paging.next_call(texts):
        listing = next(each for each in large_vault.LISTINGS if each.tool == call[0])
        texts.append(page_of(listing, call[1]))
        pages[listing.title].append(large_vault.Page(texts[-1], f"Result:\n{texts[-1]}\nEnd"))
    return pages


def test_script_pages_to_the_last_row_of_each_list() -> None:
    pages = good_pages()
    large_vault.check(pages, Text(DONE))
    for listing, row in zip(large_vault.LISTINGS, large_vault.shown(pages)):
        assert row == (listing.title, len(listing.names), ROWS, ROWS, False, large_vault.PAGES, True), row.list


def test_page_that_did_not_arrive_whole_is_rejected() -> None:
    for listing in large_vault.LISTINGS:
        for number in range(large_vault.PAGES):
            for received in ("", "saved to a file", "HALF"):
                pages = good_pages()
                sent = pages[listing.title][number].sent
                half = sent[: len(sent) // 2] if received == "HALF" else received
                pages[listing.title][number] = large_vault.Page(sent, half)
                with pytest.raises(Failed, match=f"the client cut a page of the {listing.title}"):
                    large_vault.check(pages, Text(DONE))
                row = next(row for row in large_vault.shown(pages) if row.list == listing.title)
                assert row.cut, listing.title
                assert (row.received < ROWS) is (number == 0), listing.title


def test_pages_that_do_not_lead_to_the_last_row_are_rejected() -> None:
    [listing, *_] = large_vault.LISTINGS

    def changed(number: int, text: str) -> Pages:
        pages = good_pages()
        pages[listing.title][number] = large_vault.Page(text, text)
        return pages

    unlimited = json.dumps({"items": [{"name": name} for name in listing.names]})
    first, second = page_of(listing, {}), page_of(listing, {"offset": 2 * ROWS})
    for pages, complaint in (
        ({**good_pages(), listing.title: [large_vault.Page(unlimited, unlimited)]}, "asked for 1 pages of the secrets"),
        (changed(0, first.replace('"total": 5000', '"total": 4999')), r"the totals of the secrets are \[4999, 5000"),
        (changed(1, first), "the first pages of the secrets lack rows or repeat some"),
        (changed(1, second), "the first pages of the secrets lack rows or repeat some"),
        (changed(3, second), "the last page of the secrets does not end with the last row"),
    ):
        with pytest.raises(Failed, match=complaint):
            large_vault.check(pages, Text(DONE))
    for answer in (None, Call("a", "b", {}), Text("stopped")):
        with pytest.raises(Failed):
            large_vault.check(good_pages(), answer)


def test_script_ends_if_a_client_never_passes_on_a_result() -> None:
    paging = large_vault.Paging("mcp__{}")
    request = ModelRequest({f"mcp__{listing.tool}": {} for listing in large_vault.LISTINGS}, {}, "")
    answers = [paging(request) for _ in range(large_vault.REPEATED_MAX + 1)]
    assert all(isinstance(answer, Call) for answer in answers[:-1])
    assert answers[-1] == Text("stopped: the client did not pass on the result, but asked again")


def test_results_belong_to_the_list_that_was_asked_for() -> None:
    calls = [[listing.tool, listing.arguments] for listing in large_vault.LISTINGS]
    request = ModelRequest({}, {"call_0": "{}", "call_1": "cut"}, "")
    pages = large_vault.pages([session_of(calls)], request)
    assert pages == {"secrets": [("{}", "{}")], "machines": [("{}", "cut")], "audit entries": [("{}", "")]}
    assert large_vault.pages([], None) == {"secrets": [], "machines": [], "audit entries": []}


# ---------------------------------------------------------------------------------------------------------------------
# broken set-ups
# ---------------------------------------------------------------------------------------------------------------------

OPEN_KEY = set_ups.SET_UPS[0]
REASON = "/tmp/client-a/home/.sikkerkey/agents/11111111-2222-3333-4444-555555555555/private.pem can be read"


def seen_of(received: str, instructions: str = "", printed: str = "", sessions: Sequence[Session] = ()) -> set_ups.Seen:
    """What was seen in a session with one result."""
    requests = [ModelRequest({}, {}, ""), ModelRequest({}, {"call_0": received} if received else {}, instructions)]
    return set_ups.seen(OPEN_KEY, sessions, requests, tools=1, state="", printed=printed)


def test_cause_counts_only_where_the_server_says_it() -> None:
    problem = f"No SikkerKey tool works at present: {REASON}"
    assert [seen_of(REASON).told, seen_of("", problem).told] == [True, True]
    assert [seen_of("").told, seen_of("no such tool", "private.pem").told] == [False, False]
    assert [seen_of("", printed=text).printed for text in (problem, "private.pem")] == [True, False]
    assert set_ups.seen(OPEN_KEY, [], [], tools=0, state="", printed="").told is False


def test_answer_is_recorded_without_directories_and_ids() -> None:
    session = session_of([["whoami", {}]])
    session.from_server[0]["result"] = result(f"{REASON}\nhint: chmod", isError=True)
    wrapped = seen_of(json.dumps({"error": REASON}), sessions=[session])
    assert wrapped.answer == "~/.sikkerkey/agents/ID/private.pem can be read"
    assert set_ups.recordable(f"{wire.INTERPRETER} http://127.0.0.1:4711") == "python3 http://127.0.0.1:PORT"


def test_state_in_the_list_is_recognized() -> None:
    for state, line in (
        ("connected", "sikkerkey: /x/python -I /x.pyz serve - ✓ Connected"),
        ("failed", "sikkerkey: /x/python -I /x.pyz serve - ✗ Failed to connect"),
        ("disconnected", "✗ sikkerkey: /x/python -I /x.pyz serve (stdio) - Disconnected"),
        ("failed", "●  ✗ sikkerkey \x1b[90mfailed\x1b[0m\n    MCP error -32000: Connection closed"),
        ("", "No servers"),
    ):
        assert set_ups.state_in(f"Checking health…\n\n{line}\n") == state


def test_table_names_clients_only_if_they_differ() -> None:
    told = set_ups.Seen(OPEN_KEY.title, 19, True, "why", "connected", False)
    untold = told._replace(tools=0, told=False, answer="", state="failed")
    recorded = {"before": {"A": [told], "B": [untold], "C": [untold]}, "now": {"A": [told], "B": [told]}}
    differing = "19 tools, told: A; 0 tools, not told: B, C"
    assert set_ups.rows(recorded)[0] == [OPEN_KEY.title, differing, "19 tools, told", "`why`"]
    assert set_ups.rows(recorded)[1][1:] == ["not tried", "not tried", ""]
    counts = ["0 of 16", "1 of 16", "0 of 16", "1 of 16"]
    assert set_ups.client_rows(recorded)[1] == ["B", *counts, "failed 1", "connected 1"]


def test_what_was_seen_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    first, second = (set_ups.Seen(OPEN_KEY.title, number, True, "why", "", False) for number in (1, 2))
    for era, client, rows in (("before", "A", [first]), ("now", "A", [first]), ("now", "A", [second])):
        set_ups.keep(era, client, rows, path)
    assert set_ups.load(path) == {"before": {"A": [first]}, "now": {"A": [second]}}


def test_set_up_changes_the_process_of_the_server_alone(environment: Path) -> None:
    old = next(set_up for set_up in set_ups.SET_UPS if "version" in set_up.process)
    (environment / wire.SET_UP.name).write_text(json.dumps(dict(old.process)))
    with Server(command(environment)) as server:
        assert re.search(old.cause, server.initialize()["result"]["instructions"])
        server.process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        assert server.process.wait(TIMEOUT_S) == 1
    version = subprocess.run([*command(environment)[:-1], "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"sikkerkey-mcp ")


def test_every_client_tells_the_model_the_cause_of_every_set_up() -> None:
    recorded = set_ups.load()
    titles = [set_up.title for set_up in set_ups.SET_UPS]
    assert len(set(titles)) == len(titles) == 16
    for era in ("before", "now"):
        assert list(recorded[era]) == [assistant.title for assistant in ASSISTANTS], f"make test-clients SET_UPS={era}"
        for client, rows in recorded[era].items():
            assert [row.title for row in rows] == titles, (era, client)
    assert [(client, row.title) for client, rows in recorded["now"].items() for row in rows if not row.told] == []


# ---------------------------------------------------------------------------------------------------------------------
# questions: a terminal, a browser and the answers of a person
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A trial without a vault and without a client."""
    trial = object.__new__(Trial)
    trial.name, trial.home, trial.work = "terminal", tmp_path / "home", tmp_path / "work"
    trial.work.mkdir()
    trial.environment = {"PATH": os.environ["PATH"]}
    return trial


@pytest.mark.skipif(not terminal.tmux_is_installed(), reason="tmux is not installed")
def test_terminal_shows_a_program_and_presses_its_keys(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LOGS", trial.work)
    monkeypatch.setattr(terminal, "THINKING_S", 0.0)
    script = 'printf "Name? "; read name; echo "Hello $name from $PLACE"'
    with terminal.open_terminal(trial, ["sh", "-c", script], PLACE="here") as opened:
        opened.answer(r"Name\?", ["m", "e", "Enter"], "question")
        opened.wait_for("Hello me from here")
        monkeypatch.setattr(terminal, "SCREEN_MAX_S", 0.0)
        with pytest.raises(Failed, match="does not show Goodbye"):
            opened.wait_for("Goodbye")
    kept = (trial.work / "terminal.screens.txt").read_text()
    assert kept.startswith("--- question\nName?\n")
    assert "Hello me from here" in kept.partition("--- instead of Goodbye\n")[2]


def test_browser_submits_the_form_as_a_page_of_the_same_origin(
    trial: Trial, tmp_path: Path, recorder: Recorder
) -> None:
    form = '<form method="post" action="/here"><input type="hidden" name="n" value="1"><textarea name="v"></textarea>'
    recorder.answer = lambda _request: CannedResponse(body=f"{form}</form>".encode())
    directory = persons.make_browser(trial, "søger & x\n")
    leading = tmp_path / "leads on.html"
    leading.write_text(f'<meta http-equiv="refresh" content="0;url={recorder.url}/page">')
    for address in (f"{recorder.url}/page", str(leading), leading.as_uri().replace("%20", " ")):
        subprocess.run([str(directory / "xdg-open"), address], check=True, timeout=TIMEOUT_S)
    assert [(request.method, request.path) for request in recorder.seen] == [("GET", "/page"), ("POST", "/here")] * 3
    for opened, sent in zip(recorder.seen[::2], recorder.seen[1::2]):
        assert (opened.headers["sec-fetch-site"], sent.headers["sec-fetch-site"]) == ("none", "same-origin")
        assert sent.headers["origin"] == recorder.url
        assert parse_qsl(sent.body.decode()) == [("n", "1"), ("v", "søger & x\n")]
    assert persons.started_with(trial)[:2] == [f"{recorder.url}/page", str(leading)]
    assert [(visit["sent"], visit["status"]) for visit in persons.visits(trial)] == [(False, 200), (True, 200)] * 3


def test_browser_fills_in_the_first_form_and_presses_its_first_button() -> None:
    form = browser.FormReader("typed")
    form.feed(
        '<input name="outside"><form action="/a"><input type="hidden" name="n" value="1">'
        '<input type="password" name="p"><input type="checkbox" name="c"><input name="t">'
        '<textarea name="v">old</textarea><button name="go" value="yes"></button><button name="go" value="no"></button>'
        '</form><form action="/b"><input name="other"></form>'
    )
    assert form.action == "/a"
    assert form.fields == [("n", "1"), ("p", "typed"), ("c", "on"), ("t", "typed"), ("v", "typed"), ("go", "yes")]


def test_browser_follows_no_file_that_leads_to_no_page(tmp_path: Path) -> None:
    for text in ("nothing", '<meta content="0;url=file:///etc/passwd">'):
        (tmp_path / "page.html").write_text(text)
        with pytest.raises(SystemExit, match="leads to no page"):
            browser.target_of(str(tmp_path / "page.html"))


STORED, CREATED = '{"status":"done","id":"sk_1"}', '{"status":"done","id":"ts_1"}'
DELETED, WAITING = '{"status":"deleted"}', '{"status":"waiting","code":"4F7K","command":"true"}'
REFUSED_TEXT = "delete was not confirmed; nothing was sent"
NOT_ASKED = "nothing was done\nhint: the user confirms it with: sikkerkey-mcp confirm 4F7K"
LINK = "https://vault.example/s/token"


class AskedVault:
    """The parts of a vault that the check reads."""

    def __init__(self, value: str, deleted: int) -> None:
        self.value, self.deleted = value, deleted

    def value_of(self, _secret_id: str) -> str:
        """The stored value."""
        return self.value

    def owner(self, *_words: str) -> str:
        """The audit log."""
        return json.dumps([{"action": "project_create"}, *[{"action": "project_delete"}] * self.deleted])


def asked_model(results: Sequence[str], body: str = "") -> Any:
    """A model that has received these results."""
    request = ModelRequest({}, {f"call_{number}": text for number, text in enumerate(results)}, "")
    return SimpleNamespace(exchanges=[Exchange("/", body, request, Text(DONE))])


def check_asked(
    trial: Trial, results: list[str], *, value: str = persons.TYPED, deleted: int = 1, body: str = "", seen: str = LINK
) -> None:
    """Checks a session with these results."""
    trial.vault, trial.log = cast(Any, AskedVault(value, deleted)), trial.home.parent / "trial.log"
    credentials = [seen] if seen else []
    asking.check(trial, asked_model(results, body), [], credentials, asked=bool(deleted))


def test_script_waits_for_a_person_only_if_it_is_told_to() -> None:
    script = asking.Asking("{}", denials=2)
    done = ["", "", STORED, CREATED]
    wait = ["manage_secrets", {"action": "await_person", "code": "4F7K"}]
    assert script.next_call(done[:3])[0] == "manage_temporary_secrets"
    assert script.next_call(["", "", WAITING]) == script.next_call(["", "", WAITING, WAITING]) == wait
    assert script.next_call(["", "", WAITING, WAITING, STORED])[0] == "manage_temporary_secrets"
    assert script.next_call(done) == script.next_call([*done, REFUSED_TEXT]) == asking.DELETE_KEPT
    assert script.next_call([*done, REFUSED_TEXT, REFUSED_TEXT]) == asking.DELETE_GONE
    assert script.next_call([*done, REFUSED_TEXT, REFUSED_TEXT, DELETED]) is None


def test_session_in_which_a_person_was_asked_is_checked(trial: Trial) -> None:
    trial.home.mkdir(exist_ok=True)
    in_terminal = ["", "", STORED, CREATED, REFUSED_TEXT, DELETED]
    without = ["", "", WAITING, STORED, WAITING, WAITING, CREATED, NOT_ASKED, NOT_ASKED]
    check_asked(trial, in_terminal)
    check_asked(trial, without, deleted=0)
    for results, changes, complaint in (
        (in_terminal[:4], {}, "received 4 results"),
        (["", "", REFUSED_TEXT, CREATED, REFUSED_TEXT, DELETED], {}, "not told of the value"),
        (["", "", STORED, '{"status":"done","url":"x"}', REFUSED_TEXT, DELETED], {}, "the model was told url"),
        (in_terminal, {"value": "x"}, "a different value"),
        (in_terminal, {"body": persons.TYPED}, "the model received the value"),
        (in_terminal, {"body": f"see {LINK}"}, "the model received the credential"),
        (in_terminal, {"seen": ""}, "saw no credential"),
        (["", "", STORED, CREATED, DELETED, DELETED], {}, "a deletion was not denied"),
        (["", "", STORED, CREATED, REFUSED_TEXT, REFUSED_TEXT], {}, "the second deletion ended wrongly"),
        ([*without[:-1], DELETED], {"deleted": 0}, "a deletion was not denied"),
        ([*without[:-1], REFUSED_TEXT], {"deleted": 0}, "given no command"),
        (in_terminal, {"deleted": 2}, "the vault deleted 2 projects"),
    ):
        with pytest.raises(Failed, match=complaint):
            check_asked(trial, results, **cast(Any, changes))


def test_value_is_hunted_for_in_files_output_and_addresses(trial: Trial) -> None:
    trial.home.mkdir(exist_ok=True)
    in_terminal = ["", "", STORED, CREATED, REFUSED_TEXT, DELETED]
    for path in ("home/a.jsonl", "work/a.txt", "tmp/a", "trial.log", "trial.screens.txt"):
        file = trial.home.parent / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"... {persons.TYPED} ...")
        with pytest.raises(Failed, match="has the value"):
            check_asked(trial, in_terminal)
        file.unlink()
    visit = {"url": "http://127.0.0.1:1/secret-token", "sent": False, "text": "", "time_s": 0}
    directory = persons.make_browser(trial, "")
    (directory / "visits.jsonl").write_text(json.dumps(visit) + "\n")
    check_asked(trial, in_terminal)
    with pytest.raises(Failed, match="the address of a page"):
        check_asked(trial, in_terminal, body="open /secret-token")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
def test_value_is_hunted_for_in_command_lines() -> None:
    text = "typed-in-a-test"  # trials may run at the same time
    with asking.watched_processes(text) as revealing:
        process = subprocess.Popen([sys.executable, "-c", "input()", text], stdin=subprocess.PIPE)
        wait_until(lambda: revealing)
        process.communicate(b"\n")
    assert revealing == {Path(sys.executable).name}


def test_dialogs_of_a_terminal_are_recorded_with_their_times(trial: Trial) -> None:
    script, asked = asking.Asking("{}"), cast(list[persons.Step], ["", "page", "leave"])
    script.issued_s, script.received_s = {0: 0.0, 1: 10.0, 2: 20.0}, {0: 1.0, 1: 14.5, 2: 25.0}
    screens = [
        "old\n MCP server “x” wants\n\n Code 4F7L\n http://127.0.0.1:4711/abcdefghijklmnopqrstuvwxyz\n ────────────"
    ]
    names = ["call 2: page", "call 3: leave"]
    shown = dict(zip(names, [*screens, "Field 1/1\nDelete it?"]))
    opened: Any = SimpleNamespace(shown=shown, shown_s=dict(zip(names, (11.24, 21.0))), pressed_s={names[1]: 24.9})
    directory = persons.make_browser(trial, "")
    visit = {"url": "http://127.0.0.1:1/x", "text": "", "sent": True, "time_s": 14.0}
    (directory / "visits.jsonl").write_text(json.dumps(visit) + "\n")
    model = asked_model(["", '{"status":"done","message":"m","id":"sk_abcdefgh12"}', REFUSED_TEXT])
    page, form = asking.seen_in_terminal(script, model, opened, trial, asked)
    assert (page.asked_s, page.result_s, page.received) == (1.2, 0.5, ["status: done, id: sk_ID"])
    assert page.screen == " MCP server “x” wants\n Code 4F7K\n http://127.0.0.1:PORT/TOKEN"
    assert (form.what, form.did, form.received) == ("a value", "accepted, not ticked", ["nothing was sent"])
    assert (form.asked_s, form.result_s, form.screen) == (1.0, 0.1, "Field 1/1\nDelete it?")


def test_commands_are_recorded_without_what_they_show() -> None:
    commands: Any = SimpleNamespace(
        shown={
            "AB12": "Store it\nCode       AB12\nAB12 is done: stored",
            "CD34": "CD34 is done: created\nurl: https://v/s/x\nexpiresAt: 2026-11-29T02:07:45.651Z\nnotice: of words",
        },
        done_s={"AB12": 4.0, "CD34": 8.0},
    )
    waiting = (
        '{"status":"waiting","code":"AB12","expiresInSeconds":600,"command":"python3 /x/sikkerkey-mcp.pyz fill AB12"}'
    )
    results = ["", "", waiting, STORED, waiting.replace("AB12", "CD34"), CREATED, NOT_ASKED, NOT_ASKED]
    script = asking.Asking("{}")
    script.issued_s = {number: float(number) for number in range(8)}
    script.received_s = {number: number + 1.5 for number in range(8)}
    value, credential, deletion = asking.seen_without(script, asked_model(results), commands)
    assert value.received[0] == "status: waiting, code: 4F7K, command: sikkerkey-mcp.pyz fill 4F7K"
    assert value.screen == "Store it\nCode       4F7K\n4F7K is done: stored"
    assert (value.asked_s, value.result_s, credential.result_s) == (1.5, 0.5, 0.0)
    assert "https" not in credential.screen
    assert "url: (shown to the person)\nexpiresAt: TIME\n" in credential.screen
    assert (deletion.did, deletion.screen, len(deletion.received)) == ("was not asked", "", 1)


def test_what_the_model_was_told_is_quoted_without_its_wrapping() -> None:
    for result, text in (
        ('Wall time: 1 s\nOutput:\n{"status":"done","id":"x","more":1}', "status: done, id: x"),
        (
            '{"error": "it says: nothing was done\\nhint: /x/sikkerkey-mcp.pyz confirm AB12; then"}',
            "nothing was done, command: sikkerkey-mcp.pyz confirm AB12",
        ),
        (REFUSED_TEXT, "nothing was sent"),
        ("something else", ""),
    ):
        assert asking.told(result) == text


def test_questions_are_shown_by_client_and_commands_once() -> None:
    seen = asking.Seen(asking.IN_TERMINAL, "a value", "did it", "the dialog", ["a", "b"], 1.0, 2.0)
    again, command = seen._replace(screen="not shown"), seen._replace(mode=asking.WITHOUT, screen="$ fill")
    unasked = command._replace(what="a deletion", screen="", received=["c"])
    people = {"A": [seen, again, command, unasked], "B": [command._replace(screen="$ other")]}
    cells = asking.rows(people)
    assert cells[0] == ["A", "in a terminal", "a value", "did it", "1.0 s", "2.0 s", "`a`; then `b`"]
    assert cells[3][4:] == ["-", "-", "`c`"]
    text = asking.dialogs(people)
    assert text.startswith("## A\n\nA value:\n\n```text\nthe dialog\n```\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## A", "## The commands"]
    assert "not shown" not in text
    assert "$ other" not in text


def test_recorded_questions_were_answered_in_every_client() -> None:
    outcomes = {outcome.client: outcome for outcome in record.load()}
    for assistant in ASSISTANTS:
        rows = [asking.Seen(**row) for row in outcomes[assistant.title].people]
        modes = {asking.WITHOUT, *([asking.IN_TERMINAL] if assistant.name in persons.PERSONS else [])}
        assert {row.mode for row in rows} == modes, f"run `make test-clients PEOPLE=1` for {assistant.title}"
        for row in rows:
            assert all(row.received), assistant.title
            denied = row.did in ("accepted, not ticked", "Esc", "declined", "was not asked")
            assert denied is row.received[-1].startswith("nothing was "), assistant.title


def test_answers_and_codes_are_compared_with_what_the_person_did() -> None:
    legacy = [{"id": 1, "result": {"action": "accept", "content": {"confirm": False}}}]
    modern_answer = {"inputResponses": {"question": {"action": "decline"}}}
    session = Session([*legacy, {"id": 2, "method": "tools/call", "params": modern_answer}], [], [])
    asking.check_answers([session], ["", "page", "leave", "decline"])
    with pytest.raises(Failed, match="the forms were answered with"):
        asking.check_answers([session], ["leave", "cancel"])
    asking.check_command_lines(["http://127.0.0.1:1/x", "/home/x/page.html"], ["", "page", "leave", "consent"])
    with pytest.raises(Failed, match="started with a page's address"):
        asking.check_command_lines(["http://127.0.0.1:1/x"], ["consent"])
    opened = [{"sent": False, "text": "<strong>4F7K</strong>"}, {"sent": True, "text": "done"}]
    asking.check_codes(["Store it. Code 4F7K."], opened)
    for shown in (["Store it. Code 4F7L."], ["Store it."], []):
        with pytest.raises(Failed, match=r"code of the dialog|1 pages for 0 dialogs"):
            asking.check_codes(shown, opened)


# ---------------------------------------------------------------------------------------------------------------------
# record
# ---------------------------------------------------------------------------------------------------------------------


def test_record_contains_the_pinned_version_of_every_client() -> None:
    kept = {outcome.client: outcome.version for outcome in record.load()}
    assert list(kept) == [client.title for client in trials.CLIENTS], "run `make test-clients`"
    pinned = {client.title: client.package.version for client in trials.CLIENTS if client.package}
    assert {title: kept[title] for title in pinned} == pinned, "run `make test-clients`"


def test_new_outcomes_replace_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    old = [record.Outcome(name, "npm x", "1", "2026-01-01", "", [], "passed", [], []) for name in ("a", "b", "gone")]
    record.keep(old, ["a", "b", "gone"], path)
    fresh = old[1]._replace(version="2", outcome="failed: why")
    record.keep([fresh], ["b", "a"], path)
    assert record.load(path) == [fresh, old[0]]


def test_table_lists_clients_that_could_not_run() -> None:
    outcome = record.Outcome("A", "npm a", "1", "2026-01-01", "2025-11-25", ["x", "y"], "not run: no network", [], [])
    tried, others = record.rows([outcome])
    assert tried == ["A", "1", "2025-11-25", "x; y", "not run: no network", "2026-01-01"]
    assert others[0].startswith("Antigravity, Claude Desktop, Cursor, ")
    assert others[4] == "not run"


def test_long_lists_of_every_assistant_arrive_whole() -> None:
    outcomes = [outcome for outcome in record.load() if outcome.client in record.SHOWN_BEFORE]
    assert [outcome.client for outcome in outcomes] == [assistant.title for assistant in ASSISTANTS]
    for outcome in outcomes:
        for row in outcome.shown:
            assert row["received"] == row["sent"] > 0, outcome.client
            assert not row["cut"], outcome.client
            assert row["last_row"], outcome.client
        assert len(outcome.shown) == len(large_vault.LISTINGS), f"run `make test-clients` for {outcome.client}"


def test_table_shows_what_reached_the_model() -> None:
    row = {"list": "secrets", "total": 5000, "sent": 43, "received": 43, "cut": False, "pages": 4, "last_row": True}
    outcome = record.Outcome(
        "Codex", "npm a", "1", "2026-01-01", "", [], "passed", [row, {**row, "received": 40, "cut": True}, row], []
    )
    other = outcome._replace(client="A", shown=[{**row, "last_row": False}])
    sdk = outcome._replace(shown=[])
    before = record.SHOWN_BEFORE["Codex"]
    assert record.shown_rows([outcome, other, sdk]) == [
        ["Codex", "43 of 43", before[0], "40 of 43, cut", before[1], "43 of 43", before[2], "reached"],
        ["A", "43 of 43", "not measured", "not reached"],
    ]
