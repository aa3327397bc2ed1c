"""Installs npm packages from lock files with the digest of every file: tools/npm_locks/NAME-VERSION.json.

`python tools/npm.py NAME@VERSION` (`make lock-npm`) writes the lock file of another version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).resolve().parent / "npm_locks"
QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")


def lock_of(wanted: str) -> Path:
    """The lock file of NAME@VERSION."""
    name, _, version = wanted.rpartition("@")
    return LOCKS / f"{name.strip('@').replace('/', '-')}-{version}.json"


def describe(wanted: str, directory: Path) -> None:
    """Write a package.json that asks for NAME@VERSION; its name is the same everywhere, and so in the lock files."""
    name, _, version = wanted.rpartition("@")
    described = {"name": "locked", "private": True, "dependencies": {name: version}}
    (directory / "package.json").write_text(json.dumps(described), encoding="utf-8")


def install(wanted: str, directory: Path, run: Callable[[list[str]], object]) -> None:
    """Install NAME@VERSION and what it needs, as locked, unless that is done. `run` calls npm there, or raises."""
    lock, installed = lock_of(wanted), directory / "installed.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    directory.mkdir(parents=True, exist_ok=True)
    describe(wanted, directory)
    shutil.copyfile(lock, directory / "package-lock.json")
    run(["ci", *QUIET])
    shutil.copyfile(lock, installed)


def write_lock(wanted: str) -> None:
    """Ask the registry that npm is configured for. The lock file names no registry."""
    with tempfile.TemporaryDirectory() as name:
        describe(wanted, Path(name))
        only = ["--package-lock-only", "--ignore-scripts", "--omit-lockfile-registry-resolved"]
        subprocess.run(["npm", "install", *QUIET, *only], cwd=name, check=True)
        lock = json.loads((Path(name) / "package-lock.json").read_text(encoding="utf-8"))
    lock_of(wanted).write_text(json.dumps(without_missing(lock), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def without_missing(lock: dict[str, Any]) -> dict[str, Any]:
    """The lock without optional dependencies that the registry did not have (other platforms'): `npm ci` wants all."""
    found = {place.rpartition("node_modules/")[2] for place in lock["packages"]}
    for package in lock["packages"].values():
        if "optionalDependencies" in package:
            wanted = package["optionalDependencies"]
            package["optionalDependencies"] = {name: wanted[name] for name in wanted if name in found}
    return lock


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write_lock(argument)
