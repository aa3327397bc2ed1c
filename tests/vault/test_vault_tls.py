"""HTTPS on loopback with the vault's own certificate, beside plain HTTP for machines."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from cryptography import x509
from starlette.types import Receive, Scope, Send

import sikkerkey_http
from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import Spawned
from vault import certificate, server
from vault.domains import agents
from vault.errors import VaultError
from vault.router import wall_clock
from vault.schema import open_store
from vault.store import Store

TIMEOUT_S = 20
NOW = wall_clock()
LIFE_MS = int(certificate.LIFE.total_seconds() * 1000)


def trusting(directory: Path) -> ssl.SSLContext:
    """A client's context that trusts only the vault's certificate."""
    return ssl.create_default_context(cafile=str(directory / certificate.NAME))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "vault"
    made.mkdir(mode=0o700)
    return made


def test_a_server_speaks_http_and_https_and_the_owner_sees_where(tmp_path: Path) -> None:
    directory = tmp_path / "vault"
    served = Spawned(directory)
    status, shown, _ = run_command(directory, "agent-token", "--scopes", "all")
    token, address = shown.splitlines()
    url, _, pinned = address.partition("#sha256=")
    assert (status, len(token), urlsplit(url).hostname) == (0, 64, "127.0.0.1")
    assert run_command(directory, "status")[1].splitlines()[3] == f"for agents: {address}"
    assert json.loads(run_command(directory, "status", "--json")[1])["agentUrl"] == address
    assert json.loads(run_command(directory, "agent-token", "--scopes", "all", "--json")[1])["agentUrl"] == address
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/", timeout=TIMEOUT_S, context=trusting(directory))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{served.url}/", timeout=TIMEOUT_S)
    pem = (directory / certificate.NAME).read_bytes()
    assert certificate.fingerprint(x509.load_pem_x509_certificate(pem)) == pinned
    assert (directory / certificate.NAME).stat().st_mode & 0o777 == 0o600
    assert served.end() == (0, "", "")
    assert len(run_command(directory, "agent-token", "--scopes", "all")[1].split()) == 1


def tls_port(store: Store, options: server.ListenOptions) -> int:
    """The port that a start with these options would have HTTPS at."""
    with contextlib.ExitStack() as opened:
        port: int = server._listen_for_tls(options, store, opened).getsockname()[1]
        return port


def test_the_port_for_https_is_the_next_one_or_the_one_that_is_named(tmp_path: Path) -> None:
    asked: list[server.ListenOptions] = []

    def unbound(options: server.ListenOptions, opened: contextlib.ExitStack) -> socket.socket:
        asked.append(options)
        return opened.enter_context(socket.create_server(("127.0.0.1", 0)))  # what is asked for may be in use

    cases = ((8300, None), (0, None), (65_535, None), (8300, 9000), (8300, 0))
    for number, (port, named) in enumerate(cases):
        with pytest.MonkeyPatch.context() as patch, open_store(tmp_path / str(number)) as store:
            patch.setattr(server, "_listen", unbound)
            tls_port(store, server.ListenOptions("0.0.0.0", port, named))  # noqa: S104
    assert [(one.host, one.port) for one in asked] == [("127.0.0.1", port) for port in (8301, 0, 0, 9000, 0)]


def test_a_taken_port_after_the_one_for_http_is_replaced_and_the_new_one_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, open_store(tmp_path / "vault") as store:
        taken = stranger.getsockname()[1]
        options = server.ListenOptions(port=taken - 1)
        first = tls_port(store, options)
        assert first not in (taken, taken - 1)
        [hint] = capsys.readouterr().err.splitlines()
        assert hint == f"hint: port {taken} is in use: HTTPS for agents is at port {first} from now on"
        assert (store.directory / server.TLS_PORT).stat().st_mode & 0o777 == 0o600
        assert server._expected_tls_port(options._replace(port=taken + 1000), store) == first
        assert server._expected_tls_port(options._replace(tls_port=0), store) == 0
        (store.directory / server.TLS_PORT).write_text("many")
        assert server._expected_tls_port(options, store) == taken


def test_a_taken_port_that_agents_know_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, open_store(tmp_path / "vault") as store:
        taken = stranger.getsockname()[1]
        with store.transaction() as db:
            assert not agents.any_installed(db)
            db.execute(
                "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, created_ms)"
                " VALUES ('a1', 'laptop', 'key', '', 0, 0)"
            )
            assert agents.any_installed(db), "also one that waits for approval"
        with pytest.raises(server.PortError, match=f"cannot listen on 127.0.0.1 port {taken}: ") as failure:
            tls_port(store, server.ListenOptions(port=taken - 1))
        assert "this vault's agents connect to that port" in failure.value.hint
        assert "--tls-port 0" in failure.value.hint
        chosen = tls_port(store, server.ListenOptions(port=taken - 1, tls_port=0))
        assert capsys.readouterr().err == ""
        assert server._expected_tls_port(server.ListenOptions(port=taken - 1), store) == chosen


def test_a_taken_port_for_https_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        status, _, err = run_command(tmp_path / "vault", "serve", "--tls-port", str(port))
    assert status == 1
    message = f"vault: error: cannot listen on 127.0.0.1 port {port}: address already in use"
    assert err == f"{message}\nhint: choose another --tls-port; 0 takes a free one\n"


def test_links_to_temporary_secrets_are_for_browsers() -> None:
    """They do not know the certificate."""
    with contextlib.ExitStack() as opened:
        for host, expected in (("127.0.0.1", "http://127.0.0.1:{}"), ("0.0.0.0", None)):  # noqa: S104
            listener = server._listen(server.ListenOptions(host), opened)
            url = server._public_url(server.ListenOptions(host), listener)
            assert url == (expected and expected.format(listener.getsockname()[1]))
            assert (
                server._public_url(server.ListenOptions(public_url="https://v.example"), listener)
                == "https://v.example"
            )


def test_a_certificate_is_kept_until_it_has_expired(directory: Path) -> None:
    first = certificate.load_or_create(directory, NOW)
    kept = certificate.load_or_create(directory, NOW + LIFE_MS - 1000)
    renewed = certificate.load_or_create(directory, NOW + LIFE_MS + 1000)
    assert certificate.fingerprint(kept) == certificate.fingerprint(first) != certificate.fingerprint(renewed)
    assert [path.name for path in directory.iterdir()] == [certificate.NAME]


def test_a_certificate_is_for_this_computer_and_signs_no_other(directory: Path) -> None:
    extensions = certificate.load_or_create(directory, NOW).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False


def test_a_file_that_holds_no_certificate_or_is_open_to_others_is_refused(directory: Path) -> None:
    path = directory / certificate.NAME
    certificate.load_or_create(directory, NOW)
    path.chmod(0o640)
    with pytest.raises(VaultError, match="can be accessed by other users"):
        certificate.load_or_create(directory, NOW)
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"-----BEGIN CERT") :])
    with pytest.raises(VaultError, match="does not hold a private key and its certificate"):
        certificate.tls_context(directory)
    path.write_bytes(b"canary")
    with pytest.raises(VaultError, match="does not hold a private key and its certificate") as refused:
        certificate.load_or_create(directory, NOW)
    assert f"mv {path} {path}.old" in refused.value.hint


def test_a_backup_does_not_contain_the_certificate(tmp_path: Path) -> None:
    directory, restored = tmp_path / "vault", tmp_path / "restored"
    open_store(directory).close()
    certificate.load_or_create(directory, NOW)
    passphrase = "a passphrase for the backup"
    options = ("--passphrase-file", "-")
    assert run_command(directory, "backup", str(tmp_path / "file"), *options, typed=passphrase)[0] == 0
    assert run_command(restored, "restore", str(tmp_path / "file"))[0] == 0
    assert not (restored / certificate.NAME).exists()


class TlsServer:
    """The vault's listeners in a thread, with an application that answers with the scheme."""

    def __init__(self, directory: Path) -> None:
        certificate.load_or_create(directory, NOW)
        self.plain = socket.create_server(("127.0.0.1", 0))
        self.tls = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.tls.getsockname()[1]
        config = server.uvicorn_config(self)
        self._server: uvicorn.Server = server._Server(config, self.tls, certificate.tls_context(directory))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.plain]})
        self._thread.start()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        body = scope["scheme"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    @property
    def connections(self) -> set[Any]:
        return self._server.server_state.connections

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.plain.close()
        self.tls.close()


@pytest.fixture
def tls_server(directory: Path) -> Iterator[TlsServer]:
    running = TlsServer(directory)
    yield running
    running.stop()


def fetched(running: TlsServer, directory: Path) -> str:
    url = f"https://127.0.0.1:{running.port}/"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=trusting(directory)) as response:
        return str(response.read().decode())


def test_connections_that_do_not_finish_the_handshake_are_counted(
    tls_server: TlsServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    with contextlib.ExitStack() as opened:
        silent = []
        for _ in range(6):
            silent.append(opened.enter_context(socket.create_connection(("127.0.0.1", tls_server.port), TIMEOUT_S)))
            assert fetched(tls_server, directory) == "https"
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""
        assert len(tls_server.connections) <= 5


def test_a_broken_handshake_ends_its_connection_alone(tls_server: TlsServer, directory: Path) -> None:
    for start in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
        with socket.create_connection(("127.0.0.1", tls_server.port), TIMEOUT_S) as stranger:
            stranger.sendall(start)
            stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(1024):
                    pass
        assert fetched(tls_server, directory) == "https"


def test_tls_without_a_modern_cipher_is_refused(tls_server: TlsServer, directory: Path) -> None:
    context = trusting(directory)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-SHA256")
    with (
        socket.create_connection(("127.0.0.1", tls_server.port), TIMEOUT_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert certificate.tls_context(directory).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process can forbid inspection on Linux only")
def test_a_server_forbids_inspection_and_works_as_before(tmp_path: Path) -> None:
    """Its commands reach it, and clients see who listens."""
    directory = tmp_path / ("long" * 40) / "vault"  # so that the control socket is reached through /proc/self/fd
    directory.parent.mkdir()
    directory.parent.chmod(0o700)
    served = Spawned(directory)
    try:
        owner = os.stat(f"/proc/{served.process.pid}/environ").st_uid
        if os.geteuid() != 0:
            assert owner == 0
            with pytest.raises(PermissionError):
                Path(f"/proc/{served.process.pid}/environ").read_bytes()
        assert run_command(directory, "seal")[1] == "sealed\n"
        assert run_command(directory, "unseal")[1] == "unsealed\n"
        with socket.create_connection(("127.0.0.1", served.port)) as connected:
            assert sikkerkey_http._is_own_listener(connected, {os.geteuid()})
    finally:
        assert served.end() == (0, "", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process can forbid inspection on Linux only")
def test_a_server_forbids_inspection_before_it_has_a_key(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(server, "forbid_inspection", lambda: order.append("forbidden"))
    monkeypatch.setattr(server, "disable_core_dumps", lambda: order.append("no dumps"))

    def opened(*_arguments: object, **_options: object) -> None:
        order.append("key")
        raise VaultError("enough", "")

    monkeypatch.setattr(server, "open_store", opened)
    with pytest.raises(VaultError, match="enough"):
        server.serve(directory, server.ListenOptions())
    assert order == ["no dumps", "forbidden", "key"]
