"""The owner's command line: output, hints, errors and exit statuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.harness import fingerprint
from tests.vault.support.commands import run_command, run_line
from tests.vault.support.served_vault import START_MS, Agent, Vault
from vault.control import Control
from vault.owner import commands_vault
from vault.router import wall_clock
from vault.terminal import printable

UNKNOWN = "00000000-0000-0000-0000-000000000000"


class Owner:
    """Runs commands on one vault, and returns status, standard output and standard error."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, command: str, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        return run_command(self.directory, command, *arguments, typed=typed)


@pytest.fixture
def owner(vault: Vault) -> Owner:
    return Owner(vault.directory)


def test_agent_token_prints_the_token_and_nothing_else(vault: Vault, owner: Owner) -> None:
    status, out, err = owner("agent-token", "--scopes", "projects.read, audit.read,projects.read", "--name", "Bob")
    assert (status, err.count("hint: ")) == (0, 2)
    vault.clock.now_ms = START_MS  # the command used the real clock, which is later than this one
    reply = vault.register(out.strip(), Ed25519PrivateKey.generate())
    assert reply.json["name"] == "Bob"
    _, listing, _ = owner("agents", "--json")
    assert [row["scopes"] for row in json.loads(listing)] == [["projects.read", "audit.read"]]


def test_a_token_can_be_bound_to_projects(vault: Vault, owner: Owner, agent: Agent) -> None:
    project_id = agent.project()
    _, out, _ = owner("agent-token", "--scopes", "all", "--projects", project_id)
    agent_id = vault.register(out.strip(), Ed25519PrivateKey.generate()).json["agentId"]
    rows = {row["agentId"]: row for row in json.loads(owner("agents", "--json")[1])}
    assert rows[agent_id]["projectAllowlist"] == [project_id]
    assert rows[agent.id]["projectAllowlist"] is None


def test_agents_shows_a_table(vault: Vault, owner: Owner) -> None:
    status, out, err = owner("agents")
    assert (status, out) == (0, "")
    assert err.startswith("hint: no agents yet")
    agent = vault.pending(("audit.read",))
    header, row = owner("agents")[1].splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "KEY", "SCOPES", "PROJECTS"]
    assert row.split() == [agent.id, "AI", "agent", "pending", fingerprint(agent.key), "audit.read", "all"]


def test_a_hostile_name_cannot_control_the_terminal(vault: Vault, owner: Owner) -> None:
    hostile = "a\x1b[2J\u202eb\u200b\u3164\nc"
    reply = vault.register(vault.token(), Ed25519PrivateKey.generate(), name=hostile)
    _, out, _ = owner("agents")
    assert len(out.splitlines()) == 2
    assert "a\ufffd[2J\ufffdb\ufffd\ufffd\ufffdc" in out
    assert hostile not in owner("approve", reply.json["agentId"])[1]
    assert printable("søger 秘密 🔑\u00a0x") == "søger 秘密 🔑 x"


def test_approve_disable_and_enable_say_what_they_did(vault: Vault, owner: Owner) -> None:
    agent = vault.pending()
    status, out, err = owner("enable", agent.id)
    assert (status, out) == (0, f"enabled AI agent ({agent.id})\n")
    assert err.startswith("hint: the agent is pending until")
    approved = f"approved AI agent ({agent.id}) with the key {fingerprint(agent.key)}\n"
    assert owner("approve", agent.id) == (0, approved, "")
    assert json.loads(owner("approve", agent.id, "--json")[1])["fingerprint"] == fingerprint(agent.key)
    assert owner("disable", agent.id) == (0, f"disabled AI agent ({agent.id})\n", "")
    assert json.loads(owner("agents", "--json")[1])[0]["state"] == "disabled"
    assert owner("approve", agent.id)[2].startswith("hint: the agent is disabled")
    assert [row["user_id"] for row in vault.audited("ai_agent_disable")] == ["owner"]


@pytest.mark.parametrize("command", ["approve", "disable", "enable"])
def test_an_unknown_agent_is_an_error(owner: Owner, command: str) -> None:
    status, out, err = owner(command, UNKNOWN)
    known = f"vault: error: there is no agent or machine {UNKNOWN}\nhint: there are none yet\n"
    assert (status, out, err) == (1, "", known)


def test_a_command_on_a_directory_that_is_no_vault_creates_nothing(tmp_path: Path) -> None:
    for command, *arguments in (
        ("agent-token", "--scopes", "all"),
        ("machine-bootstrap", "--name", "web"),
        ("agents",),
        ("approve", "x"),
        ("status",),
        ("audit",),
        ("rekey",),
        ("backup", str(tmp_path / "file")),
    ):
        status, out, err = run_command(tmp_path / "nothing", command, *arguments)
        assert (status, out, err.startswith("vault: error: there is no vault in")) == (1, "", True), (command, err)
        assert not (tmp_path / "nothing" / "vault.db").exists(), command


def test_an_invalid_token_request_is_explained(owner: Owner) -> None:
    for arguments, message in [
        (["--scopes", "projects.read,magic"], "unknown scope magic"),
        (["--scopes", "\x1b[2J"], "unknown scope \ufffd[2J"),
        (["--scopes", ","], "no scope given"),
        (["--scopes", "all", "--projects", "proj_x"], "there is no project proj_x"),
        (["--scopes", "all", "--projects", ""], "no project given"),
        (["--scopes", "all", "--name", "x" * 256], "the name must have 1 to 255 characters"),
    ]:
        status, out, err = owner("agent-token", *arguments)
        assert (status, out, err.splitlines()[0]) == (1, "", f"vault: error: {message}"), (arguments, message)
        assert err.splitlines()[1].startswith("hint: "), (arguments, message)


def test_the_hint_for_an_unknown_scope_lists_those_that_exist(owner: Owner) -> None:
    assert "projects.secrets.write" in owner("agent-token", "--scopes", "magic")[2]


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--colour"]])
def test_a_usage_error_is_status_2(owner: Owner, arguments: list[str]) -> None:
    status, out, err = owner("serve", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("vault: error: ")
    assert err.splitlines()[1].startswith("hint: python -m vault ")


def test_a_usage_error_is_said_in_plain_words() -> None:
    """Not in those of argparse."""
    for line, told in (
        ("", "COMMAND is missing"),
        ("put", "PROJECT and NAME are missing"),
        ("agent-token", "--scopes is missing"),
        ("agent-token --scopes", "--scopes needs a value"),
        ("serve --port x", "--port must be a number from 0 to 65535"),
        ("status --json=x", "--json takes no value"),
        ("rekey --to paper", "--to must be one of: passphrase, key-file"),
    ):
        status, out, err = run_line(line.split(), io.StringIO(), io.StringIO())
        assert (status, out, err.splitlines()[0]) == (2, "", f"vault: error: {told}"), line


def test_a_mistyped_directory_creates_no_vault(tmp_path: Path) -> None:
    for command in ("agents", "machines", "audit", "status", "team", "tickets", "rekey", "unseal"):
        status, out, err = Owner(tmp_path / "typo")(command)
        assert (status, out, err.splitlines()[0]) == (1, "", f"vault: error: there is no vault in {tmp_path / 'typo'}")
    assert not (tmp_path / "typo" / "vault.db").exists()


def test_a_machine_is_created_listed_approved_and_revoked(vault: Vault, owner: Owner, tmp_path: Path) -> None:
    assert owner("machines")[2].startswith("hint: no machines yet")
    home = tmp_path / "home"
    line = ["--name", "ci", "--home", str(home), "--json"]
    assert owner("machine-bootstrap", *line)[2].startswith("vault: error: no server is running")
    status, out, err = owner("machine-bootstrap", *line, "--url", "http://localhost:8300")
    made = json.loads(out)
    directory = home / "vaults" / vault.store.vault_id
    known = {"machineId": made["machineId"], "name": "ci"}
    assert (status, made) == (0, {**known, "kind": "standard", "directory": str(directory)})
    approving = f"python -m vault approve {made['machineId']} --dir {vault.directory}"
    pending, keep = err.splitlines()
    assert pending == f"hint: the machine is pending until you run: {approving}"
    assert "away from any assistant" in keep
    assert json.loads((directory / "identity.json").read_text())["machineId"] == made["machineId"]
    assert [row["state"] for row in json.loads(owner("machines", "--json")[1])] == ["pending"]
    assert owner("disable", made["machineId"])[2].startswith("vault: error: machines cannot be enabled or disabled")
    assert json.loads(owner("approve", made["machineId"], "--json")[1]) == {**known, "state": "approved"}
    header, row = owner("machines")[1].splitlines()
    assert header.split() == ["ID", "NAME", "KIND", "STATE", "HOSTNAME", "LAST", "SEEN"]
    assert row.split()[:4] == [made["machineId"], "ci", "standard", "approved"]
    assert owner("revoke", made["machineId"])[:2] == (0, f"revoked ci ({made['machineId']})\n")
    assert json.loads(owner("machines", "--json")[1]) == []


def test_a_machine_takes_its_url_from_the_running_server(vault: Vault, owner: Owner, tmp_path: Path) -> None:
    with Control(vault.store, vault.clock, "http://127.0.0.1:8301", "https://127.0.0.1:1#sha256=00"):
        line = ["--name", "ci", "--temp", "--home", str(tmp_path / "home"), "--json"]
        made = json.loads(owner("machine-bootstrap", *line)[1])
    identity = json.loads((Path(made["directory"]) / "identity.json").read_text())
    assert (made["kind"], identity["apiUrl"]) == ("temp", "http://localhost:8301")


def test_invitations_are_accepted_and_declined_on_behalf_of_the_invitee(
    vault: Vault, owner: Owner, agent: Agent
) -> None:
    assert owner("team")[2].startswith("hint: no invitations yet")
    vault.clock.now_ms = wall_clock()  # as the commands have it: an invitation lasts seven days
    ids = [
        agent.post("/v1/ai/team/invites", {"email": f"{name}@example.com"})["inviteId"] for name in ("anna", "bo", "cy")
    ]
    status, out, _ = owner("accept-invite", ids[0], "--json")
    assert (status, json.loads(out)["email"]) == (0, "anna@example.com")
    assert owner("decline-invite", ids[1])[:2] == (0, "declined the invitation of bo@example.com\n")
    assert owner("accept-invite", ids[1])[2].startswith("vault: error: the invitation is declined\n")
    states = {row["email"]: row["state"] for row in json.loads(owner("team", "--json")[1])}
    assert states == {"anna@example.com": "accepted", "bo@example.com": "declined", "cy@example.com": "pending"}
    assert [row["email"] for row in agent.get("/v1/ai/team")["members"]] == ["anna@example.com"]
    assert len(owner("team")[1].splitlines()) == 4
    assert owner("owner-email", "Me@Example.com")[:2] == (0, "the owner is me@example.com\n")
    assert agent.send("POST", "/v1/ai/team/invites", {"email": "me@example.com"}).status == 409


def test_the_staff_reads_a_ticket_and_replies_with_a_file(
    vault: Vault, owner: Owner, agent: Agent, tmp_path: Path
) -> None:
    assert owner("tickets")[2] == "hint: no open tickets\n"
    category = agent.get("/v1/ai/ticket-categories")[0]["id"]
    ticket = {"categoryId": category, "priority": "low", "title": "a\x1b[2J", "body": "first\nsecond \u202e"}
    ticket_id = agent.post("/v1/ai/tickets", ticket)["id"]
    assert "\x1b" not in owner("tickets")[1]
    assert [row["id"] for row in json.loads(owner("tickets", "--json")[1])] == [ticket_id]
    assert owner("ticket", ticket_id)[1].splitlines()[1:] == ["first", "second \ufffd"]
    (tmp_path / "log.txt").write_bytes(b"look")
    options = ["--attach", str(tmp_path / "log.txt"), "--status", "resolved"]
    status, out, err = owner("reply", ticket_id, *options, typed="Try again.\nThen tell us.\n")
    assert (status, out, err) == (0, f"replied to {ticket_id}, now resolved\n", "")
    said = json.loads(owner("ticket", ticket_id, "--json")[1])[1]
    file = said["attachments"][0]
    assert (said["author"], said["body"]) == ("staff", "Try again.\nThen tell us.")
    assert (file["name"], file["contentType"], file["sizeBytes"]) == ("log.txt", "text/plain", 4)
    assert agent.send("GET", f"/v1/ai/tickets/attachments/{file['id']}").raw == b"look"
    assert agent.get(f"/v1/ai/tickets/{ticket_id}")["status"] == "resolved"
    assert owner("reply", ticket_id, typed="x" * 20_000)[2].startswith(
        "vault: error: the reply must have 1 to 10000 characters"
    )
    missing = owner("reply", ticket_id, "--attach", str(tmp_path / "nothing"))[2]
    assert missing.startswith(f"vault: error: file {tmp_path / 'nothing'} cannot be read: no such file")


def test_audit_shows_the_latest_matching_entries(vault: Vault, owner: Owner, agent: Agent) -> None:
    project_id = agent.project("Payments")
    agent.secret(project_id, "x")
    agent.project("Other")
    every = json.loads(owner("audit", "--json")[1])
    assert [row["action"] for row in every][-3:] == ["project_create", "secret_create", "project_create"]
    assert every[-1]["aiAgentId"] == agent.id
    assert [row["id"] for row in json.loads(owner("audit", "--limit", "2", "--json")[1])] == [
        row["id"] for row in every[-2:]
    ]
    for options, count in (
        (["--action", "project_create"], 2),
        (["--project", project_id], 2),
        (["--search", "PAYMENTS"], 1),
        (["--severity", "critical"], 0),
        (["--severity", "low", "--project", project_id, "--action", "secret_create"], 1),
    ):
        assert len(json.loads(owner("audit", *options, "--json")[1])) == count
    header, *rows = owner("audit", "--action", "project_create")[1].splitlines()
    assert header.split() == ["TIME", "SEVERITY", "ACTION", "ACTOR", "DETAIL"]
    assert rows[0].split()[:3] == ["2026-01-01", "00:00:00Z", "low"]
    assert owner("audit", "--limit", "0")[0] == owner("audit", "--action", "magic")[0] == 2


def test_following_prints_each_new_entry_once(
    vault: Vault, owner: Owner, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["second", "third"]

    def wait() -> bool:
        if names:
            agent.project(names.pop(0))
            return True
        return False

    agent.project("first")
    monkeypatch.setattr(commands_vault, "_wait", wait)
    status, out, _ = owner("audit", "--follow", "--json", "--action", "project_create")
    assert status == 0
    details = [json.loads(line)["detail"].rpartition(" ")[2] for line in out.splitlines()]
    assert details == ["first", "second", "third"]


def test_interrupting_follow_ends_quietly(vault: Vault, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands_vault, "_wait", interrupt)
    assert owner("audit", "--follow") == (130, "", "")


def test_a_directory_that_cannot_be_used_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    status, _, err = Owner(tmp_path / "file" / "vault")("agents")
    assert (status, err.splitlines()[0].endswith("cannot be used: not a directory")) == (1, True)
