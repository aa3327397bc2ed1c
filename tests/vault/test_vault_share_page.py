"""The page of a temporary secret in a real browser: Chromium, headless, driven through chromedriver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.rows import each_of
from tests.vault.support.served_vault import Agent, FakeClock, Vault

if TYPE_CHECKING:  # each process of the suite would spend a third of a second on loading the driver
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

EVERY_CONTROL = "".join(map(chr, [*range(1, 32), *range(127, 160)]))
PARTS = [
    "\n\n  two  spaces\tand a tab  ",
    "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">&amp;&lt;</pre>'",
    "unix\nwindows\r\nold\rend",
    "søger \U0001f511 e\u0301 \u202eright to left\u202c \u200bzero width\ufeff \u2028 \uffff",
    f"a{EVERY_CONTROL}z",
    "{value} {0} %s $name",
    "x" * 5_000,
    "\n\n\n",
]
VALUES = {"of every kind": "\n".join(PARTS), "empty": ""}  # in one value: a page takes a quarter of a second


class Page:
    """The actions of a person on the page."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    @property
    def title(self) -> str:
        return self.browser.title

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def enter(self, passphrase: str) -> None:
        """Type, press Enter, and wait for the next page."""
        from selenium.webdriver.support.expected_conditions import staleness_of
        from selenium.webdriver.support.wait import WebDriverWait

        before = self.one("html")
        self.one("#passphrase").send_keys(passphrase, Keys.ENTER)
        # Asked just while one page takes the other's place, Chromium has words of its own for an element that is gone.
        WebDriverWait(self.browser, 20, ignored_exceptions=[WebDriverException]).until(staleness_of(before))

    def complaints(self) -> list[str]:
        """The browser's messages since the last call, for example about blocked styles, scripts and forms."""
        logged = self.browser.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in logged if "responded with a status of 4" not in entry["message"]]

    def value(self) -> Any:
        return self.browser.execute_script("return document.getElementById('value').textContent")


@pytest.fixture
def page(chrome: Chrome) -> Iterator[Page]:
    chrome.get("about:blank")
    opened = Page(chrome)
    opened.complaints()
    yield opened
    assert opened.complaints() == []


def made(agent: Agent, value: str = "hunter2", name: str = "db") -> dict[str, Any]:
    path = f"/v1/ai/projects/{agent.project()}/temporary-secrets"
    created: dict[str, Any] = agent.post(path, {"name": name, "value": value, "expiresInSeconds": 600})
    return created


def test_a_person_can_open_a_secret_with_the_keyboard_alone(page: Page, agent: Agent) -> None:
    created = made(agent, name="<b>db</b> & co")
    page.browser.get(created["url"])
    field = page.browser.switch_to.active_element
    assert (page.title, field.aria_role, field.accessible_name) == ("A secret for you", "textbox", "Passphrase")
    assert "1 January 2026, 00:10 UTC" in page.one("main").text
    page.enter(created["passphrase"])
    assert (page.title, page.value()) == ("Here is the secret", "hunter2")
    assert page.one("pre").accessible_name == "<b>db</b> & co"
    page.browser.switch_to.active_element.send_keys(Keys.TAB)
    assert page.browser.switch_to.active_element.get_attribute("id") == "value"


@each_of("kind", VALUES)
def test_a_value_is_shown_exactly(page: Page, agent: Agent, kind: str) -> None:
    created = made(agent, VALUES[kind])
    page.browser.get(created["url"])
    page.enter(created["passphrase"])
    assert (page.value(), page.title) == (VALUES[kind], "Here is the secret")


def test_a_double_click_shows_the_value(page: Page, agent: Agent) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    created = made(agent)
    page.browser.get(created["url"])
    page.one("#passphrase").send_keys(created["passphrase"])
    ActionChains(page.browser).double_click(page.one("button")).perform()
    WebDriverWait(page.browser, 20).until(lambda _: page.title != "A secret for you")
    assert page.title == "Here is the secret"


def test_a_reload_or_a_step_back_does_not_show_it_again(page: Page, agent: Agent, clock: FakeClock) -> None:
    created = made(agent)
    page.browser.get(created["url"])
    page.enter(created["passphrase"])
    clock.advance(2)
    page.browser.refresh()
    assert page.title == "This secret is gone"
    page.browser.back()
    assert "hunter2" not in page.browser.page_source
    page.browser.get(created["url"])
    assert "has been shown already" in page.one("main").text


def test_a_wrong_passphrase_destroys_the_secret_and_says_so(page: Page, agent: Agent) -> None:
    created = made(agent)
    page.browser.get(created["url"])
    page.enter("wrong")
    assert (page.title, "has been destroyed" in page.one("main").text) == ("Wrong passphrase", True)
    page.browser.get(created["url"])
    assert "Somebody entered a wrong passphrase" in page.one("main").text


def test_an_empty_field_is_not_sent(page: Page, agent: Agent) -> None:
    created = made(agent)
    page.browser.get(created["url"])
    page.one("button").click()
    assert page.title == "A secret for you"
    page.enter(created["passphrase"])
    assert page.value() == "hunter2"


def test_a_second_window_shows_that_the_secret_is_gone(page: Page, agent: Agent) -> None:
    created = made(agent)
    first = page.browser.current_window_handle
    page.browser.get(created["url"])
    page.browser.switch_to.new_window("window")
    page.browser.get(created["url"])
    page.enter(created["passphrase"])
    assert page.value() == "hunter2"
    page.browser.close()
    page.browser.switch_to.window(first)
    page.enter(created["passphrase"])
    assert (page.title, "somebody else has seen it" in page.one("main").text) == ("This secret is gone", True)


def test_the_page_loads_nothing_from_other_hosts(page: Page, vault: Vault, agent: Agent) -> None:
    created = made(agent)
    page.browser.get(created["url"])
    page.enter(created["passphrase"])
    entries = page.browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in entries if not name.startswith(f"http://127.0.0.1:{vault.port}/")] == []
    assert page.browser.execute_script("return [document.scripts.length, document.images.length]") == [0, 0]
    page.browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'document.title = 1'; document.body.append(script)"
    )
    assert page.title == "Here is the secret"
    assert ["Content Security Policy" in complaint for complaint in page.complaints()] == [True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in_both_color_schemes_and_on_a_phone(page: Page, agent: Agent, scheme: str) -> None:
    created = made(agent, "v" * 500)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.browser.get(created["url"])
        backgrounds = [_colour(page, "main", "background-color")]
        assert (_luminance(backgrounds[0]) > 0.5) == (scheme == "light")
        for selector in ("h1", "p", ".note", "label"):
            assert _contrast(_colour(page, selector, "color"), backgrounds[0]) >= 4.5, selector
        for selector in ("#passphrase", "button"):
            pair = _colour(page, selector, "color"), _colour(page, selector, "background-color")
            assert _contrast(*pair) >= 4.5, selector
        assert _fits(page)
        page.enter(created["passphrase"])
        assert _contrast(_colour(page, "pre", "color"), _colour(page, "pre", "background-color")) >= 4.5
        assert _fits(page)
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def _fits(page: Page) -> bool:
    return bool(page.browser.execute_script("return document.scrollingElement.scrollWidth <= window.innerWidth"))


def _colour(page: Page, selector: str, name: str) -> list[float]:
    """Red, green and blue, from 0 to 1."""
    value = page.one(selector).value_of_css_property(name)
    return [int(part) / 255 for part in value[value.index("(") + 1 : -1].split(",")[:3]]


def _luminance(colour: list[float]) -> float:
    """WCAG 2's relative luminance."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: list[float], other: list[float]) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
