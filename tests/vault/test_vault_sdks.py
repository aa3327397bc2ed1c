"""The SDK pages: their content, and examples that read a secret."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.served_vault import Agent, Vault
from vault.router import wall_clock

SDKS = "/v1/ai/sdks"
IDS = ["python", "node", "go", "dotnet", "kotlin"]


def test_every_language_is_listed_and_shown(agent: Agent) -> None:
    listed = agent.get(SDKS)
    assert [row["id"] for row in listed] == IDS
    for row in listed:
        page = agent.get(f"{SDKS}/{row['id']}")
        assert set(page) == {"id", "name", "packageName", "installCommand", "example"}
        assert {**page, **row} == page
        assert "/v1/secret/" in page["example"] or page["packageName"]
        assert "://" not in json.dumps(page)
    assert listed[0] == {"id": "python", "name": "Python", "packageName": "sikkerkey"}


def test_no_scope_is_needed_and_an_unknown_language_is_not_found(vault: Vault) -> None:
    scopeless = vault.agent(("support.write",))
    assert scopeless.get(f"{SDKS}/python")["installCommand"] == "pip install sikkerkey"
    reply = scopeless.send("GET", f"{SDKS}/perl")
    assert (reply.status, reply.error) == (404, f"no such SDK: there are {', '.join(IDS)}")


def settled(home: Path, vault: Vault, machine: Machine) -> None:
    """The machine's identity files in the format of the clients."""
    slot = home / ".sikkerkey" / "vaults" / vault.store.vault_id
    slot.mkdir(parents=True, mode=0o700)
    key = slot / "private.pem"
    key.write_bytes(machine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    names = {"machineId": machine.id, "machineName": "web-1", "vaultId": vault.store.vault_id}
    identity = {**names, "apiUrl": f"http://localhost:{vault.port}", "privateKeyPath": str(key)}
    (slot / "identity.json").write_text(json.dumps(identity))


COMMANDS = {
    "python": ([sys.executable, "-"], "\nprint(value)\n"),
    "node": (["node", "--input-type=module", "-"], "\nconsole.log(value)\n"),
}


@pytest.mark.parametrize("sdk", COMMANDS)
def test_the_example_reads_a_secret(vault: Vault, agent: Agent, home: Path, sdk: str) -> None:
    command, ending = COMMANDS[sdk]
    if shutil.which(command[0]) is None or (sdk == "python" and sys.version_info < (3, 10)):
        pytest.skip(f"nothing here runs the {sdk} example")
    vault.clock.now_ms = wall_clock()  # the example takes the time from its machine
    secret = agent.secret(agent.project(), "the value")
    settled(home, vault, granted_machine(vault, secret))
    example = agent.get(f"{SDKS}/{sdk}")["example"] + ending
    source = example.replace("VAULT_ID", vault.store.vault_id).replace("SECRET_ID", secret.rpartition("/")[2])
    run = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "the value", "")
