"""Fixtures of the vault's tests: a fake clock, a served vault, and an approved agent with all scopes."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vault.support.served_vault import Agent, FakeClock, SharedServer, Vault
from vault import rootkey, server, store
from vault.schema import open_store


@pytest.fixture(autouse=True)
def _fast_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the disk and derives keys quickly, in this process; the vault's processes are unchanged."""
    monkeypatch.setattr(store, "PRAGMAS", (*store.PRAGMAS, "synchronous=OFF"))  # the last one counts
    monkeypatch.setattr(rootkey, "MEMORY_KIB", 64)
    monkeypatch.setattr(rootkey, "ITERATIONS", 1)


@pytest.fixture(autouse=True)
def _usual_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `serve` in this process from what lasts: children inherit the limit, which only root can raise again."""
    monkeypatch.setattr(resource, "setrlimit", lambda *_limit: None)
    monkeypatch.setattr(server, "forbid_inspection", lambda: None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SharedServer]:
    running = SharedServer()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def new_vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a new vault, which tests copy: making one takes longer."""
    directory = tmp_path_factory.mktemp("new") / "vault"
    open_store(directory).close()
    return directory


@pytest.fixture
def vault(tmp_path: Path, clock: FakeClock, shared_server: SharedServer, new_vault: Path) -> Iterator[Vault]:
    shutil.copytree(new_vault, tmp_path / "vault")
    opened = Vault(tmp_path / "vault", clock, shared_server)
    yield opened
    opened.close()


@pytest.fixture
def agent(vault: Vault) -> Agent:
    return vault.agent()
