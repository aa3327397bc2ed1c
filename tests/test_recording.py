"""docs/recording.svg, the README's picture: well-formed, small, and without traces of the machine that drew it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.support.harness import ROOT
from tools import recording

PICTURE = (ROOT / "docs" / "recording.svg").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def visible_lines(picture: str) -> list[str]:
    """The lines of text in a picture."""
    return ["".join(line.itertext()) for line in ElementTree.fromstring(picture).iter(f"{SVG}text")]  # noqa: S314 (written by `make recording`)


def test_picture_is_small_and_shows_every_command_but_no_real_path() -> None:
    assert len(PICTURE.encode()) < 100_000
    lines = visible_lines(PICTURE)
    typed = [line.split()[3] for line in lines if line.startswith(f"$ {recording.PROGRAM} ")]
    assert typed == ["fill", "call", "install", "config", "config", "doctor", "tools", "call"]
    assert max(map(len, lines)) <= recording.COLUMNS
    paths = set(re.findall(r"(?<![\w.:/@-])/[\w.-]+(?:/[\w.-]+)?", "\n".join(lines)))
    assert paths == {"/home/me", "/usr/bin", "/dev/null"}


def test_conversation_comes_first_and_never_holds_the_value() -> None:
    lines = visible_lines(PICTURE)
    assert lines[0].startswith("you: ")
    text = "\n".join(lines)
    assert "correct-horse" not in text
    assert "No action reads a value." in text
    assert re.search(r'"status":"done".*"a person typed the value', text)


def test_details_that_differ_between_runs_are_replaced() -> None:
    line = "sk_abcdefgh12345678 and sk_qqqqqqqqqqqqqqqq, http://127.0.0.1:41234 in 17 ms, 1 s ahead of the vault's"
    workspace = recording.Workspace.__new__(recording.Workspace)
    workspace._directory, workspace.home, workspace._numbers, workspace.code = ROOT, ROOT / "home", {}, ""
    assert workspace.normalize(f"{ROOT}/home/x {line}") == (
        "/home/me/x sk_0000000000000001 and sk_0000000000000002, http://127.0.0.1:8300 in 2 ms, the same as the vault's"
    )


def test_lines_keep_their_colours_and_are_wrapped() -> None:
    words = "word " * 30
    drawn = recording.draw_picture([[["$ a <b>", f"\033[32mok\033[0m    tools       {words}"]], [["# next"]]])
    lines = visible_lines(drawn)
    assert lines[0] == "$ a <b>"
    assert [line[:18] for line in lines[1:]] == ["ok    tools       ", " " * 18, "# next"]
    assert '<tspan class="good">ok</tspan>    tools' in drawn
    assert re.findall(r' y="(\d+)"', drawn) == ["30", "49", "68", "30"]
