"""The trash: every action and its effect, and purging after thirty days."""

from __future__ import annotations

from typing import Any

from tests.vault.support.machines import granted_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault, disk, run_job
from vault.domains import trash

TRASH = "/v1/ai/trash"
DAY_MS = 24 * 3600 * 1000
COUNT = "SELECT (SELECT COUNT(*) FROM secrets), (SELECT COUNT(*) FROM secret_versions), (SELECT COUNT(*) FROM grants)"


def trashed(agent: Agent, project_id: str, value: str = "v") -> str:
    secret = agent.secret(project_id, value)
    agent.post(secret + "/delete")
    return secret.rpartition("/")[2]


def expected_json(secret_id: str, project_id: str, **changed: Any) -> dict[str, Any]:
    plain = {"name": "db", "type": "secret", "projectName": "Demo"}
    times = {"deletedAt": START_MS, "purgeAt": START_MS + 30 * DAY_MS}
    return {"id": secret_id, "projectId": project_id, **plain, **times, **changed}


def rows(vault: Vault) -> tuple[int, ...]:
    with vault.store.transaction() as db:
        return tuple(db.execute(COUNT).fetchone())


def test_the_trash_lists_what_was_deleted_latest_first(agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    assert agent.get(TRASH) == []
    first = trashed(agent, project_id)
    clock.advance(5)
    second = trashed(agent, project_id)
    later = {"deletedAt": START_MS + 5000, "purgeAt": START_MS + 5000 + 30 * DAY_MS}
    assert agent.get(TRASH) == [expected_json(second, project_id, **later), expected_json(first, project_id)]


def test_a_restored_secret_is_unchanged(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    secret = agent.secret(project_id, "v", note="n")
    before, machine = agent.get(secret), granted_machine(vault, secret)
    agent.post(secret + "/delete")
    assert machine.read(secret).status == 404
    secret_id = secret.rpartition("/")[2]
    reply = agent.post(f"{TRASH}/{secret_id}/restore")
    assert reply == {"id": secret_id, "name": "db", "projectId": project_id, "restored": True}
    assert agent.get(secret) == before
    assert agent.get(TRASH) == []
    assert machine.value(secret) == "v"
    assert [row["secret_id"] for row in vault.audited("secret_restore")] == [secret_id]


def test_nothing_is_restored_into_a_frozen_project(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    secret_id = trashed(agent, project_id)
    canary = agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait"})["id"]
    granted_machine(vault, canary).value(canary)
    reply = agent.send("POST", f"{TRASH}/{secret_id}/restore")
    assert (reply.status, reply.error) == (423, "the project is frozen: a canary was read; unfreeze it first")
    assert agent.get(TRASH) == [expected_json(secret_id, project_id)]
    agent.post(f"/v1/ai/projects/{project_id}/unfreeze")
    agent.post(f"{TRASH}/{secret_id}/restore")
    assert agent.get(TRASH) == []


def test_a_purge_deletes_every_version(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    secret = agent.secret(project_id, "v")
    granted_machine(vault, secret)
    agent.post(secret + "/rotate")
    agent.post(secret + "/delete")
    assert rows(vault) == (1, 2, 1)
    secret_id = secret.rpartition("/")[2]
    reply = agent.post(f"{TRASH}/{secret_id}/purge")
    assert reply == {"id": secret_id, "name": "db", "projectId": project_id, "purged": True}
    assert (agent.get(TRASH), rows(vault)) == ([], (0, 0, 0))
    assert agent.send("POST", f"{TRASH}/{secret_id}/restore").status == 404
    assert agent.send("GET", secret).status == 404
    [row] = vault.audited("secret_purge")
    assert (row["severity"], row["agent_id"], row["secret_id"]) == ("high", agent.id, secret_id)


def test_only_deleted_secrets_are_restored_or_purged(vault: Vault, agent: Agent) -> None:
    secret = agent.secret(agent.project(), "v")
    for secret_id in (secret.rpartition("/")[2], "sk_nowhere"):
        for tail in ("restore", "purge"):
            reply = agent.send("POST", f"{TRASH}/{secret_id}/{tail}")
            assert (reply.status, reply.error) == (404, "no such secret in the trash")
    assert rows(vault) == (1, 1, 0)


def test_a_deleted_project_leaves_nothing_in_the_trash(agent: Agent) -> None:
    project_id = agent.project()
    secret_id = trashed(agent, project_id)
    agent.post(f"/v1/ai/projects/{project_id}/delete", {"confirmName": "Demo"})
    assert agent.get(TRASH) == []
    assert agent.send("POST", f"{TRASH}/{secret_id}/restore").status == 404


def test_a_restricted_agent_manages_the_trash_of_its_projects(vault: Vault, agent: Agent) -> None:
    own, foreign = agent.project(), agent.project()
    mine, theirs = trashed(agent, own), trashed(agent, foreign)
    restricted = vault.agent(projects=[own])
    assert restricted.get(TRASH) == [expected_json(mine, own)]
    for tail in ("restore", "purge"):
        for secret_id in (theirs, "sk_nowhere"):
            assert restricted.send("POST", f"{TRASH}/{secret_id}/{tail}").status == 403
    restricted.post(f"{TRASH}/{mine}/purge")
    assert agent.get(TRASH) == [expected_json(theirs, foreign)]


def test_the_job_purges_after_thirty_days_and_not_before(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    first = trashed(agent, project_id)
    clock.advance(60)
    second, kept = trashed(agent, project_id), agent.secret(project_id, "kept")
    run_job(trash.purge_due, vault.store, START_MS + 30 * DAY_MS - 1)
    assert [row["id"] for row in agent.get(TRASH)] == [second, first]
    run_job(trash.purge_due, vault.store, START_MS + 30 * DAY_MS)
    assert [row["id"] for row in agent.get(TRASH)] == [second]
    [row] = vault.audited("secret_purge")
    assert (row["actor_kind"], row["secret_id"], row["created_ms"]) == ("system", first, START_MS + 30 * DAY_MS)
    assert agent.get(kept)["version"] == 1


def test_no_plaintext_is_on_disk_before_or_after_a_purge(vault: Vault, agent: Agent) -> None:
    secret_id = trashed(agent, agent.project(), "MARKED-7f3a")
    agent.post(f"{TRASH}/{secret_id}/purge")
    assert b"MARKED-7f3a" not in disk(vault.directory)
