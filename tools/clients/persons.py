"""How a person answers a server's questions in each client that shows them: what the screen says, and which keys.

`open_client` starts a client in a terminal, with the entry that `config --write` made, and with a browser that fills in
pages. `play` answers what each call of the model asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tools.clients.assistants import Assistant
from tools.clients.model import Model
from tools.clients.script import PROMPT, results_of
from tools.clients.terminal import Terminal, open_terminal
from tools.clients.trial import Failed, Trial

BROWSER = Path(__file__).with_name("browser.py")
TYPED = "typed-by-a-person-5f21"
ANSWER_MAX_S = 60.0
Keys = tuple[str, ...]
# What a call asks: nothing; a form, which the person ticks, leaves as it is, cancels or declines; a page, which the
# client opens; the consent to a page, which the server opens then.
PAGES = ("page", "consent")
Step = Literal["", "tick", "leave", "cancel", "decline", "page", "consent"]


class Person(NamedTuple):
    """How to start a client in a terminal, and how to answer in it.

    `form` and `page` are patterns for the dialogs; a client without `page` shows no page at all, and one without
    `decline` has no key for that. `browse` opens the page in the browser. If the client then asks whether the page is
    done, `done` is the pattern for that, and `finish` says yes.
    """

    session: Keys
    prepare: Callable[[Trial], None]
    form: str
    tick: Keys
    leave: Keys
    cancel: Keys = ("Escape",)
    decline: Keys = ()
    page: str = ""
    browse: Keys = ()
    done: str = ""
    finish: Keys = ()


def _trusting_claude(trial: Trial) -> None:
    """Answers what Claude Code asks at its first start."""
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    settings = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": ["trial"], "rejected": []},
        "projects": {str(trial.work): trusted},
    }
    (trial.home / ".claude.json").write_text(json.dumps(settings), encoding="utf-8")


def _trusting_codex(trial: Trial) -> None:
    with open(trial.home / ".codex" / "config.toml", "a", encoding="utf-8") as file:
        print(f'\n[projects."{trial.work}"]\ntrust_level = "trusted"', file=file)


def _trusting_copilot(trial: Trial) -> None:
    path = trial.home / ".copilot" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"trustedFolders": [str(trial.work)]}), encoding="utf-8")


PERSONS = {
    "claude-code": Person(
        ("--allowedTools", "mcp__sikkerkey", "--", PROMPT),
        _trusting_claude,
        form=r"requests your input",
        tick=("Space", "Down", "Enter"),
        leave=("Down", "Enter"),
        decline=("Down", "Right", "Enter"),
        page=r"wants to open a URL",
        browse=("Enter",),
        done=r"❯ I'm done, continue",
        finish=("Enter",),
    ),
    "codex": Person(
        ("-c", 'mcp_servers.sikkerkey.default_tools_approval_mode="approve"', PROMPT),
        _trusting_codex,
        form=r"enter to submit \| esc to cancel",
        tick=("Up", "Enter"),
        leave=("Enter",),
    ),
    "copilot": Person(
        ("--allow-all-tools", "--disable-builtin-mcps", "-i", PROMPT),
        _trusting_copilot,
        form=r"needs information",
        tick=("Up", "Enter"),
        leave=("Enter",),
        decline=("C-d",),
        page=r"wants you to visit",
        browse=("Enter",),
    ),
}


@contextlib.contextmanager
def open_client(assistant: Assistant, trial: Trial, model: Model) -> Iterator[Terminal]:
    """The client in a terminal, with the prompt given. Its entry must have been written after `settle`."""
    person = PERSONS[assistant.name]
    tools = make_browser(trial, TYPED)
    variables = {**assistant.variables(model.url), "BROWSER": str(tools / "xdg-open"), "DISPLAY": ":0"}
    variables["PATH"] = f"{tools}{os.pathsep}{trial.environment['PATH']}"
    with open_terminal(trial, [str(assistant.package.path), *person.session], **variables) as terminal:
        yield terminal


def settle(assistant: Assistant, trial: Trial, model: Model) -> None:
    """Writes the client's settings, with the answers to what it asks at its first start."""
    assistant.settings(trial.home, model.url)
    PERSONS[assistant.name].prepare(trial)


# ---------------------------------------------------------------------------------------------------------------------
# the browser
# ---------------------------------------------------------------------------------------------------------------------


def make_browser(trial: Trial, typed: str) -> Path:
    """The directory of an `xdg-open` that types `typed` into each page's form; see browser.py."""
    directory = trial.home.parent / "browser"
    directory.mkdir()
    (directory / "value").write_text(typed, encoding="utf-8")
    program = directory / "xdg-open"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{BROWSER}" "{directory}" "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return directory


def visits(trial: Trial) -> list[Any]:
    """The pages that the browser opened."""
    path = trial.home.parent / "browser" / "visits.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def started_with(trial: Trial) -> list[str]:
    """What the browser was started with: everybody on the computer can read it."""
    path = trial.home.parent / "browser" / "started.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def wait_until(condition: Callable[[], object], failure: str) -> None:
    """Waits for a condition. Raises Failed after a time limit."""
    give_up_at_s = time.monotonic() + ANSWER_MAX_S
    while not condition():
        if time.monotonic() > give_up_at_s:
            raise Failed(failure)
        time.sleep(0.1)


# ---------------------------------------------------------------------------------------------------------------------
# answers
# ---------------------------------------------------------------------------------------------------------------------


def play(person: Person, terminal: Terminal, model: Model, trial: Trial, steps: Sequence[Step]) -> list[str]:
    """Answers what each call asks. Returns the results that the model received. Raises Failed."""
    for number, step in enumerate(steps):
        name = screen_name(number, step)
        if step in PAGES:
            _fill_in_page(person, terminal, trial, step, name)
        elif step:
            keys = {"tick": person.tick, "leave": person.leave, "decline": person.decline}.get(step, person.cancel)
            terminal.answer(person.form, keys, name)
        wait_for_results(model, number + 1)
    return received(model)


def screen_name(number: int, step: Step) -> str:
    """The name of the screen that a call showed."""
    return f"call {number + 1}: {step}"


def _fill_in_page(person: Person, terminal: Terminal, trial: Trial, step: Step, name: str) -> None:
    """Lets the browser open the page: by the client, or by the server if the person agrees to that in a form."""
    before = len(visits(trial))
    if step == "page":
        terminal.answer(person.page, person.browse, name)
    else:
        terminal.answer(person.form, person.tick, name)
    wait_until(lambda: any(visit["sent"] for visit in visits(trial)[before:]), "the browser sent no form")
    if step == "page" and person.done:
        terminal.answer(person.done, person.finish, f"{name}, done")


def wait_for_results(model: Model, count: int) -> None:
    """Waits until the model has received the results of `count` calls. Raises Failed after a time limit."""
    wait_until(lambda: len(received(model)) >= count, f"the model received no result of call {count}")


def received(model: Model) -> list[str]:
    """The results that the model has received."""
    return max((results_of(exchange.request) for exchange in model.exchanges), key=len, default=[])
