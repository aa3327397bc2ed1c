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


def test_picture_is_small_and_shows_no_real_path() -> None:
    assert len(PICTURE.encode()) < 100_000
    lines = visible_lines(PICTURE)
    assert max(map(len, lines)) <= recording.COLUMNS
    paths = set(re.findall(r"(?<![\w.:/@-])/[\w.-]+(?:/[\w.-]+)?", " ".join(lines)))
    assert paths <= {"/home/me", "/usr", "/bin/python3"}


def test_conversation_comes_first_and_never_holds_the_value() -> None:
    lines = visible_lines(PICTURE)
    assert lines[0].startswith("you: ")
    text = " ".join(lines)
    assert "correct-horse" not in text
    assert "No action reads a value." in text
    assert re.search(r'"status":"done".*"a person typed the value', text)
    assert PICTURE.count("<image ") == 1


def test_the_story_takes_15_seconds_and_is_whole_without_motion() -> None:
    durations = set(re.findall(r"#b\d+\{animation:k\d+ ([\d.]+)s", PICTURE))
    assert durations == {"15"}
    assert "prefers-reduced-motion:reduce" in PICTURE
    assert 'opacity="0"' not in PICTURE


def test_details_that_differ_between_runs_are_replaced() -> None:
    line = "sk_abcdefgh12345678 and sk_qqqqqqqqqqqqqqqq, http://127.0.0.1:41234 in 17 ms, 1 s ahead of the vault's"
    workspace = recording.Workspace.__new__(recording.Workspace)
    workspace._directory, workspace.home, workspace._numbers, workspace.code = ROOT, ROOT / "home", {}, ""
    assert workspace.normalize(f"{ROOT}/home/x {line}") == (
        "/home/me/x sk_0000000000000001 and sk_0000000000000002, http://127.0.0.1:8300 in 2 ms, the same as the vault's"
    )


def test_lines_have_the_style_of_their_speaker_and_are_wrapped() -> None:
    drawn = recording.draw_picture([(0.0, ["you: <b>", "     more"]), (1.0, ["word " * 20])])
    lines = visible_lines(drawn)
    assert lines[:2] == ["you: <b>", "     more"]
    assert all(len(line) <= recording.COLUMNS for line in lines[2:])
    assert re.findall(r' class="(\w*)"', drawn) == ["you", "you", "", ""]
    assert re.findall(r' y="(\d+)"', drawn) == ["35", "55", "95", "115"]
