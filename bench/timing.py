"""Timing: actions measured in alternation, and their medians with quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Quartiles(NamedTuple):
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float], unit: float = 1.0) -> Quartiles:
    """The quartiles of two or more values, each multiplied by `unit`."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(low * unit, median * unit, high * unit)


def seconds(action: Callable[[], object]) -> float:
    """How long one run of `action` takes."""
    begin_s = time.perf_counter()
    action()
    return time.perf_counter() - begin_s


def alternate(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Runs every action once per round, so that other load on the machine affects all of them; seconds by name."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return times


def ratios(times: Mapping[str, Sequence[float]], base: str) -> dict[str, Quartiles]:
    """Each action's time by that of `base` in the same round: a processor that changes its speed affects both."""
    return {name: quartiles([each / bare for each, bare in zip(of, times[base])]) for name, of in times.items()}
