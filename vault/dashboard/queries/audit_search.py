"""The owner's way through the audit log: filters, pages by the ids of entries, and downloads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Callable, NamedTuple

from vault import audit, audit_index
from vault.domains import statistics

Reader = Callable[[], AbstractContextManager[sqlite3.Connection]]

PAGE_SIZE = 50
MAX_ROWS = 100_000  # of a download; its last line says that it is cut
ROWS_AT_ONCE = 500
COLUMNS = (
    *("id", "timestamp", "action", "severity", "actorKind", "userId", "machineId", "aiAgentId"),
    *("secretId", "projectId", "sourceIp", "detail"),
)


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
    yield statistics.as_csv([COLUMNS])
    for rows in _batches(reader, filters):
        yield statistics.as_csv([each[key] for key in COLUMNS] for each in rows)


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
    db: sqlite3.Connection, filters: Filters, edge_id: int | None, limit: int, *, is_after: bool = False
) -> list[sqlite3.Row]:
    """The entries nearest to one with an id: the newest before it, or the oldest after it."""
    edge = None if edge_id is None else audit_index.place(db, edge_id)
    if edge is None and is_after:
        return []
    return audit_index.find(db, _indexed(filters), limit, descending=not is_after, edge=edge)


def _indexed(filters: Filters) -> audit_index.Filters:
    """The filters as the index has them."""
    lowest = None if filters.severity is None else audit.SEVERITIES.index(filters.severity)
    return audit_index.Filters(
        actions=None if filters.action is None else [filters.action],
        severities=None if lowest is None else audit.SEVERITIES[lowest:],
        source_ips=None if filters.source_ip is None else [filters.source_ip],
        agents=filters.agents or None,
        machines=filters.machines or None,
        secrets=filters.secrets or None,
        projects=filters.projects or None,
        search=filters.text,
        from_ms=filters.from_ms,
        to_ms=None if filters.to_ms is None else filters.to_ms - 1,
    )
