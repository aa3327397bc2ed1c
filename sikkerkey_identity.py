"""An agent's identity: its files, with the checks of their modes and owners.

The files have the layout that SikkerKey's other clients read and write:

    $SIKKERKEY_HOME or ~/.sikkerkey / agents / {agentId} / identity.json, private.pem

Nothing here sends a request or loads a key (see `sikkerkey_keys`).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sikkerkey_shell
from sikkerkey_actions import is_id
from sikkerkey_address import (
    CERTIFICATE_PEM,
    DEFAULT_API_URL,
    certificate_sha256,
    is_pinnable,
    parse_base_url,
    pinned_address,
)
from sikkerkey_core import TOKEN_CHARACTERS, ConfigError, JsonObject, UsageError, clean, parse_json

FILE_MAX_BYTES = 64 * 1024  # an identity file or a key; both are a few hundred bytes
REPLACED_MAX = 20  # agents whose ids an identity keeps


class Identity:
    """An agent as its files describe it. `key_pem` is the private key; only `sikkerkey_keys` uses it."""

    def __init__(self, members: JsonObject, key_pem: bytes, path: str = "", key_path: str = "") -> None:
        self.agent_id: str = members["agentId"]
        self.name = str(members.get("name", ""))
        self.vault_id: str = members["vaultId"]
        self.api_url: str = members["apiUrl"]
        self.certificate: str = members.get("certificate", "")  # in PEM: the only one that this agent trusts
        self.public_key = _public_key_in(members)
        self.replaces: list[str] = _ids_in(members.get("replaces"))  # agents that this one has replaced, newest first
        self.key_store: str = members.get("keyStore", "")  # of the operating system, which has the key's passphrase
        self.path, self.key_path = path, key_path  # of identity.json and of the key
        self.key_pem = key_pem

    @property
    def address(self) -> str:
        """The vault's URL, with the fingerprint of its certificate if that is pinned."""
        return pinned_address(self.api_url, certificate_sha256(self.certificate)) if self.certificate else self.api_url

    @property
    def directory(self) -> str:
        """Where the key is, and what the system's key store needs."""
        return os.path.dirname(self.key_path)

    def __repr__(self) -> str:
        return f"Identity({self.agent_id})"


def _ids_in(listed: Any) -> list[str]:
    return [each for each in listed[:REPLACED_MAX] if is_id(each)] if isinstance(listed, list) else []


def _public_key_in(members: JsonObject) -> bytes:
    """The 32 bytes of the member publicKey; empty if it is absent, as in identities of other programs."""
    import binascii  # only for identities

    try:
        found = binascii.a2b_base64(members.get("publicKey", ""))
    except (ValueError, TypeError):
        found = b""
    return found if len(found) == 32 else b""


# ---------------------------------------------------------------------------------------------------------------------
# directories
# ---------------------------------------------------------------------------------------------------------------------


def home() -> str:
    """The directory that all SikkerKey programs share, absolute. Raises ConfigError."""
    named = os.environ.get("SIKKERKEY_HOME")
    path = named or os.path.expanduser("~/.sikkerkey")
    absolute = "set SIKKERKEY_HOME to an absolute path"
    if os.name == "nt" and named and path[0] in "/\\" and not os.path.splitdrive(path)[0]:
        raise ConfigError("SIKKERKEY_HOME names no drive", f"{absolute} that begins with a drive, such as C:")
    if not os.path.isabs(path):
        message = "SIKKERKEY_HOME is not an absolute path" if named else "no home directory is known"
        raise ConfigError(message, absolute)
    return os.path.normpath(path)


def agents_directory() -> str:
    """The directory that contains a directory for each agent."""
    return os.path.join(home(), "agents")


def tickets_directory() -> str:
    """Where calls wait for a person. Raises ConfigError."""
    return os.path.join(home(), "waiting")


def installed_agents() -> list[str]:
    """The ids of the agents on this computer. Files that other SikkerKey programs keep beside them are skipped."""
    directory = agents_directory()
    try:
        os.lstat(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        pass  # it may exist: check_parents reports what is wrong and how to fix it
    check_parents(directory)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(directory, error, sikkerkey_shell.make_private(directory, directory=True)) from None
    return [name for name in names if is_id(name) and _is_slot(os.path.join(directory, name))]


def _is_slot(path: str) -> bool:
    """Whether a directory holds an agent. After `revoke` it is still there if it holds files of others."""
    try:
        return os.path.isdir(path) and not {"identity.json", "private.pem"}.isdisjoint(os.listdir(path))
    except OSError:  # reported when its files are read
        return True


# ---------------------------------------------------------------------------------------------------------------------
# checks: files that others own, can read, or have replaced by links are refused, with the command that fixes it. What
# root has mounted read-only is accepted if no other user can read it: so Kubernetes and Docker pass keys to containers.
# ---------------------------------------------------------------------------------------------------------------------

MOUNT_HINT = "in Kubernetes, set defaultMode: 0400 and securityContext.fsGroup; in Docker, mode: 0400 and uid"
# A link or a FIFO that has replaced the file since it was checked is neither followed nor waited for.
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class OpenToOthers(ConfigError):
    """Other users can write a file or directory, or read it."""


def check_private(path: str, *, directory: bool, forbidden: int) -> None:
    """Refuses `path` if it is a link, belongs to another user, or has any of the mode bits `forbidden`.

    Windows has neither owner ids nor these modes: only the kind of file is checked there. Raises ConfigError.
    """
    path = _follow_mounted_link(path)
    try:
        found = os.lstat(path)
    except OSError as error:
        parent = sikkerkey_shell.make_private(os.path.dirname(path), directory=True)
        raise _unreadable(path, error, parent) from None
    _check_status(path, found, directory=directory, forbidden=forbidden)


def check_parents(directory: str) -> None:
    """Refuses a directory, or its parent, that others can write to. Raises ConfigError."""
    for path in (os.path.dirname(directory), directory):
        check_private(path, directory=True, forbidden=0o022)


def _check_status(path: str, found: os.stat_result, *, directory: bool, forbidden: int) -> None:
    mounted = found.st_uid == 0 and _is_mounted_read_only(path)
    _check_owner_and_symlink(path, found, mounted=mounted)
    if not (stat.S_ISDIR if directory else stat.S_ISREG)(found.st_mode):
        kind = "directory" if directory else "regular file"
        raise ConfigError(f"{clean(path)} is not a {kind}", sikkerkey_shell.rename(path, f"{path}.old"))
    if os.name == "posix" and found.st_mode & _forbidden_bits(found, forbidden, mounted=mounted):
        access = "written" if forbidden == 0o022 else "read or written"
        hint = MOUNT_HINT if mounted else sikkerkey_shell.make_private(path, directory=directory)
        raise OpenToOthers(f"{clean(path)} can be {access} by other users", hint)


def _forbidden_bits(found: os.stat_result, forbidden: int, *, mounted: bool) -> int:
    """`forbidden` without the bits that give nobody else access to a file that root provides."""
    if stat.S_ISDIR(found.st_mode):  # the names in it are no secret
        return 0 if mounted else forbidden & 0o022 if _is_foreign_root(found) else forbidden
    return forbidden & ~stat.S_IRGRP if mounted and _has_no_other_member(found.st_gid) else forbidden


def _is_foreign_root(found: os.stat_result) -> bool:
    return hasattr(os, "getuid") and found.st_uid == 0 != os.getuid()


def _is_mounted_read_only(path: str) -> bool:
    try:
        return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _follow_mounted_link(path: str) -> str:
    """`path`, or what it leads to if root has mounted it with a link that stays in its directory, as in Kubernetes.

    There, private.pem leads to ..data/private.pem, and ..data to a directory that is replaced when the secret changes.
    """
    directory = os.path.dirname(path)
    try:
        found = os.lstat(path)
    except OSError:  # reported by whoever opens it
        return path
    if not stat.S_ISLNK(found.st_mode) or found.st_uid != 0 or not _is_mounted_read_only(directory):
        return path
    target = os.path.realpath(path)
    return target if target.startswith(os.path.join(os.path.realpath(directory), "")) else path


def _has_no_other_member(group: int) -> bool:
    """True for a group of this process in which no other user is, except root."""
    if group not in (os.getegid(), *os.getgroups()):
        return False
    import grp  # not at the top: Windows has neither, and they are rarely needed
    import pwd

    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:  # a number without a name, as Kubernetes uses it
        members = []
    others = [user for user in pwd.getpwall() if user.pw_uid not in (0, os.getuid())]
    return not any(user.pw_gid == group or user.pw_name in members for user in others)


def _check_owner_and_symlink(path: str, found: os.stat_result, *, mounted: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{clean(path)} is a symbolic link", sikkerkey_shell.replace_link(path))
    # Root's directories are those in which a mount was made. One that only root can enter is from a `sudo` by mistake.
    of_root = _is_foreign_root(found) and stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005
    if hasattr(os, "getuid") and found.st_uid != os.getuid() and not mounted and not of_root:
        raise ConfigError(f"{clean(path)} belongs to another user", _without_strangers_files(path, found))


def _without_strangers_files(path: str, found: os.stat_result) -> str:
    """Commands that put a directory, or the slot of a file, out of the way: who made it chose the key and the vault."""
    foreign = path if stat.S_ISDIR(found.st_mode) else os.path.dirname(path)
    return sikkerkey_shell.in_order(sikkerkey_shell.rename(foreign, f"{foreign}.not-mine"), "sikkerkey-mcp install -")


def _unreadable(path: str, error: OSError, hint_if_forbidden: str) -> ConfigError:
    hint = hint_if_forbidden if isinstance(error, PermissionError) else ""
    return ConfigError(f"{clean(path)} cannot be read: {error.strerror}", hint)


def _read_private(path: str) -> bytes:
    check_private(path, directory=False, forbidden=0o077)
    path = _follow_mounted_link(path)
    try:
        with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
            _check_status(path, os.fstat(file.fileno()), directory=False, forbidden=0o077)
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error, sikkerkey_shell.make_private(path, directory=False)) from None
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{clean(path)} is larger than {FILE_MAX_BYTES:,} bytes")
    return data


# ---------------------------------------------------------------------------------------------------------------------
# reading and choosing an agent
# ---------------------------------------------------------------------------------------------------------------------

INSTALL_HINT = "create an agent token on the vault's dashboard, then: sikkerkey-mcp install -"
PR_SET_DUMPABLE = 4  # of <linux/prctl.h>


def choose_agent(wanted: str = "") -> str | None:
    """The agent to use: `wanted`, else SIKKERKEY_AGENT_ID, else the only one; None if none is installed.

    An agent that was replaced by `rotate-key` is found under its old id. Raises ConfigError if the choice is malformed
    or unknown, or if there are several and none was chosen.
    """
    wrong = UsageError if wanted else ConfigError
    wanted = wanted or os.environ.get("SIKKERKEY_AGENT_ID", "")
    if wanted and not is_id(wanted):
        hint = "an agent id is letters, digits, - and _; `sikkerkey-mcp whoami` lists them"
        raise wrong("the agent id is malformed", hint)
    found = installed_agents()
    if wanted and found != [wanted]:
        wanted = next((agent for agent in found if wanted in _replaced_by(agent)), wanted)
    if wanted and wanted not in found:
        named = wanted if len(wanted) != TOKEN_CHARACTERS else "of that id"  # probably a token in the wrong place
        hint = "`sikkerkey-mcp whoami` lists the agents" if found else INSTALL_HINT
        hint += "; then replace a client's entry: sikkerkey-mcp config CLIENT --write"
        raise wrong(f"there is no agent {named} in {clean(agents_directory())}", hint)
    if len(found) > 1 and not wanted:
        replaced = {old for agent in found for old in _replaced_by(agent)}  # its slot is about to be deleted
        found = [agent for agent in found if agent not in replaced]
    if len(found) > 1 and not wanted:
        hint = f"--agent ID (for revoke just the ID) or SIKKERKEY_AGENT_ID=ID, with one of: {', '.join(found)}"
        hint += "; for a client: sikkerkey-mcp config CLIENT --agent ID --write"
        raise ConfigError(f"{len(found)} agents are installed here and none was chosen", hint)
    return wanted or next(iter(found), None)


def agent_named(wanted: str) -> str:
    """The id of the installed agent with this name; `wanted` itself if it is an id or empty. Raises UsageError."""
    found = installed_agents()
    if not wanted or wanted in found:
        return wanted
    names = {}
    for agent in found:
        with suppress(ConfigError):  # reported by whoever uses the agent
            names[agent] = load_identity(agent, with_key=False).name
    same = [agent for agent, name in names.items() if name == wanted]
    same = same or [agent for agent, name in names.items() if name.casefold() == wanted.casefold()]
    if len(same) > 1:
        raise UsageError(f"--agent fits {len(same)} agents", f"give the id of one: {', '.join(same)}")
    if not same and found and not is_id(wanted):
        raise UsageError("--agent fits no agent of this computer", "`sikkerkey-mcp whoami` lists the agents")
    return same[0] if same else wanted  # perhaps the id of one that was replaced


def _replaced_by(agent: str) -> list[str]:
    try:
        return load_identity(agent, with_key=False).replaces
    except ConfigError:  # reported by whoever uses it
        return []


def replacement(agent_id: str, address: str = "") -> str:
    """The commands that replace an agent by a new one, of the same vault if its address is known."""
    install = "sikkerkey-mcp install -"
    if address not in ("", DEFAULT_API_URL):
        install = sikkerkey_shell.with_variable("SIKKERKEY_API_URL", address, install)
    return sikkerkey_shell.in_order(f"sikkerkey-mcp revoke {agent_id} --yes", install)


def load_identity(agent_id: str, *, with_key: bool = True, slot: str = "") -> Identity:
    """Reads and checks an agent's files; without `with_key`, the key file is checked but not read.

    `slot` is the name of its directory, if that is not its id. Raises ConfigError.
    """
    try:
        return _load_identity(agent_id, slot or agent_id, with_key=with_key)
    except ConfigError as error:
        error.hint = error.hint or replacement(agent_id)
        raise


def _load_identity(agent_id: str, slot: str, *, with_key: bool) -> Identity:
    directory = os.path.join(agents_directory(), slot)
    check_parents(agents_directory())
    check_private(directory, directory=True, forbidden=0o077)
    path = os.path.join(directory, "identity.json")
    try:
        members = parse_json(_read_private(path))
    except ValueError:
        members = None
    required = ("agentId", "vaultId", "apiUrl")
    if not isinstance(members, dict) or not all(isinstance(members.get(name), str) for name in required):
        raise ConfigError(f"{clean(path)} is not an identity file")
    if members["agentId"] != agent_id:
        raise ConfigError(f"{clean(path)} belongs to another agent than its directory says")
    try:
        parse_base_url(members["apiUrl"])
    except ConfigError as error:
        raise ConfigError(str(error)) from None  # its hint is about a variable that does not count here
    _check_certificate(path, members)
    if members.get("keyStore", "") not in ("", "secret-tool", "keychain", "dpapi"):
        raise ConfigError(f"{clean(path)}: keyStore is unknown")
    key_path = _key_path(directory, members.get("privateKeyPath"))
    try:
        if with_key:
            forbid_inspection()
            return Identity(members, _read_private(key_path), path, key_path)
        check_private(key_path, directory=False, forbidden=0o077)
    except OpenToOthers as error:
        if error.hint != MOUNT_HINT:  # somebody may have a copy, which closing the file would not take back
            error.hint = replacement(agent_id, Identity(members, b"").address)
        raise
    return Identity(members, b"", path, key_path)


def _check_certificate(path: str, members: JsonObject) -> None:
    """Refuses a pinned certificate that is malformed, or for a vault that is not on this computer."""
    certificate = members.get("certificate", "")
    if certificate == "":
        return
    if not isinstance(certificate, str) or not re.fullmatch(CERTIFICATE_PEM, certificate):
        raise ConfigError(f"{clean(path)}: certificate is not one certificate in PEM")
    if not is_pinnable(members["apiUrl"]):
        raise ConfigError(f"{clean(path)}: certificate is for https:// to this computer only")


def _key_path(directory: str, stored: Any) -> str:
    """The stored path if that file still exists; else the agent's own, which is right after a home was moved."""
    if isinstance(stored, str) and os.path.isabs(stored) and os.path.lexists(stored):
        return stored
    return os.path.join(directory, "private.pem")


def forbid_inspection() -> None:
    """On Linux, keeps other processes of the same user from reading this one's memory. Root still can.

    Programs that this process starts are not affected, such as the browser. PR_SET_NO_NEW_PRIVS would be inherited by
    them, and a browser from a snap, or one with a setuid sandbox, would not start.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes  # not at the top: a listing has no key to protect, and some Pythons are built without it

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # a Python that is linked statically: serve anyway
        return


# ---------------------------------------------------------------------------------------------------------------------
# keys with a passphrase
# ---------------------------------------------------------------------------------------------------------------------


def is_encrypted(key_pem: bytes) -> bool:
    """Whether a key file needs a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in key_pem


class WrongPassphrase(ConfigError):
    """A passphrase does not decrypt the key."""


class KeyLocked(ConfigError):
    """The key has a passphrase, and only a person can give it."""

    def __init__(self, identity: Identity) -> None:
        message = f"the key of agent {identity.agent_id} has a passphrase, and there is no terminal to ask for it"
        super().__init__(message, "run the command in a terminal; `install --key-store` makes keys that need none")
        self.identity = identity


PASSPHRASE_TRIES = 3
# Asks a person at a terminal for the passphrase of an agent's key; None if there is no terminal. Commands set it.
ask_passphrase: Callable[[Identity], str | None] = lambda _identity: None  # noqa: E731
