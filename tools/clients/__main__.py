"""`make test-clients`: installs real clients, has each of them manage a local vault, and records the results.

Each client runs in its own process. Where Linux allows it, that process is in a network namespace with loopback only;
everywhere, the client's environment names proxies that do not exist. Logs are in build/clients/logs.
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import sikkerkey_mcp
from tests.support.harness import ARCHIVE
from tools.before import build_before
from tools.clients import asking, checks, large_vault, packages, persons, sdks, set_ups, split_reads, wire
from tools.clients.assistants import ASSISTANTS, Assistant
from tools.clients.model import Model
from tools.clients.packages import INSPECTOR, Package, Unavailable
from tools.clients.record import Outcome, keep, load
from tools.clients.script import CALLS, Script
from tools.clients.sdks import SDKS, Sdk
from tools.clients.set_ups import Seen, SetUp
from tools.clients.terminal import tmux_is_installed
from tools.clients.trial import LOGS, Failed, Trial, new_trial
from tools.clients.wire import SET_UP

TRIAL_MAX_S, SET_UPS_MAX_S = 900.0, 3_600.0
BEFORE_DIRECTORY = packages.BUILD_DIRECTORY / "before"
NAMESPACE = ("unshare", "--map-root-user", "--net")
THE_CALLS = "the calls"  # docs/tested-clients.md lists them
IN_A_TERMINAL, WITHOUT_A_TERMINAL = "in a terminal", "without a terminal"


class Attempt:
    """What one client has passed so far, with the revision and version that it reported."""

    def __init__(self) -> None:
        self.exercised: list[str] = []
        self.protocol = ""
        self.version = ""
        self.shown: list[large_vault.Shown] = []
        self.asked: list[asking.Seen] = []

    def passed(self, *what: str) -> None:
        """Adds checks that the client passed."""
        self.exercised += what


# ---------------------------------------------------------------------------------------------------------------------
# one client
# ---------------------------------------------------------------------------------------------------------------------


def try_assistant(assistant: Assistant, attempt: Attempt) -> None:
    """Lets the scripted model drive the client. Raises Failed."""
    with new_trial(assistant.name) as trial, Model(Script(assistant.shown)) as model:
        variables = assistant.variables(model.url)
        assistant.settings(trial.home, model.url)
        trial.archive("config", assistant.name, "--write")
        attempt.passed("`config --write`")
        if assistant.listing:
            state = state_listed(trial, assistant, variables)
            checks.require(state, f"{assistant.listing} does not show the server")
            attempt.passed(f"`{assistant.listing}`: {state}")
        try:
            trial.run([str(assistant.package.path), *assistant.session], **variables)
        finally:
            keep_conversation(trial, model)
        results = check_wire(trial, attempt)
        request = checks.check_conversation(model.exchanges, results)
        tools = checks.count_offered_tools(request, assistant.shown, [tool.name for tool in sikkerkey_mcp.TOOLS])
        checks.require(tools == len(sikkerkey_mcp.TOOLS), f"the model knows of {tools} tools only")
        attempt.passed(f"{tools} tools", THE_CALLS)
        attempt.passed(f"instructions {checks.shown_instructions(request, sikkerkey_mcp.INSTRUCTIONS)}")
        if assistant.listing:
            trial.archive("config", assistant.name, "--remove")
            state = state_listed(trial, assistant, variables)
            checks.require(not state, f"{assistant.listing} still shows the server")
            attempt.passed("`config --remove`: gone")
    try_large_vault(assistant, attempt)
    if assistant.reads_only:
        try_split_reads(assistant, attempt)
    try_people(assistant, attempt)


def try_people(assistant: Assistant, attempt: Attempt) -> None:
    """A person types a value, sees a credential, and denies or confirms deletions. Raises Failed."""
    if not tmux_is_installed():
        attempt.passed("people not tried: tmux is not installed")
        return
    if assistant.name in persons.PERSONS:
        try_questions(assistant, attempt)
    try_questions_without_a_terminal(assistant, attempt)


def try_questions_without_a_terminal(assistant: Assistant, attempt: Attempt) -> None:
    """Where nobody is asked, a person runs the commands that the model was given. Raises Failed."""
    script = asking.Asking(assistant.shown)
    with new_trial(f"{assistant.name}-questions") as trial, Model(script) as model:
        assistant.settings(trial.home, model.url)
        trial.archive("config", assistant.name, "--write")
        try:
            with asking.watched_processes() as revealing, asking.Commands(trial, model) as commands:
                trial.run([str(assistant.package.path), *assistant.session], **assistant.variables(model.url))
        finally:
            keep_conversation(trial, model)
            sessions = trial.sessions()
        checks.require(not revealing, f"the command line of {', '.join(revealing)} has the value")
        credentials = asking.credentials_in_terminals(list(commands.shown.values()))
        asking.check(trial, model, sessions, credentials, asked=False)
        attempt.asked += asking.seen_without(script, model, commands)
    attempt.passed(f"{WITHOUT_A_TERMINAL}: a value by `fill`, a credential by `show`, deletions denied")


def try_questions(assistant: Assistant, attempt: Attempt) -> None:
    """A person types a value, sees a credential, denies deletions and confirms one in a terminal. Raises Failed."""
    person = persons.PERSONS[assistant.name]
    script, steps = asking.Asking(assistant.shown, len(asking.denials(person))), asking.steps(person)
    with new_trial(f"{assistant.name}-terminal") as trial, Model(script) as model:
        persons.settle(assistant, trial, model)
        trial.archive("config", assistant.name, "--write")
        try:
            with asking.watched_processes() as revealing, persons.open_client(assistant, trial, model) as terminal:
                persons.play(person, terminal, model, trial, steps)
        finally:
            keep_conversation(trial, model)
            sessions = trial.sessions()
        checks.require(not revealing, f"the command line of {', '.join(revealing)} has the value")
        asking.check(trial, model, sessions, asking.credentials_on_pages(trial), asked=True)
        asking.check_answers(sessions, steps)
        asking.check_command_lines(persons.started_with(trial), steps)
        shown = [terminal.shown[persons.screen_name(at, it)] for at, it in enumerate(steps) if it in persons.PAGES]
        asking.check_codes(shown, persons.visits(trial))
        attempt.asked += asking.seen_in_terminal(script, model, terminal, trial, steps)
    denied = f"deletions denied in {len(asking.denials(person))} ways"
    attempt.passed(f"{IN_A_TERMINAL}: a value and a credential by a page, {denied}, a deletion confirmed")


def try_split_reads(assistant: Assistant, attempt: Attempt) -> None:
    """With --split-reads, the client makes the reads and refuses all other calls, as nobody approves them."""
    shown, reads, others = assistant.shown, split_reads.reads(), split_reads.others()
    with new_trial(f"{assistant.name}-split-reads") as trial, Model(Script(shown, [*reads, *others])) as model:
        variables = assistant.variables(model.url)
        assistant.settings(trial.home, model.url)
        trial.archive("config", assistant.name, "--write", "--split-reads")
        try:
            trial.run([str(assistant.package.path), *assistant.reads_only], **variables)
        finally:
            keep_conversation(trial, model)
        split_reads.check(trial.sessions(), [exchange.answer for exchange in model.exchanges])
    attempt.passed(f"`--split-reads`: {len(reads)} tools approved as read-only, {len(others)} others refused")


def try_large_vault(assistant: Assistant, attempt: Attempt) -> None:
    """The model receives each page of long lists whole, and reaches the last row. Raises Failed."""
    with new_trial(f"{assistant.name}-large-vault") as trial, Model(large_vault.Paging(assistant.shown)) as model:
        large_vault.fill(trial.vault)
        assistant.settings(trial.home, model.url)
        trial.archive("config", assistant.name, "--write")
        try:
            trial.run([str(assistant.package.path), *assistant.session], **assistant.variables(model.url))
        finally:
            keep_conversation(trial, model)
            requests = [exchange.request for exchange in model.exchanges]
            most = max(requests, key=lambda it: len(it.results), default=None)
            pages = large_vault.pages(trial.sessions(), most)
            attempt.shown = large_vault.shown(pages)
        large_vault.check(pages, model.exchanges[-1].answer if model.exchanges else None)
    attempt.passed("long lists whole, up to the last row")


def try_set_ups(assistant: Assistant, program: Path) -> list[Seen]:
    """What the client shows of each broken set-up. Raises Failed if a set-up cannot be made."""
    return [try_set_up(assistant, program, number, set_up) for number, set_up in enumerate(set_ups.SET_UPS)]


def try_set_up(assistant: Assistant, program: Path, number: int, set_up: SetUp) -> Seen:
    """Lets the client start the server and call whoami, if it can."""
    name, script = f"{assistant.name}-set-up-{number + 1}", Script(assistant.shown, CALLS[:1])
    with new_trial(name, program, approved=set_up.approved) as trial, Model(script) as model:
        variables, printed, state = assistant.variables(model.url), "", ""
        assistant.settings(trial.home, model.url)
        trial.archive("config", assistant.name, "--write")
        try:
            set_ups.prepare(trial, set_up)
            if assistant.listing_starts:
                printed = "".join(trial.run([str(assistant.package.path), *assistant.listing.split()], **variables))
                state = set_ups.state_in(printed)
            printed += "".join(trial.run([str(assistant.package.path), *assistant.session], **variables))
        except Failed as failure:
            printed += f"\n{failure}"
        finally:
            SET_UP.unlink(missing_ok=True)
            keep_conversation(trial, model)
        requests = [exchange.request for exchange in model.exchanges]
        names = [tool.name for tool in sikkerkey_mcp.TOOLS]
        tools = max((checks.count_offered_tools(it, assistant.shown, names) for it in requests), default=0)
        return set_ups.seen(set_up, trial.sessions(), requests, tools=tools, state=state, printed=printed)


def state_listed(trial: Trial, assistant: Assistant, variables: dict[str, str]) -> str:
    """The state of the server in the client's own list; empty if the list does not contain it."""
    output = trial.run([str(assistant.package.path), *assistant.listing.split()], **variables)
    found = re.search(assistant.listed, output.stdout + output.stderr)
    return found[1].lower() if found else ""


def keep_conversation(trial: Trial, model: Model) -> None:
    """Writes the exchanges between client and model to a file beside the log."""
    with open(LOGS / f"{trial.name}.model.jsonl", "w", encoding="utf-8") as file:
        for exchange in model.exchanges:
            line = {"path": exchange.path, "request": exchange.body, "answer": exchange.answer}
            print(json.dumps(line, ensure_ascii=False), file=file)


def check_wire(trial: Trial, attempt: Attempt) -> list[Any]:
    """Checks the server's messages and the vault; returns the results of the calls."""
    session = checks.check_server(trial.sessions())
    attempt.protocol = session.revision
    results = checks.check_calls(session)
    checks.check_vault(trial, results)
    checks.require(not trial.servers_left, f"{trial.servers_left} servers outlived the client")
    return results


def try_sdk(sdk: Sdk, attempt: Attempt) -> None:
    """Lets a program that uses the client library make the calls. Raises Failed, Unavailable."""
    with new_trial(sdk.name) as trial:
        session = sdks.converse(trial, sdk)
        attempt.version = session["sdk"]
        results = check_wire(trial, attempt)
        attempt.passed(*sdks.check_results(session, results, trial.agent), THE_CALLS)


def try_inspector(attempt: Attempt) -> None:
    """Lets the inspector check the schemas. Raises Failed."""
    with new_trial("inspector") as trial:
        attempt.passed(*sdks.inspect(trial))
        attempt.protocol = trial.sessions()[-1].revision


# ---------------------------------------------------------------------------------------------------------------------
# all of them
# ---------------------------------------------------------------------------------------------------------------------


class Client(NamedTuple):
    """A client, with its name on the command line and the function that tries it."""

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
    """The record of a trial."""
    name, version = (client.package.name, client.package.version) if client.package else ("mcp", attempt.version)
    source = f"{'npm' if client.package else 'PyPI'} {name}"
    today = time.strftime("%Y-%m-%d", time.gmtime())
    shown = [each._asdict() for each in attempt.shown]
    people = [each._asdict() for each in attempt.asked]
    return Outcome(client.title, source, version, today, attempt.protocol, attempt.exercised, result, shown, people)


def run_trial(client: Client) -> Outcome:
    """Tries a client in this process."""
    attempt = Attempt()
    try:
        client.attempt(attempt)
    except Failed as failure:
        return outcome(client, attempt, f"failed: {failure}")
    except Unavailable as reason:
        return outcome(client, attempt, f"not run: {reason}")
    return outcome(client, attempt, "passed")


def run_isolated_trial(client: Client) -> Outcome:
    """Installs a client and tries it in a separate process and network."""
    try:
        packages.node_directory()
        if client.package:
            packages.install(client.package)
        return Outcome(**run_isolated(client.name))
    except Unavailable as reason:
        return outcome(client, Attempt(), f"not run: {reason}")
    except subprocess.SubprocessError as error:
        return outcome(client, Attempt(), f"failed: the trial itself failed ({type(error).__name__})")


def run_isolated(name: str, *options: str, max_s: float = TRIAL_MAX_S) -> Any:
    """What `--isolated` prints, run in a separate process and network. Raises SubprocessError."""
    command = [*namespace(), sys.executable, "-m", "tools.clients", "--isolated", name, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=max_s)
    return json.loads(done.stdout)


def run_set_ups(names: Sequence[str], era: set_ups.Era) -> int:
    """Tries the broken set-ups with the assistants and records the results; 1 if a client failed."""
    status = 0
    for assistant in (it for it in ASSISTANTS if not names or it.name in names):
        try:
            packages.install(assistant.package)
            found = run_isolated(assistant.name, "--set-ups", era, max_s=SET_UPS_MAX_S)
            rows = [Seen(**members) for members in found]
        except (Unavailable, subprocess.SubprocessError) as error:
            print(f"{assistant.title:<17} failed ({type(error).__name__})", flush=True)
            status = 1
            continue
        set_ups.keep(era, assistant.title, rows)
        print(f"{assistant.title:<17} told the model {sum(row.told for row in rows)} of {len(rows)} causes", flush=True)
    return status


def run_people(names: Sequence[str]) -> int:
    """Tries what people are asked with the assistants and updates their outcomes; 1 if a client failed."""
    status, kept = 0, {outcome.client: outcome for outcome in load()}
    for client in (it for it in CLIENTS if it.title in kept and any(each.name == it.name for each in ASSISTANTS)):
        if names and client.name not in names:
            continue
        try:
            if client.package:
                packages.install(client.package)
            tried = Outcome(**run_isolated(client.name, "--people"))
        except (Unavailable, subprocess.SubprocessError) as error:
            tried = outcome(client, Attempt(), f"failed: {type(error).__name__}")
        print(f"{client.title:<17} {tried.version:<9} {tried.outcome}", flush=True)
        if tried.outcome != "passed":
            status = 1
            continue
        before = kept[client.title]
        others = [each for each in before.exercised if not each.startswith((IN_A_TERMINAL, WITHOUT_A_TERMINAL))]
        updated = before._replace(exercised=[*others, *tried.exercised], people=tried.people)
        keep([updated], [it.title for it in CLIENTS])
    return status


def namespace() -> list[str]:
    """The command that starts a process in a new network namespace; empty if this system does not allow that."""
    try:
        allowed = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return list(NAMESPACE) if allowed else []


def print_trial(name: str, era: set_ups.Era | None, *, people: bool) -> None:
    """Tries a client, or the broken set-ups of an era or only `people` with it, and prints the outcome as JSON."""
    if namespace():
        bring_up_loopback()
    for variable in list(os.environ):
        if variable.upper().startswith(("SIKKERKEY_", "XDG_")) or variable.lower().endswith("_proxy"):
            del os.environ[variable]
    if era:
        assistant = next(assistant for assistant in ASSISTANTS if assistant.name == name)
        program = ARCHIVE if era == "now" else BEFORE_DIRECTORY / "dist" / ARCHIVE.name
        print(json.dumps([row._asdict() for row in try_set_ups(assistant, program)]))
        return
    client = next(client for client in CLIENTS if client.name == name)
    if people:
        assistant = next(assistant for assistant in ASSISTANTS if assistant.name == name)
        client = client._replace(attempt=partial(try_people, assistant))
    print(json.dumps(run_trial(client)._asdict()))


def bring_up_loopback() -> None:
    """Enables the only interface of a new network namespace."""
    up_and_running, set_flags = 0x41, 0x8914
    with socket.socket() as control:
        fcntl.ioctl(control, set_flags, struct.pack("16sh", b"lo", up_and_running))


def main(arguments: list[str]) -> int:
    """Runs the command line; returns 1 if a client failed."""
    parser = argparse.ArgumentParser(prog="make test-clients", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=", ".join(client.name for client in CLIENTS))
    parser.add_argument("--set-ups", choices=get_args(set_ups.Era), help="try the broken set-ups instead")
    parser.add_argument("--people", action="store_true", help="try only what people are asked")
    parser.add_argument("--isolated", metavar="CLIENT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.isolated:
        print_trial(options.isolated, options.set_ups, people=options.people)
        return 0
    if unknown := set(options.names) - {client.name for client in CLIENTS}:
        parser.error(f"unknown client: {', '.join(sorted(unknown))}")
    packages.BUILD_DIRECTORY.mkdir(parents=True, exist_ok=True)
    wire.make_interpreter()
    print(f"network: {'loopback only' if namespace() else 'not isolated: this system allows no network namespaces'}")
    if options.set_ups:
        if options.set_ups == "before" and not BEFORE_DIRECTORY.exists():
            BEFORE_DIRECTORY.mkdir()
            build_before(BEFORE_DIRECTORY)
        return run_set_ups(options.names, options.set_ups)
    if options.people:
        return run_people(options.names)
    fresh = []
    for client in CLIENTS:
        if not options.names or client.name in options.names:
            fresh.append(run_isolated_trial(client))
            print(f"{client.title:<17} {fresh[-1].version:<9} {fresh[-1].outcome}", flush=True)
    keep(fresh, [client.title for client in CLIENTS])
    print(f"logs are in {LOGS.relative_to(packages.ROOT)}; `make docs` updates docs/tested-clients.md")
    return 1 if any(it.outcome.startswith("failed") for it in fresh) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
