"""Every action, through the built archive, against the local vault; each effect is read back by another action.

All of them share one vault. An area runs once, after those above it: for its own test, or earlier for a later one.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.example_recording import Recording, shape
from tests.support.harness import ARCHIVE_COMMAND, ROOT, TIMEOUT_S, Server
from tests.support.leak_search import found
from tests.support.local_vault import LocalVault, install
from tests.support.schema_check import wait_until
from tests.support.table_calls import ROWS

pytest.importorskip("sikkerkey", reason="the vendor's client needs Python 3.10 or newer")
from sikkerkey import SikkerKey
from sikkerkey.exceptions import AccessDeniedError, ApiError

VALUE = "first-value-5b1e"
EXAMPLES = ROOT / "docs" / "examples.json"


Area = Callable[["Session", Path], None]
AREAS: dict[str, Area] = {}


def area(function: Area) -> Area:
    """Registers a function that calls the actions of one area. It gets an empty directory for machines' identities."""
    AREAS[function.__name__] = function
    return function


class Session:
    """An AI agent with every scope, its vault, and the machines that the owner creates for it."""

    def __init__(self, vault: LocalVault, server: Server, agent: str, directory: Path) -> None:
        self.vault, self.server, self.agent, self.directory = vault, server, agent, directory
        self.recording = Recording()
        self._failures: dict[str, BaseException | None] = {}  # of the areas that have run

    def run(self, name: str) -> None:
        """Runs the areas up to this one that have not run yet, and raises what this one raised.

        Always in the same order, because answers and recorded examples depend on earlier calls.
        """
        for each in AREAS:
            if each not in self._failures:
                self._failures[each] = self._failure_of(each)
            if each == name:
                break
        failure = self._failures[name]
        if failure is not None:
            raise failure

    def _failure_of(self, name: str) -> BaseException | None:
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        try:
            AREAS[name](self, directory)
        except (Exception, pytest.fail.Exception) as error:
            return error
        return None

    def run_all(self) -> None:
        """Runs the areas that have not run yet, then the reads that no area calls."""
        for name in AREAS:
            self.run(name)
        left = [row for row in ROWS if row.action.effect == "read" and str(row) not in self.recording.calls]
        if left:
            project = self.project()
            ids = {"projectId": project, "secretId": self.secret(project), "agentId": self.agent}
            for row in left:
                self.result(row.tool.name, **{name: ids.get(name, value) for name, value in row.minimal.items()})

    def result(self, tool: str, action: str = "", **arguments: Any) -> Any:
        """The result of one call, which must succeed."""
        given = {"action": action, **arguments} if action else arguments
        result = self.server.call(tool, **given)
        assert not result.get("isError"), (tool, given, result)
        self.recording.add(tool, given, result)
        return result

    def ask(self, tool: str, action: str = "", **arguments: Any) -> Any:
        """The object in the answer of one call, or the list."""
        content = self.result(tool, action, **arguments)["structuredContent"]
        return content["items"] if set(content) <= {"items", "total"} else content

    def refused(self, tool: str, action: str, **arguments: Any) -> str:
        """The message of a call that must fail."""
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
        """The id of a machine that the vault's owner creates, with its identity below `home`."""
        url = self.vault.url.replace("127.0.0.1", "localhost")
        made = self.vault.owner("machine-bootstrap", "--name", name, "--home", str(home), "--url", url, "--json")
        machine = str(json.loads(made)["machineId"])
        if approved:
            self.ask("manage_machines", "approve", machineId=machine)
        return machine

    def reader(self, home: Path, project: str, *secrets: str) -> tuple[str, SikkerKey]:
        """The id of a machine that may read these secrets, and the vendor's client for it."""
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
    """The item of a list with that id."""
    return next(row for row in rows if row["id"] == wanted)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One vault and one agent for all areas; each of them creates its own projects."""
    directory = tmp_path_factory.mktemp("every_action")
    vault = LocalVault(directory / "vault")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIKKERKEY_HOME", str(directory / "home"))
        patch.setenv("SIKKERKEY_CONFIRM", "never")
        agent = install(vault)
        vault.owner("approve", agent)
        with Server(ARCHIVE_COMMAND) as server:
            server.initialize()
            yield Session(vault, server, agent, directory)
    vault.close()


@area
def whoami(session: Session, directory: Path) -> None:
    me = session.ask("whoami")
    assert (me["agentId"], me["approved"], me["projectAllowlist"]) == (session.agent, True, None)


@area
def projects(session: Session, directory: Path) -> None:
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


@area
def secrets(session: Session, directory: Path) -> None:
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
    again = session.refused("manage_secrets", "create", projectId=project, name="renamed", value="x")
    assert one["secretId"] in again
    parts = {"fieldNames": ["host", "password"], "value": '{"host": "db", "password": "old"}'}
    login = {"projectId": project, "secretId": session.secret(project, "login", **parts)}
    assert '"host", "password"' in session.refused("manage_secrets", "rotate", **login)
    assert session.vault.value_of(login["secretId"]) == parts["value"]
    session.ask("manage_secrets", "rotate", **login, fields=["password"])
    assert json.loads(session.vault.value_of(login["secretId"]))["host"] == "db"
    session.ask("manage_secrets", "delete", **login)
    assert [row["version"] for row in session.ask("manage_secrets", "versions", **one)] == [4, 3, 2, 1]
    session.ask("manage_secrets", "delete", **one)
    assert session.ask("manage_secrets", "list", projectId=project) == []


@area
def values_of_people(session: Session, directory: Path) -> None:
    given = {"projectId": session.project(), "name": "typed", "fromPerson": True}
    waiting = session.server.call("manage_secrets", action="create", **given)["structuredContent"]
    assert waiting["status"] == "waiting"
    fill = ["sh", "-c", f"{waiting['command']} --file -"]
    done = subprocess.run(fill, input=VALUE, text=True, check=False, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    told = session.ask("manage_secrets", "await_person", code=waiting["code"])
    assert (told["status"], session.vault.value_of(told["id"])) == ("done", VALUE)


@area
def scheduled_secrets(session: Session, directory: Path) -> None:
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
    again = {"existingSecretId": secret, "intervalSeconds": 300}
    assert "fields is required" in session.refused("manage_secrets", "dynamic_create", **again)
    session.ask("manage_secrets", "dynamic_create", **again, fields=["password"])
    session.ask("manage_secrets", "dynamic_delete", secretId=secret)
    assert secret not in [row["secretId"] for row in session.ask("manage_secrets", "dynamic_list")]


@area
def one_time_links(session: Session, directory: Path) -> None:
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


@area
def policies(session: Session, directory: Path) -> None:
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


@area
def a_policy_stops_the_vendors_client(session: Session, directory: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    _, client = session.reader(directory, project, secret)
    assert client.get_secret(secret) == VALUE
    axis = {"ipAllowlistEnabled": True, "ipAllowlistCidrs": ["192.0.2.0/24"]}
    policy = session.ask("manage_policies", "create", projectId=project, name="elsewhere", **axis)["id"]
    session.ask("manage_policies", "binding_bind", secretId=secret, policyId=policy)
    with pytest.raises(AccessDeniedError):
        client.get_secret(secret)
    assert session.audited("secret_read_denied")[0]["secretId"] == secret


@area
def canaries(session: Session, directory: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    canary = session.ask("manage_canaries", "create", projectId=project, name="decoy")["id"]
    session.ask("manage_canaries", "config", canaryId=canary, triggerFreezeRelatedProjects=True)
    shown = session.ask("manage_canaries", "get", canaryId=canary)
    assert (shown["triggerFreezeProject"], shown["triggerFreezeRelatedProjects"]) == (True, True)
    session.ask("manage_canaries", "disable", canaryId=canary)
    assert by_id(session.ask("manage_canaries", "list", projectId=project), canary)["enabled"] is False
    session.ask("manage_canaries", "enable", canaryId=canary)
    _, client = session.reader(directory, project, secret, canary)
    assert len(client.get_secret(canary)) == 64
    with pytest.raises(ApiError) as frozen:
        client.get_secret(secret)
    assert frozen.value.http_status == 423
    assert session.audited("canary_triggered")[0]["severity"] == "critical"
    session.ask("manage_canaries", "unfreeze_project", projectId=project)
    assert client.get_secret(secret) == VALUE
    assert session.ask("manage_canaries", "get", canaryId=canary)["enabled"] is True


@area
def machines(session: Session, directory: Path) -> None:
    machine = session.machine(directory / "1", "first", approved=False)
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
    unwanted = session.machine(directory / "2", "third", approved=False)
    session.ask("manage_machines", "deny", machineId=unwanted)
    left = [row["id"] for row in session.ask("manage_machines", "list")]
    assert machine not in left
    assert unwanted not in left


@area
def machines_in_projects(session: Session, directory: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    machine, client = session.reader(directory, project, secret)
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


@area
def other_agents(session: Session, directory: Path) -> None:
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


@area
def enrollment(session: Session, directory: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    life = {"tokenLifetimeSeconds": 600, "machineLifetimeSeconds": 600, "maxUses": 1}
    made = session.ask(
        "manage_enrollment", "create", name="ci", projectIds=[project], secretIds=[secret], description="d", **life
    )
    vault_id = session.ask("whoami")["vaultId"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIKKERKEY_API_URL", session.vault.url.replace("127.0.0.1", "localhost"))
        client = SikkerKey.bootstrap_in_memory(vault_id, made["token"], hostname="runner")
    assert client.get_secret(secret) == VALUE
    shown = session.ask("manage_enrollment", "get", tokenId=made["id"])
    assert shown["uses"] == 1
    assert made["token"] not in json.dumps(shown)
    assert by_id(session.ask("manage_machines", "list"), client.machine_id)["kind"] == "ephemeral"
    session.ask("manage_enrollment", "revoke", tokenId=made["id"], reason="done")
    assert by_id(session.ask("manage_enrollment", "list"), made["id"])["state"] == "revoked"
    assert client.get_secret(secret) == VALUE


@area
def team(session: Session, directory: Path) -> None:
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


@area
def trash(session: Session, directory: Path) -> None:
    project = session.project()
    kept, purged = session.secret(project, "kept"), session.secret(project, "purged")
    for secret in (kept, purged):
        session.ask("manage_secrets", "delete", projectId=project, secretId=secret)
    assert {kept, purged} <= {row["id"] for row in session.ask("manage_trash", "list")}
    session.ask("manage_trash", "restore", secretId=kept)
    session.ask("manage_trash", "purge", secretId=purged)
    assert [row["id"] for row in session.ask("manage_secrets", "list", projectId=project)] == [kept]
    assert not {kept, purged} & {row["id"] for row in session.ask("manage_trash", "list")}


@area
def alerts(session: Session, directory: Path) -> None:
    assert "canary_triggered" in json.dumps(session.ask("manage_alerts", "actions"))
    session.ask("manage_alerts", "set", enabledActions=["canary_triggered", "project_delete"])
    listed = json.dumps(session.ask("manage_alerts", "list"))
    assert "project_delete" in listed
    session.ask("manage_alerts", "set", enabledActions=[])
    misspelt = session.refused("manage_alerts", "set", enabledActions=["canary_triggerd"])
    assert "similar names: canary_triggered" in misspelt


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


@area
def webhooks(session: Session, directory: Path) -> None:
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


@area
def ip_allowlist(session: Session, directory: Path) -> None:
    project = session.project()
    secret = session.secret(project)
    _, client = session.reader(directory, project, secret)
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


@area
def audit(session: Session, directory: Path) -> None:
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
    assert session.ask("read_audit", "reads_over_time", **{"from": "-2d", "to": "now", "bucket": "day"})
    assert session.ask("read_audit", "usage")


@area
def support(session: Session, directory: Path) -> None:
    category = session.ask("support", "categories")[0]["id"]
    ask = {"categoryId": category, "priority": "high", "title": "Locked out", "body": "Please help."}
    ticket = session.ask("support", "create", **ask)["id"]
    picture = directory / "all.bin"
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


@area
def sdks(session: Session, directory: Path) -> None:
    listed = session.ask("manage_sdks", "list")
    assert {row["id"] for row in listed} == {"python", "node", "go", "dotnet", "kotlin"}
    assert "sikkerkey" in json.dumps(session.ask("manage_sdks", "get", sdkId="python"))


@area
def reviews(session: Session, directory: Path) -> None:
    project = session.project("Reviewed")
    secret = session.secret(project, "database password")
    machine, client = session.reader(directory, project, secret)
    assert client.get_secret(secret) == VALUE
    found = session.ask("review", "find", name="database")["items"]
    assert [(row["kind"], row["id"], row["projectId"]) for row in found] == [("secret", secret, project)]
    assert session.ask("review", "stale_secrets", projectId=project)["items"] == []
    readers = session.ask("review", "access", secret="database password")["items"]
    assert [(row["id"], row["access"]) for row in readers] == [(machine, "yes")]
    covered = session.ask("review", "coverage", projectId=project)
    assert [row["gaps"] for row in covered["items"]] == [["no canary"], ["no policy", "no schedule"]]
    read = session.ask("review", "reads", secret=secret)["items"]
    assert [(row["machineId"], row["machineName"], row["secretName"]) for row in read] == [
        (machine, "reader", "database password")
    ]


@pytest.mark.parametrize("name", AREAS)
def test_area_works(session: Session, name: str) -> None:
    session.run(name)


def test_no_action_was_left_out(session: Session) -> None:
    session.run_all()
    assert session.server.process.poll() is None
    missing = {str(row) for row in ROWS} - set(session.recording.calls)
    assert missing == set(), "add a call of each to an area of tests/test_every_action.py"


def test_documented_examples_are_what_is_answered(session: Session) -> None:
    """`make record` rewrites them."""
    session.run_all()
    if "RECORD_EXAMPLES" in os.environ:
        EXAMPLES.write_text(session.recording.text(), encoding="utf-8")
    documented, given = json.loads(EXAMPLES.read_bytes()), json.loads(session.recording.text())
    assert set(given) - set(documented) == set(), "not recorded yet: run `make record`"
    assert shape(documented) == shape(given), "the answers have changed: run `make record`"


def test_recording_replaces_every_id_and_no_word() -> None:
    ids = ["sk_abcdefghijklmnop", "proj_0123456789abcdef", "0f8fad5b-d9cb-469f-a165-70867728950e"]
    words = ["manage_enrollment", "canary_triggered", "waiting_on_customer"]
    recording = Recording()
    content = {"structuredContent": {"ids": ids[:2], "machineId": ids[2], "words": words[:2], "status": words[2]}}
    recording.add("whoami", {}, content)
    recorded = recording.text()
    assert [text for text in ids if text in recorded] == []
    assert [text for text in words if text not in recorded] == []


def test_no_answer_held_a_stored_value(session: Session) -> None:
    session.run_all()
    seen = b"".join(session.server.lines)
    assert len(seen) > 20_000
    assert found(seen, [VALUE]) == []
