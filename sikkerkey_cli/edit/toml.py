"""TOML 1.1: tables and their pairs, each with its span. Multi-line strings are Raw, because no value of ours is one."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from sikkerkey_cli.edit.text import (
    BLANK,
    DEPTH_MAX,
    PARSED_TEXTS_KEPT,
    Change,
    Format,
    Path,
    Raw,
    Scanner,
    TextError,
    append_lines,
    apply_changes,
    ascii_string,
    delete_lines,
    indent_at,
    json_escapes,
    lines_after,
    with_value_at,
    without_value_at,
)

_CONTROL = r"\x00-\x08\x0a-\x1f\x7f"
_ESCAPE = r'\\(?:["\\befnrt]|x[0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})'
_INTEGER = r"(?:0|[1-9](?:_?[0-9])*)"
_DIGITS = r"[0-9](?:_?[0-9])*"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"
TOML_COMMENT = rf"#[^{_CONTROL}]*"
TOML_SPACE = re.compile(rf"(?:[ \t]+|\r?\n|{TOML_COMMENT})*")
TOML_LINE_END = re.compile(rf"[ \t]*(?:{TOML_COMMENT})?(?:\r?\n|\Z)")
TOML_KEY = re.compile(r"[A-Za-z0-9_-]+")
TOML_STRING = re.compile(rf""""[^"\\{_CONTROL}]*(?:{_ESCAPE}[^"\\{_CONTROL}]*)*"|'[^'{_CONTROL}]*'""")
_LONG = r"\x00-\x08\x0b-\x1f\x7f"  # as _CONTROL, but multi-line strings may contain a line feed
TOML_LONG_STRING = re.compile(
    rf'"""[^"\\{_LONG}]*(?:(?:"(?!"")|\r\n|{_ESCAPE}|\\[ \t]*\r?\n)[^"\\{_LONG}]*)*""""{{0,2}}'
    rf"|'''[^'{_LONG}]*(?:(?:'(?!'')|\r\n)[^'{_LONG}]*)*''''{{0,2}}"
)
TOML_RAW = re.compile(
    rf"(?:true|false|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[Tt ]{_TIME}(?:[Zz]|[-+][0-9]{{2}}:[0-9]{{2}})?)?|{_TIME}"
    r"|0x[0-9a-fA-F](?:_?[0-9a-fA-F])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*|[-+]?(?:inf|nan)"
    rf"|[-+]?{_INTEGER}(?:\.{_DIGITS})?(?:[eE][-+]?{_DIGITS})?)(?![\w.:+-])"
)
TOML_WORDS = {"true": True, "false": False}


class Pair(NamedTuple):
    """`key = value` on lines of its own; `path` begins at the top of the document."""

    path: Path
    start: int
    value_start: int
    end: int
    value: Any


class Table(NamedTuple):
    """A header and its pairs. The first table of a document has no header, and its path is empty."""

    path: Path
    start: int
    end: int
    is_item: bool  # [[...]]
    pairs: list[Pair]


class OpenTable(dict[str, Any]):
    """A table while the document is read. An inline table is a plain dict, because nothing can be added to it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        # "implied" by the header of a subtable, a "table" with its own header, or made by "dotted" keys
        self.kind = kind


class Items(list[OpenTable]):
    """The tables of [[...]]; pairs are added to the last one."""


def _descend(table: OpenTable, path: Path, kind: str) -> OpenTable | None:
    """The table at a path, created if missing; None if TOML does not allow this kind of header or key to reach it."""
    for key in path:
        held = table.setdefault(key, OpenTable(kind))
        if isinstance(held, Items) and kind == "implied":
            held = held[-1]
        if not isinstance(held, OpenTable) or (kind == "dotted" and held.kind == "table"):
            return None
        table = held
    return table


def _open_table(document: OpenTable, path: Path, is_item: bool) -> OpenTable | None:
    """The table that a header begins; None if TOML does not allow it there."""
    above = _descend(document, path[:-1], "implied")
    if above is None:
        return None
    table = OpenTable("table")
    held = above.setdefault(path[-1], Items() if is_item else table)
    if is_item and isinstance(held, Items):
        held.append(table)
    elif isinstance(held, OpenTable) and held.kind == "implied" and not is_item:
        held.kind, table = "table", held
    elif held is not table:
        return None
    return table


def _define(table: OpenTable, key: Path, value: Any) -> bool:
    """Sets a value; False if it or a table on the way is already defined in another way."""
    holder = _descend(table, key[:-1], "dotted")
    if holder is None or key[-1] in holder:
        return False
    holder[key[-1]] = value
    return True


class TomlScanner(Scanner):
    """Reads the tables and pairs with their spans, and the document that they make up."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tables = [Table((), 0, 0, False, [])]
        self.document = self._table = OpenTable("table")
        self.take(TOML_SPACE)
        while self.at < len(text):
            (self._header if self.sees("[") else self._pair)()
            self.take(TOML_LINE_END, "expected the end of the line")
            self.take(TOML_SPACE)

    def _header(self) -> None:
        start, is_item = self.at, self.sees("[[")
        self.at += 1 + is_item
        path = self._key()
        self.expect("]]" if is_item else "]")
        table = _open_table(self.document, path, is_item)
        if table is None:
            self.refuse("this table is already defined, or the name is not a table", start)
        self._table = table
        self.tables.append(Table(path, start, self.at, is_item, []))

    def _pair(self) -> None:
        table = self.tables[-1]
        start, (key, value_start, value) = self.at, self._assign(self._table)
        table.pairs.append(Pair(table.path + key, start, value_start, self.at, value))

    def _assign(self, table: OpenTable) -> tuple[Path, int, Any]:
        """Reads a key and a value into a table. Returns the key, the start of the value, and the value."""
        start, key = self.at, self._key()
        self.expect("=")
        self.take(BLANK)
        value_start, value = self.at, self._value()
        if not _define(table, key, value):
            self.refuse("this key is already defined", start)
        return key, value_start, value

    def _key(self) -> Path:
        """Reads a dotted key with the white space around it."""
        parts: list[str] = []
        while True:
            self.take(BLANK)
            parts.append(self._string() if self.sees('"', "'") else self.take(TOML_KEY, "expected a key"))
            if len(parts) > DEPTH_MAX:
                self.refuse(f"nested more than {DEPTH_MAX} levels deep")
            self.take(BLANK)
            if not self.sees("."):
                return tuple(parts)
            self.at += 1

    def _string(self) -> str:
        """Reads a one-line string. A basic string is a JSON string that may also contain \\U, \\x, \\e and tabs."""
        start = self.at
        written = self.take(TOML_STRING, "this string is not closed on its line or contains an invalid escape")
        if written[0] == "'":
            return written[1:-1]
        try:
            value: str = json.loads(json_escapes(written), strict=False)
        except ValueError:
            value = "\ud800"
        if re.search("[\ud800-\udfff]", value):
            self.refuse("an escape in this string is not a valid character", start)
        return value

    def _value(self) -> Any:
        if self.sees('"""', "'''"):
            return Raw(self.take(TOML_LONG_STRING, "this string is not closed or contains an invalid escape"))
        if self.sees('"', "'"):
            return self._string()
        if self.sees("["):
            return [self._value() for _ in self.items("]", TOML_SPACE)]
        if self.sees("{"):
            inner = OpenTable("table")
            for _ in self.items("}", TOML_SPACE):
                self._assign(inner)
            return dict(inner)
        word = self.take(TOML_RAW, "expected a value")
        return TOML_WORDS.get(word, Raw(word))


@lru_cache(PARSED_TEXTS_KEPT)
def _toml(text: str) -> TomlScanner:
    return TomlScanner(text)


def _toml_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Raw):
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
    """Sets the value at `path`. A new entry (a path of two steps) becomes a table at the end."""
    tables = _toml(text).tables
    for pair in _pairs_above(tables, path):
        if len(pair.path) < len(path):
            _refuse_shared_inline_table(text, pair)
            value = with_value_at(pair.value, path[len(pair.path) :], value)
        return apply_changes(text, [Change(pair.value_start, pair.end, _toml_text(value))])
    if len(path) == 2 and isinstance(value, dict):
        for table in tables:
            if table.is_item and table.path == path[:1]:
                raise TextError(text, table.start, f"{path[0]} is not a table")
        return append_lines(text, _toml_table(path, value), blank_lines=1)
    for table in tables[1:]:  # not the first: without pairs it has no place, and no client's entry belongs there
        if table.path == path[:-1] and not table.is_item:
            return _toml_insert(text, table, f"{_toml_key(path[-1])} = {_toml_text(value)}")
    spot = [pair.start for table in tables for pair in table.pairs if pair.path[: len(path) - 1] == path[:-1]]
    raise TextError(text, min(spot, default=0), "entries written with dotted keys are not supported")


def _pairs_above(tables: list[Table], path: Path) -> list[Pair]:
    """The pair whose value is or contains `path`, if there is one."""
    pairs = [pair for table in tables if not table.is_item for pair in table.pairs]
    return [pair for pair in pairs if pair.path == path[: len(pair.path)]]


def _refuse_shared_inline_table(text: str, pair: Pair) -> None:
    """An inline table can only be rewritten as a whole, so it must hold nothing but our entry. Raises TextError."""
    if len(pair.path) < 2 or not isinstance(pair.value, dict):
        raise TextError(text, pair.value_start, "expected a table, and not an inline one")


def _toml_table(path: Path, value: dict[str, Any]) -> list[str]:
    pairs = [f"{_toml_key(key)} = {_toml_text(held)}" for key, held in value.items()]
    return [f"[{'.'.join(map(_toml_key, path))}]", *pairs]


def _toml_insert(text: str, table: Table, line: str) -> str:
    start, end = (table.pairs[-1].start, table.pairs[-1].end) if table.pairs else (table.start, table.end)
    return apply_changes(text, [lines_after(text, end, indent_at(text, start), [line])])


def toml_drop(text: str, path: Path) -> str:
    """Removes the value or the tables at `path`."""
    tables = _toml(text).tables
    for pair in _pairs_above(tables, path):
        if len(pair.path) < len(path):
            _refuse_shared_inline_table(text, pair)
            rest = without_value_at(pair.value, path[len(pair.path) :])
            return apply_changes(text, [Change(pair.value_start, pair.end, _toml_text(rest))])
    changes = []
    for table in tables:
        if table.path and table.path[: len(path)] == path:
            end = table.pairs[-1].end if table.pairs else table.end
            changes.append(delete_lines(text, table.start, end, leading_blank=True))
        else:
            own = [pair for pair in table.pairs if pair.path[: len(path)] == path]
            changes += [delete_lines(text, pair.start, pair.end) for pair in own]
    return apply_changes(text, changes)


def toml_locate(text: str, path: Path) -> list[tuple[int, int]]:
    """The spans of the tables and pairs at `path`."""
    tables = _toml(text).tables
    pairs = [pair for table in tables for pair in table.pairs if pair.path[: len(path)] == path]
    headers = [table for table in tables if table.path[: len(path)] == path]
    return [*((table.start, table.end) for table in headers), *((pair.start, pair.end) for pair in pairs)]


TOML = Format(lambda text: _toml(text).document, toml_put, toml_drop, toml_locate)
