"""Starts the program in the archive from bytecode that it keeps in a private directory.

Nothing in a zip archive has a bytecode cache: this file is compiled at each start, so it holds only what comes before
its own cache can be read. Everything else is in `sikkerkey_native`, which is compiled once and kept, as the program is.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from binascii import crc32
from importlib.util import MAGIC_NUMBER  # loaded already: Python itself uses it to run an archive
from types import CodeType, ModuleType
from zipimport import zipimporter

from sikkerkey_archive import BUILD, PROGRAM

ARCHIVE = os.path.dirname(__file__)

_report: dict[str, str] = {}


def report() -> dict[str, str]:
    """Which way each part was loaded, for people."""
    return dict(_report)


# -- the private directory -------------------------------------------------------------------------------------------
#
# What lies here is executed, so nobody else may have been able to write it. Links are not followed at its last step:
# a link in a directory of ours could lead to a place that another user controls. Parents are the user's affair, as
# they are for ~/.ssh.


def cache_directory() -> str:
    """The user's directory for this program; a relative path, which require_directory refuses, where there is none."""
    return os.environ.get("SIKKERKEY_CACHE_DIR") or os.path.join(cache_home(), PROGRAM)


def cached(name: str) -> str:
    """Where a file of the cache lies; the name may have directories, set apart by slashes."""
    return os.path.join(cache_directory(), *name.split("/"))


def directories(name: str) -> list[str]:
    """Those that a file of the cache lies in, the cache itself first."""
    below = name.split("/")[:-1]
    return [os.path.join(cache_directory(), *below[:depth]) for depth in range(len(below) + 1)]


def cache_home() -> str:
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return xdg if os.path.isabs(xdg) else os.path.expanduser("~/.cache")


def require_private(status: os.stat_result, what: str) -> None:
    # Windows keeps owners and rights elsewhere (%LOCALAPPDATA% is the user's own), and its st_uid is always 0.
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise PermissionError(f"{what} belongs to another user")
    if os.name == "posix" and status.st_mode & 0o022:
        raise PermissionError(f"{what} can be written by others")


def require_directory(path: str) -> None:
    # Without HOME and a password entry, expanduser returns the ~ itself: a place in the working directory.
    if not os.path.isabs(path):
        raise NotADirectoryError(f"{path} is not an absolute path")
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is not a directory")
    require_private(status, path)


def open_private(name: str) -> int:
    """Descriptor of a regular file of the cache that only this user could have written."""
    for directory in directories(name):
        require_directory(directory)
    path = cached(name)
    # Without O_NONBLOCK a FIFO put here would stop the start for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        require_private(status, path)
    except OSError:
        os.close(handle)
        raise
    return handle


# -- bytecode --------------------------------------------------------------------------------------------------------


def bytecode_name() -> str:
    tag = f"{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"
    return f"bytecode-{BUILD[:16]}-{tag}"


def load_bytecode() -> dict[str, CodeType]:
    with open(open_private(bytecode_name()), "rb") as file:
        data = file.read()
    # marshal may crash on damaged data, and a machine that lost power leaves such files.
    if len(data) < 4 or crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise OSError("its checksum is wrong")
    codes: dict[str, CodeType] = marshal.loads(data[4:])  # noqa: S302 (open_private saw whose it is)
    return codes


def bytecode() -> dict[str, CodeType]:
    """The code of COMPILED by module, or an empty dictionary with the reason reported."""
    try:
        codes = load_bytecode()
        _report["bytecode"] = cached(bytecode_name())
        return codes
    except FileNotFoundError:
        _report["bytecode"] = "compiled now, kept for the next start"
    except OSError as error:
        _report["bytecode"] = f"compiled now: {error}"
    return {}


# -- start -----------------------------------------------------------------------------------------------------------


def start() -> int:
    """Run the program; its exit status."""
    codes = bytecode()
    code = codes.get("sikkerkey_native") or compile_native()
    native = sys.modules["sikkerkey_native"] = ModuleType("sikkerkey_native")
    exec(code, native.__dict__)  # noqa: S102 (how a module is imported)
    status: int = native.start(codes or {"sikkerkey_native": code}, _report)
    return status


def compile_native() -> CodeType:
    source = zipimporter(ARCHIVE).get_data(os.path.join(ARCHIVE, "sikkerkey_native.py"))
    # Without the archive's path, because the same bytecode serves wherever the file is moved.
    code: CodeType = compile(source, f"{PROGRAM}.pyz/sikkerkey_native.py", "exec", 0, True)
    return code
