"""`dev` with the two archives: a trial in one command, deleted or kept at its end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ARCHIVE, TIMEOUT_S

VAULT_ARCHIVE = ARCHIVE.with_name("sikkerkey-vault.pyz")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the vault runs on Linux and macOS")


class Trial:
    """A running `dev`, whose temporary directory is below `place`."""

    def __init__(self, place: Path, *options: str) -> None:
        command = [sys.executable, "-I", str(VAULT_ARCHIVE), "dev", "--json", *options]
        self.environment = {**os.environ, "TMPDIR": str(place)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.environment)
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        self.shown: Any = json.loads("".join(lines)) if lines else None

    def agent(self, *words: str) -> str:
        """What the agent's program prints."""
        home = {"SIKKERKEY_HOME": self.shown["home"]} if self.shown["home"] else {}
        command = [sys.executable, "-I", str(ARCHIVE), *words]
        environment = {**self.environment, **home}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal. The exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory for temporary files."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def test_a_trial_is_ready_and_leaves_nothing(place: Path, home: Path) -> None:
    trial = Trial(place, "--port", "0")
    try:
        directory, slots = Path(trial.shown["directory"]), Path(trial.shown["home"])
        assert {directory.parent.parent, slots.parent.parent} == {place}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (directory, directory.parent, slots)} == {0o700}
        assert "Webshop" in trial.agent("call", "manage_projects", "list")
        assert not (home / ".sikkerkey").exists(), "the user's own agents are not touched"
        for line in trial.shown["commands"]:
            written = subprocess.run(
                ["sh", "-c", line], env=trial.environment, capture_output=True, text=True, check=True
            ).stdout
        assert json.loads(written)["mcpServers"]["sikkerkey"]["env"]["SIKKERKEY_HOME"] == str(slots)
        assert trial.shown["agentId"] in (home / ".claude.json").read_text()
    finally:
        status, errors = trial.end()
    assert (status, errors.count("hint: ")) == (0, 2), errors
    assert list(place.iterdir()) == []


def test_a_kept_trial_comes_back_with_its_agent(place: Path, home: Path) -> None:
    directory = place / "my vault"
    first = Trial(place, "--port", "0", "--dir", str(directory))
    status, errors = first.end(signal.SIGTERM)
    assert (status, list(place.iterdir())) == (0, [directory])
    assert f" dev --dir '{directory}'" in errors
    assert (home / ".sikkerkey" / "agents" / first.shown["agentId"]).is_dir()
    again = Trial(place, "--dir", str(directory))
    try:
        assert {**again.shown, "dashboardUrl": ""} == {**first.shown, "dashboardUrl": ""}
        assert "Webshop" in again.agent("call", "manage_projects", "list")
    finally:
        again.process.kill()
        again.process.communicate()


def test_a_trial_that_cannot_be_set_up_says_so_and_leaves_nothing(place: Path) -> None:
    (place / "broken.pyz").write_text("raise SystemExit('cannot\\x1b[2J start')\n")
    trial = Trial(place, "--port", "0", "--mcp", str(place / "broken.pyz"))
    _, errors = trial.process.communicate(timeout=TIMEOUT_S)
    expected = "vault: error: sikkerkey-mcp.pyz could not install the agent: cannot\ufffd[2J start\n"
    assert (trial.process.returncode, trial.shown, errors.startswith(expected)) == (1, None, True), errors
    assert [path.name for path in place.iterdir()] == ["broken.pyz"]
