"""Fills a vault with many rows, in one transaction and without requests, with valid seals and a valid chain.

Nearly everything is in one project, because a vault slows down there first.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vault import audit, chain
from vault.crypto import Envelope
from vault.domains import agents
from vault.store import Store

GRANTS_EACH = 3
HOUR_MS = 3_600_000
ENTRY_EVERY_MS = 40_000
PROJECT = "proj_filled"
TOKEN = "0" * 64  # of an enrollment and a bootstrap token


class Sizes(NamedTuple):
    """How many rows to make. The project has two canaries, and one secret in ten is in the trash."""

    secrets: int = 0
    machines: int = 0
    entries: int = 0
    schedules: int = 0
    nonces: int = 0


class Identity(NamedTuple):
    """An approved agent or machine and its private key."""

    id: str
    key: bytes


class Filled(NamedTuple):
    """Who can ask a filled vault. The machine may read the secret `sk_0`; the second agent has an allowlist."""

    agent: Identity
    restricted: Identity
    machine: Identity


def fill(store: Store, sizes: Sizes, now_ms: int) -> Filled:
    """Add one project with so many rows, and the identities that reach it."""
    with store.transaction() as db:
        wrapped = store.keys.new_project_key(PROJECT)
        db.execute("INSERT INTO projects VALUES (?, 'filled', '', ?, ?, ?)", (PROJECT, wrapped, now_ms, now_ms))
        filled = Filled(_agent(db, "all", now_ms), _agent(db, "restricted", now_ms), _machine(db, "reader", now_ms))
        db.execute("UPDATE ai_agents SET restricted = 1 WHERE id = 'restricted'")
        db.execute("INSERT INTO agent_projects VALUES ('restricted', ?)", (PROJECT,))
        _fill_secrets(store, db, sizes.secrets, wrapped, now_ms)
        _fill_machines(db, sizes, now_ms)
        _fill_schedules(db, sizes.schedules, now_ms)
        _fill_audit(db, sizes.entries, now_ms)
        _add_one_of_each(store, db, now_ms)
        db.executemany(
            "INSERT INTO nonces VALUES (?, ?, ?)",
            ((f"{number % 50:064}", f"{number:032}", now_ms - number * 10 - 1) for number in range(sizes.nonces)),
        )
    return filled


def _agent(db: sqlite3.Connection, agent_id: str, now_ms: int) -> Identity:
    private, public = _key()
    row = (agent_id, agent_id, public, json.dumps(agents.SCOPES), now_ms, now_ms)
    db.execute(
        "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, approved_ms, created_ms)"
        " VALUES (?, ?, ?, ?, 0, ?, ?)",
        row,
    )
    return Identity(agent_id, private)


def _machine(db: sqlite3.Connection, machine_id: str, now_ms: int) -> Identity:
    private, public = _key()
    _insert_machine(db, machine_id, public, now_ms)
    return Identity(machine_id, private)


def _insert_machine(db: sqlite3.Connection, machine_id: str, public: bytes, created_ms: int) -> None:
    db.execute(
        "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, created_ms)"
        " VALUES (?, ?, 'standard', ?, ?, ?, ?)",
        (machine_id, machine_id, f"host of {machine_id}", public, created_ms, created_ms),
    )
    db.execute("INSERT INTO project_machines VALUES (?, ?, ?)", (PROJECT, machine_id, created_ms))


def _key() -> tuple[bytes, bytes]:
    private = os.urandom(32)
    public = Ed25519PrivateKey.from_private_bytes(private).public_key()
    return private, public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _fill_secrets(store: Store, db: sqlite3.Connection, count: int, wrapped: bytes, now_ms: int) -> None:
    for number in range(count):
        secret_id, created_ms = f"sk_{number}", now_ms - count + number
        kind = "canary" if number in (1, 2) else "secret"
        deleted_ms = now_ms if number % 10 == 9 else None
        row = (secret_id, PROJECT, f"name {number}", kind, created_ms, created_ms, deleted_ms)
        db.execute(
            "INSERT INTO secrets (id, project_id, name, kind, note, version, created_ms, updated_ms, deleted_ms)"
            " VALUES (?, ?, ?, ?, '', 1, ?, ?, ?)",
            row,
        )
        sealed = store.keys.seal(Envelope(PROJECT, wrapped, secret_id, 1), b"value")
        version = (secret_id, sealed.wrapped_key, sealed.ciphertext, created_ms)
        db.execute("INSERT INTO secret_versions VALUES (?, 1, 'create', ?, ?, ?)", version)
        if kind == "canary":
            db.execute("INSERT INTO canaries VALUES (?, 1, 1, 0, 0, NULL, ?)", (secret_id, created_ms))
    if count:
        db.execute("INSERT INTO grants VALUES ('reader', 'sk_0', ?)", (now_ms,))
        db.execute("INSERT INTO policies VALUES ('pol_filled', ?, 'p', '', '{}', 0, 0)", (PROJECT,))
        db.execute(
            "INSERT INTO policy_bindings (secret_id, policy_id, bound_ms) SELECT id, 'pol_filled', 0 FROM secrets"
            " WHERE id <> 'sk_0' AND rowid % 3 = 0"
        )


def _fill_machines(db: sqlite3.Connection, sizes: Sizes, now_ms: int) -> None:
    for number in range(sizes.machines):
        machine_id = f"machine_{number}"
        _insert_machine(db, machine_id, hashlib.sha256(machine_id.encode()).digest(), now_ms - number)
        for step in range(GRANTS_EACH if sizes.secrets else 0):
            secret_id = f"sk_{(number * GRANTS_EACH + step) % sizes.secrets}"
            db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?)", (machine_id, secret_id, now_ms))


def _fill_schedules(db: sqlite3.Connection, count: int, now_ms: int) -> None:
    """Schedules that are due in an hour, for secrets that are not in the trash."""
    db.execute(
        "INSERT INTO rotation_schedules (secret_id, interval_s, length, charset, next_ms, created_ms, updated_ms)"
        " SELECT id, 3600, 32, 'symbols', ?, created_ms, created_ms FROM secrets"
        " WHERE deleted_ms IS NULL AND kind = 'secret' AND rowid > 10 LIMIT ?",
        (now_ms + HOUR_MS, count),
    )


def _add_one_of_each(store: Store, db: sqlite3.Connection, now_ms: int) -> None:
    """A row of everything else, with the ids that `vault_asks.PARAMS` has."""
    _agent(db, "pending", now_ms)
    _agent(db, "denied", now_ms)
    _insert_machine(db, "waiting", b"1" * 32, now_ms)
    _insert_machine(db, "refused", b"2" * 32, now_ms)
    _insert_machine(db, "outside", b"3" * 32, now_ms)
    db.execute("DELETE FROM project_machines WHERE machine_id = 'outside'")
    db.execute("UPDATE ai_agents SET approved_ms = NULL WHERE id IN ('pending', 'denied')")
    db.execute("UPDATE machines SET approved_ms = NULL WHERE id IN ('waiting', 'refused')")
    wrapped = store.keys.new_project_key("proj_empty")
    db.execute("INSERT INTO projects VALUES ('proj_empty', 'empty', '', ?, 0, 0)", (wrapped,))
    later_ms = now_ms + HOUR_MS
    token = (hashlib.sha256(TOKEN.encode()).digest(), later_ms)
    tokens = (("enr_filled", *token), ("enr_other", b"4", later_ms))
    for each in tokens:
        db.execute(
            "INSERT INTO enrollment_tokens (id, token_hash, name, description, machine_life_s, max_uses, created_ms,"
            " expires_ms) VALUES (?, ?, 'ci', '', 600, 10, 0, ?)",
            each,
        )
    db.execute("INSERT INTO enrollment_projects VALUES ('enr_filled', ?)", (PROJECT,))
    db.execute("INSERT INTO enrollment_secrets SELECT 'enr_filled', id FROM secrets WHERE id = 'sk_0'")
    db.execute("INSERT INTO bootstrap_tokens VALUES (?, 'new', '[\"audit.read\"]', NULL, 0, ?, NULL)", token)
    db.execute("INSERT INTO policies VALUES ('pol_free', ?, 'p', '', '{}', 0, 0)", (PROJECT,))
    db.execute("INSERT INTO ip_allowlist VALUES ('ip_filled', '127.0.0.1/32', '', 0)")
    db.execute("INSERT INTO ip_allowlist VALUES ('ip_other', '127.0.0.2/32', '', 0)")
    for number, member in enumerate(("mem_filled", "mem_other")):
        db.execute("INSERT INTO team_members VALUES (?, ?, 0)", (member, f"{number}@example.com"))
        db.execute("INSERT INTO project_members VALUES (?, ?, '[]', 0)", (PROJECT, member))
    db.execute("INSERT INTO team_invites VALUES ('inv_filled', 'c@example.com', 'pending', 0, ?)", (later_ms,))
    for ticket_id in ("tk_filled", "tk_other"):
        db.execute(
            "INSERT INTO tickets VALUES (?, 'bug', 'low', 't', 'resolved', NULL, 'restricted', 0, 0)", (ticket_id,)
        )
    db.execute("INSERT INTO ticket_messages VALUES (NULL, 'tm_filled', 'tk_filled', 'staff', 'b', 0)")
    db.execute("INSERT INTO ticket_attachments VALUES (NULL, 'ta_filled', 'tm_filled', 'n', 'text/plain', x'00')")
    for webhook_id in ("wh_filled", "wh_other"):
        row = (webhook_id, store.keys.wrap(f"webhook:{webhook_id}", b"secret"))
        db.execute(
            "INSERT INTO webhooks (id, url, wrapped_secret, next_ms, created_ms, updated_ms)"
            " VALUES (?, 'https://example.com/', ?, 0, 0, 0)",
            row,
        )
        db.execute("INSERT INTO webhook_actions VALUES (?, 'ticket_create')", (webhook_id,))


def _fill_audit(db: sqlite3.Connection, count: int, now_ms: int) -> None:
    """An entry every ENTRY_EVERY_MS until now, mostly of reads by machines."""
    head = chain.head(db)
    last, previous = (0, chain.START) if head is None else head
    chained = []
    for row in _entries(count, last + 1, now_ms):
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        previous = chain.next_hash(previous, row)
        chained.append((row[0], previous))
        if len(chained) == 10_000 or row[0] == last + count:
            db.executemany("INSERT INTO audit_chain (id, hash) VALUES (?, ?)", chained)
            chained.clear()


def _entries(count: int, first: int, now_ms: int) -> Iterator[tuple[object, ...]]:
    actions = ["secret_read"] * 14 + ["metadata_read"] * 2 + ["secret_update", "secret_read_denied", "auth_failure"]
    for number in range(count):
        action = "canary_triggered" if number % 1_000 == 7 else actions[number % len(actions)]
        by_agent = action in ("metadata_read", "secret_update")
        yield (
            *(first + number, action, audit.ACTIONS[action], "ai_agent" if by_agent else "machine", None),
            *(None if by_agent else f"machine_{number % 50}", "all" if by_agent else None, f"sk_{number % 97}"),
            *(PROJECT, f"10.0.0.{number % 5}", f"{action} number {number}", now_ms - (count - number) * ENTRY_EVERY_MS),
        )
