"""IP addresses and networks in one spelling each. Pure.

An IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`, as dual-stack listeners report it) is the IPv4 address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

MAX_CIDR = 64  # characters: longer than any spelling of an IPv6 network
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def network(cidr: str) -> Network:
    """The network that a CIDR, or a single address, means; ValueError for anything else."""
    if "%" in cidr or len(cidr) > MAX_CIDR:  # a zone is a matter of one host's interfaces
        raise ValueError("not a network")
    found = ipaddress.ip_network(cidr, strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(MAPPED):
        base = found.network_address.ipv4_mapped
        return ipaddress.ip_network(f"{base}/{found.prefixlen - MAPPED.prefixlen}")
    return found


def address(text: str) -> Address:
    """One address, without its zone; ValueError for anything else."""
    found = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def within(text: str | None, networks: Iterable[Network]) -> bool:
    """Whether a client's address lies in one of the networks; one that is not known lies in none."""
    try:
        found = address(text or "")
    except ValueError:
        return False
    return any(found in each for each in networks if each.version == found.version)
