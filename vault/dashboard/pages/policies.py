"""Policies: conditions for reads by machines, what they mean in words, and a trial of a read."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import integer, is_ticked, lines, refuse_changed, state_of, with_labels
from vault.dashboard.pages import projects
from vault.dashboard.queries import listings, names, trials
from vault.dashboard.queries.listings import Row
from vault.dashboard.templating import MAX_CHOICES
from vault.dashboard.web import Page, Visit
from vault.domains import axes, policies
from vault.errors import Refusal
from vault.inputs import checked

SHOWN = 200  # policies of a project, and secrets of a policy
DATE_AND_TIME = "%Y-%m-%dT%H:%M"
DAYS = tuple(zip(axes.DAYS, ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")))


def index(visit: Visit) -> Response:
    """The policies of a project, each with what it means."""
    project = projects.require(visit)
    found = visit.call("GET", f"/v1/ai/projects/{project['id']}/policies")
    shown = [{**policy, "words": in_words(visit, policy)} for policy in found[:SHOWN]]
    return visit.page("policies.html", project=project, policies=shown, total=len(found))


def show(visit: Visit) -> Response:
    """One policy with the secrets that it is bound to."""
    project, policy = projects.require(visit), _policy(visit)
    with visit.desk.reader() as db:
        choices = listings.secret_choices(db, project["id"], MAX_CHOICES + 1)
    bound = {secret["id"] for secret in policy["boundSecrets"]}
    return visit.page(
        "policies_one.html",
        project=project,
        policy=policy,
        words=in_words(visit, policy),
        shown=SHOWN,
        choices=[choice for choice in choices if choice[0] not in bound],
    )


def bind(visit: Visit) -> Response:
    """Bind the policy to a secret."""
    policy = _policy(visit)
    with visit.desk.reader() as db:
        secret_id = names.id_of(db, "secret", visit.field("secret"), policy["projectId"])
    visit.call("POST", f"/v1/ai/secrets/{secret_id}/binding", {"policyId": policy["id"]})
    return visit.go(_path(policy), f"Bound {policy['name']} to {_secret_name(visit, secret_id)}.")


def unbind(visit: Visit) -> Response:
    """Unbind the policy of a secret."""
    policy, secret_id = _policy(visit), visit.field("secret")
    if secret_id not in {secret["id"] for secret in policy["boundSecrets"]}:
        raise Refusal(404, "the policy is not bound to this secret")
    visit.call("POST", f"/v1/ai/secrets/{secret_id}/binding/delete")
    return visit.go(_path(policy), f"Unbound {policy['name']} from {_secret_name(visit, secret_id)}.")


def delete(visit: Visit) -> Response:
    """Delete a policy that is bound to nothing."""
    policy = _policy(visit)
    visit.call("POST", f"{_api(policy)}/delete")
    return visit.go(f"/projects/{policy['projectId']}/policies", f"Deleted {policy['name']}.")


# ---- the form --------------------------------------------------------------------------------------------------------


def show_new(visit: Visit) -> Response:
    """The form for a new policy."""
    return _form(visit, projects.require(visit), None, {})


def show_edit(visit: Visit) -> Response:
    """The form of a policy."""
    policy = _policy(visit)
    return _form(visit, projects.require(visit), policy, policy)


def create(visit: Visit) -> Response:
    """Create a policy, or show what it would mean."""
    return _save(visit, None)


def edit(visit: Visit) -> Response:
    """Change a policy, or show what it would mean."""
    return _save(visit, _policy(visit))


def _save(visit: Visit, policy: Row | None) -> Response:
    project, body = projects.require(visit), {}
    try:
        body = _body(visit, policy)
        axes.check(body)
        if visit.field("then") == "preview":
            return _form(visit, project, policy, body, preview=in_words(visit, body))
        if policy is None:
            made = visit.call("POST", f"/v1/ai/projects/{project['id']}/policies", body)
        else:
            words = in_words(visit, policy)
            refuse_changed(visit, _state(policy), f"the policy now says: {words} It")
            params = {"projectId": project["id"], "policyId": policy["id"]}
            made = visit.desk.run("change a policy", policies.replace, params, body)
    except Refusal as refusal:
        return _form(visit, project, policy, body, with_labels(refusal, LABELS))
    saved = visit.call("GET", f"/v1/ai/projects/{project['id']}/policies/{made['id']}")
    return visit.go(_path(saved), f"Saved {saved['name']}: {in_words(visit, saved)}")


def _form(
    visit: Visit, project: Row, policy: Row | None, rules: Row, problem: Refusal | None = None, *, preview: str = ""
) -> Response:
    """The form with what was typed; at first, with the rules of the policy."""
    with visit.desk.reader() as db:
        machines = listings.machine_choices(db, project["id"], MAX_CHOICES + 1)
    return visit.page(
        "policies_form.html",
        status=problem.status if problem else 200,
        project=project,
        policy=policy,
        given=_typed(visit) if visit.request.method == "POST" else _written(rules),
        machines=machines,
        days=DAYS,
        preview=preview,
        state=_state(policy) if policy else "",
        problem=str(problem or ""),
        zone_now=datetime.fromtimestamp(visit.desk.clock() / 1000, timezone.utc).strftime(DATE_AND_TIME),
    )


TEXTS = (
    ("timeWindowStart", "the start"),
    ("timeWindowEnd", "the end"),
    ("timeWindowTimezone", "the time zone"),
)
NUMBERS = (
    ("rateCapEnabled", "maxReadsPerMinute", "the number of reads per minute"),
    ("rateCapEnabled", "maxReadsPerDay", "the number of reads per day"),
    ("coSignEnabled", "coSignWindowSeconds", "the number of seconds"),
    ("", "ttlMaxReads", "the number of reads in total"),
    ("", "rotateAfterReads", "the number of reads before a new value"),
)
# The checkbox of each condition, and what is typed into it.
TICKS = {
    "timeWindowEnabled": ("Only on some days and hours", ("timeWindowStart", "timeWindowEnd")),
    "ipAllowlistEnabled": ("Only from some addresses", ("ipAllowlistCidrs",)),
    "rateCapEnabled": ("Only so often", ("maxReadsPerMinute", "maxReadsPerDay")),
    "coSignEnabled": ("Only if another machine asks as well", ("coSignMachineId", "coSignWindowSeconds")),
}
LABELS = {
    **dict(TEXTS),
    **{key: label for _, key, label in NUMBERS},
    **{tick: f"“{label}”" for tick, (label, _) in TICKS.items()},
    "ipAllowlistCidrs": "the addresses",
    "coSignMachineId": "the second machine",
    "ttlExpiresAt": "the end of the policy",
    "is true": "is ticked",
}


def _body(visit: Visit, policy: Row | None) -> dict[str, Any]:
    """The form as the API takes a policy. Conditions that are not ticked are left out. Raises Refusal."""
    written = _written(policy or {})
    _refuse_unticked(visit, written)
    body: dict[str, Any] = {"name": visit.field("name").strip(), "description": visit.field("description").strip()}
    for tick in TICKS:
        if is_ticked(visit, tick):
            body[tick] = True
    if "timeWindowEnabled" in body:
        body |= {key: _filled(visit, key, label) for key, label in TEXTS}
        body["timeWindowDays"] = [day for day in axes.DAYS if day in visit.fields("timeWindowDays")]
        if not body["timeWindowDays"]:
            raise Refusal(400, "tick at least one day")
    if "ipAllowlistEnabled" in body:
        body["ipAllowlistCidrs"] = lines(visit, "ipAllowlistCidrs")
        if not body["ipAllowlistCidrs"]:
            raise Refusal(400, "list at least one address or network")
    for tick, key, label in NUMBERS:
        number = integer(visit, key, label) if not tick or tick in body else None
        if number is not None:
            body[key] = number
    if "rateCapEnabled" in body and body.keys().isdisjoint(("maxReadsPerMinute", "maxReadsPerDay")):
        raise Refusal(400, "enter the reads per minute or the reads per day")
    if "coSignEnabled" in body and "coSignWindowSeconds" not in body:
        raise Refusal(400, "the number of seconds is missing")
    if "coSignEnabled" in body:
        body["coSignMachineId"] = _filled(visit, "coSignMachineId", "the second machine")
        with visit.desk.reader() as db:
            body["coSignMachineId"] = names.id_of(db, "machine", body["coSignMachineId"])
    if visit.field("ttlExpiresAt"):
        body["ttlExpiresAt"] = _time_ms(visit.field("ttlExpiresAt"))
        if body["ttlExpiresAt"] <= visit.desk.clock() and visit.field("ttlExpiresAt") != written["ttlExpiresAt"]:
            raise Refusal(400, "the end of the policy is in the past")
    return dict(checked(body, policies.CREATE_FIELDS))


def _refuse_unticked(visit: Visit, written: Mapping[str, Any]) -> None:
    """Raise Refusal if something was typed into a condition that is not ticked: it would be left out."""
    for tick, (label, keys) in TICKS.items():
        if not is_ticked(visit, tick) and any(visit.field(key).strip() not in ("", str(written[key])) for key in keys):
            raise Refusal(400, f"a condition is filled in but not ticked: tick “{label}”, or empty its fields")


def _filled(visit: Visit, name: str, label: str) -> str:
    given = visit.field(name).strip()
    if not given:
        raise Refusal(400, f"{label} is missing")
    return given


def _time_ms(given: str) -> int:
    """A date and time in UTC, as a browser sends it. Raises Refusal."""
    try:
        at = datetime.strptime(given[:16], DATE_AND_TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refusal(400, "the end of the policy must be a date and a time") from None
    return int(at.timestamp()) * 1000


def _typed(visit: Visit) -> dict[str, Any]:
    """What was typed, by the names of the fields."""
    keys = ("name", "description", *axes.FIELDS)
    return {**{key: visit.field(key) for key in keys}, "timeWindowDays": visit.fields("timeWindowDays")}


def _written(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of a policy as the form shows them."""
    shown: dict[str, Any] = {key: rules.get(key) or "" for key in ("name", "description", *axes.FIELDS)}
    shown["timeWindowDays"] = rules.get("timeWindowDays") or axes.DAYS[:5]
    shown["timeWindowTimezone"] = shown["timeWindowTimezone"] or "UTC"
    shown["ipAllowlistCidrs"] = "\n".join(rules.get("ipAllowlistCidrs") or ())
    if rules.get("ttlExpiresAt") is not None:
        at = datetime.fromtimestamp(min(rules["ttlExpiresAt"], axes.LAST_DAY_MS) / 1000, timezone.utc)
        shown["ttlExpiresAt"] = at.strftime(DATE_AND_TIME)
    return shown


# ---- the trial -------------------------------------------------------------------------------------------------------


def try_read(visit: Visit) -> Response:
    """Whether a read would pass now. The address is that of the machine's last read, unless another one is given."""
    project = projects.require(visit)
    with visit.desk.reader() as db:
        secret_id = names.id_of(db, "secret", visit.query("secret"), project["id"])
        machine_id = names.id_of(db, "machine", visit.query("machine"))
        secrets = listings.secret_choices(db, project["id"], MAX_CHOICES + 1)
        machines = listings.machine_choices(db, project["id"], MAX_CHOICES + 1)
        if secret_id and secret_id not in dict(secrets):
            secret = listings.secret(db, secret_id)
            if secret["projectId"] != project["id"]:
                raise Refusal(404, "no such secret")
            secrets.insert(0, (secret["id"], secret["name"]))
        last = listings.last_address(db, secret_id, machine_id) if secret_id and machine_id else ""
    address, problem, trial = visit.query("address", last).strip(), "", None
    if address and not _is_address(address):
        problem = "the address is not an IP address"
    elif secret_id and machine_id:
        trial = trials.read(visit.desk, secret_id, machine_id, address or None)
    return visit.page(
        "policies_test.html",
        status=400 if problem else 200,
        project=project,
        secrets=secrets,
        machines=machines,
        chosen=(secret_id, machine_id, address),
        names=(dict(secrets).get(secret_id, ""), dict(machines).get(machine_id, machine_id)),
        trial=trial,
        problem=problem,
    )


def _is_address(given: str) -> bool:
    try:
        ipaddress.ip_address(given)
    except ValueError:
        return False
    return True


# ---- what the pages share --------------------------------------------------------------------------------------------


def _policy(visit: Visit) -> Row:
    found: Row = visit.call("GET", f"/v1/ai/projects/{visit.param('project')}/policies/{visit.param('policy')}")
    return found


def in_words(visit: Visit, policy: Row) -> str:
    """What a policy means, with the name of the machine that it names."""
    with visit.desk.reader() as db:
        known = names.by_ids(db, filter(None, [policy.get("coSignMachineId")]))
    machines = {each.id: each.name for each in known.values()}
    return policies.describe(policy, machines) if "boundSecretCount" in policy else axes.describe(policy, machines)


def _secret_name(visit: Visit, secret_id: str) -> str:
    with visit.desk.reader() as db:
        return str(listings.secret(db, secret_id)["name"])


def _state(policy: Row) -> str:
    return state_of([policy[key] for key in policies.CREATE_FIELDS])


def _path(policy: Row) -> str:
    return f"/projects/{policy['projectId']}/policies/{policy['id']}"


def _api(policy: Row) -> str:
    return f"/v1/ai/projects/{policy['projectId']}/policies/{policy['id']}"


ALL, ONE = "/projects/{project}/policies", "/projects/{project}/policies/{policy}"

PAGES = (
    Page("GET", ALL, index),
    Page("GET", ALL + "/new", show_new),
    Page("POST", ALL + "/new", create),
    Page("GET", ALL + "/test", try_read),
    Page("GET", ONE, show),
    Page("GET", ONE + "/edit", show_edit),
    Page("POST", ONE + "/edit", edit),
    Page("POST", ONE + "/bind", bind),
    Page("POST", ONE + "/unbind", unbind),
    Page("POST", ONE + "/delete", delete),
)
