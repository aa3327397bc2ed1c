"""Times that are taken in turns, and what is told of them: the median and the quartiles around it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median between quartiles."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float], unit: float = 1.0) -> Spread:
    """Of two values or more, each times `unit`."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low * unit, median * unit, high * unit)


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    begin_s = time.perf_counter()
    act()
    return time.perf_counter() - begin_s


def in_turns(acts: Mapping[str, Callable[[], object]], rounds: int, block: int = 1) -> dict[str, list[float]]:
    """Seconds of each act, `block` times one after the other in each round, so that whatever else goes on hits all."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            times[name] += [seconds(act) for _ in range(block)]
    return times
