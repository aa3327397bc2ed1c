"""The environment of one client's trial: an empty home, a vault, a registered agent, a log, time limits."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.support.harness import ARCHIVE
from tests.support.local_vault import LocalVault
from tools.clients.packages import BUILD_DIRECTORY, node_directory
from tools.clients.wire import INTERPRETER, Session, take_sessions

LOGS = BUILD_DIRECTORY / "logs"
COMMAND_MAX_S = 120.0
LINGER_MAX_S = 2.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEAD_PROXY = "http://127.0.0.1:9"  # the discard port: nothing listens there


class Failed(Exception):
    """A client did not do what it should."""


class Output(NamedTuple):
    """The output of a command."""

    stdout: str
    stderr: str


class Trial:
    """The environment of a client. Start the client only with `run`. `program` is the archive that is tried."""

    def __init__(self, name: str, directory: Path, program: Path = ARCHIVE) -> None:
        self.name, self.program = name, program
        self.home, self.work = directory / "home", directory / "work"
        for path in (self.home, self.work, directory / "tmp"):
            path.mkdir(mode=0o700)
        self.environment = _environment(self.home, directory / "tmp")
        self.log = LOGS / f"{name}.log"
        self.log.write_text("", encoding="utf-8")
        self.vault = LocalVault(directory / "vault")
        self.agent = ""
        self.servers_left = 0

    def install(self, **settings: str) -> str:
        """Registers an agent, which is pending, and returns its id. Raises Failed."""
        token = self.vault.owner("agent-token", "--scopes", "all")
        address = {"SIKKERKEY_API_URL": self.vault.url}
        stdout = self.archive("install", "-", "--name", self.name, stdin_text=token, **address, **settings)
        found = re.search(r"agent ([0-9a-f-]{36})", stdout)
        if not found:
            raise Failed("the agent could not be installed")
        return found[1]

    def archive(self, *words: str, stdin_text: str = "", **settings: str) -> str:
        """Runs a command of the archive and returns its stdout. Raises Failed."""
        done = subprocess.run(
            [str(INTERPRETER), "-I", str(self.program), *words],
            input=stdin_text,
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_MAX_S,
        )
        if done.returncode:
            raise Failed(f"{words[0]}: {done.stderr.strip()}")
        return done.stdout

    def run(self, command: Sequence[str], stdin_text: str = "", **settings: str) -> Output:
        """Runs a client, logs its output and returns it. Raises Failed if it takes too long or exits with an error."""
        with contextlib.ExitStack() as stack:
            text, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile(dir=self.work)) for _ in range(3))
            text.write(stdin_text.encode("utf-8"))
            text.seek(0)
            began_s = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.work,
                env={**self.environment, **settings},
                stdin=text,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            status = self._wait(process)
            output = Output(_read(stdout), _read(stderr))
        self._note(command, settings, output, f"-> {status} after {time.monotonic() - began_s:.1f} s")
        if status != 0:
            raise Failed(f"{Path(command[0]).name} {'took too long' if status is None else f'exited with {status}'}")
        return output

    def _note(self, command: Sequence[str], settings: Mapping[str, str], output: Output, end: str) -> None:
        given = [f"{name}={value}" for name, value in settings.items()]
        with open(self.log, "a", encoding="utf-8") as log:
            print("$", *given, *command, output.stdout, output.stderr, end, sep="\n", file=log)

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit status; None after a timeout. Counts the servers left running, then kills the client's group."""
        try:
            return process.wait(COMMAND_MAX_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.servers_left += self._count_servers_left()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def sessions(self) -> list[Session]:
        """The server's sessions since the last call."""
        return take_sessions(LOGS / f"{self.name}.wire.jsonl")

    def _count_servers_left(self) -> int:
        """The number of server processes that still run after a grace period."""
        deadline_s = time.monotonic() + LINGER_MAX_S
        while (count := count_servers(self.agent)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return count


def count_servers(agent: str) -> int:
    """The number of running servers for this agent; 0 on systems without /proc."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            found += b"serve\0--agent\0" + agent.encode("ascii") in path.read_bytes()
    return found


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _environment(home: Path, temporary: Path) -> dict[str, str]:
    """The client's whole environment. The proxies do not exist, so requests that leave loopback fail."""
    proxies = {f"{kind}_PROXY": DEAD_PROXY for kind in ("HTTP", "HTTPS", "ALL")}
    proxies["NO_PROXY"] = "127.0.0.1,localhost"
    return {
        "PATH": f"{node_directory()}:{SYSTEM_PATH}",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "DO_NOT_TRACK": "1",
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
    }


@contextlib.contextmanager
def new_trial(name: str, program: Path = ARCHIVE, *, approved: bool = True) -> Iterator[Trial]:
    """A trial in a temporary directory, with a registered agent. Raises Failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"client-{name}-")).resolve()
    try:
        trial = Trial(name, directory, program)
        try:
            trial.agent = trial.install()
            if approved:
                trial.vault.owner("approve", trial.agent)
            yield trial
        finally:
            trial.vault.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a client's last process may still write to it
