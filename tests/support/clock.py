"""A clock for calls that wait for a person."""

from __future__ import annotations

NOW_S = 1_900_000_000.0


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s
