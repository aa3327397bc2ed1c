"""The machines of a project, and which of its secrets each may read, as a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from starlette.responses import Response

from vault.dashboard.fields import page_number
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import page_count
from vault.dashboard.web import Page, Visit
from vault.domains import project_machines
from vault.domains.project_machines import Pair

ROWS, COLUMNS = 25, 10  # machines and secrets of one page: the form has at most two fields for each cell
MAX_OTHERS = 20


def show(visit: Visit) -> Response:
    """A page of the matrix, and machines to add."""
    project_id = visit.param("project")
    page = page_number(visit)
    asked = {name: visit.query(name).strip() for name in ("machine", "secret", "add")}
    with visit.desk.reader() as db:
        project = listings.project(db, project_id)
        members, member_count = project_machines.members(
            db, visit.desk.clock(), project_id, asked["machine"], limit=ROWS, offset=(page - 1) * ROWS
        )
        secrets = listings.secrets_of(db, project_id, page_number(visit, "columns"), asked["secret"], size=COLUMNS)
        granted = project_machines.granted_pairs(
            db, [each["id"] for each in members], [each["id"] for each in secrets.rows]
        )
        others = project_machines.others(db, visit.desk.clock(), project_id, asked["add"], MAX_OTHERS)
    return visit.page(
        "project_machines.html",
        project=project,
        machines=members,
        machine_count=member_count,
        secrets=secrets.rows,
        secret_count=secrets.total,
        granted=granted,
        others=others,
        asked=asked,
        here=_here(visit),
        rows_address=_address(visit, "page"),
        columns_address=_address(visit, "columns"),
        page=page,
        pages=page_count(member_count, ROWS),
        columns=secrets.page,
        column_pages=secrets.pages,
    )


def save(visit: Visit) -> Response:
    """Grant what was ticked and revoke what was unticked. What the form did not show does not change.

    `was` fields have what was granted when the form was made, so a change that somebody else made meanwhile stays.
    """
    project_id, before, after = visit.param("project"), set(visit.fields("was")), set(visit.fields("grant"))
    with visit.desk.transaction() as db:
        gained, lost = project_machines.change_grants(
            visit.desk.as_call(db), project_id, _pairs(after - before), _pairs(before - after)
        )
    changed = [f"granted {gained}" if gained else "", f"revoked {lost}" if lost else ""]
    message = " and ".join(part for part in changed if part)
    return visit.go(_back(visit), f"Saved: {message}." if message else "Nothing was changed.")


def add(visit: Visit) -> Response:
    """Add a machine to the project."""
    path = f"/v1/ai/projects/{visit.param('project')}/machines"
    name = visit.call("POST", path, {"machineId": visit.field("machine")})["name"]
    return visit.go(_back(visit), f"Added {name}. It cannot read anything until you grant it secrets.")


def remove(visit: Visit) -> Response:
    """Remove a machine from the project, with its grants there."""
    path = f"/v1/ai/projects/{visit.param('project')}/machines/{visit.param('machine')}/detach"
    removed = visit.call("POST", path)
    return visit.go(_back(visit), f"Removed {removed['name']} and its grants ({removed['grantsRemoved']}).")


def _pairs(given: Iterable[str]) -> list[Pair]:
    """Machine and secret of each `machine:secret`."""
    pairs = [each.partition(":") for each in sorted(given)]
    return [(machine_id, secret_id) for machine_id, _, secret_id in pairs]


def _here(visit: Visit, *, but: str = "") -> str:
    """The query of this page, without one of its parameters."""
    kept = [(key, value) for key, value in visit.request.query_params.items() if value and key != but]
    return urlencode(kept)


def _address(visit: Visit, but: str) -> str:
    query = _here(visit, but=but)
    return f"/dashboard/projects/{visit.param('project')}/machines?{query}{'&' if query else ''}"


def _back(visit: Visit) -> str:
    query = visit.field("here")
    return f"/projects/{visit.param('project')}/machines{'?' if query else ''}{query}"


PAGES = (
    Page("GET", "/projects/{project}/machines", show),
    Page("POST", "/projects/{project}/machines/save", save),
    Page("POST", "/projects/{project}/machines/add", add),
    Page("POST", "/projects/{project}/machines/{machine}/remove", remove),
)
