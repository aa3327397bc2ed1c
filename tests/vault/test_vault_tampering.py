"""The database is changed from outside, as with `sqlite3 vault.db`: the vault refuses the data and tells its owner."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from typing import Any, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.commands import run_command
from tests.vault.support.machines import TOKENS, Machine, enroll, granted_machine, pending_machine, token_body
from tests.vault.support.served_vault import (
    NONCES,
    START_MS,
    Agent,
    FakeClock,
    Reply,
    Vault,
    public_bytes,
    run_job,
)
from vault import chain, seals
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
    assert "CHANGED FROM OUTSIDE: 1 times, listed by: " in run_command(vault.directory, "status")[1]


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
        f"vault: error: the audit log does not contain the head {before}: it was changed or truncated"
    )


@pytest.mark.usefixtures("secret")
def test_a_backup_prints_the_head_that_a_later_log_still_contains(vault: Vault, agent: Agent, tmp_path: Any) -> None:
    line = (str(tmp_path / "backup"), "--passphrase-file", "-")
    _, out, _ = run_command(vault.directory, "backup", *line, typed="several unrelated words\n")
    head = out.rpartition("head of the audit log ")[2].strip()
    assert json.loads(run_command(vault.directory, "verify", "--json")[1])["auditHead"] == head
    agent.project("later")
    assert verify(vault, "--head", head) == ""
    assert run_command(vault.directory, "verify", "--head", "x")[0] == 2


def test_the_log_of_an_older_vault_is_covered_by_its_first_hash(vault: Vault, agent: Agent) -> None:
    edit(vault, *FREE_CHAIN, "DELETE FROM audit_chain")  # as before the chain was introduced
    agent.project()
    assert verify(vault) == ""
    edit(vault, *FREE, "UPDATE audit SET detail = 'nothing' WHERE id = 1")
    assert verify(vault).startswith("vault: error: the audit log was changed at or before entry ")


# ---- rows that decide who may read what ------------------------------------------------------------------------------


def ident(path: str) -> str:
    return path.rpartition("/")[2]


class Scene:
    """What an attacker could change: secrets, canaries, a policy, a freeze, machines, agents, a token, an address."""

    def __init__(self, vault: Vault, agent: Agent) -> None:
        self.vault, self.agent = vault, agent
        self.project, self.frozen = agent.project(), agent.project("frozen")
        self.secret, self.bound = agent.secret(self.project, "leaked"), agent.secret(self.project, "bound")
        self.locked = agent.secret(self.frozen, "locked")
        agent.post(self.secret + "/update", {"value": "current"})
        self.granted = granted_machine(vault, self.secret, self.bound, self.locked)
        self.other, self.pending = granted_machine(vault), pending_machine(vault, "late")
        self.thief = Machine(vault.port, vault.clock, self.granted.id, Ed25519PrivateKey.generate())
        policies = f"/v1/ai/projects/{self.project}/policies"
        self.policy = agent.post(policies, {"name": "once", "ttlMaxReads": 1})["id"]
        agent.post(f"/v1/ai/secrets/{ident(self.bound)}/binding", {"policyId": self.policy})
        self.granted.value(self.bound)  # the only read that the policy allows
        self.canary, bait = self._canary(self.project), self._canary(self.frozen)
        self.finder = granted_machine(vault, self.canary)
        granted_machine(vault, bait).value(bait)  # freezes the project
        self.token = agent.post(TOKENS, token_body(projectIds=[self.project], maxUses=9))["token"]
        self.narrow, self.disabled = vault.agent(("projects.read",), [self.project]), vault.agent()
        run_command(vault.directory, "disable", self.disabled.id)
        agent.post("/v1/ai/ipallowlist", {"cidr": "127.0.0.1/32"})
        agent.post("/v1/ai/ipallowlist/enable")

    def _canary(self, project_id: str) -> str:
        made = self.agent.post("/v1/ai/canaries", {"projectId": project_id, "name": "bait"})["id"]
        return f"/v1/ai/projects/{project_id}/secrets/{made}"

    def change(self, statements: str) -> None:
        """Run the statements of an attacker, with the ids that they name in braces."""
        ids = {name: ident(value) for name, value in vars(self).items() if isinstance(value, str)}
        callers = {name: value.id for name, value in vars(self).items() if isinstance(value, Agent)}
        key = base64.b64decode(public_bytes(self.thief.key)).hex()
        edit(self.vault, *(each.format(**ids, **callers, key=key) for each in statements.split(";")))


# What an attacker changes, and who then tries what.
ATTACKS: list[tuple[str, Callable[[Scene], Reply]]] = [
    ("UPDATE secrets SET version = 1 WHERE id = '{secret}'", lambda scene: scene.granted.read(scene.secret)),
    ("UPDATE secrets SET kind = 'secret' WHERE id = '{canary}'", lambda scene: scene.finder.read(scene.canary)),
    ("UPDATE canaries SET enabled = 0", lambda scene: scene.finder.read(scene.canary)),
    ("DELETE FROM canaries", lambda scene: scene.finder.read(scene.canary)),
    (
        "INSERT INTO project_machines VALUES ('{project}', '{other}', 0);"
        "INSERT INTO grants VALUES ('{other}', '{secret}', 0)",
        lambda scene: scene.other.read(scene.secret),
    ),
    ("UPDATE machines SET public_key = x'{key}' WHERE id = '{granted}'", lambda scene: scene.thief.read(scene.secret)),
    ("UPDATE machines SET approved_ms = 1 WHERE id = '{pending}'", lambda scene: scene.pending.read(scene.secret)),
    ("UPDATE machines SET expires_ms = 9e12 WHERE id = '{granted}'", lambda scene: scene.granted.read(scene.secret)),
    ("DELETE FROM policy_bindings", lambda scene: scene.granted.read(scene.bound)),
    ("UPDATE policies SET rules = '[]'", lambda scene: scene.granted.read(scene.bound)),
    ("DELETE FROM project_freezes", lambda scene: scene.granted.read(scene.locked)),
    ("UPDATE ip_allowlist_switch SET enabled = 0", lambda scene: scene.granted.read(scene.secret)),
    ("UPDATE ip_allowlist SET cidr = '127.0.0.0/8'", lambda scene: scene.granted.read(scene.secret)),
    ("DELETE FROM seals WHERE kind = 'secret'", lambda scene: scene.granted.read(scene.secret)),
    ("UPDATE seals SET mac = x'' WHERE kind = 'machine'", lambda scene: scene.granted.read(scene.secret)),
    ("UPDATE ai_agents SET scopes = '[\"machines.write\"]' WHERE id = '{narrow}'", lambda scene: whoami(scene.narrow)),
    ("UPDATE ai_agents SET restricted = 0 WHERE id = '{narrow}'", lambda scene: whoami(scene.narrow)),
    ("INSERT INTO agent_projects VALUES ('{narrow}', '{frozen}')", lambda scene: whoami(scene.narrow)),
    (
        "DELETE FROM agents_disabled_by_owner; UPDATE ai_agents SET enabled = 1 WHERE id = '{disabled}'",
        lambda scene: whoami(scene.disabled),
    ),
    ("UPDATE enrollment_tokens SET max_uses = 99", lambda scene: enroll(scene.vault, scene.token)),
    (
        "INSERT INTO enrollment_secrets SELECT id, '{secret}' FROM enrollment_tokens",
        lambda scene: enroll(scene.vault, scene.token),
    ),
    (
        "INSERT INTO enrollment_projects SELECT id, '{frozen}' FROM enrollment_tokens",
        lambda scene: enroll(scene.vault, scene.token),
    ),
]


def whoami(agent: Agent) -> Reply:
    return agent.send("GET", "/v1/ai/whoami")


def test_no_request_rests_on_a_row_that_was_changed(vault: Vault, agent: Agent) -> None:
    scene = Scene(vault, agent)
    assert verify(vault) == ""
    vault.store.close()
    saved = (vault.directory / "vault.db").read_bytes()
    for statements, attempt in ATTACKS:
        (vault.directory / "vault.db").write_bytes(saved)
        vault.open()
        scene.change(statements)
        reply = attempt(scene)
        assert (reply.status, reply.json) == (500, REFUSED), statements
        (entry,) = failures(vault)
        assert entry["severity"] == "critical", statements
        assert "does not match its seal" in entry["detail"], statements
        assert verify(vault).endswith("was changed from outside, or while the vault was sealed"), statements
        vault.store.close()
    vault.open()


def test_a_later_change_by_the_vault_does_not_cover_up_an_edit(vault: Vault, agent: Agent, secret: str) -> None:
    machine, project_id = granted_machine(vault, secret), secret.split("/")[4]
    bound = agent.secret(project_id, "bound")
    edit(vault, "UPDATE secrets SET version = 7", "UPDATE machines SET expires_ms = 9e12")
    agent.post(secret + "/update", {"value": "new"})
    policy = agent.post(f"/v1/ai/projects/{project_id}/policies", {"name": "none"})["id"]
    agent.post(f"/v1/ai/secrets/{ident(bound)}/binding", {"policyId": policy})  # the row itself stays as it is
    with vault.store.transaction() as db:
        db.execute("UPDATE machines SET approved_ms = approved_ms + 1")
        assert not seals.matches(db, "secret", ident(secret))
        assert not seals.matches(db, "secret", ident(bound))
        assert not seals.matches(db, "machine", machine.id)


def test_a_deleted_row_is_found_by_its_seal(vault: Vault, agent: Agent) -> None:
    scene = Scene(vault, agent)
    edit(vault, "DELETE FROM ip_allowlist_switch")
    assert verify(vault).startswith("vault: error: address list 1 was changed from outside")
    assert scene.granted.value(scene.secret) == "current"


# Tables without seals, and why no row of theirs lets anyone read more.
UNSEALED = {
    "vault", "passphrase_seal", "sqlite_sequence", "seals",  # the key itself, and what is compared
    "audit", "audit_chain", "agent_reads", "made", "alerts", "alert_actions", "alert_totals", "nonces",
    "forgotten_windows", "share_misses", "refusal_counts", "agent_usage", "totals",
    "secret_versions", "webhooks", "webhook_actions", "webhook_deliveries", "webhook_results",  # encrypted, or signed
    "temporary_secrets", "alerts_seen",
    "rotation_schedules", "machine_versions", "policy_reads", "cosign_requests", "agent_names", "machine_names",
    "bootstrap_tokens",  # an agent that registers is pending, and the owner sees its scopes
    "team_members", "team_invites", "project_members", "owner", "tickets", "ticket_messages", "ticket_attachments",
}  # fmt: skip


def test_every_table_is_sealed_or_listed_here(vault: Vault) -> None:
    with vault.store.transaction() as db:
        tables = {row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    sealed = {guard.table for guard in seals.GUARDS}
    sealed |= {guard.satellite.table for guard in seals.GUARDS if guard.satellite is not None}
    assert tables == sealed | UNSEALED
    assert not sealed & UNSEALED


@pytest.mark.usefixtures("secret")
def test_a_log_that_was_cut_together_with_its_chain_does_not_verify(vault: Vault) -> None:
    newest = [
        "DELETE FROM audit_chain WHERE id = (SELECT max(id) FROM audit)",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
    ]
    edit(vault, *FREE, *FREE_CHAIN, *newest)
    assert verify(vault) == "vault: error: the audit log was truncated: its newest sealed entry is missing"


def test_what_the_owner_grants_in_a_vault_with_a_passphrase_takes_the_passphrase(vault: Vault, agent: Agent) -> None:
    words = "several unrelated words"
    vault.store.rekey(START_MS, words)
    pending, late = vault.pending(), pending_machine(vault, "late")
    assert run_command(vault.directory, "approve", pending.id, "--passphrase-file", "-", typed="wrong words here\n")[0]
    assert whoami(pending).error == "Agent is pending approval"
    for each in (pending, late):
        assert run_command(vault.directory, "approve", each.id, "--passphrase-file", "-", typed=f"{words}\n")[0] == 0
    assert (whoami(pending).status, late.send("GET", "/v1/secrets").status) == (200, 200)
    assert run_command(vault.directory, "disable", pending.id)[0] == 0
    assert whoami(pending).error == "Agent is disabled"
    edit(vault, "DELETE FROM agents_disabled_by_owner", "UPDATE ai_agents SET enabled = 1")
    assert whoami(pending).json == REFUSED
    assert run_command(vault.directory, "enable", pending.id, "--passphrase-file", "-", typed=f"{words}\n")[0] == 0
    assert whoami(pending).status == whoami(agent).status == 200
    verified = run_command(vault.directory, "verify", "--passphrase-file", "-", typed=f"{words}\n")
    assert (verified[0], verified[1].startswith("intact: ")) == (0, True)
    assert run_command(vault.directory, "verify")[2].startswith("hint: the seals of rows are not checked")


def test_no_agent_approves_a_machine_that_the_open_vault_did_not_register(vault: Vault, agent: Agent) -> None:
    late = pending_machine(vault, "late")
    edit(vault, "UPDATE machines SET kind = 'temp'")
    reply = agent.send("POST", f"/v1/ai/machines/{late.id}/approve")
    assert (reply.status, reply.error) == (
        409,
        "only the owner can approve this machine: it was not registered by the open vault",
    )


def test_a_new_root_key_keeps_the_seals(vault: Vault, agent: Agent, secret: str) -> None:
    machine = granted_machine(vault, secret)
    vault.store.rekey(START_MS, None)
    assert verify(vault) == ""
    assert machine.value(secret) == "the value"
    agent.post(secret + "/update", {"value": "new"})
    assert machine.value(secret) == "new"


def test_entries_of_a_sealed_vault_are_told_apart(vault: Vault, agent: Agent) -> None:
    vault.store.seal(START_MS)
    assert whoami(agent).status == 503
    hint = "hint: the last 1 entries have no seal: they should date from a time when the vault was sealed\n"
    assert run_command(vault.directory, "verify")[::2] == (0, hint)
    vault.store.unseal(START_MS, None)
    assert whoami(agent).status == 200
    agent.project()
    assert run_command(vault.directory, "verify")[::2] == (0, "")
