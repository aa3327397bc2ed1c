"""Machines, which read secrets at run time. They have their own table: no lookup covers both machines and agents.

A machine can read a secret if it is approved, has not expired, belongs to the secret's project and has a grant for it.
Standard machines stay until they are revoked. Ephemeral machines (from an enrollment token) and temporary machines
(made by the owner) expire. Denied and revoked machines are deleted, so their requests come from an unknown identity.

An agent with a project allowlist sees the machines of its projects, and only those memberships. It can change a machine
only if all of the machine's projects are on its allowlist.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, NamedTuple

from vault import audit
from vault.domains import identities
from vault.domains.identities import MACHINE
from vault.errors import Denied, Refusal, StateDenied
from vault.inputs import BOOLEAN, text
from vault.query import count, fetch_one
from vault.router import OWNER, SYSTEM, Actor, Call, KeySource, Machine, Route, Transaction

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
CREATE INDEX IF NOT EXISTS machines_by_age ON machines (created_ms, id);
CREATE INDEX IF NOT EXISTS machines_by_name ON machines (lower(name), id);
CREATE INDEX IF NOT EXISTS machines_pending ON machines (created_ms, id) WHERE approved_ms IS NULL;
CREATE INDEX IF NOT EXISTS machines_by_token ON machines (enrollment_token_id) WHERE enrollment_token_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS machines_by_end ON machines (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS machine_names (
    id INTEGER PRIMARY KEY,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    new_name TEXT NOT NULL,
    changed_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS machine_names_by_machine ON machine_names (machine_id, id);
CREATE TABLE IF NOT EXISTS project_machines (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, machine_id)
);
DROP INDEX IF EXISTS project_machines_by_machine;
CREATE INDEX IF NOT EXISTS project_machines_by_age ON project_machines (project_id, added_ms, machine_id);
CREATE INDEX IF NOT EXISTS project_machines_of_machine ON project_machines (machine_id, added_ms, project_id);
CREATE TABLE IF NOT EXISTS grants (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    granted_ms INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
CREATE INDEX IF NOT EXISTS grants_by_secret ON grants (secret_id);
"""

# What is deleted with a machine. The foreign keys delete it; these statements count it for the preview.
CASCADE = {
    "projectMemberships": "SELECT COUNT(*) FROM project_machines WHERE machine_id = ?",
    "grants": "SELECT COUNT(*) FROM grants WHERE machine_id = ?",
}

HAS_ENDED = "(expires_ms IS NOT NULL AND expires_ms <= :now)"
STATES = {
    "pending": f"approved_ms IS NULL AND NOT {HAS_ENDED}",
    "approved": f"approved_ms IS NOT NULL AND NOT {HAS_ENDED}",
    "expired": HAS_ENDED,
}
KINDS = ("standard", "ephemeral", "temp")
# A condition on a column that holds a project id: only projects that the agent may reach.
REACH = "(:restricted = 0 OR {} IN (SELECT project_id FROM agent_projects WHERE agent_id = :agent))"
MEMBERSHIPS = f"""
SELECT m.project_id, m.added_ms, p.name FROM project_machines m JOIN live_projects p ON p.id = m.project_id
WHERE m.machine_id = :machine AND {REACH.format("m.project_id")} ORDER BY m.added_ms, m.project_id
"""
# A project of the machine that is not on the agent's allowlist.
BEYOND = """
SELECT 1 FROM project_machines WHERE machine_id = ?
AND project_id NOT IN (SELECT project_id FROM agent_projects WHERE agent_id = ?) LIMIT 1
"""
GRANTS = f"""
SELECT COUNT(*) FROM grants g JOIN live_secrets s ON s.id = g.secret_id
JOIN project_machines m ON m.project_id = s.project_id AND m.machine_id = g.machine_id
WHERE g.machine_id = :machine AND s.deleted_ms IS NULL AND {REACH.format("s.project_id")}
"""
# Whether the agent sees every machine.
REACHED = {
    True: "SELECT * FROM machines ORDER BY created_ms, id",
    False: "SELECT * FROM machines WHERE id IN (SELECT machine_id FROM project_machines WHERE project_id IN"
    " (SELECT project_id FROM agent_projects WHERE agent_id = :agent)) ORDER BY created_ms, id",
}
REMOVED_AT_ONCE = 20  # in one transaction
EXPIRED_VISIBLE_MS = 24 * 3600 * 1000  # an expired machine stays visible for a day


def find(db: sqlite3.Connection, machine_id: str) -> Machine | None:
    """The machine with this id, in any state."""
    row = identities.find_row(db, MACHINE, machine_id)
    return None if row is None else _from_row(row)


def check_state(machine: Machine, now_ms: int) -> None:
    """Raise StateDenied for a pending or an expired machine. The vendor's client expects 401 for the latter."""
    if not machine.approved:
        raise StateDenied(403, "Machine is pending approval", machine.id)
    if machine.expires_ms is not None and machine.expires_ms <= now_ms:
        raise StateDenied(401, "Machine has expired", machine.id)


def mark_seen(db: sqlite3.Connection, machine: Machine, now_ms: int) -> None:
    """Record when a machine was last admitted."""
    db.execute("UPDATE machines SET last_seen_ms = ? WHERE id = ?", (now_ms, machine.id))


def register(
    db: sqlite3.Connection,
    now_ms: int,
    name: str,
    *,
    kind: str,
    hostname: str,
    public_key: bytes,
    expires_ms: int | None = None,
    enrollment_token_id: str | None = None,
) -> str:
    """Create a machine and return its id. With an enrollment token it needs no approval. Raises Refusal."""
    machine_id = str(uuid.uuid4())
    approved_ms = None if enrollment_token_id is None else now_ms
    try:
        db.execute(
            "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, expires_ms, enrollment_token_id,"
            " created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (machine_id, name, kind, hostname, public_key, approved_ms, expires_ms, enrollment_token_id, now_ms),
        )
    except sqlite3.IntegrityError:
        raise Refusal(409, "this public key is already registered: generate a new one") from None
    return machine_id


def reach(call: Call) -> dict[str, object]:
    """The parameters of REACH."""
    return {"restricted": call.agent.allowlist is not None, "agent": call.agent.id}


def require(call: Call, machine_id: str) -> sqlite3.Row:
    """A machine that the agent may see. To a restricted agent, unknown and invisible ids look the same."""
    row = identities.find_row(call.db, MACHINE, machine_id)
    if call.agent.allowlist is not None and (row is None or not _is_in_reach(call, machine_id)):
        raise Denied(403, "the machine is not in a project on the agent's allowlist", call.agent.id)
    if row is None:
        raise Refusal(404, "no such machine")
    return row


def state(row: sqlite3.Row, now_ms: int) -> str:
    """Pending, approved or expired."""
    if row["expires_ms"] is not None and row["expires_ms"] <= now_ms:
        return "expired"
    return "pending" if row["approved_ms"] is None else "approved"


def remove_expired(transaction: Transaction, _keys: KeySource, now_ms: int) -> None:
    """Background job: delete machines a day after they expired."""
    expired = "SELECT id, name FROM machines WHERE expires_ms <= ? LIMIT ?"
    removed = REMOVED_AT_ONCE
    while removed == REMOVED_AT_ONCE:
        with transaction() as db:
            rows = db.execute(expired, (now_ms - EXPIRED_VISIBLE_MS, REMOVED_AT_ONCE)).fetchall()
            for row in rows:
                db.execute("DELETE FROM machines WHERE id = ?", (row["id"],))
                detail = f"machine {row['id']} ({row['name']}) removed after it expired"
                audit.record(db, now_ms, SYSTEM, "machine_expire", detail)
        removed = len(rows)


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The machines that the agent may see, oldest first."""
    rows = call.db.execute(REACHED[call.agent.allowlist is None], {"agent": call.agent.id})
    return [_to_json(row, call.now_ms) for row in rows]


def get(call: Call) -> object:
    """One machine, with its projects and the number of its grants."""
    row = require(call, call.params["machineId"])
    projects = _memberships(call, row["id"])
    return {
        **_to_json(row, call.now_ms),
        "expiresAt": row["expires_ms"],
        "enrollmentTokenId": row["enrollment_token_id"],
        "projects": [
            {"projectId": each["project_id"], "projectName": each["name"], "addedAt": each["added_ms"]}
            for each in projects
        ],
        "grantCount": count(call.db, GRANTS, {"machine": row["id"], **reach(call)}),
    }


def approve(call: Call) -> object:
    """Approve a pending machine."""
    row = _require_pending(call)
    identities.approve(call, MACHINE, row["id"])
    return {"id": row["id"], "name": row["name"], "state": "approved"}


def deny(call: Call) -> object:
    """Reject and delete a pending machine."""
    return identities.deny(call, MACHINE, _require_pending(call))


def revoke(call: Call) -> object:
    """Delete a machine permanently, or preview what would be deleted with it."""
    row = _require_changeable(call)
    counts = {name: count(call.db, statement, (row["id"],)) for name, statement in CASCADE.items()}
    if call.body.get("preview"):
        return {"id": row["id"], "name": row["name"], "preview": True, "cascade": counts}
    return {**identities.revoke(call, MACHINE, row), "cascade": counts}


def rename(call: Call) -> object:
    """Rename a machine. The old name is added to its history."""
    return identities.rename(call, MACHINE, _require_changeable(call))


def name_history(call: Call) -> object:
    """The machine's earlier names, latest change first."""
    row = require(call, call.params["machineId"])
    return identities.name_history(call, MACHINE, row["id"])


def _from_row(row: sqlite3.Row) -> Machine:
    approved = row["approved_ms"] is not None
    return Machine(row["id"], row["name"], row["kind"], row["public_key"], approved, row["expires_ms"])


def _memberships(call: Call, machine_id: str) -> list[sqlite3.Row]:
    """The machine's projects that the agent may reach."""
    return call.db.execute(MEMBERSHIPS, {"machine": machine_id, **reach(call)}).fetchall()


def _is_in_reach(call: Call, machine_id: str) -> bool:
    return fetch_one(call.db, MEMBERSHIPS + "LIMIT 1", {"machine": machine_id, **reach(call)}) is not None


def _require_changeable(call: Call) -> sqlite3.Row:
    row = require(call, call.params["machineId"])
    if call.agent.allowlist is not None and fetch_one(call.db, BEYOND, (row["id"], call.agent.id)) is not None:
        raise Denied(403, "the machine is also in a project that is not on the agent's allowlist", call.agent.id)
    return row


def _require_pending(call: Call) -> sqlite3.Row:
    row = _require_changeable(call)
    current = state(row, call.now_ms)
    if current != "pending":
        raise Refusal(409, f"the machine is not pending, it is {current}")
    return row


def _to_json(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "state": state(row, now_ms),
        "hostname": row["hostname"],
        "createdAt": row["created_ms"],
        "approvedAt": row["approved_ms"],
        "lastSeenAt": row["last_seen_ms"],
    }


ONE = "/v1/ai/machines/{machineId}"
READ, WRITE = "machines.read", "machines.write"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/machines",     READ,  list_all, reads=True),
    Route("GET",  ONE,                   READ,  get, reads=True),
    Route("POST", ONE + "/approve",      WRITE, approve),
    Route("POST", ONE + "/deny",         WRITE, deny),
    Route("POST", ONE + "/revoke",       WRITE, revoke, {"preview": BOOLEAN}),
    Route("POST", ONE + "/rename",       WRITE, rename, {"name": text(1, 255).required()}),
    Route("GET",  ONE + "/name-history", READ,  name_history, reads=True),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection, now_ms: int) -> list[dict[str, object]]:
    """Every machine, oldest first."""
    return [_to_json(row, now_ms) for row in db.execute("SELECT * FROM machines ORDER BY created_ms, id")]


class Filters(NamedTuple):
    """Which machines to list. None means any; `name` is a part of the name or the hostname."""

    state: str | None = None
    kind: str | None = None
    name: str | None = None
    token_id: str | None = None


def listing(
    db: sqlite3.Connection, now_ms: int, filters: Filters, limit: int, offset: int = 0
) -> tuple[list[dict[str, object]], int]:
    """Some of the machines, newest first, and how many match the filters."""
    conditions = [STATES[filters.state] if filters.state else "TRUE"]
    conditions += ["kind = :kind"] if filters.kind else []
    conditions += ["instr(lower(name || ' ' || hostname), lower(:name)) > 0"] if filters.name else []
    conditions += ["enrollment_token_id = :token"] if filters.token_id else []
    where = f"FROM machines WHERE {' AND '.join(conditions)}"
    values = {"now": now_ms, "kind": filters.kind, "name": filters.name, "token": filters.token_id}
    rows = db.execute(
        f"SELECT * {where} ORDER BY created_ms DESC, id DESC LIMIT :limit OFFSET :offset",
        {**values, "limit": limit, "offset": offset},
    )
    return [_to_json(row, now_ms) for row in rows], count(db, f"SELECT COUNT(*) {where}", values)


def describe(db: sqlite3.Connection, now_ms: int, machine_id: str) -> dict[str, Any]:
    """All that the owner knows about a machine. Raises Refusal, a 404."""
    row = identities.find_row(db, MACHINE, machine_id)
    if row is None:
        raise Refusal(404, "there is no such machine")
    token = fetch_one(db, "SELECT id, name FROM enrollment_tokens WHERE id = ?", (row["enrollment_token_id"],))
    return {
        **_to_json(row, now_ms),
        "fingerprint": identities.fingerprint(row["public_key"]),
        "expiresAt": row["expires_ms"],
        "enrollmentToken": dict(token) if token else None,
        "names": identities.names_of(db, MACHINE, machine_id),
        "reads": audit.recent_of_machine(db, machine_id, ("secret_read",)),
        "denials": audit.recent_of_machine(db, machine_id, ("secret_read_denied", "auth_failure")),
    }


def last_addresses(db: sqlite3.Connection, limit: int) -> list[dict[str, str]]:
    """The machines that were seen last, and the address of the latest entry of each, if it has one."""
    rows = db.execute(
        "SELECT m.id, m.name, (SELECT a.source_ip FROM audit a WHERE a.machine_id = m.id AND a.source_ip IS NOT NULL"
        " ORDER BY a.created_ms DESC LIMIT 1) AS address FROM machines m WHERE m.last_seen_ms IS NOT NULL"
        " ORDER BY m.last_seen_ms DESC LIMIT ?",
        (limit,),
    )
    return [dict(row) for row in rows if row["address"] is not None]


def approve_as_owner(db: sqlite3.Connection, now_ms: int, machine_id: str, *, actor: Actor = OWNER) -> Machine:
    """Approve a pending machine. Raises VaultError."""
    return _from_row(identities.approve_as_owner(db, now_ms, MACHINE, machine_id, actor=actor))


def revoke_as_owner(db: sqlite3.Connection, now_ms: int, machine_id: str, *, actor: Actor = OWNER) -> Machine:
    """Delete a machine in any state. Raises VaultError."""
    machine = _from_row(identities.require_for_owner(db, MACHINE, machine_id))
    db.execute("DELETE FROM machines WHERE id = ?", (machine_id,))
    audit.record(db, now_ms, actor, "machine_revoke", f"machine {machine_id} ({machine.name}) revoked")
    return machine
