"""Tickets: one taker among processes, honest outcomes, time limits, private files, and no value in any of them."""

from __future__ import annotations

import errno
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_tickets
from sikkerkey_tickets import (
    ALPHABET,
    LIFE_S,
    WAITING_MAX,
    Found,
    NotWaiting,
    Outcome,
    Ticket,
    Tickets,
    TicketsUnusable,
    TooManyWaiting,
    UnknownCode,
    digest_of,
)
from tests.support.clock import NOW_S, Clock
from tests.support.harness import AGENT_ID, ROOT

DONE = Outcome("done", "stored", {"id": "sk_1", "version": 3})
on_posix = pytest.mark.skipif(os.name != "posix", reason="this system has no owners and modes")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(home: Path) -> Path:
    return home / ".sikkerkey" / "waiting"


@pytest.fixture
def tickets(directory: Path, clock: Clock) -> Tickets:
    return Tickets(str(directory), clock)


def a_ticket(name: str = "DB_PASSWORD", **changes: Any) -> Ticket:
    """A ticket to be added: store the value of a secret."""
    arguments = {"projectId": "proj_1", "name": name, "fromPerson": True}
    ticket = Ticket(
        code="",
        agent_id=AGENT_ID,
        tool="manage_secrets",
        action="create",
        arguments=arguments,
        digest=digest_of(AGENT_ID, "manage_secrets", "create", arguments),
        title=f'Store the value of the secret "{name}"',
        details=(("Project", "Webshop"), ("Vault", "vault_1")),
        quoted=(("Name", name),),
        warning="",
        fields=("",),
        shows=False,
        expires_s=NOW_S + LIFE_S,
    )
    return ticket._replace(**changes)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


# one life


def test_ticket_is_stored_as_it_is(tickets: Tickets, directory: Path) -> None:
    for ticket in (
        a_ticket(),
        a_ticket("søg \U0001f511 \ud800 \u202e", fields=("user", "key"), shows=True, warning="This cannot be undone."),
        a_ticket(details=(), quoted=(), fields=(), arguments={"deep": {"list": [1, None, "x"]}}),
    ):
        added = tickets.add(ticket)
        assert added == ticket._replace(code=added.code)
        assert Tickets(str(directory), tickets._now_s).find(added.code) == Found("waiting", added, None)
        assert len(added.code) == 4
        assert set(added.code) <= set(ALPHABET)


def test_kind_is_what_the_person_does() -> None:
    kinds = [a_ticket(fields=fields, shows=shows).kind for fields in (("",), ()) for shows in (False, True)]
    assert kinds == ["fill", "fill", "confirm", "show"]


def test_taken_ticket_is_finished(tickets: Tickets, directory: Path) -> None:
    added = tickets.add(a_ticket())
    assert tickets.take(added.code) == added
    assert (tickets.find(added.code), tickets.waiting()) == (Found("busy", added, None), [])
    tickets.finish(added.code, DONE)
    assert tickets.find(added.code) == Found("over", added, DONE)
    assert names(directory) == [f"{added.code}.over"]


def test_ticket_that_is_given_back_waits_again(tickets: Tickets) -> None:
    added = tickets.add(a_ticket())
    for _ in range(3):
        tickets.take(added.code)
        tickets.give_back(added.code)
        assert (tickets.find(added.code).state, tickets.waiting()) == ("waiting", [added])


def test_refused_ticket_is_over(tickets: Tickets) -> None:
    added = tickets.add(a_ticket())
    tickets.refuse(added.code, "the person refused")
    assert tickets.find(added.code) == Found("over", added, Outcome("refused", "the person refused", {}))


def test_only_a_waiting_ticket_is_taken_or_refused(tickets: Tickets, clock: Clock) -> None:
    busy, over, expired = (tickets.add(a_ticket(name)) for name in ("busy", "over", "expired"))
    tickets.take(busy.code)
    tickets.take(over.code)
    tickets.finish(over.code, DONE)
    expected = {busy.code: Found("busy", busy, None), over.code: Found("over", over, DONE)}
    for code, found in expected.items():
        acts: list[Callable[[str], object]] = [tickets.take, lambda each: tickets.refuse(each, "no")]
        for act in acts:
            with pytest.raises(NotWaiting) as refused:
                act(code)
            assert refused.value.found == tickets.find(code) == found
    clock.now_s += LIFE_S
    with pytest.raises(NotWaiting) as refused:
        tickets.take(expired.code)
    assert refused.value.found == Found("over", expired, None)


def test_steps_out_of_turn_change_nothing(tickets: Tickets, directory: Path) -> None:
    added = tickets.add(a_ticket())
    tickets.finish(added.code, DONE)
    tickets.delivered(added.code)
    with pytest.raises(FileNotFoundError):
        tickets.give_back(added.code)
    assert (tickets.find(added.code).state, names(directory)) == ("waiting", [f"{added.code}.waiting"])


# codes


def test_code_is_found_as_people_type_it(tickets: Tickets) -> None:
    added = tickets.add(a_ticket())
    code = added.code
    for typed in (code, code.lower(), f"  {code}\n", f"{code[:2]} {code[2:].lower()}", "\t".join(code)):
        assert tickets.find(typed).ticket == added, typed
    tickets.take(f" {code.lower()} ")
    tickets.give_back(code.lower())
    tickets.take(code)
    tickets.finish(f"{code} ", DONE)
    assert tickets.find(code).outcome == DONE


def test_what_is_no_code_is_unknown(tickets: Tickets, directory: Path) -> None:
    tickets.add(a_ticket())
    (directory.parent / "AAAA.waiting").write_text("{}")
    steps: list[Callable[[str], object]] = [tickets.find, tickets.take, tickets.give_back, tickets.delivered]
    steps += [lambda each: tickets.finish(each, DONE), lambda each: tickets.refuse(each, "no")]
    for typed in (
        "",
        "AAA",
        "AAAAA",
        "AAA0",
        "AAAI",
        "../A",
        "ßAA",
        "АААА",
        "*.*",
        "A\0AA",
        "4" * 100_000,
        "\ud800AAA",
    ):
        for step in steps:
            with pytest.raises(UnknownCode):
                step(typed)


def test_unused_code_is_unknown(tickets: Tickets, directory: Path) -> None:
    with pytest.raises(UnknownCode):
        tickets.find("AAAA")
    assert (tickets.waiting(), tickets.same("x"), directory.exists()) == ([], None, False)


def test_code_in_use_is_not_given_again(tickets: Tickets, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter("AAAAAAAABBBBAAAABBBBCCCCAAAABBBBCCCCDDDDEEEE")
    monkeypatch.setattr(secrets, "choice", lambda _alphabet: next(given))
    first, second, third = (tickets.add(a_ticket()).code for _ in range(3))
    tickets.take(first)
    tickets.finish(first, DONE)
    tickets.take(second)
    (directory / "DDDD.new").touch()  # another process is adding it
    os.utime(directory / "DDDD.new", (NOW_S, NOW_S))
    assert [first, second, third, tickets.add(a_ticket()).code] == ["AAAA", "BBBB", "CCCC", "EEEE"]


# several processes

RACE = """
import os, sys
from sikkerkey_tickets import *
directory, *codes = sys.argv[1:]
start_read, start_write = os.pipe()
result_read, result_write = os.pipe()
for number in range(8):
    if os.fork() == 0:
        os.close(start_write)
        os.read(start_read, 1)  # until the parent closes it
        tickets = Tickets(directory, lambda: 1_900_000_000.0)
        for code in codes:
            try:
                tickets.take(code)
                tickets.finish(code, Outcome("done", str(number), {}))
                os.write(result_write, (code + "\\n").encode())
            except NotWaiting as refused:
                assert refused.found.state in ("busy", "over"), refused.found
        os._exit(0)
os.close(start_read)
os.close(start_write)
os.close(result_write)
statuses = [os.wait()[1] for _ in range(8)]
assert not any(statuses), statuses
while piece := os.read(result_read, 65536):
    sys.stdout.write(piece.decode())
"""


@on_posix
def test_exactly_one_of_eight_processes_takes_each_ticket(tickets: Tickets, directory: Path) -> None:
    codes = [tickets.add(a_ticket(str(number))).code for number in range(WAITING_MAX)]
    command = [sys.executable, "-c", RACE, str(directory), *codes]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert ran.stderr == ""
    assert sorted(ran.stdout.split()) == sorted(codes)
    assert [tickets.find(code).state for code in codes] == ["over"] * WAITING_MAX


def test_ticket_that_is_taken_between_a_look_and_the_rename_is_not_taken_again(
    tickets: Tickets, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = tickets.add(a_ticket())
    other, rename = Tickets(str(directory), tickets._now_s), os.rename

    def too_late(*paths: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        other.take(added.code)
        rename(*paths)

    monkeypatch.setattr(os, "rename", too_late)
    with pytest.raises(NotWaiting) as refused:
        tickets.take(added.code)
    assert refused.value.found.state == "busy"


def test_ticket_that_moves_during_a_look_is_found(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    added = tickets.add(a_ticket())
    tickets.take(added.code)
    read = Tickets._read

    def moving(self: Tickets, code: str, state: Any) -> Any:
        if state == "busy":
            monkeypatch.setattr(Tickets, "_read", read)
            tickets.give_back(added.code)  # after `waiting` was tried and before `busy` is
        return read(self, code, state)

    monkeypatch.setattr(Tickets, "_read", moving)
    assert tickets.find(added.code).state == "waiting"


def test_windows_refuses_while_another_process_reads(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    added = tickets.add(a_ticket())
    monkeypatch.setattr(sikkerkey_tickets, "WINDOWS", True)
    monkeypatch.setattr("time.sleep", lambda _s: None)
    for name in ("rename", "replace", "unlink"):
        real, failures = getattr(os, name), iter([PermissionError(errno.EACCES, "in use")] * 3)

        def refused_thrice(*paths: str, real: Any = real, failures: Iterator[OSError] = failures) -> None:
            if error := next(failures, None):
                raise error
            real(*paths)

        monkeypatch.setattr(os, name, refused_thrice)
    tickets.take(added.code)
    tickets.finish(added.code, DONE)
    assert tickets.find(added.code) == Found("over", added, DONE)

    def always(*_paths: str) -> None:
        raise PermissionError(errno.EACCES, "Access is denied")

    other = tickets.add(a_ticket())
    monkeypatch.setattr(os, "rename", always)
    with pytest.raises(TicketsUnusable, match="cannot be written: Access is denied"):
        tickets.take(other.code)


def test_no_rename_has_an_existing_target(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def as_on_windows(old: str, new: str) -> None:
        if os.path.exists(new):
            raise FileExistsError(errno.EEXIST, "exists", new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", as_on_windows)
    added = tickets.add(a_ticket())
    tickets.take(added.code)
    tickets.give_back(added.code)
    tickets.take(added.code)
    tickets.finish(added.code, DONE)
    tickets.delivered(added.code)
    assert tickets.find(added.code).outcome == DONE


# time


def test_ticket_expires(tickets: Tickets, clock: Clock) -> None:
    added = tickets.add(a_ticket())
    clock.now_s = added.expires_s - 0.1
    assert tickets.find(added.code).state == "waiting"
    clock.now_s = added.expires_s
    assert tickets.find(added.code) == Found("over", added, None)
    assert (tickets.waiting(), tickets.same(added.digest)) == ([], None)


def test_clock_that_is_set_back_makes_no_ticket_live_longer(tickets: Tickets, clock: Clock) -> None:
    added = tickets.add(a_ticket())
    clock.now_s = NOW_S - 3_600
    assert tickets.find(added.code) == Found("over", added, None)
    assert (tickets.waiting(), tickets.same(added.digest)) == ([], None)
    with pytest.raises(NotWaiting):
        tickets.take(added.code)


def test_clock_that_is_corrected_expires_no_ticket(tickets: Tickets, clock: Clock) -> None:
    added = tickets.add(a_ticket())
    clock.now_s = NOW_S - 2.5
    assert (tickets.find(added.code).state, tickets.waiting()) == ("waiting", [added])


def test_busy_ticket_of_a_dead_process_becomes_unclear(tickets: Tickets, clock: Clock) -> None:
    added = tickets.add(a_ticket())
    clock.now_s = added.expires_s - 1
    tickets.take(added.code)
    clock.now_s = added.expires_s + 60  # what was taken in the last second is still being sent
    assert tickets.find(added.code) == Found("busy", added, None)
    assert tickets.same(added.digest) == Found("busy", added, None)
    clock.now_s = added.expires_s + sikkerkey_tickets.SENDING_MAX_S
    found = tickets.find(added.code)
    assert (found.state, found.outcome and found.outcome.state) == ("over", "unclear")
    assert tickets.same(added.digest) is None
    with pytest.raises(NotWaiting):
        tickets.take(added.code)
    tickets.finish(added.code, DONE)  # it was only slow
    assert tickets.find(added.code).outcome == DONE


def test_outcome_of_an_expired_ticket_is_kept_for_an_hour(tickets: Tickets, directory: Path, clock: Clock) -> None:
    added = tickets.add(a_ticket())
    tickets.take(added.code)
    tickets.finish(added.code, DONE)
    clock.now_s += LIFE_S + 3_000
    tickets.add(a_ticket(expires_s=clock.now_s + LIFE_S))
    assert tickets.find(added.code).outcome == DONE


def test_old_files_are_removed(tickets: Tickets, directory: Path, clock: Clock) -> None:
    kept = tickets.add(a_ticket()).code
    old = [f"AAAA.{ending}" for ending in ("waiting", "busy", "over", "new", "0123456789ab.new", "html")]
    for name in old:
        (directory / name).write_text("{}")
        at_s = NOW_S + 5_000 if name == "AAAA.over" else NOW_S - 5_000  # the clock may have been ahead
        os.utime(directory / name, (at_s, at_s))
    (directory / "a directory").mkdir()
    os.utime(directory / "a directory", (NOW_S - 5_000, NOW_S - 5_000))
    added = tickets.add(a_ticket()).code
    assert names(directory) == sorted(["a directory", f"{kept}.waiting", f"{added}.waiting"])


# the same call, and what the model knows


def test_same_call_finds_its_newest_ticket_until_the_model_knows_the_outcome(tickets: Tickets) -> None:
    tickets.add(a_ticket("another"))
    older = tickets.add(a_ticket(expires_s=NOW_S + LIFE_S - 5))
    assert tickets.same(older.digest) == Found("waiting", older, None)
    newest = tickets.add(a_ticket())
    assert tickets.same(newest.digest) == Found("waiting", newest, None)
    tickets.take(newest.code)
    assert tickets.same(newest.digest) == Found("busy", newest, None)
    tickets.finish(newest.code, DONE)
    assert tickets.same(newest.digest) == Found("over", newest, DONE)
    tickets.delivered(newest.code)
    assert tickets.same(newest.digest) == Found("waiting", older, None)
    assert tickets.find(newest.code) == Found("over", newest, DONE)


def test_digest_binds_agent_tool_action_and_arguments() -> None:
    base = (AGENT_ID, "manage_secrets", "create", {"name": "a", "projectId": "p"})
    others: list[Any] = [
        ("other", *base[1:]),
        (AGENT_ID, "manage_secretscreate", "", base[3]),
        (*base[:2], "update", base[3]),
        (*base[:3], {"name": "a", "projectId": "q"}),
        (*base[:3], {"name": "a", "projectId": "p", "note": ""}),
        (*base[:3], {"name": "a", "projectId": ["p"]}),
    ]
    assert digest_of(*base) == digest_of(*base[:3], {"projectId": "p", "name": "a"})
    assert len({digest_of(*each) for each in (base, *others)}) == 1 + len(others)
    assert digest_of(*base[:3], {"name": "\ud800"}) != digest_of(*base[:3], {"name": "?"})


# bounds


def test_twenty_tickets_wait_at_most(tickets: Tickets, clock: Clock) -> None:
    added = [tickets.add(a_ticket(str(number), expires_s=NOW_S + LIFE_S - 40 + number)) for number in range(20)]
    assert tickets.waiting() == added
    with pytest.raises(TooManyWaiting):
        tickets.add(a_ticket())
    tickets.take(added[3].code)
    tickets.add(a_ticket())
    with pytest.raises(TooManyWaiting):
        tickets.add(a_ticket())
    clock.now_s = added[2].expires_s
    for _ in range(3):
        tickets.add(a_ticket())
    with pytest.raises(TooManyWaiting):
        tickets.add(a_ticket())


def test_call_that_is_too_large_is_refused(tickets: Tickets, directory: Path) -> None:
    with pytest.raises(TicketsUnusable, match="more than 524,288 bytes"):
        tickets.add(a_ticket(arguments={"description": "x" * 524_288}))
    assert names(directory) == []
    large = tickets.add(a_ticket(arguments={"description": "x" * 500_000}))
    assert tickets.find(large.code).ticket == large
    (directory / f"{large.code}.waiting").write_bytes(
        b" " * 524_288 + (directory / f"{large.code}.waiting").read_bytes()
    )
    with pytest.raises(UnknownCode):
        tickets.find(large.code)


# the directory and the files


@on_posix
def test_files_are_private(tickets: Tickets, directory: Path) -> None:
    os.umask(0)
    waiting, over = tickets.add(a_ticket()), tickets.add(a_ticket())
    tickets.take(over.code)
    tickets.finish(over.code, DONE)
    assert directory.stat().st_mode & 0o777 == 0o700
    files = {name: (directory / name).stat().st_mode & 0o777 for name in names(directory)}
    assert files == {f"{waiting.code}.waiting": 0o600, f"{over.code}.over": 0o600}


def every_method(tickets: Tickets, code: str) -> list[Callable[[], object]]:
    return [
        lambda: tickets.add(a_ticket()),
        lambda: tickets.find(code),
        lambda: tickets.take(code),
        lambda: tickets.refuse(code, "no"),
        lambda: tickets.same("x"),
        tickets.waiting,
    ]


@on_posix
def test_directory_that_others_can_use_is_refused(
    tickets: Tickets, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tickets.add(a_ticket()).code

    def assert_refused(words: str) -> None:
        for act in every_method(tickets, code):
            with pytest.raises(TicketsUnusable, match=words):
                act()

    for mode in (0o755, 0o777, 0o710, 0o702):
        directory.chmod(mode)
        assert_refused("is open to other users; chmod 700")
    directory.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: directory.stat().st_uid + 1)
        assert_refused("belongs to another user")
    real = directory.with_name("real")
    directory.rename(real)
    directory.symlink_to(real)
    assert_refused("is not a directory")
    directory.unlink()
    directory.write_text("")
    assert_refused("cannot be made|is not a directory")
    directory.unlink()
    real.rename(directory)
    assert tickets.find(code).state == "waiting"


def test_directory_that_cannot_be_made_is_reported(home: Path) -> None:
    (home / ".sikkerkey").write_text("")
    tickets = Tickets(str(home / ".sikkerkey" / "waiting"))
    with pytest.raises(TicketsUnusable, match="cannot be made: "):
        tickets.add(a_ticket())
    with pytest.raises(TicketsUnusable, match="cannot be read: Not a directory"):
        tickets.waiting()


@on_posix
def test_links_fifos_and_directories_are_no_tickets(
    tickets: Tickets, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tickets.add(a_ticket()).code
    path, kept = directory / f"{code}.waiting", directory / "kept"
    path.rename(kept)
    makes: list[Callable[[], object]] = [lambda: path.symlink_to(kept), lambda: os.mkfifo(path), path.mkdir]
    for make in makes:
        make()
        with pytest.raises(UnknownCode):
            tickets.take(code)
        assert tickets.waiting() == []
        path.rmdir() if path.is_dir() else path.unlink()
    kept.rename(path)
    assert tickets.find(code).state == "waiting"
    monkeypatch.setattr(os, "fstat", lambda _descriptor: os.stat_result([0o100600, 0, 0, 1, os.getuid() + 1, *[0] * 5]))
    assert tickets.waiting() == []


@on_posix
def test_refused_files_are_closed(tickets: Tickets, directory: Path) -> None:
    tickets.add(a_ticket())
    os.mkfifo(directory / "AAAA.waiting")
    (directory / "BBBB.waiting").mkdir()
    before = os.dup(0)
    os.close(before)
    tickets.waiting()
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_garbage_is_no_ticket(tickets: Tickets, directory: Path) -> None:
    code = tickets.add(a_ticket()).code
    path = directory / f"{code}.waiting"
    good = json.loads(path.read_text())

    def changed(**members: Any) -> str:
        return json.dumps({**good, "ticket": {**good["ticket"], **members}})

    def ended(outcome: Any) -> str:
        return json.dumps({**good, "outcome": outcome})

    wrong = ["", "{", "[]", "null", "7", "{}", "\xff", "[" * 100_000, '{"ticket": 1}', path.read_text()[:-1]]
    wrong += [json.dumps({name: member for name, member in good.items() if name != left}) for left in good]
    wrong += [changed(**{name: value}) for name in good["ticket"] for value in (None, [[1]]) if name != "shows"]
    wrong += [changed(code="AAAA"), changed(more=1), changed(fields="ab"), changed(details=[["a"]]), changed(title=7)]
    wrong += [changed(details=[["a", 7]]), changed(quoted=[[None, "a"]])]
    wrong += [changed(expires_s="soon"), changed(arguments=[]), changed(quoted=[["a", "b", "c"]])]
    wrong += [ended(outcome) for outcome in (7, {}, ["done", "x", {}], {"state": "won", "message": "", "answer": {}})]
    wrong += [
        ended({"state": "done", "message": 1, "answer": {}}),
        ended({"state": "done", "message": "", "answer": 1}),
    ]
    for text in wrong:
        path.write_text(text, encoding="latin-1")
        with pytest.raises(UnknownCode):
            tickets.find(code)
        assert (tickets.waiting(), tickets.same(good["ticket"]["digest"])) == ([], None), text[:200]
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        path.write_text(json.dumps(good).replace(json.dumps(good["ticket"]["expires_s"]), number))
        assert (tickets.find(code).state, tickets.waiting()) == ("over", []), number
    path.write_text(json.dumps(good))
    assert tickets.find(code).state == "waiting"


def test_names_of_other_files_do_not_matter(tickets: Tickets, directory: Path) -> None:
    added = tickets.add(a_ticket())
    content = (directory / f"{added.code}.waiting").read_bytes()
    for name in ("README", ".waiting", "AAAA", "AAAA.waiting.bak", "AAAAA.waiting", f"{added.code}.html"):
        (directory / name).write_bytes(content)
    assert tickets.waiting() == [added]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fills the disk: files can be created, but nothing can be written to them."""

    class Full:
        def __init__(self, descriptor: int, *_mode: str) -> None:
            self.descriptor = descriptor

        def __enter__(self) -> Full:
            return self

        def write(self, data: bytes) -> None:
            if data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __exit__(self, *_exception: object) -> None:
            os.close(self.descriptor)

    return lambda: monkeypatch.setattr(os, "fdopen", Full)


def test_full_disk_loses_no_ticket(
    tickets: Tickets, directory: Path, clock: Clock, full_disk: Callable[[], None]
) -> None:
    sent, refused, known = (tickets.add(a_ticket(name)) for name in ("sent", "refused", "known"))
    for ticket in (sent, known):
        tickets.take(ticket.code)
    tickets.finish(known.code, DONE)
    before = names(directory)
    full_disk()
    with pytest.raises(TicketsUnusable, match="cannot be written: No space left on device"):
        tickets.add(a_ticket())
    with pytest.raises(TicketsUnusable):
        tickets.refuse(refused.code, "no")
    tickets.delivered(known.code)
    tickets.finish(sent.code, DONE)
    assert names(directory) == before
    states = [tickets.find(each.code).state for each in (sent, refused, known)]
    assert states == ["busy", "waiting", "over"]
    clock.now_s += LIFE_S + sikkerkey_tickets.SENDING_MAX_S
    outcome = tickets.find(sent.code).outcome
    assert outcome is not None
    assert outcome.state == "unclear"


@on_posix
def test_directory_without_write_access_is_reported(tickets: Tickets, directory: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root can write everywhere")
    added = tickets.add(a_ticket())
    directory.chmod(0o500)
    acts: list[Callable[[], object]] = [lambda: tickets.add(a_ticket()), lambda: tickets.take(added.code)]
    for act in acts:
        with pytest.raises(TicketsUnusable, match="cannot be written: Permission denied"):
            act()
    directory.chmod(0o000)
    with pytest.raises(TicketsUnusable, match="cannot be read: Permission denied"):
        tickets.waiting()
    directory.chmod(0o700)
