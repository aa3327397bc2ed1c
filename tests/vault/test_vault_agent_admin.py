"""How agents manage other agents: every action and its effect, and none on the agent itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vault.support.served_vault import ALL, START_MS, Agent, FakeClock, Vault

AGENTS = "/v1/ai/ai-agents"
WHOAMI = "/v1/ai/whoami"


def listed(agent: Agent, **changed: Any) -> dict[str, Any]:
    plain = {"name": "AI agent", "state": "approved", "approved": True, "enabled": True}
    return {"id": agent.id, **plain, "createdAt": START_MS, "approvedAt": START_MS, **changed}


def ids(agent: Agent) -> set[str]:
    return {each["id"] for each in agent.get(AGENTS)}


def test_agents_are_listed_and_shown_with_their_scopes(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    clock.advance(1)
    pending = vault.pending(("audit.read",), [project_id])
    row = listed(pending, state="pending", approved=False, createdAt=START_MS + 1000, approvedAt=None)
    assert agent.get(AGENTS) == [listed(agent), row]
    shown = {**row, "scopes": ["audit.read"], "projectAllowlist": [project_id]}
    assert agent.get(f"{AGENTS}/{pending.id}") == shown
    assert agent.get(f"{AGENTS}/{agent.id}") == {**listed(agent), "scopes": list(ALL), "projectAllowlist": None}


def test_an_approved_agent_has_the_scopes_of_its_token(vault: Vault, agent: Agent) -> None:
    pending = vault.pending(("audit.read",))
    path = f"{AGENTS}/{pending.id}/approve"
    assert agent.post(path) == {"id": pending.id, "name": "AI agent", "state": "approved"}
    assert (pending.get(WHOAMI)["scopes"], pending.get("/v1/ai/activity")[0]["action"]) == (
        ["audit.read"],
        "ai_agent_approve",
    )
    again = agent.send("POST", path)
    assert (again.status, again.error) == (409, "the agent is not pending, it is approved")


def test_a_denied_agent_is_deleted(vault: Vault, agent: Agent) -> None:
    pending = vault.pending()
    assert agent.post(f"{AGENTS}/{pending.id}/deny") == {"id": pending.id, "name": "AI agent", "state": "denied"}
    assert (pending.send("GET", WHOAMI).status, ids(agent)) == (401, {agent.id})
    approved = vault.agent()
    assert agent.send("POST", f"{AGENTS}/{approved.id}/deny").status == 409
    assert approved.send("GET", WHOAMI).status == 200
    assert len(vault.audited("ai_agent_deny")) == 1


def test_a_disabled_agent_is_refused_until_it_is_enabled(vault: Vault, agent: Agent) -> None:
    other = vault.agent()
    off, on = ("disable", "disabled", 403), ("enable", "approved", 200)
    for tail, state, status in (off, off, on):
        assert agent.post(f"{AGENTS}/{other.id}/{tail}") == {"id": other.id, "name": "AI agent", "state": state}
        assert agent.get(f"{AGENTS}/{other.id}")["state"] == state
        assert other.send("GET", WHOAMI).status == status
    assert [len(vault.audited(f"ai_agent_{action}")) for action in ("disable", "enable")] == [1, 1]


def test_approving_a_disabled_agent_returns_disabled(vault: Vault, agent: Agent) -> None:
    pending = vault.pending()
    agent.post(f"{AGENTS}/{pending.id}/disable")
    assert agent.post(f"{AGENTS}/{pending.id}/approve")["state"] == "disabled"
    assert pending.send("GET", WHOAMI).error == "Agent is disabled"


def test_a_rename_leaves_a_history(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    path = f"{AGENTS}/{agent.id}"
    clock.advance(1)
    for name in ("Ops", "Ops"):
        assert agent.post(path + "/rename", {"name": name}) == {"id": agent.id, "name": name}
    assert agent.get(WHOAMI)["name"] == "Ops"
    assert agent.get(path + "/name-history") == [{"name": "AI agent", "newName": "Ops", "changedAt": START_MS + 1000}]
    assert agent.send("POST", path + "/rename", {"name": ""}).status == 400
    assert len(vault.audited("ai_agent_rename")) == 1


def test_a_revoked_agent_is_deleted_and_stays_in_the_audit_log(vault: Vault, agent: Agent) -> None:
    other = vault.agent()
    other.project("made by the other")
    assert agent.post(f"{AGENTS}/{other.id}/revoke") == {"id": other.id, "name": "AI agent", "state": "revoked"}
    assert (other.send("GET", WHOAMI).error, ids(agent)) == ("unknown identity", {agent.id})
    assert [row["agent_id"] for row in vault.audited("project_create")] == [other.id]
    assert [row["severity"] for row in vault.audited("ai_agent_revoke")] == ["high"]


@pytest.mark.parametrize("tail", ["deny", "disable", "revoke"])
def test_no_agent_denies_disables_or_revokes_itself(agent: Agent, tail: str) -> None:
    reply = agent.send("POST", f"{AGENTS}/{agent.id}/{tail}")
    assert (reply.status, reply.error) == (409, "an agent cannot do this to itself")
    assert agent.get(WHOAMI)["enabled"] is True


ACTIONS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "/name-history", None),
    ("POST", "/approve", None),
    ("POST", "/deny", None),
    ("POST", "/disable", None),
    ("POST", "/enable", None),
    ("POST", "/rename", {"name": "x"}),
    ("POST", "/revoke", None),
]


def test_an_unknown_agent_is_not_found(agent: Agent) -> None:
    for method, tail, body in ACTIONS:
        reply = agent.send(method, f"{AGENTS}/11111111-2222-3333-4444-555555555555{tail}", body)
        assert (reply.status, reply.error) == (404, "no such agent")


def test_a_restricted_agent_manages_only_agents_with_a_subset_of_its_projects(vault: Vault, agent: Agent) -> None:
    own, foreign = agent.project("own"), agent.project("foreign")
    narrow, peer = vault.agent(projects=[own]), vault.agent(projects=[own])
    wide = vault.agent(projects=[own, foreign])
    assert ids(narrow) == {narrow.id, peer.id}
    assert narrow.get(f"{AGENTS}/{peer.id}")["projectAllowlist"] == [own]
    for method, tail, body in ACTIONS:
        statuses = [
            narrow.send(method, f"{AGENTS}/{each}{tail}", body).status for each in (wide.id, agent.id, "unknown")
        ]
        assert statuses == [403, 403, 403], tail
    assert narrow.post(f"{AGENTS}/{peer.id}/revoke")["state"] == "revoked"


def test_no_body_changes_scopes_or_allowlists(vault: Vault, agent: Agent) -> None:
    other = vault.agent(("audit.read",))
    for tail in ("approve", "enable", "rename"):
        for extra in ({"scopes": ["aiagents.write"]}, {"projectAllowlist": None}):
            assert agent.send("POST", f"{AGENTS}/{other.id}/{tail}", {"name": "x", **extra}).status == 400
    assert agent.get(f"{AGENTS}/{other.id}")["scopes"] == ["audit.read"]
