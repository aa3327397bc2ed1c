"""`dev`: where it keeps what, its port, and what its demo project holds. tests/test_archive_dev.py runs it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.vault.support.commands import run_command
from tests.vault.support.served_vault import Agent, Vault
from vault import server
from vault.app import create_app
from vault.desk import Desk
from vault.errors import VaultError
from vault.owner import demo, dev
from vault.owner.dev import Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path / "vault", None, tmp_path / "sikkerkey-mcp.pyz")


def test_the_demo_has_one_of_each_and_an_audit_log_with_life(vault: Vault, agent: Agent) -> None:
    demo.fill(Desk(vault.store, vault.clock), create_app(vault.store, clock=vault.clock))
    project = agent.get("/v1/ai/projects")[0]
    secrets = agent.get(f"/v1/ai/projects/{project['id']}/secrets")
    types = {secret["name"]: secret["type"] for secret in secrets}
    assert types == {
        "STRIPE_API_KEY": "secret",
        "DATABASE": "structured",
        "SMTP_PASSWORD": "secret",
        "SESSION_KEY": "managed",
        "ROOT_PASSWORD": "canary",
    }
    policy = agent.get(f"/v1/ai/projects/{project['id']}/policies")[0]
    assert policy["boundSecretCount"] == 1
    machine = agent.get("/v1/ai/machines")[0]
    assert machine["state"] == "approved"
    assert len(vault.audited("secret_read")) == 2
    assert vault.audited("project_freeze") == []
    assert run_command(vault.directory, "verify")[0] == 0


def test_a_kept_directory_is_empty_or_from_dev(tmp_path: Path, trial: Trial) -> None:
    assert dev._kept(tmp_path / "new", trial.mcp) == Trial(tmp_path / "new", None, trial.mcp)
    finished = trial._replace(directory=tmp_path / "new", agent_id="a1")
    dev._remember(finished, "http://127.0.0.1:8301", "https://127.0.0.1:8400#sha256=00")
    assert dev._kept(tmp_path / "new", trial.mcp) == Trial(tmp_path / "new", None, trial.mcp, 8301, 8400, "a1")
    (tmp_path / "other").mkdir(0o700)
    (tmp_path / "other" / "vault.db").touch()
    with pytest.raises(VaultError, match="is not empty, and dev did not finish there"):
        dev._kept(tmp_path / "other", trial.mcp)
    (tmp_path / "new" / "dev.json").write_text("{}")
    with pytest.raises(VaultError, match="is damaged"):
        dev._kept(tmp_path / "new", trial.mcp)


def test_the_port_is_that_of_the_earlier_start_or_8300_or_a_free_one(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(dev, "PORT", taken.getsockname()[1])
        assert dev._port(trial, None) == 0
    assert dev._port(trial, None) == dev.PORT
    assert (dev._port(trial, 0), dev._port(trial, 8400)) == (0, 8400)
    known = trial._replace(port=8301)
    assert (dev._port(known, None), dev._port(known, 8301)) == (8301, 8301)
    with pytest.raises(VaultError, match="is set up for port 8301"):
        dev._port(known, 8400)


def test_a_taken_port_has_a_way_out_that_dev_offers(trial: Trial) -> None:
    taken = server.PortError("port 8301 is in use", "choose another --tls-port; 0 takes a free one")
    assert dev._port_error(trial, taken) is taken
    hint = dev._port_error(trial._replace(port=8300), taken).hint
    assert hint.endswith("stop what uses it, or name a new directory with --dir")


def test_the_agents_program_is_named_or_beside_this_one(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.mcp.touch()
    assert dev._find_mcp(trial.mcp) == trial.mcp
    monkeypatch.chdir(trial.mcp.parent)
    assert dev._find_mcp(Path(trial.mcp.name)) == trial.mcp
    with pytest.raises(VaultError, match="there is no file"):
        dev._find_mcp(trial.mcp.with_name("nothing"))
    monkeypatch.setattr(dev, "MCP", "nothing.pyz")
    with pytest.raises(VaultError, match="is not beside this program"):
        dev._find_mcp(None)


def test_lines_to_paste_carry_the_home_that_they_need(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIKKERKEY_HOME", raising=False)
    assert trial.client_line("doctor").endswith(f" {trial.mcp} doctor")
    assert "SIKKERKEY_HOME" not in trial.client_line("doctor")
    temporary = trial._replace(home=Path("/a b/home"))
    assert temporary.client_line("doctor").startswith("SIKKERKEY_HOME='/a b/home' ")
    monkeypatch.setenv("SIKKERKEY_HOME", "/mine")
    assert trial.client_line("doctor").startswith("SIKKERKEY_HOME=/mine ")
    shown = dev._announce(
        temporary._replace(directory=trial.directory, agent_id="a1"), "http://127.0.0.1:8300", "http://link"
    )
    assert json.loads(json.dumps(shown.data))["home"] == "/a b/home"
    assert "Ctrl-C stops the vault and deletes it." in shown.text
    assert "http://link  (works once)" in shown.text
    kept = dev._announce(trial._replace(agent_id="a1"), "http://x", None).text
    assert " config claude-code --agent a1 --write" in kept
    assert "opened in your browser" in kept
