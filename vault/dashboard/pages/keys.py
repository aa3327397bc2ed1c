"""Keys and backups: seal the vault, back it up, verify it, and show its facts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from starlette.responses import Response

import vault
from vault import backup, chain, migrations, verification
from vault.dashboard.web import Page, Visit
from vault.domains import secrets, temporary_secrets, webhooks
from vault.errors import VaultError
from vault.place import command_line
from vault.query import fetch_one

PIECE_BYTES = 64 * 1024
# fmt: off
LIMITS = (
    ("Size of a value",                f"at most {secrets.MAX_VALUE_BYTES:,} bytes"),
    ("Fields of a structured secret",  f"at most {secrets.MAX_FIELDS}"),
    ("Versions of a secret",           f"the last {secrets.MAX_VERSIONS}, and all that were current in 30 days"),
    ("Deleted secrets",                "30 days in the trash"),
    ("One-time links",                 f"at most {temporary_secrets.MAX_VALUE_BYTES:,} bytes, for at most 24 hours"),
    ("Webhooks",                       f"at most {webhooks.MAX_WEBHOOKS}"),
)
# fmt: on


def show(visit: Visit, problem: str = "", found: verification.Verification | None = None) -> Response:
    """The vault's facts, the forms, and the result of a check."""
    store = visit.desk.store
    if store.sealed:
        return visit.go("/unseal")
    with visit.desk.reader() as db:
        created = fetch_one(db, "SELECT created_ms FROM vault")
        head = chain.head(db)
    directory = store.directory.resolve()
    return visit.page(
        "vault.html",
        status=409 if problem else 200,
        problem=problem,
        found=found,
        has_passphrase=store.has_passphrase,
        vault_id=store.vault_id,
        directory=str(directory),
        rekey=command_line(directory, "rekey"),
        verify=command_line(directory, "verify", "--head", str(head)),
        created_ms=created["created_ms"] if created else None,
        size_bytes=(directory / "vault.db").stat().st_size,
        head=str(head) if head else "",
        version=vault.VERSION,
        schema=migrations.SCHEMA_VERSION,
        limits=LIMITS,
    )


def seal(visit: Visit) -> Response:
    """Drop the root key."""
    visit.desk.store.seal(visit.desk.clock(), actor=visit.desk.actor)
    return visit.go("/unseal", "The vault is sealed.")


def verify(visit: Visit) -> Response:
    """Check the log, with the head that was typed, and the seals. Shows the result on the page."""
    try:
        known = chain.parse_head(visit.field("head").strip()) if visit.field("head").strip() else None
    except ValueError:
        return show(visit, "A head is a number, a colon and hexadecimal digits.")
    try:
        with visit.desk.reader() as db:
            found = verification.verify(db, known, is_open=not visit.desk.store.sealed)
    except VaultError as error:
        return show(visit, f"{str(error).capitalize()}: {error.hint}.")
    return show(visit, found=found)


def save(visit: Visit) -> Response:
    """A backup as a file to save. The vault keeps no copy."""
    store = visit.desk.store
    passphrase = None if store.has_passphrase else visit.field("passphrase")
    if passphrase is not None and passphrase != visit.field("again"):
        return show(visit, "The passphrases differ. No backup was made.")
    try:
        pieces = _pieces(_unnamed_backup(visit, passphrase))
    except VaultError as error:
        return show(visit, f"{str(error).capitalize()}: {error.hint}. No backup was made.")
    day = datetime.fromtimestamp(visit.desk.clock() / 1000, timezone.utc).strftime("%Y-%m-%d")
    return visit.download(pieces, "application/octet-stream", f"{store.vault_id}-{day}.backup")


def _unnamed_backup(visit: Visit, passphrase: str | None) -> BinaryIO:
    """An open backup that has no name any more, so that nothing stays on the disk when it is closed."""
    store = visit.desk.store
    with tempfile.TemporaryDirectory(prefix="backup-", dir=store.directory) as directory:
        target = Path(directory) / "backup"
        backup.backup(store, target, visit.desk.clock(), passphrase, actor=visit.desk.actor)
        return open(os.open(target, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


PAGES = (
    Page("GET", "/vault", show),
    Page("POST", "/vault/seal", seal),
    Page("POST", "/vault/verify", verify),
    Page("POST", "/vault/backup", save),
)
