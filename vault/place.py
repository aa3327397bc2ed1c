"""The vault's directory without `--dir`, and command lines that can be pasted.

$SIKKERKEY_VAULT_DIR                                  if it is set
~/Library/Application Support/sikkerkey-vault         macOS
$XDG_DATA_HOME/sikkerkey-vault                        elsewhere; ~/.local/share if it is not set
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from vault.errors import VaultError
from vault.files import quoted
from vault.terminal import PROGRAM

VARIABLE = "SIKKERKEY_VAULT_DIR"
NAME = "sikkerkey-vault"


def default_directory() -> Path:
    """The directory of the user's vault. Raises VaultError if it is not known."""
    named = os.environ.get(VARIABLE)
    if named:
        if not os.path.isabs(named):
            raise VaultError(f"{VARIABLE} is not an absolute path", "set it to one, or use --dir")
        return Path(named)
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise VaultError("no home directory is known", f"use --dir, or set {VARIABLE}")
    if sys.platform == "darwin":
        return Path(home, "Library", "Application Support", NAME)
    data = os.environ.get("XDG_DATA_HOME", "")
    # The specification says to ignore a relative path.
    return Path(data if os.path.isabs(data) else os.path.join(home, ".local", "share"), NAME)


def command_line(directory: Path, *words: str) -> str:
    """A command on this vault, to be pasted into a shell: without --dir for the default directory."""
    line = f"{PROGRAM} {shlex.join(words)}"
    place = directory.absolute()
    return line if place == _default_or_none() else f"{line} --dir {quoted(place)}"


def _default_or_none() -> Path | None:
    try:
        return default_directory()
    except VaultError:
        return None
