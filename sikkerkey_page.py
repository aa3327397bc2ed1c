"""The one-time page: a person types a value, agrees to a call, or is shown a credential, in a browser on this computer.

`Pages` serves it on 127.0.0.1 from the first use to the end of the process, so that nobody else can take over the port
of a page that has expired. The address holds a token of 192 bits. Whoever sends it may answer a question, but can read
no value. Every request that is not the page's own gets the same 404. Nothing is logged, and what was typed exists only
in the request that brings it.

This module loads `http.server`, so it is imported only when a page is needed.
"""

from __future__ import annotations

import http.server
import io
import os
import secrets
import shlex
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from html import escape
from typing import Any
from urllib.parse import parse_qsl

import sikkerkey_page_html as html
from sikkerkey_tickets import (
    REFUSED,
    CarryOut,
    Invalid,
    NotWaiting,
    Ticket,
    Tickets,
    TicketsUnusable,
    UnknownCode,
)

HOST = "127.0.0.1"
TOKEN_BYTES = 24
PAGES_MAX = 100  # remembered, so that late visitors are told that the page is over
CONNECTIONS_MAX = 8  # browsers open some ahead of need
REQUEST_S = 10.0  # for a whole request to arrive
ANSWER_S = 10.0  # for a browser to take an answer
CARRY_OUT_S = 90.0  # for which a second click waits for the answer to the first
UNSEEN_S = 60.0  # for which an answer is kept that the browser did not wait for
DOUBLE_CLICK_S = 3.0  # for which a last answer is kept that the browser seemed to wait for
BODY_MAX_BYTES = 512 * 1024  # the largest value is 100 KB, or 300 KB when encoded
DRAINED_MAX_BYTES = 8 * 1024 * 1024  # read and dropped, because browsers do not show an answer that comes too early
HEAD_MAX_BYTES = 32 * 1024

TOO_LONG = "what you typed is longer than a secret can be (102,400 bytes)"

_ESTABLISHED = "01"  # in /proc/net/tcp
_PEER_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")  # IPv4 peers of an IPv6 socket are in the second one


class Pages:
    """The pages of this process. `carry_out` takes a ticket, sends its call and finishes it. `now_s` is Unix time."""

    def __init__(self, tickets: Tickets, carry_out: CarryOut, now_s: Callable[[], float] = time.time) -> None:
        self._tickets = tickets
        self._carry_out = carry_out
        self._now_s = now_s
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    def url(self, code: str) -> str:
        """The address of a ticket's page, always the same one.

        Raises OSError if there is no port, and UnknownCode or TicketsUnusable if there is no ticket.
        """
        ticket = self._tickets.find(code).ticket
        with self._lock:
            if self._server is None:
                self._server = _Server(self)
            page = self._pages.get(ticket.code)
            if page is None or page.expires_s != ticket.expires_s:
                page = self._pages[ticket.code] = _Page(ticket)
                while len(self._pages) > PAGES_MAX:
                    self._pages.popitem(last=False)
            return f"{self._server.origin}{page.path}"

    def nonce(self, code: str) -> str:
        """What the form of a ticket's page sends back, after `url` was called."""
        with self._lock:
            return self._pages[code].nonce

    def was_opened(self, code: str) -> bool:
        """Whether somebody has loaded the form."""
        with self._lock:
            page = self._pages.get(code)
        return page is not None and page.was_opened

    def find(self, path: str) -> _Page | None:
        """The page of a path, in a time that does not depend on how much of a token is right."""
        with self._lock:
            pages = list(self._pages.values())
        sent = path.encode("utf-8", "replace")
        return next((page for page in pages if secrets.compare_digest(page.path.encode(), sent)), None)

    def shown(self, page: _Page, problem: str = "", *, asks_to_keep: bool = False) -> str:
        """What is to be seen now: the form, or how the ticket ended."""
        try:
            found = self._tickets.find(page.code)
        except UnknownCode:
            return html.unknown_page()
        except TicketsUnusable as error:
            return html.unusable_page(str(error))
        if found.ticket.expires_s != page.expires_s:
            return html.unknown_page()  # the code belongs to a later ticket
        if found.state != "waiting":
            return html.ended_page(found, page.path)
        page.was_opened = True
        left_s = found.ticket.expires_s - self._now_s()
        until = time.strftime("%H:%M", time.localtime(found.ticket.expires_s))
        form = html.Form(page.path, page.nonce, left_s, until, problem, asks_to_keep)
        return html.form_page(found.ticket, form)

    def fields(self, page: _Page) -> tuple[str, ...] | None:
        """What is to be typed; None if the ticket does not wait."""
        try:
            found = self._tickets.find(page.code)
        except (UnknownCode, TicketsUnusable):
            return None
        is_waiting = found.state == "waiting" and found.ticket.expires_s == page.expires_s
        return found.ticket.fields if is_waiting else None

    def answered(self, page: _Page, values: Mapping[str, str], *, keeps_ends: bool) -> str:
        """Carries out a ticket with what was typed, and says what happened."""
        problem = "" if keeps_ends else html.problem_with_ends(values)
        if problem:
            return self.shown(page, problem, asks_to_keep=True)
        try:
            ticket = self._tickets.find(page.code).ticket
            carried = self._carry_out(page.code, values)
        except Invalid as error:
            return self.shown(page, str(error))
        except NotWaiting as error:
            return html.ended_page(error.found, page.path)
        except UnknownCode:
            return html.unknown_page()
        except Exception:  # its text might hold what was typed
            return html.error_page()
        return html.outcome_page(ticket, carried.outcome, carried.shown, html.remarks_on_ends(values))

    def refused(self, page: _Page) -> str:
        """Ends a ticket without its call."""
        try:
            self._tickets.refuse(page.code, REFUSED)
        except NotWaiting as error:
            return html.ended_page(error.found, page.path)
        except UnknownCode:
            return html.unknown_page()
        except TicketsUnusable as error:
            return html.unusable_page(str(error))
        return html.refused_page()


class _Page:
    """What is known of a ticket's page. `lock` is held while an answer is carried out."""

    def __init__(self, ticket: Ticket) -> None:
        self.code, self.expires_s = ticket.code, ticket.expires_s
        self.path = "/" + secrets.token_urlsafe(TOKEN_BYTES)
        self.nonce = secrets.token_urlsafe(TOKEN_BYTES)
        self.was_opened = False
        self.lock = threading.Lock()
        self._unseen: tuple[str, float] | None = None  # until a time on the monotonic clock

    def keep_unseen(self, answer: str, life_s: float) -> None:
        """Keeps an answer that may not be seen: at a double click, a browser waits for the answer to the second one."""
        self._unseen = answer, time.monotonic() + life_s

    def take_unseen(self) -> str | None:
        """The answer that nobody has seen, once and for a short time."""
        unseen, self._unseen = self._unseen, None
        return unseen[0] if unseen and time.monotonic() <= unseen[1] else None


class _Server(socketserver.ThreadingTCPServer):
    """Listens until the process ends, on a port that is never shared. Its threads do not hold up that end."""

    allow_reuse_address = False  # http.server's own class sets it, and then Windows gives the port to others as well
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self._free_connections = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((HOST, 0), _Handler)
        self.port: int = self.server_address[1]
        self.origin = f"http://{HOST}:{self.port}"
        threading.Thread(target=self.serve_forever, args=(3_600.0,), name="page", daemon=True).start()

    def server_bind(self) -> None:
        """Binds the port so that no other program can bind it too."""
        if sys.platform == "win32":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Whether the peer is a program of this user, as far as the system tells."""
        return _is_own_peer(client_address, self.port)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread of its own, if one is free."""
        if not self._free_connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free_connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a traceback on stderr would be in the client's logs."""


class _BoundedReader(io.RawIOBase):
    """A connection that ends with TimeoutError at a point in time or after a number of bytes."""

    def __init__(self, connection: socket.socket, most_bytes: int) -> None:
        super().__init__()
        self._connection = connection
        self._deadline_s = time.monotonic() + REQUEST_S
        self.left_bytes = most_bytes

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a part of `buffer`."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0 or self.left_bytes <= 0:
            raise socket.timeout("the request is too slow or too long")  # Python 3.9 has no TimeoutError here
        self._connection.settimeout(left_s)
        with memoryview(buffer) as view:
            count = self._connection.recv_into(view[: self.left_bytes])
        self.left_bytes -= count
        return count


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request on a connection of its own."""

    server: _Server
    disable_nagle_algorithm = True  # the body follows the headers without waiting for an acknowledgement

    def setup(self) -> None:
        """Bounds what is read from the connection."""
        super().setup()
        self.rfile.close()
        self._reader = _BoundedReader(self.connection, HEAD_MAX_BYTES)
        self.rfile = io.BufferedReader(self._reader)

    def do_GET(self) -> None:
        """Shows the page: opened by a person as a document, not loaded ahead, framed or fetched."""
        page = self._page()
        if page is None or self._sent("Sec-Fetch-Dest") not in ([], ["document"]) or self._sent("Sec-Purpose"):
            self._not_found()
        else:
            self._send(200, self.server.pages.shown(page))

    def do_POST(self) -> None:
        """Takes the answer of the page's own form."""
        page = self._page()
        if page is None or not self._is_from_own_form():
            self._not_found()
            return
        length = self._body_length()
        if length is None:
            self._not_found()
            return
        if length > BODY_MAX_BYTES:
            self._drain(length)
            self._send(200, self.server.pages.shown(page, TOO_LONG))
            return
        self._reader.left_bytes = length
        fields = self.server.pages.fields(page)
        sent = _form_in(self.rfile.read(length), length, len(fields or ()))
        if sent is None or not secrets.compare_digest(sent.pop("nonce", "").encode(), page.nonce.encode()):
            self._not_found()
            return
        self._answer(page, sent, fields)

    def _answer(self, page: _Page, sent: dict[str, str], fields: tuple[str, ...] | None) -> None:
        if not page.lock.acquire(timeout=CARRY_OUT_S):
            self._send(200, self.server.pages.shown(page))
            return
        try:
            unseen = page.take_unseen()
            answer = unseen or self._carried(page, sent, fields)
            if answer is None:
                self._not_found()
                return
            if not self._is_connected():
                page.keep_unseen(answer, UNSEEN_S)
                return
            if unseen is None and fields is not None and self.server.pages.fields(page) is None:  # its last answer
                page.keep_unseen(answer, DOUBLE_CLICK_S)
        finally:
            page.lock.release()
        self._send(200, answer)

    def _carried(self, page: _Page, sent: dict[str, str], fields: tuple[str, ...] | None) -> str | None:
        """What to show after an answer; None if it is not an answer of the form."""
        pages = self.server.pages
        if fields is None:
            return pages.shown(page)
        choice, keeps_ends = sent.pop("choice", ""), sent.pop(html.KEEP, "") == "yes"
        if choice == "refuse":
            return None if sent else pages.refused(page)
        names = {f"{html.FIELD}{index}": name for index, name in enumerate(fields)}
        if choice != "go" or sent.keys() != names.keys():
            return None
        # Browsers send every line break of a textarea as CRLF.
        values = {name: sent[key].replace("\r\n", "\n") for key, name in names.items()}
        return pages.answered(page, values, keeps_ends=keeps_ends)

    def _page(self) -> _Page | None:
        """The page that is asked for, by a browser that was told this very address and no other name of it."""
        is_own_host = self._sent("Host") == [f"{HOST}:{self.server.port}"]
        return self.server.pages.find(self.path) if is_own_host else None

    def _is_from_own_form(self) -> bool:
        return (
            self._sent("Origin") == [self.server.origin]
            and self._sent("Sec-Fetch-Site") in ([], ["same-origin"])
            and self._sent("Content-Type") == ["application/x-www-form-urlencoded"]
        )

    def _body_length(self) -> int | None:
        lengths = self._sent("Content-Length")
        if self._sent("Transfer-Encoding") or len(lengths) != 1:
            return None
        is_number = lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= 12
        return int(lengths[0]) if is_number else None

    def _drain(self, length: int) -> None:
        left = self._reader.left_bytes = min(length, DRAINED_MAX_BYTES)
        while left > 0 and (part := self.rfile.read(min(left, 65_536))):
            left -= len(part)

    def _sent(self, name: str) -> list[str]:
        """The values of a header, each as often as it was sent."""
        return self.headers.get_all(name, [])

    def _is_connected(self) -> bool:
        """Whether the browser still waits for the answer."""
        try:
            self.connection.settimeout(0)
            return len(self.connection.recv(1, socket.MSG_PEEK)) > 0
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _not_found(self) -> None:
        self._send(404, html.NOT_FOUND)

    def _send(self, status: int, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.connection.settimeout(ANSWER_S)
        self.send_response_only(status)
        for name, value in html.HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, *_args: Any, **_named: Any) -> None:
        """Answers what http.server finds wrong like every other request that is not the page's own."""
        self._not_found()

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the path is the right to answer."""


def _form_in(body: bytes, length: int, fields: int) -> dict[str, str] | None:
    """The members of a form, each of which is there once; None if it is anything else."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=fields + 3,
        )
    except ValueError:
        return None
    sent = dict(pairs)
    return sent if len(body) == length and len(sent) == len(pairs) else None


def _is_own_peer(peer: tuple[str, int], port: int) -> bool:
    """Whether the other end of a connection belongs to this user or to root, from Linux's table of connections.

    Elsewhere the token in the address has to do. Root can read this process's memory, and forwards the connections of a
    browser on Windows into WSL. A connection whose owner has left it already would look like root's.
    """
    if not sys.platform.startswith("linux"):
        return True
    try:
        owners = [(state, uid) for table in _PEER_TABLES for state, uid in _rows(table, peer, port)]
    except OSError:
        return True
    return bool(owners) and all(state == _ESTABLISHED and uid in (0, os.getuid()) for state, uid in owners)


def _rows(table: str, peer: tuple[str, int], port: int) -> Iterator[tuple[str, int]]:
    """State and user id of the connections in one table from `peer` to the port of the page."""
    local, remote = _hexadecimal(peer), _hexadecimal((HOST, port))
    if not os.path.exists(table):
        if table == _PEER_TABLES[0]:
            raise FileNotFoundError(table)
        return
    with open(table, encoding="ascii") as lines:
        for line in lines:
            parts = line.split()
            if len(parts) > 7 and parts[1].endswith(local) and parts[2].endswith(remote):
                yield parts[3], int(parts[7])


def _hexadecimal(address: tuple[str, int]) -> str:
    """An address as it ends in /proc/net/tcp and tcp6."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


# ---------------------------------------------------------------------------------------------------------------------
# opening a browser: never by Python's `webbrowser`, which starts text browsers on the server's own stdout
# ---------------------------------------------------------------------------------------------------------------------

TEXT_BROWSERS = frozenset({"browsh", "elinks", "links", "links2", "lynx", "w3m", "www-browser"})
REDIRECT_KEPT_S = 120.0
STARTED_S = 2.0  # an opener that has not failed by then has found a browser

REDIRECT = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={url}"><title>sikkerkey-mcp</title>
<p><a href="{url}">Continue</a></p></html>
"""


def can_open_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser that this process opens is likely to appear in front of the person."""
    if environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def open_browser(url: str, code: str, directory: str) -> bool:
    """Opens a page in the person's browser; False if there is none.

    The browser gets a private file in `directory` that redirects, because every user can read command lines.
    """
    path = os.path.join(_readable_directory(directory), f"sikkerkey-{code}.html")
    try:
        _write_redirect(path, url)
    except OSError:
        return False
    removal = threading.Timer(REDIRECT_KEPT_S, _remove, [path])
    removal.daemon = True
    removal.start()
    if sys.platform == "win32":
        try:
            os.startfile(path)  # noqa: S606
        except OSError:
            return False
        return True
    return any(_starts(command) for command in _commands(path, os.environ))


def _readable_directory(directory: str) -> str:
    """Browsers from snap packages, such as Ubuntu's, read nothing below hidden directories."""
    home = os.path.expanduser("~")
    is_hidden = any(part.startswith(".") for part in os.path.normpath(directory).split(os.sep))
    return home if is_hidden and os.path.isdir(os.path.join(home, "snap")) else directory


def _write_redirect(path: str, url: str) -> None:
    temporary = f"{path}.{secrets.token_hex(6)}.new"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(REDIRECT.format(url=escape(url)))
        os.replace(temporary, path)
    except OSError:
        _remove(temporary)
        raise


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _commands(path: str, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """The command lines to try: those of $BROWSER, then the platform's own."""
    for text in environ.get("BROWSER", "").split(os.pathsep):
        with suppress(ValueError):  # an open quotation mark
            words = shlex.split(text)
            if words and os.path.basename(words[0]) not in TEXT_BROWSERS:
                has_place = any("%s" in word for word in words[1:])
                yield [word.replace("%s", path) for word in words] if has_place else [*words, path]
    yield ["open" if sys.platform == "darwin" else "xdg-open", path]


def _starts(command: list[str]) -> bool:
    """Starts a command apart from the server's terminal and streams; whether it did not fail."""
    program = shutil.which(command[0])
    if program is None:
        return False
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIKKERKEY_")}
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [program, *command[1:]], stdin=null, stdout=null, stderr=null, env=environment, start_new_session=True
        )
    except OSError:
        return False
    try:
        return process.wait(STARTED_S) == 0
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, name="browser", daemon=True).start()
        return True
