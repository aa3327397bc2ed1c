"""Canaries: every action and its effect, and what a read by a machine triggers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault

CANARIES = "/v1/ai/canaries"
FROZEN = "the project is frozen: a canary was read"


def expected_json(canary_id: str, project_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "id": canary_id,
        "projectId": project_id,
        "name": "bait",
        "enabled": True,
        "triggerFreezeProject": True,
        "triggerFreezeRelatedProjects": False,
        "triggerCount": 0,
        "lastTriggeredAt": None,
        "projectFrozenAt": None,
        "createdAt": START_MS,
        "updatedAt": START_MS,
        **changed,
    }


def bait(agent: Agent, project_id: str, **more: Any) -> str:
    return str(agent.post(CANARIES, {"projectId": project_id, "name": "bait", **more})["id"])


def details(vault: Vault, action: str) -> list[tuple[str, str]]:
    return [(row["project_id"], row["detail"]) for row in vault.audited(action)]


@pytest.fixture
def project_id(agent: Agent) -> str:
    return agent.project()


# ---- the actions -----------------------------------------------------------------------------------------------------


def test_a_created_canary_is_listed_and_has_64_characters(vault: Vault, agent: Agent, project_id: str) -> None:
    reply = agent.send("POST", CANARIES, {"projectId": project_id, "name": "bait"})
    canary_id = reply.json["id"]
    assert (reply.status, reply.json) == (201, {"id": canary_id, "name": "bait", "enabled": True})
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(canary_id, project_id)
    assert agent.get(f"/v1/ai/projects/{project_id}/canaries") == [expected_json(canary_id, project_id)]
    assert agent.get(f"/v1/ai/projects/{project_id}/secrets/{canary_id}")["type"] == "canary"
    assert re.fullmatch(r"[A-Za-z0-9]{64}", vault.value(canary_id))
    assert [row["secret_id"] for row in vault.audited("canary_create")] == [canary_id]


def test_settings_given_at_creation_are_stored(agent: Agent, project_id: str) -> None:
    switches = {"enabled": False, "triggerFreezeProject": False, "triggerFreezeRelatedProjects": True}
    canary_id = bait(agent, project_id, **switches)
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(canary_id, project_id, **switches)


def test_a_configuration_changes_only_the_given_keys(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    canary_id = bait(agent, project_id)
    clock.advance(5)
    reply = agent.post(f"{CANARIES}/{canary_id}/config", {"triggerFreezeRelatedProjects": True})
    switches = {"triggerFreezeProject": True, "triggerFreezeRelatedProjects": True}
    assert reply == {"id": canary_id, "name": "bait", **switches}
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(
        canary_id, project_id, **switches, updatedAt=START_MS + 5000
    )
    assert agent.send("POST", f"{CANARIES}/{canary_id}/config").status == 400
    assert details(vault, "canary_config") == [(project_id, "canary settings: triggerFreezeRelatedProjects on")]


def test_enabling_and_disabling_is_idempotent(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id = bait(agent, project_id)
    for tail, enabled in (("enable", True), ("disable", False), ("disable", False), ("enable", True)):
        expected = {"id": canary_id, "name": "bait", "enabled": enabled}
        assert agent.post(f"{CANARIES}/{canary_id}/{tail}") == expected
        assert agent.get(f"{CANARIES}/{canary_id}")["enabled"] is enabled
    assert (len(vault.audited("canary_enable")), len(vault.audited("canary_disable"))) == (1, 1)


def test_other_secrets_and_unknown_ids_are_not_canaries(agent: Agent, project_id: str) -> None:
    secret_id = agent.secret(project_id, "v").rpartition("/")[2]
    for canary_id in (secret_id, "sk_nowhere"):
        for method, tail, body in (
            ("GET", "", None),
            ("POST", "/config", {"triggerFreezeProject": True}),
            ("POST", "/enable", None),
            ("POST", "/disable", None),
        ):
            reply = agent.send(method, f"{CANARIES}/{canary_id}{tail}", body)
            assert (reply.status, reply.error) == (404, "no such canary")
    assert agent.send("POST", CANARIES, {"projectId": "proj_nowhere", "name": "x"}).status == 404
    assert agent.send("POST", "/v1/ai/projects/proj_nowhere/unfreeze").status == 404


def test_a_restricted_agent_reaches_only_its_projects(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, outsider = bait(agent, project_id), vault.agent(projects=[agent.project("other")])
    for method, where, body in (
        ("GET", f"/v1/ai/projects/{project_id}/canaries", None),
        ("POST", CANARIES, {"projectId": project_id, "name": "x"}),
        ("GET", f"{CANARIES}/{canary_id}", None),
        ("POST", f"{CANARIES}/{canary_id}/config", {"triggerFreezeProject": False}),
        ("POST", f"{CANARIES}/{canary_id}/enable", None),
        ("POST", f"{CANARIES}/{canary_id}/disable", None),
        ("POST", f"/v1/ai/projects/{project_id}/unfreeze", None),
    ):
        assert outsider.send(method, where, body).status == 403, where
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(canary_id, project_id)


def test_only_the_vault_sets_the_value(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id = bait(agent, project_id)
    path, before = f"/v1/ai/projects/{project_id}/secrets/{canary_id}", vault.value(canary_id)
    for tail, body in (("update", {"value": "x"}), ("rotate", {"length": 5})):
        reply = agent.send("POST", f"{path}/{tail}", body)
        assert (reply.status, reply.error) == (409, "the secret is a canary: the vault controls its value")
    assert agent.send("POST", "/v1/ai/dynamic-secrets", {"secretId": canary_id, "intervalSeconds": 300}).status == 409
    assert vault.value(canary_id) == before
    agent.post(f"{path}/rotate")
    assert re.fullmatch(r"[A-Za-z0-9]{64}", vault.value(canary_id))
    assert vault.value(canary_id) != before


def test_a_canary_is_deleted_and_restored_with_its_secret(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id = bait(agent, project_id, triggerFreezeRelatedProjects=True)
    before = agent.get(f"{CANARIES}/{canary_id}")
    agent.post(f"/v1/ai/projects/{project_id}/secrets/{canary_id}/delete")
    assert agent.send("GET", f"{CANARIES}/{canary_id}").status == 404
    assert agent.get(f"/v1/ai/projects/{project_id}/canaries") == []
    agent.post(f"/v1/ai/trash/{canary_id}/restore")
    assert agent.get(f"{CANARIES}/{canary_id}") == before
    agent.post(f"/v1/ai/projects/{project_id}/secrets/{canary_id}/delete")
    agent.post(f"/v1/ai/trash/{canary_id}/purge")
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM canaries").fetchone()[0] == 0
    # A canary in the trash is as useless as a disabled one, so the log is as loud.
    assert (len(vault.audited("canary_disable")), len(vault.audited("canary_enable"))) == (2, 1)


# ---- reads -----------------------------------------------------------------------------------------------------------


def test_a_read_freezes_the_project_then_answers(vault: Vault, agent: Agent, project_id: str, clock: FakeClock) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine, other = granted_machine(vault, secret, canary_id), granted_machine(vault, secret)
    assert machine.value(secret) == "v"
    clock.advance(5)
    assert machine.value(canary_id) == vault.value(canary_id)
    for who, what in ((machine, secret), (machine, canary_id), (other, secret)):
        reply = who.read(what)
        assert (reply.status, reply.json) == (423, {"error": FROZEN})
    triggered = {"triggerCount": 1, "lastTriggeredAt": START_MS + 5000, "projectFrozenAt": START_MS + 5000}
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(canary_id, project_id, **triggered)
    [row] = vault.audited("canary_triggered")
    found = (row["severity"], row["machine_id"], row["secret_id"], row["project_id"])
    assert found == ("critical", machine.id, canary_id, project_id)
    assert details(vault, "project_freeze") == [(project_id, f"project {project_id} frozen by a canary of the project")]
    assert details(vault, "secret_read_denied") == [(project_id, FROZEN)] * 3


def test_an_unfreeze_allows_reads_and_leaves_the_canary_enabled(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine = granted_machine(vault, secret, canary_id)
    for _ in range(2):
        machine.value(canary_id)
        assert machine.read(secret).status == 423
        thawed = {"id": project_id, "name": "Demo", "frozen": False}
        assert [agent.post(f"/v1/ai/projects/{project_id}/unfreeze") for _ in range(2)] == [thawed] * 2
        assert machine.value(secret) == "v"
    found = agent.get(f"{CANARIES}/{canary_id}")
    assert (found["enabled"], found["triggerCount"], found["projectFrozenAt"]) == (True, 2, None)
    assert details(vault, "project_unfreeze") == [(project_id, f"project {project_id} unfrozen")] * 2


def test_a_disabled_canary_is_an_ordinary_secret(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, secret = bait(agent, project_id, enabled=False), agent.secret(project_id, "v")
    machine = granted_machine(vault, secret, canary_id)
    assert machine.value(canary_id) == vault.value(canary_id)
    assert machine.value(secret) == "v"
    assert agent.get(f"{CANARIES}/{canary_id}") == expected_json(canary_id, project_id, enabled=False)
    assert vault.audited("canary_triggered") == []


def test_related_projects_freeze_if_configured(vault: Vault, agent: Agent, project_id: str) -> None:
    related, foreign = agent.project("related"), agent.project("foreign")
    canary_id = bait(agent, project_id, triggerFreezeRelatedProjects=True)
    here, there, away = (agent.secret(each, "v") for each in (project_id, related, foreign))
    shared, thief, outsider = (
        granted_machine(vault, here, there),
        granted_machine(vault, canary_id),
        granted_machine(vault, away),
    )
    thief.value(canary_id)
    assert [machine.read(secret).status for machine, secret in ((shared, here), (shared, there))] == [423, 423]
    assert outsider.value(away) == "v"
    words = f"project {related} frozen by a canary of a project that shares a machine with it"
    assert details(vault, "project_freeze")[1:] == [(related, words)]
    agent.post(f"/v1/ai/projects/{project_id}/unfreeze")
    assert (shared.value(here), shared.read(there).status) == ("v", 423)
    agent.post(f"/v1/ai/projects/{related}/unfreeze")
    assert shared.value(there) == "v"


@pytest.mark.parametrize(("own", "related"), [(False, False), (False, True)])
def test_a_canary_freezes_only_the_configured_projects(
    vault: Vault, agent: Agent, project_id: str, own: bool, related: bool
) -> None:
    canary_id = bait(agent, project_id, triggerFreezeProject=own, triggerFreezeRelatedProjects=related)
    here, there = agent.secret(project_id, "v"), agent.secret(agent.project("related"), "v")
    machine = granted_machine(vault, canary_id, here, there)
    machine.value(canary_id)
    assert [machine.read(secret).status for secret in (here, there)] == [423 if own else 200, 423 if related else 200]
    assert len(vault.audited("canary_triggered")) == 1


def test_a_second_canary_does_not_change_a_freeze(
    vault: Vault, agent: Agent, project_id: str, clock: FakeClock
) -> None:
    there = agent.project("related")
    first, second = bait(agent, there), bait(agent, project_id, triggerFreezeRelatedProjects=True)
    machine = granted_machine(vault, first, second)
    machine.value(first)
    clock.advance(5)
    machine.value(second)
    assert [row["project_id"] for row in vault.audited("project_freeze")] == [there, project_id]
    assert agent.get(f"{CANARIES}/{first}")["projectFrozenAt"] == START_MS
    assert agent.get(f"{CANARIES}/{second}")["projectFrozenAt"] == START_MS + 5000


def test_a_freeze_remains_after_its_canary_is_deleted(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine = granted_machine(vault, canary_id, secret)
    machine.value(canary_id)
    agent.post(f"/v1/ai/projects/{project_id}/secrets/{canary_id}/delete")
    agent.post(f"/v1/ai/trash/{canary_id}/purge")
    assert machine.read(secret).status == 423
    agent.post(f"/v1/ai/projects/{project_id}/unfreeze")
    assert machine.value(secret) == "v"


def test_a_frozen_vault_stays_frozen_after_a_restart(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine = granted_machine(vault, canary_id, secret)
    machine.value(canary_id)
    vault.close()
    vault.open()
    assert machine.read(secret).status == 423


def test_a_policy_is_checked_before_the_canary(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id = bait(agent, project_id)
    machine = granted_machine(vault, canary_id)
    rules = {"name": "p", "ipAllowlistEnabled": True, "ipAllowlistCidrs": ["192.0.2.1"]}
    policy = agent.post(f"/v1/ai/projects/{project_id}/policies", rules)
    agent.post(f"/v1/ai/secrets/{canary_id}/binding", {"policyId": policy["id"]})
    assert machine.read(canary_id).status == 403
    assert vault.audited("canary_triggered") == []


def test_a_machine_of_the_project_triggers_it_without_a_grant(vault: Vault, agent: Agent, project_id: str) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine = granted_machine(vault, secret)
    plain = agent.secret(project_id, "w").rpartition("/")[2]
    replies = [machine.read(each) for each in (plain, canary_id)]
    assert replies[0].json == replies[1].json == {"error": "the machine has no grant for the secret"}
    assert [machine.read(each).status for each in (secret, canary_id)] == [423, 403]
    assert agent.get(f"{CANARIES}/{canary_id}")["triggerCount"] == 1
    words = f"canary bait asked for without a grant by machine {machine.id}"
    assert details(vault, "canary_triggered") == [(project_id, words)]
    assert details(vault, "project_freeze") == [(project_id, f"project {project_id} frozen by a canary of the project")]
    assert [row["secret_id"] for row in vault.audited("secret_read_denied")][:2] == [plain, canary_id]


def test_only_an_enabled_canary_and_a_machine_of_its_project_trigger(
    vault: Vault, agent: Agent, project_id: str
) -> None:
    canary_id, secret = bait(agent, project_id), agent.secret(project_id, "v")
    machine, outsider = (
        granted_machine(vault, secret),
        granted_machine(vault, agent.secret(agent.project("other"), "v")),
    )
    assert outsider.read(canary_id).status == 403
    assert machine.poll(canary_id) == {canary_id: "access_denied"}
    agent.post(f"{CANARIES}/{canary_id}/disable")
    assert machine.read(canary_id).status == 403
    assert machine.value(secret) == "v"
    assert vault.audited("canary_triggered") == []


def test_lists_and_exports_do_not_show_which_secret_is_a_canary(vault: Vault, agent: Agent, project_id: str) -> None:
    """The names and ids stay in the order of creation, wherever the canary is, and all rows have the same keys."""
    ids = [agent.secret(project_id, "v", name="one").rpartition("/")[2]]
    ids.append(bait(agent, project_id, triggerFreezeProject=False))
    ids.append(agent.secret(project_id, "v", name="two").rpartition("/")[2])
    with vault.store.transaction() as db:
        for number, secret_id in enumerate(ids):  # the clock of the test stands still
            db.execute("UPDATE secrets SET created_ms = ? WHERE id = ?", (START_MS + number, secret_id))
    machine = granted_machine(vault, *ids)
    for listed in (
        machine.get("/v1/secrets"),
        machine.post("/v1/secrets/list", {"projectId": project_id}),
        machine.post("/v1/secrets/export"),
    ):
        assert [row["id"] for row in listed["secrets"]] == ids
        assert len({(*row, row["fieldNames"]) for row in listed["secrets"]}) == 1
    assert len(vault.audited("canary_triggered")) == 1


def test_an_export_contains_only_the_canary_of_the_project(vault: Vault, agent: Agent, project_id: str) -> None:
    secret = agent.secret(project_id, "v")
    machine: Machine = granted_machine(vault, secret, bait(agent, project_id))
    rows = machine.post("/v1/secrets/export")["secrets"]
    assert [row["name"] for row in rows] == ["bait"]
    assert details(vault, "secret_read_denied") == [(project_id, FROZEN)]
