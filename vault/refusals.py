"""Counts refused requests of unknown senders, so that a flood of them cannot fill the disk or hide other entries.

The audit log gets the first such request of each kind and minute immediately, and the number of the others when the
minute is over. A kind is an address, the identity that the request claims, and the reason. Kinds beyond MAX_KINDS a
minute share one entry, since an attacker can choose from many addresses, on loopback too.
"""

from __future__ import annotations

import sqlite3

from vault import audit
from vault.errors import Denied
from vault.query import count
from vault.router import Actor, KeySource, Transaction

TABLES = """
CREATE TABLE IF NOT EXISTS refusal_counts (
    minute INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    identity TEXT NOT NULL,
    source_ip TEXT NOT NULL,
    reason TEXT NOT NULL,
    unreported INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, action, actor_kind, identity, source_ip, reason)
) WITHOUT ROWID;
"""

MINUTE_MS = 60_000
MAX_KINDS = 20  # a minute: with the counts, at most 42 entries
OTHERS = Actor("external", None, None)

ADD_ONE = """
UPDATE refusal_counts SET unreported = unreported + 1
WHERE minute = ? AND action = ? AND actor_kind = ? AND identity = ? AND source_ip = ? AND reason = ?
"""


def record(db: sqlite3.Connection, now_ms: int, actor: Actor, denied: Denied, where: str) -> None:
    """Audit or count one refused request. `where` is its method and route."""
    minute, action, reason = now_ms // MINUTE_MS, denied.action, str(denied)
    _report(db, now_ms, minute)
    if _is_counted(db, minute, actor, action, reason):
        return
    if count(db, "SELECT COUNT(*) FROM refusal_counts WHERE minute = ?", (minute,)) < MAX_KINDS:
        detail = f"{where}: {reason}"
    else:
        actor, action, reason = OTHERS, "auth_failure", "from other addresses or for other reasons"
        detail = f"{where}: refused, one of many in this minute"
        if _is_counted(db, minute, actor, action, reason):
            return
    db.execute(
        "INSERT INTO refusal_counts (minute, action, actor_kind, identity, source_ip, reason)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        _kind(minute, actor, action, reason),
    )
    audit.record(db, now_ms, actor, action, detail)


def report_due(transaction: Transaction, _keys: KeySource, now_ms: int) -> None:
    """Background job: audit the counts of the minutes that are over."""
    with transaction() as db:
        _report(db, now_ms, now_ms // MINUTE_MS)


def _report(db: sqlite3.Connection, now_ms: int, minute: int) -> None:
    # Not only earlier minutes, because the clock may have been set back.
    for row in db.execute("SELECT * FROM refusal_counts WHERE minute <> ?", (minute,)).fetchall():
        if row["unreported"]:
            actor = Actor(row["actor_kind"], row["identity"] or None, row["source_ip"] or None)
            detail = f"{row['unreported']} more refused requests within one minute: {row['reason']}"
            audit.record(db, now_ms, actor, row["action"], detail)
    db.execute("DELETE FROM refusal_counts WHERE minute <> ?", (minute,))


def _is_counted(db: sqlite3.Connection, minute: int, actor: Actor, action: str, reason: str) -> bool:
    return db.execute(ADD_ONE, _kind(minute, actor, action, reason)).rowcount == 1


def _kind(minute: int, actor: Actor, action: str, reason: str) -> tuple[int, str, str, str, str, str]:
    return minute, action, actor.kind, actor.id or "", actor.source_ip or "", reason
