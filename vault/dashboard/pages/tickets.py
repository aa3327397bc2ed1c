"""Tickets, as the staff sees them: agents write as the customer, and the owner answers."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import page_number
from vault.dashboard.queries.listings import PAGE_SIZE, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import support
from vault.domains.support import Attachment
from vault.errors import Refusal, VaultError
from vault.router import Raw

ALL = "/v1/ai/tickets"


def index(visit: Visit) -> Response:
    """A page of tickets, the latest change first."""
    status = visit.query("status") if visit.query("status") in support.STATUSES else ""
    body: dict[str, Any] = {"page": page_number(visit), "pageSize": PAGE_SIZE}
    found = visit.call("POST", f"{ALL}/query", {**body, "status": status} if status else body)
    return visit.page(
        "tickets.html",
        tickets=found["tickets"],
        total=found["total"],
        page=found["page"],
        pages=page_count(found["total"]),
        chosen=status,
        statuses=support.STATUSES,
        categories=support.CATEGORIES,
    )


def show(visit: Visit, problem: str = "") -> Response:
    """The conversation of a ticket, and the form for a reply, with what was typed if it was refused."""
    typed = {name: visit.field(name) for name in ("body", "file_name", "file_text")}
    return visit.page(
        "ticket.html",
        status=400 if problem else 200,
        ticket=visit.call("GET", f"{ALL}/{visit.param('ticket_id')}"),
        categories=support.CATEGORIES,
        statuses=support.STATUSES,
        next_status=visit.field("status") or "waiting_on_customer",
        typed=typed,
        problem=problem,
    )


def reply(visit: Visit) -> Response:
    """Answer as the staff, with a text file if one was pasted."""
    ticket_id, status = visit.param("ticket_id"), visit.field("status")
    files = []
    if visit.field("file_text"):
        name = visit.field("file_name").strip() or "attachment.txt"
        files = [Attachment(name, "text/plain; charset=utf-8", visit.field("file_text").encode())]
    try:
        with visit.desk.transaction() as db:
            now_ms, body, actor = visit.desk.clock(), visit.field("body"), visit.desk.actor
            support.staff_reply(db, now_ms, ticket_id, body, attachments=files, status=status, actor=actor)
    except VaultError as error:
        return show(visit, f"{error}: {error.hint}")
    return visit.go(f"/tickets/{ticket_id}", f"Sent the reply. The ticket is now {status.replace('_', ' ')}.")


def set_status(visit: Visit) -> Response:
    """Set the status without a reply."""
    ticket_id, status = visit.param("ticket_id"), visit.field("status")
    with visit.desk.transaction() as db:
        support.set_status_as_owner(db, visit.desk.clock(), ticket_id, status, actor=visit.desk.actor)
    return visit.go(f"/tickets/{ticket_id}", f"The ticket is now {status.replace('_', ' ')}.")


def attachment(visit: Visit) -> Response:
    """A file of a message, to save. A browser runs nothing in it."""
    file = visit.call("GET", f"{ALL}/attachments/{visit.param('attachment_id')}")
    if not isinstance(file, Raw):
        raise Refusal(404, "no such attachment")
    return Response(file.content, 200, {**file.headers, "content-type": file.content_type})


PAGES = (
    Page("GET", "/tickets", index),
    Page("GET", "/tickets/attachments/{attachment_id}", attachment),
    Page("GET", "/tickets/{ticket_id}", show),
    Page("POST", "/tickets/{ticket_id}/reply", reply),
    Page("POST", "/tickets/{ticket_id}/status", set_status),
)
