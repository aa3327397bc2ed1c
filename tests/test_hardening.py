"""Findings of a security review: surplus bytes, missing threads, misleading names, answers nested too deeply."""

from __future__ import annotations

import builtins
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
import sikkerkey_wire as wire
from tests.support.harness import make_slot


class Tls:
    """A socket under TLS that has decrypted more than was read."""

    def __init__(self, plain: socket.socket, pending: int) -> None:
        self.plain, self.left = plain, pending

    def fileno(self) -> int:
        return self.plain.fileno()

    def pending(self) -> int:
        return self.left


@pytest.mark.parametrize("pending", [0, 1])
def test_connection_with_unread_decrypted_bytes_is_not_reused(pending: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = wire.Connection(Tls(ours, pending), "vault.test")  # type: ignore[arg-type]
        connection.idle_since_s = time.monotonic()
        assert connection.is_usable() is not bool(pending)


def env_of(home: Path, url: str) -> dict[str, str]:
    make_slot(home, url)
    return {"HOME": str(home)}


def raw_vault(answers: list[bytes]) -> tuple[str, list[int]]:
    listener, connections = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        left = list(answers)
        while left:
            peer, _ = listener.accept()
            connections.append(1)
            with peer:
                while left and peer.recv(65_536):
                    peer.sendall(left.pop(0))

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", connections


def test_interim_answer_that_announces_the_end_ends_the_connection(tmp_path: Path) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    url, _ = raw_vault([b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n" + whole, whole])
    api = sikkerkey_mcp.Api(url, lambda _request: {})
    api.send(sikkerkey_mcp.Request("GET", "/", None), safe=True, context=sikkerkey_mcp.Context())
    assert api._connections._idle == []


def test_call_is_refused_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sikkerkey_mcp, "start_new_thread", refuse)
    session, told = sikkerkey_mcp.Session(sikkerkey_mcp.VaultTools(lambda: pytest.fail("called")), lambda _m: None), []  # type: ignore[var-annotated]
    session.receive(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}')
    (call,) = session.receive(b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami"}}').parts
    assert isinstance(call, sikkerkey_mcp.Call)
    jobs = iter([[sikkerkey_mcp.Job(call, 1, told.append)], None])
    sikkerkey_mcp.Workers(lambda: next(jobs)).run()
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
    assert wire.tls_context().hostname_checks_common_name is False


def test_batch_counts_its_line_once() -> None:
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "whoami"}}
    first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}}
    lines = [json.dumps(first).encode(), json.dumps([{**call, "id": n} for n in range(1, 11)]).encode()]
    pieces = iter([b"\n".join(lines) + b"\n", b""])
    output = sikkerkey_mcp.Output(os.open(os.devnull, os.O_WRONLY))
    server = sikkerkey_mcp.StdioServer(
        sikkerkey_mcp.VaultTools(lambda: pytest.fail("called")), lambda: next(pieces), output
    )
    jobs = server._read()
    os.close(output.descriptor)
    assert jobs is not None
    assert len(jobs) == 10
    assert sum(job.size_bytes for job in jobs) <= len(lines[1])


def test_answer_that_cannot_be_written_is_an_error_and_not_silence() -> None:
    deep: Any = sikkerkey_mcp.ExactNumber("1.10")
    for _ in range(2_000):
        deep = [deep]
    read_end, write_end = os.pipe()
    sikkerkey_mcp.Output(write_end).send(sikkerkey_mcp.reply_to(7, {"structuredContent": deep}))
    answer = json.loads(os.read(read_end, 65_536))
    os.close(read_end)
    os.close(write_end)
    assert answer["id"] == 7
    assert answer["error"]["code"] == sikkerkey_mcp.INTERNAL_ERROR


def test_import_error_of_the_library_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError("cryptography cannot be loaded: musl 1.2.3 is too old")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(sikkerkey_mcp.ConfigError, match=r"musl 1\.2\.3 is too old"):
        sikkerkey_mcp.load_signer(b"")


def test_failure_of_the_library_is_not_blamed_on_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    class Broken:
        @staticmethod
        def from_private_bytes(_seed: bytes) -> None:
            raise MemoryError

    make_slot(tmp_path, "https://vault.example")
    pem = next(tmp_path.rglob("private.pem")).read_bytes()
    monkeypatch.setattr(ed25519, "Ed25519PrivateKey", Broken)
    with pytest.raises(MemoryError):
        sikkerkey_mcp.load_signer(pem)
