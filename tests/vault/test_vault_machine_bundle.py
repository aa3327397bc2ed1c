"""The identity files that the owner creates for a machine: content, permissions, and no overwriting."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.vault.support.machines import Machine
from tests.vault.support.served_vault import START_MS, Agent, Vault, disk
from vault.errors import VaultError
from vault.owner.machine_bundle import write_bundle

URL = "http://localhost:8200"


@pytest.fixture
def sk(tmp_path: Path) -> Path:
    return tmp_path / "machine" / "sk"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("kind", ["standard", "temp"])
def test_a_bundle_contains_the_identity_of_a_pending_machine(vault: Vault, agent: Agent, sk: Path, kind: str) -> None:
    os.umask(0)
    machine_id = write_bundle(vault.store, vault.clock(), sk, URL, "wéb", kind=kind)
    directory = sk / "vaults" / vault.store.vault_id
    assert json.loads((directory / "identity.json").read_text("utf-8")) == {
        "machineId": machine_id,
        "machineName": "wéb",
        "vaultId": vault.store.vault_id,
        "apiUrl": URL,
        "privateKeyPath": str(directory / "private.pem"),
    }
    assert sorted(path.name for path in directory.iterdir()) == ["identity.json", "private.pem"]
    assert {mode(path) for path in directory.iterdir()} == {0o600}
    assert {mode(path) for path in (sk, sk / "vaults", directory)} == {0o700}
    shown = agent.get(f"/v1/ai/machines/{machine_id}")
    life = START_MS + 3_600_000 if kind == "temp" else None
    assert (shown["kind"], shown["state"], shown["expiresAt"]) == (kind, "pending", life)
    made = vault.audited("temp_machine_create" if kind == "temp" else "machine_register")
    assert [(row["actor_kind"], row["user_id"]) for row in made] == [("user", "owner")]


def test_the_private_key_is_never_in_the_vault(vault: Vault, agent: Agent, sk: Path) -> None:
    machine_id = write_bundle(vault.store, vault.clock(), sk, URL, "web")
    key = load_pem_private_key((sk / "vaults" / vault.store.vault_id / "private.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() not in disk(vault.directory)
    agent.post(f"/v1/ai/machines/{machine_id}/approve")
    assert Machine(vault.port, vault.clock, machine_id, key).get("/v1/secrets") == {"secrets": []}


@pytest.mark.parametrize("name", ["identity.json", "private.pem"])
def test_an_existing_file_is_kept_and_no_machine_is_created(vault: Vault, agent: Agent, sk: Path, name: str) -> None:
    path = sk / "vaults" / vault.store.vault_id / name
    for directory in (sk, sk / "vaults", path.parent):
        directory.mkdir(mode=0o700, parents=True)
    path.write_text("mine", "utf-8")
    with pytest.raises(VaultError, match="already exists"):
        write_bundle(vault.store, vault.clock(), sk, URL, "web")
    assert (path.read_text("utf-8"), list(path.parent.iterdir())) == ("mine", [path])
    assert agent.get("/v1/ai/machines") == []


def test_a_file_that_cannot_be_written_leaves_no_machine(
    vault: Vault, agent: Agent, sk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vault.owner.machine_bundle.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(vault.store, vault.clock(), sk, URL, "web")
    assert agent.get("/v1/ai/machines") == []
    monkeypatch.undo()
    write_bundle(vault.store, vault.clock(), sk, URL, "web")  # nothing is in the way


def test_a_url_that_the_client_refuses_is_refused_here(vault: Vault, agent: Agent, sk: Path) -> None:
    for url in ["http://127.0.0.1:8200", "http://localhost.evil.example", "ftp://localhost", "", "x"]:
        with pytest.raises(VaultError, match="machines cannot use the URL"):
            write_bundle(vault.store, vault.clock(), sk, url, "web")
        assert (agent.get("/v1/ai/machines"), sk.exists()) == ([], False), url


def test_invalid_names_and_kinds_are_refused(vault: Vault, agent: Agent, sk: Path) -> None:
    for name, kind in (("", "standard"), ("x" * 256, "standard"), ("web", "ephemeral"), ("web", "other")):
        with pytest.raises(VaultError):
            write_bundle(vault.store, vault.clock(), sk, URL, name, kind=kind)
    assert agent.get("/v1/ai/machines") == []
