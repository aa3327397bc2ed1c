"""Backup and restore: the whole vault in one file, with its root key encrypted under a passphrase.

A backup does not interrupt the server. The backup of a vault with a passphrase opens with that passphrase. A vault with
a key file needs a passphrase for the backup, because storing the root key next to the values would expose them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vault import audit, chain, migrations, rootkey
from vault.errors import VaultError
from vault.files import private_directory, quoted, sync_directory
from vault.router import OWNER, Actor
from vault.schema import open_store
from vault.store import Store


def backup(store: Store, target: Path, now_ms: int, passphrase: str | None, *, actor: Actor = OWNER) -> str:
    """Write the vault to a new file, and return the head of its audit log. Raises VaultError.

    Only a vault with a key file takes a passphrase.
    """
    if store.has_passphrase and passphrase is not None:
        raise VaultError("the vault's own passphrase opens the backup", "omit the passphrase")
    if not store.has_passphrase:
        rootkey.check_passphrase(passphrase or "")
    with _reserved(target):
        with store.transaction() as db:
            audit.record(db, now_ms, actor, "vault_backup", "the vault was backed up")
            head = str(chain.head(db))
        draft = target.with_name(target.name + ".sealing")
        store.copy_to(draft)
        if passphrase is not None:
            with closing(_open_for_writing(draft)) as db, db:
                rootkey.store_seal(db, rootkey.new_seal(store.keys, store.vault_id, passphrase))
        draft.rename(target)
        sync_directory(target.absolute().parent)
    return head


def restore(source: Path, directory: Path, now_ms: int) -> str:
    """Create a sealed vault from a backup, and return its id. Raises VaultError."""
    with closing(_open_read_only(source)) as db:
        _check(db, source)
        private_directory(directory)
        if any(directory.iterdir()):
            raise VaultError(f"directory {quoted(directory)} is not empty", "name a new one with --dir")
        with _emptied_after_failure(directory):
            migrations.copy(db, directory / "vault.db")
            with open_store(directory) as store:
                with store.transaction() as restored:
                    audit.record(restored, now_ms, OWNER, "vault_restore", "the vault was restored from a backup")
                return store.vault_id


@contextmanager
def _reserved(target: Path) -> Iterator[None]:
    """Create the file, so that nothing is overwritten, and delete it if the block fails. Raises VaultError."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        raise VaultError(f"file {quoted(target)} exists", "name a new file: backups are never overwritten") from None
    except OSError as error:
        reason = (error.strerror or "no reason").lower()
        raise VaultError(f"file {quoted(target)} cannot be created: {reason}", "name another file") from None
    try:
        yield
    except BaseException:
        target.unlink()
        for suffix in (".sealing", ".sealing.draft"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        raise


@contextmanager
def _emptied_after_failure(directory: Path) -> Iterator[None]:
    """Delete the files of a directory that was empty if the block fails, so that it can be tried again."""
    try:
        yield
    except BaseException:
        for path in directory.iterdir():
            path.unlink()
        raise


def _open_for_writing(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous=FULL")
    return db


def _open_read_only(source: Path) -> sqlite3.Connection:
    if not source.is_file():
        raise VaultError(f"there is no file {quoted(source)}", "name a backup")
    db = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    db.row_factory = sqlite3.Row
    return db


def _check(db: sqlite3.Connection, source: Path) -> None:
    """Raise VaultError unless the file is an intact vault that contains its root key."""
    try:
        intact = db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        complete = bool(db.execute("SELECT 1 FROM vault JOIN passphrase_seal USING (only)").fetchone())
    except sqlite3.DatabaseError:
        intact = complete = False
    if not intact or not complete:
        raise VaultError(f"file {quoted(source)} is not an intact backup", "name another one")
