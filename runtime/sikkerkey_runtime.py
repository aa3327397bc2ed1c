"""Starts the program in the archive, and keeps what every start would otherwise make anew in a private directory.

Nothing in a zip archive has a bytecode cache: this file is compiled at each start, so it does only what comes before
its own cache can be read. `sikkerkey_native` and the program are compiled once and kept beside the native library.
build_zipapp.py runs this file too, for platform_name.
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

ARCHIVE = os.path.dirname(__file__)
CACHED = ("sikkerkey_native", "sikkerkey_mcp")

_report: dict[str, str] = {}


def report() -> dict[str, str]:
    """Which way each part was loaded, for people."""
    return dict(_report)


def platform_name() -> str:
    """This platform in the words of the archive, such as linux-x86_64, linux-musl-aarch64, macos-arm64."""
    if os.name == "nt":
        # The Python's own architecture, not the machine's: an amd64 Python runs on Windows for ARM.
        return "windows-amd64" if "(AMD64)" in sys.version else "windows-arm64"
    machine = os.uname().machine
    if sys.platform != "linux":
        return f"{'macos' if sys.platform == 'darwin' else sys.platform}-{machine}"
    return f"linux-{machine}" if has_glibc() else f"linux-musl-{machine}"


def has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


# -- the private directory -------------------------------------------------------------------------------------------
#
# What lies here is executed, so nobody else may have been able to write it. Links are not followed at its last step:
# a link in a directory of ours could lead to a place that another user controls. Parents are the user's affair, as
# they are for ~/.ssh.


def cache_directory() -> str:
    """The user's directory for this program; a relative path, which require_directory refuses, where there is none."""
    return os.environ.get("SIKKERKEY_CACHE_DIR") or os.path.join(cache_home(), "sikkerkey-mcp")


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


def open_private(path: str) -> int:
    """Descriptor of a regular file that only this user could have written."""
    require_directory(os.path.dirname(path))
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


def bytecode_path(build: str) -> str:
    tag = f"{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"
    return os.path.join(cache_directory(), f"bytecode-{build[:16]}-{tag}")


def load_bytecode(path: str) -> dict[str, CodeType]:
    with open(open_private(path), "rb") as file:
        data = file.read()
    # marshal may crash on damaged data, and a machine that lost power leaves such files.
    if len(data) < 4 or crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise OSError("its checksum is wrong")
    codes: dict[str, CodeType] = marshal.loads(data[4:])  # noqa: S302 (open_private saw whose it is)
    return codes


def compile_modules() -> dict[str, CodeType]:
    """Compiled under names without the archive's path, because the same bytecode serves wherever the file is moved."""
    source = zipimporter(ARCHIVE)
    return {
        name: compile(source.get_data(f"{ARCHIVE}{os.sep}{name}.py"), f"sikkerkey-mcp.pyz/{name}.py", "exec", 0, True)
        for name in CACHED
    }


def bytecode(path: str) -> dict[str, CodeType]:
    """The code of CACHED, or an empty dictionary with the reason reported."""
    try:
        codes = load_bytecode(path)
        _report["bytecode"] = path
        return codes
    except FileNotFoundError:
        _report["bytecode"] = "compiled now, kept for the next start"
    except OSError as error:
        _report["bytecode"] = f"compiled now: {error}"
    return {}


def keep_bytecode(path: str, codes: dict[str, CodeType]) -> None:
    """Takes 1 ms, and whatever PYTHONDONTWRITEBYTECODE says: that is about files beside a user's sources."""
    from sikkerkey_native import publish

    data = marshal.dumps(codes)
    try:
        publish(path, crc32(data).to_bytes(4, "big") + data)
    except OSError as error:
        _report["bytecode"] = f"compiled at each start: {error}"


# -- start -----------------------------------------------------------------------------------------------------------


def start() -> int:
    """Run the program; its exit status."""
    # Here, because there is no such module yet while build_zipapp.py runs this file.
    from sikkerkey_archive import BUILD, LIBRARIES

    platform = platform_name()
    _report.update(archive=os.path.abspath(ARCHIVE), build=BUILD, platform=platform)
    if platform not in LIBRARIES:
        sys.stderr.write(
            f"sikkerkey-mcp: error: this machine is {platform}, but the archive is for {', '.join(sorted(LIBRARIES))}: "
            "get the archive for this platform, or run `make zipapp` on it\n"
        )
        return 1
    path = bytecode_path(BUILD)
    kept = bytecode(path)
    codes = kept or compile_modules()
    native = sys.modules["sikkerkey_native"] = ModuleType("sikkerkey_native")
    exec(codes["sikkerkey_native"], native.__dict__)  # noqa: S102 (how a module is imported)
    native.install(platform, codes, _report)
    if not kept:
        keep_bytecode(path, codes)

    import sikkerkey_mcp

    return sikkerkey_mcp.main()
