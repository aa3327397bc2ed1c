"""The program under test as a process, over raw pipes: the client must cost less than what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import certifi

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.api import Api  # noqa: E402  # after the path
from tests.support.faulty_vault import Authority  # noqa: E402
from tests.support.harness import make_slot  # noqa: E402

ARCHIVE = ROOT / "dist" / "sikkerkey-mcp.pyz"
FLAGS = ("-I", "-S")  # as the bare interpreter has them: what `site` costs is not ours


def line(method: str, request_id: int | None = None, **params: Any) -> bytes:
    """One message."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message if request_id is None else {**message, "id": request_id}).encode() + b"\n"


def call_line(request_id: int, tool: str = "whoami", **arguments: Any) -> bytes:
    """One `tools/call`."""
    return line("tools/call", request_id, name=tool, arguments=arguments)


CLIENT = {"name": "bench", "version": "1"}
INITIALIZE = line("initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo=CLIENT)
INITIALIZED = line("notifications/initialized")
LIST = line("tools/list", 2)


class Home:
    """A directory with an agent's slot and a cache, for one API."""

    def __init__(self, url: str, **environment: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name)
        make_slot(self.path, url)
        self.env = {"HOME": str(self.path), "SIKKERKEY_CACHE_DIR": str(self.path / "cache"), **environment}

    def __enter__(self) -> Home:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._directory.cleanup()


class Tls:
    """A certificate for localhost and a bundle to trust it by, as large as the one for public vaults."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        directory = Path(self._directory.name)
        authority = Authority(directory)
        authority.server("localhost")
        self.chain, self.own = str(directory / "server.pem"), str(authority.bundle)
        bundle = directory / "bundle.pem"
        bundle.write_bytes(authority.bundle.read_bytes() + Path(certifi.where()).read_bytes())
        self.env = {"SIKKERKEY_CA_BUNDLE": str(bundle)}

    def __enter__(self) -> Tls:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._directory.cleanup()


class Server:
    """A server on pipes. `begin_s` is when it was spawned."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self.begin_s = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, env=env, bufsize=0)
        self._in, self._out = (cast(IO[bytes], end).fileno() for end in (self.process.stdin, self.process.stdout))
        self._pending = b""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def write(self, data: bytes) -> None:
        """Writes all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def read(self) -> bytes:
        """The next line."""
        pieces = [self._pending]
        while b"\n" not in pieces[-1]:
            piece = os.read(self._out, 1 << 20)
            if not piece:
                raise EOFError("the server has ended")
            pieces.append(piece)
        whole, _, self._pending = b"".join(pieces).partition(b"\n")
        return whole

    def ask(self, data: bytes) -> bytes:
        """Writes a request; the next line, which is its reply where nothing else is under way."""
        self.write(data)
        return self.read()

    def since_spawn_s(self) -> float:
        """Seconds since it was spawned."""
        return time.perf_counter() - self.begin_s

    def open(self) -> None:
        """The handshake, until `tools/list` is answered."""
        self.write(INITIALIZE)
        self.read()
        self.write(INITIALIZED + LIST)
        self.read()

    def status_mb(self, field: str) -> float:
        """VmRSS or VmHWM, in MB; Linux only."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(each.split()[1]) for each in text.splitlines() if each.startswith(field)) / 1024

    def cpu_s(self) -> float:
        """Processor seconds so far; Linux only."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(api: Api, python: str = sys.executable, *, filled: bool = True, **environment: str) -> Iterator[Server]:
    """What is under test after the handshake, with an agent of that API and a cache that an earlier run has filled."""
    command = archive_command(python)
    with api, Home(api.url, **environment) as home:
        if filled:
            subprocess.run([*command, "--version", "--verbose"], env=home.env, capture_output=True, check=True)
        with Server(command, home.env) as server:
            server.open()
            yield server


def archive_command(python: str = sys.executable) -> list[str]:
    """What is under test."""
    return [python, *FLAGS, str(ARCHIVE)]
