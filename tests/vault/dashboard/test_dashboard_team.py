"""The dashboard's pages about the team."""

from __future__ import annotations

import re

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import by_owner
from tests.vault.support.pages import HOSTILE, is_harmless, message, ticked
from tests.vault.support.served_vault import Agent, Vault
from vault.dashboard.pages import team as pages
from vault.dashboard.queries.listings import PAGE_SIZE
from vault.domains import team


def invited(agent: Agent, email: str = "ada@example.com") -> str:
    return str(agent.post("/v1/ai/team/invites", {"email": email})["inviteId"])


def member(vault: Vault, agent: Agent, email: str = "ada@example.com") -> str:
    invite_id = invited(agent, email)
    with vault.store.transaction() as db:
        return str(team.accept(db, vault.clock(), invite_id)["memberId"])


def rights(agent: Agent, member_id: str) -> dict[str, list[str]]:
    found = agent.get(f"/v1/ai/team/{member_id}/permissions")
    return {each["projectName"]: each["permissions"] for each in found}


def test_every_right_has_words() -> None:
    assert tuple(pages.RIGHTS) == team.PERMISSIONS


def test_a_person_is_invited_and_joins(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    assert "No members yet" in signed_in.text("/team")
    assert signed_in.post("/team/invite", {"email": "Ada@Example.com "}) == "/team"
    page = signed_in.text("/team")
    assert message(page) == "Invited ada@example.com. The invitation expires after 7 days."
    found = re.search(r"/team/invites/(inv_\w+)/accept", page)
    assert found
    path = signed_in.post(f"/team/invites/{found[1]}/accept")
    assert re.fullmatch(r"/team/mem_\w+", path)
    assert "ada@example.com" in signed_in.text(path)
    assert len(by_owner(vault, "team_invite")) == len(by_owner(vault, "team_invite_accept")) == 1
    assert agent.get("/v1/ai/team")["members"][0]["email"] == "ada@example.com"


def test_invitations_are_declined_and_cancelled(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    first, second = invited(agent), invited(agent, "grace@example.com")
    assert signed_in.post(f"/team/invites/{first}/decline") == "/team"
    assert message(signed_in.text("/team")) == "Declined the invitation of ada@example.com."
    assert signed_in.post(f"/team/invites/{second}/cancel") == "/team"
    page = signed_in.text("/team")
    assert (">declined<" in page, ">cancelled<" in page) == (True, True)
    assert len(by_owner(vault, "team_invite_decline")) == len(by_owner(vault, "team_invite_cancel")) == 1
    for done in ("accept", "decline", "cancel"):
        assert signed_in.refused(f"/team/invites/{first}/{done}")[0] == 409, done


def test_refused_addresses_stay_in_their_form(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    member(vault, agent)
    for path, email, problem in (
        ("/team/invite", "ada", "Email must be an e-mail address."),
        ("/team/invite", "ada@example.com", "Email belongs to a member of the team."),
        ("/team/owner", "me", "me is not an e-mail address."),
        ("/team/owner", "ada@example.com", "ada@example.com is a member of the team."),
    ):
        reply = signed_in.send(path, {"csrf": signed_in.csrf, "email": email})
        page = reply.raw.decode()
        assert (reply.status, problem.lower() in page.lower()) == (400, True), (path, email)
        assert page.count(f'value="{email}"') == 1, (path, email)


def test_the_owner_has_an_address(vault: Vault, signed_in: SignedIn) -> None:
    assert signed_in.post("/team/owner", {"email": "Me@example.com"}) == "/team"
    page = signed_in.text("/team")
    assert message(page) == "Your address is now me@example.com."
    assert 'value="me@example.com"' in page
    assert by_owner(vault, "owner_email_set") == ["the owner is me@example.com"]
    assert signed_in.refused("/team/invite", {"email": "me@example.com"})[0] == 400


def test_the_matrix_changes_rights(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    webshop, other, third = (agent.project(name) for name in ("Webshop", "Other", "Third"))
    ada = member(vault, agent)
    path = f"/team/{ada}"
    assert ticked(signed_in.text(path), "may") == set()
    chosen = {"may": [f"{webshop}:member", f"{other}:machines.view", f"{other}:machines.add"]}
    assert signed_in.post(path + "/save", chosen) == path
    page = signed_in.text(path)
    assert message(page) == "Saved the rights of ada@example.com in 2 projects."
    assert rights(agent, ada) == {"Webshop": [], "Other": ["machines.view", "machines.add"]}
    assert ticked(page, "may") == {*chosen["may"], f"{other}:member"}
    with_third = {"was": [f"{webshop}:member"], "may": [f"{third}:machines.configure"]}
    assert signed_in.post(path + "/save", with_third) == path
    assert rights(agent, ada) == {"Other": ["machines.view", "machines.add"], "Third": ["machines.configure"]}
    assert message(signed_in.text(path)) == "Saved the rights of ada@example.com in 2 projects."
    assert (len(by_owner(vault, "team_permission_set")), len(by_owner(vault, "team_permission_remove"))) == (3, 1)
    assert signed_in.post(path + "/save", {"was": f"{other}:member", "may": f"{other}:member"}) == path
    assert message(signed_in.text(path)) == "Nothing was changed."


def test_rights_are_saved_together_or_not_at_all(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project, ada = agent.project(), member(vault, agent)
    chosen = {"may": [f"{project}:member", "proj_x:member"]}
    assert signed_in.refused(f"/team/{ada}/save", chosen)[0] == 404
    assert rights(agent, ada) == {}


def test_a_member_is_removed(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    ada = member(vault, agent)
    assert signed_in.post(f"/team/{ada}/remove") == "/team"
    assert message(signed_in.text("/team")) == "Removed ada@example.com from the team."
    assert len(by_owner(vault, "team_member_remove")) == 1
    assert signed_in.get(f"/team/{ada}").status == 404


def test_members_and_their_projects_have_pages(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    for n in range(PAGE_SIZE + 1):
        member(vault, agent, f"m{n}@example.com")
        agent.project(f"P{n:02}")
    assert signed_in.text("/team?page=2").count("/dashboard/team/mem_") == 1
    first = agent.get("/v1/ai/team")["members"][0]["memberId"]
    page = signed_in.text(f"/team/{first}?page=2")
    assert ("P50" in page, "P49" in page) == (True, False)


def test_hostile_names_are_only_text_on_the_teams_pages(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    agent.project(HOSTILE)
    ada = member(vault, agent, "a\u202eda'&lt@example.com")  # what an address may have
    page = signed_in.text(f"/team/{ada}")
    assert is_harmless(page)
    for shown in (page, signed_in.text("/team")):
        assert "a\\u202eda&#39;&amp;lt@example.com" in shown
    reply = signed_in.send("/team/invite", {"csrf": signed_in.csrf, "email": HOSTILE})
    assert b"<script>alert" not in reply.raw


def test_a_person_gives_rights(vault: Vault, browser: Browser, agent: Agent) -> None:
    agent.project("Webshop")
    ada = member(vault, agent)
    browser.open(f"/team/{ada}")
    browser.one('[aria-label="Webshop: see machines"]').click()
    browser.press("Save")
    browser.until(lambda: "Saved the rights of ada@example.com in 1 project." in browser.main)
    assert rights(agent, ada) == {"Webshop": ["machines.view"]}
