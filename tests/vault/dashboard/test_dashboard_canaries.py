"""Canaries: planted with grants, triggered by machines, and what unfreezes a project."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import HOSTILE, SHOWN, by_owner, make_project, make_secret
from tests.vault.support.machines import TOKENS, granted_machine, pending_machine, token_body
from tests.vault.support.served_vault import Agent, Vault
from vault.domains import machines


def plant(signed_in: SignedIn, project: str, **changed: object) -> str:
    """The id of a new canary."""
    form = {"project": project, "name": "AWS_ROOT_KEY", "note": "Production", "freeze": "yes", **changed}
    return signed_in.post("/canaries/new", form).rpartition("/")[2]  # type: ignore[arg-type]


def test_without_projects_and_without_canaries(signed_in: SignedIn) -> None:
    assert "No canaries yet" in signed_in.text("/canaries")
    assert 'href="/dashboard/projects/new"' in signed_in.text("/canaries/new")
    project = make_project(signed_in.vault)
    assert f'<option value="{project}"' in signed_in.text("/canaries/new")
    assert "No machine is in this project yet" in signed_in.text(f"/canaries/new?project={project}")
    assert "No canary in this project" in signed_in.text(f"/projects/{project}/canaries")


def test_a_canary_is_planted_with_its_grants(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    other = make_secret(vault, project)
    first, second = granted_machine(vault, other), granted_machine(vault, other)
    canary = plant(signed_in, project, machine=[first.id])
    assert "Planted AWS_ROOT_KEY." in signed_in.text(f"/canaries/{canary}")
    assert "Production" in signed_in.text(f"/canaries/{canary}")
    for path in ("/canaries", f"/projects/{project}/canaries", f"/projects/{project}"):
        assert "AWS_ROOT_KEY" in signed_in.text(path), path
    for action in ("canary_create", "secret_note_update", "permission_grant"):
        assert len(by_owner(vault, action)) == 1, action
    assert {row["name"] for row in first.get("/v1/secrets")["secrets"]} == {"DATABASE_URL", "AWS_ROOT_KEY"}
    assert len(second.get("/v1/secrets")["secrets"]) == 1


def test_what_planting_refuses(signed_in: SignedIn) -> None:
    project, stranger = make_project(signed_in.vault), pending_machine(signed_in.vault)
    make_secret(signed_in.vault, project, "TAKEN")
    for changed, status in (({"name": "TAKEN"}, 409), ({"name": ""}, 400), ({"machine": [stranger.id]}, 409)):
        form = {"project": project, "name": "AWS", "note": "kept", **changed}
        reply = signed_in.send("/canaries/new", {"csrf": signed_in.csrf, **form})
        assert (reply.status, b"kept</textarea>" in reply.raw) == (status, True), changed
    assert signed_in.refused("/canaries/new", {"project": "proj_x", "name": "AWS"})[0] == 404
    assert "No canary in this project" in signed_in.text(f"/projects/{project}/canaries")


def test_what_a_read_freezes_is_changed(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    canary = plant(signed_in, project)
    for form, words in (({"related": "yes"}, "related projects"), ({}, "nothing"), ({"freeze": "yes"}, "its project")):
        signed_in.post(f"/canaries/{canary}/settings", form)
        assert f"<td>{words}</td>" in signed_in.text("/canaries"), form
    assert len(by_owner(vault, "canary_config")) == 3


def test_a_disabled_canary_freezes_nothing(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    canary = plant(signed_in, project)
    signed_in.post(f"/canaries/{canary}/switch", {"enabled": ""})
    assert "a read does not trigger it" in signed_in.text(f"/canaries/{canary}")
    machine = granted_machine(vault, canary)
    assert machine.read(canary).status == 200
    assert "frozen" not in signed_in.text("/projects")
    signed_in.post(f"/canaries/{canary}/switch", {"enabled": "yes"})
    assert (len(by_owner(vault, "canary_disable")), len(by_owner(vault, "canary_enable"))) == (1, 1)
    machine.read(canary)
    assert "frozen" in signed_in.text("/projects")


def test_a_frozen_project_says_who_did_it_and_is_unfrozen(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    secret, canary = make_secret(vault, project), plant(signed_in, project)
    machine = granted_machine(vault, secret)
    assert machine.read(canary).status == 403  # it has no grant, which triggers the canary as well
    assert machine.read(secret).status == 423
    for path in ("", "/settings", "/policies", "/canaries", "/links", "/trash", f"/secrets/{secret}"):
        page = signed_in.text(f"/projects/{project}{path}")
        assert f'href="/dashboard/canaries/{canary}">See who read it' in page, path
    page = signed_in.text(f"/canaries/{canary}")
    assert re.search(rf'href="/dashboard/machines/{machine.id}"[^>]*>web-1</a>', page)
    assert "1 time, last on" in page
    assert "frozen" in signed_in.text("/canaries")
    assert signed_in.post(f"/projects/{project}/unfreeze", {"to": "canaries"}) == "/canaries"
    assert "Unfroze Webshop." in signed_in.text("/canaries")
    assert machine.read(secret).status == 200
    assert len(by_owner(vault, "project_unfreeze")) == 1
    assert signed_in.post(f"/projects/{project}/unfreeze") == f"/projects/{project}"  # it is open already
    assert len(by_owner(vault, "project_unfreeze")) == 1


def test_what_is_no_canary_is_not_found(signed_in: SignedIn) -> None:
    secret = make_secret(signed_in.vault, make_project(signed_in.vault))
    for canary in (secret, "sk_x"):
        assert signed_in.get(f"/canaries/{canary}").status == 404
        for action in ("settings", "switch"):
            assert signed_in.refused(f"/canaries/{canary}/{action}")[0] == 404, action


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault, HOSTILE)
    machine = pending_machine(vault, HOSTILE)
    with vault.store.transaction() as db:
        machines.approve_as_owner(db, vault.clock(), machine.id)
        db.execute("INSERT INTO project_machines VALUES (?, ?, ?)", (project, machine.id, vault.clock()))
    canary = plant(signed_in, project, name=HOSTILE, note=HOSTILE, machine=[machine.id])
    machine.read(canary)
    for path in (
        "/canaries",
        f"/canaries/{canary}",
        f"/projects/{project}/canaries",
        f"/canaries/new?project={project}",
    ):
        page = signed_in.text(path)
        assert SHOWN in page, path
        assert "<script>" not in page, path


def test_a_person_unfreezes_after_the_vendors_client_read_a_canary(
    vault: Vault, agent: Agent, chrome: Chrome, monkeypatch: pytest.MonkeyPatch
) -> None:
    sikkerkey: Any = pytest.importorskip("sikkerkey", reason="the vendor's client needs Python 3.10")
    vault.clock.now_ms = time.time_ns() // 1_000_000  # the client signs with the real time
    monkeypatch.setenv("SIKKERKEY_API_URL", f"http://localhost:{vault.port}")
    project = make_project(vault)
    secret = make_secret(vault, project)
    token = agent.post(TOKENS, token_body(projectIds=[project], secretIds=[secret]))["token"]
    client = sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, token, hostname="runner-7")
    browser = Browser(chrome, vault)
    browser.sign_in()

    browser.open(f"/canaries/new?project={project}")
    browser.one("#name").send_keys("AWS_ROOT_KEY")
    browser.one("[name=machine]").click()
    browser.press("Plant the canary")
    browser.until(lambda: "Planted AWS_ROOT_KEY." in browser.main)
    assert len(client.get_secret(browser.driver.current_url.rpartition("/")[2])) == 64
    with pytest.raises(sikkerkey.ApiError, match="frozen"):
        client.get_secret(secret)

    browser.open("/canaries")
    browser.press("See who read it")
    browser.until(lambda: "runner-7" in browser.main)
    browser.press("Unfreeze")
    browser.press("Unfreeze the project")
    browser.until(lambda: "Unfroze Webshop." in browser.main)
    assert client.get_secret(secret) == "value-1"
    client.close()
    chrome.delete_all_cookies()
