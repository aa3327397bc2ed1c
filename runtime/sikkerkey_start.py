"""Starts the program from the bytecode in its cache, which is a directory that nobody but the user can have written.

This is compiled at each start, so it holds only what comes before the cache can be read. The rest is in
sikkerkey_native, which is compiled once and kept, as the program is. Not even `from __future__ import annotations`,
which reads a file, stands here.
"""

import gc
import marshal
import os
import stat
import sys
from importlib.util import MAGIC_NUMBER, source_hash  # loaded already: Python itself uses it to run an archive

from __main__ import BUILD, PROGRAM, compiled, imported

# All that a start makes stays, and to look through it for garbage over and over takes a fifth of the start.
gc.disable()

# -- the private directory -------------------------------------------------------------------------------------------
#
# What lies here is executed, so nobody else may have been able to write it. Links are not followed at its last step:
# a link in a directory of ours could lead to a place that another user controls. Parents are the user's affair, as
# they are for ~/.ssh.


def cache_directory() -> str:
    """The user's directory for this program; a relative path, which require_directory refuses, where there is none."""
    return os.environ.get("SIKKERKEY_CACHE_DIR") or os.path.join(cache_home(), PROGRAM)


def cache_home() -> str:
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return xdg if os.path.isabs(xdg) else os.path.expanduser("~/.cache")


def require(kind: int, path: str, status: os.stat_result) -> None:
    """Raises OSError where this is not of `kind`, one of stat.S_IF..., or somebody else could have written it."""
    if stat.S_IFMT(status.st_mode) != kind:
        raise OSError(path + (" is not a directory" if kind == stat.S_IFDIR else " is not a regular file"))
    # Windows keeps owners and rights elsewhere (%LOCALAPPDATA% is the user's own), and its st_uid is always 0.
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise PermissionError(path + " belongs to another user")
    if os.name == "posix" and status.st_mode & 0o022:
        raise PermissionError(path + " can be written by others")


def require_directory(path: str) -> None:
    # Without HOME and a password entry, expanduser returns the ~ itself: a place in the working directory.
    if not os.path.isabs(path):
        raise OSError(path + " is not an absolute path")
    require(stat.S_IFDIR, path, os.lstat(path))


def open_private(name: str) -> int:
    """Descriptor of a regular file of the cache, at a path with slashes, that only this user could have written."""
    path = cache_directory()
    for part in name.split("/"):
        require_directory(path)
        path = os.path.join(path, part)
    # Without O_NONBLOCK a FIFO put here would stop the start for ever.
    flags = [getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]
    handle = os.open(path, os.O_RDONLY | sum(flags))
    try:
        require(stat.S_IFREG, path, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


# -- bytecode --------------------------------------------------------------------------------------------------------


def bytecode_name() -> str:
    return f"bytecode-{BUILD[:16]}-{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"


def kept() -> dict[str, bytes]:
    """Each module's code is bytes within these bytes: what is not imported costs next to nothing. Raises OSError."""
    with open(open_private(bytecode_name()), "rb") as file:
        data = memoryview(file.read())
    # marshal may crash on damaged data, and a machine that lost power leaves such files.
    if source_hash(data[8:]) != data[:8]:
        raise OSError("its checksum is wrong")
    return marshal.loads(data[8:])  # type: ignore[no-any-return]  # noqa: S302 (open_private saw whose it is)


def start() -> int:
    """Run the program; its exit status."""
    try:
        codes, missed = kept(), None
    except OSError as error:
        codes, missed = {}, error
    for name in ("sikkerkey_archive", "sikkerkey_native"):
        imported(name, marshal.loads(codes[name]) if codes else compiled(name))  # noqa: S302 (open_private saw whose it is)
    return sys.modules["sikkerkey_native"].start(codes, missed)  # type: ignore[no-any-return]  # it says so
