"""Editing settings files: only the entry changes, byte for byte and as independent parsers read the text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sikkerkey_cli import edit
from sikkerkey_cli.edit import Item, Raw, TextError
from tests.support.config_parsers import jsonc_loads, reads_toml_1_1, toml, yaml_loads

ENTRY: dict[str, Any] = {
    "command": "/opt/søger 'q' \"d\"/py\\thon \U0001f511",
    "args": ["-I", "C:\\a b\\{x}: #$(y)%.pyz", "serve", "\x7f\t\n"],
    "env": {"SIKKERKEY_HOME": '/home/it\'s "mine" [1] , \\'},
}


class Kind(NamedTuple):
    """A format, an independent parser for it and for its raw values, and the path of an entry."""

    form: edit.Format
    read: Callable[[str], Any]
    number: Callable[[str], Any]
    path: edit.Path


def yaml_number(text: str) -> Any:
    """The value of a raw scalar as PyYAML reads it."""
    return yaml_loads(f"x: {text}")["x"]


KINDS = {
    "json": Kind(edit.JSON, jsonc_loads, json.loads, ("mcpServers", "sikkerkey")),
    "toml": Kind(edit.TOML, toml.loads, lambda text: toml.loads(f"x = {text}")["x"], ("mcp_servers", "sikkerkey")),
    "yaml": Kind(edit.YAML, yaml_loads, yaml_number, ("extensions", "sikkerkey")),
    "yaml list": Kind(edit.YAML, yaml_loads, yaml_number, ("mcpServers", Item("sikkerkey"))),
}


def resolved(value: Any, number: Callable[[str], Any]) -> Any:
    """A value with its raw parts replaced by what the independent parser reads."""
    if isinstance(value, Raw):
        return number(value.text)
    if isinstance(value, dict):
        return {key: resolved(inner, number) for key, inner in value.items()}
    return [resolved(inner, number) for inner in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Equal including types (True is not 1) and the order of keys; nan equals nan."""
    return repr(one) == repr(other)


def with_entry(kind: Kind, document: Any) -> Any:
    """The expected document after the entry was added."""
    container, key = kind.path
    before = document or {}
    if isinstance(key, Item):
        return {**before, container: [*(before.get(container) or []), {"name": str(key), **ENTRY}]}
    return {**before, container: {**(before.get(container) or {}), key: ENTRY}}


def check(kind: Kind, text: str) -> None:
    """Checks everything that is promised about a text that is accepted."""
    document = kind.read(text) or {}
    assert same(resolved(kind.form.read(text), kind.number), document)
    assert kind.form.drop(text, kind.path) == text
    new = kind.form.put(text, kind.path, ENTRY)
    assert kind.read(new) == with_entry(kind, document)
    assert kind.form.put(new, (*kind.path, "command"), ENTRY["command"]) == new
    if document.get(kind.path[0]):
        assert kind.form.drop(new, kind.path) == text
    kept = new
    for start, end in sorted(kind.form.locate(new, kind.path), reverse=True):
        kept = kept[:start] + kept[end:]
    assert letters(kept).replace(kind.path[0], "", 1) == letters(text).replace(kind.path[0], "", 1)
    check_changes(kind, new)


def letters(text: str) -> str:
    """The text without white space and separators."""
    return "".join(text.split()).translate(str.maketrans("", "", ',{}[]-:"'))


def check_changes(kind: Kind, text: str) -> None:
    """Replaces, adds and drops members, and checks that nothing else changes."""
    before = kind.read(text)
    for path, value in (
        ((*kind.path, "command"), "new \\ \" '"),
        ((*kind.path, "args"), ["a", "b: c"]),
        ((*kind.path, "env", "SIKKERKEY_HOME"), "x"),
        ((*kind.path, "env", "OTHER"), "y"),
        ((*kind.path, "source"), "z"),
    ):
        text = kind.form.put(text, path, value)
        assert looked_up(kind, text, path) == value
    text = kind.form.drop(text, (*kind.path, "env", "OTHER"))
    assert looked_up(kind, text, (*kind.path, "env")) == {"SIKKERKEY_HOME": "x"}
    text = kind.form.drop(text, (*kind.path, "env"))
    after = kind.read(text)
    left = {**named(kind), "command": "new \\ \" '", "args": ["a", "b: c"], "source": "z"}
    assert looked_up(kind, text, kind.path) == left
    assert same(others(kind, after), others(kind, before))


def named(kind: Kind) -> dict[str, str]:
    """The `name` member of a list item."""
    return {"name": "sikkerkey"} if isinstance(kind.path[1], Item) else {}


def looked_up(kind: Kind, text: str, path: edit.Path) -> Any:
    """The value at a path, by the independent parser."""
    value = kind.read(text)
    for step in path:
        value = next(item for item in value if item["name"] == step) if isinstance(step, Item) else value[step]
    return value


def others(kind: Kind, document: Any) -> Any:
    """The document without the entry."""
    container, key = kind.path
    held = document[container]
    if isinstance(held, list):
        return {**document, container: [item for item in held if item.get("name") != key]}
    return {**document, container: {name: value for name, value in held.items() if name != key}}


# Random documents

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 10**20),
    st.text(max_size=12),
    st.sampled_from(["yes", "1", "- a", "a: b", "#"]),
)
KEYS = st.one_of(st.text(max_size=6), st.sampled_from(["a", "b c", "name", "command", "env", "1", "true", "x.y"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
SERVERS = st.dictionaries(
    st.sampled_from(["other", "søger", "a.b", "sikkerkey-2"]), st.dictionaries(KEYS, VALUES, max_size=3), max_size=2
)
GAPS = ("", " ", "\n", "\n  ", "\t", ' // , } "\n', '/* { " */', "\r\n    ")
AT_RANDOM = settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def jsonc(value: Any, chance: random.Random) -> str:
    """The value as JSON with random comments, white space and trailing commas."""

    def gap() -> str:
        return chance.choice(GAPS) if chance.random() < 0.3 else ""

    if not isinstance(value, (dict, list)):
        return gap() + json.dumps(value, ensure_ascii=chance.random() < 0.5) + gap()
    if isinstance(value, dict):
        parts = [f"{gap()}{json.dumps(key)}{gap()}:{jsonc(held, chance)}" for key, held in value.items()]
    else:
        parts = [jsonc(held, chance) for held in value]
    trailing = "," + gap() if parts and chance.random() < 0.3 else ""
    first, last = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return f"{gap()}{first}{','.join(parts)}{trailing}{gap()}{last}{gap()}"


@AT_RANDOM
@given(st.dictionaries(KEYS, VALUES, max_size=3), st.none() | SERVERS, st.randoms(), st.sampled_from([None, 2, "\t"]))
def test_random_json_keeps_everything_else(
    document: dict[str, Any], servers: dict[str, Any] | None, chance: random.Random, indent: int | str | None
) -> None:
    document = document if servers is None else {**document, "mcpServers": servers}
    for text in (json.dumps(document, indent=indent), jsonc(document, chance)):
        check(KINDS["json"], text)


class Plain(yaml.SafeDumper):
    """Repeats a value instead of using an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def with_servers(kind: Kind, document: dict[str, Any], servers: dict[str, Any] | None) -> dict[str, Any]:
    """A document with servers in the container of a kind of file; None for no container."""
    if servers is None:
        return document
    listed = isinstance(kind.path[1], Item)
    held = [{"name": key, **server} for key, server in servers.items()] if listed else servers
    return {**document, kind.path[0]: held}


@AT_RANDOM
@given(
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.none() | SERVERS,
    st.sampled_from(["yaml", "yaml list"]),
    st.fixed_dictionaries({
        "default_flow_style": st.sampled_from([False, None]),
        "default_style": st.sampled_from([None, '"', "'", "|", ">"]),
        "indent": st.integers(2, 6),
        "width": st.sampled_from([10, 80]),
        "allow_unicode": st.booleans(),
        "explicit_start": st.booleans(),
        "line_break": st.sampled_from(["\n", "\r\n"]),
    }),
)  # fmt: skip
def test_random_yaml_keeps_everything_else_or_is_refused(
    document: dict[str, Any], servers: dict[str, Any] | None, name: str, style: dict[str, Any]
) -> None:
    kind = KINDS[name]
    document = with_servers(kind, document, servers)
    text = yaml.dump(document, Dumper=Plain, sort_keys=False, **style)
    try:
        kind.form.read(text)
        kind.form.put(text, kind.path, ENTRY)
    except TextError:
        return
    check(kind, text)


TOML_PAIRS = (
    "n = 1_000", "f = -1.5e3", "d = 1979-05-27T07:32:00.5-08:00", "t = 07:32:00", "b = true",
    's = "a # [b]\\u00e9\\\\"',
    "l = 'c:\\x'", "a = [1, # ]\n  2,\n]", "i = { x = 1, y.z = 'q', e = {} }",
    'm = """\n[mcp_servers.sikkerkey]\n"" \\\n  x"""',
    "o = '''\n'' = \"\"\"'''", "x.y = 1", '"quoted key"."." = 2', "inf = inf", "h = 0xdead_beef",
    "aa = [[], [{}], ['']]",
)  # fmt: skip
TOML_TABLES = (
    "", "[t]", "[ u . v ] # c", "[mcp_servers]", "[mcp_servers.other]", '[mcp_servers."a.b".env]', "[[w]]", "[[w]]",
    "[w.x]", "['q w']",
)  # fmt: skip


def toml_text(tables: list[tuple[str, list[str]]], chance: random.Random, line_end: str, ends: bool) -> str:
    """The tables with random indentation, comments and blank lines."""
    lines: list[str] = []
    for header, pairs in tables:
        for line in (header, *pairs):
            lines += ["  " * chance.randrange(2) + line, *chance.choices(["", "# c", "\t"], k=chance.randrange(2))]
    return line_end.join("\n".join(lines).split("\n")) + line_end * ends


TOML_TEXTS = st.builds(
    toml_text,
    st.lists(st.tuples(st.sampled_from(TOML_TABLES), st.lists(st.sampled_from(TOML_PAIRS), max_size=4)), max_size=5),
    st.randoms(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)


@AT_RANDOM
@given(TOML_TEXTS)
def test_random_toml_keeps_everything_else(text: str) -> None:
    try:
        toml.loads(text)
    except toml.TOMLDecodeError:
        with pytest.raises(TextError):
            edit.TOML.read(text)
        return
    check(KINDS["toml"], text)


# Refused texts

SEEDS = {
    "json": '{\n  "a": [1, {"b": "\\u00e9"}], // x\n  "mcpServers": {"z": {"command": "n",},},\n}\n',
    "toml": '[a]\nb = 1\nc.d = "x"\n[mcp_servers.z]\nargs = ["-y", # c\n "x"]\nenv = {A = 1}\n[[l]]\nm = """x\n"""\n',
    "yaml": "a: 1\nb:\n- x\n- y: z\n  w: 'q'\nc: {d: [1, e]}\n# c\nh: |+\n  text\n\n"
    "k: &k {q: 1}\nl: *k\nextensions:\n  dev:\n    t: ~\n",
    "yaml list": '---\nmcpServers:\n  - name: x\n    args:\n      - -y\n      - "@a/b"\n    env: {}\nurl: http://x:1/y\n',
}
if reads_toml_1_1():
    SEEDS["toml"] += '[t]\nu = { v = 07:32,\n  w = "\\e\\x41", }\n'
STRANGE = " \t\n\r\"'\\#,.:=[]{}-|>&*!?0a/+~%@`_\u2028\x00é"


def damaged(text: str, chance: random.Random) -> str:
    """The text with one to three random changes."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text) + 1)
        other = chance.randrange(len(text) + 1)
        text = chance.choice([
            text[:place] + chance.choice(STRANGE) + text[place:],
            text[:place] + text[place + 1 :],
            text[:place] + text[other : other + 6] + text[place:],
            text[: max(place, 1)],
        ])  # fmt: skip
    return text


@pytest.mark.parametrize("name", KINDS)
@settings(AT_RANDOM, max_examples=60)
@given(st.randoms(use_true_random=False))
def test_damaged_text_is_refused_or_read_like_an_independent_parser(name: str, chance: random.Random) -> None:
    kind, text = KINDS[name], damaged(SEEDS[name], chance) + "\n"
    try:
        document = kind.form.read(text)
        new = kind.form.put(text, kind.path, ENTRY)
    except TextError:
        return
    try:
        real = kind.read(text) or {}
    except ValueError:  # in TOML 1.0, inline tables are on one line, times have seconds, and there is no \\e and \\x
        assert (name, reads_toml_1_1()) == ("toml", False)
        assert re.search(r"\{|(?<![:0-9])[0-9]{2}:[0-9]{2}(?!:)|\\[ex]", text)
        return
    if keys_are_text(real):
        assert same(resolved(document, kind.number), real)
    assert kind.read(new) == with_entry(kind, real)


def keys_are_text(value: Any) -> bool:
    """Whether all keys are text; YAML also allows numbers and other types."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and keys_are_text(inner) for key, inner in value.items())
    return not isinstance(value, list) or all(map(keys_are_text, value))


@pytest.mark.parametrize("name", KINDS)
@AT_RANDOM
@given(st.text() | st.text(STRANGE))
def test_random_text_causes_no_other_error(name: str, text: str) -> None:
    form, path = KINDS[name].form, KINDS[name].path
    for attempt in (form.read, lambda text: form.put(text, path, ENTRY), lambda text: form.drop(text, path)):
        try:
            attempt(text)
        except TextError as refusal:
            known = re.match("line [0-9]+, column [0-9]+: .", str(refusal))
            assert known


def test_scalars_that_only_look_like_numbers_are_strings() -> None:
    for text in ("3f2a8c1e-0000-4000-8000-000000000001", "1.2.3", "9abc", "127.0.0.1", "12-34"):
        assert edit.YAML.read(f"a: {text}\n") == {"a": text} == yaml_loads(f"a: {text}\n"), text
    for text in ("1", "0x1f", "1_0", "1e5", ".5", "1.", "2026-11-28", "12:30:45", "yes"):
        assert edit.YAML.read(f"a: {text}\n") == {"a": Raw(text)}, text


def test_toml_1_1_is_read() -> None:
    text = 'a = { b = { # c\n  c = "d",\n}, }\nt = 07:32\n'
    assert edit.TOML.read(text) == {"a": {"b": {"c": "d"}}, "t": Raw("07:32")}
    kind = KINDS["toml"]
    new = kind.form.put(text, kind.path, ENTRY)
    assert new.startswith(text)
    assert kind.form.drop(new, kind.path) == text


def test_escapes_of_toml_1_1_and_yaml_are_read() -> None:
    written = '"\\e[1m \\x41\\xe6\\xFf \\\\x41 \\\\e \\U0001F511"'
    value = "\x1b[1m A\xe6\xff \\x41 \\e \U0001f511"
    assert edit.TOML.read(f"a = {written}\n") == {"a": value}
    assert edit.TOML.read(f"{written} = 1\n") == {value: Raw("1")}
    assert edit.TOML.read(f'a = """{written[1:-1]}"""\n') == {"a": Raw(f'"""{written[1:-1]}"""')}
    assert edit.YAML.read(f"a: {written}\n") == {"a": value} == yaml_loads(f"a: {written}\n")
    for wrong in ('"\\x4"', '"\\E"', '"\\xg0"'):
        with pytest.raises(TextError):
            edit.TOML.read(f"a = {wrong}\n")
    new = edit.TOML.put(f"[mcp_servers.sikkerkey]\na = {written}\n", ("mcp_servers", "sikkerkey", "b"), value)
    assert new.splitlines()[1] == f"a = {written}"
    assert edit.TOML.read(new)["mcp_servers"]["sikkerkey"] == {"a": value, "b": value}


def test_yaml_directive_stays() -> None:
    for name in ("yaml", "yaml list"):
        check(KINDS[name], "# c\n%YAML 1.1\n---\na: 1\n")


def test_container_that_is_null_is_filled() -> None:
    for name in ("json", "yaml", "yaml list"):
        kind = KINDS[name]
        new = kind.form.put('{"mcpServers": null}' if name == "json" else f"{kind.path[0]}: null\n", kind.path, ENTRY)
        assert kind.read(new) == with_entry(kind, {}), name


ANCHORED = (
    "d: &d\n  p: openai\nmodels:\n  - name: a\n    <<: *d\n    p: x\n",
    "%YAML 1.1\n---\nd: &d {p: openai}\n#\nm: [*d, {<<: [*d], s: t}]\n",
    "a: &x # c & d\n- b\nc: *x # e\nd: &y 'q'\ne: *y\nf: &z |\n  g\nh: &h\ni: [&i j, *i, *h ]\n",
    "a: &a one\nextensions:\n  other: &o # & so on\n    cmd: *a\n  third:\n    <<: *o\n    x: y\nz: *o\n",
    "a: &a one\nmcpServers:\n- &o\n  name: other\n  cmd: *a\n- <<: *o\n  name: third\nz: *o\n",
)
BOMB = "a: &a0 [[], [], [], [], [], [], [], []]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 8)}]\n" for number in range(1, 9)
)


def test_anchors_aliases_and_merge_keys_elsewhere_stay() -> None:
    for name in ("yaml", "yaml list"):
        for text in ANCHORED:
            check(KINDS[name], text)
    # Which keys come first depends on the parser, but not whose value counts.
    text = "d: &d {a: b, c: d}\nm:\n  c: e\n  <<: [{a: x}, *d]\n"
    assert edit.YAML.read(text)["m"] == yaml_loads(text)["m"] == {"a": "x", "c": "e"}
    assert edit.YAML.read("a: {'<<': {b: c}, d: e}\n") == {"a": {"<<": {"b": "c"}, "d": "e"}}


def test_entry_with_an_anchor_or_a_merge_key_is_refused_or_changed_alone() -> None:
    path = ("extensions", "sikkerkey")
    for text in (
        "extensions:\n  sikkerkey: &x\n    cmd: a\nz: *x\n",
        "d: &d {cmd: a}\nextensions:\n  sikkerkey:\n    <<: *d\n    args: []\n",
    ):
        with pytest.raises(TextError):
            edit.YAML.put(text, (*path, "cmd"), "b")
        with pytest.raises(TextError):
            edit.YAML.drop(text, (*path, "cmd"))
    text = "d: &d {cmd: a}\nextensions:\n  sikkerkey: *d\n"
    new = edit.YAML.put(text, (*path, "cmd"), "b")
    assert yaml_loads(new) == {"d": {"cmd": "a"}, "extensions": {"sikkerkey": {"cmd": "b"}}}


# A text, and the line, column and reason of its refusal: at least one row for each reason in sikkerkey_cli.edit.
# fmt: off
REFUSED = (
    ("json", '{\n  "a": 1\n  "b": 2\n}', "3:3", 'expected a comma or }'),
    ("json", '{"a": 01}', "1:7", 'expected a value, or a comment is not closed'),
    ("json", "", "1:1", 'expected an object'),
    ("json", "[]", "1:1", 'expected an object'),
    ("json", '{"a": 1} x', "1:10", 'unexpected text after the object'),
    ("json", '{"a": "\x00"}', "1:7", 'this string is not closed on its line or contains an invalid escape'),
    ("json", '{"a": 1 /* x', "1:9", 'expected a comma or }'),
    ("json", '{"a": 1 /* x */ b}', "1:17", 'expected a comma or }'),
    ("json", '{a: 1}', "1:2", 'expected a key in double quotes or the end of the object'),
    ("json", '{"a" 1}', "1:6", 'expected :'),
    ("json", '{"a": /* x', "1:7", 'expected a value, or a comment is not closed'),
    ("json", '{"a": "\\x"}', "1:7", 'this string is not closed on its line or contains an invalid escape'),
    ("json", '{"mcpServers": []}', "1:16", 'mcpServers is not an object'),
    ("json", '{"mcpServers": {"sikkerkey": 1, "sikkerkey": 2}}', "1:33", 'this name is used twice here'),
    ("json", '{"mcpServers": {}, "mcpServers": {}}', "1:20", 'this name is used twice here'),
    ("json", '{"a":' * 200 + "1" + "}" * 200, "1:501", 'nested more than 100 levels deep'),
    ("json", '{"a":' + "[" * 200 + "]" * 200 + "}", "1:105", 'nested more than 100 levels deep'),
    ("toml", "a = 1\na = 2\n", "2:1", 'this key is already defined'),
    ("toml", "a.b = 1\na = 2\n", "2:1", 'this key is already defined'),
    ("toml", "[a]\n[a]\n", "2:1", 'this table is already defined, or the name is not a table'),
    ("toml", "a = 1\n[a.b]\n", "2:1", 'this table is already defined, or the name is not a table'),
    ("toml", "[a.b]\n[a]\nb.c = 1\n", "3:1", 'this key is already defined'),
    ("toml", "[[a]]\n[a]\n", "2:1", 'this table is already defined, or the name is not a table'),
    ("toml", "[a]\n[[a]]\n", "2:1", 'this table is already defined, or the name is not a table'),
    ("toml", "[a\n", "1:3", 'expected ]'),
    ("toml", "[[a]\n", "1:4", 'expected ]]'),
    ("toml", "a 1\n", "1:3", 'expected ='),
    ("toml", "= 1\n", "1:1", 'expected a key'),
    ("toml", "a = \n", "1:5", 'expected a value'),
    ("toml", "a = x\n", "1:5", 'expected a value'),
    ("toml", "x = {a = 1, a = 2}\n", "1:13", 'this key is already defined'),
    ("toml", "x = [1 2]\n", "1:8", 'expected a comma or ]'),
    ("toml", "x = 'a\n", "1:5", 'this string is not closed on its line or contains an invalid escape'),
    ("toml", 'x = "\\q"\n', "1:5", 'this string is not closed on its line or contains an invalid escape'),
    ("toml", 'x = "\\ud800"\n', "1:5", 'this string is not closed on its line or contains an invalid escape'),
    ("toml", 'x = "\\UFFFFFFFF"\n', "1:5", 'an escape in this string is not a valid character'),
    ("toml", "x = 1 y = 2\n", "1:6", 'expected the end of the line'),
    ("toml", 'x = """\n', "1:5", 'this string is not closed or contains an invalid escape'),
    ("toml", "x = " + "[" * 200 + "]" * 200, "1:105", 'nested more than 100 levels deep'),
    ("toml", ".".join("a" * 200) + " = 1", "1:202", 'nested more than 100 levels deep'),
    ("toml", "[[mcp_servers]]\n", "1:1", 'mcp_servers is not a table'),
    ("toml", "mcp_servers = { a = {} }\n", "1:15", 'expected a table, and not an inline one'),
    ("toml", "mcp_servers = 1\n", "1:15", 'expected a table, and not an inline one'),
    ("yaml", "a: 1\n\tb: 2\n", "2:1", 'this line is indented with a tab'),
    ("yaml", "a: *x\n", "1:4", 'this alias has no anchor above it'),
    ("yaml", "a: !t 1\n", "1:4", 'tags, and anchors on lines of their own, are not supported'),
    ("yaml", "- &x a\n", "1:1", 'expected a mapping'),
    ("yaml", "a:\n- *x\n", "2:3", 'this alias has no anchor above it'),
    ("yaml", "a:\n  &x\n  b: 1\n", "2:3", 'tags, and anchors on lines of their own, are not supported'),
    ("yaml", "&x a: 1\n", "1:1", 'expected a mapping'),
    ("yaml", "*x : 1\n", "1:1", 'expected a mapping'),
    ("yaml", "!t a: 1\n", "1:1", 'expected a mapping'),
    ("yaml", "a: 1\n*x : 1\n", "2:1", 'expected a key'),
    ("yaml", "a: [*x]\n", "1:5", 'this alias has no anchor above it'),
    ("yaml", "a: {b: *x}\n", "1:8", 'this alias has no anchor above it'),
    ("yaml", "a: {b: !t 1}\n", "1:8", 'expected a value; tags are not supported'),
    ("yaml", "a: {&x b: 1}\n", "1:5", 'expected a key, a colon and a space'),
    ("yaml", "a: {*x : 1}\n", "1:5", 'expected a key, a colon and a space'),
    ("yaml", "a: &x [*x]\n", "1:8", 'this alias has no anchor above it'),
    ("yaml", "a: &x\nb: *y\n", "2:4", 'this alias has no anchor above it'),
    ("yaml", "a: &x,y 1\n", "1:4", 'this anchor is not supported'),
    ("yaml", "a: &x 1\nb: *x: 1\n", "2:4", 'this alias is not supported'),
    ("yaml", "a: &x 1\n<<: *x\n", "2:1", 'a merge key needs mappings'),
    ("yaml", "a: &x {b: 1}\n<<: *x\n<<: *x\n", "3:1", 'this key is used twice here'),
    ("yaml", "a: {<<: {b: 1}, <<: {c: 1}}\n", "1:17", 'this key is used twice here'),
    ("yaml", BOMB, "5:10", 'the aliases stand for too many values'),
    ("yaml", "b: &a0 []\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200)),
     "100:12", 'the aliases stand for too many values'),
    ("yaml", "extensions: &x\n  a: {}\n", "1:1", 'an anchor here is not supported'),
    ("yaml", "extensions: &x\n", "1:1", 'an anchor here is not supported'),
    ("yaml", "a: &x {extensions: {}}\n<<: *x\n", "1:1", 'a merge key here is not supported'),
    ("yaml", "a: &x {b: {}}\nextensions: *x\n", "2:13", 'expected a block mapping or a block sequence'),
    ("yaml", "extensions:\n  <<: {sikkerkey: {}}\n", "2:3", 'a merge key here is not supported'),
    ("yaml list", "mcpServers: &x\n- name: a\n", "1:1", 'an anchor here is not supported'),
    ("yaml", "? a\n: b\n", "1:1", 'expected a mapping'),
    ("yaml", "a: 1\n? b\n", "2:1", 'expected a key'),
    ("yaml", "a: 1\n---\nb: 2\n", "2:1", 'files with several documents are not supported'),
    ("yaml", "a: 1\n...\n", "2:1", 'files with several documents are not supported'),
    ("yaml", "%TAG ! x\n---\na: 1\n", "1:1", 'only the directive %YAML, followed by ---, is supported'),
    ("yaml", "a: 1\na: 2\n", "2:1", 'this key is used twice here'),
    ("yaml", "a: {b: 1, b: 2}\n", "1:11", 'this key is used twice here'),
    ("yaml", "a: {b}\n", "1:5", 'expected a key, a colon and a space'),
    ("yaml", "a: b: c\n", "1:5", 'expected the end of the line'),
    ("yaml", "a: 'b' c\n", "1:7", 'expected the end of the line'),
    ("yaml", "a: @b\n", "1:4", 'expected a value'),
    ("yaml", "- a\n", "1:1", 'expected a mapping'),
    ("yaml", "---#\n", "1:1", 'expected a mapping'),
    ("yaml", 'a: "\\@"\n', "1:4", 'this string is not closed or contains an invalid escape'),
    ("yaml", 'a: "b\n', "1:4", 'this string is not closed or contains an invalid escape'),
    ("yaml", "a: [\"b]\n", "1:5", 'this string is not closed or contains an invalid escape'),
    ("yaml", "a:\n    b: 1\n  c: 2\n", "3:3", 'this line is indented more than the lines before it'),
    ("yaml", "  a: 1\nb: 2\n", "2:1", 'this line is indented less than the lines before it'),
    ("yaml", "a: 1\n  b: 2\n", "2:4", 'expected the end of the line'),
    ("yaml", "a: {}\n  b: 2\n", "2:3", 'this line is indented more than the lines before it'),
    ("yaml", "a: b # c\n  d\n", "2:3", 'a value cannot continue after a comment'),
    ("yaml", "a: | x\n", "1:5", 'expected the end of the line after | or >'),
    ("yaml", "a: |\n    b\n  c\n", "3:3", 'this line is indented less than the block scalar before it'),
    ("yaml", f"a: 1\n{'b' * 1025}: 2\n", "2:1", 'keys are limited to 1,024 characters'),
    ("yaml", '"a\\_": 2\n', "1:1", 'keys written in this way are not supported'),
    ("yaml", "a: [1, 2\n", "2:1", 'expected a comma or ]'),
    ("yaml", "a: [1 ] 2\n", "1:8", 'expected the end of the line'),
    ("yaml", "a: # x\u2028b: 1\n", "1:7", 'YAML does not allow this character, or not everywhere'),
    ("yaml", "extensions: {a: {}}\n", "1:13", 'expected a block mapping or a block sequence'),
    ("yaml", "extensions:\n- a\n", "2:1", 'expected a mapping'),
    ("yaml", "extensions: 1\n", "1:13", 'expected a block mapping or a block sequence'),
    ("yaml list", "mcpServers:\n  a: 1\n", "2:3", 'expected a list'),
    ("yaml", "".join(" " * depth + "a:\n" for depth in range(200)), "101:101", 'nested more than 100 levels deep'),
    ("yaml", "a: " + "[" * 200 + "]" * 200 + "\n", "1:103", 'nested more than 100 levels deep'),
)
# fmt: on


def test_refusal_names_line_column_and_reason() -> None:
    for name, text, where, reason in REFUSED:
        with pytest.raises(TextError) as refusal:
            KINDS[name].form.put(text, KINDS[name].path, ENTRY)
        line, column = where.split(":")
        assert str(refusal.value) == f"line {line}, column {column}: {reason}", text


def test_changes_that_need_another_layout_are_refused() -> None:
    def add_variable(text: str) -> str:
        return edit.TOML.put(text, ("mcp_servers", "sikkerkey", "env", "A"), "b")

    def drop_variables(text: str) -> str:
        return edit.YAML.drop(text, ("mcpServers", Item("sikkerkey"), "env"))

    def drop_entry(name: str) -> Callable[[str], str]:
        return lambda text: KINDS[name].form.drop(text, KINDS[name].path)

    def add_outside_tables(text: str) -> str:
        return edit.TOML.put(text, ("A",), "b")

    flow = "expected a block mapping or a block sequence"
    for change, text, where, reason in (
        (
            add_variable,
            "mcp_servers.sikkerkey.command = 'x'\n",
            "1:1",
            "entries written with dotted keys are not supported",
        ),
        (add_outside_tables, "[a]\n", "1:1", "entries written with dotted keys are not supported"),
        (drop_entry("toml"), "mcp_servers = {sikkerkey = {}}\n", "1:15", "expected a table, and not an inline one"),
        (drop_entry("yaml"), "extensions: {sikkerkey: {}}\n", "1:13", flow),
        (drop_entry("yaml list"), "mcpServers: [{name: sikkerkey}]\n", "1:13", flow),
        (
            *(drop_variables, "mcpServers:\n- env: {A: b}\n  name: sikkerkey\n", "2:3"),
            "cannot be removed: it shares its line with other values",
        ),
    ):
        with pytest.raises(TextError) as refusal:
            change(text)
        line, column = where.split(":")
        assert str(refusal.value) == f"line {line}, column {column}: {reason}", text


@pytest.mark.parametrize("name", KINDS)
def test_large_texts_can_be_edited(name: str) -> None:
    neighbour = {
        "json": lambda number: f'"k{number}": {{"h": ["x y z", {number}, true]}},\n',
        "toml": lambda number: f'[k{number}]\nh = ["x y z", {number}, true]\n',
        "yaml": lambda number: f"k{number}:\n  h: [x y z, {number}, true]\n",
    }[name.partition(" ")[0]]
    text = "".join(map(neighbour, range(10_000)))
    whole = f"{{{text}}}" if name == "json" else text
    new = KINDS[name].form.put(whole, KINDS[name].path, ENTRY)
    assert len(new) > len(whole) > 300_000


# Layouts

ONE = {"command": "x", "args": ["-I"]}
LAYOUTS = [
    (
        "json",
        "{}\n",
        '{\n  "mcpServers": {\n    "sikkerkey": {\n      "command": "x",\n      "args": [\n        "-I"\n      ]\n'
        "    }\n  }\n}\n",
    ),
    ("json", '{"mcpServers":{"a":{}}}', '{"mcpServers":{"a":{}, "sikkerkey": {"command": "x", "args": ["-I"]}}}'),
    (
        "json",
        '{\r\n\t// mine\r\n\t"mcpServers": {\r\n\t\t"a": {} // last\r\n\t}\r\n}',
        '{\r\n\t// mine\r\n\t"mcpServers": {\r\n\t\t"a": {}, // last\r\n\t\t"sikkerkey": {\r\n\t\t\t"command": "x",\r\n'
        '\t\t\t"args": [\r\n\t\t\t\t"-I"\r\n\t\t\t]\r\n\t\t}\r\n\t}\r\n}',
    ),
    (
        "json",
        '{\n    "mcpServers": {\n        "a": {},\n    },\n}',
        '{\n    "mcpServers": {\n        "a": {},\n        "sikkerkey": {\n            "command": "x",\n'
        '            "args": [\n                "-I"\n            ]\n        },\n    },\n}',
    ),
    ("toml", "", '[mcp_servers.sikkerkey]\ncommand = "x"\nargs = ["-I"]\n'),
    ("toml", "a = 1 # c", 'a = 1 # c\n\n[mcp_servers.sikkerkey]\ncommand = "x"\nargs = ["-I"]'),
    ("toml", "[mcp_servers]\r\n", '[mcp_servers]\r\n\r\n[mcp_servers.sikkerkey]\r\ncommand = "x"\r\nargs = ["-I"]\r\n'),
    ("yaml", "", 'extensions:\n  sikkerkey:\n    command: x\n    args: ["-I"]\n'),
    ("yaml", "a: 1", 'a: 1\nextensions:\n  sikkerkey:\n    command: x\n    args: ["-I"]'),
    (
        "yaml",
        "extensions:\n    dev: # c\n        t: 1 # d\n\n# tail\nz: 1\n",
        "extensions:\n    dev: # c\n        t: 1 # d\n    sikkerkey:\n      command: x\n"
        '      args: ["-I"]\n\n# tail\nz: 1\n',
    ),
    (
        "yaml",
        "extensions: {} # none\nz: 1\n",
        'extensions: # none\n  sikkerkey:\n    command: x\n    args: ["-I"]\nz: 1\n',
    ),
    (
        "yaml list",
        "mcpServers:\n- name: a\nz: 1\n",
        'mcpServers:\n- name: a\n- name: sikkerkey\n  command: x\n  args: ["-I"]\nz: 1\n',
    ),
    ("yaml list", "mcpServers: []\n", 'mcpServers:\n  - name: sikkerkey\n    command: x\n    args: ["-I"]\n'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after"), LAYOUTS)
def test_layout_follows_the_neighbours(name: str, before: str, after: str) -> None:
    kind = KINDS[name]
    assert kind.form.put(before, kind.path, ONE) == after


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, before) for name, before, _after in LAYOUTS if '"mcpServers"' in before or "mcp_servers" in before),
        ("json", '{"mcpServers": {}}'),
        ("json", '{\n  "mcpServers": {}\n}\n'),
        ("json", '{\n  "mcpServers": { // none\n  }\n}\n'),
        ("json", '{\n  "mcpServers": { // none\u00a0\n  }\n}\n'),
        ("json", '{"mcpServers": {\n"a": 1,}}'),
        ("json", '{"mcpServers": {\n"a": 1 /* 1 */ } /* 2 */ // 3\n}'),
        ("json", '{"mcpServers": {\n"a": 1 /* * // */ // 3\n}}'),
        ("json", '{"mcpServers": {\n"a": 1}}'),
        ("yaml", "extensions: {}\n"),
        ("yaml", "extensions:\n  a:\n    t: 1"),
        ("yaml list", "mcpServers: []\n"),
        ("yaml list", "mcpServers:\r\n- name: a # c\r\n"),
    ],
)
def test_removal_restores_the_bytes_if_the_container_existed(name: str, text: str) -> None:
    kind = KINDS[name]
    assert kind.form.drop(kind.form.put(text, kind.path, ONE), kind.path) == text


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("json", '{"mcpServers": {"sikkerkey": {}, "b": 1}}', '{"mcpServers": {"b": 1}}'),
        ("json", '{"mcpServers": {"b": 1, "sikkerkey": {}}}', '{"mcpServers": {"b": 1}}'),
        ("json", '{"mcpServers": {\n  // b\n  "sikkerkey": {}, "b": 1\n}}', '{"mcpServers": {\n  // b\n  "b": 1\n}}'),
        (
            "json",
            '{"mcpServers": {\n  "a": 1, // a\n  "sikkerkey": {} // us\n}}',
            '{"mcpServers": {\n  "a": 1 // a\n   // us\n}}',
        ),
        ("toml", "[mcp_servers]\nsikkerkey = { command = 'x' } # c\nb = {}\n", "[mcp_servers]\nb = {}\n"),
        ("toml", "mcp_servers.sikkerkey.command = 'x'\nmcp_servers.b = {}\n", "mcp_servers.b = {}\n"),
        (
            "toml",
            "a = 1\n\n[mcp_servers.sikkerkey]\nx = 1\n\n[mcp_servers.sikkerkey.env]\ny = 2\n\n# next\n[b]\n",
            "a = 1\n\n# next\n[b]\n",
        ),
        ("yaml", "extensions:\n  sikkerkey:\n    a: 1\n  # c\n  b: 1\n", "extensions:\n  # c\n  b: 1\n"),
        ("yaml list", "mcpServers:\n  # c\n  - name: sikkerkey\n    a: |\n      x\n\n", "mcpServers: []\n  # c\n\n"),
        ("yaml list", "mcpServers:\n  - {name: sikkerkey, a: 1}\n  - b\n", "mcpServers:\n  - b\n"),
    ],
)  # fmt: skip
def test_removal_deletes_only_our_lines(name: str, before: str, after: str) -> None:
    kind = KINDS[name]
    assert kind.form.drop(before, kind.path) == after
    assert kind.read(after) is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("toml", "[mcp_servers]\nsikkerkey = { command = 'a', n = 1.50 } # c\n"),
        ("toml", "[mcp_servers.sikkerkey]\ncommand = 'a' # c\nn = 1.50\n[mcp_servers.sikkerkey.env]\nA = 'b'\n"),
        ("toml", "mcp_servers.sikkerkey.command = 'a'\nmcp_servers.sikkerkey.n = 1.50\n"),
        ("yaml", "extensions:\n  sikkerkey: {command: a, n: 1.50} # c\n"),
        ("yaml list", "mcpServers:\n- {name: sikkerkey, command: a, n: 1.50}\n"),
        ("yaml list", "mcpServers:\n-   n: 1.50\n    command: >\n      a\n    name: sikkerkey\n"),
        ("json", '{"mcpServers": {"sikkerkey": {"command": "a", "n": 1.50}}}'),
    ],
)
def test_entry_in_another_style_is_changed_in_place(name: str, text: str) -> None:
    kind = KINDS[name]
    new = kind.form.put(text, (*kind.path, "command"), "b")
    before, after = (looked_up(kind, version, kind.path) for version in (text, new))
    assert after == {**before, "command": "b"}
    assert new.count("1.50") == text.count("1.50") == 1
