"""From the vault's answer to what the model sees: a result that shows it, as far as it fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sikkerkey_redact
from sikkerkey_actions import PAGE_ROWS, Action, Answer, Arguments, Tool, build_request, has_actions
from sikkerkey_core import (
    ASK_FOR_LESS,
    CHECK_INTERMEDIARY_HINT,
    JSON_MAX_VALUES,
    MAY_HAVE_BEEN_PROCESSED,
    Error,
    JsonObject,
    ServiceError,
    parse_json,
    program,
    readable,
    to_json,
)
from sikkerkey_shell import command_line

if TYPE_CHECKING:
    from sikkerkey_members import Members

# ---------------------------------------------------------------------------------------------------------------------
# results: from the vault's answer to what the model sees. Plaintext that the call sent is redacted, stored values are
# withheld. Text and structuredContent hold the same, because some clients show one and some the other.
# ---------------------------------------------------------------------------------------------------------------------

RESULT_CHARACTERS = 10_000  # of one result: every client shows this much whole; `--answer-limit` changes it
EXPORT_ROWS = 10_000  # of one export, by the vault

WITHHELD = "[withheld: it may be a stored value]"

Sanitize = Callable[[str], str]


class Sanitizer:
    """Cleans every text of the answer to one call: `sanitizer(text)`. Made by `sanitizer`."""

    def __init__(self, secrets: Sequence[str], given: Sequence[str], *, hidden_visible: bool) -> None:
        values = sikkerkey_redact.values_to_redact(secrets)
        self._redact = sikkerkey_redact.redactor(values)
        self._holds_run = sikkerkey_redact.run_finder(sikkerkey_redact.innermost_strings(secrets))
        self._given = sorted({text for text in given if len(text) > 1}, key=len, reverse=True) if values else []
        self._show: Sanitize = readable if hidden_visible else str
        self.has_secrets = bool(values)

    def __call__(self, text: str) -> str:
        """`text` without the call's plaintext; all of it is cut out if it holds plaintext in disguise."""
        return self._show(self._redacted(text) if self.has_secrets else text)

    def exactly(self, text: str) -> str:
        """This program's own `text` without exact spellings of the plaintext. It may share words with it."""
        return self._show(self._redact(text))

    def is_free(self, text: str) -> bool:
        """Whether `text` holds no plaintext."""
        return not self.has_secrets or self._redacted(text) == text

    def _redacted(self, text: str) -> str:
        redacted = self._redact(text)
        if len(text) < sikkerkey_redact.RUN_CHARACTERS:
            return redacted
        left = redacted.replace(sikkerkey_redact.REDACTED, "\0")
        for given in self._given:  # the model knows the other arguments of its call
            left = left.replace(given, "\0")
        joined = re.sub(r"[\s:,-]+", "", left)  # base64 in lines, hex in pairs
        if self._holds_run(left) or (joined != left and self._redact(joined) != joined):
            return sikkerkey_redact.REDACTED
        return redacted


def sanitizer(action: Action, *given: Arguments, hidden_visible: bool) -> Sanitizer:
    """A function for every text of an answer. It redacts the call's plaintext arguments, in every spelling.

    `given` are the arguments as they are sent, and as the client wrote them if that differs. With `hidden_visible` the
    function also shows hidden characters by their numbers.
    """
    plaintext = [arg.name for arg in action.args if arg.plaintext]
    secret = [arguments[name] for arguments in given for name in plaintext if name in arguments]
    others = [value for arguments in given for name, value in arguments.items() if name not in plaintext]
    strings_in = sikkerkey_redact.strings_in
    return Sanitizer(strings_in(secret), strings_in(others) if secret else [], hidden_visible=hidden_visible)


def sanitize_json(value: Any, sanitize: Sanitize, members: Members | None = None) -> Any:
    """`value` with every text sanitized. With the members of an action, all that it may not answer with is withheld."""
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, list):
        return [sanitize_json(item, sanitize, members) for item in value]
    if isinstance(value, dict):
        shown: JsonObject = {}
        for name, member in value.items():
            shown_name = name if members is None or members.knows(name) else _free_name(sanitize(name), shown)
            shown[shown_name] = _sanitized_member(name, member, sanitize, members)
        return shown
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = repr(value)
        return value if sanitize(text) == text else sikkerkey_redact.REDACTED
    return value


def _sanitized_member(name: str, value: Any, sanitize: Sanitize, members: Members | None) -> Any:
    if members is None:
        return sanitize_json(value, sanitize)
    if isinstance(value, list) and (members.knows(name) or all(members.may_show(name, item) for item in value)):
        return [_sanitized_member(name, item, sanitize, members) for item in value]
    return sanitize_json(value, sanitize, members) if members.may_show(name, value) else WITHHELD


def _free_name(name: str, taken: JsonObject) -> str:
    """`name`, with a number behind it if another member already has it: no member replaces another one."""
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def text_result(text: str) -> JsonObject:
    """A `tools/call` result of plain text."""
    return {"content": [{"type": "text", "text": text}]}


def error_result(error: Error) -> JsonObject:
    """A result with `isError`. No structuredContent: one SDK checks that against a schema and fails the call."""
    return {**text_result(error.full_text()), "isError": True}


def json_result(value: Any) -> JsonObject:
    """A JSON answer as text and as an object; what is not an object is wrapped in one, in both forms."""
    value = _as_object(value)
    return {**text_result(json_lines(value)), "structuredContent": value}


def _as_object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {"items" if isinstance(value, list) else "result": value}


def with_members(result: JsonObject, members: JsonObject) -> JsonObject:
    """A JSON result with further members, first and whatever the vault calls its own."""
    if not members:
        return result
    if "structuredContent" not in result:  # too long to be shown whole
        return {"content": [*json_result(members)["content"], *result["content"]]}
    return json_result({**members, **result["structuredContent"], **members})


def json_lines(value: JsonObject) -> str:
    """Compact JSON with each object of a list on a line of its own, so that a saved result can be read in part."""
    members = [f"{to_json(name)}:{_json_member(each)}" for name, each in value.items()]
    return "{" + ",".join(members) + "}"


def _json_member(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return "[\n" + ",\n".join(to_json(each) for each in value) + "\n]"
    return to_json(value)


class Presentation(NamedTuple):
    """How answers are shown. The default is for a model; programs ask for other values."""

    characters: int | None = RESULT_CHARACTERS  # of one result; None for no limit
    hidden_visible: bool = True  # hidden characters become `<U+XXXX>`
    exact: bool = False  # times stay integers, and rows keep their null members


FOR_A_MODEL = Presentation()


class ShownCall(NamedTuple):
    """A call whose answer is to be shown. `sanitize` is for every text of the answer."""

    tool: Tool
    action: Action
    given: Arguments
    sanitize: Sanitizer
    presentation: Presentation
    now_ms: int


def render(call: ShownCall, answers: Sequence[Answer]) -> JsonObject:
    """The `tools/call` result for 2xx answers. Raises ServiceError if they are not what the row promises."""
    action, answer = call.action, answers[0]
    if not answer.body:
        return json_result({"ok": True, "message": f"{action.name} succeeded; the vault sent no further data"})
    if action.answer == "file":
        return _file_result(call, answer)
    if action.answer == "csv" and not answer.headers.get("content-type", "").startswith("application/json"):
        return _csv_result(call, answer)
    value, *following = [json_of(action, each) for each in answers]
    if action.select:
        value = action.select(value, call.given, call.now_ms)
    member = rows_member(action, value)
    if member is None:
        return _within_limit(call, json_result(_shown_value(call, _as_object(value))))
    for page in following:
        value[member] += page[member] if rows_member(action, page) == member else []
    return rows_result(call, value, member)


def json_of(action: Action, answer: Answer) -> Any:
    if answer.body.count(b",") > JSON_MAX_VALUES:
        hint = ASK_FOR_LESS if action.effect == "read" else MAY_HAVE_BEEN_PROCESSED
        raise ServiceError(f"the vault's answer has more than {JSON_MAX_VALUES:,} values", hint)
    try:
        value = parse_json(answer.body)
    except ValueError:
        portal = "check that the API URL is the vault's and that no portal or proxy answers in its place"
        hint = portal if action.effect == "read" else MAY_HAVE_BEEN_PROCESSED
        raise ServiceError("the vault's answer is not JSON", hint) from None
    return _as_object(value) if isinstance(value, list) else value


def rows_member(action: Action, value: Any) -> str | None:
    """The member with the rows of a list action. A vault that wraps a list may name it like the end of its path."""
    names = (action.rows, action.path.rpartition("/")[2]) if action.rows and isinstance(value, dict) else ()
    return next((name for name in names if isinstance(value.get(name), list)), None)


def members_of(tool: Tool, action: Action) -> Members | None:
    """What an action may answer with; None for one of this program's own, which is made of the answers to others."""
    import sikkerkey_members  # not at the top: only answers need it

    return None if action.own else sikkerkey_members.members_of(f"{tool.name}.{action.name}")


def _shown_value(call: ShownCall, value: Any) -> Any:
    value = sanitize_json(value, call.sanitize, members_of(call.tool, call.action))
    import sikkerkey_pages  # not at the top: only answers need it

    return value if call.presentation.exact else sikkerkey_pages.with_iso_times(value)


def _shown_member(call: ShownCall, name: str, value: Any) -> Any:
    return _shown_value(call, {name: value})[name]


# Long answers. A result ends at a limit and says how to go on: clients cut longer ones themselves, some without a word
# and some in the middle.

ROW_TEXT_CHARACTERS = 200  # of one text in a row, if the tool's `get` shows it whole
ROW_TEXT_SHARE = 4  # else one text takes at most this part of a result, as does each list inside a row
REMARK_CHARACTERS = 500  # kept free for the way to go on


def rows_result(call: ShownCall, answer: JsonObject, member: str) -> JsonObject:
    """The rows that were asked for, as many as fit, with their total and where the next ones begin."""
    start, total, wanted = _wanted_rows(call, answer, answer[member])
    members = _shown_value(call, {name: [] if name == member else answer[name] for name in answer})
    members[member] = kept = _rows_that_fit(call, wanted, len(to_json(members)))
    end = start + len(kept)
    if len(kept) < total or len(answer) == 1:
        members["total"] = total
    if len(kept) < total:
        members.update(offset=start, returned=len(kept))
    if kept and end < total:
        arguments = {"offset": end, **_fixed_end(call, start, answer[member])}
        least = "at least " if answer.get("totalIsAtLeast") is True else ""
        members.update(next=arguments, hint=_how_to_go_on(call, len(kept), f"{least}{total:,}"))
    elif end < total:  # `next` would be this same call, for ever
        members["hint"] = f"the vault counts {total:,} rows, but sent none from offset {start:,} on"
    return json_result(members)


def _wanted_rows(call: ShownCall, answer: JsonObject, rows: list[Any]) -> tuple[int, int, list[Any]]:
    """The place of the first row that was asked for, the number of all rows, and the rows from there on."""
    given = call.given
    if call.action.vault_pages:
        size = given.get("pageSize", PAGE_ROWS)
        start = given.get("offset", (given.get("page", 1) - 1) * size)
        wanted = rows[start % size :][:size] if "offset" in given else rows
        counted, seen = answer.get("total"), start + len(wanted)
        return start, max(counted, seen) if isinstance(counted, int) else seen, wanted
    if "search" in given and any(arg.local for arg in call.action.args if arg.name == "search"):
        import sikkerkey_pages  # not at the top: only answers need it

        rows = sikkerkey_pages.matching(rows, given["search"])
    start = given.get("offset", 0)
    return start, len(rows), rows[start : start + given["limit"]] if "limit" in given else rows[start:]


def _rows_that_fit(call: ShownCall, rows: list[Any], taken_characters: int) -> list[Any]:
    """The first of `rows` as they are shown, up to the limit, but at least one."""
    limit = call.presentation.characters
    if limit is None:
        return [_shown_row(call, row) for row in rows]
    kept: list[Any] = []
    left_characters = limit - taken_characters - REMARK_CHARACTERS
    for row in rows:
        shown = _shown_row(call, row)
        left_characters -= len(to_json(shown)) + len(",\n")
        if kept and left_characters < 0:
            break
        kept.append(shown)
    return kept


def _shown_row(call: ShownCall, row: Any) -> Any:
    """A row without what a list can do without: members that are null, and the rest of long texts."""
    import sikkerkey_pages  # not at the top: only answers need it

    shown, limit = _shown_member(call, call.action.rows, row), call.presentation.characters
    if not call.presentation.exact:
        shown = sikkerkey_pages.without_nulls(shown)
    if limit is None:
        return shown
    has_get = call.action.name != "get" and any(action.name == "get" for action in call.tool.actions)
    share = limit // ROW_TEXT_SHARE
    most, remark = (ROW_TEXT_CHARACTERS, "; get shows all") if has_get else (share, "")
    return sikkerkey_pages.shortened(shown, most, share, remark)


def _fixed_end(call: ShownCall, start: int, rows: list[Any]) -> JsonObject:
    """`to` for the following pages of an audit log, which new entries would shift; nothing for other lists."""
    given = call.given
    if call.action.own:  # its further pages come from the answer that it keeps
        return {}
    newest_first = given.get("sortDir", "desc") == "desc" and given.get("sortBy", "timestamp") == "timestamp"
    if start or "to" in given or not newest_first or all(arg.name != "to" for arg in call.action.args):
        return {}
    newest = rows[0].get("timestamp") if isinstance(rows[0], dict) else None
    if not isinstance(newest, int) or call.presentation.exact:
        return {"to": newest} if isinstance(newest, int) else {}
    import sikkerkey_pages  # not at the top: only answers need it

    shown: JsonObject = sikkerkey_pages.with_iso_times({"to": newest})
    return shown


def _how_to_go_on(call: ShownCall, shown: int, total: str) -> str:
    search = (
        "; `search` finds rows by a part of their text" if any(a.name == "search" for a in call.action.args) else ""
    )
    return f"{shown:,} of {total} rows are shown; for more, repeat the call with the arguments of `next`{search}"


def _within_limit(call: ShownCall, result: JsonObject) -> JsonObject:
    """`result`, or the beginning of its text if it is too long. A credential that is shown once is never cut."""
    text, limit = result["content"][0]["text"], call.presentation.characters
    if limit is None or len(text) <= limit or call.action.mints:
        return result
    kept = limit - REMARK_CHARACTERS
    return _with_remark(f"The first {kept:,} of {len(text):,} characters are shown. {_way_to_all(call)}", text[:kept])


def _with_remark(remark: str, text: str) -> JsonObject:
    """Two texts, the remark first: text behind the end of a long one is easily missed."""
    return {"content": [*text_result(remark + "\n")["content"], *text_result(text)["content"]]}


def _way_to_all(call: ShownCall) -> str:
    name = call.tool.name if not has_actions(call.tool) else f"{call.tool.name} {call.action.name}"
    command = f"{command_line(program())} call {name} ... --to-file FILE"
    return f"A person gets all of it with `{command}` and the same arguments as NAME=VALUE."


def _csv_result(call: ShownCall, answer: Answer) -> JsonObject:
    """The rows that fit, and how many there are."""
    import csv  # not at the top: only this result needs it

    import sikkerkey_pages  # likewise

    text, limit = call.sanitize(answer.body.decode("utf-8-sig", "replace")), call.presentation.characters
    members = members_of(call.tool, call.action)
    may_show = members.may_show if members else lambda _name, _cell: True
    try:
        header, *rows = sikkerkey_pages.csv_records(text, may_show, WITHHELD, iso_times=not call.presentation.exact)
    except csv.Error:  # not shown: nobody knows which of it are values
        raise ServiceError("the vault's answer is not CSV", CHECK_INTERMEDIARY_HINT) from None
    except ValueError:  # no line at all
        return text_result(text)
    remarks, kept = [], rows
    if limit is not None and sum(map(len, rows)) > limit - len(header) - REMARK_CHARACTERS:
        kept = sikkerkey_pages.first_texts(rows, limit - len(header) - REMARK_CHARACTERS)
        remarks.append(f"{len(kept):,} of {len(rows):,} rows are shown. {_way_to_all(call)}")
    if len(rows) >= EXPORT_ROWS:
        remarks.append(
            f"The vault exports at most {EXPORT_ROWS:,} entries, newest first, so older ones may be missing: "
            "export those with `to` set to the time of the last row."
        )
    text = "".join([header, *kept])
    return _with_remark(" ".join(remarks), text) if remarks else text_result(text)


def _file_result(call: ShownCall, answer: Answer) -> JsonObject:
    """The file, and a line about it: several clients tell the model nothing about content that is not text."""
    mime = answer.headers.get("content-type", "").split(";")[0].strip().lower()
    mime = mime if re.fullmatch(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}", mime) else "application/octet-stream"
    line = f"a file of type {mime}, {len(answer.body):,} bytes"
    content = _file_content(mime, answer.body)
    limit = call.presentation.characters
    if limit is not None and len(next(iter(content.values()))) > limit:
        return text_result(f"{line}, too long to be shown. {_way_to_all(call)}")
    uri = "sikkerkey:/" + build_request(call.action, call.given).path
    resource = {"uri": uri, "mimeType": mime, **content}
    return {"content": [*text_result(line + "\n")["content"], {"type": "resource", "resource": resource}]}


def _file_content(mime: str, body: bytes) -> JsonObject:
    """Text that a model can read as text; anything else, and text with hidden characters, exactly, in base64."""
    text = body.decode("utf-8", "replace")
    if mime.startswith("text/") and text.encode("utf-8") == body and readable(text) == text:
        return {"text": text}
    import base64  # not at the top: only this result needs it

    return {"blob": base64.b64encode(body).decode("ascii")}
