"""Where faults are played: one server process, the vault and the proxy that it talks to, and what a call met there."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.support import fast_server, faulty_vault
from tests.support.faulty_vault import Authority, ConnectProxy, FaultyVault
from tests.support.harness import TIMEOUT_S, ReceivedRequest, make_slot
from tests.support.schema_check import CheckedServer

Effect = Literal["read", "write"]
Kind = Literal["http", "https", "proxy"]
SLOW_SPEED = 40.0  # an exchange may take 0.75 s, a connection 0.25 s


class Measured(NamedTuple):
    """What one call came to."""

    result: Any
    warnings: list[str]  # one for each pause between attempts
    requests: list[ReceivedRequest]  # that arrived meanwhile
    took_s: float
    grown_kib: int  # from before the call to its peak; 0 where the system does not tell

    @property
    def text(self) -> str:
        """What the model reads."""
        text: str = self.result["content"][0]["text"]
        return text

    @property
    def pauses_s(self) -> list[float]:
        """How long the pauses were, as the client was told."""
        return [float(warning.rpartition(" in ")[2][:-2]) for warning in self.warnings]


class Stage:
    """A server process for many faults, in turn. After `mend` all is well again, whatever was out of order."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, kind: Kind, *, slow: bool) -> None:
        directory.mkdir(mode=0o700)
        self.authority = Authority(directory)
        self.stack = stack
        self._host = "localhost" if kind == "http" else "vault.test"
        self._good = None if kind == "http" else self.authority.server(self._host)
        self.vault = stack.enter_context(FaultyVault(tls=self._good, host=self._host))
        self.proxy = stack.enter_context(ConnectProxy(self.vault.port))
        self._names = directory / "names"
        self.mend()
        self.key = make_slot(directory, self.vault.url)
        self.server = stack.enter_context(CheckedServer(fast_server.COMMAND, env=self._environment(kind, slow=slow)))
        self.server.initialize()
        self._written = 0

    def _environment(self, kind: Kind, *, slow: bool) -> dict[str, str]:
        env = {
            **os.environ,
            "HOME": str(self._names.parent),
            "TEST_NAMES": str(self._names),
            "TEST_SPEED": str(SLOW_SPEED if slow else 1.0),
            "SIKKERKEY_CA_BUNDLE": str(self.authority.bundle),
        }
        proxy = {"HTTPS_PROXY": f"http://agent:magpie@proxy.test:{self.proxy.port}"} if kind == "proxy" else {}
        return {**env, **proxy}

    def mend(self) -> None:
        """Vault, names, certificate and proxy are in order from here on."""
        self.vault.acts[:] = [faulty_vault.answer()]
        self.vault.greet, self.vault.body_too, self.vault.tls = None, True, self._good
        self.proxy.instead = None
        self.lead(self._host, self.vault.port)

    def lead(self, name: str, port: int) -> None:
        """From the next connection on, `name` leads to `port` of this machine; nowhere at all, if that is 0."""
        targets = {self._host: self.vault.port, "proxy.test": self.proxy.port, name: port}
        lines = [f"{host} 127.0.0.1 {to}\n" for host, to in targets.items() if to]
        self._names.with_suffix(".new").write_text("".join(lines))
        self._names.with_suffix(".new").replace(self._names)

    def disconnect(self) -> None:
        """Ends the connections that were kept for the next call; the process's side knows at once."""
        self.proxy.drop()
        self.vault.drop()

    def call(self, effect: Effect) -> Measured:
        """One call and all that came of it."""
        before, before_kib = len(self.vault.seen), self._memory_kib("VmRSS")
        with contextlib.suppress(OSError):
            self._proc("clear_refs").write_text("5")  # from here on, VmHWM is the peak since here
        begun_s = time.monotonic()
        result, warnings = self._call(effect)
        took_s = time.monotonic() - begun_s
        grown_kib = self._memory_kib("VmHWM") - before_kib
        return Measured(result, warnings, self.vault.seen[before:], took_s, grown_kib)

    def _call(self, effect: Effect) -> tuple[Any, list[str]]:
        self._written += 1
        write = {"name": "manage_projects", "arguments": {"action": "create", "name": f"number {self._written}"}}
        asked = self.server.start("tools/call", **(write if effect == "write" else {"name": "whoami"}))
        warnings: list[str] = []
        while (message := self.server.read(2 * TIMEOUT_S)).get("id") != asked:
            warnings.append(message["params"]["data"])
        return message["result"], warnings

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.server.process.pid}") / name

    def _memory_kib(self, name: str) -> int:
        return self.number(name) if self._proc("status").exists() else 0

    def number(self, name: str) -> int:
        """A number that Linux tells of the process: Threads, VmRSS, ..."""
        return int(self._proc("status").read_text().split(f"{name}:")[1].split()[0])

    def open_files(self) -> int:
        """How many descriptors the process has open, on Linux."""
        return len(list(self._proc("fd").iterdir()))
