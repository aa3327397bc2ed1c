"""A one-tool server on the official Python SDK, to be measured beside ours."""

import asyncio

from mcp.server import MCPServer

server = MCPServer("peer")


@server.tool()
async def whoami(delay_ms: int = 0) -> str:
    """Says something."""
    if delay_ms:
        await asyncio.sleep(delay_ms / 1000)
    return "somebody"


server.run()
