"""Loops over the rows of the action table, and tool calls without a process or a network."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest

import sikkerkey_actions
import sikkerkey_mcp
from tools.examples import examples

MARK = "m4rked-Value-9f8e7d"  # in no message, name or path of the program


class Row(NamedTuple):
    """One action with its tool and its examples."""

    tool: sikkerkey_mcp.Tool
    action: sikkerkey_mcp.Action

    def __str__(self) -> str:
        return f"{self.tool.name}.{self.action.name}"

    @property
    def examples(self) -> dict[str, dict[str, Any]]:
        """Arguments that the row accepts, `action` included."""
        return examples(self.tool, self.action)

    @property
    def minimal(self) -> dict[str, Any]:
        """The smallest example."""
        return self.examples["minimal"]

    def base_for(self, name: str) -> dict[str, Any]:
        """An example that includes the argument `name`."""
        return next(given for given in self.examples.values() if name in given)


ROWS = [Row(tool, action) for tool in sikkerkey_mcp.TOOLS for action in tool.actions]
ROUTED = [row for row in ROWS if not row.action.own]  # each call of these is one request of the row's method and path
BY_NAME = {str(row): row for row in ROWS}
Value = TypeVar("Value")


def for_each(values: Iterable[Value]) -> Callable[[Callable[[Value], None]], Callable[[], None]]:
    """Runs the decorated test once for each of `values`, as one test; a failure names the value."""
    rows = list(values)
    assert rows

    def decorate(test: Callable[[Value], None]) -> Callable[[], None]:
        @functools.wraps(test)
        def run_all() -> None:
            for value in rows:
                try:
                    test(value)
                except (Exception, pytest.fail.Exception) as error:
                    raise AssertionError(f"{test.__name__} failed for {value}") from error

        del run_all.__wrapped__  # pytest would read its parameter as a fixture
        return run_all

    return decorate


each_row = for_each(ROWS)
each_routed_row = for_each(ROUTED)


class RowArg(NamedTuple):
    """One argument of one row."""

    row: Row
    arg: sikkerkey_mcp.Arg

    def __str__(self) -> str:
        return f"{self.row} {self.arg.name}"


def each_argument(
    *kinds: sikkerkey_actions.Kind, where: Callable[[sikkerkey_mcp.Arg], bool] = lambda _arg: True
) -> Callable[[Callable[[Row, sikkerkey_mcp.Arg], None]], Callable[[], None]]:
    """Like `each_routed_row`, for every argument of these kinds (of all kinds, if none is given) in every row."""
    pairs = [RowArg(row, arg) for row in ROUTED for arg in row.action.args if (not kinds or arg.kind in kinds)]
    loop = for_each([pair for pair in pairs if where(pair.arg)])

    def decorate(test: Callable[[Row, sikkerkey_mcp.Arg], None]) -> Callable[[], None]:
        @functools.wraps(test)
        def run_one(pair: RowArg) -> None:
            test(pair.row, pair.arg)

        return loop(run_one)

    return decorate


def reply(
    status: int = 200, body: bytes = b"{}", content_type: str = "application/json", **headers: str
) -> sikkerkey_mcp.Answer:
    """An answer of the vault; underscores in header names become hyphens."""
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return sikkerkey_mcp.Answer(status, {"content-type": content_type, **named}, body)


class Logged(sikkerkey_mcp.Context):
    """A context that records progress and log messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def progress(self, message: str) -> None:
        """Records the message."""
        self.lines.append(message)

    def log(self, level: str, message: str) -> None:
        """Records the message."""
        self.lines.append(message)


class StubApi(sikkerkey_mcp.Api):
    """A vault without a network: records every request and always gives the same answer.

    The reads of a row that looks first are recorded in `looked` and find nothing.
    """

    def __init__(self, answer: sikkerkey_mcp.Answer, *, looks: bool = False) -> None:
        # Not super().__init__(): loading certificates for each stub would take longer than the test.
        self.base_url = "https://vault.example"
        self.answer, self.looks = answer, looks
        self.sent: list[sikkerkey_mcp.Request] = []
        self.looked: list[sikkerkey_mcp.Request] = []

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        """Records `request` and returns the answer."""
        if self.looks and request.method == "GET":
            self.looked.append(request)
            return reply(200, b"{}")
        self.sent.append(request)
        return self.answer


def tools_of(row: Row, api: StubApi) -> sikkerkey_mcp.VaultTools:
    """The row's tool alone, because setting up all tools takes longer than a call."""
    return sikkerkey_mcp.VaultTools(lambda: api, tools=[row.tool])


def call(row: Row, arguments: Any, answer: sikkerkey_mcp.Answer | None = None) -> Any:
    """The result of one call that the vault answers with `answer`."""
    api = StubApi(answer or reply(), looks=row.action.look is not None)
    return tools_of(row, api).call(row.tool.name, arguments, sikkerkey_mcp.Context())


def sent(row: Row, arguments: Any) -> sikkerkey_mcp.Request:
    """The one request that a call with `arguments` sends, after what it looks up and looks at."""
    api = StubApi(reply(), looks=row.action.look is not None)
    result = tools_of(row, api).call(row.tool.name, arguments, sikkerkey_mcp.Context())
    assert "isError" not in result, result
    *looked_up, request = api.sent
    assert len(looked_up) <= 1
    assert all(each.method == "GET" for each in looked_up)
    return request


def sent_body(row: Row, arguments: Any) -> Any:
    """The decoded body of that request, or None without a body."""
    body = sent(row, arguments).body
    return None if body is None else json.loads(body)


def refusal(row: Row, arguments: Any) -> str:
    """The message of a refused call. Asserts that nothing was sent or logged and that the result shows no MARK."""
    api, context = StubApi(reply()), Logged()
    result = tools_of(row, api).call(row.tool.name, arguments, context)
    assert api.sent == []
    assert context.lines == []
    assert set(result) == {"content", "isError"}, "accepted"
    assert MARK not in json.dumps(result)
    [content] = result["content"]
    text: str = content["text"]
    return text


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a decoded JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from strings_in(member)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
