"""Canaries: secrets that nobody needs, so that whoever reads one gives itself away.

The vault makes the value. When a machine reads an armed canary, the vault freezes the canary's project (and, where so
set, the projects that share a machine with it) before it answers: from then on every machine's read there is 423 until
somebody lifts the freeze, which leaves the canary armed. A disabled canary reads like any other secret. A canary is a
row of `secrets` too: it is renamed, granted, bound to a policy, put in the trash and restored like one, and its
settings come and go with it. A freeze outlives the canary that caused it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from vault import audit, projects, stored_secrets
from vault.calls import Call, Route
from vault.errors import Denied, ReadDenied, Refusal
from vault.inputs import BOOLEAN, something, text
from vault.stored_secrets import CANARY_RECIPE, NAME
from vault.values import generate

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
CREATE TABLE IF NOT EXISTS project_freezes (
    project_id TEXT PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    canary_id TEXT NOT NULL,
    frozen_ms INTEGER NOT NULL
);
"""

SELECT = """
SELECT c.*, s.id, s.project_id, s.name, s.created_ms, f.frozen_ms
FROM canaries c JOIN secrets s ON s.id = c.secret_id LEFT JOIN project_freezes f ON f.project_id = s.project_id
WHERE s.deleted_ms IS NULL
"""

RELATED = """
SELECT DISTINCT theirs.project_id FROM project_machines ours
JOIN project_machines theirs ON theirs.machine_id = ours.machine_id
WHERE ours.project_id = :project AND theirs.project_id <> :project ORDER BY theirs.project_id
"""


# ---- for the reads of machines ---------------------------------------------------------------------------------------


def refuse_if_frozen(call: Call, secret: sqlite3.Row) -> None:
    """No machine reads anything in a frozen project."""
    if frozen(call.db, secret["project_id"]):
        message = "the project is frozen: a canary was read"
        raise ReadDenied(423, message, call.machine.id, secret["id"], secret["project_id"])


def spring(call: Call, secret: sqlite3.Row) -> None:
    """A machine is about to read this canary: freeze what it guards. Other secrets and disabled canaries pass."""
    canary = _find(call.db, secret["id"])
    if canary is None or not canary["enabled"]:
        return
    call.db.execute(
        "UPDATE canaries SET triggers = triggers + 1, triggered_ms = ? WHERE secret_id = ?", (call.now_ms, canary["id"])
    )
    detail = f"canary {canary['name']} read by machine {call.machine.id}"
    audit.note(call, "canary_triggered", detail, secret_id=canary["id"], project_id=canary["project_id"])
    for project_id in _guarded(call.db, canary):
        _freeze(call, canary, project_id)


def frozen(db: sqlite3.Connection, project_id: str) -> bool:
    """Whether a canary has frozen the project."""
    return db.execute("SELECT 1 FROM project_freezes WHERE project_id = ?", (project_id,)).fetchone() is not None


def _guarded(db: sqlite3.Connection, canary: sqlite3.Row) -> list[str]:
    own = [canary["project_id"]] if canary["freeze_project"] else []
    related = db.execute(RELATED, {"project": canary["project_id"]}) if canary["freeze_related"] else ()
    return own + [row["project_id"] for row in related]


def _freeze(call: Call, canary: sqlite3.Row, project_id: str) -> None:
    row = (project_id, canary["id"], call.now_ms)
    # A project that another canary froze stays frozen by that one.
    added = call.db.execute(
        "INSERT OR IGNORE INTO project_freezes (project_id, canary_id, frozen_ms) VALUES (?, ?, ?)", row
    )
    if added.rowcount:
        # The entry is read by agents of that project, who may not be told ids of another.
        whose = "of its own" if project_id == canary["project_id"] else "of a project that shares a machine with it"
        audit.note(call, "project_freeze", f"project {project_id} frozen by a canary {whose}", project_id=project_id)


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The canaries of a project, oldest first."""
    project = projects.require(call, call.params["projectId"])
    rows = call.db.execute(SELECT + "AND s.project_id = ? ORDER BY s.created_ms, s.id", (project["id"],))
    return [_shown(row) for row in rows]


def get(call: Call) -> object:
    """One canary, by the id of its secret."""
    return _shown(_require(call))


def create(call: Call) -> object:
    """A new canary, whose value the vault makes and keeps."""
    project = projects.require(call, call.body["projectId"])
    _refuse_reaching_out(call)
    secret_id = stored_secrets.insert(call, project["id"], generate(CANARY_RECIPE), None)
    call.db.execute("UPDATE secrets SET kind = 'canary' WHERE id = ?", (secret_id,))
    switches = (call.body.get(key, default) for key, default in DEFAULTS.items())
    call.db.execute(
        "INSERT INTO canaries (secret_id, enabled, freeze_project, freeze_related, updated_ms) VALUES (?, ?, ?, ?, ?)",
        (secret_id, *switches, call.now_ms),
    )
    name = call.body["name"]
    audit.note(call, "canary_create", f"canary created as {name}", secret_id=secret_id, project_id=project["id"])
    return {"id": secret_id, "name": name, "enabled": call.body.get("enabled", True)}


def _refuse_reaching_out(call: Call) -> None:
    """Which projects are related depends on machines, so an agent with an allowlist could freeze what is not on it."""
    if call.body.get("triggerFreezeRelatedProjects") and call.agent.allowlist is not None:
        message = "triggerFreezeRelatedProjects takes an agent without a project allowlist"
        raise Denied(403, message, call.agent.id)


def configure(call: Call) -> object:
    """Set what a read freezes; what is absent stays."""
    canary = _require(call)
    something(call.body, CONFIG_FIELDS)
    _refuse_reaching_out(call)
    own = call.body.get("triggerFreezeProject", canary["freeze_project"])
    related = call.body.get("triggerFreezeRelatedProjects", canary["freeze_related"])
    call.db.execute(
        "UPDATE canaries SET freeze_project = ?, freeze_related = ?, updated_ms = ? WHERE secret_id = ?",
        (own, related, call.now_ms, canary["id"]),
    )
    _note(call, "canary_config", canary, f"canary set: {_settings(call.body)}")
    return {
        "id": canary["id"],
        "name": canary["name"],
        "triggerFreezeProject": bool(own),
        "triggerFreezeRelatedProjects": bool(related),
    }


def enable(call: Call) -> object:
    """Arm it; an armed one stays armed."""
    return _switch(call, enabled=True)


def disable(call: Call) -> object:
    """Disarm it: it reads like any other secret until it is enabled again."""
    return _switch(call, enabled=False)


def unfreeze(call: Call) -> object:
    """Let machines read in the project again; its canaries stay armed. Without a freeze there is nothing to do."""
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
        _note(call, f"canary_{action}", canary, f"canary {canary['name']} {action}d")
    return {"id": canary["id"], "name": canary["name"], "enabled": enabled}


def _require(call: Call) -> sqlite3.Row:
    canary = _find(call.db, call.params["canaryId"])
    if canary is None:
        raise Refusal(404, "no such canary")
    return canary


def _find(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(SELECT + "AND c.secret_id = ?", (secret_id,)).fetchone()
    return row


def _settings(body: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {'on' if value else 'off'}" for key, value in sorted(body.items()))


def _shown(row: sqlite3.Row) -> dict[str, object]:
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


def _note(call: Call, action: str, canary: sqlite3.Row, detail: str) -> None:
    audit.note(call, action, detail, secret_id=canary["id"], project_id=canary["project_id"])


DEFAULTS = {"enabled": True, "triggerFreezeProject": True, "triggerFreezeRelatedProjects": False}
CONFIG_FIELDS = {"triggerFreezeProject": BOOLEAN, "triggerFreezeRelatedProjects": BOOLEAN}
CREATE_FIELDS = {"projectId": text().must(), "name": NAME.must(), "enabled": BOOLEAN, **CONFIG_FIELDS}

READ, WRITE = "projects.policies.read", "projects.policies.write"
ONE = "/v1/ai/canaries/{canaryId}"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/projects/{projectId}/canaries", READ,  list_all),
    Route("POST", "/v1/ai/canaries",                      WRITE, create,    CREATE_FIELDS, status=201),
    Route("GET",  ONE,                                    READ,  get),
    Route("POST", ONE + "/config",                        WRITE, configure, CONFIG_FIELDS),
    Route("POST", ONE + "/enable",                        WRITE, enable),
    Route("POST", ONE + "/disable",                       WRITE, disable),
    Route("POST", "/v1/ai/projects/{projectId}/unfreeze", WRITE, unfreeze),
)
# fmt: on
