"""Statistics: totals, usage, reads over time, and the audit log as CSV.

For an agent with a project allowlist they cover only its projects and the audit entries that it can see.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from vault import audit, audit_index, totals
from vault.audit_index import Filters, Place
from vault.errors import Refusal
from vault.inputs import TIME_MS, text
from vault.query import count
from vault.router import Call, Route, Stream, Transaction

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# What is counted of the projects that an agent with an allowlist may reach, and of the vault for any other agent.
REACHED = "(SELECT project_id FROM agent_projects WHERE agent_id = :agent)"
SUM = "SELECT coalesce(sum(amount), 0) FROM totals WHERE kind = '{}' AND id IN " + REACHED
# A machine may be in several projects, so only those of one project need no counting.
MACHINES = f"""
SELECT CASE WHEN (SELECT COUNT(*) FROM agent_projects WHERE agent_id = :agent) = 1 THEN ({SUM.format("memberships")})
    ELSE (SELECT COUNT(DISTINCT machine_id) FROM project_machines WHERE project_id IN {REACHED}) END
"""


def _whole(kind: str) -> str:
    return f"SELECT {totals.in_vault(kind)}"


class Counted(NamedTuple):
    """The statements that count for an agent without an allowlist, and for one with one."""

    whole: str
    reached: str


# fmt: off
COUNTS = {
    "projects":       Counted(_whole("projects"), f"SELECT COUNT(*) FROM projects WHERE id IN {REACHED}"),
    "frozenProjects": Counted(_whole("freezes"),
                              f"SELECT COUNT(*) FROM project_freezes WHERE project_id IN {REACHED}"),
    "secrets":        Counted(_whole("secrets"), SUM.format("secrets")),
    "secretsInTrash": Counted(_whole("trash"), SUM.format("trash")),
    "canaries":       Counted(_whole("canaries"), SUM.format("canaries")),
    "secretVersions": Counted(_whole("versions"), SUM.format("versions")),
    "storedBytes":    Counted(_whole("bytes"), SUM.format("bytes")),
    "policies":       Counted(_whole("policies"), SUM.format("policies")),
    # Machines without a project are visible only to agents without an allowlist.
    "machines":       Counted(_whole("machines"), MACHINES),
    "aiAgents":       Counted(_whole("agents"), "SELECT 1"),
    "teamMembers":    Counted(_whole("members"),
                              f"SELECT COUNT(DISTINCT member_id) FROM project_members WHERE project_id IN {REACHED}"),
}
# fmt: on
TOTALS = ("projects", "frozenProjects", "secrets", "secretsInTrash", "canaries", "policies", "machines", "aiAgents")
USED = ("projects", "secrets", "secretVersions", "storedBytes", "machines", "aiAgents", "teamMembers")
DAYS_OF_USAGE = 30


def stats(call: Call) -> object:
    """Totals, and the reads of the last 24 hours."""
    since_ms = call.now_ms - DAY_MS + 1
    return {
        **_counted(call, TOTALS),
        "reads24h": sum(_hourly(call, READS, since_ms, call.now_ms).values()),
        "deniedReads24h": sum(_hourly(call, DENIED, since_ms, call.now_ms).values()),
        "canariesTriggered24h": _events(call, "canary_triggered", since_ms, call.now_ms),
    }


def usage(call: Call) -> object:
    """Usage, and the reads of the last 30 days. A local vault has no plan and therefore no limits."""
    since_ms = call.now_ms - DAYS_OF_USAGE * DAY_MS + 1
    entries = audit_index.total(call.db, audit.visible(call))
    reads = sum(_hourly(call, READS, since_ms, call.now_ms).values())
    used = {**_counted(call, USED), "auditEntries": entries, "reads": reads}
    return {"plan": "local", "periodStart": since_ms, "periodEnd": call.now_ms, "used": used, "limits": None}


def _counted(call: Call, names: tuple[str, ...]) -> dict[str, int]:
    whole = call.agent.allowlist is None
    statements = {name: COUNTS[name].whole if whole else COUNTS[name].reached for name in names}
    return {name: count(call.db, sql, {"agent": call.agent.id}) for name, sql in statements.items()}


def _events(call: Call, action: str, from_ms: int, to_ms: int) -> int:
    period = audit.visible(call)._replace(actions=[action], from_ms=from_ms, to_ms=to_ms)
    return audit_index.total(call.db, period)


# The kind of total and the action of reads, and of denied reads.
READS, DENIED = ("reads", "secret_read"), ("denied", "secret_read_denied")


def _hourly(call: Call, counted: tuple[str, str], from_ms: int, to_ms: int) -> dict[int, int]:
    """How many there were in each hour since the epoch. Only hours that the period cuts have to be counted."""
    kind, action = counted
    whole = range(-(-from_ms // HOUR_MS), (to_ms + 1) // HOUR_MS)
    found = totals.by_hour(call.db, kind, whole, audit.visible(call).viewer)
    for hour in {from_ms // HOUR_MS, to_ms // HOUR_MS} - set(whole):
        begin_ms, end_ms = max(from_ms, hour * HOUR_MS), min(to_ms, (hour + 1) * HOUR_MS - 1)
        found[hour] = _events(call, action, begin_ms, end_ms)
    return found


# ---- reads over time -------------------------------------------------------------------------------------------------


class Bucket(NamedTuple):
    """The length of a bucket, and the default length of the series."""

    length_ms: int
    default_span_ms: int


BUCKETS = {"hour": Bucket(HOUR_MS, DAY_MS), "day": Bucket(DAY_MS, 30 * DAY_MS)}
MAX_BUCKETS = 1_000


def reads_over_time(call: Call) -> object:
    """Reads and denied reads per hour or per UTC day. Empty buckets are included."""
    bucket = BUCKETS[call.body.get("bucket", "day")]
    to_ms = call.body.get("to", call.now_ms)
    from_ms = call.body.get("from", max(0, to_ms - bucket.default_span_ms + bucket.length_ms))
    numbers = _buckets(from_ms, to_ms, bucket.length_ms)
    reads, denied = (_series(_hourly(call, counted, from_ms, to_ms), bucket) for counted in (READS, DENIED))
    return [
        {"from": number * bucket.length_ms, "reads": reads.get(number, 0), "denied": denied.get(number, 0)}
        for number in numbers
    ]


def _series(hourly: Mapping[int, int], bucket: Bucket) -> dict[int, int]:
    found: dict[int, int] = {}
    for hour, amount in hourly.items():
        number = hour * HOUR_MS // bucket.length_ms
        found[number] = found.get(number, 0) + amount
    return found


def _buckets(from_ms: int, to_ms: int, length_ms: int) -> range:
    if from_ms > to_ms:
        raise Refusal(400, "from must not be after to")
    numbers = range(from_ms // length_ms, to_ms // length_ms + 1)
    if len(numbers) > MAX_BUCKETS:
        raise Refusal(400, f"from and to must be at most {MAX_BUCKETS} buckets apart")
    return numbers


# ---- the log as CSV --------------------------------------------------------------------------------------------------

MAX_ROWS = 10_000
PAGE_ROWS = 500
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
    newest = audit_index.total(call.db, Filters())
    pages = _pages(call.reader or call.transaction, audit.filters(call), newest)
    return Stream(pages, "text/csv; charset=utf-8")


def _pages(reader: Transaction, filters: Filters, newest: int) -> Iterator[bytes]:
    """One page of rows per reader, so that a slow client does not delay others."""
    yield as_csv([COLUMNS])
    edge: Place | None = None
    left = MAX_ROWS
    while left:
        limit = min(PAGE_ROWS, left)
        with reader() as db:
            rows = audit_index.find(db, filters, limit, edge=edge)
        shown = [row for row in rows if row["id"] <= newest]
        if shown:
            yield as_csv([_cells(row) for row in shown])
        if len(rows) < limit:
            return
        edge = Place(rows[-1]["created_ms"], rows[-1]["id"])
        left -= len(shown)
    with reader() as db:
        older = audit_index.find(db, filters, 1, edge=edge)
    if older:
        yield as_csv([_cut_row(older[0])])


def _cut_row(older: sqlite3.Row) -> list[str]:
    """The last row of an export that does not contain all entries."""
    words = f"this export is cut after {MAX_ROWS} entries: for older ones, export with to={older['created_ms']}"
    return [words if column == "detail" else "" for column in COLUMNS]


def _cells(row: sqlite3.Row) -> list[object]:
    shown = audit.entry(row)
    return [shown[column] for column in COLUMNS]


def as_csv(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as CSV (RFC 4180). None is an empty cell, and a cell that a spreadsheet would compute is made harmless."""
    text_buffer = io.StringIO(newline="")
    csv.writer(text_buffer).writerows(
        ["" if cell is None else escape_formula(str(cell)) for cell in row] for row in rows
    )
    return text_buffer.getvalue().encode()


def escape_formula(cell: str) -> str:
    """Put an apostrophe in front of a cell that a spreadsheet would read as a formula."""
    cell = cell.replace("\0", "\ufffd")  # some CSV readers, such as Python's before 3.11, reject NUL
    prefix = IGNORED_PREFIX.match(cell)
    rest = cell[prefix.end() :] if prefix else cell
    return "'" + cell if cell.startswith(CONTROLS) or rest.startswith(FORMULA) else cell


SERIES_FIELDS = {"from": TIME_MS, "to": TIME_MS, "bucket": text(choices=tuple(BUCKETS))}

# fmt: off
ROUTES = (
    Route("POST", "/v1/ai/audit/export",          "audit.read", export, audit.FILTER_FIELDS, reads=True),
    Route("GET",  "/v1/ai/stats",                 "audit.read", stats, reads=True),
    Route("POST", "/v1/ai/stats/reads-over-time", "audit.read", reads_over_time, SERIES_FIELDS, reads=True),
    Route("GET",  "/v1/ai/usage",                 "audit.read", usage, reads=True),
)
# fmt: on
