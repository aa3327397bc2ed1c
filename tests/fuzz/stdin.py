"""Sessions on stdin that are almost valid, cut anywhere.

No exception may escape. Every line of output must be a valid message. Each request is answered exactly once, by its
id, and nothing else is answered. Only valid `tools/call` requests are carried out, and a final ping is answered.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any
from unittest import mock

import sikkerkey_mcp
from tests.fuzz.mutation import as_line, mutated, odd, pieces
from tests.support.sample_tools import FixtureTools
from tests.support.schema_check import check_line

TOOLS = ("echo", "fail", "break", "report")  # those that neither block nor print
SENTINEL = "the ping at the end"
BOM = b"\xef\xbb\xbf"


class _NoThreads(sikkerkey_mcp.WorkerPool):
    """A pool without threads: a call runs as soon as it is submitted."""

    def submit(self, job: sikkerkey_mcp.Job) -> None:
        """Runs a job."""
        job.deliver(job.call.run())


class _Lines(sikkerkey_mcp.Output):
    """Output into a list."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[bytes] = []

    def send(self, message: Any) -> None:
        """Keeps the line."""
        self.lines.append(sikkerkey_mcp.to_json(message).encode("utf-8") + b"\n")


def _request(rng: Random) -> dict[str, Any]:
    method = rng.choice(
        ("tools/call",) * 5 + (*sikkerkey_mcp.METHODS, "server/discover", "x", "notifications/initialized")
    )
    params: dict[str, Any] = {}
    if method == "initialize":
        params = {
            "protocolVersion": rng.choice((*sikkerkey_mcp.SUPPORTED_VERSIONS, "1999-01-01")),
            "capabilities": {},
            "clientInfo": {},
        }
    elif method == "tools/call":
        params = {"name": rng.choice(TOOLS), "arguments": odd(rng, {"text": "a", "n": [1, {}]})}
        if rng.random() < 0.3:
            params["_meta"] = {"progressToken": rng.choice(("t", 7, True, None, 1.5))}
    elif method == "logging/setLevel":
        params = {"level": rng.choice((*sikkerkey_mcp.LOG_LEVELS, "loud"))}
    request_id = rng.choice((rng.randrange(10**6), f"r{rng.randrange(10**6)}"))
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def _message(rng: Random) -> Any:
    kind = rng.random()
    if kind < 0.6:
        return _request(rng)
    if kind < 0.75:
        return odd(rng, _request(rng))
    if kind < 0.85:
        method = rng.choice(("notifications/cancelled", "tools/call"))
        return {"jsonrpc": "2.0", "method": method, "params": {"requestId": 1, "name": "echo"}}
    if kind < 0.95:
        return [odd(rng, _request(rng)) for _ in range(rng.randrange(4))]
    return {"jsonrpc": "2.0", "id": 1, "result": {}}


def stream(rng: Random) -> bytes:
    """A session: most begin with `initialize`, all end with a ping."""
    opening = {
        **_request(rng),
        "method": "initialize",
        "params": {"protocolVersion": rng.choice(sikkerkey_mcp.SUPPORTED_VERSIONS)},
    }
    messages = [opening] * (rng.random() < 0.8) + [_message(rng) for _ in range(rng.randrange(12))]
    last = as_line(rng, {"jsonrpc": "2.0", "id": SENTINEL, "method": "ping"})
    return mutated(rng, b"".join(as_line(rng, message) for message in messages)) + b"\n" + last


def _decoded(line: bytes) -> Any:
    """The line as another JSON reader decodes it, or None."""
    if not re.search(rb"\S", line):
        return None
    try:
        return json.loads(line.decode("utf-8"), parse_int=_integer)
    except (ValueError, RecursionError):
        return None


def _integer(text: str) -> int:
    if len(text) > sikkerkey_mcp.INTEGER_MAX_DIGITS:
        raise ValueError("too many digits, by the program's own rule")
    return int(text)


def _ids(messages: list[Any]) -> Counter[Any]:
    found = (message["id"] for message in messages if isinstance(message, dict) and "id" in message)
    return Counter((type(each), each) for each in found if type(each) in (str, int))


def _flat(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _is_request(message: Any) -> bool:
    return isinstance(message, dict) and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)


def run(data: bytes, parts: list[bytes]) -> None:
    """Runs one session and checks its output."""
    registry, output, rest = FixtureTools(), _Lines(), iter([*parts, b""])
    sikkerkey_mcp.StdioServer(registry, lambda: next(rest), output).run()
    lines = data.split(b"\n")
    asked = [_decoded(line) for line in lines]
    allowed = _flat(
        [_decoded(line.removeprefix(BOM)) for line in lines]
    )  # a byte order mark is ignored until `initialize`
    for line in output.lines:
        check_line(line, {})
    replies = [reply for reply in _flat([json.loads(line) for line in output.lines]) if "method" not in reply]
    answered, given = _ids(replies), _ids(allowed)
    assert not answered - given, "an unknown id was answered, or an id twice"
    requests = _ids([message for message in asked if _is_request(message)])
    assert not requests - answered, "a request was not answered"
    calls = [message["params"]["name"] for message in allowed if _is_call(message)]
    assert not Counter(name for name, _ in registry.calls) - Counter(calls), "something else was carried out"
    assert {"jsonrpc": "2.0", "id": SENTINEL, "result": {}} in replies


def _is_call(message: Any) -> bool:
    if not _is_request(message) or message["method"] != "tools/call" or type(message.get("id")) not in (str, int):
        return False
    return isinstance(message.get("params"), dict) and message["params"].get("name") in TOOLS


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Runs sessions in this process, without threads."""

    def case(rng: Random) -> None:
        data = stream(rng)
        run(data, pieces(rng, data))

    with mock.patch.object(sikkerkey_mcp, "WorkerPool", _NoThreads):
        yield case
