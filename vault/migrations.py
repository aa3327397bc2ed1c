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
# Step 3 finds in the audit log who made what. Older programs are refused from then on, because they would append to the
# log without its chain, and write rows without seals.
MAKERS = """
CREATE TABLE made (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
INSERT OR REPLACE INTO made (kind, id, agent_id, made_ms)
SELECT kind, CASE kind WHEN 'grant' THEN word || ':' || secret_id ELSE word END, agent_id, created_ms FROM (
    SELECT *, substr(rest, 1, instr(rest || ' ', ' ') - 1) AS word FROM (
        SELECT a.id AS entry, a.agent_id, a.secret_id, a.created_ms, w.kind,
            substr(a.detail, instr(a.detail, w.before) + length(w.before)) AS rest
        FROM audit a JOIN (
            SELECT 'enroll_token_create' AS action, 'token' AS kind, 'enrollment token ' AS before
            UNION ALL SELECT 'webhook_create', 'webhook', 'webhook '
            UNION ALL SELECT 'temporary_secret_create', 'link', 'temporary secret '
            UNION ALL SELECT 'permission_grant', 'grant', 'reading granted to machine '
            UNION ALL SELECT 'team_invite', 'invitation', ' invited by '
        ) w ON w.action = a.action AND a.agent_id IS NOT NULL
    )
) ORDER BY entry;
"""
STEPS: Mapping[int, Sequence[str]] = {1: (), 2: (), 3: (MAKERS,)}


def version(db: sqlite3.Connection) -> int:
    """The schema version of a database; 0 for a new one."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, directory: Path, *, has_server_lock: bool) -> None:
    """Migrate an old database. A new one has version 0 and is left unchanged.

    No other server may be running; `has_server_lock` means that the caller holds server.lock. Raises VaultError.
    """
    found = version(db)
    if found > SCHEMA_VERSION:
        raise VaultError(f"the vault has schema {found}, this program knows {SCHEMA_VERSION}", "use a newer program")
    if not 0 < found < SCHEMA_VERSION:
        return
    with nullcontext(True) if has_server_lock else locked(directory / "server.lock", wait=False) as acquired:
        if not acquired:
            raise VaultError(f"an older server has {quoted(directory)} open", "stop it: the vault has to be migrated")
        copy(db, directory / f"vault.db.schema-{found}")
        _run_steps(db, found)


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
        raise VaultError("the vault has rows with broken references", "restore vault.db from a backup")
