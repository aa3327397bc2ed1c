"""Completion for bash, zsh, fish and PowerShell: four short scripts that ask this program what could come next.

The words are those of the parser and of the dispatch table; agents are those of the home. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import shlex
from typing import NamedTuple

import sikkerkey_cli as cli
import sikkerkey_mcp as mcp
from sikkerkey_call import in_words

NAMES = ("sikkerkey-mcp", "sikkerkey-mcp.pyz")


class Candidate(NamedTuple):
    """A word that could stand there, and what it means."""

    word: str
    text: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# what could come next
# ---------------------------------------------------------------------------------------------------------------------


def candidates(words: list[str], current: str) -> list[Candidate]:
    """What could stand in the place of `current`, behind the words that follow the program's name."""
    return [found for found in _possible(words, current) if found.word.startswith(current)]


def _possible(words: list[str], current: str) -> list[Candidate]:
    root = cli.parser(words)
    command = next((word for word in words if not word.startswith("-")), "")
    commands = _commands(root)
    if not command:
        return _options(root) if current.startswith("-") else [Candidate(*item) for item in _command_texts(root)]
    if command not in commands:
        return []
    grammar, behind = commands[command], words[words.index(command) + 1 :]
    waiting = _waits_for_value(grammar, behind)
    if waiting is not None:
        return _values(waiting, [])
    if current.startswith("-"):
        return [option for option in _options(grammar) if option.word not in behind]
    return _positional(command, grammar, _without_options(grammar, behind), current)


def _commands(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = _subparsers(root).choices
    return found


def _subparsers(root: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return next(action for action in root._actions if isinstance(action, argparse._SubParsersAction))


def _command_texts(root: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [(action.dest, action.help or "") for action in _subparsers(root)._choices_actions]


def _options(grammar: argparse.ArgumentParser) -> list[Candidate]:
    return [
        Candidate(word, action.help or "")
        for action in grammar._actions
        for word in action.option_strings
        if word.startswith("--")
    ]


def _option(grammar: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    return next((action for action in grammar._actions if word in action.option_strings), None)


def _waits_for_value(grammar: argparse.ArgumentParser, words: list[str]) -> argparse.Action | None:
    option = _option(grammar, words[-1]) if words else None
    return option if option is not None and option.nargs is None else None


def _without_options(grammar: argparse.ArgumentParser, words: list[str]) -> list[str]:
    return [
        word
        for before, word in zip(["", *words], words)
        if not word.startswith("-") and _waits_for_value(grammar, [before]) is None
    ]


def _positional(command: str, grammar: argparse.ArgumentParser, words: list[str], current: str) -> list[Candidate]:
    if command == "call":
        return _call_words(words, current)
    if command == "tools":
        return _tools_words(words)
    places = [action for action in grammar._actions if not action.option_strings]
    return _values(places[len(words)], words) if len(words) < len(places) else _options(grammar)


def _values(place: argparse.Action, _words: list[str]) -> list[Candidate]:
    """What an option or a place takes: its choices, or agents where it is one."""
    if place.choices is not None:
        return [Candidate(str(choice)) for choice in place.choices]
    return _agents() if place.dest in ("agent", "by") else []


def _agents() -> list[Candidate]:
    try:
        return [Candidate(agent) for agent in mcp.slots()]
    except mcp.Error:  # whoami and doctor say what is wrong there; here, there is nobody to tell
        return []


def _tool_candidates() -> list[Candidate]:
    return [Candidate(tool.name, tool.title) for tool in mcp.TOOLS]


def _tools_words(words: list[str]) -> list[Candidate]:
    if not words:
        return [Candidate("list", "every tool"), Candidate("describe", "one tool, or one action of it")]
    if words[0] != "describe" or len(words) > 2:
        return []
    return _tool_candidates() if len(words) == 1 else _actions(words[1])


def _actions(tool_name: str) -> list[Candidate]:
    tools = (tool for tool in mcp.TOOLS if tool.name == tool_name and mcp.takes_action(tool))
    return [Candidate(action.name, in_words(action)) for tool in tools for action in tool.actions]


def _call_words(words: list[str], current: str) -> list[Candidate]:
    if not words:
        return _tool_candidates()
    tool = next((tool for tool in mcp.TOOLS if tool.name == words[0]), None)
    if tool is None:
        return []
    if not mcp.takes_action(tool):
        return _arguments(tool.actions[0], words[1:], current)
    if len(words) == 1:
        return _actions(tool.name)
    action = next((action for action in tool.actions if action.name == words[1]), None)
    return _arguments(action, words[2:], current) if action else []


def _arguments(action: mcp.Action, words: list[str], current: str) -> list[Candidate]:
    """`key=` for arguments that are not there yet; behind a `key=`, the values that it may have."""
    key, equals, _ = current.partition("=")
    if equals:
        arg = next((arg for arg in action.args if arg.name == key), None)
        return [Candidate(f"{key}={value}") for value in _known_values(arg)] if arg else []
    given = {word.partition("=")[0] for word in words}
    return [Candidate(f"{arg.name}=", in_words(arg)) for arg in action.args if arg.name not in given]


def _known_values(arg: mcp.Arg) -> tuple[str, ...]:
    if arg.kind == "boolean":
        return ("true", "false")
    if arg.plaintext:
        return ("-",)
    return arg.choices if arg.kind == "string" else ()


# ---------------------------------------------------------------------------------------------------------------------
# the scripts
# ---------------------------------------------------------------------------------------------------------------------


def command_complete(arguments: list[str]) -> int:
    """`__complete SHELL LINE`: candidates for the end of LINE, one a line, a tab before what it means."""
    shell, line = [*arguments, "", ""][:2]
    words = line.split()[1:]
    current = "" if line[-1:].isspace() or not words else words.pop()
    # bash takes words apart at = and puts what it gets in the place of the last part.
    cut = current.rfind("=") + 1 if shell == "bash" else 0
    for found in candidates(words, current):
        print(f"{found.word[cut:]}\t{found.text}")
    return 0


def command_completion(options: argparse.Namespace) -> int:
    """Prints the script for one shell."""
    quote, script = SCRIPTS[options.shell]
    ask = " ".join(quote(word) for word in [mcp.program()[0], "-I", mcp.program()[1], "__complete"])
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
        *(f"complete -c {name} -l output -r -F" for name in NAMES),  # all else takes no files
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
