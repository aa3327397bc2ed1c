"""What other sites, hostile names and stolen links can do to the dashboard: nothing. Most of it in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.conftest import EVIL_HOST
from tests.vault.support.dashboard import Browser, SignedIn, has_cookie
from tests.vault.support.filled_vault import fill, ordinary, pages_to_see
from tests.vault.support.served_vault import Agent, Vault, exchange
from vault.dashboard.index import PAGES
from vault.dashboard.web import COOKIE, HOME
from vault.desk import Desk


@pytest.fixture
def browser(browser: Browser) -> Browser:
    """Signed in with a link, because these tests are about the cookie that the dashboard sets."""
    browser.driver.delete_all_cookies()
    browser.sign_in()
    return browser


# ---- names -----------------------------------------------------------------------------------------------------------

# Ends attributes, elements and scripts, makes elements of its own, and is a template and an override of direction.
HOSTILE = "<x-mark></title></script><script>window.xss=1</script>\"'><img src=x onerror=window.xss=1>{{7*7}}\u202e"
FOUND = """
const made = document.querySelectorAll("x-mark, img, iframe, script:not([src]), style, [style]").length;
const attributes = [...document.querySelectorAll("*")].flatMap(each => each.getAttributeNames());
const foreign = [...document.querySelectorAll("[src], [href], [action]")].map(each =>
  each.getAttribute("src") || each.getAttribute("href") || each.getAttribute("action"));
return {
  status: performance.getEntriesByType("navigation")[0].responseStatus,
  ran: window.xss === undefined ? "" : "ran", made,
  handlers: attributes.filter(name => name.startsWith("on")),
  foreign: foreign.filter(url => !url.startsWith("/dashboard") && !url.startsWith("#")),
};
"""


def hostile(kind: str) -> str:
    """A hostile name, as far as the vault takes it for this kind."""
    return {
        "url path": "/a\"'><script>window.xss=1</script><img/src=x/onerror=window.xss=1><x-mark>",
        "email": "'onclick=window.xss=1+'{{7*7}}&ltx-mark&gt@example.com",  # the vault takes no < > or double quotes
        "invited": "'onclick=window.xss=1+'{{7*7}}@example.org",
        "other project": HOSTILE + "2",
    }.get(kind, HOSTILE)


def log(browser: Browser) -> list[str]:
    """What the browser reported since the last call."""
    return [entry["message"] for entry in browser.driver.get_log("browser")]  # type: ignore[no-untyped-call]


def test_no_name_becomes_part_of_a_page(browser: Browser, vault: Vault) -> None:
    ids = fill(Desk(vault.store, vault.clock, webhooks_to_loopback=True), hostile)
    log(browser)
    names_seen = 0
    for path in pages_to_see(ids):
        browser.open(path)
        found = browser.driver.execute_script(FOUND)
        expected = {"status": 200, "ran": "", "made": 0, "handlers": [], "foreign": []}
        assert found == expected, path
        names_seen += "<x-mark>" in browser.driver.execute_script("return document.documentElement.textContent")
    assert names_seen >= 5  # they were there, as text
    assert not [message for message in log(browser) if "Content Security Policy" in message]


def test_a_name_cannot_hide_or_reorder_what_a_page_says(signed_in: SignedIn, vault: Vault) -> None:
    ids = fill(Desk(vault.store, vault.clock, webhooks_to_loopback=True), hostile)
    for path in pages_to_see(ids):
        # Text fields hold a name as it is, because they send it back.
        html = signed_in.get(path).raw.decode()
        shown = re.sub(r'<textarea.*?</textarea>| value="[^"]*"', "", html, flags=re.DOTALL)
        assert "\u202e" not in shown, path


def test_a_blank_name_can_be_seen_and_clicked(signed_in: SignedIn, vault: Vault) -> None:
    blank = {"url path": "/hook", "email": "a@example.com", "invited": "b@example.com", "other project": " \u3000"}
    desk = Desk(vault.store, vault.clock, webhooks_to_loopback=True)
    ids = fill(desk, lambda kind: blank.get(kind, ordinary(kind) if kind in ("source", "field", "file") else "  "))
    for path in pages_to_see(ids):
        html = signed_in.get(path).raw.decode()
        for tag, content in re.findall(r"<(a|button|th|h1|h2|caption|legend|label)\b[^>]*>(.*?)</\1>", html, re.DOTALL):
            assert re.sub(r"<(?!svg|input|select)[^>]*>|\s", "", content), (path, tag, content)


# ---- other sites -----------------------------------------------------------------------------------------------------


class EvilSite(ThreadingHTTPServer):
    """A page of another site, as the browser knows it by another name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _EvilPage)
        self.page = ""
        self.url = f"http://{EVIL_HOST}:{self.server_address[1]}/"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _EvilPage(BaseHTTPRequestHandler):
    server: EvilSite

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(f"<!DOCTYPE html><title>evil</title>{self.server.page}".encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def evil() -> Iterator[EvilSite]:
    with EvilSite() as site:
        yield site


def csrf_of(browser: Browser) -> str:
    return str(browser.one('[name="csrf"]').get_attribute("value"))


def test_a_page_of_another_site_cannot_send_a_form(browser: Browser, vault: Vault, evil: EvilSite) -> None:
    """Not even with the right token, which it cannot know."""
    evil.page = f"""<form method="post" action="{browser.base}/vault/seal">
        <input name="csrf" value="{csrf_of(browser)}"><button>Win a prize</button></form>"""
    browser.driver.get(evil.url)
    browser.press("Win a prize")
    browser.until(lambda: browser.driver.current_url.startswith(browser.base))
    assert "Sign in" in browser.main  # a strict cookie is not sent with another site's request
    assert not vault.store.sealed
    browser.open("")
    assert "Overview" in browser.main  # the session goes on


def test_a_page_of_another_site_cannot_read_anything(browser: Browser, evil: EvilSite) -> None:
    evil.page = "<p>evil</p>"
    browser.driver.get(evil.url)
    script = """
        const done = arguments[arguments.length - 1];
        fetch(arguments[0], { credentials: "include" }).then(answer => answer.text(), () => "refused").then(done);
    """
    assert browser.driver.execute_async_script(script, browser.base) == "refused"


def test_a_link_on_another_site_does_not_act(browser: Browser, evil: EvilSite) -> None:
    evil.page = f'<a href="{browser.base}/audit">See this</a>'
    browser.driver.get(evil.url)
    browser.press("See this")
    browser.until(lambda: browser.driver.current_url == f"{browser.base}/audit")
    assert "Sign in" in browser.main


def test_the_dashboard_is_not_shown_in_a_frame(browser: Browser, evil: EvilSite) -> None:
    evil.page = f'<iframe src="{browser.base}/sign-in/x"></iframe>'
    browser.driver.get(evil.url)
    browser.driver.switch_to.frame(browser.one("iframe"))
    shown = browser.driver.find_elements(By.CSS_SELECTOR, "main h1")
    browser.driver.switch_to.default_content()
    assert shown == []


def test_a_name_that_leads_to_this_computer_is_refused(browser: Browser, vault: Vault) -> None:
    browser.driver.get(f"http://{EVIL_HOST}:{vault.port}{HOME}")
    assert "names another server" in browser.driver.page_source
    link = f"http://{EVIL_HOST}:{vault.port}{HOME}/sign-in/{vault.sessions.mint_link()}"
    browser.driver.get(link)
    assert "names another server" in browser.driver.page_source
    assert not has_cookie(browser.driver)


def test_a_form_with_a_wrong_token_changes_nothing(browser: Browser, vault: Vault) -> None:
    browser.open("/vault")
    for value in ("", "x"):
        script = "document.querySelectorAll('[name=csrf]').forEach(each => { each.value = arguments[0]; })"
        browser.driver.execute_script(script, value)
        # As without the pages' script, which would correct the token.
        browser.driver.execute_script("document.querySelector('form[action$=seal]').submit()")
        browser.until(lambda: "another session" in browser.main)
        browser.open("/vault")
    assert not vault.store.sealed


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_a_link_that_was_seen_does_not_work_again(browser: Browser, vault: Vault) -> None:
    link = f"{browser.base}/sign-in/{vault.sessions.mint_link()}"
    browser.driver.get(link)
    browser.until(lambda: browser.driver.current_url == browser.base)
    browser.driver.delete_all_cookies()
    browser.driver.get(link)
    assert "already used" in browser.main
    assert not has_cookie(browser.driver)


def test_a_cookie_from_before_signing_in_is_no_session(chrome: Chrome, vault: Vault) -> None:
    attacker = SignedIn(vault)
    for planted in ("chosen-by-the-attacker", attacker.cookie.partition("=")[2]):
        browser = Browser(chrome, vault)
        chrome.get(f"{browser.base}/nothing")
        chrome.delete_all_cookies()
        chrome.add_cookie({"name": COOKIE, "value": planted, "path": HOME})
        browser.sign_in()
        cookies = [each["value"] for each in chrome.get_cookies() if each["name"] == COOKIE]
        assert len(cookies) == 1
        assert planted not in cookies
        assert csrf_of(browser) != attacker.csrf
        chrome.delete_all_cookies()
    reply = exchange(vault.port, "GET", HOME, b"", [("Cookie", f"{COOKIE}=chosen-by-the-attacker")])
    assert reply.status == 401


def test_scripts_cannot_read_the_cookie(browser: Browser) -> None:
    assert browser.driver.execute_script("return document.cookie") == ""
    cookie = next(each for each in browser.driver.get_cookies() if each["name"] == COOKIE)
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", HOME)


def test_signing_in_leads_only_to_the_overview(browser: Browser, vault: Vault) -> None:
    for query in ("?next=https://evil.example/", "?to=//evil.example", "#//evil.example"):
        browser.driver.delete_all_cookies()
        browser.driver.get(f"{browser.base}/sign-in/{vault.sessions.mint_link()}{query}")
        browser.until(lambda: browser.driver.current_url == browser.base)


def test_no_redirect_leaves_the_dashboard(signed_in: SignedIn, agent: Agent) -> None:
    """Whatever is in the path or in the fields."""
    agent.project("Webshop")
    values = ("//evil.example/", "https://evil.example", "\\\\evil.example", "x\r\nLocation: https://evil.example")
    in_paths = ("..%2F..%2F%2Fevil.example", "%0D%0ALocation:%20https:%2F%2Fevil.example", "%5Cevil.example", "x")
    for page in PAGES:
        if page.method != "POST" or page.path in {"/lock", "/vault/seal"}:
            continue
        for in_path, value in zip(in_paths, values):
            path = re.sub(r"\{\w+\}", in_path.replace("\\", r"\\"), page.path)
            fields = dict.fromkeys(("name", "next", "to", "url", "path", "project", "status", "return"), value)
            reply = signed_in.send(path, {"csrf": signed_in.csrf, **fields})
            assert reply.status != 500, (page.path, in_path)
            location = reply.headers.get("location", HOME)
            assert re.fullmatch(rf"{HOME}(?:[/?#][!-~]*)?", location), (page.path, location)
            assert "/.." not in location, (page.path, location)
