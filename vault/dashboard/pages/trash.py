"""The trash: deleted secrets of all projects or of one, to restore or to purge."""

from __future__ import annotations

from starlette.responses import Response

from vault.dashboard.fields import page_number
from vault.dashboard.queries import listings
from vault.dashboard.web import HOME, Page, Visit


def index(visit: Visit) -> Response:
    """The secrets in the trash of all projects."""
    with visit.desk.reader() as db:
        found = listings.trash(db, None, page_number(visit))
    return visit.page("trash.html", found=found, address=f"{HOME}/trash?", now_ms=visit.desk.clock())


def project_trash(visit: Visit) -> Response:
    """Those of one project."""
    with visit.desk.reader() as db:
        project = listings.project(db, visit.param("project"))
        found = listings.trash(db, project["id"], page_number(visit))
    address = f"{HOME}/projects/{project['id']}/trash?"
    return visit.page("trash_project.html", project=project, found=found, address=address, now_ms=visit.desk.clock())


def restore(visit: Visit) -> Response:
    """Restore a secret to its project."""
    done = visit.call("POST", f"/v1/ai/trash/{visit.param('secret')}/restore")
    return visit.go(f"/projects/{done['projectId']}/secrets/{done['id']}", f"Restored {done['name']}.")


def purge(visit: Visit) -> Response:
    """Delete a secret with all its versions permanently."""
    done = visit.call("POST", f"/v1/ai/trash/{visit.param('secret')}/purge")
    path = "/trash" if visit.field("to") == "trash" else f"/projects/{done['projectId']}/trash"
    return visit.go(path, f"Purged {done['name']} with all its versions.")


PAGES = (
    Page("GET", "/trash", index),
    Page("GET", "/projects/{project}/trash", project_trash),
    Page("POST", "/trash/{secret}/restore", restore),
    Page("POST", "/trash/{secret}/purge", purge),
)
