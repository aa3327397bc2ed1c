"""How long an archive takes from spawn to an answered tools/list, as a multiple of a bare interpreter.

Each round times `python3 -I -S -c pass`, a warm start and a very first start (with an empty cache) one after the other,
so that whatever else the machine does falls on all three. Printed are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 15
FLAGS = ["-I", "-S"]  # as the bare interpreter has them: what `site` costs is not ours
OPENING: list[dict[str, object]] = [
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        },
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
]
LINES = "".join(json.dumps(message) + "\n" for message in OPENING)


def bare(python: str) -> float:
    """Seconds of an interpreter that does nothing."""
    begin = time.perf_counter()
    subprocess.run([python, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - begin


def answered(python: str, archive: Path, cache: Path) -> float:
    """Seconds until tools/list is answered."""
    environment = {"HOME": str(cache), "SIKKERKEY_CACHE_DIR": str(cache)}
    pipe = subprocess.PIPE
    begin = time.perf_counter()
    command = [python, *FLAGS, str(archive)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, env=environment, text=True) as process:
        if process.stdin is None or process.stdout is None:
            sys.exit("there are no pipes")
        process.stdin.write(LINES)
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("id") != 2:
            continue
        taken = time.perf_counter() - begin
        process.stdin.close()
    return taken


def measure(python: str, archive: Path) -> tuple[float, float, float]:
    """Medians in seconds: bare, warm, first."""
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        answered(python, archive, cache)
        rounds = []
        for number in range(ROUNDS):
            empty = Path(name) / f"empty-{number}"
            rounds.append((bare(python), answered(python, archive, cache), answered(python, archive, empty)))
            shutil.rmtree(empty, ignore_errors=True)
    first, warm, cold = (statistics.median(times) for times in zip(*rounds))
    return first, warm, cold


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--archive", type=Path, default=ROOT / "dist" / "sikkerkey-mcp.pyz")
    parser.add_argument("python", nargs="*", default=[sys.executable])
    options = parser.parse_args()
    print(f"{'interpreter':<48} {'bare ms':>8} {'warm':>6} {'first':>6}")
    for python in options.python:
        base, warm, cold = measure(python, options.archive)
        print(f"{python:<48} {base * 1000:8.1f} {warm / base:6.2f} {cold / base:6.2f}")


if __name__ == "__main__":
    main()
