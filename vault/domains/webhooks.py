"""Webhooks: signed deliveries of audit entries to HTTP receivers.

The deliveries of an entry are queued in the transaction that writes it. A background job sends them outside any
transaction, in order and one at a time per webhook. Each failure delays the queue of the webhook longer. A delivery is
dropped after MAX_ATTEMPTS attempts, and the webhook is disabled after MAX_FAILURES failures in a row. After a crash
between sending and recording the result, the delivery is sent again with the same id.

The body is fixed when it is queued. The signing secret is wrapped by the root key and shown once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from vault import audit, makers, totals
from vault.crypto import new_id
from vault.domains.alerts import check_actions, require_unrestricted
from vault.errors import Refusal, Tampered
from vault.inputs import BOOLEAN, require_any, text, text_list
from vault.outbound import INTERNET, MAX_URL, ForbiddenUrl, Network, SendError, Target, parse_url, post
from vault.query import count, fetch_one, require_one
from vault.router import OWNER, SYSTEM, Actor, Call, KeySource, Owner, Route, Transaction
from vault.wiping import wipe_log_after_commit

TABLES = """
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    wrapped_secret BLOB NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    next_ms INTEGER NOT NULL,
    last_success_ms INTEGER,
    last_failure_ms INTEGER,
    last_status INTEGER,
    last_error TEXT,
    consecutive_failures INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS webhook_actions (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    action TEXT NOT NULL,
    PRIMARY KEY (webhook_id, action)
);
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS webhook_actions_by_action ON webhook_actions (action, webhook_id);
CREATE INDEX IF NOT EXISTS webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, place);
CREATE TABLE IF NOT EXISTS webhook_results (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    ended_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_results_by_webhook ON webhook_results (webhook_id, place);
"""

MAX_WEBHOOKS = 16  # each uses one thread while it is served
MAX_QUEUED = 1_000  # per webhook; then high and critical entries displace others, and what has no room is dropped
MAX_BATCH, BATCH_S = 20, 5.0  # limits per webhook and tick, because the other webhooks wait
BACKOFF_S = (10, 60, 300, 1_800, 7_200)
MAX_ATTEMPTS = 6  # per delivery; about two and a half hours
MAX_FAILURES = 20  # in a row, of any deliveries; about 33 hours
MAX_RESULTS = 50  # per webhook: the latest deliveries that are over, which the owner can look at and send again
TEST = "test"  # the event of a test delivery, which is sent first and only once

QUEUED = totals.subquery("deliveries", "w.id")
SELECT = f"""
SELECT w.*, (SELECT json_group_array(action) FROM webhook_actions a WHERE a.webhook_id = w.id) AS actions,
    {QUEUED} AS queued
FROM webhooks w
"""
SUBSCRIBED = f"""
SELECT w.id, {QUEUED} AS queued FROM webhook_actions c JOIN webhooks w ON w.id = c.webhook_id
WHERE w.enabled AND c.action = ? ORDER BY c.webhook_id
"""
DUE = SELECT + f"WHERE w.enabled AND w.next_ms <= ? AND {QUEUED} > 0 ORDER BY w.id"
# The queued delivery that gives way: the newest one of a lower severity, and a high one only if there is no other.
DISPLACED = """
SELECT place FROM webhook_deliveries
WHERE webhook_id = ? AND json_extract(body, '$.severity') IN (SELECT value FROM json_each(?))
ORDER BY json_extract(body, '$.severity') = 'high', place DESC LIMIT 1
"""
PRUNE_RESULTS = """
DELETE FROM webhook_results WHERE place IN (
    SELECT place FROM webhook_results WHERE webhook_id = ? ORDER BY place DESC LIMIT -1 OFFSET ?)
"""
NEXT_DELIVERIES = "SELECT * FROM webhook_deliveries WHERE webhook_id = ? ORDER BY event != ?, place LIMIT ?"


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """All webhooks and their health, oldest first."""
    require_unrestricted(call)
    return [_to_json(row) for row in call.db.execute(SELECT + "ORDER BY w.created_ms, w.id")]


def get(call: Call) -> object:
    """One webhook."""
    return _to_json(_require(call))


def create(call: Call) -> object:
    """Create a webhook. Only this answer contains the signing secret."""
    require_unrestricted(call)
    target, actions = _parse_target(call, call.body["url"]), check_actions(call.body["actions"], "actions")
    if count(call.db, "SELECT COUNT(*) FROM webhooks") >= MAX_WEBHOOKS:
        raise Refusal(409, f"there are already {MAX_WEBHOOKS} webhooks: delete one first")
    webhook_id, signing_secret = new_id("wh_"), f"whsec_{secrets.token_hex(32)}"
    call.db.execute(
        "INSERT INTO webhooks (id, url, wrapped_secret, next_ms, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (webhook_id, call.body["url"], call.keys.wrap(f"webhook:{webhook_id}", signing_secret.encode()))
        + (call.now_ms, call.now_ms, call.now_ms),
    )
    _set_actions(call.db, webhook_id, actions)
    makers.note(call, makers.WEBHOOK, webhook_id)
    audit.note(call, "webhook_create", f"webhook {webhook_id} created for {target.authority}")
    return {"id": webhook_id, "url": call.body["url"], "actions": actions, "signingSecret": signing_secret}


def update(call: Call) -> object:
    """Change the URL, the actions or the enabled flag. A new URL or enabling resets the delay after failures."""
    row = _require(call)
    require_any(call.body, UPDATE_FIELDS)
    url, enabled = call.body.get("url", row["url"]), call.body.get("enabled", bool(row["enabled"]))
    _parse_target(call, url)
    if "actions" in call.body:
        _set_actions(call.db, row["id"], check_actions(call.body["actions"], "actions"))
    call.db.execute(
        "UPDATE webhooks SET url = ?, enabled = ?, updated_ms = ? WHERE id = ?", (url, enabled, call.now_ms, row["id"])
    )
    if not enabled:
        _clear_queue(call.db, row["id"])
    if "url" in call.body or call.body.get("enabled"):
        reset = "UPDATE webhooks SET consecutive_failures = 0, next_ms = ? WHERE id = ?"
        call.db.execute(reset, (call.now_ms, row["id"]))
    changed = ", ".join(sorted(call.body))
    audit.note(call, "webhook_update", f"webhook {row['id']}: {changed} changed")
    return {"id": row["id"], "enabled": enabled}


def delete(call: Call) -> object:
    """Delete a webhook and its queue."""
    row = _require(call)
    call.db.execute("DELETE FROM webhooks WHERE id = ?", (row["id"],))
    wipe_log_after_commit(call.db)
    audit.note(call, "webhook_delete", f"webhook {row['id']} deleted")
    return {"id": row["id"], "deleted": True}


def test(call: Call) -> object:
    """Queue a test delivery. The health of the webhook shows the result."""
    row = _require(call)
    if not row["enabled"]:
        raise Refusal(409, "the webhook is disabled: enable it first")
    if row["queued"] >= MAX_QUEUED:
        raise Refusal(409, f"the webhook has {MAX_QUEUED} deliveries waiting")
    who = {"userId" if isinstance(call.agent, Owner) else "aiAgentId": call.agent.id}
    event = Event(TEST, "info", call.now_ms, {"webhookId": row["id"], **who})
    delivery_id = _queue(call.db, row["id"], event)
    call.db.execute("UPDATE webhooks SET next_ms = ? WHERE id = ?", (call.now_ms, row["id"]))
    audit.note(call, "webhook_test", f"webhook {row['id']}: test delivery queued")
    return {"id": row["id"], "deliveryId": delivery_id, "queued": True}


def _require(call: Call) -> sqlite3.Row:
    require_unrestricted(call)
    return require_one(call.db, SELECT + "WHERE w.id = ?", (call.params["webhookId"],), "no such webhook")


def _parse_target(call: Call, url: str) -> Target:
    try:
        return parse_url(url, to_loopback=call.webhooks_to_loopback)
    except ForbiddenUrl as rule:
        raise Refusal(400, f"url {rule}") from None


def _set_actions(db: sqlite3.Connection, webhook_id: str, actions: list[str]) -> None:
    db.execute("DELETE FROM webhook_actions WHERE webhook_id = ?", (webhook_id,))
    rows = [(webhook_id, action) for action in actions]
    db.executemany("INSERT INTO webhook_actions (webhook_id, action) VALUES (?, ?)", rows)


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "url": row["url"],
        "actions": sorted(json.loads(row["actions"])),
        "enabled": bool(row["enabled"]),
        "lastSuccessAt": row["last_success_ms"],
        "lastFailureAt": row["last_failure_ms"],
        "lastStatus": row["last_status"],
        "lastError": row["last_error"],
        "consecutiveFailures": row["consecutive_failures"],
        "queuedDeliveries": row["queued"],
        "droppedDeliveries": row["dropped"],
        "createdAt": row["created_ms"],
        "updatedAt": row["updated_ms"],
    }


# ---- the queue -------------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """The JSON keys of a delivery's body, except the id."""

    event: str
    severity: str
    timestamp: int
    data: dict[str, object]


def queue_entry(db: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Listener of the audit log: queue a delivery for every webhook that subscribes to the entry's action."""
    subscribed = db.execute(SUBSCRIBED, (row["action"],)).fetchall()
    if not subscribed:
        return
    data = {"auditId": row["id"], "projectId": row["project_id"], **audit.entry(row)}
    for key in ("id", "action", "severity", "timestamp"):
        del data[key]
    event = Event(row["action"], row["severity"], row["created_ms"], data)
    for webhook in subscribed:
        is_full = webhook["queued"] >= MAX_QUEUED
        if is_full:
            db.execute("UPDATE webhooks SET dropped = dropped + 1 WHERE id = ?", (webhook["id"],))
        if not is_full or _make_room(db, webhook["id"], event.severity):
            _queue(db, webhook["id"], event)


def _make_room(db: sqlite3.Connection, webhook_id: str, severity: str) -> bool:
    """Drop a less severe delivery for a high or critical one. Returns whether there was one."""
    if severity not in audit.URGENT:
        return False
    lower = audit.SEVERITIES[: audit.SEVERITIES.index(severity)]
    row = fetch_one(db, DISPLACED, (webhook_id, json.dumps(lower)))
    if row is not None:
        db.execute("DELETE FROM webhook_deliveries WHERE place = ?", (row["place"],))
    return row is not None


audit.LISTENERS.append(queue_entry)


def _queue(db: sqlite3.Connection, webhook_id: str, event: Event) -> str:
    delivery_id = str(uuid.uuid4())
    body = json.dumps({"id": delivery_id, **event._asdict()}, ensure_ascii=False, separators=(",", ":"))
    row = (delivery_id, webhook_id, event.event, body)
    db.execute("INSERT INTO webhook_deliveries (id, webhook_id, event, body) VALUES (?, ?, ?, ?)", row)
    return delivery_id


def _clear_queue(db: sqlite3.Connection, webhook_id: str) -> None:
    db.execute("DELETE FROM webhook_deliveries WHERE webhook_id = ?", (webhook_id,))


# ---- delivery --------------------------------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """A queued delivery."""

    id: str
    event: str
    body: bytes
    attempts: int


class Batch(NamedTuple):
    """The deliveries to send to one webhook now."""

    webhook_id: str
    url: str
    signing_secret: bytes
    deliveries: tuple[Delivery, ...]


class Outcome(NamedTuple):
    """The result of an attempt: a status, or the reason why there is none."""

    delivery: Delivery
    status: int | None
    error: str | None


def deliver_due(transaction: Transaction, keys: KeySource, now_ms: int, network: Network = INTERNET) -> None:
    """Background job: send the deliveries that are due, with one thread per webhook."""
    batches = _due(transaction, keys, now_ms)
    if not batches:
        return
    with ThreadPoolExecutor(len(batches), thread_name_prefix="webhook") as threads:
        for batch, outcomes in zip(batches, threads.map(partial(_send, network), batches)):
            with transaction() as db:
                for outcome in outcomes:
                    _record_outcome(db, now_ms, batch.webhook_id, outcome)


def deliver_due_to_loopback(transaction: Transaction, keys: KeySource, now_ms: int) -> None:
    """Background job instead of `deliver_due`, with receivers on this computer too."""
    deliver_due(transaction, keys, now_ms, INTERNET._replace(to_loopback=True))


def _due(transaction: Transaction, keys: KeySource, now_ms: int) -> list[Batch]:
    batches = []
    with transaction() as db:
        for row in db.execute(DUE, (now_ms,)).fetchall():
            try:
                signing_secret = keys().unwrap(f"webhook:{row['id']}", row["wrapped_secret"])
            except InvalidTag:
                _switch_off_tampered(db, now_ms, row["id"])
                continue
            deliveries = tuple(map(_delivery, db.execute(NEXT_DELIVERIES, (row["id"], TEST, MAX_BATCH))))
            batches.append(Batch(row["id"], row["url"], signing_secret, deliveries))
    return batches


def _switch_off_tampered(db: sqlite3.Connection, now_ms: int, webhook_id: str) -> None:
    """Disable a webhook that could sign no delivery, so that it does not hold up the others."""
    db.execute("UPDATE webhooks SET enabled = 0 WHERE id = ?", (webhook_id,))
    found = Tampered(f"the signing secret of webhook {webhook_id} cannot be decrypted, so the webhook is disabled")
    audit.note_tampered(db, now_ms, SYSTEM, found, "webhook")


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(row["id"], row["event"], row["body"].encode(), row["attempts"])


def _send(network: Network, batch: Batch) -> list[Outcome]:
    """Send the deliveries in order, until the first failure or the end of the time limit."""
    outcomes: list[Outcome] = []
    stop_s = time.monotonic() + BATCH_S
    for delivery in batch.deliveries:
        outcomes.append(_attempt(network, batch, delivery))
        if outcomes[-1].error or time.monotonic() > stop_s:
            break
    return outcomes


def _attempt(network: Network, batch: Batch, delivery: Delivery) -> Outcome:
    headers = [
        ("content-type", "application/json"),
        ("x-sikkerkey-delivery-id", delivery.id),
        ("x-sikkerkey-event", delivery.event),
        ("x-sikkerkey-signature", hmac.new(batch.signing_secret, delivery.body, hashlib.sha256).hexdigest()),
    ]
    try:
        status = post(network, batch.url, headers, delivery.body)
    except SendError as error:
        return Outcome(delivery, None, str(error))
    return Outcome(delivery, status, None if 200 <= status < 300 else "status")


def _record_outcome(db: sqlite3.Connection, now_ms: int, webhook_id: str, outcome: Outcome) -> None:
    """Record the result of an attempt. Has no effect if the webhook was deleted in the meantime."""
    delivery = outcome.delivery
    if outcome.error is None:
        _end_delivery(db, now_ms, webhook_id, outcome)
        db.execute(
            "UPDATE webhooks SET last_success_ms = ?, last_status = ?, last_error = NULL, consecutive_failures = 0"
            " WHERE id = ?",
            (now_ms, outcome.status, webhook_id),
        )
        return
    db.execute("UPDATE webhook_deliveries SET attempts = attempts + 1 WHERE id = ?", (delivery.id,))
    if delivery.event == TEST or delivery.attempts + 1 >= MAX_ATTEMPTS:
        _end_delivery(db, now_ms, webhook_id, outcome)
    db.execute(
        "UPDATE webhooks SET last_failure_ms = ?, last_status = ?, last_error = ?,"
        " consecutive_failures = consecutive_failures + 1 WHERE id = ?",
        (now_ms, outcome.status, outcome.error, webhook_id),
    )
    _delay_next(db, now_ms, webhook_id)


def _end_delivery(db: sqlite3.Connection, now_ms: int, webhook_id: str, outcome: Outcome) -> None:
    """Move a delivery from the queue to the results, unless it was dropped in the meantime."""
    delivery = outcome.delivery
    ended = db.execute(
        "INSERT INTO webhook_results (id, webhook_id, event, body, attempts, status, error, ended_ms)"
        " SELECT id, webhook_id, event, body, ?, ?, ?, ? FROM webhook_deliveries WHERE id = ?",
        (delivery.attempts + 1, outcome.status, outcome.error, now_ms, delivery.id),
    )
    if ended.rowcount:
        db.execute("DELETE FROM webhook_deliveries WHERE id = ?", (delivery.id,))
        db.execute(PRUNE_RESULTS, (webhook_id, MAX_RESULTS))


def _delay_next(db: sqlite3.Connection, now_ms: int, webhook_id: str) -> None:
    row = fetch_one(db, "SELECT consecutive_failures AS failures FROM webhooks WHERE id = ?", (webhook_id,))
    if row is None:
        return
    if row["failures"] < MAX_FAILURES:
        wait_s = BACKOFF_S[min(row["failures"], len(BACKOFF_S)) - 1]
        db.execute("UPDATE webhooks SET next_ms = ? WHERE id = ?", (now_ms + wait_s * 1000, webhook_id))
        return
    db.execute("UPDATE webhooks SET enabled = 0 WHERE id = ?", (webhook_id,))
    _clear_queue(db, webhook_id)
    detail = f"webhook {webhook_id} disabled after {row['failures']} failures in a row"
    audit.record(db, now_ms, SYSTEM, "webhook_disable", detail)


URL_FIELD = text(1, MAX_URL)
ACTIONS_FIELD = text_list(1)
CREATE_FIELDS = {"url": URL_FIELD.required(), "actions": ACTIONS_FIELD.required()}
UPDATE_FIELDS = {"url": URL_FIELD, "actions": ACTIONS_FIELD, "enabled": BOOLEAN}

READ, WRITE = "alerts.read", "alerts.write"
ALL = "/v1/ai/webhooks"
ONE = ALL + "/{webhookId}"

# fmt: off
ROUTES = (
    Route("GET",  ALL,             READ,  list_all, reads=True),
    Route("POST", ALL,             WRITE, create, CREATE_FIELDS, status=201),
    Route("GET",  ONE,             READ,  get, reads=True),
    Route("POST", ONE + "/update", WRITE, update, UPDATE_FIELDS),
    Route("POST", ONE + "/delete", WRITE, delete),
    Route("POST", ONE + "/test",   WRITE, test),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


def delete_as_owner(db: sqlite3.Connection, now_ms: int, webhook_id: str, *, actor: Actor = OWNER) -> None:
    """Delete a webhook and its queue."""
    db.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,))
    wipe_log_after_commit(db)
    audit.record(db, now_ms, actor, "webhook_delete", f"webhook {webhook_id} deleted")


def deliveries(db: sqlite3.Connection, webhook_id: str, limit: int = MAX_RESULTS) -> list[dict[str, object]]:
    """What waits, in the order in which it is sent, and then what is over, latest first: at most `limit` of each.

    The next attempt of what waits is at `nextAttemptAt`; `endedAt` is None until it is over. Raises Refusal.
    """
    webhook = require_one(db, "SELECT * FROM webhooks WHERE id = ?", (webhook_id,), "no such webhook")
    waiting = [
        {**_delivery_to_json(row), "nextAttemptAt": webhook["next_ms"], "endedAt": None, "status": None, "error": None}
        for row in db.execute(NEXT_DELIVERIES, (webhook_id, TEST, limit))
    ]
    latest = "SELECT * FROM webhook_results WHERE webhook_id = ? ORDER BY place DESC LIMIT ?"
    ended = [
        {
            **_delivery_to_json(row),
            "nextAttemptAt": None,
            "endedAt": row["ended_ms"],
            "status": row["status"],
            "error": row["error"],
        }
        for row in db.execute(latest, (webhook_id, limit))
    ]
    return waiting + ended


def _delivery_to_json(row: sqlite3.Row) -> dict[str, object]:
    return {"id": row["id"], "event": row["event"], "attempts": row["attempts"], "body": row["body"]}


def redeliver_as_owner(call: Call, webhook_id: str, delivery_id: str) -> None:
    """Queue a delivery that is over once more, with the same id and body, and send it now. Raises Refusal."""
    webhook = require_one(call.db, SELECT + "WHERE w.id = ?", (webhook_id,), "no such webhook")
    found = "SELECT * FROM webhook_results WHERE webhook_id = ? AND id = ? ORDER BY place DESC LIMIT 1"
    ended = require_one(call.db, found, (webhook_id, delivery_id), "no such delivery: only the latest are kept")
    if not webhook["enabled"]:
        raise Refusal(409, "the webhook is disabled: enable it first")
    if webhook["queued"] >= MAX_QUEUED:
        raise Refusal(409, f"the webhook has {MAX_QUEUED} deliveries waiting")
    row = (delivery_id, webhook_id, ended["event"], ended["body"])
    call.db.execute("INSERT OR IGNORE INTO webhook_deliveries (id, webhook_id, event, body) VALUES (?, ?, ?, ?)", row)
    call.db.execute("UPDATE webhooks SET next_ms = ? WHERE id = ?", (call.now_ms, webhook_id))
    audit.note(call, "webhook_test", f"webhook {webhook_id}: delivery {delivery_id} queued again")
