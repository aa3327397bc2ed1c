"""Golden files (the schema and requests of each action, the `tools/list` answer) and the generated documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sikkerkey_mcp import TOOLS
from tests.support.harness import ROOT
from tests.support.table_calls import ROWS
from tools import docs, golden

FILES = golden.golden_files()


def test_golden_files_match_the_table() -> None:
    assert golden.differences(golden.DIRECTORY, FILES) == [], "`make golden` rewrites these files"


def test_each_action_and_the_listing_have_a_golden_file() -> None:
    assert sorted(FILES) == sorted([*(f"{row}.json" for row in ROWS), golden.LISTING])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory for golden files."""
    directory = tmp_path / "golden"
    directory.mkdir()
    return directory


def test_check_reports_missing_changed_and_leftover_files(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_writing_restores_missing_changed_and_leftover_files(directory: Path) -> None:
    (directory / "manage_sdks.get.json").write_text("{}\n")
    (directory / "manage_sdks.put.json").write_text("{}\n")
    assert golden.main([], directory) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()} == FILES


README = """\
# Name

<!-- tools:begin -->
old tools
<!-- tools:end -->

The rest.
"""


def test_generated_pages_are_up_to_date_after_writing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    assert docs.main(["--check"], tmp_path) == 1
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    fresh = README.replace("old tools", docs.tool_list())
    assert (tmp_path / "README.md").read_text() == fresh


def test_check_names_a_page_that_is_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs.main([], tmp_path)
    page = tmp_path / "docs" / "actions.md"
    page.write_text(page.read_text(encoding="utf-8") + "More.\n", encoding="utf-8")
    assert docs.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "docs: docs/actions.md is out of date: run `make docs`\n"


def test_text_without_markers_is_unchanged() -> None:
    assert docs.between("tools", "# Name\n", "new") == "# Name\n"


def test_actions_page_lists_every_tool_action_and_argument() -> None:
    sections = docs.actions_page().split("\n## ")[1:]
    pages = {section.split("\n")[0]: section for section in sections}
    missing = [
        f"{row}: {name}"
        for row in ROWS
        for name in [row.action.name, *(arg.name for arg in row.action.args)]
        if f"| `{name}` |" not in pages[row.tool.name]
    ]
    assert missing == []


def test_action_without_a_recorded_example_says_how_to_record_it() -> None:
    tool = TOOLS[0]
    recorded = {f"{tool.name}.{action.name}": {"arguments": {}, "answer": "an answer"} for action in tool.actions}
    assert docs.NOT_RECORDED not in docs.examples(tool, recorded)
    assert f"{tool.actions[0].name}: {docs.NOT_RECORDED}" in docs.examples(tool, {})


def test_no_page_counts_tools_or_actions_by_hand() -> None:
    count = re.compile(rf"\b({len(TOOLS)} tools|{len(ROWS)} actions)\b")
    pages = [
        *ROOT.glob("*.md"),
        *(path for path in (ROOT / "docs").glob("*.md") if path.name not in ("actions.md", "tested-clients.md")),
    ]
    for page in pages:
        by_hand = re.sub(
            r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        assert count.findall(by_hand) == [], page.name
