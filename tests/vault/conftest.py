"""Fixtures of the vault's tests: a fake clock, a served vault, an approved agent that may do everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vault.harness import Agent, FakeClock, Front, Vault


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    running = Front()
    yield running
    running.stop()


@pytest.fixture
def vault(tmp_path: Path, clock: FakeClock, front: Front) -> Iterator[Vault]:
    opened = Vault(tmp_path / "vault", clock, front)
    yield opened
    opened.close()


@pytest.fixture
def agent(vault: Vault) -> Agent:
    return vault.agent()
