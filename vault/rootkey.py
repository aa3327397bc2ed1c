"""Stores, loads and replaces the root key.

    key file     root.key, 0600: it decrypts vault.db, and the vault is open as soon as the server runs
    passphrase   a row of vault.db holds the root key, encrypted with Argon2id; the vault starts sealed

A change of the root key writes the new key next to the old one, encrypts all wrapped columns again in one transaction,
and then replaces the file. A crash at any point leaves a vault that opens: the proof in the database tells
`reconcile_files` which of the two keys is current. It finishes the change and removes the other key.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Optional

from cryptography.exceptions import InvalidTag

from vault.crypto import KEY_BYTES, Argon2Parameters, Keyring
from vault.errors import VaultError
from vault.files import create_private, quoted, read_private, sync_directory
from vault.query import fetch_one

TABLES = """
CREATE TABLE IF NOT EXISTS passphrase_seal (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    salt BLOB NOT NULL,
    memory_kib INTEGER NOT NULL,
    iterations INTEGER NOT NULL,
    lanes INTEGER NOT NULL,
    sealed_key BLOB NOT NULL
);
"""

KEY_FILE = "root.key"
NEW_KEY_FILE = "root.key.next"

SALT_BYTES = 16
MEMORY_KIB, ITERATIONS, LANES = 64 * 1024, 3, 4  # the second recommended option of RFC 9106
# Limits for stored parameters: a manipulated row must not exhaust memory or time.
MAX_MEMORY_KIB, MAX_ITERATIONS, MAX_LANES = 1024 * 1024, 32, 16
PASSPHRASE_MIN, PASSPHRASE_MAX = 12, 1024  # characters
MIN_DIFFERENT = 5  # characters

WrappedColumn = tuple[str, str, str]  # table, column, and the kind in the label `kind:id`
Seal = Optional[sqlite3.Row]


class NewSeal(NamedTuple):
    """A root key that is encrypted under a passphrase."""

    parameters: Argon2Parameters
    sealed_key: bytes


def check_passphrase(passphrase: str) -> None:
    """Raise VaultError for a passphrase that is too short or too repetitive for an offline attack, or too long."""
    if not PASSPHRASE_MIN <= len(passphrase) <= PASSPHRASE_MAX:
        limits = f"{PASSPHRASE_MIN} to {PASSPHRASE_MAX} characters"
        raise VaultError(f"the passphrase must have {limits}", "use several unrelated words")
    if len(set(passphrase.casefold())) < MIN_DIFFERENT:
        raise VaultError(
            f"the passphrase must have at least {MIN_DIFFERENT} different characters", "use several unrelated words"
        )


def has_passphrase(db: sqlite3.Connection) -> bool:
    """Whether a passphrase protects the root key."""
    return read_seal(db) is not None


def read_seal(db: sqlite3.Connection) -> Seal:
    """The root key as a passphrase protects it, or None for a vault with a key file."""
    return fetch_one(db, "SELECT * FROM passphrase_seal")


def create(db: sqlite3.Connection, directory: Path, vault_id: str, passphrase: str | None) -> Keyring:
    """Create the root key of a new vault. Raises VaultError."""
    path = directory / KEY_FILE
    if passphrase is None:
        if not os.path.lexists(path):
            _write(path, os.urandom(KEY_BYTES))
        return Keyring(_read(path))
    if os.path.lexists(path):
        raise VaultError(f"a root key already exists: {quoted(path)}", "name an empty directory with --dir")
    keyring = Keyring(os.urandom(KEY_BYTES))
    store_seal(db, new_seal(keyring, vault_id, passphrase))
    return keyring


def load(seal: Seal, directory: Path, vault_id: str, proof: bytes, passphrase: str | None) -> Keyring:
    """Load the root key of an existing vault. Slow with a passphrase: call it outside transactions. Raises VaultError.

    `seal` is the result of `read_seal`.
    """
    if seal is None:
        return _from_file(directory / KEY_FILE, vault_id, proof, passphrase)
    if passphrase is None:
        raise VaultError("the vault is sealed by a passphrase", "pass it with --passphrase-file, or use unseal")
    keyring = _from_row(seal, vault_id, passphrase)
    if not keyring.matches(vault_id, proof):
        raise VaultError("the sealed root key belongs to another vault", "restore vault.db from a backup")
    return keyring


def new_seal(keyring: Keyring, vault_id: str, passphrase: str) -> NewSeal:
    """Encrypt the root key under a passphrase. Slow: call it outside transactions. Raises VaultError."""
    check_passphrase(passphrase)
    parameters = Argon2Parameters(os.urandom(SALT_BYTES), MEMORY_KIB, ITERATIONS, LANES)
    return NewSeal(parameters, keyring.encrypt_root_key(passphrase, parameters, vault_id))


def store_seal(db: sqlite3.Connection, seal: NewSeal) -> None:
    """Store the encrypted root key."""
    db.execute(
        "INSERT OR REPLACE INTO passphrase_seal (only, salt, memory_kib, iterations, lanes, sealed_key)"
        " VALUES (1, ?, ?, ?, ?, ?)",
        (*seal.parameters, seal.sealed_key),
    )


def prepare_new(directory: Path, passphrase: str | None) -> Keyring:
    """A new root key. Without a passphrase it is written to disk before anything is encrypted with it."""
    root_key = os.urandom(KEY_BYTES)
    if passphrase is None:
        _write(directory / NEW_KEY_FILE, root_key)
    else:
        check_passphrase(passphrase)
    return Keyring(root_key)


def rewrap(db: sqlite3.Connection, columns: Iterable[WrappedColumn], old: Keyring, new: Keyring) -> None:
    """Encrypt every wrapped column with the new root key. Must run inside a transaction."""
    new.keep_seals_of(old)
    for table, column, kind in columns:
        for row in db.execute(f"SELECT id, {column} AS wrapped FROM {table} WHERE {column} IS NOT NULL").fetchall():
            label = f"{kind}:{row['id']}"
            try:
                wrapped = new.wrap(label, old.unwrap(label, row["wrapped"]))
            except InvalidTag:
                complaint = f"{column} of {table} {row['id']} was changed from outside and does not decrypt"
                raise VaultError(complaint, "restore vault.db from a backup") from None
            db.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (wrapped, row["id"]))


def store_protection(db: sqlite3.Connection, keyring: Keyring, vault_id: str, seal: NewSeal | None) -> None:
    """Make this the current root key, protected by the seal or, without one, by the key file."""
    db.execute("UPDATE vault SET root_key_proof = ?", (keyring.proof(vault_id),))
    if seal is None:
        db.execute("DELETE FROM passphrase_seal")
    else:
        store_seal(db, seal)


def reconcile_files(db: sqlite3.Connection, directory: Path, vault_id: str, proof: bytes) -> None:
    """Make the key files match the database after a complete or interrupted change of the root key."""
    path, new_path = directory / KEY_FILE, directory / NEW_KEY_FILE
    in_file = not has_passphrase(db)
    new_path.with_name(new_path.name + ".new").unlink(missing_ok=True)
    if os.path.lexists(new_path):
        if in_file and Keyring(_read(new_path)).matches(vault_id, proof):
            new_path.rename(path)
        else:
            new_path.unlink()
        sync_directory(directory)
    if not in_file and os.path.lexists(path):
        path.unlink()
        sync_directory(directory)


def _from_file(path: Path, vault_id: str, proof: bytes, passphrase: str | None) -> Keyring:
    if passphrase is not None:
        raise VaultError("the vault has a key file and no passphrase", "omit the passphrase, or use rekey")
    if not os.path.lexists(path):
        raise VaultError(f"root key {quoted(path)} is missing", "restore it: vault.db cannot be opened without it")
    keyring = Keyring(_read(path))
    if not keyring.matches(vault_id, proof):
        raise VaultError(f"root key {quoted(path)} belongs to another vault", "restore the key of this one")
    return keyring


def _from_row(row: sqlite3.Row, vault_id: str, passphrase: str) -> Keyring:
    parameters = Argon2Parameters(row["salt"], row["memory_kib"], row["iterations"], row["lanes"])
    damaged = VaultError("the sealed root key is damaged", "restore vault.db from a backup")
    if parameters.memory_kib > MAX_MEMORY_KIB or parameters.iterations > MAX_ITERATIONS or parameters.lanes > MAX_LANES:
        raise damaged
    try:
        return Keyring.from_passphrase(passphrase, parameters, vault_id, row["sealed_key"])
    except InvalidTag:
        raise VaultError("the passphrase is wrong", "try again; the vault cannot be opened without it") from None
    except ValueError:  # Argon2id does not accept the parameters
        raise damaged from None


def _write(path: Path, root_key: bytes) -> None:
    create_private(path, root_key.hex().encode() + b"\n")


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError(f"root key {quoted(path)} is damaged", "restore it from a backup: it holds 64 hex characters")
    return key
