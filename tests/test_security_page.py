"""docs/security.md says which tests hold what: they exist, and the sixteen weaknesses are marked where it says."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"\[(test_\w+)\]\(([^)]+)\)")
WEAKNESSES = range(1, 17)


@functools.cache
def functions_of(path: Path) -> dict[str, set[int]]:
    """The tests of a file, with the weaknesses that they are marked with."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: marks(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def marks(test: ast.FunctionDef) -> set[int]:
    """n of each `@pytest.mark.peer(n)`."""
    calls = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    return {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "pytest.mark.peer"}


def rows() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The numbered rows of the page: the number, and the tests with their files."""
    for number, rest in re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE):
        yield int(number), LINK.findall(rest)


def test_every_test_that_is_linked_exists() -> None:
    found = [(page, name, link) for page in PAGES for name, link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(found) > 60
    missing = [(name, link) for page, name, link in found if name not in functions_of(page.parent / link)]
    assert missing == []


def test_every_file_that_is_linked_exists() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_every_promise_names_its_tests() -> None:
    promised = PAGE.split("## What is promised")[1].split("\n## ")[0]
    promises = [line for line in promised.splitlines() if line.startswith("| ")][1:]
    assert len(promises) > 15
    assert [line for line in promises if not LINK.search(line)] == []


def test_every_weakness_has_a_row_with_tests_that_are_marked_with_it() -> None:
    table = dict(rows())
    assert list(table) == list(WEAKNESSES)
    for number, linked in table.items():
        assert linked, number
        unmarked = [name for name, link in linked if number not in functions_of(ROOT / "docs" / link)[name]]
        assert unmarked == [], number


@pytest.mark.parametrize("number", WEAKNESSES)
def test_every_weakness_is_guarded_by_a_test(number: int) -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert [name for path in files for name, marked in functions_of(path).items() if number in marked]


def test_a_mark_is_seen_and_a_missing_one_noticed() -> None:
    marked = ast.parse("@pytest.mark.peer(3)\n@pytest.mark.parametrize('x', [1])\ndef test_x(): pass").body[0]
    bare = ast.parse("@pytest.mark.skip\ndef test_y(): pass").body[0]
    assert isinstance(marked, ast.FunctionDef)
    assert isinstance(bare, ast.FunctionDef)
    assert (marks(marked), marks(bare)) == ({3}, set())
