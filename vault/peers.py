"""Finds out which user's program is at the other end of a local connection, from Linux's tables of connections.

Browsers send a cookie to every port of a host, so another user's web server on this computer, opened by the owner, gets
the cookie of a session. That user must not be able to use it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")  # IPv4 peers of an IPv6 socket are in the second one
ESTABLISHED = "01"

Address = tuple[str, int]


def may_be_owner(client: Address, server: Address) -> bool:
    """Whether the program that connected runs as the vault's user or as root, as far as the system tells.

    Root can read the vault anyway, and forwards connections from Windows into WSL. True for other computers and systems
    other than Linux.
    """
    if not sys.platform.startswith("linux") or not ipaddress.ip_address(client[0].partition("%")[0]).is_loopback:
        return True
    try:
        owners = [owner for table in TABLES for owner in _owners(table, client, server)]
    except OSError:
        return True
    return bool(owners) and all(owner in ((ESTABLISHED, 0), (ESTABLISHED, os.geteuid())) for owner in owners)


def _owners(table: str, client: Address, server: Address) -> Iterator[tuple[str, int]]:
    """State and user id of the client's end of the connection, if it is in the table."""
    if table != TABLES[0] and not os.path.exists(table):  # without IPv6
        return
    local, remote = _hexadecimal(client), _hexadecimal(server)
    with open(table, encoding="ascii") as lines:
        for line in lines:
            parts = line.split()
            if len(parts) > 7 and parts[1].endswith(local) and parts[2].endswith(remote):
                yield parts[3], int(parts[7])


def _hexadecimal(address: Address) -> str:
    """An address as the tables have it: each 32 bits in the byte order of the machine. IPv4 also ends a mapped one."""
    host, port = address
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    shown = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{shown}:{port:04X}"
