"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.served_vault import Vault


@pytest.fixture
def signed_in(vault: Vault) -> SignedIn:
    return SignedIn(vault)


@pytest.fixture
def browser(chrome: Chrome, vault: Vault) -> Iterator[Browser]:
    """The browser with a session of the vault."""
    person = Browser(chrome, vault)
    person.sign_in()
    yield person
    chrome.delete_all_cookies()
