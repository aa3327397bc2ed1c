"""What people type: install, whoami, revoke. Imported by sikkerkey_mcp when one of them is asked for.

Answers go to stdout and can be parsed, advice goes to stderr. Errors are sikkerkey_mcp.Error and shown by its main.
It writes an agent's slot to disk, made complete and then moved into its place; `config` is in sikkerkey_clients.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sikkerkey_clients as clients
import sikkerkey_mcp as mcp
from sikkerkey_mcp import ConfigError, JsonObject, ServiceError, advise, agents_dir, check_private, clean, home

REGISTER_PATH = "/v1/ai-bootstrap/register"
NAME_MAX_CHARACTERS = 255
SLOT_FILES = ("private.pem", "identity.json")  # the key first: whatever interrupts a removal, it is gone

# ---------------------------------------------------------------------------------------------------------------------
# slots: made, published, removed
# ---------------------------------------------------------------------------------------------------------------------


def new_key() -> tuple[bytes, bytes]:
    """A new Ed25519 key: the private half as PKCS8 PEM, the public half as its raw 32 bytes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain), public


def write_private(path: str, data: bytes) -> None:
    """Creates `path` with mode 0600 and its content safely on disk; refuses to replace a file. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class NewSlot:
    """A slot in the making: a hidden directory beside the others, renamed into place when it is complete.

    Key and room for the identity are on disk before the token is spent, so a full or read-only disk costs no token.
    """

    def __init__(self) -> None:
        self.path = os.path.join(agents_dir(), f".new-{os.getpid()}-{os.urandom(4).hex()}")

    def prepare(self, key_pem: bytes) -> None:
        """Makes the directories and writes the key. Raises ConfigError."""
        try:
            for directory in (home(), agents_dir()):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            mcp.check_parents(agents_dir())
            os.mkdir(self.path, 0o700)
            write_private(os.path.join(self.path, "private.pem"), key_pem)
            write_private(os.path.join(self.path, "identity.json"), b" " * 4096)
        except OSError as error:
            with suppress(ConfigError):  # what is reported is why it was begun in vain
                remove_slot(self.path)
            message = f"no agent can be stored in {clean(agents_dir())}: {error.strerror}"
            raise ConfigError(message, "no token was spent; mend this and try again") from None

    def publish(self, members: dict[str, str]) -> str:
        """Completes the slot and moves it to its place, which must be free; returns it. Raises ConfigError."""
        slot = os.path.join(agents_dir(), members["agentId"])
        members = {**members, "privateKeyPath": os.path.join(slot, "private.pem")}
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
    """The command for it; what stands there already is kept under another name, which no listing takes for an agent."""
    place = shlex.quote(slot)
    aside = f"mv {place} {place}.old && " if os.path.lexists(slot) else ""
    return f"{aside}mv {shlex.quote(new)} {place}"


def remove_slot(path: str) -> None:
    """Deletes a slot's files and its directory, unless somebody keeps other files there. Raises ConfigError."""
    for name in SLOT_FILES:
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
    token = _token_from_stdin() if options.token == "-" else options.token  # noqa: S105 (a dash is no password)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", token):
        raise ConfigError(
            "the token must be 64 hexadecimal characters", "copy it from the dashboard's page of AI agents"
        )
    if len(options.name) > NAME_MAX_CHARACTERS:
        raise ConfigError(f"the name must be at most {NAME_MAX_CHARACTERS} characters")
    base_url = mcp.parse_base_url(os.environ.get("SIKKERKEY_API_URL") or mcp.DEFAULT_API_URL)
    key_pem, public_key = new_key()
    slot = NewSlot()
    slot.prepare(key_pem)
    try:
        members = register(base_url, token, public_key, options.name)
    except BaseException:  # an interrupted registration as well leaves no key behind
        remove_slot(slot.path)
        raise
    slot.publish({**members, "apiUrl": base_url})
    print(f"installed agent {members['agentId']} ({clean(members['name'])}) of {clean(members['vaultId'])}")
    advise(f"next: approve it on the vault's dashboard, then: {shlex.join(mcp.program())} config CLIENT")
    return 0


def _token_from_stdin() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        return getpass.getpass("token: ").strip()
    return sys.stdin.readline(1024).strip()


def register(base_url: str, token: str, public_key: bytes, name: str) -> dict[str, str]:
    """Spends the token; the new agent's agentId, name and vaultId. Raises ServiceError."""
    body: JsonObject = {"token": token, "publicKey": base64.b64encode(public_key).decode("ascii")}
    if name:
        body["name"] = name
    request = mcp.Request("POST", REGISTER_PATH, mcp.to_json(body).encode("utf-8"))
    try:
        reply = mcp.Api(base_url, _unsigned).send(request, safe=False, context=mcp.Context())
    except ServiceError as error:
        if error.hint == mcp.MAY_HAVE_BEEN_PROCESSED:
            error.hint = "the token may be spent: if the dashboard lists a new agent, remove it and make a new token"
        raise
    members = mcp.error_members(reply)
    cut = mcp.cutter([token])
    if reply.status not in (200, 201):
        said = cut(str(members.get("error", "nothing")))
        message = f'the vault answered {reply.status}, saying "{clean(said)}"'
        raise ServiceError(
            message, "a token serves once and not for long: make a new one on the dashboard", reply.status
        )
    for key in ("agentId", "vaultId"):
        if not mcp.is_id(members.get(key)):
            message = f"the vault's answer holds no well-formed {key}; nothing was stored"
            raise ServiceError(message, "the token is spent: make a new one")
    given_name = members.get("name")
    called = cut(given_name)[:NAME_MAX_CHARACTERS] if isinstance(given_name, str) else name
    return {"agentId": members["agentId"], "name": called, "vaultId": members["vaultId"]}


def _unsigned(_request: mcp.Request) -> mcp.Headers:
    """There is no identity to sign with before registration."""
    return {}


def command_whoami(options: argparse.Namespace) -> int:
    """Lists the agents of this computer, or asks the vault about one."""
    if options.remote:
        return _whoami_remote(mcp.connect(options.agent))
    chosen = [mcp.choose_slot(options.agent)] if options.agent else mcp.slots()
    if not chosen:
        advise(f"no agent is installed in {clean(agents_dir())}")
    return max([_show_slot(agent) for agent in filter(None, chosen)], default=0)


def _show_slot(agent: str) -> int:
    """One line for a slot, or what is wrong with it; the exit status."""
    try:
        identity = mcp.load_identity(agent)
    except ConfigError as error:
        advise(f"{agent}: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return 1
    print(f"{agent}  {clean(identity.name)}  {clean(identity.vault_id)}  {identity.api_url}")
    return 0


def _whoami_remote(api: mcp.Api) -> int:
    action = mcp.TOOLS[0].actions[0]
    reply = api.send(mcp.build_request(action, {}), safe=True, context=mcp.Context())
    if reply.status != 200:
        raise mcp.service_error(action, reply, mcp.cutter([]))
    members = mcp.error_members(reply)
    if not members:
        raise ServiceError("the vault's answer is not a JSON object", "check the agent's apiUrl with whoami")
    for key, value in members.items():
        print(f"{clean(key, 40)}: {clean(value if isinstance(value, str) else mcp.to_json(value), 2_000)}")
    return 0


def command_revoke(options: argparse.Namespace) -> int:
    """Deletes an agent's slot."""
    agent = mcp.choose_slot(options.agent)
    if agent is None:
        raise ConfigError("no agent is installed on this computer")
    slot = os.path.join(agents_dir(), agent)
    check_private(slot, directory=True, forbidden=0o022)
    remove_slot(slot)
    print(f"removed agent {agent} and the key in {clean(slot)} from this computer")
    advise(
        "the vault still lists it: revoke it on the dashboard as well; a server that runs keeps the key until it ends"
    )
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# version
# ---------------------------------------------------------------------------------------------------------------------


def command_version(options: argparse.Namespace) -> int:
    """Prints the version, and where it was asked for also what a report of a fault should hold."""
    print(f"sikkerkey-mcp {mcp.VERSION}")
    if options.verbose:
        for key, value in loaded().items():
            print(f"{key}: {clean(value, 1_000)}")
    return 0


def loaded() -> dict[str, str]:
    """Python, and how the archive loaded its parts; outside an archive, where the module lies."""
    python = f"{sys.implementation.name} {sys.version.split()[0]}, {sys.executable}"
    try:
        from cryptography import __version__ as cryptography  # in the archive this also loads the native library
    except ImportError as error:
        cryptography = f"unusable: {error}"
    runtime = sys.modules.get("sikkerkey_native")
    ways: dict[str, str] = runtime.report() if runtime else {"module": os.path.abspath(mcp.__file__)}
    return {**ways, "cryptography": cryptography, "python": python}


# ---------------------------------------------------------------------------------------------------------------------
# parsing
# ---------------------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    root = argparse.ArgumentParser(
        prog="sikkerkey-mcp", description="MCP server that manages a SikkerKey vault and cannot read its secrets."
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    root.add_argument("--verbose", action="store_true", help="with --version: what runs here, and how it was loaded")
    commands = root.add_subparsers(metavar="COMMAND")
    serve = _command(commands, "serve", _serve, "serve MCP on stdin and stdout (the default)")
    serve.add_argument("--read-only", action="store_true", help="offer what changes nothing and makes no credential")
    for option, text in (("--tools", "offer only these"), ("--exclude", "do not offer these")):
        serve.add_argument(option, metavar="NAMES", action="append", help=f"{text}: TOOL or TOOL.ACTION, with commas")
    install = _command(commands, "install", command_install, "register this computer as a new agent")
    install.add_argument(
        "token", metavar="TOKEN", help="one-time token; - reads it from stdin, where no process sees it"
    )
    install.add_argument("--name", "-name", default="", help="what the vault shall call the agent")
    whoami = _command(commands, "whoami", command_whoami, "list the agents of this computer")
    whoami.add_argument("--remote", action="store_true", help="ask the vault about one of them")
    revoke = _command(commands, "revoke", command_revoke, "delete an agent's key from this computer")
    revoke.add_argument("agent", metavar="AGENT_ID", nargs="?", default="", help="needed where several are installed")
    config = _command(commands, "config", clients.command_config, "print the block for an MCP client, or put it there")
    clients.add_options(config)
    for command in (serve, whoami, config):
        command.add_argument("--agent", metavar="ID", default="", help="which agent, where several are installed")
    return root


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(run=run)
    return made


def _serve(options: argparse.Namespace) -> int:
    given = {"--agent": options.agent, **({"--read-only": "1"} if options.read_only else {})}
    lists = {f"--{name}": ",".join(getattr(options, name)) for name in ("tools", "exclude") if getattr(options, name)}
    return mcp.command_serve({**given, **lists})


def run(arguments: list[str]) -> int:
    """Parses and runs one command; the exit status. Raises mcp.Error; argparse exits by itself on wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no command
    options = parser().parse_args(arguments)
    if options.version:
        return command_version(options)
    if not hasattr(options, "run"):
        return mcp.command_serve({})
    result: int = options.run(options)
    return result
