"""The agent's slot on disk: which URLs, agents, modes, owners and links are accepted, and how errors are fixed."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sikkerkey_address
import sikkerkey_identity
import sikkerkey_mcp
from tests.support.harness import AGENT_ID, ROOT, VAULT_ID, make_slot
from tests.support.rows import each_of

API_URL = "http://127.0.0.1:1"
OTHER_ID = "1f8fad5b-d9cb-469f-a165-70867728950f"
as_root = hasattr(os, "getuid") and os.getuid() == 0


def refused() -> sikkerkey_mcp.ConfigError:
    """The error for the installed agent."""
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        sikkerkey_mcp.connect()
    return raised.value


def replacement() -> str:
    """The hint that replaces the agent."""
    return sikkerkey_mcp.runnable(sikkerkey_identity.replacement(AGENT_ID, API_URL))


def run_hint(hint: str, tmp_path: Path) -> None:
    """Runs the command of a hint; `sudo` is replaced by a script that just runs its arguments."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "sudo").chmod(0o700)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-ec", hint], env={**os.environ, "PATH": path}, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints name the command that started the program."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "sikkerkey_cli" / "__main__.py")])


@pytest.fixture
def slot(home: Path) -> Path:
    """A good slot."""
    make_slot(home, API_URL)
    return home / ".sikkerkey" / "agents" / AGENT_ID


# base URLs


GOOD_URLS = [
    "https://api.sikkerkey.com", "https://api.sikkerkey.com:8443", "https://API.SikkerKey.com:1",
    "https://10.0.0.1:65535", "https://[2001:db8::1]:443", "https://vault", "http://localhost",
    "http://LOCALHOST:8080", "http://127.0.0.1:8080", "http://[::1]:8080",
]  # fmt: skip


def test_base_url_is_accepted_with_and_without_a_slash() -> None:
    for url in GOOD_URLS:
        assert sikkerkey_address.parse_base_url(url) == sikkerkey_address.parse_base_url(url + "/") == url


# The same rule, as a pattern.
HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)"
PORT = r"(?:0*[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BASE_URL = re.compile(
    rf"https://{HOST}(?::(?=[0-9]{{1,5}}(?:/|$)){PORT})?/?|http://(?:localhost|127\.0\.0\.1|\[::1\])/?"
)


@given(st.text("aZ09.-:[]/@ \nø\N{ARABIC-INDIC DIGIT ONE}", max_size=12).map("https://".__add__))
def test_base_url_is_accepted_exactly_if_it_matches_the_pattern(url: str) -> None:
    try:
        sikkerkey_address.parse_base_url(url)
        accepted = True
    except sikkerkey_mcp.ConfigError:
        accepted = False
    assert accepted == (BASE_URL.fullmatch(url) is not None)


@given(st.text("aZ09_-.ø/ \n", max_size=6) | st.integers(126, 130).map("a".__mul__))
def test_id_is_accepted_exactly_if_it_matches_the_pattern(text: str) -> None:
    assert sikkerkey_mcp.is_id(text) == (re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,127}", text) is not None)


REMOTE_URLS = [
    "http://localhost.evil.example", "http://localhost.", "http://127.0.0.1.evil.example",
    "http://127.0.0.1evil.example", "http://127.0.0.2", "http://127.1", "http://2130706433", "http://0.0.0.0",
    "http://0", "http://[::]", "http://[::ffff:127.0.0.1]", "http://[0:0:0:0:0:0:0:1]", "http://api.sikkerkey.com",
    "http://example.org:80",
]  # fmt: skip


@pytest.mark.peer(4)
def test_http_to_anything_but_loopback_is_refused() -> None:
    for url in REMOTE_URLS:
        refuse_url(url)


def refuse_url(url: str) -> None:
    """Asserts that the URL is refused with a hint, and that the message does not quote it."""
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        print("accepted:", ascii(sikkerkey_address.parse_base_url(url)))  # shown if it is accepted
    assert raised.value.hint, url
    assert "canary" not in f"{raised.value} {raised.value.hint}", url


BAD_URLS = [
    "", "api.sikkerkey.com", "//api.sikkerkey.com", "https://", "https:///", "https:api.sikkerkey.com",
    "https:/api.sikkerkey.com", "https:\\\\api.sikkerkey.com", "HTTPS://api.sikkerkey.com",
    "Https://api.sikkerkey.com", "ftp://api.sikkerkey.com", "file:///etc/passwd", "https://user@api.sikkerkey.com",
    "https://user:canary@api.sikkerkey.com", "https://localhost@evil.example", "http://127.0.0.1@evil.example",
    "http://localhost#@evil.example", "http://localhost\\@evil.example", "https://api.sikkerkey.com/v1",
    "https://api.sikkerkey.com//", "https://api.sikkerkey.com/.", "https://api.sikkerkey.com?x=1",
    "https://api.sikkerkey.com/?x=1", "https://api.sikkerkey.com#f", "https://api.sikkerkey.com/#",
    "https://api.sikkerkey.com:", "https://api.sikkerkey.com:0", "https://api.sikkerkey.com:00",
    "https://api.sikkerkey.com:65536", "https://api.sikkerkey.com:99999", "https://api.sikkerkey.com:443443",
    "https://api.sikkerkey.com:-1", "https://api.sikkerkey.com:+443", "https://api.sikkerkey.com:443:443",
    "https://api.sikkerkey.com:４４３", "https://api.sikkerkey.com\t", "https://api.sikkerkey.com\n",
    " https://api.sikkerkey.com", "https://api.sikkerkey .com", "https://api\t.sikkerkey.com",
    "https://api.sikkerkey.com\r\nX: y", "https://api.sikkerkey.com\x00", "https://søger.example",
    "https://-x.example", "https://.example", "https://%61.example", "https://[::1", "https://::1",
    "https://[fe80::1%25eth0]", "https://[api.sikkerkey.com]",
]  # fmt: skip


def test_base_url_with_anything_but_host_and_port_is_refused_unquoted() -> None:
    for url in BAD_URLS:
        refuse_url(url)


def test_identity_with_a_bad_url_is_refused(home: Path) -> None:
    make_slot(home, "http://localhost.evil.example")
    assert "http:// to another computer" in str(refused())


# which agent


def test_without_an_agent_the_error_says_how_to_install_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/my tools/sikkerkey.pyz"])
    assert (sikkerkey_identity.installed_agents(), sikkerkey_identity.choose_agent()) == ([], None)
    error = refused()
    assert str(error) == "no agent is installed on this computer"
    assert error.hint.endswith("'/opt/my tools/sikkerkey.pyz' install -")


def test_only_agent_is_chosen_without_asking(slot: Path) -> None:
    assert sikkerkey_identity.choose_agent() == AGENT_ID


def test_among_several_agents_one_must_be_chosen(home: Path, slot: Path) -> None:
    make_slot(home, API_URL, OTHER_ID)
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        sikkerkey_identity.choose_agent()
    assert str(raised.value) == "2 agents are installed here and none was chosen"
    assert "--agent ID" in raised.value.hint
    assert "SIKKERKEY_AGENT_ID=ID" in raised.value.hint
    assert f": {AGENT_ID}, {OTHER_ID}; for a client: " in raised.value.hint


def test_option_takes_precedence_over_the_environment(home: Path, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_slot(home, API_URL, OTHER_ID)
    monkeypatch.setenv("SIKKERKEY_AGENT_ID", OTHER_ID)
    assert sikkerkey_identity.choose_agent() == OTHER_ID
    assert sikkerkey_identity.choose_agent(AGENT_ID) == AGENT_ID


HOSTILE_IDS = ["../x", "..", ".", "/etc", "a/b", "a\\b", "a b", "a\x00", "a\n", "-x", "%2e%2e", "x" * 129, "ø", ".new"]


@pytest.mark.peer(4)
def test_malformed_choice_is_refused_unquoted(home: Path, slot: Path) -> None:
    make_slot(home, API_URL, OTHER_ID)
    shutil.copytree(slot, slot.parent.parent / "x")
    for wanted in HOSTILE_IDS:
        with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
            sikkerkey_identity.choose_agent(wanted)
        assert str(raised.value) == "the agent id is malformed", wanted


def test_malformed_choice_in_the_environment_is_refused_too(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_AGENT_ID", f"../agents/{AGENT_ID}")
    assert str(refused()) == "the agent id is malformed"


@pytest.mark.parametrize("wanted", ["unknown", AGENT_ID.upper()])
def test_unknown_choice_is_refused(slot: Path, wanted: str) -> None:
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        sikkerkey_identity.choose_agent(wanted)
    assert str(raised.value) == f"there is no agent {wanted} in {slot.parent}"
    assert "whoami" in raised.value.hint


def test_files_of_other_programs_in_agents_are_skipped(slot: Path) -> None:
    for name in ("sk_1a2b3c4d5e.json", "agent.pid", "agent.log", "plain", ".hidden"):
        (slot.parent / name).write_text("{}")
    for name in (".new-1-abcdef01", ".cache", "with space", "x.old", "ø"):
        (slot.parent / name).mkdir()
    assert sikkerkey_identity.installed_agents() == [AGENT_ID]
    assert sikkerkey_identity.choose_agent() == AGENT_ID


def test_home_may_be_elsewhere(home: Path, tmp_path: Path, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / 'søger\'s "home"'
    shutil.move(slot.parent.parent, elsewhere)
    assert sikkerkey_identity.installed_agents() == []
    monkeypatch.setenv("SIKKERKEY_HOME", str(elsewhere))
    key_pem = (elsewhere / "agents" / AGENT_ID / "private.pem").read_bytes()
    assert sikkerkey_identity.load_identity(AGENT_ID).key_pem == key_pem


def test_home_that_is_not_absolute_is_refused(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_HOME", ".sikkerkey")
    monkeypatch.chdir(slot.parent.parent.parent)
    error = refused()
    hint = "set SIKKERKEY_HOME to an absolute path"
    assert (str(error), error.hint) == ("SIKKERKEY_HOME is not an absolute path", hint)
    monkeypatch.delenv("SIKKERKEY_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    error = refused()
    assert (str(error), error.hint) == ("no home directory is known", hint)


# reading a slot


def test_slot_of_the_reference_client_is_read(slot: Path) -> None:
    identity = sikkerkey_identity.load_identity(AGENT_ID)
    pem = (slot / "private.pem").read_bytes()
    read = {"agent_id": AGENT_ID, "name": "test agent", "vault_id": VAULT_ID, "api_url": API_URL, "key_pem": pem}
    assert vars(identity) == {
        **read,
        "path": str(slot / "identity.json"),
        "key_path": str(slot / "private.pem"),
        "certificate": "",
        "public_key": b"",
        "key_store": "",
        "replaces": [],
    }


def rewrite(slot: Path, **members: Any) -> None:
    """Changes members of the identity file; None removes one."""
    path = slot / "identity.json"
    changed = {**json.loads(path.read_text()), **members}
    path.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def test_key_of_a_slot_that_has_moved_is_found(slot: Path) -> None:
    for stored in ("/nonexistent/private.pem", "private.pem", "", 7, None, "/a\x00b", "/\ud800"):
        rewrite(slot, privateKeyPath=stored)
        assert sikkerkey_identity.load_identity(AGENT_ID).key_pem == (slot / "private.pem").read_bytes(), stored


def test_key_stored_elsewhere_is_read_from_there(slot: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    shutil.move(slot / "private.pem", key)
    rewrite(slot, privateKeyPath=str(key))
    assert sikkerkey_identity.load_identity(AGENT_ID).key_pem == key.read_bytes()
    key.chmod(0o640)
    assert str(refused()) == f"{key} can be read or written by other users"


def test_further_members_and_a_missing_name_do_no_harm(slot: Path) -> None:
    rewrite(slot, name=None, createdAt=1767225600000, nested={"a": [1.10]})
    assert sikkerkey_identity.load_identity(AGENT_ID).name == ""


# what is refused, and fixed by the command in the hint


def test_parents_that_others_can_write_are_refused_until_fixed(slot: Path, tmp_path: Path) -> None:
    for directory in (slot.parent.parent, slot.parent):
        for mode in (0o720, 0o702, 0o777, 0o770):
            directory.chmod(mode)
            error = refused()
            assert (str(error), error.hint) == (f"{directory} can be written by other users", f"chmod 700 {directory}")
        run_hint(error.hint, tmp_path)
        sikkerkey_mcp.connect()


def test_parents_may_be_readable(slot: Path) -> None:
    for directory in (slot.parent, slot.parent.parent):
        directory.chmod(0o755)
    sikkerkey_mcp.connect()


@pytest.mark.peer(5)
def test_slot_that_others_can_open_is_refused_until_fixed(slot: Path, tmp_path: Path) -> None:
    for path, mode in ((slot, 0o700), (slot / "identity.json", 0o600), (slot / "private.pem", 0o600)):
        for extra in (0o040, 0o020, 0o010, 0o004, 0o002, 0o001):
            path.chmod(mode | extra)
            error = refused()
            words = f"{path} can be read or written by other users"
            hint = f"chmod {mode:o} {path}" if path.name != "private.pem" else replacement()
            assert (str(error), error.hint) == (words, hint), oct(extra)
        run_hint(f"chmod {mode:o} {path}", tmp_path)
        sikkerkey_mcp.connect()


def test_exposed_key_is_replaced_and_not_adopted(slot: Path) -> None:
    (slot / "private.pem").chmod(0o644)
    error = refused()
    assert "chmod" not in error.hint
    assert error.hint == replacement()
    with pytest.raises(sikkerkey_mcp.ConfigError) as unread:
        sikkerkey_identity.load_identity(AGENT_ID, with_key=False)
    assert "revoke" in unread.value.hint


def linked_name(slot: Path, which: str) -> Path:
    """One of the five paths that must not be links."""
    return {"home": slot.parent.parent, "agents": slot.parent, "slot": slot}.get(which, slot / which)


@each_of("which", ["home", "agents", "slot", "identity.json", "private.pem"])
@pytest.mark.peer(5)
def test_symbolic_link_is_refused_until_replaced(slot: Path, tmp_path: Path, which: str) -> None:
    path = linked_name(slot, which)
    real = tmp_path / "it's elsewhere"
    shutil.move(path, real)
    path.symlink_to(real)
    error = refused()
    assert str(error) == f"{path} is a symbolic link"
    run_hint(error.hint, tmp_path)
    assert not path.is_symlink()
    assert not real.exists()
    sikkerkey_mcp.connect()


def test_dangling_symbolic_link_is_refused(slot: Path) -> None:
    (slot / "private.pem").unlink()
    (slot / "private.pem").symlink_to("/nonexistent/key")
    assert str(refused()) == f"{slot / 'private.pem'} is a symbolic link"


# keys that Kubernetes and Docker mount

GROUP = 4_000_000_001  # without a name


@pytest.fixture
def mounted(slot: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The slot as Kubernetes mounts it for an ordinary user, who is in GROUP: of root, behind links, read-only."""
    data = slot / "..2026_11_28"
    data.mkdir()
    for name in ("private.pem", "identity.json"):
        shutil.move(slot / name, data / name)
        (data / name).chmod(0o440)
        (slot / name).symlink_to(f"..data/{name}")
    (slot / "..data").symlink_to(data.name)
    slot.chmod(0o1777)

    def of_root(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look_again(path: Any, **named: Any) -> os.stat_result:
            found = list(look(path, **named))
            found[4:6] = [0, GROUP]
            return os.stat_result(found)

        return look_again

    for name in ("lstat", "fstat"):
        monkeypatch.setattr(os, name, of_root(getattr(os, name)))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [GROUP])
    monkeypatch.setattr(sikkerkey_identity, "_is_mounted_read_only", lambda path: path.startswith(str(slot)))
    for directory in (slot.parent, slot.parent.parent):
        directory.chmod(0o755)  # made for the mount
    return slot


def test_mounted_key_is_accepted(mounted: Path) -> None:
    identity = sikkerkey_identity.load_identity(AGENT_ID)
    assert identity.key_pem == (mounted / "..2026_11_28" / "private.pem").read_bytes()


def test_whole_home_may_be_mounted(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mounted.parent.parent
    shutil.move(mounted.parent, root / "..data")
    (root / "agents").symlink_to("..data")
    assert str(refused()) == f"{root}/agents is a symbolic link"  # in a directory that is not mounted
    monkeypatch.setattr(sikkerkey_identity, "_is_mounted_read_only", lambda path: path.startswith(str(root)))
    assert sikkerkey_identity.load_identity(AGENT_ID).agent_id == AGENT_ID


def test_mounted_link_that_leads_elsewhere_is_refused(mounted: Path, tmp_path: Path) -> None:
    shutil.move(mounted / "..2026_11_28" / "private.pem", tmp_path / "private.pem")
    (mounted / "..2026_11_28" / "private.pem").symlink_to(tmp_path / "private.pem")
    assert str(refused()) == f"{mounted}/private.pem is a symbolic link"


def test_mounted_key_that_others_can_read_is_refused(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = mounted / "..2026_11_28" / "private.pem"
    for mode in (0o444, 0o441, 0o460, 0o450, 0o402):
        key.chmod(mode)
        error = refused()
        assert (str(error), error.hint) == (
            f"{key} can be read or written by other users",
            sikkerkey_identity.MOUNT_HINT,
        )
    key.chmod(0o440)
    user = pwd.struct_passwd(("other", "", 1001, 1001, "", "", ""))
    for members, primary_group, groups in [(["other"], 1001, [GROUP]), ([], GROUP, [GROUP]), ([], 1001, [])]:
        with monkeypatch.context() as patch:
            patch.setattr(grp, "getgrgid", lambda _, members=members: grp.struct_group(("g", "", GROUP, members)))
            patch.setattr(pwd, "getpwall", lambda gid=primary_group: [pwd.struct_passwd((*user[:3], gid, *user[4:]))])
            patch.setattr(os, "getgroups", lambda groups=groups: groups)
            assert str(refused()).endswith("can be read or written by other users"), (members, primary_group, groups)
    sikkerkey_mcp.connect()


def test_what_root_has_mounted_writable_is_refused(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_identity, "_is_mounted_read_only", lambda _path: False)
    assert str(refused()) == f"{mounted} can be read or written by other users"
    mounted.chmod(0o755)
    assert str(refused()) == f"{mounted}/identity.json is a symbolic link"


def test_directory_that_only_root_can_enter_is_refused(mounted: Path) -> None:
    """It comes from a `sudo` by mistake, or from somebody else."""
    mounted.parent.parent.chmod(0o700)
    error = refused()
    assert str(error) == f"{mounted.parent.parent} belongs to another user"
    assert error.hint.startswith("mv ")
    assert error.hint.endswith(" install -")


@pytest.mark.skipif(not as_root, reason="only root can give files to another user")
@each_of("which", ["home", "agents", "slot", "identity.json", "private.pem"])
@pytest.mark.peer(5)
def test_foreign_files_are_refused_and_moved_away(slot: Path, tmp_path: Path, which: str) -> None:
    path = linked_name(slot, which)
    os.chown(path, 65534, 65534)
    error = refused()
    assert str(error) == f"{path} belongs to another user"
    move, _, install = error.hint.partition(" && ")
    assert install.endswith(" install -")
    run_hint(move, tmp_path)
    assert not path.exists()
    assert sikkerkey_identity.installed_agents() == []  # nothing of theirs is used
    moved = {"home": slot.parent.parent, "agents": slot.parent}.get(which, slot)
    shutil.move(f"{moved}.not-mine", moved)
    os.chown(path, os.getuid(), os.getgid())
    sikkerkey_mcp.connect()


@pytest.mark.skipif(as_root, reason="root may open everything")
@each_of("which", ["home", "agents", "slot", "identity.json", "private.pem"])
def test_path_that_its_owner_cannot_open_is_refused_until_fixed(slot: Path, tmp_path: Path, which: str) -> None:
    path = linked_name(slot, which)
    path.chmod(0)
    error = refused()
    assert str(error).endswith(" cannot be read: Permission denied")
    run_hint(error.hint, tmp_path)
    sikkerkey_mcp.connect()


def test_file_in_a_directorys_place_is_refused_until_moved(slot: Path, tmp_path: Path) -> None:
    path = slot.parent
    shutil.rmtree(path)
    path.write_text("{}")
    error = refused()
    assert str(error) == f"{path} is not a directory"
    run_hint(error.hint, tmp_path)
    assert str(refused()) == "no agent is installed on this computer"


@pytest.mark.parametrize("name", ["identity.json", "private.pem"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_irregular_file_is_refused_without_being_opened(
    slot: Path, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = slot / name
    path.unlink()
    make(path)
    error = refused()
    assert str(error) == f"{path} is not a regular file"
    run_hint(error.hint, tmp_path)
    assert str(refused()) == f"{path} cannot be read: No such file or directory"


def without_key(slot: Path) -> None:
    """The key is gone."""
    (slot / "private.pem").unlink()


def without_identity(slot: Path) -> None:
    """The identity is gone."""
    (slot / "identity.json").unlink()


def oversized_identity(slot: Path) -> None:
    """One byte more than the limit."""
    (slot / "identity.json").write_bytes(b" " * (sikkerkey_identity.FILE_MAX_BYTES + 1))


def oversized_key(slot: Path) -> None:
    """A very large key file."""
    with (slot / "private.pem").open("ab") as file:
        file.truncate(10**9)


def other_agent(slot: Path) -> None:
    """The directory was renamed, or the file copied."""
    rewrite(slot, agentId=OTHER_ID)


BROKEN_SLOTS = {
    without_key: "private.pem cannot be read: No such file or directory",
    without_identity: "identity.json cannot be read: No such file or directory",
    oversized_identity: "identity.json is larger than 65,536 bytes",
    oversized_key: "private.pem is larger than 65,536 bytes",
    other_agent: "identity.json belongs to another agent than its directory says",
}


@pytest.mark.parametrize(("spoil", "words"), BROKEN_SLOTS.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_broken_slot_is_refused_until_revoked(
    slot: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(slot)
    error = refused()
    assert str(error) == f"{slot}/{words}"
    revoke_by_hint(error, tmp_path)


def revoke_by_hint(error: sikkerkey_mcp.ConfigError, tmp_path: Path) -> None:
    """Runs the command in the hint; afterwards no agent is installed."""
    revoke, install = error.hint.split(" && ")
    assert install.endswith(" install -")
    run_hint(revoke, tmp_path)
    assert sikkerkey_identity.installed_agents() == []


NO_IDENTITIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"agentId":7}',
    b"\xff\xfe{}",
    b"[" * 60_000,
    b'{"agentId":"%s","vaultId":null,"apiUrl":"http://127.0.0.1:1"}' % AGENT_ID.encode(),
    b'{"agentId":"%s","vaultId":"v"}' % AGENT_ID.encode(),
    b'{"canary":NaN}',
    b"9" * 10_000,
]


def test_malformed_identity_is_refused_unquoted_until_revoked(slot: Path, tmp_path: Path) -> None:
    for content in NO_IDENTITIES:
        (slot / "identity.json").write_bytes(content)
        error = refused()
        assert str(error) == f"{slot / 'identity.json'} is not an identity file", content[:80]
        assert error.__suppress_context__ or error.__context__ is None
    revoke_by_hint(error, tmp_path)


def test_key_that_cannot_sign_is_refused_at_the_start(slot: Path) -> None:
    (slot / "private.pem").write_bytes(b"canary")
    assert str(refused()) == "private.pem does not contain an unencrypted Ed25519 key in PKCS8 PEM"


def test_path_in_a_hint_survives_the_shell(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = tmp_path / "it's; touch planted $(touch planted) `touch planted`"
    hostile.mkdir()
    make_slot(hostile, API_URL)
    monkeypatch.setenv("SIKKERKEY_HOME", str(hostile / ".sikkerkey"))
    monkeypatch.chdir(tmp_path)
    (hostile / ".sikkerkey" / "agents" / AGENT_ID / "identity.json").chmod(0o644)
    run_hint(refused().hint, tmp_path)
    sikkerkey_mcp.connect()
    assert not (tmp_path / "planted").exists()
