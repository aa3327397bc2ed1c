"""`setup`: asks what is needed to let MCP clients use a vault, shows what will change, and then does it.

An answer is an option or comes from a person at a terminal; every question has a default. Nothing is sent and nothing
is written before the person agrees to the plan. The work is done by the functions of `install` and `config --write`.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import sikkerkey_address
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_passphrase
import sikkerkey_shell
from sikkerkey_cli import agents, config, doctor, entries, grammar, terminal
from sikkerkey_cli.clients import CLIENTS, installed_clients, user_file
from sikkerkey_cli.config import Planned
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import ConfigError, Error, clean, print_notice

NEW = "new"  # as an answer to which agent
NEW_ID = "ID-OF-THE-NEW-AGENT"  # in the plan
WAIT_MINUTES = 10  # at a terminal, for the owner to approve the agent
POLL_S = 3.0
TOKEN_LINE_MAX = 1_024
FIRST_SENTENCE = "Who am I in SikkerKey, and which projects can I see?"
EVERYDAY_TOOLS = ("whoami", "manage_projects", "manage_secrets", "read_audit")
RESTRICTIONS = ("read_only", "tools", "exclude")
CONFIRM_TEXTS = {
    "irreversible": "what cannot be undone, what widens access and what switches off an alarm",
    "destructive": "everything destructive",
    "writes": "every change",
    "never": "nothing (not recommended)",
}
VALUE_TEXTS = {
    "from-person": "only people: the assistant asks, and you type the value where it cannot look",
    "any": "also the assistant, which then knows the value",
}
HOW_TO_GET_ONE = "create an agent token on the vault's dashboard (AI agents page)"


def command_setup(options: argparse.Namespace) -> int:
    """Asks, shows the plan and carries it out; 1 if a part failed. Raises Error, and UsageError for wrong usage."""
    done: list[str] = []
    try:
        return _set_up(options, done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {_what_was_done(done)}") from None
    except Error:
        if done:
            print_notice(_what_was_done(done))
        raise


def _what_was_done(done: Sequence[str]) -> str:
    if not done:
        return "nothing was sent and nothing was changed"
    return f"done so far: {'; '.join(done)}. To do the rest, run setup again"


def _set_up(options: argparse.Namespace, done: list[str]) -> int:
    wait_minutes = _minutes(options.wait)
    answers = Answers(options)
    answers.check_options()
    if answers.asks:
        print_notice("Enter takes the default, which is in brackets. Ctrl-C stops, and then nothing was changed.")
    new = answers.choose_agent()
    answers.choose_clients()
    answers.choose_restrictions()
    answers.choose_policy()
    planned, failed = _show_plan(answers, new)
    if options.dry_run:
        return 1 if failed else 0
    if new is None:
        planned = [each for each in planned if each.changes_something]
    if new is None and not planned:
        print_notice("nothing has to be changed")
    elif answers.asks and not terminal.agrees("Do this?", default=True):
        raise Error("not confirmed; nothing was sent and nothing was changed")
    if new is not None:
        planned, failed = _plan_again(answers, _install(new, done), failed)
    failed += _carry_out(planned, done)
    return _finish(answers, [each.client.title for each in planned], failed, wait_minutes)


def _minutes(text: str) -> int | None:
    if text and not re.fullmatch("[0-9]{1,3}", text):
        raise UsageError("--wait must be a number of minutes, at most 999")
    return int(text) if text else None


# ---------------------------------------------------------------------------------------------------------------------
# the answers
# ---------------------------------------------------------------------------------------------------------------------


class NewAgent(NamedTuple):
    """An agent that is about to be installed."""

    token: str
    name: str
    api_url: str
    protection: agents.Protection


class Answers:
    """The options, completed by the answers of a person. `options` can be given to the functions of `config`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.installed = sikkerkey_identity.installed_agents()
        self.asks = not options.yes and terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)
        self.clients: list[str] = []
        self.entries: list[entries.Server] = []
        vars(options).update({"write": True, "remove": False, "project": False})

    def check_options(self) -> None:
        """Raises UsageError for an option that is wrong, and if there is nobody to ask for what is missing."""
        options = self.options
        if options.agent not in ("", NEW):
            sikkerkey_identity.choose_agent(options.agent)
        for name in options.client:
            if name not in CLIENTS or name == "generic":
                near = sikkerkey_mcp.did_you_mean(name, _names(), grammar.NEAR)
                raise UsageError("--client names an unknown client", near or f"one of: {', '.join(_names())}")
        config.serve_options(options)
        if self.asks or options.yes or options.dry_run:
            return
        flags = ("agent", "client", "values", "confirm")
        missing = [f"--{name}" for name in flags if not getattr(options, name)]
        missing += (
            [] if any(getattr(options, name) for name in RESTRICTIONS) else ["--read-only (or --tools, --exclude)"]
        )
        hint = "--yes takes the defaults of these and agrees to the plan; --dry-run only shows the plan"
        raise UsageError(f"not a terminal, so nobody can be asked; missing: {', '.join([*missing, '--yes'])}", hint)

    def choose_agent(self) -> NewAgent | None:
        """Sets the agent; for a new one, returns what it needs. A token is read only if it will be used."""
        options = self.options
        usual = os.environ.get("SIKKERKEY_AGENT_ID", "")
        if not options.agent and self.installed:
            if not self.asks and len(self.installed) > 1 and not usual:
                raise UsageError(
                    "several agents are installed", f"--agent ID, with one of: {', '.join(self.installed)}"
                )
            choices = [*map(agents.described, self.installed), "a new agent"]
            default = self.installed.index(usual) if usual in self.installed else 0
            number = self._choose("Which agent does the assistant act as?", choices, default)
            options.agent = [*self.installed, NEW][number]
        self.entries = self._entries_of(options.agent)
        if options.agent not in ("", NEW):
            self._refuse_protection()
            return None
        options.agent = NEW
        if options.key_store:
            sikkerkey_passphrase.store_of_this_system()  # before anything is asked
        token, printed = ("", "") if self.asks or options.dry_run else _token_from_stdin()
        usual_vault = os.environ.get("SIKKERKEY_API_URL") or printed or sikkerkey_address.DEFAULT_API_URL
        api_url = self._ask("The vault's address", options.vault, usual_vault, _checked_address)
        name = self._ask("The agent's name in the vault", options.name, computer_name(), agents.check_name)
        if self.asks and not options.dry_run:
            token = _typed_token()
        return NewAgent(token, name, api_url, agents.Protection() if options.dry_run else agents.protection(options))

    def _refuse_protection(self) -> None:
        """Raises UsageError if an option would protect the key of a new agent, and there is none."""
        if self.options.passphrase or self.options.key_store:
            flag = "--passphrase" if self.options.passphrase else "--key-store"
            hint = f"`sikkerkey-mcp rotate-key - {flag}` gives an installed agent a new key; or pass --agent new"
            raise UsageError(f"{flag} is for the key of a new agent", hint)

    def _entries_of(self, agent: str) -> list[entries.Server]:
        """The clients' existing entries for this agent; an entry that names no agent is for the only one."""
        if agent in ("", NEW):
            return []
        found = []
        for entry in entries.find_entries(os.environ):
            server = entries.Server(entry.key, {}, entry.command, entry.environment)
            is_ours = server.starts_this_program and server.is_in_this_home and not entry.problem
            if is_ours and server.agent in ((agent, "") if len(self.installed) == 1 else (agent,)):
                found.append(server)
                self.clients.append(entry.client)
        return found

    def choose_clients(self) -> None:
        """Sets the clients: those that are found on this computer, unless others are chosen."""
        if self.options.client:
            self.clients = list(dict.fromkeys(self.options.client))
            return
        found = list(dict.fromkeys([*installed_clients(os.environ), *self.clients]))
        offered = [name for name in CLIENTS if name in found] or _names()
        if not found and not self.asks:
            raise UsageError("no supported client was found on this computer", f"--client with: {', '.join(_names())}")
        title = "Which clients? These were found on this computer:" if found else "Which clients? None was found."
        rows = [(name, CLIENTS[name].title, clean(user_file(CLIENTS[name], os.environ))) for name in offered]
        self.clients = self._choose_several(title, rows, found, _names())

    def choose_restrictions(self) -> None:
        """Sets what the server offers."""
        options = self.options
        if any(getattr(options, name) for name in RESTRICTIONS):
            return
        present = self._present()
        held = [word for name in RESTRICTIONS for word in _as_words(name, getattr(present, name))]
        choices = [f"as now: {sikkerkey_shell.command_line(held)}"] if held else []
        choices += ["everything that the agent's scopes allow", "only reading", "chosen tools"]
        number = self._choose("What may the assistant do?", choices, 0) - len(choices) + 3
        if number < 0:
            vars(options).update({name: getattr(present, name) for name in RESTRICTIONS})
        elif number == 1:
            options.read_only = True
        elif number == 2:
            rows = [(tool.name, tool.title) for tool in sikkerkey_mcp.TOOLS]
            while not options.tools:
                options.tools = self._choose_several("Which tools?", rows, EVERYDAY_TOOLS)

    def choose_policy(self) -> None:
        """Sets who gives values and which calls a person confirms, and keeps what the entries have besides."""
        options, present = self.options, self._present()
        for option in grammar.CONFIG_OPTIONS:
            name = option.flags[0].strip("-").replace("-", "_")
            if name not in (*RESTRICTIONS, "values", "confirm") and not getattr(options, name):
                setattr(options, name, getattr(present, name))
        if not options.values:
            names = list(VALUE_TEXTS)
            default = names.index(present.values or "any")
            chosen = names[self._choose("Who gives the values of secrets?", list(VALUE_TEXTS.values()), default)]
            options.values = chosen if chosen == "from-person" else ""
        if not options.confirm:
            names = list(CONFIRM_TEXTS)
            default = names.index(present.confirm or names[0])
            chosen = names[self._choose("What must a person confirm?", list(CONFIRM_TEXTS.values()), default)]
            options.confirm = chosen if chosen != names[0] else ""

    def _present(self) -> argparse.Namespace:
        """The options of the first entry that has valid ones; without one, those of a new entry."""
        for server in self.entries:
            words = doctor.without_options(server.options, sikkerkey_options.ANSWER_LIMIT)
            with suppress(Error):
                if not {"-h", "--help"} & set(words):
                    sikkerkey_mcp.read_settings(words, {})
                    return grammar.parse(["config", "generic", *words])
        return grammar.parse(["config", "generic", "--values", "from-person"])

    def _choose(self, question: str, choices: Sequence[str], default: int) -> int:
        return terminal.choose(question, choices, default) if self.asks else default

    def _choose_several(
        self, question: str, rows: Sequence[tuple[str, ...]], default: Sequence[str], others: Sequence[str] = ()
    ) -> list[str]:
        """Some of the names in the first column."""
        lines, names = terminal.aligned(rows).splitlines(), [name for name, *_ in rows]
        return terminal.choose_several(question, lines, names, default, others) if self.asks else list(default)

    def _ask(self, question: str, given: str, default: str, check: Callable[[str], str]) -> str:
        """An answer that passes `check`, which raises ConfigError. A wrong answer is asked for again."""
        if given or not self.asks:
            return check(given or default)
        while True:
            try:
                return check(terminal.ask(f"{question} [{clean(default)}]: ") or default)
            except ConfigError as error:
                print_notice(error.full_text())


def _names() -> list[str]:
    return [name for name in CLIENTS if name != "generic"]


def _token_from_stdin() -> tuple[str, str]:
    """The token on the first line, and the vault's address if the second line has one. Raises UsageError."""
    if sys.stdin is None or terminal.is_terminal(sys.stdin):
        raise UsageError("a new agent needs a token on standard input", HOW_TO_GET_ONE)
    lines = [sys.stdin.readline(TOKEN_LINE_MAX).strip() for _ in range(2)]
    return agents.check_token(lines[0]), lines[1]


def _checked_address(address: str) -> str:
    """The address, which may carry the fingerprint of a certificate. Raises ConfigError."""
    sikkerkey_address.parse_address(address)
    return address


def _typed_token() -> str:
    print_notice(f"For the token, {HOW_TO_GET_ONE}. What you type is not shown.")
    while True:
        try:
            return agents.check_token(terminal.prompt_hidden("token").strip())
        except UsageError as error:
            print_notice(str(error))


def computer_name() -> str:
    """The usual name of an agent: that of this computer."""
    return clean(socket.gethostname(), 60) or "sikkerkey-mcp"


def _as_words(name: str, value: object) -> list[str]:
    """A restriction as words of a command line; empty if it is not set."""
    flag = f"--{name.replace('_', '-')}"
    return [flag, ",".join(value)] if isinstance(value, list) and value else [flag] if value is True else []


# ---------------------------------------------------------------------------------------------------------------------
# the plan
# ---------------------------------------------------------------------------------------------------------------------


def _show_plan(answers: Answers, new: NewAgent | None) -> tuple[list[Planned], int]:
    """Prints what will happen; returns the changes of files, and how many clients cannot be set up."""
    options = answers.options
    print_notice("\nThe plan:")
    if new is not None:
        kept = "; a passphrase protects its key" if options.passphrase else ""
        kept = "; the system's key store protects its key" if options.key_store else kept
        print(f"register this computer as the agent {clean(new.name)!r} with {new.api_url}{kept}", flush=True)
        found = config.Agents([NEW_ID], [*answers.installed, NEW_ID], {NEW_ID: new.name})
    else:
        found = config.Agents([options.agent], answers.installed)
    for note in dict.fromkeys(note for name in answers.clients for note in config.notes(CLIENTS[name])):
        print_notice(note)
    planned, failed = _plan(answers, found)
    for each in planned:
        config.show(each)
        sys.stdout.flush()
    return planned, failed


def _plan(answers: Answers, found: config.Agents) -> tuple[list[Planned], int]:
    """The changes of the clients' files, and how many cannot be changed; these are named. Raises UsageError."""
    planned = []
    for name in answers.clients:
        answers.options.client = name
        try:
            planned.append(config.planned_addition(answers.options, found))
        except UsageError:
            raise
        except ConfigError as error:
            print_notice(f"{CLIENTS[name].title} cannot be set up: {error.full_text()}")
    return planned, len(answers.clients) - len(planned)


# ---------------------------------------------------------------------------------------------------------------------
# carrying it out
# ---------------------------------------------------------------------------------------------------------------------


def _install(new: NewAgent, done: list[str]) -> str:
    """Registers the new agent and returns its id. Raises Error."""
    os.environ["SIKKERKEY_API_URL"] = new.api_url  # where `install` reads it
    options = grammar.parse(["install", "-", "--name", new.name])
    options.token = new.token  # not on a command line: `parse` is given the words of one
    done.append("registering an agent had begun (if the dashboard lists a new one, remove it)")
    try:
        agent = agents.install(options, new.protection)
    except Error:
        done.clear()  # the message says what became of the token
        raise
    done[:] = [f"agent {agent} is installed"]
    if new.protection.passphrase and not new.protection.store:  # it was typed just now
        sikkerkey_keys.unlock_agent(agent, new.protection.passphrase)
    return agent


def _plan_again(answers: Answers, agent: str, failed: int) -> tuple[list[Planned], int]:
    """The changes with the id of the agent, which is now known. A client that failed before is not named again."""
    answers.options.agent = agent
    installed = sikkerkey_identity.installed_agents()
    planned, again = _plan(answers, config.Agents([agent], installed))
    return planned, max(failed, again)


def _carry_out(planned: Sequence[Planned], done: list[str]) -> int:
    """Changes the files; returns how many could not be changed."""
    failed = 0
    for each in planned:
        try:
            config.carry_out(each)
        except ConfigError as error:
            failed += 1
            print_notice(f"{each.client.title} is not set up: {error.full_text()}")
        else:
            done.append(f"{each.client.title} is set up")
    return failed


def _finish(answers: Answers, titles: Sequence[str], failed: int, wait_minutes: int | None) -> int:
    """Waits for the owner's approval, runs doctor, and says how to start."""
    agent = answers.options.agent
    with terminal.Progress("waiting for the vault"):
        pending = _is_pending(agent)
    if pending:
        print_notice(f"\nnext: {doctor.APPROVE}; compare the fingerprint of the key")
        if wait_minutes is None and answers.asks and terminal.agrees("Wait for that?", default=True):
            wait_minutes = WAIT_MINUTES
        pending = _is_pending_after(agent, wait_minutes or 0)
    if not pending:
        found = list(doctor.checked(agent))
        print("\n".join([*(doctor.for_people(line) for line in found if line.state != "ok"), doctor.summary(found)]))
        failed += any(line.state == "fail" for line in found)
    if not answers.clients:
        print_notice(sikkerkey_mcp.runnable("\nfor a client that is not listed: sikkerkey-mcp config generic"))
    restart = f"restart {' and '.join(titles)}, then ask" if titles else "ask"
    print_notice(f"\n{'when that is done: ' if pending else ''}{restart} your assistant:\n  {FIRST_SENTENCE}")
    return 1 if failed else 0


def _is_pending(agent: str) -> bool:
    """Whether the owner has not approved the agent yet. Every other problem is left to doctor."""
    try:
        return doctor.check_agent(sikkerkey_identity.load_identity(agent))[0].remedy == doctor.APPROVE
    except Error:
        return False


def _is_pending_after(agent: str, minutes: int) -> bool:
    """Waits until the agent is approved, up to a time limit; returns whether it is still pending."""
    until_s = time.monotonic() + minutes * 60
    waiting = f"waiting for the owner's approval, at most {minutes} minutes"
    if minutes and not terminal.is_terminal(sys.stderr):
        print_notice(waiting)
    with terminal.Progress(waiting):
        while time.monotonic() < until_s:
            time.sleep(POLL_S)
            if not _is_pending(agent):
                return False
    return True
