"""Runs the program as ordinary Python files, and loads the native library of cryptography when it is first imported.

The library is checked by SHA-256 before it is loaded, because a damaged one crashes the process. Where there is no
usable cache, Python imports the modules from the archive, and the library comes from memory or a temporary file.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import NoReturn

from sikkerkey_runtime import Archive

# A process that has not loaded the library after this time, in seconds, never will.
LEFT_S = 60.0
RUST = "cryptography.hazmat.bindings._rust"

_report: dict[str, str] = {}


def report() -> dict[str, str]:
    """How each part was loaded, for people. Keys: library, bytecode, archive, build, platform."""
    return dict(_report)


def run(archive: Archive) -> int:
    """Run the program; its exit status."""
    _report.update(library="not loaded yet", archive=archive.path, build=archive.build, platform=archive.platform)
    sys.meta_path.insert(0, Library(archive))
    name, _, function = archive.main.partition(":")
    may_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # `nohup` and `&` ignore Ctrl-C
    if may_interrupt:
        signal.signal(signal.SIGINT, end_quietly)
    main = import_module(name)
    _report["bytecode"] = bytecode(archive, main)
    if may_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status: int = getattr(main, function)()
    if may_interrupt:
        signal.signal(signal.SIGINT, end_quietly)
    return status


def end_quietly(*_signal: object) -> NoReturn:
    """Ends the process for Ctrl-C while Python imports modules or exits.

    An import may turn a KeyboardInterrupt into another error, and both may print it and go on.
    """
    if os.isatty(2):
        os.write(2, b"\n")  # the shell's prompt begins on a line of its own
    os._exit(130)


def bytecode(archive: Archive, main: ModuleType) -> str:
    """Where Python keeps the bytecode of a module, or why it compiles it at each start."""
    kept = main.__spec__ and main.__spec__.cached
    if kept and os.path.exists(kept):
        return kept
    unwanted = "PYTHONDONTWRITEBYTECODE or -B is set" if sys.dont_write_bytecode else f"{kept} cannot be written"
    return f"compiled at each start: {archive.cache_failure or unwanted}"


class Library:
    """Importer of cryptography's native module: from the cache after a check, else from memory or a temporary file."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        # On musl a second library follows, which the first one loads from its place relative to it.
        self.files = [file for file in archive.files if file.tree.startswith("native/")]

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == RUST else None  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        """Raises ImportError, which says what was tried."""
        if len(self.files) > 1 and (version := old_musl()):
            raise ImportError(f"cryptography cannot be loaded: it needs musl 1.2.4 or newer, this is musl {version}")
        failures = []
        for way in (self.from_cache, self.from_memory, self.from_temporary):
            try:
                module, place = way()
            except (OSError, ImportError) as error:
                failures.append(f"{way.__name__[len('from_') :]}: {error}")
            else:
                _report["library"] = "; ".join([place, *failures])
                return module
        raise ImportError(f"cryptography cannot be loaded: {'; '.join(failures)}")

    def exec_module(self, _module: ModuleType) -> None:
        """`load` has run it, since some libraries that cannot be used fail only then."""

    def from_cache(self) -> tuple[ModuleType, str]:
        if self.archive.cache_failure:
            raise OSError(self.archive.cache_failure)
        paths = [file.path(self.archive.directory) for file in self.files]
        for file, path in zip(self.files, paths):
            if sha256_of(path) != file.digest:
                os.unlink(path)  # so that the next start unpacks it again
                raise OSError(f"{path} was damaged")
        return load(paths[0]), paths[0]

    def from_memory(self) -> tuple[ModuleType, str]:
        """Where no directory can be written, or none may hold programs."""
        from sikkerkey_unpack import Members  # only fallbacks need it

        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd")
        if len(self.files) > 1:
            raise OSError("the library needs another beside it")
        handle = os.memfd_create(self.archive.program)
        with open(handle, "wb") as file:
            with Members(self.archive) as members:
                file.writelines(members.blocks(self.files[0]))
            file.flush()
            return load(f"/proc/self/fd/{handle}"), "memory"

    def from_temporary(self) -> tuple[ModuleType, str]:
        import shutil  # slow to import, and only this fallback needs them
        import tempfile

        from sikkerkey_unpack import Members

        remove_left(tempfile.gettempdir(), f"{self.archive.program}-")
        directory = tempfile.mkdtemp(prefix=f"{self.archive.program}-")
        try:
            with Members(self.archive) as members:
                paths = [members.write(file, directory) for file in self.files]
            return load(paths[0]), "temporary file"
        finally:  # a loaded library needs no name, except on Windows, where it stays until another process removes it
            shutil.rmtree(directory, ignore_errors=True)


def remove_left(temporary: str, prefix: str) -> None:
    """Remove what earlier processes left in a temporary directory. Windows keeps what a process still has loaded."""
    import shutil  # as in from_temporary
    import time

    for entry in os.scandir(temporary):
        with suppress(OSError):  # another process removes it too
            is_left = re.fullmatch(re.escape(prefix) + "[a-z0-9_]{8}", entry.name) and entry.is_dir(
                follow_symlinks=False
            )
            if is_left and time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_S:
                shutil.rmtree(entry.path, ignore_errors=True)


def load(path: str) -> ModuleType:
    """Raises ImportError."""
    loader = ExtensionFileLoader(RUST, path)
    module = module_from_spec(ModuleSpec(RUST, loader, origin=path))
    loader.exec_module(module)
    return module


def sha256_of(path: str) -> str:
    from hashlib import sha256  # not before the library is needed

    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 16):
            digest.update(block)
    return digest.hexdigest()


def old_musl(directory: str = "/lib") -> str:
    """musl's version if it is too old, else an empty string.

    Before 1.2.4 it ignored a kind of relocation that libgcc_s has (DT_RELR), and the process crashes as it loads.
    """
    try:
        with open(os.path.join(directory, f"ld-musl-{os.uname().machine}.so.1"), "rb") as file:
            found = re.search(rb"\0(\d+)\.(\d+)\.(\d+)\0", file.read())
    except OSError:
        return ""
    version = [int(part) for part in found.groups()] if found else [1, 2, 4]
    return "" if version >= [1, 2, 4] else ".".join(map(str, version))
