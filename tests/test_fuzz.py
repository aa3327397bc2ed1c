"""A moment of each fuzz target, and a check that it notices a planted fault; `make fuzz` runs longer."""

from __future__ import annotations

from random import Random
from typing import Any, NoReturn
from unittest import mock

import pytest

import sikkerkey_actions
import sikkerkey_keys
import sikkerkey_mcp
from sikkerkey_cli import words
from sikkerkey_cli.edit import jsonc, text
from tests.fuzz.__main__ import TARGETS, Case, fuzz

# Less than half a second each.
CASES = {
    "stdin": 160,
    "process": 6,
    "arguments": 500,
    "answers": 50,
    "identity": 500,
    "client_files": 50,
    "command_line": 150,
}


@pytest.mark.parametrize("name", TARGETS)
def test_generated_input_breaks_no_promise(name: str) -> None:
    assert fuzz(name, range(CASES[name])) == CASES[name]


def _leak_the_key(key_pem: bytes) -> NoReturn:
    raise sikkerkey_mcp.ConfigError(key_pem.decode("utf-8", "replace"), "no hint")


def _any_id(message: Any) -> Any:
    return message.get("id") if isinstance(message, dict) else None


def _without_tabs(before: str, changes: Any, apply_changes: Any = text.apply_changes) -> str:
    changed: str = apply_changes(before, changes).replace("\t", "  ")
    return changed


def _value_in_error(_key: str, value: str, **_more: bool) -> str:
    raise sikkerkey_mcp.ConfigError(f"{value} is no value", "no hint")


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "stdin": (sikkerkey_mcp, "valid_id", _any_id),
    "arguments": (sikkerkey_actions, "is_id", lambda _value: True),
    "answers": (sikkerkey_mcp, "_pause_s", lambda _outcome, _attempt, **_safe: 0.001),
    "identity": (sikkerkey_keys, "_load_key", _leak_the_key),
    "client_files": (jsonc, "apply_changes", _without_tabs),
    "command_line": (words, "_text", _value_in_error),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name: str) -> None:
    with mock.patch.object(*FAULTS[name]), TARGETS[name]() as case:
        assert any(_fails(case, number) for number in range(3_000))


def _fails(case: Case, number: int) -> bool:
    try:
        case(Random(number))  # noqa: S311 (repeatable, not secret)
    except Exception:  # a failed assertion, or an exception that the program did not catch
        return True
    return False
