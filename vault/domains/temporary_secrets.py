"""Temporary secrets: a value for one person, behind a link that works once.

    passphrase --Argon2id, salt--> 64 bytes = content key (never stored) + check (stored)

The vault stores the hash of the token, the salt, the check and the ciphertext. Without the passphrase, neither the
database nor the root key can decrypt them. The first attempt deletes them in the same transaction, whether the
passphrase is right or wrong. Of two concurrent attempts, one sees the value and the other an error.

A double click sends the form twice, and a browser shows the second answer only. So the ciphertext of an opened link
stays in memory for two seconds, for the same form and the same passphrase.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from html import escape
from importlib import resources
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vault import audit, makers
from vault.crypto import KEY_BYTES, decrypt, encrypt, hash_token, new_id
from vault.domains import projects
from vault.domains.secrets import CHARSET, LENGTH, READ, WRITE, GeneratorOptions, generate_string
from vault.errors import Refusal, Tampered
from vault.inputs import BOOLEAN, integer, text
from vault.query import count, fetch_one, require_one
from vault.router import OWNER, SYSTEM, Actor, Call, Deferred, KeySource, Raw, Route, Transaction
from vault.wiping import wipe_log_after_commit

TABLES = """
CREATE TABLE IF NOT EXISTS temporary_secrets (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'viewed', 'destroyed', 'expired')),
    token_hash BLOB NOT NULL UNIQUE,
    salt BLOB,
    passphrase_hash BLOB,
    ciphertext BLOB,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    closed_ms INTEGER,
    CHECK ((status = 'pending') = (ciphertext IS NOT NULL))
);
DROP INDEX IF EXISTS temporary_secrets_by_project;
CREATE INDEX IF NOT EXISTS temporary_secrets_by_age ON temporary_secrets (project_id, created_ms, id);
CREATE INDEX IF NOT EXISTS temporary_secrets_pending ON temporary_secrets (project_id) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS temporary_secrets_closed ON temporary_secrets (closed_ms) WHERE closed_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS temporary_secrets_due ON temporary_secrets (expires_ms) WHERE status = 'pending';
CREATE TABLE IF NOT EXISTS share_misses (
    source_ip TEXT NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS share_misses_by_age ON share_misses (at_ms);
CREATE INDEX IF NOT EXISTS share_misses_by_address ON share_misses (source_ip);
"""

MAX_VALUE_BYTES = 102_400
MAX_PENDING = 1_000  # per project: at most 100 MB
CLOSED_VISIBLE_MS = 30 * 24 * 3600 * 1000  # how long a row without content is kept to show the status of the link
EXPIRED_AT_ONCE = 20  # in one transaction
MAX_MISSES, MISS_WINDOW_MS = 20, 60_000  # attempts with unknown links, per address

# Without characters that are easily confused: 0 and o, 1 and i and l. 24 characters have 119 bits.
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
GROUPS, GROUP_LENGTH = 6, 4

# OWASP's recommended Argon2id parameters for one lane. Links last at most a day, so changes need no migration.
ARGON2_MEMORY_KIB, ARGON2_ITERATIONS, ARGON2_LANES, SALT_BYTES = 19_456, 2, 1, 16
# Opened links by the hash of their token and the random id of the form that opened them: their rows, and until when.
AGAIN_MS, MAX_AGAIN = 2_000, 20
_AGAIN: dict[tuple[bytes, str], tuple[sqlite3.Row, int]] = {}
_ARGON2_AT_ONCE = threading.BoundedSemaphore(2)  # each takes 19 MiB and a whole processor


# ---- routes of agents ------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The links of a project and their status, oldest first, without tokens and passphrases."""
    project = projects.require(call, call.params["projectId"])
    rows = call.db.execute(
        "SELECT * FROM temporary_secrets WHERE project_id = ? ORDER BY created_ms, id", (project["id"],)
    )
    return [_to_json(row, call.now_ms) for row in rows]


def create(call: Call) -> object:
    """Create a link. Only this answer contains the token and the passphrase."""
    _require_room(call)
    passphrase, salt = _new_passphrase(), secrets.token_bytes(SALT_BYTES)
    finish = partial(_store, value=_value(call.body), passphrase=passphrase, salt=salt)
    return Deferred(partial(_derive_key, passphrase, salt), finish)


def _store(call: Call, derived: tuple[bytes, bytes], *, value: str, passphrase: str, salt: bytes) -> object:
    project, (key, check) = _require_room(call), derived
    secret_id, token = new_id("ts_"), secrets.token_urlsafe(32)
    expires_ms = call.now_ms + call.body["expiresInSeconds"] * 1000
    call.db.execute(
        "INSERT INTO temporary_secrets (id, project_id, name, status, token_hash, salt, passphrase_hash, ciphertext,"
        " created_ms, expires_ms) VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?)",
        (secret_id, project["id"], call.body["name"], hash_token(token), salt, check)
        + (encrypt(key, value.encode(), _label(secret_id)), call.now_ms, expires_ms),
    )
    makers.note(call, makers.LINK, secret_id)
    detail = f"temporary secret {secret_id} created as {call.body['name']}"
    audit.note(call, "temporary_secret_create", detail, project_id=project["id"])
    url = f"{call.base_url}/s/{token}"
    return {"id": secret_id, "token": token, "passphrase": passphrase, "expiresAt": expires_ms, "url": url}


def _value(body: Mapping[str, Any]) -> str:
    if body.get("generateRandom"):
        if "value" in body:
            raise Refusal(400, "value cannot be combined with generateRandom")
        return generate_string(GeneratorOptions().updated(body))
    for key in ("length", "charset"):
        if key in body:
            raise Refusal(400, f"{key} requires generateRandom")
    if "value" not in body:
        raise Refusal(400, "value is required, unless generateRandom is true")
    if "\0" in body["value"]:
        raise Refusal(400, "value must not contain the character NUL: no web page can show it")
    return str(body["value"])


def _require_room(call: Call) -> sqlite3.Row:
    """The project of the path. Raises Refusal if it has too many links."""
    project = projects.require(call, call.params["projectId"])
    pending = "SELECT COUNT(*) FROM temporary_secrets WHERE project_id = ? AND status = 'pending'"
    if count(call.db, pending, (project["id"],)) >= MAX_PENDING:
        raise Refusal(409, f"the project has {MAX_PENDING} open one-time links: wait until some have ended")
    return project


def _to_json(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "status": _status(row, now_ms),
        "createdAt": row["created_ms"],
        "expiresAt": row["expires_ms"],
        "closedAt": row["closed_ms"],
    }


def _status(row: sqlite3.Row, now_ms: int) -> str:
    """The status. A link is expired from its expiry time on, even before the background job has run."""
    overdue = row["status"] == "pending" and row["expires_ms"] <= now_ms
    return "expired" if overdue else str(row["status"])


# ---- routes of the link ----------------------------------------------------------------------------------------------


def show(call: Call) -> Raw:
    """Show the form. A GET changes nothing, because messengers load links for previews."""
    row = _find(call)
    if row is None:
        return _unknown_page()
    status = _status(row, call.now_ms)
    return _form_page(row["expires_ms"]) if status == "pending" else _gone_page(status)


def open_once(call: Call) -> Raw | Deferred:
    """Show the value if the passphrase is right, and delete it in any case."""
    row = _find(call)
    if row is None and _is_rate_limited(call):
        return _rate_limited_page(MISS_WINDOW_MS // 1000)
    if row is None:
        call.db.execute("INSERT INTO share_misses (source_ip, at_ms) VALUES (?, ?)", (_source(call), call.now_ms))
        return _unknown_page()
    status = _status(row, call.now_ms)
    if status != "pending":
        row = _opened_by_this_form(call)
    if row is None:
        return _gone_page(status)
    return Deferred(partial(_decrypt, row, call.body["passphrase"]), _answer_once)


def _answer_once(call: Call, value: str | None) -> Raw:
    """Delete the value, then show it. Of attempts at the same time, the first one here ends the link."""
    row = _find(call)
    if row is None:
        return _unknown_page()
    status = _status(row, call.now_ms)
    if status == "pending":
        _close(call, row, "destroyed" if value is None else "viewed")
    elif _opened_by_this_form(call) is None:
        return _gone_page(status)
    return _wrong_passphrase_page() if value is None else _value_page(row["name"], value)


def _find(call: Call) -> sqlite3.Row | None:
    """Find the row by the hash of the token, so that timing reveals nothing about stored tokens."""
    token_hash = hash_token(call.params["token"])
    return fetch_one(call.db, "SELECT * FROM temporary_secrets WHERE token_hash = ?", (token_hash,))


def _is_rate_limited(call: Call) -> bool:
    since_ms = call.now_ms - MISS_WINDOW_MS
    call.db.execute("DELETE FROM share_misses WHERE at_ms <= ?", (since_ms,))
    return count(call.db, "SELECT COUNT(*) FROM share_misses WHERE source_ip = ?", (_source(call),)) >= MAX_MISSES


def _source(call: Call) -> str:
    return call.source_ip or "unknown"


def _decrypt(row: sqlite3.Row, passphrase: str) -> str | None:
    key, check = _derive_key(passphrase, row["salt"])
    if not hmac.compare_digest(check, row["passphrase_hash"]):
        return None
    try:
        return decrypt(key, row["ciphertext"], _label(row["id"])).decode()
    except InvalidTag:
        what = f"the content of temporary secret {row['id']} does not decrypt"
        raise Tampered(what, project_id=row["project_id"]) from None


def _opened_by_this_form(call: Call) -> sqlite3.Row | None:
    """The row of a link that the same form opened a moment ago, as it was before."""
    _forget_opened(call.now_ms)
    row, _ = _AGAIN.get(_form_of(call), (None, 0))
    return row


def _forget_opened(now_ms: int) -> None:
    for key in [key for key, (_, until_ms) in list(_AGAIN.items()) if until_ms <= now_ms]:
        _AGAIN.pop(key, None)


def _form_of(call: Call) -> tuple[bytes, str]:
    return hash_token(call.params["token"]), call.body.get("form", "")


def _close(call: Call, row: sqlite3.Row, status: str) -> None:
    _delete_content(call.db, row["id"], status, call.now_ms)
    if status == "viewed":
        while len(_AGAIN) >= MAX_AGAIN:
            _AGAIN.pop(next(iter(_AGAIN)))
        if call.body.get("form"):
            _AGAIN[_form_of(call)] = (row, call.now_ms + AGAIN_MS)
        audit.note(call, "temporary_secret_view", f"temporary secret {row['id']} viewed", project_id=row["project_id"])
    else:
        detail = f"temporary secret {row['id']} destroyed by a wrong passphrase"
        audit.note(call, "temporary_secret_destroy", detail, project_id=row["project_id"])


# ---- expiry ----------------------------------------------------------------------------------------------------------


def expire_due(transaction: Transaction, _keys: KeySource, now_ms: int) -> None:
    """Background job: delete the content of expired links, and rows that were closed thirty days ago."""
    due = "SELECT id, project_id FROM temporary_secrets WHERE status = 'pending' AND expires_ms <= ? LIMIT ?"
    old = "SELECT id FROM temporary_secrets WHERE closed_ms <= ? LIMIT ?"
    _forget_opened(now_ms)
    done = EXPIRED_AT_ONCE
    while done == EXPIRED_AT_ONCE:
        with transaction() as db:
            rows = db.execute(due, (now_ms, EXPIRED_AT_ONCE)).fetchall()
            for row in rows:
                _delete_content(db, row["id"], "expired", now_ms)
                detail = f"temporary secret {row['id']} expired unopened"
                audit.record(db, now_ms, SYSTEM, "temporary_secret_expire", detail, project_id=row["project_id"])
            gone = db.execute(old, (now_ms - CLOSED_VISIBLE_MS, EXPIRED_AT_ONCE)).fetchall()
            db.executemany("DELETE FROM temporary_secrets WHERE id = ?", [(row["id"],) for row in gone])
        done = max(len(rows), len(gone))


def _delete_content(db: sqlite3.Connection, secret_id: str, status: str, now_ms: int) -> None:
    db.execute(
        "UPDATE temporary_secrets SET status = ?, closed_ms = ?, salt = NULL, passphrase_hash = NULL,"
        " ciphertext = NULL WHERE id = ?",
        (status, now_ms, secret_id),
    )
    wipe_log_after_commit(db)


# ---- passphrases -----------------------------------------------------------------------------------------------------


def _new_passphrase() -> str:
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))


def _derive_key(passphrase: str, salt: bytes) -> tuple[bytes, bytes]:
    """The content key and the check. Spaces, hyphens and case are ignored, since a mistake destroys the secret."""
    typed = "".join(passphrase.split()).replace("-", "").lower()
    derivation = Argon2id(
        salt=salt,
        length=2 * KEY_BYTES,
        iterations=ARGON2_ITERATIONS,
        lanes=ARGON2_LANES,
        memory_cost=ARGON2_MEMORY_KIB,
    )
    with _ARGON2_AT_ONCE:
        derived = derivation.derive(typed.encode())
    return derived[:KEY_BYTES], derived[KEY_BYTES:]


def _label(secret_id: str) -> bytes:
    return f"temporary-secret:{secret_id}".encode()


# ---- web pages -------------------------------------------------------------------------------------------------------

# The pages use no scripts. The content security policy forbids everything except their own style sheet and form, so a
# value that looks like markup is harmless even if escaping fails.

MAX_PASSPHRASE = 256

STYLE = resources.files("vault.domains").joinpath("share_page.css").read_text("utf-8")  # works inside an archive too
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main class="{tone}">
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""

# A text field, not a password field: an unnoticed typing mistake would destroy the secret.
FORM = """<p>Somebody sent you a value that can be seen once. Enter the passphrase that you got with this link.</p>
<form method="post">
<input type="hidden" name="form" value="{form}">
<label for="passphrase">Passphrase</label>
<input id="passphrase" name="passphrase" type="text" required maxlength="{most}" autofocus autocomplete="off"
 autocapitalize="none" autocorrect="off" spellcheck="false" aria-describedby="once">
<p id="once" class="note"><strong>You have one attempt.</strong> A wrong passphrase destroys the secret.</p>
<button type="submit">Show it once</button>
</form>
<p class="note">The link is good until <time datetime="{machine}">{human}</time>.</p>"""

# HTML drops the first line break after <pre>. This one protects a line break at the start of the value.
REVEALED = """<p>Keep it somewhere safe now: the vault has deleted its copy.</p>
<h2 id="name">{name}</h2>
<pre id="value" tabindex="0" aria-labelledby="name">
{value}</pre>
<p class="note">A click selects all of it. Once this page is closed or loaded again, the value is gone.</p>"""

GONE = {
    "viewed": "Its value has been shown already. If that was not you, tell the sender: somebody else has seen it.",
    "destroyed": "Somebody entered a wrong passphrase, or the vault's owner ended it. Ask the sender for a new link.",
    "expired": "Nobody opened it in time, and it was deleted. Ask the sender for a new link.",
}


def _form_page(expires_ms: int) -> Raw:
    """The form that asks for the passphrase."""
    expiry = datetime.fromtimestamp(expires_ms // 1000, timezone.utc)
    human = f"{expiry.day} {expiry:%B %Y, %H:%M} UTC"
    shown = {"most": MAX_PASSPHRASE, "machine": expiry.isoformat(), "human": human, "form": secrets.token_hex(16)}
    return _page(200, "A secret for you", FORM.format(**shown))


def _value_page(name: str, value: str) -> Raw:
    """The page that shows the value unchanged."""
    return _page(200, "Here is the secret", REVEALED.format(name=escape(name), value=_escape_value(value)), "good")


def _wrong_passphrase_page() -> Raw:
    """The page after a wrong passphrase."""
    message = "That was not the passphrase, and the secret has been destroyed. Ask the sender for a new link."
    return _page(403, "Wrong passphrase", f"<p>{message}</p>", "bad")


def _gone_page(status: str) -> Raw:
    """The page of a secret that is viewed, destroyed or expired."""
    return _page(410, "This secret is gone", f"<p>{GONE[status]}</p>", "bad")


def _unknown_page() -> Raw:
    """The page of an unknown link."""
    message = "The link is not complete, or what it led to was deleted long ago. Copy it once more from the message."
    return _page(404, "Nothing here", f"<p>{message}</p>", "bad")


def _rate_limited_page(wait_s: int) -> Raw:
    """The page after too many attempts with unknown links."""
    message = "Too many wrong links were tried from your address. Nothing was opened or destroyed."
    page = _page(429, "Try again in a minute", f"<p>{message}</p>", "bad")
    return page._replace(headers={**page.headers, "retry-after": str(wait_s)})


def _page(status: int, title: str, content: str, tone: str = "plain") -> Raw:
    page = PAGE.format(title=title, style=STYLE, tone=tone, content=content)
    return Raw(page.encode(), "text/html; charset=utf-8", HEADERS, status)


def _escape_value(value: str) -> str:
    """The escaped value. HTML parsers would turn a bare carriage return into a line feed."""
    return escape(value).replace("\r", "&#13;")


CREATE_FIELDS = {
    "name": text(1, 256).required(),
    "value": text(max_bytes=MAX_VALUE_BYTES),
    "generateRandom": BOOLEAN,
    "length": LENGTH,
    "charset": CHARSET,
    "expiresInSeconds": integer(60, 24 * 3600).required(),
    "projectId": text(),
}
OPEN_FIELDS = {"passphrase": text(1, MAX_PASSPHRASE).required(), "form": text(0, 32)}

ALL = "/v1/ai/projects/{projectId}/temporary-secrets"
LINK = "/s/{token}"

# fmt: off
ROUTES = (
    Route("GET",  ALL,  READ,  list_all, reads=True),
    Route("POST", ALL,  WRITE, create,    CREATE_FIELDS, status=201),
    Route("GET",  LINK, None,  show,      caller="open"),
    Route("POST", LINK, None,  open_once, OPEN_FIELDS, caller="open", takes="form"),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def destroy(call: Call, link_id: str) -> str:
    """End a link that nobody has opened, and return its name. Raises Refusal."""
    row = require_one(call.db, "SELECT * FROM temporary_secrets WHERE id = ?", (link_id,), "no such link")
    if _status(row, call.now_ms) != "pending":
        raise Refusal(409, "the link has already ended")
    destroy_as_owner(call.db, call.now_ms, link_id, actor=call.actor)
    return str(row["name"])


def destroy_as_owner(db: sqlite3.Connection, now_ms: int, secret_id: str, *, actor: Actor = OWNER) -> None:
    """Delete the content of a link that nobody has opened."""
    row = db.execute("SELECT project_id FROM temporary_secrets WHERE id = ?", (secret_id,)).fetchone()
    _delete_content(db, secret_id, "destroyed", now_ms)
    detail = f"temporary secret {secret_id} destroyed by the owner"
    audit.record(db, now_ms, actor, "temporary_secret_destroy", detail, project_id=row["project_id"])
