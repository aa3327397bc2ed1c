"""What the serving process does without being asked: one thread that runs every job about once a second.

A job that fails is logged without its words, which may quote a value, and tried again at the next tick; the others go
on. Jobs find out from the database what is due, so a restart loses nothing.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from vault.calls import Clock
from vault.store import Store

TICK_S = 1.0

Job = Callable[[Store, int], None]


class Clockwork:
    """Runs jobs from `start` to `stop`."""

    def __init__(self, store: Store, clock: Clock, jobs: Iterable[Job]) -> None:
        self._store, self._clock, self._jobs = store, clock, tuple(jobs)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clockwork", daemon=True)

    def __enter__(self) -> Clockwork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def tick(self) -> None:
        """Every job once; a sealed vault does nothing, and catches up when it is open again."""
        if self._store.sealed:
            return
        for job in self._jobs:
            try:
                job(self._store, self._clock())
            except Exception as error:  # a mistake in one job must not stop the others, or the next rotation
                _log(job, error)

    def _run(self) -> None:
        while not self._stopped.wait(TICK_S):
            self.tick()


def _log(job: Job, error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    print(f"vault: error: job {job.__name__}: {type(error).__name__} at {where}", file=sys.stderr, flush=True)
