"""Vaults with a passphrase: opening and sealing them, answers of a sealed vault, and the control socket."""

from __future__ import annotations

import errno
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import ROOT, START_MS, Agent, FakeClock, Spawned, Vault, disk, exchange
from vault import control
from vault.control import Control, ask
from vault.domains import schedules
from vault.errors import SealedDenied, VaultError
from vault.jobs import JobRunner
from vault.rootkey import check_passphrase
from vault.schema import open_store

WORDS = "correct horse battery ståple"
AGENT_URL = "https://127.0.0.1:1#sha256=00"
SEALED = {"error": "the vault is sealed"}


@pytest.fixture
def sealed(vault: Vault, agent: Agent) -> Vault:
    """A sealed vault with a passphrase and an agent."""
    vault.store.rekey(START_MS, WORDS)
    vault.store.seal(START_MS)
    return vault


def failure(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(VaultError) as caught:
        call(*arguments)
    return str(caught.value), caught.value.hint


def test_a_vault_with_a_passphrase_has_no_key_file_and_starts_sealed(tmp_path: Path) -> None:
    with open_store(tmp_path / "vault", WORDS) as store:
        assert not store.sealed
        proof = store.keys.wrap("x:1", b"kept")
    assert {path.name for path in (tmp_path / "vault").iterdir()} == {"vault.db", "init.lock"}
    with open_store(tmp_path / "vault") as store:
        assert store.sealed
        with pytest.raises(SealedDenied):
            _ = store.keys
    with open_store(tmp_path / "vault", WORDS) as store:
        assert store.keys.unwrap("x:1", proof) == b"kept"


def test_a_root_key_without_its_database_is_not_replaced(tmp_path: Path) -> None:
    open_store(tmp_path / "vault").close()
    (tmp_path / "vault" / "vault.db").unlink()
    before = (tmp_path / "vault" / "root.key").read_bytes()
    message, hint = failure(open_store, tmp_path / "vault", WORDS)
    assert message == f"a root key already exists: {tmp_path / 'vault' / 'root.key'}"
    assert hint == "name an empty directory with --dir"
    assert (tmp_path / "vault" / "root.key").read_bytes() == before


def test_passphrases_are_unicode_normalized(tmp_path: Path) -> None:
    open_store(tmp_path / "vault", WORDS).close()
    with open_store(tmp_path / "vault", WORDS.replace("å", "a\u030a")) as store:
        assert not store.sealed


def test_a_wrong_passphrase_opens_nothing_and_is_audited(sealed: Vault) -> None:
    for words in ("correct horse battery staple", "", WORDS + " "):
        assert failure(sealed.store.unseal, START_MS, words)[0] == "the passphrase is wrong"
        assert failure(open_store, sealed.directory, words)[0] == "the passphrase is wrong"
    assert sealed.store.sealed
    entries = [(row["user_id"], row["detail"]) for row in sealed.audited("vault_unseal_denied")]
    assert entries == [("owner", "the passphrase is wrong")] * 3


@pytest.mark.parametrize(
    ("words", "good"),
    [("abcdefghijk", False), ("abcdefghijkl", True), ("øabc" * 255 + "defg", True), ("abcde" * 205, False)],
)
def test_a_passphrase_has_12_to_1024_characters(tmp_path: Path, words: str, good: bool) -> None:
    if good:
        check_passphrase(words)
    else:
        assert failure(open_store, tmp_path / "vault", words)[0] == "the passphrase must have 12 to 1024 characters"
        with open_store(tmp_path / "vault"):
            pass  # and nothing half-made stands in the way


def test_a_repetitive_passphrase_is_refused(tmp_path: Path) -> None:
    for words in ("a" * 12, " " * 20, "ab" * 500, "AaBb" * 10, "1234" * 10):
        with pytest.raises(VaultError, match="at least 5 different characters"):
            open_store(tmp_path / "vault", words)


def test_excessive_or_impossible_argon2_parameters_are_refused(sealed: Vault) -> None:
    def complaint(memory_kib: int, iterations: int, lanes: int) -> str:
        with sealed.store.transaction() as db:
            cost = (memory_kib, iterations, lanes)
            db.execute("UPDATE passphrase_seal SET memory_kib = ?, iterations = ?, lanes = ?", cost)
        return failure(sealed.store.unseal, START_MS, WORDS)[0]

    with sealed.store.transaction() as db:
        before = tuple(db.execute("SELECT memory_kib, iterations, lanes FROM passphrase_seal").fetchone())
    for cost in [(2**20 + 1, 1, 1), (64, 33, 1), (1024, 1, 17), (2**31 - 1, 1, 1), (64, 2**31 - 1, 1), (64, 1, 16)]:
        assert complaint(*cost) == "the sealed root key is damaged", cost
    for cost in [(64, 32, 1), (1024, 1, 16)]:  # at the limits, but not those of this passphrase
        assert complaint(*cost) == "the passphrase is wrong", cost
    with sealed.store.transaction() as db:
        db.execute("UPDATE passphrase_seal SET memory_kib = ?, iterations = ?, lanes = ?", before)
    sealed.store.unseal(START_MS, WORDS)


def test_a_sealed_vault_answers_503_to_everything_signed_and_audits_it(sealed: Vault, agent: Agent) -> None:
    for method, path in (("GET", "/v1/ai/whoami"), ("POST", "/v1/ai/projects"), ("GET", "/v1/ai/projects")):
        reply = agent.send(method, path, {"name": "x"} if method == "POST" else None)
        assert (reply.status, reply.json) == (503, SEALED)
    entries = [(row["agent_id"], row["detail"]) for row in sealed.audited("vault_sealed_refusal")]
    assert entries[1:] == [
        (agent.id, "POST /v1/ai/projects: the vault is sealed"),
        (agent.id, "GET /v1/ai/projects: the vault is sealed"),
    ]
    sealed.store.unseal(START_MS, WORDS)
    assert agent.get("/v1/ai/projects") == []


def test_a_sealed_vault_refuses_registrations(sealed: Vault) -> None:
    token, key = sealed.token(), Ed25519PrivateKey.generate()
    assert sealed.register(token, key).status == 503
    sealed.store.unseal(START_MS, WORDS)
    assert sealed.register(token, key).status == 201


def test_a_sealed_vault_still_authenticates_and_records_nonces(sealed: Vault, agent: Agent) -> None:
    assert exchange(sealed.port, "GET", "/v1/ai/whoami", b"", []).status == 401
    headers = agent.headers("GET", "/v1/ai/whoami")
    assert exchange(sealed.port, "GET", "/v1/ai/whoami", b"", headers).status == 503
    sealed.store.unseal(START_MS, WORDS)
    assert exchange(sealed.port, "GET", "/v1/ai/whoami", b"", headers).error == "the nonce was used before"


def test_a_vault_with_a_key_file_can_be_sealed_too(vault: Vault, agent: Agent) -> None:
    vault.store.seal(START_MS)
    assert agent.send("GET", "/v1/ai/whoami").status == 503
    assert failure(vault.store.unseal, START_MS, WORDS)[0] == "the vault has a key file and no passphrase"
    vault.store.unseal(START_MS, None)
    assert agent.send("GET", "/v1/ai/whoami").status == 200


def test_jobs_do_not_run_while_the_vault_is_sealed(
    vault: Vault, agent: Agent, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"projectId": agent.project(), "name": "s", "intervalSeconds": 300}
    secret_id = agent.post("/v1/ai/dynamic-secrets", body)["secretId"]
    path = f"/v1/ai/dynamic-secrets/{secret_id}"
    works = JobRunner(vault.store, clock, [schedules.rotate_due])
    vault.store.seal(START_MS)
    clock.advance(3600)
    works.tick()
    assert capsys.readouterr().err == ""
    vault.store.unseal(START_MS, None)
    assert agent.get(path)["version"] == 1
    works.tick()
    assert agent.get(path)["version"] == 2


def test_the_owner_reaches_the_server_through_its_socket(sealed: Vault) -> None:
    assert ask(sealed.directory, "status") is None
    with Control(sealed.store, sealed.clock, "http://here", AGENT_URL):
        path = sealed.directory / control.NAME
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        known = {"vaultId": sealed.store.vault_id, "url": "http://here", "agentUrl": AGENT_URL}
        assert ask(sealed.directory, "status") == {**known, "sealed": True}
        assert failure(ask, sealed.directory, "unseal", "not the right words")[0] == "the passphrase is wrong"
        assert ask(sealed.directory, "unseal", WORDS) == {**known, "sealed": False}
        assert ask(sealed.directory, "seal") == {**known, "sealed": True}
    assert ask(sealed.directory, "status") is None
    assert not path.exists()


def served_status(directory: Path) -> dict[str, Any]:
    """What the running server says of itself."""
    answer = ask(directory, "status")
    assert answer is not None
    return answer


def test_a_long_directory_name_has_a_control_socket(tmp_path: Path, clock: FakeClock) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    with open_store(directory) as store, Control(store, clock, "http://here", AGENT_URL):
        assert served_status(directory)["vaultId"] == store.vault_id


def test_an_invalid_command_is_refused_without_being_quoted(sealed: Vault) -> None:
    for line in (
        *(
            b"\n",
            b"[]\n",
            b"null\n",
            b'{"command": "burn"}\n',
            b'{"command": ["seal"]}\n',
            b"\xff\n",
            b'{"command": 1}\n',
        ),
        b'{"command": "unseal", "passphrase": ["MARKED"]}\n',
    ):
        with Control(sealed.store, sealed.clock, "http://here", AGENT_URL):
            answer = raw(sealed.directory, line)
        assert answer["error"] == "the server does not know this command", line
        assert "MARKED" not in str(answer), line
        assert sealed.store.sealed, line


def test_a_client_that_hangs_up_or_sends_too_much_does_not_stop_the_server(sealed: Vault) -> None:
    with Control(sealed.store, sealed.clock, "http://here", AGENT_URL):
        for sent in (b"", b'{"comm', b"x" * 100_000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(sealed.directory / control.NAME))
                try:
                    connection.sendall(sent)
                except OSError:
                    assert len(sent) > control.MAX_LINE_BYTES
        assert ask(sealed.directory, "status") is not None


def test_a_connection_that_cannot_be_accepted_does_not_stop_the_server(
    sealed: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")]

    def flaky_accept(listener: socket.socket) -> Any:
        if listener.family == socket.AF_UNIX and failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(control, "RETRY_S", 0.0)
    monkeypatch.setattr(socket.socket, "accept", flaky_accept)
    with Control(sealed.store, sealed.clock, "http://here", AGENT_URL):
        assert ask(sealed.directory, "status") is not None
    assert not failures


def test_a_storage_error_is_reported_and_does_not_stop_the_server(sealed: Vault) -> None:
    with Control(sealed.store, sealed.clock, "http://here", AGENT_URL):
        with sealed.store.transaction() as db:
            db.execute("CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'MARKED'); END")
        message, _ = failure(ask, sealed.directory, "unseal", WORDS)
        assert message.startswith("the server failed: IntegrityError at audit.py:")
        assert sealed.store.sealed
        assert ask(sealed.directory, "status") is not None


def raw(directory: Path, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / control.NAME))
        connection.sendall(line)
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
        return answer


def test_init_serve_unseal_status_and_seal_from_the_command_line(tmp_path: Path) -> None:
    directory, typed = tmp_path / "vault", WORDS + "\n"
    status, out, _ = run_command(directory, "init", "--passphrase-file", "-", "--json", typed=typed)
    made = json.loads(out)
    assert (status, made) == (0, {"vaultId": made["vaultId"], "rootKey": "passphrase"})
    assert run_command(directory, "init")[2].startswith(f"vault: error: there is already a vault in {directory}\n")
    assert run_command(directory, "unseal", "--passphrase-file", "-", typed=typed)[2].startswith(
        "vault: error: no server is running"
    )
    served = Spawned(directory)
    assert run_command(directory, "unseal", "--passphrase-file", "-", typed="wrong words here\n")[::2] == (
        1,
        "vault: error: the passphrase is wrong\nhint: try again; the vault cannot be opened without it\n",
    )
    assert run_command(directory, "unseal", "--passphrase-file", "-", typed=typed) == (0, "unsealed\n", "")
    state = json.loads(run_command(directory, "status", "--json")[1])
    counts = {"projects": 0, "secrets": 0, "agents": 0, "agentsPending": 0, "machines": 0, "machinesPending": 0}
    urls = {"url": served.url, "agentUrl": served_status(directory)["agentUrl"]}
    more = {"createdAt": state["createdAt"], **urls, "sealed": False}
    log = {"auditEntries": 2, "integrityFailures": 0, "auditHead": state["auditHead"]}
    assert state == {**made, **more, **counts, **log}
    assert run_command(directory, "seal")[:2] == (0, "sealed\n")
    assert "served at" in run_command(directory, "status")[1]
    assert served.end() == (
        0,
        "",
        f"hint: the vault is sealed until you run: python -m vault unseal --dir {directory}\n",
    )
    assert "not served" in run_command(directory, "status")[1]


def test_serve_can_be_given_the_passphrase_by_a_private_file_only(tmp_path: Path) -> None:
    directory, words = tmp_path / "vault", tmp_path / "words"
    open_store(directory, WORDS).close()
    words.write_text(WORDS + "\n")
    words.chmod(0o640)
    refused = Spawned(directory, "--passphrase-file", str(words))
    assert refused.process.communicate(timeout=20)[1].startswith(
        f"vault: error: file {words} can be accessed by other users"
    )
    words.chmod(0o600)
    served = Spawned(directory, "--passphrase-file", str(words))
    assert {"url": served.url, "sealed": False}.items() <= served_status(directory).items()
    assert served.end() == (0, "", "")


def test_no_option_takes_the_passphrase_itself(tmp_path: Path) -> None:
    for command in ("init", "unseal", "serve", "rekey"):
        for line in (["--passphrase=" + WORDS], ["--passphrase", WORDS], [WORDS]):
            status, out, err = run_command(tmp_path / "vault", command, *line)
            assert (status, out, err.startswith("vault: error: ")) == (2, "", True)
            assert not set(WORDS.split()) & set(err.split())


def test_without_a_terminal_there_is_no_prompt(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vault", "init", "--dir", str(tmp_path / "vault"), "--passphrase"]
    done = subprocess.run(
        command, cwd=ROOT, input="", capture_output=True, text=True, timeout=60, start_new_session=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vault: error: there is no terminal to ask for the passphrase\nhint: ")


def test_a_typed_passphrase_is_not_echoed(tmp_path: Path) -> None:
    """The child gets a new controlling terminal by opening it."""
    master, slave = pty.openpty()
    line = ["init", "--dir", str(tmp_path / "vault"), "--passphrase"]
    script = f"import os, sys; os.close(os.open({os.ttyname(slave)!r}, os.O_RDWR)); sys.argv = ['vault'] + {line!r}"
    script += "; from vault.owner.cli import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    shown = b""
    for prompt in (b"New passphrase of the vault: ", b"New passphrase of the vault, again: "):
        while prompt not in shown:
            shown += os.read(master, 1000)
        os.write(master, WORDS.encode() + b"\n")
    while b"created vault_" not in shown:
        shown += os.read(master, 1000)
    assert child.wait(60) == 0
    os.close(master)
    assert b"horse" not in shown
    with open_store(tmp_path / "vault", WORDS) as store:
        assert WORDS.encode() not in disk(store.directory)
        with store.transaction() as db:
            cost = tuple(db.execute("SELECT memory_kib, iterations, lanes FROM passphrase_seal").fetchone())
    assert cost == (65_536, 3, 4), "the second recommended option of RFC 9106"
