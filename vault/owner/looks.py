"""How text looks on a terminal: color, width, tables, times. In pipes and files, text is plain and complete."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, TextIO

from vault.terminal import printable

GAP = "  "
LAST_MIN_COLUMNS = 24  # a narrower last column makes each row a block of lines
RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"
COLOURS = {
    "approved": GREEN,
    "pending": YELLOW,
    "disabled": RED,
    "expired": YELLOW,
    "frozen": RED,
    "medium": YELLOW,
    "high": RED,
    "critical": RED,
    "refused": RED,
    "replaced": YELLOW,
    "new": GREEN,
}


def is_coloured(stream: TextIO) -> bool:
    """Whether the stream is a terminal that shows color, and the user wants it."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in a color, if the stream shows it."""
    return f"\033[{colour}m{text}\033[0m" if is_coloured(stream) else text


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned columns that are safe to print, as wide as the terminal at most. Empty without rows.

    On a terminal, the last column is wrapped; if too little space is left for it, each row is a block of lines.
    """
    if not rows:
        return ""
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(_width(line[column]) for line in (header, *lines)) for column in range(len(header))]
    columns = _terminal_columns()
    if columns is None or sum(widths) + len(GAP) * (len(widths) - 1) <= columns:
        return "\n".join([_heading(_line(header, widths)), *(_line(line, widths, True) for line in lines)])
    left = columns - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    if left < LAST_MIN_COLUMNS:
        return "\n\n".join(_block(header, line, columns) for line in lines)
    indent = " " * (columns - left)
    text = [_heading(_line(header, widths))]
    for line in lines:
        first, *more = _wrapped(line[-1], left)
        text += [_line([*line[:-1], first], widths, True), *(indent + each for each in more)]
    return "\n".join(text)


def format_time(at_ms: Any) -> str:
    """A time in UTC, or a dash for None."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _terminal_columns() -> int | None:
    """The width of the terminal, or None if standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _heading(line: str) -> str:
    return coloured(line, BOLD, sys.stdout)


def _line(cells: Sequence[str], widths: Sequence[int], in_colour: bool = False) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths)]
    line = GAP.join(padded).rstrip()
    if not in_colour or not is_coloured(sys.stdout):
        return line
    return GAP.join(_painted(cell, text) for cell, text in zip(cells, padded)).rstrip()


def _painted(cell: str, padded: str) -> str:
    return padded.replace(cell, coloured(cell, COLOURS[cell], sys.stdout), 1) if cell in COLOURS else padded


def _block(header: Sequence[str], cells: Sequence[str], columns: int) -> str:
    """A row as one line for each column."""
    width = max(map(len, header))
    text = []
    for name, cell in zip(header, cells):
        first, *more = _wrapped(cell, max(columns - width - len(GAP), LAST_MIN_COLUMNS))
        text.append(_heading(name.ljust(width)) + GAP + _painted(first, first))
        text += [" " * (width + len(GAP)) + each for each in more]
    return "\n".join(line.rstrip() for line in text)


def _wrapped(text: str, columns: int) -> list[str]:
    """The text in lines. Words are broken only if they do not fit into one."""
    # Wide characters take two columns. Half the columns always suffice, and such text is rare.
    fits = columns if _width(text) == len(text) else max(columns // 2, 1)
    return textwrap.wrap(text, fits, break_on_hyphens=False) or [""]


def _width(text: str) -> int:
    """How many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) + wide - marks
