"""Machines and their memberships: every action and its effect."""

from __future__ import annotations

from typing import Any

from tests.vault.support.machines import HOUR_S, Machine, enrolled_machine, pending_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault, run_job
from vault.domains import machines

MACHINES = "/v1/ai/machines"
PROJECTS = "/v1/ai/projects"
DAY_S = 24 * HOUR_S


def listed(machine: Machine, **changed: Any) -> dict[str, Any]:
    plain = {"name": "web-1", "kind": "standard", "state": "pending", "hostname": "web-1.example"}
    times = {"createdAt": START_MS, "approvedAt": None, "lastSeenAt": None}
    return {"id": machine.id, **plain, **times, **changed}


def ids(agent: Agent) -> list[str]:
    return [machine["id"] for machine in agent.get(MACHINES)]


def test_a_machine_is_listed_with_its_state_and_shown_with_its_projects(
    vault: Vault, agent: Agent, clock: FakeClock
) -> None:
    project_id = agent.project()
    secrets = [agent.secret(project_id, "a"), agent.secret(project_id, "b")]
    machine = enrolled_machine(vault, agent, secrets, machineLifetimeSeconds=60)
    row = listed(machine, name="runner-7", kind="ephemeral", state="approved", hostname="runner-7", approvedAt=START_MS)
    assert agent.get(MACHINES) == [row]
    agent.post(secrets[0] + "/delete")
    shown = agent.get(f"{MACHINES}/{machine.id}")
    assert shown == {
        **row,
        "expiresAt": START_MS + 60_000,
        "enrollmentTokenId": shown["enrollmentTokenId"],
        "projects": [{"projectId": project_id, "projectName": "Demo", "addedAt": START_MS}],
        "grantCount": 1,
    }
    assert agent.get("/v1/ai/enrollment-tokens/" + shown["enrollmentTokenId"])["uses"] == 1
    clock.advance(59)
    machine.get("/v1/secrets")
    assert agent.get(MACHINES) == [{**row, "lastSeenAt": START_MS + 59_000}]
    clock.advance(1)
    assert agent.get(MACHINES) == [{**row, "state": "expired", "lastSeenAt": START_MS + 59_000}]


def test_a_machine_is_approved_once(vault: Vault, agent: Agent) -> None:
    machine = pending_machine(vault)
    assert agent.get(MACHINES) == [listed(machine)]
    reply = machine.send("GET", "/v1/secrets")
    assert (reply.status, reply.error) == (403, "Machine is pending approval")
    path = f"{MACHINES}/{machine.id}/approve"
    assert agent.post(path) == {"id": machine.id, "name": "web-1", "state": "approved"}
    assert machine.get("/v1/secrets") == {"secrets": []}
    again = agent.send("POST", path)
    assert (again.status, again.error) == (409, "the machine is not pending, it is approved")
    assert [row["agent_id"] for row in vault.audited("machine_approve")] == [agent.id]


def test_a_denied_machine_is_deleted(vault: Vault, agent: Agent) -> None:
    machine = pending_machine(vault)
    assert agent.post(f"{MACHINES}/{machine.id}/deny") == {"id": machine.id, "name": "web-1", "state": "denied"}
    assert agent.get(MACHINES) == []
    assert (machine.send("GET", "/v1/secrets").status, len(vault.audited("machine_deny"))) == (401, 1)
    approved = enrolled_machine(vault, agent, [])
    reply = agent.send("POST", f"{MACHINES}/{approved.id}/deny")
    assert (reply.status, ids(agent)) == (409, [approved.id])


def test_a_revoke_previews_and_then_deletes(vault: Vault, agent: Agent) -> None:
    first, second = agent.project("a"), agent.project("b")
    secrets = [agent.secret(first, "1"), agent.secret(first, "2"), agent.secret(second, "3")]
    machine = enrolled_machine(vault, agent, secrets)
    path = f"{MACHINES}/{machine.id}/revoke"
    summary = {"id": machine.id, "name": "runner-7", "cascade": {"projectMemberships": 2, "grants": 3}}
    assert agent.post(path, {"preview": True}) == {**summary, "preview": True}
    assert machine.read(secrets[0]).status == 200
    assert agent.post(path) == {**summary, "state": "revoked"}
    assert (agent.get(MACHINES), machine.read(secrets[0]).error) == ([], "unknown identity")
    assert agent.post(f"{PROJECTS}/{first}/machines/query")["machines"] == []
    assert agent.send("POST", path).status == 404
    assert [row["severity"] for row in vault.audited("machine_revoke")] == ["high"]


def test_a_rename_leaves_a_history(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    machine = pending_machine(vault)
    path = f"{MACHINES}/{machine.id}"
    assert agent.get(path + "/name-history") == []
    for name in ("web-2", "web-2", "web-3"):
        clock.advance(1)
        assert agent.post(path + "/rename", {"name": name}) == {"id": machine.id, "name": name}
    assert agent.get(path)["name"] == "web-3"
    assert agent.get(path + "/name-history") == [
        {"name": "web-2", "newName": "web-3", "changedAt": START_MS + 3000},
        {"name": "web-1", "newName": "web-2", "changedAt": START_MS + 1000},
    ]
    assert len(vault.audited("machine_rename")) == 2
    for body in ({}, {"name": ""}, {"name": "x" * 256}):
        assert agent.send("POST", path + "/rename", body).status == 400


def test_expired_machines_are_deleted_after_a_day(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    short, long = (enrolled_machine(vault, agent, [], machineLifetimeSeconds=life_s) for life_s in (60, 120))
    clock.advance(60 + DAY_S - 1)
    run_job(machines.remove_expired, vault.store, clock())
    assert set(ids(agent)) == {short.id, long.id}
    clock.advance(1)
    run_job(machines.remove_expired, vault.store, clock())
    assert ids(agent) == [long.id]
    assert [row["actor_kind"] for row in vault.audited("machine_expire")] == ["system"]


def test_an_unknown_machine_is_not_found_and_looks_forbidden_to_a_restricted_agent(vault: Vault, agent: Agent) -> None:
    narrow = vault.agent(projects=[agent.project("narrow")])
    other = enrolled_machine(vault, agent, [agent.secret(agent.project("other"), "v")])
    unknown = "11111111-2222-3333-4444-555555555555"
    for method, tail, body in [
        ("GET", "", None),
        ("POST", "/approve", None),
        ("POST", "/deny", None),
        ("POST", "/revoke", None),
        ("POST", "/rename", {"name": "x"}),
        ("GET", "/name-history", None),
    ]:
        assert agent.send(method, f"{MACHINES}/{unknown}{tail}", body).error == "no such machine", tail
        replies = [narrow.send(method, f"{MACHINES}/{each}{tail}", body) for each in (unknown, other.id)]
        assert [reply.status for reply in replies] == [403, 403], tail
        assert replies[0].json == replies[1].json, tail
        assert ids(agent) == [other.id], tail


def test_a_restricted_agent_manages_only_machines_of_its_projects(vault: Vault, agent: Agent) -> None:
    own, foreign = agent.project("own"), agent.project("foreign")
    narrow = vault.agent(projects=[own])
    shared = enrolled_machine(vault, agent, [agent.secret(own, "1"), agent.secret(foreign, "2")])
    local = enrolled_machine(vault, agent, [agent.secret(own, "3")])
    pending_machine(vault)
    assert set(ids(narrow)) == {shared.id, local.id}
    assert [each["projectId"] for each in narrow.get(f"{MACHINES}/{shared.id}")["projects"]] == [own]
    assert narrow.get(f"{MACHINES}/{shared.id}")["grantCount"] == 1
    for tail, body in (("revoke", None), ("revoke", {"preview": True}), ("rename", {"name": "x"}), ("approve", None)):
        reply = narrow.send("POST", f"{MACHINES}/{shared.id}/{tail}", body)
        assert (reply.status, "not on the agent's allowlist" in reply.error) == (403, True)
    assert narrow.post(f"{MACHINES}/{local.id}/revoke")["state"] == "revoked"


def member(machine: Machine, **changed: Any) -> dict[str, Any]:
    plain = {"name": "web-1", "kind": "standard", "state": "pending", "hostname": "web-1.example"}
    return {"id": machine.id, **plain, "addedAt": START_MS, "secretCount": 0, **changed}


def test_a_project_lists_its_machines_searched_sorted_and_paged(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id, other = agent.project(), agent.project("other")
    base = f"{PROJECTS}/{project_id}/machines"
    secret = agent.secret(project_id, "v").rpartition("/")[2]
    alpha, beta, gamma = (
        pending_machine(vault, name, hostname=f"{name}.example") for name in ("beta", "Alpha", "gamma")
    )
    alpha, beta = beta, alpha
    for machine in (beta, gamma, alpha):
        agent.post(base, {"machineId": machine.id})
        clock.advance(1)
    agent.post(f"{PROJECTS}/{other}/machines", {"machineId": pending_machine(vault, "elsewhere").id})
    agent.post(f"{base}/{gamma.id}/grants", {"secretIds": [secret]})
    rows = {
        "Alpha": member(alpha, name="Alpha", hostname="Alpha.example", addedAt=START_MS + 2000),
        "beta": member(beta, name="beta", hostname="beta.example"),
        "gamma": member(gamma, name="gamma", hostname="gamma.example", addedAt=START_MS + 1000, secretCount=1),
    }
    page = agent.post(f"{base}/query", {})
    assert page == {"machines": [rows["Alpha"], rows["beta"], rows["gamma"]], "total": 3, "page": 1, "pageSize": 50}
    for filters, names in (
        ({"sortDir": "desc"}, ["gamma", "beta", "Alpha"]),
        ({"sortBy": "added"}, ["beta", "gamma", "Alpha"]),
        ({"sortBy": "added", "sortDir": "desc"}, ["Alpha", "gamma", "beta"]),
        ({"sortBy": "secretCount", "sortDir": "desc", "pageSize": 1}, ["gamma"]),
        ({"pageSize": 2, "page": 2}, ["gamma"]),
        ({"search": "ALPHA.ex"}, ["Alpha"]),
        ({"search": "%"}, []),
    ):
        assert [row["name"] for row in agent.post(f"{base}/query", filters)["machines"]] == names, filters
    assert agent.post(f"{base}/query", {"search": "a.example", "pageSize": 1})["total"] == 3
    for wrong in ({"sortBy": "id"}, {"page": 0}, {"pageSize": 0}, {"pageSize": 201}, {"sortDir": "up"}):
        assert agent.send("POST", f"{base}/query", wrong).status == 400


def test_attach_makes_a_member_and_detach_drops_its_grants_here_only(vault: Vault, agent: Agent) -> None:
    here, there = agent.project("here"), agent.project("there")
    secrets = {project: agent.secret(project, "v") for project in (here, there)}
    machine = enrolled_machine(vault, agent, [secrets[there]])
    base = f"{PROJECTS}/{here}/machines"
    done = {"projectId": here, "machineId": machine.id, "name": "runner-7"}
    assert agent.post(base, {"machineId": machine.id}) == done
    again = agent.send("POST", base, {"machineId": machine.id})
    assert (again.status, again.error) == (409, "the machine is already in the project")
    granted = secrets[here].rpartition("/")[2]
    agent.post(f"{base}/{machine.id}/grants", {"secretIds": [granted]})
    assert [machine.read(path).status for path in secrets.values()] == [200, 200]
    assert agent.post(f"{base}/{machine.id}/detach") == {**done, "grantsRemoved": 1}
    assert [machine.read(path).status for path in secrets.values()] == [403, 200]
    assert [each["projectId"] for each in agent.get(f"{MACHINES}/{machine.id}")["projects"]] == [there]
    agent.post(base, {"machineId": machine.id})
    assert machine.read(secrets[here]).error == "the machine has no grant for the secret"
    assert [row["project_id"] for row in vault.audited("project_machine_remove")] == [here]


def test_grants_are_replaced_and_ids_of_other_projects_ignored(vault: Vault, agent: Agent) -> None:
    here, there = agent.project("here"), agent.project("there")
    paths = [agent.secret(here, "1"), agent.secret(here, "2"), agent.secret(here, "3")]
    one, two, trashed = (path.rpartition("/")[2] for path in paths)
    foreign = agent.secret(there, "4").rpartition("/")[2]
    machine = enrolled_machine(vault, agent, [paths[0]])
    base = f"{PROJECTS}/{here}/machines/{machine.id}"
    agent.post(f"{PROJECTS}/{there}/machines", {"machineId": machine.id})
    agent.post(paths[2] + "/delete")
    wanted = [two, two, foreign, trashed, "sk_unknown"]
    assert agent.post(f"{base}/grants", {"secretIds": wanted}) == {
        "projectId": here,
        "machineId": machine.id,
        "secretIds": [two],
    }
    assert agent.get(f"{base}/secrets") == [{"id": two, "name": "db", "grantedAt": START_MS}]
    assert [machine.read(each).status for each in (one, two, foreign)] == [403, 200, 403]
    assert [row["secret_id"] for row in vault.audited("permission_grant")] == [one, two]
    assert [row["secret_id"] for row in vault.audited("permission_revoke")] == [one]
    agent.post(f"{base}/grants", {"secretIds": [two]})
    assert len(vault.audited("permission_grant")) == 2
    assert agent.post(f"{base}/grants", {"secretIds": []})["secretIds"] == []
    assert (agent.get(f"{base}/secrets"), machine.read(two).status) == ([], 403)


def test_a_grant_for_a_deleted_secret_is_inactive_until_replaced(vault: Vault, agent: Agent) -> None:
    path = agent.secret(agent.project(), "v")
    secret_id, project_id = path.rpartition("/")[2], path.split("/")[4]
    machine = enrolled_machine(vault, agent, [path])
    base = f"{PROJECTS}/{project_id}/machines/{machine.id}"
    agent.post(path + "/delete")
    assert (machine.read(path).status, agent.get(f"{base}/secrets")) == (404, [])
    agent.post(f"/v1/ai/trash/{secret_id}/restore")
    assert machine.read(path).status == 200
    agent.post(path + "/delete")
    agent.post(f"{base}/grants", {"secretIds": []})
    agent.post(f"/v1/ai/trash/{secret_id}/restore")
    assert machine.read(path).status == 403


def test_a_machine_outside_the_project_is_not_found(vault: Vault, agent: Agent) -> None:
    base, machine = f"{PROJECTS}/{agent.project()}/machines", pending_machine(vault)
    nothing: dict[str, Any] = {"secretIds": []}
    for method, tail, body in (("POST", "detach", None), ("GET", "secrets", None), ("POST", "grants", nothing)):
        for machine_id in (machine.id, "unknown"):
            reply = agent.send(method, f"{base}/{machine_id}/{tail}", body)
            assert (reply.status, reply.error) == (404, "no such machine in the project")
    assert agent.send("POST", base, {"machineId": "unknown"}).error == "no such machine"
    assert agent.send("POST", base, {}).error == "machineId is required"


def test_a_restricted_agent_attaches_only_visible_machines(vault: Vault, agent: Agent) -> None:
    first, second, foreign = (agent.project(name) for name in ("first", "second", "foreign"))
    narrow = vault.agent(projects=[first, second])
    seen, unseen = (enrolled_machine(vault, agent, [agent.secret(each, "v")]) for each in (first, foreign))
    assert narrow.post(f"{PROJECTS}/{second}/machines", {"machineId": seen.id})["machineId"] == seen.id
    for machine_id in (unseen.id, pending_machine(vault).id, "unknown"):
        reply = narrow.send("POST", f"{PROJECTS}/{second}/machines", {"machineId": machine_id})
        assert (reply.status, reply.error) == (403, "the machine is not in a project on the agent's allowlist")
    assert narrow.send("POST", f"{PROJECTS}/{foreign}/machines", {"machineId": seen.id}).status == 403
    assert [row["id"] for row in narrow.post(f"{PROJECTS}/{second}/machines/query")["machines"]] == [seen.id]


def test_a_deleted_project_deletes_memberships_and_grants(vault: Vault, agent: Agent) -> None:
    secret = agent.secret(agent.project(), "v")
    machine, project_id = enrolled_machine(vault, agent, [secret]), secret.split("/")[4]
    cascade = agent.post(f"{PROJECTS}/{project_id}/delete", {"confirmName": "Demo"})["cascade"]
    assert [cascade[key] for key in ("machineMemberships", "grants", "enrollmentTokens")] == [1, 1, 1]
    shown = agent.get(f"{MACHINES}/{machine.id}")
    assert (shown["projects"], shown["grantCount"], machine.get("/v1/secrets")) == ([], 0, {"secrets": []})
