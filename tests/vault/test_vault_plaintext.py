"""The hunt for plaintext: marked values go in, and turn up in no answer, no log and no byte on disk."""

from __future__ import annotations

import json
import re

import pytest

from tests.vault.harness import Agent, Reply, Vault, disk, encoded
from vault.crypto import Envelope
from vault.surface import ROUTES

MARK = "MARKED-value-9d1c"


class Listening:
    """An agent whose every answer is kept."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.heard = b""

    def send(self, method: str, path: str, body: object = None) -> Reply:
        reply = self.agent.send(method, path, body)
        self.heard += repr(sorted(reply.headers.items())).encode() + reply.raw
        return reply


def drive_values(agent: Listening, project_id: str) -> list[str]:
    """Every way in which a value gets in, right and wrong; answers the ids of the secrets."""
    base, dynamic = f"/v1/ai/projects/{project_id}/secrets", "/v1/ai/dynamic-secrets"
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
    listening, project_id = Listening(agent), agent.project()
    ids = drive_values(listening, project_id)
    assert MARK in vault.value(ids[0])
    if broken:
        with vault.store.transaction() as db:
            db.execute("CREATE TRIGGER broken BEFORE INSERT ON secret_versions BEGIN SELECT RAISE(ABORT, 'x'); END")
        path = f"/v1/ai/projects/{project_id}/secrets"
        assert listening.send("POST", path, {"name": "x", "value": MARK}).status == 500
    made = [vault.value(secret_id) for secret_id in ids]
    for route in ROUTES:
        for secret_id in ids:
            path = route.path.replace("{projectId}", project_id).replace("{secretId}", secret_id)
            listening.send(route.method, re.sub(r"\{\w+\}", "x0123456789", path))
    secrets = [MARK, *made, *(part for value in made[1:] for part in json.loads(value).values())]
    output = "".join(capfd.readouterr())
    for secret in secrets:
        assert secret.encode() not in listening.heard
        assert secret.encode() not in disk(vault.directory)
        assert secret not in output


def test_the_keys_between_root_and_value_are_never_on_disk_in_the_clear(vault: Vault, agent: Agent) -> None:
    agent.secret(agent.project(), MARK)
    keyring = vault.store.keys
    with vault.store.transaction() as db:
        row = db.execute("SELECT id, wrapped_key FROM projects").fetchone()
    project_key = keyring._project_key(Envelope(row["id"], row["wrapped_key"], "", 0))
    assert len(project_key) == 32
    assert project_key not in disk(vault.directory)
