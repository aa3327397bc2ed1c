"""Sessions on stdin that are almost valid, cut anywhere.

Messages of both eras are mixed. No exception may escape. Every line of output must be a valid message. Each request is
answered exactly once, by its id and in its era, and nothing else is answered. Only valid `tools/call` requests are
carried out, and a final ping is answered. A question counts as accepted only if an acceptance was sent for it, once.
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

import sikkerkey_core
import sikkerkey_mcp
from tests.fuzz.mutation import as_line, mutated, odd, pieces
from tests.support.sample_tools import FixtureTools
from tests.support.schema_check import CODES, LEGACY, MODERN, check_line, revision_of

TOOLS = ("echo", "fail", "break", "report", "confirm")  # those that neither wait nor print
ASKING: dict[str, Any] = {"elicitation": {"form": {}}}
ACCEPTED = {"action": "accept", "content": {"confirm": True}}
LEGACY_METHODS = ("initialize", "ping", "logging/setLevel")
SENTINEL = "the ping at the end"
BOM = b"\xef\xbb\xbf"


class _NoThreads(sikkerkey_mcp.WorkerPool):
    """A pool without threads: a call runs as soon as it is submitted."""

    def submit(self, job: sikkerkey_mcp.Job) -> None:
        """Runs a job."""
        job.deliver(job.call.run())


class _Lines(sikkerkey_mcp.Output):
    """Output into a list. `answer` takes each request that the server sends."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[bytes] = []
        self.answer: Callable[[Any], None] = lambda _request: None

    def send(self, message: Any) -> None:
        """Keeps the line."""
        self.lines.append(sikkerkey_mcp.to_json(message).encode("utf-8") + b"\n")
        if "method" in message and "id" in message:
            self.answer(message)


def _request(rng: Random) -> dict[str, Any]:
    method = rng.choice(
        ("tools/call",) * 5
        + (*sikkerkey_mcp.METHODS, *LEGACY_METHODS, "server/discover", "x", "notifications/initialized")
    )
    params: dict[str, Any] = {}
    if method == "initialize":
        params = {
            "protocolVersion": rng.choice((*sikkerkey_mcp.SUPPORTED_VERSIONS, "1999-01-01")),
            "capabilities": rng.choice(({}, ASKING)),
            "clientInfo": {},
        }
    elif method == "tools/call":
        params = {"name": rng.choice(TOOLS), "arguments": odd(rng, {"text": "a", "n": [1, {}]})}
        if rng.random() < 0.3:
            params["_meta"] = {"progressToken": rng.choice(("t", 7, True, None, 1.5))}
        if rng.random() < 0.2:
            params["inputResponses"] = odd(rng, {"question": ACCEPTED})
            params["requestState"] = odd(rng, "eyJ2IjoxfQ==.AAAA")
    elif method == "logging/setLevel":
        params = {"level": rng.choice((*sikkerkey_mcp.LOG_LEVELS, "loud"))}
    if rng.random() < 0.4:
        params["_meta"] = {**params.get("_meta", {}), **_envelope(rng)}
    request_id = rng.choice((rng.randrange(10**6), f"r{rng.randrange(10**6)}"))
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def _envelope(rng: Random) -> dict[str, Any]:
    members: dict[str, Any] = {
        "protocolVersion": rng.choice(("2026-07-28",) * 8 + ("2025-11-25", "2099-01-01")),
        "clientCapabilities": rng.choice(({}, ASKING)),
    }
    if rng.random() < 0.2:
        members["logLevel"] = rng.choice((*sikkerkey_mcp.LOG_LEVELS, "loud"))
    return {sikkerkey_mcp.META_PREFIX + name: value for name, value in members.items()}


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
        "params": {
            "protocolVersion": rng.choice(sikkerkey_mcp.SUPPORTED_VERSIONS),
            "capabilities": rng.choice(({}, ASKING)),
        },
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
    if len(text) > sikkerkey_core.INTEGER_MAX_DIGITS:
        raise ValueError("too many digits, by the program's own rule")
    return int(text)


def _ids(messages: list[Any]) -> Counter[Any]:
    found = (message["id"] for message in messages if isinstance(message, dict) and "id" in message)
    return Counter((type(each), each) for each in found if type(each) in (str, int))


def _flat(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _is_request(message: Any) -> bool:
    return isinstance(message, dict) and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)


class _Client:
    """Sends a stream, answers questions of both eras at random, and counts the acceptances that it sends."""

    def __init__(self, rng: Random, parts: list[bytes]) -> None:
        self._rng, self._parts = rng, parts
        self.sent = bytearray()
        self.acceptances = 0
        self.registry, self.output = FixtureTools(), _Lines()
        self._pieces = self._all_pieces()
        self._server = sikkerkey_mcp.StdioServer(self.registry, lambda: next(self._pieces, b""), self.output)
        self.output.answer = self._answer

    def run(self) -> None:
        """Runs the session."""
        self._server.run()

    def _all_pieces(self) -> Iterator[bytes]:
        for piece in [*self._parts, b"\n"]:
            self.sent += piece
            yield piece
        for piece in self._retries():
            self.sent += piece
            yield piece

    def _answer(self, question: Any) -> None:
        """Answers a request of the server, which waits for it."""
        answer = self._rng.choice((ACCEPTED, {"action": "decline"}, {"action": "accept", "content": {}}, 1))
        self.acceptances += answer is ACCEPTED
        self._server._session.handle({"jsonrpc": "2.0", "id": question["id"], "result": answer})

    def _retries(self) -> Iterator[bytes]:
        """Sends each call that asked again, twice or with other arguments: only one retry can be accepted."""
        asked = {}
        for line in bytes(self.sent).split(b"\n"):
            for message in _flat([_decoded(line.removeprefix(BOM))]):
                if _is_request(message) and type(message.get("id")) in (str, int):
                    asked[message["id"]] = message
        for number, line in enumerate(self.output.lines):
            reply = json.loads(line)
            if isinstance(reply, dict) and reply.get("result", {}).get("resultType") == "input_required":
                params = {**asked[reply["id"]]["params"], "requestState": reply["result"]["requestState"]}
                params["inputResponses"] = {"question": ACCEPTED}
                self.acceptances += 1
                for attempt in range(2):
                    message = {"jsonrpc": "2.0", "id": f"retry {number}.{attempt}", "method": "tools/call"}
                    yield json.dumps({**message, "params": params}).encode() + b"\n"


def run(parts: list[bytes], rng: Random) -> None:
    """Runs one session and checks its output."""
    client = _Client(rng, parts)
    client.run()
    registry, output = client.registry, client.output
    lines = bytes(client.sent).split(b"\n")
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
    accepted = [content for action, content in registry.decisions if action == "accept"]
    assert len(accepted) <= client.acceptances, "something was accepted that was not, or twice"
    check_eras(allowed, replies)
    assert {"jsonrpc": "2.0", "id": SENTINEL, "result": {}} in replies


def check_eras(asked: list[Any], replies: list[Any]) -> None:
    """Results and errors look as in the era of a request with their id."""
    eras: dict[Any, set[str]] = {}
    for message in asked:
        if isinstance(message, dict) and type(message.get("id")) in (str, int):
            eras.setdefault((type(message["id"]), message["id"]), set()).add(revision_of(message))
    for reply in replies:
        allowed = eras.get((type(reply.get("id")), reply.get("id")), {LEGACY, MODERN})
        if "result" in reply:
            assert (MODERN if "resultType" in reply["result"] else LEGACY) in allowed, reply
        else:
            assert any(reply["error"]["code"] in CODES[era] for era in allowed), reply


def _is_call(message: Any) -> bool:
    if not _is_request(message) or message["method"] != "tools/call" or type(message.get("id")) not in (str, int):
        return False
    return isinstance(message.get("params"), dict) and message["params"].get("name") in TOOLS


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Runs sessions in this process, without threads."""

    def case(rng: Random) -> None:
        data = stream(rng)
        run(pieces(rng, data), rng)

    with mock.patch.object(sikkerkey_mcp, "WorkerPool", _NoThreads):
        yield case
