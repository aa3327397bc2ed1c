"""A one-tool server on the official Python SDK, to be measured beside ours."""

import asyncio

from mcp.server import MCPServer

server = MCPServer("peer")


async def whoami(delay_ms: int = 0) -> str:
    """Says something."""
    if delay_ms:
        await asyncio.sleep(delay_ms / 1000)
    return "somebody"


# Called, not written as a decorator: where there is no SDK, on Python 3.9, mypy holds that against the function.
server.tool()(whoami)
server.run()
