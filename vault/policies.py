"""Access policies: what has to hold, besides a grant, when a machine reads a secret.

A policy belongs to a project and is bound to secrets of it, at most one to each; canaries included. What its axes mean
and which of them a read breaks is in `axes`; here is what they look at: how often the secret was read since the policy
was bound, when, at which version, and which machine asked when.

Co-signing is between the machine that the policy names and any other: each may read once the other has asked for the
same secret within the window. A first request is refused and remembered, and nothing is used up by reading.
"""

from __future__ import annotations

import json
import sqlite3

from vault import audit, axes, projects, stored_secrets
from vault.axes import Facts, Rules
from vault.calls import SYSTEM, Call, Route
from vault.crypto import new_id
from vault.errors import ReadDenied, Refusal
from vault.inputs import something, text

TABLES = """
CREATE TABLE IF NOT EXISTS policies (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    rules TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS policies_by_project ON policies (project_id);
CREATE TABLE IF NOT EXISTS policy_bindings (
    secret_id TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    policy_id TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    reads INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    version_reads INTEGER NOT NULL DEFAULT 0,
    bound_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS policy_bindings_by_policy ON policy_bindings (policy_id);
CREATE TABLE IF NOT EXISTS policy_reads (
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    read_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS policy_reads_by_secret ON policy_reads (secret_id, read_ms);
CREATE TABLE IF NOT EXISTS cosign_requests (
    secret_id TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    asked_ms INTEGER NOT NULL,
    PRIMARY KEY (secret_id, machine_id)
);
"""

SELECT = """
SELECT p.*, (SELECT COUNT(*) FROM policy_bindings b WHERE b.policy_id = p.id) AS bound FROM policies p
WHERE p.project_id = ?
"""
BINDING = """
SELECT b.*, p.name, p.rules FROM policy_bindings b JOIN policies p ON p.id = b.policy_id WHERE b.secret_id = ?
"""
# The machine that the policy names waits for any other, every other for the one that it names.
OTHER_SIDE = """
SELECT max(asked_ms) FROM cosign_requests
WHERE secret_id = :secret AND (machine_id = :cosigner) <> (:machine = :cosigner)
"""


# ---- for the reads of machines ---------------------------------------------------------------------------------------


def admit_read(call: Call, secret: sqlite3.Row) -> None:
    """Refuse a machine's read that the secret's policy forbids, and say which axis does."""
    binding = _binding(call.db, secret["id"])
    if binding is None:
        return
    rules = json.loads(binding["rules"])
    axis = axes.broken(rules, _facts(call, rules, binding))
    asked = axis in (None, "coSign")
    if rules.get("coSignEnabled") and asked:
        _remember(call, secret["id"])
    if axis is not None:
        message = f"policy {binding['policy_id']} forbids this read: {axis}"
        denied = ReadDenied(403, message, call.machine.id, secret["id"], secret["project_id"])
        denied.keeps = asked
        raise denied


def after_read(call: Call, secret: sqlite3.Row) -> None:
    """Count a machine's read, and rotate the value that it was given where the policy says so."""
    binding = _binding(call.db, secret["id"])
    if binding is None:
        return
    rules = json.loads(binding["rules"])
    version_reads = (binding["version_reads"] if binding["version"] == secret["version"] else 0) + 1
    call.db.execute(
        "UPDATE policy_bindings SET reads = reads + 1, version = ?, version_reads = ? WHERE secret_id = ?",
        (secret["version"], version_reads, secret["id"]),
    )
    if rules.get("rateCapEnabled"):
        _record_time(call, secret["id"])
    if axes.rotates(rules, version_reads):
        _rotate(call, secret, version_reads)


def _facts(call: Call, rules: Rules, binding: sqlite3.Row) -> Facts:
    secret_id, capped = binding["secret_id"], rules.get("rateCapEnabled")
    return Facts(
        now_ms=call.now_ms,
        source_ip=call.source_ip,
        reads=binding["reads"],
        reads_last_minute=_reads_since(call.db, secret_id, call.now_ms - axes.MINUTE_MS) if capped else 0,
        reads_last_day=_reads_since(call.db, secret_id, call.now_ms - axes.DAY_MS) if capped else 0,
        cosigned_ms=_other_side(call, rules, secret_id) if rules.get("coSignEnabled") else None,
    )


def _reads_since(db: sqlite3.Connection, secret_id: str, since_ms: int) -> int:
    row = db.execute("SELECT COUNT(*) FROM policy_reads WHERE secret_id = ? AND read_ms > ?", (secret_id, since_ms))
    count: int = row.fetchone()[0]
    return count


def _other_side(call: Call, rules: Rules, secret_id: str) -> int | None:
    sides = {"secret": secret_id, "cosigner": rules["coSignMachineId"], "machine": call.machine.id}
    asked_ms: int | None = call.db.execute(OTHER_SIDE, sides).fetchone()[0]
    return asked_ms


def _remember(call: Call, secret_id: str) -> None:
    call.db.execute(
        "INSERT OR REPLACE INTO cosign_requests (secret_id, machine_id, asked_ms) VALUES (?, ?, ?)",
        (secret_id, call.machine.id, call.now_ms),
    )


def _record_time(call: Call, secret_id: str) -> None:
    old = (secret_id, call.now_ms - axes.DAY_MS)
    call.db.execute("DELETE FROM policy_reads WHERE secret_id = ? AND read_ms <= ?", old)
    call.db.execute("INSERT INTO policy_reads (secret_id, read_ms) VALUES (?, ?)", (secret_id, call.now_ms))


def _rotate(call: Call, secret: sqlite3.Row, reads: int) -> None:
    """The read that led here has its value; one that cannot be replaced is tried again after the next read."""
    recipe = stored_secrets.recipe_of(call.db, secret)
    try:
        version = stored_secrets.rotated(call.db, call.keys, secret, recipe, call.now_ms)
    except Refusal as refusal:
        action, detail = "secret_rotate_denied", f"not rotated after {reads} reads: {refusal}"
    else:
        action, detail = "secret_rotate", f"rotated after {reads} reads, now version {version}"
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    audit.record(call.db, call.now_ms, SYSTEM, action, detail, **ids)


# ---- routes: policies ------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The policies of a project, oldest first."""
    project = projects.require(call, call.params["projectId"])
    return [_shown(row) for row in call.db.execute(SELECT + "ORDER BY p.created_ms, p.id", (project["id"],))]


def get(call: Call) -> object:
    """One policy with the secrets that it is bound to; those in the trash come back under it."""
    policy = _require(call)
    rows = call.db.execute(
        "SELECT s.id, s.name, s.deleted_ms IS NOT NULL AS deleted FROM policy_bindings b JOIN secrets s"
        " ON s.id = b.secret_id WHERE b.policy_id = ? ORDER BY b.bound_ms, s.id",
        (policy["id"],),
    )
    bound = [{"id": row["id"], "name": row["name"], "inTrash": bool(row["deleted"])} for row in rows]
    return {**_shown(policy), "boundSecrets": bound}


def create(call: Call) -> object:
    """A new policy; whatever it switches on has to be complete."""
    project = projects.require(call, call.params["projectId"])
    policy_id, name, rules = new_id("pol_"), call.body["name"], _rules_in(call)
    _check(call, project["id"], rules)
    call.db.execute(
        "INSERT INTO policies (id, project_id, name, description, rules, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (policy_id, project["id"], name, call.body.get("description", ""), json.dumps(rules), call.now_ms, call.now_ms),
    )
    audit.note(call, "policy_create", f"policy {policy_id} created as {name}", project_id=project["id"])
    return {"id": policy_id, "name": name}


def update(call: Call) -> object:
    """Change what is named; what is absent stays."""
    policy = _require(call)
    something(call.body, UPDATE_FIELDS)
    rules = {**json.loads(policy["rules"]), **_rules_in(call)}
    _check(call, policy["project_id"], rules)
    name = call.body.get("name", policy["name"])
    call.db.execute(
        "UPDATE policies SET name = ?, description = ?, rules = ?, updated_ms = ? WHERE id = ?",
        (name, call.body.get("description", policy["description"]), json.dumps(rules), call.now_ms, policy["id"]),
    )
    changed = ", ".join(sorted(call.body))
    detail = f"policy {policy['id']}: {changed} changed"
    audit.note(call, "policy_update", detail, project_id=policy["project_id"])
    return {"id": policy["id"], "name": name}


def delete(call: Call) -> object:
    """Remove a policy that binds no secret, not even one in the trash."""
    policy = _require(call)
    if policy["bound"]:
        raise Refusal(409, f"the policy is bound to {policy['bound']} secrets: unbind them first")
    call.db.execute("DELETE FROM policies WHERE id = ?", (policy["id"],))
    detail = f"policy {policy['id']} deleted, was {policy['name']}"
    audit.note(call, "policy_delete", detail, project_id=policy["project_id"])
    return {"id": policy["id"], "name": policy["name"], "deleted": True}


def _rules_in(call: Call) -> dict[str, object]:
    return {key: call.body[key] for key in axes.FIELDS if key in call.body}


def _check(call: Call, project_id: str, rules: Rules) -> None:
    axes.check(rules)
    # A machine that has left since does not stand in the way of changing something else.
    if not rules.get("coSignEnabled") or {"coSignEnabled", "coSignMachineId"}.isdisjoint(call.body):
        return
    place = (project_id, rules["coSignMachineId"])
    member = call.db.execute("SELECT 1 FROM project_machines WHERE project_id = ? AND machine_id = ?", place)
    if member.fetchone() is None:
        raise Refusal(400, "coSignMachineId must be a machine of the project")


def _require(call: Call) -> sqlite3.Row:
    project = projects.require(call, call.params["projectId"])
    return _in_project(call.db, project["id"], call.params["policyId"])


def _in_project(db: sqlite3.Connection, project_id: str, policy_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(SELECT + "AND p.id = ?", (project_id, policy_id)).fetchone()
    if row is None:
        raise Refusal(404, "no such policy in the project")
    return row


def _shown(row: sqlite3.Row) -> dict[str, object]:
    rules = json.loads(row["rules"])
    return {
        "id": row["id"],
        "projectId": row["project_id"],
        "name": row["name"],
        "description": row["description"],
        **{key: rules.get(key, False if field.kind == "boolean" else None) for key, field in axes.FIELDS.items()},
        "boundSecretCount": row["bound"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


# ---- routes: bindings ------------------------------------------------------------------------------------------------


def binding_get(call: Call) -> object:
    """Which policy a secret is under, if any, and how much of it is used up."""
    secret = stored_secrets.find(call.db, call.params["secretId"])
    binding = _binding(call.db, secret["id"])
    if binding is None:
        return {"secretId": secret["id"], "policyId": None}
    return {
        "secretId": secret["id"],
        "policyId": binding["policy_id"],
        "policyName": binding["name"],
        "reads": binding["reads"],
        "readsOfVersion": binding["version_reads"] if binding["version"] == secret["version"] else 0,
        "boundAt": binding["bound_ms"],
    }


def bind(call: Call) -> object:
    """Put a secret under a policy of its project. Another policy starts counting anew, the same one goes on."""
    secret = stored_secrets.find(call.db, call.params["secretId"])
    policy = _in_project(call.db, secret["project_id"], call.body["policyId"])
    binding = _binding(call.db, secret["id"])
    if binding is None or binding["policy_id"] != policy["id"]:
        _forget(call.db, secret["id"])
        call.db.execute(
            "INSERT INTO policy_bindings (secret_id, policy_id, bound_ms) VALUES (?, ?, ?)",
            (secret["id"], policy["id"], call.now_ms),
        )
        _note(call, "policy_bind", secret, f"policy {policy['id']} bound to {secret['name']}")
    return {"secretId": secret["id"], "policyId": policy["id"], "policyName": policy["name"]}


def unbind(call: Call) -> object:
    """Take a secret out from under its policy."""
    secret = stored_secrets.find(call.db, call.params["secretId"])
    binding = _binding(call.db, secret["id"])
    if binding is None:
        raise Refusal(404, "no policy is bound to the secret")
    _forget(call.db, secret["id"])
    _note(call, "policy_unbind", secret, f"policy {binding['policy_id']} unbound from {secret['name']}")
    return {"secretId": secret["id"], "policyId": None}


def _binding(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(BINDING, (secret_id,)).fetchone()
    return row


def _forget(db: sqlite3.Connection, secret_id: str) -> None:
    """Requests to co-sign go with the policy; the times of reads stay, or unbinding would lift a cap."""
    db.execute("DELETE FROM policy_bindings WHERE secret_id = ?", (secret_id,))
    db.execute("DELETE FROM cosign_requests WHERE secret_id = ?", (secret_id,))


def _note(call: Call, action: str, secret: sqlite3.Row, detail: str) -> None:
    audit.note(call, action, detail, secret_id=secret["id"], project_id=secret["project_id"])


NAME = text(1, 255)
UPDATE_FIELDS = {"name": NAME, "description": text(), **axes.FIELDS}
CREATE_FIELDS = {**UPDATE_FIELDS, "name": NAME.must()}

READ, WRITE = "projects.policies.read", "projects.policies.write"
ALL = "/v1/ai/projects/{projectId}/policies"
ONE = ALL + "/{policyId}"
BOUND = "/v1/ai/secrets/{secretId}/binding"

# fmt: off
ROUTES = (
    Route("GET",  ALL,                READ,  list_all),
    Route("POST", ALL,                WRITE, create, CREATE_FIELDS, status=201),
    Route("GET",  ONE,                READ,  get),
    Route("POST", ONE + "/update",    WRITE, update, UPDATE_FIELDS),
    Route("POST", ONE + "/delete",    WRITE, delete),
    Route("GET",  BOUND,              READ,  binding_get),
    Route("POST", BOUND,              WRITE, bind,   {"policyId": text().must()}),
    Route("POST", BOUND + "/delete",  WRITE, unbind),
)
# fmt: on
