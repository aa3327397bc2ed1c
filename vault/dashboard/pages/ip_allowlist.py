"""The IP allowlist: its entries, its switch, whether an address would pass, and which machines would be refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import page_number, with_labels
from vault.dashboard.queries.listings import PAGE_SIZE, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import ip_allowlist, machines
from vault.domains.ip_allowlist import Networks
from vault.errors import Refusal

MAX_MACHINES = 1_000  # that were seen last, of which the addresses are compared
MAX_SHOWN = 20
ALL = "/v1/ai/ipallowlist"
LABELS = {"cidr": "the network", "label": "the label"}


def index(visit: Visit) -> Response:
    """The entries, and which machines and addresses the list refuses."""
    return _index(visit)


def _index(
    visit: Visit,
    problem: str = "",
    *,
    question: str = "",
    lost: Iterable[Mapping[str, Any]] = (),
    action: str = "",
) -> Response:
    """The page. `question` asks whether to go on with `action`, although it refuses the machines in `lost`."""
    listed, page = visit.call("GET", ALL), page_number(visit)
    entries, address = listed["entries"], visit.query("address").strip()
    start = (page - 1) * PAGE_SIZE
    refused = _refused(visit, entries)
    return visit.page(
        "ip_allowlist.html",
        status=409 if question else 400 if problem else 200,
        enabled=listed["enabled"],
        entries=entries[start : start + PAGE_SIZE],
        total=len(entries),
        refused=refused[:MAX_SHOWN],
        refused_count=len(refused),
        cidr=visit.field("cidr"),
        label=visit.field("label"),
        problem=problem,
        question=question,
        lost=list(lost)[:MAX_SHOWN],
        action=action,
        address=address,
        verdict=_verdict(entries, address) if address else None,
        page=page,
        pages=page_count(len(entries)),
    )


def add(visit: Visit) -> Response:
    """Add a network or a single address."""
    body = {"cidr": visit.field("cidr").strip(), "label": visit.field("label").strip()}
    try:
        added = visit.call("POST", ALL, body)
    except Refusal as refusal:
        return _index(visit, str(with_labels(refusal, LABELS)))
    return visit.go("/ip-allowlist", f"Added {added['cidr']}.")


def update(visit: Visit) -> Response:
    """Replace the label of an entry."""
    body = {"label": visit.field("label").strip()}
    changed = visit.call("POST", f"{ALL}/{visit.param('id')}/update", body)
    return visit.go("/ip-allowlist", f"Saved the label of {changed['cidr']}.")


def delete(visit: Visit) -> Response:
    """Delete an entry. If that refuses machines, ask first."""
    listed, entry_id = visit.call("GET", ALL), visit.param("id")
    left = [each for each in listed["entries"] if each["id"] != entry_id]
    if listed["enabled"] and not visit.field("anyway"):
        passing = {each["id"] for each in _refused(visit, listed["entries"])}
        lost = [each for each in _refused(visit, left) if each["id"] not in passing]
        gone = next((each for each in listed["entries"] if each["id"] == entry_id), None)
        if gone and (lost or not left):
            return _index(
                visit, question=f"Delete {gone['cidr']}?", lost=lost, action=f"/ip-allowlist/{entry_id}/delete"
            )
    deleted = visit.call("POST", f"{ALL}/{entry_id}/delete")
    return visit.go("/ip-allowlist", f"Deleted {deleted['cidr']}.")


def enable(visit: Visit) -> Response:
    """Enable the list. If that refuses machines, ask first."""
    entries = visit.call("GET", ALL)["entries"]
    lost = _refused(visit, entries)
    if (lost or not entries) and not visit.field("anyway"):
        return _index(visit, question="Enable the list?", lost=lost, action="/ip-allowlist/enable")
    visit.call("POST", f"{ALL}/enable")
    return visit.go("/ip-allowlist", "The list is enabled. Machines may connect only from its entries.")


def disable(visit: Visit) -> Response:
    """Disable the list."""
    visit.call("POST", f"{ALL}/disable")
    return visit.go("/ip-allowlist", "The list is disabled. Machines may connect from any address.")


def _refused(visit: Visit, entries: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The machines that were last seen from an address that is not on the list."""
    networks = Networks(each["cidr"] for each in entries)
    with visit.desk.reader() as db:
        seen = machines.last_addresses(db, MAX_MACHINES)
    return [each for each in seen if each["address"] not in networks]


def _verdict(entries: Iterable[Mapping[str, Any]], address: str) -> dict[str, Any]:
    """Whether an address is on the list: `entry` is the one that has it, `problem` says that it is no address."""
    try:
        return {"entry": ip_allowlist.entry_of(entries, address), "problem": ""}
    except Refusal as refusal:
        return {"entry": None, "problem": str(refusal)}


PAGES = (
    Page("GET", "/ip-allowlist", index),
    Page("POST", "/ip-allowlist/add", add),
    Page("POST", "/ip-allowlist/enable", enable),
    Page("POST", "/ip-allowlist/disable", disable),
    Page("POST", "/ip-allowlist/{id}/update", update),
    Page("POST", "/ip-allowlist/{id}/delete", delete),
)
