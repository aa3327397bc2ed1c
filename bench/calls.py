"""What a call costs: beside a bare HTTP exchange, beside signing alone, many at once, and under load."""

from __future__ import annotations

import http.client
import ssl
import statistics
import time
from collections.abc import Callable
from typing import Any

import sikkerkey_mcp as m
from bench import peers
from bench.api import Api
from bench.client import Home, Server, Tls, archive_command, call_line, line, running

BLOCKS, BLOCK = 20, 50


def _times_s(act: Callable[[int], object], count: int) -> list[float]:
    times = []
    for number in range(count):
        begin_s = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - begin_s)
    return times


def _bare(port: int) -> Callable[[int], object]:
    """One kept-alive exchange with the headers that the program sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    request = m.Request("GET", "/v1/ai/whoami", None)
    headers = m.signed_headers("a" * 36, lambda _text: b"s" * 64, request, 0, "n" * 32)

    def exchange(_number: int) -> object:
        connection.request("GET", request.path, headers=headers)
        return connection.getresponse().read()

    return exchange


def _sign(home: Home) -> Callable[[int], object]:
    """The signed headers of one request."""
    key = next(home.path.rglob("private.pem")).read_bytes()
    sign, request = m.load_signer(key), m.Request("GET", "/v1/ai/whoami", None)
    return lambda number: m.signed_headers("a" * 36, sign, request, number, f"{number:032x}")


def overhead() -> dict[str, Any]:
    """Median and 99th percentile in microseconds of a `whoami`, of a bare exchange, and of signing; in turns."""
    with Api() as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        server.open()
        acts = {"call": lambda number: server.ask(call_line(number + 10)), "bare": _bare(api.port), "sign": _sign(home)}
        for act in acts.values():
            _times_s(act, BLOCK)
        times: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(BLOCKS):
            for name, act in acts.items():
                times[name] += _times_s(act, BLOCK)
    found = {f"{name}_us": statistics.median(each) * 1e6 for name, each in times.items()}
    return {**found, "call_p99_us": statistics.quantiles(times["call"], n=100)[98] * 1e6}


def _at_once_s(server: Server, count: int) -> float:
    begin_s = time.perf_counter()
    server.write(b"".join(call_line(number + 10) for number in range(count)))
    for _ in range(count):
        server.read()
    return time.perf_counter() - begin_s


def at_once() -> list[dict[str, Any]]:
    """Seconds for 1, 8 and 32 calls at once at an API that takes 0, 10 and 100 ms; medians of 5."""
    rows = []
    for delay_ms in (0, 10, 100):
        with running(Api("--delay-ms", str(delay_ms))) as server:
            _at_once_s(server, 32)
            for count in (1, 8, 32):
                taken_s = statistics.median(_at_once_s(server, count) for _ in range(5))
                rows.append({"delay_ms": delay_ms, "calls": count, "ms": taken_s * 1e3})
    return rows


def _ping_s(server: Server) -> float:
    server.write(b"".join(call_line(number + 10) for number in range(32)))
    begin_s = time.perf_counter()
    server.write(line("ping", 9))
    taken_s = 0.0
    for _ in range(33):
        if server.read().startswith(b'{"jsonrpc":"2.0","id":9,'):
            taken_s = time.perf_counter() - begin_s
    return taken_s


def ping_under_load() -> dict[str, Any]:
    """Milliseconds until a ping is answered while 32 calls wait for an API that takes 100 ms."""
    with running(Api("--delay-ms", "100")) as server:
        _at_once_s(server, 32)
        times = [_ping_s(server) for _ in range(20)]
    return {"median_ms": statistics.median(times) * 1e3, "worst_ms": max(times) * 1e3}


def _answers(server: Server, lines: bytes, count: int) -> float:
    """Seconds until so many replies have come; a peer's notifications are passed over."""
    begin_s = time.perf_counter()
    server.write(lines)
    while count:
        count -= b'"result"' in server.read()
    return time.perf_counter() - begin_s


def _pace(server: Server, **slow: Any) -> dict[str, float]:
    """Calls a second, 32 at a time, and milliseconds for 32 of 100 ms, by which `slow` makes a peer's tool wait."""
    _answers(server, b"".join(call_line(number + 10) for number in range(32)), 32)
    quick = [_answers(server, b"".join(call_line(n + 10) for n in range(32)), 32) for _ in range(10)]
    waited = [_answers(server, b"".join(call_line(n + 10, **slow) for n in range(32)), 32) for _ in range(3)]
    memory_mb = server.status_mb("VmRSS")
    return {"calls/s": 32 / statistics.median(quick), "32 x 100 ms": statistics.median(waited) * 1e3, "mb": memory_mb}


def beside_peers() -> list[dict[str, Any]]:
    """The pace of a server, and of one-tool servers whose tool asks no vault."""
    with running(Api()) as server:
        own = _pace(server)
    with running(Api("--delay-ms", "100")) as server:
        own["32 x 100 ms"] = statistics.median(_at_once_s(server, 32) for _ in range(3)) * 1e3
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
        with running(api, **tls.env) as server:
            times = _times_s(lambda number: server.ask(call_line(number + 10)), 100)
            return {"connections": _connections(api, tls.own), "call_us": statistics.median(times) * 1e6}


def _connections(api: Api, bundle: str) -> int:
    tls = ssl.create_default_context(cafile=bundle)
    connection = http.client.HTTPSConnection("localhost", api.port, context=tls)
    connection.request("GET", "/connections")
    count = int(connection.getresponse().read()) - 1  # this one
    connection.close()
    return count
