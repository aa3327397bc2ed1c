"""The user's restrictions: `--read-only`, `--tools` and `--exclude`, or the environment's variables for them.

sikkerkey_mcp loads this where there are any.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from sikkerkey_mcp import (
    INSTRUCTIONS,
    NAME_MAX,
    SWITCHES,
    TOOLS,
    Action,
    ArgumentError,
    ConfigError,
    JsonObject,
    Tool,
    clean,
    nearest,
    takes_action,
)

YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class Switch:
    """A restriction: `source` is how the user set it (`--tools`, `SIKKERKEY_TOOLS`), `names` are tools and actions."""

    def __init__(
        self, source: str, kind: Literal["read-only", "tools", "exclude"], names: tuple[str, ...] = ()
    ) -> None:
        self.source, self.kind, self.names = source, kind, names

    def withholds(self, tool: Tool, action: Action) -> bool:
        """True if the action is not to be had."""
        if self.kind == "read-only":
            return action.effect != "read" or action.mints
        named = tool.name in self.names or f"{tool.name}.{action.name}" in self.names
        return named is (self.kind == "exclude")


def narrowed(tools: Sequence[Tool], switches: Sequence[Switch]) -> list[Tool]:
    """What `switches` leave: tools without the actions that any of them withholds, and no tool without actions."""
    left = []
    for tool in tools:
        actions = tuple(a for a in tool.actions if not any(switch.withholds(tool, a) for switch in switches))
        left += [tool._replace(actions=actions)] if actions else []
    return left


def refuse_withheld(tool: Tool, arguments: JsonObject, switches: Sequence[Switch]) -> None:
    """Raises ArgumentError, which names the switch, if the action that `arguments` name or else all are withheld."""
    named = [action for action in tool.actions if action.name == arguments.get("action")] or tool.actions
    sources = [next((switch.source for switch in switches if switch.withholds(tool, a)), "") for a in named]
    if all(sources):
        name = f"{tool.name}.{named[0].name}" if len(named) == 1 and takes_action(tool) else tool.name
        hint = "the user restricted this server so; only they can change it, where they configured it"
        raise ArgumentError(f"{name} is withheld by {sources[0]}", hint)


def instructions(tools: Sequence[Tool], switches: Sequence[Switch]) -> str:
    """INSTRUCTIONS without the lines that only speak of withheld actions, and with the restriction on top."""
    if not switches:
        return INSTRUCTIONS
    offered = {f"{tool.name}.{action.name}" for tool in tools for action in tool.actions}
    named = ((line, set(re.findall(r"\w+\.\w+", line))) for line in INSTRUCTIONS.split("\n"))
    set_by = ", ".join(" ".join([switch.source, ",".join(switch.names)]).rstrip() for switch in switches)
    top = f"The user restricted this server ({clean(set_by, 200)}): what is not listed is withheld on purpose."
    return "\n".join([top, *(line for line, names in named if not names or names & offered)])


def switches(options: Mapping[str, str]) -> list[Switch]:
    """The restrictions in force, from `options` and the environment; all of them hold. Raises ConfigError."""
    found = []
    for option, variable in SWITCHES.items():
        for source, text in ((option, options.get(option)), (variable, os.environ.get(variable) or None)):
            if text is not None:
                found += _switch(source, option, text)
    if found and not narrowed(TOOLS, found):
        raise ConfigError(f"{', '.join(switch.source for switch in found)} leave nothing to offer")
    return found


def _switch(source: str, option: str, text: str) -> list[Switch]:
    if option == "--read-only":
        if text.strip().lower() not in YES + NO:
            raise ConfigError(f"{source} must be one of: {', '.join(YES + NO[1:])}")
        return [Switch(source, "read-only")] if text.strip().lower() in YES else []
    names = tuple(name.strip() for name in text.split(","))
    known = [name for tool in TOOLS for name in (tool.name, *(f"{tool.name}.{a.name}" for a in tool.actions))]
    for name in names:
        if name not in known:
            message = f"{source} names {clean(name, NAME_MAX) or 'nothing'}, which is no tool or action"
            raise ConfigError(message, nearest(name, known) or "write TOOL or TOOL.ACTION, with commas between them")
    return [Switch(source, "tools" if option == "--tools" else "exclude", names)]
