"""Argon2 runs outside transactions, so it blocks nobody, and what changed meanwhile counts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Reply, Vault, exchange
from vault.crypto import Argon2Parameters
from vault.domains import temporary_secrets
from vault.errors import VaultError
from vault.schema import open_store

WORDS = "correct horse battery staple"
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


def meanwhile(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]) -> None:
    """Acts each time that a slow function is called."""
    slow = getattr(owner, name)

    @functools.wraps(slow)
    def acting(*arguments: Any) -> Any:
        act()
        return slow(*arguments)

    monkeypatch.setattr(owner, name, acting)


def links(agent: Agent) -> str:
    return f"/v1/ai/projects/{agent.project()}/temporary-secrets"


BODY = {"name": "db", "value": "v", "expiresInSeconds": 60}


def enter(vault: Vault, link: dict[str, str], passphrase: str | None = None) -> Reply:
    body = f"passphrase={passphrase or link['passphrase']}".encode()
    return exchange(vault.port, "POST", f"/s/{link['token']}", body, FORM)


def test_links_are_made_and_opened_without_blocking_others(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = links(agent), []

    def read() -> None:
        seen.append(vault.store._lock.locked() or agent.send("GET", "/v1/ai/projects").status)

    meanwhile(monkeypatch, temporary_secrets, "_derive_key", read)
    link = agent.post(path, BODY)
    assert enter(vault, link).status == 200
    assert seen == [200, 200]


def test_a_vault_is_unsealed_and_opened_without_blocking_others(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.store.rekey(START_MS, WORDS)
    vault.store.seal(START_MS)
    seen: list[int] = []

    def count_entries() -> None:
        assert not vault.store._lock.locked()
        with vault.store.transaction() as db:  # fails if another process has begun one
            seen.append(db.execute("SELECT COUNT(*) FROM vault").fetchone()[0])

    meanwhile(monkeypatch, Argon2Parameters, "derive_key", count_entries)
    vault.store.unseal(START_MS, WORDS)
    with open_store(vault.directory, WORDS) as other:
        assert not other.sealed
    with pytest.raises(VaultError, match="the passphrase is wrong"):
        vault.store.unseal(START_MS, WORDS + "x")
    vault.store.rekey(START_MS, WORDS)
    assert seen == [1] * 4


def test_a_link_in_a_project_that_is_deleted_meanwhile_is_not_made(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = links(agent)
    delete = functools.partial(agent.post, path.replace("temporary-secrets", "delete"), {"confirmName": "Demo"})
    meanwhile(monkeypatch, temporary_secrets, "_derive_key", delete)
    reply = agent.send("POST", path, BODY)
    assert (reply.status, reply.error) == (404, "no such project")
    assert vault.audited("temporary_secret_create") == []


def test_a_link_that_ends_meanwhile_shows_nothing(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = agent.post(links(agent), BODY)
    with monkeypatch.context() as patched:
        meanwhile(patched, temporary_secrets, "_derive_key", lambda: clock.advance(60))
        reply = enter(vault, link)
    assert (reply.status, b"expired" in reply.raw or b"in time" in reply.raw) == (410, True)
    assert vault.audited("temporary_secret_view") == []


def test_a_vault_that_is_sealed_meanwhile_shows_nothing(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = agent.post(links(agent), BODY)
    with monkeypatch.context() as patched:
        meanwhile(patched, temporary_secrets, "_derive_key", lambda: vault.store.seal(START_MS))
        assert enter(vault, link).status == 503
    vault.store.unseal(START_MS, None)
    assert enter(vault, link).status == 200
