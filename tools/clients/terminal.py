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


class Terminal:
    """A running program and its screen. `shown` has each screen that was waited for, by its name."""

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self._command, self._environment = ["tmux", "-f", "/dev/null", "-S", str(socket)], dict(environment)
        self.shown: dict[str, str] = {}

    def start(self, command: Sequence[str], directory: Path) -> None:
        """Starts the program, with the environment of this terminal and no other."""
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        # The pane stays after the program has ended, so that its last screen can be read.
        kept = ["set-option", "-g", "remain-on-exit", "on", ";"]
        self._tmux(*kept, "new-session", "-d", *size, "-c", str(directory), *command)

    def screen(self) -> str:
        """The text on the screen."""
        return self._tmux("capture-pane", "-p").rstrip() + "\n"

    def press(self, *keys: str) -> None:
        """Presses keys by tmux's names, such as Enter, Space, Escape, Down and C-d."""
        for key in keys:
            self._tmux("send-keys", key)
            time.sleep(POLL_S)  # as several keys in one read, clients take them for pasted text

    def wait_for(self, pattern: str, name: str = "") -> str:
        """The screen as soon as it matches, kept under `name`. Raises Failed after a time limit."""
        give_up_at_s = time.monotonic() + SCREEN_MAX_S
        while not re.search(pattern, screen := self.screen()):
            if time.monotonic() > give_up_at_s:
                self.shown[f"instead of {name or pattern}"] = screen
                raise Failed(f"the screen does not show {pattern}")
            time.sleep(POLL_S)
        if name:
            self.shown[name] = screen
        return screen

    def answer(self, pattern: str, keys: Sequence[str], name: str) -> None:
        """Waits for a dialog, thinks as long as a person does at least, and presses keys. Raises Failed."""
        self.wait_for(pattern, name)
        time.sleep(THINKING_S)
        self.press(*keys)

    def close(self) -> None:
        """Ends the program and the terminal."""
        with contextlib.suppress(Failed):  # it has ended already
            self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            [*self._command, *words],
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
    looks = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    terminal = Terminal(trial.home.parent / "tmux", {**trial.environment, **looks, **variables})
    terminal.start(command, trial.work)
    try:
        yield terminal
        terminal.shown["end"] = terminal.screen()
    finally:
        terminal.close()
        screens = [f"--- {name}\n{screen}" for name, screen in terminal.shown.items()]
        (LOGS / f"{trial.name}.screens.txt").write_text("\n".join(screens), encoding="utf-8")
