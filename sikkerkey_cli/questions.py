"""What a person is asked before a call, and told after it, in the names of the vault.

Both come from the titles of the table: `Delete the secret {secretId}` becomes `Delete the secret DB in Webshop? It can
be restored for 30 days.` and, afterwards, `Deleted the secret DB in Webshop.`
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import sikkerkey_mcp
import sikkerkey_person
from sikkerkey_cli import terminal
from sikkerkey_cli.names import PROJECT, Ask, name_in
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import Action, Arguments, JsonObject, Tool

READS_MAX = 2  # that one question may cost
NAMES_MAX = 5  # of a list
NAME_MAX_CHARACTERS = 80
PAST = {
    **{"Bind": "Bound", "Reply": "Replied", "Send": "Sent"},
    **{"Unbind": "Unbound", "Unfreeze": "Unfroze", "Withdraw": "Withdrew"},
}


class _OutOfReads(sikkerkey_mcp.Error):
    """A question would cost more than READS_MAX reads."""


class Wording:
    """A call in words. `known` are names of ids; further ones are read with `ask`, as long as the question may."""

    def __init__(self, tool: Tool, action: Action, given: Arguments, known: Mapping[str, str], ask: Ask) -> None:
        self._tool, self._action, self._given, self._ask = tool, action, given, ask
        self._known = dict(known)
        self._reads = READS_MAX

    def question(self) -> str:
        """What is about to happen, and what follows from it."""
        follows = self._action.warning if self._warning_applies() else self._action.consequence
        sentence = self._sentence(self._action.title, read=True) or f"{self._tool.title}: {self._action.text}"
        return f"{sentence.rstrip('.')}? {follows}".rstrip()

    def success(self, answer: JsonObject) -> str:
        """What has happened, with the id of what was created. Nothing is read for it."""
        answer_id = answer.get("id")
        if isinstance(answer_id, str) and name_in(answer):
            self._known.setdefault(answer_id, name_in(answer))
        verb, _, rest = self._action.title.partition(" ")
        is_new = isinstance(answer_id, str) and answer_id not in self._given.values()
        new_id = f" ({sikkerkey_mcp.clean(answer_id, NAME_MAX_CHARACTERS)})" if is_new and answer_id else ""
        sentence = self._sentence(f"{past(verb)} {rest}", read=False, after_title=new_id)
        return f"{sentence or f'{self._tool.title}: {self._action.name} succeeded{new_id}'}."

    def _sentence(self, title: str, *, read: bool, after_title: str = "") -> str:
        """A title with names in it, and the project if it names none; empty if the call lacks what it needs."""
        names = re.findall(r"\{(\w+)\}", title)
        if not title or any(name not in self._given for name in names):
            return ""
        place = ""
        if PROJECT in self._given and PROJECT not in names:
            place = f" in {self._shown(PROJECT, read=read)}"
        return title.format_map({name: self._shown(name, read=read) for name in names}) + after_title + place

    def _shown(self, argument: str, *, read: bool) -> str:
        """An argument as a name if it is known or may be read, else as it was given."""
        value = self._given[argument]
        if isinstance(value, list):
            shown = ", ".join(plain_name(self._known.get(each, str(each))) for each in value[:NAMES_MAX])
            return f"{shown} and {len(value) - NAMES_MAX} more" if len(value) > NAMES_MAX else shown or "nothing"
        name = self._known.get(value)
        if name is None and read and argument in sikkerkey_person.NAMED_BY:
            name = self._read_name(argument, value)
        return plain_name(name or str(value))

    def _read_name(self, argument: str, value: str) -> str:
        try:
            return sikkerkey_person.name_of(argument, value, self._given, self._ask_within_bounds)
        except (LookupError, sikkerkey_mcp.Error):  # the vault will say what is wrong with the id
            return ""

    def _warning_applies(self) -> bool:
        """Whether the warning is true of this call; True if that cannot be known."""
        if self._action.warn_if is None:
            return bool(self._action.warning)
        try:
            return self._action.warn_if(self._given, self._ask_within_bounds)
        except sikkerkey_mcp.Error:
            return True

    def _ask_within_bounds(self, tool: str, action: str, arguments: JsonObject) -> Any:
        if not self._reads:
            raise _OutOfReads("no further read")
        self._reads -= 1
        return self._ask(tool, action, arguments)


def past(verb: str) -> str:
    """`Deleted` for `Delete`."""
    return PAST.get(verb) or (f"{verb}d" if verb.endswith("e") else f"{verb}ed")


def plain_name(name: str) -> str:
    """A name inside a sentence, cleaned, and quoted unless it is one word."""
    shown = sikkerkey_mcp.clean(name, NAME_MAX_CHARACTERS)
    return shown if re.fullmatch(r"[\w.@:/+-]+", shown) else f'"{shown}"'


def confirm_empty_value(argument: str) -> None:
    """Asks whether an empty value is meant. Raises UsageError without a terminal, Error unless confirmed."""
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stderr)):
        raise UsageError(f"{argument} is empty", "if that is meant, pass --yes")
    terminal.confirm(f"{argument} is empty. Store an empty value?", is_question=True)
