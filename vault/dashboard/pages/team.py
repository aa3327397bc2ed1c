"""The team: members with their rights in projects, invitations, and the owner's own address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import page_number
from vault.dashboard.queries import listings
from vault.dashboard.queries.listings import PAGE_SIZE, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import team
from vault.errors import Refusal, VaultError

MAX_INVITES = 50
RIGHTS = {
    "machines.view": "see machines",
    "machines.add": "add machines",
    "machines.remove": "remove machines",
    "machines.configure": "change grants",
}
IS_MEMBER = "member"  # of a project; the rights come on top


def index(visit: Visit) -> Response:
    """The members, and the invitations that nobody has answered."""
    return _index(visit)


def _index(visit: Visit, problem: str = "", problem_of: str = "") -> Response:
    members, page = visit.call("GET", "/v1/ai/team")["members"], page_number(visit)
    with visit.desk.reader() as db:
        invites = team.overview(db, visit.desk.clock())
        address = team.owner_email(db) or ""
    pending = [each for each in invites if each["state"] == "pending"]
    answered = [each for each in reversed(invites) if each["state"] != "pending"]
    start = (page - 1) * PAGE_SIZE
    return visit.page(
        "team_list.html",
        status=400 if problem else 200,
        members=members[start : start + PAGE_SIZE],
        pending=pending[:MAX_INVITES],
        pending_count=len(pending),
        answered=answered[:MAX_INVITES],
        address=visit.field("email") if problem_of == "owner" else address,
        invited=visit.field("email") if problem_of == "invite" else "",
        problem=problem,
        problem_of=problem_of,
        page=page,
        pages=page_count(len(members)),
    )


def invite(visit: Visit) -> Response:
    """Invite a person."""
    email = visit.field("email").strip()
    try:
        invited = visit.call("POST", "/v1/ai/team/invites", {"email": email})
    except Refusal as refusal:
        return _index(visit, str(refusal), "invite")
    return visit.go("/team", f"Invited {invited['email']}. The invitation expires after 7 days.")


def accept(visit: Visit) -> Response:
    """Accept an invitation for the invitee."""
    with visit.desk.transaction() as db:
        member = team.accept(db, visit.desk.clock(), visit.param("id"), actor=visit.desk.actor)
    return visit.go(f"/team/{member['memberId']}", f"{member['email']} is now a member. Choose the projects here.")


def decline(visit: Visit) -> Response:
    """Decline an invitation for the invitee."""
    with visit.desk.transaction() as db:
        declined = team.decline(db, visit.desk.clock(), visit.param("id"), actor=visit.desk.actor)
    return visit.go("/team", f"Declined the invitation of {declined['email']}.")


def cancel(visit: Visit) -> Response:
    """Take an invitation back."""
    email = visit.call("POST", f"/v1/ai/team/invites/{visit.param('id')}/cancel")["email"]
    return visit.go("/team", f"Withdrew the invitation of {email}.")


def set_owner(visit: Visit) -> Response:
    """Set the owner's address."""
    try:
        with visit.desk.transaction() as db:
            email = team.set_owner_email(db, visit.desk.clock(), visit.field("email").strip(), actor=visit.desk.actor)
    except VaultError as error:
        return _index(visit, str(error), "owner")
    return visit.go("/team", f"Your address is now {email}.")


# ---- one member ------------------------------------------------------------------------------------------------------


def show(visit: Visit) -> Response:
    """A member, and the rights in each project."""
    member = _member(visit)
    permissions = visit.call("GET", f"/v1/ai/team/{member['memberId']}/permissions")
    rights = {each["projectId"]: set(each["permissions"]) for each in permissions}
    with visit.desk.reader() as db:
        found = listings.projects(db, page_number(visit))
    return visit.page(
        "team_member.html",
        member=member,
        projects=found.rows,
        rights=rights,
        names=RIGHTS,
        page=found.page,
        pages=found.pages,
    )


def save(visit: Visit) -> Response:
    """Change the rights that were ticked or unticked. What the form did not show stays as it is."""
    member = _member(visit)
    before, after = _by_project(visit.fields("was")), _by_project(visit.fields("may"))
    changed = [each for each in {**before, **after} if before.get(each) != after.get(each)]
    with visit.desk.transaction() as db:  # all of them, or none
        call = visit.desk.as_call(db)
        for project_id in changed:
            rights = after.get(project_id)
            chosen = [each for each in team.PERMISSIONS if each in (rights or ())]
            change = team.permissions_remove if rights is None else team.permissions_set
            body = {"memberId": member["memberId"], "permissions": chosen}
            change(replace(call, params={"projectId": project_id, "memberId": member["memberId"]}, body=body))
    message = (
        f"Saved the rights of {member['email']} in {len(changed)} projects." if changed else "Nothing was changed."
    )
    return visit.go(f"/team/{member['memberId']}", message.replace(" 1 projects", " 1 project"))


def remove(visit: Visit) -> Response:
    """Remove a member from the team and from all projects."""
    email = visit.call("POST", f"/v1/ai/team/{visit.param('id')}/remove")["email"]
    return visit.go("/team", f"Removed {email} from the team.")


def _member(visit: Visit) -> dict[str, Any]:
    members = visit.call("GET", "/v1/ai/team")["members"]
    member = next((each for each in members if each["memberId"] == visit.param("id")), None)
    if member is None:
        raise Refusal(404, "there is no such member")
    return dict(member)


def _by_project(given: Iterable[str]) -> dict[str, set[str]]:
    """The rights in each project, of fields `project:right`. A right makes a member of the project."""
    found: dict[str, set[str]] = {}
    for each in given:
        project_id, _, right = each.partition(":")
        found.setdefault(project_id, set()).update({right} - {IS_MEMBER})
    return found


PAGES = (
    Page("GET", "/team", index),
    Page("POST", "/team/invite", invite),
    Page("POST", "/team/owner", set_owner),
    Page("POST", "/team/invites/{id}/accept", accept),
    Page("POST", "/team/invites/{id}/decline", decline),
    Page("POST", "/team/invites/{id}/cancel", cancel),
    Page("GET", "/team/{id}", show),
    Page("POST", "/team/{id}/save", save),
    Page("POST", "/team/{id}/remove", remove),
)
