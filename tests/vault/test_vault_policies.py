"""Policies: every action and its effect, and every axis through reads by machines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault.domains import axes

HOUR_S = 3600
MARK = "MARKED-7f3a"
NO_RULES: dict[str, Any] = {
    **{key: False if field.kind == "boolean" else None for key, field in axes.FIELDS.items()},
    "description": "",
    "boundSecretCount": 0,
    "createdAt": START_MS,
    "updatedAt": START_MS,
}


def policies(project_id: str) -> str:
    return f"/v1/ai/projects/{project_id}/policies"


def binding(secret: str) -> str:
    return f"/v1/ai/secrets/{secret.rpartition('/')[2]}/binding"


def bound(agent: Agent, secret: str, **rules: Any) -> str:
    """The path of a new policy over the secret."""
    base = policies(secret.split("/")[4])
    policy_id = agent.post(base, {"name": "strict", **rules})["id"]
    agent.post(binding(secret), {"policyId": policy_id})
    return f"{base}/{policy_id}"


@pytest.fixture
def secret(agent: Agent) -> str:
    return agent.secret(agent.project(), "the value")


@pytest.fixture
def machine(vault: Vault, secret: str) -> Machine:
    return granted_machine(vault, secret)


def denied_axes(vault: Vault) -> list[str]:
    return [row["detail"].rpartition(": ")[2] for row in vault.audited("secret_read_denied")]


# ---- the actions -----------------------------------------------------------------------------------------------------


def test_a_created_policy_is_listed_and_got(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    reply = agent.send("POST", policies(project_id), {"name": "caps", "rateCapEnabled": True, "maxReadsPerDay": 5})
    assert (reply.status, reply.json) == (201, {"id": reply.json["id"], "name": "caps"})
    shown = {**NO_RULES, "id": reply.json["id"], "projectId": project_id, "name": "caps"}
    shown |= {"rateCapEnabled": True, "maxReadsPerDay": 5}
    assert agent.get(policies(project_id)) == [shown]
    assert agent.get(f"{policies(project_id)}/{reply.json['id']}") == {**shown, "boundSecrets": []}
    assert [row["project_id"] for row in vault.audited("policy_create")] == [project_id]


def test_an_update_changes_only_the_given_keys(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    created = agent.post(policies(project_id), {"name": "caps", "description": "d", "ttlMaxReads": 5})
    path = f"{policies(project_id)}/{created['id']}"
    clock.advance(5)
    assert agent.post(path + "/update", {"rotateAfterReads": 9}) == {"id": created["id"], "name": "caps"}
    assert agent.post(path + "/update", {"name": "new"}) == {"id": created["id"], "name": "new"}
    changed = {"name": "new", "description": "d", "ttlMaxReads": 5, "rotateAfterReads": 9, "updatedAt": START_MS + 5000}
    whole = {**NO_RULES, "id": created["id"], "projectId": project_id, **changed, "boundSecrets": []}
    assert agent.get(path) == whole
    assert agent.send("POST", path + "/update").status == 400
    details = [row["detail"] for row in vault.audited("policy_update")]
    assert details == [f"policy {created['id']}: {key} changed" for key in ("rotateAfterReads", "name")]


def test_an_update_may_not_leave_an_enabled_axis_incomplete(agent: Agent) -> None:
    project_id = agent.project()
    created = agent.post(policies(project_id), {"name": "p", "ipAllowlistCidrs": ["10.0.0.0/8"]})
    path = f"{policies(project_id)}/{created['id']}"
    agent.post(path + "/update", {"ipAllowlistEnabled": True})
    before = agent.get(path)
    for body, key in (
        ({"ipAllowlistEnabled": True, "ipAllowlistCidrs": []}, "ipAllowlistCidrs"),
        ({"timeWindowEnabled": True, "timeWindowStart": "09:00"}, "timeWindowEnd"),
        ({"rateCapEnabled": True}, "maxReadsPerDay"),
        ({"coSignEnabled": True}, "coSignMachineId"),
        ({"ttlMaxReads": 0}, "ttlMaxReads"),
        ({"rotateAfterReads": -1}, "rotateAfterReads"),
        ({"timeWindowDays": ["monday"]}, "timeWindowDays"),
        ({"ipAllowlistCidrs": [MARK]}, "ipAllowlistCidrs"),
        ({"timeWindowTimezone": MARK}, "timeWindowTimezone"),
    ):
        for target, more in ((path + "/update", {}), (policies(project_id), {"name": "q"})):
            reply = agent.send("POST", target, {**more, **body})
            assert (reply.status, reply.error.split(" ")[0]) == (400, key)
            assert MARK not in reply.error
    assert agent.get(path) == before
    assert len(agent.get(policies(project_id))) == 1


def test_every_limit_of_a_policy_is_enforced_at_its_edge(agent: Agent) -> None:
    path = policies(agent.project())
    for key, low, high in (
        ("maxReadsPerMinute", 1, 100_000),
        ("maxReadsPerDay", 1, 100_000),
        ("coSignWindowSeconds", 1, 86_400),
        ("ttlMaxReads", 1, 2**53 - 1),
        ("rotateAfterReads", 1, 2**53 - 1),
        ("ttlExpiresAt", 0, 2**53 - 1),
    ):
        for number, status in ((low - 1, 400), (low, 201), (high, 201), (high + 1, 400)):
            assert agent.send("POST", path, {"name": "p", key: number}).status == status, (key, number)
    for body, status in (
        ({"name": ""}, 400),
        ({"name": "n" * 255}, 201),
        ({"name": "n" * 256}, 400),
        ({"name": "p", "ipAllowlistCidrs": ["10.0.0.1"] * 100}, 201),
        ({"name": "p", "ipAllowlistCidrs": ["10.0.0.1"] * 101}, 400),
        ({"name": "p", "coSignMachineId": "m" * 64}, 201),
        ({"name": "p", "coSignMachineId": "m" * 65}, 400),
        ({"name": "p", "timeWindowDays": []}, 400),
        ({"name": "p", "timeWindowDays": ["mon"]}, 201),
    ):
        assert agent.send("POST", path, body).status == status, body


def test_a_cosigner_is_a_machine_of_the_project(vault: Vault, agent: Agent, secret: str) -> None:
    inside, outside = granted_machine(vault, secret), granted_machine(vault, agent.secret(agent.project("other"), "x"))
    rules = {"name": "p", "coSignEnabled": True, "coSignWindowSeconds": 60}
    base = policies(secret.split("/")[4])
    for machine_id in (outside.id, "nobody"):
        reply = agent.send("POST", base, {**rules, "coSignMachineId": machine_id})
        assert (reply.status, reply.error) == (400, "coSignMachineId must be a machine of the project")
    assert agent.send("POST", base, {**rules, "coSignMachineId": inside.id}).status == 201


def test_a_policy_with_bound_secrets_is_not_deleted(vault: Vault, agent: Agent, secret: str) -> None:
    path = bound(agent, secret)
    agent.post(secret + "/delete")
    name = {"id": secret.rpartition("/")[2], "name": "db", "inTrash": True}
    assert agent.get(path)["boundSecrets"] == [name]
    reply = agent.send("POST", path + "/delete")
    assert (reply.status, reply.error) == (409, "the policy is bound to 1 secrets: unbind them first")
    agent.post(f"/v1/ai/trash/{name['id']}/restore")
    assert agent.get(binding(secret))["policyId"] == path.rpartition("/")[2]
    agent.post(binding(secret) + "/delete")
    assert agent.post(path + "/delete") == {"id": path.rpartition("/")[2], "name": "strict", "deleted": True}
    assert agent.send("GET", path).status == 404
    assert len(vault.audited("policy_delete")) == 1


def test_a_binding_is_read_back_replaced_and_removed(vault: Vault, agent: Agent, secret: str, clock: FakeClock) -> None:
    secret_id, machine = secret.rpartition("/")[2], granted_machine(vault, secret)
    assert agent.get(binding(secret)) == {"secretId": secret_id, "policyId": None}
    assert agent.send("POST", binding(secret) + "/delete").status == 404
    first, clock.now_ms = bound(agent, secret).rpartition("/")[2], START_MS + 5000
    machine.value(secret)
    again = agent.post(binding(secret), {"policyId": first})
    assert again == {"secretId": secret_id, "policyId": first, "policyName": "strict"}
    shown = {**again, "reads": 1, "readsOfVersion": 1, "boundAt": START_MS}
    assert agent.get(binding(secret)) == shown
    second = bound(agent, secret).rpartition("/")[2]
    fresh = {"policyId": second, "reads": 0, "readsOfVersion": 0, "boundAt": START_MS + 5000}
    assert agent.get(binding(secret)) == {**shown, **fresh}
    assert agent.post(binding(secret) + "/delete") == {"secretId": secret_id, "policyId": None}
    assert agent.get(binding(secret)) == {"secretId": secret_id, "policyId": None}
    assert (len(vault.audited("policy_bind")), len(vault.audited("policy_unbind"))) == (2, 1)


def test_a_secret_takes_only_policies_of_its_project(agent: Agent, secret: str) -> None:
    other = agent.post(policies(agent.project("other")), {"name": "p"})["id"]
    for policy_id in (other, "pol_nowhere"):
        reply = agent.send("POST", binding(secret), {"policyId": policy_id})
        assert (reply.status, reply.error) == (404, "no such policy in the project")
    for tail in ("", "/update", "/delete"):
        method = "POST" if tail else "GET"
        body = {"name": "x"} if tail == "/update" else None
        assert agent.send(method, f"{policies(secret.split('/')[4])}/{other}{tail}", body).status == 404


def test_a_restricted_agent_reaches_only_its_projects(vault: Vault, agent: Agent, secret: str) -> None:
    path = bound(agent, secret)
    outsider = vault.agent(projects=[agent.project("other")])
    for method, where, body in (
        ("GET", policies(secret.split("/")[4]), None),
        ("GET", path, None),
        ("POST", policies(secret.split("/")[4]), {"name": "x"}),
        ("POST", path + "/update", {"name": "x"}),
        ("POST", path + "/delete", None),
        ("GET", binding(secret), None),
        ("POST", binding(secret), {"policyId": path.rpartition("/")[2]}),
        ("POST", binding(secret) + "/delete", None),
        ("GET", binding("sk_nowhere"), None),
    ):
        assert outsider.send(method, where, body).status == 403, where
    assert agent.get(path)["boundSecretCount"] == 1


# ---- axes ---------------------------------------------------------------------------------------------------------


def test_without_a_policy_or_rules_a_read_goes_through(agent: Agent, secret: str, machine: Machine) -> None:
    assert machine.value(secret) == "the value"
    bound(agent, secret)
    assert machine.value(secret) == "the value"


def test_a_denied_read_is_audited_with_its_axis(vault: Vault, agent: Agent, secret: str, machine: Machine) -> None:
    path = bound(agent, secret, ipAllowlistEnabled=True, ipAllowlistCidrs=["192.0.2.0/24"])
    reply = machine.read(secret)
    message = f"policy {path.rpartition('/')[2]} forbids this read: ipAllowlist"
    assert (reply.status, reply.json) == (403, {"error": message})
    [row] = vault.audited("secret_read_denied")
    found = (row["detail"], row["machine_id"], row["secret_id"], row["project_id"], row["source_ip"])
    assert found == (message, machine.id, secret.rpartition("/")[2], secret.split("/")[4], "127.0.0.1")
    agent.post(path + "/update", {"ipAllowlistCidrs": ["127.0.0.0/8"]})
    assert machine.value(secret) == "the value"


def test_the_time_window_opens_and_closes(
    vault: Vault, agent: Agent, secret: str, machine: Machine, clock: FakeClock
) -> None:
    """The test clock starts on a Thursday at 01:00 in Copenhagen."""
    times = {"timeWindowStart": "23:30", "timeWindowEnd": "01:30", "timeWindowTimezone": "Europe/Copenhagen"}
    path = bound(agent, secret, timeWindowEnabled=True, timeWindowDays=["wed"], **times)
    assert machine.value(secret) == "the value"
    clock.advance(HOUR_S // 2)
    assert machine.read(secret).status == 403
    agent.post(path + "/update", {"timeWindowEnabled": False})
    assert machine.value(secret) == "the value"
    assert denied_axes(vault) == ["timeWindow"]


def test_rate_caps_are_sliding(vault: Vault, agent: Agent, secret: str, machine: Machine, clock: FakeClock) -> None:
    bound(agent, secret, rateCapEnabled=True, maxReadsPerMinute=2, maxReadsPerDay=3)
    other = granted_machine(vault, secret)
    statuses: list[int] = []
    for seconds in (30, 29, 1, 30, 24 * HOUR_S - 91, 1, 29, 1, 0):
        statuses.append((machine if len(statuses) % 2 else other).read(secret).status)
        clock.advance(seconds)
    # Reads at 0 s and 30 s. The minute cap refuses at 59 s, but not at 60 s. Then the day cap refuses for a day.
    assert statuses == [200, 200, 403, 200, 403, 403, 200, 403, 200]
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM policy_reads").fetchone()[0] == 3  # reads older than a day are deleted
    assert denied_axes(vault) == ["maxReadsPerMinute", "maxReadsPerDay", "maxReadsPerDay", "maxReadsPerDay"]


def test_an_axis_is_enforced_only_while_its_flag_is_on(
    vault: Vault, agent: Agent, secret: str, machine: Machine
) -> None:
    """Each policy forbids the read once its flag is on. The test clock starts at 01:00 in Copenhagen."""
    times = {"timeWindowStart": "02:00", "timeWindowEnd": "03:00", "timeWindowTimezone": "Europe/Copenhagen"}
    cosigner = granted_machine(vault, secret)
    for flag, rules, axis in (
        ("timeWindowEnabled", {**times, "timeWindowDays": list(axes.DAYS)}, "timeWindow"),
        ("ipAllowlistEnabled", {"ipAllowlistCidrs": ["192.0.2.0/24"]}, "ipAllowlist"),
        ("coSignEnabled", {"coSignMachineId": cosigner.id, "coSignWindowSeconds": 60}, "coSign"),
    ):
        path = bound(agent, secret, **rules, **{flag: False})
        assert machine.value(secret) == "the value", flag
        agent.post(path + "/update", {flag: True})
        assert machine.read(secret).status == 403, flag
        agent.post(path + "/update", {flag: False})
        assert machine.value(secret) == "the value", flag
        assert denied_axes(vault)[-1] == axis, flag


def test_reads_count_for_a_rate_cap_only_while_it_is_on(
    vault: Vault, agent: Agent, secret: str, machine: Machine
) -> None:
    path = bound(agent, secret, maxReadsPerMinute=1)
    machine.value(secret)
    machine.value(secret)
    agent.post(path + "/update", {"rateCapEnabled": True})
    assert [machine.read(secret).status for _ in range(2)] == [200, 403]
    agent.post(path + "/update", {"rateCapEnabled": False})
    assert machine.value(secret) == "the value"
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM policy_reads").fetchone()[0] == 1


def test_a_read_is_a_cosign_request_only_while_cosigning_is_on(
    vault: Vault, agent: Agent, secret: str, machine: Machine
) -> None:
    cosigner = granted_machine(vault, secret)
    path = bound(agent, secret, coSignMachineId=cosigner.id, coSignWindowSeconds=60)
    machine.value(secret)
    agent.post(path + "/update", {"coSignEnabled": True})
    assert cosigner.read(secret).status == 403  # the earlier read was not a request
    assert machine.value(secret) == "the value"  # but this one was


def test_rate_caps_count_reads_of_less_than_a_minute_and_a_day_ago(
    vault: Vault, agent: Agent, clock: FakeClock
) -> None:
    for key, span_ms in (("maxReadsPerMinute", 60_000), ("maxReadsPerDay", 24 * HOUR_S * 1000)):
        secret = agent.secret(agent.project(key), "the value")
        machine = granted_machine(vault, secret)
        bound(agent, secret, rateCapEnabled=True, **{key: 1})
        start_ms = clock.now_ms
        for later_ms, status in ((0, 200), (1, 403), (span_ms - 1, 403), (span_ms, 200), (span_ms + 1, 403)):
            clock.now_ms = start_ms + later_ms
            assert machine.read(secret).status == status, (key, later_ms)


def test_a_cosign_request_counts_until_the_end_of_its_window(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    for later_ms, status in ((0, 200), (60_000, 200), (60_001, 403)):
        secret = agent.secret(agent.project(), "the value")
        machine, cosigner = granted_machine(vault, secret), granted_machine(vault, secret)
        bound(agent, secret, coSignEnabled=True, coSignMachineId=cosigner.id, coSignWindowSeconds=60)
        assert machine.read(secret).status == 403
        clock.now_ms += later_ms
        assert cosigner.read(secret).status == status, later_ms


def test_unbinding_does_not_reset_a_rate_cap(agent: Agent, secret: str, machine: Machine) -> None:
    rules = {"rateCapEnabled": True, "maxReadsPerDay": 1}
    bound(agent, secret, **rules)
    machine.value(secret)
    agent.post(binding(secret) + "/delete")
    bound(agent, secret, **rules)
    assert machine.read(secret).status == 403


def test_reads_end_at_the_expiry_time(
    vault: Vault, agent: Agent, secret: str, machine: Machine, clock: FakeClock
) -> None:
    bound(agent, secret, ttlExpiresAt=START_MS + 10_000)
    clock.now_ms = START_MS + 9_999
    assert machine.value(secret) == "the value"
    clock.now_ms += 1
    assert machine.read(secret).status == 403
    assert denied_axes(vault) == ["ttlExpiresAt"]


def test_reads_end_after_the_maximum_number(vault: Vault, agent: Agent, secret: str, machine: Machine) -> None:
    path = bound(agent, secret, ttlMaxReads=2)
    assert [machine.read(secret).status for _ in range(4)] == [200, 200, 403, 403]
    assert denied_axes(vault) == ["ttlMaxReads", "ttlMaxReads"]
    agent.post(path + "/update", {"ttlMaxReads": 3})
    assert [machine.read(secret).status for _ in range(2)] == [200, 403]


def test_two_machines_cosign_for_each_other(
    vault: Vault, agent: Agent, secret: str, machine: Machine, clock: FakeClock
) -> None:
    cosigner, third = granted_machine(vault, secret), granted_machine(vault, secret)
    bound(agent, secret, coSignEnabled=True, coSignMachineId=cosigner.id, coSignWindowSeconds=60)
    assert machine.read(secret).status == 403  # refused, but stored as a request
    assert machine.read(secret).status == 403  # a machine cannot co-sign for itself
    assert third.read(secret).status == 403  # nor can two other machines for each other
    clock.advance(60)
    assert cosigner.value(secret) == "the value"
    assert machine.value(secret) == "the value"
    clock.advance(61)
    assert machine.read(secret).status == 403
    clock.advance(61)
    assert cosigner.read(secret).status == 403  # the request is older than the window
    assert third.value(secret) == "the value"
    assert denied_axes(vault) == ["coSign"] * 5


def test_a_cosign_request_that_fails_another_axis_is_not_stored(
    agent: Agent, vault: Vault, secret: str, machine: Machine
) -> None:
    cosigner = granted_machine(vault, secret)
    rules = {"coSignEnabled": True, "coSignMachineId": cosigner.id, "coSignWindowSeconds": 60}
    path = bound(agent, secret, ipAllowlistEnabled=True, ipAllowlistCidrs=["192.0.2.1"], **rules)
    assert machine.read(secret).status == 403
    agent.post(path + "/update", {"ipAllowlistEnabled": False})
    assert cosigner.read(secret).status == 403
    assert denied_axes(vault) == ["ipAllowlist", "coSign"]


def test_cosign_requests_are_deleted_with_the_binding(
    agent: Agent, vault: Vault, secret: str, machine: Machine
) -> None:
    cosigner = granted_machine(vault, secret)
    rules = {"coSignEnabled": True, "coSignMachineId": cosigner.id, "coSignWindowSeconds": 60}
    bound(agent, secret, **rules)
    assert machine.read(secret).status == 403
    bound(agent, secret, **rules)
    assert cosigner.read(secret).status == 403
    assert machine.value(secret) == "the value"


def test_the_last_read_returns_the_old_value_before_the_rotation(
    vault: Vault, agent: Agent, secret: str, machine: Machine
) -> None:
    bound(agent, secret, rotateAfterReads=2)
    assert [machine.value(secret) for _ in range(2)] == ["the value"] * 2
    assert agent.get(secret)["version"] == 2
    made = [machine.value(secret) for _ in range(2)]
    assert made[0] == made[1] != "the value"
    assert len(made[0]) == 32
    assert agent.get(secret)["version"] == 3
    rows = [(row["actor_kind"], row["detail"]) for row in vault.audited("secret_rotate")]
    assert rows == [("system", f"rotated after 2 reads, now version {version}") for version in (2, 3)]


def test_a_manual_rotation_resets_the_count(agent: Agent, secret: str, machine: Machine) -> None:
    bound(agent, secret, rotateAfterReads=2)
    machine.value(secret)
    agent.post(secret + "/rotate")
    machine.value(secret)
    assert agent.get(secret)["version"] == 2
    machine.value(secret)
    assert agent.get(secret)["version"] == 3


def test_structured_and_scheduled_secrets_rotate_with_their_options(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    plain = agent.secret(project_id, '{"user":"u","password":"p"}', fieldNames=["user", "password"])
    schedule = {"fieldNames": ["user", "pin"], "staticFields": {"user": "u"}, "length": 6, "charset": "numbers"}
    body = {"projectId": project_id, "name": "d", "intervalSeconds": 300, **schedule}
    scheduled = f"/v1/ai/projects/{project_id}/secrets/{agent.post('/v1/ai/dynamic-secrets', body)['secretId']}"
    machine = granted_machine(vault, plain, scheduled)
    for secret in (plain, scheduled):
        bound(agent, secret, rotateAfterReads=1)
    before = [machine.read(secret).json["value"] for secret in (plain, scheduled)]
    after = [vault.value(secret.rpartition("/")[2]) for secret in (plain, scheduled)]
    assert before[0] == '{"user":"u","password":"p"}'
    assert '"u"' not in after[0]
    assert '"p"' not in after[0]
    assert after[1].startswith('{"user": "u", "pin": "')
    assert after[1] != before[1]
    assert len(after[1]) == len(before[1])


def test_a_failed_rotation_is_audited_and_the_read_succeeds(vault: Vault, agent: Agent) -> None:
    names = [f"f{number}" for number in range(50)]
    value = "{" + ",".join(f'"{name}":""' for name in names) + "}"
    secret = agent.secret(agent.project(), value, fieldNames=names)
    agent.post("/v1/ai/dynamic-secrets", {"secretId": secret.rpartition("/")[2], "intervalSeconds": 300})
    with vault.store.transaction() as db:  # no route accepts such options
        db.execute("UPDATE rotation_schedules SET length = 1024")
    bound(agent, secret, rotateAfterReads=1)
    assert granted_machine(vault, secret).value(secret) == value
    assert agent.get(secret)["version"] == 1
    [row] = vault.audited("secret_rotate_denied")
    assert row["detail"] == "not rotated after 1 reads: the new value would be larger than 12288 bytes"


def test_an_export_omits_secrets_that_a_policy_forbids(
    vault: Vault, agent: Agent, secret: str, machine: Machine
) -> None:
    bound(agent, secret, ttlMaxReads=1)
    ids = [row["id"] for _ in range(2) for row in machine.post("/v1/secrets/export")["secrets"]]
    assert ids == [secret.rpartition("/")[2]]
    assert denied_axes(vault) == ["ttlMaxReads"]
