"""Asking the person who uses the MCP client: what is asked, what counts as an answer, and how it travels.

There are two ways. `OpenRequests` holds the server's own requests, each of which blocks its call until the client
answers. `RequestStates` seals what a call that asked has to know when the client sends it again with the answer.

This module loads OpenSSL, so it is imported only when a question is asked. It imports no module of this project.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Union

JsonObject = dict[str, Any]

OPEN_REQUESTS_MAX = 2  # each of them blocks a thread that other calls need
STATES_MAX = 100  # unanswered ones; a further one replaces the oldest
STATE_MAX_CHARACTERS = 100_000  # this server's own states are much shorter
PROGRESS_S = 5.0  # clients with a time limit for silent calls allow 45 s or more
NOBODY_S = 1.0  # a person needs longer than this to answer
FORM_MAX_S, PAGE_MAX_S = 300.0, 600.0  # how long a question may stay unanswered


class Form(NamedTuple):
    """Fields to fill in. `fields` maps names to primitive JSON schemas. Never ask for a secret in a form."""

    message: str
    fields: Mapping[str, JsonObject]
    required: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """The mode of elicitation that a client must have declared."""
        return "form"

    @property
    def open_max_s(self) -> float:
        """How long it may stay unanswered."""
        return FORM_MAX_S

    def params(self, _question_id: str) -> JsonObject:
        """The params of `elicitation/create`."""
        schema = {"type": "object", "properties": dict(self.fields), "required": list(self.required)}
        return {"mode": self.mode, "message": self.message, "requestedSchema": schema}

    def identity(self) -> list[Any]:
        """What makes it the same question when it is asked again."""
        return [self.mode, self.params("")]


class Page(NamedTuple):
    """A page to open in a browser. `url` makes its address from the question's id, when the question is sent."""

    message: str
    url: Callable[[str], str]

    @property
    def mode(self) -> str:
        """The mode of elicitation that a client must have declared."""
        return "url"

    @property
    def open_max_s(self) -> float:
        """How long it may stay unanswered."""
        return PAGE_MAX_S

    def params(self, question_id: str) -> JsonObject:
        """The params of `elicitation/create`.

        Revision 2026-07-28 has no `elicitationId`, but Copilot CLI 1.0 shows the whole result, with the URL, to the
        model if it is missing.
        """
        url = self.url(question_id)
        return {"mode": self.mode, "message": self.message, "url": url, "elicitationId": question_id}

    def identity(self) -> list[Any]:
        """What makes it the same question when it is asked again: its address differs each time."""
        return [self.mode, self.message]


Question = Union[Form, Page]
Action = Literal["accept", "decline", "cancel", "unsupported"]


class Reply(NamedTuple):
    """What came back, `after_s` seconds after the question was sent.

    `accept` is the only consent. The `content` of an accepted form has all required fields, no unknown ones, and fits
    their schemas; accepting a page means that the person wants to open it. `cancel` also stands for a content that does
    not fit and for no answer in time, `unsupported` for a client that cannot ask.
    """

    action: Action
    content: JsonObject
    question_id: str
    after_s: float


def was_nobody_asked(reply: Reply) -> bool:
    """True if a client answered for its user: it cannot ask, or it said no faster than a person can."""
    return reply.action == "unsupported" or (reply.action != "accept" and reply.after_s < NOBODY_S)


def unsupported() -> Reply:
    """The reply for a client that cannot ask."""
    return Reply("unsupported", {}, "", 0.0)


def new_question_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_hex(12)


def read_reply(question: Question, result: Any, question_id: str, after_s: float) -> Reply:
    """The reply in an `ElicitResult`. Raises ValueError if it is none."""
    action = result.get("action") if isinstance(result, dict) else None
    if action not in ("accept", "decline", "cancel"):
        raise ValueError("not an ElicitResult")
    content = result.get("content", {})
    if action != "accept":
        return Reply(action, {}, question_id, after_s)
    if isinstance(question, Page):
        return Reply("accept", {}, question_id, after_s)
    if not _fits_form(question, content):
        return Reply("cancel", {}, question_id, after_s)
    return Reply("accept", content, question_id, after_s)


def _fits_form(form: Form, content: Any) -> bool:
    """True if the content has the required fields and no others than the form's, and each fits its schema.

    Clients are known to accept a form that they cannot draw with empty content, and to offer free text for an enum.
    """
    if not isinstance(content, dict) or not set(form.required) <= set(content) <= set(form.fields):
        return False
    return all(_fits(form.fields[name], value) for name, value in content.items())


def _fits(schema: JsonObject, value: Any) -> bool:
    """True if a value fits a primitive schema of the protocol."""
    kind = schema["type"]
    if kind == "array":
        items = schema.get("items", {})
        allowed = items.get("enum") or [choice["const"] for choice in items.get("anyOf", [])]
        in_bounds = isinstance(value, list) and _within(len(value), schema, "minItems", "maxItems")
        return in_bounds and all(isinstance(each, str) and each in allowed for each in value)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "number"):
        is_number = isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
        return is_number and _within(value, schema, "minimum", "maximum")
    choices = schema.get("enum") or [choice["const"] for choice in schema.get("oneOf", [])]
    if not isinstance(value, str) or (choices and value not in choices):
        return False
    return _within(len(value), schema, "minLength", "maxLength")


def _within(size: float, schema: JsonObject, least: str, most: str) -> bool:
    return bool(schema.get(least, size) <= size <= schema.get(most, size))


class TooManyOpenError(Exception):
    """OPEN_REQUESTS_MAX questions are open already."""


class _OpenRequest:
    """A request of the server that the client has not answered yet."""

    def __init__(self) -> None:
        self.settled = threading.Event()  # the client answered, or the call was cancelled
        self.answer: JsonObject | None = None


class OpenRequests:
    """The server's own `elicitation/create` requests to one client, in the revisions that have such requests."""

    def __init__(self, send: Callable[[JsonObject], None], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._send, self._monotonic_s = send, monotonic_s
        self._lock = threading.Lock()
        self._open: dict[str, _OpenRequest] = {}
        self._count = 0

    def ask(
        self,
        question: Question,
        *,
        on_cancel: Callable[[Callable[[], None] | None], None],
        progress: Callable[[str], None],
    ) -> Reply:
        """Sends a question and blocks until it is answered, withdrawn or too old.

        `on_cancel` registers what ends the wait early. The client is told to close the question unless it answered it.
        Raises TooManyOpenError.
        """
        question_id, waiting = new_question_id(), _OpenRequest()
        with self._lock:
            if len(self._open) == OPEN_REQUESTS_MAX:
                raise TooManyOpenError
            self._count += 1
            request_id = f"question-{self._count}"
            self._open[request_id] = waiting
        started_s = self._monotonic_s()
        try:
            params = question.params(question_id)
            self._send({"jsonrpc": "2.0", "id": request_id, "method": "elicitation/create", "params": params})
            on_cancel(waiting.settled.set)
            while not waiting.settled.wait(PROGRESS_S) and self._monotonic_s() - started_s < question.open_max_s:
                progress("waiting for an answer")
        finally:
            on_cancel(None)
            with self._lock:
                unanswered = self._open.pop(request_id, None)
        after_s = self._monotonic_s() - started_s
        if unanswered:
            withdrawn = {"requestId": request_id, "reason": "the call has ended, or the answer took too long"}
            self._send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": withdrawn})
            return Reply("cancel", {}, question_id, after_s)
        return _reply_in(question, waiting.answer or {}, question_id, after_s)

    def answered(self, message: JsonObject) -> None:
        """Takes the client's response; ignores one to a question that is not open, or no longer."""
        request_id = message.get("id")
        with self._lock:
            waiting = self._open.pop(request_id, None) if isinstance(request_id, str) else None
            if waiting:
                waiting.answer = message
                waiting.settled.set()


def _reply_in(question: Question, message: JsonObject, question_id: str, after_s: float) -> Reply:
    if "error" in message:
        return Reply("unsupported", {}, question_id, after_s)
    try:
        return read_reply(question, message.get("result"), question_id, after_s)
    except ValueError:
        return Reply("cancel", {}, question_id, after_s)


class Resumed(NamedTuple):
    """What a sealed state holds, and how many seconds ago it was sealed."""

    note: JsonObject
    after_s: float


class RequestStates:
    """Seals and opens `requestState`, which the client keeps while it asks the person.

    A state is `base64url(JSON).base64url(HMAC-SHA256)`. The key lives as long as this process. The HMAC covers the
    request too, so the state fits only the request that it was made for. It expires, and it can be used once.
    """

    def __init__(
        self, now_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._key = secrets.token_bytes(32)
        self._now_s, self._monotonic_s = now_s, monotonic_s
        self._lock = threading.Lock()
        self._sealed_at_s: dict[str, float] = {}  # on the monotonic clock, by nonce, oldest first

    def seal(self, note: JsonObject, request: Any, open_max_s: float) -> str:
        """The state that carries `note` until the client sends `request` again, for at most `open_max_s`."""
        nonce = secrets.token_hex(16)
        with self._lock:
            if len(self._sealed_at_s) == STATES_MAX:
                del self._sealed_at_s[next(iter(self._sealed_at_s))]
            self._sealed_at_s[nonce] = self._monotonic_s()
        payload = {"nonce": nonce, "expires": self._now_s() + open_max_s, "life": open_max_s, "note": note}
        text = _base64url(_canonical(payload))
        return f"{text}.{_base64url(self._mac(text, request))}"

    def open(self, state: Any, request: Any) -> Resumed:
        """What `seal` was given for the same request.

        Raises ValueError if it was given for another request, too long ago or not at all, or if the state was opened
        before.
        """
        if not isinstance(state, str) or len(state) > STATE_MAX_CHARACTERS or not state.isascii():
            raise ValueError("not a state")
        text, _, mac = state.partition(".")
        try:
            expected = _base64url(self._mac(text, request))
        except RecursionError:
            raise ValueError("the request is nested too deeply") from None
        if not hmac.compare_digest(mac, expected):
            raise ValueError("the state is forged, or belongs to another request")
        payload = json.loads(base64.urlsafe_b64decode(text))
        with self._lock:
            sealed_at_s = self._sealed_at_s.pop(payload["nonce"], None)
        if sealed_at_s is None:
            raise ValueError("the state was used before, or replaced by many newer ones")
        after_s = self._monotonic_s() - sealed_at_s
        # Two clocks: one does not run while the computer sleeps, the other may be set back.
        if after_s > payload["life"] or self._now_s() > payload["expires"]:
            raise ValueError("the state has expired")
        return Resumed(payload["note"], after_s)

    def fingerprint(self, value: Any) -> str:
        """A short text that is the same for the same value, and says nothing about it."""
        return _base64url(self._mac("fingerprint", value))

    def _mac(self, text: str, request: Any) -> bytes:
        return hmac.new(self._key, text.encode() + b"." + _canonical(request), "sha256").digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")
