"""Alerts: the enabled audit actions, and the alerts that they raise."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault import audit
from vault.domains import alerts
from vault.router import OWNER

ALERTS = "/v1/ai/alerts"


def enable(agent: Agent, *actions: str) -> Any:
    return agent.post(ALERTS, {"enabledActions": list(actions)})


def expected_json(action: str, **changed: Any) -> dict[str, Any]:
    counts = {"enabledAt": START_MS, "raised": 0, "lastRaisedAt": None}
    return {"action": action, "severity": audit.ACTIONS[action], **counts, **changed}


def raised(vault: Vault) -> list[dict[str, Any]]:
    with vault.store.transaction() as db:
        return alerts.overview(db)


def test_no_action_alerts_by_default(vault: Vault, agent: Agent) -> None:
    agent.project()
    assert (agent.get(ALERTS), raised(vault)) == ([], [])


def test_every_audited_action_can_alert(agent: Agent) -> None:
    assert agent.get(ALERTS + "/actions") == sorted(audit.ACTIONS)
    everything = sorted(audit.ACTIONS)
    assert enable(agent, *everything) == {"enabledActions": everything}
    assert [row["action"] for row in agent.get(ALERTS)] == everything


def test_set_replaces_the_set_and_keeps_dates(agent: Agent, clock: FakeClock) -> None:
    enable(agent, "secret_delete", "project_delete", "secret_delete")
    assert agent.get(ALERTS) == [expected_json("project_delete"), expected_json("secret_delete")]
    clock.advance(10)
    assert enable(agent, "secret_delete", "auth_failure") == {"enabledActions": ["auth_failure", "secret_delete"]}
    assert agent.get(ALERTS) == [
        expected_json("auth_failure", enabledAt=START_MS + 10_000),
        expected_json("secret_delete"),
    ]


def test_an_empty_set_turns_every_alert_off(vault: Vault, agent: Agent) -> None:
    enable(agent, "project_create")
    assert enable(agent) == {"enabledActions": []}
    agent.project()
    assert (agent.get(ALERTS), raised(vault)) == ([], [])


def test_a_set_with_unknown_actions_changes_nothing(agent: Agent) -> None:
    for given in ["x", [1], ["nothing"], ["project_create", "nothing"], None]:
        enable(agent, "project_create")
        assert agent.send("POST", ALERTS, {"enabledActions": given}).status == 400, given
        assert agent.send("POST", ALERTS, {}).error == "enabledActions is required", given
        assert agent.get(ALERTS) == [expected_json("project_create")], given


def test_only_enabled_actions_raise_alerts(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    enable(agent, "project_create")
    clock.advance(10)
    first, second = agent.project("one"), agent.project("two")
    agent.post(f"/v1/ai/projects/{first}/update", {"name": "other"})
    assert agent.get(ALERTS) == [expected_json("project_create", raised=2, lastRaisedAt=START_MS + 10_000)]
    details = [f"project {second} created as two", f"project {first} created as one"]
    assert [(row["action"], row["detail"]) for row in raised(vault)] == [("project_create", text) for text in details]
    assert raised(vault)[0]["aiAgentId"] == agent.id


def test_a_refused_request_raises_only_the_alert_of_its_refusal(vault: Vault, agent: Agent) -> None:
    enable(agent, "project_delete", "auth_failure")
    project_id = agent.project()
    assert agent.send("POST", f"/v1/ai/projects/{project_id}/delete", {"confirmName": "no"}).status == 400
    assert vault.agent(("audit.read",)).send("GET", ALERTS).status == 403
    assert [row["action"] for row in raised(vault)] == ["auth_failure"]


def test_only_the_latest_alerts_are_kept(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_ALERTS", 3)
    enable(agent, "project_create")
    ids = [agent.project() for _ in range(5)]
    assert [row["detail"].split()[1] for row in raised(vault)] == [ids[4], ids[3], ids[2]]
    assert agent.get(ALERTS) == [expected_json("project_create", raised=5, lastRaisedAt=START_MS)]


def test_unimportant_alerts_displace_no_important_ones(
    vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_ALERTS", 3)
    enable(agent, "canary_triggered", "project_create", "project_delete")
    with vault.store.transaction() as db:
        audit.record(db, START_MS, OWNER, "canary_triggered", "a canary")
        audit.record(db, START_MS, OWNER, "project_delete", "a project")
        for number in range(5):
            audit.record(db, START_MS, OWNER, "project_create", f"project {number}")
        shown = [row["detail"] for row in alerts.overview(db, limit=2)]
    kept = ["project 4", "project 3", "project 2", "a project", "a canary"]
    assert [row["detail"] for row in raised(vault)] == kept
    assert shown == ["project 4", "project 3", "a project", "a canary"]


def test_alerts_of_earlier_versions_count(vault: Vault, agent: Agent) -> None:
    enable(agent, "project_create")
    for _ in range(2):
        agent.project()
    with vault.store.transaction() as db:
        db.execute("DELETE FROM alert_totals")
    assert agent.get(ALERTS) == [expected_json("project_create", raised=2, lastRaisedAt=START_MS)]
    agent.project()
    assert agent.get(ALERTS) == [expected_json("project_create", raised=3, lastRaisedAt=START_MS)]


def test_setting_alerts_is_audited(vault: Vault, agent: Agent) -> None:
    enable(agent, "project_delete", "auth_failure")
    enable(agent)
    details = [row["detail"] for row in vault.audited("alert_update")]
    assert details == ["alerts on: auth_failure project_delete", "alerts on: none"]


def test_a_restricted_agent_sees_only_the_names(vault: Vault, agent: Agent) -> None:
    restricted = vault.agent(projects=[agent.project()])
    assert restricted.send("GET", ALERTS).status == 403
    assert restricted.send("POST", ALERTS, {"enabledActions": []}).status == 403
    assert restricted.get(ALERTS + "/actions") == sorted(audit.ACTIONS)
