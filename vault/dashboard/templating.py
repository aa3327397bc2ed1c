"""Jinja2 for the dashboard's pages. Everything that a template prints is escaped, and hidden characters are shown."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vault.dashboard.queries.names import parts
from vault.terminal import is_hidden

STATIC_TYPES = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}
STATIC = {name: (resources.files("vault.dashboard") / "static" / name).read_bytes() for name in STATIC_TYPES}
# In the address, so that browsers may keep the files until they change.
DIGEST = hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:12]
BLANK = "\N{OPEN BOX}"  # as keyboards label the space bar
MAX_CHOICES = 500  # that a form lists; of more, a person types the name or the id
UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000))


def when(at_ms: int | None) -> str | Markup:
    """A time in UTC, as HTML. A dash for None."""
    if at_ms is None:
        return "–"
    at = datetime.fromtimestamp(at_ms / 1000, timezone.utc)
    return Markup('<time datetime="{}">{}</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d %H:%M")
    )


def span(milliseconds: int) -> str:
    """A duration in words: `3 days`, `5 minutes`, `less than a minute`."""
    for name, size in UNITS:
        if milliseconds >= size:
            return plural(milliseconds // size, name)
    return "less than a minute"


def interval(seconds: int) -> str:
    """An interval for a sentence with `every`, in the largest unit that fits exactly: `7 days`, `hour`."""
    for name, size in UNITS:
        if seconds * 1000 % size == 0:
            number = seconds * 1000 // size
            return name if number == 1 else plural(number, name)
    return plural(seconds, "second")


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun: `1 secret`, `12,345 secrets`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def visible(value: Any) -> Any:
    """Text with control and format characters as escapes, so that a name cannot hide or reorder what a page says.

    A text of spaces alone is shown with a sign for each: a name of spaces could not be clicked.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if value.isspace():
        return BLANK * len(value)
    if value.isascii() and value.isprintable():
        return value
    return "".join(_shown(character) for character in value)


def capitalize_first(value: str) -> str:
    """The text with a capital first letter; a message of an error starts with a small one."""
    return value[:1].upper() + value[1:]


def labelled(values: Sequence[str]) -> list[tuple[str, str]]:
    """Options for a list of words: each with a label that has spaces and a capital letter."""
    return [(value, capitalize_first(value.replace("_", " "))) for value in values]


def chart_summary(columns: Sequence[tuple[str, int, int]], bucket: str) -> str:
    """What the columns of a chart show, in a sentence."""
    reads, denied = sum(column[1] for column in columns), sum(column[2] for column in columns)
    if not reads and not denied:
        return "none"
    most = max(column[1] for column in columns)
    return f"{reads:,}, at most {most:,} in one {bucket}, and {denied:,} denied"


def chart_most(columns: Sequence[tuple[str, int, int]]) -> int:
    """The height of a chart's highest column, at least 1."""
    return max([1, *(number + denied for _, number, denied in columns)])


def exact(value: str) -> Markup:
    """Escaped, but otherwise as it is: for a text field, which sends it back."""
    return escape(value)


def _shown(character: str) -> str:
    return f"\\u{ord(character):04x}" if character not in "\n\t" and is_hidden(character) else character


@functools.cache
def environment() -> Environment:
    """Jinja2 with this package's templates. A process compiles each of them once, when a page first needs it."""
    made = Environment(
        loader=PackageLoader("vault.dashboard"),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.filters.update(when=when, span=span, plural=plural, exact=exact, capitalize_first=capitalize_first)
    made.filters.update(labelled=labelled, chart_summary=chart_summary, chart_most=chart_most, parts=parts)
    made.filters.update(interval=interval)
    made.globals["static"] = f"/dashboard/static/{DIGEST}"
    made.globals["MAX_CHOICES"] = MAX_CHOICES
    return made
