"""Migrates older databases to the current schema, in one transaction and after copying the file.

Only changed tables need a migration step, because every start creates missing tables. The schema version is
`PRAGMA user_version`. A file from a newer program is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from vault.errors import VaultError
from vault.files import create_private, locked, quoted, sync_directory

SCHEMA_VERSION = 4

# The SQL statements that migrate a database from each version to the next.
# Step 3 changes no table: older programs would append to the audit log without its chain.
STEPS: Mapping[int, Sequence[str]] = {1: (), 2: (), 3: ()}


def migrate(db: sqlite3.Connection, directory: Path, *, has_server_lock: bool) -> None:
    """Migrate an old database. A new one has version 0 and is left unchanged.

    No other server may be running; `has_server_lock` means that the caller holds server.lock. Raises VaultError.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise VaultError(f"the vault has schema {version}, this program knows {SCHEMA_VERSION}", "use a newer program")
    if not 0 < version < SCHEMA_VERSION:
        return
    with nullcontext(True) if has_server_lock else locked(directory / "server.lock", wait=False) as acquired:
        if not acquired:
            raise VaultError(f"an older server has {quoted(directory)} open", "stop it: the vault has to be migrated")
        copy(db, directory / f"vault.db.schema-{version}")
        _run_steps(db, version)


def copy(db: sqlite3.Connection, path: Path) -> None:
    """Write the whole database into a new private file, atomically."""
    draft = path.with_name(path.name + ".draft")
    create_private(draft, b"")
    with closing(sqlite3.connect(draft, isolation_level=None)) as target:
        db.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    draft.rename(path)
    sync_directory(path.parent)


def statements(*scripts: str) -> Iterator[str]:
    """Split scripts into statements, because executescript would commit the current transaction."""
    statement = ""
    for line in "\n".join(scripts).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _run_steps(db: sqlite3.Connection, version: int) -> None:
    # Replacing a table must not delete the rows that refer to it.
    db.execute("PRAGMA foreign_keys = OFF")
    try:
        db.execute("BEGIN IMMEDIATE")
        for step in range(version, SCHEMA_VERSION):
            for statement in statements(*STEPS[step]):
                db.execute(statement)
        _check_references(db)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("PRAGMA foreign_keys = ON")


def _check_references(db: sqlite3.Connection) -> None:
    if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise VaultError("the vault has rows that refer to nothing", "restore vault.db from a backup")
