"""Statistics: totals, usage, reads over time, and the audit log as CSV.

For an agent with a project allowlist they cover only its projects and the audit entries that it can see.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vault import audit
from vault.errors import Refusal
from vault.inputs import TIME_MS, text
from vault.query import count
from vault.router import Call, Route, Stream, Transaction

TABLES = """
CREATE INDEX IF NOT EXISTS audit_by_action ON audit (action, created_ms);
"""

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# A condition on a column that holds a project id: only projects that the agent may reach.
REACHED = "(:restricted = 0 OR {0} IN (SELECT project_id FROM agent_projects WHERE agent_id = :agent))"
SECRETS = "FROM secrets s WHERE " + REACHED.format("s.project_id")
VERSIONS = "FROM secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE " + REACHED.format("s.project_id")
# Machines without a project are visible only to agents without an allowlist.
MACHINES = """
FROM machines m WHERE (:restricted = 0 OR EXISTS (SELECT 1 FROM project_machines p JOIN agent_projects a
    ON a.project_id = p.project_id WHERE p.machine_id = m.id AND a.agent_id = :agent))
"""
MEMBERS = """
FROM team_members m WHERE (:restricted = 0 OR EXISTS (SELECT 1 FROM project_members p JOIN agent_projects a
    ON a.project_id = p.project_id WHERE p.member_id = m.id AND a.agent_id = :agent))
"""
EVENTS = audit.VISIBLE + "AND action = :action AND created_ms BETWEEN :from AND :to"

# fmt: off
COUNTS = {
    "projects":       "SELECT COUNT(*) FROM projects WHERE " + REACHED.format("id"),
    "frozenProjects": "SELECT COUNT(*) FROM project_freezes WHERE " + REACHED.format("project_id"),
    "secrets":        "SELECT COUNT(*) " + SECRETS + " AND s.deleted_ms IS NULL",
    "secretsInTrash": "SELECT COUNT(*) " + SECRETS + " AND s.deleted_ms IS NOT NULL",
    "canaries":       "SELECT COUNT(*) " + SECRETS + " AND s.deleted_ms IS NULL AND s.kind = 'canary'",
    "secretVersions": "SELECT COUNT(*) " + VERSIONS,
    # Each value counts in whole blocks of 4 KiB. An agent that adds values of known sizes could otherwise find out the
    # exact size of another value from the sum, also from a rounded one.
    "storedBytes":    "SELECT coalesce(sum((length(v.ciphertext) + 4095) / 4096 * 4096), 0) " + VERSIONS,
    "policies":       "SELECT COUNT(*) FROM policies WHERE " + REACHED.format("project_id"),
    "machines":       "SELECT COUNT(*) " + MACHINES,
    "aiAgents":       "SELECT COUNT(*) FROM ai_agents WHERE :restricted = 0 OR id = :agent",
    "teamMembers":    "SELECT COUNT(*) " + MEMBERS,
    "auditEntries":   "SELECT COUNT(*) " + audit.VISIBLE,
}
# fmt: on
TOTALS = ("projects", "frozenProjects", "secrets", "secretsInTrash", "canaries", "policies", "machines", "aiAgents")
USED = ("projects", "secrets", "secretVersions", "storedBytes", "machines", "aiAgents", "teamMembers", "auditEntries")
DAYS_OF_USAGE = 30


def stats(call: Call) -> object:
    """Totals, and the reads of the last 24 hours."""
    recent = {"from": call.now_ms - DAY_MS + 1, "to": call.now_ms}
    return {
        **_counted(call, TOTALS),
        "reads24h": _events(call, "secret_read", recent),
        "deniedReads24h": _events(call, "secret_read_denied", recent),
        "canariesTriggered24h": _events(call, "canary_triggered", recent),
    }


def usage(call: Call) -> object:
    """Usage, and the reads of the last 30 days. A local vault has no plan and therefore no limits."""
    period = {"from": call.now_ms - DAYS_OF_USAGE * DAY_MS + 1, "to": call.now_ms}
    used = {**_counted(call, USED), "reads": _events(call, "secret_read", period)}
    return {"plan": "local", "periodStart": period["from"], "periodEnd": period["to"], "used": used, "limits": None}


def _counted(call: Call, names: tuple[str, ...]) -> dict[str, int]:
    viewer = audit.viewer(call)
    return {name: count(call.db, COUNTS[name], viewer) for name in names}


def _events(call: Call, action: str, period: Mapping[str, int]) -> int:
    return count(call.db, "SELECT COUNT(*) " + EVENTS, {**audit.viewer(call), **period, "action": action})


# ---- reads over time -------------------------------------------------------------------------------------------------


class Bucket(NamedTuple):
    """The length of a bucket, and the default length of the series."""

    length_ms: int
    default_span_ms: int


BUCKETS = {"hour": Bucket(HOUR_MS, DAY_MS), "day": Bucket(DAY_MS, 30 * DAY_MS)}
MAX_BUCKETS = 1_000
SERIES = "SELECT created_ms / :length AS bucket, COUNT(*) AS count " + EVENTS + " GROUP BY bucket"


def reads_over_time(call: Call) -> object:
    """Reads and denied reads per hour or per UTC day. Empty buckets are included."""
    bucket = BUCKETS[call.body.get("bucket", "day")]
    to_ms = call.body.get("to", call.now_ms)
    from_ms = call.body.get("from", max(0, to_ms - bucket.default_span_ms + bucket.length_ms))
    numbers = _buckets(from_ms, to_ms, bucket.length_ms)
    values = {**audit.viewer(call), "from": from_ms, "to": to_ms, "length": bucket.length_ms}
    reads, denied = (_series(call.db, {**values, "action": name}) for name in ("secret_read", "secret_read_denied"))
    return [
        {"from": number * bucket.length_ms, "reads": reads.get(number, 0), "denied": denied.get(number, 0)}
        for number in numbers
    ]


def _buckets(from_ms: int, to_ms: int, length_ms: int) -> range:
    if from_ms > to_ms:
        raise Refusal(400, "from must not be after to")
    numbers = range(from_ms // length_ms, to_ms // length_ms + 1)
    if len(numbers) > MAX_BUCKETS:
        raise Refusal(400, f"from and to must be at most {MAX_BUCKETS} buckets apart")
    return numbers


def _series(db: sqlite3.Connection, values: Mapping[str, object]) -> dict[int, int]:
    return {row["bucket"]: row["count"] for row in db.execute(SERIES, values)}


# ---- the log as CSV --------------------------------------------------------------------------------------------------

MAX_ROWS = 10_000
PAGE_ROWS = 500
PAGE = "SELECT * " + audit.VISIBLE + audit.FILTER + "AND id < :before ORDER BY id DESC LIMIT :limit"
ACTOR = ("actorKind", "userId", "machineId", "aiAgentId")
COLUMNS = ("id", "timestamp", "action", "severity", *ACTOR, "secretId", "sourceIp", "detail")

# What spreadsheets skip before they detect a formula: blanks, control characters, zero-width characters.
IGNORED_PREFIX = re.compile("[\\s\\x00-\\x1f\\x7f-\\xa0\\u200b-\\u200f\\u2060\\ufeff\\ufffd]*")
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width forms
CONTROLS = ("\t", "\r", "\n")


def export(call: Call) -> Stream:
    """The entries that match the filters as CSV (RFC 4180), newest first, without entries added later.

    After MAX_ROWS entries, a row that has only a detail says that the export is cut.
    """
    values = {**audit.viewer(call), **audit.filters(call)}
    newest: int | None = call.db.execute("SELECT max(id) FROM audit").fetchone()[0]
    pages = _pages(call.reader or call.transaction, values, (newest or 0) + 1)
    return Stream(pages, "text/csv; charset=utf-8")


def _pages(reader: Transaction, values: Mapping[str, object], before: int) -> Iterator[bytes]:
    """One page of rows per reader, so that a slow client holds up nobody."""
    yield _csv([COLUMNS])
    left = MAX_ROWS
    while left:
        limit = min(PAGE_ROWS, left)
        with reader() as db:
            rows = db.execute(PAGE, {**values, "before": before, "limit": limit}).fetchall()
        if rows:
            yield _csv([_cells(row) for row in rows])
            before = rows[-1]["id"]
        if len(rows) < limit:
            return
        left -= limit
    with reader() as db:
        older = db.execute(PAGE, {**values, "before": before, "limit": 1}).fetchone()
    if older is not None:
        yield _csv([_cut_row(older)])


def _cut_row(older: sqlite3.Row) -> list[str]:
    """The last row of an export that does not contain all entries."""
    words = f"this export is cut after {MAX_ROWS} entries: for older ones, export with to={older['created_ms']}"
    return [words if column == "detail" else "" for column in COLUMNS]


def _cells(row: sqlite3.Row) -> list[str]:
    shown = audit.entry(row)
    return ["" if shown[column] is None else escape_formula(str(shown[column])) for column in COLUMNS]


def escape_formula(cell: str) -> str:
    """Put an apostrophe in front of a cell that a spreadsheet would read as a formula."""
    cell = cell.replace("\0", "\ufffd")  # some CSV readers, such as Python's before 3.11, reject NUL
    prefix = IGNORED_PREFIX.match(cell)
    rest = cell[prefix.end() :] if prefix else cell
    return "'" + cell if cell.startswith(CONTROLS) or rest.startswith(FORMULA) else cell


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text_buffer = io.StringIO(newline="")
    csv.writer(text_buffer).writerows(rows)
    return text_buffer.getvalue().encode()


SERIES_FIELDS = {"from": TIME_MS, "to": TIME_MS, "bucket": text(choices=tuple(BUCKETS))}

# fmt: off
ROUTES = (
    Route("POST", "/v1/ai/audit/export",          "audit.read", export, audit.FILTER_FIELDS, reads=True),
    Route("GET",  "/v1/ai/stats",                 "audit.read", stats, reads=True),
    Route("POST", "/v1/ai/stats/reads-over-time", "audit.read", reads_over_time, SERIES_FIELDS, reads=True),
    Route("GET",  "/v1/ai/usage",                 "audit.read", usage, reads=True),
)
# fmt: on
