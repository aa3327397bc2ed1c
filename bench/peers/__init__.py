"""One-tool servers on the official SDKs, for comparison; left out where an SDK cannot be installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.api import ROOT
from tools import npm

HERE = Path(__file__).resolve().parent
NODE_FILES = ROOT / "build" / "bench"
TYPESCRIPT_SDK = "@modelcontextprotocol/sdk@1.29.0"
INSTALL_TIMEOUT_S = 300


def python_sdk() -> list[str]:
    """The command, empty if the SDK is not installed (it needs Python 3.10)."""
    return [sys.executable, str(HERE / "python_sdk.py")] if find_spec("mcp") else []


def typescript_sdk() -> list[str]:
    """The command, empty without Node or if npm cannot install the SDK."""
    node, program = shutil.which("node"), shutil.which("npm")
    if not node or not program:
        return []
    NODE_FILES.mkdir(parents=True, exist_ok=True)
    server = NODE_FILES / "typescript_sdk.mjs"
    shutil.copyfile(HERE / server.name, server)
    start = partial(subprocess.run, cwd=NODE_FILES, capture_output=True, check=True, timeout=INSTALL_TIMEOUT_S)
    try:
        npm.install(TYPESCRIPT_SDK, NODE_FILES, lambda words: start([program, *words, "--ignore-scripts"]))
    except subprocess.CalledProcessError:
        return []
    return [node, str(server)]


def found() -> dict[str, list[str]]:
    """The commands of the servers that can be measured here, by name."""
    peers = {"Python SDK, one tool": python_sdk(), "TypeScript SDK, one tool": typescript_sdk()}
    return {name: command for name, command in peers.items() if command}
