"""A one-tool server on the official Python SDK, to be measured beside ours."""

from mcp.server import MCPServer

server = MCPServer("peer")


def whoami() -> str:
    """Says something."""
    return "somebody"


# Called, not written as a decorator: where there is no SDK, on Python 3.9, mypy holds that against the function.
server.tool()(whoami)
server.run()
