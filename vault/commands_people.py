"""Commands on behalf of people: invitees who accept or decline, and the staff that answers tickets."""

from __future__ import annotations

import argparse
import mimetypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vault import support, team
from vault.calls import wall_clock
from vault.console import Output, add, changing, listing, moment
from vault.errors import VaultError
from vault.files import shown
from vault.terminal import printable

if TYPE_CHECKING:
    from vault.console import Commands


def add_all(commands: Commands) -> None:
    """Declare the commands of this file."""
    add(commands, "team", _team, "list the invitations to the team")
    for name, run, text in (
        ("accept-invite", _accept, "accept an invitation on behalf of the invitee"),
        ("decline-invite", _decline, "decline an invitation on behalf of the invitee"),
    ):
        add(commands, name, run, text).add_argument("id", metavar="ID", help="the invitation's id")
    naming = add(commands, "owner-email", _owner_email, "say what the owner's address is, so that nobody invites it")
    naming.add_argument("email", metavar="EMAIL", help="the address")
    add(commands, "tickets", _tickets, "list the tickets that are not closed, the longest wait first")
    add(commands, "ticket", _ticket, "show what was said on a ticket").add_argument("id", metavar="ID")
    replying = add(commands, "reply", _reply, "answer a ticket as the staff; the text comes from standard input")
    replying.add_argument("id", metavar="ID", help="the ticket's id")
    replying.add_argument("--attach", metavar="FILE", type=Path, action="append", default=[], help="a file to send")
    replying.add_argument("--status", choices=support.STATUSES, default="waiting_on_customer", help="the state it is in"
                          " afterwards (waiting_on_customer)")  # fmt: skip


def _team(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        invites = team.overview(db, wall_clock())
    rows = [(each["inviteId"], each["email"], each["state"], moment(each["expiresAt"])) for each in invites]
    hints = [] if invites else ["no invitations yet; agents with the scope team.write invite"]
    return Output(invites, listing(("ID", "EMAIL", "STATE", "EXPIRES"), rows), hints)


def _accept(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        member = team.accept(db, wall_clock(), options.id)
    return Output(member, f"{printable(str(member['email']))} is a member now ({member['memberId']})")


def _decline(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        invite = team.decline(db, wall_clock(), options.id)
    return Output(invite, f"{printable(str(invite['email']))} has declined")


def _owner_email(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        email = team.set_owner_email(db, wall_clock(), options.email)
    return Output({"email": email}, f"the owner is {printable(email)}")


def _tickets(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        found: list[dict[str, Any]] = support.overview(db)
    keys = ("id", "status", "priority", "messageCount")
    rows = [(*(each[key] for key in keys), moment(each["updatedAt"]), each["title"]) for each in found]
    text = listing(("ID", "STATUS", "PRIORITY", "MESSAGES", "UPDATED", "TITLE"), rows)
    return Output(found, text, [] if found else ["no tickets wait"])


def _ticket(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        said = support.conversation(db, options.id)
    return Output(said, "\n\n".join(_message(each) for each in said))


def _reply(options: argparse.Namespace) -> Output:
    files = [_attachment(path) for path in options.attach]
    body = sys.stdin.read(support.MAX_BODY + 1).rstrip("\n")
    with changing(options) as db:
        message_id = support.staff_reply(db, wall_clock(), options.id, body, attachments=files, status=options.status)
    data = {"ticketId": options.id, "messageId": message_id, "status": options.status}
    return Output(data, f"replied to {options.id}, now {options.status}")


def _attachment(path: Path) -> support.Attachment:
    try:
        with path.open("rb") as file:
            content = file.read(support.MAX_ATTACHMENT_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "no reason").lower()
        raise VaultError(f"file {shown(path)} cannot be read: {reason}", "name another one with --attach") from None
    return support.Attachment(path.name, mimetypes.guess_type(path.name)[0] or "application/octet-stream", content)


def _message(said: dict[str, Any]) -> str:
    """Line by line, since each line is made safe to print by itself."""
    lines = [printable(line) for line in said["body"].splitlines()]
    files = [f"[{file['id']}: {printable(file['name'])}, {file['sizeBytes']} bytes]" for file in said["attachments"]]
    return "\n".join([f"{moment(said['createdAt'])} {said['author']}:", *lines, *files])
