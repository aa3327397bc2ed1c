"""The bounds, and RESULTS.md from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench.memory import LARGE_MB, USUAL_MB
from bench.start import PAUSE_S
from bench.timing import Quartiles

Results = dict[str, Any]

SESSIONS = {"session": "HTTP", "session, TLS": "HTTPS", "session, first": "HTTPS, empty cache"}
CALLS = {"call": "a call of `whoami`", "bare": "a bare HTTP exchange on a kept connection"}
VAULT_TITLE = "\n## The local vault at size\n"
MOMENTS = ("before", "peak", "after")  # of a large answer


class Bound(NamedTuple):
    """A figure that must not be exceeded."""

    what: str
    most: float
    unit: str
    measured: float

    @property
    def held(self) -> bool:
        """True if the figure is within the bound."""
        return self.measured <= self.most

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        figures = (f"{_cell(figure)} {self.unit}".rstrip() for figure in (self.most, self.measured))
        return [self.what, *figures, "yes" if self.held else "**no**"]


def bounds(results: Results) -> list[Bound]:
    """Every bound, with what was measured."""
    starts, single = results["start"], results["single call"]
    slow = next(row for row in results["concurrent calls"] if (row["delay_ms"], row["count"]) == (100, 32))
    found = [_start_bound("start to `tools/list`", 5, "warm", each) for each in starts]
    found += [_start_bound("the same with an empty cache", 30, "cold", each) for each in starts]
    found += [
        Bound("a call, median", 4, "x bare", single["ratio"].median),
        Bound("32 concurrent calls of 100 ms", 250, "ms", slow["calls"].median),
        Bound("ping while 32 calls run, median", 10, "ms", results["ping"]["loaded"].median),
        Bound("TLS connections for 100 calls", 1, "", results["TLS"]["connections"]),
        Bound("`tools/list`", 29_000, "bytes", results["sizes"]["tools/list"]),
    ]
    for name, title in SESSIONS.items():
        after_1000_mb, after_10000_mb = (row["rss_mb"] for row in results[name][-2:])
        most_mb = 45 if name == "session, first" else 40  # the first process of a build also compiles it
        found.append(Bound(f"memory after 10,000 calls, {title}", most_mb, "MB", after_10000_mb))
        found.append(Bound(f"the same, above that after 1,000 calls, {title}", 4, "MB", after_10000_mb - after_1000_mb))
    for limit_mb, title in ((LARGE_MB, "an answer of 16 MB"), (USUAL_MB, "any other hostile answer")):
        grown_mb = max(row["grown_mb"] for row in results["faults"] if row["most_mb"] == limit_mb)
        found.append(Bound(f"memory added by {title}", limit_mb, "MB", grown_mb))
    for what, costs in results["growth"].items():
        (least, least_ms), *_, (most, most_ms) = costs.items()
        found.append(
            Bound(f"time per unit, {most:,} {what}", 2, f"x that of {least:,}", most_ms / least_ms * least / most)
        )
    return found


def _start_bound(what: str, most: float, kind: str, each: Results) -> Bound:
    return Bound(f"{what}, Python {each['python']}", most, "x bare", each["ratio"][kind].median)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, Quartiles):
        return f"{_cell(value.median)} ({_cell(value.low)} to {_cell(value.high)})"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _starts(results: Results) -> Iterator[str]:
    starts = results["start"]
    yield (
        "From starting the process to the answer to `tools/list`, as a multiple of `python -I -S -c pass`; "
        "beside it an archive that does nothing, and the first signed call after the listing."
    )
    head = ["Python", "bare, ms", "archive that does nothing, x bare", "warm, x bare", "empty cache, x bare"]
    head += ["first call at once, ms", f"first call after {PAUSE_S} s, ms"]
    rows = []
    for each in starts:
        ratio, first = each["ratio"], each["first call"]
        ratios = [ratio["empty"], ratio["warm"], ratio["cold"]]
        rows.append([each["python"], each["ms"]["bare"], *ratios, first["at once"], first["after a pause"]])
    yield table(head, rows)


def _peers(results: Results) -> Iterator[str]:
    own = max(results["start"], key=lambda each: len(each["ms"]))
    names = ["warm", *(name for name in own["ms"] if "SDK" in name)]
    yield "From starting the process to the answer to `tools/list`, in the same loop:"
    shown = {"warm": "sikkerkey-mcp"}
    rows = [[shown.get(name, name), own["ms"][name], own["ratio"][name]] for name in names]
    yield table(["server", "ms", "x bare"], rows)
    yield "Throughput. The one tool of the SDKs' servers calls no API."
    head = ["server", "calls/s, 32 running", "32 calls of 100 ms, ms", "memory, MB"]
    keys = ("server", "rate", "slow_ms", "memory_mb")
    yield table(head, [[row[key] for key in keys] for row in results["beside peers"]])


def _calls(results: Results) -> Iterator[str]:
    single, ping, tls = (results[name] for name in ("single call", "ping", "TLS"))
    rows = [[title, single[name], single["ratio"] if name == "call" else 1] for name, title in CALLS.items()]
    yield table(["what", "µs", "x bare"], rows)
    yield (
        f"One call in a hundred takes more than {single['call p99']:,.0f} µs. A hundred calls over TLS open "
        f"{tls['connections']} connection and take {tls['call'].median:,.0f} µs each. A ping is answered in "
        f"{ping['loaded'].median:.2f} ms (worst {ping['worst_ms']:.2f} ms) while 32 calls run, and in "
        f"{ping['idle'].median:.2f} ms while none does."
    )
    yield "Concurrent calls, and as many bare exchanges, each on a separate socket whose answer is not parsed:"
    rows = [
        [row["delay_ms"], row["count"], row["calls"], row["bare"], row["calls"].median / row["bare"].median]
        for row in results["concurrent calls"]
    ]
    yield table(["the API takes, ms", "calls", "all answered after, ms", "bare, ms", "x bare"], rows)


def _memory(results: Results) -> Iterator[str]:
    yield "Resident memory after so many calls, 8 of them running concurrently:"
    rows = []
    for name, title in SESSIONS.items():
        for row in results[name]:
            rest = [row.get("us_per_call", ""), row.get("cpu_s_per_1000", "")]
            rows.append([title, row["calls"], row["rss_mb"], row["peak_mb"], *rest])
    yield table(["session", "calls", "memory, MB", "peak, MB", "µs per call", "CPU s per 1,000 calls"], rows)
    yield "After 1,000 calls over HTTPS, by interpreter:"
    rows = [[each["python"], each["bare_mb"], each["session_mb"]] for each in results["memory"]]
    yield table(["Python", "bare interpreter, MB", "session, MB"], rows)


def _faults(results: Results) -> Iterator[str]:
    yield "The memory that a call adds at its peak while it reads an answer that it mostly refuses:"
    yield table(["answer", "added, MB"], [[row["name"], row["grown_mb"]] for row in results["faults"]])


def _large(results: Results) -> Iterator[str]:
    yield (
        "The bare program fetches the same bytes and writes them as JSON. A client receives JSON twice, as text and as "
        "structured content."
    )
    head = ["answer", "bytes from the vault", "bytes to the client", "ms", "bare, ms", "x bare"]
    rows = []
    for name, row in results["large answers"].items():
        ratio, memory = row["call"].median / row["bare"].median, [row[f"{when}_mb"] for when in MOMENTS]
        rows.append([name, row["received_bytes"], row["bytes"], row["call"], row["bare"], ratio, *memory])
    yield table([*head, *(f"memory {when}, MB" for when in MOMENTS)], rows)


def _growth(results: Results) -> Iterator[str]:
    rows: list[list[object]] = []
    for what, costs in results["growth"].items():
        (least, least_ms), *_ = costs.items()
        rows += [[f"{size:,} {what}", ms, size / least, ms / least_ms] for size, ms in costs.items()]
    yield table(["size", "ms", "size, x the smallest", "time, x the smallest"], rows)


def with_vault_section(text: str, section: str) -> str:
    """RESULTS.md with another last section, which `make bench-vault` writes."""
    return text.partition(VAULT_TITLE)[0].rstrip() + "\n\n" + section


def vault_section(text: str) -> str:
    """The last section of RESULTS.md, or nothing."""
    _, title, rest = text.partition(VAULT_TITLE)
    return title.lstrip() + rest


def markdown(results: Results) -> str:
    """RESULTS.md, without the section that `make bench-vault` writes."""
    parts = [
        "# Results",
        f"Written by `make bench` on {results['date']}: {results['machine']}. Figures are medians, with quartiles in "
        "parentheses. [README.md](README.md) explains what is measured and how.",
        "## Bounds",
        table(["what", "at most", "measured", "held"], [bound.row for bound in bounds(results)]),
        "## Start",
        *_starts(results),
        "## Beside the official SDKs",
        *_peers(results),
        "## Calls",
        *_calls(results),
        "## Memory and processor",
        *_memory(results),
        "## Hostile answers",
        *_faults(results),
        "## Large answers",
        *_large(results),
        "## Bytes",
        table(["what", "bytes"], list(results["sizes"].items())),
        "## Growth",
        *_growth(results),
    ]
    return "\n\n".join(parts) + "\n"
