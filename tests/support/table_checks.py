"""Mistakes in the action table that a type checker cannot find."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import sikkerkey_actions
import sikkerkey_mcp


def complaints(tools: Sequence[sikkerkey_mcp.Tool]) -> list[str]:
    """Describes every mistake in `tools`."""
    found = [f"{name}: tool twice" for name in _repeated(tool.name for tool in tools)]
    for tool in tools:
        found += [f"{tool.name}: {name} twice" for name in _repeated(action.name for action in tool.actions)]
        fragments = [text for text in _texts(tool) if not re.fullmatch(r"\S.*[.]", text)]
        found += [f"{tool.name}: {text!r} is not a sentence" for text in fragments]
        for action in tool.actions:
            name = f"{tool.name}.{action.name}: "
            found += [name + complaint for complaint in _row_complaints(action)]
            found += [name + complaint for arg in action.args for complaint in _arg_complaints(arg)]
        found += _clashes(tool)
    return found


def _repeated(names: Iterable[str]) -> set[str]:
    names = list(names)
    return {name for name in names if names.count(name) > 1}


def _texts(tool: sikkerkey_mcp.Tool) -> list[str]:
    """What must be a sentence."""
    texts = [tool.text]
    for action in tool.actions:
        texts += [action.text, *(arg.text for arg in action.args)]
    return texts


def _row_complaints(action: sikkerkey_mcp.Action) -> Iterator[str]:
    args = {arg.name: arg for arg in action.args}
    in_path = sikkerkey_mcp.path_parameters(action.path)
    yield from (f"argument {name} twice" for name in _repeated(arg.name for arg in action.args))
    for parameter in in_path:
        if parameter not in args or not args[parameter].required:
            yield f"parameter {parameter} is not a required argument"
        elif args[parameter].kind != "id" and not args[parameter].choices:
            yield f"parameter {parameter} could hold a slash"
    if action.own and (action.method or action.scope or action.body or action.effect != "read"):
        yield "an action of this program's own with a method, scope, body or effect"
    if action.method == "GET" and action.effect != "read":
        yield "a GET that writes"
    sent = {arg.name for arg in action.args if not arg.local}
    if action.method == "GET" and (action.body or sent - set(in_path)):
        yield "a GET with a body"
    if action.look and (action.effect == "read" or action.answer != "json"):
        yield "only a write with a JSON answer looks first"
    if action.scope is None and action.effect != "read":
        yield "writes without a scope"
    if sikkerkey_mcp.IGNORED_ARGUMENT in args or "action" in args:
        yield "an argument with a reserved name"


def _arg_complaints(arg: sikkerkey_mcp.Arg) -> Iterator[str]:
    textual = arg.kind in ("string", "strings")
    if (arg.choices or arg.pattern or arg.most_bytes) and not textual:
        yield f"{arg.name} has a rule that its kind does not know"
    if (arg.least is not None or arg.most is not None) and arg.kind in ("boolean", "object", "time"):
        yield f"{arg.name} has a bound that its kind does not know"
    if arg.least is not None and arg.most is not None and arg.least > arg.most:
        yield f"{arg.name} accepts no value"
    if arg.pattern and not (arg.pattern.startswith("^") and arg.pattern.endswith("$")):
        yield f"{arg.name}'s pattern is not anchored, as it is checked"
    elif arg.pattern and arg.pattern not in sikkerkey_actions.FORMATS:
        yield f"{arg.name}'s pattern has no words for messages"


def _clashes(tool: sikkerkey_mcp.Tool) -> Iterator[str]:
    seen: dict[str, sikkerkey_mcp.Arg] = {}
    for action in tool.actions:
        for arg in action.args:
            known = seen.setdefault(arg.name, arg)
            if sikkerkey_mcp.optional(known) != sikkerkey_mcp.optional(arg):
                yield f"{tool.name}.{action.name}: {arg.name} differs from an earlier row's"
