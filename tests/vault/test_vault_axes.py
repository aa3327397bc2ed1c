"""The axes of a policy, checked with tables and against a simpler, slower model."""

from __future__ import annotations

import zoneinfo
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.domains import axes
from vault.domains.axes import Facts
from vault.errors import Refusal

COPENHAGEN, NEW_YORK = "Europe/Copenhagen", "America/New_York"


def utc(text: str) -> int:
    """A UTC time in milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * 1000


def window(start: str, end: str, zone: str = COPENHAGEN, days: tuple[str, ...] = axes.DAYS) -> dict[str, Any]:
    times = {"timeWindowStart": start, "timeWindowEnd": end, "timeWindowTimezone": zone, "timeWindowDays": [*days]}
    return {"timeWindowEnabled": True, **times}


# Copenhagen changes its clocks on 2026-03-29 and 2026-10-25, at 01:00 UTC. New York changes them on
# 2026-03-08 at 07:00 UTC and on 2026-11-01 at 06:00 UTC.
def test_the_window_follows_the_wall_clock_of_its_zone() -> None:
    for rules, moment, inside in [
        # A Friday in winter, one hour ahead of UTC: the start is included, the end is not.
        (window("09:00", "17:00", days=("fri",)), "2026-01-02T07:59:59", False),
        (window("09:00", "17:00", days=("fri",)), "2026-01-02T08:00:00", True),
        (window("09:00", "17:00", days=("fri",)), "2026-01-02T15:59:59", True),
        (window("09:00", "17:00", days=("fri",)), "2026-01-02T16:00:00", False),
        (window("09:00", "17:00", days=("thu", "sat")), "2026-01-02T12:00:00", False),
        # In summer, two hours ahead of UTC.
        (window("09:00", "17:00"), "2026-07-03T07:00:00", True),
        (window("09:00", "17:00"), "2026-07-03T15:00:00", False),
        # Past midnight, by the day of the start. Sunday continues into Monday.
        (window("22:00", "06:00", days=("fri",)), "2026-01-02T22:30:00", True),
        (window("22:00", "06:00", days=("fri",)), "2026-01-03T04:59:59", True),
        (window("22:00", "06:00", days=("fri",)), "2026-01-03T05:00:00", False),
        (window("22:00", "06:00", days=("fri",)), "2026-01-02T04:00:00", False),
        (window("22:00", "06:00", days=("fri",)), "2026-01-03T22:00:00", False),
        (window("22:00", "06:00", days=("sun",)), "2026-01-05T04:00:00", True),
        (window("22:00", "06:00", days=("mon",)), "2026-01-05T04:00:00", False),
        # An equal start and end are 24 hours from the start.
        (window("08:00", "08:00", days=("fri",)), "2026-01-02T06:59:59", False),
        (window("08:00", "08:00", days=("fri",)), "2026-01-02T07:00:00", True),
        (window("08:00", "08:00", days=("fri",)), "2026-01-03T06:59:59", True),
        (window("08:00", "08:00", days=("fri",)), "2026-01-03T07:00:00", False),
        (window("00:00", "00:00", days=("fri",)), "2026-01-01T23:00:00", True),
        (window("00:00", "00:00", days=("fri",)), "2026-01-02T23:00:00", False),
        # Spring in Copenhagen: 02:00 to 03:00 is skipped, so a window from 02:30 opens at 03:00.
        (window("02:30", "04:00", days=("sun",)), "2026-03-29T00:59:59", False),
        (window("02:30", "04:00", days=("sun",)), "2026-03-29T01:00:00", True),
        (window("02:30", "04:00", days=("sun",)), "2026-03-29T01:59:59", True),
        (window("02:30", "04:00", days=("sun",)), "2026-03-29T02:00:00", False),
        (window("02:00", "03:00", days=("sun",)), "2026-03-29T00:59:59", False),
        (window("02:00", "03:00", days=("sun",)), "2026-03-29T01:00:00", False),
        # Autumn in Copenhagen: 02:00 to 03:00 occurs twice, and is open twice.
        (window("02:00", "03:00", days=("sun",)), "2026-10-24T23:59:59", False),
        (window("02:00", "03:00", days=("sun",)), "2026-10-25T00:00:00", True),
        (window("02:00", "03:00", days=("sun",)), "2026-10-25T01:59:59", True),
        (window("02:00", "03:00", days=("sun",)), "2026-10-25T02:00:00", False),
        (window("22:00", "02:30", days=("sat",)), "2026-10-25T00:29:59", True),
        (window("22:00", "02:30", days=("sat",)), "2026-10-25T00:30:00", False),
        (window("22:00", "02:30", days=("sat",)), "2026-10-25T01:29:59", True),
        (window("22:00", "02:30", days=("sat",)), "2026-10-25T01:30:00", False),
        # New York, spring and autumn.
        (window("01:30", "03:30", NEW_YORK, ("sun",)), "2026-03-08T06:29:59", False),
        (window("01:30", "03:30", NEW_YORK, ("sun",)), "2026-03-08T06:30:00", True),
        (window("01:30", "03:30", NEW_YORK, ("sun",)), "2026-03-08T07:29:59", True),
        (window("01:30", "03:30", NEW_YORK, ("sun",)), "2026-03-08T07:30:00", False),
        (window("01:00", "02:00", NEW_YORK, ("sun",)), "2026-11-01T05:00:00", True),
        (window("01:00", "02:00", NEW_YORK, ("sun",)), "2026-11-01T06:59:59", True),
        (window("01:00", "02:00", NEW_YORK, ("sun",)), "2026-11-01T07:00:00", False),
    ]:
        assert axes.in_window(rules, utc(moment)) is inside, (rules, moment)
        assert (axes.find_violation(rules, Facts(utc(moment), None)) == "timeWindow") is not inside, (
            rules,
            moment,
            inside,
        )


ZONES = (COPENHAGEN, NEW_YORK, "UTC", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana")
CHANGES = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 4), date(2026, 10, 25)]
CHANGES += [date(2026, 11, 1), date(2026, 6, 15)]  # the last day has no clock change
MINUTES = st.integers(0, 24 * 60 - 1)
DAY_SETS = st.sets(st.sampled_from(axes.DAYS), min_size=1)


def opened(start: int, end: int, days: list[str], around: date) -> set[datetime]:
    """Every minute of local time inside the window, counted from each start."""
    found = set()
    for offset in range(-3, 3):
        day = around + timedelta(days=offset)
        if axes.DAYS[day.weekday()] in days:
            opening = datetime(day.year, day.month, day.day) + timedelta(minutes=start)
            length = (end - start) % (24 * 60) or 24 * 60
            found |= {opening + timedelta(minutes=minute) for minute in range(length)}
    return found


@settings(deadline=None, max_examples=20, database=None)
@given(MINUTES, MINUTES, DAY_SETS, st.sampled_from(ZONES), st.sampled_from(CHANGES))
def test_the_window_agrees_with_a_model_that_counts_minutes(
    start: int, end: int, days: set[str], zone: str, change: date
) -> None:
    """Compare every minute of the three days around a clock change."""
    rules = window(f"{start // 60:02}:{start % 60:02}", f"{end // 60:02}:{end % 60:02}", zone, tuple(days))
    inside = opened(start, end, sorted(days), change)
    first = datetime(change.year, change.month, change.day, tzinfo=timezone.utc) - timedelta(days=1)
    for minute in range(3 * 24 * 60):
        moment = first + timedelta(minutes=minute)
        shown = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, second=0, fold=0)
        assert axes.in_window(rules, int(moment.timestamp() * 1000)) == (shown in inside), (moment, shown)


def test_time_zones_work_without_system_zone_files() -> None:
    before = zoneinfo.TZPATH
    try:
        zoneinfo.reset_tzpath([])
        ZoneInfo.clear_cache()
        axes.check(window("09:00", "17:00"))
        assert axes.in_window(window("09:00", "17:00", days=("fri",)), utc("2026-01-02T08:00:00"))
    finally:
        zoneinfo.reset_tzpath(before)


def test_an_address_outside_the_networks_violates_the_policy() -> None:
    for listed, source_ip, inside in [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:b01:203", False),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "::ffff:11.1.2.3", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::/32", "10.1.2.3", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
        ("0.0.0.0/0", None, False),
        ("0.0.0.0/0", "not an address", False),
    ]:
        rules = {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["198.51.100.0/24", listed]}
        assert axes.find_violation(rules, Facts(0, source_ip)) == (None if inside else "ipAllowlist"), (
            listed,
            source_ip,
            inside,
        )


def test_the_first_violated_axis_is_named() -> None:
    for rules, facts, axis in [
        ({}, Facts(0, None), None),
        ({"ttlExpiresAt": 1000}, Facts(999, None), None),
        ({"ttlExpiresAt": 1000}, Facts(1000, None), "ttlExpiresAt"),
        ({"ttlMaxReads": 3}, Facts(0, None, reads=2), None),
        ({"ttlMaxReads": 3}, Facts(0, None, reads=3), "ttlMaxReads"),
        ({"rateCapEnabled": True, "maxReadsPerMinute": 2}, Facts(0, None, 9, 1, 9), None),
        ({"rateCapEnabled": True, "maxReadsPerMinute": 2}, Facts(0, None, 9, 2, 9), "maxReadsPerMinute"),
        ({"rateCapEnabled": True, "maxReadsPerDay": 2}, Facts(0, None, 9, 1, 1), None),
        ({"rateCapEnabled": True, "maxReadsPerDay": 2}, Facts(0, None, 9, 0, 2), "maxReadsPerDay"),
        ({"coSignEnabled": True, "coSignWindowSeconds": 5}, Facts(9000, None), "coSign"),
        ({"coSignEnabled": True, "coSignWindowSeconds": 5}, Facts(9000, None, cosigned_ms=4000), None),
        ({"coSignEnabled": True, "coSignWindowSeconds": 5}, Facts(9000, None, cosigned_ms=3999), "coSign"),
        # A disabled axis forbids nothing, complete or not.
        ({"rateCapEnabled": False, "maxReadsPerDay": 2}, Facts(0, None, 9, 9, 9), None),
        ({**window("09:00", "10:00"), "timeWindowEnabled": False}, Facts(0, None), None),
        ({"ipAllowlistEnabled": False, "ipAllowlistCidrs": ["10.0.0.0/8"]}, Facts(0, "11.0.0.1"), None),
        ({"coSignEnabled": False, "coSignWindowSeconds": 5}, Facts(9000, None), None),
        # Co-signing is checked last: a read that fails another axis is not a request.
        ({"coSignEnabled": True, "coSignWindowSeconds": 5, "ttlMaxReads": 1}, Facts(0, None, 1), "ttlMaxReads"),
    ]:
        assert axes.find_violation(rules, facts) == axis, (rules, facts, axis)


def test_a_value_is_due_for_rotation_at_the_read_that_reaches_the_number() -> None:
    assert [axes.is_rotation_due({"rotateAfterReads": 3}, reads) for reads in (2, 3, 4)] == [False, True, True]
    assert not axes.is_rotation_due({}, 1_000_000)


COMPLETE = {
    **window("09:00", "17:00"),
    "ipAllowlistEnabled": True,
    "ipAllowlistCidrs": ["10.0.0.0/8", "2001:db8::1"],
    "rateCapEnabled": True,
    "maxReadsPerDay": 1,
    "coSignEnabled": True,
    "coSignMachineId": "m",
    "coSignWindowSeconds": 60,
}


def test_incomplete_rules_are_refused_by_key_unless_disabled() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"timeWindowStart": None}, "timeWindowStart is required while timeWindowEnabled is true"),
        ({"timeWindowEnd": None}, "timeWindowEnd is required while timeWindowEnabled is true"),
        ({"timeWindowTimezone": None}, "timeWindowTimezone is required while timeWindowEnabled is true"),
        ({"timeWindowDays": None}, "timeWindowDays is required while timeWindowEnabled is true"),
        ({"timeWindowDays": []}, "timeWindowDays is required while timeWindowEnabled is true"),
        ({"ipAllowlistCidrs": None}, "ipAllowlistCidrs is required while ipAllowlistEnabled is true"),
        ({"ipAllowlistCidrs": []}, "ipAllowlistCidrs is required while ipAllowlistEnabled is true"),
        ({"maxReadsPerDay": None}, "maxReadsPerDay or maxReadsPerMinute is required while rateCapEnabled is true"),
        ({"coSignMachineId": None}, "coSignMachineId is required while coSignEnabled is true"),
        ({"coSignWindowSeconds": None}, "coSignWindowSeconds is required while coSignEnabled is true"),
        *(({"timeWindowStart": bad}, "timeWindowStart must be a time of day as HH:mm") for bad in ("9:00", "24:00")),
        *(({"timeWindowEnd": bad}, "timeWindowEnd must be a time of day as HH:mm") for bad in ("12:60", "12:00\n", "")),
        *(
            ({"timeWindowTimezone": bad}, "timeWindowTimezone must be an IANA time zone, such as Europe/Copenhagen")
            for bad in ("Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "Europe/Copenhagen\n", "")
        ),
        *(
            ({"ipAllowlistCidrs": ["10.0.0.0/8", bad]}, "ipAllowlistCidrs must contain only IP addresses and networks")
            for bad in ("10.0.0.0/33", "host", "", "10.0.0", "::g")
        ),
    ]
    for changed, error in cases:
        merged = {key: value for key, value in {**COMPLETE, **changed}.items() if value is not None}
        axes.check(COMPLETE)
        with pytest.raises(Refusal) as refused:
            axes.check(merged)
        assert (refused.value.status, str(refused.value)) == (400, error), (changed, error)
        if "required" in error:
            axes.check({key: value for key, value in merged.items() if not key.endswith("Enabled")})
