"""A one-tool server on the official Python SDK, for comparison."""

import asyncio

from mcp.server import MCPServer

server = MCPServer("peer")


async def whoami(delay_ms: int = 0) -> str:
    """A fixed answer."""
    if delay_ms:
        await asyncio.sleep(delay_ms / 1000)
    return "somebody"


# Called instead of used as a decorator: without the SDK (Python 3.9), mypy reports an untyped decorator.
server.tool()(whoami)
server.run()
