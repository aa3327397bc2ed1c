"""The vault over HTTP: an ASGI application on Starlette's request and response.

    store = Store(Path("data"))               # opens the directory, or makes it
    app = create_app(store)                   # the real clock
    app = create_app(store, clock=lambda: 1_767_225_600_000)
    uvicorn.run(app, proxy_headers=False)     # or vault.server.serve, which also locks the directory

Reading the request and writing the answer happen on the event loop; all that touches the database happens in one thread
of the pool, in one transaction. The path is used as it was sent, since that is what was signed.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vault import audit
from vault.calls import Actor, Call, Caller, Clock, Match, Raw, Router, Stream, wall_clock
from vault.errors import NOTHING, Denied, ReadDenied, Refusal, SealedDenied
from vault.gate import Signed, admit
from vault.inputs import read_body, read_form
from vault.store import Store, savepoint
from vault.surface import ROUTES

MAX_BODY_BYTES = 256 * 1024  # twice the largest value of the contract, 100 KB, in JSON escapes
READ_MAX_S = 30.0  # whoever holds a connection open with half a body gives it back then
MAX_DRAINED_BYTES = 8 * MAX_BODY_BYTES  # read and dropped, so that the client lives to see the 413


class Answer(NamedTuple):
    """A status, what goes with it (JSON, a Raw or a Stream), and headers beyond the usual ones."""

    status: int
    body: object
    headers: Mapping[str, str] = NOTHING


class Received(NamedTuple):
    """A whole request."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    source_ip: str | None
    base_url: str


class VaultApp:
    """The ASGI callable."""

    def __init__(self, store: Store, clock: Clock, public_url: str | None) -> None:
        self._store = store
        self._clock = clock
        self._public_url = public_url
        self._router = Router(ROUTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is spoken here")
        request = Request(scope, receive)
        try:
            body = await asyncio.wait_for(_read(request), READ_MAX_S)
            answer = await run_in_threadpool(self.answer, _received(request, body))
        except ClientDisconnect:
            return
        except asyncio.TimeoutError:
            answer = _refused(Refusal(408, "the body did not arrive in time"))
        except Refusal as refusal:
            answer = _refused(refusal)
        await _response(answer)(scope, receive, send)

    def answer(self, received: Received) -> Answer:
        """What comes back for a request; never raises, never tells a value."""
        where = received.method
        try:
            match = self._router.match(received.method, received.path)
            where = f"{received.method} {match.route.path}"
            return self._carry_out(received, match)
        except Refusal as refusal:
            return _refused(refusal)
        except sqlite3.OperationalError as error:
            return _storage_trouble(error, where)
        except Exception as error:  # the last resort: a client gets JSON, the owner a line
            return _internal_error(error, where)

    def _carry_out(self, received: Received, match: Match) -> Answer:
        signed = match.route.caller != "open"
        if signed and received.query:
            raise Refusal(400, "a signed route takes no query string")
        now_ms = self._clock()
        # The refusal leaves the block as an answer, not as an exception: nonce and audit entry have to be kept.
        with self._store.transaction() as db:
            try:
                caller = admit(db, _signed(received), match, received.source_ip, now_ms) if signed else None
                return self._handle(db, received, match, caller, now_ms)
            except Denied as denied:
                _record_denial(db, now_ms, received, match, denied)
                return _refused(denied)
            except Refusal as refusal:
                return _refused(refusal)

    def _handle(
        self, db: sqlite3.Connection, received: Received, match: Match, caller: Caller | None, now_ms: int
    ) -> Answer:
        route = match.route
        if self._store.sealed:
            raise SealedDenied(caller.id if caller else None)
        read = read_form if route.takes == "form" else read_body
        body = read(received.body, received.headers.get("content-type"), route.fields)
        base_url = self._public_url or received.base_url
        request = (now_ms, received.source_ip, match.params, body, caller, base_url, self._store.transaction)
        call = Call(db, self._store.keys, self._store.vault_id, *request)
        with savepoint(db):
            return Answer(route.status, route.handler(call))


def create_app(store: Store, *, clock: Clock = wall_clock, public_url: str | None = None) -> VaultApp:
    """The application over an open store; `clock` answers milliseconds since the epoch.

    `public_url` is where people reach the vault, if that is not the address it listens on: behind a TLS proxy.
    """
    return VaultApp(store, clock, public_url)


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.status, refusal.body(), refusal.headers)


async def _read(request: Request) -> bytes:
    """The body, up to its limit."""
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_DRAINED_BYTES:
            break
        body = body + chunk if size <= MAX_BODY_BYTES else b""
    if size > MAX_BODY_BYTES:
        raise Refusal(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    return body


def _received(request: Request, body: bytes) -> Received:
    scope = request.scope
    path = bytes(scope["raw_path"]).decode("latin-1")
    source_ip = request.client.host if request.client else None
    headers, base_url = request.headers, _base_url(scope)
    return Received(request.method, path, scope["query_string"], headers, body, source_ip, base_url)


def _base_url(scope: Scope) -> str:
    """The address that the connection came in on; the Host header says whatever the client likes."""
    host, port = scope["server"]
    return f"{scope['scheme']}://[{host}]:{port}" if ":" in host else f"{scope['scheme']}://{host}:{port}"


def _signed(received: Received) -> Signed:
    headers = received.headers
    return Signed(
        method=received.method,
        path=received.path,
        body=received.body,
        identities=(*headers.getlist("x-agent-id"), *headers.getlist("x-machine-id")),
        timestamp=headers.get("x-timestamp", ""),
        nonce=headers.get("x-nonce", ""),
        signature=headers.get("x-signature", ""),
    )


def _record_denial(db: sqlite3.Connection, now_ms: int, received: Received, match: Match, denied: Denied) -> None:
    """The path as sent may hold anything, so the log gets the route's template."""
    kind = {"agent": "ai_agent", "machine": "machine", "open": "external"}[match.route.caller]
    actor = Actor(kind if denied.caller_id else "external", denied.caller_id, received.source_ip)
    if isinstance(denied, ReadDenied):
        ids = {"secret_id": denied.secret_id, "project_id": denied.project_id}
        audit.record(db, now_ms, actor, "secret_read_denied", str(denied), **ids)
    else:
        audit.record(db, now_ms, actor, denied.action, f"{match.route.method} {match.route.path}: {denied}")


def _response(answer: Answer) -> Response:
    body = answer.body
    headers = {**answer.headers, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if isinstance(body, Stream):
        return StreamingResponse(body.pieces, answer.status, headers, body.content_type)
    if isinstance(body, Raw):
        # As a header, since Starlette would add a charset to a media type that begins with text/.
        headers = {**headers, "content-type": body.content_type, **body.headers}
        return Response(body.content, body.status or answer.status, headers)
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, answer.status, headers, "application/json")


def _storage_trouble(error: sqlite3.OperationalError, where: str) -> Answer:
    message = str(error)
    if "disk is full" in message:
        return Answer(507, {"error": "the disk of this vault is full: nothing was changed"})
    if "database is locked" in message:
        return Answer(503, {"error": "this vault is busy: nothing was changed"}, {"retry-after": "1"})
    return _internal_error(error, where)


def _internal_error(error: Exception, where: str) -> Answer:
    """The log names the kind of error and the line: the message of an exception may quote a value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"vault: error: {where}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}",
        file=sys.stderr,
        flush=True,
    )
    return Answer(500, {"error": "internal error"})
