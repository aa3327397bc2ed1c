"""Changes that the owner makes and no route offers. Each takes a `Call` of the owner, as `Desk.run` gives one.

desk.run("replace fields", lambda call: edits.replace_fields(call, secret_id, {"password": "..."}))
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vault import audit, makers
from vault.domains import canaries, project_machines, secrets, temporary_secrets
from vault.errors import Refusal
from vault.inputs import checked
from vault.query import fetch_one
from vault.router import Call


def replace_fields(call: Call, secret_id: str, fields: Mapping[str, str]) -> int:
    """Replace some fields of a structured secret, keep the others, and return the version. Raises Refusal."""
    secret = secrets.find(call.db, secret_id)
    names = secrets.field_names(secret)
    if not fields or names is None or not set(fields) <= set(names):
        raise Refusal(400, "give at least one field of the secret")
    current = json.loads(secrets.plaintext(call.db, call.keys, secret, secret["version"]))
    value = json.dumps({**current, **fields}, ensure_ascii=False)
    body = checked({"value": value}, {"value": secrets.VALUE})
    params = {"projectId": secret["project_id"], "secretId": secret["id"]}
    made: Any = secrets.update_value(replace(call, params=params, body=body))
    return int(made["version"])


def set_readers(call: Call, secret_id: str, offered: Iterable[str], wanted: Iterable[str]) -> tuple[int, int]:
    """Let `wanted` of the `offered` machines read a secret, and no other of them. Returns how many gained and lost it.

    Machines that are not offered keep what they have. Raises Refusal for a machine that is not in the project.
    """
    secret, chosen, gained, lost = secrets.find(call.db, secret_id), set(wanted), 0, 0
    for machine_id in dict.fromkeys(offered):
        has = _has_grant(call.db, machine_id, secret_id)
        if machine_id in chosen and not has:
            _require_member(call.db, machine_id, secret["project_id"])
            project_machines.grant(call.db, call.now_ms, machine_id, secret_id)
            makers.note(call, makers.GRANT, makers.grant_id(machine_id, secret_id))
            audit.note_secret(call, "permission_grant", secret, f"reading granted to machine {machine_id}")
            gained += 1
        elif has and machine_id not in chosen:
            grant_id = makers.grant_id(machine_id, secret_id)
            project_machines.revoke_grant_as_owner(call.db, call.now_ms, grant_id, actor=call.actor)
            lost += 1
    return gained, lost


def plant_canary(call: Call, body: Mapping[str, Any], note: str, machine_ids: Iterable[str]) -> str:
    """Create a canary with a note and with grants for machines, and return its id. Raises Refusal."""
    made: Any = canaries.create(replace(call, body=checked(body, canaries.CREATE_FIELDS)))
    params = {"projectId": body["projectId"], "secretId": made["id"]}
    if note:
        secrets.update_note(replace(call, params=params, body=checked({"note": note}, {"note": secrets.NOTE})))
    wanted = list(machine_ids)
    set_readers(call, made["id"], wanted, wanted)
    return str(made["id"])


def destroy_link(call: Call, link_id: str) -> str:
    """End a one-time link that nobody has opened, and return its name. Raises Refusal."""
    row = fetch_one(call.db, "SELECT * FROM temporary_secrets WHERE id = ?", (link_id,))
    if row is None:
        raise Refusal(404, "no such link")
    if row["status"] != "pending" or row["expires_ms"] <= call.now_ms:
        raise Refusal(409, "the link has ended already")
    temporary_secrets.destroy_as_owner(call.db, call.now_ms, link_id, actor=call.actor)
    return str(row["name"])


def _has_grant(db: sqlite3.Connection, machine_id: str, secret_id: str) -> bool:
    found = "SELECT 1 FROM grants WHERE machine_id = ? AND secret_id = ?"
    return fetch_one(db, found, (machine_id, secret_id)) is not None


def _require_member(db: sqlite3.Connection, machine_id: str, project_id: str) -> None:
    found = "SELECT 1 FROM project_machines WHERE machine_id = ? AND project_id = ?"
    if fetch_one(db, found, (machine_id, project_id)) is None:
        raise Refusal(409, "a machine that you ticked is not in the project any more")
