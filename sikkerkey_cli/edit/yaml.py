"""YAML: block mappings and sequences with scalars of every kind; flow collections are read as plain values.

Anchors, aliases and merge keys are read, but nothing is changed where the container or the entry consists of them: the
change could have an effect elsewhere. Refused are tags, complex keys, anchors of keys, several documents, and tabs
outside strings and comments.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Callable

from sikkerkey_cli.edit.text import (
    DEPTH_MAX,
    PARSED_TEXTS_KEPT,
    Change,
    Format,
    Item,
    Member,
    Node,
    Path,
    Raw,
    Scanner,
    TextError,
    append_lines,
    apply_changes,
    ascii_string,
    delete_lines,
    find_path,
    json_escapes,
    line_start,
    line_stop,
    lines_after,
    locate,
    with_value_at,
    without_value_at,
)

ALIASED_VALUES_MAX = 10_000  # of all aliases together; a few lines of nested aliases can stand for billions of values
YAML_KEY_MAX_CHARACTERS = 1024  # the limit of the YAML specification for implicit keys
# \x85 and the two separators end a line in YAML 1.1 only.
YAML_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
YAML_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \r\n]|\Z)", re.MULTILINE)
YAML_BEGINNING = re.compile(
    r"(?: *(?:#[^\n]*)?\r?\n)*(?:(?:%YAML 1\.[12] *\r?\n(?: *(?:#[^\n]*)?\r?\n)*)?---(?: *| +#[^\n]*)(?:\r?\n|\Z))?"
)
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
YAML_ANCHOR = re.compile(r"&([A-Za-z0-9_-]+)(?=[ \r\n]|\Z)")
YAML_ALIAS = re.compile(r"\*([A-Za-z0-9_-]+)(?=[ \r\n,\]}]|\Z)")
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
# YAML 1.1 gives yes, no, on, off and = a meaning; YAML 1.2 does not.
# An agent id such as 3f2a8c1e-0000-4000-8000-000000000001 begins with a digit and is a string.
YAML_RAW = re.compile(
    r"[-+]?(?:0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*(?::[0-9_]+)*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?)"
    r"|[-+]?\.[0-9_]+(?:e[-+]?[0-9]+)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[t ].*)?"
    r"|[-+]?\.(?:inf|nan)|yes|no|on|off|=",
    re.IGNORECASE,
)
YAML_SAFE = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)\Z)[A-Za-z][A-Za-z0-9_-]*", re.IGNORECASE)


class MergeKey(str):
    """A merge key, as opposed to a key of this name in quotes."""

    __slots__ = ()


class YamlScanner(Scanner):
    """Reads block mappings and sequences with their members; flow collections are read as plain values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._anchors: dict[str, tuple[Any, int, int]] = {}  # a value, how many values it contains, how deep it is
        self._aliased = 0

    def document(self) -> Node:
        """The mapping that the text consists of; an empty one at its end if the text is only comments."""
        if found := YAML_STRANGE.search(self.text):
            self.refuse("YAML does not allow this character, or not everywhere", found.start())
        self.take(YAML_BEGINNING)
        if self.sees("%"):
            self.refuse("only the directive %YAML, followed by ---, is supported")
        if marker := YAML_MARKER.search(self.text, self.at):
            self.refuse("files with several documents are not supported", marker.start())
        self._to_content()
        if self.at == len(self.text):
            return Node(self.at, self.at, {}, [])
        if not YAML_KEY.match(self.text, self.at):
            self.refuse("expected a mapping")
        root = self._mapping()
        if self.at != len(self.text):
            self.refuse("this line is indented less than the lines before it")
        return root

    def _column(self) -> int:
        """The column of the current position; -1 at the end of the text."""
        return self.at - line_start(self.text, self.at) if self.at < len(self.text) else -1

    def _to_content(self) -> None:
        """Moves from the start of a line to the next content, or to the end of the text."""
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
        """Moves to the next content, after a value that must be the last on its line."""
        self.take(YAML_REST, "expected the end of the line")
        self._to_next_line()
        self._to_content()

    def _block(self, parent: int) -> Node:
        """Reads the value that begins here, whose parent is in column `parent`, and moves to the next content."""
        if YAML_DASH.match(self.text, self.at):
            return self._sequence()
        return self._mapping() if YAML_KEY.match(self.text, self.at) else self._scalar(parent)

    def _mapping(self) -> Node:
        value: dict[str, Any] = {}
        merged: dict[str, Any] = {}

        def part() -> Member:
            start, key = self.at, self._key(YAML_KEY, "expected a key")
            if key in value or (isinstance(key, MergeKey) and merged):
                self.refuse("this key is used twice here", start)
            member = Member(key, start, self.at, self._value(column, in_mapping=True))
            if isinstance(key, MergeKey):
                merged.update(self._merged(member.node.value, start))
            else:
                value[key] = member.node.value
            return member

        column = self._column()
        members = self._members(part, YAML_INDENT)
        return Node(members[0].start, members[-1].node.end, {**merged, **value}, members)

    def _merged(self, value: Any, at: int) -> dict[str, Any]:
        """What a merge key adds. The first of several mappings takes precedence."""
        found: dict[str, Any] = {}
        for mapping in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(mapping, dict):
                self.refuse("a merge key needs mappings", at)
            found.update(mapping)
        return found

    def _sequence(self) -> Node:
        def part() -> Member:
            self.at += 1
            return Member("", self.at - 1, self.at, self._value(column, in_mapping=False))

        column = self._column()
        members = self._members(part, YAML_DASH)
        return Node(members[0].start, members[-1].node.end, [member.node.value for member in members], members)

    def _members(self, part: Callable[[], Member], begins: re.Pattern[str]) -> list[Member]:
        """Reads the members of a block, which all begin in one column."""
        self.enter_level()
        members: list[Member] = []
        column = self._column()
        while self._column() == column and begins.match(self.text, self.at):
            members.append(part())
        if self._column() > column:
            self.refuse("this line is indented more than the lines before it")
        self.leave_level()
        return members

    def _value(self, column: int, *, in_mapping: bool) -> Node:
        """Reads the value after a colon or a dash, on the same line or below."""
        start, anchor = self.at, ""
        if not YAML_REST.match(self.text, start):
            self.take(YAML_INDENT)
            anchor = self._anchor()
            start = self.at
        if not YAML_REST.match(self.text, start):
            self.take(YAML_INDENT)
            return self._anchored(anchor, (self._scalar if in_mapping or anchor else self._block)(column))
        self._to_next_line()
        self._to_content()
        beside = in_mapping and self._column() == column and YAML_DASH.match(self.text, self.at)
        node = self._block(column) if beside or self._column() > column else Node(start, start, None)
        return self._anchored(anchor, node)

    def _anchor(self) -> str:
        """Reads an anchor, if there is one, and returns its name."""
        return self.take(YAML_ANCHOR, "this anchor is not supported")[1:] if self.sees("&") else ""

    def _anchored(self, anchor: str, node: Node) -> Node:
        if anchor:
            self._anchors[anchor] = (node.value, *_extent(node.value))
        return node

    def _alias(self) -> Any:
        """Reads an alias and returns the value that it stands for."""
        start, name = self.at, self.take(YAML_ALIAS, "this alias is not supported")[1:]
        if name not in self._anchors:
            self.refuse("this alias has no anchor above it", start)
        value, count, depth = self._anchors[name]
        self._aliased += count
        if self._aliased > ALIASED_VALUES_MAX or self._depth + depth > DEPTH_MAX:
            self.refuse("the aliases stand for too many values", start)
        return value

    def _scalar(self, parent: int) -> Node:
        if self.sees("&", "!"):
            self.refuse("tags, and anchors on lines of their own, are not supported")
        if self.sees("|", ">"):
            return self._block_scalar(parent)
        if not self.sees("[", "{", '"', "'", "*"):
            return self._plain(parent)
        start, value, end = self.at, self._flow(), self.at
        self._end_line()
        return Node(start, end, value)

    def _key(self, pattern: re.Pattern[str], reason: str) -> str:
        """Reads a key with its colon."""
        start = self.at
        written = self.take(pattern, reason)[:-1].rstrip(" ")
        if len(written) > YAML_KEY_MAX_CHARACTERS:
            self.refuse(f"keys are limited to {YAML_KEY_MAX_CHARACTERS:,} characters", start)
        key = _yaml_string(written) if written[0] in "\"'" else MergeKey(written) if written == "<<" else written
        if not isinstance(key, str) or isinstance(key, Raw):
            self.refuse("keys written in this way are not supported", start)
        return key

    def _plain(self, parent: int) -> Node:
        """Reads an unquoted scalar, which may continue on lines that are indented more than its parent."""
        pattern, start = YAML_PLAIN, self.at
        while True:
            self.take(pattern, "expected a value")
            end = self.at
            self._end_line()
            if self._column() <= parent:
                return Node(start, end, _yaml_plain(self.text[start:end]))
            if "#" in self.text[end : self.at]:
                self.refuse("a value cannot continue after a comment")
            pattern = YAML_CONTINUED

    def _block_scalar(self, parent: int) -> Node:
        start, header, end, column = self.at, self.take(YAML_BLOCK_SCALAR), self.at, 0
        self.take(YAML_REST, "expected the end of the line after | or >")
        self._to_next_line()
        while self.at < len(self.text):
            line = self.text[self.at : line_stop(self.text, self.at)]
            indent = len(line) - len(line.lstrip(" "))
            if line.strip(" "):
                if indent <= parent:
                    break
                if indent < column:
                    self.refuse("this line is indented less than the block scalar before it", self.at + indent)
                column = column or indent
            if line.strip(" ") or "+" in header or len(line) > column > 0:
                end = self.at + len(line)
            self._to_next_line()
        self._to_content()
        stop = self.text.find("\n", end) + 1 or end  # the final line ending is part of the value
        return Node(start, end, Raw(self.text[start:stop]))

    def _flow(self) -> Any:
        """Reads a value inside brackets or braces, or a flow collection itself."""
        if self.sees("&"):
            anchor = self._anchor()
            self.take(YAML_FLOW_SPACE)
            return self._anchored(anchor, Node(0, 0, self._flow())).value
        if self.sees("*"):
            return self._alias()
        if self.sees("["):
            return [self._flow() for _ in self.items("]", YAML_FLOW_SPACE)]
        if self.sees("{"):
            return self._flow_mapping()
        if self.sees('"', "'"):
            return _yaml_string(self.take(YAML_QUOTED, "this string is not closed or contains an invalid escape"))
        return _yaml_plain(self.take(YAML_FLOW_PLAIN, "expected a value; tags are not supported"))

    def _flow_mapping(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for _ in self.items("}", YAML_FLOW_SPACE):
            start, key = self.at, self._key(YAML_FLOW_KEY, "expected a key, a colon and a space")
            if key in members or (isinstance(key, MergeKey) and merged):
                self.refuse("this key is used twice here", start)
            self.take(YAML_FLOW_SPACE)
            value = self._flow()
            if isinstance(key, MergeKey):
                merged = self._merged(value, start)
            else:
                members[key] = value
        return {**merged, **members}


def _extent(value: Any) -> tuple[int, int]:
    """How many values a value contains, itself included, and how deep they are."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    extents = [_extent(each) for each in inner]
    return 1 + sum(count for count, _ in extents), 1 + max((depth for _, depth in extents), default=0)


def _yaml_plain(written: str) -> Any:
    """The value of an unquoted scalar."""
    return Raw(written) if "\n" in written or YAML_RAW.fullmatch(written) else YAML_WORDS.get(written, written)


def _yaml_string(written: str) -> Any:
    """The value of a quoted scalar; Raw if it has several lines or escapes that JSON and TOML do not know."""
    if "\n" in written:
        return Raw(written)
    if written[0] == "'":
        return written[1:-1].replace("''", "'")
    try:
        return json.loads(json_escapes(written), strict=False)
    except ValueError:
        return Raw(written)


@lru_cache(PARSED_TEXTS_KEPT)
def _yaml_root(text: str) -> Node:
    return YamlScanner(text).document()


def yaml_put(text: str, path: Path, value: Any) -> str:
    """Sets the value at `path`; a missing container is added at the end."""
    root = _yaml_root(text)
    walked = _walk(text, root, path)
    rest = path[len(walked) :]
    if walked and (not rest or not walked[-1].node.members):
        return _yaml_replace(text, walked, rest, value)
    node = walked[-1].node if walked else root
    indent = " " * (node.start - line_start(text, node.start))
    if not walked:
        lines = [f"{_yaml_text(path[0])}:", *("  " + line for line in _yaml_entry(path[1], value))]
        return append_lines(text, [(indent if root.members else "") + line for line in lines], blank_lines=0)
    if isinstance(rest[0], Item) != isinstance(node.value, list):
        raise TextError(text, node.start, f"expected a {'list' if isinstance(rest[0], Item) else 'mapping'}")
    return apply_changes(text, [lines_after(text, node.end, indent, _yaml_lines(node, rest[0], value))])


def _walk(text: str, root: Node, path: Path) -> list[Member]:
    """The members along a path, as far as they exist. Raises TextError if one has an anchor or is merged in."""
    walked = find_path(text, root, path)
    for member in walked:
        if "&" in re.sub(r"#[^\n]*", "", text[member.value_start : member.node.start]):
            raise TextError(text, member.start, "an anchor here is not supported")
    node = walked[-1].node if walked else root
    merged = any(isinstance(member.key, MergeKey) for member in node.members or ())
    if (
        merged
        and isinstance(node.value, dict)
        and path[len(walked) : len(walked) + 1] in [(key,) for key in node.value]
    ):
        raise TextError(text, node.start, "a merge key here is not supported")
    return walked


def _yaml_lines(node: Node, key: str, value: Any) -> list[str]:
    """The lines of a new last member, in block style if its neighbours are."""
    is_entry = isinstance(value, dict) and bool(node.members and node.members[0].node.members)
    if isinstance(key, Item) or is_entry:
        return _yaml_entry(key, value)
    return [f"{_yaml_text(key)}: {_yaml_text(value)}"]


def _yaml_replace(text: str, walked: list[Member], rest: Path, value: Any) -> str:
    """Rewrites the last member on one line; or fills an empty container with its first entry, as a block."""
    last = walked[-1]
    if not rest or (len(walked) > 1 and isinstance(last.node.value, dict)):
        written = _yaml_text(with_value_at(last.node.value, rest, value))
        return apply_changes(text, [Change(last.value_start, last.node.end, f" {written}")])
    if len(walked) > 1 or last.node.value not in (None, [], {}):
        raise TextError(text, last.node.start, "expected a block mapping or a block sequence")
    indent = " " * (last.start - line_start(text, last.start) + 2)
    lines = lines_after(text, last.node.end, indent, _yaml_entry(rest[0], value))
    return apply_changes(text, [Change(last.value_start, last.node.end, ""), lines])


def _yaml_entry(key: str, value: dict[str, Any]) -> list[str]:
    pairs = [f"  {_yaml_text(member)}: {_yaml_text(held)}" for member, held in value.items()]
    return [f"- name: {_yaml_text(str(key))}" if isinstance(key, Item) else f"{_yaml_text(key)}:", *pairs]


def _yaml_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, str):
        return value if YAML_SAFE.fullmatch(value) else ascii_string(value)
    if isinstance(value, list):
        return f"[{', '.join(ascii_string(item) if isinstance(item, str) else _yaml_text(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml_text(key)}: {_yaml_text(held)}" for key, held in value.items()) + "}"
    return json.dumps(value)


def yaml_drop(text: str, path: Path) -> str:
    """Removes the member at `path`."""
    walked = _walk(text, _yaml_root(text), path)
    rest = path[len(walked) :]
    if rest and (len(walked) < 2 or walked[-1].node.members):
        if walked and _is_in_flow(walked[-1].node, rest[0]):
            raise TextError(text, walked[-1].node.start, "expected a block mapping or a block sequence")
        return text
    last = walked[-1]
    if rest:
        written = _yaml_text(without_value_at(last.node.value, rest))
        return apply_changes(text, [Change(last.value_start, last.node.end, f" {written}")])
    if text[line_start(text, last.start) : last.start].strip(" "):
        raise TextError(text, last.start, "cannot be removed: it shares its line with other values")
    changes = [delete_lines(text, last.start, last.node.end)]
    if len(walked) > 1 and len(walked[-2].node.members or ()) == 1:
        above = walked[-2]
        changes.append(Change(above.value_start, above.value_start, " []" if isinstance(path[-1], Item) else " {}"))
    return apply_changes(text, changes)


def _is_in_flow(container: Node, key: str) -> bool:
    """Whether a flow collection, which can only be replaced as a whole, contains the entry."""
    if container.members is not None or not isinstance(container.value, (dict, list)):
        return False
    if isinstance(key, Item):
        return any(isinstance(item, dict) and item.get("name") == key for item in container.value)
    return key in container.value


YAML = Format(
    lambda text: _yaml_root(text).value, yaml_put, yaml_drop, lambda text, path: locate(text, _yaml_root(text), path)
)
