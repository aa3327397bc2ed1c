"""All pages of the dashboard. To add an area, list its module here, and its link in templates/base.html."""

from __future__ import annotations

from vault.dashboard.pages import (
    agents,
    alerts,
    audit,
    canaries,
    enrollment,
    imports,
    ip_allowlist,
    keys,
    links,
    machines,
    overview,
    policies,
    project_machines,
    projects,
    reveals,
    secrets,
    session,
    team,
    tickets,
    trash,
    webhooks,
)
from vault.dashboard.web import Page

PAGES: tuple[Page, ...] = (
    *session.PAGES,
    *overview.PAGES,
    *agents.PAGES,
    *alerts.PAGES,
    *audit.PAGES,
    *canaries.PAGES,
    *enrollment.PAGES,
    *imports.PAGES,
    *ip_allowlist.PAGES,
    *keys.PAGES,
    *links.PAGES,
    *machines.PAGES,
    *policies.PAGES,
    *project_machines.PAGES,
    *projects.PAGES,
    *reveals.PAGES,
    *secrets.PAGES,
    *team.PAGES,
    *tickets.PAGES,
    *trash.PAGES,
    *webhooks.PAGES,
)
