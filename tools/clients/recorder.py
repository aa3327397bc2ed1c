"""Copied into the interpreter that clients under trial start: keeps a transcript of what passes on stdin and stdout.

The process that the client started goes on as the server, so signals reach it; a copy of it stands between the two
and passes every byte on. It ends with either of them.
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


def pass_on(to_server: int, from_server: int, transcript: int) -> None:
    """Copies both ways until the server has closed its output or the client no longer reads."""

    def note(sender: str, data: bytes) -> None:
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
                note("client", data)
                os.write(to_server, data)
                if not data:
                    poll.unregister(CLIENT_IN)
                    os.close(to_server)
            elif not data or event & select.POLLERR:
                note("server", b"")
                return
            else:
                note("server", data)
                os.write(CLIENT_OUT, data)


def begin(directory: Path) -> None:
    """Puts the copy in place; returns in the server's process."""
    server_in, to_server = os.pipe()
    from_server, server_out = os.pipe()
    if os.fork():
        os.dup2(server_in, CLIENT_IN)
        os.dup2(server_out, CLIENT_OUT)
        for descriptor in (server_in, to_server, from_server, server_out):
            os.close(descriptor)
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a group may be signalled as a whole
    os.close(server_in)
    os.close(server_out)
    name = f"{time.time_ns()}-{os.getpid()}.jsonl"
    transcript = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        pass_on(to_server, from_server, transcript)
    except OSError:
        os._exit(1)  # one side has gone in the middle of a message; closing the pipes tells the other
    os._exit(0)


if "serve" in sys.argv:
    begin(Path(sys.prefix) / "transcripts")
