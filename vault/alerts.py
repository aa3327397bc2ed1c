"""Alerts: which audit actions the owner wants to be told about, and what has happened of those.

An enabled action's audit entry leaves an alert in the same transaction, for the owner's command line. Webhooks choose
their actions by themselves and take no notice of this set. Both concern the whole vault, so an agent that is restricted
to some projects can only look at the names of actions.
"""

from __future__ import annotations

import sqlite3

from vault import audit
from vault.calls import Call, Route
from vault.errors import Denied, Refusal
from vault.inputs import texts

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
CREATE INDEX IF NOT EXISTS alerts_by_action ON alerts (action);
"""

KEPT = 10_000  # alerts; the audit log keeps everything
SHOWN = 100

SELECT = """
SELECT a.action, a.enabled_ms, COUNT(r.id) AS raised, MAX(e.created_ms) AS last_ms
FROM alert_actions a LEFT JOIN alerts r ON r.action = a.action LEFT JOIN audit e ON e.id = r.audit_id
GROUP BY a.action ORDER BY a.action
"""


def require_unrestricted(call: Call) -> None:
    """Alerts and webhooks tell of every project, so an agent with an allowlist is kept out."""
    if call.agent.allowlist is not None:
        raise Denied(403, "this concerns every project, and the agent is restricted to some", call.agent.id)


def known_actions(names: list[str], key: str) -> list[str]:
    """The names without repetition, if the audit log has every one of them."""
    if not set(names) <= set(audit.ACTIONS):
        raise Refusal(400, f"{key} must hold names of audit actions: see /v1/ai/alerts/actions")
    return sorted(set(names))


def list_all(call: Call) -> object:
    """The actions that alert, with what they have raised so far."""
    require_unrestricted(call)
    return [_shown(row) for row in call.db.execute(SELECT)]


def actions(_call: Call) -> object:
    """Every action that can alert."""
    return sorted(audit.ACTIONS)


def set_all(call: Call) -> object:
    """Replace the set; an action that stays enabled keeps its date."""
    require_unrestricted(call)
    wanted = known_actions(call.body["enabledActions"], "enabledActions")
    for row in call.db.execute("SELECT action FROM alert_actions").fetchall():
        if row["action"] not in wanted:
            call.db.execute("DELETE FROM alert_actions WHERE action = ?", (row["action"],))
    for action in wanted:
        row = (action, call.now_ms)
        call.db.execute("INSERT OR IGNORE INTO alert_actions (action, enabled_ms) VALUES (?, ?)", row)
    audit.note(call, "alert_update", f"alerts on: {' '.join(wanted) or 'none'}")
    return {"enabledActions": wanted}


def _shown(row: sqlite3.Row) -> dict[str, object]:
    return {
        "action": row["action"],
        "severity": audit.ACTIONS[row["action"]],
        "enabledAt": row["enabled_ms"],
        "raised": row["raised"],
        "lastRaisedAt": row["last_ms"],
    }


def raise_alert(db: sqlite3.Connection, entry: sqlite3.Row) -> None:
    """The audit log's listener."""
    added = db.execute(
        "INSERT INTO alerts (audit_id, action) SELECT ?, action FROM alert_actions WHERE action = ?",
        (entry["id"], entry["action"]),
    )
    if added.rowcount == 1:
        db.execute("DELETE FROM alerts WHERE id <= (SELECT MAX(id) FROM alerts) - ?", (KEPT,))


audit.LISTENERS.append(raise_alert)

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/alerts",         "alerts.read",  list_all),
    Route("GET",  "/v1/ai/alerts/actions", "alerts.read",  actions),
    Route("POST", "/v1/ai/alerts",         "alerts.write", set_all, {"enabledActions": texts().must()}),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection, limit: int = SHOWN) -> list[dict[str, object]]:
    """The latest alerts, newest first, each as the audit entry that raised it."""
    rows = db.execute("SELECT e.* FROM alerts r JOIN audit e ON e.id = r.audit_id ORDER BY r.id DESC LIMIT ?", (limit,))
    return [audit.entry(row) for row in rows]
