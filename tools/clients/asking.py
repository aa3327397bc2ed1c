"""A trial of what the server asks a person: a value, a credential that only they see, and deletions to confirm.

The model creates two projects, a secret whose value a person types, and a one-time link that only a person sees. Then
it deletes the first project, which the person denies in each way that the client has, and the second, which they
confirm. Without a terminal, the client shows nothing: the person runs the commands that the model was given, in a
terminal of their own, and both deletions are denied.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tools.clients.checks import require
from tools.clients.dialects import Answer, Call, ModelRequest
from tools.clients.model import Model
from tools.clients.persons import PAGES, TYPED, Person, Step, received, screen_name, visits
from tools.clients.script import Script, object_in, results_of
from tools.clients.set_ups import recordable
from tools.clients.terminal import LOOKS, POLL_S, Terminal
from tools.clients.trial import Failed, Trial
from tools.clients.wire import Session

KEPT, GONE = "Webshop", "Old shop"
FIRST, SECOND = {"from": [0, "id"]}, {"from": [1, "id"]}
LINK = {"name": "Handover", "generateRandom": True, "expiresInSeconds": 600, "toPerson": True}
CREATE: list[Any] = [
    ["manage_projects", {"action": "create", "name": KEPT}],
    ["manage_projects", {"action": "create", "name": GONE}],
    ["manage_secrets", {"action": "create", "projectId": FIRST, "name": "DB_PASSWORD", "fromPerson": True}],
    ["manage_temporary_secrets", {"action": "create", "projectId": FIRST, **LINK}],
]
VALUE, CREDENTIAL = 2, 3  # their places in CREATE
DELETE_KEPT: Any = ["manage_projects", {"action": "delete", "projectId": FIRST, "confirmName": KEPT}]
DELETE_GONE: Any = ["manage_projects", {"action": "delete", "projectId": SECOND, "confirmName": GONE}]
TOLD = ("status", "code", "command", "id", "version", "deleted")  # what the record quotes of a result
LEARNED = {"status", "message", "id", "version", "expiresAt"}  # what a model may know of a completed call
LOOK_S = 0.05
ENDED = "--- the command has ended"
PERSON = {
    "page": "opened the page, filled it in",
    "consent": "agreed to a page, filled it in",
    "leave": "accepted, not ticked",
    "cancel": "Esc",
    "decline": "declined",
    "tick": "ticked, accepted",
}
ANSWERS = {
    "leave": ("accept", False),
    "cancel": ("cancel", None),
    "decline": ("decline", None),
    "tick": ("accept", True),
}
DIALOG = r"MCP server “|Field \d+/\d+|sikkerkey (?:needs information|wants you to visit)"
RULE = "─" * 10
IN_TERMINAL, WITHOUT = "in a terminal", "without a terminal"
HEAD = ("Client", "Runs", "Asked for", "The person", "Asked after", "Result after", "The model received")


class Seen(NamedTuple):
    """What a call asked for, what the person saw and did, and what the model received.

    `mode` says where the client ran, `asked_s` is the time from the call to the dialog, or to the answer with the
    command, and `result_s` that from the person's answer to the model.
    """

    mode: str
    what: str
    did: str
    screen: str
    received: list[str]
    asked_s: float
    result_s: float


class Asking(Script):
    """The calls above, with the first deletion `denials` times. The model waits for what a person has to do first.

    `issued_s` and `received_s` are the times of the calls and results, by number.
    """

    def __init__(self, shown: str, denials: int = 1) -> None:
        super().__init__(shown, [*CREATE, *[DELETE_KEPT] * denials, DELETE_GONE])
        self.issued_s: dict[int, float] = {}
        self.received_s: dict[int, float] = {}

    def __call__(self, request: ModelRequest) -> Answer:
        """The next call, with its time noted."""
        for number in range(len(results_of(request))):
            self.received_s.setdefault(number, time.time())
        answer = super().__call__(request)
        if isinstance(answer, Call):
            self.issued_s.setdefault(len(results_of(request)), time.time())
        return answer

    def next_call(self, results: Sequence[str]) -> Any:
        """The call after these results."""
        if results and (code := code_in(results[-1])):
            return ["manage_secrets", {"action": "await_person", "code": code}]
        return super().next_call(finished(results))


def code_in(result: str) -> str:
    """The code of a call that waits for a person; empty if it does not wait."""
    answer = object_in(result)
    waits = isinstance(answer, dict) and answer.get("status") == "waiting"
    return str(answer["code"]) if waits else ""


def finished(results: Sequence[str]) -> list[str]:
    """The results without those that say that the call waits: one for each of the script's calls."""
    return [result for result in results if not code_in(result)]


def steps(person: Person) -> list[Step]:
    """What the calls ask in a terminal. If the client shows no page, the server opens it when the person agrees."""
    page: Step = "page" if person.page else "consent"
    return ["", "", page, page, *denials(person), "tick"]


def denials(person: Person) -> list[Step]:
    """The ways in which a person can say no."""
    return ["leave", "cancel", "decline"] if person.decline else ["leave", "cancel"]


# ---------------------------------------------------------------------------------------------------------------------
# a person with a terminal of their own
# ---------------------------------------------------------------------------------------------------------------------


class Commands:
    """Runs each command that the model was given, in a terminal that is not the client's.

    `shown` has the screens, and `done_s` the times at which the person pressed the last key, by code.
    """

    def __init__(self, trial: Trial, model: Model) -> None:
        self._trial, self._model = trial, model
        self.shown: dict[str, str] = {}
        self.done_s: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Commands:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            results = received(self._model)
            code = code_in(results[-1]) if results else ""
            if code and code not in self.shown:
                self.shown[code] = ""
                with contextlib.suppress(Failed):  # the check says what is missing
                    self._complete(code, str(object_in(results[-1])["command"]))

    def _complete(self, code: str, command: str) -> None:
        terminal = Terminal(self._trial.home.parent / "tmux-own", {**self._trial.environment, **LOOKS})
        terminal.start(["sh", "-c", f"{command}; echo {ENDED}"], self._trial.home)
        try:
            if "press Enter" not in terminal.wait_for("press Enter|value: *$"):
                terminal.paste(TYPED)
                terminal.press("Enter")
                terminal.wait_for("press Enter")
            terminal.press("Enter")
            self.done_s[code] = time.time() - POLL_S  # `press` waits after the last key
            terminal.wait_for(rf"{code} is done(?s:.*){ENDED}")
        finally:
            self.shown[code] = terminal.screen(scrolled=True)
            terminal.close()


@contextlib.contextmanager
def watched_processes(text: str = TYPED) -> Iterator[set[str]]:
    """The names of processes that have the text in their command line; empty on systems without /proc."""
    found: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # the process has ended
                    words = path.read_bytes()
                    if text.encode() in words:
                        found.add(Path(words.split(b"\0")[0].decode("utf-8", "replace")).name)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


# ---------------------------------------------------------------------------------------------------------------------
# checks
# ---------------------------------------------------------------------------------------------------------------------


def check(trial: Trial, model: Model, sessions: Sequence[Session], credentials: Sequence[str], *, asked: bool) -> None:
    """The vault holds the value, which is nowhere else, and only what was confirmed is gone. Raises Failed."""
    results = finished(received(model))
    denied, confirmed = results[len(CREATE) : -1], results[-1:]
    require(denied, f"the model received {len(results)} results")
    stored, created = (object_in(results[place]) or {} for place in (VALUE, CREDENTIAL))
    for name, answer in (("value", stored), ("credential", created)):
        require(answer.get("status") == "done", f"the model was not told of the {name}")
        require(set(answer) <= LEARNED, f"the model was told {', '.join(sorted(set(answer) - LEARNED))}")
    require(trial.vault.value_of(str(stored.get("id"))) == TYPED, "the vault holds a different value")
    require(credentials, "the person saw no credential")
    for name, text in (("value", TYPED), *(("credential", each) for each in credentials)):
        hunt(trial, model, sessions, name, text)
    bodies = json.dumps([exchange.body for exchange in model.exchanges], ensure_ascii=False)
    for visit in visits(trial):
        require(urlsplit(visit["url"]).path not in bodies, "the model received the address of a page")
    for text in denied if asked else [*denied, *confirmed]:
        require("nothing was" in text, f"a deletion was not denied: {text[:200]}")
        require(asked or re.search(r" confirm [A-Z0-9]{4}\b", text), "the model was given no command")
    require(asked is ("nothing was" not in confirmed[0]), f"the second deletion ended wrongly: {confirmed[0][:200]}")
    deleted = [entry for entry in json.loads(trial.vault.owner("audit", "--json")) if "delete" in entry["action"]]
    require(len(deleted) == int(asked), f"the vault deleted {len(deleted)} projects")


def hunt(trial: Trial, model: Model, sessions: Sequence[Session], name: str, text: str) -> None:
    """The text is in no message, request, file or output. Raises Failed."""
    for exchange in model.exchanges:
        require(text not in json.dumps(exchange.body, ensure_ascii=False), f"the model received the {name}")
    for session in sessions:
        require(text.encode() not in b"".join(session.lines), f"the server told the client the {name}")
    for directory in (trial.home, trial.work, trial.home.parent / "tmp"):
        for path in directory.rglob("*"):
            require(not holds(path, text), f"{path.name} in {directory.name} has the {name}")
    for path in (trial.log, trial.log.with_suffix(".screens.txt")):
        require(not holds(path, text), f"the client's output has the {name}")


def holds(path: Path, text: str) -> bool:
    """True if the text is in a file; a client may remove its files at any time."""
    try:
        return path.is_file() and text.encode() in path.read_bytes()
    except OSError:
        return False


def credentials_on_pages(trial: Trial) -> list[str]:
    """The credentials that pages showed."""
    texts = [visit["text"] for visit in visits(trial)]
    return [unescape(found) for text in texts for found in re.findall(r"<pre id=[^>]*>\n(.*?)</pre>", text, re.DOTALL)]


def credentials_in_terminals(screens: Sequence[str]) -> list[str]:
    """The credentials that `show` printed."""
    texts = [screen.partition(" is done: ")[2] for screen in screens]
    return [found for text in texts for found in re.findall(r"^(?!expires)\w+: (\S+)$", text, re.MULTILINE)]


def check_command_lines(addresses: Sequence[str], asked: Sequence[Step]) -> None:
    """Where the server opens a page, the page's address is not in the browser's command line. Raises Failed."""
    for address, step in zip(addresses, [step for step in asked if step in PAGES]):
        require(step == "page" or not address.startswith("http"), "the browser was started with a page's address")


def check_answers(sessions: Sequence[Session], asked: Sequence[Step]) -> None:
    """What the person did in forms reached the server as such. Raises Failed."""
    messages = [message for session in sessions for message in session.from_client]
    given = [message.get("result") for message in messages]
    given += [message.get("params", {}).get("inputResponses", {}).get("question") for message in messages]
    expected = [ANSWERS[step] for step in asked if step in ANSWERS]
    answers = [
        (each["action"], (each.get("content") or {}).get("confirm"))
        for each in given
        if isinstance(each, dict) and "action" in each
    ]
    require(answers[-len(expected) :] == expected, f"the forms were answered with {answers}, not {expected}")


def check_codes(shown: Sequence[str], pages: Sequence[Any]) -> None:
    """Each dialog about a page shows the code that its page shows. Raises Failed."""
    opened = [page["text"] for page in pages if not page["sent"]]
    require(len(opened) == len(shown), f"{len(opened)} pages for {len(shown)} dialogs")
    for screen, text in zip(shown, opened):
        code = re.search(r"Code ([A-Z0-9]{4})\b", screen)
        require(code and code[1] in text, "the page does not show the code of the dialog")


# ---------------------------------------------------------------------------------------------------------------------
# the record
# ---------------------------------------------------------------------------------------------------------------------


def seen_in_terminal(script: Asking, model: Model, terminal: Terminal, trial: Trial, asked: list[Step]) -> list[Seen]:
    """What was asked in the client's terminal."""
    results, submitted = received(model), [visit["time_s"] for visit in visits(trial) if visit["sent"]]
    rows = []
    for number, step in enumerate(asked):
        if not step:
            continue
        name = screen_name(number, step)
        answered_s = submitted.pop(0) if step in PAGES else terminal.pressed_s[name]
        times = terminal.shown_s[name] - script.issued_s[number], script.received_s[number] - answered_s
        screen = dialog_in(terminal.shown[name])
        rows.append(
            recorded(Seen(IN_TERMINAL, _what(number), PERSON[step], screen, results[number : number + 1], *times))
        )
    return rows


def seen_without(script: Asking, model: Model, commands: Commands) -> list[Seen]:
    """What was asked of a person whose client shows nothing."""
    rows, results = [], received(model)
    waiting = ""
    for number, result in enumerate(results):
        place = len(finished(results[:number]))
        if code := code_in(result):
            waiting = waiting or code
            continue
        if place in (VALUE, CREDENTIAL):
            first = next(at for at, each in enumerate(results) if code_in(each) == waiting) if waiting else number
            asked_s = script.received_s[first] - script.issued_s[first]
            result_s = script.received_s[number] - commands.done_s.get(waiting, script.received_s[number])
            command = "fill" if place == VALUE else "show"
            screen = without_credentials(commands.shown.get(waiting, ""))
            texts = [results[first], result]
            rows.append(recorded(Seen(WITHOUT, _what(place), f"ran `{command}`", screen, texts, asked_s, result_s)))
        elif place == len(CREATE):
            rows.append(recorded(Seen(WITHOUT, _what(place), "was not asked", "", [result], 0.0, 0.0)))
        waiting = ""
    return rows


def _what(place: int) -> str:
    return {VALUE: "a value", CREDENTIAL: "a one-time link to show"}.get(place, "a deletion")


def recorded(row: Seen) -> Seen:
    """The row without what differs between computers and trials."""
    texts = [_steady(told(result)) for result in row.received]
    asked_s, result_s = round(row.asked_s, 1), round(max(row.result_s, 0.0), 1)
    return row._replace(screen=_steady(row.screen), received=texts, asked_s=asked_s, result_s=result_s)


def told(result: str) -> str:
    """The part of a result that says how the call ended, without what a client puts around it."""
    denied = re.search(r"nothing was (?:done|sent)", result)
    if not denied:
        answer = object_in(result)
        members = answer.items() if isinstance(answer, dict) else ()
        return ", ".join(f"{name}: {value}" for name, value in members if name in TOLD)
    command = re.search(r"sikkerkey-mcp\.pyz confirm [A-Z0-9]{4}\b", result)
    return denied[0] + (f", command: {command[0]}" if command else "")


def dialog_in(screen: str) -> str:
    """The client's dialog on a screen, without lines around it."""
    lines = screen.splitlines()
    first = max((number for number, line in enumerate(lines) if re.search(DIALOG, line)), default=0)
    return "\n".join(line for line in lines[first:] if line.strip() and RULE not in line)


def without_credentials(screen: str) -> str:
    """The screen of a command without the credentials that it shows."""
    for credential in credentials_in_terminals([screen]):
        screen = screen.replace(credential, "(shown to the person)")
    return "\n".join(line for line in screen.partition(ENDED)[0].splitlines() if line)


def _steady(text: str) -> str:
    """The text without what differs between computers and trials."""
    for pattern, replaced in (
        (r"(http://127\.0\.0\.1):\d+/[\w-]{20,}", r"\1:PORT/TOKEN"),
        (r"\b(proj|sk|vault|tmp|ts|otl)_[a-z0-9]{8,}", r"\1_ID"),
        (r'(code "?|code: |fill |show |confirm |Code +|^)([A-Z0-9]{4})\b', r"\g<1>4F7K"),
        (r"(?:\S+ )?\S*/sikkerkey-mcp\.pyz", "sikkerkey-mcp.pyz"),
        (r"(expiresAt: )\S+", r"\1TIME"),
    ):
        text = re.sub(pattern, replaced, text, flags=re.MULTILINE)
    return "\n".join(recordable(line) for line in text.splitlines())


# ---------------------------------------------------------------------------------------------------------------------
# docs/tested-clients.md and docs/client-dialogs.md
# ---------------------------------------------------------------------------------------------------------------------


def rows(people: Mapping[str, Sequence[Seen]]) -> list[list[str]]:
    """The rows of the table below `HEAD`, by client."""
    return [[client, *_cells(row)] for client, of_client in people.items() for row in of_client]


def _cells(row: Seen) -> list[str]:
    was_asked = bool(row.screen)
    times = [f"{time_s:.1f} s" if was_asked else "-" for time_s in (row.asked_s, row.result_s)]
    return [row.mode, row.what, row.did, *times, "; then ".join(f"`{text}`" for text in row.received)]


def dialogs(people: Mapping[str, Sequence[Seen]]) -> str:
    """What people saw, as Markdown: the dialogs of each client, and the commands, which are the same for all."""
    parts = []
    for client, of_client in people.items():
        parts += _screens(client, [row for row in of_client if row.mode == IN_TERMINAL])
    commands = next((of_client for of_client in people.values() if any(row.mode == WITHOUT for row in of_client)), ())
    return "\n".join([*parts, *_screens("The commands", [row for row in commands if row.mode == WITHOUT])])


def _screens(heading: str, shown: Sequence[Seen]) -> list[str]:
    """The first screen for each thing that was asked for."""
    first: dict[str, str] = {}
    for row in shown:
        if row.screen:
            first.setdefault(row.what, row.screen)
    if not first:
        return []
    parts = [f"## {heading}", ""]
    for what, screen in first.items():
        parts += [f"{what[0].upper()}{what[1:]}:", "", "```text", screen, "```", ""]
    return parts
