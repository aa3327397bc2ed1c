"""The owner's command line, which works while the server runs: results on standard output, advice on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from vault import agents, server
from vault.calls import wall_clock
from vault.errors import VaultError
from vault.store import Store
from vault.terminal import printable, table

ADVICE_ONCE = "hint: the token is good for one registration within 24 hours and is not shown again"
ADVICE_PENDING = "hint: the agent is pending until: python -m vault approve ID --dir DIR"


class Parser(argparse.ArgumentParser):
    """argparse with the voice of this program."""

    def error(self, message: str) -> NoReturn:
        _complain(VaultError(printable(message), f"{self.prog} --help"))
        sys.exit(2)


if TYPE_CHECKING:
    Command = Callable[[argparse.Namespace], None]
    Commands = argparse._SubParsersAction[Parser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a failure, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except VaultError as error:
        return _complain(error)
    except sqlite3.OperationalError as error:
        return _complain(VaultError(f"the database cannot be used: {error}", "look at the disk, then try again"))
    except BrokenPipeError:
        # The reader has gone; without this the interpreter complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(VaultError(f"the system refused: {(error.strerror or 'no reason').lower()}", "look at --dir"))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m vault", description="A local SikkerKey vault.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    serving = _add(commands, "serve", _serve, "serve the vault and print its URL")
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serving.add_argument("--port", type=_port, default=0, help="port to listen on; 0, the default, takes a free one")
    token = _add(commands, "agent-token", _agent_token, "make a one-time token with which an AI agent registers")
    token.add_argument("--scopes", required=True, help="comma-separated scopes, or all")
    token.add_argument("--projects", help="comma-separated ids: the only projects that the agent may reach")
    token.add_argument("--name", help="name of the agent if it gives none itself")
    listing = _add(commands, "agents", _agents, "list the AI agents")
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    for name, run, text in (
        ("approve", _approve, "let a pending agent in"),
        ("disable", _disable, "refuse an agent's requests until it is enabled again"),
        ("enable", _enable, "end a disable"),
    ):
        _add(commands, name, run, text).add_argument("agent_id", metavar="ID", help="the agent's id")
    return parser


def _add(commands: Commands, name: str, run: Command, text: str) -> Parser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--dir", type=Path, required=True, help="the vault's directory, made on first use")
    command.set_defaults(run=run)
    return command


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _serve(options: argparse.Namespace) -> None:
    server.serve(options.dir, options.host, options.port)


def _agent_token(options: argparse.Namespace) -> None:
    scopes = agents.SCOPES if options.scopes == "all" else _split(options.scopes)
    projects = None if options.projects is None else _split(options.projects)
    with Store(options.dir) as store, store.transaction() as db:
        token = agents.issue_token(db, wall_clock(), scopes, projects, options.name)
    print(token)
    print(ADVICE_ONCE, ADVICE_PENDING, sep="\n", file=sys.stderr)


def _agents(options: argparse.Namespace) -> None:
    with Store(options.dir) as store, store.transaction() as db:
        found = agents.overview(db)
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        print(table([("ID", "NAME", "STATE", "SCOPES", "PROJECTS"), *map(_row, found)]))
    else:
        print("hint: no agents yet; make a token: python -m vault agent-token --dir DIR --scopes all", file=sys.stderr)


def _approve(options: argparse.Namespace) -> None:
    with Store(options.dir) as store, store.transaction() as db:
        agent = agents.approve(db, wall_clock(), options.agent_id)
    print(f"approved {printable(agent.name)} ({agent.id})")
    if not agent.enabled:
        print("hint: the agent is disabled; it stays out until: python -m vault enable ID --dir DIR", file=sys.stderr)


def _disable(options: argparse.Namespace) -> None:
    _switch(options, enabled=False)


def _enable(options: argparse.Namespace) -> None:
    _switch(options, enabled=True)


def _switch(options: argparse.Namespace, *, enabled: bool) -> None:
    with Store(options.dir) as store, store.transaction() as db:
        agent = agents.set_enabled(db, wall_clock(), options.agent_id, enabled=enabled)
    print(f"{'enabled' if enabled else 'disabled'} {printable(agent.name)} ({agent.id})")
    if enabled and not agent.approved:
        print(ADVICE_PENDING, file=sys.stderr)


def _split(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


def _row(agent: dict[str, Any]) -> tuple[str, str, str, str, str]:
    scopes = "all" if set(agent["scopes"]) == set(agents.SCOPES) else " ".join(agent["scopes"])
    allowlist = agent["projectAllowlist"]
    reach = "all" if allowlist is None else " ".join(allowlist) or "none"
    return agent["agentId"], printable(agent["name"]), agent["state"], scopes, reach


def _complain(error: VaultError) -> int:
    print(f"vault: error: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    return 1
