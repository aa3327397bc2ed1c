"""The dashboard answers programs of the vault's user only, because cookies do not know ports."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.served_vault import ROOT
from vault import peers
from vault.dashboard.web import is_loopback_url

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {} {} {} 00000000:00000000 00:00000000 00000000 {:5} 0 1 1 0 10 0 0\n"
CLIENT, SERVER = ("127.0.0.1", 40000), ("127.0.0.1", 8300)
AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
connection = socket.socket()
connection.connect(("127.0.0.1", int(sys.argv[1])))
lines = "GET /dashboard HTTP/1.1", "Host: 127.0.0.1", "Connection: close", "Cookie: " + sys.argv[2], "", ""
connection.sendall("\\r\\n".join(lines).encode())
print(connection.recv(100).split()[1].decode())
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")


def of_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *rows: tuple[str, int]) -> bool:
    """The verdict if the tables have a row with each state and user id."""
    local, remote = peers._hexadecimal(CLIENT), peers._hexadecimal(SERVER)
    table = tmp_path / "tcp"
    table.write_text(HEAD + "".join(ROW.format(local, remote, state, uid) for state, uid in rows))
    monkeypatch.setattr(peers, "TABLES", (str(table), str(tmp_path / "tcp6")))
    return peers.may_be_owner(CLIENT, SERVER)


def test_only_the_vaults_user_and_root_may_be_the_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = os.geteuid()
    assert of_tables(monkeypatch, tmp_path, ("01", own))
    assert of_tables(monkeypatch, tmp_path, ("01", 0))
    assert not of_tables(monkeypatch, tmp_path, ("01", 65534))
    assert not of_tables(monkeypatch, tmp_path, ("01", own), ("01", 65534))
    assert not of_tables(monkeypatch, tmp_path, ("06", 0)), "nobody owns a connection that was left"
    assert not of_tables(monkeypatch, tmp_path)
    assert peers.may_be_owner(("192.0.2.7", 40000), SERVER), "another computer"


def test_a_system_without_tables_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "TABLES", (str(tmp_path / "tcp"), str(tmp_path / "tcp6")))
    assert peers.may_be_owner(CLIENT, SERVER)


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables have the byte order of the machine")
def test_addresses_are_written_as_in_the_tables() -> None:
    assert peers._hexadecimal(("127.0.0.1", 8300)) == "0100007F:206C"
    assert peers._hexadecimal(("::1", 1)) == "00000000000000000000000001000000:0001"


def test_real_connections_are_found_in_the_tables() -> None:
    for host in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, 0), family=family)
        except OSError:  # without IPv6
            continue
        with listener, socket.create_connection(listener.getsockname()[:2]) as client:
            assert peers.may_be_owner(client.getsockname()[:2], listener.getsockname()[:2]), host


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_with_the_cookie_is_refused(signed_in: SignedIn) -> None:
    command = [sys.executable, "-c", AS_NOBODY, str(signed_in.vault.port), signed_in.cookie]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert refused.stdout.strip() == "403"
    assert signed_in.get("").status == 200


def test_a_proxy_is_not_the_owner_but_may_pass_on_its_requests() -> None:
    for url in ("http://127.0.0.1:8300", "http://localhost:1", "http://[::1]:8300"):
        assert is_loopback_url(url), url
    assert not is_loopback_url("https://vault.example.com")


def test_the_tables_are_read_beside_the_event_loop(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[asyncio.AbstractEventLoop | None] = []

    def look_up(*_: object) -> bool:
        try:
            loops.append(asyncio.get_running_loop())
        except RuntimeError:
            loops.append(None)
        return True

    monkeypatch.setattr(peers, "may_be_owner", look_up)
    signed_in.text("")
    assert loops == [None]
