"""RESULTS.md and a plot from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from bench.spread import Spread
from bench.start import IDLE_S

Results = dict[str, Any]

SESSIONS = {"session": "HTTP", "session, TLS": "HTTPS", "session, first": "HTTPS, the very first run"}
CALLS = {
    "call": "a call of `whoami`",
    "bare": "a bare kept-alive HTTP exchange, the limit",
    "sign": "the signed headers alone",
}
MOMENTS = ("before", "peak", "after")  # of a large answer
WARM = ("JSON echo", "initialize", "tools/list", "signed answer")
COLD = ("cold, tools/list", "cold, signed answer")
FIRST = {"first call at once": "first call, at once, ms", "first call": f"first call, {IDLE_S} s later, ms"}


class Bar(NamedTuple):
    """A figure that must not be exceeded."""

    what: str
    most: float
    unit: str
    measured: float

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        held = "yes" if self.measured <= self.most else "**no**"
        figures = (f"{_cell(figure)} {self.unit}".rstrip() for figure in (self.most, self.measured))
        return [self.what, *figures, held]


def bars(results: Results) -> list[Bar]:
    """The bars that the project has set itself."""
    starts, calls = results["start"], results["overhead"]
    at_100 = next(row for row in results["at once"] if (row["delay_ms"], row["count"]) == (100, 32))
    memory = {title: results[name][-1]["rss_mb"] for name, title in SESSIONS.items()}
    return [
        *(_start_bar("start to `tools/list`, warm", 3, "tools/list", each) for each in starts),
        *(_start_bar("the very first start", 15, "cold, tools/list", each) for each in starts),
        Bar("first signed call", 60, "ms", max(each["ms"]["first call"].median for each in starts)),
        Bar("a call, median", 2.5, "x bare HTTP", calls["call"].median / calls["bare"].median),
        Bar("32 calls of 100 ms", 250, "ms", at_100["calls"].median),
        *(Bar(f"memory after 10,000 calls, {how}", 32, "MB", rss_mb) for how, rss_mb in memory.items()),
        Bar("`tools/list`", 20_000, "bytes", results["sizes"]["tools/list"]),
        Bar("TLS connections for 100 calls", 1, "", results["handshakes"]["connections"]),
    ]


def _start_bar(what: str, most: float, kind: str, each: Results) -> Bar:
    return Bar(f"{what}, {each['python']}", most, "x bare", each["ratio"][kind].median)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, Spread):
        return f"{_cell(value.median)} ({_cell(value.low)} to {_cell(value.high)})"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _starts(results: Results) -> Iterator[str]:
    starts = results["start"]
    yield "From the spawn to an answer, as multiples of `python -I -S -c pass` in the same loop."
    rows = [[each["python"], each["ms"]["bare"], *(each["ratio"][kind] for kind in WARM)] for each in starts]
    yield table(["Python", "bare, ms", *WARM], rows)
    yield "The same on the very first run, with an empty cache, and the first signed call after the handshake."
    rows = []
    for each in starts:
        cold, first = (each["ratio"][kind] for kind in COLD), (each["ms"][kind] for kind in FIRST)
        rows.append([each["python"], *cold, *first])
    yield table(["Python", *COLD, *FIRST.values()], rows)


def _peers(results: Results) -> Iterator[str]:
    own = max(results["start"], key=lambda each: len(each["ms"]))
    names = ["tools/list", "JSON echo", *(name for name in own["ms"] if "SDK" in name)]
    yield "Peers, from the spawn to `tools/list`, in the loop of the interpreter that runs the benchmark:"
    shown = {"tools/list": "sikkerkey-mcp", "JSON echo": "JSON echo, its one answer"}
    yield table(
        ["server", "ms", "x bare"], [[shown.get(name, name), own["ms"][name], own["ratio"][name]] for name in names]
    )
    yield "Their pace beside ours; their one tool asks no vault."
    keys = ("server", "rate", "slow_ms", "memory_mb")
    head = ["server", "calls/s, 32 under way", "32 calls of 100 ms, ms", "memory after, MB"]
    yield table(head, [[row[key] for key in keys] for row in results["beside peers"]])


def _call(results: Results) -> Iterator[str]:
    calls, row, ping, tls = (results[name] for name in ("overhead", "in a row", "ping", "handshakes"))
    yield "One of each in turns, as calls come; and, for what caches do, fifty of a kind in a row."
    rows = []
    for name, title in CALLS.items():
        found = [part for each in (calls, row) for part in (each[name], each[name].median / each["bare"].median)]
        rows.append([title, *found])
    yield table(["what", "µs", "x bare", "in a row, µs", "x bare"], rows)
    yield (
        f"One call in a hundred takes longer than {calls['call p99']:,.0f} µs. A hundred calls over TLS take "
        f"{tls['connections']} connection and {tls['call'].median:,.0f} µs each. A ping is answered after "
        f"{ping['loaded'].median:.2f} ms (worst {ping['worst_ms']:.2f} ms) while 32 calls wait, and after "
        f"{ping['idle'].median:.2f} ms while none does."
    )
    yield (
        "Calls at once. The limit is as many bare exchanges at once, each on a socket of its own, with nobody to read "
        "what they say."
    )
    at_once = [
        [row["delay_ms"], row["count"], row["calls"], row["bare"], row["calls"].median / row["bare"].median]
        for row in results["at once"]
    ]
    yield table(["the API takes, ms", "calls", "all answered after, ms", "limit, ms", "x limit"], at_once)


def _sessions(results: Results) -> Iterator[str]:
    yield (
        "Resident memory after so many calls, 8 of them under way at a time. HTTPS is checked against a bundle as "
        "large as the one for public vaults. The very first run compiles and unpacks what later ones find."
    )
    rows = []
    for name, title in SESSIONS.items():
        for row in results[name]:
            rest = [row.get("us_per_call", ""), row.get("cpu_s_per_1000", "")]
            rows.append([title, row["calls"], row["rss_mb"], row["peak_mb"], *rest])
    yield table(["session", "calls", "memory, MB", "peak, MB", "µs a call", "CPU s per 1,000 calls"], rows)
    yield "Megabytes after 1,000 calls over HTTPS, by interpreter:"
    rows = [[each["python"], each["bare_mb"], each["warm_mb"], each["first_mb"]] for each in results["memory"]]
    yield table(["Python", "bare interpreter", "session", "the very first run"], rows)


def _large(results: Results) -> Iterator[str]:
    yield (
        "The limit fetches the same bytes bare and writes them as JSON, which it has read if they are JSON; the answer "
        "is larger, because clients get it as text and as structured content."
    )
    head = ["answer", "bytes from the vault", "bytes to the client", "ms", "limit, ms", "x limit"]
    rows = []
    for name, row in results["large answers"].items():
        ratio, memory = row["call"].median / row["limit"].median, [row[f"{when}_mb"] for when in MOMENTS]
        rows.append([name, row["came_bytes"], row["bytes"], row["call"], row["limit"], ratio, *memory])
    yield table([*head, *(f"memory {when}, MB" for when in MOMENTS)], rows)


def _growth(results: Results) -> Iterator[str]:
    yield (
        "Three sizes of each, the least of nine rounds in turns (of a session, the lower quartile of blocks of 100 "
        "calls). Linear or better means that a unit costs no more."
    )
    rows: list[list[object]] = []
    for what, costs in results["growth"].items():
        (least, least_ms), *_ = costs.items()
        rows += [[f"{size:,} {what}", ms, ms / size * 1e3, size / least, ms / least_ms] for size, ms in costs.items()]
    yield table(["size", "ms", "µs a unit", "size, x the least", "cost, x the least"], rows)


def markdown(results: Results) -> str:
    """The whole of RESULTS.md."""
    parts = [
        "# Results",
        f"Written by `make bench` on {results['date']}: {results['machine']}. Medians of rounds in which everything "
        "takes turns, with the quartiles in brackets. [README.md](README.md) says what is measured and where the time "
        "goes.",
        "![start and calls at once](results.svg)",
        "## The bars",
        table(["what", "at most", "measured", "held"], [bar.row for bar in bars(results)]),
        "## Start",
        *_starts(results),
        *_peers(results),
        "## A call",
        *_call(results),
        "## Memory and processor",
        *_sessions(results),
        "## Large answers",
        *_large(results),
        "## Bytes",
        "What every client reads, and what some answers cost:",
        table(["what", "bytes"], list(results["sizes"].items())),
        "## Growth",
        *_growth(results),
    ]
    return "\n\n".join(parts) + "\n"


def svg(results: Results) -> str:
    """Two bar charts: start beside the peers, and calls at once beside one after the other."""
    own = max(results["start"], key=lambda each: len(each["ms"]))
    names = ["bare", "tools/list", *(name for name in own["ms"] if "SDK" in name)]
    starts = [("sikkerkey-mcp" if name == "tools/list" else name, own["ms"][name].median) for name in names]
    paces = [(row["server"].partition(",")[0], row) for row in results["beside peers"]]
    quick = [(name, row["rate"].median) for name, row in paces]
    waits = [("one after the other", 3_200.0), *((name, row["slow_ms"].median) for name, row in paces)]
    charts = {
        "spawn to tools/list, ms": starts,
        "calls a second, 32 under way (ours signs and asks over HTTP, theirs answer by themselves)": quick,
        "32 calls of 100 ms until all are answered, ms": waits,
    }
    drawn: list[str] = []
    height = 30
    for title, values in charts.items():
        drawn += _chart(title, values, height)
        height += 60 + 26 * len(values)
    size = f'width="760" height="{height}" font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>"]) + "\n"


def _chart(title: str, values: Sequence[tuple[str, float]], top: int) -> Iterator[str]:
    most = max(value for _, value in values)
    yield f'<text x="10" y="{top - 8}" font-weight="bold">{escape(title)}</text>'
    for number, (name, value) in enumerate(values):
        y, width = top + 26 * number, 430 * value / most
        yield f'<text x="200" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="210" y="{y}" width="{width:.1f}" height="20" fill="#3a6ea5"/>'
        yield f'<text x="{218 + width:.1f}" y="{y + 15}">{value:,.0f}</text>'
