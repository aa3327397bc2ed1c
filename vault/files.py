"""Private files: the vault's directory, its root key and its locks. POSIX only.

Files that another user could read or replace are refused. The error contains the command that fixes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vault.errors import VaultError
from vault.terminal import printable

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_directory(path: Path) -> None:
    """Create the directory with mode 0700. Raises VaultError if it exists and other users can access it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise _unusable("directory", path, error) from None
    if stat.S_ISLNK(found.st_mode):
        raise VaultError(
            f"directory {quoted(path)} is a symbolic link", f"name the real one: --dir {quoted(path.resolve())}"
        )
    _refuse_others("directory", path, found, "700")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise VaultError(f"directory {quoted(path)} is not writable", f"chmod 700 {quoted(path)}")


def create_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, atomically. File and directory entry are on disk when this returns."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_directory(path.parent)


def read_private(path: Path) -> bytes:
    """The content of a private file. Raises VaultError if another user could read or replace it."""
    with os.fdopen(_open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def check_private(path: Path) -> None:
    """Raise VaultError if another user could read or replace the file.

    The file is not opened: SQLite uses POSIX locks, and closing the file here would drop this process's locks.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise _unusable("file", path, error) from None
    if stat.S_ISLNK(found.st_mode):
        raise _is_link(path)
    _refuse_others("file", path, found, "600")


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an advisory lock. Yields whether it was acquired. The kernel releases it when the process ends."""
    handle = _open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        yield _acquire(handle, wait)
    finally:
        os.close(handle)


def quoted(path: Path) -> str:
    """A path that can be pasted into a shell."""
    return shlex.quote(printable(str(path)))


def _acquire(handle: int, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_private(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _is_link(path) from None
        raise _unusable("file", path, error) from None
    try:
        _refuse_others("file", path, os.fstat(handle), "600")
    except VaultError:
        os.close(handle)
        raise
    return handle


def _refuse_others(what: str, path: Path, found: os.stat_result, mode: str) -> None:
    expected = stat.S_ISDIR(found.st_mode) if what == "directory" else stat.S_ISREG(found.st_mode)
    if not expected:
        raise VaultError(f"{quoted(path)} is not a {what}", "name another directory with --dir")
    if found.st_uid != os.geteuid():
        raise VaultError(f"{what} {quoted(path)} belongs to another user", f"chown {os.geteuid()} {quoted(path)}")
    if found.st_mode & OTHERS:
        raise VaultError(f"{what} {quoted(path)} can be accessed by other users", f"chmod {mode} {quoted(path)}")


def _is_link(path: Path) -> VaultError:
    name, copy = quoted(path), quoted(path.with_name(path.name + ".copy"))
    command = f"cp {name} {copy} && chmod 600 {copy} && mv {copy} {name}"
    return VaultError(f"file {name} is a symbolic link", command)


def _unusable(what: str, path: Path, error: OSError) -> VaultError:
    reason = (error.strerror or "cannot be used").lower()
    return VaultError(f"{what} {quoted(path)} cannot be used: {reason}", "name a directory of your own with --dir")
