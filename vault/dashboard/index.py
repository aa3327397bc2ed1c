"""All pages of the dashboard. To add an area, list its module here, and its link in templates/base.html."""

from __future__ import annotations

from vault.dashboard.pages import overview, session
from vault.dashboard.web import Page

PAGES: tuple[Page, ...] = (
    *session.PAGES,
    *overview.PAGES,
)
