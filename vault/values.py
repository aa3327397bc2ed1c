"""What a secret's value may be, and how the vault makes one. Pure: no SQL, no keys, no clock."""

from __future__ import annotations

import json
import secrets
import string
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vault.errors import Refusal
from vault.inputs import integer, parse_object, text, texts

MAX_VALUE_BYTES = 12_288
MAX_FIELDS = 50
SYMBOLS = string.ascii_letters + string.digits + "!#$%&()*+,-./:;<=>?@[]^_{|}~"  # no quotes, backslash or space
ALPHABETS = {"symbols": SYMBOLS, "alphanumeric": string.ascii_letters + string.digits, "numbers": string.digits}

VALUE = text(max_bytes=MAX_VALUE_BYTES)
LENGTH = integer(1, 1024)
CHARSET = text(choices=(*ALPHABETS, "uuid"))
FIELD_NAMES = texts(1, MAX_FIELDS)


class Recipe(NamedTuple):
    """How a generated value looks; a uuid has a length of its own. No fields means the whole value."""

    length: int = 32
    charset: str = "symbols"
    fields: tuple[str, ...] | None = None

    def changed(self, given: Mapping[str, Any]) -> Recipe:
        """The recipe with what a body says about it."""
        fields = tuple(given["fields"]) if "fields" in given else self.fields
        return Recipe(given.get("length", self.length), given.get("charset", self.charset), fields)


def generate(recipe: Recipe) -> str:
    """One random string."""
    if recipe.charset == "uuid":
        return str(uuid.uuid4())
    return "".join(secrets.choice(ALPHABETS[recipe.charset]) for _ in range(recipe.length))


def fresh(recipe: Recipe, field_names: Sequence[str] | None, kept: Mapping[str, Any]) -> str:
    """A new value: a string, or for a structured secret an object in which only the recipe's fields are new."""
    if field_names is None:
        return generate(recipe)
    chosen = set(recipe.fields or field_names)
    made = {name: generate(recipe) if name in chosen else kept[name] for name in field_names}
    value = json.dumps(made, ensure_ascii=False)
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise Refusal(400, f"the new value would be larger than {MAX_VALUE_BYTES} bytes")
    return value


def check_structure(value: str, field_names: Sequence[str] | None) -> None:
    """A structured value is a JSON object with exactly the declared keys."""
    if field_names is None:
        return
    try:
        keys = parse_object(value).keys()
    except ValueError:  # its message quotes the value
        keys = None
    if keys != set(field_names):
        raise Refusal(400, "value must be a JSON object, as a string, with exactly the keys of fieldNames")


def check_names(names: Iterable[str], key: str) -> None:
    """Field names are distinct and have 1 to 100 characters."""
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise Refusal(400, f"{key} must not repeat a name")
    if not all(1 <= len(name) <= 100 for name in listed):
        raise Refusal(400, f"{key} must hold names of 1 to 100 characters")


def check_fields(fields: Sequence[str] | None, field_names: Sequence[str] | None) -> None:
    """The fields to rotate are fields of the secret."""
    if fields is None:
        return
    if field_names is None:
        raise Refusal(400, "fields goes only with a structured secret")
    check_names(fields, "fields")
    if not set(fields) <= set(field_names):
        raise Refusal(400, "fields must be field names of the secret")
