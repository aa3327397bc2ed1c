"""Puts a member into other programs' settings, JSON with comments, TOML or YAML, by changing the smallest span of text.

For each format there are `read` (the whole as plain values), `put` and `drop` (one member, by its path). What stands
outside the span stays byte for byte. A text that is malformed, or more than this module can judge, is refused with the
line and the column: TextError. Nothing here knows files, clients or the vault.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, Callable, Literal, NamedTuple, NoReturn

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
    """How one kind of file is read and changed; `spans` says where a member stands. Each function raises TextError."""

    read: Callable[[str], dict[str, Any]]
    put: Callable[[str, Path, Any], str]
    drop: Callable[[str, Path], str]
    spans: Callable[[str, Path], list[tuple[int, int]]]


def changed(text: str, changes: Iterable[Change]) -> str:
    """The text after changes that do not overlap."""
    for change in sorted(changes, reverse=True):
        text = text[: change.start] + change.new + text[change.end :]
    return text


def line_end_of(text: str, at: int = 0) -> str:
    """The line end of the line that `at` is in, of the one before if it has none."""
    end = text.find("\n", at)
    end = text.rfind("\n") if end < 0 else end
    return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"


def line_start(text: str, at: int) -> int:
    """Where the line begins that `at` is in."""
    return text.rfind("\n", 0, at) + 1


def indent_at(text: str, at: int) -> str:
    """The white space at the beginning of the line that `at` is in."""
    found = re.compile(r"[ \t]*").match(text, line_start(text, at))
    return found[0] if found else ""


def ascii_string(value: str) -> str:
    """A JSON string that TOML and YAML read alike; in ASCII, as any terminal can carry it.

    Both know \\U, and not the pairs of surrogates that JSON writes for what lies beyond 16 bits; TOML has DEL escaped.
    """
    return re.sub(r"[^ -~]", lambda c: f"\\U{ord(c[0]):08X}", json.dumps(value, ensure_ascii=False))


# ---------------------------------------------------------------------------------------------------------------------
# json, with comments and trailing commas: a client that does not take them has refused its file before we see it
# ---------------------------------------------------------------------------------------------------------------------

JSON_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
JSON_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*(?:[^*\r\n]|\*(?!/))*\*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n)")
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
        return _json_append(text, node, node.members, Member(key, 0, Node(0, 0, value), -1), unit)
    outer, line_end = indent_at(text, node.start), line_end_of(text)
    member = f"{line_end}{outer}{unit}{json.dumps(key)}: {_json_text(text, value, outer + unit, unit)}"
    inside = text[node.start + 1 : node.end - 1]
    kept = len(inside.rstrip()) if inside.strip() else 0  # comments
    at = node.start + 1 + kept
    if kept and "\n" in text[at : node.end]:
        return [Change(at, at, member)]
    return [Change(at, node.end - 1, f"{member}{line_end}{outer}")]


def _json_append(text: str, node: Node, members: list[Member], new: Member, unit: str) -> list[Change]:
    last = members[-1]
    several_lines = "\n" in text[node.start : members[0].start]
    indent = indent_at(text, last.start) if several_lines else ""
    added = f"{json.dumps(new.key)}: {_json_text(text, new.value.value, indent, unit if several_lines else None)}"
    added = f"{line_end_of(text)}{indent}{added}" if several_lines else f" {added}"
    end = last.value.end if last.comma < 0 else last.comma + 1
    rest = JSON_REST_OF_LINE.match(text, end) if several_lines else None
    at = rest.end() if rest else end  # behind a comment that speaks of the last member
    if last.comma >= 0:
        return [Change(at, at, added + ",")]
    return [Change(at, at, "," + added)] if at == end else [Change(end, end, ","), Change(at, at, added)]


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
    """The opposite of _json_append, for a member at any place."""
    member, comma = members[place], members[place - 1].comma if place else -1
    is_last = member.comma < 0
    start, end = member.start, member.value.end if is_last else member.comma + 1
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


def json_spans(text: str, path: Path) -> list[tuple[int, int]]:
    """Where the member at `path` stands, if it does."""
    _root, node, rest = _json_find(text, path[:-1])
    found = [] if rest else _json_members(text, node.members or [], path[-1])
    return [(member.start, member.value.end) for member in found]


JSON = Format(json_read, json_put, json_drop, json_spans)

# ---------------------------------------------------------------------------------------------------------------------
# toml: tables and their pairs, each with its span; a multi-line string is Bare, since ours are none
# ---------------------------------------------------------------------------------------------------------------------

_CONTROL = r"\x00-\x08\x0a-\x1f\x7f"
_ESCAPE = r'\\(?:["\\bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})'
_INTEGER = r"(?:0|[1-9](?:_?[0-9])*)"
_DIGITS = r"[0-9](?:_?[0-9])*"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
TOML_COMMENT = rf"#[^{_CONTROL}]*"
TOML_SPACE = re.compile(rf"(?:[ \t]+|\r?\n|{TOML_COMMENT})*")
TOML_LINE_END = re.compile(rf"[ \t]*(?:{TOML_COMMENT})?(?:\r?\n|\Z)")
TOML_KEY = re.compile(r"[A-Za-z0-9_-]+")
TOML_STRING = re.compile(rf'"[^"\\{_CONTROL}]*(?:{_ESCAPE}[^"\\{_CONTROL}]*)*"')
TOML_LITERAL = re.compile(rf"'[^'{_CONTROL}]*'")
_LONG = r"\x00-\x08\x0b-\x1f\x7f"  # a line feed is welcome here
TOML_LONG_STRING = re.compile(
    rf'"""[^"\\{_LONG}]*(?:(?:"(?!"")|\r\n|{_ESCAPE}|\\[ \t]*\r?\n)[^"\\{_LONG}]*)*""""{{0,2}}'
)
TOML_LONG_LITERAL = re.compile(rf"'''[^'{_LONG}]*(?:(?:'(?!'')|\r\n)[^'{_LONG}]*)*''''{{0,2}}")
TOML_BARE = re.compile(
    rf"(?:true|false|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[Tt ]{_TIME}(?:[Zz]|[-+][0-9]{{2}}:[0-9]{{2}})?)?|{_TIME}"
    r"|0x[0-9a-fA-F](?:_?[0-9a-fA-F])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*|[-+]?(?:inf|nan)"
    rf"|[-+]?{_INTEGER}(?:\.{_DIGITS})?(?:[eE][-+]?{_DIGITS})?)(?![\w.:+-])"
)
TOML_WORDS = {"true": True, "false": False}


class Pair(NamedTuple):
    """`key = value` on lines of its own; the path is that of the document."""

    path: Path
    start: int
    value_start: int
    end: int
    value: Any


class Table(NamedTuple):
    """A header and its pairs. The first of a document has no header: its path is empty."""

    path: Path
    start: int
    end: int
    is_item: bool  # [[...]]
    pairs: list[Pair]


class Definitions:
    """The document as it grows, and what may not be defined again."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._kinds: dict[tuple[str | int, ...], str] = {}

    def header(self, path: Path, is_item: bool) -> bool:
        """Opens a table; False if TOML does not allow it here."""
        place: tuple[str | int, ...] = ()
        table = self.document
        for key in path[:-1]:
            place += (key,)
            if self._kinds.setdefault(place, "implied") == "value":
                return False
            table, place = self._enter(table, key, place)
        place += (path[-1],)
        if self._kinds.get(place) not in ((None, "list") if is_item else (None, "implied")):
            return False
        self._kinds[place] = "list" if is_item else "table"
        if is_item:
            table.setdefault(path[-1], []).append({})
        self._enter(table, path[-1], place)
        return True

    def pair(self, table: Path, key: Path, value: Any) -> bool:
        """Sets a value; False if it, or a table on the way, has been defined otherwise."""
        place: tuple[str | int, ...] = ()
        held = self.document
        for step in table:
            held, place = self._enter(held, step, (*place, step))
        for step in key[:-1]:
            place += (step,)
            if self._kinds.setdefault(place, "dotted") not in ("dotted", "implied"):
                return False
            held, place = self._enter(held, step, place)
        place += (key[-1],)
        if place in self._kinds:
            return False
        self._kinds[place] = "value"
        held[key[-1]] = value
        return True

    @staticmethod
    def _enter(
        table: dict[str, Any], key: str, place: tuple[str | int, ...]
    ) -> tuple[dict[str, Any], tuple[str | int, ...]]:
        """The table of that key, made if it is missing, and its place; of a list, the last item."""
        held = table.setdefault(key, {})
        return (held[-1], (*place, len(held))) if isinstance(held, list) else (held, place)


class TomlScanner:
    """Reads a text from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tables = [Table((), 0, 0, False, [])]
        self.definitions = Definitions()
        at = 0
        while (at := self._match(TOML_SPACE, at).end()) < len(text):
            at = self._header(at) if text.startswith("[", at) else self._pair(at)

    def _refuse(self, at: int, reason: str) -> NoReturn:
        raise TextError(self.text, at, reason)

    def _match(self, pattern: re.Pattern[str], at: int, reason: str = "") -> re.Match[str]:
        found = pattern.match(self.text, at)
        if not found:
            self._refuse(at, reason)
        return found

    def _line_end(self, at: int) -> int:
        return self._match(TOML_LINE_END, at, "the line must end here").end()

    def _header(self, start: int) -> int:
        is_item = self.text.startswith("[[", start)
        path, end = self._key(start + 1 + is_item)
        closing = "]]" if is_item else "]"
        if not self.text.startswith(closing, end):
            self._refuse(end, f"{closing} must stand here")
        if not self.definitions.header(path, is_item):
            self._refuse(start, "this table is defined already, or is no table")
        end += len(closing)
        self.tables.append(Table(path, start, end, is_item, []))
        return self._line_end(end)

    def _pair(self, start: int) -> int:
        table = self.tables[-1]
        key, value_start, end, value = self._assignment(start, 1)
        path = table.path + key
        if not self.definitions.pair(table.path, key, value):
            self._refuse(start, "this key is defined already")
        table.pairs.append(Pair(path, start, value_start, end, value))
        return self._line_end(end)

    def _assignment(self, start: int, depth: int) -> tuple[Path, int, int, Any]:
        """Key, start and end of the value, and the value."""
        key, end = self._key(start)
        if not self.text.startswith("=", end):
            self._refuse(end, "an equals sign must stand here")
        value_start = self._match(BLANK, end + 1).end()
        value, end = self._value(value_start, depth)
        return key, value_start, end, value

    def _key(self, at: int) -> tuple[Path, int]:
        """A dotted key, and where it goes on behind it and the white space."""
        parts: list[str] = []
        while True:
            at = self._match(BLANK, at).end()
            found = TOML_KEY.match(self.text, at)
            part, at = (found[0], found.end()) if found else self._quoted(at)
            parts.append(part)
            if len(parts) > DEPTH_MAX:
                self._refuse(at, f"this is nested deeper than {DEPTH_MAX} levels")
            at = self._match(BLANK, at).end()
            if not self.text.startswith(".", at):
                return tuple(parts), at
            at += 1

    def _quoted(self, at: int) -> tuple[str, int]:
        if self.text.startswith("'", at):
            found = self._match(TOML_LITERAL, at, "this string is not closed on its line")
            return found[0][1:-1], found.end()
        if not self.text.startswith('"', at):
            self._refuse(at, "a key must begin here")
        found = self._match(TOML_STRING, at, "this string is not closed on its line, or an escape is unknown")
        return self._unescaped(found), found.end()

    def _unescaped(self, found: re.Match[str]) -> str:
        """A TOML basic string is a JSON string but for \\U and a tab."""
        try:
            value: str = json.loads(_short_escapes(found[0]), strict=False)
        except ValueError:
            value = "\ud800"
        if re.search("[\ud800-\udfff]", value):
            self._refuse(found.start(), "an escape in this string names no character")
        return value

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        if depth > DEPTH_MAX:
            self._refuse(at, f"this is nested deeper than {DEPTH_MAX} levels")
        for quotes, pattern in (('"""', TOML_LONG_STRING), ("'''", TOML_LONG_LITERAL)):
            if self.text.startswith(quotes, at):
                found = self._match(pattern, at, "this string is not closed, or an escape is unknown")
                return Bare(found[0]), found.end()
        first = self.text[at : at + 1]
        if first in ('"', "'"):
            return self._quoted(at)
        if first == "[":
            return self._array(at, depth)
        if first == "{":
            return self._inline_table(at, depth)
        found = self._match(TOML_BARE, at, "a value must begin here")
        return TOML_WORDS.get(found[0], Bare(found[0])), found.end()

    def _array(self, start: int, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self._match(TOML_SPACE, start + 1).end()
        while not self.text.startswith("]", at):
            value, at = self._value(at, depth + 1)
            values.append(value)
            at = self._match(TOML_SPACE, at).end()
            if self.text.startswith(",", at):
                at = self._match(TOML_SPACE, at + 1).end()
            elif not self.text.startswith("]", at):
                self._refuse(at, "a comma or ] must stand here")
        return values, at + 1

    def _inline_table(self, start: int, depth: int) -> tuple[dict[str, Any], int]:
        inner = Definitions()
        at = self._match(BLANK, start + 1).end()
        while not self.text.startswith("}", at):
            key, _, end, value = self._assignment(at, depth + 1)
            if not inner.pair((), key, value):
                self._refuse(at, "this key is defined already")
            at = self._match(BLANK, end).end()
            if self.text.startswith(",", at):
                at = self._match(BLANK, at + 1).end()
                if self.text.startswith("}", at):
                    self._refuse(at, "a key must begin here")
            elif not self.text.startswith("}", at):
                self._refuse(at, "a comma or } must stand here")
        return inner.document, at + 1


def _short_escapes(written: str) -> str:
    """A string with \\U as JSON writes it; what names no character stays, and JSON refuses it."""
    return re.sub(r"(\\\\)|\\U00([01][0-9a-fA-F]{5})", _json_escape, written)


def _json_escape(found: re.Match[str]) -> str:
    code_point = int(found[2] or "0", 16)
    return found[0] if found[1] or code_point > sys.maxunicode else json.dumps(chr(code_point))[1:-1]


def toml_read(text: str) -> dict[str, Any]:
    """The document."""
    return TomlScanner(text).definitions.document


def _toml_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Bare):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return ascii_string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_text, value))}]"
    pairs = [f"{_toml_key(key)} = {_toml_text(held)}" for key, held in value.items()]
    return "{ " + ", ".join(pairs) + " }" if pairs else "{}"


def _toml_key(key: str) -> str:
    return key if TOML_KEY.fullmatch(key) else ascii_string(key)


def toml_put(text: str, path: Path, value: Any) -> str:
    """Sets the value at `path`. An entry (a path of two) gets a table of its own at the end."""
    tables = TomlScanner(text).tables
    for pair in _pairs_on_the_way(tables, path):
        if len(pair.path) < len(path):
            _refuse_foreign_table(text, pair)
            value = _merged(pair.value, path[len(pair.path) :], value)
        return changed(text, [Change(pair.value_start, pair.end, _toml_text(value))])
    if len(path) == 2 and isinstance(value, dict):
        for table in tables:
            if table.is_item and table.path == path[:1]:
                raise TextError(text, table.start, f"{path[0]} must be a table")
        return _appended(text, _toml_table(path, value))
    for table in tables:
        if table.path == path[:-1] and not table.is_item:
            return _toml_insert(text, table, f"{_toml_key(path[-1])} = {_toml_text(value)}")
    spot = [pair.start for table in tables for pair in table.pairs if pair.path[: len(path) - 1] == path[:-1]]
    raise TextError(text, min(spot, default=0), "this entry is written with dotted keys, which are not changed here")


def _pairs_on_the_way(tables: list[Table], path: Path) -> list[Pair]:
    """The pair that holds `path` or something above it."""
    pairs = [pair for table in tables if not table.is_item for pair in table.pairs]
    return [pair for pair in pairs if pair.path == path[: len(pair.path)]]


def _refuse_foreign_table(text: str, pair: Pair) -> None:
    """To change an inline table it is written anew, which what others own must not be."""
    if len(pair.path) < 2 or not isinstance(pair.value, dict):
        raise TextError(text, pair.value_start, "what stands here is not a table, or is one in a single line")


def _merged(held: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    inner = held if isinstance(held, dict) else {}
    return {**inner, path[0]: _merged(inner.get(path[0]), path[1:], value)}


def _toml_table(path: Path, value: dict[str, Any]) -> list[str]:
    pairs = [f"{_toml_key(key)} = {_toml_text(held)}" for key, held in value.items()]
    return [f"[{'.'.join(map(_toml_key, path))}]", *pairs]


def _appended(text: str, lines: list[str], between: int = 1) -> str:
    """The text with lines at its end, `between` empty ones before them. It ends with a line end if it did before."""
    line_end = line_end_of(text, len(text))
    added = line_end.join(lines)
    if not text:
        return added + line_end
    if text.endswith("\n"):
        return text + line_end * between + added + line_end
    return text + line_end * (between + 1) + added


def _toml_insert(text: str, table: Table, line: str) -> str:
    last = table.pairs[-1].end if table.pairs else table.end
    found = TOML_LINE_END.match(text, last)
    end = last + len(found[0].rstrip("\r\n")) if found else last
    indent = indent_at(text, table.pairs[-1].start) if table.pairs else indent_at(text, table.start)
    return changed(text, [Change(end, end, f"{line_end_of(text, end)}{indent}{line}")])


def toml_drop(text: str, path: Path) -> str:
    """Removes the value or the tables at `path`."""
    tables = TomlScanner(text).tables
    for pair in _pairs_on_the_way(tables, path):
        if len(pair.path) < len(path):
            _refuse_foreign_table(text, pair)
            rest = _without(pair.value, path[len(pair.path) :])
            return changed(text, [Change(pair.value_start, pair.end, _toml_text(rest))])
    changes = []
    for table in tables:
        if table.path and table.path[: len(path)] == path:
            end = table.pairs[-1].end if table.pairs else table.end
            changes.append(_whole_lines(text, table.start, end, leading_blank=True))
        else:
            own = [pair for pair in table.pairs if pair.path[: len(path)] == path]
            changes += [_whole_lines(text, pair.start, pair.end) for pair in own]
    return changed(text, changes)


def _without(held: Any, path: Path) -> Any:
    if not isinstance(held, dict) or path[0] not in held:
        return held
    rest = {key: inner for key, inner in held.items() if key != path[0]}
    return {**rest, path[0]: _without(held[path[0]], path[1:])} if len(path) > 1 else rest


def _whole_lines(text: str, start: int, end: int, *, leading_blank: bool = False) -> Change:
    """The lines of a span; at the end of a text without a last line end, with the line end before them instead."""
    start = line_start(text, start)
    end = text.find("\n", end) + 1
    if leading_blank and start and not text[line_start(text, start - 1) : start].strip():
        start = line_start(text, start - 1)
    if not end:
        start = len(text[:start].removesuffix("\n").removesuffix("\r"))
        end = len(text)
    return Change(start, end, "")


def toml_spans(text: str, path: Path) -> list[tuple[int, int]]:
    """Where the tables and the pairs at `path` stand."""
    tables = TomlScanner(text).tables
    pairs = [pair for table in tables for pair in table.pairs if pair.path[: len(path)] == path]
    headers = [table for table in tables if table.path[: len(path)] == path]
    return [*((table.start, table.end) for table in headers), *((pair.start, pair.end) for pair in pairs)]


TOML = Format(toml_read, toml_put, toml_drop, toml_spans)

# ---------------------------------------------------------------------------------------------------------------------
# yaml: blocks of mappings and sequences with scalars of every kind, and flow collections as values. Refused, since what
# they mean cannot be told from their place: anchors, aliases, tags, complex keys, several documents, and tabs outside
# strings and comments.
# ---------------------------------------------------------------------------------------------------------------------

YAML_KEY_MAX_CHARACTERS = 1024  # so that other readers need not look further ahead for the colon
# \x85 and the two separators end a line in YAML 1.1 only.
YAML_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
YAML_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \r\n]|\Z)", re.MULTILINE)
YAML_BEGINNING = re.compile(r"(?: *(?:#[^\n]*)?\r?\n)*(?:---(?: *| +#[^\n]*)(?:\r?\n|\Z))?")
YAML_DASH = re.compile(r"-(?=[ \r\n]|\Z)")
_FIRST = r"""(?:[^\s\-?:,\[\]{}#&*!|>'"%@`]|[-?:](?=\S))"""
_PLAIN = rf"{_FIRST}(?:[^\s:#]|:(?=\S)|(?<=\S)#| +(?=[^\s#:]|:\S))*"
YAML_PLAIN = re.compile(_PLAIN)
YAML_CONTINUED = re.compile(_PLAIN.replace(_FIRST, r"(?:[^\s:#]|:(?=\S))", 1))
_YAML_ESCAPE = r'\\(?:[0abtnvfe "/\\N_LP]|\r?\n|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})'
_DOUBLE = rf'"[^"\\]*(?:{_YAML_ESCAPE}[^"\\]*)*"'
_SINGLE = r"'[^']*(?:''[^']*)*'"
YAML_QUOTED = re.compile(rf"{_DOUBLE}|{_SINGLE}")
YAML_KEY = re.compile(rf"""({_DOUBLE}|{_SINGLE}|{_PLAIN}) *:(?=[ \r\n]|\Z)""")
YAML_REST = re.compile(r" *(?:(?<= )#[^\n]*)?(?=\r?\n|\Z)")
YAML_BLOCK_SCALAR = re.compile(r"[|>](?:[1-9][-+]?|[-+][1-9]?)?")
YAML_FLOW_SPACE = re.compile(r"(?:[ \r\n]+|(?<=\s)#[^\n]*)*")
_FLOW = r",\[\]{}"
_FLOW_PLAIN = (
    rf"""(?:[^\s\-?:{_FLOW}#&*!|>'"%@`]|-(?=[^\s{_FLOW}]))"""
    rf"(?:[^\s:?#{_FLOW}]|:(?=[^\s{_FLOW}])|(?<=\S)#| +(?=[^\s:?#{_FLOW}]))*"
)
YAML_FLOW_PLAIN = re.compile(_FLOW_PLAIN)
YAML_FLOW_KEY = re.compile(rf"""({_DOUBLE}|{_SINGLE}|{_FLOW_PLAIN}) *:(?=[ \r\n])""")
YAML_WORDS = {word: value for value, words in (
    (None, "~ null Null NULL"), (True, "true True TRUE"), (False, "false False FALSE"),
) for word in words.split()}  # fmt: skip
# The words and the sign mean something of their own in YAML 1.1 only.
YAML_BARE = re.compile(r"[-+.]?[0-9].*|[-+]?\.(?:inf|nan)|yes|no|on|off|=", re.IGNORECASE)
YAML_SAFE = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)


class Part(NamedTuple):
    """A member of a mapping, or an item of a sequence, whose key is empty."""

    key: str
    start: int  # of the key or the dash
    value_start: int  # behind the colon or the dash
    node: Block


class Block(NamedTuple):
    """A value; `parts` only for one in block style."""

    kind: Literal["mapping", "sequence", "other"]
    start: int
    end: int
    value: Any
    parts: list[Part]


class YamlScanner:
    """Reads a text from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def document(self) -> Block:
        """The mapping that the text is; an empty one at its end if it holds comments only."""
        if found := YAML_STRANGE.search(self.text):
            self._refuse(found.start(), "a character that YAML does not allow, or not everywhere")
        beginning = YAML_BEGINNING.match(self.text)
        at = beginning.end() if beginning else 0
        if marker := YAML_MARKER.search(self.text, at):
            self._refuse(marker.start(), "only one document can be judged")
        at = self._content(at)
        if at == len(self.text):
            return Block("mapping", at, at, {}, [])
        if self.text[at] == "%" or not YAML_KEY.match(self.text, at):
            self._refuse(at, "a mapping must begin here")
        root, at = self._mapping(at, 1)
        if at != len(self.text):
            self._refuse(at, "this line is indented less than those before it")
        return root

    def _refuse(self, at: int, reason: str) -> NoReturn:
        raise TextError(self.text, at, reason)

    def _column(self, at: int) -> int:
        return at - line_start(self.text, at)

    def _content(self, at: int) -> int:
        """Where the next line with content has it, from the beginning of a line; else the end of the text."""
        while at < len(self.text):
            while self.text[at : at + 1] == " ":
                at += 1
            if self.text[at : at + 1] == "\t":
                self._refuse(at, "this line is indented with a tab")
            if self.text[at : at + 1] not in ("", "\r", "\n", "#"):
                return at
            at = self._next_line(at)
        return at

    def _next_line(self, at: int) -> int:
        return self.text.find("\n", at) + 1 or len(self.text)

    def _after(self, end: int) -> int:
        """The next content, behind a value that must end its line."""
        found = YAML_REST.match(self.text, end)
        if not found:
            self._refuse(end, "the line must end here")
        return self._content(self._next_line(found.end()))

    def _block(self, at: int, depth: int, parent: int) -> tuple[Block, int]:
        """A value at its first character, whose parent stands in the column `parent`; and the content behind it."""
        if depth > DEPTH_MAX:
            self._refuse(at, f"this is nested deeper than {DEPTH_MAX} levels")
        if YAML_DASH.match(self.text, at):
            return self._sequence(at, depth)
        if YAML_KEY.match(self.text, at):
            return self._mapping(at, depth)
        return self._scalar(at, depth, parent)

    def _mapping(self, start: int, depth: int) -> tuple[Block, int]:
        parts: list[Part] = []
        value: dict[str, Any] = {}
        column, at = self._column(start), start
        while at < len(self.text) and self._column(at) == column:
            found = YAML_KEY.match(self.text, at)
            if not found:
                self._refuse(at, "a key must stand here")
            key = self._key(found[1], at)
            if key in value:
                self._refuse(at, "this key stands here for the second time")
            node, following = self._value(found.end(), depth, column, in_mapping=True)
            parts.append(Part(key, at, found.end(), node))
            value[key], at = node.value, following
        self._refuse_deeper(at, column)
        return Block("mapping", start, parts[-1].node.end, value, parts), at

    def _sequence(self, start: int, depth: int) -> tuple[Block, int]:
        parts: list[Part] = []
        column, at = self._column(start), start
        while at < len(self.text) and self._column(at) == column and YAML_DASH.match(self.text, at):
            node, following = self._value(at + 1, depth, column, in_mapping=False)
            parts.append(Part("", at, at + 1, node))
            at = following
        self._refuse_deeper(at, column)
        return Block("sequence", start, parts[-1].node.end, [part.node.value for part in parts], parts), at

    def _refuse_deeper(self, at: int, column: int) -> None:
        if at < len(self.text) and self._column(at) > column:
            self._refuse(at, "this line is indented more than those before it")

    def _value(self, at: int, depth: int, column: int, *, in_mapping: bool) -> tuple[Block, int]:
        """What stands behind a colon or a dash, on its line or below."""
        if YAML_REST.match(self.text, at):
            below = self._content(self._next_line(at))
            indented = below < len(self.text) and self._column(below) > column
            beside = in_mapping and below < len(self.text) and self._column(below) == column
            if indented or (beside and YAML_DASH.match(self.text, below)):
                return self._block(below, depth + 1, column)
            return Block("other", at, at, None, []), below
        while self.text[at] == " ":
            at += 1
        return (self._scalar if in_mapping else self._block)(at, depth + 1, column)

    def _scalar(self, at: int, depth: int, parent: int) -> tuple[Block, int]:
        first = self.text[at]
        if first in "&*!":
            self._refuse(at, "anchors, aliases and tags are not judged here")
        if first in "|>":
            return self._block_scalar(at, parent)
        if first in "[{":
            value, end = self._flow(at, depth)
            return Block("other", at, end, value, []), self._after(end)
        if first in "\"'":
            value, end = self._quoted(at)
            return Block("other", at, end, value, []), self._after(end)
        return self._plain(at, parent)

    def _quoted(self, at: int) -> tuple[Any, int]:
        found = YAML_QUOTED.match(self.text, at)
        if not found:
            self._refuse(at, "this string is not closed, or an escape is unknown")
        return _yaml_string(found[0]), found.end()

    def _key(self, written: str, at: int) -> str:
        if len(written) > YAML_KEY_MAX_CHARACTERS:
            self._refuse(at, f"a key has at most {YAML_KEY_MAX_CHARACTERS:,} characters")
        if written == "<<":
            self._refuse(at, "merge keys are not judged here")
        if written[0] not in "\"'":
            return written
        key = _yaml_string(written)
        if not isinstance(key, str):
            self._refuse(at, "this key is written in a way that is not judged here")
        return key

    def _plain(self, start: int, parent: int) -> tuple[Block, int]:
        """A scalar without quotes, which may go on in lines that are indented more than its parent."""
        pattern, at = YAML_PLAIN, start
        while True:
            found = pattern.match(self.text, at)
            if not found:
                self._refuse(at, "a value must begin here")
            end = found.end()
            following = self._after(end)
            if following == len(self.text) or self._column(following) <= parent:
                break
            if "#" in self.text[end:following]:
                self._refuse(following, "a comment ends the value, and yet it goes on here")
            pattern, at = YAML_CONTINUED, following
        written = self.text[start:end]
        value = Bare(written) if "\n" in written or YAML_BARE.fullmatch(written) else YAML_WORDS.get(written, written)
        return Block("other", start, end, value, []), following

    def _block_scalar(self, start: int, parent: int) -> tuple[Block, int]:
        found = YAML_BLOCK_SCALAR.match(self.text, start)
        header = found[0] if found else ""
        rest = YAML_REST.match(self.text, start + len(header))
        if not rest:
            self._refuse(start, "the line must end behind the head of a block of text")
        at, end, column = self._next_line(rest.end()), start + len(header), 0
        while at < len(self.text):
            stop = self._next_line(at)
            line = self.text[at:stop].rstrip("\r\n")
            content = line.lstrip(" ")
            if content:
                indent = len(line) - len(content)
                if indent <= parent:
                    break
                if indent < column:
                    self._refuse(at + indent, "this line is indented less than the block of text before it")
                column = column or indent
            if content or "+" in header or len(line) > column > 0:
                end = at + len(line)
            at = stop
        return Block("other", start, end, Bare(self.text[start:end]), []), self._content(at)

    def _flow(self, start: int, depth: int) -> tuple[Any, int]:
        """A value inside brackets or braces, or those themselves."""
        if depth > DEPTH_MAX:
            self._refuse(start, f"this is nested deeper than {DEPTH_MAX} levels")
        first = self.text[start : start + 1]
        if first == "[":
            return self._flow_sequence(start, depth)
        if first == "{":
            return self._flow_mapping(start, depth)
        if first in ('"', "'"):
            return self._quoted(start)
        found = YAML_FLOW_PLAIN.match(self.text, start)
        if not found:
            self._refuse(start, "a value must begin here, and none of the kinds that are not judged")
        written = found[0]
        return Bare(written) if YAML_BARE.fullmatch(written) else YAML_WORDS.get(written, written), found.end()

    def _flow_space(self, at: int) -> int:
        found = YAML_FLOW_SPACE.match(self.text, at)
        return found.end() if found else at

    def _flow_comma(self, at: int, close: str) -> int:
        at = self._flow_space(at)
        if self.text.startswith(",", at):
            return self._flow_space(at + 1)
        if not self.text.startswith(close, at):
            self._refuse(at, f"a comma or {close} must stand here")
        return at

    def _flow_sequence(self, start: int, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self._flow_space(start + 1)
        while not self.text.startswith("]", at):
            value, at = self._flow(at, depth + 1)
            values.append(value)
            at = self._flow_comma(at, "]")
        return values, at + 1

    def _flow_mapping(self, start: int, depth: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self._flow_space(start + 1)
        while not self.text.startswith("}", at):
            found = YAML_FLOW_KEY.match(self.text, at)
            if not found:
                self._refuse(at, "a key, a colon and a space must stand here")
            key = self._key(found[1], at)
            if key in members:
                self._refuse(at, "this key stands here for the second time")
            members[key], at = self._flow(self._flow_space(found.end()), depth + 1)
            at = self._flow_comma(at, "}")
        return members, at + 1


def _yaml_string(written: str) -> Any:
    """What a quoted scalar says; Bare if it goes over lines or has escapes that JSON and TOML do not know."""
    if "\n" in written:
        return Bare(written)
    if written[0] == "'":
        return written[1:-1].replace("''", "'")
    try:
        return json.loads(_short_escapes(written), strict=False)
    except ValueError:
        return Bare(written)


def yaml_read(text: str) -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = YamlScanner(text).document().value
    return document


def _yaml_walk(text: str, path: Path) -> tuple[Block, list[Part]]:
    """The document, and the parts along the path as far as they exist in block style."""
    root = node = YamlScanner(text).document()
    walked: list[Part] = []
    for step in path:
        found = [part for part in node.parts if _is_step(part, step)]
        if len(found) > 1:
            raise TextError(text, found[1].start, "an item of this name stands here for the second time")
        if not found:
            break
        walked.append(found[0])
        node = found[0].node
    return root, walked


def _is_step(part: Part, step: str) -> bool:
    if not isinstance(step, Item):
        return part.key == step
    return isinstance(part.node.value, dict) and part.node.value.get("name") == step


def yaml_put(text: str, path: Path, value: Any) -> str:
    """Sets the value at `path`; a missing container is added at the end."""
    root, walked = _yaml_walk(text, path)
    rest = path[len(walked) :]
    if walked and (not rest or not walked[-1].node.parts):
        return _yaml_replace(text, path, walked, value)
    if not walked:
        lines = [f"{_yaml_text(path[0])}:", *_indented("  ", _yaml_entry(path[1], value))]
        return _appended(text, _indented(" " * _column_of(text, root), lines), between=0)
    return _yaml_add(text, walked[-1].node, rest, value)


def _column_of(text: str, node: Block) -> int:
    return node.start - line_start(text, node.start) if node.parts else 0


def _yaml_replace(text: str, path: Path, walked: list[Part], value: Any) -> str:
    """Writes the last part anew, on one line, or if it is an empty container, as a block with its first entry."""
    last, rest = walked[-1], path[len(walked) :]
    if not rest:
        return changed(text, [Change(last.value_start, last.node.end, f" {_yaml_text(value)}")])
    if len(walked) > 1 and isinstance(last.node.value, dict):
        merged = _merged(last.node.value, rest, value)
        return changed(text, [Change(last.value_start, last.node.end, f" {_yaml_text(merged)}")])
    if len(walked) > 1 or last.node.value not in (None, [], {}):
        raise TextError(text, last.node.start, "what stands here is in one line, or cannot hold a server")
    indent = " " * (last.start - line_start(text, last.start) + 2)
    at = _line_stop(text, last.node.end)
    lines = "".join(line_end_of(text, at) + line for line in _indented(indent, _yaml_entry(rest[0], value)))
    return changed(text, [Change(last.value_start, last.node.end, ""), Change(at, at, lines)])


def _yaml_add(text: str, node: Block, rest: Path, value: Any) -> str:
    """A new last part of a block."""
    if isinstance(rest[0], Item) != (node.kind == "sequence"):
        raise TextError(text, node.start, f"a {'list' if isinstance(rest[0], Item) else 'mapping'} must stand here")
    is_entry = isinstance(rest[0], Item) or (isinstance(value, dict) and node.parts[0].node.kind == "mapping")
    lines = _yaml_entry(rest[0], value) if is_entry else [f"{_yaml_text(rest[0])}: {_yaml_text(value)}"]
    at = _line_stop(text, node.end)
    indent = " " * _column_of(text, node)
    line_end = line_end_of(text, at)
    return changed(text, [Change(at, at, "".join(line_end + line for line in _indented(indent, lines)))])


def _line_stop(text: str, at: int) -> int:
    """Where the line ends that `at` is in."""
    found = re.compile(r"[^\r\n]*").match(text, at)
    return found.end() if found else at


def _indented(indent: str, lines: list[str]) -> list[str]:
    return [indent + line for line in lines]


def _yaml_entry(key: str, value: dict[str, Any]) -> list[str]:
    pairs = [f"  {_yaml_text(member)}: {_yaml_text(held)}" for member, held in value.items()]
    return [f"- name: {_yaml_text(str(key))}" if isinstance(key, Item) else f"{_yaml_text(key)}:", *pairs]


def _yaml_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Bare):
        return value.text
    if isinstance(value, str):
        return value if YAML_SAFE.fullmatch(value) else ascii_string(value)
    if isinstance(value, list):
        return f"[{', '.join(ascii_string(item) if isinstance(item, str) else _yaml_text(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml_text(key)}: {_yaml_text(held)}" for key, held in value.items()) + "}"
    return json.dumps(value)


def yaml_drop(text: str, path: Path) -> str:
    """Removes the part at `path`."""
    _root, walked = _yaml_walk(text, path)
    rest = path[len(walked) :]
    if rest and (len(walked) < 2 or walked[-1].node.parts):
        return text
    last = walked[-1]
    if rest:
        written = _yaml_text(_without(last.node.value, rest))
        return changed(text, [Change(last.value_start, last.node.end, f" {written}")])
    if text[line_start(text, last.start) : last.start].strip(" "):
        raise TextError(text, last.start, "this shares its line with others, which is not changed here")
    changes = [_whole_lines(text, last.start, last.node.end)]
    if len(walked) > 1 and len(walked[-2].node.parts) == 1:
        above = walked[-2]
        changes.append(Change(above.value_start, above.value_start, " []" if isinstance(path[-1], Item) else " {}"))
    return changed(text, changes)


def yaml_spans(text: str, path: Path) -> list[tuple[int, int]]:
    """Where the part at `path` stands, if it does."""
    _root, walked = _yaml_walk(text, path)
    return [(walked[-1].start, walked[-1].node.end)] if len(walked) == len(path) else []


YAML = Format(yaml_read, yaml_put, yaml_drop, yaml_spans)

FORMATS = {"json": JSON, "toml": TOML, "yaml": YAML}
