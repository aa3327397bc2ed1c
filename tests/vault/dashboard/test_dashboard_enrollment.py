"""The dashboard's pages about enrollment tokens."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import by_owner
from tests.vault.support.machines import enroll, token_body
from tests.vault.support.pages import HOSTILE, is_harmless, message, ticked
from tests.vault.support.served_vault import Agent, Reply, Vault
from vault.dashboard.pages import enrollment
from vault.dashboard.queries.listings import PAGE_SIZE
from vault.router import wall_clock

FORM = {
    "name": "ci",
    "uses": "2",
    "token_life": "7",
    "token_unit": "days",
    "machine_life": "30",
    "machine_unit": "minutes",
}
TOKENS = "/v1/ai/enrollment-tokens"


def created(signed_in: SignedIn, **fields: Any) -> Reply:
    return signed_in.send("/enrollment/create", {"csrf": signed_in.csrf, **FORM, **fields})


def part(page: str, name: str) -> str:
    """The text of an element with an id."""
    found = re.search(rf'id="{name}"[^>]*>(.*?)</', page, re.DOTALL)
    assert found
    return unescape(found[1])


def test_no_tokens_and_no_projects_yet(signed_in: SignedIn) -> None:
    assert "No enrollment tokens yet" in signed_in.text("/enrollment")
    assert "There are no projects yet" in signed_in.text("/enrollment/new")


def test_a_token_is_made_in_two_steps_and_shown_once(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project, other = agent.project("Webshop"), agent.project("Other")
    secret = agent.secret(project, "v", name="URL").rpartition("/")[2]
    agent.secret(other, "v", name="FOREIGN")
    assert "Webshop" in signed_in.text("/enrollment/new")
    form = signed_in.text(f"/enrollment/new?project={project}")
    assert ("Secrets of Webshop" in form, "URL" in form, "FOREIGN" in form) == (True, True, False)
    page = created(signed_in, project=project, secret=secret).raw.decode()
    token = part(page, "token")
    assert page.count(token) == 1
    made = agent.get(TOKENS)[0]
    assert (made["projectIds"], made["secretIds"], made["maxUses"]) == ([project], [secret], 2)
    assert (made["expiresAt"] - made["createdAt"], made["machineLifetimeSeconds"]) == (7 * 86_400_000, 1_800)
    assert enroll(vault, token).status == 200
    assert token not in signed_in.text("/enrollment") + signed_in.text(f"/enrollment/{made['id']}")
    detail = f"enrollment token {made['id']} created as ci: 1 projects, 1 secrets"
    assert by_owner(vault, "enroll_token_create") == [detail]


def test_the_code_for_ci_enrolls_and_reads(
    vault: Vault, signed_in: SignedIn, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sikkerkey", reason="the vendor's client takes Python 3.10 or later")
    vault.clock.now_ms = wall_clock()
    signed_in = SignedIn(vault)
    project = agent.project()
    secret = agent.secret(project, "the value").rpartition("/")[2]
    page = created(signed_in, project=project, secret=secret).raw.decode()
    url = part(page, "install").partition("SIKKERKEY_API_URL=")[2].strip()
    monkeypatch.setenv("SIKKERKEY_API_URL", url)
    monkeypatch.setenv("SIKKERKEY_TOKEN", part(page, "token"))
    names: dict[str, Any] = {}
    exec(part(page, "code"), names)  # noqa: S102  # the page's own example
    assert names["value"] == "the value"


def test_the_address_for_machines() -> None:
    assert enrollment.machine_url("http://127.0.0.1:8300") == "http://localhost:8300"
    assert enrollment.machine_url("http://localhost") == "http://localhost:80"
    assert enrollment.machine_url("https://vault.example") == "https://vault.example"


def test_a_refused_form_keeps_what_was_typed(signed_in: SignedIn, agent: Agent) -> None:
    project, other = agent.project(), agent.project("Other")
    secret, foreign = (agent.secret(each, "v").rpartition("/")[2] for each in (project, other))
    for fields, problem in (
        ({"name": ""}, "The name must be a string of 1 to 255 characters."),
        ({"uses": "0"}, "The number of machines must be an integer from 1 to 100000."),
        ({"uses": "many"}, "The number of machines must be a whole number."),
        ({"token_life": "400"}, "The lifetime of the token, in seconds, must be an integer from 1 to 31536000."),
        ({"machine_life": "-1"}, "The lifetime of each machine must be a whole number."),
        ({"cidr": "here"}, "The addresses must be an IPv4 or IPv6 network such as 203.0.113.0/24."),
        ({"hostname": "(a"}, "The hostname pattern must be a regular expression"),
        ({"more_secrets": foreign}, "The secrets must be in the chosen projects."),
    ):
        reply = created(signed_in, project=project, secret=secret, **fields)
        page = unescape(reply.raw.decode())
        assert (reply.status, problem in page) == (400, True), fields
        assert ticked(page, "secret") == {secret}, fields
        for value in fields.values():
            assert value in page, fields
    assert created(signed_in, project="proj_x").status == 404
    assert agent.get(TOKENS) == []


def test_limits_are_passed_on(signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project()
    limits = {"cidr": "10.0.0.0/8", "hostname": r"runner-\d+", "machine_name": "ci", "description": "for tests"}
    assert created(signed_in, project=project, **limits).status == 200
    token = agent.get(TOKENS)[0]
    keys = ("sourceCidr", "hostnamePattern", "namePattern", "description")
    assert [token[key] for key in keys] == list(limits.values())
    page = signed_in.text(f"/enrollment/{token['id']}")
    assert all(value in page for value in limits.values())


def test_a_token_shows_its_machines_and_is_revoked(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    made = agent.post(TOKENS, token_body(maxUses=2))
    path = f"/enrollment/{made['id']}"
    assert "None yet." in signed_in.text(path)
    enroll(vault, made["token"])
    page = signed_in.text(path)
    assert ">runner-7</a>" in page
    assert "1 of 2" in page
    assert signed_in.post(path + "/revoke", {"reason": "leaked"}) == path
    page = signed_in.text(path)
    assert message(page) == "Revoked ci. No more machines can enroll with it."
    assert ": leaked" in page
    assert enroll(vault, made["token"]).status == 401
    assert by_owner(vault, "enroll_token_revoke") == [f"enrollment token {made['id']} revoked: leaked"]
    assert signed_in.refused(path + "/revoke")[0] == 409


def test_tokens_have_pages(signed_in: SignedIn, agent: Agent) -> None:
    for _ in range(PAGE_SIZE + 1):
        agent.post(TOKENS, token_body())
    assert signed_in.text("/enrollment?page=2").count('<th scope="row">') == 1


def test_hostile_names_of_tokens_are_only_text(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project(HOSTILE)
    agent.secret(project, "v", name=HOSTILE)
    made = agent.post(TOKENS, token_body(name=HOSTILE, description=HOSTILE, projectIds=[project], maxUses=2))
    enroll(vault, made["token"], name=HOSTILE)
    signed_in.post(f"/enrollment/{made['id']}/revoke", {"reason": HOSTILE})
    for path in ("/enrollment", f"/enrollment/{made['id']}", "/enrollment/new", f"/enrollment/new?project={project}"):
        assert is_harmless(signed_in.text(path)), path
    assert is_harmless(created(signed_in, project=project, name=HOSTILE).raw.decode())


def test_unknown_tokens_and_projects(signed_in: SignedIn) -> None:
    for path in ("/enrollment/x", "/enrollment/new?project=x"):
        assert signed_in.get(path).status == 404, path
