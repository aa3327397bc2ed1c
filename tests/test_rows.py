"""Rows that run as one test: all of them run, and a failure names its row."""

from __future__ import annotations

import inspect

import pytest

from tests.support.rows import each_of


def test_every_combination_of_rows_runs_with_the_fixtures_of_the_test() -> None:
    seen = []

    @each_of("first", [1, 2])
    @each_of("second, third", [("a", "b"), ("c", "d")])
    def test(first: int, second: str, third: str, fixture: str) -> None:
        seen.append((first, second, third, fixture))

    assert [*inspect.signature(test).parameters] == ["fixture"]
    test(fixture="f")
    assert seen == [(1, "a", "b", "f"), (1, "c", "d", "f"), (2, "a", "b", "f"), (2, "c", "d", "f")]


def test_a_failure_names_its_row_and_a_skip_ends_no_other() -> None:
    seen = []

    @each_of("value", ["good", "skipped", "bad"])
    def test(value: str) -> None:
        seen.append(value)
        if value == "skipped":
            pytest.skip("not here")
        assert value != "bad"

    with pytest.raises(AssertionError, match="test failed for bad"):
        test()
    assert seen == ["good", "skipped", "bad"]


def test_a_test_is_skipped_if_all_of_its_rows_are() -> None:
    @each_of("value", [1, 2])
    def test(value: int) -> None:
        pytest.skip(f"no {value}")

    with pytest.raises(pytest.skip.Exception, match="no 1"):
        test()
