"""A large project is gone at once for everybody, and its rows are deleted in short transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.vault_asks import Ask, answer, asks
from bench.vault_fill import PROJECT, Filled, Sizes, fill
from tests.vault.support.served_vault import START_MS, disk
from tests.vault.test_vault_totals import check
from vault import seals
from vault.app import Answer, create_app
from vault.dashboard.queries import listings, names, summary
from vault.domains import projects
from vault.errors import Refusal
from vault.owner import naming
from vault.owner.commands_vault import COUNTS
from vault.schema import ROUTES, jobs, open_store
from vault.store import Store

SIZES = Sizes(secrets=40, machines=10, schedules=10)
DELETE = "/v1/ai/projects/{projectId}/delete"
# The audit log keeps the id of a deleted project, and a poll names what was asked for.
NAMING = ("/v1/ai/audit", "/v1/ai/activity", "/v1/ai/ai-agents", "/v1/secrets/poll")


class Deleted:
    """A vault with a project that was deleted, and whose rows are still there."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.filled: Filled = fill(store, SIZES, START_MS)
        self.app = create_app(store, clock=lambda: START_MS)
        with store.transaction() as db:
            db.execute("DELETE FROM projects WHERE id = 'proj_empty'")
            self.old_key: bytes = db.execute("SELECT wrapped_key FROM projects").fetchone()["wrapped_key"]
            self.versions = [bytes(row[0]) for row in db.execute("SELECT ciphertext FROM secret_versions")]
        self.preview = self._delete({"preview": True})
        self.answer = self._delete({"confirmName": "filled"})

    def _delete(self, body: dict[str, Any]) -> Answer:
        route = next(each for each in ROUTES if each.path == DELETE)
        return answer(self.app, Ask(self.filled.agent, route, DELETE.format(projectId=PROJECT), body), START_MS)

    def rows(self) -> dict[str, int]:
        """How many rows there are of what belongs to a project."""
        tables = ("projects", "secrets", *projects.ROWS_OF_SECRET, *projects.ROWS_OF_PROJECT, *projects.ACCESS)
        with self.store.reader() as db:
            return {name: db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables}  # noqa: S608

    def run_job(self) -> int:
        """Run the job until nothing is left, and return the number of its transactions."""
        numbers = []

        @contextmanager
        def counted() -> Iterator[sqlite3.Connection]:
            with self.store.transaction() as db:
                yield db
            numbers.append(1)

        while sum(self.rows().values()):
            projects.delete_rows(counted, lambda: self.store.keys, START_MS)
        return len(numbers)


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "ROWS_AT_ONCE", 7)


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[Deleted]:
    with open_store(tmp_path / "vault") as store:
        yield Deleted(store)


def test_the_answer_counts_everything_and_most_rows_are_left(deleted: Deleted) -> None:
    cascade = deleted.preview.body["cascade"]  # type: ignore[index]
    assert deleted.answer == (200, {"id": PROJECT, "name": "filled", "deleted": True, "cascade": cascade}, {})
    rows = deleted.rows()
    assert (rows["projects"], rows["secrets"], rows["grants"]) == (1, SIZES.secrets - 1, 28)
    assert {rows[table] for table in projects.ACCESS} == {0}


def test_no_route_shows_anything_of_the_project(deleted: Deleted) -> None:
    for each in asks(deleted.filled, deleted.store.vault_id, ROUTES):
        if not each.route.path.startswith(NAMING):
            given = answer(deleted.app, each, START_MS)
            shown = repr(given.body).replace(f"project {PROJECT} (filled) deleted", "")  # the audit entry
            assert "'sk_" not in shown, (str(each), shown)
            assert PROJECT not in shown, (str(each), shown)
            assert "{projectId}" not in each.route.path or given.status >= 400, (str(each), given)
            assert given.status < 500, (str(each), given)


def test_no_machine_reads_its_values(deleted: Deleted) -> None:
    for path, expected in (("/v1/secret/{secretId}", 404), ("/v1/secrets/export", 200), ("/v1/secrets", 200)):
        route = next(each for each in ROUTES if each.path == path)
        given = answer(deleted.app, Ask(deleted.filled.machine, route, path.format(secretId="sk_0"), None), START_MS)
        assert given.status == expected, path
        assert "sk_0" not in repr(given.body), path


def test_the_dashboard_and_the_commands_show_nothing_of_the_project(deleted: Deleted) -> None:
    with deleted.store.reader() as db:
        for rows in (
            listings.projects(db, 1),
            listings.secrets_named(db, "name", 1),
            listings.trash(db, None, 1),
            listings.canaries(db, None, 1),
        ):
            assert (rows.rows, rows.total) == ([], 0)
        with pytest.raises(Refusal):
            listings.project(db, PROJECT)
        assert names.by_ids(db, [PROJECT, "sk_0", "pol_filled"]) == {}
        assert projects.names(db, 10, [PROJECT]) == {}
        for kind, name in ((naming.PROJECT, "filled"), (naming.SECRET, "sk_0"), (naming.POLICY, "pol_filled")):
            assert naming.find_exact(db, name, kind) is None
        counts = summary.counts(db)
        assert (counts["projects"], counts["secrets"]) == (0, 0)
        assert [db.execute(COUNTS[name]).fetchone()[0] for name in ("projects", "secrets")] == [0, 0]


def test_its_key_is_gone_at_once_and_its_values_with_its_rows(deleted: Deleted) -> None:
    assert deleted.old_key not in disk(deleted.store.directory)
    assert any(version in disk(deleted.store.directory) for version in deleted.versions)
    deleted.run_job()
    assert not any(version in disk(deleted.store.directory) for version in deleted.versions)


def test_the_job_deletes_every_row_in_short_transactions(deleted: Deleted) -> None:
    rows = sum(deleted.rows().values())
    transactions = deleted.run_job()
    assert rows / projects.ROWS_AT_ONCE <= transactions <= 2 * rows / projects.ROWS_AT_ONCE
    with deleted.store.reader() as db:
        check(db)
        assert seals.find_changed(db) is None
        assert db.execute("SELECT COUNT(*) FROM deleted_projects").fetchone()[0] == 0


def test_one_run_of_the_job_is_short(deleted: Deleted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "TRANSACTIONS_AT_ONCE", 2)
    before = deleted.rows()
    projects.delete_rows(deleted.store.transaction, lambda: deleted.store.keys, START_MS)
    assert 0 < sum(before.values()) - sum(deleted.rows().values()) <= 2 * projects.ROWS_AT_ONCE


def test_a_secret_with_more_rows_than_a_transaction_deletes(deleted: Deleted) -> None:
    with deleted.store.transaction() as db:
        oldest = db.execute("SELECT id FROM secrets ORDER BY created_ms, id LIMIT 1").fetchone()["id"]
        for version in range(2, 60):
            db.execute("INSERT INTO secret_versions VALUES (?, ?, 'update', x'00', x'00', 0)", (oldest, version))
    before = deleted.rows()["secret_versions"]
    with deleted.store.transaction() as db:
        projects._delete_some(db, PROJECT)
    after = deleted.rows()
    assert before - after["secret_versions"] == projects.ROWS_AT_ONCE
    deleted.run_job()


def test_a_vault_that_was_killed_goes_on_when_it_is_opened(tmp_path: Path) -> None:
    with open_store(tmp_path / "vault") as store:
        Deleted(store)
    with open_store(tmp_path / "vault") as store:
        for _ in range(3):
            for job in jobs():
                job(store.transaction, lambda: store.keys, START_MS + 1)
        with store.reader() as db:
            assert db.execute("SELECT COUNT(*) FROM projects").fetchone()[0] == 0
            check(db)


def test_a_changed_root_key_is_no_obstacle(deleted: Deleted) -> None:
    deleted.store.rekey(START_MS, None)
    deleted.run_job()


def test_a_deletion_from_outside_deletes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "vault") as store:
        fill(store, SIZES, START_MS)
        with closing(sqlite3.connect(tmp_path / "vault" / "vault.db", isolation_level=None)) as db:
            db.execute("INSERT INTO deleted_projects VALUES (?, 0)", (PROJECT,))
        projects.delete_rows(store.transaction, lambda: store.keys, START_MS)
        with store.reader() as reader:
            assert reader.execute("SELECT COUNT(*) FROM secrets").fetchone()[0] == SIZES.secrets
            assert seals.find_changed(reader) == f"deletion {PROJECT}"


def test_every_table_that_refers_to_a_project_or_secret_is_known(deleted: Deleted) -> None:
    """Foreign keys delete what has one row for each secret."""
    with deleted.store.reader() as db:
        found: dict[str, set[str]] = {"projects": set(), "secrets": set()}
        for table in [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]:
            keys = [row["name"] for row in db.execute(f"PRAGMA table_info('{table}')") if row["pk"]]
            for each in db.execute(f"PRAGMA foreign_key_list('{table}')").fetchall():
                if each["table"] in found and keys != ["secret_id"]:
                    found[each["table"]].add(table)
    assert found["projects"] == {*projects.ACCESS, *projects.ROWS_OF_PROJECT, "secrets", "deleted_projects"}
    assert found["secrets"] == set(projects.ROWS_OF_SECRET)
