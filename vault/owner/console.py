"""Shared parts of the owner's commands: output, questions, passphrases, and the vault that a command uses."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vault import rootkey
from vault.desk import Desk
from vault.errors import VaultError
from vault.files import quoted, read_private
from vault.owner.looks import BOLD, RED, YELLOW, coloured
from vault.place import command_line
from vault.router import wall_clock
from vault.schema import open_store
from vault.store import Store

PROMPT = "Passphrase of the vault"


class Output(NamedTuple):
    """The result of a command: the data for `--json`, the text for people, hints and warnings for standard error."""

    data: object
    text: str = ""
    hints: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def show(self, *, as_json: bool) -> None:
        """Print results to standard output, hints and warnings to standard error."""
        if as_json:
            print(json.dumps(self.data, indent=2))
        elif self.text:
            print(self.text)
        sys.stdout.flush()
        for warning in self.warnings:
            print(f"vault: {coloured('warning', YELLOW, sys.stderr)}: {warning}", file=sys.stderr)
        for hint in self.hints:
            print(f"hint: {hint}", file=sys.stderr)


def print_error(error: VaultError) -> int:
    """Print an error and its hint, and return the exit status."""
    print(f"vault: {coloured('error', RED, sys.stderr)}: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    return 1


# ---- the vault -------------------------------------------------------------------------------------------------------


def open_existing(directory: Path, *, has_server_lock: bool = False) -> Store:
    """Open an existing vault. Raises VaultError if there is none, so that a mistyped --dir creates nothing."""
    if not has_vault(directory):
        hint = f"name another --dir, or create one: {command_line(directory, 'init')}"
        raise VaultError(f"there is no vault in {quoted(directory)}", hint)
    return open_store(directory, has_server_lock=has_server_lock)


def has_vault(directory: Path) -> bool:
    """Whether there is a vault. An `init` that failed, as on a full disk, leaves an empty file, which is none."""
    try:
        return (directory / "vault.db").lstat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Store raises a better error


@contextlib.contextmanager
def owner_transaction(options: argparse.Namespace, *, opens: bool = False) -> Iterator[sqlite3.Connection]:
    """A transaction on the vault in the options. With `opens`, a passphrase is asked for if the vault has one.

    What grants rights needs an open vault, because the rows that grant them are sealed.
    """
    with open_existing(options.dir) as store:
        if opens:
            _unseal(store, options)
        with store.transaction() as db:
            yield db


@contextlib.contextmanager
def owner_desk(options: argparse.Namespace) -> Iterator[Desk]:
    """The API as the owner, on the vault in the options. A passphrase is asked for if the vault has one."""
    with open_existing(options.dir) as store:
        _unseal(store, options)
        yield Desk(store)


def _unseal(store: Store, options: argparse.Namespace) -> None:
    if store.sealed:
        store.unseal(wall_clock(), read_passphrase(options.passphrase_file, PROMPT))


# ---- questions -------------------------------------------------------------------------------------------------------


def is_interactive() -> bool:
    """Whether a person can be asked: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is changed, unless the person said yes already. Raises VaultError for any other answer."""
    if yes:
        return
    if not is_interactive():
        raise VaultError("not a terminal, so this cannot be confirmed", "pass --yes")
    print(f"{coloured(question, BOLD, sys.stderr)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise VaultError("stopped: nothing was changed", "answer y to continue")


def read_hidden(prompt: str, *, twice: bool, what: str, option: str) -> str:
    """Text that is typed without echo. `option` is the way without a terminal. Raises VaultError."""
    try:
        with warnings.catch_warnings():
            # Without this, getpass echoes the input if there is no terminal.
            warnings.simplefilter("error", getpass.GetPassWarning)
            found = getpass.getpass(f"{prompt}: ")
            if twice and getpass.getpass(f"{prompt}, again: ") != found:
                raise VaultError(f"the {what}s differ", "type it again")
    except (getpass.GetPassWarning, EOFError):
        raise VaultError(f"there is no terminal to ask for the {what}", f"pass it with {option}") from None
    return found


def read_passphrase(source: str | None, prompt: str, *, new: bool = False) -> str:
    """Read a passphrase from a file, from standard input (`-`) or from the terminal without echo. Raises VaultError."""
    if source is None:
        found = read_hidden(prompt, twice=new, what="passphrase", option="--passphrase-file -")
    elif source == "-":
        found = sys.stdin.readline().rstrip("\r\n")
    else:
        found = _first_line(Path(source))
    if new:
        rootkey.check_passphrase(found)
    return found


def _first_line(path: Path) -> str:
    try:
        return read_private(path).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise VaultError("the passphrase is not UTF-8", "write the file again") from None
