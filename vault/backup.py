"""Backup and restore: the whole vault in one file, its root key in it under a passphrase.

A backup is made while the vault is at work. That of a vault with a passphrase opens with that passphrase; for a vault
with a key file one is chosen, because root key and values in one place would be as good as plaintext.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vault import audit, migrations, rootkey
from vault.calls import OWNER
from vault.errors import VaultError
from vault.files import private_directory, shown
from vault.store import Store


def backup(store: Store, target: Path, now_ms: int, passphrase: str | None) -> None:
    """Write everything into a new file; `passphrase` is for a vault that has a key file, and for no other."""
    if store.has_passphrase and passphrase is not None:
        raise VaultError("the vault's own passphrase opens the backup", "leave the passphrase away")
    if not store.has_passphrase:
        rootkey.check_passphrase(passphrase or "")
    with _reserved(target):
        with store.transaction() as db:
            audit.record(db, now_ms, OWNER, "vault_backup", "the vault was backed up")
        draft = target.with_name(target.name + ".sealing")
        store.copy_to(draft)
        if passphrase is not None:
            with closing(_opened(draft)) as db, db:
                rootkey.put_under(db, store.keys, store.vault_id, passphrase)
        draft.rename(target)


def restore(source: Path, directory: Path, now_ms: int) -> str:
    """Make a new vault of a backup; answers its id. It starts sealed."""
    with closing(_readable(source)) as db:
        _check(db, source)
        private_directory(directory)
        if any(directory.iterdir()):
            raise VaultError(f"directory {shown(directory)} is not empty", "name a new one with --dir")
        migrations.copy(db, directory / "vault.db")
    with Store(directory) as store:
        with store.transaction() as restored:
            audit.record(restored, now_ms, OWNER, "vault_restore", "the vault was restored from a backup")
        return store.vault_id


@contextmanager
def _reserved(target: Path) -> Iterator[None]:
    """Take the name, so that nothing is overwritten, and give it back if the block fails."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        raise VaultError(f"file {shown(target)} exists", "name a new one: no backup is overwritten") from None
    except OSError as error:
        reason = (error.strerror or "no reason").lower()
        raise VaultError(f"file {shown(target)} cannot be made: {reason}", "name another file") from None
    try:
        yield
    except BaseException:
        target.unlink()
        for suffix in (".sealing", ".sealing.draft"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        raise


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous=FULL")
    return db


def _readable(source: Path) -> sqlite3.Connection:
    if not source.is_file():
        raise VaultError(f"there is no file {shown(source)}", "name a backup")
    db = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    db.row_factory = sqlite3.Row
    return db


def _check(db: sqlite3.Connection, source: Path) -> None:
    """Refuse what is damaged, what is no vault, and a vault whose root key is not in it."""
    try:
        sound = db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        complete = bool(db.execute("SELECT 1 FROM vault JOIN passphrase_seal USING (only)").fetchone())
    except sqlite3.DatabaseError:
        sound = complete = False
    if not sound or not complete:
        raise VaultError(f"file {shown(source)} is not a sound backup", "name another one")
