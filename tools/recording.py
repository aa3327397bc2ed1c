"""`make recording`: draws docs/recording.svg from real sessions of the archive with a local vault.

The first screens are a conversation and what its user types in a terminal. What the user and the assistant say is
scripted; calls and answers are real. The other screens are commands. Ids, codes, hashes, times, versions and paths are
replaced by fixed ones, so the picture changes only if the program does. Renderers without animation show the first
screen.
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
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import demo
from tools.demo import ARCHIVE, ROOT

PICTURE = ROOT / "docs" / "recording.svg"
COLUMNS, ROWS = 112, 30
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 16  # of a monospaced font of 14 pixels
BLOCK_S, SCREEN_S = 2.5, 5.0  # pause after a block, and additional pause after a screen
TERMINAL_COLUMNS = 1000  # wider than any line: this program wraps lines itself, after it has replaced the paths
A_CODE = "4F7K"
PROGRAM = "python3 sikkerkey-mcp.pyz"

IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(proj|sk|vault)_([a-z0-9]{16})\b")
REPLACEMENTS = (
    (r"\b[0-9a-f]{64}\b", "0123456789abcdef" * 4),
    (r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:" + "0123456789" * 4 + "abc"),
    (r"\brust-[0-9a-f]{16}\.\w+", "rust-0123456789abcdef.so"),
    (r"http://127\.0\.0\.1:[0-9]+", "http://127.0.0.1:8300"),
    (r"cpython 3\.[0-9.]+[0-9]", "cpython 3.13.0"),
    (r"cryptography [0-9.]+[0-9]", "cryptography 50.0.2"),
    (r"in [0-9]+ ms", "in 2 ms"),
    (r"starts in [0-9.]+ s", "starts in 0.1 s"),
    (r"[0-9]+ s (ahead of|behind) the vault's", "the same as the vault's"),
    (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z", "2026-01-01 00:00:00Z"),
    (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z", "2026-01-01T00:00:00.000Z"),
    (r"\b1[0-9]{12}\b", "1767225600000"),
    (r'"expiresInSeconds":[0-9]+', '"expiresInSeconds":600'),
    (r"Time left  [0-9]+ minutes", "Time left  10 minutes"),
)
COLOURS = {"\033[31m": "bad", "\033[32m": "good", "\033[33m": "warn", "\033[0m": ""}


Block = list[str]  # lines that appear together: a command with its output, a call with its answer, or a remark


# ---------------------------------------------------------------------------------------------------------------------
# real sessions
# ---------------------------------------------------------------------------------------------------------------------


class Workspace:
    """A home directory that contains the archive, a `python3` on the path, and the owner's access to a local vault."""

    def __init__(self, directory: Path, url: str, env: dict[str, str]) -> None:
        self._directory, self._vault = directory, directory / "vault"
        self.home = directory / "home"
        python = directory / "bin" / "python3"  # `config` would warn about the interpreter in .venv
        python.parent.mkdir()
        python.symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}")
        shutil.copyfile(ARCHIVE, self.home / ARCHIVE.name)
        terminal = {"TERM": "xterm", "LC_ALL": "C.UTF-8"}
        self.env = {**env, **terminal, "PATH": f"{python.parent}:/usr/bin:/bin", "SIKKERKEY_API_URL": url}
        self._numbers: dict[str, int] = {}
        self.code = ""  # of the call that waits for the user

    def owner(self, *words: str) -> str:
        """Runs a command of the vault's owner and returns its output."""
        return demo.run([sys.executable, "-m", "vault", *words, "--dir", str(self._vault)], self.env)

    def type(self, command: str, *answers: str) -> Block:
        """Runs a command in a terminal; types an answer at each prompt. Returns the command and its output."""
        keyboard, terminal = os.openpty()
        subprocess.run(["stty", "cols", str(TERMINAL_COLUMNS)], stdin=terminal, check=True)
        shell = ["/bin/sh", "-c", command]
        with subprocess.Popen(
            shell, cwd=self.home, env=self.env, start_new_session=True, stdin=terminal, stdout=terminal, stderr=terminal
        ) as process:
            os.close(terminal)
            shown = _read_output(keyboard, *answers)
        os.close(keyboard)
        if process.returncode:
            sys.exit(f"{command} failed:\n{shown}")
        return [f"$ {self.normalize(command)}", *self.normalize(shown).splitlines()]

    def normalize(self, text: str) -> str:
        """Replaces everything that differs between runs."""
        text = text.replace(str(self._directory / "bin"), "/usr/bin").replace(str(self.home), "/home/me")
        text = text.replace(str(ARCHIVE), f"/home/me/{ARCHIVE.name}").replace(sys.executable, "/usr/bin/python3")
        text = text.replace(self.code, A_CODE) if self.code else text
        for pattern, replacement in REPLACEMENTS:
            text = re.sub(pattern, replacement, text)
        return IDS.sub(self._numbered_id, text)

    def _numbered_id(self, found: re.Match[str]) -> str:
        number = self._numbers.setdefault(found[0], len(self._numbers) + 1)
        return f"{found[1]}_{number:016}" if found[1] else f"{number:08}-0000-4000-8000-000000000000"


def _read_output(keyboard: int, *answers: str) -> str:
    """Everything shown until the last program has closed the terminal, without progress lines that were erased."""
    shown, left = b"", list(answers)
    while chunk := _read_chunk(keyboard):
        shown += chunk
        if left and shown.rstrip(b" ").endswith(b":"):
            os.write(keyboard, f"{left.pop(0)}\n".encode())
    text = shown.decode("utf-8").replace("\r\n", "\n")
    return re.sub(r"[^\n]*\r\033\[K", "", text)


def _read_chunk(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 4096)
    except OSError:  # Linux reports the end of a terminal as an error
        return b""


# ---------------------------------------------------------------------------------------------------------------------
# the script
# ---------------------------------------------------------------------------------------------------------------------


def screens(workspace: Workspace) -> list[list[Block]]:
    """Runs the whole script; the screens in the order of the picture, the conversation first."""
    token = workspace.owner("agent-token", "--scopes", "all")
    install = workspace.type(f'{PROGRAM} install - --name "my laptop"', token)
    agent = json.loads(workspace.owner("agents", "--json"))[0]["agentId"]
    workspace.owner("approve", agent)
    config = f"{PROGRAM} config claude-code --write"
    terminal = [
        [install, ["# the vault's owner approves the agent"], workspace.type(f"{config} --dry-run")],
        [workspace.type(config), workspace.type(f"{PROGRAM} doctor")],
        [
            workspace.type(f"{PROGRAM} tools describe manage_secrets rotate"),
            workspace.type(f"{PROGRAM} call manage_projects create name=Webshop"),
        ],
    ]
    return [*asyncio.run(_conversation(workspace)), *terminal]


async def _conversation(workspace: Workspace) -> list[list[Block]]:
    """A scripted assistant, connected by an MCP client that starts the archive as the client's settings say."""
    blocks = [["you: Store the password of Webshop's database. I have it; do not ask me for it here."]]
    with open(os.devnull, "w", encoding="utf-8") as errors:
        async with demo.client(workspace.env, errors) as (_name, call):

            async def ask(**arguments: Any) -> Any:
                result = await call("manage_secrets", **arguments)
                workspace.code = (result.get("structuredContent") or {}).get("code", workspace.code)
                request = f"> manage_secrets {json.dumps(arguments)}"
                lines = (request, *result["content"][0]["text"].splitlines())
                blocks.append([workspace.normalize(line) for line in lines])
                return result.get("structuredContent")

            project = (await call("manage_projects", action="list"))["structuredContent"]["items"][0]["id"]
            await ask(action="create", projectId=project, name="DB_PASSWORD", fromPerson=True)
            blocks.append([f"assistant: Please run the command in a terminal of your own. The code is {A_CODE}."])
            typed = workspace.type(f"{PROGRAM} fill {workspace.code}", demo.MARKED_VALUE, "")
            first, blocks[:] = [*blocks], []
            stored = await ask(action="await_person", code=workspace.code)
            blocks.append(["you: Show it to me, please."])
            await ask(action="get_value", projectId=project, secretId=stored["id"])
    blocks.append(["assistant: DB_PASSWORD is stored. I cannot show it: no action reads a value, and I never had it."])
    blocks.append(workspace.type(f"{PROGRAM} call manage_secrets list projectId={project} --table"))
    return [first, [["# you, in a terminal of your own"], typed], blocks]


# ---------------------------------------------------------------------------------------------------------------------
# the picture
# ---------------------------------------------------------------------------------------------------------------------

TITLE = "sikkerkey-mcp: a person types a secret that the assistant stores and never sees; then install, config, doctor"
STYLE = """text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
text{fill:#d5d9e0;white-space:pre}
.cmd{fill:#fff;font-weight:bold}.talk{fill:#8ab4f8;font-weight:bold}.rem{fill:#8b93a1}.good{fill:#7fce87}.warn{fill:#e5c07b}.bad{fill:#f0827f}"""
# The style of a line by its first word.
LINE_STYLES = {"$": "cmd", ">": "cmd", "#": "rem", "you:": "talk", "assistant:": "talk"}


def wrap(line: str) -> list[str]:
    """Wraps a line at the picture's width; lines of `doctor` continue below their last column."""
    shown = re.sub(r"\033\[\d+m", "", line)
    if len(shown) <= COLUMNS:
        return [line]
    label = re.match(r"\S+ +\S+ +", shown) if shown != line else None  # coloured: a line of `doctor`
    indent = " " * len(label[0] if label else "")
    first, *rest = textwrap.wrap(line, COLUMNS + len(line) - len(shown), break_on_hyphens=False)
    return [first, *textwrap.wrap(" ".join(rest), COLUMNS, initial_indent=indent, subsequent_indent=indent)]


def to_spans(line: str, style: str) -> str:
    """Converts a line to SVG: in one style, or in the colours of its escape sequences."""
    if style:
        return f'<tspan class="{style}">{escape(line, quote=False)}</tspan>'
    svg = colour = ""
    for part in re.split(r"(\033\[\d+m)", line):
        if part in COLOURS:
            colour = COLOURS[part]
        else:
            text = escape(part, quote=False)
            svg += f'<tspan class="{colour}">{text}</tspan>' if colour else text
    return svg


def draw_block(block: Block, row: int) -> tuple[str, int]:
    """Draws a block below a row; returns the SVG and the last row that it takes."""
    svg = ""
    for line in block:
        style = LINE_STYLES.get(line.split(" ", 1)[0], "")
        for part in wrap(line):
            row += 1
            svg += f'<text x="{MARGIN}" y="{MARGIN + row * LINE_HEIGHT - 5}">{to_spans(part, style)}</text>\n'
    return svg, row


def draw_picture(story: Iterable[list[Block]]) -> str:
    """Draws the screens as an animated SVG: blocks appear one after the other and disappear with their screen."""
    groups: list[tuple[str, float, float]] = []
    now_s = 0.0
    for screen in story:
        row = -1
        end_s = now_s + len(screen) * BLOCK_S + SCREEN_S
        for block in screen:
            lines, row = draw_block(block, row + 1)
            groups.append((lines, now_s, end_s))
            now_s += BLOCK_S
        if row > ROWS:
            sys.exit(f"a screen takes {row} rows, but the picture has {ROWS}")
        now_s = end_s
    return _animated_svg(groups, now_s)


def _animated_svg(groups: list[tuple[str, float, float]], total_s: float) -> str:
    """`groups` holds the lines of a block with the times at which it appears and disappears, in seconds."""
    width, height = MARGIN * 2 + COLUMNS * CELL_WIDTH, MARGIN * 2 + ROWS * LINE_HEIGHT
    rules, body = [STYLE], ""
    for number, (lines, start_s, end_s) in enumerate(groups):
        start, end = (100 * moment_s / total_s for moment_s in (start_s, end_s))
        frames = f"0%{{opacity:{int(start == 0)}}}{start:.2f}%{{opacity:1}}{end:.2f}%,100%{{opacity:0}}"
        rules.append(f"@keyframes k{number}{{{frames}}}#b{number}{{animation:k{number} {total_s}s step-end infinite}}")
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
            PICTURE.write_text(draw_picture(screens(Workspace(directory, url, env))), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
