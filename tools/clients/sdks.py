"""The official SDK clients and the inspector, which make the same calls without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.harness import ARCHIVE, ROOT
from tests.support.schema_check import conforms
from tools.clients import packages
from tools.clients.checks import require
from tools.clients.packages import Package, Unavailable
from tools.clients.script import CALLS
from tools.clients.trial import Trial
from tools.clients.wire import INTERPRETER

SESSION = ROOT / "tools" / "clients" / "sdk_session.mjs"


class Sdk(NamedTuple):
    """An official client library. `program` returns the command that runs a session with it."""

    name: str
    title: str
    program: Callable[[], list[str]]
    package: Package | None = None


def server(trial: Trial) -> list[str]:
    """The command that `config` writes for a client."""
    return [str(INTERPRETER), "-I", str(ARCHIVE), "serve", "--agent", trial.agent]


def python_session(environment: str) -> list[str]:
    """The command for the official Python client, in an environment that `make venv` set up. Raises Unavailable."""
    python = ROOT / environment / "bin" / "python"
    if not any((ROOT / environment).glob("lib/python*/site-packages/mcp")):
        raise Unavailable(f"{environment} contains no client, which needs Python 3.10 or newer")
    return [str(python), str(ROOT / "tests" / "support" / "sdk_session.py")]


def typescript_session(package: Package) -> list[str]:
    """The command for the official TypeScript client."""
    return [str(packages.node_directory() / "node"), str(SESSION), package.name, str(package.directory)]


SDKS = (
    Sdk("python-sdk-1", "Python SDK 1", lambda: python_session(".venv-mcp1")),
    Sdk("python-sdk-2", "Python SDK 2", lambda: python_session(".venv")),
    Sdk("typescript-sdk-1", "TypeScript SDK 1", lambda: typescript_session(packages.SDK_1), package=packages.SDK_1),
    Sdk("typescript-sdk-2", "TypeScript SDK 2", lambda: typescript_session(packages.SDK_2), package=packages.SDK_2),
)


def converse(trial: Trial, sdk: Sdk) -> Any:
    """Runs a session; returns what the client library received: its version, the lists, the results."""
    output = trial.run([*sdk.program(), *server(trial)], stdin_text=json.dumps(CALLS))
    return json.loads(output.stdout)


def check_results(received: Any, results: list[Any], agent: str) -> list[str]:
    """The library returned every list and result in full and could read every resource. Returns the checks passed."""
    conforms({"tools": received["tools"]}, "ListToolsResult")
    given = [(it.get("structuredContent"), it["content"][0]["text"]) for it in received["results"]]
    sent = [(it.get("structuredContent"), it["content"][0]["text"]) for it in results]
    require(given == sent, "the program received different results than the server sent")
    contents = {it["uri"]: json.loads(it["text"]) for result in received.get("read", []) for it in result["contents"]}
    require(list(contents) == [row["uri"] for row in received.get("resources", [])], "not every resource could be read")
    named = contents.get("sikkerkey://whoami", {"agentId": agent})["agentId"]
    require(named == agent, "the resource describes another agent")
    return [f"{len(received[kind])} {kind}" for kind in ("tools", "resources", "prompts") if kind in received]


def inspect(trial: Trial) -> list[str]:
    """Runs the inspector, which fails if it finds an error in the schemas. Returns the checks passed."""
    command = [str(packages.INSPECTOR.path), "--cli", "--method"]
    output = trial.run([*command, "tools/list", "--strict", "--", *server(trial)])
    require(not output.stderr.strip(), "the inspector complains about the schemas")
    trial.run([*command, "tools/call", "--tool-name", "whoami", "--", *server(trial)])
    return ["tools/list --strict without a complaint", "whoami"]
