"""The project and the secret of every audit entry."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.vault.support.machines import TOKENS, enroll, granted_machine, pending_machine, token_body
from tests.vault.support.served_vault import Agent, FakeClock, Vault, exchange, run_job
from vault import audit
from vault.domains import schedules, team, temporary_secrets, trash

DAY_S = 24 * 3600
FORM = [("Content-Type", "application/x-www-form-urlencoded")]

# fmt: off
NAMES_SECRET = {
    "canary_config", "canary_create", "canary_disable", "canary_enable", "canary_triggered", "dynamic_secret_create",
    "dynamic_secret_delete", "dynamic_secret_update", "permission_grant", "permission_revoke", "policy_bind",
    "policy_unbind", "secret_create", "secret_delete", "secret_note_update", "secret_purge", "secret_read",
    "secret_read_denied", "secret_rename", "secret_restore", "secret_rollback", "secret_rotate",
    "secret_rotate_denied", "secret_update",
}
NAMES_PROJECT = NAMES_SECRET | {
    "policy_create", "policy_delete", "policy_update", "project_create", "project_delete", "project_freeze",
    "project_machine_add", "project_machine_remove", "project_unfreeze", "project_update", "team_permission_remove",
    "team_permission_set", "temporary_secret_create", "temporary_secret_destroy", "temporary_secret_expire",
    "temporary_secret_view",
}
# fmt: on


def test_every_entry_names_its_project_and_its_secret(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    agent.project("first")  # the ids must not be those of the first rows
    project_id = agent.project("second")
    project = f"/v1/ai/projects/{project_id}"
    agent.post(project + "/update", {"description": "d"})
    ids = {
        *use_secrets(vault, agent, project_id, clock),
        *use_policies(vault, agent, project_id),
        *use_canaries(vault, agent, project_id),
    }
    use_machines(vault, agent, project_id)
    use_team(vault, agent, project)
    use_temporary_secrets(vault, agent, project, clock)
    agent.post(project + "/delete", {"confirmName": "second"})

    with vault.store.transaction() as db:
        rows = db.execute("SELECT * FROM audit ORDER BY id").fetchall()
    own = [row for row in rows if not row["detail"].endswith(" as first")]
    for row in own:
        names_project, names_secret = row["action"] in NAMES_PROJECT, row["action"] in NAMES_SECRET
        assert row["project_id"] == (project_id if names_project else None), (row["action"], row["detail"])
        assert (row["secret_id"] in ids) is names_secret, (row["action"], row["detail"])
        assert names_secret or row["secret_id"] is None, row["action"]
    assert {row["action"] for row in own} >= NAMES_PROJECT
    assert set(audit.ACTIONS) >= NAMES_PROJECT


def use_secrets(vault: Vault, agent: Agent, project_id: str, clock: FakeClock) -> list[str]:
    """Write, rotate, schedule, delete, restore and purge secrets."""
    path = agent.secret(project_id, "value")
    secret_id = path.rpartition("/")[2]
    for tail, body in (
        ("/update", {"value": "other"}),
        ("/name", {"name": "renamed"}),
        ("/note", {"note": "n"}),
        ("/rotate", None),
        ("/rollback", {"version": 1}),
        ("/delete", None),
    ):
        agent.post(path + tail, body)
    agent.post(f"/v1/ai/trash/{secret_id}/restore")
    schedule = {"secretId": secret_id, "intervalSeconds": 300}
    agent.post("/v1/ai/dynamic-secrets", schedule)
    clock.advance(300)
    run_job(schedules.rotate_due, vault.store, clock())
    agent.post(f"/v1/ai/dynamic-secrets/{secret_id}/update", {"enabled": False})
    agent.post(f"/v1/ai/dynamic-secrets/{secret_id}/delete")
    agent.post(path + "/delete")
    agent.post(f"/v1/ai/trash/{secret_id}/purge")
    old = agent.secret(project_id, "value")
    agent.post(old + "/delete")
    clock.advance(30 * DAY_S)
    run_job(trash.purge_due, vault.store, clock())
    return [secret_id, old.rpartition("/")[2], too_large_to_rotate(vault, agent, project_id, clock)]


def too_large_to_rotate(vault: Vault, agent: Agent, project_id: str, clock: FakeClock) -> str:
    """A secret whose rotation fails, once on schedule and once after a read."""
    names = [f"f{number}" for number in range(50)]
    value = "{" + ",".join(f'"{name}":""' for name in names) + "}"
    path = agent.secret(project_id, value, fieldNames=names)
    secret_id = path.rpartition("/")[2]
    agent.post("/v1/ai/dynamic-secrets", {"secretId": secret_id, "intervalSeconds": 300})
    with vault.store.transaction() as db:  # no route accepts such options
        db.execute("UPDATE rotation_schedules SET length = 1024")
    clock.advance(300)
    run_job(schedules.rotate_due, vault.store, clock())
    policy = agent.post(f"/v1/ai/projects/{project_id}/policies", {"name": "rotating", "rotateAfterReads": 1})
    agent.post(f"/v1/ai/secrets/{secret_id}/binding", {"policyId": policy["id"]})
    granted_machine(vault, path).value(path)
    assert len(vault.audited("secret_rotate_denied")) == 2
    return secret_id


def use_policies(vault: Vault, agent: Agent, project_id: str) -> list[str]:
    """Bind and unbind a policy, and let a machine read until the policy refuses."""
    path, base = agent.secret(project_id, "value"), f"/v1/ai/projects/{project_id}/policies"
    secret_id = path.rpartition("/")[2]
    policy_id = agent.post(base, {"name": "p", "ttlMaxReads": 1})["id"]
    agent.post(f"{base}/{policy_id}/update", {"rotateAfterReads": 1})
    agent.post(f"/v1/ai/secrets/{secret_id}/binding", {"policyId": policy_id})
    machine = granted_machine(vault, path)
    assert [machine.read(path).status for _ in range(2)] == [200, 403]
    machine.post("/v1/secrets/export")
    assert len(vault.audited("secret_read_denied")) == 2
    agent.post(f"/v1/ai/secrets/{secret_id}/binding/delete")
    agent.post(f"{base}/{policy_id}/delete")
    return [secret_id]


def use_canaries(vault: Vault, agent: Agent, project_id: str) -> list[str]:
    """Trigger a canary, and unfreeze the project."""
    canary_id = str(agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait"})["id"])
    agent.post(f"/v1/ai/canaries/{canary_id}/config", {"triggerFreezeProject": True})
    agent.post(f"/v1/ai/canaries/{canary_id}/disable")
    agent.post(f"/v1/ai/canaries/{canary_id}/enable")
    granted_machine(vault, canary_id).value(canary_id)
    agent.post(f"/v1/ai/projects/{project_id}/unfreeze")
    return [canary_id]


def use_machines(vault: Vault, agent: Agent, project_id: str) -> None:
    """Attach, grant, revoke and detach a machine, and enroll another one."""
    machine = pending_machine(vault)
    base = f"/v1/ai/projects/{project_id}/machines"
    agent.post(base, {"machineId": machine.id})
    [secret] = [row["id"] for row in agent.get(f"/v1/ai/projects/{project_id}/secrets") if row["name"] == "bait"]
    for granted in ([secret], []):
        agent.post(f"{base}/{machine.id}/grants", {"secretIds": granted})
    agent.post(f"{base}/{machine.id}/detach")
    token = agent.post(TOKENS, token_body(projectIds=[project_id]))["token"]
    assert enroll(vault, token).status == 200


def use_team(vault: Vault, agent: Agent, project: str) -> None:
    """Add a member to the project, and remove it."""
    invite_id = agent.post("/v1/ai/team/invites", {"email": "anna@example.com"})["inviteId"]
    with vault.store.transaction() as db:
        member_id = team.accept(db, vault.clock(), invite_id)["memberId"]
    agent.post(project + "/permissions", {"memberId": member_id, "permissions": []})
    agent.post(f"{project}/permissions/{member_id}/delete")


def use_temporary_secrets(vault: Vault, agent: Agent, project: str, clock: FakeClock) -> None:
    """View one link, destroy one and let one expire."""
    body: dict[str, Any] = {"name": "t", "value": "v", "expiresInSeconds": 60}
    links = [agent.post(project + "/temporary-secrets", body) for _ in range(3)]
    for link, passphrase in ((links[0], links[0]["passphrase"]), (links[1], "wrong")):
        exchange(vault.port, "POST", f"/s/{link['token']}", f"passphrase={quote(passphrase)}".encode(), FORM)
    clock.advance(60)
    run_job(temporary_secrets.expire_due, vault.store, clock())
