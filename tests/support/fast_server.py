"""sikkerkey-mcp with shorter time limits, without pauses between attempts, and with names resolved from a file.

TEST_SPEED_FILE names a file that holds two numbers: the time limits of each call are divided by the first one, the
limit for the first byte on a kept connection by the second one. TEST_NAMES names a file of lines `NAME ADDRESS PORT`; a
name that is not in the file cannot be resolved. Who listens on loopback is not looked up, which would take 20 ms for
each connection. Nothing else differs from `sikkerkey-mcp serve`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started by path and isolated, so the repository is not on the import path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sikkerkey_http
import sikkerkey_mcp
import sikkerkey_refusals

COMMAND = (sys.executable, "-I", str(Path(__file__).resolve()))
LIMIT_NAMES = ("EXCHANGE_MAX_S", "CONNECT_MAX_S", "RETRY_MAX_S", "BACKOFF_S")
LIMITS = {name: float(vars(sikkerkey_mcp)[name]) for name in LIMIT_NAMES}


class Clock:
    """Replaces the module `time`: the real time plus the pauses that were skipped."""

    def __init__(self) -> None:
        self.skipped_s = 0.0
        self.sleep = time.sleep

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.skipped_s

    def monotonic(self) -> float:
        """Seconds on a clock that never goes backwards."""
        return time.monotonic() + self.skipped_s


class FastApi(sikkerkey_mcp.Api):
    """Applies the current speed to each call."""

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        speed, kept_speed = map(float, Path(os.environ["TEST_SPEED_FILE"]).read_text().split())
        vars(sikkerkey_mcp).update({name: limit_s / speed for name, limit_s in LIMITS.items()})
        self._connections.limits = self._connections.limits._replace(
            connect_s=sikkerkey_mcp.CONNECT_MAX_S,
            exchange_s=sikkerkey_mcp.EXCHANGE_MAX_S,
            kept_answer_s=sikkerkey_mcp.KEPT_ANSWER_MAX_S / kept_speed,
        )
        return super().send(request, safe=safe, context=context)


def resolve(encoded: bytes, port: int, *_more: Any, **_named: Any) -> list[Any]:
    """Replaces socket.getaddrinfo, so that a name can lead to a vault, to a closed port or nowhere."""
    host = encoded.decode("ascii")
    lines = [line.split() for line in Path(os.environ["TEST_NAMES"]).read_text().splitlines()]
    found = [(address, int(to)) for known, address, to in lines if known in (host, f"{host}:{port}")]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "magpie of the resolver")
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", target) for target in found]


def skip_pauses() -> None:
    """Makes pauses between attempts return immediately and moves the clock instead."""
    clock = Clock()

    def wait(self: sikkerkey_mcp.Cancellation, seconds: float) -> bool:
        clock.skipped_s += seconds
        return self.is_set()

    for module in (sikkerkey_mcp, sikkerkey_http, sikkerkey_refusals):
        vars(module)["time"] = clock
    setattr(sikkerkey_mcp.Cancellation, "wait", wait)  # noqa: B010 (mypy does not allow assigning to a method)


if __name__ == "__main__":
    skip_pauses()
    vars(sikkerkey_mcp)["Api"] = FastApi
    vars(socket)["getaddrinfo"] = resolve
    vars(sikkerkey_http)["_SOCKET_TABLES"] = ()
    sys.exit(sikkerkey_mcp.main([]))
