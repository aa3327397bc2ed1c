"""The entry point, as in the program."""

from sikkerkey_mcp import main

__all__ = ["main"]
