"""Checks what a change of the database from outside cannot keep consistent."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from vault import chain
from vault.errors import VaultError

HINT_CHANGED = "find out who could write to vault.db, and compare it with a backup"


class Verification(NamedTuple):
    """What was checked and found intact. The names are those of the JSON output."""

    auditEntries: int
    auditHead: str | None


def verify(db: sqlite3.Connection, known: chain.Head | None) -> Verification:
    """Check the audit log, and that it still contains a head that was printed earlier. Raises VaultError."""
    entries, head, is_known = 0, None, known is None
    for head, is_intact in chain.walk(db):
        entries += 1
        if not is_intact:
            raise VaultError(f"the audit log was changed at or before entry {head.id}", HINT_CHANGED)
        is_known = is_known or head == known
    if not is_known:
        raise VaultError(f"the audit log does not contain the head {known}: it was changed or cut", HINT_CHANGED)
    return Verification(entries, str(head) if head else None)
