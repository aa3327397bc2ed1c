"""The vault's directory: one SQLite file, one root key, and the locks that keep processes apart.

    vault.db      0600  everything, values encrypted (with vault.db-wal and vault.db-shm beside it while open)
    root.key      0600  64 hex characters, unless a passphrase seals the root key: see `rootkey`
    control.sock  0600  the server's ear for its owner: see `control`
    init.lock     held while the directory is being set up, and while the root key changes
    server.lock   held by the one server

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

from vault import audit, migrations, rootkey
from vault.calls import OWNER, wall_clock
from vault.crypto import Keyring, new_id
from vault.errors import SealedDenied, VaultError
from vault.files import check_private, create_private, locked, private_directory, shown
from vault.surface import TABLES

BUSY_TIMEOUT_S = 10.0
# secure_delete: what was purged, and what an old root key had wrapped, is overwritten and not only unlinked.
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF", "secure_delete=ON")

VAULT_TABLE = """
CREATE TABLE IF NOT EXISTS vault (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id TEXT NOT NULL,
    root_key_proof BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
"""


class Store:
    """An open vault. `Store(directory)` makes it on first use; close it, or use it as a context manager.

    A vault with a passphrase is sealed until that has been given, here or to `unseal`. A new one is made with it.
    `sole` says that the caller holds server.lock.
    """

    def __init__(self, directory: Path, passphrase: str | None = None, *, sole: bool = False) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        private_directory(directory)
        with locked(directory / "init.lock", wait=True):
            self._db = _connect(directory / "vault.db")
            try:
                migrations.bring_up_to_date(self._db, directory, sole=sole)
                self.vault_id, self._keys = self._prepare(passphrase)
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

    @property
    def keys(self) -> Keyring:
        """The keys of an open vault."""
        if self._keys is None:
            raise SealedDenied
        return self._keys

    @property
    def sealed(self) -> bool:
        """Whether the root key is out of memory."""
        return self._keys is None

    @property
    def has_passphrase(self) -> bool:
        """Whether a passphrase, and not a key file, keeps the root key."""
        with self.transaction() as db:
            return rootkey.has_passphrase(db)

    def seal(self, now_ms: int) -> None:
        """Let go of the root key, once the transaction that runs is over."""
        with self.transaction() as db:
            audit.record(db, now_ms, OWNER, "vault_seal", "the vault was sealed")
            self._keys = None

    def unseal(self, now_ms: int, passphrase: str | None) -> None:
        """Take the root key into memory; a wrong passphrase is a VaultError, and audited."""
        try:
            with self.transaction() as db:
                keys = rootkey.recover(db, self.directory, self.vault_id, _proof(db), passphrase)
                audit.record(db, now_ms, OWNER, "vault_unseal", "the vault was unsealed")
        except VaultError as error:
            with self.transaction() as db:
                audit.record(db, now_ms, OWNER, "vault_unseal_denied", str(error))
            raise
        self._keys = keys

    def rekey(self, now_ms: int, passphrase: str | None) -> None:
        """Another root key, kept by a passphrase or, without one, by a key file. No server may have the directory."""
        with locked(self.directory / "init.lock", wait=True):
            new = rootkey.draft(self.directory, passphrase)
            with self.transaction() as db:
                rootkey.replace(db, self.keys, new, self.vault_id, passphrase)
                kept = "a key file" if passphrase is None else "a passphrase"
                audit.record(db, now_ms, OWNER, "vault_rekey", f"new root key, kept by {kept}")
            self._keys = new
            with self.transaction() as db:
                rootkey.settle(db, self.directory, self.vault_id, _proof(db))
            # What the old key had wrapped is still in the log.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Write everything into a new private file, while others go on working."""
        with self._lock:
            migrations.copy(self._db, path)

    def _prepare(self, passphrase: str | None) -> tuple[str, Keyring | None]:
        """Create what is missing, and make sure that key and file belong together."""
        with self.transaction() as db:
            for statement in migrations.statements(VAULT_TABLE, rootkey.TABLES, *TABLES):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {migrations.SCHEMA_VERSION}")
            row = db.execute("SELECT id, root_key_proof FROM vault").fetchone()
            if row is None:
                return self._found(db, passphrase)
            vault_id, proof = str(row["id"]), row["root_key_proof"]
            rootkey.settle(db, self.directory, vault_id, proof)
            if passphrase is None and rootkey.has_passphrase(db):
                return vault_id, None
            return vault_id, rootkey.recover(db, self.directory, vault_id, proof, passphrase)

    def _found(self, db: sqlite3.Connection, passphrase: str | None) -> tuple[str, Keyring]:
        vault_id = new_id("vault_")
        keys = rootkey.establish(db, self.directory, vault_id, passphrase)
        row = (vault_id, keys.proof(vault_id), wall_clock())
        db.execute("INSERT INTO vault (only, id, root_key_proof, created_ms) VALUES (1, ?, ?, ?)", row)
        return vault_id, keys


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


def _connect(path: Path) -> sqlite3.Connection:
    if not os.path.lexists(path):
        create_private(path, b"")
    check_private(path)
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
    except sqlite3.OperationalError:
        db.close()
        raise
    except sqlite3.DatabaseError:
        db.close()
        raise VaultError(f"file {shown(path)} is not a vault's database", "restore it from a backup") from None
    return db


def _proof(db: sqlite3.Connection) -> bytes:
    proof: bytes = db.execute("SELECT root_key_proof FROM vault").fetchone()["root_key_proof"]
    return proof
