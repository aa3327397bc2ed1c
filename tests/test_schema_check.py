"""The schema check that every session of the tests must pass: it finds invalid sessions."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from jsonschema import ValidationError

from tests.support.harness import Server
from tests.support.rows import each_of
from tests.support.schema_check import check_session

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
CALL = {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": "t", "arguments": {}}}
DONE = {"jsonrpc": "2.0", "id": "c", "result": {"content": [{"type": "text", "text": "done"}]}}
PONG = {"jsonrpc": "2.0", "id": 1, "result": {}}
LOG = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "text"}}


def refusal(**with_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **with_id, "error": {"code": -32600, "message": "invalid"}}


def check(sent: list[Any], answered: list[Any]) -> None:
    check_session(b"".join(map(line, sent)), map(line, answered))


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


@each_of(
    ("sent", "answered"),
    [
        ([PING, CALL], [LOG, DONE, PONG]),
        ([[PING, CALL]], [[PONG, DONE]]),
        ([PING, PING], [refusal(id=1), PONG]),  # the second while the first one runs
        ([{**CALL, "params": {}}], [refusal(id="c")]),
        (["no object", {"jsonrpc": "2.0", "id": None, "method": "ping"}], [refusal(), refusal()]),
        ([PING], []),  # cancelled, or the session ended
    ],
)
def test_valid_session_passes(sent: list[Any], answered: list[Any]) -> None:
    check(sent, answered)


@each_of(
    ("sent", "answered"),
    [
        ([], [PONG]),
        ([PING], [{**PONG, "id": "1"}]),
        ([PING], [PONG, PONG]),
        ([PING], [{**PONG, "result": {"content": 1}}, PONG]),
        ([{**CALL, "params": {"arguments": {}}}], [DONE]),
        ([{**PING, "params": []}], [PONG]),
        ([CALL], [{**DONE, "result": {"content": [{"type": "text"}]}}]),
        ([CALL], [{**DONE, "result": {"structuredContent": {}}}]),
        ([{**PING, "method": "tools/frobnicate"}], [PONG]),
        ([{"jsonrpc": "2.0", "method": "ping"}], [PONG]),
        ([PING], [refusal(id=2)]),
        ([PING], [[]]),
    ],
)
def test_invalid_session_is_found(sent: list[Any], answered: list[Any]) -> None:
    with pytest.raises(AssertionError):
        check(sent, answered)


@each_of(
    "message",
    [
        {**LOG, "params": {"level": "loud", "data": "text"}},
        {**LOG, "params": {"level": "info"}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}},
        {**refusal(), "id": None},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": "-32600", "message": "invalid"}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600}},
        {**PONG, "jsonrpc": "1.0"},
    ],
)
def test_invalid_message_is_found(message: Any) -> None:
    with pytest.raises(ValidationError):
        check([PING], [message])


def test_every_server_of_the_tests_is_checked_when_it_exits() -> None:
    script = f"import sys\nsys.stdin.readline()\nprint({json.dumps({**PONG, 'id': 7})!r}, flush=True)"
    server = Server([sys.executable, "-c", script])
    with pytest.raises(ValidationError):
        server.notify("notifications/cancelled", requestId=1.5)
    server.send(PING)
    assert server.read()["id"] == 7
    with pytest.raises(AssertionError, match="no open request has the id 7"):
        server.__exit__(None, None, None)
