"""The first page: what is waiting for the owner, and the state of the vault."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from starlette.responses import Response

from vault.dashboard.queries import names, summary
from vault.dashboard.web import Page, Visit
from vault.domains import alerts

ALERTS_SHOWN = 5
LABELS = {"hour": "%H:00", "day": "%b %d"}


def overview(visit: Visit) -> Response:
    """The state of the vault, what waits for approval, what is frozen, the latest alerts, and the reads."""
    with visit.desk.reader() as db:
        latest = alerts.overview(db, ALERTS_SHOWN)[:ALERTS_SHOWN]
        values: dict[str, Any] = {
            "counts": summary.counts(db),
            "agents": summary.waiting_agents(db),
            "machines": summary.waiting_machines(db),
            "frozen": summary.frozen(db),
            "alerts": latest,
            "seen": alerts.seen_until(db),
            "known": names.in_entries(db, latest),
        }
    return visit.page(
        "overview.html",
        **values,
        has_passphrase=visit.desk.store.has_passphrase,
        hours=_columns(visit, "hour"),
        days=_columns(visit, "day"),
        most_shown=summary.MAX_SHOWN,
    )


def _columns(visit: Visit, bucket: str) -> list[tuple[str, int, int]]:
    """The label, the reads and the denied reads of each hour or day."""
    series = visit.call("POST", "/v1/ai/stats/reads-over-time", {"bucket": bucket})
    return [(_label(each["from"], bucket), each["reads"], each["denied"]) for each in series]


def _label(at_ms: int, bucket: str) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime(LABELS[bucket])


PAGES = (Page("GET", "", overview),)
