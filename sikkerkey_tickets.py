"""Tickets: calls that a person has to complete, as private files that several processes act on.

A ticket says what is to be done and what the person has to type, but never a value. The server's page, the commands
`fill`, `show` and `confirm` and a restarted server all see the same files, and only one of them can take a ticket:

    CODE.waiting --take--> CODE.busy --finish--> CODE.over
         ^------give_back------/

Taking is one rename, which exactly one process wins. This module imports no other module of this project.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

JsonObject = dict[str, Any]

LIFE_S = 600.0  # how long a ticket waits for its person
CLOCK_STEP_S = 60.0  # by how much a clock may be corrected while a ticket waits
SENDING_MAX_S = 120.0  # a call that was taken just before its end is given this long
KEPT_S = 3_600.0  # after that, so that a late question about it gets an answer
WAITING_MAX = 20  # in all processes of this user
FILE_MAX_BYTES = 512 * 1024  # arguments without plaintext are far smaller
CODE_CHARACTERS = 4
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without what people mix up

UNLOCK = "unlock"  # no tool of the vault has this name

Kind = Literal["fill", "show", "confirm"]
State = Literal["waiting", "busy", "over"]
Ending = Literal["done", "refused", "failed", "unclear"]
STATES: tuple[State, ...] = ("over", "waiting", "busy")  # over first: for a moment, a ticket is busy and over
ENDINGS: tuple[Ending, ...] = ("done", "refused", "failed", "unclear")
WINDOWS = os.name == "nt"
ATTEMPTS_MAX = 50  # there, half a second

Lines = tuple[tuple[str, str], ...]  # labels and texts


class Ticket(NamedTuple):
    """A call that waits for a person. Nothing in it is secret; `code` is empty until it is added."""

    code: str
    agent_id: str
    tool: str
    action: str
    arguments: JsonObject  # as the client sent them, without plaintext
    digest: str  # see digest_of
    title: str  # what will happen, in one line
    details: Lines  # with the vault's own names
    quoted: Lines  # what the assistant chose, such as the name of a new secret
    warning: str  # such as: this cannot be undone; may be empty
    fields: tuple[str, ...]  # to type: an empty name for a plain value, names for a structured one
    shows: bool  # the call creates a credential that only the person sees
    expires_s: float  # Unix time

    @property
    def kind(self) -> Kind:
        """What the person does with it, which is also the name of the command for it."""
        return "fill" if self.fields else "show" if self.shows else "confirm"

    @property
    def unlocks(self) -> bool:
        """Whether it asks for the passphrase of the agent's key, and not for a value."""
        return self.tool == UNLOCK


class Outcome(NamedTuple):
    """How a ticket ended, for person and model: no value and no credential is in it.

    `unclear` means that the vault may have processed the request. `answer` holds ids, a version and the like.
    """

    state: Ending
    message: str
    answer: JsonObject


class Found(NamedTuple):
    """A ticket and where it stands. Over without an outcome: it has expired."""

    state: State
    ticket: Ticket
    outcome: Outcome | None


class Carried(NamedTuple):
    """What happened to a ticket's call, for the person: `shown` are labels and credentials for their eyes only."""

    outcome: Outcome
    shown: Lines = ()


# Sends the call of a ticket with the typed values by their fields. Raises NotWaiting, UnknownCode, or Invalid.
CarryOut = Callable[[str, Mapping[str, str]], Carried]


class Invalid(Exception):
    """What was typed does not fit. The message says the rule, never the value. The ticket waits again."""


class UnknownCode(Exception):
    """There is no ticket of that code."""


class NotWaiting(Exception):
    """Somebody else has taken the ticket, or it is over."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found


class TooManyWaiting(Exception):
    """WAITING_MAX tickets wait already."""


class TicketsUnusable(Exception):
    """The directory cannot be used; the message says why."""


class CallTooLarge(TicketsUnusable):
    """A call has more than FILE_MAX_BYTES, and so cannot become a ticket."""

    def __init__(self) -> None:
        super().__init__(f"a call of more than {FILE_MAX_BYTES:,} bytes cannot wait for a person")


REFUSED = "the person refused; do not ask again unless the person asks for it"
NOT_RECORDED = Outcome("unclear", "the program that sent the call has not recorded the outcome", {})


def digest_of(agent_id: str, tool: str, action: str, arguments: JsonObject) -> str:
    """What binds a ticket and a person's yes to one call of one agent."""
    text = json.dumps([agent_id, tool, action, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Stored(NamedTuple):
    """The content of a ticket's file."""

    ticket: Ticket
    outcome: Outcome | None = None
    delivered: bool = False  # the model knows the outcome


class Tickets:
    """The tickets in one directory, which belongs to this user alone. `now_s` is Unix time.

    Every method raises TicketsUnusable if others can change the directory. `code` may be as a person types it.
    """

    def __init__(self, directory: str, now_s: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._now_s = now_s

    def add(self, ticket: Ticket) -> Ticket:
        """Stores a ticket under a new code. Raises TooManyWaiting, or TicketsUnusable."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise TicketsUnusable(f"{self.directory} cannot be made: {error.strerror}") from None
        self._remove_old()
        if len(self.waiting()) >= WAITING_MAX:
            raise TooManyWaiting
        while True:
            code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS))
            with suppress(FileExistsError):
                return self._add(ticket._replace(code=code))

    def find(self, code: str) -> Found:
        """The ticket of a code. Raises UnknownCode."""
        code = normal_code(code)
        self._check_directory()
        for _ in range(3):  # it may be renamed while the states are tried
            for state in STATES:
                stored = self._read(code, state)
                if stored:
                    return self._found(state, stored)
        raise UnknownCode

    def same(self, digest: str) -> Found | None:
        """The newest unexpired ticket for the same call, unless the model knows its outcome already."""
        found = [
            self._found(state, stored)
            for state, stored in self._all()
            if stored.ticket.digest == digest and not stored.delivered and not self._is_late(state, stored.ticket)
        ]
        return max(found, key=lambda each: each.ticket.expires_s, default=None)

    def waiting(self) -> list[Ticket]:
        """The tickets that can be taken, oldest first."""
        found = [stored.ticket for state, stored in self._all() if state == "waiting"]
        return sorted(
            (ticket for ticket in found if not self._is_late("waiting", ticket)), key=lambda ticket: ticket.expires_s
        )

    def left_s(self, ticket: Ticket) -> float:
        """The time until the ticket expires."""
        return ticket.expires_s - self._now_s()

    def take(self, code: str) -> Ticket:
        """Makes the ticket this process's own. Raises NotWaiting, or UnknownCode."""
        found = self.find(code)
        if found.state != "waiting":
            raise NotWaiting(found)
        try:
            self._move(found.ticket.code, "waiting", "busy")
        except FileNotFoundError:
            raise NotWaiting(self.find(code)) from None
        return found.ticket

    def give_back(self, code: str) -> None:
        """Lets a taken ticket wait again: nothing was sent."""
        self._move(normal_code(code), "busy", "waiting")

    def finish(self, code: str, outcome: Outcome) -> None:
        """Ends a taken ticket. If the outcome cannot be stored (a full disk), it becomes `unclear` when it expires."""
        with suppress(TicketsUnusable):
            self._end(normal_code(code), outcome)

    def refuse(self, code: str, message: str) -> None:
        """Ends a waiting ticket without the call. Raises NotWaiting, UnknownCode, or TicketsUnusable."""
        ticket = self.take(code)
        try:
            self._end(ticket.code, Outcome("refused", message, {}))
        except TicketsUnusable:
            self.give_back(ticket.code)
            raise

    def delivered(self, code: str) -> None:
        """Notes that the model knows the outcome, so that the same call asks a person again."""
        stored = self._read(normal_code(code), "over")
        if stored:
            with suppress(TicketsUnusable):  # then the same call gets this outcome once more
                self._write("over", stored._replace(delivered=True))

    def _add(self, ticket: Ticket) -> Ticket:
        """Stores it. Raises FileExistsError if the code is in use. An empty file reserves it among processes."""
        reserved = os.path.join(self.directory, f"{ticket.code}.new")
        self._create(reserved, b"")
        try:
            if any(os.path.lexists(self._path(ticket.code, state)) for state in STATES):
                raise FileExistsError
            self._write("waiting", _Stored(ticket))
        finally:
            with suppress(OSError):
                os.unlink(reserved)
        return ticket

    def _end(self, code: str, outcome: Outcome) -> None:
        stored = self._read(code, "busy")
        if stored:
            self._write("over", stored._replace(outcome=outcome))
            with suppress(OSError):
                _retry(lambda: os.unlink(self._path(code, "busy")))

    def _found(self, state: State, stored: _Stored) -> Found:
        ticket, outcome, _ = stored
        if self._is_late(state, ticket) and state != "over":
            return Found("over", ticket, NOT_RECORDED if state == "busy" else None)
        return Found(state, ticket, outcome)

    def _is_late(self, state: State, ticket: Ticket) -> bool:
        least_s = -SENDING_MAX_S if state == "busy" else 0.0
        return (
            not least_s < self.left_s(ticket) <= LIFE_S + CLOCK_STEP_S
        )  # a clock that is set back makes no ticket live longer

    def _all(self) -> Iterator[tuple[State, _Stored]]:
        for name in self._names():
            code, _, ending = name.partition(".")
            for state in STATES:
                stored = self._read(code, state) if state == ending else None
                if stored:
                    yield state, stored

    def _names(self) -> list[str]:
        if not self._check_directory():
            return []
        try:
            return sorted(os.listdir(self.directory))
        except OSError as error:
            raise TicketsUnusable(f"{self.directory} cannot be read: {error.strerror}") from None

    def _path(self, code: str, state: State) -> str:
        return os.path.join(self.directory, f"{code}.{state}")

    def _check_directory(self) -> bool:
        """Whether it exists. Raises TicketsUnusable if others can use it: they could let a ticket wait again."""
        try:
            found = os.lstat(self.directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise TicketsUnusable(f"{self.directory} cannot be read: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise TicketsUnusable(f"{self.directory} is not a directory")
        if hasattr(os, "getuid") and found.st_uid != os.getuid():
            raise TicketsUnusable(f"{self.directory} belongs to another user")
        if hasattr(os, "getuid") and found.st_mode & 0o077:
            raise TicketsUnusable(f"{self.directory} is open to other users; chmod 700 closes it")
        return True

    def _remove_old(self) -> None:
        """Removes what nobody asks for any more, and files that a killed process left."""
        for name in self._names():
            path = os.path.join(self.directory, name)
            with suppress(OSError):
                if abs(self._now_s() - os.lstat(path).st_mtime) > LIFE_S + KEPT_S:
                    os.unlink(path)

    def _move(self, code: str, old: State, new: State) -> None:
        """Raises FileNotFoundError if the ticket is not in the state `old`, or TicketsUnusable."""
        try:
            _retry(lambda: os.rename(self._path(code, old), self._path(code, new)))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unwritable(error) from None

    def _write(self, state: State, stored: _Stored) -> None:
        code, outcome = stored.ticket.code, stored.outcome
        members = {**stored._asdict(), "ticket": stored.ticket._asdict(), "outcome": outcome and outcome._asdict()}
        data = json.dumps(members).encode()
        if len(data) > FILE_MAX_BYTES:
            raise CallTooLarge
        temporary = os.path.join(self.directory, f"{code}.{secrets.token_hex(6)}.new")
        try:
            self._create(temporary, data)
            _retry(lambda: os.replace(temporary, self._path(code, state)))
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            raise self._unwritable(error) from None

    def _create(self, path: str, data: bytes) -> None:
        """Creates a private file. Raises FileExistsError, and TicketsUnusable."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(data)
            os.utime(path, (self._now_s(), self._now_s()))  # the clock that _remove_old compares it with
        except FileExistsError:
            raise
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> TicketsUnusable:
        return TicketsUnusable(f"{self.directory} cannot be written: {error.strerror}")

    def _read(self, code: str, state: State) -> _Stored | None:
        """What the file holds; None if there is no such file, or if it is no ticket."""
        try:
            with open(self._path(code, state), "rb", opener=_open_private) as file:
                data = file.read(FILE_MAX_BYTES + 1)
            stored = _stored_in(json.loads(data.decode()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return stored if stored.ticket.code == code else None


def normal_code(text: str) -> str:
    """A code as it is stored. Raises UnknownCode for what cannot be one."""
    code = re.sub(r"\s", "", text)
    if not re.fullmatch(f"[{ALPHABET}{ALPHABET.lower()}]{{{CODE_CHARACTERS}}}", code):
        raise UnknownCode
    return code.upper()


def _retry(change: Callable[[], None]) -> None:
    """Renames or deletes a file. Windows refuses that for the moment in which another process reads it."""
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return change()
        except PermissionError:
            if not WINDOWS:
                raise
            time.sleep(0.01)
    return change()


def _open_private(path: str, _flags: int) -> int:
    """Opens a regular file of this user. A link is not followed, and a FIFO is not waited for. Raises OSError."""
    names = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in names))
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        os.close(descriptor)
        raise PermissionError
    return descriptor


def _stored_in(members: JsonObject) -> _Stored:
    """Raises one of the errors that _read catches if anything does not fit."""
    ticket, outcome = Ticket(**members["ticket"]), members["outcome"]
    texts = (ticket.code, ticket.agent_id, ticket.tool, ticket.action, ticket.digest, ticket.title, ticket.warning)
    _require(texts, str)
    _require(ticket.fields, str)
    _require([ticket.arguments], dict)
    ticket = ticket._replace(
        details=_lines_in(ticket.details),
        quoted=_lines_in(ticket.quoted),
        fields=tuple(ticket.fields),
        shows=bool(ticket.shows),
        expires_s=float(ticket.expires_s),
    )
    if outcome is not None:
        outcome = Outcome(**outcome)
        _require([outcome.message], str)
        _require([outcome.answer], dict)
        if outcome.state not in ENDINGS:
            raise ValueError
    return _Stored(ticket, outcome, bool(members["delivered"]))


def _lines_in(value: Any) -> Lines:
    lines = tuple((label, text) for label, text in value)
    _require([text for line in lines for text in line], str)
    return lines


def _require(values: Any, kind: type) -> None:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, kind) for value in values):
        raise TypeError
