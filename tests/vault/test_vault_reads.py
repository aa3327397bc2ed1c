"""Reads of metadata by agents are audited, once a minute: the agent, the route, the ids and how often."""

from __future__ import annotations

import json

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import Agent, FakeClock, Vault, run_job
from vault import reads


def recorded(vault: Vault, clock: FakeClock) -> list[tuple[str, str, str | None, str | None]]:
    """The entries after the minute is over: agent, detail, project and secret."""
    clock.advance(60)
    run_job(reads.record_due, vault.store, clock())
    entries = vault.audited("metadata_read")
    return [(row["agent_id"], row["detail"], row["project_id"], row["secret_id"]) for row in entries]


def test_what_an_agent_looked_at_is_one_entry_a_minute_with_ids_and_counts(
    vault: Vault, agent: Agent, clock: FakeClock
) -> None:
    project_id = agent.project()
    paths = [agent.secret(project_id, "x"), agent.secret(project_id, "y")]
    for path in (paths[0], paths[1], paths[0]):
        agent.get(path)
    for _ in range(3):
        agent.get(f"/v1/ai/projects/{project_id}/secrets")
    run_job(reads.record_due, vault.store, clock())
    assert vault.audited("metadata_read") == []  # the minute is not over
    first, second = sorted([(paths[0].rpartition("/")[2], 2), (paths[1].rpartition("/")[2], 1)])
    minute = "in the minute from 2026-01-01 00:00Z"
    route = "GET /v1/ai/projects/{projectId}/secrets"
    detail = f"{route}/{{secretId}}: 3 {minute}; {first[0]} {first[1]}, {second[0]} {second[1]}"
    expected = [
        (agent.id, f"{route}: 3 {minute}", project_id, None),
        (agent.id, detail, project_id, None),
    ]
    assert recorded(vault, clock) == expected
    agent.get(paths[0])
    assert recorded(vault, clock)[2:] == [
        (
            agent.id,
            f"{route}/{{secretId}}: 1 in the minute from 2026-01-01 00:01Z; {paths[0].rpartition('/')[2]} 1",
            project_id,
            paths[0].rpartition("/")[2],
        )
    ]


def test_every_request_that_changes_nothing_counts_and_no_other(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    agent.get("/v1/ai/whoami")
    agent.post("/v1/ai/audit/query", {"search": "x"})
    agent.get("/v1/ai/trash")
    agent.send("GET", "/v1/ai/audit/export")
    agent.post(f"/v1/ai/projects/{project_id}/update", {"name": "new"})
    agent.send("GET", "/v1/ai/projects/proj_unknown/secrets")  # refused
    routes = {detail.partition(":")[0] for _, detail, _, _ in recorded(vault, clock)}
    assert routes >= {"GET /v1/ai/whoami", "POST /v1/ai/audit/query", "GET /v1/ai/trash"}
    assert not {route for route in routes if "update" in route or "{projectId}" in route}


def test_many_ids_make_more_entries_and_none_is_left_out(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    paths = [agent.secret(project_id, "x") for _ in range(reads.IDS_PER_ENTRY + 1)]
    for path in paths:
        agent.get(path)
    details = [detail for _, detail, _, _ in recorded(vault, clock)]
    assert len(details) == 2
    assert all(path.rpartition("/")[2] in "".join(details) for path in paths)


def test_the_owner_sees_the_running_minute_and_a_restart_loses_nothing(vault: Vault, agent: Agent) -> None:
    agent.get("/v1/ai/projects")
    vault.close()
    vault.open()
    entries = json.loads(run_command(vault.directory, "audit", "--action", "metadata_read", "--json")[1])
    assert [(entry["aiAgentId"], entry["detail"].partition(":")[0]) for entry in entries] == [
        (agent.id, "GET /v1/ai/projects")
    ]
    assert len(json.loads(run_command(vault.directory, "audit", "--action", "metadata_read", "--json")[1])) == 1
