"""The audit log: filters, pages, live entries and downloads."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from starlette.responses import Response

from vault import audit
from vault.audit_index import Filters
from vault.dashboard.fields import is_number
from vault.dashboard.queries import audit_search, names
from vault.dashboard.web import Page, Visit
from vault.errors import Refusal

SPANS_MS = {"hour": 3_600_000, "day": 86_400_000, "week": 7 * 86_400_000}
THINGS = ("agent", "machine", "secret", "project")
FIELDS = ("text", "action", "severity", "last", *THINGS, "ip", "from", "to")
MAX_FILTER = 300  # characters of a filter


def show(visit: Visit) -> Response:
    """A page of the entries that match the filters. Invalid filters are reported beside the form."""
    given = _given(visit)
    before, after = _number(visit.query("before")), _number(visit.query("after"))
    with visit.desk.reader() as db:
        try:
            found, problem = audit_search.page(db, _filters(db, visit, given), before=before, after=after), ""
        except Refusal as refusal:
            found, problem = audit_search.Found([], has_newer=False, has_older=False), str(refusal)
        known = names.in_entries(db, found.entries)
    is_newest = before is None and not found.has_newer
    # Not while the whole log is searched for a text: the browser asks every few seconds.
    is_live = is_newest and not problem and not given.keys() & {"from", "to", "text"} and visit.query("live") != "off"
    return visit.page(
        "audit.html",
        status=400 if problem else 200,
        found=found,
        known=known,
        given=given,
        asked=urlencode(given),
        problem=problem,
        is_newest=is_newest,
        is_live=is_live,
        actions=sorted(audit.ACTIONS),
        severities=audit.SEVERITIES,
    )


def download(visit: Visit) -> Response:
    """The entries that match the filters as a file."""
    with visit.desk.reader() as db:
        filters = _filters(db, visit, _given(visit))
    if visit.query("format") == "jsonl":
        lines = audit_search.as_json_lines(visit.desk.reader, filters)
        return visit.download(lines, "application/jsonl; charset=utf-8", "audit.jsonl")
    rows = audit_search.as_csv(visit.desk.reader, filters)
    return visit.download(rows, "text/csv; charset=utf-8", "audit.csv")


def _given(visit: Visit) -> dict[str, str]:
    """The filters that were filled in."""
    typed = {name: visit.query(name).strip()[:MAX_FILTER] for name in FIELDS}
    return {name: value for name, value in typed.items() if value}


def _filters(db: sqlite3.Connection, visit: Visit, given: Mapping[str, str]) -> Filters:
    """The filters of a search. Raises Refusal for an invalid one."""
    if given.get("action") not in {None, *audit.ACTIONS}:
        raise Refusal(400, "there is no such action")
    if given.get("severity") not in {None, *audit.SEVERITIES}:
        raise Refusal(400, "there is no such severity")
    if given.get("last") not in {None, *SPANS_MS}:
        raise Refusal(400, "the time must be an hour, a day or a week")
    begins = [_day(given, "from")]
    if "last" in given:
        begins.append(visit.desk.clock() - SPANS_MS[given["last"]])
    ends = _day(given, "to")
    lowest = audit.SEVERITIES.index(given["severity"]) if "severity" in given else None
    things = {kind: names.ids_of(db, kind, given[kind]) for kind in THINGS if kind in given}
    return Filters(
        actions=[given["action"]] if "action" in given else None,
        severities=None if lowest is None else audit.SEVERITIES[lowest:],
        agents=things.get("agent"),
        machines=things.get("machine"),
        secrets=things.get("secret"),
        projects=things.get("project"),
        source_ips=[given["ip"]] if "ip" in given else None,
        from_ms=max((each for each in begins if each is not None), default=None),
        to_ms=None if ends is None else ends + SPANS_MS["day"] - 1,
        search=given.get("text"),
    )


def _day(given: Mapping[str, str], name: str) -> int | None:
    """The beginning of a day in UTC, in milliseconds. Raises Refusal."""
    if name not in given:
        return None
    try:
        day = datetime.strptime(given[name], "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refusal(400, f"{name} must be a date such as 2026-01-31") from None
    return (day - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)


def _number(text: str) -> int | None:
    return int(text) if is_number(text) else None


PAGES = (
    Page("GET", "/audit", show),
    Page("GET", "/audit/download", download),
)
