"""The environment of every test: an empty home, no SIKKERKEY_ variables, no proxies, one umask, default signals."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sikkerkey_http
import sikkerkey_mcp
from sikkerkey_cli import entries
from tests.support import trusting_server
from tests.support.harness import Recorder, Server, make_slot
from tests.support.shell import Shell

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from tests.support.local_vault import LocalVault

EVIL_HOST = "evil.example"  # leads to this computer in the browser, as after DNS rebinding


def pytest_configure() -> None:
    """Sets Hypothesis up: the same examples in each run, and no checks of how long they take on a busy machine."""
    os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"  # one of them loads trio, for a third of a second
    import hypothesis  # after the line above

    hypothesis.settings.register_profile(
        "tests",
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests with a browser first. So one of pytest's processes runs all of them, and starts the only one."""
    items.sort(key=lambda item: "chrome" not in getattr(item, "fixturenames", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Ends the run with one line that names what was skipped, and why."""
    skipped: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        skipped[Path(report.nodeid.partition("::")[0]).stem, reason] += 1
    if skipped:
        listed = "; ".join(f"{count} of {name} ({reason})" for (name, reason), count in sorted(skipped.items()))
        terminalreporter.write_line(f"skipped: {listed}")


@pytest.fixture(autouse=True, scope="session")
def _default_signals() -> None:
    """Restores signals that are ignored under nohup or in the background; child processes would inherit that."""
    for name, usual in (("HUP", signal.SIG_DFL), ("INT", signal.default_int_handler), ("QUIT", signal.SIG_DFL)):
        number = getattr(signal, f"SIG{name}", None)  # Windows has one of them
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where archives unpack themselves: once for all of pytest's processes, instead of once for each home."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return tmp_path_factory.mktemp("cache")
    place = tmp_path_factory.getbasetemp().parent / "cache"  # its parent is the directory of the whole run
    place.mkdir(mode=0o700, exist_ok=True)
    return place


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _caches: Path) -> Iterator[Path]:
    """An empty home directory for this process and the processes that it starts."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    for name in list(os.environ):
        if name.upper().startswith(("SIKKERKEY_", "SSL_CERT_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(_caches))
    monkeypatch.setattr(os, "fsync", lambda _handle: None)  # does not wait for the disk, in this process
    monkeypatch.setattr(sikkerkey_http, "_SOCKET_TABLES", ())  # reading them takes the kernel 20 ms per connection
    before = os.umask(0o022)
    yield directory
    os.umask(before)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A loopback HTTP server instead of a vault. It records every request; tests set its answers."""
    with Recorder() as server:
        yield server


@pytest.fixture
def server(home: Path, recorder: Recorder) -> Iterator[Server]:
    """sikkerkey-mcp as a process, initialized, with an identity whose vault is `recorder`."""
    make_slot(home, recorder.url)
    with Server(trusting_server.COMMAND) as process:
        process.initialize()
        yield process


@pytest.fixture(scope="session")
def local_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVault]:
    """A local vault as a process. Each test installs its own agents and finds objects of other tests."""
    from tests.support.local_vault import LocalVault  # it loads the vault, for half a second

    vault = LocalVault(tmp_path_factory.mktemp("local_vault") / "vault")
    yield vault
    vault.close()


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests. Tests that use it are skipped where none is installed."""
    from tools.page_screenshots import BROWSER, DRIVER, start_browser  # it loads the driver, for a third of a second

    if not (BROWSER and DRIVER):
        pytest.skip("no browser: on Debian, apt-get install chromium chromium-driver")
    profile = tmp_path_factory.mktemp("profile")
    with start_browser(str(profile), f"--host-resolver-rules=MAP {EVIL_HOST} 127.0.0.1") as started:
        yield started


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs commands in this process, without keeping connections."""
    monkeypatch.setattr(sikkerkey_http.KeepAliveHandler, "_put_back", lambda _self, connection: connection.close())
    monkeypatch.setattr(sikkerkey_mcp, "BACKOFF_S", 0.0)
    monkeypatch.setattr(entries, "SETTLE_S", 0.0)
    return Shell(capsys)
