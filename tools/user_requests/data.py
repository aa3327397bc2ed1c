"""The vault that the requests are played on: 8 projects, 120 secrets, 40 machines, 2,000 audit entries.

Everything is derived from counters, and all times lie before today's first moment in UTC, so that each run finds the
same content. Rows are inserted directly, which is fast; the values are encrypted as the vault encrypts them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vault import audit
from vault.domains import secrets, team
from vault.store import Store

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PROJECTS = (
    "Webshop", "Billing", "Mobile API", "Data Warehouse", "Marketing Site", "Support Desk", "Internal Tools",
    "Infrastructure",
)  # fmt: skip
SECRETS = (
    "DATABASE_LOGIN", "STRIPE_API_KEY", "SENTRY_DSN", "SESSION_KEY", "JWT_SIGNING_KEY", "REDIS_PASSWORD",
    "SMTP_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "OAUTH_CLIENT_SECRET", "WEBHOOK_TOKEN", "SEARCH_API_KEY",
    "GRAFANA_TOKEN", "BACKUP_PASSPHRASE", "ADMIN_PASSWORD",
)  # fmt: skip
LOGIN_FIELDS = ("host", "user", "password")  # of the first secret of each project
DELETED = (("LEGACY_TOKEN", 1), ("OLD_SMTP_PASSWORD", 5), ("OLD_DSN", 12))  # of the first project, with days ago
ROLES: dict[str, range] = {  # a machine of each project, and the secrets that it may read
    "web-1": range(10), "web-2": range(10), "worker-1": range(7), "cron-1": range(11, 13), "ci-1": range(3, 4),
}  # fmt: skip
PENDING = "billing-web-2"
AUDIT_ENTRIES = 2_000
AUDIT_DAYS = 30
STALE_EVERY = 10  # of the secrets, one has a value of more than 90 days


class World:
    """A vault's store with the content above, its owner, and the ids by name."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store, self._clock = store, clock
        self.today_ms = clock() // DAY_MS * DAY_MS
        with self.database() as db:
            _insert_all(db, store, self.today_ms)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        with self._store.transaction() as db:
            yield db

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.database() as db:
            return [tuple(row) for row in db.execute(query, parameters)]

    def column(self, query: str, *parameters: Any) -> list[Any]:
        """The first column of a query."""
        return [row[0] for row in self.rows(query, *parameters)]

    def secret(self, project: str, name: str) -> str:
        """The id of a secret; there must be exactly one of that name."""
        query = "SELECT s.id FROM secrets s JOIN projects p ON p.id = s.project_id WHERE p.name = ? AND s.name = ?"
        [secret_id] = self.column(query, project, name)
        return str(secret_id)

    def machine(self, name: str) -> str:
        """The id of a machine."""
        [machine_id] = self.column("SELECT id FROM machines WHERE name = ?", name)
        return str(machine_id)

    def value(self, secret_id: str, version: int = 0) -> str:
        """The stored value; by default, of the current version."""
        with self.database() as db:
            row = secrets.find(db, secret_id)
            return secrets.plaintext(db, self._store.keys, row, version or row["version"])

    def accept_invitation(self, email: str) -> None:
        """The invited person joins the team."""
        with self.database() as db:
            [row] = db.execute("SELECT id FROM team_invites WHERE email = ? AND state = 'pending'", (email,))
            team.accept(db, self._clock(), row["id"])


def machine_name(project: int, role: str) -> str:
    """The name of a project's machine."""
    return f"{PROJECTS[project].lower().replace(' ', '-')}-{role}"


def _secret_id(project: int, place: int) -> str:
    return f"sk_{project * len(SECRETS) + place:016}"


def _machine_id(project: int, place: int) -> str:
    return f"{project * len(ROLES) + place:08x}-0000-4000-8000-000000000000"


def _project_id(project: int) -> str:
    return f"proj_{project:016}"


def _insert_all(db: sqlite3.Connection, store: Store, today_ms: int) -> None:
    began_ms = today_ms - 400 * DAY_MS
    for number, name in enumerate(PROJECTS):
        project, made_ms = _project_id(number), began_ms + number * HOUR_MS
        row = (project, name, f"{name} in production", store.keys.new_project_key(project), made_ms, made_ms)
        db.execute("INSERT INTO projects VALUES (?, ?, ?, ?, ?, ?)", row)
        _insert_secrets(db, store, number, today_ms)
        _insert_policies(db, number, made_ms)
        _insert_machines(db, number, made_ms)
    for place, (name, days) in enumerate(DELETED):
        secret = f"sk_deleted{place:09}"
        _insert_secret(db, store, (secret, _project_id(0), name, None), [began_ms])
        db.execute("UPDATE secrets SET deleted_ms = ? WHERE id = ?", (today_ms - days * DAY_MS + 10 * HOUR_MS, secret))
    _insert_audit(db, today_ms)


def _insert_secrets(db: sqlite3.Connection, store: Store, project: int, today_ms: int) -> None:
    for place, name in enumerate(SECRETS):
        number = project * len(SECRETS) + place
        stored_ms = [today_ms - 400 * DAY_MS + number * HOUR_MS, today_ms - 200 * DAY_MS + number * HOUR_MS]
        stale = number % STALE_EVERY == 0
        if not stale:
            stored_ms.append(today_ms - (12 + number % 50) * DAY_MS + number * 60_000)
        fields = LOGIN_FIELDS if place == 0 else None
        _insert_secret(db, store, (_secret_id(project, place), _project_id(project), name, fields), stored_ms)
        if stale and number % 20 == 0:  # a new note: `updatedAt` is younger than the value
            renamed_ms = today_ms - 20 * DAY_MS
            db.execute("UPDATE secrets SET updated_ms = ? WHERE id = ?", (renamed_ms, _secret_id(project, place)))


def _insert_secret(
    db: sqlite3.Connection, store: Store, row: tuple[str, str, str, tuple[str, ...] | None], stored_ms: list[int]
) -> None:
    """`row` is id, project, name and the fields of a structured secret; each of the times is that of a version."""
    secret, project, name, fields = row
    kind, note = ("structured" if fields else "secret"), f"{name.replace('_', ' ').lower()} in production"
    db.execute(
        "INSERT INTO secrets (id, project_id, name, kind, field_names, note, version, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
        (secret, project, name, kind, json.dumps(fields) if fields else None, note, stored_ms[0], stored_ms[0]),
    )
    for version, at_ms in enumerate(stored_ms, start=1):
        texts = {field: f"{field} {version} of {secret}" for field in fields or ()}
        value = json.dumps(texts) if fields else f"value {version} of {secret}"
        secrets.add_version(db, store.keys, secrets.find(db, secret), value, origin="update", now_ms=at_ms)


def _insert_policies(db: sqlite3.Connection, project: int, made_ms: int) -> None:
    """Two policies, each bound to four of the secrets."""
    rules = json.dumps({"rateCapEnabled": True, "maxReadsPerDay": 5000, "maxReadsPerMinute": 100})
    for number, name in enumerate(("Normal traffic", "Payment data")):
        policy = f"pol_{project * 2 + number:016}"
        row = (policy, _project_id(project), name, "a cap on reads", rules, made_ms, made_ms)
        db.execute("INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for place in range(number * 4, number * 4 + 4):
            db.execute(
                "INSERT INTO policy_bindings (secret_id, policy_id, bound_ms) VALUES (?, ?, ?)",
                (_secret_id(project, place), policy, made_ms),
            )


def _insert_machines(db: sqlite3.Connection, project: int, made_ms: int) -> None:
    for place, (role, readable) in enumerate(ROLES.items()):
        machine, name = _machine_id(project, place), machine_name(project, role)
        approved_ms = None if name == PENDING else made_ms
        db.execute(
            "INSERT INTO machines (id, name, kind, hostname, public_key, approved_ms, created_ms)"
            " VALUES (?, ?, 'standard', ?, ?, ?, ?)",
            (machine, name, f"{name}.example.com", machine.encode(), approved_ms, made_ms + place),
        )
        db.execute("INSERT INTO project_machines VALUES (?, ?, ?)", (_project_id(project), machine, made_ms))
        granted = [] if name == PENDING else [(machine, _secret_id(project, each), made_ms) for each in readable]
        db.executemany("INSERT INTO grants VALUES (?, ?, ?)", granted)


def _insert_audit(db: sqlite3.Connection, today_ms: int) -> None:
    """Nine of ten entries are reads by a project's machine, one is a change by the owner."""
    step_ms = AUDIT_DAYS * DAY_MS // AUDIT_ENTRIES
    rows = []
    for number in range(AUDIT_ENTRIES):
        at_ms = today_ms - (AUDIT_ENTRIES - number) * step_ms
        project, role = number % len(PROJECTS), list(ROLES)[number // 8 % len(ROLES)]
        places = ROLES[role]
        place = places[number // 40 % len(places)]
        if number % 40 in (31, 37):  # someone reads the first project's STRIPE_API_KEY, also last night
            project, role, place = 0, ("web-1", "web-2")[number // 40 % 2], 1
        role = "web-1" if machine_name(project, role) == PENDING else role
        secret, machine = _secret_id(project, place), _machine_id(project, list(ROLES).index(role))
        if number % 10 == 9:
            action, actor, who, detail = "secret_update", "user", None, f"{SECRETS[place]}: a new value, version 3"
        else:
            action, actor, who, detail = "secret_read", "machine", machine, f"{SECRETS[place]} read, version 3"
        rows.append((action, audit.ACTIONS[action], actor, who, secret, _project_id(project), detail, at_ms))
    db.executemany(
        "INSERT INTO audit (action, severity, actor_kind, machine_id, secret_id, project_id, source_ip, detail,"
        " created_ms) VALUES (?, ?, ?, ?, ?, ?, '203.0.113.20', ?, ?)",
        rows,
    )
