"""The owner's way to the functions of the API, for the dashboard and the owner's commands.

    desk = Desk(store)
    desk.call("GET", "/v1/ai/projects")                                   # the data that an agent would get
    desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]       # raises Refusal as the API answers it
    with desk.transaction() as db:                                        # for what only the owner can do
        agents.approve_as_owner(db, desk.clock(), agent_id)

A route runs with the same checks of its body, the same handler and the same refusals as for an agent that has every
scope and every project. Its audit entries name the owner. There is no signature and no nonce: whoever can open the
vault's directory, or has a session of the dashboard, is the owner.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Callable, TypeVar

from vault import audit
from vault.domains import agents
from vault.errors import EMPTY, Refusal, Tampered
from vault.inputs import checked
from vault.router import OWNER, Actor, Call, Clock, Deferred, Match, Owner, Router, wall_clock
from vault.schema import ROUTES
from vault.store import Store, savepoint

# whoami is about the agent that asks.
ROUTER = Router(route for route in ROUTES if route.caller == "agent" and route.path != "/v1/ai/whoami")
CALLER = Owner(agents.SCOPES)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Desk:
    """The owner of an open vault. `source_ip` is the browser's address, for audit entries.

    `base_url` is the vault's address for people, `agent_url` the one for agents if that differs.
    """

    store: Store
    clock: Clock = wall_clock
    base_url: str = ""
    source_ip: str | None = None
    webhooks_to_loopback: bool = False
    agent_url: str = ""

    @property
    def actor(self) -> Actor:
        """The owner as an audit actor."""
        return OWNER._replace(source_ip=self.source_ip)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction of the store."""
        return self.store.transaction()

    def reader(self) -> AbstractContextManager[sqlite3.Connection]:
        """A read-only connection of the store, which waits for nobody."""
        return self.store.reader()

    def call(self, method: str, path: str, body: Mapping[str, Any] = EMPTY) -> Any:
        """What the route answers: JSON data, a Raw or a Stream. Raises Refusal; SealedDenied if the vault is sealed."""
        match = ROUTER.match(method, path)
        given, where = checked(body, match.route.fields), f"{match.route.method} {match.route.path}"
        if match.route.reads:
            return self._read(match, given)
        answer = self.run(where, match.route.handler, match.params, given)
        if not isinstance(answer, Deferred):
            return answer
        deferred, result = answer, answer.outcome()
        return self.run(where, lambda call: deferred.finish(call, result()), match.params, given)

    def _read(self, match: Match, body: Mapping[str, Any]) -> object:
        """Run the handler of a route that only reads, beside transactions."""
        try:
            with self.reader() as db:
                return match.route.handler(self.as_call(db, params=match.params, body=body))
        except Tampered as found:
            with self.transaction() as db:
                where = f"{match.route.method} {match.route.path}"
                audit.note_tampered(db, self.clock(), self.actor, found, where)
            raise

    def run(
        self,
        where: str,
        function: Callable[[Call], Result],
        params: Mapping[str, str] = EMPTY,
        body: Mapping[str, Any] = EMPTY,
    ) -> Result:
        """Run a function in a transaction, as `call` runs a route's. `where` names it in entries about tampering.

        What it did before a refusal that keeps its changes is kept.
        """
        with self.transaction() as db:
            call = self.as_call(db, params=params, body=body)
            try:
                with savepoint(db):
                    return function(call)
            except Tampered as found:
                audit.note_tampered(db, call.now_ms, self.actor, found, where)
                refusal: Refusal = found
            except Refusal as error:
                refusal = error
        raise refusal

    def as_call(
        self, db: sqlite3.Connection, params: Mapping[str, str] = EMPTY, body: Mapping[str, Any] = EMPTY
    ) -> Call:
        """The owner's `Call` in a transaction, for functions that take one. Raises SealedDenied."""
        return Call(
            db=db,
            keys=self.store.keys,
            vault_id=self.store.vault_id,
            now_ms=self.clock(),
            source_ip=self.source_ip,
            params=params,
            body=body,
            caller=CALLER,
            base_url=self.base_url,
            transaction=self.store.transaction,
            webhooks_to_loopback=self.webhooks_to_loopback,
            reader=self.store.reader,
        )

    def at(self, source_ip: str | None, base_url: str) -> Desk:
        """The same desk for one request of a browser."""
        return replace(self, source_ip=source_ip, base_url=base_url)
