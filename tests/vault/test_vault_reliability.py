"""Acknowledged writes survive crashes, load and full disks."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import TIMEOUT_S
from tests.vault.support.rekey_crashes import every_value
from tests.vault.support.served_vault import ALL, ROOT, Agent, FakeClock, SharedServer, Spawned, Vault, exchange
from tests.vault.test_vault_directory import registered
from vault import server
from vault.domains import agents
from vault.router import wall_clock
from vault.schema import open_store

WRITERS, WRITES = 4, 120


def writers(directory: Path, port: int, count: int) -> list[Agent]:
    """Approved agents of a vault that a separate process serves."""
    with open_store(directory) as store, store.transaction() as db:
        tokens = [agents.issue_token(db, wall_clock(), ALL, None, None) for _ in range(count)]
    found = [registered(port, token) for token in tokens]
    with open_store(directory) as store, store.transaction() as db:
        for each in found:
            agents.approve_as_owner(db, wall_clock(), each.id)
    return found


class Ledger:
    """The values that the server acknowledged, by secret."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.count = 0
        self.enough = threading.Event()
        self._lock = threading.Lock()

    def add(self, secret_id: str, value: str) -> None:
        with self._lock:
            self.values.setdefault(secret_id, []).append(value)
            self.count += 1
            if self.count >= WRITES:
                self.enough.set()


def write(agent: Agent, project_id: str, ledger: Ledger) -> None:
    """Write secrets with three versions each until the server is killed."""
    try:
        for number in range(100_000):
            path = agent.secret(project_id, f"{number}-1")
            secret_id = path.rpartition("/")[2]
            ledger.add(secret_id, f"{number}-1")
            for version in (2, 3):
                agent.post(path + "/update", {"value": f"{number}-{version}"})
                ledger.add(secret_id, f"{number}-{version}")
    except (OSError, http.client.HTTPException):
        return  # killed, as it should be


def test_kill_9_during_writes_loses_no_acknowledged_write(tmp_path: Path) -> None:
    directory, ledger = tmp_path / "vault", Ledger()
    served = Spawned(directory)
    clients = writers(directory, served.port, WRITERS)
    threads = [threading.Thread(target=write, args=(each, each.project(), ledger)) for each in clients]
    for thread in threads:
        thread.start()
    assert ledger.enough.wait(120)
    assert served.end(signal.SIGKILL)[0] == -signal.SIGKILL
    for thread in threads:
        thread.join()
    with open_store(directory) as store:
        kept = every_value(store)
        with store.transaction() as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert db.execute("PRAGMA foreign_key_check").fetchone() is None
            statement = "SELECT COUNT(*) FROM audit WHERE action IN ('secret_create', 'secret_update')"
            audited = db.execute(statement).fetchone()[0]
    assert {each: values[: len(ledger.values[each])] for each, values in kept.items() if each in ledger.values} == (
        ledger.values
    )
    # One write of each client may have been done and not yet answered.
    assert WRITES <= ledger.count <= audited <= ledger.count + WRITERS
    assert audited == sum(map(len, kept.values()))
    again = Spawned(directory)
    survivor = Agent(again.port, wall_clock, clients[0].id, clients[0].key)
    assert len(survivor.get("/v1/ai/projects")) == WRITERS
    assert again.end()[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB. A file named ballast takes a quarter of it."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False).returncode:
        pytest.skip("only root can mount a small disk; test_vault_surface has the same by a limit of SQLite's")
    (place / "ballast").write_bytes(b"x" * 512 * 1024)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_507_without_partial_writes(
    small_disk: Path, clock: FakeClock, shared_server: SharedServer
) -> None:
    vault = Vault(small_disk / "vault", clock, shared_server)
    try:
        agent = vault.agent()
        project_id = agent.project()
        base = f"/v1/ai/projects/{project_id}/secrets"
        statuses = [agent.send("POST", base, {"name": "s", "value": "v" * 12_000}).status for _ in range(200)]
        assert set(statuses) == {201, 507}
        while agent.send("POST", "/v1/ai/projects", {"name": "filler"}).status != 507:
            pass
        reply = agent.send("POST", base, {"name": "s", "value": "v" * 12_000})
        words = {"error": "the disk of this vault is full: nothing was changed"}
        assert (reply.status, reply.json) == (507, words)
        (small_disk / "ballast").unlink()
        assert len(agent.get(base)) == statuses.count(201)
        agent.secret(project_id, "after")
        values = every_value(vault.store)
        assert sorted({value for versions in values.values() for value in versions}) == ["after", "v" * 12_000]
        assert all(len(versions) == 1 for versions in values.values())
        assert len(vault.audited("secret_create")) == len(values) == statuses.count(201) + 1
        with vault.store.transaction() as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    finally:
        vault.close()


def test_25_parallel_clients_of_a_server_process_see_no_error(tmp_path: Path) -> None:
    directory = tmp_path / "vault"
    served = Spawned(directory)
    clients, failures = writers(directory, served.port, 25), []
    gate = threading.Barrier(25)

    def work(agent: Agent) -> None:
        gate.wait()
        try:
            path = agent.secret(agent.project(), "x")
            for _ in range(2):
                agent.post(path + "/rotate")
                assert agent.get(path)["id"] == path.rpartition("/")[2]
            assert agent.get(path)["version"] == 3
        except Exception as error:  # any error fails the test below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert served.end() == (0, "", "")
    with open_store(directory) as store:
        assert [len(versions) for versions in every_value(store).values()] == [3] * 25


def test_a_crashed_server_leaves_no_core_dump(tmp_path: Path) -> None:
    served = Spawned(tmp_path / "vault")
    if sys.platform == "linux":
        limits = Path(f"/proc/{served.process.pid}/limits").read_text().splitlines()
        [limit] = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
        assert limit == ["1", "1"], "0 would still let the kernel hand the memory to a crash reporter"
    assert served.end(signal.SIGSEGV)[0] == -signal.SIGSEGV
    assert [*ROOT.glob("core*"), *served_files(tmp_path / "vault")] == []


def served_files(directory: Path) -> list[Path]:
    """The unexpected files in the directory of a killed server."""
    known = {
        "vault.db",
        "vault.db-wal",
        "vault.db-shm",
        "root.key",
        "init.lock",
        "server.lock",
        "control.sock",
        "tls.pem",
    }
    return [path for path in directory.iterdir() if path.name not in known]


# connections


def test_idle_connections_are_closed_when_there_are_too_many(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    with contextlib.ExitStack() as opened:
        silent = []
        for _ in range(6):
            silent.append(opened.enter_context(socket.create_connection(("127.0.0.1", agent.port), TIMEOUT_S)))
            assert agent.send("GET", "/v1/ai/whoami").status == 200
        assert silent[0].recv(1) == b""
        silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.1 404"


def test_idle_connections_are_closed_before_one_that_waits_for_its_answer(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    transaction, has_begun, goes_on = vault.store.transaction, threading.Event(), threading.Event()

    def slow_transaction(*, urgent: bool = False) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        has_begun.set()
        goes_on.wait(TIMEOUT_S)
        return transaction(urgent=urgent)

    monkeypatch.setattr(vault.store, "transaction", slow_transaction)
    replies: list[int] = []
    waiting = threading.Thread(target=lambda: replies.append(agent.send("GET", "/v1/ai/whoami").status))
    waiting.start()
    with contextlib.ExitStack() as opened:
        assert has_begun.wait(TIMEOUT_S)
        for _ in range(6):
            opened.enter_context(socket.create_connection(("127.0.0.1", agent.port), TIMEOUT_S))
        assert exchange(agent.port, "GET", "/nowhere", b"", []).status == 404  # accepted after all of them
        goes_on.set()
        waiting.join(TIMEOUT_S)
    assert replies == [200]
