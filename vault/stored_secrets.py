"""Secrets and their versions. An agent can write values and have them made, and never reads one.

Every value is a version of its own, sealed under a data key of its own. Deleting moves a secret to the trash, where it
keeps its versions. Rotation schedules live next door in `schedules`.
"""

from __future__ import annotations

import json
import sqlite3

from vault import audit, projects
from vault.calls import Call, Route
from vault.crypto import Envelope, Keyring, Sealed, new_id
from vault.errors import Denied, Refusal
from vault.inputs import integer, text
from vault.values import CHARSET, FIELD_NAMES, LENGTH, VALUE, Recipe, check_fields, check_names, check_structure, fresh

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
CREATE INDEX IF NOT EXISTS secrets_by_project ON secrets (project_id);
CREATE TABLE IF NOT EXISTS secret_versions (
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    origin TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (secret_id, version)
);
"""

TRASH_MS = 30 * 24 * 3600 * 1000
# No punctuation: a canary goes where people look for keys, and should survive a copy into a configuration file.
CANARY_RECIPE = Recipe(length=64, charset="alphanumeric")

SELECT = """
SELECT s.*, p.wrapped_key AS wrapped_project_key,
    r.secret_id IS NOT NULL AS scheduled, coalesce(r.enabled, 0) AS rotating
FROM secrets s JOIN projects p ON p.id = s.project_id LEFT JOIN rotation_schedules r ON r.secret_id = s.id
WHERE s.deleted_ms IS NULL
"""


# ---- for every domain that touches values ----------------------------------------------------------------------------


def find(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row:
    """A secret that is not in the trash."""
    row: sqlite3.Row | None = db.execute(SELECT + "AND s.id = ?", (secret_id,)).fetchone()
    if row is None:
        raise Refusal(404, "no such secret")
    return row


def field_names(secret: sqlite3.Row) -> list[str] | None:
    """The keys of a structured secret."""
    names: list[str] | None = json.loads(secret["field_names"]) if secret["field_names"] else None
    return names


def insert(call: Call, project_id: str, value: str, names: list[str] | None) -> str:
    """A new secret with its first version; name and note come from the body."""
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
    """Seal a value as the secret's next version and make it the current one."""
    version: int = secret["version"] + 1
    sealed = keys.seal(_place(secret, version), value.encode())
    db.execute(
        "INSERT INTO secret_versions (secret_id, version, origin, wrapped_key, ciphertext, created_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (secret["id"], version, origin, sealed.wrapped_key, sealed.ciphertext, now_ms),
    )
    db.execute("UPDATE secrets SET version = ?, updated_ms = ? WHERE id = ?", (version, now_ms, secret["id"]))
    return version


def plaintext(db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, version: int) -> str:
    """The value of one version. Its callers write it back under a new key; none may put it in an answer to an agent."""
    row = db.execute(
        "SELECT wrapped_key, ciphertext FROM secret_versions WHERE secret_id = ? AND version = ?",
        (secret["id"], version),
    ).fetchone()
    if row is None:
        raise Refusal(404, "no such version")
    return keys.open(_place(secret, version), Sealed(row["wrapped_key"], row["ciphertext"])).decode()


def rotated(db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, recipe: Recipe, now_ms: int) -> int:
    """Make the next value and store it."""
    return add_version(db, keys, secret, next_value(db, keys, secret, recipe), origin="rotate", now_ms=now_ms)


def next_value(db: sqlite3.Connection, keys: Keyring, secret: sqlite3.Row, recipe: Recipe) -> str:
    """A new value; the fields of a structured secret that the recipe leaves out keep theirs. Refused if too large."""
    names = field_names(secret)
    check_fields(recipe.fields, names)
    kept = json.loads(plaintext(db, keys, secret, secret["version"])) if recipe.fields else {}
    return fresh(recipe, names, kept)


def recipe_of(db: sqlite3.Connection, secret: sqlite3.Row) -> Recipe:
    """How the vault makes the next value where nobody says otherwise."""
    if secret["kind"] == "canary":
        return CANARY_RECIPE
    row = db.execute("SELECT * FROM rotation_schedules WHERE secret_id = ?", (secret["id"],)).fetchone()
    return stored_recipe(row) if row else Recipe()


def metadata(secret: sqlite3.Row) -> dict[str, object]:
    """What an agent may know about a secret. A value that the vault replaces on a schedule is a managed one."""
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
    """Store a value under a name; with fieldNames it is a structured secret."""
    project = projects.require(call, call.params["projectId"])
    if call.body.get("projectId", project["id"]) != project["id"]:
        raise Refusal(400, "projectId must be the project of the path")
    names = call.body.get("fieldNames")
    check_names(names or (), "fieldNames")
    check_structure(call.body["value"], names)
    secret_id = insert(call, project["id"], call.body["value"], names)
    _note(call, "secret_create", secret_id, project["id"], f"secret created as {call.body['name']}")
    return {"id": secret_id, "name": call.body["name"]}


def update_value(call: Call) -> object:
    """Replace the value, unless the vault is in charge of it."""
    secret = _require(call)
    _refuse_vaults_own(secret)
    check_structure(call.body["value"], field_names(secret))
    version = add_version(call.db, call.keys, secret, call.body["value"], origin="update", now_ms=call.now_ms)
    _note(call, "secret_update", secret["id"], secret["project_id"], f"value replaced, now version {version}")
    return {"id": secret["id"], "version": version}


def delete(call: Call) -> object:
    """Move to the trash. That disarms a canary, so it takes the scope that disarming takes."""
    secret = _require(call)
    if secret["kind"] == "canary" and DISARM not in call.agent.scopes:
        raise Denied(403, f"the secret is a canary: the agent lacks the scope {DISARM}", call.agent.id, DISARM)
    call.db.execute("UPDATE secrets SET deleted_ms = ? WHERE id = ?", (call.now_ms, secret["id"]))
    _note(call, "secret_delete", secret["id"], secret["project_id"], f"{secret['name']} moved to the trash")
    return {"id": secret["id"], "deletedAt": call.now_ms, "purgeAt": call.now_ms + TRASH_MS}


def rename(call: Call) -> object:
    """Give it another name."""
    secret, name = _require(call), call.body["name"]
    call.db.execute("UPDATE secrets SET name = ?, updated_ms = ? WHERE id = ?", (name, call.now_ms, secret["id"]))
    _note(call, "secret_rename", secret["id"], secret["project_id"], f"renamed from {secret['name']} to {name}")
    return {"id": secret["id"], "name": name}


def update_note(call: Call) -> object:
    """Replace the note; an absent one clears it."""
    secret, words = _require(call), call.body.get("note", "")
    call.db.execute("UPDATE secrets SET note = ?, updated_ms = ? WHERE id = ?", (words, call.now_ms, secret["id"]))
    _note(call, "secret_note_update", secret["id"], secret["project_id"], "note replaced" if words else "note cleared")
    return {"id": secret["id"], "name": secret["name"]}


def rotate(call: Call) -> object:
    """Have the vault make the next value; a scheduled secret follows its schedule where the body says nothing."""
    secret = _require(call)
    if secret["kind"] == "canary" and call.body:
        raise Refusal(409, "the secret is a canary: its value belongs to the vault")
    version = rotated(call.db, call.keys, secret, recipe_of(call.db, secret).changed(call.body), call.now_ms)
    _note(call, "secret_rotate", secret["id"], secret["project_id"], f"rotated, now version {version}")
    return {"id": secret["id"], "version": version}


def rollback(call: Call) -> object:
    """Write an old version's value again, as the next version."""
    secret, old = _require(call), call.body["version"]
    _refuse_vaults_own(secret)
    value = plaintext(call.db, call.keys, secret, old)
    version = add_version(call.db, call.keys, secret, value, origin="rollback", now_ms=call.now_ms)
    _note(call, "secret_rollback", secret["id"], secret["project_id"], f"version {old} restored as version {version}")
    return {"id": secret["id"], "version": version}


def versions(call: Call) -> object:
    """Every version, newest first, without its value."""
    secret = _require(call)
    rows = call.db.execute(
        "SELECT version, origin, created_ms FROM secret_versions WHERE secret_id = ? ORDER BY version DESC",
        (secret["id"],),
    )
    return [{"version": row["version"], "origin": row["origin"], "createdAt": row["created_ms"]} for row in rows]


def _refuse_vaults_own(secret: sqlite3.Row) -> None:
    """Nobody writes a value that the vault is in charge of, an old one neither: it would be known again."""
    if secret["kind"] == "canary":
        raise Refusal(409, "the secret is a canary: its value belongs to the vault")
    if secret["rotating"]:
        raise Refusal(409, "the secret has an active rotation schedule: rotate it, or delete the schedule first")


def _require(call: Call) -> sqlite3.Row:
    project = projects.require(call, call.params["projectId"])
    secret = find(call.db, call.params["secretId"])
    if secret["project_id"] != project["id"]:
        raise Refusal(404, "no such secret")
    return secret


def stored_recipe(schedule: sqlite3.Row) -> Recipe:
    """The recipe that a rotation schedule holds."""
    fields: list[str] | None = json.loads(schedule["fields"]) if schedule["fields"] else None
    return Recipe(schedule["length"], schedule["charset"], tuple(fields) if fields else None)


def _note(call: Call, action: str, secret_id: str, project_id: str, detail: str) -> None:
    audit.note(call, action, detail, secret_id=secret_id, project_id=project_id)


def _place(secret: sqlite3.Row, version: int) -> Envelope:
    return Envelope(secret["project_id"], secret["wrapped_project_key"], secret["id"], version)


NAME = text(1, 255)
NOTE = text()
CREATE_FIELDS = {
    "name": NAME.must(),
    "value": VALUE.must(),
    "note": NOTE,
    "fieldNames": FIELD_NAMES,
    "projectId": text(),
}
ROTATE_FIELDS = {"length": LENGTH, "charset": CHARSET, "fields": FIELD_NAMES}
VERSION_FIELDS = {"version": integer(1, 2**53 - 1).must()}

READ, WRITE = "projects.secrets.read", "projects.secrets.write"
DISARM = "projects.policies.write"
ALL = "/v1/ai/projects/{projectId}/secrets"
ONE = ALL + "/{secretId}"

# fmt: off
ROUTES = (
    Route("GET",  ALL,               READ,  list_all),
    Route("POST", ALL,               WRITE, create,       CREATE_FIELDS, status=201),
    Route("GET",  ONE,               READ,  get),
    Route("POST", ONE + "/update",   WRITE, update_value, {"value": VALUE.must()}),
    Route("POST", ONE + "/delete",   WRITE, delete),
    Route("POST", ONE + "/name",     WRITE, rename,       {"name": NAME.must()}),
    Route("POST", ONE + "/note",     WRITE, update_note,  {"note": NOTE}),
    Route("POST", ONE + "/rotate",   WRITE, rotate,       ROTATE_FIELDS),
    Route("POST", ONE + "/rollback", WRITE, rollback,     VERSION_FIELDS),
    Route("GET",  ONE + "/versions", READ,  versions),
)
# fmt: on
