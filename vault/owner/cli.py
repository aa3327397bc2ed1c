"""The owner's command line. Commands work while the server runs.

Results go to standard output, hints to standard error. The `commands_*` modules define the commands.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
from collections.abc import Sequence

from vault import VERSION
from vault.errors import Refusal, SealedDenied, VaultError
from vault.owner import commands_access, commands_people, commands_projects, commands_vault, completion
from vault.owner.console import print_error
from vault.owner.parser import CommandLine
from vault.place import default_directory
from vault.terminal import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 for a failure, 2 for a usage error, 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _main(words)
    except VaultError as error:
        return print_error(error)
    except Refusal as refusal:
        return print_error(_as_error(refusal, words[0]))
    except sqlite3.OperationalError as error:
        return print_error(VaultError(f"the database cannot be used: {error}", "check the disk, then try again"))
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt goes on a new line, not after a question
        return 130  # as shells report SIGINT; `audit --follow` ends this way
    except BrokenPipeError:
        # The reader is gone. Without this, the interpreter prints another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return print_error(VaultError(f"the system refused: {(error.strerror or 'no reason').lower()}", "check --dir"))


def _main(words: Sequence[str]) -> int:
    line = all_commands()
    if words[:1] == [completion.COMMAND]:
        return completion.complete(line, words[1:])
    options = line.parse(words)
    if options.command != "dev":  # which makes a directory of its own
        options.dir = options.dir or default_directory()
    output = options.run(options)
    if output is not None:
        output.show(as_json=options.json)
    return 0


@functools.cache
def all_commands() -> CommandLine:
    """All commands. Parsing a line does not change them."""
    line = CommandLine()
    line.parser.add_argument("--version", action="version", version=f"sikkerkey-vault {VERSION}")
    for module in (commands_vault, commands_access, commands_projects, commands_people, completion):
        module.add_all(line)
    return line


def _as_error(refusal: Refusal, command: str) -> VaultError:
    """What the API refuses, as an error of a command."""
    if isinstance(refusal, SealedDenied):
        return VaultError(str(refusal), "give its passphrase")
    return VaultError(str(refusal), f"{PROGRAM} {command} --help")
