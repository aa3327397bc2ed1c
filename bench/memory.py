"""What a session takes: memory as it grows longer, processor time, large answers, and bytes that a model pays for."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.api import Api
from bench.client import INITIALIZE, INITIALIZED, LIST, Home, Server, Tls, archive_command, call_line, running

IN_FLIGHT = 8  # enough to keep the program busy, as few as a client has


def many(server: Server, count: int) -> None:
    """Calls `whoami` that often, some at once."""
    server.write(b"".join(call_line(number) for number in range(10, 10 + IN_FLIGHT)))
    for number in range(count):
        server.read()
        if number + IN_FLIGHT < count:
            server.write(call_line(number + 10 + IN_FLIGHT))


def _memory(server: Server, calls: int) -> dict[str, Any]:
    return {"calls": calls, "rss_mb": server.status_mb("VmRSS"), "peak_mb": server.status_mb("VmHWM")}


def _grow(server: Server, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    rows, done = [_memory(server, 0)], 0
    for length in lengths:
        cpu_s, begin_s = server.cpu_s(), time.perf_counter()
        many(server, length - done)
        per_call_s = (time.perf_counter() - begin_s) / (length - done)
        per_1000_s = (server.cpu_s() - cpu_s) / (length - done) * 1e3
        rows.append({**_memory(server, length), "us_per_call": per_call_s * 1e6, "cpu_s_per_1000": per_1000_s})
        done = length
    return rows


def session(lengths: tuple[int, ...] = (1_000, 10_000)) -> list[dict[str, Any]]:
    """Resident memory in MB, processor seconds and microseconds a call, after so many calls."""
    with running(Api()) as server:
        return _grow(server, lengths)


def very_first_session() -> list[dict[str, Any]]:
    """The same with an empty cache, which costs memory that a process does not give back."""
    with Api() as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        server.open()
        return _grow(server, (1_000, 10_000))


def session_over_tls() -> list[dict[str, Any]]:
    """The same over HTTPS, with the 140 certificates that a public vault needs."""
    with Tls() as tls, running(Api(certificate=tls.chain), **tls.env) as server:
        return _grow(server, (1_000, 10_000))


def _large(request: bytes, *options: str) -> dict[str, Any]:
    with running(Api(*options)) as server:
        server.ask(call_line(5))
        before_mb, begin_s = server.status_mb("VmRSS"), time.perf_counter()
        size_bytes = len(server.ask(request))
        taken_s = time.perf_counter() - begin_s
        return {"ms": taken_s * 1e3, "bytes": size_bytes, "before_mb": before_mb, "peak_mb": server.status_mb("VmHWM")}


def large_answers() -> dict[str, Any]:
    """Time and peak memory of an export of 10,000 rows and of 5 MB of JSON."""
    return {
        "CSV, 10,000 rows": _large(call_line(6, "read_audit", action="export")),
        "JSON, 5 MB": _large(call_line(6, "read_audit", action="query")),
    }


def answer_growth() -> list[dict[str, Any]]:
    """Milliseconds for JSON answers of three sizes."""
    sizes = (50_000, 500_000, 5_000_000)
    query = call_line(6, "read_audit", action="query")
    return [{"bytes": size, "ms": _large(query, "--answer-bytes", str(size))["ms"]} for size in sizes]


def sizes() -> dict[str, int]:
    """Bytes of what is sent to every client, and so to the model."""
    with Api("--answer-bytes", "10000") as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        opening = server.ask(INITIALIZE)
        server.write(INITIALIZED)
        listing = server.ask(LIST)
        whoami = server.ask(call_line(5))
        query = server.ask(call_line(6, "read_audit", action="query"))
        refusal = server.ask(call_line(7, "manage_projects", action="delete"))
    instructions = json.loads(opening)["result"]["instructions"]
    return {
        "initialize": len(opening),
        "instructions": len(instructions.encode()),
        "tools/list": len(listing),
        "whoami, 127 bytes of the vault": len(whoami),
        "audit page, 10,000 bytes of the vault": len(query),
        "refusal of a missing argument": len(refusal),
    }
