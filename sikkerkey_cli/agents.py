"""`install`, `whoami` and `revoke`: the agents of this computer.

Each agent has a slot, a directory with its key and identity. Only this module writes slots: a slot is completed in a
temporary directory and then renamed into place.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import secrets
import sys
import textwrap
import time
from contextlib import suppress
from typing import NamedTuple

import sikkerkey_activity
import sikkerkey_address
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_pages
import sikkerkey_passphrase
import sikkerkey_redact
import sikkerkey_refusals
import sikkerkey_shell
from sikkerkey_cli import tables, terminal
from sikkerkey_cli.terminal import Progress, UsageError, ask_new_passphrase, confirm, prompt_hidden
from sikkerkey_identity import agents_directory, check_private, home
from sikkerkey_mcp import Action, Answer, ConfigError, JsonObject, ServiceError, clean, print_notice

REGISTER_PATH = "/v1/ai-bootstrap/register"
NAME_MAX_CHARACTERS = 255
AUDIT_MEMBERS = ("timestamp", "severity", "action", "sourceIp", "detail")  # of an audit entry, the most useful ones
# Prefix of the slot of an agent that is to replace another one, so that it is not listed as an agent's slot.
NEXT = ".next-"
SLOT_FILES = ("private.pem", "identity.json")  # in this order, so that an interrupted removal has removed the key

# ---------------------------------------------------------------------------------------------------------------------
# slots
# ---------------------------------------------------------------------------------------------------------------------


def new_key(passphrase: str = "", *, is_random: bool = False) -> tuple[bytes, bytes]:
    """Generates an Ed25519 key: the private key as PKCS8 PEM, the public key as its 32 raw bytes.

    With a passphrase, the private key is encrypted; see sikkerkey_passphrase.
    """
    # Here, because whoami and revoke work without cryptography, as does the report of a broken installation.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    sikkerkey_identity.forbid_inspection()
    key = Ed25519PrivateKey.generate()
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if passphrase:
        return sikkerkey_passphrase.encrypted(key, passphrase, is_random=is_random), public
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain), public


def write_private(path: str, data: bytes) -> None:
    """Creates a file with mode 0600 and flushes it to disk. Raises OSError, also if the file exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class NewSlot:
    """A slot that is being created: a hidden directory beside the others, renamed when it is complete.

    The key and space for the identity are on disk before the token is used, so a full disk does not waste a token.
    """

    def __init__(self) -> None:
        self.path = os.path.join(agents_directory(), f".new-{os.getpid()}-{os.urandom(4).hex()}")

    def prepare(self, key_pem: bytes) -> None:
        """Creates the directories and writes the key. Raises ConfigError."""
        try:
            for directory in (home(), agents_directory()):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            sikkerkey_identity.check_parents(agents_directory())
            os.mkdir(self.path, 0o700)
            write_private(os.path.join(self.path, "private.pem"), key_pem)
            write_private(os.path.join(self.path, "identity.json"), b" " * 4096)
        except OSError as error:
            with suppress(ConfigError):  # the first error is the one to report
                remove_slot(self.path)
            message = f"no agent can be stored in {clean(agents_directory())}: {error.strerror}"
            raise ConfigError(message, "the token was not used; fix this and try again") from None

    def publish(self, members: JsonObject, hidden: str = "") -> str:
        """Completes the slot, moves it to its final path and returns that. Raises ConfigError, also if it exists.

        `hidden` goes before its name.
        """
        key_path = os.path.join(agents_directory(), members["agentId"], "private.pem")
        slot = os.path.join(agents_directory(), hidden + members["agentId"])
        members = {**members, "privateKeyPath": key_path}
        identity = os.path.join(self.path, "identity.json")
        try:
            os.unlink(identity)
            write_private(
                identity, json.dumps(members, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            )
            os.rename(self.path, slot)
        except OSError as error:
            message = f"the agent is registered, but {clean(slot)} cannot be written: {error.strerror}"
            raise ConfigError(message, f"its key is kept: {_move_into_place(self.path, slot)}") from None
        return slot


def _move_into_place(new: str, slot: str) -> str:
    """A shell command that moves the slot; an existing one is kept under a name that is not an agent id."""
    aside = [sikkerkey_shell.rename(slot, f"{slot}.old")] if os.path.lexists(slot) else []
    return sikkerkey_shell.in_order(*aside, sikkerkey_shell.rename(new, slot))


def remove_slot(path: str) -> None:
    """Deletes a slot's files, and its directory if it is then empty. Raises ConfigError."""
    for name in (*SLOT_FILES, sikkerkey_passphrase.DPAPI_FILE, *sikkerkey_activity.file_names(path)):
        try:
            os.unlink(os.path.join(path, name))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{clean(os.path.join(path, name))} cannot be deleted: {error.strerror}") from None
    try:
        os.rmdir(path)
    except OSError:
        return


# ---------------------------------------------------------------------------------------------------------------------
# install, whoami, revoke
# ---------------------------------------------------------------------------------------------------------------------


def command_install(options: argparse.Namespace) -> int:
    """Registers a new agent."""
    install(options)
    approve = "the vault's owner approves it on the dashboard (AI agents page)"
    print_notice(f"next: {approve}, then: {sikkerkey_mcp.runnable('sikkerkey-mcp config CLIENT --write')}")
    return 0


def install(options: argparse.Namespace, protected: Protection | None = None) -> str:
    """Registers a new agent and stores it; returns its id. Raises Error.

    The vault is that of SIKKERKEY_API_URL, or else the one whose address follows the token on standard input. Without
    `protected`, the options say what protects the key.
    """
    wanted = wanted_registration(options, sikkerkey_address.DEFAULT_API_URL)
    members, public_key = install_agent(wanted, protected or protection(options))
    fingerprint = sikkerkey_keys.fingerprint(public_key)
    if options.json:
        print(json.dumps({**members, "apiUrl": wanted.base_url, "fingerprint": fingerprint}, indent=2))
    else:
        print(f"installed agent {members['agentId']} ({clean(members['name'])}) of {clean(members['vaultId'])}")
        print(f"its key is {fingerprint}")
        if wanted.sha256:
            print(f"it trusts only the vault at {wanted.base_url} with the certificate {wanted.sha256}")
    return members["agentId"]


class Registration(NamedTuple):
    """What `install` asks a vault for. `sha256` is that of the certificate to pin, or empty."""

    token: str
    base_url: str
    sha256: str
    name: str


class Protection(NamedTuple):
    """What protects a new key: nothing, a passphrase, or a random one that a key store of the system keeps."""

    passphrase: str = ""
    store: str = ""


def wanted_registration(options: argparse.Namespace, usual_address: str) -> Registration:
    """The registration that the options and the environment ask for. Raises UsageError, or ConfigError."""
    token, printed = _read_token() if options.token == "-" else (options.token, "")  # noqa: S105 (a dash is no password)
    check_token(token)
    check_name(options.name)
    named = os.environ.get("SIKKERKEY_API_URL")
    base_url, sha256 = sikkerkey_address.parse_address(named or printed or usual_address)
    if printed and not named and not sha256:
        raise UsageError("the line after the token must be an address with #sha256=, as a local vault prints it")
    return Registration(token, base_url, sha256, options.name)


def protection(options: argparse.Namespace) -> Protection:
    """What the options ask for. Raises Error if there is no key store, or nobody who types a passphrase."""
    if options.passphrase and options.key_store:
        raise UsageError("choose one of --passphrase and --key-store")
    if options.passphrase:
        return Protection(ask_new_passphrase(sikkerkey_passphrase.problem_with))
    if options.key_store:
        return Protection(secrets.token_urlsafe(32), sikkerkey_passphrase.store_of_this_system())
    return Protection()


def install_agent(
    wanted: Registration, protected: Protection, replaces: sikkerkey_identity.Identity | None = None
) -> tuple[dict[str, str], bytes]:
    """Makes a key, registers it and stores the agent; its members, and its public key. Raises Error.

    An agent that is to replace another one is stored in a hidden slot; see `rotate-key`.
    """
    certificate = pinned_certificate(wanted.base_url, wanted.sha256) if wanted.sha256 else ""
    store = protected.store
    key_pem, public_key = new_key(protected.passphrase, is_random=bool(store))
    account = hashlib.sha256(public_key).hexdigest()
    slot = NewSlot()
    slot.prepare(key_pem)
    try:
        if store:
            sikkerkey_passphrase.save(store, account, slot.path, protected.passphrase)
        with Progress("registering with the vault"):
            members = register(wanted.base_url, wanted.token, public_key, wanted.name, certificate)
        if replaces and members["vaultId"] != replaces.vault_id:
            hint = f"the owner of {clean(members['vaultId'])} can reject agent {members['agentId']}"
            raise ConfigError("the token is of another vault; nothing was replaced", hint)
    except BaseException:  # also KeyboardInterrupt: no key may be left behind
        _forget_passphrase(store, account, slot.path)
        remove_slot(slot.path)
        raise
    stored = {"apiUrl": wanted.base_url, "publicKey": base64.b64encode(public_key).decode("ascii")}
    stored.update({name: text for name, text in (("certificate", certificate), ("keyStore", store)) if text})
    if replaces:
        ids = [replaces.agent_id, *replaces.replaces][: sikkerkey_identity.REPLACED_MAX]
        slot.publish({**members, **stored, "replaces": ids}, hidden=NEXT)
    else:
        slot.publish({**members, **stored})
    return members, public_key


def _forget_passphrase(store: str, account: str, slot: str) -> None:
    """Removes a passphrase from the system's key store. It is useless without its key."""
    if store:
        with suppress(ConfigError):
            sikkerkey_passphrase.delete(store, account, slot)


def check_token(token: str) -> str:
    """The token, if it has the form of one. Raises UsageError."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", token):
        hint = "copy it from the AI agents page of the dashboard"
        raise UsageError("the token must be 64 hexadecimal characters", hint)
    return token


def check_name(name: str) -> str:
    """The name, if an agent can have it. Raises UsageError."""
    if len(name) > NAME_MAX_CHARACTERS:
        raise UsageError(f"the name must be at most {NAME_MAX_CHARACTERS} characters")
    return name


def _read_token() -> tuple[str, str]:
    """The token, and the vault's address if the next line has one, as a local vault's `agent-token` prints them."""
    if sys.stdin is None:
        return "", ""
    if sys.stdin.isatty():
        return prompt_hidden("token").strip(), ""
    return sys.stdin.readline(1024).strip(), sys.stdin.readline(1024).strip()


def pinned_certificate(base_url: str, sha256: str) -> str:
    """The certificate of a vault, in PEM, if it is the one with this SHA-256; nothing else is sent. Raises Error."""
    import ssl  # see sikkerkey_mcp.open_vault

    with Progress("waiting for the vault"):
        found = sikkerkey_mcp.connection_pool(None).peer_certificate(base_url)
    if not found:
        raise ServiceError(f"no vault answers with TLS at {base_url}; the token was not used", "start the vault")
    if hashlib.sha256(found).hexdigest() != sha256:
        message = f"the certificate at {base_url} is not the one that was given; the token was not used"
        raise ConfigError(message, "another program may listen there: start your vault, and pipe its agent-token again")
    return ssl.DER_cert_to_PEM_cert(found)


def refusal(action: Action, reply: Answer) -> ServiceError:
    """The error for an answer that is not 2xx, to a request that a person's command has made."""
    sanitize = sikkerkey_mcp.sanitizer(action, {}, hidden_visible=True)
    return sikkerkey_refusals.service_error(action, reply, sanitize, sikkerkey_mcp.TOOLS)


def register(base_url: str, token: str, public_key: bytes, name: str, certificate: str = "") -> dict[str, str]:
    """Registers with the one-time token; returns the agent's agentId, name and vaultId. Raises ServiceError."""
    body: JsonObject = {"token": token, "publicKey": base64.b64encode(public_key).decode("ascii")}
    if name:
        body["name"] = name
    request = sikkerkey_mcp.Request("POST", REGISTER_PATH, sikkerkey_mcp.to_json(body).encode("utf-8"))
    try:
        api = sikkerkey_mcp.Api(base_url, _unsigned, certificate)
        reply = api.send(request, safe=False, context=sikkerkey_mcp.Context())
    except ServiceError as error:
        if error.hint == sikkerkey_mcp.MAY_HAVE_BEEN_PROCESSED:
            error.hint = (
                "the token may be used up: if the dashboard lists a new agent, remove it and create a new token"
            )
        raise
    members = sikkerkey_refusals.error_members(reply)
    redact = sikkerkey_redact.redactor([token])
    if reply.status not in (200, 201):
        said = members.get("error")
        words = f", saying {sikkerkey_mcp.to_json(clean(redact(said)))}" if isinstance(said, str) and said else ""
        raise ServiceError(f"the vault answered {reply.status}{words}", _refusal_hint(reply.status), reply.status)
    if not members:
        raise ServiceError(f"what answers at {base_url} is not a vault; nothing was stored", NOT_A_VAULT)
    for key in ("agentId", "vaultId"):
        if not sikkerkey_mcp.is_id(members.get(key)):
            message = f"the vault's answer has no valid {key}; nothing was stored"
            raise ServiceError(message, "the token is used up: create a new one")
    given_name = members.get("name")
    stored_name = redact(given_name)[:NAME_MAX_CHARACTERS] if isinstance(given_name, str) else name
    return {"agentId": members["agentId"], "name": stored_name, "vaultId": members["vaultId"]}


NOT_A_VAULT = "check SIKKERKEY_API_URL, and what is between this computer and the vault: a proxy, a portal, a gateway"


def _refusal_hint(status: int) -> str:
    """What to do about a registration that the vault refused."""
    if status in (429, 503):
        waits = "after a while" if status == 429 else "when the vault's owner has unsealed it"
        return f"try again {waits}, with the same token"
    if status >= 500:
        return "try again; if the token is used up then, create a new one on the dashboard"
    if status < 400 or status in (404, 405):  # a vault refuses a token with another status
        return NOT_A_VAULT
    return "a token works once and expires soon: create a new one on the dashboard"


def _unsigned(_request: sikkerkey_mcp.Request) -> sikkerkey_mcp.Headers:
    """No headers: before registration there is no key to sign with."""
    return {}


def command_whoami(options: argparse.Namespace) -> int:
    """Lists the agents of this computer, or shows what the vault says about one."""
    if options.remote:
        return _whoami_remote(sikkerkey_mcp.connect(options.agent), as_json=options.json)
    chosen = (
        [sikkerkey_identity.choose_agent(options.agent)] if options.agent else sikkerkey_identity.installed_agents()
    )
    if not chosen:
        hint = f"{sikkerkey_shell.command_line(sikkerkey_mcp.program())} install -"
        print_notice(f"no agent is installed in {clean(agents_directory())}\nhint: {hint}")
    slots = [_read_slot(agent) for agent in filter(None, chosen)]
    shown = [slot for slot in slots if slot]
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        for slot in shown:
            print(_slot_line(slot))
    if _new_agents_wait():
        finish = sikkerkey_mcp.runnable("sikkerkey-mcp rotate-key --finish")
        print_notice(f"a new key waits until the vault's owner has approved it; then: {finish}")
    return 0 if all(slot and slot["fingerprint"] for slot in slots) else 1


def _new_agents_wait() -> bool:
    try:
        return any(name.startswith(NEXT) for name in os.listdir(agents_directory()))
    except OSError:
        return False


def _read_slot(agent: str) -> dict[str, str | None] | None:
    """What the files of an agent say; None if they cannot be read. Prints their errors."""
    try:
        identity = sikkerkey_identity.load_identity(agent)
    except ConfigError as error:
        print_notice(f"{agent}: {error.full_text()}")
        return None
    try:
        fingerprint = sikkerkey_keys.fingerprint_of(identity)
    except ConfigError as error:
        print_notice(f"{agent}: {error.full_text()}")
        fingerprint = None
    members = {"agentId": agent, "name": identity.name, "vaultId": identity.vault_id, "apiUrl": identity.api_url}
    pinned = sikkerkey_address.certificate_sha256(identity.certificate) if identity.certificate else None
    lock = (identity.key_store or "passphrase") if sikkerkey_identity.is_encrypted(identity.key_pem) else None
    return {**members, "certificateSha256": pinned, "keyProtection": lock, "fingerprint": fingerprint}


def _slot_line(slot: dict[str, str | None]) -> str:
    """What `_read_slot` found, for people."""
    pinned = "(pinned certificate)" if slot["certificateSha256"] else None
    lock = f"({slot['keyProtection']})" if slot["keyProtection"] else None
    shown = {**slot, "certificateSha256": pinned, "keyProtection": lock}
    return "  ".join(clean(text) for text in shown.values() if text is not None)


def _whoami_remote(api: sikkerkey_mcp.Api, *, as_json: bool) -> int:
    action = sikkerkey_mcp.TOOLS[0].actions[0]
    with Progress("waiting for the vault"):
        reply = api.send(sikkerkey_mcp.build_request(action, {}), safe=True, context=sikkerkey_mcp.Context())
    if reply.status != 200:
        raise refusal(action, reply)
    members = sikkerkey_pages.with_iso_times(sikkerkey_refusals.error_members(reply))
    if not members:
        raise ServiceError("the vault's answer is not a JSON object", "check the agent's apiUrl with whoami")
    if as_json:
        print(json.dumps(members, indent=2))
        return 0
    for key, value in members.items():
        if tables.is_table(value):
            rows = [{name: row[name] for name in AUDIT_MEMBERS if name in row} or row for row in value]
            width = terminal.width()
            shown = tables.columns(rows, width=width and width - 2)
            print(f"{clean(key, 40)}:\n{textwrap.indent(shown, '  ')}")
        else:
            print(f"{clean(key, 40)}: {terminal.wrapped(clean(tables.plain(value, key), 2_000), 2)}")
    return 0


def command_revoke(options: argparse.Namespace) -> int:
    """Deletes an agent's slot, after a question; with --server, only after the vault has revoked the agent."""
    agent = sikkerkey_identity.choose_agent(options.agent)
    if agent is None:
        raise ConfigError("no agent is installed on this computer")
    if options.by and not options.server:
        raise UsageError("--by requires --server")
    if options.agent and agent != options.agent:
        raise ConfigError(f"agent {options.agent} was replaced by {agent}", f"name that one: revoke {agent}")
    slot = os.path.join(agents_directory(), agent)
    check_private(slot, directory=True, forbidden=0o022)
    if options.server:
        _revoke_at_vault(agent, options.by, sure=options.yes)
    elif not options.yes:
        confirm(f"the key of {described(agent)} will be deleted from this computer\n{_still_listed(agent)}")
    still_listed = "" if options.server else f"{_still_listed(agent)}; "
    forget(agent)
    print(f"removed agent {agent} and the key in {clean(slot)} from this computer")
    print_notice(f"{still_listed}running servers stop using the key before their next call")
    return 0


def forget(agent: str, hidden: str = "") -> None:
    """Deletes an agent's slot, and its passphrase from the key store. `hidden` is before the name of the slot.

    Raises ConfigError.
    """
    slot = os.path.join(agents_directory(), hidden + agent)
    with suppress(ConfigError):  # its files cannot be used
        identity = sikkerkey_identity.load_identity(agent, with_key=False, slot=hidden + agent)
        _forget_passphrase(identity.key_store, sikkerkey_keys.store_account(identity), slot)
    remove_slot(slot)


def described(agent: str) -> str:
    """An agent with its name and its vault, as far as its files can be read."""
    try:
        identity = sikkerkey_identity.load_identity(agent, with_key=False)
    except ConfigError:
        return f"agent {agent} (its files cannot be used)"
    return f"agent {agent} ({clean(identity.name, 60)}) of {clean(identity.vault_id, 60)} at {identity.api_url}"


def _still_listed(agent: str) -> str:
    """How to revoke an agent at the vault, which is not done when its key is deleted."""
    try:
        _agent_that_can_revoke(sikkerkey_identity.load_identity(agent, with_key=False), "")
    except ConfigError:
        return "the vault still lists it: also revoke it on the dashboard"
    command = sikkerkey_shell.command_line([*sikkerkey_mcp.program(), "revoke", agent, "--server"])
    return f"the vault still lists it: also revoke it on the dashboard, or with another agent: {command}"


def _revoke_at_vault(agent: str, by: str, *, sure: bool) -> None:
    """Has another agent of this computer revoke `agent`. Raises Error, and then nothing was deleted."""
    actor = _agent_that_can_revoke(sikkerkey_identity.load_identity(agent), by)
    if not sure:
        action_text = f"{actor.agent_id} will permanently revoke {described(agent)}"
        confirm(f"{action_text}, and the key on this computer will be deleted")
    revoke_at_vault(actor, agent)


def revoke_at_vault(actor: sikkerkey_identity.Identity, agent: str) -> None:
    """Has an agent revoke another one. Raises Error."""
    tool = next(tool for tool in sikkerkey_mcp.TOOLS if tool.name == "manage_ai_agents")
    action = sikkerkey_mcp.find_action(tool, {"action": "revoke"})
    given = sikkerkey_mcp.check_arguments(tool, action, {"agentId": agent}, int(time.time() * 1000))
    request = sikkerkey_mcp.build_request(action, given)
    with Progress("waiting for the vault"):
        reply = sikkerkey_mcp.agent_api(actor).send(request, safe=False, context=sikkerkey_mcp.Context())
    if not 200 <= reply.status < 300:
        error = refusal(action, reply)
        if reply.status == 404:
            error.hint = f"if it is already revoked, `sikkerkey-mcp revoke {agent}` deletes its key"
        raise error
    print(f"the vault has revoked agent {agent}")


def _agent_that_can_revoke(target: sikkerkey_identity.Identity, by: str) -> sikkerkey_identity.Identity:
    """`by`, or the only other agent of the same vault, since no agent can revoke itself. Raises ConfigError."""
    found = [sikkerkey_identity.choose_agent(by)] if by else sikkerkey_identity.installed_agents()
    others = [sikkerkey_identity.load_identity(agent) for agent in found if agent and agent != target.agent_id]
    able = [other for other in others if (other.vault_id, other.api_url) == (target.vault_id, target.api_url)]
    if len(able) == 1:
        return able[0]
    if able:
        ids = ", ".join(other.agent_id for other in able)
        raise ConfigError("several agents of this computer can revoke it", f"choose one with --by ID: {ids}")
    hint = f"revoke it on the vault's dashboard, then `sikkerkey-mcp revoke {target.agent_id}` deletes its key here"
    if by:
        raise UsageError("--by must name another agent of the same vault: no agent can revoke itself", hint)
    raise ConfigError("no agent can revoke itself, and no other agent of this vault is installed here", hint)
