"""Support tickets. Agents write as the customer, and the owner answers as the staff.

    open -> waiting_on_customer <-> waiting_on_staff -> resolved -> closed

A reply of the staff sets the next state. A reply of the customer always sets waiting_on_staff, even from resolved, and
is refused for a closed ticket. Agents without a project allowlist see all tickets; others see the tickets that they
opened.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from vault import audit
from vault.crypto import new_id
from vault.errors import Denied, Refusal, VaultError
from vault.inputs import PAGE, integer, text
from vault.query import count, fetch_one
from vault.router import OWNER, Actor, Call, Raw, Route
from vault.terminal import printable

TABLES = """
CREATE TABLE IF NOT EXISTS tickets (
    id TEXT PRIMARY KEY,
    category_id TEXT NOT NULL,
    priority TEXT NOT NULL,
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    rating INTEGER,
    agent_id TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS tickets_by_change ON tickets (updated_ms);
CREATE INDEX IF NOT EXISTS tickets_by_status ON tickets (status, updated_ms);
CREATE INDEX IF NOT EXISTS tickets_by_agent ON tickets (agent_id, updated_ms);
CREATE INDEX IF NOT EXISTS tickets_not_closed ON tickets (status) WHERE status != 'closed';
CREATE TABLE IF NOT EXISTS ticket_messages (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    ticket_id TEXT NOT NULL REFERENCES tickets (id),
    author TEXT NOT NULL CHECK (author IN ('customer', 'staff')),
    body TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS ticket_messages_by_ticket ON ticket_messages (ticket_id, place);
CREATE TABLE IF NOT EXISTS ticket_attachments (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    message_id TEXT NOT NULL REFERENCES ticket_messages (id),
    name TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ticket_attachments_by_message ON ticket_attachments (message_id, place);
"""

CATEGORIES = {
    "account": "Account and access",
    "billing": "Billing",
    "bug": "Something does not work",
    "feature": "Wishes and ideas",
    "security": "Security",
    "other": "Anything else",
}
PRIORITIES = ("low", "normal", "high", "urgent")
STATUSES = ("open", "waiting_on_customer", "waiting_on_staff", "resolved", "closed")
RATEABLE = ("resolved", "closed")

MAX_TITLE, MAX_BODY = 256, 10_000  # characters
MAX_OPEN = 1_000  # tickets that are not closed
MAX_MESSAGES = 500  # per ticket; one answer contains all of them, at most 5 MB
MAX_ATTACHMENTS, MAX_ATTACHMENT_BYTES = 10, 5 * 1024 * 1024  # per reply; a client reads at most 16 MB
MAX_NAME = 255
PAGE_SIZE = 20
CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}(; charset=[a-z0-9-]{1,20})?")

# The condition of each filter.
FILTERS = {"agent": "t.agent_id = :agent", "status": "t.status = :status"}
MESSAGES = "(SELECT COUNT(*) FROM ticket_messages m WHERE m.ticket_id = t.id) AS messages "


class Attachment(NamedTuple):
    """A file attached by the staff."""

    name: str
    content_type: str
    content: bytes


class Message(NamedTuple):
    """A message, and the status of the ticket after it."""

    author: str
    body: str
    status: str


# ---- routes ----------------------------------------------------------------------------------------------------------


def categories(_call: Call) -> object:
    """All categories."""
    return [{"id": category, "name": name} for category, name in CATEGORIES.items()]


def query(call: Call) -> object:
    """One page of tickets, latest change first."""
    page, size = call.body.get("page", 1), call.body.get("pageSize", PAGE_SIZE)
    values = {"agent": _agent_filter(call), "status": call.body.get("status")}
    conditions = [condition for name, condition in FILTERS.items() if values[name] is not None]
    matching = f"FROM tickets t WHERE {' AND '.join(conditions) or '1'} "
    ordered = "ORDER BY t.updated_ms DESC, t.rowid DESC LIMIT :limit OFFSET :offset"
    limits = {"limit": size, "offset": (page - 1) * size}
    rows = call.db.execute(f"SELECT t.*, {MESSAGES}{matching}{ordered}", {**values, **limits})
    tickets = [_to_json(row) for row in rows]
    total = count(call.db, f"SELECT COUNT(*) {matching}", values)
    return {"tickets": tickets, "total": total, "page": page, "pageSize": size}


def get(call: Call) -> object:
    """One ticket with its conversation."""
    ticket = _require(call)
    rows = call.db.execute("SELECT * FROM ticket_messages WHERE ticket_id = ? ORDER BY place", (ticket["id"],))
    return {**_to_json(ticket), "conversation": [_message_to_json(call.db, row) for row in rows]}


def create(call: Call) -> object:
    """Open a ticket."""
    if count(call.db, "SELECT COUNT(*) FROM tickets WHERE status != 'closed'") >= MAX_OPEN:
        raise Refusal(409, f"{MAX_OPEN} tickets are open: wait until some are closed")
    ticket_id, body = new_id("tk_"), call.body
    call.db.execute(
        "INSERT INTO tickets (id, category_id, priority, title, status, agent_id, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, 'open', ?, ?, ?)",
        (ticket_id, body["categoryId"], body["priority"], body["title"], call.agent.id, call.now_ms, call.now_ms),
    )
    _add(call.db, call.now_ms, ticket_id, Message("customer", body["body"], "open"))
    audit.note(call, "ticket_create", f"ticket {ticket_id} opened")
    return {"id": ticket_id, "title": body["title"], "status": "open"}


def reply(call: Call) -> object:
    """Reply to the staff. A closed ticket takes no replies."""
    ticket = _require(call)
    _check_replyable(ticket)
    message_id = _add(call.db, call.now_ms, ticket["id"], Message("customer", call.body["body"], "waiting_on_staff"))
    audit.note(call, "ticket_reply", f"ticket {ticket['id']}: the customer replied")
    return {"id": ticket["id"], "messageId": message_id, "status": "waiting_on_staff"}


def rate(call: Call) -> object:
    """Rate a resolved or closed ticket, once."""
    ticket = _require(call)
    if ticket["status"] not in RATEABLE:
        raise Refusal(409, "a ticket can be rated when it is resolved or closed")
    if ticket["rating"] is not None:
        raise Refusal(409, "the ticket was already rated")
    call.db.execute("UPDATE tickets SET rating = ? WHERE id = ?", (call.body["rating"], ticket["id"]))
    audit.note(call, "ticket_rate", f"ticket {ticket['id']} rated")
    return {"id": ticket["id"], "rating": call.body["rating"]}


def attachment(call: Call) -> Raw:
    """The unchanged file. The content security policy keeps a browser from running anything in it."""
    row = fetch_one(
        call.db,
        "SELECT a.*, t.agent_id FROM ticket_attachments a JOIN ticket_messages m ON m.id = a.message_id"
        " JOIN tickets t ON t.id = m.ticket_id WHERE a.id = ?",
        (call.params["attachmentId"],),
    )
    row = _require_visible(call, row, "attachment")
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row['name'], safe='')}",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return Raw(row["content"], row["content_type"], headers)


def _agent_filter(call: Call) -> str | None:
    return None if call.agent.allowlist is None else call.agent.id


def _require(call: Call) -> sqlite3.Row:
    row = fetch_one(call.db, f"SELECT t.*, {MESSAGES}FROM tickets t WHERE t.id = ?", (call.params["ticketId"],))
    return _require_visible(call, row, "ticket")


def _require_visible(call: Call, row: sqlite3.Row | None, kind: str) -> sqlite3.Row:
    """The row, if the agent may see it. To a restricted agent, unknown and foreign tickets look the same."""
    if _agent_filter(call) is not None and (row is None or row["agent_id"] != call.agent.id):
        raise Denied(403, f"the {kind} is not one of the agent's own", call.agent.id)
    if row is None:
        raise Refusal(404, f"no such {kind}")
    return row


def _check_replyable(ticket: sqlite3.Row) -> None:
    if ticket["status"] == "closed":
        raise Refusal(409, "the ticket is closed: open another one")
    if ticket["messages"] >= MAX_MESSAGES:
        raise Refusal(409, f"the ticket has {MAX_MESSAGES} messages: open another one")


def _add(db: sqlite3.Connection, now_ms: int, ticket_id: str, message: Message) -> str:
    message_id = new_id("tm_")
    db.execute(
        "INSERT INTO ticket_messages (id, ticket_id, author, body, created_ms) VALUES (?, ?, ?, ?, ?)",
        (message_id, ticket_id, message.author, message.body, now_ms),
    )
    db.execute("UPDATE tickets SET status = ?, updated_ms = ? WHERE id = ?", (message.status, now_ms, ticket_id))
    return message_id


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "categoryId": row["category_id"],
        "priority": row["priority"],
        "title": row["title"],
        "status": row["status"],
        "rating": row["rating"],
        "messageCount": row["messages"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


def _message_to_json(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, object]:
    files = db.execute(
        "SELECT id, name, content_type, length(content) AS size FROM ticket_attachments WHERE message_id = ?"
        " ORDER BY place",
        (row["id"],),
    )
    return {
        "id": row["id"],
        "author": row["author"],
        "body": row["body"],
        "createdAt": row["created_ms"],
        "attachments": [
            {"id": file["id"], "name": file["name"], "contentType": file["content_type"], "sizeBytes": file["size"]}
            for file in files
        ],
    }


BODY = text(1, MAX_BODY)
QUERY_FIELDS = {"page": PAGE, "pageSize": integer(1, 100), "status": text(choices=STATUSES)}
CREATE_FIELDS = {
    "categoryId": text(choices=tuple(CATEGORIES)).required(),
    "priority": text(choices=PRIORITIES).required(),
    "title": text(1, MAX_TITLE).required(),
    "body": BODY.required(),
}

SCOPE = "support.write"
ALL = "/v1/ai/tickets"
ONE = ALL + "/{ticketId}"

# fmt: off
ROUTES = (
    Route("GET",  "/v1/ai/ticket-categories",             SCOPE, categories, reads=True),
    Route("POST", ALL + "/query",                         SCOPE, query,  QUERY_FIELDS, reads=True),
    Route("GET",  ONE,                                    SCOPE, get, reads=True),
    Route("POST", ALL,                                    SCOPE, create, CREATE_FIELDS, status=201),
    Route("POST", ONE + "/reply",                         SCOPE, reply,  {"body": BODY.required()}),
    Route("POST", ONE + "/rate",                          SCOPE, rate,   {"rating": integer(1, 5).required()}),
    Route("GET",  ALL + "/attachments/{attachmentId}",    SCOPE, attachment, reads=True),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def overview(db: sqlite3.Connection) -> list[dict[str, object]]:
    """All tickets that are not closed, least recently updated first."""
    rows = db.execute(f"SELECT t.*, {MESSAGES}FROM tickets t WHERE t.status != 'closed' ORDER BY t.updated_ms, t.rowid")
    return [_to_json(row) for row in rows]


def conversation(db: sqlite3.Connection, ticket_id: str) -> list[dict[str, object]]:
    """The messages of a ticket, oldest first. Raises VaultError."""
    _require_for_owner(db, ticket_id)
    rows = db.execute("SELECT * FROM ticket_messages WHERE ticket_id = ? ORDER BY place", (ticket_id,))
    return [_message_to_json(db, row) for row in rows]


def staff_reply(
    db: sqlite3.Connection,
    now_ms: int,
    ticket_id: str,
    body: str,
    *,
    attachments: Iterable[Attachment] = (),
    status: str = "waiting_on_customer",
    actor: Actor = OWNER,
) -> str:
    """Reply to a ticket as the staff, set its status, and return the id of the message. Raises VaultError."""
    _require_for_owner(db, ticket_id, open_only=True)
    files = list(attachments)
    _check_reply(body, files, status)
    message_id = _add(db, now_ms, ticket_id, Message("staff", body, status))
    for file in files:
        db.execute(
            "INSERT INTO ticket_attachments (id, message_id, name, content_type, content) VALUES (?, ?, ?, ?, ?)",
            (new_id("ta_"), message_id, file.name, file.content_type, file.content),
        )
    audit.record(db, now_ms, actor, "ticket_answer", f"ticket {ticket_id}: the staff replied, now {status}")
    return message_id


def set_status_as_owner(
    db: sqlite3.Connection, now_ms: int, ticket_id: str, status: str, *, actor: Actor = OWNER
) -> None:
    """Set the status of a ticket that is not closed, without a reply. Raises VaultError."""
    _require_for_owner(db, ticket_id, open_only=True)
    if status not in STATUSES:
        raise VaultError("the status is unknown", f"choose from: {', '.join(STATUSES)}")
    db.execute("UPDATE tickets SET status = ?, updated_ms = ? WHERE id = ?", (status, now_ms, ticket_id))
    audit.record(db, now_ms, actor, "ticket_answer", f"ticket {ticket_id}: now {status}")


def _require_for_owner(db: sqlite3.Connection, ticket_id: str, *, open_only: bool = False) -> None:
    row = fetch_one(db, "SELECT status FROM tickets WHERE id = ?", (ticket_id,))
    if row is None:
        raise VaultError(f"there is no ticket {printable(ticket_id)}", "list them with the tickets command")
    if open_only and row["status"] == "closed":
        raise VaultError(f"ticket {ticket_id} is closed", "open a new ticket")


def _check_reply(body: str, files: Sequence[Attachment], status: str) -> None:
    if status not in STATUSES:
        raise VaultError("the status is unknown", f"choose from: {', '.join(STATUSES)}")
    if not 1 <= len(body) <= MAX_BODY:
        raise VaultError(f"the reply must have 1 to {MAX_BODY} characters", "shorten it, or attach a file")
    if len(files) > MAX_ATTACHMENTS:
        raise VaultError(f"a reply takes at most {MAX_ATTACHMENTS} files", "send another reply")
    for file in files:
        if not 1 <= len(file.name) <= MAX_NAME or len(file.content) > MAX_ATTACHMENT_BYTES:
            raise VaultError(f"a file needs a name, and at most {MAX_ATTACHMENT_BYTES} bytes", "choose a smaller file")
        if not CONTENT_TYPE.fullmatch(file.content_type):
            raise VaultError("a content type looks like text/plain", "application/octet-stream fits any file")
