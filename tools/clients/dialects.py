"""The four HTTP interfaces between AI clients and models: parses requests, formats answers.

Each dialect converts the body of a request to a `ModelRequest`, and an `Answer` to a body, which is streamed as
server-sent events if the client requested that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Union

JSON, EVENTS = "application/json", "text/event-stream"


class ModelRequest(NamedTuple):
    """A request to the model: the available tools by name, and the result of each call by the call's id.

    `instructions` is all other text that the model did not write itself.
    """

    tools: dict[str, Any]
    results: dict[str, str]
    instructions: str


class Call(NamedTuple):
    """The model calls a tool."""

    id: str
    name: str
    arguments: dict[str, Any]


class Text(NamedTuple):
    """The model answers with text."""

    text: str


Answer = Union[Call, Text]


class Dialect(NamedTuple):
    """Functions that parse a request's body and format an answer, as one object and as a stream of events."""

    read: Callable[[Any], ModelRequest]
    whole: Callable[[Answer], Any]
    events: Callable[[Answer], Iterator[tuple[str, Any]]]


def text_of(content: Any) -> str:
    """The text in a content member: a string, a list of typed blocks, or any other value as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text_of(block) for block in content)
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return json.dumps(content, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------------------------------
# Anthropic Messages: Claude Code
# ---------------------------------------------------------------------------------------------------------------------


def _read_messages(body: Any) -> ModelRequest:
    """The model does not see a deferred tool until a result refers to it."""
    contents = [message["content"] for message in body["messages"] if message["role"] != "assistant"]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    blocks = [part for part in parts if part["type"] == "tool_result"]
    referred = {
        part.get("tool_name")
        for block in blocks
        if isinstance(block.get("content"), list)
        for part in block["content"]
        if part["type"] == "tool_reference"
    }
    tools = {
        tool["name"]: tool
        for tool in body.get("tools", [])
        if not tool.get("defer_loading") or tool["name"] in referred
    }
    results = {block["tool_use_id"]: text_of(block.get("content", "")) for block in blocks}
    texts = [body.get("system", ""), *(content for content in contents if isinstance(content, str))]
    texts += [part for part in parts if part["type"] == "text"]
    return ModelRequest(tools, results, text_of(texts))


def _message(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": answer.text} if isinstance(answer, Text) else {}
    if isinstance(answer, Call):
        content = {"type": "tool_use", "id": answer.id, "name": answer.name, "input": answer.arguments}
    return {
        "id": "msg_trial",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [content],
        "stop_reason": "tool_use" if isinstance(answer, Call) else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _message_events(answer: Answer) -> Iterator[tuple[str, Any]]:
    whole = _message(answer)
    content = whole["content"][0]
    if isinstance(answer, Call):
        block = {**content, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(answer.arguments)}
    else:
        block, delta = {**content, "text": ""}, {"type": "text_delta", "text": answer.text}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    for name, members in (
        ("message_start", {"message": {**whole, "content": [], "stop_reason": None}}),
        ("content_block_start", {"index": 0, "content_block": block}),
        ("content_block_delta", {"index": 0, "delta": delta}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": stop, "usage": {"output_tokens": 1}}),
        ("message_stop", {}),
    ):
        yield name, {"type": name, **members}


# ---------------------------------------------------------------------------------------------------------------------
# OpenAI Responses: Codex
# ---------------------------------------------------------------------------------------------------------------------


def _read_responses(body: Any) -> ModelRequest:
    """Tools can be in a namespace, whose description is the server's instructions; a call gives both names."""
    tools: dict[str, Any] = {}
    texts = [body.get("instructions", "")]
    for tool in body.get("tools", []):
        if tool["type"] == "namespace":
            tools.update({f"{tool['name']}/{inner['name']}": inner for inner in tool["tools"]})
            texts.append(tool.get("description", ""))
        else:
            tools[tool.get("name", tool["type"])] = tool
    items = body["input"] if isinstance(body["input"], list) else []
    results = {item["call_id"]: text_of(item["output"]) for item in items if item["type"] == "function_call_output"}
    texts += [item["content"] for item in items if item["type"] == "message" and item["role"] != "assistant"]
    return ModelRequest(tools, results, text_of(texts))


def _response_item(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Text):
        text = {"type": "output_text", "text": answer.text, "annotations": []}
        return {"type": "message", "id": "msg_trial", "role": "assistant", "status": "completed", "content": [text]}
    namespace, _, name = answer.name.rpartition("/")
    item = {"type": "function_call", "id": f"fc_{answer.id}", "call_id": answer.id, "name": name, "status": "completed"}
    where = {"namespace": namespace} if namespace else {}
    return {**item, **where, "arguments": json.dumps(answer.arguments)}


def _response(answer: Answer) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    response = {"id": "resp_trial", "object": "response", "status": "completed", "model": "scripted"}
    return {**response, "output": [_response_item(answer)], "usage": {**usage, **details}}


def _response_events(answer: Answer) -> Iterator[tuple[str, Any]]:
    whole = _response(answer)
    item = whole["output"][0]
    for name, members in (
        ("response.created", {"response": {**whole, "status": "in_progress", "output": []}}),
        ("response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress"}}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": whole}),
    ):
        yield name, {"type": name, **members}


# ---------------------------------------------------------------------------------------------------------------------
# OpenAI Chat Completions: Continue, opencode, Copilot
# ---------------------------------------------------------------------------------------------------------------------


def _read_chat(body: Any) -> ModelRequest:
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or []}
    results = {it["tool_call_id"]: text_of(it["content"]) for it in body["messages"] if it["role"] == "tool"}
    contents = [text_of(it.get("content")) for it in body["messages"] if it["role"] not in ("tool", "assistant")]
    return ModelRequest(tools, results, "\n".join(contents))


def _chat_choice(answer: Answer) -> tuple[dict[str, Any], str]:
    if isinstance(answer, Text):
        return {"role": "assistant", "content": answer.text}, "stop"
    function = {"name": answer.name, "arguments": json.dumps(answer.arguments)}
    call = {"index": 0, "id": answer.id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _chat(answer: Answer) -> dict[str, Any]:
    message, reason = _chat_choice(answer)
    return _chat_object("chat.completion", {"message": message, "finish_reason": reason}, usage=CHAT_USAGE)


CHAT_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _chat_object(kind: str, *choices: dict[str, Any], usage: dict[str, int] | None = None) -> dict[str, Any]:
    numbered = [{"index": index, "logprobs": None, **choice} for index, choice in enumerate(choices)]
    return {"id": "chat_trial", "object": kind, "created": 0, "model": "scripted", "choices": numbered, "usage": usage}


def _chat_events(answer: Answer) -> Iterator[tuple[str, Any]]:
    """Only a separate last chunk has the usage: Continue keeps at most one chunk with it."""
    kind = "chat.completion.chunk"
    delta, reason = _chat_choice(answer)
    yield "", _chat_object(kind, {"delta": delta, "finish_reason": None})
    yield "", _chat_object(kind, {"delta": {}, "finish_reason": reason})
    yield "", _chat_object(kind, usage=CHAT_USAGE)
    yield "", None


# ---------------------------------------------------------------------------------------------------------------------
# Gemini generateContent: Gemini CLI
# ---------------------------------------------------------------------------------------------------------------------


def _read_gemini(body: Any) -> ModelRequest:
    """Results may lack the call's id; those are numbered."""
    declared = [tool for group in body.get("tools") or [] for tool in group.get("functionDeclarations", [])]
    parts = [part for content in body.get("contents", []) for part in content.get("parts", [])]
    answered = [part["functionResponse"] for part in parts if "functionResponse" in part]
    results = {
        response.get("id") or str(number): text_of(response["response"].get("output", response["response"]))
        for number, response in enumerate(answered)
    }
    contents = [text_of(body.get("systemInstruction", {}).get("parts", [])), *(part.get("text", "") for part in parts)]
    return ModelRequest({tool["name"]: tool for tool in declared}, results, "\n".join(contents))


def _gemini(answer: Answer) -> dict[str, Any]:
    part: dict[str, Any] = {"text": answer.text} if isinstance(answer, Text) else {}
    if isinstance(answer, Call):
        part = {"functionCall": {"id": answer.id, "name": answer.name, "args": answer.arguments}}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted"}


def _gemini_events(answer: Answer) -> Iterator[tuple[str, Any]]:
    yield "", _gemini(answer)


MESSAGES = Dialect(_read_messages, _message, _message_events)
RESPONSES = Dialect(_read_responses, _response, _response_events)
CHAT = Dialect(_read_chat, _chat, _chat_events)
GEMINI = Dialect(_read_gemini, _gemini, _gemini_events)


def stream(events: Iterator[tuple[str, Any]]) -> bytes:
    """Formats server-sent events; an event without data is the end marker of Chat Completions."""
    parts = []
    for name, data in events:
        head = f"event: {name}\n" if name else ""
        parts.append(f"{head}data: {'[DONE]' if data is None else json.dumps(data)}\n\n")
    return "".join(parts).encode("utf-8")
