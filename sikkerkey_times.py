"""Times as people and models write them, and as the vault counts them: milliseconds since 1970 in UTC.

Nothing here reads a clock or knows MCP or the vault.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from email.utils import mktime_tz, parsedate_tz

EPOCH = datetime(1970, 1, 1)  # naive datetimes are UTC in this module
SECONDS_BELOW = 100_000_000_000  # as milliseconds, a smaller number is before March 1973
MILLISECONDS_MAX = 10**13 - 1  # the year 2286; a larger number is microseconds or a date without separators
RULE = (
    "must be a time: ISO 8601 such as 2026-01-31T08:00:00Z (UTC unless it has an offset), a date such as 2026-01-31, "
    "relative to now such as -24h, -7d or +90d, yesterday, today or tomorrow (00:00 UTC), or Unix milliseconds"
)

_RELATIVE = re.compile(r"([+-][0-9]{1,9})([mhdw])", re.ASCII)
DAYS_FROM_TODAY = {"yesterday": -1, "today": 0, "tomorrow": 1}
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DIGITS = re.compile("[0-9]{1,20}")
_CLOCK = r"[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
_OFFSET = r" ?(?:[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)"
_ISO = re.compile(rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})(?:{_CLOCK}(?:{_OFFSET})?)?")


def parse_time(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 for ISO 8601, a date (00:00 UTC), `now`, a relative time (m, h, d, w) or milliseconds.

    `yesterday`, `today` and `tomorrow` stand for their dates in UTC. Fractions of a millisecond are dropped. Raises
    ValueError, whose message is a rule that begins with "must be".
    """
    text = text.strip()
    if _DIGITS.fullmatch(text):
        return _milliseconds(int(text))
    if text == "now":
        return now_ms
    if text in DAYS_FROM_TODAY:
        return (now_ms // _UNITS_MS["d"] + DAYS_FROM_TODAY[text]) * _UNITS_MS["d"]
    relative = _RELATIVE.fullmatch(text)
    epoch_ms = now_ms + int(relative[1]) * _UNITS_MS[relative[2]] if relative else _iso_ms(text)
    try:
        iso_utc(epoch_ms)
    except ValueError:
        raise ValueError("must be in the years 1 to 9999") from None
    return epoch_ms


def with_sign(text: str, sign: str) -> str:
    """`-24h` for `24h` and the sign `-`; any other text as it is."""
    return sign + text.strip() if _RELATIVE.fullmatch(sign + text.strip()) else text


def iso_utc(epoch_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`; `parse_time` returns exactly `epoch_ms` for it.

    Raises ValueError outside the years 1 to 9999.
    """
    try:
        return (EPOCH + timedelta(milliseconds=epoch_ms)).isoformat(timespec="milliseconds") + "Z"
    except OverflowError:
        raise ValueError("not in the years 1 to 9999") from None


def _milliseconds(number: int) -> int:
    if number < SECONDS_BELOW:
        raise ValueError(f"must be in milliseconds: {number} can only be seconds, which is {number * 1000}")
    if number > MILLISECONDS_MAX:
        raise ValueError("must be in milliseconds, which have 12 or 13 digits; write later times in ISO 8601")
    return number


def _iso_ms(text: str) -> int:
    # Not datetime.fromisoformat: before Python 3.11 it knows neither Z, nor +0100, nor most lengths of a fraction.
    match = _ISO.fullmatch(text)
    if not match:
        raise ValueError(RULE)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, sign, offset_h, offset_min = match.groups()[6:]
    offset = timedelta(hours=int(offset_h or 0), minutes=int(offset_min or 0))
    try:
        local = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise ValueError(f"{RULE}; there is no such date or time of day") from None
    since_epoch = local - EPOCH + (offset if sign == "-" else -offset)
    return since_epoch // timedelta(milliseconds=1) + int((fraction or "")[:3].ljust(3, "0"))


def parse_http_date(text: str) -> int | None:
    """An HTTP date as Unix time in seconds; None for anything else."""
    fields = parsedate_tz(text)
    try:
        return mktime_tz(fields) if fields else None
    except (ValueError, OverflowError):
        return None
