"""The record of what an assistant did: one JSON object a line in the agent's slot, and no value among them.

Several servers add to the same file at once: each line is written at once, at the end. A full file gets a name with the
time at which it was full, and the oldest of these are deleted.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from sikkerkey_times import iso_utc

NAME = "activity.jsonl"
FULL_NAME = re.compile(r"activity\.[0-9]{19}\.jsonl")
FILE_MAX_BYTES = 1024 * 1024  # about 5,000 calls
FULL_FILES_MAX = 4
TEXTS = ("time", "client", "tool", "action", "outcome", "person")
MS_MAX = 2**53

Entry = dict[str, Any]


class ActivityLog:
    """Adds entries to the records of agents. A problem is told once, and never raised."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told, self._is_torn = tell, False, False
        self._lock = threading.Lock()

    def add(self, directory: str, now_ms: int, entry: Entry) -> None:
        """Adds one entry to the record in an agent's slot."""
        line = json.dumps({"time": iso_utc(now_ms), **entry}, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            with self._lock:
                self._append(directory, line)
        except OSError as error:
            if not self._told:
                self._told = True
                reason = error.strerror or type(error).__name__
                with suppress(OSError, ValueError):  # nobody reads stderr
                    self._tell(f"sikkerkey-mcp: the activity log cannot be written: {reason}")

    def _append(self, directory: str, line: bytes) -> None:
        descriptor = _open_own(os.path.join(directory, NAME), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size + len(line) > FILE_MAX_BYTES:
                os.close(descriptor)
                descriptor = -1  # Windows renames closed files only
                _set_aside(directory)
                descriptor = _open_own(os.path.join(directory, NAME), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                if os.fstat(descriptor).st_size + len(line) > 2 * FILE_MAX_BYTES:
                    raise OSError(None, "it is full and cannot be renamed")
            line = b"\n" + line if self._is_torn else line
            self._is_torn = os.write(descriptor, line) != len(line)  # the disk is full: a part of the line is there
            if self._is_torn:
                raise OSError(None, "only a part of a line was written")
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _set_aside(directory: str) -> None:
    """Renames the full file, and deletes the oldest ones. Another process may have done so just now."""
    path = os.path.join(directory, NAME)
    full = os.path.join(directory, f"activity.{time.time_ns():019}.jsonl")
    with suppress(OSError):
        if os.lstat(path).st_size > FILE_MAX_BYTES // 2 and not os.path.lexists(full):
            os.rename(path, full)
    for name in _full_files(directory)[:-FULL_FILES_MAX]:
        with suppress(OSError):
            os.unlink(os.path.join(directory, name))


def _full_files(directory: str) -> list[str]:
    """The names of the files that were full, oldest first."""
    return sorted(name for name in os.listdir(directory) if FULL_NAME.fullmatch(name))


def file_names(directory: str) -> list[str]:
    """The names of a record's files, oldest first; none if there is no such directory."""
    try:
        full = _full_files(directory)
    except OSError:
        return []
    return [*full, NAME] if os.path.lexists(os.path.join(directory, NAME)) else full


def _open_own(path: str, flags: int) -> int:
    """Opens a regular file of this user, never through a link, and waits for no FIFO. Raises OSError."""
    flags |= sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))
    descriptor = os.open(path, flags, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (sys.platform != "win32" and found.st_uid != os.getuid()):
        os.close(descriptor)
        raise OSError(None, "it is not a file of this user")
    return descriptor


class Reader:
    """Reads the record in an agent's slot, oldest entries first, and then what is added to it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._read_bytes: dict[int, int] = {}  # by file: how far it was read

    def new_entries(self) -> Iterator[Entry]:
        """The entries since the last call. Lines that are no entry are left out. Raises OSError."""
        before, self._read_bytes = self._read_bytes, {}  # a new file may get the number of a deleted one
        for name in file_names(self._directory):
            try:
                descriptor = _open_own(os.path.join(self._directory, name), os.O_RDONLY)
            except FileNotFoundError:  # renamed or deleted just now
                continue
            with os.fdopen(descriptor, "rb") as file:
                number = os.fstat(descriptor).st_ino
                file.seek(before.get(number, 0))
                data = file.read(2 * FILE_MAX_BYTES)
            whole = data.rfind(b"\n") + 1
            self._read_bytes[number] = before.get(number, 0) + whole
            yield from filter(None, map(_entry, data[:whole].splitlines()))


def _entry(line: bytes) -> Entry | None:
    """The entry in a line, with members of the expected types only; None if there is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("time"), str):
        return None
    ids = found.get("ids")
    listed = ids.items() if isinstance(ids, dict) else ()
    entry: Entry = {name: found[name] for name in TEXTS if isinstance(found.get(name), str)}
    entry["ids"] = {
        name: [each for each in ids if isinstance(each, str)] for name, ids in listed if isinstance(ids, list)
    }
    if type(found.get("ms")) is int and 0 <= found["ms"] <= MS_MAX:
        entry["ms"] = found["ms"]
    return entry
