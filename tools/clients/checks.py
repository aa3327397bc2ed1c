"""Checks after a client's session: compares what the server wrote, what the model received and what the vault holds.

Each check raises `Failed` with the reason. None of them starts a process or changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema import ValidationError

from tests.support.schema_check import check_line
from tools.clients.dialects import ModelRequest, Text
from tools.clients.model import Exchange
from tools.clients.script import CALLS, DONE, MARK, MARKED_VALUE, PROJECT_NAME, REFUSED, object_in, results_of
from tools.clients.trial import Failed, Trial
from tools.clients.wire import Session

EXPECTED_ACTIONS = {"project_create", "secret_create"}


def require(condition: object, failure: str) -> None:
    """Raises Failed with this reason if the condition is false."""
    if not condition:
        raise Failed(failure)


def check_server(sessions: Sequence[Session]) -> Session:
    """The server's messages conform to the protocol and lack the value. Returns the session with the calls."""
    for session in sessions:
        methods = {
            message["id"]: message["method"] for message in session.from_client if {"id", "method"} <= set(message)
        }
        for line in session.lines:
            try:
                check_line(line, methods)
            except (ValidationError, AssertionError, KeyError) as error:
                raise Failed(f"the server's message does not conform: {str(error).splitlines()[0]}") from None
            require(MARK.encode() not in line, "the server repeated the value")
    with_calls = [session for session in sessions if session.calls]
    require(len(with_calls) == 1, f"{len(with_calls)} sessions with calls, not one")
    return with_calls[0]


def check_calls(session: Session) -> list[Any]:
    """The server received the expected calls and refused only the last one. Returns their results."""
    called = [params["name"] for params, _ in session.calls]
    require(called == [tool for tool, _ in CALLS], f"the calls that arrived are {', '.join(called)}")
    results = [result for _, result in session.calls]
    refused = [number for number, result in enumerate(results) if result.get("isError")]
    require(refused == [REFUSED], f"calls {refused} were refused, not {[REFUSED]}")
    for result in results[:REFUSED]:
        same = json.loads(result["content"][0]["text"]) == result["structuredContent"]
        require(same, "text and structuredContent of a result differ")
    return results


def check_passed_on(given: Sequence[str], results: Sequence[Any]) -> None:
    """The client passed each result to the model in full."""
    require(len(given) == len(CALLS), f"{len(given)} results were passed on, not {len(CALLS)}")
    for number, (text, result) in enumerate(zip(given, results)):
        sent = result["content"][0]["text"]
        whole = sent in text if number == REFUSED else object_in(text) == result["structuredContent"]
        require(whole, f"the model received a different result of call {number + 1} than the server sent")


def check_vault(trial: Trial, results: Sequence[Any]) -> None:
    """The vault holds the value, and its audit log names the agent."""
    project, created, listed = (result["structuredContent"] for result in results[1:REFUSED])
    require(project["name"] == PROJECT_NAME, "the project has a different name")
    require([row["id"] for row in listed["items"]] == [created["id"]], "the list does not contain the secret")
    require(trial.vault.value_of(created["id"]) == MARKED_VALUE, "the vault holds a different value")
    entries = json.loads(trial.vault.owner("audit", "--json"))
    actions = {entry["action"] for entry in entries if entry["aiAgentId"] == trial.agent}
    require(actions >= EXPECTED_ACTIONS, f"the audit log contains only {', '.join(sorted(actions))}")


def check_conversation(exchanges: Sequence[Exchange], results: Sequence[Any]) -> ModelRequest:
    """The model received every result but never the value. Returns the request with the most results."""
    require(exchanges, "the client sent the model nothing")
    answer = exchanges[-1].answer
    require(isinstance(answer, Text), "the client did not pass on the last result")
    require(answer == Text(DONE), answer[0])
    request = max((exchange.request for exchange in exchanges), key=lambda it: len(it.results))
    given = results_of(request)
    check_passed_on(given, results)
    for exchange in exchanges:
        received = json.dumps([exchange.request.tools, exchange.request.results, exchange.request.instructions])
        require(MARK not in received, "the model received the value outside of its own call")
    return request


def count_offered_tools(request: ModelRequest, shown: str, names: Sequence[str]) -> int:
    """How many of the tools the client offers to the model, by declaration or by name only."""
    return sum(shown.format(name) in request.tools or shown.format(name) in request.instructions for name in names)


def shown_instructions(request: ModelRequest, instructions: str) -> str:
    """How much of the server's instructions the model received: "whole", "cut" or "not shown"."""
    lines = instructions.splitlines()
    seen = sum(line in request.instructions for line in lines)
    return "whole" if seen == len(lines) else "cut" if seen else "not shown"
