"""The interpreter that the clients start, and the transcripts that it records."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tools.clients.packages import BUILD_DIRECTORY

ENVIRONMENT = BUILD_DIRECTORY / "python"
INTERPRETER = ENVIRONMENT / "bin" / "python"
SET_UP = ENVIRONMENT / "set-up.json"  # how recorder.py changes the server's process, if at all


class Session(NamedTuple):
    """One run of the server: the messages of each side in order, and the lines that the server wrote."""

    from_client: list[Any]
    from_server: list[Any]
    lines: list[bytes]

    @property
    def revision(self) -> str:
        """The negotiated protocol revision; empty if there was none.

        It is that of the first answered request after a probe: from its own envelope, or from `initialize`.
        """
        results = {message["id"]: message["result"] for message in self.from_server if "result" in message}
        answered = [message for message in self.from_client if "method" in message and message.get("id") in results]
        named = [(message["method"], _revision_in(message, results[message["id"]])) for message in answered]
        settled = [revision for method, revision in named if revision and method != "server/discover"]
        return settled[0] if settled else next((revision for _, revision in named if revision), "")

    @property
    def calls(self) -> list[tuple[Any, Any]]:
        """The parameters and the result of each answered `tools/call`."""
        results = {message["id"]: message["result"] for message in self.from_server if "result" in message}
        calls = [message for message in self.from_client if message.get("method") == "tools/call"]
        return [(call["params"], results[call["id"]]) for call in calls if call["id"] in results]


def _revision_in(request: Any, result: Any) -> str:
    meta = (request.get("params") or {}).get("_meta") or {}
    revision: str = meta.get("io.modelcontextprotocol/protocolVersion") or result.get("protocolVersion", "")
    return revision


def make_interpreter(environment: Path = ENVIRONMENT) -> None:
    """Creates an environment without packages whose Python records the server's sessions."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    shutil.copy(Path(__file__).with_name("recorder.py"), packages / "client_trial_recorder.py")
    (packages / "client_trial.pth").write_text("import client_trial_recorder\n", encoding="utf-8")
    (environment / "transcripts").mkdir()


def take_sessions(keep_in: Path, environment: Path = ENVIRONMENT) -> list[Session]:
    """The sessions since the last call, in the order of their start. Moves their transcripts to the file `keep_in`."""
    files = sorted((environment / "transcripts").iterdir())
    texts = [file.read_text(encoding="ascii") for file in files]
    for file in files:
        file.unlink()
    keep_in.write_text("".join(texts), encoding="ascii")
    return [_session([json.loads(line) for line in text.splitlines()]) for text in texts]


def _session(chunks: list[Any]) -> Session:
    def lines(sender: str) -> list[bytes]:
        data = "".join(chunk["data"] for chunk in chunks if chunk["from"] == sender)
        return data.encode("latin-1").splitlines(keepends=True)

    client_lines, server_lines = lines("client"), lines("server")
    return Session(list(map(json.loads, client_lines)), list(map(json.loads, server_lines)), server_lines)
