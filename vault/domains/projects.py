"""Projects: the unit of encryption, of agents' allowlists and of deletion. Each project has its own key.

Deleting a project replaces its key and hides its rows at once. A background job deletes the rows of a large project in
short transactions, so that nobody waits for it. Statements that show projects or secrets use the views `live_projects`
and `live_secrets`, which leave out what is being deleted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from vault import audit, seals, totals
from vault.crypto import new_id
from vault.domains import agents
from vault.errors import Denied, Refusal
from vault.inputs import BOOLEAN, require_any, text
from vault.query import count, require_one
from vault.router import Call, KeySource, Route, Transaction
from vault.wiping import wipe_log_after_commit

TABLES = """
CREATE TABLE IF NOT EXISTS projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS projects_by_age ON projects (created_ms, id);
-- The projects that are being deleted. The last step deletes the project and, with it, this row.
CREATE TABLE IF NOT EXISTS deleted_projects (
    project_id TEXT PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    deleted_ms INTEGER NOT NULL
);
CREATE VIEW IF NOT EXISTS live_projects AS
    SELECT * FROM projects p WHERE NOT EXISTS (SELECT 1 FROM deleted_projects d WHERE d.project_id = p.id);
"""

# What is deleted with a project. These statements count it for the preview.
TOTAL = "SELECT " + totals.subquery("{}", "?")
CASCADE = {
    "secrets": TOTAL.format("secrets"),
    "secretsInTrash": TOTAL.format("trash"),
    "secretVersions": TOTAL.format("versions"),
    "rotationSchedules": TOTAL.format("schedules"),
    "policies": TOTAL.format("policies"),
    "canaries": "SELECT COUNT(*) FROM secrets WHERE project_id = ? AND kind = 'canary'",
    "teamPermissions": "SELECT COUNT(*) FROM project_members WHERE project_id = ?",
    "machineMemberships": TOTAL.format("memberships"),
    "grants": TOTAL.format("grants"),
    "enrollmentTokens": "SELECT COUNT(*) FROM enrollment_projects WHERE project_id = ?",
    "temporarySecrets": "SELECT COUNT(*) FROM temporary_secrets WHERE project_id = ?",
    "agentAllowlistEntries": "SELECT COUNT(*) FROM agent_projects WHERE project_id = ?",
}

# What goes at once, since it gives access to the project: few rows, except that tokens and links may be many.
ACCESS = ("agent_projects", "project_members", "enrollment_projects", "temporary_secrets", "project_freezes")
# What may be many rows of one secret, and of a project without secrets. Foreign keys delete everything else.
ROWS_OF_SECRET = (
    *("secret_versions", "grants", "machine_versions", "policy_reads"),
    *("cosign_requests", "enrollment_secrets"),
)
ROWS_OF_PROJECT = ("project_machines", "policies")
ROWS_AT_ONCE = 200  # in one transaction, which takes some ten milliseconds
TRANSACTIONS_AT_ONCE = 50  # of one run of the background job, for whose end a server waits that is stopped

SELECT = f"SELECT p.*, {totals.subquery('secrets', 'p.id')} AS secret_count FROM live_projects p "
# Whether the agent sees every project.
REACHED = {
    True: "ORDER BY p.created_ms, p.id",
    False: "WHERE p.id IN (SELECT project_id FROM agent_projects WHERE agent_id = :agent) ORDER BY p.created_ms, p.id",
}


def require(call: Call, project_id: str) -> sqlite3.Row:
    """The project, if the agent may reach it. The gate does not check ids in bodies, this does. Raises Refusal."""
    if not call.agent.may_reach(project_id):
        raise Denied(403, "the project is not on the agent's allowlist", call.agent.id)
    return require_one(call.db, "SELECT * FROM live_projects WHERE id = ?", (project_id,), "no such project")


def list_all(call: Call) -> object:
    """The projects that the agent may reach, oldest first."""
    rows = call.db.execute(SELECT + REACHED[call.agent.allowlist is None], {"agent": call.agent.id})
    return [_to_json(row) for row in rows]


def create(call: Call) -> object:
    """Create a project with its own key. It is added to the agent's allowlist, if there is one."""
    project_id, name = new_id("proj_"), call.body["name"]
    call.db.execute(
        "INSERT INTO projects (id, name, description, wrapped_key, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (project_id, name, call.body.get("description", ""), call.keys.new_project_key(project_id))
        + (call.now_ms, call.now_ms),
    )
    agents.allow(call.db, call.agent, project_id)
    audit.note(call, "project_create", f"project {project_id} created as {name}", project_id=project_id)
    return {"id": project_id, "name": name}


def update(call: Call) -> object:
    """Change the name or description. Absent keys stay unchanged."""
    project = require(call, call.params["projectId"])
    require_any(call.body, UPDATE_FIELDS)
    name = call.body.get("name", project["name"])
    call.db.execute(
        "UPDATE projects SET name = ?, description = ?, updated_ms = ? WHERE id = ?",
        (name, call.body.get("description", project["description"]), call.now_ms, project["id"]),
    )
    changed = ", ".join(sorted(call.body))
    audit.note(call, "project_update", f"project {project['id']}: {changed} changed", project_id=project["id"])
    return {"id": project["id"], "name": name}


def delete(call: Call) -> object:
    """Delete a project after its name is confirmed, or preview what would be deleted with it."""
    project = require(call, call.params["projectId"])
    counts = cascade(call.db, project["id"])
    summary = {"id": project["id"], "name": project["name"]}
    if call.body.get("preview"):
        return {**summary, "preview": True, "cascade": counts}
    if call.body.get("confirmName") != project["name"]:
        raise Refusal(400, "confirmName must be the name of the project")
    _hide(call, project["id"])
    _delete_some(call.db, project["id"])
    detail = f"project {project['id']} ({project['name']}) deleted"
    audit.note(call, "project_delete", detail, project_id=project["id"])
    return {**summary, "deleted": True, "cascade": counts}


def cascade(db: sqlite3.Connection, project_id: str) -> dict[str, int]:
    """What is deleted with a project."""
    return {name: count(db, statement, (project_id,)) for name, statement in CASCADE.items()}


def delete_rows(transaction: Transaction, _keys: KeySource, _now_ms: int) -> None:
    """Background job: delete the rows of deleted projects, in short transactions."""
    for _ in range(TRANSACTIONS_AT_ONCE):
        with transaction() as db:
            project_id = _next_deleted(db)
            if project_id is None:
                return
            _delete_some(db, project_id)


def _next_deleted(db: sqlite3.Connection) -> str | None:
    """The project whose rows are to be deleted next. A row that was added from outside deletes nothing."""
    rows = db.execute("SELECT project_id FROM deleted_projects ORDER BY deleted_ms, project_id").fetchall()
    return next((row["project_id"] for row in rows if seals.matches(db, "deletion", row["project_id"])), None)


def _hide(call: Call, project_id: str) -> None:
    """Make every value of a project unreadable by replacing the key, and the project invisible."""
    call.db.execute("INSERT INTO deleted_projects (project_id, deleted_ms) VALUES (?, ?)", (project_id, call.now_ms))
    for table in ACCESS:
        call.db.execute(f"DELETE FROM {table} WHERE project_id = ?", (project_id,))
    new_key = call.keys.new_project_key(project_id)
    call.db.execute("UPDATE projects SET wrapped_key = ? WHERE id = ?", (new_key, project_id))
    wipe_log_after_commit(call.db)


def _delete_some(db: sqlite3.Connection, project_id: str) -> None:
    """Delete at most ROWS_AT_ONCE rows of a deleted project, and after its last row the project."""
    left = ROWS_AT_ONCE
    oldest = "SELECT id FROM secrets WHERE project_id = ? ORDER BY created_ms, id LIMIT ?"
    for secret in db.execute(oldest, (project_id, left)).fetchall():
        left -= _delete_from(db, ROWS_OF_SECRET, "secret_id", secret["id"], left)
        if left <= 0:
            return
        db.execute("DELETE FROM secrets WHERE id = ?", (secret["id"],))
        left -= 1
    left -= _delete_from(db, ROWS_OF_PROJECT, "project_id", project_id, left)
    if left > 0:
        db.execute("DELETE FROM projects WHERE id = ?", (project_id,))
        wipe_log_after_commit(db)


def _delete_from(db: sqlite3.Connection, tables: Iterable[str], column: str, value: str, most: int) -> int:
    """Delete at most so many rows with a value in a column, and return how many."""
    deleted = 0
    for table in tables:
        rows = f"SELECT rowid FROM {table} WHERE {column} = ? LIMIT ?"
        deleted += db.execute(f"DELETE FROM {table} WHERE rowid IN ({rows})", (value, most - deleted)).rowcount
    return deleted


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "secretCount": row["secret_count"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


NAME = text(1, 100)
CREATE_FIELDS = {"name": NAME.required(), "description": text()}
UPDATE_FIELDS = {"name": NAME, "description": text()}
DELETE_FIELDS = {"confirmName": text(), "preview": BOOLEAN}

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/projects",                         "projects.read",  list_all, reads=True),
    Route("POST", "/v1/ai/projects",                         "projects.write", create, CREATE_FIELDS, status=201),
    Route("POST", "/v1/ai/projects/{projectId}/update",      "projects.write", update, UPDATE_FIELDS),
    Route("POST", "/v1/ai/projects/{projectId}/delete",      "projects.write", delete, DELETE_FIELDS),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def names(db: sqlite3.Connection, limit: int, ids: Iterable[str] = ()) -> dict[str, str]:
    """The names of the first projects in alphabetical order and of those with these ids, by id."""
    first = db.execute("SELECT id, name FROM live_projects ORDER BY lower(name), id LIMIT ?", (limit,))
    found = {row["id"]: row["name"] for row in first}
    others = json.dumps([each for each in ids if each not in found])
    rows = db.execute("SELECT id, name FROM live_projects WHERE id IN (SELECT value FROM json_each(?))", (others,))
    return {**found, **{row["id"]: row["name"] for row in rows}}
