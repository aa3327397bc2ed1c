"""Requests to the vault: retries, refused answers, reported errors, TLS and proxies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import ssl
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import sikkerkey_http
import sikkerkey_mcp
import sikkerkey_refusals
import sikkerkey_tls
from tests.support import faulty_vault
from tests.support.faulty_vault import Authority, ConnectProxy, FaultyVault, assert_signed, assert_signed_afresh
from tests.support.harness import AGENT_ID, TIMEOUT_S, CannedResponse, ReceivedRequest, Recorder, make_slot
from tests.support.rows import each_of

READ = sikkerkey_mcp.Request("GET", "/v1/ai/whoami", None)
WRITE = sikkerkey_mcp.Request("POST", "/v1/ai/projects", '{"name":"søger"}'.encode())
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
MAY_HAVE_BEEN = "the request may have been processed: look (list, get) before repeating it"


class Clock:
    """Replaces the module `time`; a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_767_225_600.0

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now_s

    monotonic = time


class SkippedPauses(sikkerkey_mcp.Cancellation):
    """Records the length of each pause and moves the clock instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.pauses_s: list[float] = []
        self.meanwhile: Callable[[], Any] = lambda: None
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        """Returns immediately."""
        self.pauses_s.append(seconds)
        self._clock.now_s += seconds
        self.meanwhile()
        return self.is_set()


class Caller(sikkerkey_mcp.Context):
    """A context that does not wait; `logs` holds the log messages."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.cancellation = self.pauses = SkippedPauses(clock)
        self.logs: list[str] = []

    def log(self, level: str, message: str) -> None:
        """Records the message."""
        self.logs.append(f"{level}: {message}")


class Client:
    """An agent of the vault at one URL."""

    def __init__(self, api: sikkerkey_mcp.Api, public_key: Ed25519PublicKey, clock: Clock) -> None:
        self.api, self.public_key = api, public_key
        self.caller = Caller(clock)
        self.tools = sikkerkey_mcp.VaultTools(lambda: api)

    def read(self) -> sikkerkey_mcp.Answer:
        """A request that may be repeated."""
        return self.api.send(READ, safe=True, context=self.caller)

    def write(self) -> sikkerkey_mcp.Answer:
        """A request that must not be processed twice."""
        return self.api.send(WRITE, safe=False, context=self.caller)

    def refused(self, send: Callable[[], sikkerkey_mcp.Answer]) -> sikkerkey_mcp.ServiceError:
        """The error that `send` ends with."""
        with pytest.raises(sikkerkey_mcp.ServiceError) as raised:
            send()
        return raised.value

    def error_text(self, tool: str, **arguments: Any) -> str:
        """What a model reads when a call fails."""
        result = self.tools.call(tool, arguments, self.caller)
        assert result["isError"] is True
        text: str = result["content"][0]["text"]
        return text

    @property
    def pauses_s(self) -> list[float]:
        """The pauses between attempts so far."""
        return self.caller.pauses.pauses_s


Connect = Callable[[str], Client]


@pytest.fixture
def clock() -> Clock:
    """A clock that a test can put in place of the real one."""
    return Clock()


@pytest.fixture
def stopped_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No time passes but that of pauses between attempts."""
    for module in (sikkerkey_mcp, sikkerkey_http, sikkerkey_refusals):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def connect(home: Path, clock: Clock) -> Iterator[Connect]:
    """Makes clients, and closes their connections at the end."""
    made: list[Client] = []

    def to(url: str) -> Client:
        key = make_slot(home, url)
        made.append(Client(sikkerkey_mcp.connect(), key.public_key(), clock))
        return made[-1]

    yield to
    for client in made:
        client.api.close()


# requests


def test_request_carries_exactly_its_headers(connect: Connect, recorder: Recorder) -> None:
    client = connect(recorder.url)
    client.read()
    client.write()
    read, write = recorder.seen
    common = {"host", "accept-encoding", "user-agent", "accept", "x-agent-id", "x-machine-id"}
    common |= {"x-timestamp", "x-nonce", "x-signature"}
    assert set(read.headers) == common
    assert set(write.headers) == common | {"content-type", "content-length"}
    for seen in recorder.seen:
        assert seen.headers["user-agent"] == f"sikkerkey-mcp/{sikkerkey_mcp.VERSION}"
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["x-agent-id"] == seen.headers["x-machine-id"] == AGENT_ID
        assert re.fullmatch("[0-9a-f]{32}", seen.headers["x-nonce"])
    assert (write.headers["content-type"], write.body) == ("application/json", WRITE.body)
    assert [seen.path for seen in recorder.seen] == [READ.path, WRITE.path]
    assert_signed_afresh(recorder.seen, client.public_key)


def test_post_without_a_body_has_no_content_type(connect: Connect, recorder: Recorder) -> None:
    client = connect(recorder.url)
    client.api.send(sikkerkey_mcp.Request("POST", "/v1/ai/trash/x/restore", None), safe=False, context=client.caller)
    headers = recorder.seen[0].headers
    assert "content-type" not in headers
    assert headers["content-length"] == "0"
    assert_signed(recorder.seen[0], client.public_key)


def test_timestamp_is_the_time_of_the_attempt(connect: Connect, stopped_clock: Clock) -> None:
    acts = [faulty_vault.answer(status=429), faulty_vault.answer(b"{}", 429, "Retry-After: 7"), faulty_vault.answer()]
    with FaultyVault(*acts) as vault:
        client = connect(vault.url)
        client.read()
        stamps = [int(seen.headers["x-timestamp"]) for seen in vault.seen]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 0, 7]
    assert_signed_afresh(vault.seen, client.public_key)


# connections


def test_hundred_calls_use_one_connection(connect: Connect, recorder: Recorder) -> None:
    client = connect(recorder.url)
    for _ in range(50):
        client.read()
        client.write()
    assert (len(recorder.seen), recorder.connections) == (100, 1)
    assert_signed_afresh(recorder.seen, client.public_key)


@pytest.mark.parametrize(
    "last_words",
    [
        pytest.param(faulty_vault.message(b"{}", 200, "Connection: close"), id="Connection: close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n{}", id="HTTP/1.0 without a length"),
        pytest.param(HEAD + b"\r\n{}", id="HTTP/1.1 without a length"),
    ],
)
def test_connection_that_the_vault_ends_is_not_used_again(connect: Connect, last_words: bytes) -> None:
    with FaultyVault(faulty_vault.then_close(last_words), faulty_vault.answer()) as vault:
        client = connect(vault.url)
        assert [client.write().body, client.write().body] == [b"{}", b"{}"]
        assert (len(vault.seen), vault.connections) == (2, 2)


def test_connection_announced_to_close_is_left_even_if_it_stays_open(connect: Connect) -> None:
    with FaultyVault(faulty_vault.answer(b"{}", 200, "Connection: close")) as vault:
        client = connect(vault.url)
        client.write()
        client.write()
        assert vault.connections == 2


@pytest.mark.parametrize("end", [faulty_vault.then_close, faulty_vault.then_reset])
@pytest.mark.peer(12)
def test_write_survives_a_connection_that_died_between_requests(
    connect: Connect, end: Callable[[bytes], faulty_vault.Act]
) -> None:
    with FaultyVault(end(faulty_vault.message()), faulty_vault.answer(b'{"id":"p"}')) as vault:
        client = connect(vault.url)
        client.read()
        wait_until_closed(vault, client)
        assert client.write().body == b'{"id":"p"}'
        assert (len(vault.seen), vault.connections) == (2, 2)
        assert_signed_afresh(vault.seen, client.public_key)


def wait_until_closed(vault: FaultyVault, client: Client) -> None:
    """Waits until the client's idle connection has received the end of the stream."""
    (connection,) = vars(vars(client.api)["_connections"])["_idle"]
    socket_: socket.socket = connection.sock
    socket_.settimeout(TIMEOUT_S)
    with contextlib.suppress(OSError):
        socket_.recv(1, socket.MSG_PEEK)


def test_idle_connection_is_dropped_before_the_vault_would(connect: Connect, stopped_clock: Clock) -> None:
    with FaultyVault() as vault:
        client = connect(vault.url)
        client.write()
        stopped_clock.now_s += sikkerkey_mcp.IDLE_MAX_S - 1
        client.write()
        stopped_clock.now_s += sikkerkey_mcp.IDLE_MAX_S + 1
        client.write()
        assert vault.connections == 2


def test_unsolicited_bytes_are_never_taken_for_an_answer(connect: Connect) -> None:
    def answer_twice(wire: faulty_vault.Wire, _request: ReceivedRequest) -> bool:
        wire.send(faulty_vault.message(b'{"n":1}') + faulty_vault.message(b'{"planted":true}'))  # both arrive together
        return True

    with FaultyVault(answer_twice, faulty_vault.answer(b'{"n":2}')) as vault:
        client = connect(vault.url)
        assert client.read().body == b'{"n":1}'
        assert client.read().body == b'{"n":2}'


# unusual but complete answers


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + faulty_vault.message(b'{"a":1}'), id="100"),
        pytest.param(HEAD + b'Transfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n0\r\n\r\n', id="one chunk"),
        pytest.param(
            HEAD + b'Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\nT: t\r\n\r\n', id="chunks"
        ),
        pytest.param(HEAD + b'Content-Encoding: identity\r\nContent-Length: 7\r\n\r\n{"a":1}', id="identity"),
        pytest.param(b'HTTP/1.1 200\r\ncontent-length: 7\r\n\r\n{"a":1}', id="no reason phrase"),
    ],
)
def test_unusual_but_complete_answer_keeps_the_connection(connect: Connect, said: bytes) -> None:
    with FaultyVault(faulty_vault.then_go_on(said)) as vault:
        client = connect(vault.url)
        replies = [client.write() for _ in range(2)]
        assert [(reply.status, reply.body) for reply in replies] == [(200, b'{"a":1}')] * 2
        assert (len(vault.seen), vault.connections) == (2, 1)


def test_interim_answer_that_arrives_alone_does_not_shift_the_answers(connect: Connect) -> None:
    def continue_then_wait_then_answer(wire: faulty_vault.Wire, request: ReceivedRequest) -> bool:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.stopped.wait(0.03)
        wire.send(faulty_vault.message(request.path.encode()))
        return True

    with FaultyVault(continue_then_wait_then_answer) as vault:
        client = connect(vault.url)
        assert [client.read().body, client.write().body] == [READ.path.encode(), WRITE.path.encode()]


def test_answer_of_16_mib_is_read_whole(connect: Connect, recorder: Recorder) -> None:
    recorder.answer = lambda _seen: CannedResponse(body=b"x" * sikkerkey_mcp.ANSWER_MAX_BYTES)
    assert len(connect(recorder.url).read().body) == sikkerkey_mcp.ANSWER_MAX_BYTES


# broken exchanges

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def test_answer_that_was_complete_before_a_reset_counts(connect: Connect) -> None:
    with FaultyVault(faulty_vault.then_reset(faulty_vault.message(b'{"done":1}')), faulty_vault.answer()) as vault:
        client = connect(vault.url)
        assert client.write().body == b'{"done":1}'
        wait_until_closed(vault, client)
        assert client.write().body == b"{}"
        assert len(vault.seen) == 2


def test_write_arrives_once_the_vault_is_back(connect: Connect) -> None:
    vault = FaultyVault(faulty_vault.answer(b'{"back":1}'))
    client = connect(vault.url)
    with contextlib.ExitStack() as stack:
        client.caller.pauses.meanwhile = lambda: stack.enter_context(vault)
        assert client.write().body == b'{"back":1}'
    assert (len(vault.seen), client.pauses_s) == (1, [0.25])


def test_read_that_travels_as_post_is_repeated(connect: Connect) -> None:
    with FaultyVault(faulty_vault.then_close(), faulty_vault.answer(b'{"entries":[]}')) as vault:
        client = connect(vault.url)
        result = client.tools.call("read_audit", {"action": "query"}, client.caller)
        assert result["structuredContent"] == {"entries": [], "total": 0}
        assert [seen.method for seen in vault.seen] == ["POST", "POST"]
        assert_signed_afresh(vault.seen, client.public_key)


# slow answers


def test_vault_that_does_not_read_times_out(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyVault() as vault:
        client = connect(vault.url)
        client.write()
        connections = client.api._connections
        connections.limits = connections.limits._replace(exchange_s=0.15)
        monkeypatch.setattr(sikkerkey_mcp, "RETRIES_MAX", 0)
        vault.acts[:] = [faulty_vault.then_silence()]
        endless = sikkerkey_mcp.Request("POST", "/v1/ai/projects", b"x" * 64 * 1024 * 1024)
        vault.wires[0].plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        error = client.refused(lambda: client.api.send(endless, safe=False, context=client.caller))
        assert error.hint == MAY_HAVE_BEEN


def test_cancellation_ends_a_request_under_way(connect: Connect) -> None:
    def cancel(_wire: faulty_vault.Wire, _request: ReceivedRequest) -> bool:
        client.caller.cancellation.set()
        return faulty_vault.then_silence()(_wire, _request)

    with FaultyVault(cancel) as vault:
        client = connect(vault.url)
        client.refused(client.read)
        assert len(vault.seen) == 1


def test_cancelled_call_sends_nothing(connect: Connect, recorder: Recorder) -> None:
    client = connect(recorder.url)
    client.caller.cancellation.set()
    assert "cancelled" in str(client.refused(client.write))
    assert recorder.seen == []


# answers that are refused


@each_of("status", [300, 301, 302, 303, 304, 307, 308])
@each_of("tool", ["whoami", "manage_projects"])
@pytest.mark.peer(3)
def test_redirect_is_never_followed(connect: Connect, recorder: Recorder, status: int, tool: str) -> None:
    redirect = faulty_vault.answer(b"", status, f"Location: {recorder.url}/v1/ai/elsewhere")
    with FaultyVault(redirect) as vault:
        arguments = {"action": "create", "name": "x"} if tool == "manage_projects" else {}
        text = connect(vault.url).error_text(tool, **arguments)
        assert text.startswith(f"the vault answered {status}, a redirect, which is never followed\n")
        assert len(vault.seen) == 1
    assert recorder.seen == []
    assert recorder.connections == 0


@each_of("encoding", ["gzip", "deflate", "br", "GZIP", "zstd, identity"])
@each_of("status", [200, 500])
@pytest.mark.peer(13)
def test_compressed_answer_is_refused_unread(connect: Connect, encoding: str, status: int) -> None:
    bomb = faulty_vault.answer(b"\x1f\x8b" + b"\x00" * 40_000, status, f"Content-Encoding: {encoding}")
    with FaultyVault(bomb, faulty_vault.answer()) as vault:
        client = connect(vault.url)
        error = client.refused(client.read)
        assert str(error) == "the vault's answer is compressed, which was not requested"
        assert client.read().body == b"{}"
        assert vault.connections == 2


FIFTY_MB = 50 * 1024 * 1024
PIECE = b'{"a":1},' * 8192


def test_chunk_of_a_negative_size_is_refused_before_its_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of http.client read to the end of the stream for a size of -1, others call it malformed."""
    monkeypatch.setattr(sikkerkey_mcp, "RETRIES_MAX", 0)
    with FaultyVault(faulty_vault.flood(CHUNKED + b"-1\r\n", PIECE, FIFTY_MB // len(PIECE))) as vault:
        client = connect(vault.url)
        client.refused(client.read)
        assert len(vault.seen) == 1
        assert vault.sent < FIFTY_MB


@pytest.mark.parametrize("head", [CHUNKED, CHUNKED + b"0\r\n"], ids=["chunks of one byte", "endless trailers"])
def test_framing_counts_as_well(connect: Connect, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(sikkerkey_mcp, "ANSWER_MAX_BYTES", 65_536)
    with FaultyVault(faulty_vault.flood(head, b"1\r\nx\r\n" * 1_000, 1_000)) as vault:
        client = connect(vault.url)
        assert str(client.refused(client.read)) == "the vault's answer is larger than 65,536 bytes"
        assert len(vault.seen) == 1


# statuses that are retried


@each_of("status", [429, 502, 503, 504])
def test_read_is_repeated_after_a_temporary_failure(connect: Connect, stopped_clock: Clock, status: int) -> None:
    busy = faulty_vault.answer(b'{"error":"busy"}', status)
    with FaultyVault(busy, busy, busy, faulty_vault.answer(b'{"ok":1}')) as vault:
        client = connect(vault.url)
        assert client.read().body == b'{"ok":1}'
        assert_signed_afresh(vault.seen, client.public_key)
        assert (client.pauses_s, vault.connections) == ([0.25, 0.5, 1.0], 1)
        assert client.caller.logs[0] == f"warning: the vault answered {status}; trying again in 0.2 s"


def test_write_is_repeated_when_there_were_too_many_requests(connect: Connect, stopped_clock: Clock) -> None:
    with FaultyVault(faulty_vault.answer(b"", 429, "Retry-After: 3"), faulty_vault.answer(b'{"id":"p"}')) as vault:
        client = connect(vault.url)
        assert client.write().body == b'{"id":"p"}'
        assert client.pauses_s == [3.0]
        assert_signed_afresh(vault.seen, client.public_key)


def test_last_answer_is_returned_when_retries_are_used_up(connect: Connect, stopped_clock: Clock) -> None:
    with FaultyVault(faulty_vault.answer(b"", 503)) as vault:
        assert connect(vault.url).read().status == 503
        assert len(vault.seen) == 4


@each_of(
    ("value", "pauses_s"),
    [
        ("0", [0.25, 0.5, 1.0]),
        ("2", [2.0, 2.0, 2.0]),
        ("9", [9.0, 9.0]),
        ("20", [20.0]),
        ("21", []),
        ("999999999", []),
        ("9" * 30, [0.25, 0.5, 1.0]),
        ("-5", [0.25, 0.5, 1.0]),
        ("1.5", [0.25, 0.5, 1.0]),
        ("soon", [0.25, 0.5, 1.0]),
        ("Mon, 99 Foo 99999 99:99:99 GMT", [0.25, 0.5, 1.0]),
        (",", [0.25, 0.5, 1.0]),
        ("Thu, 01 Jan 1970 00:00:00 GMT", [0.25, 0.5, 1.0]),
        ("Fri, 31 Dec 2199 23:59:59 GMT", []),
    ],
)
@pytest.mark.peer(12)
def test_retry_after_is_honored_within_20_s(
    connect: Connect, stopped_clock: Clock, value: str, pauses_s: list[float]
) -> None:
    with FaultyVault(faulty_vault.answer(b"", 429, f"Retry-After: {value}")) as vault:
        client = connect(vault.url)
        assert client.read().status == 429
        assert (client.pauses_s, len(vault.seen)) == (pauses_s, len(pauses_s) + 1)


def test_retry_after_may_be_a_date(connect: Connect, stopped_clock: Clock) -> None:
    date = formatdate(stopped_clock.now_s + 5, usegmt=True)
    with FaultyVault(faulty_vault.answer(b"", 503, f"Retry-After: {date}"), faulty_vault.answer()) as vault:
        client = connect(vault.url)
        assert client.read().status == 200
        assert client.pauses_s == [5.0]


# TLS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority of this run."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trust(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The authority, trusted through SIKKERKEY_CA_BUNDLE."""
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", str(authority.bundle))
    return authority


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_vault_whose_authority_is_in_the_bundle_is_trusted(
    connect: Connect, trust: Authority, version: ssl.TLSVersion
) -> None:
    tls = trust.server("localhost", "127.0.0.1")
    tls.minimum_version = tls.maximum_version = version
    for host in ("localhost", "127.0.0.1"):
        with FaultyVault(tls=tls, host=host) as vault:
            client = connect(vault.url)
            assert [client.write().status for _ in range(3)] == [200] * 3
            assert vault.connections == 1
            assert_signed_afresh(vault.seen, client.public_key)


def test_write_survives_a_tls_connection_that_died_between_requests(connect: Connect, trust: Authority) -> None:
    with FaultyVault(
        faulty_vault.then_close(faulty_vault.message()), faulty_vault.answer(), tls=trust.server("127.0.0.1")
    ) as vault:
        client = connect(vault.url)
        client.write()
        wait_until_readable(client)
        assert client.write().status == 200
        assert len(vault.seen) == 2


def wait_until_readable(client: Client) -> None:
    """Waits until the client's idle connection has something to read, which is the end of the stream."""
    import select

    (connection,) = vars(vars(client.api)["_connections"])["_idle"]
    assert select.select([connection.sock], [], [], TIMEOUT_S)[0]


def test_context_checks_certificates_and_names() -> None:
    context = sikkerkey_tls.tls_context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_context_has_ciphers_with_forward_secrecy_only() -> None:
    names = [cipher["name"] for cipher in sikkerkey_tls.tls_context().get_ciphers()]
    assert [name for name in names if not re.match("TLS_|ECDHE-(RSA|ECDSA)-(AES(128|256)-GCM|CHACHA20)-", name)] == []
    assert any(name.startswith("ECDHE-") for name in names)


def test_vault_without_a_modern_cipher_is_refused(connect: Connect, trust: Authority) -> None:
    for cipher, accepted in (("ECDHE-ECDSA-AES128-SHA256", False), ("ECDHE-ECDSA-AES128-GCM-SHA256", True)):
        tls = trust.server("localhost")
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.set_ciphers(cipher)
        with FaultyVault(tls=tls, host="localhost") as vault:
            client = connect(vault.url)
            if accepted:
                assert client.write().status == 200
            else:
                assert "TLS failed" in str(client.refused(client.write))
                assert vault.seen == []


@pytest.fixture
def no_system_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts nobody."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    monkeypatch.setattr(sikkerkey_tls, "SYSTEM_BUNDLES", ())


def trusted_count() -> int:
    """The authorities that the server's context has loaded."""
    return sikkerkey_tls.tls_context().cert_store_stats()["x509_ca"]


@pytest.mark.usefixtures("no_system_store")
def test_bundle_of_certifi_is_loaded_by_default() -> None:
    expected = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    expected.load_verify_locations(cafile=certifi.where())
    assert sikkerkey_tls.tls_context().cert_store_stats() == expected.cert_store_stats()
    assert trusted_count() > 50


@pytest.mark.usefixtures("no_system_store")
def test_bundle_is_trusted_beside_the_others_or_alone(trust: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    together = trusted_count()
    for text, count in [("0", together), ("no", together), ("1", 1), ("Yes", 1)]:
        monkeypatch.setenv("SIKKERKEY_CA_BUNDLE_ONLY", text)
        assert trusted_count() == count, text
    monkeypatch.delenv("SIKKERKEY_CA_BUNDLE_ONLY")
    monkeypatch.delenv("SIKKERKEY_CA_BUNDLE")
    assert trusted_count() == together - 1


def test_bundle_alone_needs_a_bundle(monkeypatch: pytest.MonkeyPatch, trust: Authority) -> None:
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE_ONLY", "canary")
    with pytest.raises(sikkerkey_mcp.ConfigError, match=r"^SIKKERKEY_CA_BUNDLE_ONLY must be one of: "):
        sikkerkey_tls.tls_context()
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE_ONLY", "1")
    monkeypatch.delenv("SIKKERKEY_CA_BUNDLE")
    with pytest.raises(sikkerkey_mcp.ConfigError, match="is set, but SIKKERKEY_CA_BUNDLE is not"):
        sikkerkey_tls.tls_context()


@pytest.mark.usefixtures("no_system_store")
def test_store_of_the_system_is_trusted(
    connect: Connect, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file, in a directory, and in the bundle of a distribution, each found after some that do not exist."""
    hashed, unhashed = tmp_path / "hashed", tmp_path / "unhashed"
    name = x509.load_pem_x509_certificate(authority.bundle.read_bytes()).subject
    for directory, file in [(hashed, f"{hash_of_name(name):08x}.0"), (unhashed, "authority.pem")]:
        directory.mkdir()
        (directory / file).write_bytes(authority.bundle.read_bytes())
    places = [
        ({"SSL_CERT_FILE": str(authority.bundle)}, ()),
        ({"SSL_CERT_DIR": f"/nonexistent{os.pathsep}{unhashed}{os.pathsep}{hashed}"}, ()),
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(unhashed)}, ("/nonexistent", str(authority.bundle))),
    ]
    elsewhere = ssl.get_default_verify_paths()._replace(openssl_cafile="/nonexistent")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: elsewhere)
    with FaultyVault(tls=authority.server("localhost"), host="localhost") as vault:
        assert "certificate is not trusted" in str(connect(vault.url).refused(connect(vault.url).read))
        for variables, bundles in places:
            with monkeypatch.context() as patch:
                for variable, value in variables.items():
                    patch.setenv(variable, value)
                patch.setattr(sikkerkey_tls, "SYSTEM_BUNDLES", bundles)
                assert connect(vault.url).read().status == 200, variables


def hash_of_name(name: x509.Name) -> int:
    """The number after which OpenSSL looks in a directory: X509_NAME_hash of a name with one common name."""
    text = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    assert isinstance(text, str)
    canonical = text.lower().encode()
    value = b"\x06\x03\x55\x04\x03\x0c" + bytes([len(canonical)]) + canonical
    pair = b"\x30" + bytes([len(value)]) + value
    digest = hashlib.sha1(b"\x31" + bytes([len(pair)]) + pair, usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "little")


@pytest.mark.usefixtures("no_system_store")
def test_store_that_cannot_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = trusted_count()
    garbage, pipe = tmp_path / "garbage", tmp_path / "pipe"
    garbage.write_text("no certificate")
    os.mkfifo(pipe)
    for path in (garbage, pipe, tmp_path, Path("/dev/zero")):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert trusted_count() == usual, path


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_unreadable_ca_bundle_is_a_configuration_error(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", str(bundle))
    with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
        connect("https://127.0.0.1:1")
    assert str(refused.value) == "the CA bundle cannot be read as PEM certificates"
    assert refused.value.hint == f"check SIKKERKEY_CA_BUNDLE ({bundle})"


def test_loopback_without_tls_needs_no_bundle(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", "/nonexistent.pem")
    assert connect(recorder.url).read().status == 200


# proxies: the vault is https://vault.test, a name that only the proxy can reach


@pytest.fixture
def distant_vault(trust: Authority) -> Iterator[FaultyVault]:
    """A vault whose name does not resolve here."""
    with FaultyVault(tls=trust.server("vault.test", "localhost"), host="vault.test") as vault:
        yield vault


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "Https_Proxy"])
def test_proxy_from_the_environment_is_used(
    variable: str, connect: Connect, distant_vault: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy(distant_vault.port) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        client = connect(distant_vault.url)
        assert [client.write().status for _ in range(3)] == [200] * 3
        assert proxy.connections == 1
        assert proxy.heads[0].startswith(f"CONNECT vault.test:{distant_vault.port} HTTP/1.")
        assert "proxy-authorization" not in proxy.heads[0].lower()
        assert "x-signature" not in proxy.heads[0].lower()
    assert_signed_afresh(distant_vault.seen, client.public_key)
    assert distant_vault.seen[0].headers["host"] == f"vault.test:{distant_vault.port}"


def test_credentials_of_the_proxy_reach_the_proxy_only(
    connect: Connect, distant_vault: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy(distant_vault.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        client = connect(distant_vault.url)
        client.write()
        assert re.search("(?i:proxy-authorization): Basic dXNlcjpwQHNz", proxy.heads[0])
    assert not any(name.startswith("proxy") for name in distant_vault.seen[0].headers)
    assert_signed(distant_vault.seen[0], client.public_key)


def test_no_proxy_bypasses_the_proxy(
    connect: Connect, distant_vault: FaultyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy(distant_vault.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "example.org,localhost")
        assert connect(f"https://localhost:{distant_vault.port}").write().status == 200
        assert proxy.connections == 0


def test_loopback_without_tls_never_uses_a_proxy(
    connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy(1) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert connect(recorder.url).write().status == 200
        assert proxy.connections == 0


def test_failure_of_the_proxy_names_the_proxy_without_its_password(
    connect: Connect, trust: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sikkerkey_mcp, "RETRIES_MAX", 0)
    with faulty_vault.refused_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:canary@127.0.0.1:{port}")
        client = connect("https://vault.test")
        message = str(client.refused(client.write))
    reason = f"the proxy at 127.0.0.1:{port}: Connection refused"
    assert message == f"the vault at https://vault.test cannot be reached: {reason}"


def test_proxy_with_endless_headers_times_out(
    connect: Connect, trust: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer versions of http.client count them, older ones read until the time limit."""
    monkeypatch.setattr(sikkerkey_mcp, "EXCHANGE_MAX_S", 0.3)
    monkeypatch.setattr(sikkerkey_mcp, "RETRIES_MAX", 0)
    endless = faulty_vault.flood(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 1_000, 1_000_000)
    with FaultyVault(endless) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        client = connect("https://vault.test")
        assert "cannot be reached" in str(client.refused(client.write))


@each_of(
    "proxy",
    [
        *("http:/127.0.0.1:1", "http://127.0.0.1:port", "http://user:canary@", "socks5://h:1", "https://h:1"),
        *(f"{begun}user:canary@h:1" for begun in ("https://", "HTTPS://", "https:/", "socks5://", "://")),
    ],
)
def test_malformed_proxy_is_a_configuration_error(
    connect: Connect, trust: Authority, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
        connect("https://vault.test")
    assert str(refused.value) == "HTTPS_PROXY must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
    assert refused.value.hint == "proxies that expect TLS themselves, and SOCKS proxies, are not supported"
