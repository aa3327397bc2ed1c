"""A stub of the vault's API: fixed answers from a separate process, as fast as asyncio allows.

The last part of the path selects the answer: `export` is CSV, `query` a long JSON answer, `connections` the number of
connections so far, and everything else a short JSON answer. Requests are not checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, cast

ROOT = Path(__file__).resolve().parent.parent
WHOAMI = {"agentId": "a", "name": "bench", "state": "active", "scopes": ["projects.read"], "recent": []}


def audit_csv(rows: int) -> bytes:
    """An export of the audit log, about 130 bytes per row."""
    line = "1767225600000,secret_read,low,machine,,0f8fad5b-d9cb-469f-a165-70867728950e,,sk_a1b2c3d4e5,::1,read {}\n"
    return ("timestamp,action,severity,actorKind\n" + "".join(line.format(row) for row in range(rows))).encode()


def audit_json(size_bytes: int) -> bytes:
    """A page of the audit log of about that size."""
    entry = {"action": "secret_read", "severity": "low", "timestamp": 1767225600000, "detail": "x" * 80}
    count = max(1, size_bytes // len(json.dumps(entry)))
    return json.dumps({"entries": [{**entry, "id": number} for number in range(count)]}).encode()


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1 with keep-alive."""

    opened = 0

    def __init__(self, bodies: Mapping[str, bytes], delay_s: float) -> None:
        self.bodies, self.delay_s, self.pending = bodies, delay_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts the connection."""
        self.transport = cast(asyncio.Transport, transport)
        Connection.opened += 1

    def data_received(self, data: bytes) -> None:
        """Answers every complete request."""
        self.pending += data
        while b"\r\n\r\n" in self.pending:
            head, rest = self.pending.split(b"\r\n\r\n", 1)
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if len(rest) < length:
                return
            self.pending = rest[length:]
            asyncio.get_running_loop().call_later(self.delay_s, self.answer, head.split(b" ", 2)[1].decode())

    def answer(self, path: str) -> None:
        """Sends the fixed answer for a path."""
        name = path.rsplit("/", 1)[1]
        body = self.bodies.get(name, self.bodies["whoami"])
        body = str(Connection.opened).encode() if name == "connections" else body
        kind = b"text/csv" if name == "export" else b"application/json"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        self.transport.write(head + body)


async def serve(options: argparse.Namespace) -> None:
    """Prints the port and serves forever."""
    bodies = {
        "whoami": json.dumps(WHOAMI).encode(),
        "export": audit_csv(options.rows),
        "query": audit_json(options.answer_bytes),
    }
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    connect = partial(Connection, bodies, options.delay_ms / 1000)
    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0, ssl=tls, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Api:
    """The stub as a child process, listening at `url`."""

    def __init__(self, *options: str, certificate: str = "") -> None:
        command = [sys.executable, "-m", "bench.api", "--certificate", certificate, *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.port = int(cast(IO[str], self.process.stdout).readline())
        self.url = f"https://localhost:{self.port}" if certificate else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Api:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--answer-bytes", type=int, default=5_000_000)
    parser.add_argument("--certificate", default="")
    asyncio.run(serve(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
