"""Revision 2026-07-28 beside the older ones: which reply each message gets, and that no era disturbs the other."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from sikkerkey_mcp import LOG_LEVELS, METHODS, VERSION
from tests.support.in_process_client import (
    SERVER_INFO,
    VERSIONS,
    InProcessClient,
    call,
    envelope,
    modern,
    modern_reply,
    notification,
    opening,
    refusal,
    reply,
    request,
)
from tests.support.rows import each_of
from tests.support.sample_tools import FixtureLibrary, FixtureTools
from tests.support.schema_check import MODERN, conforms

PREFIX = "io.modelcontextprotocol/"
HOUR_MS = 3_600_000
ALL = ("tools", "resources", "prompts", "completions")
REFERENCE = {"type": "ref/prompt", "name": "ask"}
# Valid params for each method.
PARAMS: dict[str, dict[str, Any]] = {
    "server/discover": {},
    "tools/list": {},
    "tools/call": {"name": "echo", "arguments": {"a": 1}},
    "resources/list": {},
    "resources/templates/list": {},
    "resources/read": {"uri": "test://text"},
    "prompts/list": {},
    "prompts/get": {"name": "greet"},
    "completion/complete": {"ref": REFERENCE, "argument": {"name": "what", "value": "x"}},
}
CACHED = {
    **dict.fromkeys(("server/discover", "tools/list", "prompts/list", "resources/templates/list"), HOUR_MS),
    **dict.fromkeys(("resources/list", "resources/read"), 0),
}


def client(version: str = "", **options: Any) -> InProcessClient:
    """A client of tools, resources and prompts; without a version, no `initialize` is sent."""
    return InProcessClient(version, FixtureTools(ALL), **options)


def tool_call(tool: str, request_id: Any = 1, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """A modern `tools/call`."""
    return modern("tools/call", request_id, meta, name=tool, arguments=arguments)


# what is served


def test_discover_says_what_initialize_says() -> None:
    discovered = client().send(modern("server/discover"))["result"]
    initialized = client().send(opening())["result"]
    assert discovered == {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": initialized["capabilities"],
        "instructions": initialized["instructions"],
        "ttlMs": HOUR_MS,
        "cacheScope": "private",
        "_meta": {PREFIX + "serverInfo": {"name": "sikkerkey-mcp", "title": "SikkerKey", "version": VERSION}},
    }
    conforms(discovered, "DiscoverResult", MODERN)


@each_of("version", ["", *VERSIONS])
def test_every_method_is_served_before_and_after_initialize_with_its_members(version: str) -> None:
    assert set(PARAMS) == {*METHODS, "server/discover"}
    for method, params in PARAMS.items():
        result = client(version).send(modern(method, **params))["result"]
        assert result["resultType"] == "complete", method
        assert result["_meta"][PREFIX + "serverInfo"]["name"] == "sikkerkey-mcp", method
        assert result.get("ttlMs") == CACHED.get(method), method
        assert result.get("cacheScope") == ("private" if method in CACHED else None), method


def test_the_first_message_of_a_process_may_be_any() -> None:
    assert client().send(modern("tools/list")) == modern_reply({"tools": FixtureTools().listing()}, ttl_ms=HOUR_MS)
    echoed = {"content": [{"type": "text", "text": '{"a":1}'}], "structuredContent": {"a": 1}}
    assert client().send(tool_call("echo", a=1)) == modern_reply(echoed)


def test_an_error_result_has_a_type_too() -> None:
    failed = {"content": [{"type": "text", "text": "it failed\nhint: do not call it"}], "isError": True}
    assert client().send(tool_call("fail")) == modern_reply(failed)
    refused = client().start(tool_call("echo")).refuse("too many")
    assert refused == modern_reply({"content": [{"type": "text", "text": "too many"}], "isError": True})


def test_lists_are_the_same_in_both_eras() -> None:
    for method in METHODS:
        if method.endswith("/list"):
            old, new = client("2025-11-25").send(request(method)), client().send(modern(method))
            added = {"resultType", "ttlMs", "cacheScope", "_meta"}
            assert {name: value for name, value in new["result"].items() if name not in added} == old["result"], method


@each_of("method", ["initialize", "ping", "logging/setLevel", "no/such", "", "tasks/list"])
@each_of("version", ["", "2025-11-25"])
def test_removed_and_unknown_methods_are_not_found(method: str, version: str) -> None:
    answer = client(version).send(modern(method, level="info", protocolVersion="2025-11-25"))
    assert answer == refusal(-32601, "there is no such method", id=1)


def test_nothing_can_be_subscribed_to() -> None:
    capabilities = client().send(modern("server/discover"))["result"]["capabilities"]
    assert [name for name, offered in capabilities.items() if offered] == []  # neither listChanged nor subscribe
    for method in ("subscriptions/listen", "resources/subscribe", "resources/unsubscribe"):
        assert client().send(modern(method))["error"]["code"] == -32601, method


def test_a_method_without_its_capability_is_not_found() -> None:
    for method, (capability, _) in METHODS.items():
        tools = FixtureTools([name for name in ALL if name != capability])
        answer = InProcessClient("", tools).send(modern(method, **PARAMS[method]))
        assert answer == refusal(-32601, "there is no such method", id=1), method


def test_a_missing_resource_has_another_code_than_in_older_revisions() -> None:
    error = {"message": "there is no such resource", "data": {"uri": "test://none"}}
    answers = {
        -32602: client().send(modern("resources/read", uri="test://none")),
        -32002: client("2025-11-25").send(request("resources/read", uri="test://none")),
    }
    for code, answer in answers.items():
        assert answer == {"jsonrpc": "2.0", "id": 1, "error": {"code": code, **error}}


@each_of(
    ("method", "params", "rule"),
    [
        ("tools/call", {"name": "no_such"}, "there is no tool of that name"),
        ("tools/call", {"name": "echo", "arguments": []}, "arguments must be an object"),
        ("prompts/get", {"name": "no_such"}, "there is no prompt of that name"),
        ("tools/list", {"cursor": "x"}, "the cursor does not come from this server: everything is on one page"),
        ("resources/read", {}, "uri must be a string"),
    ],
)
def test_wrong_params_are_refused_as_in_older_revisions(method: str, params: dict[str, Any], rule: str) -> None:
    assert client().send(modern(method, **params)) == refusal(-32602, rule, id=1)
    assert client("2025-11-25").send(request(method, **params)) == refusal(-32602, rule, id=1)


# the envelope


def without(name: str) -> dict[str, Any]:
    """An envelope without one member."""
    return {key: value for key, value in envelope().items() if key != PREFIX + name}


def with_(name: str, value: Any) -> dict[str, Any]:
    """An envelope with another value for one member."""
    return {**envelope(), PREFIX + name: value}


VERSION_RULE = f"_meta: {PREFIX}protocolVersion must be a string"
CAPABILITIES_RULE = f"_meta: {PREFIX}clientCapabilities must be an object"
LEVEL_RULE = f"{PREFIX}logLevel must be one of: " + ", ".join(LOG_LEVELS)
NOT_A_STRING: list[Any] = [None, 20260728, [], {}, True]
NOT_AN_OBJECT: list[Any] = [None, [], "x", 1, True]
NO_LEVEL: list[Any] = [None, "loud", "", "INFO", 1, [], {}]
MALFORMED = [
    *[(with_("protocolVersion", value), VERSION_RULE) for value in NOT_A_STRING],
    (without("clientCapabilities"), CAPABILITIES_RULE),
    *[(with_("clientCapabilities", value), CAPABILITIES_RULE) for value in NOT_AN_OBJECT],
    *[(with_("logLevel", value), LEVEL_RULE) for value in NO_LEVEL],
]


@pytest.mark.parametrize("version", ["", "2025-11-25"])
def test_a_malformed_envelope_is_refused(version: str) -> None:
    for meta, rule in MALFORMED:
        session = client(version)
        assert session.send(tool_call("echo", meta=meta)) == refusal(-32602, rule, id=1), meta
        assert session.send(modern("server/discover", meta=meta)) == refusal(-32602, rule, id=1), meta


@each_of("wanted", ["2025-11-25", "2099-01-01", "1900-01-01", "", "DRAFT", "x" * 5_000])
def test_another_version_is_refused_with_the_supported_ones(wanted: str) -> None:
    for method in ("server/discover", "tools/call", "initialize", "no/such"):
        error = client().send(modern(method, meta=with_("protocolVersion", wanted), name="echo"))["error"]
        assert (error["code"], error["data"]["supported"]) == (-32022, ["2026-07-28"]), method
        assert error["data"]["requested"] == wanted[:100], method


def test_checks_have_an_order() -> None:
    unsupported, level = with_("protocolVersion", "1900-01-01"), with_("logLevel", "loud")
    expected = [
        ({"protocolVersion": 1, "clientCapabilities": 1}, "no/such", -32602, VERSION_RULE),
        ({**unsupported, PREFIX + "clientCapabilities": 1}, "no/such", -32602, CAPABILITIES_RULE),
        ({**unsupported, PREFIX + "logLevel": "loud"}, "no/such", -32022, "this protocol version is not supported"),
        (level, "no/such", -32602, LEVEL_RULE),
        (envelope(), "no/such", -32601, "there is no such method"),
        (envelope(), "tools/call", -32602, "name must be a string"),
    ]
    for meta, method, code, rule in expected:
        prefixed = {name if name.startswith(PREFIX) else PREFIX + name: value for name, value in meta.items()}
        error = client().send(modern(method, meta=prefixed))["error"]
        assert (error["code"], error["message"]) == (code, rule)


def test_client_info_is_optional_and_other_members_are_ignored() -> None:
    for meta in (
        without("clientInfo"),
        {**envelope(), "claudecode/toolUseId": "x", "x-codex-turn-metadata": {"a": [1]}, PREFIX + "unknown": None},
    ):
        assert client().send(tool_call("echo", meta=meta))["result"]["structuredContent"] == {}


@pytest.mark.parametrize("meta", [{PREFIX + "clientCapabilities": {}}, {}, {"protocolVersion": "2026-07-28"}])
def test_only_the_versions_key_makes_a_request_modern(meta: dict[str, Any]) -> None:
    echoed = {"content": [{"type": "text", "text": "{}"}], "structuredContent": {}}
    asked = request("tools/call", name="echo", arguments={}, _meta=meta)
    assert client("2025-11-25").send(asked) == reply(echoed)
    assert client().send(asked) == refusal(-32600, "initialize must come first", id=1)


@each_of("meta", [None, [], "x", 1])
def test_a_meta_that_is_no_object_is_not_modern(meta: Any) -> None:
    session = client(lenient=True)
    assert session.send(request("tools/list", _meta=meta)) == refusal(-32600, "initialize must come first", id=1)


# notifications, ids and batches


def test_log_messages_are_sent_at_the_level_that_the_request_asks_for_and_not_without() -> None:
    for level in LOG_LEVELS:
        session = client()
        session.send(tool_call("report", meta=envelope(logLevel=level)))
        logged = [message["params"]["level"] for message in session.notifications]
        assert logged == list(LOG_LEVELS[LOG_LEVELS.index(level) :])
        session.send(tool_call("report", 2))
        assert len(session.notifications) == len(logged)


def test_the_legacy_level_and_the_requests_level_are_separate() -> None:
    session = client("2025-11-25")
    session.send(request("logging/setLevel", level="debug"))
    session.send(tool_call("report"))
    assert session.notifications == []
    session.send(tool_call("report", meta=envelope(logLevel="emergency")))
    session.send(call("report"))
    assert len(session.notifications) == 1 + len(LOG_LEVELS)


def test_progress_is_sent_with_the_requests_token_only() -> None:
    session = client()
    session.send(tool_call("report", meta=envelope(progressToken="p1")))
    assert [message["params"]["progressToken"] for message in session.notifications] == ["p1"] * 3
    session.send(tool_call("report", 2))
    assert len(session.notifications) == 3


@pytest.mark.parametrize("meta", [{}, {"_meta": envelope()}])
def test_a_cancelled_call_says_nothing_more(meta: dict[str, Any]) -> None:
    session = client()
    started = session.start(tool_call("report", 5, envelope(progressToken="t", logLevel="debug")))
    assert session.send(notification("notifications/cancelled", requestId=5, **meta)) is None
    started.progress("late")
    started.log("emergency", "late")
    assert (started.run(), session.notifications) == (None, [])
    assert session.send(notification("notifications/cancelled", requestId=77, **meta)) is None


@pytest.mark.parametrize(("first", "second"), [(tool_call, call), (call, tool_call)])
def test_ids_are_one_space(first: Any, second: Any) -> None:
    session = client("2025-11-25")
    started = session.start(first("echo", 5))
    assert session.send(second("echo", 5)) == refusal(-32600, "a request with this id is still running", id=5)
    assert started.run() is not None
    assert session.send(second("echo", 5))["id"] == 5


@each_of("request_id", [None, 1.5, True, [], {}])
def test_a_request_with_an_invalid_id_is_not_executed(request_id: Any) -> None:
    session = client(lenient=True)
    assert session.send(tool_call("echo", request_id)) == refusal(-32600, "id must be a string or an integer")


def test_a_notification_with_an_envelope_does_nothing() -> None:
    session = client()
    for method in (*METHODS, "server/discover", "notifications/initialized"):
        assert session.send(notification(method, name="echo", _meta=envelope())) is None


@pytest.mark.parametrize("version", ["", "2025-11-25", "2025-06-18"])
def test_a_batch_is_refused(version: str) -> None:
    refused = refusal(-32600, "batches are not part of this protocol version")
    assert client(version).send([modern("tools/list")]) == refused


def test_a_legacy_batch_serves_no_modern_request() -> None:
    messages = [request("ping", 1), modern("tools/list", 2), tool_call("echo", 3)]
    refused = [refusal(-32600, "batches are not part of this protocol version", id=number) for number in (2, 3)]
    assert client("2025-03-26").send(messages) == [reply({}), *refused]


def test_responses_are_ignored() -> None:
    for answer in ({"result": {"action": "accept"}}, {"error": {"code": -1, "message": "no"}}):
        assert client().send({"jsonrpc": "2.0", "id": "question-1", **answer}) is None


# both eras in one process


def test_initialize_is_accepted_after_modern_requests_and_they_after_it() -> None:
    session = client()
    assert session.send(modern("server/discover", "probe"))["result"]["supportedVersions"] == ["2026-07-28"]
    assert session.send(request("server/discover")) == refusal(-32601, "there is no such method", id=1)
    assert session.send(modern("tools/list"))["result"]["resultType"] == "complete"
    assert session.send(request("tools/list")) == refusal(-32600, "initialize must come first", id=1)
    assert session.send(opening("2025-06-18"))["result"]["protocolVersion"] == "2025-06-18"
    assert session.send(modern("server/discover"))["result"]["resultType"] == "complete"
    assert session.send(request("tools/list")) == reply({"tools": FixtureTools().listing()})
    assert session.session.version == "2025-06-18"


def test_the_legacy_version_decides_nothing_for_modern_requests() -> None:
    session = client("2024-11-05")
    echoed = {"content": [{"type": "text", "text": '{"a":1}'}]}
    assert session.send(call("echo", a=1)) == reply(echoed)
    assert session.send(tool_call("echo", a=1)) == modern_reply({**echoed, "structuredContent": {"a": 1}})
    assert session.send(call("echo", a=1)) == reply(echoed)


def test_eras_in_random_order_answer_as_each_does_alone() -> None:
    """Each request's reply is the same whatever was sent before it."""
    rng = Random(7)  # noqa: S311 - the order of messages is no secret
    legacy = [
        request("ping"), request("tools/list"), request("resources/list"), call("echo", a=1), call("fail"),
        request("resources/read", uri="test://none"), request("no/such"), request("server/discover"), opening(),
        request("prompts/get", name="greet"), request("logging/setLevel", level="debug"),
    ]  # fmt: skip
    new = [
        *(modern(method, **params) for method, params in PARAMS.items()), tool_call("fail"), modern("ping"),
        *(tool_call("echo", meta=meta) for meta, _ in MALFORMED), modern("resources/read", uri="test://none"),
        modern("initialize"),
    ]  # fmt: skip
    alone = {id(message): client("2025-06-18").send(message) for message in [*legacy, *new]}
    session = client("2025-06-18")
    for message in rng.choices([*legacy, *new], k=400):
        assert session.send(message) == alone[id(message)], message


def test_results_of_one_era_do_not_leak_into_the_other() -> None:
    session = client("2025-11-25")
    before = json.dumps(session.send(request("tools/list")))
    assert session.send(modern("tools/list"))["result"]["_meta"] == SERVER_INFO
    assert json.dumps(session.send(request("tools/list"))) == before
    assert FixtureLibrary().listing("prompts") == session.send(request("prompts/list"))["result"]["prompts"]
