"""Records an example call and answer of each action for the documentation: short, and the same in each run."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.table_calls import BY_NAME

ITEMS_SHOWN = 2  # of a list; the rest repeats its shape
CHARACTERS_SHOWN = 160
A_TIME_MS, A_TIME = 1_767_225_600_000, "2026-01-01T00:00:00.000Z"
A_CODE = "4F7K"
SHOWN_ONCE = "(a credential, shown once)"
CREDENTIALS = ("token", "passphrase", "secret", "signingSecret")
# UUIDs, and what the local vault generates; the length tells these from words such as manage_enrollment.
IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[a-z]{2,10}_[a-z0-9]{16}\b")
LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost):[0-9]+")


class Recording:
    """For each action, the call whose answer shows most; of equals, the first."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self._ids: dict[str, str] = {}

    def add(self, tool: str, given: Any, result: Any) -> None:
        """Keeps a call, unless there is one already that shows as much."""
        row = BY_NAME[f"{tool}.{given.get('action', tool)}"]
        answer = _content(result)
        given = {name: A_CODE if name == "code" else value for name, value in given.items()}
        call = {"arguments": self._plain(given), "answer": self._plain(_hide(answer) if row.action.mints else answer)}
        name = str(row)
        if name not in self.calls or _weight(call) > _weight(self.calls[name]):
            self.calls[name] = call

    def text(self) -> str:
        """The content of the file, in the order of the table."""
        recorded = {name: self.calls[name] for name in BY_NAME if name in self.calls}
        return json.dumps(recorded, indent=1, ensure_ascii=False) + "\n"

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._plain(key): self._plain(member) for key, member in value.items()}
        if isinstance(value, list):
            return [self._plain(item) for item in value[:ITEMS_SHOWN]]
        if isinstance(value, str):
            return self._plain_text(value)
        return A_TIME_MS if isinstance(value, int) and value > A_TIME_MS // 2 else value

    def _plain_text(self, text: str) -> str:
        text = LOOPBACK.sub(r"http://\1:8300", IDS.sub(lambda found: self._id(found[0]), text))
        text = re.sub(r"\b[0-9]{13}\b", str(A_TIME_MS), text)
        text = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z", A_TIME, text)
        return text if len(text) <= CHARACTERS_SHOWN else text[:CHARACTERS_SHOWN] + "..."

    def _id(self, text: str) -> str:
        prefix, separator, _ = text.rpartition("_")
        number = len(self._ids) + 1
        made = f"{prefix}{separator}{number:010d}" if prefix else f"{number:08x}-0000-4000-8000-000000000000"
        return self._ids.setdefault(text, made)


def _content(result: Any) -> Any:
    if "structuredContent" in result:
        return result["structuredContent"]
    *_, content = result["content"]  # a file follows a line that describes it
    if content["type"] == "resource":
        return {"resource": {**content["resource"], "blob": content["resource"]["blob"][:16] + "..."}}
    return "\n".join(content["text"].splitlines()[: 1 + ITEMS_SHOWN])


def _hide(answer: Any) -> Any:
    token = str(answer.get("token", "no token"))
    shown = {key: value.replace(token, "...") if isinstance(value, str) else value for key, value in answer.items()}
    return {key: SHOWN_ONCE if key in CREDENTIALS else value for key, value in shown.items()}


def _weight(call: Any) -> int:
    """The number of names and kinds that an answer shows."""
    return len(re.findall(r"\w+", str(shape(call["answer"]))))


def shape(value: Any) -> Any:
    """The names and types in a JSON value; for a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in sorted(value.items())}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__
