"""The pages of secrets: making and changing them, versions, schedules, policies and who reads them."""

from __future__ import annotations

import json
import re
import threading

import pytest

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import (
    HOSTILE,
    PROJECTS,
    SHOWN,
    by_owner,
    desk,
    make_project,
    make_secret,
    make_structured,
)
from tests.vault.support.machines import grant, granted_machine, pending_machine
from tests.vault.support.served_vault import Vault
from vault.domains import schedules


@pytest.fixture
def project(vault: Vault) -> str:
    return make_project(vault)


def path_of(project: str, secret: str) -> str:
    return f"/projects/{project}/secrets/{secret}"


def id_in(path: str) -> str:
    return path.rpartition("/")[2]


# ---- new -------------------------------------------------------------------------------------------------------------


def test_a_value_that_is_typed(signed_in: SignedIn, project: str) -> None:
    form = {"kind": "typed", "name": "API_KEY", "value": " line 1\r\nline 2\r\n", "note": "For the shop"}
    path = signed_in.post(f"/projects/{project}/secrets/new", form)
    assert signed_in.vault.value(id_in(path)) == "line 1\nline 2"
    page = signed_in.text(path)
    assert "Created API_KEY. White space at the ends of the value was removed." in page
    assert "For the shop" in page
    assert "line 1" not in page
    assert by_owner(signed_in.vault, "secret_create") == ["secret created as API_KEY"]
    kept = signed_in.post(f"/projects/{project}/secrets/new", {**form, "name": "KEPT", "keep": "yes"})
    assert signed_in.vault.value(id_in(kept)) == " line 1\nline 2\n"


def test_a_form_that_is_sent_many_times_creates_one_secret(signed_in: SignedIn, project: str) -> None:
    together, form = threading.Barrier(6), {"csrf": signed_in.csrf, "name": "ONCE", "value": "v"}
    statuses: list[int] = []

    def send() -> None:
        together.wait()
        statuses.append(signed_in.send(f"/projects/{project}/secrets/new", form).status)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303] + [409] * 5
    assert by_owner(signed_in.vault, "secret_create") == ["secret created as ONCE"]


def test_what_a_new_secret_refuses(signed_in: SignedIn, project: str) -> None:
    make_secret(signed_in.vault, project, "TAKEN")
    new = f"/projects/{project}/secrets/new"
    for form, status, said in (
        ({"name": "TAKEN", "value": "hidden-1"}, 409, "already has a secret with this name"),
        ({"name": "", "value": "hidden-1"}, 400, "Name must be"),
        ({"name": "n" * 256, "value": "hidden-1"}, 400, "Name must be"),
        ({"name": "n", "value": " \n "}, 400, "The value is empty"),
        ({"name": "n", "value": "h" * 12_289}, 400, "Value must be a string of at most 12288 bytes"),
        ({"name": "n", "kind": "generated", "length": "0x"}, 400, "The length must be a whole number"),
        ({"name": "n", "kind": "generated", "length": "1025"}, 400, "Length must be an integer from 1 to 1024"),
        ({"name": "n", "kind": "generated", "charset": "emoji"}, 400, "Charset must be one of"),
        ({"name": "n", "kind": "structured"}, 400, "Name at least one field"),
        ({"name": "n", "kind": "structured", "name0": "a"}, 400, "Field a has no value"),
        ({"name": "n", "kind": "structured", "value0": "hidden-1"}, 400, "Row 1 has a value but no name"),
        (
            {"name": "n", "kind": "structured", "name0": "a", "value0": "hidden-1", "generate0": "yes"},
            400,
            "choose one",
        ),
        ({"name": "n", "kind": "structured", "name0": "a", "name1": "a"}, 400, "must not repeat a name"),
    ):
        reply = signed_in.send(new, {"csrf": signed_in.csrf, "kind": "typed", "note": "a note", **form})
        page = reply.raw.decode()
        assert (reply.status, said in page) == (status, True), form
        assert "a note" in page, form  # what was typed is still there, except for values
        assert "hidden-1" not in page, form
    assert signed_in.text(f"/projects/{project}").count('<tr><th scope="row"') == 1


def test_a_value_that_the_vault_generates(signed_in: SignedIn, project: str) -> None:
    form = {"kind": "generated", "name": "TOKEN", "length": "40", "charset": "numbers"}
    path = signed_in.post(f"/projects/{project}/secrets/new", form)
    assert re.fullmatch("[0-9]{40}", signed_in.vault.value(id_in(path)))


def test_a_structured_secret(signed_in: SignedIn, project: str) -> None:
    form = {
        "kind": "structured",
        "name": "db",
        "name0": "user",
        "value0": "app",
        "name2": "password",
        "generate2": "yes",
    }
    path = signed_in.post(f"/projects/{project}/secrets/new", form)
    value = json.loads(signed_in.vault.value(id_in(path)))
    assert (list(value), value["user"], len(value["password"])) == (["user", "password"], "app", 32)
    assert "user, password" in signed_in.text(path)


def test_a_form_for_every_kind(signed_in: SignedIn, project: str) -> None:
    for query, number in (("", 1), ("?kind=generated", 0), ("?kind=structured", 4), ("?kind=structured&rows=50", 50)):
        page = signed_in.text(f"/projects/{project}/secrets/new{query}")
        assert page.count('class="masked"') == number, query
    assert 'name="kind" value="typed"' in signed_in.text(f"/projects/{project}/secrets/new?kind=%22%3E")


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_the_name_and_the_note(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project, "OLD", note="before")
    make_secret(signed_in.vault, project, "TAKEN")
    path = path_of(project, secret)
    assert signed_in.post(f"{path}/edit", {"name": "NEW", "note": "after"}) == path
    assert by_owner(signed_in.vault, "secret_rename") == ["renamed from OLD to NEW"]
    assert by_owner(signed_in.vault, "secret_note_update") == ["note replaced"]
    signed_in.post(f"{path}/edit", {"name": "NEW", "note": ""})
    assert len(by_owner(signed_in.vault, "secret_rename")) == 1
    status, message = signed_in.refused(f"{path}/edit", {"name": "TAKEN", "note": ""})
    assert (status, "already has a secret with this name" in message) == (409, True)
    assert signed_in.refused(f"{path}/edit", {"name": "BOTH", "note": "n" * 10_001})[0] == 400
    assert by_owner(signed_in.vault, "secret_rename") == ["renamed from OLD to NEW"]


def test_a_value_is_replaced(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project)
    path = path_of(project, secret)
    signed_in.post(f"{path}/replace", {"value": "value-2"})
    assert signed_in.vault.value(secret) == "value-2"
    assert "The current version is now 2." in signed_in.text(path)
    assert by_owner(signed_in.vault, "secret_update") == ["value replaced, now version 2"]
    assert signed_in.refused(f"{path}/replace", {"value": ""})[0] == 400


def test_only_some_fields_are_replaced_and_none_is_shown(signed_in: SignedIn, project: str) -> None:
    secret = make_structured(signed_in.vault, project)
    path = path_of(project, secret)
    assert "value-" not in signed_in.text(f"{path}/replace")
    signed_in.post(f"{path}/replace", {"value1": "new"})
    assert json.loads(signed_in.vault.value(secret)) == {"user": "value-u", "password": "new"}
    assert by_owner(signed_in.vault, "secret_update") == ["value replaced, now version 2"]
    assert signed_in.refused(f"{path}/replace", {})[1] == "Fill in at least one field."
    assert signed_in.refused(f"{path}/replace", {"value0": "x" * 12_289})[0] == 400


def test_a_rotation_generates_the_chosen_fields(signed_in: SignedIn, project: str) -> None:
    secret = make_structured(signed_in.vault, project)
    path = path_of(project, secret)
    assert signed_in.text(f"{path}/rotate").count(" checked") == 2
    signed_in.post(f"{path}/rotate", {"length": "12", "charset": "numbers", "fields": ["password"]})
    value = json.loads(signed_in.vault.value(secret))
    assert value["user"] == "value-u"
    assert re.fullmatch("[0-9]{12}", value["password"])
    assert by_owner(signed_in.vault, "secret_rotate") == ["rotated, now version 2"]
    assert "Tick at least one" in signed_in.refused(f"{path}/rotate", {"length": "12", "charset": "numbers"})[1]


def test_a_version_is_rolled_back(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project)
    path = path_of(project, secret)
    signed_in.post(f"{path}/replace", {"value": "value-2"})
    signed_in.post(f"{path}/rollback", {"version": "1"})
    assert signed_in.vault.value(secret) == "value-1"
    assert "Rolled back DATABASE_URL: version 3 has the value of version 1." in signed_in.text(path)
    assert by_owner(signed_in.vault, "secret_rollback") == ["version 1 restored as version 3"]
    for version, status in (("9", 404), ("0", 400), ("x", 400), ("", 400)):
        assert signed_in.refused(f"{path}/rollback", {"version": version})[0] == status, version


def test_a_secret_moves_to_the_trash(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project)
    path = path_of(project, secret)
    assert signed_in.post(f"{path}/delete") == f"/projects/{project}"
    assert "Moved DATABASE_URL to the trash." in signed_in.text(f"/projects/{project}")
    assert signed_in.get(path).status == 404
    assert len(by_owner(signed_in.vault, "secret_delete")) == 1


# ---- schedule --------------------------------------------------------------------------------------------------------


def test_a_schedule_is_made_changed_paused_and_deleted(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_structured(signed_in.vault, project)
    path = path_of(project, secret)
    form = {"every": "2", "unit": "days", "length": "20", "charset": "alphanumeric", "fields": ["password"]}
    signed_in.post(f"{path}/schedule", form)
    page = signed_in.text(path)
    assert "smtp rotates every 2 days." in page
    assert "The next rotation is in 2 days" in page
    assert "Replace value" not in page
    vault.clock.advance(1200)
    signed_in.post(f"{path}/schedule", {**form, "length": "21"})  # the interval is as before, so it goes on
    assert "in 1 day" in signed_in.text(path)
    signed_in.post(f"{path}/schedule", {**form, "every": "1", "unit": "hours"})
    assert "every hour" in signed_in.text(path)
    signed_in.post(f"{path}/schedule/switch", {"enabled": ""})
    assert "Paused. If you resume it" in signed_in.text(path)
    signed_in.post(f"{path}/schedule/switch", {"enabled": "yes"})
    with vault.store.transaction() as db:
        row = db.execute("SELECT * FROM rotation_schedules").fetchone()
    assert (row["interval_s"], row["length"], row["enabled"], row["fields"]) == (3600, 20, 1, '["password"]')
    signed_in.post(f"{path}/schedule/delete")
    assert "Rotate it on a schedule" in signed_in.text(path)
    for action, number in (("create", 1), ("update", 4), ("delete", 1)):
        assert len(by_owner(vault, f"dynamic_secret_{action}")) == number, action
    assert schedules.INTERVAL.high == 30 * 86_400


def test_what_a_schedule_refuses(signed_in: SignedIn, project: str) -> None:
    path = path_of(project, make_secret(signed_in.vault, project))
    for every, unit in (
        ("4", "minutes"),
        ("31", "days"),
        ("0", "days"),
        ("", "days"),
        ("x", "days"),
        ("9" * 15, "days"),
    ):
        status, message = signed_in.refused(f"{path}/schedule", {"every": every, "unit": unit})
        assert (status, "interval" in message) == (400, True), every


# ---- machines and policy ---------------------------------------------------------------------------------------------


def test_machines_get_and_lose_the_right_to_read(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    other = make_secret(vault, project, "OTHER")
    first, second = granted_machine(vault, other), granted_machine(vault, secret)
    path = path_of(project, secret)
    signed_in.post(f"{path}/machines", {"offered": [first.id, second.id], "machine": [first.id]})
    assert "1 added, 1 removed" in signed_in.text(path)
    assert first.value(secret) == "value-1"
    assert second.read(secret).status == 403
    assert by_owner(vault, "permission_grant") == [f"reading granted to machine {first.id}"]
    assert by_owner(vault, "permission_revoke") == [f"reading revoked from machine {second.id}"]
    # A machine that the page did not show keeps what it has.
    signed_in.post(f"{path}/machines", {"offered": [second.id], "machine": []})
    assert first.read(secret).status == 200
    page = signed_in.text(path)
    assert f'href="/dashboard/machines/{first.id}"' in page
    assert page.count("2026-01-01 00:00</time></td><td>1</td>") == 1  # its last read, and the version that it has


def test_a_machine_of_another_project_gets_nothing(signed_in: SignedIn, project: str) -> None:
    secret, stranger = make_secret(signed_in.vault, project), pending_machine(signed_in.vault)
    path = path_of(project, secret)
    for machine in (stranger.id, "x"):
        status, _ = signed_in.refused(f"{path}/machines", {"offered": [machine], "machine": [machine]})
        assert status == 409, machine
    assert "No machines in this project yet" in signed_in.text(f"{path}/machines")


def test_a_policy_is_bound_and_unbound(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    path = path_of(project, secret)
    assert "No policies in this project yet" in signed_in.text(f"{path}/policy")
    policy = desk(vault).call("POST", f"{PROJECTS}/{project}/policies", {"name": "Ten", "ttlMaxReads": 10})["id"]
    assert "at most 10 times in total" in signed_in.text(f"{path}/policy")
    signed_in.post(f"{path}/policy", {"policy": policy})
    page = signed_in.text(path)
    assert "Bound Ten to DATABASE_URL." in page
    assert "at most 10 times in total" in page
    signed_in.post(f"{path}/policy", {"policy": ""})
    assert "every machine with a grant" in signed_in.text(path)
    signed_in.post(f"{path}/policy", {"policy": ""})  # nothing is bound, so nothing happens
    assert (len(by_owner(vault, "policy_bind")), len(by_owner(vault, "policy_unbind"))) == (1, 1)
    assert signed_in.refused(f"{path}/policy", {"policy": "pol_x"})[0] == 404


# ---- every page ------------------------------------------------------------------------------------------------------

FORMS = ("", "/edit", "/replace", "/rotate", "/schedule", "/machines", "/policy", "/reveal")


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    vault = signed_in.vault
    project = make_project(vault, HOSTILE)
    value = json.dumps({HOSTILE: "value-1"})
    secret = make_secret(vault, project, HOSTILE, value, note=HOSTILE, fieldNames=[HOSTILE])
    grant(vault, pending_machine(vault, HOSTILE, hostname=HOSTILE), secret)
    policy = desk(vault).call("POST", f"{PROJECTS}/{project}/policies", {"name": HOSTILE})["id"]
    signed_in.post(f"{path_of(project, secret)}/policy", {"policy": policy})
    for form in (*FORMS, "/../new"):
        path = path_of(project, secret) + form if form != "/../new" else f"/projects/{project}/secrets/new"
        page = signed_in.text(path)
        assert SHOWN in page, path
        assert "<script>" not in page, path


def test_a_secret_of_another_project_is_not_found(signed_in: SignedIn, project: str) -> None:
    secret, other = make_secret(signed_in.vault, project), make_project(signed_in.vault, "Other")
    for form in FORMS:
        assert signed_in.get(path_of(other, secret) + form).status == 404, form
        assert signed_in.get(path_of(project, "sk_x") + form).status == 404, form
    for form in (
        "/edit",
        "/replace",
        "/rotate",
        "/rollback",
        "/delete",
        "/schedule",
        "/machines",
        "/policy",
        "/reveal",
    ):
        assert signed_in.refused(path_of(other, secret) + form)[0] == 404, form
    assert signed_in.vault.value(secret) == "value-1"


def test_the_value_of_a_canary_belongs_to_the_vault(signed_in: SignedIn, project: str) -> None:
    canary = desk(signed_in.vault).call("POST", "/v1/ai/canaries", {"projectId": project, "name": "AWS"})["id"]
    path = path_of(project, canary)
    page = signed_in.text(path)
    assert "Replace value" not in page
    assert "Roll back" not in page
    for form in ("/replace", "/schedule"):
        assert signed_in.get(path + form).status == 409, form
        assert signed_in.refused(path + form, {"value": "x", "every": "1", "unit": "days"})[0] == 409, form
    signed_in.post(f"{path}/rotate", {"length": "12", "charset": "numbers"})
    assert len(signed_in.vault.value(canary)) == 64


# ---- in a browser ----------------------------------------------------------------------------------------------------


def test_a_person_makes_a_secret_by_hand(browser: Browser, vault: Vault) -> None:
    project = make_project(vault)
    browser.open(f"/projects/{project}")
    browser.press("New secret")
    browser.until(lambda: browser.all("#value"))
    browser.one("#name").send_keys("STRIPE_KEY")
    browser.type("value", "line 1\nline 2")
    field = browser.one("#value")
    assert field.value_of_css_property("-webkit-text-security") == "disc"
    browser.one(".reveal").click()
    assert field.value_of_css_property("-webkit-text-security") == "none"
    browser.press("Create secret")
    browser.until(lambda: "Created STRIPE_KEY." in browser.main)
    secret = browser.driver.current_url.rpartition("/")[2]
    assert vault.value(secret) == "line 1\nline 2"
