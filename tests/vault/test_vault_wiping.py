"""Deleted values and replaced keys are gone from every file of the vault, also from its write-ahead log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault, disk, exchange, run_job
from vault import wiping
from vault.domains import made, temporary_secrets, trash
from vault.schema import open_store

DAY_S = 24 * 3600
PLAIN_URL = "https://hooks.example.com/in"


def blobs(vault: Vault, sql: str) -> list[bytes]:
    with vault.store.transaction() as db:
        return [bytes(blob) for row in db.execute(sql).fetchall() for blob in row]


def stored_versions(vault: Vault) -> list[bytes]:
    return blobs(vault, "SELECT wrapped_key, ciphertext FROM secret_versions")


def purged(vault: Vault, agent: Agent, _clock: FakeClock) -> list[bytes]:
    path = agent.secret(agent.project(), "first")
    agent.post(path + "/update", {"value": "second"})
    stored = stored_versions(vault)
    agent.post(path + "/delete")
    agent.post(f"/v1/ai/trash/{path.rpartition('/')[2]}/purge")
    return stored


def purged_by_the_job(vault: Vault, agent: Agent, clock: FakeClock) -> list[bytes]:
    path = agent.secret(agent.project(), "first")
    stored = stored_versions(vault)
    agent.post(path + "/delete")
    clock.advance(31 * DAY_S)
    run_job(trash.purge_due, vault.store, clock())
    return stored


def project_deleted(vault: Vault, agent: Agent, _clock: FakeClock) -> list[bytes]:
    project_id = agent.project("gone")
    agent.secret(project_id, "first")
    stored = stored_versions(vault) + blobs(vault, "SELECT wrapped_key FROM projects")
    agent.post(f"/v1/ai/projects/{project_id}/delete", {"confirmName": "gone"})
    return stored


def shared(agent: Agent) -> str:
    path = f"/v1/ai/projects/{agent.project()}/temporary-secrets"
    return str(agent.post(path, {"name": "db", "value": "v", "expiresInSeconds": 60})["token"])


def link_opened(vault: Vault, agent: Agent, _clock: FakeClock) -> list[bytes]:
    token = shared(agent)
    stored = blobs(vault, "SELECT ciphertext, salt, passphrase_hash FROM temporary_secrets")
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    assert exchange(vault.port, "POST", f"/s/{token}", b"passphrase=wrong", form).status == 403
    return stored


def link_expired(vault: Vault, agent: Agent, clock: FakeClock) -> list[bytes]:
    shared(agent)
    stored = blobs(vault, "SELECT ciphertext, salt, passphrase_hash FROM temporary_secrets")
    clock.advance(60)
    run_job(temporary_secrets.expire_due, vault.store, clock())
    return stored


def webhook_deleted(vault: Vault, agent: Agent, _clock: FakeClock) -> list[bytes]:
    webhook_id = agent.post("/v1/ai/webhooks", {"url": PLAIN_URL, "actions": ["project_create"]})["id"]
    stored = blobs(vault, "SELECT wrapped_secret FROM webhooks")
    agent.post(f"/v1/ai/webhooks/{webhook_id}/delete")
    return stored


def webhook_ended_with_its_agent(vault: Vault, agent: Agent, clock: FakeClock) -> list[bytes]:
    agent.post("/v1/ai/webhooks", {"url": PLAIN_URL, "actions": ["project_create"]})
    stored = blobs(vault, "SELECT wrapped_secret FROM webhooks")
    with vault.store.transaction() as db:
        assert len(made.end_all(db, clock(), agent.id)) == 1
    return stored


def rekeyed(vault: Vault, agent: Agent, _clock: FakeClock) -> list[bytes]:
    agent.project()
    stored = blobs(vault, "SELECT wrapped_key FROM projects") + blobs(vault, "SELECT root_key_proof FROM vault")
    vault.store.rekey(START_MS, None)
    return stored


WAYS = (
    purged,
    purged_by_the_job,
    project_deleted,
    link_opened,
    link_expired,
    webhook_deleted,
    webhook_ended_with_its_agent,
    rekeyed,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_of_a_deleted_value_is_left_on_the_disk(
    vault: Vault, agent: Agent, clock: FakeClock, way: Callable[[Vault, Agent, FakeClock], list[bytes]]
) -> None:
    stored = way(vault, agent, clock)
    assert stored
    left = disk(vault.directory)
    assert [blob for blob in stored if blob in left] == []
    assert (vault.directory / "vault.db-wal").stat().st_size == 0


def test_a_reader_delays_the_wiping_and_nothing_else(vault: Vault, agent: Agent) -> None:
    path = agent.secret(agent.project(), "first")
    stored = stored_versions(vault)
    agent.post(path + "/delete")
    with closing(sqlite3.connect(vault.directory / "vault.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM secrets").fetchone()
        agent.post(f"/v1/ai/trash/{path.rpartition('/')[2]}/purge")
        assert all(blob in disk(vault.directory) for blob in stored)
    agent.get("/v1/ai/whoami")
    assert [blob for blob in stored if blob in disk(vault.directory)] == []


def test_a_failure_to_wipe_is_tried_again(vault: Vault) -> None:
    with vault.store.transaction() as db:
        assert isinstance(db, wiping.Connection)
        wiping.wipe_log_after_commit(db)
        wiping.wipe_log(db)  # SQLite refuses this within a transaction, as it would on a full disk
        assert db.has_deleted_values
    assert not db.has_deleted_values


def test_a_server_wipes_what_a_killed_one_left(vault: Vault, agent: Agent) -> None:
    agent.secret(agent.project(), "first")
    log = vault.directory / "vault.db-wal"
    assert log.stat().st_size > 0
    with open_store(vault.directory, has_server_lock=True):
        assert log.stat().st_size == 0
