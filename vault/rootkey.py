"""Where the root key rests, and how another takes its place.

    key file     root.key, 0600: whoever reads it and vault.db has every value; the vault is open as soon as it serves
    passphrase   a row of vault.db: the root key under Argon2id of the passphrase; the vault starts sealed

A new root key is drafted beside the old one, everything that the old one wraps is wrapped anew in one transaction, and
then the files are settled. Whoever dies on the way leaves a vault that opens: `settle` tells by the proof in the
database which of the two keys counts, finishes the work and removes the other.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from cryptography.exceptions import InvalidTag

from vault.crypto import KEY_BYTES, Keyring, Stretch
from vault.errors import VaultError
from vault.files import create_private, read_private, shown, sync_directory
from vault.surface import WRAPPED

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
DRAFT_FILE = "root.key.next"

SALT_BYTES = 16
MEMORY_KIB, ITERATIONS, LANES = 64 * 1024, 3, 4  # the second choice of RFC 9106, for machines that do other things too
# What a row may ask for: a changed one must not make the vault take all memory or run all day.
MAX_MEMORY_KIB, MAX_ITERATIONS, MAX_LANES = 1024 * 1024, 32, 16
PASSPHRASE_MIN, PASSPHRASE_MAX = 12, 1024  # characters


def check_passphrase(passphrase: str) -> None:
    """Refuse what is too short to withstand guessing by somebody who has the file."""
    if not PASSPHRASE_MIN <= len(passphrase) <= PASSPHRASE_MAX:
        limits = f"{PASSPHRASE_MIN} to {PASSPHRASE_MAX} characters"
        raise VaultError(f"the passphrase must have {limits}", "several words that belong to no sentence do well")


def has_passphrase(db: sqlite3.Connection) -> bool:
    """Whether the root key is sealed by a passphrase."""
    return _seal_row(db) is not None


def establish(db: sqlite3.Connection, directory: Path, vault_id: str, passphrase: str | None) -> Keyring:
    """The root key of a new vault."""
    path = directory / KEY_FILE
    if passphrase is None:
        if not os.path.lexists(path):
            _write(path, os.urandom(KEY_BYTES))
        return Keyring(_read(path))
    if os.path.lexists(path):
        raise VaultError(f"there is a root key already: {shown(path)}", "name an empty directory with --dir")
    keyring = Keyring(os.urandom(KEY_BYTES))
    put_under(db, keyring, vault_id, passphrase)
    return keyring


def recover(db: sqlite3.Connection, directory: Path, vault_id: str, proof: bytes, passphrase: str | None) -> Keyring:
    """The root key of a vault that exists."""
    row = _seal_row(db)
    if row is None:
        return _from_file(directory / KEY_FILE, vault_id, proof, passphrase)
    if passphrase is None:
        raise VaultError("the vault is sealed by a passphrase", "give it with --passphrase-file, or use unseal")
    keyring = _from_row(row, vault_id, passphrase)
    if not keyring.fits(vault_id, proof):
        raise VaultError("the sealed root key belongs to another vault", "restore vault.db from a backup")
    return keyring


def put_under(db: sqlite3.Connection, keyring: Keyring, vault_id: str, passphrase: str) -> None:
    """Keep the root key sealed by a passphrase from now on."""
    check_passphrase(passphrase)
    stretch = Stretch(os.urandom(SALT_BYTES), MEMORY_KIB, ITERATIONS, LANES)
    db.execute(
        "INSERT OR REPLACE INTO passphrase_seal (only, salt, memory_kib, iterations, lanes, sealed_key)"
        " VALUES (1, ?, ?, ?, ?, ?)",
        (*stretch, keyring.under(passphrase, stretch, vault_id)),
    )


def draft(directory: Path, passphrase: str | None) -> Keyring:
    """A new root key; one that will live in a file is on disk before anything is wrapped by it."""
    root_key = os.urandom(KEY_BYTES)
    if passphrase is None:
        _write(directory / DRAFT_FILE, root_key)
    else:
        check_passphrase(passphrase)
    return Keyring(root_key)


def replace(db: sqlite3.Connection, old: Keyring, new: Keyring, vault_id: str, passphrase: str | None) -> None:
    """Within one transaction: wrap everything by the new root key, and keep that one as told."""
    for table, column, kind in WRAPPED:
        for row in db.execute(f"SELECT id, {column} AS wrapped FROM {table} WHERE {column} IS NOT NULL").fetchall():
            label = f"{kind}:{row['id']}"
            wrapped = new.wrap(label, old.unwrap(label, row["wrapped"]))
            db.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (wrapped, row["id"]))
    db.execute("UPDATE vault SET root_key_proof = ?", (new.proof(vault_id),))
    if passphrase is None:
        db.execute("DELETE FROM passphrase_seal")
    else:
        put_under(db, new, vault_id, passphrase)


def settle(db: sqlite3.Connection, directory: Path, vault_id: str, proof: bytes) -> None:
    """Bring the files in step with the database, after a change of the root key or after one that was interrupted."""
    path, drafted = directory / KEY_FILE, directory / DRAFT_FILE
    in_file = not has_passphrase(db)
    drafted.with_name(drafted.name + ".new").unlink(missing_ok=True)
    if os.path.lexists(drafted):
        if in_file and Keyring(_read(drafted)).fits(vault_id, proof):
            drafted.rename(path)
        else:
            drafted.unlink()
        sync_directory(directory)
    if not in_file and os.path.lexists(path):
        path.unlink()
        sync_directory(directory)


def _from_file(path: Path, vault_id: str, proof: bytes, passphrase: str | None) -> Keyring:
    if passphrase is not None:
        raise VaultError("the vault has a key file and no passphrase", "leave the passphrase away, or use rekey")
    if not os.path.lexists(path):
        raise VaultError(f"root key {shown(path)} is missing", "restore it: nothing else opens vault.db")
    keyring = Keyring(_read(path))
    if not keyring.fits(vault_id, proof):
        raise VaultError(f"root key {shown(path)} belongs to another vault", "restore the key of this one")
    return keyring


def _from_row(row: sqlite3.Row, vault_id: str, passphrase: str) -> Keyring:
    stretch = Stretch(row["salt"], row["memory_kib"], row["iterations"], row["lanes"])
    if stretch.memory_kib > MAX_MEMORY_KIB or stretch.iterations > MAX_ITERATIONS or stretch.lanes > MAX_LANES:
        raise VaultError("the sealed root key is damaged", "restore vault.db from a backup")
    try:
        return Keyring.from_passphrase(passphrase, stretch, vault_id, row["sealed_key"])
    except InvalidTag:
        raise VaultError("the passphrase is wrong", "try again; there is no other way in") from None


def _seal_row(db: sqlite3.Connection) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM passphrase_seal").fetchone()
    return row


def _write(path: Path, root_key: bytes) -> None:
    create_private(path, root_key.hex().encode() + b"\n")


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError(f"root key {shown(path)} is damaged", "restore it from a backup: it holds 64 hex characters")
    return key
