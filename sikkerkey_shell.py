"""Commands in hints, written for the shells of this platform: a POSIX shell, or on Windows cmd and PowerShell alike.

On Windows a command must work in both shells as far as possible: they share double quotes, `move` and programs such as
`attrib`, but neither variables nor `&&`, which PowerShell 5 lacks.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence


def _is_windows() -> bool:
    return os.name == "nt"


def _posix_words(*words: str) -> str:
    import shlex  # not at the top: only hints need it

    return shlex.join(words)


def command_line(words: Sequence[str]) -> str:
    """The words of a command, quoted."""
    if not _is_windows():
        return _posix_words(*words)
    quoted = [_windows_word(word) for word in words]
    # PowerShell prints a string in quotes instead of running it.
    if words and words[0] == sys.executable and quoted[0] != words[0]:
        quoted[0] = "py -3"
    return " ".join(quoted)


def _windows_word(word: str) -> str:
    # PowerShell splits options at periods and colons, and words at commas.
    if word and re.fullmatch(r"-*[\w-]*|[\w/][\w.:\\/+=-]*", word):
        return word
    if re.search("[$`]", word):  # PowerShell would evaluate these; cmd does not know single quotes
        return "'" + word.replace("'", "''") + "'"
    return '"' + word.replace('"', '""') + '"'


def in_order(*commands: str) -> str:
    """Commands to run one after the other."""
    return (", then: " if _is_windows() else " && ").join(commands)


def set_variable(name: str, value: str) -> str:
    """The command that sets an environment variable for the commands that follow it."""
    if not _is_windows():
        return f"export {name}={_posix_words(value)}"
    doubled = value.replace("'", "''")
    return f"$env:{name} = '{doubled}' (in cmd: set \"{name}={value}\")"


def with_variable(name: str, value: str, command: str) -> str:
    """A command with an environment variable."""
    if not _is_windows():
        return f"{name}={_posix_words(value)} {command}"
    return in_order(set_variable(name, value), command)


def unset_variables(names: Sequence[str]) -> str:
    """The command that removes environment variables."""
    if not _is_windows():
        return f"unset {' '.join(names)}"
    power_shell = ", ".join(f"Env:{name}" for name in names)
    return f"Remove-Item {power_shell} (in cmd: {' & '.join(f'set {name}=' for name in names)})"


def make_private(path: str, *, directory: bool) -> str:
    """The command that lets the file's owner, who runs it, read and write it; on POSIX nobody else can then."""
    if not _is_windows():
        return command_line(["chmod", "700" if directory else "600", path])
    inherited = "(OI)(CI)" if directory else ""
    return command_line(["icacls", path, "/grant", f"{os.environ.get('USERNAME', 'USER')}:{inherited}F"])


def make_writable(path: str) -> str:
    """The command that makes a read-only file writable for its owner."""
    return command_line(["attrib", "-r", path] if _is_windows() else ["chmod", "u+w", path])


def rename(old: str, new: str) -> str:
    """The command that renames a file or a directory."""
    return command_line(["move" if _is_windows() else "mv", old, new])


def replace_link(link: str) -> str:
    """How to put the file that a symbolic link leads to in the place of the link."""
    if _is_windows():
        return "if what the link leads to is yours, move that to the place of the link"
    quoted = _posix_words(link)
    return f'real="$(readlink -f {quoted})" && rm {quoted} && mv "$real" {quoted}'
