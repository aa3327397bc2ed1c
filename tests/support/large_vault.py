"""Many rows for the lists of a vault. They are inserted directly, which takes less than a second for 10,000."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

DAY_MS = 86_400_000
PROJECT = "proj_0000000000000000"  # contains the machines, the secrets and the temporary secrets
DECOYS = "proj_0000000000000001"  # contains the canaries and the policies
NOTE = "primary database, read and write"
RULES = {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["10.0.0.0/8"]}
PERMISSIONS = ["machines.view", "machines.add"]


def identifier(prefix: str, number: int) -> str:
    """An id as long as those that the vault makes."""
    return f"{prefix}{number:016}"


def uuid(number: int) -> str:
    """An id of a machine or an agent."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def secret_name(number: int) -> str:
    """The name of a secret."""
    return f"SERVICE_{number:05}_DATABASE_PASSWORD"


def machine_name(number: int) -> str:
    """The name of a machine."""
    return f"web-{number:05}.example.com"


def audit_detail(number: int) -> str:
    """The detail of an audit entry. The oldest has number 0."""
    return f"version 1 of {secret_name(number)} read"


def insert(db: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts rows that all have the same columns."""
    if rows:
        columns, values = ", ".join(rows[0]), ", ".join(f":{column}" for column in rows[0])
        db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)  # noqa: S608  # names from this file


def add_projects(db: sqlite3.Connection, numbers: range, now_ms: int) -> None:
    """Projects. They cannot store secrets, because their keys are not real."""
    times = {"created_ms": now_ms, "updated_ms": now_ms}
    rows = [
        {"id": identifier("proj_", number), "name": f"service-{number:05}", "description": NOTE, "wrapped_key": b"0"}
        for number in numbers
    ]
    insert(db, "projects", [{**row, **times} for row in rows])


def add_secrets(
    db: sqlite3.Connection, project: str, numbers: range, now_ms: int, *, kind: str = "secret", deleted: bool = False
) -> None:
    """Secrets with one version each."""
    secret = {"project_id": project, "kind": kind, "note": NOTE, "version": 1, "created_ms": now_ms}
    times = {"updated_ms": now_ms, "deleted_ms": now_ms + 99 * DAY_MS if deleted else None}
    rows = [{"id": identifier("sk_", number), "name": secret_name(number), **secret, **times} for number in numbers]
    insert(db, "secrets", rows)
    add_versions(db, [(identifier("sk_", number), 1) for number in numbers], now_ms)


def add_versions(db: sqlite3.Connection, versions: Sequence[tuple[str, int]], now_ms: int) -> None:
    """Versions, each as the id of the secret and the number. Their values cannot be read."""
    stored = {"origin": "update", "wrapped_key": b"0", "ciphertext": b"0", "created_ms": now_ms}
    insert(db, "secret_versions", [{"secret_id": secret, "version": version, **stored} for secret, version in versions])


def add_machines(db: sqlite3.Connection, project: str, numbers: range, now_ms: int) -> None:
    """Approved machines in a project."""
    times = {"approved_ms": now_ms, "last_seen_ms": now_ms, "created_ms": now_ms}
    rows = [{"id": uuid(number), "name": machine_name(number), "hostname": f"host-{number:05}"} for number in numbers]
    machines = [{**row, "kind": "standard", "public_key": row["id"].encode(), **times} for row in rows]
    insert(db, "machines", machines)
    listed = [{"project_id": project, "machine_id": row["id"], "added_ms": now_ms} for row in rows]
    insert(db, "project_machines", listed)


def add_audit(db: sqlite3.Connection, project: str, count: int, now_ms: int) -> None:
    """Entries of reads by a machine, one for each second until now."""
    entry = {"action": "secret_read", "severity": "info", "actor_kind": "machine", "source_ip": "10.0.0.7"}
    ids = {"machine_id": uuid(0), "secret_id": identifier("sk_", 0), "project_id": project}
    rows = [{"detail": audit_detail(number), "created_ms": now_ms - (count - number) * 1000} for number in range(count)]
    insert(db, "audit", [{**entry, **ids, **row} for row in rows])


def fill_every_list(db: sqlite3.Connection, count: int, now_ms: int) -> None:
    """Adds `count` rows to every list that grows with the vault."""
    old_ms = now_ms - 100 * DAY_MS
    add_projects(db, range(count), old_ms)
    add_secrets(db, PROJECT, range(count), old_ms)
    add_secrets(db, DECOYS, range(count, 2 * count), old_ms, kind="canary")
    add_secrets(db, PROJECT, range(2 * count, 3 * count), old_ms, deleted=True)
    add_versions(db, [(identifier("sk_", 0), version) for version in range(2, count + 1)], old_ms)
    add_machines(db, PROJECT, range(count), now_ms)
    add_audit(db, PROJECT, count, now_ms)
    _fill_by_secret(db, count, now_ms)
    _fill_people_and_addresses(db, count, now_ms)


def _fill_by_secret(db: sqlite3.Connection, count: int, now_ms: int) -> None:
    """Grants, schedules, canaries, policies and their bindings, temporary secrets."""
    secrets = [identifier("sk_", number) for number in range(count)]
    times = {"created_ms": now_ms, "updated_ms": now_ms}
    grants = [{"machine_id": uuid(0), "secret_id": secret, "granted_ms": now_ms} for secret in secrets]
    insert(db, "grants", grants)
    schedule = {"interval_s": 86_400, "length": 32, "charset": "symbols", "next_ms": now_ms + DAY_MS, **times}
    insert(db, "rotation_schedules", [{"secret_id": secret, **schedule} for secret in secrets])
    decoys = [identifier("sk_", number) for number in range(count, 2 * count)]
    canary = {"enabled": 1, "freeze_project": 1, "freeze_related": 0, "updated_ms": now_ms}
    insert(db, "canaries", [{"secret_id": secret, **canary} for secret in decoys])
    policy = {"project_id": DECOYS, "description": NOTE, "rules": json.dumps(RULES), **times}
    policies = [{"id": identifier("pol_", number), "name": f"policy-{number:05}"} for number in range(count)]
    insert(db, "policies", [{**row, **policy} for row in policies])
    binding = {"policy_id": policies[0]["id"], "bound_ms": now_ms}
    insert(db, "policy_bindings", [{"secret_id": secret, **binding} for secret in decoys])
    shared = {"project_id": PROJECT, "status": "pending", "ciphertext": b"0", "created_ms": now_ms}
    ends = {"expires_ms": now_ms + DAY_MS}
    temporary = [{"id": identifier("ts_", number), "name": f"for-guest-{number:05}"} for number in range(count)]
    insert(db, "temporary_secrets", [{**row, "token_hash": row["id"].encode(), **shared, **ends} for row in temporary])


def _fill_people_and_addresses(db: sqlite3.Connection, count: int, now_ms: int) -> None:
    """Agents, team members, enrollment tokens, addresses, webhooks, name histories and tickets."""
    numbers, created = range(count), {"created_ms": now_ms}
    agent = {"scopes": '["projects.list"]', "restricted": 0, "approved_ms": now_ms, **created}
    agents = [{"id": uuid(number), "name": f"agent-{number:05}"} for number in numbers]
    insert(db, "ai_agents", [{**row, "public_key": row["id"].encode(), **agent} for row in agents])
    members = [{"id": identifier("mem_", number), "email": f"person-{number:05}@example.com"} for number in numbers]
    insert(db, "team_members", [{**row, "joined_ms": now_ms} for row in members])
    granted = {"member_id": members[0]["id"], "permissions": json.dumps(PERMISSIONS), "added_ms": now_ms}
    insert(db, "project_members", [{"project_id": identifier("proj_", number), **granted} for number in numbers])
    others = [{"project_id": PROJECT, **granted, "member_id": row["id"]} for row in members[1:]]
    insert(db, "project_members", others)
    token = {"description": NOTE, "machine_life_s": 86_400, "max_uses": 10, "expires_ms": now_ms + DAY_MS, **created}
    tokens = [{"id": identifier("enr_", number), "name": f"pool-{number:05}"} for number in numbers]
    insert(db, "enrollment_tokens", [{**row, "token_hash": row["id"].encode(), **token} for row in tokens])
    reach = [{"token_id": tokens[0]["id"], "secret_id": identifier("sk_", number)} for number in numbers]
    insert(db, "enrollment_secrets", reach)
    networks = [{"id": identifier("ip_", n), "cidr": f"10.{n // 256}.{n % 256}.0/24", "label": NOTE} for n in numbers]
    insert(db, "ip_allowlist", [{**row, **created} for row in networks])
    webhook = {"wrapped_secret": b"0", "next_ms": now_ms, "updated_ms": now_ms, **created}
    webhooks = [{"id": identifier("wh_", n), "url": f"https://hooks.example.com/{n:05}", **webhook} for n in numbers]
    insert(db, "webhooks", webhooks)
    insert(db, "webhook_actions", [{"webhook_id": row["id"], "action": "vault_seal"} for row in webhooks])
    names = [{"name": machine_name(number), "new_name": machine_name(number + 1)} for number in numbers]
    insert(db, "machine_names", [{"machine_id": uuid(0), **row, "changed_ms": now_ms} for row in names])
    insert(db, "agent_names", [{"agent_id": uuid(0), **row, "changed_ms": now_ms} for row in names])
    ticket = {"category_id": "other", "priority": "low", "title": "A question", "status": "open", "updated_ms": now_ms}
    insert(db, "tickets", [{"id": identifier("tk_", number), **ticket, **created} for number in numbers])
    message = {"ticket_id": identifier("tk_", 0), "author": "customer", "body": "One more detail.", **created}
    insert(db, "ticket_messages", [{"id": identifier("tm_", number), **message} for number in numbers])
