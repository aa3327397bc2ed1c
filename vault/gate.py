"""The checks that every signed request passes, in the order of the contract:

    agents:    known identity, timestamp, signature, nonce, limits, approved, enabled, seal, project allowlist, scope
    machines:  known identity, timestamp, signature, nonce, approved, not expired, seal, IP allowlist

The nonce is recorded after the signature check, so a forged request cannot use up a nonce, and before all other checks,
so a refused request cannot be replayed either. Nonces survive a restart, and a clock that is set back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sqlite3
from typing import Callable, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault import limits, seals
from vault.domains import agents, ip_allowlist, machines
from vault.errors import Denied, StateDenied, Tampered, UnprovenDenied
from vault.query import fetch_one
from vault.router import Agent, Machine, Match, Received, Signer

TABLES = """
CREATE TABLE IF NOT EXISTS nonces (
    identity TEXT NOT NULL,
    nonce TEXT NOT NULL,
    forget_ms INTEGER NOT NULL,
    PRIMARY KEY (identity, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_by_age ON nonces (forget_ms);
CREATE TABLE IF NOT EXISTS forgotten_windows (number INTEGER PRIMARY KEY);
"""

WINDOW_S = 300
# A signature is valid for one window before and after its timestamp. Nonces are kept for a day after it, in case the
# clock is set back by hours. If it is set back to a time whose nonces are forgotten, requests of that time are refused.
NONCE_LIFE_MS = 24 * 3600 * 1000
FORGET_AT_ONCE = 20  # nonces
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NONCE = re.compile(r"[\x21-\x7e]{16,128}")

SomeCaller = TypeVar("SomeCaller", Agent, Machine)


def admit(db: sqlite3.Connection, received: Received, match: Match, now_ms: int) -> Signer:
    """The authenticated and authorized caller of a signed route.

    Raises Denied. Each kind of route looks up its callers in one table only.
    """
    if match.route.caller == "machine":
        machine = _authenticate(db, received, machines.find, now_ms)
        check_machine(db, machine, received.source_ip, now_ms)
        machines.mark_seen(db, machine, now_ms)
        return machine
    agent = _authenticate(db, received, agents.find, now_ms)
    try:
        limits.check(db, agent, received, match, now_ms)
    except limits.LimitDenied:
        _shorten_nonce(db, received, agent, now_ms)
        raise
    _check_state(agent)
    _check_seals(db, agent)
    _check_allowlist(db, agent, match)
    _check_scope(agent, match.route.scope)
    return agent


def check_machine(db: sqlite3.Connection, machine: Machine, source_ip: str | None, now_ms: int) -> None:
    """Raise Denied if a machine with a valid signature is pending or expired, or its address is not allowed."""
    machines.check_state(machine, now_ms)
    _check_seals(db, machine)
    ip_allowlist.check(db, source_ip, machine.id)


def signed_text(received: Received) -> bytes:
    """The bytes that a signature covers."""
    timestamp, nonce = _header(received, "x-timestamp"), _header(received, "x-nonce")
    digest = hashlib.sha256(received.body).hexdigest()
    return f"{received.method}:{received.path}:{timestamp}:{nonce}:{digest}".encode()


def verify(public_key: bytes, signature: str, text: bytes) -> bool:
    """Whether a base64 Ed25519 signature is valid."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(base64.b64decode(signature, validate=True), text)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _authenticate(
    db: sqlite3.Connection,
    received: Received,
    find: Callable[[sqlite3.Connection, str], SomeCaller | None],
    now_ms: int,
) -> SomeCaller:
    ids = {*received.headers.getlist("x-agent-id"), *received.headers.getlist("x-machine-id")}
    if len(ids) > 1:
        raise UnprovenDenied(401, "the identity headers differ")
    caller = find(db, ids.pop()) if ids else None
    if caller is None:
        raise UnprovenDenied(401, "unknown identity")
    _check_timestamp(_header(received, "x-timestamp"), caller, now_ms)
    if not verify(caller.public_key, _header(received, "x-signature"), signed_text(received)):
        raise UnprovenDenied(401, "bad signature", caller.id)
    _forget_old_nonces(db, now_ms)
    _record_nonce(db, _header(received, "x-nonce"), caller, int(_header(received, "x-timestamp")))
    return caller


def _header(received: Received, name: str) -> str:
    return received.headers.get(name, "")


def _check_timestamp(timestamp: str, caller: Signer, now_ms: int) -> None:
    if not TIMESTAMP.fullmatch(timestamp):
        raise UnprovenDenied(401, "the timestamp is not a number of seconds", caller.id)
    if abs(now_ms // 1000 - int(timestamp)) > WINDOW_S:
        raise UnprovenDenied(401, f"the timestamp is more than {WINDOW_S} seconds off", caller.id)


def _forget_old_nonces(db: sqlite3.Connection, now_ms: int) -> None:
    """Delete some nonces whose time is over, and remember the windows of their timestamps.

    A nonce that is over but not yet deleted is still refused. Each request adds one, so none stays for long.
    """
    oldest = "SELECT identity, nonce, forget_ms FROM nonces WHERE forget_ms < ? ORDER BY forget_ms LIMIT ?"
    old = db.execute(oldest, (now_ms, FORGET_AT_ONCE)).fetchall()
    windows = {(row["forget_ms"] - NONCE_LIFE_MS) // 1000 // WINDOW_S for row in old}
    db.executemany("INSERT OR IGNORE INTO forgotten_windows (number) VALUES (?)", [(each,) for each in windows])
    rows = [(row["identity"], row["nonce"]) for row in old]
    db.executemany("DELETE FROM nonces WHERE identity = ? AND nonce = ?", rows)


def _record_nonce(db: sqlite3.Connection, nonce: str, caller: Signer, timestamp_s: int) -> None:
    if not NONCE.fullmatch(nonce):
        raise UnprovenDenied(401, "the nonce is not 16 to 128 printable characters", caller.id)
    forgotten = "SELECT 1 FROM forgotten_windows WHERE number = ?"
    if fetch_one(db, forgotten, (timestamp_s // WINDOW_S,)) is not None:
        raise UnprovenDenied(401, "the nonces of this time are forgotten: the vault's clock was set back", caller.id)
    row = (_identity(caller), nonce, timestamp_s * 1000 + NONCE_LIFE_MS)
    recorded = db.execute("INSERT OR IGNORE INTO nonces (identity, nonce, forget_ms) VALUES (?, ?, ?)", row)
    if recorded.rowcount != 1:
        raise UnprovenDenied(401, "the nonce was used before", caller.id)


def _shorten_nonce(db: sqlite3.Connection, received: Received, caller: Signer, now_ms: int) -> None:
    """Keep the nonce only while the signature is valid: a flood would otherwise fill the disk with nonces."""
    row = (now_ms + 2 * WINDOW_S * 1000 + 1000, _identity(caller), _header(received, "x-nonce"))
    db.execute("UPDATE nonces SET forget_ms = ? WHERE identity = ? AND nonce = ?", row)


def _identity(caller: Signer) -> str:
    """What nonces are stored under. Registering the same key under another id must not allow replays."""
    return hashlib.sha256(caller.public_key).hexdigest()


def _check_state(agent: Agent) -> None:
    if not agent.approved:
        raise StateDenied(403, "Agent is pending approval", agent.id)
    if not agent.enabled:
        raise StateDenied(403, "Agent is disabled", agent.id)


def _check_seals(db: sqlite3.Connection, caller: Signer) -> None:
    """Raise Tampered if the caller's row, or a project of its allowlist, was changed from outside."""
    try:
        seals.require(db, "agent" if isinstance(caller, Agent) else "machine", caller.id)
        if isinstance(caller, Agent) and caller.allowlist is not None:
            seals.require_all(db, "agent project", caller.id)
    except Tampered as found:
        found.caller_id = caller.id
        raise


def _check_allowlist(db: sqlite3.Connection, agent: Agent, match: Match) -> None:
    """Refuse unknown ids too, so an agent cannot find out which ids exist elsewhere."""
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
    row = fetch_one(db, "SELECT project_id FROM secrets WHERE id = ?", (secret_id,))
    return row["project_id"] if row else None
