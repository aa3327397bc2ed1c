"""Sessions like those of the target `stdin`, sent to a real process through pipes.

The process must exit with status 0, write nothing to stderr, and write valid messages only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.fuzz.mutation import pieces
from tests.fuzz.stdin import stream
from tests.support.harness import TIMEOUT_S
from tests.support.sample_tools import COMMAND
from tests.support.schema_check import check_line


def _feed(process: subprocess.Popen[bytes], parts: list[bytes]) -> tuple[bytes, bytes]:
    """Writes each piece with one call, then reads the output to its end."""
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    for part in parts[:-1]:
        os.write(descriptor, part)
    return process.communicate(parts[-1], TIMEOUT_S)


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Starts a process for each case."""

    def case(rng: Random) -> None:
        pipe, parts = subprocess.PIPE, pieces(rng, stream(rng))
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env={}) as process:
            written, errors = _feed(process, parts)
        assert (process.returncode, errors) == (0, b"")
        for line in written.splitlines(keepends=True):
            check_line(line, {})

    yield case
