"""Changes of the root key: what the new and the old key open, and what a crash leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import ROOT, START_MS, Agent, Spawned, Vault, disk
from vault.crypto import Keyring, decrypt, encrypt
from vault.errors import VaultError
from vault.schema import WRAPPED, open_store

OLD, NEW = "the old words of the owner", "the new words of the owner"

# Columns of bytes that the root key does not wrap, and why.
OTHER_BYTES = {
    ("vault", "root_key_proof"): "wrapped by the new key, with the key of the seals",
    ("passphrase_seal", "salt"): "replaced",
    ("passphrase_seal", "sealed_key"): "replaced",
    ("audit_chain", "hash"): "a hash",
    ("seals", "mac"): "of a key that the proof contains",
    ("ai_agents", "public_key"): "public",
    ("machines", "public_key"): "public",
    ("bootstrap_tokens", "token_hash"): "a hash",
    ("enrollment_tokens", "token_hash"): "a hash",
    ("temporary_secrets", "token_hash"): "a hash",
    ("temporary_secrets", "salt"): "of a passphrase that the vault does not store",
    ("temporary_secrets", "passphrase_hash"): "a hash",
    ("temporary_secrets", "ciphertext"): "under that passphrase",
    ("ticket_attachments", "content"): "not encrypted, like the text of a ticket",
    ("secret_versions", "wrapped_key"): "wrapped by the project key",
    ("secret_versions", "ciphertext"): "under the data key",
}


def test_every_column_of_bytes_is_either_wrapped_by_the_root_key_or_listed_here(vault: Vault) -> None:
    """A new column that is in neither list would be lost at the next change of the root key."""
    with vault.store.transaction() as db:
        tables = [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: db.execute("SELECT * FROM pragma_table_info(?)", (table,)).fetchall() for table in tables}
    found = {(table, row["name"]) for table, rows in columns.items() for row in rows if row["type"] == "BLOB"}
    assert found == {(table, column) for table, column, _ in WRAPPED} | set(OTHER_BYTES)


@pytest.mark.parametrize("words", [None, NEW])
def test_everything_opens_with_the_new_key_and_nothing_with_the_old(
    vault: Vault, agent: Agent, words: str | None
) -> None:
    paths = [agent.secret(agent.project(f"p{n}"), f"value-{n}") for n in range(3)]
    ids = [path.rpartition("/")[2] for path in paths]
    old_key = (vault.directory / "root.key").read_bytes()
    old = vault.store.keys
    with vault.store.transaction() as db:
        wrapped = {row["id"]: row["wrapped_key"] for row in db.execute("SELECT id, wrapped_key FROM projects")}
    vault.store.rekey(START_MS, words)
    assert [vault.value(secret_id) for secret_id in ids] == ["value-0", "value-1", "value-2"]
    agent.post(paths[0] + "/rotate")
    assert len(vault.value(ids[0])) == 32
    with vault.store.transaction() as db:
        for row in db.execute("SELECT id, wrapped_key FROM projects").fetchall():
            with pytest.raises(InvalidTag):
                old.unwrap(f"project-key:{row['id']}", row["wrapped_key"])
    for blob in wrapped.values():
        assert blob not in disk(vault.directory)
    assert old_key.strip() not in disk(vault.directory)
    assert [row["detail"] for row in vault.audited("vault_rekey")] == [
        f"new root key, kept by {'a key file' if words is None else 'a passphrase'}"
    ]
    vault.close()
    assert (vault.directory / "root.key").exists() == (words is None)
    with open_store(vault.directory, words) as store:
        assert not store.sealed
    (vault.directory / "root.key").write_bytes(old_key)
    (vault.directory / "root.key").chmod(0o600)
    if words is None:
        with pytest.raises(VaultError, match="belongs to another vault"):
            open_store(vault.directory)
        return
    with open_store(vault.directory) as store:
        assert store.sealed
    assert not (vault.directory / "root.key").exists()


def test_a_rekey_that_fails_changes_nothing(vault: Vault, agent: Agent) -> None:
    secret_id = agent.secret(agent.project(), "kept").rpartition("/")[2]
    with vault.store.transaction() as db:
        db.execute("CREATE TRIGGER broken BEFORE INSERT ON passphrase_seal BEGIN SELECT RAISE(ABORT, 'x'); END")
    with pytest.raises(Exception, match="x"):
        vault.store.rekey(START_MS, NEW)
    assert vault.value(secret_id) == "kept"
    vault.close()
    vault.open()
    assert vault.value(secret_id) == "kept"


def test_a_sealed_vault_cannot_be_rekeyed(vault: Vault) -> None:
    vault.store.rekey(START_MS, OLD)
    vault.store.seal(START_MS)
    with pytest.raises(Exception, match="the vault is sealed"):
        vault.store.rekey(START_MS, NEW)
    with open_store(vault.directory, OLD) as store:
        assert not store.sealed


@pytest.mark.parametrize(("before", "after"), [("file", "file"), ("file", NEW), (OLD, "file"), (OLD, NEW)])
def test_a_crash_at_any_point_leaves_a_vault_that_opens_with_one_of_the_two_keys(
    vault: Vault, agent: Agent, before: str, after: str
) -> None:
    for n in range(2):
        path = agent.secret(agent.project(f"p{n}"), f"value-{n}")
        agent.post(path + "/update", {"value": f"newer-{n}"})
    if before != "file":
        vault.store.rekey(START_MS, before)
    with vault.store.transaction() as db:
        db.execute("DROP TRIGGER audit_keeps_rows")
        db.execute("DELETE FROM audit")
    vault.close()
    command = [sys.executable, "-m", "tests.vault.support.rekey_crashes", str(vault.directory), before, after]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    vault.open()
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["calls"] > 10
    assert min(counts["old"], counts["new"]) > 3


def test_rekey_keeps_the_kind_of_protection_by_default(tmp_path: Path) -> None:
    directory = tmp_path / "vault"
    assert run_command(directory, "init")[0] == 0
    first = (directory / "root.key").read_bytes()
    status, out, err = run_command(directory, "rekey")
    assert (status, out) == (0, "new root key, protected by a key file\n")
    assert err == "hint: copies of the old key and the old vault.db, including backups, still open what they contain\n"
    second = (directory / "root.key").read_bytes()
    assert (len(second), second != first) == (65, True)
    line = ["--to", "passphrase", "--new-passphrase-file", "-"]
    assert run_command(directory, "rekey", *line, typed=OLD + "\n")[:2] == (
        0,
        "new root key, protected by a passphrase\n",
    )
    line = ["--passphrase-file", "-", "--new-passphrase-file", "-"]
    assert run_command(directory, "rekey", *line, typed=f"{NEW}\n{OLD}\n")[0] == 1
    assert run_command(directory, "rekey", *line, typed=f"{OLD}\n{NEW}\n")[0] == 0
    assert run_command(directory, "rekey", "--to", "key-file", *line, typed=f"{NEW}\n{OLD}\n")[0] == 1
    assert run_command(directory, "rekey", "--to", "key-file", *line[:2], typed=NEW + "\n")[0] == 0
    with open_store(directory) as store:
        assert not store.sealed


def test_rekey_is_refused_while_a_server_runs(tmp_path: Path) -> None:
    served = Spawned(tmp_path / "vault")
    before = (tmp_path / "vault" / "root.key").read_bytes()
    status, _, err = run_command(tmp_path / "vault", "rekey")
    message = f"vault: error: another server has {tmp_path / 'vault'} open\nhint: stop it, or name another --dir\n"
    assert (status, err) == (1, message)
    assert (tmp_path / "vault" / "root.key").read_bytes() == before
    assert served.end()[0] == 0


def test_a_wrapped_value_does_not_open_for_another_row() -> None:
    keys = Keyring(b"k" * 32)
    assert keys.unwrap("webhook-secret:a", keys.wrap("webhook-secret:a", b"x")) == b"x"
    with pytest.raises(InvalidTag):
        keys.unwrap("webhook-secret:b", keys.wrap("webhook-secret:a", b"x"))


def test_ciphertexts_have_the_documented_form() -> None:
    """A nonce of 96 bits, then the ciphertext of AES-256-GCM: vaults and backups of earlier versions stay readable."""
    key, label = b"k" * 32, b"value:sk_1:1"
    stored = bytes.fromhex("000102030405060708090a0b0bfd824f68a5e383a3dfe2445f130e6fe788ab55c13cb0")
    assert decrypt(key, stored, label) == b"a value"
    fresh = [encrypt(key, b"a value", label) for _ in range(2)]
    assert [len(blob) for blob in fresh] == [len(stored)] * 2
    assert fresh[0][:12] != fresh[1][:12]
