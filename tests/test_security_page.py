"""docs/security.md links promises and weaknesses to tests: these tests exist and have the marks that it claims."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.harness import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"\[(test_\w+)\]\(([^)]+)\)")
WEAKNESSES = range(1, 17)


@functools.cache
def functions_of(path: Path) -> dict[str, set[int]]:
    """Maps each test function of a file to the weaknesses in its `peer` marks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: marks(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def marks(test: ast.FunctionDef) -> set[int]:
    """The numbers n of the `@pytest.mark.peer(n)` decorators."""
    calls = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    return {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "pytest.mark.peer"}


def weakness_rows() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The numbered rows of the page: the number, and the linked tests with their files."""
    for number, rest in re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE):
        yield int(number), LINK.findall(rest)


def test_every_linked_test_exists() -> None:
    found = [(page, name, link) for page in PAGES for name, link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(found) > 60
    missing = [(name, link) for page, name, link in found if name not in functions_of((page.parent / link).resolve())]
    assert missing == []


def test_every_linked_file_exists() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_every_promise_links_to_a_test() -> None:
    promised = PAGE.split("## Promises")[1].split("\n## ")[0]
    promises = [line for line in promised.splitlines() if line.startswith("| ")][1:]
    assert len(promises) > 15
    assert [line for line in promises if not LINK.search(line)] == []


def test_every_weakness_links_to_tests_with_its_mark() -> None:
    table = dict(weakness_rows())
    assert list(table) == list(WEAKNESSES)
    for number, linked in table.items():
        assert linked, number
        unmarked = [name for name, link in linked if number not in functions_of((ROOT / "docs" / link).resolve())[name]]
        assert unmarked == [], number


def test_marks_are_read_from_decorators() -> None:
    marked = ast.parse("@pytest.mark.peer(3)\n@pytest.mark.parametrize('x', [1])\ndef test_x(): pass").body[0]
    bare = ast.parse("@pytest.mark.skip\ndef test_y(): pass").body[0]
    assert isinstance(marked, ast.FunctionDef)
    assert isinstance(bare, ast.FunctionDef)
    assert (marks(marked), marks(bare)) == ({3}, set())
