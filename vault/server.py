"""Serving the application with uvicorn: the address, the lock on the directory, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from vault.app import create_app
from vault.calls import Clock, wall_clock
from vault.clockwork import Clockwork
from vault.control import Control
from vault.errors import VaultError
from vault.files import locked, private_directory, shown
from vault.store import Store
from vault.surface import JOBS
from vault.terminal import PROGRAM, printable

GRACE_S = 5  # for requests that run when the signal comes
MAX_CONNECTIONS = 200  # macOS gives a process 256 descriptors, and the database and deliveries want some


class Place(NamedTuple):
    """Where to serve: the address, and the URL that people use if it is another."""

    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None


def serve(directory: Path, place: Place, passphrase: str | None = None, clock: Clock = wall_clock) -> None:
    """Serve until SIGINT or SIGTERM; prints the URL, and nothing else, on standard output."""
    leave_no_core()  # keys are in memory from here on
    with sole(directory), Store(directory, passphrase, sole=True) as store, _listen(place) as listener:
        _warn_if_reachable(listener)
        _advise_if_sealed(store)
        app = create_app(store, clock=clock, public_url=place.public_url)
        with Control(store, clock, _url(listener)), Clockwork(store, clock, JOBS):
            _run(configured(app), listener)


def leave_no_core() -> None:
    """A crash must not leave the memory in a file.

    On Linux a limit of 1 byte, unlike one of 0, also keeps the kernel from piping it to a crash reporter.
    """
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0) if most == 0 else (1, 1))


@contextlib.contextmanager
def sole(directory: Path) -> Iterator[None]:
    """Keep every server out, and be refused while there is one."""
    private_directory(directory)
    with locked(directory / "server.lock", wait=False) as alone:
        if not alone:
            raise VaultError(f"another server has {shown(directory)} open", "stop it, or name another --dir")
        yield


class _Protocol(H11Protocol):
    """Where there are too many connections, the one that has been silent longest makes room.

    uvicorn bounds only the time between an answer and the next request, not how long a client may take for its first.
    """

    heard_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.heard_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            ours = [other for other in self.connections if isinstance(other, _Protocol)]
            min(ours, key=lambda other: other.heard_s).transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard_s = self.loop.time()
        super().data_received(data)


class _Server(uvicorn.Server):
    """Says where it listens once it accepts."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(_url(sockets[0]), flush=True)


def configured(app: ASGIApp) -> uvicorn.Config:
    """uvicorn's settings: no access log, since paths hold ids; no proxy headers, since anybody here could set them."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    server = _Server(config)
    # uvicorn takes these signals over while it runs and raises them once more when it has stopped: by then this handler
    # is back in place and makes the second one harmless, so that the process ends with status 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listener])


def _listen(place: Place) -> socket.socket:
    host, port = place.host, place.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named, asyncio turns Nagle's algorithm off: else answers on kept connections take 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _no_address(host, port, error) from None
    with contextlib.ExitStack() as opened:
        opened.enter_context(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            raise _no_address(host, port, error) from None
        opened.pop_all()
    return listener


def _no_address(host: str, port: int, error: OSError) -> VaultError:
    reason = (error.strerror or "no such address").lower()
    complaint = f"cannot listen on {printable(host)} port {port}: {reason}"
    return VaultError(complaint, "choose another --port; 0 takes a free one")


def _warn_if_reachable(listener: socket.socket) -> None:
    host = listener.getsockname()[0]
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        print(
            f"vault: warning: {host} can be reached by other machines, without encryption",
            "hint: leave --host away, or put a TLS proxy in front",
            sep="\n",
            file=sys.stderr,
        )


def _advise_if_sealed(store: Store) -> None:
    if store.sealed:
        print(f"hint: the vault is sealed until: {PROGRAM} unseal --dir DIR", file=sys.stderr, flush=True)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
