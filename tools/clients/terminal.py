"""A client in a real terminal, by tmux: presses keys and reads the screen, as a person does."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.clients.trial import LOGS, Failed, Trial

COLUMNS, LINES = 110, 45
SCREEN_MAX_S = 60.0
POLL_S = 0.2
THINKING_S = 1.5  # a server may take an answer within a second for one that no person has given
TMUX_MAX_S = 10.0
LOOKS = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


class Terminal:
    """A running program and its screen.

    By name, `shown` has each screen that was waited for, `shown_s` when it appeared, and `pressed_s` when it
    was answered.
    """

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self._command, self._environment = ["tmux", "-f", "/dev/null", "-S", str(socket)], dict(environment)
        self.shown: dict[str, str] = {}
        self.shown_s: dict[str, float] = {}
        self.pressed_s: dict[str, float] = {}

    def start(self, command: Sequence[str], directory: Path) -> None:
        """Starts the program, with the environment of this terminal and no other."""
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        # The pane stays after the program has ended, so that its last screen can be read.
        kept = ["set-option", "-g", "remain-on-exit", "on", ";"]
        self._tmux(*kept, "new-session", "-d", *size, "-c", str(directory), *command)

    def screen(self, *, scrolled: bool = False) -> str:
        """The text on the screen, with what has scrolled off if that is wanted. Wrapped lines are one line."""
        lines = self._tmux("capture-pane", "-p", "-J", *(["-S", "-"] if scrolled else [])).rstrip().splitlines()
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def press(self, *keys: str) -> None:
        """Presses keys by tmux's names, such as Enter, Space, Escape, Down and C-d."""
        for key in keys:
            self._tmux("send-keys", key)
            time.sleep(POLL_S)  # as several keys in one read, clients take them for pasted text

    def paste(self, text: str) -> None:
        """Types a text that no process may have in its command line."""
        self._tmux("load-buffer", "-", stdin_text=text)
        self._tmux("paste-buffer", "-d")
        time.sleep(POLL_S)

    def wait_for(self, pattern: str, name: str = "") -> str:
        """The screen as soon as it matches, kept under `name`. Raises Failed after a time limit."""
        give_up_at_s = time.monotonic() + SCREEN_MAX_S
        while not re.search(pattern, screen := self.screen()):
            if time.monotonic() > give_up_at_s:
                self.shown[f"instead of {name or pattern}"] = screen
                raise Failed(f"the screen does not show {pattern}")
            time.sleep(POLL_S)
        if name:
            self.shown[name], self.shown_s[name] = screen, time.time()
        return screen

    def answer(self, pattern: str, keys: Sequence[str], name: str) -> None:
        """Waits for a dialog, thinks as long as a person does at least, and presses keys. Raises Failed."""
        self.wait_for(pattern, name)
        time.sleep(THINKING_S)
        self.press(*keys)
        self.pressed_s[name] = time.time() - POLL_S  # `press` waits after the last key

    def close(self) -> None:
        """Ends the program and the terminal."""
        with contextlib.suppress(Failed):  # it has ended already
            self._tmux("kill-server")

    def _tmux(self, *words: str, stdin_text: str = "") -> str:
        done = subprocess.run(
            [*self._command, *words],
            input=stdin_text,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TMUX_MAX_S,
        )
        if done.returncode:
            raise Failed(f"tmux {words[0]}: {done.stderr.strip()}")
        return done.stdout


def tmux_is_installed() -> bool:
    """Whether there can be a terminal."""
    return shutil.which("tmux") is not None


@contextlib.contextmanager
def open_terminal(trial: Trial, command: Sequence[str], **variables: str) -> Iterator[Terminal]:
    """A terminal in which the client of a trial runs. Its screens are kept beside the log. Raises Failed."""
    terminal = Terminal(trial.home.parent / "tmux", {**trial.environment, **LOOKS, **variables})
    terminal.start(command, trial.work)
    try:
        yield terminal
        terminal.shown["end"] = terminal.screen()
    finally:
        terminal.close()
        screens = [f"--- {name}\n{screen}" for name, screen in terminal.shown.items()]
        (LOGS / f"{trial.name}.screens.txt").write_text("\n".join(screens), encoding="utf-8")
