"""Reads by machines: formats, denials and audit entries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vault.support.machines import Machine, enrolled_machine, pending_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Reply, Vault, exchange
from vault.domains import machines
from vault.router import Route
from vault.schema import ROUTES

MACHINE_ROUTES = [route for route in ROUTES if route.caller == "machine"]


@pytest.fixture
def secrets(agent: Agent) -> list[str]:
    """A plain and a structured secret in one project, and a plain one in another."""
    first, second = agent.project("first"), agent.project("second")
    structured = json.dumps({"user": "søren", "pass": "p"}, ensure_ascii=False)
    return [
        agent.secret(first, "one", name="plain"),
        agent.secret(first, structured, name="pair", fieldNames=["user", "pass"]),
        agent.secret(second, "three", name="other"),
    ]


def row(path: str, name: str, names: str | None = None, **more: str) -> dict[str, Any]:
    return {"id": path.rpartition("/")[2], "name": name, "fieldNames": names, "projectId": path.split("/")[4], **more}


def rows(secrets: list[str]) -> list[dict[str, Any]]:
    return [row(secrets[0], "plain"), row(secrets[1], "pair", '["user", "pass"]'), row(secrets[2], "other")]


def sent(machine: Machine, route: Route, secret: str) -> Reply:
    """A route of machines, with a valid body."""
    bodies = {"/v1/secrets/list": {"projectId": secret.split("/")[4]}, "/v1/secrets/poll": {"watch": []}}
    path = route.path.replace("{secretId}", secret.rpartition("/")[2])
    return machine.send(route.method, path, bodies.get(route.path))


def by_id(listed: dict[str, Any]) -> dict[str, Any]:
    return {each["id"]: each for each in listed["secrets"]}


def test_a_read_returns_only_the_value(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    reply = machine.read(secrets[0])
    assert (reply.status, reply.raw) == (200, b'{"value":"one"}')
    agent.post(secrets[0] + "/update", {"value": "two"})
    assert machine.read(secrets[0]).json == {"value": "two"}
    entries = [(each["machine_id"], each["secret_id"], each["detail"]) for each in vault.audited("secret_read")]
    secret_id = secrets[0].rpartition("/")[2]
    assert entries == [(machine.id, secret_id, f"plain read, version {version}") for version in (1, 2)]


def test_lists_contain_granted_secrets_without_values(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets)
    agent.secret(secrets[0].split("/")[4], "not granted")
    expected = {each["id"]: each for each in rows(secrets)}
    assert by_id(machine.get("/v1/secrets")) == expected
    one = machine.post("/v1/secrets/list", {"projectId": secrets[2].split("/")[4]})
    assert one == {"secrets": [rows(secrets)[2]]}
    agent.post(secrets[2] + "/delete")
    assert machine.post("/v1/secrets/list", {"projectId": secrets[2].split("/")[4]}) == {"secrets": []}


def test_an_export_contains_values_and_is_audited_for_each(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets)
    values = ("one", '{"user": "søren", "pass": "p"}', "three")
    expected = [{**each, "value": value} for each, value in zip(rows(secrets), values)]
    assert by_id(machine.post("/v1/secrets/export")) == {each["id"]: each for each in expected}
    project_id = secrets[2].split("/")[4]
    assert machine.post("/v1/secrets/export", {"projectId": project_id}) == {"secrets": [expected[2]]}
    assert len(vault.audited("secret_read")) == 4


def test_a_denied_read_gives_the_reason_and_is_audited(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    agent.post(secrets[0] + "/delete")
    ids = [path.rpartition("/")[2] for path in secrets]
    expected = [
        (ids[0], 404, "no such secret"),
        (ids[1], 403, "the machine has no grant for the secret"),
        (ids[2], 403, "the machine is not in the secret's project"),
        ("sk_unknown", 404, "no such secret"),
    ]
    replies = [machine.read(each) for each, _, _ in expected]
    assert [(reply.status, reply.error) for reply in replies] == [(status, error) for _, status, error in expected]
    denied = [(each["machine_id"], each["secret_id"], each["detail"]) for each in vault.audited("secret_read_denied")]
    assert denied == [(machine.id, each, error) for each, _, error in expected]
    assert vault.audited("secret_read") == []


def test_a_grant_without_membership_has_no_effect(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    with vault.store.transaction() as db:
        db.execute("DELETE FROM project_machines")
    assert (machine.read(secrets[0]).status, machine.get("/v1/secrets")) == (403, {"secrets": []})
    assert machine.post("/v1/secrets/export") == {"secrets": []}


def test_an_unknown_and_a_foreign_project_look_the_same(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    for project_id in (secrets[2].split("/")[4], "proj_unknown"):
        for tail in ("list", "export"):
            reply = machine.send("POST", f"/v1/secrets/{tail}", {"projectId": project_id})
            assert (reply.status, reply.error) == (403, "the machine is not in the project")


STATES = {
    "pending": (403, "Machine is pending approval"),
    "denied": (401, "unknown identity"),
    "revoked": (401, "unknown identity"),
    "expired": (401, "Machine has expired"),
    "expired temp": (401, "Machine has expired"),
}


def brought_to(state: str, vault: Vault, agent: Agent, clock: FakeClock) -> Machine:
    if state in ("pending", "denied"):
        machine = pending_machine(vault)
    elif state == "expired temp":
        machine = pending_machine(vault, kind="temp", expires_ms=START_MS + 60_000)
        agent.post(f"/v1/ai/machines/{machine.id}/approve")
    else:
        machine = enrolled_machine(vault, agent, [], machineLifetimeSeconds=60)
    if state == "denied":
        agent.post(f"/v1/ai/machines/{machine.id}/deny")
    elif state == "revoked":
        agent.post(f"/v1/ai/machines/{machine.id}/revoke")
    elif state.startswith("expired"):
        clock.advance(60)
    return machine


@pytest.mark.parametrize("state", STATES)
def test_a_pending_or_expired_machine_is_refused_everywhere_and_audited(
    vault: Vault, agent: Agent, clock: FakeClock, secrets: list[str], state: str
) -> None:
    machine = brought_to(state, vault, agent, clock)
    for route in MACHINE_ROUTES:
        reply = sent(machine, route, secrets[0])
        assert (reply.status, reply.error) == STATES[state], route.path
    known = STATES[state][1] != "unknown identity"
    # The others in the same minute are counted.
    assert [each["machine_id"] for each in vault.audited("auth_failure")] == [machine.id if known else None]


@pytest.mark.parametrize("kind", ["standard", "temp"])
def test_machines_of_every_kind_read_granted_secrets(vault: Vault, agent: Agent, secrets: list[str], kind: str) -> None:
    machine = pending_machine(vault, kind=kind, expires_ms=START_MS + 60_000 if kind == "temp" else None)
    base = f"{secrets[0].rpartition('/secrets/')[0]}/machines"
    agent.post(base, {"machineId": machine.id})
    agent.post(f"{base}/{machine.id}/grants", {"secretIds": [secrets[0].rpartition("/")[2]]})
    assert machine.read(secrets[0]).status == 403
    with vault.store.transaction() as db:
        assert machines.approve_as_owner(db, vault.clock(), machine.id).name == "web-1"
    assert machine.read(secrets[0]).json == {"value": "one"}


def test_each_identity_is_refused_on_the_routes_of_the_other(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    disguised = Machine(agent.port, agent.clock, agent.id, agent.key)
    for route in ROUTES:
        if route.caller == "machine":
            reply = sent(disguised, route, secrets[0])
        elif route.caller == "agent":
            reply = machine.send(route.method, route.path.replace("{", "").replace("}", ""))
        else:
            continue
        assert (reply.status, reply.error) == (401, "unknown identity"), route.path
    assert machine.read(secrets[0]).status == 200


def test_a_machine_needs_no_agent_header(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    headers = [pair for pair in machine.headers("GET", "/v1/secrets") if pair[0] != "X-Agent-Id"]
    assert exchange(vault.port, "GET", "/v1/secrets", b"", headers).status == 200
    assert exchange(vault.port, "GET", "/v1/secrets", b"", headers).error == "the nonce was used before"


def test_poll_reports_a_new_version_until_it_is_read(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine, other = (enrolled_machine(vault, agent, secrets[:2]) for _ in range(2))
    plain = secrets[0].rpartition("/")[2]
    assert machine.poll(*secrets[:2]) == {}
    agent.post(secrets[0] + "/update", {"value": "two"})
    for _ in range(2):
        assert machine.poll(*secrets[:2]) == {plain: "changed"}
    assert other.poll(*secrets[:2]) == {}
    machine.read(secrets[0])
    assert machine.poll(*secrets[:2]) == {}
    agent.post(secrets[0] + "/rotate", {})
    assert machine.poll(secrets[0], secrets[0]) == other.poll(secrets[0]) == {plain: "changed"}
    machine.post("/v1/secrets/export")
    assert machine.poll(secrets[0]) == {}


def test_the_first_poll_compares_with_earlier_reads(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    machine.read(secrets[0])
    agent.post(secrets[0] + "/update", {"value": "two"})
    assert machine.poll(secrets[0]) == {secrets[0].rpartition("/")[2]: "changed"}


def test_poll_distinguishes_deleted_from_forbidden(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:1])
    ids = [path.rpartition("/")[2] for path in secrets]
    expected = {ids[1]: "access_denied", ids[2]: "access_denied", "sk_unknown": "deleted"}
    assert machine.poll(*ids, "sk_unknown") == expected
    agent.post(secrets[0] + "/delete")
    assert machine.poll(ids[0]) == {ids[0]: "deleted"}
    agent.post(f"/v1/ai/trash/{ids[0]}/restore")
    assert machine.poll(ids[0]) == {}
    agent.post(f"/v1/ai/projects/{secrets[0].split('/')[4]}/machines/{machine.id}/detach")
    assert machine.poll(ids[0]) == {ids[0]: "access_denied"}
    assert (vault.audited("secret_read_denied"), vault.audited("secret_read")) == ([], [])


def test_a_watch_list_is_limited(vault: Vault, agent: Agent) -> None:
    machine = enrolled_machine(vault, agent, [])
    for body in (None, {}, {"watch": "sk_1"}, {"watch": [1]}, {"watch": ["sk_1"] * 1001}, {"watch": [], "wait": 30}):
        assert machine.send("POST", "/v1/secrets/poll", body).status == 400
    assert machine.send("POST", "/v1/secrets/list", {}).error == "projectId is required"


def canary(agent: Agent, project_id: str, **more: Any) -> str:
    created = agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait", **more})
    return f"/v1/ai/projects/{project_id}/secrets/{created['id']}"


def test_reading_a_canary_returns_its_value_and_freezes_its_project(
    vault: Vault, agent: Agent, secrets: list[str]
) -> None:
    bait = canary(agent, secrets[0].split("/")[4])
    machine = enrolled_machine(vault, agent, [*secrets, bait])
    reply = machine.read(bait)
    assert (reply.status, list(reply.json)) == (200, ["value"])
    assert [machine.read(each).status for each in (bait, *secrets)] == [423, 423, 423, 200]
    assert [each["severity"] for each in vault.audited("canary_triggered")] == ["critical"]
    assert len(vault.audited("secret_read_denied")) == 3
    agent.post(f"/v1/ai/projects/{secrets[0].split('/')[4]}/unfreeze")
    assert machine.read(secrets[0]).status == 200


def test_an_export_triggers_the_canary_before_other_reads(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    bait = canary(agent, secrets[0].split("/")[4])
    machine = enrolled_machine(vault, agent, [*secrets, bait])
    names = {each["name"] for each in machine.post("/v1/secrets/export")["secrets"]}
    assert names == {"bait", "other"}
    denied = {each["secret_id"] for each in vault.audited("secret_read_denied")}
    assert denied == {path.rpartition("/")[2] for path in secrets[:2]}
    assert len(machine.get("/v1/secrets")["secrets"]) == 4


def test_an_export_omits_secrets_that_a_policy_forbids(vault: Vault, agent: Agent, secrets: list[str]) -> None:
    machine = enrolled_machine(vault, agent, secrets[:2])
    secret_id, project_id = secrets[0].rpartition("/")[2], secrets[0].split("/")[4]
    created = agent.post(f"/v1/ai/projects/{project_id}/policies", {"name": "once", "ttlMaxReads": 1})
    agent.post(f"/v1/ai/secrets/{secret_id}/binding", {"policyId": created["id"]})
    assert [len(machine.post("/v1/secrets/export")["secrets"]) for _ in range(2)] == [2, 1]
    assert [each["secret_id"] for each in vault.audited("secret_read_denied")] == [secret_id]
    assert machine.read(secrets[0]).status == 403
