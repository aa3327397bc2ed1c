"""`tools`: the table of actions in words, for people, and as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

import sikkerkey_actions
import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_cli import tables, terminal
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import Action, Arg, JsonObject, Tool

LIST_TOOLS_HINT = "`sikkerkey-mcp tools` lists them"

TYPES: dict[sikkerkey_actions.Kind, str] = {
    "string": "string",
    "id": "id",
    "integer": "integer",
    "boolean": "true or false",
    "time": "time",
    "strings": "list of strings",
    "ids": "list of ids",
    "object": "object",
}
_UNITS: dict[sikkerkey_actions.Kind, str] = {"string": " characters", "strings": " items", "ids": " items"}


def limits(arg: Arg, quote: str = "") -> list[str]:
    """The limits of an argument's value, in words. `quote` encloses literals."""
    unit = _UNITS.get(arg.kind, "")
    unit_of_least = unit[:-1] if arg.least == 1 else unit
    found = [f"at least {arg.least:,}{unit_of_least}"] if arg.least is not None and arg.most is None else []
    if arg.most is not None:
        found.append(f"{'at most' if arg.least is None else f'{arg.least:,} to'} {arg.most:,}{unit}")
    if arg.most_bytes is not None:
        found.append(f"at most {arg.most_bytes:,} bytes in UTF-8")
    if arg.choices:
        found.append(", ".join(f"{quote}{choice}{quote}" for choice in arg.choices))
    if arg.pattern:
        found.append(sikkerkey_actions.FORMATS[arg.pattern])
    return found + (["plaintext: never shown, logged or repeated"] if arg.plaintext else [])


# Arguments whose name tells a model enough. People read these texts in place of the name.
_MEANINGS = {
    "attachmentId": "Id of an attached file (see get).",
    "categoryId": "Id of a category (see categories).",
    "code": "Code in the answer with status waiting.",
    "enabled": "true turns it on, false turns it off.",
    "limit": "Maximum number of rows in the answer.",
    "maxReadsPerDay": "Maximum number of reads in a day.",
    "maxReadsPerMinute": "Maximum number of reads in a minute.",
    "offset": "Number of rows to skip.",
    "page": "Page number; the first page is 1.",
    "pageSize": "Maximum number of rows on a page.",
    "priority": "Priority of the ticket.",
    "sortBy": "What to sort by.",
    "timeWindowDays": "Days of the week with reads.",
    "title": "Title of the ticket.",
}


def describe(row: Action | Arg) -> str:
    """The description of an action or an argument, for people."""
    repeats_name = isinstance(row, Arg) and row.text == sikkerkey_actions.text_from_name(row.name)
    return _MEANINGS.get(row.name, row.text) if repeats_name else row.text


def find_tool(name: str) -> Tool:
    """The tool of that name, with or without --split-reads. Raises UsageError, with a similar name as hint."""
    tools = {tool.name: tool for tool in (*sikkerkey_mcp.split_reads(sikkerkey_mcp.TOOLS), *sikkerkey_mcp.TOOLS)}
    if name in tools:
        return tools[name]
    usual = [tool.name for tool in sikkerkey_mcp.TOOLS]
    near = sikkerkey_mcp.did_you_mean(name, usual, 0.6) or sikkerkey_mcp.did_you_mean(name, list(tools), 0.6)
    raise UsageError("unknown tool", near or LIST_TOOLS_HINT)


def split_name(words: list[str]) -> list[str]:
    """The words, in which the first may be TOOL.ACTION, with the tool and the action apart."""
    return [*words[0].split(".", 1), *words[1:]] if words else []


def find_action(tool: Tool, name: str) -> Action:
    """The action of that name. Raises UsageError."""
    for action in tool.actions:
        if action.name == name:
            return action
    near = sikkerkey_mcp.did_you_mean(name, [action.name for action in tool.actions])
    raise UsageError(f"unknown action of {tool.name}", near or actions_hint(tool))


def actions_hint(tool: Tool) -> str:
    """How to see the actions of a tool."""
    return f"`sikkerkey-mcp tools describe {tool.name}` lists them"


def _action_members(tool: Tool, action: Action) -> JsonObject:
    """Everything that the table says about an action, for --json."""
    return {
        "tool": tool.name,
        "action": action.name,
        "text": describe(action),
        "effect": action.effect,
        "scope": action.scope,
        "method": action.method,
        "path": action.path,
        "answer": action.answer,
        "mints": action.mints,
        "warning": action.warning,
        "inferred": action.inferred,
        "own": action.own,
        "arguments": [
            {
                **{"name": arg.name, "required": arg.required, "plaintext": arg.plaintext},
                **sikkerkey_actions.arg_schema(arg),
                "description": describe(arg),
            }
            for arg in action.args
        ],
    }


def _tool_members(tool: Tool) -> JsonObject:
    actions = [_action_members(tool, action) for action in tool.actions]
    return {"tool": tool.name, "title": tool.title, "text": tool.text, "actions": actions}


def _action_lines(tool: Tool, action: Action) -> list[str]:
    notes = [action.effect, f"scope {action.scope}" if action.scope else "no scope required"]
    if action.own:
        reads = " from other reads, each with its own scope" if action.rows else ""
        notes = [action.effect, f"answered by this program{reads}"]
    notes += ["returns a credential, only once"] if action.mints else []
    notes += ["not available on every vault"] if action.inferred else []
    rows = [
        (arg.name, "required" if arg.required else "optional", TYPES[arg.kind], _description_with_limits(arg))
        for arg in action.args
    ]
    about = [f"  {terminal.wrapped(text, 2)}" for text in (describe(action), "; ".join(notes))]
    head = [command_name(tool, action), *about]
    arguments = ["", *tables.fitted(rows, terminal.width()).splitlines()] if rows else []
    return [*head, *arguments, "", f"example: {example(tool, action)}"]


def _scope(action: Action) -> str:
    return action.scope or ("various" if action.own else "none")


def _description_with_limits(arg: Arg) -> str:
    limit = "; ".join(limits(arg))
    return f"{describe(arg)} ({limit})" if limit else describe(arg)


def command_name(tool: Tool, action: Action) -> str:
    """`manage_secrets rotate`, or `whoami` alone."""
    return f"{tool.name} {action.name}" if sikkerkey_mcp.has_actions(tool) else tool.name


def example(tool: Tool, action: Action) -> str:
    """A command line with the required arguments; plaintext comes from stdin."""
    words = [f"{arg.name}={'-' if arg.plaintext else SAMPLES[arg.kind]}" for arg in action.args if arg.required]
    return " ".join(["sikkerkey-mcp call", command_name(tool, action), *words])


SAMPLES: dict[sikkerkey_actions.Kind, str] = {
    "string": "TEXT",
    "id": "ID",
    "integer": "NUMBER",
    "boolean": "true",
    "time": "TIME",
    "strings": "A,B",
    "ids": "ID,ID",
    "object": """'{"KEY":"TEXT"}'""",
}


def command_tools(options: argparse.Namespace) -> int:
    """Lists the tools, or describes one of them or one action."""
    words = options.words or ["list"]
    if words == ["list"]:
        offered = sikkerkey_mcp.available_tools(sikkerkey_mcp.TOOLS, sikkerkey_mcp.read_restrictions({}))
        offered = sikkerkey_mcp.split_reads(offered) if sikkerkey_options.reads_are_split({}) else offered
        return _show(options, [_tool_members(tool) for tool in offered], _list_lines(offered))
    names = split_name(words[1:] if words[0] == "describe" else words)
    if not 1 <= len(names) <= 2:
        raise UsageError("tools takes `list`, or `TOOL [ACTION]`", LIST_TOOLS_HINT)
    tool = find_tool(names[0])
    if len(names) == 1:
        return _show(options, _tool_members(tool), _tool_lines(tool))
    action = find_action(tool, names[1])
    return _show(options, _action_members(tool, action), _action_lines(tool, action))


def _show(options: argparse.Namespace, members: Any, lines: list[str]) -> int:
    print(json.dumps(members, indent=2) if options.json else "\n".join(lines))
    return 0


def _list_lines(tools: list[Tool]) -> list[str]:
    rows = [(tool.name, str(len(tool.actions)), tool.text) for tool in tools]
    return tables.fitted([("TOOL", "ACTIONS", "DESCRIPTION"), *rows], terminal.width()).splitlines()


def _tool_lines(tool: Tool) -> list[str]:
    if not sikkerkey_mcp.has_actions(tool):
        return _action_lines(tool, tool.actions[0])
    rows = [(action.name, action.effect, _scope(action), describe(action)) for action in tool.actions]
    head = ("ACTION", "EFFECT", "SCOPE", "DESCRIPTION")
    return [terminal.wrapped(tool.text, 0), "", *tables.fitted([head, *rows], terminal.width()).splitlines()]
