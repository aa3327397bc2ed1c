"""What the scripted model and the SDK clients do with the vault: the calls of a first session, and one to be refused.

Ids come from the results that the client handed on, so a client that loses or garbles them fails.
"""

from __future__ import annotations

import json
from typing import Any

from tools.clients.dialects import Answer, Asked, Call, Say, text_of

MARK = "marked-value-8d0c47"
MARKED_VALUE = f'{MARK} søger <nøgle> & "quotes" \\ \u2028 🔑\nsecond line '
PROJECT_NAME = 'Client trial <æ> & "quotes" 🔑'
PROMPT = "Set up a project called Client trial in SikkerKey and store the database password in it."
DONE = "The project is set up."
SEARCH = "call_search"

# [tool, arguments]; {"from": [CALL, KEY...]} is taken from an earlier result, as tests/support/sdk_session.py reads it.
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
    """The text in a list of content blocks that a client handed on as JSON (Continue); other text as it is."""
    try:
        blocks = json.loads(text)
    except ValueError:
        return text
    return text_of(blocks) if isinstance(blocks, list) else text


def object_in(text: str) -> Any:
    """The JSON object in what the model was given; some clients put lines around it. None where there is none."""
    start = text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except ValueError:
        return None


def results_of(asked: Asked) -> list[str]:
    """What the model was given for each call of the script, in order."""
    return [plain(text) for call, text in asked.results.items() if call != SEARCH]


def resolved(value: Any, results: list[str]) -> Any:
    """`value`, or what it refers to in an earlier result. Raises KeyError or TypeError where that does not hold it."""
    if not isinstance(value, dict):
        return value
    number, *keys = value["from"]
    found = object_in(results[number])
    for key in keys:
        found = found[key]
    return found


class Script:
    """Answers a conversation with the next call. `shown` is a tool's name in this client, {} standing for ours."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __call__(self, asked: Asked) -> Answer:
        results = results_of(asked)
        if not asked.tools or len(results) == len(CALLS):  # without tools it is a request on the side
            return Say(DONE)
        tool, arguments = CALLS[len(results)]
        name = self._shown.format(tool)
        if name not in asked.tools:
            return self._search(asked)
        try:
            given = {key: resolved(value, results) for key, value in arguments.items()}
        except (KeyError, TypeError):
            return Say(f"stopped before call {len(results) + 1}: an earlier result holds no id")
        if "wait_for_previous" in json.dumps(asked.tools[name]):  # Gemini adds it to every tool
            given["wait_for_previous"] = True
        return Call(f"call_{len(results)}", name, given)

    def _search(self, asked: Asked) -> Answer:
        """Claude Code shows a tool only after a search for it."""
        wanted = [self._shown.format(tool) for tool in dict.fromkeys(tool for tool, _ in CALLS)]
        if "ToolSearch" in asked.tools and SEARCH not in asked.results:
            return Call(SEARCH, "ToolSearch", {"query": f"select:{','.join(wanted)}", "max_results": len(wanted)})
        return Say(f"stopped: {wanted[0]} is not among the {len(asked.tools)} tools that are offered")
