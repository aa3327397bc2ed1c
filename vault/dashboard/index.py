"""All pages of the dashboard. To add an area, list its module here, and its link in templates/base.html."""

from __future__ import annotations

from vault.dashboard.pages import (
    alerts,
    audit,
    imports,
    keys,
    overview,
    projects,
    reveals,
    secrets,
    session,
    tickets,
    webhooks,
)
from vault.dashboard.web import Page

PAGES: tuple[Page, ...] = (
    *session.PAGES,
    *overview.PAGES,
    *alerts.PAGES,
    *audit.PAGES,
    *imports.PAGES,
    *keys.PAGES,
    *projects.PAGES,
    *reveals.PAGES,
    *secrets.PAGES,
    *tickets.PAGES,
    *webhooks.PAGES,
)
