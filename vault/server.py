"""Serves the application with uvicorn: listening sockets, directory lock, signals and shutdown.

There are two ports: one for plain HTTP, which is all that the vendor's client for machines can use here, and one for
HTTPS on loopback with the vault's own certificate, which agents pin when they are installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import ipaddress
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vault import certificate
from vault.app import create_app
from vault.control import Control
from vault.dashboard.sessions import Sessions
from vault.domains import agents
from vault.errors import VaultError
from vault.files import create_private, locked, private_directory, quoted, read_private
from vault.jobs import JobRunner
from vault.place import command_line
from vault.router import Clock, wall_clock
from vault.schema import jobs, open_store
from vault.store import Store
from vault.terminal import printable

GRACE_S = 5  # for requests that are running at shutdown
LAST_PORT = 65_535
PORT_TRIES = 20  # for a port that is free at both loopback addresses
OTHER_LOOPBACK = {"127.0.0.1": "::1", "0.0.0.0": "::1", "::1": "127.0.0.1"}  # noqa: S104  # :: takes IPv4 as well
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # without IPv6, nobody can listen there
PR_SET_DUMPABLE = 4  # of <linux/prctl.h>
TLS_PORT = "tls-port"  # the file with the port of HTTPS, in decimal; like the certificate, it is in no backup
HINT_AGENTS = (
    "this vault's agents connect to that port: stop what uses it, or take a free port with --tls-port 0 and install the"
    " agents again"
)
MAX_CONNECTIONS = 200  # macOS allows 256 descriptors; the database and webhooks need some

Announce = Callable[[Store, str], None]


class PortError(VaultError):
    """A port that the vault cannot listen on."""


class ListenOptions(NamedTuple):
    """The listening addresses, and what is allowed. `public_url` is the vault's URL for people if it differs.

    `tls_port` is the port for HTTPS, always on 127.0.0.1. By default it is that of an earlier start, else the one after
    `port`. If `port` is 0, it is a free one.
    `webhooks_to_loopback` allows webhooks to this computer, `reveal` pages of the dashboard that show values.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_port: int | None = None
    public_url: str | None = None
    webhooks_to_loopback: bool = False
    reveal: bool = True


def serve(
    directory: Path,
    options: ListenOptions,
    passphrase: str | None = None,
    clock: Clock = wall_clock,
    announce: Announce | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Prints only the URL to standard output. Raises VaultError.

    `announce` is called instead of printing, once the server accepts connections. It must return soon.
    """
    disable_core_dumps()  # from here on, keys are in memory
    forbid_inspection()
    with contextlib.ExitStack() as stack:
        stack.enter_context(server_lock(directory))
        store = stack.enter_context(open_store(directory, passphrase, has_server_lock=True))
        listener, tls_listener = _listen(options, stack), _listen_for_tls(options, store, stack)
        own = certificate.load_or_create(directory, clock())
        agent_url = f"{_url(tls_listener, 'https')}#sha256={certificate.fingerprint(own)}"
        _warn_if_reachable(listener)
        _hint_if_sealed(store)
        to_loopback, public_url = options.webhooks_to_loopback, _public_url(options, listener)
        sessions = Sessions(clock)
        app = create_app(
            store,
            clock=clock,
            public_url=public_url,
            webhooks_to_loopback=to_loopback,
            sessions=sessions,
            reveal=options.reveal,
            agent_url="" if options.public_url else agent_url,
        )
        stack.enter_context(Control(store, clock, _url(listener), agent_url, sessions.mint_link, reveal=options.reveal))
        stack.enter_context(JobRunner(store, clock, jobs(webhooks_to_loopback=to_loopback)))
        server = _Server(
            uvicorn_config(app),
            tls_listener,
            certificate.tls_context(directory),
            lambda url: print(url, flush=True) if announce is None else announce(store, url),
        )
        _run(server, listener)


def disable_core_dumps() -> None:
    """Prevent a crash from writing memory to disk.

    On Linux a limit of 1 byte, unlike a limit of 0, also keeps the kernel from piping the dump to a crash reporter.
    """
    hard_limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0) if hard_limit == 0 else (1, 1))


def forbid_inspection() -> None:
    """On Linux, keep other processes of the same user from reading this one's memory. Root still can."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # a Python that is linked statically: serve anyway
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def server_lock(directory: Path) -> Iterator[None]:
    """Hold server.lock. Raises VaultError while a server is running."""
    private_directory(directory)
    with locked(directory / "server.lock", wait=False) as acquired:
        if not acquired:
            raise VaultError(f"another server has {quoted(directory)} open", "stop it, or name another --dir")
        yield


class _Protocol(H11Protocol):
    """Closes the longest idle connection when there are too many, and one that waits for its answer only then.

    uvicorn limits the time between an answer and the next request, but not the time until the first request.
    """

    last_data_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self.last_data_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            connections = [other for other in self.connections if isinstance(other, _Protocol)]
            min(connections, key=lambda other: (other.awaits_answer, other.last_data_s)).transport.abort()

    @property
    def awaits_answer(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self.last_data_s = self.loop.time()
        super().data_received(data)


class _TlsProtocol(_Protocol):
    """Begins with a TLS handshake.

    asyncio's server can do that too, but shows no connection before the end of its handshake, so none could be counted.
    """

    def __init__(self, tls: ssl.SSLContext, config: uvicorn.Config, state: ServerState, app: dict[str, Any]) -> None:
        super().__init__(config, state, app)
        self._tls = tls
        self._is_encrypted = False
        self._early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as above
        super().connection_made(transport)  # counts it
        self._handshake = self.loop.create_task(self._start_tls(transport))

    async def _start_tls(self, transport: asyncio.Transport) -> None:
        try:
            tls = await self.loop.start_tls(transport, self, self._tls, server_side=True, ssl_handshake_timeout=GRACE_S)
        except OSError:  # also of ssl; the connection is closed
            tls = None
        if tls is None or self not in self.connections:  # it was lost meanwhile
            self.connection_lost(None)
            return
        super().connection_made(tls)
        self._is_encrypted = True
        if self._early:  # to h11, no data is the end
            super().data_received(self._early)

    def data_received(self, data: bytes) -> None:
        """Keeps what arrives together with the end of the handshake until answers are encrypted."""
        if self._is_encrypted:
            super().data_received(data)
        else:
            self._early += data


class _Server(uvicorn.Server):
    """Listens with TLS too, and announces its URL once it accepts connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        tls_listener: socket.socket,
        tls: ssl.SSLContext,
        announce: Callable[[str], None] = print,
    ) -> None:
        super().__init__(config)
        self._tls_listener, self._tls, self._announce = tls_listener, tls, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        # As uvicorn does for its own sockets, which are either all with TLS or all without. It closes this one too.
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(self._tls_protocol, sock=self._tls_listener))
        self._announce(_url(sockets[0]))

    def _tls_protocol(self) -> _TlsProtocol:
        return _TlsProtocol(self._tls, self.config, self.server_state, self.lifespan.state)


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


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    # uvicorn handles these signals while it runs and raises them again after it has stopped. This handler then ignores
    # the second signal, so the process exits with status 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[listener])


def _listen(options: ListenOptions, opened: contextlib.ExitStack) -> socket.socket:
    """The listening socket. It and the sockets that hold other addresses are closed with `opened`.

    Clients may look up the name localhost and then try either loopback address, so the vault takes both. Otherwise
    another user of this computer could listen at the one that is free.
    """
    for _ in range(PORT_TRIES if options.port == 0 else 1):
        with contextlib.ExitStack() as tried:
            listener = tried.enter_context(_bound(options.host, options.port))
            try:
                _hold_other_loopback(listener, tried)
            except OSError as error:
                failure = error
                continue
            listener.listen(128)
            opened.push(tried.pop_all())
            return listener
    raise _listen_error("both loopback addresses", options.port, failure)


def _listen_for_tls(options: ListenOptions, store: Store, opened: contextlib.ExitStack) -> socket.socket:
    """The listening socket for HTTPS.

    Installed agents know its port. So the vault keeps the port, and takes another one by itself only if there is no
    agent yet.
    """
    if options.tls_port is None and options.port == 0:
        return _listen(ListenOptions(), opened)
    expected = _expected_tls_port(options, store)
    try:
        listener = _listen(ListenOptions(port=expected), opened)
    except PortError as error:
        if options.tls_port is not None:
            raise PortError(str(error), "choose another --tls-port; 0 takes a free one") from None
        with store.reader() as db:
            is_known = agents.any_installed(db)
        if is_known:
            raise PortError(str(error), HINT_AGENTS) from None
        listener = _listen(ListenOptions(), opened)
        taken = listener.getsockname()[1]
        print(f"hint: port {expected} is in use: HTTPS for agents is at port {taken} from now on", file=sys.stderr)
    _keep_tls_port(store, listener.getsockname()[1])
    return listener


def _expected_tls_port(options: ListenOptions, store: Store) -> int:
    if options.tls_port is not None:
        return options.tls_port
    path = store.directory / TLS_PORT
    kept = read_private(path).decode(errors="replace").strip() if os.path.lexists(path) else ""
    if kept.isascii() and kept.isdecimal() and 0 < int(kept[:6]) <= LAST_PORT:
        return int(kept)
    return options.port + 1 if options.port < LAST_PORT else 0


def _keep_tls_port(store: Store, port: int) -> None:
    content, path = f"{port}\n".encode(), store.directory / TLS_PORT
    if not os.path.lexists(path) or read_private(path) != content:
        create_private(path, content)


def _bound(host: str, port: int) -> socket.socket:
    try:
        # Not the name: on many systems it leads to ::1 first, where fewer clients look.
        numeric = "127.0.0.1" if host == "localhost" else host
        family, kind, protocol, _, address = socket.getaddrinfo(numeric, port, type=socket.SOCK_STREAM)[0]
        # asyncio disables Nagle's algorithm only if the protocol is given. Otherwise kept connections wait 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _listen_error(host, port, error) from None
    with contextlib.ExitStack() as opened:
        opened.enter_context(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise _listen_error(host, port, error) from None
        opened.pop_all()
    return listener


def _hold_other_loopback(listener: socket.socket, opened: contextlib.ExitStack) -> None:
    """Take the other loopback address with the same port, without serving it. Raises OSError if somebody else has it.

    A client that tries it first is refused, and then tries the right one.
    """
    host, port = listener.getsockname()[:2]
    if host not in OTHER_LOOPBACK:
        return
    other = OTHER_LOOPBACK[host]
    try:
        held = opened.enter_context(socket.socket(socket.AF_INET6 if ":" in other else socket.AF_INET))
        # Without SO_REUSEADDR, so that no other socket can share the address while this one does not listen.
        held.bind((other, port))
    except OSError as error:
        if error.errno not in NO_SUCH_ADDRESS:
            raise


def _listen_error(host: str, port: int, error: OSError) -> PortError:
    reason = (error.strerror or "no such address").lower()
    complaint = f"cannot listen on {printable(host)} port {port}: {reason}"
    return PortError(complaint, "choose another --port; 0 takes a free one")


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
        unsealing = command_line(store.directory, "unseal")
        print(f"hint: the vault is sealed until you run: {unsealing}", file=sys.stderr, flush=True)


def _public_url(options: ListenOptions, listener: socket.socket) -> str | None:
    """The address in links to temporary secrets. Not the HTTPS address: browsers would warn about its certificate.

    None, the address that a client has connected to, if the vault listens at all addresses.
    """
    host = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    return options.public_url or (None if host.is_unspecified else _url(listener))


def _url(listener: socket.socket, scheme: str = "http") -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
