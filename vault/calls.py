"""What a handler is given, and how a route is declared.

A handler runs inside one transaction, together with the audit entry of its effect: it returns the JSON of its answer,
or raises `Refusal`, and then nothing that it did is kept.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Callable, Literal, NamedTuple, Union

from vault.crypto import Keyring
from vault.errors import Refusal
from vault.inputs import NO_FIELDS, Fields

Clock = Callable[[], int]
Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]

# An id as sent: no dot, slash, percent or space, so that no spelling of a path reaches another route.
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"


class Actor(NamedTuple):
    """Who did something, as the audit log names them: user, machine, ai_agent, system or external."""

    kind: str
    id: str | None
    source_ip: str | None


OWNER = Actor("user", "owner", None)
SYSTEM = Actor("system", None, None)


class Agent(NamedTuple):
    """An AI agent whose signature was right. No allowlist (None) means every project."""

    id: str
    name: str
    public_key: bytes
    approved: bool
    enabled: bool
    scopes: tuple[str, ...]
    allowlist: tuple[str, ...] | None

    def may_reach(self, project_id: str | None) -> bool:
        """Whether the allowlist lets this agent at a project; an unknown project looks like a forbidden one."""
        return self.allowlist is None or project_id in self.allowlist


class Machine(NamedTuple):
    """A machine whose signature was right. Machines read plaintext; agents never do."""

    id: str
    name: str
    kind: str
    public_key: bytes
    approved: bool
    expires_ms: int | None


Caller = Union[Agent, Machine]


class Raw(NamedTuple):
    """An answer that is not JSON: a file, a page. Its headers come on top of the usual ones.

    A page may say no with a status of its own where the effect has to be kept.
    """

    content: bytes
    content_type: str
    headers: Mapping[str, str] = {}
    status: int | None = None


class Stream(NamedTuple):
    """An answer made piece by piece after the transaction has ended; each piece opens its own."""

    pieces: Iterator[bytes]
    content_type: str


@dataclass(frozen=True)
class Call:
    """One request that passed its checks."""

    db: sqlite3.Connection
    keys: Keyring
    vault_id: str
    now_ms: int
    source_ip: str | None
    params: Mapping[str, str]
    body: Mapping[str, Any]
    caller: Caller | None
    base_url: str  # where people reach this vault, for links
    transaction: Transaction  # for a Stream, whose pieces are made when this call's own transaction is over

    @property
    def agent(self) -> Agent:
        """The signer of an agent's route."""
        if not isinstance(self.caller, Agent):
            raise LookupError("only routes below /v1/ai have an agent")
        return self.caller

    @property
    def machine(self) -> Machine:
        """The signer of a machine's route."""
        if not isinstance(self.caller, Machine):
            raise LookupError("only routes below /v1/secret have a machine")
        return self.caller

    @property
    def actor(self) -> Actor:
        """The signer as the audit log names it."""
        return actor_of(self.caller, self.source_ip)


def actor_of(caller: Caller | None, source_ip: str | None) -> Actor:
    """Whoever signed, or nobody known, in the words of the audit log."""
    if caller is None:
        return Actor("external", None, source_ip)
    return Actor("machine" if isinstance(caller, Machine) else "ai_agent", caller.id, source_ip)


Handler = Callable[[Call], object]


class Route(NamedTuple):
    """One row of the surface."""

    method: str
    path: str
    scope: str | None
    handler: Handler
    fields: Fields = NO_FIELDS
    status: int = 200
    caller: Literal["agent", "machine", "open"] = "agent"  # whose signature it takes; open routes take none
    takes: Literal["json", "form"] = "json"  # a page without a script posts a form


class Match(NamedTuple):
    """The route that a request line names, and the ids in its path."""

    route: Route
    params: Mapping[str, str]


class Router:
    """Finds routes by the raw bytes of the path; nothing is decoded, so nothing has two spellings."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns = [(_pattern(route.path), route) for route in routes]

    def match(self, method: str, path: str) -> Match:
        """The route, or a 404 for the path and a 405 for the method."""
        found = [(route, hit) for pattern, route in self._patterns for hit in [pattern.fullmatch(path)] if hit]
        for route, hit in found:
            if route.method == method:
                return Match(route, hit.groupdict())
        if found:
            allowed = ", ".join(sorted(route.method for route, _ in found))
            raise Refusal(405, "method not allowed", headers={"allow": allowed})
        raise Refusal(404, "not found")


def wall_clock() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", rf"(?P<\1>{ID_PATTERN})", path))
