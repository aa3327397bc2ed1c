"""`make record-requests`: plays the 25 requests with the built archive and records their cost in docs/requests.json.

With --before (`make record-requests REQUESTS_BEFORE=1`) it also builds the archive of an earlier commit in a temporary
directory and plays the calls of that time with it. Without the option, the recorded figures of that commit stay.

Each archive gets a new vault with the same content. It runs in this process, on loopback, without background jobs. Each
request must have its effect: the vault's database is checked after it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from tests.support.harness import ARCHIVE, Server
from tests.vault.support.served_vault import SharedServer
from tools.before import BEFORE, build_before
from tools.examples import ROOT
from tools.user_requests.data import World
from tools.user_requests.play import Play
from tools.user_requests.script import REQUESTS
from vault.app import create_app
from vault.domains import agents
from vault.router import wall_clock
from vault.schema import open_store
from vault.store import Store

RECORDED = ROOT / "docs" / "requests.json"
STEP_MAX_S = 300.0

Era = Literal["before", "after"]
Cost = dict[str, int]  # calls and characters


def play_all(archive: Path, era: Era, directory: Path) -> list[Cost]:
    """Plays the requests in order on one new vault in `directory`. Raises AssertionError if one lacks its effect."""
    server, store = SharedServer(), open_store(directory / "vault")
    try:
        server.app = create_app(store)
        world = World(store, wall_clock)
        command = [sys.executable, "-I", str(archive)]
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("SIKKERKEY_")}
        env = {**inherited, "HOME": str(directory), "SIKKERKEY_API_URL": f"http://127.0.0.1:{server.port}"}
        install(command, env, store)
        with Server(command, env) as process:
            process.initialize()
            return [play_one(process, world, era, number) for number in range(len(REQUESTS))]
    finally:
        server.stop()
        store.close()


def install(command: list[str], env: dict[str, str], store: Store) -> None:
    """Registers an agent with every scope, and approves it."""
    with store.transaction() as db:
        token = agents.issue_token(db, wall_clock(), agents.SCOPES, None, None)
    options = [*command, "install", "-", "--name", "my laptop"]
    subprocess.run(options, input=token, env=env, text=True, capture_output=True, check=True, timeout=STEP_MAX_S)
    with store.transaction() as db:
        [row] = db.execute("SELECT id FROM ai_agents").fetchall()
        agents.approve_as_owner(db, wall_clock(), row["id"])


def play_one(process: Server, world: World, era: Era, number: int) -> Cost:
    """Plays one request and checks it."""
    request = REQUESTS[number]
    play = Play(lambda tool, arguments: process.call(tool, **arguments))
    request.check(world, (request.before if era == "before" else request.after)(play, world))
    print(f"{era} {number + 1:2}: {play.calls:4} calls, {play.characters:9,} characters: {request.text}", flush=True)
    return {"calls": play.calls, "characters": play.characters}


def record(recorded: list[dict[str, Any]], era: Era, costs: list[Cost]) -> list[dict[str, Any]]:
    """The rows with the costs of `era`; those of the other era are kept for each request of the same text."""
    kept = {row["request"]: row for row in recorded}
    return [
        {"request": request.text, **{**kept.get(request.text, {}), "request": request.text, era: cost}}
        for request, cost in zip(REQUESTS, costs)
    ]


def main() -> None:
    """Runs the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--before", action="store_true", help=f"also record commit {BEFORE[:7]} again")
    rows = json.loads(RECORDED.read_bytes())["requests"] if RECORDED.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        places = [Path(temporary).resolve() / name for name in ("source", "before", "after")]
        for place in places:
            place.mkdir(mode=0o700)
        if options.parse_args().before:
            rows = record(rows, "before", play_all(build_before(places[0]), "before", places[1]))
        rows = record(rows, "after", play_all(ARCHIVE, "after", places[2]))
    content = {"before": BEFORE[:7], "requests": rows}
    RECORDED.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
