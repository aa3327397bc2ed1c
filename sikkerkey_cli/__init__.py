"""The commands that people type. The server, sikkerkey_mcp, never imports this package."""
