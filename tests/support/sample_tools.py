"""Sample tools, resources and prompts for tests of the protocol. Run as a program, it serves them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # started by path and isolated, so the repository is not on the import path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sikkerkey_mcp import (
    INVALID_PARAMS,
    LOG_LEVELS,
    RESOURCE_NOT_FOUND,
    Context,
    Error,
    JsonObject,
    ProtocolError,
    ResourceProvider,
    error_result,
    serve,
)
from sikkerkey_questions import Form, Page
from sikkerkey_results import json_result, text_result

COMMAND = (sys.executable, "-I", str(Path(__file__).resolve()))


class FixtureLibrary:
    """Resources and prompts without a network."""

    capabilities = ("resources", "prompts", "completions")

    def __init__(self) -> None:
        arguments = [{"name": "what", "required": True}, {"name": "how"}]
        self._listings: dict[str, list[JsonObject]] = {
            "resources": [{"uri": f"test://{name}", "name": name} for name in ("text", "fail", "break", "report")],
            "resourceTemplates": [{"uriTemplate": "test://{name}", "name": "any"}],
            "prompts": [{"name": "ask", "arguments": arguments}, {"name": "greet"}],
        }

    def listing(self, kind: str) -> list[JsonObject]:
        """The items of a kind."""
        return self._listings[kind]

    def contents(self, uri: str, context: Context) -> list[JsonObject]:
        """A fixed text; four URIs fail or report progress instead."""
        if uri == "test://fail":
            raise Error("it failed", "do not read it")
        if uri == "test://break":
            raise LookupError("canary in an exception")
        if uri == "test://report":
            context.progress("one")
        if uri == "test://none":
            raise ProtocolError(RESOURCE_NOT_FOUND, "there is no such resource", {"uri": uri})
        return [{"uri": uri, "mimeType": "text/plain", "text": "a text"}]

    def prompt(self, name: str, arguments: dict[str, str], context: Context) -> JsonObject:
        """One message that repeats the arguments."""
        text = f"{name}: {sorted(arguments.items())}"
        return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}

    def suggestions(
        self, reference: JsonObject, argument: str, begun: str, known: dict[str, str], context: Context
    ) -> list[str]:
        """Repeats the question; for `many`, more suggestions than one answer may hold."""
        if reference.get("type") not in ("ref/prompt", "ref/resource"):
            raise ProtocolError(INVALID_PARAMS, "there is nothing to complete")
        return [str(number) for number in range(103)] if argument == "many" else [argument, begun, *sorted(known)]


class FixtureTools:
    """Tools without a network; `calls` holds the calls that ran, `gate` releases those of the tool `wait`.

    `decisions` holds what came back when a tool asked the person, about `subject`.
    """

    instructions = "Tools for tests."
    title = "SikkerKey"

    def __init__(self, capabilities: Sequence[str] = ("tools",)) -> None:
        self.capabilities = capabilities
        self.resources: ResourceProvider = FixtureLibrary()
        self.calls: list[tuple[str, JsonObject]] = []
        self.preparations = 0
        self.gate = threading.Event()
        self.subject = "an agent"
        self.decisions: list[tuple[str, JsonObject]] = []
        self._tools: dict[str, Callable[[JsonObject, Context], JsonObject]] = {
            "echo": lambda arguments, _context: json_result(arguments),
            "fail": lambda _arguments, _context: error_result(Error("it failed", "do not call it")),
            "break": self._break,
            "wait": self._wait,
            "print": self._print,
            "report": self._report,
            "confirm": self._confirm,
            "open_page": self._open_page,
        }

    def listing(self) -> list[JsonObject]:
        """Every tool, with the members that the protocol requires."""
        return [{"name": name, "inputSchema": {"type": "object"}} for name in self._tools]

    def has(self, name: str) -> bool:
        """True if there is a tool of that name."""
        return name in self._tools

    def prepare(self) -> None:
        """Counts its calls."""
        self.preparations += 1

    def call(self, name: str, arguments: JsonObject, context: Context) -> JsonObject:
        """Runs one call."""
        self.calls.append((name, arguments))
        return self._tools[name](arguments, context)

    def _break(self, _arguments: JsonObject, _context: Context) -> JsonObject:
        raise LookupError("canary in an exception")

    def _wait(self, _arguments: JsonObject, context: Context) -> JsonObject:
        context.cancellation.on_set(self.gate.set)
        self.gate.wait()
        return text_result("waited")

    def _print(self, _arguments: JsonObject, _context: Context) -> JsonObject:
        print("printed by print")
        sys.stdout.write("printed by write\n")
        os.write(1, b"printed to descriptor 1\n")
        return text_result("printed")

    def _report(self, _arguments: JsonObject, context: Context) -> JsonObject:
        for step in ("one", "two", "three"):
            context.progress(step)
        for level in LOG_LEVELS:
            context.log(level, f"a line of level {level}")
        return text_result("reported")

    def _confirm(self, arguments: JsonObject, context: Context) -> JsonObject:
        question = Form(
            f"Delete {arguments.get('name', 'it')}?", {"confirm": {"type": "boolean", "default": False}}, ("confirm",)
        )
        answered = context.ask(question, self.subject)
        self.decisions.append((answered.action, answered.content))
        return json_result({"action": answered.action, "content": answered.content})

    def _open_page(self, _arguments: JsonObject, context: Context) -> JsonObject:
        answered = context.ask(Page("Type it there.", lambda page_id: f"http://127.0.0.1:1/{page_id}"), self.subject)
        if answered.question_id:
            context.close_page(answered.question_id)
        self.decisions.append((answered.action, answered.content))
        return json_result({"action": answered.action, "page": answered.question_id})


if __name__ == "__main__":
    serve(FixtureTools())
