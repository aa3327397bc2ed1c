"""A model on loopback that follows a script: what an AI client is given in place of the one it knows.

It serves the HTTP interfaces of `dialects`. Which call comes next depends on the conversation alone that the client
sends along, so requests on the side (a title for the session, a summary) do no harm.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tools.clients import dialects
from tools.clients.dialects import Answer, Asked, Dialect


class Exchange(NamedTuple):
    """One request of the client, as it came and as it was understood, and what the model said."""

    path: str
    body: Any
    asked: Asked
    answer: Answer


def dialect_of(path: str) -> tuple[Dialect | None, bool]:
    """The dialect that a path belongs to, and whether the path itself asks for a stream."""
    place = path.partition("?")[0]
    endings = {"/messages": dialects.MESSAGES, "/responses": dialects.RESPONSES, "/chat/completions": dialects.CHAT}
    for ending, dialect in endings.items():
        if place.endswith(ending):
            return dialect, False
    if place.endswith(("generateContent", "streamGenerateContent")):
        return dialects.GEMINI, "stream" in place
    return None, False


class Model:
    """The server. `script` answers each conversation; `exchanges` holds them all, in order."""

    def __init__(self, script: Callable[[Asked], Answer]) -> None:
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
        """Status, content type and body for one request."""
        dialect, streamed = dialect_of(path)
        if dialect is None:
            return 404, dialects.JSON, b"{}"
        body = json.loads(data)
        asked = dialect.read(body)
        answer = self._script(asked)
        self.exchanges.append(Exchange(path, body, asked, answer))
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
                """Says nothing."""

        return Handler
