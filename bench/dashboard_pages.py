"""Measures the dashboard's pages in process: `python -m bench.dashboard_pages [--secrets 10000] [--entries 100000]`.

A new vault in a temporary directory gets secrets in one project, a tenth as many machines, and audit entries. Each page
is asked for several times through the application, without a network. Prints a Markdown table of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from tests.vault.support.filled_vault import fill, ordinary, pages_to_see
from vault import audit
from vault.app import create_app
from vault.dashboard.sessions import Sessions
from vault.dashboard.web import COOKIE, HOME
from vault.desk import Desk
from vault.domains import machines
from vault.domains.secrets import insert
from vault.router import Actor, wall_clock
from vault.schema import open_store

ROUNDS = 9
HOST = "127.0.0.1"
ELSEWHERE = "192.0.2.1"  # of programs on this computer, the vault asks whose they are
DAY_MS = 86_400_000


def main() -> None:
    """Fill a vault, ask for every page, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_store(Path(directory) / "vault") as store:
        sessions = Sessions(wall_clock)
        desk = Desk(store, webhooks_to_loopback=True)
        ids = fill(desk, ordinary)
        _add(desk, ids, arguments.secrets, arguments.entries)
        app = create_app(store, webhooks_to_loopback=True, sessions=sessions)
        cookie = sessions.sign_in(sessions.mint_link())
        print(f"{arguments.secrets:,} secrets, {arguments.entries:,} audit entries\n")
        print("| page | median, ms | processor, ms | size, kB |\n|---|---|---|---|")
        for path in pages_to_see(ids):
            print(asyncio.run(_measure(app, path, f"{COOKIE}={cookie}")))


def _add(desk: Desk, ids: dict[str, str], secrets: int, entries: int) -> None:
    """The names differ, as they do in a real vault. Times are spread over a month."""
    now_ms = desk.clock()
    with desk.transaction() as db:
        for number in range(secrets):
            call = desk.as_call(db, body={"name": f"SERVICE_{number}_KEY"})
            insert(call, ids["project"], "of no use", None)
        for number in range(secrets // 10):
            raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
            known = {"kind": "standard", "hostname": f"host-{number}", "public_key": raw}
            machine_id = machines.register(db, now_ms, f"machine-{number}", **known)  # type: ignore[arg-type]
            db.execute("UPDATE machines SET approved_ms = ? WHERE id = ?", (now_ms, machine_id))
        db.execute("DELETE FROM alert_actions")  # each alert would look through all others
        machine = Actor("machine", ids["machine"], "192.0.2.7")
        for number in range(entries):
            at_ms = now_ms - 30 * DAY_MS + 30 * DAY_MS * number // entries
            action = "secret_read" if number % 50 else "secret_read_denied"
            audit.record(db, at_ms, machine, action, "v2", secret_id=ids["secret"], project_id=ids["project"])


async def _measure(app: ASGIApp, path: str, cookie: str) -> str:
    taken_s, used_s, size = [], [], 0
    for _ in range(ROUNDS):
        start_s, start_used_s = time.perf_counter(), time.process_time()
        status, size = await _get(app, HOME + path, cookie)
        taken_s.append(time.perf_counter() - start_s)
        used_s.append(time.process_time() - start_used_s)
        if status != 200:
            return f"| `{path or '/'}` | status {status} | | |"
    taken_ms, used_ms = statistics.median(taken_s) * 1000, statistics.median(used_s) * 1000
    return f"| `{path or '/'}` | {taken_ms:.1f} | {used_ms:.1f} | {size / 1000:.0f} |"


async def _get(app: ASGIApp, path: str, cookie: str) -> tuple[int, int]:
    """The status and the size of a page."""
    headers = [(b"host", HOST.encode()), (b"cookie", cookie.encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "server": (HOST, 80),
        "client": (ELSEWHERE, 1),
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sum(len(message.get("body", b"")) for message in sent[1:])


if __name__ == "__main__":
    main()
