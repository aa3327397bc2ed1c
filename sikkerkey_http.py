"""HTTP for one vault: a urllib handler that keeps connections alive, and sockets with a deadline.

urllib chooses the proxy and http.client speaks HTTP. What they lack is added here: connections that serve more than one
request, one deadline over a whole exchange, a bound on what is received, a way to abort from another thread, and names
with several addresses of which some are dead.
Nothing here knows signatures, retries or MCP.
"""

from __future__ import annotations

import errno
import http.client
import os
import queue
import re
import select
import selectors
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import zip_longest
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

READ_BYTES = 64 * 1024
FRAMING_MAX_BYTES = 1024 * 1024  # of one response beside its body: headers, chunk sizes, trailers
ADDRESSES_MAX = 16  # of one name; each takes a socket while it is tried
ABORT_POLL_S = 0.1  # how soon an abort is noticed where nothing can be woken

Abort = Callable[[], None]
OnAbort = Callable[[Optional[Abort]], None]


class Limits(NamedTuple):
    """The bounds of every exchange."""

    connect_s: float  # resolving a name and trying all its addresses; the proxy's answer; the TLS handshake
    exchange_s: float  # one exchange on an open connection
    response_bytes: int  # of a body
    idle_s: float
    idle_connections: int
    next_address_s: float  # after this, the next address is tried as well: section 8 of RFC 8305
    kept_answer_s: float  # the first byte for a repeatable request on a kept connection, which may have died


class Response(NamedTuple):
    """A complete response. Header names are in lower case; repeated headers are joined with ", "."""

    status: int
    headers: dict[str, str]
    body: bytes


class Unreachable(Exception):
    """There is no response. `reason` never repeats what the peer sent; `__cause__` and `certificate` may.

    `sent` is False only if the vault cannot have seen the request; `retryable` is False if another attempt cannot help.
    `certificate` is the peer's in DER if it was refused, for a message; it may be forged.
    """

    def __init__(self, reason: str, *, sent: bool, retryable: bool = True, certificate: bytes = b"") -> None:
        super().__init__(reason)
        self.reason, self.sent, self.retryable, self.certificate = reason, sent, retryable, certificate


class TooLarge(Exception):
    """The response is larger than `response_bytes`."""

    def __init__(self) -> None:
        super().__init__("the response is too large")


class Compressed(Exception):
    """The response is compressed, which was not requested."""

    def __init__(self) -> None:
        super().__init__("the response is compressed, which was not requested")


class NotLoopback(Exception):
    """The name in an http:// URL resolves to another computer."""

    def __init__(self) -> None:
        super().__init__("the name resolves to another computer, and http:// is for this computer only")


class ForeignListener(NotLoopback):
    """Another user of this computer listens at the address of an http:// URL."""

    def __init__(self) -> None:
        Exception.__init__(self, "another user of this computer listens at this address")


FAILURES = (OSError, http.client.HTTPException, ValueError)  # ssl and names that are not ASCII raise ValueError


# ---------------------------------------------------------------------------------------------------------------------
# sockets: http.client sets a timeout for each read; here all reads share one deadline and one bound
# ---------------------------------------------------------------------------------------------------------------------


class _Bounded:
    """Mixed into the two socket classes."""

    deadline_s = 0.0  # on the monotonic clock, as all deadlines
    last_deadline_s = 0.0  # applies once a byte was received
    bytes_left = 0  # that may be received; a body's bytes are given back as they are read

    def start(self, timeout_s: float, first_byte_s: float | None = None) -> None:
        """Starts an exchange, whose first byte must arrive within `first_byte_s`."""
        now_s = time.monotonic()
        self.last_deadline_s = now_s + timeout_s
        self.deadline_s = min(self.last_deadline_s, now_s + (timeout_s if first_byte_s is None else first_byte_s))
        self.bytes_left = FRAMING_MAX_BYTES
        self._update_timeout()

    def _update_timeout(self) -> None:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)  # type: ignore[attr-defined]  # of the socket

    def sendall(self, *arguments: Any) -> None:
        """As socket.sendall, which is what http.client writes with. Raises TimeoutError."""
        self._update_timeout()
        super().sendall(*arguments)  # type: ignore[misc]

    def send(self, *arguments: Any) -> int:
        """As socket.send; ssl's sendall calls it for each piece."""
        self._update_timeout()
        count: int = super().send(*arguments)  # type: ignore[misc]
        return count

    def recv_into(self, *arguments: Any) -> int:
        """As socket.recv_into, which is what http.client reads with. Raises TimeoutError and TooLarge."""
        self._update_timeout()
        count: int = super().recv_into(*arguments)  # type: ignore[misc]
        self.deadline_s = self.last_deadline_s
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooLarge
        return count


class _Socket(_Bounded, socket.socket):
    pass


class _TlsSocket(_Bounded, ssl.SSLSocket):
    pass


# ---------------------------------------------------------------------------------------------------------------------
# addresses: a name may have several, some of them dead. RFC 8305 tries the next one before the last one has failed.
# ---------------------------------------------------------------------------------------------------------------------

Target = tuple[Any, ...]  # the address as socket.connect takes it


class Address(NamedTuple):
    """One row of socket.getaddrinfo."""

    family: int
    kind: int
    protocol: int
    name: str
    target: Target


def resolve(host: str, port: int, timeout_s: float, is_aborted: Callable[[], bool] = lambda: False) -> list[Address]:
    """All addresses of a name. Raises OSError, UnicodeError, ConnectionAbortedError.

    On a thread of its own, because socket.getaddrinfo can be neither aborted nor given a deadline.
    """
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # For a text, Python loads the codec idna, which fails if another thread imports from a zipped standard library.
    name = host.encode("ascii") if host.isascii() else host

    def work() -> None:
        try:
            results.put([Address(*row) for row in socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            results.put(error)

    give_up_at_s = time.monotonic() + timeout_s
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:  # no more threads
        work()
    while True:
        with suppress(queue.Empty):
            found = results.get(timeout=ABORT_POLL_S)
            break
        if is_aborted():
            raise ConnectionAbortedError
        if time.monotonic() >= give_up_at_s:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer in time")
    if isinstance(found, Exception):
        raise found
    addresses: list[Address] = found
    return addresses


def in_order(found: list[Address], worked: Target | None) -> list[Address]:
    """The address that worked last, then the families in turn, each in the order of the resolver."""
    ordered = sorted(found, key=lambda one: one.target != worked)
    family = ordered[0].family if ordered else 0
    first = [one for one in ordered if one.family == family]
    others = [one for one in ordered if one.family != family]
    mixed = [one for pair in zip_longest(first, others) for one in pair if one]
    return mixed[:ADDRESSES_MAX]


def connect_first(
    addresses: list[Address], timeout_s: float, next_address_s: float, is_aborted: Callable[[], bool] = lambda: False
) -> tuple[_Socket, Target]:
    """A socket that is connected to the first address that answers, and that address. The other attempts end.

    Raises OSError: the last failure, TimeoutError, or ConnectionAbortedError.
    """
    waiting, give_up_at_s, next_at_s = deque(addresses), time.monotonic() + timeout_s, 0.0
    failure = OSError("the name has no address")
    attempts = selectors.DefaultSelector()
    try:
        while waiting or attempts.get_map():
            now_s = time.monotonic()
            if is_aborted():
                raise ConnectionAbortedError
            if now_s >= give_up_at_s:
                raise TimeoutError
            if waiting and (now_s >= next_at_s or not attempts.get_map()):
                try:
                    _begin(attempts, waiting.popleft())
                except OSError as error:  # a system without IPv6 may still return IPv6 addresses
                    failure = error
                    continue
                next_at_s = now_s + next_address_s
            wait_s = min(ABORT_POLL_S, give_up_at_s - now_s, next_at_s - now_s if waiting else ABORT_POLL_S)
            for key, _ in attempts.select(max(0.0, wait_s)):
                attempts.unregister(key.fileobj)
                candidate: Any = key.fileobj
                number = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    return candidate, key.data
                candidate.close()
                failure, next_at_s = _error_of(number), 0.0
    finally:
        for key in list(attempts.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # always a socket
        attempts.close()
    raise failure


def _begin(attempts: selectors.BaseSelector, address: Address) -> None:
    """Begins to connect; the socket is ready for writing when it is known how that ended. Raises OSError."""
    candidate = _Socket(address.family, address.kind, address.protocol)
    try:
        candidate.setblocking(False)
        number = candidate.connect_ex(address.target)
        if number not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise _error_of(number)
        attempts.register(candidate, selectors.EVENT_WRITE, address.target)
    except BaseException:
        candidate.close()
        raise


def _error_of(number: int) -> OSError:
    if sys.platform == "win32":
        import ctypes  # elsewhere, strerror has the words

        return ctypes.WinError(number)
    return OSError(number, os.strerror(number))


# ---------------------------------------------------------------------------------------------------------------------
# connections
# ---------------------------------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """A connection to the vault, through a proxy if there is one, and with TLS if there is a context for it."""

    sock: Any  # a _Socket or a _TlsSocket; None until `connect`
    auto_open = 0  # never reconnect, and so never send a request twice

    def __init__(
        self,
        authority: str,
        proxy: str,
        tls: ssl.SSLContext | None,
        limits: Limits,
        worked: dict[tuple[str, int], Target],
    ) -> None:
        """`worked` has the address that answered last for each name and port."""
        self.default_port = 443 if tls and not proxy else 80
        super().__init__(proxy or authority)
        self._authority, self._tls, self._worked = authority, tls, worked
        self.unreached_proxy = proxy  # its host and port, until it has connected to the vault
        self.limits = limits
        self._create_connection = self._dial  # HTTPConnection.connect calls this for its socket
        self.is_aborted = False
        # The same as `sock`, except that http.client never sets it to None, for example while it reads a last body.
        self._socket: Any = None
        self._idle_since_s = (0.0, 0.0)  # on the monotonic clock and on the wall clock

    def connect(self) -> None:
        """Connects, lets the proxy connect to the vault, and starts TLS. Raises FAILURES, NotLoopback, TooLarge."""
        try:
            super().connect()
        except BaseException:
            self._close_descriptor()
            raise
        if self._tls is None:
            return
        # Without a length, only the end of the TLS stream shows that nobody has cut the response off.
        secured = self._tls.wrap_socket(
            self.sock,
            server_hostname=urlsplit(f"//{self._authority}").hostname,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self._use(secured)
        self.unreached_proxy = ""
        secured.settimeout(self.limits.connect_s)
        secured.do_handshake()

    def _close_descriptor(self) -> None:
        """Older versions of http.client leave the answer of a proxy that refuses open, and with it the socket."""
        if self._socket is not None:
            with suppress(OSError):  # closed already
                socket.close(self._socket.detach())

    def abort(self) -> None:
        """Ends what waits on the socket. May be called from any thread."""
        self.is_aborted = True
        if self._socket is not None:
            with suppress(OSError):  # not connected yet, or closed already
                # Not SSLSocket.shutdown, which removes the TLS state that the other thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def rest(self) -> None:
        """Begins to wait for another request."""
        self._idle_since_s = (time.monotonic(), time.time())

    def _idle_s(self) -> float:
        """The monotonic clock may stop while the computer sleeps; the other one runs on, but can be set back."""
        monotonic_s, wall_s = self._idle_since_s
        return max(time.monotonic() - monotonic_s, time.time() - wall_s)

    def is_usable(self) -> bool:
        """False after too long, and if anything was received while nothing was requested: the end, or stray bytes."""
        if self.sock is None or self._idle_s() >= self.limits.idle_s:
            return False
        try:
            decrypted = self.sock.pending() if self._tls else 0
            return not decrypted and not select.select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], first_byte_s: float | None = None
    ) -> tuple[Response, bool]:
        """Sends a request; its response, and whether the connection can serve another request."""
        self._socket.start(self.limits.exchange_s, first_byte_s)
        self.request(method, path, body, headers)
        with closing(self.getresponse()) as response:
            found: dict[str, str] = {}
            for name, folded in response.getheaders():
                key, value = name.lower(), " ".join(folded.split())
                found[key] = f"{found[key]}, {value}" if key in found else value
            _check_head(response, found)
            body_read = self._read_body(response)
            keep = not response.will_close and not self.is_aborted and _has_one_end(found)
            return Response(response.status, found, body_read), keep

    def _read_body(self, response: http.client.HTTPResponse) -> bytes:
        """The body, in pieces: in one piece http.client would reserve memory for whatever size a chunk announces."""
        left = self.limits.response_bytes
        ends_with_connection = response.length is None and not response.chunked
        pieces: list[bytes] = []
        if (response.length or 0) > left:
            raise TooLarge
        while piece := response.read(READ_BYTES):
            left -= len(piece)
            if left < 0:
                raise TooLarge
            self._socket.bytes_left += len(piece)
            pieces.append(piece)
        if response.length or (ends_with_connection and (self.is_aborted or not pieces)):
            raise http.client.IncompleteRead(b"")
        return b"".join(pieces)

    def _use(self, new: Any) -> None:
        """Makes `new` the socket that `abort` ends. An earlier abort takes effect here."""
        self.sock = self._socket = new
        if self.is_aborted:
            raise ConnectionAbortedError

    def _dial(self, address: tuple[str, int], *_defaults: Any) -> _Socket:
        """Like socket.create_connection, which tries one address after the other and cannot be aborted."""
        give_up_at_s = time.monotonic() + self.limits.connect_s
        found = resolve(*address, self.limits.connect_s, lambda: self.is_aborted)
        if self._tls is None:
            found = [one for one in found if _is_loopback(str(one.target[0]))]
            if not found:
                raise NotLoopback
        addresses, left_s = in_order(found, self._worked.get(address)), give_up_at_s - time.monotonic()
        connected, self._worked[address] = connect_first(
            addresses, left_s, self.limits.next_address_s, lambda: self.is_aborted
        )
        self._use(connected)
        if self._tls is None and not _is_own_listener(connected, _allowed_users()):
            raise ForeignListener
        connected.start(self.limits.connect_s)  # for the proxy's answer
        with suppress(AttributeError, OSError):  # Linux: a write fails early too if nothing of it is acknowledged
            acknowledged_ms = int(self.limits.connect_s * 1000)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, acknowledged_ms)
        return connected


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


# ---------------------------------------------------------------------------------------------------------------------
# http:// on loopback: any user of this computer can listen on a port that is free. On Linux, tables of all sockets tell
# who does. Elsewhere nothing does.
# ---------------------------------------------------------------------------------------------------------------------

_SOCKET_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"
_TABLE_READS = 3  # a table that changes while it is read may lack a row
_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"


class _SocketRow(NamedTuple):
    """One row of a table: both ends as `address:port` in hexadecimal, the state, and the owner's user id."""

    local: str
    remote: str
    state: str
    user: int


def _allowed_users() -> set[int]:
    """This user, root, who could read this process's memory anyway, and the one in SIKKERKEY_VAULT_USER."""
    if not sys.platform.startswith("linux"):
        return set()
    import pwd  # not on Windows

    named = os.environ.get("SIKKERKEY_VAULT_USER", "")
    with suppress(KeyError, ValueError):
        return {0, os.geteuid(), int(named) if named.isdecimal() else pwd.getpwnam(named).pw_uid}
    return {0, os.geteuid()}


def _is_own_listener(connected: socket.socket, allowed: set[int]) -> bool:
    """Whether only these users listen at the address that a socket is connected to, and answer at its other end.

    True if that cannot be known: on other systems, and where the tables do not have this connection itself.
    """
    if not sys.platform.startswith("linux"):
        return True
    is_complete = False
    for _ in range(_TABLE_READS):
        try:
            rows = [row for table in _SOCKET_TABLES for row in _socket_rows(table)]
            own, peer = connected.getsockname(), connected.getpeername()
        except OSError:
            return True
        ours, theirs = _hexadecimal(own), _hexadecimal(peer) | _hexadecimal(("::", peer[1]))
        theirs |= set() if ":" in peer[0] else _hexadecimal(("0.0.0.0", peer[1]))  # noqa: S104  # compared only
        listening = [row.user for row in rows if row.state == _LISTENING and row.local in theirs]
        accepted = [row.user for row in rows if row.remote in ours and row.local in theirs]
        is_complete = is_complete or any(row.local in ours for row in rows)
        if listening:
            return allowed.issuperset(listening + accepted)
    return not is_complete  # a listener that is gone already was not the vault


def _socket_rows(table: str) -> list[_SocketRow]:
    """The rows of a table; none if this system has no such table, as without IPv6."""
    if not os.path.exists(table):
        return []
    with open(table, encoding="ascii") as lines:
        cells = [line.split() for line in lines]
    return [_SocketRow(row[1], row[2], row[3], int(row[7])) for row in cells if len(row) > 7 and row[7].isdecimal()]


def _hexadecimal(address: Target) -> set[str]:
    """The spellings of an address in the tables: words in the byte order of this computer, and a port."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, address[0])
    forms = [packed, _IPV4_IN_IPV6 + packed] if len(packed) == 4 else [packed]
    return {f"{_words(form)}:{address[1]:04X}" for form in forms}


def _words(packed: bytes) -> str:
    words = (packed[place : place + 4] for place in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _check_head(response: http.client.HTTPResponse, headers: dict[str, str]) -> None:
    """Refuses responses that http.client would read wrongly, or that must not be read. Raises FAILURES, Compressed."""
    if response.status < 200:
        raise http.client.BadStatusLine("an interim response")
    if response.msg.get_payload():  # http.client ends the headers at a line that is not one, and drops the rest
        raise http.client.HTTPException
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":  # http.client would not decode it
        raise http.client.HTTPException
    lengths = {length.strip() for length in headers.get("content-length", "").split(",")}  # a proxy may repeat it
    ignored = "content-length" in headers and response.length is None and not response.chunked
    if len(lengths) > 1 or ignored:  # http.client takes the first, or ignores it and reads until the connection ends
        raise http.client.HTTPException
    if headers.get("content-encoding", "").lower() not in ("", "identity"):
        raise Compressed


def _has_one_end(headers: dict[str, str]) -> bool:
    """False if a proxy might see the end of the response elsewhere, because it has both a length and chunks."""
    return not headers.keys() >= {"content-length", "transfer-encoding"}


# ---------------------------------------------------------------------------------------------------------------------
# urllib
# ---------------------------------------------------------------------------------------------------------------------


class AbortableRequest(urllib.request.Request):
    """A request that another thread can abort: `on_abort` receives the function for that, and None at the end.

    A `repeatable` one may be processed twice. On a kept connection that does not answer soon, it fails early.
    `is_sent` tells that the vault may have received it, also after an exception.
    """

    on_abort: OnAbort
    repeatable = False
    is_sent = False


class KeepAliveHandler(urllib.request.BaseHandler):
    """Opens http and https requests on connections that stay open. At most `idle_connections` wait for a request."""

    def __init__(self, tls: ssl.SSLContext | None, limits: Limits) -> None:
        if tls:
            tls.sslsocket_class = _TlsSocket
        self._tls, self.limits = tls, limits
        self.on_connect: Callable[[Any], None] = lambda _socket: None  # is called with each new socket
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._worked: dict[tuple[str, int], Target] = {}

    def http_open(self, request: AbortableRequest) -> Response:
        """Carries out one exchange. Raises Unreachable, TooLarge, Compressed, NotLoopback."""
        authority = urlsplit(request.full_url).netloc
        given = {name.title(): value for name, value in request.header_items()}
        authorization = given.pop("Proxy-Authorization", "")
        headers = {"Host": authority, "Accept-Encoding": "identity", **given}
        body: Any = request.data  # bytes or None
        method = request.get_method()
        if body is not None or method != "GET":
            headers["Content-Length"] = str(len(body or b""))
        kept = self._take()
        connection = kept or self._new_connection(request, authorization, self._tls)
        sent = keep = False
        connection.limits = self.limits
        request.on_abort(connection.abort)
        try:
            if not kept:
                connection.connect()
                self.on_connect(connection.sock)
            request.is_sent = sent = True
            first_byte_s = self.limits.kept_answer_s if kept and request.repeatable else None
            response, keep = connection.exchange(method, request.selector, body, headers, first_byte_s)
            return response
        except TooLarge:
            if sent:
                raise
            raise Unreachable("the proxy's answer has no end", sent=False) from None
        except FAILURES as error:
            if _is_too_large(error):
                raise TooLarge from None
            if kept and not connection.is_aborted:
                self.close()  # the others may have died with it
            refused = isinstance(error, ssl.SSLCertVerificationError)
            certificate = self._peer_certificate(request, authorization) if refused else b""
            permanent = refused or _is_refused_by_proxy(error)
            reason = _reason(error, connection.unreached_proxy)
            raise Unreachable(reason, sent=sent, retryable=not permanent, certificate=certificate) from error
        finally:
            request.on_abort(None)
            if keep:
                self._put_back(connection)
            else:
                connection.close()

    https_open = http_open

    def close(self) -> None:
        """Closes the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def peer_certificate(self, url: str) -> bytes:
        """The certificate that the peer shows, in DER, unverified; empty if there is none. Nothing else is sent."""
        request = AbortableRequest(url)
        request.on_abort = lambda _abort: None
        return self._peer_certificate(request, "")

    def _peer_certificate(self, request: AbortableRequest, authorization: str) -> bytes:
        """The peer's certificate in DER, unverified; empty if unknown. Nothing is sent but a handshake."""
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        unverified.sslsocket_class = _TlsSocket
        connection = self._new_connection(request, authorization, unverified)
        request.on_abort(connection.abort)
        try:
            connection.connect()
            return connection.sock.getpeercert(binary_form=True) or b""
        except (TooLarge, *FAILURES):
            return b""
        finally:
            connection.close()

    def _new_connection(self, request: AbortableRequest, authorization: str, tls: ssl.SSLContext | None) -> _Connection:
        authority = urlsplit(request.full_url).netloc
        proxy = request.host if request.host != authority else ""  # ProxyHandler replaces the host
        connection = _Connection(authority, proxy, tls, self.limits, self._worked)
        if proxy:
            headers = {"Host": authority, **({"Proxy-Authorization": authorization} if authorization else {})}
            host, _, port = authority.rpartition(":") if re.search(":[0-9]+$", authority) else (authority, "", "443")
            connection.set_tunnel(host, int(port), headers)  # with the brackets of IPv6, which older versions need
        return connection

    def _take(self) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()

    def _put_back(self, connection: _Connection) -> None:
        connection.rest()
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle[: -self.limits.idle_connections]
            del self._idle[: -self.limits.idle_connections]
        for old in surplus:
            old.close()


# ---------------------------------------------------------------------------------------------------------------------
# reasons: from exception types and error numbers, never from what the peer sent
# ---------------------------------------------------------------------------------------------------------------------


MALFORMED_PARTS: dict[type[Exception], str] = {
    http.client.BadStatusLine: "the status line",
    http.client.UnknownProtocol: "the HTTP version",
    http.client.LineTooLong: "a line is too long",
    http.client.IncompleteRead: "the body is incomplete",
}


def _is_too_large(error: Exception) -> bool:
    """True for the bounds that newer versions of http.client have; in older ones the bytes are counted."""
    return re.fullmatch("got more than [0-9]+ (interim responses|trailers)", str(error)) is not None


def _is_refused_by_proxy(error: Exception) -> bool:
    """True if the proxy refuses the user or the host: proxies may lock out users who try again."""
    return re.match(r"Tunnel connection failed: 4\d\d", str(error)) is not None


def _reason(error: Exception, proxy: str) -> str:
    """Why an exchange failed. `proxy` is the one that did not connect to the vault, if there is one."""
    if refused := re.match(r"Tunnel connection failed: (\d{3})", str(error)):  # all that http.client says about it
        return f"the proxy answered {refused[1]}"
    return f"the proxy at {proxy}: {_plain_reason(error)}" if proxy else _plain_reason(error)


def _plain_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", "") == "UNEXPECTED_EOF_WHILE_READING":
        return "the connection broke"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'no reason given'}"
    if isinstance(error, (socket.gaierror, UnicodeError)):  # getaddrinfo cannot encode an empty or overlong label
        return "its name cannot be resolved"
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes until Python 3.10
        return "it did not answer in time"
    if isinstance(error, OSError):
        return error.strerror or "the connection broke"
    part = MALFORMED_PARTS.get(type(error), "the headers")
    return f"its answer was cut short or malformed ({part})"
