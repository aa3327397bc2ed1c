"""Commands about the team and support tickets."""

from __future__ import annotations

import argparse
import mimetypes
import sys
from pathlib import Path
from typing import Any

from vault.domains import support, team
from vault.errors import VaultError
from vault.files import quoted
from vault.owner.console import Output, owner_desk, owner_transaction
from vault.owner.looks import format_table, format_time
from vault.owner.naming import INVITATION, TICKET, find
from vault.owner.parser import CommandLine, add_opening
from vault.router import wall_clock
from vault.terminal import printable


def add_all(line: CommandLine) -> None:
    """Declare the commands of this module."""
    _add_team_commands(line)
    _add_ticket_commands(line)


# ---- the team --------------------------------------------------------------------------------------------------------


def _add_team_commands(line: CommandLine) -> None:
    line.section("People")
    line.add("team", _team, "list the invitations to the team")
    add_opening(line.add("members", _members, "list the members of the team and their projects"))
    for name, run, text in (
        ("accept-invite", _accept, "accept an invitation on behalf of the invitee"),
        ("decline-invite", _decline, "decline an invitation on behalf of the invitee"),
    ):
        line.add(name, run, text).add_argument("id", metavar="INVITATION", help="its id or address")
    naming = line.add("owner-email", _owner_email, "set the owner's address, so that it cannot be invited")
    naming.add_argument("email", metavar="EMAIL", help="the address")


def _team(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        invites = team.overview(db, wall_clock())
    rows = [(each["inviteId"], each["email"], each["state"], format_time(each["expiresAt"])) for each in invites]
    hints = [] if invites else ["no invitations yet; agents with the scope team.write can invite"]
    return Output(invites, format_table(("ID", "EMAIL", "STATE", "EXPIRES"), rows), hints)


def _members(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        found = desk.call("GET", "/v1/ai/team")["members"]
        for member in found:
            member["projects"] = desk.call("GET", f"/v1/ai/team/{member['memberId']}/permissions")
    rows = [
        (
            member["memberId"],
            member["email"],
            format_time(member["joinedAt"]),
            ", ".join(each["projectName"] for each in member["projects"]) or "none",
        )
        for member in found
    ]
    hints = [] if found else ["no members yet; agents with the scope team.write can invite"]
    return Output(found, format_table(("ID", "EMAIL", "JOINED", "PROJECTS"), rows), hints)


def _accept(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        member = team.accept(db, wall_clock(), find(db, options.dir, options.id, INVITATION).id)
    return Output(member, f"{printable(str(member['email']))} is now a member ({member['memberId']})")


def _decline(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        invite = team.decline(db, wall_clock(), find(db, options.dir, options.id, INVITATION).id)
    return Output(invite, f"declined the invitation of {printable(str(invite['email']))}")


def _owner_email(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        email = team.set_owner_email(db, wall_clock(), options.email)
    return Output({"email": email}, f"the owner is {printable(email)}")


# ---- support tickets -------------------------------------------------------------------------------------------------


def _add_ticket_commands(line: CommandLine) -> None:
    line.add("tickets", _tickets, "list the tickets that are not closed, least recently updated first")
    line.add("ticket", _ticket, "show the messages of a ticket").add_argument("id", metavar="TICKET")
    replying = line.add("reply", _reply, "answer a ticket as the staff; the text comes from standard input")
    replying.add_argument("id", metavar="TICKET", help="the ticket's id")
    replying.add_argument("--attach", metavar="FILE", type=Path, action="append", default=[], help="a file to attach")
    replying.add_argument(
        "--status",
        choices=support.STATUSES,
        default="waiting_on_customer",
        help="the new status of the ticket (waiting_on_customer)",
    )


def _tickets(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found: list[dict[str, Any]] = support.overview(db)
    keys = ("id", "status", "priority", "messageCount")
    rows = [(*(each[key] for key in keys), format_time(each["updatedAt"]), each["title"]) for each in found]
    text = format_table(("ID", "STATUS", "PRIORITY", "MESSAGES", "UPDATED", "TITLE"), rows)
    return Output(found, text, [] if found else ["no open tickets"])


def _ticket(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        message = support.conversation(db, find(db, options.dir, options.id, TICKET).id)
    return Output(message, "\n\n".join(_message(each) for each in message))


def _reply(options: argparse.Namespace) -> Output:
    files = [_attachment(path) for path in options.attach]
    body = sys.stdin.read(support.MAX_BODY + 1).rstrip("\n")
    with owner_transaction(options) as db:
        ticket = find(db, options.dir, options.id, TICKET).id
        message_id = support.staff_reply(db, wall_clock(), ticket, body, attachments=files, status=options.status)
    data = {"ticketId": ticket, "messageId": message_id, "status": options.status}
    return Output(data, f"replied to {ticket}, now {options.status}")


def _attachment(path: Path) -> support.Attachment:
    try:
        with path.open("rb") as file:
            content = file.read(support.MAX_ATTACHMENT_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "no reason").lower()
        raise VaultError(f"file {quoted(path)} cannot be read: {reason}", "name another one with --attach") from None
    return support.Attachment(path.name, mimetypes.guess_type(path.name)[0] or "application/octet-stream", content)


def _message(message: dict[str, Any]) -> str:
    """A message for the terminal. Each line is escaped separately, to keep the line breaks."""
    lines = [printable(line) for line in message["body"].splitlines()]
    files = [f"[{file['id']}: {printable(file['name'])}, {file['sizeBytes']} bytes]" for file in message["attachments"]]
    return "\n".join([f"{format_time(message['createdAt'])} {message['author']}:", *lines, *files])
