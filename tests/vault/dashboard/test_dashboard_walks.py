"""Whole walks through the dashboard: without scripts, and with the keyboard only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver import ActionChains, Chrome, Keys

from tests.vault.support.dashboard import Browser
from tests.vault.support.served_vault import Agent, Vault
from vault.dashboard.sessions import IDLE_MS

WITHOUT_SCRIPTS = "Emulation.setScriptExecutionDisabled"
MAX_STOPS = 200  # of the Tab key on one page
FOCUSED = """
const found = document.activeElement, style = getComputedStyle(found);
const isVisible = parseFloat(style.outlineWidth) > 0 && style.outlineStyle !== "none";
return [found.textContent.trim() || found.name || "", isVisible];
"""


@pytest.fixture
def without_scripts(browser: Browser) -> Iterator[Browser]:
    browser.driver.execute_cdp_cmd(WITHOUT_SCRIPTS, {"value": True})
    yield browser
    browser.driver.execute_cdp_cmd(WITHOUT_SCRIPTS, {"value": False})


def test_everything_works_without_scripts(without_scripts: Browser, vault: Vault) -> None:
    browser, agent = without_scripts, vault.pending()
    browser.driver.delete_all_cookies()
    browser.sign_in()
    browser.press("AI agent")
    browser.press("Approve")
    browser.until(lambda: "Approved" in browser.main)
    assert agent.get("/v1/ai/whoami")["agentId"] == agent.id
    browser.open("")
    browser.press("Create a project")
    browser.type("name", "Webshop")
    browser.press("Create project")
    browser.until(lambda: "Webshop" in browser.main and not browser.all("[required]"))
    project = agent.get("/v1/ai/projects")[0]
    browser.open(f"/projects/{project['id']}/secrets/new")
    browser.type("name", "DB_PASSWORD")
    browser.type("value", "of no use")
    browser.press("Create secret")
    browser.until(lambda: "DB_PASSWORD" in browser.one("h1").text)
    secret = agent.get(f"/v1/ai/projects/{project['id']}/secrets")[0]
    assert vault.value(secret["id"]) == "of no use"
    browser.open("/audit?action=secret_create")
    assert "DB_PASSWORD" in browser.main
    browser.open("/vault")
    browser.press("Seal the vault")  # a question that opens without a script
    browser.press("Seal now")
    browser.until(lambda: "The vault is sealed" in browser.main)
    browser.press("Unseal the vault")
    browser.until(lambda: "The vault is unsealed." in browser.main)
    browser.press("Lock")
    browser.until(lambda: "locked" in browser.main)
    assert vault.audited("ai_agent_approve")[-1]["user_id"] == "owner"


def test_everything_works_with_the_keyboard(browser: Browser, vault: Vault, chrome: Chrome) -> None:
    agent = vault.pending()
    keyboard = Keyboard(chrome)
    browser.open("")
    keyboard.go_to("Skip to content")
    keyboard.press(Keys.ENTER)
    keyboard.go_to("AI agent")
    keyboard.press(Keys.ENTER)
    browser.until(lambda: agent.id in browser.main)
    keyboard.go_to("Approve")
    keyboard.press(Keys.ENTER)
    browser.until(lambda: "Approved" in browser.main)
    project = agent.project("Webshop")
    browser.open(f"/projects/{project}/secrets/new")
    keyboard.go_to("Skip to content")
    keyboard.press(Keys.ENTER)
    keyboard.go_to("name")
    keyboard.press("DB_PASSWORD")
    keyboard.go_to("value")
    keyboard.press("of no use")
    keyboard.go_to("Create secret")
    keyboard.press(Keys.ENTER)
    browser.until(lambda: "DB_PASSWORD" in browser.one("h1").text)
    browser.open("/vault")
    keyboard.go_to("Seal the vault")
    keyboard.press(Keys.SPACE)
    keyboard.go_to("Seal now")
    keyboard.press(Keys.ENTER)
    browser.until(lambda: "The vault is sealed" in browser.main)
    keyboard.go_to("Lock")
    keyboard.press(Keys.ENTER)
    browser.until(lambda: "locked" in browser.main)
    assert vault.store.sealed


def test_the_menu_of_a_narrow_screen_works_with_the_keyboard(browser: Browser, chrome: Chrome) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open("")
        assert not browser.one("nav.side").is_displayed()
        keyboard = Keyboard(chrome)
        keyboard.go_to("Menu")
        keyboard.press(Keys.ENTER)
        assert browser.one("nav.side").is_displayed()
        keyboard.go_to("Audit log")
        keyboard.press(Keys.ENTER)
        browser.until(lambda: browser.driver.current_url == f"{browser.base}/audit")
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert chrome.execute_script(wide) == 0
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_is_new_appears_by_itself(browser: Browser, vault: Vault, agent: Agent) -> None:
    browser.open("/audit")
    agent.project("Webshop")
    browser.until(lambda: "project create" in browser.main)
    browser.open("")
    assert "Waiting for your approval" not in browser.main
    vault.pending()
    browser.driver.execute_script("return refresh()")  # now, instead of in three seconds
    assert "Waiting for your approval" in browser.main
    vault.store.seal(vault.clock())
    with suppress(JavascriptException):  # the page's own refresh may be quicker, and the page gone
        browser.driver.execute_script("refresh()")
    browser.until(lambda: "The vault is sealed" in browser.driver.page_source)
    vault.store.unseal(vault.clock(), None)
    browser.open("")
    vault.clock.advance(IDLE_MS // 1000)
    browser.driver.execute_script("refresh()")
    browser.until(lambda: "The session has ended" in browser.main)


def test_a_double_click_sends_a_form_once(browser: Browser, vault: Vault) -> None:
    browser.open("/projects/new")
    browser.type("name", "Webshop")
    ActionChains(browser.driver).double_click(browser.one("main button.primary")).perform()
    browser.until(lambda: "Created Webshop" in browser.main)
    assert len(vault.audited("project_create")) == 1


def test_what_was_typed_survives_the_end_of_the_session(browser: Browser, vault: Vault, agent: Agent) -> None:
    browser.open(f"/agents/{agent.id}")
    browser.type("name", "a name that took long to find")
    vault.clock.advance(IDLE_MS // 1000)
    browser.driver.execute_script("return refresh()")  # the page has regions that stay up to date
    for _ in range(2):
        browser.press("Rename")
        browser.until(lambda: "The session has ended, and nothing was sent." in browser.main)
        assert f"python -m vault dashboard --dir {vault.directory}." in browser.main
    page = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.sign_in()
    browser.driver.close()
    browser.driver.switch_to.window(page)
    browser.press("Rename")
    browser.until(lambda: "Renamed the agent to a name that took long to find." in browser.main)
    assert len(vault.audited("ai_agent_rename")) == 1


class Keyboard:
    """Somebody who has no mouse, and must see where they are."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def press(self, keys: str) -> None:
        """Type on what has the focus."""
        self.driver.switch_to.active_element.send_keys(keys)

    def go_to(self, wanted: str) -> None:
        """Press Tab until something with this text or field name has the focus, which must be visible all the way."""
        for _ in range(MAX_STOPS):
            self.press(Keys.TAB)
            text, is_visible = self.driver.execute_script(FOCUSED)
            assert is_visible, text
            if text == wanted:
                return
        raise AssertionError(f"the Tab key does not lead to {wanted}")
