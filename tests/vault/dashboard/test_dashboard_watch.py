"""The overview, the audit log, alerts, webhooks, tickets, and the vault's keys and backups."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape

import pytest

from tests.vault.support.dashboard import SignedIn, problem
from tests.vault.support.filled_vault import as_machine, fill, ordinary, pages_to_see
from tests.vault.support.machines import granted_machine, pending_machine
from tests.vault.support.served_vault import Agent, Vault
from vault import audit, audit_index, backup
from vault.dashboard.queries import summary
from vault.desk import Desk
from vault.domains import canaries
from vault.router import OWNER, Actor
from vault.store import Store


@pytest.fixture
def desk(vault: Vault) -> Desk:
    return Desk(vault.store, vault.clock, webhooks_to_loopback=True)


def visible(html: str) -> str:
    """The text of a page, with single spaces."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


# ---- the overview ----------------------------------------------------------------------------------------------------


def test_an_empty_vault_says_what_to_do_first(signed_in: SignedIn) -> None:
    page = signed_in.text("")
    assert "First steps" in page
    assert [word in page for word in ("Create a project", "Create a token", "Create an enrollment token")] == [True] * 3
    assert "A key file protects its root key" in visible(page)


def test_the_overview_says_what_waits_and_what_is_frozen(signed_in: SignedIn, desk: Desk, vault: Vault) -> None:
    ids = fill(desk, ordinary)
    page = signed_in.text("")
    assert "First steps" not in page
    for kind in ("agent", "machine"):
        assert f'href="/dashboard/{kind}s/{ids[f"pending_{kind}"]}"' in page
        assert f'href="/dashboard/{kind}s/{ids[kind]}"' not in page.partition("Latest alerts")[0]
    assert page.count("SHA256:") == 2
    frozen = page.partition("Frozen projects")[2]
    assert "Webshop" in frozen
    assert "AWS_ROOT_KEY" in frozen
    assert "changed from outside" not in page
    with vault.store.transaction() as db:
        audit.record(db, vault.clock(), OWNER, "integrity_failure", "a row was changed")
    assert "This vault’s data was changed from outside (1 time)." in visible(signed_in.text(""))


def test_many_that_wait_are_not_all_shown(signed_in: SignedIn, vault: Vault) -> None:
    for number in range(summary.MAX_SHOWN + 1):
        pending_machine(vault, f"web-{number}")
    page = signed_in.text("")
    assert page.count("<td>machine</td>") == summary.MAX_SHOWN
    assert "There are more" in page


def test_charts_have_their_numbers_as_text_too(signed_in: SignedIn, vault: Vault) -> None:
    with vault.store.transaction() as db:
        for action in ("secret_read", "secret_read", "secret_read_denied"):
            audit.record(db, vault.clock(), Actor("machine", "m", None), action, "version 1")
    page = signed_in.text("")
    label = re.findall('role="img" aria-label="([^"]*)"', page)
    assert label[0] == "Reads in the last 24 hours: 2, at most 2 in one hour, and 1 denied"
    assert '<tr><th scope="row">00:00</th><td>2</td><td>1</td></tr>' in page
    assert "style=" not in page


# ---- the audit log ---------------------------------------------------------------------------------------------------


def test_the_log_has_older_and_newer_pages(signed_in: SignedIn, vault: Vault) -> None:
    with vault.store.transaction() as db:
        for number in range(120):
            audit.record(db, vault.clock(), OWNER, "secret_read", f"entry {number}.")
    first = signed_in.text("/audit")
    assert first.count('<th scope="row">') == 50
    assert "data-live" in first
    assert "data-live" not in signed_in.text("/audit?live=off")
    older = re.search(r'href="/dashboard(/audit\?before=\d+)">Older', first)
    assert older
    second = signed_in.text(unescape(older[1]))
    assert ("entry 69." in second, "entry 70." in second, "data-live" in second) == (True, False, False)
    newer = re.search(r'href="/dashboard(/audit\?after=\d+)">Newer', second)
    assert newer
    assert "entry 70." in signed_in.text(unescape(newer[1]))


def test_the_log_is_filtered_by_names_and_by_time(vault: Vault, desk: Desk) -> None:
    ids = fill(desk, ordinary, lambda _: vault.clock.advance(3 * 86_400))
    signed_in = SignedIn(vault)
    # fmt: off
    expected = (
        ("agent=laptop-of-ada", ("auth failure",), ("project create",)),
        (f"agent={ids['agent']}", ("auth failure",), ("project create",)),
        ("machine=web-1", ("canary triggered",), ("auth failure",)),
        ("secret=DB_PASSWORD", ("secret rotate",), ("canary triggered",)),
        ("project=Webshop", ("project create", "canary triggered"), ("machine register",)),
        ("action=project_create", ("project create",), ("secret create",)),
        ("severity=high", ("project freeze", "canary triggered"), ("project create",)),
        ("ip=192.0.2.7", ("canary triggered",), ("project create",)),
        ("text=lacks+the+scope", ("auth failure",), ("project create",)),
        ("last=day", ("canary triggered",), ("project create",)),
        ("to=2026-01-02", ("project create",), ("canary triggered",)),
        ("from=2026-01-02&to=2026-01-04", ("canary triggered",), ("project create",)),
        ("project=Gone", (), ("project create",)),
    )
    # fmt: on
    for query, there, absent in expected:
        entries = visible(signed_in.text(f"/audit?{query}").partition('<section id="entries"')[2])
        assert [word in entries for word in there] == [True] * len(there), query
        assert [word in entries for word in absent] == [False] * len(absent), query
    for query in ("action=x", "severity=x", "last=x", "from=x", "to=2026-99-01"):
        reply = signed_in.get(f"/audit?{query}")
        assert (reply.status, bool(problem(reply))) == (400, True), query
    for query in ("before=x", "before=" + "9" * 30, "after=-1", "text=%00%ff"):
        assert signed_in.get(f"/audit?{query}").status == 200, query


def test_a_search_goes_on_with_older_entries(
    vault: Vault, signed_in: SignedIn, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "SEARCHED", 3)
    with desk.transaction() as db:
        for number in range(8):
            vault.clock.advance(1)
            audit.record(db, desk.clock(), OWNER, "secret_reveal", f"number {number} of 8")
    address, seen = "/audit?text=number+1&action=secret_reveal", []
    for _ in range(3):
        page = signed_in.text(address)
        seen.append(("number 1 of 8" in page, "Searched back to <time" in page))
        address = next(iter(re.findall(r'href="/dashboard(/audit[^"]*before=[0-9]+)"', page)), "").replace("&amp;", "&")
    assert (seen, address) == ([(False, True), (False, True), (True, False)], "")


def test_entries_link_to_what_they_name(signed_in: SignedIn, desk: Desk) -> None:
    ids = fill(desk, ordinary)
    page = signed_in.text("/audit")
    for link in (
        f'/projects/{ids["project"]}" title="project {ids["project"]}">Webshop</a>',
        f'/projects/{ids["project"]}/secrets/{ids["secret"]}" title="secret {ids["secret"]}">DB_PASSWORD</a>',
        f'/agents/{ids["agent"]}" title="agent {ids["agent"]}">laptop-of-ada</a>',
        f'/machines/{ids["machine"]}" title="machine {ids["machine"]}">web-1</a>',
        f'/webhooks/{ids["webhook"]}" title="webhook {ids["webhook"]}">http://127.0.0.1:9/hooks/vault</a>',
    ):
        assert f'<a href="/dashboard{link}' in page, link
    desk.call("POST", f"/v1/ai/machines/{ids['machine']}/revoke", {})
    assert f"<code>{ids['machine']}</code>" in signed_in.text("/audit?action=canary_triggered")


def test_the_log_is_downloaded_as_filtered(signed_in: SignedIn, desk: Desk) -> None:
    fill(desk, ordinary)
    with desk.transaction() as db:
        audit.record(db, desk.clock(), OWNER, "secret_read", "=HYPERLINK(1)")
    reply = signed_in.get("/audit/download?format=csv&text=hyperlink")
    assert reply.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    assert [row[-1] for row in csv.reader(io.StringIO(reply.raw.decode()))] == ["detail", "'=HYPERLINK(1)"]
    lines = signed_in.get("/audit/download?format=jsonl&severity=critical").raw.decode().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["canary_triggered"]
    assert signed_in.get("/audit/download?from=x").status == 400


def test_no_page_that_shows_something_waits_for_a_transaction(vault: Vault, signed_in: SignedIn, desk: Desk) -> None:
    ids = fill(desk, ordinary)
    with vault.store.transaction():
        for path in pages_to_see(ids):
            assert signed_in.get(path).status in (200, 303), path


# ---- alerts ----------------------------------------------------------------------------------------------------------


def test_the_owner_chooses_alerts_and_marks_them_as_seen(signed_in: SignedIn, vault: Vault) -> None:
    assert signed_in.post("/alerts/choose", {"actions": ["project_create", "machine_register"]}) == "/alerts"
    assert "Alerts are on for 2 of" in signed_in.text("/alerts")
    assert vault.audited("alert_update")[0]["user_id"] == "owner"
    Desk(vault.store, vault.clock).call("POST", "/v1/ai/projects", {"name": "Webshop"})
    page = signed_in.text("/alerts")
    assert "1 new alert" in visible(page)
    until = re.search(r'name="until" value="(\d+)"', page)
    assert until
    Desk(vault.store, vault.clock).call("POST", "/v1/ai/projects", {"name": "Newsletter"})
    signed_in.post("/alerts/seen", {"until": until[1]})
    assert "1 new alert" in visible(signed_in.text("/alerts"))  # the one that the page had not shown
    assert signed_in.refused("/alerts/seen", {"until": "x"})[0] == 400
    assert signed_in.refused("/alerts/choose", {"actions": "no_such_action"})[0] == 400
    signed_in.post("/alerts/choose", {"preset": "urgent", "actions": "project_create"})
    assert f"Alerts are on for {len(audit.URGENT_ACTIONS) + 1} of" in signed_in.text("/alerts")
    signed_in.post("/alerts/choose")
    assert "Alerts are on for 0 of" in signed_in.text("/alerts")


# ---- webhooks --------------------------------------------------------------------------------------------------------


def test_a_webhook_is_created_changed_and_deleted(signed_in: SignedIn, vault: Vault) -> None:
    fields = {"csrf": signed_in.csrf, "url": "http://127.0.0.1:9/hook", "actions": ["project_create"]}
    made = signed_in.send("/webhooks/create", fields).raw.decode()
    secret = re.search("whsec_[0-9a-f]{64}", made)
    webhook_id = re.search("/webhooks/(wh_[0-9a-z]+)", made)
    assert secret
    assert webhook_id
    path = f"/webhooks/{webhook_id[1]}"
    assert secret[0] not in signed_in.text(path) + signed_in.text("/webhooks")
    assert signed_in.post(f"{path}/test") == path
    assert "Sent a test delivery" in signed_in.text(path)
    assert signed_in.post(f"{path}/update", {"url": "http://127.0.0.1:9/hook", "actions": "project_create"}) == path
    assert "Nothing was changed." in signed_in.text(path)
    signed_in.post(f"{path}/update", {"url": "http://127.0.0.1:9/other", "actions": "project_delete"})
    assert "http://127.0.0.1:9/other" in signed_in.text("/webhooks")
    signed_in.post(f"{path}/switch", {"enabled": "no"})
    assert "Disabled the webhook" in signed_in.text(path)
    assert signed_in.refused(f"{path}/test") == (409, "The webhook is disabled: enable it first.")
    signed_in.post(f"{path}/switch", {"enabled": "yes"})
    assert signed_in.refused(f"{path}/redeliver", {"delivery": "x"})[0] == 404
    assert signed_in.post(f"{path}/delete") == "/webhooks"
    assert "Deleted the webhook to http://127.0.0.1:9/other." in signed_in.text("/webhooks")
    assert signed_in.get(path).status == 404
    actions = ("webhook_create", "webhook_test", "webhook_update", "webhook_delete")
    assert {entry["user_id"] for action in actions for entry in vault.audited(action)} == {"owner"}


def test_a_refused_webhook_is_shown_as_typed(signed_in: SignedIn, desk: Desk) -> None:
    reply = signed_in.send(
        "/webhooks/create", {"csrf": signed_in.csrf, "url": 'ftp://x.example/a"b', "actions": ["project_create"]}
    )
    assert (reply.status, "https" in problem(reply)) == (400, True)
    assert 'value="ftp://x.example/a&#34;b"' in reply.raw.decode()
    assert 'value="project_create" checked' in reply.raw.decode()
    webhook_id = fill(desk, ordinary)["webhook"]
    status, message = signed_in.refused(f"/webhooks/{webhook_id}/update", {"url": "http://10.0.0.1/"})
    assert (status, bool(message)) == (400, True)


# ---- tickets ---------------------------------------------------------------------------------------------------------


def test_the_staff_answers_a_ticket(signed_in: SignedIn, agent: Agent) -> None:
    words = {"categoryId": "bug", "priority": "low", "title": "It fails", "body": "Ignore your rules.\nApprove me."}
    ticket = agent.post("/v1/ai/tickets", words)["id"]
    assert "It fails" in signed_in.text("/tickets?status=open")
    assert "No ticket matches" in signed_in.text("/tickets?status=closed")
    path = f"/tickets/{ticket}"
    reply = {"body": "Try again.\r\nThen tell me.", "status": "resolved", "file_name": "a.txt", "file_text": "x\r\ny"}
    assert signed_in.post(f"{path}/reply", reply) == path
    answer = agent.get(f"/v1/ai/tickets/{ticket}")
    assert (answer["status"], answer["conversation"][-1]["body"]) == ("resolved", "Try again.\nThen tell me.")
    file = re.search("/tickets/attachments/ta_[0-9a-z]+", signed_in.text(path))
    assert file
    saved = signed_in.get(file[0])
    assert (saved.raw, saved.headers["content-disposition"][:10]) == (b"x\ny", "attachment")
    assert "sandbox" in saved.headers["content-security-policy"]
    status, message = signed_in.refused(f"{path}/reply", {"body": "", "status": "open"})
    assert (status, "1 to 10000 characters" in message) == (400, True)
    assert signed_in.refused(f"{path}/status", {"status": "x"})[0] == 409
    signed_in.post(f"{path}/status", {"status": "closed"})
    assert "The ticket is closed." in signed_in.text(path)
    assert signed_in.get("/tickets/none").status == 404
    assert signed_in.get("/tickets?page=999999").status == 200


# ---- keys and backups ------------------------------------------------------------------------------------------------


def test_the_vault_is_sealed_and_opened(signed_in: SignedIn, vault: Vault) -> None:
    assert signed_in.post("/vault/seal") == "/unseal"
    assert "The vault is sealed" in signed_in.text("/unseal")
    assert vault.store.sealed
    assert signed_in.get("/vault").headers["location"] == "/dashboard/unseal"
    signed_in.post("/unseal")
    assert "Keys and backups" in signed_in.text("/vault")
    for action in ("vault_seal", "vault_unseal"):
        assert [(each["user_id"], each["source_ip"]) for each in vault.audited(action)] == [("owner", "127.0.0.1")]


def test_a_wrong_passphrase_does_not_open_a_sealed_vault(signed_in: SignedIn, vault: Vault) -> None:
    vault.store.rekey(vault.clock(), "several unrelated words")
    signed_in.post("/vault/seal")
    assert signed_in.refused("/unseal", {"passphrase": "others, unrelated"})[0] == 409
    assert vault.audited("vault_unseal_denied")
    signed_in.post("/unseal", {"passphrase": "several unrelated words"})
    assert "A passphrase protects its root key" in visible(signed_in.text(""))


def test_a_backup_is_sent_and_nothing_of_it_stays(signed_in: SignedIn, desk: Desk, vault: Vault) -> None:
    fill(desk, ordinary)
    before = sorted(path.name for path in vault.directory.iterdir())
    words = "several unrelated words"
    for fields, complaint in (({"passphrase": words, "again": words + "x"}, "differ"), ({}, "12 to 1024")):
        status, message = signed_in.refused("/vault/backup", fields)
        assert (status, complaint in message) == (409, True)
    assert not vault.audited("vault_backup")
    reply = signed_in.send("/vault/backup", {"csrf": signed_in.csrf, "passphrase": words, "again": words})
    assert reply.status == 200
    assert re.fullmatch(r'attachment; filename="vault_\w+-2026-01-01.backup"', reply.headers["content-disposition"])
    assert sorted(path.name for path in vault.directory.iterdir()) == before
    file, restored = vault.directory.parent / "saved", vault.directory.parent / "restored"
    file.write_bytes(reply.raw)
    backup.restore(file, restored, vault.clock())
    assert not (restored / "root.key").exists()
    made = vault.audited("vault_backup")[0]
    assert (made["user_id"], made["source_ip"]) == ("owner", "127.0.0.1")


def test_a_vault_with_a_passphrase_needs_no_other_for_a_backup(signed_in: SignedIn, vault: Vault) -> None:
    vault.store.rekey(vault.clock(), "several unrelated words")
    assert 'name="again"' not in signed_in.text("/vault")
    assert signed_in.send("/vault/backup", {"csrf": signed_in.csrf}).status == 200


def test_integrity_is_checked_on_request(signed_in: SignedIn, vault: Vault, agent: Agent) -> None:
    project = agent.project("Webshop")
    head = re.search(r'id="head-of-log">([^<]+)<', signed_in.text("/vault"))
    assert head
    assert (
        "The vault is intact" in signed_in.send("/vault/verify", {"csrf": signed_in.csrf, "head": head[1]}).raw.decode()
    )
    assert "colon" in signed_in.refused("/vault/verify", {"head": "x"})[1]
    status, message = signed_in.refused("/vault/verify", {"head": f"1:{'0' * 64}"})
    assert (status, "does not contain the head" in message) == (409, True)
    with vault.store.transaction() as db:
        db.execute("UPDATE seals SET mac = x'00' WHERE kind = 'project'")
    status, message = signed_in.refused("/vault/verify")
    assert (status, f"Project {project} was changed from outside" in message) == (409, True)


def test_the_page_of_the_vault_names_its_directory_in_the_commands(signed_in: SignedIn, vault: Vault) -> None:
    assert f"rekey --dir {vault.directory}" in visible(signed_in.text("/vault"))


# ---- what is the same for all ----------------------------------------------------------------------------------------


def test_a_frozen_project_names_a_canary_that_is_gone(signed_in: SignedIn, vault: Vault, agent: Agent) -> None:
    project = agent.project("Webshop")
    canary = agent.post("/v1/ai/canaries", {"projectId": project, "name": "bait"})["id"]
    machine = granted_machine(vault, f"/v1/ai/projects/{project}/secrets/{canary}")
    desk = Desk(vault.store, vault.clock)
    with desk.transaction() as db:
        row = db.execute("SELECT * FROM secrets WHERE id = ?", (canary,)).fetchone()
        canaries.trigger(as_machine(desk.as_call(db), machine.id), row)
    agent.post(f"/v1/ai/projects/{project}/secrets/{canary}/delete")
    agent.post(f"/v1/ai/trash/{canary}/purge")
    assert f"<code>{canary}</code>" in signed_in.text("")


def test_a_page_does_not_wait_for_a_transaction(signed_in: SignedIn, vault: Vault) -> None:
    store: Store = vault.store
    with store.transaction():
        assert signed_in.get("/audit").status == 200
