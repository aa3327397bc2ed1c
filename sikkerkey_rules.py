"""What a few rows of the table need beyond their arguments: rules on several of them, bodies, looks, reasons to ask.

A rule takes the checked arguments and raises ArgumentError. A body makes the members of the request from them. Looks
and reasons may read from the vault first, whose answers may lack any member.
"""

from __future__ import annotations

from typing import Any

from sikkerkey_actions import Arguments, Ask, Look, is_id
from sikkerkey_core import ArgumentError, JsonObject, ServiceError, clean, parse_json, to_json

# ---------------------------------------------------------------------------------------------------------------------
# rules, bodies and answers
# ---------------------------------------------------------------------------------------------------------------------

PREFER_PERSON = "with fromPerson true, a person types the value and it does not pass through this conversation"


def name_or_preview(given: Arguments) -> None:
    """The name confirms a deletion, so only a preview needs none."""
    if not given.get("preview") and "confirmName" not in given:
        raise ArgumentError("confirmName is required unless preview is true")


def only_preview(given: Arguments) -> JsonObject | None:
    """With preview true nothing else is sent: `confirmName` beside it could turn a report into a deletion."""
    if given.get("preview"):
        return {"preview": True}
    return {"confirmName": given["confirmName"]} if "confirmName" in given else None


def one_source(given: Arguments) -> None:
    """One of `value`, `generateRandom` and `fromPerson`, as far as the action takes them."""
    named = [name for name in ("value", "generateRandom", "fromPerson") if given.get(name) not in (None, False)]
    if len(named) > 1:
        raise ArgumentError(f"{named[0]} cannot be combined with {named[1]} true")
    if not named:
        generated = " or generateRandom" if "generateRandom" in given else ""
        raise ArgumentError(f"value is required unless fromPerson{generated} is true", PREFER_PERSON)


def source_fits_fields(given: Arguments) -> None:
    """One source, and a value that has the fields which are named."""
    one_source(given)
    _value_fits_fields(given)


# The axes of a policy that limit nothing until they are enabled: the switch of each, and its other arguments.
AXIS_SWITCHES = {
    "timeWindowEnabled": ("timeWindowStart", "timeWindowEnd", "timeWindowTimezone", "timeWindowDays"),
    "ipAllowlistEnabled": ("ipAllowlistCidrs",),
    "rateCapEnabled": ("maxReadsPerDay", "maxReadsPerMinute"),
    "coSignEnabled": ("coSignMachineId", "coSignWindowSeconds"),
}


def axes_switched(given: Arguments) -> None:
    """An axis has its switch."""
    for switch, names in AXIS_SWITCHES.items():
        for name in names:
            if name in given and switch not in given:
                hint = f"set {switch} to true; false keeps {name} without effect"
                raise ArgumentError(f"{name} limits nothing without {switch}", hint)


def _value_fits_fields(given: Arguments) -> None:
    names = given.get("fieldNames")
    if not names or given.get("fromPerson"):
        return
    try:
        value = parse_json(given["value"].encode("utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ArgumentError("value must be a JSON object in a string, with exactly the keys that fieldNames lists")


def _one_target(given: Arguments) -> None:
    if "existingSecretId" in given:
        for name in ("projectId", "name"):
            if name in given:
                raise ArgumentError(f"{name} cannot be combined with existingSecretId")
    elif not ("projectId" in given and "name" in given):
        raise ArgumentError("either existingSecretId or both projectId and name are required")


def one_target_with_static_fields(given: Arguments) -> None:
    """A schedule is for a known secret or for a new one, of which a person types the fields that are not generated."""
    _one_target(given)
    if not given.get("fromPerson"):
        return
    if "staticFields" in given:
        raise ArgumentError("staticFields cannot be combined with fromPerson true")
    if not set(given.get("fieldNames", ())) - set(given.get("fields", ())):
        rule = "fromPerson needs fieldNames with all fields, and fields with those of them that the vault generates"
        raise ArgumentError(rule, "a person types the others")


def target_as_secret_id(given: Arguments) -> JsonObject:
    """With the vault's name for the secret that exists."""
    return {"secretId" if name == "existingSecretId" else name: value for name, value in given.items()}


def one_source_or_random(given: Arguments) -> None:
    """One source; only a random value has a length and a set of characters."""
    one_source({"generateRandom": False, **given})
    for name in ("length", "charset"):
        if name in given and not given.get("generateRandom"):
            raise ArgumentError(f"{name} requires generateRandom true")


def value_or_length(given: Arguments) -> JsonObject:
    """What the vault takes: no projectId, and generateRandom only if it is true."""
    unsent = {"projectId"} if given.get("generateRandom") else {"projectId", "generateRandom"}
    return {name: value for name, value in given.items() if name not in unsent}


def note_or_empty(given: Arguments) -> JsonObject:
    """An empty note clears it."""
    return {"note": given.get("note", "")}


def newest_first(given: Arguments) -> JsonObject:
    """Asks for the newest rows first."""
    return {**given, "sortDir": "desc"}


def page_or_offset(given: Arguments) -> None:
    """Two ways to continue a list exclude each other."""
    if "page" in given and "offset" in given:
        raise ArgumentError("offset cannot be combined with page")


def from_before_to(given: Arguments) -> None:
    """The start of a span precedes its end."""
    if "from" in given and "to" in given and given["from"] >= given["to"]:
        raise ArgumentError("from must be before to", "a date stands for its first moment, 00:00 UTC")


def page_of_a_span(given: Arguments) -> None:
    """Both rules of a list of entries."""
    from_before_to(given)
    page_or_offset(given)


def secret_or_machine(given: Arguments) -> None:
    """One of two subjects."""
    if ("secret" in given) is ("machine" in given):
        raise ArgumentError("either secret or machine is required, not both")


def some_subject_in_a_span(given: Arguments) -> None:
    """At least one subject, and a span."""
    from_before_to(given)
    if given.keys().isdisjoint(("secret", "machine", "agent")):
        raise ArgumentError("secret, machine or agent is required; several are combined")


def activity_if_wanted(answer: Any, given: Arguments, now_ms: int) -> Any:
    """`whoami` with the current time, and with the agent's audit entries only on request: they are most of it."""
    if not isinstance(answer, dict) or not answer:
        return answer
    kept = {name: each for name, each in answer.items() if name != "recentAudit" or given.get("activity")}
    return {**kept, "time": now_ms}


# ---------------------------------------------------------------------------------------------------------------------
# looks: what a few writes read first
# ---------------------------------------------------------------------------------------------------------------------

PROJECTS_SEARCHED_MAX = 50  # for a secret whose project is not given: one request for each


def list_in(answer: Any) -> list[Any]:
    """An answer that is a list, or the first list in an object; empty if there is none."""
    members = answer.values() if isinstance(answer, dict) else [answer]
    return next((member for member in members if isinstance(member, list)), [])


def _rows_in(answer: Any) -> list[JsonObject]:
    """The objects with an id in the list of an answer."""
    return [row for row in list_in(answer) if isinstance(row, dict) and is_id(row.get("id"))]


def _require_fields(secret: Any) -> None:
    """Refuses to replace every field of a structured secret, whose metadata or schedule is `secret`."""
    names = secret.get("fieldNames") if isinstance(secret, dict) else None
    if isinstance(names, list) and names:
        rule = f"fields is required, because the secret is structured; it has: {clean(', '.join(map(to_json, names)))}"
        hint = "without fields, every field is replaced, host and user names included: name the fields to generate"
        raise ArgumentError(rule, hint)


def _fields_before_rotation(given: Arguments, ask: Ask) -> None:
    if not given.get("fields"):
        secret = {name: given[name] for name in ("projectId", "secretId")}
        _require_fields(ask("manage_secrets", "get", secret))


def _fields_before_schedule(given: Arguments, ask: Ask) -> None:
    if "existingSecretId" not in given:
        _refuse_known_name(given, ask)
    elif not given.get("fields"):
        _require_fields(_find_secret(given["existingSecretId"], ask))


def _find_secret(secret_id: str, ask: Ask) -> Any:
    """The metadata of a secret in any project; None if it is not found."""
    for project in _rows_in(ask("manage_projects", "list", {}))[:PROJECTS_SEARCHED_MAX]:
        try:
            return ask("manage_secrets", "get", {"projectId": project["id"], "secretId": secret_id})
        except ServiceError as error:
            if error.status != 404:
                raise
    return None


def _fields_before_changed_schedule(given: Arguments, ask: Ask) -> None:
    if given.get("fields") or given.get("enabled") is False:
        return
    schedule = ask("manage_secrets", "dynamic_get", {"secretId": given["secretId"]})
    if not (isinstance(schedule, dict) and schedule.get("fields")):
        _require_fields(schedule)


def _refuse_known_name(given: Arguments, ask: Ask) -> None:
    """The vault would store a second secret of the same name."""
    rows = _rows_in(ask("manage_secrets", "list", {"projectId": given["projectId"]}))
    same = [row for row in rows if row.get("name") == given["name"]]
    if same:
        ids = ", ".join(row["id"] for row in same[:3])
        canary = ", a canary" if same[0].get("type") == "canary" else ""
        hint = (
            "nothing was stored; update_value replaces the value of that secret, dynamic_create with existingSecretId "
            "schedules it; for a second secret choose another name"
        )
        raise ArgumentError(f"name belongs to a secret of this project already: {ids}{canary}", hint)


def _canaries_among(given: Arguments, ask: Ask) -> JsonObject | None:
    if not given["secretIds"]:
        return None
    projects = given.get("projectIds", [given.get("projectId")])[:PROJECTS_SEARCHED_MAX]
    rows = [row for project in projects for row in _rows_in(ask("manage_secrets", "list", {"projectId": project}))]
    canaries = [row["id"] for row in rows if row.get("type") == "canary" and row["id"] in given["secretIds"]]
    if not canaries:
        return None
    subject = f"{canaries[0]} is a canary" if len(canaries) == 1 else f"{', '.join(canaries)} are canaries"
    effect = "when a machine reads it, the vault raises an alarm and freezes what the canary is set to freeze"
    return {"notice": f"{subject}: {effect}. A program that exports all its secrets reads it."}


LOOK_AT_FIELDS = Look(("manage_secrets.get",), _fields_before_rotation)
LOOK_BEFORE_SCHEDULE = Look(
    ("manage_secrets.list", "manage_projects.list", "manage_secrets.get"), _fields_before_schedule
)
LOOK_AT_SCHEDULE = Look(("manage_secrets.dynamic_get",), _fields_before_changed_schedule)
LOOK_FOR_NAME = Look(("manage_secrets.list",), _refuse_known_name)
LOOK_FOR_CANARIES = Look(("manage_secrets.list",), _canaries_among)


# ---------------------------------------------------------------------------------------------------------------------
# reasons: why a person has to confirm a call, and for which calls of an action
# ---------------------------------------------------------------------------------------------------------------------

CANNOT_BE_UNDONE = "This cannot be undone."
WIDENS_ACCESS = "This widens who can read or change secrets."
DISARMS_AN_ALARM = "This turns off an alarm or a limit."


def adds_grants(given: Arguments, ask: Ask) -> bool:
    """Whether a machine may read more than before."""
    pair = {name: given[name] for name in ("projectId", "machineId")}
    granted = [row["id"] for row in _rows_in(ask("manage_project_machines", "grants_get", pair))]
    return not set(given["secretIds"]) <= set(granted)


def drops_alerts(given: Arguments, ask: Ask) -> bool:
    """Whether an action that raised an alert no longer does."""
    known = [row.get("action") if isinstance(row, dict) else row for row in list_in(ask("manage_alerts", "list", {}))]
    return not set(known) <= set(given["enabledActions"])


def switches_an_axis_off(given: Arguments, _ask: Ask) -> bool:
    """Whether a part of a policy no longer applies."""
    return any(name.endswith("Enabled") and value is False for name, value in given.items())


def spares_a_project(given: Arguments, _ask: Ask) -> bool:
    """Whether a canary no longer freezes a project."""
    return False in (given.get("triggerFreezeProject"), given.get("triggerFreezeRelatedProjects"))


def turns_off(given: Arguments, _ask: Ask) -> bool:
    """Whether a webhook is no longer called."""
    return given.get("enabled") is False
