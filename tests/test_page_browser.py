"""The one-time page in a real browser: Chromium, headless, driven through chromedriver."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

import sikkerkey_page
from sikkerkey_tickets import LIFE_S
from tests.conftest import EVIL_HOST
from tests.support.person_pages import CONFIRM, FILL, SHOW, TIMEOUT_S, Desk
from tools.page_screenshots import PAGES

VALUE = "hunter2-m4rked"


@pytest.fixture
def browser(chrome: Chrome) -> Chrome:
    """The browser of all tests."""
    return chrome


class Person:
    """What a person does and sees."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def one(self, selector: str) -> WebElement:
        """The element of a CSS selector."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    @property
    def focus(self) -> WebElement:
        """The element that the keyboard acts on."""
        return self.browser.switch_to.active_element

    @property
    def heading(self) -> str:
        """The main heading."""
        return self.one("h1").text

    def press(self, *keys: str) -> None:
        """Types into whatever has the focus."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def sees(self, heading: str) -> None:
        """Waits for a page."""
        # Asked just while one page takes the other's place, Chromium has words of its own for an element that is gone.
        waiting = WebDriverWait(self.browser, TIMEOUT_S, 0.05, ignored_exceptions=[WebDriverException])
        waiting.until(lambda _: self.heading == heading)

    def masking(self, selector: str = "textarea") -> str:
        """How a field hides what is typed."""
        return self.one(selector).value_of_css_property("-webkit-text-security")

    def complaints(self) -> list[str]:
        """The browser's messages, for example about blocked styles, scripts and forms."""
        logged = self.browser.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in logged if "responded with a status of 4" not in entry["message"]]


@pytest.fixture
def person(browser: Chrome) -> Iterator[Person]:
    """A person in front of an empty page, about which the browser has nothing to complain in the end."""
    browser.get("about:blank")
    person = Person(browser)
    person.complaints()
    yield person
    assert person.complaints() == []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Tickets and pages."""
    return Desk(tmp_path)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Another site."""
    with Elsewhere() as site:
        yield site


class Elsewhere(http.server.ThreadingHTTPServer):
    """A site of somebody else, which has one page."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OnePage)
        self.page = ""
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class OnePage(http.server.BaseHTTPRequestHandler):
    """Always the same page."""

    server: Elsewhere

    def do_GET(self) -> None:
        """Sends it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.page.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def test_the_keyboard_is_enough(person: Person, desk: Desk) -> None:
    visit = desk.open()
    person.browser.get(visit.url)
    field = person.focus
    assert (field.aria_role, field.accessible_name) == ("textbox", "Value")
    person.press("one", Keys.ENTER, "two")
    assert person.masking() == "disc"
    person.press(Keys.TAB)
    assert (person.focus.aria_role, person.focus.accessible_name) == ("checkbox", "Show what I type")
    person.press(Keys.SPACE)
    assert person.masking() == "none"
    person.press(Keys.SPACE)
    assert person.masking() == "disc"
    names = []
    for _ in range(2):
        person.press(Keys.TAB)
        names.append(person.focus.accessible_name)
        assert person.focus.value_of_css_property("outline-style") == "solid"
    assert names == ["Store it", "Refuse"]
    ActionChains(person.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    person.press(Keys.ENTER)
    person.sees("Stored")
    assert desk.clerk.carried == [(visit.code, {"": "one\ntwo"})]


def test_masks_are_pixels_too(person: Person, desk: Desk) -> None:
    """Two values of equal length look the same until they are revealed."""
    person.browser.get(desk.open().url)
    pictures = []
    for text in ("iiii", "WWWW"):
        field = person.one("textarea")
        field.clear()
        field.send_keys(text)
        person.press(Keys.TAB)
        pictures.append(field.screenshot_as_png)
    assert pictures[0] == pictures[1]
    person.press(Keys.SPACE)
    assert person.one("textarea").screenshot_as_png != pictures[1]


def test_fields_are_labelled_and_in_order(person: Person, desk: Desk) -> None:
    visit = desk.open(FILL._replace(fields=("user", "password", '"<b>&')))
    person.browser.get(visit.url)
    names = []
    for value in "123":
        names.append(person.focus.accessible_name)
        assert person.masking(f"#field{int(value) - 1}") == "disc"
        person.press(value, Keys.TAB)
    assert names == ["user", "password", '"<b>&']
    person.press(Keys.TAB, Keys.ENTER)
    person.sees("Stored")
    assert desk.clerk.carried[0][1] == {"user": "1", "password": "2", '"<b>&': "3"}


def test_an_empty_value_is_not_sent(person: Person, desk: Desk) -> None:
    visit = desk.open()
    person.browser.get(visit.url)
    person.one("button").click()
    assert (person.heading, visit.found.state) == (FILL.title, "waiting")


def test_a_refusal_sends_nothing_that_was_typed(person: Person, desk: Desk) -> None:
    """The page takes no refusal that brings more with it."""
    visit = desk.open()
    person.browser.get(visit.url)
    person.one("textarea").send_keys(VALUE)
    person.one(".refuse").click()
    person.sees("Refused")
    assert visit.found.state == "over"


def test_nothing_comes_back_with_the_back_button(person: Person, desk: Desk) -> None:
    visit = desk.open()
    person.browser.get(visit.url)
    person.one("textarea").send_keys(VALUE)
    person.one("button").click()
    person.sees("Stored")
    person.browser.back()
    assert VALUE not in person.browser.page_source
    person.browser.get(visit.url)
    person.sees("This is already done")
    assert len(desk.clerk.carried) == 1


def test_a_question_about_the_value_comes_with_an_empty_field(person: Person, desk: Desk) -> None:
    visit = desk.open()
    person.browser.get(visit.url)
    person.press(VALUE, Keys.ENTER, Keys.TAB, Keys.TAB, Keys.ENTER)
    WebDriverWait(person.browser, TIMEOUT_S, 0.05).until(lambda _: person.browser.find_elements(By.ID, "problem"))
    assert (person.focus.accessible_name, person.focus.get_property("value")) == ("Value", "")
    assert "ends with a line break" in person.one("#problem").text
    person.press(VALUE, Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER)
    person.sees("Stored")
    assert desk.clerk.carried == [(visit.code, {"": VALUE})]


def test_a_confirmation_needs_more_than_enter(person: Person, desk: Desk) -> None:
    visit = desk.open(CONFIRM)
    person.browser.get(visit.url)
    person.press(Keys.ENTER, Keys.SPACE)
    assert (person.heading, visit.found.state) == (CONFIRM.title, "waiting")
    person.press(Keys.TAB)
    assert person.focus.accessible_name == CONFIRM.title
    person.press(Keys.ENTER)
    person.sees("Done")


def test_a_double_click_creates_one_credential_and_shows_it(person: Person, desk: Desk) -> None:
    desk.clerk.shown = (("Token", f"{VALUE}\n  <b>"),)
    visit = desk.open(SHOW)
    person.browser.get(visit.url)
    ActionChains(person.browser).double_click(person.one("button")).perform()
    person.sees("Copy it now")
    shown = person.browser.execute_script("return document.getElementById('value0').textContent")
    assert (shown, len(desk.clerk.carried)) == (f"{VALUE}\n  <b>", 1)
    person.one("#value0").click()
    assert VALUE in person.browser.execute_script("return getSelection().toString()")
    assert person.one("#value0").accessible_name == "Token"


def test_a_form_leaves_a_forgotten_tab(person: Person, desk: Desk) -> None:
    visit = desk.open()
    desk.now_s += LIFE_S - 0.5
    person.browser.get(visit.url)
    person.one("textarea").send_keys(VALUE)
    desk.now_s += 1
    person.sees("This page has expired")


def test_the_page_is_found_through_the_file_that_redirects(person: Person, desk: Desk, tmp_path: Path) -> None:
    visit = desk.open()
    sikkerkey_page.open_browser(visit.url, visit.code, str(tmp_path))
    person.browser.get((tmp_path / f"sikkerkey-{visit.code}.html").as_uri())
    person.sees(FILL.title)
    assert desk.pages.was_opened(visit.code)


def test_another_site_cannot_answer(person: Person, desk: Desk, elsewhere: Elsewhere) -> None:
    """Not even if it knows the address and the hidden member."""
    visit = desk.open()
    members = (
        f'<input name="nonce" value="{visit.nonce()}"><input name="choice" value="go"><input name="field0" value="x">'
    )
    elsewhere.page = f'<form method="post" action="{visit.url}">{members}<button>Win</button></form>'
    person.browser.get(elsewhere.address)
    person.one("button").click()
    person.sees("404: nothing here")
    person.browser.get(elsewhere.address)
    person.browser.execute_async_script(
        "const done = arguments[1];"
        "const body = new URLSearchParams(new FormData(document.forms[0]));"
        "fetch(arguments[0], {method: 'POST', mode: 'no-cors', body}).then(done, done)",
        visit.url,
    )
    assert (visit.found.state, desk.clerk.carried) == ("waiting", [])
    person.complaints()  # Chromium says what it blocked


def test_another_site_cannot_frame_or_load_the_page(person: Person, desk: Desk, elsewhere: Elsewhere) -> None:
    visit = desk.open()
    tags = f'<iframe src="{visit.url}"></iframe><embed src="{visit.url}"><img src="{visit.url}">'
    elsewhere.page = f'{tags}<script src="{visit.url}"></script><link rel="prefetch" href="{visit.url}">'
    person.browser.get(elsewhere.address)
    person.browser.execute_async_script(
        "const done = arguments[1]; fetch(arguments[0], {mode: 'no-cors'}).then(done, done)", visit.url
    )
    assert not desk.pages.was_opened(visit.code)
    person.complaints()  # likewise


def test_another_name_of_this_computer_leads_nowhere(person: Person, desk: Desk) -> None:
    visit = desk.open()
    for host in (EVIL_HOST, "localhost"):
        person.browser.get(visit.url.replace("127.0.0.1", host))
        person.sees("404: nothing here")
    assert not desk.pages.was_opened(visit.code)
    person.complaints()  # a header is ignored there, because http is safe only under names of this computer


def test_the_page_runs_no_script_and_loads_nothing(person: Person, desk: Desk) -> None:
    visit = desk.open()
    person.browser.get(visit.url)
    script = "return [document.scripts.length, performance.getEntriesByType('resource').map(entry => entry.name)]"
    assert person.browser.execute_script(script) == [0, []]
    person.browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'document.title = 1'; document.body.append(script)"
    )
    assert person.browser.title == "Type a value - sikkerkey-mcp"
    assert ["Content Security Policy" in complaint for complaint in person.complaints()] == [True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_narrow_window(person: Person, scheme: str, tmp_path: Path) -> None:
    """320 pixels, which is also a window of 1280 at a zoom of 400 %."""
    browser, file = person.browser, tmp_path / "page.html"
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for name in ("fill-long", "fill-again", "fill-structured", "show-done", "confirm"):
            file.write_text(PAGES[name], encoding="utf-8")
            browser.get(file.as_uri())
            fits = "return document.scrollingElement.scrollWidth <= window.innerWidth"
            assert browser.execute_script(fits), name
            paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert paper == {"light": "rgb(244, 245, 248)", "dark": "rgb(18, 21, 29)"}[scheme], name
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
