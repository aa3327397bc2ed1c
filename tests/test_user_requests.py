"""The requests of docs/requests.md: the calls of a model have their effect on a vault, and the page has its numbers."""

from __future__ import annotations

import json

import pytest

import sikkerkey_mcp
from tests.support.harness import ROOT
from tests.support.review_vault import CountingApi, use_clock
from tests.vault.conftest import _fast_storage, agent, clock, new_vault, shared_server, vault  # noqa: F401  # fixtures
from tests.vault.support.served_vault import Agent, Vault
from tools.user_requests.data import World
from tools.user_requests.play import Play
from tools.user_requests.script import REQUESTS


def test_each_request_has_its_effect(vault: Vault, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811  # fixtures
    used = use_clock(vault, monkeypatch)
    world = World(vault.store, vault.clock)
    api = CountingApi(agent)
    tools = sikkerkey_mcp.VaultTools(lambda: api, now_s=used.time)
    context = sikkerkey_mcp.Context()
    recorded = json.loads((ROOT / "docs" / "requests.json").read_bytes())["requests"]
    assert [row["request"] for row in recorded] == [request.text for request in REQUESTS]
    for request, row in zip(REQUESTS, recorded):
        play = Play(lambda tool, arguments: tools.call(tool, arguments, context))
        try:
            request.check(world, request.after(play, world))
            assert play.calls == row["after"]["calls"], "`make record-requests` records the present calls"
        except Exception as error:
            raise AssertionError(f"failed: {request.text}") from error
    api.close()
