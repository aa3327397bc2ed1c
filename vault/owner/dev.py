"""`dev`: a vault for a trial, with an agent for this user's assistant and a demo project, in one command.

Without --dir, the vault and the agent's identity are in a temporary directory that is deleted at the end. If the
process is killed, the private directory remains; it grants nothing, because nothing serves it. With --dir, the vault
stays there and the agent is installed in the user's own home, so the same command starts both again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from vault import control, server
from vault.app import create_app
from vault.desk import Desk
from vault.domains import agents
from vault.errors import Refusal, VaultError
from vault.files import create_private, private_directory, quoted, read_private
from vault.inputs import parse_object
from vault.owner import browser, demo
from vault.owner.console import Output
from vault.place import command_line
from vault.store import Store
from vault.terminal import PROGRAM, printable

MCP = "sikkerkey-mcp.pyz"
PORT = 8300  # if it is free
AGENT_NAME = "demo agent"
INSTALL_TIMEOUT_S = 60.0
STATE = "dev.json"


class Trial(NamedTuple):
    """Where everything is. A home of None is the user's own. Ports and `agent_id` are those of an earlier start."""

    directory: Path
    home: Path | None
    mcp: Path
    port: int = 0
    tls_port: int = 0
    agent_id: str = ""

    @property
    def is_temporary(self) -> bool:
        return self.home is not None

    def variables(self) -> dict[str, str]:
        """The variables that the agent's program needs to find the agent."""
        home = os.environ.get("SIKKERKEY_HOME") if self.home is None else str(self.home)
        return {} if home is None else {"SIKKERKEY_HOME": home}

    def client_line(self, *words: str) -> str:
        """A command of the agent's program, to be pasted into a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables().items()]
        return " ".join([*variables, _interpreter(), shlex.join([str(self.mcp), *words])])


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C. `options.dir` is None for a temporary vault. Raises VaultError."""
    mcp = _find_mcp(options.mcp)
    _end_cleanly()
    with _trial(options.dir, mcp) as trial:
        starting = _Starting(trial, as_json=options.json, opens=not options.no_browser)
        port = _port(trial, options.port)
        listening = server.ListenOptions(port=port, tls_port=trial.tls_port, webhooks_to_loopback=True)
        try:
            server.serve(trial.directory, listening, None, announce=starting)
        except server.PortError as error:
            raise _port_error(trial, error) from None
        starting.finish()
    _say_goodbye(trial)


class _Starting:
    """Prepares the vault in a thread, once the server accepts connections. Ends the server if that fails."""

    def __init__(self, trial: Trial, *, as_json: bool, opens: bool) -> None:
        self._trial, self._as_json, self._opens = trial, as_json, opens
        self._thread: threading.Thread | None = None
        self._installing: subprocess.Popen[str] | None = None
        self._failure: VaultError | None = None
        self._ends = False

    def __call__(self, store: Store, url: str) -> None:
        self._thread = threading.Thread(target=self._run, args=(store, url), name="dev")
        self._thread.start()

    def finish(self) -> None:
        """Wait for the thread. Raises VaultError if it failed."""
        self._ends = True
        if self._installing is not None:
            self._installing.terminate()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, store: Store, url: str) -> None:
        try:
            self._prepare(store, url)
        except (VaultError, Refusal, OSError) as error:
            if not self._ends:
                self._failure = _as_vault_error(error)
            os.kill(os.getpid(), signal.SIGTERM)  # the server ends, and so does the command

    def _prepare(self, store: Store, url: str) -> None:
        trial = self._trial
        if not trial.agent_id:
            desk = Desk(store, base_url=url, webhooks_to_loopback=True)
            with desk.transaction() as db:
                token = agents.issue_token(db, desk.clock(), agents.SCOPES, None, AGENT_NAME)
            with ThreadPoolExecutor(1) as beside:
                filled = beside.submit(demo.fill, desk, create_app(store))
                agent_url = (control.ask(trial.directory, "status") or {})["agentUrl"]
                self._install(token, agent_url)
                filled.result()
            trial = trial._replace(agent_id=_approve(desk))
            if not trial.is_temporary:
                _remember(trial, url, agent_url)
        _announce(trial, url, self._link()).show(as_json=self._as_json)

    def _link(self) -> str | None:
        """The dashboard's one-time link, or None if it was opened."""
        answer = control.ask(self._trial.directory, "dashboard") or {}
        link: str | None = answer.get("dashboardUrl")
        if link and self._opens and browser.can_open() and browser.open_link(link, self._trial.directory):
            return None
        return link

    def _install(self, token: str, agent_url: str) -> None:
        """Run the `install` of the agent's program. The token goes through standard input. Raises VaultError.

        The address has the fingerprint of the vault's certificate.
        """
        command = [sys.executable, "-I", str(self._trial.mcp), "install", "-"]
        environment = {**os.environ, **self._trial.variables(), "SIKKERKEY_API_URL": agent_url}
        pipe = subprocess.PIPE
        # In a session of its own: Ctrl-C ends the server first, which then ends this quietly.
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
        ) as installing:
            self._installing = installing
            try:
                _, errors = installing.communicate(token, timeout=INSTALL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                installing.kill()
                raise VaultError(f"{MCP} did not install the agent in time", "try again") from None
        if installing.returncode != 0:
            reason = printable(" ".join(errors.split()))[:300]
            raise VaultError(f"{MCP} could not install the agent: {reason}", "name another one with --mcp")


# ---- where -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _trial(directory: Path | None, mcp: Path) -> Iterator[Trial]:
    if directory is not None:
        yield _kept(directory, mcp)
        return
    with tempfile.TemporaryDirectory(prefix="sikkerkey-dev-") as made:  # mode 0700
        yield Trial(Path(made).resolve() / "vault", Path(made).resolve() / "home", mcp)


def _kept(directory: Path, mcp: Path) -> Trial:
    """A directory of an earlier start, or an empty one. Raises VaultError."""
    private_directory(directory)
    state = directory / STATE
    if os.path.lexists(state):
        try:
            known = parse_object(read_private(state).decode())
            return Trial(directory, None, mcp, int(known["port"]), int(known["tlsPort"]), str(known["agentId"]))
        except (ValueError, KeyError):
            raise VaultError(f"file {quoted(state)} is damaged", "name a new directory with --dir") from None
    if any(directory.iterdir()):
        serving = command_line(directory, "serve")
        raise VaultError(
            f"directory {quoted(directory)} is not empty, and dev did not finish there",
            f"name a new one with --dir; to serve a vault: {serving}",
        )
    return Trial(directory, None, mcp)


def _remember(trial: Trial, url: str, agent_url: str) -> None:
    ports = {"port": urlsplit(url).port, "tlsPort": urlsplit(agent_url).port}
    known = {**ports, "agentId": trial.agent_id}
    create_private(trial.directory / STATE, json.dumps(known).encode() + b"\n")


def _port(trial: Trial, wanted: int | None) -> int:
    """The port to listen on. An installed agent knows its vault's URL, so an earlier start decides."""
    if trial.port:
        if wanted not in (None, trial.port):
            raise VaultError(f"the agent of this vault is set up for port {trial.port}", "omit --port")
        return trial.port
    if wanted is not None:
        return wanted
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", PORT))
        return PORT
    return 0


def _port_error(trial: Trial, error: server.PortError) -> server.PortError:
    if not trial.port:
        return error
    return server.PortError(
        str(error),
        "the agent of this vault connects to that port: stop what uses it, or name a new directory with --dir",
    )


def _find_mcp(named: Path | None) -> Path:
    """The agent's program: the one that is named, or beside this one. Raises VaultError."""
    if named is not None:
        if not named.is_file():
            raise VaultError(f"there is no file {quoted(named)}", f"name {MCP} with --mcp")
        return named.absolute()
    is_archive = "sikkerkey_launch" in sys.modules
    here = Path(sys.argv[0]).absolute().parent if is_archive else Path(__file__).resolve().parents[2]
    for path in (here / MCP, here / "dist" / MCP):
        if path.is_file():
            return path
    raise VaultError(f"{MCP} is not beside this program", "put it there, or name it with --mcp PATH")


def _interpreter() -> str:
    """The interpreter as the user's shell finds it, or its path."""
    name = os.path.basename(sys.executable)
    return name if shutil.which(name) == sys.executable else shlex.quote(sys.executable)


# ---- what is printed -------------------------------------------------------------------------------------------------


def _announce(trial: Trial, url: str, link: str | None) -> Output:
    agent = [] if trial.is_temporary else ["--agent", trial.agent_id]
    lines = [
        trial.client_line("config", client, *agent, *more)
        for client, *more in (("claude-code", "--write"), ("generic",))
    ]
    data = {
        "url": url,
        "dashboardUrl": link,
        "directory": str(trial.directory),
        "home": None if trial.home is None else str(trial.home),
        "agentId": trial.agent_id,
        "commands": lines,
    }
    ending = "stops the vault and deletes it" if trial.is_temporary else "stops the vault"
    text = [
        f"A trial vault is running at {url}.",
        f"  agent      {AGENT_NAME} ({trial.agent_id}), approved, with every scope",
        f"  project    {demo.PROJECT}, with secrets, a policy, a canary and a machine that has read secrets",
        f"  dashboard  {f'{link}  (works once)' if link else 'opened in your browser'}",
        f"             reopen: {command_line(trial.directory, 'dashboard')}",
        f"  commands   {command_line(trial.directory, 'projects')}",
        "",
        "To connect an assistant, run one of these in another terminal:",
        f"  {lines[0]}",
        f"  {lines[1]}",
        "The first is for Claude Code; the second prints the block for any other client.",
        f'Then restart the client, and ask: "Which secrets does {demo.PROJECT} have, and which machine may read them?"',
        "",
        f"Ctrl-C {ending}.",
    ]
    return Output(data, "\n".join(text))


def _say_goodbye(trial: Trial) -> None:
    if trial.is_temporary:
        removing = trial._replace(home=None).client_line("config", "claude-code", "--remove")
        words = [
            f"the vault and its agent are deleted; to keep them next time: {PROGRAM} dev --dir my-vault",
            f"if you added the agent to a client, remove it there: {removing}",
        ]
    else:
        words = [f"the vault is stopped; to start it again: {command_line(trial.directory, 'dev')}"]
    for line in words:
        print(f"hint: {line}", file=sys.stderr)


def _approve(desk: Desk) -> str:
    """Approve the agent that was just installed, the only one of this vault, and return its id."""
    with desk.transaction() as db:
        agent_id = str(agents.overview(db)[-1]["agentId"])
        agents.approve_as_owner(db, desk.clock(), agent_id)
    return agent_id


def _end_cleanly() -> None:
    """Delete the temporary directory also after SIGTERM, before the server handles it, and after SIGHUP."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _as_vault_error(error: Exception) -> VaultError:
    if isinstance(error, VaultError):
        return error
    reason = (error.strerror or "no reason").lower() if isinstance(error, OSError) else str(error)
    return VaultError(f"the trial could not be set up: {reason}", "try again")
