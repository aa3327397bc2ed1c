"""Checks the messages of a session against the published schema of the protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.support.harness import TIMEOUT_S, Server

LEGACY, MODERN = "2025-11-25", "2026-07-28"
SCHEMAS = {
    revision: json.loads((Path(__file__).parents[1] / "schema" / f"mcp-{revision}.json").read_bytes())
    for revision in (LEGACY, MODERN)
}
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"  # in `params._meta` of a modern request

# The definition of the request and of its result, by method.
SHARED = {
    "tools/list": ("ListToolsRequest", "ListToolsResult"),
    "tools/call": ("CallToolRequest", "CallToolResult"),
    "resources/list": ("ListResourcesRequest", "ListResourcesResult"),
    "resources/templates/list": ("ListResourceTemplatesRequest", "ListResourceTemplatesResult"),
    "resources/read": ("ReadResourceRequest", "ReadResourceResult"),
    "prompts/list": ("ListPromptsRequest", "ListPromptsResult"),
    "prompts/get": ("GetPromptRequest", "GetPromptResult"),
    "completion/complete": ("CompleteRequest", "CompleteResult"),
}
METHODS = {
    LEGACY: {
        "initialize": ("InitializeRequest", "InitializeResult"),
        "ping": ("PingRequest", "EmptyResult"),
        "logging/setLevel": ("SetLevelRequest", "EmptyResult"),
        **SHARED,
    },
    MODERN: {"server/discover": ("DiscoverRequest", "DiscoverResult"), **SHARED},
}
RESULTS = {method: result for method, (_, result) in METHODS[LEGACY].items()}
MAY_NEED_INPUT = ("tools/call", "resources/read", "prompts/get")
# What the server sends by itself: the definition, and the revisions in which it may.
NOTIFICATIONS = {
    "notifications/message": ("LoggingMessageNotification", (LEGACY, MODERN)),
    "notifications/progress": ("ProgressNotification", (LEGACY, MODERN)),
    "notifications/cancelled": ("CancelledNotification", (LEGACY,)),
    "notifications/elicitation/complete": ("ElicitationCompleteNotification", (LEGACY,)),
}
CODES = {
    LEGACY: {-32700, -32600, -32601, -32602, -32603, -32002},
    MODERN: {-32700, -32600, -32601, -32602, -32603, -32022, -32021},
}
DEFINED_ERRORS = {-32022: "UnsupportedProtocolVersionError", -32021: "MissingRequiredClientCapabilityError"}


@cache
def _validator(definition: str, revision: str) -> Draft202012Validator:
    definitions = SCHEMAS[revision]["$defs"]
    return Draft202012Validator({**_without_references(definitions[definition], definitions), "$defs": definitions})


def _without_references(part: Any, definitions: Any, inside: tuple[str, ...] = ()) -> Any:
    """A part of a schema with definitions in place of references, which halves the time of a check.

    References to a definition that is being put in place stay; texts about the schema are left out.
    """
    if isinstance(part, list):
        return [_without_references(item, definitions, inside) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part and (name := part["$ref"].rpartition("/")[2]) not in inside:
        part = {**definitions[name], **{key: value for key, value in part.items() if key != "$ref"}}
        inside = (*inside, name)
    told = {key: value for key, value in part.items() if not (key == "description" and isinstance(value, str))}
    return {key: _without_references(value, definitions, inside) for key, value in told.items()}


def conforms(value: Any, definition: str, revision: str = LEGACY) -> None:
    """Raises ValidationError unless `value` matches a definition of the schema."""
    _validator(definition, revision).validate(value)


def revision_of(request: Any) -> str:
    """The era of a request of the client: its envelope decides."""
    params = request.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return MODERN if isinstance(meta, dict) and VERSION_KEY in meta else LEGACY


def check_message(message: Any, asked: Mapping[Any, str]) -> None:
    """Checks one message of the server; `asked` maps ids of requests to their methods.

    Stricter than the schema: a message is exactly one thing, and this server sends only some of the errors and requests
    that the schema allows.
    """
    if "method" in message and "id" in message:
        assert (set(message), message["method"]) == ({"jsonrpc", "id", "method", "params"}, "elicitation/create")
        conforms(message, "ElicitRequest")
    elif "method" in message:
        assert set(message) == {"jsonrpc", "method", "params"}
        definition, revisions = NOTIFICATIONS[message["method"]]
        for revision in revisions:
            conforms(message, definition, revision)
    elif "error" in message:
        assert set(message) <= {"jsonrpc", "id", "error"}
        conforms(message, DEFINED_ERRORS.get(message["error"]["code"], "JSONRPCErrorResponse"), MODERN)
        assert message["error"]["code"] in CODES[LEGACY] | CODES[MODERN]
    else:
        assert set(message) == {"jsonrpc", "id", "result"}
        revision = MODERN if "resultType" in message["result"] else LEGACY
        conforms(message, "JSONRPCResultResponse", revision)
        if message["id"] in asked:
            conforms(message["result"], METHODS[revision][asked[message["id"]]][1], revision)


def check_line(line: bytes, asked: Mapping[Any, str]) -> None:
    """Checks one line of output: a message, or the answer to a batch."""
    assert line.endswith(b"\n")
    assert b"\r" not in line
    decoded = json.loads(line)
    assert decoded != []
    for message in decoded if isinstance(decoded, list) else [decoded]:
        check_message(message, asked)


def check_session(sent: bytes, lines: Iterable[bytes]) -> None:
    """Checks both directions of a whole session.

    Each message of the server must be valid and answer a request, no request may be answered twice, and only a valid
    request may get a result. The client may send anything else: tests do.
    """
    open_requests = requests_in(sent)
    for line in lines:
        check_line(line, {})
        decoded = json.loads(line)
        for message in decoded if isinstance(decoded, list) else [decoded]:
            if "id" in message and "method" not in message:
                check_answer(message, open_requests.get(message["id"], []))


def requests_in(sent: bytes) -> dict[Any, list[Any]]:
    """The requests with a valid id, by that id; unreadable lines are skipped."""
    found: dict[Any, list[Any]] = {}
    for line in sent.split(b"\n"):
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            continue
        for message in decoded if isinstance(decoded, list) else [decoded]:
            if isinstance(message, dict) and type(message.get("id")) in (str, int):
                found.setdefault(message["id"], []).append(message)
    return found


def check_answer(answer: Any, requests: list[Any]) -> None:
    """Checks one answer against the unanswered requests with its id, and removes the request that it answers."""
    assert requests, f"no open request has the id {answer['id']!r}"
    if "error" in answer:
        code = answer["error"]["code"]
        assert any(code in CODES[revision_of(request)] for request in requests), f"an error of the other era: {code}"
        requests.pop(0)
        return
    fits = [request for request in requests if valid_exchange(request, answer["result"])]
    assert fits, f"a result for {requests!r} that the schema does not allow: {answer['result']!r}"
    requests.remove(fits[0])


def valid_exchange(request: Any, result: Any) -> bool:
    """Whether the schema of the request's era allows both."""
    revision, method = revision_of(request), request.get("method")
    if method not in METHODS[revision]:
        return False
    asked, answered = METHODS[revision][method]
    if revision == MODERN:
        if not result.get("_meta", {}).get("io.modelcontextprotocol/serverInfo"):
            return False
        if result.get("resultType") == "input_required":
            answered = "InputRequiredResult" if method in MAY_NEED_INPUT else ""
            if not answered or not {"inputRequests", "requestState"} & set(result):
                return False
        elif result.get("resultType") != "complete":
            return False
    elif "resultType" in result:
        return False
    return _validator(asked, revision).is_valid(request) and _validator(answered, revision).is_valid(result)


class CheckedServer(Server):
    """A server with more methods for tests."""

    def __enter__(self) -> CheckedServer:
        return self

    def start_call(self, tool: str, **arguments: Any) -> int:
        """Writes a `tools/call`; its id."""
        return self.start("tools/call", name=tool, arguments=arguments)

    def cancel(self, request_id: Any) -> None:
        """Writes the notification that cancels a request. The id may be invalid."""
        params = {"requestId": request_id, "reason": "a test"}
        self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    def ended(self, within_s: float = TIMEOUT_S) -> tuple[int, bytes]:
        """Waits for the process; returns its exit status and stderr."""
        status = self.process.wait(within_s)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return status, self.stderr

    def answered(self) -> list[Any]:
        """The ids of all answers so far, in order."""
        messages = [json.loads(line) for line in self.lines]
        return [message.get("id") for message in messages if "method" not in message]


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for something in another thread or process; fails after TIMEOUT_S."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not become true"
        time.sleep(0.002)
