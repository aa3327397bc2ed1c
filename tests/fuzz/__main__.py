"""`python -m tests.fuzz` runs each fuzz target for some time; a failure prints its case and exits with status 1."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from random import Random

from tests.fuzz import answers, arguments, client_files, command_line, identity, process, stdin

Case = Callable[[Random], None]
Target = Callable[[], "AbstractContextManager[Case]"]
TARGETS: dict[str, Target] = {
    "stdin": stdin.target,
    "process": process.target,
    "arguments": arguments.target,
    "answers": answers.target,
    "identity": identity.target,
    "client_files": client_files.target,
    "command_line": command_line.target,
}


def fuzz(name: str, numbers: Iterable[int]) -> int:
    """Runs the cases with these numbers and returns how many there were. Raises what a case raises."""
    count = 0
    with TARGETS[name]() as case:
        for number in numbers:
            try:
                case(Random(number))  # noqa: S311 (cases must be repeatable, not secret)
            except BaseException:
                print(f"\n{name}: case {number} failed; repeat: make fuzz TARGET={name} CASE={number}", file=sys.stderr)
                raise
            count += 1
    return count


def numbers_for(seconds: float, first: int) -> Iterable[int]:
    """Numbers from `first` until the time is over, at least one."""
    yield first
    end_s = time.monotonic() + seconds
    for number in itertools.count(first + 1):
        if time.monotonic() >= end_s:
            return
        yield number


def main() -> int:
    """Runs what the command line asks for and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), help="run this target only")
    parser.add_argument("--case", type=int, help="run this case only")
    parser.add_argument(
        "--first", type=int, default=int.from_bytes(os.urandom(6), "big"), help="number of the first case"
    )
    options = parser.parse_args()
    for name in [options.target] if options.target else TARGETS:
        numbers = numbers_for(options.seconds, options.first) if options.case is None else [options.case]
        try:
            count = fuzz(name, numbers)
        except Exception:
            traceback.print_exc()
            return 1
        print(f"{name}: {count:,} cases, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
