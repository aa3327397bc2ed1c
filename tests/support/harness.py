"""Shared by most tests: an HTTP server that records requests, an identity on disk, and sikkerkey-mcp as a process."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "dist" / "sikkerkey-mcp.pyz"
AGENT_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
VAULT_ID = "vault_a1b2c3d4e5"
UNLIMITED = {"SIKKERKEY_MAX_CALLS": "none", "SIKKERKEY_MAX_DESTRUCTIVE": "none"}  # tests call more often than people
TIMEOUT_S = 20.0  # for events that take milliseconds: a test that waits this long fails


class ReceivedRequest(NamedTuple):
    """A request as it arrived, with header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class CannedResponse(NamedTuple):
    """A response to send."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {"Content-Type": "application/json"}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 makes a client wait a second when 32 connect at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints errors, except that a client has disconnected."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Recorder:
    """A loopback HTTP/1.1 server. `answer` makes the response to each request; `seen` holds the requests in order."""

    def __init__(self) -> None:
        self.seen: list[ReceivedRequest] = []
        self.connections = 0
        self.answer: Callable[[ReceivedRequest], CannedResponse] = lambda _seen: CannedResponse()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                recorder.connections += 1

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = ReceivedRequest(self.command, self.path, headers, self.rfile.read(length))
                recorder.seen.append(seen)
                self._reply(recorder.answer(seen))

            do_POST = do_GET

            def _reply(self, told: CannedResponse) -> None:
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(told.body)))
                self.end_headers()
                self.wfile.write(told.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        return Handler


def make_slot(home: Path, api_url: str, agent_id: str = AGENT_ID, name: str = "test agent") -> Ed25519PrivateKey:
    """Writes an agent's slot below `home`/.sikkerkey like the reference client does; returns its key."""
    slot = home / ".sikkerkey" / "agents" / agent_id
    for directory in (slot.parent.parent, slot.parent, slot):
        directory.mkdir(mode=0o700, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    members = {
        "agentId": agent_id,
        "name": name,
        "vaultId": VAULT_ID,
        "apiUrl": api_url,
        "privateKeyPath": str(slot / "private.pem"),
    }
    (slot / "private.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    (slot / "identity.json").write_text(json.dumps(members, indent=2))
    for file in slot.iterdir():
        file.chmod(0o600)
    return key


def fingerprint(key: Ed25519PrivateKey) -> str:
    """What `ssh-keygen -l` would show, if it hashed the 32 bytes alone."""
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest())[:43].decode()


def open_descriptors(process_id: int) -> int:
    """How many descriptors a process has open, on Linux. Skips the test where only root is told."""
    directory = f"/proc/{process_id}/fd"
    try:
        return len(os.listdir(directory))
    except PermissionError:  # the process forbids inspection, because it has read a key
        count = os.stat(directory).st_size  # since Linux 6.2
    if not count:
        pytest.skip("this kernel tells the descriptors of such a process to root only")
    return count


SOURCE_COMMAND = (sys.executable, "-I", str(ROOT / "sikkerkey_cli" / "__main__.py"))
ARCHIVE_COMMAND = (sys.executable, "-I", str(ARCHIVE))


class Server:
    """sikkerkey-mcp as a child process. A thread collects the lines that it writes.

    On exit from the context, the whole session is checked against the schema of the protocol.
    """

    def __init__(self, command: Sequence[str] = SOURCE_COMMAND, env: Mapping[str, str] | None = None) -> None:
        pipe = subprocess.PIPE
        env = {**UNLIMITED, **(os.environ if env is None else env)}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        self.lines: list[bytes] = []
        self.sent = bytearray()
        self.stderr = b""
        self._messages: queue.Queue[Any] = queue.Queue()
        self._waiting: list[Any] = []
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_stdout, self._read_stderr)]
        for thread in self._threads:
            thread.start()
        self._last_id = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self.end()
        if kind is None:
            from tests.support.schema_check import check_session  # it builds on this module

            check_session(bytes(self.sent), self.lines)

    def end(self) -> None:
        """Ends the process if it runs, and reads both output streams to their end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def send_bytes(self, data: bytes) -> None:
        """Writes raw bytes."""
        assert self.process.stdin is not None
        self.sent += data
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        """Writes one message."""
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def notify(self, method: str, **params: Any) -> None:
        """Writes a notification, which must be valid; use `send` for invalid ones."""
        from tests.support.schema_check import conforms  # it builds on this module

        message = {"jsonrpc": "2.0", "method": method, "params": params}
        conforms(message, "ClientNotification")
        self.send(message)

    def start(self, method: str, **params: Any) -> int:
        """Writes a request and returns its id."""
        self._last_id += 1
        self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    def read(self, timeout_s: float = TIMEOUT_S) -> Any:
        """The next message, or None at the end of the output. Raises queue.Empty after `timeout_s`."""
        return self._waiting.pop(0) if self._waiting else self._messages.get(timeout=timeout_s)

    def reply(self, request_id: Any) -> Any:
        """The reply to a request; other messages are kept for later."""
        passed: list[Any] = []
        try:
            while (message := self.read()) is not None:
                if message.get("id") == request_id and "method" not in message:
                    return message
                passed.append(message)
            raise AssertionError(f"the output ended before the reply to {request_id!r}: {self.stderr!r}")
        finally:
            self._waiting = passed + self._waiting

    def request(self, method: str, **params: Any) -> Any:
        """Writes a request and waits for its reply."""
        return self.reply(self.start(method, **params))

    def initialize(self, version: str = "2025-11-25") -> Any:
        """Opens the session and returns the reply to `initialize`."""
        client = {"name": "tests", "version": "1"}
        reply = self.request("initialize", protocolVersion=version, capabilities={}, clientInfo=client)
        self.notify("notifications/initialized")
        return reply

    def call(self, tool: str, **arguments: Any) -> Any:
        """The result of one `tools/call`."""
        return self.request("tools/call", name=tool, arguments=arguments)["result"]

    def close(self, timeout_s: float = TIMEOUT_S) -> int:
        """Closes stdin, waits for the process and returns its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout_s)
