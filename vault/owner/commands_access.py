"""Commands about agents and machines."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vault.control import ask
from vault.domains import agents, machines, made
from vault.domains.identities import fingerprint
from vault.errors import VaultError
from vault.files import quoted
from vault.owner.console import Output, open_existing, owner_transaction
from vault.owner.looks import format_table, format_time
from vault.owner.machine_bundle import write_bundle
from vault.owner.naming import AGENT, MACHINE, MAKER, PROJECT, TOKEN, Found, find, find_many, split
from vault.owner.parser import CommandLine, add_opening
from vault.place import command_line
from vault.router import Agent, wall_clock
from vault.terminal import printable

HINT_TOKEN = "the token is valid for one registration within 24 hours and is not shown again"  # noqa: S105  # not a token
ALL = "all"


def add_all(line: CommandLine) -> None:
    """Declare the commands of this module."""
    _add_agent_commands(line)
    _add_machine_commands(line)
    _add_state_commands(line)


def _add_agent_commands(line: CommandLine) -> None:
    line.section("Agents and machines")
    token = line.add("agent-token", _agent_token, "create a one-time token for the registration of an AI agent")
    token.add_argument("--scopes", required=True, metavar="SCOPES", help="comma-separated scopes, or all")
    token.add_argument(
        "--projects", metavar="PROJECTS", help="comma-separated projects that the agent may reach (default: all)"
    )
    token.add_argument("--name", metavar="NAME", help="the agent's name, if the agent does not choose one")
    tokens = line.add("tokens", _tokens, "list the tokens that can still register an agent")
    tokens.add_argument("--cancel", metavar="TOKEN", help="first cancel one of them: its id or name")
    listing = line.add("agents", _agents, "list the AI agents")
    listing.add_argument(
        "--disable-all", action="store_true", help="first disable every agent; re-enable each of them with `enable`"
    )
    scopes = line.add("scopes", _scopes, "show or change what an agent may do, and in which projects")
    scopes.add_argument("id", metavar="AGENT", help="its id, the beginning of its id, or its name")
    change = scopes.add_mutually_exclusive_group()
    for name, text in (("set", "replace them with these"), ("add", "add these"), ("remove", "remove these")):
        change.add_argument(f"--{name}", metavar="SCOPES", help=f"comma-separated scopes, or all: {text}")
        scopes.options[f"--{name}"] = ("SCOPES",)
    scopes.add_argument("--projects", metavar="PROJECTS", help="comma-separated projects that it may reach, or all")
    add_opening(scopes)
    making = line.add("made", _made, "list what agents made that still works")
    making.add_argument("--agent", metavar="AGENT", help="only what this agent made, even if it is revoked")


def _add_machine_commands(line: CommandLine) -> None:
    making = line.add("machine-bootstrap", _bootstrap, "create a machine and the identity files for its client")
    making.add_argument("--name", required=True, metavar="NAME", help="the machine's name")
    making.add_argument("--home", type=Path, metavar="DIR", help="the directory for the identity (~/.sikkerkey)")
    making.add_argument("--url", metavar="URL", help="the vault's URL for the machine (default: the running server)")
    making.add_argument("--temp", action="store_true", help="create a machine that expires after an hour")
    line.add("machines", _machines, "list the machines")


def _add_state_commands(line: CommandLine) -> None:
    text = "its id, the beginning of its id, or its name"
    approving = line.add("approve", _approve, "approve a pending agent or machine")
    approving.add_argument("id", metavar="AGENT|MACHINE", nargs="?", help=f"{text} (default: the only pending one)")
    add_opening(approving)
    line.add("disable", _disable, "refuse an agent's requests until it is re-enabled").add_argument(
        "id", metavar="AGENT", help=text
    )
    enabling = line.add("enable", _enable, "re-enable a disabled agent")
    enabling.add_argument("id", metavar="AGENT", help=text)
    add_opening(enabling)
    revoking = line.add("revoke", _revoke, "delete an agent or a machine permanently")
    revoking.add_argument("id", metavar="AGENT|MACHINE", help=text)
    revoking.add_argument(
        "--all-it-made", action="store_true", help="also end everything that the agent made (see `made`)"
    )


# ---- agents ----------------------------------------------------------------------------------------------------------


def _agent_token(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        projects = None if options.projects is None else find_many(db, options.dir, options.projects, PROJECT)
        token = agents.issue_token(db, wall_clock(), _scope_list(options.scopes), projects, options.name)
    running = ask(options.dir, "status")
    agent_url = running.get("agentUrl") if running else None
    # `install -` reads both lines: the address has the fingerprint of the certificate for the agent to trust.
    lines = [token, agent_url] if agent_url else [token]
    pending = f"the agent is pending until you run: {command_line(options.dir, 'approve')}"
    return Output({"token": token, "agentUrl": agent_url}, "\n".join(lines), [HINT_TOKEN, pending])


def _tokens(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        if options.cancel is not None:
            agents.cancel_token(db, wall_clock(), find(db, options.dir, options.cancel, TOKEN).id)
        found: list[dict[str, Any]] = agents.waiting_tokens(db, wall_clock())
    rows = [
        (each["id"], each["name"] or "-", format_time(each["expiresAt"]), _reach(each), _scope_words(each["scopes"]))
        for each in found
    ]
    text = format_table(("ID", "NAME", "EXPIRES", "PROJECTS", "SCOPES"), rows)
    hints = ["cancelled"] if options.cancel is not None else []
    return Output(found, text, hints if found else [*hints, "no unused tokens"])


def _agents(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        disabled = agents.disable_all(db, wall_clock()) if options.disable_all else []
        found: list[dict[str, Any]] = agents.overview(db)
    text = format_table(("ID", "NAME", "STATE", "KEY", "SCOPES", "PROJECTS"), [_agent_row(agent) for agent in found])
    hints = [
        f"to approve {printable(agent['name'])}: {command_line(options.dir, 'approve', agent['agentId'])}"
        for agent in found
        if agent["state"] == "pending"
    ][:1]
    if not found:
        hints = [f"no agents yet; create a token: {command_line(options.dir, 'agent-token', '--scopes', 'all')}"]
    if disabled:
        works = f"what they made still works; list it: {command_line(options.dir, 'made')}"
        hints = [f"disabled {len(disabled)} agents", works]
    return Output(found, text, hints)


def _scopes(options: argparse.Namespace) -> Output:
    with owner_transaction(options, opens=_changes(options)) as db:
        agent = _require_agent(db, find(db, options.dir, options.id, AGENT).id)
        before = agent.scopes
        if _changes(options):
            projects = agent.allowlist if options.projects is None else _project_list(db, options)
            agent = agents.set_scopes(db, wall_clock(), agent.id, _wanted_scopes(options, agent), projects)
        reach = _reach_names(db, agent)
    rows = [(scope, agents.LEADS_TO_PLAINTEXT.get(scope, "")) for scope in agent.scopes]
    warnings = [
        f"{scope} leads to plaintext: the agent {agents.LEADS_TO_PLAINTEXT[scope]}"
        for scope in agent.scopes
        if scope in agents.LEADS_TO_PLAINTEXT and scope not in before
    ]
    data = {"agentId": agent.id, "name": agent.name, "scopes": agent.scopes, "projectAllowlist": agent.allowlist}
    text = f"{printable(agent.name)} ({agent.id}), projects: {reach}\n{format_table(('SCOPE', 'LEADS TO'), rows)}"
    return Output({**data, "leadsToPlaintext": [row[0] for row in rows if row[1]]}, text, warnings=warnings)


def _changes(options: argparse.Namespace) -> bool:
    return any(each is not None for each in (options.set, options.add, options.remove, options.projects))


def _wanted_scopes(options: argparse.Namespace, agent: Agent) -> list[str]:
    if options.set is not None:
        return _scope_list(options.set)
    added, removed = _scope_list(options.add or ""), _scope_list(options.remove or "")
    unknown = [scope for scope in removed if scope not in agent.scopes]
    if unknown:
        raise VaultError(
            f"the agent does not have {', '.join(map(printable, unknown))}",
            "to see its scopes, run the command without options",
        )
    return [scope for scope in (*agent.scopes, *added) if scope not in removed]


def _project_list(db: sqlite3.Connection, options: argparse.Namespace) -> list[str] | None:
    return None if options.projects == ALL else find_many(db, options.dir, options.projects, PROJECT)


def _reach_names(db: sqlite3.Connection, agent: Agent) -> str:
    """The names of the projects that an agent may reach."""
    if agent.allowlist is None:
        return ALL
    rows = db.execute("SELECT id, name FROM live_projects")
    named = {row["id"]: row["name"] for row in rows}
    return ", ".join(printable(named.get(each, each)) for each in agent.allowlist) or "none"


def _require_agent(db: sqlite3.Connection, agent_id: str) -> Agent:
    agent = agents.find(db, agent_id)
    if agent is None:
        raise VaultError("the agent was just revoked", "list the agents")
    return agent


def _made(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        maker = None if options.agent is None else _find_maker(db, options, options.agent)
        found = made.overview(db, wall_clock(), maker)
    text = format_table(("KIND", "ID", "NAME", "MADE BY", "MADE"), [_made_row(thing) for thing in found])
    return Output(found, text, [] if found else ["agents made nothing that still works"])


def _find_maker(db: sqlite3.Connection, options: argparse.Namespace, text: str) -> str:
    """The id of an agent, or of one that is revoked and that made something."""
    try:
        return find(db, options.dir, text, AGENT).id
    except VaultError as unknown:
        try:
            return find(db, options.dir, text, MAKER).id
        except VaultError:
            raise unknown from None


# ---- machines --------------------------------------------------------------------------------------------------------


def _bootstrap(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        url = options.url or _local_url(options.dir)
        home = options.home or Path.home() / ".sikkerkey"
        kind = "temp" if options.temp else "standard"
        machine_id = write_bundle(store, wall_clock(), home, url, options.name, kind=kind)
        where = home / "vaults" / store.vault_id
    data = {"machineId": machine_id, "name": options.name, "kind": kind, "directory": str(where)}
    hint = f"the machine is pending until you run: {command_line(options.dir, 'approve', machine_id)}"
    keep = (
        "anybody with these files can read what the machine may read: move them to the machine, away from any assistant"
    )
    return Output(data, f"{machine_id} in {quoted(where)}", [hint, keep])


def _local_url(directory: Path) -> str:
    """The URL of the running server. The vendor's client accepts plain HTTP only for the name localhost."""
    running = ask(directory, "status")
    port = urlsplit(running["url"]).port if running else None
    if port is None:
        raise VaultError(
            "no server is running, so the vault's URL is not known", "pass it with --url http://localhost:PORT"
        )
    return f"http://localhost:{port}"


def _machines(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found = machines.overview(db, wall_clock())
    keys = ("id", "name", "kind", "state", "hostname")
    rows = [(*(machine[key] for key in keys), format_time(machine["lastSeenAt"])) for machine in found]
    text = format_table(("ID", "NAME", "KIND", "STATE", "HOSTNAME", "LAST SEEN"), rows)
    making = command_line(options.dir, "machine-bootstrap", "--name", "web")
    hints = [] if found else [f"no machines yet; create one: {making}"]
    return Output(found, text, hints)


# ---- states ----------------------------------------------------------------------------------------------------------


def _approve(options: argparse.Namespace) -> Output:
    """Approve an agent or a machine: the one that is named, or the only pending one."""
    with owner_transaction(options, opens=True) as db:
        wanted = _only_pending(db) if options.id is None else find(db, options.dir, options.id, AGENT, MACHINE)
        if wanted.kind is MACHINE:
            machine = machines.approve_as_owner(db, wall_clock(), wanted.id)
            return _result("approved", {"machineId": machine.id, "name": machine.name})
        agent = agents.approve_as_owner(db, wall_clock(), wanted.id)
    enabling = command_line(options.dir, "enable", agent.id)
    hints = [] if agent.enabled else [f"the agent is disabled; its requests are refused until you run: {enabling}"]
    key = fingerprint(agent.public_key)
    text = f"approved {printable(agent.name)} ({agent.id}) with the key {key}"
    return Output({"agentId": agent.id, "name": agent.name, "fingerprint": key, "state": "approved"}, text, hints)


def _only_pending(db: sqlite3.Connection) -> Found:
    """The pending agent or machine. Raises VaultError unless there is exactly one."""
    found_agents = [each for each in agents.overview(db) if each["state"] == "pending"]
    found_machines = [each for each in machines.overview(db, wall_clock()) if each["state"] == "pending"]
    found = [Found(AGENT, str(each["agentId"]), str(each["name"])) for each in found_agents]
    found += [Found(MACHINE, str(each["id"]), str(each["name"])) for each in found_machines]
    if not found:
        raise VaultError(
            "nothing is waiting for approval", "agents wait after `install`, machines after they are created"
        )
    if len(found) > 1:
        named = ", ".join(f"{each.id} ({each.kind.noun} {printable(each.name)})" for each in found[:5])
        raise VaultError(f"{len(found)} agents and machines are waiting for approval", f"name one of them: {named}")
    return found[0]


def _disable(options: argparse.Namespace) -> Output:
    return _set_enabled(options, enabled=False)


def _enable(options: argparse.Namespace) -> Output:
    return _set_enabled(options, enabled=True)


def _set_enabled(options: argparse.Namespace, *, enabled: bool) -> Output:
    with owner_transaction(options, opens=enabled) as db:
        wanted = find(db, options.dir, options.id, AGENT, MACHINE)
        if wanted.kind is MACHINE:
            revoking = command_line(options.dir, "revoke", wanted.id)
            raise VaultError("machines cannot be enabled or disabled", f"delete it permanently: {revoking}")
        agent = agents.set_enabled(db, wall_clock(), wanted.id, enabled=enabled)
    pending = f"the agent is pending until you run: {command_line(options.dir, 'approve', agent.id)}"
    hints = [pending] if enabled and not agent.approved else []
    return _result("enabled" if enabled else "disabled", {"agentId": agent.id, "name": agent.name}, hints)


def _revoke(options: argparse.Namespace) -> Output:
    """Revoke an agent or a machine. What a revoked agent made can still be ended."""
    with owner_transaction(options) as db:
        if options.all_it_made:
            return _revoke_all(db, _find_maker(db, options, options.id))
        wanted = find(db, options.dir, options.id, AGENT, MACHINE)
        if wanted.kind is MACHINE:
            machine = machines.revoke_as_owner(db, wall_clock(), wanted.id)
            return _result("revoked", {"machineId": machine.id, "name": machine.name})
        agent = agents.revoke_as_owner(db, wall_clock(), wanted.id)
        left = made.overview(db, wall_clock(), agent.id)
    ending = command_line(options.dir, "revoke", agent.id, "--all-it-made")
    hints = [f"{len(left)} things that it made still work; end them: {ending}"] if left else []
    return _result("revoked", {"agentId": agent.id, "name": agent.name}, hints)


def _revoke_all(db: sqlite3.Connection, agent_id: str) -> Output:
    ended = made.end_all(db, wall_clock(), agent_id)
    if agents.find(db, agent_id) is None and ended:
        name = "an agent that was already revoked"
    else:
        name = agents.revoke_as_owner(db, wall_clock(), agent_id).name
    text = format_table(("KIND", "ID", "NAME", "MADE BY", "MADE"), [_made_row(thing) for thing in ended])
    data = {"agentId": agent_id, "name": name, "state": "revoked", "ended": ended}
    return Output(data, text, [f"revoked {printable(name)} ({agent_id}) and ended {len(ended)} things that it made"])


def _result(verb: str, data: dict[str, str], hints: list[str] | None = None) -> Output:
    identity = next(iter(data.values()))
    return Output({**data, "state": verb}, f"{verb} {printable(data['name'])} ({identity})", hints or [])


def _agent_row(agent: dict[str, Any]) -> tuple[str, ...]:
    scopes, reach = _scope_words(agent["scopes"]), _reach(agent)
    return agent["agentId"], agent["name"], agent["state"], agent["fingerprint"], scopes, reach


def _scope_words(scopes: Iterable[str]) -> str:
    return ALL if set(scopes) == set(agents.SCOPES) else " ".join(scopes)


def _reach(agent: dict[str, Any]) -> str:
    """The ids of the projects that an agent, or the agent of a token, may reach."""
    allowlist = agent["projectAllowlist"]
    return ALL if allowlist is None else " ".join(allowlist) or "none"


def _scope_list(listed: str) -> list[str]:
    return list(agents.SCOPES) if listed == ALL else split(listed)


def _made_row(thing: dict[str, Any]) -> tuple[str, ...]:
    return thing["kind"], thing["id"], thing["name"], thing["agentId"], format_time(thing["madeAt"])
