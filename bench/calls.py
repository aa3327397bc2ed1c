"""What a call costs: beside a bare HTTP exchange, beside signing alone, many at once, and under load."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import sikkerkey_mcp
from bench import peers
from bench.api import Api
from bench.client import Home, Server, Tls, archive_command, call_line, line, running
from bench.spread import in_turns, seconds, spread

ROUNDS = 9


def _bare(port: int) -> Callable[[], object]:
    """One kept-alive exchange with the headers that the program sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    request = sikkerkey_mcp.Request("GET", "/v1/ai/whoami", None)
    headers = sikkerkey_mcp.signed_headers("a" * 36, lambda _text: b"s" * 64, request, 0, "n" * 32)

    def exchange() -> object:
        connection.request("GET", request.path, headers=headers)
        return connection.getresponse().read()

    return exchange


def _sign(home: Home) -> Callable[[], object]:
    """The signed headers of one request."""
    key = next(home.path.rglob("private.pem")).read_bytes()
    sign, request = sikkerkey_mcp.load_signer(key), sikkerkey_mcp.Request("GET", "/v1/ai/whoami", None)
    return lambda: sikkerkey_mcp.signed_headers("a" * 36, sign, request, 1_767_225_600, os.urandom(16).hex())


def overhead(rounds: int = 1_000, block: int = 1) -> dict[str, Any]:
    """Microseconds of a `whoami`, of a bare exchange and of signing alone; the 99th percentile of the first.

    One by one, as calls come: each finds the processor and its caches as other processes have left them.
    """
    with Api() as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        server.open()
        acts = {"call": lambda: server.ask(call_line(10)), "bare": _bare(api.port), "sign": _sign(home)}
        in_turns(acts, 1, 50)
        times = in_turns(acts, rounds, block)
    found = {name: spread(each, 1e6) for name, each in times.items()}
    return {**found, "call p99": statistics.quantiles(times["call"], n=100)[98] * 1e6}


def in_a_row() -> dict[str, Any]:
    """The same for fifty of a kind in a row, which profits those most that are small and alone."""
    return overhead(20, 50)


def _at_once(server: Server, count: int) -> None:
    server.write(b"".join(call_line(number + 10) for number in range(count)))
    for _ in range(count):
        server.read()


def _bare_at_once(links: Sequence[socket.socket]) -> None:
    """The limit: as many requests, each on a connection of its own, written and read by nothing but the system."""
    for link in links:
        link.sendall(b"GET /v1/ai/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for link in links:
        link.recv(65_536)


def at_once() -> list[dict[str, Any]]:
    """Milliseconds for 1, 8 and 32 calls, and bare exchanges, at once at an API that takes 0, 10 and 100 ms."""
    rows = []
    for delay_ms in (0, 10, 100):
        api = Api("--delay-ms", str(delay_ms))
        with running(api) as server, ExitStack() as stack:
            links = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(32)]
            _at_once(server, 32)
            for count in (1, 8, 32):
                acts = {"calls": partial(_at_once, server, count), "bare": partial(_bare_at_once, links[:count])}
                times = {name: spread(each, 1e3) for name, each in in_turns(acts, ROUNDS).items()}
                rows.append({"delay_ms": delay_ms, "count": count, **times})
    return rows


def _ping_s(server: Server, calls: int) -> float:
    server.write(b"".join(call_line(number + 10) for number in range(calls)))
    begin_s = time.perf_counter()
    server.write(line("ping", 9))
    taken_s = 0.0
    for _ in range(calls + 1):
        if server.read().startswith(b'{"jsonrpc":"2.0","id":9,'):
            taken_s = time.perf_counter() - begin_s
    return taken_s


def ping_under_load() -> dict[str, Any]:
    """Milliseconds until a ping is answered while 32 calls wait for an API that takes 100 ms, and while none does."""
    with running(Api("--delay-ms", "100")) as server:
        _at_once(server, 32)
        idle, loaded = zip(*((_ping_s(server, 0), _ping_s(server, 32)) for _ in range(20)))
    return {"idle": spread(idle, 1e3), "loaded": spread(loaded, 1e3), "worst_ms": max(loaded) * 1e3}


def _answers(server: Server, count: int, **arguments: Any) -> None:
    """Calls at once until all are answered; a peer's notifications are passed over."""
    server.write(b"".join(call_line(number + 10, **arguments) for number in range(count)))
    while count:
        count -= b'"result"' in server.read()


def _pace(server: Server, **slow: Any) -> dict[str, Any]:
    """Calls a second, 32 at a time, and milliseconds for 32 of 100 ms, by which `slow` makes a peer's tool wait."""
    _answers(server, 32)
    quick = [seconds(partial(_answers, server, 32)) for _ in range(10)]
    waited = [seconds(partial(_answers, server, 32, **slow)) for _ in range(5)]
    rates = spread([32 / each for each in quick])
    return {"rate": rates, "slow_ms": spread(waited, 1e3), "memory_mb": server.status_mb("VmRSS")}


def beside_peers() -> list[dict[str, Any]]:
    """The pace of a server, and of one-tool servers whose tool asks no vault."""
    with running(Api()) as server:
        own = _pace(server)
    with running(Api("--delay-ms", "100")) as server:
        own["slow_ms"] = _pace(server)["slow_ms"]
    rows = [{"server": "sikkerkey-mcp, each call a signed HTTP request", **own}]
    for name, command in peers.found().items():
        with Server(command, {}) as server:
            server.open()
            rows.append({"server": name, **_pace(server, delay_ms=100)})
    return rows


def handshakes() -> dict[str, Any]:
    """TLS connections that a hundred calls in a row take."""
    with Tls() as tls:
        api = Api(certificate=tls.chain)
        with running(api, filled=True, **tls.env) as server:
            times = [seconds(lambda: server.ask(call_line(10))) for _ in range(100)]
            return {"connections": _connections(api, tls.own), "call": spread(times, 1e6)}


def _connections(api: Api, bundle: str) -> int:
    tls = ssl.create_default_context(cafile=bundle)
    connection = http.client.HTTPSConnection("localhost", api.port, context=tls)
    connection.request("GET", "/connections")
    count = int(connection.getresponse().read()) - 1  # this one
    connection.close()
    return count
