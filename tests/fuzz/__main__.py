"""`python -m tests.fuzz`: runs targets for some seconds each; a failure names its case and ends with status 1."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random

from tests.fuzz import answers, arguments, client_files, identity, process, stdin

Case = Callable[[Random], None]
Target = Callable[[], "AbstractContextManager[Case]"]
TARGETS: dict[str, Target] = {
    "stdin": stdin.target,
    "process": process.target,
    "arguments": arguments.target,
    "answers": answers.target,
    "identity": identity.target,
    "client_files": client_files.target,
}
MEMORY_GROWTH_MAX_MB = 150  # of one target: the largest answer and line are a few MB, held a few times over


def _peak_mb() -> float:
    """The most memory that this process ever had, in MB; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def fuzz(name: str, first: int, seconds: float) -> int:
    """Runs cases from number `first` on, at least one, until the time is over; how many. Failures are raised."""
    number, until_s, before_mb = first, time.monotonic() + seconds, _peak_mb()
    with TARGETS[name]() as case:
        while number == first or time.monotonic() < until_s:
            try:
                case(Random(number))  # noqa: S311 (cases are to be repeatable, not secret)
            except BaseException:
                again = f"make fuzz TARGET={name} CASE={number}"
                print(f"\n{name}: case {number} failed; again: {again}", file=sys.stderr)
                raise
            number += 1
    grown_mb = _peak_mb() - before_mb
    assert grown_mb < MEMORY_GROWTH_MAX_MB, f"{name}: memory grew by {grown_mb:.0f} MB"
    return number - first


def main() -> int:
    """Runs what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), help="one instead of all")
    parser.add_argument("--case", type=int, help="this case alone")
    anywhere = int.from_bytes(os.urandom(6), "big")
    parser.add_argument("--first", type=int, default=anywhere, help="the first case's number")
    options = parser.parse_args()
    for name in [options.target] if options.target else TARGETS:
        first, seconds = (options.first, options.seconds) if options.case is None else (options.case, 0)
        try:
            count = fuzz(name, first, seconds)
        except Exception:
            traceback.print_exc()
            return 1
        print(f"{name}: {count:,} cases from {first}, nothing found, peak {_peak_mb():.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
