"""Alerts: which audit actions notify the owner, and the alerts that they raised.

The audit entry of an enabled action raises an alert in the same transaction. The owner's command line shows alerts.
Webhooks have their own actions and ignore this set. Both concern the whole vault, so an agent with a project allowlist
can only list the names of actions.
"""

from __future__ import annotations

import json
import sqlite3

from vault import audit
from vault.errors import Denied, Refusal
from vault.inputs import text_list
from vault.query import count, fetch_one
from vault.router import Call, Route

TABLES = """
CREATE TABLE IF NOT EXISTS alert_actions (
    action TEXT PRIMARY KEY,
    enabled_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    audit_id INTEGER NOT NULL UNIQUE REFERENCES audit (id),
    action TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS alert_totals (
    action TEXT PRIMARY KEY,
    raised INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS alerts_by_action ON alerts (action);
CREATE TABLE IF NOT EXISTS alerts_seen (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    audit_id INTEGER NOT NULL
);
"""

# Older alerts are deleted; their audit entries are kept. High and critical alerts are counted apart from the others, so
# many unimportant ones cannot displace them.
MAX_ALERTS = 10_000
MAX_SHOWN = 100

# A vault that an earlier version of this program made may have alerts without a total.
SELECT = """
SELECT a.action, a.enabled_ms,
    coalesce(t.raised, (SELECT COUNT(*) FROM alerts r WHERE r.action = a.action)) AS raised,
    coalesce(t.last_ms, (SELECT MAX(e.created_ms) FROM alerts r JOIN audit e ON e.id = r.audit_id
        WHERE r.action = a.action)) AS last_ms
FROM alert_actions a LEFT JOIN alert_totals t ON t.action = a.action ORDER BY a.action
"""
ADD_TOTAL = """
INSERT INTO alert_totals (action, raised, last_ms)
SELECT :action, COUNT(*), :now FROM alerts WHERE action = :action
ON CONFLICT (action) DO UPDATE SET raised = raised + 1, last_ms = :now
"""
IS_URGENT = "(r.action IN (SELECT value FROM json_each(:urgent)))"
OF_CLASS = "(SELECT value FROM json_each(:actions))"
KEPT = f"SELECT coalesce(sum(amount), 0) FROM totals WHERE kind = 'alerts' AND id IN {OF_CLASS}"
OLDEST = """
DELETE FROM alerts WHERE id = (
    SELECT min((SELECT min(r.id) FROM alerts r WHERE r.action = a.value)) FROM json_each(:actions) a)
"""
LATEST = f"""
SELECT e.* FROM alerts r JOIN audit e ON e.id = r.audit_id WHERE {IS_URGENT} = :isUrgent ORDER BY r.id DESC LIMIT :most
"""


def require_unrestricted(call: Call) -> None:
    """Raise Denied for an agent with a project allowlist: alerts and webhooks report on every project."""
    if call.agent.allowlist is not None:
        raise Denied(403, "this concerns every project, and the agent is restricted to some", call.agent.id)


def check_actions(names: list[str], key: str) -> list[str]:
    """The names, sorted and without repetition. Raises Refusal for an unknown action."""
    if not set(names) <= set(audit.ACTIONS):
        raise Refusal(400, f"{key} must contain names of audit actions: see /v1/ai/alerts/actions")
    return sorted(set(names))


def list_all(call: Call) -> object:
    """The enabled actions and the number of their alerts."""
    require_unrestricted(call)
    return [_to_json(row) for row in call.db.execute(SELECT)]


def actions(_call: Call) -> object:
    """All actions that can raise alerts."""
    return sorted(audit.ACTIONS)


def set_all(call: Call) -> object:
    """Replace the set of enabled actions. An action that stays enabled keeps its date."""
    require_unrestricted(call)
    wanted = check_actions(call.body["enabledActions"], "enabledActions")
    for row in call.db.execute("SELECT action FROM alert_actions").fetchall():
        if row["action"] not in wanted:
            call.db.execute("DELETE FROM alert_actions WHERE action = ?", (row["action"],))
    for action in wanted:
        row = (action, call.now_ms)
        call.db.execute("INSERT OR IGNORE INTO alert_actions (action, enabled_ms) VALUES (?, ?)", row)
    audit.note(call, "alert_update", f"alerts on: {' '.join(wanted) or 'none'}")
    return {"enabledActions": wanted}


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "action": row["action"],
        "severity": audit.ACTIONS[row["action"]],
        "enabledAt": row["enabled_ms"],
        "raised": row["raised"],
        "lastRaisedAt": row["last_ms"],
    }


def raise_alert(db: sqlite3.Connection, entry: sqlite3.Row) -> None:
    """Listener of the audit log."""
    added = db.execute(
        "INSERT INTO alerts (audit_id, action) SELECT ?, action FROM alert_actions WHERE action = ?",
        (entry["id"], entry["action"]),
    )
    if added.rowcount == 1:
        db.execute(ADD_TOTAL, {"action": entry["action"], "now": entry["created_ms"]})
        _prune(db, is_urgent=entry["severity"] in audit.URGENT)


def _prune(db: sqlite3.Connection, *, is_urgent: bool) -> None:
    """Delete the oldest alerts of a class that has too many."""
    names = [name for name in audit.ACTIONS if (name in audit.URGENT_ACTIONS) == is_urgent]
    actions = {"actions": json.dumps(names)}
    for _ in range(count(db, KEPT, actions) - MAX_ALERTS):
        db.execute(OLDEST, actions)


def _class(is_urgent: bool) -> dict[str, object]:
    return {"urgent": json.dumps(audit.URGENT_ACTIONS), "isUrgent": is_urgent}


audit.LISTENERS.append(raise_alert)

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/alerts",         "alerts.read",  list_all, reads=True),
    Route("GET",  "/v1/ai/alerts/actions", "alerts.read",  actions, reads=True),
    Route("POST", "/v1/ai/alerts",         "alerts.write", set_all, {"enabledActions": text_list().required()}),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection, limit: int = MAX_SHOWN) -> list[dict[str, object]]:
    """The latest alerts, newest first, as the audit entries that raised them.

    They are the latest high and critical ones and the latest others, at most `limit` of each.
    """
    classes = ({**_class(is_urgent), "most": limit} for is_urgent in (True, False))
    rows = [row for values in classes for row in db.execute(LATEST, values)]
    return [audit.entry(row) for row in sorted(rows, key=lambda row: int(row["id"]), reverse=True)]


def seen_until(db: sqlite3.Connection) -> int:
    """The id of the latest entry whose alert the owner has marked as seen, or 0."""
    row = fetch_one(db, "SELECT audit_id FROM alerts_seen")
    return 0 if row is None else int(row["audit_id"])


def mark_seen(db: sqlite3.Connection, audit_id: int) -> None:
    """Remember that the owner has seen the alerts up to an entry. Alerts that came since then stay new."""
    db.execute(
        "INSERT INTO alerts_seen (only, audit_id) VALUES (1, ?)"
        " ON CONFLICT (only) DO UPDATE SET audit_id = max(audit_id, excluded.audit_id)",
        (audit_id,),
    )
