"""The interpreter that clients under trial start, and the transcripts that it keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tools.clients.packages import PLACE

ENVIRONMENT = PLACE / "python"
INTERPRETER = ENVIRONMENT / "bin" / "python"


class Session(NamedTuple):
    """One run of the server: the messages of either side, in order, and the lines that the server wrote."""

    asked: list[Any]
    told: list[Any]
    lines: list[bytes]

    @property
    def revision(self) -> str:
        """The protocol revision that was agreed on; empty where none was."""
        found = [message["result"].get("protocolVersion") for message in self.told if "result" in message]
        return next(filter(None, found), "")

    @property
    def calls(self) -> list[tuple[Any, Any]]:
        """Each `tools/call` that was answered: its parameters and its result."""
        results = {message["id"]: message["result"] for message in self.told if "result" in message}
        calls = [message for message in self.asked if message.get("method") == "tools/call"]
        return [(call["params"], results[call["id"]]) for call in calls if call["id"] in results]


def make_interpreter(environment: Path = ENVIRONMENT) -> None:
    """An environment without packages, whose Python records sessions of the server."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    shutil.copy(Path(__file__).with_name("recorder.py"), packages / "client_trial_recorder.py")
    (packages / "client_trial.pth").write_text("import client_trial_recorder\n", encoding="utf-8")
    (environment / "transcripts").mkdir()


def take_sessions(keep_in: Path, environment: Path = ENVIRONMENT) -> list[Session]:
    """The sessions since this was last called, in the order in which they began; their transcripts move to a file."""
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

    asked, told = lines("client"), lines("server")
    return Session([json.loads(line) for line in asked], [json.loads(line) for line in told], told)
