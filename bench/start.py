"""Time from starting the archive to an answer, compared with a bare interpreter.

.venv/bin/python -m bench.start [PYTHON ...]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers
from bench.api import Api
from bench.client import FLAGS, Home, Server, archive_command, call_line
from bench.timing import alternate, quartiles, ratios

ROUNDS = 15
PAUSE_S = 0.3  # between tools/list and a first call: no model is faster


def interpreters() -> list[str]:
    """One CPython per version that is installed, the oldest first."""
    candidates = [Path("/usr/bin/python3"), *sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))]
    candidates += [Path(place) for minor in range(9, 16) if (place := shutil.which(f"python3.{minor}"))]
    chosen: dict[str, str] = {}
    for python in map(str, candidates):
        if found := version(python):
            chosen.setdefault(found, python)
    return [chosen[found] for found in sorted(chosen, key=lambda text: [int(part) for part in text.split(".")])]


def version(python: str) -> str:
    """The version of a supported CPython; empty for anything else."""
    if not Path(python).exists():
        return ""
    output = subprocess.run([python, "-I", "-S", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.fullmatch(r"Python (3\.(?:9|1[0-5])\.\d+)\n", output)
    return match[1] if match else ""


def run_bare(python: str) -> None:
    """Runs an interpreter that does nothing."""
    subprocess.run([python, *FLAGS, "-c", "pass"], check=True)


def run_empty(python: str, archive: Path) -> None:
    """Runs an archive that does nothing: no program in one can start sooner."""
    subprocess.run([python, *FLAGS, str(archive)], check=True)


def run_to_listing(command: list[str], env: dict[str, str]) -> None:
    """Starts a server, waits until the tools are listed and kills it."""
    with Server(command, env) as server:
        server.open()


def run_cold(home: Home, command: list[str]) -> None:
    """The same with an empty cache."""
    shutil.rmtree(home.env["SIKKERKEY_CACHE_DIR"], ignore_errors=True)
    run_to_listing(command, home.env)


def first_call_ms(command: list[str], env: dict[str, str], pause_s: float) -> float:
    """How long the first signed call takes, `pause_s` after the tools were listed."""
    with Server(command, env) as server:
        server.open()
        time.sleep(pause_s)
        begin_s = time.perf_counter()
        server.request(call_line(5))
        return (time.perf_counter() - begin_s) * 1e3


def measure(python: str, *, with_peers: bool = False, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds by kind of start, ratios to the bare interpreter, and milliseconds of the first call."""
    command = archive_command(python)
    with Api() as api, Home(api.url) as home:
        empty = home.path / "empty.pyz"
        with zipfile.ZipFile(empty, "w") as archive:
            archive.writestr("__main__.py", "")
        starts: dict[str, Callable[[], object]] = {
            "bare": partial(run_bare, python),
            "empty": partial(run_empty, python, empty),
            "cold": partial(run_cold, home, command),
            "warm": partial(run_to_listing, command, home.env),
        }
        for name, peer in peers.found().items() if with_peers else ():
            starts[name] = partial(run_to_listing, peer, {})
        times = alternate(starts, rounds)
        first = {
            name: quartiles([first_call_ms(command, home.env, pause_s) for _ in range(rounds)])
            for name, pause_s in (("at once", 0.0), ("after a pause", PAUSE_S))
        }
    return {
        "python": version(python),
        "ms": {name: quartiles(each, 1e3) for name, each in times.items()},
        "ratio": ratios(times, "bare"),
        "first call": first,
    }


def main() -> None:
    """Prints a line for each interpreter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("python", nargs="*", default=interpreters())
    options = parser.parse_args()
    print(f"{'Python':<8} {'bare ms':>8} {'empty x':>7} {'warm x':>7} {'cold x':>7} {'first call ms':>14}")
    for python in options.python:
        found = measure(python, rounds=options.rounds)
        ratio, first = found["ratio"], found["first call"]["after a pause"]
        figures = (found["ms"]["bare"], ratio["empty"], ratio["warm"], ratio["cold"], first)
        row = "{:<8} {:8.1f} {:7.2f} {:7.2f} {:7.2f} {:14.1f}"
        print(row.format(found["python"], *(each.median for each in figures)))


if __name__ == "__main__":
    main()
