"""Parses and validates request bodies.

Every route declares the keys that it accepts. An invalid body is a 400. Its message names the key and the rule, never
the value, because the value may be a secret sent under the wrong key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from vault.errors import Refusal

Kind = Literal["text", "integer", "boolean", "text_list", "object"]

MAX_TEXT = 10_000  # characters, where the contract sets no limit, as for notes and searches
MAX_ITEMS = 1_000
MAX_FORM_BYTES = 4_096  # room for a percent-encoded passphrase
MAX_LEVELS = 1_000  # of JSON: a parser needs a level of the thread's stack for each, which ends the process at its end
MAX_DIGITS = 20  # longer integers fit no column, and parsing them takes quadratic time
STRING_OR_NO_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^"\[\]{}]+', re.DOTALL)
STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
SAFE_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


class Field(NamedTuple):
    """One key of a body: its type and its limits. `low` and `high` limit characters, numbers or list items."""

    kind: Kind
    low: int = 0
    high: int = MAX_TEXT
    choices: tuple[str, ...] = ()
    max_bytes: int | None = None
    is_required: bool = False

    def required(self) -> Field:
        """The same field, required."""
        return self._replace(is_required=True)


Fields = Mapping[str, Field]
NO_FIELDS: Fields = {}


def text(low: int = 0, high: int = MAX_TEXT, *, choices: tuple[str, ...] = (), max_bytes: int | None = None) -> Field:
    """A string."""
    return Field("text", low, high, choices, max_bytes)


def integer(low: int, high: int) -> Field:
    """An integer."""
    return Field("integer", low, high)


def text_list(low: int = 0, high: int = MAX_ITEMS, *, choices: tuple[str, ...] = ()) -> Field:
    """A list of strings."""
    return Field("text_list", low, high, choices)


BOOLEAN = Field("boolean")
OBJECT = Field("object")
TIME_MS = integer(0, 2**53 - 1)
PAGE = integer(1, 1_000_000)


def read_body(body: bytes, content_type: str | None, fields: Fields) -> Mapping[str, Any]:
    """The validated keys of a JSON body. An empty body is an empty object. Raises Refusal."""
    return checked(_parse_body(body, content_type) if body else {}, fields)


def read_form(body: bytes, content_type: str | None, fields: Fields) -> Mapping[str, Any]:
    """The validated fields of a form that a browser posted. All values are strings. Raises Refusal."""
    if _media_type(content_type) != "application/x-www-form-urlencoded":
        raise Refusal(400, "a form needs content-type application/x-www-form-urlencoded")
    if len(body) > MAX_FORM_BYTES:
        raise Refusal(413, f"a form has at most {MAX_FORM_BYTES} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=len(fields))
        return checked(_unique_keys(pairs), fields)
    except ValueError:  # invalid UTF-8, too many fields, or repeated fields
        raise Refusal(400, "the form cannot be read") from None


def checked(given: Mapping[str, Any], fields: Fields) -> Mapping[str, Any]:
    """The keys of a body, if they are the ones that a route takes. Raises Refusal."""
    for key in given:
        if key not in fields:
            raise Refusal(400, _unknown(key, fields))
    for key, field in fields.items():
        if key in given:
            _check(key, field, given[key])
        elif field.is_required:
            raise Refusal(400, f"{key} is required")
    return given


def parse_object(source: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for repeated keys, deep nesting, NaN, overlong numbers and invalid Unicode."""
    if nests_too_deeply(source):
        raise ValueError("nested too deeply")
    try:
        value = json.loads(source, object_pairs_hook=_unique_keys, parse_int=_integer, parse_constant=_reject_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def nests_too_deeply(source: str) -> bool:
    """Whether JSON has more than MAX_LEVELS levels; for other text, whether a parser could get that deep."""
    if source.count("[") + source.count("{") <= MAX_LEVELS:  # nearly every text
        return False
    brackets = STRING_OR_NO_BRACKET.sub("", source)
    return max(accumulate(STEPS[bracket] for bracket in brackets), default=0) > MAX_LEVELS


def require_any(given: Mapping[str, Any], fields: Fields) -> None:
    """Raise Refusal if an update changes nothing."""
    if not given:
        raise Refusal(400, f"nothing to change: give at least one of {', '.join(sorted(fields))}")


def _parse_body(body: bytes, content_type: str | None) -> dict[str, Any]:
    if _media_type(content_type) != "application/json":
        raise Refusal(400, "a body needs content-type application/json")
    try:
        return parse_object(body.decode())
    except ValueError:  # invalid UTF-8 or JSON; the original message quotes the input
        raise Refusal(400, "the body is not a JSON object in UTF-8") from None


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _unknown(key: str, fields: Fields) -> str:
    name = f"unknown key {key}" if SAFE_KEY.fullmatch(key) else "unknown key"
    return f"{name}: this route takes {', '.join(fields) or 'no keys'}"


def _check(key: str, field: Field, value: object) -> None:
    if not _CHECKS[field.kind](field, value):
        raise Refusal(400, f"{key} must be {_rule(field)}")


def _is_text(field: Field, value: object) -> bool:
    if not isinstance(value, str) or (field.choices and value not in field.choices):
        return False
    if field.max_bytes is not None:
        return len(value.encode()) <= field.max_bytes
    return field.low <= len(value) <= field.high


def _is_integer(field: Field, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and field.low <= value <= field.high


def _is_boolean(_field: Field, value: object) -> bool:
    return isinstance(value, bool)


def _is_text_list(field: Field, value: object) -> bool:
    if not isinstance(value, list) or not field.low <= len(value) <= field.high:
        return False
    return all(isinstance(item, str) and (not field.choices or item in field.choices) for item in value)


def _is_object(_field: Field, value: object) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_ITEMS


_CHECKS = {
    "text": _is_text,
    "integer": _is_integer,
    "boolean": _is_boolean,
    "text_list": _is_text_list,
    "object": _is_object,
}


def _rule(field: Field) -> str:
    if field.kind == "integer":
        return f"an integer from {field.low} to {field.high}"
    if field.kind == "boolean":
        return "true or false"
    if field.kind == "object":
        return "an object"
    if field.kind == "text_list":
        items = f"strings out of {', '.join(field.choices)}" if field.choices else "strings"
        return f"a list of {field.low} to {field.high} {items}"
    if field.choices:
        return f"one of {', '.join(field.choices)}"
    if field.max_bytes is not None:
        return f"a string of at most {field.max_bytes} bytes in UTF-8"
    return f"a string of {field.low} to {field.high} characters"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated key")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _reject_constant(_name: str) -> None:
    raise ValueError("not JSON")
