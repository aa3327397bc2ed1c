"""What people type: the command line, and install, whoami and revoke. Imported by sikkerkey_mcp when asked for.

config, doctor, tools, call and completion have modules of their own, imported by the functions at the end.

Answers go to stdout and can be parsed, advice goes to stderr. Errors are sikkerkey_mcp.Error and shown by its main.
Only this module writes slots: an agent's is made complete and then moved into its place.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import sikkerkey_answers
import sikkerkey_mcp as mcp
from sikkerkey_mcp import ConfigError, JsonObject, ServiceError, advise, agents_dir, check_private, clean, home
from sikkerkey_terminal import Progress, UsageError, confirm, hidden

REGISTER_PATH = "/v1/ai-bootstrap/register"
NAME_MAX_CHARACTERS = 255
ENTRY_MEMBERS = ("timestamp", "severity", "action", "sourceIp", "detail")  # of an audit entry, what tells most
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
        with Progress("registering with the vault"):
            members = register(base_url, token, public_key, options.name)
    except BaseException:  # an interrupted registration as well leaves no key behind
        remove_slot(slot.path)
        raise
    slot.publish({**members, "apiUrl": base_url})
    print(f"installed agent {members['agentId']} ({clean(members['name'])}) of {clean(members['vaultId'])}")
    approve = "the vault's owner approves it (on the dashboard, page AI agents)"
    advise(f"next: {approve}, then: {shlex.join(mcp.program())} config CLIENT --write")
    return 0


def _token_from_stdin() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        return hidden("token").strip()
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
    members = sikkerkey_answers.error_members(reply)
    cut = sikkerkey_answers.cutter([token])
    if reply.status not in (200, 201):
        said = cut(str(members.get("error", "nothing")))
        message = f"the vault answered {reply.status}, saying {mcp.to_json(clean(said))}"
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
        advise(f"no agent is installed in {clean(agents_dir())}\nhint: {shlex.join(mcp.program())} install -")
    return max([_show_slot(agent) for agent in filter(None, chosen)], default=0)


def _show_slot(agent: str) -> int:
    """One line for a slot, or what is wrong with it; the exit status."""
    try:
        identity = mcp.load_identity(agent)
    except ConfigError as error:
        advise(f"{agent}: {error.in_words()}")
        return 1
    print(f"{agent}  {clean(identity.name)}  {clean(identity.vault_id)}  {identity.api_url}")
    return 0


def _whoami_remote(api: mcp.Api) -> int:
    action = mcp.TOOLS[0].actions[0]
    with Progress("asking the vault"):
        reply = api.send(mcp.build_request(action, {}), safe=True, context=mcp.Context())
    if reply.status != 200:
        raise sikkerkey_answers.service_error(action, reply, sikkerkey_answers.cutter([]))
    members = sikkerkey_answers.error_members(reply)
    if not members:
        raise ServiceError("the vault's answer is not a JSON object", "check the agent's apiUrl with whoami")
    import sikkerkey_call

    for key, value in members.items():
        if sikkerkey_call.is_table(value):
            rows = [{name: row[name] for name in ENTRY_MEMBERS if name in row} or row for row in value]
            print(f"{clean(key, 40)}:\n{textwrap.indent(sikkerkey_call.columns(rows), '  ')}")
        else:
            print(f"{clean(key, 40)}: {clean(value if isinstance(value, str) else mcp.to_json(value), 2_000)}")
    return 0


def command_revoke(options: argparse.Namespace) -> int:
    """Deletes an agent's slot; with --server only after the vault has cut the agent off."""
    agent = mcp.choose_slot(options.agent)
    if agent is None:
        raise ConfigError("no agent is installed on this computer")
    if options.by and not options.server:
        raise UsageError("--by is for revoke --server")
    slot = os.path.join(agents_dir(), agent)
    check_private(slot, directory=True, forbidden=0o022)
    if options.server:
        _revoke_at_vault(agent, options.by, sure=options.yes)
    remove_slot(slot)
    print(f"removed agent {agent} and the key in {clean(slot)} from this computer")
    still_listed = "the vault still lists it: revoke it on the dashboard as well; "
    advise(f"{'' if options.server else still_listed}a server that runs keeps the key until it ends")
    return 0


def _revoke_at_vault(agent: str, by: str, *, sure: bool) -> None:
    """Has another agent of this computer cut `agent` off. Raises Error, and then nothing has been deleted here."""
    actor = _agent_that_can_revoke(mcp.load_identity(agent), by)
    if not sure:
        deed = f"{actor.agent_id} will cut agent {agent} off from {actor.vault_id} for good"
        confirm(f"{deed}, and its key is deleted here")
    tool = next(tool for tool in mcp.TOOLS if tool.name == "manage_ai_agents")
    action = mcp.find_action(tool, {"action": "revoke"})
    request = mcp.build_request(action, mcp.check(tool, action, {"agentId": agent}))
    with Progress("asking the vault"):
        reply = mcp.agent_api(actor).send(request, safe=False, context=mcp.Context())
    if not 200 <= reply.status < 300:
        error = sikkerkey_answers.service_error(action, reply, sikkerkey_answers.cutter([]))
        if reply.status == 404:
            error.hint = f"if the vault has revoked it before, `sikkerkey-mcp revoke {agent}` deletes its key"
        raise error
    print(f"the vault has revoked agent {agent}")


def _agent_that_can_revoke(victim: mcp.Identity, by: str) -> mcp.Identity:
    """`by`, or the only other agent of the same vault. Raises ConfigError: the vault lets no agent revoke itself."""
    found = [mcp.choose_slot(by)] if by else mcp.slots()
    others = [mcp.load_identity(agent) for agent in found if agent and agent != victim.agent_id]
    able = [other for other in others if (other.vault_id, other.api_url) == (victim.vault_id, victim.api_url)]
    if len(able) == 1:
        return able[0]
    if able:
        ids = ", ".join(other.agent_id for other in able)
        raise ConfigError("several agents of this computer could revoke it", f"--by ID, with one of: {ids}")
    hint = f"revoke it on the vault's dashboard, then `sikkerkey-mcp revoke {victim.agent_id}` deletes its key here"
    if by:
        raise ConfigError("--by must name another agent of the same vault: no agent can revoke itself", hint)
    raise ConfigError("no agent can revoke itself, and no other agent of this vault is installed here", hint)


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
        import cryptography.exceptions  # loads the native library, which `cryptography` alone does not

        version = cryptography.__version__
    except ImportError as error:
        version = f"unusable: {error}"
    runtime = sys.modules.get("sikkerkey_launch")
    ways: dict[str, str] = runtime.report() if runtime else {"module": os.path.abspath(mcp.__file__)}
    return {**ways, "cryptography": version, "python": python}


# ---------------------------------------------------------------------------------------------------------------------
# parsing
# ---------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse without its colours (from Python 3.14 on), which would not heed what ours heed, and without tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        vars(self)["color"] = False

    def error(self, message: str) -> NoReturn:
        """As argparse has it: usage, message with a hint, and an end with status 2."""
        more = "" if re.search("--help|did you mean", message) else f"\nhint: {self.prog} --help has examples"
        super().error(clean(re.sub("[0-9A-Fa-f]{64}", "(a token)", message)) + more)


def parser(arguments: list[str]) -> Parser:
    """The grammar of the command line; that of `config` only where it is asked for: the clients take time to load."""
    root = Parser(
        prog="sikkerkey-mcp",
        description="MCP server that manages a SikkerKey vault and cannot read its secrets.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    root.add_argument("--verbose", action="store_true", help="with --version: what runs here, and how it was loaded")
    commands = root.add_subparsers(metavar="COMMAND", title="commands")
    serve = _command(commands, "serve", _serve, "serve MCP on stdin and stdout (the default)")
    serve.add_argument("--read-only", action="store_true", help="offer what changes nothing and makes no credential")
    for option, text in (("--tools", "offer only these"), ("--exclude", "do not offer these")):
        serve.add_argument(option, metavar="NAMES", action="append", help=f"{text}: TOOL or TOOL.ACTION, with commas")
    install = _command(commands, "install", command_install, "register this computer as a new agent")
    install.add_argument(
        "token", metavar="TOKEN", help="one-time token; - reads it from stdin, where no process sees it"
    )
    install.add_argument("--name", "-name", metavar="NAME", default="", help="what the vault shall call the agent")
    whoami = _command(commands, "whoami", command_whoami, "list the agents of this computer")
    whoami.add_argument("--remote", action="store_true", help="ask the vault about one of them")
    revoke = _command(commands, "revoke", command_revoke, "delete an agent's key from this computer")
    revoke.add_argument("agent", metavar="AGENT_ID", nargs="?", default="", help="needed where several are installed")
    _grammar_of_revoke(revoke)
    config = _command(commands, "config", _config, "print the block for an MCP client, or put it there")
    if "config" in arguments:
        import sikkerkey_clients

        sikkerkey_clients.add_options(config)
    doctor = _command(commands, "doctor", _doctor, "check everything from Python to the vault, and say what mends it")
    doctor.add_argument("--json", action="store_true", help="an array of {check, state, detail, remedy}")
    tools = _command(commands, "tools", _tools, "list the tools, or describe one or one of its actions")
    tools.usage = "sikkerkey-mcp tools [list | describe TOOL [ACTION]] [--json]"
    tools.add_argument("words", metavar="list | describe TOOL [ACTION]", nargs="*", help="what to show (default list)")
    tools.add_argument("--json", action="store_true", help="everything that the table says, as JSON")
    call = _command(commands, "call", _call, "carry out one action, from a script or to try it")
    _grammar_of_call(call)
    completion = _command(commands, "completion", _completion, "print what makes a shell complete this program's words")
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"))
    for command in (serve, whoami, config, doctor, call):
        command.add_argument("--agent", metavar="ID", default="", help="which agent, where several are installed")
    return root


def _grammar_of_revoke(revoke: argparse.ArgumentParser) -> None:
    revoke.add_argument("--server", action="store_true", help="revoke it at the vault too; asks first")
    revoke.add_argument(
        "--by", metavar="ID", default="", help="with --server: the agent that does it (an agent cannot revoke itself)"
    )
    revoke.add_argument("--yes", action="store_true", help="with --server: do not ask")


def _grammar_of_call(call: argparse.ArgumentParser) -> None:
    call.usage = "sikkerkey-mcp call TOOL [ACTION] [key=value ...] [options]"
    call.add_argument("words", metavar="TOOL [ACTION] [key=value ...]", nargs="*", help="see `tools`, and below")
    call.add_argument("--table", action="store_true", help="columns for people instead of JSON")
    call.add_argument("--output", metavar="FILE", default="", help="put the answer there, readable by you alone")
    call.add_argument("--overwrite", action="store_true", help="with --output: replace a file that is there")
    call.add_argument("--yes", action="store_true", help="do not ask before a destructive action")


FIRST_STEPS = """\
In what follows and in every example, sikkerkey-mcp stands for the way you start this program, such as
python3 sikkerkey-mcp.pyz.

examples:
  sikkerkey-mcp install -              register this computer; type or pipe the token from the vault's dashboard
  sikkerkey-mcp config claude-code     what to put into your MCP client's configuration; --write puts it there
  sikkerkey-mcp doctor                 if anything does not work
  sikkerkey-mcp COMMAND --help         each command, with examples"""

EXAMPLES = {
    "serve": """\
  sikkerkey-mcp serve                  what an MCP client starts; it speaks JSON-RPC, not to people
  sikkerkey-mcp serve --agent ID       where several agents are installed
  sikkerkey-mcp serve --read-only --exclude manage_team,read_audit.export""",
    "install": """\
  sikkerkey-mcp install -              asks for the token without showing it
  sikkerkey-mcp install - --name "my laptop" < token.txt
  SIKKERKEY_API_URL=http://127.0.0.1:8300 sikkerkey-mcp install -
                                       another vault than https://api.sikkerkey.com""",
    "whoami": """\
  sikkerkey-mcp whoami                 the agents of this computer: id, name, vault, API
  sikkerkey-mcp whoami --remote        what the vault says of the agent: approval, scopes, projects
  sikkerkey-mcp whoami --remote --agent ID""",
    "revoke": """\
  sikkerkey-mcp revoke                 delete the key of the only agent; the vault goes on listing the agent
  sikkerkey-mcp revoke ID --server     end it at the vault first, then delete the key

No agent can revoke itself. --server has another agent of this computer do it, one of the same vault with the scope
aiagents.write; without one, revoke it on the vault's dashboard. If the vault does not confirm, the key stays.""",
    "config": """\
  sikkerkey-mcp config claude-code     prints the block; stderr says where it goes
  sikkerkey-mcp config codex --write   puts it into the client's own file; --dry-run shows what would change
  sikkerkey-mcp config codex --agent ID --write
  sikkerkey-mcp config cursor --project --write
  sikkerkey-mcp config zed --remove""",
    "doctor": """\
  sikkerkey-mcp doctor                 a line for each check: ok, warn or fail, and what mends it
  sikkerkey-mcp doctor --agent ID      one agent only
  sikkerkey-mcp doctor --json          the same for programs

The exit status is 1 if a line says fail. Nothing secret is shown.""",
    "tools": """\
  sikkerkey-mcp tools                  every tool
  sikkerkey-mcp tools describe manage_secrets
  sikkerkey-mcp tools describe manage_secrets rotate
  sikkerkey-mcp tools list --json""",
    "call": """\
  sikkerkey-mcp call whoami
  sikkerkey-mcp call manage_projects list --table
  sikkerkey-mcp call manage_projects create name=web description='The shop'
  sikkerkey-mcp call manage_secrets create projectId=ID name=db value=-
  sikkerkey-mcp call manage_secrets create projectId=ID name=tls value=@key.pem
  sikkerkey-mcp call read_audit query severities='["high","critical"]' pageSize=20
  sikkerkey-mcp call support attachment attachmentId=ID --output log.txt

arguments:
  key=TEXT    text, a number, true or false; lists and objects as JSON
  key=@FILE   the content of a file
  key=-       stdin; on a terminal it is asked for and not shown
  key=@@TEXT  text that begins with @
The line end after a single line is dropped; several lines are taken as they are. Plaintext is accepted as key=@FILE
and key=- only, because every process of a computer can read command lines.

exit status: 0 done, 1 refused or failed (why stands on stderr), 2 wrong usage""",
    "completion": """\
  eval "$(sikkerkey-mcp completion bash)"      in ~/.bashrc
  eval "$(sikkerkey-mcp completion zsh)"       in ~/.zshrc, after compinit
  sikkerkey-mcp completion fish > ~/.config/fish/completions/sikkerkey-mcp.fish
  sikkerkey-mcp completion powershell >> $PROFILE

It completes the words after `sikkerkey-mcp` and `sikkerkey-mcp.pyz`: put a link to the archive on the path.""",
}


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=run, grammar=made)
    return made


def _config(options: argparse.Namespace) -> int:
    import sikkerkey_clients

    return sikkerkey_clients.command_config(options)


def _serve(options: argparse.Namespace) -> int:
    given = {"--agent": options.agent, **({"--read-only": "1"} if options.read_only else {})}
    lists = {f"--{name}": ",".join(getattr(options, name)) for name in ("tools", "exclude") if getattr(options, name)}
    return mcp.command_serve({**given, **lists})


def _doctor(options: argparse.Namespace) -> int:
    import sikkerkey_doctor

    return sikkerkey_doctor.command_doctor(options)


def _tools(options: argparse.Namespace) -> int:
    import sikkerkey_call

    return sikkerkey_call.command_tools(options)


def _call(options: argparse.Namespace) -> int:
    import sikkerkey_call

    return sikkerkey_call.command_call(options)


def _completion(options: argparse.Namespace) -> int:
    import sikkerkey_completion

    return sikkerkey_completion.command_completion(options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of a command line; argparse ends the process by itself where they are wrong."""
    root = parser(arguments)
    _refuse_unknown_command(root, arguments)
    options, left = root.parse_known_args(arguments)
    grammar: argparse.ArgumentParser = getattr(options, "grammar", root)
    if left and (not hasattr(options, "words") or any(word.startswith("-") for word in left)):
        # argparse would repeat them, and they may be values.
        known = [word.partition("=")[0] for word in left if re.fullmatch("--?[a-z-]{1,20}(=.*)?", word, re.DOTALL)]
        grammar.error(f"there is no option {known[0]}" if known else "that is more than it takes; see --help")
    if left:  # argparse takes the words before the first option only
        options.words += left
    return options


def _refuse_unknown_command(root: argparse.ArgumentParser, arguments: list[str]) -> None:
    word = next((word for word in arguments if not word.startswith("-")), None)
    if word is not None and word not in EXAMPLES:
        root.error(f"there is no such command: {mcp.nearest(word, list(EXAMPLES)) or 'see --help'}")


def run(arguments: list[str]) -> int:
    """Parses and runs one command; the exit status. Raises mcp.Error; argparse exits by itself on wrong usage."""
    mcp.leave_no_core()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no command
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # refused where it is looked at
    if arguments[:1] == ["__complete"]:
        import sikkerkey_completion

        return sikkerkey_completion.command_complete(arguments[1:])
    options = parse(arguments)
    if options.version:
        return command_version(options)
    if not hasattr(options, "run"):
        return mcp.command_serve({})
    try:
        result: int = options.run(options)
    except UsageError as error:
        advise(f"sikkerkey-mcp: error: {error.in_words()}")
        return 2
    return result
