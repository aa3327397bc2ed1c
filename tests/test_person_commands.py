"""`fill`, `show` and `confirm`: what a person sees and types, what is sent, and that no value is left anywhere."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import io
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sikkerkey_mcp
import sikkerkey_tickets
from sikkerkey_cli import person, terminal
from sikkerkey_cli.completion import candidates
from sikkerkey_tickets import LIFE_S, Carried, Invalid, NotWaiting, Outcome, Ticket, Tickets, digest_of
from tests.support.clock import NOW_S, Clock
from tests.support.harness import AGENT_ID, ROOT
from tests.support.leak_search import MARK, SideEffects, assert_unmarked, effects  # noqa: F401 (a fixture)
from tests.support.shell import Shell, Terminal

USAGE = 2
DONE = Carried(Outcome("done", "DB_PASSWORD is stored, version 3", {"id": "sk_1", "version": 3}))
LINK = "https://vault.test/t/SENTINEL_LINK"
on_posix = pytest.mark.skipif(os.name != "posix", reason="this system has no pseudo-terminals")


class Calls:
    """Stands for the server's part: takes the ticket, notes what it would send, and finishes the ticket."""

    def __init__(self, tickets: Tickets) -> None:
        self.tickets = tickets
        self.agents: list[str] = []
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.ends: Carried | BaseException = DONE

    def of(self, agent_id: str) -> Calls:
        self.agents.append(agent_id)
        return self

    def carry_out(self, code: str, values: Mapping[str, str]) -> Carried:
        ticket = self.tickets.take(code)
        if isinstance(self.ends, BaseException):
            self.tickets.give_back(code)
            raise self.ends
        self.sent.append((ticket.code, dict(values)))
        self.tickets.finish(code, self.ends.outcome)
        return self.ends


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Tickets:
    """The tickets that the commands see."""
    found = Tickets(str(home / ".sikkerkey" / "waiting"), clock)
    monkeypatch.setattr(person, "open_tickets", lambda: found)
    return found


@pytest.fixture
def calls(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls(tickets)
    monkeypatch.setattr(person, "calls_of", made.of)
    return made


class Keyboard:
    """What a person types at hidden prompts, in this process. None is Ctrl-D, and Ctrl-C is an exception."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.typed: list[str | BaseException] = []

    def ask(self, prompt: str) -> str:
        self.prompts.append(prompt)
        text = self.typed.pop(0)
        if isinstance(text, BaseException):
            raise text
        return text


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    """A terminal in this process."""
    made = Keyboard()
    monkeypatch.setattr(terminal, "is_terminal", lambda _stream: True)
    monkeypatch.setattr(getpass, "getpass", made.ask)
    monkeypatch.setattr(person, "_without_echo", lambda **_options: contextlib.nullcontext(False))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return made


def a_ticket(name: str = "DB_PASSWORD", **changes: Any) -> Ticket:
    """A ticket to be added: store the value of a secret."""
    arguments = {"projectId": "proj_1", "name": name, "fromPerson": True}
    ticket = Ticket(
        code="",
        agent_id=AGENT_ID,
        tool="manage_secrets",
        action="create",
        arguments=arguments,
        digest=digest_of(AGENT_ID, "manage_secrets", "create", arguments),
        title=f'Store the value of the new secret "{name}"',
        details=(("Project", "Webshop"), ("Vault", "vault_1"), ("Agent", "my laptop")),
        quoted=(("Name", name), ("Note", "for the shop")),
        warning="",
        fields=("",),
        shows=False,
        expires_s=NOW_S + LIFE_S,
    )
    return ticket._replace(**changes)


FILL: dict[str, Any] = {}
STRUCTURED: dict[str, Any] = {"fields": ("user", "key")}
CONFIRM: dict[str, Any] = {
    "title": "Delete the project Webshop for good",
    "fields": (),
    "warning": "This cannot be undone.",
}
SHOW: dict[str, Any] = {"title": "Create an enrollment token", "fields": (), "shows": True}


def command(ticket: Ticket) -> str:
    """The command for a ticket, as the shell takes it."""
    return shlex.join([*sikkerkey_mcp.program(), ticket.kind, ticket.code])


# what is shown first


def test_call_is_shown_in_words(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    code = tickets.add(a_ticket(**{**CONFIRM, "fields": ("",)})).code
    keyboard.typed = [EOFError()]
    shown = shell("fill", code).err.partition("\n\n\n")[0]
    assert shown + "\n\n" == (
        "Delete the project Webshop for good\n\n"
        "Words that your assistant chose:\n"
        '  Name  "DB_PASSWORD"\n'
        '  Note  "for the shop"\n\n'
        "  Project    Webshop\n"
        "  Vault      vault_1\n"
        "  Agent      my laptop\n"
        "  Time left  10 minutes\n"
        f"  Code       {code}\n\n"
        "warn: This cannot be undone.\n\n"
        "Continue only if your assistant shows the same code.\n\n"
    )


def test_assistants_words_cannot_look_like_the_programs(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    hostile = 'x"\n  Vault      vault_other\r\n\x1b[2J\u202etxt\x00\n' + "Code 2222 " * 12 + "\n" * 50 + "end" * 2_000
    changes: dict[str, Any] = {
        "quoted": (("Note", hostile), ("Na\nme", "\t" * 30)),
        "details": (("Project", "p\nVault  other" + " x" * 200), ("Agent", "a\x1b]0;b\x07")),
        "title": "Store\n\x1b[31mit " + "Vault " * 50,
        "warning": "This\ncannot",
    }
    code = tickets.add(a_ticket(**changes)).code
    keyboard.typed = [KeyboardInterrupt()]
    shown = shell("fill", code).err
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
    lines = shown.split("\n")
    assert len(lines) < 40
    assert max(map(len, lines[:-4])) < 60
    labels = [line[:12].strip() for line in lines if re.match(r"  \S", line)]
    assert [label.split("  ")[0].split("<")[0] for label in labels] == [
        "Note",
        "Na",
        "Project",
        "Agent",
        "Time left",
        "Code",
    ]


def test_time_left_is_rounded_down(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, clock: Clock
) -> None:
    code = tickets.add(a_ticket()).code
    for passed_s, words in (
        (0, "10 minutes"),
        (1, "9 minutes"),
        (480, "2 minutes"),
        (490, "1 minute"),
        (550, "less than a minute"),
    ):
        clock.now_s = NOW_S + passed_s
        keyboard.typed = [KeyboardInterrupt()]
        assert f"Time left  {words}\n" in shell("fill", code).err, passed_s


# fill


def test_value_is_typed_and_stored(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    code = tickets.add(a_ticket()).code
    keyboard.typed = ["hunter2-søg", ""]
    ran = shell("fill", f" {code.lower()} ")
    assert (ran.status, ran.out) == (0, f"{code} is done: DB_PASSWORD is stored, version 3\n")
    assert "value: 11 characters\n" in ran.err
    assert ran.err.endswith("go back to your assistant, which knows the outcome\n")
    assert keyboard.prompts == ["value: ", "press Enter to store it, Ctrl-C to stop: "]
    assert calls.sent == [(code, {"": "hunter2-søg"})]
    assert "hunter2" not in ran.out + ran.err


def test_each_field_is_typed(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    code = tickets.add(a_ticket(**STRUCTURED)).code
    keyboard.typed = ["", "a", "", "", "b" * 1_500, ""]
    ran = shell("fill", code)
    assert [prompt.partition(":")[0] for prompt in keyboard.prompts[:5]] == ["user", "user", "key", "key", "key"]
    assert "user: 1 character\n" in ran.err
    assert "key: 1,500 characters\n" in ran.err
    assert ran.err.count("an empty value is not stored\n") == 3
    assert calls.sent == [(code, {"user": "a", "key": "b" * 1_500})]


def test_call_runs_as_the_agent_of_the_ticket(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_AGENT_ID", "1f8fad5b-d9cb-469f-a165-70867728950f")
    keyboard.typed = ["v", ""]
    shell("fill", tickets.add(a_ticket()).code)
    assert calls.agents == [AGENT_ID]


def test_server_makes_the_calls_of_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_mcp, "person_calls", lambda agent_id: ("calls of", agent_id), raising=False)
    made: Any = person.calls_of(AGENT_ID)
    assert made == ("calls of", AGENT_ID)


def test_tickets_are_in_the_home(home: Path) -> None:
    assert person.open_tickets().directory == str(home / ".sikkerkey" / "waiting")


def test_unusable_agent_is_reported_before_anybody_types(
    tickets: Tickets, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(_agent_id: str) -> Any:
        raise sikkerkey_mcp.ConfigError("its key is gone", "install it again")

    monkeypatch.setattr(person, "calls_of", unusable)
    for changes in (FILL, CONFIRM, SHOW):
        ticket = tickets.add(a_ticket(**changes))
        ran = shell(ticket.kind, ticket.code)
        assert (ran.status, keyboard.prompts) == (1, [])
        assert ran.err.endswith("error: its key is gone\nhint: install it again\n")
        assert tickets.find(ticket.code).state == "waiting"
        assert shell(ticket.kind, ticket.code, "--refuse").status == 0


def test_unusual_values_are_told_and_stored_as_they_are(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    blanks, controls = "  it has blanks around it, which are", "  it has control characters, which are"
    for value, told in (
        ("plain value", []),
        (" blank", [blanks]),
        ("tab\t", [blanks]),
        ("up\x1b[A", [controls]),
        (" \x7f", [blanks, controls]),
    ):
        keyboard.typed = [value, ""]
        ran = shell("fill", tickets.add(a_ticket()).code)
        assert [line.removesuffix(" also stored") for line in ran.err.split("\n") if line.startswith("  it ")] == told
        assert calls.sent.pop()[1] == {"": value}


def test_value_that_the_terminal_has_cut_is_refused(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    code = tickets.add(a_ticket()).code
    most = person.TYPED_MAX_BYTES
    for value in ("x" * most, "ø" * (most // 2 + 1), "-----BEGIN PRIVATE KEY-----"):
        keyboard.typed = [value]
        ran = shell("fill", code)
        assert ran.status == 1
        assert ran.err.endswith("for a long value or one of several lines, use --file FILE\n")
        assert (calls.sent, tickets.find(code).state) == ([], "waiting")
    keyboard.typed = ["x" * (most - 1), ""]
    assert shell("fill", code).status == 0


def test_more_than_enter_stores_nothing(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    code = tickets.add(a_ticket()).code
    keyboard.typed = ["first line", "second line"]
    ran = shell("fill", code)
    assert (ran.status, calls.sent, tickets.find(code).state) == (1, [], "waiting")
    assert "more was typed than Enter; nothing was sent\n" in ran.err
    assert "line" not in ran.err.replace("several lines", "")


# fill: which call


def test_only_value_that_waits_is_asked_for(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    tickets.add(a_ticket(**CONFIRM))
    code = tickets.add(a_ticket()).code
    keyboard.typed = ["v", ""]
    ran = shell("fill")
    assert ran.err.startswith('Store the value of the new secret "DB_PASSWORD"\n')
    assert calls.sent == [(code, {"": "v"})]


def test_what_waits_is_listed(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, clock: Clock) -> None:
    confirm = tickets.add(a_ticket(**CONFIRM, expires_s=NOW_S + 59))
    ran = shell("fill")
    assert ran.status == 0
    assert ran.err.endswith(f" confirm {confirm.code}\n")
    first = tickets.add(a_ticket("A\n\x1b[2J", details=(), expires_s=NOW_S + 599))
    second = tickets.add(a_ticket("B"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        ran = shell("fill")
    assert ran.status == 0
    listed = json.loads(shell("fill", "--json").out)
    assert [(each["code"], each["secondsLeft"]) for each in listed] == [
        (confirm.code, 59), (first.code, 599), (second.code, 600)
    ]  # fmt: skip
    rows = [re.split("  +", line) for line in ran.out.splitlines()]
    title = "Store the value of the new secret"
    assert rows == [
        ["CODE", "TIME LEFT", "COMMAND", "PROJECT", "AGENT", "CALL"],
        [confirm.code, "less than a minute", "confirm", "Webshop", "my laptop", CONFIRM["title"]],
        [first.code, "9 minutes", "fill", AGENT_ID, f'{title} "A<U+000A><U+001B>[2J"'],
        [second.code, "10 minutes", "fill", "Webshop", "my laptop", f'{title} "B"'],
    ]
    assert (calls.sent, keyboard.prompts) == ([], [])


def test_nothing_waits(tickets: Tickets, calls: Calls, shell: Shell) -> None:
    ran = shell("fill")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.endswith(
        "error: nothing is waiting\nhint: ask your assistant to try again; a call waits for 10 minutes, "
        f"in {tickets.directory}\n"
    )


def test_code_is_required_where_nobody_can_look(
    tickets: Tickets, calls: Calls, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets.add(a_ticket())
    (tmp_path / "value").write_text("v")
    monkeypatch.setattr(sys, "stdin", io.StringIO("v"))
    for words in (["--file", str(tmp_path / "value")], ["--file", "-"], ["--refuse"]):
        ran = shell("fill", *words)
        assert (ran.status, calls.sent) == (USAGE, [])
        assert "error: a code is required\nhint: " in ran.err


def test_wrong_command_names_the_right_one(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    for changes in (FILL, CONFIRM, SHOW):
        ticket = tickets.add(a_ticket(**changes))
        for wrong in {"fill", "show", "confirm"} - {ticket.kind}:
            ran = shell(wrong, ticket.code)
            assert (ran.status, ran.out) == (USAGE, "")
            assert ran.err.endswith(f"hint: run {command(ticket)}\n"), wrong
    assert (calls.sent, keyboard.prompts, len(tickets.waiting())) == ([], [], 3)


def test_code_that_cannot_be_used_says_what_to_do(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, clock: Clock
) -> None:
    def ended(outcome: Outcome | None) -> str:
        code = tickets.add(a_ticket(**CONFIRM)).code
        tickets.take(code)
        if outcome:
            tickets.finish(code, outcome)
        return code

    expired = tickets.add(a_ticket(**CONFIRM, expires_s=NOW_S + 1)).code
    clock.now_s += 1
    look = "ask your assistant to look before anything is repeated"
    cases = {
        ended(None): ("is being carried out by another program", "look there, or at your assistant's answer"),
        expired: ("has expired; nothing was sent", "ask your assistant to try again; a call waits for 10 minutes"),
        ended(Outcome("done", "Webshop is deleted", {})): ("is done already: Webshop is deleted", person._BACK),
        ended(Outcome("refused", "no", {})): ("was refused: no", "ask your assistant to try again"),
        ended(Outcome("failed", "403\x1b", {})): ("has failed: 403<U+001B>", "ask your assistant to try again"),
        ended(Outcome("unclear", "cut", {})): ("was sent, and the vault may have processed it: cut", look),
    }
    for code, (words, hint) in cases.items():
        for more in ([], ["--refuse"]):
            ran = shell("confirm", code, *more)
            assert (ran.status, ran.out) == (1, "")
            assert ran.err == f"sikkerkey-mcp: error: {code} {words}\nhint: {hint}\n"
    assert calls.sent == []


def test_unknown_code_is_not_repeated(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    for typed in ("AAAA", "hunter2", "4F7", "\x1b[2J", "x" * 5_000):
        for command in ("fill", "show", "confirm"):
            ran = shell(command, typed)
            assert (ran.status, ran.out) == (USAGE, "")
            assert ran.err.startswith(
                "sikkerkey-mcp: error: no call has this code\nhint: a code is 4 letters and digits; "
            )
            assert typed not in ran.err


def test_value_on_the_command_line_is_refused_unrepeated(shell: Shell) -> None:
    for words in (["fill", "4F7K", MARK], ["fill", f"--value={MARK}"], ["confirm", "4F7K", MARK], ["show"]):
        ran = shell(*words)
        assert ran.status in (1, USAGE)
        assert_unmarked(ran.err.encode())


def test_open_directory_is_reported(tickets: Tickets, calls: Calls, shell: Shell) -> None:
    tickets.add(a_ticket())
    Path(tickets.directory).chmod(0o750)
    for words in (["fill"], ["fill", "AAAA"], ["confirm", "AAAA"], ["show", "AAAA"]):
        ran = shell(*words)
        assert ran.status == 1
        assert "waiting is open to other users; chmod 700 closes it" in ran.err
    assert candidates(["fill"], "") == []


# fill: files


class Fed(NamedTuple):
    """Standard input that is not a terminal."""

    buffer: io.BytesIO

    def isatty(self) -> bool:
        return False


def test_file_is_stored_without_the_end_of_a_single_line(
    tickets: Tickets, calls: Calls, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    ending = "  it ends with a line break, which is also stored\n"
    for content, stored, told in (
        ("line\n", "line", "value: 4 characters\n"),
        ("-----BEGIN-----\r\nøø\r\n", "-----BEGIN-----\r\nøø\r\n", "value: 21 characters\n" + ending),
        ("\ufeffx", "\ufeffx", "value: 2 characters\n"),
        ("x" * 100_000, "x" * 100_000, "value: 100,000 characters\n"),
    ):
        path.write_bytes(content.encode())
        for name in (str(path), "-"):
            monkeypatch.setattr(sys, "stdin", Fed(io.BytesIO(content.encode())))
            ran = shell("fill", tickets.add(a_ticket()).code, "--file", name)
            assert ran.status == 0
            assert calls.sent.pop()[1] == {"": stored}
            assert told in ran.err


def test_file_is_asked_about_on_a_terminal(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "value").write_text("v")
    keyboard.typed = [KeyboardInterrupt(), ""]
    assert (shell("fill", "--file", str(tmp_path / "value")).status, calls.sent) == (1, [])  # nothing waits
    code = tickets.add(a_ticket()).code
    assert (shell("fill", code, "--file", str(tmp_path / "value")).status, calls.sent) == (130, [])
    assert shell("fill", "--file", str(tmp_path / "value")).status == 0
    assert calls.sent == [(code, {"": "v"})]
    ran = shell("fill", tickets.add(a_ticket()).code, "--file", "-")
    assert (ran.status, keyboard.typed) == (USAGE, [])
    assert "leave out --file to type the value" in ran.err


def test_structured_file_holds_exactly_the_fields(tickets: Tickets, calls: Calls, shell: Shell, tmp_path: Path) -> None:
    path, code = tmp_path / "fields.json", tickets.add(a_ticket(**STRUCTURED)).code
    good = {"key": MARK + "\n", "user": "a"}
    wrong: list[Any] = [
        {},
        [],
        "text",
        None,
        {**good, "more": "x"},
        {"user": MARK},
        {**good, "user": 7},
        {**good, "user": ""},
    ]
    texts = [json.dumps(value) for value in wrong]
    texts += [MARK, "[" * 50_000, json.dumps(good)[:-1], '{"user": "a", "user": "b", "key": "c"}', "\ufeff{}"]
    for text in texts:
        path.write_text(text)
        ran = shell("fill", code, "--file", str(path))
        assert (ran.status, calls.sent) == (1, []), text[:100]
        assert "must hold a JSON object of exactly these fields, each a text: user, key; nothing was sent\n" in ran.err
        assert_unmarked(ran.err.encode())
    path.write_text(json.dumps(good))
    ran = shell("fill", code, "--file", str(path))
    assert calls.sent == [(code, good)]
    assert list(calls.sent[0][1]) == ["user", "key"]
    assert_unmarked((ran.out + ran.err).encode())


def test_file_that_cannot_be_used_is_refused(tickets: Tickets, calls: Calls, shell: Shell, tmp_path: Path) -> None:
    code = tickets.add(a_ticket()).code
    path = tmp_path / "value"
    for content, words in (
        (b"", "the file is empty; nothing was sent"),
        (b"\xff" + MARK.encode(), "the file is not UTF-8 text; nothing was sent"),
        (b"x" * (person.FILE_MAX_BYTES + 1), "the file is larger than 524,288 bytes; nothing was sent"),
    ):
        path.write_bytes(content)
        ran = shell("fill", code, "--file", str(path))
        assert (ran.status, ran.out, calls.sent) == (1, "", [])
        assert f"error: {words}\nhint: {code} is still waiting; " in ran.err
        assert_unmarked(ran.err.encode())
    for wrong, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        ran = shell("fill", code, "--file", str(wrong))
        assert (ran.status, calls.sent) == (1, [])
        assert f"error: {wrong} cannot be read: {reason}\n" in ran.err
    assert tickets.find(code).state == "waiting"


@on_posix
def test_file_that_others_can_read_is_told(tickets: Tickets, calls: Calls, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a key"
    path.write_text("v")
    for mode, told in ((0o600, False), (0o640, True), (0o604, True), (0o622, False)):
        path.chmod(mode)
        ran = shell("fill", tickets.add(a_ticket()).code, "--file", str(path))
        assert ran.status == 0
        assert (f"{path} can be read by other users of this computer: chmod 600 '{path}'\n" in ran.err) == told, mode


# show


def test_credential_is_shown_to_the_person_alone(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    calls.ends = Carried(Outcome("done", "the token is created", {"id": "e_1"}), (("Token", LINK), ("Note", "a\x1bb")))
    code = tickets.add(a_ticket(**SHOW)).code
    keyboard.typed = [""]
    ran = shell("show", code)
    assert ran.out == f"{code} is done: the token is created\nToken: {LINK}\nNote: a<U+001B>b\n"
    assert ran.err.endswith(
        "your assistant did not see this, and it cannot be shown again: put it where it belongs now\n"
    )
    assert (ran.status, calls.sent) == (0, [(code, {})])
    assert LINK not in ran.err
    assert LINK not in (Path(tickets.directory) / f"{code}.over").read_text()


def test_credential_needs_a_terminal(
    tickets: Tickets, calls: Calls, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    show, both = tickets.add(a_ticket(**SHOW)), tickets.add(a_ticket(shows=True))
    for piped in ("stdout", "stdin"):
        with monkeypatch.context() as patched:
            patched.setattr(terminal, "is_terminal", lambda stream, name=piped: stream is not getattr(sys, name))
            for ticket in [show, both] if piped == "stdout" else [show]:
                ran = shell(ticket.kind, ticket.code)
                assert (ran.status, ran.out, calls.sent) == (USAGE, "", [])
                assert "hint: run the command in a terminal of your own" in ran.err
    assert len(tickets.waiting()) == 2


def test_value_whose_link_is_for_the_person_shows_it(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    calls.ends = Carried(Outcome("done", "the link is created", {}), (("Link", LINK),))
    keyboard.typed = ["v", ""]
    ran = shell("fill", tickets.add(a_ticket(shows=True)).code)
    assert ran.out.endswith(f"\nLink: {LINK}\n")


# confirm


def test_call_happens_if_the_code_is_typed(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change in (str, str.lower, lambda code: f"  {code[:2]} {code[2:]}  "):
        code = tickets.add(a_ticket(**CONFIRM)).code
        monkeypatch.setattr(sys, "stdin", io.StringIO(change(code) + "\n"))
        ran = shell("confirm", code)
        assert (ran.status, calls.sent.pop()) == (0, (code, {}))
        assert "warn: This cannot be undone.\n" in ran.err


def test_anything_else_does_nothing(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, other = tickets.add(a_ticket(**CONFIRM)).code, tickets.add(a_ticket(**CONFIRM)).code
    for typed in (
        "\n",
        "y\n",
        "yes\n",
        f"{other}\n",
        f"{code}{code}\n",
        f"no {code}\n",
        "",
        code[:3] + "\n",
        "x" * 9_999,
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        ran = shell("confirm", code)
        assert (ran.status, ran.out, calls.sent) == (1, "", []), typed
        told = (
            "not confirmed; nothing was sent" if typed else "the input ended; nothing was sent and nothing was changed"
        )
        assert f"error: {told}\nhint: {code} is still waiting; " in ran.err
        assert tickets.find(code).state == "waiting"


def test_confirmation_needs_a_terminal(
    tickets: Tickets, calls: Calls, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tickets.add(a_ticket(**CONFIRM)).code
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{code}\n"))
    ran = shell("confirm", code)
    assert (ran.status, calls.sent, tickets.find(code).state) == (USAGE, [], "waiting")
    assert "error: not a terminal, so nobody can confirm this\nhint: " in ran.err


# refusing, leaving, failing


def test_refusal_is_told(tickets: Tickets, calls: Calls, shell: Shell) -> None:
    for changes in (FILL, CONFIRM, SHOW):
        ticket = tickets.add(a_ticket(**changes))
        ran = shell(ticket.kind, ticket.code, "--refuse")  # needs no terminal
        assert (ran.status, calls.sent, calls.agents) == (0, [], [])
        assert ran.out == f"{ticket.code} is refused, and nothing was sent; your assistant knows\n"
        assert tickets.find(ticket.code).outcome == Outcome("refused", sikkerkey_tickets.REFUSED, {})
    assert shell("fill", "AAAA", "--refuse", "--file", "x").status == USAGE


def test_person_who_leaves_changes_nothing(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.StringIO):
        def readline(self, _limit: Any = -1) -> Any:
            raise KeyboardInterrupt

    for changes, before in ((FILL, []), (FILL, ["v"]), (STRUCTURED, ["v"]), (SHOW, []), (CONFIRM, [])):
        ticket = tickets.add(a_ticket(**changes))
        still = f"{ticket.code} is still waiting; {command(ticket)} --refuse"
        keyboard.typed = [*before, KeyboardInterrupt()]
        monkeypatch.setattr(sys, "stdin", Interrupted())
        ran = shell(ticket.kind, ticket.code)
        assert (ran.status, ran.out) == (130, "")
        assert ran.err.endswith(f"nothing was sent; {still} refuses it\n")
        if ticket.kind != "confirm":
            keyboard.typed = [*before, EOFError()]
            ran = shell(ticket.kind, ticket.code)
            assert (ran.status, ran.out) == (1, "")
            assert ran.err.endswith(f" was entered; nothing was sent\nhint: {still} refuses it\n")
        assert (calls.sent, tickets.find(ticket.code).state) == ([], "waiting")


def test_call_that_does_not_succeed_is_reported(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    look = "ask your assistant to look before anything is repeated"
    for state, hint in (("failed", person._BACK), ("refused", person._BACK), ("unclear", look)):
        calls.ends = Carried(Outcome(state, "the vault answered 409\x1b", {}))  # type: ignore[arg-type]
        keyboard.typed = ["v", ""]
        ran = shell("fill", tickets.add(a_ticket()).code)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.endswith(f"sikkerkey-mcp: error: the vault answered 409<U+001B>\nhint: {hint}\n"), state


def test_value_that_does_not_fit_leaves_the_call_waiting(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell
) -> None:
    calls.ends = Invalid("the value must be at most 12,288 bytes")
    code = tickets.add(a_ticket()).code
    keyboard.typed = [MARK, ""]
    ran = shell("fill", code)
    hint = f"hint: {code} is still waiting: run the command again\n"
    message = f"error: the value must be at most 12,288 bytes\n{hint}"
    assert (ran.status, ran.err.endswith(message), tickets.find(code).state) == (1, True, "waiting")
    assert_unmarked((ran.out + ran.err).encode())


def test_call_that_somebody_else_took_meanwhile(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, clock: Clock
) -> None:
    code = tickets.add(a_ticket()).code
    busy = tickets.find(code)._replace(state="busy")
    for error, status, words in (
        (NotWaiting(busy), 1, f"{code} is being carried out by another program"),
        (sikkerkey_tickets.UnknownCode(), USAGE, "no call has this code"),
    ):
        calls.ends = error
        keyboard.typed = ["v", ""]
        ran = shell("fill", code)
        assert (ran.status, f"error: {words}\n" in ran.err) == (status, True)
    calls.ends = DONE

    def slowly(prompt: str) -> str:
        clock.now_s += 400
        return "" if "Enter" in prompt else "v"

    keyboard.ask = slowly  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(getpass, "getpass", slowly)
        ran = shell("fill", code)
    assert (ran.status, f"error: {code} has expired; nothing was sent\n" in ran.err, calls.sent) == (1, True, [])


def test_stopped_call_is_said_to_be_unclear(tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell) -> None:
    calls.ends = KeyboardInterrupt()
    keyboard.typed = ["v", ""]
    ran = shell("fill", tickets.add(a_ticket()).code)
    assert (ran.status, ran.out) == (130, "")
    assert ran.err.endswith("\nstopped, and the vault may have processed the call: ask your assistant to look\n")


# completion


def test_waiting_codes_are_completed(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sikkerkey_cli.completion.open_tickets", lambda: tickets)
    fill, confirm, show = (tickets.add(a_ticket(**changes)) for changes in (FILL, CONFIRM, SHOW))
    for ticket in (fill, confirm, show):
        offered = candidates([ticket.kind], ticket.code[:1])
        assert [tuple(found) for found in offered] == [(ticket.code, ticket.title)]
    options = ["--help", "--file", "--refuse", "--output", "--json"]
    assert [found.word for found in candidates(["fill", fill.code], "--")] == options
    assert candidates(["fill", "--file"], "") == []
    tickets.take(fill.code)
    assert candidates(["fill"], "") == []


# no value is left anywhere


def test_unexpected_error_shows_no_value(
    tickets: Tickets, calls: Calls, keyboard: Keyboard, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (
        ValueError(MARK),
        KeyError(MARK),
        OSError(5, MARK),
        UnicodeEncodeError("utf-8", MARK, 0, 1, "no"),
        ImportError(MARK),
        RecursionError(MARK),
    ):
        calls.ends = error
        keyboard.typed = [MARK, ""]
        ran = shell("fill", tickets.add(a_ticket()).code)
        assert ran.status == 1
        assert (
            f"error: the program failed ({type(error).__name__}), and the vault may have processed the call\n"
            in ran.err
        )
        assert_unmarked((ran.out + ran.err).encode())
    keyboard.typed = [MARK, ""]
    options = type("Options", (), {"code": tickets.add(a_ticket()).code, "file": "", "refuse": False})()
    with pytest.raises(sikkerkey_mcp.Error) as raised:
        person.command_fill(options)
    assert_unmarked("".join(traceback.format_exception(None, raised.value, raised.value.__traceback__)).encode())


# With real terminals. The child stands for the program with a stub of the server's part; the stub notes the hash of
# what it would send, and looks at every process while it has the value.
PROGRAM = """
import fcntl, hashlib, json, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
import sikkerkey_mcp
from sikkerkey_tickets import Carried, Outcome, Tickets
from sikkerkey_cli import person
tickets = Tickets(os.environ["TEST_TICKETS"], lambda: 1_900_000_000.0)
class Calls:
    def carry_out(self, code, values):
        tickets.take(code)
        sent = json.dumps([code, {name: hashlib.sha256(value.encode()).hexdigest() for name, value in values.items()}])
        print("stub:" + sent, flush=True)
        if os.environ.get("TEST_FAILS"):
            raise ValueError(*values.values())
        sys.stdin.readline()  # until the test has looked at the processes
        tickets.finish(code, Outcome("done", "stored", {}))
        return Carried(Outcome("done", "stored", {}), (("Token", "t0ken"),) if not values else ())
sikkerkey_mcp.person_calls = lambda agent_id: Calls()
person.open_tickets = lambda: tickets
person.PASTE_PAUSE_S = float(os.environ.get("TEST_PAUSE_S", "0.2"))
from sikkerkey_cli.__main__ import main
status = main()
os.set_blocking(0, False)
try:
    print("a shell would read:", os.read(0, 100), flush=True)
except BlockingIOError:
    print("a shell would read: nothing", flush=True)
sys.exit(status)
"""


def started(tickets: Tickets, words: Sequence[str], **env: str) -> Terminal:
    """The stub at a terminal."""
    env = {"PYTHONPATH": str(ROOT), "TEST_TICKETS": tickets.directory, "NO_COLOR": "1", **env}
    return Terminal([sys.executable, "-c", PROGRAM, *words], env)


def sent(shown: str) -> list[Any]:
    """What the stub would have sent."""
    return [json.loads(line) for line in re.findall("stub:(.*?)\r\n", shown)]


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


@on_posix
def test_typed_value_leaves_no_trace(tickets: Tickets, effects: SideEffects) -> None:  # noqa: F811
    code = tickets.add(a_ticket(**STRUCTURED)).code
    screen = started(tickets, ["fill", code])
    screen.type("user: ", MARK + "\n")
    screen.type("key: ", MARK[:-1] + "\n")
    screen.type("press Enter", "\n")
    screen.type("stub:", "")
    effects.look_at_processes()
    screen.type("stub:", "\n")
    talk = screen.end()
    assert sent(talk.shown) == [[code, {"user": hashed(MARK), "key": hashed(MARK[:-1])}]]
    assert (talk.status, f"{code} is done: stored\r\n" in talk.shown) == (0, True)
    seen = b"\0".join([talk.shown.encode(), effects.files(), *effects.processes])
    assert code.encode() in seen
    assert_unmarked(seen, MARK[:-1])


@on_posix
def test_program_that_fails_leaves_no_trace(tickets: Tickets, effects: SideEffects) -> None:  # noqa: F811
    screen = started(tickets, ["fill", tickets.add(a_ticket()).code], TEST_FAILS="1", PYTHONFAULTHANDLER="1")
    screen.type("value: ", MARK + "\n")
    screen.type("press Enter", "\n")
    talk = screen.end()
    assert (talk.status, "the program failed (ValueError)" in talk.shown) == (1, True)
    assert_unmarked(talk.shown.encode() + effects.files())


@on_posix
def test_ctrl_c_and_ctrl_d_leave_a_clean_line_and_the_call(tickets: Tickets) -> None:
    code, other = tickets.add(a_ticket()).code, tickets.add(a_ticket(**CONFIRM)).code
    for words, after, key, status in (
        (["fill", code], "value: ", b"half a value\x03", 130),
        (["fill", code], "value: ", b"\x04", 1),
        (["confirm", other], "to confirm: ", b"\x03", 130),
        (["confirm", other], "to confirm: ", b"\x04", 1),
    ):
        screen = started(tickets, words)
        screen.type(after, key)
        talk = screen.end()
        assert (talk.status, sent(talk.shown)) == (status, []), words
        last = talk.shown.partition(after)[2].partition("a shell would")[0].split("\r\n")
        assert last[0] in ("", "^C"), last
        assert f"{words[1]} is still waiting" in last[-2]
        assert last[-1] == ""
        assert "half" not in talk.shown
        assert tickets.find(words[1]).state == "waiting"


@on_posix
def test_pasted_lines_are_not_stored_in_part(tickets: Tickets) -> None:
    code = tickets.add(a_ticket()).code
    lines = "c2VjcmV0 and so on\n" * 1_000  # longer than what a terminal keeps
    for pasted in (f"-----BEGIN KEY-----\n{lines}-----END KEY-----\n", "x" * 6_000 + "\n"):
        screen = started(tickets, ["fill", code], TEST_PAUSE_S="1.0" if lines in pasted else "0.0")
        screen.type("value: ", pasted)
        talk = screen.end()
        assert "a shell would read: nothing" in talk.shown
        assert (talk.status, sent(talk.shown), tickets.find(code).state) == (1, [], "waiting")
        assert "use --file FILE" in talk.shown
        assert "c2VjcmV0" not in talk.shown


@on_posix
def test_code_is_typed_and_credential_shown_at_a_terminal(tickets: Tickets) -> None:
    code = tickets.add(a_ticket(**CONFIRM)).code
    screen = started(tickets, ["confirm", code])
    screen.type("to confirm: ", code.lower() + "\n\n")
    assert sent(screen.end().shown) == [[code, {}]]
    code = tickets.add(a_ticket(**SHOW)).code
    screen = started(tickets, ["show", code])
    screen.type("press Enter", "\n")
    screen.type("stub:", "\n")
    talk = screen.end()
    assert talk.shown.count("Token: t0ken\r\n") == 1
    assert tickets.find(code).state == "over"
