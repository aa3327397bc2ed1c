"""Calls that a person completes or confirms: what they type or see, so that the model does not.

Such a call becomes a ticket (see sikkerkey_tickets), described in the vault's own names. The page, a command or this
server completes it: whoever has the person sends the request. This module is imported by the first call that may
need a person. It imports modules of this project, but never the server.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sikkerkey_actions import (
    Action,
    Answer,
    Arguments,
    Ask,
    Request,
    Tool,
    build_request,
    check_arguments,
    is_id,
    text_from_name,
)
from sikkerkey_core import (
    MAY_HAVE_BEEN_PROCESSED,
    ArgumentError,
    ConfigError,
    Error,
    JsonObject,
    ServiceError,
    clean,
    program,
    to_json,
)
from sikkerkey_identity import Identity
from sikkerkey_questions import Form, was_nobody_asked
from sikkerkey_results import FOR_A_MODEL, ShownCall, error_result, json_result, render, sanitizer
from sikkerkey_shell import command_line, with_variable
from sikkerkey_tickets import (
    LIFE_S,
    NOT_RECORDED,
    REFUSED,
    CallTooLarge,
    Carried,
    Found,
    Invalid,
    Kind,
    Lines,
    Outcome,
    Ticket,
    Tickets,
    TicketsUnusable,
    TooManyWaiting,
    UnknownCode,
    digest_of,
)

if TYPE_CHECKING:
    from sikkerkey_person_dialog import Caller, PersonDialog

Read = Callable[[str, str, JsonObject], Any]  # by tool, action and arguments; None if it cannot be answered

FROM_PERSON, TO_PERSON, PREVIEW = "fromPerson", "toPerson", "preview"
ONLY_THE_OWNER = "only the vault's owner can change what this agent may do; repeating the call does not help"
CONFIRM_FIELD = "confirm"
DONE: dict[Kind, str] = {"fill": "typed", "show": "shown", "confirm": "confirmed"}  # what the person did
REMOVES = "Removes"
DETAIL_CHARACTERS = 200  # of one line that a person is shown
PREVIEW_COUNTS_MAX = 20


class People:
    """The calls that a person completes or confirms, as tickets in `directory`.

    `level` says which calls must be confirmed, and `browser` whether this program may open one (see `serve --help`).

    `row` finds a row by its tool and action, `identity` says who the agent is now, and `send` sends a request as that
    agent, with a word of DONE for what the person did.
    """

    def __init__(
        self,
        level: str,
        directory: str,
        *,
        browser: bool,
        row: Callable[[str, str], tuple[Tool, Action]],
        identity: Callable[[], Identity],
        send: Callable[[ShownCall, Request, str], Answer],
        now_s: Callable[[], float],
    ) -> None:
        self._level, self._browser = level, browser
        self._row, self._identity, self._send, self._now_s = row, identity, send, now_s
        self._tickets = Tickets(directory, now_s)
        self._dialog: PersonDialog | None = None
        self._lock = threading.Lock()

    @property
    def dialog(self) -> PersonDialog:
        """What brings tickets to the person."""
        import sikkerkey_person_dialog  # not at the top: it loads an HTTP server

        with self._lock:
            if self._dialog is None:
                self._dialog = sikkerkey_person_dialog.PersonDialog(
                    self._tickets, self.carry_out, browser=self._browser
                )
            return self._dialog

    def known(self, call: ShownCall, arguments: JsonObject, caller: Caller) -> JsonObject | None:
        """The result of the same call if a person has completed it since it was made."""
        if call.action.effect == "read":
            return None
        try:
            found = self._tickets.same(self._digest(call, arguments))
        except TicketsUnusable:  # reported by a call that needs a person
            return None
        return self._told(found, caller) if found and found.state == "over" else None

    def awaited(self, code: str, caller: Caller) -> JsonObject:
        """The result of `await_person`. Raises Error."""
        try:
            if self._tickets.find(code).ticket.agent_id != self._identity().agent_id:
                raise UnknownCode
            return self._told(self.dialog.wait(code, caller), caller)
        except UnknownCode:
            raise ArgumentError("there is no call with this code; after an hour it is forgotten") from None
        except TicketsUnusable as error:
            raise _unusable(error) from None

    def completed(self, call: ShownCall, arguments: JsonObject, ask: Ask, caller: Caller) -> JsonObject:
        """The result of a call whose value a person types, or whose credential a person sees. Raises Error."""
        for arg in call.action.args:
            if arg.plaintext and arg.name in call.given:  # no file may hold a value
                hint = "give no value and set fromPerson true, too: who types the value is shown the credential"
                raise ArgumentError(f"{arg.name} cannot be combined with {TO_PERSON} true; nothing was sent", hint)
        self._require_scope(call.action, ask)
        fields = _fields_to_type(call, ask) if call.given.get(FROM_PERSON) else ()
        shows, warning = bool(call.given.get(TO_PERSON)), call.action.warning
        draft = self._draft(call, arguments, ask, warning=warning, fields=fields, shows=shows)
        return self._told(self._complete(draft, caller), caller)

    def confirmed(self, call: ShownCall, arguments: JsonObject, ask: Ask, caller: Caller) -> JsonObject | None:
        """None if the call may be sent; else the result that a person has brought about. Raises Error."""
        if not self._must_confirm(call, ask):
            return None
        draft = self._draft(call, arguments, ask, warning=call.action.warning, shows=call.action.mints)
        agent_id = draft.agent_id
        question = {"type": "boolean", "title": draft.title, "default": False}
        question["description"] = "Nothing happens unless this is ticked."
        form = Form(_as_text(draft), {CONFIRM_FIELD: question}, (CONFIRM_FIELD,))
        reply = caller.ask(form, draft.digest)
        if reply.action == "accept" and reply.content == {CONFIRM_FIELD: True}:
            if self._identity().agent_id != agent_id:
                raise ArgumentError("another agent is installed since the user was asked; nothing was sent")
            caller.person = DONE["confirm"]
            return None
        if not was_nobody_asked(reply):
            caller.person = "refused"
            raise ArgumentError(f"{call.action.name} was not confirmed; nothing was sent", REFUSED)
        if any(arg.plaintext and arg.name in call.given for arg in call.action.args):  # no file may hold a value
            message = f"{call.action.name} needs a person's confirmation; nothing was sent"
            raise ArgumentError(message, "give no value and set fromPerson true: who types the value confirms the call")
        return self._told(self._complete(draft, caller), caller)

    def _must_confirm(self, call: ShownCall, ask: Ask) -> bool:
        action, level = call.action, self._level
        if action.effect == "read" or level == "never" or call.given.get(PREVIEW):
            return False
        if level == "writes" or (level == "destructive" and action.effect == "destructive"):
            return True
        if not action.warning or action.warn_if is None:
            return bool(action.warning)
        try:
            return action.warn_if(call.given, ask)
        except ServiceError as error:
            if not 400 <= error.status < 500:
                raise
            return True  # it cannot be known

    def _require_scope(self, action: Action, ask: Ask) -> None:
        """Refuses a call that the vault would refuse after a person has typed a value for it."""
        me = ask("whoami", "whoami", {})
        scopes = me.get("scopes") if isinstance(me, dict) else None
        if action.scope and isinstance(scopes, list) and action.scope not in scopes:
            raise ServiceError(f"this agent lacks the scope {action.scope}", ONLY_THE_OWNER, 403)

    def _complete(self, draft: Ticket, caller: Caller) -> Found:
        try:
            return self.dialog.complete(draft, caller)
        except TooManyWaiting:
            raise Error("too many calls wait for a person", "wait until some have expired; they do in 10 min") from None
        except CallTooLarge as error:
            raise ArgumentError(
                f"{error}; nothing was sent", "shorten its texts or lists, or make several calls"
            ) from None
        except UnknownCode:
            raise ServiceError(
                "what waited for a person was deleted from this computer", MAY_HAVE_BEEN_PROCESSED
            ) from None
        except TicketsUnusable as error:
            raise _unusable(error) from None

    def _digest(self, call: ShownCall, arguments: JsonObject) -> str:
        agent_id = self._identity().agent_id
        return digest_of(agent_id, call.tool.name, call.action.name, arguments)

    def _draft(
        self,
        call: ShownCall,
        arguments: JsonObject,
        ask: Ask,
        *,
        warning: str = "",
        fields: tuple[str, ...] = (),
        shows: bool = False,
    ) -> Ticket:
        """The ticket of a call, in words for a person. Raises ArgumentError for an id that the vault does not know."""
        identity, action = self._identity(), call.action
        try:
            names = names_of(call.given, functools.partial(_read_or_none, ask))
        except LookupError as error:
            raise ArgumentError(f"{error} is not known to the vault", "look its id up with a list action") from None
        names = {name: clean(text, DETAIL_CHARACTERS) for name, text in names.items()}
        details = [(label_of(name), _with_id(text, call.given[name])) for name, text in names.items()]
        details += _preview_lines(call, ask) if any(arg.name == PREVIEW for arg in action.args) else []
        vault = f"{clean(identity.vault_id, 60)} at {clean(identity.api_url, 100)}"
        details += [("Vault", vault), ("Agent", clean(identity.name, 60) or identity.agent_id)]
        plaintext = {arg.name for arg in action.args if arg.plaintext}
        others = {name: value for name, value in call.given.items() if name not in {*names, *plaintext}}
        shown = {name: clean(_as_shown(value), DETAIL_CHARACTERS) for name, value in others.items()}
        words = {name: _quoted(shown[name]) if isinstance(others[name], str) else shown[name] for name in others}
        title = action.title.format_map({**words, **names})
        hidden = (FROM_PERSON, TO_PERSON, "confirmName")
        return Ticket(
            code="",
            agent_id=identity.agent_id,
            tool=call.tool.name,
            action=action.name,
            arguments={name: value for name, value in arguments.items() if name not in plaintext},
            digest=self._digest(call, arguments),
            title=title or f"{call.tool.title}: {action.text}",
            details=tuple(details),
            quoted=tuple((name, text) for name, text in shown.items() if name not in hidden),
            warning=warning,
            fields=fields,
            shows=shows,
            expires_s=self._now_s() + LIFE_S,
        )

    def carry_out(self, code: str, values: Mapping[str, str]) -> Carried:
        """Completes the ticket with what a person typed. Called by the page and by the commands.

        Raises Invalid, NotWaiting, UnknownCode, or ConfigError if the agent cannot be used.
        """
        tickets = self._tickets
        ticket = tickets.find(code).ticket
        if self._identity().agent_id != ticket.agent_id:
            raise Invalid("another agent is installed since the assistant made this call")
        try:
            call, request = self._completed_call(ticket, values)
        except ArgumentError as error:
            raise Invalid(str(error)) from None
        tickets.take(ticket.code)
        try:
            outcome, shown = self._sent(call, request, ticket)
        except Invalid:
            tickets.give_back(ticket.code)
            raise
        except BaseException:
            tickets.finish(ticket.code, NOT_RECORDED)
            raise
        tickets.finish(ticket.code, outcome)
        return Carried(outcome, shown)

    def _sent(self, call: ShownCall, request: Request, ticket: Ticket) -> tuple[Outcome, Lines]:
        """How the request of a completed call ended. Raises Invalid if it was not sent and may be tried again."""
        try:
            return _outcome(call, ticket, self._send(call, request, DONE[ticket.kind]))
        except ServiceError as error:
            if error.hint == MAY_HAVE_BEEN_PROCESSED:
                return Outcome("unclear", str(error), {}), ()
            if error.status == 0:
                raise Invalid(f"nothing was sent: {error}") from None
            return Outcome("failed", error.full_text(), {}), ()

    def _completed_call(self, ticket: Ticket, values: Mapping[str, str]) -> tuple[ShownCall, Request]:
        """The call of a ticket with the values. Raises ArgumentError."""
        tool, action = self._row(ticket.tool, ticket.action)
        arguments = {name: value for name, value in ticket.arguments.items() if name != FROM_PERSON}
        if ticket.fields:
            if set(values) != set(ticket.fields) or not all(values.values()):
                raise ArgumentError("every field needs a value")
            plaintext = next(arg for arg in action.args if arg.plaintext)
            as_text = values[""] if ticket.fields == ("",) else to_json(dict(values))
            arguments[plaintext.name] = dict(values) if plaintext.kind == "object" else as_text
        now_ms = int(self._now_s() * 1000)
        given = check_arguments(tool, action, arguments, now_ms)
        sanitize = sanitizer(action, given, arguments, hidden_visible=True)
        call = ShownCall(tool, action, given, sanitize, FOR_A_MODEL, now_ms)
        return call, build_request(action, given)

    def _told(self, found: Found, caller: Caller) -> JsonObject:
        """What the model is told of a ticket."""
        ticket, outcome = found.ticket, found.outcome
        if found.state != "over":
            caller.person = "asked"
            return self._waiting(ticket)
        if outcome:
            caller.person = "refused" if outcome.state == "refused" else DONE[ticket.kind]
        self._tickets.delivered(ticket.code)
        if outcome is None:
            raise ArgumentError(
                "no person answered in time; nothing was sent", "ask the user before you repeat the call"
            )
        if outcome.state == "done":
            return json_result({"status": "done", "message": outcome.message, **outcome.answer})
        if outcome.state == "refused":
            raise ArgumentError(f"nothing was sent: {outcome.message}")
        hint = MAY_HAVE_BEEN_PROCESSED if outcome.state == "unclear" else ""
        raise ServiceError(outcome.message, hint)

    def _waiting(self, ticket: Ticket) -> JsonObject:
        command = in_this_home(f"{command_line(program())} {ticket.kind} {ticket.code}")
        has_page = self.dialog.has_page(ticket.code)
        page = ", or to use the page that has opened if it shows this code" if has_page else ""
        members = {
            "status": "waiting",
            "code": ticket.code,
            "expiresInSeconds": max(int(ticket.expires_s - self._now_s()), 0),
            "command": command,
            "hint": "Nothing was sent. Ask the user to run the command in a terminal of their own"
            f"{page}; then call manage_secrets.await_person with the code.",
        }
        result = json_result(members)
        if ticket.kind != "confirm":
            return result
        refusal = f"{ticket.title}: this needs a person's confirmation; nothing was done"
        hint = f"the user confirms it with: {command}; then call manage_secrets.await_person with code {ticket.code}"
        return error_result(ArgumentError(refusal, hint))


def _unusable(error: TicketsUnusable) -> ConfigError:
    return ConfigError(clean(str(error)), "nothing was sent; the user must repair that directory")


def in_this_home(command: str) -> str:
    """A command that finds the tickets of this program, also in a terminal without its environment."""
    home = os.environ.get("SIKKERKEY_HOME")
    return with_variable("SIKKERKEY_HOME", home, command) if home else command


def _read_or_none(ask: Ask, tool: str, action: str, arguments: Arguments) -> Any:
    """The answer of a read, or None if the agent may not ask. Raises ServiceError, also for what does not exist."""
    try:
        return ask(tool, action, arguments)
    except ServiceError as error:
        if error.status != 404 and 400 <= error.status < 500:
            return None
        raise


def _fields_to_type(call: ShownCall, ask: Ask) -> tuple[str, ...]:
    """What the person types: one value without a name, or the fields of a structured secret."""
    given = call.given
    if "fieldNames" in given:
        return tuple(name for name in given["fieldNames"] if name not in given.get("fields", ())) or ("",)
    if "secretId" not in given:
        return ("",)
    secret = _read_or_none(ask, "manage_secrets", "get", {name: given[name] for name in ("projectId", "secretId")})
    names = secret.get("fieldNames") if isinstance(secret, dict) else None
    return tuple(filter(lambda name: isinstance(name, str), names)) if isinstance(names, list) and names else ("",)


def _preview_lines(call: ShownCall, ask: Ask) -> list[tuple[str, str]]:
    """What the vault's preview says would be removed."""
    report = ask(call.tool.name, call.action.name, {**call.given, PREVIEW: True})
    members = [report, *report.values()] if isinstance(report, dict) else []
    counts = [
        f"{text_from_name(clean(name, 40)).rstrip('.').lower()}: {count:,}"
        for each in members
        if isinstance(each, dict)
        for name, count in each.items()
        if isinstance(count, int) and not isinstance(count, bool) and count
    ]
    return [(REMOVES, ", ".join(counts[:PREVIEW_COUNTS_MAX]))] if counts else []


def _with_id(name: str, value: Any) -> str:
    """A name and its id; a list of names as it is."""
    return f"{name} ({value})" if isinstance(value, str) and name != value else name


def _quoted(text: str) -> str:
    """`text` in quotation marks that it cannot end itself, to go on in this program's words: a name may be hostile."""
    return json.dumps(text, ensure_ascii=False)


def _as_shown(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


def _as_text(ticket: Ticket) -> str:
    """The question about a call, for a dialog of the client. Claude Code shows its first three lines at first."""
    details = sorted(ticket.details, key=lambda line: line[0] != REMOVES)
    lines = [f"{label}: {text}" for label, text in details]
    quoted = [f'{label}, given by the assistant: "{text}"' for label, text in ticket.quoted]
    return "\n".join([f"{ticket.title}?", *filter(None, [ticket.warning]), *lines, *quoted])


def _outcome(call: ShownCall, ticket: Ticket, answer: Answer) -> tuple[Outcome, Lines]:
    """How a completed call ended, and the credentials in its answer, which only the person sees."""
    result = render(call, [answer])
    members: JsonObject = result.get("structuredContent", {})
    if ticket.kind == "confirm":
        return Outcome("done", "a person confirmed it", members), ()
    known = learned(members)
    if not ticket.shows:
        return Outcome("done", "a person typed the value, and the vault stored it", known), ()
    shown = tuple((name, text) for name, text in members.items() if isinstance(text, str) and name not in known)
    return Outcome("done", "the vault created it, and only a person saw the credential", known), shown


# What a call is about, in the vault's own names.


class Named(NamedTuple):
    """Where the name of an id is found: an action, and the arguments that it takes from the call."""

    label: str
    tool: str
    action: str
    takes: tuple[str, ...] = ()


NAMED_BY = {
    "projectId": Named("Project", "manage_projects", "list"),
    "secretId": Named("Secret", "manage_secrets", "get", ("projectId", "secretId")),
    "policyId": Named("Policy", "manage_policies", "get", ("projectId", "policyId")),
    "canaryId": Named("Canary", "manage_canaries", "get", ("canaryId",)),
    "machineId": Named("Machine", "manage_machines", "get", ("machineId",)),
    "agentId": Named("Agent", "manage_ai_agents", "get", ("agentId",)),
    "tokenId": Named("Enrollment token", "manage_enrollment", "get", ("tokenId",)),
    "webhookId": Named("Webhook", "manage_webhooks", "get", ("webhookId",)),
    "memberId": Named("Member", "manage_team", "list"),
    "entryId": Named("Entry", "manage_ipallowlist", "list"),
}
IN_TRASH = Named("Secret", "manage_trash", "list")
NAME_MEMBERS = ("name", "email", "url", "cidr", "label")
IDS_SHOWN = 10


def names_of(arguments: Mapping[str, Any], read: Read) -> dict[str, str]:
    """The vault's names for the ids among the arguments, by argument; of lists of ids, the first ones.

    Raises LookupError with the argument for an id that the vault does not know.
    """
    found = {}
    for argument, value in arguments.items():
        if argument in NAMED_BY:
            name = name_of(argument, value, arguments, read)
            found[argument] = _quoted(name) if name else str(value)
        elif argument in ("secretIds", "projectIds") and isinstance(value, list):
            found[argument] = _names_in_list(argument, value, arguments, read)
    return found


def label_of(argument: str) -> str:
    """The label of an id among the arguments, for people."""
    labels = {"secretIds": "Secrets", "projectIds": "Projects"}
    return NAMED_BY[argument].label if argument in NAMED_BY else labels[argument]


def name_of(argument: str, value: Any, arguments: Mapping[str, Any], read: Read) -> str:
    """The vault's name for an id, empty if it cannot be read. Raises LookupError if the vault does not know the id."""
    named = NAMED_BY[argument]
    if not set(named.takes) <= set(arguments):
        named = IN_TRASH  # a secret's id stands alone only there
    answer = read(named.tool, named.action, {name: arguments[name] for name in named.takes})
    row = answer if named.takes else next((row for row in _rows(answer) if row.get("id") == value), None)
    if row is None and answer is not None:
        raise LookupError(argument)
    members = row if isinstance(row, dict) else {}
    return next((members[name] for name in NAME_MEMBERS if isinstance(members.get(name), str)), "")


def _names_in_list(argument: str, ids: list[Any], arguments: Mapping[str, Any], read: Read) -> str:
    if argument == "projectIds":
        rows = _rows(read("manage_projects", "list", {}))
    else:
        projects = arguments.get("projectIds", [arguments.get("projectId")])[:IDS_SHOWN]
        rows = [row for project in projects for row in _rows(read("manage_secrets", "list", {"projectId": project}))]
    names = {row.get("id"): row.get("name") for row in rows}
    known = [(each, names.get(each)) for each in ids[:IDS_SHOWN]]
    shown = [_quoted(name) if isinstance(name, str) and name else str(each) for each, name in known]
    more = f" and {len(ids) - IDS_SHOWN} more" if len(ids) > IDS_SHOWN else ""
    return ", ".join(shown) + more if ids else "none"


def _rows(answer: Any) -> list[JsonObject]:
    members = answer.values() if isinstance(answer, dict) else [answer]
    lists = [member for member in members if isinstance(member, list)]
    return [row for member in lists for row in member if isinstance(row, dict)]


def learned(answer: Any) -> JsonObject:
    """What a model may know of the answer to a call that a person completed: ids, versions and times."""
    members = answer if isinstance(answer, dict) else {}
    return {
        name: value
        for name, value in members.items()
        if (name == "id" or name.endswith(("Id", "ersion", "At"))) and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return is_id(value) or re.fullmatch("[0-9]{4}-[0-9-]{5}T[0-9:.]{8,12}Z", value) is not None
    return isinstance(value, int) and not isinstance(value, bool)
