"""HTTP requests to URLs that agents choose, protected against server-side request forgery.

One regular expression parses a URL, and nothing parses it again. The host name is resolved once per request. All of its
addresses must be public, and the connection goes to a checked address, so a later change of the DNS answer has no
effect. Redirects are not followed, and proxies are not used.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable, NamedTuple

import h11

Headers = Sequence[tuple[str, str]]

MAX_URL = 2_048
MAX_ADDRESSES = 4  # tried in order, within the same time limit
# An answer is read up to its status, in a limited number of pieces. h11 limits the headers; the body is not read.
MAX_ANSWER_PIECES, PIECE_BYTES = 100, 4_096

URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[!-\"$-\[\]-~]*)?(?:\?[!-\"$-\[\]-~]*)?)"  # printable ASCII without # and backslash
)
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # many programs read a host that ends like this as an IPv4 address

# Receivers on this machine, for trials: allowed without TLS if the owner wants them, and never resolved. Otherwise an
# agent could make the vault send requests to every program that listens here.
LOOPBACK_HOSTS = {"localhost": ("127.0.0.1", "::1"), "127.0.0.1": ("127.0.0.1",), "[::1]": ("::1",)}
LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")  # RFC 6761, RFC 6762, ICANN 2024, RFC 8375

# IANA's special-purpose registries as of 2025. `is_global` is not used: it differs between Python versions.
# fmt: off
SPECIAL = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)
# fmt: on
NOT_PUBLIC = tuple(ipaddress.ip_network(cidr) for cidr in SPECIAL)
# All other IPv6 addresses are loopback, private, multicast or embedded IPv4 (mapped, compatible, NAT64).
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


class ForbiddenUrl(ValueError):
    """A URL that must not be requested. The message states the rule, without the URL."""


class SendError(Exception):
    """A request without an answer. The message is one of refused, connection, timeout, tls or answer."""


class Target(NamedTuple):
    """A parsed URL. `host` includes the brackets of an IPv6 address."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        return self.host if self.port == (443 if self.secure else 80) else f"{self.host}:{self.port}"


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


class Network(NamedTuple):
    """Access to the network, which tests replace."""

    look_up: Callable[[str, int], Sequence[str]] = _look_up
    connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    limit_s: float = 5.0
    to_loopback: bool = False  # whether plain HTTP to this computer is allowed


INTERNET = Network()


def parse_url(url: str, *, to_loopback: bool = False) -> Target:
    """Parse a URL. Raises ForbiddenUrl if its text breaks a rule; addresses are checked later."""
    match = URL.fullmatch(url)
    if match is None or len(url) > MAX_URL:
        raise ForbiddenUrl("must look like https://host/path, without credentials and fragment")
    secure, host = match["scheme"] == "https", match["host"].lower()
    if not secure and host in LOOPBACK_HOSTS and not to_loopback:
        raise ForbiddenUrl("must not lead to this computer, unless the owner starts serve --webhooks-to-loopback")
    if not secure and host not in LOOPBACK_HOSTS:
        raise ForbiddenUrl("must begin with https://")
    port = int(match["port"] or (443 if secure else 80))
    if not 0 < port < 65_536:
        raise ForbiddenUrl("must have a port from 1 to 65535")
    if secure:
        _check_host(host)
    path = match["path"]
    return Target(secure, host, port, path if path.startswith("/") else f"/{path}")


def is_public(address: str) -> bool:
    """Whether an address is public. Addresses with a zone and unusual spellings of IPv4 addresses are not.

    Python 3.9.4 and older read 0177.0.0.1 as 177.0.0.1, but the C library reads it as 127.0.0.1.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        usual = str(parsed) == address
    else:
        usual = parsed in GLOBAL_UNICAST and "%" not in address
    return usual and not any(parsed in network for network in NOT_PUBLIC if network.version == parsed.version)


def post(network: Network, url: str, headers: Headers, body: bytes) -> int:
    """Send one POST request and return the status. Raises SendError if there is none within the time limit."""
    deadline_s = time.monotonic() + network.limit_s
    try:
        target = parse_url(url, to_loopback=network.to_loopback)
        with _connect(network, target, _addresses(network, target), deadline_s) as connection:
            return _exchange(connection, target, headers, body, deadline_s)
    except ForbiddenUrl:
        raise SendError("refused") from None
    except socket.timeout:  # TimeoutError since Python 3.10
        raise SendError("timeout") from None
    except ssl.SSLError:
        raise SendError("tls") from None
    except OSError:
        raise SendError("connection") from None
    except h11.RemoteProtocolError:
        raise SendError("answer") from None


def _check_host(host: str) -> None:
    if _is_numeric(host):
        if not is_public(host.strip("[]")):
            raise ForbiddenUrl("must not name a private or special address, or an address in an unusual spelling")
        return
    labels = host.split(".")
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise ForbiddenUrl("must have a valid host name")
    if len(labels) < 2 or any(host.endswith(f".{name}") for name in LOCAL_NAMES):
        raise ForbiddenUrl("must not name a local host")


def _is_numeric(host: str) -> bool:
    return host.startswith("[") or NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _addresses(network: Network, target: Target) -> Sequence[str]:
    """The addresses to try. Raises ForbiddenUrl if any address is not public."""
    if not target.secure:
        return LOOPBACK_HOSTS[target.host]
    numeric = _is_numeric(target.host)
    found = [target.host.strip("[]")] if numeric else network.look_up(target.host, target.port)
    if not found or not all(is_public(address) for address in found):
        raise ForbiddenUrl("must not lead to a private or special address")
    return found[:MAX_ADDRESSES]


def _connect(network: Network, target: Target, addresses: Sequence[str], deadline_s: float) -> socket.socket:
    plain = _connect_first(network, addresses, target.port, deadline_s)
    if not target.secure:
        return plain
    try:
        plain.settimeout(_left_s(deadline_s))
        return network.tls().wrap_socket(plain, server_hostname=target.host.strip("[]"))
    except BaseException:
        plain.close()
        raise


def _connect_first(network: Network, addresses: Sequence[str], port: int, deadline_s: float) -> socket.socket:
    for address in addresses[:-1]:
        with suppress(OSError):  # the next address may answer
            return network.connect((address, port), _left_s(deadline_s) / 2)
    return network.connect((addresses[-1], port), _left_s(deadline_s))


def _exchange(connection: socket.socket, target: Target, headers: Headers, body: bytes, deadline_s: float) -> int:
    """Send the request and read the status. All reads share one deadline, so a slow sender cannot extend it."""
    http = h11.Connection(h11.CLIENT)
    fixed = (("host", target.authority), ("content-length", str(len(body))), ("connection", "close"))
    request = h11.Request(method="POST", target=target.path, headers=[*fixed, *headers])
    connection.settimeout(_left_s(deadline_s))
    connection.sendall(_encode(http, request) + _encode(http, h11.Data(data=body)) + _encode(http, h11.EndOfMessage()))
    for _ in range(MAX_ANSWER_PIECES):
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            connection.settimeout(_left_s(deadline_s))
            http.receive_data(connection.recv(PIECE_BYTES))
        elif not isinstance(event, h11.InformationalResponse):
            break
    raise SendError("answer")


def _encode(http: h11.Connection, event: h11.Event) -> bytes:
    return http.send(event) or b""


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise socket.timeout
    return left_s
