"""`make test-network`: dead addresses, a changed network, a dead resolver and proxies, in network namespaces of Linux.

The server runs in one namespace and a faulty vault in another one, with a cable between them that nobody else uses. A
second cable leads nowhere: addresses on it never answer. This needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.faulty_vault import Authority, ConnectProxy, FaultyVault, Listener
from tests.support.harness import ROOT, Server, make_slot

# A name for each case, and its addresses in the order in which the resolver returns them.
VAULT_4, VAULT_6, DEAD_4, DEAD_6 = "10.9.0.1", "2001:db8:9::1", "10.9.9.9", "2001:db8:99::9"
DEAD = ("10.9.9.", "2001:db8:99:")
NAMES = {
    "both.test": (VAULT_6, VAULT_4),
    "dead6.test": (DEAD_6, VAULT_4),
    "dead4.test": (VAULT_6, DEAD_4),
    "many.test": (DEAD_6, "2001:db8:99::8", "2001:db8:99::7", VAULT_4),
    "dead.test": (DEAD_6, DEAD_4),
}
CALL_MAX_S = 60.0


def run(*words: str) -> None:
    """Runs a command. Raises CalledProcessError."""
    subprocess.run(words, check=True)


# the other side


def listen_everywhere(listener: Listener) -> None:
    """Listens on all addresses of the namespace instead of loopback."""
    vars(listener)["_listening"].close()
    everywhere = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    vars(listener)["_listening"], listener.port = everywhere, everywhere.getsockname()[1]


def be_the_vault(directory: str) -> None:
    """Prints its ports, and for each line on stdin the requests so far."""
    run("ip", "link", "set", "lo", "up")
    vault = FaultyVault(tls=Authority(Path(directory)).server(*NAMES), host="both.test")
    listen_everywhere(vault)
    proxy = ConnectProxy(vault.port)
    listen_everywhere(proxy)
    with vault, proxy:
        print(json.dumps([vault.port, proxy.port]), flush=True)
        for _line in sys.stdin:
            print(json.dumps([f"{one.method} {one.path} {one.body.decode()}" for one in vault.seen]), flush=True)


class Vault:
    """The vault's process, in a namespace of its own."""

    def __init__(self, directory: Path) -> None:
        command = ["unshare", "--net", sys.executable, "-m", "tools.network", "vault", str(directory)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        self.port, self.proxy_port = self._read()
        self.pid = self._process.pid  # unshare has become the program

    def _read(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def seen(self) -> list[str]:
        """The requests so far, as method, path and body."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[str] = self._read()
        return found

    def close(self) -> None:
        """Ends the process, and with it the namespace."""
        self._process.kill()
        self._process.wait()


def connect_namespaces(vault: Vault, directory: Path) -> None:
    """Lays the two cables and makes the names known."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "client", "type", "veth", "peer", "name", "vault", "netns", str(vault.pid))
    there = ("nsenter", "--net", "--target", str(vault.pid), "ip")
    for ip, link, four, six in [
        (there, "vault", f"{VAULT_4}/24", f"{VAULT_6}/64"),
        (("ip",), "client", "10.9.0.2/24", "2001:db8:9::2/64"),
    ]:
        run(*ip, "address", "add", four, "dev", link)
        run(*ip, "address", "add", six, "dev", link, "nodad")
        run(*ip, "link", "set", link, "up")
    run("ip", "link", "add", "dead", "type", "veth", "peer", "name", "nowhere", "netns", str(vault.pid))
    run("ip", "address", "add", "10.9.9.1/24", "dev", "dead")
    run("ip", "address", "add", "2001:db8:99::1/64", "dev", "dead", "nodad")
    run("ip", "link", "set", "dead", "up")
    run(*there, "link", "set", "nowhere", "up")
    for address in {address for addresses in NAMES.values() for address in addresses if address.startswith(DEAD)}:
        # Otherwise the system notices after three seconds that nobody has the address.
        run("ip", "neighbour", "add", address, "lladdr", "02:00:00:00:00:09", "nud", "permanent", "dev", "dead")
    hosts, resolver = directory / "hosts", directory / "resolv.conf"
    hosts.write_text("".join(f"{address} {name}\n" for name, addresses in NAMES.items() for address in addresses))
    resolver.write_text(f"nameserver {DEAD_4}\n")
    run("mount", "--bind", str(hosts), "/etc/hosts")
    run("mount", "--bind", str(resolver), "/etc/resolv.conf")


def change_network() -> None:
    """Like another Wi-Fi: the old address is gone, and what is sent to it is lost."""
    run("ip", "address", "del", "10.9.0.2/24", "dev", "client")
    run("ip", "address", "add", "10.9.0.3/24", "dev", "client")
    run("ip", "address", "del", "2001:db8:9::2/64", "dev", "client")
    run("ip", "address", "add", "2001:db8:9::3/64", "dev", "client", "nodad")


def restore_network() -> None:
    """The first address again."""
    run("ip", "address", "flush", "dev", "client")
    run("ip", "address", "add", "10.9.0.2/24", "dev", "client")
    run("ip", "address", "add", "2001:db8:9::2/64", "dev", "client", "nodad")


# this side


class Trial:
    """A server whose vault has one of NAMES."""

    def __init__(self, program: str, directory: Path, vault: Vault) -> None:
        self._program, self._directory, self._vault = program, directory, vault

    def environment(self, name: str, **variables: str) -> dict[str, str]:
        """A home with an agent of the vault at `name`."""
        home = self._directory / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        make_slot(home, f"https://{name}:{self._vault.port}")
        bundle = str(self._directory / "authority.pem")
        return {"HOME": str(home), "PATH": os.environ["PATH"], "SIKKERKEY_CA_BUNDLE": bundle, **variables}

    @contextmanager
    def server(self, name: str, **variables: str) -> Iterator[Callable[..., tuple[float, str]]]:
        """A function that makes a call; it returns the seconds that it took and its text."""
        with Server((sys.executable, "-I", self._program), env=self.environment(name, **variables)) as server:
            server.initialize()

            def call(tool: str = "whoami", **arguments: str) -> tuple[float, str]:
                started_s = time.monotonic()
                asked = server.start("tools/call", name=tool, arguments=arguments)
                while (message := server.read(CALL_MAX_S)).get("id") != asked:
                    continue
                text: str = message["result"]["content"][0]["text"]
                return time.monotonic() - started_s, text

            yield call

    def doctor(self, name: str) -> tuple[float, str]:
        """The seconds that `doctor` takes, and what it says about names and addresses."""
        started_s = time.monotonic()
        command = [sys.executable, "-I", self._program, "doctor", "--json"]
        ended = subprocess.run(command, env=self.environment(name), stdout=subprocess.PIPE, check=False)
        lines = json.loads(ended.stdout)
        text = "; ".join(f"{line['state']}: {line['detail']}" for line in lines if line["check"] in ("dns", "api"))
        return time.monotonic() - started_s, text


def report(what: str, measured: tuple[float, str], expected: str, at_most_s: float) -> bool:
    """Prints one line; whether the text contains what was expected, in time."""
    seconds, text = measured
    good = expected in text and seconds <= at_most_s
    shown = " ".join(text.split())[:150]
    print(f"{'ok  ' if good else 'FAIL'} {seconds:5.1f} s of {at_most_s:4.1f}  {what}: {shown}", flush=True)
    return good


def try_all(trial: Trial, vault: Vault) -> Iterator[bool]:
    """Each case; True if it went as it should."""
    for name in ("both.test", "dead6.test", "dead4.test", "many.test"):
        with trial.server(name) as call:
            yield report(f"first call, {name}", call(), "{}", 3.0)
            yield report(f"second call, {name}", call(), "{}", 1.0)
    with trial.server("dead.test") as call:
        yield report("no address answers", call(), "did not answer in time", 25.0)
    with trial.server("unknown.test") as call:
        yield report("the resolver does not answer", call(), "cannot be reached", 25.0)
    for name in ("dead6.test", "dead4.test"):
        proxy = f"http://{name}:{vault.proxy_port}"
        with trial.server("both.test", HTTPS_PROXY=proxy) as call:
            yield report(f"through the proxy {name}", call(), "{}", 3.0)
    yield from try_another_network(trial, vault)
    yield report("doctor, dead6.test", trial.doctor("dead6.test"), "IPv6 is dead: ", 15.0)
    yield report("doctor, dead4.test", trial.doctor("dead4.test"), "IPv4 is dead: ", 15.0)
    yield report("doctor, dead.test", trial.doctor("dead.test"), "fail", 15.0)
    run("ip", "link", "set", "client", "down")
    with trial.server("both.test") as call:
        yield report("no network", call(), "cannot be reached", 25.0)


def try_another_network(trial: Trial, vault: Vault) -> Iterator[bool]:
    """The connection that was kept is dead, and nothing says so."""
    with trial.server("both.test") as call:
        call()
        change_network()
        yield report("read after the network has changed", call(), "{}", 10.0)
        before = vault.seen()
        restore_network()
        write = call("manage_projects", action="create", name="a")
        yield report("write after the network has changed", write, "may have been processed", 15.0)
        again = call("manage_projects", action="create", name="b")
        yield report("the next write", again, "{}", 3.0)
        writes = [one for one in vault.seen()[len(before) :] if one.startswith("POST")]
        most = max(map(writes.count, writes))
        yield report("each write arrives at most once", (0.0, f"{most} time"), "1 time", 0.0)


def main(arguments: list[str]) -> int:
    """The status: 1 if a case failed. `arguments` may name another program to try."""
    if arguments[:1] == ["vault"]:
        be_the_vault(arguments[1])
        return 0
    if arguments[:1] != ["inside"]:
        inside = ["unshare", "--net", "--mount", sys.executable, "-m", "tools.network", "inside", *arguments]
        return subprocess.run(inside, check=False, cwd=ROOT).returncode
    program = arguments[1] if len(arguments) > 1 else str(ROOT / "sikkerkey_cli" / "__main__.py")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        vault = Vault(directory)
        try:
            connect_namespaces(vault, directory)
            return 0 if all(list(try_all(Trial(program, directory, vault), vault))) else 1
        finally:
            vault.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
