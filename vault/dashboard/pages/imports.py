"""Importing a `.env` file into a project with a preview, and exporting the names of its secrets.

What was pasted stays in memory, in the session of the browser that sent it, for five minutes at most: no page of the
preview carries a value.
"""

from __future__ import annotations

import secrets as tokens
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from starlette.responses import Response

from vault import dotenv, env_import
from vault.dashboard.pages import projects
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import Row
from vault.dashboard.templating import plural, visible
from vault.dashboard.web import Page, Visit
from vault.domains.statistics import as_csv
from vault.env_import import Step

DRAFT_LIFE_MS = 5 * 60 * 1000
FORGOTTEN = "The vault no longer has the text: paste it again."
COLUMNS = ("name", "type", "version", "id")
OUTCOMES = ("new", "replaced", "unchanged", "refused")
MAX_ENTRIES = 1_000


class Draft(NamedTuple):
    """What was pasted. `token` is in the form of its preview."""

    token: str
    project_id: str
    steps: Sequence[Step]


def show(visit: Visit) -> Response:
    """The form that takes a file."""
    return _form(visit, projects.require(visit))


def _form(visit: Visit, project: Row, problem: str = "", lines: Sequence[tuple[int, str]] = ()) -> Response:
    status = 400 if problem else 200
    return visit.page("imports.html", status=status, project=project, problem=problem, lines=lines)


def read(visit: Visit) -> Response:
    """Read what was pasted, and go to the preview."""
    project = projects.require(visit)
    try:
        entries = dotenv.parse(visit.field("text"))
    except dotenv.DotenvError as error:
        wrong = len(error.problems)
        return _form(visit, project, f"{plural(wrong, 'line')} cannot be read: nothing was imported", error.problems)
    if not entries:
        return _form(visit, project, "the text has no NAME=value lines")
    if len(entries) > MAX_ENTRIES:
        return _form(visit, project, f"the text has {len(entries):,} lines: import at most {MAX_ENTRIES:,} at once")
    _keep(visit, project["id"], env_import.plan(visit.desk, project["id"], entries))
    return visit.go(f"/projects/{project['id']}/import/preview")


def _keep(visit: Visit, project_id: str, steps: Sequence[Step]) -> Draft:
    """Keep the entries and what would become of them. It replaces an earlier draft of the session."""
    draft = Draft(tokens.token_urlsafe(16), project_id, steps)
    if visit.session is not None:
        visit.session.keep("import", draft, visit.desk.clock() + DRAFT_LIFE_MS)
    return draft


def preview(visit: Visit) -> Response:
    """What an import would do, line by line."""
    project = projects.require(visit)
    draft: Draft | None = visit.session.kept("import", visit.desk.clock()) if visit.session else None
    if draft is None or draft.project_id != project["id"]:
        return visit.go(f"/projects/{project['id']}/import", FORGOTTEN)
    return _preview(visit, project, draft)


def _preview(visit: Visit, project: Row, draft: Draft, problem: str = "") -> Response:
    counts: Counter[str] = Counter(step.outcome for step in draft.steps)
    return visit.page(
        "imports_preview.html",
        status=409 if problem else 200,
        project=project,
        steps=draft.steps,
        counts={outcome: counts[outcome] for outcome in OUTCOMES},
        changes=counts["new"] + counts["replaced"],
        token=draft.token,
        problem=problem,
        life_minutes=DRAFT_LIFE_MS // 60_000,
    )


def apply(visit: Visit) -> Response:
    """Import what the preview showed, all or nothing."""
    project = projects.require(visit)
    draft: Draft | None = visit.session.take("import", visit.desk.clock()) if visit.session else None
    if draft is None or draft.project_id != project["id"] or draft.token != visit.field("token"):
        return visit.go(f"/projects/{project['id']}/import", FORGOTTEN)
    steps = env_import.plan(visit.desk, project["id"], [step.entry for step in draft.steps])
    if steps != draft.steps:
        again = _keep(visit, project["id"], steps)
        return _preview(visit, project, again, "the project has changed since the preview: check the new preview")
    env_import.apply(visit.desk, project["id"], steps)
    counts: Counter[str] = Counter(step.outcome for step in steps)
    said = [f"{counts[outcome]:,} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    return visit.go(f"/projects/{project['id']}", f"Imported the text: {', '.join(said)}.")


def cancel(visit: Visit) -> Response:
    """Forget what was pasted."""
    if visit.session is not None:
        visit.session.take("import", visit.desk.clock())
    return visit.go(f"/projects/{projects.require(visit)['id']}", "Nothing was imported. The vault deleted the text.")


def names_as_text(visit: Visit) -> Response:
    """The names of a project's secrets, one per line."""
    with visit.desk.reader() as db:
        names = listings.names_of(db, listings.project(db, visit.param("project"))["id"])
    content = "".join(str(visible(name)).replace("\n", "\\n") + "\n" for name in names)
    return visit.download(iter([content.encode()]), "text/plain; charset=utf-8", "secrets.txt")


def names_as_csv(visit: Visit) -> Response:
    """The names, types, versions and ids of a project's secrets."""
    with visit.desk.reader() as db:
        rows = listings.exported(db, listings.project(db, visit.param("project"))["id"])
    cells = ([visible(row[column]) for column in COLUMNS] for row in rows)
    return visit.download(iter([as_csv([COLUMNS, *cells])]), "text/csv; charset=utf-8", "secrets.csv")


ONE = "/projects/{project}"

PAGES = (
    Page("GET", ONE + "/import", show),
    Page("POST", ONE + "/import", read),
    Page("GET", ONE + "/import/preview", preview),
    Page("POST", ONE + "/import/apply", apply),
    Page("POST", ONE + "/import/cancel", cancel),
    Page("GET", ONE + "/names.txt", names_as_text),
    Page("GET", ONE + "/names.csv", names_as_csv),
)
