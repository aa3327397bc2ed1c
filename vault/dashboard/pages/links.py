"""One-time links: a value for one person, behind an address and a passphrase that are shown once."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import integer, page_number, values_in, with_labels
from vault.dashboard.pages.secrets import generator
from vault.dashboard.queries import listings, names
from vault.dashboard.templating import MAX_CHOICES
from vault.dashboard.web import HOME, Page, Visit
from vault.domains import projects, temporary_secrets
from vault.errors import Refusal

LIVES = (("600", "10 minutes"), ("3600", "1 hour"), ("14400", "4 hours"), ("86400", "1 day"))
KINDS = ("typed", "generated")


def index(visit: Visit) -> Response:
    """The links of all projects."""
    with visit.desk.reader() as db:
        found = listings.links(db, None, visit.desk.clock(), page_number(visit))
    return visit.page("links.html", found=found, address=f"{HOME}/links?", now_ms=visit.desk.clock())


def project_links(visit: Visit) -> Response:
    """Those of one project."""
    now_ms = visit.desk.clock()
    with visit.desk.reader() as db:
        project = listings.project(db, visit.param("project"))
        found = listings.links(db, project["id"], now_ms, page_number(visit))
    address = f"{HOME}/projects/{project['id']}/links?"
    return visit.page("links_project.html", project=project, found=found, address=address, now_ms=now_ms)


def show_new(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form for a new link."""
    kind = visit.field("kind", visit.query("kind", KINDS[0]))
    with visit.desk.reader() as db:
        choices = list(projects.names(db, MAX_CHOICES + 1).items())
    return visit.page(
        "links_new.html",
        status=problem.status if problem else 200,
        projects=choices,
        chosen=visit.field("project", visit.query("project")),
        kind=kind if kind in KINDS else KINDS[0],
        lives=LIVES,
        life=visit.field("life", LIVES[1][0]),
        problem=str(problem or ""),
    )


def create(visit: Visit) -> Response:
    """Create a link, and show its address and its passphrase."""
    try:
        body, remark = _body(visit)
        with visit.desk.reader() as db:
            project_id = names.id_of(db, "project", visit.field("project"))
        made = visit.call("POST", f"/v1/ai/projects/{project_id}/temporary-secrets", body)
    except Refusal as refusal:
        return show_new(visit, with_labels(refusal, {"expiresInSeconds": "the time until it ends, in seconds,"}))
    return visit.page("links_made.html", made=made, name=body["name"], project=project_id, remark=remark)


def _body(visit: Visit) -> tuple[dict[str, Any], str]:
    """The body of the API's route, and a remark about the value. Raises Refusal."""
    body: dict[str, Any] = {"name": visit.field("name").strip()}
    body["expiresInSeconds"] = integer(visit, "life", "the time until it expires")
    if visit.field("kind") == "generated":
        options = generator(visit)
        return {**body, "generateRandom": True, "charset": options.charset, "length": options.length}, ""
    typed, remark = values_in(visit, {"value": "the value"})
    if not typed["value"]:
        raise Refusal(400, "the value is empty: type it, or let the vault generate one")
    return {**body, "value": typed["value"]}, remark


def destroy(visit: Visit) -> Response:
    """End a link that nobody has opened."""
    name = visit.desk.run("destroy a link", lambda call: temporary_secrets.destroy(call, visit.param("link")))
    return visit.go("/links", f"Destroyed {name}. The link no longer works.")


PAGES = (
    Page("GET", "/links", index),
    Page("GET", "/links/new", show_new),
    Page("POST", "/links/new", create),
    Page("POST", "/links/{link}/destroy", destroy),
    Page("GET", "/projects/{project}/links", project_links),
)
