"""Which agent made what. Enrollment tokens, webhooks, links, grants and invitations outlive the agent that made them.

The rows stay after the agent is revoked, so that the owner can still list and end what it made.
"""

from __future__ import annotations

from vault.router import Call, Owner

TABLES = """
CREATE TABLE IF NOT EXISTS made (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS made_by_agent ON made (agent_id);
"""

TOKEN, WEBHOOK, LINK, GRANT, INVITATION = "token", "webhook", "link", "grant", "invitation"


def note(call: Call, kind: str, thing_id: str) -> None:
    """Store that the calling agent made something. A grant that is made again belongs to its latest maker.

    What the owner makes has no row: revoking an agent and all that it made must leave it alone.
    """
    if isinstance(call.caller, Owner):
        call.db.execute("DELETE FROM made WHERE kind = ? AND id = ?", (kind, thing_id))
        return
    call.db.execute(
        "INSERT INTO made (kind, id, agent_id, made_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (kind, id) DO UPDATE SET agent_id = excluded.agent_id, made_ms = excluded.made_ms",
        (kind, thing_id, call.agent.id, call.now_ms),
    )


def grant_id(machine_id: str, secret_id: str) -> str:
    """The id of a grant, which has none of its own."""
    return f"{machine_id}:{secret_id}"
