"""What agents look at: requests that change nothing are counted, and audited once a minute.

An entry names the agent, the route, the ids in the path with their counts, and the project. The counts are stored in
the transaction of the request, so a restart loses none of them.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from vault import audit
from vault.router import Actor, Agent, Call, KeySource, Route, Transaction

TABLES = """
CREATE TABLE IF NOT EXISTS agent_reads (
    minute_ms INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    route TEXT NOT NULL,
    project_id TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (minute_ms, agent_id, route, project_id, subject_id)
) WITHOUT ROWID;
"""

MINUTE_MS = 60_000
IDS_PER_ENTRY = 50  # more ids make more entries
IDS_AT_ONCE = 500  # in one transaction
OF_KEY = "WHERE minute_ms = ? AND agent_id = ? AND route = ? AND project_id = ? AND subject_id = ?"


def count(call: Call, route: Route) -> None:
    """Count a request that changed nothing, if an agent sent it."""
    if isinstance(call.caller, Agent):
        call.db.execute(
            "INSERT INTO agent_reads (minute_ms, agent_id, route, project_id, subject_id, requests)"
            " VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
            _key(call, call.caller, route),
        )


def uncount(call: Call, route: Route) -> None:
    """Take back what `count` did, because the request was refused after all."""
    if isinstance(call.caller, Agent):
        key = _key(call, call.caller, route)
        call.db.execute(f"UPDATE agent_reads SET requests = requests - 1 {OF_KEY}", key)
        call.db.execute(f"DELETE FROM agent_reads {OF_KEY} AND requests < 1", key)


def _key(call: Call, agent: Agent, route: Route) -> tuple[int, str, str, str, str]:
    project_id = call.params.get("projectId", "")
    subject_id = next((value for key, value in reversed(list(call.params.items())) if key != "projectId"), "")
    minute_ms = call.now_ms - call.now_ms % MINUTE_MS
    return minute_ms, agent.id, f"{route.method} {route.path}", project_id, subject_id


def record_due(transaction: Transaction, _keys: KeySource, now_ms: int) -> None:
    """Background job: audit the minutes that are over, in short transactions."""
    recorded = IDS_AT_ONCE
    while recorded == IDS_AT_ONCE:
        with transaction() as db:
            recorded = _record_some(db, now_ms, now_ms - MINUTE_MS, IDS_AT_ONCE)


def record_until(db: sqlite3.Connection, now_ms: int, last_ms: int) -> None:
    """Audit the minutes that began at this time or before."""
    _record_some(db, now_ms, last_ms, -1)


def _record_some(db: sqlite3.Connection, now_ms: int, last_ms: int, limit: int) -> int:
    """Audit at most `limit` counts, or all if it is negative, and return how many there were."""
    oldest = "SELECT * FROM agent_reads WHERE minute_ms <= ? ORDER BY 1, 2, 3, 4, 5 LIMIT ?"
    rows = db.execute(oldest, (last_ms, limit)).fetchall()
    for _, group in itertools.groupby(rows, lambda row: tuple(row)[:4]):  # all but the subject and its count
        _record(db, now_ms, list(group))
    db.executemany(f"DELETE FROM agent_reads {OF_KEY}", [tuple(row)[:5] for row in rows])
    return len(rows)


def _record(db: sqlite3.Connection, now_ms: int, group: Sequence[sqlite3.Row]) -> None:
    for start in range(0, len(group), IDS_PER_ENTRY):
        rows = group[start : start + IDS_PER_ENTRY]
        minute = datetime.fromtimestamp(rows[0]["minute_ms"] / 1000, timezone.utc)
        total = sum(row["requests"] for row in rows)
        detail = f"{rows[0]['route']}: {total} in the minute from {minute:%Y-%m-%d %H:%MZ}{_subjects(rows)}"
        # With one id, filters on secrets find the entry.
        secret_id = rows[0]["subject_id"] if len(rows) == 1 and "{secretId}" in rows[0]["route"] else None
        actor = Actor("ai_agent", rows[0]["agent_id"], None)
        ids = {"secret_id": secret_id, "project_id": rows[0]["project_id"] or None}
        audit.record(db, now_ms, actor, "metadata_read", detail, **ids)


def _subjects(rows: Iterable[sqlite3.Row]) -> str:
    counts = [f"{row['subject_id']} {row['requests']}" for row in rows if row["subject_id"]]
    return f"; {', '.join(counts)}" if counts else ""
