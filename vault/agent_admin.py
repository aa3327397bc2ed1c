"""AI agents as other agents manage them: states, names and ends, never scopes or allowlists.

No agent can deny, disable or revoke itself (409). Approval lets a pending agent in with the scopes that the owner gave
its token, which may be more than the approver's own.

An agent with a project allowlist sees, and manages, only agents whose allowlist is part of its own; to it, ids of no
agent look like those of others.
"""

from __future__ import annotations

import sqlite3

from vault import agents, audit
from vault.calls import Agent, Call, Route
from vault.errors import Denied, Refusal
from vault.inputs import text

TABLES = """
CREATE TABLE IF NOT EXISTS agent_names (
    id INTEGER PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES ai_agents (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    new_name TEXT NOT NULL,
    changed_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS agent_names_by_agent ON agent_names (agent_id, id);
"""

MAX_HISTORY = 100


def list_all(call: Call) -> object:
    """Every agent that the caller may see, oldest first."""
    rows = call.db.execute("SELECT * FROM ai_agents ORDER BY created_ms, id").fetchall()
    return [_shown(row) for row in rows if _may_see(call.agent, agents.find(call.db, row["id"]))]


def get(call: Call) -> object:
    """One agent, with its scopes and its allowlist."""
    agent, row = _require(call)
    return {**_shown(row), "scopes": agent.scopes, "projectAllowlist": agent.allowlist}


def name_history(call: Call) -> object:
    """Its earlier names, the latest change first."""
    agent, _ = _require(call)
    rows = call.db.execute(
        "SELECT * FROM agent_names WHERE agent_id = ? ORDER BY id DESC LIMIT ?", (agent.id, MAX_HISTORY)
    )
    return [{"name": row["name"], "newName": row["new_name"], "changedAt": row["changed_ms"]} for row in rows]


def approve(call: Call) -> object:
    """Let a pending agent in with the scopes that its token gave it."""
    agent = _require_pending(call)
    call.db.execute("UPDATE ai_agents SET approved_ms = ? WHERE id = ?", (call.now_ms, agent.id))
    audit.note(call, "ai_agent_approve", f"agent {agent.id} approved")
    return {"id": agent.id, "name": agent.name, "state": "approved" if agent.enabled else "disabled"}


def deny(call: Call) -> object:
    """Turn a pending agent away; nothing of it stays."""
    _not_itself(call)
    agent = _require_pending(call)
    call.db.execute("DELETE FROM ai_agents WHERE id = ?", (agent.id,))
    audit.note(call, "ai_agent_deny", f"agent {agent.id} denied, was {agent.name}")
    return {"id": agent.id, "name": agent.name, "state": "denied"}


def disable(call: Call) -> object:
    """Refuse its requests until it is enabled again."""
    _not_itself(call)
    return _switch(call, on=False)


def enable(call: Call) -> object:
    """End a disable."""
    return _switch(call, on=True)


def rename(call: Call) -> object:
    """Give it another name; the old one goes into its history."""
    (agent, _), name = _require(call), call.body["name"]
    if name != agent.name:
        call.db.execute("UPDATE ai_agents SET name = ? WHERE id = ?", (name, agent.id))
        call.db.execute(
            "INSERT INTO agent_names (agent_id, name, new_name, changed_ms) VALUES (?, ?, ?, ?)",
            (agent.id, agent.name, name, call.now_ms),
        )
        audit.note(call, "ai_agent_rename", f"agent {agent.id} renamed from {agent.name} to {name}")
    return {"id": agent.id, "name": name}


def revoke(call: Call) -> object:
    """Cut an agent off for good; the audit log keeps its id."""
    _not_itself(call)
    agent, _ = _require(call)
    call.db.execute("DELETE FROM ai_agents WHERE id = ?", (agent.id,))
    audit.note(call, "ai_agent_revoke", f"agent {agent.id} revoked, was {agent.name}")
    return {"id": agent.id, "name": agent.name, "state": "revoked"}


def _switch(call: Call, *, on: bool) -> object:
    agent, row = _require(call)
    if agent.enabled != on:
        call.db.execute("UPDATE ai_agents SET enabled = ? WHERE id = ?", (on, agent.id))
        action = "enable" if on else "disable"
        audit.note(call, f"ai_agent_{action}", f"agent {agent.id} {action}d")
    return {"id": agent.id, "name": agent.name, "state": _state(row["approved_ms"], on)}


def _require(call: Call) -> tuple[Agent, sqlite3.Row]:
    agent = agents.find(call.db, call.params["agentId"])
    if not _may_see(call.agent, agent):
        raise Denied(403, "the agent's projects are not all on the allowlist", call.agent.id)
    row = call.db.execute("SELECT * FROM ai_agents WHERE id = ?", (call.params["agentId"],)).fetchone()
    if agent is None:
        raise Refusal(404, "no such agent")
    return agent, row


def _require_pending(call: Call) -> Agent:
    agent, row = _require(call)
    if agent.approved:
        raise Refusal(409, f"the agent is not pending, it is {_state(row['approved_ms'], agent.enabled)}")
    return agent


def _may_see(caller: Agent, agent: Agent | None) -> bool:
    """Whether the agent, which may not exist, can do no more than the caller as far as projects go."""
    if caller.allowlist is None:
        return True
    if agent is None or not agent.allowlist:  # one whose projects are all gone belongs to the whole vault
        return False
    return set(agent.allowlist) <= set(caller.allowlist)


def _not_itself(call: Call) -> None:
    if call.params["agentId"] == call.agent.id:
        raise Refusal(409, "an agent cannot do this to itself")


def _state(approved_ms: int | None, enabled: object) -> str:
    return "disabled" if not enabled else "pending" if approved_ms is None else "approved"


def _shown(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "state": _state(row["approved_ms"], row["enabled"]),
        "approved": row["approved_ms"] is not None,
        "enabled": bool(row["enabled"]),
        "createdAt": row["created_ms"],
        "approvedAt": row["approved_ms"],
    }


ONE = "/v1/ai/ai-agents/{agentId}"
READ, WRITE = "aiagents.read", "aiagents.write"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/ai-agents",    READ,  list_all),
    Route("GET",  ONE,                   READ,  get),
    Route("GET",  ONE + "/name-history", READ,  name_history),
    Route("POST", ONE + "/approve",      WRITE, approve),
    Route("POST", ONE + "/deny",         WRITE, deny),
    Route("POST", ONE + "/disable",      WRITE, disable),
    Route("POST", ONE + "/enable",       WRITE, enable),
    Route("POST", ONE + "/rename",       WRITE, rename, {"name": text(1, 255).must()}),
    Route("POST", ONE + "/revoke",       WRITE, revoke),
)
# fmt: on
