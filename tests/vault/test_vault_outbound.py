"""Outgoing requests: which URLs and addresses are allowed, and the time limits."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.vault.support.webhook_receiver import Receiver
from vault import outbound
from vault.outbound import ForbiddenUrl, Network, SendError, Target, is_public, parse_url, post

HOOK = "https://hooks.example.com"
PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")

# fmt: off
INSIDE = (
    # IPv4, one from every special network
    str(ipaddress.IPv4Address(0)), "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.1.2.3",
    "169.254.0.1", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.9.9",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # IPv6: unspecified, loopback, link-local, site-local, unique local, multicast, discard, documentation
    "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "100::1", "2001:db8::1", "3fff::1",
    # an IPv4 address in another coat: mapped, compatible, 6to4, NAT64 (well-known and local), Teredo, ISATAP
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:93.184.215.14", "::127.0.0.1", "::7f00:1", "2002:7f00:1::1",
    "64:ff9b::127.0.0.1", "64:ff9b::5db8:d70e", "64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fe80::5efe:127.0.0.1", "::ffff:0:127.0.0.1",
)
ODD_SPELLINGS = (
    "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.0.0.1", "0",
    "1.1", "0x", "010.0.0.1", "93.184.215.014", "0x5d.184.215.14", "1572395790", "127.0.0.1.", "1.2.3.4.5", "999.1.1.1",
)
# fmt: on


def test_private_and_special_addresses_are_not_public() -> None:
    for address in INSIDE:
        assert not is_public(address), address
        literal = f"[{address}]" if ":" in address else address
        with pytest.raises(ForbiddenUrl, match="private or special"):
            parse_url(f"https://{literal}/hook")


def test_other_addresses_are_public() -> None:
    for address in [*PUBLIC, "1.1.1.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2a00::1"]:
        assert is_public(address), address
        literal = f"[{address}]" if ":" in address else address
        assert parse_url(f"https://{literal}/hook") == Target(True, literal, 443, "/hook"), address


def test_an_ipv4_address_in_an_unusual_spelling_is_refused() -> None:
    for host in ODD_SPELLINGS:
        assert not is_public(host), host
        with pytest.raises(ForbiddenUrl):
            parse_url(f"https://{host}/")


def test_invalid_addresses_are_not_public() -> None:
    for text in ["", "localhost", "fe80::1%eth0", "2a00::1%eth0", "1.1.1.1/8", " 1.1.1.1"]:
        assert not is_public(text), text


def test_a_url_is_parsed() -> None:
    for url, target in [
        (HOOK, Target(True, "hooks.example.com", 443, "/")),
        (HOOK + ":8443/a/b?c=d&e=%20", Target(True, "hooks.example.com", 8443, "/a/b?c=d&e=%20")),
        (HOOK + "?token=x", Target(True, "hooks.example.com", 443, "/?token=x")),
        ("https://HOOKS.Example.com/", Target(True, "hooks.example.com", 443, "/")),
        ("https://xn--sger-hra.example/", Target(True, "xn--sger-hra.example", 443, "/")),
        ("http://localhost:8080/x", Target(False, "localhost", 8080, "/x")),
        ("http://127.0.0.1/", Target(False, "127.0.0.1", 80, "/")),
        ("http://[::1]:8080", Target(False, "[::1]", 8080, "/")),
    ]:
        assert parse_url(url, to_loopback=True) == target, (url, target)


def test_the_host_header_names_the_port_unless_it_is_the_usual_one() -> None:
    urls = [HOOK, HOOK + ":8443", "http://localhost", "http://localhost:8080", "https://[2a00::1]:444"]
    expected = ["hooks.example.com", "hooks.example.com:8443", "localhost", "localhost:8080", "[2a00::1]:444"]
    assert [parse_url(url, to_loopback=True).authority for url in urls] == expected


def test_a_forbidden_url_is_refused_without_being_quoted() -> None:
    for url in [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "http://hooks.example.com/",
        "http://93.184.215.14/",
        "http://127.0.0.2/",
        "http://2130706433/",
        "http://localhost.evil.example/",
        "http://localhost@evil.example/",
        "http://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "https://vault/",
        "https://app.localhost/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://router.home.arpa/",
        "https://user@hooks.example.com/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com:password@evil.example/",
        "https://hooks.example.com\\@evil.example/",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/a\r\nX-Bad: 1",
        "https://hooks.example.com/\u00f8",
        "https://h\u00f8oks.example.com/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://127%2e0.0.1/",
        "https://hooks..example.com/",
        "https://.example.com/",
        "https://hooks.example.com./",
        "https://-a.example.com/",
        "https://" + "a" * 64 + ".example.com/",
        "https://" + "a." * 127 + "example/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[]/",
        HOOK + "/" + "x" * 2048,
    ]:
        with pytest.raises(ForbiddenUrl) as caught:
            parse_url(url, to_loopback=True)
        assert "example" not in str(caught.value), url
        assert "evil" not in str(caught.value), url


def test_a_url_has_at_most_2048_characters() -> None:
    longest = f"{HOOK}/".ljust(2_048, "x")
    assert parse_url(longest).path.endswith("x" * 1_900)
    with pytest.raises(ForbiddenUrl):
        parse_url(longest + "x")


# ---- delivery --------------------------------------------------------------------------------------------------------


class Outside:
    """A network in which every public address is one receiver. Records lookups and connections."""

    def __init__(self, port: int, *answers: Sequence[str]) -> None:
        self.port = port
        self.answers = list(answers)
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, int]] = []

    def look_up(self, host: str, _port: int) -> Sequence[str]:
        self.looked_up.append(host)
        return self.answers.pop(0)

    def connect(self, address: tuple[str, int], timeout_s: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def network(self, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> Network:
        return Network(self.look_up, self.connect, tls)


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, Callable[[], ssl.SSLContext]]:
    """The TLS context of a server with a name, and a factory for contexts of clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, lambda: ssl.create_default_context(cadata=made.public_bytes(Encoding.PEM).decode())


def test_the_connection_goes_to_the_checked_address_with_the_host_name(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    with Receiver(server) as receiver:
        outside = Outside(receiver.port, [PUBLIC[0]])
        assert post(outside.network(client), HOOK + ":8443/in?x=1", [("x-one", "two")], b"body") == 204
    assert (outside.looked_up, outside.connected) == (["hooks.example.com"], [(PUBLIC[0], 8443)])
    assert names == ["hooks.example.com"]
    received = receiver.received[0]
    headers = {"host": "hooks.example.com:8443", "content-length": "4", "connection": "close", "x-one": "two"}
    assert received == ("/in?x=1", headers, b"body")


def test_a_name_that_later_resolves_to_a_private_address_is_refused(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")
    with Receiver(server) as receiver:
        outside = Outside(receiver.port, [PUBLIC[0]], ["127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:10.0.0.1"])
        network = outside.network(client)
        assert post(network, HOOK, [], b"") == 204
        for _ in range(4):
            with pytest.raises(SendError, match="refused"):
                post(network, HOOK, [], b"")
    assert outside.connected == [(PUBLIC[0], 443)]
    assert len(receiver.received) == 1


def test_one_private_address_is_enough_to_refuse() -> None:
    for addresses in [[], [PUBLIC[0], "10.0.0.1"], ["fe80::1", PUBLIC[1]], ["not an address"]]:
        outside = Outside(1, addresses)
        with pytest.raises(SendError, match="refused"):
            post(outside.network(), HOOK, [], b"")
        assert outside.connected == [], addresses


def test_a_literal_address_is_not_looked_up(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")
    with Receiver(server) as receiver:
        outside = Outside(receiver.port)
        with pytest.raises(SendError, match="tls"):  # the certificate is for the name, so this went all the way
            post(outside.network(client), f"https://{PUBLIC[0]}/", [], b"")
    assert (outside.looked_up, outside.connected) == ([], [(PUBLIC[0], 443)])


def test_localhost_is_not_looked_up_either() -> None:
    with Receiver() as receiver:
        network = Network(look_up=lambda _host, _port: ["10.0.0.1"], to_loopback=True)
        assert post(network, f"http://localhost:{receiver.port}/", [], b"") == 204


@pytest.mark.parametrize("name", ["other.example.com", "example.com"])
def test_a_certificate_for_another_name_is_refused(tmp_path: Path, name: str) -> None:
    server, client = certificate(tmp_path, name)
    with Receiver(server) as receiver:
        outside = Outside(receiver.port, [PUBLIC[0]])
        with pytest.raises(SendError, match="tls"):
            post(outside.network(client), HOOK, [], b"")
    assert receiver.received == []


def test_a_certificate_from_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    server, _ = certificate(tmp_path, "hooks.example.com")
    with Receiver(server) as receiver:
        outside = Outside(receiver.port, [PUBLIC[0]])
        with pytest.raises(SendError, match="tls"):
            post(outside.network(), HOOK, [], b"")
    assert receiver.received == []


def test_the_next_address_is_tried_when_one_does_not_answer(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")
    with Receiver(server) as receiver:
        outside = Outside(receiver.port, [*reversed(PUBLIC)])

        def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
            found = outside.connect(address, timeout_s)
            if address[0] == PUBLIC[1]:
                found.close()
                raise ConnectionRefusedError
            return found

        assert post(outside.network(client)._replace(connect=connect), HOOK, [], b"") == 204
    assert [address for address, _ in outside.connected] == [PUBLIC[1], PUBLIC[0]]


def test_each_address_but_the_last_gets_half_of_the_remaining_time() -> None:
    limits_s: list[float] = []

    def connect(_address: tuple[str, int], limit_s: float) -> socket.socket:
        limits_s.append(limit_s)
        raise TimeoutError

    network = Network(lambda _host, _port: ["93.184.215.14", "93.184.215.15"], connect, limit_s=1_000)
    with pytest.raises(SendError):
        post(network, HOOK, [], b"")
    first, last = limits_s
    assert first <= 500 < last <= 1_000


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with Receiver() as receiver:
        receiver.statuses = [302]
        assert post(Network(to_loopback=True), f"http://127.0.0.1:{receiver.port}/", [], b"") == 302
    assert len(receiver.received) == 1


@contextmanager
def raw_server(*pieces: bytes, hold: bool = False) -> Iterator[int]:
    """Reads a request, sends the pieces, and closes the connection or keeps it open."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                except OSError:  # the client had read enough
                    return
                if hold:
                    released.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        released.set()
        thread.join()


def test_an_invalid_answer_is_an_error() -> None:
    for answer in [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 103 Hints\r\n\r\n" * 1_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ]:
        with raw_server(answer) as port, pytest.raises(SendError, match=r"answer|connection"):
            post(Network(to_loopback=True), f"http://127.0.0.1:{port}/", [], b"x")


def test_only_the_status_is_read() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 1000000000\r\n\r\nxxx"
    with raw_server(answer, hold=True) as port:
        assert post(Network(to_loopback=True), f"http://127.0.0.1:{port}/", [], b"") == 202


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nX: y\r\n",)])
def test_a_silent_receiver_times_out(pieces: tuple[bytes, ...]) -> None:
    with raw_server(*pieces, hold=True) as port, pytest.raises(SendError, match="timeout"):
        post(Network(limit_s=0.2, to_loopback=True), f"http://127.0.0.1:{port}/", [], b"")


class Trickle:
    """A connection that receives one byte per second."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timeouts_s: list[float] = []

    def __enter__(self) -> Trickle:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def monotonic(self) -> float:
        return self.now_s

    def settimeout(self, timeout_s: float) -> None:
        self.timeouts_s.append(timeout_s)

    def sendall(self, _data: bytes) -> None:
        """Sending takes no time."""

    def recv(self, _size: int) -> bytes:
        self.now_s += 1
        return b"H"


def test_a_slow_receiver_does_not_extend_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    trickle = Trickle()
    monkeypatch.setattr(outbound, "time", trickle)
    network = Network(connect=lambda _address, _timeout_s: cast(socket.socket, trickle), to_loopback=True)
    with pytest.raises(SendError, match="timeout"):
        post(network, "http://127.0.0.1/", [], b"")
    assert trickle.timeouts_s == [5.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_a_missing_tls_handshake_times_out() -> None:
    with raw_server(hold=True) as port:
        outside = Outside(port, [PUBLIC[0]])
        with pytest.raises(SendError, match="timeout"):
            post(outside.network()._replace(limit_s=0.2), HOOK, [], b"")


def test_a_closed_port_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SendError, match="connection"):
        post(Network(to_loopback=True), f"http://127.0.0.1:{port}/", [], b"")


def test_an_unknown_name_is_a_connection_error() -> None:
    def look_up(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "unknown")

    with pytest.raises(SendError, match="connection"):
        post(Network(look_up=look_up), HOOK, [], b"")


def test_the_list_of_special_networks_agrees_with_ipaddress() -> None:
    """No address that Python's own tables call private counts as public."""
    for first in range(256):
        for second in (0, 1, 64, 88, 100, 127, 128, 168, 254, 255):
            address = ipaddress.ip_address(f"{first}.{second}.2.1")
            if address.is_private or address.is_multicast or address.is_reserved or address.is_loopback:
                assert not is_public(str(address)), address
