"""How the owner's commands reach the server that runs: a Unix socket in the vault's directory, 0600, same user only.

One line of JSON each way: `{"command": "status" | "seal" | "unseal", "passphrase"?}`, answered by `{"sealed", ...}` or
`{"error", "hint"}`. The passphrase is in that one line, between two processes of the same user, and in no answer, log,
file or process list.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

from vault.calls import Clock
from vault.errors import VaultError
from vault.files import private_directory, shown
from vault.inputs import parse_object
from vault.store import Store

NAME = "control.sock"
MAX_LINE_BYTES = 16 * 1024  # a passphrase of 1024 characters in JSON escapes, and room
PATIENCE_S = 5.0  # for a client that connects and says nothing
ANSWER_S = 60.0  # a client waits this long: Argon2id on a busy machine, behind the transaction that runs
HUNG_UP = {"error": "the server did not answer", "hint": "try again"}
MAX_PATH_BYTES = 100  # a socket's path has 104 bytes on macOS and 108 on Linux


class Control:
    """The server's end; listens from `with` to the end of the block."""

    def __init__(self, store: Store, clock: Clock, url: str) -> None:
        self._store, self._clock, self._url = store, clock, url
        self._ear, self._stop = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Control:
        path = self._store.directory / NAME
        path.unlink(missing_ok=True)  # of a server that was killed: server.lock says that there is no other
        with _short(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(8)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join()
        self._ear.close()
        self._listener.close()
        (self._store.directory / NAME).unlink(missing_ok=True)

    def answer(self, line: bytes) -> dict[str, object]:
        """Carry out one command; never raises."""
        try:
            command, passphrase = _parsed(line)
            _COMMANDS[command](self._store, self._clock(), passphrase)
        except VaultError as error:
            return {"error": str(error), "hint": error.hint}
        except Exception as error:  # the words of an exception may quote what was sent
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            return {"error": f"the server failed: {where}", "hint": "look at the disk, then try again"}
        return {"vaultId": self._store.vault_id, "url": self._url, "sealed": self._store.sealed}

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._ear], [], [])
            if self._ear in ready:
                return
            connection, _ = self._listener.accept()
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        if _peer(connection) != os.geteuid():
            return
        connection.settimeout(PATIENCE_S)
        try:
            line = _line(connection)
            connection.sendall(json.dumps(self.answer(line)).encode() + b"\n")
        except OSError:
            return  # whoever asked has gone, or says nothing


def _status(_store: Store, _now_ms: int, _passphrase: str | None) -> None:
    """Every answer is one."""


_COMMANDS: Mapping[str, Callable[[Store, int, str | None], None]] = {
    "status": _status,
    "seal": lambda store, now_ms, _passphrase: store.seal(now_ms),
    "unseal": Store.unseal,
}


def _parsed(line: bytes) -> tuple[str, str | None]:
    try:
        request = parse_object(line.decode())
    except ValueError:  # its message quotes the line
        request = {}
    command, passphrase = request.get("command"), request.get("passphrase")
    if not isinstance(command, str) or command not in _COMMANDS or not isinstance(passphrase, (str, type(None))):
        raise VaultError("the server does not know this command", "is it another version? start it again")
    return command, passphrase


def ask(directory: Path, command: str, passphrase: str | None = None) -> dict[str, Any] | None:
    """What the running server answers; None if there is none. Its refusals are VaultErrors here."""
    private_directory(directory)
    request = {"command": command} if passphrase is None else {"command": command, "passphrase": passphrase}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        try:
            with _short(directory / NAME) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(json.dumps(request).encode() + b"\n")
        line = _line(connection)
    answer: dict[str, Any] = parse_object(line.decode()) if line else HUNG_UP
    if "error" in answer:
        raise VaultError(answer["error"], answer["hint"])
    return answer


def _line(connection: socket.socket) -> bytes:
    """One line; nothing if the other side ends before it does, or goes on for too long."""
    received = b""
    while not received.endswith(b"\n"):
        piece = connection.recv(4096)
        received += piece
        if not piece or len(received) > MAX_LINE_BYTES:
            return b""
    return received


def _peer(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    if sys.platform == "linux":
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    else:
        # struct xucred of LOCAL_PEERCRED (1) at SOL_LOCAL (0): a version, then the user.
        _, user = struct.unpack_from("2I", connection.getsockopt(0, 1, 76))
    return int(user)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path as an address; a long one through the directory's descriptor, which Linux offers."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    if sys.platform != "linux":
        raise VaultError(f"the path of {shown(path)} is too long for a socket", "name a shorter one with --dir")
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)
