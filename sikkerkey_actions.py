"""What a row of the dispatch table says, and what follows from it: schemas, argument checks, requests.

The table itself is in `sikkerkey_mcp`. Nothing here sends a request or knows MCP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import sikkerkey_redact
from sikkerkey_core import FLOAT_EXACT_MAX, INTEGER_MAX, ArgumentError, JsonObject, parse_json, to_json

# ---------------------------------------------------------------------------------------------------------------------
# rows: what a row of the table says. Paths are below /v1/ai. A {parameter} in a path is filled from the argument of
# that name; all other arguments go into the request body.
# ---------------------------------------------------------------------------------------------------------------------

Kind = Literal["string", "id", "integer", "boolean", "time", "strings", "ids", "object"]
Effect = Literal["read", "write", "destructive"]
AnswerKind = Literal["json", "csv", "file"]
Arguments = dict[str, Any]  # checked arguments by name
Ask = Callable[[str, str, Arguments], Any]  # a read by tool and action; returns the parsed answer, or raises Error

API_ROOT = "/v1/ai"


class Arg(NamedTuple):
    """One argument. `least` and `most` bound an integer's value, a string's characters or a list's items."""

    name: str
    kind: Kind
    text: str
    required: bool = True
    least: int | None = None
    most: int | None = None
    most_bytes: int | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    plaintext: bool = False  # never in a log, an error or an answer
    local: bool = False  # for this program, never sent to the vault
    listed_by: str = ""  # tool.action of the read that lists the words that the vault knows


class Look(NamedTuple):
    """What a write reads before it is sent, with the agent's own scopes. If the vault refuses that, the write is sent.

    `reads` are the actions that `check` may ask for, as tool.action. `check` returns members that are added to the
    answer, or raises ArgumentError: then nothing is written.
    """

    reads: tuple[str, ...]
    check: Callable[[Arguments, Ask], JsonObject | None]


class Action(NamedTuple):
    """One row: what an action does and the request that does it.

    An action of this program's own has no route (method and path are empty): it is answered from several other reads.
    """

    name: str
    method: Literal["GET", "POST", ""]
    path: str
    scope: str | None
    effect: Effect
    text: str
    args: tuple[Arg, ...]
    rule: Callable[[Arguments], None] | None = None  # checks that involve several arguments; raises ArgumentError
    body: Callable[[Arguments], JsonObject | None] | None = None  # if it is not simply what the path leaves over
    look: Look | None = None
    answer: AnswerKind = "json"
    mints: bool = False  # the answer holds a credential that the call itself created
    title: str = ""  # what a person is asked, if a call needs one; {argument} stands for its value or the vault's name
    warning: str = ""  # why a person has to confirm it: it cannot be undone, widens who can read or disarms an alarm
    warn_if: Callable[[Arguments, Ask], bool] | None = None  # whether the warning applies to this call; else it does
    consequence: str = ""  # what a person should know before they agree, if there is no warning
    inferred: bool = False  # no public source shows this route: it follows the conventions of the others
    rows: str = ""  # the member of the answer that is a list of any length; `items` if the answer is a list itself
    vault_pages: bool = False  # the vault sends such a list in pages (page, pageSize), not whole
    select: Callable[[Any, Arguments, int], Any] | None = None  # what of the answer is shown, at this Unix time in ms

    @property
    def own(self) -> bool:
        """True for an action of this program's own."""
        return not self.path


class Tool(NamedTuple):
    """A group of actions under one name. `whoami` alone is a single action and has no `action` argument."""

    name: str
    title: str
    text: str
    actions: tuple[Action, ...]
    open_world: bool = False  # reaches people or servers beyond the vault
    reads_of: str = ""  # with --split-reads: the tool of the table that these actions come from


HH_MM = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
EMAIL = r"^[^@\s]+@[^@\s]+$"
HTTP_URL = r"^https?://[!-~]+$"
FORMATS = {HH_MM: "a time of day as HH:MM", EMAIL: "an e-mail address", HTTP_URL: "an https:// URL"}  # in messages


Headers = dict[str, str]


class Answer:
    """An HTTP response of the vault, read completely. Header names are in lower case."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


# ---------------------------------------------------------------------------------------------------------------------
# requests: input schemas, annotations, argument checks and requests, all derived from the table. Nothing here names a
# tool or an action, reads the clock or uses the network.
# ---------------------------------------------------------------------------------------------------------------------

# No dot, slash, percent sign, space or control character: `..` in a path would lead to another route.
ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
ID_RULE = "an id: 1 to 128 letters, digits, - or _, as an earlier answer gave it"

NAME_MAX_CHARACTERS = 80  # a longer word is not a misspelled name
IGNORED_ARGUMENT = "wait_for_previous"  # Gemini CLI adds it to every call
PAGE_ROWS = 50  # what the vault sends if pageSize is not given
TAKERS_MAX = 5  # actions that take an argument, which a hint names
SIGNATURE_MAX_ARGS = 7  # with more, a description names only the required ones

# Other kinds have the same name. An object is described as its JSON in a string: Google's API refuses a whole listing
# for one object without properties, and does not know additionalProperties.
JSON_TYPES: dict[Kind, str] = {"id": "string", "time": "string", "object": "string", "strings": "array", "ids": "array"}
BOUND_KEYWORDS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
}


class Request(NamedTuple):
    """A request to the vault; `path` is exactly what is signed and sent."""

    method: str
    path: str
    body: bytes | None


def is_id(value: Any) -> bool:
    """True for a string that is safe in a path and as a directory name."""
    return isinstance(value, str) and re.fullmatch(ID, value) is not None


def path_parameters(path: str) -> list[str]:
    """The names of the arguments that a path template contains."""
    return re.findall(r"\{(\w+)\}", path)


def arg_schema(arg: Arg) -> JsonObject:
    """The JSON Schema of one argument. It is flat, because several clients cannot follow `$ref` or `anyOf`."""
    json_type = JSON_TYPES.get(arg.kind, arg.kind)
    schema: JsonObject = {"type": json_type}
    content: JsonObject = {"type": "string"} if json_type == "array" else schema
    if arg.choices:
        content["enum"] = list(arg.choices)
    if arg.pattern:
        content["pattern"] = arg.pattern
    if content is not schema:
        schema["items"] = content
    for keyword, bound in zip(BOUND_KEYWORDS.get(json_type, ()), (arg.least, arg.most)):
        if bound is not None and not arg.local:  # what this program checks for itself makes the listing no longer
            schema[keyword] = bound
    bytes_bound = "" if arg.most_bytes is None else f" At most {arg.most_bytes:,} bytes in UTF-8."  # no keyword says it
    if bytes_bound or arg.text != text_from_name(arg.name):
        schema["description"] = arg.text + bytes_bound
    return schema


def text_from_name(name: str) -> str:
    """`Project id.` for projectId: a description that tells a model no more than the name does."""
    return re.sub("[A-Z]", lambda match: " " + match[0].lower(), name).capitalize() + "."


def has_actions(tool: Tool) -> bool:
    """False for a tool that is a single action of the same name and takes no `action`."""
    return tool.actions[0].name != tool.name


def tool_schema(tool: Tool) -> JsonObject:
    """The union of all actions' arguments. The description says which of them an action needs."""
    properties: JsonObject = {}
    if has_actions(tool):
        names = [action.name for action in tool.actions]
        properties["action"] = {"type": "string", "enum": names}
    for action in tool.actions:
        for arg in action.args:
            if arg.name not in properties:
                properties[arg.name] = arg_schema(arg)
    always = set.intersection(*({arg.name for arg in action.args if arg.required} for action in tool.actions))
    required = [name for name in properties if name == "action" or name in always]
    schema: JsonObject = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def call_signature(action: Action) -> str:
    """`rotate(projectId, secretId, length?, charset?)`; `...` stands for many optional arguments, and for paging."""
    sent = [arg for arg in action.args if not arg.local]
    shown = sent if len(sent) <= SIGNATURE_MAX_ARGS else [arg for arg in sent if arg.required]
    names = [arg.name if arg.required else arg.name + "?" for arg in shown]
    if len(shown) < len(action.args):
        names.append("...")
    return f"{action.name}({', '.join(names)})"


def tool_description(tool: Tool) -> str:
    """What the model reads: the tool's purpose, then a line for each action."""
    if not has_actions(tool):
        return tool.text
    return "\n".join([tool.text, *(f"{call_signature(action)}: {action.text}" for action in tool.actions)])


def behaviour_hints(effects: Sequence[Effect], *, open_world: bool) -> JsonObject:
    """MCP's hints for a set of actions. If left out, clients assume 'destructive, open world'.

    Without idempotentHint they assume that repeating a call does something, which is right for all but reads.
    """
    read_only = all(effect == "read" for effect in effects)
    return {
        "readOnlyHint": read_only,
        "destructiveHint": "destructive" in effects,
        "openWorldHint": open_world,
    }


def tool_listing(tool: Tool) -> JsonObject:
    """The tool's entry in the answer to `tools/list`."""
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool_description(tool),
        "inputSchema": tool_schema(tool),
        "annotations": behaviour_hints([action.effect for action in tool.actions], open_world=tool.open_world),
    }


def did_you_mean(name: Any, known: Sequence[str], cutoff: float = 0.8) -> str:
    """`did you mean NAME?` if `name` is close to one of `known`, else an empty string.

    A cutoff below 0.8 would lead from a guess at reading a value (get_value) to overwriting it (update_value).
    """
    if not isinstance(name, str) or len(name) > NAME_MAX_CHARACTERS:
        return ""
    import difflib  # not at the top: only refusals need it

    names = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), names, 1, cutoff)
    return f"did you mean {names[close[0]]}?" if close else ""


def check_arguments(tool: Tool, action: Action, arguments: JsonObject, now_ms: int) -> Arguments:
    """The checked arguments of `action`, in table order. Relative times count from `now_ms`, Unix milliseconds.

    Raises ArgumentError, whose message names an argument and a rule but never a value.
    """
    arguments = _without_blanks(tool, action, arguments)
    _refuse_unknown(tool, action, arguments)
    given: Arguments = {}
    for arg in action.args:
        if arg.name in arguments:
            given[arg.name] = check_value(arg, arguments[arg.name], now_ms)
        elif arg.required:
            missing = [arg.name for arg in action.args if arg.required and arg.name not in arguments]
            *first, last = missing
            names = f"{', '.join(first)} and {last} are" if first else f"{last} is"
            raise ArgumentError(f"{names} required for {action.name}; {_takes(action)}")
    if action.rule:
        action.rule(given)
    _refuse_plaintext_elsewhere(action, given)
    return given


def _refuse_plaintext_elsewhere(action: Action, given: Arguments) -> None:
    """Raises ArgumentError if a text beside the plaintext holds it: names and notes are shown, logged and searched."""
    plaintext = [given[arg.name] for arg in action.args if arg.plaintext and arg.name in given]
    is_text = {
        arg.name for arg in action.args if arg.kind in ("string", "strings") and not (arg.plaintext or arg.choices)
    }
    texts = [(name, text) for name in given if name in is_text for text in sikkerkey_redact.strings_in(given[name])]
    if not (plaintext and texts):
        return
    holds = sikkerkey_redact.whole_finder(sikkerkey_redact.values_to_redact(sikkerkey_redact.strings_in(plaintext)))
    for name, text in texts:
        if holds(text):
            hint = "leave the value, and each of its fields and lines, out: whoever lists secrets reads names and notes"
            raise ArgumentError(f"{name} holds the value itself; nothing was sent", hint)


def _without_blanks(tool: Tool, action: Action, arguments: JsonObject) -> JsonObject:
    """`arguments` without what means "not given": null, and blanks for arguments that only other actions take.

    Some clients fill in every property of a tool's schema.
    """
    own = {arg.name for arg in action.args}
    known = {arg.name for each in tool.actions for arg in each.args}
    return {
        name: value
        for name, value in arguments.items()
        if not (name in known and (value is None or (name not in own and value in ("", [], {}))))
    }


def _refuse_unknown(tool: Tool, action: Action, arguments: JsonObject) -> None:
    known = [arg.name for arg in action.args]
    allowed = {*known, IGNORED_ARGUMENT, *(("action",) if has_actions(tool) else ())}
    for name in arguments:
        if name not in allowed:
            unknown = f"unknown argument {_shown(name)} for {action.name}"
            raise ArgumentError(f"{unknown}; {_takes(action)}", did_you_mean(name, known) or _taken_by(tool, name))


def _taken_by(tool: Tool, name: str) -> str:
    """Which actions of a tool take an argument; empty if none does."""
    takers = [action.name for action in tool.actions if any(arg.name == name for arg in action.args)]
    return f"{name} is an argument of {', '.join(takers)}" if 0 < len(takers) <= TAKERS_MAX else ""


def _shown(name: str) -> str:
    """`name` if it looks like an argument's name; anything else may be a misplaced value."""
    return name if re.fullmatch("[A-Za-z_]{1,40}[0-9]{0,2}", name) else "(name not shown)"


def _takes(action: Action) -> str:
    names = [arg.name if arg.required else arg.name + "?" for arg in action.args]
    return f"it takes: {', '.join(names)}" if names else "it takes no arguments"


def check_value(arg: Arg, value: Any, now_ms: int) -> Any:
    """The value to send, or ArgumentError.

    Strings stay exactly what they are. For other kinds, 5.0 is the integer 5, times become Unix milliseconds, and a
    string is taken for the JSON of the value, since some clients send lists, objects, integers and booleans that way.
    """
    if arg.kind == "time":
        return _check_time(arg, value, now_ms)
    if isinstance(value, str) and arg.kind not in ("string", "id"):
        value = _decoded(value)
    if arg.kind in ("strings", "ids"):
        if not isinstance(value, list):
            raise ArgumentError(f"{arg.name} must be an array of strings")
        _check_bounds(arg, len(value), "items")
        return [_check_string(arg, item, f"each item of {arg.name}") for item in value]
    if arg.kind == "integer":
        return _check_integer(arg, value)
    if arg.kind == "boolean" and not isinstance(value, bool):
        raise ArgumentError(f"{arg.name} must be true or false")
    if arg.kind == "object":
        return _check_object(arg, value)
    if arg.kind in ("string", "id"):
        text = _check_string(arg, value, arg.name)
        _check_bounds(arg, len(text), "characters")
        return text
    return value


def _decoded(text: str) -> Any:
    """The value of JSON text; other text as it is, so that the check names the kind that it expects."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return text


def _check_string(arg: Arg, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{where} must be a string")
    if arg.choices and value not in arg.choices:
        raise ArgumentError(f"{where} must be one of: {', '.join(arg.choices)}")
    if arg.kind in ("id", "ids") and not is_id(value):
        raise ArgumentError(f"{where} must be {ID_RULE}")
    if arg.pattern and not re.fullmatch(arg.pattern, value):
        raise ArgumentError(f"{where} must be {FORMATS[arg.pattern]}")
    if arg.most_bytes is not None and len(value.encode("utf-8", "replace")) > arg.most_bytes:
        raise ArgumentError(f"{where} must be at most {arg.most_bytes:,} bytes in UTF-8")
    if arg.plaintext and sikkerkey_redact.nests_too_deeply(value.encode("utf-8", "replace")):
        raise ArgumentError(f"{where} is nested too deeply")  # the strings in it could not be redacted
    _refuse_lone_surrogates(where, value)
    return value


def _refuse_lone_surrogates(where: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ArgumentError(f"{where} must be valid Unicode, without lone surrogates")


def _check_time(arg: Arg, value: Any, now_ms: int) -> int:
    import sikkerkey_times  # not at the top: it loads datetime, and only calls with a time need it

    number = _whole(value)
    text = str(number) if isinstance(number, int) and not isinstance(number, bool) else value
    if not isinstance(text, str):
        raise ArgumentError(f"{arg.name} {sikkerkey_times.RULE}")
    try:
        return sikkerkey_times.parse_time(text, now_ms)
    except ValueError as error:
        raise ArgumentError(f"{arg.name} {error}") from None


def _whole(value: Any) -> Any:
    """A float that is exactly an integer as that integer; any other value unchanged."""
    is_exact = isinstance(value, float) and value.is_integer() and abs(value) <= FLOAT_EXACT_MAX
    return int(value) if is_exact else value


def _check_integer(arg: Arg, value: Any) -> int:
    value = _whole(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(f"{arg.name} must be an integer")
    least = -INTEGER_MAX if arg.least is None else arg.least
    most = INTEGER_MAX if arg.most is None else arg.most
    _check_bounds(arg._replace(least=least, most=most), value, "")
    return value


def _check_object(arg: Arg, value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise ArgumentError(f"{arg.name} must be an object")
    try:
        _refuse_lone_surrogates(arg.name, json.dumps(value, ensure_ascii=False))
    except RecursionError:
        raise ArgumentError(f"{arg.name} is nested too deeply") from None
    return value


def check_words(arg: Arg, words: Sequence[str], known: Sequence[str]) -> None:
    """Raises ArgumentError if one of `words` is not among those that the vault lists; its hint gives similar ones."""
    known_words = set(known)
    for number, word in enumerate(words, start=1):
        if word not in known_words:
            import difflib  # not at the top: only refusals need it

            near = difflib.get_close_matches(word[:NAME_MAX_CHARACTERS].casefold(), known, 3, 0.5)
            similar = f"similar names: {', '.join(near)}; " if near else ""
            message = f"item {number} of {arg.name} is not a name that the vault knows"
            raise ArgumentError(message, f"{similar}{arg.listed_by} lists all names")


def _check_bounds(arg: Arg, size: int, unit: str) -> None:
    least, most = arg.least, arg.most
    if (least is None or size >= least) and (most is None or size <= most):
        return
    if least is not None and most is not None:
        span = f"between {least:,} and {most:,}"
    else:
        span = f"at least {least:,}" if most is None else f"at most {most:,}"
    raise ArgumentError(f"{arg.name} must have {span} {unit}" if unit else f"{arg.name} must be {span}")


def build_requests(action: Action, given: Arguments) -> list[Request]:
    """The requests of a call: one, or two if the rows from `offset` on begin within one of the vault's pages."""
    if not (action.vault_pages and "offset" in given):
        return [build_request(action, given)]
    size = given.get("pageSize", PAGE_ROWS)
    first, skipped = divmod(given["offset"], size)
    pages = (first + 1, first + 2) if skipped else (first + 1,)
    return [build_request(action, {**given, "page": page, "pageSize": size}) for page in pages]


def build_request(action: Action, given: Arguments) -> Request:
    """The request for checked arguments. It has no body if the row has no argument for one."""
    local = {arg.name for arg in action.args if arg.local}
    sent = {name: value for name, value in given.items() if name not in local}
    path = action.path.format_map(sent)
    body = action.body(sent) if action.body else _body_of(action, sent)
    return Request(action.method, path, None if body is None else to_json(body).encode("utf-8"))


def _body_of(action: Action, sent: Arguments) -> JsonObject | None:
    in_path = path_parameters(action.path)
    if all(arg.name in in_path or arg.local for arg in action.args):
        return None
    return {name: value for name, value in sent.items() if name not in in_path}
