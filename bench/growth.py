"""Cost against size: number of tools, size of an answer, calls in flight, length of a session; three sizes each."""

from __future__ import annotations

import statistics
import time
from typing import Any

import sikkerkey_mcp as m
from bench.api import Api
from bench.client import Server, call_line, running
from bench.memory import answer_growth, session


def _listing_ms(count: int) -> float:
    """The listing of that many tools, as bytes on the wire; every one has the actions of manage_secrets."""
    row = next(tool for tool in m.TOOLS if tool.name == "manage_secrets")
    tools = tuple(row._replace(name=f"tool_{number}") for number in range(count))
    begin_s = time.perf_counter()
    m.to_json([m.tool_listing(tool) for tool in tools])
    return (time.perf_counter() - begin_s) * 1e3


def tools() -> list[dict[str, Any]]:
    """Milliseconds to list 10, 100 and 1,000 tools; medians of 5."""
    counts = (10, 100, 1_000)
    return [{"tools": count, "ms": statistics.median(_listing_ms(count) for _ in range(5))} for count in counts]


def _burst_ms(server: Server, count: int) -> float:
    begin_s = time.perf_counter()
    server.write(b"".join(call_line(number + 10) for number in range(count)))
    for _ in range(count):
        server.read()
    return (time.perf_counter() - begin_s) * 1e3


def in_flight() -> list[dict[str, Any]]:
    """Milliseconds for bursts of calls at an API that takes 10 ms; medians of 5."""
    with running(Api("--delay-ms", "10")) as server:
        _burst_ms(server, 32)
        return [{"calls": n, "ms": statistics.median(_burst_ms(server, n) for _ in range(5))} for n in (32, 128, 512)]


def longer() -> list[dict[str, Any]]:
    """Milliseconds for the calls of three parts of one session, each four times as long as the one before."""
    lengths, ended, rows = (1_000, 5_000, 21_000), 0, []
    for row in session(lengths)[1:]:
        count = row["calls"] - ended
        rows.append({"calls": count, "ms": row["us_per_call"] * count / 1e3})
        ended = row["calls"]
    return rows


def measure() -> dict[str, list[dict[str, Any]]]:
    """All four."""
    return {"tools": tools(), "answer": answer_growth(), "in flight": in_flight(), "session": longer()}
