"""The hash chain over the audit log: each entry has a hash of itself and of the hash before it.

Somebody who edits, removes or inserts an entry must recompute every later hash, and the hash of the newest entry, the
head, then differs from the one that `status` or `backup` printed earlier. `verify` finds an edit without that.
The entries of an older vault, from before the chain, are covered by the first hash.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vault.query import fetch_one

TABLES = """
CREATE TABLE IF NOT EXISTS audit_chain (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS audit_chain_keeps_rows BEFORE DELETE ON audit_chain
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_chain_keeps_hashes BEFORE UPDATE ON audit_chain
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_chain_replaces_nothing BEFORE INSERT ON audit_chain
    WHEN EXISTS (SELECT 1 FROM audit_chain WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""

START = hashlib.sha256(b"").digest()


class Head(NamedTuple):
    """The newest entry of the chain."""

    id: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.id}:{self.hash.hex()}"


def append(db: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Append an audit row that was just inserted."""
    last = head(db)
    if last is None:
        previous = START
        for older in db.execute("SELECT * FROM audit WHERE id < ? ORDER BY id", (row["id"],)):
            previous = next_hash(previous, older)
    else:
        previous = last.hash
    db.execute("INSERT INTO audit_chain (id, hash) VALUES (?, ?)", (row["id"], next_hash(previous, row)))


def head(db: sqlite3.Connection) -> Head | None:
    """The newest entry of the chain, or None before the first."""
    row = fetch_one(db, "SELECT id, hash FROM audit_chain ORDER BY id DESC LIMIT 1")
    return None if row is None else Head(row["id"], row["hash"])


def walk(db: sqlite3.Connection) -> Iterator[tuple[Head, bool]]:
    """The heads computed from the entries, oldest first, and whether each is the one in the chain."""
    stored = dict(db.execute("SELECT id, hash FROM audit_chain").fetchall())
    first = min(stored, default=None)
    previous = START
    for row in db.execute("SELECT * FROM audit ORDER BY id"):
        previous = next_hash(previous, row)
        is_before = first is not None and row["id"] < first
        yield Head(row["id"], previous), is_before or stored.pop(row["id"], None) == previous
    for removed in sorted(stored):
        yield Head(removed, stored[removed]), False


def parse_head(text: str) -> Head:
    """The inverse of `str(head)`. Raises ValueError."""
    number, _, digest = text.partition(":")
    return Head(int(number), bytes.fromhex(digest))


def next_hash(previous: bytes, row: Iterable[object]) -> bytes:
    """The hash of an entry, given as its row, after the hash before it."""
    # ascii() shows different values differently, in every version of Python, also of types that only an edit can store.
    return hashlib.sha256(previous + ascii(tuple(row)).encode()).digest()
