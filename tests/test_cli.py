"""The command line: install, whoami and revoke, the files they write, the values they never show, and how it starts."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import re
import secrets
import shlex
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
from sikkerkey_cli import agents, grammar
from sikkerkey_cli.__main__ import main
from tests.support import faulty_vault
from tests.support.faulty_vault import FaultyVault
from tests.support.harness import (
    AGENT_ID,
    ARCHIVE,
    ROOT,
    VAULT_ID,
    CannedResponse,
    ReceivedRequest,
    Recorder,
    Server,
    fingerprint,
    make_slot,
)
from tests.support.rows import each_of
from tests.support.shell import COMMAND, PROGRAM, Ran, Shell, Terminal, at_terminal, run_process
from vault.domains import identities

TOKEN = "c0ffee" * 10 + "cafe"
OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
USAGE = 2


@pytest.fixture
def vault(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A vault that accepts every registration."""
    monkeypatch.setenv("SIKKERKEY_API_URL", recorder.url)
    recorder.answer = lambda seen: registered(name=seen.json().get("name", "agent 7"))
    return recorder


def registered(
    agent: Any = AGENT_ID, name: Any = "agent 7", vault: Any = VAULT_ID, status: int = 201
) -> CannedResponse:
    """The vault's answer to a registration."""
    return CannedResponse(status, json.dumps({"agentId": agent, "name": name, "vaultId": vault}).encode())


def stored_fingerprint(slot: Path) -> str:
    """The fingerprint of the key in a slot."""
    key = serialization.load_pem_private_key((slot / "private.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return fingerprint(key)


def tree(directory: Path) -> list[str]:
    """Every path below, relative."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


# install: the forms of the command line


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([TOKEN], None),
        ([TOKEN.upper()], None),
        ([TOKEN, "-name=my laptop"], "my laptop"),
        ([TOKEN, "-name", "my laptop"], "my laptop"),
        ([TOKEN, "--name=my laptop"], "my laptop"),
        ([TOKEN, "--name", "my laptop"], "my laptop"),
        (["-name=my laptop", TOKEN], "my laptop"),
        (["--name=my laptop", TOKEN], "my laptop"),
        (["--name", "my laptop", TOKEN], "my laptop"),
        (["--name=-x=y", TOKEN], "-x=y"),
        (["--name=", TOKEN], None),
        ([TOKEN, "--name=søger \U0001f511 <&>"], "søger \U0001f511 <&>"),
    ],
)
@pytest.mark.peer(14)
def test_registration_sends_token_public_key_and_name(
    shell: Shell, vault: Recorder, home: Path, arguments: list[str], name: str | None
) -> None:
    assert shell("install", *arguments).status == 0
    (seen,) = vault.seen
    pem = (home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    token = next(argument for argument in arguments if argument.lower() == TOKEN)
    public = base64.b64encode(raw).decode("ascii")
    body = {"token": token, "publicKey": public, **({"name": name} if name else {})}
    assert (seen.method, seen.path, seen.json()) == ("POST", "/v1/ai-bootstrap/register", body)
    assert not any(header.startswith("x-") for header in seen.headers)
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("arguments", [["-"], ["-", "-name=x"], ["--name", "x", "-"]])
@pytest.mark.peer(14)
def test_token_is_read_from_stdin(
    shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"  {TOKEN}\r\nrest\n"))
    assert shell("install", *arguments).status == 0
    assert vault.seen[0].json()["token"] == TOKEN


BAD_TOKENS = ["", TOKEN[:-1], TOKEN + "0", "g" * 64, TOKEN[:-1] + " ", "０" * 64, f"../{TOKEN}", "sk_canary"]


STILL_LISTED = (
    "the vault still lists it: also revoke it on the dashboard; "
    "running servers stop using the key before their next call\n"
)
TOKEN_REFUSED = (
    "sikkerkey-mcp: error: the token must be 64 hexadecimal characters\n"
    "hint: copy it from the AI agents page of the dashboard\n"
)


def test_malformed_token_is_refused_and_neither_shown_nor_sent(
    shell: Shell, vault: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in BAD_TOKENS:
        assert shell("install", token) == (USAGE, "", TOKEN_REFUSED), token
        monkeypatch.setattr(sys, "stdin", io.StringIO(token))
        assert shell("install", "-") == (USAGE, "", TOKEN_REFUSED), token
    assert (vault.seen, tree(home)) == ([], [])


def test_overlong_name_is_refused_unsent(shell: Shell, vault: Recorder, home: Path) -> None:
    ran = shell("install", TOKEN, "--name", "x" * 256)
    assert ran == (USAGE, "", "sikkerkey-mcp: error: the name must be at most 255 characters\n")
    assert (vault.seen, tree(home)) == ([], [])


@pytest.mark.parametrize("url", ["http://localhost.evil.example", "https://vault.test/v1", "https://u:p@vault.test"])
def test_bad_url_is_refused_before_anything_is_written(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SIKKERKEY_API_URL", url)
    ran = shell("install", TOKEN)
    assert ran.status == 1
    assert ran.err.startswith("sikkerkey-mcp: error: the API URL ")
    assert tree(home) == []


# install: the slot


def test_slot_has_the_layout_modes_and_bytes_of_the_contract(shell: Shell, vault: Recorder, home: Path) -> None:
    before = os.umask(0)
    try:
        ran = shell("install", TOKEN, "--name", "søger \U0001f511")
    finally:
        os.umask(before)
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    assert tree(home / ".sikkerkey") == [
        "agents",
        f"agents/{AGENT_ID}",
        f"agents/{AGENT_ID}/identity.json",
        f"agents/{AGENT_ID}/private.pem",
    ]
    assert [mode(path) for path in (slot.parent.parent, slot.parent, slot)] == [0o700] * 3
    assert [mode(path) for path in slot.iterdir()] == [0o600] * 2
    assert (slot / "identity.json").read_text("utf-8") == (
        f'{{\n  "agentId": "{AGENT_ID}",\n  "name": "søger \U0001f511",\n  "vaultId": "{VAULT_ID}",\n'
        f'  "apiUrl": "{vault.url}",\n  "publicKey": "{vault.seen[0].json()["publicKey"]}",\n'
        f'  "privateKeyPath": "{slot}/private.pem"\n}}\n'
    )
    assert re.fullmatch(
        rb"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/]{64}\n-----END PRIVATE KEY-----\n",
        (slot / "private.pem").read_bytes(),
    )
    assert (
        ran.out
        == f"installed agent {AGENT_ID} (søger \U0001f511) of {VAULT_ID}\nits key is {stored_fingerprint(slot)}\n"
    )
    assert ran.err.startswith("next: the vault's owner approves it on the dashboard (AI agents page), then: ")
    assert sikkerkey_identity.load_identity(AGENT_ID).name == "søger \U0001f511"


def test_trailing_slash_of_the_url_is_not_stored(
    shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_API_URL", vault.url + "/")
    shell("install", TOKEN)
    assert sikkerkey_identity.load_identity(AGENT_ID).api_url == vault.url


def test_slot_is_written_to_sikkerkey_home(
    shell: Shell, vault: Recorder, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "a b" / "søger"
    monkeypatch.setenv("SIKKERKEY_HOME", str(elsewhere))
    assert shell("install", TOKEN).status == 0
    key_pem = (elsewhere / "agents" / AGENT_ID / "private.pem").read_bytes()
    assert sikkerkey_identity.load_identity(AGENT_ID).key_pem == key_pem
    assert tree(home) == []


def test_each_installation_generates_a_new_key(shell: Shell, vault: Recorder) -> None:
    answers = [registered(AGENT_ID), registered(OTHER_ID)]
    vault.answer = lambda _seen: answers.pop(0)
    shell("install", TOKEN)
    shell("install", TOKEN)
    assert sikkerkey_identity.installed_agents() == [AGENT_ID, OTHER_ID]
    assert len({seen.json()["publicKey"] for seen in vault.seen}) == 2


# install: an unwritable disk uses no token


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which not even root can create a directory."""
    path = tmp_path / "file" / "home"
    path.parent.write_text("")
    monkeypatch.setenv("SIKKERKEY_HOME", str(path))
    return path


def assert_no_token_used(ran: Ran, vault: Recorder, reason: str) -> None:
    """The error says that the token was not used, and the vault saw no request."""
    assert (ran.status, ran.out, vault.seen, vault.connections) == (1, "", [], 0)
    assert re.search(f"^sikkerkey-mcp: error: no agent can be stored in .*: {reason}$", ran.err, re.MULTILINE)
    assert ran.err.endswith("\nhint: the token was not used; fix this and try again\n")


@pytest.mark.peer(14)
def test_unwritable_home_uses_no_token(shell: Shell, vault: Recorder, unwritable: Path) -> None:
    assert_no_token_used(shell("install", TOKEN), vault, "Not a directory")


def test_file_at_the_path_of_the_home_uses_no_token(shell: Shell, vault: Recorder, home: Path) -> None:
    (home / ".sikkerkey").write_text("")
    assert_no_token_used(shell("install", TOKEN), vault, "File exists")


def test_read_only_disk_uses_no_token(
    shell: Shell, vault: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_arguments: object, **_named: object) -> None:
        raise OSError(30, "Read-only file system")

    (home / ".sikkerkey" / "agents").mkdir(mode=0o700, parents=True)
    (home / ".sikkerkey").chmod(0o700)
    for name in ("mkdir", "open", "unlink", "rmdir", "rename"):
        monkeypatch.setattr(os, name, read_only)
    assert_no_token_used(shell("install", TOKEN), vault, "Read-only file system")


def test_full_disk_uses_no_token_and_leaves_no_key(vault: Recorder, home: Path) -> None:
    no_big_files = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")  # a block is room for the key, not for an identity
    ended = run_process("install", TOKEN, env={"PYTHONDONTWRITEBYTECODE": "1"}, before=no_big_files)
    ran = Ran(ended.returncode, ended.stdout, ended.stderr)
    assert_no_token_used(ran, vault, "File too large")
    assert tree(home / ".sikkerkey") == ["agents"]


@pytest.mark.parametrize("which", [".sikkerkey", ".sikkerkey/agents"])
def test_home_writable_by_others_uses_no_token(shell: Shell, vault: Recorder, home: Path, which: str) -> None:
    (home / ".sikkerkey" / "agents").mkdir(parents=True)
    (home / which).chmod(0o777)
    ran = shell("install", TOKEN)
    hint = f"chmod 700 {home / which}"
    words = f"{home / which} can be written by other users"
    assert ran == (1, "", f"sikkerkey-mcp: error: {words}\nhint: {hint}\n")
    assert vault.seen == []


def test_linked_home_uses_no_token(shell: Shell, vault: Recorder, home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (home / ".sikkerkey").symlink_to(tmp_path / "elsewhere")
    ran = shell("install", TOKEN)
    assert ran.err.startswith(f"sikkerkey-mcp: error: {home / '.sikkerkey'} is a symbolic link\n")
    assert vault.seen == []


# install: refusals and invalid answers of the vault


def agents_of(home: Path) -> list[str]:
    """The files in agents/, including hidden ones."""
    return tree(home / ".sikkerkey" / "agents")


REFUSALS = [
    (204, "check SIKKERKEY_API_URL"),
    (300, "check SIKKERKEY_API_URL"),
    *[(status, "a token works once and expires soon: ") for status in (400, 401, 403, 409, 410, 422)],
    (404, "check SIKKERKEY_API_URL"),
    (429, "try again after a while, with the same token"),
    (500, "try again; if the token is used up then, create a new one"),
    (503, "try again when the vault's owner has unsealed it, with the same token"),
]


@each_of(("status", "hint"), REFUSALS)
def test_refusing_vault_leaves_no_slot_and_no_key(
    shell: Shell, vault: Recorder, home: Path, status: int, hint: str
) -> None:
    for body, said in ((b'{"error":"no \\u001b[31m%s"}' % TOKEN.encode(), True), (b"<html>", False), (b"[]", False)):
        refusal = CannedResponse(status, b"" if status == 204 else body, {"Retry-After": "3600"})
        vault.answer = lambda _seen, refusal=refusal: refusal  # type: ignore[misc]
        vault.seen.clear()
        ran = shell("install", TOKEN)
        words = ', saying "no <U+001B>[31m[cut out: plaintext]"' if said and status != 204 else ""
        assert ran.err.startswith(f"sikkerkey-mcp: error: the vault answered {status}{words}\nhint: {hint}")
        assert (ran.status, ran.out, len(vault.seen)) == (1, "", 1)
        assert TOKEN not in ran.err
        assert agents_of(home) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.peer(3)
def test_redirect_does_not_carry_the_token_away(shell: Shell, vault: Recorder, home: Path, status: int) -> None:
    with Recorder() as other:
        location = {"Location": f"{other.url}/v1/ai-bootstrap/register"}
        vault.answer = lambda _seen: CannedResponse(status, b"", location)
        ran = shell("install", TOKEN)
        assert (ran.status, len(vault.seen), other.connections) == (1, 1, 0)
    assert agents_of(home) == []


def test_lost_answer_leaves_no_key_and_says_that_the_token_may_be_used_up(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyVault(faulty_vault.then_reset()) as broken:
        monkeypatch.setenv("SIKKERKEY_API_URL", broken.url)
        ran = shell("install", TOKEN)
        assert (ran.status, len(broken.seen)) == (1, 1)
    assert "\nhint: the token may be used up: " in ran.err
    assert agents_of(home) == []


def test_unreachable_vault_leaves_no_key(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_vault.refused_port() as port:
        monkeypatch.setenv("SIKKERKEY_API_URL", f"http://127.0.0.1:{port}")
        ran = shell("install", TOKEN)
    assert ran.status == 1
    assert ran.err.endswith(
        ": Connection refused\nhint: nothing was changed; check the network, HTTPS_PROXY and "
        "SIKKERKEY_CA_BUNDLE, then try again\n"
    )
    assert agents_of(home) == []


def test_interrupted_registration_leaves_no_key(
    shell: Shell, vault: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sikkerkey_mcp.Api, "send", interrupt)
    assert shell("install", TOKEN).status == 130
    assert agents_of(home) == []


HOSTILE_IDS: list[Any] = [
    "../../evil", "..", ".", "", "x" * 300, "a/b", "/tmp/evil", "a\x00b", "a\nb", "ø", "-rf", 7, None, ["a"], {"a": 1},
]  # fmt: skip


@pytest.mark.peer(4)
def test_hostile_id_from_the_vault_writes_nothing(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    before = tree(tmp_path)
    for member in ("agent", "vault"):
        error = f"the vault's answer has no valid {member}Id; nothing was stored"
        for hostile in HOSTILE_IDS:
            vault.answer = lambda _seen, members={member: hostile}: registered(**members)  # type: ignore[misc]
            ran = shell("install", TOKEN)
            assert ran == (
                *(1, ""),
                f"sikkerkey-mcp: error: {error}\nhint: the token is used up: create a new one\n",
            ), (member, hostile)
            assert set(tree(tmp_path)) - set(before) == {"home/.sikkerkey", "home/.sikkerkey/agents"}


@each_of("body", [b"", b"<html>", b"[]", b"null", b"\xff", b"{}"])
def test_invalid_answer_writes_nothing(shell: Shell, vault: Recorder, home: Path, body: bytes) -> None:
    vault.answer = lambda _seen: CannedResponse(200, body)
    ran = shell("install", TOKEN)
    assert ran.status == 1
    assert ran.err.startswith(f"sikkerkey-mcp: error: what answers at {vault.url} is not a vault; nothing was stored\n")
    assert agents_of(home) == []


def test_endless_name_from_the_vault_is_cut_so_that_the_slot_stays_readable(shell: Shell, vault: Recorder) -> None:
    vault.answer = lambda _seen: registered(name="\U0001f511" * 100_000)
    assert shell("install", TOKEN).status == 0
    assert sikkerkey_identity.load_identity(AGENT_ID).name == "\U0001f511" * 255


@pytest.mark.parametrize("name", [7, None, ["x"]])
def test_invalid_name_is_replaced_by_the_requested_one(shell: Shell, vault: Recorder, name: Any) -> None:
    vault.answer = lambda _seen: registered(name=name)
    shell("install", TOKEN, "--name", "mine")
    assert sikkerkey_identity.load_identity(AGENT_ID).name == "mine"


@pytest.mark.peer(14)
def test_existing_slot_is_kept_and_so_is_the_new_key(shell: Shell, vault: Recorder, home: Path) -> None:
    old_key = make_slot(home, vault.url).public_key()
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    before = (slot / "private.pem").read_bytes()
    ran = shell("install", TOKEN)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"sikkerkey-mcp: error: the agent is registered, but {slot} cannot be written: ")
    assert (slot / "private.pem").read_bytes() == before
    (hint,) = re.findall("^hint: its key is kept: (.*)$", ran.err, re.MULTILINE)
    subprocess.run(["sh", "-ec", hint], check=True)
    new_key = serialization.load_pem_private_key(sikkerkey_identity.load_identity(AGENT_ID).key_pem, None)
    assert isinstance(new_key, Ed25519PrivateKey)
    assert new_key.public_key() != old_key
    assert (slot.parent / f"{AGENT_ID}.old" / "private.pem").read_bytes() == before
    assert sikkerkey_identity.installed_agents() == [AGENT_ID]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_existing_file_at_the_slots_path_is_not_touched(
    shell: Shell, vault: Recorder, home: Path, tmp_path: Path, kind: str
) -> None:
    agents = home / ".sikkerkey" / "agents"
    agents.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.mkdir()
    if kind == "link":
        (agents / AGENT_ID).symlink_to(victim)
    else:
        (agents / AGENT_ID).write_text("mine")
    assert shell("install", TOKEN).status == 1
    assert list(victim.iterdir()) == []
    assert (agents / AGENT_ID).is_symlink() or (agents / AGENT_ID).read_text() == "mine"


# install: secrets


def test_token_and_key_are_nowhere_but_in_the_key_file(shell: Shell, vault: Recorder, tmp_path: Path) -> None:
    vault.answer = lambda _seen: registered(name=f"echo {TOKEN}")
    ran = shell("install", TOKEN)
    pem = sikkerkey_identity.load_identity(AGENT_ID).key_pem
    secret = pem.splitlines()[1]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()
            assert (secret in path.read_bytes()) == (path.name == "private.pem")
    assert TOKEN not in ran.out + ran.err
    assert secret.decode() not in ran.out + ran.err


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc to look at")
def test_token_that_is_not_text_is_refused(vault: Recorder) -> None:
    ended = subprocess.run(
        [*COMMAND, "install", "-"],
        input=b"\xff\n",
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert (ended.returncode, ended.stderr.decode(), vault.seen) == (USAGE, TOKEN_REFUSED, [])


def test_token_from_stdin_is_in_no_process_list(vault: Recorder) -> None:
    seen: list[bytes] = []

    def look(request: ReceivedRequest) -> CannedResponse:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    seen.append((process / name).read_bytes())
        return registered()

    vault.answer = look
    token = secrets.token_hex(32)  # other tests give TOKEN on the command line, perhaps at this moment
    ended = run_process("install", "-", stdin=f"{token}\n")
    assert ended.returncode == 0
    assert any(b"install\x00-" in text for text in seen)
    assert not any(token.encode() in text for text in seen)
    assert token not in ended.stdout + ended.stderr


# whoami


def test_whoami_lists_the_agents(shell: Shell, home: Path) -> None:
    other = fingerprint(make_slot(home, "http://127.0.0.1:1", OTHER_ID, name="zweite"))
    first = fingerprint(make_slot(home, "https://vault.test"))
    lines = (
        f"{AGENT_ID}  test agent  {VAULT_ID}  https://vault.test  {first}\n",
        f"{OTHER_ID}  zweite  {VAULT_ID}  http://127.0.0.1:1  {other}\n",
    )
    assert shell("whoami") == (0, "".join(lines), "")
    assert shell("whoami", "--agent", OTHER_ID).out == lines[1]


def test_fingerprint_of_a_known_key_is_the_sha_256_of_its_32_bytes() -> None:
    public_key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")  # RFC 8032, test 2
    shown = sikkerkey_keys.fingerprint(public_key)
    assert shown == "SHA256:OfcT0KZEJT8EUpQhufUbmwiXnQgpWVnE85kO5hf1E58"
    assert shown == identities.fingerprint(public_key)


def test_whoami_shows_an_agent_whose_key_cannot_be_loaded(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slot(home, "https://vault.test")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    ran = shell("whoami")
    assert (ran.status, ran.out) == (1, f"{AGENT_ID}  test agent  {VAULT_ID}  https://vault.test\n")
    assert ran.err.startswith(f"{AGENT_ID}: the signing library cannot be loaded")


def test_whoami_reports_that_no_agent_is_installed(shell: Shell, home: Path) -> None:
    assert shell("whoami") == (
        0,
        "",
        f"no agent is installed in {home}/.sikkerkey/agents\nhint: {shlex.join(sikkerkey_mcp.program())} install -\n",
    )


HOSTILE_NAME = "a\x1b[2J\x1b]0;t\x07b\u202ec\u200bd\u2028e\U000e0041f\r\ng\x9b"
CLEANED_NAME = "a<U+001B>[2J<U+001B>]0;t<U+0007>b<U+202E>c<U+200B>d<U+2028>e<U+E0041>f<U+000D><U+000A>g<U+009B>"


def test_hostile_names_cannot_move_the_cursor(shell: Shell, vault: Recorder, home: Path) -> None:
    vault.answer = lambda _seen: registered(name=HOSTILE_NAME)
    assert shell("install", TOKEN).out.startswith(f"installed agent {AGENT_ID} ({CLEANED_NAME}) of {VAULT_ID}\n")
    assert shell("whoami").out.startswith(f"{AGENT_ID}  {CLEANED_NAME}  {VAULT_ID}  {vault.url}  ")


def test_whoami_remote_shows_the_answer_cleaned(shell: Shell, recorder: Recorder, home: Path) -> None:
    make_slot(home, recorder.url)
    answer = {"name": HOSTILE_NAME, HOSTILE_NAME: 1, "scopes": ["a", "b\u202e"], "approved": True, "n": None}
    recorder.answer = lambda _seen: CannedResponse(body=json.dumps(answer).encode())
    assert shell("whoami", "--remote") == (
        0,
        f"name: {CLEANED_NAME}\n{CLEANED_NAME}: 1\nscopes: a, b<U+202E>\napproved: true\nn: -\n",
        "",
    )
    assert [seen.path for seen in recorder.seen] == ["/v1/ai/whoami"]


def test_whoami_remote_shows_recent_entries_as_rows(shell: Shell, recorder: Recorder, home: Path) -> None:
    make_slot(home, recorder.url)
    one = {"id": 9, "action": "secret_create", "severity": "low", "userId": None, "sourceIp": "127.0.0.1"}
    two = {**one, "action": HOSTILE_NAME, "severity": "critical", "detail": "as s\nx", "timestamp": 1767225600000}
    recorder.answer = lambda _seen: CannedResponse(
        body=json.dumps({"approved": True, "recentAudit": [two, one]}).encode()
    )
    wide = len(CLEANED_NAME)
    assert shell("whoami", "--remote").out.splitlines() == [
        "approved: true",
        "recentAudit:",
        f"  timestamp                 severity  {'action':{wide}}  sourceIp   detail",
        f"  2026-01-01T00:00:00.000Z  critical  {CLEANED_NAME}  127.0.0.1  as s<U+000A>x",
        f"  -                         low       {'secret_create':{wide}}  127.0.0.1  -",
    ]


def test_whoami_remote_reports_a_refusal(shell: Shell, recorder: Recorder, home: Path) -> None:
    make_slot(home, recorder.url)
    recorder.answer = lambda _seen: CannedResponse(403, b'{"error":"pending\\u001b[2J"}')
    ran = shell("whoami", "--remote")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith('sikkerkey-mcp: error: the vault answered 403, saying "pending<U+001B>[2J"\nhint: ')


@pytest.mark.parametrize("body", [b"", b"<html>portal</html>", b"[]"])
def test_whoami_remote_refuses_answers_that_are_not_json_objects(
    shell: Shell, recorder: Recorder, home: Path, body: bytes
) -> None:
    make_slot(home, recorder.url)
    recorder.answer = lambda _seen: CannedResponse(200, body)
    ran = shell("whoami", "--remote")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("sikkerkey-mcp: error: the vault's answer is not a JSON object\n")


def test_name_that_the_terminal_cannot_show_is_escaped(home: Path) -> None:
    key = fingerprint(make_slot(home, "https://vault.test", name="søger \U0001f511"))
    shown = at_terminal(["whoami"], b"", {"PYTHONIOENCODING": "ascii"})
    assert shown.decode() == f"{AGENT_ID}  s\\u00f8ger \\ud83d\\udd11  {VAULT_ID}  https://vault.test  {key}\r\n"


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252:replace"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_pipes_get_utf_8_in_every_locale(home: Path, vault: Recorder, env: dict[str, str]) -> None:
    name = "søger \U0001f511"
    key = fingerprint(make_slot(home, vault.url, name=name))
    vault.answer = lambda _seen: CannedResponse(body=json.dumps({"name": name}).encode())
    assert run_process("whoami", env=env).stdout == f"{AGENT_ID}  {name}  {VAULT_ID}  {vault.url}  {key}\n"
    words = ("call", "manage_machines", "get", f"machineId={AGENT_ID}")
    assert json.loads(run_process(*words, env=env).stdout) == {"name": name}
    made = run_process("call", "manage_projects", "create", "name=-", stdin="søger", env=env)
    assert "Created the project søger" in made.stderr


def test_pipe_gets_line_ends_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252", newline="\r\n"))  # as on Windows
    assert main(["tools", "list"]) == 0
    assert written.getvalue().count(b"\n") == len(sikkerkey_mcp.TOOLS) + 1
    assert b"\r" not in written.getvalue()


# revoke


def test_revoke_deletes_the_only_agent(shell: Shell, home: Path) -> None:
    make_slot(home, "https://vault.test")
    ran = shell("revoke", "--yes")
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    assert (ran.status, ran.out) == (0, f"removed agent {AGENT_ID} and the key in {slot} from this computer\n")
    assert ran.err == STILL_LISTED
    assert agents_of(home) == []


def test_revoke_deletes_the_named_agent_only(shell: Shell, home: Path) -> None:
    make_slot(home, "https://vault.test")
    make_slot(home, "https://vault.test", OTHER_ID)
    assert shell("revoke", OTHER_ID, "--yes").status == 0
    assert sikkerkey_identity.installed_agents() == [AGENT_ID]


def test_revoke_without_a_choice_among_several_deletes_nothing(shell: Shell, home: Path) -> None:
    make_slot(home, "https://vault.test")
    make_slot(home, "https://vault.test", OTHER_ID)
    before = tree(home)
    ran = shell("revoke")
    assert (ran.status, ran.out, tree(home)) == (1, "", before)
    assert ran.err.startswith("sikkerkey-mcp: error: 2 agents are installed here and none was chosen\nhint: ")


def test_revoke_reports_that_no_agent_is_installed(shell: Shell) -> None:
    assert shell("revoke") == (1, "", "sikkerkey-mcp: error: no agent is installed on this computer\n")


@pytest.mark.parametrize("wanted", ["../victim", "..", ".", "/", "victim/../../victim", "unknown"])
@pytest.mark.peer(4)
def test_revoke_deletes_nothing_outside(shell: Shell, home: Path, wanted: str) -> None:
    make_slot(home, "https://vault.test")
    victim = home / ".sikkerkey" / "victim"
    victim.mkdir()
    for name in agents.SLOT_FILES:
        (victim / name).write_text("mine")
    before = tree(home)
    ran = shell("revoke", wanted)
    assert (ran.status, ran.out, tree(home)) == (USAGE, "", before)


def test_revoke_through_a_link_deletes_nothing(shell: Shell, home: Path, tmp_path: Path) -> None:
    make_slot(home, "https://vault.test")
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    slot.rename(tmp_path / "victim")
    slot.symlink_to(tmp_path / "victim")
    assert shell("revoke", AGENT_ID, "--yes").status == 1
    assert tree(tmp_path / "victim") == ["identity.json", "private.pem"]


def test_revoke_leaves_other_files_in_the_slot(shell: Shell, home: Path) -> None:
    make_slot(home, "https://vault.test")
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    (slot / "notes.txt").write_text("mine")
    assert shell("revoke", "--yes").status == 0
    assert tree(slot) == ["notes.txt"]


def test_revoke_deletes_a_linked_key_but_not_its_target(shell: Shell, home: Path, tmp_path: Path) -> None:
    make_slot(home, "https://vault.test")
    slot = home / ".sikkerkey" / "agents" / AGENT_ID
    (slot / "private.pem").rename(tmp_path / "victim")
    (slot / "private.pem").symlink_to(tmp_path / "victim")
    assert shell("revoke", "--yes").status == 0
    assert (tmp_path / "victim").exists()
    assert agents_of(home) == []


# revoke at the vault


@pytest.fixture
def two(home: Path, recorder: Recorder) -> Recorder:
    """A vault of which two agents are installed here."""
    make_slot(home, recorder.url)
    make_slot(home, recorder.url, OTHER_ID)
    return recorder


def requests_of(vault: Recorder) -> list[tuple[str, str, str, bytes]]:
    return [(seen.headers["x-agent-id"], seen.method, seen.path, seen.body) for seen in vault.seen]


@pytest.mark.parametrize("by", [[], ["--by", OTHER_ID]])
def test_other_agent_revokes_at_the_vault_and_then_the_key_goes(shell: Shell, two: Recorder, by: list[str]) -> None:
    before: list[list[str]] = []

    def look(_seen: ReceivedRequest) -> CannedResponse:
        before.append(sikkerkey_identity.installed_agents())
        return CannedResponse()

    two.answer = look
    ran = shell("revoke", AGENT_ID, "--server", "--yes", *by)
    assert (ran.status, ran.out.splitlines()[0]) == (0, f"the vault has revoked agent {AGENT_ID}")
    assert ran.err == "running servers stop using the key before their next call\n"
    assert requests_of(two) == [(OTHER_ID, "POST", f"/v1/ai/ai-agents/{AGENT_ID}/revoke", b"")]
    assert (before, sikkerkey_identity.installed_agents()) == ([[AGENT_ID, OTHER_ID]], [OTHER_ID])


@each_of("status", [401, 403, 404, 409, 429, 500, 503])
def test_key_stays_if_the_vault_does_not_confirm(shell: Shell, two: Recorder, status: int) -> None:
    two.answer = lambda _seen: CannedResponse(status, headers={"Retry-After": "60"})
    ran = shell("revoke", AGENT_ID, "--server", "--yes")
    assert (ran.status, ran.out, sikkerkey_identity.installed_agents()) == (1, "", [AGENT_ID, OTHER_ID])
    assert ran.err.startswith(f"sikkerkey-mcp: error: the vault answered {status}")
    again = f"if it is already revoked, `sikkerkey-mcp revoke {AGENT_ID}` deletes its key"
    assert (again in ran.err) is (status == 404)


def test_key_stays_if_the_answer_is_lost(shell: Shell, home: Path) -> None:
    with FaultyVault(faulty_vault.then_reset()) as broken:
        make_slot(home, broken.url)
        make_slot(home, broken.url, OTHER_ID)
        ran = shell("revoke", AGENT_ID, "--server", "--yes")
        assert (ran.status, len(broken.seen), sikkerkey_identity.installed_agents()) == (1, 1, [AGENT_ID, OTHER_ID])
    assert sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED in ran.err


NO_OTHER_AGENT = "no agent can revoke itself, and no other agent of this vault is installed here"
BY_ITSELF = "--by must name another agent of the same vault: no agent can revoke itself"


def test_agent_cannot_revoke_itself(shell: Shell, home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)
    make_slot(home, "https://other.test", OTHER_ID)
    for options, words in (([], NO_OTHER_AGENT), (["--by", AGENT_ID], BY_ITSELF), (["--by", OTHER_ID], BY_ITSELF)):
        ran = shell("revoke", AGENT_ID, "--server", "--yes", *options)
        hint = f"revoke it on the vault's dashboard, then `sikkerkey-mcp revoke {AGENT_ID}` deletes its key here"
        assert ran == (USAGE if options else 1, "", f"sikkerkey-mcp: error: {words}\nhint: {hint}\n")
    assert (recorder.seen, sikkerkey_identity.installed_agents()) == ([], [AGENT_ID, OTHER_ID])


def test_one_of_several_others_must_be_named(shell: Shell, two: Recorder, home: Path) -> None:
    make_slot(home, two.url, "third")
    ran = shell("revoke", AGENT_ID, "--server", "--yes")
    assert (ran.status, two.seen) == (1, [])
    assert ran.err.endswith(f"\nhint: choose one with --by ID: {OTHER_ID}, third\n")


@each_of("arguments", [[], ["--server"], ["--by", OTHER_ID], ["--server", "--by", "../x", "--yes"]])
def test_unconfirmed_or_ambiguous_revocation_sends_nothing(
    shell: Shell, two: Recorder, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ran = shell("revoke", AGENT_ID, *arguments)
    assert (ran.status, ran.out, two.seen, sikkerkey_identity.installed_agents()) == (
        USAGE,
        "",
        [],
        [AGENT_ID, OTHER_ID],
    )


@pytest.mark.parametrize(("typed", "left"), [(b"y\n", [OTHER_ID]), (b"n\n", [AGENT_ID, OTHER_ID])])
def test_revocation_asks_for_confirmation_on_a_terminal(two: Recorder, typed: bytes, left: list[str]) -> None:
    shown = at_terminal(["revoke", AGENT_ID, "--server"], typed, {}, (b"[y/N]",))
    agent = f"agent {AGENT_ID} (test agent) of {VAULT_ID} at {two.url}"
    question = f"{OTHER_ID} will permanently revoke {agent}"
    assert shown.decode().startswith(f"{question}, and the key on this computer will be deleted\r\nContinue? [y/N] ")
    assert (sikkerkey_identity.installed_agents(), len(two.seen)) == (left, 2 - len(left))


@pytest.mark.parametrize(("typed", "left"), [(b"y\n", [OTHER_ID]), (b"n\n", [AGENT_ID, OTHER_ID])])
def test_revoke_names_agent_and_vault_and_offers_to_revoke_there(two: Recorder, typed: bytes, left: list[str]) -> None:
    shown = at_terminal(["revoke", AGENT_ID], typed, {}, (b"[y/N]",)).decode()
    question, offer = shown.split("\r\n")[:2]
    agent = f"agent {AGENT_ID} (test agent) of {VAULT_ID} at {two.url}"
    assert question == f"the key of {agent} will be deleted from this computer"
    assert offer.endswith(f"or with another agent: {shlex.join(COMMAND)} revoke {AGENT_ID} --server")
    assert (sikkerkey_identity.installed_agents(), two.seen) == (left, [])


def test_revoke_without_a_terminal_needs_yes(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_slot(home, "https://vault.test")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ran = shell("revoke")
    assert (ran.status, ran.out, sikkerkey_identity.installed_agents()) == (USAGE, "", [AGENT_ID])


# the command line itself


def test_version_and_help_are_shown(shell: Shell) -> None:
    assert shell("--version") == (0, f"sikkerkey-mcp {sikkerkey_mcp.VERSION}\n", "")
    for arguments in (["--help"], ["-h"], *([name, "--help"] for name in grammar.COMMANDS)):
        ran = shell(*arguments)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith("usage: sikkerkey-mcp")
        assert "\nexamples:\n" in ran.out


EXAMPLE_LINES = [
    line.strip()
    for text in (grammar.FIRST_STEPS, *(command.examples for command in grammar.COMMANDS.values()))
    for line in text.splitlines()
    if line[:2] == "  "
]


def test_examples_of_the_help_can_be_parsed() -> None:
    for line in (line for line in EXAMPLE_LINES if "sikkerkey-mcp " in line):
        words = shlex.split(re.split(r"   | > | >> | < |\)\"", line)[0].replace('eval "$(', ""))
        words = words[words.index("sikkerkey-mcp") + 1 :]
        if words[0] != "COMMAND":
            assert grammar.parse(words).parser.prog == f"sikkerkey-mcp {words[0]}", line


@pytest.mark.parametrize(("typed", "meant"), [("whomi", "whoami"), ("docter", "doctor"), ("instal", "install")])
def test_unknown_command_gets_a_suggestion(shell: Shell, typed: str, meant: str) -> None:
    ran = shell(typed)
    assert (ran.status, ran.out) == (USAGE, "")
    assert ran.err.endswith(f"sikkerkey-mcp: error: unknown command: did you mean {meant}?\n")


def test_token_in_a_wrong_place_is_not_repeated(shell: Shell) -> None:
    for arguments in ([TOKEN], ["whoami", TOKEN], ["whoami", f"--{TOKEN}"], ["call", "whoami", f"--value={TOKEN}"]):
        ran = shell(*arguments)
        assert (ran.status, ran.out) == (USAGE, "")
        assert TOKEN not in ran.err


@each_of(
    "arguments",
    [
        ["unknown"], ["--unknown"], ["install"], ["install", TOKEN[:9], "x"], ["config"], ["config", "emacs"],
        ["revoke", "a", "b"], ["whoami", "x"], [""],
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2_and_prints_to_stderr_only(shell: Shell, arguments: list[str]) -> None:
    ran = shell(*arguments)
    assert (ran.status, ran.out) == (USAGE, "")
    assert re.fullmatch("sikkerkey-mcp( [a-z]+)?: error: .*\n(hint: .*\n)?", ran.err)


@each_of(
    "line",
    [
        "call manage_secret", "call manage_secrets delet", "call manage_secrets.delet", "call manage_machines get x",
        "call manage_machines get =x", "call manage_machines get machneId=a", "call manage_projects get",
        "call manage_machines get machineId=a machineId=b",
        "call read_audit list page=none", "call support attachment attachmentId=a", "tools manage_secret",
        "tools manage_secrets.delet", "tools manage_secrets delete now", "config claude", "config cursor --jsn",
        "config cursor --tools nothing", "config cursor --values some", "config cursor --confirm sometimes",
        "config cursor --max-calls many", "config cursor --prefix 1", "config cursor --agent nobody",
        "config generic --write", "config windsurf --project", "config cursor --write --remove", "install short",
        "revoke nobody", "revoke --by nobody", "whoami --remote --agent nobody", "doctor --agent nobody",
        "log --agent nobody", "log --since never", "fill AAAA", "show", "confirm nothing", "completion tcsh",
        "help nothing", "setup --client cursr", "setup --wait long",
    ],
)  # fmt: skip
def test_every_wrong_argument_exits_with_2(shell: Shell, vault: Recorder, home: Path, line: str) -> None:
    make_slot(home, vault.url)
    ran = shell(*line.split())
    assert (ran.status, ran.out, vault.seen) == (USAGE, "", [])
    assert ran.err.startswith("sikkerkey-mcp")


@each_of(
    "line, meant",
    [
        ("config claude", "claude-code"), ("config vs-code", "vscode"), ("doctor --jsn", "--json"),
        ("--versoin", "--version"), ("config cursor --red-only", "--read-only"), ("completion bsh", "bash"),
        ("call Manage_Secrets", "manage_secrets"), ("call secrets list", "manage_secrets"),
        ("tools manage_secrets.delet", "delete"), ("call manage_machines get machineid=a", "machineId"),
        ("config cursor --tools manage_secrts", "manage_secrets"), ("setup --client cursr", "cursor"),
    ],
)  # fmt: skip
def test_similar_name_is_proposed(shell: Shell, line: str, meant: str) -> None:
    ran = shell(*line.split())
    assert (ran.status, f"did you mean {meant}?" in ran.err) == (USAGE, True), ran.err


def test_help_is_a_command_too(shell: Shell) -> None:
    assert shell("help") == shell("--help")
    for name in grammar.COMMANDS:
        assert shell("help", name) == shell(name, "--help")


def test_tool_and_action_are_one_word_or_two(shell: Shell) -> None:
    assert shell("tools", "manage_secrets") == shell("tools", "describe", "manage_secrets")
    for words in (["manage_secrets.rotate"], ["manage_secrets", "rotate"], ["describe", "manage_secrets.rotate"]):
        assert shell("tools", *words) == shell("tools", "describe", "manage_secrets", "rotate")
    assert shell("tools", "manage_secrets.rotate").out.startswith("manage_secrets rotate\n")


@pytest.mark.skipif(os.name != "posix", reason="this system has no pseudo-terminals")
@each_of(
    "line, question",
    [("install -", "token: "), (f"revoke {AGENT_ID}", "[y/N] ")],
)
def test_interrupted_question_leaves_a_clean_line(home: Path, line: str, question: str) -> None:
    make_slot(home, "http://127.0.0.1:9")
    terminal = Terminal([*COMMAND, *line.split()], {})
    terminal.interrupt(question)
    talk = terminal.end()
    assert (talk.status, talk.shown[-len(question) - 2 :]) == (130, f"{question}\r\n")
    assert sikkerkey_identity.installed_agents() == [AGENT_ID]


def test_commands_work_as_a_process(home: Path) -> None:
    make_slot(home, "https://vault.test")
    ended = run_process("revoke", "../victim")
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    assert re.fullmatch("sikkerkey-mcp: error: AGENT_ID fits no agent .*\nhint: there are: .*\n", ended.stderr)


# how it starts


def test_every_way_to_start_the_program_behaves_alike(home: Path) -> None:
    make_slot(home, "https://vault.test")
    results = []
    for start in (["-m", "sikkerkey_cli"], ["-I", PROGRAM], [str(ROOT / "sikkerkey_cli")], ["-I", str(ARCHIVE)]):
        for words in (["whoami"], ["serve", "--help"], ["nope"]):
            ended = subprocess.run([sys.executable, *start, *words], cwd=ROOT, capture_output=True, check=False)
            results.append((words, ended.returncode, ended.stdout, ended.stderr))
    assert results == results[:3] * 4


def test_server_module_started_directly_names_the_command_that_installs(home: Path) -> None:
    with Server([sys.executable, str(ROOT / "sikkerkey_mcp.py")]) as process:
        process.initialize()
        text = process.call("whoami")["content"][0]["text"]
    assert text.endswith(f" {shlex.join(COMMAND)} install -")


def test_console_script_is_the_same_entry_point() -> None:
    script = re.search(r'^sikkerkey-mcp = "(.*):(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert script
    assert getattr(importlib.import_module(script[1]), script[2]) is main


def test_serve_imports_no_command(home: Path) -> None:
    make_slot(home, "https://vault.test")
    code = (
        "import sys, sikkerkey_mcp, sikkerkey_cli.__main__ as cli; "
        "sikkerkey_mcp.serve = lambda _: print(*sys.modules); cli.main(['serve', '--read-only'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name for name in ended.stdout.split() if name.startswith("sikkerkey_cli")}
    assert loaded == {"sikkerkey_cli", "sikkerkey_cli.__main__"}


# serve


def test_agent_installed_while_the_server_runs_serves_the_next_call(home: Path, vault: Recorder) -> None:
    with Server() as process:
        process.initialize()
        assert len(process.request("tools/list")["result"]["tools"]) == len(sikkerkey_mcp.TOOLS)
        result = process.call("whoami")
        assert result["isError"] is True
        assert result["content"][0]["text"].startswith("no agent is installed on this computer\nhint: create an agent ")
        assert run_process("install", TOKEN).returncode == 0
        vault.answer = lambda _seen: CannedResponse(body=b'{"id":"me"}')
        assert process.call("whoami")["structuredContent"]["id"] == "me"
        assert process.close() == 0
    assert process.stderr.endswith(b" install -\n")
    assert vault.seen[-1].headers["x-agent-id"] == AGENT_ID


def test_concurrent_installations_create_two_slots(vault: Recorder, home: Path) -> None:
    answers = [registered(AGENT_ID), registered(OTHER_ID)]
    vault.answer = lambda _seen: answers.pop()
    threads = [threading.Thread(target=run_process, args=("install", TOKEN)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert agents_of(home) == sorted(
        f"{agent}{name}" for agent in (AGENT_ID, OTHER_ID) for name in ("", "/identity.json", "/private.pem")
    )


# terminals


def test_token_entered_at_the_prompt_is_not_echoed(recorder: Recorder) -> None:
    accepted = {"agentId": AGENT_ID, "name": "n", "vaultId": VAULT_ID}
    recorder.answer = lambda _seen: CannedResponse(201, json.dumps(accepted).encode())
    shown = at_terminal(["install", "-"], TOKEN.encode() + b"\n", {"SIKKERKEY_API_URL": recorder.url})
    assert b"installed agent" in shown
    assert TOKEN.encode() not in shown
    assert recorder.seen[0].json()["token"] == TOKEN


def test_server_started_on_a_terminal_says_what_it_waits_for(home: Path) -> None:
    make_slot(home, "https://vault.test")
    assert b"waiting for an MCP client on stdin" in at_terminal([], b"\x04", {})


def test_server_started_on_a_terminal_ends_if_it_cannot_work(home: Path) -> None:
    """A client would see no reason, but a person does."""
    person = Terminal([*COMMAND], {})
    ended = person.end()
    assert ended.status == 1
    assert ended.shown.startswith("sikkerkey-mcp: error: no agent is installed on this computer\r\nhint: ")
    make_slot(home, "https://vault.test")
    person = Terminal([*COMMAND, "serve", "--agent", "nobody"], {})
    assert person.end().status == 2


def test_wrong_usage_is_said_in_plain_words(shell: Shell, home: Path) -> None:
    """Not in those of argparse."""
    for words, told in (
        ("install", "TOKEN is missing; `sikkerkey-mcp install -` asks for it"),
        ("show", "CODE is missing"),
        ("call whoami --columns", "--columns needs a value"),
        ("whoami --remote=x", "--remote takes no value"),
        ("config codex --write --remove", "choose one of --remove and --write"),
        ("config codx", "unknown CLIENT: did you mean codex?"),
        ("completion xyz", "SHELL must be one of: bash, zsh, fish, powershell"),
        ("call whoami --agent=", "--agent must not be empty"),
        ("hepl", "unknown command: did you mean help?"),
        ("version", "unknown command: did you mean --version?"),
    ):
        ran = shell(*words.split())
        assert (ran.status, ran.out) == (2, ""), words
        assert ran.err.splitlines()[0].endswith(f": error: {told}"), (words, ran.err)


# broken streams


@pytest.mark.parametrize("words", ["whoami", "config codex", "--version"])
def test_full_output_is_reported_in_one_line(home: Path, words: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    make_slot(home, "https://vault.test")
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, *words.split()]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, lines[-1]) == (1, "sikkerkey-mcp: error: the system refused: No space left on device")
    assert all("codex" in line or "virtual" in line for line in lines[:-1])  # printed before stdout was flushed


def test_closed_pipe_is_not_an_error(home: Path) -> None:
    make_slot(home, "https://vault.test")
    gone, output = os.pipe()
    os.close(gone)
    ended = subprocess.run([*COMMAND, "whoami"], stdout=output, stderr=subprocess.PIPE, check=False)
    os.close(output)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_install_without_a_standard_input_is_refused(home: Path) -> None:
    command = f"{shlex.join(COMMAND)} install - <&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        USAGE,
        b"sikkerkey-mcp: error: the token must be 64 hexadecimal characters",
    )
