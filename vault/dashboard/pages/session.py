"""Signing in with a one-time link, locking the dashboard, and opening a sealed vault."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import JSONResponse, Response

from vault.dashboard.web import COOKIE, HOME, Page, Visit


def sign_in(visit: Visit) -> Response:
    """Use the link, and go on to the overview."""
    cookie = visit.dashboard.sessions.sign_in(visit.param("token"))
    if cookie is None:
        return visit.page("sign_in.html", status=401, problem="This link was already used or has expired.")
    # A page that goes on by itself, not a redirect: a browser that came from another site's page sends a strict cookie
    # only after a page of this site asks for the next one.
    response = visit.page("signed_in.html")
    visit.dashboard.set_cookie(visit, response, cookie)
    return response


def show_session(visit: Visit) -> Response:
    """The token of the session that this browser has, for a form that was made for an earlier one."""
    return JSONResponse({"csrf": visit.session.csrf if visit.session else ""})


def lock(visit: Visit) -> Response:
    """End the session."""
    visit.dashboard.sessions.end(visit.request.cookies.get(COOKIE, ""))
    response = replace(visit, session=None).page("sign_in.html", problem="The dashboard is locked.")
    response.delete_cookie(COOKIE, path=HOME)
    return response


def show_unseal(visit: Visit) -> Response:
    """Ask for the passphrase of a sealed vault."""
    if not visit.desk.store.sealed:
        return visit.go("")
    return visit.page("unseal.html", has_passphrase=visit.desk.store.has_passphrase)


def unseal(visit: Visit) -> Response:
    """Open the vault. A wrong passphrase is audited. Raises VaultError."""
    store = visit.desk.store
    passphrase = visit.field("passphrase") if store.has_passphrase else None
    store.unseal(visit.desk.clock(), passphrase, actor=visit.desk.actor)
    return visit.go("", "The vault is unsealed.")


PAGES = (
    Page("GET", "/sign-in/{token}", sign_in, is_open=True),
    Page("GET", "/session", show_session, works_sealed=True),
    Page("POST", "/lock", lock, works_sealed=True),
    Page("GET", "/unseal", show_unseal, works_sealed=True),
    Page("POST", "/unseal", unseal, works_sealed=True),
)
