"""Alerts, and the actions that raise them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from vault import audit
from vault.dashboard.fields import is_number, refuse_changed, state_of
from vault.dashboard.queries import names
from vault.dashboard.web import Page, Visit
from vault.domains import alerts
from vault.errors import Refusal

MAX_SHOWN = 25  # of each: high and critical ones, and others
SET = "/v1/ai/alerts"


def actions_by_severity() -> list[tuple[str, list[str]]]:
    """All actions, the most severe first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for action, severity in sorted(audit.ACTIONS.items()):
        groups[severity].append(action)
    return [(severity, groups[severity]) for severity in reversed(audit.SEVERITIES)]


def show(visit: Visit, problem: str = "") -> Response:
    """The latest alerts, and a checkbox for each action."""
    enabled: list[dict[str, Any]] = visit.call("GET", SET)
    with visit.desk.reader() as db:
        found = alerts.overview(db, MAX_SHOWN)
        seen = alerts.seen_until(db)
        known = names.in_entries(db, found)
    return visit.page(
        "alerts.html",
        status=409 if problem else 200,
        problem=problem,
        state=_state(enabled),
        alerts=found,
        seen=seen,
        known=known,
        enabled={each["action"]: each for each in enabled},
        groups=actions_by_severity(),
    )


def mark_seen(visit: Visit) -> Response:
    """Mark the alerts as seen that the page showed; others may have come since."""
    until = visit.field("until")
    if not is_number(until):
        raise Refusal(400, "the form has no alert to mark")
    with visit.desk.transaction() as db:
        alerts.mark_seen(db, int(until))
    return visit.go("/alerts", "Marked the alerts as seen.")


def choose(visit: Visit) -> Response:
    """Replace the set of actions that alert the owner."""
    wanted = set(visit.fields("actions"))
    try:
        refuse_changed(visit, _state(visit.call("GET", SET)), "the choice below")
    except Refusal as refusal:
        return show(visit, str(refusal))
    if visit.field("preset") == "urgent":
        wanted |= set(audit.URGENT_ACTIONS)
    chosen = visit.call("POST", SET, {"enabledActions": sorted(wanted)})["enabledActions"]
    return visit.go("/alerts", f"Alerts are on for {len(chosen)} of {len(audit.ACTIONS)} actions.")


def _state(enabled: Iterable[Mapping[str, Any]]) -> str:
    return state_of([each["action"] for each in enabled])


PAGES = (
    Page("GET", "/alerts", show),
    Page("POST", "/alerts/seen", mark_seen),
    Page("POST", "/alerts/choose", choose),
)
