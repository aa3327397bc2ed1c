"""Migrations: nothing is lost, a failure changes nothing, and a copy of the old file is kept."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.vault.support.commands import run_command
from tests.vault.support.rekey_crashes import every_value
from vault import migrations
from vault.errors import VaultError
from vault.schema import open_store

VERSION_1 = (Path(__file__).parent / "schema_v1.sql").read_text()
ROOT_KEY = b"11" * 32


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of a vault with version 1 of the schema."""
    directory = tmp_path / "vault"
    directory.mkdir(mode=0o700)
    (directory / "root.key").write_bytes(ROOT_KEY)
    with closing(sqlite3.connect(directory / "vault.db")) as db:
        db.executescript(VERSION_1)
    for path in directory.iterdir():
        path.chmod(0o600)
    return directory


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables of version 1."""
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}  # noqa: S608


def schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        number: int = db.execute("PRAGMA user_version").fetchone()[0]
        return number


def test_a_vault_of_version_1_keeps_every_row_and_opens_every_value(old: Path) -> None:
    before = content(old / "vault.db")
    assert {name: len(before[name]) for name in ("secrets", "secret_versions", "ai_agents", "audit", "grants")} == {
        "secrets": 3,
        "secret_versions": 4,
        "ai_agents": 2,
        "audit": 7,
        "grants": 1,
    }
    with open_store(old) as store:
        with store.transaction() as db:
            db.execute("UPDATE secrets SET deleted_ms = NULL")
        values = sorted(every_value(store).values())
        with store.transaction() as db:
            db.execute("UPDATE secrets SET deleted_ms = 1767225600000 WHERE name = 'old'")
    assert values[1:] == [["first-value-of-version-1", "second-value-of-version-1"], ["trashed"]]
    assert (len(values[0][0]), values[0][0].isdecimal()) == (12, True)
    after = content(old / "vault.db")
    changed = {"audit", "sqlite_sequence", "vault"}  # the start of the seals is audited, and their key is stored
    assert {name: after[name] for name in before if name not in changed} == {
        name: rows for name, rows in before.items() if name not in changed
    }
    assert after["audit"][:7] == before["audit"]
    assert [row[1] for row in after["audit"][7:]] == ["integrity_start"]
    assert run_command(old, "verify")[0] == 0
    assert version(old / "vault.db") == migrations.SCHEMA_VERSION


def test_a_migrated_vault_has_the_schema_of_a_new_one(old: Path, tmp_path: Path) -> None:
    open_store(old).close()
    open_store(tmp_path / "new").close()
    assert schema(old / "vault.db") == schema(tmp_path / "new" / "vault.db")


def test_the_old_file_is_kept_with_private_permissions(old: Path) -> None:
    before = content(old / "vault.db")
    open_store(old).close()
    kept = old / "vault.db.schema-1"
    assert (content(kept), version(kept), oct(kept.stat().st_mode & 0o777)) == (before, 1, "0o600")
    kept.unlink()
    open_store(old).close()
    assert not kept.exists()


REBUILD = """
CREATE TABLE projects_next (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    colour TEXT NOT NULL
);
INSERT INTO projects_next SELECT *, 'blue' FROM projects;
DROP TABLE projects;
ALTER TABLE projects_next RENAME TO projects;
"""


def test_a_step_may_rebuild_a_table_that_others_refer_to(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(migrations, "STEPS", {1: (), 2: (REBUILD,)})
    with open_store(old) as store, store.transaction() as db:
        assert db.execute("SELECT name, colour FROM projects").fetchall()[0]["colour"] == "blue"
        assert db.execute("SELECT COUNT(*) FROM secrets").fetchone()[0] == 3
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert version(old / "vault.db") == 3


TAKEN_NAME = REBUILD.replace("RENAME TO projects", "RENAME TO nonces")


@pytest.mark.parametrize(
    ("step", "error"), [(TAKEN_NAME, sqlite3.OperationalError), ("DELETE FROM projects;", VaultError)]
)
def test_a_step_that_fails_changes_nothing(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[Exception]
) -> None:
    before, tables = content(old / "vault.db"), schema(old / "vault.db")
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "STEPS", {**migrations.STEPS, 1: (step,)})
        with pytest.raises(error):
            open_store(old)
    assert (content(old / "vault.db"), schema(old / "vault.db"), version(old / "vault.db")) == (before, tables, 1)
    with open_store(old) as store:
        assert not store.sealed


def test_nothing_is_migrated_while_a_server_runs(old: Path) -> None:
    handle = os.open(old / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(VaultError, match="an older server has"):
        open_store(old)
    assert version(old / "vault.db") == 1
    os.close(handle)
    open_store(old).close()
