"""AI agents: one-time bootstrap tokens, registration, approval, scopes, allowlists and `whoami`.

An agent proves itself with an Ed25519 key that never leaves its machine. The signed text does not hold the agent's
id, so two agents must never share a key: a request of one would be a request of the other. The table is apart from any
table of machines, and no look-up here sees those.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import Iterable

from vault import audit
from vault.calls import OWNER, Agent, Call, Route
from vault.errors import Denied, Refusal, VaultError
from vault.inputs import text
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
    "team.read",  # this one and the next are inferred: no public source names them
    "team.write",
)

TOKEN_LIFE_MS = 24 * 3600 * 1000
TOKEN_PATTERN = re.compile(r"[0-9a-f]{64}")
PUBLIC_KEY_BYTES = 32
DEFAULT_NAME = "AI agent"


def find(db: sqlite3.Connection, agent_id: str) -> Agent | None:
    """The agent with this id, whatever its state."""
    row = db.execute("SELECT * FROM ai_agents WHERE id = ?", (agent_id,)).fetchone()
    if row is None:
        return None
    return Agent(
        id=row["id"],
        name=row["name"],
        public_key=row["public_key"],
        approved=row["approved_ms"] is not None,
        enabled=bool(row["enabled"]),
        scopes=tuple(json.loads(row["scopes"])),
        allowlist=_allowlist(db, agent_id) if row["restricted"] else None,
    )


def allow(db: sqlite3.Connection, agent: Agent, project_id: str) -> None:
    """Add a project to the allowlist of an agent that has one."""
    if agent.allowlist is not None:
        db.execute("INSERT INTO agent_projects (agent_id, project_id) VALUES (?, ?)", (agent.id, project_id))


# ---- routes ----------------------------------------------------------------------------------------------------------


def register(call: Call) -> object:
    """Turn a one-time token and a public key into a pending agent."""
    public_key = public_key_of(call.body["publicKey"])
    token = _spend(call, call.body["token"])
    agent_id = str(uuid.uuid4())
    name = call.body.get("name") or token["name"] or DEFAULT_NAME
    try:
        call.db.execute(
            "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, created_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (agent_id, name, public_key, token["scopes"], token["allowlist"] is not None, call.now_ms),
        )
    except sqlite3.IntegrityError:
        raise Refusal(409, "this public key is registered already: make a new one") from None
    # A project deleted since the token was made is left out; the agent stays restricted to what is left.
    call.db.execute(
        "INSERT INTO agent_projects (agent_id, project_id)"
        " SELECT ?, id FROM projects WHERE id IN (SELECT value FROM json_each(?))",
        (agent_id, token["allowlist"] or "[]"),
    )
    audit.note(call, "ai_agent_register", f"agent {agent_id} registered as {name}, pending approval")
    return {"agentId": agent_id, "name": name, "vaultId": call.vault_id}


def whoami(call: Call) -> object:
    """What the vault knows about the caller."""
    agent = call.agent
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


def public_key_of(encoded: str) -> bytes:
    """The raw Ed25519 key that a body names, of an agent or a machine."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise Refusal(400, "publicKey must be the 32 raw bytes of an Ed25519 key in standard base64")
    return key


def _spend(call: Call, token: str) -> sqlite3.Row:
    if not TOKEN_PATTERN.fullmatch(token):
        raise Refusal(400, "token must be 64 lower-case hex characters")
    token_hash = _hash(token)
    spent = call.db.execute(
        "UPDATE bootstrap_tokens SET used_ms = ? WHERE token_hash = ? AND used_ms IS NULL AND expires_ms > ?",
        (call.now_ms, token_hash, call.now_ms),
    )
    if spent.rowcount != 1:
        raise Denied(401, "the bootstrap token is unknown, used or expired")
    row: sqlite3.Row = call.db.execute("SELECT * FROM bootstrap_tokens WHERE token_hash = ?", (token_hash,)).fetchone()
    return row


REGISTER_FIELDS = {"token": text().must(), "publicKey": text().must(), "name": text(1, 255)}

# fmt: off
ROUTES = (
    Route("POST", "/v1/ai-bootstrap/register", None, register, REGISTER_FIELDS, status=201, caller="open"),
    Route("GET",  "/v1/ai/whoami",             None, whoami),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def issue_token(
    db: sqlite3.Connection, now_ms: int, scopes: Iterable[str], projects: Iterable[str] | None, name: str | None
) -> str:
    """A bootstrap token; the vault keeps its hash only, so this is the one moment at which it can be read."""
    wanted = _known_scopes(scopes)
    allowlist = None if projects is None else json.dumps(_known_projects(db, projects))
    if name is not None and not 1 <= len(name) <= 255:
        raise VaultError("the name must have 1 to 255 characters", "choose another --name")
    token = secrets.token_hex(32)
    db.execute(
        "INSERT INTO bootstrap_tokens (token_hash, name, scopes, allowlist, created_ms, expires_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (_hash(token), name, json.dumps(wanted), allowlist, now_ms, now_ms + TOKEN_LIFE_MS),
    )
    audit.record(db, now_ms, OWNER, "bootstrap_token_create", f"scopes: {' '.join(wanted)}")
    return token


def overview(db: sqlite3.Connection) -> list[dict[str, object]]:
    """Every agent, oldest first."""
    ids = [row["id"] for row in db.execute("SELECT id FROM ai_agents ORDER BY created_ms, id")]
    return [_summary(db, agent_id) for agent_id in ids]


def approve(db: sqlite3.Connection, now_ms: int, agent_id: str) -> Agent:
    """Let a pending agent in."""
    agent = _owned(db, agent_id)
    db.execute("UPDATE ai_agents SET approved_ms = coalesce(approved_ms, ?) WHERE id = ?", (now_ms, agent_id))
    audit.record(db, now_ms, OWNER, "ai_agent_approve", f"agent {agent_id} approved")
    return agent


def set_enabled(db: sqlite3.Connection, now_ms: int, agent_id: str, *, enabled: bool) -> Agent:
    """Switch an agent off, or on again."""
    agent = _owned(db, agent_id)
    db.execute("UPDATE ai_agents SET enabled = ? WHERE id = ?", (enabled, agent_id))
    action = "enable" if enabled else "disable"
    audit.record(db, now_ms, OWNER, f"ai_agent_{action}", f"agent {agent_id} {action}d")
    return agent


def _owned(db: sqlite3.Connection, agent_id: str) -> Agent:
    agent = find(db, agent_id)
    if agent is None:
        raise VaultError(f"there is no agent {printable(agent_id)}", f"list them with: {PROGRAM} agents --dir DIR")
    return agent


def _summary(db: sqlite3.Connection, agent_id: str) -> dict[str, object]:
    agent = _owned(db, agent_id)
    state = "disabled" if not agent.enabled else "approved" if agent.approved else "pending"
    return {
        "agentId": agent.id,
        "name": agent.name,
        "state": state,
        "scopes": agent.scopes,
        "projectAllowlist": agent.allowlist,
        "createdAt": db.execute("SELECT created_ms FROM ai_agents WHERE id = ?", (agent_id,)).fetchone()[0],
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
    known = {row["id"] for row in db.execute("SELECT id FROM projects")}
    unknown = [project for project in wanted if project not in known]
    if unknown or not wanted:
        complaint = f"there is no project {', '.join(map(printable, unknown))}" if unknown else "no project given"
        raise VaultError(complaint, f"projects of this vault: {', '.join(sorted(known)) or 'none yet'}")
    return wanted


def _allowlist(db: sqlite3.Connection, agent_id: str) -> tuple[str, ...]:
    rows = db.execute("SELECT project_id FROM agent_projects WHERE agent_id = ? ORDER BY project_id", (agent_id,))
    return tuple(row["project_id"] for row in rows)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
