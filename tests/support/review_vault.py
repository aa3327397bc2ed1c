"""A vault with content for reviews, and the calls of an agent to it. Rows are inserted directly, which is fast."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

import sikkerkey_mcp
from tests.vault.support.served_vault import Agent, Vault

DAY_MS = 86_400_000


class Clock:
    """The time module as a reviewing server sees it: the time of the vault, and a monotonic clock that stands still."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.monotonic_s = 0.0

    def time(self) -> float:
        return self._vault.clock() / 1000

    def monotonic(self) -> float:
        return self.monotonic_s


class CountingApi(sikkerkey_mcp.Api):
    """The vault as `agent` sees it, over loopback. `paths` are the requests, `most` how many were under way at once."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(
            f"http://127.0.0.1:{agent.port}",
            lambda request: dict(agent.headers(request.method, request.path, request.body or b"")),
        )
        self.paths: list[str] = []
        self.most = self._running = 0
        self._lock = threading.Lock()

    def send(
        self, request: sikkerkey_mcp.Request, *, safe: bool, context: sikkerkey_mcp.Context
    ) -> sikkerkey_mcp.Answer:
        """Sends the request and counts it."""
        with self._lock:
            self.paths.append(request.path)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            return super().send(request, safe=safe, context=context)
        finally:
            with self._lock:
                self._running -= 1


class Reviewer(NamedTuple):
    """The tools of one agent."""

    api: CountingApi
    tools: sikkerkey_mcp.VaultTools

    def call(self, action: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call of `review`."""
        return self.tools.call("review", {"action": action, **arguments}, sikkerkey_mcp.Context())

    def ask(self, action: str, **arguments: Any) -> Any:
        """The answer of a call, which must succeed."""
        result = self.call(action, **arguments)
        assert "isError" not in result, result
        return result["structuredContent"]

    def refused(self, action: str, **arguments: Any) -> str:
        """The message of a call, which must fail."""
        result = self.call(action, **arguments)
        assert result.get("isError"), result
        return str(result["content"][0]["text"])


def reviewer(agent: Agent, clock: Clock, restrictions: Sequence[sikkerkey_mcp.Restriction] = ()) -> Reviewer:
    """The tools of `agent`, which show everything as the review answers it."""
    api = CountingApi(agent)
    exact = sikkerkey_mcp.Presentation(characters=None, exact=True)
    tools = sikkerkey_mcp.VaultTools(lambda: api, restrictions, presentation=exact, now_s=clock.time)
    return Reviewer(api, tools)


def use_clock(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Makes the server use the time of the vault."""
    clock = Clock(vault)
    monkeypatch.setattr(sikkerkey_mcp, "time", clock)
    return clock


def add_secret(
    db: sqlite3.Connection, project: str, names: tuple[str, str], stored_ms: Sequence[int], *, renamed_ms: int = 0
) -> None:
    """A secret (id and name) with a version for each of these times."""
    secret, name = names
    created_ms, updated_ms = stored_ms[0], renamed_ms or stored_ms[-1]
    db.execute(
        "INSERT INTO secrets (id, project_id, name, kind, note, version, created_ms, updated_ms)"
        " VALUES (?, ?, ?, 'secret', '', ?, ?, ?)",
        (secret, project, name, len(stored_ms), created_ms, updated_ms),
    )
    for version, at_ms in enumerate(stored_ms, start=1):
        db.execute(
            "INSERT INTO secret_versions (secret_id, version, origin, wrapped_key, ciphertext, created_ms)"
            " VALUES (?, ?, 'update', x'00', x'00', ?)",
            (secret, version, at_ms),
        )


def add_machine(
    db: sqlite3.Connection, machine: str, name: str, projects: Sequence[str], *, approved: bool = True
) -> None:
    """A machine in these projects."""
    db.execute(
        "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, created_ms)"
        " VALUES (?, ?, 'standard', 'vm', ?, ?, 1)",
        (machine, name, machine.encode(), 1 if approved else None),
    )
    for project in projects:
        db.execute(
            "INSERT INTO project_machines (project_id, machine_id, added_ms) VALUES (?, ?, 1)", (project, machine)
        )


def add_grants(db: sqlite3.Connection, machine: str, secrets: Sequence[str]) -> None:
    """Lets a machine read these secrets."""
    db.executemany(
        "INSERT INTO grants (machine_id, secret_id, granted_ms) VALUES (?, ?, 1)",
        [(machine, secret) for secret in secrets],
    )


def add_read(
    db: sqlite3.Connection, project: str, who: tuple[str, str], at_ms: int, *, action: str = "secret_read"
) -> None:
    """An audit entry of a read of a secret by a machine (their ids)."""
    secret, machine = who
    db.execute(
        "INSERT INTO audit (action, severity, actor_kind, machine_id, secret_id, project_id, source_ip, detail,"
        " created_ms) VALUES (?, 'info', 'machine', ?, ?, ?, '127.0.0.1', 'read', ?)",
        (action, machine, secret, project, at_ms),
    )
