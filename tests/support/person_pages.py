"""A one-time page with its own tickets and a clock that stands still, and requests that no browser would send."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from sikkerkey_page import Pages
from sikkerkey_tickets import LIFE_S, Carried, Found, Outcome, Ticket, Tickets

NOW_S = 1_800_000_000.0
TIMEOUT_S = 20.0

FILL = Ticket(
    code="",
    agent_id="agent-1",
    tool="manage_secrets",
    action="update_value",
    arguments={},
    digest="d1",
    title="Store the value of the secret “DB_PASSWORD”",
    details=(("Project", "Webshop"), ("Vault", "Acme"), ("Agent", "laptop")),
    quoted=(),
    warning="",
    fields=("",),
    shows=False,
    expires_s=NOW_S + LIFE_S,
)
SHOW = FILL._replace(title="Create an enrollment token", fields=(), shows=True)
CONFIRM = FILL._replace(title="Delete the project “Webshop” for good", fields=(), warning="This cannot be undone.")

Headers = Iterable[tuple[str, str]]


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def heading(self) -> str:
        """The main heading."""
        return self.text.partition("<h1>")[2].partition("</h1>")[0]


class Clerk:
    """Carries out tickets as the server does, without a vault."""

    def __init__(self, tickets: Tickets) -> None:
        self.tickets = tickets
        self.carried: list[tuple[str, dict[str, str]]] = []
        self.outcome = Outcome("done", "version 7 is in the vault", {})
        self.shown: tuple[tuple[str, str], ...] = ()

    def __call__(self, code: str, values: Mapping[str, str]) -> Carried:
        self.tickets.take(code)
        self.before_sending(values)
        self.carried.append((code, dict(values)))
        self.tickets.finish(code, self.outcome)
        return Carried(self.outcome, self.shown)

    def before_sending(self, values: Mapping[str, str]) -> None:
        """For tests to replace."""


class Desk:
    """Tickets, the pages for them, and a person who uses these."""

    def __init__(self, directory: Path) -> None:
        self.now_s = NOW_S
        self.directory = directory / "waiting"
        self.tickets = Tickets(str(self.directory), self.clock)
        self.clerk = Clerk(self.tickets)
        self.pages = Pages(self.tickets, self.clerk, self.clock)

    def clock(self) -> float:
        """Unix time."""
        return self.now_s

    def open(self, ticket: Ticket = FILL) -> Visit:
        """Adds a ticket and goes to its page."""
        code = self.tickets.add(ticket).code
        return Visit(self, code, self.pages.url(code))


class Visit:
    """The page of one ticket."""

    def __init__(self, desk: Desk, code: str, url: str) -> None:
        self.desk, self.code, self.url = desk, code, url
        self.port, self.path = urlsplit(url).port or 0, urlsplit(url).path
        self.host = f"127.0.0.1:{self.port}"
        self.origin = f"http://{self.host}"
        self._nonce = ""

    @property
    def found(self) -> Found:
        """The ticket and where it stands."""
        return self.desk.tickets.find(self.code)

    def send(self, method: str, path: str, headers: Headers, body: bytes = b"") -> Reply:
        """Sends exactly these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def get(self) -> Reply:
        """Loads the page as a browser does."""
        return self.send("GET", self.path, [("Host", self.host), ("Sec-Fetch-Dest", "document")])

    def nonce(self) -> str:
        """The hidden member of the form, from the first time that it was loaded."""
        if not self._nonce:
            self._nonce = self.get().text.partition('name="nonce" value="')[2].partition('"')[0]
        return self._nonce

    def own_headers(self, body: bytes) -> list[tuple[str, str]]:
        """What a browser sends with the page's own form."""
        return [
            ("Host", self.host),
            ("Origin", self.origin),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", str(len(body))),
        ]

    def post(self, fields: Mapping[str, str]) -> Reply:
        """Sends members of a form."""
        body = urlencode(fields).encode()
        return self.send("POST", self.path, self.own_headers(body), body)

    def answer(self, *values: str, **more: str) -> Reply:
        """Types values, one for each field, and answers."""
        typed = {f"field{index}": value for index, value in enumerate(values)}
        return self.post({"nonce": self.nonce(), "choice": "go", **typed, **more})

    def refuse(self) -> Reply:
        """Refuses."""
        return self.post({"nonce": self.nonce(), "choice": "refuse"})
