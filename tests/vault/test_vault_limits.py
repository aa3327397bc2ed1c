"""Limits for each agent: requests a minute, bytes a day, and the versions that a secret keeps."""

from __future__ import annotations

import pytest

from tests.vault.support.served_vault import Agent, FakeClock, Vault, exchange
from vault import gate, limits
from vault.domains import secrets

WHOAMI = "/v1/ai/whoami"
DAY_S = 24 * 3600


def test_requests_a_minute_are_limited_for_each_agent(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 3)
    other = vault.agent()
    clock.advance(15)
    assert [agent.send("GET", WHOAMI).status for _ in range(5)] == [200] * 3 + [429] * 2
    reply = agent.send("GET", WHOAMI)
    error = "the agent has reached its limit of 3 requests a minute: nothing was changed"
    assert (reply.error, reply.headers["retry-after"]) == (error, "46")
    assert other.send("GET", WHOAMI).status == 200
    assert [row["agent_id"] for row in vault.audited("auth_failure")] == [agent.id]
    clock.advance(45)
    assert agent.send("GET", WHOAMI).status == 200


def test_refused_requests_count_too(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 2)
    pending = vault.pending()
    assert [pending.send("GET", WHOAMI).status for _ in range(4)] == [403, 403, 429, 429]
    assert len(vault.audited("auth_failure")) == 2  # the others are counted


def test_a_request_beyond_the_limit_cannot_be_sent_again(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 0)
    headers = agent.headers("GET", WHOAMI, timestamp=str(clock() // 1000 + gate.WINDOW_S))
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).status == 429
    monkeypatch.setattr(limits, "MAX_REQUESTS", 9)
    clock.advance(2 * gate.WINDOW_S)
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).error == "the nonce was used before"
    clock.advance(2)
    agent.get(WHOAMI)
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM nonces").fetchone()[0] == 1


def test_bytes_written_a_day_are_limited(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id = agent.project()
    body = {"name": "x", "value": "v" * 2_000}
    path = f"/v1/ai/projects/{project_id}/secrets"
    with vault.store.transaction() as db:
        used = db.execute("SELECT written_bytes FROM agent_usage WHERE agent_id = ?", (agent.id,)).fetchone()[0]
    assert used == limits.MIN_WRITE_BYTES
    monkeypatch.setattr(limits, "MAX_WRITTEN_BYTES", used + 5_000)
    assert [agent.send("POST", path, body).status for _ in range(3)] == [201, 201, 429]
    assert len(agent.get(path)) == 2  # reads go on
    assert int(agent.send("POST", path, body).headers["retry-after"]) == DAY_S + 1
    clock.advance(DAY_S)
    assert agent.send("POST", path, body).status == 201


def test_old_versions_beyond_the_limit_are_deleted(
    vault: Vault, agent: Agent, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "MAX_VERSIONS", 2)
    path = agent.secret(agent.project(), "first")
    clock.advance(300 * DAY_S)

    def kept() -> list[int]:
        return [each["version"] for each in agent.get(path + "/versions")]

    for _ in range(3):
        agent.post(path + "/rotate")
    assert kept() == [4, 3, 2, 1]  # the first was current until now, so a loop of rotations cannot destroy it
    clock.advance(31 * DAY_S)
    agent.post(path + "/rotate")
    assert kept() == [5, 4]
    assert agent.send("POST", path + "/rollback", {"version": 1}).error == "no such version"
    assert agent.post(path + "/rollback", {"version": 4})["version"] == 6
    assert kept() == [6, 5, 4]  # the fourth was replaced just now
