"""The fault table, row by row, before real server processes, each of which must outlive all of its rows."""

from __future__ import annotations

import contextlib
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from tests.support import faulty_vault
from tests.support.fault_stage import Effect, Kind, Measured, Stage
from tests.support.fault_table import FAULTS, Fault, Outcome
from tests.support.faulty_vault import assert_signed

LINUX = sys.platform == "linux"
WITHIN_S = 30.0  # of a loaded machine: nothing takes 2 s on an idle one, slow rows have limits below a second
KIB_A_MIB = 1024

GetStage = Callable[[Fault], Stage]


class Stages:
    """One process for all rows of a kind; `nonces` holds what any of them has sent."""

    def __init__(self, stack: contextlib.ExitStack, factory: pytest.TempPathFactory) -> None:
        self._stack, self._factory = stack, factory
        self._made: dict[tuple[Kind, bool], Stage] = {}
        self.nonces: set[str] = set()

    def of(self, fault: Fault) -> Stage:
        """Where a row is played."""
        wanted = fault.stage, fault.slow
        if wanted not in self._made:
            directory = self._factory.mktemp("stage") / "home"
            self._made[wanted] = Stage(self._stack, directory, fault.stage, slow=fault.slow)
        return self._made[wanted]

    def assert_ends_as_it_began(self) -> None:
        """No process has kept threads or descriptors of all the breakdowns, and each ends well."""
        for stage in self._made.values():
            if LINUX:
                assert stage.number("Threads") <= 6  # three that are always there, and workers
                assert stage.open_files() <= 8
            assert stage.server.close() == 0
            assert stage.server.ended() == (0, b"")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with contextlib.ExitStack() as stack:
        made = Stages(stack, tmp_path_factory)
        yield made
        made.assert_ends_as_it_began()


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.peer(13)
def test_fault_comes_to_what_its_row_says(stages: Stages, fault: Fault, effect: Effect) -> None:
    stage = stages.of(fault)
    assert stage.call(effect).text == "{}"
    fault.arrange(stage)
    met = stage.call(effect)
    stage.mend()
    assert_as_the_row_says(met, getattr(fault, effect), stage.vault.url)
    assert_harmless(met, stages, stage)
    assert met.grown_kib < (256 if fault.name.startswith("16 MB") else 128) * KIB_A_MIB
    next_one = stage.call(effect)
    assert (next_one.text, len(next_one.requests), next_one.warnings) == ("{}", 1, [])
    assert_harmless(next_one, stages, stage)


def assert_as_the_row_says(met: Measured, outcome: Outcome, url: str) -> None:
    assert is_like(outcome.text.replace("<URL>", url), met.text), met.text[:1_000]
    assert (len(met.requests), len(met.warnings) + 1) == (outcome.sent, outcome.tried)
    assert met.result.get("isError", False) is outcome.error
    if outcome.pause_s is not None:
        assert all(outcome.pause_s - 1 <= pause_s <= outcome.pause_s for pause_s in met.pauses_s)
    assert sum(met.pauses_s) <= 20


def is_like(pattern: str, text: str) -> bool:
    """True if `text` is `pattern`, in which * stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def assert_harmless(met: Measured, stages: Stages, stage: Stage) -> None:
    """Nothing of the peer's own bytes, no nonce twice, nothing without bounds."""
    shown = met.text + "".join(met.warnings)
    assert "magpie" not in shown
    assert "canary-of" not in shown
    assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in shown.replace("\n", ""))
    for request in met.requests:
        assert request.headers["x-nonce"] not in stages.nonces
        stages.nonces.add(request.headers["x-nonce"])
        if len(request.body) == int(request.headers.get("content-length", "0")):
            assert_signed(request, stage.key.public_key())
    assert met.took_s < WITHIN_S


@pytest.mark.peer(12)
def test_write_arrives_twice_only_where_it_was_refused_for_now() -> None:
    assert {fault.group for fault in FAULTS if fault.write.sent > 1} == {"429 Too Many Requests"}


def test_write_that_arrived_and_was_not_refused_is_told_so() -> None:
    """Where no answer of the vault's own says what became of a write, the model is told to look first."""
    told = [fault.write for fault in FAULTS if fault.write.error and fault.write.sent]
    unsure = [outcome for outcome in told if not outcome.text.startswith("the vault answered")]
    assert all("may have been processed" in outcome.text for outcome in unsure)
    assert len(unsure) > 50


REPEATED = [fault for fault in FAULTS if fault.read.sent > 1 and fault.stage == "http"]


@pytest.mark.parametrize("fault", REPEATED, ids=str)
@pytest.mark.peer(12)
def test_fault_that_passes_costs_a_read_one_more_attempt(stages: Stages, fault: Fault) -> None:
    stage = stages.of(fault)
    fault.arrange(stage)
    [act] = stage.vault.acts
    stage.vault.acts[:] = [faulty_vault.once(act, faulty_vault.answer(b'{"whole":1}'))]
    met = stage.call("read")
    stage.mend()
    assert (met.text, len(met.requests), len(met.warnings)) == ('{"whole":1}', 2, 1)
    assert_harmless(met, stages, stage)
