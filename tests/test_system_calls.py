"""How often a warm start of the archive asks the system for something, until its tools are listed, as strace counts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.support.harness import AGENT_ID, ARCHIVE, TIMEOUT_S, make_slot

STRACE = shutil.which("strace")
FLAGS = ("-I", "-S")
OPENING = (
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
)
# More than an archive that holds only `pass` needs. Measured on 3.9 to 3.13: 150 to 210 in all, 7 to 12 files opened.
MOST = {"all": 260, "openat": 14, "write": 2, "connect": 0, "socket": 0, "execve": 0, "unlink": 0, "rename": 0}


def counted(archive: Path, said: str, log: Path, home: Path) -> Counter[str]:
    """The system calls of one run, until the answer to the last request is written where there is one."""
    command = [str(STRACE), "-f", "-qq", "-s", "64", "-o", str(log), sys.executable, *FLAGS, str(archive)]
    env = {"HOME": str(home), "SIKKERKEY_CACHE_DIR": str(home / "cache")}
    done = subprocess.run(command, input=said, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if "ptrace" in done.stderr:
        pytest.skip("tracing is not allowed here")
    counts: Counter[str] = Counter()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        name = line.split(None, 1)[1].partition("(")[0]
        if name.isidentifier():
            counts.update((name, "all"))
        if r"write(" in line and r"\"id\":2" in line:
            break
    return counts


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_start_asks_the_system_for_little(tmp_path: Path, home: Path) -> None:
    make_slot(home, "http://127.0.0.1:9", AGENT_ID)
    empty, said = tmp_path / "empty.pyz", "".join(json.dumps(message) + "\n" for message in OPENING)
    with zipfile.ZipFile(empty, "w") as written:
        written.writestr("__main__.py", "pass")
    counted(ARCHIVE, said, tmp_path / "first", home)  # which fills the cache
    ours, floor = counted(ARCHIVE, said, tmp_path / "ours", home), counted(empty, "", tmp_path / "floor", home)
    assert ours["write"] == 2, "one for each answer"
    more = {name: ours[name] - floor[name] for name in MOST}
    assert {name: count for name, count in more.items() if count > MOST[name]} == {}
