"""Cost against size: the size of an answer, the number of concurrent calls.

The sizes alternate and the smallest time of each counts: other load on the machine only adds time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from bench.api import Api
from bench.client import call_line, running
from bench.timing import alternate

ROUNDS = 9


def _smallest_ms(actions: Mapping[int, Callable[[], object]]) -> dict[int, float]:
    times = alternate({str(size): action for size, action in actions.items()}, ROUNDS)
    return {size: min(times[str(size)]) * 1e3 for size in actions}


def answers() -> dict[int, float]:
    """Calls with JSON answers of three sizes, each from a separate server and stub."""
    query = call_line(6, "read_audit", action="query")
    with ExitStack() as stack:
        actions: dict[int, Callable[[], object]] = {}
        for size in (50_000, 500_000, 5_000_000):
            api = stack.enter_context(Api("--answer-bytes", str(size)))
            server = stack.enter_context(running(api.url))
            server.request(query)
            actions[size] = partial(server.request, query)
        return _smallest_ms(actions)


def concurrent_calls() -> dict[int, float]:
    """Calls that wait for an API that takes 10 ms."""
    with Api("--delay-ms", "10") as api, running(api.url) as server:
        server.calls(32)
        return _smallest_ms({count: partial(server.calls, count) for count in (32, 128, 512)})


def measure() -> dict[str, dict[int, float]]:
    """Milliseconds by size, for each unit."""
    return {"bytes of an answer": answers(), "concurrent calls": concurrent_calls()}
