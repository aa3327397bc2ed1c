"""Serves the archive's modules from memory, and loads cryptography's native library when it is first asked for.

What a running server may still import is read at its start, because people replace the archive under it, often with
`cp`, which writes into the very file that is open. The library (14 MB unpacked) is not loaded or unpacked before
`import cryptography`: a server that only lists its tools never needs it.

This module is imported at every start, so what only the library needs (hashlib, zlib, ctypes) is imported where it is
used.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock, start_new_thread
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import module_from_spec
from io import BufferedReader
from types import CodeType, ModuleType, SimpleNamespace

import sikkerkey_runtime as runtime
from sikkerkey_archive import COMMON, LIBRARIES, MODULES

RUST = "cryptography.hazmat.bindings._rust"
# Several archives and several Pythons may take turns on one machine; more than this many of each kind are old.
KEPT = 4
# Seconds: a temporary file this old belongs to a process that died while it wrote.
ABANDONED = 3600.0


def install(platform: str, codes: dict[str, CodeType], report: dict[str, str]) -> None:
    """Serve the archive's modules before any other place, from now on without its file."""
    path = os.path.abspath(runtime.ARCHIVE)
    sys.meta_path.insert(0, Finder(path, Library(path, platform, report), codes))
    sys.path[:] = [place for place in sys.path if place != runtime.ARCHIVE]


# -- modules ---------------------------------------------------------------------------------------------------------


class Finder:
    """Finder and loader of the archive's modules; nothing is parsed before one of them is asked for."""

    def __init__(self, path: str, library: Library, codes: dict[str, CodeType]) -> None:
        self.path, self.library, self.codes = path, library, codes
        self.members: dict[str, tuple[int, int, int]] = {}
        with open(path, "rb") as file:
            file.seek(COMMON)
            self.common = file.read()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if top not in MODULES or (top == "cryptography" and not self.library.is_usable()):
            return None
        if name == RUST:
            return ModuleSpec(name, self.library, origin=self.library.name)  # type: ignore[arg-type]  # as Finder
        base = name.replace(".", "/")
        for member, package in ((f"{base}.py", False), (f"{base}/__init__.py", True)):
            if self.has(member):
                return self.spec(name, member, package)
        return None

    def spec(self, name: str, member: str, package: bool) -> ModuleSpec:
        origin = os.path.join(self.path, *member.split("/"))
        # importlib.abc.Loader, which the annotation wants, would only cost an import: the methods are what counts.
        spec = ModuleSpec(name, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        code = self.codes.get(name) or self.get_code(name)
        exec(code, module.__dict__)  # noqa: S102 (how a module is imported)
        if name == "cryptography":
            self_test()

    def get_code(self, name: str) -> CodeType:
        code: CodeType = compile(self.get_source(name), self.get_filename(name), "exec", dont_inherit=True)
        return code

    def get_source(self, name: str) -> str:
        return self.get_data(self.get_filename(name)).decode()

    def get_filename(self, name: str) -> str:
        spec = self.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(f"{name} is not in the archive", name=name)
        return spec.origin

    def get_data(self, path: str) -> bytes:
        """A member's bytes; path as zipimport has it, the archive's own path first."""
        member = path[len(self.path) + 1 :].replace(os.sep, "/")
        if not path.startswith(self.path + os.sep) or not self.has(member):
            raise FileNotFoundError(f"{path} is not in the archive")
        offset, length, method = self.members[member]
        # The local header's variable part is 26 bytes in: the lengths of the name and of an extra field.
        start = offset + 30 + number(self.common, offset + 26, 2) + number(self.common, offset + 28, 2)
        data = self.common[start : start + length]
        return inflate(data) if method else data

    def has(self, member: str) -> bool:
        self.members = self.members or members(self.common)
        return member in self.members


def number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "little")


def members(common: bytes) -> dict[str, tuple[int, int, int]]:
    """Name -> (offset, length, method), from the archive's central directory; the archive has no comment."""
    count, position = number(common, len(common) - 12, 2), number(common, len(common) - 6, 4) - COMMON
    found = {}
    for _ in range(count):
        name, extra, comment = (number(common, position + field, 2) for field in (28, 30, 32))
        offset, length, method = (number(common, position + field, size) for field, size in ((42, 4), (20, 4), (10, 2)))
        found[common[position + 46 : position + 46 + name].decode()] = (offset - COMMON, length, method)
        position += 46 + name + extra + comment
    return found


def inflate(data: bytes) -> bytes:
    import zlib

    try:
        return zlib.decompress(data, -zlib.MAX_WBITS)
    except zlib.error as error:
        raise OSError(f"the archive was replaced or is damaged: {error}") from error


# -- the private directory, writing ---------------------------------------------------------------------------------


def publish(path: str, data: bytes) -> None:
    """Write a file that others see whole or not at all, however many processes do so at once."""
    directory, name = os.path.split(path)
    if not os.path.isabs(directory):
        raise FileNotFoundError(f"{directory} is not an absolute path")
    os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        runtime.require_directory(directory)
    temporary = os.path.join(directory, f"tmp-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        discard(temporary)
        raise
    sweep(directory, name.partition("-")[0])


def sweep(directory: str, kind: str) -> None:
    """Remove all but the newest files of a kind, and what writers that died left behind."""
    ages: list[tuple[float, str]] = []
    for entry in os.scandir(directory):
        try:
            modified = entry.stat(follow_symlinks=False).st_mtime
        except OSError:  # another process sweeps too
            continue
        if entry.name.startswith(f"{kind}-"):
            ages.append((modified, entry.path))
        elif entry.name.startswith("tmp-") and time.time() - modified > ABANDONED:
            discard(entry.path)
    for _, path in sorted(ages, reverse=True)[KEPT:]:
        discard(path)


def discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # gone already, or a library in use on Windows: the next sweep tries again
        return


# -- the native library ----------------------------------------------------------------------------------------------


class Library:
    """cryptography's native module: found once, by the first of several ways that works, and then its own loader."""

    def __init__(self, archive: str, platform: str, report: dict[str, str]) -> None:
        self.archive, self.report = archive, report
        self.name, self.offset, self.packed_size, self.size, self.digest = LIBRARIES[platform]
        self.module: ModuleType | None = None
        self.failures: list[str] = []
        report["library"] = "not needed yet"
        self.packed = b""
        self.reading = allocate_lock()
        if not self.seems_cached():
            # Aside, because these 5 MB take a tenth of the start; without threading, whose import takes as much. The
            # file is opened first: whoever replaces it by another then changes nothing.
            self.reading.acquire()
            start_new_thread(self.read_ahead, (open(archive, "rb"),))  # noqa: SIM115 (read closes it)

    def read_ahead(self, file: BufferedReader) -> None:
        try:
            self.packed = self.read(file)
        except OSError:  # unpack() reads again, and says so if it fails
            self.packed = b""
        finally:
            self.reading.release()

    def read(self, file: BufferedReader) -> bytes:
        with file:
            file.seek(self.offset)
            return file.read(self.packed_size)

    def seems_cached(self) -> bool:
        """Enough to leave the archive's copy unread; before it is loaded, is_intact looks closely."""
        try:
            return os.lstat(os.path.join(runtime.cache_directory(), self.name)).st_size == self.size
        except OSError:
            return False

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Done in load(): whether it works decides whether the archive's cryptography is used at all."""

    def is_usable(self) -> bool:
        """False leaves the import to an installed cryptography; without one, the error says what was tried."""
        if self.module is None and not self.failures:
            self.module = self.first_that_works()
            with self.reading:
                self.packed = b""
        if self.module is None and PathFinder.find_spec("cryptography") is None:
            raise ImportError("cryptography cannot be loaded: " + "; ".join([*self.failures, "none is installed"]))
        return self.module is not None

    def first_that_works(self) -> ModuleType | None:
        for way in (self.from_cache, self.from_memory, self.from_temporary):
            try:
                return way()
            except (OSError, ImportError) as error:
                self.failures.append(f"{way.__name__[5:]}: {error}")
        self.report["library"] = "; ".join(["installed", *self.failures])
        return None

    def from_cache(self) -> ModuleType:
        path = os.path.join(runtime.cache_directory(), self.name)
        if not self.is_intact(path):
            try:
                publish(path, self.unpack())
            except PermissionError:  # Windows, where another process that started with this one has it loaded already
                if not self.is_intact(path):
                    raise
        return self.load(path, path)

    def from_memory(self) -> ModuleType:
        """Where no directory can be written, or none may hold executable files."""
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd")
        handle = os.memfd_create("sikkerkey-mcp")
        with open(handle, "wb") as file:
            file.write(self.unpack())
            file.flush()
            return self.load(f"/proc/self/fd/{handle}", "memory")

    def from_temporary(self) -> ModuleType:
        import tempfile

        directory = tempfile.mkdtemp(prefix="sikkerkey-mcp-")
        path = os.path.join(directory, self.name)
        try:
            with open(path, "xb") as file:
                file.write(self.unpack())
            return self.load(path, "temporary file")
        finally:  # a loaded library needs no name, except on Windows, where the directory stays
            discard(path)
            if os.name == "posix":
                os.rmdir(directory)

    def unpack(self) -> bytes:
        from hashlib import sha256

        with self.reading:
            data = inflate(self.packed or self.read(open(self.archive, "rb")))  # noqa: SIM115 (as above)
        if sha256(data).hexdigest() != self.digest:
            raise OSError("the archive was replaced or is damaged")
        return data

    def is_intact(self, path: str) -> bool:
        """A library cut short is a SIGBUS in the middle of a call, not an exception: every byte is checked."""
        from hashlib import sha256

        try:
            with open(runtime.open_private(path), "rb") as file:
                digest = sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            return False
        return digest.hexdigest() == self.digest

    def load(self, path: str, way: str) -> ModuleType:
        loader = ExtensionFileLoader(RUST, path)
        # The library asks for _cffi_backend while it initialises. An installed one is for some other cryptography.
        installed = sys.modules.get("_cffi_backend")
        sys.modules["_cffi_backend"] = cffi_stand_in()
        try:
            module = module_from_spec(ModuleSpec(RUST, loader, origin=path))
            loader.exec_module(module)
        finally:
            del sys.modules["_cffi_backend"]
            if installed is not None:
                sys.modules["_cffi_backend"] = installed
        self.report["library"] = "; ".join([way, *self.failures])
        return module


def cffi_stand_in() -> ModuleType:
    """The part of _cffi_backend that the library uses: it hands buffers over by address and length.

    cffi itself would be a native library for each minor version of Python. The rest of it serves OpenSSL bindings that
    signatures do not use; asking for one of those is an AttributeError.
    """

    def from_buffer(data: bytes, require_writable: bool = False) -> object:
        import ctypes

        kind = ctypes.c_char * memoryview(data).nbytes
        return kind.from_buffer(data) if require_writable else kind.from_buffer_copy(data)

    def cast(_kind: str, buffer: object) -> int:
        import ctypes

        return ctypes.addressof(buffer)  # type: ignore[arg-type]  # one of from_buffer's

    def initialise(_exports: int) -> ModuleType:
        bindings = ModuleType("_openssl")
        vars(bindings).update(ffi=SimpleNamespace(from_buffer=from_buffer, cast=cast), lib=SimpleNamespace())
        return bindings

    stand_in = ModuleType("_cffi_backend")
    vars(stand_in)["_init_cffi_1_0_external_module"] = initialise
    return stand_in


def self_test() -> None:
    """RFC 8032, section 7.1, test 2: a library that signs wrongly must not sign at all."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    expected = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key = Ed25519PrivateKey.from_private_bytes(secret)
    try:
        key.public_key().verify(expected, b"\x72")
        sound = key.sign(b"\x72") == expected
    except InvalidSignature:
        sound = False
    if not sound:
        raise ImportError("cryptography cannot be used: its native library fails the Ed25519 test of RFC 8032")
