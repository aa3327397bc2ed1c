"""The sealed environment of every test: an empty home, no variables of ours, no proxies, one umask, all signals."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import sikkerkey_mcp
import sikkerkey_wire
from tests.support.harness import Recorder, Server, make_slot
from tests.support.shell import Shell

# The same examples in each run, and none of Hypothesis's checks of how long they take: the machine may be busy.
hypothesis.settings.register_profile(
    "tests", deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Ends the run with one line that names what was skipped, and why."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.getreports("skipped"))
    if reasons:
        listed = "; ".join(f"{count} ({reason.removeprefix('Skipped: ')})" for reason, count in sorted(reasons.items()))
        terminalreporter.write_line(f"skipped: {listed}")


@pytest.fixture(autouse=True, scope="session")
def _signals_count() -> None:
    """What a shell starts in the background, or nohup, ignores signals, and so do the programs that it starts."""
    for name, usual in (("HUP", signal.SIG_DFL), ("INT", signal.default_int_handler), ("QUIT", signal.SIG_DFL)):
        number = getattr(signal, f"SIG{name}", None)  # Windows has one of them
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home directory, in force for this process and the processes that it starts."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    for name in list(os.environ):
        if name.upper().startswith(("SIKKERKEY_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))
    before = os.umask(0o022)
    yield directory
    os.umask(before)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A loopback HTTP server in the vault's place; it records every request and answers as it is told."""
    with Recorder() as server:
        yield server


@pytest.fixture
def server(home: Path, recorder: Recorder) -> Iterator[Server]:
    """sikkerkey-mcp as a process of its own, initialized, with an identity that leads to `recorder`."""
    make_slot(home, recorder.url)
    with Server() as process:
        process.initialize()
        yield process


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Commands typed in this process, whose connections are closed at once."""
    monkeypatch.setattr(sikkerkey_wire.Connections, "_give_back", lambda _self, connection: connection.close())
    monkeypatch.setattr(sikkerkey_mcp, "BACKOFF_S", 0.0)
    return Shell(capsys)
