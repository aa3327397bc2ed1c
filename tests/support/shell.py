"""Commands typed in this process, in a process of their own, and by somebody at a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

import pytest

import sikkerkey_mcp
from tests.support.harness import ROOT

COMMAND = (sys.executable, str(ROOT / "sikkerkey_mcp.py"))


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands in this process, as if typed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        try:
            status = sikkerkey_mcp.main(arguments)
        except SystemExit as ended:  # argparse ends by itself
            status = int(ended.code or 0)
        return Ran(status, *self._capsys.readouterr())


def run_process(
    *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a process of its own; `before` stands before it on the command line."""
    return subprocess.run(
        [*before, *COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **(env or {})},
        check=False,
        timeout=20,
    )


def at_terminal(
    words: list[str], typed: bytes, env: dict[str, str], after: tuple[bytes, ...] = (b"token: ", b"Ctrl-C")
) -> bytes:
    """What somebody sees who starts the program in a terminal and types `typed`, once asked, until it ends."""
    keyboard, terminal = os.openpty()
    command = [sys.executable, str(ROOT / "sikkerkey_mcp.py"), *words]
    env = {**os.environ, **env}
    with subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True):
        os.close(terminal)
        shown = b""
        while piece := _typed_on(keyboard):
            shown += piece
            if typed and any(asked in shown for asked in after):
                os.write(keyboard, typed)
                typed = b""
    os.close(keyboard)
    return shown


def _typed_on(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 4096)
    except OSError:  # on Linux a terminal ends with an error once the other end has been closed
        return b""
