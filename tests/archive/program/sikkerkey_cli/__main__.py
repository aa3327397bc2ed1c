"""The entry point of this program, whichever of both modules the archive starts."""

from sikkerkey_mcp import main

__all__ = ["main"]
