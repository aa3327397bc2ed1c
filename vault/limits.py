"""Limits for each agent: requests a minute, and bytes a day. A model in a loop reaches them, a person does not.

Requests count once their signature is verified, even if they are refused. Bytes are the bodies of requests that need a
scope to write, at least MIN_WRITE_BYTES each for rows and audit entries, so they bound how fast an agent fills the
disk.
"""

from __future__ import annotations

import sqlite3

from vault.errors import Denied
from vault.router import Agent, Match, Received

TABLES = """
CREATE TABLE IF NOT EXISTS agent_usage (
    agent_id TEXT PRIMARY KEY REFERENCES ai_agents (id) ON DELETE CASCADE,
    minute INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    day INTEGER NOT NULL,
    written_bytes INTEGER NOT NULL
);
"""

MINUTE_MS, DAY_MS = 60_000, 24 * 3600 * 1000
MAX_REQUESTS = 3_000  # a minute
MAX_WRITTEN_BYTES = 256 * 1024 * 1024  # a day, in UTC
MIN_WRITE_BYTES = 1024

COUNT = """
INSERT INTO agent_usage (agent_id, minute, requests, day, written_bytes) VALUES (:agent, :minute, 1, :day, :written)
ON CONFLICT (agent_id) DO UPDATE SET
    requests = CASE minute WHEN :minute THEN requests + 1 ELSE 1 END, minute = :minute,
    written_bytes = CASE day WHEN :day THEN written_bytes ELSE 0 END + :written, day = :day
"""


class LimitDenied(Denied):
    """The agent sends too much. Counted, because there may be many."""

    is_counted = True

    def __init__(self, limit: str, agent_id: str, wait_ms: int) -> None:
        super().__init__(429, f"the agent has reached its limit of {limit}: nothing was changed", agent_id)
        self.headers = {"retry-after": str(wait_ms // 1000 + 1)}


def check(db: sqlite3.Connection, agent: Agent, received: Received, match: Match, now_ms: int) -> None:
    """Count a request. Raises LimitDenied if there were too many."""
    is_write = (match.route.scope or "").endswith(".write")
    written = max(MIN_WRITE_BYTES, len(received.body)) if is_write else 0
    times = {"minute": now_ms // MINUTE_MS, "day": now_ms // DAY_MS}
    db.execute(COUNT, {"agent": agent.id, "written": written, **times})
    used = db.execute("SELECT * FROM agent_usage WHERE agent_id = ?", (agent.id,)).fetchone()
    if used["requests"] > MAX_REQUESTS:
        raise LimitDenied(f"{MAX_REQUESTS} requests a minute", agent.id, MINUTE_MS - now_ms % MINUTE_MS)
    if is_write and used["written_bytes"] > MAX_WRITTEN_BYTES:
        raise LimitDenied(f"{MAX_WRITTEN_BYTES // 2**20} MiB written a day", agent.id, DAY_MS - now_ms % DAY_MS)
