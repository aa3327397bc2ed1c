"""Names in place of ids in the arguments of a call, and the names of ids for people.

The table of actions says which list an argument is looked up in: the read whose path stands before the argument in the
path of its action, else the list of the tool that gives such an id its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import sikkerkey_mcp
import sikkerkey_person
from sikkerkey_actions import path_parameters
from sikkerkey_cli.matching import COMPLETE_ID, Thing, choose
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import Action, Arg, JsonObject, ServiceError, Tool

OTHER_LISTS = {"inviteId": ("manage_team", "list"), "categoryId": ("support", "categories")}
NAME_MEMBERS = (*sikkerkey_person.NAME_MEMBERS, "title")
PROJECT, EXISTING = "projectId", "existingSecretId"

PAGE_ROWS = 200
PAGES_MAX = 25
WHOLE = sikkerkey_mcp.Presentation(characters=None, hidden_visible=False, exact=True)

Ask = Callable[[str, str, JsonObject], JsonObject]  # a read by tool and action; the members of its answer; raises Error


def asking(tools: sikkerkey_mcp.VaultTools) -> Ask:
    """Reads with the scopes and the restrictions of `tools`."""

    def ask(tool: str, action: str, arguments: JsonObject) -> JsonObject:
        result = tools.answer(tool, {**arguments, "action": action}, sikkerkey_mcp.Context(), WHOLE)
        members: JsonObject = result.get("structuredContent", {})
        return members

    return ask


class Listing(NamedTuple):
    """The read that lists what an argument may be."""

    tool: Tool
    action: Action

    @property
    def needs_project(self) -> bool:
        """Whether such things are listed for one project at a time."""
        return PROJECT in path_parameters(self.action.path)


def is_id_argument(arg: Arg) -> bool:
    """Whether the argument is an id, or a list of ids."""
    return arg.kind in ("id", "ids")


def short_name(name: str) -> str:
    """`project` for `projectId`, `secrets` for `secretIds`."""
    return re.sub("Id(s?)$", r"\1", name)


def kind_of(name: str) -> str:
    """The kind of id that an argument holds, as the name of an argument: `secretId` for `existingSecretId`."""
    one = name.removesuffix("s")
    kinds = (*sikkerkey_person.NAMED_BY, *OTHER_LISTS)
    return next((kind for kind in kinds if one.lower().endswith(kind.lower())), one)


def label_of(name: str) -> str:
    """`machine` for `coSignMachineId`."""
    kind = kind_of(name)
    named = sikkerkey_person.NAMED_BY.get(kind)
    return named.label.lower() if named else short_name(kind)


def listing_for(action: Action, arg: Arg) -> Listing | None:
    """Where the names for an argument of an action are found; None if no list has them."""
    before, is_in_path, _ = action.path.partition(f"/{{{arg.name}}}")
    if is_in_path:
        for tool in sikkerkey_mcp.TOOLS:
            for row in tool.actions:
                if row.effect == "read" and row.rows and row.path in (before, f"{before}/query"):
                    return Listing(tool, row)
    kind = kind_of(arg.name)
    named = sikkerkey_person.NAMED_BY.get(kind)
    place = (named.tool, "list") if named else OTHER_LISTS.get(kind)
    return Listing(*sikkerkey_mcp.find_row(*place)) if place else None


def arguments_by_word(action: Action) -> dict[str, Arg]:
    """The arguments that take names, by both of their spellings. `project` may be needed to look up another one."""
    ids = [arg for arg in action.args if is_id_argument(arg)]
    taken = {arg.name for arg in action.args}
    words = {short_name(arg.name): arg for arg in ids if short_name(arg.name) not in taken}
    listings = [listing_for(action, arg) for arg in ids]
    if taken.isdisjoint((PROJECT, "projectIds")) and any(each and each.needs_project for each in listings):
        words.update(dict.fromkeys((PROJECT, short_name(PROJECT)), sikkerkey_mcp.PROJECT))
    return {**words, **{arg.name: arg for arg in ids}}


class Names:
    """Looks names up for the arguments of one call, with as few reads as possible.

    `known` are the names of ids that were seen on the way. `exactly` is for actions that destroy or replace something.
    """

    def __init__(self, ask: Ask, *, exactly: bool) -> None:
        self._ask, self._exactly = ask, exactly
        self._things: dict[tuple[str, str, str], list[Thing]] = {}
        self.known: dict[str, str] = {}

    def with_ids(self, action: Action, arguments: JsonObject) -> JsonObject:
        """The arguments with ids in place of names. A project that the action does not take is used and left out.

        Raises UsageError for a name that fits nothing, or several things, and Error if the vault cannot be asked.
        """
        found = self.resolved(action, arguments)
        # A secret that exists says itself which project it is in.
        takes_project = any(arg.name == PROJECT for arg in action.args) and EXISTING not in arguments
        return {name: value for name, value in found.items() if takes_project or name != PROJECT}

    def resolved(self, action: Action, arguments: JsonObject) -> JsonObject:
        """Like `with_ids`, with the project in any case."""
        found = dict(arguments)
        own = [arg for arg in action.args if is_id_argument(arg) and arg.name != PROJECT]
        own.sort(key=lambda arg: arg.name != "projectIds")  # projects first: others are looked up in them
        for arg in (sikkerkey_mcp.PROJECT, *own):
            value = arguments.get(arg.name)
            if arg.kind == "id" and isinstance(value, str):
                found[arg.name] = self._id_of(action, arg, value, found)
            elif arg.kind == "ids" and isinstance(value, list):
                found[arg.name] = [
                    self._id_of(action, arg, each, found) if isinstance(each, str) else each for each in value
                ]
        return found

    def _id_of(self, action: Action, arg: Arg, text: str, arguments: JsonObject) -> str:
        if COMPLETE_ID.fullmatch(text) or not text.strip():
            return text
        listing = listing_for(action, arg)
        if listing is None:
            return text
        try:
            things = self.things(listing, arg, arguments)
        except (sikkerkey_mcp.ArgumentError, ServiceError) as error:
            if isinstance(error, ServiceError) and error.status not in (400, 403):
                raise
            if sikkerkey_mcp.is_id(text):  # it may be one: the vault knows
                return text
            message = f"the name of the {label_of(arg.name)} cannot be looked up: {error}"
            raise UsageError(message, f"give its id: {arg.name}=ID") from None
        return choose(text, things, arg.name, label_of(arg.name), exactly=self._exactly).id

    def things(self, listing: Listing, arg: Arg, arguments: Mapping[str, Any]) -> list[Thing]:
        """What an argument may be. Raises Error."""
        if not listing.needs_project:
            return self._listed(listing, arg, {})
        given = arguments.get(PROJECT) or arguments.get("projectIds")
        projects = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        if not projects:
            label = label_of(arg.name)
            message = f"a {label} is looked up in its project, which is not given"
            raise UsageError(message, f"add project=NAME, or give the complete id of the {label}")
        return [thing for project in projects for thing in self._listed(listing, arg, {PROJECT: project})]

    def _listed(self, listing: Listing, arg: Arg, arguments: JsonObject) -> list[Thing]:
        kind = kind_of(arg.name)
        key = (f"{listing.tool.name}.{listing.action.name}", kind, str(arguments.get(PROJECT, "")))
        if key not in self._things:
            rows = self._rows(listing, arguments)
            self._things[key] = [
                Thing(thing_id, name_in(row)) for row in rows if (thing_id := row.get(kind) or row.get("id"))
            ]
            self.known.update({thing.id: thing.name for thing in self._things[key] if thing.name})
        return self._things[key]

    def _rows(self, listing: Listing, arguments: JsonObject) -> list[JsonObject]:
        """Every row of a list. Raises Error."""
        tool, action = listing.tool.name, listing.action
        if not action.vault_pages:
            return _rows_in(self._ask(tool, action.name, arguments))
        rows: list[JsonObject] = []
        for page in range(1, PAGES_MAX + 1):
            found = _rows_in(self._ask(tool, action.name, {**arguments, "page": page, "pageSize": PAGE_ROWS}))
            rows += found
            if len(found) < PAGE_ROWS:
                break
        return rows


def _rows_in(members: JsonObject) -> list[JsonObject]:
    """The objects in the lists of an answer."""
    return [row for each in members.values() if isinstance(each, list) for row in each if isinstance(row, dict)]


def name_in(row: Mapping[str, Any]) -> str:
    """The name of a thing of the vault."""
    return next((row[member] for member in NAME_MEMBERS if isinstance(row.get(member), str)), "")
