"""The IP allowlist: from where machines may authenticate, and new ones enroll. Agents and the owner are not affected.

It is off until it is switched on, and on and empty it shuts everybody out. Whoever is shut out reads `forbidden` and
nothing about why; the audit log has the reason. The list concerns the whole vault, so an agent with a project allowlist
neither sees nor changes it.
"""

from __future__ import annotations

import sqlite3

from vault import audit
from vault.addresses import Network, network, within
from vault.calls import Call, Route
from vault.crypto import new_id
from vault.errors import Denied, Refusal
from vault.inputs import text, texts

TABLES = """
CREATE TABLE IF NOT EXISTS ip_allowlist (
    id TEXT PRIMARY KEY,
    cidr TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ip_allowlist_switch (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    enabled INTEGER NOT NULL
);
"""

MAX_ENTRIES = 1_000


class Barred(Denied):
    """A caller from an address that is not on the list."""

    def body(self) -> dict[str, object]:
        """The bare words that the client reads."""
        return {"error": "forbidden"}


def check(db: sqlite3.Connection, source_ip: str | None, caller_id: str | None = None) -> None:
    """Refuse a machine, or somebody who wants to become one, from elsewhere."""
    if not enabled(db):
        return
    networks = (network(row["cidr"]) for row in db.execute("SELECT cidr FROM ip_allowlist"))
    if not within(source_ip, networks):
        raise Barred(403, "the address is not on the IP allowlist", caller_id)


def enabled(db: sqlite3.Connection) -> bool:
    """Whether the list is in force."""
    row = db.execute("SELECT enabled FROM ip_allowlist_switch").fetchone()
    return bool(row and row["enabled"])


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The entries, oldest first, and whether they are in force."""
    _require_unrestricted(call)
    rows = call.db.execute("SELECT * FROM ip_allowlist ORDER BY created_ms, id")
    return {"enabled": enabled(call.db), "entries": [_shown(row) for row in rows]}


def add(call: Call) -> object:
    """A new entry; two spellings of one network are the same entry."""
    _require_unrestricted(call)
    cidr, label = str(_network(call.body["cidr"])), call.body.get("label", "")
    if call.db.execute("SELECT COUNT(*) FROM ip_allowlist").fetchone()[0] >= MAX_ENTRIES:
        raise Refusal(409, f"the IP allowlist has {MAX_ENTRIES} entries, which is the most")
    entry_id = new_id("ip_")
    added = call.db.execute(
        "INSERT OR IGNORE INTO ip_allowlist (id, cidr, label, created_ms) VALUES (?, ?, ?, ?)",
        (entry_id, cidr, label, call.now_ms),
    )
    if added.rowcount != 1:
        raise Refusal(409, "the network is on the IP allowlist already")
    audit.note(call, "ip_allowlist_add", f"{cidr} added")
    return {"id": entry_id, "cidr": cidr, "label": label}


def update(call: Call) -> object:
    """Another label; an absent one clears it. The network stays."""
    entry, label = _require(call), call.body.get("label", "")
    call.db.execute("UPDATE ip_allowlist SET label = ? WHERE id = ?", (label, entry["id"]))
    audit.note(call, "ip_allowlist_update", f"label of {entry['cidr']} {'replaced' if label else 'cleared'}")
    return {"id": entry["id"], "cidr": entry["cidr"], "label": label}


def delete(call: Call) -> object:
    """Remove an entry."""
    entry = _require(call)
    _remove(call, entry)
    return {"id": entry["id"], "cidr": entry["cidr"], "deleted": True}


def bulk_delete(call: Call) -> object:
    """Remove several entries; ids that are not there are passed over, and the answer tells which were."""
    _require_unrestricted(call)
    found = [entry for each in dict.fromkeys(call.body["entryIds"]) if (entry := _find(call.db, each)) is not None]
    for entry in found:
        _remove(call, entry)
    return {"deletedIds": [entry["id"] for entry in found]}


def enable(call: Call) -> object:
    """Put the list in force."""
    return _switch(call, on=True)


def disable(call: Call) -> object:
    """Let machines come from anywhere."""
    return _switch(call, on=False)


def _switch(call: Call, *, on: bool) -> object:
    _require_unrestricted(call)
    if enabled(call.db) != on:
        call.db.execute("INSERT OR REPLACE INTO ip_allowlist_switch (only, enabled) VALUES (1, ?)", (on,))
        action = "enable" if on else "disable"
        audit.note(call, f"ip_allowlist_{action}", f"IP allowlist {action}d")
    return {"enabled": on}


def _remove(call: Call, entry: sqlite3.Row) -> None:
    call.db.execute("DELETE FROM ip_allowlist WHERE id = ?", (entry["id"],))
    audit.note(call, "ip_allowlist_delete", f"{entry['cidr']} removed")


def _require(call: Call) -> sqlite3.Row:
    _require_unrestricted(call)
    entry = _find(call.db, call.params["entryId"])
    if entry is None:
        raise Refusal(404, "no such entry")
    return entry


def _find(db: sqlite3.Connection, entry_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM ip_allowlist WHERE id = ?", (entry_id,)).fetchone()
    return row


def _require_unrestricted(call: Call) -> None:
    if call.agent.allowlist is not None:
        raise Denied(403, "the IP allowlist is not for agents with a project allowlist", call.agent.id)


def _network(cidr: str) -> Network:
    try:
        return network(cidr)
    except ValueError:  # its message quotes the input
        raise Refusal(400, "cidr must be an IPv4 or IPv6 network such as 203.0.113.0/24") from None


def _shown(row: sqlite3.Row) -> dict[str, object]:
    return {"id": row["id"], "cidr": row["cidr"], "label": row["label"], "createdAt": row["created_ms"]}


LABEL = text(0, 255)
ADD_FIELDS = {"cidr": text(1, 100).must(), "label": LABEL}
READ, WRITE = "ipallowlist.read", "ipallowlist.write"
BASE = "/v1/ai/ipallowlist"

# fmt: off
ROUTES = (
    Route("GET",  BASE,                       READ,  list_all),
    Route("POST", BASE,                       WRITE, add,         ADD_FIELDS, status=201),
    Route("POST", BASE + "/{entryId}/update", WRITE, update,      {"label": LABEL}),
    Route("POST", BASE + "/{entryId}/delete", WRITE, delete),
    Route("POST", BASE + "/enable",           WRITE, enable),
    Route("POST", BASE + "/disable",          WRITE, disable),
    Route("POST", BASE + "/bulk-delete",      WRITE, bulk_delete, {"entryIds": texts().must()}),
)
# fmt: on
