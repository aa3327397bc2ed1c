"""Enrollment tokens: short-lived machines such as CI runners register with one, without approval.

A token defines the projects that its machines join, the secrets that they may read, its own lifetime and theirs, the
number of machines, and which addresses and names are allowed. The token is shown once; the vault stores its SHA-256
hash. Revoking a token does not affect machines that it has enrolled.

An agent with a project allowlist can see, create and revoke only tokens whose projects are all on its allowlist.

Scopes that an owner should withhold
------------------------------------
No answer to an agent contains a stored value. But machines read values, and an agent that can create a machine can keep
that machine's key and read as the machine. Each of these combinations is enough:

- `enrollment.write`: a token for a project and its secrets admits a machine without approval.
- `machines.write` and `projects.machines.write`: together they approve a pending machine and grant it secrets. Approval
  alone grants nothing, and grants have no effect for a machine that is not approved. But `projects.machines.write`
  alone extends what approved machines can read, including a machine that the agent controls.
- `aiagents.write`: it approves another agent, whose scopes may include any of these.

An agent that must not obtain values should get none of these four scopes. An IP allowlist that excludes the agent's
address also helps if the agent lacks `ipallowlist.write`, and a project allowlist limits all of this to its projects.
No scope protects against an agent that can read a machine's private key from disk. The audit log records every step:
`enroll_token_create`, `machine_register`, `machine_approve`, `permission_grant`, `ai_agent_approve`, and the machine's
`secret_read`.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from typing import Callable

from vault import audit, makers, seals
from vault.crypto import hash_token, new_id
from vault.domains import ip_allowlist, machines, patterns, projects
from vault.domains.identities import parse_public_key
from vault.domains.project_machines import grant
from vault.errors import Denied, Refusal
from vault.inputs import integer, text, text_list
from vault.query import count, fetch_one
from vault.router import OWNER, Actor, Call, Route

TABLES = """
CREATE TABLE IF NOT EXISTS enrollment_tokens (
    id TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    machine_life_s INTEGER NOT NULL,
    max_uses INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    source_cidr TEXT,
    hostname_pattern TEXT,
    name_pattern TEXT,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    revoke_reason TEXT
);
CREATE TABLE IF NOT EXISTS enrollment_projects (
    token_id TEXT NOT NULL REFERENCES enrollment_tokens (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    PRIMARY KEY (token_id, project_id)
);
CREATE TABLE IF NOT EXISTS enrollment_secrets (
    token_id TEXT NOT NULL REFERENCES enrollment_tokens (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    PRIMARY KEY (token_id, secret_id)
);
CREATE INDEX IF NOT EXISTS enrollment_tokens_by_age ON enrollment_tokens (created_ms, id);
CREATE INDEX IF NOT EXISTS enrollment_projects_by_project ON enrollment_projects (project_id);
CREATE INDEX IF NOT EXISTS enrollment_secrets_by_secret ON enrollment_secrets (secret_id);
"""

SELECT = """
SELECT t.*,
    (SELECT json_group_array(project_id) FROM (
        SELECT project_id FROM enrollment_projects WHERE token_id = t.id ORDER BY project_id)) AS project_ids,
    (SELECT json_group_array(secret_id) FROM (
        SELECT secret_id FROM enrollment_secrets WHERE token_id = t.id ORDER BY secret_id)) AS secret_ids
FROM enrollment_tokens t
"""

MAX_LIFE_S = 365 * 24 * 3600
TOKEN = re.compile(r"[0-9a-f]{64}")


def list_all(call: Call) -> object:
    """All tokens, including revoked and expired ones, oldest first, without the tokens themselves."""
    rows = call.db.execute(SELECT + "ORDER BY t.created_ms, t.id")
    return [_to_json(row, call.now_ms) for row in rows if _may_see(call, row)]


def get(call: Call) -> object:
    """One token, without the token itself."""
    return _to_json(_require(call), call.now_ms)


def create(call: Call) -> object:
    """Create a token. Only this answer contains it."""
    listed = [projects.require(call, project_id)["id"] for project_id in dict.fromkeys(call.body["projectIds"])]
    if call.agent.allowlist is not None and not listed:
        # Its machines would belong to no project, where the agent's owner would not look for them.
        raise Denied(403, "an agent with a project allowlist must name a project in projectIds", call.agent.id)
    granted = _secrets_to_grant(call, listed)
    limits = (_source_cidr(call), _name_pattern(call, "hostnamePattern"), _name_pattern(call, "namePattern"))
    token_id, token, name = new_id("enr_"), secrets.token_hex(32), call.body["name"]
    expires_ms = call.now_ms + call.body["tokenLifetimeSeconds"] * 1000
    call.db.execute(
        "INSERT INTO enrollment_tokens (id, token_hash, name, description, machine_life_s, max_uses, source_cidr,"
        " hostname_pattern, name_pattern, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (token_id, hash_token(token), name, call.body.get("description", ""), call.body["machineLifetimeSeconds"])
        + (call.body["maxUses"], *limits, call.now_ms, expires_ms),
    )
    call.db.executemany("INSERT INTO enrollment_projects VALUES (?, ?)", [(token_id, each) for each in listed])
    call.db.executemany("INSERT INTO enrollment_secrets VALUES (?, ?)", [(token_id, each) for each in granted])
    makers.note(call, makers.TOKEN, token_id)
    detail = f"enrollment token {token_id} created as {name}: {len(listed)} projects, {len(granted)} secrets"
    audit.note(call, "enroll_token_create", detail)
    return {"id": token_id, "name": name, "token": token, "expiresAt": expires_ms}


def revoke(call: Call) -> object:
    """Revoke a token. Machines that it enrolled are not affected."""
    row, reason = _require(call), call.body.get("reason", "")
    if row["revoked_ms"] is not None:
        raise Refusal(409, "the token is already revoked")
    call.db.execute(
        "UPDATE enrollment_tokens SET revoked_ms = ?, revoke_reason = ? WHERE id = ?", (call.now_ms, reason, row["id"])
    )
    detail = f"enrollment token {row['id']} revoked"
    audit.note(call, "enroll_token_revoke", f"{detail}: {reason}" if reason else detail)
    return {"id": row["id"], "name": row["name"], "state": "revoked"}


def register(call: Call) -> object:
    """Register an approved machine with a token and a public key. A refused request does not use up the token."""
    ip_allowlist.check(call.db, call.source_ip)
    if call.params["vaultId"] != call.vault_id:
        raise Refusal(404, "no such vault")
    public_key = parse_public_key(call.body["publicKey"])
    token, hostname = _require_active(call, call.body["token"]), call.body["hostname"]
    name = call.body.get("name") or hostname
    _check_limits(call, token, hostname, name)
    call.db.execute("UPDATE enrollment_tokens SET uses = uses + 1 WHERE id = ?", (token["id"],))
    expires_ms = call.now_ms + token["machine_life_s"] * 1000
    machine_id = machines.register(
        call.db,
        call.now_ms,
        name,
        kind="ephemeral",
        hostname=hostname,
        public_key=public_key,
        expires_ms=expires_ms,
        enrollment_token_id=token["id"],
    )
    audit.note(call, "machine_register", f"machine {machine_id} enrolled as {name} by token {token['id']}")
    _join_projects(call, machine_id, token)
    return {"machineId": machine_id, "machineName": name, "vaultId": call.vault_id, "expiresAt": expires_ms}


def _require_active(call: Call, token: str) -> sqlite3.Row:
    """The row of an active token. All other tokens get the same error, so clients cannot tell which ones exist."""
    row = fetch_one(call.db, SELECT + "WHERE t.token_hash = ?", (hash_token(token),))
    if not TOKEN.fullmatch(token) or row is None or _state(row, call.now_ms) != "active":
        raise Denied(401, "the enrollment token is unknown, revoked, used up or expired")
    seals.require(call.db, "token", row["id"])
    for kind in ("token project", "token secret"):
        seals.require_all(call.db, kind, row["id"])
    return row


def _check_limits(call: Call, token: sqlite3.Row, hostname: str, name: str) -> None:
    cidr = token["source_cidr"]
    if cidr is not None and not ip_allowlist.is_within(call.source_ip, [ip_allowlist.parse_network(cidr)]):
        raise Denied(403, "the enrollment token is not for this address")
    for key, pattern, given in (
        ("hostname", token["hostname_pattern"], hostname),
        ("name", token["name_pattern"], name),
    ):
        if pattern is not None and not patterns.matches(patterns.compile_pattern(pattern), given):
            raise Denied(403, f"the enrollment token is not for this {key}")


def _join_projects(call: Call, machine_id: str, token: sqlite3.Row) -> None:
    """Add the machine to the token's projects and grant it the token's secrets, if they still exist."""
    for project_id in json.loads(token["project_ids"]):
        call.db.execute("INSERT INTO project_machines VALUES (?, ?, ?)", (project_id, machine_id, call.now_ms))
        audit.note(call, "project_machine_add", f"machine {machine_id} added", project_id=project_id)
    granted = "SELECT id, project_id FROM secrets WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
    for secret in call.db.execute(granted, (token["secret_ids"],)).fetchall():
        grant(call.db, call.now_ms, machine_id, secret["id"])
        audit.note_secret(call, "permission_grant", secret, f"reading granted to machine {machine_id}")


def _secrets_to_grant(call: Call, project_ids: list[str]) -> list[str]:
    """The ids of the secrets to grant. Raises Refusal unless each is in one of the projects."""
    wanted = sorted(set(call.body["secretIds"]))
    rows = call.db.execute(
        "SELECT id FROM live_secrets WHERE deleted_ms IS NULL AND id IN (SELECT value FROM json_each(?))"
        " AND +project_id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(wanted), json.dumps(project_ids)),
    )
    if [row["id"] for row in rows] != wanted:
        raise Refusal(400, "secretIds must be secrets of the projects in projectIds")
    return wanted


def _source_cidr(call: Call) -> str | None:
    if not call.body.get("sourceCidr"):
        return None
    return str(
        _checked(call, "sourceCidr", ip_allowlist.parse_network, "an IPv4 or IPv6 network such as 203.0.113.0/24")
    )


def _name_pattern(call: Call, key: str) -> str | None:
    if not call.body.get(key):
        return None
    rule = f"a regular expression of at most {patterns.MAX_PATTERN} characters, without look-around and back-references"
    _checked(call, key, patterns.compile_pattern, rule)
    return str(call.body[key])


def _checked(call: Call, key: str, check: Callable[[str], object], rule: str) -> object:
    try:
        return check(call.body[key])
    except ValueError:
        raise Refusal(400, f"{key} must be {rule}") from None


def _require(call: Call) -> sqlite3.Row:
    row = fetch_one(call.db, SELECT + "WHERE t.id = ?", (call.params["tokenId"],))
    if call.agent.allowlist is not None and (row is None or not _may_see(call, row)):
        raise Denied(403, "the token's projects are not all on the agent's allowlist", call.agent.id)
    if row is None:
        raise Refusal(404, "no such enrollment token")
    return row


def _may_see(call: Call, row: sqlite3.Row) -> bool:
    """Whether all projects of the token are on the agent's allowlist. A token without projects belongs to the vault."""
    listed = json.loads(row["project_ids"])
    return call.agent.allowlist is None or (bool(listed) and all(map(call.agent.may_reach, listed)))


def _state(row: sqlite3.Row, now_ms: int) -> str:
    if row["revoked_ms"] is not None:
        return "revoked"
    if row["expires_ms"] <= now_ms:
        return "expired"
    return "active" if row["uses"] < row["max_uses"] else "used_up"


def _to_json(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "state": _state(row, now_ms),
        "projectIds": json.loads(row["project_ids"]),
        "secretIds": json.loads(row["secret_ids"]),
        "machineLifetimeSeconds": row["machine_life_s"],
        "maxUses": row["max_uses"],
        "uses": row["uses"],
        "sourceCidr": row["source_cidr"],
        "hostnamePattern": row["hostname_pattern"],
        "namePattern": row["name_pattern"],
        "createdAt": row["created_ms"],
        "expiresAt": row["expires_ms"],
        "revokedAt": row["revoked_ms"],
        "revokeReason": row["revoke_reason"],
    }


CREATE_FIELDS = {
    "name": text(1, 255).required(),
    "description": text(),
    "projectIds": text_list(0, 100).required(),
    "secretIds": text_list().required(),
    "tokenLifetimeSeconds": integer(1, MAX_LIFE_S).required(),
    "machineLifetimeSeconds": integer(1, MAX_LIFE_S).required(),
    "maxUses": integer(1, 100_000).required(),
    "sourceCidr": text(0, 100),
    "hostnamePattern": text(),
    "namePattern": text(),
}
REGISTER_FIELDS = {
    "token": text().required(),
    "publicKey": text().required(),
    "hostname": text(1, 255).required(),
    "name": text(1, 255),
}
ALL = "/v1/ai/enrollment-tokens"
ONE = ALL + "/{tokenId}"
READ, WRITE = "enrollment.read", "enrollment.write"

# fmt: off
ROUTES = (
    Route("GET",  ALL,                             READ,  list_all, reads=True),
    Route("GET",  ONE,                             READ,  get, reads=True),
    Route("POST", ALL,                             WRITE, create,   CREATE_FIELDS, status=201),
    Route("POST", ONE + "/revoke",                 WRITE, revoke,   {"reason": text(0, 1_000)}),
    Route("POST", "/v1/{vaultId}/enroll/register", None,  register, REGISTER_FIELDS, caller="open"),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def listing(db: sqlite3.Connection, now_ms: int, limit: int, offset: int) -> tuple[list[dict[str, object]], int]:
    """Some of the tokens, newest first, without the tokens themselves, and how many there are."""
    rows = db.execute(SELECT + "ORDER BY t.created_ms DESC, t.id DESC LIMIT ? OFFSET ?", (limit, offset))
    return [_to_json(row, now_ms) for row in rows], count(db, "SELECT COUNT(*) FROM enrollment_tokens")


def revoke_as_owner(db: sqlite3.Connection, now_ms: int, token_id: str, *, actor: Actor = OWNER) -> None:
    """Revoke a token. Machines that it enrolled are not affected."""
    reason = "by the owner"
    db.execute(
        "UPDATE enrollment_tokens SET revoked_ms = ?, revoke_reason = ? WHERE id = ?", (now_ms, reason, token_id)
    )
    audit.record(db, now_ms, actor, "enroll_token_revoke", f"enrollment token {token_id} revoked")
