"""An MCP server that asks its user: by a form with one box to tick, and by a page. Clients start it by its path.

    python -I tools/clients/probe.py serve URL

URL is the page's address. The server speaks the protocol as sikkerkey_mcp.py does.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by its path and isolated, so the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from sikkerkey_mcp import Context, JsonObject, serve, to_json
from sikkerkey_questions import Form, Page, Question
from sikkerkey_results import text_result
from tests.conformance.registry import ConformanceTools

CONFIRM: JsonObject = {
    "type": "boolean",
    "title": "Delete project Webshop for good",
    "description": "Nothing happens unless this is ticked.",
    "default": False,
}
FORM = Form("The assistant wants to delete project Webshop. This cannot be undone.", {"confirm": CONFIRM}, ("confirm",))
PAGE_MESSAGE = "Type the value of secret DB_PASSWORD. Code 4F7K."


class Probe(ConformanceTools):
    """Two tools that ask and answer what came back."""

    instructions = "Asks the person who uses the client."
    capabilities = ("tools",)

    def __init__(self, url: str) -> None:
        super().__init__()
        self._questions: dict[str, Question] = {"ask_form": FORM, "ask_page": Page(PAGE_MESSAGE, lambda _id: url)}

    def listing(self) -> list[JsonObject]:
        """Both tools, without arguments."""
        text = "Asks the person who uses the client."
        return [{"name": name, "description": text, "inputSchema": {"type": "object"}} for name in self._questions]

    def has(self, name: str) -> bool:
        """True if there is a tool of that name."""
        return name in self._questions

    def call(self, name: str, _arguments: JsonObject, context: Context) -> JsonObject:
        """Asks, and returns the person's reply."""
        reply = context.ask(self._questions[name])
        if name == "ask_page":
            context.close_page(reply.question_id)
        return text_result(f"{reply.action} {to_json(reply.content)}")


if __name__ == "__main__":
    serve(Probe(sys.argv[-1]))
