"""docs/recording.svg, the README's picture: well formed, small, of nobody's machine, and drawn from what was shown."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.support.harness import ROOT
from tools import recording

PICTURE = (ROOT / "docs" / "recording.svg").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def shown(picture: str) -> list[str]:
    """The lines of a picture, as somebody reads them."""
    return ["".join(line.itertext()) for line in ElementTree.fromstring(picture).iter(f"{SVG}text")]  # noqa: S314 (ours)


def test_picture_is_small_and_shows_every_command_and_no_machine() -> None:
    assert len(PICTURE.encode()) < 100_000
    lines = shown(PICTURE)
    typed = [line.split()[3] for line in lines if line.startswith(f"$ {recording.PROGRAM} ")]
    assert typed == ["install", "config", "config", "doctor", "tools", "call", "call"]
    assert max(map(len, lines)) <= recording.COLUMNS
    paths = set(re.findall(r"(?<![\w.:/@-])/[\w.-]+(?:/[\w.-]+)?", "\n".join(lines)))
    assert paths == {"/home/me", "/usr/bin", "/dev/null"}


def test_picture_ends_with_a_value_that_went_in_and_cannot_be_read() -> None:
    text = "\n".join(shown(PICTURE))
    assert text.count("correct-horse-battery-staple-4711") == 1
    assert "No action reads a value back." in text


def test_what_differs_between_runs_is_put_in_its_place() -> None:
    line = "sk_abcdefgh12345678 and sk_qqqqqqqqqqqqqqqq, http://127.0.0.1:41234 in 17 ms, 1 s ahead of the vault's"
    desk = recording.Desk.__new__(recording.Desk)
    desk._directory, desk.home, desk._numbers = ROOT, ROOT / "home", {}
    assert desk.settled(f"{ROOT}/home/x {line}") == (
        "/home/me/x sk_0000000000000001 and sk_0000000000000002, http://127.0.0.1:8300 in 2 ms, the same as the vault's"
    )


def test_lines_keep_their_colours_and_stand_one_below_the_other() -> None:
    words = "word " * 30
    drawn = recording.picture([[["$ a <b>", f"\033[32mok\033[0m    tools       {words}"]], [["# next"]]])
    lines = shown(drawn)
    assert lines[0] == "$ a <b>"
    assert [line[:18] for line in lines[1:]] == ["ok    tools       ", " " * 18, "# next"]
    assert '<tspan class="good">ok</tspan>    tools' in drawn
    assert re.findall(r' y="(\d+)"', drawn) == ["30", "49", "68", "30"]
