"""The owner's command line. Commands work while the server runs.

Results go to standard output, hints to standard error. `commands_vault` and `commands_access` define the commands.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence

from vault.errors import VaultError
from vault.owner import commands_access, commands_vault
from vault.owner.console import Parser, print_error
from vault.terminal import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for a usage error, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        output = options.run(options)
        if output is not None:
            output.show(as_json=options.json)
    except VaultError as error:
        return print_error(error)
    except sqlite3.OperationalError as error:
        return print_error(VaultError(f"the database cannot be used: {error}", "check the disk, then try again"))
    except KeyboardInterrupt:
        return 130  # as shells report SIGINT; `audit --follow` ends this way
    except BrokenPipeError:
        # The reader is gone. Without this, the interpreter prints another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return print_error(VaultError(f"the system refused: {(error.strerror or 'no reason').lower()}", "check --dir"))
    return 0


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="A local SikkerKey vault.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for module in (commands_vault, commands_access):
        module.add_all(commands)
    return parser
