"""Webhooks: signed deliveries of audit entries, received by a real HTTP server."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault, disk, run_job
from tests.vault.support.webhook_receiver import Received, Receiver
from vault import audit
from vault.app import create_app
from vault.domains import webhooks
from vault.domains.webhooks import deliver_due, deliver_due_to_loopback
from vault.jobs import JobRunner
from vault.outbound import Network
from vault.router import OWNER
from vault.schema import jobs

HOOKS = "/v1/ai/webhooks"
PUBLIC_URL = "https://hooks.example.com/in?key=in-the-url"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def url(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/hook"


def made(agent: Agent, url: str, *actions: str) -> dict[str, Any]:
    created: dict[str, Any] = agent.post(HOOKS, {"url": url, "actions": list(actions or ("project_create",))})
    return created


def tick(vault: Vault) -> None:
    run_job(deliver_due_to_loopback, vault.store, vault.clock())


def health(agent: Agent, webhook_id: str) -> dict[str, Any]:
    shown = agent.get(f"{HOOKS}/{webhook_id}")
    names = ("lastSuccessAt", "lastFailureAt", "lastStatus", "lastError", "consecutiveFailures", "queuedDeliveries")
    return {name: shown[name] for name in names}


def healthy(**changed: Any) -> dict[str, Any]:
    times = {"lastSuccessAt": None, "lastFailureAt": None, "lastStatus": None, "lastError": None}
    return {**times, "consecutiveFailures": 0, "queuedDeliveries": 0, **changed}


def content(received: Received) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(received.body)
    return parsed


# ---- the six routes --------------------------------------------------------------------------------------------------


def test_the_signing_secret_is_shown_once(vault: Vault, agent: Agent) -> None:
    body = {"url": PUBLIC_URL, "actions": ["secret_read", "project_create", "secret_read"]}
    reply = agent.send("POST", HOOKS, body)
    webhook_id, secret = reply.json["id"], reply.json["signingSecret"]
    chosen = ["project_create", "secret_read"]
    created = {"id": webhook_id, "url": PUBLIC_URL, "actions": chosen, "signingSecret": secret}
    assert (reply.status, reply.json) == (201, created)
    assert re.fullmatch(r"whsec_[0-9a-f]{64}", secret)
    shown = {"id": webhook_id, "url": PUBLIC_URL, "actions": chosen, "enabled": True, **healthy()}
    shown = {**shown, "droppedDeliveries": 0, "createdAt": START_MS, "updatedAt": START_MS}
    assert agent.get(f"{HOOKS}/{webhook_id}") == shown
    assert agent.get(HOOKS) == [shown]
    details = [row["detail"] for row in vault.audited("webhook_create")]
    assert details == [f"webhook {webhook_id} created for hooks.example.com"]
    assert secret.encode() not in disk(vault.directory)
    assert secret[6:].encode() not in disk(vault.directory)


def test_an_invalid_webhook_is_refused(agent: Agent) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"url": "http://hooks.example.com/"}, "url must begin with https://"),
        ({"url": "https://10.0.0.1/MARK"}, "url must not name a private or special address"),
        ({"url": "https://2130706433/MARK"}, "url must not name a private or special address"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "url must not name a private or special address"),
        ({"url": "https://user:MARK@hooks.example.com/"}, "url must look like https://host/path"),
        ({"url": "https://hooks.example.com/" + "MARK" * 512}, "url must be a string of 1 to 2048 characters"),
        ({"url": ""}, "url must be a string of 1 to 2048 characters"),
        ({"actions": []}, "actions must be a list of 1 to 1000 strings"),
        ({"actions": ["MARK"]}, "actions must contain names of audit actions: see /v1/ai/alerts/actions"),
        ({"actions": "project_create"}, "actions must be a list of 1 to 1000 strings"),
        ({"signingSecret": "MARK"}, "unknown key signingSecret"),
    ]
    kept = made(agent, PUBLIC_URL)["id"]
    for changed, error in cases:
        reply = agent.send("POST", HOOKS, {"url": PUBLIC_URL, "actions": ["project_create"], **changed})
        assert (reply.status, reply.error.startswith(error), "MARK" in reply.error) == (400, True, False), changed
        if "signingSecret" not in changed:
            assert agent.send("POST", f"{HOOKS}/{kept}/update", changed).status == 400, changed
        shown = [(row["id"], row["url"], row["actions"]) for row in agent.get(HOOKS)]
        assert shown == [(kept, PUBLIC_URL, ["project_create"])], changed


def test_receivers_on_this_computer_need_the_owners_consent(
    vault: Vault, agent: Agent, url: str, receiver: Receiver
) -> None:
    webhook_id = made(agent, url)["id"]
    vault._shared_server.app = create_app(vault.store, clock=vault.clock)
    error = "url must not lead to this computer, unless the owner starts serve --webhooks-to-loopback"
    for host in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST"):
        body = {"url": f"http://{host}:{receiver.port}/", "actions": ["project_create"]}
        for path in (HOOKS, f"{HOOKS}/{webhook_id}/update"):
            reply = agent.send("POST", path, body)
            assert (reply.status, reply.error) == (400, error), (host, path)
    agent.project()
    JobRunner(vault.store, vault.clock, jobs()).tick()
    assert (receiver.received, health(agent, webhook_id)["lastError"]) == ([], "refused")


def test_url_and_actions_are_required(agent: Agent) -> None:
    assert agent.send("POST", HOOKS, {"actions": ["project_create"]}).error == "url is required"
    assert agent.send("POST", HOOKS, {"url": PUBLIC_URL}).error == "actions is required"


def test_an_update_changes_only_the_given_keys(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    webhook_id = made(agent, PUBLIC_URL)["id"]
    path = f"{HOOKS}/{webhook_id}"
    clock.advance(1)
    assert agent.post(path + "/update", {"actions": ["secret_read"]}) == {"id": webhook_id, "enabled": True}
    changed = agent.get(path)
    assert (changed["url"], changed["actions"], changed["updatedAt"]) == (PUBLIC_URL, ["secret_read"], START_MS + 1000)
    agent.post(path + "/update", {"url": "https://other.example/"})
    assert agent.post(path + "/update", {"enabled": False}) == {"id": webhook_id, "enabled": False}
    changed = agent.get(path)
    assert (changed["url"], changed["enabled"]) == ("https://other.example/", False)
    assert changed["actions"] == ["secret_read"]
    for body in ({}, {"enabled": 1}, {"name": "x"}):
        assert agent.send("POST", path + "/update", body).status == 400
    details = [row["detail"] for row in vault.audited("webhook_update")]
    assert details == [f"webhook {webhook_id}: {key} changed" for key in ("actions", "url", "enabled")]


def test_delete_removes_the_webhook_and_its_queue(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project()
    assert agent.post(f"{HOOKS}/{webhook_id}/delete") == {"id": webhook_id, "deleted": True}
    assert agent.get(HOOKS) == []
    tick(vault)
    assert receiver.received == []
    with vault.store.transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM webhook_deliveries").fetchone()[0] == 0
    assert len(vault.audited("webhook_delete")) == 1


def test_a_webhook_that_does_not_exist_is_not_found(agent: Agent) -> None:
    assert agent.send("GET", f"{HOOKS}/wh_0123456789").error == "no such webhook"
    for action, body in (("update", {"enabled": True}), ("delete", None), ("test", None)):
        assert agent.send("POST", f"{HOOKS}/wh_0123456789/{action}", body).status == 404


def test_the_number_of_webhooks_is_limited(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 1)
    webhook_id = made(agent, PUBLIC_URL)["id"]
    assert agent.send("POST", HOOKS, {"url": PUBLIC_URL, "actions": ["project_create"]}).status == 409
    agent.post(f"{HOOKS}/{webhook_id}/delete")
    made(agent, PUBLIC_URL)


def test_a_restricted_agent_cannot_use_webhooks(vault: Vault, agent: Agent) -> None:
    restricted, webhook_id = vault.agent(projects=[agent.project()]), made(agent, PUBLIC_URL)["id"]
    body = {"url": PUBLIC_URL, "actions": ["project_create"]}
    assert restricted.send("GET", HOOKS).status == 403
    assert restricted.send("POST", HOOKS, body).status == 403
    for path in (webhook_id, "wh_0123456789"):
        assert restricted.send("GET", f"{HOOKS}/{path}").status == 403
        for action, more in (("update", {"enabled": False}), ("delete", None), ("test", None)):
            assert restricted.send("POST", f"{HOOKS}/{path}/{action}", more).status == 403
    assert [row["enabled"] for row in agent.get(HOOKS)] == [True]


# ---- deliveries ------------------------------------------------------------------------------------------------------


def test_a_delivery_is_signed_over_its_raw_body(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    secret = made(agent, url)["signingSecret"]
    project_id = agent.project("søger <nøgle>")
    tick(vault)
    received = receiver.received[0]
    headers, body = received.headers, content(received)
    assert headers["x-sikkerkey-signature"] == hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
    assert (received.path, headers["content-type"]) == ("/hook", "application/json")
    assert (headers["x-sikkerkey-delivery-id"], headers["x-sikkerkey-event"]) == (body["id"], "project_create")
    audited = vault.audited("project_create")[0]
    data = {"auditId": audited["id"], "projectId": project_id, "actorKind": "ai_agent", "userId": None}
    data = {**data, "machineId": None, "aiAgentId": agent.id, "secretId": None, "sourceIp": "127.0.0.1"}
    detail = f"project {project_id} created as søger <nøgle>"
    event = {"id": body["id"], "event": "project_create", "severity": "low", "timestamp": START_MS}
    assert body == {**event, "data": {**data, "detail": detail}}
    assert "søger".encode() in received.body


def test_the_server_delivers_in_the_background(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    made(agent, url)
    agent.project()
    JobRunner(vault.store, vault.clock, jobs(webhooks_to_loopback=True)).tick()
    assert len(receiver.received) == 1


def test_subscribed_actions_are_delivered_once_and_in_order(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    webhook_id = made(agent, url, "project_create", "project_update")["id"]
    project_id = agent.project("one")
    agent.post(f"/v1/ai/projects/{project_id}/update", {"name": "two"})
    agent.post(f"/v1/ai/projects/{project_id}/delete", {"confirmName": "two"})
    assert health(agent, webhook_id) == healthy(queuedDeliveries=2)
    clock.advance(1)
    tick(vault)
    tick(vault)
    events = [received.headers["x-sikkerkey-event"] for received in receiver.received]
    assert events == ["project_create", "project_update"]
    assert health(agent, webhook_id) == healthy(lastSuccessAt=START_MS + 1_000, lastStatus=204)


def test_a_refused_request_delivers_nothing_and_its_denial_is_an_event(
    vault: Vault, agent: Agent, url: str, receiver: Receiver
) -> None:
    made(agent, url, "project_create", "auth_failure")
    assert agent.send("POST", "/v1/ai/projects", {"name": ""}).status == 400
    assert vault.agent(("audit.read",)).send("POST", "/v1/ai/projects", {"name": "x"}).status == 403
    tick(vault)
    assert [content(received)["event"] for received in receiver.received] == ["auth_failure"]


def test_deliveries_survive_a_rekey_and_a_restart(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    secret = made(agent, url)["signingSecret"]
    agent.project()
    vault.store.rekey(START_MS, None)
    vault.close()
    vault.open()
    tick(vault)
    received = receiver.received[0]
    assert received.headers["x-sikkerkey-signature"] == hmac.new(secret.encode(), received.body, "sha256").hexdigest()


def test_deliveries_are_sent_outside_transactions(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    made(agent, url)
    agent.project()
    during: list[int] = []
    receiver.before_answer = lambda: during.append(agent.send("GET", "/v1/ai/projects").status)
    tick(vault)
    assert during == [200]


@pytest.mark.parametrize("status", [301, 400, 404, 500])
def test_any_other_status_is_retried_with_the_same_id(
    vault: Vault, agent: Agent, receiver: Receiver, clock: FakeClock, status: int
) -> None:
    webhook_id = made(agent, f"http://localhost:{receiver.port}/")["id"]
    agent.project()
    receiver.statuses = [status]
    tick(vault)
    failed = {"lastFailureAt": START_MS, "lastStatus": status, "lastError": "status", "consecutiveFailures": 1}
    assert health(agent, webhook_id) == healthy(queuedDeliveries=1, **failed)
    clock.now_ms += 9_999
    tick(vault)
    assert len(receiver.received) == 1
    clock.now_ms += 1
    tick(vault)
    assert receiver.received[0] == receiver.received[1]
    succeeded = {"lastSuccessAt": START_MS + 10_000, "lastFailureAt": START_MS, "lastStatus": 204}
    assert health(agent, webhook_id) == healthy(**succeeded)


def test_a_failure_delays_later_deliveries(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    made(agent, url)
    for name in ("one", "two", "three"):
        agent.project(name)
    receiver.statuses = [204, 500]
    tick(vault)
    assert len(receiver.received) == 2
    clock.advance(10)
    tick(vault)
    words = [content(received)["data"]["detail"].split()[-1] for received in receiver.received]
    assert words == ["one", "two", "two", "three"]


def test_the_delay_grows_until_a_delivery_is_dropped(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project("lost")
    agent.project("next")
    receiver.statuses = [500] * 6
    for wait_s in (0, 10, 60, 300, 1_800, 7_200):
        clock.now_ms += wait_s * 1000 - 1
        tick(vault)
        clock.now_ms += 1
        before = len(receiver.received)
        tick(vault)
        assert len(receiver.received) == before + 1, wait_s
    assert len({received.headers["x-sikkerkey-delivery-id"] for received in receiver.received}) == 1
    assert health(agent, webhook_id)["queuedDeliveries"] == 1
    clock.advance(7_200)
    tick(vault)
    assert content(receiver.received[-1])["data"]["detail"].endswith("created as next")
    assert health(agent, webhook_id)["consecutiveFailures"] == 0


def test_a_webhook_that_always_fails_is_disabled(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    webhook_id = made(agent, url)["id"]
    watcher = made(agent, PUBLIC_URL, "webhook_disable")["id"]
    receiver.statuses = [500] * 20
    for _ in range(5):
        agent.project()
    for _ in range(19):
        tick(vault)
        clock.advance(7_200)
    assert agent.get(f"{HOOKS}/{webhook_id}")["enabled"]
    run_job(deliver_due, vault.store, clock(), Network(look_up=lambda _host, _port: [], to_loopback=True))
    shown = agent.get(f"{HOOKS}/{webhook_id}")
    assert (shown["enabled"], shown["consecutiveFailures"], shown["queuedDeliveries"]) == (False, 20, 0)
    assert [row["actor_kind"] for row in vault.audited("webhook_disable")] == ["system"]
    assert health(agent, watcher)["queuedDeliveries"] == 1
    agent.project("unseen")
    assert agent.send("POST", f"{HOOKS}/{webhook_id}/test").error == "the webhook is disabled: enable it first"
    agent.post(f"{HOOKS}/{webhook_id}/update", {"enabled": True})
    agent.project("seen")
    run_job(deliver_due, vault.store, clock(), Network(look_up=lambda _host, _port: [], to_loopback=True))
    assert content(receiver.received[-1])["data"]["detail"].endswith("created as seen")
    assert health(agent, webhook_id)["consecutiveFailures"] == 0


def test_the_address_is_checked_again_at_delivery(vault: Vault, agent: Agent) -> None:
    webhook_id = made(agent, PUBLIC_URL)["id"]
    agent.project()
    connected: list[object] = []

    def connect(address: tuple[str, int], _timeout_s: float) -> Any:
        connected.append(address)
        raise ConnectionRefusedError

    run_job(deliver_due, vault.store, vault.clock(), Network(lambda _host, _port: ["169.254.169.254"], connect))
    failed = {"lastFailureAt": START_MS, "lastError": "refused", "consecutiveFailures": 1, "queuedDeliveries": 1}
    assert (health(agent, webhook_id), connected) == (healthy(**failed), [])


def test_a_forbidden_url_in_the_database_is_not_requested(
    vault: Vault, agent: Agent, url: str, receiver: Receiver
) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project()
    with vault.store.transaction() as db:
        db.execute("UPDATE webhooks SET url = ?", (url.replace("127.0.0.1", "2130706433"),))
    tick(vault)
    assert (receiver.received, health(agent, webhook_id)["lastError"]) == ([], "refused")


@pytest.mark.parametrize("key", ["url", "enabled"])
def test_a_new_url_resets_the_delay(vault: Vault, agent: Agent, url: str, receiver: Receiver, key: str) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project()
    receiver.statuses = [500]
    tick(vault)
    agent.post(f"{HOOKS}/{webhook_id}/update", {"actions": ["project_create"]})
    tick(vault)
    assert (len(receiver.received), health(agent, webhook_id)["consecutiveFailures"]) == (1, 1)
    agent.post(f"{HOOKS}/{webhook_id}/update", {key: {"url": url, "enabled": True}[key]})
    assert health(agent, webhook_id)["consecutiveFailures"] == 0
    tick(vault)
    assert len(receiver.received) == 2


def test_a_dead_receiver_does_not_delay_others(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    with Receiver() as gone:
        dead = f"http://127.0.0.1:{gone.port}/"
    first, second = made(agent, dead)["id"], made(agent, url)["id"]
    agent.project()
    tick(vault)
    assert health(agent, first)["lastError"] == "connection"
    assert health(agent, second)["lastStatus"] == 204
    assert len(receiver.received) == 1


def test_a_full_queue_drops_and_counts_deliveries(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_QUEUED", 2)
    webhook_id = made(agent, url)["id"]
    for name in ("one", "two", "three", "four"):
        agent.project(name)
    shown = agent.get(f"{HOOKS}/{webhook_id}")
    assert (shown["queuedDeliveries"], shown["droppedDeliveries"]) == (2, 2)
    assert agent.send("POST", f"{HOOKS}/{webhook_id}/test").status == 409
    tick(vault)
    assert [content(received)["data"]["detail"].split()[-1] for received in receiver.received] == ["one", "two"]


def test_a_full_queue_has_room_for_high_and_critical_entries(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_QUEUED", 3)
    webhook_id = made(agent, url, "project_create", "project_delete", "canary_triggered")["id"]
    recorded = (
        ("project_create", "low 1"),
        ("project_delete", "high 1"),
        ("project_create", "low 2"),
        ("project_create", "dropped"),
        ("canary_triggered", "critical 1"),
        ("project_delete", "high 2"),
        ("project_delete", "dropped"),
        ("canary_triggered", "critical 2"),
    )
    with vault.store.transaction() as db:
        for action, detail in recorded:
            audit.record(db, START_MS, OWNER, action, detail)
    shown = agent.get(f"{HOOKS}/{webhook_id}")
    assert (shown["queuedDeliveries"], shown["droppedDeliveries"]) == (3, 5)
    tick(vault)
    details = [content(received)["data"]["detail"] for received in receiver.received]
    assert details == ["high 1", "critical 1", "critical 2"]


def test_a_tick_sends_a_limited_number(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_BATCH", 2)
    made(agent, url)
    for _ in range(3):
        agent.project()
    tick(vault)
    assert len(receiver.received) == 2
    tick(vault)
    assert len(receiver.received) == 3


def test_a_webhook_can_be_deleted_during_a_delivery(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project()
    receiver.statuses = [500]
    receiver.before_answer = lambda: agent.post(f"{HOOKS}/{webhook_id}/delete")
    tick(vault)
    assert (agent.get(HOOKS), len(receiver.received)) == ([], 1)


def test_disabling_a_webhook_clears_its_queue(vault: Vault, agent: Agent, url: str, receiver: Receiver) -> None:
    webhook_id = made(agent, url)["id"]
    agent.project("before")
    agent.post(f"{HOOKS}/{webhook_id}/update", {"enabled": False})
    agent.project("between")
    agent.post(f"{HOOKS}/{webhook_id}/update", {"enabled": True})
    tick(vault)
    assert receiver.received == []


# ---- test deliveries -------------------------------------------------------------------------------------------------


def test_a_test_delivery_is_sent_first_and_its_result_is_shown(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    created = made(agent, url)
    agent.project()
    receiver.statuses = [500]
    tick(vault)
    clock.advance(1)
    answer = agent.post(f"{HOOKS}/{created['id']}/test")
    assert answer == {"id": created["id"], "deliveryId": answer["deliveryId"], "queued": True}
    tick(vault)
    received = receiver.received[1]
    data = {"webhookId": created["id"], "aiAgentId": agent.id}
    event = {"event": "test", "severity": "info", "timestamp": START_MS + 1_000, "data": data}
    assert content(received) == {"id": answer["deliveryId"], **event}
    signed = hmac.new(created["signingSecret"].encode(), received.body, "sha256").hexdigest()
    assert (received.headers["x-sikkerkey-event"], received.headers["x-sikkerkey-signature"]) == ("test", signed)
    expected = healthy(lastSuccessAt=START_MS + 1_000, lastFailureAt=START_MS, lastStatus=204)
    assert health(agent, created["id"]) == expected
    assert len(vault.audited("webhook_test")) == 1


def test_a_test_delivery_is_tried_once(
    vault: Vault, agent: Agent, url: str, receiver: Receiver, clock: FakeClock
) -> None:
    webhook_id = made(agent, url)["id"]
    agent.post(f"{HOOKS}/{webhook_id}/test")
    receiver.statuses = [503]
    tick(vault)
    failed = {"lastFailureAt": START_MS, "lastStatus": 503, "lastError": "status", "consecutiveFailures": 1}
    assert health(agent, webhook_id) == healthy(**failed)
    clock.advance(7_200)
    tick(vault)
    assert len(receiver.received) == 1
