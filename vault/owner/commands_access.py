"""Commands about agents, machines, the team and support tickets."""

from __future__ import annotations

import argparse
import mimetypes
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vault.control import ask
from vault.domains import agents, machines, support, team
from vault.domains.identities import fingerprint
from vault.errors import VaultError
from vault.files import quoted
from vault.owner import made
from vault.owner.console import (
    Commands,
    Output,
    add_command,
    add_passphrase_option,
    format_table,
    format_time,
    open_existing,
    owner_transaction,
)
from vault.owner.machine_bundle import write_bundle
from vault.router import wall_clock
from vault.terminal import PROGRAM, printable

HINT_TOKEN = "the token is valid for one registration within 24 hours and is not shown again"  # noqa: S105  # not a token
HINT_PENDING = f"the agent is pending until you run: {PROGRAM} approve ID --dir DIR"
HINT_DISABLED = f"the agent is disabled; its requests are refused until you run: {PROGRAM} enable ID --dir DIR"
HINT_NO_AGENTS = f"no agents yet; create a token: {PROGRAM} agent-token --dir DIR --scopes all"
HINT_STILL_WORKS = f"what they made still works; list it: {PROGRAM} made --dir DIR"
HINT_NO_MACHINES = f"no machines yet; create one: {PROGRAM} machine-bootstrap --dir DIR --name NAME"


def add_all(commands: Commands) -> None:
    """Declare the commands of this module."""
    _add_identity_commands(commands)
    _add_people_commands(commands)


# ---- agents and machines ---------------------------------------------------------------------------------------------


def _add_identity_commands(commands: Commands) -> None:
    token = add_command(
        commands, "agent-token", _agent_token, "create a one-time token for the registration of an AI agent"
    )
    token.add_argument("--scopes", required=True, help="comma-separated scopes, or all")
    token.add_argument("--projects", help="comma-separated ids of the only projects that the agent may reach")
    token.add_argument("--name", help="the name of the agent if it does not choose one")
    listing = add_command(commands, "agents", _agents, "list the AI agents")
    listing.add_argument(
        "--disable-all", action="store_true", help="first disable every agent; only `enable` undoes this, one by one"
    )
    making = add_command(commands, "made", _made, "list what agents made and what still works, with its maker")
    making.add_argument("--agent", metavar="ID", help="only what this agent made; it may be revoked already")
    making = add_command(
        commands, "machine-bootstrap", _bootstrap, "create a machine and the identity files for its client"
    )
    making.add_argument("--name", required=True, help="the machine's name")
    making.add_argument(
        "--home", type=Path, default=Path.home() / ".sikkerkey", help="the directory for the identity (~/.sikkerkey)"
    )
    making.add_argument("--url", help="the vault's URL for the machine (default: the running server)")
    making.add_argument("--temp", action="store_true", help="create a machine that expires after an hour")
    add_command(commands, "machines", _machines, "list the machines")
    for name, run, text in (
        ("approve", _approve, "approve a pending agent or machine"),
        ("disable", _disable, "refuse an agent's requests until it is enabled again"),
        ("enable", _enable, "re-enable a disabled agent"),
    ):
        command = add_command(commands, name, run, text)
        command.add_argument("id", metavar="ID", help="the id of the agent or machine")
        if name != "disable":
            add_passphrase_option(command, text="for a vault with a passphrase: the passphrase")
    revoking = add_command(commands, "revoke", _revoke, "delete an agent or a machine permanently")
    revoking.add_argument("id", metavar="ID", help="the id of the agent or machine")
    revoking.add_argument(
        "--all-it-made", action="store_true", help="also end everything that the agent made: see the command made"
    )


def _agent_token(options: argparse.Namespace) -> Output:
    scopes = agents.SCOPES if options.scopes == "all" else _split(options.scopes)
    projects = None if options.projects is None else _split(options.projects)
    with owner_transaction(options) as db:
        token = agents.issue_token(db, wall_clock(), scopes, projects, options.name)
    return Output({"token": token}, token, [HINT_TOKEN, HINT_PENDING])


def _agents(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        disabled = agents.disable_all(db, wall_clock()) if options.disable_all else []
        found = agents.overview(db)
    text = format_table(("ID", "NAME", "STATE", "KEY", "SCOPES", "PROJECTS"), [_agent_row(agent) for agent in found])
    hints = [] if found else [HINT_NO_AGENTS]
    if disabled:
        hints = [f"disabled {len(disabled)} agents", HINT_STILL_WORKS]
    return Output(found, text, hints)


def _made(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found = made.overview(db, wall_clock(), options.agent)
    text = format_table(("KIND", "ID", "NAME", "MADE BY", "MADE"), [_made_row(thing) for thing in found])
    return Output(found, text, [] if found else ["agents made nothing that still works"])


def _bootstrap(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        url = options.url or _local_url(options.dir)
        kind = "temp" if options.temp else "standard"
        machine_id = write_bundle(store, wall_clock(), options.home, url, options.name, kind=kind)
        where = options.home / "vaults" / store.vault_id
    data = {"machineId": machine_id, "name": options.name, "kind": kind, "directory": str(where)}
    return Output(data, f"{machine_id} in {quoted(where)}", [HINT_PENDING.replace("agent", "machine")])


def _local_url(directory: Path) -> str:
    """The URL of the running server. The vendor's client accepts plain HTTP only for the name localhost."""
    running = ask(directory, "status")
    port = urlsplit(running["url"]).port if running else None
    if port is None:
        raise VaultError("no server runs, so the vault's URL is not known", "pass it with --url http://localhost:PORT")
    return f"http://localhost:{port}"


def _machines(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found = machines.overview(db, wall_clock())
    keys = ("id", "name", "kind", "state", "hostname")
    rows = [(*(machine[key] for key in keys), format_time(machine["lastSeenAt"])) for machine in found]
    text = format_table(("ID", "NAME", "KIND", "STATE", "HOSTNAME", "LAST SEEN"), rows)
    return Output(found, text, [] if found else [HINT_NO_MACHINES])


def _approve(options: argparse.Namespace) -> Output:
    """Approve an agent or a machine. An id that is not an agent's may be a machine's."""
    with owner_transaction(options, opens=True) as db:
        if agents.find(db, options.id) is None and machines.find(db, options.id) is not None:
            machine = machines.approve_as_owner(db, wall_clock(), options.id)
            return _result("approved", {"machineId": machine.id, "name": machine.name})
        agent = agents.approve_as_owner(db, wall_clock(), options.id)
    hints = [] if agent.enabled else [HINT_DISABLED]
    key = fingerprint(agent.public_key)
    text = f"approved {printable(agent.name)} ({agent.id}) with the key {key}"
    return Output({"agentId": agent.id, "name": agent.name, "fingerprint": key, "state": "approved"}, text, hints)


def _disable(options: argparse.Namespace) -> Output:
    return _set_enabled(options, enabled=False)


def _enable(options: argparse.Namespace) -> Output:
    return _set_enabled(options, enabled=True)


def _set_enabled(options: argparse.Namespace, *, enabled: bool) -> Output:
    with owner_transaction(options, opens=enabled) as db:
        if agents.find(db, options.id) is None and machines.find(db, options.id) is not None:
            raise VaultError(
                "machines cannot be enabled or disabled", f"delete it permanently: {PROGRAM} revoke ID --dir DIR"
            )
        agent = agents.set_enabled(db, wall_clock(), options.id, enabled=enabled)
    hints = [HINT_PENDING] if enabled and not agent.approved else []
    return _result("enabled" if enabled else "disabled", {"agentId": agent.id, "name": agent.name}, hints)


def _revoke(options: argparse.Namespace) -> Output:
    """Revoke an agent or a machine. What a revoked agent made can still be ended."""
    with owner_transaction(options) as db:
        if options.all_it_made:
            return _revoke_all(db, options.id)
        if agents.find(db, options.id) is None:
            machine = machines.revoke_as_owner(db, wall_clock(), options.id)
            return _result("revoked", {"machineId": machine.id, "name": machine.name})
        agent = agents.revoke_as_owner(db, wall_clock(), options.id)
        left = made.overview(db, wall_clock(), agent.id)
    hint = f"{len(left)} things that it made still work; end them: {PROGRAM} revoke ID --all-it-made --dir DIR"
    return _result("revoked", {"agentId": agent.id, "name": agent.name}, [hint] if left else [])


def _revoke_all(db: sqlite3.Connection, agent_id: str) -> Output:
    ended = made.end_all(db, wall_clock(), agent_id)
    if agents.find(db, agent_id) is None and ended:
        name = "an agent that was revoked before"
    else:
        name = agents.revoke_as_owner(db, wall_clock(), agent_id).name
    text = format_table(("KIND", "ID", "NAME", "MADE BY", "MADE"), [_made_row(thing) for thing in ended])
    data = {"agentId": agent_id, "name": name, "state": "revoked", "ended": ended}
    return Output(data, text, [f"revoked {printable(name)} ({agent_id}) and ended {len(ended)} things that it made"])


def _result(verb: str, data: dict[str, str], hints: list[str] | None = None) -> Output:
    identity = next(iter(data.values()))
    return Output({**data, "state": verb}, f"{verb} {printable(data['name'])} ({identity})", hints or [])


def _agent_row(agent: dict[str, Any]) -> tuple[str, ...]:
    scopes = "all" if set(agent["scopes"]) == set(agents.SCOPES) else " ".join(agent["scopes"])
    allowlist = agent["projectAllowlist"]
    reach = "all" if allowlist is None else " ".join(allowlist) or "none"
    return agent["agentId"], agent["name"], agent["state"], agent["fingerprint"], scopes, reach


def _made_row(thing: dict[str, Any]) -> tuple[str, ...]:
    return thing["kind"], thing["id"], thing["name"], thing["agentId"], format_time(thing["madeAt"])


def _split(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


# ---- the team and support tickets ------------------------------------------------------------------------------------


def _add_people_commands(commands: Commands) -> None:
    add_command(commands, "team", _team, "list the invitations to the team")
    for name, run, text in (
        ("accept-invite", _accept, "accept an invitation on behalf of the invitee"),
        ("decline-invite", _decline, "decline an invitation on behalf of the invitee"),
    ):
        add_command(commands, name, run, text).add_argument("id", metavar="ID", help="the invitation's id")
    naming = add_command(commands, "owner-email", _owner_email, "set the owner's address, so that it cannot be invited")
    naming.add_argument("email", metavar="EMAIL", help="the address")
    add_command(commands, "tickets", _tickets, "list the tickets that are not closed, least recently updated first")
    add_command(commands, "ticket", _ticket, "show the messages of a ticket").add_argument("id", metavar="ID")
    replying = add_command(
        commands, "reply", _reply, "answer a ticket as the staff; the text comes from standard input"
    )
    replying.add_argument("id", metavar="ID", help="the ticket's id")
    replying.add_argument("--attach", metavar="FILE", type=Path, action="append", default=[], help="a file to attach")
    replying.add_argument(
        "--status",
        choices=support.STATUSES,
        default="waiting_on_customer",
        help="the new status of the ticket (waiting_on_customer)",
    )


def _team(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        invites = team.overview(db, wall_clock())
    rows = [(each["inviteId"], each["email"], each["state"], format_time(each["expiresAt"])) for each in invites]
    hints = [] if invites else ["no invitations yet; agents with the scope team.write can invite"]
    return Output(invites, format_table(("ID", "EMAIL", "STATE", "EXPIRES"), rows), hints)


def _accept(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        member = team.accept(db, wall_clock(), options.id)
    return Output(member, f"{printable(str(member['email']))} is a member now ({member['memberId']})")


def _decline(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        invite = team.decline(db, wall_clock(), options.id)
    return Output(invite, f"{printable(str(invite['email']))} has declined")


def _owner_email(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        email = team.set_owner_email(db, wall_clock(), options.email)
    return Output({"email": email}, f"the owner is {printable(email)}")


def _tickets(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found: list[dict[str, Any]] = support.overview(db)
    keys = ("id", "status", "priority", "messageCount")
    rows = [(*(each[key] for key in keys), format_time(each["updatedAt"]), each["title"]) for each in found]
    text = format_table(("ID", "STATUS", "PRIORITY", "MESSAGES", "UPDATED", "TITLE"), rows)
    return Output(found, text, [] if found else ["no open tickets"])


def _ticket(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        message = support.conversation(db, options.id)
    return Output(message, "\n\n".join(_message(each) for each in message))


def _reply(options: argparse.Namespace) -> Output:
    files = [_attachment(path) for path in options.attach]
    body = sys.stdin.read(support.MAX_BODY + 1).rstrip("\n")
    with owner_transaction(options) as db:
        message_id = support.staff_reply(db, wall_clock(), options.id, body, attachments=files, status=options.status)
    data = {"ticketId": options.id, "messageId": message_id, "status": options.status}
    return Output(data, f"replied to {options.id}, now {options.status}")


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
