"""Exchanges over real sockets: which connections are kept, what ends an exchange, and which responses are refused."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import sikkerkey_http
from sikkerkey_http import (
    AbortableRequest,
    Address,
    Compressed,
    KeepAliveHandler,
    Limits,
    NotLoopback,
    Response,
    TooLarge,
    Unreachable,
    in_order,
)
from tests.support import faulty_vault
from tests.support.faulty_vault import Authority, ConnectProxy, FaultyVault, Wire, message
from tests.support.harness import TIMEOUT_S, ReceivedRequest

LIMITS = Limits(
    connect_s=TIMEOUT_S,
    exchange_s=TIMEOUT_S,
    response_bytes=1_000,
    idle_s=TIMEOUT_S,
    idle_connections=2,
    next_address_s=0.25,
    kept_answer_s=TIMEOUT_S,
)
NEVER_S = 100_000.0
PATIENT = LIMITS._replace(connect_s=NEVER_S, exchange_s=NEVER_S)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + b"Content-Length: 2\r\n\r\n{}"


class Peer:
    """A client of one URL, closed at the end of the test."""

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None = None,
        proxies: dict[str, str] | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.url = url
        self.connections = KeepAliveHandler(tls, limits)
        self.opener = urllib.request.OpenerDirector()
        self.opener.add_handler(urllib.request.ProxyHandler(proxies or {}))
        self.opener.add_handler(self.connections)
        self.on_abort: Callable[[Callable[[], None] | None], None] = lambda _abort: None
        self.repeatable = False

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.connections.close()

    def send(self, method: str = "GET", path: str = "/", body: bytes | None = None, **headers: str) -> Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AbortableRequest(self.url + path, data=body, headers=fields, method=method)
        request.on_abort = self.on_abort
        request.repeatable = self.repeatable
        response: Response = self.opener.open(request)
        return response

    def failure(self, **request: Any) -> Unreachable:
        with pytest.raises(Unreachable) as raised:
            self.send(**request)
        return raised.value

    def wait_until_readable(self) -> None:
        """Until something has arrived on the idle connection."""
        (connection,) = self.connections._idle
        assert select.select([connection.sock], [], [], TIMEOUT_S)[0]


@contextlib.contextmanager
def playing(data: bytes, limits: Limits = LIMITS, *, then_close: bool = False) -> Iterator[tuple[FaultyVault, Peer]]:
    """A vault that answers every request with `data`, and a client of it."""
    act = faulty_vault.then_close(data) if then_close else faulty_vault.then_go_on(data)
    with FaultyVault(act) as vault, Peer(vault.url, limits=limits) as peer:
        yield vault, peer


# requests


def test_request_is_written_exactly_so() -> None:
    heads: list[str] = []
    with FaultyVault() as vault, Peer(vault.url) as peer:

        def note_head(wire: Wire) -> None:
            heads.append(wire.read_head())
            wire.send(message(b"{}", 200, "Connection: close"))

        vault.greet = note_head
        headers = {"User-Agent": "u/1", "Accept": "*/*", "X-Agent-Id": "a", "X-Nonce": "n", "Content-Type": "t/j"}
        for method, body in [("POST", b'{"a":1}'), ("POST", None), ("DELETE", None), ("GET", None)]:
            peer.send(method, "/v1/ai/x?y=%20", body, **headers)
        host = vault.url.partition("://")[2]
    common = (
        f"Host: {host}\r\nAccept-Encoding: identity\r\nUser-Agent: u/1\r\nAccept: */*\r\nX-Agent-Id: a\r\nX-Nonce: n"
    )
    common += "\r\nContent-Type: t/j"
    assert heads == [
        f"POST /v1/ai/x?y=%20 HTTP/1.1\r\n{common}\r\nContent-Length: 7",
        f"POST /v1/ai/x?y=%20 HTTP/1.1\r\n{common}\r\nContent-Length: 0",
        f"DELETE /v1/ai/x?y=%20 HTTP/1.1\r\n{common}\r\nContent-Length: 0",
        f"GET /v1/ai/x?y=%20 HTTP/1.1\r\n{common}",
    ]


def test_request_that_is_not_printable_ascii_is_not_sent() -> None:
    with playing(WHOLE) as (vault, peer):
        for path, value in [
            ("/a b", ""),
            ("/\r\nHost: b", ""),
            ("/é", ""),
            ("/", "a\r\nHost: b"),
        ]:
            peer.failure(path=path, X=value)
            assert vault.seen == [], (path, value)


def test_response_has_lower_case_headers_joined_by_commas() -> None:
    with playing(OK + b"Via: a\r\nVIA:b \r\nX: c\r\n\t d\r\nContent-Length:\r\n 2\r\n\r\n{}") as (_vault, peer):
        headers = {"via": "a, b", "x": "c d", "content-length": "2"}
        assert peer.send() == Response(200, headers, b"{}")


def test_every_status_is_a_response_and_no_redirect_is_followed() -> None:
    with FaultyVault() as elsewhere:
        for status in (301, 302, 303, 307, 308, 401, 403, 407, 500, 599):
            with playing(message(b"x", status, f"Location: {elsewhere.url}/")) as (vault, peer):
                response = peer.send("POST", body=b"{}")
                assert (response.status, response.body, len(vault.seen)) == (status, b"x", 1), status
        assert elsewhere.connections == 0


# keep-alive

KEPT = {
    "a length": WHOLE,
    "chunks": CHUNKED + b'2 ;a="b"\r\n{}\r\n000;c\r\nT: t\r\n\r\n',
    "an interim response": b"HTTP/1.1 100 C\r\n\r\n" + WHOLE,
    "no reason phrase": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}",
    "an empty content encoding": OK + b"Content-Encoding:\r\nContent-Length: 2\r\n\r\n{}",
    "a multipart content type": OK + b"Content-Type: multipart/mixed; boundary=b\r\nContent-Length: 2\r\n\r\n{}",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with the length 0": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
}
LAST = {
    "an announced end": OK + b"Connection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": OK + b"Content-Length: 9\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
}


def test_connection_is_kept_where_the_end_of_the_response_is_certain() -> None:
    for rows, connections in [(KEPT, 1), (LAST, 3)]:
        for name, data in rows.items():
            with playing(data) as (vault, peer):
                bodies = [peer.send().body for _ in range(3)]
                assert bodies == [b"" if "04" in name else b"{}"] * 3 or name == "304 with chunks", name
                assert (len(vault.seen), vault.connections) == (3, connections), name


def test_response_that_the_end_of_the_stream_ends_is_whole() -> None:
    for head in (OK, b"HTTP/1.0 200 OK\r\n"):
        with playing(head + b"\r\n{}", then_close=True) as (vault, peer):
            assert [peer.send().body for _ in range(2)] == [b"{}", b"{}"]
            assert vault.connections == 2


def test_idle_connection_is_dropped_after_its_time() -> None:
    with playing(WHOLE, LIMITS._replace(idle_s=0.0)) as (vault, peer):
        peer.send()
        peer.send()
        assert vault.connections == 2


def test_idle_time_counts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock may have stopped, and the wall clock may have been set back."""
    started_s = time.time()
    for seconds, connections in [(TIMEOUT_S - 1, 1), (TIMEOUT_S, 2), (-TIMEOUT_S, 1)]:
        with playing(WHOLE) as (vault, peer), monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: started_s)
            peer.send()
            patch.setattr(time, "time", lambda seconds=seconds: started_s + seconds)
            peer.send()
            assert vault.connections == connections, seconds


def test_silence_on_a_kept_connection_ends_a_repeatable_request_early() -> None:
    limits = PATIENT._replace(kept_answer_s=0.2)
    acts = [faulty_vault.answer(), faulty_vault.answer(), faulty_vault.then_silence(), faulty_vault.answer(b"2")]
    with FaultyVault(*acts) as vault, Peer(vault.url, limits=limits) as peer:
        peer.repeatable = True
        keep_two_connections(vault, peer)
        failure = peer.failure()
        assert (failure.reason, failure.sent, failure.retryable) == ("it did not answer in time", True, True)
        assert peer.connections._idle == []  # the other one may have died with it
        assert (peer.send().body, vault.connections) == (b"2", 3)


def keep_two_connections(vault: FaultyVault, peer: Peer) -> None:
    """One exchange on each of two connections, which are then kept."""
    peer.send()
    first = peer.connections._take()
    assert first
    peer.send()
    peer.connections._put_back(first)
    assert vault.connections == 2


def test_answer_on_a_kept_connection_has_the_whole_time_once_it_has_begun() -> None:
    with playing(WHOLE, PATIENT) as (_vault, peer):
        peer.repeatable = True
        for _ in range(2):
            peer.send()
            (connection,) = peer.connections._idle
            assert connection.sock.deadline_s > time.monotonic() + NEVER_S / 2


def test_write_on_a_kept_connection_has_the_whole_time() -> None:
    limits = LIMITS._replace(kept_answer_s=0.0)
    with playing(WHOLE, limits) as (vault, peer):
        assert [peer.send("POST", body=b"{}").body for _ in range(2)] == [b"{}"] * 2
        assert vault.connections == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_connection_fails_once_nothing_is_acknowledged() -> None:
    with playing(WHOLE) as (_vault, peer):
        peer.send()
        (connection,) = peer.connections._idle
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TIMEOUT_S * 1000


def test_connection_that_was_closed_while_idle_is_replaced() -> None:
    for act in (faulty_vault.then_close(WHOLE), faulty_vault.then_reset(WHOLE)):
        with FaultyVault(act, faulty_vault.answer(b"2")) as vault, Peer(vault.url) as peer:
            peer.send("POST", body=b"{}")
            peer.wait_until_readable()
            assert peer.send("POST", body=b"{}").body == b"2"
            assert (len(vault.seen), vault.connections) == (2, 2)


def test_bytes_that_arrive_while_idle_are_never_a_response() -> None:
    with playing(WHOLE) as (vault, peer):
        peer.send()
        vault.wires[0].send(message(b'{"planted":true}'))
        peer.wait_until_readable()
        assert peer.send().body == b"{}"
        assert vault.connections == 2


def test_only_so_many_idle_connections_are_kept() -> None:
    together = threading.Barrier(3)

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        together.wait(TIMEOUT_S)
        wire.send(WHOLE)
        return True

    with FaultyVault(act) as vault, Peer(vault.url) as peer:
        for _ in range(2):
            run_concurrently(3, peer.send)
        assert vault.connections == 4


def run_concurrently(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)


def test_32_exchanges_run_concurrently() -> None:
    together, bodies = threading.Barrier(32), []

    def act(wire: Wire, request: ReceivedRequest) -> bool:
        together.wait(TIMEOUT_S)
        wire.send(message(request.headers["x-number"].encode()))
        return True

    numbers = iter(range(64))
    with FaultyVault(act) as vault, Peer(vault.url, limits=LIMITS._replace(idle_connections=32)) as peer:

        def work() -> None:
            number = str(next(numbers))
            bodies.append((number.encode(), peer.send(X_Number=number).body))

        for _ in range(2):
            run_concurrently(32, work)
        assert len(bodies) == 64
        assert all(sent == received for sent, received in bodies)
        assert vault.connections == 32


def test_request_on_a_connection_that_fails_is_not_repeated() -> None:
    with FaultyVault(faulty_vault.answer(), faulty_vault.then_close()) as vault, Peer(vault.url) as peer:
        peer.send()
        failure = peer.failure(method="POST", body=b"{}")
        assert (failure.sent, failure.retryable, failure.reason) == (True, True, "the connection broke")
        assert (len(vault.seen), vault.connections) == (2, 1)


# responses that are refused

MANY = 100_000
TOO_LARGE = {
    "a length": (OK + b"Content-Length: 1001\r\n\r\n", b"x", 1),
    "a length of 16 digits": (OK + b"Content-Length: 9999999999999999\r\n\r\n", b"x", 1),
    "all chunks together": (CHUNKED, b"1f5\r\n%b\r\n" % (b"x" * 501), 1_000),
    "no length": (OK + b"\r\n", b"x" * 1_000, MANY),
    "trailers": (CHUNKED + b"0\r\n", b"X: %b\r\n" % (b"x" * 1_000), MANY),
    "100 without end": (b"", b"HTTP/1.1 100 C\r\n\r\n" * 100, MANY),
    "one chunk of 4 EB": (CHUNKED + b"4000000000000000\r\n", b"x" * 1_000, MANY),
}


def test_response_beyond_a_bound_is_refused() -> None:
    for name, (head, piece, times) in TOO_LARGE.items():
        act = faulty_vault.flood(head, piece, times)
        with FaultyVault(act, faulty_vault.answer()) as vault, Peer(vault.url) as peer:
            with pytest.raises(TooLarge):
                peer.send()
            assert (peer.send().body, vault.connections) == (b"{}", 2), name


def test_framing_has_a_bound_of_its_own() -> None:
    limits = LIMITS._replace(response_bytes=16 * 1024 * 1024)
    interim, chunks = b"HTTP/1.1 100 C\r\n\r\n" * 60_000 + WHOLE, CHUNKED + b"1\r\nx\r\n" * 250_000 + b"0\r\n\r\n"
    for data in (interim, chunks):
        with playing(data, limits) as (_vault, peer), pytest.raises(TooLarge):
            peer.send()


def test_bound_is_on_the_sum_of_all_chunks() -> None:
    limits = LIMITS._replace(response_bytes=100_000)
    for count, accepted in [(100, True), (101, False), (1_000, False)]:
        data = CHUNKED + b"3e8\r\n%b\r\n" % (b"x" * 1_000) * count + b"0\r\n\r\n"
        with playing(data, limits) as (_vault, peer):
            if accepted:
                assert len(peer.send().body) == 100_000
            else:
                with pytest.raises(TooLarge):
                    peer.send()


def test_body_of_exactly_the_bound_is_read() -> None:
    chunks = b"".join(b"1f4\r\n%b\r\n" % (b"x" * 500) for _ in range(2))
    bodies = [message(b"x" * 1_000), CHUNKED + chunks + b"0\r\n\r\n", OK + b"\r\n" + b"x" * 1_000]
    for data in bodies:
        with playing(data, then_close=True) as (_vault, peer):
            assert peer.send().body == b"x" * 1_000


def test_compressed_response_is_refused_unread() -> None:
    for encoding in ("gzip", "GZIP", "br", "zstd, identity"):
        for status in (200, 500):
            with playing(message(b"\x1f\x8b", status, f"Content-Encoding: {encoding}")) as (vault, peer):
                for _ in range(2):
                    with pytest.raises(Compressed):
                        peer.send()
                assert vault.connections == 2, encoding
    with playing(message(b"{}", 200, "Content-Encoding: Identity")) as (_vault, peer):
        assert peer.send().body == b"{}"


SIZES = [b"-1", b"1_0", b"", b"\xb2", b"2 2"]
MALFORMED = [
    *(OK + b"Content-Length: %b\r\n\r\n{}" % size for size in [*SIZES, b"0x2"]),
    *(CHUNKED + b"%b\r\n{}\r\n0\r\n\r\n" % size for size in SIZES),
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    OK + b"Content-Length : 2\r\n\r\n{}",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"no colon\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nno colon\r\nContent-Encoding: gzip\r\n\r\n{}",
    OK + b"X: " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X: x\r\n" * 150 + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching\r\n\r\n" + WHOLE,
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE,
    b"SSH-2.0-canary\r\n",
    b"\r\n" + WHOLE,
    CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
]


def test_malformed_response_is_no_response() -> None:
    """Whether the connection ends after it, which ends some of these for http.client, or stays open."""
    limits = LIMITS._replace(response_bytes=100_000, exchange_s=0.3)
    for data in MALFORMED:
        for then_close in (False, True):
            with playing(data, limits, then_close=then_close) as (_vault, peer):
                failure = peer.failure()
                assert "canary" not in failure.reason
                assert (failure.sent, failure.retryable) == (True, True), data[:200]


CUT_SHORT = [
    b"",
    b"HTTP/1.1 2",
    OK,
    OK + b"Content-Le",
    OK + b"\r\n",
    OK + b"Content-Length: 20\r\n\r\n",
    OK + b"Content-Length: 20\r\n\r\n{}",
    CHUNKED + b"9\r\n{}",
    CHUNKED + b"2\r\n{}",
    CHUNKED + b"2\r\n{}\r\n",
    CHUNKED + b"2\r\n{}\r\n1",
]


def test_response_that_is_cut_short_is_no_response() -> None:
    for data in CUT_SHORT:
        with playing(data, then_close=True) as (vault, peer):
            failure = peer.failure()
            assert (failure.sent, failure.retryable, len(vault.seen)) == (True, True, 1), data


# time


def test_deadline_covers_the_exchange_however_slowly_bytes_arrive() -> None:
    limits = LIMITS._replace(exchange_s=0.3)
    for data in (WHOLE, CHUNKED + b"1\r\nx\r\n" * 100, OK + b"\r\n" + b"x" * 900):
        with FaultyVault(faulty_vault.trickle(data, 0.05)) as vault, Peer(vault.url, limits=limits) as peer:
            failure = peer.failure()
            assert (failure.reason, failure.sent) == ("it did not answer in time", True)


def test_vault_that_does_not_read_is_given_up(authority: Authority) -> None:
    limits = LIMITS._replace(exchange_s=0.3)
    for tls, trust in [(None, None), (authority.server("localhost"), trusting(authority))]:
        with FaultyVault(faulty_vault.then_silence(), tls=tls, host="localhost") as vault:
            vault.body_too = False

            def stop(wire: Wire, _request: ReceivedRequest) -> bool:
                wire.stopped.wait(TIMEOUT_S)
                return False

            vault.acts[:] = [stop]
            with Peer(vault.url, trust, limits=limits) as peer:
                failure = peer.failure(method="POST", body=b"x" * 64 * 1024 * 1024)
                assert (failure.reason, failure.sent) == ("it did not answer in time", True)


def test_vault_that_does_not_accept_is_given_up() -> None:
    limits = LIMITS._replace(connect_s=0.2)
    with faulty_vault.silent_port() as port, Peer(f"http://127.0.0.1:{port}", limits=limits) as peer:
        failure = peer.failure()
        assert (failure.reason, failure.sent, failure.retryable) == ("it did not answer in time", False, True)


# addresses


def test_http_goes_to_no_other_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: pytest.fail("connected"))
    for address in ("192.0.2.2", "2001:db8::1", "::", "0.0.0.0", "::ffff:127.0.0.1"):  # noqa: S104 (to be refused)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 1))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found: found)
        with Peer("http://localhost:1") as peer, pytest.raises(NotLoopback):
            peer.send()


@contextlib.contextmanager
def resolving(*targets: tuple[str, int]) -> Iterator[list[Any]]:
    """Makes every name resolve to these addresses. A test may change the list."""
    families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host, _ in targets]
    found = [(family, socket.SOCK_STREAM, 0, "", target) for family, target in zip(families, targets)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_: list(found))
        yield found


def test_each_loopback_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: int, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return real(family, *rest, **named)

    with faulty_vault.refused_port() as closed, playing(WHOLE) as (vault, peer):
        targets = [("::1", vault.port), ("127.0.0.1", closed), ("127.0.0.1", vault.port), ("192.0.2.2", vault.port)]
        with resolving(*targets) as found, monkeypatch.context() as patch:
            patch.setattr(socket, "socket", without_ipv6)
            assert peer.send().body == b"{}"
            peer.connections.close()
            del found[2]
            assert peer.failure().reason == "Connection refused"


def test_address_that_does_not_answer_delays_the_next_one_only() -> None:
    limits = LIMITS._replace(connect_s=NEVER_S, next_address_s=0.0)
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(faulty_vault.silent_port())
        vault, peer = stack.enter_context(playing(WHOLE, limits))
        stack.enter_context(resolving(("127.0.0.1", dead), ("127.0.0.1", dead), ("127.0.0.1", vault.port)))
        assert peer.send().body == b"{}"


def test_next_address_waits_for_its_turn_or_for_a_failure() -> None:
    limits = LIMITS._replace(connect_s=0.3, next_address_s=NEVER_S)
    with faulty_vault.silent_port() as dead, faulty_vault.refused_port() as closed, playing(WHOLE, limits) as played:
        vault, peer = played
        with resolving(("127.0.0.1", dead), ("127.0.0.1", vault.port)):
            assert peer.failure().reason == "it did not answer in time"
            assert vault.connections == 0
        with resolving(("127.0.0.1", closed), ("127.0.0.1", closed), ("127.0.0.1", vault.port)):
            assert peer.send().body == b"{}"


def test_address_that_worked_is_tried_first() -> None:
    limits = LIMITS._replace(next_address_s=0.0)
    with faulty_vault.silent_port() as dead, playing(WHOLE, limits) as (vault, peer):
        with resolving(("127.0.0.1", dead), ("127.0.0.1", vault.port)):
            peer.send()
            peer.connections.close()
            peer.connections.limits = LIMITS._replace(connect_s=0.3, next_address_s=NEVER_S)
            assert peer.send().body == b"{}"
        assert vault.connections == 2


def test_families_take_turns() -> None:
    def addresses(*hosts: str) -> list[Address]:
        return [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, 1, 6, "", (host, 1)) for host in hosts]

    for found, worked, ordered in [
        ([], None, []),
        (["2.0.0.1", "2.0.0.2"], None, ["2.0.0.1", "2.0.0.2"]),
        (["::1", "::2", "::3", "2.0.0.1", "2.0.0.2"], None, ["::1", "2.0.0.1", "::2", "2.0.0.2", "::3"]),
        (["::1", "::2", "2.0.0.1", "2.0.0.2"], "2.0.0.2", ["2.0.0.2", "::1", "2.0.0.1", "::2"]),
        (["::1", "2.0.0.1"], "2.0.0.9", ["::1", "2.0.0.1"]),
        ([f"2.0.0.{number}" for number in range(99)], None, [f"2.0.0.{number}" for number in range(16)]),
    ]:
        assert in_order(addresses(*found), (worked, 1) if worked else None) == addresses(*ordered), found


def test_no_attempt_leaves_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    begin = sikkerkey_http._begin

    def note(attempts: Any, address: Address) -> None:
        begin(attempts, address)
        made.extend(key.fileobj for key in attempts.get_map().values())

    monkeypatch.setattr(sikkerkey_http, "_begin", note)
    for last, limits in [(b"", LIMITS._replace(connect_s=0.2, next_address_s=0.0)), (WHOLE, LIMITS)]:
        with faulty_vault.silent_port() as dead, playing(WHOLE, limits._replace(next_address_s=0.0)) as (vault, peer):
            targets = [("127.0.0.1", dead), ("127.0.0.1", vault.port if last else dead)]
            with resolving(*targets), contextlib.suppress(Unreachable):
                peer.send()
            peer.connections.close()
            assert len(set(made)) >= 2
            assert all(one.fileno() == -1 for one in made)


def test_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [][: hang.wait(TIMEOUT_S)])
    with Peer("http://localhost:1", limits=LIMITS._replace(connect_s=0.0)) as peer:
        assert (peer.failure().reason, peer.failure().sent) == ("its name cannot be resolved", False)
    with Peer("http://localhost:1", limits=PATIENT) as peer:
        assert aborted(peer).sent is False
    hang.set()


def test_what_cannot_be_connected_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_vault.refused_port() as port, Peer(f"http://127.0.0.1:{port}") as peer:
        failure = peer.failure()
        assert (failure.reason, failure.sent, failure.retryable) == ("Connection refused", False, True)

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "canary")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Peer("http://localhost:1") as peer:
        failure = peer.failure()
        assert (failure.reason, failure.sent) == ("its name cannot be resolved", False)


def test_name_that_dns_does_not_allow_is_reported_as_such(authority: Authority) -> None:
    for name in ("a..b", "a" * 70):
        with Peer(f"https://{name}:1", trusting(authority)) as peer:
            failure = peer.failure()
            assert (failure.reason, failure.sent) == ("its name cannot be resolved", False)


# TLS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority of this run."""
    return Authority(tmp_path_factory.mktemp("authority"))


def trusting(authority: Authority) -> ssl.SSLContext:
    """A context as the server makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=authority.bundle)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


def test_tls_connection_is_kept(authority: Authority) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        tls = authority.server("localhost")
        tls.minimum_version = tls.maximum_version = version
        with FaultyVault(tls=tls, host="localhost") as vault, Peer(vault.url, trusting(authority)) as peer:
            assert [peer.send().body for _ in range(3)] == [b"{}"] * 3
            assert vault.connections == 1


def test_tls_connection_with_decrypted_bytes_is_not_reused(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = authority.server("localhost")
    with FaultyVault(tls=tls, host="localhost") as vault, Peer(vault.url, trusting(authority)) as peer:
        peer.send()
        monkeypatch.setattr(ssl.SSLSocket, "pending", lambda _self: 1)
        peer.send()
        assert vault.connections == 2


def test_untrusted_vault_gets_no_request(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    cases = [
        (authority.server("other.test"), "Hostname mismatch"),
        (other.server("localhost"), "unable to get local issuer"),
    ]
    for tls, words in cases:
        with FaultyVault(tls=tls, host="localhost") as vault, Peer(vault.url, trusting(authority)) as peer:
            failure = peer.failure(method="POST", body=b"{}")
            assert failure.reason.startswith(f"its certificate is not trusted: {words}")
            assert (failure.sent, failure.retryable, vault.seen) == (False, False, [])
            refused = x509.load_der_x509_certificate(failure.certificate)
            assert refused.issuer.rfc4514_string() == (
                "CN=another authority" if tls is cases[1][0] else "CN=test authority"
            )


def test_response_that_tls_does_not_end_may_be_cut_off(authority: Authority) -> None:
    data, tls = OK + b"\r\n{}", authority.server("localhost")
    acts = [faulty_vault.then_close(data), faulty_vault.then_close_tls(data)]
    with FaultyVault(*acts, tls=tls, host="localhost") as vault, Peer(vault.url, trusting(authority)) as peer:
        failure = peer.failure()
        assert (failure.reason, failure.sent) == ("the connection broke", True)
        assert peer.send().body == b"{}"


def test_vault_without_tls_is_not_spoken_to(authority: Authority) -> None:
    with FaultyVault() as vault:
        vault.greet = lambda wire: wire.send(message(b"canary", 400))
        with Peer(vault.url.replace("http:", "https:"), trusting(authority)) as peer:
            failure = peer.failure()
            assert failure.reason.startswith("TLS failed: ")
            assert (failure.sent, failure.retryable) == (False, True)
    with Peer("https://127.0.0.1:1", None) as peer:
        assert peer.failure().sent is False


# proxies


@contextlib.contextmanager
def behind_a_proxy(
    authority: Authority, credentials: str = "", instead: faulty_vault.Greet | None = None, limits: Limits = LIMITS
) -> Iterator[tuple[FaultyVault, ConnectProxy, Peer]]:
    """A vault that only the proxy can reach, since its name does not resolve."""
    tls = authority.server("vault.test")
    with FaultyVault(tls=tls, host="vault.test") as vault, ConnectProxy(vault.port, instead) as proxy:
        proxies = {"https": f"http://{credentials}127.0.0.1:{proxy.port}"}
        with Peer(vault.url, trusting(authority), proxies, limits) as peer:
            yield vault, proxy, peer


def test_proxy_is_asked_exactly_so(authority: Authority) -> None:
    with behind_a_proxy(authority) as (vault, proxy, peer):
        assert [peer.send().body for _ in range(3)] == [b"{}"] * 3
        target = f"vault.test:{vault.port}"
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT {target} HTTP/1.")
        assert f"\r\nHost: {target}" in head
        assert vault.seen[0].headers["host"] == target


def test_proxy_is_asked_for_an_ipv6_address_in_brackets(authority: Authority) -> None:
    with FaultyVault(tls=authority.server("::1"), host="[::1]") as vault, ConnectProxy(vault.port) as proxy:
        proxies = {"https": f"http://127.0.0.1:{proxy.port}"}
        with Peer(vault.url, trusting(authority), proxies) as peer:
            assert peer.send().body == b"{}"
        target = f"[::1]:{vault.port}"
        assert proxy.heads[0].startswith(f"CONNECT {target} HTTP/1.")
        assert f"\r\nHost: {target}" in proxy.heads[0]
        assert vault.seen[0].headers["host"] == target


def test_credentials_reach_the_proxy_only(authority: Authority) -> None:
    with behind_a_proxy(authority, "us%40er:p%3Ass@") as (vault, proxy, peer):
        peer.send()
        assert proxy.heads[0].endswith("\r\nProxy-Authorization: Basic dXNAZXI6cDpzcw==")
        assert not any(name.startswith("proxy") for name in vault.seen[0].headers)


def test_refusal_of_a_proxy(authority: Authority) -> None:
    for status in (302, 403, 407, 502, 503):
        with behind_a_proxy(authority, "u:canary@", faulty_vault.refusal(status)) as (vault, _proxy, peer):
            failure = peer.failure()
            assert failure.reason == f"the proxy answered {status}"
            assert (failure.sent, failure.retryable) == (False, not 400 <= status < 500), status
            assert vault.connections == 0


BAD_ANSWERS = [
    b"",
    b"SSH-2.0-canary\r\n",
    b"HTTP/1.1 200 canary\r\nX",
    b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 planted\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: canary\r\n" * 1_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
]


def test_proxy_that_answers_badly_is_not_used(authority: Authority) -> None:
    for data in BAD_ANSWERS:

        def send(wire: Wire, data: bytes = data) -> None:
            wire.send(data)

        with behind_a_proxy(authority, "u:canary@", send) as (vault, _proxy, peer):
            failure = peer.failure()
            assert (failure.sent, failure.retryable, vault.connections) == (False, True, 0), data[:40]
            assert "canary" not in failure.reason


def test_proxy_that_is_silent_is_given_up(authority: Authority) -> None:
    limits = LIMITS._replace(connect_s=0.3)
    slow = faulty_vault.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000, 0.05)
    for instead in (Wire.wait_for_the_client_to_leave, lambda wire: slow(wire, ReceivedRequest("", "", {}, b""))):
        with behind_a_proxy(authority, "", instead, limits) as (_vault, proxy, peer):
            failure = peer.failure()
            reason = f"the proxy at 127.0.0.1:{proxy.port}: it did not answer in time"
            assert (failure.reason, failure.sent) == (reason, False)


def test_hosts_in_no_proxy_are_reached_directly(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org,localhost")
    with FaultyVault(tls=authority.server("localhost"), host="localhost") as vault, ConnectProxy(1) as proxy:
        proxies = {"https": f"http://127.0.0.1:{proxy.port}"}
        with Peer(vault.url, trusting(authority), proxies) as peer:
            assert peer.send().body == b"{}"
            assert proxy.connections == 0


# abort


def aborted(peer: Peer, reached: threading.Event | None = None) -> Unreachable:
    """How an exchange fails that another thread aborts, at once or after `reached`."""
    callbacks: list[Callable[[], None] | None] = []
    registered, failures = threading.Event(), []

    def on_abort(callback: Callable[[], None] | None) -> None:
        callbacks.append(callback)
        registered.set()

    def work() -> None:
        failures.append(peer.failure())

    peer.on_abort = on_abort
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert registered.wait(TIMEOUT_S)
    assert reached is None or reached.wait(TIMEOUT_S)
    abort = callbacks[0]
    assert abort is not None
    for _ in range(int(TIMEOUT_S / 0.05)):  # a connect that had not begun does not notice the first one
        abort()
        thread.join(0.05)
        if not thread.is_alive():
            break
    assert callbacks == [abort, None]
    return failures[0]


def test_abort_before_connecting_connects_nowhere() -> None:
    with playing(WHOLE) as (vault, peer):
        peer.on_abort = lambda abort: abort() if abort else None
        assert peer.failure().sent is False
        assert vault.connections == 0


def test_abort_ends_connecting() -> None:
    with faulty_vault.silent_port() as port, Peer(f"http://127.0.0.1:{port}", limits=PATIENT) as peer:
        assert aborted(peer).sent is False


def hold(reached: threading.Event, receive: int) -> faulty_vault.Greet:
    """Keeps silent once something has arrived."""

    def greet(wire: Wire) -> None:
        if receive:
            wire.plain.recv(receive)
        reached.set()
        wire.wait_for_the_client_to_leave()

    return greet


def test_abort_ends_a_tls_handshake(authority: Authority) -> None:
    reached = threading.Event()
    with FaultyVault(host="localhost") as vault:
        vault.greet = hold(reached, 1)
        url = vault.url.replace("http:", "https:")
        with Peer(url, trusting(authority), limits=PATIENT) as peer:
            assert aborted(peer, reached).sent is False


def test_abort_that_comes_while_tls_takes_over_the_socket_is_not_lost(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks: list[Callable[[], None] | None] = []
    tls = trusting(authority)
    wrap = tls.wrap_socket

    def wrap_and_abort(*arguments: Any, **named: Any) -> ssl.SSLSocket:
        wrapped = wrap(*arguments, **named)
        assert callbacks[0]
        callbacks[0]()
        return wrapped

    monkeypatch.setattr(tls, "wrap_socket", wrap_and_abort)
    with FaultyVault(host="localhost") as vault:
        vault.greet = Wire.wait_for_the_client_to_leave
        with Peer(vault.url.replace("http:", "https:"), tls, limits=PATIENT) as peer:
            peer.on_abort = callbacks.append
            assert peer.failure().sent is False


def test_abort_ends_the_wait_for_a_proxy(authority: Authority) -> None:
    reached = threading.Event()
    with behind_a_proxy(authority, "", hold(reached, 0), PATIENT) as (_vault, _proxy, peer):
        assert aborted(peer, reached).sent is False


def test_abort_ends_the_wait_for_a_response(authority: Authority) -> None:
    for tls, trust in [(None, None), (authority.server("localhost"), trusting(authority))]:
        for data in (
            b"",
            OK + b"Content-Length: 9\r\n\r\n{}",
            CHUNKED + b"2\r\n{}\r\n",
            OK + b"Connection: close\r\nContent-Length: 9\r\n\r\n{}",
            OK + b"\r\n{}",
        ):
            reached = threading.Event()

            def act(
                wire: Wire, _request: ReceivedRequest, data: bytes = data, event: threading.Event = reached
            ) -> bool:
                wire.send(data)
                event.set()
                wire.wait_for_the_client_to_leave()
                return False

            acts = [faulty_vault.answer(), act, faulty_vault.answer()]
            vault = FaultyVault(*acts, tls=tls, host="localhost")
            with vault, Peer(vault.url, trust, limits=PATIENT) as peer:
                peer.send()
                assert aborted(peer, reached).sent is True
                assert (peer.send().body, vault.connections) == (b"{}", 2)


def test_connection_that_is_aborted_once_the_response_has_arrived_is_not_reused() -> None:
    with playing(WHOLE) as (vault, peer):
        callbacks: list[Callable[[], None]] = []

        def on_abort(callback: Callable[[], None] | None) -> None:
            if callback:
                callbacks.append(callback)
            else:
                callbacks[-1]()

        peer.on_abort = on_abort
        assert [peer.send().body for _ in range(2)] == [b"{}", b"{}"]
        assert vault.connections == 2


def test_names_are_resolved_without_a_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python loads the codec idna at its first use, which fails while another thread imports from a zip file."""
    asked: list[object] = []

    def resolve(host: object, *_: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host in ("localhost", "127.0.0.1", "::1", "bücher.example"):
        sikkerkey_http.resolve(host, 1, TIMEOUT_S)
    assert asked == [b"localhost", b"127.0.0.1", b"::1", "bücher.example"]
