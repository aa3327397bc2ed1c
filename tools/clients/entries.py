"""Puts what `config` prints into the clients' files: the archive's own `config --write` takes this over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.clients.trial import Trial


def write_entry(trial: Trial, client: str) -> str:
    """Writes the entry of the registered agent into the client's own file; what this shows."""
    home = trial.home
    if client in ("codex", "continue"):
        path = home / {"codex": ".codex/config.toml", "continue": ".continue/config.yaml"}[client]
        path.write_text(path.read_text() + "\n" + trial.archive("config", client))
        return "`config`"
    servers = json.loads(trial.archive("config", "claude-code"))["mcpServers"]
    path, key, members = _shape(home, client)
    if client == "opencode":
        servers = {name: {"command": [it["command"], *it["args"]]} for name, it in servers.items()}
    settings = json.loads(path.read_text()) if path.exists() else {}
    settings[key] = {name: {**it, **members} for name, it in servers.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings))
    return "`config`" if client == "claude-code" else "an entry made by hand"


def _shape(home: Path, client: str) -> tuple[Path, str, dict[str, Any]]:
    shapes: dict[str, tuple[Path, str, dict[str, Any]]] = {
        "claude-code": (home / ".claude.json", "mcpServers", {}),
        "gemini": (home / ".gemini/settings.json", "mcpServers", {}),
        "opencode": (home / ".config/opencode/opencode.json", "mcp", {"type": "local", "enabled": True}),
        "copilot": (home / ".copilot/mcp-config.json", "mcpServers", {"type": "local", "tools": ["*"]}),
    }
    return shapes[client]
