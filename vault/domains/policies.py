"""Access policies: additional conditions for reads by machines.

A policy belongs to a project and can be bound to its secrets, including canaries. A secret has at most one policy. The
module `axes` defines the conditions. This module stores what they depend on: how often the secret was read since the
policy was bound, when, at which version, and when each machine requested it.

Co-signing involves the machine that the policy names and any other machine: each may read after the other has requested
the same secret within the window. The first request is refused but stored. A read does not use up a request.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from vault import audit, seals, totals
from vault.crypto import new_id
from vault.domains import axes, projects, secrets
from vault.domains.axes import Facts, Rules
from vault.errors import EMPTY, ReadDenied, Refusal, Tampered
from vault.inputs import checked, require_any, text
from vault.query import count, fetch_one, require_one
from vault.router import SYSTEM, Call, Route

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
DROP INDEX IF EXISTS policies_by_project;
CREATE INDEX IF NOT EXISTS policies_by_age ON policies (project_id, created_ms, id);
CREATE TABLE IF NOT EXISTS policy_bindings (
    secret_id TEXT PRIMARY KEY REFERENCES secrets (id) ON DELETE CASCADE,
    policy_id TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    reads INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    version_reads INTEGER NOT NULL DEFAULT 0,
    bound_ms INTEGER NOT NULL
);
DROP INDEX IF EXISTS policy_bindings_by_policy;
CREATE INDEX IF NOT EXISTS policy_bindings_by_age ON policy_bindings (policy_id, bound_ms, secret_id);
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
CREATE INDEX IF NOT EXISTS cosign_requests_by_machine ON cosign_requests (machine_id);
"""

SELECT = f"""
SELECT p.*, {totals.subquery("bindings", "p.id")} AS bound FROM policies p
WHERE p.project_id = ?
"""
BINDING = """
SELECT b.*, p.name, p.rules FROM policy_bindings b JOIN policies p ON p.id = b.policy_id WHERE b.secret_id = ?
"""
# The named machine needs a request of any other machine; every other machine needs one of the named machine.
OTHER_REQUEST = """
SELECT max(asked_ms) FROM cosign_requests
WHERE secret_id = :secret AND (machine_id = :cosigner) <> (:machine = :cosigner)
"""


# ---- for reads by machines -------------------------------------------------------------------------------------------


def check_read(call: Call, secret: sqlite3.Row) -> None:
    """Raise ReadDenied, naming the axis, if the policy of the secret forbids the read."""
    binding = _binding(call.db, secret["id"])
    if binding is None:
        return
    ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
    seals.require(call.db, "policy", binding["policy_id"], **ids)
    rules = json.loads(binding["rules"])
    axis = axes.find_violation(rules, _facts(call, rules, binding))
    counts_as_request = bool(rules.get("coSignEnabled")) and axis in (None, "coSign")
    if counts_as_request:
        _store_cosign_request(call, secret["id"])
    if axis is not None:
        message = f"policy {binding['policy_id']} forbids this read: {axis}"
        denied = ReadDenied(403, message, call.machine.id, secret["id"], secret["project_id"])
        denied.keep_changes = counts_as_request
        denied.axis = axis
        raise denied


def after_read(call: Call, secret: sqlite3.Row) -> None:
    """Count a read, and rotate the value if the policy requires it."""
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
        _store_read_time(call, secret["id"])
    if axes.is_rotation_due(rules, version_reads):
        _rotate(call, secret, version_reads)


def _facts(call: Call, rules: Rules, binding: sqlite3.Row) -> Facts:
    secret_id, capped = binding["secret_id"], rules.get("rateCapEnabled")
    return Facts(
        now_ms=call.now_ms,
        source_ip=call.source_ip,
        reads=binding["reads"],
        reads_last_minute=_reads_since(call.db, secret_id, call.now_ms - axes.MINUTE_MS) if capped else 0,
        reads_last_day=_reads_since(call.db, secret_id, call.now_ms - axes.DAY_MS) if capped else 0,
        cosigned_ms=_other_request_ms(call, rules, secret_id) if rules.get("coSignEnabled") else None,
    )


def _reads_since(db: sqlite3.Connection, secret_id: str, since_ms: int) -> int:
    return count(db, "SELECT COUNT(*) FROM policy_reads WHERE secret_id = ? AND read_ms > ?", (secret_id, since_ms))


def _other_request_ms(call: Call, rules: Rules, secret_id: str) -> int | None:
    sides = {"secret": secret_id, "cosigner": rules["coSignMachineId"], "machine": call.machine.id}
    asked_ms: int | None = call.db.execute(OTHER_REQUEST, sides).fetchone()[0]
    return asked_ms


def _store_cosign_request(call: Call, secret_id: str) -> None:
    call.db.execute(
        "INSERT OR REPLACE INTO cosign_requests (secret_id, machine_id, asked_ms) VALUES (?, ?, ?)",
        (secret_id, call.machine.id, call.now_ms),
    )


def _store_read_time(call: Call, secret_id: str) -> None:
    old = (secret_id, call.now_ms - axes.DAY_MS)
    call.db.execute("DELETE FROM policy_reads WHERE secret_id = ? AND read_ms <= ?", old)
    call.db.execute("INSERT INTO policy_reads (secret_id, read_ms) VALUES (?, ?)", (secret_id, call.now_ms))


def _rotate(call: Call, secret: sqlite3.Row, reads: int) -> None:
    """Rotate the value after a read. After a failure, the next read tries again."""
    options = secrets.generator_options(call.db, secret)
    try:
        version = secrets.rotate_value(call.db, call.keys, secret, options, call.now_ms)
    except Tampered as found:
        action, detail = found.action, f"not rotated after {reads} reads: {found.what}"
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
    return [_to_json(row) for row in call.db.execute(SELECT + "ORDER BY p.created_ms, p.id", (project["id"],))]


def get(call: Call) -> object:
    """One policy with its bound secrets, including those in the trash, which stay bound when restored."""
    policy = _require(call)
    rows = call.db.execute(
        "SELECT s.id, s.name, s.deleted_ms IS NOT NULL AS deleted FROM policy_bindings b JOIN secrets s"
        " ON s.id = b.secret_id WHERE b.policy_id = ? ORDER BY b.bound_ms, b.secret_id",
        (policy["id"],),
    )
    bound = [{"id": row["id"], "name": row["name"], "inTrash": bool(row["deleted"])} for row in rows]
    return {**_to_json(policy), "boundSecrets": bound}


def create(call: Call) -> object:
    """Create a policy. The rules of every enabled axis must be complete."""
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
    """Change a policy. Absent keys stay unchanged."""
    policy = _require(call)
    require_any(call.body, UPDATE_FIELDS)
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
    """Delete a policy that is not bound to any secret, including secrets in the trash."""
    policy = _require(call)
    # The total is for showing: it is not sealed.
    if fetch_one(call.db, "SELECT 1 FROM policy_bindings WHERE policy_id = ? LIMIT 1", (policy["id"],)) is not None:
        raise Refusal(409, f"the policy is bound to {policy['bound']} secrets: unbind them first")
    call.db.execute("DELETE FROM policies WHERE id = ?", (policy["id"],))
    detail = f"policy {policy['id']} ({policy['name']}) deleted"
    audit.note(call, "policy_delete", detail, project_id=policy["project_id"])
    return {"id": policy["id"], "name": policy["name"], "deleted": True}


def describe(policy: Mapping[str, Any], machine_names: Mapping[str, str] = EMPTY) -> str:
    """What a policy means, in sentences for the owner. `policy` is as `get` and `list_all` answer it."""
    bound = policy["boundSecretCount"]
    secrets_bound = "one secret" if bound == 1 else f"{bound:,} secrets" if bound else "no secret yet"
    return f"{axes.describe(policy, machine_names)} Bound to {secrets_bound}."


def _rules_in(call: Call) -> dict[str, object]:
    return {key: call.body[key] for key in axes.FIELDS if key in call.body}


def _check(call: Call, project_id: str, rules: Rules) -> None:
    axes.check(rules)
    # Other changes stay possible after the machine has left the project.
    if rules.get("coSignEnabled") and not {"coSignEnabled", "coSignMachineId"}.isdisjoint(call.body):
        _check_cosigner(call.db, project_id, rules)


def _check_cosigner(db: sqlite3.Connection, project_id: str, rules: Rules) -> None:
    member = (project_id, rules["coSignMachineId"])
    if fetch_one(db, "SELECT 1 FROM project_machines WHERE project_id = ? AND machine_id = ?", member) is None:
        raise Refusal(400, "coSignMachineId must be a machine of the project")


def _require(call: Call) -> sqlite3.Row:
    project = projects.require(call, call.params["projectId"])
    return _require_in_project(call.db, project["id"], call.params["policyId"])


def _require_in_project(db: sqlite3.Connection, project_id: str, policy_id: str) -> sqlite3.Row:
    return require_one(db, SELECT + "AND p.id = ?", (project_id, policy_id), "no such policy in the project")


def _to_json(row: sqlite3.Row) -> dict[str, object]:
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
    """The policy of a secret, if any, and the reads counted so far."""
    secret = secrets.find(call.db, call.params["secretId"])
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
    """Bind a policy of the project to a secret. A different policy starts with new counts."""
    secret = secrets.find(call.db, call.params["secretId"])
    policy = _require_in_project(call.db, secret["project_id"], call.body["policyId"])
    binding = _binding(call.db, secret["id"])
    if binding is None or binding["policy_id"] != policy["id"]:
        _delete_binding(call.db, secret["id"])
        call.db.execute(
            "INSERT INTO policy_bindings (secret_id, policy_id, bound_ms) VALUES (?, ?, ?)",
            (secret["id"], policy["id"], call.now_ms),
        )
        audit.note_secret(call, "policy_bind", secret, f"policy {policy['id']} bound to {secret['name']}")
    return {"secretId": secret["id"], "policyId": policy["id"], "policyName": policy["name"]}


def unbind(call: Call) -> object:
    """Unbind the policy of a secret."""
    secret = secrets.find(call.db, call.params["secretId"])
    binding = _binding(call.db, secret["id"])
    if binding is None:
        raise Refusal(404, "no policy is bound to the secret")
    _delete_binding(call.db, secret["id"])
    audit.note_secret(call, "policy_unbind", secret, f"policy {binding['policy_id']} unbound from {secret['name']}")
    return {"secretId": secret["id"], "policyId": None}


def _binding(db: sqlite3.Connection, secret_id: str) -> sqlite3.Row | None:
    return fetch_one(db, BINDING, (secret_id,))


def _delete_binding(db: sqlite3.Connection, secret_id: str) -> None:
    """Delete the binding and the co-sign requests. Read times are kept, or unbinding would reset a rate cap."""
    db.execute("DELETE FROM policy_bindings WHERE secret_id = ?", (secret_id,))
    db.execute("DELETE FROM cosign_requests WHERE secret_id = ?", (secret_id,))


NAME = text(1, 255)
UPDATE_FIELDS = {"name": NAME, "description": text(), **axes.FIELDS}
CREATE_FIELDS = {**UPDATE_FIELDS, "name": NAME.required()}

READ, WRITE = "projects.policies.read", "projects.policies.write"
ALL = "/v1/ai/projects/{projectId}/policies"
ONE = ALL + "/{policyId}"
BOUND = "/v1/ai/secrets/{secretId}/binding"

# fmt: off
ROUTES = (
    Route("GET",  ALL,                READ,  list_all, reads=True),
    Route("POST", ALL,                WRITE, create, CREATE_FIELDS, status=201),
    Route("GET",  ONE,                READ,  get, reads=True),
    Route("POST", ONE + "/update",    WRITE, update, UPDATE_FIELDS),
    Route("POST", ONE + "/delete",    WRITE, delete),
    Route("GET",  BOUND,              READ,  binding_get, reads=True),
    Route("POST", BOUND,              WRITE, bind,   {"policyId": text().required()}),
    Route("POST", BOUND + "/delete",  WRITE, unbind),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def replace(call: Call) -> object:
    """Set all rules of a policy to those of the body, so that conditions can also be removed. Raises Refusal."""
    policy = _require(call)
    checked(call.body, CREATE_FIELDS)
    old, rules = json.loads(policy["rules"]), _rules_in(call)
    axes.check(rules)
    cosigner = [each.get("coSignMachineId") for each in (old, rules)]
    # It may have left the project since.
    if rules.get("coSignEnabled") and (not old.get("coSignEnabled") or cosigner[0] != cosigner[1]):
        _check_cosigner(call.db, policy["project_id"], rules)
    changes = {key for key in axes.FIELDS if old.get(key) != rules.get(key)}
    given = {key: call.body.get(key, "") for key in ("name", "description")}
    changes |= {key for key, value in given.items() if value != policy[key]}
    if changes:
        call.db.execute(
            "UPDATE policies SET name = ?, description = ?, rules = ?, updated_ms = ? WHERE id = ?",
            (given["name"], given["description"], json.dumps(rules), call.now_ms, policy["id"]),
        )
        detail = f"policy {policy['id']}: {', '.join(sorted(changes))} changed"
        audit.note(call, "policy_update", detail, project_id=policy["project_id"])
    return {"id": policy["id"], "name": given["name"]}
