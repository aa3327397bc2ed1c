"""The trash: deleted secrets stay here for thirty days, with their versions, grants, schedules and policies.

A secret can be restored until it is purged. Purging deletes everything except its audit entries. Nothing can be
restored into a frozen project: what machines could read when the canary was read is evidence.
"""

from __future__ import annotations

import sqlite3

from vault import audit
from vault.domains import canaries
from vault.domains.secrets import ARMED, TRASH_MS
from vault.errors import Refusal
from vault.query import fetch_one, require_one
from vault.router import SYSTEM, Actor, Call, KeySource, Route, Transaction
from vault.wiping import wipe_log_after_commit

TABLES = """
DROP INDEX IF EXISTS secrets_in_trash;
CREATE INDEX IF NOT EXISTS secrets_by_deletion ON secrets (deleted_ms DESC, id) WHERE deleted_ms IS NOT NULL;
"""

SELECT = """
SELECT s.id, s.name, s.kind, s.project_id, s.deleted_ms, p.name AS project_name
FROM secrets s JOIN live_projects p ON p.id = s.project_id
WHERE s.deleted_ms IS NOT NULL
"""


def list_all(call: Call) -> object:
    """The deleted secrets of the projects that the agent may reach, latest first."""
    rows = call.db.execute(SELECT + "ORDER BY s.deleted_ms DESC, s.id")
    return [_to_json(row) for row in rows if call.agent.may_reach(row["project_id"])]


def restore(call: Call) -> object:
    """Restore a secret."""
    secret = _require(call)
    if canaries.is_frozen(call.db, secret["project_id"]):
        raise Refusal(423, "the project is frozen: a canary was read; unfreeze it first")
    call.db.execute("UPDATE secrets SET deleted_ms = NULL WHERE id = ?", (secret["id"],))
    audit.note_secret(call, "secret_restore", secret, f"{secret['name']} restored from the trash")
    if fetch_one(call.db, ARMED, (secret["id"],)) is not None:
        audit.note_secret(call, "canary_enable", secret, f"canary {secret['name']} is no longer in the trash")
    return {"id": secret["id"], "name": secret["name"], "projectId": secret["project_id"], "restored": True}


def purge(call: Call) -> object:
    """Delete a secret in the trash permanently, with all its versions."""
    secret = _require(call)
    _purge(call.db, call.now_ms, call.actor, secret)
    return {"id": secret["id"], "name": secret["name"], "projectId": secret["project_id"], "purged": True}


def purge_due(transaction: Transaction, _keys: KeySource, now_ms: int) -> None:
    """Background job: purge secrets that were deleted thirty days ago, each in a separate transaction."""
    past_ms = now_ms - TRASH_MS
    with transaction() as db:
        due = [row["id"] for row in db.execute(SELECT + "AND s.deleted_ms <= ? ORDER BY s.deleted_ms", (past_ms,))]
    for secret_id in due:
        with transaction() as db:
            secret = db.execute(SELECT + "AND s.deleted_ms <= ? AND s.id = ?", (past_ms, secret_id)).fetchone()
            if secret is not None:
                _purge(db, now_ms, SYSTEM, secret)


def _purge(db: sqlite3.Connection, now_ms: int, actor: Actor, secret: sqlite3.Row) -> None:
    db.execute("DELETE FROM secrets WHERE id = ?", (secret["id"],))
    wipe_log_after_commit(db)
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    audit.record(db, now_ms, actor, "secret_purge", f"{secret['name']} purged with all its versions", **ids)


def _require(call: Call) -> sqlite3.Row:
    secret_id = call.params["secretId"]
    return require_one(call.db, SELECT + "AND s.id = ?", (secret_id,), "no such secret in the trash")


def _to_json(row: sqlite3.Row) -> dict[str, object]:
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
    Route("GET",  "/v1/ai/trash",                    "trash.read",  list_all, reads=True),
    Route("POST", "/v1/ai/trash/{secretId}/restore", "trash.write", restore),
    Route("POST", "/v1/ai/trash/{secretId}/purge",   "trash.write", purge),
)
# fmt: on
