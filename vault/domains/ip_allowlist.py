"""The IP allowlist: the addresses from which machines may authenticate and enroll.

Agents and the owner are not affected. The list is disabled by default. If it is enabled and empty, no machine is
admitted. A refused client receives only `forbidden`; the audit log contains the reason. The list concerns the whole
vault, so an agent with a project allowlist can neither see nor change it.
"""

from __future__ import annotations

import functools
import ipaddress
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Union

from vault import audit, seals
from vault.crypto import new_id
from vault.errors import Denied, Refusal
from vault.inputs import text, text_list
from vault.query import count, fetch_one, require_one
from vault.router import Call, Route

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

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

MAX_ENTRIES = 1_000
MAX_CIDR = 64  # characters: more than any IPv6 network needs
SELECT_ONE = "SELECT * FROM ip_allowlist WHERE id = ?"
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


# ---- addresses -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2 * MAX_ENTRIES)  # each read by a machine may go through the whole list
def parse_network(cidr: str) -> Network:
    """Parse a network in CIDR notation or a single address. IPv4-mapped IPv6 becomes IPv4. Raises ValueError."""
    if "%" in cidr or len(cidr) > MAX_CIDR:  # a zone only has a meaning on one host
        raise ValueError("not a network")
    found = ipaddress.ip_network(cidr, strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(MAPPED):
        base = found.network_address.ipv4_mapped
        return ipaddress.ip_network(f"{base}/{found.prefixlen - MAPPED.prefixlen}")
    return found


def parse_address(ip: str) -> Address:
    """Parse an address and drop its zone. IPv4-mapped IPv6 becomes IPv4. Raises ValueError."""
    found = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def is_within(ip: str | None, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks. An unknown address is in none."""
    try:
        found = parse_address(ip or "")
    except ValueError:
        return False
    return any(found in each for each in networks if each.version == found.version)


# ---- enforcement -----------------------------------------------------------------------------------------------------


class AddressDenied(Denied):
    """The caller's address is not on the list."""

    def body(self) -> dict[str, object]:
        """The JSON body, without the reason."""
        return {"error": "forbidden"}


def check(db: sqlite3.Connection, source_ip: str | None, caller_id: str | None = None) -> None:
    """Raise AddressDenied if the list is enabled and does not contain the address."""
    if fetch_one(db, "SELECT 1 FROM ip_allowlist_switch") is not None:
        seals.require(db, "address list", "1")
    if not is_enabled(db):
        return
    for row in db.execute("SELECT id, cidr FROM ip_allowlist"):
        if is_within(source_ip, [parse_network(row["cidr"])]):
            seals.require(db, "address", row["id"])
            return
    raise AddressDenied(403, "the address is not on the IP allowlist", caller_id)


def is_enabled(db: sqlite3.Connection) -> bool:
    """Whether the list is enabled."""
    row = fetch_one(db, "SELECT enabled FROM ip_allowlist_switch")
    return bool(row and row["enabled"])


# ---- routes ----------------------------------------------------------------------------------------------------------


def list_all(call: Call) -> object:
    """The entries, oldest first, and whether the list is enabled."""
    _require_unrestricted(call)
    rows = call.db.execute("SELECT * FROM ip_allowlist ORDER BY created_ms, id")
    return {"enabled": is_enabled(call.db), "entries": [_to_json(row) for row in rows]}


def add(call: Call) -> object:
    """Add an entry. Networks are normalized before they are compared."""
    _require_unrestricted(call)
    cidr, label = str(_parse_cidr(call.body["cidr"])), call.body.get("label", "")
    if count(call.db, "SELECT COUNT(*) FROM ip_allowlist") >= MAX_ENTRIES:
        raise Refusal(409, f"the IP allowlist has {MAX_ENTRIES} entries, which is the most")
    entry_id = new_id("ip_")
    added = call.db.execute(
        "INSERT OR IGNORE INTO ip_allowlist (id, cidr, label, created_ms) VALUES (?, ?, ?, ?)",
        (entry_id, cidr, label, call.now_ms),
    )
    if added.rowcount != 1:
        raise Refusal(409, "the network is already on the IP allowlist")
    audit.note(call, "ip_allowlist_add", f"{cidr} added")
    return {"id": entry_id, "cidr": cidr, "label": label}


def update(call: Call) -> object:
    """Replace the label of an entry. An absent label clears it."""
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
    """Remove several entries. Unknown ids are ignored; the answer lists the removed ids."""
    _require_unrestricted(call)
    found = [
        entry
        for each in dict.fromkeys(call.body["entryIds"])
        if (entry := fetch_one(call.db, SELECT_ONE, (each,))) is not None
    ]
    for entry in found:
        _remove(call, entry)
    return {"deletedIds": [entry["id"] for entry in found]}


def enable(call: Call) -> object:
    """Enable the list."""
    return _set_enabled(call, enabled=True)


def disable(call: Call) -> object:
    """Disable the list, so machines can connect from any address."""
    return _set_enabled(call, enabled=False)


def _set_enabled(call: Call, *, enabled: bool) -> object:
    _require_unrestricted(call)
    if is_enabled(call.db) != enabled:
        call.db.execute(
            "INSERT INTO ip_allowlist_switch (only, enabled) VALUES (1, ?)"
            " ON CONFLICT (only) DO UPDATE SET enabled = excluded.enabled",
            (enabled,),
        )
        action = "enable" if enabled else "disable"
        audit.note(call, f"ip_allowlist_{action}", f"IP allowlist {action}d")
    return {"enabled": enabled}


def _remove(call: Call, entry: sqlite3.Row) -> None:
    call.db.execute("DELETE FROM ip_allowlist WHERE id = ?", (entry["id"],))
    audit.note(call, "ip_allowlist_delete", f"{entry['cidr']} removed")


def _require(call: Call) -> sqlite3.Row:
    _require_unrestricted(call)
    return require_one(call.db, SELECT_ONE, (call.params["entryId"],), "no such entry")


def _require_unrestricted(call: Call) -> None:
    if call.agent.allowlist is not None:
        raise Denied(403, "the IP allowlist is not for agents with a project allowlist", call.agent.id)


def _parse_cidr(cidr: str) -> Network:
    try:
        return parse_network(cidr)
    except ValueError:  # the original message quotes the input
        raise Refusal(400, "cidr must be an IPv4 or IPv6 network such as 203.0.113.0/24") from None


def _to_json(row: sqlite3.Row) -> dict[str, object]:
    return {"id": row["id"], "cidr": row["cidr"], "label": row["label"], "createdAt": row["created_ms"]}


LABEL = text(0, 255)
ADD_FIELDS = {"cidr": text(1, 100).required(), "label": LABEL}
READ, WRITE = "ipallowlist.read", "ipallowlist.write"
BASE = "/v1/ai/ipallowlist"

# fmt: off
ROUTES = (
    Route("GET",  BASE,                       READ,  list_all, reads=True),
    Route("POST", BASE,                       WRITE, add,         ADD_FIELDS, status=201),
    Route("POST", BASE + "/{entryId}/update", WRITE, update,      {"label": LABEL}),
    Route("POST", BASE + "/{entryId}/delete", WRITE, delete),
    Route("POST", BASE + "/enable",           WRITE, enable),
    Route("POST", BASE + "/disable",          WRITE, disable),
    Route("POST", BASE + "/bulk-delete",      WRITE, bulk_delete, {"entryIds": text_list().required()}),
)
# fmt: on


# ---- the owner's side ------------------------------------------------------------------------------------------------


class Networks:
    """Many networks in which many addresses are looked up."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        parsed = [parse_network(cidr) for cidr in cidrs]
        self._known = {(each.version, each.prefixlen, int(each.network_address)) for each in parsed}
        self._lengths = {(each.version, each.prefixlen) for each in parsed}

    def __contains__(self, ip: str) -> bool:
        try:
            address = parse_address(ip)
        except ValueError:
            return False
        for version, length in self._lengths:
            host_bits = address.max_prefixlen - length
            start = int(address) >> host_bits << host_bits if version == address.version else None
            if (version, length, start) in self._known:
                return True
        return False


def entry_of(listed: Iterable[Mapping[str, Any]], ip: str) -> Mapping[str, Any] | None:
    """The first entry that lets an address pass. Raises Refusal if it is no address."""
    try:
        parse_address(ip)
    except ValueError:
        raise Refusal(400, "this is not an IP address") from None
    return next((each for each in listed if is_within(ip, [parse_network(str(each["cidr"]))])), None)
