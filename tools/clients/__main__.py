"""`make test-clients`: installs the real clients, has each of them manage a local vault, and keeps the outcome.

Each client is tried by a process of its own in a network that holds nothing but loopback, where Linux lets one be made;
everywhere, proxies that lead nowhere stand in the client's environment. Logs lie in build/clients/logs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import sikkerkey_mcp
from tools.clients import judge, packages, sdks, wire
from tools.clients.assistants import ASSISTANTS, Assistant
from tools.clients.model import Model
from tools.clients.packages import INSPECTOR, Package, Unavailable
from tools.clients.record import Outcome, keep
from tools.clients.script import Script
from tools.clients.sdks import SDKS, Sdk
from tools.clients.trial import LOGS, Failed, Trial, trial

TRIAL_MAX_S = 600.0
NAMESPACE = ("unshare", "--map-root-user", "--net")
THE_CALLS = "the calls"  # the README says which


class Attempt:
    """What a client has done so far."""

    def __init__(self) -> None:
        self.exercised: list[str] = []
        self.protocol = ""
        self.version = ""

    def did(self, *what: str) -> None:
        """Something went as it should."""
        self.exercised += what


# ---------------------------------------------------------------------------------------------------------------------
# one client
# ---------------------------------------------------------------------------------------------------------------------


def try_assistant(assistant: Assistant, attempt: Attempt) -> None:
    """Has the scripted model drive the client. Raises Failed."""
    with trial(assistant.name) as place, Model(Script(assistant.shown)) as model:
        variables = assistant.variables(model.url)
        assistant.settings(place.home, model.url)
        place.archive("config", assistant.name, "--write")
        attempt.did("`config --write`")
        if assistant.listing:
            state = state_listed(place, assistant, variables)
            judge.require(state, f"{assistant.listing} does not show the server")
            attempt.did(f"`{assistant.listing}`: {state}")
        try:
            place.run([str(assistant.package.path), *assistant.session], **variables)
        finally:
            keep_conversation(place, model)
        results = check_wire(place, attempt)
        asked = judge.check_conversation(model.exchanges, results)
        tools = judge.offered(asked, assistant.shown, [tool.name for tool in sikkerkey_mcp.TOOLS])
        judge.require(tools == len(sikkerkey_mcp.TOOLS), f"the model knows of {tools} tools only")
        attempt.did(f"{tools} tools", THE_CALLS)
        attempt.did(f"instructions {judge.shown_instructions(asked, sikkerkey_mcp.INSTRUCTIONS)}")
        if assistant.listing:
            place.archive("config", assistant.name, "--remove")
            state = state_listed(place, assistant, variables)
            judge.require(not state, f"{assistant.listing} still shows the server")
            attempt.did("`config --remove`: gone")


def state_listed(place: Trial, assistant: Assistant, variables: dict[str, str]) -> str:
    """The client's own word for the state of the server; empty where it does not list it."""
    told = place.run([str(assistant.package.path), *assistant.listing.split()], **variables)
    found = re.search(assistant.listed, told.stdout + told.stderr)
    return found[1].lower() if found else ""


def keep_conversation(place: Trial, model: Model) -> None:
    """Writes what the client and the model said to each other beside the log."""
    with open(LOGS / f"{place.name}.model.jsonl", "w", encoding="utf-8") as file:
        for exchange in model.exchanges:
            line = {"path": exchange.path, "asked": exchange.body, "answered": exchange.answer}
            print(json.dumps(line, ensure_ascii=False), file=file)


def check_wire(place: Trial, attempt: Attempt) -> list[Any]:
    """Holds the server's side and the vault against what they should be; the calls' results."""
    session = judge.check_server(place.sessions())
    attempt.protocol = session.revision
    results = judge.check_calls(session)
    judge.check_vault(place, results)
    judge.require(not place.servers_left, f"{place.servers_left} servers outlived the client")
    return results


def try_sdk(sdk: Sdk, attempt: Attempt) -> None:
    """Has a program over the client library make the calls. Raises Failed, Unavailable."""
    with trial(sdk.name) as place:
        told = sdks.converse(place, sdk)
        attempt.version = told["sdk"]
        results = check_wire(place, attempt)
        attempt.did(*sdks.check_results(told, results, place.agent), THE_CALLS)


def try_inspector(attempt: Attempt) -> None:
    """Has the inspector check the schemas. Raises Failed."""
    with trial("inspector") as place:
        attempt.did(*sdks.inspect(place))
        attempt.protocol = place.sessions()[-1].revision


# ---------------------------------------------------------------------------------------------------------------------
# all of them
# ---------------------------------------------------------------------------------------------------------------------


class Client(NamedTuple):
    """A client by its name on the command line; `attempt` tries it."""

    name: str
    title: str
    package: Package | None
    attempt: Callable[[Attempt], None]


CLIENTS = (
    *(Client(it.name, it.title, it.package, partial(try_assistant, it)) for it in ASSISTANTS),
    *(Client(it.name, it.title, it.package, partial(try_sdk, it)) for it in SDKS),
    Client("inspector", "Inspector", INSPECTOR, try_inspector),
)


def outcome(client: Client, attempt: Attempt, result: str) -> Outcome:
    """The line to keep."""
    name, version = (client.package.name, client.package.version) if client.package else ("mcp", attempt.version)
    source = f"{'npm' if client.package else 'PyPI'} {name}"
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return Outcome(client.title, source, version, today, attempt.protocol, attempt.exercised, result)


def tried(client: Client) -> Outcome:
    """One client's trial, in this process."""
    attempt = Attempt()
    try:
        client.attempt(attempt)
    except Failed as failure:
        return outcome(client, attempt, f"failed: {failure}")
    except Unavailable as reason:
        return outcome(client, attempt, f"not run: {reason}")
    return outcome(client, attempt, "passed")


def tried_apart(client: Client) -> Outcome:
    """One client's trial, in a process and a network of its own, once the client is installed."""
    try:
        packages.node_directory()
        if client.package:
            packages.install(client.package)
    except Unavailable as reason:
        return outcome(client, Attempt(), f"not run: {reason}")
    command = [*namespace(), sys.executable, "-m", "tools.clients", "--isolated", client.name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TRIAL_MAX_S)
    except subprocess.SubprocessError as error:
        return outcome(client, Attempt(), f"failed: the trial itself broke ({type(error).__name__})")
    return Outcome(**json.loads(done.stdout))


def namespace() -> list[str]:
    """The command that gives a process a network of its own; empty where this system has none."""
    try:
        allowed = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return list(NAMESPACE) if allowed else []


def isolated(name: str) -> None:
    """Tries one client and prints the outcome."""
    if namespace():
        bring_up_loopback()
    for variable in list(os.environ):
        if variable.upper().startswith(("SIKKERKEY_", "XDG_")) or variable.lower().endswith("_proxy"):
            del os.environ[variable]
    client = next(client for client in CLIENTS if client.name == name)
    print(json.dumps(tried(client)._asdict()))


def bring_up_loopback() -> None:
    """The only interface of a new network is down at first."""
    up_and_running, set_flags = 0x41, 0x8914
    with socket.socket() as control:
        fcntl.ioctl(control, set_flags, struct.pack("16sh", b"lo", up_and_running))


def main(arguments: list[str]) -> int:
    """Runs the command line; the exit status says whether any client failed."""
    parser = argparse.ArgumentParser(prog="make test-clients", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=", ".join(client.name for client in CLIENTS))
    parser.add_argument("--isolated", metavar="CLIENT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.isolated:
        isolated(options.isolated)
        return 0
    if unknown := set(options.names) - {client.name for client in CLIENTS}:
        parser.error(f"unknown client: {', '.join(sorted(unknown))}")
    packages.PLACE.mkdir(parents=True, exist_ok=True)
    wire.make_interpreter()
    print(f"network: {'loopback only' if namespace() else 'this machine has no namespaces, so proxies only'}")
    fresh = []
    for client in CLIENTS:
        if not options.names or client.name in options.names:
            fresh.append(tried_apart(client))
            print(f"{client.title:<17} {fresh[-1].version:<9} {fresh[-1].outcome}", flush=True)
    keep(fresh, [client.title for client in CLIENTS])
    print(f"logs are in {LOGS.relative_to(packages.ROOT)}; `make docs` puts the outcome into the README")
    return 1 if any(it.outcome.startswith("failed") for it in fresh) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
