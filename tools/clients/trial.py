"""One client's trial: an empty home, an agent that the archive registered, a vault of its own, a log, time limits."""

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
from tools.clients.packages import PLACE, node_directory
from tools.clients.wire import INTERPRETER, Session, take_sessions

LOGS = PLACE / "logs"
COMMAND_MAX_S = 120.0
LINGER_MAX_S = 2.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEAD_PROXY = "http://127.0.0.1:9"  # the discard port: nothing listens there


class Failed(Exception):
    """What a client did not do."""


class CannedResponse(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


class Trial:
    """Where a client runs. `run` is the only way in which it is started."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.home, self.work = directory / "home", directory / "work"
        for place in (self.home, self.work, directory / "tmp"):
            place.mkdir(mode=0o700)
        self.environment = _environment(self.home, directory / "tmp")
        self.log = LOGS / f"{name}.log"
        self.log.write_text("", encoding="utf-8")
        self.vault = LocalVault(directory / "vault")
        self.agent = ""
        self.servers_left = 0

    def register(self) -> None:
        """Installs an agent and approves it."""
        token = self.vault.owner("agent-token", "--scopes", "all")
        told = self.archive("install", "-", "--name", self.name, text_in=token, SIKKERKEY_API_URL=self.vault.url)
        found = re.search(r"agent ([0-9a-f-]{36})", told)
        if not found:
            raise Failed("no agent could be installed")
        self.agent = found[1]
        self.vault.owner("approve", self.agent)

    def archive(self, *words: str, text_in: str = "", **settings: str) -> str:
        """What one of the archive's commands prints on stdout."""
        done = subprocess.run(
            [str(INTERPRETER), "-I", str(ARCHIVE), *words],
            input=text_in,
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_MAX_S,
        )
        if done.returncode:
            raise Failed(f"{words[0]}: {done.stderr.strip()}")
        return done.stdout

    def run(self, command: Sequence[str], text_in: str = "", **settings: str) -> CannedResponse:
        """What a client prints; it goes to the log as well. Raises Failed where it does not end, or not well."""
        with contextlib.ExitStack() as stack:
            text, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile(dir=self.work)) for _ in range(3))
            text.write(text_in.encode("utf-8"))
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
            told = CannedResponse(_read(stdout), _read(stderr))
        self._note(command, settings, told, f"-> {status} after {time.monotonic() - began_s:.1f} s")
        if status != 0:
            raise Failed(f"{Path(command[0]).name} {'took too long' if status is None else f'exited with {status}'}")
        return told

    def _note(self, command: Sequence[str], settings: Mapping[str, str], told: CannedResponse, end: str) -> None:
        given = [f"{name}={value}" for name, value in settings.items()]
        with open(self.log, "a", encoding="utf-8") as log:
            print("$", *given, *command, told.stdout, told.stderr, end, sep="\n", file=log)

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit status, None after too long. What the client left behind is counted, then ended."""
        try:
            return process.wait(COMMAND_MAX_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.servers_left += self._count_servers_left()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def sessions(self) -> list[Session]:
        """The server's sessions since this was last asked."""
        return take_sessions(LOGS / f"{self.name}.wire.jsonl")

    def _count_servers_left(self) -> int:
        """How many processes of the server still run, once they had time to end."""
        deadline_s = time.monotonic() + LINGER_MAX_S
        while (count := servers_of(self.agent)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return count


def servers_of(agent: str) -> int:
    """How many processes serve for this agent, as far as the system tells."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += b"serve\0--agent\0" + agent.encode("ascii") in path.read_bytes()
    return found


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _environment(home: Path, temporary: Path) -> dict[str, str]:
    """All that a client inherits. Proxies lead nowhere, so what ignores NO_PROXY or wants to leave loopback fails."""
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
def trial(name: str) -> Iterator[Trial]:
    """A trial below a temporary directory, with a registered agent."""
    LOGS.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"client-{name}-")).resolve()
    try:
        made = Trial(name, directory)
        try:
            made.register()
            yield made
        finally:
            made.vault.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a client's last process may still write there
