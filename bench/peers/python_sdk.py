"""A one-tool server on the official Python SDK, to be measured beside ours."""

from mcp.server import MCPServer

server = MCPServer("peer")


@server.tool()
def whoami() -> str:
    """Says something."""
    return "somebody"


server.run()
