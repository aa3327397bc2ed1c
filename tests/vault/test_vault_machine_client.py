"""The routes of machines, used by the vendor's own client: the package `sikkerkey` from PyPI, unchanged.

The client signs with the real time, so the vault's clock starts from there.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.rows import each_of
from tests.vault.support.machines import TOKENS, token_body
from tests.vault.support.served_vault import Agent, FakeClock, Vault
from vault.domains import machines
from vault.owner.machine_bundle import write_bundle
from vault.schema import open_store

sikkerkey = pytest.importorskip("sikkerkey", reason="the vendor's client needs Python 3.10")

TIMEOUT_S = 20
PAIR = json.dumps({"user": "søren", "pass": "p4ss"})


@pytest.fixture(autouse=True)
def real_time(clock: FakeClock) -> None:
    clock.now_ms = time.time_ns() // 1_000_000


@pytest.fixture
def url(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIKKERKEY_API_URL", f"http://localhost:{vault.port}")
    return f"http://localhost:{vault.port}"


@pytest.fixture
def secrets(agent: Agent) -> list[str]:
    """The paths of a plain and a structured secret in two projects."""
    first, second = agent.project("first"), agent.project("second")
    plain = agent.secret(first, "hunter2", name="API key")
    return [plain, agent.secret(second, PAIR, name="db", fieldNames=["user", "pass"])]


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def token(agent: Agent, secrets: list[str], **changed: Any) -> str:
    reach = {"projectIds": [path.split("/")[4] for path in secrets], "secretIds": [id_of(path) for path in secrets]}
    return str(agent.post(TOKENS, token_body(**{**reach, **changed}))["token"])


@pytest.fixture
def client(vault: Vault, agent: Agent, url: str, secrets: list[str]) -> Iterator[Any]:
    """An enrolled machine that may read both secrets."""
    made = sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, token(agent, secrets), hostname="runner-7")
    yield made
    made.close()


def test_it_enrolls_in_memory_and_reads(vault: Vault, agent: Agent, client: Any, secrets: list[str], url: str) -> None:
    assert (client.machine_name, client.vault_id, client.api_url) == ("runner-7", vault.store.vault_id, url)
    assert client.get_secret(id_of(secrets[0])) == "hunter2"
    assert client.get_fields(id_of(secrets[1])) == {"user": "søren", "pass": "p4ss"}
    assert client.get_field(id_of(secrets[1]), "pass") == "p4ss"
    with pytest.raises(sikkerkey.SecretStructureError):
        client.get_fields(id_of(secrets[0]))
    with pytest.raises(sikkerkey.FieldNotFoundError):
        client.get_field(id_of(secrets[1]), "port")
    shown = agent.get(f"/v1/ai/machines/{client.machine_id}")
    assert (shown["kind"], shown["state"], shown["grantCount"]) == ("ephemeral", "approved", 2)


def test_it_lists_and_exports(client: Any, secrets: list[str]) -> None:
    items = [
        sikkerkey.SecretListItem(id_of(secrets[0]), "API key", None, secrets[0].split("/")[4]),
        sikkerkey.SecretListItem(id_of(secrets[1]), "db", '["user", "pass"]', secrets[1].split("/")[4]),
    ]
    assert sorted(client.list_secrets(), key=lambda item: item.name) == items
    assert client.list_secrets_by_project(items[1].project_id) == items[1:]
    assert client.export() == {"API_KEY": "hunter2", "DB_USER": "søren", "DB_PASS": "p4ss"}
    assert client.export(items[0].project_id) == {"API_KEY": "hunter2"}


def test_it_reads_with_an_identity_on_disk_once_approved(
    vault: Vault, agent: Agent, url: str, secrets: list[str], home: Path
) -> None:
    machine_id = write_bundle(vault.store, vault.clock(), home / ".sikkerkey", url, "web-1")
    assert sikkerkey.SikkerKey.list_vaults() == [vault.store.vault_id]
    on_disk = sikkerkey.SikkerKey(vault.store.vault_id)
    with pytest.raises(sikkerkey.AccessDeniedError, match="Machine is pending approval"):
        on_disk.get_secret(id_of(secrets[0]))
    with vault.store.transaction() as db:
        machines.approve_as_owner(db, vault.clock(), machine_id)
    base = f"{secrets[0].rpartition('/secrets/')[0]}/machines"
    agent.post(base, {"machineId": machine_id})
    agent.post(f"{base}/{machine_id}/grants", {"secretIds": [id_of(secrets[0])]})
    assert (on_disk.machine_id, on_disk.machine_name) == (machine_id, "web-1")
    assert on_disk.get_secret(id_of(secrets[0])) == "hunter2"
    assert sikkerkey.SikkerKey().list_secrets()[0].id == id_of(secrets[0])


Watching = Callable[[str], Any]


@pytest.fixture
def watched(client: Any) -> Watching:
    """Watch a secret and return the first event. The client polls immediately, then every 15 seconds."""
    events: queue.Queue[Any] = queue.Queue()

    def first(path: str) -> Any:
        client.watch(id_of(path), events.put)
        return events.get(timeout=TIMEOUT_S)

    return first


@pytest.mark.parametrize("place", [0, 1])
def test_a_watch_returns_the_new_value(
    agent: Agent, client: Any, secrets: list[str], watched: Watching, place: int
) -> None:
    client.get_secret(id_of(secrets[place]))
    fields = {"user": "new", "pass": "new"} if place else None
    value = json.dumps(fields) if fields else "new"
    agent.post(secrets[place] + "/update", {"value": value})
    event = watched(secrets[place])
    changed = sikkerkey.WatchStatus.CHANGED
    assert event == sikkerkey.WatchEvent(id_of(secrets[place]), changed, value=value, fields=fields)


def test_a_watch_ends_with_the_secret(agent: Agent, secrets: list[str], watched: Watching) -> None:
    agent.post(secrets[0] + "/delete")
    assert watched(secrets[0]) == sikkerkey.WatchEvent(id_of(secrets[0]), sikkerkey.WatchStatus.DELETED)


def test_a_watch_ends_with_the_grant(agent: Agent, client: Any, secrets: list[str], watched: Watching) -> None:
    base = f"{secrets[0].rpartition('/secrets/')[0]}/machines/{client.machine_id}"
    agent.post(f"{base}/grants", {"secretIds": []})
    assert watched(secrets[0]) == sikkerkey.WatchEvent(id_of(secrets[0]), sikkerkey.WatchStatus.ACCESS_DENIED)


def refused(client: Any, secret_id: str) -> tuple[type[Exception], int]:
    with pytest.raises(sikkerkey.ApiError) as caught:
        client.get_secret(secret_id)
    return type(caught.value), caught.value.http_status


def test_each_refusal_raises_the_matching_client_error(
    vault: Vault, agent: Agent, client: Any, secrets: list[str]
) -> None:
    project_id, ids = secrets[0].split("/")[4], [id_of(path) for path in secrets]
    assert refused(client, "sk_unknown") == (sikkerkey.NotFoundError, 404)
    ungranted = id_of(agent.secret(project_id, "v"))
    assert refused(client, ungranted) == (sikkerkey.AccessDeniedError, 403)
    bait = agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait"})["id"]
    agent.post(f"/v1/ai/projects/{project_id}/machines/{client.machine_id}/grants", {"secretIds": [bait, ids[0]]})
    assert len(client.get_secret(bait)) == 64
    assert refused(client, ids[0]) == (sikkerkey.ApiError, 423)
    agent.post("/v1/ai/ipallowlist/enable")
    assert refused(client, ids[1]) == (sikkerkey.AccessDeniedError, 403)
    agent.post("/v1/ai/ipallowlist/disable")
    agent.post(f"/v1/ai/machines/{client.machine_id}/revoke")
    assert refused(client, ids[1]) == (sikkerkey.AuthenticationError, 401)


def test_an_expired_machine_is_an_authentication_error(
    vault: Vault, agent: Agent, url: str, secrets: list[str], clock: FakeClock
) -> None:
    short = token(agent, secrets, machineLifetimeSeconds=60)
    machine = sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, short)
    clock.advance(60)
    assert refused(machine, id_of(secrets[0])) == (sikkerkey.AuthenticationError, 401)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the delay before the client retries."""
    monkeypatch.setattr("sikkerkey.client._BACKOFF_SECONDS", [0.0])


@pytest.mark.usefixtures("impatient")
def test_a_busy_vault_is_retried(vault: Vault, client: Any, secrets: list[str]) -> None:
    vault.store._db.execute("PRAGMA busy_timeout = 0")
    with open_store(vault.directory) as other, other.transaction():
        assert refused(client, id_of(secrets[0])) == (sikkerkey.ServerSealedError, 503)
    assert client.get_secret(id_of(secrets[0])) == "hunter2"


@pytest.mark.usefixtures("impatient")
def test_a_cached_value_is_used_while_the_vault_is_busy_but_not_without_access(
    vault: Vault, agent: Agent, client: Any, secrets: list[str]
) -> None:
    client.enable_cache().get_secret(id_of(secrets[0]))
    vault.store._db.execute("PRAGMA busy_timeout = 0")
    with open_store(vault.directory) as other, other.transaction():
        assert client.get_secret(id_of(secrets[0])) == "hunter2"
    agent.post(f"/v1/ai/machines/{client.machine_id}/revoke")
    assert refused(client, id_of(secrets[0])) == (sikkerkey.AuthenticationError, 401)


@each_of(
    ("changed", "given", "expected"),
    [
        ({"sourceCidr": "10.0.0.0/8"}, {}, ("AccessDeniedError", 403)),
        ({"hostnamePattern": "prod-.*"}, {"hostname": "runner-7"}, ("AccessDeniedError", 403)),
        ({"namePattern": "ci-[0-9]+"}, {"name": "mine"}, ("AccessDeniedError", 403)),
        ({}, {"hostname": "h" * 256}, ("ApiError", 400)),
    ],
)
@pytest.mark.usefixtures("url")
def test_a_refused_enrollment_raises_the_matching_client_error(
    vault: Vault, agent: Agent, changed: dict[str, str], given: dict[str, str], expected: tuple[str, int]
) -> None:
    with pytest.raises(sikkerkey.ApiError) as caught:
        sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, token(agent, [], **changed), **given)
    assert (type(caught.value).__name__, caught.value.http_status) == expected


def test_a_used_token_and_a_wrong_vault_are_distinguished(vault: Vault, agent: Agent, url: str) -> None:
    spent = token(agent, [])
    sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, spent)
    with pytest.raises(sikkerkey.AuthenticationError):
        sikkerkey.SikkerKey.bootstrap_in_memory(vault.store.vault_id, spent)
    with pytest.raises(sikkerkey.NotFoundError):
        sikkerkey.SikkerKey.bootstrap_in_memory("vault_other", spent)
