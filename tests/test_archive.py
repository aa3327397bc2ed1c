"""The archive's loader: one sentence for a Python that cannot run it, and no trust in what it finds on the machine."""

from __future__ import annotations

import hashlib
import marshal
import os
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.archive.running import (
    OTHER_PYTHONS,
    PROGRAM,
    SIGNATURE,
    THIS_PLATFORM,
    Archive,
    build,
    find_python,
    finish,
    linux_only,
    posix_only,
    runtime_module,
)
from tests.support.harness import TIMEOUT_S


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "program.pyz"
    build(path, "--platform", THIS_PLATFORM, "--source", str(PROGRAM))
    return path


@pytest.fixture
def archive(built: Path, tmp_path: Path) -> Archive:
    (tmp_path / "user").mkdir()
    return Archive(Path(shutil.copy(built, tmp_path)), tmp_path / "user")


@pytest.fixture
def damaged(archive: Archive) -> Archive:
    """Its library no longer has the digest that it should have."""
    data = bytearray(archive.path.read_bytes())
    data[2_000_000] ^= 1
    archive.path.write_bytes(data)
    return archive


# -- refusals --------------------------------------------------------------------------------------------------------


def refusal(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    (sentence,) = result.stderr.splitlines()
    return sentence


@pytest.mark.parametrize("name", ["python2.7", "python3.6", "python3.7", "python3.8", "pypy3", "python3.13t"])
def test_unsuitable_python_is_refused_in_one_sentence(name: str, built: Path) -> None:
    assert "was found, but 64-bit CPython 3.9.2 or newer" in refusal([find_python(name), str(built)])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("sys.version_info = (3, 9, 1)", "Python 3.9.1 at"),
        ("sys.implementation.name = 'pypy'", "pypy (Python 3."),
        ("sys.version = '3.14.0 free-threading build'", "a free-threaded build of Python 3."),
        ("sys.maxsize = 2**31 - 1", "a 32-bit build of Python 3."),
    ],
)
def test_refusal_names_what_was_found(change: str, found: str, built: Path) -> None:
    code = f"import sys, runpy\n{change}\nrunpy.run_path({str(built)!r}, run_name='__main__')"
    assert refusal([sys.executable, "-c", code]).startswith(f"sikkerkey-mcp: error: {found}")


@linux_only
def test_platform_that_is_not_in_the_archive_is_refused(built: Path) -> None:
    change = "import os, types; os.uname = lambda: types.SimpleNamespace(machine='riscv64')"
    code = f"{change}\nimport runpy\nrunpy.run_path({str(built)!r}, run_name='__main__')"
    assert "this Python is for linux-" in refusal([sys.executable, "-c", code])


# -- the loader ------------------------------------------------------------------------------------------------------


def test_first_and_later_starts_work(archive: Archive) -> None:
    first, second = archive.run("sign", "ca"), archive.run("sign", "ca")
    assert first["sign"] == second["sign"] == SIGNATURE
    assert first["ca"] == second["ca"] > 100
    assert first["bytecode"] == "compiled now, kept for the next start"
    assert second["bytecode"] == str(archive.bytecode())
    assert first["library"] == second["library"] == str(archive.library())
    assert first["argv0"] == str(archive.path)
    assert first["garbage is collected"] is second["garbage is collected"] is True


def test_bytecode_of_another_build_is_not_taken(archive: Archive, built: Path, tmp_path: Path) -> None:
    """Were the archive's name or time the key, a newer one in the same place would run the older one's code."""
    archive.run()
    other = shutil.copytree(PROGRAM, tmp_path / "other") / "sikkerkey_mcp.py"
    other.write_text(other.read_text(encoding="utf-8").replace('"argv0"', '"argv9"'), encoding="utf-8")
    build(archive.path, "--platform", THIS_PLATFORM, "--source", str(other.parent))
    shutil.copystat(built, archive.path)
    assert archive.path.stat().st_size == built.stat().st_size
    assert "argv9" in archive.run()


@pytest.mark.parametrize(("first_line", "annotation"), [(b"", int), (b"from __future__ import annotations\n", "int")])
def test_kept_bytecode_has_the_future_that_its_source_asks_for(
    first_line: bytes, annotation: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' modules, such as those of the vault's archive, may look at their annotations."""
    native = runtime_module("sikkerkey_native")
    monkeypatch.setattr(native, "outer_member", lambda _name: b'"""Text."""\n' + first_line + b"def f(x: int): ...\n")
    monkeypatch.setattr(native.Finder, "has", lambda _finder, _name: False)
    made: dict[str, Any] = {}
    exec(marshal.loads(native.Finder.compiled(native.Finder.__new__(native.Finder), "a.py")), made)  # noqa: S102, S302 (our own)
    assert made["f"].__annotations__ == {"x": annotation}


@posix_only
def test_thread_that_reads_ahead_gets_no_signal() -> None:
    """A SIGTERM that comes while it runs would otherwise wait until the client says something."""
    own, told = signal.pthread_sigmask(signal.SIG_BLOCK, ()), threading.Event()
    seen: list[Any] = []

    def look() -> None:
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        told.set()

    runtime_module("sikkerkey_native").start_deaf(look)
    assert told.wait(TIMEOUT_S)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= seen[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == own


@posix_only
def test_cache_is_private(archive: Archive) -> None:
    archive.run("sign")
    modes = [path.stat().st_mode & 0o777 for path in (archive.cache, archive.library(), archive.bytecode())]
    assert modes == [0o700, 0o600, 0o600]


def test_nothing_is_unpacked_before_it_is_needed(archive: Archive) -> None:
    archive.run()
    result = archive.run()
    assert result["library"] == "not needed yet"
    assert not list(archive.cache.glob("rust-*"))
    slow = {"__future__", "zipfile", "tempfile", "hashlib", "pathlib", "importlib.resources", "ctypes"}
    assert slow.isdisjoint(result["loaded at start"])


@pytest.mark.parametrize("name", OTHER_PYTHONS)
def test_every_python_runs_it(name: str, archive: Archive) -> None:
    archive.python = find_python(name)
    assert [archive.run("sign")["sign"], archive.run("sign")["sign"]] == [SIGNATURE] * 2


@pytest.mark.parametrize("flags", [[], ["-I"], ["-S"], ["-E"], ["-OO"], ["-W", "error"], ["-P"]])
def test_interpreter_flags_do_not_matter(flags: list[str], archive: Archive) -> None:
    if flags == ["-P"] and sys.version_info < (3, 11):
        pytest.skip("-P came with Python 3.11")
    archive.flags = flags
    assert archive.run("sign")["library"] == archive.run("sign")["library"] == str(archive.library())


@posix_only
def test_empty_environment_is_enough(archive: Archive, tmp_path: Path) -> None:
    # HOME is then the password entry's, which a test must not write to: the cache cannot be named, so it is not used.
    assert archive.run("sign", env={"SIKKERKEY_CACHE_DIR": "relative"}, cwd=tmp_path)["sign"] == SIGNATURE
    assert not (tmp_path / "relative").exists()


@pytest.mark.parametrize("name", ["with space.pyz", "quo'te\".pyz", "tø-日本.pyz", "no-suffix"])
def test_any_path_will_do(name: str, archive: Archive) -> None:
    if os.name == "nt" and '"' in name:
        pytest.skip("Windows has no such file names")
    archive.path = archive.path.rename(archive.path.with_name(name))
    assert archive.run("sign", "ca")["sign"] == archive.run("sign", "ca")["sign"] == SIGNATURE


def test_links_and_relative_paths_will_do(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(archive.path)
    archive.path = Path("link")
    assert archive.run("sign", "ca", cwd=tmp_path)["argv0"] == "link"


def test_hostile_modules_are_not_loaded(archive: Archive, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    for name in ("json.py", "sikkerkey_native.py", "cryptography/__init__.py", "certifi/__init__.py"):
        (hostile / name).parent.mkdir(parents=True, exist_ok=True)
        (hostile / name).write_text("raise SystemExit('hostile')")
    archive.flags = []
    assert archive.run("sign", "ca", cwd=hostile)["sign"] == SIGNATURE
    (hostile / "json.py").unlink()  # before the standard library on PYTHONPATH, which is the user's own doing
    environment = {"HOME": str(archive.home), "PYTHONPATH": str(hostile)}
    assert archive.run("sign", "ca", cwd=hostile, env=environment)["sign"] == SIGNATURE


def test_twenty_first_starts_at_once_all_work(archive: Archive) -> None:
    results = [finish(process) for process in [archive.start("sign") for _ in range(20)]]
    assert {result["sign"] for result in results} == {SIGNATURE}
    assert sorted(os.listdir(archive.cache)) == sorted([archive.library().name, archive.bytecode().name])


def after(archive: Archive, prelude: str) -> dict[str, Any]:
    """What a run says in an interpreter that has been made ready so."""
    run = f"sys.argv = [{str(archive.path)!r}, 'sign']\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    archive.flags += ["-c", f"{prelude}\nimport runpy, sys\n{run}"]
    return archive.run()


def test_start_needs_no_thread_of_its_own(archive: Archive) -> None:
    """A container's limit of processes counts threads."""
    refuse = "import _thread\ndef refuse(*_): raise RuntimeError\n_thread.start_new_thread = refuse"
    assert after(archive, refuse)["sign"] == SIGNATURE


@posix_only
def test_program_is_compiled_in_a_process_of_its_own(archive: Archive, tmp_path: Path) -> None:
    """A compiler leaves memory behind, which would stay with a server of the very first run."""
    log = tmp_path / "compiled"
    watch = (
        f"import os, sys\nlog, own = open({str(log)!r}, 'w', 1), os.getpid()\n"
        "def note(event, given):\n"
        "    if event == 'compile': print(os.getpid() == own, given[1], file=log)\n"
        "sys.addaudithook(note)"
    )
    assert after(archive, watch)["sign"] == SIGNATURE
    lines = log.read_text().splitlines()
    assert [line for line in lines if "sikkerkey_mcp.py" in line] == ["False sikkerkey-mcp.pyz/sikkerkey_mcp.py"]


@posix_only
@pytest.mark.parametrize(
    "fault",
    [
        "import os\ndel os.fork",
        "import os\ndef refuse(): raise BlockingIOError\nos.fork = refuse",
        "import os\nfork = os.fork\nos.fork = lambda: fork() or os.kill(os.getpid(), 9)",
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    ],
)
def test_start_needs_no_process_of_its_own(fault: str, archive: Archive) -> None:
    result = after(archive, fault)
    assert (result["sign"], result["bytecode"]) == (SIGNATURE, "compiled now, kept for the next start")
    assert archive.bytecode().exists()


@pytest.mark.parametrize("in_place", [True, False])
def test_archive_replaced_under_a_running_program(in_place: bool, archive: Archive, tmp_path: Path) -> None:
    process = archive.start("wait", "sign", "ca")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    target = archive.path if in_place else tmp_path / "new"
    target.write_bytes(b"something else")
    target.replace(archive.path)
    assert finish(process)["sign"] == SIGNATURE


# -- caches that cannot be trusted or used ---------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_damaged_cache_is_made_anew(damage: str, archive: Archive) -> None:
    archive.run("sign")
    sound = archive.library().read_bytes()
    for path in (archive.library(), archive.bytecode()):
        data = path.read_bytes()
        half = len(data) // 2
        changed = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        path.write_bytes({"cut": data[:half], "changed": changed, "emptied": b""}[damage])
    result = archive.run("sign")
    assert (result["sign"], result["bytecode"]) == (SIGNATURE, "compiled now: its checksum is wrong")
    assert archive.library().read_bytes() == sound
    assert archive.run("sign")["bytecode"] == str(archive.bytecode())


def unusable(kind: str, cache: Path) -> None:
    cache.parent.mkdir()
    if kind == "link":
        (cache.parent / "elsewhere").mkdir()
        cache.symlink_to(cache.parent / "elsewhere")
    elif kind == "file":
        cache.write_text("")
    elif kind == "writable by others":
        cache.mkdir()
        cache.chmod(0o777)
    elif kind == "foreign":
        cache.mkdir(0o700)
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(cache, 65534, 65534)
    elif kind == "read-only home":
        if os.geteuid() == 0:
            pytest.skip("root can write to a read-only directory")
        cache.parent.chmod(0o500)


@linux_only
@pytest.mark.parametrize("kind", ["link", "file", "writable by others", "foreign", "read-only home"])
def test_unusable_cache_is_left_alone_and_not_needed(kind: str, archive: Archive) -> None:
    unusable(kind, archive.cache)
    before = sorted(str(path) for path in archive.home.rglob("*"))
    result = archive.run("sign", "ca")
    assert result["sign"] == SIGNATURE
    assert result["library"].startswith("memory; cache: ")
    assert result["bytecode"].startswith("compiled at each start: ")
    assert sorted(str(path) for path in archive.home.rglob("*")) == before


@linux_only
@pytest.mark.parametrize("kind", ["link", "fifo", "writable by others", "foreign"])
def test_untrusted_files_are_replaced(kind: str, archive: Archive, tmp_path: Path) -> None:
    if kind == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    archive.run("sign")
    for path in (archive.library(), archive.bytecode()):
        if kind == "writable by others":
            path.chmod(0o666)
            continue
        if kind == "foreign":
            os.chown(path, 65534, 65534)
            continue
        elsewhere = path.rename(tmp_path / path.name)
        if kind == "link":
            path.symlink_to(elsewhere)
        else:
            os.mkfifo(path, 0o600)
    result = archive.run("sign")
    assert (result["sign"], result["library"]) == (SIGNATURE, str(archive.library()))
    for path in (archive.library(), archive.bytecode()):
        assert (path.is_symlink(), path.is_file(), path.stat().st_mode & 0o777) == (False, True, 0o600)
        assert path.stat().st_uid == os.geteuid()


@linux_only
def test_read_only_place_is_not_needed(archive: Archive) -> None:
    result = archive.run("sign", env={"SIKKERKEY_CACHE_DIR": "/proc/sikkerkey/mcp"})
    assert (result["sign"], result["library"][:7]) == (SIGNATURE, "memory;")


def test_temporary_file_where_there_is_no_memfd(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    environment = {"SIKKERKEY_CACHE_DIR": "none", "TMPDIR": str(tmp_path / "temporary")}
    result = archive.run("no-memfd", "sign", env=environment)
    assert (result["sign"], result["library"][:15]) == (SIGNATURE, "temporary file;")
    assert os.name == "nt" or not list((tmp_path / "temporary").iterdir())


def test_installed_cryptography_is_the_last_resort(damaged: Archive) -> None:
    damaged.flags = ["-I"]
    result = damaged.run("sign")
    assert (result["sign"], result["library"][:10]) == (SIGNATURE, "installed;")


def test_error_says_everything_that_was_tried(damaged: Archive) -> None:
    process = damaged.start("sign")
    _, errors = process.communicate(timeout=60)
    last = errors.splitlines()[-1]
    assert last.startswith("ImportError: cryptography cannot be loaded: cache: the archive was replaced or is damaged")
    assert last.endswith("; none is installed")


def test_library_that_could_not_be_loaded_is_tried_anew(damaged: Archive, built: Path) -> None:
    process = damaged.start("fail", "wait", "sign")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    shutil.copyfile(built, damaged.path)
    result = finish(process)
    assert "the archive was replaced or is damaged; none is installed" in result["fail"]
    assert (result["sign"], result["library"]) == (SIGNATURE, str(damaged.library()))


def test_stale_versions_are_swept(archive: Archive) -> None:
    archive.cache.mkdir(parents=True, mode=0o700)
    mark = "0123456789abcde"
    names = [f"rust-{mark}{n}.so" for n in range(9)] + [f"bytecode-{mark}{n}-x-y-0" for n in range(9)]
    mine = ["mine.txt", "rust-analyzer", "rust-projects", "rust-a", "rust-b", "rust-c", "tmp-mine", "bytecode-notes"]
    names += [f"tmp-1-{mark}f", *mine]
    for age, name in enumerate(names):
        (archive.cache / name).write_text("")
        os.utime(archive.cache / name, (1_000_000 - age, 1_000_000 - age))
    archive.run("sign")
    left = os.listdir(archive.cache)
    assert set(mine) <= set(left)
    kinds = [name.partition("-")[0] for name in left if name not in mine]
    assert sorted(kinds) == ["bytecode"] * 4 + ["rust"] * 4


# -- machines that are hard to live on -------------------------------------------------------------------------------


def inside(preparation: str, archive: Archive, *steps: str, empty: bool = False) -> dict[str, Any]:
    """Run it where the network has no interfaces and $1, its home, was prepared so; nothing of that is seen outside."""
    unshare = ["unshare", "--mount", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces of its own")
    home = "exec env -i" if empty else 'exec env -i HOME="$1"'
    script = f'set -e; {preparation}\n{home} "$@"'.replace('"$@"', '"${@:2}"')
    command = [*unshare, "bash", "-c", script, "bash", str(archive.home), archive.python]
    command += [*archive.flags, str(archive.path), *steps]
    pipe = subprocess.PIPE
    return finish(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={"PATH": os.defpath}))


@linux_only
def test_no_network_is_needed(archive: Archive) -> None:
    result = inside("test -z \"$(grep -v -e '|' -e 'lo:' /proc/net/dev)\"", archive, "sign", "ca")
    assert (result["sign"], result["library"]) == (SIGNATURE, str(archive.library()))


@linux_only
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ro", "Read-only file system"),
        ("noexec", "failed to map segment"),
        ("size=64k", "No space left on device"),
        ("size=1m,nr_inodes=1", "No space left on device"),
    ],
)
def test_home_that_cannot_hold_the_library_is_not_needed(options: str, reason: str, archive: Archive) -> None:
    prepare = f'mount -t tmpfs -o mode=0700,{options} none "$1"'
    result = inside(prepare, archive, "sign", "ca")
    assert result["sign"] == SIGNATURE
    assert result["library"].startswith("memory; cache: ")
    assert reason in result["library"]


@linux_only
def test_no_environment_at_all_is_enough(archive: Archive) -> None:
    """The home is then that of the password entry, which is replaced for the time of the test."""
    prepare = 'mount -t tmpfs none "$(getent passwd "$(id -u)" | cut -d: -f6)"'
    archive.python = "/usr/bin/python3"
    suitable = "import sys; sys.exit(sys.version_info < (3, 9, 2))"
    if not Path(archive.python).exists() or subprocess.run([archive.python, "-c", suitable], check=False).returncode:
        pytest.skip("the system has no suitable Python, and others may lie in that home")
    result = inside(prepare, archive, "sign", "ca", empty=True)
    assert result["sign"] == SIGNATURE


# -- other platforms, simulated --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "machine", "libc", "name"),
    [
        ("linux", "x86_64", "glibc 2.17", "linux-x86_64"),
        ("linux", "aarch64", "glibc 2.41", "linux-aarch64"),
        ("linux", "x86_64", None, "linux-musl-x86_64"),
        ("linux", "aarch64", None, "linux-musl-aarch64"),
        ("darwin", "arm64", None, "macos-arm64"),
        ("darwin", "x86_64", None, "macos-x86_64"),
        ("freebsd14", "amd64", None, "freebsd14-amd64"),
    ],
)
@posix_only
def test_platform_has_the_name_of_its_library(
    system: str, machine: str, libc: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confstr(_name: str) -> str:
        if libc is None:
            raise ValueError("unrecognized configuration name")  # what musl and macOS say
        return libc

    native = runtime_module("sikkerkey_native")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(os, "confstr", confstr)
    assert native.platform_name() == name


@pytest.mark.parametrize(("built_for", "name"), [("AMD64", "windows-amd64"), ("ARM64", "windows-arm64")])
def test_windows_platform_is_that_of_the_python(built_for: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    native = runtime_module("sikkerkey_native")
    monkeypatch.setattr(sys, "version", f"3.13.0 (tags/v3.13.0) [MSC v.1941 64 bit ({built_for})]")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        found = native.platform_name()
    assert found == name


def test_refusal_says_what_to_do_instead() -> None:
    native = runtime_module("sikkerkey_native")
    assert native.refusal("windows-arm64") == (
        "sikkerkey-mcp: error: this Python is for windows-arm64, but the archive is for linux-x86_64, windows-amd64: "
        "start this file with an amd64 Python, which Windows runs on this machine too\n"
    )
    assert native.refusal("linux-riscv64").endswith("use the archive for this platform, or one of those machines\n")


@pytest.mark.parametrize(
    ("platform", "environment", "cache"),
    [
        ("linux", {"HOME": "/home/u"}, "/home/u/.cache/sikkerkey-mcp"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, "/c/sikkerkey-mcp"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "c"}, "/home/u/.cache/sikkerkey-mcp"),
        ("darwin", {"HOME": "/Users/u"}, "/Users/u/Library/Caches/sikkerkey-mcp"),
        ("darwin", {"HOME": "/Users/u", "SIKKERKEY_CACHE_DIR": "/d"}, "/d"),
    ],
)
@posix_only
def test_cache_lies_where_the_platform_has_caches(
    platform: str, environment: dict[str, str], cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = runtime_module("sikkerkey_start")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runtime.cache_directory() == cache


# -- libraries that need others beside them, as those for musl do ---------------------------------------------------


def test_companion_libraries_lie_in_the_same_relative_place(
    built: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = runtime_module("sikkerkey_native")
    contents = [b"the library", b"its companion"]
    names = ["rust-0/cryptography/hazmat/bindings/_rust.abi3.so", "rust-0/cryptography.libs/libgcc_s.so.1"]
    packed = [zlib.compress(content)[2:-4] for content in contents]
    archive = home / "archive"
    archive.write_bytes(b"".join(packed))
    rows = [
        (name, sum(map(len, packed[:place])), len(packed[place]), len(content), hashlib.sha256(content).hexdigest())
        for place, (name, content) in enumerate(zip(names, contents))
    ]
    monkeypatch.setattr(native, "LIBRARIES", {"here": ("cryptography-0", tuple(rows))})
    library = native.Library(str(archive), "here", {})
    monkeypatch.setattr(library, "load", lambda path, way: (path, way))
    loaded, _ = library.from_cache()
    assert Path(loaded) == home / ".cache" / "sikkerkey-mcp" / names[0]
    assert (Path(loaded).parents[3] / "cryptography.libs" / "libgcc_s.so.1").read_bytes() == contents[1]
    assert {path.stat().st_mode & 0o777 for path in (home / ".cache" / "sikkerkey-mcp").rglob("*")} == {0o700, 0o600}
    with pytest.raises(OSError, match="needs another beside it"):
        library.from_memory()


@posix_only
def test_every_directory_of_the_cache_must_be_private(home: Path) -> None:
    native, name = runtime_module("sikkerkey_native"), "rust-0/a/b"
    native.publish(name, [b"x"])
    runtime = vars(native)["runtime"]
    os.close(runtime.open_private(name))
    (home / ".cache" / "sikkerkey-mcp" / "rust-0").chmod(0o777)
    with pytest.raises(PermissionError, match="rust-0 can be written by others"):
        runtime.open_private(name)


@posix_only
@pytest.mark.parametrize(("version", "found"), [(b"1.2.3", "1.2.3"), (b"1.2.4", ""), (b"1.10.0", ""), (b"", "")])
def test_musl_that_would_crash_is_noticed(version: bytes, found: str, tmp_path: Path) -> None:
    native = runtime_module("sikkerkey_native")
    (tmp_path / f"ld-musl-{os.uname().machine}.so.1").write_bytes(b"ELF\0" + version + b"\0code")
    assert native.old_musl(str(tmp_path)) == found
    assert native.old_musl(str(tmp_path / "none")) == ""
