"""The owner has the last word: what the owner disables stays disabled, and what an agent made can be ended with it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import Agent, Vault, encoded, exchange, public_bytes
from vault.router import wall_clock

AGENTS = "/v1/ai/ai-agents"
WHOAMI = "/v1/ai/whoami"
KINDS = ["grant", "invitation", "link", "machine", "token", "webhook"]


def owner(vault: Vault, command: str, *arguments: str) -> tuple[int, str, str]:
    return run_command(vault.directory, command, *arguments)


def enroll(vault: Vault, token: str) -> int:
    """Register a machine with an enrollment token, and return the status."""
    body = {"token": token, "publicKey": public_bytes(Ed25519PrivateKey.generate()), "hostname": "runner"}
    path = f"/v1/{vault.store.vault_id}/enroll/register"
    return exchange(vault.port, "POST", path, encoded(body), [("Content-Type", "application/json")]).status


def one_of_each(vault: Vault, agent: Agent, machine_id: str) -> str:
    """Make one thing of each kind as an agent, and return the enrollment token."""
    project_id = agent.project()
    secret_id = agent.secret(project_id, "x").rpartition("/")[2]
    base = f"/v1/ai/projects/{project_id}"
    agent.post(base + "/machines", {"machineId": machine_id})
    agent.post(f"{base}/machines/{machine_id}/grants", {"secretIds": [secret_id]})
    agent.post(base + "/temporary-secrets", {"name": "link", "value": "v", "expiresInSeconds": 3600})
    agent.post("/v1/ai/webhooks", {"url": "https://example.com/hook", "actions": ["secret_read"]})
    agent.post("/v1/ai/team/invites", {"email": f"{agent.id}@example.com"})
    limits = {"tokenLifetimeSeconds": 3600, "machineLifetimeSeconds": 3600, "maxUses": 5}
    created = agent.post(
        "/v1/ai/enrollment-tokens", {"name": "ci", "projectIds": [project_id], "secretIds": [secret_id], **limits}
    )
    assert enroll(vault, created["token"]) == 200
    return str(created["token"])


@pytest.fixture
def machine_id(vault: Vault, tmp_path: Any) -> str:
    vault.clock.now_ms = wall_clock()  # as the owner's commands have it
    line = ["--name", "app", "--home", str(tmp_path / "home"), "--url", "http://localhost:8300", "--json"]
    made = str(json.loads(owner(vault, "machine-bootstrap", *line)[1])["machineId"])
    owner(vault, "approve", made)
    return made


def test_no_agent_enables_what_the_owner_disabled(vault: Vault, agent: Agent) -> None:
    other = vault.agent()
    agent.post(f"{AGENTS}/{other.id}/disable")  # disabled by an agent first: the owner's word still counts
    owner(vault, "disable", other.id)
    reply = agent.send("POST", f"{AGENTS}/{other.id}/enable")
    assert (reply.status, reply.error) == (
        409,
        "the owner of the vault disabled this agent: only the owner can enable it",
    )
    assert other.send("GET", WHOAMI).error == "Agent is disabled"
    owner(vault, "enable", other.id)
    assert other.get(WHOAMI)["enabled"] is True
    agent.post(f"{AGENTS}/{other.id}/disable")
    assert agent.post(f"{AGENTS}/{other.id}/enable")["state"] == "approved"


def test_one_command_disables_every_agent(vault: Vault, agent: Agent) -> None:
    pending, already = vault.pending(), vault.agent()
    agent.post(f"{AGENTS}/{already.id}/disable")
    status, out, err = owner(vault, "agents", "--disable-all", "--json")
    assert (status, {row["state"] for row in json.loads(out)}) == (0, {"disabled"})
    assert err.startswith("hint: disabled 2 agents\n")
    owner(vault, "approve", pending.id)
    owner(vault, "enable", agent.id)
    for each in (pending, already):
        assert each.send("GET", WHOAMI).status == 403
        assert agent.send("POST", f"{AGENTS}/{each.id}/enable").status == 409
    assert {row["user_id"] for row in vault.audited("ai_agent_disable")} == {"owner", None}


def test_the_owner_revokes_an_agent(vault: Vault, agent: Agent) -> None:
    agent.project()
    assert owner(vault, "revoke", agent.id) == (0, f"revoked AI agent ({agent.id})\n", "")
    assert agent.send("GET", WHOAMI).error == "unknown identity"
    assert [row["user_id"] for row in vault.audited("ai_agent_revoke")] == ["owner"]
    assert owner(vault, "revoke", agent.id)[0] == 1


def test_what_agents_made_is_listed_with_its_maker(vault: Vault, agent: Agent, machine_id: str) -> None:
    other = vault.agent()
    assert owner(vault, "made")[2] == "hint: agents made nothing that still works\n"
    for each in (agent, other):
        one_of_each(vault, each, machine_id)
    for each in (agent, other):
        found = json.loads(owner(vault, "made", "--agent", each.id, "--json")[1])
        assert sorted(thing["kind"] for thing in found) == KINDS
        assert {thing["agentId"] for thing in found} == {each.id}
    text = owner(vault, "made")[1]
    assert len(text.splitlines()) == 1 + 2 * len(KINDS)
    assert "db for app" in text


def test_all_that_an_agent_made_ends_with_it_and_nothing_else(vault: Vault, agent: Agent, machine_id: str) -> None:
    other = vault.agent()
    tokens = [one_of_each(vault, each, machine_id) for each in (agent, other)]
    status, out, err = owner(vault, "revoke", agent.id, "--all-it-made", "--json")
    assert (status, sorted(thing["kind"] for thing in json.loads(out)["ended"])) == (0, KINDS)
    assert err.endswith(f"({agent.id}) and ended 6 things that it made\n")
    assert agent.send("GET", WHOAMI).status == 401
    assert [enroll(vault, token) for token in tokens] == [401, 200]
    left = json.loads(owner(vault, "made", "--json")[1])
    assert {thing["agentId"] for thing in left} == {other.id}
    assert sorted(thing["kind"] for thing in left) == sorted([*KINDS, "machine"])
    ends = ("enroll_token_revoke", "machine_revoke", "webhook_delete", "temporary_secret_destroy")
    for action in (*ends, "permission_revoke", "team_invite_cancel", "ai_agent_revoke"):
        assert [row["user_id"] for row in vault.audited(action)] == ["owner"], action


def test_what_a_revoked_agent_made_can_still_be_ended(vault: Vault, agent: Agent, machine_id: str) -> None:
    token = one_of_each(vault, agent, machine_id)
    other = vault.agent()
    other.post(f"{AGENTS}/{agent.id}/revoke")
    assert len(json.loads(owner(vault, "made", "--agent", agent.id, "--json")[1])) == len(KINDS)
    assert owner(vault, "revoke", agent.id, "--all-it-made")[0] == 0
    assert enroll(vault, token) == 401
    assert owner(vault, "made")[1] == ""


def test_revoking_an_agent_says_what_it_leaves(vault: Vault, agent: Agent, machine_id: str) -> None:
    one_of_each(vault, agent, machine_id)
    ending = f"python -m vault revoke {agent.id} --all-it-made --dir {vault.directory}"
    assert owner(vault, "revoke", agent.id)[2] == f"hint: 6 things that it made still work; end them: {ending}\n"


def test_what_agents_made_before_makers_were_stored_is_found_in_the_audit_log(
    vault: Vault, agent: Agent, machine_id: str
) -> None:
    one_of_each(vault, agent, machine_id)
    made = json.loads(owner(vault, "made", "--json")[1])
    assert len(made) == len(KINDS)
    vault.close()
    with closing(sqlite3.connect(vault.directory / "vault.db", isolation_level=None)) as db:
        db.executescript("DROP TABLE made; PRAGMA user_version = 3;")
    vault.open()
    assert json.loads(owner(vault, "made", "--json")[1]) == made
