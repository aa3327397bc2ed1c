"""A vault that misbehaves, on raw loopback sockets: bytes, resets and closes come exactly when a test wants them.

Each request gets the next act of a list; the last act repeats. An act is called with the connection and the request
and may do anything; it returns True to keep the connection for another request.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from tests.support.harness import TIMEOUT_S, ReceivedRequest

Act = Callable[["Wire", ReceivedRequest], bool]
Greet = Callable[["Wire"], object]
Port = contextlib.AbstractContextManager[int]


class Wire:
    """One accepted connection."""

    def __init__(self, plain: socket.socket, stopped: threading.Event) -> None:
        self.plain = plain
        self.stopped = stopped
        self.sent = 0
        self._pending = b""

    def send(self, data: bytes) -> None:
        """Writes all of `data`. Raises OSError if the client has disconnected."""
        self.plain.sendall(data)
        self.sent += len(data)

    def reset(self) -> None:
        """Closes the connection with a TCP reset."""
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.plain.close()

    def wait_for_the_client_to_leave(self) -> None:
        """Sends nothing until the client closes."""
        with contextlib.suppress(OSError):
            while self.plain.recv(65_536):
                continue

    def read_head(self) -> str:
        """The text before the next empty line; "" at the end of the stream."""
        while b"\r\n\r\n" not in self._pending:
            piece = self.plain.recv(65_536)
            if not piece:
                return ""
            self._pending += piece
        head, self._pending = self._pending.split(b"\r\n\r\n", 1)
        return head.decode("latin-1")

    def read_request(self, *, body_too: bool = True) -> ReceivedRequest | None:
        """The next request, or None at the end of the stream. Without `body_too`, its body is not read."""
        head = self.read_head()
        if not head:
            return None
        first, *lines = head.split("\r\n")
        method, path, _version = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0")) if body_too else 0
        while len(self._pending) < length:
            piece = self.plain.recv(65_536)
            if not piece:
                return None
            self._pending += piece
        body, self._pending = self._pending[:length], self._pending[length:]
        return ReceivedRequest(method, path, headers, body)


class Listener:
    """Accepts connections on loopback, handles each in a thread and counts them."""

    def __init__(self) -> None:
        self.connections = 0
        self.stopped = threading.Event()
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))  # until it listens, connections are refused
        self.port: int = self._listening.getsockname()[1]
        self.on_exit: list[Callable[[], None]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Listener:
        self._listening.listen(64)
        self._threads[0].start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S):
            self._threads[0].join(TIMEOUT_S)  # the connection is there to wake it
        self._listening.close()
        self.drop()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def drop(self) -> None:
        """Closes every connection, like a server that restarts."""
        for end in list(self.on_exit):
            end()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain = self._listening.accept()[0]
                if self.stopped.is_set():
                    plain.close()
                    return
                thread = threading.Thread(target=self._run, args=(plain,), daemon=True)
                self.connections += 1
                self.on_exit.append(partial(shut_down, plain))
                self._threads.append(thread)
                thread.start()

    def _run(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(plain)

    def serve(self, plain: socket.socket) -> None:
        """Handles one connection; it is closed afterwards."""


def shut_down(connection: socket.socket) -> None:
    """Shuts down a socket that another thread may be blocked on."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's, which takes its TLS state away


class FaultyVault(Listener):
    """Answers requests by `acts`; `seen` holds the requests and `wires` the connections, both in order.

    A change of `tls` applies to new connections. `greet`, if set, handles each new connection instead of requests
    being read. Without `body_too`, an act runs before the request body has been read.
    """

    def __init__(self, *acts: Act, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.acts = list(acts) or [answer()]
        self.seen: list[ReceivedRequest] = []
        self.wires: list[Wire] = []
        self.tls = tls
        self.greet: Greet | None = None
        self.body_too = True
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> FaultyVault:
        super().__enter__()
        return self

    @property
    def sent(self) -> int:
        """The number of bytes written on all connections."""
        return sum(wire.sent for wire in self.wires)

    def serve(self, plain: socket.socket) -> None:
        """Reads requests and runs acts until an act or the client closes the connection."""
        if self.greet is not None:
            self.greet(Wire(plain, self.stopped))
        elif self.tls is None:
            self._play(Wire(plain, self.stopped))
        else:
            with self.tls.wrap_socket(plain, server_side=True) as wrapped:
                self.on_exit.append(partial(shut_down, wrapped))
                self._play(Wire(wrapped, self.stopped))

    def _play(self, wire: Wire) -> None:
        self.wires.append(wire)
        while (request := wire.read_request(body_too=self.body_too)) is not None:
            act = self.acts[min(len(self.seen), len(self.acts) - 1)]
            self.seen.append(request)
            if not act(wire, request):
                return


# acts


def answer(body: bytes = b"{}", status: int = 200, *headers: str) -> Act:
    """A complete answer; the connection stays open."""
    return then_go_on(message(body, status, *headers))


def after_looking(act: Act) -> Act:
    """Answers reads with an empty object, because a write may look first; `act` is for the write."""
    looked = answer()
    return lambda wire, request: (looked if request.method == "GET" else act)(wire, request)


def message(body: bytes = b"{}", status: int = 200, *headers: str) -> bytes:
    """The bytes of a complete answer."""
    lines = [f"HTTP/1.1 {status} Said", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def then_go_on(data: bytes) -> Act:
    """Sends `data` and waits for the next request."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(data)
        return True

    return act


def then_close(data: bytes = b"") -> Act:
    """Sends `data` and closes."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(data)
        return False

    return act


def then_close_tls(data: bytes) -> Act:
    """Sends `data` and closes with TLS's close_notify, which nobody else can forge."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(data)
        if isinstance(wire.plain, ssl.SSLSocket):
            wire.plain.settimeout(TIMEOUT_S)
            with contextlib.suppress(OSError):  # the client closes without close_notify
                wire.plain.unwrap()
        return False

    return act


def then_reset(data: bytes = b"") -> Act:
    """Sends `data` and resets the connection."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(data)
        wire.reset()
        return False

    return act


def then_silence(data: bytes = b"") -> Act:
    """Sends `data` and then nothing, until the client gives up."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(data)
        wire.wait_for_the_client_to_leave()
        return False

    return act


def trickle(data: bytes, interval_s: float) -> Act:
    """Sends `data` byte by byte, until the client gives up or the server is stopped."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        for byte in data:
            wire.send(bytes([byte]))
            if wire.stopped.wait(interval_s):
                break
        return False

    return act


def once(act: Act, afterwards: Act) -> Act:
    """`act` for the first request, `afterwards` for all others."""
    acts = iter([act])

    def choose(wire: Wire, request: ReceivedRequest) -> bool:
        return next(acts, afterwards)(wire, request)

    return choose


def flood(head: bytes, piece: bytes, times: int) -> Act:
    """Sends `head` and then `piece` many times, until the client disconnects."""

    def act(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(head)
        for _ in range(times):
            wire.send(piece)
        return False

    return act


# proxies


class ConnectProxy(Listener):
    """An HTTP proxy that supports CONNECT only and connects every tunnel to the same loopback port.

    `instead`, if set, handles the connection after the CONNECT request.
    """

    def __init__(self, port: int, instead: Greet | None = None) -> None:
        super().__init__()
        self.heads: list[str] = []
        self._target = port
        self.instead = instead

    def __enter__(self) -> ConnectProxy:
        super().__enter__()
        return self

    def serve(self, plain: socket.socket) -> None:
        """One tunnel."""
        wire = Wire(plain, self.stopped)
        self.heads.append(wire.read_head())
        if self.instead:
            self.instead(wire)
            return
        with socket.create_connection(("127.0.0.1", self._target), TIMEOUT_S) as target:
            plain.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(target, plain), daemon=True)
            back.start()
            pump(plain, target)
            back.join(TIMEOUT_S)


def refusal(status: int) -> Greet:
    """A proxy that refuses with this status."""
    return lambda wire: wire.send(f"HTTP/1.1 {status} canary-of-the-proxy\r\nContent-Length: 0\r\n\r\n".encode())


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies until the source ends, then ends the stream of the sink."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# certificates

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority for one test run; `bundle` is the file by which clients trust it."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(self._name, self._key, [], 1 * DAY, authority=True)
        self.bundle = directory / "authority.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *hosts: str, ends_in: datetime.timedelta = DAY, itself: bool = False) -> ssl.SSLContext:
        """The TLS context of a server for `hosts`; with `itself`, its certificate is self-signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        signer, issuer = (key, name) if itself else (self._key, self._name)
        certificate = self._certificate(name, key, list(hosts), ends_in, signer=signer, issuer=issuer)
        return self._context(certificate, key)

    def _certificate(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        hosts: list[str],
        ends_in: datetime.timedelta,
        *,
        signer: ec.EllipticCurvePrivateKey | None = None,
        issuer: x509.Name | None = None,
        authority: bool = False,
    ) -> x509.Certificate:
        signer = signer or key
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer or name)
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(NOW - 30 * DAY).not_valid_after(NOW + ends_in)
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        made = made.add_extension(signed_by, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            made = made.add_extension(names, critical=False)
        return made.sign(signer, hashes.SHA256())

    def _context(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        chain = self._directory / "server.pem"
        plain = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
        chain.write_bytes(plain + certificate.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


# what a vault checks, written from the contract


def assert_signed_afresh(requests: list[ReceivedRequest], key: Ed25519PublicKey) -> None:
    """Every request has a valid signature, and no nonce or signature is used twice."""
    for name in ("x-nonce", "x-signature"):
        values = [request.headers[name] for request in requests]
        assert len(set(values)) == len(values), name
    for request in requests:
        assert_signed(request, key)


def assert_signed(request: ReceivedRequest, key: Ed25519PublicKey) -> None:
    """The request has a valid signature. Raises InvalidSignature otherwise."""
    headers = request.headers
    body_hash = hashlib.sha256(request.body).hexdigest()
    parts = (request.method, request.path, headers["x-timestamp"], headers["x-nonce"], body_hash)
    key.verify(base64.b64decode(headers["x-signature"], validate=True), ":".join(parts).encode("ascii"))


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A loopback port that neither accepts nor refuses connections: its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A loopback port that is reserved, with nothing listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
