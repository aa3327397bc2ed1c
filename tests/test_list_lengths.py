"""The recorded lengths of lists: every list action has them, and none exceeds the limit of a result."""

from __future__ import annotations

import json

from bench import lists

FIGURES = json.loads(lists.FIGURES.read_bytes())
ASKS_FOR_LESS = {("review.reads", "5000")}  # it would need more requests than one call may make


def test_every_list_fits_into_a_result() -> None:
    assert list(FIGURES["now"]) == [str(rows) for rows in lists.ROWS]
    for rows, lengths in FIGURES["now"].items():
        for tool, action in lists.list_actions():
            name = f"{tool.name}.{action.name}"
            assert name in lengths or (name, rows) in ASKS_FOR_LESS, f"{name}: run `python -m bench.lists`"
        assert lists.LISTING in lengths
    assert lists.too_long(FIGURES["now"]) == []


def test_list_above_the_limit_is_named() -> None:
    assert {"manage_secrets.list", "manage_machines.list"} <= set(lists.too_long(FIGURES["before"]))
    assert lists.too_long({"60": {lists.LISTING: 30_000, "a.list": 10_000, "b.list": 10_001}}) == ["b.list"]


def test_page_shows_the_recorded_lengths() -> None:
    assert lists.PAGE.read_text(encoding="utf-8") == lists.page(FIGURES)


def test_every_list_action_can_be_called() -> None:
    for tool, action in lists.list_actions():
        given = lists.arguments(tool, action)
        assert {arg.name for arg in action.args if arg.required} <= set(given), f"{tool.name}.{action.name}"
