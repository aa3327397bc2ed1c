"""Builds the archive of an earlier commit, with which measurements compare the present one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEFORE = (
    "087dd8d9a15ede9b28eb59f16315918913b02c68"  # whole lists, no `review`, and a start that ends if a file is wrong
)
BUILD_MAX_S = 300.0


def build_before(directory: Path) -> Path:
    """The archive of the earlier commit, built from its own files in an empty directory."""
    packed = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=packed, check=True)
    subprocess.run([sys.executable, "build_zipapp.py"], cwd=directory, check=True, timeout=BUILD_MAX_S)
    return directory / "dist" / "sikkerkey-mcp.pyz"
