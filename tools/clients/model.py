"""A scripted model on loopback that replaces the usual model of an AI client.

It serves the HTTP interfaces of `dialects`. The next call depends only on the conversation in the request, so
additional requests (for a title of the session, for a summary) do no harm.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tools.clients import dialects
from tools.clients.dialects import Answer, Dialect, ModelRequest


class Exchange(NamedTuple):
    """A request of the client, raw and parsed, and the model's answer."""

    path: str
    body: Any
    request: ModelRequest
    answer: Answer


def dialect_of(path: str) -> tuple[Dialect | None, bool]:
    """The dialect of a path (None if unknown), and whether the path itself requests a stream."""
    bare_path = path.partition("?")[0]
    endings = {"/messages": dialects.MESSAGES, "/responses": dialects.RESPONSES, "/chat/completions": dialects.CHAT}
    for ending, dialect in endings.items():
        if bare_path.endswith(ending):
            return dialect, False
    if bare_path.endswith(("generateContent", "streamGenerateContent")):
        return dialects.GEMINI, "stream" in bare_path
    return None, False


class Model:
    """The HTTP server. `script` answers each request; `exchanges` lists them in order."""

    def __init__(self, script: Callable[[ModelRequest], Answer]) -> None:
        self.exchanges: list[Exchange] = []
        self._script = script
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Model:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reply(self, path: str, data: bytes) -> tuple[int, str, bytes]:
        """The status, content type and body that answer a request."""
        dialect, streamed = dialect_of(path)
        if dialect is None:
            return 404, dialects.JSON, b"{}"
        body = json.loads(data)
        request = dialect.read(body)
        answer = self._script(request)
        self.exchanges.append(Exchange(path, body, request, answer))
        if streamed or body.get("stream"):
            return 200, dialects.EVENTS, dialects.stream(dialect.events(answer))
        return 200, dialects.JSON, json.dumps(dialect.whole(answer)).encode("utf-8")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, body = model.reply(self.path, data)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                """Logs nothing."""

        return Handler
