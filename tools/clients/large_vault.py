"""The trial with a large vault: how many rows of long lists reach the model, and whether it can page to the last row.

Rows are recognized by their names, so that those in a result that the client cut are counted too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.support import large_vault
from tests.support.local_vault import LocalVault
from tools.clients.checks import require
from tools.clients.dialects import Answer, Call, ModelRequest, Text
from tools.clients.script import DONE, Script, object_in, results_of
from tools.clients.wire import Session
from vault.router import wall_clock
from vault.schema import open_store

PAGES = 4  # of each list: the first, those that `next` leads to, and the last
LAST_ROWS = 3  # on the last page
REPEATED_MAX = 3  # requests without a new result, before the trial ends


class Listing(NamedTuple):
    """A call for a list, a pattern for the names of its rows, and all names in the order of the list."""

    title: str
    tool: str
    arguments: dict[str, Any]
    pattern: str
    names: Sequence[str]


SECRETS, MACHINES, ENTRIES = 5_000, 2_000, 10_000
LISTINGS = (
    Listing(
        "secrets",
        "manage_secrets",
        {"action": "list", "projectId": large_vault.PROJECT},
        r"SERVICE_\d{5}_DATABASE_PASSWORD",
        [large_vault.secret_name(number) for number in range(SECRETS)],
    ),
    Listing(
        "machines",
        "manage_machines",
        {"action": "list"},
        r"web-\d{5}\.example\.com",
        [large_vault.machine_name(number) for number in range(MACHINES)],
    ),
    Listing(
        "audit entries",
        "read_audit",
        {"action": "query", "actions": ["secret_read"]},
        r"version 1 of SERVICE_\d{5}_DATABASE_PASSWORD read",
        [large_vault.audit_detail(number) for number in reversed(range(ENTRIES))],
    ),
)


class Shown(NamedTuple):
    """What the model received of a list: the rows of the first page, and whether it reached the last row.

    `cut` means that the client changed a page.
    """

    list: str
    total: int
    sent: int
    received: int
    cut: bool
    pages: int
    last_row: bool


def fill(vault: LocalVault) -> None:
    """Adds the rows to the vault."""
    now_ms = wall_clock()
    with open_store(vault.directory) as store, store.transaction() as db:
        large_vault.add_projects(db, range(1), now_ms)
        large_vault.add_secrets(db, large_vault.PROJECT, range(SECRETS), now_ms)
        large_vault.add_machines(db, large_vault.PROJECT, range(MACHINES), now_ms)
        large_vault.add_audit(db, large_vault.PROJECT, ENTRIES, now_ms)


class Paging(Script):
    """Calls for each list, follows `next`, and jumps to the last rows."""

    def __init__(self, shown: str, listings: Sequence[Listing] = LISTINGS) -> None:
        super().__init__(shown, [[it.tool, it.arguments] for it in listings])
        self._listings = listings
        self._latest: Answer | None = None
        self._repeated = 0

    def __call__(self, request: ModelRequest) -> Answer:
        answer = super().__call__(request)
        if isinstance(answer, Call):
            self._repeated = self._repeated + 1 if answer == self._latest else 0
            self._latest = answer
        if self._repeated >= REPEATED_MAX:
            return Text("stopped: the client did not pass on the result, but asked again")
        return answer

    def next_call(self, results: Sequence[str]) -> Any:
        """The next call of the first list that is not finished. None at the end."""
        left = iter(results)
        for listing in self._listings:
            arguments: dict[str, Any] | None = listing.arguments
            for page in range(PAGES):
                text = next(left, None)
                if text is None:
                    return [listing.tool, arguments]
                arguments = following(listing, object_in(text), is_last=page == PAGES - 2)
                if arguments is None:
                    break
        return None


def following(listing: Listing, answer: Any, *, is_last: bool) -> dict[str, Any] | None:
    """The arguments for the next page, or for the last one; None if the answer has no `next`."""
    following = answer.get("next") if isinstance(answer, dict) else None
    if not isinstance(following, dict):
        return None
    offset = {"offset": answer["total"] - LAST_ROWS} if is_last else {}
    return {**listing.arguments, **following, **offset}


def names_in(listing: Listing, text: str) -> list[str]:
    """The names of the rows in a text, in order, each once."""
    return list(dict.fromkeys(re.findall(listing.pattern, text)))


class Page(NamedTuple):
    """A result as the server sent it, and the text that the model received."""

    sent: str
    received: str

    @property
    def whole(self) -> bool:
        """The client changed nothing."""
        received = object_in(self.received)
        return received is not None and received == object_in(self.sent)


def pages(sessions: Sequence[Session], request: ModelRequest | None) -> dict[str, list[Page]]:
    """The pages of each list. `request` is the one with the most results; None if the model was not asked."""
    calls = [call for session in sessions for call in session.calls]
    texts = [*(results_of(request) if request else []), *[""] * len(calls)]
    found: dict[str, list[Page]] = {listing.title: [] for listing in LISTINGS}
    for (params, result), text in zip(calls, texts):
        title = next(listing.title for listing in LISTINGS if listing.tool == params["name"])
        found[title].append(Page(result["content"][0]["text"], text))
    return found


def shown(found: dict[str, list[Page]]) -> list[Shown]:
    """What the model received of each list."""
    rows = []
    for listing in LISTINGS:
        of_list = found[listing.title] or [Page("", "")]
        sent, received = (names_in(listing, text) for text in of_list[0])
        cut = not all(page.whole for page in of_list)
        last_row = names_in(listing, of_list[-1].received)[-1:] == listing.names[-1:]
        rows.append(Shown(listing.title, len(listing.names), len(sent), len(received), cut, len(of_list), last_row))
    return rows


def check(found: dict[str, list[Page]], answer: Answer | None) -> None:
    """Every page arrived whole, and the pages lead to the last row without a gap. Raises Failed."""
    require(isinstance(answer, Text), "the client did not pass on the last result")
    require(answer == Text(DONE), answer[0] if answer else "")
    for listing in LISTINGS:
        _check_pages(listing, found[listing.title])


def _check_pages(listing: Listing, of_list: Sequence[Page]) -> None:
    require(len(of_list) == PAGES, f"the model asked for {len(of_list)} pages of the {listing.title}, not {PAGES}")
    require(all(page.whole for page in of_list), f"the client cut a page of the {listing.title}")
    answers = [object_in(page.received) for page in of_list]
    totals = [answer.get("total") for answer in answers]
    require(totals == [len(listing.names)] * PAGES, f"the totals of the {listing.title} are {totals}")
    first, last = of_list[:-1], of_list[-1]
    names = [name for page in first for name in names_in(listing, page.received)]
    require(names == listing.names[: len(names)], f"the first pages of the {listing.title} lack rows or repeat some")
    reached = names_in(listing, last.received) == listing.names[-LAST_ROWS:] and "next" not in answers[-1]
    require(reached, f"the last page of the {listing.title} does not end with the last row")
