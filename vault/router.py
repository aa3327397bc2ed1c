"""Routes, the requests they match, and the `Call` that a handler receives.

A handler and the audit entry of its effect share one transaction. A handler returns the JSON of its answer. If it
raises `Refusal`, its changes are rolled back. The handler of a route that `reads` has a connection that only reads.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Callable, Literal, NamedTuple, Protocol, Union

from vault.crypto import Keyring
from vault.errors import Refusal
from vault.inputs import NO_FIELDS, Fields

Clock = Callable[[], int]
Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]
KeySource = Callable[[], Keyring]  # raises SealedDenied once the vault is sealed
Job = Callable[[Transaction, KeySource, int], None]  # the integer is the time in milliseconds

# Ids in paths contain no dot, slash, percent sign or space, so one resource has exactly one path.
ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"


class Actor(NamedTuple):
    """The actor of an audit entry. The kind is user, machine, ai_agent, system or external."""

    kind: str
    id: str | None
    source_ip: str | None


OWNER = Actor("user", "owner", None)
SYSTEM = Actor("system", None, None)


class Agent(NamedTuple):
    """A registered AI agent. An allowlist of None means every project."""

    id: str
    name: str
    public_key: bytes
    approved: bool
    enabled: bool
    scopes: tuple[str, ...]
    allowlist: tuple[str, ...] | None

    def may_reach(self, project_id: str | None) -> bool:
        """Whether the allowlist includes the project. Unknown and forbidden projects look the same."""
        return self.allowlist is None or project_id in self.allowlist


class Machine(NamedTuple):
    """A registered machine. Machines read plaintext; agents never do."""

    id: str
    name: str
    kind: str
    public_key: bytes
    approved: bool
    expires_ms: int | None


class Owner(NamedTuple):
    """The vault's owner, who may do what an agent with every scope and every project may do."""

    scopes: tuple[str, ...]
    id: str = "owner"
    allowlist: None = None

    def may_reach(self, _project_id: str | None) -> bool:
        """True: every project is the owner's."""
        return True


Signer = Union[Agent, Machine]
Caller = Union[Signer, Owner]


ACTOR_KINDS: Mapping[type, str] = {Agent: "ai_agent", Machine: "machine", Owner: "user"}


class Headers(Protocol):
    """The headers of a request. The web server's class has these methods; owner's commands start faster without it."""

    def get(self, name: str, default: str, /) -> str: ...

    def getlist(self, key: str) -> list[str]: ...


class Received(NamedTuple):
    """A complete HTTP request. The path and the query are the bytes that the client sent and signed."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    source_ip: str | None
    base_url: str


class Raw(NamedTuple):
    """An answer that is not JSON, such as a file or a page. Its headers are added to the standard ones.

    `status` overrides the route's status. A page uses it to report an error whose changes must be kept.
    """

    content: bytes
    content_type: str
    headers: Mapping[str, str] = {}
    status: int | None = None


class Stream(NamedTuple):
    """An answer produced in pieces after the transaction has ended. Each piece opens its own transaction or reader."""

    pieces: Iterator[bytes]
    content_type: str


@dataclass(frozen=True)
class Call:
    """One request that passed all checks."""

    db: sqlite3.Connection
    keys: Keyring
    vault_id: str
    now_ms: int
    source_ip: str | None
    params: Mapping[str, str]
    body: Mapping[str, Any]
    caller: Caller | None
    base_url: str  # the vault's public address, for links
    transaction: Transaction  # for a Stream, which is produced after this call's transaction has ended
    webhooks_to_loopback: bool = False
    reader: Transaction | None = None  # like `transaction`, but read-only and beside transactions: `Store.reader`

    @property
    def agent(self) -> Agent | Owner:
        """The agent that signed the request, or the owner. Raises LookupError on routes of other callers."""
        if not isinstance(self.caller, (Agent, Owner)):
            raise LookupError("only routes below /v1/ai have an agent")
        return self.caller

    @property
    def machine(self) -> Machine:
        """The machine that signed the request. Raises LookupError on routes of other callers."""
        if not isinstance(self.caller, Machine):
            raise LookupError("only routes below /v1/secret have a machine")
        return self.caller

    @property
    def actor(self) -> Actor:
        """The caller as an audit actor; external if nobody signed the request."""
        if self.caller is None:
            return Actor("external", None, self.source_ip)
        return Actor(ACTOR_KINDS[type(self.caller)], self.caller.id, self.source_ip)


class Deferred(NamedTuple):
    """An answer that needs slow work, such as Argon2, which would block the database for everybody else.

    `work` runs between two transactions. It must not use the call's connection, but may open its own transactions.
    `finish` runs in the second one, where the rows that the handler has seen may have changed, and returns the answer.
    The nonce stays spent if it never runs.
    """

    work: Callable[[], Any]
    finish: Callable[[Call, Any], object]

    def outcome(self) -> Callable[[], Any]:
        """Do the work. The function that is returned returns its result or raises its refusal, for `finish`."""
        try:
            result = self.work()
        except Refusal as error:
            refusal = error

            def fail() -> Any:
                raise refusal

            return fail
        return lambda: result


Handler = Callable[[Call], object]


class Route(NamedTuple):
    """One row of the route table."""

    method: str
    path: str
    scope: str | None
    handler: Handler
    fields: Fields = NO_FIELDS
    status: int = 200
    caller: Literal["agent", "machine", "open"] = "agent"  # who has to sign; open routes take no signature
    takes: Literal["json", "form"] = "json"  # the share page posts a form, since it has no script
    reads: bool = False  # read-only: the handler runs on a reader, after the transaction that admits the request


class Match(NamedTuple):
    """The route of a request, and the ids in its path."""

    route: Route
    params: Mapping[str, str]


class Router:
    """Finds the route of a request. Paths are compared as sent, without percent-decoding."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns = [(_pattern(route.path), route) for route in routes]

    def match(self, method: str, path: str) -> Match:
        """The route. Raises Refusal: 404 for an unknown path, 405 for a known path with another method."""
        allowed = []
        for pattern, route in self._patterns:
            found = pattern.fullmatch(path)
            if found and route.method == method:
                return Match(route, found.groupdict())
            if found:
                allowed.append(route.method)
        if allowed:
            raise Refusal(405, "method not allowed", headers={"allow": ", ".join(sorted(allowed))})
        raise Refusal(404, "not found")


def wall_clock() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", rf"(?P<\1>{ID_PATTERN})", path))
