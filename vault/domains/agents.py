"""AI agents: one-time bootstrap tokens, registration, approval, scopes, allowlists and `whoami`.

An agent authenticates with an Ed25519 key that never leaves its computer. The signed text does not contain the agent's
id, so public keys are unique: with a shared key, one agent's request would be valid for the other.

An agent can manage the state and the name of other agents, but never scopes or allowlists. It cannot deny, disable or
revoke itself (409), and it cannot enable an agent that the owner disabled (409). An approved agent gets the scopes of
its token, which may exceed those of the agent that approves it. An agent with a project allowlist manages only agents
whose allowlist is a subset of its own. To that agent, unknown ids and ids of other agents look the same.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import Iterable
from typing import Any

from vault import audit, seals
from vault.crypto import hash_token
from vault.domains import identities
from vault.domains.identities import AGENT, parse_public_key
from vault.errors import Denied, Refusal, VaultError
from vault.inputs import text
from vault.query import count, fetch_one
from vault.router import OWNER, Actor, Agent, Call, Owner, Route
from vault.terminal import PROGRAM, printable

TABLES = """
CREATE TABLE IF NOT EXISTS bootstrap_tokens (
    token_hash BLOB PRIMARY KEY,
    name TEXT,
    scopes TEXT NOT NULL,
    allowlist TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms INTEGER
);
CREATE TABLE IF NOT EXISTS ai_agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    public_key BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    restricted INTEGER NOT NULL,
    approved_ms INTEGER,
    enabled INTEGER NOT NULL DEFAULT 1,
    created_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS agent_projects (
    agent_id TEXT NOT NULL REFERENCES ai_agents (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    PRIMARY KEY (agent_id, project_id)
);
CREATE TABLE IF NOT EXISTS agent_names (
    id INTEGER PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES ai_agents (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    new_name TEXT NOT NULL,
    changed_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS agents_disabled_by_owner (
    agent_id TEXT PRIMARY KEY REFERENCES ai_agents (id) ON DELETE CASCADE,
    disabled_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS ai_agents_by_age ON ai_agents (created_ms, id);
CREATE INDEX IF NOT EXISTS agents_pending ON ai_agents (created_ms) WHERE approved_ms IS NULL;
CREATE INDEX IF NOT EXISTS agent_projects_by_project ON agent_projects (project_id);
CREATE INDEX IF NOT EXISTS agent_names_by_agent ON agent_names (agent_id, id);
"""

SCOPES = (
    "audit.read",
    "projects.read",
    "projects.write",
    "projects.secrets.read",
    "projects.secrets.write",
    "projects.policies.read",
    "projects.policies.write",
    "projects.machines.read",
    "projects.machines.write",
    "machines.read",
    "machines.write",
    "aiagents.read",
    "aiagents.write",
    "enrollment.read",
    "enrollment.write",
    "trash.read",
    "trash.write",
    "alerts.read",
    "alerts.write",
    "ipallowlist.read",
    "ipallowlist.write",
    "support.write",
    "team.read",  # inferred, like the next one: no public source names them
    "team.write",
)

# Scopes that are enough to get at values without reading any: see docs/security.md, "Plaintext by proxy".
LEADS_TO_PLAINTEXT = {
    "enrollment.write": "can create a token that adds a machine, which can read immediately",
    "machines.write": "can approve a machine and, with projects.machines.write, grant it secrets",
    "projects.machines.write": "can grant secrets to a machine that it controls",
    "aiagents.write": "can approve an agent that has more scopes",
    "team.write": "can invite a person, who can read values on the dashboard",
}

TOKEN_LIFE_MS = 24 * 3600 * 1000
# What tells tokens apart: the beginning of the hash, from which nobody can compute the token.
TOKEN_ID = "lower(substr(hex(token_hash), 1, 12))"  # noqa: S105  # not a token
WAITING = "WHERE used_ms IS NULL AND expires_ms > ?"
TOKEN_PATTERN = re.compile(r"[0-9a-f]{64}")
DEFAULT_NAME = "AI agent"
IS_WAITING = "approved_ms IS NULL AND enabled"
DISABLED_BY_OWNER = "SELECT 1 FROM agents_disabled_by_owner WHERE agent_id = ?"


def find(db: sqlite3.Connection, agent_id: str) -> Agent | None:
    """The agent with this id, in any state."""
    row = identities.find_row(db, AGENT, agent_id)
    return None if row is None else _from_row(db, row)


def allow(db: sqlite3.Connection, agent: Agent | Owner, project_id: str) -> None:
    """Add a project to the agent's allowlist, if it has one."""
    if agent.allowlist is not None:
        db.execute("INSERT INTO agent_projects (agent_id, project_id) VALUES (?, ?)", (agent.id, project_id))


# ---- routes: registration --------------------------------------------------------------------------------------------


def register(call: Call) -> object:
    """Register a pending agent with a one-time token and a public key."""
    public_key = parse_public_key(call.body["publicKey"])
    token = _use_token(call, call.body["token"])
    agent_id = str(uuid.uuid4())
    name = call.body.get("name") or token["name"] or DEFAULT_NAME
    try:
        call.db.execute(
            "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, created_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (agent_id, name, public_key, token["scopes"], token["allowlist"] is not None, call.now_ms),
        )
    except sqlite3.IntegrityError:
        raise Refusal(409, "this public key is already registered: generate a new one") from None
    # Projects deleted in the meantime are skipped. The agent stays restricted to the remaining ones.
    call.db.execute(
        "INSERT INTO agent_projects (agent_id, project_id)"
        " SELECT ?, id FROM live_projects WHERE id IN (SELECT value FROM json_each(?))",
        (agent_id, token["allowlist"] or "[]"),
    )
    audit.note(call, "ai_agent_register", f"agent {agent_id} registered as {name}, pending approval")
    return {"agentId": agent_id, "name": name, "vaultId": call.vault_id}


def whoami(call: Call) -> object:
    """The caller's own record."""
    agent = call.caller
    if not isinstance(agent, Agent):
        raise LookupError("the owner has no record")
    return {
        "agentId": agent.id,
        "name": agent.name,
        "vaultId": call.vault_id,
        "approved": agent.approved,
        "enabled": agent.enabled,
        "scopes": agent.scopes,
        "projectAllowlist": agent.allowlist,
        "recentAudit": audit.recent_of(call.db, agent.id),
    }


def _use_token(call: Call, token: str) -> sqlite3.Row:
    if not TOKEN_PATTERN.fullmatch(token):
        raise Refusal(400, "token must be 64 lower-case hex characters")
    token_hash = hash_token(token)
    spent = call.db.execute(
        "UPDATE bootstrap_tokens SET used_ms = ? WHERE token_hash = ? AND used_ms IS NULL AND expires_ms > ?",
        (call.now_ms, token_hash, call.now_ms),
    )
    if spent.rowcount != 1:
        raise Denied(401, "the bootstrap token is unknown, used or expired")
    row: sqlite3.Row = call.db.execute("SELECT * FROM bootstrap_tokens WHERE token_hash = ?", (token_hash,)).fetchone()
    return row


# ---- routes: managing other agents -----------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The agents that the caller may see, oldest first."""
    rows = call.db.execute("SELECT * FROM ai_agents ORDER BY created_ms, id").fetchall()
    return [_to_json(row) for row in rows if _may_see(call.agent, find(call.db, row["id"]))]


def get(call: Call) -> object:
    """One agent, with its scopes and its allowlist."""
    agent, row = _require_visible(call)
    return {**_to_json(row), "scopes": agent.scopes, "projectAllowlist": agent.allowlist}


def name_history(call: Call) -> object:
    """The agent's earlier names, latest change first."""
    agent, _ = _require_visible(call)
    return identities.name_history(call, AGENT, agent.id)


def approve(call: Call) -> object:
    """Approve a pending agent with the scopes of its token."""
    agent, _ = _require_pending(call)
    identities.approve(call, AGENT, agent.id)
    return {"id": agent.id, "name": agent.name, "state": "approved" if agent.enabled else "disabled"}


def deny(call: Call) -> object:
    """Reject and delete a pending agent."""
    _refuse_self(call)
    _, row = _require_pending(call)
    return identities.deny(call, AGENT, row)


def disable(call: Call) -> object:
    """Refuse the agent's requests until it is enabled again."""
    _refuse_self(call)
    return _set_enabled(call, enabled=False)


def enable(call: Call) -> object:
    """Re-enable a disabled agent, unless the owner disabled it."""
    agent, _ = _require_visible(call)
    if fetch_one(call.db, DISABLED_BY_OWNER, (agent.id,)) is not None:
        raise Refusal(409, "the owner of the vault disabled this agent: only the owner can enable it")
    return _set_enabled(call, enabled=True)


def rename(call: Call) -> object:
    """Rename an agent. The old name is added to its history."""
    _, row = _require_visible(call)
    return identities.rename(call, AGENT, row)


def revoke(call: Call) -> object:
    """Delete an agent permanently. The audit log keeps its id."""
    _refuse_self(call)
    _, row = _require_visible(call)
    return identities.revoke(call, AGENT, row)


def _set_enabled(call: Call, *, enabled: bool) -> object:
    agent, row = _require_visible(call)
    if agent.enabled != enabled:
        call.db.execute("UPDATE ai_agents SET enabled = ? WHERE id = ?", (enabled, agent.id))
        action = "enable" if enabled else "disable"
        audit.note(call, f"ai_agent_{action}", f"agent {agent.id} {action}d")
    return {"id": agent.id, "name": agent.name, "state": _state(row["approved_ms"], enabled)}


def _require_visible(call: Call) -> tuple[Agent, sqlite3.Row]:
    agent_id = call.params["agentId"]
    agent, row = find(call.db, agent_id), identities.find_row(call.db, AGENT, agent_id)
    if not _may_see(call.agent, agent):
        raise Denied(403, "the agent's projects are not all on the allowlist", call.agent.id)
    if agent is None or row is None:
        raise Refusal(404, "no such agent")
    return agent, row


def _require_pending(call: Call) -> tuple[Agent, sqlite3.Row]:
    agent, row = _require_visible(call)
    if agent.approved:
        raise Refusal(409, f"the agent is not pending, it is {_state(row['approved_ms'], agent.enabled)}")
    return agent, row


def _may_see(caller: Agent | Owner, agent: Agent | None) -> bool:
    """Whether the agent exists and all of its projects are on the caller's allowlist."""
    if caller.allowlist is None:
        return True
    # An allowlist is empty after its projects were deleted. Such an agent is visible only without a restriction.
    if agent is None or not agent.allowlist:
        return False
    return set(agent.allowlist) <= set(caller.allowlist)


def _refuse_self(call: Call) -> None:
    if call.params["agentId"] == call.agent.id:
        raise Refusal(409, "an agent cannot do this to itself")


def _state(approved_ms: int | None, enabled: object) -> str:
    if not enabled:
        return "disabled"
    return "pending" if approved_ms is None else "approved"


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "state": _state(row["approved_ms"], row["enabled"]),
        "approved": row["approved_ms"] is not None,
        "enabled": bool(row["enabled"]),
        "createdAt": row["created_ms"],
        "approvedAt": row["approved_ms"],
    }


REGISTER_FIELDS = {"token": text().required(), "publicKey": text().required(), "name": text(1, 255)}
ONE = "/v1/ai/ai-agents/{agentId}"
READ, WRITE = "aiagents.read", "aiagents.write"

# fmt: off
ROUTES = (
    Route("POST", "/v1/ai-bootstrap/register", None, register, REGISTER_FIELDS, status=201, caller="open"),
    Route("GET",  "/v1/ai/whoami",             None, whoami, reads=True),
    Route("GET",  "/v1/ai/ai-agents",          READ, list_all, reads=True),
    Route("GET",  ONE,                         READ, get, reads=True),
    Route("GET",  ONE + "/name-history",       READ, name_history, reads=True),
    Route("POST", ONE + "/approve",            WRITE, approve),
    Route("POST", ONE + "/deny",               WRITE, deny),
    Route("POST", ONE + "/disable",            WRITE, disable),
    Route("POST", ONE + "/enable",             WRITE, enable),
    Route("POST", ONE + "/rename",             WRITE, rename, {"name": text(1, 255).required()}),
    Route("POST", ONE + "/revoke",             WRITE, revoke),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def issue_token(
    db: sqlite3.Connection,
    now_ms: int,
    scopes: Iterable[str],
    projects: Iterable[str] | None,
    name: str | None,
    *,
    actor: Actor = OWNER,
) -> str:
    """Create and return a bootstrap token. The vault stores only its hash. Raises VaultError."""
    wanted = _known_scopes(scopes)
    allowlist = None if projects is None else json.dumps(_known_projects(db, projects))
    if name is not None and not 1 <= len(name) <= 255:
        raise VaultError("the name must have 1 to 255 characters", "choose another --name")
    token = secrets.token_hex(32)
    db.execute(
        "INSERT INTO bootstrap_tokens (token_hash, name, scopes, allowlist, created_ms, expires_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (hash_token(token), name, json.dumps(wanted), allowlist, now_ms, now_ms + TOKEN_LIFE_MS),
    )
    audit.record(db, now_ms, actor, "bootstrap_token_create", f"scopes: {' '.join(wanted)}")
    return token


def waiting_tokens(db: sqlite3.Connection, now_ms: int) -> list[dict[str, object]]:
    """The tokens that can still be used, oldest first. An id tells them apart and cannot be used as a token."""
    rows = db.execute(f"SELECT {TOKEN_ID} AS id, * FROM bootstrap_tokens {WAITING} ORDER BY created_ms, 1", (now_ms,))
    return [
        {
            "id": row["id"],
            "name": row["name"],
            "scopes": json.loads(row["scopes"]),
            "projectAllowlist": None if row["allowlist"] is None else json.loads(row["allowlist"]),
            "createdAt": row["created_ms"],
            "expiresAt": row["expires_ms"],
        }
        for row in rows
    ]


def cancel_token(db: sqlite3.Connection, now_ms: int, token_id: str, *, actor: Actor = OWNER) -> None:
    """Make an unused token unusable, by its id in `waiting_tokens`. Raises VaultError."""
    statement = f"DELETE FROM bootstrap_tokens {WAITING} AND {TOKEN_ID} = ?"
    if not db.execute(statement, (now_ms, token_id)).rowcount:
        raise VaultError(f"there is no unused token {printable(token_id)}", f"list them: {PROGRAM} tokens")
    audit.record(db, now_ms, actor, "bootstrap_token_cancel", f"bootstrap token {token_id} cancelled")


def overview(db: sqlite3.Connection) -> list[dict[str, object]]:
    """All agents, oldest first."""
    rows = db.execute("SELECT * FROM ai_agents ORDER BY created_ms, id").fetchall()
    return [_summary(db, row) for row in rows]


def any_installed(db: sqlite3.Connection) -> bool:
    """Whether there is an agent, also one that waits for approval."""
    return fetch_one(db, "SELECT 1 FROM ai_agents LIMIT 1") is not None


def waiting(db: sqlite3.Connection, limit: int) -> list[dict[str, object]]:
    """The agents that wait for approval, oldest first."""
    statement = f"SELECT * FROM ai_agents WHERE {IS_WAITING} ORDER BY created_ms, id LIMIT ?"
    return [_summary(db, row) for row in db.execute(statement, (limit,)).fetchall()]


def listing(db: sqlite3.Connection, limit: int, offset: int) -> tuple[list[dict[str, object]], int]:
    """Agents that do not wait for approval, newest first, with `lastActiveAt`, and how many there are."""
    statement = f"SELECT * FROM ai_agents WHERE NOT ({IS_WAITING}) ORDER BY created_ms DESC, id LIMIT ? OFFSET ?"
    rows = db.execute(statement, (limit, offset)).fetchall()
    total = count(db, f"SELECT COUNT(*) FROM ai_agents WHERE NOT ({IS_WAITING})")
    return [{**_summary(db, row), "lastActiveAt": audit.last_ms_of(db, row["id"])} for row in rows], total


def describe(db: sqlite3.Connection, agent_id: str) -> dict[str, Any]:
    """All that the owner knows about an agent. Raises Refusal, a 404."""
    row = identities.find_row(db, AGENT, agent_id)
    if row is None:
        raise Refusal(404, "there is no such agent")
    return {
        **_summary(db, row),
        "approvedAt": row["approved_ms"],
        "disabledByOwner": fetch_one(db, DISABLED_BY_OWNER, (agent_id,)) is not None,
        "lastActiveAt": audit.last_ms_of(db, agent_id),
        "recentAudit": audit.recent_of(db, agent_id),
        "names": identities.names_of(db, AGENT, agent_id),
    }


def approve_as_owner(db: sqlite3.Connection, now_ms: int, agent_id: str, *, actor: Actor = OWNER) -> Agent:
    """Approve a pending agent. Raises VaultError."""
    return _from_row(db, identities.approve_as_owner(db, now_ms, AGENT, agent_id, actor=actor))


def set_enabled(db: sqlite3.Connection, now_ms: int, agent_id: str, *, enabled: bool, actor: Actor = OWNER) -> Agent:
    """Enable or disable an agent, and return it as it was before. Raises VaultError.

    No agent can enable what the owner disabled.
    """
    agent = _from_row(db, identities.require_for_owner(db, AGENT, agent_id))
    db.execute("UPDATE ai_agents SET enabled = ? WHERE id = ?", (enabled, agent_id))
    if enabled:
        db.execute("DELETE FROM agents_disabled_by_owner WHERE agent_id = ?", (agent_id,))
        seals.sign(db, "agent", agent_id)
    else:
        statement = "INSERT OR IGNORE INTO agents_disabled_by_owner (agent_id, disabled_ms) VALUES (?, ?)"
        db.execute(statement, (agent_id, now_ms))
    action = "enable" if enabled else "disable"
    audit.record(db, now_ms, actor, f"ai_agent_{action}", f"agent {agent_id} {action}d")
    return agent


def set_scopes(
    db: sqlite3.Connection,
    now_ms: int,
    agent_id: str,
    scopes: Iterable[str],
    projects: Iterable[str] | None,
    *,
    actor: Actor = OWNER,
) -> Agent:
    """Replace an agent's scopes and its project allowlist (None: every project), and return it. Raises VaultError.

    The vault must be open, because the rows that grant rights are sealed.
    """
    before = _from_row(db, identities.require_for_owner(db, AGENT, agent_id))
    wanted = _known_scopes(scopes)
    allowlist = None if projects is None else _known_projects(db, projects)
    db.execute(
        "UPDATE ai_agents SET scopes = ?, restricted = ? WHERE id = ?",
        (json.dumps(wanted), allowlist is not None, agent_id),
    )
    seals.sign(db, "agent", agent_id)
    db.execute("DELETE FROM agent_projects WHERE agent_id = ?", (agent_id,))
    rows = [(agent_id, project_id) for project_id in allowlist or ()]
    db.executemany("INSERT INTO agent_projects (agent_id, project_id) VALUES (?, ?)", rows)
    audit.record(db, now_ms, actor, "ai_agent_scopes", f"agent {agent_id}: {_changes(before, wanted, allowlist)}")
    return _from_row(db, identities.require_for_owner(db, AGENT, agent_id))


def _changes(before: Agent, scopes: Iterable[str], allowlist: Iterable[str] | None) -> str:
    """What a change of scopes and projects adds and removes, for its audit entry."""
    old, new = set(before.scopes), set(scopes)
    parts = [f"scopes added: {' '.join(sorted(new - old))}"] if new - old else []
    parts += [f"scopes removed: {' '.join(sorted(old - new))}"] if old - new else []
    reach = None if allowlist is None else sorted(allowlist)
    if reach != (None if before.allowlist is None else sorted(before.allowlist)):
        parts.append(f"projects: {'all' if reach is None else ' '.join(reach)}")
    return "; ".join(parts) or "scopes and projects as before"


def disable_all(db: sqlite3.Connection, now_ms: int) -> list[str]:
    """Disable every agent, pending ones too, and return the ids of those that were enabled."""
    rows = db.execute("SELECT id, enabled FROM ai_agents ORDER BY created_ms, id").fetchall()
    for row in rows:
        # Those that an agent disabled are disabled again: now only the owner can enable them.
        set_enabled(db, now_ms, row["id"], enabled=False)
    return [row["id"] for row in rows if row["enabled"]]


def revoke_as_owner(db: sqlite3.Connection, now_ms: int, agent_id: str, *, actor: Actor = OWNER) -> Agent:
    """Delete an agent in any state. Raises VaultError."""
    agent = _from_row(db, identities.require_for_owner(db, AGENT, agent_id))
    db.execute("DELETE FROM ai_agents WHERE id = ?", (agent_id,))
    audit.record(db, now_ms, actor, "ai_agent_revoke", f"agent {agent_id} ({agent.name}) revoked")
    return agent


def _summary(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, object]:
    agent = _from_row(db, row)
    return {
        "agentId": agent.id,
        "name": agent.name,
        "state": _state(row["approved_ms"], row["enabled"]),
        "fingerprint": identities.fingerprint(agent.public_key),
        "scopes": agent.scopes,
        "projectAllowlist": agent.allowlist,
        "createdAt": row["created_ms"],
    }


def _known_scopes(scopes: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        complaint = f"unknown scope {', '.join(printable(scope) for scope in unknown)}" if unknown else "no scope given"
        raise VaultError(complaint, f"choose all, or from: {', '.join(SCOPES)}")
    return wanted


def _known_projects(db: sqlite3.Connection, projects: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(projects))
    known = {row["id"] for row in db.execute("SELECT id FROM live_projects")}
    unknown = [project for project in wanted if project not in known]
    if unknown or not wanted:
        complaint = f"there is no project {', '.join(map(printable, unknown))}" if unknown else "no project given"
        raise VaultError(complaint, f"projects of this vault: {', '.join(sorted(known)) or 'none yet'}")
    return wanted


def _from_row(db: sqlite3.Connection, row: sqlite3.Row) -> Agent:
    return Agent(
        id=row["id"],
        name=row["name"],
        public_key=row["public_key"],
        approved=row["approved_ms"] is not None,
        enabled=bool(row["enabled"]),
        scopes=tuple(json.loads(row["scopes"])),
        allowlist=_allowlist(db, row["id"]) if row["restricted"] else None,
    )


def _allowlist(db: sqlite3.Connection, agent_id: str) -> tuple[str, ...]:
    rows = db.execute("SELECT project_id FROM agent_projects WHERE agent_id = ? ORDER BY project_id", (agent_id,))
    return tuple(row["project_id"] for row in rows)
