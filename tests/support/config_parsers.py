"""Parsers of settings files, to compare with: JSON with comments and trailing commas, TOML, YAML."""

from __future__ import annotations

import importlib
import json
import re
from importlib.util import find_spec
from typing import Any

import yaml

# tomli reads TOML 1.1, and tomllib does from Python 3.15 on.
toml: Any = importlib.import_module("tomli" if find_spec("tomli") else "tomllib")


def reads_toml_1_1() -> bool:
    """Whether `toml` knows times without seconds, inline tables over several lines, and `\\e`."""
    try:
        toml.loads('a = { b = 07:32,\n c = "\\e" }\n')
    except ValueError:
        return False
    return True


def jsonc_loads(text: str) -> Any:
    """Removes comments and trailing commas, and parses the rest as JSON."""
    kept = re.compile(r'("(?:\\.|[^"\\])*")|//[^\r\n]*|/\*.*?\*/', re.DOTALL).sub(lambda found: found[1] or " ", text)
    kept = re.sub(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', lambda found: found[1] or "", kept)
    return json.loads(kept)


class Yaml(yaml.SafeLoader):
    """Reads a lone equals sign as text; PyYAML resolves it to a YAML 1.1 type that it cannot construct."""


Yaml.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: str(node.value))


def yaml_loads(text: str) -> Any:
    """Parses YAML with PyYAML."""
    return yaml.load(text, Yaml)  # noqa: S506 (a subclass of SafeLoader)
