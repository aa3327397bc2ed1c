"""The team: people besides the owner, invited by email, and their permissions in projects. The routes are inferred.

An agent can invite, but only a person can accept or decline: here the owner's command line does so for the invitee. A
member of a project can manage its secrets; permissions over its machines are granted one by one. The team belongs to
the whole vault, so an agent with a project allowlist sees and changes only the members of its projects.
"""

from __future__ import annotations

import json
import re
import sqlite3

from vault import audit, makers
from vault.crypto import new_id
from vault.domains import projects
from vault.errors import Denied, Refusal, VaultError
from vault.inputs import text, text_list
from vault.query import fetch_one, require_one
from vault.router import OWNER, Actor, Call, Route
from vault.terminal import printable

TABLES = """
CREATE TABLE IF NOT EXISTS owner (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    email TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS team_members (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    joined_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS team_invites (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'accepted', 'declined', 'cancelled')),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS team_members_by_age ON team_members (joined_ms, id);
CREATE INDEX IF NOT EXISTS team_invites_by_age ON team_invites (created_ms);
CREATE INDEX IF NOT EXISTS team_invites_by_state ON team_invites (state, created_ms);
CREATE INDEX IF NOT EXISTS team_invites_by_email ON team_invites (email, state);
CREATE TABLE IF NOT EXISTS project_members (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    member_id TEXT NOT NULL REFERENCES team_members (id) ON DELETE CASCADE,
    permissions TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, member_id)
);
CREATE INDEX IF NOT EXISTS project_members_by_age ON project_members (project_id, added_ms, member_id);
CREATE INDEX IF NOT EXISTS project_members_by_member ON project_members (member_id, added_ms, project_id);
"""

INVITE_LIFE_MS = 7 * 24 * 3600 * 1000
PERMISSIONS = ("machines.view", "machines.add", "machines.remove", "machines.configure")
OWNER_ID = "owner"
# A local part, an at sign and a dotted domain. RFC 5321 limits the length.
EMAIL = re.compile(r"[^\s@,;<>\"()\[\]\\:\x00-\x1f\x7f]{1,64}@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W_](?:[\w-]*[^\W_])?")
MAX_EMAIL = 254

SELECT_INVITE = "SELECT * FROM team_invites WHERE id = ?"
PENDING = "SELECT * FROM team_invites WHERE state = 'pending' AND expires_ms > ?"


# ---- routes: the team ------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The members and the pending invitations, oldest first."""
    _require_whole_vault(call)
    members = call.db.execute(
        "SELECT m.*, (SELECT COUNT(*) FROM project_members p WHERE p.member_id = m.id) AS projects FROM team_members m"
        " ORDER BY m.joined_ms, m.id"
    )
    invites = call.db.execute(PENDING + " ORDER BY created_ms, rowid", (call.now_ms,))
    return {"members": [_member_to_json(row) for row in members], "invites": [_invite_to_json(row) for row in invites]}


def invite(call: Call) -> object:
    """Invite a person who is not the owner, a member or already invited."""
    _require_whole_vault(call)
    email = call.body["email"].lower()
    if not EMAIL.fullmatch(email):
        raise Refusal(400, "email must be an e-mail address")
    _check_not_in_team(call, email)
    invite_id, expires_ms = new_id("inv_"), call.now_ms + INVITE_LIFE_MS
    call.db.execute(
        "INSERT INTO team_invites (id, email, state, created_ms, expires_ms) VALUES (?, ?, 'pending', ?, ?)",
        (invite_id, email, call.now_ms, expires_ms),
    )
    makers.note(call, makers.INVITATION, invite_id)
    audit.note(call, "team_invite", f"{email} invited by {invite_id}")
    return {"inviteId": invite_id, "email": email, "state": "pending", "expiresAt": expires_ms}


def cancel_invite(call: Call) -> object:
    """Cancel a pending invitation."""
    _require_whole_vault(call)
    row = require_one(call.db, SELECT_INVITE, (call.params["inviteId"],), "no such invitation")
    if row["state"] != "pending":
        raise Refusal(409, f"the invitation is {row['state']}")
    _set_state(call.db, row["id"], "cancelled")
    audit.note(call, "team_invite_cancel", f"invitation {row['id']} of {row['email']} cancelled")
    return {"inviteId": row["id"], "email": row["email"], "state": "cancelled"}


def remove(call: Call) -> object:
    """Remove a member from the team and from all projects."""
    _require_whole_vault(call)
    member = _require_member(call)
    dropped = call.db.execute("DELETE FROM project_members WHERE member_id = ?", (member["id"],)).rowcount
    call.db.execute("DELETE FROM team_members WHERE id = ?", (member["id"],))
    audit.note(call, "team_member_remove", f"{member['email']} removed from the team and {dropped} projects")
    return {"memberId": member["id"], "email": member["email"], "removed": True, "projectCount": dropped}


def _check_not_in_team(call: Call, email: str) -> None:
    if email == owner_email(call.db):
        raise Refusal(409, "email is the owner's own")
    if call.db.execute("SELECT 1 FROM team_members WHERE email = ?", (email,)).fetchone():
        raise Refusal(409, "email belongs to a member of the team")
    if call.db.execute(PENDING + " AND email = ?", (call.now_ms, email)).fetchone():
        raise Refusal(409, "email is already invited")


def _require_whole_vault(call: Call) -> None:
    if call.agent.allowlist is not None:
        raise Denied(403, "the team is not for agents with a project allowlist", call.agent.id)


# ---- routes: permissions in projects ---------------------------------------------------------------------------------


def permissions_of_project(call: Call) -> object:
    """The members of a project with their permissions, the owner first."""
    project = projects.require(call, call.params["projectId"])
    rows = call.db.execute(
        "SELECT p.*, m.email FROM project_members p JOIN team_members m ON m.id = p.member_id WHERE p.project_id = ?"
        " ORDER BY p.added_ms, p.member_id",
        (project["id"],),
    )
    owner = {"memberId": OWNER_ID, "email": owner_email(call.db), "role": "owner", "permissions": PERMISSIONS}
    return [owner, *map(_permission_to_json, rows)]


def permissions_of_member(call: Call) -> object:
    """The projects of a member that the agent may reach, with the permissions."""
    member = _require_member(call)
    rows = call.db.execute(
        "SELECT m.*, p.name FROM project_members m JOIN projects p ON p.id = m.project_id WHERE m.member_id = ?"
        " ORDER BY m.added_ms, m.project_id",
        (member["id"],),
    )
    return [
        {"projectId": row["project_id"], "projectName": row["name"], "permissions": json.loads(row["permissions"])}
        for row in rows
        if call.agent.may_reach(row["project_id"])
    ]


def permissions_set(call: Call) -> object:
    """Add a member to a project, or replace the member's permissions."""
    project = projects.require(call, call.params["projectId"])
    member = _require_member_by_id(call, call.body["memberId"])
    permissions = [each for each in PERMISSIONS if each in call.body["permissions"]]
    call.db.execute(
        "INSERT INTO project_members (project_id, member_id, permissions, added_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (project_id, member_id) DO UPDATE SET permissions = excluded.permissions",
        (project["id"], member["id"], json.dumps(permissions), call.now_ms),
    )
    detail = f"{member['email']} manages secrets in the project; machine rights: {', '.join(permissions) or 'none'}"
    audit.note(call, "team_permission_set", detail, project_id=project["id"])
    return {"projectId": project["id"], "memberId": member["id"], "permissions": permissions}


def permissions_remove(call: Call) -> object:
    """Remove a member from a project."""
    project = projects.require(call, call.params["projectId"])
    member = _require_member(call)
    membership = (project["id"], member["id"])
    if not call.db.execute("DELETE FROM project_members WHERE project_id = ? AND member_id = ?", membership).rowcount:
        raise Refusal(404, "the member is not on the project")
    audit.note(call, "team_permission_remove", f"{member['email']} removed from the project", project_id=project["id"])
    return {"projectId": project["id"], "memberId": member["id"], "removed": True}


def _permission_to_json(row: sqlite3.Row) -> dict[str, object]:
    permissions = json.loads(row["permissions"])
    return {"memberId": row["member_id"], "email": row["email"], "role": "member", "permissions": permissions}


def _require_member(call: Call) -> sqlite3.Row:
    return _require_member_by_id(call, call.params["memberId"])


def _require_member_by_id(call: Call, member_id: str) -> sqlite3.Row:
    if member_id == OWNER_ID:
        raise Refusal(409, "the owner already has all permissions")
    return require_one(call.db, "SELECT * FROM team_members WHERE id = ?", (member_id,), "no such member")


def _set_state(db: sqlite3.Connection, invite_id: str, state: str) -> None:
    db.execute("UPDATE team_invites SET state = ? WHERE id = ?", (state, invite_id))


def owner_email(db: sqlite3.Connection) -> str | None:
    """The owner's address, if it is known."""
    row = fetch_one(db, "SELECT email FROM owner")
    return row["email"] if row else None


def _member_to_json(row: sqlite3.Row) -> dict[str, object]:
    shown = {"memberId": row["id"], "email": row["email"], "projectCount": row["projects"]}
    return {**shown, "joinedAt": row["joined_ms"]}


def _invite_to_json(row: sqlite3.Row) -> dict[str, object]:
    shown = {"inviteId": row["id"], "email": row["email"], "state": row["state"]}
    return {**shown, "createdAt": row["created_ms"], "expiresAt": row["expires_ms"]}


ADDRESS = text(3, MAX_EMAIL)
SET_FIELDS = {
    "memberId": text(1, 64).required(),
    "permissions": text_list(0, len(PERMISSIONS), choices=PERMISSIONS).required(),
}

READ, WRITE = "team.read", "team.write"
ON_PROJECT = "/v1/ai/projects/{projectId}/permissions"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/team",                           READ,  list_all, reads=True),
    Route("POST", "/v1/ai/team/invites",                   WRITE, invite, {"email": ADDRESS.required()}, status=201),
    Route("POST", "/v1/ai/team/invites/{inviteId}/cancel", WRITE, cancel_invite),
    Route("POST", "/v1/ai/team/{memberId}/remove",         WRITE, remove),
    Route("GET",  "/v1/ai/team/{memberId}/permissions",    READ,  permissions_of_member, reads=True),
    Route("GET",  ON_PROJECT,                              "projects.read", permissions_of_project, reads=True),
    Route("POST", ON_PROJECT,                              WRITE, permissions_set, SET_FIELDS),
    Route("POST", ON_PROJECT + "/{memberId}/delete",       WRITE, permissions_remove),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection, now_ms: int) -> list[dict[str, object]]:
    """All invitations, oldest first. A pending one past its lifetime is expired."""
    rows = db.execute("SELECT * FROM team_invites ORDER BY created_ms, rowid")
    return [{**_invite_to_json(row), "state": _state(row, now_ms)} for row in rows]


def accept(db: sqlite3.Connection, now_ms: int, invite_id: str, *, actor: Actor = OWNER) -> dict[str, object]:
    """Make the invitee a member, without any project. Raises VaultError."""
    row = _require_pending_invite(db, now_ms, invite_id)
    if row["email"] == owner_email(db):
        raise VaultError("the invitation is for the owner's own address", "decline it")
    member_id = new_id("mem_")
    db.execute("INSERT INTO team_members (id, email, joined_ms) VALUES (?, ?, ?)", (member_id, row["email"], now_ms))
    _set_state(db, invite_id, "accepted")
    audit.record(db, now_ms, actor, "team_invite_accept", f"{row['email']} joined the team as {member_id}")
    return {"memberId": member_id, "email": row["email"]}


def decline(db: sqlite3.Connection, now_ms: int, invite_id: str, *, actor: Actor = OWNER) -> dict[str, object]:
    """Decline an invitation. The same address can be invited again. Raises VaultError."""
    row = _require_pending_invite(db, now_ms, invite_id)
    _set_state(db, invite_id, "declined")
    audit.record(db, now_ms, actor, "team_invite_decline", f"{row['email']} declined invitation {invite_id}")
    return {"inviteId": invite_id, "email": row["email"], "state": "declined"}


def cancel_as_owner(db: sqlite3.Connection, now_ms: int, invite_id: str, *, actor: Actor = OWNER) -> None:
    """Cancel a pending invitation. Raises VaultError."""
    row = _require_pending_invite(db, now_ms, invite_id)
    _set_state(db, invite_id, "cancelled")
    audit.record(db, now_ms, actor, "team_invite_cancel", f"invitation {invite_id} of {row['email']} cancelled")


def set_owner_email(db: sqlite3.Connection, now_ms: int, email: str, *, actor: Actor = OWNER) -> str:
    """Set the owner's address, so that it cannot be invited, and return it in lower case. Raises VaultError."""
    email = email.lower()
    if len(email) > MAX_EMAIL or not EMAIL.fullmatch(email):
        raise VaultError(f"{printable(email)} is not an e-mail address", "give one such as anna@example.com")
    if db.execute("SELECT 1 FROM team_members WHERE email = ?", (email,)).fetchone():
        raise VaultError(f"{printable(email)} is a member of the team", "remove the member first")
    db.execute("INSERT OR REPLACE INTO owner (only, email) VALUES (1, ?)", (email,))
    audit.record(db, now_ms, actor, "owner_email_set", f"the owner is {email}")
    return email


def _require_pending_invite(db: sqlite3.Connection, now_ms: int, invite_id: str) -> sqlite3.Row:
    row = fetch_one(db, SELECT_INVITE, (invite_id,))
    if row is None:
        raise VaultError(f"there is no invitation {printable(invite_id)}", "list the invitations first")
    state = _state(row, now_ms)
    if state != "pending":
        raise VaultError(f"the invitation is {state}", "an agent with the scope team.write can invite again")
    return row


def _state(row: sqlite3.Row, now_ms: int) -> str:
    is_expired = row["state"] == "pending" and row["expires_ms"] <= now_ms
    return "expired" if is_expired else str(row["state"])
