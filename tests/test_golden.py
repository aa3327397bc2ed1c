"""Golden files: what each action shows to a model and sends to the vault, and the whole of `tools/list`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.table_calls import ROWS
from tools import docs, golden

FILES = golden.golden_files()


@pytest.mark.parametrize("name", FILES)
def test_golden_file_is_in_step_with_the_table(name: str) -> None:
    path = golden.DIRECTORY / name
    assert path.read_text(encoding="utf-8") == FILES[name], "`make golden` rewrites it"


def test_there_is_a_golden_file_for_each_action_one_for_the_listing_and_no_other() -> None:
    wanted = [*(f"{row}.json" for row in ROWS), golden.LISTING]
    assert sorted(path.name for path in golden.DIRECTORY.iterdir()) == sorted(wanted)
    assert len(wanted) == 107


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory for golden files."""
    directory = tmp_path / "golden"
    directory.mkdir()
    return directory


def test_check_finds_what_is_missing_changed_and_left_over(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert golden.main([], directory) == 0
    assert golden.main(["--check"], directory) == 0
    (directory / "whoami.whoami.json").unlink()
    (directory / "manage_sdks.get.json").write_text("{}\n")
    (directory / "manage_sdks.put.json").write_text("{}\n")
    assert golden.main(["--check"], directory) == 1
    assert capsys.readouterr().err.splitlines()[:-1] == [
        "golden: whoami.whoami.json is missing",
        "golden: manage_sdks.get.json differs",
        "golden: manage_sdks.put.json belongs to no action",
    ]


def test_writing_mends_what_is_missing_changed_and_left_over(directory: Path) -> None:
    (directory / "manage_sdks.get.json").write_text("{}\n")
    (directory / "manage_sdks.put.json").write_text("{}\n")
    assert golden.main([], directory) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()} == FILES


README = """\
# Name

<!-- tools:begin -->
old tools
<!-- tools:end -->

<!-- clients:begin -->
old clients
<!-- clients:end -->

The rest.
"""


def test_generated_pages_are_written_once_and_then_in_step(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    assert docs.main(["--check"], tmp_path) == 1
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    fresh = README.replace("old tools", docs.tool_list()).replace("old clients", docs.client_list())
    assert (tmp_path / "README.md").read_text() == fresh


def test_page_that_is_out_of_step_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs.main([], tmp_path)
    page = tmp_path / "docs" / "actions.md"
    page.write_text(page.read_text(encoding="utf-8") + "More.\n", encoding="utf-8")
    assert docs.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "docs: docs/actions.md is out of step: `make docs` rewrites it\n"


def test_readme_without_markers_is_left_alone() -> None:
    assert docs.between("tools", "# Name\n", "new") == "# Name\n"


def test_page_of_actions_names_every_tool_action_and_argument() -> None:
    sections = docs.actions_page().split("\n## ")[1:]
    pages = {section.split("\n")[0]: section for section in sections}
    missing = [
        f"{row}: {name}"
        for row in ROWS
        for name in [row.action.name, *(arg.name for arg in row.action.args)]
        if f"| `{name}` |" not in pages[row.tool.name]
    ]
    assert missing == []
