"""Times as people and models write them: what each text means, what is refused, and that nothing is lost."""

from __future__ import annotations

import pytest

from sikkerkey_times import iso_utc, parse_time, with_sign

NOW_MS = 1_764_338_400_123  # 2025-11-28T14:00:00.123Z
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def test_each_spelling_of_a_time_is_understood() -> None:
    second = 1_764_338_400_000
    for text, meant in {
        "2025-11-28T14:00:00.123Z": NOW_MS,
        "2025-11-28T14:00:00Z": second,
        "2025-11-28T14:00:00": second,  # without a zone: UTC
        "2025-11-28T14:00Z": second,
        "2025-11-28T14:00": second,
        "2025-11-28 14:00:00": second,
        "2025-11-28 14:00:00 +00:00": second,
        "2025-11-28t14:00:00z": second,
        "  2025-11-28T14:00:00Z\n": second,
        "2025-11-28T14:00:00.5Z": second + 500,
        "2025-11-28T14:00:00,05Z": second + 50,
        "2025-11-28T14:00:00.123456": second + 123,
        "2025-11-28T14:00:00.999999999Z": second + 999,  # dropped, not rounded into the next second
        "2025-11-28T15:00:00+01:00": second,
        "2025-11-28T15:00:00+0100": second,
        "2025-11-28T15:00:00+01": second,
        "2025-11-28T15:00:00.123+0100": NOW_MS,
        "2025-11-28T08:30:00-05:30": second,
        "2025-11-29T03:59:00+13:59": second,
        "2025-11-28": second - 14 * HOUR_MS,
        "2024-02-29": 1_709_164_800_000,
        "1970-01-01": 0,
        "1969-12-31T23:59:59.999Z": -1,
        "now": NOW_MS,
        "-24h": NOW_MS - DAY_MS,
        "-7d": NOW_MS - 7 * DAY_MS,
        "+90d": NOW_MS + 90 * DAY_MS,
        "-30m": NOW_MS - HOUR_MS // 2,
        "+2w": NOW_MS + 14 * DAY_MS,
        "-0h": NOW_MS,
        "yesterday": second - 38 * HOUR_MS,
        "today": second - 14 * HOUR_MS,
        "tomorrow": second + 10 * HOUR_MS,
        str(NOW_MS): NOW_MS,
        "100000000000": 100_000_000_000,
        "9999999999999": 9_999_999_999_999,
    }.items():
        assert parse_time(text, NOW_MS) == meant, text


def test_what_is_no_time_is_refused_with_the_rule() -> None:
    for text in (
        *("", " ", "Yesterday", "24h", "-24", "-1764338400123", "-24H", "-1y", "-1.5h"),
        *("--1h", "- 1h", "-1h ago", "-1234567890h"),
        *("28.11.2025", "11/28/2025", "2025-11", "2025-1-2", "2025-11-28T14", "2025-11-28T14:00:00.Z", "2025-11-28Z"),
        *("2025-11-28T14:00:00+1", "2025-11-28T14:00:00+24:00", "2025-11-28T14:00:00+01:60", "2025-11-28T14:00:00ZZ"),
        *("1.5", "1e12", "1_764_338_400_123", "٢٠٢٥-١١-٢٨", "-٧d", "2025-11-28\n2025", "nan", "0x10"),
        *("2025-02-29", "2025-13-01", "2025-00-01", "2025-11-31", "2025-11-28T24:00", "2025-11-28T23:60", "0000-01-01"),
    ):
        with pytest.raises(ValueError, match="must be a time: ISO 8601 such as ") as refused:
            parse_time(text, NOW_MS)
        assert str(refused.value).startswith("must be "), text


def test_seconds_are_refused_with_the_milliseconds_that_they_would_be() -> None:
    for seconds in (1_764_338_400, 1, 0, 99_999_999_999):
        rule = f"must be in milliseconds: {seconds} can only be seconds, which is {seconds * 1000}"
        with pytest.raises(ValueError, match=f"^{rule}$"):
            parse_time(str(seconds), NOW_MS)


def test_microseconds_and_dates_without_separators_are_refused() -> None:
    for digits in ("1764338400123456", "1764338400123456789", "20251128140000", str(10**13)):
        with pytest.raises(ValueError, match="must be in milliseconds, which have 12 or 13 digits"):
            parse_time(digits, NOW_MS)


def test_times_beyond_the_calendar_are_refused() -> None:
    for text in ("+999999999w", "-999999999w", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"):
        with pytest.raises(ValueError, match="must be in the years 1 to 9999"):
            parse_time(text, NOW_MS)
    for epoch_ms in (-62_135_596_800_001, 253_402_300_800_000, 2**63, -(2**63)):
        with pytest.raises(ValueError, match="not in the years 1 to 9999"):
            iso_utc(epoch_ms)


def test_a_sign_is_added_to_a_relative_time_only() -> None:
    texts = ("24h", " 7d", "-7d", "+7d", "2025-11-28", "now", "7", "7y", "")
    assert [with_sign(text, "-") for text in texts] == ["-24h", "-7d", "-7d", "+7d", *texts[4:]]


def test_a_time_in_iso_8601_loses_nothing() -> None:
    assert iso_utc(NOW_MS) == "2025-11-28T14:00:00.123Z"
    assert iso_utc(0) == "1970-01-01T00:00:00.000Z"
    assert iso_utc(-1) == "1969-12-31T23:59:59.999Z"
    edges = [-62_135_596_800_000, 253_402_300_799_999, NOW_MS, 0, 951_782_400_000]
    for epoch_ms in [*edges, *range(-(10**13), 10**14, 987_654_321_987)]:
        assert parse_time(iso_utc(epoch_ms), NOW_MS) == epoch_ms, epoch_ms
