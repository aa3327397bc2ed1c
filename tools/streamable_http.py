"""A bridge from the Streamable HTTP of protocol revision 2026-07-28 to a server on stdio, for `make conformance`.

It starts one process, as `requestState` is only valid there, and passes messages on unchanged but for their ids. What
that revision demands of an HTTP server is done here: headers, statuses, Host and Origin. Requests run one at a time,
because a log message does not name the request that it belongs to.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
META = "io.modelcontextprotocol/"
HEADER_MISMATCH = -32020
STATUSES = {-32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404}
JSON, STREAM = "application/json", "text/event-stream"


class Process:
    """The server's process, spoken to by one request at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def send(self, message: Any) -> None:
        """Writes a message."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
        self._process.stdin.flush()

    def replies(self, request: Any) -> Iterator[Any]:
        """The messages that a request causes; the last one is the response."""
        assert self._process.stdout is not None
        with self._lock:
            own_id = next(self._ids)
            self.send({**request, "id": own_id})
            for line in self._process.stdout:
                message = json.loads(line)
                if message.get("id") == own_id:
                    yield {**message, "id": request["id"]}
                    return
                yield message


class Bridge:
    """Serves `command` on a free port of loopback; `url` is the address."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = Process(command)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._process))
        self._http.daemon_threads = True
        self.url = f"http://localhost:{self._http.server_address[1]}/mcp"

    def __enter__(self) -> Bridge:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._process.end()


def header_problem(headers: Any, message: Any) -> tuple[int, str] | None:
    """The code and text of what is wrong with a request's headers or envelope, if anything is."""
    params = message.get("params", {})
    meta = params.get("_meta", {}) if isinstance(params, dict) else {}
    version = meta.get(META + "protocolVersion")
    if version is None:  # on stdio, this would be a request of an older revision; the header says that it is not
        return -32602, f"_meta must have {META}protocolVersion"
    named = params.get("uri") if message["method"] == "resources/read" else params.get("name")
    expected = {"MCP-Protocol-Version": version, "Mcp-Method": message["method"], "Mcp-Name": named}
    for name, value in expected.items():
        if headers.get(name) != value and not (name == "Mcp-Name" and value is None):
            return HEADER_MISMATCH, f"the header {name} does not agree with the body"
    return None


def from_loopback(headers: Any) -> bool:
    """True if Host and Origin name this computer, so that no other site's page sent the request."""
    origins = [f"//{headers.get('Host', '')}", headers.get("Origin") or "//localhost"]
    return all(urlsplit(origin).hostname in LOOPBACK for origin in origins)


def _handler(process: Process) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not from_loopback(self.headers):
                self._send(403, JSON, b"")
                return
            message = json.loads(body)
            if "id" not in message:
                process.send(message)
                self._send(202, JSON, b"")
                return
            problem = header_problem(self.headers, message)
            if problem:
                error = {"code": problem[0], "message": problem[1]}
                self._reply([{"jsonrpc": "2.0", "id": message["id"], "error": error}])
            else:
                self._reply(list(process.replies(message)))

        def do_GET(self) -> None:
            self._send(405, JSON, b"")

        do_DELETE = do_GET

        def _reply(self, messages: list[Any]) -> None:
            if len(messages) == 1:
                code = messages[0].get("error", {}).get("code")
                self._send(STATUSES.get(code, 200), JSON, json.dumps(messages[0]).encode("ascii"))
            else:
                events = "".join(f"event: message\ndata: {json.dumps(message)}\n\n" for message in messages)
                self._send(200, STREAM, events.encode("ascii"))

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler
