"""docs/troubleshooting.md quotes the program: every message in its tables is one that the program can say."""

from __future__ import annotations

import ast
import re

from tests.support.harness import ROOT

STATUS = re.compile(r"(?<=the vault answered )\d{3}$")


def said() -> str:
    """Every text of the program, holes as {}."""
    files = [*ROOT.glob("sikkerkey_*.py"), *ROOT.glob("sikkerkey_cli/**/*.py"), *(ROOT / "runtime").glob("*.py")]
    return "\n".join(text for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8"))))


def _texts(tree: ast.AST) -> list[str]:
    nodes = list(ast.walk(tree))
    plain = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return plain + ["".join(map(_part, node.values)) for node in nodes if isinstance(node, ast.JoinedStr)]


def _part(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "{}"


def test_every_quoted_message_is_the_programs_own() -> None:
    rows = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    first_cells = [row.split("|")[1] for row in rows if row.startswith("| ")]
    quoted = [STATUS.sub("{}", message) for cell in first_cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(quoted) > 25
    known = said()
    assert [message for message in quoted if message not in known] == []
