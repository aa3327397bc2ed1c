"""The number of rows of each kind, per project and in all, kept up to date so that no request has to count rows.

Triggers in the database keep the numbers in the transaction that changes the rows. A vault of an earlier version is
counted once, when it is opened for the first time. The numbers are shown and compared with limits; they grant nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from vault.query import count, fetch_one

TABLE = """
CREATE TABLE IF NOT EXISTS totals (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
DROP TRIGGER IF EXISTS secrets_drop_versions;
-- What is counted for a project goes first, while its secret still says which project it belongs to.
CREATE TRIGGER IF NOT EXISTS secrets_drop_counted BEFORE DELETE ON secrets BEGIN
    DELETE FROM secret_versions WHERE secret_id = OLD.id;
    DELETE FROM grants WHERE secret_id = OLD.id;
    DELETE FROM rotation_schedules WHERE secret_id = OLD.id;
END;
"""


class Total(NamedTuple):
    """What is counted: the rows of a table that meet a condition, or the sum of an amount.

    `of` is the id to count under, such as the project of a row, or None if only the whole vault counts, whose id is
    empty. `watched` are the columns whose change can change the condition. `{row}` stands for the row.
    """

    kind: str
    table: str
    of: str | None
    where: str = "1"
    amount: str = "1"
    watched: str = ""
    in_vault: bool = True


PROJECT = "{row}.project_id"
SECRETS_PROJECT = "(SELECT project_id FROM secrets WHERE id = {row}.secret_id)"
# Each value counts in whole blocks of 4 KiB. An agent that adds values of known sizes could otherwise find out the
# exact size of another value from the sum, also from a rounded one.
BLOCKS = "((length({row}.ciphertext) + 4095) / 4096 * 4096)"
# The number of an hour since the epoch, with as many digits for each, so that texts are in the order of the hours.
HOUR = "printf('%07d', {row}.created_ms / 3600000)"
PROJECT_HOUR = "({row}.project_id || ':' || " + HOUR + ")"
NAMED = "{row}.project_id IS NOT NULL"
AGENT_PROJECT = "({row}.agent_id || ':' || coalesce({row}.project_id, ''))"
READ, DENIED = "{row}.action = 'secret_read'", "{row}.action = 'secret_read_denied'"
KEPT = "{row}.deleted_ms IS NULL"

# fmt: off
TOTALS = (
    Total("projects",    "projects",         None),
    Total("secrets",     "secrets",          PROJECT, KEPT,                             watched="deleted_ms"),
    Total("trash",       "secrets",          PROJECT, "{row}.deleted_ms IS NOT NULL",   watched="deleted_ms"),
    Total("canaries",    "secrets",          PROJECT, KEPT + " AND {row}.kind = 'canary'", watched="deleted_ms, kind"),
    Total("versions",    "secret_versions",  SECRETS_PROJECT),
    Total("bytes",       "secret_versions",  SECRETS_PROJECT, amount=BLOCKS),
    Total("grants",      "grants",           SECRETS_PROJECT, in_vault=False),
    Total("schedules",   "rotation_schedules", SECRETS_PROJECT, in_vault=False),
    Total("policies",    "policies",         PROJECT),
    Total("bindings",    "policy_bindings",  "{row}.policy_id", in_vault=False),
    Total("machines",    "machines",         None),
    Total("memberships", "project_machines", PROJECT, in_vault=False),
    Total("agents",      "ai_agents",        None),
    Total("members",     "team_members",     None),
    Total("freezes",     "project_freezes",  None),
    Total("deliveries",  "webhook_deliveries", "{row}.webhook_id", in_vault=False),
    Total("entries of",  "audit", PROJECT,      NAMED,                     in_vault=False),
    Total("entries by",  "audit", AGENT_PROJECT, "{row}.agent_id IS NOT NULL", in_vault=False),
    Total("reads",       "audit", HOUR,         READ,                      in_vault=False),
    Total("denied",      "audit", HOUR,         DENIED,                    in_vault=False),
    Total("reads of",    "audit", PROJECT_HOUR, f"{READ} AND {NAMED}",     in_vault=False),
    Total("denied of",   "audit", PROJECT_HOUR, f"{DENIED} AND {NAMED}",   in_vault=False),
    Total("alerts",      "alerts",           "{row}.action", in_vault=False),
)
# fmt: on

IN_VAULT = "SELECT id AS hour, amount FROM totals WHERE kind = ? AND id BETWEEN ? AND ?"
IN_PROJECTS = """
SELECT substr(t.id, -7) AS hour, t.amount FROM agent_projects a
JOIN totals t ON t.kind = ? AND t.id BETWEEN a.project_id || ':' || ? AND a.project_id || ':' || ?
WHERE a.agent_id = ?
"""

# The entries of the projects on an agent's allowlist, and the agent's own without those in these projects.
VISIBLE = """
SELECT coalesce(sum(amount), 0) FROM (
    SELECT t.amount FROM agent_projects a JOIN totals t ON t.kind = 'entries of' AND t.id = a.project_id
        WHERE a.agent_id = :agent
    UNION ALL SELECT amount FROM totals WHERE kind = 'entries by' AND id >= :agent || ':' AND id < :agent || ';'
    UNION ALL SELECT -t.amount FROM agent_projects a
        JOIN totals t ON t.kind = 'entries by' AND t.id = a.agent_id || ':' || a.project_id WHERE a.agent_id = :agent)
"""


def of(db: sqlite3.Connection, kind: str, owner: str = "") -> int:
    """The total of a project or the like, or of the whole vault."""
    row = fetch_one(db, "SELECT amount FROM totals WHERE kind = ? AND id = ?", (kind, owner))
    return 0 if row is None else int(row["amount"])


def by_hour(db: sqlite3.Connection, kind: str, hours: range, viewer: str | None) -> dict[int, int]:
    """The totals of reads or denied reads in each of these hours, which are numbered since the epoch.

    For a `viewer`, an agent with an allowlist, only reads in its projects count.
    """
    if not hours:
        return {}
    first, last = f"{hours[0]:07d}", f"{hours[-1]:07d}"
    if viewer is None:
        rows = db.execute(IN_VAULT, (kind, first, last))
    else:
        rows = db.execute(IN_PROJECTS, (f"{kind} of", first, last, viewer))
    found: dict[int, int] = {}
    for row in rows:
        found[int(row["hour"])] = found.get(int(row["hour"]), 0) + row["amount"]
    return found


def visible_entries(db: sqlite3.Connection, viewer: str) -> int:
    """How many audit entries an agent with an allowlist sees."""
    return count(db, VISIBLE, {"agent": viewer})


def subquery(kind: str, owner: str) -> str:
    """SQL for the total of the owner that a SQL expression gives."""
    return f"coalesce((SELECT amount FROM totals WHERE kind = '{kind}' AND id = {owner}), 0)"


def in_vault(kind: str) -> str:
    """SQL for the total of the whole vault, without the projects that are being deleted."""
    deleted = f"coalesce((SELECT sum({subquery(kind, 'project_id')}) FROM deleted_projects), 0)"
    if kind == "projects":
        deleted = "(SELECT COUNT(*) FROM deleted_projects)"
    whole = subquery(kind, "''")
    return f"{whole} - {deleted}"


def _statements() -> Iterator[str]:
    for total in TOTALS:
        yield from _fill(total)
        new, old = total.where.format(row="NEW"), total.where.format(row="OLD")
        name, table = f"totals_of_{total.kind}", total.table
        name = name.replace(" ", "_")
        yield f"CREATE TRIGGER IF NOT EXISTS {name}_add AFTER INSERT ON {table} WHEN {new} BEGIN {_add(total)}; END;"
        drop = _change(total, "OLD", f"-{total.amount.format(row='OLD')}")
        gone = f"DELETE FROM totals WHERE kind = '{total.kind}' AND id = {_owner(total, 'OLD')} AND amount = 0"
        drop = drop if total.of is None else f"{drop}; {gone}"
        yield f"CREATE TRIGGER IF NOT EXISTS {name}_drop AFTER DELETE ON {table} WHEN {old} BEGIN {drop}; END;"
        if total.watched:
            change = _change(total, "NEW", f"CASE WHEN {new} THEN 1 ELSE -1 END")
            of_table = f"UPDATE OF {total.watched} ON {table} WHEN ({new}) <> ({old})"
            yield f"CREATE TRIGGER IF NOT EXISTS {name}_move AFTER {of_table} BEGIN {change}; END;"


def _add(total: Total) -> str:
    return _change(total, "NEW", total.amount.format(row="NEW"))


def _change(total: Total, row: str, amount: str) -> str:
    owners = [_owner(total, row)] if total.of else []
    if total.in_vault:
        owners.append("''")
    rows = ", ".join(f"('{total.kind}', {owner}, {amount})" for owner in owners)
    return (
        f"INSERT INTO totals (kind, id, amount) VALUES {rows}"
        " ON CONFLICT (kind, id) DO UPDATE SET amount = amount + excluded.amount"
    )


def _fill(total: Total) -> Iterator[str]:
    """Count the rows of a vault that has no total of the kind."""
    amount, where = total.amount.format(row="r"), total.where.format(row="r")
    # The outer loop has no row if there are totals, so that opening a vault does not go through its rows.
    missing = f"(SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM totals WHERE kind = '{total.kind}'))"
    columns = f"INSERT INTO totals (kind, id, amount) SELECT '{total.kind}'"
    rows = f"FROM {missing} CROSS JOIN {total.table} r WHERE {where}"
    if total.of:
        yield f"{columns}, {_owner(total, 'r')}, sum({amount}) {rows} GROUP BY 2;"
    if total.in_vault:
        whole = f"NOT EXISTS (SELECT 1 FROM totals WHERE kind = '{total.kind}' AND id = '')"
        summed = f"(SELECT coalesce(sum({amount}), 0) FROM {total.table} r WHERE {where})"
        yield f"{columns}, '', {summed} WHERE {whole};"


def _owner(total: Total, row: str) -> str:
    return (total.of or "''").format(row=row)


TABLES = TABLE + "\n".join(_statements())
