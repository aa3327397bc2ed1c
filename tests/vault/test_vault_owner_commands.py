"""The owner's commands about projects, secrets, scopes, tokens, policies and canaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vault.support.commands import run_command, run_on_terminal
from tests.vault.support.machines import granted_machine
from tests.vault.support.served_vault import ROOT, Agent, Vault
from vault.control import Control
from vault.domains import agents
from vault.owner import commands_projects
from vault.owner.cli import all_commands
from vault.router import wall_clock
from vault.schema import open_store

MARK = "hunter2-m4rked"


class Owner:
    """Runs commands on one vault."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def __call__(self, *line: str, typed: str = "") -> tuple[int, str, str]:
        return run_command(self.vault.directory, *line, typed=typed)

    def json(self, *line: str, typed: str = "") -> Any:
        status, out, err = self(*line, "--json", typed=typed)
        assert status == 0, err
        return json.loads(out)

    def fails(self, *line: str, typed: str = "") -> str:
        """The message of a command that fails."""
        status, out, err = self(*line, typed=typed)
        assert (status, out) == (1, ""), (line, out, err)
        return err.splitlines()[0].removeprefix("vault: error: ")


@pytest.fixture
def owner(vault: Vault) -> Owner:
    vault.clock.now_ms = wall_clock()  # as the commands have it
    return Owner(vault)


@pytest.fixture
def project(owner: Owner) -> str:
    return str(owner.json("project-create", "Webshop", "--description", "the shop")["id"])


# ---- projects --------------------------------------------------------------------------------------------------------


def test_projects_are_created_and_listed(owner: Owner) -> None:
    assert owner("projects")[1:] == (
        "",
        f"hint: no projects yet; create one: python -m vault project-create Webshop --dir {owner.vault.directory}\n",
    )
    status, out, err = owner("project-create", "Webshop", "--description", "the shop")
    made = out.split("(")[1].rstrip(")\n")
    assert (status, out) == (0, f"created Webshop ({made})\n")
    assert err.startswith(f"hint: add a secret: python -m vault put {made} API_KEY")
    listed = owner.json("projects")[0]
    known = (made, "Webshop", "the shop", 0, False)
    assert tuple(listed[key] for key in ("id", "name", "description", "secretCount", "frozen")) == known
    assert owner("projects")[1].splitlines()[1].split() == [made, "Webshop", "0", "open", "the", "shop"]
    assert owner.fails("project-create", "x" * 101).startswith("name must be")


# ---- put -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_value_is_typed_twice_and_replaced_after_a_question(owner: Owner) -> None:
    directory = owner.vault.directory
    status, out, _ = run_on_terminal(directory, "put", "Webshop", "API_KEY", "--note", "n", hidden=[MARK, MARK])
    secret = out.split("(")[1].split(")")[0]
    assert (status, out) == (0, f"created API_KEY ({secret}) in Webshop\n")
    assert owner.vault.value(secret) == MARK
    refused = run_on_terminal(directory, "put", "Webshop", "API_KEY", typed="\n")
    assert refused == (
        1,
        "",
        "Replace the value of API_KEY, now version 1? [y/N] "
        "vault: error: stopped: nothing was changed\nhint: answer y to continue\n",
    )
    status, out, _ = run_on_terminal(
        directory, "put", "Webshop", secret, "--note", "new", typed="y\n", hidden=["second", "second"]
    )
    assert (status, out) == (0, f"replaced API_KEY ({secret}), now version 2\n")
    assert owner.vault.value(secret) == "second"
    assert [each["note"] for each in owner.json("secrets", "Webshop")] == ["new"]
    differs = run_on_terminal(directory, "put", "Webshop", "OTHER", hidden=[MARK, "other"])
    assert differs[2].startswith("vault: error: the values differ\n")
    assert len(owner.json("secrets", "Webshop")) == 1
    for action in ("secret_create", "secret_update", "secret_note_update"):
        assert [row["user_id"] for row in owner.vault.audited(action)] == ["owner"], action


@pytest.mark.usefixtures("project")
def test_a_value_is_read_or_generated(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("one\ntwo\n")
    for line, typed, value in (
        (["--file", "-"], f"{MARK}\n", MARK),
        (["--file", "-", "--yes"], f"{MARK}-2\r\n", f"{MARK}-2"),
        (["--file", str(tmp_path / "pem"), "--yes"], "", "one\ntwo\n"),
    ):
        made = owner.json("put", "Webshop", "KEY", *line, typed=typed)
        assert owner.vault.value(made["id"]) == value, line
    assert (made["version"], made["created"]) == (3, False)
    generated = owner.json("put", "Webshop", "GENERATED", "--generate", "--length", "12", "--charset", "numbers")
    assert owner.vault.value(generated["id"]).isdecimal()
    assert len(owner.vault.value(generated["id"])) == 12
    again = owner.json("put", "Webshop", "GENERATED", "--generate", "--yes")
    assert (again["version"], len(owner.vault.value(again["id"]))) == (2, 32)
    fields = owner.json("put", "Webshop", "DB", "--generate", "--field", "user", "--field", "password")
    assert list(json.loads(owner.vault.value(fields["id"]))) == ["user", "password"]


@pytest.mark.usefixtures("project")
def test_fields_are_asked_for_one_by_one(owner: Owner) -> None:
    directory = owner.vault.directory
    line = ["put", "Webshop", "DB", "--field", "user", "--field", "password"]
    assert run_on_terminal(directory, *line, hidden=["shop", "shop", MARK, MARK])[0] == 0
    secret = owner.json("secrets", "Webshop")[0]
    assert secret["fieldNames"] == ["user", "password"]
    assert json.loads(owner.vault.value(secret["id"])) == {"user": "shop", "password": MARK}
    assert run_on_terminal(directory, "put", "Webshop", "DB", typed="y\n", hidden=["a", "a", "b", "b"])[0] == 0
    assert json.loads(owner.vault.value(secret["id"])) == {"user": "a", "password": "b"}
    wrong = run_on_terminal(directory, "put", "Webshop", "DB", "--field", "other")
    assert wrong[2].startswith("vault: error: the fields of a secret cannot be changed\n")


def test_two_puts_at_once_create_one_secret(owner: Owner, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(*_: object, **__: object) -> str:
        monkeypatch.undo()
        assert owner("put", "Webshop", "API_KEY", "--generate")[0] == 0
        return MARK

    monkeypatch.setattr(commands_projects, "read_hidden", typed)
    assert owner.fails("put", "Webshop", "API_KEY") == "a secret API_KEY was just created"
    assert [each["name"] for each in owner.json("secrets", project)] == ["API_KEY"]


def test_what_put_refuses(owner: Owner, project: str, agent: Agent, tmp_path: Path) -> None:
    canary = agent.post("/v1/ai/canaries", {"projectId": project, "name": "ROOT"})["id"]
    agent.secret(project, "x")
    agent.secret(project, "y")
    assert owner("put", "Webshop", "ONE", "--generate")[0] == 0
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for line, typed, message in (
        (["Webshop", "NEW"], "", "there is no terminal to ask for the value"),
        (["Webshop", "ROOT", "--file", "-"], MARK, "not a terminal, so this cannot be confirmed"),
        (["Webshop", "ROOT", "--file", "-", "--yes"], MARK, "the secret is a canary: the vault controls its value"),
        (["Webshop", "db", "--file", "-", "--yes"], MARK, "secret db is ambiguous"),
        (["Webshop", "NEW", "--file", "-"], MARK + "x" * 20_000, "the input has more than 12290 bytes"),
        (["Webshop", "NEW", "--file", str(tmp_path / "binary")], "", "the input is not UTF-8"),
        (
            ["Webshop", "NEW", "--file", str(tmp_path / "no")],
            "",
            f"file {tmp_path / 'no'} cannot be read: no such file",
        ),
        (["Webshop", "NEW", "--file", "-", "--generate"], MARK, "--generate cannot be combined with --file"),
        (["Webshop", "NEW", "--file", "-", "--field", "a"], MARK, "--field cannot be combined with --file"),
        (["Webshop", "NEW", "--file", "-", "--passphrase-file", "-"], MARK, "standard input cannot be both the file"),
        (["Webshop", "NEW", "--length", "3"], "", "--length and --charset require --generate"),
        (["Webshop", "NEW", "--generate", "--length", "0"], "", "--length must be 1 to 1024"),
        (["Webshop", "NEW", "--generate", "--field", "a", "--field", "a"], "", "--field must not repeat a name"),
        (["Webshop", "x" * 256], "", "name must be a string of 1 to 255 characters"),  # before the value is typed
        (["Webshop", "ONE", "--generate", "--yes", "--note", "n" * 10_001], "", "note must be a string of 0 to 10000"),
        (["Nowhere", "NEW", "--generate"], "", "there is no project Nowhere"),
    ):
        shown = owner.fails("put", *line, typed=typed)
        assert shown.startswith(message), (line, shown)
        assert MARK not in shown
    assert not owner.vault.audited("secret_rotate")
    assert sorted(each["name"] for each in owner.json("secrets", "Webshop")) == ["ONE", "ROOT", "db", "db"]
    assert len(owner.vault.value(canary)) == 64


def test_a_value_on_the_command_line_is_refused_unrepeated(owner: Owner, project: str) -> None:
    for line in ([MARK], [f"--value={MARK}"], ["--value", MARK], ["--note", "x", MARK]):
        status, out, err = owner("put", project, "API_KEY", *line)
        assert (status, out) == (2, ""), line
        assert MARK not in err


@pytest.mark.usefixtures("project")
def test_ctrl_c_at_a_prompt_is_status_130_and_changes_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("getpass.getpass", interrupt)
    assert owner("put", "Webshop", "API_KEY") == (130, "", "")
    assert owner.json("secrets", "Webshop") == []


# ---- reveal ----------------------------------------------------------------------------------------------------------


def test_a_value_is_revealed_after_a_fresh_yes(owner: Owner, project: str) -> None:
    directory = owner.vault.directory
    owner.json("put", project, "API_KEY", "--file", "-", typed=f"{MARK}\n")
    assert owner.fails("reveal", "API_KEY") == "the value would go to a pipe or a file"
    question = "Show the value of API_KEY here? The audit log records it. [y/N] "
    for answer in ("", "\n", "n\n", "x\n"):
        status, out, err = run_on_terminal(directory, "reveal", "API_KEY", typed=answer)
        assert (status, out, err.startswith(question)) == (1, "", True), answer
    assert owner.vault.audited("secret_reveal") == []
    assert run_on_terminal(directory, "reveal", "API_KEY", typed="y\n") == (0, f"{MARK}\n", question)
    assert owner("reveal", "API_KEY", "--yes") == (0, MARK, "")
    assert owner.json("reveal", "API_KEY", "--yes")["value"] == MARK
    assert [row["severity"] for row in owner.vault.audited("secret_reveal")] == ["high"] * 3
    assert owner.fails("reveal", "API_KEY", "--yes", "--version", "7") == "no such version"


def test_a_revealed_value_cannot_control_the_terminal(owner: Owner, project: str) -> None:
    owner.json("put", project, "PEM", "--file", "-", typed="one\x1b[2J\ntwo\n")
    shown = run_on_terminal(owner.vault.directory, "reveal", "PEM", "--yes")
    assert shown[1] == "one\ufffd[2J\ntwo\n\n"
    assert owner("reveal", "PEM", "--yes")[1] == "one\x1b[2J\ntwo\n"


def test_one_field_and_the_project_can_be_chosen(owner: Owner, project: str, agent: Agent) -> None:
    value = json.dumps({"user": "shop", "password": MARK})
    agent.secret(project, value, fieldNames=["user", "password"])
    other = agent.project("Other")
    agent.secret(other, "x")
    assert owner.fails("reveal", "db", "--yes") == "secret db is ambiguous"
    assert owner("reveal", "db", "--project", "Webshop", "--field", "password", "--yes")[1] == MARK
    assert owner.fails("reveal", "db", "--project", "Other", "--field", "password", "--yes").startswith(
        "the secret has"
    )


def test_a_vault_with_no_reveal_shows_no_value(owner: Owner, project: str, tmp_path: Path) -> None:
    owner.json("put", project, "API_KEY", "--generate")
    with Control(owner.vault.store, owner.vault.clock, "http://here", "https://here", reveal=False):
        assert owner.fails("reveal", "API_KEY", "--yes") == "this vault is served with --no-reveal"
    with Control(owner.vault.store, owner.vault.clock, "http://here", "https://here"):
        assert owner("reveal", "API_KEY", "--yes")[0] == 0
    closed = tmp_path / "closed"
    assert run_command(closed, "init", "--no-reveal")[0] == 0
    run_command(closed, "project-create", "Webshop")
    run_command(closed, "put", "Webshop", "API_KEY", "--generate")
    assert run_command(closed, "reveal", "API_KEY", "--yes")[2].startswith(
        "vault: error: this vault never reveals values"
    )
    assert run_command(closed, "verify")[0] == 0


def test_revealing_what_was_changed_from_outside_is_audited(owner: Owner, project: str) -> None:
    owner.json("put", project, "API_KEY", "--generate")
    with owner.vault.store.transaction() as db:
        db.execute("UPDATE secret_versions SET ciphertext = x'00'")
    assert owner.fails("reveal", "API_KEY", "--yes").startswith("data of this vault was changed from outside")
    assert [row["severity"] for row in owner.vault.audited("integrity_failure")] == ["critical"]


# ---- import ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_file_is_imported_after_a_preview_and_a_question(owner: Owner, tmp_path: Path) -> None:
    file, directory = tmp_path / "shop.env", owner.vault.directory
    file.write_text(f"A={MARK}\nexport B='two\nlines'\n")
    status, out, err = owner("import", "Webshop", str(file), "--dry-run")
    assert (status, err) == (0, "hint: nothing was changed\n")
    assert [line.split() for line in out.splitlines()] == [
        ["LINE", "NAME", "OUTCOME", "REASON"], ["1", "A", "new"], ["2", "B", "new"], ["2", "new"],
    ]  # fmt: skip
    assert owner.fails("import", "Webshop", str(file)) == "not a terminal, so this cannot be confirmed"
    assert owner.json("secrets", "Webshop") == []
    status, out, err = run_on_terminal(directory, "import", "Webshop", str(file), typed="y\n")
    assert (status, out) == (0, "imported into Webshop: 2 new\n")
    assert "Import into Webshop: 2 new? [y/N] " in err
    file.write_text(f"A=changed\nB='two\nlines'\nC={MARK}\n")
    done = owner.json("import", "Webshop", str(file), "--yes")
    assert (done["new"], done["replaced"], done["unchanged"], done["imported"]) == (1, 1, 1, True)
    assert [each["outcome"] for each in done["entries"]] == ["replaced", "unchanged", "new"]
    assert owner("import", "Webshop", str(file), "--yes")[1].splitlines()[-1] == "3 unchanged"
    found = {each["name"]: owner.vault.value(each["id"]) for each in owner.json("secrets", "Webshop")}
    assert found == {"A": "changed", "B": "two\nlines", "C": MARK}


@pytest.mark.usefixtures("project")
def test_a_wrong_file_imports_nothing_and_is_not_quoted(owner: Owner) -> None:
    message = owner.fails("import", "Webshop", "-", "--yes", typed=f"A=1\n{MARK}\n")
    assert message == "line 2 is not NAME=value"
    assert owner.json("secrets", "Webshop") == []
    assert owner.fails("import", "Webshop", "/nonexistent", "--yes").startswith("file /nonexistent cannot be read")


# ---- trash, freezes, policies ----------------------------------------------------------------------------------------


def test_a_deleted_secret_is_listed_and_restored(owner: Owner, project: str, agent: Agent) -> None:
    assert owner("trash")[2] == "hint: the trash is empty\n"
    path = agent.secret(project, "x")
    agent.post(path + "/delete")
    assert [each["name"] for each in owner.json("trash")] == ["db"]
    assert owner("trash")[1].splitlines()[1].split()[-1] == "Webshop"
    assert owner.fails("trash", "--restore", "nothing") == "there is no secret in the trash nothing"
    secret = path.rpartition("/")[2]
    assert owner("trash", "--restore", "db") == (0, f"restored db ({secret})\n", "")
    assert owner.json("trash") == []
    assert [row["user_id"] for row in owner.vault.audited("secret_restore")] == ["owner"]


def test_a_secret_is_deleted_after_a_question(owner: Owner, project: str) -> None:
    secret, other = (owner.json("put", project, name, "--generate")["id"] for name in ("API_KEY", "OTHER"))
    assert owner.fails("delete", "API_KEY") == "not a terminal, so this cannot be confirmed"
    directory = owner.vault.directory
    status, _, err = run_on_terminal(directory, "delete", "API_KEY", typed="n\n")
    assert (status, "Move API_KEY to the trash? Machines cannot read it any more. [y/N]" in err) == (1, True)
    status, out, err = owner("delete", "API_KEY", "--yes", "--project", "Webshop")
    assert (status, out) == (0, f"moved API_KEY ({secret}) to the trash\n")
    assert [row["user_id"] for row in owner.vault.audited("secret_delete")] == ["owner"]
    assert [each["id"] for each in owner.json("secrets", "Webshop")] == [other]
    restoring = err.partition("hint: undo it: ")[2].split()
    assert owner(*restoring[restoring.index("trash") :])[0] == 0
    assert owner.fails("delete", "nothing", "--yes") == "there is no secret nothing"


def test_a_project_that_a_canary_froze_is_unfrozen(owner: Owner, project: str, agent: Agent) -> None:
    assert owner("canaries")[2].startswith("hint: no canaries yet")
    canary = agent.post("/v1/ai/canaries", {"projectId": project, "name": "ROOT_PASSWORD"})["id"]
    machine = granted_machine(owner.vault, canary)
    assert owner("unfreeze", "Webshop")[1] == f"Webshop ({project}) was not frozen\n"
    assert machine.send("GET", f"/v1/secret/{canary}").status == 200
    assert owner("projects")[2].startswith(f"hint: to unfreeze Webshop: python -m vault unfreeze {project}")
    row = owner("canaries", "--project", "Webshop")[1].splitlines()[1].split()
    assert (row[0], row[1:4], row[-2:]) == (canary, ["ROOT_PASSWORD", "enabled", "1"], ["Webshop", "(frozen)"])
    assert owner("unfreeze", "Webshop")[1] == f"unfroze Webshop ({project})\n"
    assert [each["frozen"] for each in owner.json("projects")] == [False]
    assert [each["projectFrozenAt"] for each in owner.json("canaries")] == [None]


def test_policies_say_what_they_mean(owner: Owner, project: str, agent: Agent) -> None:
    assert owner("policies", "Webshop")[2].startswith("hint: no policies yet")
    caps = {"rateCapEnabled": True, "maxReadsPerMinute": 5}
    policy = agent.post(f"/v1/ai/projects/{project}/policies", {"name": "Slow", **caps})["id"]
    meaning = "Machines may read at most 5 times a minute. Bound to no secret yet."
    assert owner("policies", "Webshop")[1].splitlines()[1] == f"{policy}  Slow  {meaning}"
    assert [each["meaning"] for each in owner.json("policies", "Webshop")] == [meaning]


# ---- scopes, tokens, members -----------------------------------------------------------------------------------------


def test_scopes_are_shown_and_changed_with_a_warning(owner: Owner, project: str, agent: Agent) -> None:
    directory = owner.vault.directory
    status, out, err = owner("scopes", "AI agent", "--set", "projects.read,audit.read", "--projects", "Webshop")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"AI agent ({agent.id}), projects: Webshop"
    assert agent.get("/v1/ai/whoami")["projectAllowlist"] == [project]
    status, _, err = owner("scopes", agent.id, "--add", "aiagents.write,machines.read")
    assert (status, err) == (
        0,
        f"vault: warning: aiagents.write leads to plaintext: the agent {agents.LEADS_TO_PLAINTEXT['aiagents.write']}\n",
    )
    shown = owner.json("scopes", agent.id)
    assert shown["scopes"] == ["projects.read", "audit.read", "aiagents.write", "machines.read"]
    assert (shown["projectAllowlist"], shown["leadsToPlaintext"]) == ([project], ["aiagents.write"])
    assert owner("scopes", agent.id, "--remove", "aiagents.write", "--projects", "all")[2] == ""
    known = agent.get("/v1/ai/whoami")
    assert (known["scopes"], known["projectAllowlist"]) == (["projects.read", "audit.read", "machines.read"], None)
    assert owner.fails("scopes", agent.id, "--remove", "team.read") == "the agent does not have team.read"
    assert owner.fails("scopes", agent.id, "--add", "magic") == "unknown scope magic"
    assert owner.fails("scopes", agent.id, "--set", "all", "--projects", "x").startswith("there is no project x")
    assert owner("scopes", agent.id, "--add", "a", "--set", "b")[0] == 2
    assert run_command(directory, "verify")[0] == 0
    assert len(owner.vault.audited("ai_agent_scopes")) == 3


def test_tokens_are_listed_and_cancelled(owner: Owner, project: str) -> None:
    assert owner("tokens")[2] == "hint: no unused tokens\n"
    token = owner.json("agent-token", "--scopes", "audit.read", "--name", "laptop", "--projects", "Webshop")["token"]
    listed = owner.json("tokens")[0]
    assert (listed["name"], listed["scopes"], listed["projectAllowlist"]) == ("laptop", ["audit.read"], [project])
    assert token not in json.dumps(listed)
    assert owner("tokens")[1].splitlines()[1].split()[-1] == "audit.read"
    assert owner("tokens", "--cancel", "laptop") == (0, "", "hint: cancelled\nhint: no unused tokens\n")
    assert owner.fails("tokens", "--cancel", "laptop") == "there is no unused token laptop"


def test_members_are_listed_with_their_projects(owner: Owner, project: str, agent: Agent) -> None:
    assert owner("members")[2].startswith("hint: no members yet")
    agent.post("/v1/ai/team/invites", {"email": "anna@example.com"})
    member = owner.json("accept-invite", "anna@example.com")["memberId"]
    agent.post(f"/v1/ai/projects/{project}/permissions", {"memberId": member, "permissions": []})
    assert [each["projectName"] for each in owner.json("members")[0]["projects"]] == ["Webshop"]
    assert owner("members")[1].splitlines()[1].split()[::4] == [member, "Webshop"]


# ---- a vault with a passphrase ---------------------------------------------------------------------------------------


def test_commands_ask_for_the_passphrase_of_a_sealed_vault(tmp_path: Path) -> None:
    directory, words = tmp_path / "vault", "several unrelated words"
    open_store(directory, words).close()
    assert run_on_terminal(directory, "project-create", "Webshop", hidden=[words])[0] == 0
    status, out, _ = run_command(directory, "projects", "--passphrase-file", "-", "--json", typed=f"{words}\n")
    assert (status, [each["name"] for each in json.loads(out)]) == (0, ["Webshop"])
    assert run_command(directory, "projects")[2].startswith(
        "vault: error: there is no terminal to ask for the passphrase"
    )


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "vault.md").read_text(encoding="utf-8")
    table = page.split("| command | what it does |")[1].split("\n\n")[0]
    assert [name for name in all_commands().commands if f"`{name}" not in table] == []
