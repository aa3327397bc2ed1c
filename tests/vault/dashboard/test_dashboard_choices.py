"""Forms with more choices than they list: a person types a name or an id."""

from __future__ import annotations

import re

import pytest

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import PROJECTS, desk, make_project, make_secret
from tests.vault.support.machines import granted_machine
from tests.vault.support.served_vault import Vault
from vault.dashboard import templating
from vault.dashboard.pages import canaries, links, policies, secrets
from vault.dashboard.queries import names
from vault.errors import Refusal


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms list one choice."""
    for module in (canaries, links, policies, secrets):
        monkeypatch.setattr(module, "MAX_CHOICES", 1)
    monkeypatch.setitem(templating.environment().globals, "MAX_CHOICES", 1)


def machine_named(vault: Vault, secret: str, name: str) -> str:
    """The id of an approved machine that may read the secret."""
    machine = granted_machine(vault, secret)
    with vault.store.transaction() as db:
        db.execute("UPDATE machines SET name = ? WHERE id = ?", (name, machine.id))
    return machine.id


def is_typed(page: str, name: str) -> bool:
    """Whether the field is typed, with the first choice as a suggestion."""
    suggested = re.search(rf'<datalist id="{name}-options"><option value="[^"]+">[^<]+</option></datalist>', page)
    return f'<input id="{name}" name="{name}" list="{name}-options"' in page and suggested is not None


def test_a_project_is_typed(signed_in: SignedIn) -> None:
    make_project(signed_in.vault, "Alpha")
    project = make_project(signed_in.vault, "Beta")
    assert is_typed(signed_in.text("/links/new"), "project")
    link = {"csrf": signed_in.csrf, "kind": "generated", "name": "Wifi", "length": "30", "life": "3600"}
    for typed in ("Beta", project):
        assert signed_in.send("/links/new", {**link, "project": typed}).status == 200, typed
    assert signed_in.refused("/links/new", {**link, "project": "Gamma"})[0] == 404
    assert signed_in.text(f"/projects/{project}/links").count(">Wifi<") == 2
    assert is_typed(signed_in.text("/canaries/new"), "project")
    assert f'name="project" value="{project}"' in signed_in.text("/canaries/new?project=Beta")


def test_secrets_and_machines_are_typed(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    make_secret(vault, project, "A")
    secret = make_secret(vault, project, "B")
    machine_named(vault, secret, "one")
    machine = machine_named(vault, secret, "two")
    policy = desk(vault).call("POST", f"{PROJECTS}/{project}/policies", {"name": "Ten"})["id"]
    path = f"/projects/{project}/policies"
    assert is_typed(signed_in.text(f"{path}/{policy}"), "secret")
    signed_in.post(f"{path}/{policy}/bind", {"secret": "B"})
    trial = signed_in.text(f"{path}/test?secret=B&machine=two")
    assert is_typed(trial, "secret")
    assert is_typed(trial, "machine")
    assert "two could read B now" in trial
    assert 'name="coSignMachineId" list="coSignMachineId-options" value=""' in signed_in.text(f"{path}/new")
    rules = {"name": "Both", "coSignEnabled": "yes", "coSignWindowSeconds": "60", "coSignMachineId": "two"}
    made = signed_in.post(f"{path}/new", rules)
    assert machine in signed_in.text(f"{made}/edit")


def test_machines_of_a_canary_and_policies_of_a_secret_are_typed(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    secret = make_secret(vault, project, "A")
    machines = [machine_named(vault, secret, name) for name in ("one", "two", "three")]
    form = signed_in.text(f"/canaries/new?project={project}")
    assert form.count('type="checkbox" name="machine"') == 1
    ticked = {"project": project, "name": "BAIT", "machine": machines[0], "more": f"two\r\n{machines[2]}\r\n"}
    made = signed_in.post("/canaries/new", ticked)
    with vault.store.reader() as db:
        rows = db.execute("SELECT machine_id FROM grants WHERE secret_id = ?", (made.rpartition("/")[2],))
        assert {row["machine_id"] for row in rows} == {*machines}
    for name in ("Ten", "Twenty"):
        desk(vault).call("POST", f"{PROJECTS}/{project}/policies", {"name": name})
    path = f"/projects/{project}/secrets/{secret}"
    assert is_typed(signed_in.text(f"{path}/policy"), "policy")
    signed_in.post(f"{path}/policy", {"policy": "Twenty"})
    assert 'value="Twenty"' in signed_in.text(f"{path}/policy")
    signed_in.post(f"{path}/policy", {"policy": ""})
    assert 'list="policy-options" value=""' in signed_in.text(f"{path}/policy")


def test_an_id_comes_before_a_name_and_a_name_must_be_the_only_one(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    first = make_secret(vault, project, "A")
    make_secret(vault, make_project(vault, "Other"), "A")
    named_like_it = make_secret(vault, project, first)
    with vault.store.reader() as db:
        assert names.id_of(db, "secret", first) == first != named_like_it
        assert names.id_of(db, "secret", " A ", project) == first
        assert names.id_of(db, "secret", " b ", project) == "b"
        with pytest.raises(Refusal, match="several secrets have this name: give the id of one"):
            names.id_of(db, "secret", "A")
