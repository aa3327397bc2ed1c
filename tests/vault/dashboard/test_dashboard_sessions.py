"""Signing in to the dashboard, and what every page refuses."""

from __future__ import annotations

import re

from tests.vault.support.dashboard import Browser, SignedIn, has_cookie, pages_of, problem
from tests.vault.support.served_vault import ROOT, Vault, exchange
from vault.dashboard import sessions
from vault.dashboard.index import PAGES
from vault.dashboard.web import HOME
from vault.schema import open_store


def filled(path: str) -> str:
    """The path with something for each parameter."""
    return HOME + re.sub(r"\{\w+\}", "x", path)


def test_a_link_works_once_and_for_five_minutes(vault: Vault) -> None:
    link = f"{HOME}/sign-in/{vault.sessions.mint_link()}"
    assert exchange(vault.port, "GET", link, b"", []).status == 200
    again = exchange(vault.port, "GET", link, b"", [])
    assert (again.status, "set-cookie" in again.headers) == (401, False)
    late = f"{HOME}/sign-in/{vault.sessions.mint_link()}"
    vault.clock.advance(5 * 60)
    assert exchange(vault.port, "GET", late, b"", []).status == 401


def test_a_session_ends_when_it_is_idle_or_old_or_locked(vault: Vault) -> None:
    idle = SignedIn(vault)
    vault.clock.advance(sessions.IDLE_MS // 1000 - 1)
    assert idle.get("").status == 200
    vault.clock.advance(sessions.IDLE_MS // 1000)
    assert idle.get("").status == 401
    old = SignedIn(vault)
    for _ in range(sessions.LIFE_MS // sessions.IDLE_MS * 2 - 1):
        vault.clock.advance(sessions.IDLE_MS // 2000)
        assert old.get("").status == 200
    vault.clock.advance(sessions.IDLE_MS // 2000)
    assert old.get("").status == 401
    locked = SignedIn(vault)
    reply = locked.send("/lock", {"csrf": locked.csrf})
    assert reply.status == 200
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert locked.get("").status == 401


class Time:
    """A clock that a test sets."""

    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def test_what_a_session_keeps_is_forgotten_in_time() -> None:
    time = Time()
    kept = sessions.Sessions(time)
    session, other = (kept.find(kept.sign_in(kept.mint_link()) or "") for _ in range(2))
    assert session is not None
    session.keep("draft", "value", 1_000)
    session.keep("reveal", "hunter2", 2_000)
    assert "hunter2" not in repr(session)
    assert (session.kept("draft", 999), session.kept("draft", 1_000)) == ("value", None)
    assert (session.take("reveal", 1_999), session.take("reveal", 1_999)) == ("hunter2", None)
    session.keep("draft", "value", 3_000)
    time.now_ms = 3_000
    kept.find("")  # any request drops what is old from every session
    assert other is not None
    assert session._kept == {}


def test_five_wrong_confirmations_in_a_quarter_of_an_hour_are_too_many() -> None:
    time = Time()
    kept = sessions.Sessions(time)
    for now_ms in (0, 100, 200, 300, 400):
        assert kept.wait_ms() == 0
        time.now_ms = now_ms
        kept.count_wrong()
    quarter_ms = 15 * 60 * 1000
    time.now_ms = quarter_ms - 1
    assert kept.wait_ms() == 1
    time.now_ms = quarter_ms
    assert kept.wait_ms() == 0
    kept.count_wrong()
    assert kept.wait_ms() == 100


def test_the_oldest_of_many_links_and_sessions_ends() -> None:
    kept = sessions.Sessions(Time())
    first, second, *_ = [kept.mint_link() for _ in range(21)]
    assert kept.sign_in(first) is None
    oldest = kept.sign_in(second) or ""
    cookies = [kept.sign_in(kept.mint_link()) or "" for _ in range(20)]
    assert kept.find(oldest) is None
    assert None not in [kept.find(cookie) for cookie in cookies]


def test_a_clock_that_is_set_back_keeps_nothing_alive(vault: Vault) -> None:
    signed_in, link = SignedIn(vault), f"{HOME}/sign-in/{vault.sessions.mint_link()}"
    for _ in range(sessions.MAX_WRONG):
        vault.sessions.count_wrong()
    vault.clock.advance(-10)
    assert signed_in.get("").status == 200
    vault.clock.advance(-24 * 3600)
    assert signed_in.get("").status == 401
    assert exchange(vault.port, "GET", link, b"", []).status == 401
    assert vault.sessions.wait_ms() == 0  # not a whole day


def test_live_updates_do_not_keep_a_session_alive(signed_in: SignedIn) -> None:
    for _ in range(2):
        signed_in.vault.clock.advance(sessions.IDLE_MS // 2000)
        reply = signed_in.get("", ("X-Requested-By", "live-update"))
    assert reply.status == 401


def test_a_live_update_of_another_tab_takes_no_message(signed_in: SignedIn) -> None:
    signed_in.post("/alerts/choose")
    assert b"Alerts are on for 0 of" not in signed_in.get("/alerts", ("X-Requested-By", "live-update")).raw
    assert "Alerts are on for 0 of" in signed_in.text("/alerts")
    assert "Alerts are on for 0 of" not in signed_in.text("/alerts").partition('<section id="alerts"')[0]


def test_every_page_needs_a_session_and_says_how_to_get_one(vault: Vault) -> None:
    for page in PAGES:
        if page.is_open:
            continue
        headers = [("Cookie", "sikkerkey_dashboard=x"), ("Origin", f"http://127.0.0.1:{vault.port}")]
        reply = exchange(vault.port, page.method, filled(page.path), b"", headers)
        assert reply.status == 401, page.path
        assert b"sikkerkey-vault.pyz dashboard" in reply.raw, page.path
    for cookie in ("", "sikkerkey_dashboard=", "sikkerkey_dashboard=" + "x" * 4000):
        assert exchange(vault.port, "GET", HOME, b"", [("Cookie", cookie)]).status == 401, cookie


def test_every_form_needs_the_sessions_token_and_the_vaults_origin(signed_in: SignedIn) -> None:
    other = SignedIn(signed_in.vault)
    port = signed_in.vault.port
    foreign = (
        "null",
        "http://evil.example",
        f"http://localhost:{port}",
        "http://127.0.0.1",
        f"https://127.0.0.1:{port}",
    )
    for page in PAGES:
        if page.method != "POST":
            continue
        path = filled(page.path).removeprefix(HOME)
        is_first = page is next(each for each in PAGES if each.method == "POST")
        for fields in ({"csrf": other.csrf}, {}, {"csrf": ""}, {"csrf": "x"})[: None if is_first else 1]:
            reply = signed_in.send(path, fields)
            assert (reply.status, "another session" in problem(reply)) == (403, True), path
        for origin in foreign[: None if is_first else 1]:
            reply = signed_in.send(path, {"csrf": signed_in.csrf}, ("Origin", origin))
            assert (reply.status, "another site" in problem(reply)) == (403, True), (path, origin)


def test_answers_have_the_headers_that_keep_other_sites_out(signed_in: SignedIn) -> None:
    style = re.search(r'href="/dashboard(/static/[^"]+\.css)"', signed_in.text(""))
    assert style
    for path in ("", "/nothing", "/sign-in/x", style[1]):
        headers = signed_in.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert ("no-store" in headers["cache-control"]) == (path != style[1])


def test_another_host_is_refused(signed_in: SignedIn) -> None:
    assert signed_in.get("", ("Host", "evil.example")).status == 421


def test_a_sealed_vault_asks_for_its_passphrase(signed_in: SignedIn) -> None:
    signed_in.vault.store.seal(signed_in.vault.clock())
    assert signed_in.get("").headers["location"] == "/dashboard/unseal"
    assert signed_in.post("/unseal") == ""
    assert "The vault is open." in signed_in.text("")


def test_every_link_of_the_navigation_leads_to_a_page_that_is_documented(signed_in: SignedIn) -> None:
    documented = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    links = re.findall(r'<li><a href="/dashboard([^"]*)"[^>]*>([^<]+)<', signed_in.text(""))
    assert len(links) > 10
    for path, name in links:
        signed_in.text(path)
        assert f"\n| {name} | " in documented


def test_a_browser_signs_in_and_locks(browser: Browser) -> None:
    browser.driver.delete_all_cookies()
    browser.sign_in()
    assert "Overview" in browser.main
    assert "/projects" in pages_of(browser)
    browser.press("Lock")
    browser.until(lambda: "locked" in browser.main)
    assert not has_cookie(browser.driver)
    browser.open("")
    assert "Sign in" in browser.main


def test_a_full_disk_and_a_busy_database_are_named(signed_in: SignedIn) -> None:
    store = signed_in.vault.store
    store._db.execute("PRAGMA busy_timeout = 0")
    with open_store(store.directory) as other, other.transaction():
        assert signed_in.refused("/projects/new", {"name": "x"}) == (503, "This vault is busy.")
    with store.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    form = {"csrf": signed_in.csrf, "name": "x", "description": "d" * 10_000}
    for _ in range(5):
        reply = signed_in.send("/projects/new", form)
    assert (reply.status, problem(reply)) == (507, "The disk of this vault is full.")
