"""One secret: what is known about it, its versions, who reads it, and everything that can be done with it.

Values come in through masked fields and go out only in `reveals`.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import UNITS_S, integer, is_ticked, page_number, values_in
from vault.dashboard.pages import projects
from vault.dashboard.pages.policies import in_words
from vault.dashboard.queries import listings, names
from vault.dashboard.queries.listings import Row
from vault.dashboard.templating import MAX_CHOICES, interval
from vault.dashboard.web import HOME, Page, Visit
from vault.domains import policies, project_machines, secrets
from vault.domains.secrets import GeneratorOptions, check_names, generate_string
from vault.errors import Refusal
from vault.inputs import checked
from vault.router import Call

KINDS = ("typed", "generated", "structured")
FIELD_COUNTS = (4, 10, 25, secrets.MAX_FIELDS)
VERSIONS_SHOWN = 20
ENTRIES_SHOWN = 15


def require(visit: Visit) -> Row:
    """The secret of the path. Raises Refusal."""
    with visit.desk.reader() as db:
        secret = listings.secret(db, visit.param("secret"))
    if secret["projectId"] != visit.param("project"):
        raise Refusal(404, "no such secret")
    return secret


def page_path(secret: Row) -> str:
    """The path of a secret's page below /dashboard."""
    return f"/projects/{secret['projectId']}/secrets/{secret['id']}"


def api_path(secret: Row) -> str:
    """The path of a secret in the API."""
    return f"/v1/ai/projects/{secret['projectId']}/secrets/{secret['id']}"


def can_reveal(visit: Visit) -> bool:
    """Whether values may be shown at all."""
    with visit.desk.reader() as db:
        return visit.reveals and not secrets.is_reveal_forbidden(db)


# ---- new -------------------------------------------------------------------------------------------------------------


def show_new(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form for a new secret. A refused form comes back with everything but the values."""
    project = projects.require(visit)
    kind = visit.field("kind", visit.query("kind", KINDS[0]))
    given = visit.query("rows", visit.field("rows"))
    return visit.page(
        "secrets_new.html",
        status=problem.status if problem else 200,
        project=project,
        kind=kind if kind in KINDS else KINDS[0],
        count=next((number for number in FIELD_COUNTS if str(number) == given), FIELD_COUNTS[0]),
        counts=FIELD_COUNTS,
        problem=str(problem or ""),
    )


def create(visit: Visit) -> Response:
    """Create a secret from a typed or generated value, or from fields."""
    project_id = visit.param("project")
    try:
        made, remark = _make(visit, project_id)
    except Refusal as refusal:
        return show_new(visit, refusal)
    return visit.go(f"/projects/{project_id}/secrets/{made['id']}", f"Created {made['name']}.{remark}")


def _make(visit: Visit, project_id: str) -> tuple[Row, str]:
    body: dict[str, Any] = {"name": visit.field("name").strip(), "note": visit.field("note").strip()}
    remark = ""
    if visit.field("kind") == "structured":
        fields, remark = _new_fields(visit)
        body |= {"value": json.dumps(fields, ensure_ascii=False), "fieldNames": list(fields)}
    elif visit.field("kind") == "generated":
        body["value"] = generate_string(generator(visit))
    else:
        typed, remark = values_in(visit, {"value": "the value"})
        body["value"] = typed["value"]
        if not body["value"]:
            raise Refusal(400, "the value is empty: type it, or let the vault generate one")
    made: Any = visit.desk.run(
        "create a secret", _create, {"projectId": project_id}, checked(body, secrets.CREATE_FIELDS)
    )
    return made, remark


def _create(call: Call) -> object:
    refuse_known_name(call.db, call.params["projectId"], call.body["name"])
    return secrets.create(call)


def _new_fields(visit: Visit) -> tuple[dict[str, str], str]:
    """The names and values of the rows that have a name, and a remark about the values. Raises Refusal."""
    rows = range(secrets.MAX_FIELDS)
    given = {number: visit.field(f"name{number}").strip() for number in rows}
    values, remark = values_in(visit, {f"value{number}": f"the value of {given[number] or 'a row'}" for number in rows})
    fields: dict[str, str] = {}
    check_names([name for name in given.values() if name], "the fields")
    for number in rows:
        name, value, generates = given[number], values[f"value{number}"], is_ticked(visit, f"generate{number}")
        if not name and (value or generates):
            raise Refusal(400, f"row {number + 1} has a value but no name: type the values again")
        if name and value and generates:
            raise Refusal(400, f"field {name} has a value, and Generate is ticked: choose one of them")
        if name and not value and not generates:
            raise Refusal(400, f"field {name} has no value: type it, or tick Generate")
        if name:
            fields[name] = generate_string(GeneratorOptions(charset="alphanumeric")) if generates else value
    if not fields:
        raise Refusal(400, "name at least one field")
    return fields, remark


def refuse_known_name(db: sqlite3.Connection, project_id: str, name: str) -> None:
    """The vault would store a second secret of the same name. Raises Refusal."""
    if listings.with_name(db, project_id, name):
        raise Refusal(
            409, "this project already has a secret with this name: choose another name, or replace its value"
        )


def generator(visit: Visit) -> GeneratorOptions:
    """The options of a form that generates a value. Raises Refusal."""
    length = integer(visit, "length", "the length")
    body: dict[str, Any] = {"length": GeneratorOptions().length if length is None else length}
    body["charset"] = visit.field("charset") or GeneratorOptions().charset
    if visit.fields("fields"):
        body["fields"] = list(visit.fields("fields"))
    return GeneratorOptions().updated(checked(body, secrets.ROTATE_FIELDS))


# ---- the page --------------------------------------------------------------------------------------------------------


def show(visit: Visit) -> Response:
    """The secret's page."""
    secret = require(visit)
    with visit.desk.reader() as db:
        project = listings.project(db, secret["projectId"])
        readers = listings.readers(db, secret["id"], visit.desk.clock(), page_number(visit))
        entries = listings.latest_entries(db, secret["id"], ENTRIES_SHOWN)
        known = names.in_entries(db, entries)
    versions = visit.call("GET", f"{api_path(secret)}/versions")
    binding = visit.call("GET", f"/v1/ai/secrets/{secret['id']}/binding")
    schedule = _schedule(visit, secret)
    return visit.page(
        "secrets.html",
        project=project,
        secret=secret,
        path=page_path(secret),
        readers=readers,
        entries=entries,
        known=known,
        versions=versions if visit.query("versions") == "all" else versions[:VERSIONS_SHOWN],
        version_count=len(versions),
        binding=binding,
        policy=_policy(visit, secret, binding),
        schedule=schedule,
        is_fixed=secret["kind"] == "canary" or bool(schedule and schedule["enabled"]),
        can_reveal=can_reveal(visit),
        now_ms=visit.desk.clock(),
    )


def _schedule(visit: Visit, secret: Row) -> Row | None:
    if secret["type"] != "managed":
        return None
    found: Row = visit.call("GET", f"/v1/ai/dynamic-secrets/{secret['id']}")
    return found


def _policy(visit: Visit, secret: Row, binding: Row) -> str:
    """What the bound policy means."""
    if not binding["policyId"]:
        return ""
    policy = visit.call("GET", f"/v1/ai/projects/{secret['projectId']}/policies/{binding['policyId']}")
    return in_words(visit, policy)


# ---- changes ---------------------------------------------------------------------------------------------------------


def _form(template: str, *, forbids: Callable[[Row], str] = lambda _secret: "") -> Callable[..., Response]:
    """A page with a form about a secret. `forbids` says why the form is of no use for it."""

    def shown(visit: Visit, problem: Refusal | None = None, **more: Any) -> Response:
        secret = require(visit)
        if forbids(secret):
            raise Refusal(409, forbids(secret))
        with visit.desk.reader() as db:
            project = listings.project(db, secret["projectId"])
        status = problem.status if problem else 200
        values = {"secret": secret, "project": project, "path": page_path(secret), "problem": str(problem or "")}
        return visit.page(template, status=status, **values, **more)

    return shown


def _is_canary(secret: Row) -> str:
    return "the secret is a canary: the vault controls its value" if secret["kind"] == "canary" else ""


_edit_form = _form("secrets_edit.html")
_replace_form = _form("secrets_replace.html", forbids=_is_canary)
_rotate_form = _form("secrets_rotate.html")


def show_edit(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form for the name and the note."""
    secret = require(visit)
    values = {"name": visit.field("name", secret["name"]), "note": visit.field("note", secret["note"])}
    return _edit_form(visit, problem, **values)


def edit(visit: Visit) -> Response:
    """Rename a secret or change its note."""
    secret, name, note = require(visit), visit.field("name").strip(), visit.field("note").strip()
    try:
        visit.desk.run("edit a secret", lambda call: _edit(call, secret, name, note))
    except Refusal as refusal:
        return show_edit(visit, refusal)
    return visit.go(page_path(secret), f"Saved {name}.")


def _edit(call: Call, secret: Row, name: str, note: str) -> None:
    """Save both, or nothing. Raises Refusal."""
    of_secret = dataclasses.replace(call, params={"projectId": secret["projectId"], "secretId": secret["id"]})
    if name != secret["name"]:
        refuse_known_name(call.db, secret["projectId"], name)
        secrets.rename(dataclasses.replace(of_secret, body=checked({"name": name}, {"name": secrets.NAME})))
    if note != secret["note"]:
        secrets.update_note(dataclasses.replace(of_secret, body=checked({"note": note}, {"note": secrets.NOTE})))


def show_replace(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form for a new value. It shows no present one."""
    return _replace_form(visit, problem)


def replace(visit: Visit) -> Response:
    """Replace the value, or those fields of it that are filled in."""
    secret = require(visit)
    try:
        version, remark = _replace(visit, secret, secret["fieldNames"])
    except Refusal as refusal:
        return show_replace(visit, refusal)
    return visit.go(
        page_path(secret), f"Replaced the value of {secret['name']}. The current version is now {version}.{remark}"
    )


def _replace(visit: Visit, secret: Row, field_names: Sequence[str] | None) -> tuple[int, str]:
    if field_names is None:
        typed, remark = values_in(visit, {"value": "the value"})
        if not typed["value"]:
            raise Refusal(400, "the value is empty: type the new one")
        made: Row = visit.call("POST", f"{api_path(secret)}/update", {"value": typed["value"]})
        return made["version"], remark
    labels = {f"value{number}": f"the value of {name}" for number, name in enumerate(field_names)}
    values, remark = values_in(visit, labels)
    fields = {name: values[f"value{number}"] for number, name in enumerate(field_names) if values[f"value{number}"]}
    if not fields:
        raise Refusal(400, "fill in at least one field")
    version = visit.desk.run("replace fields", lambda call: secrets.replace_fields(call, secret["id"], fields))
    return version, remark


def show_rotate(visit: Visit, problem: Refusal | None = None) -> Response:
    """How the next value is generated."""
    secret = require(visit)
    schedule = _schedule(visit, secret)
    return _rotate_form(visit, problem, options=_options(visit, schedule), chosen=_chosen(visit, secret, schedule))


def rotate(visit: Visit) -> Response:
    """Generate the next value."""
    secret = require(visit)
    try:
        body = {} if secret["kind"] == "canary" else _generator_body(visit, secret)
        made = visit.call("POST", f"{api_path(secret)}/rotate", body)
    except Refusal as refusal:
        return show_rotate(visit, refusal)
    return visit.go(page_path(secret), f"Rotated {secret['name']}. The current version is now {made['version']}.")


def _generator_body(visit: Visit, secret: Row) -> dict[str, Any]:
    """Length, character set and fields as the API takes them. Raises Refusal."""
    options = generator(visit)
    body: dict[str, Any] = {"length": options.length, "charset": options.charset}
    if secret["fieldNames"]:
        if not options.fields:
            raise Refusal(400, "tick at least one field to generate")
        body["fields"] = list(options.fields)
    return body


def _options(visit: Visit, schedule: Row | None) -> Mapping[str, object]:
    """The length and character set that a form begins with."""
    usual: Mapping[str, Any] = schedule or GeneratorOptions()._asdict()
    return {
        "length": visit.field("length", str(usual["length"])),
        "charset": visit.field("charset", str(usual["charset"])),
    }


def _chosen(visit: Visit, secret: Row, schedule: Row | None) -> Sequence[str]:
    """The fields that are ticked: all, unless a schedule or a refused form says otherwise."""
    if visit.request.method == "POST":
        return visit.fields("fields")
    return (schedule and schedule["fields"]) or secret["fieldNames"] or ()


def roll_back(visit: Visit) -> Response:
    """Make the value of an old version the next one."""
    secret = require(visit)
    old = integer(visit, "version", "the version") or 0
    made = visit.call("POST", f"{api_path(secret)}/rollback", {"version": old})
    return visit.go(
        page_path(secret), f"Rolled back {secret['name']}: version {made['version']} has the value of version {old}."
    )


def delete(visit: Visit) -> Response:
    """Move a secret to the trash."""
    secret = require(visit)
    visit.call("POST", f"{api_path(secret)}/delete")
    message = f"Moved {secret['name']} to the trash. You can restore it for 30 days."
    return visit.go(f"/projects/{secret['projectId']}", message)


# ---- schedule --------------------------------------------------------------------------------------------------------


def show_schedule(visit: Visit, problem: Refusal | None = None) -> Response:
    """The form of a rotation schedule."""
    secret = require(visit)
    schedule = _schedule(visit, secret)
    every, unit = _every(schedule["intervalSeconds"] if schedule else 30 * UNITS_S["days"])
    return _schedule_form(
        visit,
        problem,
        schedule=schedule,
        every=visit.field("every", str(every)),
        unit=visit.field("unit", unit),
        options=_options(visit, schedule),
        chosen=_chosen(visit, secret, schedule),
    )


_schedule_form = _form("secrets_schedule.html", forbids=_is_canary)


def set_schedule(visit: Visit) -> Response:
    """Create or change a schedule."""
    secret = require(visit)
    schedule = _schedule(visit, secret)
    try:
        body, interval_s = _generator_body(visit, secret), _interval_s(visit)
        if schedule is None:
            visit.call(
                "POST", "/v1/ai/dynamic-secrets", {**body, "secretId": secret["id"], "intervalSeconds": interval_s}
            )
        else:
            changed = {} if interval_s == schedule["intervalSeconds"] else {"intervalSeconds": interval_s}
            visit.call("POST", f"/v1/ai/dynamic-secrets/{secret['id']}/update", {**body, **changed})
    except Refusal as refusal:
        return show_schedule(visit, refusal)
    return visit.go(page_path(secret), f"{secret['name']} rotates every {interval(interval_s)}.")


def switch_schedule(visit: Visit) -> Response:
    """Pause or resume a schedule."""
    secret, enabled = require(visit), visit.field("enabled") == "yes"
    visit.call("POST", f"/v1/ai/dynamic-secrets/{secret['id']}/update", {"enabled": enabled})
    return visit.go(page_path(secret), f"{'Resumed' if enabled else 'Paused'} the schedule of {secret['name']}.")


def delete_schedule(visit: Visit) -> Response:
    """Delete a schedule. The secret keeps its value."""
    secret = require(visit)
    visit.call("POST", f"/v1/ai/dynamic-secrets/{secret['id']}/delete")
    return visit.go(page_path(secret), f"Deleted the schedule of {secret['name']}. Its value has not changed.")


def _every(interval_s: int) -> tuple[int, str]:
    """An interval in the largest unit that fits exactly."""
    for unit, size in reversed(UNITS_S.items()):
        if interval_s % size == 0:
            return interval_s // size, unit
    return interval_s, "seconds"


def _interval_s(visit: Visit) -> int:
    number = integer(visit, "every", "the interval")
    if number is None:
        raise Refusal(400, "the interval is missing")
    interval_s = number * UNITS_S.get(visit.field("unit"), 1)
    if not 300 <= interval_s <= 30 * UNITS_S["days"]:
        raise Refusal(400, "the interval must be from 5 minutes to 30 days")
    return interval_s


# ---- machines and policy ---------------------------------------------------------------------------------------------


def show_readers(visit: Visit) -> Response:
    """The machines of the project, each with a tick if it may read the secret."""
    secret = require(visit)
    with visit.desk.reader() as db:
        project = listings.project(db, secret["projectId"])
        found = listings.possible_readers(db, project["id"], secret["id"], visit.desk.clock(), page_number(visit))
    address = f"{HOME}{page_path(secret)}/machines?"
    return visit.page(
        "secrets_readers.html", secret=secret, project=project, path=page_path(secret), found=found, address=address
    )


def set_readers(visit: Visit) -> Response:
    """Grant and revoke, for the machines that the page showed."""
    secret = require(visit)
    offered, wanted = visit.fields("offered"), visit.fields("machine")
    gained, lost = visit.desk.run(
        "readers", lambda call: project_machines.set_readers(call, secret["projectId"], secret["id"], offered, wanted)
    )
    return visit.go(
        page_path(secret), f"Saved the machines that may read {secret['name']}: {gained} added, {lost} removed."
    )


def show_policy(visit: Visit) -> Response:
    """The policies of the project, to bind one."""
    secret = require(visit)
    found = visit.call("GET", f"/v1/ai/projects/{secret['projectId']}/policies")
    binding = visit.call("GET", f"/v1/ai/secrets/{secret['id']}/binding")
    shown = found[: MAX_CHOICES + 1]
    options = [(policy["id"], policy["name"]) for policy in shown]
    return _policy_form(visit, policies=shown, options=options, binding=binding, describe=policies.describe)


_policy_form = _form("secrets_policy.html")


def set_policy(visit: Visit) -> Response:
    """Bind a policy, or none."""
    secret = require(visit)
    with visit.desk.reader() as db:
        policy_id = names.id_of(db, "policy", visit.field("policy"), secret["projectId"])
    path = f"/v1/ai/secrets/{secret['id']}/binding"
    if policy_id:
        bound = visit.call("POST", path, {"policyId": policy_id})
        return visit.go(page_path(secret), f"Bound {bound['policyName']} to {secret['name']}.")
    if visit.call("GET", path)["policyId"]:
        visit.call("POST", f"{path}/delete")
    return visit.go(page_path(secret), f"No policy is bound to {secret['name']}.")


ALL, ONE = "/projects/{project}/secrets", "/projects/{project}/secrets/{secret}"

PAGES = (
    Page("GET", ALL + "/new", show_new),
    Page("POST", ALL + "/new", create),
    Page("GET", ONE, show),
    Page("GET", ONE + "/edit", show_edit),
    Page("POST", ONE + "/edit", edit),
    Page("GET", ONE + "/replace", show_replace),
    Page("POST", ONE + "/replace", replace),
    Page("GET", ONE + "/rotate", show_rotate),
    Page("POST", ONE + "/rotate", rotate),
    Page("POST", ONE + "/rollback", roll_back),
    Page("POST", ONE + "/delete", delete),
    Page("GET", ONE + "/schedule", show_schedule),
    Page("POST", ONE + "/schedule", set_schedule),
    Page("POST", ONE + "/schedule/switch", switch_schedule),
    Page("POST", ONE + "/schedule/delete", delete_schedule),
    Page("GET", ONE + "/machines", show_readers),
    Page("POST", ONE + "/machines", set_readers),
    Page("GET", ONE + "/policy", show_policy),
    Page("POST", ONE + "/policy", set_policy),
)
