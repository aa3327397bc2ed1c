"""Runs calls with the official MCP client, version 1 or 2, and prints the results. Its Python must have the client.

    python sdk_session.py COMMAND... < calls.json > results.json

`calls.json` is a list of [tool, arguments]. An argument `{"from": [CALL, KEY...]}` is taken from an earlier result.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
from typing import Any


def resolved(value: Any, results: list[Any]) -> Any:
    """`value`, or the part of an earlier result that it refers to."""
    if not isinstance(value, dict) or list(value) != ["from"]:
        return value
    number, *keys = value["from"]
    found = results[number]["structuredContent"]
    for key in keys:
        found = found[key]
    return found


async def session(command: list[str], calls: list[Any]) -> dict[str, Any]:
    """One session: its protocol version, the tools, and the result of each call."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    unlimited = {"SIKKERKEY_MAX_CALLS": "none", "SIKKERKEY_MAX_DESTRUCTIVE": "none"}
    server = StdioServerParameters(command=command[0], args=command[1:], env={**unlimited, **os.environ})
    async with stdio_client(server) as (reader, writer), ClientSession(reader, writer) as client:
        opened: Any = await client.initialize()
        tools: Any = await client.list_tools()
        results: list[Any] = []
        for tool, arguments in calls:
            given = {name: resolved(value, results) for name, value in arguments.items()}
            result: Any = await client.call_tool(tool, given)
            results.append(members(result))
        return {
            "sdk": importlib.metadata.version("mcp"),
            "protocolVersion": members(opened)["protocolVersion"],
            "tools": members(tools)["tools"],
            "results": results,
            **await offered(client, members(opened)["capabilities"]),
        }


def members(made: Any) -> Any:
    """An object of the client as JSON data."""
    return made.model_dump(by_alias=True, mode="json", exclude_none=True)


async def offered(client: Any, capabilities: Any) -> dict[str, Any]:
    """The resources with their contents, and the prompts, if the server has any."""
    told: dict[str, Any] = {}
    if "resources" in capabilities:
        told["resources"] = members(await client.list_resources())["resources"]
        told["read"] = [members(await client.read_resource(row["uri"])) for row in told["resources"]]
    if "prompts" in capabilities:
        told["prompts"] = members(await client.list_prompts())["prompts"]
    return told


if __name__ == "__main__":
    json.dump(asyncio.run(session(sys.argv[1:], json.load(sys.stdin))), sys.stdout)
