"""The scopes that an owner should withhold: an agent reads no value, but a machine that it creates can.

The first test is the promise, the second its limit, the third the remedy that `vault/enrollment.py` describes.
"""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.machines import TOKENS, Machine, enroll, pending_machine, token_body
from tests.vault.support.served_vault import ALL, Agent, Vault
from tests.vault.test_vault_plaintext import RecordingAgent
from vault.schema import ROUTES

MARK = "MARKED-value-51fe"


def by_token(vault: Vault, agent: RecordingAgent, secret: str) -> Machine:
    """Create a token, and enroll a machine whose key the agent has."""
    reach = {"projectIds": [secret.split("/")[4]], "secretIds": [secret.rpartition("/")[2]]}
    made = agent.send("POST", TOKENS, token_body(**reach))
    key = Ed25519PrivateKey.generate()
    reply = enroll(vault, made.json["token"], key)
    agent.answers += reply.raw
    return Machine(vault.port, vault.clock, reply.json["machineId"], key)


def by_approval(vault: Vault, agent: RecordingAgent, secret: str) -> Machine:
    """Approve, attach and grant a pending machine whose key the agent has."""
    machine, base = pending_machine(vault), secret.rpartition("/secrets/")[0] + "/machines"
    for path, body in (
        (f"/v1/ai/machines/{machine.id}/approve", None),
        (base, {"machineId": machine.id}),
        (f"{base}/{machine.id}/grants", {"secretIds": [secret.rpartition("/")[2]]}),
    ):
        assert agent.send("POST", path, body).status == 200
    return machine


def by_ally(vault: Vault, agent: RecordingAgent, secret: str) -> Machine:
    """Approve an agent whose token has more scopes."""
    ally = vault.pending()
    assert agent.send("POST", f"/v1/ai/ai-agents/{ally.id}/approve").status == 200
    allied = RecordingAgent(ally)
    machine = by_token(vault, allied, secret)
    agent.answers += allied.answers
    return machine


WAYS = {
    by_token: ("enrollment.write",),
    by_approval: ("machines.write", "projects.machines.write"),
    by_ally: ("aiagents.write",),
}


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda hole: ids.get(hole[1], "x0123456789"), path)


def test_no_answer_to_an_agent_with_every_scope_contains_a_value(vault: Vault, agent: Agent) -> None:
    secret = agent.secret(agent.project(), MARK)
    recording = RecordingAgent(vault.agent(ALL))
    for way in WAYS:
        assert way(vault, recording, secret).read(secret).json == {"value": MARK}
    ids = {
        "projectId": secret.split("/")[4],
        "secretId": secret.rpartition("/")[2],
        "machineId": agent.get("/v1/ai/machines")[0]["id"],
        "tokenId": agent.get(TOKENS)[0]["id"],
        "agentId": agent.id,
    }
    answered = 0
    for route in sorted(ROUTES, key=lambda each: each.method):
        if route.caller == "agent":
            answered += recording.send(route.method, filled(route.path, ids)).status == 200
    assert answered > 20
    assert MARK.encode() not in recording.answers


@pytest.mark.parametrize("way", WAYS)
def test_the_scopes_named_are_enough_for_a_machine_that_reads(vault: Vault, agent: Agent, way: object) -> None:
    secret = agent.secret(agent.project(), MARK)
    for known, scopes in WAYS.items():
        if known is way:
            machine = known(vault, RecordingAgent(vault.agent(scopes)), secret)
            assert machine.read(secret).json == {"value": MARK}


WITHHELD = ("enrollment.write", "machines.write", "projects.machines.write", "aiagents.write", "team.write")


def test_without_them_no_step_of_any_way_is_open(vault: Vault, agent: Agent) -> None:
    secret = agent.secret(agent.project(), MARK)
    harmless = vault.agent(tuple(scope for scope in ALL if scope not in WITHHELD))
    refused = [route for route in ROUTES if route.scope in WITHHELD]
    assert {route.scope for route in refused} == set(WITHHELD)
    ids = {"projectId": secret.split("/")[4]}
    for route in refused:
        reply = harmless.send(route.method, filled(route.path, ids))
        assert (reply.status, reply.json["requiredScopes"]) == (403, [route.scope]), route.path
    assert (agent.get("/v1/ai/machines"), agent.get(TOKENS)) == ([], [])


def test_a_project_allowlist_bounds_what_such_a_machine_reads(vault: Vault, agent: Agent) -> None:
    inside, outside = agent.secret(agent.project("inside"), "v"), agent.secret(agent.project("outside"), MARK)
    narrow = vault.agent(ALL, [inside.split("/")[4]])
    for project_id, status in ((inside.split("/")[4], 400), (outside.split("/")[4], 403)):
        body = token_body(projectIds=[project_id], secretIds=[outside.rpartition("/")[2]])
        assert narrow.send("POST", TOKENS, body).status == status
    machine = by_token(vault, RecordingAgent(narrow), inside)
    assert [machine.read(each).status for each in (inside, outside)] == [200, 403]
