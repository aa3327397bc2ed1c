"""The words after `call`: an action and its arguments, as key=value, key=@file or key=-.

A plaintext argument is never taken from the command line itself, which every process of the computer can read.
"""

from __future__ import annotations

import sys
from typing import Any

import sikkerkey_mcp
import sikkerkey_times
from sikkerkey_cli import names, terminal
from sikkerkey_cli.terminal import UsageError
from sikkerkey_cli.tools import actions_hint, example, find_action
from sikkerkey_mcp import Action, Arg, ConfigError, JsonObject, Tool

# For a file and for stdin, the same limit as for one message of an MCP client.
READ_MAX_BYTES = sikkerkey_mcp.LINE_MAX_BYTES


class Words:
    """The words after `call TOOL`: an action, if the tool has several, and arguments."""

    def __init__(self, tool: Tool, words: list[str]) -> None:
        self.tool = tool
        self.action = self._take_action(words)
        self._named = names.arguments_by_word(self.action)
        self.given = dict(self._pairs(words))

    def _take_action(self, words: list[str]) -> Action:
        if not sikkerkey_mcp.has_actions(self.tool):
            return self.tool.actions[0]
        if not words or "=" in words[0]:
            raise UsageError(f"{self.tool.name} needs an action", actions_hint(self.tool))
        return find_action(self.tool, words.pop(0))

    def _pairs(self, words: list[str]) -> list[tuple[str, str]]:
        pairs = [self._pair(word) for word in words]
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"{sikkerkey_mcp.clean(key, 40)} is given twice")
        if sum(value == "-" for _, value in pairs) > 1:
            raise UsageError("only one argument can be read from stdin", "use key=@FILE for the others")
        return pairs

    def _pair(self, word: str) -> tuple[str, str]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError("arguments have the form key=value", f"example: {example(self.tool, self.action)}")
        key = self._named[key].name if key in self._named else key
        arg = self._arg(key)
        if arg and arg.plaintext and not (value == "-" or (value.startswith("@") and not value.startswith("@@"))):
            raise UsageError(
                f"{key} is plaintext and cannot be given on the command line, which every process can read",
                f"use {key}=@FILE, or {key}=- for stdin; the shell's history now contains what you typed",
            )
        return key, value

    def _arg(self, key: str) -> Arg | None:
        return self._named.get(key) or next((arg for arg in self.action.args if arg.name == key), None)

    def named(self) -> JsonObject:
        """The arguments in which names may stand for ids. Raises ConfigError."""
        return {key: self._value(key) for key in self.given if key in self._named}

    def others(self) -> JsonObject:
        """The other arguments as a model would give them. Reads files and stdin. Raises ConfigError."""
        return {key: self._value(key) for key in self.given if key not in self._named}

    def _value(self, key: str) -> Any:
        """The value for the check, which parses JSON itself. `A,B` is a list; `7d` is past for a read, else future."""
        arg = self._arg(key)
        text = _text(key, self.given[key], secret=arg is not None and arg.plaintext)
        if arg and arg.kind in ("strings", "ids"):
            return _items(text)
        if arg and arg.kind == "time":
            return sikkerkey_times.with_sign(text, "-" if self.action.effect == "read" else "+")
        return text


def _items(text: str) -> Any:
    """The items of a list, which commas separate; JSON as it is, but a list of JSON as a list."""
    items = [item.strip() for item in text.split(",")]
    if all(items) and items[0][0] not in '[{"':
        return items
    try:
        value = sikkerkey_mcp.parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:  # the check says what is wrong with it
        return text
    return value if isinstance(value, list) else text


def _text(key: str, value: str, *, secret: bool) -> str:
    """The text that a word stands for: itself, the content of a file, or stdin. A `secret` one is typed twice."""
    if value == "-":
        return _from_stdin(key, twice=secret)
    if value.startswith("@@"):
        return value[1:]
    return _from_file(key, value[1:]) if value.startswith("@") else value


def _from_stdin(key: str, *, twice: bool) -> str:
    if sys.stdin is None:
        raise UsageError(f"stdin is closed, so {key} cannot be read")
    if terminal.is_terminal(sys.stdin):
        typed = terminal.prompt_hidden(key)
        if twice and typed and terminal.prompt_hidden(f"{key} again") != typed:
            raise sikkerkey_mcp.Error(f"the two entries of {key} differ; nothing was sent")
        return typed
    return _decoded(key, sys.stdin.buffer.read(READ_MAX_BYTES + 1))


def _from_file(key: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            return _decoded(key, file.read(READ_MAX_BYTES + 1))
    except OSError as error:
        hint = f"write {key}=@@... for a value that begins with @"
        raise ConfigError(f"the file for {key} cannot be read: {error.strerror}", hint) from None


def _decoded(key: str, data: bytes) -> str:
    """The text of a file or of stdin. The line end of a single line is dropped; a PEM key keeps its last one."""
    if len(data) > READ_MAX_BYTES:
        raise ConfigError(f"the input for {key} is larger than {READ_MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"the input for {key} is not UTF-8 text") from None
    return terminal.without_line_end(text)
