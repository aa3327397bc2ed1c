"""docs/ci.md, as a reader would follow it: the commands and the program of the page, with the vendor's own package."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sikkerkey_identity
from tests.support.harness import ROOT
from tests.support.local_vault import LocalVault, install
from tests.support.shell import run_process

pytest.importorskip("sikkerkey", reason="the vendor's client needs Python 3.10")

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
VALUE = "SENTINEL_VALUE"


def block(language: str) -> str:
    """The only block of the page in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def call(*words: str, text_in: str = "") -> dict[str, str]:
    """The answer of one call by the agent."""
    done = run_process("call", *words, stdin=text_in)
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def job(home: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the program of the page on a runner of its own."""
    home.mkdir(exist_ok=True)
    source = block("python") + "print(vault.machine_name, value, 'SIKKERKEY_TOKEN' in os.environ)\n"
    return subprocess.run(
        [sys.executable, "-c", source],
        env={"HOME": str(home), "HOSTNAME": "runner-7", "PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[LocalVault]:
    """A local vault without machines, with an agent of this computer that its owner has approved."""
    local = LocalVault(tmp_path / "vault")
    try:
        local.owner("approve", install(local))
        yield local
    finally:
        local.close()


def test_a_job_enrolls_in_memory_and_reads(vault: LocalVault, tmp_path: Path) -> None:
    project = call("manage_projects", "create", "name=Webshop")["id"]
    words = ("name=DATABASE_URL", "value=-", f"projectId={project}")
    secret = call("manage_secrets", "create", *words, text_in=VALUE)["id"]
    program, command, *words_of_page = shlex.split(block("sh"))
    assert (program, command) == ("sikkerkey-mcp", "call")
    made = call(*words_of_page, "--yes")
    [agent] = sikkerkey_identity.installed_agents()
    vault_id = sikkerkey_identity.load_identity(agent).vault_id
    known = {"VAULT_ID": vault_id, "SECRET_ID": secret, "SIKKERKEY_TOKEN": made["token"]}
    port = vault.url.rpartition(":")[2]
    runner = tmp_path / "runner"

    refused = job(runner, {**known, "SIKKERKEY_API_URL": f"http://127.0.0.1:{port}"})
    assert (refused.returncode, "API URL must use HTTPS" in refused.stderr) == (1, True)
    assert json.loads(vault.owner("machines", "--json")) == []  # nothing was sent

    done = job(runner, {**known, "SIKKERKEY_API_URL": f"http://localhost:{port}"})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"runner-7 {VALUE} False\n", "")
    assert list(runner.rglob("*")) == []
    [machine] = json.loads(vault.owner("machines", "--json"))
    assert (machine["kind"], machine["state"]) == ("ephemeral", "approved")
