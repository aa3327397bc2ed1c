"""Backup and restore: nothing is lost or overwritten, and the file contains no unencrypted key."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.vault.support.commands import run_command
from tests.vault.support.rekey_crashes import every_value
from tests.vault.support.served_vault import START_MS, Agent, Spawned, Vault
from vault import backup, migrations
from vault.errors import VaultError
from vault.schema import open_store
from vault.store import Store

WORDS, OTHER = "several words for the backup", "other words for the vault"


def filled(agent: Agent) -> None:
    """Create two projects, a secret with three versions, and a webhook with a wrapped signing secret."""
    for name in ("one", "two"):
        path = agent.secret(agent.project(name), f"value of {name}")
        agent.post(path + "/update", {"value": f"newer value of {name}"})
        agent.post(path + "/rotate")
    agent.post("/v1/ai/webhooks", {"url": "http://127.0.0.1:9/hook", "actions": ["secret_create"]})


def everything(store: Store) -> dict[str, object]:
    """All values and all signing secrets of webhooks."""
    with store.transaction() as db:
        rows = db.execute("SELECT id, wrapped_secret FROM webhooks").fetchall()
    hooks = {row["id"]: store.keys.unwrap(f"webhook:{row['id']}", row["wrapped_secret"]) for row in rows}
    return {**every_value(store), **hooks}


def refusal(*arguments: object) -> tuple[str, str]:
    with pytest.raises(VaultError) as caught:
        backup.backup(*arguments)  # type: ignore[arg-type]  # a test of one refusal each
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize("has_passphrase", [False, True])
def test_a_restored_backup_contains_every_value(
    vault: Vault, agent: Agent, tmp_path: Path, has_passphrase: bool
) -> None:
    filled(agent)
    if has_passphrase:
        vault.store.rekey(START_MS, WORDS)
    expected = everything(vault.store)
    assert len(expected) == 3
    backup.backup(vault.store, tmp_path / "saved", START_MS, None if has_passphrase else WORDS)
    agent.post("/v1/ai/projects", {"name": "later"})
    assert backup.restore(tmp_path / "saved", tmp_path / "new", START_MS) == vault.store.vault_id
    with open_store(tmp_path / "new") as store:
        assert store.sealed
    with pytest.raises(VaultError, match="the passphrase is wrong"):
        open_store(tmp_path / "new", OTHER)
    with open_store(tmp_path / "new", WORDS) as store:
        assert everything(store) == expected
        with store.transaction() as db:
            names = [row["name"] for row in db.execute("SELECT name FROM projects ORDER BY name")]
            ends = [row["action"] for row in db.execute("SELECT action FROM audit ORDER BY id DESC LIMIT 2")]
        store.rekey(START_MS, None)
        assert everything(store) == expected
    assert (names, ends) == (["one", "two"], ["vault_restore", "vault_backup"])
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "new").iterdir()} == {"0o600"}


def test_a_sealed_vault_can_be_backed_up(vault: Vault, agent: Agent, tmp_path: Path) -> None:
    filled(agent)
    vault.store.rekey(START_MS, WORDS)
    expected = everything(vault.store)
    vault.store.seal(START_MS)
    backup.backup(vault.store, tmp_path / "saved", START_MS, None)
    backup.restore(tmp_path / "saved", tmp_path / "new", START_MS)
    with open_store(tmp_path / "new", WORDS) as store:
        assert everything(store) == expected


def test_the_original_keeps_its_key_file_and_the_backup_holds_no_key(
    vault: Vault, agent: Agent, tmp_path: Path
) -> None:
    filled(agent)
    root_key = (vault.directory / "root.key").read_bytes().strip()
    backup.backup(vault.store, tmp_path / "saved", START_MS, WORDS)
    saved = (tmp_path / "saved").read_bytes()
    for secret in (root_key, bytes.fromhex(root_key.decode()), WORDS.encode(), b"value of one"):
        assert secret not in saved
    assert not vault.store.has_passphrase
    vault.close()
    vault.open()
    assert not vault.store.sealed


def test_a_backup_is_one_private_file_without_leftovers(vault: Vault, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "saved"
    target.parent.mkdir()
    backup.backup(vault.store, target, START_MS, WORDS)
    assert [path.name for path in target.parent.iterdir()] == ["saved"]
    assert oct(target.stat().st_mode & 0o777) == "0o600"


def test_the_name_of_a_finished_backup_is_on_the_disk(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "saved"
    sizes = []
    monkeypatch.setattr(backup, "sync_directory", lambda path: sizes.append((path, target.stat().st_size)))
    backup.backup(vault.store, target, START_MS, WORDS)
    assert sizes == [(tmp_path, target.stat().st_size)]
    assert sizes[0][1] > 0


def test_nothing_is_overwritten(vault: Vault, tmp_path: Path) -> None:
    target = tmp_path / "saved"
    target.write_bytes(b"precious")
    hint = "name a new file: backups are never overwritten"
    assert refusal(vault.store, target, START_MS, WORDS) == (f"file {target} exists", hint)
    assert target.read_bytes() == b"precious"
    target.unlink()
    backup.backup(vault.store, target, START_MS, WORDS)
    with pytest.raises(VaultError, match="is not empty"):
        backup.restore(target, vault.directory, START_MS)


def test_a_backup_that_fails_leaves_no_file(vault: Vault, tmp_path: Path) -> None:
    with vault.store.transaction() as db:
        db.execute("CREATE TRIGGER broken BEFORE INSERT ON passphrase_seal BEGIN SELECT RAISE(ABORT, 'x'); END")
    (tmp_path / "backups").mkdir()
    with pytest.raises(sqlite3.IntegrityError):
        backup.backup(vault.store, tmp_path / "backups" / "saved", START_MS, WORDS)
    assert list((tmp_path / "backups").iterdir()) == []
    missing = tmp_path / "missing" / "saved"
    assert refusal(vault.store, missing, START_MS, WORDS)[0].startswith(f"file {missing} cannot be created")


def test_only_a_vault_with_a_key_file_takes_a_backup_passphrase(vault: Vault, tmp_path: Path) -> None:
    assert refusal(vault.store, tmp_path / "saved", START_MS, None)[0].startswith("the passphrase must have 12 to 1024")
    vault.store.rekey(START_MS, OTHER)
    words = "the vault's own passphrase opens the backup"
    assert refusal(vault.store, tmp_path / "saved", START_MS, WORDS)[0] == words
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("content", [b"", b"something else" * 500, None])
def test_an_invalid_backup_is_refused(vault: Vault, tmp_path: Path, content: bytes | None) -> None:
    """None: the database of a vault without its root key."""
    source = tmp_path / "source"
    if content is None:
        vault.store.copy_to(source)
    else:
        source.write_bytes(content)
    with pytest.raises(VaultError, match="is not an intact backup"):
        backup.restore(source, tmp_path / "new", START_MS)
    with pytest.raises(VaultError, match="there is no file"):
        backup.restore(tmp_path / "nothing", tmp_path / "new", START_MS)
    assert not (tmp_path / "new").exists()


def test_a_damaged_backup_is_refused(vault: Vault, agent: Agent, tmp_path: Path) -> None:
    filled(agent)
    backup.backup(vault.store, tmp_path / "saved", START_MS, WORDS)
    content = bytearray((tmp_path / "saved").read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 200] = b"\xff" * 200
    (tmp_path / "saved").write_bytes(content)
    with pytest.raises(VaultError, match="is not an intact backup"):
        backup.restore(tmp_path / "saved", tmp_path / "new", START_MS)


def test_a_backup_during_writes_is_consistent(vault: Vault, agent: Agent, tmp_path: Path) -> None:
    project_id, stop, acknowledged = agent.project(), threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            acknowledged.append(agent.secret(project_id, "x" * 1000))

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    with open_store(vault.directory) as other:
        for n in range(3):
            before = len(acknowledged)
            backup.backup(other, tmp_path / f"saved{n}", START_MS, WORDS)
            counts.append((before, n))
    stop.set()
    writer.join()
    for before, n in counts:
        backup.restore(tmp_path / f"saved{n}", tmp_path / f"new{n}", START_MS)
        with open_store(tmp_path / f"new{n}", WORDS) as store:
            values = every_value(store)
            assert before <= len(values) <= len(acknowledged)
            assert all(versions == ["x" * 1000] for versions in values.values())


def test_a_restore_that_fails_can_be_tried_again(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, directory = tmp_path / "saved", tmp_path / "new"
    backup.backup(vault.store, saved, START_MS, WORDS)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", migrations.SCHEMA_VERSION - 1)  # an older program
    with pytest.raises(VaultError, match="this program knows"):
        backup.restore(saved, directory, START_MS)
    assert list(directory.iterdir()) == []
    monkeypatch.undo()
    assert backup.restore(saved, directory, START_MS) == vault.store.vault_id


def test_backup_and_restore_from_the_command_line_while_the_server_runs(tmp_path: Path) -> None:
    directory, saved = tmp_path / "vault", tmp_path / "saved"
    served = Spawned(directory)
    line = [str(saved), "--passphrase-file", "-", "--json"]
    status, out, err = run_command(directory, "backup", *line, typed=WORDS + "\n")
    made = json.loads(out)
    assert (status, made) == (0, {**made, "file": str(saved), "bytes": saved.stat().st_size})
    assert err.startswith("hint: the backup opens only with that passphrase\nhint: save the head elsewhere")
    assert saved.stat().st_mode & 0o777 == 0o600
    assert run_command(directory, "verify", "--head", made["auditHead"])[0] == 0
    assert served.end()[0] == 0
    assert run_command(tmp_path / "new", "restore", str(saved))[:2] == (0, f"restored {made['vaultId']}\n")
    assert (
        run_command(tmp_path / "new", "rekey", "--to", "key-file", "--passphrase-file", "-", typed=WORDS + "\n")[0] == 0
    )
    served = Spawned(tmp_path / "new")
    assert served.end() == (0, "", "")
