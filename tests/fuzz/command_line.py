"""Fuzzes the command line with slightly damaged commands.

Properties: a command exits with 0, 1 or 2 and explains errors; values after `key=` and possible tokens are never
repeated; and completion prints only candidates that begin with the typed text.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from unittest import mock

import sikkerkey_mcp
from sikkerkey_cli.__main__ import main
from sikkerkey_cli.grammar import COMMANDS
from tests.support.table_calls import MARK, ROWS

TOKEN = "5eC7" * 16
SHELLS = ("bash", "zsh", "fish", "powershell")
OPTIONS = (
    "--json",
    "--table",
    "--yes",
    "--help",
    "--agent",
    "-o",
    "--to-file",
    "--overwrite",
    "--bogus",
    "--",
    "-",
    "-x",
    "",
)
STRANGE = ("", "=", "@", "@@", "-", "@/", "[", "[1,", "{", '"', "\x1b[2J", "\u202e", "\udcff", "9" * 5_000, "[" * 2_000)
NAMES = [name for name in COMMANDS if name not in ("serve", "doctor")]  # these two take long


def words(rng: Random) -> list[str]:
    """A random command line, without the program's name."""
    if rng.random() < 0.5:
        row = rng.choice(ROWS)
        typed = ["call", row.tool.name, row.action.name, *(_pair(rng, arg.name) for arg in row.action.args)]
    else:
        typed = rng.choice((["install", TOKEN], [rng.choice(NAMES), rng.choice(("list", "cursor", "zsh", "x"))]))
    for _ in range(rng.choice((0, 0, 1, 2))):
        typed.insert(rng.randrange(1, len(typed) + 1), rng.choice((*OPTIONS, *STRANGE)))
    return typed[: rng.choice((len(typed), len(typed), rng.randrange(len(typed)) + 1))]


def _pair(rng: Random, name: str) -> str:
    return f"{name}={rng.choice((MARK, MARK, f'[{MARK}', '@' + MARK, *STRANGE))}"


def check_command(typed: list[str]) -> None:
    """Runs it without an installed agent, so that nothing is sent."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(typed)
        except SystemExit as ended:  # by argparse
            status = int(ended.code or 0)
    assert status in (0, 1, 2), status
    assert status == 0 or "error: " in err.getvalue(), err.getvalue()
    shown = out.getvalue() + err.getvalue()
    assert not re.search(f"{MARK}|{TOKEN}", shown), typed


def check_completion(rng: Random, typed: list[str]) -> None:
    """Completes the line as a shell would."""
    out, shell, line = io.StringIO(), rng.choice(SHELLS), " ".join(["sikkerkey-mcp", *typed])
    with contextlib.redirect_stdout(out):
        assert main(["__complete", shell, line]) == 0
    last = "" if line[-1:].isspace() else line.split()[-1]
    begun = last[last.rfind("=") + 1 :] if shell == "bash" else last
    if len(line.split()) > 1:
        assert all(found.startswith(begun) and "\t" in found for found in out.getvalue().splitlines()), line


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Fuzzes in an empty home."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"HOME": directory, "PATH": os.environ["PATH"], "SIKKERKEY_API_URL": "http://127.0.0.1:1"}

        def case(rng: Random) -> None:
            typed = words(rng)
            with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(MARK.encode()), "utf-8")):
                check_command(typed)
            check_completion(rng, typed)

        patience = mock.patch.object(sikkerkey_mcp, "BACKOFF_S", 0.0)
        with mock.patch.dict(os.environ, environment, clear=True), patience:
            before = os.getcwd()
            os.chdir(directory)
            try:
                yield case
            finally:
                os.chdir(before)
