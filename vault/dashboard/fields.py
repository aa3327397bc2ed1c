"""What pages read from the query string and from forms, where everything is text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from vault.dashboard.templating import visible
from vault.dashboard.web import Visit
from vault.errors import Refusal

MAX_PAGE = 1_000_000
UNITS_S = {"minutes": 60, "hours": 3_600, "days": 86_400}


def page_number(visit: Visit, name: str = "page") -> int:
    """The page of a list that the query names, or 1."""
    given = visit.query(name, "1")
    return min(int(given), MAX_PAGE) if is_number(given) and int(given) else 1


def is_ticked(visit: Visit, name: str) -> bool:
    """Whether a checkbox is ticked."""
    return bool(visit.field(name))


def integer(visit: Visit, name: str, label: str) -> int | None:
    """A whole number, or None if the field is empty. Raises Refusal, which names the field by its label."""
    given = visit.field(name).strip()
    if given and not is_number(given):
        raise Refusal(400, f"{label} must be a whole number")
    return int(given) if given else None


def is_same_name(typed: str, name: str) -> bool:
    """Whether somebody typed a name, as it is or as pages show it: hidden characters cannot be typed."""
    return typed in (name, visible(name))


def with_labels(refusal: Refusal, labels: Mapping[str, str]) -> Refusal:
    """A refusal of the API with the labels of a form instead of the keys."""
    keys = re.compile(rf"\b({'|'.join(labels)})\b")
    return Refusal(refusal.status, keys.sub(lambda found: labels[found[0]], str(refusal)))


def lines(visit: Visit, name: str) -> list[str]:
    """The lines of a text field without those that are empty, trimmed."""
    return [line.strip() for line in visit.field(name).splitlines() if line.strip()]


def values_in(visit: Visit, labels: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The values of masked fields by their names, and a remark for the message that follows.

    White space at the ends comes from copying, most of the time, so it is removed unless the box `keep` is ticked.
    """
    typed = {name: visit.field(name) for name in labels}
    if is_ticked(visit, "keep"):
        return typed, ""
    trimmed = {name: value.strip() for name, value in typed.items()}
    changed = [labels[name] for name in labels if trimmed[name] != typed[name] and trimmed[name]]
    return trimmed, f" White space at the ends of {' and '.join(changed)} was removed." if changed else ""


def state_of(*parts: object) -> str:
    """What a form is about to replace, in short. The form carries it in its field `was`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def refuse_changed(visit: Visit, state: str, what: str) -> None:
    """Raise Refusal if somebody changed what a form replaces since the form was made, in another tab or as an agent."""
    if visit.field("was", state) != state:
        raise Refusal(409, f"{what} was changed since you opened this page: compare it, then save again")


def is_number(given: str) -> bool:
    """Whether a text is a whole number that fits into the database."""
    return given.isascii() and given.isdigit() and len(given) <= 16
