"""The names behind ids, for the owner's pages: an audit entry holds ids only."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from vault.errors import Refusal

# Where an id may begin and end in the text of an entry. What is found is then looked up.
ID = re.compile(
    r"(?<![\w-])(?:(?:sk|proj|wh|tk|enr|pol)_[A-Za-z0-9]{8,64}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![\w-])"
)
ID_COLUMNS = ("aiAgentId", "machineId", "secretId", "projectId")  # of an audit entry
MAX_IDS = 1_000


class Named(NamedTuple):
    """Something that exists. `project_id` is that of a secret or a policy; a secret in the trash `is_deleted`."""

    kind: str
    id: str
    name: str
    project_id: str | None
    is_deleted: bool


# fmt: off
TABLES_BY_KIND: Mapping[str, str] = {
    "agent":   "SELECT 'agent' AS kind, id, name, NULL AS project_id, 0 AS is_deleted FROM ai_agents",
    "machine": "SELECT 'machine' AS kind, id, name, NULL AS project_id, 0 AS is_deleted FROM machines",
    "project": "SELECT 'project' AS kind, id, name, NULL AS project_id, 0 AS is_deleted FROM live_projects",
    "secret":  "SELECT 'secret' AS kind, id, name, project_id, deleted_ms IS NOT NULL AS is_deleted FROM live_secrets",
    "policy":  "SELECT 'policy' AS kind, id, name, project_id, 0 AS is_deleted FROM"
               " (SELECT * FROM policies WHERE project_id IN (SELECT id FROM live_projects))",
    "token":   "SELECT 'token' AS kind, id, name, NULL AS project_id, 0 AS is_deleted FROM enrollment_tokens",
    "webhook": "SELECT 'webhook' AS kind, id, url AS name, NULL AS project_id, 0 AS is_deleted FROM webhooks",
    "ticket":  "SELECT 'ticket' AS kind, id, title AS name, NULL AS project_id, 0 AS is_deleted FROM tickets",
}
# fmt: on
BY_ID = " UNION ALL ".join(
    f"{select} WHERE id IN (SELECT value FROM json_each(:ids))" for select in TABLES_BY_KIND.values()
)
MAX_SAME_NAME = 20


def by_ids(db: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Named]:
    """What exists of these ids."""
    wanted = json.dumps(sorted(set(ids))[:MAX_IDS])
    rows = db.execute(BY_ID, {"ids": wanted})
    return {row["id"]: Named(**{**dict(row), "is_deleted": bool(row["is_deleted"])}) for row in rows}


def in_entries(db: sqlite3.Connection, entries: Iterable[Mapping[str, Any]]) -> dict[str, Named]:
    """What exists of the ids in audit entries, in their columns and in their details."""
    found: list[str] = []
    for entry in entries:
        found += [entry[column] for column in ID_COLUMNS if entry.get(column)]
        found += ID.findall(entry["detail"])
    return by_ids(db, found)


def ids_of(db: sqlite3.Connection, kind: str, name_or_id: str) -> list[str]:
    """The ids that a person may mean: those of everything with this name, or what was typed if there is none."""
    statement = f"SELECT id FROM ({TABLES_BY_KIND[kind]}) WHERE name = ? LIMIT ?"
    rows = db.execute(statement, (name_or_id, MAX_SAME_NAME)).fetchall()
    return [row["id"] for row in rows] or [name_or_id]


def id_of(db: sqlite3.Connection, kind: str, typed: str, project_id: str | None = None) -> str:
    """The id that a person means by an id or a name, in one project if it is given; what was typed if nothing fits.

    Raises Refusal for a name that several things have.
    """
    statement = (
        f"SELECT id FROM ({TABLES_BY_KIND[kind]}) WHERE {{}} = :typed AND NOT is_deleted"
        " AND (:project IS NULL OR project_id = :project) LIMIT 2"
    )
    values = {"typed": typed.strip(), "project": project_id}
    for column in ("id", "name"):
        rows = db.execute(statement.format(column), values).fetchall()
        if len(rows) > 1:
            raise Refusal(409, f"several {kind}s have this name: give the id of one")
        if rows:
            return str(rows[0]["id"])
    return typed.strip()


def parts(text: str, known: Mapping[str, Named]) -> list[str | Named]:
    """A text in pieces, with what exists in the place of its id."""
    found: list[str | Named] = []
    end = 0
    for match in ID.finditer(text):
        if match[0] in known:
            found += [text[end : match.start()], known[match[0]]]
            end = match.end()
    return [*found, text[end:]]
