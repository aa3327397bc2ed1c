"""Projects: every action and its effect."""

from __future__ import annotations

from typing import Any

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault.domains import projects

PROJECTS = "/v1/ai/projects"


def expected_json(project_id: str, **changed: Any) -> dict[str, Any]:
    plain = {"name": "Demo", "description": "", "secretCount": 0, "createdAt": START_MS, "updatedAt": START_MS}
    return {"id": project_id, **plain, **changed}


def test_a_created_project_is_listed(vault: Vault, agent: Agent) -> None:
    reply = agent.send("POST", PROJECTS, {"name": "Demo", "description": "søger <nøgle>"})
    assert (reply.status, reply.json) == (201, {"id": reply.json["id"], "name": "Demo"})
    assert reply.json["id"].startswith("proj_")
    assert agent.get(PROJECTS) == [expected_json(reply.json["id"], description="søger <nøgle>")]
    assert [row["agent_id"] for row in vault.audited("project_create")] == [agent.id]


def test_an_update_changes_only_the_given_keys_and_can_clear(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.post(PROJECTS, {"name": "Demo", "description": "old"})["id"]
    clock.advance(5)
    path = f"{PROJECTS}/{project_id}/update"
    assert agent.post(path, {"name": "New"}) == {"id": project_id, "name": "New"}
    assert agent.post(path, {"description": ""}) == {"id": project_id, "name": "New"}
    assert agent.get(PROJECTS) == [expected_json(project_id, name="New", updatedAt=START_MS + 5000)]
    assert agent.send("POST", path, {}).error == "nothing to change: give at least one of description, name"
    assert len(vault.audited("project_update")) == 2


def filled(vault: Vault, agent: Agent) -> str:
    """A project with a secret with two versions, one in the trash, one on a schedule, and a restricted agent."""
    project_id = agent.project()
    agent.post(agent.secret(project_id, "a") + "/update", {"value": "b"})
    agent.post(agent.secret(project_id, "c") + "/delete")
    agent.post("/v1/ai/dynamic-secrets", {"projectId": project_id, "name": "d", "intervalSeconds": 300})
    vault.agent(projects=[project_id])
    return project_id


CASCADE = {
    **dict.fromkeys(projects.CASCADE, 0),
    "secrets": 2,
    "secretsInTrash": 1,
    "secretVersions": 4,
    "rotationSchedules": 1,
    "agentAllowlistEntries": 1,
}


def test_a_preview_counts_and_deletes_nothing(vault: Vault, agent: Agent) -> None:
    project_id = filled(vault, agent)
    reply = agent.post(f"{PROJECTS}/{project_id}/delete", {"preview": True})
    assert reply == {"id": project_id, "name": "Demo", "preview": True, "cascade": CASCADE}
    assert agent.get(PROJECTS) == [expected_json(project_id, secretCount=2)]
    assert vault.audited("project_delete") == []


def test_a_confirmed_delete_removes_everything(vault: Vault, agent: Agent) -> None:
    project_id, other = filled(vault, agent), agent.project("other")
    kept = agent.secret(other, "kept")
    reply = agent.post(f"{PROJECTS}/{project_id}/delete", {"confirmName": "Demo"})
    assert reply == {"id": project_id, "name": "Demo", "deleted": True, "cascade": CASCADE}
    assert [project["id"] for project in agent.get(PROJECTS)] == [other]
    with vault.store.transaction() as db:
        left = {table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}  # noqa: S608
    assert left == {"secrets": 1, "secret_versions": 1, "rotation_schedules": 0, "agent_projects": 0}
    assert vault.value(kept.rpartition("/")[2]) == "kept"
    assert [row["severity"] for row in vault.audited("project_delete")] == ["high"]


TABLES = ("secrets", "secret_versions", "rotation_schedules", "agent_projects")


def test_a_delete_needs_the_exact_name(agent: Agent) -> None:
    project_id = agent.project()
    for body in (None, {}, {"confirmName": "demo"}, {"confirmName": ""}, {"preview": False}):
        reply = agent.send("POST", f"{PROJECTS}/{project_id}/delete", body)
        assert (reply.status, reply.error) == (400, "confirmName must be the name of the project")
    assert agent.send("POST", f"{PROJECTS}/{project_id}/delete", {"preview": "true"}).status == 400
    assert len(agent.get(PROJECTS)) == 1


def test_permissions_name_the_owner(agent: Agent) -> None:
    rights = ["machines.view", "machines.add", "machines.remove", "machines.configure"]
    owner = {"memberId": "owner", "email": None, "role": "owner", "permissions": rights}
    assert agent.get(f"{PROJECTS}/{agent.project()}/permissions") == [owner]


def test_an_unknown_project_is_not_found(agent: Agent) -> None:
    for method, tail, body in (
        ("POST", "update", {"name": "x"}),
        ("POST", "delete", {"preview": True}),
        ("GET", "permissions", None),
        ("GET", "secrets", None),
    ):
        reply = agent.send(method, f"{PROJECTS}/proj_doesnotexist/{tail}", body)
        assert (reply.status, reply.error) == (404, "no such project")
