"""Projects: the unit of encryption, of agents' allowlists and of deletion. Each project has its own key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from vault import audit, totals
from vault.crypto import new_id
from vault.domains import agents
from vault.errors import Denied, Refusal
from vault.inputs import BOOLEAN, require_any, text
from vault.query import count, require_one
from vault.router import Call, Route
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
"""

# What is deleted with a project. The foreign keys delete it; these statements count it for the preview.
TOTAL = "SELECT " + totals.subquery("{}", "?")
CASCADE = {
    "secrets": TOTAL.format("secrets"),
    "secretsInTrash": TOTAL.format("trash"),
    "secretVersions": TOTAL.format("versions"),
    "rotationSchedules": "SELECT COUNT(*) FROM rotation_schedules r JOIN secrets s ON s.id = r.secret_id"
    " WHERE s.project_id = ?",
    "policies": TOTAL.format("policies"),
    "canaries": "SELECT COUNT(*) FROM secrets WHERE project_id = ? AND kind = 'canary'",
    "teamPermissions": "SELECT COUNT(*) FROM project_members WHERE project_id = ?",
    "machineMemberships": TOTAL.format("memberships"),
    "grants": "SELECT COUNT(*) FROM grants g JOIN secrets s ON s.id = g.secret_id WHERE s.project_id = ?",
    "enrollmentTokens": "SELECT COUNT(*) FROM enrollment_projects WHERE project_id = ?",
    "temporarySecrets": "SELECT COUNT(*) FROM temporary_secrets WHERE project_id = ?",
    "agentAllowlistEntries": "SELECT COUNT(*) FROM agent_projects WHERE project_id = ?",
}

SELECT = f"SELECT p.*, {totals.subquery('secrets', 'p.id')} AS secret_count FROM projects p "
# Whether the agent sees every project.
REACHED = {
    True: "ORDER BY p.created_ms, p.id",
    False: "WHERE p.id IN (SELECT project_id FROM agent_projects WHERE agent_id = :agent) ORDER BY p.created_ms, p.id",
}


def require(call: Call, project_id: str) -> sqlite3.Row:
    """The project, if the agent may reach it. The gate does not check ids in bodies, this does. Raises Refusal."""
    if not call.agent.may_reach(project_id):
        raise Denied(403, "the project is not on the agent's allowlist", call.agent.id)
    return require_one(call.db, "SELECT * FROM projects WHERE id = ?", (project_id,), "no such project")


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
    counts = {name: count(call.db, statement, (project["id"],)) for name, statement in CASCADE.items()}
    summary = {"id": project["id"], "name": project["name"]}
    if call.body.get("preview"):
        return {**summary, "preview": True, "cascade": counts}
    if call.body.get("confirmName") != project["name"]:
        raise Refusal(400, "confirmName must be the name of the project")
    call.db.execute("DELETE FROM projects WHERE id = ?", (project["id"],))
    wipe_log_after_commit(call.db)
    detail = f"project {project['id']} deleted, was {project['name']}"
    audit.note(call, "project_delete", detail, project_id=project["id"])
    return {**summary, "deleted": True, "cascade": counts}


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
    first = db.execute("SELECT id, name FROM projects ORDER BY lower(name), id LIMIT ?", (limit,))
    found = {row["id"]: row["name"] for row in first}
    others = json.dumps([each for each in ids if each not in found])
    rows = db.execute("SELECT id, name FROM projects WHERE id IN (SELECT value FROM json_each(?))", (others,))
    return {**found, **{row["id"]: row["name"] for row in rows}}
