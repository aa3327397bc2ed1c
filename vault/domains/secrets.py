"""Secrets and their versions. An agent can write or generate values, but never read them.

Every value is a separate version, encrypted with its own data key. A deleted secret moves to the trash together with
its versions. Rotation schedules are in `schedules`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag

from vault import audit
from vault.crypto import Envelope, Keyring, Sealed, new_id
from vault.domains import projects
from vault.errors import Denied, Refusal, Tampered
from vault.inputs import checked, integer, parse_object, text, text_list
from vault.query import fetch_one, require_one
from vault.router import OWNER, Actor, Call, Route
from vault.wiping import wipe_log_after_commit

TABLES = """
CREATE TABLE IF NOT EXISTS secrets (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('secret', 'structured', 'canary')),
    field_names TEXT,
    note TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    deleted_ms INTEGER
);
DROP INDEX IF EXISTS secrets_by_project;
CREATE INDEX IF NOT EXISTS secrets_by_age ON secrets (project_id, created_ms, id);
CREATE VIEW IF NOT EXISTS live_secrets AS
    SELECT * FROM secrets s WHERE NOT EXISTS (SELECT 1 FROM deleted_projects d WHERE d.project_id = s.project_id);
CREATE TABLE IF NOT EXISTS secret_versions (
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    origin TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (secret_id, version)
);
-- One row if nobody may see a value: see reveal_as_owner.
CREATE TABLE IF NOT EXISTS reveal_forbidden (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    since_ms INTEGER NOT NULL
);
"""

MAX_VALUE_BYTES = 12_288
MAX_FIELDS = 50
MAX_VERSIONS = 100  # per secret, beside those that were current in the last thirty days
SYMBOLS = string.ascii_letters + string.digits + "!#$%&()*+,-./:;<=>?@[]^_{|}~"  # no quotes, backslash or space
ALPHABETS = {"symbols": SYMBOLS, "alphanumeric": string.ascii_letters + string.digits, "numbers": string.digits}
TRASH_MS = 30 * 24 * 3600 * 1000

SELECT = """
SELECT s.*, p.wrapped_key AS wrapped_project_key,
    r.secret_id IS NOT NULL AS scheduled, coalesce(r.enabled, 0) AS rotating
FROM secrets s JOIN live_projects p ON p.id = s.project_id LEFT JOIN rotation_schedules r ON r.secret_id = s.id
WHERE s.deleted_ms IS NULL
"""


# ---- values ----------------------------------------------------------------------------------------------------------


class GeneratorOptions(NamedTuple):
    """How to generate a value. A uuid ignores the length. Fields of None mean the whole value."""

    length: int = 32
    charset: str = "symbols"
    fields: tuple[str, ...] | None = None

    def updated(self, given: Mapping[str, Any]) -> GeneratorOptions:
        """These options with the changes from a request body."""
        fields = tuple(given["fields"]) if "fields" in given else self.fields
        return GeneratorOptions(given.get("length", self.length), given.get("charset", self.charset), fields)


# Without punctuation, so that a canary can be copied into any configuration file.
CANARY_OPTIONS = GeneratorOptions(length=64, charset="alphanumeric")


def generate_string(options: GeneratorOptions) -> str:
    """A random string."""
    if options.charset == "uuid":
        return str(uuid.uuid4())
    return "".join(secrets.choice(ALPHABETS[options.charset]) for _ in range(options.length))


def generate_value(options: GeneratorOptions, field_names: Sequence[str] | None, kept: Mapping[str, Any]) -> str:
    """A new value. For a structured secret, only `options.fields` are new. Raises Refusal if these are too large.

    The kept fields do not count: an agent could find out their exact size from what is refused.
    """
    if field_names is None:
        return generate_string(options)
    generated = {name: generate_string(options) for name in options.fields or field_names}
    if len(json.dumps(generated, ensure_ascii=False).encode()) > MAX_VALUE_BYTES:
        raise Refusal(400, f"the new value would be larger than {MAX_VALUE_BYTES} bytes")
    fields = {name: generated[name] if name in generated else kept[name] for name in field_names}
    return json.dumps(fields, ensure_ascii=False)


def check_structure(value: str, field_names: Sequence[str] | None) -> None:
    """Raise Refusal unless a structured value is a JSON object with exactly the declared keys."""
    if field_names is None:
        return
    try:
        keys = parse_object(value).keys()
    except ValueError:  # the original message quotes the value
        keys = None
    if keys != set(field_names):
        raise Refusal(400, "value must be a JSON object, as a string, with exactly the keys of fieldNames")


def check_names(names: Iterable[str], key: str) -> None:
    """Raise Refusal unless field names are distinct and have 1 to 100 characters."""
    names_list = list(names)
    if len(set(names_list)) != len(names_list):
        raise Refusal(400, f"{key} must not repeat a name")
    if not all(1 <= len(name) <= 100 for name in names_list):
        raise Refusal(400, f"{key} must contain names of 1 to 100 characters")


def check_fields(fields: Sequence[str] | None, field_names: Sequence[str] | None) -> None:
    """Raise Refusal unless the fields to rotate are fields of the secret."""
    if fields is None:
        return
    if field_names is None:
        raise Refusal(400, "fields is only allowed for a structured secret")
    check_names(fields, "fields")
    if not set(fields) <= set(field_names):
        raise Refusal(400, "fields must be field names of the secret")


# ---- for all domains that use values ---------------------------------------------------------------------------------


def find(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row:
    """A secret that is not in the trash. Raises Refusal."""
    return require_one(db, SELECT + "AND s.id = ?", (secret_id,), "no such secret")


def field_names(secret: sqlite3.Row) -> list[str] | None:
    """The keys of a structured secret, or None."""
    names: list[str] | None = json.loads(secret["field_names"]) if secret["field_names"] else None
    return names


def insert(call: Call, project_id: str, value: str, names: list[str] | None) -> str:
    """Create a secret with its first version, and return its id. The name and note come from the body."""
    secret_id = new_id("sk_")
    kind, stored_names = ("structured", json.dumps(names, ensure_ascii=False)) if names else ("secret", None)
    call.db.execute(
        "INSERT INTO secrets (id, project_id, name, kind, field_names, note, version, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
        (secret_id, project_id, call.body["name"], kind, stored_names, call.body.get("note", ""))
        + (call.now_ms, call.now_ms),
    )
    add_version(call.db, call.keys, find(call.db, secret_id), value, origin="create", now_ms=call.now_ms)
    return secret_id


def add_version(
    db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, value: str, *, origin: str, now_ms: int
) -> int:
    """Encrypt a value as the secret's next version, make it current, and return its number."""
    version: int = secret["version"] + 1
    try:
        sealed = keys.seal(_envelope(secret, version), value.encode())
    except InvalidTag:
        raise _tampered(secret, "the key of its project does not decrypt") from None
    db.execute(
        "INSERT INTO secret_versions (secret_id, version, origin, wrapped_key, ciphertext, created_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (secret["id"], version, origin, sealed.wrapped_key, sealed.ciphertext, now_ms),
    )
    db.execute("UPDATE secrets SET version = ?, updated_ms = ? WHERE id = ?", (version, now_ms, secret["id"]))
    _delete_old_versions(db, secret["id"], version, now_ms)
    return version


def _delete_old_versions(db: sqlite3.Connection, secret_id: str, current: int, now_ms: int) -> None:
    """Delete all but the latest MAX_VERSIONS, if they were replaced more than thirty days ago.

    Whatever an agent does, the values of the last thirty days can be restored.
    """
    replaced = (
        "SELECT max(version) FROM secret_versions WHERE secret_id = ? AND version <= ? AND created_ms <= ?",
        (secret_id, current - MAX_VERSIONS + 1, now_ms - TRASH_MS),
    )
    oldest_kept = db.execute(*replaced).fetchone()[0]
    if oldest_kept is None:
        return
    old = "DELETE FROM secret_versions WHERE secret_id = ? AND version < ?"
    if db.execute(old, (secret_id, oldest_kept)).rowcount:
        wipe_log_after_commit(db)


def plaintext(db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, version: int) -> str:
    """The value of one version. Callers must never put it in an answer to an agent. Raises Refusal."""
    statement = "SELECT wrapped_key, ciphertext FROM secret_versions WHERE secret_id = ? AND version = ?"
    row = fetch_one(db, statement, (secret["id"], version))
    if row is None and version == secret["version"]:
        raise _tampered(secret, f"its current version, {version}, is missing")
    if row is None:
        raise Refusal(404, "no such version")
    try:
        return keys.open(_envelope(secret, version), Sealed(row["wrapped_key"], row["ciphertext"])).decode()
    except InvalidTag:
        raise _tampered(secret, f"version {version} does not decrypt") from None


def rotate_value(
    db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, options: GeneratorOptions, now_ms: int
) -> int:
    """Generate and store the next version, and return its number. Raises Refusal."""
    return add_version(db, keys, secret, next_value(db, keys, secret, options), origin="rotate", now_ms=now_ms)


def next_value(db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, options: GeneratorOptions) -> str:
    """A new value. Fields that are not in the options keep their value. Raises Refusal if it is too large."""
    names = field_names(secret)
    check_fields(options.fields, names)
    kept = json.loads(plaintext(db, keys, secret, secret["version"])) if options.fields else {}
    return generate_value(options, names, kept)


def generator_options(db: sqlite3.Connection, secret: sqlite3.Row) -> GeneratorOptions:
    """The default options for the next value of a secret."""
    if secret["kind"] == "canary":
        return CANARY_OPTIONS
    row = fetch_one(db, "SELECT * FROM rotation_schedules WHERE secret_id = ?", (secret["id"],))
    return schedule_options(row) if row else GeneratorOptions()


def metadata(secret: sqlite3.Row) -> dict[str, object]:
    """The data about a secret that agents may see. The type of a secret with a rotation schedule is managed."""
    return {
        "id": secret["id"],
        "name": secret["name"],
        "type": "managed" if secret["scheduled"] else secret["kind"],
        "fieldNames": field_names(secret),
        "note": secret["note"],
        "version": secret["version"],
        "createdAt": secret["created_ms"],
        "updatedAt": secret["updated_ms"],
    }


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The secrets of a project, oldest first."""
    project = projects.require(call, call.params["projectId"])
    rows = call.db.execute(SELECT + "AND s.project_id = ? ORDER BY s.created_ms, s.id", (project["id"],))
    return [metadata(row) for row in rows]


def get(call: Call) -> object:
    """One secret's metadata."""
    secret = _require(call)
    return {**metadata(secret), "projectId": secret["project_id"]}


def create(call: Call) -> object:
    """Create a secret. With fieldNames it is a structured secret."""
    project = projects.require(call, call.params["projectId"])
    if call.body.get("projectId", project["id"]) != project["id"]:
        raise Refusal(400, "projectId must be the project of the path")
    names = call.body.get("fieldNames")
    check_names(names or (), "fieldNames")
    check_structure(call.body["value"], names)
    secret_id = insert(call, project["id"], call.body["value"], names)
    detail = f"secret created as {call.body['name']}"
    audit.note(call, "secret_create", detail, secret_id=secret_id, project_id=project["id"])
    return {"id": secret_id, "name": call.body["name"]}


def update_value(call: Call) -> object:
    """Replace the value, unless the vault manages it."""
    secret = _require(call)
    _refuse_managed(secret)
    check_structure(call.body["value"], field_names(secret))
    version = add_version(call.db, call.keys, secret, call.body["value"], origin="update", now_ms=call.now_ms)
    audit.note_secret(call, "secret_update", secret, f"value replaced, now version {version}")
    return {"id": secret["id"], "version": version}


def delete(call: Call) -> object:
    """Move a secret to the trash. For a canary this requires the scope that disabling it requires."""
    secret = _require(call)
    if secret["kind"] == "canary" and DISABLE_CANARY_SCOPE not in call.agent.scopes:
        raise Denied(
            403,
            f"the secret is a canary: the agent lacks the scope {DISABLE_CANARY_SCOPE}",
            call.agent.id,
            DISABLE_CANARY_SCOPE,
        )
    call.db.execute("UPDATE secrets SET deleted_ms = ? WHERE id = ?", (call.now_ms, secret["id"]))
    audit.note_secret(call, "secret_delete", secret, f"{secret['name']} moved to the trash")
    if fetch_one(call.db, ARMED, (secret["id"],)) is not None:  # as severe as disabling it
        audit.note_secret(call, "canary_disable", secret, f"canary {secret['name']} is in the trash")
    return {"id": secret["id"], "deletedAt": call.now_ms, "purgeAt": call.now_ms + TRASH_MS}


def rename(call: Call) -> object:
    """Rename a secret."""
    secret, name = _require(call), call.body["name"]
    call.db.execute("UPDATE secrets SET name = ?, updated_ms = ? WHERE id = ?", (name, call.now_ms, secret["id"]))
    audit.note_secret(call, "secret_rename", secret, f"renamed from {secret['name']} to {name}")
    return {"id": secret["id"], "name": name}


def update_note(call: Call) -> object:
    """Replace the note. An absent note clears it."""
    secret, note = _require(call), call.body.get("note", "")
    call.db.execute("UPDATE secrets SET note = ?, updated_ms = ? WHERE id = ?", (note, call.now_ms, secret["id"]))
    audit.note_secret(call, "secret_note_update", secret, "note replaced" if note else "note cleared")
    return {"id": secret["id"], "name": secret["name"]}


def rotate(call: Call) -> object:
    """Generate the next value. The defaults are the generator options of the rotation schedule, if there is one."""
    secret = _require(call)
    if secret["kind"] == "canary" and call.body:
        raise Refusal(409, "the secret is a canary: the vault controls its value")
    version = rotate_value(
        call.db, call.keys, secret, generator_options(call.db, secret).updated(call.body), call.now_ms
    )
    audit.note_secret(call, "secret_rotate", secret, f"rotated, now version {version}")
    return {"id": secret["id"], "version": version}


def rollback(call: Call) -> object:
    """Store the value of an old version as the next version."""
    secret, old = _require(call), call.body["version"]
    _refuse_managed(secret)
    value = plaintext(call.db, call.keys, secret, old)
    version = add_version(call.db, call.keys, secret, value, origin="rollback", now_ms=call.now_ms)
    audit.note_secret(call, "secret_rollback", secret, f"version {old} restored as version {version}")
    return {"id": secret["id"], "version": version}


def versions(call: Call) -> object:
    """All versions, newest first, without values."""
    secret = _require(call)
    rows = call.db.execute(
        "SELECT version, origin, created_ms FROM secret_versions WHERE secret_id = ? ORDER BY version DESC",
        (secret["id"],),
    )
    return [{"version": row["version"], "origin": row["origin"], "createdAt": row["created_ms"]} for row in rows]


def _refuse_managed(secret: sqlite3.Row) -> None:
    """Raise Refusal for values that the vault manages. Old values are refused too, because they may be known."""
    if secret["kind"] == "canary":
        raise Refusal(409, "the secret is a canary: the vault controls its value")
    if secret["rotating"]:
        raise Refusal(409, "the secret has an active rotation schedule: rotate it, or delete the schedule first")


def _require(call: Call) -> sqlite3.Row:
    project = projects.require(call, call.params["projectId"])
    secret = find(call.db, call.params["secretId"])
    if secret["project_id"] != project["id"]:
        raise Refusal(404, "no such secret")
    return secret


def schedule_options(schedule: sqlite3.Row) -> GeneratorOptions:
    """The generator options of a rotation schedule."""
    fields: list[str] | None = json.loads(schedule["fields"]) if schedule["fields"] else None
    return GeneratorOptions(schedule["length"], schedule["charset"], tuple(fields) if fields else None)


def _tampered(secret: sqlite3.Row, what: str) -> Tampered:
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    return Tampered(f"secret {secret['id']}: {what}", **ids)


def _envelope(secret: sqlite3.Row, version: int) -> Envelope:
    return Envelope(secret["project_id"], secret["wrapped_project_key"], secret["id"], version)


VALUE = text(max_bytes=MAX_VALUE_BYTES)
LENGTH = integer(1, 1024)
CHARSET = text(choices=(*ALPHABETS, "uuid"))
FIELD_NAMES = text_list(1, MAX_FIELDS)
NAME = text(1, 255)
NOTE = text()
CREATE_FIELDS = {
    "name": NAME.required(),
    "value": VALUE.required(),
    "note": NOTE,
    "fieldNames": FIELD_NAMES,
    "projectId": text(),
}
ROTATE_FIELDS = {"length": LENGTH, "charset": CHARSET, "fields": FIELD_NAMES}
VERSION_FIELDS = {"version": integer(1, 2**53 - 1).required()}

READ, WRITE = "projects.secrets.read", "projects.secrets.write"
DISABLE_CANARY_SCOPE = "projects.policies.write"
ARMED = "SELECT 1 FROM canaries WHERE secret_id = ? AND enabled"
ALL = "/v1/ai/projects/{projectId}/secrets"
ONE = ALL + "/{secretId}"

# fmt: off
ROUTES = (
    Route("GET",  ALL,               READ,  list_all, reads=True),
    Route("POST", ALL,               WRITE, create,       CREATE_FIELDS, status=201),
    Route("GET",  ONE,               READ,  get, reads=True),
    Route("POST", ONE + "/update",   WRITE, update_value, {"value": VALUE.required()}),
    Route("POST", ONE + "/delete",   WRITE, delete),
    Route("POST", ONE + "/name",     WRITE, rename,       {"name": NAME.required()}),
    Route("POST", ONE + "/note",     WRITE, update_note,  {"note": NOTE}),
    Route("POST", ONE + "/rotate",   WRITE, rotate,       ROTATE_FIELDS),
    Route("POST", ONE + "/rollback", WRITE, rollback,     VERSION_FIELDS),
    Route("GET",  ONE + "/versions", READ,  versions, reads=True),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def reveal_as_owner(
    db: sqlite3.Connection,
    keys: Keyring,
    now_ms: int,
    secret_id: str,
    version: int | None = None,
    *,
    actor: Actor = OWNER,
) -> str:
    """The value of the current or an earlier version, for the owner's eyes. Audited in the same transaction.

    A canary is not triggered: only reads by machines do that. Raises Refusal: 403 if the vault forbids it.
    """
    if is_reveal_forbidden(db):
        raise Refusal(403, "this vault never reveals values: only machines can read")
    secret = find(db, secret_id)
    number = secret["version"] if version is None else version
    value = plaintext(db, keys, secret, number)
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    audit.record(db, now_ms, actor, "secret_reveal", f"{secret['name']} shown to the owner, version {number}", **ids)
    return value


def replace_fields(call: Call, secret_id: str, fields: Mapping[str, str]) -> int:
    """Replace some fields of a structured secret, keep the others, and return the version. Raises Refusal."""
    secret = find(call.db, secret_id)
    names = field_names(secret)
    if not fields or names is None or not set(fields) <= set(names):
        raise Refusal(400, "give at least one field of the secret")
    current = json.loads(plaintext(call.db, call.keys, secret, secret["version"]))
    body = checked({"value": json.dumps({**current, **fields}, ensure_ascii=False)}, {"value": VALUE})
    params = {"projectId": secret["project_id"], "secretId": secret["id"]}
    made: Any = update_value(replace(call, params=params, body=body))
    return int(made["version"])


def is_reveal_forbidden(db: sqlite3.Connection) -> bool:
    """Whether the vault was made with `--no-reveal`."""
    return fetch_one(db, "SELECT 1 FROM reveal_forbidden") is not None


def forbid_reveal(db: sqlite3.Connection, now_ms: int) -> None:
    """Forbid revealing values permanently."""
    db.execute("INSERT OR IGNORE INTO reveal_forbidden (only, since_ms) VALUES (1, ?)", (now_ms,))
