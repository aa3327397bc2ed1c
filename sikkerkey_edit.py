"""Puts a member into other programs' settings, JSON with comments, TOML or YAML, by changing the smallest span of text.

For each format there are `read` (the whole as plain values), `put` and `drop` (one member, by its path). What stands
outside the span stays byte for byte. A text that is malformed, or more than this module can judge, is refused with the
line and the column: TextError. Nothing here knows files, clients or the vault.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, NoReturn

from sikkerkey_mcp import ConfigError

DEPTH_MAX = 100  # nobody's settings nest so deep, and Python's own stack ends at about ten times that

Path = tuple[str, ...]


class Item(str):
    """A step of a path: not the member of that name, but the item of a list that has it as its `name`."""

    __slots__ = ()


class TextError(ConfigError):
    """The text is refused: it is malformed, or its place for us is taken by something else."""

    def __init__(self, text: str, at: int, reason: str) -> None:
        line = text.count("\n", 0, at) + 1
        column = at - text.rfind("\n", 0, at)
        super().__init__(f"line {line}, column {column}: {reason}")


class Bare(NamedTuple):
    """A number, a date or a scalar over several lines: kept as it is written, since nothing here computes with it."""

    text: str


class Change(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


class Format(NamedTuple):
    """How one kind of file is read and changed; each function raises TextError."""

    read: Callable[[str], dict[str, Any]]
    put: Callable[[str, Path, Any], str]
    drop: Callable[[str, Path], str]


def changed(text: str, changes: Iterable[Change]) -> str:
    """The text after changes that do not overlap."""
    for change in sorted(changes, reverse=True):
        text = text[: change.start] + change.new + text[change.end :]
    return text


def line_end_of(text: str) -> str:
    """The line end that the text begins with."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def line_start(text: str, at: int) -> int:
    """Where the line begins that `at` is in."""
    return text.rfind("\n", 0, at) + 1


def indent_at(text: str, at: int) -> str:
    """The white space at the beginning of the line that `at` is in."""
    found = re.compile(r"[ \t]*").match(text, line_start(text, at))
    return found[0] if found else ""


def ascii_string(value: str) -> str:
    """A JSON string that is a TOML basic string and a YAML double-quoted one too; in ASCII, as any terminal can carry it.

    Both know \\U, and neither the pairs of surrogates with which JSON writes what lies beyond 16 bits; TOML wants DEL escaped.
    """
    return re.sub(r"[^ -~]", lambda c: f"\\U{ord(c[0]):08X}", json.dumps(value, ensure_ascii=False))


# ---------------------------------------------------------------------------------------------------------------------
# json, with comments and trailing commas: a client that does not take them has refused its file before we see it
# ---------------------------------------------------------------------------------------------------------------------

JSON_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
JSON_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*[^\r\n]*?\*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n)")
JSON_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
JSON_BARE = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)(?![\w.+-])")
BLANK = re.compile(r"[ \t]*")
BLANK_TO_LINE_END = re.compile(r"[ \t]*(?=\r?\n|\Z)")
JSON_WORDS = {"true": True, "false": False, "null": None}


class Member(NamedTuple):
    """A member of an object, from its key to its value; `comma` is where the one behind it stands, or -1."""

    key: str
    start: int
    value: Node
    comma: int


class Node(NamedTuple):
    """A value and its span; `members` only for an object."""

    start: int
    end: int
    value: Any
    members: list[Member] | None = None


class JsonScanner:
    """Reads a text from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def document(self) -> Node:
        """The only value of the text, which must be an object."""
        start = self._skip(0)
        if not self.text.startswith("{", start):
            self._refuse(start, "an object must begin here")
        root = self._value(start, 1)
        end = self._skip(root.end)
        if end != len(self.text):
            self._refuse(end, "nothing may follow the object")
        return root

    def _refuse(self, at: int, reason: str) -> NoReturn:
        raise TextError(self.text, at, reason)

    def _skip(self, at: int) -> int:
        found = JSON_SPACE.match(self.text, at)
        end = found.end() if found else at
        if self.text.startswith("/*", end):
            self._refuse(end, "a comment is not closed")
        return end

    def _value(self, at: int, depth: int) -> Node:
        if depth > DEPTH_MAX:
            self._refuse(at, f"this is nested deeper than {DEPTH_MAX} levels")
        first = self.text[at : at + 1]
        if first == "{":
            return self._object(at, depth)
        if first == "[":
            return self._array(at, depth)
        if first == '"':
            return self._string(at)
        found = JSON_BARE.match(self.text, at)
        if not found:
            self._refuse(at, "a value must begin here")
        return Node(at, found.end(), JSON_WORDS[found[0]] if found[0] in JSON_WORDS else Bare(found[0]))

    def _string(self, at: int) -> Node:
        found = JSON_STRING.match(self.text, at)
        if not found:
            self._refuse(at, "this string is not closed on its line, or holds an escape that JSON does not know")
        return Node(at, found.end(), json.loads(found[0]))

    def _array(self, start: int, depth: int) -> Node:
        values, at = [], self._skip(start + 1)
        while not self.text.startswith("]", at):
            node = self._value(at, depth + 1)
            values.append(node.value)
            at, _ = self._comma(node.end, "]")
        return Node(start, at + 1, values)

    def _object(self, start: int, depth: int) -> Node:
        members, at = [], self._skip(start + 1)
        while not self.text.startswith("}", at):
            if not self.text.startswith('"', at):
                self._refuse(at, 'a key in " or the end of the object must stand here')
            key = self._string(at)
            colon = self._skip(key.end)
            if not self.text.startswith(":", colon):
                self._refuse(colon, "a colon must stand here")
            node = self._value(self._skip(colon + 1), depth + 1)
            key_start, (at, comma) = at, self._comma(node.end, "}")
            members.append(Member(key.value, key_start, node, comma))
        return Node(start, at + 1, {member.key: member.value.value for member in members}, members)

    def _comma(self, at: int, close: str) -> tuple[int, int]:
        """Where it goes on after a value, and where the comma stands, or -1."""
        at = self._skip(at)
        if self.text.startswith(",", at):
            return self._skip(at + 1), at
        if not self.text.startswith(close, at):
            self._refuse(at, f"a comma or {close} must stand here")
        return at, -1


def json_read(text: str) -> dict[str, Any]:
    """The document; numbers are Bare."""
    document: dict[str, Any] = JsonScanner(text).document().value
    return document


class Place(NamedTuple):
    """Where a path leads: the deepest value that exists on it, and what is left of the path."""

    root: Node
    node: Node
    rest: Path


def _json_find(text: str, path: Path) -> Place:
    root = node = JsonScanner(text).document()
    for depth, key in enumerate(path):
        if node.members is None:
            raise TextError(text, node.start, f"{path[depth - 1]} must be an object")
        found = _json_members(text, node.members, key)
        if not found:
            return Place(root, node, path[depth:])
        node = found[0].value
    return Place(root, node, ())


def _json_members(text: str, members: list[Member], key: str) -> list[Member]:
    """None or the one of this key. Programs disagree about which of two counts, so two are refused."""
    found = [member for member in members if member.key == key]
    if len(found) > 1:
        raise TextError(text, found[1].start, "this key stands here for the second time")
    return found


def json_put(text: str, path: Path, value: Any) -> str:
    """Sets the member at `path`; objects that are missing on the way are made."""
    root, node, rest = _json_find(text, path)
    if rest:
        for key in reversed(rest[1:]):
            value = {key: value}
        return changed(text, _json_insert(text, node, rest[0], value, _json_unit(text, root)))
    one_line = "\n" not in text[node.start : node.end] and bool(node.value)
    style = None if one_line else _json_unit(text, root)
    return changed(text, [Change(node.start, node.end, _json_text(text, value, indent_at(text, node.start), style))])


def _json_unit(text: str, root: Node) -> str:
    """What one level is indented by."""
    first = root.members[0].start if root.members else root.start
    return (indent_at(text, first) if "\n" in text[root.start : first] else "") or "  "


def _json_text(text: str, value: Any, indent: str, unit: str | None) -> str:
    """The value in the style of `text`, its first line without indent; a `unit` of None writes one line."""
    lines = json.dumps(value, indent=unit).split("\n")
    return f"{line_end_of(text)}{indent}".join(lines)


def _json_insert(text: str, node: Node, key: str, value: Any, unit: str) -> list[Change]:
    """A new last member."""
    if node.members:
        return _json_append(text, node, node.members[-1], key, value, unit)
    outer, line_end = indent_at(text, node.start), line_end_of(text)
    member = f"{line_end}{outer}{unit}{json.dumps(key)}: {_json_text(text, value, outer + unit, unit)}"
    inside = text[node.start + 1 : node.end - 1]
    kept = len(inside.rstrip()) if inside.strip() else 0  # comments
    at = node.start + 1 + kept
    if kept and "\n" in text[at : node.end]:
        return [Change(at, at, member)]
    return [Change(at, node.end - 1, f"{member}{line_end}{outer}")]


def _json_append(text: str, node: Node, last: Member, key: str, value: Any, unit: str) -> list[Change]:
    first = node.members[0].start if node.members else node.start
    several_lines = "\n" in text[node.start : first]
    indent = indent_at(text, last.start) if several_lines else ""
    new = f"{json.dumps(key)}: {_json_text(text, value, indent, unit if several_lines else None)}"
    new = f"{line_end_of(text)}{indent}{new}" if several_lines else f" {new}"
    end = last.value.end if last.comma < 0 else last.comma + 1
    rest = JSON_REST_OF_LINE.match(text, end) if several_lines else None
    at = rest.end() if rest else end  # behind a comment that speaks of the last member
    if last.comma >= 0:
        return [Change(at, at, new + ",")]
    return [Change(at, at, "," + new)] if at == end else [Change(end, end, ","), Change(at, at, new)]


def json_drop(text: str, path: Path) -> str:
    """Removes the member at `path`, if there is one."""
    _root, node, rest = _json_find(text, path[:-1])
    members = node.members or []
    found = [] if rest else _json_members(text, members, path[-1])
    if not found:
        return text
    shorter = changed(text, _json_removal(text, members, members.index(found[0])))
    end = node.end - (len(text) - len(shorter))
    if len(members) > 1 or shorter[node.start + 1 : end - 1].strip():
        return shorter
    return changed(shorter, [Change(node.start, end, "{}")])


def _json_removal(text: str, members: list[Member], place: int) -> list[Change]:
    member = members[place]
    end = member.value.end if member.comma < 0 else member.comma + 1
    before = len(text[: member.start].rstrip(" \t"))
    start = member.start
    if text[:before].endswith("\n") and BLANK_TO_LINE_END.match(text, end):
        start = before - (2 if text[:before].endswith("\r\n") else 1)
    elif member.comma >= 0:
        end = BLANK.match(text, end).end()  # type: ignore[union-attr]
    if member.comma >= 0 or not place:
        return [Change(start, end, "")]
    comma = members[place - 1].comma
    if not text[comma + 1 : start].strip(" \t"):
        return [Change(comma, end, "")]
    return [Change(comma, comma + 1, ""), Change(start, end, "")]


JSON = Format(json_read, json_put, json_drop)

FORMATS = {"json": JSON}
