"""`completion`: short scripts for bash, zsh and fish, which ask this program what could come next.

Names of agents, machines, projects and others come from the vault in `--dir`, or in the default directory. It is opened
for reading only, and nothing is decrypted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vault.domains import agents
from vault.errors import VaultError
from vault.owner import naming
from vault.owner.console import Output
from vault.owner.parser import CommandLine, Parser
from vault.place import default_directory
from vault.terminal import printable

COMMAND = "__complete"
PROGRAMS = ("sikkerkey-vault", "sikkerkey-vault.pyz")
KINDS = {
    "AGENT": naming.AGENT,
    "MACHINE": naming.MACHINE,
    "PROJECT": naming.PROJECT,
    "PROJECTS": naming.PROJECT,
    "SECRET": naming.SECRET,
    "TRASHED": naming.TRASHED,
    "INVITATION": naming.INVITATION,
    "TICKET": naming.TICKET,
    "TOKEN": naming.TOKEN,
}


class Candidate(NamedTuple):
    """A word that may come next, and its description."""

    word: str
    text: str = ""


def add_all(line: CommandLine) -> None:
    """Declare the command of this module."""
    line.section("Shell")
    command = line.add("completion", _completion, "print the script for completion in a shell", prints=False)
    command.add_argument("shell", choices=tuple(SCRIPTS), help="the shell")


def complete(line: CommandLine, arguments: Sequence[str]) -> int:
    """`__complete SHELL LINE`: print the candidates for the end of LINE: word, tab, description."""
    shell, typed = [*arguments, "", ""][:2]
    words, current = _split(typed)
    for found in candidates(line, words, current):
        word = shlex.quote(found.word) if shell == "bash" else found.word  # the others quote it themselves
        print(f"{word}\t{found.text}")
    return 0


def candidates(line: CommandLine, words: Sequence[str], current: str) -> list[Candidate]:
    """What may replace `current`, the last word of a line; `words` are those between it and the program's name."""
    return [found for found in _possible(line, words, current) if found.word.startswith(current)]


def _split(typed: str) -> tuple[list[str], str]:
    """The words after the program's name, and the one that is being typed."""
    try:
        words = shlex.split(typed)
    except ValueError:  # a quote is open
        words = typed.split()
    words = words[1:]
    return words, "" if typed[-1:].isspace() or not words else words.pop()


def _possible(line: CommandLine, words: Sequence[str], current: str) -> list[Candidate]:
    if not words:
        if current.startswith("-"):
            return [Candidate("--version", "print the version"), Candidate("--help", "show the commands")]
        return [Candidate(name, line.texts[name]) for name in line.commands]
    command, rest = line.commands.get(words[0]), words[1:]
    if command is None:
        return []
    if rest and command.options.get(rest[-1]):
        return _values(command.options[rest[-1]], _directory(rest), current)
    if current.startswith("-"):
        return [Candidate(option) for option in command.options if option not in rest]
    place = len(_positionals(command, rest))
    if place >= len(command.positionals):
        return []
    return _values(command.positionals[place], _directory(rest), current)


def _positionals(command: Parser, words: Sequence[str]) -> list[str]:
    return [
        word
        for before, word in zip(["", *words], words)
        if not word.startswith("-") and not command.options.get(before)
    ]


def _values(value: tuple[str, ...], directory: Path | None, current: str) -> list[Candidate]:
    """Candidates for an option's or an argument's value: its choices, or the things that its metavar names."""
    if len(value) > 1:
        return [Candidate(choice) for choice in value]
    metavar = value[0]
    done = current[: current.rfind(",") + 1]  # the parts of a list that are typed already
    if metavar == "SCOPES":
        return [Candidate(done + scope) for scope in (*agents.SCOPES, "all")]
    kinds = [KINDS[word] for word in metavar.split("|") if word in KINDS]
    prefix = done if metavar == "PROJECTS" else ""
    return [Candidate(prefix + found.word, found.text) for found in _names(kinds, directory)]


def _names(kinds: Sequence[naming.Kind], directory: Path | None) -> list[Candidate]:
    """Names and, where a name is missing or not unique, ids. Empty if the vault cannot be read."""
    if directory is None or not kinds:
        return []
    # A shell would discard an error; the command shows it.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_open_read_only(directory / "vault.db")) as db:
        found = [each for kind in kinds for each in naming.names(db, kind)]
        uses = Counter(each.name for each in found)
        return [
            Candidate(each.name, each.id)
            if each.name and uses[each.name] == 1 and printable(each.name) == each.name
            else Candidate(each.id, printable(each.name))
            for each in found
        ]
    return []


def _open_read_only(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
    db.row_factory = sqlite3.Row
    return db


def _directory(words: Sequence[str]) -> Path | None:
    """The directory of the vault in a line, or the default one."""
    for before, word in zip(words, [*words[1:], ""]):
        if before == "--dir" and word:
            return Path(word).expanduser()
        if before.startswith("--dir="):
            return Path(before.partition("=")[2]).expanduser()
    try:
        return default_directory()
    except VaultError:
        return None


def _completion(options: argparse.Namespace) -> Output:
    quote, script = SCRIPTS[options.shell]
    ask = " ".join(quote(word) for word in (*_started_by(), COMMAND))
    return Output(None, script.replace("ASK", ask).strip())


def _started_by() -> tuple[str, ...]:
    """The command that starts this program again, from any directory."""
    if "sikkerkey_launch" in sys.modules:
        return sys.executable, "-I", os.path.abspath(sys.argv[0])
    return sys.executable, "-m", "vault"


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


BASH = r"""
_sikkerkey_vault() {
    local candidate
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        COMPREPLY+=("$candidate")
    done < <(ASK bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o default -F _sikkerkey_vault NAMES
""".replace("NAMES", " ".join(PROGRAMS))

ZSH = r"""
_sikkerkey_vault() {
    local line word text
    local -a found
    for line in "${(@f)$(ASK zsh "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}"; do
        word="${line%%$'\t'*}" text="${line#*$'\t'}"
        [[ -n $word ]] || continue
        found+=("${word//:/\\:}${text:+:$text}")
    done
    if (( $#found == 0 )); then _files; return; fi
    _describe 'sikkerkey-vault' found
}
compdef _sikkerkey_vault NAMES
""".replace("NAMES", " ".join(PROGRAMS))

FISH = "\n".join(
    [
        "function __sikkerkey_vault",
        "    ASK fish (commandline -cp) 2>/dev/null",
        "end",
        *(f"complete -c {name} -f -a '(__sikkerkey_vault)'" for name in PROGRAMS),
        *(f"complete -c {name} -l {option} -r -F" for name in PROGRAMS for option in ("dir", "file")),
    ]
)

SCRIPTS = {"bash": (shlex.quote, BASH), "zsh": (shlex.quote, ZSH), "fish": (_quote_fish, FISH)}
