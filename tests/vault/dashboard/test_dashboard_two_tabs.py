"""A form does not undo what another tab, or an agent, has changed since the form was made."""

from __future__ import annotations

import re

from tests.vault.support.dashboard import SignedIn, problem
from tests.vault.support.dashboard_data import PROJECTS, desk, make_project
from tests.vault.support.served_vault import Agent, Reply, Vault

URL = "https://hooks.example.com/in"


def was(page: str | Reply, form: str) -> str:
    """What a form was made for: the field `was` of the form with this address."""
    html = page if isinstance(page, str) else page.raw.decode()
    found = re.search(rf'action="/dashboard{re.escape(form)}".*?name="was" value="([^"]+)"', html, re.DOTALL)
    assert found, form
    return found[1]


def test_of_two_tabs_the_second_one_is_asked_to_compare(signed_in: SignedIn, vault: Vault, agent: Agent) -> None:
    project = make_project(vault)
    owner = desk(vault)
    policies = f"{PROJECTS}/{project}/policies"
    policy = owner.call("POST", policies, {"name": "Ten", "ttlMaxReads": 10})["id"]
    webhook = owner.call("POST", "/v1/ai/webhooks", {"url": URL, "actions": ["project_create"]})["id"]
    edit = f"/projects/{project}/policies/{policy}/edit"
    for page, form, first, second in (
        (f"/agents/{agent.id}", f"/agents/{agent.id}/scopes", {"scope": "audit.read"}, {"scope": "projects.read"}),
        (edit, edit, {"name": "Ten", "ttlMaxReads": "5"}, {"name": "Ten or so", "ttlMaxReads": "10"}),
        ("/alerts", "/alerts/choose", {"actions": "project_create"}, {"actions": "project_delete"}),
        (
            f"/webhooks/{webhook}",
            f"/webhooks/{webhook}/update",
            {"url": URL, "actions": "secret_create"},
            {"url": URL, "actions": "secret_delete"},
        ),
    ):
        opened = was(signed_in.text(page), form)
        signed_in.post(form, {"was": opened, **first})
        changed = was(signed_in.text(page), form)
        assert changed != opened, form
        refused = signed_in.send(form, {"csrf": signed_in.csrf, "was": opened, **second})
        assert refused.status in (400, 409), form
        assert "changed since you opened this page" in problem(refused), form
        assert was(signed_in.text(page), form) == changed, form
        signed_in.post(form, {"was": was(refused, form), **second})
        assert was(signed_in.text(page), form) not in (opened, changed), form
    assert agent.get("/v1/ai/whoami")["scopes"] == ["projects.read"]
