"""The totals are what a count would find, after whatever changed the rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bench.vault_asks import answer, asks
from bench.vault_fill import PROJECT, Sizes, fill
from tests.vault.support.served_vault import START_MS, Agent, Vault
from vault import totals
from vault.app import create_app
from vault.schema import ROUTES, open_store
from vault.totals import TOTALS, Total

SIZES = Sizes(secrets=40, machines=10, entries=60, schedules=5)


def counted(db: sqlite3.Connection, total: Total) -> dict[str, int]:
    """What a total should be, by owner."""
    amount, where = total.amount.format(row="r"), total.where.format(row="r")
    owner = (total.of or "''").format(row="r")
    columns = f"{owner} AS owner, sum({amount}) AS amount"
    sql = f"SELECT {columns} FROM {total.table} r WHERE {where} GROUP BY 1"  # noqa: S608  # of constants
    found = {str(row["owner"]): int(row["amount"]) for row in db.execute(sql)}
    return {**found, "": sum(found.values())} if total.in_vault else found


def stored(db: sqlite3.Connection, total: Total) -> dict[str, int]:
    rows = db.execute("SELECT id, amount FROM totals WHERE kind = ?", (total.kind,))
    return {row["id"]: row["amount"] for row in rows}


def check(db: sqlite3.Connection) -> None:
    for total in TOTALS:
        assert stored(db, total) == counted(db, total), total.kind


def test_totals_are_right_after_a_request_to_every_route(tmp_path: Path) -> None:
    with open_store(tmp_path / "vault") as store:
        filled = fill(store, SIZES, START_MS)
        app = create_app(store, clock=lambda: START_MS)
        for each in asks(filled, store.vault_id, ROUTES):
            answer(app, each, START_MS)
        with store.reader() as db:
            check(db)
            assert all(stored(db, total) for total in TOTALS if total.kind != "alerts")
        with store.transaction() as db:
            db.execute("DELETE FROM projects")
            db.execute("DELETE FROM machines")
            check(db)
            assert totals.of(db, "secrets", PROJECT) == totals.of(db, "versions") == totals.of(db, "bytes") == 0


def test_a_vault_without_totals_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    directory = tmp_path / "vault"
    with open_store(directory) as store:
        fill(store, SIZES, START_MS)
        with store.transaction() as db:
            triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'totals_of%'")
            for row in triggers.fetchall():
                db.execute(f"DROP TRIGGER {row['name']}")
            db.execute("DROP TABLE totals")
            db.execute("DELETE FROM secrets WHERE id = 'sk_7'")
    with open_store(directory) as store, store.reader() as db:
        check(db)
        assert totals.of(db, "versions") == SIZES.secrets - 1


def test_a_vault_from_before_some_totals_gets_them(tmp_path: Path) -> None:
    added = ("grants", "schedules", "entries of", "entries by")
    with open_store(tmp_path / "vault") as store:
        with store.reader() as db:
            schema = dict(db.execute("SELECT name, sql FROM sqlite_master").fetchall())
        fill(store, SIZES, START_MS)
        with store.transaction() as db:
            for kind in added:
                db.execute("DELETE FROM totals WHERE kind = ?", (kind,))
                for event in ("add", "drop"):
                    db.execute(f"DROP TRIGGER totals_of_{kind.replace(' ', '_')}_{event}")
            db.execute("DROP TRIGGER secrets_drop_counted")
            db.execute(
                "CREATE TRIGGER secrets_drop_versions BEFORE DELETE ON secrets"
                " BEGIN DELETE FROM secret_versions WHERE secret_id = OLD.id; END"
            )
            for view in ("live_projects", "live_secrets"):
                db.execute(f"DROP VIEW {view}")
            db.execute("DROP TABLE deleted_projects")
    with open_store(tmp_path / "vault") as store, store.transaction() as db:
        assert dict(db.execute("SELECT name, sql FROM sqlite_master").fetchall()) == schema
        check(db)
        db.execute("DELETE FROM secrets WHERE id = 'sk_1'")
        check(db)


def test_a_vault_is_counted_once(tmp_path: Path) -> None:
    """Opening must not go through the rows: a wrong total stays as it is."""
    directory = tmp_path / "vault"
    with open_store(directory) as store:
        fill(store, SIZES, START_MS)
        with store.transaction() as db:
            db.execute("UPDATE totals SET amount = amount + 1000")
            before = db.execute("SELECT * FROM totals ORDER BY kind, id").fetchall()
    with open_store(directory) as store, store.reader() as db:
        assert db.execute("SELECT * FROM totals ORDER BY kind, id").fetchall() == before


def test_a_bound_policy_is_kept_whatever_its_total_says(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    secret_id = agent.secret(project_id, "x").rpartition("/")[2]
    policy_id = agent.post(f"/v1/ai/projects/{project_id}/policies", {"name": "p"})["id"]
    agent.post(f"/v1/ai/secrets/{secret_id}/binding", {"policyId": policy_id})
    with vault.store.transaction() as db:
        db.execute("UPDATE totals SET amount = 0 WHERE kind = 'bindings'")
    assert agent.send("POST", f"/v1/ai/projects/{project_id}/policies/{policy_id}/delete").status == 409
