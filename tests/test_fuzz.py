"""A minute of every fuzzer, and proof that each would notice a fault; `make fuzz` runs them longer."""

from __future__ import annotations

import re
import subprocess
import sys
from random import Random
from typing import Any
from unittest import mock

import pytest

import sikkerkey_mcp
from sikkerkey_cli import call
from sikkerkey_cli.edit import jsonc, text
from tests.fuzz.__main__ import TARGETS, Case
from tests.support.harness import ROOT, TIMEOUT_S

SECONDS = 60 / len(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_generated_input_breaks_no_promise(name: str) -> None:
    """In a process of its own, whose memory is nobody else's."""
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seconds", str(SECONDS), "--first", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS + TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-4_000:]
    assert re.match(rf"{name}: [0-9,]+ cases from 0, nothing found", done.stdout)


def _leak_the_key(key_pem: bytes) -> sikkerkey_mcp.Sign:
    raise sikkerkey_mcp.ConfigError(key_pem.decode("utf-8", "replace"), "no remedy")


def _any_id(message: Any) -> Any:
    return message.get("id") if isinstance(message, dict) else None


def _tidily(before: str, changes: Any, apply_changes: Any = text.apply_changes) -> str:
    tidied: str = apply_changes(before, changes).replace("\t", "  ")
    return tidied


def _repeated(_key: str, value: str) -> str:
    raise sikkerkey_mcp.ConfigError(f"{value} is no value", "no remedy")


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "stdin": (sikkerkey_mcp, "readable_id", _any_id),
    "arguments": (sikkerkey_mcp, "is_id", lambda _value: True),
    "answers": (sikkerkey_mcp, "_pause", lambda _outcome, _attempt, **_safe: 0.001),
    "identity": (sikkerkey_mcp, "load_signer", _leak_the_key),
    "client_files": (jsonc, "apply_changes", _tidily),
    "command_line": (call, "_text", _repeated),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name: str) -> None:
    with mock.patch.object(*FAULTS[name]), TARGETS[name]() as case:
        assert any(_is_noticed(case, number) for number in range(3_000))


def _is_noticed(case: Case, number: int) -> bool:
    try:
        case(Random(number))  # noqa: S311 (repeatable, not secret)
    except Exception:  # a property that does not hold, or an exception that escaped from the program
        return True
    return False
