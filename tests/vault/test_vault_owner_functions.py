"""What only the owner can do: see a value, set an agent's scopes, and read what a policy means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import ROOT, START_MS, Agent, FakeClock, Vault
from vault import env_import
from vault.desk import Desk
from vault.domains import agents, axes, policies, secrets
from vault.dotenv import parse
from vault.errors import Refusal, VaultError
from vault.schema import open_store


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(open_store(tmp_path / "vault"), FakeClock(), source_ip="127.0.0.1")


def reveal(desk: Desk, secret_id: str, version: int | None = None) -> str:
    with desk.transaction() as db:
        return secrets.reveal_as_owner(db, desk.store.keys, desk.clock(), secret_id, version, actor=desk.actor)


def test_a_value_is_revealed_and_audited(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    path = f"/v1/ai/projects/{project}/secrets"
    secret = desk.call("POST", path, {"name": "API_KEY", "value": "first-hunter2"})["id"]
    desk.call("POST", f"{path}/{secret}/update", {"value": "second-hunter2"})
    assert (reveal(desk, secret), reveal(desk, secret, 1)) == ("second-hunter2", "first-hunter2")
    with desk.transaction() as db:
        entries = db.execute("SELECT * FROM audit WHERE action = 'secret_reveal' ORDER BY id").fetchall()
    details = [f"API_KEY shown to the owner, version {version}" for version in (2, 1)]
    assert [entry["detail"] for entry in entries] == details
    entry = entries[0]
    known = ("high", "owner", secret, project, "127.0.0.1")
    assert (entry["severity"], entry["user_id"], entry["secret_id"], entry["project_id"], entry["source_ip"]) == known
    for wrong, version in ((secret, 3), ("sk_unknown", None)):
        with pytest.raises(Refusal):
            reveal(desk, wrong, version)


def test_revealing_a_canary_freezes_nothing(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    canary = desk.call("POST", "/v1/ai/canaries", {"projectId": project, "name": "ROOT_PASSWORD"})["id"]
    assert len(reveal(desk, canary)) == 64
    found = desk.call("GET", f"/v1/ai/canaries/{canary}")
    assert (found["triggerCount"], found["projectFrozenAt"]) == (0, None)


def test_a_vault_that_reveals_nothing(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    secret = desk.call("POST", f"/v1/ai/projects/{project}/secrets", {"name": "API_KEY", "value": "hunter2"})["id"]
    with desk.transaction() as db:
        secrets.forbid_reveal(db, START_MS)
    with pytest.raises(Refusal, match="never reveals values") as refused:
        reveal(desk, secret)
    assert refused.value.status == 403


def test_scopes_and_projects_are_set_and_audited(vault: Vault, agent: Agent) -> None:
    project, other = agent.project("Webshop"), agent.project("Other")
    with vault.store.transaction() as db:
        agents.set_scopes(db, START_MS, agent.id, ["projects.read", "audit.read", "projects.read"], [project])
    known = agent.get("/v1/ai/whoami")
    assert (known["scopes"], known["projectAllowlist"]) == (["projects.read", "audit.read"], [project])
    assert agent.send("GET", f"/v1/ai/projects/{other}/secrets").status == 403
    with vault.store.transaction() as db:
        agents.set_scopes(db, START_MS, agent.id, ["projects.read", "team.write"], None)
    assert {each["name"] for each in agent.get("/v1/ai/projects")} == {"Other", "Webshop"}
    first, second = vault.audited("ai_agent_scopes")
    assert (first["severity"], first["user_id"]) == ("high", "owner")
    assert first["detail"].startswith(f"agent {agent.id}: scopes removed: ai")
    assert first["detail"].endswith(f"projects: {project}")
    assert second["detail"] == (
        f"agent {agent.id}: scopes added: team.write; scopes removed: audit.read; projects: all"
    )
    assert run_command(vault.directory, "verify")[0] == 0


def test_wrong_scopes_and_projects_change_nothing(vault: Vault, agent: Agent) -> None:
    before = agent.get("/v1/ai/whoami")["scopes"]
    for scopes, projects in ((["magic"], None), ([], None), (["audit.read"], ["proj_x"]), (["audit.read"], [])):
        with pytest.raises(VaultError), vault.store.transaction() as db:
            agents.set_scopes(db, START_MS, agent.id, scopes, projects)
    with pytest.raises(VaultError, match="no agent"), vault.store.transaction() as db:
        agents.set_scopes(db, START_MS, "unknown", ["audit.read"], None)
    assert agent.get("/v1/ai/whoami")["scopes"] == before
    assert vault.audited("ai_agent_scopes") == []


def test_the_scopes_that_lead_to_plaintext_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.split("| scopes | enough to |")[1].split("\n\n")[0]
    assert set(agents.LEADS_TO_PLAINTEXT) <= set(agents.SCOPES)
    assert {scope for scope in agents.SCOPES if f"`{scope}`" in table} == set(agents.LEADS_TO_PLAINTEXT)


WINDOW = {
    "timeWindowEnabled": True,
    "timeWindowStart": "09:00",
    "timeWindowEnd": "17:00",
    "timeWindowTimezone": "Europe/Copenhagen",
    "timeWindowDays": ["mon", "tue", "wed", "thu", "fri"],
}


def test_every_axis_has_words() -> None:
    for rules, words in (
        ({}, "Machines may read without conditions."),
        (WINDOW, "Machines may read Mon to Fri from 09:00 to 17:00 (Europe/Copenhagen)."),
        (
            {**WINDOW, "timeWindowEnd": "06:00", "timeWindowDays": ["sun", "mon", "wed"]},
            "Machines may read on Mon, Wed and Sun from 09:00 to 06:00 on the next day (Europe/Copenhagen).",
        ),
        ({**WINDOW, "timeWindowEnabled": False}, "Machines may read without conditions."),
        (
            {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["10.0.0.0/8", "::1"]},
            "Machines may read from 10.0.0.0/8 and ::1.",
        ),
        (
            {"rateCapEnabled": True, "maxReadsPerDay": 1000, "maxReadsPerMinute": 1},
            "Machines may read at most 1 time a minute and 1,000 times a day.",
        ),
        (
            {"ttlMaxReads": 5, "ttlExpiresAt": START_MS, "rotateAfterReads": 2},
            "Machines may read at most 5 times in total, until 2026-01-01 00:00 UTC. The value changes after 2 reads.",
        ),
        (
            {"coSignEnabled": True, "coSignMachineId": "m1", "coSignWindowSeconds": 60},
            "Machines may read only if deployer and another machine ask for the same secret"
            " within 60 seconds of each other.",
        ),
    ):
        assert axes.describe(rules, {"m1": "deployer"}) == words, rules


def test_a_policy_is_described_as_the_api_answers_it(agent: Agent) -> None:
    project = agent.project()
    policy = agent.post(f"/v1/ai/projects/{project}/policies", {"name": "Office", **WINDOW})["id"]

    def found() -> Any:
        return agent.get(f"/v1/ai/projects/{project}/policies/{policy}")

    assert policies.describe(found()).endswith("(Europe/Copenhagen). Bound to no secret yet.")
    secret = agent.secret(project, "x")
    agent.post(f"/v1/ai/secrets/{secret.rpartition('/')[2]}/binding", {"policyId": policy})
    assert policies.describe(found()).endswith("Bound to one secret."), json.dumps(found())


def test_unused_tokens_are_listed_and_cancelled(vault: Vault, agent: Agent) -> None:
    project = agent.project()
    with vault.store.transaction() as db:
        agents.issue_token(db, START_MS - 1, ["audit.read"], [project], "laptop")
        token = agents.issue_token(db, START_MS, ["audit.read"], None, None)
        agents.issue_token(db, START_MS - agents.TOKEN_LIFE_MS, ["audit.read"], None, "expired")
        first, second = agents.waiting_tokens(db, START_MS)
    assert (first["name"], first["scopes"], first["projectAllowlist"]) == ("laptop", ["audit.read"], [project])
    assert (second["name"], second["expiresAt"]) == (None, START_MS + agents.TOKEN_LIFE_MS)
    assert token not in str(second)
    with vault.store.transaction() as db:
        agents.cancel_token(db, START_MS, str(second["id"]))
        assert agents.waiting_tokens(db, START_MS) == [first]
    assert vault.register(token, Ed25519PrivateKey.generate()).status == 401
    assert [row["user_id"] for row in vault.audited("bootstrap_token_cancel")] == ["owner"]
    with pytest.raises(VaultError, match="no unused token"), vault.store.transaction() as db:
        agents.cancel_token(db, START_MS, str(second["id"]))


def test_an_import_says_what_it_would_do_and_does_that(desk: Desk) -> None:
    project = desk.call("POST", "/v1/ai/projects", {"name": "Webshop"})["id"]
    path = f"/v1/ai/projects/{project}/secrets"
    for name, value in (("KEPT", "same-hunter2"), ("CHANGED", "old-hunter2"), ("TWICE", "x"), ("TWICE", "y")):
        desk.call("POST", path, {"name": name, "value": value})
    desk.call("POST", path, {"name": "FIELDS", "value": '{"a": "x"}', "fieldNames": ["a"]})
    desk.call("POST", "/v1/ai/canaries", {"projectId": project, "name": "CANARY"})
    schedule = {"projectId": project, "name": "MANAGED", "intervalSeconds": 86_400}
    managed = desk.call("POST", "/v1/ai/dynamic-secrets", schedule)
    lines = ["KEPT", "CHANGED", "NEW", "TWICE", "FIELDS", "CANARY", "MANAGED", "HUGE"]
    values = {"KEPT": "same-hunter2", "CHANGED": "new-hunter2", "HUGE": "x" * 12_289}
    entries = parse("\n".join(f"{name}={values.get(name, 'hunter2')}" for name in lines))
    steps = env_import.plan(desk, project, entries)
    outcomes = ["unchanged", "replaced", "new", *["refused"] * 5]
    assert [step.outcome for step in steps] == outcomes
    assert [step.reason for step in steps if step.outcome == "refused"] == [
        "2 secrets of the project have this name",
        "it is a structured secret",
        "it is a canary: the vault controls its value",
        "it has an active rotation schedule",
        "value must be a string of at most 12288 bytes in UTF-8",
    ]
    assert "hunter2" not in str([step.as_json() for step in steps])
    env_import.apply(desk, project, steps)
    after = env_import.plan(desk, project, entries)
    assert [step.outcome for step in after] == ["unchanged", "unchanged", "unchanged", *["refused"] * 5]
    found = {secret["name"]: secret for secret in desk.call("GET", path)}
    assert (found["KEPT"]["version"], found["CHANGED"]["version"], found["NEW"]["version"]) == (1, 2, 1)
    desk.call("POST", f"/v1/ai/dynamic-secrets/{managed['secretId']}/update", {"enabled": False})
    assert env_import.plan(desk, project, entries)[6].outcome == "replaced"
