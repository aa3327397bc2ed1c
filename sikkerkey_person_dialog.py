"""Bringing a call to the person who has to complete it: by the client, by a page in the browser, or by a command.

What a person has to do is a ticket (see sikkerkey_tickets). Clients differ in what they can show, and several say that
they ask and then answer for the person at once. So the ways are tried in this order, and an answer that came within a
second, before anybody opened the page, means that nobody was asked:

    a page that the client offers to open     elicitation in URL mode
    a question, then this program opens it    elicitation with a form
    this program opens the page               only where there is a display
    a command in a terminal of the person's   always offered

The page's address is never part of an answer, because the model reads it. This module is imported only when a person
is needed. It imports modules of this project, but never the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import sikkerkey_page
from sikkerkey_questions import Form, Page, Question, Reply, was_nobody_asked
from sikkerkey_tickets import REFUSED, CarryOut, Found, NotWaiting, Ticket, Tickets, TicketsUnusable

WAIT_S, WAIT_WITH_PROGRESS_S = 45.0, 240.0  # below the limits of all clients that were measured
UNSEEN_PAGE_S = 45.0  # for a page that this program opened, until somebody loads it
POLL_S = 0.25
OPEN_MAX = 2  # questions of one process; a further call gets the command at once
PROGRESS_S = 5.0
WITHDRAWN = "the assistant's call was cancelled"


class Caller(Protocol):
    """The call that needs a person. `person` is what the person did about it, for the activity log."""

    person: str

    @property
    def cancellation(self) -> Any:
        """With `is_set()` and `wait(timeout_s)`."""

    @property
    def reports_progress(self) -> bool:
        """True if the client wants to be told that the call still runs."""

    def progress(self, message: str) -> None:
        """Tells it."""

    def ask(self, question: Question, subject: str = "") -> Reply:
        """Asks through the client."""

    def close_page(self, question_id: str) -> None:
        """Tells the client that the person is done with a page."""


class PersonDialog:
    """Brings tickets to the person. `browser` is False if this program may not open one.

    `carry_out` completes a ticket with what was typed; the page calls it from a thread of its own.
    """

    def __init__(
        self,
        tickets: Tickets,
        carry_out: CarryOut,
        *,
        browser: bool = True,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tickets = tickets
        self._pages = sikkerkey_page.Pages(tickets, carry_out)
        self._browser, self._monotonic_s = browser, monotonic_s
        self._open_questions = threading.BoundedSemaphore(OPEN_MAX)
        self._open_pages: dict[str, str] = {}  # the questions of clients that still show a page, by code
        self._in_browser: set[str] = set()  # the codes whose page this program opened by itself

    def page_of(self, ticket: Ticket) -> tuple[str, str]:
        """The address of a page, and what its form sends back. Raises OSError, UnknownCode, TicketsUnusable."""
        return self._pages.url(ticket.code), self._pages.nonce(ticket.code)

    def has_page(self, code: str) -> bool:
        """Whether a page of this process was brought to the person, as far as this program or the client knows."""
        return code in self._in_browser or code in self._open_pages

    def complete(self, draft: Ticket, caller: Caller) -> Found:
        """Where the ticket of a call stands after the person was asked, or was asked before for the same call.

        Raises TooManyWaiting, TicketsUnusable, and what `caller.ask` raises.
        """
        known = self.tickets.same(draft.digest)
        if known and known.state == "over":
            return known
        ticket = known.ticket if known else self.tickets.add(draft)
        if self._open_questions.acquire(blocking=False):
            try:
                self._bring(ticket, caller)
                if caller.cancellation.is_set():
                    self._refuse(ticket, WITHDRAWN)
            except NotWaiting:  # completed on another way meanwhile
                pass
            finally:
                self._open_questions.release()
        return self.tickets.find(ticket.code)

    def wait(self, code: str, caller: Caller) -> Found:
        """The ticket once it is over, or still waiting after as long as the client allows. Raises UnknownCode."""
        code = self.tickets.find(code).ticket.code
        found = self._wait(code, caller, self._limit_s(caller))
        self._close_page(found, caller)
        return found

    def _bring(self, ticket: Ticket, caller: Caller) -> None:
        if self._asked_by_page(ticket, caller) or self._asked_by_form(ticket, caller):
            return
        # The same call may come again, with an answer or without.
        if ticket.code not in self._in_browser and not self._open_browser(ticket):
            return
        limit_s = self._limit_s(caller)
        self._wait(ticket.code, caller, min(UNSEEN_PAGE_S, limit_s))
        if self._pages.was_opened(ticket.code):
            self._wait(ticket.code, caller, max(limit_s - UNSEEN_PAGE_S, 0.0))

    def _asked_by_page(self, ticket: Ticket, caller: Caller) -> bool:
        """True if the client brought the person to the page, or brought back a refusal."""
        message = f"{ticket.title}. Code {ticket.code}. {_why_a_page(ticket)}"
        was_open = self._pages.was_opened(ticket.code)
        try:
            reply = caller.ask(Page(message, lambda _question_id: self._pages.url(ticket.code)), ticket.digest)
        except (OSError, TicketsUnusable):  # no socket, or no directory
            return False
        if reply.action == "accept":
            self._open_pages[ticket.code] = reply.question_id
            self._close_page(self._wait(ticket.code, caller, self._limit_s(caller)), caller)
            return True
        return self._is_refusal(reply, ticket, was_open=was_open)

    def _close_page(self, found: Found, caller: Caller) -> None:
        """Tells the client that shows the page of a ticket that it is over."""
        question_id = self._open_pages.pop(found.ticket.code, "") if found.state == "over" else ""
        if question_id:
            caller.close_page(question_id)

    def _asked_by_form(self, ticket: Ticket, caller: Caller) -> bool:
        if not self._may_open_browser():
            return False
        title = "Open a page in the browser for it"
        field = {"type": "boolean", "title": title, "description": _why_a_page(ticket), "default": False}
        message = f"{ticket.title}. Code {ticket.code}."
        was_open = self._pages.was_opened(ticket.code)
        reply = caller.ask(Form(message, {"open": field}, ("open",)), ticket.digest)
        if reply.action == "accept" and reply.content.get("open") is True:
            if not self._open_browser(ticket):
                return False
            self._wait(ticket.code, caller, self._limit_s(caller))
            return True
        return self._is_refusal(reply, ticket, was_open=was_open)

    def _is_refusal(self, reply: Reply, ticket: Ticket, *, was_open: bool) -> bool:
        """True if a person said no, who is not asked again then. `was_open`: the page was loaded before the question.

        If the page was loaded since, however quickly the answer came, a person gave it.
        """
        is_open = self._pages.was_opened(ticket.code) and not was_open and reply.action != "unsupported"
        if was_nobody_asked(reply) and not is_open:
            return False
        self._refuse(ticket, REFUSED)
        return True

    def _refuse(self, ticket: Ticket, message: str) -> None:
        self.tickets.refuse(ticket.code, message)

    def _may_open_browser(self) -> bool:
        return self._browser and sikkerkey_page.can_open_browser(os.environ)

    def _open_browser(self, ticket: Ticket) -> bool:
        if not self._may_open_browser():
            return False
        try:
            url = self._pages.url(ticket.code)
        except OSError:
            return False
        is_open = sikkerkey_page.open_browser(url, ticket.code, self.tickets.directory)
        if is_open:
            self._in_browser.add(ticket.code)
        return is_open

    @staticmethod
    def _limit_s(caller: Caller) -> float:
        return WAIT_WITH_PROGRESS_S if caller.reports_progress else WAIT_S

    def _wait(self, code: str, caller: Caller, limit_s: float) -> Found:
        started_s = told_s = self._monotonic_s()
        while True:
            found, now_s = self.tickets.find(code), self._monotonic_s()
            if found.state == "over" or now_s - started_s >= limit_s or caller.cancellation.wait(POLL_S):
                return found
            if now_s - told_s >= PROGRESS_S:
                caller.progress(f"waiting for the person, code {code}")
                told_s = now_s


def _why_a_page(ticket: Ticket) -> str:
    return {
        "fill": "What you type there does not pass through the assistant.",
        "show": "What it shows does not pass through the assistant.",
        "confirm": "Nothing happens unless you confirm it there.",
    }[ticket.kind]
