"""Reads `.env` files.

    # comment                           lines may be empty
    NAME=value                          up to the end of the line, or to a # after white space; trimmed
    export NAME = value                 white space around = does not count
    NAME='as it is'                     may contain line ends; no escapes
    NAME="with \\n, \\r, \\t, \\\\, \\" and \\$"   may contain line ends; any other backslash stays
    NAME=                               an empty value

Names are letters, digits, `_`, `.` and `-`, and do not begin with a digit, `.` or `-`. Nothing is substituted: `$HOME`
stays as it is. A name that appears twice is an error, because programs differ in which line they use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vault.errors import VaultError

MAX_ERRORS = 5  # named in one message

START = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
BLANK = re.compile(r"[ \t]*(?:#.*)?$", re.MULTILINE)
SINGLE = re.compile(r"'(?P<value>[^']*)'")
DOUBLE = re.compile(r'"(?P<value>(?:[^"\\]|\\.)*)"', re.DOTALL)
PLAIN = re.compile(r"(?P<value>(?:(?!(?<=[ \t])#).)*)")
ESCAPE = re.compile(r'\\([nrt\\"$])')
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
HINT = "fix the file; values with # or line ends need quotes"


class Entry(NamedTuple):
    """One variable, and the number of the line on which it begins."""

    name: str
    value: str
    line: int


class DotenvError(VaultError):
    """The file has errors. `problems` are pairs of a line number and a message that quotes nothing of the file."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self.problems = problems
        named = [f"line {line} {message}" for line, message in problems[:MAX_ERRORS]]
        more = len(problems) - len(named)
        super().__init__("; ".join(named + ([f"and {more} more"] if more else [])), HINT)


def parse(text: str) -> list[Entry]:
    """The variables of a file, in its order. Raises DotenvError, which lists every line that is wrong."""
    lines: dict[str, int] = {}
    entries, problems = [], []
    for found in _statements(text.removeprefix("\ufeff").replace("\r\n", "\n")):
        if not isinstance(found, Entry):
            problems.append(found)
        elif found.name in lines:
            problems.append((found.line, f"repeats the name of line {lines[found.name]}"))
        else:
            lines[found.name] = found.line
            entries.append(found)
    if problems:
        raise DotenvError(problems)
    return entries


def _statements(text: str) -> Iterator[Entry | tuple[int, str]]:
    """The entries and the errors, in the order of the file."""
    at, line = 0, 1
    while at < len(text):
        end = _line_end(text, at)
        if BLANK.match(text, at, end):
            at, line = end + 1, line + 1
            continue
        start = START.match(text, at, end)
        if start is None:
            yield line, "is not NAME=value"
            at, line = end + 1, line + 1
            continue
        found, after = _value(text, start.end(), end)
        after_end = _line_end(text, after)
        if found is not None and BLANK.match(text, after, after_end):
            yield Entry(start["name"], found, line)
        else:
            yield line, "has a quote that is not closed" if found is None else "has text after the closing quote"
        line += text.count("\n", at, after_end) + 1
        at = after_end + 1


def _value(text: str, at: int, end: int) -> tuple[str | None, int]:
    """The value that begins here and where it ends; None if its quote is not closed. `end` is that of the line."""
    quote = text[at : at + 1]
    if quote not in ("'", '"') or at >= end:
        found = PLAIN.match(text, at, end)
        return (found["value"].rstrip() if found else ""), end
    closed = (SINGLE if quote == "'" else DOUBLE).match(text, at)
    if closed is None:
        return None, end
    value = closed["value"]
    return (value if quote == "'" else ESCAPE.sub(lambda m: ESCAPES.get(m[1], m[1]), value)), closed.end()


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
