"""Machines: what reads secrets at run time. Their table is apart from the agents', and nothing looks into both.

A machine reads a secret if it is approved, has not expired, belongs to the secret's project and has a grant for it.
Standard ones stay until they are revoked; ephemeral ones (by enrollment token) and temporary ones (of the owner)
expire.
Denied and revoked machines are gone: what they sign comes from an unknown identity.

An agent with a project allowlist sees the machines of its projects, and of their memberships only those. It changes
a machine only if all of the machine's projects are on its list, since approval, name and end concern them all.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import TYPE_CHECKING

from vault import audit
from vault.calls import OWNER, SYSTEM, Call, Machine, Route
from vault.errors import Denied, Refusal, VaultError
from vault.inputs import BOOLEAN, text
from vault.terminal import PROGRAM, printable

if TYPE_CHECKING:
    from vault.store import Store

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
CREATE INDEX IF NOT EXISTS project_machines_by_machine ON project_machines (machine_id);
CREATE TABLE IF NOT EXISTS grants (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    granted_ms INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
CREATE INDEX IF NOT EXISTS grants_by_secret ON grants (secret_id);
"""

# What goes with a machine: the foreign keys delete it, these statements count it for the preview.
CASCADE = {
    "projectMemberships": "SELECT COUNT(*) FROM project_machines WHERE machine_id = ?",
    "grants": "SELECT COUNT(*) FROM grants WHERE machine_id = ?",
}

LINGER_MS = 24 * 3600 * 1000  # an expired machine stays visible for a day
MAX_HISTORY = 100


def find(db: sqlite3.Connection, machine_id: str) -> Machine | None:
    """The machine with this id, whatever its state."""
    row = _row(db, machine_id)
    if row is None:
        return None
    approved = row["approved_ms"] is not None
    return Machine(row["id"], row["name"], row["kind"], row["public_key"], approved, row["expires_ms"])


def check_state(machine: Machine, now_ms: int) -> None:
    """Only approved machines that have not expired go on. The vendor's client takes expiry for a 401."""
    if not machine.approved:
        raise Denied(403, "Machine is pending approval", machine.id)
    if machine.expires_ms is not None and machine.expires_ms <= now_ms:
        raise Denied(401, "Machine has expired", machine.id)


def mark_seen(db: sqlite3.Connection, machine: Machine, now_ms: int) -> None:
    """A machine has passed the gate."""
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
    """The id of a new machine. Only an enrollment token lets one in without approval."""
    machine_id = str(uuid.uuid4())
    approved_ms = None if enrollment_token_id is None else now_ms
    try:
        db.execute(
            "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, expires_ms, enrollment_token_id,"
            " created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (machine_id, name, kind, hostname, public_key, approved_ms, expires_ms, enrollment_token_id, now_ms),
        )
    except sqlite3.IntegrityError:
        raise Refusal(409, "this public key is registered already: make a new one") from None
    return machine_id


def reachable(call: Call, machine_id: str) -> sqlite3.Row:
    """A machine that the agent may see; to a restricted agent, ids of no machine look like those of others."""
    row = _row(call.db, machine_id)
    if call.agent.allowlist is not None and (row is None or not _memberships(call, machine_id)):
        raise Denied(403, "the machine is not in a project on the agent's allowlist", call.agent.id)
    if row is None:
        raise Refusal(404, "no such machine")
    return row


def state(row: sqlite3.Row, now_ms: int) -> str:
    """Pending, approved or expired."""
    if row["expires_ms"] is not None and row["expires_ms"] <= now_ms:
        return "expired"
    return "pending" if row["approved_ms"] is None else "approved"


def remove_expired(store: Store, now_ms: int) -> None:
    """The serving process's job: forget machines a day after their end."""
    with store.transaction() as db:
        ended = db.execute("SELECT id, name FROM machines WHERE expires_ms <= ?", (now_ms - LINGER_MS,)).fetchall()
        for row in ended:
            db.execute("DELETE FROM machines WHERE id = ?", (row["id"],))
            audit.record(db, now_ms, SYSTEM, "machine_expire", f"machine {row['id']} forgotten, was {row['name']}")


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """Every machine that the agent may see, oldest first."""
    rows = call.db.execute("SELECT * FROM machines ORDER BY created_ms, id").fetchall()
    everything = call.agent.allowlist is None
    return [_shown(row, call.now_ms) for row in rows if everything or _memberships(call, row["id"])]


def get(call: Call) -> object:
    """One machine, with its projects and the number of secrets it may read there."""
    row = reachable(call, call.params["machineId"])
    projects = _memberships(call, row["id"])
    return {
        **_shown(row, call.now_ms),
        "expiresAt": row["expires_ms"],
        "enrollmentTokenId": row["enrollment_token_id"],
        "projects": [
            {"projectId": each["project_id"], "projectName": each["name"], "addedAt": each["added_ms"]}
            for each in projects
        ],
        "grantCount": sum(each["grants"] for each in projects),
    }


def approve_one(call: Call) -> object:
    """Let a pending machine in."""
    row = _changeable(call)
    _require_pending(row, call.now_ms)
    call.db.execute("UPDATE machines SET approved_ms = ? WHERE id = ?", (call.now_ms, row["id"]))
    audit.note(call, "machine_approve", f"machine {row['id']} approved")
    return {"id": row["id"], "name": row["name"], "state": "approved"}


def deny(call: Call) -> object:
    """Turn a pending machine away; nothing of it stays."""
    row = _changeable(call)
    _require_pending(row, call.now_ms)
    call.db.execute("DELETE FROM machines WHERE id = ?", (row["id"],))
    audit.note(call, "machine_deny", f"machine {row['id']} denied, was {row['name']}")
    return {"id": row["id"], "name": row["name"], "state": "denied"}


def revoke(call: Call) -> object:
    """Say what would go, or cut the machine off for good."""
    row = _changeable(call)
    counts = {name: call.db.execute(count, (row["id"],)).fetchone()[0] for name, count in CASCADE.items()}
    summary = {"id": row["id"], "name": row["name"]}
    if call.body.get("preview"):
        return {**summary, "preview": True, "cascade": counts}
    call.db.execute("DELETE FROM machines WHERE id = ?", (row["id"],))
    audit.note(call, "machine_revoke", f"machine {row['id']} revoked, was {row['name']}")
    return {**summary, "state": "revoked", "cascade": counts}


def rename(call: Call) -> object:
    """Give it another name; the old one goes into its history."""
    row, name = _changeable(call), call.body["name"]
    if name != row["name"]:
        call.db.execute("UPDATE machines SET name = ? WHERE id = ?", (name, row["id"]))
        call.db.execute(
            "INSERT INTO machine_names (machine_id, name, new_name, changed_ms) VALUES (?, ?, ?, ?)",
            (row["id"], row["name"], name, call.now_ms),
        )
        audit.note(call, "machine_rename", f"machine {row['id']} renamed from {row['name']} to {name}")
    return {"id": row["id"], "name": name}


def name_history(call: Call) -> object:
    """Its earlier names, the latest change first."""
    row = reachable(call, call.params["machineId"])
    rows = call.db.execute(
        "SELECT * FROM machine_names WHERE machine_id = ? ORDER BY id DESC LIMIT ?", (row["id"], MAX_HISTORY)
    )
    return [{"name": row["name"], "newName": row["new_name"], "changedAt": row["changed_ms"]} for row in rows]


def _row(db: sqlite3.Connection, machine_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM machines WHERE id = ?", (machine_id,)).fetchone()
    return row


def _memberships(call: Call, machine_id: str) -> list[sqlite3.Row]:
    """The machine's projects that the agent may reach."""
    rows = call.db.execute(
        "SELECT m.project_id, m.added_ms, p.name, (SELECT COUNT(*) FROM grants g JOIN secrets s ON s.id = g.secret_id"
        " WHERE g.machine_id = m.machine_id AND s.project_id = m.project_id AND s.deleted_ms IS NULL) AS grants"
        " FROM project_machines m JOIN projects p ON p.id = m.project_id"
        " WHERE m.machine_id = ? ORDER BY m.added_ms, m.project_id",
        (machine_id,),
    )
    return [row for row in rows if call.agent.may_reach(row["project_id"])]


def _changeable(call: Call) -> sqlite3.Row:
    row = reachable(call, call.params["machineId"])
    everywhere = call.db.execute(CASCADE["projectMemberships"], (row["id"],)).fetchone()[0]
    if call.agent.allowlist is not None and everywhere > len(_memberships(call, row["id"])):
        raise Denied(403, "the machine is also in a project that is not on the agent's allowlist", call.agent.id)
    return row


def _require_pending(row: sqlite3.Row, now_ms: int) -> None:
    if state(row, now_ms) != "pending":
        raise Refusal(409, f"the machine is not pending, it is {state(row, now_ms)}")


def _shown(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
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
    Route("GET",  "/v1/ai/machines",     READ,  list_all),
    Route("GET",  ONE,                   READ,  get),
    Route("POST", ONE + "/approve",      WRITE, approve_one),
    Route("POST", ONE + "/deny",         WRITE, deny),
    Route("POST", ONE + "/revoke",       WRITE, revoke, {"preview": BOOLEAN}),
    Route("POST", ONE + "/rename",       WRITE, rename, {"name": text(1, 255).must()}),
    Route("GET",  ONE + "/name-history", READ,  name_history),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection, now_ms: int) -> list[dict[str, object]]:
    """Every machine, oldest first."""
    return [_shown(row, now_ms) for row in db.execute("SELECT * FROM machines ORDER BY created_ms, id")]


def approve(db: sqlite3.Connection, now_ms: int, machine_id: str) -> Machine:
    """Let a pending machine in."""
    machine = _owned(db, machine_id)
    db.execute("UPDATE machines SET approved_ms = coalesce(approved_ms, ?) WHERE id = ?", (now_ms, machine_id))
    audit.record(db, now_ms, OWNER, "machine_approve", f"machine {machine_id} approved")
    return machine


def cut_off(db: sqlite3.Connection, now_ms: int, machine_id: str) -> Machine:
    """Revoke a machine, whatever its state."""
    machine = _owned(db, machine_id)
    db.execute("DELETE FROM machines WHERE id = ?", (machine_id,))
    audit.record(db, now_ms, OWNER, "machine_revoke", f"machine {machine_id} revoked, was {machine.name}")
    return machine


def _owned(db: sqlite3.Connection, machine_id: str) -> Machine:
    machine = find(db, machine_id)
    if machine is None:
        raise VaultError(
            f"there is no machine {printable(machine_id)}", f"list them with: {PROGRAM} machines --dir DIR"
        )
    return machine
