"""Fixtures of the vault's tests: a fake clock, a served vault, and an approved agent with all scopes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vault.support.served_vault import Agent, FakeClock, SharedServer, Vault


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SharedServer]:
    running = SharedServer()
    yield running
    running.stop()


@pytest.fixture
def vault(tmp_path: Path, clock: FakeClock, shared_server: SharedServer) -> Iterator[Vault]:
    opened = Vault(tmp_path / "vault", clock, shared_server)
    yield opened
    opened.close()


@pytest.fixture
def agent(vault: Vault) -> Agent:
    return vault.agent()
