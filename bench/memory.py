"""Memory and processor time of a session, memory during oversized and hostile answers, and sizes in bytes."""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import time
from functools import partial
from typing import Any, NamedTuple

from bench.api import Api
from bench.client import FLAGS, INITIALIZE, INITIALIZED, LIST, Home, Server, Tls, archive_command, call_line, running
from bench.start import interpreters, version
from bench.timing import alternate, quartiles
from tests.support import faulty_vault
from tests.support.faulty_vault import Act, FaultyVault

LENGTHS = (1_000, 10_000)  # of a session, in calls
RUNNING = 8  # concurrent calls: enough to keep the program busy


def many_calls(server: Server, count: int) -> None:
    """Calls `whoami` `count` times, RUNNING of them concurrently."""
    server.write(b"".join(call_line(number) for number in range(10, 10 + RUNNING)))
    for number in range(count):
        server.read()
        if number + RUNNING < count:
            server.write(call_line(number + 10 + RUNNING))


def _session(server: Server, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"calls": 0, "rss_mb": server.memory_mb(), "peak_mb": server.memory_mb("VmHWM")}]
    done = 0
    for length in lengths:
        cpu_s, begin_s = server.cpu_s(), time.perf_counter()
        many_calls(server, length - done)
        us_per_call = (time.perf_counter() - begin_s) / (length - done) * 1e6
        cpu_s_per_1000 = (server.cpu_s() - cpu_s) / (length - done) * 1e3
        memory = {"rss_mb": server.memory_mb(), "peak_mb": server.memory_mb("VmHWM")}
        rows.append({"calls": length, **memory, "us_per_call": us_per_call, "cpu_s_per_1000": cpu_s_per_1000})
        done = length
    return rows


def session() -> list[dict[str, Any]]:
    """Memory, processor time and microseconds per call after each of LENGTHS, over HTTP."""
    with Api() as api, running(api.url) as server:
        return _session(server, LENGTHS)


def session_over_tls(
    lengths: tuple[int, ...] = LENGTHS, python: str = sys.executable, *, warm: bool = True
) -> list[dict[str, Any]]:
    """The same over HTTPS, with the certificates that a public vault needs."""
    with Tls() as tls, Api(certificate=tls.chain) as api, running(api.url, python, warm=warm, env=tls.env) as server:
        return _session(server, lengths)


def first_session() -> list[dict[str, Any]]:
    """The same over HTTPS in the process that fills an empty cache."""
    return session_over_tls(warm=False)


def by_python() -> list[dict[str, Any]]:
    """Memory of each bare interpreter, and of a session of 1,000 calls over HTTPS."""
    rows = []
    for python in interpreters():
        with Server([python, *FLAGS, "-c", "print(flush=True); input()"], {}) as bare:
            bare.read()
            bare_mb = bare.memory_mb()
        session_mb = session_over_tls((1_000,), python)[-1]["rss_mb"]
        rows.append({"python": version(python), "bare_mb": bare_mb, "session_mb": session_mb})
    return rows


# oversized and hostile answers

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
FIFTY_MB = 50 * 1024 * 1024
PIECE = b'{"a":1},' * 8192
PIECES = FIFTY_MB // len(PIECE)
BOMB = gzip.compress(bytes(1024 * 1024), 9) * 50  # parts that are decompressed as one
LARGE_MB, USUAL_MB = 256, 128  # the most that a call may add: for an answer of 16 MB, for any other


class Fault(NamedTuple):
    """An answer, and the most memory in MB that a call may add while it reads it."""

    name: str
    act: Act
    most_mb: int = USUAL_MB


# fmt: off
FAULTS = [
    Fault("integer of 10,000,000 digits",   faulty_vault.answer(b'{"a":%b}' % (b"7" * 10_000_000))),
    Fault("100,000 nested lists",           faulty_vault.answer(b"[" * 100_000 + b"]" * 100_000)),
    Fault("50 MB with a length",            faulty_vault.flood(JSON + b"Content-Length: %d\r\n\r\n" % FIFTY_MB, PIECE, PIECES)),  # noqa: E501
    Fault("50 MB without a length",         faulty_vault.flood(JSON + b"Connection: close\r\n\r\n", PIECE, PIECES)),
    Fault("50 MB in chunks",                faulty_vault.flood(CHUNKED, b"%x\r\n%b\r\n" % (len(PIECE), PIECE), PIECES)),
    Fault("50 MB in one chunk",             faulty_vault.flood(CHUNKED + b"%x\r\n" % FIFTY_MB, PIECE, PIECES)),
    Fault("10 MB in chunks of one byte",    faulty_vault.flood(CHUNKED, b"1\r\nx\r\n" * 10_000, 1_000)),
    Fault("60 MB of trailers",              faulty_vault.flood(CHUNKED + b"0\r\n", b"X: x\r\n" * 10_000, 1_000)),
    Fault("60 MB of headers",               faulty_vault.flood(JSON, b"X: x\r\n" * 1_000, 10_000)),
    Fault("gzip of 50 MB",                  faulty_vault.answer(BOMB, 200, "Content-Encoding: gzip")),
    Fault("undeclared gzip of 50 MB",       faulty_vault.answer(BOMB)),
    Fault("error message of 5 MB",          faulty_vault.answer(b'{"error":"%b"}' % (b"x" * 5_000_000), 400)),
    Fault("error message of 50 MB",         faulty_vault.flood(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % FIFTY_MB, PIECE, PIECES)),  # noqa: E501
    # Last, because the memory that they leave behind would hide what others add.
    Fault("16 MB in one string",            faulty_vault.answer(b'{"a":"%b"}' % (b"x" * 16_777_000)), LARGE_MB),
    Fault("16 MB of small objects",         faulty_vault.answer(b'[%b{"a":"%b"}]' % (b'{"a":1},' * 300_000, b"x" * 14_300_000)), LARGE_MB),  # noqa: E501
    Fault("16 MB of empty objects",         faulty_vault.answer(b"[%b{}]" % (b"{}," * 5_500_000)), LARGE_MB),
]
# fmt: on


def faults() -> list[dict[str, Any]]:
    """The memory in MB that a write adds at its peak, for each of FAULTS, and what is left when all are done.

    Writes, because a read is repeated where the connection breaks, and each attempt reads the same answer.
    """
    rows = []
    write = call_line(6, "manage_projects", action="create", name="bench")
    with FaultyVault() as vault, running(vault.url) as server, server.peak_reset() as reset:
        server.request(call_line(5))
        for fault in FAULTS:
            vault.acts[:] = [fault.act]
            before_mb = server.memory_mb()
            reset.write(b"5")
            server.request(write)
            rows.append(
                {"name": fault.name, "grown_mb": server.memory_mb("VmHWM") - before_mb, "most_mb": fault.most_mb}
            )
            vault.acts[:] = [faulty_vault.answer()]
            server.request(call_line(7))
    return rows


# large answers that are accepted


def _fetch(api: Api, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body


def _bare(api: Api, path: str, *, is_json: bool) -> bytes:
    """The least work for an answer: fetch it, parse it if it is JSON, and write it as JSON."""
    body = _fetch(api, path)
    return json.dumps(json.loads(body) if is_json else body.decode()).encode()


def _large(action: str, *, is_json: bool, rounds: int = 5) -> dict[str, Any]:
    with Api() as api, running(api.url) as server:
        server.request(call_line(5))
        before_mb, request = server.memory_mb(), call_line(6, "read_audit", action=action)
        size_bytes = len(server.request(request))
        peak_mb = server.memory_mb("VmHWM")
        bare = partial(_bare, api, f"/{action}", is_json=is_json)
        times = alternate({"call": partial(server.request, request), "bare": bare}, rounds)
        found = {name: quartiles(each, 1e3) for name, each in times.items()}
        received_bytes, after_mb = len(_fetch(api, f"/{action}")), server.memory_mb()
    memory = {"before_mb": before_mb, "peak_mb": peak_mb, "after_mb": after_mb}
    return {**found, "received_bytes": received_bytes, "bytes": size_bytes, **memory}


def large_answers() -> dict[str, Any]:
    """Time and memory of an export of 10,000 rows and of 5 MB of JSON."""
    return {"CSV, 10,000 rows": _large("export", is_json=False), "JSON, 5 MB": _large("query", is_json=True)}


def sizes() -> dict[str, int]:
    """Bytes that every client, and so every model, receives."""
    with Api("--answer-bytes", "10000") as api, Home(api.url) as home, Server(archive_command(), home.env) as server:
        initialize = server.request(INITIALIZE)
        server.write(INITIALIZED)
        listing = server.request(LIST)
        whoami = server.request(call_line(5))
        query = server.request(call_line(6, "read_audit", action="query"))
        refusal = server.request(call_line(7, "manage_projects", action="delete"))
    instructions = json.loads(initialize)["result"]["instructions"]
    return {
        "initialize": len(initialize),
        "instructions": len(instructions.encode()),
        "tools/list": len(listing),
        "whoami, 127 bytes from the vault": len(whoami),
        "audit page, 10,000 bytes from the vault": len(query),
        "refusal of a missing argument": len(refusal),
    }
