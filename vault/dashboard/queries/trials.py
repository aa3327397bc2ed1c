"""Whether a machine could read a secret now. It runs the real read and undoes it all: no entry, no count, no freeze.

trials.read(desk, secret_id, machine_id, "203.0.113.7")      # Trial(passes=False, axis="timeWindow", ...)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from vault import gate
from vault.desk import Desk
from vault.domains import machine_reads, machines
from vault.errors import ReadDenied, Refusal, Tampered

AXES: Mapping[str, str] = {
    "ttlExpiresAt": "the policy's time is over",
    "ttlMaxReads": "the secret was read as often as the policy allows in total",
    "timeWindow": "it is outside the policy's hours",
    "ipAllowlist": "the address is not on the policy's list",
    "maxReadsPerMinute": "the secret was read as often as the policy allows in a minute",
    "maxReadsPerDay": "the secret was read as often as the policy allows in a day",
    "coSign": "no other machine has asked for the same secret within the policy's time",
}
FREEZES = "SELECT p.id, p.name FROM project_freezes f JOIN projects p ON p.id = f.project_id ORDER BY p.name, p.id"


class Trial(NamedTuple):
    """What would happen. `axis` is the condition of the policy that refuses; `freezes` are names of projects."""

    passes: bool
    reason: str = ""
    axis: str | None = None
    freezes: tuple[str, ...] = ()


class _Undo(Exception):
    """Rolls the transaction back."""


def read(desk: Desk, secret_id: str, machine_id: str, source_ip: str | None) -> Trial:
    """Try a read of one secret. Changes nothing. Raises Refusal for a machine that does not exist."""
    found: list[Trial] = []
    with suppress(_Undo), desk.transaction() as db:
        found.append(_try(desk, db, secret_id, machine_id, source_ip))
        raise _Undo
    return found[0]


def _try(desk: Desk, db: sqlite3.Connection, secret_id: str, machine_id: str, source_ip: str | None) -> Trial:
    machine = machines.find(db, machine_id)
    if machine is None:
        raise Refusal(404, "no such machine")
    owner = desk.as_call(db, params={"secretId": secret_id})
    before, refusal = dict(map(tuple, db.execute(FREEZES))), None
    try:
        gate.check_machine(db, machine, source_ip, owner.now_ms)
        machine_reads.read_one(replace(owner, caller=machine, source_ip=source_ip))
    except Refusal as error:
        refusal = error
    freezes = tuple(name for project_id, name in db.execute(FREEZES) if project_id not in before)
    if refusal is None:
        return Trial(True, freezes=freezes)
    axis = refusal.axis if isinstance(refusal, ReadDenied) else None
    reason = refusal.what if isinstance(refusal, Tampered) else AXES[axis] if axis else str(refusal)
    return Trial(False, reason, axis, freezes)
