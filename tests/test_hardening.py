"""Findings of a security review: surplus bytes, missing threads, misleading names, answers nested too deeply."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_redact
import sikkerkey_tls
from tests.support.harness import AGENT_ID, SOURCE_COMMAND, CannedResponse, Recorder, make_slot
from tests.support.schema_check import CheckedServer


def test_call_is_refused_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    session, told = sikkerkey_mcp.Session(sikkerkey_mcp.VaultTools(lambda: pytest.fail("called")), lambda _m: None), []  # type: ignore[var-annotated]
    session.receive(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}')
    (call,) = session.receive(b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami"}}').parts
    assert isinstance(call, sikkerkey_mcp.Call)
    sikkerkey_mcp.WorkerPool().submit(sikkerkey_mcp.Job(call, 1, told.append))
    assert told[0]["id"] == 2
    assert told[0]["result"]["isError"] is True


def test_plain_http_never_leaves_this_computer_even_if_localhost_does(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.2", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: there)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    api = sikkerkey_mcp.Api("http://localhost:1", lambda _request: {})
    with pytest.raises(sikkerkey_mcp.ConfigError):
        api.send(sikkerkey_mcp.Request("GET", "/", None), safe=False, context=sikkerkey_mcp.Context())


def test_name_of_the_vault_must_stand_where_constraints_bind_it() -> None:
    assert sikkerkey_tls.tls_context().hostname_checks_common_name is False


def test_batch_counts_its_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "whoami"}}
    first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}}
    lines = [json.dumps(first).encode(), json.dumps([{**call, "id": n} for n in range(1, 11)]).encode()]
    pieces = iter([b"\n".join(lines) + b"\n", b""])
    jobs: list[sikkerkey_mcp.Job] = []
    monkeypatch.setattr(sikkerkey_mcp.WorkerPool, "submit", lambda _self, job: jobs.append(job))
    output = sikkerkey_mcp.Output(os.open(os.devnull, os.O_WRONLY))
    tools = sikkerkey_mcp.VaultTools(lambda: pytest.fail("called"))
    sikkerkey_mcp.StdioServer(tools, lambda: next(pieces), output).run()
    os.close(output.descriptor)
    assert len(jobs) == 10
    assert sum(job.size_bytes for job in jobs) <= len(lines[1])


def test_answer_that_cannot_be_written_is_an_error_and_not_silence() -> None:
    deep: Any = []
    for _ in range(sys.getrecursionlimit() * 100):
        deep = [deep]
    read_end, write_end = os.pipe()
    sikkerkey_mcp.Output(write_end).send(sikkerkey_mcp.response(7, {"structuredContent": deep}))
    answer = json.loads(os.read(read_end, 65_536))
    os.close(read_end)
    os.close(write_end)
    assert answer["id"] == 7
    assert answer["error"]["code"] == sikkerkey_mcp.INTERNAL_ERROR


@pytest.mark.parametrize("lack", [MemoryError, RecursionError])
def test_every_reply_of_a_batch_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, lack: type[Exception]
) -> None:
    """Also for lack of memory, which would end the thread of the call."""
    encode, failures = sikkerkey_mcp.to_json, [lack(), lack()]

    def fail_at_first(value: Any) -> str:
        if value in (batch, batch[0]) and failures:
            raise failures.pop()
        return encode(value)

    batch = [sikkerkey_mcp.response(request_id, {}) for request_id in (7, "8")]
    monkeypatch.setattr(sikkerkey_mcp, "to_json", fail_at_first)
    read_end, write_end = os.pipe()
    output = sikkerkey_mcp.Output(write_end)
    output.send(batch)
    output.send(batch[0])
    os.close(write_end)
    with os.fdopen(read_end) as written:
        errors, error = map(json.loads, written)
    assert [(each["id"], each["error"]["code"]) for each in [*errors, error]] == [
        (request_id, sikkerkey_mcp.INTERNAL_ERROR) for request_id in (7, "8", 7)
    ]


def test_import_error_of_the_library_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError("cryptography cannot be loaded: musl 1.2.3 is too old")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(sikkerkey_mcp.ConfigError, match=r"musl 1\.2\.3 is too old"):
        sikkerkey_keys.load_signer(b"")


def nested(levels: int) -> bytes:
    return b'{"a":[' * (levels // 2) + b"1" + b"]}" * (levels // 2)


def test_json_nested_too_deeply_does_not_crash_where_stacks_are_small(home: Path, recorder: Recorder) -> None:
    """With 100,000 levels, json either raises RecursionError or crashes, depending on the stack."""
    recorder.answer = lambda _seen: CannedResponse(200, nested(100_000))
    make_slot(home, recorder.url)
    small_stack = ("sh", "-c", 'ulimit -s 1024 && exec "$@"', "sh")
    with CheckedServer([*small_stack, *SOURCE_COMMAND]) as server:
        server.initialize()
        server.send_bytes(nested(100_000) + b"\n")
        assert server.reply(None)["error"]["code"] == sikkerkey_mcp.PARSE_ERROR
        assert server.call("whoami")["content"][0]["text"].startswith("the vault's answer is not JSON\n")


def test_levels_are_counted_outside_strings_only() -> None:
    limit = sikkerkey_redact.JSON_MAX_LEVELS
    deepest = b"[" * limit + b"]" * limit
    in_strings = [b'"' + b"[" * 2_000 + b'"', rb'"\"[\\\"[' + b"[{" * 2_000 + rb'\\"', b'""', b'{"[":"{"}']
    for text in [deepest, b"[" + b",".join([deepest[1:-1], *in_strings * 2]) + b"]", *in_strings]:
        assert not sikkerkey_redact.nests_too_deeply(text), text[:20]
    too_deep = [b"[" + deepest + b"]", b"[" * 100_000, b'{"a":' * 2_000, b'["]",' * 2_000, rb'["\\",' * 2_000]
    too_deep += [b'[["' + b"]" * 2_000 + b'",' + deepest, b'["[]"' * (600_001 // 2 + 1)]
    for text in too_deep:
        assert sikkerkey_redact.nests_too_deeply(text), text[:20]
        with pytest.raises(ValueError, match="nested too deeply"):
            sikkerkey_mcp.parse_json(text)


TEXTS = st.text('[]{}"\\a')


@given(st.recursive(st.none() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_levels_of_any_json_are_counted(value: Any) -> None:
    def levels(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(levels, inner), default=0) if isinstance(value, (dict, list)) else 0

    text = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patched:
        for limit in (levels(value) - 1, levels(value)):
            patched.setattr(sikkerkey_redact, "JSON_MAX_LEVELS", limit)
            assert sikkerkey_redact.nests_too_deeply(text) is (limit < levels(value))


def test_plaintext_that_cannot_be_searched_is_refused() -> None:
    tool = next(tool for tool in sikkerkey_mcp.TOOLS if tool.name == "manage_secrets")
    arguments = {"action": "create", "projectId": "p", "name": "n", "value": nested(2_000).decode()}
    action = sikkerkey_mcp.find_action(tool, arguments)
    with pytest.raises(sikkerkey_mcp.ArgumentError, match=r"^value is nested too deeply$"):
        sikkerkey_mcp.check_arguments(tool, action, arguments, 0)


def test_python_without_tls_is_named_in_the_terminal_and_through_the_tools(home: Path) -> None:
    make_slot(home, "https://vault.test")
    sentence = "this Python has no usable module ssl\nhint: install all of Python: on Debian and Ubuntu with "
    start = "import sys; sys.modules['ssl'] = None; import sikkerkey_cli.__main__ as cli; sys.exit(cli.main({}))"
    with CheckedServer([sys.executable, "-c", start.format(["serve"])]) as server:
        server.initialize()
        result = server.call("whoami")
        assert (result["isError"], result["content"][0]["text"].startswith(sentence)) == (True, True)
        reply = server.request("resources/read", uri="sikkerkey://whoami")
        assert reply["error"]["message"].startswith(sentence)
        server.close()
    for words in (["call", "whoami"], ["doctor"], ["install", "a" * 64]):
        ended = subprocess.run([sys.executable, "-c", start.format(words)], capture_output=True, text=True, check=False)
        assert ended.returncode == 1, words
        assert ended.stderr.startswith(f"sikkerkey-mcp: error: {sentence}"), words
        assert ended.stderr.count("\n") == 2, words
    assert [path.name for path in home.rglob("agents/*")] == [AGENT_ID]
