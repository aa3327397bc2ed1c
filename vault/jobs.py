"""Background jobs of the server. Each job runs about once a second, on its own thread.

A slow job, such as a webhook delivery that waits for DNS, does not delay the others. If a job fails, the log gets the
type of the error but not its message, which may quote a value, and the job runs again at the next tick. The log gets
the same failure again only after the job has succeeded. Jobs find out from the database what is due, so a restart
loses nothing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vault import log
from vault.router import Clock, Job
from vault.store import Store

TICK_S = 1.0
PAUSE_S = 0.002


class JobRunner:
    """Runs jobs while the context is open."""

    def __init__(self, store: Store, clock: Clock, jobs: Iterable[Job]) -> None:
        self._store, self._clock, self._jobs = store, clock, tuple(jobs)
        self._stopped = threading.Event()
        self._logged: dict[Job, str] = {}  # the failure of each job whose last run failed
        self._threads = [threading.Thread(target=self._run, args=(job,), daemon=True) for job in self._jobs]

    def __enter__(self) -> JobRunner:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def tick(self) -> None:
        """Run every job once."""
        for job in self._jobs:
            self._run_once(job)

    def _run_once(self, job: Job) -> None:
        """Run a job, except while the vault is sealed. The job catches up once the vault is unsealed."""
        if self._store.sealed:
            return
        try:
            job(self._transaction, lambda: self._store.keys, self._clock())
            self._logged.pop(job, None)
        except Exception as error:  # a failing job must stop neither itself nor the other jobs
            failure = log.place(error)
            if self._logged.get(job) != failure:
                log.write(f"job {job.__name__}", failure)
            self._logged[job] = failure

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction after which requests that wait for one come first."""
        with self._store.transaction() as db:
            yield db
        self._stopped.wait(PAUSE_S)

    def _run(self, job: Job) -> None:
        while not self._stopped.wait(TICK_S):
            self._run_once(job)
