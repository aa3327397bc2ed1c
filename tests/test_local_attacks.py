"""Files, links and variables that other users of a computer can prepare; test_identity.py has the simple cases."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_http
import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_tls
from sikkerkey_cli.__main__ import main
from tests.support.harness import (
    AGENT_ID,
    ARCHIVE,
    ARCHIVE_COMMAND,
    SOURCE_COMMAND,
    TIMEOUT_S,
    VAULT_ID,
    CannedResponse,
    Recorder,
    Server,
    make_slot,
)
from tests.support.leak_search import assert_unmarked, call_verbosely, source_env, verbose_server
from tests.support.rows import each_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners, modes, links and FIFOs are POSIX's")
as_root = hasattr(os, "getuid") and os.getuid() == 0
root_only = pytest.mark.skipif(not as_root, reason="only root can give files to another user and make devices")
NOBODY = 65534
OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"


@pytest.fixture
def slot(home: Path, recorder: Recorder) -> Path:
    """A good slot."""
    make_slot(home, recorder.url)
    return home / ".sikkerkey" / "agents" / AGENT_ID


def refusal() -> str:
    """The error message for the installed agent."""
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        sikkerkey_mcp.connect()
    return str(raised.value)


# files that are replaced between the check and the reading


def link_to_another(path: Path) -> None:
    """Replaces the file by a link to another private file of the same user."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    path.unlink()
    path.symlink_to(other)


def fifo(path: Path) -> None:
    """Replaces the file by a named pipe."""
    path.unlink()
    os.mkfifo(path, 0o600)


def readable_by_others(path: Path) -> None:
    """Makes the file readable by everybody."""
    path.chmod(0o644)


def directory(path: Path) -> None:
    """Replaces the file by a directory."""
    path.unlink()
    path.mkdir(mode=0o700)


def foreign(path: Path) -> None:
    """Replaces the file by one that belongs to another user."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)


def device(path: Path) -> None:
    """Replaces the file by an endless device."""
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


SWAPS = {
    link_to_another: "cannot be read: Too many levels of symbolic links",
    fifo: "is not a regular file",
    readable_by_others: "can be read or written by other users",
    directory: "cannot be read: Is a directory",
}
FOR_ROOT = {foreign: "belongs to another user", device: "is not a regular file"}


@pytest.mark.parametrize("name", ["identity.json", "private.pem"])
@pytest.mark.parametrize(
    ("swap", "words"),
    [*SWAPS.items(), *(pytest.param(swap, words, marks=root_only) for swap, words in FOR_ROOT.items())],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_file_that_is_replaced_after_the_check_is_refused(
    slot: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None], words: str, name: str
) -> None:
    look = sikkerkey_identity.check_private

    def look_and_swap(path: str, **rules: Any) -> None:
        look(path, **rules)
        if path == str(slot / name):
            swap(slot / name)

    monkeypatch.setattr(sikkerkey_identity, "check_private", look_and_swap)
    with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
        sikkerkey_identity.load_identity(AGENT_ID)
    assert str(refused.value) == f"{slot / name} {words}"


@root_only
def test_home_that_is_replaced_after_the_check_is_refused(
    home: Path, slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = sikkerkey_identity.check_private
    planted = home / "planted"
    shutil.copytree(home / ".sikkerkey", planted)
    for path in (planted, *planted.rglob("*")):
        os.chown(path, NOBODY, NOBODY)

    def look_and_swap(path: str, **rules: Any) -> None:
        look(path, **rules)
        if path == str(slot) and planted.exists():
            (home / ".sikkerkey").rename(home / "hidden")
            planted.rename(home / ".sikkerkey")

    monkeypatch.setattr(sikkerkey_identity, "check_private", look_and_swap)
    assert refusal() == f"{slot / 'identity.json'} belongs to another user"


# other kinds of files


@root_only
@pytest.mark.parametrize("name", ["identity.json", "private.pem"])
@pytest.mark.parametrize("number", [3, 5, 8])  # /dev/null, /dev/zero, /dev/random
def test_device_instead_of_a_file_is_refused(slot: Path, name: str, number: int) -> None:
    (slot / name).unlink()
    os.mknod(slot / name, stat.S_IFCHR | 0o600, os.makedev(1, number))
    assert refusal() == f"{slot / name} is not a regular file"


@each_of("stored", ["/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/environ", "/", "/etc/passwd"])
def test_key_path_outside_the_slot_is_refused(slot: Path, stored: str) -> None:
    if not os.path.lexists(stored):
        pytest.skip(f"there is no {stored} here")
    identity = json.loads((slot / "identity.json").read_text())
    (slot / "identity.json").write_text(json.dumps({**identity, "privateKeyPath": stored}))
    assert refusal()


@root_only
def test_hard_link_to_another_users_file_is_refused(slot: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copy2(slot / "private.pem", theirs)
    os.chown(theirs, NOBODY, NOBODY)
    (slot / "private.pem").unlink()
    os.link(theirs, slot / "private.pem")
    assert refusal() == f"{slot / 'private.pem'} belongs to another user"


def test_hard_link_to_the_key_is_accepted(slot: Path, tmp_path: Path) -> None:
    os.link(slot / "private.pem", tmp_path / "backup")
    sikkerkey_mcp.connect()


# a home that others can write to


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_agent_works_in_a_world_writable_home(home: Path, slot: Path, mode: int) -> None:
    home.chmod(mode)
    sikkerkey_mcp.connect()


@root_only
@pytest.mark.parametrize("depth", range(1, 4))
def test_directory_of_another_user_in_such_a_home_is_refused(home: Path, slot: Path, depth: int) -> None:
    home.chmod(0o777)
    planted = [slot, slot.parent, slot.parent.parent][depth - 1]
    os.chown(planted, NOBODY, NOBODY)
    assert refusal() == f"{planted} belongs to another user"
    assert main(["revoke", AGENT_ID]) == 1
    assert (slot / "private.pem").exists()


# a vault that names an agent


def test_unusual_but_valid_id_names_its_directory(
    home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, recorder.url)
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    monkeypatch.setattr(sikkerkey_http.KeepAliveHandler, "_put_back", lambda _self, connection: connection.close())
    unusual = ["CON", "nul", "COM1", "LPT9", "a" * 128, "A", "0", "a-", "a_", AGENT_ID.upper()]
    for agent in unusual:
        answer = json.dumps({"agentId": agent, "vaultId": VAULT_ID, "name": "n"}).encode()
        recorder.answer = lambda _seen, answer=answer: CannedResponse(201, answer)  # type: ignore[misc]
        assert main(["install", "0" * 64]) == 0, agent
        assert sikkerkey_identity.load_identity(agent).agent_id == agent
    assert {path.name for path in (home / ".sikkerkey" / "agents").iterdir()} == {*unusual, AGENT_ID}


# modules that others planted where Python searches

PLANTED = (
    "json.py", "re.py", "ssl.py", "socket.py", "http/__init__.py", "urllib/__init__.py", "email.py", "base64.py",
    "cryptography/__init__.py", "certifi/__init__.py", "_cffi_backend.py", "typing.py", "threading.py", "resource.py",
    "sikkerkey_mcp.py", "sikkerkey_cli/__init__.py", "sikkerkey_runtime.py", "sikkerkey_launch.py",
    "usercustomize.py", "sitecustomize.py", "encodings/__init__.py", "evil.py", "startup.py", "__main__.py",
)  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A directory of modules that write a file `ran` when they are executed."""
    place = tmp_path / "planted"
    for name in PLANTED:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"open({str(place / 'ran')!r}, 'a').write(__name__)\n")
    shutil.copytree(place, place / "lib" / f"python3.{sys.version_info[1]}" / "site-packages")
    return place


def serves(command: list[str], env: dict[str, str] | None = None) -> bytes:
    """Runs a session with one call; returns its stderr."""
    with Server(command, env) as server:
        server.initialize()
        assert server.call("whoami")["structuredContent"] == {}
        assert server.close() == 0
        server.end()
        return server.stderr


@pytest.mark.parametrize("flags", [["-I"], ["-E"], []], ids=["isolated", "without variables", "bare"])
@pytest.mark.parametrize("beside", [False, True], ids=["in the working directory", "beside the archive"])
def test_planted_modules_are_not_run(
    slot: Path, planted: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], beside: bool
) -> None:
    archive = Path(shutil.copy(ARCHIVE, planted / "sikkerkey-mcp.pyz")) if beside else ARCHIVE
    monkeypatch.chdir(planted)
    serves([sys.executable, *flags, str(archive), "serve"])
    assert not (planted / "ran").exists()


def test_configuration_does_not_start_a_planted_archive(
    slot: Path, planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (planted / ARCHIVE.name).write_text("raise SystemExit('planted')")
    monkeypatch.chdir(ARCHIVE.parent)
    monkeypatch.setattr(sys, "argv", [ARCHIVE.name])
    assert main(["config", "cursor"]) == 0
    entry = json.loads(capsys.readouterr().out)["mcpServers"]["sikkerkey"]
    monkeypatch.chdir(planted)
    serves([entry["command"], *entry["args"]])
    assert not (planted / "ran").exists()


def hostile_python(planted: Path) -> dict[str, str]:
    """Every variable of Python that names code or directories or changes how Python runs."""
    return {
        **{name: str(planted) for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX")},
        **{"PYTHONPLATLIBDIR": "lib", "PYTHONEXECUTABLE": str(planted / "evil.py")},
        **harmless_python(planted),
    }


def harmless_python(planted: Path) -> dict[str, str]:
    """The variables that are harmless even if Python obeys them."""
    return {
        "PYTHONSTARTUP": str(planted / "startup.py"),
        "PYTHONBREAKPOINT": "evil.run",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONDEVMODE": "1",
        "PYTHONIOENCODING": "utf-16",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "PYTHONINTMAXSTRDIGITS": "640",
        "PYTHONCASEOK": "1",
        "PYTHONNODEBUGRANGES": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }


def test_isolated_start_ignores_the_variables_of_python(slot: Path, planted: Path) -> None:
    stderr = serves([*ARCHIVE_COMMAND, "serve"], {**os.environ, **hostile_python(planted)})
    assert stderr == b""
    assert not (planted / "ran").exists()


def test_bare_start_survives_python_variables_without_paths(slot: Path, planted: Path) -> None:
    assert serves([sys.executable, str(ARCHIVE), "serve"], {**os.environ, **harmless_python(planted)}) == b""
    assert not (planted / "ran").exists()


# variables of the program

VALUES = ("../../x", "%2e%2e%2fx", "~nobody/x", "/dev/zero", "/proc/x\x1b[2J\n", "x" * 5_000)
# Together only if the program does not refuse them at its start.
MAY_BE_REFUSED = (("SIKKERKEY_HOME",), ("SIKKERKEY_AGENT_ID",), ("XDG_CACHE_HOME", "HOME"))
NOT_REFUSED = ("SIKKERKEY_CACHE_DIR", "SIKKERKEY_API_URL", "SIKKERKEY_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY", "TMPDIR")


def run(command: list[str], env: dict[str, str], sent: bytes) -> tuple[int, list[Any], str]:
    """Exit status, messages and stderr of a process that gets `sent` as its input."""
    done = subprocess.run(command, input=sent, env=env, capture_output=True, check=False, timeout=TIMEOUT_S)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_environment_variables_cannot_redirect_the_program(
    slot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    sent = b"".join(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n" for line in OPENING)
    for names, value in itertools.product((*MAY_BE_REFUSED, NOT_REFUSED), VALUES):
        status, messages, stderr = run([*ARCHIVE_COMMAND, "serve"], {**os.environ, **dict.fromkeys(names, value)}, sent)
        assert status in ((0,) if names is NOT_REFUSED else (0, 1)), (names, value)
        assert "Traceback" not in stderr, (names, value)
        assert "\x1b" not in stderr, (names, value)
        assert status == 0 or stderr.startswith("sikkerkey-mcp: error: "), (names, value)
        assert [message["id"] for message in messages] == ([1, 2] if status == 0 else []), (names, value)
    assert [*work.rglob("*")] == []
    assert {path.name for path in tmp_path.iterdir()} <= {"deep", "home"}


OPENING: list[dict[str, Any]] = [
    {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
    {"id": 2, "method": "ping"},
]


@pytest.mark.parametrize("kind", ["fifo", "directory", "/dev/zero", "/dev/null", "nothing", "text"])
def test_file_that_is_no_ca_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    bundle = tmp_path / "bundle"
    if kind == "fifo":
        os.mkfifo(bundle)
    elif kind == "directory":
        bundle.mkdir()
    elif kind == "text":
        bundle.write_text("no certificate")
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", kind if kind.startswith("/") else str(bundle))
    with pytest.raises(sikkerkey_mcp.ConfigError, match="the CA bundle cannot be read as PEM certificates"):
        sikkerkey_tls.tls_context()


def test_running_server_forgets_its_key_when_the_slot_is_replaced(slot: Path, recorder: Recorder) -> None:
    with verbose_server() as server:
        assert call_verbosely(server, "whoami", {})["result"]["structuredContent"] == {}
        shutil.rmtree(slot)
        slot.symlink_to("/nonexistent")
        assert call_verbosely(server, "whoami", {})["result"]["isError"]
    assert len(recorder.seen) == 1
    assert_unmarked(b"".join(server.lines))


def test_two_slots_never_share_a_key(home: Path, slot: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url, OTHER_ID)
    (slot / "identity.json").replace(slot.parent / OTHER_ID / "identity.json")
    with pytest.raises(sikkerkey_mcp.ConfigError, match="belongs to another agent than its directory says"):
        sikkerkey_mcp.connect(OTHER_ID)


def test_source_finds_its_own_modules_when_isolated(slot: Path, planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PYTHONEXECUTABLE: Python 3.11.2 obeys it under -I, too, and then misses its virtual environment."""
    monkeypatch.chdir(planted)
    env = {**os.environ, **hostile_python(planted)}
    del env["PYTHONEXECUTABLE"]
    serves([*SOURCE_COMMAND, "serve"], env)
    assert not (planted / "ran").exists()


# other processes of the same user

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="a process can forbid inspection on Linux only"
)

INSPECTED = """
import ctypes, os, signal
import sikkerkey_identity
if os.getuid() == 0:  # root may read every process
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: a change of the user has cleared it
for prepare in (bool, sikkerkey_identity.forbid_inspection):
    ready, tell = os.pipe()
    process = os.fork()
    if not process:
        prepare()
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    try:
        open(f"/proc/{process}/mem", "rb").close()
        print("read")
    except PermissionError:
        print("refused")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
"""


@on_linux
def test_another_process_of_the_user_cannot_read_the_memory() -> None:
    before, after = run_program(INSPECTED).split()
    if before == "refused":
        pytest.skip("this system lets no process read another")
    assert after == "refused"


DUMPABLE = f"""
import ctypes, subprocess, sys
import sikkerkey_identity
shown = "import ctypes; print(*(ctypes.CDLL(None).prctl(get, 0, 0, 0, 0) for get in (3, 39)))"  # and no new privileges
for with_key in (False, True):
    sikkerkey_identity.load_identity({AGENT_ID!r}, with_key=with_key)
    exec(shown)
    print(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True).stdout, end="")
"""


@on_linux
def test_a_process_with_the_key_forbids_inspection_and_its_children_are_as_before(slot: Path) -> None:
    without_key, child, with_key, child_of_key = run_program(DUMPABLE).splitlines()
    assert (with_key.split()[0], child_of_key) == ("0", child)
    assert without_key == child


def test_a_python_without_ctypes_signs_nevertheless(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert sikkerkey_identity.load_identity(AGENT_ID).key_pem


def run_program(program: str) -> str:
    """Runs Python code that imports this project's modules, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=source_env(), capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    return done.stdout
