"""Canaries: planting them, what they freeze, and who triggered them."""

from __future__ import annotations

from starlette.responses import Response

from vault.dashboard.fields import is_ticked, lines, page_number
from vault.dashboard.pages.secrets import refuse_known_name
from vault.dashboard.queries import listings, names
from vault.dashboard.templating import MAX_CHOICES
from vault.dashboard.web import HOME, Page, Visit
from vault.domains import canaries, projects
from vault.errors import Refusal
from vault.router import Call

TRIGGERS_SHOWN = 50


def index(visit: Visit) -> Response:
    """The canaries of all projects, and the frozen projects."""
    with visit.desk.reader() as db:
        found = listings.canaries(db, None, page_number(visit))
        frozen = listings.frozen_projects(db)
    return visit.page("canaries.html", found=found, frozen=frozen, address=f"{HOME}/canaries?")


def project_canaries(visit: Visit) -> Response:
    """Those of one project."""
    with visit.desk.reader() as db:
        project = listings.project(db, visit.param("project"))
        found = listings.canaries(db, project["id"], page_number(visit))
    address = f"{HOME}/projects/{project['id']}/canaries?"
    return visit.page("canaries_project.html", project=project, found=found, address=address)


def show(visit: Visit) -> Response:
    """One canary with its triggers and settings."""
    with visit.desk.reader() as db:
        shown = listings.canary(db, visit.param("canary"))
        project = listings.project(db, shown["projectId"])
        triggers = listings.latest_triggers(db, shown["id"], TRIGGERS_SHOWN)
        known = names.in_entries(db, triggers)
    return visit.page("canaries_one.html", canary=shown, project=project, triggers=triggers, known=known)


def show_new(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form for a new canary. The first step chooses a project."""
    project_id = visit.field("project", visit.query("project"))
    with visit.desk.reader() as db:
        project_id = names.id_of(db, "project", project_id)
        project = listings.project(db, project_id) if project_id else None
        choices = list(projects.names(db, MAX_CHOICES + 1).items())
        machines = listings.machine_choices(db, project_id, MAX_CHOICES + 1) if project else []
    status = problem.status if problem else 200
    return visit.page(
        "canaries_new.html",
        status=status,
        project=project,
        projects=choices,
        machines=machines,
        is_again=problem is not None,
        problem=str(problem or ""),
    )


def create(visit: Visit) -> Response:
    """Plant a canary."""
    project_id, name = visit.field("project"), visit.field("name").strip()
    body = {
        "projectId": project_id,
        "name": name,
        "triggerFreezeProject": is_ticked(visit, "freeze"),
        "triggerFreezeRelatedProjects": is_ticked(visit, "related"),
    }
    note, machines = visit.field("note").strip(), _machines(visit)

    def plant(call: Call) -> str:
        refuse_known_name(call.db, project_id, name)
        return canaries.plant(call, body, note, machines)

    try:
        canary_id = visit.desk.run("plant a canary", plant)
    except Refusal as refusal:
        if refusal.status == 404:
            raise
        return show_new(visit, refusal)
    return visit.go(f"/canaries/{canary_id}", f"Planted {name}. Do not tell anybody that it is a canary.")


def _machines(visit: Visit) -> list[str]:
    """The ids of the machines that are ticked or typed. Raises Refusal."""
    with visit.desk.reader() as db:
        typed = [names.id_of(db, "machine", name) for name in lines(visit, "more")]
    return list(dict.fromkeys([*visit.fields("machine"), *typed]))


def set_settings(visit: Visit) -> Response:
    """Choose what a read freezes."""
    body = {
        "triggerFreezeProject": is_ticked(visit, "freeze"),
        "triggerFreezeRelatedProjects": is_ticked(visit, "related"),
    }
    made = visit.call("POST", f"/v1/ai/canaries/{visit.param('canary')}/config", body)
    return visit.go(f"/canaries/{made['id']}", f"Saved what {made['name']} freezes.")


def switch(visit: Visit) -> Response:
    """Enable or disable a canary."""
    action = "enable" if is_ticked(visit, "enabled") else "disable"
    made = visit.call("POST", f"/v1/ai/canaries/{visit.param('canary')}/{action}")
    what = "a read triggers it" if made["enabled"] else "a read does not trigger it"
    return visit.go(f"/canaries/{made['id']}", f"{action.title()}d {made['name']}: {what}.")


PAGES = (
    Page("GET", "/canaries", index),
    Page("GET", "/canaries/new", show_new),
    Page("POST", "/canaries/new", create),
    Page("GET", "/canaries/{canary}", show),
    Page("POST", "/canaries/{canary}/settings", set_settings),
    Page("POST", "/canaries/{canary}/switch", switch),
    Page("GET", "/projects/{project}/canaries", project_canaries),
)
