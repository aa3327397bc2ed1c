"""The structure of the code: imports form a tree, sections keep to what they may use, functions are short."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Set
from pathlib import Path

import pytest

import sikkerkey_mcp
from tests.support.harness import ROOT
from tests.support.table_calls import for_each

SOURCES = [ROOT / f"sikkerkey_{name}.py" for name in ("core", "actions", "results", "mcp")]
BANNER = re.compile(r"^# -{100,}\n# ([A-Za-z ]+): ", re.MULTILINE)

CLOCK, RANDOMNESS, THREADS = {"time"}, {"os.urandom", "random"}, {"threading"}
NETWORK = {"urllib", "http", "socket", "ssl", "sikkerkey_tls", "sikkerkey_http"}
FILES = {"open", "os.open", "os.path", "os.lstat", "os.unlink", "os.environ"}
MAY_NOT_USE = {
    "text and JSON": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "actions": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "requests": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "signing": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "vault API": {"TOOLS", "Action", "Session", "print"},
    "results": RANDOMNESS | NETWORK | FILES | THREADS,
    "restrictions": CLOCK | RANDOMNESS | NETWORK | THREADS,
    "resources": RANDOMNESS | NETWORK | FILES | THREADS,
    "protocol": CLOCK | RANDOMNESS | NETWORK | FILES | {"threading.Thread", "os", "print", "TOOLS", "VaultTools"},
    "stdio": NETWORK | {"TOOLS", "VaultTools", "Api"},
}
MODULES_MAY_NOT_USE = {
    "sikkerkey_address": CLOCK | RANDOMNESS | THREADS | {"open", "http", "socket", "ssl", "sikkerkey_tls"},
    "sikkerkey_identity": CLOCK | RANDOMNESS | NETWORK | THREADS | {"cryptography", "hashlib", "sikkerkey_keys"},
    "sikkerkey_keys": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "sikkerkey_rules": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS | {"TOOLS"},
    "sikkerkey_refusals": RANDOMNESS | NETWORK | FILES | THREADS | {"TOOLS"},
}


@functools.cache
def sections(*paths: Path) -> dict[str, ast.Module]:
    """The syntax tree of each section, by the name in its banner."""
    found = {}
    for path in paths or SOURCES:
        source = path.read_text(encoding="utf-8")
        starts = [(match.start(), match[1]) for match in BANNER.finditer(source)]
        ends = [start for start, _ in starts[1:]] + [len(source)]
        found.update({name: ast.parse(source[start:end]) for (start, name), end in zip(starts, ends)})
    return found


@functools.cache
def nodes_in(tree: ast.AST) -> list[ast.AST]:
    """Every node of a tree; walking all programs for each test would take seconds."""
    return [*ast.walk(tree)]


def dotted(node: ast.AST) -> str:
    """`os.path.join` for the nodes that spell it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_used(tree: ast.Module) -> set[str]:
    """Every name that code (not annotations) uses or imports, with each of its beginnings: os, os.path, ..."""
    annotations = {
        id(inner)
        for node in nodes_in(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.AST)
        for inner in ast.walk(annotation)
    }
    found = {dotted(node) for node in nodes_in(tree) if id(node) not in annotations}
    found |= {alias.name for node in nodes_in(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes_in(tree) if isinstance(node, ast.ImportFrom)}
    return {".".join(name.split(".")[: length + 1]) for name in found for length in range(name.count(".") + 1)}


def test_sections_stand_in_the_order_that_the_docstring_gives() -> None:
    listed = re.findall(r"^    ([a-zA-Z ]+?)  +\S", sikkerkey_mcp.__doc__ or "", re.MULTILINE)
    assert list(sections(SOURCES[-1])) == listed


@pytest.mark.parametrize("section", MAY_NOT_USE)
def test_section_uses_no_forbidden_name(section: str) -> None:
    assert names_used(sections()[section]) & MAY_NOT_USE[section] == set()


@pytest.mark.parametrize("module", MODULES_MAY_NOT_USE)
def test_module_uses_no_forbidden_name(module: str) -> None:
    assert names_used(tree_of(ROOT / f"{module}.py")) & MODULES_MAY_NOT_USE[module] == set()


def test_the_check_of_promises_finds_a_broken_one() -> None:
    broken = ast.parse("import os.path\nfrom time import sleep\nos.environ['x']\nthreading.Thread()")
    assert names_used(broken) >= {"os.path", "time", "os.environ", "threading.Thread"}


def test_derived_code_names_no_tool_and_no_action() -> None:
    names = {tool.name for tool in sikkerkey_mcp.TOOLS} | {
        action.name for tool in sikkerkey_mcp.TOOLS for action in tool.actions
    }
    tree = sections()["requests"]
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert names & texts == set()


PACKAGES = ("bundle", "runtime", "sikkerkey_cli", "tools", "vault", "bench")


def programs() -> list[Path]:
    """Every file of the product and its tools."""
    return sorted([*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path: Path, names: Set[str]) -> set[str]:
    """Those of `names` that a file imports, anywhere in it, also for annotations only."""
    found = set()
    for node in nodes_in(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return (found & names) - {module_name(path)}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none if imports form a tree."""
    remaining = {name: set(imported) for name, imported in graph.items()}
    while leaves := [name for name, imported in remaining.items() if not imported & remaining.keys()]:
        for name in leaves:
            del remaining[name]
    return sorted(remaining)


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Each module of the product with the modules of the product that it imports."""
    names = {module_name(path) for path in programs()}
    return {module_name(path): imports_of(path, names) for path in programs()}


def test_imports_form_a_tree() -> None:
    assert circle_in(import_graph()) == []


def test_a_circle_of_imports_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_the_server_imports_nothing_above_it() -> None:
    graph = import_graph()
    below = {name for name in graph if name.startswith("sikkerkey_") and "." not in name} - {"sikkerkey_mcp"}
    below -= {"sikkerkey_cli"}
    assert graph["sikkerkey_mcp"] <= below
    assert all(graph[name] <= below for name in below)


def test_no_private_module_of_python_is_imported() -> None:
    allowed = {"_cffi_backend"}  # runtime/ provides a module of that name
    for path in programs():
        tree = tree_of(path)
        imported = {alias.name for node in nodes_in(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in nodes_in(tree) if isinstance(node, ast.ImportFrom)}
        private = {name for name in imported if name.startswith("_") and not name.startswith("__")}
        assert private <= allowed, path


@for_each(programs())
def test_functions_are_short(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in nodes_in(tree_of(path)) if isinstance(node, kinds)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


EVALUATING = {"eval", "exec", "compile", "__import__"}
UNPICKLING = {"pickle", "shelve", "dill", "marshal"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def dangerous(tree: ast.Module) -> set[str]:
    """What the code evaluates, unpickles or hands to a shell."""
    calls = [node for node in nodes_in(tree) if isinstance(node, ast.Call)]
    called = {name for call in calls if (name := dotted(call.func).replace("builtins.", ""))}
    froms = [node for node in nodes_in(tree) if isinstance(node, ast.ImportFrom)]
    called |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    shell = {f"{keyword.arg}=" for call in calls for keyword in call.keywords if keyword.arg == "shell"}
    return ((called | names_used(tree)) & (EVALUATING | UNPICKLING | SHELLS)) | shell


@for_each(programs())
def test_nothing_evaluates_unpickles_or_starts_a_shell(path: Path) -> None:
    """ruff's S102, S301, S302, S307, S602 to S606 say so too; a `noqa` cannot switch this one off."""
    assert dangerous(tree_of(path)) == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("eval('1')", {"eval"}),
        ("import builtins\nbuiltins.exec('1')", {"exec"}),
        ("run = exec", {"exec"}),
        ("from pickle import loads", {"pickle"}),
        ("import subprocess\nsubprocess.run('ls', shell=True)", {"shell="}),
        ("import os\nos.popen('ls')", {"os.popen"}),
        ("from os import system as run", {"os.system"}),
        ("re.compile('x')\nself.eval()\nsubprocess.run(['ls'])", set()),
    ],
)
def test_the_check_of_dangerous_calls_finds_them(code: str, found: set[str]) -> None:
    assert dangerous(ast.parse(code)) == found


def test_the_server_does_not_import_the_vault() -> None:
    for name, imported in import_graph().items():
        if name.startswith("sikkerkey_"):
            assert not any(other.startswith("vault") for other in imported), name


def test_the_vault_does_not_import_the_server() -> None:
    for name, imported in import_graph().items():
        if name.startswith("vault"):
            assert not any(other.startswith("sikkerkey_") for other in imported), name


def test_an_installation_with_pip_has_every_module() -> None:
    modules = re.search(r"py-modules = \[\n(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    assert modules
    assert re.findall('"(.*)"', modules[1]) == sorted(path.stem for path in ROOT.glob("sikkerkey_*.py"))
