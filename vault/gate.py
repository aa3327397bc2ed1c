"""The checks that every signed request passes, in the order of the contract:

    agents:    identity known, timestamp, signature, nonce recorded, approved, enabled, project allowlist, scope
    machines:  identity known, timestamp, signature, nonce recorded, approved, not expired, IP allowlist

The nonce comes after the signature, so that a forged request cannot burn one, and before everything else, so that a
refused request cannot be sent again either. Nonces live in the database: a restart does not open the window again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sqlite3
from typing import Callable, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault import agents, ip_allowlist, machines
from vault.calls import Agent, Caller, Machine, Match
from vault.errors import Denied

TABLES = """
CREATE TABLE IF NOT EXISTS nonces (
    identity TEXT NOT NULL,
    nonce TEXT NOT NULL,
    forget_ms INTEGER NOT NULL,
    PRIMARY KEY (identity, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_by_age ON nonces (forget_ms);
"""

WINDOW_S = 300
# A signature is good for one window either way; the second window forgives a clock that is set back.
NONCE_LIFE_MS = 4 * WINDOW_S * 1000
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE = re.compile(r"[\x21-\x7e]{16,128}")


C = TypeVar("C", Agent, Machine)


class Signed(NamedTuple):
    """The parts of a request that its signature covers, and the headers that carry it."""

    method: str
    path: str
    body: bytes
    identities: tuple[str, ...]
    timestamp: str
    nonce: str
    signature: str

    def text(self) -> bytes:
        """The bytes that the agent signed."""
        digest = hashlib.sha256(self.body).hexdigest()
        return f"{self.method}:{self.path}:{self.timestamp}:{self.nonce}:{digest}".encode()


def admit(db: sqlite3.Connection, signed: Signed, match: Match, source_ip: str | None, now_ms: int) -> Caller:
    """Whoever may go on to the handler; Denied otherwise. Each kind of route looks its callers up in one table only."""
    if match.route.caller == "machine":
        machine = _authenticated(db, signed, machines.find, now_ms)
        machines.check_state(machine, now_ms)
        ip_allowlist.check(db, source_ip, machine.id)
        machines.mark_seen(db, machine, now_ms)
        return machine
    agent = _authenticated(db, signed, agents.find, now_ms)
    _check_state(agent)
    _check_allowlist(db, agent, match)
    _check_scope(agent, match.route.scope)
    return agent


def verify(public_key: bytes, signature: str, text: bytes) -> bool:
    """Whether a base64 signature is right."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(base64.b64decode(signature, validate=True), text)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _authenticated(
    db: sqlite3.Connection, signed: Signed, find: Callable[[sqlite3.Connection, str], C | None], now_ms: int
) -> C:
    names = set(signed.identities)
    if len(names) > 1:
        raise Denied(401, "the identity headers differ")
    caller = find(db, names.pop()) if names else None
    if caller is None:
        raise Denied(401, "unknown identity")
    _check_clock(signed, caller, now_ms)
    if not verify(caller.public_key, signed.signature, signed.text()):
        raise Denied(401, "bad signature", caller.id)
    _record_nonce(db, signed, caller, now_ms)
    return caller


def _check_clock(signed: Signed, caller: Caller, now_ms: int) -> None:
    if not TIMESTAMP.fullmatch(signed.timestamp):
        raise Denied(401, "the timestamp is not a number of seconds", caller.id)
    if abs(now_ms // 1000 - int(signed.timestamp)) > WINDOW_S:
        raise Denied(401, f"the timestamp is more than {WINDOW_S} seconds off", caller.id)


def _record_nonce(db: sqlite3.Connection, signed: Signed, caller: Caller, now_ms: int) -> None:
    if not NONCE.fullmatch(signed.nonce):
        raise Denied(401, "the nonce is not 16 to 128 printable characters", caller.id)
    db.execute("DELETE FROM nonces WHERE forget_ms < ?", (now_ms,))
    # By the key: an identity that is registered anew with the same one must not open the window again.
    row = (hashlib.sha256(caller.public_key).hexdigest(), signed.nonce, now_ms + NONCE_LIFE_MS)
    recorded = db.execute("INSERT OR IGNORE INTO nonces (identity, nonce, forget_ms) VALUES (?, ?, ?)", row)
    if recorded.rowcount != 1:
        raise Denied(401, "the nonce was used before", caller.id)


def _check_state(agent: Agent) -> None:
    if not agent.approved:
        raise Denied(403, "Agent is pending approval", agent.id)
    if not agent.enabled:
        raise Denied(403, "Agent is disabled", agent.id)


def _check_allowlist(db: sqlite3.Connection, agent: Agent, match: Match) -> None:
    """Ids of no project at all are refused as well: an agent cannot find out which ids exist elsewhere."""
    if agent.allowlist is None:
        return
    params = match.params
    if "projectId" in params and not agent.may_reach(params["projectId"]):
        raise Denied(403, "the project is not on the agent's allowlist", agent.id)
    secret_id = params.get("secretId", params.get("canaryId"))
    if secret_id and not agent.may_reach(_project_of(db, secret_id)):
        raise Denied(403, "the secret is not in a project on the agent's allowlist", agent.id)


def _check_scope(agent: Agent, scope: str | None) -> None:
    if scope and scope not in agent.scopes:
        raise Denied(403, f"the agent lacks the scope {scope}", agent.id, scope)


def _project_of(db: sqlite3.Connection, secret_id: str) -> str | None:
    row = db.execute("SELECT project_id FROM secrets WHERE id = ?", (secret_id,)).fetchone()
    return row["project_id"] if row else None
