"""The official SDK clients and the inspector: programs without a model, which make the same calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.harness import ARCHIVE, ROOT
from tests.support.schema_check import conforms
from tools.clients import packages
from tools.clients.judge import require
from tools.clients.packages import Package, Unavailable
from tools.clients.script import CALLS
from tools.clients.trial import Trial
from tools.clients.wire import INTERPRETER

SESSION = ROOT / "tools" / "clients" / "sdk_session.mjs"


class Sdk(NamedTuple):
    """A client library of the protocol's makers. `program` is what runs a session with it."""

    name: str
    title: str
    program: Callable[[], list[str]]
    package: Package | None = None


def server(trial: Trial) -> list[str]:
    """The command that `config` would have a client start."""
    return [str(INTERPRETER), "-I", str(ARCHIVE), "serve", "--agent", trial.agent]


def python_session(environment: str) -> list[str]:
    """The official Python client in one of the environments that `make venv` sets up."""
    python = ROOT / environment / "bin" / "python"
    if not any((ROOT / environment).glob("lib/python*/site-packages/mcp")):
        raise Unavailable(f"{environment} holds no client: it needs Python 3.10 or newer")
    return [str(python), str(ROOT / "tests" / "support" / "sdk_session.py")]


def typescript_session(package: Package) -> list[str]:
    """The official TypeScript client."""
    return [str(packages.node_directory() / "node"), str(SESSION), package.name, str(package.directory)]


SDKS = (
    Sdk("python-sdk-1", "Python SDK 1", lambda: python_session(".venv-mcp1")),
    Sdk("python-sdk-2", "Python SDK 2", lambda: python_session(".venv")),
    Sdk("typescript-sdk-1", "TypeScript SDK 1", lambda: typescript_session(packages.SDK_1), package=packages.SDK_1),
    Sdk("typescript-sdk-2", "TypeScript SDK 2", lambda: typescript_session(packages.SDK_2), package=packages.SDK_2),
)


def converse(trial: Trial, sdk: Sdk) -> Any:
    """What the client library got: its version, the lists, the results."""
    told = trial.run([*sdk.program(), *server(trial)], text_in=json.dumps(CALLS))
    return json.loads(told.stdout)


def check_results(told: Any, results: list[Any], agent: str) -> list[str]:
    """The library handed on every list and result whole, and could read every resource; what was exercised."""
    conforms({"tools": told["tools"]}, "ListToolsResult")
    given = [(it.get("structuredContent"), it["content"][0]["text"]) for it in told["results"]]
    sent = [(it.get("structuredContent"), it["content"][0]["text"]) for it in results]
    require(given == sent, "the program was given other results than the server's")
    contents = {it["uri"]: json.loads(it["text"]) for result in told.get("read", []) for it in result["contents"]}
    require(list(contents) == [row["uri"] for row in told.get("resources", [])], "not every resource could be read")
    named = contents.get("sikkerkey://whoami", {"agentId": agent})["agentId"]
    require(named == agent, "the resource about the agent is another's")
    return [f"{len(told[kind])} {kind}" for kind in ("tools", "resources", "prompts") if kind in told]


def inspect(trial: Trial) -> list[str]:
    """The inspector's check of the schemas, which fails on anything that it takes for an error; what was exercised."""
    command = [str(packages.INSPECTOR.path), "--cli", "--method"]
    told = trial.run([*command, "tools/list", "--strict", "--", *server(trial)])
    require(not told.stderr.strip(), "the inspector has something to say about the schemas")
    trial.run([*command, "tools/call", "--tool-name", "whoami", "--", *server(trial)])
    return ["tools/list --strict without a complaint", "whoami"]
