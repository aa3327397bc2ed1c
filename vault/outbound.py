"""Sending to the outside without being sent to the inside: URLs that agents name must not reach private networks.

A URL is taken apart here, by one expression, and nobody parses it again. The host's addresses are looked up once for
each request; every one of them has to be public, and the connection goes to the very address that was checked, so that
a name that answers differently a moment later changes nothing. Redirects are not followed and proxies not used.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

import h11

Headers = Sequence[tuple[str, str]]

MAX_URL = 2_048
MAX_ADDRESSES = 4  # tried one after the other, within the same time limit
# An answer is read up to its status, in so many pieces at most; h11 bounds the headers, and the body is not read.
MAX_ANSWER_PIECES, PIECE_BYTES = 100, 4_096

URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[!-\"$-\[\]-~]*)?(?:\?[!-\"$-\[\]-~]*)?)"  # printable ASCII without # and backslash
)
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a host that ends like this is an IPv4 address to many programs

# The trial case: receivers on this very machine, spelled out and without TLS. Not looked up anywhere.
TRIAL_HOSTS = {"localhost": ("127.0.0.1", "::1"), "127.0.0.1": ("127.0.0.1",), "[::1]": ("::1",)}
LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")  # RFC 6761, RFC 6762, ICANN 2024, RFC 8375

# IANA's special-purpose registries, as of 2025, spelled out: `is_global` differs between Python versions.
# fmt: off
SPECIAL = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)
# fmt: on
NOT_PUBLIC = tuple(ipaddress.ip_network(cidr) for cidr in SPECIAL)
# All other IPv6 is loopback, private, multicast or an IPv4 address in another coat (mapped, compatible, NAT64).
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


class Forbidden(ValueError):
    """A URL that must not be called; the message says why, without the URL."""


class SendError(Exception):
    """No answer: refused, connection, timeout, tls or answer."""


class Target(NamedTuple):
    """A URL in its parts; `host` keeps the brackets of an IPv6 address."""

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
    """What is outside, so that tests can put something else there."""

    look_up: Callable[[str, int], Sequence[str]] = _look_up
    connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    limit_s: float = 5.0


INTERNET = Network()


def target_of(url: str) -> Target:
    """The parts of a URL that may be called as far as its text tells; Forbidden otherwise."""
    match = URL.fullmatch(url)
    if match is None or len(url) > MAX_URL:
        raise Forbidden("must look like https://host/path, without credentials and fragment")
    secure, host = match["scheme"] == "https", match["host"].lower()
    if not secure and host not in TRIAL_HOSTS:
        raise Forbidden("must begin with https://, except for http://localhost, http://127.0.0.1 and http://[::1]")
    port = int(match["port"] or (443 if secure else 80))
    if not 0 < port < 65_536:
        raise Forbidden("must have a port from 1 to 65535")
    if secure:
        _check_host(host)
    path = match["path"]
    return Target(secure, host, port, path if path.startswith("/") else f"/{path}")


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; zones do not, nor IPv4 addresses in unusual spellings.

    Python 3.9.4 and older read 0177.0.0.1 as 177.0.0.1, and the C library as 127.0.0.1.
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
    """The status of one POST; SendError if there is none within the time limit."""
    deadline_s = time.monotonic() + network.limit_s
    try:
        target = target_of(url)
        with _connected(network, target, _addresses(network, target), deadline_s) as connection:
            return _exchange(connection, target, headers, body, deadline_s)
    except Forbidden:
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
            raise Forbidden("must not name a private or special address, or an address in an unusual spelling")
        return
    labels = host.split(".")
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise Forbidden("must have a valid host name")
    if len(labels) < 2 or any(host.endswith(f".{name}") for name in LOCAL_NAMES):
        raise Forbidden("must not name a local host")


def _is_numeric(host: str) -> bool:
    return host.startswith("[") or NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _addresses(network: Network, target: Target) -> Sequence[str]:
    """One bad address among good ones is reason enough to refuse."""
    if not target.secure:
        return TRIAL_HOSTS[target.host]
    numeric = _is_numeric(target.host)
    found = [target.host.strip("[]")] if numeric else network.look_up(target.host, target.port)
    if not found or not all(is_public(address) for address in found):
        raise Forbidden("must not lead to a private or special address")
    return found[:MAX_ADDRESSES]


def _connected(network: Network, target: Target, addresses: Sequence[str], deadline_s: float) -> socket.socket:
    plain = _first(network, addresses, target.port, deadline_s)
    if not target.secure:
        return plain
    try:
        plain.settimeout(_left_s(deadline_s))
        return network.tls().wrap_socket(plain, server_hostname=target.host.strip("[]"))
    except BaseException:
        plain.close()
        raise


def _first(network: Network, addresses: Sequence[str], port: int, deadline_s: float) -> socket.socket:
    for address in addresses[:-1]:
        try:
            return network.connect((address, port), _left_s(deadline_s) / 2)
        except OSError:
            continue
    return network.connect((addresses[-1], port), _left_s(deadline_s))


def _exchange(connection: socket.socket, target: Target, headers: Headers, body: bytes, deadline_s: float) -> int:
    """Send, and read up to the status. Each wait gets what is left of the time: a trickle does not extend it."""
    http = h11.Connection(h11.CLIENT)
    fixed = (("host", target.authority), ("content-length", str(len(body))), ("connection", "close"))
    request = h11.Request(method="POST", target=target.path, headers=[*fixed, *headers])
    connection.settimeout(_left_s(deadline_s))
    connection.sendall(_wire(http, request) + _wire(http, h11.Data(data=body)) + _wire(http, h11.EndOfMessage()))
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


def _wire(http: h11.Connection, event: h11.Event) -> bytes:
    return http.send(event) or b""


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise socket.timeout
    return left_s
