"""The archive's start: one sentence for a Python that cannot run it, and no trust in what it finds on the machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sikkerkey_refusal
import sikkerkey_runtime
from sikkerkey_cli import doctor
from tests.support.archive_runs import (
    OTHER_PYTHONS,
    PROGRAM,
    ROOT,
    SIGNATURE,
    THIS_PLATFORM,
    Archive,
    build,
    find_python,
    finish,
    linux_only,
    posix_only,
)
from tests.support.harness import ARCHIVE
from tests.support.shell import Talk, Terminal

VAULT_ARCHIVE = ARCHIVE.with_name("sikkerkey-vault.pyz")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "program.pyz"
    build(path, "--platform", THIS_PLATFORM, "--source", str(PROGRAM))
    return path


@pytest.fixture(scope="module")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says "argv9" where the first one says "argv0"."""
    place = tmp_path_factory.mktemp("other")
    source = shutil.copytree(PROGRAM, place / "source") / "sikkerkey_mcp.py"
    source.write_text(source.read_text(encoding="utf-8").replace('"argv0"', '"argv9"'), encoding="utf-8")
    build(place / "program.pyz", "--platform", THIS_PLATFORM, "--source", str(source.parent))
    return place / "program.pyz"


@pytest.fixture
def archive(built: Path, tmp_path: Path) -> Archive:
    (tmp_path / "user").mkdir()
    return Archive(Path(shutil.copy(built, tmp_path)), tmp_path / "user")


@pytest.fixture(scope="module")
def unpacked_home(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `built` has been unpacked by this Python."""
    home = tmp_path_factory.mktemp("unpacked")
    Archive(built, home).run()
    return home


@pytest.fixture
def later(built: Path, unpacked_home: Path, tmp_path: Path) -> Archive:
    """An archive at a later start. Tests that use it leave its cache as it is."""
    return Archive(Path(shutil.copy(built, tmp_path)), unpacked_home)


@pytest.fixture
def cached(built: Path, unpacked_home: Path, tmp_path: Path) -> Archive:
    """An archive at a later start, with its own cache."""
    return Archive(Path(shutil.copy(built, tmp_path)), shutil.copytree(unpacked_home, tmp_path / "user"))


def flip_a_bit(path: Path, offset: int) -> None:
    """Its size and its times stay the same."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


IN_THE_LIBRARY = 2_000_000  # an offset, in the archive and in the library itself

# -- refusals --------------------------------------------------------------------------------------------------------


# A client's session with a server that cannot run: two notifications or broken lines, and four requests.
ASKED = "\n".join(
    [
        '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}',
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        "{",
        '{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}',
        '{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}',
        '{"jsonrpc": "2.0", "id": "x", "method": "resources/list"}',
    ]
)


def refusal(command: list[str], **settings: Any) -> str:
    """The sentence on stderr for a program without a client, which is also what a client of the server gets."""
    result = subprocess.run(command, input="", capture_output=True, text=True, check=False, **settings)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    served = subprocess.run(command, input=ASKED, capture_output=True, text=True, check=False, **settings)
    assert (served.returncode, served.stderr) == (1, result.stderr)
    opened, listed, called, other = (json.loads(line) for line in served.stdout.splitlines())
    sentence = result.stderr.rstrip("\n")
    assert opened["result"]["instructions"] == f"No SikkerKey tool works at present: {sentence}"
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["whoami"]
    assert called["result"] == {"content": [{"type": "text", "text": sentence}], "isError": True}
    assert (other["id"], other["error"]["message"]) == ("x", sentence)
    return str(result.stderr)


@pytest.mark.parametrize("name", ["python2.7", "python3.6", "python3.7", "python3.8", "pypy3", "python3.13t"])
def test_unsuitable_python_is_refused_in_one_sentence(name: str, built: Path) -> None:
    assert "cannot run this program; use 64-bit CPython 3.9.2 or newer" in refusal([find_python(name), str(built)])


def test_refusal_names_what_was_found(built: Path) -> None:
    for change, found in (
        ("sys.version_info = (3, 9, 1)", "Python 3.9.1 at"),
        ("sys.implementation.name = 'pypy'", "pypy (Python 3."),
        ("sys.version = '3.14.0 free-threading build'", "a free-threaded build of Python 3."),
        ("sys.maxsize = 2**31 - 1", "a 32-bit build of Python 3."),
    ):
        code = f"import sys, runpy\n{change}\nrunpy.run_path({str(built)!r}, run_name='__main__')"
        assert refusal([sys.executable, "-c", code]).startswith(f"sikkerkey-mcp: error: {found}"), change


def test_newer_python_is_tried_after_a_warning() -> None:
    newest = "{}.{}".format(*doctor.PYTHONS[1])
    for archive, words in ((ARCHIVE, ["tools"]), (VAULT_ARCHIVE, ["--help"])):
        code = f"import sys, runpy\nsys.version_info = (3, 99, 0, 'final', 0)\nsys.argv = {[str(archive), *words]}\n"
        code += f"runpy.run_path({str(archive)!r}, run_name='__main__')"
        command, env = [sys.executable, "-c", code], {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME")}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        warning = f"warning: Python 3.99 is newer than {newest}, the newest version that was tested"
        assert (result.returncode, result.stderr) == (0, f"{archive.stem}: {warning}\n")
        assert result.stdout


def test_incomplete_python_is_refused_in_one_sentence() -> None:
    """As Debian's python3-minimal, or a build without OpenSSL or SQLite. None in sys.modules hides a module."""
    for archive, module in ((ARCHIVE, "json"), (VAULT_ARCHIVE, "sqlite3"), (VAULT_ARCHIVE, "ssl")):
        code = f"import sys, runpy\nsys.modules[{module!r}] = None\n"
        code += f"runpy.run_path({str(archive)!r}, run_name='__main__')"
        command, env = [sys.executable, "-c", code], {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
        result = subprocess.run(command, input="", capture_output=True, text=True, check=False, env=env)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
        sentence = result.stderr
        found = f"{archive.stem}: error: the Python at {sys.executable} has no usable module {module}; install all of"
        assert sentence.startswith(found), module


# Runs a program, and presses Ctrl-C when it imports a module.
INTERRUPTED = """
import importlib.abc, runpy, signal, sys

class Keyboard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                {then}

sys.meta_path.insert(0, Keyboard())
{run}
"""


def test_an_interrupted_import_ends_the_program_quietly() -> None:
    """Python swallows some interrupts. In an archive they end the program, too."""
    pipe, as_main = subprocess.PIPE, "run_name='__main__'"
    for program, module, run, then in (
        (ARCHIVE, "sikkerkey_mcp", f"runpy.run_path({str(ARCHIVE)!r}, {as_main})", "pass"),
        (ARCHIVE, "sikkerkey_runtime", f"runpy.run_path({str(ARCHIVE)!r}, {as_main})", "raise"),
        (VAULT_ARCHIVE, "vault.router", f"runpy.run_path({str(VAULT_ARCHIVE)!r}, {as_main})", "pass"),
        (ARCHIVE, "sikkerkey_redact", f"runpy.run_module('sikkerkey_cli', {as_main})", "raise"),
        (VAULT_ARCHIVE, "vault.router", f"runpy.run_module('vault', {as_main})", "raise"),
    ):
        code = f"import sys\nsys.argv = {[str(program), '--help']}\n"
        code += INTERRUPTED.format(module=module, run=run, then=then)
        ended = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=pipe, check=False, cwd=ROOT)
        assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b""), run


@posix_only
def test_an_interrupted_import_leaves_the_prompt_a_line_of_its_own() -> None:
    run = f"runpy.run_path({str(ARCHIVE)!r}, run_name='__main__')"
    code = INTERRUPTED.format(module="sikkerkey_mcp", run=run, then="pass")
    terminal = Terminal([sys.executable, "-c", f"import sys\nsys.argv = {[str(ARCHIVE), 'tools']}\n{code}"], {})
    assert terminal.end() == Talk(130, "\r\n")


def test_ctrl_c_stays_ignored_where_the_shell_ignores_it() -> None:
    run = f"runpy.run_path({str(ARCHIVE)!r}, run_name='__main__')"
    code = f"import signal, sys\nsys.argv = {[str(ARCHIVE), '--version']}\n"
    code += "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += INTERRUPTED.format(module="sikkerkey_cli.version", run=run, then="pass")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@linux_only
def test_platform_that_is_not_in_the_archive_is_refused(built: Path) -> None:
    change = "import os, types; os.uname = lambda: types.SimpleNamespace(machine='riscv64')"
    code = f"{change}\nimport runpy\nrunpy.run_path({str(built)!r}, run_name='__main__')"
    assert "this Python is for linux-" in refusal([sys.executable, "-c", code])


def test_damaged_archive_is_refused_in_one_sentence(archive: Archive) -> None:
    flip_a_bit(archive.path, IN_THE_LIBRARY)
    sentence = refusal([archive.python, "-I", "-S", str(archive.path)], env={"HOME": str(archive.home)})
    assert sentence.startswith("sikkerkey-mcp: error: the archive was replaced or is damaged: download it again")
    assert list(archive.cache.iterdir()) == []


# -- the usual start -------------------------------------------------------------------------------------------------


def test_first_and_later_starts_work(archive: Archive) -> None:
    archive.flags += ["-W", "error"]
    first = archive.run("sign", "ca")
    unpacked = archive.unpacked().stat()
    second = archive.run("sign", "ca")
    assert first["sign"] == second["sign"] == SIGNATURE
    assert first["ca"] == second["ca"] > 100
    assert first["bytecode"] == second["bytecode"]
    assert Path(first["bytecode"]).parent == archive.unpacked() / "sikkerkey_cli" / "__pycache__"
    assert first["library"] == second["library"] == str(archive.library())
    assert first["argv0"] == str(archive.path)
    assert archive.unpacked().stat().st_ino == unpacked.st_ino


def test_only_what_this_platform_needs_is_unpacked_and_searched(later: Archive) -> None:
    result = later.run()
    assert result["library"] == "not loaded yet"
    assert result["path"][0] == str(later.unpacked())
    assert str(later.path) not in result["path"]
    names = {path.name for path in later.unpacked().iterdir()}
    modules = {"_cffi_backend.py", "sikkerkey_cli", "sikkerkey_launch.py", "sikkerkey_mcp.py", "sikkerkey_unpack.py"}
    assert names - {"cryptography.libs", "__pycache__"} == {*modules, "certifi", "cryptography"}


def test_another_build_does_not_run_these_files(cached: Archive, other_build: Path) -> None:
    """Were the archive's name or time the key, a newer one in the same place would run the older one's code."""
    before = cached.path.stat()
    shutil.copyfile(other_build, cached.path)
    os.utime(cached.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cached.path.stat().st_size == before.st_size
    assert "argv9" in cached.run()


@posix_only
def test_cache_is_private(archive: Archive) -> None:
    before = os.umask(0)
    try:
        archive.run("sign")
    finally:
        os.umask(before)
    paths = (archive.cache, archive.unpacked(), archive.library(), archive.source())
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700, 0o600, 0o600]


@pytest.mark.parametrize("name", OTHER_PYTHONS)
def test_every_python_runs_it(name: str, later: Archive) -> None:
    later.python = find_python(name)  # all of them share what one has unpacked
    assert later.run("sign")["sign"] == SIGNATURE
    assert len(list(later.cache.iterdir())) == 1


@pytest.mark.parametrize("flags", [[], ["-I"], ["-S"], ["-E"], ["-OO"], ["-W", "error"], ["-P"]])
def test_interpreter_flags_do_not_matter(flags: list[str], later: Archive) -> None:
    if flags == ["-P"] and sys.version_info < (3, 11):
        pytest.skip("-P came with Python 3.11")
    later.flags = flags
    assert later.run("sign")["library"] == str(later.library())


@pytest.mark.parametrize("flag", [True, False])
def test_no_bytecode_is_kept_where_the_user_wants_none(flag: bool, archive: Archive) -> None:
    archive.flags = ["-I", "-B"] if flag else []
    result = archive.run("sign", env={"HOME": str(archive.home), "PYTHONDONTWRITEBYTECODE": "1"})
    assert result["sign"] == SIGNATURE
    assert result["bytecode"] == "compiled at each start: PYTHONDONTWRITEBYTECODE or -B is set"
    assert list(archive.unpacked().rglob("*.pyc")) == []


def test_bytecode_stays_in_the_private_directory(later: Archive, tmp_path: Path) -> None:
    later.flags = []
    result = later.run(env={"HOME": str(later.home), "PYTHONPYCACHEPREFIX": str(tmp_path / "elsewhere")})
    assert later.unpacked() in Path(result["bytecode"]).parents


@posix_only
def test_empty_environment_is_enough(archive: Archive, tmp_path: Path) -> None:
    # HOME is then the password entry's, which a test must not write to: the cache cannot be named, so it is not used.
    assert archive.run("sign", env={"SIKKERKEY_CACHE_DIR": "relative"}, cwd=tmp_path)["sign"] == SIGNATURE
    assert not (tmp_path / "relative").exists()


@posix_only
def test_closed_standard_stream_stays_closed(archive: Archive) -> None:
    """Or the program would take what the start has opened for its input."""
    command = ["sh", "-c", 'exec "$@" 0<&-', "sh", archive.python, *archive.flags, str(archive.path), "stdin"]
    for _ in ("first start", "later start"):
        done = subprocess.run(command, capture_output=True, check=True, env={"HOME": str(archive.home)})
        assert json.loads(done.stdout)["stdin"] is False


@pytest.mark.parametrize("name", ["with space.pyz", "quo'te\".pyz", "tø-日本.pyz", "no-suffix"])
def test_any_path_works(name: str, later: Archive) -> None:
    if os.name == "nt" and '"' in name:
        pytest.skip("Windows has no such file names")
    later.path = later.path.rename(later.path.with_name(name))
    assert later.run("sign", "ca")["sign"] == SIGNATURE


def test_links_and_relative_paths_work(later: Archive, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(later.path)
    later.path = Path("link")
    assert later.run("sign", "ca", cwd=tmp_path)["argv0"] == "link"


def test_hostile_modules_are_not_loaded(archive: Archive, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    modules = ("sikkerkey_runtime.py", "sikkerkey_unpack.py", "sikkerkey_launch.py", "_cffi_backend.py")
    for name in ("json.py", *modules, "cryptography/__init__.py", "certifi/__init__.py"):
        (hostile / name).parent.mkdir(parents=True, exist_ok=True)
        (hostile / name).write_text("raise SystemExit('hostile')")
    archive.flags = []
    assert archive.run("sign", "ca", cwd=hostile)["sign"] == SIGNATURE
    (hostile / "json.py").unlink()  # on PYTHONPATH it would replace the standard library's, as the user asked
    environment = {"HOME": str(archive.home), "PYTHONPATH": str(hostile)}
    assert archive.run("sign", "ca", cwd=hostile, env=environment)["sign"] == SIGNATURE


def test_six_first_starts_together_all_work(archive: Archive) -> None:
    results = [finish(process) for process in [archive.start("sign") for _ in range(6)]]
    assert {(result["sign"], result["library"]) for result in results} == {(SIGNATURE, str(archive.library()))}
    assert list(archive.cache.iterdir()) == [archive.unpacked()]


def waiting(archive: Archive, *steps: str) -> subprocess.Popen[str]:
    """A process that did the steps before "wait" and waits for a line."""
    process = archive.start(*steps)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("in_place", [True, False])
def test_archive_replaced_under_a_running_program(in_place: bool, later: Archive, tmp_path: Path) -> None:
    process = waiting(later, "wait", "sign", "ca")
    target = later.path if in_place else tmp_path / "new"
    target.write_bytes(b"something else")
    target.replace(later.path)
    assert finish(process)["sign"] == SIGNATURE


# -- caches that cannot be trusted or used ---------------------------------------------------------------------------


def description(archive: Archive) -> sikkerkey_runtime.Archive:
    """What the start reads from the archive, with the files of its cache."""
    files = []
    for path in archive.unpacked().rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            name = path.relative_to(archive.unpacked()).as_posix()
            files.append(sikkerkey_runtime.File("", name, path.stat().st_size, ""))
    made = object.__new__(sikkerkey_runtime.Archive)
    vars(made).update(cache=str(archive.cache), directory=str(archive.unpacked()), files=files)
    return made


def damage(kind: str, path: Path) -> None:
    data = path.read_bytes()
    half = len(data) // 2
    changed = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
    if kind == "removed":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:half], "changed": changed, "emptied": b""}[kind])


DAMAGES = ["cut", "changed", "emptied", "removed"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_cache_is_replaced(kind: str, cached: Archive) -> None:
    path = cached.source() if kind in ("changed", "removed") else cached.library()
    data = path.read_bytes()
    damage(kind, path)
    result = cached.run("sign")
    assert (result["sign"], result["library"]) == (SIGNATURE, str(cached.library()))
    assert path.read_bytes() == data
    assert list(cached.cache.iterdir()) == [cached.unpacked()]


def test_every_damage_to_any_file_is_noticed(cached: Archive, tmp_path: Path) -> None:
    described = description(cached)
    assert described.is_unpacked()
    for path in (cached.library(), cached.source()):
        whole = shutil.copy2(path, tmp_path / "whole")
        for kind in DAMAGES:
            damage(kind, path)
            assert not described.is_unpacked(), (path, kind)
            shutil.copy2(whole, path)
            assert described.is_unpacked()


@linux_only
def test_library_that_only_its_digest_betrays_is_not_loaded(cached: Archive) -> None:
    flip_a_bit(cached.library(), IN_THE_LIBRARY)
    result = cached.run("sign")
    assert (result["sign"], result["library"][:14]) == (SIGNATURE, "memory; cache:")
    assert result["library"].endswith("was damaged")
    assert cached.run("sign")["library"] == str(cached.library())


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
def test_unusable_cache_is_left_alone_and_not_required(kind: str, archive: Archive) -> None:
    unusable(kind, archive.cache)
    before = sorted(str(path) for path in archive.home.rglob("*"))
    result = archive.run("sign", "ca")
    assert result["sign"] == SIGNATURE
    assert result["library"].startswith("memory; cache: ")
    assert result["bytecode"].startswith("compiled at each start: ")
    assert sorted(str(path) for path in archive.home.rglob("*")) == before


def distrust(kind: str, path: Path, elsewhere: Path) -> None:
    """Make a file or directory of the cache one that another user could have written."""
    if kind == "writable by others":
        path.chmod(0o777)
    elif kind == "foreign":
        os.chown(path, 65534, 65534)
    elif kind == "link":
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    else:
        path.rename(elsewhere)
        os.mkfifo(path, 0o600)


UNTRUSTED = ["link", "fifo", "writable by others", "foreign"]


@linux_only
@pytest.mark.parametrize("kind", UNTRUSTED)
def test_untrusted_files_are_replaced(kind: str, cached: Archive, tmp_path: Path) -> None:
    if kind == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    places = {"link": cached.library(), "fifo": cached.source(), "foreign": cached.source()}
    path = places.get(kind, cached.unpacked())
    distrust(kind, path, tmp_path / "elsewhere")
    result = cached.run("sign")
    assert (result["sign"], result["library"]) == (SIGNATURE, str(cached.library()))
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert path.stat().st_uid == os.geteuid()


@linux_only
def test_no_untrusted_file_or_directory_passes_as_unpacked(cached: Archive, tmp_path: Path) -> None:
    described = description(cached)
    for path in (cached.library(), cached.source(), cached.unpacked(), cached.cache):
        kept = path.stat()
        for kind in UNTRUSTED if os.geteuid() == 0 else UNTRUSTED[:3]:
            distrust(kind, path, tmp_path / "elsewhere")
            assert not described.is_unpacked(), (path, kind)
            if kind in ("link", "fifo"):
                path.unlink()
                (tmp_path / "elsewhere").rename(path)
            else:
                path.chmod(kept.st_mode)
                os.chown(path, kept.st_uid, kept.st_gid)
            assert described.is_unpacked()


@linux_only
def test_read_only_place_is_not_required(archive: Archive) -> None:
    result = archive.run("sign", env={"SIKKERKEY_CACHE_DIR": "/proc/sikkerkey/mcp"})
    assert (result["sign"], result["library"][:7]) == (SIGNATURE, "memory;")


def test_temporary_file_where_there_is_no_memfd(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    environment = {"SIKKERKEY_CACHE_DIR": "none", "TMPDIR": str(tmp_path / "temporary")}
    result = archive.run("no-memfd", "sign", env=environment)
    assert (result["sign"], result["library"][:15]) == (SIGNATURE, "temporary file;")
    assert os.name == "nt" or not list((tmp_path / "temporary").iterdir())


def test_temporary_files_that_windows_kept_are_removed_by_a_later_process(launch: Any, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    old, new, other = (place / name for name in ("program-a1_bcdef", "program-a2_bcdef", "program-of-somebody"))
    for directory in (old, new, other):
        (directory / "cryptography").mkdir(parents=True)
        (directory / "cryptography" / "_rust.pyd").touch()
    for directory in (old, other):
        os.utime(directory, (0, 0))
    launch.remove_left(str(place), "program-")
    assert sorted(place.iterdir()) == [new, other]


@linux_only
def test_error_says_everything_that_was_tried_and_the_next_call_tries_again(cached: Archive, built: Path) -> None:
    process = waiting(cached, "wait", "fail", "wait", "sign")
    assert process.stdin is not None
    assert process.stdout is not None
    flip_a_bit(cached.library(), IN_THE_LIBRARY)
    flip_a_bit(cached.path, IN_THE_LIBRARY)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    shutil.copyfile(built, cached.path)
    result = finish(process)
    damaged = "the archive was replaced or is damaged"
    assert result["fail"].startswith("cryptography cannot be loaded: cache: ")
    assert result["fail"].endswith(f"was damaged; memory: {damaged}; temporary: {damaged}")
    assert (result["sign"], result["library"][:7]) == (SIGNATURE, "memory;")


MARK = "0123456789abcde"


def test_old_builds_are_swept(archive: Archive) -> None:
    """Nothing else is: SIKKERKEY_CACHE_DIR may name a directory that the user keeps other things in."""
    archive.cache.mkdir(parents=True, mode=0o700)
    mine = ["mine.txt", "sikkerkey-mcp-notes", f"sikkerkey-{MARK}0-x", "tmp-mine", "tmp-1-mine", f"tmp-1-{MARK}f-mine"]
    builds = [f"sikkerkey-mcp-{MARK}{number}-linux-x86_64" for number in range(9)]
    for age, name in enumerate([*mine, *builds, f"tmp-1-{MARK}f"]):
        (archive.cache / name).mkdir()
        os.utime(archive.cache / name, (1_000_000 - age, 1_000_000 - age))
    archive.run("sign")
    left = {path.name for path in archive.cache.iterdir()}
    assert left >= {*mine, *builds[:3]}
    assert len(left) == len(mine) + 4


@posix_only
def test_build_that_a_process_runs_from_is_not_swept(archive: Archive, other_build: Path) -> None:
    process = waiting(archive, "wait", "sign")
    used = archive.unpacked()
    for number in range(9):
        (archive.cache / f"sikkerkey-mcp-{MARK}{number}-linux-x86_64").mkdir()
    os.utime(used, (1_000_000, 1_000_000))
    newer = Archive(other_build, archive.home)
    newer.run()
    assert used.exists()
    assert finish(process)["sign"] == SIGNATURE
    shutil.rmtree(next(path for path in archive.cache.iterdir() if path != used and (path / "certifi").exists()))
    newer.run()
    assert not used.exists()


# -- restricted machines ----------------------------------------------------------------------------------------------


def inside(preparation: str, archive: Archive, *steps: str, empty: bool = False) -> dict[str, Any]:
    """Run it without network interfaces, after a script has prepared $1, its home. Nothing outside sees that."""
    unshare = ["unshare", "--mount", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not create namespaces")
    home = "exec env -i" if empty else 'exec env -i HOME="$1"'
    script = f'set -e; {preparation}\n{home} "$@"'.replace('"$@"', '"${@:2}"')
    command = [*unshare, "bash", "-c", script, "bash", str(archive.home), archive.python]
    command += [*archive.flags, str(archive.path), *steps]
    pipe = subprocess.PIPE
    return finish(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={"PATH": os.defpath}))


@linux_only
def test_no_network_is_required(archive: Archive) -> None:
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
def test_home_that_cannot_hold_the_library_is_not_required(options: str, reason: str, archive: Archive) -> None:
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


@posix_only
def test_platform_has_the_name_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_confstr(_name: str) -> str:
        raise ValueError("unrecognized configuration name")  # what musl and macOS say

    for system, machine, glibc, name in (
        ("linux", "x86_64", True, "linux-x86_64"),
        ("linux", "aarch64", True, "linux-aarch64"),
        ("linux", "x86_64", False, "linux-musl-x86_64"),
        ("linux", "aarch64", False, "linux-musl-aarch64"),
        ("darwin", "arm64", False, "macos-arm64"),
        ("darwin", "x86_64", False, "macos-x86_64"),
        ("freebsd14", "amd64", False, "freebsd14-amd64"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", system)
            patch.setattr(os, "uname", lambda machine=machine: SimpleNamespace(machine=machine))
            patch.setattr(os, "confstr", (lambda _name: "glibc 2.17") if glibc else no_confstr)
            found = sikkerkey_runtime.platform_name()
        assert found == name


@pytest.mark.parametrize(("built_for", "name"), [("AMD64", "windows-amd64"), ("ARM64", "windows-arm64")])
def test_windows_platform_is_that_of_the_python(built_for: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version", f"3.13.0 (tags/v3.13.0) [MSC v.1941 64 bit ({built_for})]")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        found = sikkerkey_runtime.platform_name()
    assert found == name


def test_refusal_says_what_to_do_instead() -> None:
    supported = ["linux-x86_64", "windows-amd64"]
    assert sikkerkey_refusal.unsupported("sikkerkey-mcp", "windows-arm64", supported) == (
        "sikkerkey-mcp: error: this Python is for windows-arm64, but the archive is for linux-x86_64, windows-amd64: "
        "start it with an amd64 Python, which also runs on this machine"
    )
    other = sikkerkey_refusal.unsupported("sikkerkey-mcp", "linux-riscv64", supported)
    assert other.endswith("use the archive for this platform, or another machine")


@posix_only
def test_cache_lies_where_the_platform_has_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, environment, cache in (
        ("linux", {"HOME": "/home/u"}, "/home/u/.cache/sikkerkey-mcp"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, "/c/sikkerkey-mcp"),
        ("linux", {"HOME": "/home/u", "XDG_CACHE_HOME": "c"}, "/home/u/.cache/sikkerkey-mcp"),
        ("darwin", {"HOME": "/Users/u"}, "/Users/u/Library/Caches/sikkerkey-mcp"),
        ("darwin", {"HOME": "/Users/u", "SIKKERKEY_CACHE_DIR": "/d"}, "/d"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", platform)
            patch.delenv("XDG_CACHE_HOME")
            for name, value in environment.items():
                patch.setenv(name, value)
            assert sikkerkey_runtime.cache_directory("sikkerkey-mcp") == cache


# -- musl, whose library needs another beside it ---------------------------------------------------------------------


def in_the_archive(name: str) -> Any:
    """A module of runtime/python, which only an archive can import by its name."""
    spec = importlib.util.spec_from_file_location(f"{name} of the archive", ROOT / "runtime" / "python" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """sikkerkey_launch, which imports sikkerkey_unpack by its name."""
    monkeypatch.setitem(sys.modules, "sikkerkey_unpack", in_the_archive("sikkerkey_unpack"))
    return in_the_archive("sikkerkey_launch")


@posix_only
def test_musl_that_would_crash_is_noticed(launch: Any, tmp_path: Path) -> None:
    for version, found in ((b"1.2.3", "1.2.3"), (b"1.2.4", ""), (b"1.10.0", ""), (b"", "")):
        (tmp_path / f"ld-musl-{os.uname().machine}.so.1").write_bytes(b"ELF\0" + version + b"\0code")
        assert launch.old_musl(str(tmp_path)) == found
    assert launch.old_musl(str(tmp_path / "none")) == ""


@posix_only
def test_musl_libraries_are_loaded_with_both_files_or_not_at_all(
    launch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cryptography/hazmat/bindings/_rust.abi3.so", "cryptography.libs/libgcc_s.so.1")
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    files = [sikkerkey_runtime.File("native/linux-musl-x86_64", *row) for row in zip(names, (1, 1), digests)]
    description = object.__new__(sikkerkey_runtime.Archive)
    vars(description).update(program="p", files=files, cache_failure="none", path=tmp_path / "archive.zip")
    with zipfile.ZipFile(description.path, "w") as archive:
        for name in names:
            archive.writestr(f"native/linux-musl-x86_64/{name}", name)
    library = launch.Library(description)
    monkeypatch.setattr(launch, "load", lambda path: (Path(path), (Path(path).parents[3] / names[1]).read_bytes()))
    (path, companion), place = library.from_temporary()
    assert (str(path).endswith(names[0]), companion, place) == (True, names[1].encode(), "temporary file")
    with pytest.raises(OSError, match="needs another beside it"):
        library.from_memory()
    monkeypatch.setattr(launch, "old_musl", lambda: "1.2.3")
    with pytest.raises(ImportError, match=r"it needs musl 1\.2\.4 or newer, this is musl 1\.2\.3"):
        library.create_module(None)
