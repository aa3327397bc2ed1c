"""The axes of an access policy: what is complete, and what is broken. Pure: no SQL, and the clock is given.

Rules are a policy's settings under the keys of its body. The weekly window is read off the wall clock of its zone,
start included and end not: a window that the clocks skip in spring does not open that day, and one that they repeat in
autumn is open both times. Its days are those on which it starts; if the start is not before the end it runs past
midnight, and an equal start and end are 24 hours. Rate caps slide: the minute and the day are the 60 seconds and the 24
hours before the read. Whatever counts reads counts those of one secret by all machines together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Callable, NamedTuple
from zoneinfo import ZoneInfo

from vault import addresses
from vault.errors import Refusal
from vault.inputs import BOOLEAN, TIME_MS, integer, text, texts

MINUTE_MS = 60_000
DAY_MS = 86_400_000

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_CIDRS = 100
MAX_RATE = 100_000  # one row a read is kept for a day
MAX_COSIGN_S = 86_400
TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")

Rules = Mapping[str, Any]

READS = integer(1, 2**53 - 1)
# fmt: off
FIELDS = {
    "timeWindowEnabled":   BOOLEAN,
    "timeWindowStart":     text(1, 5),
    "timeWindowEnd":       text(1, 5),
    "timeWindowTimezone":  text(1, 64),
    "timeWindowDays":      texts(1, len(DAYS), choices=DAYS),
    "ipAllowlistEnabled":  BOOLEAN,
    "ipAllowlistCidrs":    texts(0, MAX_CIDRS),
    "rateCapEnabled":      BOOLEAN,
    "maxReadsPerDay":      integer(1, MAX_RATE),
    "maxReadsPerMinute":   integer(1, MAX_RATE),
    "coSignEnabled":       BOOLEAN,
    "coSignMachineId":     text(1, 64),
    "coSignWindowSeconds": integer(1, MAX_COSIGN_S),
    "ttlExpiresAt":        TIME_MS,
    "ttlMaxReads":         READS,
    "rotateAfterReads":    READS,
}

# A switch and the keys that it needs. The last two axes have no switch: they are on where they are given.
NEEDS = {
    "timeWindowEnabled":  ("timeWindowStart", "timeWindowEnd", "timeWindowTimezone", "timeWindowDays"),
    "ipAllowlistEnabled": ("ipAllowlistCidrs",),
    "coSignEnabled":      ("coSignMachineId", "coSignWindowSeconds"),
}
# fmt: on
CAPS = ("maxReadsPerDay", "maxReadsPerMinute")


class Facts(NamedTuple):
    """What a policy looks at when a machine asks: reads are those before this one."""

    now_ms: int
    source_ip: str | None
    reads: int = 0  # since the policy was bound
    reads_last_minute: int = 0
    reads_last_day: int = 0
    cosigned_ms: int | None = None  # when the other side last asked for the same secret


# ---- completeness ----------------------------------------------------------------------------------------------------


def check(rules: Rules) -> None:
    """Refuse rules that cannot be enforced, naming the key."""
    for key in ("timeWindowStart", "timeWindowEnd"):
        if key in rules and not TIME_OF_DAY.fullmatch(rules[key]):
            raise Refusal(400, f"{key} must be a time of day as HH:mm")
    if "timeWindowTimezone" in rules and not _is_zone(rules["timeWindowTimezone"]):
        raise Refusal(400, "timeWindowTimezone must be an IANA time zone, such as Europe/Copenhagen")
    for item in rules.get("ipAllowlistCidrs", ()):
        if not _is_network(item):
            raise Refusal(400, "ipAllowlistCidrs must hold IP addresses and networks")
    for switch, keys in NEEDS.items():
        for key in keys:
            if rules.get(switch) and not rules.get(key):
                raise Refusal(400, f"{key} is required while {switch} is true")
    if rules.get("rateCapEnabled") and not any(key in rules for key in CAPS):
        raise Refusal(400, f"{' or '.join(CAPS)} is required while rateCapEnabled is true")


def _is_zone(name: str) -> bool:
    if not ZONE.fullmatch(name):
        return False
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown, not zone data, a directory of zones
        return False
    return True


def _is_network(listed: str) -> bool:
    try:
        addresses.network(listed)
    except ValueError:
        return False
    return True


# ---- enforcement -----------------------------------------------------------------------------------------------------


def broken(rules: Rules, facts: Facts) -> str | None:
    """The first axis that forbids the read; co-sign comes last, so that only a read that lacks nothing else is kept."""
    return next((axis for axis, forbids in AXES.items() if forbids(rules, facts)), None)


def rotates(rules: Rules, reads: int) -> bool:
    """Whether a value that has been read this often is due for replacement."""
    return "rotateAfterReads" in rules and reads >= int(rules["rotateAfterReads"])


def _expired(rules: Rules, facts: Facts) -> bool:
    return "ttlExpiresAt" in rules and facts.now_ms >= int(rules["ttlExpiresAt"])


def _used_up(rules: Rules, facts: Facts) -> bool:
    return "ttlMaxReads" in rules and facts.reads >= int(rules["ttlMaxReads"])


def _out_of_hours(rules: Rules, facts: Facts) -> bool:
    return bool(rules.get("timeWindowEnabled")) and not in_window(rules, facts.now_ms)


def _elsewhere(rules: Rules, facts: Facts) -> bool:
    return bool(rules.get("ipAllowlistEnabled")) and not addresses.within(
        facts.source_ip, map(addresses.network, rules["ipAllowlistCidrs"])
    )


def _over_minute(rules: Rules, facts: Facts) -> bool:
    return _capped(rules, "maxReadsPerMinute", facts.reads_last_minute)


def _over_day(rules: Rules, facts: Facts) -> bool:
    return _capped(rules, "maxReadsPerDay", facts.reads_last_day)


def _capped(rules: Rules, key: str, reads: int) -> bool:
    return bool(rules.get("rateCapEnabled")) and key in rules and reads >= int(rules[key])


def _alone(rules: Rules, facts: Facts) -> bool:
    if not rules.get("coSignEnabled"):
        return False
    asked_ms = facts.cosigned_ms
    return asked_ms is None or facts.now_ms - asked_ms > int(rules["coSignWindowSeconds"]) * 1000


AXES: Mapping[str, Callable[[Rules, Facts], bool]] = {
    "ttlExpiresAt": _expired,
    "ttlMaxReads": _used_up,
    "timeWindow": _out_of_hours,
    "ipAllowlist": _elsewhere,
    "maxReadsPerMinute": _over_minute,
    "maxReadsPerDay": _over_day,
    "coSign": _alone,
}


def in_window(rules: Rules, now_ms: int) -> bool:
    """Whether the wall clock of the zone shows a time inside the weekly window."""
    local = datetime.fromtimestamp(now_ms // 1000, ZoneInfo(rules["timeWindowTimezone"]))
    start, end = _minute(rules["timeWindowStart"]), _minute(rules["timeWindowEnd"])
    minute, today = local.hour * 60 + local.minute, local.weekday()
    starts_today = DAYS[today] in rules["timeWindowDays"]
    if start < end:
        return starts_today and start <= minute < end
    started_yesterday = DAYS[today - 1] in rules["timeWindowDays"]
    return (starts_today and minute >= start) or (started_yesterday and minute < end)


def _minute(time_of_day: str) -> int:
    return int(time_of_day[:2]) * 60 + int(time_of_day[3:])
