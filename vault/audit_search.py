"""The owner's way through the audit log: filters, pages by the ids of entries, and downloads.

A statement has only the conditions that were asked for, so that the database can use an index for them.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, NamedTuple

from vault import audit
from vault.domains.statistics import escape_formula

Reader = Callable[[], AbstractContextManager[sqlite3.Connection]]

PAGE_SIZE = 50
MAX_ROWS = 100_000  # of a download; its last line says that it is cut
ROWS_AT_ONCE = 500
COLUMNS = (
    *("id", "timestamp", "action", "severity", "actorKind", "userId", "machineId", "aiAgentId"),
    *("secretId", "projectId", "sourceIp", "detail"),
)

# fmt: off
CONDITIONS: Mapping[str, str] = {
    "action":    "action = :action",
    "agents":    "agent_id IN ({})",
    "machines":  "machine_id IN ({})",
    "secrets":   "secret_id IN ({})",
    "projects":  "project_id IN ({})",
    "source_ip": "source_ip = :source_ip",
    "from_ms":   "created_ms >= :from_ms",
    "to_ms":     "created_ms < :to_ms",
    "text":      "instr(lower(action || ' ' || detail), lower(:text)) > 0",
}
# fmt: on


class Filters(NamedTuple):
    """What an entry must have. `severity` is the lowest one. Times are in milliseconds; `to_ms` itself is not meant."""

    action: str | None = None
    severity: str | None = None
    agents: Sequence[str] = ()
    machines: Sequence[str] = ()
    secrets: Sequence[str] = ()
    projects: Sequence[str] = ()
    source_ip: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    text: str | None = None


class Found(NamedTuple):
    """A page of entries, newest first, and whether there are others around it."""

    entries: list[dict[str, Any]]
    has_newer: bool
    has_older: bool


def page(db: sqlite3.Connection, filters: Filters, *, before: int | None = None, after: int | None = None) -> Found:
    """The newest entries, those before an id, or those after an id."""
    if after is not None:
        rows = _rows(db, filters, after, PAGE_SIZE + 1, is_after=True)
        if len(rows) <= PAGE_SIZE:  # there is no full page that is newer: the newest one
            return page(db, filters)
        return Found([entry(row) for row in rows[PAGE_SIZE - 1 :: -1]], True, True)
    rows = _rows(db, filters, before, PAGE_SIZE + 1)
    return Found([entry(row) for row in rows[:PAGE_SIZE]], before is not None, len(rows) > PAGE_SIZE)


def entry(row: sqlite3.Row) -> dict[str, Any]:
    """An audit row as data, with the project."""
    return {**audit.entry(row), "projectId": row["project_id"]}


def as_csv(reader: Reader, filters: Filters) -> Iterator[bytes]:
    """The entries as CSV (RFC 4180), newest first. Cells that a spreadsheet would compute are made harmless."""
    yield _csv([COLUMNS])
    for rows in _batches(reader, filters):
        yield _csv([escape_formula("" if each[key] is None else str(each[key])) for key in COLUMNS] for each in rows)


def as_json_lines(reader: Reader, filters: Filters) -> Iterator[bytes]:
    """The entries as JSON, one object a line, newest first."""
    for rows in _batches(reader, filters):
        yield "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows).encode()


def _batches(reader: Reader, filters: Filters) -> Iterator[list[dict[str, Any]]]:
    """Some entries at a time, each from a connection of its own, so that a slow browser holds none."""
    before, left = None, MAX_ROWS
    while left:
        with reader() as db:
            rows = [entry(row) for row in _rows(db, filters, before, min(ROWS_AT_ONCE, left))]
        if not rows:
            return
        yield rows
        before, left = rows[-1]["id"], left - len(rows)
    with reader() as db:
        older = _rows(db, filters, before, 1)
    if older:
        note = f"this download is cut after {MAX_ROWS} entries: for older ones, choose an earlier end"
        yield [{**dict.fromkeys(COLUMNS), "detail": note}]


def _rows(
    db: sqlite3.Connection, filters: Filters, edge: int | None, limit: int, *, is_after: bool = False
) -> list[sqlite3.Row]:
    """The entries nearest to an id: the newest before it, or the oldest after it."""
    conditions, values = _conditions(filters)
    if edge is not None:
        conditions.append("id > :edge" if is_after else "id < :edge")
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    statement = f"SELECT * FROM audit {where}ORDER BY id {'ASC' if is_after else 'DESC'} LIMIT :limit"
    return db.execute(statement, {**values, "edge": edge, "limit": limit}).fetchall()


def _conditions(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    """The conditions that are asked for. Their text is from CONDITIONS, and nothing in it comes from a request."""
    conditions, values = [], filters._asdict()
    if filters.severity is not None:
        wanted = audit.SEVERITIES[audit.SEVERITIES.index(filters.severity) :]
        conditions.append(_one_of("severity IN ({})", "severity", wanted, values))
    for name, condition in CONDITIONS.items():
        value = values[name]
        if isinstance(value, (list, tuple)):
            if value:
                conditions.append(_one_of(condition, name, value, values))
        elif value is not None:
            conditions.append(condition)
    return conditions, {name: value for name, value in values.items() if not isinstance(value, (list, tuple))}


def _one_of(condition: str, name: str, wanted: Sequence[str], values: dict[str, Any]) -> str:
    names = {f"{name}{number}": value for number, value in enumerate(wanted)}
    values.update(names)
    return condition.format(", ".join(f":{each}" for each in names))


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
