"""The team: every action and its effect, the owner's commands, and permissions in projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault.domains import team
from vault.errors import VaultError

TEAM = "/v1/ai/team"
WEEK_S = 7 * 24 * 3600
RIGHTS = ["machines.view", "machines.add", "machines.remove", "machines.configure"]


def invited(agent: Agent, email: str = "anna@example.com") -> str:
    return str(agent.post(f"{TEAM}/invites", {"email": email})["inviteId"])


def joined(vault: Vault, agent: Agent, email: str = "anna@example.com") -> str:
    """The id of a new member."""
    invite_id = invited(agent, email)
    with vault.store.transaction() as db:
        return str(team.accept(db, vault.clock(), invite_id)["memberId"])


def states(vault: Vault) -> list[Any]:
    with vault.store.transaction() as db:
        return [row["state"] for row in team.overview(db, vault.clock())]


def owner_of(agent: Agent, project_id: str) -> Mapping[str, Any]:
    found: list[Mapping[str, Any]] = agent.get(f"/v1/ai/projects/{project_id}/permissions")
    return found[0]


def test_an_invitation_lives_seven_days(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    reply = agent.send("POST", f"{TEAM}/invites", {"email": "Anna@Example.com"})
    invite = {"inviteId": reply.json["inviteId"], "email": "anna@example.com", "state": "pending"}
    invite["expiresAt"] = START_MS + WEEK_S * 1000
    assert (reply.status, reply.json) == (201, invite)
    assert agent.get(TEAM) == {"members": [], "invites": [{**invite, "createdAt": START_MS}]}
    assert [row["severity"] for row in vault.audited("team_invite")] == ["high"]
    clock.advance(WEEK_S)
    assert agent.get(TEAM) == {"members": [], "invites": []}
    with vault.store.transaction() as db, pytest.raises(VaultError, match="the invitation is expired"):
        team.accept(db, vault.clock(), invite["inviteId"])
    invited(agent)
    assert states(vault) == ["expired", "pending"]


def test_an_invalid_email_is_refused(agent: Agent) -> None:
    for email in ["anna", "anna@", "@example.com", "a b@example.com", "anna@example", "a@b@c.dk", ""]:
        reply = agent.send("POST", f"{TEAM}/invites", {"email": email})
        assert (reply.status, reply.error.split(" ")[0]) == (400, "email"), email
        assert agent.get(TEAM)["invites"] == [], email


@pytest.mark.parametrize("email", ["anna+vault@mail.example.com", "søren@bøf.dk", "a@b.co"])
def test_common_email_formats_are_accepted(agent: Agent, email: str) -> None:
    assert agent.send("POST", f"{TEAM}/invites", {"email": email}).status == 201


def test_members_and_invitees_cannot_be_invited_again(vault: Vault, agent: Agent) -> None:
    with vault.store.transaction() as db:
        assert team.set_owner_email(db, START_MS, "Owner@Example.com") == "owner@example.com"
    joined(vault, agent)
    invited(agent, "bo@example.com")
    for email, error in (
        ("OWNER@example.com", "email is the owner's own"),
        ("ANNA@example.com", "email belongs to a member of the team"),
        ("Bo@Example.com", "email is already invited"),
    ):
        reply = agent.send("POST", f"{TEAM}/invites", {"email": email})
        assert (reply.status, reply.error) == (409, error)
    assert len(vault.audited("team_invite")) == 2


def test_a_cancelled_invitation_cannot_be_accepted(vault: Vault, agent: Agent) -> None:
    invite_id = invited(agent)
    cancelled = {"inviteId": invite_id, "email": "anna@example.com", "state": "cancelled"}
    assert agent.post(f"{TEAM}/invites/{invite_id}/cancel") == cancelled
    assert agent.get(TEAM)["invites"] == []
    reply = agent.send("POST", f"{TEAM}/invites/{invite_id}/cancel")
    assert (reply.status, reply.error) == (409, "the invitation is cancelled")
    assert agent.send("POST", f"{TEAM}/invites/inv_nowhere/cancel").status == 404
    with vault.store.transaction() as db, pytest.raises(VaultError, match="the invitation is cancelled"):
        team.accept(db, START_MS, invite_id)
    assert len(vault.audited("team_invite_cancel")) == 1


def test_the_owner_cannot_become_a_member(vault: Vault, agent: Agent) -> None:
    invite_id = invited(agent)
    with vault.store.transaction() as db:
        team.set_owner_email(db, START_MS, "anna@example.com")
        with pytest.raises(VaultError, match="the invitation is for the owner's own address"):
            team.accept(db, START_MS, invite_id)


def test_an_accepted_invitation_makes_a_member(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    invite_id = invited(agent)
    clock.advance(5)
    with vault.store.transaction() as db:
        accepted = team.accept(db, vault.clock(), invite_id)
    member = {**accepted, "projectCount": 0, "joinedAt": START_MS + 5000}
    assert accepted["email"] == "anna@example.com"
    assert agent.get(TEAM) == {"members": [member], "invites": []}
    assert agent.send("POST", f"{TEAM}/invites/{invite_id}/cancel").status == 409
    for answer in (team.accept, team.decline):
        with vault.store.transaction() as db, pytest.raises(VaultError, match="the invitation is accepted"):
            answer(db, vault.clock(), invite_id)
    assert [row["actor_kind"] for row in vault.audited("team_invite_accept")] == ["user"]


def test_a_declined_invitation_can_be_repeated(vault: Vault, agent: Agent) -> None:
    invite_id = invited(agent)
    with vault.store.transaction() as db:
        declined = team.decline(db, START_MS, invite_id)
        with pytest.raises(VaultError, match="there is no invitation inv_nowhere"):
            team.decline(db, START_MS, "inv_nowhere")
    assert declined == {"inviteId": invite_id, "email": "anna@example.com", "state": "declined"}
    assert agent.get(TEAM) == {"members": [], "invites": []}
    invited(agent)
    assert states(vault) == ["declined", "pending"]


def test_permissions_are_set_replaced_and_listed(vault: Vault, agent: Agent) -> None:
    member_id, project_id = joined(vault, agent), agent.project()
    path = f"/v1/ai/projects/{project_id}/permissions"
    owner = {"memberId": "owner", "email": None, "role": "owner", "permissions": RIGHTS}
    assert agent.get(path) == [owner]
    for given, kept in (
        (["machines.add", "machines.view", "machines.add"], ["machines.view", "machines.add"]),
        ([], []),
    ):
        reply = agent.post(path, {"memberId": member_id, "permissions": given})
        assert reply == {"projectId": project_id, "memberId": member_id, "permissions": kept}
        member = {"memberId": member_id, "email": "anna@example.com", "role": "member", "permissions": kept}
        assert agent.get(path) == [owner, member]
        on_project = {"projectId": project_id, "projectName": "Demo", "permissions": kept}
        assert agent.get(f"{TEAM}/{member_id}/permissions") == [on_project]
    assert agent.get(TEAM)["members"][0]["projectCount"] == 1
    assert [row["project_id"] for row in vault.audited("team_permission_set")] == [project_id] * 2
    cascade = agent.post(f"/v1/ai/projects/{project_id}/delete", {"preview": True})["cascade"]
    assert cascade["teamPermissions"] == 1


def test_a_member_is_removed_from_one_project(vault: Vault, agent: Agent) -> None:
    member_id, first, second = joined(vault, agent), agent.project("first"), agent.project("second")
    for project_id in (first, second):
        agent.post(f"/v1/ai/projects/{project_id}/permissions", {"memberId": member_id, "permissions": RIGHTS})
    path = f"/v1/ai/projects/{first}/permissions/{member_id}/delete"
    assert agent.post(path) == {"projectId": first, "memberId": member_id, "removed": True}
    assert [row["projectId"] for row in agent.get(f"{TEAM}/{member_id}/permissions")] == [second]
    assert len(agent.get(f"/v1/ai/projects/{first}/permissions")) == 1
    reply = agent.send("POST", path)
    assert (reply.status, reply.error) == (404, "the member is not on the project")
    assert len(vault.audited("team_permission_remove")) == 1


def test_a_removed_member_loses_everything(vault: Vault, agent: Agent) -> None:
    member_id, project_id = joined(vault, agent), agent.project()
    agent.post(f"/v1/ai/projects/{project_id}/permissions", {"memberId": member_id, "permissions": RIGHTS})
    gone = {"memberId": member_id, "email": "anna@example.com", "removed": True, "projectCount": 1}
    assert agent.post(f"{TEAM}/{member_id}/remove") == gone
    assert agent.get(TEAM) == {"members": [], "invites": []}
    assert len(agent.get(f"/v1/ai/projects/{project_id}/permissions")) == 1
    assert agent.send("GET", f"{TEAM}/{member_id}/permissions").status == 404
    assert [row["severity"] for row in vault.audited("team_member_remove")] == ["high"]
    assert joined(vault, agent) != member_id


def test_unknown_members_and_permissions_are_refused(agent: Agent) -> None:
    project_id = agent.project()
    path = f"/v1/ai/projects/{project_id}/permissions"
    for method, where, body, status in (
        ("POST", f"{TEAM}/mem_nowhere/remove", None, 404),
        ("GET", f"{TEAM}/mem_nowhere/permissions", None, 404),
        ("POST", path, {"memberId": "mem_nowhere", "permissions": []}, 404),
        ("POST", path + "/mem_nowhere/delete", None, 404),
        ("POST", f"{TEAM}/owner/remove", None, 409),
        ("POST", path, {"memberId": "owner", "permissions": []}, 409),
        ("POST", path, {"memberId": "mem_nowhere", "permissions": ["secrets.read"]}, 400),
        ("POST", path, {"memberId": "mem_nowhere"}, 400),
        ("POST", path.replace(project_id, "proj_nowhere"), {"memberId": "m", "permissions": []}, 404),
        ("GET", path.replace(project_id, "proj_nowhere"), None, 404),
    ):
        assert agent.send(method, where, body).status == status, (where, body)


def test_a_restricted_agent_manages_only_its_projects(vault: Vault, agent: Agent) -> None:
    member_id, own, foreign = joined(vault, agent), agent.project("own"), agent.project("foreign")
    for project_id in (own, foreign):
        agent.post(f"/v1/ai/projects/{project_id}/permissions", {"memberId": member_id, "permissions": []})
    restricted = vault.agent(projects=[own])
    for method, where, body in (
        ("GET", TEAM, None),
        ("POST", f"{TEAM}/invites", {"email": "bo@example.com"}),
        ("POST", f"{TEAM}/invites/inv_nowhere/cancel", None),
        ("POST", f"{TEAM}/{member_id}/remove", None),
        ("GET", f"/v1/ai/projects/{foreign}/permissions", None),
        ("POST", f"/v1/ai/projects/{foreign}/permissions", {"memberId": member_id, "permissions": RIGHTS}),
        ("POST", f"/v1/ai/projects/{foreign}/permissions/{member_id}/delete", None),
    ):
        assert restricted.send(method, where, body).status == 403, where
    assert [row["projectId"] for row in restricted.get(f"{TEAM}/{member_id}/permissions")] == [own]
    restricted.post(f"/v1/ai/projects/{own}/permissions/{member_id}/delete")
    assert [row["projectId"] for row in agent.get(f"{TEAM}/{member_id}/permissions")] == [foreign]


def test_the_owner_has_an_address_once_it_is_set(vault: Vault, agent: Agent) -> None:
    joined(vault, agent)
    with vault.store.transaction() as db:
        team.set_owner_email(db, START_MS, "first@example.com")
        team.set_owner_email(db, START_MS, "owner@example.com")
        with pytest.raises(VaultError, match=r"anna@example\.com is a member of the team"):
            team.set_owner_email(db, START_MS, "anna@example.com")
        with pytest.raises(VaultError, match="nobody is not an e-mail address"):
            team.set_owner_email(db, START_MS, "nobody")
    assert owner_of(agent, agent.project())["email"] == "owner@example.com"
