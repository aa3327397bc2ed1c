"""The trial of --split-reads: a call of every tool, and the check that the client passes on those that only read.

The server refuses most of these calls, because they lack arguments. What counts is whether they reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sikkerkey_mcp
from sikkerkey_mcp import Tool
from tools.clients.checks import require
from tools.clients.dialects import Answer, Text
from tools.clients.script import DONE
from tools.clients.wire import Session

ANSWERED = ("whoami", "read_projects")  # which agent am I, and which projects may I see


def reads() -> list[Any]:
    """A call of `whoami` and of each tool whose name begins with read_: [tool, arguments]."""
    return [_call(tool) for tool in _tools() if tool.name == "whoami" or tool.name.startswith("read_")]


def others() -> list[Any]:
    """A call of each tool that changes something."""
    return [_call(tool) for tool in _tools() if not all(map(sikkerkey_mcp.is_harmless, tool.actions))]


def check(sessions: Sequence[Session], answers: Sequence[Answer]) -> None:
    """Exactly the reads arrived, and the model went through all calls. Raises Failed."""
    calls = [(params["name"], result) for session in sessions for params, result in session.calls]
    arrived, expected = [name for name, _ in calls], [name for name, _ in reads()]
    require(arrived == expected, f"the calls that arrived are {', '.join(arrived)}")
    refused = [name for name, result in calls if name in ANSWERED and result.get("isError")]
    require(not refused, f"{', '.join(refused)} failed")
    require(answers and answers[-1] == Text(DONE), "the session ended before the last call")


def _tools() -> list[Tool]:
    return sikkerkey_mcp.split_reads(sikkerkey_mcp.TOOLS)


def _call(tool: Tool) -> Any:
    return [tool.name, {"action": tool.actions[0].name} if sikkerkey_mcp.has_actions(tool) else {}]
