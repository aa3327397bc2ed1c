"""Text that is safe to print on a terminal, and the program's own name.

Names come from clients and may contain escape sequences, which a terminal would execute.
"""

from __future__ import annotations

import os
import shlex
import sys
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Control, format (bidi overrides, zero width), surrogate, private and unassigned; line and paragraph separators.
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# Letters, marks and symbols that draw nothing: joiners, fillers, the empty Braille cell, variation selectors.
INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
INVISIBLE |= {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def program() -> str:
    """The command that was started: the module, or the archive by the path that was typed."""
    if "sikkerkey_launch" not in sys.modules:
        return "python -m vault"
    return shlex.join([os.path.basename(sys.executable), sys.argv[0]])


PROGRAM = program()


def printable(text: str) -> str:
    """The text with control characters and invisible characters replaced by a visible mark."""
    return "".join(_visible(character) for character in text)


def is_hidden(character: str) -> bool:
    """Whether a character draws nothing, or controls how others are drawn."""
    return unicodedata.category(character) in UNSAFE_CATEGORIES or ord(character) in INVISIBLE


def _visible(character: str) -> str:
    if is_hidden(character):
        return REPLACEMENT
    return " " if unicodedata.category(character) == "Zs" else character
