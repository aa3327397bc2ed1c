"""Editing settings files, held against the usual libraries that keep comments: tomlkit and ruamel.yaml.

For generated files, what a library makes of a change reads like what we make of it. The bytes may differ: ruamel.yaml
writes the whole text again.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sikkerkey_cli.edit import Item, TextError
from tests.support.config_parsers import toml
from tests.test_edit import (
    ANCHORED,
    AT_RANDOM,
    ENTRY,
    KEYS,
    KINDS,
    SEEDS,
    SERVERS,
    TOML_TEXTS,
    VALUES,
    Kind,
    Plain,
    damaged,
    same,
    with_servers,
)  # fmt: skip

FEW = settings(AT_RANDOM, max_examples=25)  # the libraries are slow


def add(kind: Kind, document: Any) -> None:
    """Adds the entry to a library's document; a container that is missing or null is created."""
    container, key = kind.path
    if document.get(container) is None:
        document[container] = [] if isinstance(key, Item) else {}
    if isinstance(key, Item):
        document[container].append({"name": str(key), **ENTRY})
    else:
        document[container][key] = ENTRY


class Library(NamedTuple):
    """How a library reads a text, and adds the entry to it. Both raise ValueError for what it does not support."""

    read: Callable[[str], Any]
    added: Callable[[str], str]


def tomlkit() -> Library:
    """tomlkit. Its result is read by an independent parser."""
    module = pytest.importorskip("tomlkit")

    def added(text: str) -> str:
        document = module.parse(text)
        add(KINDS["toml"], document)
        return str(module.dumps(document))

    return Library(toml.loads, added)


def ruamel(kind: Kind) -> Library:
    """ruamel.yaml. It reads its own result, because it writes YAML 1.2, in which a plain Yes is text."""
    module = pytest.importorskip("ruamel.yaml")

    def read(text: str) -> Any:
        try:
            return module.YAML(typ="safe", pure=True).load(text)
        except module.error.YAMLError as error:
            raise ValueError from error

    def added(text: str) -> str:
        editor, out = module.YAML(pure=True), io.StringIO()
        try:
            document = editor.load(text)
            document = {} if document is None else document
            add(kind, document)
            editor.dump(document, out)
        except module.error.YAMLError as error:
            raise ValueError from error
        return out.getvalue()

    return Library(read, added)


def compare(kind: Kind, library: Library, text: str) -> None:
    """Both add the entry, or one of us refuses the text; both results read the same."""
    try:
        ours = kind.form.put(text, kind.path, ENTRY)
    except TextError:
        return
    try:
        theirs = library.read(library.added(text))
    except (ValueError, TypeError, AttributeError):
        return
    assert same(library.read(ours), theirs), text


@FEW
@given(TOML_TEXTS)
def test_toml_is_changed_as_by_tomlkit(text: str) -> None:
    compare(KINDS["toml"], tomlkit(), text)


@FEW
@given(
    st.dictionaries(KEYS, VALUES, max_size=3),
    st.none() | SERVERS,
    st.sampled_from(["yaml", "yaml list"]),
    st.sampled_from([2, 4]),
)
def test_yaml_is_changed_as_by_ruamel(
    document: dict[str, Any], servers: dict[str, Any] | None, name: str, indent: int
) -> None:
    kind = KINDS[name]
    document = with_servers(kind, document, servers)
    compare(kind, ruamel(kind), yaml.dump(document, Dumper=Plain, sort_keys=False, indent=indent))


def test_yaml_with_anchors_is_changed_as_by_ruamel() -> None:
    for name in ("yaml", "yaml list"):
        for text in ANCHORED:
            compare(KINDS[name], ruamel(KINDS[name]), text)


@FEW
@given(st.sampled_from(["toml", "yaml", "yaml list"]), st.randoms(use_true_random=False))
def test_damaged_text_is_changed_as_by_the_libraries(name: str, chance: random.Random) -> None:
    kind = KINDS[name]
    compare(kind, tomlkit() if name == "toml" else ruamel(kind), damaged(SEEDS[name], chance) + "\n")
