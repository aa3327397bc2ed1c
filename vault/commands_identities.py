"""Commands about who may come in: agents with their tokens, machines with their bundles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vault import agents, machines
from vault.calls import wall_clock
from vault.console import Output, add, changing, existing, listing, moment
from vault.control import ask
from vault.errors import VaultError
from vault.files import shown
from vault.machine_bundle import write_bundle
from vault.store import Store
from vault.terminal import PROGRAM, printable

if TYPE_CHECKING:
    from vault.console import Commands

ADVICE_ONCE = "the token is good for one registration within 24 hours and is not shown again"
ADVICE_PENDING = f"the agent is pending until: {PROGRAM} approve ID --dir DIR"
ADVICE_DISABLED = f"the agent is disabled; it stays out until: {PROGRAM} enable ID --dir DIR"
ADVICE_NO_AGENTS = f"no agents yet; make a token: {PROGRAM} agent-token --dir DIR --scopes all"
ADVICE_NO_MACHINES = f"no machines yet; make one: {PROGRAM} machine-bootstrap --dir DIR --name NAME"


def add_all(commands: Commands) -> None:
    """Declare the commands of this file."""
    token = add(commands, "agent-token", _agent_token, "make a one-time token with which an AI agent registers")
    token.add_argument("--scopes", required=True, help="comma-separated scopes, or all")
    token.add_argument("--projects", help="comma-separated ids: the only projects that the agent may reach")
    token.add_argument("--name", help="name of the agent if it gives none itself")
    add(commands, "agents", _agents, "list the AI agents")
    making = add(commands, "machine-bootstrap", _bootstrap, "make a machine, and its identity for the machine's client")
    making.add_argument("--name", required=True, help="the machine's name")
    making.add_argument("--home", type=Path, default=Path.home() / ".sikkerkey", help="where it goes (~/.sikkerkey)")
    making.add_argument("--url", help="the vault's URL for the machine; that of the running server if not given")
    making.add_argument("--temp", action="store_true", help="a machine that lives for an hour")
    add(commands, "machines", _machines, "list the machines")
    for name, run, text in (
        ("approve", _approve, "let a pending agent or machine in"),
        ("disable", _disable, "refuse an agent's requests until it is enabled again"),
        ("enable", _enable, "end a disable"),
        ("revoke", _revoke, "cut a machine off for good"),
    ):
        add(commands, name, run, text).add_argument("id", metavar="ID", help="its id")


def _agent_token(options: argparse.Namespace) -> Output:
    scopes = agents.SCOPES if options.scopes == "all" else _split(options.scopes)
    projects = None if options.projects is None else _split(options.projects)
    with Store(options.dir) as store, store.transaction() as db:
        token = agents.issue_token(db, wall_clock(), scopes, projects, options.name)
    return Output({"token": token}, token, [ADVICE_ONCE, ADVICE_PENDING])


def _agents(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        found = agents.overview(db)
    text = listing(("ID", "NAME", "STATE", "SCOPES", "PROJECTS"), [_agent_row(agent) for agent in found])
    return Output(found, text, [] if found else [ADVICE_NO_AGENTS])


def _bootstrap(options: argparse.Namespace) -> Output:
    with existing(options.dir) as store:
        url = options.url or _local_url(options.dir)
        kind = "temp" if options.temp else "standard"
        machine_id = write_bundle(store, wall_clock(), options.home, url, options.name, kind=kind)
        where = options.home / "vaults" / store.vault_id
    data = {"machineId": machine_id, "name": options.name, "kind": kind, "directory": str(where)}
    return Output(data, f"{machine_id} in {shown(where)}", [ADVICE_PENDING.replace("agent", "machine")])


def _local_url(directory: Path) -> str:
    """The vendor's client takes plain HTTP for the name localhost only."""
    running = ask(directory, "status")
    port = urlsplit(running["url"]).port if running else None
    if port is None:
        raise VaultError("no server runs, so the vault's URL is not known", "give it: --url http://localhost:PORT")
    return f"http://localhost:{port}"


def _machines(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        found = machines.overview(db, wall_clock())
    keys = ("id", "name", "kind", "state", "hostname")
    rows = [(*(machine[key] for key in keys), moment(machine["lastSeenAt"])) for machine in found]
    text = listing(("ID", "NAME", "KIND", "STATE", "HOSTNAME", "LAST SEEN"), rows)
    return Output(found, text, [] if found else [ADVICE_NO_MACHINES])


def _approve(options: argparse.Namespace) -> Output:
    """Ids are UUIDs in two tables: one that is no agent's may be a machine's."""
    with changing(options) as db:
        if agents.find(db, options.id) is None and machines.find(db, options.id) is not None:
            machine = machines.approve(db, wall_clock(), options.id)
            return _said("approved", {"machineId": machine.id, "name": machine.name})
        agent = agents.approve(db, wall_clock(), options.id)
    hints = [] if agent.enabled else [ADVICE_DISABLED]
    return _said("approved", {"agentId": agent.id, "name": agent.name}, hints)


def _disable(options: argparse.Namespace) -> Output:
    return _switch(options, enabled=False)


def _enable(options: argparse.Namespace) -> Output:
    return _switch(options, enabled=True)


def _switch(options: argparse.Namespace, *, enabled: bool) -> Output:
    with changing(options) as db:
        if agents.find(db, options.id) is None and machines.find(db, options.id) is not None:
            raise VaultError("a machine has no such switch", f"cut it off for good: {PROGRAM} revoke ID --dir DIR")
        agent = agents.set_enabled(db, wall_clock(), options.id, enabled=enabled)
    hints = [ADVICE_PENDING] if enabled and not agent.approved else []
    return _said("enabled" if enabled else "disabled", {"agentId": agent.id, "name": agent.name}, hints)


def _revoke(options: argparse.Namespace) -> Output:
    with changing(options) as db:
        machine = machines.cut_off(db, wall_clock(), options.id)
    return _said("revoked", {"machineId": machine.id, "name": machine.name})


def _said(verb: str, data: dict[str, str], hints: list[str] | None = None) -> Output:
    identity = next(iter(data.values()))
    return Output({**data, "state": verb}, f"{verb} {printable(data['name'])} ({identity})", hints or [])


def _agent_row(agent: dict[str, Any]) -> tuple[str, ...]:
    scopes = "all" if set(agent["scopes"]) == set(agents.SCOPES) else " ".join(agent["scopes"])
    allowlist = agent["projectAllowlist"]
    reach = "all" if allowlist is None else " ".join(allowlist) or "none"
    return agent["agentId"], agent["name"], agent["state"], scopes, reach


def _split(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]
