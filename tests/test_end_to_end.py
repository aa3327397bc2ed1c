"""The built archive, both versions of the official MCP client, and the local vault, as a user has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_identity
import sikkerkey_mcp
from tests.support.harness import ARCHIVE_COMMAND, ROOT, TIMEOUT_S, Server
from tests.support.local_vault import LocalVault, install
from tests.support.sample_tools import COMMAND
from tests.support.schema_check import check_session
from tests.support.shell import Shell

VALUE = "marked-value-6f1d3c"
SDKS = {"mcp 2": ROOT / ".venv", "mcp 1": ROOT / ".venv-mcp1"}


def sdk_python(sdk: str) -> str:
    """The interpreter with this version of the official client."""
    python = SDKS[sdk] / "bin" / "python"
    if not any((SDKS[sdk] / "lib").glob("python3*/site-packages/mcp")):
        pytest.skip(f"{sdk} is not installed: it needs Python 3.10 or newer, and `make venv`")
    return str(python)


# Copies both directions to files: the client's messages to the first argument, the server's to the second. Both get the
# ending $MODE if the client sets it.
OVERHEAR = 'sent=$1$MODE said=$2$MODE; shift 2; tee "$sent" | "$@" | tee "$said"'


def sdk_session(sdk: str, calls: list[Any], place: Path) -> Any:
    """The results of `calls` in the official client. The session is recorded in `place` and checked by the schema."""
    return overheard(
        [sdk_python(sdk), str(ROOT / "tests" / "support" / "sdk_session.py")], ARCHIVE_COMMAND, calls, place
    )


def overheard(
    client: list[str], server: Sequence[str], calls: list[Any], place: Path, modes: Sequence[str] = ("",)
) -> Any:
    """What a client that starts this server prints; both directions of each session are checked by the schema."""
    sent, said = place / "sent", place / "said"
    command = [*client, "sh", "-c", OVERHEAR, "sh", str(sent), str(said), *server]
    done = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, check=True, timeout=60)
    for mode in modes:
        lines = Path(f"{said}{mode}").read_bytes().splitlines(keepends=True)
        assert len(lines) >= len(calls) + 2  # and initialize or server/discover, tools/list
        check_session(Path(f"{sent}{mode}").read_bytes(), lines)
    return json.loads(done.stdout)


NUMBERS = {"charset": "numbers", "length": 12}
PROJECT, SECRET = {"from": [0, "id"]}, {"from": [1, "id"]}
CALLS: list[Any] = [
    ["manage_projects", {"action": "create", "name": "p"}],
    ["manage_secrets", {"action": "create", "projectId": PROJECT, "name": "s", "value": VALUE}],
    ["manage_secrets", {"action": "get", "projectId": PROJECT, "secretId": SECRET}],
    ["manage_secrets", {"action": "list", "projectId": PROJECT}],
    ["manage_secrets", {"action": "rotate", "projectId": PROJECT, "secretId": SECRET, **NUMBERS}],
    ["manage_secrets", {"action": "versions", "projectId": PROJECT, "secretId": SECRET}],
    ["read_audit", {"action": "list"}],
    ["manage_projects", {"action": "delete", "projectId": PROJECT, "preview": True}],
    ["manage_projects", {"action": "delete", "projectId": PROJECT, "confirmName": "another"}],
]


@pytest.mark.parametrize("sdk", SDKS)
def test_official_client_manages_the_vault_and_sees_no_value(sdk: str, local_vault: LocalVault, tmp_path: Path) -> None:
    local_vault.owner("approve", install(local_vault))
    told = sdk_session(sdk, CALLS, tmp_path)
    results = told["results"]
    assert told["protocolVersion"] == "2025-11-25"
    assert [tool["name"] for tool in told["tools"]] == [tool.name for tool in sikkerkey_mcp.TOOLS]
    assert [bool(result.get("isError")) for result in results] == [False] * 8 + [True]
    for result in results[:-1]:
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    secret_id = results[1]["structuredContent"]["id"]
    assert re.fullmatch(r"\d{12}", local_vault.value_of(secret_id))
    assert [row["version"] for row in results[5]["structuredContent"]["items"]] == [2, 1]
    audited = {entry["action"] for entry in results[6]["structuredContent"]["entries"]}
    assert audited >= {"project_create", "secret_create", "secret_rotate"}
    assert VALUE not in json.dumps(told)
    assert local_vault.value_of(secret_id) not in json.dumps(told)


def test_value_arrives_exactly_as_it_was_given(local_vault: LocalVault) -> None:
    local_vault.owner("approve", install(local_vault))
    value = 'søger <nøgle> & "quotes" \\ \u2028 \x7f 🔑' * 50
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        project = server.call("manage_projects", action="create", name="p")["structuredContent"]["id"]
        made = server.call("manage_secrets", action="create", projectId=project, name="s", value=value)
    assert local_vault.value_of(made["structuredContent"]["id"]) == value


def test_the_owner_sees_the_fingerprint_of_the_key_that_was_installed(local_vault: LocalVault, shell: Shell) -> None:
    agent = install(local_vault)
    (shown,) = re.findall(r"SHA256:[A-Za-z0-9+/]{43}", shell("whoami", "--agent", agent).out)
    (listed,) = (line for line in local_vault.owner("agents").splitlines() if agent in line)
    approved = local_vault.owner("approve", agent)
    assert [text.count(f" {shown}") for text in (listed, approved)] == [1, 1]


def test_a_new_key_replaces_an_agents_key_as_documented(local_vault: LocalVault, shell: Shell) -> None:
    old = install(local_vault)
    local_vault.owner("approve", old)
    new = install(local_vault)
    too_early = shell("revoke", old, "--server", "--by", new, "--yes")
    assert (too_early.status, old in sikkerkey_identity.installed_agents()) == (1, True)
    local_vault.owner("approve", new)
    assert shell("whoami", "--remote", "--agent", new).status == 0
    assert shell("revoke", old, "--server", "--by", new, "--yes").status == 0
    assert (old in sikkerkey_identity.installed_agents(), new in sikkerkey_identity.installed_agents()) == (False, True)
    assert old not in local_vault.owner("agents")


def test_pending_agent_is_reported_and_served_once_approved(local_vault: LocalVault) -> None:
    agent = install(local_vault)
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        pending = server.call("whoami")
        local_vault.owner("approve", agent)
        approved = server.call("whoami")
        local_vault.owner("disable", agent)
        disabled = server.call("whoami")
    assert pending["isError"]
    assert "pending" in pending["content"][0]["text"]
    assert approved["structuredContent"]["agentId"] == agent
    assert disabled["isError"]
    assert "disabled" in disabled["content"][0]["text"]


def test_missing_scope_is_named(local_vault: LocalVault) -> None:
    local_vault.owner("approve", install(local_vault, "projects.read"))
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        refused = server.call("manage_projects", action="create", name="p")
    assert "missing scope: projects.write" in refused["content"][0]["text"]


def test_wrong_clock_is_noticed(local_vault: LocalVault) -> None:
    local_vault.owner("approve", install(local_vault))
    behind = "import time, sikkerkey_mcp as m; now = time.time; time.time = lambda: now() - 4000; m.main([])"
    command = [sys.executable, "-c", behind]
    with Server(command, {**os.environ, "PYTHONPATH": str(ROOT)}) as server:
        server.initialize()
        refused = server.call("whoami")
    assert re.search(r"clock is (399|400)\d s behind the vault's", refused["content"][0]["text"])


def test_tampered_key_is_refused_by_the_vault(local_vault: LocalVault, home: Path) -> None:
    agent = install(local_vault)
    local_vault.owner("approve", agent)
    slot = home / ".sikkerkey" / "agents" / agent
    other = install(local_vault)
    for name in ("private.pem", "identity.json"):
        stolen = (slot.parent / other / name).read_text()
        (slot / name).write_text(stolen.replace(other, agent))
    with Server([*ARCHIVE_COMMAND, "serve", "--agent", agent]) as server:
        server.initialize()
        refused = server.call("whoami")
    assert "answered 401" in refused["content"][0]["text"]


def test_server_survives_a_restart_of_the_vault(tmp_path: Path) -> None:
    first = LocalVault(tmp_path / "vault")
    first.owner("approve", install(first))
    port = first.url.rsplit(":", 1)[1]
    with Server(ARCHIVE_COMMAND) as server:
        server.initialize()
        assert "structuredContent" in server.call("whoami")
        first.close()
        away = server.call("manage_projects", action="create", name="p")
        serve = [
            sys.executable,
            "-m",
            "vault",
            "serve",
            "--dir",
            str(first.directory),
            "--port",
            port,
            "--tls-port",
            "0",
        ]
        again = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert again.stdout is not None
        assert again.stdout.readline().strip() == first.url
        back = server.call("manage_projects", action="create", name="p")
        again.terminate()
        again.wait(TIMEOUT_S)
        again.stdout.close()
    assert "nothing was changed" in away["content"][0]["text"]
    assert back["structuredContent"]["name"] == "p"


def test_the_official_client_answers_questions_in_both_eras(tmp_path: Path) -> None:
    client = [sdk_python("mcp 2"), str(ROOT / "tests" / "support" / "asking_client.py")]
    yes, empty = {"action": "accept", "content": {"confirm": True}}, {"action": "accept", "content": {}}
    calls = [
        ["confirm", yes],
        ["confirm", {"action": "decline"}],
        ["confirm", empty],
        ["open_page", {"action": "accept"}],
    ]
    revisions = {"auto": "2026-07-28", "legacy": "2025-11-25"}
    sessions = overheard(client, COMMAND, calls, tmp_path, [*revisions])
    assert [*sessions] == [*revisions]
    for mode, made in sessions.items():
        assert (made["protocolVersion"], made["asked"]) == (revisions[mode], ["form", "form", "form", "url"])
        assert [result["action"] for result in made["results"]] == ["accept", "decline", "cancel", "accept"]
