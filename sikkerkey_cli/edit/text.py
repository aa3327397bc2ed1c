"""What the editors of the three formats share: a scanner, a tree of values with their positions, and line edits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, NoReturn

from sikkerkey_mcp import ConfigError

DEPTH_MAX = 100  # real settings files are flatter, and Python's own stack overflows at about ten times that
PARSED_TEXTS_KEPT = 2  # the text before and after a change; each is looked at several times
BLANK = re.compile(r"[ \t]*")
LINE = re.compile(r"[^\r\n]*")

Path = tuple[str, ...]


class Item(str):
    """A step of a path that means the list item whose `name` is this string, instead of the member of that name."""

    __slots__ = ()


class TextError(ConfigError):
    """The text is refused: it is malformed, ambiguous, or something else stands where the member should go."""

    def __init__(self, text: str, at: int, reason: str) -> None:
        line = text.count("\n", 0, at) + 1
        column = at - text.rfind("\n", 0, at)
        super().__init__(f"line {line}, column {column}: {reason}")


class Raw(NamedTuple):
    """A number, a date or a multi-line scalar, kept as it is written because nothing here computes with it."""

    text: str


class Change(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


class Format(NamedTuple):
    """How one kind of file is read and changed. Each function raises TextError.

    `read` returns the document; it may return the same object again, so callers must not change it. `put` sets the
    member at a path, `drop` removes it, and `locate` returns the spans in which it stands.
    """

    read: Callable[[str], dict[str, Any]]
    put: Callable[[str, Path, Any], str]
    drop: Callable[[str, Path], str]
    locate: Callable[[str, Path], list[tuple[int, int]]]


# ---------------------------------------------------------------------------------------------------------------------
# reading
# ---------------------------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A member of an object or a mapping, from its key to its value; or an item of a list, whose key is empty."""

    key: str
    start: int
    value_start: int  # after the colon or the dash
    node: Node


class Node(NamedTuple):
    """A value and its span. `members` is None for a value that can only be replaced as a whole."""

    start: int
    end: int
    value: Any
    members: list[Member] | None = None


class Scanner:
    """Reads a text from start to end; `at` is the current position."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    def refuse(self, reason: str, at: int | None = None) -> NoReturn:
        """Raises TextError for position `at`, by default the current one."""
        raise TextError(self.text, self.at if at is None else at, reason)

    def sees(self, *marks: str) -> bool:
        """Whether one of the marks stands at the current position."""
        return self.text.startswith(marks, self.at)

    def take(self, pattern: re.Pattern[str], reason: str = "") -> str:
        """Consumes and returns a match of the pattern. Raises TextError with `reason` if there is none."""
        found = pattern.match(self.text, self.at)
        if not found:
            self.refuse(reason)
        self.at = found.end()
        return found[0]

    def expect(self, mark: str) -> None:
        """Consumes a mark."""
        if not self.sees(mark):
            self.refuse(f"expected {mark}")
        self.at += len(mark)

    def enter_level(self) -> None:
        """Begins a nested value."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self.refuse(f"nested more than {DEPTH_MAX} levels deep")

    def leave_level(self) -> None:
        """Ends a nested value."""
        self._depth -= 1

    def items(self, close: str, space: re.Pattern[str]) -> Iterator[None]:
        """Yields at the start of each item in brackets, which the caller then reads; ends after the closing bracket."""
        self.enter_level()
        self.at += 1
        self.take(space)
        while not self.sees(close):
            yield
            self.take(space)
            if self.sees(","):
                self.at += 1
                self.take(space)
            elif not self.sees(close):
                self.refuse(f"expected a comma or {close}")
        self.at += 1
        self.leave_level()


def find_path(text: str, root: Node, path: Path) -> list[Member]:
    """The members along a path, as far as they exist.

    Raises TextError for a duplicate key on the way, because programs disagree about which of the two counts.
    """
    walked: list[Member] = []
    node = root
    for step in path:
        found = [member for member in node.members or () if _is_step(member, step)]
        if len(found) > 1:
            raise TextError(text, found[1].start, "this name is used twice here")
        if not found:
            break
        walked += found
        node = found[0].node
    return walked


def _is_step(member: Member, step: str) -> bool:
    if not isinstance(step, Item):
        return member.key == step
    return isinstance(member.node.value, dict) and member.node.value.get("name") == step


def locate(text: str, root: Node, path: Path) -> list[tuple[int, int]]:
    """The span of the member at `path`; empty if there is none."""
    walked = find_path(text, root, path)
    return [(walked[-1].start, walked[-1].node.end)] if len(walked) == len(path) else []


# ---------------------------------------------------------------------------------------------------------------------
# changing
# ---------------------------------------------------------------------------------------------------------------------


def apply_changes(text: str, changes: Iterable[Change]) -> str:
    """The text after changes that do not overlap."""
    for change in sorted(changes, reverse=True):
        text = text[: change.start] + change.new + text[change.end :]
    return text


def line_end_of(text: str, at: int = 0) -> str:
    """The line ending of the line that contains `at`, or of the line before if that is the last one."""
    end = text.find("\n", at)
    end = text.rfind("\n") if end < 0 else end
    return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"


def line_start(text: str, at: int) -> int:
    """The start of the line that contains `at`."""
    return text.rfind("\n", 0, at) + 1


def line_stop(text: str, at: int) -> int:
    """The end of the line that contains `at`, without its line ending."""
    found = LINE.match(text, at)
    return found.end() if found else at


def indent_at(text: str, at: int) -> str:
    """The indentation of the line that contains `at`."""
    found = BLANK.match(text, line_start(text, at))
    return found[0] if found else ""


def lines_after(text: str, at: int, indent: str, lines: Iterable[str]) -> Change:
    """Inserts lines after the line that contains `at`."""
    stop = line_stop(text, at)
    return Change(stop, stop, "".join(f"{line_end_of(text, stop)}{indent}{line}" for line in lines))


def append_lines(text: str, lines: list[str], blank_lines: int) -> str:
    """The text with `blank_lines` and `lines` at its end. It ends with a line ending if it did before."""
    line_end = line_end_of(text, len(text))
    added = line_end.join(lines)
    if not text:
        return added + line_end
    if text.endswith("\n"):
        return text + line_end * blank_lines + added + line_end
    return text + line_end * (blank_lines + 1) + added


def delete_lines(text: str, start: int, end: int, *, leading_blank: bool = False) -> Change:
    """Deletes whole lines; at the end of a text without a final line ending, with the line ending before them."""
    start = line_start(text, start)
    end = text.find("\n", end) + 1
    if leading_blank and start and not text[line_start(text, start - 1) : start].strip():
        start = line_start(text, start - 1)
    if not end:
        start = len(text[:start].removesuffix("\n").removesuffix("\r"))
        end = len(text)
    return Change(start, end, "")


def with_value_at(outer: Any, path: Path, value: Any) -> Any:
    """A copy of `outer` in which `value` stands at `path`."""
    if not path:
        return value
    inner = outer if isinstance(outer, dict) else {}
    return {**inner, path[0]: with_value_at(inner.get(path[0]), path[1:], value)}


def without_value_at(outer: Any, path: Path) -> Any:
    """A copy of `outer` without the value at `path`."""
    if not isinstance(outer, dict) or path[0] not in outer:
        return outer
    rest = {key: inner for key, inner in outer.items() if key != path[0]}
    return {**rest, path[0]: without_value_at(outer[path[0]], path[1:])} if len(path) > 1 else rest


def ascii_string(value: str) -> str:
    """A double-quoted string that TOML and YAML both read as `value`; in ASCII, so that any terminal can show it.

    Both know \\U, and neither knows the surrogate pairs that JSON writes beyond 16 bits; TOML requires an escaped DEL.
    """
    return re.sub(r"[^ -~]", lambda c: f"\\U{ord(c[0]):08X}", json.dumps(value, ensure_ascii=False))


def json_escapes(written: str) -> str:
    """A string literal with the escapes \\U, \\x and \\e rewritten for JSON.

    Invalid code points stay, so that JSON refuses them.
    """
    return re.sub(r"(\\\\)|\\U00([01][0-9a-fA-F]{5})|\\x([0-9a-fA-F]{2})|\\(e)", _json_escape, written)


def _json_escape(found: re.Match[str]) -> str:
    code_point = 0x1B if found[4] else int(found[2] or found[3] or "0", 16)
    return found[0] if found[1] or code_point > sys.maxunicode else json.dumps(chr(code_point))[1:-1]
