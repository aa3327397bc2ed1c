"""What tests look for in the dashboard's pages."""

from __future__ import annotations

import re
from html import unescape

# Ends tags and attributes, writes the rest from right to left, and breaks the line of a script.
HOSTILE = "<script>alert(1)</script>\"'&\u202egnp.\u2028"


def is_harmless(page: str) -> bool:
    """Whether a page shows the hostile name, and only as text."""
    shown = re.sub(r'value="[^"]*"', "", page)
    return "<script>alert" not in page and "\u202e" not in shown and "&lt;script&gt;alert(1)" in shown


def message(page: str) -> str:
    """What a page says about the change that led to it."""
    found = re.search(r'class="message" role="status">(.*?)<', page)
    return unescape(found[1]) if found else ""


def ticked(page: str, name: str) -> set[str]:
    """The values of the checkboxes and radio buttons with this name that are ticked."""
    boxes = re.findall(rf'<input [^>]*type="(?:checkbox|radio)" name="{name}" value="([^"]*)"([^>]*)>', page)
    return {value for value, rest in boxes if " checked" in rest}
