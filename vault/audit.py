"""The append-only audit log. Each entry is written in the same transaction as the change it describes, and chained.

Details name projects, secrets, versions and reasons, never values. An agent with a project allowlist sees the entries
of its projects and its own entries.
"""

from __future__ import annotations

import sqlite3
from typing import Callable

from vault import audit_index, chain
from vault.audit_index import Filters
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

SEVERITIES = audit_index.SEVERITIES
URGENT = SEVERITIES[3:]  # queues and alerts keep room for these
URGENT_ACTIONS = tuple(action for action, severity in ACTIONS.items() if severity in URGENT)
RECENT = 20
LOOKED_AT = 1_000
PAGE_SIZE = 50
# Entries that match and are counted after a page, in about a millisecond: fewer if each has to be read.
MAX_AHEAD, MAX_READ_AHEAD = 20_000, 2_000
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
    return [entry(row) for row in audit_index.find(db, Filters(agents=[agent_id]), RECENT)]


def last_ms_of(db: sqlite3.Connection, agent_id: str) -> int | None:
    """When an agent last did something that is audited. What was only refused does not count."""
    done = [action for action in ACTIONS if action != "auth_failure"]
    rows = audit_index.find(db, Filters(agents=[agent_id], actions=done), 1)
    return int(rows[0]["created_ms"]) if rows else None


def recent_of_machine(db: sqlite3.Connection, machine_id: str, actions: tuple[str, ...]) -> list[dict[str, object]]:
    """The latest of a machine's entries with these actions, newest first, of its last LOOKED_AT entries."""
    rows = audit_index.find(db, Filters(machines=[machine_id]), LOOKED_AT)
    return [entry(row) for row in rows if row["action"] in actions][:RECENT]


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
    """One page of the entries that match the filters.

    The total of a filter stops MAX_AHEAD entries after the page, and then says that there are at least that many. So
    does the total of a search that did not look at all entries, which also names the time of the oldest it looked at.
    """
    page, size = call.body.get("page", 1), call.body.get("pageSize", PAGE_SIZE)
    wanted, offset = filters(call), (page - 1) * size
    start = audit_index.search_start(call.db, wanted)
    if start is not None:
        wanted = wanted._replace(from_ms=start.created_ms)
    descending = call.body.get("sortDir") != "asc"
    order = call.body.get("sortBy", "timestamp")
    rows = audit_index.find(call.db, wanted, size, order=order, descending=descending, offset=offset)
    total, is_minimum = _total(call.db, wanted, offset, size, len(rows))
    shown = {"entries": [entry(row) for row in rows], "total": total, "page": page, "pageSize": size}
    if is_minimum or start is not None:
        shown["totalIsAtLeast"] = True
    return shown if start is None else {**shown, "searchStart": start.created_ms}


def _total(db: sqlite3.Connection, wanted: Filters, offset: int, size: int, found: int) -> tuple[int, bool]:
    """The number of entries that match, and whether there may be more. `found` is how many are on the page."""
    if found < size and (found or not offset):  # the last page
        return offset + found, False
    most = offset + size + (MAX_AHEAD if audit_index.is_indexed(db, wanted) else MAX_READ_AHEAD)
    total = audit_index.total(db, wanted, most)
    return total, total == most and not audit_index.has_total(wanted)


def actions(_call: Call) -> object:
    """All action names."""
    return sorted(ACTIONS)


def activity(call: Call) -> object:
    """The latest entries, newest first."""
    return [entry(row) for row in audit_index.find(call.db, visible(call), RECENT)]


def visible(call: Call) -> Filters:
    """Which entries the agent may see."""
    agent = call.agent
    return Filters() if agent.allowlist is None else Filters(viewer=agent.id, allowlist=agent.allowlist)


def filters(call: Call) -> Filters:
    """Which entries the body of a request asks for, of those that the agent may see."""
    body = call.body
    source_ips = [body["sourceIp"]] if "sourceIp" in body else None
    wanted = visible(call)._replace(from_ms=body.get("from"), to_ms=body.get("to"), search=body.get("search"))
    lists = wanted._replace(actions=body.get("actions"), severities=body.get("severities"))
    return lists._replace(source_ips=source_ips)


# fmt: off
ROUTES = (
    Route("POST", "/v1/ai/audit/query",   "audit.read", query, QUERY_FIELDS, reads=True),
    Route("GET",  "/v1/ai/audit/actions", "audit.read", actions, reads=True),
    Route("GET",  "/v1/ai/activity",      "audit.read", activity, reads=True),
)
# fmt: on
