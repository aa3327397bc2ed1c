"""Where faults are simulated: one server process, and the vault and the proxy that it connects to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.support import fast_server, faulty_vault
from tests.support.faulty_vault import Authority, ConnectProxy, FaultyVault
from tests.support.harness import TIMEOUT_S, ReceivedRequest, make_slot, open_descriptors
from tests.support.schema_check import CheckedServer

Effect = Literal["read", "write"]
Kind = Literal["http", "https", "proxy"]
SLOW_SPEED = 30.0  # for rows that run into a time limit: an exchange may take 1 s, a connection 0.33 s


class Measured(NamedTuple):
    """One call: its result, and what the vault saw of it."""

    result: Any
    warnings: list[str]  # one for each pause between attempts
    requests: list[ReceivedRequest]
    largest_answer_bytes: int  # the most that the vault could write on one connection

    @property
    def text(self) -> str:
        """The text that the model reads."""
        text: str = self.result["content"][0]["text"]
        return text

    @property
    def pauses_s(self) -> list[float]:
        """The pauses that the client was notified of."""
        return [float(warning.rpartition(" in ")[2][:-2]) for warning in self.warnings]


class Stage:
    """A server process for many faults, one after the other. `reset` removes the current fault."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, kind: Kind) -> None:
        directory.mkdir(mode=0o700)
        self.authority = Authority(directory)
        self.stack = stack
        self._host = "localhost" if kind == "http" else "vault.test"
        self._good = None if kind == "http" else self.authority.server(self._host)
        self.vault = stack.enter_context(FaultyVault(tls=self._good, host=self._host))
        self.proxy = stack.enter_context(ConnectProxy(self.vault.port))
        self._names, self._speed = directory / "names", directory / "speed"
        self.reset()
        self.key = make_slot(directory, self.vault.url)
        self.server = stack.enter_context(CheckedServer(fast_server.COMMAND, env=self._environment(kind)))
        self.server.initialize()
        self._written = 0

    def _environment(self, kind: Kind) -> dict[str, str]:
        env = {
            **os.environ,
            "HOME": str(self._names.parent),
            "TEST_NAMES": str(self._names),
            "TEST_SPEED_FILE": str(self._speed),
            "SIKKERKEY_CA_BUNDLE": str(self.authority.bundle),
        }
        proxy = {"HTTPS_PROXY": f"http://agent:magpie@proxy.test:{self.proxy.port}"} if kind == "proxy" else {}
        return {**env, **proxy}

    def reset(self) -> None:
        """Restores vault, names, certificate, proxy and time limits."""
        self.vault.acts[:] = [faulty_vault.answer()]
        self.vault.greet, self.vault.body_too, self.vault.tls = None, True, self._good
        self.proxy.instead = None
        self.set_speed(1.0)
        self.resolve(self._host, self.vault.port)

    def set_speed(self, speed: float, kept_speed: float = 1.0) -> None:
        """Divides the time limits of the following calls by `speed`, that of a kept connection by `kept_speed`."""
        _replace_text(self._speed, f"{speed} {kept_speed}")

    def resolve(self, name: str, port: int) -> None:
        """Makes `name` resolve to `port` of this machine for new connections; port 0 makes it unresolvable."""
        targets = {self._host: self.vault.port, "proxy.test": self.proxy.port, name: port}
        _replace_text(self._names, "".join(f"{host} 127.0.0.1 {to}\n" for host, to in targets.items() if to))

    def disconnect(self) -> None:
        """Closes the connections that were kept for the next call."""
        self.proxy.drop()
        self.vault.drop()

    def call(self, effect: Effect) -> Measured:
        """Makes one call and collects what the vault saw of it."""
        seen, wires = len(self.vault.seen), len(self.vault.wires)
        before = [wire.sent for wire in self.vault.wires]
        result, warnings = self._call(effect)
        written = [wire.sent - earlier for wire, earlier in zip(self.vault.wires, before)]
        written += [wire.sent for wire in self.vault.wires[wires:]]
        return Measured(result, warnings, self.vault.seen[seen:], max(written, default=0))

    def _call(self, effect: Effect) -> tuple[Any, list[str]]:
        self._written += 1
        write = {"name": "manage_projects", "arguments": {"action": "create", "name": f"number {self._written}"}}
        read = {"name": "read_audit", "arguments": {"action": "stats"}}
        asked = self.server.start("tools/call", **(write if effect == "write" else read))
        warnings: list[str] = []
        while (message := self.server.read(2 * TIMEOUT_S)).get("id") != asked:
            warnings.append(message["params"]["data"])
        return message["result"], warnings

    def thread_count(self) -> int:
        """The threads of the server process, on Linux."""
        return len(list(Path(f"/proc/{self.server.process.pid}/task").iterdir()))

    def open_files(self) -> int:
        """The open descriptors of the server process, on Linux."""
        return open_descriptors(self.server.process.pid)


def _replace_text(path: Path, text: str) -> None:
    """Writes the file atomically: the server process may be reading it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
