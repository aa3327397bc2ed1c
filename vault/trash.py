"""The trash: where deleted secrets wait for thirty days, with their versions, grants, schedules and policies.

A secret can be restored as it was until it is purged; purging takes all of it, and only its audit entries stay. Nothing
comes back into a frozen project: what machines could read there before the canary was read is part of the evidence.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from vault import audit, canaries
from vault.calls import SYSTEM, Actor, Call, Route
from vault.errors import Refusal
from vault.stored_secrets import TRASH_MS

if TYPE_CHECKING:
    from vault.store import Store

TABLES = """
CREATE INDEX IF NOT EXISTS secrets_in_trash ON secrets (deleted_ms) WHERE deleted_ms IS NOT NULL;
"""

SELECT = """
SELECT s.id, s.name, s.kind, s.project_id, s.deleted_ms, p.name AS project_name
FROM secrets s JOIN projects p ON p.id = s.project_id
WHERE s.deleted_ms IS NOT NULL
"""


def list_all(call: Call) -> object:
    """What is in the trash of the projects that the agent may reach, latest first."""
    rows = call.db.execute(SELECT + "ORDER BY s.deleted_ms DESC, s.id")
    return [_shown(row) for row in rows if call.agent.may_reach(row["project_id"])]


def restore(call: Call) -> object:
    """Put a secret back where it was."""
    secret = _require(call)
    if canaries.frozen(call.db, secret["project_id"]):
        raise Refusal(423, "the project is frozen: a canary was read; unfreeze it first")
    call.db.execute("UPDATE secrets SET deleted_ms = NULL WHERE id = ?", (secret["id"],))
    detail = f"{secret['name']} restored from the trash"
    audit.note(call, "secret_restore", detail, secret_id=secret["id"], project_id=secret["project_id"])
    return {"id": secret["id"], "name": secret["name"], "projectId": secret["project_id"], "restored": True}


def purge(call: Call) -> object:
    """Remove a secret of the trash for good, with every version."""
    secret = _require(call)
    _purge(call.db, call.now_ms, call.actor, secret)
    return {"id": secret["id"], "name": secret["name"], "projectId": secret["project_id"], "purged": True}


def purge_due(store: Store, now_ms: int) -> None:
    """The serving process's job: purge what has been in the trash for its time, each in a transaction of its own."""
    past_ms = now_ms - TRASH_MS
    with store.transaction() as db:
        due = [row["id"] for row in db.execute(SELECT + "AND s.deleted_ms <= ? ORDER BY s.deleted_ms", (past_ms,))]
    for secret_id in due:
        with store.transaction() as db:
            secret = db.execute(SELECT + "AND s.deleted_ms <= ? AND s.id = ?", (past_ms, secret_id)).fetchone()
            if secret is not None:
                _purge(db, now_ms, SYSTEM, secret)


def _purge(db: sqlite3.Connection, now_ms: int, actor: Actor, secret: sqlite3.Row) -> None:
    db.execute("DELETE FROM secrets WHERE id = ?", (secret["id"],))
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    audit.record(db, now_ms, actor, "secret_purge", f"{secret['name']} purged with every version", **ids)


def _require(call: Call) -> sqlite3.Row:
    row: sqlite3.Row | None = call.db.execute(SELECT + "AND s.id = ?", (call.params["secretId"],)).fetchone()
    if row is None:
        raise Refusal(404, "no such secret in the trash")
    return row


def _shown(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "type": row["kind"],
        "projectId": row["project_id"],
        "projectName": row["project_name"],
        "deletedAt": row["deleted_ms"],
        "purgeAt": row["deleted_ms"] + TRASH_MS,
    }


# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/trash",                    "trash.read",  list_all),
    Route("POST", "/v1/ai/trash/{secretId}/restore", "trash.write", restore),
    Route("POST", "/v1/ai/trash/{secretId}/purge",   "trash.write", purge),
)
# fmt: on
