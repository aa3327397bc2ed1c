"""Machines in projects: membership, and the grants that let members read secrets.

Agents that can reach a project see its machines. An agent with a project allowlist can attach a machine only if it
already sees the machine in another of its projects.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from vault import audit, makers, totals
from vault.domains import machines, projects
from vault.errors import Refusal
from vault.inputs import PAGE, integer, text, text_list
from vault.query import count, fetch_one, require_one
from vault.router import OWNER, Actor, Call, Route

PAGE_SIZE = 50

GRANTED = """
(SELECT COUNT(*) FROM grants g JOIN secrets s ON s.id = g.secret_id
    WHERE g.machine_id = m.id AND s.project_id = p.project_id AND s.deleted_ms IS NULL)
"""
SELECT = f"SELECT m.*, p.added_ms, {GRANTED} AS secret_count "
FOUND = " AND instr(lower(m.name || ' ' || m.hostname), lower(:search)) > 0"
# The members in the order of the project, and the machines in the order of their names that are members.
MEMBERS = "FROM project_machines p CROSS JOIN machines m ON m.id = p.machine_id WHERE p.project_id = :project"
BY_NAME = """
FROM machines m CROSS JOIN project_machines p ON p.machine_id = m.id AND p.project_id = :project WHERE 1
"""
# The columns of each order. The number of grants is in no index: it is counted for every member.
ORDERS = {
    "name": ("lower(m.name)", "m.id"),
    "added": ("p.added_ms", "p.machine_id"),
    "secretCount": ("secret_count", "p.machine_id"),
}
FEW = 4  # if at most one machine in this many is a member, sorting the members is quicker than a walk along all names

# The plus keeps SQLite from walking all secrets of the project instead of the grants of one machine.
GRANTS = """
SELECT s.id, s.name, g.granted_ms FROM grants g JOIN secrets s ON s.id = g.secret_id
WHERE g.machine_id = ? AND +s.project_id = ? AND s.deleted_ms IS NULL ORDER BY s.created_ms, s.id
"""


def query(call: Call) -> object:
    """One page of the project's machines."""
    project = projects.require(call, call.params["projectId"])
    page, size = call.body.get("page", 1), call.body.get("pageSize", PAGE_SIZE)
    order, search = call.body.get("sortBy", "name"), call.body.get("search")
    direction = "DESC" if call.body.get("sortDir") == "desc" else "ASC"
    matching = _matching(call.db, project["id"], search, by_name=order == "name")
    ordered = ", ".join(f"{column} {direction}" for column in ORDERS[order])
    values = {"project": project["id"], "search": search, "limit": size, "offset": (page - 1) * size}
    rows = call.db.execute(f"{SELECT}{matching} ORDER BY {ordered} LIMIT :limit OFFSET :offset", values)
    machines_of_page = [_to_json(row, call.now_ms) for row in rows]
    all_of_them = totals.of(call.db, "memberships", project["id"])
    total = all_of_them if search is None else count(call.db, f"SELECT COUNT(*) {MEMBERS}{FOUND}", values)
    return {"machines": machines_of_page, "total": total, "page": page, "pageSize": size}


def attach(call: Call) -> object:
    """Add a machine to the project. It can read nothing until it gets grants."""
    project = projects.require(call, call.params["projectId"])
    machine = machines.require(call, call.body["machineId"])
    added = call.db.execute(
        "INSERT OR IGNORE INTO project_machines (project_id, machine_id, added_ms) VALUES (?, ?, ?)",
        (project["id"], machine["id"], call.now_ms),
    )
    if added.rowcount != 1:
        raise Refusal(409, "the machine is already in the project")
    audit.note(call, "project_machine_add", f"machine {machine['id']} added", project_id=project["id"])
    return {"projectId": project["id"], "machineId": machine["id"], "name": machine["name"]}


def detach(call: Call) -> object:
    """Remove a machine from the project, together with its grants there."""
    project_id, machine = _require_member(call)
    dropped = call.db.execute(
        "DELETE FROM grants WHERE machine_id = ?"
        " AND EXISTS (SELECT 1 FROM secrets s WHERE s.id = grants.secret_id AND +s.project_id = ?)",
        (machine["id"], project_id),
    ).rowcount
    call.db.execute("DELETE FROM project_machines WHERE project_id = ? AND machine_id = ?", (project_id, machine["id"]))
    detail = f"machine {machine['id']} removed with its {dropped} grants"
    audit.note(call, "project_machine_remove", detail, project_id=project_id)
    return {"projectId": project_id, "machineId": machine["id"], "name": machine["name"], "grantsRemoved": dropped}


def grants_get(call: Call) -> object:
    """The secrets of the project that are granted to the machine."""
    project_id, machine = _require_member(call)
    rows = call.db.execute(GRANTS, (machine["id"], project_id))
    return [{"id": row["id"], "name": row["name"], "grantedAt": row["granted_ms"]} for row in rows]


def grants_set(call: Call) -> object:
    """Replace all grants in the project. Ids that are not secrets of the project are ignored.

    Grants for secrets in the trash are removed too, so a restored secret has no grant.
    """
    project_id, machine = _require_member(call)
    before = _granted(call.db, machine["id"], project_id)
    wanted = call.db.execute(
        "SELECT id FROM secrets WHERE id IN (SELECT value FROM json_each(?))"
        " AND +project_id = ? AND deleted_ms IS NULL",
        (json.dumps(call.body["secretIds"]), project_id),
    )
    after = {row["id"] for row in wanted}
    for secret_id in sorted(before - after):
        call.db.execute("DELETE FROM grants WHERE machine_id = ? AND secret_id = ?", (machine["id"], secret_id))
        _note(call, "permission_revoke", machine["id"], secret_id, project_id)
    for secret_id in sorted(after - before):
        grant(call.db, call.now_ms, machine["id"], secret_id)
        makers.note(call, makers.GRANT, makers.grant_id(machine["id"], secret_id))
        _note(call, "permission_grant", machine["id"], secret_id, project_id)
    return {"projectId": project_id, "machineId": machine["id"], "secretIds": sorted(after)}


def grant(db: sqlite3.Connection, now_ms: int, machine_id: str, secret_id: str) -> None:
    """Grant a secret to a machine."""
    row = (machine_id, secret_id, now_ms)
    db.execute("INSERT OR IGNORE INTO grants (machine_id, secret_id, granted_ms) VALUES (?, ?, ?)", row)


def _granted(db: sqlite3.Connection, machine_id: str, project_id: str) -> set[str]:
    rows = db.execute(
        "SELECT g.secret_id FROM grants g JOIN secrets s ON s.id = g.secret_id"
        " WHERE g.machine_id = ? AND +s.project_id = ?",
        (machine_id, project_id),
    )
    return {row["secret_id"] for row in rows}


def _require_member(call: Call) -> tuple[str, sqlite3.Row]:
    """The project id and the machine of the path. Raises Refusal if the machine is not in the project."""
    project = projects.require(call, call.params["projectId"])
    machine = require_one(
        call.db,
        "SELECT m.id, m.name FROM machines m JOIN project_machines p ON p.machine_id = m.id"
        " WHERE p.project_id = ? AND m.id = ?",
        (project["id"], call.params["machineId"]),
        "no such machine in the project",
    )
    return project["id"], machine


def _note(call: Call, action: str, machine_id: str, secret_id: str, project_id: str) -> None:
    done = "granted to" if action == "permission_grant" else "revoked from"
    audit.note(call, action, f"reading {done} machine {machine_id}", secret_id=secret_id, project_id=project_id)


def _to_json(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "state": machines.state(row, now_ms),
        "hostname": row["hostname"],
        "addedAt": row["added_ms"],
        "secretCount": row["secret_count"],
    }


QUERY_FIELDS = {
    "search": text(),
    "sortBy": text(choices=("name", "added", "secretCount")),
    "sortDir": text(choices=("asc", "desc")),
    "page": PAGE,
    "pageSize": integer(1, 200),
}
ALL = "/v1/ai/projects/{projectId}/machines"
ONE = ALL + "/{machineId}"
READ, WRITE = "projects.machines.read", "projects.machines.write"

# fmt: off
ROUTES = (
    Route("POST", ALL + "/query",   READ,  query,      QUERY_FIELDS, reads=True),
    Route("POST", ALL,              WRITE, attach,     {"machineId": text(1, 64).required()}),
    Route("POST", ONE + "/detach",  WRITE, detach),
    Route("GET",  ONE + "/secrets", READ,  grants_get, reads=True),
    Route("POST", ONE + "/grants",  WRITE, grants_set, {"secretIds": text_list().required()}),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------

MEMBERSHIPS = """
SELECT p.id AS projectId, p.name AS projectName, m.added_ms AS addedAt,
    (SELECT COUNT(*) FROM grants g JOIN secrets s ON s.id = g.secret_id
     WHERE g.machine_id = m.machine_id AND s.project_id = p.id AND s.deleted_ms IS NULL) AS grantCount
FROM project_machines m JOIN live_projects p ON p.id = m.project_id WHERE m.machine_id = ? ORDER BY lower(p.name), p.id
"""
GRANTS_OF_MACHINE = """
SELECT s.id AS secretId, s.name, s.kind, s.project_id AS projectId, p.name AS projectName, g.granted_ms AS grantedAt
FROM grants g JOIN secrets s ON s.id = g.secret_id JOIN live_projects p ON p.id = s.project_id
WHERE g.machine_id = ? AND s.deleted_ms IS NULL ORDER BY lower(p.name), lower(s.name), s.id LIMIT ?
"""
OTHERS = """
FROM machines m
WHERE NOT EXISTS (SELECT 1 FROM project_machines p WHERE p.project_id = :project AND p.machine_id = m.id)
    AND (:name = '' OR instr(lower(m.name || ' ' || m.hostname), lower(:name)) > 0)
"""

Pair = tuple[str, str]  # the id of a machine and of a secret


def of_machine(db: sqlite3.Connection, machine_id: str, limit: int) -> dict[str, list[dict[str, Any]]]:
    """The `projects` of a machine with the numbers of its grants, and its first `grants`, by name."""
    found = db.execute(MEMBERSHIPS, (machine_id,)), db.execute(GRANTS_OF_MACHINE, (machine_id, limit))
    return {"projects": [dict(row) for row in found[0]], "grants": [dict(row) for row in found[1]]}


def members(
    db: sqlite3.Connection, now_ms: int, project_id: str, name: str, *, limit: int, offset: int
) -> tuple[list[dict[str, Any]], int]:
    """Some machines of a project with `name` in their name or hostname, by name, and how many there are.

    It is as `query`, but counts the grants of these machines only.
    """
    values = {"project": project_id, "search": name, "limit": limit, "offset": offset}
    matching = _matching(db, project_id, name or None, by_name=True)
    page = f"SELECT m.*, p.added_ms, p.project_id {matching} ORDER BY lower(m.name), m.id LIMIT :limit OFFSET :offset"
    counted = GRANTED.replace("p.project_id", "m.project_id")
    rows = db.execute(f"SELECT m.*, {counted} AS secret_count FROM ({page}) m ORDER BY lower(m.name), m.id", values)
    return [_to_json(row, now_ms) for row in rows], count(db, f"SELECT COUNT(*) {matching}", values)


def _matching(db: sqlite3.Connection, project_id: str, search: str | None, *, by_name: bool) -> str:
    """The part of a query that finds the members: in the order of names if many machines are members."""
    members = totals.of(db, "memberships", project_id)
    walks_names = by_name and members * FEW > totals.of(db, "machines")
    return (BY_NAME if walks_names else MEMBERS) + (FOUND if search is not None else "")


def others(db: sqlite3.Connection, now_ms: int, project_id: str, name: str, limit: int) -> list[dict[str, object]]:
    """Machines that are not in a project and have `name` in their name or hostname, newest first."""
    statement = f"SELECT m.* {OTHERS} ORDER BY m.created_ms DESC, m.id DESC LIMIT :limit"
    rows = db.execute(statement, {"project": project_id, "name": name, "limit": limit})
    return [{**dict(row), "state": machines.state(row, now_ms)} for row in rows]


def secret_names(db: sqlite3.Connection, secret_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The secrets with these ids that are not in the trash, in alphabetical order."""
    statement = (
        "SELECT id, name, kind, project_id AS projectId FROM secrets WHERE deleted_ms IS NULL"
        " AND id IN (SELECT value FROM json_each(?)) ORDER BY lower(name), id"
    )
    return [dict(row) for row in db.execute(statement, (json.dumps(list(secret_ids)),))]


def granted_pairs(db: sqlite3.Connection, machine_ids: Iterable[str], secret_ids: Iterable[str]) -> set[Pair]:
    """Which of the machines may read which of the secrets."""
    rows = db.execute(
        "SELECT machine_id, secret_id FROM grants WHERE machine_id IN (SELECT value FROM json_each(?))"
        " AND secret_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(machine_ids)), json.dumps(list(secret_ids))),
    )
    return {(row["machine_id"], row["secret_id"]) for row in rows}


def change_grants(call: Call, project_id: str, added: Iterable[Pair], removed: Iterable[Pair]) -> tuple[int, int]:
    """Grant and revoke single secrets of a project, and return how many changed. Raises Refusal."""
    counts = [0, 0]
    for machine_id, secret_id in added:
        _require_pair(call.db, project_id, machine_id, secret_id)
        if not granted_pairs(call.db, [machine_id], [secret_id]):
            grant(call.db, call.now_ms, machine_id, secret_id)
            makers.note(call, makers.GRANT, makers.grant_id(machine_id, secret_id))
            _note(call, "permission_grant", machine_id, secret_id, project_id)
            counts[0] += 1
    for machine_id, secret_id in removed:
        _require_pair(call.db, project_id, machine_id, secret_id)
        counts[1] += len(granted_pairs(call.db, [machine_id], [secret_id]))
        revoke_grant_as_owner(call.db, call.now_ms, makers.grant_id(machine_id, secret_id), actor=call.actor)
    return counts[0], counts[1]


def set_readers(
    call: Call, project_id: str, secret_id: str, offered: Iterable[str], wanted: Iterable[str]
) -> tuple[int, int]:
    """Let `wanted` of the `offered` machines read a secret, and no other of them. Returns how many gained and lost it.

    Machines that are not offered keep what they have. Raises Refusal.
    """
    machine_ids, chosen = list(dict.fromkeys(offered)), set(wanted)
    added = [(machine_id, secret_id) for machine_id in machine_ids if machine_id in chosen]
    removed = granted_pairs(call.db, set(machine_ids) - chosen, [secret_id])
    return change_grants(call, project_id, added, sorted(removed))


def _require_pair(db: sqlite3.Connection, project_id: str, machine_id: str, secret_id: str) -> None:
    statement = (
        "SELECT 1 FROM project_machines m JOIN secrets s ON s.project_id = m.project_id"
        " WHERE m.project_id = ? AND m.machine_id = ? AND s.id = ? AND s.deleted_ms IS NULL"
    )
    if fetch_one(db, statement, (project_id, machine_id, secret_id)) is None:
        raise Refusal(409, "a machine or a secret has left the project")


def revoke_grant_as_owner(db: sqlite3.Connection, now_ms: int, grant_id: str, *, actor: Actor = OWNER) -> None:
    """Delete a grant, given as in `makers.grant_id`. It may be gone already, together with its machine."""
    machine_id, _, secret_id = grant_id.partition(":")
    if db.execute("DELETE FROM grants WHERE machine_id = ? AND secret_id = ?", (machine_id, secret_id)).rowcount:
        secret = db.execute("SELECT id, project_id FROM secrets WHERE id = ?", (secret_id,)).fetchone()
        ids = {"secret_id": secret["id"], "project_id": secret["project_id"]}
        audit.record(db, now_ms, actor, "permission_revoke", f"reading revoked from machine {machine_id}", **ids)
