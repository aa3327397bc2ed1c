"""Plaintext: marked values must not appear in any answer, any log or any byte on disk."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vault.support.served_vault import ROOT, START_MS, Agent, Reply, Spawned, Vault, disk, encoded, run_job
from tests.vault.support.webhook_receiver import Receiver
from vault import backup, control
from vault.control import Control
from vault.crypto import Envelope
from vault.domains.webhooks import deliver_due_to_loopback
from vault.errors import VaultError
from vault.schema import ROUTES, open_store
from vault.store import Store

MARK = "MARKED-value-9d1c"


class RecordingAgent:
    """An agent that records all answers."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.answers = b""

    def send(self, method: str, path: str, body: object = None) -> Reply:
        reply = self.agent.send(method, path, body)
        self.answers += repr(sorted(reply.headers.items())).encode() + reply.raw
        return reply


def drive_values(agent: RecordingAgent, project_id: str) -> list[str]:
    """Send values in every possible way, valid and invalid, and return the ids of the secrets."""
    base, dynamic = f"/v1/ai/projects/{project_id}/secrets", "/v1/ai/dynamic-secrets"
    shared = f"/v1/ai/projects/{project_id}/temporary-secrets"
    agent.send("POST", shared, {"name": "shared", "value": MARK, "expiresInSeconds": 60})
    pair = json.dumps({"user": MARK, "pass": MARK})
    plain = agent.send("POST", base, {"name": "plain", "value": MARK}).json["id"]
    double = agent.send("POST", base, {"name": "two", "value": pair, "fieldNames": ["user", "pass"]}).json["id"]
    static = {"fieldNames": ["user", "pass"], "staticFields": {"user": MARK}}
    made = agent.send(
        "POST", dynamic, {"projectId": project_id, "name": "made", "intervalSeconds": 300, **static}
    ).json["secretId"]
    agent.send("POST", f"{base}/{plain}/update", {"value": MARK + "2"})
    agent.send("POST", f"{base}/{plain}/rollback", {"version": 1})
    agent.send("POST", f"{base}/{double}/rotate", {"fields": ["pass"]})
    agent.send("POST", f"{base}/{made}/rotate", {})
    wrong = [
        (shared, {"name": "x", "value": MARK, "expiresInSeconds": 1}),
        (shared, {"name": "x", "value": MARK, "expiresInSeconds": 60, "generateRandom": True}),
        (shared, {"name": "x", "value": MARK * 10_000, "expiresInSeconds": 60}),
        (shared, {"name": "x", "value": MARK + "\0", "expiresInSeconds": 60}),
        (base, {"name": "x", "value": [MARK]}),
        (base, {"name": "x", "value": MARK * 1000}),
        (base, {"name": "x", "value": MARK, "fieldNames": ["a"]}),
        (base, {"name": "x", "secret": MARK}),
        (base, {"name": "x", "value": "x", "note": {"k": MARK}}),
        (base, encoded({"name": "x", "value": MARK})[:-1]),
        (f"{base}/{made}/update", {"value": MARK}),
        (f"{base}/{double}/update", {"value": MARK}),
        (f"{base}/sk_doesnotexist/update", {"value": MARK}),
        (dynamic, {"projectId": project_id, "name": "x", "intervalSeconds": 300, "staticFields": {"a": MARK}}),
        (dynamic, {"secretId": plain, "intervalSeconds": 300, "staticFields": {"a": MARK}}),
    ]
    for path, body in wrong:
        assert 400 <= agent.send("POST", path, body).status < 500
    return [plain, double, made]


@pytest.mark.parametrize("broken", [False, True])
def test_no_answer_log_or_byte_on_disk_holds_a_value(
    vault: Vault, agent: Agent, capfd: pytest.CaptureFixture[str], broken: bool
) -> None:
    recording, project_id = RecordingAgent(agent), agent.project()
    ids = drive_values(recording, project_id)
    assert MARK in vault.value(ids[0])
    if broken:
        with vault.store.transaction() as db:
            db.execute("CREATE TRIGGER broken BEFORE INSERT ON secret_versions BEGIN SELECT RAISE(ABORT, 'x'); END")
        path = f"/v1/ai/projects/{project_id}/secrets"
        assert recording.send("POST", path, {"name": "x", "value": MARK}).status == 500
    made = [vault.value(secret_id) for secret_id in ids]
    for route in ROUTES:
        for secret_id in ids:
            path = route.path.replace("{projectId}", project_id).replace("{secretId}", secret_id)
            recording.send(route.method, re.sub(r"\{\w+\}", "x0123456789", path))
    secrets = [MARK, *made, *(part for value in made[1:] for part in json.loads(value).values())]
    output = "".join(capfd.readouterr())
    for secret in secrets:
        assert secret.encode() not in recording.answers
        assert secret.encode() not in disk(vault.directory)
        assert secret not in output


def test_generated_tokens_are_shown_once_and_never_stored(
    vault: Vault, agent: Agent, capfd: pytest.CaptureFixture[str]
) -> None:
    recording, project_id = RecordingAgent(agent), agent.project()
    with Receiver() as receiver:
        body = {"url": f"http://127.0.0.1:{receiver.port}/", "actions": ["temporary_secret_create", "webhook_update"]}
        hook = agent.post("/v1/ai/webhooks", body)
        share = {"name": "x", "value": MARK, "expiresInSeconds": 60}
        link = agent.post(f"/v1/ai/projects/{project_id}/temporary-secrets", share)
        receiver.statuses = [500]
        run_job(deliver_due_to_loopback, vault.store, START_MS)
        recording.send("POST", f"/v1/ai/webhooks/{hook['id']}/update", {"enabled": True})
        recording.send("POST", f"/v1/ai/webhooks/{hook['id']}/test")
        run_job(deliver_due_to_loopback, vault.store, START_MS)
    for route in ROUTES:
        path = route.path.replace("{projectId}", project_id).replace("{webhookId}", hook["id"])
        recording.send(route.method, re.sub(r"\{\w+\}", "x0123456789", path))
    sent = b"".join(received.body + repr(received.headers).encode() for received in receiver.received)
    assert len(receiver.received) == 4
    seen = recording.answers + sent + disk(vault.directory) + "".join(capfd.readouterr()).encode()
    minted = [hook["signingSecret"], link["token"], link["passphrase"], link["passphrase"].replace("-", ""), MARK]
    assert [secret for secret in minted if secret.encode() in seen] == []


def test_intermediate_keys_are_never_on_disk_unencrypted(vault: Vault, agent: Agent) -> None:
    agent.secret(agent.project(), MARK)
    keyring = vault.store.keys
    with vault.store.transaction() as db:
        row = db.execute("SELECT id, wrapped_key FROM projects").fetchone()
    project_key = keyring._project_key(Envelope(row["id"], row["wrapped_key"], "", 0))
    assert len(project_key) == 32
    assert project_key not in disk(vault.directory)


def test_deleted_rows_are_overwritten_on_disk(vault: Vault, agent: Agent) -> None:
    project_id = agent.project()
    for _ in range(20):
        agent.secret(project_id, "v" * 500)
    with vault.store.transaction() as db:
        blobs = [bytes(row["ciphertext"]) for row in db.execute("SELECT ciphertext FROM secret_versions")]
    assert all(blob in disk(vault.directory) for blob in blobs)
    agent.post(f"/v1/ai/projects/{project_id}/delete", {"confirmName": "Demo"})
    vault.close()
    assert [blob for blob in blobs if blob in disk(vault.directory)] == []
    vault.open()


WORDS = ("MARKED words of the first kind", "MARKED words of the second kind", "MARKED words for a backup")


def keys_of(store: Store) -> list[bytes]:
    """The root key and the project keys, as bytes and as hex."""
    with store.transaction() as db:
        rows = db.execute("SELECT id, wrapped_key FROM projects").fetchall()
    keys = [store.keys._root_key, *(store.keys.unwrap(f"project-key:{row[0]}", row[1]) for row in rows)]
    return [*keys, *(key.hex().encode() for key in keys)]


def control_answer(directory: Path, request: object) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / control.NAME))
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rb").readline()


def test_rekey_seal_unseal_and_backup_leak_no_value_key_or_passphrase(
    vault: Vault, agent: Agent, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = drive_values(RecordingAgent(agent), agent.project())
    store, secrets, seen = vault.store, [MARK.encode(), *(word.encode() for word in WORDS)], b""
    secrets += keys_of(store)  # of the key file, which the passphrase is about to replace
    assert store.keys._root_key.hex().encode() in disk(vault.directory)

    def look() -> None:
        secrets.extend(keys_of(store))
        found = [secret for secret in secrets if secret in disk(vault.directory) + seen]
        assert found == []

    backup.backup(store, tmp_path / "first", START_MS, WORDS[2])
    for words in WORDS[:2]:
        store.rekey(START_MS, words)
        look()
        with Control(store, vault.clock, "http://here", "https://127.0.0.1:1#sha256=00"):
            for request in (
                {"command": "status"},
                {"command": "seal"},
                {"command": "unseal", "passphrase": WORDS[2]},
                {"command": "unseal", "passphrase": words},
                {"command": words, "passphrase": words},
                {"command": "unseal", "passphrase": [words]},
                words,
            ):
                seen += control_answer(vault.directory, request)
        look()
    backup.backup(store, tmp_path / "second", START_MS, None)
    for wrong in (WORDS[2], WORDS[0]):
        with pytest.raises(VaultError) as caught:
            store.unseal(START_MS, wrong)
        seen += repr(caught.value).encode() + caught.value.hint.encode()
    seen += (tmp_path / "first").read_bytes() + (tmp_path / "second").read_bytes()
    seen += "".join(capfd.readouterr()).encode()
    look()
    assert MARK in vault.value(ids[0])


def test_a_killed_server_leaves_no_passphrase_and_no_key(tmp_path: Path) -> None:
    directory, words = tmp_path / "vault", WORDS[0]
    with open_store(directory, words) as store:
        secrets = [words.encode(), *keys_of(store)]
    served = Spawned(directory)
    line = [sys.executable, "-m", "vault", "unseal", "--dir", str(directory), "--passphrase-file", "-"]
    done = subprocess.run(line, cwd=ROOT, input=words + "\n", capture_output=True, text=True, timeout=60, check=True)
    process = Path(f"/proc/{served.process.pid}")
    known = b"".join((process / name).read_bytes() for name in ("cmdline", "environ")) if process.exists() else b""
    status, out, err = served.end(signal.SIGABRT)
    assert status == -signal.SIGABRT
    seen = disk_of_files(directory) + known + "".join([done.stdout, done.stderr, out, err]).encode()
    assert [secret for secret in secrets if secret in seen] == []


def disk_of_files(directory: Path) -> bytes:
    """All bytes of the directory's files, without the socket that a killed server leaves."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file())
