"""HTTP on the wire: the bytes of a request, the framing of an answer, and the route to the vault."""

from __future__ import annotations

import errno
import socket

import pytest

import sikkerkey_mcp
import sikkerkey_wire as wire

REQUEST = sikkerkey_mcp.Request("POST", "/v1/ai/projects", b'{"name":"n"}')
SENT = (
    b"POST /v1/ai/projects HTTP/1.1\r\nHost: vault.test\r\nAccept-Encoding: identity\r\nX-Nonce: n\r\n"
    b'Content-Length: 12\r\n\r\n{"name":"n"}'
)


def answered(data: bytes) -> tuple[bytes, sikkerkey_mcp.Reply, bool]:
    """What is sent, and what is made of `data`, after which the stream stays open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        reply, keep = wire.Connection(ours, "vault.test").exchange(REQUEST, {"X-Nonce": "n"}, sikkerkey_mcp.Context())
        return theirs.recv(65_536), reply, keep


def test_request_bytes_are_exact() -> None:
    whole = b"HTTP/1.1 200 OK\r\nVia: a\r\nVIA:b \r\nContent-Length: 2\r\n\r\n{}"
    assert answered(whole) == (SENT, sikkerkey_mcp.Reply(200, {"via": "a, b", "content-length": "2"}, b"{}"), True)


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
def test_connection_that_ends_or_is_out_of_step_is_not_reused(data: bytes) -> None:
    assert answered(data)[1:] == (sikkerkey_mcp.Reply(200, answered(data)[1].headers, b"{}"), False)


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
def test_request_with_unsafe_characters_is_refused(target: str, headers: dict[str, str]) -> None:
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
def test_route_to_a_vault(monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: int) -> None:
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
        ("http://[1:2]:3128", wire.Proxy("1:2", 3128, {})),
        ("http://@Proxy.test:3128", wire.Proxy("proxy.test", 3128, {})),
        ("http://u%40x:p%3A@proxy.test:1", wire.Proxy("proxy.test", 1, {"Proxy-Authorization": "Basic dUB4OnA6"})),
    ],
)
def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, url: str, expected: wire.Proxy) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    assert wire.proxy_for("https://vault.test") == expected
    assert wire.proxy_for("http://localhost:1") is None
    monkeypatch.setenv("NO_PROXY", "vault.test")
    assert wire.proxy_for("https://vault.test:8443") is None


def chunked(rest: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest


@pytest.mark.parametrize(
    ("data", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2 ,2,\t2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n\t b\r\nContent-Length:\r\n 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nX:\r\nContent-Encoding:\r\nContent-Length: 2\t \r\n\r\n{}", True),
        (b"HTTP/1.7 200\r\nCONTENT-LENGTH:2\r\n\r\n{}", True),
        (chunked(b'2 ;a="b"\r\n{}\r\n000;c\r\nT: t\r\n\r\n'), True),
        (chunked(b"00000002\t\r\n{}\r\n0\r\n\r\n"), True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", False),
    ],
)
def test_valid_answer_is_accepted_and_its_connection_kept_if_its_length_is_certain(data: bytes, keep: bool) -> None:
    _, reply, kept = answered(data)
    assert (reply.status, reply.body, kept) == (200, b"{}", keep)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    ("headers", "keep"), [(b"", True), (b"Content-Length: 0\r\n", True), (b"Content-Length: 2\r\n", False)]
)
def test_answer_without_a_body_keeps_its_connection_unless_it_announces_one(
    status: int, headers: bytes, keep: bool
) -> None:
    _, reply, kept = answered(b"HTTP/1.1 %d Said\r\n%b\r\n" % (status, headers))
    assert (reply.status, reply.body, kept) == (status, b"", keep)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: \x0b2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 02\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        chunked(b" 2\r\n{}\r\n0\r\n\r\n"),
        chunked(b"2;\n{}\r\n2\r\n{}\r\n0\r\n\r\n"),
        chunked(b"2;\r{}\r\n{}\r\n0\r\n\r\n"),
        chunked(b"2\r\n{}\r\n0\r\nT: t\n\r\n\r\n"),
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        b"HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1. 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_ambiguous_answer_is_refused(data: bytes) -> None:
    with pytest.raises(wire.MalformedAnswer):
        answered(data)


def test_address_of_an_unsupported_family_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return real(family, *rest)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [(family, socket.SOCK_STREAM, 0, "", (host, port)) for family, host in ADDRESSES]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        monkeypatch.setattr(socket, "socket", without_ipv6)
        connection = wire.opened(wire.Route("localhost", "localhost", port), sikkerkey_mcp.Cancellation())
        assert connection.wire.getpeername() == ("127.0.0.1", port)
        connection.close()


ADDRESSES = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]


@pytest.mark.parametrize("address", ["1:2", "abc", "::1%lo", "1.2.3.4", "::1]", "", "::\u0661"])
def test_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(sikkerkey_mcp.ConfigError):
        sikkerkey_mcp.parse_base_url(f"https://[{address}]")
