"""Writes the golden files: the schema, annotations, scope and requests of each action, and the `tools/list` answer.

With --check it writes nothing and exits with status 1 if a file differs, is missing or belongs to no action.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sikkerkey_actions
import sikkerkey_mcp
from tools.examples import ROOT, Arguments, examples

DIRECTORY = ROOT / "tests" / "golden"
LISTING = "tools-list.json"
NOW_MS = 1_767_225_600_000  # relative times in examples count from here


def golden_files() -> dict[str, str]:
    """Maps the name of each golden file to its text."""
    files = {
        f"{tool.name}.{action.name}.json": _text(_facts(tool, action))
        for tool in sikkerkey_mcp.TOOLS
        for action in tool.actions
    }
    return {**files, LISTING: _text({"tools": [sikkerkey_mcp.tool_listing(tool) for tool in sikkerkey_mcp.TOOLS]})}


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _facts(tool: sikkerkey_mcp.Tool, action: sikkerkey_mcp.Action) -> sikkerkey_mcp.JsonObject:
    return {
        "description": f"{sikkerkey_actions.call_signature(action)}: {action.text}",
        "scope": action.scope,
        "inferred": action.inferred,
        **({"own": True} if action.own else {}),
        "mints": action.mints,
        "warning": action.warning,
        "answer": action.answer,
        **({"looks": list(action.look.reads)} if action.look else {}),
        "annotations": sikkerkey_actions.behaviour_hints([action.effect], open_world=tool.open_world),
        "schema": {
            "type": "object",
            "properties": {arg.name: sikkerkey_actions.arg_schema(arg) for arg in action.args},
            "required": [arg.name for arg in action.args if arg.required],
        },
        "examples": {
            kind: {"arguments": arguments, **_requests(tool, action, arguments)}
            for kind, arguments in examples(tool, action).items()
        },
    }


def _requests(tool: sikkerkey_mcp.Tool, action: sikkerkey_mcp.Action, arguments: Arguments) -> sikkerkey_mcp.JsonObject:
    """The requests of a call; none for an action of this program's own, which is answered from many reads."""
    given = sikkerkey_mcp.check_arguments(tool, action, arguments, NOW_MS)
    if action.own:
        return {}
    requests = [_facts_of(request) for request in sikkerkey_mcp.build_requests(action, given)]
    return {"request": requests[0]} if len(requests) == 1 else {"requests": requests}


def _facts_of(request: sikkerkey_mcp.Request) -> sikkerkey_mcp.JsonObject:
    body = None if request.body is None else json.loads(request.body)
    return {"method": request.method, "path": request.path, "body": body}


def differences(directory: Path, files: dict[str, str]) -> list[str]:
    """How the contents of `directory` differ from `files`, one line per difference."""
    found = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*")}
    lines = [f"{name} is missing" for name in files if name not in found]
    lines += [f"{name} differs" for name in files if name in found and found[name] != files[name]]
    return lines + [f"{name} belongs to no action" for name in sorted(found) if name not in files]


def write(directory: Path, files: dict[str, str]) -> None:
    """Makes `directory` contain exactly `files`; does not rewrite unchanged files."""
    directory.mkdir(exist_ok=True)
    for path in directory.glob("*"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main(arguments: list[str], directory: Path = DIRECTORY) -> int:
    """Runs the command line and returns the exit status."""
    files = golden_files()
    if arguments != ["--check"]:
        write(directory, files)
        return 0
    lines = differences(directory, files)
    for line in lines:
        print(f"golden: {line}", file=sys.stderr)
    if lines:
        print("hint: run `make golden` and review the diff", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
