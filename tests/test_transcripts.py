"""Conversations with real clients, recorded with another server, replayed against the built archive.

Each line of tests/transcripts is a message of the client (c2s) or the server (s2c). What this server sends must have
the same shape: the same kinds of messages in the same order, the same members, the same error codes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ARCHIVE, Server
from tests.support.in_process_client import modern
from tests.support.schema_check import LEGACY, MODERN, conforms, revision_of

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.jsonl"))
SERVER = Path(__file__).parent / "support" / "transcript_server.py"
# What tools and servers fill in as they like.
FREE = {"content", "structuredContent", "capabilities", "contents", "messages", "completion", "_meta"} | {
    "tools",
    "resources",
    "resourceTemplates",
    "prompts",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the program that the archive contains."""
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "SIKKERKEY_CACHE_DIR": str(home / "cache"), "PATH": os.defpath}
    subprocess.run([sys.executable, "-I", str(ARCHIVE), "--version"], check=True, capture_output=True, env=environment)
    found = next((home / "cache").rglob("sikkerkey_mcp.py"))
    return found.parent


class Names:
    """States, ids and keys of the recorded server, and the ones of this server in their place."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}

    def learn(self, recorded: Any, ours: Any) -> None:
        """Notes what a message of this server has where the recorded one has something else."""
        if isinstance(recorded, dict) and isinstance(ours, dict):
            for (name, value), (own_name, own_value) in zip(recorded.items(), pair_up(recorded, ours)):
                if name != own_name:
                    self._ours[name] = own_name
                self.learn(value, own_value)
        elif isinstance(recorded, str) and isinstance(ours, str) and recorded != ours:
            self._ours[recorded] = ours

    def translate(self, value: Any, within: str = "") -> Any:
        """A message of the client with this server's states, ids and keys."""
        if isinstance(value, dict):
            keys = self._ours if within == "inputResponses" else {}
            return {keys.get(name, name): self.translate(each, name) for name, each in value.items()}
        known = within in ("requestState", "id", "requestId") and isinstance(value, str)
        return self._ours.get(value, value) if known else value


def pair_up(recorded: dict[str, Any], ours: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """This server's members in the recorded order; a member with another name stands for the missing one."""
    others = iter([item for item in ours.items() if item[0] not in recorded])
    for name in recorded:
        yield (name, ours[name]) if name in ours else next(others, (name, None))


def shape(value: Any, within: str = "") -> Any:
    """Names and types without the values."""
    if within in FREE:
        return "..."
    if isinstance(value, dict):
        if within == "inputRequests":  # the server's own keys
            return [shape(each) for each in value.values()]
        return {name: shape(each, name) for name, each in value.items() if (name, each) != ("isError", False)}
    if isinstance(value, list):
        return [shape(each) for each in value]
    kept = within in (
        "code",
        "method",
        "mode",
        "resultType",
        "cacheScope",
        "jsonrpc",
        "supported",
        "requested",
        "action",
    )
    return value if kept else type(value).__name__


def entries(file: Path) -> list[Any]:
    """The lines of a transcript."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("file", TRANSCRIPTS, ids=[file.stem for file in TRANSCRIPTS])
def test_the_archive_answers_like_the_recorded_server(file: Path, program: Path) -> None:
    with Server([sys.executable, "-I", str(SERVER), str(program)]) as server:
        names = Names()
        for entry in entries(file):
            if entry.get("dir") == "c2s":
                server.send(names.translate(entry["msg"]))
            elif entry.get("dir") == "s2c":
                reply = server.read()
                names.learn(entry["msg"], reply)
                assert shape(reply) == shape(entry["msg"]), entry
            elif entry["note"].endswith("{oops"):
                server.send_bytes(b"{oops\n")
        last = "the last request"
        server.send(modern("tools/list", last))
        assert server.read()["id"] == last, "something else was sent"


def test_the_transcripts_are_valid() -> None:
    """They stand for what clients send, so the schema of their era must allow it."""
    removed = ("ping", "logging/setLevel", "resources/subscribe", "initialize", "tasks/list", "no/such")
    for file in TRANSCRIPTS:
        for entry in entries(file):
            message = entry.get("msg")
            if (
                entry.get("dir") != "c2s"
                or entry.get("expect_invalid")
                or "id" not in message
                or "method" not in message
            ):
                continue
            revision = MODERN if entry["era"] == "modern" else LEGACY
            assert revision_of(message) == revision, entry
            if revision == LEGACY or message["method"] not in removed:
                conforms(message, "ClientRequest", revision)
