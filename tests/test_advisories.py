"""Every pinned version is checked against the committed list of known vulnerabilities, without a network."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from bundle.wheels import PLATFORMS
from tests.support.harness import CannedResponse, ReceivedRequest, Recorder
from tests.support.rows import each_of
from tools import advisories as a

TODAY = datetime.date(2026, 11, 22)


def test_no_pinned_version_has_a_weakness_that_is_not_accepted() -> None:
    assert a.complaints(a.load(), a.pins()) == []


def test_every_package_in_the_archives_was_looked_up() -> None:
    """Except Rust crates, whose vulnerabilities only the database knows."""
    shipped = {pin.package for pin in a.pins() if pin.place not in a.LOCKS}
    assert {package for package in shipped if not package.startswith("cargo/")} <= {*a.load()["checked"]}


def test_pins_come_from_every_lock_file_and_from_compiled_parts() -> None:
    pinned = a.pins()
    assert {pin.place for pin in pinned} == {*a.LOCKS, "any", *PLATFORMS}
    found = {(pin.package, pin.version) for pin in pinned if pin.place == "macos-x86_64"}
    assert {("pypi/cryptography", "48.0.1"), ("generic/openssl", "4.0.1"), ("cargo/pem", "3.0.6")} <= found
    text = "urllib3[socks]==2.6.3 ; python_full_version < '3.10' \\\n    --hash=sha256:00\nA-b==1.0\\\n    # via x==2\n"
    assert a.pins_of_lock("dev.txt", text) == [
        a.Pin("pypi/urllib3", "2.6.3", "dev.txt"),
        a.Pin("pypi/a-b", "1.0", "dev.txt"),
    ]


@each_of(
    ("pin", "complaint"),
    [
        (("pypi/cryptography", "46.0.6", "runtime.txt"), "CVE-2026-39892, <46.0.7: "),
        (("pypi/cryptography", "48.0.1", "linux-x86_64"), "cryptography-50.0.0-pkcs7, <50.0.0: "),  # accepted elsewhere
        (("pypi/h11", "0.15.0", "any"), "GHSA-vqfr-h8mv-ghfj, <0.16.0: "),
        (("generic/openssl", "4.0.2", "windows-amd64"), "CVE-2026-84782, >=4.0.0,<4.0.3: "),
    ],
)
def test_a_planted_affected_pin_is_refused(pin: tuple[str, str, str], complaint: str) -> None:
    found = a.complaints(a.load(), [*a.pins(), a.Pin(*pin)])
    assert any(f"{pin[0]} {pin[1]} ({pin[2]}) is affected by {complaint}" in text for text in found), found


def test_an_acceptance_needs_an_affected_pin_and_a_reason() -> None:
    advisory = {"id": "X-1", "package": "pypi/p", "affected": "<2", "summary": "s", "source": "t"}
    accepted = {"package": "pypi/p", "version": "1", "ids": ["X-1", "X-2"], "reason": " "}
    listed = {"checked": {}, "advisories": [advisory], "accepted": [accepted]}
    assert a.complaints(listed, [a.Pin("pypi/p", "1", "dev.txt")]) == [
        "pypi/p 1 is not affected by X-2, which is accepted",
        "pypi/p 1 is accepted without a reason",
    ]


def test_the_list_has_every_column_and_the_tools_format() -> None:
    listed = a.load()
    assert a.ADVISORIES.read_text(encoding="utf-8") == a.dump(listed)
    assert {tuple(row) for row in listed["advisories"]} == {("id", "package", "affected", "summary", "source")}
    keys = [(row["id"], row["package"]) for row in listed["advisories"]]
    assert len(keys) == len({*keys})
    assert all(value.strip() for row in listed["advisories"] for value in row.values())


@each_of(
    ("version", "affected", "inside"),
    [
        ("1.9", "<2 or >=3,<3.1", True),
        ("2.5", "<2 or >=3,<3.1", False),
        ("3.0.5", "<2 or >=3,<3.1", True),
        ("3.1rc1", ">=3,<3.1", False),
        ("14.2.0-r6", ">=14,<15", True),
    ],
)
def test_ranges_are_read_as_pip_reads_them(version: str, affected: str, inside: bool) -> None:
    assert a.lies_in(version, affected) is inside


# -- the database ----------------------------------------------------------------------------------------------------


def entry(**members: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "1.2"}, {"last_affected": "2.5"}, {"introduced": "2.0"}]
    ranges = [{"type": "GIT", "events": [{"introduced": "0"}]}, {"type": "ECOSYSTEM", "events": events}]
    packages = [{"package": {"name": "P", "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": "GHSA-1", "aliases": ["CVE-2"], "summary": "it breaks", "affected": packages, **members}


def test_refreshing_adds_what_the_database_knows_and_keeps_the_rest(recorder: Recorder) -> None:
    old = {"id": "CVE-1", "package": "pypi/p", "affected": "<1", "summary": "ours", "source": "a log"}
    listed = {"checked": {"generic/o": "then"}, "advisories": [old], "accepted": []}
    pages = [
        {"vulns": [entry(), entry(id="CVE-1", aliases=[])], "next_page_token": "more"},
        {"vulns": [entry(id="GHSA-3", aliases=[], withdrawn="2026-01-01T00:00:00Z")]},
    ]

    def answer(seen: ReceivedRequest) -> CannedResponse:
        return CannedResponse(body=json.dumps(pages["page_token" in seen.json()]).encode())

    recorder.answer = answer
    found = a.refresh(listed, ["generic/o", "pypi/p"], TODAY, recorder.url)
    new = {"id": "CVE-2", "package": "pypi/p", "affected": "<1.2 or >=2.0,<=2.5", "summary": "it breaks"}
    assert found == {
        "checked": {"generic/o": "then", "pypi/p": "2026-11-22, the OSV database"},
        "advisories": [old, {**new, "source": "OSV, GHSA-1"}],
        "accepted": [],
    }
    question = {"package": {"ecosystem": "PyPI", "name": "p"}}
    assert [seen.json() for seen in recorder.seen] == [question, {**question, "page_token": "more"}]


def test_versions_without_a_range_are_named_one_by_one() -> None:
    packages = [{"package": {"name": "p"}, "versions": ["1.0", "1.1"]}, {"package": {"name": "q"}, "versions": ["9"]}]
    assert a.affected_range("p", {"affected": packages}) == "==1.0 or ==1.1"
    assert [*a.intervals([{"introduced": "2.0"}])] == [">=2.0"]


def test_a_database_out_of_reach_leaves_the_list_alone(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.answer = lambda _seen: CannedResponse(status=503)
    monkeypatch.setattr(a, "DATABASE", recorder.url)
    before = a.ADVISORIES.read_bytes()
    assert a.main(["--refresh"]) == 1
    assert a.ADVISORIES.read_bytes() == before
    assert "hint: the list is unchanged" in capsys.readouterr().err
