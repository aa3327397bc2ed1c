"""Puts a member into other programs' settings, JSON with comments, TOML or YAML, by changing the smallest span of text.

For each format there are `read` (the whole as plain values), `put` and `drop` (one member, by its path). What stands
outside the span stays byte for byte. A text that is malformed, or more than this module can judge, is refused with the
line and the column: TextError. Nothing here knows files, clients or the vault.
"""

from __future__ import annotations

import json
import re
import sys
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
# what the three formats share: a scanner, a tree of values with their places, and lines that come and go
# ---------------------------------------------------------------------------------------------------------------------

BLANK = re.compile(r"[ \t]*")
LINE = re.compile(r"[^\r\n]*")


class Member(NamedTuple):
    """A member of an object or a mapping, from its key to its value; or an item of a list, whose key is empty."""

    key: str
    start: int
    value_start: int  # behind the colon or the dash
    node: Node


class Node(NamedTuple):
    """A value and its span; `members` is None where it is changed as a whole only."""

    start: int
    end: int
    value: Any
    members: list[Member] | None = None


class Scanner:
    """Reads a text from its beginning to its end; `at` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    def refuse(self, reason: str, at: int | None = None) -> NoReturn:
        """Raises TextError, for this place if no other is given."""
        raise TextError(self.text, self.at if at is None else at, reason)

    def sees(self, *marks: str) -> bool:
        """Whether one of the marks stands here."""
        return self.text.startswith(marks, self.at)

    def take(self, pattern: re.Pattern[str], reason: str = "") -> str:
        """Passes what the pattern finds here, and returns it."""
        found = pattern.match(self.text, self.at)
        if not found:
            self.refuse(reason)
        self.at = found.end()
        return found[0]

    def expect(self, mark: str) -> None:
        """Passes a mark."""
        if not self.sees(mark):
            self.refuse(f"{mark} must stand here")
        self.at += len(mark)

    def deeper(self) -> None:
        """Begins a level; it ends with `_depth -= 1`."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self.refuse(f"this is nested deeper than {DEPTH_MAX} levels")

    def items(self, close: str, space: re.Pattern[str], *, last_comma: bool = True) -> Iterator[None]:
        """Stands at each item behind an opening bracket, to have it read; ends behind the closing one."""
        self.deeper()
        self.at += 1
        self.take(space)
        while not self.sees(close):
            yield
            self.take(space)
            if self.sees(","):
                self.at += 1
                self.take(space)
                if not last_comma and self.sees(close):
                    self.refuse("something must follow the comma")
            elif not self.sees(close):
                self.refuse(f"a comma or {close} must stand here")
        self.at += 1
        self._depth -= 1


def way(text: str, root: Node, path: Path) -> list[Member]:
    """The members along a path as far as they exist. Programs disagree about which of two counts: two are refused."""
    walked: list[Member] = []
    node = root
    for step in path:
        found = [member for member in node.members or () if _is_step(member, step)]
        if len(found) > 1:
            raise TextError(text, found[1].start, "this name stands here for the second time")
        if not found:
            break
        walked += found
        node = found[0].node
    return walked


def _is_step(member: Member, step: str) -> bool:
    if not isinstance(step, Item):
        return member.key == step
    return isinstance(member.node.value, dict) and member.node.value.get("name") == step


def spans(text: str, root: Node, path: Path) -> list[tuple[int, int]]:
    """Where the member at `path` stands, if it does."""
    walked = way(text, root, path)
    return [(walked[-1].start, walked[-1].node.end)] if len(walked) == len(path) else []


def line_stop(text: str, at: int) -> int:
    """Where the line ends that `at` is in."""
    found = LINE.match(text, at)
    return found.end() if found else at


def below(text: str, at: int, indent: str, lines: Iterable[str]) -> Change:
    """New lines below the one that `at` is in."""
    stop = line_stop(text, at)
    return Change(stop, stop, "".join(f"{line_end_of(text, stop)}{indent}{line}" for line in lines))


def appended(text: str, lines: list[str], between: int) -> str:
    """The text with lines at its end, `between` empty ones before them. It ends with a line end if it did before."""
    line_end = line_end_of(text, len(text))
    added = line_end.join(lines)
    if not text:
        return added + line_end
    if text.endswith("\n"):
        return text + line_end * between + added + line_end
    return text + line_end * (between + 1) + added


def whole_lines(text: str, start: int, end: int, *, leading_blank: bool = False) -> Change:
    """The lines of a span; at the end of a text without a last line end, with the line end before them instead."""
    start = line_start(text, start)
    end = text.find("\n", end) + 1
    if leading_blank and start and not text[line_start(text, start - 1) : start].strip():
        start = line_start(text, start - 1)
    if not end:
        start = len(text[:start].removesuffix("\n").removesuffix("\r"))
        end = len(text)
    return Change(start, end, "")


def merged(held: Any, path: Path, value: Any) -> Any:
    """A value with another at a path in it."""
    if not path:
        return value
    inner = held if isinstance(held, dict) else {}
    return {**inner, path[0]: merged(inner.get(path[0]), path[1:], value)}


def without(held: Any, path: Path) -> Any:
    """A value without what stands at a path in it."""
    if not isinstance(held, dict) or path[0] not in held:
        return held
    rest = {key: inner for key, inner in held.items() if key != path[0]}
    return {**rest, path[0]: without(held[path[0]], path[1:])} if len(path) > 1 else rest


def short_escapes(written: str) -> str:
    """A string with \\U as JSON writes it; what names no character stays, and JSON refuses it."""
    return re.sub(r"(\\\\)|\\U00([01][0-9a-fA-F]{5})", _json_escape, written)


def _json_escape(found: re.Match[str]) -> str:
    code_point = int(found[2] or "0", 16)
    return found[0] if found[1] or code_point > sys.maxunicode else json.dumps(chr(code_point))[1:-1]


# ---------------------------------------------------------------------------------------------------------------------
# json, with comments and trailing commas: a client that does not take them has refused its file before we see it
# ---------------------------------------------------------------------------------------------------------------------

JSON_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
JSON_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*(?:[^*\r\n]|\*(?!/))*\*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n)")
JSON_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
JSON_BARE = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)(?![\w.+-])")
BLANK_TO_LINE_END = re.compile(r"[ \t]*(?=\r?\n|\Z)")
JSON_WORDS = {"true": True, "false": False, "null": None}


class JsonScanner(Scanner):
    """Numbers are Bare."""

    def document(self) -> Node:
        """The only value of the text, which must be an object."""
        self.take(JSON_SPACE)
        if not self.sees("{"):
            self.refuse("an object must begin here")
        root = self._value()
        self.take(JSON_SPACE)
        if self.at != len(self.text):
            self.refuse("nothing may follow the object")
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
            word = self.take(JSON_BARE, "a value must begin here, and a comment before it be closed")
            value = JSON_WORDS.get(word, Bare(word))
        return Node(start, self.at, value, members)

    def _members(self) -> Iterator[Member]:
        for _ in self.items("}", JSON_SPACE):
            start = self.at
            if not self.sees('"'):
                self.refuse('a key in " or the end of the object must stand here')
            key = self._string()
            self.take(JSON_SPACE)
            self.expect(":")
            value_start = self.at
            self.take(JSON_SPACE)
            yield Member(key, start, value_start, self._value())

    def _string(self) -> str:
        reason = "this string is not closed on its line, or holds an escape that JSON does not know"
        value: str = json.loads(self.take(JSON_STRING, reason))
        return value


def _json_root(text: str) -> Node:
    return JsonScanner(text).document()


def json_put(text: str, path: Path, value: Any) -> str:
    """Sets the member at `path`; objects that are missing on the way are made."""
    root = _json_root(text)
    walked = way(text, root, path)
    node, rest = walked[-1].node if walked else root, path[len(walked) :]
    if not rest:
        one_line = "\n" not in text[node.start : node.end] and bool(node.value)
        written = _json_text(text, value, indent_at(text, node.start), None if one_line else _json_unit(text, root))
        return changed(text, [Change(node.start, node.end, written)])
    if node.members is None:
        raise TextError(text, node.start, f"{walked[-1].key} must be an object")
    for key in reversed(rest[1:]):
        value = {key: value}
    insert = _json_append if node.members else _json_fill
    return changed(text, insert(text, node, (rest[0], value), _json_unit(text, root)))


def _json_unit(text: str, root: Node) -> str:
    """What one level is indented by."""
    first = root.members[0].start if root.members else root.start
    return (indent_at(text, first) if "\n" in text[root.start : first] else "") or "  "


def _json_text(text: str, value: Any, indent: str, unit: str | None) -> str:
    """The value in the style of `text`, its first line without indent; a `unit` of None writes one line."""
    lines = json.dumps(value, indent=unit).split("\n")
    return f"{line_end_of(text)}{indent}".join(lines)


def _json_fill(text: str, node: Node, pair: tuple[str, Any], unit: str) -> list[Change]:
    """The first member."""
    outer, line_end = indent_at(text, node.start), line_end_of(text)
    member = f"{line_end}{outer}{unit}{json.dumps(pair[0])}: {_json_text(text, pair[1], outer + unit, unit)}"
    inside = text[node.start + 1 : node.end - 1]
    kept = len(inside.rstrip()) if inside.strip() else 0  # comments
    at = node.start + 1 + kept
    if kept and "\n" in text[at : node.end]:
        return [Change(at, at, member)]
    return [Change(at, node.end - 1, f"{member}{line_end}{outer}")]


def _json_append(text: str, node: Node, pair: tuple[str, Any], unit: str) -> list[Change]:
    """A new last member."""
    members = node.members or []
    first, last = members[0], members[-1]
    comma = _json_comma(text, last)
    several_lines = "\n" in text[node.start : first.start]
    indent = indent_at(text, last.start) if several_lines else ""
    added = f"{json.dumps(pair[0])}: {_json_text(text, pair[1], indent, unit if several_lines else None)}"
    added = f"{line_end_of(text)}{indent}{added}" if several_lines else f" {added}"
    end = last.node.end if comma < 0 else comma + 1
    rest = JSON_REST_OF_LINE.match(text, end) if several_lines else None
    at = rest.end() if rest else end  # behind a comment that speaks of the last member
    if comma >= 0:
        return [Change(at, at, added + ",")]
    return [Change(at, at, "," + added)] if at == end else [Change(end, end, ","), Change(at, at, added)]


def _json_comma(text: str, member: Member) -> int:
    """Where the comma behind a member stands, or -1."""
    space = JSON_SPACE.match(text, member.node.end)
    at = space.end() if space else member.node.end
    return at if text.startswith(",", at) else -1


def json_drop(text: str, path: Path) -> str:
    """Removes the member at `path`, if there is one."""
    root = _json_root(text)
    walked = way(text, root, path)
    if len(walked) < len(path):
        return text
    node = walked[-2].node if len(path) > 1 else root
    members = node.members or []
    shorter = changed(text, _json_removal(text, members, members.index(walked[-1])))
    end = node.end - (len(text) - len(shorter))
    if len(members) > 1 or shorter[node.start + 1 : end - 1].strip():
        return shorter
    return changed(shorter, [Change(node.start, end, "{}")])


def _json_removal(text: str, members: list[Member], place: int) -> list[Change]:
    """The opposite of _json_append, for a member at any place."""
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
    lambda text: _json_root(text).value, json_put, json_drop, lambda text, path: spans(text, _json_root(text), path)
)

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
TOML_STRING = re.compile(rf""""[^"\\{_CONTROL}]*(?:{_ESCAPE}[^"\\{_CONTROL}]*)*"|'[^'{_CONTROL}]*'""")
_LONG = r"\x00-\x08\x0b-\x1f\x7f"  # a line feed is welcome here
TOML_LONG_STRING = re.compile(
    rf'"""[^"\\{_LONG}]*(?:(?:"(?!"")|\r\n|{_ESCAPE}|\\[ \t]*\r?\n)[^"\\{_LONG}]*)*""""{{0,2}}'
    rf"|'''[^'{_LONG}]*(?:(?:'(?!'')|\r\n)[^'{_LONG}]*)*''''{{0,2}}"
)
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


class Opened(dict[str, Any]):
    """A table of the document as it grows; a dict that is none stands in one line, and nothing can be added to it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind  # "implied" by a header below it, a "table" with its own, or made by "dotted" keys


class Items(list[Opened]):
    """The tables of [[...]]; the last one grows."""


def _entered(table: Opened, path: Path, kind: str) -> Opened | None:
    """The table at a path, made where it is missing; None if TOML lets no such header or key reach it."""
    for key in path:
        held = table.setdefault(key, Opened(kind))
        if isinstance(held, Items) and kind == "implied":
            held = held[-1]
        if not isinstance(held, Opened) or (kind == "dotted" and held.kind == "table"):
            return None
        table = held
    return table


def _opened(document: Opened, path: Path, is_item: bool) -> Opened | None:
    """The table that a header begins; None if TOML does not allow it there."""
    above = _entered(document, path[:-1], "implied")
    if above is None:
        return None
    table = Opened("table")
    held = above.setdefault(path[-1], Items() if is_item else table)
    if is_item and isinstance(held, Items):
        held.append(table)
    elif isinstance(held, Opened) and held.kind == "implied" and not is_item:
        held.kind, table = "table", held
    elif held is not table:
        return None
    return table


def _defined(table: Opened, key: Path, value: Any) -> bool:
    """Sets a value; False if it, or a table on the way, has been defined otherwise."""
    holder = _entered(table, key[:-1], "dotted")
    if holder is None or key[-1] in holder:
        return False
    holder[key[-1]] = value
    return True


class TomlScanner(Scanner):
    """Tables and pairs, and the document."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tables = [Table((), 0, 0, False, [])]
        self.document = self._table = Opened("table")
        self.take(TOML_SPACE)
        while self.at < len(text):
            (self._header if self.sees("[") else self._pair)()
            self.take(TOML_LINE_END, "the line must end here")
            self.take(TOML_SPACE)

    def _header(self) -> None:
        start, is_item = self.at, self.sees("[[")
        self.at += 1 + is_item
        path = self._key()
        self.expect("]]" if is_item else "]")
        table = _opened(self.document, path, is_item)
        if table is None:
            self.refuse("this table is defined already, or is no table", start)
        self._table = table
        self.tables.append(Table(path, start, self.at, is_item, []))

    def _pair(self) -> None:
        table = self.tables[-1]
        start, (key, value_start, value) = self.at, self._assign(self._table)
        table.pairs.append(Pair(table.path + key, start, value_start, self.at, value))

    def _assign(self, table: Opened) -> tuple[Path, int, Any]:
        """Reads a key and a value into a table; the key, where the value begins, and the value."""
        start, key = self.at, self._key()
        self.expect("=")
        self.take(BLANK)
        value_start, value = self.at, self._value()
        if not _defined(table, key, value):
            self.refuse("this key is defined already", start)
        return key, value_start, value

    def _key(self) -> Path:
        """A dotted key with the white space around it."""
        parts: list[str] = []
        while True:
            self.take(BLANK)
            parts.append(self._string() if self.sees('"', "'") else self.take(TOML_KEY, "a key must begin here"))
            if len(parts) > DEPTH_MAX:
                self.refuse(f"this is nested deeper than {DEPTH_MAX} levels")
            self.take(BLANK)
            if not self.sees("."):
                return tuple(parts)
            self.at += 1

    def _string(self) -> str:
        """A string on one line. A basic one is a JSON string but for \\U and a tab."""
        start = self.at
        written = self.take(TOML_STRING, "this string is not closed on its line, or an escape is unknown")
        if written[0] == "'":
            return written[1:-1]
        try:
            value: str = json.loads(short_escapes(written), strict=False)
        except ValueError:
            value = "\ud800"
        if re.search("[\ud800-\udfff]", value):
            self.refuse("an escape in this string names no character", start)
        return value

    def _value(self) -> Any:
        if self.sees('"""', "'''"):
            return Bare(self.take(TOML_LONG_STRING, "this string is not closed, or an escape is unknown"))
        if self.sees('"', "'"):
            return self._string()
        if self.sees("["):
            return [self._value() for _ in self.items("]", TOML_SPACE)]
        if self.sees("{"):
            inner = Opened("table")
            for _ in self.items("}", BLANK, last_comma=False):
                self._assign(inner)
            return dict(inner)
        word = self.take(TOML_BARE, "a value must begin here")
        return TOML_WORDS.get(word, Bare(word))


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
            value = merged(pair.value, path[len(pair.path) :], value)
        return changed(text, [Change(pair.value_start, pair.end, _toml_text(value))])
    if len(path) == 2 and isinstance(value, dict):
        for table in tables:
            if table.is_item and table.path == path[:1]:
                raise TextError(text, table.start, f"{path[0]} must be a table")
        return appended(text, _toml_table(path, value), between=1)
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


def _toml_table(path: Path, value: dict[str, Any]) -> list[str]:
    pairs = [f"{_toml_key(key)} = {_toml_text(held)}" for key, held in value.items()]
    return [f"[{'.'.join(map(_toml_key, path))}]", *pairs]


def _toml_insert(text: str, table: Table, line: str) -> str:
    start, end = (table.pairs[-1].start, table.pairs[-1].end) if table.pairs else (table.start, table.end)
    return changed(text, [below(text, end, indent_at(text, start), [line])])


def toml_drop(text: str, path: Path) -> str:
    """Removes the value or the tables at `path`."""
    tables = TomlScanner(text).tables
    for pair in _pairs_on_the_way(tables, path):
        if len(pair.path) < len(path):
            _refuse_foreign_table(text, pair)
            rest = without(pair.value, path[len(pair.path) :])
            return changed(text, [Change(pair.value_start, pair.end, _toml_text(rest))])
    changes = []
    for table in tables:
        if table.path and table.path[: len(path)] == path:
            end = table.pairs[-1].end if table.pairs else table.end
            changes.append(whole_lines(text, table.start, end, leading_blank=True))
        else:
            own = [pair for pair in table.pairs if pair.path[: len(path)] == path]
            changes += [whole_lines(text, pair.start, pair.end) for pair in own]
    return changed(text, changes)


def toml_spans(text: str, path: Path) -> list[tuple[int, int]]:
    """Where the tables and the pairs at `path` stand."""
    tables = TomlScanner(text).tables
    pairs = [pair for table in tables for pair in table.pairs if pair.path[: len(path)] == path]
    headers = [table for table in tables if table.path[: len(path)] == path]
    return [*((table.start, table.end) for table in headers), *((pair.start, pair.end) for pair in pairs)]


TOML = Format(lambda text: TomlScanner(text).document, toml_put, toml_drop, toml_spans)

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
YAML_INDENT = re.compile(r" *")
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
YAML_WORDS: dict[str, Any] = {word: value for value, words in (
    (None, "~ null Null NULL"), (True, "true True TRUE"), (False, "false False FALSE"),
) for word in words.split()}  # fmt: skip
# The words and the sign mean something of their own in YAML 1.1 only.
YAML_BARE = re.compile(r"[-+.]?[0-9].*|[-+]?\.(?:inf|nan)|yes|no|on|off|=", re.IGNORECASE)
YAML_SAFE = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)


class YamlScanner(Scanner):
    """What stands in blocks has members; a value in brackets has none."""

    def document(self) -> Node:
        """The mapping that the text is; an empty one at its end if it holds comments only."""
        if found := YAML_STRANGE.search(self.text):
            self.refuse("a character that YAML does not allow, or not everywhere", found.start())
        self.take(YAML_BEGINNING)
        if marker := YAML_MARKER.search(self.text, self.at):
            self.refuse("only one document can be judged", marker.start())
        self._to_content()
        if self.at == len(self.text):
            return Node(self.at, self.at, {}, [])
        if self.sees("%") or not YAML_KEY.match(self.text, self.at):
            self.refuse("a mapping must begin here")
        root = self._mapping()
        if self.at != len(self.text):
            self.refuse("this line is indented less than those before it")
        return root

    def _column(self) -> int:
        """Where in its line the content stands; -1 at the end of the text."""
        return self.at - line_start(self.text, self.at) if self.at < len(self.text) else -1

    def _to_content(self) -> None:
        """From the beginning of a line to the first content in it or below, or to the end."""
        while self.at < len(self.text):
            self.take(YAML_INDENT)
            if self.sees("\t"):
                self.refuse("this line is indented with a tab")
            if not self.sees("\r", "\n", "#"):
                return
            self._to_next_line()

    def _to_next_line(self) -> None:
        self.at = self.text.find("\n", self.at) + 1 or len(self.text)

    def _end_line(self) -> None:
        """To the next content, behind a value that must end its line."""
        self.take(YAML_REST, "the line must end here")
        self._to_next_line()
        self._to_content()

    def _block(self, parent: int) -> Node:
        """A value at its first character, whose parent stands in the column `parent`; then stands at what follows."""
        if YAML_DASH.match(self.text, self.at):
            return self._sequence()
        return self._mapping() if YAML_KEY.match(self.text, self.at) else self._scalar(parent)

    def _mapping(self) -> Node:
        value: dict[str, Any] = {}

        def part() -> Member:
            start, key = self.at, self._key(YAML_KEY, "a key must stand here")
            if key in value:
                self.refuse("this key stands here for the second time", start)
            member = Member(key, start, self.at, self._value(column, in_mapping=True))
            value[key] = member.node.value
            return member

        column = self._column()
        members = self._members(part, YAML_INDENT)
        return Node(members[0].start, members[-1].node.end, value, members)

    def _sequence(self) -> Node:
        def part() -> Member:
            self.at += 1
            return Member("", self.at - 1, self.at, self._value(column, in_mapping=False))

        column = self._column()
        members = self._members(part, YAML_DASH)
        return Node(members[0].start, members[-1].node.end, [member.node.value for member in members], members)

    def _members(self, part: Callable[[], Member], begins: re.Pattern[str]) -> list[Member]:
        """The parts of a block, which stand in one column."""
        self.deeper()
        members: list[Member] = []
        column = self._column()
        while self._column() == column and begins.match(self.text, self.at):
            members.append(part())
        if self._column() > column:
            self.refuse("this line is indented more than those before it")
        self._depth -= 1
        return members

    def _value(self, column: int, *, in_mapping: bool) -> Node:
        """What stands behind a colon or a dash, on its line or below."""
        start = self.at
        if not YAML_REST.match(self.text, start):
            self.take(YAML_INDENT)
            return (self._scalar if in_mapping else self._block)(column)
        self._to_next_line()
        self._to_content()
        beside = in_mapping and self._column() == column and YAML_DASH.match(self.text, self.at)
        return self._block(column) if beside or self._column() > column else Node(start, start, None)

    def _scalar(self, parent: int) -> Node:
        if self.sees("&", "*", "!"):
            self.refuse("anchors, aliases and tags are not judged here")
        if self.sees("|", ">"):
            return self._block_scalar(parent)
        if not self.sees("[", "{", '"', "'"):
            return self._plain(parent)
        start, value, end = self.at, self._flow(), self.at
        self._end_line()
        return Node(start, end, value)

    def _key(self, pattern: re.Pattern[str], reason: str) -> str:
        """A key with its colon."""
        start = self.at
        written = self.take(pattern, reason)[:-1].rstrip(" ")
        if written == "<<":
            self.refuse("merge keys are not judged here", start)
        if len(written) > YAML_KEY_MAX_CHARACTERS:
            self.refuse(f"a key has at most {YAML_KEY_MAX_CHARACTERS:,} characters", start)
        key = _yaml_string(written) if written[0] in "\"'" else written
        if not isinstance(key, str) or isinstance(key, Bare):
            self.refuse("this key is written in a way that is not judged here", start)
        return key

    def _plain(self, parent: int) -> Node:
        """A scalar without quotes, which may go on in lines that are indented more than its parent."""
        pattern, start = YAML_PLAIN, self.at
        while True:
            self.take(pattern, "a value must begin here")
            end = self.at
            self._end_line()
            if self._column() <= parent:
                return Node(start, end, _yaml_plain(self.text[start:end]))
            if "#" in self.text[end : self.at]:
                self.refuse("a comment ends the value, and yet it goes on here")
            pattern = YAML_CONTINUED

    def _block_scalar(self, parent: int) -> Node:
        start, header, end, column = self.at, self.take(YAML_BLOCK_SCALAR), self.at, 0
        self.take(YAML_REST, "the line must end behind the head of a block of text")
        self._to_next_line()
        while self.at < len(self.text):
            line = self.text[self.at : line_stop(self.text, self.at)]
            indent = len(line) - len(line.lstrip(" "))
            if line.strip(" "):
                if indent <= parent:
                    break
                if indent < column:
                    self.refuse("this line is indented less than the block of text before it", self.at + indent)
                column = column or indent
            if line.strip(" ") or "+" in header or len(line) > column > 0:
                end = self.at + len(line)
            self._to_next_line()
        if self.at == len(self.text) and not self.text.endswith("\n") and "-" not in header:
            self.refuse("a line end must stand here: what comes behind it would add one to the block of text")
        self._to_content()
        return Node(start, end, Bare(self.text[start:end]))

    def _flow(self) -> Any:
        """A value inside brackets or braces, or those themselves."""
        if self.sees("["):
            return [self._flow() for _ in self.items("]", YAML_FLOW_SPACE)]
        if self.sees("{"):
            return self._flow_mapping()
        if self.sees('"', "'"):
            return _yaml_string(self.take(YAML_QUOTED, "this string is not closed, or an escape is unknown"))
        return _yaml_plain(self.take(YAML_FLOW_PLAIN, "a value must begin here, and none of the kinds not judged"))

    def _flow_mapping(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for _ in self.items("}", YAML_FLOW_SPACE):
            start, key = self.at, self._key(YAML_FLOW_KEY, "a key, a colon and a space must stand here")
            if key in members:
                self.refuse("this key stands here for the second time", start)
            self.take(YAML_FLOW_SPACE)
            members[key] = self._flow()
        return members


def _yaml_plain(written: str) -> Any:
    """What a scalar without quotes says."""
    return Bare(written) if "\n" in written or YAML_BARE.fullmatch(written) else YAML_WORDS.get(written, written)


def _yaml_string(written: str) -> Any:
    """What a quoted scalar says; Bare if it goes over lines or has escapes that JSON and TOML do not know."""
    if "\n" in written:
        return Bare(written)
    if written[0] == "'":
        return written[1:-1].replace("''", "'")
    try:
        return json.loads(short_escapes(written), strict=False)
    except ValueError:
        return Bare(written)


def _yaml_root(text: str) -> Node:
    return YamlScanner(text).document()


def yaml_put(text: str, path: Path, value: Any) -> str:
    """Sets the value at `path`; a missing container is added at the end."""
    root = _yaml_root(text)
    walked = way(text, root, path)
    rest = path[len(walked) :]
    if walked and (not rest or not walked[-1].node.members):
        return _yaml_replace(text, walked, rest, value)
    node = walked[-1].node if walked else root
    indent = " " * (node.start - line_start(text, node.start))
    if not walked:
        lines = [f"{_yaml_text(path[0])}:", *("  " + line for line in _yaml_entry(path[1], value))]
        return appended(text, [(indent if root.members else "") + line for line in lines], between=0)
    if isinstance(rest[0], Item) != isinstance(node.value, list):
        raise TextError(text, node.start, f"a {'list' if isinstance(rest[0], Item) else 'mapping'} must stand here")
    return changed(text, [below(text, node.end, indent, _yaml_lines(node, rest[0], value))])


def _yaml_lines(node: Node, key: str, value: Any) -> list[str]:
    """A new last part, in lines of its own where its neighbours are."""
    is_entry = isinstance(value, dict) and bool(node.members and node.members[0].node.members)
    if isinstance(key, Item) or is_entry:
        return _yaml_entry(key, value)
    return [f"{_yaml_text(key)}: {_yaml_text(value)}"]


def _yaml_replace(text: str, walked: list[Member], rest: Path, value: Any) -> str:
    """Writes the last member anew, on one line, or if it is an empty container, as a block with its first entry."""
    last = walked[-1]
    if not rest or (len(walked) > 1 and isinstance(last.node.value, dict)):
        written = _yaml_text(merged(last.node.value, rest, value))
        return changed(text, [Change(last.value_start, last.node.end, f" {written}")])
    if len(walked) > 1 or last.node.value not in (None, [], {}):
        raise TextError(text, last.node.start, "what stands here is in one line, or cannot hold a server")
    indent = " " * (last.start - line_start(text, last.start) + 2)
    lines = below(text, last.node.end, indent, _yaml_entry(rest[0], value))
    return changed(text, [Change(last.value_start, last.node.end, ""), lines])


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
    walked = way(text, _yaml_root(text), path)
    rest = path[len(walked) :]
    if rest and (len(walked) < 2 or walked[-1].node.members):
        return text
    last = walked[-1]
    if rest:
        written = _yaml_text(without(last.node.value, rest))
        return changed(text, [Change(last.value_start, last.node.end, f" {written}")])
    if text[line_start(text, last.start) : last.start].strip(" "):
        raise TextError(text, last.start, "this shares its line with others, which is not changed here")
    changes = [whole_lines(text, last.start, last.node.end)]
    if len(walked) > 1 and len(walked[-2].node.members or ()) == 1:
        above = walked[-2]
        changes.append(Change(above.value_start, above.value_start, " []" if isinstance(path[-1], Item) else " {}"))
    return changed(text, changes)


YAML = Format(
    lambda text: _yaml_root(text).value, yaml_put, yaml_drop, lambda text, path: spans(text, _yaml_root(text), path)
)

FORMATS = {"json": JSON, "toml": TOML, "yaml": YAML}
