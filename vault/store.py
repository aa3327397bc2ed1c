"""The vault's directory: one SQLite file, one root key, and the locks that keep processes apart.

    vault.db      0600  everything, values encrypted (with vault.db-wal and vault.db-shm beside it while open)
    root.key      0600  64 hex characters, unless a passphrase seals the root key: see `rootkey`
    tls.pem       0600  the certificate for HTTPS: see `certificate`
    tls-port      0600  the port of HTTPS, which agents know: see `server`
    control.sock  0600  the socket for the owner's commands: see `control`
    init.lock     held while the directory is set up and while the root key changes
    server.lock   held by the server

Each process writes through one connection, protected by one lock. Every request is one exclusive transaction that
includes the audit entry and the nonce. It is on disk (synchronous=FULL) before the answer is sent. The owner's commands
run in separate processes and work in the same way. Reading needs neither the connection nor the lock: see `reader`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from vault import audit, migrations, rootkey, seals, wiping
from vault.crypto import Keyring, new_id
from vault.errors import Refusal, SealedDenied, VaultError
from vault.files import check_private, create_private, locked, private_directory, quoted
from vault.readers import Readers
from vault.router import OWNER, Actor, wall_clock

BUSY_TIMEOUT_S = 10.0
# secure_delete overwrites deleted rows and keys wrapped by an old root key instead of only unlinking them.
PRAGMAS: tuple[str, ...] = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "secure_delete=ON",
)
READER_PRAGMAS: tuple[str, ...] = ("query_only=ON", "trusted_schema=OFF")
# If there is always a reader, the log is never emptied. After this many attempts, new readers must wait.
MAX_POSTPONED_WIPES = 1_000
PAUSE_TIMEOUT_S = 1.0

VAULT_TABLE = """
CREATE TABLE IF NOT EXISTS vault (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id TEXT NOT NULL,
    root_key_proof BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
"""


class Store:
    """An open vault, created on first use. Close it, or use it as a context manager.

    `tables` are the SQL scripts that create the tables. `wrapped` lists the columns that the root key encrypts, as in
    `vault.schema`. A new vault with a passphrase is protected by it. An existing one is sealed until the passphrase is
    given here or to `unseal`. `has_server_lock` means that the caller holds server.lock. Raises VaultError.
    """

    def __init__(
        self,
        directory: Path,
        tables: Sequence[str],
        wrapped: Sequence[rootkey.WrappedColumn],
        passphrase: str | None = None,
        *,
        has_server_lock: bool = False,
    ) -> None:
        self.directory = directory
        self._wrapped = wrapped
        self._lock = threading.Lock()
        self._next = threading.Lock()  # held by the one transaction that waits for the lock and is not urgent
        self._readers = Readers(self._connect_reader)
        self._postponed_wipes = 0
        self._checking = threading.Lock()
        self._keys: Keyring | None = None
        private_directory(directory)
        with locked(directory / "init.lock", wait=True):
            self._db = _connect(directory / "vault.db")
            # A server that was killed may have left deleted values in the log.
            self._db.has_deleted_values = has_server_lock
            try:
                migrations.migrate(self._db, directory, has_server_lock=has_server_lock)
                self.vault_id, self._keys = self._prepare(tables, passphrase)
                if not self.sealed and not self.keys.can_seal:
                    with self.transaction() as db:
                        self._start_seals(db, wall_clock())
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file after the current transaction and the current readers have ended."""
        self._readers.close()
        with self._lock:
            self._db.close()
            self._db.has_deleted_values = False  # a reader that ends later must not try to wipe a closed file

    @contextmanager
    def transaction(self, *, urgent: bool = False) -> Iterator[sqlite3.Connection]:
        """Exclusive use of the connection. Commits at the end of the block, or rolls back after an exception.

        An urgent transaction does not wait for all others that came before it: only one of them waits for the lock.
        """
        with nullcontext() if urgent else self._next:
            self._lock.acquire()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back already if the disk is full.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._wipe_log()
        finally:
            self._lock.release()

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection that sees one state, and waits for no transaction and holds up none.

        It sees every transaction that was committed before the block began. Fetch all rows before the block ends. The
        block must not wait for a transaction, since a transaction may wait for readers.
        """
        try:
            with self._readers.snapshot() as db:
                yield db
        finally:
            # A transaction that runs now wipes the log itself when it has ended.
            if self._db.has_deleted_values and self._lock.acquire(blocking=False):
                try:
                    self._wipe_log()
                finally:
                    self._lock.release()

    def _wipe_log(self) -> None:
        """Empty the log if it has to be. It waits for readers only after it was postponed often. Needs the lock."""
        if not self._db.has_deleted_values:
            return
        must_wait = self._postponed_wipes >= MAX_POSTPONED_WIPES
        with self._readers.paused(PAUSE_TIMEOUT_S if must_wait else 0.0) as nobody_reads:
            if nobody_reads:
                wiping.wipe_log(self._db)
        self._postponed_wipes = 0 if nobody_reads or must_wait else self._postponed_wipes + 1

    @property
    def keys(self) -> Keyring:
        """The keys of the vault. Raises SealedDenied while it is sealed."""
        if self._keys is None:
            raise SealedDenied
        return self._keys

    @property
    def sealed(self) -> bool:
        """Whether the root key is absent from memory."""
        return self._keys is None

    @property
    def has_passphrase(self) -> bool:
        """Whether a passphrase protects the root key, instead of a key file."""
        with self.reader() as db:
            return rootkey.has_passphrase(db)

    def seal(self, now_ms: int, *, actor: Actor = OWNER) -> None:
        """Drop the root key after the current transaction has ended."""
        with self.transaction() as db:
            audit.record(db, now_ms, actor, "vault_seal", "the vault was sealed")
            self._keys = None

    def unseal(self, now_ms: int, passphrase: str | None, *, actor: Actor = OWNER) -> None:
        """Load the root key. Raises VaultError for a wrong passphrase, which is audited."""
        with self.transaction() as db:
            seal, proof = rootkey.read_seal(db), _proof(db)
        try:
            keys = rootkey.load(seal, self.directory, self.vault_id, proof, passphrase)
        except VaultError as error:
            with self.transaction() as db:
                audit.record(db, now_ms, actor, "vault_unseal_denied", str(error))
            raise
        with self.transaction() as db:
            audit.record(db, now_ms, actor, "vault_unseal", "the vault was unsealed")
            self._keys = keys
            if not keys.can_seal:
                self._start_seals(db, now_ms)

    def is_passphrase(self, passphrase: str) -> bool:
        """Whether this is the vault's passphrase. Slow, and takes as much memory as unsealing: one at a time."""
        with self.transaction() as db:
            seal, proof = rootkey.read_seal(db), _proof(db)
        if seal is None:
            return False
        with self._checking:
            try:
                rootkey.load(seal, self.directory, self.vault_id, proof, passphrase)
            except VaultError:
                return False
        return True

    def rekey(self, now_ms: int, passphrase: str | None) -> None:
        """Change the root key, protected by a passphrase or, without one, by a key file. The server must be stopped."""
        with locked(self.directory / "init.lock", wait=True):
            new = rootkey.prepare_new(self.directory, passphrase)
            seal = None if passphrase is None else rootkey.new_seal(new, self.vault_id, passphrase)
            with self.transaction() as db:
                rootkey.rewrap(db, self._wrapped, self.keys, new)
                rootkey.store_protection(db, new, self.vault_id, seal)
                kept = "a key file" if passphrase is None else "a passphrase"
                audit.record(db, now_ms, OWNER, "vault_rekey", f"new root key, kept by {kept}")
            self._keys = new
            with self.transaction() as db:
                rootkey.reconcile_files(db, self.directory, self.vault_id, _proof(db))
                wiping.wipe_log_after_commit(db)  # it contains keys wrapped by the old root key

    def copy_to(self, path: Path) -> None:
        """Copy the whole database into a new private file, as it was after some transaction."""
        with self.reader() as db:
            migrations.copy(db, path)

    def _prepare(self, tables: Sequence[str], passphrase: str | None) -> tuple[str, Keyring | None]:
        """Create missing tables, and check that the root key belongs to the database."""
        with self.transaction() as db:
            for statement in migrations.statements(VAULT_TABLE, rootkey.TABLES, *tables):
                db.execute(statement)
            # Only if it is another one: reading commands must work on a full disk.
            if migrations.version(db) != migrations.SCHEMA_VERSION:
                db.execute(f"PRAGMA user_version = {migrations.SCHEMA_VERSION}")
            seals.install(db, self._seal_row)
            row = db.execute("SELECT id, root_key_proof FROM vault").fetchone()
            if row is None:
                return self._create(db, passphrase)
            vault_id, proof = str(row["id"]), row["root_key_proof"]
            rootkey.reconcile_files(db, self.directory, vault_id, proof)
            seal = rootkey.read_seal(db)
        if passphrase is None and seal is not None:
            return vault_id, None
        return vault_id, rootkey.load(seal, self.directory, vault_id, proof, passphrase)

    def _create(self, db: sqlite3.Connection, passphrase: str | None) -> tuple[str, Keyring]:
        vault_id = new_id("vault_")
        keys = rootkey.create(db, self.directory, vault_id, passphrase)
        keys.make_seal_key()
        row = (vault_id, keys.proof(vault_id), wall_clock())
        db.execute("INSERT INTO vault (only, id, root_key_proof, created_ms) VALUES (1, ?, ?, ?)", row)
        return vault_id, keys

    def _connect_reader(self) -> sqlite3.Connection:
        path = self.directory / "vault.db"
        db = _connection(path)
        _configure(db, READER_PRAGMAS)
        seals.install_function(db, self._seal_row)
        return db

    def _seal_row(self, *parts: object) -> bytes | None:
        return None if self._keys is None else self._keys.seal_row(parts)

    def _start_seals(self, db: sqlite3.Connection, now_ms: int) -> None:
        """Seal the rows of a vault of an earlier version as they are."""
        self.keys.make_seal_key()
        seals.sign_all(db)
        db.execute("UPDATE vault SET root_key_proof = ?", (self.keys.proof(self.vault_id),))
        audit.record(db, now_ms, OWNER, "integrity_start", "the rows of an earlier version were sealed as they were")


@contextmanager
def savepoint(db: sqlite3.Connection) -> Iterator[None]:
    """Roll back only the changes of the block if it raises, unless a Refusal asks to keep them."""
    db.execute("SAVEPOINT effect")
    try:
        yield
    except BaseException as error:
        if db.in_transaction and not (isinstance(error, Refusal) and error.keep_changes):
            db.execute("ROLLBACK TO effect")
        raise
    db.execute("RELEASE effect")


def _connect(path: Path) -> wiping.Connection:
    if not os.path.lexists(path):
        create_private(path, b"")
    check_private(path)
    db = _connection(path)
    try:
        _configure(db, PRAGMAS)
    except sqlite3.OperationalError:
        db.close()
        raise
    except sqlite3.DatabaseError:
        db.close()
        raise VaultError(f"file {quoted(path)} is not a vault's database", "restore it from a backup") from None
    return db


def _connection(path: Path) -> wiping.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=wiping.Connection
    )


def _configure(db: sqlite3.Connection, pragmas: Sequence[str]) -> None:
    db.row_factory = sqlite3.Row
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}")


def _proof(db: sqlite3.Connection) -> bytes:
    proof: bytes = db.execute("SELECT root_key_proof FROM vault").fetchone()["root_key_proof"]
    return proof
