"""Checks every pinned version against requirements/advisories.json, which lists known vulnerabilities.

`make test` does the same without a network. With --refresh (`make advisories`) the list is first completed from the OSV
database, which knows packages of Python and of Rust. Others, such as OpenSSL, are added by hand from the change log of
a newer release. The file has three parts:

    checked     package -> date and source of the last check
    advisories  id, package, affected (ranges as pip writes them, joined by "or"), summary, source
    accepted    package, version, ids, the reason to keep that version; place, if it is accepted in that place only

A package is `pypi/NAME`, `cargo/NAME` or `generic/NAME`, the beginning of its package URL. A place is a lock file, or a
platform of requirements/wheels.lock.
"""

from __future__ import annotations

import datetime
import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle import wheels
from bundle.documents import compiled_in
from bundle.members import members_of

ADVISORIES = wheels.ROOT / "requirements" / "advisories.json"
LOCKS = ("conformance.txt", "dev.txt", "lock.txt", "mcp1.txt", "runtime.txt", "vault.txt")
DATABASE = "https://api.osv.dev/v1/query"
ECOSYSTEMS = {"pypi": "PyPI", "cargo": "crates.io"}
DATABASE_TIMEOUT_S = 20.0
ENDS = {"fixed": "<", "last_affected": "<="}

Record = dict[str, Any]


class Pin(NamedTuple):
    """A version that a lock file or a wheel names."""

    package: str
    version: str
    place: str

    def __str__(self) -> str:
        return f"{self.package} {self.version} ({self.place})"


# -- what is pinned --------------------------------------------------------------------------------------------------


def pins() -> list[Pin]:
    """Every pinned version, and those compiled into the locked wheels, which are downloaded if they are missing."""
    directory = wheels.LOCK.parent
    listed = [pin for name in LOCKS for pin in pins_of_lock(name, (directory / name).read_text(encoding="utf-8"))]
    projects = sorted({row.project for row in wheels.locked()})
    for row in wheels.select(projects, wheels.PLATFORMS):
        listed.append(Pin(f"pypi/{row.project.replace('_', '-')}", row.version, row.platform))
        listed += pins_in_wheel(row)
    return sorted(set(listed))


def pins_of_lock(name: str, text: str) -> list[Pin]:
    """The pins of a compiled requirements file."""
    entries = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return [Pin(f"pypi/{project.lower()}", version, name) for project, version in entries]


def pins_in_wheel(row: wheels.Wheel) -> Iterator[Pin]:
    """The versions in the wheel's own bill of materials."""
    members = {member.name: member for member in members_of(row.path)}
    for part in compiled_in("", members):
        if found := re.match(r"pkg:(cargo|generic)/([^@]+)@", part["purl"]):
            yield Pin(f"{found[1]}/{found[2]}", part["version"], row.platform)


# -- known vulnerabilities -------------------------------------------------------------------------------------------


def complaints(listed: Record, pinned: Sequence[Pin]) -> list[str]:
    """Affected pins that are not accepted, and acceptances that are not needed or give no reason."""
    found, used = [], set()
    for pin in pinned:
        for advisory in affecting(listed["advisories"], pin):
            accepted = [(number, row) for number, row in enumerate(listed["accepted"]) if accepts(row, pin, advisory)]
            used |= {(number, advisory["id"]) for number, _ in accepted}
            if not accepted:
                found.append(f"{pin} is affected by {advisory['id']}, {advisory['affected']}: {advisory['summary']}")
    for number, row in enumerate(listed["accepted"]):
        idle = [name for name in row["ids"] if (number, name) not in used]
        found += [f"{row['package']} {row['version']} is not affected by {name}, which is accepted" for name in idle]
        found += [] if row["reason"].strip() else [f"{row['package']} {row['version']} is accepted without a reason"]
    return found


def affecting(advisories: Iterable[Record], pin: Pin) -> list[Record]:
    """The advisories that affect a pin."""
    mine = [advisory for advisory in advisories if advisory["package"] == pin.package]
    return [row for row in mine if lies_in(pin.version, row["affected"])]


def lies_in(version: str, affected: str) -> bool:
    """Whether a version is in one of the ranges."""
    ranges = (SpecifierSet(part, prereleases=True) for part in affected.split(" or "))
    return any(part.contains(Version(version)) for part in ranges)


def accepts(row: Record, pin: Pin, advisory: Record) -> bool:
    """Whether the list accepts this advisory for this pin."""
    return (
        (row["package"], row["version"]) == (pin.package, pin.version)
        and row.get("place", pin.place) == pin.place
        and advisory["id"] in row["ids"]
    )


def load() -> Record:
    """The committed list."""
    listed: Record = json.loads(ADVISORIES.read_bytes())
    return listed


def dump(listed: Record) -> str:
    """The list as it is committed: one line per row, so that diffs are readable."""
    parts = [f'"checked": {{\n{_lines(_pairs(sorted(listed["checked"].items())))}\n }}']
    for name in ("advisories", "accepted"):
        parts.append(f'"{name}": [\n{_lines(json.dumps(row, ensure_ascii=False) for row in listed[name])}\n ]')
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _pairs(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{json.dumps(name)}: {json.dumps(text)}" for name, text in items)


def _lines(rows: Iterable[str]) -> str:
    return ",\n".join(f"  {row}" for row in rows)


# -- from the database -----------------------------------------------------------------------------------------------


def refresh(listed: Record, packages: Iterable[str], today: datetime.date, database: str) -> Record:
    """`listed` with the database's additions. Raises OSError, HTTPException or ValueError if it cannot be reached."""
    checked, rows = dict(listed["checked"]), list(listed["advisories"])
    for package in packages:
        ecosystem, name = package.split("/", 1)
        if ecosystem not in ECOSYSTEMS:
            continue
        known = {(row["package"], row["id"]) for row in rows}
        for entry in ask(database, ECOSYSTEMS[ecosystem], name):
            names = {entry["id"], *entry.get("aliases", ())}
            if "withdrawn" not in entry and not any((package, name) in known for name in names):
                rows.append(advisory_of(package, name, entry))
        checked[package] = f"{today.isoformat()}, the OSV database"
    return {**listed, "checked": checked, "advisories": rows}


def ask(database: str, ecosystem: str, name: str) -> list[Record]:
    """Every entry about a package, from all pages of the answer."""
    question: Record = {"package": {"ecosystem": ecosystem, "name": name}}
    found: list[Record] = []
    while True:
        body, headers = json.dumps(question).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(database, body, headers)  # noqa: S310 - a constant, or a test's own server
        with urllib.request.urlopen(request, timeout=DATABASE_TIMEOUT_S) as answer:  # noqa: S310 - as above
            page = json.load(answer)
        found += page.get("vulns", [])
        if not page.get("next_page_token"):
            return found
        question["page_token"] = page["next_page_token"]


def advisory_of(package: str, name: str, entry: Record) -> Record:
    """An entry of the database as a row of the list; a person rewrites the summary."""
    numbers = [alias for alias in entry.get("aliases", ()) if alias.startswith("CVE-")]
    return {
        "id": min(numbers, default=entry["id"]),
        "package": package,
        "affected": affected_range(name, entry),
        "summary": entry.get("summary") or "the database gives no summary",
        "source": f"OSV, {entry['id']}",
    }


def affected_range(name: str, entry: Record) -> str:
    """The affected versions as pip writes ranges, joined by "or"."""
    mine = [part for part in entry["affected"] if part.get("package", {}).get("name", "").lower() == name]
    ranges = [row["events"] for part in mine for row in part.get("ranges", ()) if row["type"] != "GIT"]
    found = [interval for events in ranges for interval in intervals(events)]
    return " or ".join(found or [f"=={version}" for part in mine for version in part["versions"]])


def intervals(events: list[dict[str, str]]) -> Iterator[str]:
    """The ranges between an `introduced` and the event that ends it; the database promises no order."""
    since = ""
    for event in sorted(events, key=lambda event: Version(*event.values())):
        (kind, version), *_ = event.items()
        if kind == "introduced":
            since = version
        elif kind in ENDS:
            yield f"{ENDS[kind]}{version}" if since == "0" else f">={since},{ENDS[kind]}{version}"
            since = ""
    if since:
        yield f">={since}"


# -- documentation ---------------------------------------------------------------------------------------------------


def accepted_at(listed: Record, place: str) -> str:
    """Markdown: the vulnerabilities that are accepted in one place, and why."""
    rows = [row for row in listed["accepted"] if row.get("place") == place]
    found = []
    for row in rows:
        package = row["package"].partition("/")[2]
        known = {entry["id"]: entry for entry in listed["advisories"] if entry["package"] == row["package"]}
        table = [f"| {name} | {known[name]['affected']} | {known[name]['summary']} |" for name in row["ids"]]
        head = ["| id | affected versions | description |", "| --- | --- | --- |"]
        found.append("\n".join([f"**{package} {row['version']}**: {row['reason']}", "", *head, *table]))
    return "\n\n".join(found)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; the exit status."""
    listed, pinned = load(), pins()
    if "--refresh" in arguments:
        try:
            today = datetime.datetime.now(datetime.timezone.utc).date()
            listed = refresh(listed, sorted({pin.package for pin in pinned}), today, DATABASE)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            print(f"advisories: error: {DATABASE} cannot be reached: {reason}", file=sys.stderr)
            print("advisories: hint: the list is unchanged; run this with internet access", file=sys.stderr)
            return 1
        ADVISORIES.write_text(dump(listed), encoding="utf-8")
    found = complaints(listed, pinned)
    for text in found:
        print(f"advisories: {text}", file=sys.stderr)
    print(f"advisories: {len(pinned)} pins, {len(listed['advisories'])} advisories, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
