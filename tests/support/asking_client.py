"""A session with the high-level client of the official Python SDK, version 2, which is asked questions.

    python asking_client.py COMMAND... < answers.json > sessions.json

One session each in the modes `auto` (the SDK's default: the newest revision that the server speaks) and `legacy`, which
the server finds in its variable MODE. `answers.json` is a list of [tool, answer]; each tool is called, and `answer` is
the ElicitResult for what it asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any


async def session(mode: str, command: list[str], calls: list[Any]) -> dict[str, Any]:
    """The negotiated revision, the modes of the questions and the results of the calls."""
    from mcp import Client, StdioServerParameters
    from mcp.types import ElicitResult

    asked: list[str] = []
    results: list[Any] = []
    following: list[Any] = []

    async def answer(_context: Any, params: Any) -> Any:
        asked.append(params.mode)
        return ElicitResult.model_validate(following[-1])

    server = StdioServerParameters(command=command[0], args=command[1:], env={**os.environ, "MODE": mode})
    options: Any = {"mode": mode, "elicitation_callback": answer}
    async with Client(server, **options) as client:
        tools = await client.list_tools()
        for tool, told in calls:
            following.append(told)
            result = await client.call_tool(tool, {})
            results.append(result.structured_content)
        return {
            "protocolVersion": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "asked": asked,
            "results": results,
        }


if __name__ == "__main__":
    asked_and_told = json.load(sys.stdin)
    sessions = {mode: asyncio.run(session(mode, sys.argv[1:], asked_and_told)) for mode in ("auto", "legacy")}
    json.dump(sessions, sys.stdout)
