"""Refusals: what an answer of the vault that is not 2xx means, in words for the model, with the next step.

The server imports this for the first refusal only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from sikkerkey_actions import FORMATS, Action, Answer, Tool, path_parameters
from sikkerkey_core import MAY_HAVE_BEEN_PROCESSED, JsonObject, ServiceError, clean, parse_json, to_json
from sikkerkey_results import Sanitizer, sanitize_json
from sikkerkey_times import parse_http_date

CLOCK_SKEW_MAX_S = 300  # the vault's own window
SCOPE = r"[a-z]{1,32}(?:\.[a-z]{1,32}){1,3}"
ROUTE = r"(?:\b(GET|POST) )?(/v1/ai/[\w{}<>:/-]*[\w}>])"
REGULAR_EXPRESSION = r"(?:\bmatch (?:the )?(?:pattern |regex |regular expression )?)?[\"'/]?(\^\S+\$)[\"'/]?"
WORDS_HOLD_PLAINTEXT = "its message is not shown, because it contains plaintext of this call"
NEXT_STEP = {
    400: "the vault refused the arguments: correct them",
    401: "the vault does not know this agent or its key: it may have been revoked; the user must install a new one",
    403: "only the vault's owner can change what this agent may do; repeating the call does not help",
    404: "check the ids with a list action; anything outside this agent's project allowlist also looks absent",
    405: "this vault does not offer this action",
    407: "a proxy refused the credentials: the user must correct HTTPS_PROXY",
    408: "the vault did not receive the whole request in time: repeat it",
    409: "the current state does not allow this: get the object, resolve the conflict, then repeat",
    410: "it no longer exists: list what does",
    413: "send less in one call",
    422: "the vault refused the arguments: correct them",
    423: "a canary has frozen this project: tell the user, and unfreeze it only if the owner says so, with "
    "manage_canaries.unfreeze_project",
    425: "the vault asks for the request again: repeat it",
    429: "too many requests: wait, then repeat",
    501: "this vault does not offer this action",
    503: "the vault is sealed or under maintenance: its owner must unseal it, then repeat",
    507: "the vault's disk is full: tell its owner",
}


def service_error(action: Action, answer: Answer, sanitize: Sanitizer, tools: Sequence[Tool]) -> ServiceError:
    """The error for an answer that is not 2xx. The vault's words are left out if they hold plaintext of the call.

    `tools` are those of the table, whose names replace routes in the vault's words.
    """
    if 300 <= answer.status < 400:
        # 307 and 308 mean that nothing has been done; other redirects may follow a completed request.
        perhaps = action.effect != "read" and answer.status not in (307, 308)
        hint = "check the API URL" + (f"; {MAY_HAVE_BEEN_PROCESSED}" if perhaps else "")
        message = f"the vault answered {answer.status}, a redirect, which is never followed"
        return ServiceError(message, hint, answer.status)
    members = error_members(answer)
    text = members.get("error")
    quoted = ""
    if isinstance(text, str) and text:
        is_free = sanitize.is_free(text)
        quoted = f", saying {to_json(in_words(action, clean(text), tools))}" if is_free else f"; {WORDS_HOLD_PLAINTEXT}"
    return ServiceError(
        f"the vault answered {answer.status}{quoted}", _next_step(action, answer, members, sanitize), answer.status
    )


def in_words(action: Action, text: str, tools: Sequence[Tool]) -> str:
    """The vault's error text with tool.action for a route, and with words for a regular expression.

    A model knows neither. What the table does not know stays as it is.
    """
    text = re.sub(ROUTE, lambda match: _action_at(match[1], match[2], tools) or match[0], text)
    named = [arg.pattern for arg in action.args if arg.pattern and re.search(rf"\b{arg.name}\b", text)]
    known = FORMATS.get(named[0]) if len(set(named)) == 1 else None

    def words(match: re.Match[str]) -> str:
        found = FORMATS.get(match[1], known)
        return match[0] if found is None else f"be {found}" if match[0].startswith("match ") else found

    return re.sub(REGULAR_EXPRESSION, words, text)


def _action_at(method: str | None, path: str, tools: Sequence[Tool]) -> str:
    """The action with this route, as tool.action; without a method, preferably one that reads. Empty if unknown."""
    found = [
        (action.effect != "read", f"{tool.name}.{action.name}")
        for tool in tools
        for action in tool.actions
        if method in (None, action.method) and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", action.path), path)
    ]
    return min(found, key=lambda each: each[0])[1] if found else ""


def error_members(answer: Answer) -> JsonObject:
    """The members of an error answer; none if it is not a JSON object."""
    try:
        members = parse_json(answer.body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _next_step(action: Action, answer: Answer, members: JsonObject, sanitize: Sanitizer) -> str:
    other = "the vault failed; try again later" if answer.status >= 500 else "repeating the same call does not help"
    hint = NEXT_STEP.get(answer.status, other)
    if answer.status == 401:
        return _clock_hint(answer) or hint
    if answer.status == 403:
        return _scope_hint(action, members, sanitize) + hint
    if answer.status == 404 and action.inferred:
        unknown_id = f", or does not know the id; {NEXT_STEP[404]}" if path_parameters(action.path) else ""
        return f"this vault does not offer the action {action.name}{unknown_id}"
    if answer.status == 429:
        wait_s = retry_after_s(answer)
        return hint if wait_s is None else f"too many requests: repeat after {wait_s:.0f} s"
    # A 503 without the vault's error member is a gateway's, which may have forwarded the request before it failed.
    from_vault = answer.status in (501, 507) or (answer.status == 503 and isinstance(members.get("error"), str))
    if answer.status >= 500 and not from_vault and action.effect != "read":
        return MAY_HAVE_BEEN_PROCESSED
    return hint


def _clock_hint(answer: Answer) -> str:
    date_s = parse_http_date(answer.headers.get("date", ""))
    skew_s = 0 if date_s is None else int(time.time() - date_s)
    if abs(skew_s) < CLOCK_SKEW_MAX_S:
        return ""
    direction = "ahead of" if skew_s > 0 else "behind"
    return f"this computer's clock is {abs(skew_s)} s {direction} the vault's: the user must set it"


def _scope_hint(action: Action, members: JsonObject, sanitize: Sanitizer) -> str:
    required = sanitize_json(members.get("requiredScopes"), sanitize)
    named = [scope for scope in required if isinstance(scope, str)] if isinstance(required, list) else []
    # Other text would read as this program's advice.
    scopes = [scope for scope in named if re.fullmatch(SCOPE, scope)][:8]
    if scopes:
        return f"missing scope: {', '.join(scopes)}; "
    needed = ["be approved and enabled", *([f"have the scope {action.scope}"] if action.scope else [])]
    needed += ["have the project on its allowlist"] if path_parameters(action.path) else []
    *first, last = needed
    return f"the agent must {', '.join(first)}, and {last}; " if first else f"the agent must {last}; "


def retry_after_s(answer: Answer) -> float | None:
    """The value of `Retry-After` in seconds; None if it is absent or neither seconds nor a date."""
    text = answer.headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    date_s = parse_http_date(text)
    return None if date_s is None else max(0.0, date_s - time.time())
