"""The database is changed from outside, as with `sqlite3 vault.db`: the vault refuses the data and tells its owner."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.vault.support.commands import run_command
from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.served_vault import NONCES, Agent, FakeClock, Vault, run_job
from vault import chain
from vault.domains import schedules, webhooks

GARBLED = "UPDATE secret_versions SET ciphertext = zeroblob(length(ciphertext))"
REFUSED = {"error": "data of this vault was changed from outside: its owner finds it in the audit log"}


def edit(vault: Vault, *statements: str) -> None:
    """Change the database with a connection that knows nothing of the vault."""
    with closing(sqlite3.connect(vault.directory / "vault.db", isolation_level=None)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount != 0, statement


def failures(vault: Vault) -> list[dict[str, Any]]:
    return vault.audited("integrity_failure")


# ---- values that do not decrypt --------------------------------------------------------------------------------------


@pytest.fixture
def secret(agent: Agent) -> str:
    return agent.secret(agent.project(), "the value")


@pytest.fixture
def machine(vault: Vault, secret: str) -> Machine:
    return granted_machine(vault, secret)


@pytest.mark.parametrize(
    "change",
    [
        GARBLED,
        "UPDATE secret_versions SET ciphertext = x'00'",
        "UPDATE secret_versions SET wrapped_key = 'text'",
        "UPDATE projects SET wrapped_key = zeroblob(60)",
        "DELETE FROM secret_versions",
    ],
)
def test_a_value_that_does_not_decrypt_is_a_critical_entry_with_ids(
    vault: Vault, secret: str, machine: Machine, change: str
) -> None:
    edit(vault, change)
    nonce = NONCES.next()
    path = f"/v1/secret/{secret.rpartition('/')[2]}"
    reply = machine.send("GET", path, nonce=nonce)
    assert (reply.status, reply.json) == (500, REFUSED)
    assert machine.send("GET", path, nonce=nonce).error == "the nonce was used before"
    (entry,) = failures(vault)
    ids = (entry["severity"], entry["machine_id"], entry["secret_id"], entry["project_id"])
    assert ids == ("critical", machine.id, secret.rpartition("/")[2], secret.split("/")[4])


def test_an_export_leaves_out_what_does_not_decrypt_and_tells_it(vault: Vault, agent: Agent, secret: str) -> None:
    other = agent.secret(secret.split("/")[4], "intact")
    machine = granted_machine(vault, secret, other)
    edit(vault, f"{GARBLED} WHERE secret_id = '{secret.rpartition('/')[2]}'")
    assert [row["value"] for row in machine.post("/v1/secrets/export", {})["secrets"]] == ["intact"]
    assert [row["secret_id"] for row in failures(vault)] == [secret.rpartition("/")[2]]


def test_an_agent_that_needs_such_a_value_is_refused_and_named(vault: Vault, agent: Agent, secret: str) -> None:
    edit(vault, GARBLED)
    assert agent.send("POST", secret + "/rollback", {"version": 1}).json == REFUSED
    edit(vault, "UPDATE projects SET wrapped_key = zeroblob(60)")
    body = {"name": "new", "value": "x"}
    assert agent.send("POST", secret.rpartition("/")[0], body).json == REFUSED
    assert [row["agent_id"] for row in failures(vault)] == [agent.id] * 2
    assert len(agent.get(secret.rpartition("/")[0])) == 1


def test_a_job_tells_it_and_goes_on_with_the_others(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    project_id = agent.project()
    schedule = {"projectId": project_id, "intervalSeconds": 3600, "fieldNames": ["a", "b"], "fields": ["a"]}
    ids = [
        agent.post("/v1/ai/dynamic-secrets", {**schedule, "name": name, "staticFields": {"b": "x"}})["secretId"]
        for name in ("one", "two")
    ]
    edit(vault, f"{GARBLED} WHERE secret_id = '{ids[0]}'")
    clock.advance(3600)
    run_job(schedules.rotate_due, vault.store, clock())
    assert [row["secret_id"] for row in failures(vault)] == ids[:1]
    assert [row["secret_id"] for row in vault.audited("secret_rotate")] == ids[1:]


def test_a_webhook_whose_secret_does_not_decrypt_is_switched_off(vault: Vault, agent: Agent, clock: FakeClock) -> None:
    hook = agent.post("/v1/ai/webhooks", {"url": "https://example.com/hook", "actions": ["project_create"]})
    agent.project()
    edit(vault, "UPDATE webhooks SET wrapped_secret = zeroblob(60)")
    run_job(webhooks.deliver_due, vault.store, clock())
    assert agent.get(f"/v1/ai/webhooks/{hook['id']}")["enabled"] is False
    assert [row["severity"] for row in failures(vault)] == ["critical"]


def test_a_new_root_key_is_refused_for_what_does_not_decrypt(vault: Vault, secret: str) -> None:
    edit(vault, "UPDATE projects SET wrapped_key = zeroblob(60)")
    message = f"vault: error: wrapped_key of projects {secret.split('/')[4]} was changed from outside"
    assert run_command(vault.directory, "rekey")[2].startswith(message)


# ---- the audit log ---------------------------------------------------------------------------------------------------

FREE = ("DROP TRIGGER audit_keeps_words", "DROP TRIGGER audit_keeps_rows", "DROP TRIGGER audit_replaces_nothing")
FREE_CHAIN = [
    f"DROP TRIGGER audit_chain_{name}" for name in ("keeps_rows", "keeps_hashes", "replaces_nothing")
]  # fmt: skip


def verify(vault: Vault, *arguments: str) -> str:
    """The error of the command, or nothing."""
    status, _, err = run_command(vault.directory, "verify", *arguments)
    assert status == (1 if err else 0)
    return err.partition("\n")[0]


def status_head(vault: Vault) -> str:
    return run_command(vault.directory, "status")[1].rpartition("head ")[2].strip()


@pytest.mark.parametrize(
    "replacement",
    [
        "INSERT OR REPLACE INTO audit VALUES (2, 'x', 'info', 'user', '', '', '', '', '', '', '', 0)",
        "REPLACE INTO audit SELECT * FROM audit WHERE id = 2",
        "INSERT OR REPLACE INTO audit_chain (id, hash) VALUES (2, x'00')",
    ],
)
@pytest.mark.usefixtures("secret")
def test_an_entry_cannot_be_replaced(vault: Vault, replacement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        edit(vault, replacement)
    assert verify(vault) == ""


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET detail = 'nothing' WHERE id = 2",
        "UPDATE audit SET detail = x'00ff' WHERE id = 2",
        "UPDATE audit SET created_ms = created_ms + 1 WHERE id = 2",
        "DELETE FROM audit WHERE id = 2",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
        "INSERT INTO audit VALUES (99, 'x', 'info', 'user', '', '', '', '', '', '', '', 0)",
    ],
)
@pytest.mark.usefixtures("secret")
def test_a_changed_log_does_not_verify(vault: Vault, change: str) -> None:
    assert verify(vault) == ""
    edit(vault, *FREE, change)
    assert verify(vault).startswith("vault: error: the audit log was changed at or before entry ")


@pytest.mark.usefixtures("secret")
def test_a_log_that_was_rewritten_with_its_chain_lacks_the_head_that_was_printed(vault: Vault) -> None:
    before = status_head(vault)
    assert verify(vault, "--head", before) == ""
    edit(vault, *FREE, *FREE_CHAIN, "UPDATE audit SET detail = 'nothing' WHERE id = 2", "DELETE FROM audit_chain")
    with vault.store.transaction() as db:
        chain.append(db, db.execute("SELECT * FROM audit ORDER BY id DESC LIMIT 1").fetchone())
    assert verify(vault, "--head", before) == (
        f"vault: error: the audit log does not contain the head {before}: it was changed or cut"
    )


@pytest.mark.usefixtures("secret")
def test_a_backup_prints_the_head_that_a_later_log_still_contains(vault: Vault, agent: Agent, tmp_path: Any) -> None:
    line = (str(tmp_path / "backup"), "--passphrase-file", "-")
    _, out, _ = run_command(vault.directory, "backup", *line, typed="several unrelated words\n")
    head = out.rpartition("head of the audit log ")[2].strip()
    agent.project("later")
    assert verify(vault, "--head", head) == ""
    assert run_command(vault.directory, "verify", "--head", "x")[0] == 2


def test_the_log_of_an_older_vault_is_covered_by_its_first_hash(vault: Vault, agent: Agent) -> None:
    edit(vault, *FREE_CHAIN, "DELETE FROM audit_chain")  # as before the chain was introduced
    agent.project()
    assert verify(vault) == ""
    edit(vault, *FREE, "UPDATE audit SET detail = 'nothing' WHERE id = 1")
    assert verify(vault).startswith("vault: error: the audit log was changed at or before entry ")
