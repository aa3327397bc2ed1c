"""The axes of an access policy: validation and enforcement, without SQL and with the time as a parameter.

Rules are a policy's settings under the keys of its body. The weekly window uses the local time of its time zone and
includes its start but not its end. A window skipped by the clock change in spring does not open that day; one repeated
in autumn is open both times. Its days are the days on which it starts. If the start is not before the end, the window
runs past midnight; an equal start and end mean 24 hours. Rate caps are sliding: the 60 seconds and the 24 hours before
the read. Read counts are per secret, for all machines together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple
from zoneinfo import ZoneInfo

from vault.domains import ip_allowlist
from vault.errors import EMPTY, Refusal
from vault.inputs import BOOLEAN, TIME_MS, integer, text, text_list

MINUTE_MS = 60_000
DAY_MS = 86_400_000
LAST_DAY_MS = int(datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()) * 1000  # a policy may end later still

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_CIDRS = 100
MAX_RATE = 100_000  # each read stores one row for a day
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
    "timeWindowDays":      text_list(1, len(DAYS), choices=DAYS),
    "ipAllowlistEnabled":  BOOLEAN,
    "ipAllowlistCidrs":    text_list(0, MAX_CIDRS),
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

# The keys that each enabling flag requires. The TTL and rotation axes have no flag: they apply if they are set.
REQUIRED_KEYS = {
    "timeWindowEnabled":  ("timeWindowStart", "timeWindowEnd", "timeWindowTimezone", "timeWindowDays"),
    "ipAllowlistEnabled": ("ipAllowlistCidrs",),
    "coSignEnabled":      ("coSignMachineId", "coSignWindowSeconds"),
}
# fmt: on
CAPS = ("maxReadsPerDay", "maxReadsPerMinute")


class Facts(NamedTuple):
    """What a policy checks when a machine reads a secret. Counts exclude the current read."""

    now_ms: int
    source_ip: str | None
    reads: int = 0  # since the policy was bound
    reads_last_minute: int = 0
    reads_last_day: int = 0
    cosigned_ms: int | None = None  # when the other side last requested the same secret


# ---- validation ------------------------------------------------------------------------------------------------------


def check(rules: Rules) -> None:
    """Raise Refusal for incomplete or invalid rules."""
    for key in ("timeWindowStart", "timeWindowEnd"):
        if key in rules and not TIME_OF_DAY.fullmatch(rules[key]):
            raise Refusal(400, f"{key} must be a time of day as HH:mm")
    if "timeWindowTimezone" in rules and not _is_zone(rules["timeWindowTimezone"]):
        raise Refusal(400, "timeWindowTimezone must be an IANA time zone, such as Europe/Copenhagen")
    for item in rules.get("ipAllowlistCidrs", ()):
        if not _is_network(item):
            raise Refusal(400, "ipAllowlistCidrs must contain only IP addresses and networks")
    for flag, keys in REQUIRED_KEYS.items():
        for key in keys:
            if rules.get(flag) and not rules.get(key):
                raise Refusal(400, f"{key} is required while {flag} is true")
    if rules.get("rateCapEnabled") and not any(key in rules for key in CAPS):
        raise Refusal(400, f"{' or '.join(CAPS)} is required while rateCapEnabled is true")


def _is_zone(name: str) -> bool:
    if not ZONE.fullmatch(name):
        return False
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # an unknown zone, an invalid file, or a directory
        return False
    return True


def _is_network(listed: str) -> bool:
    try:
        ip_allowlist.parse_network(listed)
    except ValueError:
        return False
    return True


# ---- enforcement -----------------------------------------------------------------------------------------------------


def find_violation(rules: Rules, facts: Facts) -> str | None:
    """The first axis that forbids the read, or None.

    Co-signing is checked last, so that only a read that passes all other axes counts as a co-sign request.
    """
    return next((axis for axis, forbids in AXES.items() if forbids(rules, facts)), None)


def is_rotation_due(rules: Rules, reads: int) -> bool:
    """Whether the value must be rotated after this many reads."""
    return "rotateAfterReads" in rules and reads >= int(rules["rotateAfterReads"])


def _expired(rules: Rules, facts: Facts) -> bool:
    return "ttlExpiresAt" in rules and facts.now_ms >= int(rules["ttlExpiresAt"])


def _reads_exhausted(rules: Rules, facts: Facts) -> bool:
    return "ttlMaxReads" in rules and facts.reads >= int(rules["ttlMaxReads"])


def _outside_time_window(rules: Rules, facts: Facts) -> bool:
    return bool(rules.get("timeWindowEnabled")) and not in_window(rules, facts.now_ms)


def _outside_networks(rules: Rules, facts: Facts) -> bool:
    return bool(rules.get("ipAllowlistEnabled")) and not ip_allowlist.is_within(
        facts.source_ip, map(ip_allowlist.parse_network, rules["ipAllowlistCidrs"])
    )


def _exceeds_minute_cap(rules: Rules, facts: Facts) -> bool:
    return _exceeds_cap(rules, "maxReadsPerMinute", facts.reads_last_minute)


def _exceeds_day_cap(rules: Rules, facts: Facts) -> bool:
    return _exceeds_cap(rules, "maxReadsPerDay", facts.reads_last_day)


def _exceeds_cap(rules: Rules, key: str, reads: int) -> bool:
    return bool(rules.get("rateCapEnabled")) and key in rules and reads >= int(rules[key])


def _not_cosigned(rules: Rules, facts: Facts) -> bool:
    if not rules.get("coSignEnabled"):
        return False
    asked_ms = facts.cosigned_ms
    return asked_ms is None or facts.now_ms - asked_ms > int(rules["coSignWindowSeconds"]) * 1000


AXES: Mapping[str, Callable[[Rules, Facts], bool]] = {
    "ttlExpiresAt": _expired,
    "ttlMaxReads": _reads_exhausted,
    "timeWindow": _outside_time_window,
    "ipAllowlist": _outside_networks,
    "maxReadsPerMinute": _exceeds_minute_cap,
    "maxReadsPerDay": _exceeds_day_cap,
    "coSign": _not_cosigned,
}


def in_window(rules: Rules, now_ms: int) -> bool:
    """Whether the local time in the zone is inside the weekly window."""
    local = datetime.fromtimestamp(now_ms // 1000, ZoneInfo(rules["timeWindowTimezone"]))
    start, end = _minute_of_day(rules["timeWindowStart"]), _minute_of_day(rules["timeWindowEnd"])
    minute, today = local.hour * 60 + local.minute, local.weekday()
    starts_today = DAYS[today] in rules["timeWindowDays"]
    if start < end:
        return starts_today and start <= minute < end
    started_yesterday = DAYS[today - 1] in rules["timeWindowDays"]
    return (starts_today and minute >= start) or (started_yesterday and minute < end)


def _minute_of_day(time_of_day: str) -> int:
    return int(time_of_day[:2]) * 60 + int(time_of_day[3:])


# ---- words -----------------------------------------------------------------------------------------------------------


def describe(rules: Rules, machine_names: Mapping[str, str] = EMPTY) -> str:
    """What the rules mean, in sentences for the owner. Keys that are absent, None or False set no condition."""
    conditions = [part for part in (words(rules) for words in _CONDITIONS) if part]
    if rules.get("coSignEnabled"):
        cosigner = machine_names.get(rules["coSignMachineId"], rules["coSignMachineId"])
        conditions.append(
            f"only if {cosigner} and another machine ask for the same secret"
            f" within {_number(rules['coSignWindowSeconds'], 'second')} of each other"
        )
    sentence = f"Machines may read {', '.join(conditions)}." if conditions else "Machines may read without conditions."
    reads = rules.get("rotateAfterReads")
    return f"{sentence} The value changes after {_number(reads, 'read')}." if reads else sentence


def _window_words(rules: Rules) -> str:
    if not rules.get("timeWindowEnabled"):
        return ""
    start, end, zone = (rules[f"timeWindow{part}"] for part in ("Start", "End", "Timezone"))
    until = end if start < end else f"{end} on the next day"
    return f"{_days(rules['timeWindowDays'])} from {start} to {until} ({zone})"


def _days(listed: Iterable[str]) -> str:
    """Three or more days that follow each other as a range."""
    days = [day for day in DAYS if day in listed]
    if len(days) == len(DAYS):
        return "every day"
    first, last = DAYS.index(days[0]), DAYS.index(days[-1])
    if len(days) > 2 and last - first + 1 == len(days):
        return f"{days[0].title()} to {days[-1].title()}"
    return f"on {_joined([day.title() for day in days])}"


def _network_words(rules: Rules) -> str:
    return f"from {_joined(rules['ipAllowlistCidrs'])}" if rules.get("ipAllowlistEnabled") else ""


def _cap_words(rules: Rules) -> str:
    if not rules.get("rateCapEnabled"):
        return ""
    units = (("maxReadsPerMinute", "minute"), ("maxReadsPerDay", "day"))
    caps = [f"{_number(rules[key], 'time')} a {unit}" for key, unit in units if rules.get(key)]
    return f"at most {_joined(caps)}"


def _expiry_words(rules: Rules) -> str:
    at_ms = rules.get("ttlExpiresAt")
    if at_ms is None:
        return ""
    return f"until {datetime.fromtimestamp(min(at_ms, LAST_DAY_MS) // 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _total_words(rules: Rules) -> str:
    return f"at most {_number(rules['ttlMaxReads'], 'time')} in total" if rules.get("ttlMaxReads") else ""


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if parts[:-1] else []), *parts[-1:]])


_CONDITIONS = (_window_words, _network_words, _cap_words, _total_words, _expiry_words)
