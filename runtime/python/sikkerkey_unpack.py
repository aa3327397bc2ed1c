"""Unpacks the archive into the user's cache, and removes old builds from it. Only first starts and fallbacks do."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

from sikkerkey_runtime import UNPACKED_TIME_S, Archive, File, lock, require_private

BLOCK_BYTES = 1 << 16
DAMAGED = "the archive was replaced or is damaged"
KEPT_BUILDS = 4
# A temporary directory this old belongs to a process that died while it was unpacking.
ABANDONED_S = 3600.0


class ArchiveError(OSError):
    """The archive is no longer the one that was started, or is damaged."""


class Members:
    """The archive's files, in blocks: a native library has 14 MB. Methods raise ArchiveError."""

    def __init__(self, archive: Archive) -> None:
        try:
            self._zip = zipfile.ZipFile(archive.path)
        except (OSError, ValueError, zipfile.BadZipFile):
            raise ArchiveError(DAMAGED) from None

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_error: object) -> None:
        self._zip.close()

    def blocks(self, file: File) -> Iterator[bytes]:
        """A file's content."""
        digest = sha256()
        try:
            with self._zip.open(f"{file.tree}/{file.name}") as member:
                while block := member.read(BLOCK_BYTES):
                    digest.update(block)
                    yield block
        except (OSError, KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
            raise ArchiveError(DAMAGED) from None
        if digest.hexdigest() != file.digest:
            raise ArchiveError(DAMAGED)

    def write(self, file: File, directory: str) -> str:
        """Write a file below a private directory; its path. Also raises OSError."""
        path = file.path(directory)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.writelines(self.blocks(file))
        return path


def unpack(archive: Archive) -> None:
    """Fill the archive's directory in the cache, or set `cache_failure`. Exits if the archive is damaged."""
    try:
        make_cache(archive.cache)
        publish(archive)
        lock(archive.directory)
    except ArchiveError as error:
        from sikkerkey_refusal import refuse  # only if there is something to refuse

        advice = "download it again and compare its SHA-256 with SHA256SUMS"
        refuse(archive.program, f"{archive.program}: error: {error}: {advice}")
    except OSError as error:
        archive.cache_failure = str(error)
    else:
        with suppress(OSError):  # another process sweeps too, or Windows has a library loaded
            sweep(archive.cache, archive.program)


def make_cache(path: str) -> None:
    if os.path.isabs(path) and not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    require_private(path, stat.S_IFDIR)


def publish(archive: Archive) -> None:
    """Write everything to a temporary directory, and rename that: other processes see all of it or nothing."""
    temporary = temporary_path(archive.cache)
    os.mkdir(temporary, 0o700)
    try:
        with Members(archive) as members:
            for file in archive.files:
                path = members.write(file, temporary)
                os.utime(path, (UNPACKED_TIME_S, UNPACKED_TIME_S))
        try:
            os.rename(temporary, archive.directory)
        except OSError:  # another process was faster, or what is there is damaged
            if not archive.is_unpacked():
                discard(archive.directory)
                os.rename(temporary, archive.directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_path(cache: str) -> str:
    return os.path.join(cache, f"tmp-{os.getpid()}-{os.urandom(8).hex()}")


def discard(path: str) -> None:
    """Remove a directory, or a file or link in its place. It is renamed first, so that nobody sees a part of it."""
    doomed = temporary_path(os.path.dirname(path))
    os.rename(path, doomed)
    if os.path.islink(doomed) or not os.path.isdir(doomed):
        os.unlink(doomed)
    else:
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(cache: str, program: str) -> None:
    """Remove all but the newest builds of a program, and what processes that died left behind."""
    # SIKKERKEY_CACHE_DIR may name a directory that the user keeps other things in: only these names are removed.
    build, temporary = rf"{re.escape(program)}-[0-9a-f]{{16}}-.+", r"tmp-\d+-[0-9a-f]{16}"
    builds = []
    for entry in os.scandir(cache):
        with suppress(OSError):  # another process sweeps too
            changed_s = entry.stat(follow_symlinks=False).st_mtime
            if re.fullmatch(build, entry.name):
                builds.append((changed_s, entry.path))
            elif re.fullmatch(temporary, entry.name) and time.time() - changed_s > ABANDONED_S:
                shutil.rmtree(entry.path, ignore_errors=True)
    for _, path in sorted(builds, reverse=True)[KEPT_BUILDS:]:
        if lock(path, exclusive=True):
            discard(path)
