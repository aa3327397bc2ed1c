"""A person in a terminal completes the calls of a real server: the command that the model was given, typed as it is."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import AGENT_ID, SOURCE_COMMAND, CannedResponse, ReceivedRequest, Recorder, Server, make_slot
from tests.support.leak_search import MARK, SideEffects, assert_unmarked, effects  # noqa: F401 (a fixture)
from tests.support.shell import Terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="this system has no pseudo-terminals")

TOKEN = "w7qTOKENzk" * 4
FOUND: dict[str, Any] = {
    "/v1/ai/whoami": {"agentId": AGENT_ID, "scopes": ["projects.secrets.write", "trash.write", "enrollment.write"]},
    "/v1/ai/projects": [{"id": "proj_1", "name": "Webshop"}],
    "/v1/ai/projects/proj_1/secrets": [],
    "/v1/ai/trash": [{"id": "sk_1", "name": "API_KEY"}],
}
CREATE = {"action": "create", "projectId": "proj_1", "name": "DB_PASSWORD", "fromPerson": True}
PURGE = {"action": "purge", "secretId": "sk_1"}
ENROLL = {
    **{"action": "create", "name": "runner", "projectIds": [], "secretIds": [], "tokenLifetimeSeconds": 60},
    **{"machineLifetimeSeconds": 60, "maxUses": 1, "toPerson": True},
}


def answer(seen: ReceivedRequest) -> CannedResponse:
    """A vault in which every write succeeds and repeats what it was sent."""
    if seen.method == "GET":
        return CannedResponse(body=json.dumps(FOUND.get(seen.path, {})).encode())
    return CannedResponse(
        body=json.dumps({"id": "new_1", "version": 3, "token": TOKEN, "echo": seen.body.decode()}).encode()
    )


@pytest.fixture
def served(home: Path, recorder: Recorder, effects: SideEffects) -> Iterator[Server]:  # noqa: F811
    """A server whose client cannot ask, on a computer without a display."""
    make_slot(home, recorder.url)
    recorder.answer = effects.watching(answer)
    env = {**os.environ, "SIKKERKEY_BROWSER": "never", "SIKKERKEY_CONFIRM": "irreversible"}
    with Server(SOURCE_COMMAND, env) as server:
        server.initialize()
        yield server


def writes(recorder: Recorder) -> list[Any]:
    """The path and body of each request that changes something."""
    return [(seen.method, seen.path, seen.body) for seen in recorder.seen if seen.method != "GET"]


def code_and_command(result: Any) -> tuple[str, list[str]]:
    """What the model is given for its user."""
    waiting = result["structuredContent"]
    return waiting["code"], shlex.split(waiting["command"])


def test_typed_value_is_in_the_request_and_nowhere_else(
    served: Server,
    recorder: Recorder,
    effects: SideEffects,  # noqa: F811
) -> None:
    code, command = code_and_command(served.call("manage_secrets", **CREATE))
    assert writes(recorder) == []
    person = Terminal(command, {"SIKKERKEY_AGENT_ID": "1f8fad5b-d9cb-469f-a165-70867728950f"})
    person.type("value: ", MARK + "\n")
    person.type("press Enter", "\n")
    talk = person.end()
    assert talk.status == 0, talk.shown
    for words in ("DB_PASSWORD", "Webshop", "test agent", code):
        assert words in talk.shown
    [(_, path, body)] = writes(recorder)
    assert (path, json.loads(body)["value"]) == ("/v1/ai/projects/proj_1/secrets", MARK)
    told = served.call("manage_secrets", action="await_person", code=code)["structuredContent"]
    assert (told["status"], told["id"], told["version"]) == ("done", "new_1", 3)
    again = Terminal(command, {}).end()
    assert (again.status, f"{code} is done already" in again.shown, len(writes(recorder))) == (1, True, 1)
    served.close()
    assert_unmarked(talk.shown.encode() + effects.of(served))


def test_call_happens_when_its_code_is_typed(served: Server, recorder: Recorder) -> None:
    refused = served.call("manage_trash", **PURGE)
    text = refused["content"][0]["text"]
    command = shlex.split(text[text.index("confirms it with: ") + 18 :].partition(";")[0])
    assert (refused["isError"], writes(recorder), command[-2]) == (True, [], "confirm")
    person = Terminal(command, {})
    person.type("to confirm: ", "no\n")
    assert (person.end().status, writes(recorder)) == (1, [])
    person = Terminal(command, {})
    person.type("to confirm: ", command[-1] + "\n")
    talk = person.end()
    assert (talk.status, "API_KEY" in talk.shown) == (0, True), talk.shown
    assert len(writes(recorder)) == 1
    told = served.call("manage_secrets", action="await_person", code=command[-1])["structuredContent"]
    assert (told["status"], len(writes(recorder))) == ("done", 1)


def test_credential_is_shown_in_the_terminal_only(
    served: Server,
    recorder: Recorder,
    effects: SideEffects,  # noqa: F811
) -> None:
    code, command = code_and_command(served.call("manage_enrollment", **ENROLL))
    person = Terminal(command, {})
    person.type("press Enter", "\n")
    talk = person.end()
    assert (talk.status, talk.shown.count(TOKEN), len(writes(recorder))) == (0, 1, 1), talk.shown
    assert "This widens who can read or change secrets." in talk.shown
    told = served.call("manage_secrets", action="await_person", code=code)["structuredContent"]
    assert told["status"] == "done"
    served.close()
    assert_unmarked(effects.of(served), TOKEN)


def test_refusal_reaches_the_model(served: Server, recorder: Recorder) -> None:
    code, command = code_and_command(served.call("manage_secrets", **CREATE))
    assert Terminal([*command, "--refuse"], {}).end().status == 0
    result = served.call("manage_secrets", action="await_person", code=code)
    assert (result["isError"], writes(recorder)) == (True, [])
    assert "the person refused; do not ask again" in result["content"][0]["text"]
