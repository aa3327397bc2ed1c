"""Enrollment tokens, which register short-lived machines, and the machines that enrolled with each."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.responses import Response

from vault.dashboard.fields import UNITS_S, integer, page_number
from vault.dashboard.pages import reach
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import PAGE_SIZE, Row, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import enrollment, machines, project_machines, projects
from vault.domains.machines import Filters
from vault.errors import Refusal

MAX_SECRETS = 100  # of a project, with a checkbox; others are given by id
PLAIN = {
    "name": "",
    "description": "",
    "uses": "1",
    "token_life": "30",
    "token_unit": "days",
    "machine_life": "1",
    "machine_unit": "hours",
    "cidr": "",
    "hostname": "",
    "machine_name": "",
    "more_secrets": "",
}


class Secrets(NamedTuple):
    """The secrets of one project that the form offers."""

    project_id: str
    project_name: str
    options: list[Row]
    total: int


# ---- the list and one token ------------------------------------------------------------------------------------------


def index(visit: Visit) -> Response:
    """The tokens, newest first."""
    page = page_number(visit)
    with visit.desk.reader() as db:
        listed, total = enrollment.listing(db, visit.desk.clock(), PAGE_SIZE, (page - 1) * PAGE_SIZE)
        known = projects.names(db, 0, {each for token in listed for each in _ids(token, "projectIds")})
    return visit.page("enrollment_list.html", tokens=listed, names=known, page=page, pages=page_count(total))


def show(visit: Visit) -> Response:
    """One token, and the machines that enrolled with it."""
    token, page = visit.call("GET", f"/v1/ai/enrollment-tokens/{visit.param('id')}"), page_number(visit)
    with visit.desk.reader() as db:
        known = projects.names(db, 0, token["projectIds"])
        granted = project_machines.secret_names(db, token["secretIds"])
        enrolled, total = machines.listing(
            db, visit.desk.clock(), Filters(token_id=token["id"]), PAGE_SIZE, (page - 1) * PAGE_SIZE
        )
    return visit.page(
        "enrollment_show.html",
        token=token,
        names=known,
        secrets=granted,
        machines=enrolled,
        total=total,
        page=page,
        pages=page_count(total),
    )


def revoke(visit: Visit) -> Response:
    """Revoke a token. Machines that have enrolled with it stay."""
    path, reason = f"/v1/ai/enrollment-tokens/{visit.param('id')}/revoke", visit.field("reason").strip()
    name = visit.call("POST", path, {"reason": reason} if reason else {})["name"]
    return visit.go(f"/enrollment/{visit.param('id')}", f"Revoked {name}. No more machines can enroll with it.")


def _ids(token: Mapping[str, Any], key: str) -> list[str]:
    return list(token[key])


# ---- creating a token ------------------------------------------------------------------------------------------------


def show_new(visit: Visit) -> Response:
    """The form: first the projects, then everything else, with the secrets of these projects."""
    chosen = list(dict.fromkeys(visit.request.query_params.getlist("project") + visit.query("more").split()))
    return _form(visit, chosen, PLAIN) if chosen else _projects(visit)


def _projects(visit: Visit) -> Response:
    with visit.desk.reader() as db:
        choice = reach.project_choice(db)
    return visit.page("enrollment_projects.html", choice=choice)


def _form(
    visit: Visit, project_ids: Sequence[str], given: Mapping[str, str], problem: str = "", chosen: Sequence[str] = ()
) -> Response:
    with visit.desk.reader() as db:
        known = projects.names(db, 0, project_ids)
        offered = [_offered(db, project_id, known[project_id]) for project_id in project_ids if project_id in known]
    if not offered and not problem:
        raise Refusal(404, "there is no such project")
    return visit.page(
        "enrollment_new.html",
        status=400 if problem else 200,
        offered=offered,
        given=given,
        chosen=set(chosen),
        problem=problem,
        units=[(unit, unit) for unit in UNITS_S],
    )


def _offered(db: sqlite3.Connection, project_id: str, name: str) -> Secrets:
    found = listings.secrets_of(db, project_id, 1, size=MAX_SECRETS)
    return Secrets(project_id, name, found.rows, found.total)


def create(visit: Visit) -> Response:
    """Create a token, and show it once."""
    project_ids = list(visit.fields("project"))
    secret_ids = list(dict.fromkeys([*visit.fields("secret"), *visit.field("more_secrets").split()]))
    try:
        created = visit.call("POST", "/v1/ai/enrollment-tokens", _body(visit, project_ids, secret_ids))
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        given = {name: visit.field(name) for name in PLAIN}
        return _form(visit, project_ids, given, _in_words(refusal), secret_ids)
    return visit.page(
        "enrollment_token.html",
        created=created,
        vault_id=visit.desk.store.vault_id,
        url=machine_url(visit.desk.base_url),
        secret_id=secret_ids[0] if secret_ids else "SECRET_ID",
        is_local=visit.desk.base_url.startswith("http:"),
    )


def _body(visit: Visit, project_ids: list[str], secret_ids: list[str]) -> dict[str, Any]:
    optional = {"description": "description", "cidr": "sourceCidr", "hostname": "hostnamePattern"}
    optional["machine_name"] = "namePattern"
    return {
        "name": visit.field("name").strip(),
        "projectIds": project_ids,
        "secretIds": secret_ids,
        "maxUses": _number(visit, "uses", "the number of machines"),
        "tokenLifetimeSeconds": _seconds(visit, "token", "the lifetime of the token"),
        "machineLifetimeSeconds": _seconds(visit, "machine", "the lifetime of each machine"),
        **{key: visit.field(name).strip() for name, key in optional.items() if visit.field(name).strip()},
    }


def _seconds(visit: Visit, name: str, label: str) -> int:
    return _number(visit, f"{name}_life", label) * UNITS_S.get(visit.field(f"{name}_unit"), 1)


def _number(visit: Visit, name: str, label: str) -> int:
    number = integer(visit, name, label)
    if number is None:
        raise Refusal(400, f"{label} must be a whole number")
    return number


WORDS = {
    "name": "the name",
    "maxUses": "the number of machines",
    "tokenLifetimeSeconds": "the lifetime of the token, in seconds,",
    "machineLifetimeSeconds": "the lifetime of each machine, in seconds,",
    "sourceCidr": "the addresses",
    "hostnamePattern": "the hostname pattern",
    "namePattern": "the name pattern",
    "secretIds": "the secrets",
    "projectIds": "the projects",
}


def _in_words(refusal: Refusal) -> str:
    """The message with the labels of the form instead of the keys of the API."""
    key, _, rest = str(refusal).partition(" ")
    return f"{WORDS.get(key, key)} {rest.replace('secrets of the projects in projectIds', 'in the chosen projects')}"


def machine_url(base_url: str) -> str:
    """The vault's address for a machine. The vendor's client accepts plain HTTP only for the name localhost."""
    parts = urlsplit(base_url)
    return f"http://localhost:{parts.port or 80}" if parts.scheme == "http" else base_url


PAGES = (
    Page("GET", "/enrollment", index),
    Page("GET", "/enrollment/new", show_new),
    Page("POST", "/enrollment/create", create),
    Page("GET", "/enrollment/{id}", show),
    Page("POST", "/enrollment/{id}/revoke", revoke),
)
