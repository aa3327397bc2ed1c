"""The one-time page: what it shows, what it takes, and everything that it refuses."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

import sikkerkey_page
import sikkerkey_page_html
from sikkerkey_page import can_open_browser, open_browser
from sikkerkey_tickets import LIFE_S, REFUSED, Invalid, NotWaiting, Outcome, Tickets
from tests.support.person_pages import CONFIRM, FILL, NOW_S, SHOW, TIMEOUT_S, Desk, Reply, Visit
from tests.support.table_calls import for_each
from tools.page_screenshots import PAGES

VALUE = "hunter2-m4rked"
as_root = hasattr(os, "getuid") and os.getuid() == 0
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the owners of connections are in /proc")
root_only = pytest.mark.skipif(not as_root, reason="only root can act as another user")
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and scripts are POSIX's")
NOBODY = 65534


@pytest.fixture
def desk(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk that writes nothing to stdout and stderr, whatever is sent to it, and expects no double click."""
    monkeypatch.setattr(sikkerkey_page, "DOUBLE_CLICK_S", -1.0)
    yield Desk(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def _trusted_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the search for the owner of each connection, which takes Linux some 10 ms."""
    monkeypatch.setattr(sikkerkey_page, "_is_own_peer", lambda *_: True)


# what a person sees and does


def test_the_form_says_what_is_asked(desk: Desk) -> None:
    visit = desk.open(FILL._replace(quoted=(("Note", "from the dashboard"),), warning="Three machines read it."))
    assert not desk.pages.was_opened(visit.code)
    reply = visit.get()
    assert (reply.status, reply.heading) == (200, FILL.title)
    said = re.sub("<[^>]*>", "", reply.text)
    for text in (
        visit.code,
        "Webshop",
        "Acme",
        "laptop",
        "from the dashboard",
        "Three machines",
        "10 minutes",
        "Refuse",
    ):
        assert text in said, text
    assert desk.pages.was_opened(visit.code)


def test_a_value_is_stored_once(desk: Desk) -> None:
    visit = desk.open()
    reply = visit.answer(VALUE)
    assert (reply.status, reply.heading) == (200, "Stored")
    assert "Version 7 is in the vault." in reply.text
    assert "I&#x27;m done, continue" in reply.text
    assert desk.clerk.carried == [(visit.code, {"": VALUE})]
    for again in (visit.get(), visit.answer("other")):
        assert again.heading == "This is already done"
    assert len(desk.clerk.carried) == 1
    files = [file for file in desk.directory.parent.rglob("*") if file.is_file()]
    assert (len(files), [file for file in files if VALUE in file.read_text()]) == (1, [])


def test_the_address_stays_the_same_while_a_ticket_waits(desk: Desk) -> None:
    visit = desk.open()
    assert desk.pages.url(visit.code) == visit.url
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/[\w-]{32}", visit.url)
    other = desk.open(FILL._replace(digest="d2"))
    assert (other.port, other.path != visit.path) == (visit.port, True)


EXACT = {
    "line breaks of a browser": ("a\r\nb", "a\nb"),
    "unix": ("a\nb", "a\nb"),
    "a file": ("-----BEGIN-----\r\nabc\r\n-----END-----\r\n", "-----BEGIN-----\nabc\n-----END-----\n"),
    "unicode": ("sø\U0001f511 e\u0301", "sø\U0001f511 e\u0301"),
    "reserved": ("a&b=c+d%20;e", "a&b=c+d%20;e"),
    "markup": ("</textarea><script>", "</textarea><script>"),
}


@pytest.mark.usefixtures("_trusted_peers")
def test_a_value_is_taken_exactly(desk: Desk) -> None:
    for name, (sent, expected) in EXACT.items():
        reply = desk.open(FILL._replace(digest=name)).answer(sent)
        assert (reply.heading, desk.clerk.carried[-1][1]) == ("Stored", {"": expected}), name
        assert ("exactly as you typed it" in reply.text) == (name == "a file"), name


@for_each([f"{VALUE}\r\n", f" {VALUE}", f"{VALUE}\t", "\r\na\r\nb", "a\r\nb\r\n\r\n"])
def test_blanks_at_the_ends_are_never_kept_or_removed_silently(value: str) -> None:
    assert sikkerkey_page_html.problem_with_ends({"": value.replace("\r\n", "\n")}) != ""


def test_a_slip_of_the_enter_key_is_asked_about(desk: Desk) -> None:
    visit = desk.open()
    reply = visit.answer(f"{VALUE}\r\n")
    assert "ends with a line break. Nothing is stored yet." in reply.text
    assert (VALUE in reply.text, visit.found.state, desk.clerk.carried) == (False, "waiting", [])
    assert visit.answer(f"{VALUE}\r\n", keep="yes").heading == "Stored"
    assert desk.clerk.carried == [(visit.code, {"": f"{VALUE}\n"})]


def test_each_field_of_a_structured_secret_is_asked_for(desk: Desk) -> None:
    names = ("nonce", "choice", '"><script>', "field0")
    visit = desk.open(FILL._replace(fields=names))
    assert visit.answer("1", "2", "3", "4").heading == "Stored"
    assert desk.clerk.carried == [(visit.code, dict(zip(names, "1234")))]


def test_a_refusal_ends_the_ticket(desk: Desk) -> None:
    for ticket in (FILL, SHOW, CONFIRM):
        visit = desk.open(ticket._replace(digest=ticket.kind))
        assert visit.refuse().heading == "Refused"
        assert visit.found.outcome == Outcome("refused", REFUSED, {})
        assert visit.get().heading == "Refused"
        assert visit.answer(*("x" for _ in ticket.fields)).heading == "Refused"
    assert desk.clerk.carried == []


def test_a_confirmation_names_the_act_on_its_button(desk: Desk) -> None:
    visit = desk.open(CONFIRM)
    page = visit.get().text
    assert f'class="danger">{CONFIRM.title}</button>' in page
    assert "This cannot be undone." in page
    assert visit.answer().heading == "Done"
    assert desk.clerk.carried == [(visit.code, {})]


def test_a_credential_is_shown_once(desk: Desk) -> None:
    desk.clerk.shown = (("Token", f"\n<{VALUE}>\r"), ("Passphrase", "b"))
    visit = desk.open(SHOW)
    assert "Create and show</button>" in visit.get().text
    reply = visit.answer()
    assert reply.heading == "Copy it now"
    assert f'<pre id="value0" tabindex="0" aria-labelledby="label0">\n\n&lt;{VALUE}&gt;&#13;</pre>' in reply.text
    for again in (visit.get(), visit.answer()):
        assert ("shown once" in again.text, VALUE in again.text) == (True, False)


def test_each_outcome_has_its_page(desk: Desk) -> None:
    headings = {"done": "Stored", "failed": "It did not work", "unclear": "It may or may not have worked"}
    for state, heading in headings.items():
        desk.clerk.outcome = Outcome(state, "the vault <said> so", {})  # type: ignore[arg-type]
        visit = desk.open(FILL._replace(digest=state))
        for reply in (visit.answer("x"), visit.get()):
            assert "The vault &lt;said&gt; so." in reply.text, state
            assert reply.heading in (heading, "This is already done"), state


def test_a_broken_rule_is_named_without_the_value(desk: Desk) -> None:
    def refuse(values: Mapping[str, str]) -> None:
        desk.tickets.give_back(visit.code)
        raise Invalid("the value must be a <number>")

    desk.clerk.before_sending = refuse  # type: ignore[method-assign]
    visit = desk.open()
    reply = visit.answer(VALUE)
    assert (reply.heading, visit.found.state) == (FILL.title, "waiting")
    assert "the value must be a &lt;number&gt;" in reply.text
    assert VALUE not in reply.text


def test_an_unforeseen_error_tells_nothing(desk: Desk) -> None:
    def fail(values: Mapping[str, str]) -> None:
        raise RuntimeError(f"cannot send {values}")

    desk.clerk.before_sending = fail  # type: ignore[method-assign]
    reply = desk.open().answer(VALUE)
    assert (reply.heading, VALUE in reply.text) == ("It may or may not have worked", False)


def test_an_expired_page_takes_nothing(desk: Desk) -> None:
    visit = desk.open()
    nonce = visit.nonce()
    assert f'http-equiv="refresh" content="{LIFE_S + 1:.0f};url={visit.path}"' in visit.get().text
    desk.now_s += LIFE_S - 90
    assert "You have 2 minutes" in visit.get().text
    desk.now_s += 90
    assert visit.get().heading == "This page has expired"
    assert visit.post({"nonce": nonce, "choice": "go", "field0": VALUE}).heading == "This page has expired"
    assert visit.post({"nonce": nonce, "choice": "refuse"}).heading == "This page has expired"
    assert desk.clerk.carried == []


def test_a_code_that_is_used_again_does_not_revive_an_old_page(desk: Desk) -> None:
    old = desk.open()
    nonce = old.nonce()
    for file in desk.directory.iterdir():
        file.unlink()
    assert old.get().heading == "This page is over"
    desk.tickets.refuse(desk.tickets.add(FILL).code, "")
    (file,) = desk.directory.iterdir()
    text = file.read_text().replace(file.stem, old.code).replace(str(NOW_S + LIFE_S), str(NOW_S + LIFE_S - 1))
    (desk.directory / f"{old.code}.waiting").write_text(text)
    assert old.found.state == "waiting"
    assert old.get().heading == "This page is over"
    assert old.post({"nonce": nonce, "choice": "go", "field0": VALUE}).heading == "This page is over"
    assert old.post({"nonce": nonce, "choice": "refuse"}).heading == "This page is over"
    assert desk.pages.url(old.code) != old.url
    assert (old.found.state, desk.clerk.carried) == ("waiting", [])


def test_a_question_that_was_withdrawn_is_not_called_refused(desk: Desk) -> None:
    visit = desk.open()
    desk.tickets.refuse(visit.code, "the assistant's call was cancelled")
    reply = visit.get()
    assert (reply.heading, "assistant&#x27;s call was cancelled." in reply.text) == ("Nothing was done", True)


@posix_only
def test_a_directory_that_others_can_use_stops_the_page(desk: Desk) -> None:
    visit = desk.open()
    nonce = visit.nonce()
    desk.directory.chmod(0o777)
    replies = [visit.get(), visit.post({"nonce": nonce, "choice": "go", "field0": VALUE})]
    for reply in [*replies, visit.post({"nonce": nonce, "choice": "refuse"})]:
        assert (reply.heading, "is open to other users" in reply.text) == ("It did not work", True)
    assert desk.clerk.carried == []


# two that act on one ticket


def test_a_ticket_that_another_process_took_is_left_to_it(desk: Desk) -> None:
    visit = desk.open()
    nonce = visit.nonce()
    Tickets(str(desk.directory), desk.clock).take(visit.code)
    for reply in (visit.get(), visit.post({"nonce": nonce, "choice": "go", "field0": VALUE})):
        assert reply.heading == "One moment"
        assert 'http-equiv="refresh" content="2;' in reply.text
    assert visit.post({"nonce": nonce, "choice": "refuse"}).heading == "One moment"
    assert desk.clerk.carried == []


def test_a_ticket_that_is_taken_between_check_and_answer_is_left_alone(desk: Desk) -> None:
    visit = desk.open()

    def too_late(code: str, values: Mapping[str, str]) -> None:
        raise NotWaiting(desk.tickets.find(code)._replace(state="busy"))

    desk.pages._carry_out = too_late  # type: ignore[assignment]
    assert visit.answer(VALUE).heading == "One moment"


class Slow:
    """A vault that answers when it is told to."""

    def __init__(self, desk: Desk) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()
        desk.clerk.before_sending = self.wait  # type: ignore[method-assign]

    def wait(self, values: Mapping[str, str]) -> None:
        """Called when the ticket is taken."""
        self.started.set()
        assert self.go_on.wait(TIMEOUT_S)


def in_background(call: Callable[[], Reply]) -> Callable[[], Reply]:
    """Starts a call in a thread; what it returns waits for the reply."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(call()), name="test")
    thread.start()

    def wait() -> Reply:
        thread.join(TIMEOUT_S)
        return replies[0]

    return wait


def test_two_tabs_act_once(desk: Desk) -> None:
    visit, slow = desk.open(), Slow(desk)
    form = {"nonce": visit.nonce(), "choice": "go", "field0": VALUE}
    first = in_background(lambda: visit.post(form))
    assert slow.started.wait(TIMEOUT_S)
    assert visit.get().heading == "One moment"
    second = in_background(lambda: visit.post({**form, "field0": "other"}))
    slow.go_on.set()
    assert {first().heading, second().heading} <= {"Stored", "This is already done", "One moment"}
    assert desk.clerk.carried == [(visit.code, {"": VALUE})]


def test_a_double_click_does_not_lose_a_credential(desk: Desk) -> None:
    """Browsers drop the first request then. Its answer, and no second credential, goes to the second one."""
    desk.clerk.shown = (("Token", VALUE),)
    visit, slow = desk.open(SHOW), Slow(desk)
    nonce = visit.nonce()
    body = urlencode({"nonce": nonce, "choice": "go"}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in visit.own_headers(body))
    with socket.create_connection(("127.0.0.1", visit.port), TIMEOUT_S) as dropped:
        dropped.sendall(f"POST {visit.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        assert slow.started.wait(TIMEOUT_S)
    second = in_background(lambda: visit.post({"nonce": nonce, "choice": "go"}))
    slow.go_on.set()
    assert VALUE in second().text
    assert VALUE not in visit.post({"nonce": nonce, "choice": "go"}).text
    assert len(desk.clerk.carried) == 1


def test_a_double_click_after_the_answer_shows_it_once_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser may have taken the first answer and yet wait for the second one."""
    monkeypatch.setattr(sikkerkey_page, "DOUBLE_CLICK_S", 600.0)
    desk.clerk.shown = (("Token", VALUE),)
    visit = desk.open(SHOW)
    form = {"nonce": visit.nonce(), "choice": "go"}
    replies = [visit.post(form) for _ in range(3)]
    assert [VALUE in reply.text for reply in replies] == [True, True, False]
    assert len(desk.clerk.carried) == 1


# attacks


def without(visit: Visit, name: str) -> list[tuple[str, str]]:
    """The page's own headers but for one."""
    return [(header, value) for header, value in visit.own_headers(b"") if header != name]


def not_found(visit: Visit, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> None:
    """Sends a request that has to get the one and only 404."""
    reply = visit.send(method, path, headers, body)
    expected = "" if method == "HEAD" else sikkerkey_page_html.NOT_FOUND
    assert (reply.status, reply.text) == (404, expected), (method, path, headers, body)
    assert {name: reply.headers[name] for name in sikkerkey_page_html.HEADERS} == sikkerkey_page_html.HEADERS
    assert reply.headers.keys() - sikkerkey_page_html.HEADERS.keys() == {"Content-Length", "Connection"}


def hosts(visit: Visit) -> list[list[tuple[str, str]]]:
    """Host headers of other names for this address, as DNS rebinding sends them."""
    names = [
        "",
        "localhost",
        f"localhost:{visit.port}",
        "127.0.0.1",
        f"evil.example:{visit.port}",
        f"[::1]:{visit.port}",
    ]
    names += [
        f"127.0.0.1:{visit.port + 1}",
        f"127.0.0.1.:{visit.port}",
        f"{visit.host}, {visit.host}",
        f"x@{visit.host}",
    ]
    return [[], [("Host", visit.host)] * 2, *([("Host", name)] for name in names)]


@pytest.mark.usefixtures("_trusted_peers")
def test_only_a_document_of_this_address_shows_the_form(desk: Desk) -> None:
    visit = desk.open()
    host = [("Host", visit.host)]
    for rebound in hosts(visit):
        not_found(visit, "GET", visit.path, rebound)
    for purpose in ("iframe", "frame", "image", "script", "empty", "embed", "object", "style", "Document", ""):
        not_found(visit, "GET", visit.path, [*host, ("Sec-Fetch-Dest", purpose)])
    not_found(visit, "GET", visit.path, [*host, ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-Dest", "document")])
    not_found(visit, "GET", visit.path, [*host, ("Sec-Purpose", "prefetch;prerender")])
    paths = ["/", "/over", "/favicon.ico", "*", "/%C3%A9", visit.path[:-1], visit.path.lower()]
    for path in [*paths, f"{visit.path}/", f"{visit.path}?x", f"{visit.path}#", f"http://{visit.host}{visit.path}"]:
        not_found(visit, "GET", path, host)
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "X"):
        not_found(visit, method, visit.path, host)
    assert not desk.pages.was_opened(visit.code)


@pytest.mark.usefixtures("_trusted_peers")
def test_only_the_own_form_is_taken(desk: Desk) -> None:
    visit = desk.open()
    nonce = visit.nonce()
    body = urlencode({"nonce": nonce, "choice": "go", "field0": VALUE}).encode()
    own = dict(visit.own_headers(body))

    def refused(changed: dict[str, list[str]], body: bytes = body) -> None:
        headers = [(name, value) for name in own for value in changed.get(name, [own[name]])]
        extra = [(name, value) for name in changed.keys() - own.keys() for value in changed[name]]
        not_found(visit, "POST", visit.path, headers + extra, body)

    for rebound in hosts(visit):
        refused({"Host": [value for _, value in rebound]})
    other_port = f"http://127.0.0.1:{visit.port + 1}"
    for origin in (
        "null",
        "",
        "https://evil.example",
        f"http://localhost:{visit.port}",
        other_port,
        "http://127.0.0.1",
    ):
        refused({"Origin": [origin]})
    refused({"Origin": [f"https://{visit.host}"]})
    refused({"Origin": []})
    refused({"Origin": [visit.origin] * 2})
    for site in ("cross-site", "same-site", "none", ""):
        refused({"Sec-Fetch-Site": [site]})
    for content in ("text/plain", "multipart/form-data; boundary=x", "application/json", ""):
        refused({"Content-Type": [content]})
    refused({"Content-Type": []})
    for length in ("-1", "+1", "1_0", "x", "", "1e3", "٣", "9" * 13):
        refused({"Content-Length": [length.encode().decode("latin-1")]})
    refused({"Content-Length": []})
    refused({"Content-Length": [str(len(body))] * 2})
    refused({"Transfer-Encoding": ["chunked"]})
    assert (visit.found.state, desk.clerk.carried) == ("waiting", [])


@pytest.mark.usefixtures("_trusted_peers")
def test_only_the_members_of_the_form_are_taken(desk: Desk) -> None:
    visit = desk.open()
    nonce = visit.nonce()
    good = {"nonce": nonce, "choice": "go", "field0": VALUE}
    forms = [
        urlencode({**good, "nonce": "x"}),
        urlencode({**good, "nonce": ""}),
        urlencode({**good, "nonce": f"{nonce}é"}),
        urlencode({"choice": "go", "field0": VALUE}),
        urlencode({"nonce": nonce, "field0": VALUE}),
        urlencode({**good, "choice": "yes"}),
        urlencode({"nonce": nonce, "choice": "go"}),
        urlencode({**good, "field1": "x"}),
        urlencode({**good, "more": "x"}),
        urlencode(good) + "&field0=other",
        urlencode(good) + f"&nonce={nonce}",
        urlencode(good) + "&choice=refuse",
        urlencode({**good, "choice": "refuse"}),
        f"nonce={nonce}&choice=go&field0=%ff%fe",
        f"nonce={nonce}&choice=go&field0",
        f"nonce={nonce};choice=go;field0={VALUE}",
        "",
        "&" * 1_000,
        "a=b&" * 100_000,
    ]
    for form in forms:
        not_found(visit, "POST", visit.path, visit.own_headers(form.encode()), form.encode())
    body = f"nonce={nonce}&choice=go&field0=\xff".encode("latin-1")
    not_found(visit, "POST", visit.path, visit.own_headers(body), body)
    assert (visit.found.state, desk.clerk.carried) == ("waiting", [])


def test_a_body_that_stops_early_is_not_taken(desk: Desk) -> None:
    visit = desk.open()
    body = urlencode({"nonce": visit.nonce(), "choice": "go", "field0": VALUE}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in visit.own_headers(body + b"more"))
    with socket.create_connection(("127.0.0.1", visit.port), TIMEOUT_S) as connection:
        connection.sendall(f"POST {visit.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100)[:13] in (b"", b"HTTP/1.0 404 ")  # nothing if it is accepted after the end
    assert desk.clerk.carried == []


def test_headers_cannot_be_injected_or_folded(desk: Desk) -> None:
    visit = desk.open()
    for head in (
        f"Host: evil.example\r\n {visit.host}",
        f"Host: {visit.host}\r\n evil",
        f"Host : {visit.host}",
        "",
    ):
        assert raw(visit, f"GET {visit.path} HTTP/1.1\r\n{head}\r\n\r\n".encode()).startswith(b"HTTP/1.0 404 "), head


def raw(visit: Visit, data: bytes) -> bytes:
    """What is answered to these bytes, and nothing if the connection is dropped."""
    received = b""
    with socket.create_connection(("127.0.0.1", visit.port), TIMEOUT_S) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(65_536):
                received += part
        except ConnectionError:
            return b""
    return received


def test_garbage_gets_no_more_than_a_404(desk: Desk) -> None:
    visit = desk.open()
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(200))
    for data in (
        b"\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # the start of TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + lines + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ):
        answer = raw(visit, data)
        assert b"200" not in answer.partition(b"\r\n")[0], data[:40]
        assert answer[:13] in (b"", b"HTTP/1.0 404 ", b"<!DOCTYPE htm"), data[:40]
    assert visit.get().status == 200


def test_a_value_that_is_too_long_is_refused_in_words(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = desk.open()
    reply = visit.answer("x" * 5_000_000)  # more than the system's buffers hold
    assert (sikkerkey_page.TOO_LONG in reply.text, reply.heading) == (True, FILL.title)
    assert visit.answer("é" * 51_200).heading == "Stored"
    monkeypatch.setattr(sikkerkey_page, "DRAINED_MAX_BYTES", 100_000)
    other = desk.open(FILL._replace(digest="d2"))
    body = urlencode({"nonce": other.nonce(), "choice": "go", "field0": "x" * 5_000_000}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in other.own_headers(body))
    raw(other, f"POST {other.path} HTTP/1.1\r\n{head}\r\n".encode() + body)  # may be cut off
    assert (other.found.state, len(desk.clerk.carried)) == ("waiting", 1)


def test_slow_requests_are_cut_off_and_cannot_take_all_connections(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "CONNECTIONS_MAX", 2)
    visit = desk.open()
    with socket.create_connection(("127.0.0.1", visit.port), TIMEOUT_S) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHo")
        with socket.create_connection(("127.0.0.1", visit.port), TIMEOUT_S) as two:
            two.sendall(b"GET")
            assert raw(visit, b"GET / HTTP/1.1\r\n\r\n") == b""
    wait_until(lambda: raw(visit, b"GET / HTTP/1.1\r\n\r\n") != b"")
    monkeypatch.setattr(sikkerkey_page, "REQUEST_S", 0.02)
    assert raw(visit, b"GET / HTTP/1.1\r\nHo") == b""
    monkeypatch.setattr(sikkerkey_page, "REQUEST_S", 10.0)
    assert visit.get().status == 200


def wait_until(condition: Callable[[], bool]) -> None:
    """Asks until it is so."""
    pause = threading.Event()
    assert any(condition() or pause.wait(0.01) for _ in range(1_000))


def test_the_port_stays_bound_and_private(desk: Desk) -> None:
    visit = desk.open()
    server = desk.pages._server
    assert server is not None
    assert not server.socket.get_inheritable()
    assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    assert server.socket.getsockname()[0] == "127.0.0.1"
    desk.now_s += LIFE_S
    assert visit.get().heading == "This page has expired"
    with socket.socket() as other:
        if os.name == "posix":
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match=r"in use|permission|forbidden"):
            other.bind(("127.0.0.1", visit.port))


def test_no_thread_holds_up_the_end_of_the_process(desk: Desk) -> None:
    before = set(threading.enumerate())
    visit, slow = desk.open(), Slow(desk)
    waits = in_background(lambda: visit.answer(VALUE))
    assert slow.started.wait(TIMEOUT_S)
    own = [thread for thread in set(threading.enumerate()) - before if thread.name != "test"]
    assert (len(own), {thread.daemon for thread in own}) == (2, {True})
    slow.go_on.set()
    assert waits().heading == "Stored"


def test_many_old_pages_are_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "PAGES_MAX", 2)
    visits = [desk.open(FILL._replace(digest=str(number))) for number in range(3)]
    assert [visit.get().status for visit in visits] == [404, 200, 200]


# the owner of a connection


@linux_only
@root_only
def test_another_user_gets_nothing(desk: Desk) -> None:
    visit = desk.open()
    script = f"exec 3<>/dev/tcp/127.0.0.1/{visit.port}; printf 'GET {visit.path} HTTP/1.1\\r\\nHost: {visit.host}"
    command = ["bash", "-c", f"{script}\\r\\n\\r\\n' >&3; cat <&3"]
    answers = {}
    for user in (0, NOBODY):
        done = subprocess.run(command, check=False, user=user, cwd="/", capture_output=True, timeout=TIMEOUT_S)
        answers[user] = done.stdout
    assert (b"200 OK" in answers[0], answers[NOBODY]) == (True, b"")


@linux_only
def test_a_connection_through_ipv6_has_an_owner_too(desk: Desk) -> None:
    visit = desk.open()
    with socket.socket(socket.AF_INET6) as connection:
        try:
            connection.connect(("::ffff:127.0.0.1", visit.port))
        except OSError:
            pytest.skip("there is no IPv6 here")
        connection.sendall(f"GET {visit.path} HTTP/1.1\r\nHost: {visit.host}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.0 200 OK")


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   1: {local}:1F90 {remote}:2328 {state} 00000000:00000000 00:00000000 00000000 {uid:5d}        0 12345 1 0\n"
LOOPBACK = f"{int.from_bytes(bytes([127, 0, 0, 1]), sys.byteorder):08X}"
MAPPED = f"{0:016X}{int.from_bytes(bytes([0, 0, 255, 255]), sys.byteorder):08X}{LOOPBACK}"
OWN = os.getuid() if hasattr(os, "getuid") else 0
OWNERS = {
    "own": ([(LOOPBACK, "01", OWN)], True),
    "root": ([(LOOPBACK, "01", 0)], True),
    "another": ([(LOOPBACK, "01", OWN + 1)], False),
    "own by IPv6": ([(MAPPED, "01", OWN)], True),
    "another by IPv6": ([(MAPPED, "01", OWN + 1)], False),
    "own and another": ([(LOOPBACK, "01", OWN), (MAPPED, "01", OWN + 1)], False),
    "left by its owner": ([(LOOPBACK, "04", 0)], False),  # such rows say root for everybody
    "gone": ([(LOOPBACK, "06", 0)], False),
    "another address": ([("0200007F", "01", OWN)], False),
    "no row": ([], False),
}


@linux_only
@for_each(OWNERS)
def test_the_owner_is_read_from_the_table_of_connections(name: str) -> None:
    rows, is_own = OWNERS[name]
    with pytest.MonkeyPatch.context() as patch, TablesOfConnections(patch) as tables:
        for address, state, uid in rows:
            remote = MAPPED if len(address) > 8 else LOOPBACK
            tables.add(ROW.format(local=address, remote=remote, state=state, uid=uid), is_ipv6=len(address) > 8)
        assert sikkerkey_page._is_own_peer(("127.0.0.1", 0x1F90), 0x2328) == is_own


class TablesOfConnections:
    """Files in the place of /proc/net/tcp and tcp6."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._pipes = [os.memfd_create("table") for _ in range(2)]
        for pipe in self._pipes:
            os.write(pipe, HEADER.encode())
        patch.setattr(sikkerkey_page, "_PEER_TABLES", tuple(f"/proc/self/fd/{pipe}" for pipe in self._pipes))

    def __enter__(self) -> TablesOfConnections:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            os.close(pipe)

    def add(self, row: str, *, is_ipv6: bool) -> None:
        """Adds a line."""
        os.write(self._pipes[is_ipv6], row.encode())


def test_without_a_table_the_token_has_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables = str(tmp_path / "tcp"), str(tmp_path / "tcp6")
    monkeypatch.setattr(sikkerkey_page, "_PEER_TABLES", tables)
    assert sikkerkey_page._is_own_peer(("127.0.0.1", 1), 2)
    Path(tables[0]).write_text(HEADER)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not sikkerkey_page._is_own_peer(("127.0.0.1", 1), 2)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sikkerkey_page._is_own_peer(("127.0.0.1", 1), 2)


# the HTML


class Parsed(HTMLParser):
    """Elements, labels, and the text of each element by its id."""

    VOID = frozenset({"meta", "input", "br", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[int] = []
        self.texts: dict[int, str] = {}
        self.feed(page)
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts[len(self.elements) - 1] = ""
        if tag not in self.VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.texts[index] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of each element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def names_of(self, attributes: dict[str, str]) -> str:
        """The label of an input: by its id, or around it."""
        own = next(index for index, (_, each) in enumerate(self.elements) if each is attributes)
        labels = [
            self.texts[index]
            for index, (tag, each) in enumerate(self.elements)
            if tag == "label"
            and (each.get("for", "-") == attributes.get("id") or ("for" not in each and index == own - 1))
        ]
        return "".join(labels).strip()


@for_each(PAGES)
def test_the_markup_is_accessible(name: str) -> None:
    parsed = Parsed(PAGES[name])
    assert [each.get("lang") for each in parsed.all("html")] == ["en"]
    assert (len(parsed.all("h1")), len(parsed.all("main")), len(parsed.all("title"))) == (1, 1, 1)
    ids = [each["id"] for _, each in parsed.elements if "id" in each]
    assert len(ids) == len(set(ids))
    referred = [id for _, each in parsed.elements for key in REFERENCES for id in each.get(key, "").split()]
    assert set(referred) <= set(ids)
    inputs = [each for each in parsed.all("input") + parsed.all("textarea") if each.get("type") != "hidden"]
    assert all(parsed.names_of(each) for each in inputs)
    assert all(
        text.strip() for index, text in parsed.texts.items() if parsed.elements[index][0] in ("button", "h1", "h2")
    )
    assert [each.get("tabindex") for _, each in parsed.elements if "tabindex" in each] == ["0"] * len(parsed.all("pre"))


REFERENCES = ("aria-describedby", "aria-labelledby", "for", "form")


@for_each(PAGES)
def test_the_markup_runs_and_loads_nothing(name: str) -> None:
    parsed = Parsed(PAGES[name])
    tags = {tag for tag, _ in parsed.elements}
    assert tags & {"script", "img", "link", "iframe", "object", "embed", "base", "a"} == set()
    for tag, attributes in parsed.elements:
        assert not any(key.startswith("on") or key in ("style", "src", "href", "srcset") for key in attributes), tag
    assert [each["action"] for each in parsed.all("form")] == ["/token"] * len(parsed.all("form"))
    assert re.search("https?:|url\\(|@import", PAGES[name]) is None


BOXES = {"fill-again": ["reveal", "keep"]}
FIELDS = {"fill": 1, "fill-again": 1, "fill-structured": 3, "show": 0, "confirm": 0}


@for_each(FIELDS)
def test_a_form_has_its_fields_and_its_switch(name: str) -> None:
    parsed = Parsed(PAGES[name])
    areas = parsed.all("textarea")
    assert [each["name"] for each in areas] == [f"field{index}" for index in range(FIELDS[name])]
    assert ["autofocus" in each for each in areas] == [index == 0 for index in range(FIELDS[name])]
    boxes = [each for each in parsed.all("input") if each["type"] == "checkbox"]
    assert [each.get("name", each.get("class")) for each in boxes] == BOXES.get(name, ["reveal"] if areas else [])
    assert [each["class"] for each in parsed.all("main")] == ["bad" if name == "confirm" else "plain"]
    assert [each.get("value") for each in parsed.all("button")] == ["go", "refuse"]


@for_each(["fill-done", "confirm-done", "show-done"])
def test_a_page_ends_with_what_to_do_next(name: str) -> None:
    start = "Then go back" if name == "show-done" else "Go back"
    assert (
        f'<p class="next">{start} to your assistant. If it asks, choose “I&#x27;m done, continue”.</p>' in PAGES[name]
    )


@for_each(["fill", "fill-again", "fill-structured"])
def test_no_program_is_invited_to_keep_a_value(name: str) -> None:
    parsed = Parsed(PAGES[name])
    wanted = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none", "data-1p-ignore": ""}
    wanted |= {"data-lpignore": "true", "data-bwignore": "true", "data-form-type": "other", "required": ""}
    assert all(wanted.items() <= area.items() for area in parsed.all("textarea"))
    assert all(form["autocomplete"] == "off" for form in parsed.all("form"))
    assert "password" not in {each.get("type") for each in parsed.all("input")}


def test_the_title_holds_no_name(desk: Desk) -> None:
    """Browsers keep titles in a history that other devices may see."""
    page = desk.open(FILL._replace(quoted=(("Note", "n0te"),))).get().text
    title = page.partition("<title>")[2].partition("</title>")[0]
    assert title == "Type a value - sikkerkey-mcp"


def test_names_cannot_act_as_markup_or_reorder_the_page(desk: Desk) -> None:
    evil = "<script>alert(1)</script>\"'&\u202e\u200b\0\x1b[2J\ud800"
    lines = ((evil, evil),)
    for ticket in (FILL, SHOW, CONFIRM):
        changed = ticket._replace(title=evil, details=lines, quoted=lines, warning=evil, digest=ticket.kind)
        changed = changed._replace(fields=(evil,) if ticket.fields else ())
        page = desk.open(changed).get().text
        assert "<script" not in page
        assert "[U+202E][U+200B][U+0000][U+001B][2J[U+D800]" in page
        assert set("\u202e\u200b\0\x1b") & set(page) == set()


def test_long_texts_end_somewhere() -> None:
    long = FILL._replace(title="t" * 100_000, details=(("d" * 100_000, "e" * 100_000),))
    page = sikkerkey_page_html.form_page(long, sikkerkey_page_html.Form("/token", "nonce", 600.0, "14:32"))
    assert len(page) < len(sikkerkey_page_html.STYLE) + 5_000
    assert "(99700 more characters)" in page


def test_the_policy_allows_the_own_style_sheet_only(desk: Desk) -> None:
    headers = desk.open().get().headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "same-origin"  # no-referrer makes Chromium send `Origin: null`
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


# contrast


def palettes() -> dict[str, dict[str, str]]:
    """The colours of the light and the dark style, by their names."""
    blocks = re.findall(r":root \{(.*?)\}", sikkerkey_page_html.STYLE, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXTS = [
    ("ink", "card"),
    ("ink", "well"),
    ("faint", "card"),
    ("on-accent", "accent"),
    ("on-bad", "bad"),
    ("bad", "card"),
]
EDGES = [("line", "card"), ("line", "well"), ("accent", "card"), ("good", "paper"), ("bad", "paper")]


@for_each(["light", "dark"])
def test_the_colours_have_enough_contrast(scheme: str) -> None:
    palette = palettes()[scheme]
    for pairs, least in ((TEXTS, 4.5), (EDGES, 3.0)):
        for one, other in pairs:
            assert contrast(palette[one], palette[other]) >= least, (one, other)


def test_the_style_uses_the_measured_colours_only() -> None:
    rules = re.sub(r":root \{.*?\}", "", sikkerkey_page_html.STYLE, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == []
    used = set(re.findall(r"(?<![-\w])color: var\(--([\w-]+)\)", rules))
    assert used <= {text for text, _ in TEXTS}


# opening a browser

ENVIRONMENTS = [
    ({"DISPLAY": ":0"}, True),
    ({"WAYLAND_DISPLAY": "wayland-0"}, True),
    ({"DISPLAY": ":0", "CI": "false"}, True),
    ({}, False),
    ({"DISPLAY": ""}, False),
    ({"BROWSER": "firefox"}, False),
    ({"DISPLAY": ":0", "CI": "true"}, False),
    ({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
    ({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, False),
    ({"DISPLAY": ":0", "SSH_CLIENT": "10.0.0.1"}, False),
]


def test_a_browser_is_opened_only_in_front_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for environ, expected in ENVIRONMENTS:
        assert can_open_browser(environ) == expected, environ
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        for environ, expected in ENVIRONMENTS:
            assert can_open_browser(environ) == (expected or not environ.keys() & {"CI", *SSH}), environ


SSH = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
URL = "http://127.0.0.1:1234/t0ken-t0ken"


class Browsers:
    """A directory with programs that write down how they are started."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory, self.log, self.waiting = directory / "bin", directory / "log", directory / "waiting"
        for each in (self.directory, self.waiting):
            each.mkdir(mode=0o700)
        patch.setenv("PATH", str(self.directory))

    def add(self, name: str, status: int = 0) -> None:
        """Adds a program."""
        program = self.directory / name
        log = f'echo "{name} $*" >> {self.log}; echo "$SIKKERKEY_X" >> {self.log}; echo out; echo err >&2'
        program.write_text(f"#!/bin/sh\n{log}\nexit {status}\n")
        program.chmod(0o755)

    @property
    def started(self) -> list[str]:
        """The command lines, in order."""
        return self.log.read_text().split("\n\n")[:-1] if self.log.exists() else []


@pytest.fixture
def browsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Browsers:
    """No programs yet."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setenv("SIKKERKEY_X", "not for browsers")
    return Browsers(tmp_path, monkeypatch)


@posix_only
def test_a_browser_gets_a_private_file_and_no_address(browsers: Browsers, capfd: pytest.CaptureFixture[str]) -> None:
    browsers.add("xdg-open")
    assert open_browser(URL, "4F7K", str(browsers.waiting))
    file = browsers.waiting / "sikkerkey-4F7K.html"
    assert browsers.started == [f"xdg-open {file}"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f'content="0;url={URL}"' in file.read_text()
    assert capfd.readouterr() == ("", "")
    assert open_browser(URL, "4F7K", str(browsers.waiting))
    assert [each.name for each in browsers.waiting.iterdir()] == [file.name]


@posix_only
def test_the_file_is_removed_later(browsers: Browsers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "REDIRECT_KEPT_S", 0.0)
    browsers.add("xdg-open")
    open_browser(URL, "4F7K", str(browsers.waiting))
    wait_until(lambda: not list(browsers.waiting.iterdir()))


@posix_only
def test_browsers_are_tried_in_order(browsers: Browsers, monkeypatch: pytest.MonkeyPatch) -> None:
    file = browsers.waiting / "sikkerkey-4F7K.html"
    for name in ("w3m", "lynx", "fine", "xdg-open"):
        browsers.add(name)
    browsers.add("broken", 3)
    monkeypatch.setenv("BROWSER", "w3m:/usr/bin/lynx:missing:':broken --new-tab:fine 'a b' --at=%s:xdg-open")
    assert open_browser(URL, "4F7K", str(browsers.waiting))
    assert browsers.started == [f"broken --new-tab {file}", f"fine a b --at={file}"]


@posix_only
def test_no_browser_is_no_error(browsers: Browsers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not open_browser(URL, "4F7K", str(browsers.waiting))
    browsers.add("xdg-open", 3)
    assert not open_browser(URL, "4F7K", str(browsers.waiting))
    assert not open_browser(URL, "4F7K", str(browsers.waiting / "missing"))


@posix_only
def test_a_browser_that_stays_is_not_waited_for(browsers: Browsers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_page, "STARTED_S", 0.01)
    program = browsers.directory / "xdg-open"
    program.write_text(f"#!/bin/sh\nread line < {browsers.log}\n")
    program.chmod(0o755)
    os.mkfifo(browsers.log)
    assert open_browser(URL, "4F7K", str(browsers.waiting))
    browsers.log.open("w").close()  # lets it end


@posix_only
def test_snap_packages_get_a_file_that_they_can_read(browsers: Browsers, home: Path) -> None:
    browsers.add("xdg-open")
    hidden = home / ".sikkerkey" / "waiting"
    hidden.mkdir(parents=True)
    assert open_browser(URL, "4F7K", str(hidden))
    (home / "snap").mkdir()
    assert open_browser(URL, "4F7K", str(hidden))
    assert browsers.started == [f"xdg-open {hidden}/sikkerkey-4F7K.html", f"xdg-open {home}/sikkerkey-4F7K.html"]


def test_a_ticket_of_each_kind_exists() -> None:
    assert [ticket.kind for ticket in (FILL, SHOW, CONFIRM)] == ["fill", "show", "confirm"]
