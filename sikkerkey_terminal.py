"""What a person at a terminal sees: colour, progress, questions, aligned columns. Never imported by `serve`.

Answers go to stdout and can be parsed; everything else goes to stderr. What others wrote is cleaned before it is shown.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TextIO

import sikkerkey_mcp as mcp

PROGRESS_AFTER_S = 1.0
CELL_MAX_CHARACTERS = 60  # of a column: an answer's free texts would push all others off the screen
COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


class UsageError(mcp.Error):
    """The command line itself is wrong; the exit status is 2."""


def is_terminal(stream: TextIO | None) -> bool:
    """False as well where there is no such stream."""
    return stream is not None and stream.isatty()


def moves_cursor(stream: TextIO | None) -> bool:
    """True where escape sequences are understood."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def coloured(state: str, stream: TextIO | None = None) -> str:
    """`ok`, `warn` or `fail` in its colour: on a terminal, and never against NO_COLOR or on a dumb one."""
    wanted = moves_cursor(stream or sys.stdout) and not os.environ.get("NO_COLOR")
    return f"\033[{COLOURS[state]}m{state}\033[0m" if wanted else state


def width() -> int | None:
    """Characters in a line of the terminal; None where stdout is none, and lines are as long as they are."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def wrapped(text: str, indent: int) -> str:
    """`text` folded to the terminal, but for its first line each begun with `indent` spaces."""
    columns = width()
    if columns is None:
        return text
    lines = textwrap.wrap(text, max(columns - indent, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def cleaned(text: str) -> str:
    """`text` of others with its line ends and tabs, and nothing else that could move the cursor or hide words."""
    return re.sub(r"[^\n\t]+", lambda piece: mcp.clean(piece[0], len(piece[0])), text)


class Progress:
    """Says what is being waited for: after a second, on stderr, if that is a terminal; gone when the wait is over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._shown = self._over = False
        self._timer = threading.Timer(PROGRESS_AFTER_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            self._timer.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._shown:
                sys.stderr.write("\r\033[K" if moves_cursor(sys.stderr) else "\n")
                sys.stderr.flush()

    def _show(self) -> None:
        with self._lock:
            if not self._over:
                sys.stderr.write(f"{self._text} ...")
                sys.stderr.flush()
                self._shown = True


def hidden(name: str) -> str:
    """A line that is typed and not shown. Raises Error where the typing ends without one, or it is not UTF-8."""
    import getpass

    try:
        typed = getpass.getpass(f"{name}: ")
        typed.encode("utf-8")
        return typed
    except EOFError:
        raise mcp.Error(f"no {name} was typed: nothing was sent") from None
    except UnicodeError:  # its own words would hold a byte
        raise mcp.Error(f"the {name} that was typed is not text in UTF-8") from None


def confirm(question: str) -> None:
    """Asks before something that cannot be undone. Raises UsageError where nobody can answer, Error for a no."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError("nobody can be asked here, and this cannot be undone", "add --yes if it is meant")
    sys.stderr.write(f"{question}\nGo on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise mcp.Error("not confirmed: nothing was sent and nothing was changed")


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lines of columns, two spaces apart, each as wide as its widest cell; the last is not padded."""
    table = [list(row) for row in rows]
    widths = [max(map(_columns, column)) for column in zip(*table)]
    return "\n".join(
        "  ".join(cell + " " * (wide - _columns(cell)) for cell, wide in zip(row, widths)).rstrip() for row in table
    )


def cell(text: str) -> str:
    """`text` of others as one cell of a table."""
    return mcp.clean(text, CELL_MAX_CHARACTERS)


def _columns(text: str) -> int:
    """Of the screen: East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
