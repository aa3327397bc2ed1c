"""What the owner's pages ask the vault: the audit log in pages, names behind ids, what waits, and webhooks' results."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.vault.support.served_vault import Agent, FakeClock, Vault, run_job
from tests.vault.support.webhook_receiver import Receiver
from vault import audit
from vault.audit_index import Filters
from vault.dashboard.queries import audit_search, names, summary
from vault.dashboard.queries.audit_search import PAGE_SIZE, Found
from vault.desk import Desk
from vault.domains import alerts, support, webhooks
from vault.errors import Refusal, VaultError
from vault.router import OWNER, Actor


def record(vault: Vault, number: int, **more: str) -> None:
    with vault.store.transaction() as db:
        for place in range(number):
            audit.record(db, vault.clock(), OWNER, "secret_read", f"entry {place}", **more)


def found(vault: Vault, filters: Filters = Filters(), **edges: int) -> Found:  # noqa: B008  # it is immutable
    with vault.store.reader() as db:
        return audit_search.page(db, filters, **edges)


def test_the_log_has_pages_in_both_directions(vault: Vault) -> None:
    record(vault, PAGE_SIZE * 2 + 7)
    first = found(vault)
    second = found(vault, before=first.entries[-1]["id"])
    third = found(vault, before=second.entries[-1]["id"])
    assert [(each.has_newer, each.has_older) for each in (first, second, third)] == [
        (False, True),
        (True, True),
        (True, False),
    ]
    ids = [entry["id"] for each in (first, second, third) for entry in each.entries]
    assert ids == list(range(PAGE_SIZE * 2 + 7, 0, -1))
    assert found(vault, after=third.entries[0]["id"]) == second
    assert found(vault, after=second.entries[0]["id"]) == first


def test_each_filter_finds_its_entries(vault: Vault) -> None:
    machine = Actor("machine", "machine-1", "10.0.0.7")
    with vault.store.transaction() as db:
        audit.record(db, 1_000, OWNER, "project_create", "made A", project_id="proj_a")
        audit.record(db, 2_000, machine, "secret_read", "read B", secret_id="sk_b", project_id="proj_a")
        audit.record(db, 3_000, Actor("ai_agent", "agent-1", None), "canary_triggered", "C was read")
    # fmt: off
    expected = (
        (Filters(), [3, 2, 1]),
        (Filters(actions=["secret_read"]), [2]),
        (Filters(severities=["critical"]), [3]),
        (Filters(severities=["low", "medium", "high", "critical"]), [3, 1]),
        (Filters(agents=["agent-1", "agent-2"]), [3]),
        (Filters(machines=["machine-1"]), [2]),
        (Filters(secrets=["sk_b"]), [2]),
        (Filters(projects=["proj_a"]), [2, 1]),
        (Filters(source_ips=["10.0.0.7"]), [2]),
        (Filters(from_ms=2_000), [3, 2]),
        (Filters(to_ms=1_999), [1]),
        (Filters(search="MADE"), [1]),
        (Filters(projects=["proj_a"], severities=["low"]), [1]),
    )
    # fmt: on
    for filters, ids in expected:
        assert [entry["id"] for entry in found(vault, filters).entries] == ids, filters


def test_downloads_have_every_entry_and_no_formulas(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_search, "ROWS_AT_ONCE", 3)
    with vault.store.transaction() as db:
        for detail in ("=1+1", "+1", "-1", "@x", "plain, with a comma\nand a line", "\u202e", "last"):
            audit.record(db, vault.clock(), OWNER, "secret_read", detail)
    filters = Filters(actions=["secret_read"])
    table = list(csv.reader(io.StringIO(b"".join(audit_search.as_csv(vault.store.reader, filters)).decode())))
    assert table[0] == list(audit_search.COLUMNS)
    shown = ["last", "\u202e", "plain, with a comma\nand a line", "'@x", "'-1", "'+1", "'=1+1"]
    assert [row[-1] for row in table[1:]] == shown
    pieces = [piece.decode().splitlines() for piece in audit_search.as_json_lines(vault.store.reader, filters)]
    assert [len(piece) for piece in pieces] == [3, 3, 1], "memory is bounded"
    assert json.loads(pieces[-1][-1])["detail"] == "=1+1"


def test_names_stand_for_ids_that_exist(vault: Vault, agent: Agent) -> None:
    project = agent.project("Webshop")
    secret = agent.secret(project, "x").rpartition("/")[2]
    text = f"agent {agent.id} put {secret} into {project}, not proj_{'x' * 24} nor {project}x"
    with vault.store.reader() as db:
        known = names.by_ids(db, names.ID.findall(text))
        assert names.ids_of(db, "project", "Webshop") == [project]
        assert names.ids_of(db, "project", project) == [project]
    shown = [part if isinstance(part, str) else (part.kind, part.name) for part in names.parts(text, known)]
    assert shown == [
        *("agent ", ("agent", "AI agent"), " put ", ("secret", "db"), " into ", ("project", "Webshop")),
        f", not proj_{'x' * 24} nor {project}x",
    ]


def test_the_summary_counts_and_says_what_waits(vault: Vault, agent: Agent) -> None:
    agent.project("Webshop")
    pending = vault.pending()
    with vault.store.reader() as db:
        assert summary.counts(db) == {"projects": 1, "secrets": 0, "agents": 2, "machines": 0, "failures": 0}
        waiting = summary.waiting_agents(db)
        assert ([each.id for each in waiting], waiting[0].fingerprint[:7]) == ([pending.id], "SHA256:")
        assert (summary.waiting_machines(db), summary.frozen(db)) == ([], [])


def test_alerts_that_the_owner_has_seen_stay_seen(vault: Vault) -> None:
    with vault.store.transaction() as db:
        assert alerts.seen_until(db) == 0
        alerts.mark_seen(db, 7)
        alerts.mark_seen(db, 3)  # an older page, sent late
        assert alerts.seen_until(db) == 7


def test_the_owner_sees_what_became_of_deliveries_and_sends_them_again(vault: Vault, clock: FakeClock) -> None:
    desk = Desk(vault.store, clock, webhooks_to_loopback=True)
    with Receiver() as receiver:
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook", "actions": ["project_create"]}
        webhook_id = desk.call("POST", "/v1/ai/webhooks", body)["id"]
        desk.call("POST", f"/v1/ai/webhooks/{webhook_id}/test")
        receiver.statuses.append(500)
        run_job(webhooks.deliver_due_to_loopback, vault.store, clock())
        with vault.store.reader() as db:
            (failed,) = webhooks.deliveries(db, webhook_id)
        assert (failed["event"], failed["attempts"], failed["status"], failed["error"]) == ("test", 1, 500, "status")
        assert '"userId":"owner"' in str(failed["body"])
        with desk.transaction() as db:
            webhooks.redeliver_as_owner(desk.as_call(db), webhook_id, str(failed["id"]))
        with vault.store.reader() as db:
            waiting, _ = webhooks.deliveries(db, webhook_id)
        assert (waiting["id"], waiting["nextAttemptAt"], waiting["endedAt"]) == (failed["id"], clock(), None)
        run_job(webhooks.deliver_due_to_loopback, vault.store, clock())
        with vault.store.reader() as db:
            again, _ = webhooks.deliveries(db, webhook_id)
        assert (again["id"], again["body"], again["status"]) == (failed["id"], failed["body"], 204)
        assert [each.headers["x-sikkerkey-delivery-id"] for each in receiver.received] == [failed["id"]] * 2
    assert vault.audited("webhook_test")[-1]["user_id"] == "owner"
    with desk.transaction() as db, pytest.raises(Refusal, match="no such delivery"):
        webhooks.redeliver_as_owner(desk.as_call(db), webhook_id, "other")
    desk.call("POST", f"/v1/ai/webhooks/{webhook_id}/update", {"enabled": False})
    with desk.transaction() as db, pytest.raises(Refusal, match="is disabled"):
        webhooks.redeliver_as_owner(desk.as_call(db), webhook_id, str(failed["id"]))


def test_only_the_latest_results_are_kept(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_RESULTS", 2)
    desk = Desk(vault.store, vault.clock, webhooks_to_loopback=True)
    with Receiver() as receiver:
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook", "actions": ["project_create"]}
        webhook_id = desk.call("POST", "/v1/ai/webhooks", body)["id"]
        for number in range(4):
            desk.call("POST", "/v1/ai/projects", {"name": f"project {number}"})
        run_job(webhooks.deliver_due_to_loopback, vault.store, vault.clock())
    with vault.store.reader() as db:
        kept = webhooks.deliveries(db, webhook_id)
    assert ["project 3" in str(kept[0]["body"]), "project 2" in str(kept[1]["body"]), len(kept)] == [True, True, 2]


def test_the_owner_sets_the_status_of_a_ticket(vault: Vault, agent: Agent) -> None:
    words = {"categoryId": "bug", "priority": "low", "title": "A title", "body": "Some words"}
    ticket = agent.post("/v1/ai/tickets", words)["id"]
    with vault.store.transaction() as db:
        support.set_status_as_owner(db, vault.clock(), ticket, "closed")
        with pytest.raises(VaultError, match="closed"):
            support.set_status_as_owner(db, vault.clock(), ticket, "open")
    assert agent.get(f"/v1/ai/tickets/{ticket}")["status"] == "closed"
    assert "now closed" in vault.audited("ticket_answer")[0]["detail"]
