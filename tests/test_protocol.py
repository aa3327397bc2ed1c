"""The protocol without I/O: which reply each message gets, mostly with sample tools instead of the vault's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sikkerkey_mcp import (
    LOG_LEVELS,
    METHODS,
    TOOLS,
    VERSION,
    Api,
    ConfigError,
    VaultTools,
    tool_listing,
)
from tests.support.in_process_client import (
    VERSIONS,
    InProcessClient,
    call,
    notification,
    opening,
    refusal,
    reply,
    request,
)
from tests.support.rows import each_of
from tests.support.sample_tools import FixtureLibrary, FixtureTools
from tests.support.schema_check import RESULTS, conforms

LEGACY_METHODS = ("initialize", "ping", "logging/setLevel")

# initialize


@each_of("version", VERSIONS)
def test_a_supported_version_is_echoed(version: str) -> None:
    result = {
        "protocolVersion": version,
        "capabilities": {"logging": {}, "tools": {}},
        "serverInfo": {"name": "sikkerkey-mcp", "title": "SikkerKey", "version": VERSION},
        "instructions": "Tools for tests.",
    }
    assert InProcessClient("").send(opening(version)) == reply(result, 0)
    conforms(result, "InitializeResult")


def test_a_byte_order_mark_may_precede_the_first_message() -> None:
    line = b"\xef\xbb\xbf" + json.dumps(opening("2025-11-25")).encode()
    assert InProcessClient("").send_bytes(line) == InProcessClient("").send(opening("2025-11-25"))


@each_of("version", ["2026-07-28", "1999-01-01", "", "x" * 10_000, 7, None, ["2025-06-18"], {}])
def test_an_unknown_version_is_offered_the_latest(version: Any) -> None:
    assert InProcessClient("", lenient=True).send(opening(version))["result"]["protocolVersion"] == "2025-11-25"


def test_a_missing_version_is_offered_the_latest() -> None:
    answer = InProcessClient("", lenient=True).send({"jsonrpc": "2.0", "id": 1, "method": "initialize"})
    assert answer["result"]["protocolVersion"] == "2025-11-25"


@each_of("method", ["tools/list", "tools/call", "logging/setLevel", "resources/list", "no/such", ""])
@pytest.mark.peer(2)
def test_before_initialize_nothing_but_ping_is_served(method: str) -> None:
    client = InProcessClient("")
    assert client.send(request(method, name="echo")) == refusal(-32600, "initialize must come first", id=1)
    assert client.tools.calls == []


def test_ping_is_answered_before_initialize() -> None:
    assert InProcessClient("").send(request("ping")) == reply({})


def test_a_second_initialize_is_refused_and_changes_nothing() -> None:
    client = InProcessClient("2025-03-26")
    assert client.send(opening()) == refusal(-32600, "this session has been initialized already", id=0)
    assert client.session.version == "2025-03-26"


def test_an_initialize_with_bad_params_can_be_repeated() -> None:
    client = InProcessClient("")
    bad = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": []}
    assert client.send(bad) == refusal(-32602, "params must be an object", id=1)
    assert "result" in client.send(opening())


def test_server_discover_is_unknown_and_initialize_is_accepted_afterwards() -> None:
    client = InProcessClient("")
    unknown = refusal(-32601, "there is no such method", id=1)
    assert client.send(request("server/discover")) == unknown
    assert client.send(request("server/discover")) == unknown
    assert client.send(opening())["result"]["protocolVersion"] == "2025-11-25"
    assert client.send(request("server/discover")) == unknown


# ids and malformed messages


@each_of("request_id", [0, 1, -1, 2**63, 10**300, "", "1", "a b", "ø→🔑", "\ud800", "x" * 10_000])
def test_string_and_integer_ids_come_back_as_they_were(request_id: Any) -> None:
    answer = InProcessClient().send(request("ping", request_id))
    assert answer == reply({}, request_id)
    assert type(answer["id"]) is type(request_id)


@each_of("request_id", [None, 1.5, 1.0, True, False, [], [1], {}, {"a": 1}])
def test_a_request_with_another_id_is_invalid_and_not_executed(request_id: Any) -> None:
    client = InProcessClient()
    line = json.dumps(call("echo", request_id)).encode()
    assert client.send_bytes(line) == refusal(-32600, "id must be a string or an integer")
    assert client.tools.calls == []


@each_of(
    "line",
    [
        b"x",
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
        '{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16"),
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":-Infinity}}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\x00",
    ],
)
def test_invalid_json_is_a_parse_error_without_an_id(line: bytes) -> None:
    assert InProcessClient().send_bytes(line) == refusal(-32700, "the line is not a JSON message in UTF-8")


@each_of("message", [None, True, 1, 1.5, "ping", ""])
def test_json_that_is_no_object_is_invalid_without_an_id(message: Any) -> None:
    assert InProcessClient().send(message) == refusal(-32600, "the message is not a JSON-RPC 2.0 object")


@each_of("extra", [{}, {"jsonrpc": "1.0"}, {"jsonrpc": 2.0}, {"jsonrpc": None}])
def test_another_json_rpc_is_invalid(extra: dict[str, Any]) -> None:
    message = {**extra, "id": 1, "method": "ping"}
    assert InProcessClient().send(message) == refusal(-32600, "the message is not a JSON-RPC 2.0 object", id=1)


@each_of("extra", [{}, {"method": None}, {"method": 1}, {"method": ["ping"]}, {"method": {}}])
def test_a_method_that_is_not_a_string_is_invalid(extra: dict[str, Any]) -> None:
    assert InProcessClient().send({"jsonrpc": "2.0", "id": 1, **extra}) == refusal(
        -32600, "method must be a string", id=1
    )


@each_of("method", ["resources/subscribe", "no/such", "", "__init__", "Ping"])
def test_an_unknown_method_is_not_found(method: str) -> None:
    assert InProcessClient().send(request(method)) == refusal(-32601, "there is no such method", id=1)


@each_of("params", [[], [1], "", "x", 0, 1, True, False])
def test_params_that_are_not_an_object_are_invalid(params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": params}
    assert InProcessClient().send(message) == refusal(-32602, "params must be an object", id=1)


def test_absent_params_are_an_empty_object() -> None:
    assert InProcessClient().send({"jsonrpc": "2.0", "id": 1, "method": "ping"}) == reply({})


@each_of("answer", [{"result": {}}, {"error": {"code": -32601, "message": "no"}}])
@each_of("request_id", [{"id": 1}, {"id": "x"}, {"id": None}, {}])
def test_responses_of_the_client_are_ignored(answer: dict[str, Any], request_id: dict[str, Any]) -> None:
    assert InProcessClient().send({"jsonrpc": "2.0", **request_id, **answer}) is None


# notifications


@each_of("method", [*METHODS, *LEGACY_METHODS, "no/such", "", "notifications/no-such", "notifications/initialized"])
def test_a_notification_is_never_answered(method: str) -> None:
    assert InProcessClient().send(notification(method, name="echo", arguments={}, level="no", cursor="x")) is None


@pytest.mark.peer(2)
def test_a_call_without_an_id_does_nothing() -> None:
    client = InProcessClient()
    assert client.send(notification("tools/call", name="echo", arguments={})) is None
    assert client.tools.calls == []


def test_an_initialize_without_an_id_does_nothing() -> None:
    client = InProcessClient("")
    assert client.send(notification("initialize", protocolVersion="2025-11-25")) is None
    assert client.send(request("tools/list")) == refusal(-32600, "initialize must come first", id=1)


# batches

BATCH_REFUSED = refusal(-32600, "batches are not part of this protocol version")


@each_of("version", ["", *(version for version in VERSIONS if version != "2025-03-26")])
@each_of("size", [1, 2])
def test_a_batch_is_refused_by_other_versions(version: str, size: int) -> None:
    client = InProcessClient(version)
    assert client.send([call("echo")] * size) == BATCH_REFUSED
    assert client.tools.calls == []


def test_a_batch_is_answered_in_one_array() -> None:
    messages = [request("ping", 1), call("echo", "two", a=1), notification("x"), request("no/such", 3)]
    echoed = {"content": [{"type": "text", "text": '{"a":1}'}]}
    answers = [reply({}), reply(echoed, "two"), refusal(-32601, "there is no such method", id=3)]
    assert InProcessClient("2025-03-26").send(messages) == answers


def test_a_batch_of_notifications_is_not_answered() -> None:
    assert InProcessClient("2025-03-26").send([notification("notifications/initialized"), notification("x")]) is None


def test_an_empty_batch_is_invalid() -> None:
    assert InProcessClient("2025-03-26").send([]) == refusal(-32600, "the batch is empty")


def test_invalid_items_of_a_batch_are_refused_one_by_one() -> None:
    invalid = refusal(-32600, "the message is not a JSON-RPC 2.0 object")
    answers = [invalid, invalid, refusal(-32600, "id must be a string or an integer"), reply({}, 4)]
    assert InProcessClient("2025-03-26").send([1, [], request("ping", None), request("ping", 4)]) == answers


def test_initialize_is_not_served_in_a_batch() -> None:
    assert InProcessClient("").send([opening("2025-03-26")]) == BATCH_REFUSED
    assert "error" in InProcessClient("2025-03-26").send([opening("2025-03-26")])[0]


# logging


def test_set_level_answers_with_an_empty_object() -> None:
    client = InProcessClient()
    assert [client.send(request("logging/setLevel", level=level)) for level in LOG_LEVELS] == [reply({})] * 8


LEVEL_RULE = "level must be one of: debug, info, notice, warning, error, critical, alert, emergency"


@each_of("level", ["verbose", "", "DEBUG", None, 1, [], {}])
def test_an_unknown_level_is_refused(level: Any) -> None:
    assert InProcessClient().send(request("logging/setLevel", level=level)) == refusal(-32602, LEVEL_RULE, id=1)


def test_a_missing_level_is_refused() -> None:
    assert InProcessClient().send(request("logging/setLevel")) == refusal(-32602, LEVEL_RULE, id=1)


def logged(level: str) -> dict[str, Any]:
    """What the tool `report` logs at a level."""
    return notification("notifications/message", level=level, logger="sikkerkey-mcp", data=f"a line of level {level}")


@each_of("level", LOG_LEVELS)
def test_messages_below_the_level_are_not_sent(level: str) -> None:
    client = InProcessClient()
    client.send(request("logging/setLevel", level=level))
    client.send(call("report"))
    assert client.notifications == [logged(shown) for shown in LOG_LEVELS[LOG_LEVELS.index(level) :]]


def test_warnings_and_worse_are_sent_by_default() -> None:
    client = InProcessClient()
    client.send(call("report"))
    assert client.notifications == [logged(level) for level in ("warning", "error", "critical", "alert", "emergency")]


# progress


def report_with(meta: Any) -> list[dict[str, Any]]:
    """The progress notifications of a call with this `_meta`."""
    client = InProcessClient(lenient=True)
    client.send(request("tools/call", name="report", arguments={}, _meta=meta))
    return [message for message in client.notifications if message["method"] == "notifications/progress"]


@each_of("token", ["t", "", 0, 1, -1])
def test_progress_carries_the_token_and_increases(token: Any) -> None:
    assert report_with({"progressToken": token}) == [
        notification("notifications/progress", progressToken=token, progress=step, message=message)
        for step, message in enumerate(["one", "two", "three"], 1)
    ]


@each_of("meta", [{}, None, [], "progressToken"])
def test_without_a_token_there_is_no_progress(meta: Any) -> None:
    assert report_with(meta) == []


@each_of("token", [None, True, 1.5, [], {}])
def test_with_an_invalid_token_there_is_no_progress(token: Any) -> None:
    assert report_with({"progressToken": token}) == []


def test_after_a_cancellation_there_are_no_notifications() -> None:
    client = InProcessClient()
    started = client.start(request("tools/call", 5, name="report", arguments={}, _meta={"progressToken": "t"}))
    client.send(notification("notifications/cancelled", requestId=5))
    started.progress("late")
    started.log("emergency", "late")
    assert client.notifications == []


# cancellation


def test_a_call_that_is_cancelled_before_it_runs_does_nothing() -> None:
    client = InProcessClient()
    started = client.start(call("echo", 5))
    assert client.send(notification("notifications/cancelled", requestId=5)) is None
    assert started.run() is None
    assert client.tools.calls == []


def test_a_call_that_is_cancelled_in_the_middle_is_not_answered() -> None:
    client = InProcessClient()
    started = client.start(call("wait", "x"))
    started.cancellation.on_set(lambda: None)
    client.tools.gate.set()  # so the tool goes through, and would be answered
    client.tools.call = lambda *_: client.send(notification("notifications/cancelled", requestId="x")) or {}  # type: ignore[method-assign]
    assert started.run() is None


@each_of("request_id", [6, "5", 5.0, True, None, [], {}])
def test_another_id_cancels_nothing(request_id: Any) -> None:
    client = InProcessClient()
    started = client.start(call("echo", 5))
    assert client.send(notification("notifications/cancelled", requestId=request_id)) is None
    assert started.run() == reply({"content": [{"type": "text", "text": "{}"}], "structuredContent": {}}, 5)


@each_of("params", [{}, [], None, "5", 5, [5]])
def test_a_malformed_cancellation_is_ignored(params: Any) -> None:
    client = InProcessClient()
    started = client.start(call("echo", 5))
    assert client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}) is None
    assert not started.cancellation.is_set()


def test_cancelling_a_finished_call_does_nothing() -> None:
    client = InProcessClient()
    assert client.send(call("echo", 5))["id"] == 5
    assert client.send(notification("notifications/cancelled", requestId=5)) is None
    assert client.send(call("echo", 5))["id"] == 5


def test_initialize_cannot_be_cancelled() -> None:
    client = InProcessClient("")
    assert client.send(notification("notifications/cancelled", requestId=0)) is None
    assert client.send(opening(request_id=0))["id"] == 0
    assert client.send(notification("notifications/cancelled", requestId=0)) is None
    assert client.session.version == "2025-11-25"


def test_the_id_of_a_running_call_cannot_be_used_again() -> None:
    client = InProcessClient()
    started = client.start(call("echo", 5))
    assert client.send(call("echo", 5)) == refusal(-32600, "a request with this id is still running", id=5)
    assert started.run() is not None
    assert client.send(call("echo", 5))["id"] == 5


def test_the_id_of_a_cancelled_call_can_be_used_again_and_is_answered_once() -> None:
    client = InProcessClient()
    old = client.start(call("echo", 5))
    client.send(notification("notifications/cancelled", requestId=5))
    new = client.start(call("echo", 5))
    assert [old.run(), (new.run() or {})["id"]] == [None, 5]


# tools/list


def vault_tools() -> VaultTools:
    """The real registry, on a computer without an agent."""

    def connect() -> Api:
        raise ConfigError("no agent is installed", "install one")

    return VaultTools(connect)


def test_tools_list_is_the_registrys_listing_on_one_page() -> None:
    assert InProcessClient().send(request("tools/list")) == reply({"tools": FixtureTools().listing()})


@each_of("cursor", [" ", "x", "0", 0, [], {}, False])
def test_an_invalid_cursor_is_refused(cursor: Any) -> None:
    rule = "the cursor does not come from this server: everything is on one page"
    assert InProcessClient().send(request("tools/list", cursor=cursor)) == refusal(-32602, rule, id=1)


@each_of("version", VERSIONS)
def test_the_vaults_tools_list_conforms_to_the_schema(version: str) -> None:
    result = InProcessClient(version, vault_tools()).send(request("tools/list"))["result"]
    assert len(result["tools"]) == len(TOOLS)
    conforms(result, "ListToolsResult")


@pytest.mark.peer(16)
def test_every_tool_of_the_vault_has_a_title_and_all_three_hints() -> None:
    hints = {"readOnlyHint", "destructiveHint", "openWorldHint"}
    for tool in map(tool_listing, TOOLS):
        assert tool["title"]
        assert {name: type(value) for name, value in tool["annotations"].items()} == dict.fromkeys(hints, bool)


def test_no_tool_of_the_vault_declares_what_its_answers_might_not_keep() -> None:
    assert [tool.name for tool in TOOLS if "outputSchema" in tool_listing(tool)] == []


def test_schemas_are_flat() -> None:
    text = json.dumps([tool_listing(tool)["inputSchema"] for tool in TOOLS])
    assert [word for word in ("oneOf", "anyOf", "allOf", "$ref", "$defs") if f'"{word}"' in text] == []


# tools/call


@each_of(
    ("params", "rule"),
    [
        ({}, "name must be a string"),
        ({"arguments": {}}, "name must be a string"),
        ({"name": None}, "name must be a string"),
        ({"name": ["echo"]}, "name must be a string"),
        ({"name": "no_such"}, "there is no tool of that name"),
        ({"name": ""}, "there is no tool of that name"),
        ({"name": "ECHO"}, "there is no tool of that name"),
        ({"name": "echo", "arguments": []}, "arguments must be an object"),
        ({"name": "echo", "arguments": "{}"}, "arguments must be an object"),
        ({"name": "echo", "arguments": 1}, "arguments must be an object"),
    ],
)
def test_a_call_that_names_no_tool_or_gives_no_object_is_a_protocol_error(params: Any, rule: str) -> None:
    client = InProcessClient()
    assert client.send(request("tools/call", **params)) == refusal(-32602, rule, id=1)
    assert client.tools.calls == []


def test_absent_arguments_are_an_empty_object() -> None:
    client = InProcessClient()
    assert client.send(request("tools/call", name="echo"))["result"]["structuredContent"] == {}


@pytest.mark.parametrize("version", VERSIONS[:2])
@pytest.mark.peer(16)
def test_newer_versions_get_structured_content_with_the_text(version: str) -> None:
    expected = {"content": [{"type": "text", "text": '{"a":[1,"→"]}'}], "structuredContent": {"a": [1, "→"]}}
    assert InProcessClient(version).send(call("echo", a=[1, "→"])) == reply(expected)


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_versions_before_2025_06_18_get_text_only(version: str) -> None:
    expected = {"content": [{"type": "text", "text": '{"a":[1,"→"]}'}]}
    assert InProcessClient(version).send(call("echo", a=[1, "→"])) == reply(expected)


@each_of("version", VERSIONS)
def test_a_failure_is_a_result_without_structured_content(version: str) -> None:
    expected = {"content": [{"type": "text", "text": "it failed\nhint: do not call it"}], "isError": True}
    assert InProcessClient(version).send(call("fail")) == reply(expected)


def test_a_tool_that_breaks_is_answered_with_an_internal_error_that_repeats_nothing() -> None:
    client = InProcessClient()
    assert client.send(call("break")) == refusal(-32603, "internal error (LookupError)", id=1)
    assert client.send(call("echo"))["id"] == 1


ID_RULE = "must be an id: 1 to 128 letters, digits, - or _, as an earlier answer gave it"
WRONG_MACHINE_CALLS = [
    ({"action": "get"}, "machineId is required for get; it takes: machineId, limit?, offset?"),
    (
        {"action": "list", "canary-9": 1},
        "unknown argument (name not shown) for list; it takes: search?, limit?, offset?",
    ),
    ({"action": "list", "cursor": "canary"}, "unknown argument cursor for list; it takes: search?, limit?, offset?"),
    ({"action": "get", "machineId": "../canary"}, "machineId " + ID_RULE),
    ({"action": "revoke", "machineId": "m", "preview": "canary"}, "preview must be true or false"),
    ({"action": "rename", "machineId": "m", "name": 5}, "name must be a string"),
]


@each_of(("arguments", "rule"), WRONG_MACHINE_CALLS)
def test_a_wrong_argument_is_a_result_that_names_it_and_the_rule(arguments: Any, rule: str) -> None:
    answer = InProcessClient(tools=vault_tools()).send(call("manage_machines", **arguments))
    assert answer == reply({"content": [{"type": "text", "text": rule}], "isError": True})


def test_a_number_out_of_range_is_a_result_that_names_the_range() -> None:
    link = {"projectId": "p", "name": "n", "value": "canary", "expiresInSeconds": 59}
    answer = InProcessClient(tools=vault_tools()).send(call("manage_temporary_secrets", action="create", **link))
    text = "expiresInSeconds must be between 60 and 86,400"
    assert answer == reply({"content": [{"type": "text", "text": text}], "isError": True})


def test_the_argument_that_gemini_adds_is_ignored() -> None:
    answer = InProcessClient(tools=vault_tools()).send(call("whoami", wait_for_previous=True))
    text = "no agent is installed\nhint: install one"  # it came as far as connecting
    assert answer == reply({"content": [{"type": "text", "text": text}], "isError": True})


# resources, prompts and completion

ALL = ("tools", "resources", "prompts", "completions")
OF_LIBRARY = {method: capability for method, (capability, _) in METHODS.items() if capability in ALL[1:]}


def library_client(version: str = "2025-11-25") -> InProcessClient:
    """A session whose registry offers everything."""
    return InProcessClient(version, FixtureTools(ALL))


def ask(method: str, **params: Any) -> Any:
    """The reply to one request; its result is held to the schema."""
    answer = library_client().send(request(method, **params))
    if "result" in answer:
        conforms(answer["result"], RESULTS[method])
    return answer


def completion(**params: Any) -> Any:
    """The reply to a `completion/complete` about a prompt, with other params where they are given."""
    argument = {"name": "what", "value": "be"}
    return ask("completion/complete", **{"ref": {"type": "ref/prompt", "name": "ask"}, "argument": argument, **params})


@each_of("version", VERSIONS)
def test_offers_of_the_registry_are_declared(version: str) -> None:
    declared = InProcessClient("", FixtureTools(ALL)).send(opening(version))["result"]["capabilities"]
    told = ALL[:3] if version == "2024-11-05" else ALL
    assert declared == {"logging": {}, **{name: {} for name in told}}


@each_of("version", VERSIONS)
@each_of("method", OF_LIBRARY)
def test_a_method_without_its_capability_is_not_found(method: str, version: str) -> None:
    offered = [name for name in ALL if name != OF_LIBRARY[method]]
    answer = InProcessClient(version, FixtureTools(offered)).send(request(method))
    assert answer == refusal(-32601, "there is no such method", id=1)


def test_without_tools_there_is_no_method_for_them() -> None:
    answers = [
        InProcessClient(tools=FixtureTools(ALL[1:])).send(request(method)) for method in ("tools/list", "tools/call")
    ]
    assert answers == [refusal(-32601, "there is no such method", id=1)] * 2


def test_completions_are_served_where_they_cannot_be_declared() -> None:
    params = {"ref": {"type": "ref/prompt", "name": "ask"}, "argument": {"name": "what", "value": "x"}}
    assert "result" in library_client("2024-11-05").send(request("completion/complete", **params))


LISTS = {
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}


@pytest.mark.parametrize(("method", "kind"), LISTS.items())
def test_each_list_is_the_librarys_on_one_page(method: str, kind: str) -> None:
    assert ask(method) == reply({kind: FixtureLibrary().listing(kind)})


@each_of("method", LISTS)
@each_of("cursor", ["x", 0, [], False])
def test_each_list_refuses_an_invalid_cursor(method: str, cursor: Any) -> None:
    rule = "the cursor does not come from this server: everything is on one page"
    assert ask(method, cursor=cursor) == refusal(-32602, rule, id=1)


def test_a_resource_is_read() -> None:
    contents = [{"uri": "test://text", "mimeType": "text/plain", "text": "a text"}]
    assert ask("resources/read", uri="test://text") == reply({"contents": contents})


@each_of("uri", [{}, {"uri": None}, {"uri": 1}, {"uri": ["test://text"]}])
def test_a_uri_that_is_no_string_is_refused(uri: dict[str, Any]) -> None:
    assert ask("resources/read", **uri) == refusal(-32602, "uri must be a string", id=1)


def test_an_unknown_resource_is_not_found_and_its_uri_returned() -> None:
    error = {"code": -32002, "message": "there is no such resource", "data": {"uri": "test://none"}}
    assert ask("resources/read", uri="test://none") == {"jsonrpc": "2.0", "id": 1, "error": error}


def test_a_resource_that_fails_is_an_internal_error_in_words() -> None:
    assert ask("resources/read", uri="test://fail") == refusal(-32603, "it failed\nhint: do not read it", id=1)


def test_a_resource_that_breaks_is_an_internal_error_that_repeats_nothing() -> None:
    assert ask("resources/read", uri="test://break") == refusal(-32603, "internal error (LookupError)", id=1)


def test_reading_reports_progress() -> None:
    client = library_client()
    client.send(request("resources/read", uri="test://report", _meta={"progressToken": "t"}))
    assert client.notifications == [
        notification("notifications/progress", progressToken="t", progress=1, message="one")
    ]


@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete"])
def test_requests_that_may_block_can_be_cancelled(method: str) -> None:
    client, argument = library_client(), {"name": "what", "value": ""}
    params = {"uri": "test://text", "name": "greet", "ref": {"type": "ref/prompt"}, "argument": argument}
    started = client.start(request(method, 5, **params))
    client.send(notification("notifications/cancelled", requestId=5))
    assert (started.cancellation.is_set(), started.run()) == (True, None)


def test_a_read_beyond_the_queue_limit_is_an_error() -> None:
    started = library_client().start(request("resources/read", uri="test://text"))
    assert started.refuse("too many") == refusal(-32603, "too many", id=1)
    assert started.run() is None


@pytest.mark.parametrize("arguments", [{"what": "a"}, {"what": "a", "how": "b"}, {"what": ""}])
def test_a_prompt_is_made_from_its_arguments(arguments: dict[str, str]) -> None:
    message = {"role": "user", "content": {"type": "text", "text": f"ask: {sorted(arguments.items())}"}}
    assert ask("prompts/get", name="ask", arguments=arguments) == reply({"messages": [message]})


def test_a_prompt_without_arguments_needs_none() -> None:
    assert ask("prompts/get", name="greet")["result"]["messages"][0]["content"]["text"] == "greet: []"


UNKNOWN_IN_ASK = "an argument is unknown; the prompt takes: what, how"


@each_of(
    ("params", "rule"),
    [
        ({}, "name must be a string"),
        ({"name": 1}, "name must be a string"),
        ({"name": "no_such"}, "there is no prompt of that name"),
        ({"name": "ask", "arguments": None}, "argument what is required; the prompt takes: what, how"),
        ({"name": "ask", "arguments": {"what": None}}, "argument what is required; the prompt takes: what, how"),
        ({"name": "ask", "arguments": ["what"]}, "arguments must be an object of strings"),
        ({"name": "ask", "arguments": {"what": 1}}, "arguments must be an object of strings"),
        ({"name": "ask"}, "argument what is required; the prompt takes: what, how"),
        ({"name": "ask", "arguments": {"how": "x"}}, "argument what is required; the prompt takes: what, how"),
        ({"name": "ask", "arguments": {"what": "", "canary": ""}}, UNKNOWN_IN_ASK),
        ({"name": "greet", "arguments": {"canary": "x"}}, "an argument is unknown; the prompt takes no arguments"),
    ],
)
def test_a_prompt_that_is_wrongly_asked_for_is_refused(params: Any, rule: str) -> None:
    assert ask("prompts/get", **params) == refusal(-32602, rule, id=1)


@pytest.mark.parametrize(
    "reference", [{"type": "ref/prompt", "name": "ask"}, {"type": "ref/resource", "uri": "test://{a}"}]
)
def test_an_argument_is_completed_with_what_is_known_already(reference: dict[str, str]) -> None:
    known = {"arguments": {"a": "1", "b": "2"}}
    completed = {"values": ["what", "be", "a", "b"], "total": 4, "hasMore": False}
    assert completion(ref=reference, context=known) == reply({"completion": completed})


def test_completion_shows_the_first_hundred_and_how_many_there_are() -> None:
    completed = {"values": [str(number) for number in range(100)], "total": 103, "hasMore": True}
    assert completion(argument={"name": "many", "value": ""}) == reply({"completion": completed})


@each_of(
    ("params", "rule"),
    [
        ({"ref": "ask"}, "ref, argument and context must be objects"),
        ({"argument": None}, "ref, argument and context must be objects"),
        ({"context": []}, "ref, argument and context must be objects"),
        ({"argument": {"value": "x"}}, "name must be a string"),
        ({"argument": {"name": "what"}}, "value must be a string"),
        ({"argument": {"name": "what", "value": 1}}, "value must be a string"),
        ({"context": {"arguments": {"a": 1}}}, "arguments must be an object of strings"),
        ({"ref": {"type": "ref/other"}}, "there is nothing to complete"),
    ],
)
def test_a_malformed_completion_is_refused(params: Any, rule: str) -> None:
    assert completion(**params) == refusal(-32602, rule, id=1)
