"""`call`: runs one action from a terminal or a script.

Arguments are converted by the types of the table and checked by the same code as those of a model.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_members
import sikkerkey_shell
from sikkerkey_cli import names, questions, tables, terminal
from sikkerkey_cli.grammar import NEAR
from sikkerkey_cli.output_file import OutputFile, as_bytes
from sikkerkey_cli.terminal import UsageError
from sikkerkey_cli.tools import LIST_TOOLS_HINT, SAMPLES, command_name, find_tool, split_name
from sikkerkey_cli.words import Words
from sikkerkey_mcp import Action, JsonObject, Tool


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
    if not (options.json or options.to_file) and terminal.is_terminal(sys.stdout):
        options.table = True
    restrictions = sikkerkey_mcp.read_restrictions({})
    words = _parsed(options, restrictions)
    if options.agent:
        sikkerkey_identity.choose_agent(options.agent)  # a wrong one is wrong usage, not a refusal of the vault
    tools = _tools(options, words.action, restrictions)
    ask = names.asking(tools)
    call = _checked(words, ask)
    wording = questions.Wording(call.tool, call.action, call.given, call.known, ask)
    if not options.yes:
        _confirm(call, wording)
    with OutputFile(options.to_file, overwrite=options.overwrite) as output:
        with terminal.Progress("waiting for the vault"):
            result = _carried_out(tools, call, options.agent)
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


def _carried_out(tools: sikkerkey_mcp.VaultTools, call: Call, agent: str) -> JsonObject:
    """The result of the call. Raises KeyboardInterrupt, with what to do if the vault may have processed a write."""
    named = {"action": call.action.name} if sikkerkey_mcp.has_actions(call.tool) else {}
    name = call.tool.reads_of or call.tool.name
    try:
        return tools.call(name, {**call.arguments, **named}, sikkerkey_mcp.Context())
    except KeyboardInterrupt as stopped:
        if not stopped.args or not call.changes:
            raise KeyboardInterrupt from None
        raise KeyboardInterrupt(_how_to_look(call, agent)) from None


def _how_to_look(call: Call, agent: str) -> str:
    """What is said of a write that was stopped after it was sent, with a command that shows what has become of it."""
    complaint = "stopped, and the vault may have processed the call"
    reads = [action for action in call.tool.actions if action.effect == "read"]
    for action in sorted(reads, key=lambda read: read.name != "list"):
        required = [arg.name for arg in action.args if arg.required]
        if all(name in call.given for name in required):
            words = [*command_name(call.tool, action).split(), *(f"{name}={call.given[name]}" for name in required)]
            chosen = ["--agent", agent] if agent else []
            line = sikkerkey_shell.command_line(["sikkerkey-mcp", "call", *words, *chosen])
            return f"{complaint}: look before you repeat it, with `{line}`"
    return f"{complaint}: look before you repeat it"


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
        hint = f"`sikkerkey-mcp tools describe {command_name(tool, action)}` lists its arguments"
        near = error.hint or _similar_argument(action, arguments) or _how_to_type(action, str(error))
        raise UsageError(str(error), near or hint) from None


def _similar_argument(action: Action, arguments: JsonObject) -> str:
    """A hint for the first argument that the action does not have, if one of its own is similar."""
    known = [*names.arguments_by_word(action), *(arg.name for arg in action.args)]
    unknown = next((name for name in arguments if name not in known), "")
    return sikkerkey_mcp.did_you_mean(unknown, known, NEAR)


def _how_to_type(action: Action, message: str) -> str:
    """A hint for ids, for which names are taken too, and for lists and objects, which are given as JSON."""
    if missing := re.match("([A-Za-z]+(?: and [A-Za-z]+)*) (?:is|are) required for ", message):
        ids = [arg.name for arg in action.args if names.is_id_argument(arg) and arg.name in missing[1].split(" and ")]
        words = [f"{names.short_name(name)}=NAME" for name in ids]
        return f"an id or a name: {' '.join(words)}" if words else ""
    for arg in action.args:
        if message.startswith(f"{arg.name} must be an"):
            if arg.kind == "object":
                return f"as JSON, quoted for the shell: {arg.name}={SAMPLES[arg.kind]}"
            if arg.kind in ("strings", "ids"):
                return f"""{arg.name}=A,B or, as JSON quoted for the shell, {arg.name}='["A", "B"]'"""
    return ""
