"""What the owner browses: pages of rows, from all projects or from one. Changes nothing.

    with desk.reader() as db:
        found = listings.secrets_of(db, project_id, page=1, search="stripe")   # Rows; found.rows[0]["name"]

Names and metadata only, never values. Rows have the keys of the API's answers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from vault import audit, audit_index, totals
from vault.audit_index import Filters
from vault.domains import machines, secrets
from vault.domains.secrets import TRASH_MS
from vault.query import count, require_one

PAGE_SIZE = 50
LATEST_READS = 1_000  # entries in which the last read of each machine is looked for

Row = Mapping[str, Any]


class Rows(NamedTuple):
    """One page of a listing, and how many rows and pages there are."""

    rows: list[Row]
    total: int
    page: int
    size: int = PAGE_SIZE

    @property
    def pages(self) -> int:
        """The number of pages, at least one."""
        return page_count(self.total, self.size)


def page_count(total: int, size: int = PAGE_SIZE) -> int:
    """How many pages a listing has, at least one."""
    return max(1, -(-total // size))


def _page(
    db: sqlite3.Connection,
    statement: str,
    counting: str,
    values: Mapping[str, Any],
    page: int,
    *,
    size: int = PAGE_SIZE,
    made_of: Callable[[sqlite3.Row], Row] = dict,
) -> Rows:
    """A page of `statement`, which ends in LIMIT :limit OFFSET :offset. A page after the last one is the last one."""
    total = count(db, counting, values)
    page = min(page, page_count(total, size))
    place = {**values, "limit": size, "offset": (page - 1) * size}
    return Rows([made_of(row) for row in db.execute(statement, place)], total, page, size)


# ---- projects --------------------------------------------------------------------------------------------------------

# Totals are only looked up for the rows of the page, hence the inner query.
PROJECT = f"""
SELECT p.id, p.name, p.description, p.created_ms AS createdAt, p.updated_ms AS updatedAt,
    {totals.subquery("secrets", "p.id")} AS secretCount, {totals.subquery("memberships", "p.id")} AS machineCount,
    f.frozen_ms AS frozenAt, f.canary_id AS frozenBy
FROM {{source}} p LEFT JOIN project_freezes f ON f.project_id = p.id
"""
PROJECTS_PAGE = "(SELECT * FROM live_projects ORDER BY lower(name), id LIMIT :limit OFFSET :offset)"
PROJECTS = PROJECT.format(source=PROJECTS_PAGE) + "ORDER BY lower(p.name), p.id"
FROZEN = PROJECT.format(source="live_projects") + "WHERE f.frozen_ms IS NOT NULL ORDER BY f.frozen_ms DESC LIMIT :limit"


def projects(db: sqlite3.Connection, page: int) -> Rows:
    """The projects by name, with the numbers of their secrets and machines, and since when they are frozen."""
    return _page(db, PROJECTS, "SELECT COUNT(*) FROM live_projects", {}, page)


def project(db: sqlite3.Connection, project_id: str) -> Row:
    """One project, as in `projects`. Raises Refusal."""
    statement = PROJECT.format(source="live_projects") + "WHERE p.id = ?"
    return dict(require_one(db, statement, (project_id,), "no such project"))


def frozen_projects(db: sqlite3.Connection) -> list[Row]:
    """The frozen projects, latest first."""
    return [dict(row) for row in db.execute(FROZEN, {"limit": PAGE_SIZE})]


# ---- secrets ---------------------------------------------------------------------------------------------------------

SECRETS = """
SELECT s.id, s.name, s.kind, s.version, s.updated_ms AS updatedAt, s.project_id AS projectId, p.name AS projectName,
    CASE WHEN r.secret_id IS NULL THEN s.kind ELSE 'managed' END AS type, b.policy_id AS policyId
FROM (SELECT * FROM {secrets} WHERE {where} ORDER BY lower(name), id LIMIT :limit OFFSET :offset) s
JOIN projects p ON p.id = s.project_id LEFT JOIN rotation_schedules r ON r.secret_id = s.id
LEFT JOIN policy_bindings b ON b.secret_id = s.id ORDER BY lower(s.name), s.id
"""
IN_PROJECT = "project_id = :project AND deleted_ms IS NULL"
SECRETS_IN_PROJECT = SECRETS.format(secrets="secrets", where=IN_PROJECT)
# The totals of a project, which exists: each of its pages shows it.
OF_PROJECT = {kind: totals.subquery(kind, ":project") for kind in ("secrets", "trash", "canaries", "memberships")}
NAMED = "deleted_ms IS NULL AND instr(lower(name), lower(:search)) > 0"


def secrets_of(db: sqlite3.Connection, project_id: str, page: int, search: str = "", *, size: int = PAGE_SIZE) -> Rows:
    """The secrets of a project by name; with `search`, those whose name contains it."""
    if not search:
        counting, values = f"SELECT {OF_PROJECT['secrets']}", {"project": project_id}
        return _page(db, SECRETS_IN_PROJECT, counting, values, page, size=size)
    where = f"{IN_PROJECT} AND {NAMED}"
    counting, values = f"SELECT COUNT(*) FROM secrets WHERE {where}", {"project": project_id, "search": search}
    return _page(db, SECRETS.format(secrets="secrets", where=where), counting, values, page, size=size)


def secrets_named(db: sqlite3.Connection, search: str, page: int) -> Rows:
    """The secrets of all projects whose name contains `search`, by name."""
    statement = SECRETS.format(secrets="live_secrets", where=NAMED)
    return _page(db, statement, f"SELECT COUNT(*) FROM live_secrets WHERE {NAMED}", {"search": search}, page)


def with_name(db: sqlite3.Connection, project_id: str, name: str) -> list[str]:
    """The ids of the project's secrets with exactly this name."""
    rows = db.execute(
        f"SELECT id FROM secrets WHERE {IN_PROJECT} AND name = :name", {"project": project_id, "name": name}
    )
    return [row["id"] for row in rows]


def names_of(db: sqlite3.Connection, project_id: str) -> list[str]:
    """The names of all secrets of a project, sorted."""
    rows = db.execute(f"SELECT name FROM secrets WHERE {IN_PROJECT} ORDER BY name, id", {"project": project_id})
    return [row["name"] for row in rows]


def exported(db: sqlite3.Connection, project_id: str) -> list[Row]:
    """Every secret of a project without its value, by name."""
    rows = db.execute(SECRETS_IN_PROJECT, {"project": project_id, "limit": -1, "offset": 0})
    return [dict(row) for row in rows]


# ---- one secret ------------------------------------------------------------------------------------------------------

READERS = """
SELECT m.id, m.name, m.approved_ms, m.expires_ms, g.granted_ms AS grantedAt, v.version
FROM grants g JOIN machines m ON m.id = g.machine_id
LEFT JOIN machine_versions v ON v.machine_id = m.id AND v.secret_id = g.secret_id
WHERE g.secret_id = :secret ORDER BY lower(m.name), m.id LIMIT :limit OFFSET :offset
"""
CANDIDATES = """
SELECT m.id, m.name, m.hostname, m.approved_ms, m.expires_ms, g.granted_ms AS grantedAt
FROM project_machines p JOIN machines m ON m.id = p.machine_id
LEFT JOIN grants g ON g.machine_id = m.id AND g.secret_id = :secret
WHERE p.project_id = :project ORDER BY lower(m.name), m.id LIMIT :limit OFFSET :offset
"""
LAST_READS = """
SELECT machine_id, max(created_ms) AS at FROM
    (SELECT machine_id, created_ms, action FROM audit WHERE secret_id = ? ORDER BY created_ms DESC LIMIT ?)
WHERE action = 'secret_read' GROUP BY machine_id
"""


def readers(db: sqlite3.Connection, secret_id: str, now_ms: int, page: int) -> Rows:
    """The machines with a grant for a secret, by name, with their state and when each last read it."""
    last = {row["machine_id"]: row["at"] for row in db.execute(LAST_READS, (secret_id, LATEST_READS))}
    counting = "SELECT COUNT(*) FROM grants WHERE secret_id = :secret"

    def made_of(row: sqlite3.Row) -> Row:
        return {**dict(row), "state": machines.state(row, now_ms), "lastReadAt": last.get(row["id"])}

    return _page(db, READERS, counting, {"secret": secret_id}, page, made_of=made_of)


def possible_readers(db: sqlite3.Connection, project_id: str, secret_id: str | None, now_ms: int, page: int) -> Rows:
    """The machines of a project by name, with their state and since when each may read the secret, if it may."""
    values = {"project": project_id, "secret": secret_id}
    counting = f"SELECT {OF_PROJECT['memberships']}"

    def made_of(row: sqlite3.Row) -> Row:
        return {**dict(row), "state": machines.state(row, now_ms)}

    return _page(db, CANDIDATES, counting, values, page, made_of=made_of)


def latest_entries(db: sqlite3.Connection, secret_id: str, most: int) -> list[Row]:
    """The latest audit entries about a secret, newest first."""
    return [audit.entry(row) for row in audit_index.find(db, Filters(secrets=[secret_id]), most)]


def latest_triggers(db: sqlite3.Connection, canary_id: str, most: int) -> list[Row]:
    """The audit entries about reads that triggered a canary, newest first."""
    filters = Filters(secrets=[canary_id], actions=["canary_triggered"])
    return [audit.entry(row) for row in audit_index.find(db, filters, most)]


# ---- trash, canaries, links ------------------------------------------------------------------------------------------

TRASH = """
SELECT s.id, s.name, s.kind AS type, s.project_id AS projectId, p.name AS projectName, s.deleted_ms AS deletedAt,
    s.deleted_ms + {life} AS purgeAt
FROM secrets s JOIN live_projects p ON p.id = s.project_id
WHERE s.deleted_ms IS NOT NULL{where} ORDER BY s.deleted_ms DESC, s.id LIMIT :limit OFFSET :offset
"""
CANARIES = """
SELECT s.id, s.name, s.note, s.project_id AS projectId, p.name AS projectName, c.enabled,
    c.freeze_project AS freezesProject, c.freeze_related AS freezesRelated, c.triggers, c.triggered_ms AS triggeredAt,
    f.frozen_ms AS frozenAt, (SELECT COUNT(*) FROM grants g WHERE g.secret_id = s.id) AS readerCount
FROM canaries c CROSS JOIN secrets s ON s.id = c.secret_id JOIN live_projects p ON p.id = s.project_id
LEFT JOIN project_freezes f ON f.project_id = s.project_id
WHERE s.deleted_ms IS NULL{where} ORDER BY lower(p.name), p.id, lower(s.name), s.id LIMIT :limit OFFSET :offset
"""
LINKS = """
SELECT t.id, t.name, t.project_id AS projectId, p.name AS projectName, t.created_ms AS createdAt,
    t.expires_ms AS expiresAt, t.closed_ms AS closedAt,
    CASE WHEN t.status = 'pending' AND t.expires_ms <= :now THEN 'expired' ELSE t.status END AS status
FROM temporary_secrets t JOIN projects p ON p.id = t.project_id{where}
ORDER BY t.created_ms DESC, t.id LIMIT :limit OFFSET :offset
"""
OF_SECRETS_PROJECT = " AND s.project_id = :project"
OF_LINKS_PROJECT = " WHERE t.project_id = :project"


def trash(db: sqlite3.Connection, project_id: str | None, page: int) -> Rows:
    """The secrets in the trash, latest first; those of one project, if it is given."""
    where = OF_SECRETS_PROJECT if project_id else ""
    counting = f"SELECT {OF_PROJECT['trash'] if project_id else totals.in_vault('trash')}"
    return _page(db, TRASH.format(life=TRASH_MS, where=where), counting, {"project": project_id}, page)


def canaries(db: sqlite3.Connection, project_id: str | None, page: int) -> Rows:
    """The canaries by project and name; those of one project, if it is given."""
    where = OF_SECRETS_PROJECT if project_id else ""
    counting = f"SELECT {OF_PROJECT['canaries'] if project_id else totals.in_vault('canaries')}"
    return _page(db, CANARIES.format(where=where), counting, {"project": project_id}, page)


def canary(db: sqlite3.Connection, canary_id: str) -> Row:
    """One canary, as in `canaries`. Raises Refusal."""
    statement = CANARIES.format(where=" AND s.id = :id")
    return dict(require_one(db, statement, {"id": canary_id, "limit": 1, "offset": 0}, "no such canary"))


def links(db: sqlite3.Connection, project_id: str | None, now_ms: int, page: int) -> Rows:
    """The one-time links, latest first; those of one project, if it is given."""
    where = OF_LINKS_PROJECT if project_id else ""
    counting = f"SELECT COUNT(*) FROM temporary_secrets t{where}"
    return _page(db, LINKS.format(where=where), counting, {"project": project_id, "now": now_ms}, page)


def secret(db: sqlite3.Connection, secret_id: str) -> Row:
    """One secret's metadata, with the project that it is in. Raises Refusal."""
    row = secrets.find(db, secret_id)
    return {**secrets.metadata(row), "projectId": row["project_id"], "kind": row["kind"]}


# ---- choices of a form -----------------------------------------------------------------------------------------------


def secret_choices(db: sqlite3.Connection, project_id: str, most: int) -> list[tuple[str, str]]:
    """Ids and names of a project's secrets by name."""
    rows = db.execute(SECRETS_IN_PROJECT, {"project": project_id, "limit": most, "offset": 0})
    return [(row["id"], row["name"]) for row in rows]


def machine_choices(db: sqlite3.Connection, project_id: str, most: int) -> list[tuple[str, str]]:
    """Ids and names of a project's machines by name."""
    rows = db.execute(CANDIDATES, {"project": project_id, "secret": None, "limit": most, "offset": 0})
    return [(row["id"], row["name"]) for row in rows]


def last_address(db: sqlite3.Connection, secret_id: str, machine_id: str) -> str:
    """The address that a machine last asked for a secret from, if that was not long ago."""
    recent = audit_index.find(db, Filters(secrets=[secret_id]), LATEST_READS)
    return next((str(row["source_ip"] or "") for row in recent if row["machine_id"] == machine_id), "")
