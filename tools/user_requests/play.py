"""What a model sends and receives while it works on a request: calls, and characters of arguments and results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

JsonObject = dict[str, Any]
CallTool = Callable[[str, JsonObject], JsonObject]  # tool and arguments; returns the result of `tools/call`

LISTS = ("items", "entries", "machines", "members")  # of an answer
PORT = re.compile(r"(http://127\.0\.0\.1):[0-9]+")  # it differs between runs, also in length


class Play:
    """Calls tools as a model does, and counts."""

    def __init__(self, call_tool: CallTool) -> None:
        self._call_tool = call_tool
        self.calls = self.characters = 0

    def __call__(self, tool: str, action: str = "", **arguments: Any) -> Any:
        """The answer of a call, which must succeed: an object, or the text of an answer that is not JSON."""
        result, text = self._count(tool, {"action": action, **arguments} if action else arguments)
        assert not result.get("isError"), f"{tool}.{action}: {text}"
        return result.get("structuredContent", text)

    def every(self, tool: str, action: str, **arguments: Any) -> list[Any]:
        """The rows of a list, followed by `next` to its end."""
        rows: list[Any] = []
        following: JsonObject | None = {}
        while following is not None:
            answer = self(tool, action, **{**arguments, **following})
            rows += rows_of(answer)
            following = answer.get("next")
        return rows

    def every_page(self, tool: str, action: str, **arguments: Any) -> list[Any]:
        """The rows of a list that the vault pages, by page numbers."""
        rows: list[Any] = []
        page, total = 1, 1
        while len(rows) < total:
            answer = self(tool, action, **arguments, page=page)
            rows += rows_of(answer)
            page, total = page + 1, answer["total"]
        return rows

    def _count(self, tool: str, arguments: JsonObject) -> tuple[JsonObject, str]:
        result = self._call_tool(tool, arguments)
        text = "\n".join(each["text"] for each in result["content"])
        self.calls += 1
        self.characters += len(json.dumps(arguments, ensure_ascii=False)) + len(PORT.sub(r"\1:8300", text))
        return result, text


def rows_of(answer: JsonObject) -> list[Any]:
    """The rows of a list's answer."""
    return next(answer[name] for name in LISTS if name in answer)


def named(rows: list[Any], name: str) -> Any:
    """The row of that name; there must be exactly one."""
    [row] = [row for row in rows if row["name"] == name]
    return row
