"""`tools` and `call`: show the table of actions, and run one action from a terminal or a script.

Arguments are converted by the types of the table and checked by the same code as those of a model. A plaintext argument
is never taken from the command line itself, which every process of the computer can read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import sikkerkey_actions
import sikkerkey_mcp
import sikkerkey_members
import sikkerkey_times
from sikkerkey_cli import names, questions, tables, terminal
from sikkerkey_cli.output_file import OutputFile, as_bytes
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import Action, Arg, ConfigError, JsonObject, Tool

LIST_TOOLS_HINT = "`sikkerkey-mcp tools` lists them"
# For a file and for stdin, the same limit as for one message of an MCP client.
READ_MAX_BYTES = sikkerkey_mcp.LINE_MAX_BYTES

# ---------------------------------------------------------------------------------------------------------------------
# the table in words
# ---------------------------------------------------------------------------------------------------------------------

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
    found = [f"at least {arg.least:,}{unit}"] if arg.least is not None and arg.most is None else []
    if arg.most is not None:
        found.append(f"{'at most' if arg.least is None else f'{arg.least:,} to'} {arg.most:,}{unit}")
    if arg.most_bytes is not None:
        found.append(f"at most {arg.most_bytes:,} bytes in UTF-8")
    if arg.choices:
        found.append(", ".join(f"{quote}{choice}{quote}" for choice in arg.choices))
    if arg.pattern:
        found.append(sikkerkey_mcp.FORMATS[arg.pattern])
    return found + (["plaintext: never shown, logged or repeated"] if arg.plaintext else [])


def describe(row: Action | Arg) -> str:
    """The description of an action or an argument."""
    return row.text


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
    raise UsageError(f"unknown action of {tool.name}", near or _listed(tool))


def _listed(tool: Tool) -> str:
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
    head = [_command_name(tool, action), *about]
    arguments = ["", *tables.fitted(rows, terminal.width()).splitlines()] if rows else []
    return [*head, *arguments, "", f"example: {example(tool, action)}"]


def _scope(action: Action) -> str:
    return action.scope or ("various" if action.own else "none")


def _description_with_limits(arg: Arg) -> str:
    limit = "; ".join(limits(arg))
    return f"{describe(arg)} ({limit})" if limit else describe(arg)


def _command_name(tool: Tool, action: Action) -> str:
    return f"{tool.name} {action.name}" if sikkerkey_mcp.has_actions(tool) else tool.name


def example(tool: Tool, action: Action) -> str:
    """A command line with the required arguments; plaintext comes from stdin."""
    words = [f"{arg.name}={'-' if arg.plaintext else _SAMPLES[arg.kind]}" for arg in action.args if arg.required]
    return " ".join(["sikkerkey-mcp call", _command_name(tool, action), *words])


_SAMPLES: dict[sikkerkey_actions.Kind, str] = {
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
        offered = sikkerkey_mcp.split_reads(offered) if sikkerkey_mcp.reads_are_split({}) else offered
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


# ---------------------------------------------------------------------------------------------------------------------
# arguments: key=value, key=@file, key=-
# ---------------------------------------------------------------------------------------------------------------------


class Words:
    """The words after `call TOOL`: an action, if the tool has several, and arguments."""

    def __init__(self, tool: Tool, words: list[str]) -> None:
        self.tool = tool
        self.action = self._take_action(words)
        self._named = names.arguments_by_word(self.action)
        self.given = dict(self._pairs(words))

    def _take_action(self, words: list[str]) -> Action:
        if not sikkerkey_mcp.has_actions(self.tool):
            return self.tool.actions[0]
        if not words or "=" in words[0]:
            raise UsageError(f"{self.tool.name} needs an action", _listed(self.tool))
        return find_action(self.tool, words.pop(0))

    def _pairs(self, words: list[str]) -> list[tuple[str, str]]:
        pairs = [self._pair(word) for word in words]
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"{sikkerkey_mcp.clean(key, 40)} is given twice")
        if sum(value == "-" for _, value in pairs) > 1:
            raise UsageError("only one argument can be read from stdin", "use key=@FILE for the others")
        return pairs

    def _pair(self, word: str) -> tuple[str, str]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError("arguments have the form key=value", f"example: {example(self.tool, self.action)}")
        key = self._named[key].name if key in self._named else key
        arg = self._arg(key)
        if arg and arg.plaintext and not (value == "-" or (value.startswith("@") and not value.startswith("@@"))):
            raise UsageError(
                f"{key} is plaintext and cannot be given on the command line, which every process can read",
                f"use {key}=@FILE, or {key}=- for stdin; the shell's history now contains what you typed",
            )
        return key, value

    def _arg(self, key: str) -> Arg | None:
        return self._named.get(key) or next((arg for arg in self.action.args if arg.name == key), None)

    def named(self) -> JsonObject:
        """The arguments in which names may stand for ids. Raises ConfigError."""
        return {key: self._value(key) for key in self.given if key in self._named}

    def others(self) -> JsonObject:
        """The other arguments as a model would give them. Reads files and stdin. Raises ConfigError."""
        return {key: self._value(key) for key in self.given if key not in self._named}

    def _value(self, key: str) -> Any:
        """The value for the check, which parses JSON itself. `A,B` is a list; `7d` is past for a read, else future."""
        arg = self._arg(key)
        text = _text(key, self.given[key], secret=arg is not None and arg.plaintext)
        if arg and arg.kind in ("strings", "ids"):
            return _items(text)
        if arg and arg.kind == "time":
            return sikkerkey_times.with_sign(text, "-" if self.action.effect == "read" else "+")
        return text


def _items(text: str) -> Any:
    """The items of a list, which commas separate; JSON as it is, but a list of JSON as a list."""
    items = [item.strip() for item in text.split(",")]
    if all(items) and items[0][0] not in '[{"':
        return items
    try:
        value = sikkerkey_mcp.parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:  # the check says what is wrong with it
        return text
    return value if isinstance(value, list) else text


def _text(key: str, value: str, *, secret: bool) -> str:
    """The text that a word stands for: itself, the content of a file, or stdin. A `secret` one is typed twice."""
    if value == "-":
        return _from_stdin(key, twice=secret)
    if value.startswith("@@"):
        return value[1:]
    return _from_file(key, value[1:]) if value.startswith("@") else value


def _from_stdin(key: str, *, twice: bool) -> str:
    if sys.stdin is None:
        raise UsageError(f"stdin is closed, so {key} cannot be read")
    if terminal.is_terminal(sys.stdin):
        typed = terminal.prompt_hidden(key)
        if twice and typed and terminal.prompt_hidden(f"{key} again") != typed:
            raise sikkerkey_mcp.Error(f"the two entries of {key} differ; nothing was sent")
        return typed
    return _decoded(key, sys.stdin.buffer.read(READ_MAX_BYTES + 1))


def _from_file(key: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            return _decoded(key, file.read(READ_MAX_BYTES + 1))
    except OSError as error:
        hint = f"write {key}=@@... for a value that begins with @"
        raise ConfigError(f"the file for {key} cannot be read: {error.strerror}", hint) from None


def _decoded(key: str, data: bytes) -> str:
    """The text of a file or of stdin. The line end of a single line is dropped; a PEM key keeps its last one."""
    if len(data) > READ_MAX_BYTES:
        raise ConfigError(f"the input for {key} is larger than {READ_MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"the input for {key} is not UTF-8 text") from None
    return terminal.without_line_end(text)


# ---------------------------------------------------------------------------------------------------------------------
# call
# ---------------------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A checked call, with ids in place of names. `known` are the names of ids that were seen on the way."""

    tool: Tool
    action: Action
    arguments: JsonObject
    given: sikkerkey_mcp.Arguments
    known: Mapping[str, str]

    @property
    def changes(self) -> bool:
        """Whether the call changes something."""
        return self.action.effect != "read" and self.given.get("preview") is not True


def command_call(options: argparse.Namespace) -> int:
    """Runs one action. Returns 1 if the vault or a check refuses it. Raises Error, and UsageError for wrong usage."""
    restrictions = sikkerkey_mcp.read_restrictions({})
    words = _parsed(options, restrictions)
    if options.agent:
        sikkerkey_mcp.choose_agent(options.agent)  # a wrong one is wrong usage, not a refusal of the vault
    tools = _tools(options, words.action, restrictions)
    ask = names.asking(tools)
    call = _checked(words, ask)
    wording = questions.Wording(call.tool, call.action, call.given, call.known, ask)
    if not options.yes:
        _confirm(call, wording)
    with OutputFile(options.to_file, overwrite=options.overwrite) as output:
        with terminal.Progress("waiting for the vault"):
            named = {"action": call.action.name} if sikkerkey_mcp.has_actions(call.tool) else {}
            name = call.tool.reads_of or call.tool.name
            result = tools.call(name, {**call.arguments, **named}, sikkerkey_mcp.Context())
        if result.get("isError"):
            sikkerkey_mcp.print_notice(f"sikkerkey-mcp: error: {terminal.cleaned(result['content'][0]['text'])}")
            return 1
        if output.path:
            output.write(as_bytes(result))
        elif options.table:
            print(tables.as_table(result, split_columns(options.columns), exact=options.exact))
        else:
            print(tables.as_json(result))
    if call.changes:
        sys.stdout.flush()  # a credential is shown only once: first the result, then what is said about it
        sikkerkey_mcp.print_notice(wording.success(result.get("structuredContent", {})))
    return 0


def _tools(
    options: argparse.Namespace, action: Action, restrictions: list[sikkerkey_mcp.Restriction]
) -> sikkerkey_mcp.VaultTools:
    """The vault, as the chosen agent sees it."""
    exact = options.exact or (options.table and action.answer == "json")  # a table shows null as a dash
    shown = sikkerkey_mcp.Presentation(characters=None, hidden_visible=False, exact=exact)
    agent = sikkerkey_mcp.AgentConnection(options.agent)
    return sikkerkey_mcp.VaultTools(agent.api, restrictions, presentation=shown, agent=agent)


def _parsed(options: argparse.Namespace, restrictions: list[sikkerkey_mcp.Restriction]) -> Words:
    """The words of a call, with everything checked that the table alone can tell."""
    if not options.words:
        raise UsageError("call needs a tool", LIST_TOOLS_HINT)
    name, *rest = split_name(options.words)
    tool = find_tool(name)
    words = Words(tool, rest)
    if words.action.answer == "file" and not options.to_file:
        raise UsageError(f"{words.action.name} returns a file", "--to-file FILE says where to store it")
    named = {"action": words.action.name} if sikkerkey_mcp.has_actions(tool) else {}
    sikkerkey_mcp.refuse_withheld(tool, named, restrictions)
    _check_columns(words, split_columns(options.columns))
    return words


def _checked(words: Words, ask: names.Ask) -> Call:
    """The call with ids in place of names, before anything is asked or sent that changes something."""
    tool, action = words.tool, words.action
    found = names.Names(ask, exactly=action.effect == "destructive")
    named = words.named()
    with terminal.Progress("looking up names"):
        ids = found.with_ids(action, named)
    arguments = {**ids, **words.others()}
    return Call(tool, action, arguments, _check(tool, action, arguments), found.known)


def _confirm(call: Call, wording: questions.Wording) -> None:
    """Asks before something destructive, and before an empty value is stored. Raises Error unless confirmed."""
    for arg in call.action.args:
        if arg.plaintext and call.given.get(arg.name) == "":
            questions.confirm_empty_value(arg.name)
    if call.action.effect == "destructive" and call.changes:
        terminal.require_terminal("this cannot be confirmed", "pass --yes to confirm")
        terminal.confirm(wording.question(), is_question=True)


def split_columns(words: list[str]) -> list[str]:
    """The names of --columns."""
    return [name.strip() for word in words for name in word.split(",")]


def _check_columns(words: Words, columns: list[str]) -> None:
    """Raises UsageError for a column that no row of the answer can have."""
    if words.action.own:
        return
    known = sikkerkey_members.members_of(f"{words.tool.reads_of or words.tool.name}.{words.action.name}")
    for name in columns:
        if not known.knows(name):
            near = sikkerkey_mcp.did_you_mean(name, sorted(known.plain))
            hint = near or "without --columns, every member that is not empty is shown"
            raise UsageError(f"{sikkerkey_mcp.clean(name, 40)} is no member of this answer", hint)


def _check(tool: Tool, action: Action, arguments: JsonObject) -> sikkerkey_mcp.Arguments:
    try:
        return sikkerkey_mcp.check_arguments(tool, action, arguments, int(time.time() * 1000))
    except sikkerkey_mcp.ArgumentError as error:
        hint = f"`sikkerkey-mcp tools describe {_command_name(tool, action)}` lists its arguments"
        raise UsageError(str(error), error.hint or _how_to_type(action, str(error)) or hint) from None


def _how_to_type(action: Action, message: str) -> str:
    """A hint for lists and objects, which are given as JSON."""
    for arg in action.args:
        if message.startswith(f"{arg.name} must be an"):
            if arg.kind == "object":
                return f"as JSON, quoted for the shell: {arg.name}={_SAMPLES[arg.kind]}"
            if arg.kind in ("strings", "ids"):
                return f"""{arg.name}=A,B or, as JSON quoted for the shell, {arg.name}='["A", "B"]'"""
    return ""
