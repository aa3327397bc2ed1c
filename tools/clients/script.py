"""The calls that the scripted model and the SDK clients make: a first session, and a call that must be refused.

Ids come from the results that the client passed on, so a client that loses or garbles results fails.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tools.clients.dialects import Answer, Call, ModelRequest, Text, text_of

MARK = "marked-value-8d0c47"
MARKED_VALUE = f'{MARK} søger <nøgle> & "quotes" \\ \u2028 🔑\nsecond line '
PROJECT_NAME = 'Client trial <æ> & "quotes" 🔑'
PROMPT = "Set up a project called Client trial in SikkerKey and store the database password in it."
DONE = "The project is set up."
SEARCH = "call_search"

# [tool, arguments]; {"from": [CALL, KEY...]} refers to an earlier result. tests/support/sdk_session.py reads this too.
PROJECT = {"from": [1, "id"]}
CALLS: list[Any] = [
    ["whoami", {}],
    ["manage_projects", {"action": "create", "name": PROJECT_NAME}],
    ["manage_secrets", {"action": "create", "projectId": PROJECT, "name": "DB_PASSWORD", "value": MARKED_VALUE}],
    ["manage_secrets", {"action": "list", "projectId": PROJECT}],
    ["manage_secrets", {"action": "list", "projectId": "../../etc"}],
]
REFUSED = len(CALLS) - 1


def plain(text: str) -> str:
    """The text in a JSON list of content blocks, which Continue passes on; any other text unchanged."""
    try:
        blocks = json.loads(text)
    except ValueError:
        return text
    return text_of(blocks) if isinstance(blocks, list) else text


def object_in(text: str) -> Any:
    """The JSON object in a result, which some clients surround with lines; None if there is none."""
    start = text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except ValueError:
        return None


def results_of(request: ModelRequest) -> list[str]:
    """The results of the script's calls, in order."""
    return [plain(text) for call, text in request.results.items() if call != SEARCH]


def resolved(value: Any, results: list[str]) -> Any:
    """`value`, or the part of an earlier result that it refers to. Raises KeyError or TypeError if that is missing."""
    if not isinstance(value, dict):
        return value
    number, *keys = value["from"]
    found = object_in(results[number])
    for key in keys:
        found = found[key]
    return found


class Script:
    """Answers a request with the next call. `shown` is the client's name for a tool, with {} for the server's name."""

    def __init__(self, shown: str, calls: Sequence[Any] = CALLS) -> None:
        self._shown, self._calls = shown, calls

    def __call__(self, request: ModelRequest) -> Answer:
        results = results_of(request)
        call = self.next_call(results) if request.tools else None  # without tools, the client asks for a title
        if call is None:
            return Text(DONE)
        tool, arguments = call
        name = self._shown.format(tool)
        if name not in request.tools:
            return self._search(request)
        try:
            given = {key: resolved(value, results) for key, value in arguments.items()}
        except (KeyError, TypeError):
            return Text(f"stopped before call {len(results) + 1}: an earlier result contains no id")
        if "wait_for_previous" in json.dumps(request.tools[name]):  # Gemini adds it to every tool
            given["wait_for_previous"] = True
        return Call(f"call_{len(results)}", name, given)

    def next_call(self, results: Sequence[str]) -> Any:
        """The call after these results: [tool, arguments]. None at the end."""
        return self._calls[len(results)] if len(results) < len(self._calls) else None

    def _search(self, request: ModelRequest) -> Answer:
        """Searches for the tools: Claude Code declares a tool only after a search for it."""
        wanted = [self._shown.format(tool) for tool in dict.fromkeys(tool for tool, _ in self._calls)]
        if "ToolSearch" in request.tools and SEARCH not in request.results:
            return Call(SEARCH, "ToolSearch", {"query": f"select:{','.join(wanted)}", "max_results": len(wanted)})
        return Text(f"stopped: {wanted[0]} is not among the {len(request.tools)} tools offered")
