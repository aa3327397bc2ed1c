"""Measures the local vault at 100, 10,000 and 100,000 secrets, and writes the last section of RESULTS.md.

    .venv/bin/python -m bench.vault_size [--secrets 100 10000 100000] [--seconds 4] [--dir DIR]

Vaults are filled without requests, in a directory below DIR (by default the system's temporary directory, which should
be on a disk). The processor time of requests is measured without a server; rates and latencies over kept connections to
a served vault, with clients in processes of their own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.__main__ import machine
from bench.report import VAULT_TITLE, table, with_vault_section
from bench.vault_asks import Ask, answer, asks
from bench.vault_fill import PROJECT, Filled, Identity, Sizes, fill
from bench.vault_load import Client as Signer
from bench.vault_load import headers
from vault.app import create_app
from vault.domains import projects
from vault.router import wall_clock
from vault.schema import ROUTES, open_store

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
CLIENTS = (1, 8, 32)
CPU_ROUNDS = 15
PACED_S = 0.02  # between the machine's reads beside other load
CREATE = {"name": "load", "value": "v" * 1000}
SECRETS = f"/v1/ai/projects/{PROJECT}/secrets"
READ = "/v1/secret/sk_0"


class Load(NamedTuple):
    """What each client repeats, for some seconds."""

    method: str
    path: str
    body: object = None
    seconds: float = 0.0
    by_machine: bool = False


NEW_SECRET = Load("POST", SECRETS, CREATE)
# The loads that clients send alone, and those beside which a machine reads.
ALONE = {"a new secret": NEW_SECRET, "a read by a machine": Load("GET", READ, by_machine=True)}
BESIDE = {
    "nothing": Load("", ""),
    "new secrets": NEW_SECRET,
    "audit queries by action": Load("POST", "/v1/ai/audit/query", {"actions": ["secret_read"]}),
    "audit searches without a match": Load("POST", "/v1/ai/audit/query", {"search": "no entry has these words"}),
    "lists of all secrets": Load("GET", SECRETS),
    "downloads of the log": Load("POST", "/v1/ai/audit/export", {}),
}


def sizes_of(secrets: int) -> Sizes:
    """The rows of a vault with so many secrets: at most 10,000 machines and schedules, and ten times the entries."""
    return Sizes(secrets, min(secrets, 10_000), 10 * secrets, min(secrets // 2, 10_000))


class Cost(NamedTuple):
    """The processor time of a request, and the bytes of its answer."""

    ms: float
    answer_bytes: int


class Latency(NamedTuple):
    """What clients saw: requests a second together, and milliseconds."""

    rate: float
    p50: float
    p99: float


# ---- without a server ------------------------------------------------------------------------------------------------


def costs(directory: Path, filled: Filled) -> tuple[dict[str, Cost], float]:
    """The cost of each request of `vault_asks` that the vault answers with success, and of opening the vault, in ms."""
    started = time.process_time()
    store = open_store(directory)
    opening_ms = (time.process_time() - started) * 1000
    found: dict[str, Cost] = {}
    with store:
        app = create_app(store)
        for ask in asks(filled, store.vault_id, ROUTES):
            rounds = CPU_ROUNDS if ask.route.reads or ask.route.path in REPEATED else 1
            taken = [_cost(app, ask) for _ in range(rounds)]
            if taken[0].answer_bytes:
                found[_title(ask)] = Cost(statistics.median(each.ms for each in taken), taken[0].answer_bytes)
    return found, opening_ms


class Deletion(NamedTuple):
    """The processor time of the request that deletes a large project, and of the job that deletes its rows after it."""

    request_ms: float
    transactions: int
    median_ms: float
    longest_ms: float


def deletion(directory: Path, filled: Filled) -> Deletion:
    """Delete the project that has nearly everything."""
    route = next(each for each in ROUTES if each.path == "/v1/ai/projects/{projectId}/delete")
    ask = Ask(filled.agent, route, route.path.format(projectId=PROJECT), {"confirmName": "filled"})
    with open_store(directory) as store:
        taken: list[float] = []

        @contextmanager
        def timed() -> Iterator[sqlite3.Connection]:
            started = time.process_time()
            with store.transaction() as db:
                yield db
            taken.append((time.process_time() - started) * 1000)

        request = _cost(create_app(store), ask)
        while not taken or len(taken) % projects.TRANSACTIONS_AT_ONCE == 0:
            projects.delete_rows(timed, lambda: store.keys, wall_clock())
    return Deletion(request.ms, len(taken), statistics.median(taken), max(taken))


# The requests that write and can be repeated.
REPEATED = (
    "/v1/ai/projects/{projectId}/secrets",
    "/v1/ai/projects/{projectId}/secrets/{secretId}/update",
    "/v1/ai/projects/{projectId}/secrets/{secretId}/rotate",
    "/v1/ai/projects/{projectId}/secrets/{secretId}/note",
    "/v1/secret/{secretId}",
    "/v1/secrets/export",
    "/v1/secrets/poll",
)


def _cost(app: Any, ask: Ask) -> Cost:
    started = time.process_time()
    given = answer(app, ask, wall_clock())
    ms = (time.process_time() - started) * 1000
    return Cost(ms, len(str(given.body)) if given.status < 400 else 0)


def _title(ask: Ask) -> str:
    body = json.dumps(ask.body) if ask.body and ask.route.path.endswith("/query") else ""
    who = "" if ask.who is None or ask.who.id != "restricted" else " (allowlist)"
    return f"{ask.route.method} {ask.route.path}{f' {body}' if body else ''}{who}"


# ---- with a server ---------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """What a client process does for some seconds: requests of one identity."""

    port: int
    who: Identity
    method: str
    path: str
    body: object
    seconds: float
    pause_s: float


_start: Any = None  # in a client process: a barrier at which all clients start


def _share(barrier: Any) -> None:
    global _start  # noqa: PLW0603  # the pool has no other way to hand over a barrier
    _start = barrier


def run(job: Job) -> list[float]:
    """Wait for the other clients, send requests until the time is over, and return the duration of each in seconds."""
    signer = Signer(job.port, job.who.id, job.who.key)
    key = Ed25519PrivateKey.from_private_bytes(job.who.key)
    connection = http.client.HTTPConnection("127.0.0.1", job.port, timeout=120)
    body = b"" if job.body is None else json.dumps(job.body).encode()
    taken = []
    _start.wait()
    end = time.perf_counter() + job.seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        connection.request(job.method, job.path, body or None, headers(signer, key, job.method, job.path, body))
        given = connection.getresponse()
        content = given.read()
        taken.append(time.perf_counter() - started)
        if given.status not in (200, 201):
            raise SystemExit(f"{job.method} {job.path}: {given.status} {content[:200]!r}")
        time.sleep(job.pause_s)
    return taken


def latency(parts: Sequence[list[float]], seconds: float) -> Latency:
    """The figures of some clients together."""
    taken = [each * 1000 for part in parts for each in part]
    cuts = statistics.quantiles(taken, n=100) if len(taken) > 1 else taken * 99
    return Latency(len(taken) / seconds, cuts[49], cuts[98])


class Served:
    """A vault that a process of its own serves."""

    def __init__(self, directory: Path, filled: Filled, identities: Sequence[Identity]) -> None:
        self.filled, self.identities = filled, identities
        command = [sys.executable, "-m", "vault", "serve", "--dir", str(directory)]
        started = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None  # noqa: S101  # stdout is a pipe
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        self.start_ms = (time.perf_counter() - started) * 1000

    def memory_mb(self) -> float:
        """Resident memory, from Linux's /proc."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024

    def together(self, clients: int, load: Load) -> Latency:
        """Clients that send as fast as they can; all as the machine, or each as an agent."""
        whos = [self.filled.machine] * clients if load.by_machine else self.identities[:clients]
        return latency(_at_once([Job(self.port, who, *load[:3], load.seconds, 0.0) for who in whos]), load.seconds)

    def beside(self, load: Load) -> Latency:
        """What a machine sees that reads a value now and then, beside 8 clients with a load."""
        jobs = [Job(self.port, self.filled.machine, "GET", READ, None, load.seconds, PACED_S)]
        if load.method:
            jobs += [Job(self.port, each, *load[:3], load.seconds, 0.0) for each in self.identities[:8]]
        return latency(_at_once(jobs)[:1], load.seconds)

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait()


def _at_once(jobs: Sequence[Job]) -> list[list[float]]:
    context = multiprocessing.get_context("fork")
    with context.Pool(len(jobs), _share, (context.Barrier(len(jobs)),)) as pool:
        return pool.map(run, jobs, chunksize=1)


def more_agents(directory: Path, count: int) -> list[Identity]:
    """Agents with every scope, because each has a limit of requests a minute."""
    found = []
    with open_store(directory) as store, store.transaction() as db:
        for number in range(count):
            private = os.urandom(32)
            key = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
            db.execute(
                "INSERT INTO ai_agents SELECT ?, name, ?, scopes, restricted, approved_ms, enabled, created_ms"
                " FROM ai_agents WHERE id = 'all'",
                (f"load{number}", key),
            )
            found.append(Identity(f"load{number}", private))
    return found


# ---- everything ------------------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """What was measured at one size."""

    secrets: int
    costs: dict[str, Cost]
    opening_ms: float
    start_ms: float
    memory_mb: float
    memory_after_mb: float
    together: dict[str, dict[int, Latency]]
    beside: dict[str, Latency]
    database_mb: float
    deletion: Deletion


def measure(place: Path, secrets: int, seconds: float) -> Size:
    """Fill a vault and measure it."""
    directory = place / str(secrets)
    with open_store(directory) as store:
        filled = fill(store, sizes_of(secrets), wall_clock())
    identities = more_agents(directory, max(CLIENTS))
    database_mb = (directory / "vault.db").stat().st_size / 2**20
    served = Served(directory, filled, identities)
    memory_mb = served.memory_mb()
    try:
        together = {
            name: {clients: served.together(clients, load._replace(seconds=seconds)) for clients in CLIENTS}
            for name, load in ALONE.items()
        }
        beside = {name: served.beside(load._replace(seconds=seconds)) for name, load in BESIDE.items()}
        memory_after_mb = served.memory_mb()
    finally:
        served.stop()
    found, opening_ms = costs(directory, filled)
    figures = (served.start_ms, memory_mb, memory_after_mb, together, beside, database_mb)
    return Size(secrets, found, opening_ms, *figures, deletion(directory, filled))


def section(sizes: Sequence[Size]) -> str:
    """The section of RESULTS.md."""
    return "\n\n".join([VAULT_TITLE.strip(), *_parts(sizes)]) + "\n"


def _parts(sizes: Sequence[Size]) -> Iterator[str]:
    yield (
        f"Written by `make bench-vault` on {time.strftime('%Y-%m-%d')}: {machine()}. Clients and server share the "
        "processors. Nearly everything is in one project."
    )
    head = ["", *(f"{size.secrets:,} secrets" for size in sizes)]
    rows = [sizes_of(size.secrets) for size in sizes]
    yield table(
        head,
        [
            ["machines", *(row.machines for row in rows)],
            ["audit entries", *(row.entries for row in rows)],
            ["rotation schedules", *(row.schedules for row in rows)],
            ["database, MB", *(size.database_mb for size in sizes)],
            ["opening it, CPU ms", *(size.opening_ms for size in sizes)],
            ["from starting the server to its URL, ms", *(size.start_ms for size in sizes)],
            ["memory of the server then, MB", *(size.memory_mb for size in sizes)],
            ["memory after all loads, MB", *(size.memory_after_mb for size in sizes)],
            ["deleting the project: the request, CPU ms", *(size.deletion.request_ms for size in sizes)],
            ["transactions of the job that deletes its rows", *(size.deletion.transactions for size in sizes)],
            ["their median, CPU ms", *(size.deletion.median_ms for size in sizes)],
            ["the longest of them, CPU ms", *(size.deletion.longest_ms for size in sizes)],
        ],
    )
    yield "Clients that send as fast as they can: requests a second of all together, and latency (median, p99) in ms."
    yield table(
        ["request", "clients", *head[1:]],
        [
            [what, clients, *(_shown(size.together[what][clients]) for size in sizes)]
            for what in sizes[0].together
            for clients in CLIENTS
        ],
    )
    yield f"A machine that reads a value every {PACED_S * 1000:.0f} ms, beside 8 clients: its median and p99 in ms."
    yield table(
        ["load", *head[1:]],
        [[name, *(_pair(size.beside[name]) for size in sizes)] for name in sizes[0].beside],
    )
    yield (
        "Processor time of one request in ms, without HTTP: usual requests, and all others that take more than twice "
        "as long in the largest vault as in the smallest:"
    )
    yield table(["request", *head[1:], "x"], [*_costs(sizes)])


def _shown(seen: Latency) -> str:
    return f"{seen.rate:,.0f}/s ({seen.p50:.1f}, {seen.p99:.1f})"


def _pair(seen: Latency) -> str:
    return f"{seen.p50:.1f}, {seen.p99:.1f}"


NAMED = (
    "POST /v1/ai/projects/{projectId}/secrets",
    "GET /v1/ai/projects/{projectId}/secrets/{secretId}",
    "POST /v1/ai/projects/{projectId}/secrets/{secretId}/update",
    "POST /v1/ai/projects/{projectId}/secrets/{secretId}/rotate",
    "GET /v1/secret/{secretId}",
    "GET /v1/ai/projects",
    "GET /v1/ai/machines/{machineId}",
    "GET /v1/ai/stats",
    "POST /v1/ai/audit/query",
)


def _costs(sizes: Sequence[Size]) -> Iterator[list[object]]:
    smallest, largest = sizes[0], sizes[-1]
    for name, cost in largest.costs.items():
        first = smallest.costs.get(name)
        if first is None:
            continue
        grows = cost.answer_bytes > 2 * first.answer_bytes
        ratio = cost.ms / first.ms
        if name in NAMED or (ratio > 2 and cost.ms - first.ms > 0.3):
            row: list[object] = [f"`{name}`" + (", a longer answer" if grows else "")]
            yield [*row, *(size.costs[name].ms if name in size.costs else "" for size in sizes), ratio]


def main() -> int:
    """Measure and write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secrets", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--print", action="store_true", help="do not write RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        sizes = [measure(Path(place), secrets, options.seconds) for secrets in options.secrets]
    found = section(sizes)
    if options.print:
        print(found)
    else:
        RESULTS.write_text(with_vault_section(RESULTS.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
