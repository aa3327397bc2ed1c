"""How a connection to the vault is opened (TLS, proxies), and how a whole exchange on it ends at a deadline.

urllib names the proxy. Nothing here knows requests, signatures or MCP; sikkerkey_mcp loads it for calls, not before the
tools have been listed.
"""

from __future__ import annotations

import http.client
import importlib.util
import io
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import sikkerkey_mcp as mcp
from sikkerkey_mcp import IN_BETWEEN, Cancellation, ConfigError, Headers, ServiceError, clean


class TimedSocket:
    """A connected socket on which a whole exchange ends at a deadline, however slowly the bytes trickle in."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._deadline_s = 0.0
        self._room = 0

    def start(self) -> None:
        """A new exchange begins: from here on its time and the bytes of its answer, framing included, are counted."""
        self._deadline_s = time.monotonic() + mcp.REQUEST_MAX_S
        self._room = 2 * mcp.ANSWER_MAX_BYTES

    def _arm(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the exchange took too long")
        self._plain.settimeout(left_s)

    def sendall(self, data: bytes) -> None:
        """As socket.sendall, until the deadline."""
        self._arm()
        self._plain.sendall(data)

    def recv_into(self, buffer: Any) -> int:
        """As socket.recv_into, until the deadline."""
        self._arm()
        count = self._plain.recv_into(buffer)
        self._room -= count
        if self._room < 0:  # endless trailers, or a chunk that claims to be of size -1
            raise mcp.too_large()
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The reader that http.client asks for; the mode is always `rb`."""
        return _WholeLines(_TimedReader(self))

    def close(self) -> None:
        """Nothing: http.client closes as soon as it has seen `Connection: close`, before the body has been read."""

    def finish(self) -> None:
        """Closes."""
        self._plain.close()

    def abort(self) -> None:
        """Ends, from any thread, whatever waits on this socket."""
        try:
            # The base class's method: SSLSocket.shutdown would pull the TLS state from under the reading thread.
            socket.socket.shutdown(self._plain, socket.SHUT_RDWR)
        except OSError:
            return  # already gone

    def has_been_closed_by_peer(self) -> bool:
        """True if there is something to read while nothing is asked: the end, or bytes that nobody wants."""
        try:
            decrypted = getattr(self._plain, "pending", int)()  # of a TLS record, of which select knows nothing
            return bool(decrypted or select.select([self._plain], [], [], 0)[0])
        except (OSError, ValueError):
            return True


class _TimedReader(io.RawIOBase):
    def __init__(self, source: TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.recv_into(buffer)


class _WholeLines(io.BufferedReader):
    """http.client takes the end of the stream for the end of the headers; here it breaks the answer off.

    Nor does it end interim answers, chunks of one byte and trailers, each of which costs far more time than bytes.
    """

    _lines_left = mcp.ANSWER_MAX_LINES

    def readline(self, size: int | None = -1) -> bytes:
        self._lines_left -= 1
        if self._lines_left < 0:
            raise ServiceError(f"the vault's answer comes in more than {mcp.ANSWER_MAX_LINES:,} lines", IN_BETWEEN)
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise ConnectionError("the stream ended within the headers")
        return line


class Route(NamedTuple):
    """Where to connect to, as HOST or HOST:PORT; behind a proxy `tunnel` is the vault, `headers` are for the proxy."""

    host: str
    tls: ssl.SSLContext | None = None
    tunnel: str = ""
    headers: Headers | None = None


def opened(route: Route, cancellation: Cancellation) -> tuple[http.client.HTTPConnection, TimedSocket]:
    """A new connection. Raises OSError, http.client.HTTPException or ValueError."""
    if route.tls:
        secure = http.client.HTTPSConnection(route.host, timeout=mcp.CONNECT_MAX_S, context=route.tls)
        made: http.client.HTTPConnection = secure
    else:
        made = http.client.HTTPConnection(route.host, timeout=mcp.CONNECT_MAX_S)
    if route.tunnel:
        made.set_tunnel(route.tunnel, headers=route.headers)
    _open(made, cancellation, here=not route.tls)
    wire = TimedSocket(made.sock)
    vars(made)["sock"] = wire  # http.client needs no more of a socket than this has
    return made, wire


def _open(connection: http.client.HTTPConnection, cancellation: Cancellation, *, here: bool) -> None:
    """Connects. CONNECT_MAX_S bounds each step of it; a proxy whose answer trickles in makes many."""
    dialled: list[socket.socket] = []

    def dial(address: tuple[str, int], timeout_s: float, _source: object) -> socket.socket:
        return _dial(address, timeout_s, lambda plain: dialled.append(plain.dup()), cancellation, here=here)

    def break_off() -> None:
        for plain in list(dialled):
            TimedSocket(plain).abort()

    vars(connection)["_create_connection"] = dial
    guard = threading.Timer(mcp.REQUEST_MAX_S, break_off)
    guard.daemon = True
    try:
        guard.start()
    except RuntimeError:  # no further thread is to be had: then only each step is bounded
        guard.cancel()
    cancellation.on_set(break_off)
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    finally:
        cancellation.on_set(None)
        guard.cancel()
        for plain in dialled:
            plain.close()


def _dial(
    address: tuple[str, int],
    timeout_s: float,
    made: Callable[[socket.socket], None],
    cancellation: Cancellation,
    *,
    here: bool,
) -> socket.socket:
    """As socket.create_connection, whose socket nobody else knows, and so cannot break off, until it is connected."""
    failure = OSError("the name has no address")
    for family, kind, protocol, _, target in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
        if cancellation.is_set():
            break
        if here and not (str(target[0]).startswith("127.") or target[0] == "::1"):  # a faulty hosts file, or DNS
            rule = "the vault's name leads to another computer, and http:// is for this one only"
            raise ConfigError(rule, "mend this computer's hosts file, or use https://")
        plain = socket.socket(family, kind, protocol)
        made(plain)
        plain.settimeout(timeout_s)
        try:
            plain.connect(target)
        except OSError as error:
            failure = error
            plain.close()
        else:
            return plain
    raise failure


def tls_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, certificates and host names checked, against SIKKERKEY_CA_BUNDLE or certifi's bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # which name constraints do not bind
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE")
    try:
        if bundle and not os.path.isfile(bundle):  # OpenSSL would wait for a FIFO, and read a device for ever
            raise OSError
        if bundle:
            context.load_verify_locations(cafile=bundle)
        else:
            context.load_verify_locations(cadata=_certifi_bundle())
    except (OSError, ValueError):
        raise ConfigError(
            "the CA bundle cannot be read as PEM certificates",
            f"check SIKKERKEY_CA_BUNDLE ({clean(bundle)})" if bundle else "",
        ) from None
    return context


def _certifi_bundle() -> str:
    """certifi's certificates, by its loader: inside a zip, certifi itself would write them to a temporary file."""
    spec = importlib.util.find_spec("certifi")
    if spec is None or spec.origin is None:
        raise ConfigError("certifi is not installed", "pip install certifi, or set SIKKERKEY_CA_BUNDLE")
    read_data: Callable[[str], bytes] = getattr(spec.loader, "get_data")  # noqa: B009 (zipimporter and SourceLoader share no typed base)
    return read_data(os.path.join(os.path.dirname(spec.origin), "cacert.pem")).decode("ascii", "replace")


def is_lasting(error: Exception) -> bool:
    """A certificate or a proxy's refusal: no other try can help, and proxies lock out who insists."""
    return isinstance(error, ssl.SSLCertVerificationError) or _proxy_status(error).startswith("4")


def _proxy_status(error: Exception) -> str:
    status = str(error).partition("Tunnel connection failed: ")[2][:3]  # http.client tells it in no other way
    return status if status.isdigit() else ""


def reason(error: Exception) -> str:
    """Words for a failed exchange, from classes and error numbers: what the peer sent is not repeated."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {clean(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {clean(error.reason or 'no reason given')}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "it did not answer in time"
    if isinstance(error, OSError):
        status = _proxy_status(error)
        return f"the proxy answered {status}" if status else error.strerror or "the connection broke"
    return f"its answer was cut short or malformed ({type(error).__name__})"


# Checked before urllib sees it, whose complaint would quote the password. Any other scheme it overlooks: the password
# for an https:// proxy would be sent in the clear.
PROXY_URL = r"(?:http://|(?![^@/]*:/))(?:.*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?"


def route_to(base_url: str) -> Route:
    """The way to the vault, through the proxy that the environment or the system names. Raises ConfigError."""
    scheme, _, host = base_url.partition("://")
    if scheme == "http":  # loopback, and no proxy's business
        return Route(host)
    import re
    import urllib.request

    request = urllib.request.Request(base_url)  # noqa: S310 (no file: URL: the base has been parsed)
    proxy = urllib.request.getproxies().get("https")
    if proxy:
        if not re.fullmatch(PROXY_URL, proxy):
            rule = "HTTPS_PROXY must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
            raise ConfigError(rule, "proxies that are themselves spoken to over TLS, or SOCKS, are not supported")
        urllib.request.ProxyHandler({}).proxy_open(request, proxy, "https")
    tunnel: str | None = getattr(request, "_tunnel_host", None)
    return Route(request.host, tls_context(), tunnel or "", dict(request.header_items()))
