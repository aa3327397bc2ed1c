"""What a session takes: memory as it grows longer, processor time, large answers, and bytes that a model pays for."""

from __future__ import annotations

import http.client
import json
import sys
import time
from functools import partial
from typing import Any

from bench.api import Api
from bench.client import FLAGS, INITIALIZE, INITIALIZED, LIST, Home, Server, Tls, archive_command, call_line, running
from bench.spread import in_turns, spread
from bench.start import interpreters, version

LENGTHS = (1_000, 10_000)
IN_FLIGHT = 8  # enough to keep the program busy, as few as a client has


def many(server: Server, count: int) -> None:
    """Calls `whoami` that often, some at once."""
    server.write(b"".join(call_line(number) for number in range(10, 10 + IN_FLIGHT)))
    for number in range(count):
        server.read()
        if number + IN_FLIGHT < count:
            server.write(call_line(number + 10 + IN_FLIGHT))


def _memory(server: Server, calls: int) -> dict[str, Any]:
    return {"calls": calls, "rss_mb": server.status_mb("VmRSS"), "peak_mb": server.status_mb("VmHWM")}


def _grow(server: Server, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    rows, done = [_memory(server, 0)], 0
    for length in lengths:
        cpu_s, begin_s = server.cpu_s(), time.perf_counter()
        many(server, length - done)
        per_call_s = (time.perf_counter() - begin_s) / (length - done)
        per_1000_s = (server.cpu_s() - cpu_s) / (length - done) * 1e3
        rows.append({**_memory(server, length), "us_per_call": per_call_s * 1e6, "cpu_s_per_1000": per_1000_s})
        done = length
    return rows


def session() -> list[dict[str, Any]]:
    """Resident memory in MB, processor seconds and microseconds a call, after so many calls."""
    with running(Api()) as server:
        return _grow(server, LENGTHS)


def session_over_tls(
    lengths: tuple[int, ...] = LENGTHS, python: str = sys.executable, *, filled: bool = True
) -> list[dict[str, Any]]:
    """The same over HTTPS, with the 140 certificates that a public vault needs."""
    with Tls() as tls, running(Api(certificate=tls.chain), python, filled=filled, **tls.env) as server:
        return _grow(server, lengths)


def very_first_session() -> list[dict[str, Any]]:
    """The same with an empty cache, which costs memory that a process does not give back."""
    return session_over_tls(filled=False)


def _bare_mb(python: str) -> float:
    with Server([python, *FLAGS, "-c", "print(flush=True); input()"], {}) as server:
        server.read()
        return server.status_mb("VmRSS")


def by_python() -> list[dict[str, Any]]:
    """What each interpreter takes by itself, and after 1,000 calls over HTTPS, with a filled cache and an empty one."""
    rows = []
    for python in interpreters():
        warm, first = (session_over_tls((1_000,), python, filled=filled)[-1]["rss_mb"] for filled in (True, False))
        rows.append({"python": version(python), "bare_mb": _bare_mb(python), "warm_mb": warm, "first_mb": first})
    return rows


def _fetched(api: Api, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body


def _limit(api: Api, path: str, *, is_json: bool) -> bytes:
    """The least that any program does with an answer: fetch it, read it if it is JSON, and write it as JSON."""
    body = _fetched(api, path)
    return json.dumps(json.loads(body) if is_json else body.decode()).encode()


def _large(action: str, *, is_json: bool, rounds: int = 5) -> dict[str, Any]:
    api = Api()
    with running(api) as server:
        server.ask(call_line(5))
        before_mb, request = server.status_mb("VmRSS"), call_line(6, "read_audit", action=action)
        size_bytes = len(server.ask(request))
        peak_mb = server.status_mb("VmHWM")
        limit = partial(_limit, api, f"/{action}", is_json=is_json)
        times = in_turns({"call": lambda: server.ask(request), "limit": limit}, rounds)
        found = {name: spread(each, 1e3) for name, each in times.items()}
        came_bytes, after_mb = len(_fetched(api, f"/{action}")), server.status_mb("VmRSS")
    memory = {"before_mb": before_mb, "peak_mb": peak_mb, "after_mb": after_mb}
    return {**found, "came_bytes": came_bytes, "bytes": size_bytes, **memory}


def large_answers() -> dict[str, Any]:
    """Time and peak memory of an export of 10,000 rows and of 5 MB of JSON, and the time that a bare program takes."""
    return {"CSV, 10,000 rows": _large("export", is_json=False), "JSON, 5 MB": _large("query", is_json=True)}


def sizes() -> dict[str, int]:
    """Bytes of what is sent to every client, and so to the model."""
    with Api("--answer-bytes", "10000") as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        opening = server.ask(INITIALIZE)
        server.write(INITIALIZED)
        listing = server.ask(LIST)
        whoami = server.ask(call_line(5))
        query = server.ask(call_line(6, "read_audit", action="query"))
        refusal = server.ask(call_line(7, "manage_projects", action="delete"))
    instructions = json.loads(opening)["result"]["instructions"]
    return {
        "initialize": len(opening),
        "instructions": len(instructions.encode()),
        "tools/list": len(listing),
        "whoami, 127 bytes of the vault": len(whoami),
        "audit page, 10,000 bytes of the vault": len(query),
        "refusal of a missing argument": len(refusal),
    }
