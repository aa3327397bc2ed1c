"""The first page: what waits for the owner, and how the vault is doing."""

from __future__ import annotations

from starlette.responses import Response

from vault.dashboard.web import Page, Visit


def overview(visit: Visit) -> Response:
    """What waits for approval, what is frozen, and the counts."""
    projects = visit.call("GET", "/v1/ai/projects")
    return visit.page("overview.html", projects=projects)


PAGES = (Page("GET", "", overview),)
