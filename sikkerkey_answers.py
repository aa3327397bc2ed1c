"""From what the vault answered to what the model sees: a result, or a refusal with the next step.

What must not be repeated is cut out (plaintext that a call gave), what must not be shown is withheld (a stored value).
Text and structuredContent hold the same, complete information, because some clients show one and some the other.

Nothing here touches the network. sikkerkey_mcp loads it for calls, not before the tools have been listed.
"""

from __future__ import annotations

import re
import time
from _json import encode_basestring_ascii
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any

from sikkerkey_mcp import (
    ASK_FOR_LESS,
    CLOCK_SKEW_MAX_S,
    JSON_MAX_VALUES,
    MAY_HAVE_BEEN_PROCESSED,
    Action,
    ExactNumber,
    Given,
    JsonObject,
    Reply,
    ServiceError,
    build_request,
    clean,
    holes,
    http_date_s,
    json_result,
    parse_json,
    readable,
    retry_after_s,
    text_result,
    to_json,
)

# ---------------------------------------------------------------------------------------------------------------------
# what must not be repeated
# ---------------------------------------------------------------------------------------------------------------------

CUT_OUT = "[cut out: plaintext]"
WITHHELD = "[withheld: a stored value]"
ANYWHERE_CHARACTERS = 8  # a shorter value is cut out where it stands as a word: `1` is a part of many an id

# Members that hold a stored value wherever secrets are listed. No vault should send them; if one does, it stops here.
VALUE_MEMBERS = frozenset({"value", "plaintext"})
VALUE_SCOPES = ("projects.secrets.", "projects.policies.", "trash.")


def plaintexts(action: Action, given: Given) -> list[str]:
    """Every string of the plaintext arguments: whole, and each string inside a structured value."""
    found: list[str] = []
    for arg in action.args:
        if arg.plaintext and arg.name in given:
            found += _strings(given[arg.name])
    if not found:
        return found
    for text in list(found):
        if text.lstrip()[:1] in ("{", "["):
            try:
                found += _strings(parse_json(text.encode("utf-8")))
            except ValueError:
                continue
    # A peer may trim what it repeats, or repeat one line of it.
    lines = [line.strip() for text in found for line in text.splitlines()]
    found += [text.strip() for text in found] + [line for line in lines if len(line) >= ANYWHERE_CHARACTERS]
    return sorted(set(found) - {""}, key=len, reverse=True)


def _strings(value: Any) -> list[str]:
    found, left = [], [value]
    while left:  # no recursion: whatever could be sent can be looked through
        item = left.pop()
        if isinstance(item, (dict, list)):
            left += item.values() if isinstance(item, dict) else item
        elif item is not None and not isinstance(item, bool):
            found.append(item.text if isinstance(item, ExactNumber) else str(item))
    return found


def cutter(secrets: Sequence[str]) -> Callable[[str], str]:
    """A function that cuts `secrets`, long ones first, out of a text: as they are, and as a peer may spell them."""
    cutters = [_cutter_of(secret) for secret in secrets]

    def cut(text: str) -> str:
        for cut_one in cutters:
            text = cut_one(text)
        return text

    return cut


def _cutter_of(secret: str) -> Callable[[str], str]:
    signs = _signs(secret)
    forms: list[str] = []

    def cut(text: str) -> str:
        if not any(sign in text for sign in signs):
            return text
        if not forms:
            forms.extend(sorted(_spellings(secret), key=len, reverse=True))
        for form in forms:
            text = _without(text, form)
        return text

    return cut


def _without(text: str, form: str) -> str:
    if len(form) >= ANYWHERE_CHARACTERS or form not in text:  # to compile an expression takes far longer than to look
        return text.replace(form, CUT_OUT)
    return re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", CUT_OUT, text)


def _signs(secret: str) -> set[str]:
    """Texts without which none of the spellings can be there: to spell a long value in every way takes a second."""
    data = secret.encode("utf-8", "replace")[:12]
    if len(data) < 12:
        return {""}
    word = max(re.findall("[A-Za-z0-9]+", secret), key=len, default="")  # what nobody escapes
    return {word, data.hex(), data.hex().upper(), *(form[:10] for form in _base64_spellings(data))}


def _spellings(secret: str) -> set[str]:
    """`secret` as it is, in JSON, in JSON inside JSON, in HTML, URLs, base64, hex and Python.

    What peers mark up or percent-encode may be the request's whole body, where it stands in JSON already.
    """
    data = secret.encode("utf-8", "replace")
    forms = {data.hex(), data.hex().upper(), *_base64_spellings(data), repr(secret)[1:-1], repr(data)[2:-1]}
    for text in {secret, to_json(secret)[1:-1]}:
        forms |= _html_spellings(text) | _percent_spellings(text)
    for text in (secret, *_html_spellings(secret)):
        forms.update({text}, _json_spellings(text))
    return forms.union(*map(_json_spellings, _json_spellings(secret)))


# As html.escape, which comes with half a megabyte of names of characters; the quotes as Python, Go, Ruby, PHP, XML.
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_QUOTES = ("&quot;", "&#x27;"), ("&#34;", "&#39;"), ("&quot;", "&#39;"), ("&quot;", "&#039;"), ("&quot;", "&apos;")
_NUMBERS = "&#%d;", "&#x%x;", "&#x%X;"


def _html_spellings(text: str) -> set[str]:
    """Signs by their names; what is not ASCII, or every sign, by its number."""
    named = text.translate(_HTML)
    forms = {named.replace('"', double).replace("'", single) for double, single in _QUOTES}
    forms |= {form.encode("ascii", "xmlcharrefreplace").decode("ascii") for form in forms}
    signs = set(re.findall("[^0-9A-Za-z]", text))
    return forms | {text.translate({ord(sign): number % ord(sign) for sign in signs}) for number in _NUMBERS}


def _percent_spellings(text: str) -> set[str]:
    """As paths, queries, forms and browsers have it, in small letters too."""
    from urllib.parse import quote, quote_plus  # 0.4 MB, which calls without plaintext do without

    data = text.encode("utf-8", "replace")
    forms = {quote_plus(data), *(quote(data, safe=left) for left in ("", "/", "!'()*"))}
    return forms | {re.sub("%..", lambda escaped: escaped[0].lower(), form) for form in forms}


# What encoders escape that need not be: what HTML could mistake for markup (Go), some more (Gson, .NET), slashes (PHP).
_GO, _GSON, _NET = (str.maketrans({c: f"\\u{ord(c):04x}" for c in some}) for some in ("<>&", "<>&='", "<>&'+`"))


def _json_spellings(text: str) -> set[str]:
    """The inside of a JSON string as different encoders write it."""
    forms = {to_json(text)[1:-1], encode_basestring_ascii(text)[1:-1]}
    net = encode_basestring_ascii(text)[1:-1].replace('\\"', "\\u0022").translate(_NET)
    net = re.sub(r"\\\\|\\u....", lambda code: code[0][:2] + code[0][2:].upper(), net)
    others = {form.translate(escapes) for form in forms for escapes in (_GO, _GSON)}
    return forms | others | {form.replace("/", "\\/") for form in forms} | {net}


def _base64_spellings(data: bytes) -> set[str]:
    """Base64 of `data`, and of its inside where it stands within something longer, at each of the three alignments."""
    forms = set()
    for encode in (b64encode, urlsafe_b64encode):
        forms.add(encode(data).decode("ascii").rstrip("="))
        for before, start in enumerate((0, 2, 3)):
            inside = encode(bytes(before) + data)[start : (before + len(data)) * 4 // 3]
            forms.update({inside.decode("ascii")} if len(inside) >= ANYWHERE_CHARACTERS else ())
    return forms


def cut_out(value: Any, cut: Callable[[str], str], withheld: frozenset[str]) -> Any:
    """`value` with every string passed through `cut`, and the members that `withheld` names without their content."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, list):
        return [cut_out(item, cut, withheld) for item in value]
    if isinstance(value, dict):
        return {
            cut(key): WITHHELD if _is_withheld(key, member, withheld) else cut_out(member, cut, withheld)
            for key, member in value.items()
        }
    if isinstance(value, (int, float, ExactNumber)) and not isinstance(value, bool):
        text = value.text if isinstance(value, ExactNumber) else repr(value)
        return CUT_OUT if cut(text) != text else value
    return value


def _is_withheld(key: str, member: Any, withheld: frozenset[str]) -> bool:
    """`value` whatever it is, and strings under names made of it, such as currentValue."""
    name = key.casefold()
    return (name in withheld and member is not None) or (
        isinstance(member, str) and any(word in name for word in withheld)
    )


# ---------------------------------------------------------------------------------------------------------------------
# answers
# ---------------------------------------------------------------------------------------------------------------------


ESCAPED_CONTROL = re.compile(r"\\(?:[bfr]|u00[01]|ud[89a-f])")


def readable_result(result: JsonObject) -> JsonObject:
    """`result` with its texts readable, in both forms. The bytes of a file are left alone."""
    text: str = result["content"][0]["text"]
    if "structuredContent" not in result:
        return {"content": [{"type": "text", "text": readable(text)}, *result["content"][1:]]}
    if _may_hide_something(text):  # few do, and to take one apart takes long
        return json_result(cut_out(result["structuredContent"], readable, frozenset()))
    return result


def _may_hide_something(json_text: str) -> bool:
    """Whether JSON holds, or escapes, a hidden character."""
    return ESCAPED_CONTROL.search(json_text) is not None or readable(json_text) != json_text


def render(action: Action, given: Given, reply: Reply, cut: Callable[[str], str]) -> JsonObject:
    """The `tools/call` result for a 2xx answer. Raises ServiceError where the answer is not what the row promises."""
    if not reply.body:
        return json_result({"ok": True, "message": f"{action.name} succeeded; the vault sent no further data"})
    if action.answer == "file":
        return _file_result(action, given, reply)
    if action.answer == "csv" and not reply.headers.get("content-type", "").startswith("application/json"):
        return text_result(cut(reply.body.decode("utf-8-sig", "replace")))
    if reply.body.count(b",") > JSON_MAX_VALUES:
        hint = ASK_FOR_LESS if action.effect == "read" else MAY_HAVE_BEEN_PROCESSED
        raise ServiceError(f"the vault's answer has more than {JSON_MAX_VALUES:,} values", hint)
    try:
        value = parse_json(reply.body)
    except ValueError:
        portal = "check that the API URL is the vault's and no portal or proxy answers in its place"
        hint = portal if action.effect == "read" else MAY_HAVE_BEEN_PROCESSED
        raise ServiceError("the vault's answer is not JSON", hint) from None
    secretive = (action.scope or "").startswith(VALUE_SCOPES) and not action.mints
    if secretive or any(arg.plaintext for arg in action.args):
        value = cut_out(value, cut, VALUE_MEMBERS if secretive else frozenset())
    return json_result(value)


def _file_result(action: Action, given: Given, reply: Reply) -> JsonObject:
    """The file, and a line about it: of content that is not text, several clients tell the model nothing."""
    mime = reply.headers.get("content-type", "").split(";")[0].strip().lower()
    mime = mime if re.fullmatch(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}", mime) else "application/octet-stream"
    uri = "sikkerkey:/" + build_request(action, given).path
    resource = {"uri": uri, "mimeType": mime, **_file_body(mime, reply.body)}
    line = {"type": "text", "text": f"a file of type {mime}, {len(reply.body):,} bytes\n"}
    return {"content": [line, {"type": "resource", "resource": resource}]}


def _file_body(mime: str, body: bytes) -> JsonObject:
    """Text as such, so that a model can read it; anything else, and text that hides something, exactly, in base64."""
    text = body.decode("utf-8", "replace")
    if mime.startswith("text/") and text.encode("utf-8") == body and readable(text) == text:
        return {"text": text}
    return {"blob": b64encode(body).decode("ascii")}


# ---------------------------------------------------------------------------------------------------------------------
# refusals
# ---------------------------------------------------------------------------------------------------------------------

SCOPE = r"[a-z]{1,32}(?:\.[a-z]{1,32}){1,3}"

NEXT_STEP = {
    400: "correct the arguments; the vault refused them as they are",
    401: "the vault does not know this agent or its key: it may have been revoked; ask the user to install a new one",
    403: "only the vault's owner can change what this agent may do; repeating the call does not help",
    404: "check the ids with a list action; what lies outside this agent's project allowlist looks absent too",
    405: "this vault does not offer this action",
    407: "a proxy asks for other credentials: the user must set HTTPS_PROXY",
    408: "the vault got less than the whole request in time: repeat it",
    409: "the present state forbids this: get the object, change what stands in the way, then repeat",
    410: "it is gone for good: list what there is",
    413: "send less in one call",
    422: "correct the arguments; the vault refused them as they are",
    423: "a canary has frozen this project: tell the user, and end it only if the owner says so, with "
    "manage_canaries.unfreeze_project",
    425: "the vault wants the request again: repeat it",
    429: "too many requests: wait, then repeat",
    501: "this vault does not offer this action",
    503: "the vault is sealed or being serviced: its owner must unseal it, then repeat",
    507: "the vault's disk is full: tell its owner",
}


def service_error(action: Action, reply: Reply, cut: Callable[[str], str]) -> ServiceError:
    """The error for an answer that is not 2xx. `cut` removes plaintext that the vault may be repeating."""
    members = cut_out(error_members(reply), cut, frozenset())
    said = members.get("error")
    quoted = f", saying {to_json(clean(said))}" if isinstance(said, str) and said else ""
    if 300 <= reply.status < 400:
        # 307 and 308 say that nothing has been done; the others also follow upon what has.
        perhaps = action.effect != "read" and reply.status not in (307, 308)
        hint = "check the API URL" + (f"; {MAY_HAVE_BEEN_PROCESSED}" if perhaps else "")
        return ServiceError(
            f"the vault answered {reply.status}, a redirect, which is never followed", hint, reply.status
        )
    message = f"the vault answered {reply.status}{quoted}"
    return ServiceError(message, _next_step(action, reply, members), reply.status)


def error_members(reply: Reply) -> JsonObject:
    try:
        members = parse_json(reply.body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _next_step(action: Action, reply: Reply, members: JsonObject) -> str:
    unnamed = "the vault failed; try again later" if reply.status >= 500 else "repeating the same call does not help"
    hint = NEXT_STEP.get(reply.status, unnamed)
    if reply.status == 401:
        return _clock_hint(reply) or hint
    if reply.status == 403:
        return _scope_hint(action, members) + hint
    if reply.status == 404 and action.inferred:
        known = f", or does not know the id; {NEXT_STEP[404]}" if holes(action.path) else ""
        return f"this vault does not offer the action {action.name}{known}"
    if reply.status == 429:
        wait_s = retry_after_s(reply)
        return hint if wait_s is None else f"too many requests: repeat after {wait_s:.0f} s"
    # A 503 in other words than the vault's is a gateway's, which may have passed the request on before it failed.
    by_the_vault = reply.status in (501, 507) or (reply.status == 503 and isinstance(members.get("error"), str))
    if reply.status >= 500 and not by_the_vault and action.effect != "read":
        return MAY_HAVE_BEEN_PROCESSED
    return hint


def _clock_hint(reply: Reply) -> str:
    date_s = http_date_s(reply.headers.get("date", ""))
    skew_s = 0 if date_s is None else int(time.time() - date_s)
    if abs(skew_s) < CLOCK_SKEW_MAX_S:
        return ""
    direction = "ahead of" if skew_s > 0 else "behind"
    return f"this computer's clock is {abs(skew_s)} s {direction} the vault's: the user must set it"


def _scope_hint(action: Action, members: JsonObject) -> str:
    required = members.get("requiredScopes")
    named = [scope for scope in required if isinstance(scope, str)] if isinstance(required, list) else []
    scopes = [scope for scope in named if re.fullmatch(SCOPE, scope)][:8]  # anything else would be read as our advice
    if scopes:
        return f"missing scope: {', '.join(scopes)}; "
    needed = ["be approved and enabled", *([f"hold the scope {action.scope}"] if action.scope else [])]
    needed += ["have the project concerned on its allowlist"] if holes(action.path) else []
    *first, last = needed
    return f"the agent must {', '.join(first)}, and {last}; " if first else f"the agent must {last}; "
