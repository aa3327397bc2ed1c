"""`python -m bench`: measures everything and writes bench/RESULTS.md and bench/results.svg."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import calls, growth, memory, report, start

HERE = Path(__file__).resolve().parent


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def machine() -> str:
    """What it ran on, without the machine's name."""
    ask = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(ask, cwd=HERE, capture_output=True, text=True, check=False)
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{_processor()}, {os.cpu_count()} processors{load}, {platform.system()} {platform.release()}, "
        f"client on Python {platform.python_version()}, commit {commit.stdout.strip()}"
    )


def _starts(rounds: int) -> list[dict[str, object]]:
    pythons, found = start.interpreters(), []
    for python in pythons:
        print(f"start: {python}", file=sys.stderr)
        found.append(start.summary(python, start.measure(python, with_peers=python == pythons[-1], rounds=rounds)))
    return found


def measure(rounds: int) -> report.Results:
    """Everything, in an order that puts the quietest first."""
    results: report.Results = {"date": datetime.date.today().isoformat(), "machine": machine()}
    results["start"] = _starts(rounds)
    steps: dict[str, Callable[[], Any]] = {
        "overhead": calls.overhead, "in a row": calls.in_a_row, "at once": calls.at_once,
        "ping": calls.ping_under_load,
        "beside peers": calls.beside_peers, "handshakes": calls.handshakes,
        "session": memory.session, "session, TLS": memory.session_over_tls,
        "session, first": memory.very_first_session, "memory": memory.by_python,
        "large answers": memory.large_answers, "sizes": memory.sizes, "growth": growth.measure,
    }  # fmt: skip
    for name, step in steps.items():
        print(name, file=sys.stderr)
        results[name] = step()
    return results


def main() -> int:
    """Measures and writes; the exit status is 1 if a bar is not held."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=start.ROUNDS, help="of starts, for each interpreter")
    results = measure(parser.parse_args().rounds)
    (HERE / "RESULTS.md").write_text(report.markdown(results), encoding="utf-8")
    (HERE / "results.svg").write_text(report.svg(results), encoding="utf-8")
    broken = [bar for bar in report.bars(results) if bar.measured > bar.most]
    for bar in broken:
        print(f"not held: {' | '.join(bar.row)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
