"""Opens the dashboard in the owner's browser.

The browser gets a private file that redirects to the one-time link, because every user can read command lines.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from html import escape
from pathlib import Path

from vault.files import create_private

REDIRECT = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={url}"><title>SikkerKey vault</title>
<p><a href="{url}">Continue</a></p></html>
"""
NAME = "open-dashboard.html"


def can_open() -> bool:
    """Whether there is a desktop on which a browser would appear; not over SSH, nor in CI."""
    if os.environ.get("CI") or any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def open_link(url: str, directory: Path) -> bool:
    """Open a link that works once, and say whether a browser was found. The file stays: its link is worthless soon."""
    path = _readable(directory) / NAME
    path.unlink(missing_ok=True)
    create_private(path, REDIRECT.format(url=escape(url)).encode())
    return webbrowser.open(path.absolute().as_uri())


def _readable(directory: Path) -> Path:
    """Browsers from snap packages, such as Ubuntu's, read nothing below hidden directories."""
    is_hidden = any(part.startswith(".") for part in directory.absolute().parts)
    return Path.home() if is_hidden and (Path.home() / "snap").is_dir() else directory
