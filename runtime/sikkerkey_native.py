"""Serves the archive's modules from memory, and loads cryptography's native library when it is first asked for.

What a running server may still import is read at its start, because people replace the archive under it, often with
`cp`, which writes into the very file that is open. The library (14 MB unpacked) is not loaded or unpacked before
`import cryptography`: a server that only lists its tools never needs it.

Nearly everything lies in one member, an archive in the archive. Python reads the outer directory row by row at each
start, and 300 rows would take as long as the interpreter itself; the inner one is read when a module is asked for that
has no bytecode in the cache.

This module is run at every start, so what only the library needs (array, hashlib, zlib) is imported where it is used.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed lacks it
import gc
import marshal
import os
import sys
import time
from _thread import allocate_lock, start_new_thread
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import module_from_spec, source_hash
from io import BufferedReader, BufferedWriter, BytesIO
from types import CodeType, ModuleType, SimpleNamespace

import __main__
import sikkerkey_start as runtime
from __main__ import BUILD, PROGRAM, outer_member
from sikkerkey_archive import COMPILED, LIBRARIES, MAIN, MODULES, MODULES_AT

TYPE_CHECKING = False  # as type checkers take it, `typing.TYPE_CHECKING`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn

RUST = "cryptography.hazmat.bindings._rust"
# Several archives and several Pythons may take turns on one machine; more than this many of each kind are old.
KEPT = 4
# Bytes that are read or unpacked at a time; three times as many come of unpacking. With 256 KB here, the very first run
# kept 1.7 MB of them (once glibc has freed a piece of more than 128 KB, it holds on to the next ones), and Linux mapped
# 1.5 MB more of the library, in the large parts that it had been written in.
PIECE = 1 << 15
# Seconds: a temporary file this old belongs to a process that died while it wrote.
ABANDONED = 3600.0

_report: dict[str, str] = {}


def report() -> dict[str, str]:
    """Which way each part was loaded, for people."""
    return dict(_report)


def start(codes: dict[str, bytes], missed: OSError | None) -> int:
    """Run the program, whose bytecode is in `codes` unless that was missed for a reason; its exit status."""
    place = os.path.dirname(__main__.__file__)
    path, platform = os.path.abspath(place), platform_name()
    _report.update(bytecode=whence(missed), archive=path, build=BUILD, platform=platform)
    if platform not in LIBRARIES:
        sys.stderr.write(refusal(platform))
        return 1
    library = Library(path, platform, _report)
    finder = Finder(path, library, codes)
    # Before any other place, and from now on without the archive's file.
    sys.meta_path.insert(0, finder)
    sys.path[:] = [each for each in sys.path if each != place]
    if missed:
        codes.update(finder.compile_aside() or finder.compile_all())
        keep_bytecode(codes)
    library.read_ahead()
    __import__(MAIN)
    gc.freeze()  # what is here by now stays; only what comes later is looked through
    gc.enable()
    status: int = sys.modules[MAIN].main()
    return status


def whence(missed: OSError | None) -> str:
    if missed is None:
        return cached(runtime.bytecode_name())
    return "compiled now" + (", kept for the next start" if isinstance(missed, FileNotFoundError) else f": {missed}")


def keep_bytecode(codes: dict[str, bytes]) -> None:
    """Takes 1 ms, and whatever PYTHONDONTWRITEBYTECODE says: that is about files beside a user's sources."""
    data = marshal.dumps(codes)
    try:
        publish(runtime.bytecode_name(), [source_hash(data), data])
    except OSError as error:
        _report["bytecode"] = f"compiled at each start: {error}"


# -- the platform ----------------------------------------------------------------------------------------------------


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


def refusal(platform: str) -> str:
    """One sentence: what was found, what is needed, what to do."""
    advice = "use the archive for this platform, or one of those machines"
    if platform == "windows-arm64" and "windows-amd64" in LIBRARIES:
        advice = "start this file with an amd64 Python, which Windows runs on this machine too"
    needed = ", ".join(sorted(LIBRARIES))
    return f"{PROGRAM}: error: this Python is for {platform}, but the archive is for {needed}: {advice}\n"


# -- modules ---------------------------------------------------------------------------------------------------------


class Finder:
    """Finder and loader of the archive's modules; nothing is parsed before one of them is asked for."""

    def __init__(self, path: str, library: Library, codes: dict[str, bytes]) -> None:
        self.path, self.library, self.codes = path, library, codes
        # Intel macOS has an older cryptography than the others, and the two do not mix.
        self.places = {"cryptography": library.python + "/"}
        self.members: dict[str, tuple[int, int, int]] = {}
        offset, length = MODULES_AT
        with open(path, "rb") as file:
            file.seek(offset)
            self.modules = file.read(length)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if top not in MODULES or (top == "cryptography" and not self.library.is_usable()):
            return None
        if name == RUST:
            return ModuleSpec(name, self.library, origin=self.library.files[0].name)  # type: ignore[arg-type]  # as Finder
        if name in COMPILED:  # read only if it must be
            return self.spec(name, COMPILED[name], COMPILED[name].endswith("/__init__.py"))
        base = self.places.get(top, "") + name.replace(".", "/")
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
        code = marshal.loads(self.codes.pop(name)) if name in self.codes else self.get_code(name)  # noqa: S302 (__main__ saw whose)
        exec(code, module.__dict__)  # noqa: S102 (how a module is imported)
        if name == "cryptography":
            self_test()

    def get_resource_reader(self, name: str) -> Resources:
        return Resources(self, name)

    @property
    def archive(self) -> object:
        """importlib.resources.files asks for this on Python 3.9, and for no reader: a path that zipfile can open."""
        from zipfile import ZipFile

        path = self.path

        class Archive(ZipFile):
            def __fspath__(self) -> str:
                return path

        return Archive(BytesIO(self.modules))

    def compile_aside(self) -> dict[str, bytes]:
        """As compile_all, by a child: a compiler leaves 1 to 6 MB with its process. Empty where there can be none."""
        if not hasattr(os, "fork"):
            return {}
        try:
            source, target = os.pipe()
            with open(source, "rb") as answer, open(target, "wb") as pipe:
                child = os.fork()
                if child == 0:
                    self.compile_into(pipe)
                pipe.close()
                data = answer.read()
            _, status = os.waitpid(child, 0)
        except OSError:  # no further process is to be had, or the system does not tell how children end
            return {}
        codes: dict[str, bytes] = marshal.loads(data) if status == 0 else {}  # noqa: S302 (our own child's)
        return codes

    def compile_into(self, pipe: BufferedWriter) -> NoReturn:
        """The child's part."""
        try:
            pipe.write(marshal.dumps(self.compile_all()))
            pipe.flush()
            os._exit(0)
        finally:
            os._exit(1)

    def compile_all(self) -> dict[str, bytes]:
        """The bytecode to keep, by module."""
        return {name: self.compiled(member) for name, member in COMPILED.items()}

    def compiled(self, member: str) -> bytes:
        """Without the archive's path, because the same bytecode serves wherever the file is moved."""
        source = self.member(member) if self.has(member) else outer_member(member)
        # To import __future__ is to read a file, a thirtieth of the start. compile() takes this module's own future.
        rest = source.replace(b"\nfrom __future__ import annotations\n", b"\n\n", 1)
        return marshal.dumps(compile(rest, f"{PROGRAM}.pyz/{member}", "exec", dont_inherit=rest == source))

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
        if not path.startswith(self.path + os.sep):
            raise FileNotFoundError(f"{path} is not in the archive")
        return self.member(member)

    def has(self, member: str) -> bool:
        self.members = self.members or members(self.modules)
        return member in self.members

    def member(self, member: str) -> bytes:
        if not self.has(member):
            raise FileNotFoundError(f"{member} is not in the archive")
        offset, length, method = self.members[member]
        # The local header's variable part is 26 bytes in: the lengths of the name and of an extra field.
        start = offset + 30 + number(self.modules, offset + 26, 2) + number(self.modules, offset + 28, 2)
        data = self.modules[start : start + length]
        return inflate(data) if method else data


class Resources:
    """A package's data files for importlib.resources, which is how zoneinfo reads tzdata."""

    def __init__(self, finder: Finder, package: str) -> None:
        self.finder, self.place = finder, package.replace(".", "/") + "/"

    def files(self) -> object:
        from zipfile import Path, ZipFile

        return Path(ZipFile(BytesIO(self.finder.modules)), self.place)

    def open_resource(self, name: str) -> BytesIO:
        return BytesIO(self.finder.member(self.place + name))

    def resource_path(self, name: str) -> str:
        raise FileNotFoundError(f"{name} has no path of its own")

    def is_resource(self, name: str) -> bool:
        return self.finder.has(self.place + name)

    def contents(self) -> list[str]:
        below = [name[len(self.place) :] for name in self.finder.members if name.startswith(self.place)]
        return [name for name in below if "/" not in name]


def number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "little")


def members(archive: bytes) -> dict[str, tuple[int, int, int]]:
    """Name -> (offset, length, method), from an archive's central directory; ours has no comment at its end."""
    count, position = number(archive, len(archive) - 12, 2), number(archive, len(archive) - 6, 4)
    found = {}
    for _ in range(count):
        name, extra, comment = (number(archive, position + field, 2) for field in (28, 30, 32))
        offset, length = (number(archive, position + field, 4) for field in (42, 20))
        method = number(archive, position + 10, 2)
        found[archive[position + 46 : position + 46 + name].decode()] = (offset, length, method)
        position += 46 + name + extra + comment
    return found


def inflate(data: bytes) -> bytes:
    import zlib

    try:
        return zlib.decompress(data, -zlib.MAX_WBITS)
    except zlib.error as error:
        raise OSError(f"the archive was replaced or is damaged: {error}") from error


# -- the private directory, writing ---------------------------------------------------------------------------------


def cached(name: str) -> str:
    """Where a file of the cache lies."""
    return os.path.join(runtime.cache_directory(), *name.split("/"))


def directories(name: str) -> list[str]:
    """Those that a file of the cache lies in, the cache itself first."""
    below = name.split("/")[:-1]
    return [os.path.join(runtime.cache_directory(), *below[:depth]) for depth in range(len(below) + 1)]


def publish(name: str, pieces: Iterable[bytes]) -> None:
    """Write a file of the cache that others see whole or not at all, however many processes do so at once.

    An OSError that `pieces` raises at their end leaves nothing behind.
    """
    root = make_directories(name)
    temporary = os.path.join(root, f"tmp-{os.getpid()}-{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.writelines(pieces)
        os.replace(temporary, cached(name))
    except OSError:
        discard(temporary)
        raise
    sweep(root, name.partition("-")[0])


def make_directories(name: str) -> str:
    """Those that a file of the cache lies in; returns the first, the cache itself."""
    root, *below = directories(name)
    if not os.path.isabs(root):
        raise FileNotFoundError(f"{root} is not an absolute path")
    os.makedirs(os.path.dirname(root), 0o700, exist_ok=True)
    for directory in (root, *below):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            runtime.require_directory(directory)
    return root


def sweep(directory: str, kind: str) -> None:
    """Remove all but the newest files of a kind, and what writers that died left behind."""
    ages: list[tuple[float, str]] = []
    for entry in os.scandir(directory):
        try:
            modified = entry.stat(follow_symlinks=False).st_mtime
        except OSError:  # another process sweeps too
            continue
        if is_ours(entry.name, kind):
            ages.append((modified, entry.path))
        elif is_ours(entry.name, "tmp") and time.time() - modified > ABANDONED:
            discard(entry.path)
    for _, path in sorted(ages, reverse=True)[KEPT:]:
        discard(path)


def is_ours(name: str, kind: str) -> bool:
    """Whether a cache makes such names: SIKKERKEY_CACHE_DIR may lead to where a user keeps a rust-project."""
    parts = name.partition(".")[0].split("-")  # tmp-PID-MARK, rust-MARK.so, bytecode-MARK-TAG-...
    mark = parts[2 if kind == "tmp" else 1] if len(parts) > (kind == "tmp") + 1 else ""
    return parts[0] == kind and len(mark) == 16 and all(c in "0123456789abcdef" for c in mark)


def discard(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            import shutil

            shutil.rmtree(path)
        else:
            os.unlink(path)
    except OSError:  # gone already, or a library in use on Windows: the next sweep tries again
        return


# -- the native library ----------------------------------------------------------------------------------------------


class File:
    """A row of LIBRARIES; not a NamedTuple, whose making takes a hundredth of the start."""

    def __init__(self, name: str, offset: int, packed_size: int, size: int, digest: str) -> None:
        self.name = name  # in the cache
        self.offset, self.packed_size = offset, packed_size
        self.size, self.digest = size, digest


def start_deaf(work: Callable[..., None], *arguments: object) -> None:
    """Starts a thread that gets no signal: the handler would wait for the main thread, which that does not wake."""
    if not hasattr(_signal, "pthread_sigmask"):
        start_new_thread(work, arguments)
        return
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        start_new_thread(work, arguments)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


class Aside:
    """What is read of a file by a thread of its own, while the program starts; an empty list where that fails.

    These 5 MB take a tenth of the start. So would the import of threading, hence the bare lock.
    """

    def __init__(self, read: Callable[[BufferedReader], list[bytes]], path: str) -> None:
        # Opened here: whoever replaces the file by another from now on changes nothing.
        file = open(path, "rb")  # noqa: SIM115 (`read` closes it)
        self.contents: list[bytes] = []
        self.under_way = allocate_lock()
        self.under_way.acquire()  # until there is a result
        try:
            start_deaf(self.run, read, file)
        except RuntimeError:  # where the user's or the container's threads are used up, it takes its time
            self.run(read, file)

    def run(self, read: Callable[[BufferedReader], list[bytes]], file: BufferedReader) -> None:
        try:
            self.contents = read(file)
        except OSError:  # whoever needs it tries again, and says what is wrong
            return
        finally:
            self.under_way.release()

    def result(self) -> list[bytes]:
        with self.under_way:
            return self.contents


class Library:
    """cryptography's native module: found once, by the first of several ways that works, and then its own loader."""

    def __init__(self, archive: str, platform: str, report: dict[str, str]) -> None:
        self.archive, self.report = archive, report
        self.python, files = LIBRARIES[platform]
        self.files = [File(*row) for row in files]
        self.module: ModuleType | None = None
        self.failures: list[str] = []
        report["library"] = "not needed yet"
        self.aside: Aside | None = None
        self.contents: list[bytes] = []

    def read_ahead(self) -> None:
        """Reads what is not in the cache, before somebody replaces the archive."""
        if not self.seems_cached():
            self.aside = Aside(self.read, self.archive)

    def packed(self) -> list[bytes]:
        """The archive's copy, which stays in memory while a way of loading it is being looked for."""
        if not self.contents and self.aside:
            self.contents = self.aside.result()
        self.contents = self.contents or self.read(open(self.archive, "rb"))  # noqa: SIM115 (as above)
        return self.contents

    def read(self, file: BufferedReader) -> list[bytes]:
        contents = []
        with file:
            for entry in self.files:
                file.seek(entry.offset)
                contents.append(file.read(entry.packed_size))
        return contents

    def seems_cached(self) -> bool:
        """Enough to leave the archive's copy unread; before it is loaded, is_intact looks closely."""
        try:
            return all(os.lstat(cached(file.name)).st_size == file.size for file in self.files)
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
            self.aside, self.contents = None, []
        if self.module is None and PathFinder.find_spec("cryptography") is None:
            tried, self.failures = self.failures, []  # so that the next call finds the disk as it is by then
            raise ImportError("cryptography cannot be loaded: " + "; ".join([*tried, "none is installed"]))
        return self.module is not None

    def first_that_works(self) -> ModuleType | None:
        ways = [self.from_cache, self.from_memory, self.from_temporary]
        if len(self.files) > 1 and (version := old_musl()):
            ways.clear()
            self.failures.append(f"musl {version} is too old for the library, which needs 1.2.4 or newer")
        for way in ways:
            try:
                return way()
            except (OSError, ImportError) as error:
                self.failures.append(f"{way.__name__[5:]}: {error}")
        self.report["library"] = "; ".join(["installed", *self.failures])
        return None

    def from_cache(self) -> ModuleType:
        for file in reversed(self.files):  # the library last: whoever sees it sees what it needs
            try:
                if not is_intact(file):
                    publish(file.name, self.unpack(file))
            except PermissionError:  # Windows, where a process that started with this one has it loaded already
                if not is_intact(file):
                    raise
        path = cached(self.files[0].name)
        return self.load(path, path)

    def from_memory(self) -> ModuleType:
        """Where no directory can be written, or none may hold executable files."""
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd")
        if len(self.files) > 1:
            raise OSError("the library needs another beside it")
        handle = os.memfd_create(PROGRAM)
        with open(handle, "wb") as file:
            file.writelines(self.unpack(self.files[0]))
            file.flush()
            return self.load(f"/proc/self/fd/{handle}", "memory")

    def from_temporary(self) -> ModuleType:
        import tempfile

        directory = tempfile.mkdtemp(prefix=f"{PROGRAM}-")
        try:
            for file in self.files:
                path = os.path.join(directory, *file.name.split("/"))
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                with open(path, "xb") as opened:
                    opened.writelines(self.unpack(file))
            return self.load(os.path.join(directory, *self.files[0].name.split("/")), "temporary file")
        finally:  # a loaded library needs no name, except on Windows, where it and the directory stay
            discard(directory)

    def unpack(self, file: File) -> Iterator[bytes]:
        """In pieces, since the whole would stay with the process as memory that it never needs again."""
        import zlib
        from hashlib import sha256

        packed = memoryview(self.packed()[self.files.index(file)])
        stream, digest = zlib.decompressobj(-zlib.MAX_WBITS), sha256()
        for start in range(0, len(packed), PIECE):
            try:
                piece = stream.decompress(packed[start : start + PIECE])
            except zlib.error:
                break
            digest.update(piece)
            yield piece
        if digest.hexdigest() != file.digest:
            raise OSError("the archive was replaced or is damaged")

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


def old_musl(directory: str = "/lib") -> str:
    """musl's version if it is too old, else an empty string.

    Before 1.2.4 it passed over a kind of relocation that libgcc_s has (DT_RELR), and the process crashes as it loads.
    """
    import re

    try:
        with open(os.path.join(directory, f"ld-musl-{os.uname().machine}.so.1"), "rb") as file:
            found = re.search(rb"\0(\d+)\.(\d+)\.(\d+)\0", file.read())
    except OSError:
        return ""
    version = [int(part) for part in found.groups()] if found else [1, 2, 4]
    return "" if version >= [1, 2, 4] else ".".join(map(str, version))


def is_intact(file: File) -> bool:
    """A library cut short is a SIGBUS in the middle of a call, not an exception: every byte is checked."""
    from hashlib import sha256

    try:
        with open(runtime.open_private(file.name), "rb") as opened:
            digest = sha256()
            while block := opened.read(PIECE):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == file.digest


def cffi_stand_in() -> ModuleType:
    """The part of _cffi_backend that the library uses: it hands buffers over by address and length.

    cffi itself would be a native library for each minor version of Python. The rest of it serves OpenSSL bindings that
    signatures do not use; asking for one of those is an AttributeError.
    """
    from array import array  # which knows its address as ctypes does, and which socket needs anyway

    def from_buffer(data: bytes) -> array[int]:
        return array("B", data)

    def cast(_kind: str, buffer: array[int]) -> int:
        return buffer.buffer_info()[0]

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
