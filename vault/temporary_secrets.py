"""Temporary secrets: a value for one person, behind a link that opens once.

    passphrase --Argon2id, salt--> 64 bytes = content key (never stored) + check (stored)

The vault keeps the hash of the token, the salt, the check and the ciphertext: neither the database nor the root key
opens it without the passphrase. The first attempt, right or wrong, deletes all of that in the transaction that answers
it, so that of two who try at once one sees the value and the other learns that it is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vault import audit, projects, share_page
from vault.calls import SYSTEM, Call, Raw, Route
from vault.crypto import KEY_BYTES, decrypt, encrypt, new_id
from vault.errors import Refusal
from vault.inputs import BOOLEAN, integer, text
from vault.stored_secrets import READ, WRITE
from vault.values import CHARSET, LENGTH, Recipe, generate

if TYPE_CHECKING:
    from vault.store import Store

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
CREATE INDEX IF NOT EXISTS temporary_secrets_by_project ON temporary_secrets (project_id);
CREATE INDEX IF NOT EXISTS temporary_secrets_due ON temporary_secrets (expires_ms) WHERE status = 'pending';
CREATE TABLE IF NOT EXISTS share_misses (
    source_ip TEXT NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS share_misses_by_age ON share_misses (at_ms);
"""

MAX_VALUE_BYTES = 102_400
MAX_PENDING = 1_000  # a project's: 100 MB at most
KEPT_MS = 30 * 24 * 3600 * 1000  # a row without content stays this long, to tell what became of the link
MISSES, MISS_WINDOW_MS = 20, 60_000  # attempts on links that do not exist, by one address

# Without what people mix up when they copy by hand: 0 and o, 1 and i and l. 24 of them are 119 bits.
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
GROUPS, GROUP_LENGTH = 6, 4

# Argon2id as OWASP's first choice for one lane. A link lives a day at most, so a change here needs no migration.
ARGON2_MEMORY_KIB, ARGON2_ITERATIONS, ARGON2_LANES, SALT_BYTES = 19_456, 2, 1, 16


# ---- routes of agents ------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The links of a project and what became of them, oldest first; nothing that would help to open one."""
    project = projects.require(call, call.params["projectId"])
    rows = call.db.execute(
        "SELECT * FROM temporary_secrets WHERE project_id = ? ORDER BY created_ms, id", (project["id"],)
    )
    return [_shown(row, call.now_ms) for row in rows]


def create(call: Call) -> object:
    """A new link. Token and passphrase are in this answer and nowhere else."""
    project = projects.require(call, call.params["projectId"])
    value = _value(call.body)
    _check_room(call, project["id"])
    secret_id, token, passphrase = new_id("ts_"), secrets.token_urlsafe(32), _new_passphrase()
    salt, expires_ms = secrets.token_bytes(SALT_BYTES), call.now_ms + call.body["expiresInSeconds"] * 1000
    key, check = _derived(passphrase, salt)
    call.db.execute(
        "INSERT INTO temporary_secrets (id, project_id, name, status, token_hash, salt, passphrase_hash, ciphertext,"
        " created_ms, expires_ms) VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?)",
        (secret_id, project["id"], call.body["name"], _hash(token), salt, check)
        + (encrypt(key, value.encode(), _label(secret_id)), call.now_ms, expires_ms),
    )
    detail = f"temporary secret {secret_id} created as {call.body['name']}"
    audit.note(call, "temporary_secret_create", detail, project_id=project["id"])
    url = f"{call.base_url}/s/{token}"
    return {"id": secret_id, "token": token, "passphrase": passphrase, "expiresAt": expires_ms, "url": url}


def _value(body: Mapping[str, Any]) -> str:
    if body.get("generateRandom"):
        if "value" in body:
            raise Refusal(400, "value goes only without generateRandom")
        return generate(Recipe().changed(body))
    for key in ("length", "charset"):
        if key in body:
            raise Refusal(400, f"{key} goes only with generateRandom")
    if "value" not in body:
        raise Refusal(400, "value is required, unless generateRandom is true")
    if "\0" in body["value"]:
        raise Refusal(400, "value must not hold the character NUL: no web page can show it")
    return str(body["value"])


def _check_room(call: Call, project_id: str) -> None:
    count = "SELECT COUNT(*) FROM temporary_secrets WHERE project_id = ? AND status = 'pending'"
    if call.db.execute(count, (project_id,)).fetchone()[0] >= MAX_PENDING:
        raise Refusal(409, f"the project has {MAX_PENDING} pending temporary secrets: wait until some are gone")


def _shown(row: sqlite3.Row, now_ms: int) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "status": _status(row, now_ms),
        "createdAt": row["created_ms"],
        "expiresAt": row["expires_ms"],
        "closedAt": row["closed_ms"],
    }


def _status(row: sqlite3.Row, now_ms: int) -> str:
    """Expiry counts from its moment on, not from when the job gets to it."""
    overdue = row["status"] == "pending" and row["expires_ms"] <= now_ms
    return "expired" if overdue else str(row["status"])


# ---- the page of the link --------------------------------------------------------------------------------------------


def show(call: Call) -> Raw:
    """Ask for the passphrase. Loading changes nothing: messengers load links for their previews."""
    row = _find(call)
    if row is None:
        return share_page.unknown()
    status = _status(row, call.now_ms)
    return share_page.form(row["expires_ms"]) if status == "pending" else share_page.gone(status)


def open_once(call: Call) -> Raw:
    """The one attempt: the value for the right passphrase, and in any case the end of what is stored."""
    row = _find(call)
    if row is None and _missed_often(call):
        return share_page.later(MISS_WINDOW_MS // 1000)
    if row is None:
        call.db.execute("INSERT INTO share_misses (source_ip, at_ms) VALUES (?, ?)", (_address(call), call.now_ms))
        return share_page.unknown()
    status = _status(row, call.now_ms)
    if status != "pending":
        return share_page.gone(status)
    value = _opened(row, call.body["passphrase"])
    _end(call, row, "destroyed" if value is None else "viewed")
    return share_page.wrong() if value is None else share_page.revealed(row["name"], value)


def _find(call: Call) -> sqlite3.Row | None:
    """By the hash of the token, so that the time of the look-up tells nothing about stored tokens."""
    found = call.db.execute("SELECT * FROM temporary_secrets WHERE token_hash = ?", (_hash(call.params["token"]),))
    row: sqlite3.Row | None = found.fetchone()
    return row


def _missed_often(call: Call) -> bool:
    since_ms = call.now_ms - MISS_WINDOW_MS
    call.db.execute("DELETE FROM share_misses WHERE at_ms <= ?", (since_ms,))
    count = "SELECT COUNT(*) FROM share_misses WHERE source_ip = ?"
    return bool(call.db.execute(count, (_address(call),)).fetchone()[0] >= MISSES)


def _address(call: Call) -> str:
    return call.source_ip or "unknown"


def _opened(row: sqlite3.Row, passphrase: str) -> str | None:
    key, check = _derived(passphrase, row["salt"])
    if not hmac.compare_digest(check, row["passphrase_hash"]):
        return None
    return decrypt(key, row["ciphertext"], _label(row["id"])).decode()


def _end(call: Call, row: sqlite3.Row, status: str) -> None:
    _delete_content(call.db, row["id"], status, call.now_ms)
    if status == "viewed":
        audit.note(call, "temporary_secret_view", f"temporary secret {row['id']} viewed", project_id=row["project_id"])
    else:
        detail = f"temporary secret {row['id']} destroyed by a wrong passphrase"
        audit.note(call, "temporary_secret_destroy", detail, project_id=row["project_id"])


# ---- what happens by itself ------------------------------------------------------------------------------------------


def expire_due(store: Store, now_ms: int) -> None:
    """The serving process's job: delete the content of what has expired, and forget what is long gone."""
    with store.transaction() as db:
        due = "SELECT id, project_id FROM temporary_secrets WHERE status = 'pending' AND expires_ms <= ?"
        for row in db.execute(due, (now_ms,)).fetchall():
            _delete_content(db, row["id"], "expired", now_ms)
            detail = f"temporary secret {row['id']} expired unopened"
            audit.record(db, now_ms, SYSTEM, "temporary_secret_expire", detail, project_id=row["project_id"])
        db.execute("DELETE FROM temporary_secrets WHERE closed_ms <= ?", (now_ms - KEPT_MS,))


def _delete_content(db: sqlite3.Connection, secret_id: str, status: str, now_ms: int) -> None:
    db.execute(
        "UPDATE temporary_secrets SET status = ?, closed_ms = ?, salt = NULL, passphrase_hash = NULL,"
        " ciphertext = NULL WHERE id = ?",
        (status, now_ms, secret_id),
    )


# ---- passphrases -----------------------------------------------------------------------------------------------------


def _new_passphrase() -> str:
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))


def _derived(passphrase: str, salt: bytes) -> tuple[bytes, bytes]:
    """Content key and check. Spaces, hyphens and capitals do not count: a typing slip must not destroy the secret."""
    typed = "".join(passphrase.split()).replace("-", "").lower()
    derivation = Argon2id(
        salt=salt,
        length=2 * KEY_BYTES,
        iterations=ARGON2_ITERATIONS,
        lanes=ARGON2_LANES,
        memory_cost=ARGON2_MEMORY_KIB,
    )
    derived = derivation.derive(typed.encode())
    return derived[:KEY_BYTES], derived[KEY_BYTES:]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _label(secret_id: str) -> bytes:
    return f"temporary-secret:{secret_id}".encode()


CREATE_FIELDS = {
    "name": text(1, 256).must(),
    "value": text(max_bytes=MAX_VALUE_BYTES),
    "generateRandom": BOOLEAN,
    "length": LENGTH,
    "charset": CHARSET,
    "expiresInSeconds": integer(60, 24 * 3600).must(),
    "projectId": text(),
}
OPEN_FIELDS = {"passphrase": text(1, share_page.MAX_PASSPHRASE).must()}

ALL = "/v1/ai/projects/{projectId}/temporary-secrets"
LINK = "/s/{token}"

# fmt: off
ROUTES = (
    Route("GET",  ALL,  READ,  list_all),
    Route("POST", ALL,  WRITE, create,    CREATE_FIELDS, status=201),
    Route("GET",  LINK, None,  show,      caller="open"),
    Route("POST", LINK, None,  open_once, OPEN_FIELDS, caller="open", takes="form"),
)
# fmt: on
