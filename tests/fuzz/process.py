"""The same sessions, given to a real process through its pipes.

Held: it ends with status 0 and a silent stderr, every line of output is a valid message, and its memory is bounded.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fuzz.mutation import pieces
from tests.fuzz.stdin import stream
from tests.support.harness import TIMEOUT_S
from tests.support.sample_tools import COMMAND
from tests.support.schema_check import check_line

MEMORY_MAX_MB = 120  # the longest line held a few times over


def _feed(process: subprocess.Popen[bytes], parts: list[bytes]) -> tuple[bytes, bytes]:
    """Writes the pieces, one write each, and reads to the end."""
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    for part in parts[:-1]:
        os.write(descriptor, part)
    return process.communicate(parts[-1], TIMEOUT_S)


def _peak_kb(pid: int) -> int:
    """The most that a living process has taken, where the system tells.

    What `wait4` says will not do: it counts the tests' own process, whose size its child had until it was replaced.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Starts a process for each case."""

    def case(rng: Random) -> None:
        pipe, parts, peak_kb = subprocess.PIPE, pieces(rng, stream(rng)), 0
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env={}) as process:
            with ThreadPoolExecutor(1) as worker:
                feeding = worker.submit(_feed, process, parts)
                while not feeding.done():
                    peak_kb = max(peak_kb, _peak_kb(process.pid))
                    time.sleep(0.002)
            written, errors = feeding.result()
        assert (process.returncode, errors) == (0, b"")
        assert peak_kb < MEMORY_MAX_MB * 1024, f"a process took {peak_kb} kB"
        for line in written.splitlines(keepends=True):
            check_line(line, {})

    yield case
