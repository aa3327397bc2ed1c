"""The AI clients: settings for the scripted model, the command that lists servers, the command for a session.

These settings contain only the model's address; `config CLIENT --write` adds the server's entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.clients import packages
from tools.clients.packages import Package
from tools.clients.script import PROMPT


class Assistant(NamedTuple):
    """A client, with the name that `config` uses.

    `shown` is the name under which the client shows a tool to the model, with {} for the server's own name of it.
    `listing` is the command that lists servers, and `listed` a pattern for a working server in its output, with the
    state in a group; `listing_starts` says whether it starts them. `reads_only` is the command for a session with
    --split-reads in which only reads are approved.
    """

    name: str
    title: str
    package: Package
    shown: str
    settings: Callable[[Path, str], None]
    variables: Callable[[str], dict[str, str]]
    session: tuple[str, ...]
    listing: str = ""
    listed: str = ""
    listing_starts: bool = False
    reads_only: tuple[str, ...] = ()


def _no_settings(_home: Path, _model_url: str) -> None:
    """This client is configured by environment variables."""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=2) + "\n")


def _claude_variables(model_url: str) -> dict[str, str]:
    off = ("DISABLE_TELEMETRY", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC")
    # As with the default service, tools are loaded on demand; with another address, all would be sent immediately.
    address = {"ANTHROPIC_BASE_URL": model_url, "ANTHROPIC_API_KEY": "trial", "ENABLE_TOOL_SEARCH": "true"}
    return {**address, **dict.fromkeys(off, "1")}


CODEX_SETTINGS = """\
model = "scripted"
model_provider = "trial"

[model_providers.trial]
name = "trial"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false
"""


def _codex_settings(home: Path, model_url: str) -> None:
    _write(home / ".codex" / "config.toml", CODEX_SETTINGS.format(url=model_url))


CONTINUE_SETTINGS = """\
name: trial
version: 1.0.0
schema: v1
models:
  - name: scripted
    provider: openai
    model: scripted
    apiBase: {url}/v1
    apiKey: trial
    roles: [chat]
    capabilities: [tool_use]
"""


def _continue_settings(home: Path, model_url: str) -> None:
    _write(home / ".continue" / "config.yaml", CONTINUE_SETTINGS.format(url=model_url))


def _gemini_settings(home: Path, _model_url: str) -> None:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False},
    }
    _write_json(home / ".gemini" / "settings.json", settings)


def _gemini_variables(model_url: str) -> dict[str, str]:
    address = {"GOOGLE_GEMINI_BASE_URL": model_url, "GEMINI_API_KEY": "trial"}
    return {**address, "GEMINI_CLI_TRUST_WORKSPACE": "true"}


def _opencode_settings(home: Path, model_url: str) -> None:
    options = {"baseURL": f"{model_url}/v1", "apiKey": "trial"}
    models = {"scripted": {"name": "scripted"}}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "trial", "options": options, "models": models}
    quiet = {"autoupdate": False, "share": "disabled"}
    settings = {"model": "trial/scripted", "provider": {"trial": provider}, **quiet}
    _write_json(home / ".config" / "opencode" / "opencode.json", settings)


def _copilot_variables(model_url: str) -> dict[str, str]:
    address = {"COPILOT_PROVIDER_BASE_URL": f"{model_url}/v1", "COPILOT_MODEL": "scripted"}
    return {**address, "COPILOT_OFFLINE": "true", "COPILOT_AUTO_UPDATE": "false"}


ASSISTANTS = (
    Assistant(
        "claude-code",
        "Claude Code",
        packages.CLAUDE_CODE,
        "mcp__sikkerkey__{}",
        _no_settings,
        _claude_variables,
        ("-p", PROMPT, "--allowedTools", "mcp__sikkerkey"),
        "mcp list",
        r"sikkerkey: .*(Connected)",
        True,
        ("-p", PROMPT, "--allowedTools", "mcp__sikkerkey__whoami,mcp__sikkerkey__read_*"),
    ),
    Assistant(
        "codex",
        "Codex",
        packages.CODEX,
        "mcp__sikkerkey/{}",
        _codex_settings,
        lambda _: {},
        # Without a terminal, Codex refuses every tool that is not read-only, unless it is approved beforehand.
        ("exec", "--skip-git-repo-check", "-c", 'mcp_servers.sikkerkey.default_tools_approval_mode="approve"', PROMPT),
        "mcp list",
        r"(?m)^sikkerkey .*(enabled)",
        False,
        ("exec", "--skip-git-repo-check", PROMPT),
    ),
    Assistant(
        "gemini",
        "Gemini CLI",
        packages.GEMINI,
        "mcp_sikkerkey_{}",
        _gemini_settings,
        _gemini_variables,
        # Without a model name, the client first asks another model which model to use.
        ("--approval-mode", "yolo", "--model", "gemini-2.5-pro", "-p", PROMPT),
        "mcp list",
        r"sikkerkey: .*(Connected)",
        True,
    ),
    Assistant(
        "opencode",
        "opencode",
        packages.OPENCODE,
        "sikkerkey_{}",
        _opencode_settings,
        lambda _: {"OPENCODE_DISABLE_MODELS_FETCH": "1"},
        ("run", "--auto", PROMPT),
        "mcp list",
        r"sikkerkey .*(connected)",
        True,
    ),
    Assistant(
        "copilot",
        "Copilot CLI",
        packages.COPILOT,
        "sikkerkey-{}",
        _no_settings,
        _copilot_variables,
        ("--allow-all-tools", "--disable-builtin-mcps", "-p", PROMPT),
        "mcp list",
        r"sikkerkey \((local)\)",
    ),
    Assistant(
        "continue",
        "Continue CLI",
        packages.CONTINUE,
        "{}",
        _continue_settings,
        lambda _: {"CONTINUE_CLI_ENABLE_TELEMETRY": "0"},
        ("--auto", "-p", PROMPT),
    ),
)
