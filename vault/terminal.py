"""What may be shown on a terminal: names come from clients, and a terminal obeys what it is shown. And our own name."""

from __future__ import annotations

import os
import shlex
import sys
import unicodedata
from collections.abc import Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Control, format (bidi overrides, zero width), surrogate, private, unassigned; line and paragraph separators.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# Letters, marks and symbols that draw nothing, which their category does not tell: joiners, fillers, an empty Braille
# cell, variation selectors.
INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
INVISIBLE |= {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def program() -> str:
    """What was started, for usage and advice: the module, or the archive by the path that was typed."""
    if "sikkerkey_launch" not in sys.modules:
        return "python -m vault"
    return shlex.join([os.path.basename(sys.executable), sys.argv[0]])


PROGRAM = program()


def printable(text: str) -> str:
    """The text with everything that steers or hides replaced by a visible mark."""
    return "".join(_visible(character) for character in text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in UNSAFE_CATEGORIES or ord(character) in INVISIBLE:
        return REPLACEMENT
    return " " if category == "Zs" else character
