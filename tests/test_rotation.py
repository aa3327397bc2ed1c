"""`rotate-key`: a new agent with a new key replaces an old one, and one of the two works at every moment."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
from sikkerkey_cli import agents, rotation
from tests.support.harness import AGENT_ID, VAULT_ID, CannedResponse, ReceivedRequest, Recorder, make_slot
from tests.support.shell import Shell

TOKEN = "c0ffee" * 10 + "cafe"
NEW_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
THIRD_ID = "2f8fad5b-d9cb-469f-a165-70867728950f"


class RotationVault:
    """Answers registrations and whoami, and revokes; `approved` says whether it knows the new agent."""

    def __init__(self, recorder: Recorder) -> None:
        self.approved, self.vault_id, self.revocation = False, VAULT_ID, 200
        self.new_id = NEW_ID
        self.revoked: list[str] = []
        self.recorder = recorder
        recorder.answer = self._answer

    def _answer(self, seen: ReceivedRequest) -> CannedResponse:
        if seen.path == "/v1/ai-bootstrap/register":
            members = {"agentId": self.new_id, "name": seen.json().get("name", ""), "vaultId": self.vault_id}
            return CannedResponse(201, json.dumps(members).encode())
        agent = seen.headers["x-agent-id"]
        if seen.path == "/v1/ai/whoami":
            if agent == self.new_id and not self.approved:
                return CannedResponse(403, b'{"error":"Agent is pending approval"}')
            return CannedResponse(200, json.dumps({"agentId": agent, "approved": True, "enabled": True}).encode())
        if self.revocation == 200:
            self.revoked.append(seen.path.split("/")[-2])
        return CannedResponse(self.revocation, b"{}")


@pytest.fixture
def vault(home: Path, recorder: Recorder) -> RotationVault:
    make_slot(home, recorder.url)
    return RotationVault(recorder)


def slots(home: Path) -> list[str]:
    return sorted(path.name for path in (home / ".sikkerkey" / "agents").iterdir())


def test_the_old_key_works_until_the_new_one_is_approved(shell: Shell, vault: RotationVault, home: Path) -> None:
    begun = shell("rotate-key", TOKEN)
    assert begun.status == 0, begun.err
    assert f"registered agent {NEW_ID}, which is to replace {AGENT_ID}" in begun.out
    assert vault.recorder.seen[0].json()["name"] == "test agent"
    assert slots(home) == [f".next-{NEW_ID}", AGENT_ID]
    assert sikkerkey_identity.choose_agent() == AGENT_ID
    assert "a new key waits until the vault's owner has approved it" in shell("whoami").err
    refused = shell("rotate-key", "--finish")
    assert refused.status == 1
    assert f"the vault does not accept agent {NEW_ID} yet; nothing was changed" in refused.err
    assert slots(home) == [f".next-{NEW_ID}", AGENT_ID]
    vault.approved = True
    finished = shell("rotate-key", "--finish")
    assert finished.status == 0, finished.err
    assert slots(home) == [NEW_ID]
    assert vault.revoked == [AGENT_ID]
    assert vault.recorder.seen[-1].headers["x-agent-id"] == NEW_ID
    for wanted in ("", AGENT_ID, NEW_ID):
        assert sikkerkey_identity.choose_agent(wanted) == NEW_ID
    identity = sikkerkey_identity.load_identity(NEW_ID)
    assert identity.key_path == str(home / ".sikkerkey" / "agents" / NEW_ID / "private.pem")


def test_old_ids_are_found_after_several_rotations(shell: Shell, vault: RotationVault) -> None:
    vault.approved = True
    for vault.new_id in (NEW_ID, THIRD_ID):
        assert shell("rotate-key", TOKEN).status == 0
        assert shell("rotate-key", "--finish").status == 0
    assert {sikkerkey_identity.choose_agent(wanted) for wanted in (AGENT_ID, NEW_ID, THIRD_ID)} == {THIRD_ID}


def test_a_running_server_follows(shell: Shell, vault: RotationVault, home: Path) -> None:
    vault.approved = True
    connections = [sikkerkey_mcp.AgentConnection(wanted) for wanted in ("", AGENT_ID)]
    for connection in connections:
        connection.api().close()
        assert connection.agent_id == AGENT_ID
    shell("rotate-key", TOKEN)
    assert [connection.api() and connection.agent_id for connection in connections] == [AGENT_ID] * 2
    shell("rotate-key", "--finish")
    assert [connection.api() and connection.agent_id for connection in connections] == [NEW_ID] * 2


class Killed(BaseException):
    """The program ends here."""


def killing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ends the program before the call of this number that changes a file or is sent."""
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*arguments, **options)

        return call

    for name in ("rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(sikkerkey_mcp.Api, "send", counted(sikkerkey_mcp.Api.send))


def test_after_every_interruption_one_agent_works_and_it_goes_on(
    shell: Shell, vault: RotationVault, home: Path, tmp_path: Path
) -> None:
    vault.approved = True
    (home / ".sikkerkey" / "agents" / AGENT_ID / "activity.jsonl").write_text("{}\n")
    shell("rotate-key", TOKEN)
    shutil.copytree(home / ".sikkerkey", tmp_path / "begun")
    number, interrupted = 0, True
    while interrupted:
        number += 1
        shutil.rmtree(home / ".sikkerkey")
        shutil.copytree(tmp_path / "begun", home / ".sikkerkey")
        vault.revoked.clear()
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, number)
            try:
                rotation.command_rotate_key(options(finish=True))
                interrupted = False
            except Killed:
                pass
        chosen = {sikkerkey_identity.choose_agent(wanted) for wanted in ("", AGENT_ID)}
        assert len(chosen) == 1, (number, chosen)
        sikkerkey_keys.signer_of(sikkerkey_identity.load_identity(str(chosen.pop())))
        if interrupted:
            ran = shell("rotate-key", "--finish")
            assert ran.status == 0, (number, ran.err)
        assert slots(home) == [NEW_ID], number
        assert vault.revoked == [AGENT_ID], number
    assert number >= 7
    assert (home / ".sikkerkey" / "agents" / NEW_ID / "activity.jsonl").exists()


def options(**given: Any) -> Any:
    from sikkerkey_cli import grammar

    words = [f"--{name}" for name, value in given.items() if value]
    return grammar.parse(["rotate-key", *words])


def test_an_agent_that_may_not_revoke_says_who_does(shell: Shell, vault: RotationVault, home: Path) -> None:
    vault.approved, vault.revocation = True, 403
    shell("rotate-key", TOKEN)
    ran = shell("rotate-key", "--finish")
    assert (ran.status, slots(home)) == (0, [NEW_ID])
    assert f"the vault still lists agent {AGENT_ID}, whose key is deleted" in ran.err
    assert "the vault's owner revokes it" in ran.err
    vault.revocation = 404
    again = shell("rotate-key", "--finish")
    assert (again.status, again.out) == (0, f"the vault does not list agent {AGENT_ID} any more\n")


def test_a_token_of_another_vault_replaces_nothing(shell: Shell, vault: RotationVault, home: Path) -> None:
    vault.vault_id = "vault_other"
    ran = shell("rotate-key", TOKEN)
    assert (ran.status, slots(home)) == (1, [AGENT_ID])
    assert "the token is of another vault; nothing was replaced" in ran.err


def test_the_new_key_is_protected_like_the_old_one(
    shell: Shell, vault: RotationVault, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "ask_new_passphrase", lambda _problem: "canary over the hills")
    path = home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(b"old")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    assert shell("rotate-key", TOKEN).status == 0
    new = home / ".sikkerkey" / "agents" / f".next-{NEW_ID}" / "private.pem"
    assert sikkerkey_identity.is_encrypted(new.read_bytes())


def test_wrong_usage_and_a_second_rotation_are_refused(shell: Shell, vault: RotationVault, home: Path) -> None:
    assert shell("rotate-key").status == 2
    assert shell("rotate-key", TOKEN, "--finish").status == 2
    assert "no new key waits for approval" in shell("rotate-key", "--finish").err
    shell("rotate-key", TOKEN)
    assert "waits for approval already" in shell("rotate-key", TOKEN).err
    assert shell("rotate-key", "--cancel").status == 0
    assert slots(home) == [AGENT_ID]


def test_an_old_id_does_not_revoke_the_new_agent(shell: Shell, vault: RotationVault, home: Path) -> None:
    vault.approved = True
    shell("rotate-key", TOKEN)
    shell("rotate-key", "--finish")
    ran = shell("revoke", AGENT_ID, "--yes")
    assert (ran.status, slots(home)) == (1, [NEW_ID])
    assert f"agent {AGENT_ID} was replaced by {NEW_ID}" in ran.err


def test_members_of_others_name_no_replaced_agent(home: Path, vault: RotationVault) -> None:
    path = home / ".sikkerkey" / "agents" / AGENT_ID / "identity.json"
    members = json.loads(path.read_text())
    malformed: list[Any] = ["x", [1, "../x", {}], None, {}]
    for listed in malformed:
        path.write_text(json.dumps({**members, "replaces": listed}))
        assert sikkerkey_identity.load_identity(AGENT_ID).replaces == []
