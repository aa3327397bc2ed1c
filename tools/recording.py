"""`make recording`: draws docs/recording.svg from a real session of the archive with a local vault.

The picture is a conversation of 15 seconds, and the page on which its user types a value. What the user and the
assistant say is scripted; calls and answers are real, and the page is docs/images/page-fill.png. Ids, codes, hashes,
times and paths are replaced by fixed ones, so the picture changes only if the program does. Everything that appears
stays, so people who prefer reduced motion, and renderers without animation, see the whole story at once.
"""

from __future__ import annotations

import asyncio
import base64
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
PAGE = ROOT / "docs" / "images" / "page-fill.png"
COLUMNS, ROWS = 72, 25
CELL_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 20, 20  # of a monospaced font of 14 pixels
PAGE_WIDTH, PAGE_HEIGHT = 400, 475
TOTAL_S = 15.0
SHOWN_OF_ANSWER = 150  # characters
REFUSAL = "No action reads a value."
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

Block = list[str]  # lines that appear together: what somebody says, or a call with its answer


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

    def type(self, command: str, *answers: str) -> None:
        """Runs a command in a terminal; types an answer at each prompt."""
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


def story(workspace: Workspace) -> list[tuple[float, Block]]:
    """Runs the whole script; the blocks of the picture, with the seconds at which they appear."""
    token = workspace.owner("agent-token", "--scopes", "all")
    workspace.type(f'{PROGRAM} install - --name "my laptop"', token)
    workspace.owner("approve", json.loads(workspace.owner("agents", "--json"))[0]["agentId"])
    workspace.type(f"{PROGRAM} call manage_projects create name=Webshop")
    asked, waiting, stored, refused = asyncio.run(_conversation(workspace))
    return [
        (0.0, ["you: Store the password of Webshop's database. I have it."]),
        (1.5, [asked, waiting]),
        (3.0, [f"assistant: A page has opened for you. Its code is {A_CODE}."]),
        (PAGE_S, []),
        (8.0, ["> manage_secrets await_person", stored]),
        (9.5, ["assistant: Stored. I have not seen it."]),
        (10.5, ["you: Show it to me, please."]),
        (11.5, ["> manage_secrets get_value", refused]),
        (13.0, ["assistant: I cannot show it: no action reads a value, and", "           I never had it."]),
    ]


async def _conversation(workspace: Workspace) -> tuple[str, str, str, str]:
    """A scripted assistant, connected by an MCP client that starts the archive as the client's settings say."""
    with open(os.devnull, "w", encoding="utf-8") as errors:
        async with demo.client(workspace.env, errors) as (_name, call):

            async def ask(**arguments: Any) -> tuple[str, Any]:
                result = await call("manage_secrets", **arguments)
                data = result.get("structuredContent") or {}
                workspace.code = data.get("code", workspace.code)
                return _shortened(workspace.normalize(result["content"][0]["text"])), data

            project = (await call("manage_projects", action="list"))["structuredContent"]["items"][0]["id"]
            created = {"name": "DB_PASSWORD", "fromPerson": True}
            waiting, _ = await ask(action="create", projectId=project, **created)
            workspace.type(f"{PROGRAM} fill {workspace.code}", demo.MARKED_VALUE, "")
            stored, data = await ask(action="await_person", code=workspace.code)
            refused, _ = await ask(action="get_value", projectId=project, secretId=data["id"])
    return f"> manage_secrets create {json.dumps(created)}", waiting, stored, refused


def _shortened(text: str) -> str:
    """The beginning of a long answer; of a long error, also the sentence that matters here."""
    text = " ".join(text.split())
    if len(text) <= SHOWN_OF_ANSWER:
        return text
    end = f"… {REFUSAL}" if REFUSAL in text else "…}"
    return text[: SHOWN_OF_ANSWER - len(end)].rpartition(",")[0] + f", {end}"


# ---------------------------------------------------------------------------------------------------------------------
# the picture
# ---------------------------------------------------------------------------------------------------------------------

PAGE_S = 4.5  # when the page appears
TITLE = "A person types a secret on a page. The assistant stores it, never sees it, and cannot read it back."
STYLE = """text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}
text{fill:#aeb6c2}.you{fill:#fff;font-weight:bold}.assistant{fill:#8ab4f8;font-weight:bold}.call{fill:#7fce87}
@media (prefers-reduced-motion:reduce){g{animation:none!important;opacity:1!important}}"""
# The style of a line by its first word; a line that begins with blanks continues the one before.
LINE_STYLES = {">": "call", "you:": "you", "assistant:": "assistant"}


def draw_block(block: Block, row: int) -> tuple[str, int]:
    """Draws a block below a row; returns the SVG and the last row that it takes."""
    svg = style = ""
    for line in block:
        style = style if line.startswith(" ") else LINE_STYLES.get(line.split(" ", 1)[0], "")
        for part in textwrap.wrap(line, COLUMNS, break_on_hyphens=False, drop_whitespace=not line.startswith(" ")):
            row += 1
            shown = escape(part, quote=False)
            svg += f'<text x="{MARGIN}" y="{MARGIN + row * LINE_HEIGHT - 5}" class="{style}">{shown}</text>\n'
    return svg, row


def draw_picture(blocks: Iterable[tuple[float, Block]]) -> str:
    """Draws the story as an animated SVG. A block without lines is the page."""
    row = 0
    groups = []
    for start_s, block in blocks:
        if block:
            drawn, row = draw_block(block, row)
            row += 1
        else:
            drawn = _page()
        groups.append((start_s, drawn))
    if row > ROWS:
        sys.exit(f"the conversation takes {row} rows, but the picture has {ROWS}")
    width = MARGIN * 3 + COLUMNS * CELL_WIDTH + PAGE_WIDTH
    height = MARGIN * 2 + ROWS * LINE_HEIGHT
    rules, body = [STYLE], ""
    for number, (start_s, drawn) in enumerate(groups):
        start = 100 * start_s / TOTAL_S
        frames = f"0%{{opacity:{int(not start)}}}{start:.2f}%,100%{{opacity:1}}"
        rules.append(
            f"@keyframes k{number}{{{frames}}}#b{number}{{animation:k{number} {TOTAL_S:g}s step-end infinite}}"
        )
        body += f'<g id="b{number}">\n{drawn}</g>\n'
    sheet = "\n".join(rules)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">
<title>{TITLE}</title>
<style>{sheet}</style>
<rect width="{width:g}" height="{height}" rx="10" fill="#1b1f27"/>
{body}</svg>
"""


def _page() -> str:
    """The page, at the right of the conversation."""
    content = base64.b64encode(PAGE.read_bytes()).decode()
    x, y = MARGIN * 2 + COLUMNS * CELL_WIDTH, (MARGIN * 2 + ROWS * LINE_HEIGHT - PAGE_HEIGHT) / 2
    size = f'x="{x:g}" y="{y:g}" width="{PAGE_WIDTH}" height="{PAGE_HEIGHT}"'
    return f'<image {size} href="data:image/png;base64,{content}"/>\n'


def main() -> None:
    """Runs the script and writes the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary).resolve()
        (directory / "home").mkdir(mode=0o700)
        env = {"HOME": str(directory / "home")}
        with demo.vault(directory / "vault", env) as url:
            PICTURE.write_text(draw_picture(story(Workspace(directory, url, env))), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
