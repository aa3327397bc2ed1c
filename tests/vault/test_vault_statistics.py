"""Statistics: totals, usage, reads over time, and the audit log as CSV."""

from __future__ import annotations

import csv
import io
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vault.support.machines import granted_machine
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault import audit
from vault.domains import agents, statistics
from vault.router import OWNER, Call

EXPORT, SERIES = "/v1/ai/audit/export", "/v1/ai/stats/reads-over-time"
HOUR_S, DAY_S = 3600, 24 * 3600
HEADER = "id,timestamp,action,severity,actorKind,userId,machineId,aiAgentId,secretId,sourceIp,detail"


def entries(vault: Vault, count: int, detail: str = "entry {}") -> None:
    with vault.store.transaction() as db:
        for number in range(count):
            audit.record(db, START_MS, OWNER, "project_update", detail.format(number))


def table(agent: Agent, body: Any = None) -> list[dict[str, str]]:
    reply = agent.send("POST", EXPORT, body)
    assert reply.status == 200, reply
    return list(csv.DictReader(io.StringIO(reply.raw.decode(), newline="")))


# ---- totals ----------------------------------------------------------------------------------------------------------


def populated(vault: Vault, agent: Agent) -> str:
    """Two projects; the first has two secrets, a canary that was read, one secret in the trash, and a policy."""
    project_id = agent.project()
    first, gone = agent.secret(project_id, "abc"), agent.secret(project_id, "v")
    canary = agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait"})["id"]
    agent.post(f"/v1/ai/projects/{project_id}/policies", {"name": "p"})
    agent.post(gone + "/delete")
    machine = granted_machine(vault, first, canary)
    for secret in (first, first, canary, first):
        machine.read(secret)
    agent.secret(agent.project("other"), "v")
    return project_id


STATS = {
    "projects": 2,
    "frozenProjects": 1,
    "secrets": 3,
    "secretsInTrash": 1,
    "canaries": 1,
    "policies": 1,
    "machines": 1,
    "aiAgents": 1,
    "reads24h": 3,
    "deniedReads24h": 1,
    "canariesTriggered24h": 1,
}


def test_stats_count_rows_and_reads(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    populated(vault, agent)
    assert agent.get("/v1/ai/stats") == STATS
    clock.advance(DAY_S)
    nothing = {"reads24h": 0, "deniedReads24h": 0, "canariesTriggered24h": 0}
    assert agent.get("/v1/ai/stats") == {**STATS, **nothing}


def test_usage_counts_versions_bytes_and_thirty_days_of_reads(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    populated(vault, agent)
    with vault.store.transaction() as db:
        stored = db.execute("SELECT sum(length(ciphertext)), COUNT(*) FROM secret_versions").fetchone()
        logged = db.execute("SELECT COUNT(*) FROM audit").fetchone()[0]
    assert (stored[0] > 64, stored[1]) == (True, 4)
    counts = {"projects": 2, "secrets": 3, "secretVersions": 4, "storedBytes": 4 * 4096, "machines": 1}
    used = {**counts, "aiAgents": 1, "teamMembers": 0, "auditEntries": logged, "reads": 3}
    period = {"periodStart": START_MS - 30 * DAY_S * 1000 + 1, "periodEnd": START_MS}
    assert agent.get("/v1/ai/usage") == {"plan": "local", **period, "used": used, "limits": None}
    clock.advance(30 * DAY_S)
    assert agent.get("/v1/ai/usage")["used"]["reads"] == 0


def test_usage_does_not_show_the_exact_size_of_a_value(agent: Agent) -> None:
    """An agent that adds values of known sizes must not find the size of another value from the sum."""
    project_id = agent.project()

    def used(size: int) -> int:
        before = int(agent.get("/v1/ai/usage")["used"]["storedBytes"])
        agent.secret(project_id, "x" * size)
        return int(agent.get("/v1/ai/usage")["used"]["storedBytes"]) - before

    assert [used(size) for size in (1, 300, 2_048, 4_000, 5_000, 8_000)] == [4_096] * 4 + [8_192] * 2


def test_a_restricted_agent_counts_its_own_projects(vault: Vault, agent: Agent) -> None:
    project_id = populated(vault, agent)
    assert vault.agent(projects=[project_id]).get("/v1/ai/stats") == {**STATS, "projects": 1, "secrets": 2}
    outsider = vault.agent(projects=[agent.project("empty")])
    nothing = {**dict.fromkeys(STATS, 0), "projects": 1, "aiAgents": 1}
    assert outsider.get("/v1/ai/stats") == nothing
    used = outsider.get("/v1/ai/usage")["used"]
    assert {name: count for name, count in used.items() if count and name != "auditEntries"} == {
        "projects": 1,
        "aiAgents": 1,
    }
    assert all(row["reads"] == row["denied"] == 0 for row in outsider.post(SERIES))


# ---- reads over time -------------------------------------------------------------------------------------------------


def test_reads_are_counted_by_bucket_including_empty_ones(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    secret = agent.secret(agent.project(), "v")
    machine, outsider = granted_machine(vault, secret), granted_machine(vault)
    machine.read(secret)
    clock.advance(HOUR_S - 1)
    machine.read(secret)
    clock.advance(HOUR_S + 1)
    outsider.read(secret)
    span = {"from": START_MS, "to": START_MS + 3 * HOUR_S * 1000}
    assert agent.post(SERIES, {**span, "bucket": "hour"}) == [
        {"from": START_MS, "reads": 2, "denied": 0},
        {"from": START_MS + HOUR_S * 1000, "reads": 0, "denied": 0},
        {"from": START_MS + 2 * HOUR_S * 1000, "reads": 0, "denied": 1},
        {"from": START_MS + 3 * HOUR_S * 1000, "reads": 0, "denied": 0},
    ]
    assert agent.post(SERIES, span) == [{"from": START_MS, "reads": 2, "denied": 1}]


@pytest.mark.parametrize(("bucket", "count", "length_s"), [("hour", 24, HOUR_S), ("day", 30, DAY_S)])
def test_the_series_ends_now_by_default(agent: Agent, clock: FakeClock, bucket: str, count: int, length_s: int) -> None:
    clock.advance(length_s // 2)
    rows = agent.post(SERIES, {"bucket": bucket})
    starts = [START_MS - number * length_s * 1000 for number in range(count)]
    assert rows == [{"from": start, "reads": 0, "denied": 0} for start in reversed(starts)]


def test_the_number_of_buckets_is_limited(agent: Agent) -> None:
    day_ms = DAY_S * 1000
    assert len(agent.post(SERIES, {"from": 0, "to": 999 * day_ms})) == 1000
    for body, error in (
        ({"from": 0, "to": 1000 * day_ms}, "from and to must be at most 1000 buckets apart"),
        ({"from": 0}, "from and to must be at most 1000 buckets apart"),
        ({"from": 2, "to": 1}, "from must not be after to"),
        ({"bucket": "minute"}, "bucket must be one of hour, day"),
    ):
        reply = agent.send("POST", SERIES, body)
        assert (reply.status, reply.error) == (400, error)


# ---- CSV -------------------------------------------------------------------------------------------------------------


def test_an_export_is_csv_with_a_header_newest_first(vault: Vault, agent: Agent) -> None:
    project_id = agent.project('with "quotes", commas')
    reply = agent.send("POST", EXPORT)
    lines = reply.raw.decode().split("\r\n")
    row = vault.audited("project_create")[0]
    detail = f'"project {project_id} created as with ""quotes"", commas"'
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert (lines[0], lines[-1]) == (HEADER, "")
    assert lines[1] == f"{row['id']},{START_MS},project_create,low,ai_agent,,,{agent.id},,127.0.0.1,{detail}"
    assert [line.split(",")[0] for line in lines[1:-1]] == [str(number) for number in range(row["id"], 0, -1)]


def test_an_export_takes_the_filters_of_a_query(vault: Vault, agent: Agent) -> None:
    entries(vault, 3)
    agent.project()
    filters = {"actions": ["project_update"], "search": "entry", "from": START_MS, "severities": ["low"]}
    found = agent.post("/v1/ai/audit/query", filters)["entries"]
    assert [row["id"] for row in table(agent, filters)] == [str(entry["id"]) for entry in found]
    assert len(found) == 3
    assert table(agent, {"to": START_MS - 1}) == []
    assert agent.send("POST", EXPORT, {"page": 1}).status == 400


def test_an_export_stops_at_ten_thousand_rows_and_says_so(vault: Vault, agent: Agent) -> None:
    filters = {"actions": ["project_update"]}
    entries(vault, 10_000)
    assert [row["detail"] for row in table(agent, filters)] == [f"entry {number}" for number in range(9_999, -1, -1)]
    entries(vault, 50, "later {}")
    *rows, last = table(agent, filters)
    assert (len(rows), rows[0]["detail"], rows[-1]["detail"]) == (10_000, "later 49", "entry 50")
    words = f"this export is cut after 10000 entries: for older ones, export with to={START_MS}"
    assert last == {**dict.fromkeys(HEADER.split(","), ""), "detail": words}


@pytest.mark.parametrize("count", [499, 500, 501, 1000])
def test_export_pages_neither_skip_nor_repeat_rows(vault: Vault, agent: Agent, count: int) -> None:
    entries(vault, count)
    rows = table(agent, {"actions": ["project_update"]})
    assert [row["detail"] for row in rows] == [f"entry {number}" for number in range(count - 1, -1, -1)]


def called(vault: Vault, db: sqlite3.Connection, agent: Agent) -> Call:
    return Call(
        db=db,
        keys=vault.store.keys,
        vault_id=vault.store.vault_id,
        now_ms=START_MS,
        source_ip=None,
        params={},
        body={},
        caller=agents.find(db, agent.id),
        base_url="",
        transaction=vault.store.transaction,
    )


def test_an_unfinished_export_blocks_nobody_and_excludes_later_entries(vault: Vault, agent: Agent) -> None:
    entries(vault, 1200)
    with vault.store.transaction() as db:
        newest = db.execute("SELECT max(id) FROM audit").fetchone()[0]
        pages = statistics.export(called(vault, db, agent)).pieces
    first = [next(pages)]
    entries(vault, 5, "later {}")
    text = b"".join([*first, *pages]).decode()
    assert (text.count("\r\n"), "later" in text) == (newest + 1, False)


def test_a_restricted_agent_exports_only_visible_entries(vault: Vault, agent: Agent) -> None:
    own, foreign = agent.project("own"), agent.project("foreign")
    words = " ".join(row["detail"] for row in table(vault.agent(projects=[own])))
    assert (own in words, foreign in words) == (True, False)


BLANKS = ("\t", "\r", "\n", "  ", "\u00a0", "\ufeff", "\x00")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1", "\tx")


def test_a_formula_becomes_text(vault: Vault, agent: Agent) -> None:
    for name in [*FORMULAS, *(f"{blank}=1" for blank in BLANKS)]:
        with vault.store.transaction() as db:
            audit.record(db, START_MS, OWNER, "project_update", name)
        assert table(agent)[0]["detail"] == "'" + name.replace("\0", "\ufffd"), name


def test_other_cells_are_unchanged() -> None:
    for name in ["a=1", "1-1", "x@example.com", " plain", "", "'=1"]:
        assert statistics.escape_formula(name) == name, name


@settings(database=None)
@given(st.text(alphabet=st.sampled_from("=+-@\t\r\n \"',;a1\u00a0\ufeff\uff1d")))
def test_every_cell_reads_back_and_none_starts_a_formula(cell: str) -> None:
    [[read]] = csv.reader(io.StringIO(statistics.as_csv([[cell]]).decode(), newline=""))
    assert read.removeprefix("'") == cell.removeprefix("'")
    assert not read.strip(" \t\r\n\u00a0\ufeff").startswith(("=", "+", "-", "@", "\uff1d"))
    assert not read.startswith(("\t", "\r", "\n"))
