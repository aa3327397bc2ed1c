"""The time of a call: alone, with others running concurrently, over TLS, and beside the official SDKs."""

from __future__ import annotations

import http.client
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench import peers
from bench.api import Api
from bench.client import Server, Tls, call_line, line, running
from bench.timing import alternate, quartiles, ratios, seconds

ROUNDS = 9
# As long as the headers of a signed request.
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": "sikkerkey-mcp/0.0.0",
    "X-Agent-Id": "a" * 36,
    "X-Machine-Id": "a" * 36,
    "X-Timestamp": "1" * 10,
    "X-Nonce": "n" * 32,
    "X-Signature": "s" * 88,
}


def _bare_exchange(port: int) -> Callable[[], object]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def exchange() -> object:
        connection.request("GET", "/v1/ai/whoami", headers=HEADERS)
        return connection.getresponse().read()

    return exchange


def single(rounds: int = 1_000) -> dict[str, Any]:
    """Microseconds of `whoami` and of a bare HTTP exchange with the same stub, and the 99th percentile of the first."""
    with Api() as api, running(api.url) as server:
        call = partial(server.request, call_line(10))
        actions: dict[str, Callable[[], object]] = {"call": call, "bare": _bare_exchange(api.port)}
        alternate(actions, 50)
        times = alternate(actions, rounds)
    found = {name: quartiles(each, 1e6) for name, each in times.items()}
    return {
        **found,
        "ratio": ratios(times, "bare")["call"],
        "call p99": statistics.quantiles(times["call"], n=100)[98] * 1e6,
    }


def _bare_exchanges(sockets: Sequence[socket.socket]) -> None:
    """One exchange per socket, all at the same time."""
    for each in sockets:
        each.sendall(b"GET /v1/ai/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for each in sockets:
        each.recv(65_536)


def concurrent() -> list[dict[str, Any]]:
    """Milliseconds until 1, 8 and 32 concurrent calls are answered, and as many bare exchanges."""
    rows = []
    for delay_ms in (0, 10, 100):
        with Api("--delay-ms", str(delay_ms)) as api, running(api.url) as server, ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", api.port))) for _ in range(32)]
            server.calls(32)
            for count in (1, 8, 32):
                actions = {
                    "calls": partial(server.calls, count),
                    "bare": partial(_bare_exchanges, sockets[:count]),
                }
                times = {name: quartiles(each, 1e3) for name, each in alternate(actions, ROUNDS).items()}
                rows.append({"delay_ms": delay_ms, "count": count, **times})
    return rows


def _ping_ms(server: Server, calls: int) -> float:
    server.write(b"".join(call_line(number + 10) for number in range(calls)))
    begin_s = time.perf_counter()
    server.write(line("ping", 9))
    taken_s = 0.0
    for _ in range(calls + 1):
        if server.read().startswith(b'{"jsonrpc":"2.0","id":9,'):
            taken_s = time.perf_counter() - begin_s
    return taken_s * 1e3


def ping() -> dict[str, Any]:
    """Milliseconds until a ping is answered, alone and while 32 calls wait for an API that takes 100 ms."""
    with Api("--delay-ms", "100") as api, running(api.url) as server:
        server.calls(32)
        idle, loaded = zip(*((_ping_ms(server, 0), _ping_ms(server, 32)) for _ in range(20)))
    return {"idle": quartiles(idle), "loaded": quartiles(loaded), "worst_ms": max(loaded)}


def _throughput(server: Server, **slow: Any) -> dict[str, Any]:
    """Calls per second with 32 running, and milliseconds for 32 calls of 100 ms."""
    server.calls(32)
    fast = [seconds(partial(server.calls, 32)) for _ in range(10)]
    waited = [seconds(partial(server.calls, 32, **slow)) for _ in range(5)]
    rates = quartiles([32 / each for each in fast])
    return {"rate": rates, "slow_ms": quartiles(waited, 1e3), "memory_mb": server.memory_mb()}


def beside_peers() -> list[dict[str, Any]]:
    """The throughput of this server, and of one-tool servers on the official SDKs, which call no API."""
    with Api() as api, running(api.url) as server:
        own = _throughput(server)
    with Api("--delay-ms", "100") as api, running(api.url) as server:
        own["slow_ms"] = _throughput(server)["slow_ms"]
    rows = [{"server": "sikkerkey-mcp, a signed HTTP request per call", **own}]
    for name, command in peers.found().items():
        with Server(command, {}) as server:
            server.open()
            rows.append({"server": name, **_throughput(server, delay_ms=100)})
    return rows


def tls() -> dict[str, Any]:
    """The connections that a hundred calls over TLS open, and microseconds per call."""
    with Tls() as keys, Api(certificate=keys.chain) as api, running(api.url, env=keys.env) as server:
        times = [seconds(partial(server.request, call_line(10))) for _ in range(100)]
        return {"connections": _connections(api, keys.authority), "call": quartiles(times, 1e6)}


def _connections(api: Api, bundle: str) -> int:
    context = ssl.create_default_context(cafile=bundle)
    connection = http.client.HTTPSConnection("localhost", api.port, context=context)
    connection.request("GET", "/connections")
    count = int(connection.getresponse().read()) - 1  # without this one
    connection.close()
    return count
