"""Finds the id of the one thing that a name stands for. Also for the agents of this computer."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import sikkerkey_actions
import sikkerkey_core
import sikkerkey_identity
import sikkerkey_mcp
from sikkerkey_cli.terminal import UsageError

CANDIDATES_MAX = 5  # that an error names
NAME_MAX_CHARACTERS = 60  # of a name in an error
# An id in one of these forms is complete. One in 200 has no digit and is looked up; so is app_databasepassword, a name.
COMPLETE_ID = re.compile("[a-z]{2,6}_(?=[a-z]*[0-9])[a-z0-9]{16}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SIMILARITY = 0.5  # of names that an error proposes


class Thing(NamedTuple):
    """Something that has an id and usually a name."""

    id: str
    name: str

    def __str__(self) -> str:
        name = sikkerkey_mcp.clean(self.name, NAME_MAX_CHARACTERS)
        return f"{name} ({self.id})" if name else self.id


def choose(text: str, things: Sequence[Thing], argument: str, kind: str, *, exactly: bool = False) -> Thing:
    """The thing with this id or name; else, unless `exactly`, in another case, or whose id alone begins like this.

    An id comes first: anyone who may name a thing could name it like the id of another one. Raises UsageError, which
    says what is wrong with the `argument` without repeating the text, and names candidates.
    """
    folded = text.casefold()
    same_id = [thing for thing in things if thing.id == text]
    same_name = [thing for thing in things if thing.name == text]
    near = [thing for thing in things if thing.name.casefold() == folded]
    near = near or [thing for thing in things if thing.id.startswith(text)]
    found = same_id or same_name or ([] if exactly else near)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{argument} fits {len(found)} {kind}s", f"give the id of one: {_listed(found)}")
    if near:
        message = f"{argument} must be the exact name or id of the {kind}, because this call is destructive"
        raise UsageError(message, f"similar: {_listed(near)}")
    raise UsageError(f"{argument} fits no {kind} that can be seen here", _similar(folded, things))


def _listed(things: Sequence[Thing]) -> str:
    more = f" and {len(things) - CANDIDATES_MAX} more" if len(things) > CANDIDATES_MAX else ""
    return ", ".join(map(str, things[:CANDIDATES_MAX])) + more


def _similar(folded: str, things: Sequence[Thing]) -> str:
    """The things that are called nearly like this; else some of them, so that their form is seen."""
    by_name = {thing.name.casefold(): thing for thing in things}
    close = difflib.get_close_matches(folded, by_name, CANDIDATES_MAX, SIMILARITY)
    parts = [name for name in by_name if folded in name and name not in close]
    similar = [by_name[name] for name in [*close, *parts]]
    if similar:
        return f"similar: {_listed(similar)}"
    return f"there are: {_listed(things)}" if things else "there are none"


# ---------------------------------------------------------------------------------------------------------------------
# the agents of this computer
# ---------------------------------------------------------------------------------------------------------------------


NEW_AGENT = ("new", "setup")  # the word for an agent that is yet to be installed, and its command
MAY_BE_UNKNOWN = ("doctor", "config", "setup")  # commands that report an unknown agent themselves


def agents_here() -> list[Thing]:
    """The agents of this computer. One whose files cannot be read has no name. Raises ConfigError."""
    return [Thing(agent, _name_of(agent)) for agent in sikkerkey_identity.installed_agents()]


def _name_of(agent: str) -> str:
    try:
        return sikkerkey_identity.load_identity(agent, with_key=False).name
    except sikkerkey_mcp.ConfigError:  # whoever uses the agent reports it
        return ""


def replace_agent_names(options: argparse.Namespace) -> None:
    """Puts ids in place of the names of agents among the options. Raises UsageError, which names candidates.

    What may be the id of an agent that is gone stays as it is: the command says what to do about it.
    """
    exactly = options.command == "revoke"
    for option in ("agent", "by"):
        text = getattr(options, option, "")
        if not text or (text, options.command) == NEW_AGENT:
            continue
        try:
            things = agents_here()
        except sikkerkey_mcp.Error:  # the command reports it
            return
        says_itself = options.command in MAY_BE_UNKNOWN and sikkerkey_actions.is_id(text)
        may_be_gone = COMPLETE_ID.fullmatch(text) or says_itself or not things
        if len(text) == sikkerkey_core.TOKEN_CHARACTERS or (may_be_gone and not _may_mean(text, things)):
            continue
        setattr(options, option, choose(text, things, _option_name(options, option), "agent", exactly=exactly).id)


def _option_name(options: argparse.Namespace, option: str) -> str:
    return "AGENT_ID" if option == "agent" and options.command == "revoke" else f"--{option}"


def _may_mean(text: str, things: Sequence[Thing]) -> bool:
    """Whether a thing has this id or name, in any case, or an id that begins like this."""
    folded = text.casefold()
    return any(thing.id.startswith(text) or thing.name.casefold() == folded for thing in things)
