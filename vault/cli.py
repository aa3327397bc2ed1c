"""The owner's command line, which works while the server runs: results on standard output, advice on standard error.

The commands live by subject in `commands_vault`, `commands_identities`, `commands_people` and `commands_audit`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence

from vault import commands_audit, commands_identities, commands_people, commands_vault
from vault.console import Parser, complain
from vault.errors import VaultError
from vault.terminal import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a failure, 2 for a wrong command line, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        output = options.run(options)
        if output is not None:
            output.show(as_json=options.json)
    except VaultError as error:
        return complain(error)
    except sqlite3.OperationalError as error:
        return complain(VaultError(f"the database cannot be used: {error}", "look at the disk, then try again"))
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT; a log that is followed ends this way
    except BrokenPipeError:
        # The reader has gone; without this the interpreter complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return complain(VaultError(f"the system refused: {(error.strerror or 'no reason').lower()}", "look at --dir"))
    return 0


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="A local SikkerKey vault.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for subject in (commands_vault, commands_identities, commands_people, commands_audit):
        subject.add_all(commands)
    return parser
