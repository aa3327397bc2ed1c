"""Read-only connections beside the store's own one, so that long answers do not delay writers or each other.

SQLite in WAL mode gives each reader a snapshot of what was committed when it began to read. The log can be emptied only
while nobody reads, so the store asks here before it does, and can keep new readers out for a moment.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

MAX_READERS = 8  # concurrently; the next one waits
CLOSE_TIMEOUT_S = 5.0  # for readers that are at work when the store closes


class Readers:
    """A pool of read-only connections. They are opened when they are first needed."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._active = 0
        self._is_closed = self._is_paused = False
        self._of_thread = threading.local()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the database until the end of the block, and cannot change it.

        A thread that is already reading gets another connection immediately: if it waited, readers could wait for each
        other.
        """
        self._enter(waits=self._depth <= 0)
        self._depth += 1
        db = None
        try:
            db = self._idle_or_new()
            db.execute("BEGIN DEFERRED")
            yield db
            db.execute("COMMIT")
            self._idle.append(db)
        except BaseException:
            # The traceback may keep a cursor alive, which would keep the snapshot.
            if db is not None:
                db.close()
            raise
        finally:
            self._depth -= 1
            self._leave()

    @property
    def _depth(self) -> int:
        """How many readers this thread has."""
        return int(getattr(self._of_thread, "depth", 0))

    @_depth.setter
    def _depth(self, depth: int) -> None:
        self._of_thread.depth = depth

    @contextmanager
    def paused(self, timeout_s: float) -> Iterator[bool]:
        """Keep new readers out during the block, after waiting for the present ones. Yields whether all have left."""
        with self._changed:
            self._is_paused = True
            has_left = self._changed.wait_for(lambda: self._active == 0, timeout_s)
        try:
            yield has_left
        finally:
            with self._changed:
                self._is_paused = False
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse new readers, wait for the present ones for a while, and close the connections."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._active == 0, CLOSE_TIMEOUT_S)
            while self._idle:
                self._idle.pop().close()

    def _enter(self, *, waits: bool) -> None:
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._is_closed or (self._active < MAX_READERS and not self._is_paused))
            if self._is_closed:
                raise sqlite3.ProgrammingError("the store is closed")
            self._active += 1

    def _leave(self) -> None:
        with self._changed:
            self._active -= 1
            while self._is_closed and self._idle:
                self._idle.pop().close()
            self._changed.notify_all()

    def _idle_or_new(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()  # the latest one: its cache is warm
        except IndexError:
            return self._connect()
