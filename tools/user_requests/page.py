"""docs/requests.md: what each request costs a model, from docs/requests.json, and what a person types for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.user_requests.commands import TYPED, times_of

INTRO = """\
# 25 requests

This page shows what 25 requests of people cost a model. It is generated from `docs/requests.json`;
`make record-requests` plays the requests again and rewrites it.

The cost is measured in calls, and characters of arguments and results. *Before*
is commit `{before}`, without [`review`](reviews.md), `search` and `next`; *after* is this program.

Both are played against a local vault with 8 projects, 120 secrets, 40 machines and 2,000 audit entries. The calls are
those of a model that makes no mistake and reads each list to its end; `tools/user_requests/script.py` has them. After
each request, its answer or effect is compared with the vault's database.

"""

NOTES = """
A result now has at most 10,000 characters. A long list therefore takes several calls: the changes of a week take two
more. Before, such a list was one result, however long, and many clients cut it.
"""

TYPED_INTRO = """
## From a terminal

The same requests as [commands](command-line.md), on 31 January 2026. The tests run them and compare the vault's
database in the same way. Names stand for ids; `--yes` answers the question of a destructive call.

"""
TODAY_MS = 1_769_817_600_000  # 2026-01-31

HEAD = "| | Request | Calls before | after | Characters before | after |\n|---:|---|---:|---:|---:|---:|\n"


def page(recorded: Path) -> str:
    """The whole page."""
    content = json.loads(recorded.read_bytes())
    rows: list[Mapping[str, Any]] = content["requests"]
    lines = [_line(str(number), row["request"], row) for number, row in enumerate(rows, start=1)]
    total = {
        era: {unit: sum(row[era][unit] for row in rows) for unit in ("calls", "characters")}
        for era in ("before", "after")
    }
    costs = HEAD + "".join([*lines, _line("", "All", total)]) + NOTES
    return INTRO.format(before=content["before"]) + costs + TYPED_INTRO + _typed([row["request"] for row in rows])


def _typed(requests: Sequence[str]) -> str:
    """What a person types for each request, as one block."""
    times = times_of(TODAY_MS)
    blocks = [
        f"# {number}. {text}\n{typed.shown(times)}\n"
        for number, (text, typed) in enumerate(zip(requests, TYPED), start=1)
    ]
    return "```sh\n" + "\n".join(blocks) + "```\n"


def _line(number: str, text: str, costs: Mapping[str, Any]) -> str:
    figures = [f"{costs[era][unit]:,}" for unit in ("calls", "characters") for era in ("before", "after")]
    return f"| {' | '.join([number, text, *figures])} |\n"
