"""Canaries: decoy secrets that reveal an intruder who reads them.

The vault generates the value. When a machine reads an enabled canary, the vault freezes the canary's project before it
answers, and, if configured, all projects that share a machine with it. A machine of the project that asks for a canary
without a grant does the same. From then on all reads in a frozen project are refused with 423 until the project is
unfrozen, which leaves the canary enabled. A disabled canary behaves like any other secret. To machines, a canary looks
like one too. A canary is also a row of `secrets`: it can be renamed, granted, bound to a policy, deleted and restored.
A freeze remains after its canary is deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vault import audit
from vault.domains import project_machines, projects, secrets
from vault.domains.secrets import CANARY_OPTIONS, NAME, NOTE, generate_string
from vault.errors import Denied, ReadDenied
from vault.inputs import BOOLEAN, checked, require_any, text
from vault.query import fetch_one, require_one
from vault.router import Call, Route

TABLES = """
CREATE TABLE IF NOT EXISTS canaries (
    secret_id TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    enabled INTEGER NOT NULL,
    freeze_project INTEGER NOT NULL,
    freeze_related INTEGER NOT NULL,
    triggers INTEGER NOT NULL DEFAULT 0,
    triggered_ms INTEGER,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS secrets_that_are_canaries ON secrets (project_id, created_ms, id) WHERE kind = 'canary';
CREATE TABLE IF NOT EXISTS project_freezes (
    project_id TEXT PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    canary_id TEXT NOT NULL,
    frozen_ms INTEGER NOT NULL
);
"""

SELECT = """
SELECT c.*, s.id, s.project_id, s.name, s.created_ms, f.frozen_ms
FROM canaries c JOIN live_secrets s ON s.id = c.secret_id LEFT JOIN project_freezes f ON f.project_id = s.project_id
WHERE s.deleted_ms IS NULL
"""

RELATED = """
SELECT DISTINCT other.project_id FROM project_machines own
JOIN project_machines other ON other.machine_id = own.machine_id JOIN live_projects p ON p.id = other.project_id
WHERE own.project_id = :project AND other.project_id <> :project ORDER BY other.project_id
"""


# ---- for reads by machines -------------------------------------------------------------------------------------------


def refuse_if_frozen(call: Call, secret: sqlite3.Row) -> None:
    """Raise ReadDenied if the project of the secret is frozen."""
    if is_frozen(call.db, secret["project_id"]):
        message = "the project is frozen: a canary was read"
        raise ReadDenied(423, message, call.machine.id, secret["id"], secret["project_id"])


def trigger(call: Call, secret: sqlite3.Row, what: str = "read") -> bool:
    """Freeze the canary's projects, because a machine is about to read it or asked for it.

    Returns False, without any effect, for a disabled canary and for a secret that is no canary.
    """
    canary = _find(call.db, secret["id"])
    if canary is None or not canary["enabled"]:
        return False
    call.db.execute(
        "UPDATE canaries SET triggers = triggers + 1, triggered_ms = ? WHERE secret_id = ?", (call.now_ms, canary["id"])
    )
    detail = f"canary {canary['name']} {what} by machine {call.machine.id}"
    audit.note_secret(call, "canary_triggered", canary, detail)
    for project_id in _projects_to_freeze(call.db, canary):
        _freeze(call, canary, project_id)
    return True


def is_frozen(db: sqlite3.Connection, project_id: str) -> bool:
    """Whether a canary has frozen the project."""
    return fetch_one(db, "SELECT 1 FROM project_freezes WHERE project_id = ?", (project_id,)) is not None


def _projects_to_freeze(db: sqlite3.Connection, canary: sqlite3.Row) -> list[str]:
    own = [canary["project_id"]] if canary["freeze_project"] else []
    related = db.execute(RELATED, {"project": canary["project_id"]}) if canary["freeze_related"] else ()
    return own + [row["project_id"] for row in related]


def _freeze(call: Call, canary: sqlite3.Row, project_id: str) -> None:
    row = (project_id, canary["id"], call.now_ms)
    # If another canary has frozen the project, that freeze remains.
    added = call.db.execute(
        "INSERT OR IGNORE INTO project_freezes (project_id, canary_id, frozen_ms) VALUES (?, ?, ?)", row
    )
    if added.rowcount:
        # Agents of this project can read the entry, so it must not contain ids of other projects.
        whose = "of the project" if project_id == canary["project_id"] else "of a project that shares a machine with it"
        audit.note(call, "project_freeze", f"project {project_id} frozen by a canary {whose}", project_id=project_id)


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The canaries of a project, oldest first."""
    project = projects.require(call, call.params["projectId"])
    of_project = "AND s.kind = 'canary' AND s.project_id = ? ORDER BY s.created_ms, s.id"
    rows = call.db.execute(SELECT + of_project, (project["id"],))
    return [_to_json(row) for row in rows]


def get(call: Call) -> object:
    """One canary, by the id of its secret."""
    return _to_json(_require(call))


def create(call: Call) -> object:
    """Create a canary with a generated value."""
    project = projects.require(call, call.body["projectId"])
    _refuse_related_freeze(call)
    secret_id = secrets.insert(call, project["id"], generate_string(CANARY_OPTIONS), None)
    call.db.execute("UPDATE secrets SET kind = 'canary' WHERE id = ?", (secret_id,))
    switches = (call.body.get(key, default) for key, default in DEFAULTS.items())
    call.db.execute(
        "INSERT INTO canaries (secret_id, enabled, freeze_project, freeze_related, updated_ms) VALUES (?, ?, ?, ?, ?)",
        (secret_id, *switches, call.now_ms),
    )
    name = call.body["name"]
    audit.note(call, "canary_create", f"canary created as {name}", secret_id=secret_id, project_id=project["id"])
    return {"id": secret_id, "name": name, "enabled": call.body.get("enabled", True)}


def _refuse_related_freeze(call: Call) -> None:
    """Raise Denied if an agent with an allowlist would freeze projects that may not be on it."""
    if call.body.get("triggerFreezeRelatedProjects") and call.agent.allowlist is not None:
        message = "triggerFreezeRelatedProjects takes an agent without a project allowlist"
        raise Denied(403, message, call.agent.id)


def configure(call: Call) -> object:
    """Change what a read freezes. Absent keys stay unchanged."""
    canary = _require(call)
    require_any(call.body, CONFIG_FIELDS)
    _refuse_related_freeze(call)
    own = call.body.get("triggerFreezeProject", canary["freeze_project"])
    related = call.body.get("triggerFreezeRelatedProjects", canary["freeze_related"])
    call.db.execute(
        "UPDATE canaries SET freeze_project = ?, freeze_related = ?, updated_ms = ? WHERE secret_id = ?",
        (own, related, call.now_ms, canary["id"]),
    )
    audit.note_secret(call, "canary_config", canary, f"canary settings: {_settings(call.body)}")
    return {
        "id": canary["id"],
        "name": canary["name"],
        "triggerFreezeProject": bool(own),
        "triggerFreezeRelatedProjects": bool(related),
    }


def enable(call: Call) -> object:
    """Enable a canary."""
    return _switch(call, enabled=True)


def disable(call: Call) -> object:
    """Disable a canary, so it behaves like any other secret until it is enabled again."""
    return _switch(call, enabled=False)


def unfreeze(call: Call) -> object:
    """Unfreeze a project, so machines can read again. Its canaries stay enabled."""
    project = projects.require(call, call.params["projectId"])
    if call.db.execute("DELETE FROM project_freezes WHERE project_id = ?", (project["id"],)).rowcount:
        audit.note(call, "project_unfreeze", f"project {project['id']} unfrozen", project_id=project["id"])
    return {"id": project["id"], "name": project["name"], "frozen": False}


def _switch(call: Call, *, enabled: bool) -> object:
    canary = _require(call)
    if bool(canary["enabled"]) != enabled:
        call.db.execute(
            "UPDATE canaries SET enabled = ?, updated_ms = ? WHERE secret_id = ?", (enabled, call.now_ms, canary["id"])
        )
        action = "enable" if enabled else "disable"
        audit.note_secret(call, f"canary_{action}", canary, f"canary {canary['name']} {action}d")
    return {"id": canary["id"], "name": canary["name"], "enabled": enabled}


def _require(call: Call) -> sqlite3.Row:
    return require_one(call.db, SELECT + "AND c.secret_id = ?", (call.params["canaryId"],), "no such canary")


def _find(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row | None:
    return fetch_one(db, SELECT + "AND c.secret_id = ?", (secret_id,))


def _settings(body: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {'on' if value else 'off'}" for key, value in sorted(body.items()))


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "projectId": row["project_id"],
        "name": row["name"],
        "enabled": bool(row["enabled"]),
        "triggerFreezeProject": bool(row["freeze_project"]),
        "triggerFreezeRelatedProjects": bool(row["freeze_related"]),
        "triggerCount": row["triggers"],
        "lastTriggeredAt": row["triggered_ms"],
        "projectFrozenAt": row["frozen_ms"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


DEFAULTS = {"enabled": True, "triggerFreezeProject": True, "triggerFreezeRelatedProjects": False}
CONFIG_FIELDS = {"triggerFreezeProject": BOOLEAN, "triggerFreezeRelatedProjects": BOOLEAN}
CREATE_FIELDS = {"projectId": text().required(), "name": NAME.required(), "enabled": BOOLEAN, **CONFIG_FIELDS}

READ, WRITE = "projects.policies.read", "projects.policies.write"
ONE = "/v1/ai/canaries/{canaryId}"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/projects/{projectId}/canaries", READ,  list_all, reads=True),
    Route("POST", "/v1/ai/canaries",                      WRITE, create,    CREATE_FIELDS, status=201),
    Route("GET",  ONE,                                    READ,  get, reads=True),
    Route("POST", ONE + "/config",                        WRITE, configure, CONFIG_FIELDS),
    Route("POST", ONE + "/enable",                        WRITE, enable),
    Route("POST", ONE + "/disable",                       WRITE, disable),
    Route("POST", "/v1/ai/projects/{projectId}/unfreeze", WRITE, unfreeze),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def plant(call: Call, body: Mapping[str, Any], note: str, machine_ids: Iterable[str]) -> str:
    """Create a canary with a note and with grants for machines, and return its id. Raises Refusal."""
    made: Any = create(replace(call, body=checked(body, CREATE_FIELDS)))
    project_id, canary_id = body["projectId"], str(made["id"])
    if note:
        params = {"projectId": project_id, "secretId": canary_id}
        secrets.update_note(replace(call, params=params, body=checked({"note": note}, {"note": NOTE})))
    readers = [(machine_id, canary_id) for machine_id in dict.fromkeys(machine_ids)]
    project_machines.change_grants(call, project_id, readers, [])
    return canary_id
