"""Rotation schedules: secrets whose value the vault generates at regular intervals.

A row stores when the next rotation is due, and a background job performs it. While a schedule is active, nobody else
can write the value.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from vault import audit
from vault.crypto import Keyring
from vault.domains import projects, secrets
from vault.domains.secrets import (
    FIELD_NAMES,
    NAME,
    NOTE,
    READ,
    ROTATE_FIELDS,
    WRITE,
    GeneratorOptions,
    check_fields,
    check_names,
    generate_value,
)
from vault.errors import Denied, Refusal, Tampered
from vault.inputs import BOOLEAN, OBJECT, integer, require_any, text
from vault.query import require_one
from vault.router import SYSTEM, Call, KeySource, Route, Transaction

TABLES = """
CREATE TABLE IF NOT EXISTS rotation_schedules (
    secret_id TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    interval_s INTEGER NOT NULL,
    length INTEGER NOT NULL,
    charset TEXT NOT NULL,
    fields TEXT,
    enabled INTEGER NOT NULL DEFAULT 1,
    next_ms INTEGER,
    last_ms INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS rotation_schedules_due ON rotation_schedules (next_ms) WHERE next_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS rotation_schedules_by_age ON rotation_schedules (created_ms, secret_id);
"""

SELECT = """
SELECT r.*, s.id, s.name, s.project_id, s.version, s.field_names
FROM rotation_schedules r JOIN live_secrets s ON s.id = r.secret_id
WHERE s.deleted_ms IS NULL
"""


def list_all(call: Call) -> object:
    """The schedules of the projects that the agent may reach."""
    rows = call.db.execute(SELECT + "ORDER BY r.created_ms, r.secret_id")
    return [_to_json(row) for row in rows if call.agent.may_reach(row["project_id"])]


def get(call: Call) -> object:
    """One schedule."""
    return _to_json(_require(call))


def create(call: Call) -> object:
    """Create a schedule for a new or an existing secret."""
    secret_id = _use_existing_secret(call) if "secretId" in call.body else _create_secret(call)
    secret = secrets.find(call.db, secret_id)
    options = _options(call.body)
    secrets.next_value(call.db, call.keys, secret, options)  # fails now if it would fail when due
    call.db.execute(
        "INSERT INTO rotation_schedules (secret_id, interval_s, length, charset, fields, next_ms, created_ms,"
        " updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (secret_id, call.body["intervalSeconds"], options.length, options.charset, _fields_to_json(options.fields))
        + (_next_ms(call, call.body["intervalSeconds"]), call.now_ms, call.now_ms),
    )
    audit.note_secret(call, "dynamic_secret_create", secret, f"rotates every {call.body['intervalSeconds']} seconds")
    return {"secretId": secret_id, "name": secret["name"], "version": secret["version"]}


def update(call: Call) -> object:
    """Change the interval, the generator options or the enabled flag. A new interval starts now."""
    schedule = _require(call)
    require_any(call.body, UPDATE_FIELDS)
    options = secrets.schedule_options(schedule).updated(call.body)
    check_fields(options.fields, secrets.field_names(schedule))
    secrets.next_value(call.db, call.keys, secrets.find(call.db, schedule["id"]), options)
    interval_s = call.body.get("intervalSeconds", schedule["interval_s"])
    enabled = call.body.get("enabled", bool(schedule["enabled"]))
    restarts = "intervalSeconds" in call.body or schedule["next_ms"] is None
    next_ms = _next_ms(call, interval_s) if restarts else schedule["next_ms"]
    call.db.execute(
        "UPDATE rotation_schedules SET interval_s = ?, length = ?, charset = ?, fields = ?, enabled = ?, next_ms = ?,"
        " updated_ms = ? WHERE secret_id = ?",
        (
            interval_s,
            options.length,
            options.charset,
            _fields_to_json(options.fields),
            enabled,
            next_ms if enabled else None,
        )
        + (call.now_ms, schedule["id"]),
    )
    audit.note_secret(call, "dynamic_secret_update", schedule, f"schedule changed: {', '.join(sorted(call.body))}")
    return {"secretId": schedule["id"], "name": schedule["name"], "version": schedule["version"]}


def delete(call: Call) -> object:
    """Delete the schedule. The secret keeps its current value."""
    schedule = _require(call)
    call.db.execute("DELETE FROM rotation_schedules WHERE secret_id = ?", (schedule["id"],))
    audit.note_secret(call, "dynamic_secret_delete", schedule, "schedule removed")
    return {"secretId": schedule["id"], "name": schedule["name"]}


def rotate_due(transaction: Transaction, keys: KeySource, now_ms: int) -> None:
    """Background job: rotate all secrets that are due, each in a separate transaction."""
    with transaction() as db:
        due = [row["id"] for row in db.execute(SELECT + "AND r.next_ms <= ? ORDER BY r.next_ms", (now_ms,))]
    for secret_id in due:
        with transaction() as db:
            row = db.execute(SELECT + "AND r.next_ms <= ? AND r.secret_id = ?", (now_ms, secret_id)).fetchone()
            if row is not None:
                _rotate(db, keys(), row, now_ms)


def _rotate(db: sqlite3.Connection, keys: Keyring, schedule: sqlite3.Row, now_ms: int) -> None:
    """Rotate one secret. After a failure it waits for its next turn, so it does not block the others."""
    secret = secrets.find(db, schedule["id"])
    try:
        version = secrets.rotate_value(db, keys, secret, secrets.schedule_options(schedule), now_ms)
    except Tampered as found:
        action, detail = found.action, f"not rotated on schedule: {found.what}"
    except Refusal as refusal:
        action, detail = "secret_rotate_denied", f"not rotated on schedule: {refusal}"
    else:
        action, detail = "secret_rotate", f"rotated on schedule, now version {version}"
    # The interval starts now, not at the due time: after a week offline, a secret rotates once.
    db.execute(
        "UPDATE rotation_schedules SET last_ms = ?, next_ms = ? WHERE secret_id = ?",
        (now_ms, now_ms + schedule["interval_s"] * 1000, schedule["id"]),
    )
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    audit.record(db, now_ms, SYSTEM, action, detail, **ids)


def _use_existing_secret(call: Call) -> str:
    """The id of an existing secret, which keeps its value until the first rotation."""
    for key in ("projectId", "name", "fieldNames", "staticFields"):
        if key in call.body:
            raise Refusal(400, f"{key} is only allowed for a new secret, not with secretId")
    secret = _require_secret(call, call.body["secretId"])
    if secret["kind"] == "canary":
        raise Refusal(409, "the secret is a canary: the vault controls its value")
    if secret["scheduled"]:
        raise Refusal(409, "the secret already has a rotation schedule: update it")
    check_fields(call.body.get("fields"), secrets.field_names(secret))
    if "note" in call.body:
        call.db.execute("UPDATE secrets SET note = ? WHERE id = ?", (call.body["note"], secret["id"]))
    return str(secret["id"])


def _create_secret(call: Call) -> str:
    """Create a secret with a generated value, and return its id."""
    for key in ("projectId", "name"):
        if key not in call.body:
            raise Refusal(400, f"{key} is required, unless secretId names a secret that exists")
    project = projects.require(call, call.body["projectId"])
    names = call.body.get("fieldNames")
    _check_new(call.body, names)
    value = generate_value(_options(call.body), names, call.body.get("staticFields", {}))
    if len(value.encode()) > secrets.MAX_VALUE_BYTES:
        raise Refusal(400, f"the value would be larger than {secrets.MAX_VALUE_BYTES} bytes")
    return secrets.insert(call, project["id"], value, names)


def _check_new(body: Mapping[str, Any], names: Sequence[str] | None) -> None:
    """Raise Refusal unless each field of a new structured secret is either generated or given."""
    check_names(names or (), "fieldNames")
    static = body.get("staticFields", {})
    if not all(isinstance(value, str) for value in static.values()):
        raise Refusal(400, "staticFields must map field names to strings")
    if names is None and "staticFields" in body:
        raise Refusal(400, "staticFields requires fieldNames")
    check_fields(body.get("fields"), names)
    if names is None:
        return
    generated = body.get("fields") or _generated_fields(body)
    if not generated:
        raise Refusal(400, "staticFields must leave at least one field to generate")
    if sorted([*generated, *static]) != sorted(names):
        raise Refusal(400, "every name in fieldNames must be either in fields or in staticFields")


def _options(body: Mapping[str, Any]) -> GeneratorOptions:
    """The generator options of a body. Without `fields`, every field rotates that has no static value."""
    if "fields" in body or not body.get("staticFields"):
        return GeneratorOptions().updated(body)
    return GeneratorOptions().updated({**body, "fields": _generated_fields(body)})


def _generated_fields(body: Mapping[str, Any]) -> list[str]:
    return [name for name in body["fieldNames"] if name not in body.get("staticFields", {})]


def _require(call: Call) -> sqlite3.Row:
    secret_id = call.params["secretId"]
    return require_one(call.db, SELECT + "AND r.secret_id = ?", (secret_id,), "no such rotation schedule")


def _require_secret(call: Call, secret_id: str) -> sqlite3.Row:
    try:
        secret = secrets.find(call.db, secret_id)
    except Refusal:
        if call.agent.allowlist is None:
            raise
        secret = None
    if secret is None or not call.agent.may_reach(secret["project_id"]):
        raise Denied(403, "the secret is not in a project on the agent's allowlist", call.agent.id)
    return secret


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    options = secrets.schedule_options(row)
    return {
        "secretId": row["id"],
        "projectId": row["project_id"],
        "name": row["name"],
        "fieldNames": secrets.field_names(row),
        "intervalSeconds": row["interval_s"],
        "length": options.length,
        "charset": options.charset,
        "fields": options.fields,
        "enabled": bool(row["enabled"]),
        "nextRotationAt": row["next_ms"],
        "lastRotationAt": row["last_ms"],
        "version": row["version"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


def _next_ms(call: Call, interval_s: int) -> int:
    return call.now_ms + interval_s * 1000


def _fields_to_json(fields: Sequence[str] | None) -> str | None:
    return json.dumps(fields, ensure_ascii=False) if fields else None


INTERVAL = integer(300, 30 * 24 * 3600)
CREATE_FIELDS = {
    "projectId": text(),
    "name": NAME,
    "secretId": text(),
    "note": NOTE,
    "intervalSeconds": INTERVAL.required(),
    **ROTATE_FIELDS,
    "fieldNames": FIELD_NAMES,
    "staticFields": OBJECT,
}
UPDATE_FIELDS = {"intervalSeconds": INTERVAL, **ROTATE_FIELDS, "enabled": BOOLEAN}

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/dynamic-secrets",                   READ,  list_all, reads=True),
    Route("POST", "/v1/ai/dynamic-secrets",                   WRITE, create, CREATE_FIELDS, status=201),
    Route("GET",  "/v1/ai/dynamic-secrets/{secretId}",        READ,  get, reads=True),
    Route("POST", "/v1/ai/dynamic-secrets/{secretId}/update", WRITE, update, UPDATE_FIELDS),
    Route("POST", "/v1/ai/dynamic-secrets/{secretId}/delete", WRITE, delete),
)
# fmt: on
