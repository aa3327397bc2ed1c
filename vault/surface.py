"""Everything that the vault is made of, in one place: tables, routes and jobs. A new domain is added here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from vault import agents, audit, gate, machines, not_offered, projects, schedules, stored_secrets

if TYPE_CHECKING:
    from vault.store import Store

TABLES = (
    audit.TABLES,
    projects.TABLES,
    agents.TABLES,
    gate.TABLES,
    stored_secrets.TABLES,
    machines.TABLES,
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

# What the serving process does by itself, about once a second, with the store and the time in milliseconds.
JOBS: tuple[Callable[[Store, int], None], ...] = (schedules.rotate_due,)
