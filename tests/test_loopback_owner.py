"""http:// on loopback: nothing is sent to a socket of another user of this computer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_http
import sikkerkey_mcp
from sikkerkey_http import ForeignListener

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who listens")

TABLES = sikkerkey_http._SOCKET_TABLES
NOBODY = 65_534
OWN = os.geteuid() if hasattr(os, "geteuid") else 0
OTHER = OWN + 1
PORT, OWN_PORT = 0x1F90, 0x2328
IPV4, IPV6 = "0100007F", "00000000000000000000000001000000"
MAPPED = "0000000000000000FFFF0000" + IPV4
ANY_IPV4, ANY_IPV6 = "0" * 8, "0" * 32
LISTENING, ESTABLISHED = "0A", "01"
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the rows below are in its order")


@pytest.fixture(autouse=True)
def _tables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This computer's tables, which other tests do without."""
    monkeypatch.setattr(sikkerkey_http, "_SOCKET_TABLES", TABLES)


class Connected:
    """A connected socket."""

    def __init__(self, address: str) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address, OWN_PORT

    def getpeername(self) -> tuple[str, int]:
        return self._address, PORT


def row(local: str, remote: str, state: str, user: int) -> str:
    return f"   1: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {user:5d}        0 12345 1 0\n"


def listener(address: str, user: int, port: int = PORT) -> str:
    return row(f"{address}:{port:04X}", f"{'0' * len(address)}:0000", LISTENING, user)


def connection(address: str, user: int = OWN) -> str:
    """The row of the client's own socket."""
    return row(f"{address}:{OWN_PORT:04X}", f"{address}:{PORT:04X}", ESTABLISHED, user)


def accepted(address: str, user: int) -> str:
    return row(f"{address}:{PORT:04X}", f"{address}:{OWN_PORT:04X}", ESTABLISHED, user)


CASES: dict[str, tuple[str, list[str], bool]] = {
    "own": ("127.0.0.1", [listener(IPV4, OWN), connection(IPV4), accepted(IPV4, OWN)], True),
    "not accepted yet": ("127.0.0.1", [listener(IPV4, OWN), connection(IPV4), accepted(IPV4, 0)], True),
    "root": ("127.0.0.1", [listener(IPV4, 0), connection(IPV4), accepted(IPV4, 0)], True),
    "another": ("127.0.0.1", [listener(IPV4, OTHER), connection(IPV4)], False),
    "another, all addresses": ("127.0.0.1", [listener(ANY_IPV4, OTHER), connection(IPV4)], False),
    "another, both families": ("127.0.0.1", [listener(ANY_IPV6, OTHER), connection(IPV4)], False),
    "another, mapped": ("127.0.0.1", [listener(MAPPED, OTHER), connection(IPV4)], False),
    "own, both families": ("127.0.0.1", [listener(ANY_IPV6, OWN), connection(IPV4), accepted(MAPPED, OWN)], True),
    "another has accepted": ("127.0.0.1", [listener(IPV4, OWN), connection(IPV4), accepted(IPV4, OTHER)], False),
    "another is gone": ("127.0.0.1", [connection(IPV4), accepted(IPV4, OTHER)], False),
    "another on another port": ("127.0.0.1", [listener(IPV4, OWN), listener(IPV4, OTHER, 1), connection(IPV4)], True),
    "own by IPv6": ("::1", [listener(IPV6, OWN), connection(IPV6)], True),
    "another by IPv6": ("::1", [listener(IPV6, OTHER), connection(IPV6)], False),
    "another by IPv6, all addresses": ("::1", [listener(ANY_IPV6, OTHER), connection(IPV6)], False),
    "own by IPv4 is not IPv6": ("::1", [listener(IPV4, OWN), connection(IPV6)], False),
    "tables without rows": ("127.0.0.1", [], True),
}


@little_endian
@pytest.mark.parametrize("name", CASES)
def test_the_listeners_owner_is_read_from_the_tables(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, rows, expected = CASES[name]
    tables = tmp_path / "tcp", tmp_path / "tcp6"
    for table, is_ipv6 in zip(tables, (False, True)):
        chosen = [each for each in rows if (len(each.split()[1]) > 13) == is_ipv6]
        table.write_text(HEADER + "".join(chosen))
    monkeypatch.setattr(sikkerkey_http, "_SOCKET_TABLES", tuple(map(str, tables)))
    connected: Any = Connected(address)
    assert sikkerkey_http._is_own_listener(connected, {0, OWN}) == expected
    monkeypatch.setattr(sikkerkey_http, "_SOCKET_TABLES", (str(tmp_path / "none"),))
    assert sikkerkey_http._is_own_listener(connected, {0, OWN})


def test_the_vaults_user_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, more in (("", set()), ("12345", {12345}), ("root", {0}), ("no such user", set())):
        monkeypatch.setenv("SIKKERKEY_VAULT_USER", named)
        assert sikkerkey_http._allowed_users() == {0, OWN, *more}, named


LISTENER = """
import os, socket
os.setgid(65534)
os.setuid(65534)
with socket.create_server(("127.0.0.1", 0)) as foreign:
    print(foreign.getsockname()[1], flush=True)
    connection, _ = foreign.accept()
    print(connection.recv(65536), flush=True)
"""


@pytest.fixture
def foreign_url() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of a listener that another user has started."""
    if OWN != 0:
        pytest.skip("only root can listen as another user")
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process
        process.kill()


def test_nothing_is_sent_to_a_listener_of_another_user(foreign_url: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = foreign_url
    opener, connections = sikkerkey_mcp.open_vault(url)
    request = sikkerkey_http.AbortableRequest(url + "/v1/ai/whoami", data=b"a secret", method="POST")
    request.on_abort = lambda _abort: None
    with pytest.raises(ForeignListener):
        opener.open(request)
    connections.close()
    assert process.stdout is not None
    assert process.stdout.read() == "b''\n"


def test_a_listener_of_a_named_user_is_trusted(
    foreign_url: tuple[str, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = foreign_url
    monkeypatch.setenv("SIKKERKEY_VAULT_USER", str(NOBODY))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connected:
        assert sikkerkey_http._is_own_listener(connected, sikkerkey_http._allowed_users())
