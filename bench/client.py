"""The archive as a child process on raw pipes: the client must cost less than what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import certifi

from bench.api import ROOT
from tests.support.faulty_vault import Authority
from tests.support.harness import UNLIMITED, make_slot

ARCHIVE = ROOT / "dist" / "sikkerkey-mcp.pyz"
FLAGS = ("-I", "-S")  # for the bare interpreter too: neither loads `site`


def line(method: str, request_id: int | None = None, **params: Any) -> bytes:
    """One JSON-RPC message."""
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
    """A temporary home directory with an agent and an empty cache."""

    def __init__(self, url: str, env: Mapping[str, str] | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name)
        make_slot(self.path, url)
        self.env = {"HOME": str(self.path), "SIKKERKEY_CACHE_DIR": str(self.path / "cache"), **(env or {})}

    def __enter__(self) -> Home:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._directory.cleanup()


class Tls:
    """A certificate for localhost, and a CA bundle as large as the one for public vaults that also trusts it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        directory = Path(self._directory.name)
        authority = Authority(directory)
        authority.server("localhost")
        self.chain, self.authority = str(directory / "server.pem"), str(authority.bundle)
        bundle = directory / "bundle.pem"
        bundle.write_bytes(authority.bundle.read_bytes() + Path(certifi.where()).read_bytes())
        self.env = {"SIKKERKEY_CA_BUNDLE": str(bundle)}

    def __enter__(self) -> Tls:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._directory.cleanup()


class Server:
    """An MCP server on pipes."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        env = {**UNLIMITED, **env}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, env=env, bufsize=0)
        self._in, self._out = (cast(IO[bytes], end).fileno() for end in (self.process.stdin, self.process.stdout))
        self._pending = b""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def write(self, data: bytes) -> None:
        """Writes all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def read(self) -> bytes:
        """The next line. Raises EOFError if the server has ended."""
        pieces = [self._pending]
        while b"\n" not in pieces[-1]:
            piece = os.read(self._out, 1 << 20)
            if not piece:
                raise EOFError("the server has ended")
            pieces.append(piece)
        whole, _, self._pending = b"".join(pieces).partition(b"\n")
        return whole

    def request(self, data: bytes) -> bytes:
        """Writes a request and returns the next line, which is the reply if nothing else is running."""
        self.write(data)
        return self.read()

    def open(self) -> None:
        """Initializes the session and lists the tools."""
        self.request(INITIALIZE)
        self.request(INITIALIZED + LIST)

    def calls(self, count: int, **arguments: Any) -> None:
        """Makes `count` calls of `whoami` concurrently; notifications are skipped."""
        self.write(b"".join(call_line(number + 10, **arguments) for number in range(count)))
        while count:
            count -= b'"result"' in self.read()

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Resident memory, or with VmHWM its peak; Linux only."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(each.split()[1]) for each in text.splitlines() if each.startswith(field)) / 1024

    def peak_reset(self) -> FileIO:
        """A file that restarts the measurement of VmHWM when `5` is written to it; Linux only.

        Only root can open it after the first call, because a process that has read a key forbids inspection.
        """
        return FileIO(f"/proc/{self.process.pid}/clear_refs", "w")

    def cpu_s(self) -> float:
        """Processor time so far; Linux only."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    url: str, python: str = sys.executable, *, warm: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The archive with an open session and an agent of the vault at `url`; `warm`: an earlier run filled the cache."""
    command = archive_command(python)
    with Home(url, env) as home:
        if warm:
            subprocess.run([*command, "--version", "--verbose"], env=home.env, capture_output=True, check=True)
        with Server(command, home.env) as server:
            server.open()
            yield server


def archive_command(python: str = sys.executable) -> list[str]:
    """The command that starts the archive."""
    return [python, *FLAGS, str(ARCHIVE)]
