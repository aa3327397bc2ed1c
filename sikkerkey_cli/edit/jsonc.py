"""JSON with comments and trailing commas: a client that does not accept these has already refused its own file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sikkerkey_cli.edit.text import (
    BLANK,
    PARSED_TEXTS_KEPT,
    Change,
    Format,
    Member,
    Node,
    Path,
    Raw,
    Scanner,
    TextError,
    apply_changes,
    find_path,
    indent_at,
    line_end_of,
    locate,
    with_value_at,
)

JSON_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
JSON_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*(?:[^*\r\n]|\*(?!/))*\*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n)")
JSON_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
JSON_RAW = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)(?![\w.+-])")
BLANK_TO_LINE_END = re.compile(r"[ \t]*(?=\r?\n|\Z)")
JSON_WORDS = {"true": True, "false": False, "null": None}


class JsonScanner(Scanner):
    """Reads JSON with comments and trailing commas. Numbers are Raw."""

    def document(self) -> Node:
        """The object that the text consists of."""
        self.take(JSON_SPACE)
        if not self.sees("{"):
            self.refuse("expected an object")
        root = self._value()
        self.take(JSON_SPACE)
        if self.at != len(self.text):
            self.refuse("unexpected text after the object")
        return root

    def _value(self) -> Node:
        start, members = self.at, None
        value: Any
        if self.sees("{"):
            members = list(self._members())
            value = {member.key: member.node.value for member in members}
        elif self.sees("["):
            value = [self._value().value for _ in self.items("]", JSON_SPACE)]
        elif self.sees('"'):
            value = self._string()
        else:
            word = self.take(JSON_RAW, "expected a value, or a comment is not closed")
            value = JSON_WORDS.get(word, Raw(word))
        return Node(start, self.at, value, members)

    def _members(self) -> Iterator[Member]:
        for _ in self.items("}", JSON_SPACE):
            start = self.at
            if not self.sees('"'):
                self.refuse("expected a key in double quotes or the end of the object")
            key = self._string()
            self.take(JSON_SPACE)
            self.expect(":")
            value_start = self.at
            self.take(JSON_SPACE)
            yield Member(key, start, value_start, self._value())

    def _string(self) -> str:
        reason = "this string is not closed on its line or contains an invalid escape"
        value: str = json.loads(self.take(JSON_STRING, reason))
        return value


@lru_cache(PARSED_TEXTS_KEPT)
def _json_root(text: str) -> Node:
    return JsonScanner(text).document()


def json_put(text: str, path: Path, value: Any) -> str:
    """Sets the member at `path`; missing objects on the way are created."""
    root = _json_root(text)
    walked = find_path(text, root, path)
    node, rest = walked[-1].node if walked else root, path[len(walked) :]
    if not rest:
        one_line = "\n" not in text[node.start : node.end] and bool(node.value)
        written = _json_text(text, value, indent_at(text, node.start), None if one_line else _json_unit(text, root))
        return apply_changes(text, [Change(node.start, node.end, written)])
    if walked and node.value is None:
        return json_put(text, path[: len(walked)], with_value_at({}, rest, value))
    if node.members is None:
        raise TextError(text, node.start, f"{walked[-1].key} is not an object")
    for key in reversed(rest[1:]):
        value = {key: value}
    insert = _json_append if node.members else _json_fill
    return apply_changes(text, insert(text, node, (rest[0], value), _json_unit(text, root)))


def _json_unit(text: str, root: Node) -> str:
    """The indentation of one level."""
    first = root.members[0].start if root.members else root.start
    return (indent_at(text, first) if "\n" in text[root.start : first] else "") or "  "


def _json_text(text: str, value: Any, indent: str, unit: str | None) -> str:
    """The value as JSON, its first line not indented; with a `unit` of None, on one line."""
    lines = json.dumps(value, indent=unit).split("\n")
    return f"{line_end_of(text)}{indent}".join(lines)


def _json_fill(text: str, node: Node, pair: tuple[str, Any], unit: str) -> list[Change]:
    """Adds the first member of an empty object."""
    outer, line_end = indent_at(text, node.start), line_end_of(text)
    member = f"{line_end}{outer}{unit}{json.dumps(pair[0])}: {_json_text(text, pair[1], outer + unit, unit)}"
    inside = text[node.start + 1 : node.end - 1]
    kept = len(inside.rstrip(" \t\r\n"))  # comments
    at = node.start + 1 + kept
    if kept and "\n" in text[at : node.end]:
        return [Change(at, at, member)]
    return [Change(at, node.end - 1, f"{member}{line_end}{outer}")]


def _json_append(text: str, node: Node, pair: tuple[str, Any], unit: str) -> list[Change]:
    """Adds a last member."""
    members = node.members or []
    first, last = members[0], members[-1]
    comma = _json_comma(text, last)
    several_lines = "\n" in text[node.start : first.start]
    indent = indent_at(text, last.start) if several_lines else ""
    added = f"{json.dumps(pair[0])}: {_json_text(text, pair[1], indent, unit if several_lines else None)}"
    added = f"{line_end_of(text)}{indent}{added}" if several_lines else f" {added}"
    end = last.node.end if comma < 0 else comma + 1
    rest = JSON_REST_OF_LINE.match(text, end) if several_lines else None
    at = rest.end() if rest else end  # after a comment about the last member
    if comma >= 0:
        return [Change(at, at, added + ",")]
    return [Change(at, at, "," + added)] if at == end else [Change(end, end, ","), Change(at, at, added)]


def _json_comma(text: str, member: Member) -> int:
    """The position of the comma after a member, or -1."""
    space = JSON_SPACE.match(text, member.node.end)
    at = space.end() if space else member.node.end
    return at if text.startswith(",", at) else -1


def json_drop(text: str, path: Path) -> str:
    """Removes the member at `path`, if it exists."""
    root = _json_root(text)
    walked = find_path(text, root, path)
    if len(walked) < len(path):
        return text
    node = walked[-2].node if len(path) > 1 else root
    members = node.members or []
    shorter = apply_changes(text, _json_removal(text, members, members.index(walked[-1])))
    end = node.end - (len(text) - len(shorter))
    if len(members) > 1 or shorter[node.start + 1 : end - 1].strip():
        return shorter
    return apply_changes(shorter, [Change(node.start, end, "{}")])


def _json_removal(text: str, members: list[Member], place: int) -> list[Change]:
    """Removes a member with its comma, and with its line if it has lines of its own."""
    member, comma = members[place], _json_comma(text, members[place - 1]) if place else -1
    own_comma = _json_comma(text, member)
    is_last = own_comma < 0
    start, end = member.start, member.node.end if is_last else own_comma + 1
    before = len(text[:start].rstrip(" \t"))
    has_own_lines = text[:before].endswith("\n") and BLANK_TO_LINE_END.match(text, end)
    if has_own_lines:
        start = before - (2 if text[:before].endswith("\r\n") else 1)
    elif place and not text[comma + 1 : start].strip():
        return [Change(comma if is_last else comma + 1, end, "")]
    elif not is_last and (blank := BLANK.match(text, end)):
        end = blank.end()
    changes = [Change(start, end, "")]
    return [Change(comma, comma + 1, ""), *changes] if is_last and place else changes


JSON = Format(
    lambda text: _json_root(text).value, json_put, json_drop, lambda text, path: locate(text, _json_root(text), path)
)
