"""The server's log: lines on standard error about failures that nobody expected."""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path


def place(error: BaseException) -> str:
    """The type of an error and the line that raised it, but not its message, which may quote a value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def write(where: str, what: str) -> None:
    """Write a line. A log that cannot be written, on a full disk or to a closed pipe, must not stop what goes on."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: standard error is closed
        print(f"vault: error: {where}: {what}", file=sys.stderr, flush=True)
