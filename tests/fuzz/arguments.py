"""Argument objects for every row.

The result must match the protocol's schema. Refused arguments are neither sent nor shown. A request has the method of
its row, a path with valid ids, and only arguments that the published schema of the tool accepts, once what is lenient
(null, JSON in strings) has been resolved. Unchanged examples are accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

from jsonschema import Draft202012Validator

import sikkerkey_actions
import sikkerkey_mcp
from tests.fuzz.mutation import odd
from tests.support.schema_check import conforms
from tests.support.table_calls import MARK, ROWS, Row, StubApi, reply, strings_in

ID = "[A-Za-z0-9_-]{1,128}"
NOW_MS = 1_767_225_600_000


@cache
def _published(tool: str) -> Draft202012Validator:
    return Draft202012Validator(sikkerkey_actions.tool_schema(next(row.tool for row in ROWS if row.tool.name == tool)))


def _path(row: Row) -> str:
    """The pattern of the row's path."""
    return re.sub(r"\\\{\w+\\\}", ID, re.escape(row.action.path))


def _marked(rng: Random, value: Any) -> Any:
    """`value` with MARK in some of its strings."""
    if isinstance(value, dict):
        return {key: _marked(rng, member) if key != "action" else member for key, member in value.items()}
    return MARK + value if isinstance(value, str) and rng.random() < 0.3 else value


def check_sent(row: Row, arguments: dict[str, Any], request: sikkerkey_mcp.Request) -> None:
    """Checks a request against its row."""
    assert request.method == row.action.method
    assert re.fullmatch(_path(row), request.path)
    checked = sikkerkey_mcp.check_arguments(row.tool, row.action, arguments, NOW_MS)
    offered_as_strings = {arg.name for arg in row.action.args if arg.kind in ("time", "object")}
    plain = {name: value for name, value in checked.items() if name not in offered_as_strings}
    named = {"action": row.action.name} if sikkerkey_mcp.has_actions(row.tool) else {}
    _published(row.tool.name).validate({**named, **plain})
    if request.body is not None:
        body = json.loads(request.body)
        assert isinstance(body, dict)
        assert all(not 0xD800 <= ord(c) <= 0xDFFF for text in strings_in(body) for c in text)


def check_refused(result: dict[str, Any], api: StubApi) -> None:
    """Checks that a refused call sent nothing and shows no value."""
    assert result.get("isError") is True
    assert api.sent == []
    assert MARK not in json.dumps(result)


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Calls the tools without a process or a network."""

    def case(rng: Random) -> None:
        row = rng.choice(ROWS)
        example = rng.choice(list(row.examples.values()))
        given = sikkerkey_mcp.parse_json(json.dumps(_marked(rng, odd(rng, example))).encode())
        api = StubApi(reply())
        if not isinstance(given, dict):
            return
        result = sikkerkey_mcp.VaultTools(lambda: api).call(row.tool.name, given, sikkerkey_mcp.Context())
        conforms(result, "CallToolResult")
        if not api.sent:
            check_refused(result, api)
            assert json.dumps(given) != json.dumps(example), "an example was refused"
            return
        action = sikkerkey_mcp.find_action(row.tool, given)
        if not action.own:
            *reads, request = api.sent  # a list of the vault, or what the row looks at
            assert action.look or len(reads) <= 1
            assert {read.method for read in reads} <= {"GET"}
            check_sent(Row(row.tool, action), given, request)

    yield case
