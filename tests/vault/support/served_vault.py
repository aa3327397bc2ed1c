"""A vault on a free port of this process, and a client that implements the contract without the vault's code."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.types import ASGIApp, Receive, Scope, Send

from vault.app import create_app
from vault.dashboard.sessions import Sessions
from vault.domains import agents, secrets
from vault.schema import open_store
from vault.server import uvicorn_config
from vault.store import Store

START_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC
ALL = agents.SCOPES
ROOT = Path(__file__).parents[3]


class FakeClock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: int) -> None:
        self.now_ms += seconds * 1000


@dataclass(frozen=True)
class Reply:
    """A response of the vault."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Nonces:
    """Distinct nonces without randomness, shared by all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def next(self) -> str:
        with self._lock:
            self._count += 1
            return f"nonce-{self._count:020d}"


NONCES = Nonces()


def public_bytes(key: Ed25519PrivateKey) -> str:
    """The raw public key in base64."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def signature(key: Ed25519PrivateKey, *parts: str, body: bytes) -> str:
    """The signature of the contract over method, path, timestamp, nonce and body, in base64."""
    text = ":".join([*parts, hashlib.sha256(body).hexdigest()])
    return base64.b64encode(key.sign(text.encode())).decode()


def exchange(port: int, method: str, path: str, body: bytes, headers: list[tuple[str, str]]) -> Reply:
    """One request, with the path and the headers exactly as given. A Host header is added if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        has_host = any(name == "Host" for name, _ in headers)
        connection.putrequest(method, path, skip_host=has_host, skip_accept_encoding=True)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def encoded(body: Any) -> bytes:
    """A body as the client sends it. Bytes are unchanged."""
    if body is None or isinstance(body, bytes):
        return body or b""
    return json.dumps(body, ensure_ascii=False).encode()


@dataclass
class Agent:
    """A registered agent, which signs and sends requests."""

    port: int
    clock: Any
    id: str
    key: Ed25519PrivateKey = field(repr=False)

    def headers(self, method: str, path: str, body: bytes = b"", **changed: str) -> list[tuple[str, str]]:
        """The signed headers. `timestamp`, `nonce` and `signature` can be overridden."""
        timestamp = changed.get("timestamp", str(self.clock() // 1000))
        nonce = changed.get("nonce", NONCES.next())
        signed = changed.get("signature", signature(self.key, method, path, timestamp, nonce, body=body))
        names = [("X-Agent-Id", self.id), ("X-Machine-Id", self.id)]
        proof = [("X-Timestamp", timestamp), ("X-Nonce", nonce), ("X-Signature", signed)]
        return names + proof + ([("Content-Type", "application/json")] if body else [])

    def send(self, method: str, path: str, body: Any = None, **changed: str) -> Reply:
        raw = encoded(body)
        return exchange(self.port, method, path, raw, self.headers(method, path, raw, **changed))

    def get(self, path: str) -> Any:
        reply = self.send("GET", path)
        assert reply.status == 200, reply
        return reply.json

    def post(self, path: str, body: Any = None) -> Any:
        reply = self.send("POST", path, body)
        assert reply.status in (200, 201), reply
        return reply.json

    def project(self, name: str = "Demo") -> str:
        return str(self.post("/v1/ai/projects", {"name": name})["id"])

    def secret(self, project_id: str, value: str, **more: Any) -> str:
        """The path of a new secret."""
        base = f"/v1/ai/projects/{project_id}/secrets"
        created = self.post(base, {"name": "db", "value": value, **more})
        return f"{base}/{created['id']}"


class SharedServer:
    """One uvicorn server for all tests, because each takes 0.2 s to stop. It serves the vault of the current test."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        # As the vault's own: asyncio sends at once, instead of 40 ms later, only if the protocol is named.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self._server = uvicorn.Server(uvicorn_config(self))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class Vault:
    """A served vault. Tests can inspect and change its store, its clock and its directory."""

    def __init__(self, directory: Path, clock: FakeClock, shared_server: SharedServer) -> None:
        self.directory = directory
        self.clock = clock
        self.port = shared_server.port
        self._shared_server = shared_server
        self.sessions = Sessions(clock)
        self.open()

    def open(self) -> None:
        """Open or reopen the directory."""
        self.store = open_store(self.directory)
        self._shared_server.app = create_app(
            self.store, clock=self.clock, webhooks_to_loopback=True, sessions=self.sessions
        )

    def close(self) -> None:
        self._shared_server.app = None
        self.store.close()

    def token(self, scopes: tuple[str, ...] = ALL, projects: list[str] | None = None, name: str | None = None) -> str:
        with self.store.transaction() as db:
            return agents.issue_token(db, self.clock(), scopes, projects, name)

    def register(self, token: str, key: Ed25519PrivateKey, **more: Any) -> Reply:
        body = encoded({"token": token, "publicKey": public_bytes(key), **more})
        return exchange(self.port, "POST", "/v1/ai-bootstrap/register", body, [("Content-Type", "application/json")])

    def pending(self, scopes: tuple[str, ...] = ALL, projects: list[str] | None = None) -> Agent:
        key = Ed25519PrivateKey.generate()
        reply = self.register(self.token(scopes, projects), key)
        assert reply.status == 201, reply
        return Agent(self.port, self.clock, reply.json["agentId"], key)

    def agent(self, scopes: tuple[str, ...] = ALL, projects: list[str] | None = None) -> Agent:
        agent = self.pending(scopes, projects)
        with self.store.transaction() as db:
            agents.approve_as_owner(db, self.clock(), agent.id)
        return agent

    def audited(self, action: str) -> list[dict[str, Any]]:
        with self.store.transaction() as db:
            return [dict(row) for row in db.execute("SELECT * FROM audit WHERE action = ? ORDER BY id", (action,))]

    def value(self, secret_id: str, version: int | None = None) -> str:
        """The plaintext, which no route for agents returns."""
        with self.store.transaction() as db:
            secret = secrets.find(db, secret_id)
            return secrets.plaintext(db, self.store.keys, secret, version or secret["version"])


def run_job(job: Callable[..., None], store: Store, now_ms: int, *more: Any) -> None:
    """Run a background job once, as the server does."""
    job(store.transaction, lambda: store.keys, now_ms, *more)


def disk(directory: Path) -> bytes:
    """All bytes in the vault's directory."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


class Spawned:
    """`python -m vault serve` as a separate process. The first line that it prints is its URL."""

    def __init__(self, directory: Path, *options: str) -> None:
        command = [sys.executable, "-m", "vault", "serve", "--dir", str(directory), *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2] or 0)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal, and return exit status, remaining standard output and standard error."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err
