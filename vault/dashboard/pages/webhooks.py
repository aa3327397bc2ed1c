"""Webhooks: their receivers, what is sent, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import refuse_changed, state_of, with_labels
from vault.dashboard.pages.alerts import actions_by_severity
from vault.dashboard.web import Page, Visit
from vault.domains import webhooks
from vault.errors import Refusal

ALL = "/v1/ai/webhooks"
LABELS = {"url": "the address"}


def index(visit: Visit, problem: str = "") -> Response:
    """All webhooks, and the form for a new one, with what was typed if it was refused."""
    return visit.page(
        "webhooks.html",
        status=400 if problem else 200,
        webhooks=visit.call("GET", ALL),
        most=webhooks.MAX_WEBHOOKS,
        groups=actions_by_severity(),
        url=visit.field("url"),
        chosen=set(visit.fields("actions")),
        problem=problem,
    )


def create(visit: Visit) -> Response:
    """Create a webhook. Only the page that answers shows the signing secret."""
    try:
        body = {"url": visit.field("url").strip(), "actions": list(visit.fields("actions"))}
        _refuse_no_actions(visit)
        made = visit.call("POST", ALL, body)
    except Refusal as refusal:
        return index(visit, str(with_labels(refusal, LABELS)))
    return visit.page("webhook_created.html", webhook=made)


def show(visit: Visit, problem: str = "") -> Response:
    """One webhook with its deliveries."""
    webhook: dict[str, Any] = visit.call("GET", _one(visit))
    with visit.desk.reader() as db:
        deliveries = webhooks.deliveries(db, webhook["id"])
    typed = {"url": visit.field("url"), "actions": list(visit.fields("actions"))} if problem else {}
    return visit.page(
        "webhook.html",
        status=400 if problem else 200,
        webhook=webhook,
        deliveries=deliveries,
        most_attempts=webhooks.MAX_ATTEMPTS,
        groups=actions_by_severity(),
        form={**webhook, **typed},
        state=_state(webhook),
        problem=problem,
    )


def update(visit: Visit) -> Response:
    """Change the URL and the actions."""
    body = {"url": visit.field("url").strip(), "actions": list(visit.fields("actions"))}
    before = visit.call("GET", _one(visit))
    changed = {name: value for name, value in body.items() if value != before[name]}
    if not changed:
        return visit.go(_path(visit), "Nothing was changed.")
    try:
        refuse_changed(visit, _state(before), "the webhook")
        _refuse_no_actions(visit)
        visit.call("POST", f"{_one(visit)}/update", changed)
    except Refusal as refusal:
        if refusal.status == 404:
            raise
        return show(visit, str(with_labels(refusal, LABELS)))
    return visit.go(_path(visit), "Saved the webhook.")


def _refuse_no_actions(visit: Visit) -> None:
    if not visit.fields("actions"):
        raise Refusal(400, "choose at least one action")


def _state(webhook: Mapping[str, Any]) -> str:
    return state_of(webhook["url"], webhook["actions"])


def switch(visit: Visit) -> Response:
    """Switch a webhook on or off. Switching off empties its queue."""
    enabled = visit.field("enabled") == "yes"
    visit.call("POST", f"{_one(visit)}/update", {"enabled": enabled})
    return visit.go(_path(visit), f"{'Enabled' if enabled else 'Disabled'} the webhook.")


def test(visit: Visit) -> Response:
    """Queue a test delivery."""
    visit.call("POST", f"{_one(visit)}/test")
    return visit.go(_path(visit), "Sent a test delivery. Its result appears below within seconds.")


def redeliver(visit: Visit) -> Response:
    """Send a delivery once more."""
    with visit.desk.transaction() as db:
        webhooks.redeliver_as_owner(visit.desk.as_call(db), visit.param("webhook_id"), visit.field("delivery"))
    return visit.go(_path(visit), "Queued the delivery again.")


def delete(visit: Visit) -> Response:
    """Delete a webhook and its queue."""
    url = visit.call("GET", _one(visit))["url"]
    visit.call("POST", f"{_one(visit)}/delete")
    return visit.go("/webhooks", f"Deleted the webhook to {url}.")


def _one(visit: Visit) -> str:
    return f"{ALL}/{visit.param('webhook_id')}"


def _path(visit: Visit) -> str:
    return f"/webhooks/{visit.param('webhook_id')}"


PAGES = (
    Page("GET", "/webhooks", index),
    Page("POST", "/webhooks/create", create),
    Page("GET", "/webhooks/{webhook_id}", show),
    Page("POST", "/webhooks/{webhook_id}/update", update),
    Page("POST", "/webhooks/{webhook_id}/switch", switch),
    Page("POST", "/webhooks/{webhook_id}/test", test),
    Page("POST", "/webhooks/{webhook_id}/redeliver", redeliver),
    Page("POST", "/webhooks/{webhook_id}/delete", delete),
)
