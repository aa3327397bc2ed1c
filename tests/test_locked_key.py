"""Keys with a passphrase: their file, the commands that ask for it, a server that waits for it, and key stores."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_passphrase
import sikkerkey_unlock
from sikkerkey_cli import person, terminal
from tests.support.harness import AGENT_ID, VAULT_ID, CannedResponse, Recorder, make_slot
from tests.support.shell import COMMAND, Shell, Terminal, run_process

TOKEN = "c0ffee" * 10 + "cafe"
WORDS = "canary over the hills"
on_posix = pytest.mark.skipif(os.name != "posix", reason="there are pseudo terminals and shell scripts on POSIX only")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derives keys quickly, and forgets unlocked keys after each test."""
    monkeypatch.setattr(sikkerkey_passphrase, "SCRYPT_COST", 2)
    monkeypatch.setattr(sikkerkey_keys, "_unlocked_keys", {})
    monkeypatch.setattr(sikkerkey_identity, "ask_passphrase", lambda _identity: None)


def slot_of(home: Path) -> Path:
    return home / ".sikkerkey" / "agents" / AGENT_ID


def lock(home: Path, url: str = "http://127.0.0.1:1", **members: str) -> Ed25519PrivateKey:
    """Writes an agent whose key has the passphrase WORDS."""
    key = make_slot(home, url)
    slot = slot_of(home)
    (slot / "private.pem").write_bytes(sikkerkey_passphrase.encrypted(key, WORDS, is_random=False))
    stored = json.loads((slot / "identity.json").read_text())
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    (slot / "identity.json").write_text(
        json.dumps({**stored, "publicKey": base64.b64encode(public).decode(), **members})
    )
    return key


def registered(_seen: object) -> CannedResponse:
    return CannedResponse(201, json.dumps({"agentId": AGENT_ID, "name": "x", "vaultId": VAULT_ID}).encode())


# the file


def test_a_key_is_opened_by_its_passphrase_only(home: Path) -> None:
    key = lock(home)
    identity = sikkerkey_identity.load_identity(AGENT_ID)
    assert identity.key_pem.startswith(b"scrypt-65536-8-1 ")
    assert WORDS.encode() not in identity.key_pem
    for wrong in ("", WORDS.upper(), f"{WORDS} ", "\udc80"):
        with pytest.raises(sikkerkey_identity.WrongPassphrase, match="not the passphrase"):
            sikkerkey_keys.unlock(identity, wrong)
    with pytest.raises(sikkerkey_identity.KeyLocked):
        sikkerkey_keys.signer_of(identity)
    sikkerkey_keys.unlock(identity, WORDS)
    assert sikkerkey_keys.signer_of(identity)(b"text") == key.sign(b"text")


def test_the_cost_of_guessing() -> None:
    """The line in the file names these numbers."""
    assert sikkerkey_passphrase.SCRYPT_LINE.match(
        b"scrypt-65536-8-1 " + b"0" * 32 + b"\n-----BEGIN ENCRYPTED PRIVATE KEY-----"
    )
    source = Path(sikkerkey_passphrase.__file__).read_text()
    assert "SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_PARALLEL = 2**16, 8, 1" in source


def test_a_key_that_another_program_has_encrypted_is_opened(home: Path) -> None:
    key = lock(home)
    protection = serialization.BestAvailableEncryption(WORDS.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    (slot_of(home) / "private.pem").write_bytes(pem)
    sikkerkey_keys.unlock(sikkerkey_identity.load_identity(AGENT_ID), WORDS)


def test_weak_passphrases_are_refused() -> None:
    for weak in ("", "elevenchars", "aaaabbbbccccdddd", "x" * 1_025):
        assert sikkerkey_passphrase.problem_with(weak)
    assert not sikkerkey_passphrase.problem_with(WORDS)


def test_the_fingerprint_needs_no_passphrase(home: Path, shell: Shell) -> None:
    key = lock(home)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    ran = shell("whoami")
    assert ran.status == 0
    assert ran.out.split("  ")[-2:] == ["(passphrase)", f"{sikkerkey_keys.fingerprint(public)}\n"]


def test_a_key_of_another_agent_is_refused(home: Path) -> None:
    lock(home)
    other = Ed25519PrivateKey.generate()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (slot_of(home) / "private.pem").write_bytes(other.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(sikkerkey_mcp.ConfigError, match="do not belong together"):
        sikkerkey_keys.signer_of(sikkerkey_identity.load_identity(AGENT_ID))


# commands


@on_posix
def test_install_asks_for_a_passphrase_twice_and_shows_it_nowhere(
    home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.answer = registered
    talk = Terminal([*COMMAND, "install", TOKEN, "--passphrase"], {"SIKKERKEY_API_URL": recorder.url})
    talk.type("new passphrase: ", "too short\n")
    # Each answer follows its prompt: what is typed before one is dropped.
    talk.type("characters\r\nnew passphrase: ", WORDS + "\n")
    talk.type("again: ", WORDS + "x\n")
    talk.type("not the same\r\nnew passphrase: ", WORDS + "\n")
    talk.type("not the same\r\nnew passphrase: \r\nagain: ", WORDS + "\n")
    status, shown = talk.end()
    assert (status, "canary" in shown) == (0, False), shown
    files = {path.name: path.read_bytes() for path in slot_of(home).iterdir()}
    assert not any(b"canary" in data for data in files.values())
    monkeypatch.setattr(sikkerkey_passphrase, "SCRYPT_COST", 2**16)
    monkeypatch.setattr(sikkerkey_identity, "ask_passphrase", lambda _identity: WORDS)
    sign = sikkerkey_keys.signer_of(sikkerkey_identity.load_identity(AGENT_ID))
    public = base64.b64decode(json.loads(files["identity.json"])["publicKey"])
    assert recorder.seen[0].json()["publicKey"] == base64.b64encode(public).decode()
    assert len(sign(b"")) == 64


def test_without_a_terminal_no_passphrase_is_asked_for_and_no_token_is_used(home: Path, recorder: Recorder) -> None:
    ran = run_process(
        "install", "-", "--passphrase", stdin=f"{TOKEN}\n{WORDS}\n{WORDS}\n", env={"SIKKERKEY_API_URL": recorder.url}
    )
    assert (ran.returncode, recorder.seen) == (2, [])
    assert "not a terminal, so nobody can type a passphrase" in ran.stderr
    lock(home, recorder.url)
    ran = run_process("whoami", "--remote", stdin=WORDS)
    assert (ran.returncode, recorder.seen) == (1, [])
    assert "has a passphrase, and there is no terminal to ask for it" in ran.stderr
    assert "hint: run the command in a terminal" in ran.stderr


@on_posix
def test_a_command_asks_three_times_at_most(home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    typed = iter(["wrong"] * 3 + ["wrong", WORDS])

    def ask(identity: sikkerkey_identity.Identity) -> str:
        asked.append(identity.agent_id)
        return next(typed)

    lock(home, recorder.url)
    monkeypatch.setattr(sikkerkey_identity, "ask_passphrase", ask)
    for tries, works in ((3, False), (2, True)):
        asked.clear()
        if works:
            with contextlib.closing(sikkerkey_mcp.connect()) as api:
                assert api.send(READ, safe=True, context=sikkerkey_mcp.Context()).status == 200
        else:
            with pytest.raises(sikkerkey_identity.WrongPassphrase):
                sikkerkey_mcp.connect()
        assert len(asked) == tries
    sikkerkey_mcp.connect()  # it is known now
    assert len(asked) == 2


READ = sikkerkey_mcp.Request("GET", "/v1/ai/whoami", None)


# a server


class LockedServer:
    """The tools of a server whose agent's key is locked, in this process and without a browser."""

    def __init__(self, home: Path, recorder: Recorder) -> None:
        lock(home, recorder.url)
        recorder.answer = lambda _seen: CannedResponse(200, b'{"agentId":"a"}')
        connection = sikkerkey_mcp.AgentConnection()
        policy = sikkerkey_options.PersonPolicy(browser="never")
        self.tools = sikkerkey_mcp.VaultTools(connection.api, agent=connection, person=policy)
        self.connection = connection

    def call(self) -> Any:
        return self.tools.call("whoami", {}, sikkerkey_mcp.Context())

    def code(self) -> str:
        """The code with which a call waits."""
        result = self.call()
        assert result["isError"]
        found = re.search("fill ([0-9A-Z]{4});", result["content"][0]["text"])
        assert found, result
        return found[1]

    def hand_over(self, code: str, passphrase: str) -> str:
        tickets = person.open_tickets()
        return sikkerkey_unlock.hand_over(tickets, tickets.find(code).ticket, passphrase).state


@pytest.fixture
def locked(home: Path, recorder: Recorder) -> Iterator[LockedServer]:
    server = LockedServer(home, recorder)
    yield server
    with contextlib.suppress(sikkerkey_identity.KeyLocked):
        server.connection.api().close()


def test_a_call_waits_for_the_passphrase_and_then_goes_on(locked: LockedServer, recorder: Recorder, home: Path) -> None:
    text = locked.call()["content"][0]["text"]
    assert "has a passphrase, which only the user knows; nothing was sent" in text
    code = locked.code()
    assert f"fill {code}" in text
    assert recorder.seen == []
    assert locked.hand_over(code, "wrong words") == "waiting"
    assert locked.hand_over(code, WORDS) == "over"
    assert not locked.call().get("isError")
    assert len(recorder.seen) == 1
    for path in (home / ".sikkerkey").rglob("*"):
        assert path.is_dir() or WORDS.encode() not in path.read_bytes()
    assert list(Path(person.open_tickets().directory).glob("*.page")) == []


def test_the_page_says_what_the_passphrase_is_for(locked: LockedServer) -> None:
    code = locked.code()
    tickets = person.open_tickets()
    url = json.loads(Path(tickets.directory, f"{code}.page").read_text())["url"]
    shown = sikkerkey_unlock._exchange(url, "GET", b"").decode()
    for words in (
        "Type the passphrase of your agent&#x27;s key",
        "Neither your assistant nor the vault gets it",
        ">Passphrase<",
        ">Unlock<",
        code,
    ):
        assert words in shown
    assert Path(tickets.directory, f"{code}.page").stat().st_mode & 0o077 == 0


def test_wrong_passphrases_are_bounded(locked: LockedServer) -> None:
    code = locked.code()
    states = [locked.hand_over(code, f"wrong words {number}") for number in range(sikkerkey_unlock.TRIES)]
    assert states == ["waiting"] * (sikkerkey_unlock.TRIES - 1) + ["over"]
    assert "the passphrase was wrong too often" in locked.call()["content"][0]["text"]
    assert locked.code() != code


def test_a_restarted_server_asks_again_even_with_the_same_process_id(
    locked: LockedServer, home: Path, recorder: Recorder
) -> None:
    code = locked.code()
    restarted = LockedServer(home, recorder)
    assert restarted.code() != code
    assert restarted.hand_over(restarted.code(), WORDS) == "over"
    assert not restarted.call().get("isError")
    restarted.connection.api().close()


def test_a_page_of_somebody_else_gets_no_passphrase(locked: LockedServer, recorder: Recorder) -> None:
    """After the server has ended, another user may listen at the port of its page."""
    code = locked.code()
    tickets = person.open_tickets()
    ticket = tickets.find(code).ticket
    path = Path(tickets.directory, f"{code}.page")
    members = json.loads(path.read_text())
    recorder.answer = lambda _seen: CannedResponse(200, b'<input name="nonce" value="other">')
    path.write_text(json.dumps({**members, "url": f"{recorder.url}/page"}))
    with pytest.raises(sikkerkey_mcp.Error, match="does not run any more"):
        sikkerkey_unlock.hand_over(tickets, ticket, WORDS)
    assert [(seen.method, seen.body) for seen in recorder.seen] == [("GET", b"")]
    path.unlink()
    with pytest.raises(sikkerkey_mcp.Error, match="does not run any more"):
        sikkerkey_unlock.hand_over(tickets, ticket, WORDS)


def test_fill_hands_the_passphrase_to_the_server(
    locked: LockedServer, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = locked.code()
    assert "not a terminal" in shell("fill", code).err
    typed = iter(["wrong words", WORDS])
    monkeypatch.setattr(person, "_require_terminal_input", lambda _consequence: None)
    monkeypatch.setattr(terminal, "prompt_hidden", lambda _name: next(typed))
    ran = shell("fill", code)
    assert (ran.status, ran.out) == (0, f"{code} is done: the key is unlocked while the assistant's server runs\n"), ran
    assert "this is not the passphrase" in ran.err
    assert not locked.call().get("isError")


def test_the_user_can_refuse(locked: LockedServer, shell: Shell) -> None:
    code = locked.code()
    assert shell("fill", code, "--refuse").status == 0
    assert "nothing was sent: the person refused" in locked.call()["content"][0]["text"]


# key stores

SECRET_TOOL = """#!/bin/sh
echo "$@" >> "$STORE/arguments"
case "$1" in
store) cat > "$STORE/secret" ;;
lookup) cat "$STORE/secret" ;;
clear) rm "$STORE/secret" ;;
esac
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key store whose program is a shell script, as on Linux."""
    directory = tmp_path / "store"
    directory.mkdir()
    program = directory / "secret-tool"
    program.write_text(SECRET_TOOL)
    program.chmod(0o755)
    monkeypatch.setenv("STORE", str(directory))
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "linux")
    return directory


@on_posix
def test_a_key_store_keeps_the_passphrase(
    store: Path, home: Path, shell: Shell, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    recorder.answer = registered
    assert shell("install", TOKEN, "--key-store").status == 0
    secret = (store / "secret").read_text()
    slot = slot_of(home)
    assert b"ENCRYPTED" in (slot / "private.pem").read_bytes()
    assert json.loads((slot / "identity.json").read_text())["keyStore"] == "secret-tool"
    assert secret not in (store / "arguments").read_text() + "".join(path.read_text() for path in slot.iterdir())
    recorder.answer = lambda _seen: CannedResponse(200, b'{"agentId":"a"}')
    assert shell("whoami", "--remote").status == 0
    assert "(secret-tool)" in shell("whoami").out
    assert shell("revoke", AGENT_ID, "--yes").status == 0
    assert not (store / "secret").exists()


@on_posix
def test_a_failed_registration_leaves_nothing_in_the_store(
    store: Path, home: Path, shell: Shell, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    recorder.answer = lambda _seen: CannedResponse(403, b"{}")
    assert shell("install", TOKEN, "--key-store").status == 1
    assert not (store / "secret").exists()
    assert list((home / ".sikkerkey" / "agents").iterdir()) == []


@on_posix
def test_a_store_that_fails_or_is_missing_is_told_before_the_token_is_used(
    store: Path, home: Path, shell: Shell, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    for script in ("#!/bin/sh\nexit 1\n", "#!/bin/sh\ncat > /dev/null\necho other\n"):
        (store / "secret-tool").write_text(script)
        ran = shell("install", TOKEN, "--key-store")
        assert ran.status == 1
        assert "the system's key store (secret-tool) does not give the passphrase" in ran.err
    (store / "secret-tool").unlink()
    monkeypatch.setenv("PATH", str(store))
    ran = shell("install", TOKEN, "--key-store")
    assert ran.status == 1
    assert "this system has no key store that this program can use" in ran.err
    assert recorder.seen == []


def test_a_keychain_gets_the_passphrase_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """What macOS is asked; nothing was run there."""
    ran: list[tuple[list[str], bytes]] = []
    secret = "s" * 43

    def run(command: list[str], *, input: bytes, **_options: object) -> subprocess.CompletedProcess[bytes]:
        ran.append((command, input))
        return subprocess.CompletedProcess(command, 0, secret.encode() + b"\n", b"")

    monkeypatch.setattr(subprocess, "run", run)
    sikkerkey_passphrase.save("keychain", "ab12", "", secret)
    assert ran[0] == (
        ["/usr/bin/security", "-i"],
        f"add-generic-password -U -s sikkerkey-mcp -a ab12 -w {secret}\n".encode(),
    )
    assert ran[1][0] == ["/usr/bin/security", "find-generic-password", "-s", "sikkerkey-mcp", "-a", "ab12", "-w"]


def test_an_unknown_store_is_refused(home: Path) -> None:
    lock(home, keyStore="clay tablet")
    with pytest.raises(sikkerkey_mcp.ConfigError, match="keyStore is unknown"):
        sikkerkey_identity.load_identity(AGENT_ID)
