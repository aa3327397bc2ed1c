"""The archive: the same bytes from every build, one sentence for a Python that cannot run it, and a loader that neither
trusts nor needs what it finds on the machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "archive"
# Of an empty message by an all-zero seed, computed by an installed cryptography.
SIGNATURE = (
    "8f895b3cafe2c9506039d0e2a66382568004674fe8d237785092e40d6aaf483e"
    "4fc60168705f31f101596138ce21aa357c0d32a064f423dc3ee4aa3abf53f803"
)
OTHER_PYTHONS = [f"python3.{minor}" for minor in range(9, 15)]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memfd and /proc are Linux's")
posix_only = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


def find_python(name: str) -> str:
    """The first NAME on the path that starts (a version manager's may not); skips where there is none."""
    for directory in os.get_exec_path():
        path = shutil.which(name, path=directory)
        if path and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
            return path
    pytest.skip(f"{name} is not on the path")


def build(output: Path, *options: str, python: str = sys.executable, **settings: Any) -> bytes:
    command = [python, "-I", str(ROOT / "build_zipapp.py"), "--output", str(output), *options]
    subprocess.run(command, check=True, capture_output=True, **settings)
    return output.read_bytes()


class Archive:
    """An archive and a home of its own to run it in."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path, self.home, self.cache = path, home, home / ".cache" / "sikkerkey-mcp"
        self.flags, self.python = ["-I", "-S"], sys.executable

    def start(self, *steps: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        environment = {"HOME": str(self.home)} if env is None else env
        command = [self.python, *self.flags, str(self.path), *steps]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=cwd)

    def run(self, *steps: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
        return finish(self.start(*steps, cwd=cwd, env=env))

    def library(self) -> Path:
        (path,) = self.cache.glob("rust-*")
        return path

    def bytecode(self) -> Path:
        (path,) = self.cache.glob("bytecode-*")
        return path


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, errors) == (0, "")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "program.pyz"
    build(path, "--source", str(DATA / "program"))
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


# -- the build -------------------------------------------------------------------------------------------------------


def test_every_build_gives_the_same_bytes(tmp_path: Path) -> None:
    far, near = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1"}, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "2"}
    first = build(tmp_path / "first.pyz", umask=0o077, cwd=tmp_path, env=far)
    second = build(tmp_path / "second.pyz", umask=0o002, cwd=ROOT, env=near)
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()


@pytest.mark.parametrize("name", OTHER_PYTHONS)
def test_every_python_builds_the_same_bytes(name: str, built: Path, tmp_path: Path) -> None:
    python = find_python(name)
    other = build(tmp_path / "other.pyz", "--source", str(DATA / "program"), python=python)
    assert hashlib.sha256(other).hexdigest() == hashlib.sha256(built.read_bytes()).hexdigest()


def test_members_are_those_of_the_list(tmp_path: Path) -> None:
    build(tmp_path / "members.pyz")
    with zipfile.ZipFile(tmp_path / "members.pyz") as file:
        assert file.testzip() is None
        names = sorted("native/PLATFORM/_rust" if name.startswith("native/") else name for name in file.namelist())
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.create_system for info in file.infolist()} == {3}
    assert names == (DATA / "members.txt").read_text(encoding="utf-8").split()


@posix_only
def test_archive_is_executable(built: Path) -> None:
    assert built.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert built.stat().st_mode & 0o777 == 0o755


def test_missing_wheels_and_no_index_are_said_plainly(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("build_zipapp.py", "LICENSE", "requirements", "runtime"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    command = [sys.executable, str(copy / "build_zipapp.py"), "--source", str(DATA / "program")]
    environment = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert "pip cannot get cryptography" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


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
    assert "this machine is linux-" in refusal([sys.executable, "-c", code])


# -- the loader ------------------------------------------------------------------------------------------------------


def test_first_and_later_starts_work(archive: Archive) -> None:
    first, second = archive.run("sign", "ca"), archive.run("sign", "ca")
    assert first["sign"] == second["sign"] == SIGNATURE
    assert first["ca"] == second["ca"] > 100
    assert first["bytecode"] == "compiled now, kept for the next start"
    assert second["bytecode"] == str(archive.bytecode())
    assert first["library"] == second["library"] == str(archive.library())
    assert first["argv0"] == str(archive.path)


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
    slow = {"zipfile", "tempfile", "hashlib", "pathlib", "importlib.resources", "ctypes"}
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
@pytest.mark.parametrize("kind", ["link", "fifo", "writable by others"])
def test_untrusted_files_are_replaced(kind: str, archive: Archive, tmp_path: Path) -> None:
    archive.run("sign")
    for path in (archive.library(), archive.bytecode()):
        if kind == "writable by others":
            path.chmod(0o666)
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


def test_stale_versions_are_swept(archive: Archive) -> None:
    archive.cache.mkdir(parents=True, mode=0o700)
    names = [f"rust-{n}.so" for n in range(9)] + [f"bytecode-{n}" for n in range(9)] + ["tmp-1-dead", "mine.txt"]
    for age, name in enumerate(names):
        (archive.cache / name).write_text("")
        os.utime(archive.cache / name, (1_000_000 - age, 1_000_000 - age))
    archive.run("sign")
    left = os.listdir(archive.cache)
    kinds = [name.partition("-")[0] for name in left]
    assert sorted(kinds) == ["bytecode"] * 4 + ["mine.txt"] + ["rust"] * 4
