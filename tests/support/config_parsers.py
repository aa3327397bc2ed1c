"""What other programs read their settings with: JSON with comments and trailing commas, TOML, YAML."""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

import yaml

toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def jsonc_loads(text: str) -> Any:
    """JSON without its comments and trailing commas, read by the standard library."""
    kept = re.compile(r'("(?:\\.|[^"\\])*")|//[^\r\n]*|/\*.*?\*/', re.DOTALL).sub(lambda found: found[1] or " ", text)
    kept = re.sub(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', lambda found: found[1] or "", kept)
    return json.loads(kept)


class Yaml(yaml.SafeLoader):
    """Without the type that YAML 1.1 gives a lone equals sign, which PyYAML knows and cannot make."""


Yaml.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: str(node.value))


def yaml_loads(text: str) -> Any:
    """By PyYAML."""
    return yaml.load(text, Yaml)  # noqa: S506 (it is a safe one)
