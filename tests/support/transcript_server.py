"""Tools, resources and prompts under the names that tests/transcripts uses, served by the program in a directory.

Run as a program with that directory as its argument: the transcripts are replayed against the code in the archive.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from sikkerkey_mcp import (
    MISSING_CAPABILITY,
    RESOURCE_NOT_FOUND,
    Call,
    Context,
    Error,
    InputRequired,
    JsonObject,
    ProtocolError,
    error_result,
    serve,
)
from sikkerkey_questions import Form, Page
from sikkerkey_results import json_result

if TYPE_CHECKING:
    from sikkerkey_mcp import ResourceProvider

CONFIRM = {"type": "boolean", "title": "Delete it", "description": "tick to delete", "default": False}


class TranscriptLibrary:
    """One resource, one template and one prompt."""

    capabilities = ("resources", "prompts", "completions")

    def listing(self, kind: str) -> list[JsonObject]:
        """The items of a kind."""
        prompt = {"name": "greet", "arguments": [{"name": "who", "required": True}]}
        items: dict[str, JsonObject] = {
            "resources": {"uri": "dual://one", "name": "one"},
            "resourceTemplates": {"uriTemplate": "dual://item/{id}", "name": "item"},
            "prompts": prompt,
        }
        return [items[kind]]

    def contents(self, uri: str, context: Context) -> list[JsonObject]:
        """One resource exists."""
        if uri != "dual://one":
            raise ProtocolError(RESOURCE_NOT_FOUND, "there is no such resource", {"uri": uri})
        return [{"uri": uri, "mimeType": "application/json", "text": '{"one":1}'}]

    def prompt(self, name: str, arguments: dict[str, str], context: Context) -> JsonObject:
        """A greeting."""
        content = {"type": "text", "text": f"Greet {arguments['who']}."}
        return {"description": "Greets.", "messages": [{"role": "user", "content": content}]}

    def suggestions(self, *_asked: Any) -> list[str]:
        """One word."""
        return ["world"]


class TranscriptTools:
    """What the tools of the transcripts do."""

    instructions = "Tools of the transcripts."
    title = "SikkerKey"
    capabilities = ("tools", *TranscriptLibrary.capabilities)
    names = ("echo", "confirm", "ask_url", "slow", "state_only", "needs_sampling")

    def __init__(self) -> None:
        self.resources: ResourceProvider = TranscriptLibrary()

    def listing(self) -> list[JsonObject]:
        """Every tool."""
        return [{"name": name, "inputSchema": {"type": "object"}} for name in self.names]

    def has(self, name: str) -> bool:
        """True if there is a tool of that name."""
        return name in self.names

    def prepare(self) -> None:
        """Nothing needs to be loaded."""

    def call(self, name: str, arguments: JsonObject, context: Context) -> JsonObject:
        """Runs a tool."""
        run = getattr(self, name)
        result: JsonObject = run(arguments, context)
        return result

    def echo(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Repeats its arguments."""
        context.log("info", "calling echo")
        return json_result(arguments)

    def confirm(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Deletes something if the person ticks a box."""
        answered = context.ask(Form(f"delete {arguments['id']} for ever?", {"confirm": CONFIRM}, ("confirm",)))
        if answered.content != {"confirm": True}:
            return error_result(Error("not deleted"))
        return json_result({"deleted": True})

    def ask_url(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Has the person open a page."""
        answered = context.ask(Page("type the value", lambda page_id: f"http://127.0.0.1:1/{page_id}"))
        if answered.action != "accept":
            return error_result(Error("no value"))
        context.progress("waiting for the person")
        context.close_page(answered.question_id)
        return json_result({"stored": True})

    def slow(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Reports progress, or waits until it is cancelled."""
        if not arguments.get("progress"):
            context.cancellation.wait(arguments["seconds"])
        for _ in range(3):
            context.progress("still at it")
        return json_result({"slept": True})

    def state_only(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Has the client come back once."""
        assert isinstance(context, Call)
        if context.era.resumed is None:
            raise InputRequired({}, {"rounds": 1})
        return json_result(context.era.resumed.note)

    def needs_sampling(self, arguments: JsonObject, context: Context) -> JsonObject:
        """Cannot do anything without a capability."""
        data: JsonObject = {"requiredCapabilities": {"sampling": {}}}
        raise ProtocolError(MISSING_CAPABILITY, "this needs a capability that the client did not declare", data)


if __name__ == "__main__":
    serve(TranscriptTools())
