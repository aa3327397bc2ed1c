"""The vault's directory: permissions, keys, locks, restarts and processes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import Agent, Spawned, Vault, encoded, exchange, public_bytes
from vault import server
from vault.errors import VaultError
from vault.files import check_private, create_private
from vault.migrations import SCHEMA_VERSION
from vault.router import wall_clock
from vault.schema import open_store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a vault that no process has open."""
    open_store(tmp_path / "vault").close()
    return tmp_path / "vault"


def refusal(directory: Path) -> tuple[str, str]:
    with pytest.raises(VaultError) as caught:
        open_store(directory)
    return str(caught.value), caught.value.hint


def test_all_files_are_private(directory: Path) -> None:
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [directory, *directory.iterdir()]}
    assert modes == {"vault": "0o700", "vault.db": "0o600", "root.key": "0o600", "init.lock": "0o600"}


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_store(tmp_path / "vault"):
            modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "vault").iterdir()}
    finally:
        os.umask(before)
    assert modes == {0}


@pytest.mark.parametrize("name", ["root.key", "vault.db"])
def test_a_file_that_others_can_access_is_refused(directory: Path, name: str) -> None:
    path = directory / name
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        assert refusal(directory) == (f"file {path} can be accessed by other users", f"chmod 600 {path}")
    path.chmod(0o600)
    open_store(directory).close()


def test_a_directory_that_others_can_access_is_refused(directory: Path) -> None:
    directory.chmod(0o750)
    assert refusal(directory) == (f"directory {directory} can be accessed by other users", f"chmod 700 {directory}")


@pytest.mark.parametrize("name", ["root.key", "vault.db"])
def test_a_linked_file_is_refused_and_the_hint_fixes_it(directory: Path, name: str) -> None:
    path, elsewhere = directory / name, directory.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    message, hint = refusal(directory)
    assert message == f"file {path} is a symbolic link"
    subprocess.run(["sh", "-c", hint], check=True)
    open_store(directory).close()


def test_a_linked_directory_is_refused(directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory)
    assert refusal(link) == (f"directory {link} is a symbolic link", f"name the real one: --dir {directory}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", "root.key", "vault.db"])
def test_a_file_of_another_user_is_refused(directory: Path, name: str) -> None:
    path = directory / name
    os.chown(path, 12345, -1)
    message, hint = refusal(directory)
    assert message.endswith("belongs to another user")
    assert hint == f"chown 0 {path}"


def test_a_file_that_cannot_be_examined_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="cannot be used: no such file or directory"):
        check_private(tmp_path / "nothing")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"")
    assert refusal(tmp_path / "vault")[0] == f"directory {tmp_path / 'vault'} cannot be used: file exists"


def test_a_missing_root_key_is_never_replaced(directory: Path) -> None:
    (directory / "root.key").unlink()
    assert refusal(directory)[0] == f"root key {directory / 'root.key'} is missing"
    assert not (directory / "root.key").exists()


def test_a_damaged_root_key_is_refused_without_being_shown(directory: Path) -> None:
    for content in (b"", b"ab" * 31, b"zz" * 32, b"\xff" * 64):
        (directory / "root.key").write_bytes(content)
        assert refusal(directory)[0] == f"root key {directory / 'root.key'} is damaged"


def test_the_root_key_of_another_vault_is_refused(directory: Path) -> None:
    (directory / "root.key").write_bytes(b"ab" * 32)
    assert refusal(directory)[0] == f"root key {directory / 'root.key'} belongs to another vault"


def test_a_file_that_is_not_a_database_is_refused(directory: Path) -> None:
    (directory / "vault.db").write_bytes(b"something else entirely" * 100)
    assert refusal(directory)[0] == f"file {directory / 'vault.db'} is not a vault's database"


def test_a_vault_from_a_newer_program_is_refused(directory: Path) -> None:
    with open_store(directory) as store, store.transaction() as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert refusal(directory)[1] == "use a newer program"


def test_opening_a_vault_writes_nothing(directory: Path) -> None:
    with open_store(directory), contextlib.closing(sqlite3.connect(directory / "vault.db")) as watching:
        before = watching.execute("PRAGMA data_version").fetchone()
        with open_store(directory):
            pass
        assert watching.execute("PRAGMA data_version").fetchone() == before


def test_a_vault_that_could_not_be_created_is_none_and_can_be_created_later(tmp_path: Path) -> None:
    directory = tmp_path / "vault"
    directory.mkdir(mode=0o700)
    create_private(directory / "vault.db", b"")
    assert run_command(directory, "status")[2].startswith(f"vault: error: there is no vault in {directory}\n")
    assert (directory / "vault.db").stat().st_size == 0
    assert run_command(directory, "init")[0] == 0
    assert run_command(directory, "status")[0] == 0
    assert run_command(directory, "init")[2].startswith(f"vault: error: there is already a vault in {directory}\n")


def test_concurrent_processes_create_one_vault(tmp_path: Path) -> None:
    ids, gate = [], threading.Barrier(20)

    def make() -> None:
        gate.wait()
        with open_store(tmp_path / "vault") as store:
            ids.append(store.vault_id)

    threads = [threading.Thread(target=make) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ids), len(set(ids))) == (20, 1)


def test_a_restart_keeps_data_and_nonces(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    secret = agent.secret(project_id, "kept")
    headers = agent.headers("GET", "/v1/ai/projects")
    before = exchange(vault.port, "GET", "/v1/ai/projects", b"", headers)
    vault.close()
    vault.open()
    assert agent.get("/v1/ai/projects") == before.json
    assert vault.value(secret.rpartition("/")[2]) == "kept"
    replayed = exchange(vault.port, "GET", "/v1/ai/projects", b"", headers)
    assert (replayed.status, replayed.error) == (401, "the nonce was used before")


def test_the_server_prints_its_url_and_stops_cleanly(tmp_path: Path) -> None:
    served = Spawned(tmp_path / "vault")
    assert served.url == f"http://127.0.0.1:{served.port}"
    assert exchange(served.port, "GET", "/v1/ai/whoami", b"", []).error == "unknown identity"
    assert served.end(signal.SIGTERM) == (0, "", "")


def test_a_second_server_and_a_taken_port_are_refused(tmp_path: Path) -> None:
    served = Spawned(tmp_path / "vault")
    second = Spawned(tmp_path / "vault")
    elsewhere = Spawned(tmp_path / "other", "--port", str(served.port))
    for refused, message in (
        (second, f"another server has {tmp_path / 'vault'} open\nhint: stop it, or name another --dir\n"),
        (
            elsewhere,
            f"cannot listen on 127.0.0.1 port {served.port}: address already in use\n"
            "hint: choose another --port; 0 takes a free one\n",
        ),
    ):
        out, err = refused.process.communicate(timeout=20)
        assert (refused.process.returncode, out, err) == (1, "", f"vault: error: {message}")
    assert served.end()[0] == 0


def test_answers_on_a_kept_connection_are_not_delayed() -> None:
    """asyncio disables Nagle's algorithm only if the protocol is given. With it, each answer takes 40 ms."""
    with contextlib.ExitStack() as opened:
        assert server._listen(server.ListenOptions(), opened).proto == socket.IPPROTO_TCP


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this system has no IPv6 on loopback")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1"])  # noqa: S104
def test_nobody_else_can_take_the_other_loopback_address(host: str) -> None:
    with contextlib.ExitStack() as opened:
        listener = server._listen(server.ListenOptions(host), opened)
        own, port = listener.getsockname()[:2]
        other = "127.0.0.1" if own == "::1" else "::1"
        family = socket.AF_INET6 if ":" in other else socket.AF_INET
        for option in (socket.SO_KEEPALIVE, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket(family) as thief:
                thief.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind((other, port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port))
        if host != "::1":
            with socket.create_connection(("localhost", port)) as connected:
                assert connected.getpeername()[0] == "127.0.0.1"


@pytest.mark.skipif(not has_ipv6(), reason="this system has no IPv6 on loopback")
def test_a_vault_does_not_start_beside_a_stranger_on_loopback() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as stranger, contextlib.ExitStack() as opened:
        port = stranger.getsockname()[1]
        message = f"cannot listen on both loopback addresses port {port}: address already in use"
        with pytest.raises(VaultError, match=message):
            server._listen(server.ListenOptions(port=port), opened)
        with socket.create_server(("127.0.0.1", port)):
            pass  # and nothing is left open


def test_a_vault_listens_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with contextlib.ExitStack() as opened:
        assert server._listen(server.ListenOptions(), opened).getsockname()[0] == "127.0.0.1"


def test_listening_beyond_loopback_prints_a_warning_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    status, _, err = Spawned(tmp_path / "vault", "--host", "0.0.0.0").end(signal.SIGINT)  # noqa: S104
    assert status == 0
    assert err.startswith("vault: warning: 0.0.0.0 can be reached by other machines, without encryption\nhint: ")


def test_the_owner_approves_while_the_server_runs(tmp_path: Path) -> None:
    served = Spawned(tmp_path / "vault")
    token = run_command(tmp_path / "vault", "agent-token", "--scopes", "projects.read")[1].split()[0]
    agent = registered(served.port, token)
    assert agent.send("GET", "/v1/ai/projects").status == 403
    status, shown, _ = run_command(tmp_path / "vault", "approve", agent.id)
    assert (status, shown.partition(" with the key ")[0]) == (0, f"approved AI agent ({agent.id})")
    assert agent.get("/v1/ai/projects") == []
    assert run_command(tmp_path / "vault", "disable", agent.id)[0] == 0
    assert agent.send("GET", "/v1/ai/projects").error == "Agent is disabled"
    assert served.end() == (0, "", "")


def registered(port: int, token: str) -> Agent:
    key = Ed25519PrivateKey.generate()
    body = encoded({"token": token, "publicKey": public_bytes(key)})
    headers = [("Content-Type", "application/json")]
    reply = exchange(port, "POST", "/v1/ai-bootstrap/register", body, headers)
    return Agent(port, wall_clock, reply.json["agentId"], key)


@pytest.mark.parametrize(("allowed", "left"), [(resource.RLIM_INFINITY, (1, 1)), (4_096, (1, 1)), (0, (0, 0))])
def test_core_dumps_are_disabled(allowed: int, left: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of 0, Linux still pipes the memory to a crash reporter; at a limit of 1 it does not."""
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (0, allowed))
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: limits.append(limit))
    server.disable_core_dumps()
    assert limits == [(resource.RLIMIT_CORE, left)]
