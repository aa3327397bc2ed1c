"""RESULTS.md and a plot from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

Results = dict[str, Any]

START_KINDS = ("JSON echo", "initialize", "tools/list", "signed answer", "cold, tools/list", "cold, signed answer")


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
        return [self.what, f"{self.most:g} {self.unit}", f"{self.measured:,.2f} {self.unit}", held]


def bars(results: Results) -> list[Bar]:
    """The bars that the project has set itself."""
    starts, calls = results["start"], results["overhead"]
    at_100 = next(row for row in results["at once"] if (row["delay_ms"], row["calls"]) == (100, 32))
    return [
        *(_start_bar("start to `tools/list`, warm", 3.0, "tools/list", each) for each in starts),
        *(_start_bar("the very first start", 15.0, "cold, tools/list", each) for each in starts),
        Bar("first signed call", 60, "ms", max(each["ms"]["first call"] for each in starts)),
        Bar("a call, median", 2.5, "x bare HTTP", calls["call_us"] / calls["bare_us"]),
        Bar("32 calls of 100 ms", 250, "ms", at_100["ms"]),
        Bar("memory after 10,000 calls", 32, "MB", results["session"][-1]["rss_mb"]),
        Bar("`tools/list`", 20_000, "bytes", results["sizes"]["tools/list"]),
        Bar("TLS connections for 100 calls", 1, "", results["handshakes"]["connections"]),
    ]


def _start_bar(what: str, most: float, kind: str, each: Results) -> Bar:
    return Bar(f"{what}, {each['python']}", most, "x bare", each["ratio"][kind])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _starts(results: Results) -> Iterator[str]:
    rows = []
    for each in results["start"]:
        low, high = each["tools/list ratio, quartiles"]
        ratios = [each["ratio"][kind] for kind in START_KINDS]
        rows.append([each["python"], each["ms"]["bare"], *ratios, f"{low:.2f} to {high:.2f}"])
    yield table(["Python", "bare, ms", *START_KINDS, "tools/list, quartiles"], rows)
    calls = [[each["python"], each["ms"]["first call at once"], each["ms"]["first call"]] for each in results["start"]]
    yield "The first signed call after the handshake, in milliseconds:"
    yield table(["Python", "at once", "0.3 s later"], calls)


def _peers(results: Results) -> Iterator[str]:
    own = max(results["start"], key=lambda each: len(each["ms"]))
    names = ["tools/list", "JSON echo", *(name for name in own["ms"] if "SDK" in name)]
    yield table(["server", "ms", "x bare"], [[name, own["ms"][name], own["ratio"][name]] for name in names])


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    keys = list(rows[-1])
    return table(keys, [[row.get(key, "") for key in keys] for row in rows])


def _growth(results: Results) -> Iterator[str]:
    for name, rows in results["growth"].items():
        size, cost = list(rows[0])[:2]
        factor, times = rows[-1][size] / rows[0][size], rows[-1][cost] / rows[0][cost]
        yield f"{name}: {size} x {factor:g}, cost x {times:.2f}\n\n" + _rows(rows)


def markdown(results: Results) -> str:
    """The whole of RESULTS.md."""
    calls, ping, tls = results["overhead"], results["ping"], results["handshakes"]
    large = [{"answer": name, **row} for name, row in results["large answers"].items()]
    parts = [
        "# Results",
        f"Written by `make bench` on {results['date']}: {results['machine']}. Medians of interleaved rounds. "
        "[README.md](README.md) says what is measured and where the time goes.",
        "![start and calls at once](results.svg)",
        "## The bars",
        table(["what", "at most", "measured", "held"], [bar.row for bar in bars(results)]),
        "## Start",
        "Spawn to answer, as multiples of `python -I -S -c pass` in the same loop; cold means with an empty cache.",
        *_starts(results),
        "Peers, spawn to `tools/list`, in the loop of the interpreter that runs the benchmark:",
        *_peers(results),
        "Their pace: calls a second with 32 under way, 32 calls that each wait for 100 ms, and memory after them.",
        _rows(results["beside peers"]),
        "## A call",
        table(["what", "µs"], [[name, calls[f"{name}_us"]] for name in ("call", "call_p99", "bare", "sign")]),
        f"A call takes {calls['call_us'] / calls['bare_us']:.2f} times a bare kept-alive HTTP exchange. A ping "
        f"while 32 calls wait is answered after {ping['median_ms']:.2f} ms (worst {ping['worst_ms']:.2f} ms). A "
        f"hundred calls over TLS take {tls['connections']} connection and {tls['call_us']:.0f} µs each.",
        "Calls at once:",
        _rows(results["at once"]),
        "## Memory and processor",
        _rows(results["session"]),
        "Over HTTPS:",
        _rows(results["session, TLS"]),
        "On the very first run, which compiles and unpacks what later ones find:",
        _rows(results["session, first"]),
        "## Large answers",
        _rows(large),
        "## Bytes",
        table(["what", "bytes"], list(results["sizes"].items())),
        "## Growth",
        "Three sizes of each; linear or better means that the cost grows by no more than the size.",
        *_growth(results),
    ]
    return "\n\n".join(parts) + "\n"


def svg(results: Results) -> str:
    """Two bar charts: start beside the peers, and calls at once beside one after the other."""
    own = max(results["start"], key=lambda each: len(each["ms"]))
    names = ["bare", "tools/list", *(name for name in own["ms"] if "SDK" in name)]
    starts = [("sikkerkey-mcp" if name == "tools/list" else name, own["ms"][name]) for name in names]
    paces = [(row["server"].partition(",")[0], row) for row in results["beside peers"]]
    quick = [(name, row["calls/s"]) for name, row in paces]
    waits = [("one after the other", 3_200.0), *((name, row["32 x 100 ms"]) for name, row in paces)]
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
