"""What comes before the program may run: the archive's description, the platform, the checks of the user's cache.

The program runs from CACHE/PROGRAM-BUILD-PLATFORM, which sikkerkey_unpack fills at the first start. Each start checks
owners and modes: no other user can have written the program, or the bytecode that Python keeps beside it. It checks
sizes and dates too; if a file was cut, changed or removed, everything is unpacked again. This does not stop another
process of the same user, which could replace the archive as well.

Python compiles this file at each start: it imports little, and what only a first start needs is elsewhere.
"""

import json
import os
import stat
import sys
from zipimport import zipimporter

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Every unpacked file has this modification time (2000-01-01), so that a later change shows.
UNPACKED_TIME_S = 946684800


# -- the archive -----------------------------------------------------------------------------------------------------


class File:
    """A file that this platform needs: the directory in the archive, the path below that, the size, the SHA-256."""

    def __init__(self, tree: str, name: str, size: int, digest: str) -> None:
        self.tree, self.name, self.size, self.digest = tree, name, size, digest

    def path(self, directory: str) -> str:
        """Where it is below a directory. Windows loads libraries only by paths with its own separators."""
        return os.path.join(directory, *self.name.split("/"))


class Archive:
    """The archive that runs. Its member archive.json says what each platform needs."""

    def __init__(self, program: str, build: str, loader: zipimporter) -> None:
        """Exits if this platform is not supported."""
        self.program, self.build, self.loader = program, build, loader
        self.path = os.path.abspath(loader.archive)
        described = json.loads(loader.get_data("archive.json"))
        self.main: str = described["main"]
        self.platform = platform_name()
        if self.platform not in described["platforms"]:
            from sikkerkey_refusal import refuse, unsupported  # only if there is something to refuse

            refuse(program, unsupported(program, self.platform, sorted(described["platforms"])))
        self.trees: list[str] = described["platforms"][self.platform]
        self.files = [File(tree, name, *row) for tree in self.trees for name, row in described["files"][tree].items()]
        self.cache = cache_directory(program)
        self.directory = os.path.join(self.cache, f"{program}-{build[:16]}-{self.platform}")
        self.other_places = [place for place in sys.path if place != loader.archive]
        self.cache_failure = ""  # why modules are imported from the archive instead

    def is_unpacked(self) -> bool:
        """Whether the cache has every file, private and as it was unpacked. If so, no other process removes it."""
        try:
            require_private(self.cache, stat.S_IFDIR)
            require_private(self.directory, stat.S_IFDIR)
            lock(self.directory)
            for file in self.files:
                status = require_private(f"{self.directory}/{file.name}", stat.S_IFREG)
                if (status.st_size, int(status.st_mtime)) != (file.size, UNPACKED_TIME_S):
                    return False
        except OSError:
            return False
        return True

    def import_from(self, places: list[str]) -> None:
        """Have Python import the program from these places."""
        sys.pycache_prefix = None  # PYTHONPYCACHEPREFIX could name a directory that others can write to
        sys.path[:] = [*places, *self.other_places]


def platform_name() -> str:
    """The platform's name in the archive, such as linux-x86_64, linux-musl-aarch64 or macos-arm64."""
    if os.name == "nt":
        # Python's own architecture, not the machine's: Windows for ARM runs an amd64 Python.
        return "windows-amd64" if "(AMD64)" in sys.version else "windows-arm64"
    system = "macos" if sys.platform == "darwin" else sys.platform
    if system == "linux":
        try:
            glibc = os.confstr("CS_GNU_LIBC_VERSION")
        except (ValueError, OSError):
            glibc = None
        system = "linux" if glibc else "linux-musl"
    return f"{system}-{os.uname().machine}"


# -- the cache -------------------------------------------------------------------------------------------------------


def cache_directory(program: str) -> str:
    """The user's cache directory for a program; not an absolute path if the system names none."""
    if named := os.environ.get("SIKKERKEY_CACHE_DIR"):
        return named
    if os.name == "nt":
        caches = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        caches = os.path.expanduser("~/Library/Caches")
    else:
        caches = os.environ.get("XDG_CACHE_HOME", "")
        caches = caches if os.path.isabs(caches) else os.path.expanduser("~/.cache")
    return os.path.join(caches, program)


def require_private(path: str, kind: int) -> os.stat_result:
    """Raises OSError if `path` is not of `kind` (stat.S_IF...), or if another user could have written it."""
    # Without HOME and a password entry, expanduser returns the ~ itself: a place in the working directory.
    if not os.path.isabs(path):
        raise OSError(f"{path} is not an absolute path")
    status = os.lstat(path)
    if stat.S_IFMT(status.st_mode) != kind:
        raise OSError(f"{path} is not a {'directory' if kind == stat.S_IFDIR else 'regular file'}")
    # On Windows %LOCALAPPDATA% is the user's own, and st_uid and st_mode say nothing.
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if os.name == "posix" and status.st_mode & 0o022:
        raise PermissionError(f"{path} can be written by others")
    return status


def lock(directory: str, exclusive: bool = False) -> bool:
    """Lock a directory until this process ends; False if that fails. A shared lock keeps it from being removed."""
    if not fcntl:  # Windows renames no directory with a loaded library in it
        return True
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # At 3 or higher: a program that starts without standard streams must find them closed.
            handle = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(opened)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except OSError:
        return False
    return True
