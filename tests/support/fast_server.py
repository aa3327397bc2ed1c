"""sikkerkey-mcp as a program whose limits are shorter, whose pauses pass at once and whose names come from a file.

The variables TEST_SPEED (limits are divided by it) and TEST_NAMES (a file of lines `NAME ADDRESS PORT`) steer it. A
name that is not in the file cannot be resolved. Nothing else differs from `sikkerkey-mcp serve`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run by its path and isolated, so the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sikkerkey_mcp
import sikkerkey_wire

COMMAND = (sys.executable, "-I", str(Path(__file__).resolve()))
LIMITS = ("REQUEST_MAX_S", "CONNECT_MAX_S", "RETRY_MAX_S", "BACKOFF_S")


class Clock:
    """Stands in for the module `time`: as that, but ahead by the pauses that were skipped."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.sleep = time.sleep

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic() + self.ahead_s


def resolve(name: bytes, port: int, *_more: Any, **_named: Any) -> list[Any]:
    """As socket.getaddrinfo, by the file; so one name can lead to a vault, to a closed door and nowhere, in turn."""
    lines = [line.split() for line in Path(os.environ["TEST_NAMES"]).read_text().splitlines()]
    host = name.decode("ascii")
    found = [(address, int(to)) for known, address, to in lines if known in (host, f"{host}:{port}")]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "magpie of the resolver")
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", target) for target in found]


def hurry(speed: float) -> None:
    """Shortens the limits and lets pauses pass at once."""
    clock = Clock()

    def wait(self: sikkerkey_mcp.Cancellation, seconds: float) -> bool:
        clock.ahead_s += seconds
        return self.is_set()

    vars(sikkerkey_mcp)["time"] = vars(sikkerkey_wire)["time"] = clock
    setattr(sikkerkey_mcp.Cancellation, "wait", wait)  # noqa: B010 (mypy would have methods left alone)
    for name in LIMITS:
        vars(sikkerkey_mcp)[name] /= speed


if __name__ == "__main__":
    hurry(float(os.environ["TEST_SPEED"]))
    vars(socket)["getaddrinfo"] = resolve
    sys.exit(sikkerkey_mcp.main(["serve"]))
