"""The entry point of the program: hands `serve` to the server, and runs the commands that people type."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

if not __package__:  # started by its path: `config` writes that path, with -I, which leaves out this directory's parent
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

try:
    import sikkerkey_identity
    import sikkerkey_mcp
except KeyboardInterrupt:  # without a traceback, as later
    sys.exit(130)

# The module with the function command_NAME of each command. A module is imported when its command runs, so that
# `serve` imports none of them and completion does not wait for what doctor needs.
MODULES = {
    "setup": "setup",
    "install": "agents",
    "rotate-key": "rotation",
    "whoami": "agents",
    "revoke": "agents",
    "config": "config",
    "doctor": "doctor",
    "tools": "tools",
    "call": "call",
    "fill": "person",
    "show": "person",
    "confirm": "person",
    "log": "log",
    "completion": "completion",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. On wrong usage and for --help, argparse exits the process."""
    _write_utf8(sys.stderr)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in ([], ["serve"]) and not {"-h", "--help"} & set(words):
        return sikkerkey_mcp.main(words[1:])
    return sikkerkey_mcp.run_command(lambda: run(words))


def _write_utf8(stream: object) -> None:
    """Makes a pipe or a file UTF-8 with line ends as they are, which programs and MCP clients read on every system."""
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8", newline="\n")


def run(arguments: list[str]) -> int:
    """Parses and runs one command; returns the exit status. Raises sikkerkey_mcp.Error."""
    from sikkerkey_cli import grammar, terminal  # here, because `serve` needs neither

    sikkerkey_mcp.disable_core_dumps()
    sikkerkey_identity.ask_passphrase = terminal.ask_passphrase
    _write_utf8(sys.stdout)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=terminal.JSON_ESCAPES)  # a terminal may not support every character of a name
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # invalid input is refused where it is used
    if arguments[:1] == ["__complete"]:
        return int(_module("completion").command_complete(arguments[1:]))
    options = grammar.parse(arguments)
    if options.version:
        return int(_module("version").print_version(verbose=options.verbose))
    if not options.command:  # --verbose alone
        return sikkerkey_mcp.command_serve([])
    if getattr(options, "agent", "") or getattr(options, "by", ""):
        _module("matching").replace_agent_names(options)
    return int(getattr(_module(MODULES[options.command]), f"command_{options.command.replace('-', '_')}")(options))


def _module(name: str) -> Any:
    return importlib.import_module(f"sikkerkey_cli.{name}")


if __name__ == "__main__":
    sys.exit(main())
