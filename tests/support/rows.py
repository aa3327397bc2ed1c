"""Rows of a table as one test: a test of its own takes pytest longer than most rows do."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def each_of(
    names: str | Sequence[str], rows: Iterable[Any], ids: Any = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like pytest.mark.parametrize, but all rows are one test and share its fixtures; a failure names the row.

    The test is skipped only if all of its rows are.
    """
    parameters = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    table = [row if len(parameters) > 1 else (row,) for row in rows]
    assert table

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run_all(**fixtures: Any) -> None:
            skipped = []
            for row in table:
                try:
                    test(**fixtures, **dict(zip(parameters, row)))
                except pytest.skip.Exception as reason:
                    skipped.append(reason)
                except (Exception, pytest.fail.Exception) as error:
                    raise AssertionError(f"{test.__name__} failed for {', '.join(map(str, row))}") from error
            if len(skipped) == len(table):
                raise skipped[0]

        told = inspect.signature(test)
        others = [each for name, each in told.parameters.items() if name not in parameters]
        run_all.__signature__ = told.replace(parameters=others)  # type: ignore[attr-defined]
        return run_all

    return decorate
