"""`setup`: what it asks, the plan that it shows, what it does, and that nothing is half done."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_identity
from sikkerkey_cli import clients, config, doctor, entries, setup, terminal
from tests.support.harness import AGENT_ID, ARCHIVE_COMMAND, VAULT_ID, CannedResponse, Recorder, make_slot
from tests.support.local_vault import LocalVault
from tests.support.rows import each_of
from tests.support.shell import Ran, Shell, Terminal

TOKEN = "c0ffee" * 10 + "cafe"
OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
QUESTIONS = {  # in their order, by what is asked
    "agent": "Which agent",
    "vault": "The vault's address",
    "name": "The agent's name",
    "token": "token",
    "clients": "Which clients",
    "restrictions": "What may the assistant do",
    "values": "Who gives the values",
    "confirm": "What must a person confirm",
    "plan": "Do this?",
    "wait": "Wait for that?",
}


class Vault:
    """A vault that registers agents and says of each that it is pending or approved."""

    def __init__(self, recorder: Recorder) -> None:
        self.url, self.seen = recorder.url, recorder.seen
        self.pending_for = 0  # so many requests
        recorder.answer = self._answer

    def _answer(self, seen: Any) -> CannedResponse:
        if seen.path == "/v1/ai-bootstrap/register":
            members = {"agentId": OTHER_ID, "name": seen.json()["name"], "vaultId": VAULT_ID}
            return CannedResponse(201, json.dumps(members).encode())
        if self.pending_for:
            self.pending_for -= 1
            return CannedResponse(403, b'{"error":"the agent is pending"}')
        return CannedResponse(body=b'{"approved":true,"enabled":true,"scopes":[],"projectAllowlist":null}')

    @property
    def registered(self) -> list[Any]:
        """The bodies of the registrations."""
        return [seen.json() for seen in self.seen if seen.path == "/v1/ai-bootstrap/register"]


@pytest.fixture
def vault(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Vault:
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    return Vault(recorder)


@pytest.fixture(autouse=True)
def computer(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer with Cursor and Codex, on which doctor finds nothing."""
    (home / ".cursor").mkdir()
    (home / ".codex").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "checked", lambda _agent: iter([doctor.Line("python", "ok", "fine")]))
    monkeypatch.setattr(setup, "POLL_S", 0.0)
    return home


class Person:
    """Stands for the terminal: answers each question with what `answers` has for it, else with Enter."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str | BaseException]] = {}
        self.asked: list[str] = []
        self._written = ""

    def isatty(self) -> bool:
        return True

    def note(self, text: str) -> None:
        self._written += text

    def readline(self, _limit: int = -1) -> str:
        found = [(self._written.rfind(words), name) for name, words in QUESTIONS.items()]
        name = max(found)[1]
        self.asked.append(name)
        given = self.answers.get(name, [])
        answer = given.pop(0) if given else ""
        if isinstance(answer, BaseException):
            raise answer
        return f"{answer}\n"

    def getpass(self, prompt: str) -> str:
        self.note(prompt)
        answer = self.readline()[:-1]
        return answer or TOKEN


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Person:
    """A person at a terminal."""
    made = Person()
    monkeypatch.setattr(sys, "stdin", made)
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: stream in (sys.stdin, sys.stderr))
    monkeypatch.setattr(terminal, "PROGRESS_AFTER_S", 1_000.0)
    monkeypatch.setattr(getpass, "getpass", made.getpass)
    ask = terminal.ask

    def noted(prompt: str) -> str:
        made.note(prompt)
        return ask(prompt)

    listed = terminal.list_choices

    def listed_too(question: str, choices: Any) -> None:
        made.note(question)
        listed(question, choices)

    monkeypatch.setattr(terminal, "ask", noted)
    monkeypatch.setattr(terminal, "list_choices", listed_too)
    return made


def tree(home: Path) -> dict[str, bytes]:
    """Every file in the home."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def args_in(home: Path, key: str = "sikkerkey") -> list[str]:
    """What Cursor passes to the server after `serve`."""
    args = json.loads((home / ".cursor" / "mcp.json").read_text())["mcpServers"][key]["args"]
    return list(args[args.index("serve") + 1 :])


# a person at a terminal


def test_enter_takes_every_default(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    ran = shell("setup")
    assert (ran.status, person.asked) == (0, [name for name in QUESTIONS if name not in ("agent", "wait")])
    assert [(body["token"], body["name"]) for body in vault.registered] == [(TOKEN, setup.computer_name())]
    assert args_in(home) == ["--agent", OTHER_ID, "--values", "from-person"]
    assert OTHER_ID in (home / ".codex" / "config.toml").read_text()
    assert "1 ok, 0 warn, 0 fail" in ran.out
    assert ran.err.endswith(f"restart Cursor and Codex, then ask your assistant:\n  {setup.FIRST_SENTENCE}\n")
    assert TOKEN not in ran.out + ran.err


def test_a_new_key_is_protected_by_a_passphrase_that_is_asked_for(
    shell: Shell, person: Person, vault: Vault, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return TOKEN if prompt == "token: " else "correct horse battery staple"

    monkeypatch.setattr(getpass, "getpass", typed)
    ran = shell("setup", "--passphrase")
    assert (ran.status, prompts) == (0, ["token: ", "new passphrase: ", "again: "]), ran.err
    assert f"with {vault.url}; a passphrase protects its key\n" in ran.out
    assert b"ENCRYPTED" in (home / ".sikkerkey" / "agents" / OTHER_ID / "private.pem").read_bytes()
    assert "passphrase" not in (home / ".cursor" / "mcp.json").read_text()


def test_protection_is_for_a_new_key_only(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url)
    for flag in ("--passphrase", "--key-store"):
        ran = shell("setup", flag, "--agent", AGENT_ID)
        assert (ran.status, vault.seen, person.asked) == (2, [], [])
        assert ran.err.endswith(
            f"\nsikkerkey-mcp: error: {flag} is for the key of a new agent\n"
            f"hint: `sikkerkey-mcp rotate-key - {flag}` gives an installed agent a new key; or pass --agent new\n"
        )


def test_a_missing_key_store_is_noticed_before_anything_is_asked(
    shell: Shell, person: Person, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    ran = shell("setup", "--key-store")
    assert (ran.status, vault.seen, person.asked) == (1, [], [])
    assert "this system has no key store" in ran.err


def test_second_run_changes_nothing_and_asks_for_no_agreement(
    shell: Shell, person: Person, vault: Vault, home: Path
) -> None:
    person.answers = {"restrictions": ["2"], "values": ["2"], "confirm": ["3"]}
    assert shell("setup").status == 0
    assert args_in(home) == ["--agent", OTHER_ID, "--read-only", "--confirm", "writes"]
    before, person.asked = tree(home), []
    ran = shell("setup")
    assert (ran.status, tree(home), len(vault.registered)) == (0, before, 1)
    assert person.asked == ["agent", "clients", "restrictions", "values", "confirm"]
    assert "\nnothing has to be changed\n" in ran.err
    assert "as now: --read-only" in ran.err


def test_answers_are_used(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url)
    person.answers = {
        "agent": ["3", "2"],
        "name": ["x" * 256, "my laptop"],
        "token": ["short", TOKEN],
        "clients": ["7", "cursr", "zed, 1"],
        "restrictions": ["3", "none", "manage_secrets 1"],
    }
    ran = shell("setup")
    assert ran.status == 0, ran.err
    assert [body["name"] for body in vault.registered] == ["my laptop"]
    assert args_in(home, "sikkerkey-my-laptop")[2:4] == ["--tools", "whoami,manage_secrets"]
    assert not (home / ".codex" / "config.toml").exists()
    for told in ("type a number from 1 to 2", "the name must be at most", "the token must be", "did you mean cursor?"):
        assert told in ran.err, told


def test_plan_shows_each_file_and_no_is_no(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    person.answers = {"plan": ["what", "n"]}
    ran = shell("setup")
    assert (ran.status, tree(home), vault.seen) == (1, {}, [])
    assert f"as the agent {setup.computer_name()!r} with {vault.url}\n" in ran.out
    for path in (".cursor/mcp.json", ".codex/config.toml"):
        assert f"--- {os.devnull}\n+++ {home}/{path}\n" in ran.out
    assert ran.err.endswith("error: not confirmed; nothing was sent and nothing was changed\n")


def test_whoever_leaves_before_the_plan_changes_nothing(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url)
    before = tree(home)
    for name in [name for name in QUESTIONS if name != "wait"]:
        person.answers = {"agent": ["2"], name: [KeyboardInterrupt()]}
        ran = shell("setup")
        assert (ran.status, tree(home), vault.seen) == (130, before, []), name
        assert ran.err.endswith("stopped; nothing was sent and nothing was changed\n"), name


def test_end_of_input_is_not_enter(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    person.readline = lambda _limit=-1: ""  # type: ignore[method-assign]
    ran = shell("setup")
    assert (ran.status, tree(home), vault.seen) == (1, {}, [])
    assert ran.err.endswith("error: the input ended; nothing was sent and nothing was changed\n")


def test_interrupted_work_says_what_was_done(
    shell: Shell, person: Person, vault: Vault, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(config, "carry_out", interrupt)
        ran = shell("setup")
    assert ran.status == 130
    assert f"stopped; done so far: agent {OTHER_ID} is installed. To do the rest, run setup again\n" in ran.err
    person.asked = []
    assert (shell("setup").status, len(vault.registered)) == (0, 1)
    assert args_in(home)[:2] == ["--agent", OTHER_ID]
    vault.pending_for = 99
    person.answers = {"wait": [KeyboardInterrupt()]}
    ran = shell("setup", "--values", "any")
    assert ran.status == 130
    assert "stopped; done so far: Cursor is set up; Codex is set up. " in ran.err


def test_refused_token_changes_nothing(
    shell: Shell, person: Person, vault: Vault, recorder: Recorder, home: Path
) -> None:
    recorder.answer = lambda _seen: CannedResponse(403, b'{"error":"no"}')
    ran = shell("setup")
    assert (ran.status, tree(home)) == (1, {})
    assert "error: the vault answered 403" in ran.err


def test_waits_for_approval_and_then_checks(shell: Shell, person: Person, vault: Vault) -> None:
    vault.pending_for = 5
    ran = shell("setup")
    assert (ran.status, vault.pending_for, "1 ok, 0 warn, 0 fail" in ran.out) == (0, 0, True)
    assert f"\nnext: {doctor.APPROVE}" in ran.err


def test_without_waiting_doctor_waits_too(shell: Shell, person: Person, vault: Vault) -> None:
    vault.pending_for = 99
    person.answers = {"wait": ["n"]}
    ran = shell("setup")
    assert (ran.status, vault.pending_for, " ok, " in ran.out) == (0, 98, False)
    assert "\nwhen that is done: restart Cursor and Codex, then ask your assistant:\n" in ran.err


def test_client_that_cannot_be_changed_does_not_stop_the_others(
    shell: Shell, person: Person, vault: Vault, home: Path
) -> None:
    make_slot(home, vault.url)
    (home / ".cursor" / "mcp.json").write_text("{broken")
    os.utime(home / ".cursor" / "mcp.json", (0, 0))
    ran = shell("setup")
    assert (ran.status, (home / ".cursor" / "mcp.json").read_text()) == (1, "{broken")
    assert ran.err.count("Cursor cannot be set up: ") == 1
    assert AGENT_ID in (home / ".codex" / "config.toml").read_text()


def test_entry_with_unusable_options_is_offered_the_usual_ones(
    shell: Shell, person: Person, vault: Vault, home: Path
) -> None:
    assert shell("setup", "--read-only").status == 0
    path = home / ".cursor" / "mcp.json"
    text = path.read_text()
    person.answers = {"clients": ["cursor"] * 2}
    for wrong in ("--help", "--no-such"):
        path.write_text(text.replace("--read-only", wrong))
        (home / ".codex" / "config.toml").write_text("")
        for file in (path, home / ".codex" / "config.toml"):
            os.utime(file, (0, 0))
        ran = shell("setup")
        assert (ran.status, args_in(home)[2:]) == (0, ["--values", "from-person"]), ran.err
        assert "as now" not in ran.err


def test_computer_may_get_an_agent_only(shell: Shell, person: Person, vault: Vault, home: Path) -> None:
    person.answers = {"clients": ["none"]}
    ran = shell("setup")
    assert (ran.status, len(vault.registered), (home / ".cursor" / "mcp.json").exists()) == (0, 1, False)
    assert "config generic\n" in ran.err


def test_failed_check_is_shown_with_its_remedy(
    shell: Shell, person: Person, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [doctor.Line("python", "ok", "fine"), doctor.Line("clock", "fail", "an hour behind", "set it")]
    monkeypatch.setattr(doctor, "checked", lambda _agent: iter(lines))
    ran = shell("setup")
    assert ran.status == 1
    assert "fine" not in ran.out
    assert re.search("fail  clock .*an hour behind\n *fix: set it\n1 ok, 0 warn, 1 fail\n", ran.out)


# scripts


@pytest.fixture
def script(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs setup without a terminal, with a text on standard input."""

    def run(*words: str, text_in: str = "") -> Ran:
        reader, writer = os.pipe()
        os.write(writer, text_in.encode())
        os.close(writer)
        with os.fdopen(reader) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            return shell("setup", *words)

    return run


Script = Callable[..., Ran]


def test_script_without_answers_is_told_which_are_missing(script: Script, vault: Vault, home: Path) -> None:
    ran = script("--client", "cursor", "--confirm", "writes")
    assert (ran.status, ran.out, tree(home), vault.seen) == (2, "", {}, [])
    missing = "missing: --agent, --values, --read-only (or --tools, --exclude), --yes\n"
    assert ran.err.startswith(f"sikkerkey-mcp: error: not a terminal, so nobody can be asked; {missing}")


@each_of(
    "words",
    [
        ["--client", "cursr"],
        ["--client", "generic"],
        ["--agent", "nobody"],
        ["--tools", "nothing"],
        ["--confirm", "sometimes"],
        ["--wait", "long"],
        ["--agent", "new", "--vault", "http://vault.test"],
        ["--agent", "new", "--name", "x" * 256],
        ["--agent", "new"],
    ],
)
def test_wrong_answer_of_a_script_changes_nothing(script: Script, vault: Vault, home: Path, words: list[str]) -> None:
    make_slot(home, vault.url)
    before = tree(home)
    ran = script(*words, "--yes", text_in="" if words == ["--agent", "new"] else f"{TOKEN}\n")
    assert (ran.status, ran.out, tree(home), vault.seen) == (1 if "--vault" in words else 2, "", before, [])


def test_script_installs_a_new_agent_and_takes_defaults(script: Script, vault: Vault, home: Path) -> None:
    ran = script("--agent", "new", "--name", "ci", "--client", "cursor", "--read-only", "--yes", text_in=f"{TOKEN}\n")
    assert (ran.status, vault.registered[0]["name"]) == (0, "ci"), ran.err
    assert args_in(home) == ["--agent", OTHER_ID, "--read-only", "--values", "from-person"]
    assert not (home / ".codex" / "config.toml").exists()
    again = script("--client", "cursor", "--yes")
    assert (again.status, args_in(home)[2]) == (0, "--read-only")


def test_address_may_follow_the_token(script: Script, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIKKERKEY_API_URL")
    ran = script("--agent", "new", "--client", "cursor", "--yes", text_in=f"{TOKEN}\n{vault.url}\n")
    assert (ran.status, len(vault.registered)) == (0, 1), ran.err


def test_new_is_no_name_of_an_agent(script: Script, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url, name="newer")
    ran = script("--agent", "new", "--name", "second", "--client", "cursor", "--yes", text_in=f"{TOKEN}\n")
    assert (ran.status, len(vault.registered)) == (0, 1), ran.err
    assert args_in(home, "sikkerkey-second")[:2] == ["--agent", OTHER_ID]


def test_several_agents_need_a_choice(script: Script, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url)
    make_slot(home, vault.url, OTHER_ID)
    ran = script("--client", "cursor", "--yes")
    assert (ran.status, f"{AGENT_ID}, {OTHER_ID}" in ran.err) == (2, True)
    assert script("--client", "cursor", "--agent", OTHER_ID, "--yes").status == 0
    key = entries.server_keys(sikkerkey_identity.installed_agents())[OTHER_ID]
    assert args_in(home, key)[:2] == ["--agent", OTHER_ID]


def test_a_script_has_nobody_who_types_a_passphrase(script: Script, vault: Vault, home: Path) -> None:
    ran = script("--yes", "--passphrase", text_in=f"{TOKEN}\n")
    assert (ran.status, vault.seen, tree(home)) == (2, [], {})
    assert "not a terminal, so nobody can type a passphrase" in ran.err


def test_dry_run_reads_no_token_and_changes_nothing(script: Script, vault: Vault, home: Path) -> None:
    ran = script("--dry-run", "--client", "cursor")
    assert (ran.status, tree(home), vault.seen) == (0, {}, [])
    assert f"+++ {home}/.cursor/mcp.json\n" in ran.out
    assert setup.NEW_ID in ran.out


def test_computer_without_clients_needs_a_name(script: Script, vault: Vault, home: Path) -> None:
    make_slot(home, vault.url)
    (home / ".cursor").rmdir()
    (home / ".codex").rmdir()
    ran = script("--yes")
    assert (ran.status, "no supported client was found" in ran.err) == (2, True)


# which clients are installed


def test_clients_are_found_by_their_files_directories_and_commands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[str]:
        return clients.installed_clients(os.environ)

    assert found() == ["cursor", "codex"]
    (home / ".gemini" / "config").mkdir(parents=True)  # of Antigravity; Gemini CLI has its file one level above
    assert found() == ["cursor", "codex", "antigravity"]
    (home / ".gemini" / "settings.json").write_text("{}")
    (home / ".claude.json").write_text("{}")
    assert found() == ["claude-code", "cursor", "codex", "gemini", "antigravity"]
    (home / ".claude.json").unlink()
    (tmp_path / "claude").write_text("")
    (tmp_path / "claude").chmod(0o755)
    assert "claude-code" in found()


# the real thing


@pytest.mark.skipif(os.name != "posix", reason="this system has no pseudo-terminals")
def test_archive_sets_up_a_computer_at_a_terminal(tmp_path: Path, home: Path) -> None:
    env = {"HOME": str(home), "PATH": str(tmp_path), "XDG_CONFIG_HOME": "", "TERM": "xterm"}
    local = LocalVault(tmp_path / "vault")
    try:
        token = local.owner("agent-token", "--scopes", "all").split()[0]
        person = Terminal([*ARCHIVE_COMMAND, "setup", "--client", "cursor"], {**env, "SIKKERKEY_API_URL": local.url})
        person.type("address [", "\n")
        person.type("name in the vault [", "my laptop\n")
        person.type("token: ", f"{token}\n")
        person.type("do?", "\n")
        person.type("values of secrets?", "\n")
        person.type("confirm?", "\n")
        person.type("Do this? [Y/n] ", "\n")
        person.interrupt("Wait for that? [Y/n] ")
        talk = person.end()
    finally:
        local.close()
    assert talk.status == 130, talk.shown
    assert token not in talk.shown
    assert "its key is SHA256:" in talk.shown
    assert re.search(r"\[Y/n\] \r\nstopped; done so far: agent \S+ is installed; Cursor is set up\. ", talk.shown)
    assert args_in(home)[2:] == ["--values", "from-person"]
