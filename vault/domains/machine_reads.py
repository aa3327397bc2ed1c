"""The routes of machines: read, list, export and poll. The JSON formats are those of the vendor's client.

A read is checked in this order: the gate (signature, state, IP allowlist), the existence of the secret, membership in
its project, the grant, a freeze by a canary, and the policy. A denied read is audited with the secret's id.

`poll` answers immediately. Clients do not send versions, so the vault stores for each machine which version of a
watched secret it has: the version it last read, or the current version at its first poll. A newer version is reported
as `changed` at every poll until the machine has read it, because an answer may get lost and a read may be denied.
Processes that share an identity also share this state, so each process needs its own identity.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Callable

from vault import audit, seals
from vault.domains import canaries, machines, policies, secrets
from vault.errors import Denied, ReadDenied, Refusal, Tampered
from vault.inputs import text, text_list
from vault.query import fetch_one
from vault.router import Call, Deferred, Route

TABLES = """
CREATE TABLE IF NOT EXISTS machine_versions (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
CREATE INDEX IF NOT EXISTS machine_versions_by_secret ON machine_versions (secret_id);
"""

# The order must not depend on the kind: a machine must not be able to tell a canary from another secret.
OF_MACHINE = """
JOIN grants g ON g.secret_id = s.id AND g.machine_id = :machine
JOIN project_machines m ON m.project_id = s.project_id AND m.machine_id = :machine
"""
GRANTED = secrets.SELECT.replace("WHERE", OF_MACHINE + "WHERE") + "{} ORDER BY s.created_ms, s.id"
OF_PROJECT = "AND +s.project_id = :project"  # by the grants, not by all secrets of the project

# A transaction reads or polls at most this many secrets, because other requests wait for it.
READ_AT_ONCE, WATCHED_AT_ONCE = 10, 50
PAUSE_S = 0.001  # after each such transaction, for waiting requests


def read_one(call: Call) -> object:
    """Read the value of one secret. A machine of the project that asks for a canary without a grant triggers it."""
    try:
        secret = _require_granted(call, call.params["secretId"])
    except ReadDenied as denied:
        denied.keep_changes = _trigger_without_grant(call, denied)
        raise
    return {"value": _read(call, secret)}


def list_all(call: Call) -> object:
    """The secrets that are granted to the machine, in all of its projects or in one."""
    return {"secrets": [_to_json(secret) for secret in _all_granted(call)]}


def export(call: Call) -> object:
    """The granted secrets with their values, except those that a freeze or a policy forbids, or that do not decrypt.

    Canaries are read first, so that an intruder who exports everything gets no other value of a frozen project.
    """
    granted = _all_granted(call)
    values: dict[str, str] = {}
    for secret in granted:
        if secret["kind"] == "canary":
            _export_one(call, secret["id"], values)
    others = [secret["id"] for secret in granted if secret["kind"] != "canary"]

    def answer(_call: Call, _result: object = None) -> object:
        rows = [{**_to_json(secret), "value": values[secret["id"]]} for secret in granted if secret["id"] in values]
        return {"secrets": rows}

    export_one = partial(_export_one, values=values)
    return _in_transactions(call, others, READ_AT_ONCE, export_one, answer)


def poll(call: Call) -> object:
    """Which of the watched secrets have a newer version, are deleted, or are not granted to the machine."""
    changes: dict[str, object] = {}

    def look(batch: Call, secret_id: str) -> None:
        status = _change(batch, secret_id)
        if status is not None:
            changes[secret_id] = {"status": status}

    def answer(_call: Call, _result: object = None) -> object:
        return {"changes": changes}

    return _in_transactions(call, list(dict.fromkeys(call.body["watch"])), WATCHED_AT_ONCE, look, answer)


def _in_transactions(
    call: Call,
    secret_ids: Sequence[str],
    at_once: int,
    handle: Callable[[Call, str], None],
    answer: Callable[[Call, object], object],
) -> object:
    """Handle a few secrets in the call's transaction, and the others in more of them before the answer."""
    for secret_id in secret_ids[:at_once]:
        handle(call, secret_id)
    if len(secret_ids) <= at_once:
        return answer(call, None)

    def handle_rest() -> None:
        for start in range(at_once, len(secret_ids), at_once):
            time.sleep(PAUSE_S)
            with call.transaction() as db:
                batch = replace(call, db=db)
                _require_admitted(batch)
                for secret_id in secret_ids[start : start + at_once]:
                    handle(batch, secret_id)

    return Deferred(handle_rest, answer)


def _require_admitted(call: Call) -> None:
    """Raise Denied if the machine was revoked since its request was admitted."""
    machine = machines.find(call.db, call.machine.id)
    if machine is None:
        raise Denied(401, "the machine was revoked meanwhile", call.machine.id)
    machines.check_state(machine, call.now_ms)
    seals.require(call.db, "machine", machine.id)


def _export_one(call: Call, secret_id: str, values: dict[str, str]) -> None:
    try:
        secret = _require_granted(call, secret_id)
        values[secret_id] = _read(call, secret)
    except ReadDenied as denied:
        ids = {"secret_id": secret_id, "project_id": denied.project_id}
        audit.note(call, "secret_read_denied", str(denied), **ids)
    except Tampered as found:
        audit.note_tampered(call.db, call.now_ms, call.actor, found, "left out of an export")


def _read(call: Call, secret: sqlite3.Row) -> str:
    """The value, after the freeze and policy checks. Reading a canary has frozen its project when this returns."""
    _check_seals(call, secret)
    canaries.refuse_if_frozen(call, secret)
    policies.check_read(call, secret)
    if secret["kind"] == "canary":
        canaries.trigger(call, secret)
    value = secrets.plaintext(call.db, call.keys, secret, secret["version"])
    audit.note_secret(call, "secret_read", secret, f"{secret['name']} read, version {secret['version']}")
    _store_version(call, secret, overwrite=True)
    policies.after_read(call, secret)
    return value


def _trigger_without_grant(call: Call, denied: ReadDenied) -> bool:
    """Trigger a canary that a machine of its project may not read. Returns whether anything was changed."""
    project_id = denied.project_id
    if project_id is None or not _is_member(call, project_id) or canaries.is_frozen(call.db, project_id):
        return False
    return canaries.trigger(call, secrets.find(call.db, denied.secret_id), "asked for without a grant")


def _check_seals(call: Call, secret: sqlite3.Row) -> None:
    """Raise Tampered if a row that allows this read, or that decides what is read, was changed from outside."""
    secret_id, project_id = secret["id"], secret["project_id"]
    rows = [
        ("membership", project_id, call.machine.id),
        ("grant", call.machine.id, secret_id),
        ("secret", secret_id),
        ("project", project_id),
    ]
    if secret["kind"] == "canary":
        rows.append(("canary", secret_id))
    for kind, *key in rows:
        seals.require(call.db, kind, *key, secret_id=secret_id, project_id=project_id)


def _change(call: Call, secret_id: str) -> str | None:
    try:
        secret = _require_granted(call, secret_id)
    except ReadDenied as denied:
        return "deleted" if denied.status == 404 else "access_denied"
    _store_version(call, secret, overwrite=False)
    known = call.db.execute(
        "SELECT version FROM machine_versions WHERE machine_id = ? AND secret_id = ?", (call.machine.id, secret_id)
    ).fetchone()
    return "changed" if known["version"] != secret["version"] else None


def _store_version(call: Call, secret: sqlite3.Row, *, overwrite: bool) -> None:
    """Store which version the machine has. Without `overwrite`, a stored version is kept."""
    conflict = "REPLACE" if overwrite else "IGNORE"
    call.db.execute(
        f"INSERT OR {conflict} INTO machine_versions (machine_id, secret_id, version) VALUES (?, ?, ?)",
        (call.machine.id, secret["id"], secret["version"]),
    )


def _require_granted(call: Call, secret_id: str) -> sqlite3.Row:
    """A secret that is granted to the machine. Raises ReadDenied."""
    try:
        secret = secrets.find(call.db, secret_id)
    except Refusal as missing:
        raise ReadDenied(404, str(missing), call.machine.id, secret_id, None) from None
    ids = (secret["id"], secret["project_id"])
    if not _is_member(call, secret["project_id"]):
        raise ReadDenied(403, "the machine is not in the secret's project", call.machine.id, *ids)
    granted = "SELECT 1 FROM grants WHERE machine_id = ? AND secret_id = ?"
    if fetch_one(call.db, granted, (call.machine.id, secret["id"])) is None:
        raise ReadDenied(403, "the machine has no grant for the secret", call.machine.id, *ids)
    return secret


def _all_granted(call: Call) -> list[sqlite3.Row]:
    project_id = call.body.get("projectId")
    if project_id is not None and not _is_member(call, project_id):
        raise Denied(403, "the machine is not in the project", call.machine.id)
    statement = GRANTED.format("" if project_id is None else OF_PROJECT)
    return call.db.execute(statement, {"machine": call.machine.id, "project": project_id}).fetchall()


def _is_member(call: Call, project_id: str) -> bool:
    member = "SELECT 1 FROM project_machines WHERE project_id = ? AND machine_id = ?"
    return fetch_one(call.db, member, (project_id, call.machine.id)) is not None


def _to_json(secret: sqlite3.Row) -> dict[str, object]:
    """The listing of a secret. The vendor's client expects the field names as JSON inside a string."""
    names = secrets.field_names(secret)
    return {
        "id": secret["id"],
        "name": secret["name"],
        "fieldNames": None if names is None else json.dumps(names, ensure_ascii=False),
        "projectId": secret["project_id"],
    }


PROJECT = text(1, 64)

LIST_FIELDS = {"projectId": PROJECT.required()}
WATCH_FIELDS = {"watch": text_list().required()}

# fmt: off
ROUTES = (
    Route("GET",  "/v1/secret/{secretId}", None, read_one,               caller="machine"),
    Route("GET",  "/v1/secrets",           None, list_all,               caller="machine", reads=True),
    Route("POST", "/v1/secrets/list",      None, list_all, LIST_FIELDS,  caller="machine", reads=True),
    Route("POST", "/v1/secrets/export",    None, export,   {"projectId": PROJECT}, caller="machine"),
    Route("POST", "/v1/secrets/poll",      None, poll,     WATCH_FIELDS, caller="machine"),
)
# fmt: on
