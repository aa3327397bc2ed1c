"""Weaknesses that a security review found."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from tests.vault.support.machines import TOKENS, token_body
from tests.vault.support.served_vault import ALL, START_MS, Agent, FakeClock, Vault, exchange, run_job
from vault.domains.schedules import rotate_due
from vault.domains.temporary_secrets import MAX_MISSES

DYNAMIC, WHOAMI = "/v1/ai/dynamic-secrets", "/v1/ai/whoami"
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


def opened(vault: Vault, token: str, passphrase: str) -> int:
    """The status of one attempt to open a link."""
    body = urlencode({"passphrase": passphrase}).encode()
    return exchange(vault.port, "POST", f"/s/{token}", body, FORM).status


def structured(agent: Agent, project: str) -> str:
    """A secret with fifty fields, whose generated values can exceed the maximum size."""
    names = [f"f{number}" for number in range(50)]
    return agent.secret(project, json.dumps(dict.fromkeys(names, "x")), fieldNames=names)


def test_generator_options_whose_value_would_be_too_large_are_refused(agent: Agent) -> None:
    secret_id = structured(agent, agent.project()).rpartition("/")[2]
    body = {"secretId": secret_id, "intervalSeconds": 300}
    assert agent.send("POST", DYNAMIC, {**body, "length": 1024}).status == 400
    agent.post(DYNAMIC, {**body, "length": 8})
    assert agent.send("POST", f"{DYNAMIC}/{secret_id}/update", {"length": 1024}).status == 400


def test_a_secret_that_cannot_rotate_does_not_block_the_next(vault: Vault, agent: Agent) -> None:
    project = agent.project()
    stuck = structured(agent, project).rpartition("/")[2]
    agent.post(DYNAMIC, {"secretId": stuck, "intervalSeconds": 300, "length": 8})
    with vault.store.transaction() as db:
        db.execute("UPDATE rotation_schedules SET length = 1024, next_ms = next_ms - 1 WHERE secret_id = ?", (stuck,))
    other = agent.post(DYNAMIC, {"projectId": project, "name": "o", "intervalSeconds": 300})["secretId"]
    run_job(rotate_due, vault.store, START_MS + 300_000)
    assert agent.get(f"{DYNAMIC}/{other}")["version"] == 2
    assert agent.get(f"{DYNAMIC}/{stuck}")["nextRotationAt"] == START_MS + 600_000
    assert [entry["secret_id"] for entry in vault.audited("secret_rotate_denied")] == [stuck]


def test_an_agent_with_an_allowlist_cannot_freeze_other_projects(vault: Vault, agent: Agent) -> None:
    project = agent.project()
    restricted = vault.agent(ALL, [project])
    body = {"projectId": project, "name": "c"}
    refused = restricted.send("POST", "/v1/ai/canaries", {**body, "triggerFreezeRelatedProjects": True})
    canary = restricted.post("/v1/ai/canaries", body)["id"]
    again = restricted.send("POST", f"/v1/ai/canaries/{canary}/config", {"triggerFreezeRelatedProjects": True})
    assert (refused.status, again.status) == (403, 403)


def test_deleting_a_canary_requires_the_scope_that_disables_it(vault: Vault, agent: Agent) -> None:
    project = agent.project()
    canary = agent.post("/v1/ai/canaries", {"projectId": project, "name": "c"})["id"]
    path = f"/v1/ai/projects/{project}/secrets/{canary}/delete"
    refused = vault.agent(("projects.secrets.write",)).send("POST", path)
    assert (refused.status, refused.json["requiredScopes"]) == (403, ["projects.policies.write"])
    assert agent.send("POST", path).status == 200


def test_a_managed_value_cannot_be_rolled_back(agent: Agent) -> None:
    secret = agent.secret(agent.project(), "known")
    agent.post(DYNAMIC, {"secretId": secret.rpartition("/")[2], "intervalSeconds": 300})
    agent.post(secret + "/rotate")
    assert agent.send("POST", secret + "/rollback", {"version": 1}).status == 409


def test_wrong_links_do_not_lock_out_the_right_one(vault: Vault, agent: Agent) -> None:
    path = f"/v1/ai/projects/{agent.project()}/temporary-secrets"
    made = agent.post(path, {"name": "t", "value": "shown", "expiresInSeconds": 600})
    for number in range(MAX_MISSES + 1):
        assert opened(vault, f"wrong{number}", "x") in (404, 429)
    assert opened(vault, made["token"], made["passphrase"]) == 200


def test_a_token_without_projects_is_hidden_from_agents_with_an_allowlist(vault: Vault, agent: Agent) -> None:
    restricted = vault.agent(ALL, [agent.project()])
    token_id = agent.post(TOKENS, token_body())["id"]
    assert restricted.send("POST", f"{TOKENS}/{token_id}/revoke").status == 403


def test_registering_a_key_again_does_not_allow_replays(vault: Vault, clock: FakeClock) -> None:
    first = vault.agent()
    headers = first.headers("GET", WHOAMI)
    assert exchange(vault.port, "GET", WHOAMI, b"", headers).status == 200
    with vault.store.transaction() as db:
        db.execute("DELETE FROM ai_agents WHERE id = ?", (first.id,))
    again = vault.register(vault.token(), first.key).json["agentId"]
    with vault.store.transaction() as db:
        db.execute("UPDATE ai_agents SET approved_ms = ? WHERE id = ?", (clock(), again))
    renamed = [(name, again if name.endswith("-Id") else value) for name, value in headers]
    assert exchange(vault.port, "GET", WHOAMI, b"", renamed).status == 401
