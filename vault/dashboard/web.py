"""The dashboard as an ASGI application: sessions, forms, headers, and what the function of a page gets and returns.

Every page is a row `Page(method, path, function)` in a module of `pages`. The function gets a `Visit` and returns a
response, which it makes with `visit.page(...)` or `visit.go(...)`. It runs in a worker thread. A Refusal or VaultError
that it raises becomes a page that says so.

Before it runs, there must be a session (except for `is_open` pages). A POST must come from the vault's own origin, with
the session's CSRF token.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from vault import bodies, log, peers
from vault.dashboard.sessions import Session, Sessions
from vault.dashboard.templating import DIGEST, STATIC, STATIC_TYPES, environment
from vault.desk import Desk
from vault.errors import EMPTY, Refusal, SealedDenied, VaultError, storage_refusal
from vault.place import command_line

HOME = "/dashboard"
COOKIE = "sikkerkey_dashboard"
MAX_FIELDS = 2_000  # of a form; a matrix of machines and secrets has one for each tick
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer: with that, Chromium sends `Origin: null` with the pages' own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Visit:
    """One request of a signed-in browser. On open pages, `session` may be None."""

    dashboard: Dashboard
    desk: Desk
    request: Request
    session: Session | None
    form: Mapping[str, Sequence[str]]

    def param(self, name: str) -> str:
        """A part of the path, which may contain anything but a slash."""
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        """A parameter of the query string."""
        return self.request.query_params.get(name, default)

    def field(self, name: str, default: str = "") -> str:
        """The first value of a form field, with line breaks as \\n. Browsers send \\r\\n."""
        given = self.form.get(name)
        return given[0].replace("\r\n", "\n") if given else default

    def fields(self, name: str) -> Sequence[str]:
        """All values of a form field, as checkboxes of one name have."""
        return self.form.get(name, ())

    @property
    def reveals(self) -> bool:
        """Whether values may be shown."""
        return self.dashboard.reveal

    @property
    def sign_in_command(self) -> str:
        """The command that opens the dashboard of this vault."""
        return command_line(self.desk.store.directory, "dashboard")

    def call(self, method: Literal["GET", "POST"], path: str, body: Mapping[str, Any] = EMPTY) -> Any:
        """What the API's route answers, as the owner: see `Desk.call`. Raises Refusal."""
        return self.desk.call(method, path, body)

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page from a template. What was said with `say` is shown once."""
        messages: list[str] = []
        if self.session is not None and not is_live_update(self.request):
            messages, self.session.messages = self.session.messages, []
        shown = {"visit": self, "csrf": self.session.csrf if self.session else "", "messages": messages, **values}
        return HTMLResponse(self.dashboard.templates.get_template(template).render(shown), status)

    def say(self, message: str) -> None:
        """Show a message on the next page of this session."""
        if self.session is not None:
            self.session.messages.append(message)

    def go(self, path: str, message: str = "") -> Response:
        """Send the browser to a path below /dashboard, which starts with a slash. An empty one is the overview."""
        if message:
            self.say(message)
        return RedirectResponse(HOME + quote(path, safe="/?&=#%"), 303)

    def download(self, pieces: Iterator[bytes], content_type: str, filename: str) -> Response:
        """A file to save."""
        return StreamingResponse(
            pieces, 200, {"content-disposition": f'attachment; filename="{filename}"'}, content_type
        )


PageFunction = Callable[[Visit], Response]


class Page(NamedTuple):
    """One row: the path is below /dashboard, and `{name}` in it is a parameter."""

    method: Literal["GET", "POST"]
    path: str
    function: PageFunction
    is_open: bool = False  # needs no session
    works_sealed: bool = False


class Dashboard:
    """The application. `reveal` allows pages that show values."""

    def __init__(
        self,
        desk: Desk,
        sessions: Sessions,
        pages: Sequence[Page],
        public_url: str | None = None,
        *,
        reveal: bool = True,
    ) -> None:
        self.sessions = sessions
        self.reveal = reveal
        self.templates = environment()
        self._desk = desk
        self._public_url = public_url
        self._is_behind_proxy = public_url is not None and not is_loopback_url(public_url)
        routes = [Route(f"{HOME}/static/{DIGEST}/{{name}}", _static)]
        routes += [Route(HOME + page.path, self._endpoint(page), methods=[page.method]) for page in pages]
        self._router = Router(routes, redirect_slashes=False, default=self._not_found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Its path starts with HOME, and its Host is this vault's."""
        await self._router(scope, receive, _with_headers(send))

    def _endpoint(self, page: Page) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            visit = self._visit(request)
            try:
                visit = await self._admit(page, visit)
                return await run_in_threadpool(page.function, visit)
            except ClientDisconnect:
                return Response(status_code=400)
            except SealedDenied:
                return visit.go("/unseal")
            except _SignedOut:
                ended = "The session has ended. Nothing was changed." if COOKIE in request.cookies else ""
                return visit.page("sign_in.html", status=401, problem=ended)
            except Refusal as refusal:
                return visit.page("problem.html", status=refusal.status, problem=str(refusal), hint="")
            except VaultError as error:
                return visit.page("problem.html", status=409, problem=str(error), hint=error.hint)
            except Exception as error:  # its message may quote a value
                known = storage_refusal(error)
                if known is not None:
                    return visit.page(
                        "problem.html", status=known.status, problem=str(known).partition(":")[0], hint="try again"
                    )
                log.write(f"{page.method} {HOME}{page.path}", log.place(error))
                return visit.page("problem.html", status=500, problem="the vault failed", hint="its log has the place")

        return endpoint

    async def _admit(self, page: Page, visit: Visit) -> Visit:
        """The visit with its form, if the page may be used. Raises Refusal or _SignedOut."""
        if visit.session is None and not page.is_open:
            raise _SignedOut
        client, server = visit.request.scope["client"], visit.request.scope["server"]
        is_near = visit.session is not None and not self._is_behind_proxy
        # In a thread, because the system's table of connections may be long.
        if is_near and not await run_in_threadpool(peers.may_be_owner, client, server):
            raise Refusal(403, "this page is for programs of the user who runs the vault")
        if page.method == "POST":
            self._check_origin(visit.request)
            visit = replace(visit, form=_form(await bodies.read(visit.request)))
            csrf = visit.session.csrf if visit.session else ""
            if not hmac.compare_digest(csrf.encode(), visit.field("csrf").encode()):
                raise Refusal(403, "the form is from another session: open the page again")
        if self._desk.store.sealed:
            self.sessions.forget_kept()
            if not page.works_sealed and not page.is_open:
                raise SealedDenied
        return visit

    def _visit(self, request: Request) -> Visit:
        session = self.sessions.find(request.cookies.get(COOKIE, ""), by_person=not is_live_update(request))
        source_ip = request.client.host if request.client else None
        origin = self._public_url or self._own_origins(request)[0]
        return Visit(self, self._desk.at(source_ip, origin), request, session, EMPTY)

    def _check_origin(self, request: Request) -> None:
        """Raise Refusal for a form that another site's page sent. Every browser names the origin of a POST."""
        if request.headers.get("origin") not in self._own_origins(request):
            raise Refusal(403, "the form was sent by a page of another site")

    def _own_origins(self, request: Request) -> list[str]:
        own = [f"{request.url.scheme}://{request.headers.get('host', '').lower()}"]
        return [*own, self._public_url] if self._public_url else own

    def set_cookie(self, visit: Visit, response: Response, cookie: str) -> None:
        """Sign the browser in."""
        secure = visit.request.url.scheme == "https" or (self._public_url or "").startswith("https:")
        response.set_cookie(COOKIE, cookie, path=HOME, secure=secure, httponly=True, samesite="strict")

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = self._visit(Request(scope))
        page = visit.page("problem.html", status=404, problem="there is no such page", hint="")
        await page(scope, receive, send)


class _SignedOut(Exception):
    """There is no session."""


def is_live_update(request: Request) -> bool:
    """Whether a script asks for a page again, and no person."""
    return request.headers.get("x-requested-by") == "live-update"


def has(path: str) -> bool:
    """Whether a path is the dashboard's."""
    return path == HOME or path.startswith(f"{HOME}/")


def is_loopback_url(url: str) -> bool:
    """Whether a URL leads to this computer only."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:  # invalid UTF-8, or too many fields
        raise Refusal(400, "the form cannot be read") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return Response(status_code=404)
    headers = {"cache-control": "private, max-age=31536000, immutable", "content-type": STATIC_TYPES[name]}
    return Response(STATIC[name], headers=headers)


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message["headers"], *(header for header in added if header[0] not in given)]
        await send(message)

    return sending
