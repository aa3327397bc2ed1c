"""The same sessions, given to a real process through its pipes.

Held: it ends with status 0 and a silent stderr, every line of output is a valid message, and its memory is bounded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.fixture_tools import COMMAND
from tests.fuzz.mutation import pieces
from tests.fuzz.stdin import stream
from tests.harness import PATIENCE_S
from tests.transcript import check_line

MEMORY_MAX_MB = 120  # the longest line held a few times over


def _feed(process: subprocess.Popen[bytes], parts: list[bytes]) -> bytes:
    """Writes the pieces, one write each, and reads to the end."""
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    for part in parts[:-1]:
        os.write(descriptor, part)
    return process.communicate(parts[-1], PATIENCE_S)[0]


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Starts a process for each case."""

    def case(rng: Random) -> None:
        pipe = subprocess.PIPE
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env={}) as process:
            written = _feed(process, pieces(rng, stream(rng)))
            assert process.stderr is not None
        assert process.returncode == 0
        for line in written.splitlines(keepends=True):
            check_line(line, {})

    yield case
    if sys.platform != "win32":
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
        assert peak_mb < MEMORY_MAX_MB, f"a process took {peak_mb:.0f} MB"
