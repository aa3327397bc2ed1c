"""The vault's directory: one SQLite file, one root key, and the locks that keep processes apart.

    vault.db     0600  everything, values encrypted (with vault.db-wal and vault.db-shm beside it while open)
    root.key     0600  64 hex characters; whoever has it and vault.db has every value
    init.lock    held while the directory is being set up
    server.lock  held by the one server

One connection and one lock serve a process: every request is one exclusive transaction, the audit entry and the nonce
in it, and is on disk (synchronous=FULL) before it is answered. The owner's commands do the same from processes of their
own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vault.calls import wall_clock
from vault.crypto import KEY_BYTES, Keyring, new_id
from vault.errors import VaultError
from vault.files import check_private, create_private, locked, private_directory, read_private, shown
from vault.surface import TABLES

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0

VAULT_TABLE = """
CREATE TABLE IF NOT EXISTS vault (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id TEXT NOT NULL,
    root_key_proof BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
"""


class Store:
    """An open vault. `Store(directory)` makes it on first use; close it, or use it as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        private_directory(directory)
        with locked(directory / "init.lock", wait=True):
            self.keys = Keyring(_root_key(directory))
            self._db = _connect(directory / "vault.db")
            self._lock = threading.Lock()
            try:
                self.vault_id = self._prepare()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file once the transaction that runs is over."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone, until the block ends: then everything is on disk, or after an exception nothing is."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _prepare(self) -> str:
        """Create what is missing, and make sure that key and file belong together."""
        with self.transaction() as db:
            _check_version(db)
            for statement in _statements(VAULT_TABLE, *TABLES):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            row = db.execute("SELECT id, root_key_proof FROM vault").fetchone()
            return self._recognise(row) if row else self._found(db)

    def _found(self, db: sqlite3.Connection) -> str:
        vault_id = new_id("vault_")
        row = (vault_id, self.keys.proof(vault_id), wall_clock())
        db.execute("INSERT INTO vault (only, id, root_key_proof, created_ms) VALUES (1, ?, ?, ?)", row)
        return vault_id

    def _recognise(self, row: sqlite3.Row) -> str:
        if not self.keys.fits(row["id"], row["root_key_proof"]):
            path = self.directory / "root.key"
            raise VaultError(f"root key {shown(path)} belongs to another vault", "restore the key of this one")
        return str(row["id"])


@contextmanager
def savepoint(db: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block did if it raises, and keep what the transaction did before."""
    db.execute("SAVEPOINT effect")
    try:
        yield
    except BaseException as error:
        if db.in_transaction and not getattr(error, "keeps", False):
            db.execute("ROLLBACK TO effect")
        raise
    db.execute("RELEASE effect")


def _root_key(directory: Path) -> bytes:
    path = directory / "root.key"
    if not os.path.lexists(path):
        if os.path.lexists(directory / "vault.db"):
            raise VaultError(f"root key {shown(path)} is missing", "restore it: nothing else opens vault.db")
        create_private(path, os.urandom(KEY_BYTES).hex().encode() + b"\n")
    try:
        key = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError(f"root key {shown(path)} is damaged", "restore it from a backup: it holds 64 hex characters")
    return key


def _connect(path: Path) -> sqlite3.Connection:
    if not os.path.lexists(path):
        create_private(path, b"")
    check_private(path)
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
            db.execute(f"PRAGMA {pragma}")
    except sqlite3.OperationalError:
        db.close()
        raise
    except sqlite3.DatabaseError:
        db.close()
        raise VaultError(f"file {shown(path)} is not a vault's database", "restore it from a backup") from None
    return db


def _check_version(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise VaultError(f"the vault has schema {version}, this program knows {SCHEMA_VERSION}", "use a newer program")


def _statements(*scripts: str) -> Iterator[str]:
    """Single statements, since executescript would commit the transaction around them."""
    statement = ""
    for line in "\n".join(scripts).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
