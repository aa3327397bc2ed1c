"""The action table of the client and the route table of the vault agree, in both directions.

Actions of the program's own have no route; they are answered from other actions.
"""

from __future__ import annotations

import sikkerkey_mcp
from vault.domains.agents import SCOPES
from vault.schema import ROUTES

ACTIONS = [(tool, action) for tool in sikkerkey_mcp.TOOLS for action in tool.actions if not action.own]


def test_every_action_has_its_route_with_the_same_scope() -> None:
    routes = {(route.method, route.path): route.scope for route in ROUTES if route.caller == "agent"}
    wanted = {(action.method, action.path): action.scope for _, action in ACTIONS}
    assert set(wanted) - set(routes) == set(), "the vault has no route for these actions"
    assert {key: routes[key] for key in wanted} == wanted


def test_every_agents_route_has_its_action() -> None:
    wanted = {(action.method, action.path) for _, action in ACTIONS}
    routes = {(route.method, route.path) for route in ROUTES if route.caller == "agent"}
    assert routes - wanted == set(), "the table has no action for these routes of the vault"


def test_routes_take_what_actions_send() -> None:
    """Each side has its own copy of the rules, so that one mistake cannot hide at both ends; the names must agree."""
    fields = {(route.method, route.path): set(route.fields) for route in ROUTES}
    for tool, action in ACTIONS:
        if (action.method, action.path) in fields and not action.body:
            sent = {arg.name for arg in action.args if not arg.local} - set(sikkerkey_mcp.path_parameters(action.path))
            assert sent <= fields[action.method, action.path], f"{tool.name}.{action.name}"


def test_scopes_of_the_table_are_the_scopes_of_the_vault() -> None:
    assert {action.scope for _, action in ACTIONS} - {None} == set(SCOPES)
