"""How a person answers a server's questions in each client that shows them: what the screen says, and which keys.

`open_client` starts a client in a terminal, with the entry that `config --write` made. `play` answers the questions of
the probe, which stands in for the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs

from tools.clients.assistants import Assistant
from tools.clients.checks import require
from tools.clients.model import Model
from tools.clients.script import PROMPT, results_of
from tools.clients.terminal import Terminal, open_terminal
from tools.clients.trial import Failed, Trial
from tools.clients.wire import SET_UP

PROBE = Path(__file__).with_name("probe.py")
BROWSER = Path(__file__).with_name("browser.py")
TYPED = "typed-by-a-person-5f21"
ANSWER_MAX_S = 60.0
Keys = tuple[str, ...]
# What a call asks: nothing; a form, which the person ticks, leaves as it is or cancels; a page; the consent to a page.
Step = Literal["", "tick", "leave", "cancel", "page", "consent"]


class Person(NamedTuple):
    """How to start a client in a terminal, and how to answer in it.

    `form` and `page` are patterns for the dialogs; a client without `page` shows no
    page at all. `browse` opens the page in the browser. If the client then asks whether the page is done, `done` is the
    pattern for that, and `finish` says yes.
    """

    session: Keys
    prepare: Callable[[Trial], None]
    form: str
    tick: Keys
    leave: Keys
    cancel: Keys = ("Escape",)
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


def wait_until(condition: Callable[[], object], failure: str) -> None:
    """Waits for a condition. Raises Failed after a time limit."""
    give_up_at_s = time.monotonic() + ANSWER_MAX_S
    while not condition():
        if time.monotonic() > give_up_at_s:
            raise Failed(failure)
        time.sleep(0.1)


# ---------------------------------------------------------------------------------------------------------------------
# the probe's questions
# ---------------------------------------------------------------------------------------------------------------------

QUESTIONS: list[Any] = [["ask_form", {}], ["ask_form", {}], ["ask_form", {}], ["ask_page", {}]]


def steps(person: Person) -> list[Step]:
    """What the probe's questions lead to: a client without pages declines them unseen."""
    return ["tick", "leave", "cancel", "page" if person.page else ""]


FORM = b'<form method="post"><input type="hidden" name="nonce" value="n1"><textarea name="value"></textarea></form>'


class PageServer:
    """A page with a form on loopback. `submitted` has what was sent with it."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, list[str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(FORM)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.submitted.append(parse_qs(body.decode("ascii")))
                self._reply(b"Stored.")

            def _reply(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Logs nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/page"

    def __enter__(self) -> PageServer:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def start_probe_instead(assistant: Assistant, trial: Trial, url: str) -> None:
    """Makes the client's entry start the probe, whose page is at `url`."""
    path = trial.home / assistant.file
    entry = path.read_text(encoding="utf-8")
    path.write_text(entry.replace(str(trial.program), str(PROBE)), encoding="utf-8")
    SET_UP.write_text(json.dumps({"options": [url]}), encoding="utf-8")


def play(person: Person, terminal: Terminal, model: Model, trial: Trial, steps: Sequence[Step]) -> list[str]:
    """Answers what each call asks. Returns the results that the model received. Raises Failed."""
    for number, step in enumerate(steps, 1):
        if step in ("tick", "leave", "cancel"):
            terminal.answer(person.form, {"tick": person.tick, "leave": person.leave}.get(step, person.cancel), step)
        elif step:
            _fill_in_page(person, terminal, trial, step)
        wait_for_results(model, number)
    return received(model)


def _fill_in_page(person: Person, terminal: Terminal, trial: Trial, step: Step) -> None:
    """Lets the browser open the page: by the client, or by the server if the person agrees to that in a form."""
    before = len(visits(trial))
    if step == "page":
        terminal.answer(person.page, person.browse, step)
    else:
        terminal.answer(person.form, person.tick, step)
    wait_until(lambda: any(visit["sent"] for visit in visits(trial)[before:]), "the browser sent no form")
    if step == "page" and person.done:
        terminal.answer(person.done, person.finish, "done")


def wait_for_results(model: Model, count: int) -> None:
    """Waits until the model has received the results of `count` calls. Raises Failed after a time limit."""
    wait_until(lambda: len(received(model)) >= count, f"the model received no result of call {count}")


def received(model: Model) -> list[str]:
    """The results that the model has received."""
    return max((results_of(exchange.request) for exchange in model.exchanges), key=len, default=[])


def check_unanswered(results: Sequence[str]) -> None:
    """Every question was declined, cancelled or not put at all. Raises Failed."""
    require(len(results) == len(QUESTIONS), f"the model received {len(results)} results, not {len(QUESTIONS)}")
    for number, text in enumerate(results):
        refused = re.search("(decline|cancel|unsupported) {}", text)
        require(refused, f"question {number + 1} was answered by {text!r}")


def check(person: Person, results: Sequence[str], submitted: Sequence[dict[str, list[str]]]) -> None:
    """Each answer reached the server, and the browser submitted the form. Raises Failed."""
    answers = ['accept {"confirm":true}', 'accept {"confirm":false}', "cancel {}"]
    answers.append("accept {}" if person.page else "decline {}")
    require(len(results) == len(answers), f"the model received {len(results)} results, not {len(answers)}")
    for number, (answer, text) in enumerate(zip(answers, results)):
        require(answer in text, f"question {number + 1} was answered by {text!r}, not {answer}")
    expected = [{"nonce": ["n1"], "value": [TYPED]}] if person.page else []
    require(list(submitted) == expected, f"the page received {len(submitted)} forms")
    require(not any(TYPED in text for text in results), "the model received the value")
