"""The canary hunt: marked values go in everywhere, and are looked for everywhere that others can see."""

from __future__ import annotations

import base64
import html
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp as mcp
from tests.harness import ARCHIVE_COMMAND, Recorder, Seen, Server, Told, make_slot

MARK = 'mark <7f3a> "søg" \\ 9c'  # with what JSON, URLs and HTML write otherwise
SPELLINGS = (
    MARK.encode(),
    json.dumps(MARK)[1:-1].encode(),
    json.dumps(MARK, ensure_ascii=False)[1:-1].encode(),
    json.dumps(json.dumps(MARK, ensure_ascii=False)[1:-1])[1:-1].encode(),
    json.dumps(MARK)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").encode(),
    html.escape(MARK).encode(),
    base64.b64encode(MARK.encode()).rstrip(b"="),
    urllib.parse.quote(MARK).encode(),
    b"7f3a",
)

PROJECT, SECRET = {"projectId": "proj_1"}, {"secretId": "sk_1"}
STRUCTURED = {"value": json.dumps({"user": "u", "key": MARK}), "fieldNames": ["user", "key"]}
STATIC = {"intervalSeconds": 300, "staticFields": {"pin": MARK, "deep": {"list": [MARK]}}}
LINK = {"value": MARK, "expiresInSeconds": 60}
WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("manage_secrets", {"action": "create", **PROJECT, "name": "n", "value": MARK}),
    "create structured": ("manage_secrets", {"action": "create", **PROJECT, "name": "n", **STRUCTURED}),
    "update_value": ("manage_secrets", {"action": "update_value", **PROJECT, **SECRET, "value": MARK}),
    "dynamic_create": ("manage_secrets", {"action": "dynamic_create", **PROJECT, "name": "n", **STATIC}),
    "one-time link": ("manage_temporary_secrets", {"action": "create", **PROJECT, "name": "n", **LINK}),
}


def echoes(seen: Seen) -> Iterator[Told]:
    """Every way in which a vault might repeat what it was sent."""
    body = seen.json()
    text = seen.body.decode()
    spelled = [form.decode() for form in SPELLINGS[:-1]]
    for status in (200, 201, 400, 401, 403, 404, 409, 413, 418, 422, 423, 429, 451, 500, 502, 503, 504, 507):
        yield Told(status, json.dumps({"error": f"bad input {text}", "id": "sk_1", "echo": body}).encode())
        members = {"error": f"value {MARK} is weak", MARK: [MARK, {"x": MARK}]}
        yield Told(status, json.dumps(members, ensure_ascii=False).encode())
        yield Told(status, json.dumps({"error": " ".join(spelled), "requiredScopes": [MARK], "all": spelled}).encode())
        yield Told(status, seen.body)
    yield Told(200, f"not JSON: {text}".encode(), {"Content-Type": "text/plain"})
    yield Told(500, f"<pre>{text}</pre>".encode(), {"Content-Type": "text/html"})
    yield Told(302, b"{}", {"Location": "/x?" + urllib.parse.quote(MARK)})
    yield Told(401, b"{}", {"Date": urllib.parse.quote(MARK), "Retry-After": urllib.parse.quote(MARK)})


def seen_by_others(server: Server, home: Path) -> bytes:
    """All that a model, a terminal, a log or another process can see."""
    files = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "private.pem")
    return b"".join(server.lines) + server.stderr + files


def assert_unmarked(data: bytes) -> None:
    """None of the spellings stands in `data`."""
    for spelling in SPELLINGS:
        at = data.find(spelling)
        assert at < 0, f"{spelling!r} in {data[max(0, at - 200) : at + 200]!r}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their pauses."""
    monkeypatch.setattr(mcp, "BACKOFF_S", 0.0)


def api_answering(told: Told) -> mcp.Api:
    """An Api whose vault always answers the same."""

    class Fixed(mcp.Api):
        def send(self, request: mcp.Request, *, safe: bool, context: mcp.Context) -> mcp.Reply:
            import email.message

            headers: Any = email.message.Message()
            for name, value in told.headers.items():
                headers[name] = value
            return mcp.Reply(told.status, headers, told.body)

    return Fixed("http://127.0.0.1:1", lambda _request: {})


@pytest.mark.parametrize("write", WRITES)
def test_echoed_value_is_cut_out_of_every_answer(write: str) -> None:
    tool, arguments = WRITES[write]
    action = mcp.find_action(next(t for t in mcp.TOOLS if t.name == tool), arguments)
    request = mcp.build_request(action, {name: value for name, value in arguments.items() if name != "action"})
    assert request.body is not None
    for told in echoes(Seen(request.method, request.path, {}, request.body)):
        api = api_answering(told)
        result = mcp.VaultTools(lambda api=api: api).call(tool, arguments, mcp.Context())  # type: ignore[misc]
        assert_unmarked(mcp.to_json(result).encode())
        assert mcp.to_json(result)


def test_no_trace_of_a_value_outside_the_request(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    answers: dict[str, Callable[[Seen], Told]] = {
        "ok": lambda seen: Told(201, b'{"id": "sk_1", "echo": ' + seen.body + b"}"),
        "refused": lambda seen: Told(409, json.dumps({"error": seen.body.decode()}).encode()),
    }
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        server.request("logging/setLevel", level="debug")
        for answer in answers.values():
            recorder.answer = answer
            for tool, arguments in WRITES.values():
                server.request("tools/call", name=tool, arguments=arguments, _meta={"progressToken": 1})
        assert len(recorder.seen) == len(answers) * len(WRITES)
        assert all(b"7f3a" in seen.body for seen in recorder.seen)
        if os.path.isdir("/proc"):
            process = Path("/proc", str(server.process.pid))
            assert_unmarked((process / "cmdline").read_bytes() + (process / "environ").read_bytes())
        server.close()
    assert any(b"notifications/message" in line for line in server.lines)
    assert_unmarked(seen_by_others(server, home))


def wrong_arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    """For every argument of every row: the mark where it cannot stand, and under a name that does not exist."""
    for tool in mcp.TOOLS:
        for action in tool.actions:
            start = {"action": action.name} if mcp.takes_action(tool) else {}
            yield tool.name, {**start, MARK: MARK}
            yield tool.name, {**start, "unknown": MARK}
            for arg in action.args:
                for wrong in (MARK, [MARK], {MARK: MARK}, [[MARK]], MARK + "\ud800", [MARK, 1]):
                    yield tool.name, {**start, arg.name: wrong}
        yield tool.name, {"action": MARK}


def test_refused_arguments_are_never_repeated(server: Server, recorder: Recorder) -> None:
    refused = list(wrong_arguments())
    for tool, arguments in refused:
        result = server.call(tool, **arguments)
        if not result.get("isError"):  # free text may hold anything, so it may be sent
            assert b"7f3a" in recorder.seen[-1].body
    server.close()
    assert len(refused) > 1_500
    assert_unmarked(b"".join(server.lines) + server.stderr)


def test_protocol_errors_never_repeat_what_was_sent(server: Server) -> None:
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": MARK},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": MARK}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "whoami", "arguments": MARK}},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": MARK},
        {"jsonrpc": "2.0", "id": 5, "method": "logging/setLevel", "params": {"level": MARK}},
        {"jsonrpc": "2.0", "id": 6, "method": "tools/list", "params": {"cursor": MARK}},
        {"jsonrpc": "2.0", "id": {MARK: MARK}, "method": "ping"},
        {"jsonrpc": MARK, "id": 7, "method": "ping"},
        [MARK],
        MARK,
    ):
        server.send(message)
    server.send_bytes(b'{"jsonrpc": "2.0", "id": 8, "params": {"value": "' + MARK.encode() + b"\n")
    server.request("ping")
    server.close()
    assert_unmarked(b"".join(server.lines) + server.stderr)


def test_private_key_never_leaves_its_file(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    key_file = next(home.rglob("private.pem"))
    inner = key_file.read_text().splitlines()[1]
    for damage in ("", "garbage"):
        key_file.write_text(key_file.read_text().replace("-----END", damage + "-----END"))
        with Server(ARCHIVE_COMMAND) as server:
            server.initialize()
            server.call("whoami")
            server.close()
        for part in (inner, inner[:20], inner[-20:]):
            assert part.encode() not in seen_by_others(server, home)
    sent = b"".join(str(seen).encode() for seen in recorder.seen)
    assert inner[-20:].encode() not in sent


def test_token_appears_nowhere_but_in_the_registration(home: Path, recorder: Recorder) -> None:
    token = "0123456789abcdef" * 4
    env = {**os.environ, "SIKKERKEY_API_URL": recorder.url}
    refused, accepted = {"error": f"token {token} is spent"}, {"agentId": "a-1", "name": token, "vaultId": "v"}
    for told in (Told(400, json.dumps(refused).encode()), Told(201, json.dumps(accepted).encode())):
        recorder.answer = lambda _seen, told=told: told  # type: ignore[misc]
        command = [*ARCHIVE_COMMAND, "install", "-"]
        done = subprocess.run(command, input=token, env=env, capture_output=True, text=True, check=False)
        assert token not in done.stdout + done.stderr
    assert [seen.json()["token"] for seen in recorder.seen] == [token, token]
    assert not [path for path in home.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


def test_crash_in_a_tool_shows_no_argument(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    broken = "import sikkerkey_mcp as m; m.build_request = lambda action, given: 1 // 0; m.main([])"
    with Server([sys.executable, "-c", broken], {**os.environ, "PYTHONPATH": os.getcwd()}) as server:
        server.initialize()
        tool, arguments = WRITES["create"]
        reply = server.request("tools/call", name=tool, arguments=arguments)
        assert reply["error"] == {"code": mcp.INTERNAL_ERROR, "message": "internal error (ZeroDivisionError)"}
        assert server.request("ping")["result"] == {}
        server.close()
    assert_unmarked(b"".join(server.lines) + server.stderr)


@pytest.mark.parametrize("depth", [400, 600, 900])
def test_deeply_nested_value_is_no_error_after_it_was_stored(server: Server, recorder: Recorder, depth: int) -> None:
    recorder.answer = lambda _seen: Told(201, b'{"id": "sk_1"}')
    value = "[" * depth + "]" * depth
    result = server.call("manage_secrets", action="create", **PROJECT, name="n", value=value)
    assert result["structuredContent"] == {"id": "sk_1"}


@pytest.mark.parametrize("repeat", [str.strip, lambda value: value.splitlines()[2], lambda v: v.strip().encode().hex()])
def test_trimmed_and_partial_echoes_are_cut_out(
    server: Server, recorder: Recorder, repeat: Callable[[str], str]
) -> None:
    value = "  -----BEGIN THING-----\nfirst-line-of-it-7f3a\n  second-line-of-it-7f3a  \n"
    recorder.answer = lambda _seen: Told(400, json.dumps({"error": f"bad: {repeat(value)}"}).encode())
    result = server.call("manage_secrets", action="create", **PROJECT, name="n", value=value)
    assert "7f3a" not in json.dumps(result)
    assert b"7f3a".hex() not in json.dumps(result)


def test_stored_values_are_withheld_under_any_name_made_of_value(server: Server, recorder: Recorder) -> None:
    names = ("value", "Value", "secretValue", "current_value", "plainText", "PLAINTEXT")
    stored = {"id": "sk_1", **dict.fromkeys(names, "stored-7f3a")}
    recorder.answer = lambda _seen: Told(200, json.dumps(stored).encode())
    result = server.call("manage_secrets", action="get", **PROJECT, **SECRET)
    assert "7f3a" not in json.dumps(result)
    assert result["structuredContent"]["id"] == "sk_1"
