"""Measures the throughput of the local vault: signed requests from several client processes over kept connections.

    .venv/bin/python bench/vault_load.py [--clients 8] [--requests 2000] [--dir DIR]

A separate process serves a new vault in a directory below DIR (by default the system's temporary directory, which
should be on a disk). Each client signs and sends one request at a time. A write creates a secret of 1,000 bytes, a read
returns the metadata of a secret, a read by a machine returns its value. Every request is one transaction on disk.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # after the path
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

from vault.domains import agents, machines  # noqa: E402
from vault.router import wall_clock  # noqa: E402
from vault.schema import open_store  # noqa: E402

VALUE = "v" * 1000


class Client(NamedTuple):
    """A registered identity, which is sent to a client process."""

    port: int
    identity: str
    private_key: bytes


class Load(NamedTuple):
    """The requests of one client."""

    kind: str
    path: str
    requests: int


def headers(client: Client, key: Ed25519PrivateKey, method: str, path: str, body: bytes) -> dict[str, str]:
    """The signed headers of the contract."""
    timestamp, nonce = str(int(time.time())), os.urandom(16).hex()
    text = f"{method}:{path}:{timestamp}:{nonce}:{hashlib.sha256(body).hexdigest()}"
    signature = base64.b64encode(key.sign(text.encode())).decode()
    proof = {"X-Timestamp": timestamp, "X-Nonce": nonce, "X-Signature": signature}
    return {"X-Machine-Id": client.identity, **proof, **({"Content-Type": "application/json"} if body else {})}


def run(client: Client, load: Load) -> list[float]:
    """Send the requests in order, and return the duration of each in seconds."""
    key = Ed25519PrivateKey.from_private_bytes(client.private_key)
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    method = "POST" if load.kind == "write" else "GET"
    body = json.dumps({"name": "load", "value": VALUE}).encode() if load.kind == "write" else b""
    taken = []
    for _ in range(load.requests):
        started = time.perf_counter()
        connection.request(method, load.path, body or None, headers(client, key, method, load.path, body))
        answer = connection.getresponse()
        content = answer.read()
        taken.append(time.perf_counter() - started)
        if answer.status not in (200, 201):
            raise SystemExit(f"{method} {load.path}: {answer.status} {content.decode()}")
    connection.close()
    return taken


def measure(clients: list[Client], load: Load) -> dict[str, float]:
    """Run all clients concurrently, and return the total rate and the latencies in ms."""
    with multiprocessing.get_context("spawn").Pool(len(clients)) as pool:
        pool.starmap(run, [(client, load._replace(requests=3)) for client in clients], chunksize=1)
        started = time.perf_counter()
        parts = pool.starmap(run, [(client, load) for client in clients], chunksize=1)
        elapsed = time.perf_counter() - started
    taken = sorted(itertools.chain.from_iterable(parts))
    cuts = statistics.quantiles(taken, n=100)
    return {"rate": len(taken) / elapsed, "p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "max": taken[-1] * 1000}


def identity() -> tuple[bytes, bytes]:
    """A private and a public key."""
    private = os.urandom(32)
    key = Ed25519PrivateKey.from_private_bytes(private)
    return private, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def create_identities(directory: Path, port: int, count: int) -> tuple[list[Client], list[Client]]:
    """Create `count` approved agents and machines."""
    found: tuple[list[Client], list[Client]] = ([], [])
    with open_store(directory) as store, store.transaction() as db:
        for _ in range(count):
            private, public = identity()
            agent = (base64.b16encode(os.urandom(8)).decode(), "load", public, json.dumps(agents.SCOPES))
            db.execute(
                "INSERT INTO ai_agents (id, name, public_key, scopes, restricted, approved_ms, created_ms)"
                " VALUES (?, ?, ?, ?, 0, 0, 0)",
                agent,
            )
            found[0].append(Client(port, agent[0], private))
            private, public = identity()
            machine = machines.register(
                db, wall_clock(), "load", kind="standard", hostname="load", public_key=public, expires_ms=None
            )
            machines.approve_as_owner(db, wall_clock(), machine)
            found[1].append(Client(port, machine, private))
    return found


def prepare(directory: Path, owners: list[Client], readers: list[Client]) -> tuple[str, str]:
    """Create a project with a secret that every machine may read, and return their ids."""
    project_id = post(owners[0], "/v1/ai/projects", {"name": "load"})["id"]
    secret_id = post(owners[0], f"/v1/ai/projects/{project_id}/secrets", {"name": "load", "value": VALUE})["id"]
    with open_store(directory) as store, store.transaction() as db:
        for each in readers:
            db.execute("INSERT INTO project_machines VALUES (?, ?, 0)", (project_id, each.identity))
            db.execute("INSERT INTO grants VALUES (?, ?, 0)", (each.identity, secret_id))
    return project_id, secret_id


def post(client: Client, path: str, body: dict[str, str]) -> dict[str, Any]:
    """Send one POST request, and return the JSON of the answer."""
    connection, raw = http.client.HTTPConnection("127.0.0.1", client.port), json.dumps(body).encode()
    key = Ed25519PrivateKey.from_private_bytes(client.private_key)
    connection.request("POST", path, raw, headers(client, key, "POST", path, raw))
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def main() -> None:
    """Serve a vault, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2000, help="requests of each kind, for all clients together")
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        directory = Path(place) / "vault"
        command = [sys.executable, "-m", "vault", "serve", "--dir", str(directory)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as served:
            assert served.stdout is not None  # noqa: S101  # stdout is a pipe
            port = int(served.stdout.readline().rpartition(":")[2])
            owners, readers = create_identities(directory, port, options.clients)
            project_id, secret_id = prepare(directory, owners, readers)
            each = options.requests // options.clients
            base = f"/v1/ai/projects/{project_id}/secrets"
            machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
            print(f"{machine}, {options.clients} clients\n")
            print("| request | per second | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
            for title, clients, load in (
                ("write: a new secret", owners, Load("write", base, each)),
                ("read: the metadata of a secret", owners, Load("read", f"{base}/{secret_id}", each)),
                ("read by a machine: a value", readers, Load("read", f"/v1/secret/{secret_id}", each)),
            ):
                result = measure(clients, load)
                print("| {} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {max:.1f} |".format(title, **result), flush=True)
            served.terminate()


if __name__ == "__main__":
    main()
