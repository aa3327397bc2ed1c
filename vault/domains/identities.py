"""What agents and machines have in common: approval, denial, names and registration by public key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sqlite3
from typing import NamedTuple

from vault import audit, seals
from vault.errors import Refusal, VaultError
from vault.query import fetch_one
from vault.router import OWNER, Actor, Call
from vault.terminal import PROGRAM, printable

MAX_HISTORY = 100
PUBLIC_KEY_BYTES = 32

# With a public key of small order, signatures that nobody made are valid. The y coordinate of such a point is one of
# these, whatever the sign of x. A y that is not below the size of the field is a second spelling of another key.
FIELD = 2**255 - 19
ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER_Y = {0, 1, FIELD - 1, ORDER_8_Y, FIELD - ORDER_8_Y}


class IdentityKind(NamedTuple):
    """Where the identities of one kind are stored, and how messages and the audit log name them."""

    noun: str
    table: str
    names_table: str
    names_column: str
    audit_prefix: str


AGENT = IdentityKind("agent", "ai_agents", "agent_names", "agent_id", "ai_agent")
MACHINE = IdentityKind("machine", "machines", "machine_names", "machine_id", "machine")


def parse_public_key(encoded: str) -> bytes:
    """The raw Ed25519 key from the body of a registration. Raises Refusal."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise Refusal(400, "publicKey must be the 32 raw bytes of an Ed25519 key in standard base64")
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= FIELD or y in SMALL_ORDER_Y:
        raise Refusal(
            400, "publicKey must not be a point of small order or have a non-canonical encoding: generate a new key"
        )
    return key


def fingerprint(public_key: bytes) -> str:
    """The key's fingerprint as OpenSSH and the agent's own computer write it: `SHA256:` and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode("ascii").rstrip("=")


def find_row(db: sqlite3.Connection, kind: IdentityKind, identity_id: str) -> sqlite3.Row | None:
    """The row of an agent or a machine, or None."""
    return fetch_one(db, f"SELECT * FROM {kind.table} WHERE id = ?", (identity_id,))


# ---- for routes ------------------------------------------------------------------------------------------------------


def approve(call: Call, kind: IdentityKind, identity_id: str) -> None:
    """Approve a pending identity. Raises Refusal if its row does not match its seal."""
    if not seals.matches(call.db, kind.noun, identity_id):
        raise Refusal(409, f"only the owner can approve this {kind.noun}: it was not registered by the open vault")
    call.db.execute(f"UPDATE {kind.table} SET approved_ms = ? WHERE id = ?", (call.now_ms, identity_id))
    audit.note(call, f"{kind.audit_prefix}_approve", f"{kind.noun} {identity_id} approved")


def deny(call: Call, kind: IdentityKind, row: sqlite3.Row) -> dict[str, object]:
    """Delete a pending identity."""
    _delete(call.db, kind, row["id"])
    audit.note(call, f"{kind.audit_prefix}_deny", f"{kind.noun} {row['id']} ({row['name']}) denied")
    return {"id": row["id"], "name": row["name"], "state": "denied"}


def revoke(call: Call, kind: IdentityKind, row: sqlite3.Row) -> dict[str, object]:
    """Delete an identity. The audit log keeps its id."""
    _delete(call.db, kind, row["id"])
    audit.note(call, f"{kind.audit_prefix}_revoke", f"{kind.noun} {row['id']} ({row['name']}) revoked")
    return {"id": row["id"], "name": row["name"], "state": "revoked"}


def rename(call: Call, kind: IdentityKind, row: sqlite3.Row) -> dict[str, object]:
    """Set the name from the body, and add the old name to the history."""
    identity_id, old, new = row["id"], row["name"], call.body["name"]
    if new != old:
        call.db.execute(f"UPDATE {kind.table} SET name = ? WHERE id = ?", (new, identity_id))
        call.db.execute(
            f"INSERT INTO {kind.names_table} ({kind.names_column}, name, new_name, changed_ms) VALUES (?, ?, ?, ?)",
            (identity_id, old, new, call.now_ms),
        )
        audit.note(call, f"{kind.audit_prefix}_rename", f"{kind.noun} {identity_id} renamed from {old} to {new}")
    return {"id": identity_id, "name": new}


def name_history(call: Call, kind: IdentityKind, identity_id: str) -> list[dict[str, object]]:
    """The earlier names, latest change first."""
    return names_of(call.db, kind, identity_id)


def names_of(db: sqlite3.Connection, kind: IdentityKind, identity_id: str) -> list[dict[str, object]]:
    """The earlier names, latest change first, for the owner."""
    rows = db.execute(
        f"SELECT * FROM {kind.names_table} WHERE {kind.names_column} = ? ORDER BY id DESC LIMIT ?",
        (identity_id, MAX_HISTORY),
    )
    return [{"name": row["name"], "newName": row["new_name"], "changedAt": row["changed_ms"]} for row in rows]


# ---- for the owner ---------------------------------------------------------------------------------------------------


def require_for_owner(db: sqlite3.Connection, kind: IdentityKind, identity_id: str) -> sqlite3.Row:
    """The row of an agent or a machine. Raises VaultError if there is none."""
    row = find_row(db, kind, identity_id)
    if row is None:
        hint = f"list them with: {PROGRAM} {kind.noun}s"
        raise VaultError(f"there is no {kind.noun} {printable(identity_id)}", hint)
    return row


def approve_as_owner(
    db: sqlite3.Connection, now_ms: int, kind: IdentityKind, identity_id: str, *, actor: Actor = OWNER
) -> sqlite3.Row:
    """Approve an identity, and return its row from before. Raises VaultError."""
    row = require_for_owner(db, kind, identity_id)
    statement = f"UPDATE {kind.table} SET approved_ms = coalesce(approved_ms, ?) WHERE id = ?"
    db.execute(statement, (now_ms, identity_id))
    seals.sign(db, kind.noun, identity_id)
    audit.record(db, now_ms, actor, f"{kind.audit_prefix}_approve", f"{kind.noun} {identity_id} approved")
    return row


def _delete(db: sqlite3.Connection, kind: IdentityKind, identity_id: str) -> None:
    db.execute(f"DELETE FROM {kind.table} WHERE id = ?", (identity_id,))
