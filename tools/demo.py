"""`make demo`: an official MCP client drives the built archive against a local vault that checks every signature.

Everything happens in a temporary directory and on loopback; the demo does not read or change the user's files. It
stops at the first step that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `vault`, and for `tests.support.harness` without the official client

ARCHIVE = ROOT / "dist" / "sikkerkey-mcp.pyz"
MARKED_VALUE = "correct-horse-battery-staple-4711"
SCOPES = "projects.read,projects.write,projects.secrets.read,projects.secrets.write,audit.read"
STEP_MAX_S = 30.0

Call = Callable[..., Awaitable[Any]]


def show(topic: str, text: str) -> None:
    """Prints one line."""
    print(f"  {topic:<10} {text}", flush=True)


def run(command: list[str], env: dict[str, str], text_in: str = "") -> str:
    """Runs a command that must succeed and returns what it prints."""
    done = subprocess.run(
        command, input=text_in, env=env, cwd=ROOT, capture_output=True, text=True, timeout=STEP_MAX_S, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def vault(directory: Path, env: dict[str, str]) -> Iterator[str]:
    """Runs a new vault on a free loopback port; yields its URL."""
    command = [sys.executable, "-m", "vault", "serve", "--dir", str(directory), "--port", "0"]
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            sys.exit("the vault did not start")
        yield url
    finally:
        process.terminate()
        process.wait(STEP_MAX_S)


@contextlib.asynccontextmanager
async def official_client(env: dict[str, str], errors: TextIO) -> AsyncIterator[tuple[str, Call]]:
    """Connects the official Python client to the archive; yields a description and a function that calls a tool."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(command=sys.executable, args=["-I", str(ARCHIVE)], env=env)
    async with stdio_client(server, errlog=errors) as (reader, writer), ClientSession(reader, writer) as session:
        await session.initialize()
        listing = await session.list_tools()

        async def call(tool: str, **arguments: Any) -> Any:
            result: Any = await session.call_tool(tool, arguments)
            return result.model_dump(by_alias=True, mode="json")

        yield f"mcp {importlib.metadata.version('mcp')}, the official client: {len(listing.tools)} tools listed", call


@contextlib.asynccontextmanager
async def minimal_client(env: dict[str, str], _errors: TextIO) -> AsyncIterator[tuple[str, Call]]:
    """Connects the tests' client, for Python 3.9: the official one needs 3.10."""
    from tests.support.harness import ARCHIVE_COMMAND, Server

    with Server(ARCHIVE_COMMAND, env) as server:
        server.initialize()

        async def call(tool: str, **arguments: Any) -> Any:
            return server.call(tool, **arguments)

        yield "the tests' minimal client (the official one needs Python 3.10 or newer)", call


def answer(result: Any) -> Any:
    """The object in a call's result; ends the demo if the call failed."""
    if result.get("isError"):
        sys.exit(f"unexpected: {result['content'][0]['text']}")
    return result["structuredContent"]


def forge(url: str, agent: str) -> str:
    """Sends a request in the agent's name, signed with another key; describes the vault's answer."""
    from sikkerkey_cli.agents import new_key
    from sikkerkey_keys import load_signer
    from sikkerkey_mcp import Api, Context, Request, signed_headers

    sign = load_signer(new_key()[0])
    api = Api(url, lambda request: signed_headers(agent, sign, request, int(time.time()), os.urandom(16).hex()))
    reply = api.send(Request("GET", "/v1/ai/whoami", None), safe=True, context=Context())
    assert reply.status == 401, "a forged signature was accepted"
    return f"the agent's request signed with another key: {reply.status} {reply.body.decode()}"


async def converse(call: Call, received: list[str], approve: Callable[[], str]) -> tuple[str, str]:
    """Calls tools as an assistant would; returns the ids of two secrets, the first with the marked value."""

    async def ask(tool: str, **arguments: Any) -> Any:
        result = await call(tool, **arguments)
        received.append(json.dumps(result, ensure_ascii=False))
        return result

    refused = await ask("whoami")
    assert refused["isError"], "a pending agent was served"
    show("pending", refused["content"][0]["text"].splitlines()[0])
    show("approve", approve())
    me = answer(await ask("whoami"))
    show("whoami", f"{me['name']}, {len(me['scopes'])} scopes")
    project = answer(await ask("manage_projects", action="create", name="Webshop", description="made by an AI"))["id"]
    show("create", f"project Webshop {project}")
    first = {"projectId": project, "name": "DATABASE_PASSWORD", "value": MARKED_VALUE, "note": "used by checkout"}
    secret = answer(await ask("manage_secrets", action="create", **first))["id"]
    show("create", f"secret DATABASE_PASSWORD {secret}, a value of {len(MARKED_VALUE)} characters sent")
    second = {"projectId": project, "name": "SESSION_KEY", "value": MARKED_VALUE[::-1]}
    other = answer(await ask("manage_secrets", action="create", **second))["id"]
    rotated = answer(await ask("manage_secrets", action="rotate", projectId=project, secretId=other, length=40))
    show("rotate", f"secret SESSION_KEY {other}, now version {rotated['version']}, generated by the vault")
    for row in answer(await ask("manage_secrets", action="list", projectId=project))["items"]:
        show("list", f"{row['name']}: type {row['type']}, version {row['version']}, note {row['note']!r}")
    wrong = await ask("manage_secrets", action="rotate", projectId="../../etc", secretId=other)
    show("refused", wrong["content"][0]["text"])
    for entry in answer(await ask("read_audit", action="list", pageSize=4))["entries"]:
        show("audit", f"{entry['action']} by {entry['actorKind']}, severity {entry['severity']}")
    return secret, other


def prove(directory: Path, stored: tuple[str, str], seen: str) -> None:
    """Checks that the values are in the vault, but neither in `seen` nor in plaintext on disk."""
    from vault.domains.secrets import find, plaintext
    from vault.schema import open_store

    with open_store(directory) as store, store.transaction() as db:
        rows = [find(db, secret_id) for secret_id in stored]
        values = [plaintext(db, store.keys, row, row["version"]) for row in rows]
    on_disk = b"".join(path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file())
    assert values[0] == MARKED_VALUE, "the vault holds a different value than was sent"
    for value in (*values, MARKED_VALUE[::-1]):
        assert value not in seen, "a plaintext came back"
        assert value.encode() not in on_disk, "a plaintext is on the disk"
    show("proof", f"the vault's owner can decrypt both values ({', '.join(f'{len(v)} characters' for v in values)})")
    size, disk_size = len(seen.encode()), len(on_disk)
    show(
        "proof",
        f"neither is in the {size:,} bytes that the client got, nor in plaintext in {disk_size:,} bytes on disk",
    )


async def demonstrate(directory: Path) -> None:
    """Runs the whole demo in `directory`."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("SIKKERKEY_")}
    env = {**inherited, "HOME": str(directory / "home"), "SIKKERKEY_HOME": str(directory / "home" / ".sikkerkey")}
    (directory / "home").mkdir(mode=0o700)
    data = directory / "vault"
    owner = [sys.executable, "-m", "vault"]
    with vault(data, env) as url, open(directory / "stderr.txt", "w+", encoding="utf-8") as errors:
        show("vault", f"{url}, empty, checks every signature")
        token = run([*owner, "agent-token", "--dir", str(data), "--scopes", SCOPES, "--name", "demo agent"], env)
        install = [sys.executable, "-I", str(ARCHIVE), "install", "-"]
        show("install", run(install, {**env, "SIKKERKEY_API_URL": url}, token + "\n"))
        agent = json.loads(run([*owner, "agents", "--dir", str(data), "--json"], env))[0]["agentId"]
        received: list[str] = []
        async with client(env, errors) as (name, call):
            show("connect", name)
            approve = [*owner, "approve", agent, "--dir", str(data)]
            stored = await converse(call, received, lambda: run(approve, env))
        show("forged", forge(url, agent))
        errors.seek(0)
        prove(data, stored, "\n".join(received) + errors.read() + token)


client = official_client if sys.version_info >= (3, 10) else minimal_client

if __name__ == "__main__":
    print("sikkerkey-mcp against a local vault:")
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(demonstrate(Path(temporary).resolve()))
    print("done: all of this used real stdio and signed HTTP on loopback")
