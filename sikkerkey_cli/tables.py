"""Results for people: columns that fit the terminal, and JSON in which nothing moves the cursor.

Text from others is cleaned before it is shown.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import sikkerkey_mcp
import sikkerkey_pages
from sikkerkey_cli import terminal
from sikkerkey_mcp import JsonObject

NOTHING = "-"  # for null, and for a member that a row does not have
GAP = 2  # spaces between two columns
ALL_PROJECTS = "all projects"
ALLOWLIST = "projectAllowlist"  # null if the agent is not restricted to projects

# ---------------------------------------------------------------------------------------------------------------------
# columns
# ---------------------------------------------------------------------------------------------------------------------


def is_table(value: Any) -> bool:
    """Whether this is a list of at least one object, and nothing else."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def columns(rows: list[JsonObject], wanted: Sequence[str] = (), width: int | None = None) -> str:
    """Objects as rows below the names of their members, or of those that are `wanted`.

    A member that is empty in every row is left out unless it is wanted. Lines have at most `width` characters.
    """
    present = dict.fromkeys(name for row in rows for name in row)
    names = list(wanted) or [name for name in present if any(_says_something(row, name) for row in rows)]
    shorten = one_line if wanted else terminal.cell  # a script wants the whole of what it asks for
    cells = [[shorten(plain(row.get(name), name)) for name in names] for row in rows]
    return fitted([[terminal.cell(name) for name in names], *cells], width)


def _says_something(row: JsonObject, name: str) -> bool:
    return row.get(name) not in (None, "", [], {}) or (name == ALLOWLIST and name in row)


def members(value: JsonObject, wanted: Sequence[str] = (), width: int | None = None) -> str:
    """An object for people: its members as `name  value`, then each list of objects as columns.

    If `items` is the only list, it comes first. Of several lists, those are shown that have all columns that are
    `wanted`; of these, `items` alone.
    """
    rows_in = {name: [{name: each} for each in member] if _is_name_list(name, member) else member
               for name, member in value.items()}  # fmt: skip
    tables = {name: member for name, member in rows_in.items() if is_table(member)}
    others = {
        name: each for name, each in _flat(value).items() if name not in tables and (not wanted or name in wanted)
    }
    complete = {name: rows for name, rows in tables.items() if set(wanted) <= {each for row in rows for each in row}}
    shown = complete or tables
    shown = {"items": shown["items"]} if wanted and "items" in shown else shown
    if others == {"total": len(shown.get("items", ()))}:
        others = {}  # the rows are all there, and easily counted
    lines = [(terminal.cell(name), one_line(plain(member, name))) for name, member in others.items()]
    facts = [_labelled(lines, width)] if lines else []
    if list(shown) == ["items"]:
        return "\n\n".join([columns(shown["items"], wanted, width), *facts])
    titles = [f"{terminal.cell(name)}:\n" if facts or len(shown) > 1 else "" for name in shown]
    parts = [title + columns(rows, wanted, width) for title, rows in zip(titles, shown.values())]
    return "\n\n".join([*facts, *parts])


def _is_name_list(name: str, member: Any) -> bool:
    """Whether a list of names is the whole answer, such as that of audit actions."""
    return name == "items" and isinstance(member, list) and bool(member) and all(isinstance(x, str) for x in member)


def _flat(value: JsonObject) -> JsonObject:
    """The members, with those of an inner object as `outer.inner`."""
    flat: JsonObject = {}
    for name, member in value.items():
        inner = member if isinstance(member, dict) and member else None
        flat.update({name: member} if inner is None else {f"{name}.{each}": inner[each] for each in inner})
    return flat


def plain(value: Any, name: str = "") -> str:
    """The value of the member `name` in a table: a list of strings is joined, other values but strings are JSON."""
    if value is None:
        return ALL_PROJECTS if name == ALLOWLIST else NOTHING
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else sikkerkey_mcp.to_json(value)


def one_line(text: str) -> str:
    """`text` cleaned, on one line."""
    return re.sub(r"\s", " ", terminal.cleaned(text))


def fitted(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows, the first of them names, as aligned columns with at most `width` characters a line.

    Cells are wrapped at spaces. Where that is not enough, each row becomes a paragraph of `name  value`.
    """
    natural = _widths(rows)
    if width is None or sum(natural) + GAP * (len(natural) - 1) <= width:
        return terminal.aligned(rows)
    least = [max(longest_word(cell) for cell in column) for column in zip(*rows)]
    left = width - GAP * (len(natural) - 1)
    if sum(least) > left:
        head, *others = rows
        return "\n\n".join(_labelled(list(zip(head, row)), width) for row in others)
    widths = _narrowed(natural, least, left)
    lines: list[list[str]] = []
    for row in rows:
        cells = [terminal.wrapped_lines(cell, wide) for cell, wide in zip(row, widths)]
        height = max(map(len, cells))
        lines += map(list, zip(*([*cell, *[""] * (height - len(cell))] for cell in cells)))
    return terminal.aligned(lines)


def longest_word(text: str) -> int:
    """The columns on the screen of the longest word."""
    return max(map(terminal.text_width, text.split(" ")))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(terminal.text_width, column)) for column in zip(*rows)]


def _narrowed(natural: Sequence[int], least: Sequence[int], left: int) -> list[int]:
    """The widths of columns that share `left` characters: the widest ones give way first."""
    widths = list(natural)
    while sum(widths) > left:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _labelled(lines: Sequence[tuple[str, str]], width: int | None) -> str:
    """Names and values, each value wrapped beside its name."""
    indent = max(terminal.text_width(name) for name, _ in lines) + GAP
    rows = []
    for name, value in lines:
        pieces = terminal.wrapped_lines(value, max(width - indent, 20)) if width else [value]
        rows += [(name if place == 0 else "", piece) for place, piece in enumerate(pieces)]
    return terminal.aligned(rows)


# ---------------------------------------------------------------------------------------------------------------------
# the result of a call
# ---------------------------------------------------------------------------------------------------------------------


def as_json(result: JsonObject) -> str:
    """JSON with one row per line, or indented on a terminal, without characters that move the cursor; CSV as it is."""
    text: str = result["content"][0]["text"]
    if "structuredContent" not in result:
        return terminal.cleaned(text) if terminal.is_terminal(sys.stdout) else text
    try:
        if terminal.is_terminal(sys.stdout):
            text = json.dumps(result["structuredContent"], ensure_ascii=False, indent=2)
    except RecursionError:  # json.dumps can nest deeper without indent
        pass
    return visible(text)


def visible(text: str) -> str:
    """The same JSON with hidden characters escaped; outside its strings there are none."""
    return "".join(c if c in "\n " or sikkerkey_mcp.clean(c) == c else json.dumps(c)[1:-1] for c in text)


def as_table(result: JsonObject, wanted: Sequence[str] = (), *, exact: bool = False) -> str:
    """The result in columns, with times as dates unless `exact`; CSV as it is."""
    value = result.get("structuredContent")
    if value is None:
        return as_json(result)
    return members(value if exact else sikkerkey_pages.with_iso_times(value), wanted, terminal.width())
