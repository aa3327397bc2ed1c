"""Example arguments for every action, derived from its row, for the golden files and the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sikkerkey_mcp

ROOT = Path(__file__).resolve().parent.parent

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

# Arguments whose name says more than their kind. All other values follow from the kind and the bounds.
BY_NAME: dict[str, Any] = {
    "projectId": "proj_a1b2c3d4e5",
    "secretId": "sk_a1b2c3d4e5",
    "existingSecretId": "sk_f6g7h8i9j0",
    "canaryId": "sk_k1l2m3n4o5",
    "machineId": UUID,
    "agentId": UUID,
    "coSignMachineId": UUID,
    "secretIds": ["sk_a1b2c3d4e5", "sk_f6g7h8i9j0"],
    "projectIds": ["proj_a1b2c3d4e5"],
    "value": 'søger <nøgle> & "hunter2"',
    "fieldNames": ["user", "password"],
    "fields": ["password"],
    "staticFields": '{"user":"app","port":5432}',
    "timeWindowStart": "22:00",
    "timeWindowEnd": "06:30",
    "timeWindowTimezone": "Europe/Copenhagen",
    "ipAllowlistCidrs": ["203.0.113.0/24", "2001:db8::/32"],
    "cidr": "203.0.113.0/24",
    "sourceCidr": "203.0.113.0/24",
    "sourceIp": "203.0.113.7",
    "email": "new.member@example.com",
    "url": "https://hooks.example.com/sikkerkey",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-02",
    "ttlExpiresAt": "2026-01-02T00:00:00.000Z",
    "offset": 100,
    "bucket": "hour",
    "hostnamePattern": "^ci-[0-9]+$",
    "namePattern": "^runner-",
}
STRUCTURED_VALUE = '{"user":"app","password":"hunter2"}'

Arguments = dict[str, Any]
Examples = dict[str, Arguments]


def example_value(arg: sikkerkey_mcp.Arg) -> Any:
    """A value that `arg` accepts, always the same one."""
    if arg.name in BY_NAME:
        return BY_NAME[arg.name]
    if arg.kind == "boolean":
        return True
    if arg.kind == "integer":
        return max(arg.least or 0, min(arg.most or 20, 20))
    text = arg.choices[0] if arg.choices else _example_text(arg)
    return [text] if arg.kind in ("strings", "ids") else text


def _example_text(arg: sikkerkey_mcp.Arg) -> str:
    if arg.kind in ("id", "ids"):
        return f"{arg.name.lower().removesuffix('s').removesuffix('id')}_a1b2c3d4e5"
    return f"some {arg.name}"


def _select(action: sikkerkey_mcp.Action, names: set[str]) -> Arguments:
    return {arg.name: example_value(arg) for arg in action.args if arg.name in names}


def examples(tool: sikkerkey_mcp.Tool, action: sikkerkey_mcp.Action) -> Examples:
    """Example arguments of an action, by kind.

    `minimal` has the required arguments, `full` all that can be combined. Further kinds cover other combinations that
    an action's rule distinguishes.
    """
    required = {arg.name for arg in action.args if arg.required}
    every = {arg.name for arg in action.args}
    found = {"minimal": _select(action, required), "full": _select(action, every)}
    found["full"].update({name: False for name in ("fromPerson", "toPerson") if name in every})  # nobody is asked
    if action.rule or action.body:
        _apply_rules(f"{tool.name}.{action.name}", action, found)
    name = {"action": action.name} if sikkerkey_mcp.has_actions(tool) else {}
    return {kind: {**name, **arguments} for kind, arguments in found.items()}


def _apply_rules(name: str, action: sikkerkey_mcp.Action, found: Examples) -> None:
    """Adapts `found` to the rules between arguments that single rows have."""
    minimal, full = found["minimal"], found["full"]
    if "preview" in full:
        found["preview"] = {**minimal, "preview": True}
        full["preview"] = False
    if action.vault_pages:
        found["offset"] = {**minimal, "offset": full.pop("offset")}
    if "confirmName" in full:
        minimal["confirmName"] = full["confirmName"]
    if "value" in full:
        minimal["value"] = full["value"]
    if name == "manage_secrets.create":
        full["value"] = STRUCTURED_VALUE
    if name == "manage_secrets.dynamic_create":
        target = {"existingSecretId": full.pop("existingSecretId")}
        minimal.update(_select(action, {"projectId", "name"}))
        found["existing"] = {**target, **{k: v for k, v in full.items() if k not in ("projectId", "name")}}
    if name == "review.access":
        minimal["secret"] = full["secret"]
        found["machine"] = {key: value for key, value in full.items() if key != "secret"}
        del full["machine"]
    if name == "review.reads":
        minimal["secret"] = full["secret"]
    if name == "manage_temporary_secrets.create":
        found["random"] = {key: value for key, value in full.items() if key != "value"}
        found["full"] = {**minimal, "generateRandom": False}
