"""The owner's way through the audit log: pages, and downloads as files. See `audit_index` for the filters."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Callable, NamedTuple

from vault import audit, audit_index
from vault.audit_index import Filters, Place
from vault.domains import statistics

Reader = Callable[[], AbstractContextManager[sqlite3.Connection]]

PAGE_SIZE = 50
ROWS_AT_ONCE = 500  # of a download
COLUMNS = (
    *("id", "timestamp", "action", "severity", "actorKind", "userId", "machineId", "aiAgentId"),
    *("secretId", "projectId", "sourceIp", "detail"),
)


class Found(NamedTuple):
    """A page of entries, newest first, and whether there are others around it.

    `search_start` is the oldest entry that a search looked at, if it did not look at all.
    """

    entries: list[dict[str, Any]]
    has_newer: bool
    has_older: bool
    search_start: Place | None = None


def page(db: sqlite3.Connection, filters: Filters, *, before: int | None = None, after: int | None = None) -> Found:
    """The newest entries, those before an entry, or those after one. Without such an entry, the newest."""
    if after is not None:
        edge = audit_index.place(db, after)
        rows = [] if edge is None else audit_index.find(db, filters, PAGE_SIZE + 1, descending=False, edge=edge)
        if len(rows) <= PAGE_SIZE:  # there is no full page that is newer: the newest one
            return page(db, filters)
        return Found([entry(row) for row in rows[PAGE_SIZE - 1 :: -1]], has_newer=True, has_older=True)
    edge = None if before is None else audit_index.place(db, before)
    start = audit_index.search_start(db, filters, edge)
    if start is not None:
        filters = filters._replace(from_ms=start.created_ms)
    rows = audit_index.find(db, filters, PAGE_SIZE + 1, edge=edge)
    return Found([entry(row) for row in rows[:PAGE_SIZE]], edge is not None, len(rows) > PAGE_SIZE, start)


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
    edge = None
    while True:
        with reader() as db:
            rows = audit_index.find(db, filters, ROWS_AT_ONCE, edge=edge)
        if not rows:
            return
        yield [entry(row) for row in rows]
        edge = Place(rows[-1]["created_ms"], rows[-1]["id"])
