"""Removes deleted values from the write-ahead log.

SQLite overwrites deleted rows in the database file (`secure_delete`), but its log keeps the earlier pages until they
are overwritten by chance. A transaction that deletes values or keys asks the store to empty the log after its commit.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress

BUSY_TIMEOUT_MS = 100  # another process may be reading; the store then tries again after the next transaction


class Connection(sqlite3.Connection):
    """A connection that remembers that the log may contain deleted values."""

    has_deleted_values = False


def wipe_log_after_commit(db: sqlite3.Connection) -> None:
    """Empty the write-ahead log as soon as the current transaction is committed and nobody reads from the log."""
    if isinstance(db, Connection):
        db.has_deleted_values = True


def wipe_log(db: Connection) -> None:
    """Empty the write-ahead log if it may contain deleted values. Must run outside transactions.

    A failure, as on a full disk, is no error: the transaction before it is committed, and the next one tries again.
    """
    if not db.has_deleted_values:
        return
    before_ms = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    with suppress(sqlite3.OperationalError):
        was_busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        db.has_deleted_values = bool(was_busy)
    db.execute(f"PRAGMA busy_timeout = {before_ms}")
