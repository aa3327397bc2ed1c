"""Reads are admitted under the lock and answered beside it. Long reads by machines take the lock a little at a time."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from bench.vault_asks import answer, asks
from bench.vault_fill import Sizes, fill
from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Reply, Vault
from vault import app, audit, gate
from vault.domains import machine_reads
from vault.router import Call, Route, Router
from vault.schema import ROUTES, open_store

WRITES_THOUGH_GET = ("/v1/secret/{secretId}", "/s/{token}")  # a machine's read is audited; a link is opened by a form


def test_every_get_of_an_agent_only_reads() -> None:
    for route in ROUTES:
        if route.method == "GET" and route.path not in WRITES_THOUGH_GET:
            assert route.reads, route.path
        if route.reads:
            assert not (route.scope or "").endswith(".write") or route.scope == "support.write", route.path


def test_a_read_is_answered_without_the_lock_after_its_nonce_is_stored(tmp_path: Path) -> None:
    seen: list[str] = []

    def checked(route: Route) -> Route:
        def handler(call: Call) -> object:
            assert not store._lock.locked(), route.path
            assert call.db.execute("PRAGMA query_only").fetchone()[0] == 1
            nonces.append(call.db.execute("SELECT COUNT(*) FROM nonces").fetchone()[0])
            seen.append(route.path)
            return route.handler(call)

        return route._replace(handler=handler)

    with open_store(tmp_path / "vault") as store:
        filled = fill(store, Sizes(secrets=20, machines=5, entries=20), START_MS)
        vault = app.create_app(store, clock=lambda: START_MS)
        reading = tuple(route for route in ROUTES if route.reads)
        vault._router = Router(map(checked, reading))
        nonces: list[int] = [0]
        for each in asks(filled, store.vault_id, reading):
            answer(vault, each, START_MS)
    assert set(seen) == {route.path for route in reading}
    assert nonces == sorted(set(nonces))  # each handler saw the nonce of its own request


def test_a_refused_read_is_audited_and_counts_for_nothing(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    narrow = vault.agent(projects=[project_id])
    for path, status in ((f"/v1/ai/projects/{project_id}/policies/unknown", 404), ("/v1/ai/machines/unknown", 403)):
        assert narrow.send("GET", path).status == status
    with vault.store.reader() as db:
        assert db.execute("SELECT COUNT(*) FROM agent_reads").fetchone()[0] == 0
    assert [row["agent_id"] for row in vault.audited("auth_failure")] == [narrow.id]


# ---- nonces ----------------------------------------------------------------------------------------------------------


def test_a_request_forgets_a_few_nonces(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    expired, kept = 3 * gate.FORGET_AT_ONCE, "nonce-that-is-not-deleted-yet"
    agent.send("GET", "/v1/ai/whoami", nonce=kept)
    with vault.store.transaction() as db:
        rows = [("someone", f"{number:020}", START_MS - 1_000_000 + number) for number in range(expired)]
        db.executemany("INSERT INTO nonces VALUES (?, ?, ?)", rows)
    for done in (1, 2, 3):
        agent.get("/v1/ai/whoami")
        with vault.store.reader() as db:
            left = db.execute("SELECT COUNT(*) FROM nonces WHERE identity = 'someone'").fetchone()[0]
        assert left == expired - done * gate.FORGET_AT_ONCE
    with vault.store.transaction() as db:
        db.execute("UPDATE nonces SET forget_ms = 2000 WHERE nonce = ?", (kept,))
        db.executemany("INSERT INTO nonces VALUES (?, ?, 1000)", [("x", f"{number:020}") for number in range(100)])
    timestamp = str(clock() // 1000)
    assert agent.send("GET", "/v1/ai/whoami", nonce=kept, timestamp=timestamp).error == "the nonce was used before"


# ---- exports and polls -----------------------------------------------------------------------------------------------


@pytest.fixture
def secrets(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """More secrets of a project than one transaction reads, as paths for agents."""
    monkeypatch.setattr(machine_reads, "READ_AT_ONCE", 2)
    monkeypatch.setattr(machine_reads, "WATCHED_AT_ONCE", 2)
    project_id = agent.project()
    return [agent.secret(project_id, f"value {number}") for number in range(5)]


def meanwhile(monkeypatch: pytest.MonkeyPatch, vault: Vault, act: Callable[[], object]) -> None:
    """Do something once after the first transaction of an export, where it lets others come first."""
    acts = [act]

    def pause(_seconds: float) -> None:
        assert not vault.store._lock.locked()
        if acts:
            acts.pop()()

    monkeypatch.setattr("vault.domains.machine_reads.time.sleep", pause)


def exported(machine: Machine) -> Reply:
    return machine.send("POST", "/v1/secrets/export", {})


def values(reply: Reply) -> list[str]:
    return [row["value"] for row in reply.json["secrets"]]


def test_a_long_export_lets_others_come_first(
    vault: Vault, agent: Agent, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, seen = granted_machine(vault, *secrets), []
    meanwhile(monkeypatch, vault, lambda: seen.append(agent.secret(agent.project(), "x")))
    reply = exported(machine)
    assert sorted(values(reply)) == [f"value {number}" for number in range(5)]
    assert len(seen) == 1
    assert len(vault.audited("secret_read")) == 5


def test_a_machine_that_is_revoked_during_an_export_gets_nothing(
    vault: Vault, agent: Agent, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = granted_machine(vault, *secrets)
    meanwhile(monkeypatch, vault, lambda: agent.post(f"/v1/ai/machines/{machine.id}/revoke"))
    reply = exported(machine)
    assert (reply.status, reply.error) == (401, "the machine was revoked meanwhile")
    assert len(vault.audited("secret_read")) == 2
    assert "revoked meanwhile" in vault.audited("auth_failure")[-1]["detail"]


def test_a_grant_that_is_taken_during_an_export_gives_nothing(
    vault: Vault, agent: Agent, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, project_id = granted_machine(vault, *secrets), secrets[0].split("/")[4]
    path = f"/v1/ai/projects/{project_id}/machines/{machine.id}/grants"
    meanwhile(monkeypatch, vault, lambda: agent.post(path, {"secretIds": []}))
    assert len(values(exported(machine))) == 2
    assert len(vault.audited("secret_read_denied")) == 3


def test_a_vault_that_is_sealed_during_an_export_gives_nothing(
    vault: Vault, secrets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = granted_machine(vault, *secrets)
    meanwhile(monkeypatch, vault, lambda: vault.store.seal(START_MS))
    reply = exported(machine)
    assert (reply.status, reply.error) == (503, "the vault is sealed")


def test_a_canary_freezes_the_project_before_the_rest_of_an_export(
    vault: Vault, agent: Agent, secrets: list[str]
) -> None:
    project_id = secrets[0].split("/")[4]
    canary = agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "last"})["id"]
    machine = granted_machine(vault, *secrets, f"/v1/ai/projects/{project_id}/secrets/{canary}")
    assert [row["id"] for row in exported(machine).json["secrets"]] == [canary]
    assert len(vault.audited("secret_read_denied")) == 5


def test_a_long_poll_list_is_looked_at_in_parts(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = granted_machine(vault, *secrets)
    assert machine.poll(*secrets) == {}
    agent.post(secrets[4] + "/update", {"value": "new"})
    agent.post(secrets[3] + "/delete")
    ids = [secret.rpartition("/")[2] for secret in secrets]
    assert machine.poll(*secrets, "sk_unknown") == {ids[4]: "changed", ids[3]: "deleted", "sk_unknown": "deleted"}


# ---- long answers ----------------------------------------------------------------------------------------------------


def test_a_long_answer_is_the_same_json(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    project_id = agent.project()
    for number in range(5):
        agent.secret(project_id, "x", name=f"søren {number}")
    path = f"/v1/ai/projects/{project_id}/secrets"
    short = agent.send("GET", path)
    monkeypatch.setattr(app, "SLICE_ITEMS", 2)
    monkeypatch.setattr(app, "PIECE_BYTES", 100)
    long = agent.send("GET", path)
    assert long.raw == short.raw
    assert long.headers["content-length"] == str(len(long.raw))
    assert agent.send("POST", "/v1/ai/audit/query").json["total"] > 5


def test_the_total_of_a_filter_says_that_it_is_a_minimum(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        agent.project()
    query: dict[str, Any] = {"actions": ["project_create"], "pageSize": 2}
    assert agent.post("/v1/ai/audit/query", query)["total"] == 8
    monkeypatch.setattr(audit, "MAX_AHEAD", 3)
    for page, total in ((1, 5), (2, 7), (3, 8)):
        found = agent.post("/v1/ai/audit/query", {**query, "page": page})
        assert (found["total"], found.get("totalIsAtLeast")) == (total, True if total < 8 else None), page
    assert "totalIsAtLeast" not in agent.post("/v1/ai/audit/query", {"pageSize": 1})


# ---- reads of values beside many writers -----------------------------------------------------------------------------


class Announced:
    """A lock that says who asks for it."""

    def __init__(self, lock: threading.Lock, asked: queue.Queue[str]) -> None:
        self.release, self._lock, self._asked = lock.release, lock, asked

    def acquire(self) -> None:
        self._asked.put(threading.current_thread().name)
        self._lock.acquire()


def test_an_urgent_transaction_waits_for_one_of_those_that_came_before_it(vault: Vault) -> None:
    lock, asked = vault.store._lock, queue.Queue[str]()
    vault.store._lock = Announced(lock, asked)  # type: ignore[assignment]

    def run(urgent: bool) -> None:
        with vault.store.transaction(urgent=urgent):
            pass

    threads = [threading.Thread(target=run, args=(False,), name="usual") for _ in range(5)]
    threads.append(threading.Thread(target=run, args=(True,), name="urgent"))
    with lock:
        for thread in threads:
            thread.start()
        assert {asked.get(), asked.get()} == {"usual", "urgent"}
        assert asked.empty()
    for thread in threads:
        thread.join()
    vault.store._lock = lock
    assert asked.qsize() == 4


def test_requests_of_machines_are_urgent(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = agent.secret(agent.project(), "value")
    machine, found = granted_machine(vault, secret), []
    begin = vault.store.transaction

    def transaction(*, urgent: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        found.append(urgent)
        return begin(urgent=urgent)

    monkeypatch.setattr(vault.store, "transaction", transaction)
    machine.value(secret)
    agent.post(secret + "/note", {"note": "n"})
    assert found == [True, False]
