"""docs/faults.md: what comes of which fault, from the rows that tests/test_faults.py holds the program to."""

from __future__ import annotations

import re
from itertools import groupby

from sikkerkey_mcp import (
    ANSWER_MAX_BYTES,
    BACKOFF_S,
    CONNECT_MAX_S,
    ERROR_MAX_CHARACTERS,
    EXCHANGE_MAX_S,
    JSON_MAX_VALUES,
    RETRIES_MAX,
    RETRY_MAX_S,
)
from tests.support.fault_table import FAULTS, Fault, Outcome

INTRO = f"""\
# What may go wrong between the program and the vault

This page is generated from the rows in `tests/support/fault_table.py`; `make docs` rewrites it. `tests/test_faults.py`
plays each of the {len(FAULTS)} rows twice, for a read and for a write, before a server process, and holds what the
model is told, how often it was tried and what arrived to the row. After each row the next call on the same process must
succeed; one process outlives all rows of its kind and ends with the threads and descriptors that it began with.

- A **read** is tried again where another try can help: {RETRIES_MAX + 1} times at most, within {RETRY_MAX_S:.0f} s,
  after {BACKOFF_S} s and then twice as long each time, or after what `Retry-After` asks for.
- A **write** is sent again only where the vault cannot have processed it: nothing was sent, or it answered 429. Where
  it may have, the model is told to look first.
- Each attempt has a timestamp, nonce and signature of its own; the tests see none of them twice.
- An attempt ends {EXCHANGE_MAX_S:.0f} s after its connection is open, connecting after {CONNECT_MAX_S:.0f} s. An
  answer of more than {ANSWER_MAX_BYTES:,} bytes or {JSON_MAX_VALUES:,} values is refused.
- Nothing that the peer sent is shown but the vault's own `error` text, cleaned and cut to {ERROR_MAX_CHARACTERS}
  characters, and the JSON of an answer.

`<URL>` is the vault's, N the status, and * stands for words of the system or of the TLS library.
"""

TIMES = {0: "not sent", 1: "sent once", 2: "sent twice", 3: "sent 3 times", 4: "sent 4 times"}
HEAD = ("What happens", "A read", "A write")


def faults_page() -> str:
    """The whole of docs/faults.md."""
    return "\n".join([INTRO, *(_section(group, list(faults)) for group, faults in groupby(FAULTS, lambda f: f.group))])


def _section(group: str, faults: list[Fault]) -> str:
    """The faults of one group; those that come to the same share a line."""
    alike: dict[tuple[Outcome, Outcome], list[str]] = {}
    for fault in faults:
        alike.setdefault((_numbered(fault.read, fault), _numbered(fault.write, fault)), []).append(fault.name)
    rows = [("; ".join(names), _cell(read), _cell(write, read)) for (read, write), names in alike.items()]
    lines = [HEAD, ("---",) * 3, *rows]
    return f"## {group[0].upper()}{group[1:]}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _numbered(outcome: Outcome, fault: Fault) -> Outcome:
    return outcome._replace(text=outcome.text.replace(f"answered {fault.name}", "answered N"))


def _cell(outcome: Outcome, other: Outcome | None = None) -> str:
    if outcome == other:
        return "the same"
    attempts = TIMES[outcome.sent] + (f", tried {outcome.tried} times" if outcome.tried > max(outcome.sent, 1) else "")
    text = re.sub(r"(.)\1{20,}", r"\1\1\1...", outcome.text).replace("|", "\\|")
    return f"{attempts}<br>" + "<br>".join(f"`{line}`" for line in text.split("\n"))
