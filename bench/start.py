"""How long an archive takes from spawn to an answered tools/list, as a multiple of a bare interpreter.

Each round times `python3 -I -S -c pass`, a warm start and a very first start (with an empty cache) one after the other,
so that whatever else the machine does falls on all three. An agent is installed, as it is where people work, and the
warm cache holds the native library, as it does after the first call. Printed are ratios of medians.
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
# Its key is read at the start and used by none of this.
AGENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
IDENTITY = {"agentId": AGENT, "name": "bench", "vaultId": "vault_bench", "apiUrl": "http://127.0.0.1:9"}
LINES = "".join(json.dumps(message) + "\n" for message in OPENING)


def install_agent(home: Path) -> None:
    """A slot as `install` makes it, but for the key."""
    slot = home / ".sikkerkey" / "agents" / AGENT
    slot.mkdir(parents=True, mode=0o700)
    slot.parent.chmod(0o700)
    slot.parent.parent.chmod(0o700)
    for name, text in (("identity.json", json.dumps(IDENTITY)), ("private.pem", "none")):
        (slot / name).write_text(text, encoding="utf-8")
        (slot / name).chmod(0o600)


def bare(python: str) -> float:
    """Seconds of an interpreter that does nothing."""
    begin = time.perf_counter()
    subprocess.run([python, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - begin


def answered(python: str, archive: Path, home: Path, cache: Path) -> float:
    """Seconds until tools/list is answered."""
    environment = {"HOME": str(home), "SIKKERKEY_CACHE_DIR": str(cache)}
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
        home, cache = Path(name) / "home", Path(name) / "cache"
        install_agent(home)
        loading = [python, *FLAGS, str(archive), "--version", "--verbose"]
        subprocess.run(loading, check=True, capture_output=True, env={"SIKKERKEY_CACHE_DIR": str(cache)})
        rounds = []
        for number in range(ROUNDS):
            empty = Path(name) / f"empty-{number}"
            warm, first = (answered(python, archive, home, place) for place in (cache, empty))
            rounds.append((bare(python), warm, first))
            shutil.rmtree(empty, ignore_errors=True)
    base, warm, first = (statistics.median(times) for times in zip(*rounds))
    return base, warm, first


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--archive", type=Path, default=ROOT / "dist" / "sikkerkey-mcp.pyz")
    parser.add_argument("python", nargs="*", default=[sys.executable])
    options = parser.parse_args()
    print(f"{'interpreter':<48} {'bare ms':>8} {'warm':>6} {'first':>6}")
    for python in options.python:
        base, warm, first = measure(python, options.archive)
        print(f"{python:<48} {base * 1000:8.1f} {warm / base:6.2f} {first / base:6.2f}")


if __name__ == "__main__":
    main()
