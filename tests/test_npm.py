"""The npm packages of `make test-clients`, `make mcpb` and others are installed from lock files with digests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.peers import TYPESCRIPT_SDK
from tests.support.harness import ROOT
from tools import npm
from tools.clients import packages
from tools.dashboard_check import AXE
from tools.release import VALIDATOR

CLIENTS = [value.wanted for value in vars(packages).values() if isinstance(value, packages.Package)]
WANTED = [*CLIENTS, AXE, TYPESCRIPT_SDK, VALIDATOR]


def test_every_wanted_version_has_a_lock_file_and_no_other() -> None:
    assert len(WANTED) > 10
    assert sorted(npm.LOCKS.iterdir()) == sorted(map(npm.lock_of, WANTED))
    for wanted in WANTED:
        name, _, version = wanted.rpartition("@")
        locked = json.loads(npm.lock_of(wanted).read_text(encoding="utf-8"))["packages"]
        assert locked[""]["dependencies"] == {name: version}, wanted
        assert locked[f"node_modules/{name}"]["version"] == version


def test_every_locked_package_has_a_digest_and_no_address() -> None:
    for wanted in WANTED:
        locked = json.loads(npm.lock_of(wanted).read_text(encoding="utf-8"))["packages"]
        for place, package in locked.items():
            if place:
                assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"]), (wanted, place)
                assert "resolved" not in package, (wanted, place)


def test_a_dependency_that_the_registry_does_not_have_is_left_out() -> None:
    """`npm ci` refuses a lock file that names an optional dependency and does not lock it."""
    both = {"optionalDependencies": {"@s/here": "1", "missing": "1"}}
    lock = {"packages": {"": {}, "node_modules/a": both, "node_modules/a/node_modules/@s/here": {}}}
    assert npm.without_missing(lock)["packages"]["node_modules/a"] == {"optionalDependencies": {"@s/here": "1"}}
    for wanted in WANTED:
        locked = json.loads(npm.lock_of(wanted).read_text(encoding="utf-8"))
        assert npm.without_missing(json.loads(json.dumps(locked))) == locked, wanted


def test_a_package_is_installed_from_its_lock_file_once(tmp_path: Path) -> None:
    directory, calls = tmp_path / "d", []

    def run(words: list[str]) -> None:
        calls.append(words[0])
        assert (directory / "package-lock.json").read_bytes() == npm.lock_of(VALIDATOR).read_bytes()
        assert json.loads((directory / "package.json").read_text())["dependencies"] == {"@anthropic-ai/mcpb": "2.1.2"}

    npm.install(VALIDATOR, directory, run)
    npm.install(VALIDATOR, directory, run)
    assert calls == ["ci"]


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    def fail(words: list[str]) -> None:
        raise OSError("no network")

    for _ in range(2):
        with pytest.raises(OSError, match="no network"):
            npm.install(VALIDATOR, tmp_path / "d", fail)


def test_nothing_is_installed_without_a_digest() -> None:
    """npm's `install` resolves versions anew, and pip takes any file unless hashes are required."""
    sources = [*ROOT.glob("tools/**/*.py"), *ROOT.glob("bench/**/*.py"), *ROOT.glob("bundle/*.py"), ROOT / "Makefile"]
    found = [
        path for path in sources if path.name != "npm.py" for _ in re.findall(r'npm"?,? "?install', path.read_text())
    ]
    assert found == []
    pip = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert pip
    assert [line for line in pip if "--require-hashes" not in line] == []
