"""Everything that the vault is made of, in one place: its tables and its routes. A new domain is added here."""

from __future__ import annotations

from vault import agents, audit, gate, not_offered, projects, schedules, stored_secrets

TABLES = (
    audit.TABLES,
    projects.TABLES,
    agents.TABLES,
    gate.TABLES,
    stored_secrets.TABLES,
    schedules.TABLES,
)

ROUTES = (
    *agents.ROUTES,
    *projects.ROUTES,
    *stored_secrets.ROUTES,
    *schedules.ROUTES,
    *audit.ROUTES,
    *not_offered.ROUTES,
)
