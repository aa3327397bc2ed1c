"""Every row of the fault table, against real server processes that must survive all of their rows."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from tests.support import faulty_vault
from tests.support.fault_stage import SLOW_SPEED, Effect, Kind, Measured, Stage
from tests.support.fault_table import FAULTS, FIFTY_MB, Fault, Outcome
from tests.support.faulty_vault import assert_signed
from tests.support.rows import each_of
from tests.support.schema_check import wait_until

LINUX = sys.platform == "linux"

GetStage = Callable[[Fault], Stage]


def has_settled(stage: Stage) -> bool:
    """Whether only three threads that are always there, and workers, are left, and no descriptor of a fault."""
    return stage.thread_count() <= 6 and stage.open_files() <= 8


class Stages:
    """One process for all rows of a kind; `nonces` holds every nonce that any of them has sent."""

    def __init__(self, stack: contextlib.ExitStack, factory: pytest.TempPathFactory) -> None:
        self._stack, self._factory = stack, factory
        self._made: dict[Kind, Stage] = {}
        self.nonces: set[str] = set()

    def of(self, fault: Fault) -> Stage:
        """The stage for a row."""
        if fault.stage not in self._made:
            directory = self._factory.mktemp("stage") / "home"
            self._made[fault.stage] = Stage(self._stack, directory, fault.stage)
        return self._made[fault.stage]

    def assert_nothing_is_left(self) -> None:
        """No process has kept threads or descriptors of its faults, and each exits with status 0."""
        for stage in self._made.values():
            if LINUX:
                wait_until(functools.partial(has_settled, stage))
            assert stage.server.close() == 0
            assert stage.server.ended() == (0, b"")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with contextlib.ExitStack() as stack:
        made = Stages(stack, tmp_path_factory)
        yield made
        made.assert_nothing_is_left()


EFFECTS: tuple[Effect, ...] = ("read", "write")


@pytest.mark.parametrize("group", dict.fromkeys(fault.group for fault in FAULTS))
@pytest.mark.peer(13)
def test_fault_has_the_outcome_of_its_row(stages: Stages, group: str) -> None:
    rows = [(fault, effect) for fault in FAULTS if fault.group == group for effect in EFFECTS]
    each_of("fault, effect", rows)(assert_row)(stages=stages)


def assert_row(stages: Stages, fault: Fault, effect: Effect) -> None:
    stage = stages.of(fault)
    assert stage.call(effect).text == "{}"
    arrange(fault, stage)
    met = stage.call(effect)
    stage.reset()
    assert_outcome(met, getattr(fault, effect), stage.vault.url)
    assert_harmless(met, stages, stage)
    next_one = stage.call(effect)
    assert (next_one.text, len(next_one.requests), next_one.warnings) == ("{}", 1, [])
    assert_harmless(next_one, stages, stage)


def arrange(fault: Fault, stage: Stage) -> None:
    """Puts the fault in place."""
    fault.arrange(stage)
    stage.set_speed(SLOW_SPEED if fault.slow else 1.0, SLOW_SPEED if fault.silent else 1.0)


def assert_outcome(met: Measured, outcome: Outcome, url: str) -> None:
    assert is_like(outcome.text.replace("<URL>", url), met.text), met.text[:1_000]
    assert (len(met.requests), len(met.warnings) + 1) == (outcome.sent, outcome.tried)
    assert met.result.get("isError", False) is outcome.error
    if outcome.pause_s is not None:
        assert all(outcome.pause_s - 1 <= pause_s <= outcome.pause_s for pause_s in met.pauses_s)
    assert sum(met.pauses_s) <= 20


def is_like(pattern: str, text: str) -> bool:
    """True if `text` matches `pattern`, where * matches anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def assert_harmless(met: Measured, stages: Stages, stage: Stage) -> None:
    """Nothing of the peer's bytes is shown, no nonce is sent twice, and no endless answer is read to its end."""
    shown = met.text + "".join(met.warnings)
    assert "magpie" not in shown
    assert "canary-of" not in shown
    assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in set(shown) - {"\n"})
    for request in met.requests:
        assert request.headers["x-nonce"] not in stages.nonces
        stages.nonces.add(request.headers["x-nonce"])
        if len(request.body) == int(request.headers.get("content-length", "0")):
            assert_signed(request, stage.key.public_key())
    assert met.largest_answer_bytes < FIFTY_MB


@pytest.mark.peer(12)
def test_write_is_sent_twice_only_after_429() -> None:
    assert {fault.group for fault in FAULTS if fault.write.sent > 1} == {"429 Too Many Requests"}


def test_write_that_may_have_been_processed_is_reported_as_such() -> None:
    """Unless the vault's answer says what became of a write, the model is told to check before it repeats the call."""
    failed = [fault.write for fault in FAULTS if fault.write.error and fault.write.sent]
    unsure = [outcome for outcome in failed if not outcome.text.startswith("the vault answered")]
    assert all("may have been processed" in outcome.text for outcome in unsure)
    assert len(unsure) > 50


REPEATED = [fault for fault in FAULTS if fault.read.sent > 1 and fault.stage == "http"]


@each_of("fault", REPEATED)
@pytest.mark.peer(12)
def test_read_is_repeated_after_a_temporary_fault(stages: Stages, fault: Fault) -> None:
    stage = stages.of(fault)
    arrange(fault, stage)
    [act] = stage.vault.acts
    stage.vault.acts[:] = [faulty_vault.once(act, faulty_vault.answer(b'{"total":1}'))]
    met = stage.call("read")
    stage.reset()
    assert (met.text, len(met.requests), len(met.warnings)) == ('{"total":1}', 2, 1)
    assert_harmless(met, stages, stage)
