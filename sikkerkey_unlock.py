"""Asking the person for the passphrase of a running server's key: on the one-time page, or with `fill` in a terminal.

It is a ticket like that of a value, except that it belongs to the process that waits: that process checks the
passphrase and keeps the key in its memory. So `fill`, which is another process, hands the passphrase to the page. It
finds the address in a private file beside the ticket, and sends nothing to a page that does not know the secret in it.

This module is imported only when a key is locked. It imports modules of this project, but never the server.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import sikkerkey_person_dialog
from sikkerkey_core import ArgumentError, ConfigError, Error, JsonObject, clean, program
from sikkerkey_identity import Identity
from sikkerkey_person import in_this_home
from sikkerkey_results import error_result
from sikkerkey_shell import command_line
from sikkerkey_tickets import (
    LIFE_S,
    UNLOCK,
    Carried,
    Found,
    Invalid,
    Outcome,
    Ticket,
    Tickets,
    TicketsUnusable,
    TooManyWaiting,
    digest_of,
    normal_code,
)

if TYPE_CHECKING:
    from sikkerkey_person_dialog import Caller

TRIES = 5  # of one ticket
PAGE_S = 60.0
PAGE_MAX_BYTES = 256 * 1024
UNLOCKED = Outcome("done", "the key is unlocked while the assistant's server runs", {})
TOO_MANY = Outcome("refused", "the passphrase was wrong too often", {})


class KeyUnlock:
    """Asks for the passphrase of an agent's key, and gives it to `unlock`, which raises Error if it is wrong."""

    def __init__(
        self, directory: str, *, browser: bool, unlock: Callable[[str, str], None], now_s: Callable[[], float]
    ) -> None:
        self._tickets = Tickets(directory, now_s)
        self._unlock, self._now_s = unlock, now_s
        self._dialog = sikkerkey_person_dialog.PersonDialog(self._tickets, self.carry_out, browser=browser)
        self._tries: dict[str, int] = {}
        self._server = secrets.token_hex(16)  # not the process id: in a container, each server may have the same one
        self._lock = threading.Lock()

    def asked(self, identity: Identity, caller: Caller) -> JsonObject | None:
        """None once the key is unlocked; else the result of a call that has to wait. Raises Error."""
        try:
            draft = self._draft(identity)
            known = self._tickets.same(draft.digest)
            if known is None:
                self._publish(self._tickets.add(draft))
            found = self._dialog.complete(draft, caller)
        except TooManyWaiting:
            raise Error("too many calls wait for a person", "wait until some have expired; they do in 10 min") from None
        except TicketsUnusable as error:
            raise ConfigError(clean(str(error)), "nothing was sent; the user must repair that directory") from None
        if found.state != "over":
            caller.person = "asked"
            return _waiting(identity, found.ticket, has_page=self._dialog.has_page(found.ticket.code))
        self._tickets.delivered(found.ticket.code)
        if found.outcome == UNLOCKED:
            return None
        said = found.outcome.message if found.outcome else "no person typed it in time"
        raise ArgumentError(f"the passphrase of the agent's key is required; nothing was sent: {said}")

    def carry_out(self, code: str, values: Mapping[str, str]) -> Carried:
        """Tries what a person typed. Raises Invalid if it is wrong, NotWaiting, or UnknownCode."""
        ticket = self._tickets.take(code)
        try:
            self._unlock(ticket.agent_id, values[""])
        except Error as error:
            with self._lock:
                tries = self._tries[ticket.code] = self._tries.get(ticket.code, 0) + 1
            if tries < TRIES:
                self._tickets.give_back(ticket.code)
                raise Invalid(str(error)) from None
            self._tickets.finish(ticket.code, TOO_MANY)
            return Carried(TOO_MANY)
        except BaseException:
            self._tickets.give_back(ticket.code)
            raise
        self._tickets.finish(ticket.code, UNLOCKED)
        with suppress(OSError):
            os.unlink(_page_file(self._tickets.directory, ticket.code))
        return Carried(UNLOCKED)

    def _draft(self, identity: Identity) -> Ticket:
        vault = f"{clean(identity.vault_id, 60)} at {clean(identity.api_url, 100)}"
        name = clean(identity.name, 60) or identity.agent_id
        return Ticket(
            code="",
            agent_id=identity.agent_id,
            tool=UNLOCK,
            action="",
            arguments={},
            digest=digest_of(identity.agent_id, UNLOCK, self._server, {}),
            title="Type the passphrase of your agent's key",
            details=(("Vault", vault), ("Agent", f"{name} ({identity.agent_id})")),
            quoted=(),
            warning="",
            fields=("",),
            shows=False,
            expires_s=self._now_s() + LIFE_S,
        )

    def _publish(self, ticket: Ticket) -> None:
        """Tells `fill` where the page is. Without that file, it says that the server does not run."""
        path = _page_file(self._tickets.directory, ticket.code)
        with suppress(OSError):
            url, secret = self._dialog.page_of(ticket)
            with suppress(FileNotFoundError):
                os.unlink(path)  # of an earlier ticket with the same code
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                json.dump({"url": url, "secret": secret}, file)


def _page_file(directory: str, code: str) -> str:
    return os.path.join(directory, f"{normal_code(code)}.page")


def _waiting(identity: Identity, ticket: Ticket, *, has_page: bool) -> JsonObject:
    message = f"the key of agent {identity.agent_id} has a passphrase, which only the user knows; nothing was sent"
    command = in_this_home(f"{command_line(program())} fill {ticket.code}")
    page = f"types it on the page that has opened, if it shows the code {ticket.code}, or " if has_page else ""
    hint = (
        f"the user {page}runs in a terminal: {command}; then repeat the call. Never ask for the passphrase in the chat"
    )
    return error_result(ConfigError(message, hint))


def hand_over(tickets: Tickets, ticket: Ticket, passphrase: str) -> Found:
    """Gives a passphrase to the page of the process that waits for it, and says where the ticket stands then.

    Raises Error if that process does not run, and nothing was sent.
    """
    try:
        with open(_page_file(tickets.directory, ticket.code), "rb") as file:
            members = json.loads(file.read(4_096))
        url, secret = str(members["url"]), str(members["secret"])
        shown = _exchange(url, "GET", b"")
        if not any(hmac.compare_digest(word, secret.encode()) for word in shown.split(b'"')):
            raise ValueError
        fields = {"nonce": secret, "field0": passphrase, "choice": "go", "keep": "yes"}
        _exchange(url, "POST", urlencode(fields).encode())
    except (OSError, ValueError, LookupError, http.client.HTTPException):
        message = "the assistant's server that asked for the passphrase does not run any more"
        raise Error(message, "ask your assistant to try again") from None
    return tickets.find(ticket.code)


def _exchange(url: str, method: str, body: bytes) -> bytes:
    """One request to a page of this computer, as its own form would send it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PAGE_S)
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    try:
        connection.request(method, parts.path, body or None, {**headers, "Origin": f"http://{parts.netloc}"})
        return connection.getresponse().read(PAGE_MAX_BYTES)
    finally:
        connection.close()
