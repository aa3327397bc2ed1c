"""First code to run in the archive: refuses a Python that cannot run the rest, else starts the program from its cache.

Python 2.7 and 3.6 must be able to parse this file, so that they say what is wrong instead of showing a traceback. And
as nothing in a zip archive has a bytecode cache, it is compiled at each start: it holds only what comes before the
cache can be read. The rest is in sikkerkey_native, which is compiled once and kept, as the program is.
"""
import sys

# Written here by build_zipapp.py: the program's name, and the sha256 over every other member.
PROGRAM, BUILD = "", ""

NEEDED = "64-bit CPython 3.9.2 or newer, with the GIL, is needed"
REMEDY = "start this file with such a python3 (python.org, or your system's packages)"


def found():
    # type: () -> str
    """What is wrong with this Python, or an empty string."""
    version = "%d.%d.%d" % sys.version_info[:3]
    if sys.version_info < (3, 9, 2):
        return "Python " + version
    if sys.implementation.name != "cpython":
        return sys.implementation.name + " (Python " + version + ")"
    # Windows has no sys.abiflags, and sysconfig costs as much as the whole start; the version text is there everywhere.
    if "free-threading" in sys.version:
        return "a free-threaded build of Python " + version
    if sys.maxsize < 2**32:
        return "a 32-bit build of Python " + version
    return ""


wrong = found()
if wrong:
    told = (PROGRAM, wrong, sys.executable, NEEDED, REMEDY)
    sys.stderr.write("%s: error: %s at %s was found, but %s: %s\n" % told)
    sys.exit(1)

import gc

# All that a start makes stays, and to look through it for garbage over and over takes a fifth of the start.
gc.disable()

import marshal
import os
import stat
from importlib.util import MAGIC_NUMBER, source_hash  # loaded already: Python itself uses it to run an archive
from types import ModuleType
from zipimport import zipimporter

ARCHIVE = os.path.dirname(__file__)


# -- the private directory -------------------------------------------------------------------------------------------
#
# What lies here is executed, so nobody else may have been able to write it. Links are not followed at its last step:
# a link in a directory of ours could lead to a place that another user controls. Parents are the user's affair, as
# they are for ~/.ssh.


def cache_directory():
    # type: () -> str
    """The user's directory for this program; a relative path, which require_directory refuses, where there is none."""
    return os.environ.get("SIKKERKEY_CACHE_DIR") or os.path.join(cache_home(), PROGRAM)


def cache_home():
    # type: () -> str
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return xdg if os.path.isabs(xdg) else os.path.expanduser("~/.cache")


def require_private(status, what):
    # type: (os.stat_result, str) -> None
    # Windows keeps owners and rights elsewhere (%LOCALAPPDATA% is the user's own), and its st_uid is always 0.
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise PermissionError(what + " belongs to another user")
    if os.name == "posix" and status.st_mode & 0o022:
        raise PermissionError(what + " can be written by others")


def require_directory(path):
    # type: (str) -> None
    # Without HOME and a password entry, expanduser returns the ~ itself: a place in the working directory.
    if not os.path.isabs(path):
        raise NotADirectoryError(path + " is not an absolute path")
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(path + " is not a directory")
    require_private(status, path)


def open_private(name):
    # type: (str) -> int
    """Descriptor of a regular file of the cache, at a path with slashes, that only this user could have written."""
    path = cache_directory()
    for part in name.split("/"):
        require_directory(path)
        path = os.path.join(path, part)
    # Without O_NONBLOCK a FIFO put here would stop the start for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(path + " is not a regular file")
        require_private(status, path)
    except OSError:
        os.close(handle)
        raise
    return handle


# -- bytecode --------------------------------------------------------------------------------------------------------


def bytecode_name():
    # type: () -> str
    tag = "%s-%s-%d" % (sys.implementation.cache_tag, MAGIC_NUMBER.hex(), sys.flags.optimize)
    return "bytecode-%s-%s" % (BUILD[:16], tag)


def load_bytecode(codes):
    # type: (dict[str, bytes]) -> None
    """Each module's code is bytes within these bytes: what is not imported costs next to nothing."""
    with open(open_private(bytecode_name()), "rb") as file:
        data = memoryview(file.read())
    # marshal may crash on damaged data, and a machine that lost power leaves such files.
    if source_hash(data[8:]) != data[:8]:
        raise OSError("its checksum is wrong")
    codes.update(marshal.loads(data[8:]))  # noqa: S302 (open_private saw whose it is)


def compiled(name):
    # type: (str) -> bytes
    source = zipimporter(ARCHIVE).get_data(os.path.join(ARCHIVE, name + ".py"))
    # Without the archive's path, because the same bytecode serves wherever the file is moved.
    return marshal.dumps(compile(source, "%s.pyz/%s.py" % (PROGRAM, name), "exec", 0, True))


def start():
    # type: () -> None
    """Run the program; ends the process."""
    codes, report = {}, {}  # type: dict[str, bytes], dict[str, str]
    try:
        load_bytecode(codes)
        report["bytecode"] = os.path.join(cache_directory(), bytecode_name())
    except FileNotFoundError:
        report["bytecode"] = "compiled now, kept for the next start"
    except OSError as error:
        report["bytecode"] = "compiled now: %s" % error
    for name in ("sikkerkey_archive", "sikkerkey_native"):
        module = sys.modules[name] = ModuleType(name)
        codes[name] = codes.get(name) or compiled(name)
        exec(marshal.loads(codes[name]), module.__dict__)  # noqa: S102, S302 (how a module is imported)
    sys.exit(sys.modules["sikkerkey_native"].start(codes, report))


if __name__ == "__main__":
    start()
