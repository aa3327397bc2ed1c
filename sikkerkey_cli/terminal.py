"""Terminal output: color, progress, prompts, wrapped text and aligned columns.

Results go to stdout and can be parsed; everything else goes to stderr. Text from others is cleaned before it is shown.
"""

from __future__ import annotations

import codecs
import getpass
import itertools
import os
import re
import shutil
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TextIO

import sikkerkey_core
import sikkerkey_identity
import sikkerkey_mcp

PROGRESS_AFTER_S = 1.0
SPINNER, SPINNER_STEP_S = "|/-\\", 0.15
ANSWER_MAX_CHARACTERS = 4_096  # of a line that a person types
CELL_MAX_CHARACTERS = 60  # longer free text would push the other columns off the screen
COLOURS = {"ok": "32", "warn": "33", "fail": "31"}

UsageError = sikkerkey_core.UsageError  # the commands take it from here


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal; False if there is no stream."""
    return stream is not None and stream.isatty()


def moves_cursor(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that understands escape sequences."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def coloured(state: str, stream: TextIO | None = None) -> str:
    """`ok`, `warn` or `fail` in its color, if the stream is a terminal and neither NO_COLOR nor TERM=dumb is set."""
    wanted = moves_cursor(stream or sys.stdout) and not os.environ.get("NO_COLOR")
    return f"\033[{COLOURS[state]}m{state}\033[0m" if wanted else state


def width() -> int | None:
    """The width of the terminal in characters; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def wrapped(text: str, indent: int) -> str:
    """`text` wrapped to the width of the terminal; every line but the first is indented by `indent` spaces."""
    columns = width()
    if columns is None:
        return text
    lines = textwrap.wrap(text, max(columns - indent, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def wrapped_lines(text: str, columns: int) -> list[str]:
    """`text` as lines of at most `columns` on the screen, broken at spaces only: a longer word is a line of its own."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer) > columns:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


def _as_json_escapes(error: UnicodeError) -> tuple[str, int]:
    r"""For `errors=`: what the encoding lacks as `\u0000` escapes, which are valid in JSON, unlike those of Python."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4)), error.end


JSON_ESCAPES = "json-escapes"
codecs.register_error(JSON_ESCAPES, _as_json_escapes)


def cleaned(text: str) -> str:
    """`text` with line ends and tabs, but without other characters that could move the cursor or hide words."""
    return re.sub(r"[^\n\t]+", lambda piece: sikkerkey_mcp.clean(piece[0], len(piece[0])), text)


def without_line_end(text: str) -> str:
    """A single line without its end, which editors and `echo` add. Several lines, such as a PEM key, keep the last."""
    line = text[:-1].removesuffix("\r") if text.endswith("\n") else text
    return line if "\n" not in line else text


_prompt_lock = threading.RLock()  # held while a person types, so that no progress is shown into a prompt


class Progress:
    """A context that shows what is being waited for and how long, after a second and only if stderr is a terminal.

    It returns to the start of the line and overwrites it, which needs no escape sequence. A terminal that cannot do
    that (TERM=dumb) gets the text once.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started_s = 0.0
        self._shown = ""

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            self._started_s = time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._finished.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self._shown or (kind is not None and issubclass(kind, KeyboardInterrupt)):
            return  # what Ctrl-C stopped remains visible
        self._write(f"\r{' ' * len(self._shown)}\r" if moves_cursor(sys.stderr) else "\n")

    def _run(self) -> None:
        pause_s, steps = PROGRESS_AFTER_S, itertools.cycle(SPINNER)
        while not self._finished.wait(pause_s):
            pause_s = SPINNER_STEP_S
            if _prompt_lock.acquire(blocking=False):  # else a person is typing
                try:
                    self._show(next(steps))
                finally:
                    _prompt_lock.release()

    def _show(self, sign: str) -> None:
        if moves_cursor(sys.stderr):
            text = f"{sign} {self._text}, {time.monotonic() - self._started_s:.0f} s"
            self._shown = text[: shutil.get_terminal_size().columns - 1]  # a longer one would not be overwritten
            self._write(f"\r{self._shown}")
        elif not self._shown:
            self._shown = f"{self._text} ..."
            self._write(self._shown)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal was closed
            sys.stderr.write(text)
            sys.stderr.flush()


def require_terminal(consequence: str, hint: str) -> None:
    """Raises UsageError, with what follows from it, if nobody can be asked here."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError(f"not a terminal, so {consequence}", hint)


def ask(prompt: str) -> str:
    """Asks for a line, which is shown as it is typed. Raises Error at the end of input (Ctrl-D)."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    typed = sys.stdin.readline(ANSWER_MAX_CHARACTERS)
    if not typed.endswith("\n"):
        sys.stderr.write("\n")
    if not typed:
        raise sikkerkey_mcp.Error("the input ended; nothing was sent and nothing was changed")
    return typed.strip()


def agrees(question: str, *, default: bool) -> bool:
    """Asks for yes or no; Enter is the default. Asks again after anything else. Raises Error at the end of input."""
    words = {"": default, "y": True, "yes": True, "n": False, "no": False}
    while (typed := ask(f"{question} {'[Y/n]' if default else '[y/N]'} ").lower()) not in words:
        sys.stderr.write("type y or n\n")
    return words[typed]


def choose(question: str, choices: Sequence[str], default: int) -> int:
    """The index of one of the choices, which a person gives by its number. Raises Error at the end of input."""
    list_choices(question, choices)
    while True:
        typed = ask(f"[{default + 1}]: ")
        if not typed:
            return default
        if re.fullmatch("[0-9]{1,3}", typed) and 1 <= int(typed) <= len(choices):
            return int(typed) - 1
        sys.stderr.write(f"type a number from 1 to {len(choices)}\n")


def choose_several(
    question: str, choices: Sequence[str], names: Sequence[str], default: Sequence[str], others: Sequence[str] = ()
) -> list[str]:
    """The names of some of the choices, which a person gives by numbers or names with commas or blanks between them.

    `all` and `none` are understood, and names that are not listed, `others`. Raises Error at the end of input.
    """
    known = list(dict.fromkeys([*names, *others]))
    list_choices(question, choices)
    numbers = ",".join(str(index) for index, name in enumerate(names, 1) if name in default)
    sys.stderr.write("Numbers or names, with commas; or all, or none.\n")
    while True:
        typed = ask(f"[{numbers or 'none'}]: ").lower()
        if not typed:
            return [name for name in names if name in default]
        words = {"all": list(names), "none": []}.get(typed, re.split("[ ,]+", typed.strip(" ,")))
        numbered = {str(index): name for index, name in enumerate(names, 1)}
        chosen = [numbered.get(word, word) for word in words]
        unknown = [name for name in chosen if name not in known]
        if not unknown:
            return [name for name in known if name in chosen]
        near = sikkerkey_mcp.did_you_mean(unknown[0], known, 0.6) or f"type numbers from 1 to {len(names)}, or names"
        sys.stderr.write(f"{near}\n")


def list_choices(question: str, choices: Sequence[str]) -> None:
    """Shows a question and its choices, numbered from 1."""
    lines = [f"  {number:2}  {choice}" for number, choice in enumerate(choices, 1)]
    sys.stderr.write("\n".join(["", question, *lines, ""]))


def prompt_hidden(name: str) -> str:
    """Asks for a line without echoing it. Raises Error at the end of input, or if the line is not UTF-8."""
    try:
        with _prompt_lock:
            typed = getpass.getpass(f"{name}: ")
        typed.encode("utf-8")
        return typed
    except EOFError:
        sys.stderr.write("\n")
        raise sikkerkey_mcp.Error(f"no {name} was entered; nothing was sent") from None
    except UnicodeError:  # the message of UnicodeError would contain part of the input
        raise sikkerkey_mcp.Error(f"the {name} is not UTF-8 text") from None


def has_person() -> bool:
    """Whether a person can be asked at a terminal, also while standard input is a pipe."""
    if not is_terminal(sys.stderr):
        return False
    if is_terminal(sys.stdin) or os.name == "nt":
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ask_passphrase(identity: sikkerkey_identity.Identity) -> str | None:
    """The passphrase of an agent's key, as a person types it; None if nobody can be asked. Raises Error."""
    if not has_person():
        return None
    name = f" ({sikkerkey_mcp.clean(identity.name, 60)})" if identity.name else ""
    return prompt_hidden(f"passphrase of agent {identity.agent_id}{name}")


def ask_new_passphrase(problem_with: Callable[[str], str]) -> str:
    """A new passphrase, typed twice. `problem_with` says why one is refused. Raises UsageError, or Error."""
    if not has_person():
        raise UsageError("not a terminal, so nobody can type a passphrase", "run the command in a terminal")
    for _ in range(sikkerkey_identity.PASSPHRASE_TRIES):
        typed = prompt_hidden("new passphrase")
        problem = problem_with(typed) or ("" if prompt_hidden("again") == typed else "the two are not the same")
        if not problem:
            return typed
        sikkerkey_mcp.print_notice(problem)
    raise sikkerkey_mcp.Error("no passphrase was chosen; nothing was sent")


def confirm(text: str, *, is_question: bool = False) -> None:
    """Asks a question, or after a statement whether to go on. Raises UsageError if nobody can answer, Error for no."""
    require_terminal("this cannot be confirmed", "pass --yes to confirm")
    question = f"{text} [y/N] " if is_question else f"{text}\nContinue? [y/N] "
    if ask(question).lower() not in ("y", "yes"):
        raise sikkerkey_mcp.Error("not confirmed; nothing was sent and nothing was changed")


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines with aligned columns, two spaces apart; the last column is not padded."""
    table = [list(row) for row in rows]
    widths = [max(map(text_width, column)) for column in zip(*table)]
    return "\n".join(
        "  ".join(cell + " " * (wide - text_width(cell)) for cell, wide in zip(row, widths)).rstrip() for row in table
    )


def cell(text: str) -> str:
    """`text` cleaned and shortened for one cell of a table."""
    return sikkerkey_mcp.clean(text, CELL_MAX_CHARACTERS)


def text_width(text: str) -> int:
    """Columns on the screen: wide East Asian characters take two, combining characters none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
