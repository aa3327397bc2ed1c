"""Bodies and forms: the limits of every kind of field, at their edges."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vault.errors import Refusal
from vault.inputs import (
    BOOLEAN,
    MAX_ITEMS,
    OBJECT,
    TIME_MS,
    Field,
    integer,
    nests_too_deeply,
    parse_object,
    read_body,
    read_form,
    require_any,
    text,
    text_list,
)

FORM = "application/x-www-form-urlencoded"


def refusal(function: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        function(*arguments)
    return caught.value.status, str(caught.value)


def test_each_kind_of_field_accepts_its_limits_and_refuses_what_is_beyond() -> None:
    table: list[tuple[Field, str, list[Any], list[Any]]] = [
        (text(), "a string of 0 to 10000 characters", ["", "x" * 10_000], ["x" * 10_001]),
        (text(1, 3), "a string of 1 to 3 characters", ["a", "øøø"], ["", "aaaa", 1, None, ["a"]]),
        (text(max_bytes=4), "a string of at most 4 bytes in UTF-8", ["", "øø"], ["øøa", 1]),
        (text(choices=("a", "b")), "one of a, b", ["a", "b"], ["", "c", "ab", 1]),
        (integer(2, 4), "an integer from 2 to 4", [2, 4], [1, 5, 2.0, "2", True, None]),
        (TIME_MS, "an integer from 0 to 9007199254740991", [0, 2**53 - 1], [-1, 2**53]),
        (BOOLEAN, "true or false", [True, False], [0, 1, "true", None]),
        (text_list(1, 2), "a list of 1 to 2 strings", [["a"], ["a", "b"]], [[], ["a"] * 3, "a", [1], {"a": 1}]),
        (text_list(choices=("a",)), "a list of 0 to 1000 strings out of a", [[], ["a", "a"]], [["b"], ["a", "b"]]),
        (OBJECT, "an object", [{}, {"a": 1}, dict.fromkeys(map(str, range(MAX_ITEMS)), 1)], [[], "{}", None]),
        (OBJECT, "an object", [], [dict.fromkeys(map(str, range(MAX_ITEMS + 1)), 1)]),
    ]
    for field, rule, accepted, refused in table:
        for value in accepted:
            body = json.dumps({"key": value}).encode()
            assert read_body(body, "application/json", {"key": field}) == {"key": value}, (rule, value)
        for value in refused:
            body = json.dumps({"key": value}).encode()
            found = refusal(read_body, body, "application/json", {"key": field})
            assert found == (400, f"key must be {rule}"), (rule, value)


def test_a_number_of_more_than_20_digits_is_not_parsed() -> None:
    fields = {"key": integer(0, 10**30)}
    assert read_body(b'{"key": ' + b"9" * 20 + b"}", "application/json", fields) == {"key": 10**20 - 1}
    refused = refusal(read_body, b'{"key": ' + b"9" * 21 + b"}", "application/json", fields)
    assert refused == (400, "the body is not a JSON object in UTF-8")


def test_an_unknown_key_is_named_if_it_is_a_plain_name() -> None:
    for key, named in [("a" * 40, " " + "a" * 40), ("a" * 41, ""), ("a_B9", " a_B9"), ("9", ""), ("", ""), ("ø", "")]:
        found = refusal(read_body, json.dumps({key: 1}).encode(), "application/json", {"name": text()})
        assert found == (400, f"unknown key{named}: this route takes name"), key


def test_required_keys_are_named_and_an_empty_body_is_an_empty_object() -> None:
    assert read_body(b"", None, {"name": text()}) == {}
    assert refusal(read_body, b"", None, {"name": text().required()}) == (400, "name is required")
    assert refusal(require_any, {}, {"b": text(), "a": text()}) == (400, "nothing to change: give at least one of a, b")
    require_any({"a": "x"}, {"a": text()})


def test_a_form_has_its_content_type_and_its_limits() -> None:
    fields = {"word": text(0, 5_000)}
    form = b"word=" + b"x" * 4_091
    for content_type in (FORM, FORM.upper(), f"{FORM}; charset=utf-8", f" {FORM} ;"):
        assert read_form(form, content_type, fields) == {"word": "x" * 4_091}, content_type
    assert read_form(b"word=", FORM, fields) == {"word": ""}
    for other in (None, "", "application/json", "text/plain"):
        assert refusal(read_form, form, other, fields) == (400, f"a form needs content-type {FORM}"), other
    assert refusal(read_form, form + b"x", FORM, fields) == (413, "a form has at most 4096 bytes")
    for broken in (b"word=a&word=b", b"word=%ff", b"word=\xff", b"word=a&more=b"):
        assert refusal(read_form, broken, FORM, fields) == (400, "the form cannot be read"), broken
    assert refusal(read_body, b"{}", FORM, fields) == (400, "a body needs content-type application/json")


def test_json_is_refused_by_its_depth_before_it_is_parsed() -> None:
    """A parser that goes deeper ends the process where threads have small stacks."""
    pieces = (("[", "]", 1_000), ('{"a":', "}", 1_000), ('[{"\\"]}":', "}]", 500), ("[[],{},", "]", 999))
    for begin, end, deepest in pieces:
        for count, refused in ((deepest, False), (deepest + 1, True), (200_000, True)):
            assert nests_too_deeply(begin * count + "1" + end * count) == refused, (begin, count)
    for flat in ("[]" * 5_000, '"' + "[" * 5_000 + '"', '"' + "\\[" * 5_000, '["' + '\\"{' * 5_000 + '"]'):
        assert not nests_too_deeply(flat), flat[:9]
    assert parse_object('{"a": ' + "[" * 200 + "]" * 200 + "}")
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parse_object('{"a": ' + "[" * 1_000 + "]" * 1_000 + "}")
