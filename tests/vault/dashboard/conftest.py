"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.served_vault import Vault
from vault import peers


@pytest.fixture(autouse=True)
def _trusted_peers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not read the system's table of connections, which takes long where there are many."""
    if not request.module.__name__.endswith("test_dashboard_peers"):
        monkeypatch.setattr(peers, "may_be_owner", lambda *_: True)


@pytest.fixture
def signed_in(vault: Vault) -> SignedIn:
    return SignedIn(vault)


@pytest.fixture
def browser(chrome: Chrome, vault: Vault) -> Iterator[Browser]:
    """The browser with a session of the vault."""
    person = Browser(chrome, vault)
    person.continue_session()
    yield person
    chrome.delete_all_cookies()
