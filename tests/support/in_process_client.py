"""A client that sends messages to a Session in this process, and the messages that tests send and expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sikkerkey_mcp import VERSION, Call, Session, ToolProvider
from tests.support.sample_tools import FixtureTools
from tests.support.schema_check import check_message, check_session

VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
CLIENT = {"name": "tests", "version": "1"}


def request(method: str, request_id: Any = 1, **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, **params: Any) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def call(tool: str, request_id: Any = 1, **arguments: Any) -> dict[str, Any]:
    """A `tools/call`."""
    return request("tools/call", request_id, name=tool, arguments=arguments)


def opening(version: Any = "2025-11-25", request_id: Any = 0, capabilities: Any = None) -> dict[str, Any]:
    """An `initialize`."""
    declared = {} if capabilities is None else capabilities
    return request("initialize", request_id, protocolVersion=version, capabilities=declared, clientInfo=CLIENT)


def envelope(capabilities: Any = None, **more: Any) -> dict[str, Any]:
    """The `_meta` of a modern request; `more` are other members of it, such as logLevel."""
    prefix = "io.modelcontextprotocol/"
    declared = {} if capabilities is None else capabilities
    members = {"protocolVersion": "2026-07-28", "clientInfo": CLIENT, "clientCapabilities": declared}
    prefixed = {prefix + name: value for name, value in {**members, **more}.items() if name != "progressToken"}
    return {**prefixed, **({"progressToken": more["progressToken"]} if "progressToken" in more else {})}


def modern(method: str, request_id: Any = 1, meta: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """A modern request."""
    return request(method, request_id, **params, _meta=envelope() if meta is None else meta)


SERVER_INFO = {"io.modelcontextprotocol/serverInfo": {"name": "sikkerkey-mcp", "version": VERSION}}


def modern_reply(result: Any, request_id: Any = 1, ttl_ms: int | None = None) -> dict[str, Any]:
    """The reply to a modern request; with `ttl_ms`, one that may be cached."""
    cached = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "private"}
    return reply({"resultType": "complete", **result, **cached, "_meta": SERVER_INFO}, request_id)


def reply(result: Any, request_id: Any = 1) -> dict[str, Any]:
    """The reply to a request."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def refusal(code: int, message: str, **with_id: Any) -> dict[str, Any]:
    """The error reply to a request; without `id=`, to a message without a readable id."""
    return {"jsonrpc": "2.0", **with_id, "error": {"code": code, "message": message}}


class InProcessClient:
    """A client of a Session in this process. Calls run immediately, and every message is checked against the schema.

    With `lenient`, invalid requests may get a result. `notifications` holds what the session has sent by itself. When
    that is a request, `respond` makes what the client sends next, if anything.
    """

    def __init__(
        self,
        version: str = "2025-11-25",
        tools: ToolProvider | None = None,
        *,
        capabilities: Any = None,
        lenient: bool = False,
    ) -> None:
        self.lenient = lenient
        self.respond: Callable[[dict[str, Any]], Any] = lambda _request: None
        self.tools = FixtureTools()
        self.notifications: list[dict[str, Any]] = []
        self.session = Session(tools or self.tools, self._notify)
        if version:
            self.send(opening(version, capabilities=capabilities))
            assert self.send(notification("notifications/initialized")) is None

    def _notify(self, message: dict[str, Any]) -> None:
        check_message(message, {})
        self.notifications.append(message)
        if "id" in message:
            following = self.respond(message)
            assert following is None or self.send(following) is None

    def send_bytes(self, line: bytes, *, run: bool = True) -> Any:
        """The reply to a line: a list for a batch, None if there is none, a Call without `run`."""
        received = self.session.receive(line)
        replies = [part.run() if isinstance(part, Call) and run else part for part in received.parts]
        said = [part for part in replies if part is not None]
        answers = [message for message in said if not isinstance(message, Call)]
        for message in answers:
            check_message(message, {})
        if not self.lenient:
            check_session(line, [json.dumps(message).encode() + b"\n" for message in answers])
        return (said or None) if received.is_batch else (said[0] if said else None)

    def send(self, message: Any) -> Any:
        """The reply to a message."""
        return self.send_bytes(json.dumps(message).encode())

    def start(self, message: Any) -> Call:
        """The call that a request starts, before it runs."""
        started = self.send_bytes(json.dumps(message).encode(), run=False)
        assert isinstance(started, Call)
        return started
