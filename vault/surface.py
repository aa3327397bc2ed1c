"""Everything that the vault is made of, in one place: tables, routes and jobs. A new domain is added here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from vault import (
    agent_admin,
    agents,
    alerts,
    audit,
    canaries,
    enrollment,
    gate,
    ip_allowlist,
    machine_reads,
    machines,
    policies,
    project_machines,
    projects,
    schedules,
    sdks,
    statistics,
    stored_secrets,
    support,
    team,
    temporary_secrets,
    trash,
    webhooks,
)

if TYPE_CHECKING:
    from vault.store import Store

TABLES = (
    audit.TABLES,
    projects.TABLES,
    agents.TABLES,
    gate.TABLES,
    stored_secrets.TABLES,
    machines.TABLES,
    machine_reads.TABLES,
    agent_admin.TABLES,
    enrollment.TABLES,
    ip_allowlist.TABLES,
    schedules.TABLES,
    canaries.TABLES,
    policies.TABLES,
    trash.TABLES,
    team.TABLES,
    statistics.TABLES,
    temporary_secrets.TABLES,
    alerts.TABLES,
    webhooks.TABLES,
    support.TABLES,
)

ROUTES = (
    *agents.ROUTES,
    *projects.ROUTES,
    *stored_secrets.ROUTES,
    *schedules.ROUTES,
    *audit.ROUTES,
    *canaries.ROUTES,
    *policies.ROUTES,
    *trash.ROUTES,
    *team.ROUTES,
    *statistics.ROUTES,
    *sdks.ROUTES,
    *machines.ROUTES,
    *project_machines.ROUTES,
    *machine_reads.ROUTES,
    *enrollment.ROUTES,
    *ip_allowlist.ROUTES,
    *agent_admin.ROUTES,
    *temporary_secrets.ROUTES,
    *alerts.ROUTES,
    *webhooks.ROUTES,
    *support.ROUTES,
)

# What the serving process does by itself, about once a second, with the store and the time in milliseconds.
JOBS: tuple[Callable[[Store, int], None], ...] = (
    schedules.rotate_due,
    machines.remove_expired,
    trash.purge_due,
    temporary_secrets.expire_due,
    webhooks.deliver_due,
)

# Every column that the root key wraps: table, column, and the kind in the label `kind:id`. A new root key walks it.
WRAPPED = (("projects", "wrapped_key", "project-key"), ("webhooks", "wrapped_secret", "webhook"))
