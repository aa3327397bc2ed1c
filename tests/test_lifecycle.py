"""What ends the process, and what does not. It must exit with status 0 and write nothing more.

Where calls are running, the vault does not answer them until the process has exited.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
from tests.support import sample_tools, trusting_server
from tests.support.faulty_vault import FaultyVault
from tests.support.harness import (
    SOURCE_COMMAND,
    TIMEOUT_S,
    UNLIMITED,
    CannedResponse,
    ReceivedRequest,
    Recorder,
    make_slot,
)
from tests.support.schema_check import CheckedServer, check_line, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX systems")

F_SETPIPE_SZ = 1031  # Linux's; fcntl names it from Python 3.10 on
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}

ENDINGS: dict[str, Callable[[CheckedServer], None]] = {
    "end of input": lambda server: server.process.stdin.close() if server.process.stdin else None,
    **{name: lambda server, name=name: server.process.send_signal(getattr(signal, name))  # type: ignore[misc]
       for name in ("SIGINT", "SIGTERM", "SIGHUP")},
}  # fmt: skip


def line(method: str, request_id: Any = 1, **params: Any) -> bytes:
    """A request as a line."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode() + b"\n"


@pytest.fixture
def started(home: Path, recorder: Recorder) -> Iterator[CheckedServer]:
    make_slot(home, recorder.url)
    with CheckedServer(trusting_server.COMMAND) as server:
        server.initialize()
        yield server


@pytest.fixture
def held(recorder: Recorder) -> Iterator[threading.Event]:
    """Set this to let the vault answer."""
    gate = threading.Event()

    def answer(_seen: ReceivedRequest) -> CannedResponse:
        gate.wait()
        return CannedResponse()

    recorder.answer = answer
    yield gate
    gate.set()


def assert_exit(server: CheckedServer, end: Callable[[CheckedServer], None]) -> None:
    """Ends `server`, which must exit quietly."""
    before = len(server.lines)
    end(server)
    assert server.ended() == (0, b"")
    assert server.lines[before:] == []


@pytest.mark.parametrize("name", ENDINGS)
def test_an_idle_process_ends_quietly(started: CheckedServer, name: str) -> None:
    assert_exit(started, ENDINGS[name])


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.peer(11)
def test_running_calls_are_abandoned_at_the_end(
    started: CheckedServer, recorder: Recorder, held: threading.Event, name: str
) -> None:
    for _ in range(40):  # 32 of them run, the others wait
        started.start_call("whoami")
    wait_until(lambda: len(recorder.seen) == 32)
    assert_exit(started, ENDINGS[name])


@pytest.mark.parametrize("name", ENDINGS)
def test_the_end_may_come_before_initialize(home: Path, recorder: Recorder, name: str) -> None:
    make_slot(home, recorder.url)
    with CheckedServer() as server:
        server.request("ping")
        assert_exit(server, ENDINGS[name])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="masks of signals are read from Linux's /proc")
def test_signals_wait_for_a_thread_of_their_own(started: CheckedServer) -> None:
    """A handler in the main thread would not see one that comes just before it reads the next line."""
    status = Path(f"/proc/{started.process.pid}/status").read_text(encoding="utf-8")
    (blocked,) = (int(row.split()[1], 16) for row in status.splitlines() if row.startswith("SigBlk"))
    assert [name for name in ENDINGS if name.startswith("SIG") and not blocked >> getattr(signal, name) - 1 & 1] == []


THREADLESS = """
import threading
import sikkerkey_mcp
def refuse(*_):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
sikkerkey_mcp.main([])
"""


@pytest.mark.parametrize("name", ENDINGS)
def test_a_server_without_further_threads_serves_and_ends(home: Path, recorder: Recorder, name: str) -> None:
    make_slot(home, recorder.url)
    with CheckedServer([sys.executable, "-c", THREADLESS]) as server:
        server.initialize()
        assert len(server.request("tools/list")["result"]["tools"]) == len(sikkerkey_mcp.TOOLS)
        refused = server.call("whoami")
        assert refused["content"][0]["text"] == "the system cannot start another thread; nothing was sent"
        assert_exit(server, ENDINGS[name])


def test_an_input_that_is_empty_from_the_start_ends_the_process(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    empty = subprocess.DEVNULL
    ended = subprocess.run(SOURCE_COMMAND, stdin=empty, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


# A client on bare descriptors: the reading threads of `Server` would hide what these tests look at.


class ServerProcess:
    """The server on given ends of pipes or sockets."""

    def __init__(self, stdin: int, stdout: int, command: Sequence[str] = SOURCE_COMMAND) -> None:
        env = {**UNLIMITED, **os.environ}
        self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=env)
        for theirs in {stdin, stdout}:
            os.close(theirs)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT_S)

    def assert_exit(self) -> None:
        """Waits for the process, which must exit quietly."""
        assert self.process.wait(TIMEOUT_S) == 0
        assert self.process.communicate()[1] == b""


class Pipes:
    """Two pipes: `write` leads to the server's stdin, `read` comes from its stdout. Little fills `small` ones."""

    def __init__(self, *, small: bool = False) -> None:
        self.stdin, self.write = os.pipe()
        self.read, self.stdout = os.pipe()
        self._ours = {self.write, self.read}
        if small and sys.platform == "linux":
            for descriptor in (self.stdin, self.stdout):
                fcntl.fcntl(descriptor, F_SETPIPE_SZ, 4096)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_exception: object) -> None:
        for descriptor in list(self._ours):
            self.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Closes one of our two ends."""
        self._ours.remove(descriptor)
        os.close(descriptor)

    def read_lines(self, count: int) -> list[Any]:
        """The next messages."""
        data = b""
        while data.count(b"\n") < count:
            assert select.select([self.read], [], [], TIMEOUT_S)[0], "no output"
            piece = os.read(self.read, 65_536)
            assert piece, "the output ended"
            data += piece
        lines = data.splitlines(keepends=True)
        for text in lines:
            check_line(text, {})
        return [json.loads(text) for text in lines]


@pytest.fixture
def pipes(home: Path, recorder: Recorder) -> Iterator[Pipes]:
    make_slot(home, recorder.url)
    with Pipes() as made:
        yield made


PONG = {"jsonrpc": "2.0", "id": 1, "result": {}}
UNREADABLE = "the line is not a JSON message in UTF-8"


def test_a_closed_stdout_ends_the_process_though_nothing_is_written(pipes: Pipes) -> None:
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("ping"))
        assert pipes.read_lines(1) == [PONG]
        pipes.close(pipes.read)
        server.assert_exit()


def test_an_answer_into_a_closed_stdout_ends_the_process(pipes: Pipes) -> None:
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("ping"))
        assert pipes.read_lines(1) == [PONG]
        pipes.close(pipes.read)
        with contextlib.suppress(BrokenPipeError):  # the process may have noticed already
            os.write(pipes.write, line("ping") * 10)
        server.assert_exit()


def test_a_calls_answer_into_a_closed_stdout_ends_the_process(
    pipes: Pipes, recorder: Recorder, held: threading.Event
) -> None:
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("initialize", **INITIALIZE) + line("tools/call", 2, name="whoami"))
        wait_until(lambda: len(recorder.seen) == 1)
        pipes.close(pipes.read)
        held.set()
        server.assert_exit()


@pytest.mark.parametrize("redirection", [">&-", "<&-"])
def test_a_stream_that_is_closed_from_the_start_ends_the_process(pipes: Pipes, redirection: str) -> None:
    with ServerProcess(
        pipes.stdin, pipes.stdout, ["sh", "-c", f'exec "$@" {redirection}', "sh", *SOURCE_COMMAND]
    ) as server:
        assert server.process.wait(TIMEOUT_S) == 0
        assert server.process.communicate()[1] == b""


def test_a_socket_that_is_reset_ends_the_process(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    ours, theirs = socket.socketpair()
    descriptor = theirs.detach()
    with ServerProcess(descriptor, descriptor) as server, ours:
        ours.sendall(line("ping"))
        assert select.select([ours], [], [], TIMEOUT_S)[0]
        ours.close()  # with an unread reply, which makes it a reset
        server.assert_exit()


SUBREAPER = """
import ctypes, os, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become ours, so their status can be had
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
start = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
parent = subprocess.Popen([sys.executable, "-c", start, *sys.argv[1:]])
signal.sigwait([signal.SIGUSR1])
parent.kill()
parent.wait()
status = os.wait()[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 99)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands an orphan's exit status on")
def test_a_killed_parent_ends_the_process_though_others_hold_its_pipes(
    home: Path, recorder: Recorder, held: threading.Event
) -> None:
    make_slot(home, recorder.url)
    with CheckedServer([sys.executable, "-c", SUBREAPER, *SOURCE_COMMAND]) as server:
        server.initialize()
        server.start_call("whoami")
        wait_until(lambda: recorder.seen)
        assert_exit(server, lambda server: server.process.send_signal(signal.SIGUSR1))


# What does not end it.


def fill(descriptor: int, lines: Iterator[bytes]) -> int:
    """Writes lines until none is accepted for half a second; returns how many, the last one being completed later."""
    os.set_blocking(descriptor, False)
    for count, text in enumerate(lines, 1):
        left = text
        while left and select.select([], [descriptor], [], 0.5)[1]:
            left = left[os.write(descriptor, left) :]
        if left:
            os.set_blocking(descriptor, True)
            threading.Thread(target=os.write, args=(descriptor, left)).start()  # goes through once it is read again
            return count
    raise AssertionError("the server took everything")


def numbered(tool: str, size: int) -> Iterator[bytes]:
    """Calls (pings if `tool` is empty) of about `size` bytes, numbered from 1, many more than may be accepted."""
    for number in range(1, 20_001):
        if tool:
            yield line("tools/call", number, name=tool, arguments={"pad": "x" * size})
        else:
            yield line("ping", number, pad="x" * size)


@pytest.mark.parametrize(("tool", "most"), [("", 6_000), ("echo", 1_200)])
def test_a_client_that_does_not_read_is_held_back_and_misses_nothing(home: Path, tool: str, most: int) -> None:
    with Pipes(small=True) as pipes, ServerProcess(pipes.stdin, pipes.stdout, sample_tools.COMMAND):
        os.write(pipes.write, line("initialize", 0, **INITIALIZE))
        assert len(pipes.read_lines(1)) == 1
        sent = fill(pipes.write, numbered(tool, 100))
        assert sent < most
        answers = [answer["id"] for answer in pipes.read_lines(sent)]
        assert sorted(answers) == list(range(1, sent + 1))
        os.write(pipes.write, line("ping"))
        assert pipes.read_lines(1) == [PONG]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("tool", ["", "echo"])
def test_a_signal_ends_a_process_whose_output_is_not_read(home: Path, name: str, tool: str) -> None:
    with Pipes() as pipes, ServerProcess(pipes.stdin, pipes.stdout, sample_tools.COMMAND) as server:
        os.write(pipes.write, line("initialize", 0, **INITIALIZE))
        assert len(pipes.read_lines(1)) == 1
        os.set_blocking(pipes.write, False)
        stuck(pipes.write, tool)
        server.process.send_signal(getattr(signal, name))
        server.assert_exit()


@pytest.mark.parametrize("tool", ["", "echo"])
def test_the_end_of_input_ends_a_process_whose_output_is_not_read(home: Path, tool: str) -> None:
    with Pipes() as pipes, ServerProcess(pipes.stdin, pipes.stdout, sample_tools.COMMAND) as server:
        os.write(pipes.write, line("initialize", 0, **INITIALIZE))
        assert len(pipes.read_lines(1)) == 1
        os.set_blocking(pipes.write, False)
        stuck(pipes.write, tool)
        pipes.close(pipes.write)
        server.assert_exit()


def test_the_end_of_a_socket_ends_a_process_whose_output_is_not_read(home: Path) -> None:
    ours, theirs = socket.socketpair()
    read, stdout = os.pipe()
    with ours, ServerProcess(theirs.detach(), stdout, sample_tools.COMMAND) as server:
        ours.setblocking(False)
        stuck(ours.fileno(), "")
        ours.shutdown(socket.SHUT_WR)
        server.assert_exit()
    os.close(read)


def test_a_slow_reader_gets_every_answer_though_its_input_has_ended(pipes: Pipes) -> None:
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("initialize", 0, **INITIALIZE) + line("tools/list") * 20)
        pipes.close(pipes.write)
        data = b""
        while piece := os.read(pipes.read, 32_768):
            data += piece
            time.sleep(0.06)  # this is the slow reader, not a wait for an outcome
        assert [json.loads(text)["id"] for text in data.splitlines()] == [0] + [1] * 20
        assert server.process.wait(TIMEOUT_S) == 0


def test_a_reader_of_single_bytes_gets_every_answer(pipes: Pipes) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(pipes.stdout, F_SETPIPE_SZ, 4096)
    with ServerProcess(pipes.stdin, pipes.stdout):
        os.write(pipes.write, line("initialize", 0, **INITIALIZE) + line("tools/list", 1) + line("ping", 2))
        data = b""
        while data.count(b"\n") < 3:
            data += os.read(pipes.read, 1)
        assert [json.loads(text)["id"] for text in data.splitlines()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("half", "answered"),
    [
        (line("ping", 2)[:-1], {**PONG, "id": 2}),
        (line("ping", 2)[:20], {"jsonrpc": "2.0", "error": {"code": -32700, "message": UNREADABLE}}),
    ],
    ids=["before its end", "in its middle"],
)
def test_an_input_that_ends_within_a_line_ends_the_process(pipes: Pipes, half: bytes, answered: Any) -> None:
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("ping"))
        assert pipes.read_lines(1) == [PONG]
        os.write(pipes.write, half)
        pipes.close(pipes.write)
        assert pipes.read_lines(1) == [answered]
        server.assert_exit()


def stuck(descriptor: int, tool: str) -> None:
    """Writes until the server takes no more."""
    for text in numbered(tool, 100):
        while text:
            if not select.select([], [descriptor], [], 0.3)[1]:
                return
            text = text[os.write(descriptor, text) :]  # noqa: PLW2901 (what is left of it)


def test_output_of_print_goes_to_stderr(home: Path) -> None:
    with CheckedServer(sample_tools.COMMAND) as server:
        server.initialize()
        assert server.call("print") == {"content": [{"type": "text", "text": "printed"}]}
        server.close()
        printed = b"printed by print\nprinted by write\nprinted to descriptor 1\n"
        assert server.ended() == (0, printed)
    assert len(server.lines) == 2


def test_output_of_print_never_reaches_the_client_without_stderr(home: Path) -> None:
    command = ["sh", "-c", f"exec {shlex.join(sample_tools.COMMAND)} 2>&-"]
    with CheckedServer(command) as server:
        server.initialize()
        assert server.call("print") == {"content": [{"type": "text", "text": "printed"}]}
        assert server.close() == 0
    assert len(server.lines) == 2


def test_a_stdin_in_non_blocking_mode_is_read_to_its_end(pipes: Pipes) -> None:
    os.set_blocking(pipes.stdin, False)
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        for _ in range(3):
            os.write(pipes.write, line("ping"))
            assert pipes.read_lines(1) == [PONG]
        pipes.close(pipes.write)
        server.assert_exit()


def test_a_stdout_in_non_blocking_mode_gets_large_messages_whole(pipes: Pipes) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(pipes.stdout, F_SETPIPE_SZ, 4096)
    os.set_blocking(pipes.stdout, False)
    with ServerProcess(pipes.stdin, pipes.stdout):
        os.write(pipes.write, line("initialize", 0, **INITIALIZE) + line("tools/list") * 8)
        assert [message["id"] for message in pipes.read_lines(9)] == [0] + [1] * 8


def test_two_copies_serve_side_by_side(started: CheckedServer, recorder: Recorder) -> None:
    with CheckedServer(trusting_server.COMMAND) as other:
        assert other.initialize()["result"]["protocolVersion"] == "2025-11-25"
        for server in (started, other, started, other):
            assert server.call("whoami") == {"content": [{"type": "text", "text": "{}"}], "structuredContent": {}}
        asked = [(server, server.start_call("whoami")) for _ in range(50) for server in (started, other)]
        assert ["isError" in server.reply(call)["result"] for server, call in asked] == [False] * 100
        assert_exit(other, ENDINGS["end of input"])
    assert "isError" not in started.call("whoami")
    nonces = [seen.headers["x-nonce"] for seen in recorder.seen]
    assert (len(nonces), len(set(nonces))) == (105, 105)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_500_calls_leave_at_most_32_connections_and_their_threads(home: Path) -> None:
    with FaultyVault() as vault:
        make_slot(home, vault.url)
        with CheckedServer(trusting_server.COMMAND) as server:
            server.initialize()
            call_many(server, 500)
            assert len(vault.seen) == 500
            assert vault.connections <= 32
            wait_until(lambda: len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) <= 36)  # one may be ending
        assert len({seen.headers["x-nonce"] for seen in vault.seen}) == 500


def call_many(server: CheckedServer, count: int) -> None:
    """Makes `count` calls, 100 at a time."""
    for _ in range(count // 100):
        asked = {server.start_call("whoami") for _ in range(100)}
        while asked:
            reply = server.read()
            assert reply["result"]["structuredContent"] == {}
            asked.remove(reply["id"])


def test_a_probe_with_server_discover_does_not_end_the_process(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    with CheckedServer() as server:
        assert server.request("server/discover")["error"] == {"code": -32601, "message": "there is no such method"}
        assert server.initialize()["result"]["protocolVersion"] == "2025-11-25"


def test_a_suspended_process_continues(started: CheckedServer) -> None:
    started.process.send_signal(signal.SIGSTOP)
    asked = started.start_call("whoami")
    started.process.send_signal(signal.SIGCONT)
    assert started.reply(asked)["result"]["structuredContent"] == {}


def test_calls_that_were_answered_while_it_was_suspended_are_not_lost(
    started: CheckedServer, recorder: Recorder, held: threading.Event
) -> None:
    asked = [started.start_call("whoami") for _ in range(32)]
    wait_until(lambda: len(recorder.seen) == 32)
    started.process.send_signal(signal.SIGSTOP)
    held.set()
    asked += [started.start_call("whoami") for _ in range(32)]
    started.process.send_signal(signal.SIGCONT)
    assert ["isError" in started.reply(call)["result"] for call in asked] == [False] * 64
    assert len(recorder.seen) == 64


def test_a_suspended_process_ends_when_it_is_resumed(started: CheckedServer) -> None:
    started.process.send_signal(signal.SIGSTOP)
    started.process.send_signal(signal.SIGTERM)
    assert_exit(started, lambda server: server.process.send_signal(signal.SIGCONT))


def test_sigpipe_does_not_end_it(started: CheckedServer) -> None:
    started.process.send_signal(signal.SIGPIPE)
    assert "isError" not in started.call("whoami")


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is set")
def test_a_process_that_was_suspended_in_the_middle_of_a_message_completes_it(pipes: Pipes) -> None:
    size = fcntl.fcntl(pipes.stdout, F_SETPIPE_SZ, 4096)
    with ServerProcess(pipes.stdin, pipes.stdout) as server:
        os.write(pipes.write, line("initialize", 0, **INITIALIZE))
        assert len(pipes.read_lines(1)) == 1
        os.write(pipes.write, line("tools/list"))
        wait_until(lambda: unread(pipes.read) == size)
        server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: ") T " in Path(f"/proc/{server.process.pid}/stat").read_text())
        server.process.send_signal(signal.SIGCONT)
        assert len(pipes.read_lines(1)[0]["result"]["tools"]) == len(sikkerkey_mcp.TOOLS)


def unread(descriptor: int) -> int:
    """The number of unread bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_without_an_agent_calls_say_what_to_do(home: Path) -> None:
    with CheckedServer() as server:
        server.initialize()
        result = server.call("whoami")
        assert (result["isError"], result["content"][0]["text"].splitlines()[0]) == (
            True,
            "no agent is installed on this computer",
        )
