"""What must hold after a client's session: the server's side, the model's side and the vault are held together.

Each check raises `Failed` with what is wrong; nothing here starts or changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema import ValidationError

from tests.support.schema_check import check_line
from tools.clients.dialects import Asked, Say
from tools.clients.model import Exchange
from tools.clients.script import CALLS, DONE, MARK, MARKED_VALUE, PROJECT_NAME, REFUSED, object_in, results_of
from tools.clients.trial import Failed, Trial
from tools.clients.wire import Session

WANTED_ACTS = {"project_create", "secret_create"}


def require(condition: object, failure: str) -> None:
    """Raises Failed where the condition does not hold."""
    if not condition:
        raise Failed(failure)


def check_server(sessions: Sequence[Session]) -> Session:
    """What the server wrote conforms to the protocol and holds no value; the session with the calls in it."""
    for session in sessions:
        asked = {message["id"]: message["method"] for message in session.asked if {"id", "method"} <= set(message)}
        for line in session.lines:
            try:
                check_line(line, asked)
            except (ValidationError, AssertionError, KeyError) as error:
                raise Failed(f"the server's message does not conform: {str(error).splitlines()[0]}") from None
            require(MARK.encode() not in line, "the server repeated the value")
    with_calls = [session for session in sessions if session.calls]
    require(len(with_calls) == 1, f"{len(with_calls)} sessions with calls, not one")
    return with_calls[0]


def check_calls(session: Session) -> list[Any]:
    """The calls arrived and were answered as they should be; their results."""
    called = [params["name"] for params, _ in session.calls]
    require(called == [tool for tool, _ in CALLS], f"the calls that arrived are {', '.join(called)}")
    results = [result for _, result in session.calls]
    refused = [number for number, result in enumerate(results) if result.get("isError")]
    require(refused == [REFUSED], f"calls {refused} were refused, not {[REFUSED]}")
    for result in results[:REFUSED]:
        same = json.loads(result["content"][0]["text"]) == result["structuredContent"]
        require(same, "text and structuredContent of a result differ")
    return results


def check_handed_on(given: Sequence[str], results: Sequence[Any]) -> None:
    """The model, or the program over the SDK, was given each result whole."""
    require(len(given) == len(CALLS), f"{len(given)} results were handed on, not {len(CALLS)}")
    for number, (text, result) in enumerate(zip(given, results)):
        told = result["content"][0]["text"]
        whole = told in text if number == REFUSED else object_in(text) == result["structuredContent"]
        require(whole, f"the model was given another result of call {number + 1} than the server's")


def check_vault(trial: Trial, results: Sequence[Any]) -> None:
    """The vault holds the value and says who acted."""
    project, created, listed = (result["structuredContent"] for result in results[1:REFUSED])
    require(project["name"] == PROJECT_NAME, "the project has another name")
    require([row["id"] for row in listed["items"]] == [created["id"]], "the list does not hold the secret")
    require(trial.vault.value_of(created["id"]) == MARKED_VALUE, "the vault holds another value")
    entries = json.loads(trial.vault.owner("audit", "--json"))
    acts = {entry["action"] for entry in entries if entry["aiAgentId"] == trial.agent}
    require(acts >= WANTED_ACTS, f"the audit log holds only {', '.join(sorted(acts))}")


def check_conversation(exchanges: Sequence[Exchange], results: Sequence[Any]) -> Asked:
    """The model was offered the tools, was given every result, and never the value; what it was told last."""
    require(exchanges, "the client sent the model nothing")
    said = exchanges[-1].answer
    require(isinstance(said, Say), "the client did not hand on the last result")
    require(said == Say(DONE), said[0])
    asked = max((exchange.asked for exchange in exchanges), key=lambda it: len(it.results))
    given = results_of(asked)
    check_handed_on(given, results)
    for exchange in exchanges:
        told = json.dumps([exchange.asked.tools, exchange.asked.results, exchange.asked.instructions])
        require(MARK not in told, "the model was given the value by another way than its own call")
    return asked


def offered(asked: Asked, shown: str, names: Sequence[str]) -> int:
    """How many of the tools the model knows of, by a declaration or by name only."""
    return sum(shown.format(name) in asked.tools or shown.format(name) in asked.instructions for name in names)


def shown_instructions(asked: Asked, instructions: str) -> str:
    """How much of the server's instructions the model saw."""
    lines = instructions.splitlines()
    seen = sum(line in asked.instructions for line in lines)
    return "whole" if seen == len(lines) else "cut" if seen else "not shown"
