"""The append-only audit log. Each entry is written in the same transaction as the change it describes, and chained.

Details name projects, secrets, versions and reasons, never values. An agent with a project allowlist sees the entries
of its projects and its own entries.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Callable

from vault import chain
from vault.errors import Tampered
from vault.inputs import PAGE, TIME_MS, integer, text, text_list
from vault.router import Actor, Call, Route

TABLES = """
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    action TEXT NOT NULL,
    severity TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    user_id TEXT,
    machine_id TEXT,
    agent_id TEXT,
    secret_id TEXT,
    project_id TEXT,
    source_ip TEXT,
    detail TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_by_agent ON audit (agent_id, id);
CREATE INDEX IF NOT EXISTS audit_by_machine ON audit (machine_id, id) WHERE machine_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_project ON audit (project_id, id);
CREATE INDEX IF NOT EXISTS audit_by_secret ON audit (secret_id, id) WHERE secret_id IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS audit_keeps_rows BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_keeps_words BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- INSERT OR REPLACE deletes a row without the first trigger.
CREATE TRIGGER IF NOT EXISTS audit_replaces_nothing BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""

# fmt: off
ACTIONS = {
    "ai_agent_approve":         "medium",
    "ai_agent_deny":            "medium",
    "ai_agent_disable":         "medium",
    "ai_agent_enable":          "medium",
    "ai_agent_register":        "medium",
    "ai_agent_rename":          "info",
    "ai_agent_revoke":          "high",
    "ai_agent_scopes":          "high",
    "alert_update":             "high",
    "auth_failure":             "medium",
    "bootstrap_token_cancel":   "medium",
    "bootstrap_token_create":   "medium",
    "canary_config":            "medium",
    "canary_create":            "low",
    "canary_disable":           "high",
    "canary_enable":            "medium",
    "canary_triggered":         "critical",
    "dynamic_secret_create":    "low",
    "dynamic_secret_delete":    "medium",
    "dynamic_secret_update":    "low",
    "enroll_token_create":      "high",
    "enroll_token_revoke":      "medium",
    "integrity_failure":        "critical",
    "integrity_start":          "high",
    "ip_allowlist_add":         "medium",
    "ip_allowlist_delete":      "medium",
    "ip_allowlist_disable":     "high",
    "ip_allowlist_enable":      "high",
    "ip_allowlist_update":      "info",
    "machine_approve":          "high",
    "machine_deny":             "medium",
    "machine_expire":           "info",
    "machine_register":         "medium",
    "machine_rename":           "info",
    "machine_revoke":           "high",
    "metadata_read":            "info",
    "owner_email_set":          "medium",
    "permission_grant":         "medium",
    "permission_revoke":        "medium",
    "policy_bind":              "medium",
    "policy_create":            "low",
    "policy_delete":            "medium",
    "policy_unbind":            "medium",
    "policy_update":            "medium",
    "project_create":           "low",
    "project_delete":           "high",
    "project_freeze":           "high",
    "project_machine_add":      "medium",
    "project_machine_remove":   "medium",
    "project_unfreeze":         "high",
    "project_update":           "low",
    "secret_create":            "low",
    "secret_delete":            "medium",
    "secret_note_update":       "info",
    "secret_purge":             "high",
    "secret_read":              "info",
    "secret_read_denied":       "medium",
    "secret_rename":            "info",
    "secret_restore":           "low",
    "secret_reveal":            "high",
    "secret_reveal_denied":     "high",
    "secret_rollback":          "medium",
    "secret_rotate":            "low",
    "secret_rotate_denied":     "medium",
    "secret_update":            "low",
    "team_invite":              "high",
    "team_invite_accept":       "high",
    "team_invite_cancel":       "medium",
    "team_invite_decline":      "low",
    "team_member_remove":       "high",
    "team_permission_remove":   "medium",
    "team_permission_set":      "high",
    "temp_machine_create":      "medium",
    "temporary_secret_create":  "medium",
    "temporary_secret_destroy": "high",
    "temporary_secret_expire":  "info",
    "temporary_secret_view":    "medium",
    "ticket_answer":            "info",
    "ticket_create":            "info",
    "ticket_rate":              "info",
    "ticket_reply":             "info",
    "vault_backup":             "medium",
    "vault_rekey":              "high",
    "vault_restore":            "high",
    "vault_seal":               "medium",
    "vault_sealed_refusal":     "low",
    "vault_unseal":             "medium",
    "vault_unseal_denied":      "high",
    "webhook_create":           "medium",
    "webhook_delete":           "medium",
    "webhook_disable":          "high",
    "webhook_test":             "info",
    "webhook_update":           "medium",
}
# fmt: on

SEVERITIES = ("info", "low", "medium", "high", "critical")
URGENT = SEVERITIES[3:]  # queues and alerts keep room for these
URGENT_ACTIONS = tuple(action for action, severity in ACTIONS.items() if severity in URGENT)
RECENT = 20
LOOKED_AT = 1_000
PAGE_SIZE = 50
# Called with every new entry, in the same transaction. The alerts and webhooks modules register themselves here.
LISTENERS: list[Callable[[sqlite3.Connection, sqlite3.Row], None]] = []

ACTOR_COLUMNS = {"user": "userId", "machine": "machineId", "ai_agent": "aiAgentId"}


def record(
    db: sqlite3.Connection,
    now_ms: int,
    actor: Actor,
    action: str,
    detail: str,
    *,
    secret_id: str | None = None,
    project_id: str | None = None,
) -> None:
    """Append one entry. Raises KeyError for an action that is not in ACTIONS."""
    who = {column: actor.id if kind == actor.kind else None for kind, column in ACTOR_COLUMNS.items()}
    added = db.execute(
        "INSERT INTO audit (action, severity, actor_kind, user_id, machine_id, agent_id, secret_id, project_id,"
        " source_ip, detail, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (action, ACTIONS[action], actor.kind, who["userId"], who["machineId"], who["aiAgentId"], secret_id, project_id)
        + (actor.source_ip, detail, now_ms),
    )
    row = db.execute("SELECT * FROM audit WHERE id = ?", (added.lastrowid,)).fetchone()
    chain.append(db, row)
    for listener in LISTENERS:
        listener(db, row)


def note(call: Call, action: str, detail: str, *, secret_id: str | None = None, project_id: str | None = None) -> None:
    """Append an entry for the effect of a handler."""
    record(call.db, call.now_ms, call.actor, action, detail, secret_id=secret_id, project_id=project_id)


def note_tampered(db: sqlite3.Connection, now_ms: int, actor: Actor, found: Tampered, where: str) -> None:
    """Append the critical entry about data that was changed from outside."""
    record(db, now_ms, actor, found.action, f"{where}: {found.what}", **found.ids)


def note_secret(call: Call, action: str, secret: sqlite3.Row, detail: str) -> None:
    """Append an entry about a secret, given by a row with its `id` and `project_id`."""
    note(call, action, detail, secret_id=secret["id"], project_id=secret["project_id"])


def recent_of(db: sqlite3.Connection, agent_id: str) -> list[dict[str, object]]:
    """The latest entries that an agent caused, newest first."""
    rows = db.execute("SELECT * FROM audit WHERE agent_id = ? ORDER BY id DESC LIMIT ?", (agent_id, RECENT))
    return [entry(row) for row in rows]


def last_ms_of(db: sqlite3.Connection, agent_id: str) -> int | None:
    """When an agent last did something that is audited. What was only refused does not count."""
    statement = "SELECT created_ms FROM audit WHERE agent_id = ? AND action <> 'auth_failure' ORDER BY id DESC LIMIT 1"
    row = db.execute(statement, (agent_id,)).fetchone()
    return None if row is None else int(row["created_ms"])


def recent_of_machine(db: sqlite3.Connection, machine_id: str, actions: tuple[str, ...]) -> list[dict[str, object]]:
    """The latest of a machine's entries with these actions, newest first. Looks at its last LOOKED_AT entries."""
    rows = db.execute(
        "SELECT * FROM (SELECT * FROM audit WHERE machine_id = ? ORDER BY id DESC LIMIT ?)"
        " WHERE action IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT ?",
        (machine_id, LOOKED_AT, json.dumps(actions), RECENT),
    )
    return [entry(row) for row in rows]


def entry(row: sqlite3.Row) -> dict[str, object]:
    """An audit row as JSON data."""
    return {
        "id": row["id"],
        "action": row["action"],
        "severity": row["severity"],
        "actorKind": row["actor_kind"],
        "userId": row["user_id"],
        "machineId": row["machine_id"],
        "aiAgentId": row["agent_id"],
        "secretId": row["secret_id"],
        "sourceIp": row["source_ip"],
        "detail": row["detail"],
        "timestamp": row["created_ms"],
    }


# One statement covers every filter, so SQL is never built from a request.
VISIBLE = """
FROM audit WHERE (:restricted = 0 OR agent_id = :agent
                  OR project_id IN (SELECT project_id FROM agent_projects WHERE agent_id = :agent))
"""
FILTER = """
AND (:actions IS NULL OR action IN (SELECT value FROM json_each(:actions)))
AND (:severities IS NULL OR severity IN (SELECT value FROM json_each(:severities)))
AND (:sourceIp IS NULL OR source_ip = :sourceIp)
AND (:search IS NULL OR instr(lower(action || ' ' || detail), lower(:search)) > 0)
AND (:from IS NULL OR created_ms >= :from) AND (:to IS NULL OR created_ms <= :to)
"""
KEY = """
CASE :sortBy WHEN 'action' THEN action WHEN 'sourceIp' THEN source_ip WHEN 'timestamp' THEN created_ms
    ELSE CASE severity WHEN 'info' THEN 0 WHEN 'low' THEN 1 WHEN 'medium' THEN 2 WHEN 'high' THEN 3 ELSE 4 END END
"""
COUNT = "SELECT COUNT(*) " + VISIBLE + FILTER
ASCENDING = "SELECT * " + VISIBLE + FILTER + "ORDER BY" + KEY + "ASC, id ASC LIMIT :limit OFFSET :offset"
DESCENDING = "SELECT * " + VISIBLE + FILTER + "ORDER BY" + KEY + "DESC, id DESC LIMIT :limit OFFSET :offset"
LATEST = "SELECT * " + VISIBLE + "ORDER BY id DESC LIMIT :limit"

FILTER_FIELDS = {
    "actions": text_list(),
    "severities": text_list(choices=SEVERITIES),
    "sourceIp": text(),
    "search": text(),
    "from": TIME_MS,
    "to": TIME_MS,
}
QUERY_FIELDS = {
    **FILTER_FIELDS,
    "sortBy": text(choices=("timestamp", "action", "severity", "sourceIp")),
    "sortDir": text(choices=("asc", "desc")),
    "page": PAGE,
    "pageSize": integer(1, 200),
}


def query(call: Call) -> object:
    """One page of the entries that match the filters."""
    page, size = call.body.get("page", 1), call.body.get("pageSize", PAGE_SIZE)
    values = {**viewer(call), **filters(call), "limit": size, "offset": (page - 1) * size}
    statement = ASCENDING if call.body.get("sortDir") == "asc" else DESCENDING
    rows = call.db.execute(statement, {**values, "sortBy": call.body.get("sortBy", "timestamp")})
    entries = [entry(row) for row in rows]
    total = call.db.execute(COUNT, values).fetchone()[0]
    return {"entries": entries, "total": total, "page": page, "pageSize": size}


def actions(_call: Call) -> object:
    """All action names."""
    return sorted(ACTIONS)


def activity(call: Call) -> object:
    """The latest entries, newest first."""
    return [entry(row) for row in call.db.execute(LATEST, {**viewer(call), "limit": RECENT})]


def viewer(call: Call) -> dict[str, object]:
    """The parameters of VISIBLE: which entries the agent may see."""
    return {"restricted": call.agent.allowlist is not None, "agent": call.agent.id}


def filters(call: Call) -> dict[str, Any]:
    """The parameters of FILTER, from the body of a request."""
    given = {name: call.body.get(name) for name in FILTER_FIELDS}
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in given.items()}


# fmt: off
ROUTES = (
    Route("POST", "/v1/ai/audit/query",   "audit.read", query, QUERY_FIELDS, reads=True),
    Route("GET",  "/v1/ai/audit/actions", "audit.read", actions, reads=True),
    Route("GET",  "/v1/ai/activity",      "audit.read", activity, reads=True),
)
# fmt: on
