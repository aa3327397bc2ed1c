"""Machines: what reads secrets at run time. Their table is apart from the agents', and nothing looks into both.

A machine reads a secret if it is approved, has not expired, belongs to the secret's project and has a grant for it.
"""

from __future__ import annotations

import sqlite3

from vault.calls import Machine
from vault.errors import Denied

TABLES = """
CREATE TABLE IF NOT EXISTS machines (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('standard', 'ephemeral', 'temp')),
    hostname TEXT NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    approved_ms INTEGER,
    expires_ms INTEGER,
    enrollment_token_id TEXT,
    last_seen_ms INTEGER,
    created_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS project_machines (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, machine_id)
);
CREATE TABLE IF NOT EXISTS grants (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    granted_ms INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
"""


def find(db: sqlite3.Connection, machine_id: str) -> Machine | None:
    """The machine with this id, whatever its state."""
    row = db.execute("SELECT * FROM machines WHERE id = ?", (machine_id,)).fetchone()
    if row is None:
        return None
    approved = row["approved_ms"] is not None
    return Machine(row["id"], row["name"], row["kind"], row["public_key"], approved, row["expires_ms"])


def check_state(_db: sqlite3.Connection, machine: Machine, now_ms: int) -> None:
    """Only approved machines that have not expired go on."""
    if not machine.approved:
        raise Denied(403, "Machine is pending approval", machine.id)
    if machine.expires_ms is not None and machine.expires_ms <= now_ms:
        raise Denied(403, "Machine has expired", machine.id)
