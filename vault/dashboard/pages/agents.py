"""AI agents: pending ones, what each may do and did, and the tokens that they register with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from starlette.responses import Response

from vault.dashboard.fields import page_number, refuse_changed, state_of
from vault.dashboard.pages import reach
from vault.dashboard.queries import names
from vault.dashboard.queries.listings import PAGE_SIZE, page_count
from vault.dashboard.web import Page, Visit
from vault.domains import agents, made
from vault.errors import Refusal, VaultError

MAX_WAITING = 20
MAX_MADE = 50


# ---- the list --------------------------------------------------------------------------------------------------------


def index(visit: Visit) -> Response:
    """The pending agents, and the others, newest first."""
    page = page_number(visit)
    with visit.desk.reader() as db:
        waiting = agents.waiting(db, MAX_WAITING)
        listed, total = agents.listing(db, PAGE_SIZE, (page - 1) * PAGE_SIZE)
        tokens = agents.waiting_tokens(db, visit.desk.clock())
        known = reach.project_names(db, [*waiting, *listed])
    return visit.page(
        "agents_list.html",
        waiting=waiting,
        agents=listed,
        tokens=len(tokens),
        names=known,
        page=page,
        pages=page_count(total),
        all_scopes=len(agents.SCOPES),
        leads=reach.leads_to_plaintext,
    )


def approve(visit: Visit) -> Response:
    """Approve an agent with the scopes of its token."""
    with visit.desk.transaction() as db:
        agent = agents.approve_as_owner(db, visit.desk.clock(), visit.param("id"), actor=visit.desk.actor)
    return visit.go(_back(visit, agent.id), f"Approved {agent.name}.")


def deny(visit: Visit) -> Response:
    """Reject and delete a pending agent."""
    name = visit.call("POST", f"/v1/ai/ai-agents/{visit.param('id')}/deny")["name"]
    return visit.go("/agents", f"Denied and deleted {name}.")


def _back(visit: Visit, agent_id: str) -> str:
    return "/agents" if visit.field("from") == "list" else f"/agents/{agent_id}"


# ---- one agent -------------------------------------------------------------------------------------------------------


def show(visit: Visit) -> Response:
    """One agent."""
    return _show(visit)


def _show(
    visit: Visit,
    problem: str = "",
    *,
    scopes: Collection[str] | None = None,
    name: str | None = None,
    status: int = 400,
) -> Response:
    """The page of an agent. After a problem it shows what was typed."""
    agent_id = visit.param("id")
    with visit.desk.reader() as db:
        agent = agents.describe(db, agent_id)
        known = names.in_entries(db, agent["recentAudit"])
        things = made.overview(db, visit.desk.clock(), agent_id, MAX_MADE)
        made_count = made.count_all(db, visit.desk.clock(), agent_id)
        if scopes is None:
            choice = reach.project_choice(
                db, agent["projectAllowlist"] or (), limited=agent["projectAllowlist"] is not None
            )
        else:
            choice = reach.project_choice(
                db, visit.fields("project"), limited=visit.field("reach") == "some", more=visit.field("more")
            )
    return visit.page(
        "agents_show.html",
        status=status if problem else 200,
        agent=agent,
        state=_state(agent),
        known=known,
        problem=problem,
        name=agent["name"] if name is None else name,
        scopes=agent["scopes"] if scopes is None else scopes,
        groups=reach.SCOPE_GROUPS,
        reasons=agents.LEADS_TO_PLAINTEXT,
        leads=reach.leads_to_plaintext(agent["scopes"]),
        choice=choice,
        names=dict(choice.options),
        made=things,
        made_count=made_count,
        all_scopes=len(agents.SCOPES),
    )


def _state(agent: Mapping[str, Any]) -> str:
    return state_of(agent["scopes"], agent["projectAllowlist"])


def set_scopes(visit: Visit) -> Response:
    """Replace what an agent may do and which projects it reaches."""
    scopes = visit.fields("scope")
    projects = reach.chosen_projects(visit) if visit.field("reach") == "some" else None
    try:
        with visit.desk.transaction() as db:
            refuse_changed(visit, _state(agents.describe(db, visit.param("id"))), "what the agent may do")
            changed = agents.set_scopes(
                db, visit.desk.clock(), visit.param("id"), scopes, projects, actor=visit.desk.actor
            )
    except VaultError as error:
        return _show(visit, _in_words(error), scopes=scopes)
    except Refusal as refusal:
        if refusal.status != 409:
            raise
        return _show(visit, str(refusal), scopes=scopes, status=409)
    return visit.go(f"/agents/{changed.id}", f"Saved the scopes and projects of {changed.name}.")


def rename(visit: Visit) -> Response:
    """Rename an agent."""
    name = visit.field("name").strip()
    try:
        visit.call("POST", f"/v1/ai/ai-agents/{visit.param('id')}/rename", {"name": name})
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        return _show(visit, str(refusal), name=name)
    return visit.go(f"/agents/{visit.param('id')}", f"Renamed the agent to {name}.")


def disable(visit: Visit) -> Response:
    """Refuse the agent's requests until the owner enables it."""
    agent = _set_enabled(visit, enabled=False)
    return visit.go(f"/agents/{agent.id}", f"Disabled {agent.name}. Only you can enable it again.")


def enable(visit: Visit) -> Response:
    """Enable a disabled agent."""
    agent = _set_enabled(visit, enabled=True)
    return visit.go(f"/agents/{agent.id}", f"Enabled {agent.name}.")


def _set_enabled(visit: Visit, *, enabled: bool) -> Any:
    with visit.desk.transaction() as db:
        return agents.set_enabled(db, visit.desk.clock(), visit.param("id"), enabled=enabled, actor=visit.desk.actor)


def revoke(visit: Visit) -> Response:
    """Delete an agent, and if it was ticked, end everything that it made."""
    agent_id = visit.param("id")
    with visit.desk.transaction() as db:
        ended = made.end_all(db, visit.desk.clock(), agent_id, actor=visit.desk.actor) if visit.field("made") else []
        left = 0 if ended else made.count_all(db, visit.desk.clock(), agent_id)
        agent = agents.revoke_as_owner(db, visit.desk.clock(), agent_id, actor=visit.desk.actor)
    message = f"Revoked {agent.name}."
    if ended:
        message += f" Things that it made, now ended: {len(ended)}."
    elif left:
        message += f" Things that it made, still working: {left}."
    return visit.go("/agents", message)


# ---- tokens ----------------------------------------------------------------------------------------------------------


def tokens(visit: Visit) -> Response:
    """The form for a new token, and the unused tokens."""
    preset = visit.query("preset", "no-plaintext")
    scopes = reach.PRESETS[preset][1] if preset in reach.PRESETS else ()
    return _tokens(visit, scopes=scopes, preset=preset)


def _tokens(visit: Visit, problem: str = "", *, scopes: Collection[str], preset: str = "") -> Response:
    with visit.desk.reader() as db:
        listed = agents.waiting_tokens(db, visit.desk.clock())
        known = reach.project_names(db, listed)
        choice = reach.project_choice(
            db, visit.fields("project"), limited=visit.field("reach") == "some", more=visit.field("more")
        )
    return visit.page(
        "agents_tokens.html",
        status=400 if problem else 200,
        tokens=listed,
        names=known,
        problem=problem,
        name=visit.field("name"),
        scopes=scopes,
        presets=reach.PRESETS,
        preset=preset,
        groups=reach.SCOPE_GROUPS,
        reasons=agents.LEADS_TO_PLAINTEXT,
        choice=choice,
        all_scopes=len(agents.SCOPES),
        leads=reach.leads_to_plaintext,
    )


def create_token(visit: Visit) -> Response:
    """Create a token, and show it once."""
    name, scopes = visit.field("name").strip() or None, visit.fields("scope")
    projects = reach.chosen_projects(visit) if visit.field("reach") == "some" else None
    now_ms = visit.desk.clock()
    try:
        with visit.desk.transaction() as db:
            token = agents.issue_token(db, now_ms, scopes, projects, name, actor=visit.desk.actor)
    except VaultError as error:
        return _tokens(visit, _in_words(error), scopes=scopes)
    return visit.page(
        "agents_token.html",
        token=token,
        name=name,
        url=visit.desk.agent_url or visit.desk.base_url,
        expires_ms=now_ms + agents.TOKEN_LIFE_MS,
        leads=reach.leads_to_plaintext(scopes),
    )


def cancel_token(visit: Visit) -> Response:
    """Make a token unusable."""
    with visit.desk.transaction() as db:
        agents.cancel_token(db, visit.desk.clock(), visit.param("id"), actor=visit.desk.actor)
    return visit.go("/agents/tokens", "Cancelled the token. Nobody can register with it.")


def _in_words(error: VaultError) -> str:
    """The message of an owner's function without its hint, which is about the command line."""
    chosen = {"no scope given": "choose at least one scope", "no project given": "choose at least one project"}
    return chosen.get(str(error), str(error))


PAGES = (
    Page("GET", "/agents", index),
    Page("GET", "/agents/tokens", tokens),
    Page("POST", "/agents/tokens/create", create_token),
    Page("POST", "/agents/tokens/{id}/cancel", cancel_token),
    Page("GET", "/agents/{id}", show),
    Page("POST", "/agents/{id}/approve", approve),
    Page("POST", "/agents/{id}/deny", deny),
    Page("POST", "/agents/{id}/scopes", set_scopes),
    Page("POST", "/agents/{id}/rename", rename),
    Page("POST", "/agents/{id}/disable", disable),
    Page("POST", "/agents/{id}/enable", enable),
    Page("POST", "/agents/{id}/revoke", revoke),
)
