"""Rotation schedules: secrets whose value the vault generates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault

DYNAMIC = "/v1/ai/dynamic-secrets"


@pytest.fixture
def project_id(agent: Agent) -> str:
    return agent.project()


def schedule_body(project_id: str, **more: Any) -> dict[str, Any]:
    return {"projectId": project_id, "name": "db", "intervalSeconds": 300, **more}


def expected_json(secret_id: str, project_id: str, **changed: Any) -> dict[str, Any]:
    plain = {"secretId": secret_id, "projectId": project_id, "name": "db", "fieldNames": None, "intervalSeconds": 300}
    options = {"length": 32, "charset": "symbols", "fields": None, "enabled": True}
    times = {"nextRotationAt": START_MS + 300_000, "lastRotationAt": None}
    return {**plain, **options, **times, "version": 1, "createdAt": START_MS, "updatedAt": START_MS, **changed}


def test_the_first_value_of_a_managed_secret_is_generated(vault: Vault, agent: Agent, project_id: str) -> None:
    reply = agent.send("POST", DYNAMIC, schedule_body(project_id, length=10, charset="numbers", note="n"))
    secret_id = reply.json["secretId"]
    assert (reply.status, reply.json) == (201, {"secretId": secret_id, "name": "db", "version": 1})
    expected = expected_json(secret_id, project_id, length=10, charset="numbers")
    assert agent.get(DYNAMIC) == [expected]
    assert agent.get(f"{DYNAMIC}/{secret_id}") == expected
    value = vault.value(secret_id)
    assert (len(value), value.isdigit()) == (10, True)
    secret = agent.get(f"/v1/ai/projects/{project_id}/secrets/{secret_id}")
    assert (secret["type"], secret["note"]) == ("managed", "n")


def test_static_fields_stay_and_the_others_are_generated(vault: Vault, agent: Agent, project_id: str) -> None:
    body = schedule_body(
        project_id, fieldNames=["user", "pass"], staticFields={"user": "app"}, length=4, charset="numbers"
    )
    secret_id = agent.post(DYNAMIC, body)["secretId"]
    value = json.loads(vault.value(secret_id))
    assert (list(value), value["user"], len(value["pass"])) == (["user", "pass"], "app", 4)
    assert agent.get(f"{DYNAMIC}/{secret_id}")["fields"] == ["pass"]
    path = f"/v1/ai/projects/{project_id}/secrets/{secret_id}/rotate"
    agent.post(path, {})
    again = json.loads(vault.value(secret_id))
    assert (again["user"], len(again["pass"]), again["pass"].isdigit()) == ("app", 4, True)


def test_an_invalid_schedule_is_refused(agent: Agent, project_id: str) -> None:
    cases: list[dict[str, Any]] = [
        {"staticFields": {"user": "x"}},
        {"staticFields": {"user": 1}, "fieldNames": ["user", "pass"]},
        {"staticFields": {"other": "x"}, "fieldNames": ["user", "pass"]},
        {"staticFields": {"user": "x", "pass": "y"}, "fieldNames": ["user", "pass"]},
        {"staticFields": {"user": "x"}, "fieldNames": ["user", "pass"], "fields": ["user", "pass"]},
        {"fieldNames": ["user", "pass"], "fields": ["pass"]},
        {"fieldNames": ["user", "pass"], "fields": ["other"]},
        {"fields": ["pass"]},
        {"intervalSeconds": 299},
        {"intervalSeconds": 30 * 24 * 3600 + 1},
        {"length": 1025},
        {"existingSecretId": "sk_0123456789"},
        {"secretId": "sk_0123456789"},
    ]
    for more in cases:
        assert agent.send("POST", DYNAMIC, schedule_body(project_id, **more)).status == 400, more
        assert agent.get(f"/v1/ai/projects/{project_id}/secrets") == [], more


def test_a_new_secret_needs_project_and_name(agent: Agent, project_id: str) -> None:
    for missing in ("projectId", "name"):
        body = {key: value for key, value in schedule_body(project_id).items() if key != missing}
        expected = f"{missing} is required, unless secretId names a secret that exists"
        assert agent.send("POST", DYNAMIC, body).error == expected
    assert agent.send("POST", DYNAMIC, schedule_body("proj_doesnotexist")).status == 404


def test_an_existing_secret_keeps_its_value_until_the_first_rotation(
    vault: Vault, agent: Agent, project_id: str
) -> None:
    path = agent.secret(project_id, "mine")
    secret_id = path.rpartition("/")[2]
    body = {"secretId": secret_id, "intervalSeconds": 300, "note": "why"}
    assert agent.post(DYNAMIC, body) == {"secretId": secret_id, "name": "db", "version": 1}
    assert vault.value(secret_id) == "mine"
    assert agent.get(path)["note"] == "why"
    assert agent.send("POST", DYNAMIC, body).status == 409


def test_an_active_schedule_refuses_update_value(vault: Vault, agent: Agent, project_id: str) -> None:
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    path = f"/v1/ai/projects/{project_id}/secrets/{secret_id}/update"
    reply = agent.send("POST", path, {"value": "x"})
    expected = "the secret has an active rotation schedule: rotate it, or delete the schedule first"
    assert (reply.status, reply.error) == (409, expected)
    agent.post(f"{DYNAMIC}/{secret_id}/update", {"enabled": False})
    assert agent.post(path, {"value": "x"})["version"] == 2
    agent.post(f"{DYNAMIC}/{secret_id}/update", {"enabled": True})
    assert agent.send("POST", path, {"value": "y"}).status == 409
    agent.post(f"{DYNAMIC}/{secret_id}/delete")
    assert agent.post(path, {"value": "y"})["version"] == 3


def test_an_update_changes_only_the_given_keys(agent: Agent, project_id: str, clock: FakeClock) -> None:
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    path = f"{DYNAMIC}/{secret_id}"
    clock.advance(10)
    now_ms = START_MS + 10_000
    answer = agent.post(path + "/update", {"length": 12})
    assert answer == {"secretId": secret_id, "name": "db", "version": 1}
    assert agent.get(path) == expected_json(secret_id, project_id, length=12, updatedAt=now_ms)
    agent.post(path + "/update", {"intervalSeconds": 600, "charset": "uuid"})
    assert agent.get(path)["nextRotationAt"] == now_ms + 600_000
    agent.post(path + "/update", {"enabled": False})
    assert (agent.get(path)["enabled"], agent.get(path)["nextRotationAt"]) == (False, None)
    agent.post(path + "/update", {"enabled": True})
    assert agent.get(path)["nextRotationAt"] == now_ms + 600_000
    for body in ({}, {"fields": ["a"]}, {"intervalSeconds": 1}, {"enabled": 1}, {"name": "x"}):
        assert agent.send("POST", path + "/update", body).status == 400


def test_delete_removes_the_schedule_and_keeps_the_secret(vault: Vault, agent: Agent, project_id: str) -> None:
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    value = vault.value(secret_id)
    assert agent.post(f"{DYNAMIC}/{secret_id}/delete") == {"secretId": secret_id, "name": "db"}
    assert agent.get(DYNAMIC) == []
    assert agent.get(f"/v1/ai/projects/{project_id}/secrets/{secret_id}")["type"] == "secret"
    assert vault.value(secret_id) == value
    assert agent.send("GET", f"{DYNAMIC}/{secret_id}").error == "no such rotation schedule"


def test_the_schedule_of_a_deleted_secret_is_hidden(agent: Agent, project_id: str) -> None:
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    agent.post(f"/v1/ai/projects/{project_id}/secrets/{secret_id}/delete")
    assert agent.get(DYNAMIC) == []
    assert agent.send("POST", f"{DYNAMIC}/{secret_id}/update", {"enabled": False}).status == 404


def test_an_agent_lists_the_schedules_of_its_projects(vault: Vault, agent: Agent, project_id: str) -> None:
    agent.post(DYNAMIC, schedule_body(agent.project("other")))
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    assert [row["secretId"] for row in vault.agent(projects=[project_id]).get(DYNAMIC)] == [secret_id]


def test_schedules_are_audited(vault: Vault, agent: Agent, project_id: str) -> None:
    secret_id = agent.post(DYNAMIC, schedule_body(project_id))["secretId"]
    agent.post(f"{DYNAMIC}/{secret_id}/update", {"length": 5})
    agent.post(f"{DYNAMIC}/{secret_id}/delete")
    for action in ("create", "update", "delete"):
        assert [row["secret_id"] for row in vault.audited(f"dynamic_secret_{action}")] == [secret_id]
