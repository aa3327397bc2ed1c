"""The grammar of the command line: commands with their options, errors that suggest what was meant."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, NoReturn

from vault.errors import VaultError
from vault.owner.console import Output, print_error
from vault.terminal import PROGRAM, printable

HELP_OF_COMMANDS = "COMMAND --help shows the options of a command; --version shows the version."

Run = Callable[[argparse.Namespace], "Output | None"]


class Parser(argparse.ArgumentParser):
    """An argument parser with this program's error format. Abbreviated options are not allowed.

    `options` maps each option to what its value is (its choices or metavar; nothing for a switch), and `positionals`
    lists the same for the arguments: for completion, and to suggest what was meant.
    """

    def __init__(self, **settings: Any) -> None:
        self.options: dict[str, tuple[str, ...]] = {}
        self.positionals: list[tuple[str, ...]] = []
        super().__init__(allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an argument, and note what completion can offer for it."""
        takes_value = settings.get("action") in (None, "append")
        value = tuple(settings.get("choices") or (settings.get("metavar") or names[0].lstrip("-").upper(),))
        for name in names:
            if name.startswith("--"):
                self.options[name] = value if takes_value else ()
            elif not name.startswith("-"):
                self.positionals.append(value)
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        self.fail(printable(_in_plain_words(_without_arguments(message))), f"{self.prog} --help")

    def fail(self, message: str, hint: str) -> NoReturn:
        """Print an error and exit with status 2."""
        print_error(VaultError(message, hint))
        sys.exit(2)


class _TopParser(Parser):
    """The parser of the whole line. Its help lists the commands by subject."""

    def __init__(self, line: CommandLine) -> None:
        super().__init__(prog=PROGRAM, description="A local SikkerKey vault.")
        self._line = line

    def format_help(self) -> str:
        width = max(map(len, self._line.commands)) + 4
        columns = max(shutil.get_terminal_size().columns - 2, 60)
        text = [f"usage: {self.prog} COMMAND [options]", "", f"{self.description} {HELP_OF_COMMANDS}"]
        for title, names in self._line.sections.items():
            text += ["", f"{title}:"]
            for name in names:
                head = f"  {name}".ljust(width)
                text.append(textwrap.fill(head + self._line.texts[name], columns, subsequent_indent=" " * width))
        return "\n".join([*text, ""])


class CommandLine:
    """All commands."""

    def __init__(self) -> None:
        self.commands: dict[str, Parser] = {}
        self.sections: dict[str, list[str]] = {}
        self.parser = _TopParser(self)
        self.texts: dict[str, str] = {}
        self._added = self.parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def section(self, title: str) -> None:
        """Start a section of the help."""
        self.sections[title] = []

    def add(self, name: str, run: Run, text: str, *, prints: bool = True, description: str = "") -> Parser:
        """Add a command with the options that all commands share."""
        sentence = description or f"{text[0].upper()}{text[1:]}."
        command = self._added.add_parser(name, help=text, description=sentence)
        command.add_argument(
            "--dir", type=Path, metavar="DIR", help="the vault's directory (default: $SIKKERKEY_VAULT_DIR, or your own)"
        )
        if prints:
            command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run, json=False)
        self.commands[name], self.texts[name] = command, text
        self.sections[next(reversed(self.sections))].append(name)
        return command

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options of a command line. Exits with status 2 for a wrong one."""
        if words and words[0] == "help":
            words = [*words[1:2], "--help"]
        if words and not words[0].startswith("-"):
            self._check_words(words[0], words[1:])
        return self.parser.parse_args(words)

    def _check_words(self, name: str, rest: Iterable[str]) -> None:
        """Suggest a command or an option for an unknown one. argparse would first ask for what is missing."""
        command = self.commands.get(name)
        if command is None:
            self.parser.fail(f"there is no command {printable(name)}", _suggestion(name, self.commands, self.parser))
        for word in rest:
            if word == "--":
                return
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in option and option not in command.options:
                command.fail(f"unknown option {printable(option)}", _suggestion(option, command.options, command))


def add_passphrase_option(command: Parser, option: str = "--passphrase-file", text: str = "the passphrase") -> None:
    """Add an option for a passphrase file. No option takes the passphrase itself."""
    command.add_argument(option, metavar="FILE", help=f"{text}: the first line of a file with mode 0600, or - for"
                         " standard input; without this option, a prompt asks for it")  # fmt: skip


def add_opening(command: Parser) -> None:
    """Add the passphrase option of a command that needs an open vault."""
    add_passphrase_option(command, text="for a vault with a passphrase: the passphrase")


def add_yes(command: Parser) -> None:
    """Add the option of a command that asks before it acts."""
    command.add_argument("--yes", action="store_true", help="do not ask")


def _suggestion(word: str, known: Iterable[str], parser: Parser) -> str:
    near = difflib.get_close_matches(word, list(known), 3)
    return f"did you mean {' or '.join(near)}? {parser.prog} --help" if near else f"{parser.prog} --help"


# What argparse says, and what the error says instead. The first that matches counts.
PLAIN_WORDS = (
    ("the following arguments are required: ([^,]*)", r"\1 is missing"),
    ("the following arguments are required: (.*), (.*)", r"\1 and \2 are missing"),
    ("argument (.*): expected one argument", r"\1 needs a value"),
    ("argument (.*): not allowed with argument (.*)", r"choose one of \1 and \2"),
    ("argument (.*): invalid choice: .* \\(choose from (.*)\\)", r"\1 must be one of: \2"),
    ("argument (.*): ((?:must|takes) .*)", r"\1 \2"),
)


def _in_plain_words(message: str) -> str:
    for pattern, words in PLAIN_WORDS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return re.sub("'([a-z-]+)'", r"\1", found.expand(words))  # older versions of argparse quote choices
    return message


def _without_arguments(message: str) -> str:
    """Remove quoted arguments from an argparse message, because they may contain a passphrase."""
    head, found, rest = message.partition("unrecognized arguments: ")
    if found:
        names = [word.partition("=")[0] for word in rest.split() if word.startswith("--")]
        return f"unknown option {', '.join(names)}" if names else "too many arguments"
    return message.partition("ignored explicit argument")[0] + "takes no value" if "ignored explicit" in head else head
