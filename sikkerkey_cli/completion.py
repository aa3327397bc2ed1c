"""`completion`: short scripts for bash, zsh, fish and PowerShell, which ask this program what could come next.

Words come from the table of commands, the dispatch table, the installed agents, and, for an argument that may be a
name, from the list of the vault that `call` would look it up in.
"""

from __future__ import annotations

import argparse
import re
import shlex
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_cli import matching
from sikkerkey_cli import names as call_names
from sikkerkey_cli.clients import CLIENTS
from sikkerkey_cli.grammar import COMMANDS, GLOBAL_OPTIONS, HELP, Command, Option
from sikkerkey_cli.person import open_tickets
from sikkerkey_cli.tools import describe
from sikkerkey_tickets import TicketsUnusable

PLAIN_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./+-]{0,99}")
NAME_MAX_CHARACTERS = 60
ANSWER_MAX_S = 3.0  # of the vault; a shell waits for the answer
NAMES = ("sikkerkey-mcp", "sikkerkey-mcp.pyz")


class Candidate(NamedTuple):
    """A word that may come next, and its description."""

    word: str
    text: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# candidates
# ---------------------------------------------------------------------------------------------------------------------


def candidates(words: list[str], current: str) -> list[Candidate]:
    """What may replace `current`, the last word of a line; `words` are those between it and the program's name."""
    return [found for found in _possible(words, current) if found.word.startswith(current)]


def _possible(words: list[str], current: str) -> list[Candidate]:
    name = next((word for word in words if not word.startswith("-")), "")
    if not name:
        if current.startswith("-"):
            return _flags(GLOBAL_OPTIONS)
        return [*_commands(), Candidate("help", "help and examples for a command")]
    if words == ["help"]:
        return _commands()
    if name not in COMMANDS:
        return []
    command, rest = COMMANDS[name], words[words.index(name) + 1 :]
    if rest and _takes_value(command, rest[-1]):
        return _option_values(command, rest[-1])
    if current.startswith("-"):
        return [flag for flag in _flags(command.options) if flag.word not in rest]
    if name == "call":
        agent = next((after for before, after in zip(rest, rest[1:]) if before == "--agent"), "")
        return _call_words(_without_options(command, rest), current, agent)
    return _positional(name, _without_options(command, rest))


def _commands() -> list[Candidate]:
    return [Candidate(name, command.help) for name, command in COMMANDS.items()]


def _flags(options: tuple[Option, ...]) -> list[Candidate]:
    return [
        Candidate(flag, option.help) for option in (HELP, *options) for flag in option.flags if flag.startswith("--")
    ]


def _takes_value(command: Command, word: str) -> bool:
    return any(option.metavar and word in option.flags for option in command.options)


def _option_values(command: Command, flag: str) -> list[Candidate]:
    """The values of an option: agents, clients, or the words that its placeholder lists."""
    if flag == "--client":
        return [Candidate(name, client.title) for name, client in CLIENTS.items() if client.files]
    listed = next(option.metavar for option in command.options if flag in option.flags).split("|")
    words = [Candidate(word) for word in listed if word.islower()] if len(listed) > 1 else []
    return [*_agents(), *words] if flag in ("--agent", "--by") else words


def _without_options(command: Command, words: list[str]) -> list[str]:
    return [
        word
        for before, word in zip(["", *words], words)
        if not word.startswith("-") and not _takes_value(command, before)
    ]


def _positional(name: str, words: list[str]) -> list[Candidate]:
    if name == "tools":
        return _tools_words(words)
    command = COMMANDS[name]
    if len(words) >= len(command.arguments):
        return _flags(command.options)
    argument = command.arguments[len(words)]
    if argument.name == "code":
        return _codes(name)
    return _agents() if argument.name == "agent" else [Candidate(choice) for choice in argument.choices]


def _codes(command: str) -> list[Candidate]:
    """The calls that wait for a person and this command."""
    try:
        waiting = open_tickets().waiting()
    except (sikkerkey_mcp.Error, TicketsUnusable):  # a shell would discard the message; the command shows it
        return []
    return [Candidate(ticket.code, sikkerkey_mcp.clean(ticket.title)) for ticket in waiting if ticket.kind == command]


def _agents() -> list[Candidate]:
    try:
        return _named(matching.agents_here())
    except sikkerkey_mcp.Error:  # a shell would discard the message; whoami and doctor show it
        return []


def _named(things: Sequence[matching.Thing]) -> list[Candidate]:
    """The names that no shell would have to quote, and that no other thing has, then all ids."""
    names = [thing.name for thing in things]
    usable = [thing for thing in things if PLAIN_NAME.fullmatch(thing.name) and names.count(thing.name) == 1]
    by_name = [Candidate(thing.name, thing.id) for thing in usable]
    return by_name + [Candidate(thing.id, sikkerkey_mcp.clean(thing.name, NAME_MAX_CHARACTERS)) for thing in things]


def _tool_candidates() -> list[Candidate]:
    return [Candidate(tool.name, tool.title) for tool in _tools()]


def _tools() -> list[sikkerkey_mcp.Tool]:
    """The tools that `tools` lists: with the reads apart if the environment says so."""
    try:
        split = sikkerkey_options.reads_are_split({})
    except sikkerkey_mcp.Error:  # a shell would discard the message
        split = False
    return sikkerkey_mcp.split_reads(sikkerkey_mcp.TOOLS) if split else list(sikkerkey_mcp.TOOLS)


def _tools_words(words: list[str]) -> list[Candidate]:
    names = words[1:] if words[:1] == ["describe"] else words
    if names:
        return _actions(names[0]) if len(names) == 1 else []
    own = [Candidate("list", "every tool"), Candidate("describe", "one tool, or one action of it")]
    return [*([] if words else own), *_tool_candidates()]


def _actions(tool_name: str) -> list[Candidate]:
    tools = (tool for tool in _tools() if tool.name == tool_name and sikkerkey_mcp.has_actions(tool))
    return [Candidate(action.name, describe(action)) for tool in tools for action in tool.actions]


def _call_words(words: list[str], current: str, agent: str) -> list[Candidate]:
    if not words:
        return _tool_candidates()
    tool = next((tool for tool in _tools() if tool.name == words[0]), None)
    if tool is None:
        return []
    if not sikkerkey_mcp.has_actions(tool):
        return _arguments(tool.actions[0], words[1:], current, agent)
    if len(words) == 1:
        return _actions(tool.name)
    action = next((action for action in tool.actions if action.name == words[1]), None)
    return _arguments(action, words[2:], current, agent) if action else []


def _arguments(action: sikkerkey_mcp.Action, words: list[str], current: str, agent: str) -> list[Candidate]:
    """`key=` for each argument that is not given yet; after `key=`, the values that it may have."""
    key, equals, begun = current.partition("=")
    named = call_names.arguments_by_word(action)
    if equals and key in named:
        begin = f"{key}={begun[: begun.rfind(',') + 1] if named[key].kind == 'ids' else ''}"
        return [Candidate(begin + found.word, found.text) for found in _things(action, named[key], words, agent)]
    if equals:
        arg = next((arg for arg in action.args if arg.name == key), None)
        return [Candidate(f"{key}={value}") for value in _known_values(arg)] if arg else []
    given = {named[word].name if word in named else word for word in (word.partition("=")[0] for word in words)}
    return [Candidate(f"{arg.name}=", describe(arg)) for arg in action.args if arg.name not in given]


def _things(action: sikkerkey_mcp.Action, arg: sikkerkey_mcp.Arg, words: list[str], agent: str) -> list[Candidate]:
    """The names and ids that the vault lists for an argument; none if it does not answer soon."""
    named = call_names.arguments_by_word(action)
    pairs = [(named[key].name, value) for key, _, value in (word.partition("=") for word in words) if key in named]
    projects = {name: value.split(",") if name == "projectIds" else value for name, value in pairs
                if name in ("projectIds", call_names.PROJECT)}  # fmt: skip
    found: list[Candidate] = []

    def look() -> None:
        chosen = matching.choose(agent, matching.agents_here(), "--agent", "agent").id if agent else ""
        listing = call_names.listing_for(action, arg)
        if listing is None:
            return
        with closing(sikkerkey_mcp.AgentConnection(chosen).api()) as api:
            tools = sikkerkey_mcp.VaultTools(lambda: api, sikkerkey_mcp.read_restrictions({}))
            names = call_names.Names(call_names.asking(tools), exactly=False)
            found.extend(_named(names.things(listing, arg, names.resolved(action, projects))))

    def quietly() -> None:
        with suppress(sikkerkey_mcp.Error, ImportError, OSError):  # a shell would discard the message
            look()

    looker = threading.Thread(target=quietly, name="completion", daemon=True)
    looker.start()
    looker.join(ANSWER_MAX_S)
    return list(found)


def _known_values(arg: sikkerkey_mcp.Arg) -> tuple[str, ...]:
    if arg.kind == "boolean":
        return ("true", "false")
    if arg.plaintext:
        return ("-",)
    return arg.choices if arg.kind == "string" else ()


# ---------------------------------------------------------------------------------------------------------------------
# the scripts
# ---------------------------------------------------------------------------------------------------------------------


def command_complete(arguments: list[str]) -> int:
    """`__complete SHELL LINE`: prints the candidates for the end of LINE: word, tab, description."""
    shell, line = [*arguments, "", ""][:2]
    current = "" if line[-1:].isspace() or not line.split()[1:] else line.split()[-1]
    words = _split(line.removesuffix(current))[1:]
    # bash splits words at = and replaces only the last part.
    cut = current.rfind("=") + 1 if shell == "bash" else 0
    for found in candidates(words, current):
        print(f"{found.word[cut:]}\t{found.text}")
    return 0


def _split(line: str) -> list[str]:
    """The words of a line as a shell sees them; if a quotation mark is open, as blanks separate them."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def command_completion(options: argparse.Namespace) -> int:
    """Prints the script for one shell."""
    quote, script = SCRIPTS[options.shell]
    ask = " ".join(quote(word) for word in [sikkerkey_mcp.program()[0], "-I", sikkerkey_mcp.program()[1], "__complete"])
    print(script.replace("ASK", ask).strip())
    return 0


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote_powershell(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


BASH = r"""
_sikkerkey_mcp() {
    local candidate
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        COMPREPLY+=("$candidate")
    done < <(ASK bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${COMPREPLY[0]-} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _sikkerkey_mcp NAMES
""".replace("NAMES", " ".join(NAMES))

ZSH = r"""
_sikkerkey_mcp() {
    local line word text
    local -a closed open
    for line in "${(@f)$(ASK zsh "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}"; do
        word="${line%%$'\t'*}" text="${line#*$'\t'}"
        [[ -n $word ]] || continue
        word="${word//:/\\:}${text:+:$text}"
        if [[ ${line%%$'\t'*} == *= ]]; then open+=("$word"); else closed+=("$word"); fi
    done
    if (( $#closed + $#open == 0 )); then _files; return; fi
    (( $#closed )) && _describe 'sikkerkey-mcp' closed
    (( $#open )) && _describe 'sikkerkey-mcp' open -S ''
}
compdef _sikkerkey_mcp NAMES
""".replace("NAMES", " ".join(NAMES))

FISH = "\n".join(
    [
        "function __sikkerkey_mcp",
        "    ASK fish (commandline -cp) 2>/dev/null",
        "end",
        *(f"complete -c {name} -f -a '(__sikkerkey_mcp)'" for name in NAMES),
        *(f"complete -c {name} -l {option} -r -F" for name in NAMES for option in ("to-file", "file")),
    ]
)

POWERSHELL = r"""
Register-ArgumentCompleter -Native -CommandName NAMES -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $length = $cursorPosition - $commandAst.Extent.StartOffset
    $line = $commandAst.ToString().PadRight($length).Substring(0, $length)
    & ASK powershell $line 2>$null | ForEach-Object {
        $word, $text = $_ -split "`t", 2
        if (-not $text) { $text = $word }
        [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $text)
    }
}
""".replace("NAMES", ", ".join(f"'{name}'" for name in NAMES))

SCRIPTS = {
    "bash": (shlex.quote, BASH),
    "zsh": (shlex.quote, ZSH),
    "fish": (_quote_fish, FISH),
    "powershell": (_quote_powershell, POWERSHELL),
}
