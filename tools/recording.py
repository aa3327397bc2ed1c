"""`make recording`: docs/recording.svg, drawn from what the archive really shows in a terminal, against a local vault.

Ids, hashes, times, versions and paths are put in their place by the same ones each time, so that a change of the
picture is a change of the program. A renderer that does not animate shows the first screen.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import demo
from tools.demo import ARCHIVE, ROOT

PICTURE = ROOT / "docs" / "recording.svg"
COLUMNS, ROWS = 112, 28
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 16  # of a monospaced font of 14 pixels
BLOCK_S, SCREEN_S = 2.5, 5.0  # before what comes next on a screen, and before the next screen
UNBOUNDED = 1000  # columns of the terminal that is recorded: lines are folded here, after paths have got their length
PROGRAM = "python3 sikkerkey-mcp.pyz"

IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(proj|sk|vault)_([a-z0-9]{16})\b")
SAME_EACH_TIME = (
    (r"\b[0-9a-f]{64}\b", "0123456789abcdef" * 4),
    (r"\brust-[0-9a-f]{16}\.\w+", "rust-0123456789abcdef.so"),
    (r"http://127\.0\.0\.1:[0-9]+", "http://127.0.0.1:8300"),
    (r"cpython 3\.[0-9.]+[0-9]", "cpython 3.13.0"),
    (r"cryptography [0-9.]+[0-9]", "cryptography 50.0.2"),
    (r"in [0-9]+ ms", "in 2 ms"),
    (r"starts in [0-9.]+ s", "starts in 0.1 s"),
    (r"[0-9]+ s (ahead of|behind) the vault's", "0 s behind the vault's"),
    (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z", "2026-01-01 00:00:00Z"),
    (r"\b1[0-9]{12}\b", "1767225600000"),
)
COLOURS = {"\033[31m": "bad", "\033[32m": "good", "\033[33m": "warn", "\033[0m": ""}


Block = list[str]  # the lines that appear at once: a command and what it showed, or a remark


# ---------------------------------------------------------------------------------------------------------------------
# real runs
# ---------------------------------------------------------------------------------------------------------------------


class Desk:
    """A home directory with the archive in it and a Python on its path, and a vault with an owner."""

    def __init__(self, directory: Path, url: str, env: dict[str, str]) -> None:
        self._directory, self._vault = directory, directory / "vault"
        self.home = directory / "home"
        python = directory / "bin" / "python3"  # not that of .venv, about which `config` would warn
        python.parent.mkdir()
        python.symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}")
        shutil.copyfile(ARCHIVE, self.home / ARCHIVE.name)
        terminal = {"TERM": "xterm", "LC_ALL": "C.UTF-8"}
        self.env = {**env, **terminal, "PATH": f"{python.parent}:/usr/bin:/bin", "SIKKERKEY_API_URL": url}
        self._numbers: dict[str, int] = {}

    def owner(self, *words: str) -> str:
        """What a command of the vault's owner printed."""
        return demo.run([sys.executable, "-m", "vault", *words, "--dir", str(self._vault)], self.env)

    def type(self, command: str, answer: str = "") -> Block:
        """Runs a line in a terminal as somebody would type it; `answer` is typed where something is asked for."""
        keyboard, terminal = os.openpty()
        subprocess.run(["stty", "cols", str(UNBOUNDED)], stdin=terminal, check=True)
        shell = ["/bin/sh", "-c", command]
        with subprocess.Popen(
            shell, cwd=self.home, env=self.env, start_new_session=True, stdin=terminal, stdout=terminal, stderr=terminal
        ) as process:
            os.close(terminal)
            shown = _watched(keyboard, answer)
        os.close(keyboard)
        if process.returncode:
            sys.exit(f"{command} failed:\n{shown}")
        return [f"$ {self.settled(command)}", *self.settled(shown).splitlines()]

    def settled(self, text: str) -> str:
        """`text` with everything in its place that is another one in each run."""
        text = text.replace(str(self._directory / "bin"), "/usr/bin").replace(str(self.home), "/home/me")
        for pattern, same in SAME_EACH_TIME:
            text = re.sub(pattern, same, text)
        return IDS.sub(self._numbered, text)

    def _numbered(self, found: re.Match[str]) -> str:
        number = self._numbers.setdefault(found[0], len(self._numbers) + 1)
        return f"{found[1]}_{number:016}" if found[1] else f"{number:08}-0000-4000-8000-000000000000"


def _watched(keyboard: int, answer: str) -> str:
    """Everything shown until the last program has gone, as it stands on the screen in the end."""
    shown = b""
    while piece := _piece(keyboard):
        shown += piece
        if answer and shown.rstrip(b" ").endswith(b":"):
            os.write(keyboard, f"{answer}\n".encode())
            answer = ""
    text = shown.decode("utf-8").replace("\r\n", "\n")
    return re.sub(r"[^\n]*\r\033\[K", "", text)  # what was being waited for


def _piece(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 4096)
    except OSError:  # how a terminal ends on Linux
        return b""


# ---------------------------------------------------------------------------------------------------------------------
# the script
# ---------------------------------------------------------------------------------------------------------------------


def screens(desk: Desk) -> Iterator[list[Block]]:
    """The story, a screen at a time."""
    token = desk.owner("agent-token", "--scopes", "all")
    install = desk.type(f'{PROGRAM} install - --name "my laptop"', token)
    agent = json.loads(desk.owner("agents", "--json"))[0]["agentId"]
    desk.owner("approve", agent)
    writing = f"{PROGRAM} config claude-code --write"
    yield [install, ["# the vault's owner approves it"], desk.type(f"{writing} --dry-run")]
    yield [desk.type(writing), desk.type(f"{PROGRAM} doctor")]
    create = desk.type(f"{PROGRAM} call manage_projects create name=Webshop")
    yield [desk.type(f"{PROGRAM} tools describe manage_secrets rotate"), create]
    yield asyncio.run(_assistant(desk))


async def _assistant(desk: Desk) -> list[Block]:
    """What a model does, through an MCP client that starts the archive as the client's settings say."""
    blocks = [["# an assistant at work: what it calls, and what it is told"]]
    with open(os.devnull, "w", encoding="utf-8") as errors:
        async with demo.client(desk.env, errors) as (_name, call):

            async def ask(**arguments: Any) -> Any:
                result = await call("manage_secrets", **arguments)
                asked = f"> manage_secrets {json.dumps(arguments)}"
                blocks.append([desk.settled(line) for line in (asked, *result["content"][0]["text"].splitlines())])
                return result.get("structuredContent")

            project = (await call("manage_projects", action="list"))["structuredContent"]["items"][0]["id"]
            made = await ask(action="create", projectId=project, name="DB_PASSWORD", value=demo.MARKED_VALUE)
            await ask(action="rotate", projectId=project, secretId=made["id"], length=40)
            await ask(action="get_value", projectId=project, secretId=made["id"])
    blocks.append(["# it can write and rotate, and has no way to read; you see what there is"])
    blocks.append(desk.type(f"{PROGRAM} call manage_secrets list projectId={project} --table"))
    return blocks


# ---------------------------------------------------------------------------------------------------------------------
# the picture
# ---------------------------------------------------------------------------------------------------------------------

TITLE = "sikkerkey-mcp in a terminal: install, config, doctor, tools, call, and an assistant that manages secrets"
STYLE = """text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
text{fill:#d5d9e0;white-space:pre}
.cmd{fill:#fff;font-weight:bold}.rem{fill:#8b93a1}.good{fill:#7fce87}.warn{fill:#e5c07b}.bad{fill:#f0827f}"""


def folded(line: str) -> list[str]:
    """A line at the picture's width; what goes on stands below where its last column began."""
    shown = re.sub(r"\033\[\d+m", "", line)
    if len(shown) <= COLUMNS:
        return [line]
    label = re.match(r"\S+ +\S+ +", shown) if shown != line else None  # a line of doctor's, which begins in colour
    indent = " " * len(label[0] if label else "")
    first, *rest = textwrap.wrap(line, COLUMNS + len(line) - len(shown), break_on_hyphens=False)
    return [first, *textwrap.wrap(" ".join(rest), COLUMNS, initial_indent=indent, subsequent_indent=indent)]


def spans(line: str, kind: str) -> str:
    """A line as SVG, in its colours."""
    if kind:
        return f'<tspan class="{kind}">{escape(line, quote=False)}</tspan>'
    made = colour = ""
    for part in re.split(r"(\033\[\d+m)", line):
        if part in COLOURS:
            colour = COLOURS[part]
        else:
            text = escape(part, quote=False)
            made += f'<tspan class="{colour}">{text}</tspan>' if colour else text
    return made


def drawn(block: Block, row: int) -> tuple[str, int]:
    """A block as text elements below the row, and the last row that it takes."""
    made = ""
    for line in block:
        kind = {"$": "cmd", ">": "cmd", "#": "rem"}.get(line[:1], "")
        for piece in folded(line):
            row += 1
            made += f'<text x="{MARGIN}" y="{MARGIN + row * LINE_HEIGHT - 5}">{spans(piece, kind)}</text>\n'
    return made, row


def picture(story: Iterable[list[Block]]) -> str:
    """The whole SVG: each block appears at its time and goes with its screen."""
    groups: list[tuple[str, float, float]] = []
    now_s = 0.0
    for screen in story:
        row = -1
        end_s = now_s + len(screen) * BLOCK_S + SCREEN_S
        for block in screen:
            lines, row = drawn(block, row + 1)
            groups.append((lines, now_s, end_s))
            now_s += BLOCK_S
        if row > ROWS:
            sys.exit(f"a screen takes {row} rows, and the picture has {ROWS}")
        now_s = end_s
    return _framed(groups, now_s)


def _framed(groups: list[tuple[str, float, float]], whole_s: float) -> str:
    width, height = MARGIN * 2 + COLUMNS * CELL_WIDTH, MARGIN * 2 + ROWS * LINE_HEIGHT
    rules, body = [STYLE], ""
    for number, (lines, start_s, end_s) in enumerate(groups):
        start, end = (100 * moment_s / whole_s for moment_s in (start_s, end_s))
        frames = f"0%{{opacity:{int(start == 0)}}}{start:.2f}%{{opacity:1}}{end:.2f}%,100%{{opacity:0}}"
        rules.append(f"@keyframes k{number}{{{frames}}}#b{number}{{animation:k{number} {whole_s}s step-end infinite}}")
        body += f'<g id="b{number}" opacity="{int(end_s == groups[0][2])}">\n{lines}</g>\n'
    sheet = "\n".join(rules)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">
<title>{TITLE}</title>
<style>{sheet}</style>
<rect width="{width:g}" height="{height}" rx="8" fill="#1b1f27"/>
{body}</svg>
"""


def main() -> None:
    """Runs the script and writes the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary).resolve()
        (directory / "home").mkdir(mode=0o700)
        env = {"HOME": str(directory / "home")}
        with demo.vault(directory / "vault", env) as url:
            PICTURE.write_text(picture(screens(Desk(directory, url, env))), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
