"""The dashboard in tests: a client that sends forms without a browser, and a real browser.

page = signed_in.get("/agents")                       # Reply; its text is the page
signed_in.post("/projects/create", {"name": "Webshop"})   # with the session's CSRF token; follows no redirect
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from urllib.parse import urlencode

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.vault.support.served_vault import Reply, Vault, exchange
from vault.dashboard.web import COOKIE, HOME

TIMEOUT_S = 20.0

FormFields = Mapping[str, "str | Sequence[str]"]


class SignedIn:
    """A session of the dashboard, as a browser without scripts has it."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.origin = f"http://127.0.0.1:{vault.port}"
        reply = exchange(vault.port, "GET", f"{HOME}/sign-in/{vault.sessions.mint_link()}", b"", [])
        assert reply.status == 200, reply
        self.cookie = reply.headers["set-cookie"].partition(";")[0]
        found = re.search(r'name="csrf" value="([^"]+)"', self.text(""))
        assert found
        self.csrf = found[1]

    def get(self, path: str, *headers: tuple[str, str]) -> Reply:
        """A page below /dashboard."""
        return exchange(self.vault.port, "GET", HOME + path, b"", [("Cookie", self.cookie), *headers])

    def text(self, path: str) -> str:
        """The HTML of a page that is there."""
        reply = self.get(path)
        assert reply.status == 200, (path, reply.status, problem(reply))
        return reply.raw.decode()

    def send(self, path: str, fields: FormFields, *headers: tuple[str, str]) -> Reply:
        """A form as given, with the headers of a browser unless others are given."""
        body = urlencode(fields, doseq=True).encode()
        usual = [
            ("Cookie", self.cookie),
            ("Origin", self.origin),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ]
        given = {name for name, _ in headers}
        return exchange(
            self.vault.port, "POST", HOME + path, body, [*(h for h in usual if h[0] not in given), *headers]
        )

    def post(self, path: str, fields: FormFields = {}) -> str:  # noqa: B006  # nobody changes it
        """Send a form that works, and return the path below /dashboard that it leads to."""
        reply = self.send(path, {"csrf": self.csrf, **fields})
        assert reply.status == 303, (path, reply.status, problem(reply))
        return reply.headers["location"].removeprefix(HOME)

    def refused(self, path: str, fields: FormFields = {}) -> tuple[int, str]:  # noqa: B006  # nobody changes it
        """Send a form that does not work, and return the status and the message."""
        reply = self.send(path, {"csrf": self.csrf, **fields})
        assert reply.status >= 400, (path, reply.status)
        return reply.status, problem(reply)


def problem(reply: Reply) -> str:
    """The message on a page that says what is wrong, or an empty string."""
    found = re.search(r'class="problem"[^>]*>(.*?)</', reply.raw.decode(), re.DOTALL)
    return unescape(found[1]).strip() if found else ""


class Browser:
    """What a person does and sees in a real browser."""

    def __init__(self, driver: Chrome, vault: Vault) -> None:
        self.driver, self.vault = driver, vault
        self.base = f"http://127.0.0.1:{vault.port}{HOME}"

    def sign_in(self) -> None:
        """Use a new link, and wait for the overview."""
        self.driver.get(f"{self.base}/sign-in/{self.vault.sessions.mint_link()}")
        self.until(lambda: self.driver.current_url == self.base)

    def continue_session(self) -> None:
        """Go to the overview in a new session, as if this browser had signed in before: two pages less."""
        cookie = {"name": COOKIE, "value": self.vault.sessions.sign_in(self.vault.sessions.mint_link())}
        more = {"url": self.base, "path": HOME, "httpOnly": True, "sameSite": "Strict"}
        self.driver.execute_cdp_cmd("Network.setCookie", {**cookie, **more})
        self.open("")

    def open(self, path: str) -> None:
        """Go to a page below /dashboard."""
        self.driver.get(self.base + path)

    def one(self, selector: str) -> WebElement:
        """The element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """The elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def press(self, label: str) -> None:
        """Click the button or link with this text, once it is there; a live update may replace it at any time."""
        quoted = f'"{label}"'
        path = f"//*[self::button or self::a or self::summary][normalize-space()={quoted}]"

        def click() -> bool:
            shown = [each for each in self.driver.find_elements(By.XPATH, path) if each.is_displayed()]
            if shown:
                shown[0].click()
            return bool(shown)

        self.until(click)

    def type(self, field: str, text: str) -> None:
        """Replace what is in a field, given by its name."""
        selector = f'main [name="{field}"]'  # not the search at the top
        self.until(lambda: self.all(selector))
        self.one(selector).clear()
        self.one(selector).send_keys(text)

    def until(self, condition: object) -> None:
        """Wait until a function returns something true. The page may change while it looks."""
        # The driver has several errors for a document that was replaced while it read an element.
        waiting = WebDriverWait(self.driver, TIMEOUT_S, 0.05, ignored_exceptions=[WebDriverException])
        waiting.until(lambda _: condition())  # type: ignore[operator]

    @property
    def main(self) -> str:
        """The visible text of the page's main part."""
        return self.one("main").text


def has_cookie(driver: Chrome) -> bool:
    """Whether the browser has a session."""
    return any(each["name"] == COOKIE for each in driver.get_cookies())


def pages_of(browser: Browser) -> Iterator[str]:
    """The paths that the navigation leads to."""
    for link in browser.all("nav.side a"):
        yield str(link.get_attribute("href")).removeprefix(browser.base)
