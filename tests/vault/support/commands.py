"""Runs the owner's commands in this process, because starting a process for each takes 0.3 s."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from vault.owner.cli import main


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run_command(directory: Path, command: str, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a command; `typed` is its standard input."""
    return run_line([command, "--dir", str(directory), *arguments], io.StringIO(typed), io.StringIO())


def run_line(line: Sequence[str], stdin: io.StringIO, stdout: io.StringIO) -> tuple[int, str, str]:
    """The same for a whole command line. Standard error is of the same kind as standard output."""
    stderr = type(stdout)()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "stdin", stdin),
    ):
        try:
            status = main(line)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, stdout.getvalue(), stderr.getvalue()


def run_on_terminal(
    directory: Path,
    *line: str,
    typed: str = "",
    hidden: Sequence[str] = (),
    columns: int = 200,
    no_color: str = "1",
) -> tuple[int, str, str]:
    """The same on a terminal of this width. `hidden` are the answers to prompts without echo."""
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(columns), "NO_COLOR": no_color}),
        mock.patch.object(getpass, "getpass", side_effect=hidden) as asked,
    ):
        ran = run_line([line[0], "--dir", str(directory), *line[1:]], Terminal(typed), Terminal())
    assert asked.call_count == len(hidden), "a prompt was not shown"
    return ran
