"""What the overview shows: what is pending, what is frozen, and how much there is. No query reads many rows."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from vault import audit_index, totals
from vault.audit_index import Filters
from vault.domains import identities
from vault.query import count

MAX_SHOWN = 10

WAITING = """
SELECT id, name, public_key, created_ms FROM {} WHERE approved_ms IS NULL ORDER BY created_ms LIMIT :limit
"""
FROZEN = """
SELECT p.id, p.name, f.frozen_ms, f.canary_id, s.name AS canary_name,
    s.id IS NOT NULL AND s.deleted_ms IS NULL AS canary_exists
FROM project_freezes f JOIN projects p ON p.id = f.project_id LEFT JOIN secrets s ON s.id = f.canary_id
ORDER BY f.frozen_ms DESC LIMIT :limit
"""


class Waiting(NamedTuple):
    """A pending agent or machine."""

    id: str
    name: str
    fingerprint: str
    created_ms: int


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """How many there are of each, and how often data was found to be changed from outside."""
    kinds = ("projects", "secrets", "agents", "machines")
    found = {kind: count(db, f"SELECT {totals.in_vault(kind)}") for kind in kinds}
    return {**found, "failures": audit_index.total(db, Filters(actions=["integrity_failure"]))}


def waiting_agents(db: sqlite3.Connection) -> list[Waiting]:
    """The agents that have waited longest, one more than MAX_SHOWN if there are more."""
    return _waiting(db, "ai_agents")


def waiting_machines(db: sqlite3.Connection) -> list[Waiting]:
    """The machines that have waited longest, one more than MAX_SHOWN if there are more."""
    return _waiting(db, "machines")


def frozen(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """The projects that a canary froze, latest first, one more than MAX_SHOWN if there are more."""
    return [dict(row) for row in db.execute(FROZEN, {"limit": MAX_SHOWN + 1})]


def _waiting(db: sqlite3.Connection, table: str) -> list[Waiting]:
    rows = db.execute(WAITING.format(table), {"limit": MAX_SHOWN + 1})
    return [
        Waiting(row["id"], row["name"], identities.fingerprint(row["public_key"]), row["created_ms"]) for row in rows
    ]
