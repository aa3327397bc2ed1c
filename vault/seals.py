"""Seals: a MAC for each row that decides who may read what, and which version of a value is current.

The key of the seals is in the proof of the root key, so only an open vault can seal. Triggers on the vault's own
connections seal every row that the vault writes: they are temporary, so the file contains neither them nor the function
that they call. A change keeps a seal only if the row matched it before, so no later change covers up an edit from
outside. Reading routes and the gate compare before they trust a row, and `verify` compares all rows.

A process without the root key (an owner's command on a vault with a passphrase) leaves a row without a valid seal: it
can take rights away, but only an owner who gives the passphrase grants any.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from vault.chain import Head
from vault.errors import Tampered
from vault.query import fetch_one

TABLES = """
CREATE TABLE IF NOT EXISTS seals (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""


class Satellite(NamedTuple):
    """A table with at most one row for a sealed row, such as the freeze of a project. The seal covers its value."""

    table: str
    owner: str
    value: str


class Guard(NamedTuple):
    """A sealed kind of row: its table, its key, the other columns that its seal covers, and its satellite."""

    kind: str
    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    satellite: Satellite | None = None


TOKEN_LIMITS = ("machine_life_s", "max_uses", "uses", "source_cidr", "hostname_pattern", "name_pattern")
AGENT_LIMITS = ("scopes", "restricted", "enabled")
SWITCHES = ("enabled", "freeze_project", "freeze_related")
DISABLED = Satellite("agents_disabled_by_owner", "agent_id", "disabled_ms")
BINDING = Satellite("policy_bindings", "secret_id", "policy_id")
FREEZE = Satellite("project_freezes", "project_id", "frozen_ms")

# fmt: off
GUARDS = (
    Guard("agent",         "ai_agents",           ("id",), ("public_key", "approved_ms", *AGENT_LIMITS), DISABLED),
    Guard("agent project", "agent_projects",      ("agent_id", "project_id")),
    Guard("machine",       "machines",            ("id",), ("public_key", "kind", "approved_ms", "expires_ms")),
    Guard("membership",    "project_machines",    ("project_id", "machine_id")),
    Guard("grant",         "grants",              ("machine_id", "secret_id")),
    Guard("secret",        "secrets",             ("id",), ("project_id", "kind", "version", "deleted_ms"), BINDING),
    Guard("project",       "projects",            ("id",), (), FREEZE),
    Guard("deletion",      "deleted_projects",    ("project_id",)),
    Guard("canary",        "canaries",            ("secret_id",), SWITCHES),
    Guard("policy",        "policies",            ("id",), ("project_id", "rules")),
    Guard("token",         "enrollment_tokens",   ("id",), ("token_hash", "expires_ms", "revoked_ms", *TOKEN_LIMITS)),
    Guard("token project", "enrollment_projects", ("token_id", "project_id")),
    Guard("token secret",  "enrollment_secrets",  ("token_id", "secret_id")),
    Guard("address",       "ip_allowlist",        ("id",), ("cidr",)),
    Guard("address list",  "ip_allowlist_switch", ("only",), ("enabled",)),
    Guard("reveal switch", "reveal_forbidden",    ("only",), ("since_ms",)),
)
# fmt: on
HEAD = "audit head"  # the seal of the newest audit entry that an open vault wrote


# ---- sealing ---------------------------------------------------------------------------------------------------------


def install(db: sqlite3.Connection, seal: Callable[..., bytes | None]) -> None:
    """Make a connection seal what it writes. `seal` returns the MAC of its arguments, or None without the key."""
    install_function(db, seal)
    for guard in GUARDS:
        for number, trigger in enumerate(_triggers(guard)):
            db.execute(f'CREATE TEMP TRIGGER "seal {guard.kind} {number}" {trigger}')
    # A sealed vault keeps the seal of the newest entry that it wrote while it was open.
    renew = _upsert(HEAD, _quoted("audit"), f"seal('{HEAD}', NEW.id, NEW.hash)") + " WHERE excluded.mac <> x''"
    db.execute(f'CREATE TEMP TRIGGER "seal {HEAD}" AFTER INSERT ON audit_chain BEGIN {renew}; END')


def install_function(db: sqlite3.Connection, seal: Callable[..., bytes | None]) -> None:
    """Make a connection compare rows with their seals, but not seal what it writes."""
    db.create_function("seal", -1, seal)


def sign(db: sqlite3.Connection, kind: str, *key: str) -> None:
    """Seal a row as it is, because the owner wants it so."""
    guard = _guard(kind)
    values = {f"key{number}": value for number, value in enumerate(key)}
    of_row = " AND ".join(f"r.{column} = :key{number}" for number, column in enumerate(guard.key))
    db.execute(
        f"INSERT INTO seals (kind, id, mac) SELECT :kind, {_id(guard, 'r')}, coalesce({_mac(guard)}, x'')"
        f" FROM {guard.table} r WHERE {of_row} ON CONFLICT (kind, id) DO UPDATE SET mac = excluded.mac",
        {"kind": kind, **values},
    )


def sign_all(db: sqlite3.Connection) -> None:
    """Seal every row as it is: for a vault of an earlier version."""
    db.execute("DELETE FROM seals")
    for guard in GUARDS:
        columns = f"{_quoted(guard.kind)}, {_id(guard, 'r')}, {_mac(guard)}"
        db.execute(f"INSERT INTO seals (kind, id, mac) SELECT {columns} FROM {guard.table} r")


def _triggers(guard: Guard) -> Iterator[str]:
    """The triggers that seal rows: before a change they break a seal that does not match, and after it they renew."""
    new, old = _id(guard, "NEW"), _id(guard, "OLD")
    yield f"AFTER INSERT ON {guard.table} BEGIN {_upsert(guard.kind, new, _current(guard, 'NEW'))}; END"
    yield f"AFTER DELETE ON {guard.table} BEGIN DELETE FROM seals WHERE {_is(guard, old)}; END"
    if guard.columns:
        of_table = f"UPDATE OF {', '.join(guard.columns)} ON {guard.table}"
        yield f"BEFORE {of_table} BEGIN {_break(guard, old, _current(guard, 'OLD'))}; END"
        yield f"AFTER {of_table} BEGIN {_renew(guard, new, _current(guard, 'NEW'))}; END"
    if guard.satellite is not None:
        for event, row in ((f"UPDATE OF {guard.satellite.value}", "NEW"), ("INSERT", "NEW"), ("DELETE", "OLD")):
            owner = f"{row}.{guard.satellite.owner}"
            current = f"(SELECT {_mac(guard)} FROM {guard.table} r WHERE r.{guard.key[0]} = {owner})"
            yield f"BEFORE {event} ON {guard.satellite.table} BEGIN {_break(guard, owner, current)}; END"
            yield f"AFTER {event} ON {guard.satellite.table} BEGIN {_renew(guard, owner, current)}; END"


def _current(guard: Guard, row: str) -> str:
    """The MAC of a stored row, for a trigger."""
    of_row = " AND ".join(f"r.{column} = {row}.{column}" for column in guard.key)
    return f"(SELECT {_mac(guard)} FROM {guard.table} r WHERE {of_row})"


def _mac(guard: Guard) -> str:
    parts = [_quoted(guard.kind), *(f"r.{column}" for column in guard.key + guard.columns)]
    if guard.satellite is not None:
        table, owner, value = guard.satellite
        parts.append(f"(SELECT {value} FROM {table} WHERE {owner} = r.{guard.key[0]})")
    return f"seal({', '.join(parts)})"


def _id(guard: Guard, row: str) -> str:
    return " || ':' || ".join(f"CAST({row}.{column} AS TEXT)" for column in guard.key)


def _is(guard: Guard, row_id: str) -> str:
    return f"kind = {_quoted(guard.kind)} AND id = {row_id}"


def _upsert(kind: str, row_id: str, value: str) -> str:
    return (
        f"INSERT INTO seals (kind, id, mac) VALUES ({_quoted(kind)}, {row_id}, coalesce({value}, x''))"
        " ON CONFLICT (kind, id) DO UPDATE SET mac = excluded.mac"
    )


def _break(guard: Guard, row_id: str, value: str) -> str:
    return f"UPDATE seals SET mac = x'' WHERE {_is(guard, row_id)} AND mac IS NOT {value}"


def _renew(guard: Guard, row_id: str, value: str) -> str:
    return f"UPDATE seals SET mac = coalesce({value}, x'') WHERE {_is(guard, row_id)} AND mac <> x''"


def _quoted(text: str) -> str:
    return f"'{text}'"


# ---- comparing -------------------------------------------------------------------------------------------------------


def matches(db: sqlite3.Connection, kind: str, *key: str) -> bool:
    """Whether a row matches its seal. A sealed vault cannot tell, and trusts the row: it serves nothing."""
    return _is_intact(fetch_one(db, _ONE[kind], key))


def require(
    db: sqlite3.Connection, kind: str, *key: str, secret_id: str | None = None, project_id: str | None = None
) -> None:
    """Raise Tampered, with the ids for its entry, unless a row matches its seal."""
    if not matches(db, kind, *key):
        raise Tampered(f"{kind} {':'.join(key)} does not match its seal", secret_id=secret_id, project_id=project_id)


def require_all(db: sqlite3.Connection, kind: str, owner: str) -> None:
    """Raise Tampered unless every row whose key begins with the owner's id matches its seal."""
    for row in db.execute(_OF_OWNER[kind], (owner,)):
        if not _is_intact(row):
            raise Tampered(f"{kind} {row['id']} does not match its seal")


def find_changed(db: sqlite3.Connection) -> str | None:
    """The kind and id of a row that does not match its seal, or that is gone while its seal is not."""
    for guard in GUARDS:
        for row in db.execute(_select(guard)):
            if not _is_intact(row):
                return f"{guard.kind} {row['id']}"
        ids = f"SELECT {_id(guard, 'r')} FROM {guard.table} r"
        gone = f"SELECT id FROM seals WHERE kind = ? AND id NOT IN ({ids})"
        row = fetch_one(db, gone, (guard.kind,))
        if row is not None:
            return f"{guard.kind} {row['id']}"
    return None


def sealed_head(db: sqlite3.Connection, heads: Sequence[Head]) -> int | None:
    """The place from the end of the newest of these heads that an open vault wrote. None if its seal fits none.

    A vault that is sealed cannot tell, and answers 0.
    """
    statement = "SELECT (SELECT mac FROM seals WHERE kind = :kind) AS mac, seal(:kind, :id, :hash) AS computed"
    for place, head in enumerate(reversed(heads)):
        if _is_intact(fetch_one(db, statement, {"kind": HEAD, **head._asdict()})):
            return place
    return None


def _is_intact(row: sqlite3.Row | None) -> bool:
    if row is None:
        return False
    if row["computed"] is None:
        return True
    stored = row["mac"] if isinstance(row["mac"], bytes) else b""
    return hmac.compare_digest(stored, row["computed"])


def _select(guard: Guard) -> str:
    row_id = _id(guard, "r")
    return (
        f"SELECT {row_id} AS id, (SELECT mac FROM seals WHERE kind = {_quoted(guard.kind)} AND id = {row_id}) AS mac,"
        f" {_mac(guard)} AS computed FROM {guard.table} r"
    )


def _guard(kind: str) -> Guard:
    return next(guard for guard in GUARDS if guard.kind == kind)


_ONE = {
    guard.kind: f"{_select(guard)} WHERE {' AND '.join(f'r.{column} = ?' for column in guard.key)}" for guard in GUARDS
}
_OF_OWNER = {guard.kind: f"{_select(guard)} WHERE r.{guard.key[0]} = ?" for guard in GUARDS}
