"""Serves the application with uvicorn: listening socket, directory lock, signals and shutdown."""

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
from vault.control import Control
from vault.errors import VaultError
from vault.files import locked, private_directory, quoted
from vault.jobs import JobRunner
from vault.router import Clock, wall_clock
from vault.schema import jobs, open_store
from vault.store import Store
from vault.terminal import PROGRAM, printable

GRACE_S = 5  # for requests that are running at shutdown
MAX_CONNECTIONS = 200  # macOS allows 256 descriptors; the database and webhooks need some


class ListenOptions(NamedTuple):
    """The listening address, and where webhooks may go. `public_url` is the vault's URL for people if it differs."""

    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    webhooks_to_loopback: bool = False


def serve(directory: Path, options: ListenOptions, passphrase: str | None = None, clock: Clock = wall_clock) -> None:
    """Serve until SIGINT or SIGTERM. Prints only the URL to standard output. Raises VaultError."""
    disable_core_dumps()  # from here on, keys are in memory
    with contextlib.ExitStack() as stack:
        stack.enter_context(server_lock(directory))
        store = stack.enter_context(open_store(directory, passphrase, has_server_lock=True))
        listener = stack.enter_context(_listen(options))
        _warn_if_reachable(listener)
        _hint_if_sealed(store)
        to_loopback = options.webhooks_to_loopback
        app = create_app(store, clock=clock, public_url=options.public_url, webhooks_to_loopback=to_loopback)
        stack.enter_context(Control(store, clock, _url(listener)))
        stack.enter_context(JobRunner(store, clock, jobs(webhooks_to_loopback=to_loopback)))
        _run(uvicorn_config(app), listener)


def disable_core_dumps() -> None:
    """Prevent a crash from writing memory to disk.

    On Linux a limit of 1 byte, unlike a limit of 0, also keeps the kernel from piping the dump to a crash reporter.
    """
    hard_limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0) if hard_limit == 0 else (1, 1))


@contextlib.contextmanager
def server_lock(directory: Path) -> Iterator[None]:
    """Hold server.lock. Raises VaultError while a server is running."""
    private_directory(directory)
    with locked(directory / "server.lock", wait=False) as acquired:
        if not acquired:
            raise VaultError(f"another server has {quoted(directory)} open", "stop it, or name another --dir")
        yield


class _Protocol(H11Protocol):
    """Closes the longest idle connection when there are too many.

    uvicorn limits the time between an answer and the next request, but not the time until the first request.
    """

    last_data_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self.last_data_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            connections = [other for other in self.connections if isinstance(other, _Protocol)]
            min(connections, key=lambda other: other.last_data_s).transport.abort()

    def data_received(self, data: bytes) -> None:
        self.last_data_s = self.loop.time()
        super().data_received(data)


class _Server(uvicorn.Server):
    """Prints its URL once it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(_url(sockets[0]), flush=True)


def uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    """uvicorn's settings, without an access log (paths contain ids) and proxy headers (any client can send them)."""
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
    # uvicorn handles these signals while it runs and raises them again after it has stopped. This handler then ignores
    # the second signal, so the process exits with status 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listener])


def _listen(options: ListenOptions) -> socket.socket:
    host, port = options.host, options.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio disables Nagle's algorithm only if the protocol is given. Otherwise kept connections wait 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _listen_error(host, port, error) from None
    with contextlib.ExitStack() as opened:
        opened.enter_context(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            raise _listen_error(host, port, error) from None
        opened.pop_all()
    return listener


def _listen_error(host: str, port: int, error: OSError) -> VaultError:
    reason = (error.strerror or "no such address").lower()
    complaint = f"cannot listen on {printable(host)} port {port}: {reason}"
    return VaultError(complaint, "choose another --port; 0 takes a free one")


def _warn_if_reachable(listener: socket.socket) -> None:
    host = listener.getsockname()[0]
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        print(
            f"vault: warning: {host} can be reached by other machines, without encryption",
            "hint: omit --host, or use a TLS proxy",
            sep="\n",
            file=sys.stderr,
        )


def _hint_if_sealed(store: Store) -> None:
    if store.sealed:
        print(f"hint: the vault is sealed until you run: {PROGRAM} unseal --dir DIR", file=sys.stderr, flush=True)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
