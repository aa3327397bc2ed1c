"""Holds what a session wrote against the protocol's public schema, message by message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonschema import Draft202012Validator

from tests.harness import PATIENCE_S, Server

SCHEMA = json.loads((Path(__file__).parent / "schema" / "mcp-2025-11-25.json").read_bytes())

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
NOTIFICATIONS = {
    "notifications/message": "LoggingMessageNotification",
    "notifications/progress": "ProgressNotification",
}


@cache
def _validator(definition: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]})


def conforms(value: Any, definition: str) -> None:
    """Raises ValidationError unless `value` is what the schema's `definition` says."""
    _validator(definition).validate(value)


def check_message(message: Any, asked: Mapping[Any, str]) -> None:
    """Checks one message of the server's; `asked` tells which method a request id belongs to.

    Tighter than the schema: a message is exactly one thing, and this server sends no requests.
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


class CheckedServer(Server):
    """A server whose whole output is held against the schema when it is left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.asked: dict[Any, str] = {}
        super().__init__(*args, **kwargs)

    def send(self, message: Any) -> None:
        """Writes one message, and remembers what it asks."""
        for request in message if isinstance(message, list) else [message]:
            if isinstance(request, dict) and isinstance(request.get("id"), (str, int)):
                self.asked[request["id"]] = request.get("method", "")
        super().send(message)

    def __enter__(self) -> CheckedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None:
            for line in self.lines:
                check_line(line, self.asked)

    def start_call(self, tool: str, **arguments: Any) -> int:
        """Writes a `tools/call`; its id."""
        return self.start("tools/call", name=tool, arguments=arguments)

    def cancel(self, request_id: Any) -> None:
        """Writes the notification that cancels a request."""
        self.notify("notifications/cancelled", requestId=request_id, reason="a test")

    def ended(self, within_s: float = PATIENCE_S) -> tuple[int, bytes]:
        """Exit status and stderr, once the process has ended and all its output has been read."""
        status = self.process.wait(within_s)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return status, self.stderr

    def answered(self) -> list[Any]:
        """The ids of all answers read so far, in order."""
        messages = [json.loads(line) for line in self.lines]
        return [message.get("id") for message in messages if "method" not in message]


def eventually(condition: Callable[[], object]) -> None:
    """Returns once `condition` holds; fails if it does not within PATIENCE_S."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.002)
