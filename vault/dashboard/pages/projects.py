"""Projects: the list, one project with its secrets, its settings, and the search over all projects."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from vault.dashboard.fields import is_same_name, page_number
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import Row
from vault.dashboard.web import HOME, Page, Visit
from vault.domains import projects
from vault.errors import Refusal

# What is deleted with a project, in the order of the page: the key of the API, and its name for one and for more.
CASCADE = (
    ("secrets", "secret", "secrets"),
    ("secretsInTrash", "secret in the trash", "secrets in the trash"),
    ("secretVersions", "version", "versions"),
    ("rotationSchedules", "rotation schedule", "rotation schedules"),
    ("policies", "policy", "policies"),
    ("canaries", "canary", "canaries"),
    ("grants", "grant", "grants"),
    ("machineMemberships", "machine in the project", "machines in the project"),
    ("teamPermissions", "permission of the team", "permissions of the team"),
    ("enrollmentTokens", "use in an enrollment token", "uses in enrollment tokens"),
    ("temporarySecrets", "one-time link", "one-time links"),
    ("agentAllowlistEntries", "entry in an agent's allowlist", "entries in agents' allowlists"),
)


def require(visit: Visit) -> Row:
    """The project of the path. Raises Refusal."""
    with visit.desk.reader() as db:
        return listings.project(db, visit.param("project"))


def index(visit: Visit) -> Response:
    """All projects."""
    with visit.desk.reader() as db:
        found = listings.projects(db, page_number(visit))
    return visit.page("projects.html", found=found)


def show_new(visit: Visit) -> Response:
    """The form for a new project."""
    return visit.page("projects_new.html", name="", description="", problem="")


def create(visit: Visit) -> Response:
    """Create a project."""
    given = {"name": visit.field("name").strip(), "description": visit.field("description").strip()}
    try:
        made = visit.call("POST", "/v1/ai/projects", given)
    except Refusal as refusal:
        return visit.page("projects_new.html", status=refusal.status, problem=str(refusal), **given)
    return visit.go(f"/projects/{made['id']}", f"Created {made['name']}. It has no secrets yet.")


def show(visit: Visit) -> Response:
    """The secrets of a project."""
    search = visit.query("name").strip()
    with visit.desk.reader() as db:
        shown = listings.project(db, visit.param("project"))
        found = listings.secrets_of(db, shown["id"], page_number(visit), search)
    address = f"{HOME}/projects/{shown['id']}?{urlencode({'name': search}) + '&' if search else ''}"
    return visit.page("projects_secrets.html", project=shown, found=found, search=search, address=address)


def show_settings(visit: Visit, problem: Refusal | None = None) -> Response:
    """The name and description, the freeze, and what a deletion would delete."""
    shown = require(visit)
    with visit.desk.reader() as db:
        counts = projects.cascade(db, shown["id"])
    cascade = [(counts[key], one, more) for key, one, more in CASCADE if counts[key]]
    values = {
        "name": visit.field("name", shown["name"]),
        "description": visit.field("description", shown["description"]),
    }
    return visit.page(
        "projects_settings.html",
        status=problem.status if problem else 200,
        project=shown,
        cascade=cascade,
        problem=str(problem or ""),
        **values,
    )


def change_settings(visit: Visit) -> Response:
    """Rename a project or change its description."""
    project_id, given = visit.param("project"), {"name": visit.field("name").strip()}
    try:
        visit.call(
            "POST", f"/v1/ai/projects/{project_id}/update", {**given, "description": visit.field("description").strip()}
        )
    except Refusal as refusal:
        return show_settings(visit, refusal)
    return visit.go(f"/projects/{project_id}/settings", f"Saved {given['name']}.")


def unfreeze(visit: Visit) -> Response:
    """Let machines read again. `to` says which page asked."""
    made = visit.call("POST", f"/v1/ai/projects/{visit.param('project')}/unfreeze")
    path = "/canaries" if visit.field("to") == "canaries" else f"/projects/{made['id']}"
    return visit.go(path, f"Unfroze {made['name']}. Machines can read its secrets again.")


def delete(visit: Visit) -> Response:
    """Delete a project whose name was typed."""
    shown = require(visit)
    if not is_same_name(visit.field("confirm"), shown["name"]):
        return show_settings(visit, Refusal(400, "this is not the name of the project: nothing was deleted"))
    visit.call("POST", f"/v1/ai/projects/{shown['id']}/delete", {"confirmName": shown["name"]})
    return visit.go("/projects", f"Deleted {shown['name']} with everything in it.")


def search(visit: Visit) -> Response:
    """Secrets of all projects by a part of their name."""
    name = visit.query("name").strip()
    with visit.desk.reader() as db:
        found = listings.secrets_named(db, name, page_number(visit)) if name else listings.Rows([], 0, 1)
    address = f"{HOME}/search?{urlencode({'name': name})}&"
    return visit.page("search.html", found=found, search=name, address=address)


PAGES = (
    Page("GET", "/projects", index),
    Page("GET", "/projects/new", show_new),
    Page("POST", "/projects/new", create),
    Page("GET", "/projects/{project}", show),
    Page("GET", "/projects/{project}/settings", show_settings),
    Page("POST", "/projects/{project}/settings", change_settings),
    Page("POST", "/projects/{project}/unfreeze", unfreeze),
    Page("POST", "/projects/{project}/delete", delete),
    Page("GET", "/search", search),
)
