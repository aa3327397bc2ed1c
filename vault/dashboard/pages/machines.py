"""Machines, which read secrets: pending ones, what each may read, and what it read."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from vault.dashboard.fields import page_number
from vault.dashboard.queries import names
from vault.dashboard.queries.listings import PAGE_SIZE, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import machines, project_machines
from vault.domains.machines import Filters
from vault.errors import Refusal
from vault.files import quoted

MAX_WAITING = 20
MAX_GRANTS = 200
ANY = ("", "any")
WAITING = Filters(state="pending")


def index(visit: Visit) -> Response:
    """The pending machines, and those that match the filters, newest first."""
    page, now_ms = page_number(visit), visit.desk.clock()
    given = {
        "state": visit.query("state") if visit.query("state") in machines.STATES else "",
        "kind": visit.query("kind") if visit.query("kind") in machines.KINDS else "",
        "name": visit.query("name").strip(),
    }
    filters = Filters(**{key: value or None for key, value in given.items()})
    with visit.desk.reader() as db:
        waiting, waiting_count = machines.listing(db, now_ms, WAITING, MAX_WAITING)
        listed, total = machines.listing(db, now_ms, filters, PAGE_SIZE, (page - 1) * PAGE_SIZE)
    asked = urlencode({key: value for key, value in given.items() if value})
    return visit.page(
        "machines_list.html",
        waiting=waiting,
        waiting_count=waiting_count,
        machines=listed,
        total=total,
        given=given,
        directory=quoted(visit.desk.store.directory),
        state_options=[ANY, *zip(machines.STATES, machines.STATES)],
        kind_options=[ANY, *zip(machines.KINDS, machines.KINDS)],
        address=f"/dashboard/machines?{asked}&" if asked else "/dashboard/machines?",
        page=page,
        pages=page_count(total),
    )


def show(visit: Visit) -> Response:
    """One machine."""
    return _show(visit)


def _show(visit: Visit, problem: str = "", name: str | None = None) -> Response:
    machine_id = visit.param("id")
    with visit.desk.reader() as db:
        machine = machines.describe(db, visit.desk.clock(), machine_id)
        found = project_machines.of_machine(db, machine_id, MAX_GRANTS)
        known = names.in_entries(db, [*machine["reads"], *machine["denials"]])
    return visit.page(
        "machines_show.html",
        status=400 if problem else 200,
        machine=machine,
        known=known,
        projects=found["projects"],
        grants=found["grants"],
        grant_count=sum(each["grantCount"] for each in found["projects"]),
        problem=problem,
        name=machine["name"] if name is None else name,
    )


def approve(visit: Visit) -> Response:
    """Approve a machine. It cannot read anything before it has grants."""
    with visit.desk.transaction() as db:
        machine = machines.approve_as_owner(db, visit.desk.clock(), visit.param("id"), actor=visit.desk.actor)
    path = "/machines" if visit.field("from") == "list" else f"/machines/{machine.id}"
    return visit.go(path, f"Approved {machine.name}.")


def deny(visit: Visit) -> Response:
    """Reject and delete a pending machine."""
    name = visit.call("POST", f"/v1/ai/machines/{visit.param('id')}/deny")["name"]
    return visit.go("/machines", f"Denied and deleted {name}.")


def rename(visit: Visit) -> Response:
    """Rename a machine."""
    name = visit.field("name").strip()
    try:
        visit.call("POST", f"/v1/ai/machines/{visit.param('id')}/rename", {"name": name})
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        return _show(visit, str(refusal), name)
    return visit.go(f"/machines/{visit.param('id')}", f"Renamed the machine to {name}.")


def revoke(visit: Visit) -> Response:
    """Delete a machine with its memberships and grants."""
    name = visit.call("POST", f"/v1/ai/machines/{visit.param('id')}/revoke")["name"]
    return visit.go("/machines", f"Revoked {name}.")


PAGES = (
    Page("GET", "/machines", index),
    Page("GET", "/machines/{id}", show),
    Page("POST", "/machines/{id}/approve", approve),
    Page("POST", "/machines/{id}/deny", deny),
    Page("POST", "/machines/{id}/rename", rename),
    Page("POST", "/machines/{id}/revoke", revoke),
)
