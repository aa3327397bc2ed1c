"""What machines may do: read, list, export, and ask what has changed. The shapes are those of the vendor's client.

A read passes, in this order: the gate (signature, state, IP allowlist), the secret itself, membership in its project,
the grant, the freeze of a canary, the policy. Whatever forbids it is audited with the secret's id.

`poll` answers at once. Clients carry no version with them, so the vault remembers for each machine which version of a
watched secret it has: the one it last read, or the one that was current when it first asked. A newer one is `changed`
at every poll until the machine has read it, since an answer may get lost, or the read be forbidden just then. Processes
that share one identity share that memory: give each its own.
"""

from __future__ import annotations

import json
import sqlite3

from vault import audit, canaries, policies, stored_secrets
from vault.calls import Call, Route
from vault.errors import Denied, ReadDenied, Refusal
from vault.inputs import text, texts

TABLES = """
CREATE TABLE IF NOT EXISTS machine_versions (
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    PRIMARY KEY (machine_id, secret_id)
);
CREATE INDEX IF NOT EXISTS machine_versions_by_secret ON machine_versions (secret_id);
"""

# Canaries first: a thief that exports everything springs the trap before it gets anything else of that project.
GRANTED = """
SELECT s.id FROM secrets s
JOIN grants g ON g.secret_id = s.id AND g.machine_id = :machine
JOIN project_machines p ON p.project_id = s.project_id AND p.machine_id = :machine
WHERE s.deleted_ms IS NULL AND (:project IS NULL OR s.project_id = :project)
ORDER BY s.kind <> 'canary', s.created_ms, s.id
"""


def read_one(call: Call) -> object:
    """The value of one secret."""
    return {"value": _read(call, _granted(call, call.params["secretId"]))}


def list_all(call: Call) -> object:
    """The secrets that the machine may read, in all of its projects or in one."""
    return {"secrets": [_shown(secret) for secret in _all_granted(call)]}


def export(call: Call) -> object:
    """The same with their values, without those that a freeze or a policy forbids."""
    rows = []
    for secret in _all_granted(call):
        try:
            rows.append({**_shown(secret), "value": _read(call, secret)})
        except ReadDenied as denied:
            _note(call, "secret_read_denied", secret, str(denied))
    return {"secrets": rows}


def poll(call: Call) -> object:
    """Which of the watched secrets have a newer version than the machine, are gone, or are not for it."""
    found = ((secret_id, _change(call, secret_id)) for secret_id in dict.fromkeys(call.body["watch"]))
    return {"changes": {secret_id: {"status": status} for secret_id, status in found if status}}


def _read(call: Call, secret: sqlite3.Row) -> str:
    """The value, once freeze and policy agree; a canary has frozen its project by the time this returns."""
    canaries.refuse_if_frozen(call, secret)
    policies.admit_read(call, secret)
    if secret["kind"] == "canary":
        canaries.spring(call, secret)
    value = stored_secrets.plaintext(call.db, call.keys, secret, secret["version"])
    _note(call, "secret_read", secret, f"{secret['name']} read, version {secret['version']}")
    _remember(call, secret, "REPLACE")
    policies.after_read(call, secret)
    return value


def _change(call: Call, secret_id: str) -> str | None:
    try:
        secret = _granted(call, secret_id)
    except ReadDenied as denied:
        return "deleted" if denied.status == 404 else "access_denied"
    _remember(call, secret, "IGNORE")
    known = call.db.execute(
        "SELECT version FROM machine_versions WHERE machine_id = ? AND secret_id = ?", (call.machine.id, secret_id)
    ).fetchone()
    return "changed" if known["version"] != secret["version"] else None


def _remember(call: Call, secret: sqlite3.Row, conflict: str) -> None:
    """The machine has this version now; IGNORE keeps what is known already."""
    call.db.execute(
        f"INSERT OR {conflict} INTO machine_versions (machine_id, secret_id, version) VALUES (?, ?, ?)",
        (call.machine.id, secret["id"], secret["version"]),
    )


def _granted(call: Call, secret_id: str) -> sqlite3.Row:
    """A secret that exists, in a project of the machine, and granted to it."""
    try:
        secret = stored_secrets.find(call.db, secret_id)
    except Refusal as missing:
        raise ReadDenied(404, str(missing), call.machine.id, secret_id, None) from None
    ids = (secret["id"], secret["project_id"])
    if not _is_member(call, secret["project_id"]):
        raise ReadDenied(403, "the machine is not in the secret's project", call.machine.id, *ids)
    grant = call.db.execute("SELECT 1 FROM grants WHERE machine_id = ? AND secret_id = ?", (call.machine.id, ids[0]))
    if grant.fetchone() is None:
        raise ReadDenied(403, "the machine has no grant for the secret", call.machine.id, *ids)
    return secret


def _all_granted(call: Call) -> list[sqlite3.Row]:
    project_id = call.body.get("projectId")
    if project_id is not None and not _is_member(call, project_id):
        raise Denied(403, "the machine is not in the project", call.machine.id)
    rows = call.db.execute(GRANTED, {"machine": call.machine.id, "project": project_id}).fetchall()
    return [stored_secrets.find(call.db, row["id"]) for row in rows]


def _is_member(call: Call, project_id: str) -> bool:
    member = "SELECT 1 FROM project_machines WHERE project_id = ? AND machine_id = ?"
    return call.db.execute(member, (project_id, call.machine.id)).fetchone() is not None


def _shown(secret: sqlite3.Row) -> dict[str, object]:
    """The client takes the field names as JSON inside a string."""
    names = stored_secrets.field_names(secret)
    return {
        "id": secret["id"],
        "name": secret["name"],
        "fieldNames": None if names is None else json.dumps(names, ensure_ascii=False),
        "projectId": secret["project_id"],
    }


def _note(call: Call, action: str, secret: sqlite3.Row, detail: str) -> None:
    audit.note(call, action, detail, secret_id=secret["id"], project_id=secret["project_id"])


PROJECT = text(1, 64)

# fmt: off
ROUTES = (
    Route("GET",  "/v1/secret/{secretId}",  None, read_one,                                 caller="machine"),
    Route("GET",  "/v1/secrets",            None, list_all,                                 caller="machine"),
    Route("POST", "/v1/secrets/list",       None, list_all, {"projectId": PROJECT.must()},  caller="machine"),
    Route("POST", "/v1/secrets/export",     None, export,   {"projectId": PROJECT},         caller="machine"),
    Route("POST", "/v1/secrets/poll",       None, poll,     {"watch": texts().must()},      caller="machine"),
)
# fmt: on
