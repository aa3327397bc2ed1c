"""What the owner's commands share: their options, what they print, and how they ask for a passphrase."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn

from vault import rootkey
from vault.errors import VaultError
from vault.files import read_private, shown
from vault.store import Store
from vault.terminal import PROGRAM, printable, table


class Output(NamedTuple):
    """What a command has to say: the object for `--json`, the lines for people, and advice for standard error."""

    data: object
    text: str = ""
    hints: Sequence[str] = ()

    def show(self, *, as_json: bool) -> None:
        """Print it: results on standard output, advice on standard error."""
        if as_json:
            print(json.dumps(self.data, indent=2))
        elif self.text:
            print(self.text)
        sys.stdout.flush()
        for hint in self.hints:
            print(f"hint: {hint}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """argparse with the voice of this program. Abbreviations are out: --passphrase would be taken for a file's name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        complain(VaultError(printable(_unquoted(message)), f"{self.prog} --help"))
        sys.exit(2)


Command = Callable[[argparse.Namespace], "Output | None"]
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


def add(commands: Commands, name: str, run: Command, text: str, *, prints: bool = True) -> Parser:
    """A command with the options that every command has."""
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--dir", type=Path, required=True, help="the vault's directory")
    if prints:
        command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run, json=False)
    return command


def add_passphrase(command: Parser, option: str = "--passphrase-file", text: str = "the passphrase") -> None:
    """An option that names the file with a passphrase; there is none that takes the passphrase itself."""
    command.add_argument(option, metavar="FILE", help=f"{text}: first line of a file of mode 0600, or - for a line of"
                         " standard input; without this it is asked for")  # fmt: skip


def passphrase(source: str | None, prompt: str, *, new: bool = False) -> str:
    """A passphrase from a file, from standard input (`-`) or from the terminal, where nothing is echoed."""
    if source is None:
        found = _asked(prompt, twice=new)
    elif source == "-":
        found = sys.stdin.readline().rstrip("\r\n")
    else:
        found = _first_line(Path(source))
    if new:
        rootkey.check_passphrase(found)
    return found


def existing(directory: Path, *, sole: bool = False) -> Store:
    """The vault of a directory that has one: a mistyped --dir must not make another."""
    try:
        (directory / "vault.db").lstat()
    except FileNotFoundError:
        hint = f"name another --dir, or make one: {PROGRAM} init --dir DIR"
        raise VaultError(f"there is no vault in {shown(directory)}", hint) from None
    except OSError:
        pass  # Store says what is wrong with the directory
    return Store(directory, sole=sole)


@contextlib.contextmanager
def changing(options: argparse.Namespace) -> Iterator[sqlite3.Connection]:
    """One transaction on the vault that the options name."""
    with existing(options.dir) as store, store.transaction() as db:
        yield db


def complain(error: VaultError) -> int:
    """Print what is wrong and what mends it; answers the exit status."""
    print(f"vault: error: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    return 1


def listing(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose cells are safe to print; nothing at all without rows."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    return table([header, *cells]) if cells else ""


def moment(at_ms: Any) -> str:
    """A time as people read it, in UTC; a dash where there is none."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _unquoted(message: str) -> str:
    """argparse quotes what it does not understand, which may be a passphrase that somebody put there: names remain."""
    head, found, rest = message.partition("unrecognized arguments: ")
    if found:
        names = [word.partition("=")[0] for word in rest.split() if word.startswith("--")]
        return f"unknown option {', '.join(names)}" if names else "too many arguments"
    return message.partition("ignored explicit argument")[0] + "takes no value" if "ignored explicit" in head else head


def _asked(prompt: str, *, twice: bool) -> str:
    try:
        with warnings.catch_warnings():
            # getpass would rather echo than fail.
            warnings.simplefilter("error", getpass.GetPassWarning)
            found = getpass.getpass(f"{prompt}: ")
            if twice and getpass.getpass(f"{prompt}, again: ") != found:
                raise VaultError("the two differ", "type it again")
    except (getpass.GetPassWarning, EOFError):
        raise VaultError("there is no terminal to ask for the passphrase", "give it with --passphrase-file -") from None
    return found


def _first_line(path: Path) -> str:
    try:
        return read_private(path).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise VaultError("the passphrase is not UTF-8", "write the file again") from None
