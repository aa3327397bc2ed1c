"""Edits one member of another program's settings file (JSON with comments, TOML or YAML) by changing the smallest span.

For each format, `FORMATS` has functions that read the whole text as plain values, set or remove the member at a path,
and locate it. Everything outside the changed span stays byte for byte. A text that is malformed or ambiguous is refused
with its line and column: TextError. Nothing here knows files, MCP clients or the vault.

These parsers exist because the standard library has none for YAML or JSON with comments, has one for TOML only from
Python 3.11 on, and none of the usual parsers reports where in the text a value stands.
"""

from sikkerkey_cli.edit.jsonc import JSON
from sikkerkey_cli.edit.text import (
    DEPTH_MAX,
    Format,
    Item,
    Path,
    Raw,
    TextError,
    line_start,
    without_value_at,
)
from sikkerkey_cli.edit.toml import TOML
from sikkerkey_cli.edit.yaml import YAML

__all__ = [
    "DEPTH_MAX",
    "FORMATS",
    "JSON",
    "TOML",
    "YAML",
    "Format",
    "Item",
    "Path",
    "Raw",
    "TextError",
    "line_start",
    "without_value_at",
]

FORMATS = {"json": JSON, "toml": TOML, "yaml": YAML}
