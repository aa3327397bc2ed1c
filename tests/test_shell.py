"""Commands in hints: quoted for the shells of the platform."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import pytest

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_shell

HOME = r"C:\Users\An Na\.sikkerkey"
PYTHON = r"C:\py\python.exe"
WORDS = ("a b", "it's", 'a"b', "$(x)", "`x`", "a&b", "a|b", "a,b", "%PATH%", "@x", "{x}", "--a=b.c", "-", "", "ø")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_shell, "_is_windows", lambda: True)
    monkeypatch.setattr(sys, "executable", PYTHON)


def words_of_cmd(command: str) -> list[str]:
    """The words that a program gets from cmd, by the rules of Microsoft's C library; cmd may not act on any of them."""
    words: list[str] = []
    word, quoted, begun, position = "", False, False, 0
    while position < len(command):
        character = command[position]
        if character == '"' and quoted and command[position + 1 : position + 2] == '"':
            word, position = word + '"', position + 1
        elif character == '"':
            quoted, begun = not quoted, True
        elif character == " " and not quoted:
            words, word, begun = [*words, *([word] if begun else [])], "", False
        else:
            assert quoted or character not in "&|<>^", f"cmd acts on {character} in {command}"
            word, begun = word + character, True
        position += 1
    return [*words, *([word] if begun else [])]


def words_of_powershell(command: str) -> list[str]:
    """The same for PowerShell: what is not in quotes holds nothing that it acts on, and is no option that it splits."""
    words: list[str] = []
    for word, quote in pieces(command):
        if quote == '"':
            assert not set("$`") & set(word), f"PowerShell evaluates {word}"
        elif not quote:
            assert not set("$`'\"(){};,&|<>@#%") & set(word), f"PowerShell acts on {word}"
            assert not (word.startswith("-") and set(".:=") & set(word)), f"PowerShell splits {word}"
        words.append(word.replace(quote * 2, quote) if quote else word)
    return words


def pieces(command: str) -> Sequence[tuple[str, str]]:
    """Each word as it is written, with the quote around it."""
    found, rest = [], command
    while rest:
        quote = rest[0] if rest[0] in "'\"" else ""
        end = rest.find(" ") % (len(rest) + 1)
        if quote:
            end = 1
            while rest[end] != quote or rest[end + 1 : end + 2] == quote:
                end += 1 if rest[end] != quote else 2
        found.append((rest[1:end] if quote else rest[:end], quote))
        rest = rest[end + len(quote) :].lstrip(" ")
    return found


def test_words_survive_the_shells(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (*WORDS, HOME, PYTHON, "sikkerkey-mcp", "--read-only", "manage_secrets,read_audit.list"):
        command = sikkerkey_shell.command_line(["move", word, "x"])
        assert words_of_powershell(command) == ["move", word, "x"], command
        if not set("$`") & set(word):  # written for PowerShell alone
            assert words_of_cmd(command) == ["move", word, "x"], command
    monkeypatch.undo()
    for word in (*WORDS, HOME, "/home/x"):
        assert shlex.split(sikkerkey_shell.command_line(["mv", word])) == ["mv", word]


def test_powershell_runs_the_program(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sikkerkey_shell.command_line([PYTHON, "x.pyz", "install", "-"]) == f"{PYTHON} x.pyz install -"
    monkeypatch.setattr(sys, "executable", r"C:\Program Files\Python\python.exe")
    assert sikkerkey_shell.command_line([sys.executable, "x.pyz", "install", "-"]) == "py -3 x.pyz install -"
    assert sikkerkey_shell.command_line([]) == ""


def test_commands_exist_in_the_shells_of_the_platform(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERNAME", "An Na")
    on_windows = {
        sikkerkey_shell.rename(HOME, f"{HOME}.old"): f'move "{HOME}" "{HOME}.old"',
        sikkerkey_shell.make_private("x", directory=False): 'icacls x /grant "An Na:F"',
        sikkerkey_shell.make_private("x", directory=True): 'icacls x /grant "An Na:(OI)(CI)F"',
        sikkerkey_shell.make_writable(HOME): f'attrib -r "{HOME}"',
        sikkerkey_shell.replace_link("x"): "if what the link leads to is yours, move that to the place of the link",
        sikkerkey_shell.set_variable("A", "it's"): "$env:A = 'it''s' (in cmd: set \"A=it's\")",
        sikkerkey_shell.with_variable("A", "b", "c d"): "$env:A = 'b' (in cmd: set \"A=b\"), then: c d",
        sikkerkey_shell.unset_variables(["A", "B"]): "Remove-Item Env:A, Env:B (in cmd: set A= & set B=)",
        sikkerkey_shell.in_order("a", "b"): "a, then: b",
    }
    for found, expected in on_windows.items():
        assert found == expected
    monkeypatch.undo()
    elsewhere = {
        sikkerkey_shell.rename("/a b", "/c"): "mv '/a b' /c",
        sikkerkey_shell.make_private("/a b", directory=False): "chmod 600 '/a b'",
        sikkerkey_shell.make_private("/a b", directory=True): "chmod 700 '/a b'",
        sikkerkey_shell.make_writable("/a b"): "chmod u+w '/a b'",
        sikkerkey_shell.set_variable("A", "it is"): "export A='it is'",
        sikkerkey_shell.with_variable("A", "it is", "c d"): "A='it is' c d",
        sikkerkey_shell.unset_variables(["A", "B"]): "unset A B",
        sikkerkey_shell.in_order("a", "b"): "a && b",
    }
    for found, expected in elsewhere.items():
        assert found == expected


def test_no_hint_on_windows_is_for_a_posix_shell(windows: None) -> None:
    hint = sikkerkey_mcp.runnable(sikkerkey_identity.replacement("a1", "https://vault.example.com"))
    commands = hint.split(", then: ")
    assert [word in command for word, command in zip(("revoke a1 --yes", "$env:", "install -"), commands)] == [True] * 3
    assert "&&" not in hint
    assert PYTHON in commands[0]


def test_home_on_windows_names_a_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_HOME", "/elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(sikkerkey_mcp.ConfigError) as caught:
            sikkerkey_identity.home()
    assert str(caught.value) == "SIKKERKEY_HOME names no drive"
    assert caught.value.hint == "set SIKKERKEY_HOME to an absolute path that begins with a drive, such as C:"
    assert sikkerkey_identity.home() == "/elsewhere"
