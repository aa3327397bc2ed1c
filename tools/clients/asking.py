"""A trial of what the server asks a person: a value that the model never sees, and deletions to confirm.

The model creates two projects and a secret whose value a person types on a page. Then it deletes both projects: the
person denies the first deletion and confirms the second. Without a terminal, the client shows nothing: the person runs
the command `fill`, and both deletions are denied.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.clients.checks import require
from tools.clients.model import Model
from tools.clients.persons import TYPED, Person, Step, received, visits, wait_for_results
from tools.clients.script import Script, object_in
from tools.clients.trial import Failed, Trial
from tools.clients.wire import Session

KEPT, GONE = "Webshop", "Old shop"
FIRST, SECOND = {"from": [0, "id"]}, {"from": [1, "id"]}
CREATE: list[Any] = [
    ["manage_projects", {"action": "create", "name": KEPT}],
    ["manage_projects", {"action": "create", "name": GONE}],
    ["manage_secrets", {"action": "create", "projectId": FIRST, "name": "DB_PASSWORD", "fromPerson": True}],
]
AWAIT: Any = ["manage_secrets", {"action": "await_person", "code": {"from": [2, "code"]}}]
DELETE: list[Any] = [
    ["manage_projects", {"action": "delete", "projectId": FIRST, "confirmName": KEPT}],
    ["manage_projects", {"action": "delete", "projectId": SECOND, "confirmName": GONE}],
]


class Asking(Script):
    """The calls above. If a value is not typed at once, the model waits for it."""

    def __init__(self, shown: str) -> None:
        super().__init__(shown, [*CREATE, *DELETE])

    def next_call(self, results: Sequence[str]) -> Any:
        """The call after these results."""
        waited = [AWAIT] if code_in(results) else []
        calls = [*CREATE, *waited, *DELETE]
        return calls[len(results)] if len(results) < len(calls) else None


def code_in(results: Sequence[str]) -> str:
    """The code of the call that waits for a value; empty if none does."""
    answer = object_in(results[2]) if len(results) > 2 else None
    waits = isinstance(answer, dict) and answer.get("status") == "waiting"
    return str(answer["code"]) if waits and answer else ""


def steps(person: Person) -> list[Step]:
    """What the calls ask in a terminal. If the client shows no page, the server opens it when the person agrees."""
    return ["", "", "page" if person.page else "consent", "leave", "tick"]


class Filling:
    """Runs `fill` as soon as the model has been told to wait for a value."""

    def __init__(self, trial: Trial, model: Model) -> None:
        self._trial, self._model = trial, model
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Filling:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._thread.join()

    def _fill(self) -> None:
        try:
            wait_for_results(self._model, len(CREATE))
            if code := code_in(received(self._model)):
                self._trial.archive("fill", code, "--file", "-", stdin_text=TYPED)
        except Failed:
            """The check says what is missing."""


def check(trial: Trial, model: Model, sessions: Sequence[Session], *, asked: bool) -> str:
    """The vault holds the value, which is nowhere else, and only what was confirmed is gone. Raises Failed.

    Returns the way on which the value came.
    """
    results = received(model)
    code = code_in(results)
    expected = len(CREATE) + len(DELETE) + bool(code)
    require(len(results) == expected, f"the model received {len(results)} results, not {expected}")
    stored = object_in(results[3 if code else 2]) or {}
    require(stored.get("status") == "done", "the model was not told that the value is stored")
    require(trial.vault.value_of(str(stored.get("id"))) == TYPED, "the vault holds a different value")
    for exchange in model.exchanges:
        require(TYPED not in json.dumps(exchange.body), "the model received the value")
    for session in sessions:
        require(TYPED.encode() not in b"".join(session.lines), "the server told the client the value")
    for path in trial.home.rglob("*"):
        require(not holds_value(path), f"{path.name} in the home directory has the value")
    denied, confirmed = results[-2:]
    require("nothing was" in denied, f"the first deletion was not denied: {denied[:200]}")
    require(asked is ("nothing was" not in confirmed), f"the second deletion ended wrongly: {confirmed[:200]}")
    deleted = [entry for entry in json.loads(trial.vault.owner("audit", "--json")) if "delete" in entry["action"]]
    require(len(deleted) == int(asked), f"the vault deleted {len(deleted)} projects")
    return "by a page" if visits(trial) else "by `fill`"


def holds_value(path: Path) -> bool:
    """True if the value is in a file; a client may remove its files at any time."""
    try:
        return path.is_file() and TYPED.encode() in path.read_bytes()
    except OSError:
        return False
