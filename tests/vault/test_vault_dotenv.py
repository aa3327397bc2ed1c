"""Reading `.env` files: each rule, and errors that name lines and quote nothing."""

from __future__ import annotations

import pytest

from vault.dotenv import DotenvError, Entry, parse


def test_each_form_of_a_line() -> None:
    for text, value in (
        ("A=1", "1"),
        ("A = two words ", "two words"),
        ("export A=1", "1"),
        ("  export\tA\t=\t1", "1"),
        ("A=", ""),
        ("A=  ", ""),
        ("A=x # comment", "x"),
        ("A= # comment", ""),
        ("A=#no-comment", "#no-comment"),
        ("A=x#y", "x#y"),
        ("A=pa'ss\"word", "pa'ss\"word"),
        ("A=$HOME ${X} \\n", "$HOME ${X} \\n"),
        ("A='as # it $is\\n'", "as # it $is\\n"),
        ("A='two\nlines' # comment", "two\nlines"),
        ('A="two\nlines"', "two\nlines"),
        ('A="\\n\\r\\t\\\\\\"\\$"', '\n\r\t\\"$'),
        ('A="C:\\dir"', "C:\\dir"),
        ('A=""', ""),
        ("A=''", ""),
        ("A=1\r\n", "1"),
        ("\ufeffA=1", "1"),
        ("A=sü秘", "sü秘"),
    ):
        assert [(entry.name, entry.value) for entry in parse(text)] == [("A", value)], text


def test_names_and_lines() -> None:
    text = "# first\n\nA='x\ny'\n_b.c-D=2\n   # indented\nexport=3\n"
    assert parse(text) == [Entry("A", "x\ny", 3), Entry("_b.c-D", "2", 5), Entry("export", "3", 7)]
    assert parse("") == parse("\n# nothing\n") == []


def test_errors_name_every_line_and_quote_nothing() -> None:
    text = "hunter2\nA='x'hunter2\n1=hunter2\nB=\"x\ny\"\nB=hunter2\n=hunter2\nC='hunter2\nD=1\n"
    with pytest.raises(DotenvError) as raised:
        parse(text)
    assert [line for line, _ in raised.value.problems] == [1, 2, 3, 6, 7, 8]
    assert str(raised.value) == (
        "line 1 is not NAME=value; line 2 has text after the closing quote; line 3 is not NAME=value;"
        " line 6 repeats the name of line 4; line 7 is not NAME=value; and 1 more"
    )
    assert "hunter2" not in str(raised.value.problems)
