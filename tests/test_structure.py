"""The structure of the modules: their sections, what each of them may not use, and how long functions may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sikkerkey_mcp
from tests.support.harness import ROOT
from tests.support.table_calls import for_each

SOURCE = (ROOT / "sikkerkey_mcp.py").read_text(encoding="utf-8")
ANSWERS, WIRE = (ast.parse((ROOT / f"sikkerkey_{name}.py").read_text(encoding="utf-8")) for name in ("answers", "wire"))
BANNER = re.compile(r"^# -{100,}\n# ([a-z ]+): ", re.MULTILINE)

CLOCK, RANDOMNESS, THREADS = {"time"}, {"os.urandom", "random"}, {"threading"}
NETWORK = {"urllib", "http", "socket", "ssl"}
FILES = {"open", "os.open", "os.path", "os.lstat", "os.unlink", "os.environ"}
MAY_NOT_KNOW = {
    "json": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "actions": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "what a row yields": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "identity": CLOCK | RANDOMNESS | NETWORK | THREADS,
    "signing": CLOCK | RANDOMNESS | NETWORK | FILES | THREADS,
    "http": {"TOOLS", "Action", "Session", "print"},
    "protocol": CLOCK | RANDOMNESS | NETWORK | FILES | {"threading.Thread", "os", "print", "TOOLS", "VaultTools"},
    "stdio": NETWORK | {"TOOLS", "VaultTools", "Api"},
}


def sections() -> dict[str, ast.Module]:
    """The syntax tree of each section, by the name in its banner."""
    starts = [(match.start(), match[1]) for match in BANNER.finditer(SOURCE)]
    ends = [start for start, _ in starts[1:]] + [len(SOURCE)]
    return {name: ast.parse(SOURCE[start:end]) for (start, name), end in zip(starts, ends)}


def dotted(node: ast.AST) -> str:
    """`os.path.join` for the nodes that spell it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_used(tree: ast.Module) -> set[str]:
    """Every name that code (not annotations) uses or imports, with each of its beginnings: os, os.path, ..."""
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.AST)
        for inner in ast.walk(annotation)
    }
    found = {dotted(node) for node in ast.walk(tree) if id(node) not in annotations}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {".".join(name.split(".")[: length + 1]) for name in found for length in range(name.count(".") + 1)}


def test_sections_stand_in_the_order_that_the_docstring_gives() -> None:
    listed = re.findall(r"^    ([a-z ]+?)  +\S", sikkerkey_mcp.__doc__ or "", re.MULTILINE)
    assert list(sections()) == listed


@pytest.mark.parametrize("section", MAY_NOT_KNOW)
def test_section_uses_no_forbidden_name(section: str) -> None:
    assert names_used(sections()[section]) & MAY_NOT_KNOW[section] == set()


def test_what_makes_answers_knows_no_network_and_no_file() -> None:
    assert names_used(ANSWERS) & (RANDOMNESS | {"http", "socket", "urllib.request"} | FILES | THREADS) == set()


def test_what_opens_connections_knows_no_tool_and_no_protocol() -> None:
    assert names_used(WIRE) & {"mcp.TOOLS", "mcp.Action", "mcp.Session", "print", "Action", "Session"} == set()


def test_the_check_of_promises_finds_a_broken_one() -> None:
    broken = ast.parse("import os.path\nfrom time import sleep\nos.environ['x']\nthreading.Thread()")
    assert names_used(broken) >= {"os.path", "time", "os.environ", "threading.Thread"}


def test_derived_code_names_no_tool_and_no_action() -> None:
    names = {tool.name for tool in sikkerkey_mcp.TOOLS} | {
        action.name for tool in sikkerkey_mcp.TOOLS for action in tool.actions
    }
    tree = sections()["what a row yields"]
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert names & texts == set()


ROOMS = ("bundle", "runtime", "runtime/python", "vault")


def programs() -> list[Path]:
    """Every file of the product."""
    return sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))])


@for_each(programs())
def test_functions_are_short(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


EVALUATING = {"eval", "exec", "compile", "__import__"}
UNPICKLING = {"pickle", "shelve", "dill", "marshal"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def dangerous(tree: ast.Module) -> set[str]:
    """What the code evaluates, unpickles or hands to a shell."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {name for call in calls if (name := dotted(call.func).replace("builtins.", ""))}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    called |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    shell = {f"{keyword.arg}=" for call in calls for keyword in call.keywords if keyword.arg == "shell"}
    return ((called | names_used(tree)) & (EVALUATING | UNPICKLING | SHELLS)) | shell


@for_each(programs())
def test_nothing_evaluates_unpickles_or_starts_a_shell(path: Path) -> None:
    """ruff's S102, S301, S302, S307, S602 to S606 say so too; a `noqa` cannot switch this one off."""
    assert dangerous(ast.parse(path.read_text(encoding="utf-8"))) == set()


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
    for path in ROOT.glob("sikkerkey_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not any(used.split(".")[0] == "vault" for used in names_used(tree))


def test_the_vault_does_not_import_the_server() -> None:
    for path in (ROOT / "vault").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not any(used.startswith("sikkerkey_") for used in names_used(tree))
