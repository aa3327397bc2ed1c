"""Records stdin and stdout of a server; copied into the interpreter that the clients start.

The process that the client started becomes the server, so signals reach it. A forked copy forwards every byte between
client and server and ends when either of them does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

CLIENT_IN, CLIENT_OUT = 0, 1
CHUNK_BYTES = 65_536


def forward(to_server: int, from_server: int, transcript: int) -> None:
    """Copies in both directions until the server closes its output or the client stops reading."""

    def log(sender: str, data: bytes) -> None:
        line = {"time_s": time.time(), "from": sender, "data": data.decode("latin-1")}
        os.write(transcript, json.dumps(line).encode("ascii") + b"\n")

    poll = select.poll()
    poll.register(CLIENT_IN, select.POLLIN)
    poll.register(from_server, select.POLLIN)
    poll.register(CLIENT_OUT, 0)
    while True:
        for descriptor, event in poll.poll():
            data = b"" if descriptor == CLIENT_OUT else os.read(descriptor, CHUNK_BYTES)
            if descriptor == CLIENT_IN:
                log("client", data)
                os.write(to_server, data)
                if not data:
                    poll.unregister(CLIENT_IN)
                    os.close(to_server)
            elif not data or event & select.POLLERR:
                log("server", b"")
                return
            else:
                log("server", data)
                os.write(CLIENT_OUT, data)


def begin(directory: Path) -> None:
    """Starts the recording process; returns in the server's process."""
    server_in, to_server = os.pipe()
    from_server, server_out = os.pipe()
    if os.fork():
        os.dup2(server_in, CLIENT_IN)
        os.dup2(server_out, CLIENT_OUT)
        for descriptor in (server_in, to_server, from_server, server_out):
            os.close(descriptor)
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a signal may be sent to the whole process group
    os.close(server_in)
    os.close(server_out)
    name = f"{time.time_ns()}-{os.getpid()}.jsonl"
    transcript = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        forward(to_server, from_server, transcript)
    except OSError:
        os._exit(1)  # one side ended during a message; the closed pipes tell the other
    os._exit(0)


def change_process(set_up: Path) -> None:
    """Sets the variables, the options of `serve` and the Python version that a broken set-up has, if there is one."""
    if not set_up.exists():
        return
    process = json.loads(set_up.read_text(encoding="utf-8"))
    os.environ.update(process.get("variables", {}))
    if "options" in process:
        sys.argv[sys.argv.index("serve") + 1 :] = process["options"]
    if "version" in process:
        sys.version_info = tuple(process["version"])  # type: ignore[assignment]


if "serve" in sys.argv:
    change_process(Path(sys.prefix) / "set-up.json")
    begin(Path(sys.prefix) / "transcripts")
