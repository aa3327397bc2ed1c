"""Queries that return one row."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Union

from vault.errors import Refusal

Parameters = Union[Sequence[Any], Mapping[str, Any]]


def fetch_one(db: sqlite3.Connection, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
    """The first row of a query, or None."""
    row: sqlite3.Row | None = db.execute(sql, parameters).fetchone()
    return row


def require_one(db: sqlite3.Connection, sql: str, parameters: Parameters, missing: str) -> sqlite3.Row:
    """The first row of a query. Raises Refusal, a 404 with the message `missing`, if there is none."""
    row = fetch_one(db, sql, parameters)
    if row is None:
        raise Refusal(404, missing)
    return row


def count(db: sqlite3.Connection, sql: str, parameters: Parameters = ()) -> int:
    """The number that a `SELECT COUNT(*)` returns."""
    number: int = db.execute(sql, parameters).fetchone()[0]
    return number
