"""Shared by the tests of the archives: build one, and run it with a separate home directory."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_runtime

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "tests" / "archive" / "program"
# Of an empty message by an all-zero seed, computed by an installed cryptography.
SIGNATURE = (
    "8f895b3cafe2c9506039d0e2a66382568004674fe8d237785092e40d6aaf483e"
    "4fc60168705f31f101596138ce21aa357c0d32a064f423dc3ee4aa3abf53f803"
)
OTHER_PYTHONS = [f"python3.{minor}" for minor in range(9, 16)]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memfd and /proc are Linux's")
posix_only = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


def places() -> list[str]:
    """The path, then the versions of a version manager, whose shims may refuse to start."""
    path = os.get_exec_path()
    shims = [Path(place) for place in path if place.endswith("shims")]
    return [*path, *sorted(str(found) for place in shims for found in place.parent.glob("versions/*/bin"))]


@functools.cache
def find_python(name: str) -> str:
    """The first NAME that starts, without the shim of a version manager; skips where there is none."""
    for directory in places():
        path = shutil.which(name, path=directory)
        if path:
            done = subprocess.run(
                [path, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False
            )
            if not done.returncode:
                return done.stdout.strip()
    pytest.skip(f"{name} is not on the path")


def build(output: Path, *options: str, python: str = sys.executable, **settings: Any) -> bytes:
    command = [python, "-I", str(ROOT / "build_zipapp.py"), "--output", str(output), *options]
    subprocess.run(command, check=True, capture_output=True, **settings)
    return output.read_bytes()


class Archive:
    """An archive and the home directory to run it in."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path, self.home, self.cache = path, home, home / ".cache" / "sikkerkey-mcp"
        self.flags, self.python = ["-I", "-S"], sys.executable

    def start(self, *steps: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        environment = {"HOME": str(self.home)} if env is None else env
        command = [self.python, *self.flags, str(self.path), *steps]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=cwd)

    def run(self, *steps: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
        return finish(self.start(*steps, cwd=cwd, env=env))

    def unpacked(self) -> Path:
        """The directory that the program runs from."""
        (path,) = self.cache.iterdir()
        return path

    def library(self) -> Path:
        return self.unpacked() / "cryptography" / "hazmat" / "bindings" / "_rust.abi3.so"

    def source(self) -> Path:
        """A Python file of the program."""
        return self.unpacked() / "sikkerkey_mcp.py"


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, errors) == (0, "")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


THIS_PLATFORM = sikkerkey_runtime.platform_name()
