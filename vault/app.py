"""The vault's HTTP API: an ASGI application built on Starlette's requests and responses.

    store = open_store(Path("data"))          # from vault.schema; creates the directory if needed
    app = create_app(store)                   # uses the system clock
    app = create_app(store, clock=lambda: 1_767_225_600_000)
    uvicorn.run(app, proxy_headers=False)     # or vault.server.serve, which also locks the directory

The event loop reads requests and writes responses. Everything that uses the database runs in a worker thread, in one
transaction per request. A route that only reads uses that transaction to admit and count the request, and then answers
from a snapshot that is not older, so that a long answer does not delay other requests. Paths are used as sent, because
the signature covers them as sent.
"""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Callable, NamedTuple
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vault import audit, bodies, log, reads, refusals
from vault.dashboard import web as dashboard
from vault.dashboard.index import PAGES
from vault.dashboard.sessions import Sessions
from vault.desk import Desk
from vault.errors import EMPTY, Denied, ReadDenied, Refusal, SealedDenied, Tampered, storage_refusal
from vault.gate import admit
from vault.inputs import read_body, read_form
from vault.router import Actor, Call, Caller, Clock, Deferred, Match, Raw, Received, Router, Stream, wall_clock
from vault.schema import ROUTES
from vault.store import Store, savepoint

PIECE_BYTES = 256 * 1024  # a longer answer is written in pieces, and the event loop serves others in between
SLICE_ITEMS = 500  # of a list that is encoded at once


# Host names that reach this computer only, as a Host header spells them.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")


class Answer(NamedTuple):
    """A status, a body (JSON data, a Raw or a Stream) and additional headers."""

    status: int
    body: object
    headers: Mapping[str, str] = EMPTY


class VaultApp:
    """The ASGI application."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        public_url: str | None,
        *,
        webhooks_to_loopback: bool,
        sessions: Sessions | None,
        reveal: bool,
        agent_url: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._public_url = public_url
        self._webhooks_to_loopback = webhooks_to_loopback
        self._public_host = _host_of(public_url) if public_url else None
        self._router = Router(ROUTES)
        self._sessions = sessions
        self._reveal = reveal
        self._agent_url = agent_url

    @functools.cached_property
    def _dashboard(self) -> dashboard.Dashboard | None:
        """The dashboard, created at the first request to it, because building its table of pages takes long."""
        if self._sessions is None:
            return None
        desk = Desk(
            self._store,
            self._clock,
            webhooks_to_loopback=self._webhooks_to_loopback,
            agent_url=self._agent_url,
        )
        return dashboard.Dashboard(desk, self._sessions, PAGES, self._public_url, reveal=self._reveal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is supported")
        request = Request(scope, receive)
        try:
            if dashboard.has(request.url.path) and self._dashboard is not None:
                self._check_host(request)
                await self._dashboard(scope, receive, send)
                return
            body = await bodies.read(request)
            self._check_host(request)
            response = await run_in_threadpool(self._respond, _received(request, body))
        except ClientDisconnect:
            return
        except Refusal as refusal:
            response = _response(_refused(refusal))
        await response(scope, receive, send)

    def _check_host(self, request: Request) -> None:
        """Raise Refusal for a Host that is not this vault's.

        A website whose own name leads to this computer (DNS rebinding) could otherwise send requests and read answers.
        """
        given = HOST.fullmatch(request.headers.get("host", "").lower())
        own = {*LOOPBACK_HOSTS, _bracketed(request.scope["server"][0]), self._public_host}
        if given is None or given["host"] not in own:
            raise Refusal(421, "the Host header names another server: use the URL that serve printed, or --public-url")

    def _respond(self, received: Received) -> Response:
        return _response(self.answer(received))

    def answer(self, received: Received) -> Answer:
        """The answer to a request. Never raises, and no error message contains a value."""
        where = received.method
        try:
            match = self._router.match(received.method, received.path)
            where = f"{received.method} {match.route.path}"
            return self._process(received, match)
        except Refusal as refusal:
            return _refused(refusal)
        except Exception as error:
            known = storage_refusal(error)
            return _internal_error(error, where) if known is None else _refused(known)

    def _process(self, received: Received, match: Match) -> Answer:
        signed = match.route.caller != "open"
        if signed and received.query:
            raise Refusal(400, "a signed route takes no query string")
        if match.route.reads:
            return self._read(received, match)
        admitted: list[Caller | None] = []

        def first(db: sqlite3.Connection, now_ms: int) -> Answer:
            admitted.append(admit(db, received, match, now_ms) if signed else None)
            call = self._call(db, received, match, admitted[0], now_ms)
            changes = db.total_changes
            with savepoint(db):
                answer = Answer(match.route.status, match.route.handler(call))
            if db.total_changes == changes and not isinstance(answer.body, Deferred):
                reads.count(call, match.route)
            return answer

        answer = self._transact(received, match, admitted, first)
        if not isinstance(answer.body, Deferred):
            return answer
        deferred, result = answer.body, answer.body.outcome()

        def second(db: sqlite3.Connection, now_ms: int) -> Answer:
            call = self._call(db, received, match, admitted[0], now_ms)
            with savepoint(db):
                return Answer(match.route.status, deferred.finish(call, result()))

        return self._transact(received, match, admitted, second)

    def _read(self, received: Received, match: Match) -> Answer:
        """Admit and count the request in a transaction, then answer from a snapshot that is taken after it."""
        route = match.route
        admitted: list[Caller | None] = []
        calls: list[Call] = []

        def first(db: sqlite3.Connection, now_ms: int) -> Answer:
            admitted.append(admit(db, received, match, now_ms))
            calls.append(self._call(db, received, match, admitted[0], now_ms))
            reads.count(calls[0], route)
            return Answer(route.status, None)

        answer = self._transact(received, match, admitted, first)
        if not calls:
            return answer
        try:
            with self._store.reader() as db:
                return Answer(route.status, route.handler(replace(calls[0], db=db)))
        except Refusal as error:
            refusal = error

        def refuse(db: sqlite3.Connection, _now_ms: int) -> Answer:
            reads.uncount(replace(calls[0], db=db), route)
            raise refusal

        return self._transact(received, match, admitted, refuse)

    def _transact(
        self,
        received: Received,
        match: Match,
        admitted: list[Caller | None],
        run: Callable[[sqlite3.Connection, int], Answer],
    ) -> Answer:
        now_ms = self._clock()
        # Refusals become answers inside the block: an exception would roll back the nonce and the audit entry.
        with self._store.transaction(urgent=match.route.caller == "machine") as db:
            try:
                return run(db, now_ms)
            except Denied as denied:
                caller = admitted[0] if admitted else None
                if isinstance(denied, Tampered) and caller is not None:
                    denied.caller_id = caller.id
                _record_denial(db, now_ms, received, match, denied)
                return _refused(denied)
            except Refusal as refusal:
                return _refused(refusal)

    def _call(
        self, db: sqlite3.Connection, received: Received, match: Match, caller: Caller | None, now_ms: int
    ) -> Call:
        route = match.route
        if self._store.sealed:
            raise SealedDenied(caller.id if caller else None)
        read = read_form if route.takes == "form" else read_body
        return Call(
            db=db,
            keys=self._store.keys,
            vault_id=self._store.vault_id,
            now_ms=now_ms,
            source_ip=received.source_ip,
            params=match.params,
            body=read(received.body, received.headers.get("content-type", ""), route.fields),
            caller=caller,
            base_url=self._public_url or received.base_url,
            transaction=self._store.transaction,
            webhooks_to_loopback=self._webhooks_to_loopback,
            reader=self._store.reader,
        )


def create_app(
    store: Store,
    *,
    clock: Clock = wall_clock,
    public_url: str | None = None,
    webhooks_to_loopback: bool = False,
    sessions: Sessions | None = None,
    reveal: bool = True,
    agent_url: str = "",
) -> VaultApp:
    """The application for an open store. `clock` returns milliseconds since the epoch.

    `public_url` is the vault's address for people if it differs from the listening address, as behind a TLS proxy.
    `webhooks_to_loopback` lets agents create webhooks with receivers on this computer. With `sessions` there is a
    dashboard, which shows values if `reveal` is set, and names `agent_url` as the address for agents if it differs.
    """
    return VaultApp(
        store,
        clock,
        public_url,
        webhooks_to_loopback=webhooks_to_loopback,
        sessions=sessions,
        reveal=reveal,
        agent_url=agent_url,
    )


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.status, refusal.body(), refusal.headers)


def _received(request: Request, body: bytes) -> Received:
    scope = request.scope
    path = bytes(scope["raw_path"]).decode("latin-1")
    source_ip = request.client.host if request.client else None
    headers, base_url = request.headers, _base_url(scope)
    return Received(request.method, path, scope["query_string"], headers, body, source_ip, base_url)


def _base_url(scope: Scope) -> str:
    """The address that the client connected to. The Host header is not used: a client can send any name."""
    host, port = scope["server"]
    return f"{scope['scheme']}://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_of(url: str) -> str:
    return _bracketed(urlsplit(url).hostname or "")


def _record_denial(db: sqlite3.Connection, now_ms: int, received: Received, match: Match, denied: Denied) -> None:
    """The entry contains the route's template, not the path, which may contain anything."""
    kind = {"agent": "ai_agent", "machine": "machine", "open": "external"}[match.route.caller]
    actor = Actor(kind if denied.caller_id else "external", denied.caller_id, received.source_ip)
    where = f"{match.route.method} {match.route.path}"
    if isinstance(denied, Tampered):
        audit.note_tampered(db, now_ms, actor, denied, where)
    elif isinstance(denied, ReadDenied):
        ids = {"secret_id": denied.secret_id, "project_id": denied.project_id}
        audit.record(db, now_ms, actor, "secret_read_denied", str(denied), **ids)
    elif denied.is_counted or denied.caller_id is None:
        refusals.record(db, now_ms, actor, denied, where)
    else:
        audit.record(db, now_ms, actor, denied.action, f"{where}: {denied}")


def _response(answer: Answer) -> Response:
    body = answer.body
    headers = {**answer.headers, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if isinstance(body, Stream):
        return StreamingResponse(body.pieces, answer.status, headers, body.content_type)
    if isinstance(body, Raw):
        # Set as a header, because Starlette would add a charset to text/ media types.
        headers = {**headers, "content-type": body.content_type, **body.headers}
        return Response(body.content, body.status or answer.status, headers)
    content = _encode(body)
    if len(content) <= PIECE_BYTES:
        return Response(content, answer.status, headers, "application/json")
    headers["content-length"] = str(len(content))
    return StreamingResponse(_pieces(content), answer.status, headers, "application/json")


def _encode(body: object) -> bytes:
    """JSON. A long list is encoded in slices, because the encoder lets no other thread run until it has finished."""
    if isinstance(body, dict):
        return b"{" + b",".join(_dump(key) + b":" + _encode(value) for key, value in body.items()) + b"}"
    if isinstance(body, list) and len(body) > SLICE_ITEMS:
        slices = (body[start : start + SLICE_ITEMS] for start in range(0, len(body), SLICE_ITEMS))
        return b"[" + b",".join(_dump(each)[1:-1] for each in slices) + b"]"
    return _dump(body)


def _dump(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _internal_error(error: Exception, where: str) -> Answer:
    """A generic 500 for the client, and a line in the log for the owner."""
    log.write(where, log.place(error))
    return Answer(500, {"error": "internal error"})
