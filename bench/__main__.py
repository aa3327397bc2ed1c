"""`python -m bench`: measures everything, writes bench/RESULTS.md, and exits with status 1 if a bound is missed."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
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
    """The machine, without its name, and the commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{_processor()}, {os.cpu_count()} processors{load}, {platform.system()} {platform.release()}, "
        f"client on Python {platform.python_version()}, commit {commit.stdout.strip()}"
    )


def _starts(rounds: int) -> list[dict[str, object]]:
    pythons = start.interpreters()
    return [start.measure(python, with_peers=python == pythons[-1], rounds=rounds) for python in pythons]


def measure(rounds: int) -> report.Results:
    """Runs every benchmark."""
    results: report.Results = {"date": datetime.date.today().isoformat(), "machine": machine()}
    # fmt: off
    steps: dict[str, Callable[[], Any]] = {
        "start": lambda: _starts(rounds),
        "single call": calls.single, "concurrent calls": calls.concurrent, "ping": calls.ping, "TLS": calls.tls,
        "beside peers": calls.beside_peers,
        "session": memory.session, "session, TLS": memory.session_over_tls, "session, first": memory.first_session,
        "memory": memory.by_python, "faults": memory.faults, "large answers": memory.large_answers,
        "sizes": memory.sizes, "growth": growth.measure,
    }
    # fmt: on
    for name, step in steps.items():
        begin_s = time.monotonic()
        results[name] = step()
        print(f"{name}: {time.monotonic() - begin_s:.0f} s", file=sys.stderr)
    return results


def main() -> int:
    """Measures and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=start.ROUNDS, help="starts of each interpreter")
    results = measure(parser.parse_args().rounds)
    written = HERE / "RESULTS.md"
    kept = report.vault_section(written.read_text(encoding="utf-8"))
    text = report.markdown(results)
    written.write_text(report.with_vault_section(text, kept) if kept else text, encoding="utf-8")
    missed = [bound for bound in report.bounds(results) if not bound.held]
    for bound in missed:
        print(f"missed: {' | '.join(bound.row)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
