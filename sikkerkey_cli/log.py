"""`log`: what the assistants on this computer did, from the record in the agent's slot."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import sikkerkey_activity
import sikkerkey_identity
import sikkerkey_mcp
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import ConfigError, clean
from sikkerkey_times import parse_time, with_sign

POLL_S = 0.5
WORD_MAX_CHARACTERS = 200


def command_log(options: argparse.Namespace) -> int:
    """Prints the record, and with --follow what is added to it. Raises ConfigError and UsageError."""
    since_ms = _since_ms(options.since)
    agent = sikkerkey_identity.choose_agent(options.agent)
    if agent is None:
        raise ConfigError("no agent is installed on this computer", sikkerkey_identity.INSTALL_HINT)
    slot = os.path.join(sikkerkey_identity.agents_directory(), agent)
    sikkerkey_identity.check_private(slot, directory=True, forbidden=0o022)
    reader, shown = sikkerkey_activity.Reader(slot), 0
    while True:
        for entry in reader.new_entries():
            if time_of(entry) >= since_ms:
                print(as_json(entry) if options.json else as_line(entry))
                shown += 1
        if not options.follow:
            break
        sys.stdout.flush()
        time.sleep(POLL_S)
    if not shown:
        sikkerkey_mcp.print_notice(f"no calls are recorded{' since then' if options.since else ''} for agent {agent}")
    return 0


def _since_ms(text: str) -> int:
    if not text:
        return 0
    try:
        return parse_time(with_sign(text, "-"), int(time.time() * 1000))
    except ValueError as error:
        raise UsageError(f"--since {error}") from None


def time_of(entry: sikkerkey_activity.Entry) -> int:
    """When the call began, in milliseconds since 1970; 0 if the entry does not say."""
    try:
        return parse_time(entry["time"][:WORD_MAX_CHARACTERS], 0)
    except ValueError:
        return 0


def as_json(entry: sikkerkey_activity.Entry) -> str:
    """An entry in ASCII on one line, in which nothing is hidden."""
    ids = {_word(name): list(map(_word, ids)) for name, ids in entry["ids"].items()}
    texts = {name: _word(value) if isinstance(value, str) else value for name, value in entry.items()}
    return json.dumps({**texts, "ids": ids}, separators=(",", ":"))


def as_line(entry: sikkerkey_activity.Entry) -> str:
    """An entry for people: time, outcome, duration, client, action, ids, and what a person did."""
    word = {name: _word(str(value)) for name, value in entry.items()}
    took = f"{word.get('ms', '-')} ms"
    name = ".".join(filter(None, [word.get("tool", ""), word.get("action", "")]))
    columns = [word["time"], f"{word.get('outcome', '-'):9}", f"{took:>9}", word.get("client", "-"), name]
    columns += [f"{_word(arg)}={','.join(map(_word, ids))}" for arg, ids in entry["ids"].items()]
    person = word.get("person", "")
    columns += ["(a person was asked)" if person == "asked" else f"(a person: {person})"] if person else []
    return "  ".join(columns)


def _word(text: str) -> str:
    return clean(text, WORD_MAX_CHARACTERS)
