"""All 106 actions, through the built archive, against the local vault; each effect is read back by another action."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_mcp
from tests.support.example_recording import Recording, shape
from tests.support.harness import ARCHIVE_COMMAND, ROOT, TIMEOUT_S, Server
from tests.support.leak_search import found
from tests.support.local_vault import LocalVault, install

pytest.importorskip("sikkerkey", reason="the vendor's client needs Python 3.10 or newer")
from sikkerkey import SikkerKey
from sikkerkey.exceptions import AccessDeniedError, ApiError

VALUE = "first-value-5b1e"
DAY_MS = 24 * 3600 * 1000
EXAMPLES = ROOT / "docs" / "examples.json"
RECORDING = Recording()


class Session:
    """An AI agent with every scope, its vault, and the machines that the owner makes for it."""

    def __init__(self, vault: LocalVault, server: Server, agent: str) -> None:
        self.vault, self.server, self.agent = vault, server, agent

    def result(self, tool: str, action: str = "", **arguments: Any) -> Any:
        """What one call gave; it must have succeeded."""
        given = {"action": action, **arguments} if action else arguments
        result = self.server.call(tool, **given)
        assert not result.get("isError"), (tool, action, result)
        RECORDING.add(tool, action, given, result)
        return result

    def ask(self, tool: str, action: str = "", **arguments: Any) -> Any:
        """The object that one call answered; the list, where it is one."""
        content = self.result(tool, action, **arguments)["structuredContent"]
        return content["items"] if list(content) == ["items"] else content

    def refused(self, tool: str, action: str, **arguments: Any) -> str:
        """What a call that must fail said."""
        result = self.server.call(tool, action=action, **arguments)
        assert result.get("isError"), (tool, action, result)
        return str(result["content"][0]["text"])

    def project(self, name: str = "p") -> str:
        """A new project's id."""
        return str(self.ask("manage_projects", "create", name=name)["id"])

    def secret(self, project: str, name: str = "s", **more: Any) -> str:
        """A new secret's id."""
        more = {"value": VALUE, **more}
        return str(self.ask("manage_secrets", "create", projectId=project, name=name, **more)["id"])

    def machine(self, home: Path, name: str, *, approved: bool = True) -> str:
        """A machine of the vault's owner, with its identity below `home`; its id."""
        url = self.vault.url.replace("127.0.0.1", "localhost")
        made = self.vault.owner("machine-bootstrap", "--name", name, "--home", str(home), "--url", url, "--json")
        machine = str(json.loads(made)["machineId"])
        if approved:
            self.ask("manage_machines", "approve", machineId=machine)
        return machine

    def reader(self, home: Path, project: str, *secrets: str) -> tuple[str, SikkerKey]:
        """A machine that may read these secrets, and the vendor's own client for it."""
        machine = self.machine(home, "reader")
        self.ask("manage_project_machines", "attach", projectId=project, machineId=machine)
        self.ask("manage_project_machines", "grants_set", projectId=project, machineId=machine, secretIds=[*secrets])
        identity = next(home.glob("vaults/*/identity.json"))
        return machine, SikkerKey(str(identity))

    def audited(self, action: str) -> list[Any]:
        """The audit entries of one kind, newest first."""
        entries: list[Any] = self.ask("read_audit", "query", actions=[action])["entries"]
        return entries


def by_id(rows: list[Any], wanted: str) -> Any:
    """The row of a list with that id."""
    return next(row for row in rows if row["id"] == wanted)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One vault and one agent for all of these tests; each makes its own projects."""
    directory = tmp_path_factory.mktemp("every_action")
    vault = LocalVault(directory / "vault")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIKKERKEY_HOME", str(directory / "home"))
        agent = install(vault)
        vault.owner("approve", agent)
        with Server(ARCHIVE_COMMAND) as server:
            server.initialize()
            yield Session(vault, server, agent)
    vault.close()


def test_whoami(session: Session) -> None:
    me = session.ask("whoami")
    assert (me["agentId"], me["approved"], me["projectAllowlist"]) == (session.agent, True, None)


def test_projects(session: Session) -> None:
    project = session.ask("manage_projects", "create", name="before", description="d")["id"]
    session.ask("manage_projects", "update", projectId=project, name="after", description="")
    shown = by_id(session.ask("manage_projects", "list"), project)
    assert (shown["name"], shown["description"]) == ("after", "")
    assert session.ask("manage_projects", "permissions", projectId=project)
    session.secret(project)
    preview = session.ask("manage_projects", "delete", projectId=project, preview=True)
    assert (preview["preview"], preview["cascade"]["secrets"]) == (True, 1)
    assert by_id(session.ask("manage_projects", "list"), project)
    assert "answered 400" in session.refused("manage_projects", "delete", projectId=project, confirmName="before")
    session.ask("manage_projects", "delete", projectId=project, confirmName="after")
    assert project not in [row["id"] for row in session.ask("manage_projects", "list")]


def test_secrets(session: Session) -> None:
    project = session.project()
    one = {"projectId": project, "secretId": session.secret(project, note="n")}
    assert session.vault.value_of(one["secretId"]) == VALUE
    assert session.ask("manage_secrets", "update_value", **one, value="second")["version"] == 2
    assert session.vault.value_of(one["secretId"]) == "second"
    session.ask("manage_secrets", "rename", **one, name="renamed")
    session.ask("manage_secrets", "update_note", **one, note="noted")
    shown = session.ask("manage_secrets", "get", **one)
    assert (shown["name"], shown["note"], shown["version"]) == ("renamed", "noted", 2)
    session.ask("manage_secrets", "rotate", **one, charset="numbers", length=9)
    assert session.vault.value_of(one["secretId"]).isdigit()
    session.ask("manage_secrets", "rollback", **one, version=1)
    assert session.vault.value_of(one["secretId"]) == VALUE
    assert [row["version"] for row in session.ask("manage_secrets", "versions", **one)] == [4, 3, 2, 1]
    session.ask("manage_secrets", "delete", **one)
    assert session.ask("manage_secrets", "list", projectId=project) == []


def test_scheduled_secrets(session: Session) -> None:
    project = session.project()
    fields = {"fieldNames": ["user", "password"], "staticFields": {"user": "root"}}
    made = session.ask("manage_secrets", "dynamic_create", projectId=project, name="d", intervalSeconds=300, **fields)
    secret = made["secretId"]
    assert json.loads(session.vault.value_of(secret))["user"] == "root"
    assert "answered 409" in session.refused(
        "manage_secrets", "update_value", projectId=project, secretId=secret, value="x"
    )
    session.ask("manage_secrets", "dynamic_update", secretId=secret, intervalSeconds=600, enabled=False)
    shown = session.ask("manage_secrets", "dynamic_get", secretId=secret)
    assert (shown["intervalSeconds"], shown["enabled"], shown["nextRotationAt"]) == (600, False, None)
    assert secret in [row["secretId"] for row in session.ask("manage_secrets", "dynamic_list")]
    session.ask("manage_secrets", "dynamic_delete", secretId=secret)
    assert secret not in [row["secretId"] for row in session.ask("manage_secrets", "dynamic_list")]


def test_one_time_links(session: Session) -> None:
    project = session.project()
    made = session.ask(
        "manage_temporary_secrets", "create", projectId=project, name="t", value="shown-once", expiresInSeconds=600
    )
    assert made["url"].startswith(session.vault.url)
    assert made["token"] in made["url"]
    listed = by_id(session.ask("manage_temporary_secrets", "list", projectId=project), made["id"])
    assert listed["status"] == "pending"
    assert made["passphrase"] not in json.dumps(listed)
    random = {"generateRandom": True, "length": 20, "expiresInSeconds": 60}
    session.ask("manage_temporary_secrets", "create", projectId=project, name="r", **random)
    assert len(session.ask("manage_temporary_secrets", "list", projectId=project)) == 2


def test_policies(session: Session) -> None:
    project = session.project()
    secret = session.secret(project)
    axis = {"rateCapEnabled": True, "maxReadsPerDay": 5, "maxReadsPerMinute": 2}
    policy = session.ask("manage_policies", "create", projectId=project, name="cap", **axis)["id"]
    one = {"projectId": project, "policyId": policy}
    session.ask("manage_policies", "update", **one, maxReadsPerDay=7, description="weekly")
    shown = session.ask("manage_policies", "get", **one)
    assert (shown["maxReadsPerDay"], shown["maxReadsPerMinute"], shown["description"]) == (7, 2, "weekly")
    assert [row["id"] for row in session.ask("manage_policies", "list", projectId=project)] == [policy]
    session.ask("manage_policies", "binding_bind", secretId=secret, policyId=policy)
    assert policy in json.dumps(session.ask("manage_policies", "binding_get", secretId=secret))
    assert "answered 409" in session.refused("manage_policies", "delete", **one)
    session.ask("manage_policies", "binding_unbind", secretId=secret)
    session.ask("manage_policies", "delete", **one)
    assert session.ask("manage_policies", "list", projectId=project) == []


def test_a_policy_stops_the_vendors_client(session: Session, tmp_path: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    _, client = session.reader(tmp_path, project, secret)
    assert client.get_secret(secret) == VALUE
    axis = {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["192.0.2.0/24"]}
    policy = session.ask("manage_policies", "create", projectId=project, name="elsewhere", **axis)["id"]
    session.ask("manage_policies", "binding_bind", secretId=secret, policyId=policy)
    with pytest.raises(AccessDeniedError):
        client.get_secret(secret)
    assert session.audited("secret_read_denied")[0]["secretId"] == secret


def test_canaries(session: Session, tmp_path: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    canary = session.ask("manage_canaries", "create", projectId=project, name="decoy")["id"]
    session.ask("manage_canaries", "config", canaryId=canary, triggerFreezeRelatedProjects=True)
    shown = session.ask("manage_canaries", "get", canaryId=canary)
    assert (shown["triggerFreezeProject"], shown["triggerFreezeRelatedProjects"]) == (True, True)
    session.ask("manage_canaries", "disable", canaryId=canary)
    assert by_id(session.ask("manage_canaries", "list", projectId=project), canary)["enabled"] is False
    session.ask("manage_canaries", "enable", canaryId=canary)
    _, client = session.reader(tmp_path, project, secret, canary)
    assert len(client.get_secret(canary)) == 64
    with pytest.raises(ApiError) as frozen:
        client.get_secret(secret)
    assert frozen.value.http_status == 423
    assert session.audited("canary_triggered")[0]["severity"] == "critical"
    session.ask("manage_canaries", "unfreeze_project", projectId=project)
    assert client.get_secret(secret) == VALUE
    assert session.ask("manage_canaries", "get", canaryId=canary)["enabled"] is True


def test_machines(session: Session, tmp_path: Path) -> None:
    machine = session.machine(tmp_path / "1", "first", approved=False)
    assert by_id(session.ask("manage_machines", "list"), machine)["state"] == "pending"
    session.ask("manage_machines", "approve", machineId=machine)
    session.ask("manage_machines", "rename", machineId=machine, name="second")
    shown = session.ask("manage_machines", "get", machineId=machine)
    assert (shown["name"], shown["state"], shown["projects"]) == ("second", "approved", [])
    assert [row["name"] for row in session.ask("manage_machines", "name_history", machineId=machine)] == ["first"]
    preview = session.ask("manage_machines", "revoke", machineId=machine, preview=True)
    assert preview["preview"] is True
    assert by_id(session.ask("manage_machines", "list"), machine)
    session.ask("manage_machines", "revoke", machineId=machine)
    unwanted = session.machine(tmp_path / "2", "third", approved=False)
    session.ask("manage_machines", "deny", machineId=unwanted)
    left = [row["id"] for row in session.ask("manage_machines", "list")]
    assert machine not in left
    assert unwanted not in left


def test_machines_in_projects(session: Session, tmp_path: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    machine, client = session.reader(tmp_path, project, secret)
    both = {"projectId": project, "machineId": machine}
    assert [row["id"] for row in session.ask("manage_project_machines", "grants_get", **both)] == [secret]
    page = session.ask("manage_project_machines", "query", projectId=project, sortBy="name", sortDir="asc", page=1)
    assert [(row["id"], row["secretCount"]) for row in page["machines"]] == [(machine, 1)]
    assert [item.id for item in client.list_secrets()] == [secret]
    session.ask("manage_project_machines", "grants_set", **both, secretIds=[])
    assert session.ask("manage_project_machines", "grants_get", **both) == []
    with pytest.raises(ApiError):
        client.get_secret(secret)
    session.ask("manage_project_machines", "detach", **both)
    assert session.ask("manage_project_machines", "query", projectId=project)["machines"] == []


def test_other_agents(session: Session) -> None:
    approved, denied = install(session.vault, "projects.read"), install(session.vault, "projects.read")
    assert by_id(session.ask("manage_ai_agents", "list"), approved)["state"] == "pending"
    session.ask("manage_ai_agents", "approve", agentId=approved)
    session.ask("manage_ai_agents", "deny", agentId=denied)
    session.ask("manage_ai_agents", "rename", agentId=approved, name="helper")
    shown = session.ask("manage_ai_agents", "get", agentId=approved)
    assert (shown["name"], shown["state"], shown["scopes"]) == ("helper", "approved", ["projects.read"])
    history = session.ask("manage_ai_agents", "name_history", agentId=approved)
    assert [row["name"] for row in history] == ["end to end"]
    session.ask("manage_ai_agents", "disable", agentId=approved)
    assert session.ask("manage_ai_agents", "get", agentId=approved)["state"] == "disabled"
    session.ask("manage_ai_agents", "enable", agentId=approved)
    assert session.ask("manage_ai_agents", "get", agentId=approved)["state"] == "approved"
    session.ask("manage_ai_agents", "revoke", agentId=approved)
    left = [row["id"] for row in session.ask("manage_ai_agents", "list")]
    assert not {approved, denied} & set(left)
    session.refused("manage_ai_agents", "revoke", agentId=session.agent)


def test_enrollment(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    project = session.project()
    secret = session.secret(project)
    life = {"tokenLifetimeSeconds": 600, "machineLifetimeSeconds": 600, "maxUses": 1}
    made = session.ask(
        "manage_enrollment", "create", name="ci", projectIds=[project], secretIds=[secret], description="d", **life
    )
    monkeypatch.setenv("SIKKERKEY_API_URL", session.vault.url.replace("127.0.0.1", "localhost"))
    vault_id = session.ask("whoami")["vaultId"]
    client = SikkerKey.bootstrap_in_memory(vault_id, made["token"], hostname="runner")
    assert client.get_secret(secret) == VALUE
    shown = session.ask("manage_enrollment", "get", tokenId=made["id"])
    assert shown["uses"] == 1
    assert made["token"] not in json.dumps(shown)
    assert by_id(session.ask("manage_machines", "list"), client.machine_id)["kind"] == "ephemeral"
    session.ask("manage_enrollment", "revoke", tokenId=made["id"], reason="done")
    assert by_id(session.ask("manage_enrollment", "list"), made["id"])["state"] == "revoked"
    assert client.get_secret(secret) == VALUE


def test_team(session: Session) -> None:
    project = session.project()
    kept = session.ask("manage_team", "invite", email="kim@example.org")["inviteId"]
    dropped = session.ask("manage_team", "invite", email="lee@example.org")["inviteId"]
    session.ask("manage_team", "cancel_invite", inviteId=dropped)
    listed = json.dumps(session.ask("manage_team", "list"))
    assert "kim@example.org" in listed
    assert session.refused("manage_team", "invite", email="KIM@example.org")
    member = json.loads(session.vault.owner("accept-invite", kept, "--json"))
    member_id = member.get("memberId") or member["id"]
    both = {"projectId": project, "memberId": member_id}
    session.ask("manage_team", "permissions_set", **both, permissions=["machines.view"])
    assert "machines.view" in json.dumps(session.ask("manage_team", "permissions_get", memberId=member_id))
    assert member_id in json.dumps(session.ask("manage_projects", "permissions", projectId=project))
    session.ask("manage_team", "permissions_remove", **both)
    assert member_id not in json.dumps(session.ask("manage_projects", "permissions", projectId=project))
    session.ask("manage_team", "remove", memberId=member_id)
    assert "kim@example.org" not in json.dumps(session.ask("manage_team", "list"))


def test_trash(session: Session) -> None:
    project = session.project()
    kept, purged = session.secret(project, "kept"), session.secret(project, "purged")
    for secret in (kept, purged):
        session.ask("manage_secrets", "delete", projectId=project, secretId=secret)
    assert {kept, purged} <= {row["id"] for row in session.ask("manage_trash", "list")}
    session.ask("manage_trash", "restore", secretId=kept)
    session.ask("manage_trash", "purge", secretId=purged)
    assert [row["id"] for row in session.ask("manage_secrets", "list", projectId=project)] == [kept]
    assert not {kept, purged} & {row["id"] for row in session.ask("manage_trash", "list")}


def test_alerts(session: Session) -> None:
    assert "canary_triggered" in json.dumps(session.ask("manage_alerts", "actions"))
    session.ask("manage_alerts", "set", enabledActions=["canary_triggered", "project_delete"])
    listed = json.dumps(session.ask("manage_alerts", "list"))
    assert "project_delete" in listed
    session.ask("manage_alerts", "set", enabledActions=[])
    assert "answered 400" in session.refused("manage_alerts", "set", enabledActions=["no_such_action"])


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A real HTTP server that takes deliveries."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
        server.shutdown()


def wait_until(happened: Any) -> None:
    """Waits for something that another process does by itself."""
    until = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def test_webhooks(session: Session) -> None:
    with receiver() as (url, got):
        made = session.ask("manage_webhooks", "create", url=url, actions=["project_create"])
        hook = {"webhookId": made["id"]}
        session.ask("manage_webhooks", "test", **hook)
        wait_until(lambda: len(got) == 1)
        session.project("announced")
        wait_until(lambda: len(got) == 2)
        assert got[1][0]["x-sikkerkey-event"] == "project_create"
        assert json.loads(got[1][1])["event"] == "project_create"
        session.ask("manage_webhooks", "update", **hook, actions=["project_delete"], enabled=False)
        shown = session.ask("manage_webhooks", "get", **hook)
        assert (shown["enabled"], shown["actions"]) == (False, ["project_delete"])
        secrets = [value for value in made.values() if isinstance(value, str) and len(value) >= 32]
        assert len(secrets) == 1
        assert secrets[0] not in json.dumps(shown)
        session.ask("manage_webhooks", "delete", **hook)
        assert made["id"] not in [row["id"] for row in session.ask("manage_webhooks", "list")]
    assert "answered 400" in session.refused(
        "manage_webhooks", "create", url="https://169.254.169.254/", actions=["project_create"]
    )


def test_ip_allowlist(session: Session, tmp_path: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    _, client = session.reader(tmp_path, project, secret)
    entry = session.ask("manage_ipallowlist", "add", cidr="192.0.2.7/32", label="office")["id"]
    others = [session.ask("manage_ipallowlist", "add", cidr=f"2001:db8:{n}::/48")["id"] for n in (1, 2)]
    session.ask("manage_ipallowlist", "update", entryId=entry, label="lab")
    session.ask("manage_ipallowlist", "enable")
    with pytest.raises(AccessDeniedError):
        client.get_secret(secret)
    listed = session.ask("manage_ipallowlist", "list")
    assert (listed["enabled"], by_id(listed["entries"], entry)["label"]) == (True, "lab")
    session.ask("manage_ipallowlist", "disable")
    assert client.get_secret(secret) == VALUE
    session.ask("manage_ipallowlist", "delete", entryId=entry)
    session.ask("manage_ipallowlist", "bulk_delete", entryIds=others)
    assert session.ask("manage_ipallowlist", "list") == {"enabled": False, "entries": []}


def test_audit(session: Session) -> None:
    session.project("=cmd()")
    newest = session.ask("read_audit", "list", pageSize=1)["entries"]
    assert [entry["action"] for entry in newest] == ["project_create"]
    assert session.ask("read_audit", "activity")[0]["id"] == newest[0]["id"]
    found = session.ask("read_audit", "query", actions=["project_create"], search="=cmd()", sortDir="asc")
    assert found["total"] == 1
    assert "project_create" in session.ask("read_audit", "actions")
    csv = session.result("read_audit", "export", actions=["project_create"])["content"][0]["text"]
    assert "=cmd()" in csv
    assert "\n=" not in csv
    assert ",=" not in csv
    assert session.ask("read_audit", "stats")
    now_ms = int(time.time() * 1000)
    span = {"from": now_ms - 2 * DAY_MS, "to": now_ms, "bucket": "day"}
    assert session.ask("read_audit", "reads_over_time", **span)
    assert session.ask("read_audit", "usage")


def test_support(session: Session, tmp_path: Path) -> None:
    category = session.ask("support", "categories")[0]["id"]
    ask = {"categoryId": category, "priority": "high", "title": "Locked out", "body": "Please help."}
    ticket = session.ask("support", "create", **ask)["id"]
    picture = tmp_path / "all.bin"
    picture.write_bytes(bytes(range(256)) * 4)
    session.vault.reply(ticket, "See the file.", picture)
    shown = session.ask("support", "get", ticketId=ticket)
    assert "See the file." in json.dumps(shown)
    attachment = next(row["id"] for message in shown["conversation"] for row in message.get("attachments", []))
    blob = session.result("support", "attachment", attachmentId=attachment)["content"][1]["resource"]["blob"]
    assert base64.b64decode(blob) == picture.read_bytes()
    session.ask("support", "reply", ticketId=ticket, body="Thanks!")
    listed = json.dumps(session.ask("support", "list", status="waiting_on_staff"))
    assert ticket in listed
    session.vault.reply(ticket, "Closing.", status="closed")
    session.ask("support", "rate", ticketId=ticket, rating=5)
    assert "answered 409" in session.refused("support", "rate", ticketId=ticket, rating=1)
    assert "answered 409" in session.refused("support", "reply", ticketId=ticket, body="One more thing")


def test_sdks(session: Session) -> None:
    listed = session.ask("manage_sdks", "list")
    assert {row["id"] for row in listed} == {"python", "node", "go", "dotnet", "kotlin"}
    assert "sikkerkey" in json.dumps(session.ask("manage_sdks", "get", sdkId="python"))


def test_no_action_was_left_out(session: Session) -> None:
    assert session.server.process.poll() is None
    assert {f"{tool.name}.{action.name}" for tool in sikkerkey_mcp.TOOLS for action in tool.actions} == set(
        RECORDING.calls
    )


def test_documented_examples_are_what_is_answered() -> None:
    """`make record` rewrites them."""
    if "RECORD_EXAMPLES" in os.environ:
        EXAMPLES.write_text(RECORDING.text(), encoding="utf-8")
    documented, given = json.loads(EXAMPLES.read_bytes()), json.loads(RECORDING.text())
    assert shape(documented) == shape(given)


def test_no_answer_held_a_stored_value(session: Session) -> None:
    seen = b"".join(session.server.lines)
    assert len(seen) > 20_000
    assert found(seen, [VALUE]) == []
