"""The dashboard's pages about machines, and the matrix of what they may read."""

from __future__ import annotations

import re

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import by_owner
from tests.vault.support.machines import enrolled_machine, granted_machine, pending_machine
from tests.vault.support.pages import HOSTILE, is_harmless, message, ticked
from tests.vault.support.served_vault import Agent, Vault
from vault.dashboard.pages import project_machines
from vault.dashboard.queries.listings import PAGE_SIZE


def ids(path: str) -> tuple[str, str]:
    """The project and the id of a secret, given by its path for agents."""
    parts = path.split("/")
    return parts[4], parts[-1]


def test_no_machines_yet(vault: Vault, signed_in: SignedIn) -> None:
    page = signed_in.text("/machines")
    assert "No machines yet" in page
    assert f"sikkerkey-vault.pyz machine-bootstrap --name NAME --dir {vault.directory}" in page


def test_a_machine_that_waits_is_approved_and_denied(vault: Vault, signed_in: SignedIn) -> None:
    first, second = pending_machine(vault, "web-1"), pending_machine(vault, "web-2")
    page = signed_in.text("/machines")
    assert "2 machines are waiting for your approval" in page
    assert signed_in.post(f"/machines/{first.id}/approve", {"from": "list"}) == "/machines"
    assert message(signed_in.text("/machines")) == "Approved web-1."
    assert signed_in.post(f"/machines/{second.id}/deny") == "/machines"
    assert by_owner(vault, "machine_approve") == [f"machine {first.id} approved"]
    assert by_owner(vault, "machine_deny") == [f"machine {second.id} (web-2) denied"]
    assert signed_in.get(f"/machines/{second.id}").status == 404
    assert signed_in.refused(f"/machines/{first.id}/deny")[0] == 409


def test_machines_are_filtered(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    secret = agent.secret(agent.project(), "v")
    pending_machine(vault, "web-1")
    enrolled_machine(vault, agent, [secret], name="ci")
    for query, shown in (
        ("", {"web-1", "runner-7"}),
        ("?state=pending", {"web-1"}),
        ("?state=approved", {"runner-7"}),
        ("?state=expired", set()),
        ("?kind=ephemeral", {"runner-7"}),
        ("?name=WEB", {"web-1"}),
        ("?name=web&kind=ephemeral", set()),
        ("?state=x&kind=y", {"web-1", "runner-7"}),
    ):
        page = signed_in.text("/machines" + query)
        assert set(re.findall(r'<th scope="row"><a [^>]*>([^<]*)<', page)) == shown, query
        assert ("No machine matches" in page) == (not shown), query
    vault.clock.advance(3600)
    assert "runner-7" in SignedIn(vault).text("/machines?state=expired")  # the first session was idle


def test_a_machine_is_described(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    secret, other = (agent.secret(agent.project("Webshop"), "v", name=name) for name in ("URL", "KEY"))
    machine = enrolled_machine(vault, agent, [secret])
    machine.value(secret)
    machine.read(other)
    page = signed_in.text(f"/machines/{machine.id}")
    project_id, secret_id = ids(secret)
    assert f'href="/dashboard/projects/{project_id}/secrets/{secret_id}">URL</a>' in page
    assert "Webshop</a> (1 grant)" in page
    assert "URL read, version 1" in page
    assert "secret_read_denied" in page
    assert "/dashboard/enrollment/enr_" in page
    assert "with 1 membership in a project and 1 grant." in page
    assert f"/dashboard/audit?machine={machine.id}" in page


def test_a_machine_is_renamed_and_revoked(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    machine = granted_machine(vault, agent.secret(agent.project(), "v"))
    path = f"/machines/{machine.id}"
    assert signed_in.post(path + "/rename", {"name": "web-9"}) == path
    assert "<td>web-1</td><td>web-9</td>" in signed_in.text(path)
    assert signed_in.refused(path + "/rename", {"name": " "})[0] == 400
    assert signed_in.post(path + "/revoke") == "/machines"
    assert message(signed_in.text("/machines")) == "Revoked web-9."
    assert by_owner(vault, "machine_rename") == [f"machine {machine.id} renamed from web-1 to web-9"]
    assert by_owner(vault, "machine_revoke") == [f"machine {machine.id} (web-9) revoked"]


def test_the_matrix_grants_and_revokes_what_was_changed(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project("Webshop")
    url, key = (agent.secret(project, "v", name=name) for name in ("URL", "KEY"))
    machine, other = granted_machine(vault, url), granted_machine(vault, key)
    path = f"/projects/{project}/machines"
    page = signed_in.text(path)
    cells = {name: f"{machine.id}:{ids(secret)[1]}" for name, secret in (("url", url), ("key", key))}
    kept = f"{other.id}:{ids(key)[1]}"
    assert ticked(page, "grant") == {cells["url"], kept}
    assert page.count('name="was"') == 2
    saved = {"was": [cells["url"], kept], "grant": [cells["key"], kept], "here": "secret=K"}
    assert signed_in.post(path + "/save", saved) == path + "?secret=K"
    assert message(signed_in.text(path)) == "Saved: granted 1 and revoked 1."
    assert (machine.read(url).status, machine.value(key), other.value(key)) == (403, "v", "v")
    assert by_owner(vault, "permission_grant") == [f"reading granted to machine {machine.id}"]
    assert by_owner(vault, "permission_revoke") == [f"reading revoked from machine {machine.id}"]
    assert signed_in.post(path + "/save", {"was": kept, "grant": kept}) == path
    assert message(signed_in.text(path)) == "Nothing was changed."


def test_the_matrix_keeps_what_somebody_else_changed(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project()
    url, key = (agent.secret(project, "v", name=name) for name in ("URL", "KEY"))
    machine = granted_machine(vault)
    granted_machine(vault, url)
    cell = f"{machine.id}:{ids(url)[1]}"
    agent.post(f"/v1/ai/projects/{project}/machines", {"machineId": machine.id})
    grants = f"/v1/ai/projects/{project}/machines/{machine.id}/grants"
    agent.post(grants, {"secretIds": [ids(key)[1]]})  # after the form was opened
    signed_in.post(f"/projects/{project}/machines/save", {"grant": cell})
    assert (machine.value(url), machine.value(key)) == ("v", "v")
    agent.post(grants, {"secretIds": []})
    signed_in.post(f"/projects/{project}/machines/save", {"was": cell})
    assert by_owner(vault, "permission_revoke") == []


def test_the_matrix_refuses_what_is_not_in_the_project(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project, other = agent.project(), agent.project("Other")
    secret, foreign = agent.secret(project, "v"), agent.secret(other, "v")
    machine, stranger = granted_machine(vault, secret), granted_machine(vault, foreign)
    for cell in (
        f"{stranger.id}:{ids(secret)[1]}",
        f"{machine.id}:{ids(foreign)[1]}",
        f"{stranger.id}:{ids(foreign)[1]}",
        "x",
        ":",
    ):
        for fields in ({"grant": cell}, {"was": cell}):
            refused = signed_in.refused(f"/projects/{project}/machines/save", fields)
            assert refused == (409, "A machine or a secret has left the project."), cell
    assert stranger.value(foreign) == "v"


def test_machines_are_added_and_removed(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project("Webshop")
    secret = agent.secret(project, "v")
    machine = granted_machine(vault)
    path = f"/projects/{project}/machines"
    page = signed_in.text(path)
    assert "No machines in this project yet" in page
    assert "Add web-1" in page
    assert "No other machine matches" in signed_in.text(path + "?add=batch")
    assert signed_in.post(path + "/add", {"machine": machine.id, "here": "add=web"}) == path + "?add=web"
    assert message(signed_in.text(path)) == "Added web-1. It cannot read anything until you grant it secrets."
    assert signed_in.refused(path + "/add", {"machine": machine.id})[0] == 409
    signed_in.post(path + "/save", {"grant": f"{machine.id}:{ids(secret)[1]}"})
    assert "It loses 1 grant here" in signed_in.text(path)
    assert signed_in.post(f"{path}/{machine.id}/remove") == path
    assert message(signed_in.text(path)) == "Removed web-1 and its grants (1)."
    assert machine.read(secret).status == 403
    assert by_owner(vault, "project_machine_add") == [f"machine {machine.id} added"]
    assert by_owner(vault, "project_machine_remove") == [f"machine {machine.id} removed with its 1 grants"]


def test_a_canary_is_marked_in_the_matrix(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project()
    canary = agent.post("/v1/ai/canaries", {"projectId": project, "name": "ROOT_KEY"})["id"]
    machine = granted_machine(vault, f"/v1/ai/projects/{project}/secrets/{canary}")
    page = signed_in.text(f"/projects/{project}/machines")
    assert '<span class="badge canary">canary</span>' in page
    assert "A canary is a trap" in page
    assert '<span class="badge canary">canary</span>' in signed_in.text(f"/machines/{machine.id}")


def test_a_large_matrix_has_parts(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project()
    secrets = [agent.secret(project, "v", name=f"S{n:02}") for n in range(project_machines.COLUMNS + 1)]
    machines = [granted_machine(vault, secrets[0]) for _ in range(project_machines.ROWS + 1)]
    path = f"/projects/{project}/machines"
    first, last = signed_in.text(path), signed_in.text(path + "?page=2&columns=2&secret=S")
    assert first.count('type="checkbox"') == project_machines.COLUMNS * project_machines.ROWS
    assert (first.count('name="was"'), last.count('name="was"')) == (project_machines.ROWS, 0)
    assert last.count('type="checkbox"') == 1
    assert 'columns=2"' in first
    assert "columns=2&amp;secret=S&amp;page=1" in last
    wanted = f"{machines[0].id}:{ids(secrets[-1])[1]}"
    signed_in.post(path + "/save", {"grant": wanted})
    assert (machines[0].value(secrets[0]), machines[0].value(secrets[-1])) == ("v", "v")  # the hidden part stays
    assert signed_in.text(path + "?secret=S03&machine=web").count('type="checkbox"') == project_machines.ROWS
    assert "No machine of this project matches" in signed_in.text(path + "?machine=nothing")


def test_long_lists_of_machines_have_pages(vault: Vault, signed_in: SignedIn) -> None:
    for n in range(PAGE_SIZE + 1):
        pending_machine(vault, f"web-{n}")
    page = signed_in.text("/machines?state=pending&page=2")
    assert page.count('<th scope="row">') == 1
    assert "/dashboard/machines?state=pending&amp;page=1" in page
    assert "Show all 51" in page


def test_hostile_names_of_machines_are_only_text(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    project = agent.project(HOSTILE)
    secret = agent.secret(project, "v", name=HOSTILE)
    machine = granted_machine(vault, secret)
    signed_in.post(f"/machines/{machine.id}/rename", {"name": HOSTILE})
    pending_machine(vault, HOSTILE, hostname=HOSTILE)
    machine.value(secret)
    for path in ("/machines", f"/machines/{machine.id}", f"/projects/{project}/machines"):
        assert is_harmless(signed_in.text(path)), path


def test_unknown_machines_and_projects(signed_in: SignedIn) -> None:
    for path in ("/machines/x", "/projects/x/machines"):
        assert signed_in.get(path).status == 404, path


def test_a_person_ticks_a_grant(vault: Vault, browser: Browser, agent: Agent) -> None:
    project = agent.project("Webshop")
    secret = agent.secret(project, "v", name="URL")
    machine = granted_machine(vault)
    browser.open(f"/projects/{project}/machines")
    browser.press("Add")
    browser.until(lambda: "Added web-1" in browser.main)
    browser.one('[name="grant"]').click()
    browser.press("Save")
    browser.until(lambda: "Saved: granted 1." in browser.main)
    assert machine.value(secret) == "v"
    browser.press("Remove")
    browser.press("Remove the machine")
    browser.until(lambda: "Removed web-1" in browser.main)
    assert machine.read(secret).status == 403
