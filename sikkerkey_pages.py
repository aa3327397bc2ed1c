"""What a model is shown of an answer: readable times, short rows, and the rows that match a search.

Nothing here knows MCP or the vault.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sikkerkey_times import SECONDS_BELOW, iso_utc

SEARCHED = ("name", "note", "description", "hostname", "email", "label", "cidr", "url")
TIME_MEMBER = re.compile("(?:At|Start|End)$|^(?:timestamp|time|from|to)$")
COLUMN_NAME = re.compile(r"[\w .-]{0,80}")
TIME_MAX_MS = 253_402_300_799_999  # the end of the year 9999


def with_iso_times(value: Any) -> Any:
    """`value` with every member that holds a time in milliseconds in ISO 8601."""
    if isinstance(value, dict):
        return {name: iso_utc(each) if _is_time(name, each) else with_iso_times(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_iso_times(each) for each in value]
    return value


def _is_time(name: str, value: Any) -> bool:
    return type(value) is int and SECONDS_BELOW <= value <= TIME_MAX_MS and TIME_MEMBER.search(name) is not None


def without_nulls(value: Any) -> Any:
    """`value` without the members of objects that are null."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def shortened(value: Any, characters: int, list_characters: int, remark: str) -> Any:
    """`value` with long texts and lists cut, and what is missing behind each, followed by `remark`.

    A text keeps `characters`, a list the first items that have about `list_characters` together.
    """
    if isinstance(value, dict):
        return {name: shortened(each, characters, list_characters, remark) for name, each in value.items()}
    if isinstance(value, list):
        items = [shortened(each, characters, list_characters, remark) for each in value]
        kept = first_texts(list(map(repr, items)), list_characters)
        cut = [f"... [{len(kept):,} of {len(items):,} items{remark}]"] if len(kept) < len(items) else []
        return [*items[: len(kept)], *cut]
    if isinstance(value, str) and len(value) > characters:
        return f"{value[:characters]}... [{characters:,} of {len(value):,} characters{remark}]"
    return value


def matching(rows: Sequence[Any], text: str) -> list[Any]:
    """The rows in which a name, a note or the like contains `text`, in upper or lower case."""
    wanted = text.casefold()
    return [row for row in rows if any(wanted in each.casefold() for each in _searched(row))]


def _searched(row: Any) -> list[str]:
    if isinstance(row, str):
        return [row]
    members = row if isinstance(row, Mapping) else {}
    return [each for name in SEARCHED if isinstance(each := members.get(name), str)]


def first_texts(texts: Sequence[str], characters: int) -> list[str]:
    """The first texts that have at most `characters` together."""
    kept = []
    for text in texts:
        characters -= len(text)
        if characters < 0:
            break
        kept.append(text)
    return kept


def csv_records(text: str, may_show: Callable[[str, Any], bool], withheld: str, *, iso_times: bool) -> list[str]:
    """The records of a CSV text (RFC 4180) as they are, each with its line end.

    Raises csv.Error, also if the first record does not name the columns.

    A record is written again if `may_show` (column, cell) forbids a cell, which becomes `withheld`, or, with
    `iso_times`, if it holds times in milliseconds, which become ISO 8601.
    """
    lines = io.StringIO(text, newline="").readlines()
    reader, begin, records = csv.reader(lines), 0, []
    columns: list[str] | None = None
    times: list[int] = []
    known: list[bool] = []
    for cells in reader:
        record, begin = "".join(lines[begin : reader.line_num]), reader.line_num
        if columns is None:  # this is the header
            if not all(COLUMN_NAME.fullmatch(name) for name in cells):
                raise csv.Error("the first record does not name the columns")
            columns = cells
            times = [place for place, name in enumerate(cells) if iso_times and TIME_MEMBER.search(name)]
            known = [may_show(name, "a text") for name in cells]
        else:
            shown = (
                cells if all(known) and len(cells) <= len(known) else _shown_cells(cells, columns, may_show, withheld)
            )
            if any(_is_time_cell(shown, place) for place in times):
                shown = _with_iso_cells(shown, times)
            record = record if shown == cells else _record_of(shown)
        records.append(record)
    return records


def _shown_cells(
    cells: Sequence[str], columns: Sequence[str], may_show: Callable[[str, Any], bool], withheld: str
) -> list[str]:
    names = [*columns, *[""] * len(cells)]
    return [
        cell if not cell or may_show(name, int(cell) if re.fullmatch("[0-9]{1,18}", cell) else cell) else withheld
        for name, cell in zip(names, cells)
    ]


def _is_time_cell(cells: Sequence[str], place: int) -> bool:
    digits = cells[place] if place < len(cells) else ""
    return re.fullmatch("[0-9]{12,15}", digits) is not None and SECONDS_BELOW <= int(digits) <= TIME_MAX_MS


def _with_iso_cells(cells: Sequence[str], times: Sequence[int]) -> list[str]:
    iso = {place: iso_utc(int(cells[place])) for place in times if _is_time_cell(cells, place)}
    return [iso.get(place, cell) for place, cell in enumerate(cells)]


def _record_of(cells: Sequence[str]) -> str:
    record = io.StringIO(newline="")
    csv.writer(record).writerow(cells)
    return record.getvalue()
