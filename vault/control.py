"""The control socket, through which the owner's commands reach the running server.

It is a Unix socket in the vault's directory with mode 0600, for the same user only. A request is one line of JSON,
`{"command": "status" | "seal" | "unseal" | "dashboard", "passphrase"?}`. The answer is one line, `{"vaultId", "url",
"agentUrl", "sealed", "noReveal"?}` or `{"error", "hint"}`. `agentUrl` is the HTTPS address with the fingerprint of the
certificate, such as `https://127.0.0.1:8301#sha256=HEX`. The answer of `dashboard` also has a `dashboardUrl`, a link
that works once. The passphrase appears in the request only, never in an answer, a log, a file or a process list.
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
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

from vault import log
from vault.errors import VaultError
from vault.files import private_directory, quoted
from vault.inputs import parse_object
from vault.router import Clock
from vault.store import Store

NAME = "control.sock"
MAX_LINE_BYTES = 16 * 1024  # room for a passphrase of 1024 characters in JSON escapes
READ_TIMEOUT_S = 5.0  # for a client that connects and sends nothing
ANSWER_TIMEOUT_S = 60.0  # enough for Argon2id on a busy machine after a running transaction
RETRY_S = 0.1  # after a connection that could not be accepted
NO_ANSWER = {"error": "the server did not answer", "hint": "try again"}
MAX_PATH_BYTES = 100  # the limit for a socket path is 104 bytes on macOS and 108 on Linux


class Control:
    """The server's side. Listens while the context is open."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        url: str,
        agent_url: str,
        mint_link: Callable[[], str] | None = None,
        *,
        reveal: bool = True,
    ) -> None:
        self._store, self._clock, self._url, self._agent_url = store, clock, url, agent_url
        self._mint_link, self._reveal = mint_link, reveal
        self._wakeup_socket, self._stop_socket = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Control:
        path = self._store.directory / NAME
        path.unlink(missing_ok=True)  # left by a killed server; server.lock proves that no other server runs
        with _socket_address(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(8)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_socket.close()
        self._thread.join()
        self._wakeup_socket.close()
        self._listener.close()
        (self._store.directory / NAME).unlink(missing_ok=True)

    def answer(self, line: bytes) -> dict[str, object]:
        """Run one command and return the answer. Never raises."""
        try:
            command, passphrase = _parse_request(line)
            _COMMANDS[command](self._store, self._clock(), passphrase)
        except VaultError as error:
            return {"error": str(error), "hint": error.hint}
        except Exception as error:  # the message may quote the request
            return {"error": f"the server failed: {log.place(error)}", "hint": "check the disk, then try again"}
        urls = {"url": self._url, "agentUrl": self._agent_url}
        answer = {"vaultId": self._store.vault_id, **urls, "sealed": self._store.sealed}
        if not self._reveal:
            answer["noReveal"] = True
        if command == "dashboard" and self._mint_link is not None:
            answer["dashboardUrl"] = f"{self._url}/dashboard/sign-in/{self._mint_link()}"
        return answer

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._wakeup_socket], [], [])
            if self._wakeup_socket in ready:
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:  # too many open files, or the client is gone
                time.sleep(RETRY_S)
                continue
            with connection:
                self._serve_client(connection)

    def _serve_client(self, connection: socket.socket) -> None:
        try:
            if _peer_uid(connection) != os.geteuid():
                return
            connection.settimeout(READ_TIMEOUT_S)
            line = _read_line(connection)
            connection.sendall(json.dumps(self.answer(line)).encode() + b"\n")
        except OSError:
            return  # the client is gone, or sent nothing


def _nothing(_store: Store, _now_ms: int, _passphrase: str | None) -> None:
    """The answer has everything."""


_COMMANDS: Mapping[str, Callable[[Store, int, str | None], None]] = {
    "status": _nothing,
    "dashboard": _nothing,
    "seal": lambda store, now_ms, _passphrase: store.seal(now_ms),
    "unseal": Store.unseal,
}


def _parse_request(line: bytes) -> tuple[str, str | None]:
    try:
        request = parse_object(line.decode())
    except ValueError:  # the original message quotes the line
        request = {}
    command, passphrase = request.get("command"), request.get("passphrase")
    if not isinstance(command, str) or command not in _COMMANDS or not isinstance(passphrase, (str, type(None))):
        raise VaultError("the server does not know this command", "restart it: it may be an older version")
    return command, passphrase


def ask(directory: Path, command: str, passphrase: str | None = None) -> dict[str, Any] | None:
    """The answer of the running server, or None if none runs. Raises VaultError if the command fails."""
    private_directory(directory)
    request = {"command": command} if passphrase is None else {"command": command, "passphrase": passphrase}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            with _socket_address(directory / NAME) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(json.dumps(request).encode() + b"\n")
        line = _read_line(connection)
    answer: dict[str, Any] = parse_object(line.decode()) if line else NO_ANSWER
    if "error" in answer:
        raise VaultError(answer["error"], answer["hint"])
    return answer


def _read_line(connection: socket.socket) -> bytes:
    """One line. Empty if the peer closes the connection too early or exceeds MAX_LINE_BYTES."""
    received = b""
    while not received.endswith(b"\n"):
        piece = connection.recv(4096)
        received += piece
        if not piece or len(received) > MAX_LINE_BYTES:
            return b""
    return received


def _peer_uid(connection: socket.socket) -> int:
    """The user id of the peer process, from the kernel."""
    if sys.platform == "linux":
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    else:
        # LOCAL_PEERCRED (1) at level SOL_LOCAL (0) returns struct xucred: a version, then the user id.
        _, user = struct.unpack_from("2I", connection.getsockopt(0, 1, 76))
    return int(user)


@contextlib.contextmanager
def _socket_address(path: Path) -> Iterator[str]:
    """The path as a socket address. On Linux, a long path is shortened through a descriptor of its directory."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    if sys.platform != "linux":
        raise VaultError(f"the path of {quoted(path)} is too long for a socket", "name a shorter one with --dir")
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)
