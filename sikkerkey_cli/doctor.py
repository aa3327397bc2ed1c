"""`doctor`: checks everything from Python to the vault and prints a line for each check, with a command that fixes it.

The checks are independent: a failure does not stop the others. Nothing is changed, no secret is shown, and text from
elsewhere is cleaned. Network checks have short time limits and run concurrently.
"""

from __future__ import annotations

import argparse
import errno
import filecmp
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple

import sikkerkey_address
import sikkerkey_core
import sikkerkey_http
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_refusals
import sikkerkey_shell
import sikkerkey_times
import sikkerkey_tls
from sikkerkey_cli import agents, entries, terminal, version
from sikkerkey_cli.clients import CLIENTS, user_file
from sikkerkey_identity import Identity
from sikkerkey_mcp import Error, JsonObject, clean

State = Literal["ok", "warn", "fail"]

PYTHONS = ((3, 9, 2), (3, 15))  # the oldest that works, the newest that was tested
NETWORK_MAX_S = 10.0  # for all requests to one host, and for all requests about one agent
CLIENT_MAX_S = 8.0  # from starting a client's entry to the answer of its first call; clients allow 10 s or more
FAMILY_MAX_S = 3.0  # for all addresses of one family
CLOCK_WARN_S = 60  # such a clock will drift further; beyond sikkerkey_refusals.CLOCK_SKEW_MAX_S the vault refuses
EXPIRY_WARN_DAYS = 14  # certificates are normally renewed earlier, so the renewal has probably failed
DAY_S = 86_400
SCOPES_MAX = 100  # the rest of an answer is ignored; there are about 25
MACHINES_MAX = 10  # more would hide the other lines
LABEL_WIDTH = 10
INSTALL = "sikkerkey-mcp install -"
APPROVE = "the vault's owner approves it on the dashboard (AI agents page)"
ENABLE = "the vault's owner enables it on the dashboard (AI agents page)"


class Line(NamedTuple):
    """The result of one check. `remedy` fixes it: a command that can be run as it is, or else an instruction."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def failed(check: str, error: Error, who: str = "") -> Line:
    """The line for a check that ended with an error."""
    return Line(check, "fail", f"{who}{error}", error.hint)


# ---------------------------------------------------------------------------------------------------------------------
# this computer: Python, the program, its library
# ---------------------------------------------------------------------------------------------------------------------


def check_python() -> Line:
    """Whether the program supports this Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    detail = f"{sys.implementation.name} {version}, {clean(sys.executable)}"
    remedy = "start this program with CPython {} to {}".format(*(".".join(map(str, one)) for one in PYTHONS))
    if sys.version_info[:3] < PYTHONS[0] or sys.implementation.name != "cpython" or sys.maxsize < 2**32:
        return Line("python", "fail", f"{detail}: not supported", remedy)
    if sys.version_info[:2] > PYTHONS[1]:
        return Line("python", "warn", f"{detail}: newer than any tested version", remedy)
    return Line("python", "ok", detail)


def check_program() -> Line:
    """The running program: the archive, or the module outside an archive, and its hash."""
    runtime = sys.modules.get("sikkerkey_launch")
    path: str = runtime.report()["archive"] if runtime else os.path.abspath(sikkerkey_mcp.__file__)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        remedy = "put the file back, or start it from where it is now"
        return Line("program", "fail", f"{clean(path)} cannot be read: {error.strerror}", remedy)
    return Line("program", "ok", f"{sikkerkey_mcp.VERSION}, {clean(path)}\nsha256 {digest.hexdigest()}")


def check_library() -> Line:
    """How cryptography's native library was loaded, and whether the cache works."""
    loaded = version.runtime_facts()
    if loaded["cryptography"].startswith("unusable"):
        install = sikkerkey_shell.command_line([sys.executable, "-m", "pip", "install", "cryptography"])
        other = f"use the archive for this platform, or: {install}"
        reason = loaded["cryptography"]
        return Line("library", "fail", f"cryptography is {clean(reason)}", _remedy_of_damage(reason) or other)
    try:
        sikkerkey_keys.load_signer(agents.new_key()[0])(b"")
    except Error as error:
        return failed("library", error)
    library, bytecode = loaded.get("library", "installed"), loaded.get("bytecode", "")
    detail = f"cryptography {loaded['cryptography']}, {clean(library)}"
    if ";" in library:  # followed by the reasons why a faster way failed
        remedy = _remedy_of_damage(library) or _cache_remedy()
        return Line("library", "warn", f"{detail}\nevery start is slow", remedy)
    if not bytecode.startswith("compiled"):
        return Line("library", "ok", detail)
    remedy = "start Python without -B and without PYTHONDONTWRITEBYTECODE"
    if "PYTHONDONTWRITEBYTECODE" not in bytecode:
        remedy = _cache_remedy()
    return Line("library", "warn", f"{detail}\nevery start is slow: {clean(bytecode)}", remedy)


def _remedy_of_damage(report: str) -> str:
    damaged = "the archive was replaced or is damaged" in report
    return "download the archive again and compare its sha256 with SHA256SUMS" if damaged else ""


def _cache_remedy() -> str:
    directory = sys.modules["sikkerkey_runtime"].cache_directory("sikkerkey-mcp")
    if os.path.isdir(directory) and os.stat(directory).st_mode & 0o022:
        return sikkerkey_shell.make_private(directory, directory=True)
    variable = sikkerkey_shell.set_variable("SIKKERKEY_CACHE_DIR", "DIR")
    return f"{variable}, where DIR is a directory that belongs to you and is not mounted noexec"


# ---------------------------------------------------------------------------------------------------------------------
# this computer: the agents
# ---------------------------------------------------------------------------------------------------------------------


class AgentChecks:
    """Checks the slots of this computer; `lines` are the results, `usable` the identities that can be used."""

    def __init__(self, wanted: str) -> None:
        self.lines: list[Line] = []
        self.usable: list[Identity] = []
        self.addresses: list[str] = []  # of the vaults of all agents, also of unusable ones
        try:
            self._found = sikkerkey_identity.installed_agents()
            self.lines.append(self._home())
        except Error as error:
            self._found = []
            self.lines.append(failed("home", error))
            return
        examined = self._choose(wanted)
        for agent in self._found:
            if agent in examined:
                self._examine(agent)

    def _home(self) -> Line:
        home, agents = sikkerkey_identity.home(), sikkerkey_identity.agents_directory()
        if not self._found:
            detail = f"{clean(home)}: no agent is installed; create a token on the vault's dashboard (AI agents page)"
            return Line("home", "warn", detail, INSTALL)
        return Line("home", "ok", f"{clean(home)}{_mode(home)}, {clean(agents)}{_mode(agents)}")

    def _choose(self, wanted: str) -> list[str]:
        """The ids to check: the chosen agent, or all of them if none is chosen or the choice is wrong."""
        several = not wanted and not os.environ.get("SIKKERKEY_AGENT_ID") and len(self._found) > 1
        try:
            chosen = None if several else sikkerkey_identity.choose_agent(wanted)
        except Error as error:
            self.lines.append(Line("choice", "fail", str(error), self._remedy_of_choice(wanted) or error.hint))
            return self._found
        if several:
            ids = ", ".join(self._found)
            detail = f"{len(self._found)} agents are installed and none is chosen; `serve` requires a choice: {ids}"
            self.lines.append(Line("choice", "warn", detail, self._remedy_of_choice("")))
        return [chosen] if chosen else self._found

    def _remedy_of_choice(self, wanted: str) -> str:
        if wanted:
            return "sikkerkey-mcp whoami"
        if len(self._found) > 1:
            return sikkerkey_shell.set_variable("SIKKERKEY_AGENT_ID", self._found[0])
        return sikkerkey_shell.unset_variables(["SIKKERKEY_AGENT_ID"])

    def _examine(self, agent: str) -> None:
        slot = os.path.join(sikkerkey_identity.agents_directory(), agent)
        try:
            identity = sikkerkey_identity.load_identity(agent)
            sikkerkey_keys.signer_of(identity)  # asks for a passphrase if it has one
            key = sikkerkey_keys.fingerprint_of(identity)
        except Error as error:
            self.lines.append(failed("agent", error, f"{agent}: "))
            self.addresses += _address_in(os.path.join(slot, "identity.json"))
            return
        modes = [_mode(slot), *(f" {name}{_mode(os.path.join(slot, name))}" for name in agents.SLOT_FILES)]
        summary = f"{agent} ({clean(identity.name)}) of {clean(identity.vault_id)} at {identity.api_url}"
        detail = f"{summary};{','.join(modes)}" if os.name == "posix" else summary
        self.lines.append(Line("agent", "ok", f"{detail}\nkey {key}"))
        self.usable.append(identity)
        self.addresses.append(identity.api_url)


def _address_in(path: str) -> list[str]:
    """The API URL in an unusable slot's identity. The requests sent to it are unsigned and contain no data."""
    if not os.path.isfile(path):  # opening a named pipe would block
        return []
    try:
        with open(path, "rb") as file:
            members = sikkerkey_mcp.parse_json(file.read(sikkerkey_identity.FILE_MAX_BYTES))
        return [sikkerkey_address.parse_base_url(str(members["apiUrl"]))]
    except (OSError, ValueError, LookupError, TypeError, Error):  # the agent's own line reports the problem
        return []


def check_machines() -> Iterator[Line]:
    """A line for each identity of a machine that this user can read, in the layout of the vendor's clients.

    With it, two lines of Python read secrets: so does an assistant that runs commands as this user. No key is read.
    """
    homes = [os.path.expanduser("~/.sikkerkey")]
    with suppress(Error):  # a check of its own reports it
        homes.append(sikkerkey_identity.home())
    found = [path for home in dict.fromkeys(homes) for path in glob.glob(glob.escape(home) + "/vaults/*/identity.json")]
    for path in sorted(found)[:MACHINES_MAX]:
        slot = os.path.dirname(path)
        if any(os.access(key, os.R_OK) for key in (os.path.join(slot, "private.pem"), *_machine_key_in(path))):
            detail = f"{clean(slot)}: every program of this user, also an assistant's, can read secrets as this machine"
            remedy = (
                f"move {clean(slot)} to the machine, or to a user that runs no assistant, and correct privateKeyPath"
            )
            yield Line("machine", "warn", detail, remedy)


def _machine_key_in(path: str) -> list[str]:
    """The path of the key that an identity names."""
    if not os.path.isfile(path):  # opening a named pipe would block
        return []
    try:
        with open(path, "rb") as file:
            members = sikkerkey_mcp.parse_json(file.read(sikkerkey_identity.FILE_MAX_BYTES))
        return [os.path.join(os.path.dirname(path), members["privateKeyPath"])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _mode(path: str) -> str:
    """The mode as ` 0700`; empty on systems without modes and for missing files."""
    if os.name != "posix" or not os.path.exists(path):
        return ""
    return f" {stat.S_IMODE(os.stat(path).st_mode):04o}"


def check_restrictions() -> Line:
    """The restrictions and --split-reads as the environment sets them here; a client's entry may set more."""
    try:
        found, split = sikkerkey_mcp.read_restrictions({}), sikkerkey_options.reads_are_split({})
        sikkerkey_options.read_answer_limit({})
        policy = sikkerkey_options.read_person_policy({})
    except Error as error:
        variables = re.findall(r"SIKKERKEY_[A-Z_]+", str(error).partition(" names ")[0])
        return Line("switches", "fail", str(error), sikkerkey_shell.unset_variables(variables))
    if policy.confirm == "never":
        return Line(
            "switches",
            "warn",
            f"{NOBODY_CONFIRMS} (SIKKERKEY_CONFIRM)",
            sikkerkey_shell.unset_variables(["SIKKERKEY_CONFIRM"]),
        )
    if not found and not split and policy.values == "any":
        return Line("switches", "ok", "none: every action is offered")
    left = sum(len(tool.actions) for tool in sikkerkey_mcp.available_tools(sikkerkey_mcp.TOOLS, found))
    every = sum(len(tool.actions) for tool in sikkerkey_mcp.TOOLS)
    set_here = [" ".join([each.source, ",".join(each.names)]).rstrip() for each in found]
    set_here += [sikkerkey_options.OPTIONS[sikkerkey_options.SPLIT_READS].variable] if split else []
    set_here += [policy.values_source] if policy.values != "any" else []
    return Line("switches", "ok", f"{'; '.join(set_here)}: {left} of {every} actions are offered")


# ---------------------------------------------------------------------------------------------------------------------
# this computer: the MCP clients
# ---------------------------------------------------------------------------------------------------------------------

INTERPRETER = r"(python(3(\.[0-9]+)?)?|py)(\.exe)?"
FLAGS = ("-I", "-E", "-S", "-s", "-B", "-P", "-u", "-3")  # options of Python that run neither code nor a module
# The variables that the strictest client passes on, so that an entry which needs more is detected.
MINIMAL_ENVIRONMENT = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("APPDATA", "LOCALAPPDATA", "PATHEXT", "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE"),
)
# The beginnings of errors for which the command of an entry is to blame.
WRONG_ENTRY = "there is no agent|--[a-z]|unknown option|argument --|[0-9]+ agents are installed"
NOBODY_CONFIRMS = "no person is asked before something that cannot be undone"
HANDSHAKE: tuple[JsonObject, ...] = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": sikkerkey_mcp.LATEST_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "sikkerkey-mcp doctor", "version": sikkerkey_mcp.VERSION},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list"},
    {"id": 3, "method": "tools/call", "params": {"name": sikkerkey_mcp.TOOLS[0].name, "arguments": {}}},
)


def check_clients() -> Iterator[Line]:
    """The entries in the clients' files, and whether those that start this program work."""
    found = entries.find_entries(os.environ)
    if not found:
        detail = f"none of the {len(CLIENTS) - 1} supported clients has an entry in its user file"
        yield Line("clients", "warn", detail, f"sikkerkey-mcp config {_likely_client()} --write")
    for job in [Job("client", partial(check_client, entry)) for entry in found]:
        yield from job.lines()


def check_client(entry: entries.FoundEntry) -> list[Line]:
    """One entry. It is started only if its command is a Python interpreter that runs this same program."""
    where = ", ".join(clean(text) for text in (entry.client, entry.path, entry.key) if text)
    rewrite = _rewriting(entry)
    if entry.problem:
        remedy = "fix the file in the client or in an editor"
        return [Line("client", "warn", f"{where}: {clean(entry.problem)}", remedy)]
    reason = _reason_not_to_start(entry)
    if reason:
        return [Line("client", "warn", f"{where}: {reason}; it was not started", rewrite)]
    started_s = time.monotonic()
    tried = _try_entry(entry)
    if tried.error is not None:
        return [Line("client", "fail", f"{where}: {tried.error}", tried.error.hint or rewrite)]
    detail = f"{where}: starts in {time.monotonic() - started_s:.1f} s with {tried.tools} tools"
    if tried.refusal is not None:
        remedy = _remedy_of_refusal(entry, tried.refusal) or rewrite
        return [Line("client", "fail", f"{detail}, but a call fails: {tried.refusal}", remedy)]
    if _policy_of(entry) == "never":
        return [Line("client", "warn", f"{detail}, but {NOBODY_CONFIRMS} (--confirm never)", rewrite)]
    if "-I" not in entry.command:
        return [Line("client", "warn", f"{detail}, but other modules can replace its own: -I is missing", rewrite)]
    return [Line("client", "ok", detail)]


def _policy_of(entry: entries.FoundEntry) -> str:
    """What the entry says about confirmations; empty if it does not say."""
    pairs = zip(entry.command, entry.command[1:])
    given = next((level for option, level in pairs if option == "--confirm"), "")
    return given or str(entry.environment.get("SIKKERKEY_CONFIRM", ""))


def _likely_client() -> str:
    """The first client whose file exists; else a placeholder."""
    for name, client in CLIENTS.items():
        with suppress(Error):
            if os.path.isfile(user_file(client, os.environ)):
                return name
    return "CLIENT"


def _rewriting(entry: entries.FoundEntry) -> str:
    """The command that writes an entry again, with its agent and its restrictions as far as these are valid."""
    server = entries.Server(entry.key, {}, entry.command, entry.environment)
    is_never = _policy_of(entry) == "never"
    options = ["--agent", server.agent] if len(_agents_here()) > 1 and server.agent in _agents_here() else []
    try:
        sikkerkey_mcp.read_settings(server.options)
        options += without_options(server.options, sikkerkey_options.ANSWER_LIMIT, *(["--confirm"] if is_never else []))
    except (Error, SystemExit):  # the user must give the restriction again
        options = options[:2]
    return sikkerkey_shell.command_line(["sikkerkey-mcp", "config", entry.client, "--write", *options])


def without_options(words: Sequence[str], *options: str) -> list[str]:
    """The words of a command line without these options and their values."""
    before = ["", *words]
    return [word for earlier, word in zip(before, words) if word not in options and earlier not in options]


def _agents_here() -> list[str]:
    try:
        return sikkerkey_identity.installed_agents()
    except Error:  # reported by AgentChecks
        return []


def _remedy_of_refusal(entry: entries.FoundEntry, refusal: Error) -> str:
    """What to do if an entry's call fails; empty to write the entry again."""
    lacking = entries.passed_environment(os.environ, CLIENTS[entry.client]).keys() - entry.environment.keys()
    if lacking or re.match(WRONG_ENTRY, str(refusal)):
        return ""
    if str(refusal).startswith("the vault answered 401") and "clock" not in refusal.hint:
        return "resolve the checks marked fail first"
    return _remedy_by_owner(refusal) or refusal.hint


def _reason_not_to_start(entry: entries.FoundEntry) -> str:
    """Why an entry is not started; empty if its whole command is one that `config` could have written."""
    interpreter, *words = entry.command or [""]
    while words and words[0] in FLAGS:
        words.pop(0)
    program, rest = (words[0] if words else ""), words[1:]
    known = re.fullmatch(INTERPRETER, re.split(r"[/\\]", interpreter)[-1])
    if not known or not program or program.startswith("-") or (rest and rest[0] != "serve"):
        return "its command is not Python with this program"
    if any(re.match("LD_|DYLD_|PYTHON", name.upper()) for name in entry.environment):
        return "its environment changes what Python loads"
    python = shutil.which(interpreter)
    if python is None or (os.path.dirname(interpreter) and not os.path.isabs(interpreter)):
        return f"{clean(interpreter)} does not exist"
    if os.name == "posix" and not os.path.samefile(python, sys.executable):
        status = os.stat(python)
        if status.st_mode & 0o022 or status.st_uid not in (0, os.getuid()):
            return f"{clean(python)} belongs to another user, or others can write to it"
    return "" if _is_this_program(program) else f"{clean(program)} is not this program"


def _is_this_program(path: str) -> bool:
    """Whether this is the running file, or a copy of the running archive. A module would import others beside it."""
    here = sikkerkey_mcp.program()[1]
    try:
        same = os.path.samefile(path, here) or (zipfile.is_zipfile(here) and filecmp.cmp(path, here, shallow=False))
        return os.path.isabs(path) and same
    except OSError:  # missing or unreadable
        return False


class Tried(NamedTuple):
    """The result of starting an entry: the number of its tools, why it does not work, and why its call failed."""

    tools: int
    error: Error | None = None
    refusal: Error | None = None


def _try_entry(entry: entries.FoundEntry) -> Tried:
    """Starts the entry's server, lists its tools and makes one call, unless the restrictions withhold it."""
    inherited = {name: os.environ[name] for name in MINIMAL_ENVIRONMENT if name in os.environ}
    if CLIENTS[entry.client].passes_proxies_on:
        inherited.update(entries.proxy_variables(os.environ))
    own = {name: value for name, value in entry.environment.items() if isinstance(value, str)}
    pipe = subprocess.PIPE
    command = [shutil.which(entry.command[0]) or "", *entry.command[1:]]  # resolved here, as the entry may set PATH
    timed_out = threading.Event()
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**inherited, **own}) as process:

            def give_up() -> None:
                timed_out.set()
                process.kill()

            timer = threading.Timer(CLIENT_MAX_S, give_up)
            timer.start()
            try:
                replies, stderr = _exchange(process)
            finally:
                timer.cancel()
                process.kill()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        return Tried(0, sikkerkey_mcp.ConfigError(f"it cannot be started: {reason}"))
    return _judged(replies, stderr, in_time=not timed_out.is_set())


def _exchange(process: Any) -> tuple[dict[str, JsonObject], str]:
    """Sends HANDSHAKE; the replies by their ids until all are there or the server ends, and its stderr."""
    with suppress(OSError):  # it has ended
        process.stdin.write(b"".join(json.dumps({"jsonrpc": "2.0", **one}).encode() + b"\n" for one in HANDSHAKE))
        process.stdin.flush()
    replies: dict[str, JsonObject] = {}
    for line in process.stdout:
        reply = sikkerkey_refusals.error_members(sikkerkey_mcp.Answer(0, {}, line))
        replies[str(reply.get("id"))] = reply
        if replies.keys() >= {"2", "3"}:
            break
    with suppress(OSError):
        process.stdin.close()
    return replies, process.stderr.read().decode("utf-8", "replace")


def _judged(replies: dict[str, JsonObject], stderr: str, *, in_time: bool) -> Tried:
    listed, called = (replies.get(number, {}).get("result") for number in ("2", "3"))
    if isinstance(listed, dict):
        count = len(listed.get("tools", ()))
        if isinstance(called, dict) and called.get("isError") and HANDSHAKE[-1]["params"]["name"] in str(listed):
            return Tried(count, None, _error_in(str(called.get("content", [{}])[0].get("text", ""))))
        if called is None and not in_time:
            return Tried(
                count, None, sikkerkey_mcp.ServiceError(f"no answer within {CLIENT_MAX_S:.0f} s", _network_remedy())
            )
        return Tried(count)
    if not in_time:
        return Tried(0, sikkerkey_mcp.ConfigError(f"it does not answer within {CLIENT_MAX_S:.0f} s"))
    reported = re.search(r"error: (.*)(?:\nhint: (.*))?", stderr)
    reason, hint = map(clean, reported.groups("")) if reported else ("it exits without a message on stderr", "")
    return Tried(
        0,
        sikkerkey_mcp.ConfigError(
            f"it does not start: {reason}", "" if reason.startswith("there is no agent") else hint
        ),
    )


def _error_in(text: str) -> Error:
    """The error that a result shows to the model."""
    message, _, hint = text.partition("\nhint: ")
    return sikkerkey_mcp.ServiceError(clean(message, 1_000), clean(hint, 1_000))


# ---------------------------------------------------------------------------------------------------------------------
# the connection to the vault
# ---------------------------------------------------------------------------------------------------------------------


def _proxy(base_url: str) -> urllib.parse.SplitResult | None:
    """The proxy for a vault whose certificate is not pinned. Raises ConfigError."""
    url = sikkerkey_address.https_proxies(base_url).get("https", "")
    return urllib.parse.urlsplit(url if "://" in url else f"http://{url}") if url else None


def check_proxy(base_url: str, certificate: str = "") -> Line:
    """The proxy for the vault, without its credentials."""
    parts = urllib.parse.urlsplit(base_url)
    if certificate:
        return Line("proxy", "ok", "none: a pinned certificate never uses a proxy")
    try:
        proxy = _proxy(base_url)
    except Error as error:
        return failed("proxy", error)
    if proxy:
        password = " with a password" if proxy.password else ""
        return Line("proxy", "ok", f"{proxy.hostname}:{proxy.port or 80}{password} (HTTPS_PROXY)")
    if parts.scheme == "http":
        return Line("proxy", "ok", "none: http:// to this computer never uses a proxy")
    excluded = "https" in urllib.request.getproxies()
    return Line("proxy", "ok", f"none for {parts.hostname} (NO_PROXY)" if excluded else "none")


def _endpoint(base_url: str) -> tuple[str, int]:
    """The host and port that connections go to: the vault's, or its proxy's."""
    try:
        proxy = _proxy(base_url)
    except Error:  # reported by check_proxy
        proxy = None
    parts = urllib.parse.urlsplit(base_url)
    host, port = (proxy.hostname, proxy.port or 80) if proxy else (parts.hostname, parts.port or 443)
    return host or "", port


def check_dns(base_url: str) -> list[Line]:
    """Whether the host name of the vault, or of its proxy, can be resolved."""
    host, port = _endpoint(base_url)
    try:
        found = sikkerkey_http.resolve(host, port, NETWORK_MAX_S)
    except (OSError, UnicodeError):
        return [Line("dns", "fail", f"{host} cannot be resolved", _network_remedy())]
    addresses = list(dict.fromkeys(str(one.target[0]) for one in found))
    return [Line("dns", "ok", f"{host} is {', '.join(addresses[:3])}{', ...' if len(addresses) > 3 else ''}")]


def check_families(base_url: str) -> list[Line]:
    """A line if connections of one address family get no answer, although those of the other one do."""
    if base_url.startswith("http:"):  # to this computer
        return []
    try:
        found = sikkerkey_http.resolve(*_endpoint(base_url), FAMILY_MAX_S)
    except (OSError, UnicodeError):  # reported by check_dns
        return []
    if len({one.family for one in found}) < 2:
        return []
    dead: list[str] = []
    alive: list[str] = []
    for family, name in ((socket.AF_INET6, "IPv6"), (socket.AF_INET, "IPv4")):
        addresses = sikkerkey_http.in_order([one for one in found if one.family == family], None)
        try:
            connected, _ = sikkerkey_http.connect_first(addresses, FAMILY_MAX_S, sikkerkey_mcp.NEXT_ADDRESS_S)
            connected.close()
            alive.append(name)
        except OSError as error:
            # A system without IPv6 says so immediately, which delays nothing.
            if isinstance(error, TimeoutError) or error.errno == errno.EHOSTUNREACH:
                dead.append(f"{name} is dead: {addresses[0].target[0]} does not answer")
    if not dead or not alive:
        return []
    remedy = (
        f"none required: connections use {alive[0]}; to avoid a short delay, ask who runs this network to repair it"
    )
    return [Line("dns", "warn", dead[0], remedy)]


def check_connection(base_url: str, certificate: str = "") -> list[Line]:
    """TLS, the API and the clock, by one unsigned request, which needs no agent and uses no nonce.

    `certificate`, in PEM, is the one that is pinned.
    """
    tls: list[Line] = []
    try:
        opener, connections = sikkerkey_mcp.open_vault(base_url, certificate)
    except Error as error:
        return [failed("tls", error), _unchecked("api"), _unchecked("clock")]
    connections.limits = connections.limits._replace(connect_s=NETWORK_MAX_S - 2)  # so that the reason is reported
    trusted = "the pinned certificate" if certificate else ""
    connections.on_connect = lambda connected: tls.append(_tls_line(connected, trusted))
    request = sikkerkey_http.AbortableRequest(f"{base_url}/", headers={"User-Agent": sikkerkey_mcp.USER_AGENT})
    request.on_abort = lambda _abort: None
    started_s = time.monotonic()
    try:
        response: Any = opener.open(request)
    except (sikkerkey_http.Unreachable, sikkerkey_http.NotLoopback) as error:
        return _unreachable(base_url, tls, error, trusted)
    except (sikkerkey_http.TooLarge, sikkerkey_http.Compressed) as error:
        unreadable = Line("api", "fail", f"{base_url}: {error}", sikkerkey_mcp.CHECK_INTERMEDIARY_HINT)
        return [*tls, unreadable, _unchecked("clock")]
    finally:
        connections.close()
    took_ms = (time.monotonic() - started_s) * 1000
    return [*tls, Line("api", "ok", f"{base_url} answers, in {took_ms:.0f} ms"), _clock_line(response.headers)]


def _unreachable(base_url: str, tls: list[Line], error: Exception, pinned: str) -> list[Line]:
    """Reports a TLS error in the tls line, any other in the api line."""
    if isinstance(error, sikkerkey_http.Unreachable) and isinstance(error.__cause__, ssl.SSLError) and not tls:
        reason, remedy = sikkerkey_tls.explain_unreachable(error, pinned=bool(pinned))
        said = f"{base_url}: {reason}; trusted: {pinned or _trusted()}"
        line = Line("tls", "fail", said, remedy or sikkerkey_mcp.UNREACHABLE_HINT)
        return [line, _unchecked("api"), _unchecked("clock")]
    failure = Line("api", "fail", f"{base_url}: {error}", _network_remedy())
    return [*(tls or [_unchecked("tls")]), failure, _unchecked("clock")]


def _network_remedy() -> str:
    address = "sikkerkey-mcp whoami, or SIKKERKEY_API_URL if no agent is installed"
    return f"check the network, HTTPS_PROXY, and the vault's address: {address}"


def _unchecked(check: str) -> Line:
    return Line(check, "warn", "not checked: no connection to the vault", "resolve the checks marked fail first")


def _trusted() -> str:
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE", "")
    named = [f"{clean(bundle)} (SIKKERKEY_CA_BUNDLE)"] if bundle else []
    if sikkerkey_address.only_ca_bundle():
        return f"only {named[0]}"
    files, directories = sikkerkey_tls.system_store()
    return ", ".join([*named, "certifi's certificates", *map(clean, [*files, *directories])])


def check_system_store() -> list[Line]:
    """A line if SSL_CERT_FILE or SSL_CERT_DIR is set and has no certificates."""
    found = [path for paths in sikkerkey_tls.system_store() for path in paths]
    lines = []
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        text = os.environ.get(name, "")
        if text and not any(path in found for path in (text, *text.split(os.pathsep))):
            remedy = sikkerkey_shell.unset_variables([name])
            lines.append(Line("tls", "warn", f"{name} names no certificates: {clean(text)}", remedy))
    return lines


def _tls_line(connected: socket.socket, pinned: str) -> Line:
    if not isinstance(connected, ssl.SSLSocket):
        return Line("tls", "ok", "none: http:// to this computer")
    until_s = ssl.cert_time_to_seconds(str((connected.getpeercert() or {}).get("notAfter")))
    days = int((until_s - time.time()) // DAY_S)
    date = time.strftime("%Y-%m-%d", time.gmtime(until_s))
    validity = f"certificate valid until {date} ({days} days)"
    detail = f"{connected.version()}, {validity}, checked against {pinned or _trusted()}"
    if days < EXPIRY_WARN_DAYS:
        return Line("tls", "warn", detail, "tell the vault's operator that its certificate is about to expire")
    return Line("tls", "ok", detail)


def _clock_line(headers: sikkerkey_mcp.Headers) -> Line:
    vault_s = sikkerkey_times.parse_http_date(headers.get("date", ""))
    if vault_s is None:
        return Line(
            "clock", "warn", "not checked: the response has no Date header", "compare this computer's clock yourself"
        )
    skew_s = int(time.time()) - vault_s  # both in whole seconds, as in the Date header
    difference = f"{abs(skew_s)} s {'ahead of' if skew_s > 0 else 'behind'}" if skew_s else "the same as"
    detail = f"{difference} the vault's"
    if abs(skew_s) > sikkerkey_refusals.CLOCK_SKEW_MAX_S:
        return Line(
            "clock",
            "fail",
            f"{detail}: beyond {sikkerkey_refusals.CLOCK_SKEW_MAX_S} s the vault refuses every call",
            _set_clock(),
        )
    return Line("clock", "warn", detail, _set_clock()) if abs(skew_s) > CLOCK_WARN_S else Line("clock", "ok", detail)


def _set_clock() -> str:
    commands = {"darwin": "sudo sntp -sS time.apple.com", "win32": "w32tm /resync"}
    return commands.get(sys.platform, "sudo timedatectl set-ntp true")


# ---------------------------------------------------------------------------------------------------------------------
# the agent at the vault
# ---------------------------------------------------------------------------------------------------------------------


class OneAttempt(sikkerkey_mcp.Cancellation):
    """Disables retries, so that a sealed vault is reported within the time limit."""

    def wait(self, seconds: float) -> bool:  # noqa: ARG002 (the signature of the base class)
        """Returns immediately, as if cancelled."""
        return True


def check_agent(identity: Identity) -> list[Line]:
    """The state of an agent at the vault, its scopes, and the actions that these allow."""
    agent, action = identity.agent_id, sikkerkey_mcp.TOOLS[0].actions[0]
    try:
        request = sikkerkey_mcp.build_request(action, {})
        context = sikkerkey_mcp.Context()
        context.cancellation = OneAttempt()
        reply = sikkerkey_mcp.agent_api(identity).send(request, safe=True, context=context)
        if not 200 <= reply.status < 300:
            raise agents.refusal(action, reply)
    except Error as error:
        return [_refused_line(identity, error)]
    members = sikkerkey_refusals.error_members(reply)
    listed = members.get("scopes")
    if not isinstance(listed, list):
        return [Line("vault", "fail", f"{agent}: the answer is not from a vault", "check apiUrl: sikkerkey-mcp whoami")]
    scopes = sorted(clean(scope, 64) for scope in listed[:SCOPES_MAX] if isinstance(scope, str))
    return [_state_line(agent, members), _scopes_line(scopes), *available_actions(scopes)]


def _refused_line(identity: Identity, error: Error) -> Line:
    agent = identity.agent_id
    status = error.status if isinstance(error, sikkerkey_mcp.ServiceError) else 0
    if status == 401 and "clock" not in error.hint:
        detail = f"{agent}: {error}: it was probably revoked; create a token on the vault's dashboard (AI agents page)"
        return Line("vault", "fail", detail, sikkerkey_identity.replacement(agent, identity.address))
    return Line("vault", "fail", f"{agent}: {error}", _remedy_by_owner(error) or error.hint)


def _remedy_by_owner(error: Error) -> str:
    """What the owner has to do about a refused agent; empty if it is something else."""
    if not str(error).startswith("the vault answered 403"):
        return ""
    return ENABLE if "disabled" in str(error) else APPROVE if "pending" in str(error) else ""


def _state_line(agent: str, members: JsonObject) -> Line:
    if members.get("approved") is False:
        return Line("vault", "fail", f"{agent} is pending", APPROVE)
    if members.get("enabled") is False:
        return Line("vault", "fail", f"{agent} is disabled", ENABLE)
    allowed = members.get("projectAllowlist")
    projects = f"{len(allowed)} projects" if isinstance(allowed, list) else "all projects"
    return Line("vault", "ok", f"{agent} is approved and enabled, for {projects}")


def _scopes_line(scopes: list[str]) -> Line:
    wanted = {action.scope for tool in sikkerkey_mcp.TOOLS for action in tool.actions if action.scope}
    if wanted <= set(scopes):
        return Line("scopes", "ok", f"all {len(wanted)} that actions require")
    return Line("scopes", "ok", ", ".join(scopes) or "none")


def available_actions(scopes: list[str]) -> Iterator[Line]:
    """How many actions of each tool the scopes allow, and which scopes the others require."""
    unavailable = {
        tool.name: [action for action in tool.actions if action.scope not in (None, *scopes)]
        for tool in sikkerkey_mcp.TOOLS
    }
    each = (
        f"{tool.name} {len(tool.actions) - len(unavailable[tool.name])}/{len(tool.actions)}"
        for tool in sikkerkey_mcp.TOOLS
    )
    total, blocked = sum(len(tool.actions) for tool in sikkerkey_mcp.TOOLS), sum(map(len, unavailable.values()))
    yield Line("tools", "ok", f"{total - blocked} of {total} actions: {', '.join(each)}")
    if blocked:
        title = "missing scopes, which only the vault's owner can grant, and the actions that require them"
        yield Line("missing", "ok", "\n".join([title, *_by_scope(unavailable)]))


def _by_scope(unavailable: dict[str, list[sikkerkey_mcp.Action]]) -> Iterator[str]:
    """One line for all tools that are unavailable as a whole, then one line for each scope with the other actions."""
    whole = {tool.name for tool in sikkerkey_mcp.TOOLS if len(unavailable[tool.name]) == len(tool.actions)}
    wanted = {
        name: sorted({str(action.scope) for action in unavailable[name]}) for name in unavailable if name in whole
    }
    if whole:
        yield "; ".join(f"{', '.join(scopes)}: all of {name}" for name, scopes in wanted.items())
    parts: dict[str, list[str]] = {}
    for name, actions in unavailable.items():
        for action in actions if name not in whole else ():
            parts.setdefault(str(action.scope), []).append(f"{name}.{action.name}")
    yield from (f"{scope}: {', '.join(names)}" for scope, names in sorted(parts.items()))


# ---------------------------------------------------------------------------------------------------------------------
# the command
# ---------------------------------------------------------------------------------------------------------------------


class Job:
    """A check on its own thread, which is abandoned if it takes too long."""

    def __init__(self, check: str, run: Callable[[], list[Line]]) -> None:
        self._check, self._run = check, run
        self._lines: list[Line] = []
        self._bug: BaseException | None = None
        self._until_s = time.monotonic() + NETWORK_MAX_S
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._lines = self._run()
        except BaseException as error:  # raised again in lines()
            self._bug = error

    def lines(self) -> list[Line]:
        """The result, at most NETWORK_MAX_S after the start."""
        self._thread.join(max(0.0, self._until_s - time.monotonic()))
        if self._thread.is_alive():
            return [Line(self._check, "fail", f"no answer within {NETWORK_MAX_S:.0f} s", _network_remedy())]
        if self._bug:
            raise self._bug
        return self._lines


def examine(wanted: str) -> Iterator[Line]:
    """All lines, each as soon as it is known, in a fixed order."""
    yield check_python()
    yield check_program()
    yield check_library()
    checked = AgentChecks(wanted)
    yield from checked.lines
    yield from check_machines()
    yield check_restrictions()
    yield from check_clients()
    addresses = list(dict.fromkeys(checked.addresses))
    if not addresses:
        try:
            addresses = [
                sikkerkey_address.parse_address(
                    os.environ.get("SIKKERKEY_API_URL") or sikkerkey_address.DEFAULT_API_URL
                )[0]
            ]
        except Error as error:
            yield failed("api", error)
    reachable: list[str] = []
    yield from check_system_store()
    pinned = {identity.api_url: identity.certificate for identity in checked.usable}
    jobs = [_network_jobs(one, pinned.get(one, "")) for one in addresses]
    for address, started in zip(addresses, jobs):
        found = [check_proxy(address, pinned.get(address, "")), *(line for job in started for line in job.lines())]
        yield from found
        if not any(line.check == "api" and line.state != "ok" for line in found):
            reachable.append(address)
    yield from _check_at_vault(checked.usable, reachable)


def _network_jobs(base_url: str, certificate: str) -> list[Job]:
    connection = Job("api", partial(check_connection, base_url, certificate))
    if certificate:  # of this computer, and no proxy is used
        return [connection]
    return [Job("dns", partial(check_dns, base_url)), Job("dns", partial(check_families, base_url)), connection]


def _check_at_vault(usable: list[Identity], reachable: list[str]) -> Iterator[Line]:
    asked = [Job("vault", partial(check_agent, identity)) for identity in usable if identity.api_url in reachable]
    for job in asked:
        yield from job.lines()
    if len(asked) < len(usable):
        yield _unchecked("vault")


def command_doctor(options: argparse.Namespace) -> int:
    """Prints a line for each check; 1 if one of them failed. Raises UsageError for an unknown agent."""
    found: list[Line] = []
    try:
        sikkerkey_identity.choose_agent(options.agent)
    except sikkerkey_core.UsageError:
        raise
    except Error:  # a check reports it
        pass
    for line in checked(options.agent):
        found.append(line)
        if not options.json:
            print(for_people(line), flush=True)
    if options.json:
        print(json.dumps([line._asdict() for line in found], indent=2))
    else:
        print(summary(found))
    return 1 if any(line.state == "fail" for line in found) else 0


def checked(wanted: str) -> Iterator[Line]:
    """All lines as they are shown, each as soon as it is known. Shows that it is checking, where that takes long."""
    lines = examine(wanted)
    while True:
        with terminal.Progress("checking"):
            line = next(lines, None)
        if line is None:
            return
        yield line._replace(detail=terminal.cleaned(line.detail), remedy=_pasteable(line.remedy))


def _pasteable(remedy: str) -> str:
    """The remedy with the name of this program replaced by the command that started it, so that it can be pasted."""
    return terminal.cleaned(sikkerkey_mcp.runnable(remedy))


def for_people(line: Line) -> str:
    """One line as `ok    python      CPython 3.11.7`, with details below it, and the remedy after `fix:`."""
    indent = 6 + LABEL_WIDTH + 2
    begin = terminal.coloured(line.state) + " " * (6 - len(line.state)) + line.check.ljust(LABEL_WIDTH + 2)
    parts = [terminal.wrapped(part, indent) for part in line.detail.split("\n")]
    parts += [f"fix: {line.remedy}"] if line.remedy else []  # not wrapped, so that it can be pasted
    return begin + ("\n" + " " * indent).join(parts)


def summary(lines: list[Line]) -> str:
    """How many checks ended in each state."""
    states = Counter(line.state for line in lines)
    return f"{states['ok']} ok, {states['warn']} warn, {states['fail']} fail"
