"""Generates docs/faults.md, the outcome of each fault, from the rows that tests/test_faults.py tests."""

from __future__ import annotations

import re
import textwrap
from itertools import groupby

from sikkerkey_core import ERROR_MAX_CHARACTERS, JSON_MAX_VALUES
from sikkerkey_mcp import (
    ANSWER_MAX_BYTES,
    BACKOFF_S,
    CONNECT_MAX_S,
    EXCHANGE_MAX_S,
    IDLE_MAX_S,
    KEPT_ANSWER_MAX_S,
    NEXT_ADDRESS_S,
    RETRIES_MAX,
    RETRY_MAX_S,
    TOOLS,
)
from tests.support.fault_table import FAULTS, Fault, Outcome

LOOKING = [f"`{tool.name}.{action.name}`" for tool in TOOLS for action in tool.actions if action.look]
LOOKS = textwrap.fill(
    f"- Some writes **look first**, with a read: {', '.join(LOOKING)}. If the vault refuses the read, the server sends "
    "the write anyway. If the read fails in another way, the server does not send the write, and the message says so.",
    width=120,
    subsequent_indent="  ",
    break_on_hyphens=False,
)
INTRO = f"""\
# Faults between the program and the vault

This page lists the messages that a model gets when the connection to the vault fails or an answer is broken. It is
generated from the rows in `tests/support/fault_table.py`; `make docs` rewrites it.

`tests/test_faults.py` runs each of the {len(FAULTS)} rows against a server process, once with a read and once with a
write. It checks the message, the number of attempts, and the requests that arrive. The next call on the same process
must succeed. One process handles all rows of a kind, and must not keep extra threads or descriptors.

- The server retries a **read** if that may help: at most {RETRIES_MAX + 1} attempts within {RETRY_MAX_S:.0f} s. The
  first pause is {BACKOFF_S} s, and each further pause is twice as long; `Retry-After` takes precedence.
- The server repeats a **write** only if the vault cannot have processed it: nothing was sent, or the answer was 429.
  Otherwise the message tells the model to check before it repeats the call.
{LOOKS}
- Each attempt has its own timestamp, nonce and signature. The tests check that no nonce is sent twice.
- Connecting may take {CONNECT_MAX_S:.0f} s, and the exchange on an open connection {EXCHANGE_MAX_S:.0f} s. The server
  refuses an answer of more than {ANSWER_MAX_BYTES:,} bytes or {JSON_MAX_VALUES:,} values.
- If the vault's name has several addresses, IPv6 and IPv4 take turns. If an address does not answer within
  {1000 * NEXT_ADDRESS_S:.0f} ms, the server also tries the next one (RFC 8305). The next connection starts with the
  address that worked.
- The server keeps a connection for at most {IDLE_MAX_S:.0f} s, including the time that the computer sleeps. A kept
  connection may have died unnoticed: a read that gets no byte on it within {KEPT_ANSWER_MAX_S:.0f} s is repeated on a
  new connection.
- Of what the peer sends, the model sees only the JSON of an answer, the `error` text of the vault, cleaned and cut to
  {ERROR_MAX_CHARACTERS} characters, and letters, digits and punctuation from the issuer's name in a refused
  certificate.

`<URL>` is the URL of the vault, N is the status, and * stands for words of the system or of the TLS library.
"""

TIMES = {0: "not sent", 1: "sent once", 2: "sent twice", 3: "sent 3 times", 4: "sent 4 times"}
HEAD = ("Fault", "Read", "Write")


def faults_page() -> str:
    """The content of docs/faults.md."""
    return "\n".join([INTRO, *(_section(group, list(faults)) for group, faults in groupby(FAULTS, lambda f: f.group))])


def _section(group: str, faults: list[Fault]) -> str:
    """The faults of one group; faults with the same outcome share a line."""
    same: dict[tuple[Outcome, Outcome], list[str]] = {}
    for fault in faults:
        same.setdefault((_numbered(fault.read, fault), _numbered(fault.write, fault)), []).append(fault.name)
    rows = [("; ".join(names), _cell(read), _cell(write, read)) for (read, write), names in same.items()]
    lines = [HEAD, ("---",) * 3, *rows]
    return f"## {group[0].upper()}{group[1:]}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _numbered(outcome: Outcome, fault: Fault) -> Outcome:
    return outcome._replace(text=outcome.text.replace(f"answered {fault.name}", "answered N"))


def _cell(outcome: Outcome, other: Outcome | None = None) -> str:
    if outcome == other:
        return "same as the read"
    attempts = TIMES[outcome.sent] + (f", tried {outcome.tried} times" if outcome.tried > max(outcome.sent, 1) else "")
    text = re.sub(r"(.)\1{20,}", r"\1\1\1...", outcome.text).replace("|", "\\|")
    return f"{attempts}<br>" + "<br>".join(f"`{line}`" for line in text.split("\n"))
