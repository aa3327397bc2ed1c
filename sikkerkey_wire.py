"""One exchange with the vault: a kept connection or a new one (TLS, proxies), and HTTP/1.1 with one deadline on it.

Nothing here knows signatures, retries or MCP; sikkerkey_mcp loads it for calls, not before the tools have been listed.

HTTP is read here and not by http.client, whose parser is one for mail: that took a quarter of a call and 2 MB, passes
over broken headers, takes `-1` and `0x5` for sizes, and the end of the stream for the end of the headers.
Here whatever RFC 9112 does not frame exactly breaks the connection off.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import socket
import ssl
import sys
import time
from _thread import allocate_lock
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import NamedTuple

import sikkerkey_mcp as mcp
from sikkerkey_mcp import (
    IN_BETWEEN,
    Cancellation,
    ConfigError,
    Context,
    Failure,
    Headers,
    Reply,
    Request,
    ServiceError,
    clean,
)

HEAD_MAX_BYTES = 65_536  # status line and headers
HEAD_MAX_LINES = 100
LINE_MAX_BYTES = 4_096  # the size of a chunk and its extensions; a trailer
RECEIVED_AT_ONCE_BYTES = 65_536
SENT_AT_ONCE_BYTES = 16_384  # what systems take without waiting for the peer, which may be slow or read nothing
SOON_S = 0.001  # a vault on this computer answers before another thread could have been woken to serve others


class MalformedAnswer(Exception):
    """An answer that HTTP does not allow, or that ended early. The words are ours, nothing in them is the peer's."""


class ProxyRefused(OSError):
    """The proxy answered CONNECT with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status


BROKEN = (OSError, MalformedAnswer, ValueError)  # what a failing connection raises; ssl and names raise ValueError too


# ---------------------------------------------------------------------------------------------------------------------
# connections to one vault
# ---------------------------------------------------------------------------------------------------------------------


class Connections:
    """Kept-alive connections to one vault. One exchange uses one; at most IDLE_CONNECTIONS wait for the next."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._lock = allocate_lock()
        self._idle: list[Connection] = []
        self._route: Route | None = None

    def route(self) -> Route:
        """The way to the vault, found once. Raises ConfigError."""
        with self._lock:
            if self._route is None:
                self._route = route_to(self._base_url)
            return self._route

    def exchange(self, request: Request, headers: Headers, context: Context) -> Reply | Failure:
        """Sends `request` once and reads the answer. Raises ServiceError for an answer that must not be read."""
        cancellation = context.cancellation
        try:
            connection = self._take() if self._idle else None  # the lock may be held until the way has been found
            if connection is None:
                context.about_to_wait()
                connection = opened(self.route(), cancellation)
        except BROKEN as error:
            return Failure(reason(error), sent=False, passing=not is_lasting(error))
        cancellation.on_set(connection.abort)
        keep = False
        try:
            reply, keep = connection.exchange(request, headers, context)
            return reply
        except BROKEN as error:
            return Failure(reason(error), sent=True)
        finally:
            cancellation.on_set(None)
            if keep and not cancellation.is_set():
                self._give_back(connection)
            else:
                connection.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        connection.idle_since_s = time.monotonic()
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle[: -mcp.IDLE_CONNECTIONS]
            del self._idle[: -mcp.IDLE_CONNECTIONS]
        for old in surplus:
            old.close()


class Route(NamedTuple):
    """The way to a vault: `authority` is HOST or HOST:PORT as the URL has it, `host` and `port` what that means."""

    authority: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None


# ---------------------------------------------------------------------------------------------------------------------
# HTTP/1.1
# ---------------------------------------------------------------------------------------------------------------------


class Connection:
    """A connected socket on which a whole exchange ends at a deadline, however slowly the bytes trickle in."""

    def __init__(self, wire: socket.socket, authority: str) -> None:
        self.wire = wire
        self.idle_since_s = 0.0
        self._authority = authority
        self._received = bytearray()  # and not yet used
        self._deadline_s = 0.0
        self._bytes_left = self._lines_left = 0
        self._soon_s = 0.0
        self._make_way: Callable[[], None] | None = None  # to be called before waiting beyond `_soon_s`

    def exchange(self, request: Request, headers: Headers, context: Context) -> tuple[Reply, bool]:
        """The answer to one request, and whether another may follow on this connection. Raises BROKEN, ServiceError."""
        if request.body is not None or request.method != "GET":
            headers = {**headers, "Content-Length": str(len(request.body or b""))}
        data = request_head(request.method, request.path, self._authority, headers) + (request.body or b"")
        if len(data) > SENT_AT_ONCE_BYTES:
            context.about_to_wait()
        self._make_way = context.about_to_wait
        self._begin(data, mcp.REQUEST_MAX_S)
        status, headers, is_last = self._final_head()
        if headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise ServiceError("the vault's answer is compressed, which was not asked for", IN_BETWEEN)
        is_last = is_last or not _ends_beyond_doubt(status, headers)
        body = b"" if status in BODILESS else self._body(headers)
        self._make_way = None  # which holds the call and its arguments
        if len(body) > RECEIVED_AT_ONCE_BYTES:  # to take it apart is work for a while
            context.about_to_wait()
        return Reply(status, headers, body), not is_last and not self._received

    def tunnel(self, target: str, headers: Headers) -> None:
        """Has a proxy connect to `target`, which is HOST:PORT. Raises BROKEN."""
        self._begin(request_head("CONNECT", target, target, headers), mcp.CONNECT_MAX_S)
        try:
            status = self._final_head()[0]
        except ServiceError:
            raise MalformedAnswer("a proxy's answer without end") from None
        if not 200 <= status < 300:
            raise ProxyRefused(status)
        if self._received:
            raise MalformedAnswer("a proxy that speaks for the vault")

    def secure(self, tls: ssl.SSLContext, host: str, cancellation: Cancellation) -> None:
        """Begins TLS, which takes CONNECT_MAX_S in all. Raises BROKEN."""
        self.wire.settimeout(mcp.CONNECT_MAX_S)
        name = host.encode("ascii")  # as text, Python would load a megabyte of Unicode for it
        # What ends without TLS's own end may have been cut off by anybody; without a length, only that tells.
        self.wire = secured = tls.wrap_socket(
            self.wire, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        cancellation.on_set(self.abort)  # anew: while the sockets changed places, `abort` met neither
        secured.do_handshake()

    def is_usable(self) -> bool:
        """False if it was idle for too long, or something comes while nothing is asked: the end, or unwanted bytes."""
        if time.monotonic() - self.idle_since_s >= mcp.IDLE_MAX_S:
            return False
        try:
            decrypted = getattr(self.wire, "pending", int)()  # of a TLS record, of which select knows nothing
            return not decrypted and not select.select([self.wire], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def abort(self) -> None:
        """Ends, from any thread, whatever waits on this socket."""
        try:
            # The base class's method: SSLSocket.shutdown would pull the TLS state from under the reading thread.
            socket.socket.shutdown(self.wire, socket.SHUT_RDWR)
        except OSError:
            return  # already gone

    def close(self) -> None:
        """Closes."""
        self.wire.close()

    def _begin(self, data: bytes, within_s: float) -> None:
        """A new exchange begins: from here on its time and the bytes of its answer, framing included, are counted."""
        begun_s = time.monotonic()
        self._deadline_s, self._soon_s = begun_s + within_s, begun_s + SOON_S
        self._bytes_left, self._lines_left = 2 * mcp.ANSWER_MAX_BYTES, mcp.ANSWER_MAX_LINES
        self.wire.settimeout(within_s)
        self.wire.sendall(data)

    def _final_head(self) -> tuple[int, Headers, bool]:
        """Status and headers of the answer, past interim ones, and whether any of them ends the connection."""
        is_last = False
        while True:
            status, headers = self._head()
            is_last = is_last or "close" in headers.get("connection", "").lower()
            if status >= 200:
                return status, headers, is_last
            if status == 101:
                raise MalformedAnswer("another protocol, which was not asked for")

    def _head(self) -> tuple[int, Headers]:
        """A status line and headers, by their names in lower case; repeated ones are joined (RFC 9110, 5.3)."""
        first, *lines = _lines_of(self._raw_head())
        self._count_lines(1 + len(lines))
        version, _, said = first.partition(" ")
        code = said.partition(" ")[0]
        if version not in VERSIONS or len(code) != 3 or not code.isdecimal() or code < "100":
            raise MalformedAnswer("the status line")
        headers: Headers = {} if version != "HTTP/1.0" else {"connection": "close"}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise MalformedAnswer("a header")
            name, value = name.lower(), value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(code), headers

    def _raw_head(self) -> bytes:
        """All up to the first empty line."""
        while (end := self._received.find(b"\r\n\r\n")) < 0 and len(self._received) <= HEAD_MAX_BYTES:
            if not self._received.startswith(b"HTTP/1."[: len(self._received)]) or b"\n\n" in self._received:
                raise MalformedAnswer("the status line")
            if not self._receive():
                raise ConnectionError("the stream ended within the headers")
        if not 0 <= end <= HEAD_MAX_BYTES:
            raise MalformedAnswer("too many headers")
        return self._take(end + 4)[:end]

    def _body(self, headers: Headers) -> bytes:
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise MalformedAnswer("the transfer coding")
            return b"".join(self._chunks())
        if "content-length" in headers:
            return self._exactly(_length(headers["content-length"]), mcp.ANSWER_MAX_BYTES)
        return self._rest()

    def _chunks(self) -> Iterator[bytes]:
        room = mcp.ANSWER_MAX_BYTES
        while size := _size(self._line().partition(";")[0].rstrip(" \t"), 16):
            yield self._exactly(size, room)
            room -= size
            if self._line():
                raise MalformedAnswer("a chunk")
        while self._line():
            pass  # a trailer

    def _rest(self) -> bytes:
        """What comes until the stream ends; if that is nothing, it has broken off."""
        while self._receive():
            if len(self._received) > mcp.ANSWER_MAX_BYTES:
                raise mcp.too_large()
        if not self._received:
            raise MalformedAnswer("its end")
        return self._take(len(self._received))

    def _exactly(self, count: int, most: int) -> bytes:
        if count > most:
            raise mcp.too_large()
        while len(self._received) < count:
            if not self._receive():
                raise MalformedAnswer("its end")
        return self._take(count)

    def _line(self) -> str:
        """The next line of a chunked body's framing."""
        while (end := self._received.find(b"\r\n")) < 0 and len(self._received) <= LINE_MAX_BYTES:
            if not self._receive():
                raise ConnectionError("the stream ended between two chunks")
        if not 0 <= end <= LINE_MAX_BYTES:
            raise MalformedAnswer("a long line")
        self._count_lines(1)
        line = self._take(end + 2)[:end].decode("latin-1")
        if "\r" in line or "\n" in line:
            raise MalformedAnswer("a line's end")
        return line

    def _count_lines(self, count: int) -> None:
        self._lines_left -= count
        if self._lines_left < 0:
            raise ServiceError(f"the vault's answer comes in more than {mcp.ANSWER_MAX_LINES:,} lines", IN_BETWEEN)

    def _receive(self) -> int:
        """Waits for more, until the deadline; how many bytes have come, 0 at the end of the stream."""
        if self._make_way:
            try:
                return self._receive_until(self._soon_s)
            except (TimeoutError, socket.timeout):  # two classes until Python 3.10
                self._make_way()
                self._make_way = None
        return self._receive_until(self._deadline_s)

    def _receive_until(self, when_s: float) -> int:
        left_s = when_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the exchange took too long")
        self.wire.settimeout(left_s)
        piece = self.wire.recv(RECEIVED_AT_ONCE_BYTES)
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise mcp.too_large()
        self._received += piece
        return len(piece)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received if count == len(self._received) else self._received[:count])
        del self._received[:count]
        return taken


def request_head(method: str, target: str, authority: str, headers: Headers) -> bytes:
    """Request line and headers. Raises ValueError for anything but printable ASCII, such as a line in a value."""
    fields = {"Host": authority, "Accept-Encoding": "identity", **headers}
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in fields.items()], "", ""]
    text = "".join(lines)
    if lines[0].count(" ") != 2 or not (text.isascii() and text.isprintable()):
        raise ValueError("a header is not printable ASCII")
    return "\r\n".join(lines).encode("ascii")


BODILESS = (204, 304)  # whatever the headers say (RFC 9112, 6.3)


def _ends_beyond_doubt(status: int, headers: Headers) -> bool:
    """False if the peer may take something else for the answer's end, as with both ways of telling it, or none."""
    if status in BODILESS:
        return "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
    return ("transfer-encoding" in headers) != ("content-length" in headers)


def _lines_of(head: bytes) -> list[str]:
    """The lines of a head; a header that goes on in the next line is one line (RFC 9112, 5.2)."""
    head = head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    lines = head.decode("latin-1").split("\r\n")
    if len(lines) > HEAD_MAX_LINES:
        raise MalformedAnswer("too many headers")
    if not head.count(b"\n") == head.count(b"\r") == len(lines) - 1 or b"\0" in head:
        raise MalformedAnswer("a line's end")  # which others may take for one
    return lines


VERSIONS = frozenset(f"HTTP/1.{minor}" for minor in range(10))
DIGITS = {10: "0123456789", 16: "0123456789abcdefABCDEF"}


def _length(text: str) -> int:
    """A Content-Length; what comes in between may have repeated it (RFC 9110, 8.6)."""
    if "," in text:
        sizes = {size.strip(" \t") for size in text.split(",")}
        text = sizes.pop()
        if sizes:
            raise MalformedAnswer("two lengths")
    return _size(text, 10)


def _size(text: str, base: int) -> int:
    """A size as HTTP spells it: digits only, where int() takes signs, prefixes and underscores as well."""
    if not 0 < len(text) <= 16 or text.strip(DIGITS[base]):
        raise MalformedAnswer("a length")
    return int(text, base)


# ---------------------------------------------------------------------------------------------------------------------
# opening: DNS, TCP, the proxy, TLS
# ---------------------------------------------------------------------------------------------------------------------


def opened(route: Route, cancellation: Cancellation) -> Connection:
    """A new connection. Raises BROKEN, ConfigError."""
    try:
        connection = _dialled(route, cancellation)
        try:
            if route.proxy:
                host = f"[{route.host}]" if ":" in route.host else route.host
                connection.tunnel(f"{host}:{route.port}", route.proxy.headers)
            if route.tls:
                connection.secure(route.tls, route.host, cancellation)
        except BaseException:
            connection.close()
            raise
    finally:
        cancellation.on_set(None)
    return connection


def _dialled(route: Route, cancellation: Cancellation) -> Connection:
    """As socket.create_connection, whose socket nobody else knows, and so cannot break off, until it is connected."""
    host, port = (route.proxy.host, route.proxy.port) if route.proxy else (route.host, route.port)
    give_up_at_s = time.monotonic() + mcp.REQUEST_MAX_S
    failure = OSError("the name has no address")
    for family, kind, protocol, _, target in socket.getaddrinfo(host.encode("ascii"), port, 0, socket.SOCK_STREAM):
        left_s = give_up_at_s - time.monotonic()
        if cancellation.is_set() or left_s <= 0:
            break
        if not route.tls:
            _require_loopback(str(target[0]))
        try:
            connection = Connection(socket.socket(family, kind, protocol), route.authority)
        except OSError as error:  # a system without IPv6 may still name such addresses
            failure = error
            continue
        cancellation.on_set(connection.abort)
        connection.wire.settimeout(min(mcp.CONNECT_MAX_S, left_s))
        try:
            connection.wire.connect(target)
            connection.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            failure = error
            connection.close()
        else:
            return connection
    raise failure


def _require_loopback(address: str) -> None:
    if not (address.startswith("127.") or address == "::1"):  # a faulty hosts file, or DNS
        rule = "the vault's name leads to another computer, and http:// is for this one only"
        raise ConfigError(rule, "mend this computer's hosts file, or use https://")


class Proxy(NamedTuple):
    """Where it listens, and the header that it wants, which is never shown."""

    host: str
    port: int
    headers: Headers


# Checked here, because the complaints of urllib would quote the password. Another scheme is refused: to a proxy that is
# meant to be spoken to over TLS, the password would go in the clear.
PROXY_URL = r"(?:http://|(?![^@/]*:/))(?:(?P<user>.*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/?"


def _may_have_proxy() -> bool:
    """urllib, which knows, takes 4 MB and 20 ms. Except on macOS and Windows, this variable is all that it looks at."""
    return sys.platform in ("darwin", "win32") or "https_proxy" in map(str.lower, os.environ)


def proxy_for(base_url: str) -> Proxy | None:
    """The proxy that the environment or the system names for a vault, None for none. Raises ConfigError."""
    if base_url.startswith("http:") or not _may_have_proxy():
        return None
    import urllib.request
    from urllib.parse import unquote_to_bytes

    host = base_url.partition("://")[2]
    url = urllib.request.getproxies().get("https", "")
    if not url or urllib.request.proxy_bypass(host):
        return None
    found = re.fullmatch(PROXY_URL, url)
    port = int(found["port"] or 80) if found else 0
    if not found or not 0 < port < 65_536:
        rule = "HTTPS_PROXY must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
        raise ConfigError(rule, "proxies that are themselves spoken to over TLS, or SOCKS, are not supported")
    credentials = b64encode(unquote_to_bytes(found["user"] or "")).decode("ascii")
    headers = {"Proxy-Authorization": f"Basic {credentials}"} if credentials else {}
    return Proxy(found["host"].strip("[]").lower(), port, headers)


def route_to(base_url: str) -> Route:
    """The way to the vault, through the proxy that the environment or the system names. Raises ConfigError."""
    scheme, _, authority = base_url.partition("://")
    host, port = mcp.host_and_port(authority, "80" if scheme == "http" else "443")
    if scheme == "http":  # loopback, and no proxy's business
        return Route(authority, host.strip("[]"), int(port))
    return Route(authority, host.strip("[]"), int(port), tls_context(), proxy_for(base_url))


def tls_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, certificates and host names checked, against SIKKERKEY_CA_BUNDLE or certifi's bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # which name constraints do not bind
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # set by some builds, absent before OpenSSL 3
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE")
    try:
        if bundle and not os.path.isfile(bundle):  # OpenSSL would wait for a FIFO, and read a device for ever
            raise OSError
        if bundle:
            context.load_verify_locations(cafile=bundle)
        else:
            for certificate in _certificates():
                context.load_verify_locations(cadata=certificate)
    except (OSError, ValueError):
        raise ConfigError(
            "the CA bundle cannot be read as PEM certificates",
            f"check SIKKERKEY_CA_BUNDLE ({clean(bundle)})" if bundle else "",
        ) from None
    return context


def _certificates() -> Iterator[str]:
    """certifi's, by its loader: inside a zip, certifi itself would write them to a temporary file.

    One by one, because copies of them all at once would leave 0.3 MB with the process.
    """
    spec = importlib.util.find_spec("certifi")
    if spec is None or spec.origin is None:
        raise ConfigError("certifi is not installed", "pip install certifi, or set SIKKERKEY_CA_BUNDLE")
    read_data: Callable[[str], bytes] = getattr(spec.loader, "get_data")  # noqa: B009 (zipimporter and SourceLoader share no typed base)
    bundle = read_data(os.path.join(os.path.dirname(spec.origin), "cacert.pem"))
    for certificate in re.finditer(rb"-----BEGIN [^-]+-----[^-]+-----END [^-]+-----", bundle):
        yield certificate[0].decode("ascii")


def is_lasting(error: Exception) -> bool:
    """A certificate or a proxy's refusal: no other try can help, and proxies lock out who insists."""
    refused = isinstance(error, ProxyRefused) and 400 <= error.status < 500
    return refused or isinstance(error, ssl.SSLCertVerificationError)


def reason(error: Exception) -> str:
    """Words for a failed exchange, from classes and error numbers: what the peer sent is not repeated."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {clean(error.verify_message)}"
    if isinstance(error, ssl.SSLEOFError) or getattr(error, "reason", "") == "UNEXPECTED_EOF_WHILE_READING":
        return "the connection broke"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {clean(error.reason or 'no reason given')}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "it did not answer in time"
    if isinstance(error, ProxyRefused):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or "the connection broke"
    where = error if isinstance(error, MalformedAnswer) else type(error).__name__
    return f"its answer was cut short or malformed ({where})"
