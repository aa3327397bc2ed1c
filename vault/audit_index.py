"""Finds audit entries with an index for each usual filter and order, however long the log is.

A statement is put together from the fixed pieces of SQL below, and every value is bound. Its parts are one walk along
an index, or several that SQLite merges in order, such as one for each action that is asked for. Filters beyond those
that the walk follows are checked for each entry on its way; `search` is always one of these, so a search looks at the
newest SEARCHED entries only.

Entries are ordered by time, and by number within a millisecond.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vault import totals
from vault.query import count, fetch_one

SEVERITIES = ("info", "low", "medium", "high", "critical")
RANKS = " ".join(f"WHEN '{name}' THEN {rank}" for rank, name in enumerate(SEVERITIES))
RANK = f"CASE severity {RANKS} END"

TABLES = f"""
DROP INDEX IF EXISTS audit_by_agent;
DROP INDEX IF EXISTS audit_by_project;
DROP INDEX IF EXISTS audit_by_machine;
DROP INDEX IF EXISTS audit_by_secret;
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (created_ms);
CREATE INDEX IF NOT EXISTS audit_by_action ON audit (action, created_ms);
CREATE INDEX IF NOT EXISTS audit_by_severity ON audit ({RANK}, created_ms);
CREATE INDEX IF NOT EXISTS audit_by_address ON audit (source_ip, created_ms);
CREATE INDEX IF NOT EXISTS audit_of_agent ON audit (agent_id, created_ms) WHERE agent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_of_machine ON audit (machine_id, created_ms) WHERE machine_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_of_secret ON audit (secret_id, created_ms) WHERE secret_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_of_project ON audit (project_id, created_ms) WHERE project_id IS NOT NULL;
"""

MAX_WALKS = 100  # SQLite merges at most 500; with more values, they are checked on the way
FEW = 2_000  # of several lists, one with fewer entries is followed; they are counted in some ten microseconds
MAX_COUNTED = 10  # values of a list that is counted
SEARCHED = 100_000  # entries, in about a tenth of a second


class Filters(NamedTuple):
    """Which entries: those with one of the values of each list. None means all. Times are inclusive, in milliseconds.

    `viewer` is the id of an agent with an allowlist. It sees the entries of the projects on it, and its own.
    """

    actions: Sequence[str] | None = None
    severities: Sequence[str] | None = None
    source_ips: Sequence[str] | None = None
    agents: Sequence[str] | None = None
    machines: Sequence[str] | None = None
    secrets: Sequence[str] | None = None
    projects: Sequence[str] | None = None
    search: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    viewer: str | None = None
    allowlist: Sequence[str] = ()


class Place(NamedTuple):
    """Where an entry is in the order by time."""

    created_ms: int
    id: int


class Walk(NamedTuple):
    """A part of an index: its name, the condition that the part meets, and the values of the condition."""

    name: str
    condition: str = "1"
    values: tuple[object, ...] = ()


# The expression and the index of each list, from the list that usually leaves the fewest entries.
LISTS = {
    "secrets": ("secret_id", "audit_of_secret"),
    "machines": ("machine_id", "audit_of_machine"),
    "source_ips": ("source_ip", "audit_by_address"),
    "agents": ("agent_id", "audit_of_agent"),
    "actions": ("action", "audit_by_action"),
    "severities": (RANK, "audit_by_severity"),
    "projects": ("project_id", "audit_of_project"),
}
LISTED = "IN (SELECT value FROM json_each(?))"
ALLOWED = "(SELECT project_id FROM agent_projects WHERE agent_id = ?)"
IN_ALLOWED = "project_id = ? AND EXISTS (SELECT 1 FROM agent_projects a WHERE a.agent_id = ? AND a.project_id = ?)"
BEYOND_ALLOWED = f"agent_id = ? AND (project_id IS NULL OR project_id NOT IN {ALLOWED})"
HAS_TEXT = "instr(lower(action || ' ' || detail), lower(?)) > 0"
# The orders: what comes before the time, and the index that is in this order.
ORDERS = {
    "timestamp": ("", "audit_by_time"),
    "action": ("action", "audit_by_action"),
    "severity": ("rank", "audit_by_severity"),
    "sourceIp": ("source_ip", "audit_by_address"),
}


def find(
    db: sqlite3.Connection,
    filters: Filters,
    limit: int,
    *,
    order: str = "timestamp",
    descending: bool = True,
    offset: int = 0,
    edge: Place | None = None,
) -> list[sqlite3.Row]:
    """At most `limit` entries that match the filters, in an order of ORDERS. With an edge, only entries beyond it.

    An edge goes only with the order by time: in descending order, the entries are older.
    """
    direction = "DESC" if descending else "ASC"
    keys = (key for key in (ORDERS[order][0], "created_ms", "id") if key)
    ordered = ", ".join(f"{key} {direction}" for key in keys)
    walks, followed = _walks(db, filters, order)
    clauses = _clauses(filters, followed)
    if edge is not None:
        clauses.append(_beyond(edge, "<" if descending else ">"))
    sql, values = _union(f"*, {RANK} AS rank", walks, clauses)
    return db.execute(f"{sql} ORDER BY {ordered} LIMIT ? OFFSET ?", (*values, limit, offset)).fetchall()


def place(db: sqlite3.Connection, entry_id: int) -> Place | None:
    """The place of an entry, if there is one with this number."""
    row = fetch_one(db, "SELECT created_ms, id FROM audit WHERE id = ?", (entry_id,))
    return None if row is None else Place(row["created_ms"], row["id"])


def find_next(db: sqlite3.Connection, filters: Filters, after_id: int, limit: int) -> list[sqlite3.Row]:
    """At most `limit` entries that match the filters and were added after an entry, in the order they were added."""
    conditions, values = _joined([("id > ?", (after_id,)), *_clauses(filters, None)])
    sql = f"SELECT * FROM audit NOT INDEXED WHERE {conditions} ORDER BY id LIMIT ?"
    return db.execute(sql, (*values, limit)).fetchall()


def total(db: sqlite3.Connection, filters: Filters, most: int = -1) -> int:
    """How many entries match the filters. Stops at `most`, unless that is negative or `has_total`."""
    if has_total(filters):
        # The log only grows, and its numbers have no gaps.
        whole = "SELECT coalesce(max(id), 0) FROM audit"
        return count(db, whole) if filters.viewer is None else totals.visible_entries(db, filters.viewer)
    walks, followed = _walks(db, filters, "timestamp")
    sql, values = _union("1", walks, _clauses(filters, followed))
    return count(db, f"SELECT COUNT(*) FROM ({sql} LIMIT ?)", (*values, most))


def has_total(filters: Filters) -> bool:
    """Whether the number of entries is known without counting: all entries, or all that an agent sees."""
    return filters == Filters(viewer=filters.viewer, allowlist=filters.allowlist)


def is_indexed(db: sqlite3.Connection, filters: Filters) -> bool:
    """Whether an index alone tells which entries match, so that counting them reads no entry."""
    return not _checked(filters, _walks(db, filters, "timestamp")[1])


def search_start(db: sqlite3.Connection, filters: Filters, edge: Place | None = None) -> Place | None:
    """The oldest entry that a search looks at, of the SEARCHED newest, or newest before an edge, that match the others.

    None if there is no search, or if it looks at every entry.
    """
    if filters.search is None:
        return None
    others = filters._replace(search=None)
    walks, followed = _walks(db, others, "timestamp")
    clauses = _clauses(others, followed)
    if edge is not None:
        clauses.append(_beyond(edge, "<"))
    sql, values = _union("created_ms, id", walks, clauses)
    ordered = f"{sql} ORDER BY created_ms DESC, id DESC LIMIT 1 OFFSET ?"
    row = fetch_one(db, ordered, (*values, SEARCHED - 1))
    return None if row is None else Place(row["created_ms"], row["id"])


def _walks(db: sqlite3.Connection, filters: Filters, order: str) -> tuple[list[Walk], str | None]:
    """The parts of indexes that together have every entry that matches, each in the order that is wanted.

    The second value names the filter that the walks follow, which needs no other check.
    """
    lists = {name: _values(filters, name) for name in LISTS}
    followable = [name for name, values in lists.items() if values is not None and len(values) <= MAX_WALKS]
    if order == "severity" and filters.severities:
        ranks = _values(filters, "severities")
        return [Walk("audit_by_severity", f"{RANK} BETWEEN ? AND ?", (min(ranks), max(ranks)))], None
    if order != "timestamp":
        return [Walk(ORDERS[order][1])], None
    if followable:
        name = followable[0] if len(followable) == 1 else _shortest(db, filters, followable)
        return _walks_of(name, lists[name]), name
    if filters.viewer is not None and len(filters.allowlist) < MAX_WALKS:
        own = Walk("audit_of_agent", BEYOND_ALLOWED, (filters.viewer, filters.viewer))
        reached = [(each, filters.viewer, each) for each in filters.allowlist]
        return [own, *(Walk("audit_of_project", IN_ALLOWED, values) for values in reached)], "viewer"
    return [Walk("audit_by_time")], None


def _walks_of(name: str, values: Sequence[object]) -> list[Walk]:
    column, index = LISTS[name]
    return [Walk(index, f"{column} = ?", (value,)) for value in values]


def _shortest(db: sqlite3.Connection, filters: Filters, names: Sequence[str]) -> str:
    """The first of some lists with FEW entries, or else the one that usually leaves the fewest."""
    walks = {name: _walks_of(name, _values(filters, name)) for name in names}
    counted = [name for name in names if len(walks[name]) <= MAX_COUNTED]
    for name in counted if len(counted) > 1 else ():
        sql, values = _union("1", walks[name], _times(filters))
        if count(db, f"SELECT COUNT(*) FROM ({sql} LIMIT ?)", (*values, FEW)) < FEW:
            return name
    return names[0]


def _values(filters: Filters, name: str) -> Any:
    """The different values of a list as the database has them, or None."""
    values = getattr(filters, name)
    if values is None:
        return None
    return [SEVERITIES.index(value) if name == "severities" else value for value in dict.fromkeys(values)]


Clause = tuple[str, tuple[object, ...]]  # a piece of SQL and its values


def _clauses(filters: Filters, followed: str | None) -> list[Clause]:
    """Every condition of the filters, except of the one that the walks follow."""
    return _checked(filters, followed) + _times(filters)


def _times(filters: Filters) -> list[Clause]:
    """The conditions for the time, which every index has."""
    given = (("created_ms >= ?", filters.from_ms), ("created_ms <= ?", filters.to_ms))
    return [(clause, (value,)) for clause, value in given if value is not None]


def _checked(filters: Filters, followed: str | None) -> list[Clause]:
    """The conditions for which an entry has to be read."""
    found: list[Clause] = []
    for name, (column, _) in LISTS.items():
        values = _values(filters, name)
        if values is not None and name != followed:
            found.append((f"{column} {LISTED}", (json.dumps(values),)))
    if filters.search is not None:
        found.append((HAS_TEXT, (filters.search,)))
    if filters.viewer is not None and followed != "viewer":
        found.append((f"(agent_id = ? OR project_id IN {ALLOWED})", (filters.viewer, filters.viewer)))
    return found


def _beyond(edge: Place, sign: str) -> Clause:
    return f"created_ms {sign}= ? AND (created_ms, id) {sign} (?, ?)", (edge.created_ms, *edge)


def _union(columns: str, walks: Sequence[Walk], clauses: Sequence[Clause]) -> tuple[str, tuple[object, ...]]:
    """The statement for all walks, and its values."""
    if not walks:
        return f"SELECT {columns} FROM audit WHERE 0", ()
    parts = list(_parts(columns, walks, clauses))
    return " UNION ALL ".join(sql for sql, _ in parts), tuple(value for _, values in parts for value in values)


def _parts(columns: str, walks: Sequence[Walk], clauses: Sequence[Clause]) -> Iterator[Clause]:
    for walk in walks:
        conditions, values = _joined([(walk.condition, walk.values), *clauses])
        yield f"SELECT {columns} FROM audit INDEXED BY {walk.name} WHERE {conditions}", values


def _joined(clauses: Sequence[Clause]) -> tuple[str, tuple[object, ...]]:
    return " AND ".join(sql for sql, _ in clauses), tuple(value for _, values in clauses for value in values)
