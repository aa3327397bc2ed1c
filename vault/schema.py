"""All tables, routes and jobs of the vault. To add a domain, list it here."""

from __future__ import annotations

from pathlib import Path

from vault import audit, audit_index, chain, gate, limits, makers, reads, refusals, seals, totals
from vault.domains import (
    agents,
    alerts,
    canaries,
    enrollment,
    ip_allowlist,
    machine_reads,
    machines,
    policies,
    project_machines,
    projects,
    schedules,
    sdks,
    secrets,
    statistics,
    support,
    team,
    temporary_secrets,
    trash,
    webhooks,
)
from vault.router import Job
from vault.store import Store

TABLES = (
    audit.TABLES,
    audit_index.TABLES,
    chain.TABLES,
    seals.TABLES,
    projects.TABLES,
    agents.TABLES,
    gate.TABLES,
    limits.TABLES,
    refusals.TABLES,
    makers.TABLES,
    reads.TABLES,
    secrets.TABLES,
    machines.TABLES,
    machine_reads.TABLES,
    enrollment.TABLES,
    ip_allowlist.TABLES,
    schedules.TABLES,
    canaries.TABLES,
    policies.TABLES,
    trash.TABLES,
    team.TABLES,
    temporary_secrets.TABLES,
    alerts.TABLES,
    webhooks.TABLES,
    support.TABLES,
    totals.TABLES,  # counts the rows of the tables above
)

ROUTES = (
    *agents.ROUTES,
    *projects.ROUTES,
    *secrets.ROUTES,
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
    *temporary_secrets.ROUTES,
    *alerts.ROUTES,
    *webhooks.ROUTES,
    *support.ROUTES,
)


def jobs(*, webhooks_to_loopback: bool = False) -> tuple[Job, ...]:
    """What the server does in the background, about once a second."""
    return (
        schedules.rotate_due,
        machines.remove_expired,
        projects.delete_rows,
        trash.purge_due,
        temporary_secrets.expire_due,
        webhooks.deliver_due_to_loopback if webhooks_to_loopback else webhooks.deliver_due,
        refusals.report_due,
        reads.record_due,
    )


# Every column that is encrypted by the root key: table, column, and the kind in the label `kind:id`. A change of the
# root key encrypts these columns again.
WRAPPED = (("projects", "wrapped_key", "project-key"), ("webhooks", "wrapped_secret", "webhook"))


def open_store(directory: Path, passphrase: str | None = None, *, has_server_lock: bool = False) -> Store:
    """The vault in a directory, with all tables. The parameters and errors are those of `Store`."""
    return Store(directory, TABLES, WRAPPED, passphrase, has_server_lock=has_server_lock)
