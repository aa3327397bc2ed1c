"""Background jobs: rotation when it is due, and independence of slow and failing jobs."""

from __future__ import annotations

import errno
import io
import sqlite3
import sys
import threading

import pytest

from tests.support.harness import TIMEOUT_S
from tests.vault.support.served_vault import START_MS, FakeClock, Vault, run_job
from vault import jobs
from vault.domains import secrets
from vault.domains.schedules import rotate_due
from vault.jobs import JobRunner
from vault.store import Store


def scheduled(vault: Vault, interval_s: int = 300) -> str:
    """A new secret that rotates every `interval_s` seconds."""
    agent = vault.agent()
    options = {"intervalSeconds": interval_s, "charset": "numbers", "length": 40}
    body = {"projectId": agent.project(), "name": "s", **options}
    return str(agent.post("/v1/ai/dynamic-secrets", body)["secretId"])


def value_of(store: Store, secret_id: str) -> tuple[int, str]:
    """The version and the value of a secret."""
    with store.transaction() as db:
        row = secrets.find(db, secret_id)
        return row["version"], secrets.plaintext(db, store.keys, row, row["version"])


def test_a_secret_rotates_when_it_is_due_and_not_before(vault: Vault) -> None:
    secret_id = scheduled(vault)
    first = value_of(vault.store, secret_id)
    run_job(rotate_due, vault.store, START_MS + 299_999)
    assert value_of(vault.store, secret_id) == first
    run_job(rotate_due, vault.store, START_MS + 300_000)
    version, value = value_of(vault.store, secret_id)
    assert (version, value != first[1], len(value), value.isdigit()) == (2, True, 40, True)


def test_a_secret_rotates_once_after_a_week_offline(vault: Vault) -> None:
    secret_id = scheduled(vault)
    later_ms = START_MS + 7 * 24 * 3600 * 1000
    for _ in range(3):
        run_job(rotate_due, vault.store, later_ms)
    assert value_of(vault.store, secret_id)[0] == 2
    run_job(rotate_due, vault.store, later_ms + 300_000)
    assert value_of(vault.store, secret_id)[0] == 3


def test_a_slow_job_does_not_delay_others(vault: Vault, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "TICK_S", 0.01)
    is_waiting, other_ran, release = threading.Event(), threading.Event(), threading.Event()

    def look_up(*_: object) -> None:
        is_waiting.set()
        release.wait(TIMEOUT_S)

    def rotate(*_: object) -> None:
        if is_waiting.is_set():
            other_ran.set()

    with JobRunner(vault.store, clock, [look_up, rotate]):
        did_run = other_ran.wait(TIMEOUT_S)
        release.set()
    assert did_run


def test_a_failing_job_is_logged_without_its_message_and_does_not_stop_others(
    vault: Vault, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[int] = []

    def failing_job(*_: object) -> None:
        raise sqlite3.OperationalError("MARKED-7f3a")

    JobRunner(vault.store, clock, [failing_job, lambda _transaction, _keys, now_ms: done.append(now_ms)]).tick()
    assert done == [clock.now_ms]
    logged = capsys.readouterr().err
    assert "job failing_job: OperationalError" in logged
    assert "MARKED" not in logged


def test_a_failure_is_logged_once_until_the_job_succeeds(
    vault: Vault, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = iter(("fails", "fails", "works", "fails"))

    def flaky_job(*_: object) -> None:
        if next(runs) == "fails":
            raise OSError

    runner = JobRunner(vault.store, clock, [flaky_job])
    for lines in (1, 0, 0, 1):
        runner.tick()
        assert capsys.readouterr().err.count("job flaky_job") == lines


class FullDisk(io.StringIO):
    """A standard error that goes to a file on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_job_goes_on_if_its_failure_cannot_be_logged(
    vault: Vault, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "TICK_S", 0.01)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    ran, ran_again = threading.Event(), threading.Event()

    def failing_job(*_: object) -> None:
        (ran_again if ran.is_set() else ran).set()
        raise OSError

    with JobRunner(vault.store, clock, [failing_job]):
        assert ran_again.wait(TIMEOUT_S)
