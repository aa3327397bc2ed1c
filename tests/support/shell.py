"""Runs commands in this process, as a child process, and at a terminal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from sikkerkey_cli.__main__ import main
from tests.support.harness import ROOT, TIMEOUT_S

PROGRAM = str(ROOT / "sikkerkey_cli" / "__main__.py")
COMMAND = (sys.executable, PROGRAM)


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as ended:  # by argparse
            status = int(ended.code or 0)
        return Ran(status, *self._capsys.readouterr())


def run_process(
    *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a child process; `before` is a command that runs it."""
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
    """The output of the program in a terminal where `typed` is entered as soon as one of `after` is shown."""
    keyboard, terminal = os.openpty()
    env = {**os.environ, **env}
    with subprocess.Popen(
        [*COMMAND, *words], env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ):
        os.close(terminal)
        shown = b""
        while piece := _read(keyboard):
            shown += piece
            if typed and any(asked in shown for asked in after):
                os.write(keyboard, typed)
                typed = b""
    os.close(keyboard)
    return shown


class Talk(NamedTuple):
    """How a command at a terminal ended, and all that the terminal showed."""

    status: int
    shown: str


class Terminal:
    """A command at a terminal, with a person who waits for words and then types. `end` must be called."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._keyboard, terminal = os.openpty()
        self._shown = b""
        self._process = subprocess.Popen(
            command, env={**os.environ, **env}, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)

    def type(self, after: str, keys: str | bytes) -> None:
        """Types `keys` as soon as `after` is shown."""
        self._wait_for(after)
        os.write(self._keyboard, keys.encode() if isinstance(keys, str) else keys)

    def interrupt(self, after: str) -> None:
        """Sends what Ctrl-C sends, as soon as `after` is shown."""
        self._wait_for(after)
        self._process.send_signal(signal.SIGINT)

    def _wait_for(self, after: str) -> None:
        while after.encode() not in self._shown and (piece := _read(self._keyboard)):
            self._shown += piece
        assert after.encode() in self._shown, self._shown

    def end(self) -> Talk:
        """Waits until the command ends."""
        while piece := _read(self._keyboard):
            self._shown += piece
        os.close(self._keyboard)
        return Talk(self._process.wait(TIMEOUT_S), self._shown.decode())


def _read(keyboard: int) -> bytes:
    """What the terminal shows next, or nothing at its end. A program that waits for ever fails the test."""
    assert select.select([keyboard], [], [], TIMEOUT_S)[0], "the terminal shows nothing more"
    try:
        return os.read(keyboard, 4096)
    except OSError:  # on Linux, reading fails after the other end was closed
        return b""
