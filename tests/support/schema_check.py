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

SCHEMA = json.loads((Path(__file__).parents[1] / "schema" / "mcp-2025-11-25.json").read_bytes())

RESULTS = {
    "initialize": "InitializeResult",
    "ping": "EmptyResult",
    "logging/setLevel": "EmptyResult",
    "tools/list": "ListToolsResult",
    "tools/call": "CallToolResult",
    "resources/list": "ListResourcesResult",
    "resources/templates/list": "ListResourceTemplatesResult",
    "resources/read": "ReadResourceResult",
    "prompts/list": "ListPromptsResult",
    "prompts/get": "GetPromptResult",
    "completion/complete": "CompleteResult",
}
REQUESTS = {
    "initialize": "InitializeRequest",
    "ping": "PingRequest",
    "logging/setLevel": "SetLevelRequest",
    "tools/list": "ListToolsRequest",
    "tools/call": "CallToolRequest",
    "resources/list": "ListResourcesRequest",
    "resources/templates/list": "ListResourceTemplatesRequest",
    "resources/read": "ReadResourceRequest",
    "prompts/list": "ListPromptsRequest",
    "prompts/get": "GetPromptRequest",
    "completion/complete": "CompleteRequest",
}
NOTIFICATIONS = {
    "notifications/message": "LoggingMessageNotification",
    "notifications/progress": "ProgressNotification",
}


@cache
def _validator(definition: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]})


def conforms(value: Any, definition: str) -> None:
    """Raises ValidationError unless `value` matches a definition of the schema."""
    _validator(definition).validate(value)


def check_message(message: Any, asked: Mapping[Any, str]) -> None:
    """Checks one message of the server; `asked` maps request ids to methods.

    Stricter than the schema: a message is exactly one thing, and this server sends no requests.
    """
    if "method" in message:
        assert set(message) == {"jsonrpc", "method", "params"}
        conforms(message, NOTIFICATIONS[message["method"]])
    elif "error" in message:
        assert set(message) <= {"jsonrpc", "id", "error"}
        conforms(message, "JSONRPCErrorResponse")
    else:
        assert set(message) == {"jsonrpc", "id", "result"}
        conforms(message, "JSONRPCResultResponse")
        if message["id"] in asked:
            conforms(message["result"], RESULTS[asked[message["id"]]])


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
            if "id" in message:
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
        requests.pop(0)
        return
    fits = [request for request in requests if valid_exchange(request, answer["result"])]
    assert fits, f"a result for {requests!r} that the schema does not allow: {answer['result']!r}"
    requests.remove(fits[0])


def valid_exchange(request: Any, result: Any) -> bool:
    """Whether the schema allows both."""
    method = request.get("method")
    return (
        method in REQUESTS
        and _validator(REQUESTS[method]).is_valid(request)
        and _validator(RESULTS[method]).is_valid(result)
    )


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
