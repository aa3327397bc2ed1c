"""Edits one member of another program's settings file (JSON with comments, TOML or YAML) by changing the smallest span.

For each format, `FORMATS` has functions that read the whole text as plain values, set or remove the member at a path,
and locate it. Everything outside the changed span stays byte for byte. A text that is malformed or ambiguous is refused
with its line and column: TextError. Nothing here knows files, MCP clients or the vault.

Why not a library? The program is one file whose only dependencies at run time are cryptography and certifi, and three
formats need three libraries. For JSON with comments, Python has none that keeps the text. ruamel.yaml writes the whole
text again, and changes indentation, quotes and line breaks of other entries. tomlkit does keep the text, but one of the
clients uses TOML. The tests compare our changes with those that these two make, for generated files.
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
