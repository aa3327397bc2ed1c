"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.served_vault import Vault
from tools.page_screenshots import BROWSER, DRIVER, start_browser

EVIL_HOST = "evil.example"  # leads to this computer, as after DNS rebinding


@pytest.fixture
def signed_in(vault: Vault) -> SignedIn:
    return SignedIn(vault)


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests. Tests that use it are skipped where none is installed."""
    if not (BROWSER and DRIVER):
        pytest.skip("no browser: on Debian, apt-get install chromium chromium-driver")
    profile = tmp_path_factory.mktemp("profile")
    with start_browser(str(profile), f"--host-resolver-rules=MAP {EVIL_HOST} 127.0.0.1") as started:
        yield started


@pytest.fixture
def browser(chrome: Chrome, vault: Vault) -> Iterator[Browser]:
    """The browser with a session of the vault."""
    person = Browser(chrome, vault)
    person.sign_in()
    yield person
    chrome.delete_all_cookies()
