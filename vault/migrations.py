"""From an older schema to this program's, in one transaction, after a copy of the file has been put aside.

New tables need no step here, since every start creates what is missing. A step is for a table that changed. The version
is `PRAGMA user_version`; a file from a newer program is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from vault.errors import VaultError
from vault.files import create_private, locked, shown, sync_directory

SCHEMA_VERSION = 2

# What takes a file from the version that is the key to the next one.
STEPS: Mapping[int, Sequence[str]] = {1: ()}


def bring_up_to_date(db: sqlite3.Connection, directory: Path, *, sole: bool) -> None:
    """Migrate an old file; a new one, which has version 0, is left to whoever creates the tables.

    No server may have the directory meanwhile; with `sole`, the caller has seen to that.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise VaultError(f"the vault has schema {version}, this program knows {SCHEMA_VERSION}", "use a newer program")
    if not 0 < version < SCHEMA_VERSION:
        return
    with nullcontext(True) if sole else locked(directory / "server.lock", wait=False) as alone:
        if not alone:
            raise VaultError(f"an older server has {shown(directory)} open", "stop it: the vault has to be migrated")
        copy(db, directory / f"vault.db.schema-{version}")
        _migrate(db, version)


def copy(db: sqlite3.Connection, path: Path) -> None:
    """Write the whole database into one new private file."""
    draft = path.with_name(path.name + ".draft")
    create_private(draft, b"")
    with closing(sqlite3.connect(draft, isolation_level=None)) as target:
        db.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    draft.rename(path)
    sync_directory(path.parent)


def statements(*scripts: str) -> Iterator[str]:
    """Single statements, since executescript would commit the transaction around them."""
    statement = ""
    for line in "\n".join(scripts).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _migrate(db: sqlite3.Connection, version: int) -> None:
    # To drop a table whose place another takes must not delete the rows that refer to it.
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
