"""What the serving process does by itself: rotation when it is due, and no standstill when a job fails."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from tests.support.harness import TIMEOUT_S
from tests.vault.harness import START_MS, FakeClock, Vault
from vault import clockwork, stored_secrets
from vault.clockwork import Clockwork
from vault.schedules import rotate_due
from vault.store import Store


def scheduled(vault: Vault, interval_s: int = 300) -> str:
    """A new secret that rotates every `interval_s` seconds."""
    agent = vault.agent()
    recipe = {"intervalSeconds": interval_s, "charset": "numbers", "length": 40}
    body = {"projectId": agent.project(), "name": "s", **recipe}
    return str(agent.post("/v1/ai/dynamic-secrets", body)["secretId"])


def value_of(store: Store, secret_id: str) -> tuple[int, str]:
    """Version and value, as only the vault can tell."""
    with store.transaction() as db:
        row = stored_secrets.find(db, secret_id)
        return row["version"], stored_secrets.plaintext(db, store.keys, row, row["version"])


def test_a_secret_rotates_when_it_is_due_and_not_before(vault: Vault) -> None:
    secret_id = scheduled(vault)
    first = value_of(vault.store, secret_id)
    rotate_due(vault.store, START_MS + 299_999)
    assert value_of(vault.store, secret_id) == first
    rotate_due(vault.store, START_MS + 300_000)
    version, value = value_of(vault.store, secret_id)
    assert (version, value != first[1], len(value), value.isdigit()) == (2, True, 40, True)


def test_a_vault_that_was_off_for_a_week_rotates_once(vault: Vault) -> None:
    secret_id = scheduled(vault)
    later_ms = START_MS + 7 * 24 * 3600 * 1000
    for _ in range(3):
        rotate_due(vault.store, later_ms)
    assert value_of(vault.store, secret_id)[0] == 2
    rotate_due(vault.store, later_ms + 300_000)
    assert value_of(vault.store, secret_id)[0] == 3


def test_a_job_that_waits_holds_up_no_other(vault: Vault, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clockwork, "TICK_S", 0.01)
    waits, goes_on, let_go = threading.Event(), threading.Event(), threading.Event()

    def look_up(_store: Store, _now_ms: int) -> None:
        waits.set()
        let_go.wait(TIMEOUT_S)

    def rotate(_store: Store, _now_ms: int) -> None:
        if waits.is_set():
            goes_on.set()

    with Clockwork(vault.store, clock, [look_up, rotate]):
        went_on = goes_on.wait(TIMEOUT_S)
        let_go.set()
    assert went_on


def test_a_failing_job_is_logged_without_its_words_and_stops_no_other(
    vault: Vault, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[int] = []

    def breaks(_store: Store, _now_ms: int) -> None:
        raise sqlite3.OperationalError("MARKED-7f3a")

    Clockwork(vault.store, clock, [breaks, lambda _store, now_ms: done.append(now_ms)]).tick()
    assert done == [clock.now_ms]
    logged = capsys.readouterr().err
    assert "job breaks: OperationalError" in logged
    assert "MARKED" not in logged
