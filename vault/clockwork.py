"""What the serving process does without being asked: every job about once a second, each on a thread of its own.

So a name that takes long to be looked up for a webhook delays no rotation. A job that fails is logged without its
words, which may quote a value, and tried again at the next tick. Jobs find out from the database what is due, so a
restart loses nothing.
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
        self._threads = [threading.Thread(target=self._run, args=(job,), daemon=True) for job in self._jobs]

    def __enter__(self) -> Clockwork:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def tick(self) -> None:
        """Every job once."""
        for job in self._jobs:
            self._carry_out(job)

    def _carry_out(self, job: Job) -> None:
        """A sealed vault does nothing, and catches up when it is open again."""
        if self._store.sealed:
            return
        try:
            job(self._store, self._clock())
        except Exception as error:  # a mistake in a job must not stop its next run, or another job's
            _log(job, error)

    def _run(self, job: Job) -> None:
        while not self._stopped.wait(TICK_S):
            self._carry_out(job)


def _log(job: Job, error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    print(f"vault: error: job {job.__name__}: {type(error).__name__} at {where}", file=sys.stderr, flush=True)
