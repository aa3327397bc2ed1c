"""`doctor`: the state of each check, and remedies that fix what they claim to fix."""

from __future__ import annotations

import datetime
import email.utils
import errno
import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_http
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_tls
from sikkerkey_cli import doctor, version
from sikkerkey_cli.doctor import Line
from tests.support import faulty_vault
from tests.support.faulty_vault import DAY, Authority, ConnectProxy, FaultyVault
from tests.support.harness import (
    AGENT_ID,
    ARCHIVE,
    ARCHIVE_COMMAND,
    TIMEOUT_S,
    VAULT_ID,
    CannedResponse,
    ReceivedRequest,
    Recorder,
    make_slot,
)
from tests.support.local_vault import LocalVault, install
from tests.support.rows import each_of
from tests.support.shell import COMMAND, PROGRAM, Shell, at_terminal, run_process
from tests.support.table_calls import ROWS

OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
SCOPES = sorted({row.action.scope for row in ROWS if row.action.scope})
TOTAL = len(ROWS)  # actions
HARMLESS = sum(row.action.effect == "read" and not row.action.mints for row in ROWS)
YES_OR_NO = "1, true, yes, on, 0, false, no, off"
NOT_CHECKED = "not checked: no connection to the vault"

Examine = Callable[..., dict[str, list[Line]]]


@pytest.fixture
def examine(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Runs `doctor --json`; the lines by the names of their checks."""
    monkeypatch.setattr(sys, "argv", [PROGRAM])

    def examine(*options: str) -> dict[str, list[Line]]:
        ran = shell("doctor", "--json", *options)
        lines = [Line(**line) for line in json.loads(ran.out)]
        assert (ran.status, ran.err) == (int(any(line.state == "fail" for line in lines)), "")
        assert all(line.remedy for line in lines if line.state != "ok")
        found: dict[str, list[Line]] = {}
        for line in lines:
            found.setdefault(line.check, []).append(line)
        return found

    return examine


def whoami(**changes: Any) -> CannedResponse:
    """The vault's answer about an agent with all scopes, with `changes` to its members."""
    members = {"approved": True, "enabled": True, "scopes": SCOPES, "projectAllowlist": None, **changes}
    return CannedResponse(body=json.dumps(members).encode())


@pytest.fixture
def vault(home: Path, recorder: Recorder) -> Recorder:
    """A vault at which this computer's only agent has all scopes."""
    make_slot(home, recorder.url)
    recorder.answer = lambda seen: whoami() if seen.path == "/v1/ai/whoami" else CannedResponse(404)
    return recorder


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a vault that does not run; `install` would use it."""
    with faulty_vault.refused_port() as port:
        monkeypatch.setenv("SIKKERKEY_API_URL", f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


def states(found: dict[str, list[Line]]) -> dict[str, str]:
    return {check: " ".join(line.state for line in lines) for check, lines in found.items()}


# everything works


def test_checks_have_a_fixed_order(examine: Examine, vault: Recorder, home: Path) -> None:
    found = examine()
    assert states(found) == {
        **{"python": "ok", "program": "ok", "library": "ok", "home": "ok", "agent": "ok", "switches": "ok"},
        **{"clients": "warn", "proxy": "ok", "dns": "ok", "tls": "ok", "api": "ok", "clock": "ok", "vault": "ok"},
        **{"scopes": "ok", "tools": "ok"},
    }
    slot = f"{AGENT_ID} (test agent) of {VAULT_ID} at {vault.url}; 0700, private.pem 0600, identity.json 0600"
    key = sikkerkey_keys.fingerprint_of(sikkerkey_identity.load_identity(AGENT_ID))
    assert [found[check][0].detail for check in ("home", "agent", "switches", "vault", "scopes")] == [
        f"{home}/.sikkerkey 0700, {home}/.sikkerkey/agents 0700",
        f"{slot}\nkey {key}",
        "none: every action is offered",
        f"{AGENT_ID} is approved and enabled, for all projects",
        f"all {len(SCOPES)} that actions require",
    ]
    assert sorted(seen.path for seen in vault.seen) == ["/", "/v1/ai/whoami"]


def test_text_output_has_a_line_for_each_check_and_a_summary(shell: Shell, vault: Recorder) -> None:
    ran = shell("doctor")
    lines = ran.out.splitlines()
    assert (ran.status, ran.err, lines[-1]) == (0, "", "14 ok, 1 warn, 0 fail")
    assert f"ok    python      cpython {sys.version.split()[0]}, {sys.executable}" in lines
    assert "ok    clock       " in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    ("env", "colourful"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_is_used_only_on_terminals_that_allow_it(vault: Recorder, env: dict[str, str], colourful: bool) -> None:
    shown = at_terminal(["doctor"], b"", {"NO_COLOR": "", **env})
    assert (b"\x1b[32mok\x1b[0m    python" in shown, b"\x1b[" in shown) == (colourful, colourful)


def test_archive_is_named_with_its_hash_and_its_library(vault: Recorder) -> None:
    command = [*ARCHIVE_COMMAND, "doctor", "--json"]
    ended = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S)
    lines = {line["check"]: line for line in json.loads(ended.stdout)}
    digest = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    assert lines["program"]["detail"] == f"{sikkerkey_mcp.VERSION}, {ARCHIVE}\nsha256 {digest}"
    assert f", {os.environ['XDG_CACHE_HOME']}/sikkerkey-mcp/sikkerkey-mcp-" in lines["library"]["detail"]


# this computer


def test_unsuitable_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for numbers, state in (((3, 9, 1), "fail"), ((3, 9, 2), "ok"), ((3, 15, 9), "ok"), ((3, 16, 0), "warn")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "version_info", numbers)
            assert doctor.check_python().state == state
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert doctor.check_python().state == "fail"


PIP = f"{shlex.quote(sys.executable)} -m pip install cryptography"
OTHER_ARCHIVE = f"use the archive for this platform, or: {PIP}"
WITHOUT_B = "start Python without -B and without PYTHONDONTWRITEBYTECODE"
NOT_KEPT = "compiled at each start: "
# What runtime/ reports, and the line that it becomes; CHMOD stands for the command that closes the cache to others.
LIBRARIES: list[tuple[dict[str, str], Line]] = [
    (
        {"cryptography": "unusable: no\x1b"},
        Line("library", "fail", "cryptography is unusable: no<U+001B>", OTHER_ARCHIVE),
    ),
    (
        {"cryptography": "50", "library": "/c/rust.so", "bytecode": "/c/b"},
        Line("library", "ok", "cryptography 50, /c/rust.so"),
    ),
    (
        {"cryptography": "50", "library": "memory; cache: no room", "bytecode": f"{NOT_KEPT}no room"},
        Line("library", "warn", "cryptography 50, memory; cache: no room\nevery start is slow", "CHMOD"),
    ),
    (
        {"cryptography": "50", "library": "/c/r", "bytecode": f"{NOT_KEPT}/c/b cannot be written"},
        Line(
            "library",
            "warn",
            f"cryptography 50, /c/r\nevery start is slow: {NOT_KEPT}/c/b cannot be written",
            "CHMOD",
        ),
    ),
]


def test_library_fails_if_unusable_and_warns_of_slow_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime = type(sys)("sikkerkey_runtime")
    vars(runtime)["cache_directory"] = lambda _program: str(tmp_path)
    monkeypatch.setitem(sys.modules, "sikkerkey_runtime", runtime)
    tmp_path.chmod(0o777)
    for loaded, line in LIBRARIES:
        monkeypatch.setattr(version, "runtime_facts", lambda loaded=loaded: loaded)
        assert doctor.check_library() == line._replace(remedy=line.remedy.replace("CHMOD", f"chmod 700 {tmp_path}"))


def test_python_that_must_not_write_bytecode_is_not_blamed_on_the_cache(vault: Recorder, tmp_path: Path) -> None:
    command = [ARCHIVE_COMMAND[0], "-B", *ARCHIVE_COMMAND[1:], "doctor", "--json"]
    env = {**os.environ, "SIKKERKEY_CACHE_DIR": str(tmp_path / "cache")}  # without bytecode of other tests
    ended = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S, env=env)
    [line] = [line for line in json.loads(ended.stdout) if line["check"] == "library"]
    assert (line["state"], line["remedy"]) == ("warn", WITHOUT_B)


@pytest.mark.parametrize("cryptography", ["50", "unusable: cryptography cannot be loaded: {}; none is installed"])
def test_remedy_for_a_damaged_archive_is_another_download(monkeypatch: pytest.MonkeyPatch, cryptography: str) -> None:
    damage = "memory: the archive was replaced or is damaged"  # runtime/ prints this; test_archive.py checks that
    loaded = {"cryptography": cryptography.format(damage), "library": f"installed; {damage}"}
    monkeypatch.setattr(version, "runtime_facts", lambda: loaded)
    assert doctor.check_library().remedy == "download the archive again and compare its sha256 with SHA256SUMS"


def test_home_without_agents_is_a_warning_and_the_default_vault_is_checked(
    examine: Examine, home: Path, nowhere: str
) -> None:
    found = examine()
    (line,) = found["home"]
    assert line.detail.startswith(f"{home}/.sikkerkey: no agent is installed; create a token on the vault's dashboard")
    assert line.remedy == f"{sys.executable} {PROGRAM} install -"
    assert states(found) == {
        **{"python": "ok", "program": "ok", "library": "ok", "home": "warn", "switches": "ok", "clients": "warn"},
        **{"proxy": "ok", "dns": "ok", "tls": "warn", "api": "fail", "clock": "warn"},
    }
    assert found["api"][0].detail == f"{nowhere}: Connection refused"


def break_key(slot: Path) -> None:
    (slot / "private.pem").write_text("-----BEGIN PRIVATE KEY-----\ncanary\n")


def break_identity_by_a_pipe(slot: Path) -> None:
    (slot / "identity.json").unlink()
    os.mkfifo(slot / "identity.json", 0o600)


def break_home(slot: Path) -> None:
    shutil.rmtree(slot.parent.parent)
    slot.parent.parent.write_text("")


def break_identity(slot: Path) -> None:
    (slot / "identity.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "check", "detail", "fixed_by_remedy"),
    [
        (lambda slot: (slot / "private.pem").chmod(0o644), "agent", "can be read or written by other users", False),
        (lambda slot: slot.chmod(0o755), "agent", "can be read or written by other users", True),
        (lambda slot: slot.parent.parent.chmod(0o777), "home", "can be written by other users", True),
        (break_key, "agent", "private.pem does not contain an unencrypted Ed25519 key in PKCS8 PEM", False),
        (break_identity, "agent", "is not an identity file", False),
        (break_identity_by_a_pipe, "agent", "identity.json is not a regular file", False),
        (lambda slot: (slot / "private.pem").unlink(), "agent", "cannot be read: No such file or directory", False),
        (break_home, "home", "", False),
    ],
)
def test_broken_slot_fails_with_its_remedy_and_the_rest_is_checked(
    examine: Examine, vault: Recorder, home: Path, nowhere: str, *, harm: Callable[[Path], object], check: str,
    detail: str, fixed_by_remedy: bool,
) -> None:  # fmt: skip
    harm(home / ".sikkerkey" / "agents" / AGENT_ID)
    found = examine()
    (line,) = found[check]
    if detail:
        assert (line.state, detail in line.detail) == ("fail", True)
    else:
        assert line.state in ("warn", "fail")
    assert "canary" not in str(found)
    assert {"python", "program", "library", "switches", "clients", "proxy", "dns", "tls", "api", "clock"} <= set(found)
    known = check == "agent" and harm not in (break_identity, break_identity_by_a_pipe)
    assert (found["api"][0].state, len(vault.seen)) == (
        ("ok", 1) if known else ("fail", 0)
    )  # the agent's own vault is checked
    if fixed_by_remedy:
        subprocess.run(["sh", "-ec", line.remedy], check=True)
        assert examine()[check][0].state == "ok"


@pytest.mark.parametrize("where", ["relative", "~nobody-of-this-name/x"])
def test_home_that_is_no_absolute_path_fails(
    examine: Examine, nowhere: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("SIKKERKEY_HOME", where)
    (line,) = examine()["home"]
    assert (line.state, line.remedy) == ("fail", "set SIKKERKEY_HOME to an absolute path")


def test_several_agents_without_a_choice_are_a_warning_and_all_are_checked(
    examine: Examine, vault: Recorder, home: Path
) -> None:
    make_slot(home, vault.url, OTHER_ID)
    found = examine()
    assert states(found)["choice"] == "warn"
    assert states(found)["agent"] == states(found)["vault"] == "ok ok"
    assert [line.detail.split()[0] for line in found["vault"]] == [AGENT_ID, OTHER_ID]
    assert len(found["api"]) == 1
    chosen = examine("--agent", OTHER_ID)
    assert "choice" not in chosen
    assert [line.detail.split()[0] for line in chosen["vault"]] == [OTHER_ID]


def test_wrong_choice_fails_and_all_are_checked(
    examine: Examine, vault: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIKKERKEY_AGENT_ID", "nope")
    found = examine()
    assert states(found)["choice"] == "fail"
    assert found["choice"][0].remedy == "unset SIKKERKEY_AGENT_ID"
    assert states(found)["vault"] == "ok"


def test_broken_agent_does_not_hide_a_sound_one(examine: Examine, vault: Recorder, home: Path) -> None:
    make_slot(home, vault.url, OTHER_ID)
    break_identity(home / ".sikkerkey" / "agents" / AGENT_ID)
    found = examine()
    assert (states(found)["agent"], states(found)["vault"]) == ("fail ok", "ok")


# identities of machines


def machine_identity(home: Path, vault_id: str = VAULT_ID, key_path: str = "") -> Path:
    """The directory of a machine's identity in the layout of the vendor's clients, as `machine-bootstrap` makes it."""
    slot = home / "vaults" / vault_id
    slot.mkdir(parents=True, mode=0o700)
    members = {"machineId": "m1", "vaultId": vault_id, "privateKeyPath": key_path or str(slot / "private.pem")}
    (slot / "identity.json").write_text(json.dumps(members))
    Path(members["privateKeyPath"]).write_text("SENTINEL_KEY")
    return slot


def test_machine_identity_in_this_home_is_a_warning(
    examine: Examine, shell: Shell, vault: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "machine" not in examine()
    slot = machine_identity(home / ".sikkerkey")
    other = machine_identity(home / ".sikkerkey", "vault_other", str(home / "elsewhere.pem"))
    (line, second) = examine()["machine"]
    assert (line.state, second.detail.partition(":")[0]) == ("warn", str(other))
    assert line.detail.startswith(f"{slot}: every program of this user, also an assistant's, can read secrets")
    assert line.remedy.startswith(f"move {slot} to the machine, or to a user that runs no assistant")
    assert "SENTINEL_KEY" not in shell("doctor").out
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # of another user; root reads everything
    assert list(doctor.check_machines()) == []


def test_machine_identity_is_found_in_sikkerkey_home_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_HOME", str(home / "own"))
    slots = [machine_identity(home / "own", "a\x1b[2J"), machine_identity(home / ".sikkerkey")]
    details = [line.detail for line in doctor.check_machines()]
    assert len(details) == len(slots)
    assert all("\x1b" not in detail for detail in details)


@each_of("content", ["", "{", "[]", "{}", '{"privateKeyPath": 7}', None])
def test_identity_without_a_key_is_no_warning_and_does_not_hang(home: Path, content: str | None) -> None:
    slot = home / ".sikkerkey" / "vaults" / "vault_1"
    slot.mkdir(parents=True, exist_ok=True)
    (slot / "identity.json").unlink(missing_ok=True)
    if content is None:
        os.mkfifo(slot / "identity.json")
    else:
        (slot / "identity.json").write_text(content)
    assert list(doctor.check_machines()) == []


@pytest.mark.parametrize(
    ("variable", "value", "state", "detail"),
    [
        ("SIKKERKEY_READ_ONLY", "1", "ok", f"SIKKERKEY_READ_ONLY: {HARMLESS} of {TOTAL} actions are offered"),
        ("SIKKERKEY_TOOLS", "whoami", "ok", f"SIKKERKEY_TOOLS whoami: 1 of {TOTAL} actions are offered"),
        ("SIKKERKEY_SPLIT_READS", "1", "ok", f"SIKKERKEY_SPLIT_READS: {TOTAL} of {TOTAL} actions are offered"),
        ("SIKKERKEY_SPLIT_READS", "x", "fail", f"SIKKERKEY_SPLIT_READS must be one of: {YES_OR_NO}"),
        ("SIKKERKEY_READ_ONLY", "x", "fail", f"SIKKERKEY_READ_ONLY must be one of: {YES_OR_NO}"),
        ("SIKKERKEY_EXCLUDE", "nope", "fail", "SIKKERKEY_EXCLUDE names nope, which is no tool or action"),
    ],
)
def test_restrictions_of_the_environment_are_shown(
    examine: Examine, vault: Recorder, monkeypatch: pytest.MonkeyPatch, *, variable: str, value: str, state: str,
    detail: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, value)
    (line,) = examine()["switches"]
    assert (line.state, line.detail) == (state, detail)


# the connection to the vault


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A certificate authority that this computer trusts."""
    (tmp_path / "tls").mkdir()
    authority = Authority(tmp_path / "tls")
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", str(authority.bundle))
    return authority


def dated(body: bytes = b"{}", ahead_s: float = 0) -> faulty_vault.Act:
    """An answer of a vault whose clock is `ahead_s` seconds ahead."""
    return faulty_vault.answer(body, 200, f"Date: {email.utils.formatdate(time.time() + ahead_s, usegmt=True)}")


@pytest.mark.parametrize(
    ("ends_in", "state", "days"), [(90 * DAY, "ok", 89), (15 * DAY, "ok", 14), (13 * DAY, "warn", 12)]
)
def test_certificate_is_shown_with_its_expiry_and_what_it_was_checked_against(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, ends_in: datetime.timedelta, state: str, days: int
) -> None:
    monkeypatch.setattr(sikkerkey_tls, "system_store", lambda: (["/etc/s.pem"], ["/etc/s"]))
    tls = authority.server("127.0.0.1", ends_in=ends_in + datetime.timedelta(hours=-1))
    with FaultyVault(dated(), tls=tls) as vault:
        line, api, clock = doctor.check_connection(vault.url)
        date = (faulty_vault.NOW + ends_in + datetime.timedelta(hours=-1)).strftime("%Y-%m-%d")
        trusted = (
            f"checked against {authority.bundle} (SIKKERKEY_CA_BUNDLE), certifi's certificates, /etc/s.pem, /etc/s"
        )
        assert line.detail == f"TLSv1.3, certificate valid until {date} ({days} days), {trusted}"
        assert (line.state, api.state, clock.state, len(vault.seen)) == (state, "ok", "ok", 1)


@pytest.mark.parametrize(
    ("make", "reason", "issuer", "remedy"),
    [
        (
            lambda authority: authority.server("127.0.0.1", itself=True),
            *("self", "127.0.0.1", sikkerkey_tls.UNKNOWN_AUTHORITY),
        ),
        (
            lambda authority: authority.server("other.test"),
            *("IP address mismatch", "test authority", sikkerkey_tls.ADDRESS),
        ),
        (
            lambda authority: authority.server("127.0.0.1", ends_in=-DAY),
            *("certificate has expired", "test authority", sikkerkey_tls.REMEDIES[10]),
        ),
    ],
)
def test_untrusted_certificate_fails_at_tls(
    authority: Authority, make: Any, reason: str, issuer: str, remedy: str
) -> None:
    with FaultyVault(tls=make(authority)) as vault:
        tls, api, clock = doctor.check_connection(vault.url)
    assert tls.state == "fail"
    assert f"its certificate is not trusted: {reason}" in tls.detail
    assert f'(issuer: "{issuer}"); trusted: {authority.bundle} (SIKKERKEY_CA_BUNDLE), certifi' in tls.detail
    assert tls.remedy == remedy
    assert [(line.state, line.detail) for line in (api, clock)] == [("warn", NOT_CHECKED)] * 2


def test_invalid_ca_bundle_fails_at_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", str(tmp_path / "no\x1b"))
    tls, api, clock = doctor.check_connection("https://vault.test")
    assert tls == Line(
        *("tls", "fail", "the CA bundle cannot be read as PEM certificates"),
        f"check SIKKERKEY_CA_BUNDLE ({tmp_path}/no<U+001B>)",
    )
    assert [line.detail for line in (api, clock)] == [NOT_CHECKED] * 2


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (faulty_vault.then_close(), "the connection broke"),
        (faulty_vault.then_reset(), "Connection reset by peer"),
        (
            faulty_vault.then_close(b"SSH-2.0-OpenSSH\r\n\r\n"),
            "its answer was cut short or malformed (the status line)",
        ),
    ],
)
def test_vault_that_answers_with_something_else_fails_at_api(act: faulty_vault.Act, reason: str) -> None:
    with FaultyVault(act) as vault:
        tls, api, clock = doctor.check_connection(vault.url)
        assert (api.state, api.detail) == ("fail", f"{vault.url}: {reason}")
    assert (tls.state, clock.detail) == ("ok", NOT_CHECKED)


@each_of(
    ("ahead_s", "state", "words"),
    [
        (0, "ok", "the vault's"),
        (-55, "ok", "ahead of the vault's"),
        (66, "warn", "behind the vault's"),
        (-66, "warn", "ahead of the vault's"),
        (-290, "warn", "ahead of the vault's"),
        (310, "fail", "behind the vault's: beyond 300 s the vault refuses every call"),
        (-310, "fail", "ahead of the vault's: beyond 300 s the vault refuses every call"),
    ],
)
def test_clock_is_compared_with_the_vaults(
    monkeypatch: pytest.MonkeyPatch, ahead_s: int, state: str, words: str
) -> None:
    now_s = time.time()
    with FaultyVault(dated(ahead_s=ahead_s)) as vault:
        monkeypatch.setattr(time, "time", lambda: now_s)
        clock = doctor.check_connection(vault.url)[2]
    assert (clock.state, clock.detail.endswith(words)) == (state, True)
    assert bool(clock.remedy) is (state != "ok")


def test_clock_is_not_checked_without_a_date_header() -> None:
    with FaultyVault() as vault:
        assert doctor.check_connection(vault.url)[2].state == "warn"


def test_unknown_host_name_fails_at_dns(examine: Examine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_named: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    make_slot(home, "https://vault.test")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = examine()
    assert found["dns"][0].detail == "vault.test cannot be resolved"
    assert found["api"][0].detail == "https://vault.test: its name cannot be resolved"
    assert {check: states(found)[check] for check in ("dns", "tls", "api", "clock", "vault")} == {
        **{"dns": "fail", "tls": "warn", "api": "fail", "clock": "warn", "vault": "warn"}
    }


def test_invalid_host_name_fails_at_dns_and_api() -> None:
    url = f"https://{'x' * 64}.test"
    assert [line.state for line in (*doctor.check_dns(url), *doctor.check_connection(url))] == [
        "fail",
        "warn",
        "fail",
        "warn",
    ]


def test_resolved_addresses_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{last}", 443)) for last in (1, 1, 2, 3, 4)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_named: found)
    assert doctor.check_dns("https://vault.test") == [
        Line("dns", "ok", "vault.test is 192.0.2.1, 192.0.2.2, 192.0.2.3, ...")
    ]


def test_dead_family_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        sikkerkey_http.Address(family, 1, 6, "", (address, 443))
        for family, address in [(socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "192.0.2.1")]
    ]
    failures: dict[int, OSError] = {}

    def connect(addresses: list[sikkerkey_http.Address], *_limits: float) -> tuple[socket.socket, Any]:
        (address,) = addresses
        if address.family in failures:
            raise failures[address.family]
        return socket.socket(), address.target

    monkeypatch.setattr(sikkerkey_http, "resolve", lambda *_: found)
    monkeypatch.setattr(sikkerkey_http, "connect_first", connect)
    six, four = socket.AF_INET6, socket.AF_INET
    silent, no_route = TimeoutError(), OSError(errno.EHOSTUNREACH, "no route")
    cases: list[tuple[dict[int, OSError], list[str]]] = [
        ({}, []),
        ({six: silent}, ["IPv6 is dead: 2001:db8::1 does not answer"]),
        ({six: no_route}, ["IPv6 is dead: 2001:db8::1 does not answer"]),
        ({four: silent}, ["IPv4 is dead: 192.0.2.1 does not answer"]),
        ({six: OSError(errno.ENETUNREACH, "no IPv6 here")}, []),
        ({six: ConnectionRefusedError()}, []),
        ({six: silent, four: silent}, []),  # reported as unreachable
    ]
    for failed, dead in cases:
        failures = failed
        lines = doctor.check_families("https://vault.test")
        assert [line.detail for line in lines] == dead, failed
        assert all(line.state == "warn" for line in lines)
    found.pop()
    assert doctor.check_families("https://vault.test") == []


def test_store_that_has_no_certificates_is_a_warning(
    examine: Examine, vault: Recorder, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    assert states(examine())["tls"] == "ok"
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/\x1b.pem")
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.bundle.parent))
    lines = examine()["tls"]
    assert [(line.state, line.detail, line.remedy) for line in lines[:-1]] == [
        ("warn", "SSL_CERT_FILE names no certificates: /nonexistent/<U+001B>.pem", "unset SSL_CERT_FILE"),
        ("warn", f"SSL_CERT_DIR names no certificates: {authority.bundle.parent}", "unset SSL_CERT_DIR"),
    ]


def test_hanging_check_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(doctor, "NETWORK_MAX_S", 0.0)
    job = doctor.Job("dns", lambda: [Line("dns", "ok", str(gate.wait(TIMEOUT_S)))])
    (line,) = job.lines()
    gate.set()
    assert (line.check, line.state, line.detail) == ("dns", "fail", "no answer within 0 s")


def test_exception_in_a_check_is_raised() -> None:
    job = doctor.Job("dns", lambda: [Line("dns", "ok", str(1 // 0))])
    with pytest.raises(ZeroDivisionError):
        job.lines()


PASSWORD = "canary-pa55/word"


def test_connection_uses_the_proxy_and_hides_its_password(
    examine: Examine, home: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = authority.server("vault.test", ends_in=90 * DAY)
    answers = [dated(), dated(whoami().body)]
    with FaultyVault(*answers, tls=tls, host="vault.test") as vault, ConnectProxy(vault.port) as proxy:
        make_slot(home, vault.url)
        monkeypatch.setenv("HTTPS_PROXY", f"http://us%20er:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{proxy.port}")
        found = examine()
        heads = proxy.heads
    assert found["proxy"][0].detail == f"127.0.0.1:{proxy.port} with a password (HTTPS_PROXY)"
    assert found["dns"][0].detail == "127.0.0.1 is 127.0.0.1"
    assert {check: states(found)[check] for check in ("tls", "api", "clock", "vault")} == {
        **{"tls": "ok", "api": "ok", "clock": "ok", "vault": "ok"}
    }
    assert (
        len({head.split("roxy-")[1].split("\r\n")[0].lower() for head in heads}) == 1
    )  # the same credentials as the server sends
    assert "canary" not in str(found)


def test_refusal_of_the_proxy_is_reported(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectProxy(1, faulty_vault.refusal(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        api = doctor.check_connection("https://vault.test")[1]
    assert (api.state, api.detail) == ("fail", "https://vault.test: the proxy answered 407")


@pytest.mark.parametrize("place", ["pro xy.test", "127.0.0.1:99999"])
def test_malformed_proxy_fails_without_its_password(
    examine: Examine, home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    make_slot(home, "https://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@{place}")
    found = examine()
    assert states(found)["proxy"] == "fail"
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("url", "no_proxy", "detail"),
    [
        ("https://vault.test", "vault.test", "none for vault.test (NO_PROXY)"),
        ("http://127.0.0.1:1", "", "none: http:// to this computer never uses a proxy"),
        ("https://vault.test", "other.test", "proxy.test:3128 (HTTPS_PROXY)"),
    ],
)
def test_host_may_be_excluded_from_the_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, detail: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128/")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert doctor.check_proxy(url) == Line("proxy", "ok", detail)


# the agent at the vault


@pytest.mark.parametrize(
    ("response", "detail", "remedy"),
    [
        (
            CannedResponse(403, b'{"error":"Agent is pending approval"}'),
            "the vault answered 403, saying ",
            doctor.APPROVE,
        ),
        (CannedResponse(403, b'{"error":"Agent is disabled"}'), "the vault answered 403, saying ", doctor.ENABLE),
        (CannedResponse(403), "the vault answered 403", "the agent must be approved and enabled; "),
        (whoami(approved=False), "is pending", doctor.APPROVE),
        (whoami(enabled=False), "is disabled", doctor.ENABLE),
        (
            CannedResponse(401),
            "the vault answered 401",
            f"sikkerkey-mcp revoke {AGENT_ID} --yes && SIKKERKEY_API_URL=http://",
        ),
        (
            CannedResponse(503, b'{"error":"sealed"}'),
            'the vault answered 503, saying "sealed"',
            "the vault is sealed or under maintenance",
        ),
        (
            CannedResponse(503, headers={"Retry-After": "5"}),
            "the vault answered 503",
            "the vault is sealed or under maintenance",
        ),
        (CannedResponse(500), "the vault answered 500", "the vault failed; try again later"),
        (CannedResponse(200, b"<html>"), "the answer is not from a vault", "check apiUrl: "),
        (CannedResponse(200, b"[]"), "the answer is not from a vault", "check apiUrl: "),
        (whoami(scopes="all"), "the answer is not from a vault", "check apiUrl: "),
    ],
)
def test_unusable_agent_fails_with_a_remedy(
    home: Path, recorder: Recorder, shell: Shell, *, response: CannedResponse, detail: str, remedy: str
) -> None:
    make_slot(home, recorder.url)
    recorder.answer = lambda _seen: response
    line = doctor.check_agent(sikkerkey_identity.load_identity(AGENT_ID))[0]
    assert (line.check, line.state, detail in line.detail) == ("vault", "fail", True)
    assert line.remedy.startswith(remedy)
    assert len(recorder.seen) == 1


def test_refusal_because_of_the_clock_does_not_suggest_to_reinstall(home: Path, shell: Shell) -> None:
    with FaultyVault(faulty_vault.answer(b"{}", 401, "Date: Thu, 01 Jan 2015 00:00:00 GMT")) as vault:
        make_slot(home, vault.url)
        (line,) = doctor.check_agent(sikkerkey_identity.load_identity(AGENT_ID))
    assert (line.state, line.remedy[:25]) == ("fail", "this computer's clock is ")


def available(scopes: list[str]) -> str:
    """The detail of the `tools` line for an agent with these scopes."""
    allowed = {id(row.action) for row in ROWS if row.action.scope in (None, *scopes)}
    each = (
        f"{tool.name} {sum(id(action) in allowed for action in tool.actions)}/{len(tool.actions)}"
        for tool in sikkerkey_mcp.TOOLS
    )
    return f"{len(allowed)} of {TOTAL} actions: {', '.join(each)}"


def test_scopes_show_which_actions_are_unavailable(examine: Examine, vault: Recorder) -> None:
    scopes = [scope for scope in SCOPES if not scope.startswith("trash")]
    vault.answer = lambda _seen: whoami(scopes=scopes, projectAllowlist=["a"])
    found = examine()
    assert found["vault"][0].detail == f"{AGENT_ID} is approved and enabled, for 1 projects"
    assert found["scopes"][0].detail == ", ".join(scopes)
    assert found["tools"][0].detail == available(scopes)
    assert "manage_trash 0/" in found["tools"][0].detail
    (missing,) = found["missing"]
    assert (missing.state, missing.detail.splitlines()[1:]) == ("ok", ["trash.read, trash.write: all of manage_trash"])


def test_every_unavailable_action_is_listed(examine: Examine, vault: Recorder) -> None:
    vault.answer = lambda _seen: whoami(scopes=[s for s in SCOPES if s not in ("trash.write", "alerts.write")])
    (missing,) = examine()["missing"]
    for scope, line in zip(("alerts.write", "trash.write"), missing.detail.splitlines()[1:]):
        names = [f"{row.tool.name}.{row.action.name}" for row in ROWS if row.action.scope == scope]
        assert (line, len(names) > 1) == (f"{scope}: {', '.join(names)}", True)
    assert len(missing.detail.splitlines()) == 3


def test_agent_without_scopes_has_the_actions_that_need_none(examine: Examine, vault: Recorder) -> None:
    vault.answer = lambda _seen: whoami(scopes=[])
    found = examine()
    assert found["scopes"][0].detail == "none"
    assert found["tools"][0].detail == available([])


# hostile text


HOSTILE = "a\x1b[2J\u202e\nok    vault       all is well\r"


def test_hostile_names_add_no_line_and_do_not_move_the_cursor(shell: Shell, vault: Recorder, home: Path) -> None:
    make_slot(home, vault.url, name=HOSTILE)
    hostile = {"scopes": [HOSTILE], "error": HOSTILE}
    for answer in (whoami(**hostile), CannedResponse(403, json.dumps(hostile).encode())):
        vault.answer = lambda _seen, answer=answer: answer  # type: ignore[misc]
        ran = shell("doctor")
        assert not any(line.startswith("ok    vault       all is well") for line in ran.out.splitlines())
        assert not set("\x1b\u202e\r") & set(ran.out)
        assert ran.out.count("a<U+001B>[2J<U+202E><U+000A>ok    vault       all is well<U+000D>") == 2


def test_nothing_secret_is_shown(shell: Shell, vault: Recorder) -> None:
    pem = sikkerkey_identity.load_identity(AGENT_ID).key_pem.decode().splitlines()[1]
    for options in ((), ("--json",)):
        ran = shell("doctor", *options)
        assert pem not in ran.out + ran.err
        for name in ("X-Signature", "x-nonce", "PRIVATE KEY"):
            assert name not in ran.out + ran.err


# the clients


def entered(home: Path, command: list[str], env: dict[str, str] | None = None, key: str = "sikkerkey") -> None:
    """An entry in Cursor's file."""
    server = {"command": command[0], "args": command[1:], **({"env": env} if env else {})}
    (home / ".cursor").mkdir(exist_ok=True)
    (home / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": {key: server}}))


STARTED = [sys.executable, "-I", PROGRAM, "serve", "--agent", AGENT_ID]


def test_entry_for_this_program_is_started(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, STARTED)
    (line,) = examine()["client"]
    assert line.state == "ok"
    assert line.detail.startswith(f"cursor, {home}/.cursor/mcp.json, sikkerkey: starts in ")
    assert line.detail.endswith(f" s with {len(sikkerkey_mcp.TOOLS)} tools")


def test_entry_makes_a_real_call(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, STARTED)
    examine()
    assert sorted(seen.path for seen in vault.seen) == ["/", "/v1/ai/whoami", "/v1/ai/whoami"]
    vault.answer = lambda _seen: CannedResponse(403, b'{"error":"Agent is pending approval"}')
    (line,) = examine()["client"]
    assert line.state == "fail"
    assert " tools, but a call fails: the vault answered 403, saying " in line.detail
    assert line.remedy == doctor.APPROVE


def test_entry_without_the_tool_is_not_called(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, [*STARTED, "--exclude", "whoami"])
    assert states(examine())["client"] == "ok"
    assert sorted(seen.path for seen in vault.seen) == ["/", "/v1/ai/whoami"]


def test_entry_that_lacks_a_variable_is_written_again(
    examine: Examine, home: Path, authority: Authority, shell: Shell
) -> None:
    """An authority or a proxy that only this terminal knows about."""
    tls = authority.server("localhost", ends_in=90 * DAY)
    with FaultyVault(dated(whoami().body), tls=tls, host="localhost") as vault:
        make_slot(home, vault.url)
        entered(home, STARTED)
        (line,) = examine()["client"]
        assert (line.state, "a call fails: the vault at" in line.detail) == ("fail", True)
        assert line.remedy == f"{sys.executable} {PROGRAM} config cursor --write"
        assert shell("config", "cursor", "--write").status == 0
        assert states(examine())["client"] == "ok"


def test_entry_of_a_client_that_passes_the_proxy_on_is_tried_with_it(
    examine: Examine, home: Path, authority: Authority, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = authority.server("vault.test", ends_in=90 * DAY)
    answer = dated(whoami().body)
    with FaultyVault(answer, tls=tls, host="vault.test") as vault, ConnectProxy(vault.port) as proxy:
        make_slot(home, vault.url)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        for client in ("claude-code", "codex"):
            assert shell("config", client, "--write").status == 0
        assert states(examine())["client"] == "ok ok"
        assert "HTTPS_PROXY" not in (home / ".claude.json").read_text()
        assert f'HTTPS_PROXY = "http://127.0.0.1:{proxy.port}"' in (home / ".codex" / "config.toml").read_text()


def test_entry_whose_call_gets_no_answer_fails() -> None:
    listed = {"2": {"result": {"tools": [{"name": "whoami"}]}}}
    assert str(doctor._judged(listed, "", in_time=False).refusal) == "no answer within 8 s"
    assert doctor._judged({**listed, "3": {"result": {}}}, "", in_time=False) == doctor.Tried(1)


def test_entry_with_restrictions_lists_fewer_tools(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, [*STARTED, "--tools", "whoami,manage_trash"])
    assert examine()["client"][0].detail.endswith(" with 2 tools")


def test_only_a_copy_of_the_archive_counts_as_this_program(
    examine: Examine, vault: Recorder, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = shutil.copy(PROGRAM, tmp_path / "__main__.py")  # would import the modules beside it
    entered(home, [sys.executable, "-I", str(module), "serve"])
    assert states(examine())["client"] == "warn"
    archive = shutil.copy(ARCHIVE, tmp_path / "sikkerkey-mcp.pyz")
    entered(home, [sys.executable, "-I", str(archive), "serve"])
    monkeypatch.setattr(sys, "argv", [str(ARCHIVE)])
    assert states(examine())["client"] == "ok"


def test_entry_without_isolation_is_a_warning(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, [sys.executable, PROGRAM, "serve"])
    (line,) = examine()["client"]
    assert (line.state, "-I is missing" in line.detail) == ("warn", True)
    assert line.remedy == f"{sys.executable} {PROGRAM} config cursor --write"


def test_entry_of_an_agent_that_is_gone_fails(examine: Examine, vault: Recorder, home: Path) -> None:
    entered(home, [*STARTED[:-1], "gone", "--read-only"])
    (line,) = examine()["client"]
    assert line.state == "fail"
    assert line.detail.endswith(f"but a call fails: there is no agent gone in {home}/.sikkerkey/agents")
    assert line.remedy == f"{sys.executable} {PROGRAM} config cursor --write --read-only"


def test_entry_with_wrong_options_fails(examine: Examine, vault: Recorder, home: Path) -> None:
    for words in (["--read-onyl"], ["--tools", "nope"], ["--exclude"]):
        entered(home, [*STARTED, *words])
        (line,) = examine()["client"]
        assert line.state == "fail", words
        assert " with 1 tools, but a call fails: " in line.detail, words
        assert line.remedy == f"{sys.executable} {PROGRAM} config cursor --write", words


def test_entry_that_hangs_fails(examine: Examine, vault: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CLIENT_MAX_S", 0.0)
    entered(home, STARTED)
    (line,) = examine()["client"]
    assert (line.state, line.detail.endswith(": it does not answer within 0 s")) == ("fail", True)


def test_entry_gets_its_own_environment_and_little_else(
    examine: Examine, vault: Recorder, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (home / ".sikkerkey").rename(elsewhere)
    monkeypatch.setenv("SIKKERKEY_HOME", str(elsewhere))
    entered(home, STARTED)
    assert states(examine())["client"] == "fail"  # the client does not know where the home is either
    entered(home, STARTED, {"SIKKERKEY_HOME": str(elsewhere)})
    assert states(examine())["client"] == "ok"


@each_of(
    ("command", "env", "reason"),
    [
        (["sh", "-c", "touch {mark}"], {}, "its command is not Python with this program"),
        (["{python}", "-c", "open('{mark}', 'w')"], {}, "its command is not Python with this program"),
        (["{python}", "-m", "sikkerkey_mcp"], {}, "its command is not Python with this program"),
        (["{python}", "-I", "{program}", "revoke"], {}, "its command is not Python with this program"),
        (["{python}", "-I"], {}, "its command is not Python with this program"),
        (["{evil}", "serve"], {}, "its command is not Python with this program"),
        (["{python}", "-I", "{evil}", "serve"], {}, "{evil} is not this program"),
        (["{python}", "-I", "__main__.py", "serve"], {}, "__main__.py is not this program"),
        (["/no/python3", "-I", "{program}", "serve"], {}, "/no/python3 does not exist"),
        (["./python3", "-I", "{program}", "serve"], {}, "./python3 does not exist"),
        (["{open}", "-I", "{program}", "serve"], {}, "{open} belongs to another user, or others can write to it"),
        (["{python}", "-I", "{program}", "serve"], {"LD_PRELOAD": "/x"}, "its environment changes what Python loads"),
        (["{python}", "-I", "{program}", "serve"], {"PYTHONPATH": "/x"}, "its environment changes what Python loads"),
    ],
)
def test_other_commands_are_never_started(
    examine: Examine, vault: Recorder, home: Path, tmp_path: Path, *, command: list[str], env: dict[str, str],
    reason: str,
) -> None:  # fmt: skip
    mark, evil, loose = tmp_path / "mark", tmp_path / "sikkerkey-mcp.pyz", tmp_path / "python3"
    evil.write_text(f"#!{sys.executable}\nopen({str(mark)!r}, 'w')\n")
    evil.chmod(0o755)
    loose.write_text(f"#!/bin/sh\ntouch {mark}\n")
    loose.chmod(0o777)
    names = {"mark": mark, "evil": evil, "open": loose, "python": sys.executable, "program": PROGRAM}
    entered(home, [word.format(**names) for word in command], env)
    (line,) = examine()["client"]
    assert not mark.exists()
    assert line == Line(
        *("client", "warn"),
        f"cursor, {home}/.cursor/mcp.json, sikkerkey: {reason.format(**names)}; it was not started",
        f"{sys.executable} {PROGRAM} config cursor --write",
    )


def test_unreadable_client_file_is_a_warning(examine: Examine, vault: Recorder, home: Path) -> None:
    (home / ".cursor").mkdir()
    (home / ".cursor" / "mcp.json").write_text('{"mcpServers": ')
    (line,) = examine()["client"]
    assert (line.state, line.remedy) == ("warn", "fix the file in the client or in an editor")


# as a process


def test_interrupt_ends_without_a_message(home: Path, recorder: Recorder) -> None:
    make_slot(home, recorder.url)

    def interrupt(_seen: ReceivedRequest) -> CannedResponse:
        process.send_signal(2)
        process.wait(TIMEOUT_S)
        return CannedResponse()

    recorder.answer = interrupt
    pipe = subprocess.PIPE
    command = [*COMMAND, "doctor", "--json"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_status_is_1_where_a_line_fails(home: Path, nowhere: str) -> None:
    ended = run_process("doctor")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert os.linesep.join(ended.stdout.splitlines()[-1:]).endswith(" fail")


def test_states_of_an_agent_at_a_real_vault(local_vault: LocalVault, shell: Shell) -> None:
    def state() -> dict[str, str]:
        ended = shell("doctor", "--json")
        lines = {line["check"]: line for line in json.loads(ended.out)}
        assert ended.status == (lines["vault"]["state"] == "fail")
        return {name: lines["vault"][name] for name in ("state", "detail", "remedy")}

    agent = install(local_vault)
    pending = state()
    local_vault.owner("approve", agent)
    approved = state()
    local_vault.owner("disable", agent)
    disabled = state()
    refused = f"{agent}: the vault answered 403, saying "
    assert [pending, approved, disabled] == [
        {"state": "fail", "detail": f'{refused}"Agent is pending approval"', "remedy": doctor.APPROVE},
        {"state": "ok", "detail": f"{agent} is approved and enabled, for all projects", "remedy": ""},
        {"state": "fail", "detail": f'{refused}"Agent is disabled"', "remedy": doctor.ENABLE},
    ]
