"""`fill`, `show` and `confirm`: a person completes a call of the assistant in a terminal.

Each command shows the call first. What is typed and what is created exist in this process and in the vault only: they
are never in an argument, the environment, a file or an error. The call runs as the agent that asked for it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import stat
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_shell
import sikkerkey_tickets
from sikkerkey_cli import tables, terminal
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import ConfigError, Error, clean, print_notice
from sikkerkey_tickets import Carried, Found, Invalid, Kind, Lines, NotWaiting, Ticket, Tickets, UnknownCode

FILE_MAX_BYTES = 512 * 1024  # the largest value is 100 KB
DETAIL_MAX_CHARACTERS = 300
QUOTED_MAX_CHARACTERS = 1_000  # more of the assistant's words would push what matters off the screen
QUOTED_MAX_LINES = 8
# A terminal silently drops the characters of a line beyond this.
TYPED_MAX_BYTES = 1_023 if sys.platform == "darwin" else 4_095
PASTE_PAUSE_S = 0.2  # a paste has arrived when nothing comes for this long
MINUTES = int(sikkerkey_tickets.LIFE_S // 60)
VERBS: dict[Kind, str] = {"fill": "type a value", "show": "be shown a credential", "confirm": "be confirmed"}


class PersonCalls(Protocol):
    """Sends the calls of one agent's tickets, as that agent."""

    def carry_out(self, code: str, values: Mapping[str, str], /) -> Carried:
        """Takes the ticket, sends its call and finishes it. Raises NotWaiting, UnknownCode, Invalid, or Error."""


def calls_of(agent_id: str) -> PersonCalls:
    """What sends the calls of an agent. Raises ConfigError if the agent cannot be used."""
    return sikkerkey_mcp.person_calls(agent_id)


def open_tickets() -> Tickets:
    """The tickets of this user."""
    return Tickets(sikkerkey_identity.tickets_directory())


# ---------------------------------------------------------------------------------------------------------------------
# the commands
# ---------------------------------------------------------------------------------------------------------------------


def command_fill(options: argparse.Namespace) -> int:
    """Asks for a value, or reads it from a file, and stores it. Without a code: lists what waits."""
    with _plain_errors():
        tickets = open_tickets()
        ticket = _find(tickets, options.code, "fill") if options.code else _only_one(tickets, options)
        if ticket is None:
            return 0
        _describe(tickets, ticket)
        if options.refuse:
            return _refuse(tickets, ticket)
        if ticket.shows:
            _require_terminal_output()
        if ticket.unlocks:
            return _unlock(tickets, ticket)
        calls = calls_of(ticket.agent_id)  # before anybody types: a missing key is reported first
        with _nothing_sent(ticket), _without_echo():
            values = _from_file(ticket, options.file) if options.file else _typed(ticket)
            _tell_lengths(values)
            if terminal.is_terminal(sys.stdin):
                _press_enter("store it" if len(values) == 1 else "store them")
        return _carry_out(calls, ticket, values)


def _unlock(tickets: Tickets, ticket: Ticket) -> int:
    """Asks for the passphrase of an agent's key, and hands it to the server that waits for it. Raises Error."""
    import sikkerkey_unlock  # it loads an HTTP client

    _require_terminal_input("nobody can type the passphrase")
    with _nothing_sent(ticket), _without_echo():
        while True:
            typed = terminal.prompt_hidden("passphrase")
            with terminal.Progress("waiting for the assistant's server"):
                found = sikkerkey_unlock.hand_over(tickets, ticket, typed)
            if found.state == "over":
                break
            print_notice("this is not the passphrase")
    if found.outcome != sikkerkey_unlock.UNLOCKED:
        raise _over(found)
    print(f"{ticket.code} is done: {found.outcome.message}")
    print_notice("go back to your assistant and ask it to try again")
    return 0


def command_show(options: argparse.Namespace) -> int:
    """Creates a credential and shows it to the person alone."""

    def agree(_ticket: Ticket) -> None:
        _press_enter("create it and show it here")

    return _agreed(options, "show", "nobody can agree to this", agree)


def command_confirm(options: argparse.Namespace) -> int:
    """Carries out a call after the person has typed its code."""
    return _agreed(options, "confirm", "nobody can confirm this", _type_the_code)


def _agreed(options: argparse.Namespace, kind: Kind, without_terminal: str, agree: Callable[[Ticket], None]) -> int:
    """Shows the call of a code, and carries it out unless `agree` raises Error."""
    with _plain_errors():
        tickets = open_tickets()
        ticket = _find(tickets, options.code, kind)
        _describe(tickets, ticket)
        if options.refuse:
            return _refuse(tickets, ticket)
        if ticket.shows:
            _require_terminal_output()
        _require_terminal_input(without_terminal)
        calls = calls_of(ticket.agent_id)
        with _nothing_sent(ticket):
            agree(ticket)
        return _carry_out(calls, ticket, {})


def _refuse(tickets: Tickets, ticket: Ticket) -> int:
    tickets.refuse(ticket.code, sikkerkey_tickets.REFUSED)
    print(f"{ticket.code} is refused, and nothing was sent; your assistant knows")
    return 0


def _carry_out(calls: PersonCalls, ticket: Ticket, values: Mapping[str, str]) -> int:
    """Sends the call and says what happened. Raises Error."""
    try:
        with terminal.Progress("waiting for the vault"):
            outcome, shown = calls.carry_out(ticket.code, values)
    except (NotWaiting, UnknownCode, Error):
        raise
    except Invalid as error:
        raise Error(str(error), f"{ticket.code} is still waiting: run the command again") from None
    except KeyboardInterrupt:
        message = "stopped, and the vault may have processed the call: ask your assistant to look"
        raise KeyboardInterrupt(message) from None
    except Exception as error:  # its text may quote a value
        message = f"the program failed ({type(error).__name__}), and the vault may have processed the call"
        raise Error(message, "ask your assistant to look before anything is repeated") from None
    if outcome.state != "done":
        hint = "ask your assistant to look before anything is repeated" if outcome.state == "unclear" else _BACK
        raise Error(terminal.cleaned(outcome.message), hint)
    print(f"{ticket.code} is done: {clean(outcome.message)}", flush=True)
    for label, text in shown:
        print(f"{clean(label)}: {terminal.cleaned(text)}", flush=True)
    if shown:
        print_notice("your assistant did not see this, and it cannot be shown again: put it where it belongs now")
    else:
        print_notice(_BACK)
    return 0


_BACK = "go back to your assistant, which knows the outcome"


# ---------------------------------------------------------------------------------------------------------------------
# which call
# ---------------------------------------------------------------------------------------------------------------------


def _find(tickets: Tickets, code: str, kind: Kind) -> Ticket:
    """The waiting ticket of a code. Raises Error if it does not wait, or waits for another command."""
    found = tickets.find(code)
    if found.state != "waiting":
        raise NotWaiting(found)
    ticket = found.ticket
    if ticket.kind != kind:
        raise UsageError(f"{ticket.code} waits to {VERBS[ticket.kind]}", f"run {_command(ticket.kind, ticket.code)}")
    return ticket


def _only_one(tickets: Tickets, options: argparse.Namespace) -> Ticket | None:
    """The only ticket that waits for a value; None if what waits was listed instead. Raises Error."""
    waiting = tickets.waiting()
    for_values = [ticket for ticket in waiting if ticket.kind == "fill"]
    if options.json:
        print(json.dumps([_as_members(tickets, ticket) for ticket in waiting], indent=2))
        return None
    if not waiting:
        hint = f"ask your assistant to try again; a call waits for {MINUTES} minutes, in {clean(tickets.directory)}"
        raise Error("nothing is waiting", hint)
    if options.refuse or (options.file and not terminal.is_terminal(sys.stdin)):
        raise UsageError("a code is required", f"{_command('fill')} lists what is waiting")
    if len(for_values) == 1 and not options.table:
        return for_values[0]
    rows = [
        (
            ticket.code,
            _minutes(tickets, ticket),
            ticket.kind,
            terminal.cell(dict(ticket.details).get("Project", "")),
            terminal.cell(dict(ticket.details).get("Agent", ticket.agent_id)),
            terminal.cell(ticket.title),
        )
        for ticket in waiting
    ]
    print(tables.fitted([("CODE", "TIME LEFT", "COMMAND", "PROJECT", "AGENT", "CALL"), *rows], terminal.width()))
    print_notice(f"choose one: {_command(waiting[0].kind, waiting[0].code)}")
    return None


def _as_members(tickets: Tickets, ticket: Ticket) -> dict[str, str | int]:
    """A waiting call for --json."""
    details = dict(ticket.details)
    members: dict[str, str | int] = {
        "code": ticket.code,
        "secondsLeft": int(tickets.left_s(ticket)),
        "command": ticket.kind,
    }
    about = {"project": details.get("Project", ""), "agent": details.get("Agent", ticket.agent_id)}
    return {**members, **about, "agentId": ticket.agent_id, "call": ticket.title}


def _command(*words: str) -> str:
    return sikkerkey_shell.command_line([*sikkerkey_mcp.program(), *words])


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Says what to do about a ticket that cannot be used. Raises Error for every exception of the tickets."""
    try:
        yield
    except UnknownCode:
        # Not repeated: somebody may have typed a value in its place.
        hint = (
            f"a code is 4 letters and digits; `{_command('fill')}` lists what is waiting. A value is never an argument"
        )
        raise UsageError("no call has this code", hint) from None
    except NotWaiting as error:
        raise _over(error.found) from None
    except sikkerkey_tickets.TicketsUnusable as error:
        raise ConfigError(clean(str(error))) from None


def _over(found: Found) -> Error:
    code, outcome = found.ticket.code, found.outcome
    if found.state != "over":
        return Error(f"{code} is being carried out by another program", "look there, or at your assistant's answer")
    if outcome is None:
        hint = f"ask your assistant to try again; a call waits for {MINUTES} minutes"
        return Error(f"{code} has expired; nothing was sent", hint)
    said = terminal.cleaned(outcome.message)
    if outcome.state == "done":
        return Error(f"{code} is done already: {said}", _BACK)
    if outcome.state == "unclear":
        message = f"{code} was sent, and the vault may have processed it: {said}"
        return Error(message, "ask your assistant to look before anything is repeated")
    verb = "was refused" if outcome.state == "refused" else "has failed"
    return Error(f"{code} {verb}: {said}", "ask your assistant to try again")


# ---------------------------------------------------------------------------------------------------------------------
# what is shown
# ---------------------------------------------------------------------------------------------------------------------


def _describe(tickets: Tickets, ticket: Ticket) -> None:
    """Shows the call on stderr: the assistant's words first, so that none of them can stand where the question is."""
    parts = [textwrap.fill(clean(ticket.title), _columns(0), subsequent_indent="    ")]
    if ticket.quoted:
        parts.append("Words that your assistant chose:\n" + _aligned(ticket.quoted, quote=True))
    details = (*ticket.details, ("Time left", _minutes(tickets, ticket)), ("Code", ticket.code))
    parts.append(_aligned(details, quote=False))
    if ticket.warning:
        parts.append(f"{terminal.coloured('warn', sys.stderr)}: {clean(ticket.warning)}")
    parts.append("Continue only if your assistant shows the same code.")
    sys.stderr.write("\n\n".join(parts) + "\n\n")
    sys.stderr.flush()


def _aligned(lines: Lines, *, quote: bool) -> str:
    """Labels and texts. No line of a text begins where a label could stand, whatever is in it."""
    labels = [clean(label, 30) for label, _ in lines]
    indent = 4 + max(map(len, labels))
    return "\n".join(
        f"  {label:{indent - 4}}  " + f"\n{' ' * indent}".join(_wrapped(text, indent, quote=quote))
        for label, (_, text) in zip(labels, lines)
    )


def _wrapped(text: str, indent: int, *, quote: bool) -> list[str]:
    """`text` as lines that fit the terminal, cleaned and bounded."""
    if not quote:
        return textwrap.wrap(clean(text, DETAIL_MAX_CHARACTERS), _columns(indent)) or [""]
    shown = sikkerkey_mcp.readable(text[:QUOTED_MAX_CHARACTERS]).expandtabs(4)
    lines = [piece for line in shown.split("\n") for piece in textwrap.wrap(line, _columns(indent + 2)) or [""]]
    if len(text) > QUOTED_MAX_CHARACTERS or len(lines) > QUOTED_MAX_LINES:
        lines = [*lines[:QUOTED_MAX_LINES], "..."]
    return f'"{NEXT_LINE.join(lines)}"'.split(NEXT_LINE[0])


NEXT_LINE = "\n "  # one blank for the quotation mark


def _columns(indent: int) -> int:
    return max(min(shutil.get_terminal_size().columns, 100) - indent - 1, 20)


def _minutes(tickets: Tickets, ticket: Ticket) -> str:
    minutes = int(tickets.left_s(ticket) // 60)
    return _count(minutes, "minute") if minutes > 0 else "less than a minute"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------------------------------------------------------------
# what is asked
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _nothing_sent(ticket: Ticket) -> Iterator[None]:
    """Says that the call still waits if the person ends the command, or if what they gave is refused."""
    still_waiting = f"{ticket.code} is still waiting; {_command(ticket.kind, ticket.code, '--refuse')} refuses it"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"nothing was sent; {still_waiting}") from None
    except UsageError:
        raise
    except Error as error:
        error.hint = error.hint or still_waiting
        raise


def _require_terminal_input(consequence: str) -> None:
    terminal.require_terminal(consequence, "run the command in a terminal of your own")


def _require_terminal_output() -> None:
    """Raises UsageError unless the result goes to a terminal: an assistant could read a file or a pipe."""
    if not terminal.is_terminal(sys.stdout):
        message = "standard output is not a terminal, so the credential cannot be shown to you alone"
        raise UsageError(message, "run the command in a terminal of your own, without a pipe")


def _typed(ticket: Ticket) -> dict[str, str]:
    """The values that the person types, without showing them. Raises Error."""
    terminal.require_terminal("nobody can type the value", "--file FILE reads it; - is standard input")
    return {field: _ask(clean(field, 60) or "value") for field in ticket.fields}


def _ask(name: str) -> str:
    while not (value := terminal.prompt_hidden(name)):
        print_notice("an empty value is not stored")
    if len(value.encode("utf-8")) >= TYPED_MAX_BYTES:
        raise _pasted(f"a terminal cuts a line after {TYPED_MAX_BYTES:,} bytes")
    if value.startswith("-----BEGIN "):
        raise _pasted("only the first line of the key was read")
    return value


def _pasted(message: str) -> Error:
    """The error for what was not typed but pasted. The shell must not run the lines that are still arriving."""
    with _without_echo(lines=False) as silent:
        while silent and select.select([sys.stdin], [], [], PASTE_PAUSE_S)[0]:
            if not os.read(sys.stdin.fileno(), 65_536):
                break
    return Error(f"{message}; nothing was sent", "for a long value or one of several lines, use --file FILE")


@contextmanager
def _without_echo(*, lines: bool = True) -> Iterator[bool]:
    """A terminal that shows nothing of what is typed; False if there is none to set, as on Windows.

    getpass does the same for one prompt. In between, the terminal would show what is left of a paste. Without `lines`,
    input can be read before the end of a line.
    """
    try:
        import termios  # not at the top: Windows has none
    except ImportError:
        yield False
        return
    if not terminal.is_terminal(sys.stdin):
        yield False
        return
    settings = termios.tcgetattr(sys.stdin)
    silent = [*settings]
    silent[3] &= ~(termios.ECHO if lines else termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, settings)


def _tell_lengths(values: Mapping[str, str]) -> None:
    """Says how much was read. This shows a paste that went wrong, so nobody has to type a value twice."""
    for field, value in values.items():
        print_notice(f"{clean(field, 60) or 'value'}: {_count(len(value), 'character')}")
        _tell_unusual(value)


def _tell_unusual(value: str) -> None:
    if value.endswith("\n"):
        print_notice("  it ends with a line break, which is also stored")
    if value.strip(" \t") != value:
        print_notice("  it has blanks around it, which are also stored")
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", value):
        print_notice("  it has control characters, which are also stored")


def _press_enter(what: str) -> None:
    """Waits for Enter. Not shown, because the rest of a paste may arrive here. Raises Error for anything else."""
    if terminal.prompt_hidden(f"press Enter to {what}, Ctrl-C to stop") not in ("", "y", "yes"):
        raise _pasted("more was typed than Enter")


def _type_the_code(ticket: Ticket) -> None:
    """Raises Error unless the person types the code."""
    typed = terminal.ask("type the code to confirm: ")
    try:
        confirmed = sikkerkey_tickets.normal_code(typed) == ticket.code
    except UnknownCode:
        confirmed = False
    if not confirmed:
        raise Error("not confirmed; nothing was sent")


# ---------------------------------------------------------------------------------------------------------------------
# files
# ---------------------------------------------------------------------------------------------------------------------


def _from_file(ticket: Ticket, path: str) -> dict[str, str]:
    """The values in a file: one text, without the end of a single line, or JSON for fields. Raises Error."""
    text = terminal.without_line_end(_read(path))
    if not text:
        raise Error("the file is empty; nothing was sent")
    return {"": text} if ticket.fields == ("",) else _members(ticket, text)


def _members(ticket: Ticket, text: str) -> dict[str, str]:
    names = ", ".join(clean(field, 60) for field in ticket.fields)
    rule = Error(f"the file must hold a JSON object of exactly these fields, each a text: {names}; nothing was sent")
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        raise rule from None
    values: dict[str, Any] = dict(pairs) if isinstance(pairs, _Pairs) else {}
    if set(values) != set(ticket.fields) or len(pairs) != len(values):
        raise rule
    if not all(isinstance(value, str) and value for value in values.values()):
        raise rule
    return {field: values[field] for field in ticket.fields}


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, including those that are given twice."""


def _read(path: str) -> str:
    if path == "-":
        if sys.stdin is None or terminal.is_terminal(sys.stdin):
            raise UsageError("--file - reads a pipe or a file", "leave out --file to type the value")
        data = sys.stdin.buffer.read(FILE_MAX_BYTES + 1)
    else:
        try:
            with open(path, "rb") as file:
                data = file.read(FILE_MAX_BYTES + 1)
                _tell_open_mode(path, os.fstat(file.fileno()))
        except OSError as error:
            raise ConfigError(f"{clean(path)} cannot be read: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"the file is larger than {FILE_MAX_BYTES:,} bytes; nothing was sent")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text; nothing was sent") from None


def _tell_open_mode(path: str, found: os.stat_result) -> None:
    if os.name == "posix" and stat.S_ISREG(found.st_mode) and found.st_mode & 0o044:
        fix = sikkerkey_shell.make_private(path, directory=False)
        print_notice(f"{clean(path)} can be read by other users of this computer: {fix}")
