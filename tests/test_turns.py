"""Who reads while calls run: whatever waits lets another thread read on first, in every order of events.

The orders are played by a scheduler: of the threads of `Workers` one runs at a time, and at each lock, each message and
each step of a call a seeded choice says which. Nothing sleeps, and a deadlock is seen as nobody's being able to go on.
"""

from __future__ import annotations

import builtins
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import sikkerkey_mcp
from tests.support import faulty_vault
from tests.support.faulty_vault import FaultyVault, Wire
from tests.support.harness import TIMEOUT_S, ReceivedRequest, make_slot
from tests.support.sample_tools import FixtureTools
from tests.support.schema_check import CheckedServer

AT_ONCE = 3
SESSION = sikkerkey_mcp.Session(FixtureTools(), lambda _message: None)
End = Literal["whole", "early", "broken"]


class Stopped(BaseException):
    """Ends a thread that is no longer needed."""


class Scheduler:
    """Runs one thread at a time; `pause` lets another go on."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (the same choices each time)
        self.is_over = False
        self.refusals = 0.0  # how often the system refuses a thread
        self.threads: list[threading.Thread] = []
        self._waiting: dict[int, tuple[threading.Semaphore, Callable[[], bool]]] = {}
        self._names = iter(range(1_000_000))
        self._me = threading.local()

    def pause(self, can_go_on: Callable[[], bool] = lambda: True) -> None:
        """Until it is this thread's turn again, which is not before `can_go_on`."""
        gate = threading.Semaphore(0)
        me = next(self._names)
        self._waiting[me] = gate, can_go_on
        self.pass_on()
        assert gate.acquire(timeout=TIMEOUT_S)
        if self.is_over:
            raise Stopped

    def pass_on(self) -> None:
        """Wakes one of those that can go on; if there is none, all of them, to end."""
        ready = [name for name, (_, can_go_on) in self._waiting.items() if can_go_on()]
        if ready and not self.is_over:
            self._waiting.pop(self.chance.choice(ready))[0].release()
            return
        self.is_over = True
        for gate, _ in self._waiting.values():
            gate.release()
        self._waiting.clear()

    def start(self, work: Callable[[], None], _arguments: tuple[()]) -> None:
        """In the place of `start_new_thread`."""
        if self.chance.random() < self.refusals:
            raise RuntimeError("can't start new thread")
        gate = threading.Semaphore(0)

        def run() -> None:
            assert gate.acquire(timeout=TIMEOUT_S)
            try:
                if not self.is_over:
                    work()
            except (Stopped, MemoryError):
                return
            finally:
                self.pass_on()

        self._waiting[next(self._names)] = gate, lambda: True
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()


class Lock:
    """In the place of a lock of `_thread`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._is_held = scheduler, False

    def acquire(self, timeout: float = -1) -> bool:
        """Waits for it, without end."""
        assert timeout == -1
        self._scheduler.pause(lambda: not self._is_held)
        assert not self._is_held
        self._is_held = True
        return True

    def release(self) -> None:
        """Gives it back."""
        assert self._is_held
        self._is_held = False
        self._scheduler.pause()

    def locked(self) -> bool:
        """True if somebody has it."""
        return self._is_held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()


class Play:
    """A client's messages, each with calls that are quick, cancelled, wait, or wait for a later message to be read."""

    def __init__(self, scheduler: Scheduler, messages: int, end: End) -> None:
        self._scheduler, self._chance = scheduler, scheduler.chance
        self._messages, self._end = messages, end
        self.position = self.running = self.most_running = self.readers = 0
        self._awaited: list[int] = []  # for each call that ends only then, how many messages must have been read
        self.asked: list[int] = []
        self.answered: list[tuple[int, Any]] = []

    def read(self) -> list[sikkerkey_mcp.Job] | None:
        """The next message. After the last one it ends: when all has been answered, at once, or by failing."""
        self.readers += 1
        assert self.readers == 1
        last = self.position >= self._messages
        at_times = self._chance.random() < 0.5 and not self._scheduler.refusals  # or calls wait for others to end
        waits_for_answers = at_times or (last and self._end == "whole")
        self._scheduler.pause(self._has_its_answers if waits_for_answers else lambda: True)
        self.readers -= 1
        self.position += 1
        if last and self._end == "broken":
            raise MemoryError
        return None if last else [self._job() for _ in range(self._chance.choice((0, 1, 1, 1, 3)))]

    def _job(self) -> sikkerkey_mcp.Job:
        number = len(self.asked)
        self.asked.append(number)
        call = PlayedCall(self, number, self._chance.randint(0, 4), self._chance.randint(0, 3))
        return sikkerkey_mcp.Job(call, 1, lambda told: self.answered.append((number, told)))

    def _has_its_answers(self) -> bool:
        stuck = sum(position > self.position for position in self._awaited)
        return len(self.answered) + stuck == len(self.asked) or stuck == AT_ONCE

    def step(self) -> None:
        """Something else may happen here."""
        self._scheduler.pause()

    def until_read(self, position: int) -> None:
        """Until so many messages have been read, or the last one."""
        wanted = min(position, self._messages)
        self._awaited.append(wanted)
        self._scheduler.pause(lambda: self.position >= wanted)
        self._awaited.remove(wanted)


class PlayedCall(sikkerkey_mcp.Call):
    """A call of no session, which makes way as others do."""

    def __init__(self, play: Play, number: int, kind: int, steps: int) -> None:
        super().__init__(SESSION, number, {}, lambda _context: {})
        self._play, self._kind, self._many = play, kind, steps

    def run(self) -> Any:
        """Does what it does, and says so."""
        play = self._play
        play.running += 1
        play.most_running = max(play.most_running, play.running)
        position = play.position
        if self._kind > 1:
            self.about_to_wait()
            for _ in range(self._many):
                play.step()
            if self._kind > 2:
                play.until_read(position + self._many)
        play.running -= 1
        return "ran"

    def refuse(self, _reason: str) -> Any:
        """Says that it was, which nothing justifies while there is a thread that could have run it."""
        assert self._play.running == 0
        return "refused"


def played(monkeypatch: pytest.MonkeyPatch, seed: int, refusals: float, end: End = "whole") -> Play:
    """A session of 20 messages, to its end."""
    scheduler = Scheduler(seed)
    monkeypatch.setattr(sikkerkey_mcp, "allocate_lock", lambda: Lock(scheduler))
    monkeypatch.setattr(sikkerkey_mcp, "start_new_thread", scheduler.start)
    monkeypatch.setattr(sikkerkey_mcp, "CALLS_AT_ONCE", AT_ONCE)
    play, ended = Play(scheduler, 20, end), []

    def run() -> None:
        try:
            sikkerkey_mcp.Workers(play.read).run()
        finally:
            ended.append(not scheduler.is_over)
            scheduler.is_over = True

    scheduler.start(run, ())
    scheduler.refusals = refusals
    scheduler.pass_on()
    for thread in scheduler.threads:
        thread.join(TIMEOUT_S)
    assert ended == [True], f"seed {seed}: nobody can go on"
    return play


@pytest.mark.parametrize("refusals", [0.0, 0.3, 0.9, 1.0])
def test_every_call_is_answered_once_and_none_keeps_others_from_being_read(
    monkeypatch: pytest.MonkeyPatch, refusals: float
) -> None:
    for seed in range(50):
        play = played(monkeypatch, seed, refusals)
        assert sorted(number for number, _ in play.answered) == play.asked
        assert play.most_running <= AT_ONCE
        refused = [number for number, told in play.answered if told == "refused"]
        assert not refused or refusals
        assert refused == play.asked or refusals < 1


@pytest.mark.parametrize("end", ["early", "broken"])
@pytest.mark.parametrize("refusals", [0.0, 0.3, 1.0])
def test_end_of_reading_ends_it_whatever_runs(monkeypatch: pytest.MonkeyPatch, refusals: float, end: End) -> None:
    for seed in range(25):
        play = played(monkeypatch, seed, refusals, end)
        answered = [number for number, _ in play.answered]
        assert len(set(answered)) == len(answered)


class Noting(sikkerkey_mcp.Context):
    """Notes that it has been told of a wait, and of pauses, which take no time."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self._events = events
        self.cancellation.wait = self._pause  # type: ignore[method-assign]

    def about_to_wait(self) -> None:
        self._events.append("makes way")

    def _pause(self, seconds: float) -> bool:
        self._events.append("pauses")
        return False


def test_pause_between_two_attempts_keeps_nobody_waiting() -> None:
    events: list[str] = []
    with FaultyVault(faulty_vault.answer(), faulty_vault.answer(status=429), faulty_vault.answer()) as vault:
        api = sikkerkey_mcp.Api(vault.url, lambda _request: {})
        for context in (sikkerkey_mcp.Context(), Noting(events)):
            assert api.send(sikkerkey_mcp.Request("GET", "/", None), safe=True, context=context).status == 200
        for connection in api._connections._idle:
            connection.close()
    assert events[:2] == ["makes way", "pauses"]


def test_first_call_makes_way_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real = builtins.__import__

    def note(name: str, *rest: Any) -> Any:
        events.append(name)
        return real(name, *rest)

    def connect() -> sikkerkey_mcp.Api:
        raise sikkerkey_mcp.ConfigError("no agent")

    tools = sikkerkey_mcp.VaultTools(connect)
    context = Noting(events)
    monkeypatch.setattr(builtins, "__import__", note)
    tools.call("whoami", {}, context)
    assert events[:2] == ["makes way", "sikkerkey_answers"]


def test_call_makes_way_as_long_as_another_thread_gets_ready() -> None:
    made_way = threading.Event()

    class Impatient(sikkerkey_mcp.Context):
        def about_to_wait(self) -> None:
            made_way.set()

    class Unready(sikkerkey_mcp.Api):
        def prepare(self) -> None:
            caller.start()
            assert made_way.wait(2.0)

    def refuse(_request: sikkerkey_mcp.Request) -> sikkerkey_mcp.Headers:
        raise sikkerkey_mcp.ConfigError("no agent")

    tools = sikkerkey_mcp.VaultTools(lambda: Unready("https://vault.test", refuse))
    caller = threading.Thread(target=tools.call, args=("whoami", {}, Impatient()))
    tools.prepare()
    caller.join(TIMEOUT_S)
    assert made_way.is_set()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/list", {}),
        ("resources/read", {"uri": "test://text"}),
        ("prompts/get", {"name": "greet"}),
        ("completion/complete", {"ref": {"type": "ref/prompt"}, "argument": {"name": "what", "value": ""}}),
    ],
)
def test_library_is_loaded_once_others_can_be_served(method: str, params: sikkerkey_mcp.JsonObject) -> None:
    events: list[str] = []
    registry = FixtureTools(("resources", "prompts", "completions"))
    library = registry.library()
    registry.library = lambda: events.append("loads") or library  # type: ignore[method-assign, func-returns-value]
    session = sikkerkey_mcp.Session(registry, lambda _message: None)
    session.handle({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    call = session.handle({"jsonrpc": "2.0", "id": 2, "method": method, "params": params})
    assert isinstance(call, sikkerkey_mcp.Call)
    call.make_way = lambda: events.append("makes way")
    assert "result" in (call.run() or {})
    assert events == ["makes way", "loads"]


def test_ping_is_answered_while_an_answer_that_began_quickly_goes_on(home: Path) -> None:
    go_on = threading.Event()

    def pausing(wire: Wire, _request: ReceivedRequest) -> bool:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        go_on.wait(TIMEOUT_S)
        wire.send(b"{}")
        return True

    with FaultyVault(faulty_vault.answer(), pausing) as vault, CheckedServer() as server:
        make_slot(home, vault.url)
        server.initialize()
        server.call("whoami")
        asked = server.start_call("whoami")
        assert server.request("ping")["result"] == {}
        go_on.set()
        assert server.reply(asked)["result"]["structuredContent"] == {}
