"""Showing a value: after a fresh confirmation, for half a minute, with an audit entry.

The confirmation belongs to one secret and one version, works once and within a minute. If the vault has a passphrase,
it is asked for again, because somebody may have found the browser open; otherwise the secret's name is.
"""

from __future__ import annotations

import hmac
import json
import secrets as tokens
from typing import NamedTuple

from markupsafe import Markup, escape
from starlette.responses import Response

from vault import audit
from vault.dashboard.fields import is_number, is_same_name
from vault.dashboard.pages.secrets import can_reveal, page_path, require
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import Row
from vault.dashboard.web import Page, Visit
from vault.domains import secrets
from vault.errors import Refusal
from vault.router import Call

QUESTION_LIFE_MS = 60_000
SHOWN_S = 30
MAX_CONFIRMATION = 1_024  # characters


class Question(NamedTuple):
    """A confirmation that is asked for."""

    token: str
    secret_id: str
    version: int


def ask(visit: Visit) -> Response:
    """Ask for the confirmation."""
    return _ask(visit, _allowed(visit))


def reveal(visit: Visit) -> Response:
    """Show the value if the confirmation is right."""
    secret = _allowed(visit)
    _refuse_flood(visit)
    version = _version(secret, visit.field("version"))
    if not _is_answer(visit, secret, version):
        return _ask(visit, secret, "this question was too old or answered before: confirm once more", 409)
    if not _is_confirmed(visit, secret):
        visit.dashboard.sessions.count_wrong()
        visit.desk.run("reveal", lambda call: _note_denied(call, secret, version))
        _refuse_flood(visit)
        what = "the passphrase is wrong" if visit.desk.store.has_passphrase else "that is not the secret's name"
        return _ask(visit, secret, what, 403)
    value = visit.desk.run("reveal", lambda call: _value(call, secret, version))
    fields = None
    if secret["fieldNames"]:
        fields = [(name, _exact(str(content))) for name, content in json.loads(value).items()]
    return visit.page(
        "reveals_shown.html",
        secret=secret,
        version=version,
        path=page_path(secret),
        value=_exact(value),
        fields=fields,
        shown_s=SHOWN_S,
    )


def _allowed(visit: Visit) -> Row:
    """The secret. Raises Refusal if values may not be shown."""
    if not can_reveal(visit):
        raise Refusal(403, "this vault does not show values: only machines can read them")
    return require(visit)


def _ask(visit: Visit, secret: Row, problem: str = "", status: int = 200) -> Response:
    version = _version(secret, visit.field("version") or visit.query("version"))
    question = Question(tokens.token_urlsafe(16), secret["id"], version)
    if visit.session is not None:
        visit.session.keep("reveal", question, visit.desk.clock() + QUESTION_LIFE_MS)
    with visit.desk.reader() as db:
        project = listings.project(db, secret["projectId"])
    return visit.page(
        "reveals_ask.html",
        status=status,
        secret=secret,
        project=project,
        path=page_path(secret),
        question=question,
        problem=problem,
        has_passphrase=visit.desk.store.has_passphrase,
        shown_s=SHOWN_S,
        life_s=QUESTION_LIFE_MS // 1000,
    )


def _version(secret: Row, given: str) -> int:
    """The version that a field or the query names, or the current one. Raises Refusal."""
    if given and not is_number(given):
        raise Refusal(404, "no such version")
    return int(given) if given else int(secret["version"])


def _is_answer(visit: Visit, secret: Row, version: int) -> bool:
    """Whether the form answers the question that this session was asked last. It counts once."""
    question = visit.session and visit.session.take("reveal", visit.desk.clock())
    if not question:
        return False
    is_same = hmac.compare_digest(question.token.encode(), visit.field("question").encode())
    return is_same and (question.secret_id, question.version) == (secret["id"], version)


def _is_confirmed(visit: Visit, secret: Row) -> bool:
    typed = visit.field("confirm")
    if len(typed) > MAX_CONFIRMATION:
        return False
    store = visit.desk.store
    if store.has_passphrase:
        return store.is_passphrase(typed)
    return bool(typed) and is_same_name(typed.strip(), secret["name"].strip())


def _refuse_flood(visit: Visit) -> None:
    """Raise Refusal after too many wrong confirmations."""
    wait_ms = visit.dashboard.sessions.wait_ms()
    if wait_ms:
        minutes = -(-wait_ms // 60_000)
        in_words = "a minute" if minutes == 1 else f"{minutes} minutes"
        raise Refusal(429, f"too many wrong confirmations: you cannot reveal values for {in_words}")


def _value(call: Call, secret: Row, version: int) -> str:
    return secrets.reveal_as_owner(call.db, call.keys, call.now_ms, secret["id"], version, actor=call.actor)


def _note_denied(call: Call, secret: Row, version: int) -> None:
    ids = {"secret_id": secret["id"], "project_id": secret["projectId"]}
    audit.note(call, "secret_reveal_denied", f"version {version} not shown: wrong confirmation", **ids)


def _exact(value: str) -> Markup:
    """A value as HTML that shows exactly it. Parsers would turn a bare carriage return into a line feed."""
    return Markup(str(escape(value)).replace("\r", "&#13;"))  # noqa: S704  # it is escaped


PATH = "/projects/{project}/secrets/{secret}/reveal"

PAGES = (
    Page("GET", PATH, ask),
    Page("POST", PATH, reveal),
)
