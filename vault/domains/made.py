"""What agents made and what still works: the owner lists it, and ends all that one agent made."""

from __future__ import annotations

import sqlite3
from typing import Callable

from vault.domains import enrollment, machines, project_machines, team, temporary_secrets, webhooks
from vault.makers import GRANT, INVITATION, LINK, TOKEN, WEBHOOK
from vault.query import count
from vault.router import OWNER, Actor

MACHINE = "machine"  # enrolled with an agent's token

# Things that have ended are left out. A machine is listed even if its token has ended.
LIVE = """
SELECT m.kind, m.id, t.name, m.agent_id, m.made_ms FROM made m JOIN enrollment_tokens t ON t.id = m.id
    WHERE m.kind = 'token' AND {mine} AND t.revoked_ms IS NULL AND t.expires_ms > :now AND t.uses < t.max_uses
UNION ALL SELECT 'machine', x.id, x.name, m.agent_id, x.created_ms FROM made m
    JOIN machines x ON x.enrollment_token_id = m.id WHERE m.kind = 'token' AND {mine}
UNION ALL SELECT m.kind, m.id, w.url, m.agent_id, m.made_ms FROM made m JOIN webhooks w ON w.id = m.id
    WHERE m.kind = 'webhook' AND {mine}
UNION ALL SELECT m.kind, m.id, l.name, m.agent_id, m.made_ms FROM made m JOIN temporary_secrets l ON l.id = m.id
    WHERE m.kind = 'link' AND {mine} AND l.status = 'pending' AND l.expires_ms > :now
UNION ALL SELECT m.kind, m.id, s.name || ' for ' || x.name, m.agent_id, m.made_ms FROM made m
    JOIN grants g ON g.machine_id = substr(m.id, 1, instr(m.id, ':') - 1)
        AND g.secret_id = substr(m.id, instr(m.id, ':') + 1)
    JOIN live_secrets s ON s.id = g.secret_id JOIN machines x ON x.id = g.machine_id WHERE m.kind = 'grant' AND {mine}
UNION ALL SELECT m.kind, m.id, i.email, m.agent_id, m.made_ms FROM made m JOIN team_invites i ON i.id = m.id
    WHERE m.kind = 'invitation' AND {mine} AND i.state = 'pending' AND i.expires_ms > :now
ORDER BY 5, 1, 2
"""


def overview(
    db: sqlite3.Connection, now_ms: int, agent_id: str | None = None, limit: int = -1
) -> list[dict[str, object]]:
    """What agents made and what still works, or what one of them made, oldest first. The limit -1 is none."""
    rows = db.execute(f"{_live(agent_id)} LIMIT :limit", {"now": now_ms, "agent": agent_id, "limit": limit})
    return [
        {
            "kind": row["kind"],
            "id": row["id"],
            "name": row["name"],
            "agentId": row["agent_id"],
            "madeAt": row["made_ms"],
        }
        for row in rows
    ]


def count_all(db: sqlite3.Connection, now_ms: int, agent_id: str) -> int:
    """How many things that an agent made still work."""
    return count(db, f"SELECT COUNT(*) FROM ({_live(agent_id)})", {"now": now_ms, "agent": agent_id})


def _live(agent_id: str | None) -> str:
    return LIVE.format(mine="TRUE" if agent_id is None else "m.agent_id = :agent")


def end_all(db: sqlite3.Connection, now_ms: int, agent_id: str, *, actor: Actor = OWNER) -> list[dict[str, object]]:
    """End everything that an agent made, and return it. The agent may be gone already."""
    ended = overview(db, now_ms, agent_id)
    for thing in ended:
        # A machine that is revoked takes its grants with it.
        _ENDS[str(thing["kind"])](db, now_ms, str(thing["id"]), actor=actor)
    return ended


_ENDS: dict[str, Callable[..., object]] = {
    TOKEN: enrollment.revoke_as_owner,
    MACHINE: machines.revoke_as_owner,
    WEBHOOK: webhooks.delete_as_owner,
    LINK: temporary_secrets.destroy_as_owner,
    GRANT: project_machines.revoke_grant_as_owner,
    INVITATION: team.cancel_as_owner,
}
