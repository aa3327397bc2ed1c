"""Shared parts of the owner's commands: options, output and passphrases."""

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
from typing import Any, Callable, NamedTuple, NoReturn, Protocol

from vault import rootkey
from vault.errors import VaultError
from vault.files import quoted, read_private
from vault.router import wall_clock
from vault.schema import open_store
from vault.store import Store
from vault.terminal import PROGRAM, printable


class Output(NamedTuple):
    """The result of a command: the data for `--json`, the text for people, and hints for standard error."""

    data: object
    text: str = ""
    hints: Sequence[str] = ()

    def show(self, *, as_json: bool) -> None:
        """Print results to standard output and hints to standard error."""
        if as_json:
            print(json.dumps(self.data, indent=2))
        elif self.text:
            print(self.text)
        sys.stdout.flush()
        for hint in self.hints:
            print(f"hint: {hint}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """An argument parser with this program's error format. Abbreviated options are not allowed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        print_error(VaultError(printable(_without_arguments(message)), f"{self.prog} --help"))
        sys.exit(2)


Command = Callable[[argparse.Namespace], "Output | None"]


class Commands(Protocol):
    """The subparsers of an argument parser."""

    def add_parser(self, name: str, *, help: str, description: str) -> Parser:
        """Add a command."""


def add_command(commands: Commands, name: str, run: Command, text: str, *, prints: bool = True) -> Parser:
    """Add a command with the options that all commands share."""
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--dir", type=Path, required=True, help="the vault's directory")
    if prints:
        command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run, json=False)
    return command


def add_passphrase_option(command: Parser, option: str = "--passphrase-file", text: str = "the passphrase") -> None:
    """Add an option for a passphrase file. No option takes the passphrase itself."""
    command.add_argument(option, metavar="FILE", help=f"{text}: the first line of a file with mode 0600, or - for"
                         " standard input; without this option, a prompt asks for it")  # fmt: skip


def read_passphrase(source: str | None, prompt: str, *, new: bool = False) -> str:
    """Read a passphrase from a file, from standard input (`-`) or from the terminal without echo. Raises VaultError."""
    if source is None:
        found = _prompt_passphrase(prompt, twice=new)
    elif source == "-":
        found = sys.stdin.readline().rstrip("\r\n")
    else:
        found = _first_line(Path(source))
    if new:
        rootkey.check_passphrase(found)
    return found


def open_existing(directory: Path, *, has_server_lock: bool = False) -> Store:
    """Open an existing vault. Raises VaultError if there is none, so that a mistyped --dir creates nothing."""
    try:
        (directory / "vault.db").lstat()
    except FileNotFoundError:
        hint = f"name another --dir, or create one: {PROGRAM} init --dir DIR"
        raise VaultError(f"there is no vault in {quoted(directory)}", hint) from None
    except OSError:
        pass  # Store raises a better error
    return open_store(directory, has_server_lock=has_server_lock)


@contextlib.contextmanager
def owner_transaction(options: argparse.Namespace, *, opens: bool = False) -> Iterator[sqlite3.Connection]:
    """A transaction on the vault in the options. With `opens`, a passphrase is asked for if the vault has one.

    What grants rights needs an open vault, because the rows that grant them are sealed.
    """
    with open_existing(options.dir) as store:
        if opens and store.sealed:
            store.unseal(wall_clock(), read_passphrase(options.passphrase_file, "Passphrase of the vault"))
        with store.transaction() as db:
            yield db


def print_error(error: VaultError) -> int:
    """Print an error and its hint, and return the exit status."""
    print(f"vault: error: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    return 1


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned columns that are safe to print. Empty without rows."""
    if not rows:
        return ""
    lines = [header, *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def format_time(at_ms: Any) -> str:
    """A time in UTC, or a dash for None."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _without_arguments(message: str) -> str:
    """Remove quoted arguments from an argparse message, because they may contain a passphrase."""
    head, found, rest = message.partition("unrecognized arguments: ")
    if found:
        names = [word.partition("=")[0] for word in rest.split() if word.startswith("--")]
        return f"unknown option {', '.join(names)}" if names else "too many arguments"
    return message.partition("ignored explicit argument")[0] + "takes no value" if "ignored explicit" in head else head


def _prompt_passphrase(prompt: str, *, twice: bool) -> str:
    try:
        with warnings.catch_warnings():
            # Without this, getpass echoes the input if there is no terminal.
            warnings.simplefilter("error", getpass.GetPassWarning)
            found = getpass.getpass(f"{prompt}: ")
            if twice and getpass.getpass(f"{prompt}, again: ") != found:
                raise VaultError("the passphrases differ", "type it again")
    except (getpass.GetPassWarning, EOFError):
        raise VaultError("there is no terminal to ask for the passphrase", "pass it with --passphrase-file -") from None
    return found


def _first_line(path: Path) -> str:
    try:
        return read_private(path).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise VaultError("the passphrase is not UTF-8", "write the file again") from None
