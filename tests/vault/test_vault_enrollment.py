"""Enrollment tokens: which machines they admit, from where, how often and for how long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.machines import HOUR_S, TOKENS, enroll, enrolled_machine, token_body
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault, disk, encoded, exchange, public_bytes

UNUSABLE = "the enrollment token is unknown, revoked, used up or expired"


def minted(agent: Agent, **changed: Any) -> dict[str, Any]:
    created: dict[str, Any] = agent.post(TOKENS, token_body(**changed))
    return created


def test_a_token_is_shown_once_and_kept_as_a_hash(vault: Vault, agent: Agent) -> None:
    path = agent.secret(agent.project(), "v")
    project_id, secret_id = path.split("/")[4], path.rpartition("/")[2]
    limits = {"sourceCidr": "127.0.0.9/8", "hostnamePattern": "run.*", "namePattern": "ci-[0-9]+"}
    reach = {"projectIds": [project_id, project_id], "secretIds": [secret_id], "description": "for CI"}
    created = minted(agent, **reach, **limits, maxUses=3, machineLifetimeSeconds=60)
    assert created == {"id": created["id"], "name": "ci", "token": created["token"], "expiresAt": START_MS + 3_600_000}
    shown = {
        "id": created["id"],
        "name": "ci",
        "description": "for CI",
        "state": "active",
        "projectIds": [project_id],
        "secretIds": [secret_id],
        "machineLifetimeSeconds": 60,
        "maxUses": 3,
        "uses": 0,
        **limits,
        "sourceCidr": "127.0.0.0/8",
        "createdAt": START_MS,
        "expiresAt": START_MS + 3_600_000,
        "revokedAt": None,
        "revokeReason": None,
    }
    assert agent.get(f"{TOKENS}/{created['id']}") == shown
    assert agent.get(TOKENS) == [shown]
    assert (len(created["token"]), created["token"].encode() in disk(vault.directory)) == (64, False)
    assert created["token"] not in str(vault.audited("enroll_token_create"))


def test_an_enrolled_machine_reads_until_it_expires(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    secret = agent.secret(agent.project(), "v")
    machine = enrolled_machine(vault, agent, [secret], machineLifetimeSeconds=60)
    assert machine.read(secret).json == {"value": "v"}
    (granted,) = vault.audited("permission_grant")
    assert granted["secret_id"] == secret.rpartition("/")[2]
    assert (granted["actor_kind"], granted["detail"]) == ("external", f"reading granted to machine {machine.id}")
    clock.advance(59)
    assert machine.read(secret).status == 200
    clock.advance(1)
    reply = machine.read(secret)
    assert (reply.status, reply.error) == (401, "Machine has expired")


def test_the_answer_of_an_enrollment_names_the_machine(vault: Vault, agent: Agent) -> None:
    created = minted(agent, maxUses=2, machineLifetimeSeconds=90)
    for given, name in ((None, "runner-7"), ("ci-1", "ci-1")):
        reply = enroll(vault, created["token"], **({"name": given} if given else {}))
        known = {"vaultId": vault.store.vault_id, "expiresAt": START_MS + 90_000}
        assert (reply.status, reply.json) == (
            200,
            {"machineId": reply.json["machineId"], "machineName": name, **known},
        )
        shown = agent.get(f"/v1/ai/machines/{reply.json['machineId']}")
        assert (shown["name"], shown["kind"], shown["state"]) == (name, "ephemeral", "approved")
        assert (shown["hostname"], shown["enrollmentTokenId"]) == ("runner-7", created["id"])
    assert [row["actor_kind"] for row in vault.audited("machine_register")] == ["external", "external"]


def test_a_token_enrolls_its_number_of_machines(vault: Vault, agent: Agent) -> None:
    created = minted(agent, maxUses=2)
    replies = [enroll(vault, created["token"]) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 401]
    assert replies[2].error == UNUSABLE
    shown = agent.get(f"{TOKENS}/{created['id']}")
    assert (shown["uses"], shown["state"]) == (2, "used_up")


def test_concurrent_enrollments_do_not_exceed_the_uses(vault: Vault, agent: Agent) -> None:
    created = minted(agent, maxUses=5)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: enroll(vault, created["token"]).status, range(20)))
    assert sorted(statuses) == [200] * 5 + [401] * 15
    assert (len(agent.get("/v1/ai/machines")), agent.get(f"{TOKENS}/{created['id']}")["uses"]) == (5, 5)


def test_a_token_expires(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    created = minted(agent, tokenLifetimeSeconds=10, maxUses=2)
    clock.advance(9)
    assert enroll(vault, created["token"]).status == 200
    clock.advance(1)
    assert (enroll(vault, created["token"]).error, agent.get(TOKENS)[0]["state"]) == (UNUSABLE, "expired")


@pytest.mark.parametrize("reason", ["leaked", ""])
def test_a_revoked_token_enrolls_no_machine_and_enrolled_ones_keep_reading(
    vault: Vault, agent: Agent, reason: str
) -> None:
    secret = agent.secret(agent.project(), "v")
    machine = enrolled_machine(vault, agent, [secret])
    path = f"{TOKENS}/{agent.get(TOKENS)[0]['id']}"
    again = minted(agent)
    assert agent.post(f"{path}/revoke", {"reason": reason} if reason else {})["state"] == "revoked"
    shown = agent.get(path)
    assert (shown["state"], shown["revokedAt"], shown["revokeReason"]) == ("revoked", START_MS, reason)
    twice = agent.send("POST", f"{path}/revoke")
    assert (twice.status, twice.error) == (409, "the token is already revoked")
    assert machine.read(secret).status == 200
    agent.post(f"{TOKENS}/{again['id']}/revoke")
    assert enroll(vault, again["token"]).error == UNUSABLE
    assert vault.audited("enroll_token_revoke")[0]["detail"].endswith("revoked: leaked" if reason else "revoked")


def test_an_unknown_token_gets_the_same_error(vault: Vault, agent: Agent) -> None:
    tokens = ["", "x", "f" * 64, "F" * 64]
    for token in tokens:
        reply = enroll(vault, token)
        assert (reply.status, reply.error) == (401, UNUSABLE), token
    assert [row["actor_kind"] for row in vault.audited("auth_failure")] == ["external"]


@pytest.mark.parametrize(
    ("limits", "given", "error"),
    [
        ({"sourceCidr": "127.0.0.0/8"}, {}, None),
        ({"sourceCidr": "::ffff:127.0.0.1"}, {}, None),
        ({"sourceCidr": "10.0.0.0/8"}, {}, "the enrollment token is not for this address"),
        ({"sourceCidr": ""}, {}, None),
        ({"hostnamePattern": "runner-[0-9]+"}, {}, None),
        ({"hostnamePattern": "runner"}, {}, "the enrollment token is not for this hostname"),
        ({"hostnamePattern": "r.*"}, {"hostname": "r\nx"}, "the enrollment token is not for this hostname"),
        ({"namePattern": "ci-[0-9]+"}, {"name": "ci-12"}, None),
        ({"namePattern": "ci-[0-9]+"}, {"name": "ci-12x"}, "the enrollment token is not for this name"),
        ({"namePattern": "ci-[0-9]+"}, {}, "the enrollment token is not for this name"),
        ({"namePattern": "(a+)+b"}, {"name": "a" * 255}, "the enrollment token is not for this name"),
    ],
)
def test_token_limits_are_enforced_and_a_refusal_does_not_use_it_up(
    vault: Vault, agent: Agent, limits: dict[str, str], given: dict[str, str], error: str | None
) -> None:
    created = minted(agent, **limits)
    reply = enroll(vault, created["token"], **given)
    assert (reply.status, reply.json.get("error")) == (403 if error else 200, error)
    assert agent.get(f"{TOKENS}/{created['id']}")["uses"] == (0 if error else 1)
    assert len(vault.audited("auth_failure")) == (1 if error else 0)


def test_a_key_that_a_machine_has_already_is_a_conflict(vault: Vault, agent: Agent) -> None:
    created, key = minted(agent, maxUses=3), Ed25519PrivateKey.generate()
    assert [enroll(vault, created["token"], key).status for _ in range(2)] == [200, 409]
    assert agent.get(f"{TOKENS}/{created['id']}")["uses"] == 1


def test_a_registration_is_checked_like_any_body(vault: Vault, agent: Agent) -> None:
    created = minted(agent)
    for given in ({"publicKey": "x"}, {"hostname": ""}, {"hostname": None}, {"name": "x" * 256}, {"kind": "standard"}):
        assert enroll(vault, created["token"], **given).status == 400, given
    public_key = public_bytes(Ed25519PrivateKey.generate())
    body = encoded({"token": created["token"], "publicKey": public_key, "hostname": "h"})
    headers = [("Content-Type", "application/json")]
    reply = exchange(vault.port, "POST", "/v1/vault_other/enroll/register", body, headers)
    assert (reply.status, reply.error) == (404, "no such vault")
    assert agent.get(TOKENS)[0]["uses"] == 0


def test_an_invalid_token_is_refused(agent: Agent) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sourceCidr": "office"}, "sourceCidr must be an IPv4 or IPv6 network such as 203.0.113.0/24"),
        ({"hostnamePattern": "["}, "hostnamePattern must be a regular expression of at most 200 characters, "),
        ({"namePattern": r"(a)\1"}, "namePattern must be a regular expression of at most 200 characters, "),
        ({"namePattern": "a" * 201}, "namePattern must be a regular expression of at most 200 characters, "),
        ({"secretIds": ["sk_unknown"]}, "secretIds must be secrets of the projects in projectIds"),
        ({"maxUses": 0}, "maxUses must be an integer from 1 to 100000"),
        ({"tokenLifetimeSeconds": 0}, "tokenLifetimeSeconds must be an integer from 1 to 31536000"),
        ({"machineLifetimeSeconds": 31_536_001}, "machineLifetimeSeconds must be an integer from 1 to 31536000"),
        ({"projectIds": ["proj_unknown"]}, "no such project"),
    ]
    for changed, error in cases:
        reply = agent.send("POST", TOKENS, token_body(**changed))
        assert reply.status == (404 if "projectIds" in changed else 400), (changed, error)
        assert reply.error.startswith(error), (changed, error)
        assert agent.get(TOKENS) == [], (changed, error)


def test_a_token_needs_what_the_contract_requires(agent: Agent) -> None:
    for key in ["name", "projectIds", "secretIds", "tokenLifetimeSeconds", "machineLifetimeSeconds", "maxUses"]:
        body = {name: value for name, value in token_body().items() if name != key}
        assert agent.send("POST", TOKENS, body).error == f"{key} is required", key


def test_secrets_of_a_token_belong_to_its_projects_and_are_not_in_the_trash(agent: Agent) -> None:
    path, other = agent.secret(agent.project(), "v"), agent.project()
    secret_id, project_id = path.rpartition("/")[2], path.split("/")[4]
    assert agent.send("POST", TOKENS, token_body(projectIds=[other], secretIds=[secret_id])).status == 400
    agent.post(path + "/delete")
    assert agent.send("POST", TOKENS, token_body(projectIds=[project_id], secretIds=[secret_id])).status == 400


def test_deleted_projects_and_secrets_leave_the_token(vault: Vault, agent: Agent) -> None:
    path, other = agent.secret(agent.project(), "v"), agent.project("other")
    project_id = path.split("/")[4]
    created = minted(agent, projectIds=[project_id, other], secretIds=[path.rpartition("/")[2]])
    agent.post(f"/v1/ai/projects/{project_id}/delete", {"confirmName": "Demo"})
    shown = agent.get(f"{TOKENS}/{created['id']}")
    assert (shown["projectIds"], shown["secretIds"]) == ([other], [])
    machine_id = enroll(vault, created["token"]).json["machineId"]
    assert [each["projectId"] for each in agent.get(f"/v1/ai/machines/{machine_id}")["projects"]] == [other]


def test_a_restricted_agent_creates_no_token_without_a_project(vault: Vault, agent: Agent) -> None:
    narrow = vault.agent(projects=[agent.project()])
    reply = narrow.send("POST", TOKENS, token_body(projectIds=[]))
    words = "an agent with a project allowlist must name a project in projectIds"
    assert (reply.status, reply.error, agent.get(TOKENS)) == (403, words, [])
    assert agent.send("POST", TOKENS, token_body(projectIds=[])).status == 201


def test_a_restricted_agent_manages_only_tokens_of_its_projects(vault: Vault, agent: Agent) -> None:
    own, foreign = agent.project("own"), agent.project("foreign")
    secret_id = agent.secret(foreign, "v").rpartition("/")[2]
    narrow = vault.agent(projects=[own])
    mixed, local = minted(agent, projectIds=[own, foreign]), minted(narrow, projectIds=[own])
    assert [each["id"] for each in narrow.get(TOKENS)] == [local["id"]]
    for method, tail in (("GET", ""), ("POST", "/revoke")):
        replies = [narrow.send(method, f"{TOKENS}/{each}{tail}") for each in (mixed["id"], "unknown")]
        assert [reply.status for reply in replies] == [403, 403]
        assert replies[0].json == replies[1].json
    for project_id in (foreign, "proj_unknown"):
        assert narrow.send("POST", TOKENS, token_body(projectIds=[project_id])).status == 403
    assert narrow.send("POST", TOKENS, token_body(projectIds=[own], secretIds=[secret_id])).status == 400
    assert narrow.post(f"{TOKENS}/{local['id']}/revoke")["state"] == "revoked"


def test_an_unknown_token_is_not_found(agent: Agent) -> None:
    for method, tail in (("GET", ""), ("POST", "/revoke")):
        assert agent.send(method, f"{TOKENS}/enr_unknown{tail}").error == "no such enrollment token"


def test_lifetimes_are_in_seconds(agent: Agent) -> None:
    assert minted(agent, tokenLifetimeSeconds=2 * HOUR_S)["expiresAt"] == START_MS + 7_200_000
