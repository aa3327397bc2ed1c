"""Readers: they see one state, change nothing, wait for no transaction, and delay the wiping of the log only."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from tests.vault.support.served_vault import START_MS, Agent, Vault, disk
from vault import readers, seals, store


def names(db: sqlite3.Connection) -> list[str]:
    return [row["name"] for row in db.execute("SELECT name FROM projects ORDER BY rowid")]


def test_a_reader_sees_one_state_until_it_ends(vault: Vault, agent: Agent) -> None:
    agent.project("first")
    with vault.store.reader() as db:
        assert names(db) == ["first"]
        agent.project("second")
        assert names(db) == ["first"]
    with vault.store.reader() as db:
        assert names(db) == ["first", "second"]


def test_a_reader_reads_while_a_transaction_is_open(vault: Vault, agent: Agent) -> None:
    agent.project("first")
    with vault.store.transaction() as writer, vault.store.reader() as db:
        writer.execute("UPDATE projects SET name = 'changed'")
        assert names(db) == ["first"]


def test_a_reader_changes_nothing(vault: Vault, agent: Agent) -> None:
    agent.project("first")
    for statement in ("DELETE FROM projects", "DROP TABLE grants", "INSERT INTO forgotten_windows VALUES (1)"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"), vault.store.reader() as db:
            db.execute(statement)
    with vault.store.reader() as db:
        assert names(db) == ["first"]


def test_a_reader_compares_seals(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    with vault.store.reader() as db:
        assert seals.matches(db, "project", project_id)
    with vault.store.transaction() as writer:
        writer.execute("UPDATE seals SET mac = x'00' WHERE kind = 'project'")
    with vault.store.reader() as db:
        assert not seals.matches(db, "project", project_id)


def test_readers_share_few_connections(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for _ in range(3):
        with vault.store.reader() as db:
            seen.add(id(db))
    assert len(seen) == 1
    monkeypatch.setattr(readers, "MAX_READERS", 1)
    late = threading.Thread(target=lambda: names_of(vault), daemon=True)
    with vault.store.reader():
        late.start()
        late.join(0.01)
        assert late.is_alive()
    late.join(10)
    assert not late.is_alive()


def names_of(vault: Vault) -> list[str]:
    with vault.store.reader() as db:
        return names(db)


def test_a_thread_that_reads_already_waits_for_no_other_reader(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_READERS", 1)
    with vault.store.reader() as first, vault.store.reader() as second:
        assert first is not second
        assert names(second) == []
    with vault.store.reader() as db:
        assert names(db) == []


def fail_at_first(rows: sqlite3.Cursor) -> None:
    for row in rows:
        raise KeyError(row["id"])


def test_an_exception_ends_a_snapshot_although_it_keeps_a_cursor(vault: Vault, agent: Agent) -> None:
    agent.project("first")
    agent.project("second")
    with pytest.raises(KeyError) as kept, vault.store.reader() as db:
        fail_at_first(db.execute("SELECT * FROM projects"))
    with vault.store.reader() as db:
        agent.project("third")
    with vault.store.reader() as db:
        assert names(db)[-1] == "third"
    assert kept.tb is not None


def versions(vault: Vault) -> list[bytes]:
    with vault.store.reader() as db:
        return [bytes(row["ciphertext"]) for row in db.execute("SELECT ciphertext FROM secret_versions")]


def purge(vault: Vault, agent: Agent) -> list[bytes]:
    path = agent.secret(agent.project(), "first")
    stored = versions(vault)
    agent.post(path + "/delete")
    agent.post(f"/v1/ai/trash/{path.rpartition('/')[2]}/purge")
    return stored


def left(vault: Vault, stored: list[bytes]) -> bool:
    return any(blob in disk(vault.directory) for blob in stored)


def test_the_last_reader_wipes_the_log(vault: Vault, agent: Agent) -> None:
    with vault.store.reader() as first:
        names(first)
        with vault.store.reader() as second:
            names(second)
            stored = purge(vault, agent)
        assert stored
        assert left(vault, stored)
    assert not left(vault, stored)


def test_readers_one_after_another_do_not_prevent_the_wiping(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction waits for the reader, and a new reader for the transaction."""
    monkeypatch.setattr(store, "MAX_POSTPONED_WIPES", 0)
    monkeypatch.setattr(store, "PAUSE_TIMEOUT_S", 30.0)
    waited = threading.Event()

    def read_until_waited_for() -> None:
        with vault.store.reader() as db:
            names(db)
            started.set()
            waited.wait(10)

    started, thread = threading.Event(), threading.Thread(target=read_until_waited_for)
    stored = purge(vault, agent)
    with vault.store.transaction() as db:
        thread.start()
        assert started.wait(10)
        db.has_deleted_values = True  # type: ignore[attr-defined]
        threading.Timer(0.01, waited.set).start()
    thread.join()
    assert not vault.store._db.has_deleted_values
    assert not left(vault, stored)


def test_a_reader_may_run_within_a_transaction_that_deletes_values(vault: Vault) -> None:
    with vault.store.transaction() as db:
        db.has_deleted_values = True  # type: ignore[attr-defined]
        with vault.store.reader() as reading:
            names(reading)
    assert not vault.store._db.has_deleted_values


def test_a_closed_store_has_no_readers(vault: Vault) -> None:
    with vault.store.reader() as db:
        names(db)
    vault.store.close()
    with pytest.raises(sqlite3.ProgrammingError), vault.store.reader():
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        names(db)
    assert not (vault.directory / "vault.db-wal").exists()


def test_a_new_root_key_is_used_by_readers(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    with vault.store.reader() as db:
        assert seals.matches(db, "project", project_id)
    vault.store.rekey(START_MS, None)
    with vault.store.reader() as db:
        assert seals.matches(db, "project", project_id)
