"""No request does more work because the vault holds more: every statement has an index, and work is counted in steps.

The requests are those of `bench.vault_asks`: one or more for every route, to a vault that is filled without requests.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.vault_asks import Ask, answer, asks
from bench.vault_fill import Filled, Sizes, fill
from tests.vault.support.served_vault import START_MS, Vault
from vault import audit, audit_index, wiping
from vault.app import VaultApp, create_app
from vault.migrations import statements
from vault.schema import ROUTES, TABLES, jobs, open_store
from vault.store import Store

SMALL, LARGE = 100, 3_000
REFUSED = (401, 403)  # what the restricted agent may not see, and what nobody can guess
# Tables with few rows, whatever the vault holds: settings, and tables with a limit.
FIXED = {
    *("vault", "owner", "ip_allowlist_switch", "ip_allowlist", "alert_actions", "alert_totals", "webhooks"),
    *("webhook_actions", "webhook_deliveries", "deleted_projects", "refusal_counts"),
    "audit_chain",  # it is read from its end
}
# Statements that may go through a table or sort it, by a part of their text, and why.
# fmt: off
JUDGED = {
    "FROM ai_agents ORDER BY":            "shows every agent",
    "FROM live_projects p ORDER BY":      "shows every project",
    "FROM live_projects p WHERE p.id IN": "sorts the projects that it shows",
    "FROM rotation_schedules r":          "shows every schedule",
    "FROM machines ORDER BY":             "shows every machine",
    "FROM machines WHERE id IN":          "sorts the machines that it shows",
    "FROM enrollment_tokens t ORDER BY":  "shows every token",
    "FROM team_members m ORDER BY":       "shows every member",
    "JOIN grants g ON g.secret_id":       "sorts the secrets that it shows a machine",
    "FROM grants g JOIN secrets s ON s.id = g.secret_id WHERE g.machine_id = ? AND +s.project_id = ? AND s.deleted":
                                          "sorts the grants that it shows",
    "count(DISTINCT machine_id)":         "an agent's machines may be in several of its projects",
    "count(DISTINCT member_id)":          "an agent's team members may be in several of its projects",
    "ORDER BY secret_count":              "counts the grants of every machine of a project",
    "FROM tickets t WHERE 1":             "counts tickets, which people write",
    "WHERE status != 'closed'":           "counts open tickets, at most 1,000",
}
# Requests whose work may grow although their answer does not, by a part of their text, and why.
GROWING = {
    '"search": "machine"':                 "looks at every machine of the project",
    '"sortBy": "secretCount"':             "counts the grants of every machine of the project",
    "GET /v1/ai/stats ":                    "adds up the hours of a day",
    "GET /v1/ai/usage ":                    "adds up the hours of thirty days",
    "/v1/ai/stats/reads-over-time":         "adds up the hours of thirty days",
}
# fmt: on


class Statement(NamedTuple):
    """A statement that ran, with its values and what caused it."""

    sql: str
    values: Any
    cause: str


class Sized(NamedTuple):
    """A filled vault and its application, which answer in this thread."""

    store: Store
    app: VaultApp
    filled: Filled

    def asks(self) -> Iterator[Ask]:
        return asks(self.filled, self.store.vault_id, ROUTES)

    def ask(self, each: Ask) -> object:
        given = answer(self.app, each, START_MS)
        assert given.status < 400 or given.status in REFUSED, (str(each), given)
        return given.body

    def run_jobs(self) -> Iterator[str]:
        for job in jobs():
            job(self.store.transaction, lambda: self.store.keys, START_MS + 1)
            yield job.__name__


Make = Callable[[Sizes], Sized]


@pytest.fixture
def sized_vault(tmp_path: Path) -> Iterator[Make]:
    opened: list[Store] = []

    def make(sizes: Sizes) -> Sized:
        store = open_store(tmp_path / str(len(opened)))
        opened.append(store)
        return Sized(store, create_app(store, clock=lambda: START_MS), fill(store, sizes, START_MS))

    yield make
    for store in opened:
        store.close()


def rows_of(rows: int) -> Sizes:
    return Sizes(secrets=rows, machines=rows, entries=rows, schedules=rows // 2)


# ---- plans -----------------------------------------------------------------------------------------------------------


def recorded(vault: Sized, monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """What all requests and jobs execute, once each."""
    found: dict[str, Statement] = {}
    cause = ""

    def execute(db: sqlite3.Connection, sql: str, values: Any = ()) -> sqlite3.Cursor:
        found.setdefault(sql, Statement(sql, values, cause))
        return sqlite3.Connection.execute(db, sql, values)

    def executemany(db: sqlite3.Connection, sql: str, rows: Any) -> sqlite3.Cursor:
        given = list(rows)
        if given:
            found.setdefault(sql, Statement(sql, given[0], cause))
        return sqlite3.Connection.executemany(db, sql, given)

    with monkeypatch.context() as patched:
        patched.setattr(wiping.Connection, "execute", execute, raising=False)
        patched.setattr(wiping.Connection, "executemany", executemany, raising=False)
        for each in vault.asks():
            cause = str(each)
            vault.ask(each)
        cause = "a job"
        assert list(vault.run_jobs())
    planned = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)", re.IGNORECASE)
    return [each for each in found.values() if planned.match(each.sql)]


def faults(db: sqlite3.Connection, statement: Statement) -> list[str]:
    """The steps of a plan that go through a whole table, or sort one, unless the table is small."""
    plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.values)]
    aliases = dict(re.findall(r"(?:FROM|JOIN) (\w+)(?: AS)? (\w+)", statement.sql))
    tables = {alias: table for table, alias in aliases.items()}
    found = []
    for step in plan:
        scanned = re.match(r"SCAN (?:TABLE )?(\w+)(?: AS (\w+))?( USING (?:COVERING )?INDEX)?", step)
        if scanned and not step.startswith(("SCAN (", "SCAN CONSTANT", "SCAN json_each", "SCAN TABLE json_each")):
            table = tables.get(scanned[1], scanned[1])
            # A walk along an index that ends at the limit of a page is what an index is for.
            if table not in FIXED | {"a", "subquery"} and not (scanned[3] and "LIMIT" in statement.sql):
                found.append(step)
        elif "TEMP B-TREE" in step and not any(f" {table} " in f"{statement.sql} " for table in FIXED):
            found.append(step)
    return found


def test_every_statement_has_an_index(sized_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = sized_vault(Sizes(secrets=60, machines=20, entries=100, schedules=20, nonces=10))
    recorded_ones = recorded(vault, monkeypatch)
    assert len(recorded_ones) > 250
    texts = {each.sql: re.sub(r"\s+", " ", each.sql).lower() for each in recorded_ones}
    with vault.store.transaction() as db:
        for each in recorded_ones:
            text, found = texts[each.sql], faults(db, each)
            assert not found or any(part.lower() in text for part in JUDGED), (each.cause, text, found)
    stale = [part for part in JUDGED if not any(part.lower() in text for text in texts.values())]
    assert stale == []


def test_a_scan_and_a_sort_are_found(sized_vault: Make) -> None:
    slow = (
        ("SELECT * FROM secrets WHERE name = ?", ("x",)),
        ("SELECT COUNT(*) FROM grants", ()),
        ("SELECT * FROM machines m WHERE m.created_ms > ? ORDER BY m.hostname, m.name", (0,)),
        ("DELETE FROM nonces WHERE nonce = ?", ("x",)),
    )
    with sized_vault(Sizes()).store.reader() as db:
        for sql, values in slow:
            assert faults(db, Statement(sql, values, "")), sql


def test_every_foreign_key_has_an_index(vault: Vault) -> None:
    with vault.store.reader() as db:
        tables = [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            starts = [
                next(column["name"] for column in db.execute(f"PRAGMA index_info('{index['name']}')"))
                for index in db.execute(f"PRAGMA index_list('{table}')").fetchall()
                if not index["partial"]
            ]
            keys = [row["name"] for row in db.execute(f"PRAGMA table_info('{table}')") if row["pk"] == 1]
            for key in db.execute(f"PRAGMA foreign_key_list('{table}')").fetchall():
                assert key["from"] in [*starts, *keys], (table, key["from"])


# ---- work ------------------------------------------------------------------------------------------------------------


def work(vault: Sized) -> dict[str, tuple[int, int]]:
    """The steps that SQLite makes for each request and job, in tens, and the length of the answer."""
    steps, found = 0, {}

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def count_steps(connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
        db = connect()
        db.set_progress_handler(step, 10)
        return db

    connect = vault.store._readers._connect
    vault.store._readers._connect = lambda: count_steps(connect)
    vault.store._db.set_progress_handler(step, 10)
    for each in vault.asks():
        before = steps
        body = vault.ask(each)
        found[str(each)] = (steps - before, len(str(body)))
    before = steps
    for name in vault.run_jobs():
        found[name], before = (steps - before, 0), steps
    return found


def test_no_request_does_more_work_in_a_larger_vault(sized_vault: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # How many more entries the total of a filter counts than it shows, and how many a search looks at.
    for module, name in (
        *((audit, "MAX_AHEAD"), (audit, "MAX_READ_AHEAD")),
        *((audit_index, "FEW"), (audit_index, "SEARCHED")),
    ):
        monkeypatch.setattr(module, name, 10)
    small, large = work(sized_vault(rows_of(SMALL))), work(sized_vault(rows_of(LARGE)))
    assert small.keys() == large.keys()
    for name, (steps, length) in large.items():
        small_steps, small_length = small[name]
        answer_grows = max(1.0, length / max(1, small_length))
        is_growing = steps > 2 * small_steps * answer_grows + 20
        is_judged = any(part in name for part in GROWING)
        assert is_growing <= is_judged, (name, small_steps, steps)


def test_opening_does_no_more_work_in_a_larger_vault(sized_vault: Make) -> None:
    steps = []
    for rows in (SMALL, LARGE):
        vault = sized_vault(rows_of(rows))
        steps.append(0)
        vault.store.close()
        db = sqlite3.connect(vault.store.directory / "vault.db", isolation_level=None)

        def step() -> int:
            steps[-1] += 1
            return 0

        db.set_progress_handler(step, 10)
        for statement in statements(*TABLES):
            db.execute(statement)
        db.close()
    assert steps[1] <= 1.1 * steps[0], steps
