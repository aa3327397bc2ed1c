"""How long from spawn until something is answered, as a multiple of a bare interpreter.

Each round times `python3 -I -S -c pass` and every kind of start one after the other, so that whatever else the machine
does falls on all of them. Ratios are of medians.

    .venv/bin/python -m bench.start [PYTHON ...]
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers
from bench.api import Api
from bench.client import FLAGS, INITIALIZE, INITIALIZED, LIST, Home, Server, archive_command, call_line
from bench.spread import spread

ROUNDS = 15
ECHO = "import sys,json\nfor line in sys.stdin: print(json.dumps({'id': json.loads(line)['id']}), flush=True)"
IDLE_S = 0.3  # between tools/list and a first call, as no model is quicker

Measured = dict[str, list[float]]


def interpreters() -> list[str]:
    """One CPython for each minor version from 3.9 on that is found, and the system's own."""
    candidates = [Path("/usr/bin/python3"), *sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))]
    candidates += [Path(place) for minor in range(9, 15) if (place := shutil.which(f"python3.{minor}"))]
    chosen: dict[str, str] = {}
    for python in map(str, candidates):
        if found := version(python):
            chosen.setdefault(found, python)
    return [chosen[found] for found in sorted(chosen, key=lambda text: [int(part) for part in text.split(".")])]


def version(python: str) -> str:
    """Of a CPython that the program runs on; empty for anything else."""
    if not Path(python).exists():
        return ""
    said = subprocess.run([python, "-I", "-S", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.fullmatch(r"Python (3\.(?:9|1[0-4])\.\d+)\n", said)
    return match[1] if match else ""


def bare_s(python: str) -> float:
    """Seconds of an interpreter that does nothing."""
    begin_s = time.perf_counter()
    subprocess.run([python, *FLAGS, "-c", "pass"], check=True)
    return time.perf_counter() - begin_s


def answered_s(command: list[str], env: dict[str, str], *asked: bytes) -> float:
    """Seconds from spawn until the last of these is answered; each is written when the one before it has been."""
    with Server(command, env) as server:
        for data in asked:
            server.ask(data)
        return server.since_spawn_s()


def first_call_s(command: list[str], env: dict[str, str], idle_s: float) -> float:
    """Seconds that the first signed call takes, so long after `tools/list` has been answered."""
    with Server(command, env) as server:
        server.open()
        time.sleep(idle_s)
        begin_s = time.perf_counter()
        server.ask(call_line(5))
        return time.perf_counter() - begin_s


def _cold(home: Home, act: Callable[[], float]) -> float:
    shutil.rmtree(home.env["SIKKERKEY_CACHE_DIR"], ignore_errors=True)
    return act()


def kinds(python: str, home: Home) -> dict[str, Callable[[], float]]:
    """What is timed in each round."""
    command, env, rest = archive_command(python), home.env, INITIALIZED + LIST
    return {
        "bare": lambda: bare_s(python),
        "JSON echo": lambda: answered_s([python, *FLAGS, "-c", ECHO], {}, INITIALIZE),
        "cold, tools/list": lambda: _cold(home, lambda: answered_s(command, env, INITIALIZE, rest)),
        "cold, signed answer": lambda: _cold(home, lambda: answered_s(command, env, INITIALIZE, rest, call_line(5))),
        "initialize": lambda: answered_s(command, env, INITIALIZE),
        "tools/list": lambda: answered_s(command, env, INITIALIZE, rest),
        "signed answer": lambda: answered_s(command, env, INITIALIZE, rest, call_line(5)),
        "first call at once": lambda: first_call_s(command, env, 0),
        "first call": lambda: first_call_s(command, env, IDLE_S),
    }


def measure(python: str, *, with_peers: bool = False, rounds: int = ROUNDS) -> Measured:
    """Seconds of every round, by kind."""
    with Api() as api, Home(api.url) as home:
        timed = kinds(python, home)
        for name, command in peers.found().items() if with_peers else ():
            timed[name] = partial(answered_s, command, {}, INITIALIZE, INITIALIZED + LIST)
        times: Measured = {name: [] for name in timed}
        for _ in range(rounds):
            for name, time_it in timed.items():
                times[name].append(time_it())
    return times


def summary(python: str, times: Measured) -> dict[str, Any]:
    """Milliseconds, and ratios to the median of the bare interpreter."""
    bare = statistics.median(times["bare"])
    return {
        "python": version(python),
        "ms": {name: spread(each, 1e3) for name, each in times.items()},
        "ratio": {name: spread(each, 1 / bare) for name, each in times.items()},
    }


def main() -> None:
    """Prints a line for each interpreter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("python", nargs="*", default=interpreters())
    options = parser.parse_args()
    print(f"{'Python':<8} {'bare ms':>8} {'warm':>6} {'first run':>10} {'first call ms':>14}")
    for python in options.python:
        found = summary(python, measure(python, rounds=options.rounds))
        ratio, ms = found["ratio"], found["ms"]
        figures = (ms["bare"], ratio["tools/list"], ratio["cold, tools/list"], ms["first call"])
        print("{:<8} {:8.1f} {:6.2f} {:10.2f} {:14.1f}".format(found["python"], *(each.median for each in figures)))


if __name__ == "__main__":
    main()
