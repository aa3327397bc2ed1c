"""Policies: the form of their conditions, bindings, and trying a read."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import HOSTILE, PROJECTS, SHOWN, by_owner, desk, make_project, make_secret
from tests.vault.support.machines import Machine, grant, granted_machine, pending_machine
from tests.vault.support.served_vault import Vault
from vault.dashboard.queries import trials
from vault.domains import axes

FULL = {
    "name": "Strict",
    "description": "Everything",
    "timeWindowEnabled": "yes",
    "timeWindowStart": "08:00",
    "timeWindowEnd": "18:00",
    "timeWindowTimezone": "Europe/Copenhagen",
    "timeWindowDays": ["mon", "tue", "wed"],
    "ipAllowlistEnabled": "yes",
    "ipAllowlistCidrs": "192.0.2.0/24\r\n\r\n 2001:db8::/32 ",
    "rateCapEnabled": "yes",
    "maxReadsPerMinute": "5",
    "maxReadsPerDay": "",
    "coSignEnabled": "yes",
    "coSignWindowSeconds": "60",
    "ttlExpiresAt": "2026-03-01T12:30",
    "ttlMaxReads": "100",
    "rotateAfterReads": "10",
}


@pytest.fixture
def project(vault: Vault) -> str:
    return make_project(vault)


def rules(vault: Vault) -> dict[str, Any]:
    """The stored rules of the only policy."""
    with vault.store.transaction() as db:
        return dict(json.loads(db.execute("SELECT rules FROM policies").fetchone()[0]))


def make_policy(vault: Vault, project: str, **more: Any) -> str:
    return str(desk(vault).call("POST", f"{PROJECTS}/{project}/policies", {"name": "Ten", **more})["id"])


def bind(vault: Vault, secret: str, policy: str) -> None:
    desk(vault).call("POST", f"/v1/ai/secrets/{secret}/binding", {"policyId": policy})


# ---- the form --------------------------------------------------------------------------------------------------------


def test_every_condition_of_the_form(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    machine = granted_machine(vault, make_secret(vault, project))
    assert "No policies yet" in signed_in.text(f"/projects/{project}/policies")
    path = signed_in.post(f"/projects/{project}/policies/new", {**FULL, "coSignMachineId": machine.id})
    assert rules(vault) == {
        "timeWindowEnabled": True,
        "timeWindowStart": "08:00",
        "timeWindowEnd": "18:00",
        "timeWindowTimezone": "Europe/Copenhagen",
        "timeWindowDays": ["mon", "tue", "wed"],
        "ipAllowlistEnabled": True,
        "ipAllowlistCidrs": ["192.0.2.0/24", "2001:db8::/32"],
        "rateCapEnabled": True,
        "maxReadsPerMinute": 5,
        "coSignEnabled": True,
        "coSignMachineId": machine.id,
        "coSignWindowSeconds": 60,
        "ttlExpiresAt": 1_772_368_200_000,
        "ttlMaxReads": 100,
        "rotateAfterReads": 10,
    }
    said = (
        "Mon to Wed from 08:00 to 18:00 (Europe/Copenhagen), from 192.0.2.0/24 and 2001:db8::/32, at most 5 times a"
        " minute, at most 100 times in total, until 2026-03-01 12:30 UTC, only if web-1 and another machine ask for the"
        " same secret within 60 seconds of each other. The value changes after 10 reads. Bound to no secret yet."
    )
    page = signed_in.text(path)
    assert f"Saved Strict: Machines may read {said}" in page
    assert said in signed_in.text(f"/projects/{project}/policies")
    assert len(by_owner(vault, "policy_create")) == 1

    # The form shows the same again, and sends it back unchanged.
    form = signed_in.text(f"{path}/edit")
    for value in ("08:00", "Europe/Copenhagen", "2026-03-01T12:30", "60", "100", "10"):
        assert f'value="{value}"' in form, value
    assert form.count(" checked") == 4 + 3
    assert "192.0.2.0/24\n2001:db8::/32</textarea>" in form
    before = rules(vault)
    signed_in.post(f"{path}/edit", {**FULL, "coSignMachineId": machine.id})
    assert rules(vault) == before
    assert not by_owner(vault, "policy_update")
    assert {key for key in FULL if key.endswith(("Enabled", "At", "Reads", "Minute"))} <= set(axes.FIELDS)


def test_conditions_are_taken_away(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    policy = make_policy(vault, project, ttlExpiresAt=2**53 - 1, ttlMaxReads=10, rotateAfterReads=5)
    path = f"/projects/{project}/policies/{policy}"
    assert 'value="9999-12-31T00:00"' in signed_in.text(f"{path}/edit")
    signed_in.post(f"{path}/edit", {"name": "Open", "description": "", "rotateAfterReads": "5"})
    assert rules(vault) == {"rotateAfterReads": 5}
    assert by_owner(vault, "policy_update") == [f"policy {policy}: name, ttlExpiresAt, ttlMaxReads changed"]


def test_a_preview_saves_nothing(signed_in: SignedIn, project: str) -> None:
    form = {"name": "Ten", "ttlMaxReads": "10", "then": "preview"}
    reply = signed_in.send(f"/projects/{project}/policies/new", {"csrf": signed_in.csrf, **form})
    page = reply.raw.decode()
    assert reply.status == 200
    assert "Machines may read at most 10 times in total. Nothing is saved yet." in page
    assert 'value="10"' in page
    assert "No policies yet" in signed_in.text(f"/projects/{project}/policies")


def test_what_the_form_refuses(signed_in: SignedIn, project: str) -> None:
    stranger = pending_machine(signed_in.vault)
    machine = granted_machine(signed_in.vault, make_secret(signed_in.vault, project))
    for changed, said in (
        ({"name": ""}, "Name must be"),
        ({"timeWindowStart": ""}, "The start is missing"),
        ({"timeWindowStart": "8"}, "The start must be a time of day"),
        ({"timeWindowEnabled": ""}, "not ticked: tick “Only on some days and hours”, or empty its fields"),
        ({"ipAllowlistEnabled": ""}, "not ticked: tick “Only from some addresses”"),
        ({"rateCapEnabled": ""}, "not ticked: tick “Only so often”"),
        ({"coSignEnabled": ""}, "not ticked: tick “Only if another machine asks as well”"),
        ({"timeWindowTimezone": "Mars/Base"}, "The time zone must be an IANA time zone"),
        ({"timeWindowDays": []}, "Tick at least one day"),
        ({"ipAllowlistCidrs": "\r\n"}, "List at least one address"),
        ({"ipAllowlistCidrs": "example.com"}, "The addresses must contain only IP addresses"),
        ({"maxReadsPerMinute": "five"}, "The number of reads per minute must be a whole number"),
        ({"maxReadsPerMinute": ""}, "Enter the reads per minute or the reads per day"),
        ({"maxReadsPerMinute": "0"}, "The number of reads per minute must be an integer from 1"),
        ({"coSignMachineId": ""}, "The second machine is missing"),
        ({"coSignMachineId": stranger.id}, "The second machine must be a machine of the project"),
        ({"coSignWindowSeconds": ""}, "The number of seconds is missing"),
        ({"ttlExpiresAt": "tomorrow"}, "must be a date and a time"),
        ({"ttlExpiresAt": "2025-12-31T23:59"}, "The end of the policy is in the past"),
        ({"ttlExpiresAt": "0026-03-01T12:30"}, "The end of the policy is in the past"),
        ({"ttlMaxReads": "-1"}, "must be a whole number"),
    ):
        form = {**FULL, "coSignMachineId": machine.id, **changed}
        reply = signed_in.send(f"/projects/{project}/policies/new", {"csrf": signed_in.csrf, **form})
        page = reply.raw.decode()
        assert (reply.status, said in page) == (400, True), changed
        assert "Everything</textarea>" in page, changed
    assert "No policies yet" in signed_in.text(f"/projects/{project}/policies")


def test_a_machine_that_left_the_project_may_stay_in_a_policy(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    machine = granted_machine(vault, make_secret(vault, project))
    path = signed_in.post(f"/projects/{project}/policies/new", {**FULL, "coSignMachineId": machine.id})
    desk(vault).call("POST", f"{PROJECTS}/{project}/machines/{machine.id}/detach")
    signed_in.post(f"{path}/edit", {**FULL, "name": "Renamed", "coSignMachineId": machine.id})
    assert "Renamed" in signed_in.text(path)


# ---- bindings --------------------------------------------------------------------------------------------------------


def test_a_policy_is_bound_unbound_and_deleted(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    path = f"/projects/{project}/policies/{make_policy(vault, project, ttlMaxReads=10)}"
    signed_in.post(f"{path}/bind", {"secret": secret})
    page = signed_in.text(path)
    assert "Bound Ten to DATABASE_URL." in page
    assert "Bound to one secret." in page
    assert f"{path}/delete" not in page
    assert signed_in.refused(f"{path}/delete")[0] == 409
    signed_in.post(f"{path}/unbind", {"secret": secret})
    assert signed_in.refused(f"{path}/unbind", {"secret": secret})[0] == 404
    assert signed_in.refused(f"{path}/bind", {"secret": "sk_x"})[0] == 404
    assert signed_in.refused(f"{path}/bind", {"secret": ""})[0] == 404
    assert signed_in.post(f"{path}/delete") == f"/projects/{project}/policies"
    for action in ("bind", "unbind", "delete"):
        assert len(by_owner(vault, f"policy_{action}")) == 1, action


def test_a_secret_in_the_trash_stays_bound(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    policy = make_policy(vault, project)
    bind(vault, secret, policy)
    desk(vault).call("POST", f"{PROJECTS}/{project}/secrets/{secret}/delete")
    assert "in trash" in signed_in.text(f"/projects/{project}/policies/{policy}")


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault, HOSTILE)
    secret = make_secret(vault, project, HOSTILE)
    machine = pending_machine(vault, HOSTILE)
    grant(vault, machine, secret)
    cosign = {"coSignEnabled": True, "coSignMachineId": machine.id, "coSignWindowSeconds": 9}
    policy = make_policy(vault, project, description=HOSTILE, **{"name": HOSTILE, **cosign})
    bind(vault, secret, policy)
    for path in ("", "/new", f"/{policy}", f"/{policy}/edit", f"/test?secret={secret}&machine={machine.id}"):
        page = signed_in.text(f"/projects/{project}/policies{path}")
        assert SHOWN in page, path
        assert "<script>" not in page, path


def test_a_policy_of_another_project_is_not_found(signed_in: SignedIn, project: str) -> None:
    vault, other = signed_in.vault, make_project(signed_in.vault, "Other")
    path = f"/projects/{other}/policies/{make_policy(vault, project)}"
    for form in ("", "/edit"):
        assert signed_in.get(path + form).status == 404, form
    for form in ("/edit", "/bind", "/unbind", "/delete"):
        assert signed_in.refused(path + form, {"name": "x"})[0] == 404, form
    secret, machine = make_secret(vault, project), pending_machine(vault)
    assert signed_in.get(f"/projects/{other}/policies/test?secret={secret}&machine={machine.id}").status == 404


# ---- trying a read ---------------------------------------------------------------------------------------------------


def everything(vault: Vault) -> list[str]:
    """All rows of the vault."""
    with vault.store.transaction() as db:
        return list(db.iterdump())


def result(signed_in: SignedIn, project: str, secret: str, machine: Machine, address: str = "127.0.0.1") -> str:
    """Yes or the reason, as the page says it. Trying must change nothing."""
    before = everything(signed_in.vault)
    page = signed_in.text(f"/projects/{project}/policies/test?secret={secret}&machine={machine.id}&address={address}")
    assert everything(signed_in.vault) == before
    found = re.search(r"</span> (Yes|No)</h2><p>(.*?)</p>", page)
    assert found, page
    return "yes" if found[1] == "Yes" else unescape(found[2])


def test_each_condition_that_refuses_a_read_is_named(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    machine = granted_machine(vault, secret)
    assert set(trials.AXES) == set(axes.AXES)
    assert result(signed_in, project, secret, machine) == "yes"
    window = {"timeWindowEnabled": True, "timeWindowTimezone": "UTC", "timeWindowDays": ["thu"]}
    cosign = {"coSignEnabled": True, "coSignMachineId": machine.id, "coSignWindowSeconds": 60}
    for axis, given in (  # the clock shows a Thursday, 00:00
        ("ttlExpiresAt", {"ttlExpiresAt": vault.clock()}),
        ("timeWindow", {**window, "timeWindowStart": "08:00", "timeWindowEnd": "18:00"}),
        ("ipAllowlist", {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["192.0.2.0/24"]}),
        ("coSign", cosign),
    ):
        bind(vault, secret, make_policy(vault, project, **given))
        assert result(signed_in, project, secret, machine) == trials.AXES[axis].capitalize() + ".", axis
    bind(vault, secret, make_policy(vault, project, ipAllowlistEnabled=True, ipAllowlistCidrs=["192.0.2.0/24"]))
    assert result(signed_in, project, secret, machine, "192.0.2.7") == "yes"
    for axis, given in (
        ("ttlMaxReads", {"ttlMaxReads": 1}),
        ("maxReadsPerMinute", {"rateCapEnabled": True, "maxReadsPerMinute": 2}),
        ("maxReadsPerDay", {"rateCapEnabled": True, "maxReadsPerDay": 2}),
    ):
        bind(vault, secret, make_policy(vault, project, **given))
        reads = 0
        while machine.read(secret).status == 200:
            reads += 1
            vault.clock.advance(1)
        assert result(signed_in, project, secret, machine) == trials.AXES[axis].capitalize() + ".", axis
        assert reads, axis
        with vault.store.transaction() as db:
            db.execute("DELETE FROM policy_reads")


def test_what_else_refuses_a_read(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    machine = granted_machine(vault, secret)
    other, pending = granted_machine(vault, make_secret(vault, project, "OTHER")), pending_machine(vault)
    assert result(signed_in, project, secret, other) == "The machine has no grant for the secret."
    assert result(signed_in, project, secret, pending) == "Machine is pending approval."
    desk(vault).call("POST", "/v1/ai/ipallowlist", {"cidr": "192.0.2.0/24"})
    desk(vault).call("POST", "/v1/ai/ipallowlist/enable")
    assert "allowlist" in result(signed_in, project, secret, machine)
    desk(vault).call("POST", "/v1/ai/ipallowlist/disable")
    with vault.store.transaction() as db:
        db.execute("UPDATE secret_versions SET ciphertext = zeroblob(40) WHERE secret_id = ?", (secret,))
    assert "does not decrypt" in result(signed_in, project, secret, machine)


def test_trying_a_canary_warns_and_freezes_nothing(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    canary = desk(vault).call("POST", "/v1/ai/canaries", {"projectId": project, "name": "AWS"})["id"]
    machine, other = granted_machine(vault, canary), granted_machine(vault, make_secret(vault, project))
    for each in (machine, other):
        address = f"/projects/{project}/policies/test?secret={canary}&machine={each.id}"
        assert "It is a canary: a real request would freeze Webshop." in signed_in.text(address)
    assert "frozen" not in signed_in.text("/projects")
    assert not vault.audited("canary_triggered")


def test_a_trial_begins_with_the_address_of_the_last_read(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project)
    machine = granted_machine(vault, secret)
    machine.read(secret)
    address = f"/projects/{project}/policies/test?secret={secret}&machine={machine.id}"
    assert 'name="address" type="text" value="127.0.0.1"' in signed_in.text(address)
    assert signed_in.get(f"{address}&address=x").status == 400
    assert signed_in.get(f"/projects/{project}/policies/test?secret={secret}&machine=x").status == 404
    assert signed_in.get(f"/projects/{project}/policies/test?secret=sk_x&machine={machine.id}").status == 404
