"""The structure of the vault's code: what may import what. That imports form a tree is in tests/test_structure.py."""

from __future__ import annotations

import ast
import functools

from tests.vault.support.served_vault import ROOT

PATHS = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "vault").rglob("*.py")}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module of the vault."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def imports(tree: ast.Module) -> set[str]:
    """The modules of the vault that a module imports, anywhere in its code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & set(PATHS)


@functools.cache
def all_imports() -> dict[str, set[str]]:
    return {name: imports(tree) for name, tree in trees().items()}


def test_only_the_entry_point_imports_the_owners_commands() -> None:
    users = {name for name, found in all_imports().items() if any(each.startswith("vault.owner.") for each in found)}
    assert {name for name in users if not name.startswith("vault.owner.")} == {"vault.__main__"}


def test_domains_import_neither_the_schema_nor_what_uses_it() -> None:
    above = {"vault.app", "vault.control", "vault.gate", "vault.jobs", "vault.schema", "vault.server", "vault.store"}
    above |= {name for name in all_imports() if name.startswith(("vault.dashboard.", "vault.desk", "vault.owner."))}
    for name, found in all_imports().items():
        assert not (name.startswith("vault.domains.") and found & above), name


def test_every_import_is_at_the_top_of_its_module() -> None:
    """Except that only commands that need the server load uvicorn, and that the entry point waits for Ctrl-C."""
    allowed = {
        "vault.owner.commands_vault": {"from vault import server", "from vault.owner import dev"},
        "vault.__main__": {"from vault.owner.cli import main"},
    }
    for name, tree in trees().items():
        imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        nested = {ast.unparse(node) for node in imported if node not in tree.body}
        assert nested == allowed.get(name, set()), name


def test_every_domain_is_listed_in_the_schema() -> None:
    domains = {name for name, tree in trees().items() if name.startswith("vault.domains.") and "ROUTES" in names(tree)}
    assert domains == {name for name in all_imports()["vault.schema"] if name.startswith("vault.domains.")}


def names(tree: ast.Module) -> set[str]:
    """The names that a module assigns at its top level."""
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}
