"""The requests of docs/requests.md from a terminal: what a person types has its effect on a local vault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.harness import make_slot
from tests.support.shell import Shell
from tests.vault.conftest import _fast_storage, new_vault, shared_server  # noqa: F401  # fixtures
from tests.vault.support.served_vault import FakeClock, SharedServer, Vault
from tools.user_requests.commands import TYPED, Terminal
from tools.user_requests.data import World
from tools.user_requests.script import REQUESTS
from vault.router import wall_clock


class WallClock(FakeClock):
    """The time of this computer, which is that of the commands."""

    def __call__(self) -> int:
        return wall_clock()


@pytest.fixture
def world(tmp_path: Path, home: Path, shared_server: SharedServer, new_vault: Path) -> Iterator[World]:  # noqa: F811  # fixtures
    """A vault with the content of the requests, and its only agent on this computer."""
    shutil.copytree(new_vault, tmp_path / "vault")
    vault = Vault(tmp_path / "vault", WallClock(), shared_server)
    agent = vault.agent()
    make_slot(home, f"http://127.0.0.1:{agent.port}", agent.id)
    pem = agent.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / ".sikkerkey" / "agents" / agent.id / "private.pem").write_bytes(pem)
    yield World(vault.store, wall_clock)
    vault.close()


def test_each_request_can_be_typed_in_a_terminal(
    world: World, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str]) -> str:
        ran = shell(*words)
        assert ran.status == 0, ran.err
        return ran.out

    monkeypatch.chdir(tmp_path)
    terminal = Terminal(run, world, tmp_path)
    assert len(TYPED) == len(REQUESTS)
    for request, typed in zip(REQUESTS, TYPED):
        try:
            request.check(world, terminal.answer(typed))
        except Exception as error:
            raise AssertionError(f"failed: {request.text}") from error
