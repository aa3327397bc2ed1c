"""`doctor`: whether everything from Python to the vault works, a line for each check, with the command that mends it.

Each check stands alone: whatever is broken, the others are made all the same. Nothing is changed, nothing secret is
shown, and what others wrote is cleaned. Checks that need a network have short limits and run side by side.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import re
import shlex
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
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import sikkerkey_answers
import sikkerkey_cli as cli
import sikkerkey_clients as clients
import sikkerkey_mcp as mcp
import sikkerkey_switches
import sikkerkey_terminal as terminal
import sikkerkey_wire
from sikkerkey_mcp import Error, Identity, JsonObject, clean

State = Literal["ok", "warn", "fail"]

PYTHONS = ((3, 9, 2), (3, 15))  # the first that works, the last that was tried
NETWORK_MAX_S = 10.0  # all that is asked of one host, and all that is asked of the vault for one agent
CLIENT_MAX_S = 8.0  # from starting a client's entry to the list of its tools; clients themselves give it 10 s or more
CLOCK_WARN_S = 60  # a clock that far off drifts on; mcp.CLOCK_SKEW_MAX_S is where the vault refuses
EXPIRY_WARN_DAYS = 14  # certificates are renewed earlier than that, so the renewal has failed
DAY_S = 86_400
SCOPES_MAX = 100  # that are looked at; there are some 25
LABEL_WIDTH = 10
INSTALL = "make an agent token on the vault's dashboard, then: sikkerkey-mcp install -"
APPROVE = "the vault's owner approves it on the dashboard, page AI agents"
ENABLE = "the vault's owner enables it on the dashboard, page AI agents"


class Line(NamedTuple):
    """What one check found. `remedy` is the command or the deed that mends it, empty where all is well."""

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
    """Whether this Python is one that the program runs on."""
    version = ".".join(map(str, sys.version_info[:3]))
    detail = f"{sys.implementation.name} {version}, {clean(sys.executable)}"
    remedy = "start this program with CPython {} to {}".format(*(".".join(map(str, one)) for one in PYTHONS))
    if sys.version_info[:3] < PYTHONS[0] or sys.implementation.name != "cpython" or sys.maxsize < 2**32:
        return Line("python", "fail", f"{detail}: not supported", remedy)
    if sys.version_info[:2] > PYTHONS[1]:
        return Line("python", "warn", f"{detail}: newer than any that was tried", remedy)
    return Line("python", "ok", detail)


def check_program() -> Line:
    """What runs here: the archive and its hash, or the module."""
    runtime = sys.modules.get("sikkerkey_launch")
    path: str = runtime.report()["archive"] if runtime else os.path.abspath(mcp.__file__)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        remedy = "put the file back, or start it from where it is now"
        return Line("program", "fail", f"{clean(path)} cannot be read: {error.strerror}", remedy)
    return Line("program", "ok", f"{mcp.VERSION}, {clean(path)}\nsha256 {digest.hexdigest()}")


def check_library() -> Line:
    """How cryptography's native library was loaded; a detour is slow at each start."""
    loaded = cli.loaded()
    if loaded["cryptography"].startswith("unusable"):
        other = "use the archive for this platform, or: python3 -m pip install cryptography"
        reason = loaded["cryptography"]
        return Line("library", "fail", f"cryptography is {clean(reason)}", _remedy_of_damage(reason) or other)
    try:
        mcp.load_signer(cli.new_key()[0])(b"")
    except Error as error:
        return failed("library", error)
    library, bytecode = loaded.get("library", "installed"), loaded.get("bytecode", "")
    detail = f"cryptography {loaded['cryptography']}, {clean(library)}"
    kept_out = [text for text in (library if ";" in library else "", bytecode if ": " in bytecode else "") if text]
    if not kept_out:
        return Line("library", "ok", detail)
    remedy = _remedy_of_damage(library) or _cache_remedy()
    return Line("library", "warn", f"{detail}\nslow at each start: {clean('; '.join(kept_out))}", remedy)


def _remedy_of_damage(told: str) -> str:
    damaged = "the archive was replaced or is damaged" in told
    return "fetch the archive anew, and compare its sha256 with SHA256SUMS" if damaged else ""


def _cache_remedy() -> str:
    directory = sys.modules["sikkerkey_runtime"].cache_directory("sikkerkey-mcp")
    if os.path.isdir(directory) and os.stat(directory).st_mode & 0o022:
        return f"chmod 700 {shlex.quote(directory)}"
    return "export SIKKERKEY_CACHE_DIR=DIR, a directory of yours on a disk that may hold programs"


# ---------------------------------------------------------------------------------------------------------------------
# this computer: the agents
# ---------------------------------------------------------------------------------------------------------------------


class Agents:
    """The slots of the home, those that can be used, and the lines about them."""

    def __init__(self, wanted: str) -> None:
        self.lines: list[Line] = []
        self.usable: list[Identity] = []
        self.addresses: list[str] = []  # of their vaults, and of those that the others name
        try:
            self._found = mcp.slots()
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
        home, agents = mcp.home(), mcp.agents_dir()
        if not self._found:
            return Line("home", "warn", f"{clean(home)}: no agent is installed", INSTALL)
        return Line("home", "ok", f"{clean(home)}{_mode(home)}, {clean(agents)}{_mode(agents)}")

    def _choose(self, wanted: str) -> list[str]:
        """The chosen agent; all of them where there is no choice, or a wrong one."""
        several = not wanted and not os.environ.get("SIKKERKEY_AGENT_ID") and len(self._found) > 1
        try:
            chosen = None if several else mcp.choose_slot(wanted)
        except Error as error:
            self.lines.append(failed("choice", error))
            return self._found
        if several:
            detail = f"{len(self._found)} agents and none is chosen: `serve` wants to be told which"
            self.lines.append(Line("choice", "warn", detail, f"--agent ID, with one of: {', '.join(self._found)}"))
        return [chosen] if chosen else self._found

    def _examine(self, agent: str) -> None:
        slot = os.path.join(mcp.agents_dir(), agent)
        try:
            identity = mcp.load_identity(agent)
            mcp.load_signer(identity.key_pem)
        except Error as error:
            self.lines.append(failed("agent", error, f"{agent}: "))
            self.addresses += _address_in(os.path.join(slot, "identity.json"))
            return
        modes = [_mode(slot), *(f" {name}{_mode(os.path.join(slot, name))}" for name in cli.SLOT_FILES)]
        whose = f"{agent} ({clean(identity.name)}) of {clean(identity.vault_id)} at {identity.api_url}"
        detail = f"{whose};{','.join(modes)}" if os.name == "posix" else whose
        self.lines.append(Line("agent", "ok", detail))
        self.usable.append(identity)
        self.addresses.append(identity.api_url)


def _address_in(path: str) -> list[str]:
    """The vault that a slot names which cannot be used; what is asked of it is unsigned and carries nothing."""
    if not os.path.isfile(path):  # a pipe would wait for somebody who writes
        return []
    try:
        with open(path, "rb") as file:
            members = mcp.parse_json(file.read(mcp.FILE_MAX_BYTES))
        return [mcp.parse_base_url(str(members["apiUrl"]))]
    except (OSError, ValueError, LookupError, TypeError, Error):  # the agent's own line says what is wrong
        return []


def _mode(path: str) -> str:
    """` 0700`; nothing where the system has no modes, or the file is kept elsewhere."""
    if os.name != "posix" or not os.path.lexists(path):
        return ""
    return f" {stat.S_IMODE(os.lstat(path).st_mode):04o}"


def check_switches() -> Line:
    """What the environment withholds from whoever is started here; a client's entry may withhold more."""
    try:
        found = sikkerkey_switches.switches({})
    except Error as error:
        return failed("switches", error)
    if not found:
        return Line("switches", "ok", "none: every action is offered")
    left = sum(len(tool.actions) for tool in sikkerkey_switches.narrowed(mcp.TOOLS, found))
    every = sum(len(tool.actions) for tool in mcp.TOOLS)
    set_by = "; ".join(" ".join([switch.source, ",".join(switch.names)]).rstrip() for switch in found)
    return Line("switches", "ok", f"{set_by}: {left} of {every} actions are offered")


# ---------------------------------------------------------------------------------------------------------------------
# this computer: the MCP clients
# ---------------------------------------------------------------------------------------------------------------------

INTERPRETER = r"(python(3(\.[0-9]+)?)?|py)(\.exe)?"
FLAGS = ("-I", "-E", "-S", "-s", "-B", "-P", "-u", "-3")  # of Python; none of them takes code or a module
# What a client with the strictest rules hands on, so that an entry which needs more is found out.
HANDED_ON = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("APPDATA", "LOCALAPPDATA", "PATHEXT", "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE"),
)
HANDSHAKE: tuple[JsonObject, ...] = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": mcp.LATEST,
            "capabilities": {},
            "clientInfo": {"name": "sikkerkey-mcp doctor", "version": mcp.VERSION},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list"},
)


def check_clients() -> Iterator[Line]:
    """The entries in the clients' files, and whether those that lead here start."""
    found = clients.found(os.environ)
    if not found:
        detail = f"none of the {len(clients.CLIENTS) - 1} that are known has an entry in its user's file"
        yield Line("clients", "warn", detail, "sikkerkey-mcp config CLIENT --write")
    for job in [Job("client", partial(check_client, entry)) for entry in found]:
        yield from job.lines()


def check_client(entry: clients.Found) -> list[Line]:
    """One entry. What is not an interpreter with this very program is named and never started."""
    where = ", ".join(clean(text) for text in (entry.client, entry.path, entry.key) if text)
    mend = f"sikkerkey-mcp config {entry.client} --write"
    if entry.problem:
        remedy = "mend the file in that program or in an editor"
        return [Line("client", "warn", f"{where}: {clean(entry.problem)}", remedy)]
    reason = _not_ours(entry)
    if reason:
        return [Line("client", "warn", f"{where}: {reason}; it was not started", mend)]
    began_s = time.monotonic()
    count, error = _tools_of(entry)
    if error is not None:
        return [Line("client", "fail", f"{where}: {error}", error.hint or mend)]
    detail = f"{where}: starts in {time.monotonic() - began_s:.1f} s with {count} tools"
    if "-I" not in entry.command:
        return [Line("client", "warn", f"{detail}, but lets other modules stand in for ours: -I is missing", mend)]
    return [Line("client", "ok", detail)]


def _not_ours(entry: clients.Found) -> str:
    """Why an entry is not started: everything in its command must be what `config` would have written."""
    interpreter, *words = entry.command or [""]
    while words and words[0] in FLAGS:
        words.pop(0)
    program, behind = (words[0] if words else ""), words[1:]
    known = re.fullmatch(INTERPRETER, re.split(r"[/\\]", interpreter)[-1])
    if not known or not program or program.startswith("-") or (behind and behind[0] != "serve"):
        return "its command is not Python with this program"
    if any(re.match("LD_|DYLD_|PYTHON", name.upper()) for name in entry.environment):
        return "its environment changes what Python loads"
    python = shutil.which(interpreter)
    if python is None or (os.path.dirname(interpreter) and not os.path.isabs(interpreter)):
        return f"there is no {clean(interpreter)}"
    if os.name == "posix" and not os.path.samefile(python, sys.executable):
        status = os.stat(python)
        if status.st_mode & 0o022 or status.st_uid not in (0, os.getuid()):
            return f"{clean(python)} is another user's, or others can write it"
    return "" if _is_this_program(program) else f"{clean(program)} is not the program that runs here"


def _is_this_program(path: str) -> bool:
    """The same file, or a copy of it."""
    here = mcp.program()[1]
    try:
        return os.path.isabs(path) and (os.path.samefile(path, here) or filecmp.cmp(path, here, shallow=False))
    except OSError:  # not there, or not to be read
        return False


def _tools_of(entry: clients.Found) -> tuple[int, Error | None]:
    """How many tools the entry's server lists, or why it does not."""
    messages = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in HANDSHAKE)
    handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    own = {name: value for name, value in entry.environment.items() if isinstance(value, str)}
    try:
        ended = subprocess.run(
            [shutil.which(entry.command[0]) or "", *entry.command[1:]],  # not by a PATH that the entry may bring
            input=messages.encode(),
            env={**handed_on, **own},
            capture_output=True,
            check=False,
            timeout=CLIENT_MAX_S,
        )
    except subprocess.TimeoutExpired:
        return 0, mcp.ConfigError(f"it does not answer within {CLIENT_MAX_S:.0f} s")
    except (OSError, ValueError) as error:
        return 0, mcp.ConfigError(f"it cannot be started: {getattr(error, 'strerror', '') or type(error).__name__}")
    for line in ended.stdout.splitlines():
        reply = sikkerkey_answers.error_members(mcp.Reply(0, {}, line))
        if reply.get("id") == 2 and isinstance(reply.get("result"), dict):
            return len(reply["result"].get("tools", ())), None
    said = re.search(r"error: (.*)(?:\nhint: (.*))?", ended.stderr.decode("utf-8", "replace"))
    reason, hint = map(clean, said.groups("")) if said else ("and says nothing about it", "")
    return 0, mcp.ConfigError(f"it does not start: {reason}", "" if reason.startswith("there is no agent") else hint)


# ---------------------------------------------------------------------------------------------------------------------
# the way to the vault
# ---------------------------------------------------------------------------------------------------------------------


def check_proxy(base_url: str) -> Line:
    """Which proxy there is for the vault, without its credentials."""
    parts = urllib.parse.urlsplit(base_url)
    try:
        proxy = sikkerkey_wire.proxy_for(base_url)
    except Error as error:
        return failed("proxy", error)
    if proxy:
        password = " with a password" if proxy.headers else ""
        return Line("proxy", "ok", f"{proxy.host}:{proxy.port}{password} (HTTPS_PROXY)")
    if parts.scheme == "http":
        return Line("proxy", "ok", "none: http:// to this computer never takes one")
    excepted = "https" in urllib.request.getproxies()
    return Line("proxy", "ok", f"none for {parts.hostname} (NO_PROXY)" if excepted else "none")


def check_dns(base_url: str) -> list[Line]:
    """Whether the vault's name, or its proxy's, is known."""
    try:
        proxy = sikkerkey_wire.proxy_for(base_url)
    except Error:  # check_proxy says so
        proxy = None
    parts = urllib.parse.urlsplit(base_url)
    host, port = (proxy.host, proxy.port) if proxy else (parts.hostname or "", parts.port or 443)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [Line("dns", "fail", f"{host} cannot be resolved", _network_remedy())]
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return [Line("dns", "ok", f"{host} is {', '.join(addresses[:3])}{', ...' if len(addresses) > 3 else ''}")]


def check_way(base_url: str) -> list[Line]:
    """One unsigned request: TLS, whether the vault answers, and its clock. Burns no nonce and needs no agent."""
    try:
        connection = sikkerkey_wire.opened(sikkerkey_wire.route_to(base_url), mcp.Cancellation())
    except Error as error:
        return [failed("tls", error), _unchecked("api"), _unchecked("clock")]
    except sikkerkey_wire.BROKEN as error:
        return _unreachable(base_url, error)
    try:
        tls = _tls_line(connection.wire)
        begun_s = time.monotonic()
        reply, _ = connection.exchange(mcp.Request("GET", "/", None), {"User-Agent": mcp.USER_AGENT}, mcp.Context())
        took_ms = (time.monotonic() - begun_s) * 1000
        return [tls, Line("api", "ok", f"{base_url} answers, in {took_ms:.0f} ms"), _clock_line(reply.headers)]
    except Error as error:
        return [tls, failed("api", error), _unchecked("clock")]
    except sikkerkey_wire.BROKEN as error:
        unanswered = Line("api", "fail", f"{base_url}: {sikkerkey_wire.reason(error)}", _network_remedy())
        return [tls, unanswered, _unchecked("clock")]
    finally:
        connection.close()


def _unreachable(base_url: str, error: Exception) -> list[Line]:
    """A failure of TLS is the tls line's, any other the api line's."""
    reason = sikkerkey_wire.reason(error)
    if isinstance(error, ssl.SSLError):
        remedy = "where a company's proxy opens TLS, export SIKKERKEY_CA_BUNDLE=FILE with its certificate in PEM"
        line = Line("tls", "fail", f"{base_url}: {reason}; trusted are {_trusted()}", remedy)
        return [line, _unchecked("api"), _unchecked("clock")]
    return [_unchecked("tls"), Line("api", "fail", f"{base_url}: {reason}", _network_remedy()), _unchecked("clock")]


def _network_remedy() -> str:
    address = "sikkerkey-mcp whoami; before there is an agent, SIKKERKEY_API_URL"
    return f"check the network, HTTPS_PROXY, and the vault's address: {address}"


def _unchecked(check: str) -> Line:
    return Line(check, "warn", "not checked: the way to the vault is not open", "first what says fail")


def _trusted() -> str:
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE")
    return f"the certificates in {clean(bundle)} (SIKKERKEY_CA_BUNDLE)" if bundle else "certifi's certificates"


def _tls_line(wire: socket.socket) -> Line:
    if not isinstance(wire, ssl.SSLSocket):
        return Line("tls", "ok", "none: http:// to this computer")
    until_s = ssl.cert_time_to_seconds(str((wire.getpeercert() or {}).get("notAfter")))
    days = int((until_s - time.time()) // DAY_S)
    date = time.strftime("%Y-%m-%d", time.gmtime(until_s))
    detail = f"{wire.version()}, certificate valid until {date} ({days} days), checked against {_trusted()}"
    if days < EXPIRY_WARN_DAYS:
        return Line("tls", "warn", detail, "tell whoever runs the vault: its certificate is about to end")
    return Line("tls", "ok", detail)


def _clock_line(headers: mcp.Headers) -> Line:
    vault_s = mcp.http_date_s(headers.get("date", ""))
    if vault_s is None:
        return Line("clock", "warn", "not checked: the answer bears no date", "compare this computer's clock by hand")
    skew_s = int(time.time()) - vault_s  # both cut to the second, as the answer's date is
    apart = f"{abs(skew_s)} s {'ahead of' if skew_s > 0 else 'behind'}" if skew_s else "the same as"
    detail = f"{apart} the vault's"
    if abs(skew_s) > mcp.CLOCK_SKEW_MAX_S:
        return Line("clock", "fail", f"{detail}: beyond {mcp.CLOCK_SKEW_MAX_S} s it refuses every call", _set_clock())
    return Line("clock", "warn", detail, _set_clock()) if abs(skew_s) > CLOCK_WARN_S else Line("clock", "ok", detail)


def _set_clock() -> str:
    commands = {"darwin": "sudo sntp -sS time.apple.com", "win32": "w32tm /resync"}
    return commands.get(sys.platform, "sudo timedatectl set-ntp true")


# ---------------------------------------------------------------------------------------------------------------------
# the agent at the vault
# ---------------------------------------------------------------------------------------------------------------------


class OneAttempt(mcp.Cancellation):
    """Ends the wait for a second attempt before it begins: a sealed vault has then said so, and in time."""

    def wait(self, seconds: float) -> bool:  # noqa: ARG002 (as in the class above)
        """Cancelled."""
        return True


def check_agent(identity: Identity) -> list[Line]:
    """What the vault says of an agent: its state, its scopes, and which actions those open."""
    who, action = identity.agent_id, mcp.TOOLS[0].actions[0]
    try:
        request = mcp.build_request(action, {})
        context = mcp.Context()
        context.cancellation = OneAttempt()
        reply = mcp.agent_api(identity).send(request, safe=True, context=context)
        if not 200 <= reply.status < 300:
            raise sikkerkey_answers.service_error(action, reply, sikkerkey_answers.cutter([]))
    except Error as error:
        return [Line("vault", "fail", f"{who}: {error}", _state_remedy(error, who))]
    members = sikkerkey_answers.error_members(reply)
    listed = members.get("scopes")
    if not isinstance(listed, list):
        return [Line("vault", "fail", f"{who}: the answer is no vault's", "check apiUrl: sikkerkey-mcp whoami")]
    scopes = sorted(clean(scope, 64) for scope in listed[:SCOPES_MAX] if isinstance(scope, str))
    return [_state_line(who, members), _scopes_line(scopes), *reach(scopes)]


def _state_remedy(error: Error, agent: str) -> str:
    status = error.status if isinstance(error, mcp.ServiceError) else 0
    if status == 401 and "clock" not in error.hint:
        return f"if it was revoked: sikkerkey-mcp revoke {agent}, then install it anew"
    if status == 403:
        return ENABLE if "disabled" in str(error) else APPROVE if "pending" in str(error) else error.hint
    return error.hint


def _state_line(who: str, members: JsonObject) -> Line:
    if members.get("approved") is False:
        return Line("vault", "fail", f"{who} is pending", APPROVE)
    if members.get("enabled") is False:
        return Line("vault", "fail", f"{who} is disabled", ENABLE)
    allowed = members.get("projectAllowlist")
    projects = f"{len(allowed)} projects" if isinstance(allowed, list) else "all projects"
    return Line("vault", "ok", f"{who} is approved and enabled, for {projects}")


def _scopes_line(scopes: list[str]) -> Line:
    wanted = {action.scope for tool in mcp.TOOLS for action in tool.actions if action.scope}
    if wanted <= set(scopes):
        return Line("scopes", "ok", f"all {len(wanted)} that an action needs")
    return Line("scopes", "ok", ", ".join(scopes) or "none")


def reach(scopes: list[str]) -> Iterator[Line]:
    """How many actions of each tool the scopes open, and which scopes are missing for the others."""
    shut = {tool.name: [action for action in tool.actions if action.scope not in (None, *scopes)] for tool in mcp.TOOLS}
    each = (f"{tool.name} {len(tool.actions) - len(shut[tool.name])}/{len(tool.actions)}" for tool in mcp.TOOLS)
    every, closed = sum(len(tool.actions) for tool in mcp.TOOLS), sum(map(len, shut.values()))
    yield Line("tools", "ok", f"{every - closed} of {every} actions: {', '.join(each)}")
    if closed:
        title = "scopes that only the owner can grant, and what waits for them"
        yield Line("missing", "ok", "\n".join([title, *_by_scope(shut)]))


def _by_scope(shut: dict[str, list[mcp.Action]]) -> Iterator[str]:
    """Whole tools first, in one line; then for each scope the actions of tools that are open in part."""
    whole = {tool.name for tool in mcp.TOOLS if len(shut[tool.name]) == len(tool.actions)}
    wanted = {name: sorted({str(action.scope) for action in shut[name]}) for name in shut if name in whole}
    if whole:
        yield "; ".join(f"{', '.join(scopes)}: all of {name}" for name, scopes in wanted.items())
    parts: dict[str, list[str]] = {}
    for name, actions in shut.items():
        for action in actions if name not in whole else ():
            parts.setdefault(str(action.scope), []).append(f"{name}.{action.name}")
    yield from (f"{scope}: {', '.join(names)}" for scope, names in sorted(parts.items()))


# ---------------------------------------------------------------------------------------------------------------------
# all of it
# ---------------------------------------------------------------------------------------------------------------------


class Job:
    """A check on a thread of its own; the thread is left behind if it takes too long."""

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
        except BaseException as error:  # raised again where somebody sees it
            self._bug = error

    def lines(self) -> list[Line]:
        """What it found, after at most NETWORK_MAX_S from its start."""
        self._thread.join(max(0.0, self._until_s - time.monotonic()))
        if self._thread.is_alive():
            return [Line(self._check, "fail", f"no answer within {NETWORK_MAX_S:.0f} s", _network_remedy())]
        if self._bug:
            raise self._bug
        return self._lines


def examine(wanted: str) -> Iterator[Line]:
    """Every line, each as soon as it is known and in an order that can be read."""
    yield check_python()
    yield check_program()
    yield check_library()
    agents = Agents(wanted)
    yield from agents.lines
    yield check_switches()
    yield from check_clients()
    addresses = list(dict.fromkeys(agents.addresses))
    if not addresses:
        try:
            addresses = [mcp.parse_base_url(os.environ.get("SIKKERKEY_API_URL") or mcp.DEFAULT_API_URL)]
        except Error as error:
            yield failed("api", error)
    open_ways: list[str] = []
    jobs = [(Job("dns", partial(check_dns, one)), Job("api", partial(check_way, one))) for one in addresses]
    for address, (dns, way) in zip(addresses, jobs):
        found = [check_proxy(address), *dns.lines(), *way.lines()]
        yield from found
        if not any(line.check == "api" and line.state != "ok" for line in found):
            open_ways.append(address)
    yield from _at_the_vault(agents.usable, open_ways)


def _at_the_vault(usable: list[Identity], open_ways: list[str]) -> Iterator[Line]:
    asked = [Job("vault", partial(check_agent, identity)) for identity in usable if identity.api_url in open_ways]
    for job in asked:
        yield from job.lines()
    if len(asked) < len(usable):
        yield _unchecked("vault")


def command_doctor(options: argparse.Namespace) -> int:
    """Prints a line for each check; 1 if one of them failed."""
    found: list[Line] = []
    lines = examine(options.agent)
    while True:
        with terminal.Progress("checking"):
            line = next(lines, None)
        if line is None:
            break
        found.append(line._replace(detail=terminal.cleaned(line.detail), remedy=_pasteable(line.remedy)))
        if not options.json:
            print(_for_people(found[-1]), flush=True)
    if options.json:
        print(json.dumps([line._asdict() for line in found], indent=2))
    else:
        print(_summary(found))
    return 1 if any(line.state == "fail" for line in found) else 0


def _pasteable(remedy: str) -> str:
    """With this program as it was started in the place of its name, where a command of it is meant."""
    started = shlex.join(mcp.program())
    ours = rf"(?<![\w./-])sikkerkey-mcp (?=({'|'.join(cli.EXAMPLES)})\b)"
    return terminal.cleaned(re.sub(ours, lambda _: f"{started} ", remedy))


def _for_people(line: Line) -> str:
    """`ok    python      CPython 3.11.7`, further lines below, and `mend:` before what mends it."""
    indent = 6 + LABEL_WIDTH + 2
    begin = terminal.coloured(line.state) + " " * (6 - len(line.state)) + line.check.ljust(LABEL_WIDTH + 2)
    parts = [terminal.wrapped(part, indent) for part in line.detail.split("\n")]
    parts += [f"mend: {line.remedy}"] if line.remedy else []  # in one piece, to be pasted
    return begin + ("\n" + " " * indent).join(parts)


def _summary(lines: list[Line]) -> str:
    states = Counter(line.state for line in lines)
    return f"{states['ok']} ok, {states['warn']} warn, {states['fail']} fail"
