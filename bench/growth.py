"""Cost against size: number of tools, size of an answer, calls in flight, length of a session; three sizes each.

The sizes take turns and the least of each is told: what the machine does besides only ever adds. tests/test_costs.py
holds the same in functions called and bytes allocated, which do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import sikkerkey_mcp
from bench.api import Api
from bench.client import Server, call_line, running
from bench.memory import many
from bench.spread import in_turns, seconds, spread

ROUNDS = 9
BLOCK = 100  # calls of a session


def _least_ms(acts: Mapping[int, Callable[[], object]]) -> dict[int, float]:
    times = in_turns({str(size): act for size, act in acts.items()}, ROUNDS)
    return {size: min(times[str(size)]) * 1e3 for size in acts}


def _listing(tools: tuple[sikkerkey_mcp.Tool, ...]) -> str:
    return sikkerkey_mcp.to_json([sikkerkey_mcp.tool_listing(tool) for tool in tools])


def tools() -> dict[int, float]:
    """Lists as many tools as there are, 4 and 16 times as many; every one has the actions of manage_secrets."""
    row = next(tool for tool in sikkerkey_mcp.TOOLS if tool.name == "manage_secrets")
    counts = [len(sikkerkey_mcp.TOOLS) * times for times in (1, 4, 16)]
    return _least_ms({n: partial(_listing, tuple(row._replace(name=f"tool_{k}") for k in range(n))) for n in counts})


def answers() -> dict[int, float]:
    """Calls with JSON answers of three sizes, each from a server and an API of its own."""
    query = call_line(6, "read_audit", action="query")
    with ExitStack() as stack:
        acts: dict[int, Callable[[], object]] = {}
        for size in (50_000, 500_000, 5_000_000):
            server = stack.enter_context(running(Api("--answer-bytes", str(size))))
            server.ask(query)
            acts[size] = partial(server.ask, query)
        return _least_ms(acts)


def _burst(server: Server, count: int) -> None:
    server.write(b"".join(call_line(number + 10) for number in range(count)))
    for _ in range(count):
        server.read()


def in_flight() -> dict[int, float]:
    """Bursts of calls at an API that takes 10 ms."""
    with running(Api("--delay-ms", "10")) as server:
        _burst(server, 32)
        return _least_ms({count: partial(_burst, server, count) for count in (32, 128, 512)})


def session() -> dict[int, float]:
    """Three parts of one session, each four times as long as the one before; by the lower quartile of its blocks."""
    found = {}
    with running(Api()) as server:
        for count in (1_000, 4_000, 16_000):
            blocks = [seconds(partial(many, server, BLOCK)) for _ in range(count // BLOCK)]
            found[count] = spread(blocks, 1e3).low * len(blocks)
    return found


def measure() -> dict[str, dict[int, float]]:
    """Milliseconds by size, under what is counted."""
    return {"tools listed": tools(), "bytes of an answer": answers(), "calls at once": in_flight(), "calls": session()}
