"""The wire itself: how a request is spelt, how an answer is framed, and which way leads to the vault."""

from __future__ import annotations

import socket

import pytest

import sikkerkey_mcp as m
import sikkerkey_wire as wire

REQUEST = m.Request("POST", "/v1/ai/projects", b'{"name":"n"}')
SENT = (
    b"POST /v1/ai/projects HTTP/1.1\r\nHost: vault.test\r\nAccept-Encoding: identity\r\nX-Nonce: n\r\n"
    b'Content-Length: 12\r\n\r\n{"name":"n"}'
)


def answered(data: bytes) -> tuple[bytes, m.Reply, bool]:
    """What is sent, and what is made of `data`, after which the stream stays open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        reply, keep = wire.Connection(ours, "vault.test").exchange(REQUEST, {"X-Nonce": "n"}, m.Context())
        return theirs.recv(65_536), reply, keep


def test_request_is_spelt_once_and_exactly() -> None:
    whole = b"HTTP/1.1 200 OK\r\nVia: a\r\nVIA:b \r\nContent-Length: 2\r\n\r\n{}"
    assert answered(whole) == (SENT, m.Reply(200, {"via": "a, b", "content-length": "2"}, b"{}"), True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["announced", "HTTP/1.0", "surplus", "announced early"],
)
def test_connection_that_ends_or_is_out_of_step_serves_no_other_request(data: bytes) -> None:
    assert answered(data)[1:] == (m.Reply(200, answered(data)[1].headers, b"{}"), False)


@pytest.mark.parametrize("size", [b"-1", b"+2", b"0x2", b"1_0", b"", b"\xb2", b"2 2", b"1" * 17])
@pytest.mark.parametrize(
    "head", [b"Content-Length: %s\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n%s\r\n{}\r\n0\r\n\r\n"]
)
def test_size_is_digits_and_nothing_else(head: bytes, size: bytes) -> None:
    with pytest.raises(wire.MalformedAnswer):
        answered(b"HTTP/1.1 200 OK\r\n" + head % size)


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/a b", {}), ("/a\r\nHost: b", {}), ("/", {"X": "a\r\nHost: b"}), ("/", {"X": "\x00"}), ("/", {"X": "é"})],
)
def test_request_that_would_say_something_else_is_not_made(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        wire.request_head("GET", target, "vault.test", headers)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://vault.test", "vault.test", 443),
        ("https://vault.test:8443", "vault.test", 8443),
        ("https://[2001:db8::1]", "2001:db8::1", 443),
        ("http://[::1]:8080", "::1", 8080),
        ("http://localhost", "localhost", 80),
    ],
)
def test_way_to_a_vault(monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: int) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    route = wire.route_to(url)
    assert (route.authority, route.host, route.port, route.proxy) == (url.partition("://")[2], host, port, None)
    assert (route.tls is None) is url.startswith("http:")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.test:3128", wire.Proxy("proxy.test", 3128, {})),
        ("proxy.test", wire.Proxy("proxy.test", 80, {})),
        ("http://[::1]:3128/", wire.Proxy("::1", 3128, {})),
        ("http://u%40x:p%3A@proxy.test:1", wire.Proxy("proxy.test", 1, {"Proxy-Authorization": "Basic dUB4OnA6"})),
    ],
)
def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, url: str, expected: wire.Proxy) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    assert wire.proxy_for("https://vault.test") == expected
    assert wire.proxy_for("http://localhost:1") is None
    monkeypatch.setenv("NO_PROXY", "vault.test")
    assert wire.proxy_for("https://vault.test:8443") is None


@pytest.mark.parametrize("cut", [None, 0, 20, -1], ids=["at once", "late", "late headers", "late body"])
def test_way_is_made_before_an_answer_is_waited_for_at_any_place(cut: int | None) -> None:
    class Waiting(m.Context):
        made_way = False

        def about_to_wait(self) -> None:
            self.made_way = True
            theirs.sendall(whole[cut:])

    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(whole[:cut])
        context = Waiting()
        wire.Connection(ours, "vault.test").exchange(REQUEST, {}, context)
        assert context.made_way is (cut is not None)
