"""Checks what a change of the database from outside cannot keep consistent."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from vault import chain, seals
from vault.errors import VaultError

HINT_CHANGED = "find out who could write to vault.db, and compare it with a backup"


class Verification(NamedTuple):
    """What was checked and found intact. The names are those of the JSON output."""

    auditEntries: int
    auditHead: str | None
    entriesOfSealedVault: int | None  # at the end of the log; None if the seals cannot be checked


def verify(db: sqlite3.Connection, known: chain.Head | None, *, is_open: bool) -> Verification:
    """Check the audit log, that it still contains a head that was printed earlier, and the seals. Raises VaultError.

    A sealed vault cannot check seals.
    """
    heads = []
    for head, is_intact in chain.walk(db):
        heads.append(head)
        if not is_intact:
            raise VaultError(f"the audit log was changed at or before entry {head.id}", HINT_CHANGED)
    if known is not None and known not in heads:
        raise VaultError(f"the audit log does not contain the head {known}: it was changed or truncated", HINT_CHANGED)
    changed = seals.find_changed(db)
    if changed is not None:
        raise VaultError(f"{changed} was changed from outside, or while the vault was sealed", HINT_CHANGED)
    newest = str(heads[-1]) if heads else None
    return Verification(len(heads), newest, _unsealed_entries(db, heads) if is_open else None)


def _unsealed_entries(db: sqlite3.Connection, heads: list[chain.Head]) -> int:
    """How many entries at the end of the log were written while the vault was sealed. Raises VaultError."""
    entries = seals.sealed_head(db, heads) if heads else 0
    if entries is None:
        raise VaultError("the audit log was truncated: its newest sealed entry is missing", HINT_CHANGED)
    return entries
