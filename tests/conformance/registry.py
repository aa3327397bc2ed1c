"""What the official conformance suite calls by fixed names: tools, resources, prompts. As a program it serves them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run by its path and isolated, so the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from sikkerkey_mcp import (
    INVALID_PARAMS,
    MISSING_CAPABILITY,
    RESOURCE_NOT_FOUND,
    Call,
    Context,
    Error,
    InputRequired,
    JsonObject,
    ProtocolError,
    ResourceProvider,
    error_result,
    serve,
    to_json,
)
from sikkerkey_questions import Form
from sikkerkey_results import text_result

# A red pixel, and a sound of no length.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()
IMAGE: JsonObject = {"type": "image", "data": PNG, "mimeType": "image/png"}
AUDIO: JsonObject = {"type": "audio", "data": WAV, "mimeType": "audio/wav"}
# The keywords that clients or libraries between them and the server have dropped before.
SCHEMA_2020_12: JsonObject = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
PURPOSE = "A fixture."


def elicitation(message: str, field: str, kind: str = "string") -> JsonObject:
    """A question with one required field."""
    form = Form(message, {field: {"type": kind}}, (field,))
    return {"method": "elicitation/create", "params": form.params("")}


def sampling(words: str) -> JsonObject:
    """A request for a few words of a model."""
    message = {"role": "user", "content": {"type": "text", "text": words}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}


USER_NAME, GREETING = elicitation("What is your name?", "name"), sampling("Generate a greeting")
CLIENT_ROOTS: JsonObject = {"method": "roots/list", "params": {}}
CONFIRM = elicitation("Please confirm", "ok", "boolean")
# What each fixture asks for, round by round.
ROUNDS: dict[str, list[JsonObject]] = {
    "test_input_required_result_elicitation": [{"user_name": USER_NAME}],
    "test_input_required_result_sampling": [{"capital_question": sampling("What is the capital of France?")}],
    "test_input_required_result_list_roots": [{"client_roots": CLIENT_ROOTS}],
    "test_input_required_result_request_state": [{"confirm": CONFIRM}],
    "test_input_required_result_multiple_inputs": [
        {"user_name": USER_NAME, "greeting": GREETING, "client_roots": CLIENT_ROOTS}
    ],
    "test_input_required_result_multi_round": [
        {"step1": elicitation("Step 1: What is your name?", "name")},
        {"step2": elicitation("Step 2: What is your favorite color?", "color")},
    ],
    "test_input_required_result_tampered_state": [{"confirm": CONFIRM}],
    "test_input_required_result_capabilities": [{"user_name": USER_NAME, "greeting": GREETING}],
    "test_streaming_elicitation": [{"user_name": USER_NAME}],
}
# The suite answers these without a state, which the vault's own confirmations do not accept.
STATELESS = {"test_input_required_result_elicitation"}
PROMPT_ROUNDS = [{"user_context": elicitation("What context should the prompt use?", "context")}]
CAPABILITY_OF = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
ENUM = ["option1", "option2", "option3"]
TITLED = [{"const": "value1", "title": "First"}, {"const": "value2", "title": "Second"}]
FORMS = {
    "test_elicitation": Form(
        "Please provide your information", {"username": {"type": "string"}, "email": {"type": "string"}}
    ),
    "test_elicitation_sep1034_defaults": Form(
        "Defaults",
        {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
    ),
    "test_elicitation_sep1330_enums": Form(
        "Choices",
        {
            "untitledSingle": {"type": "string", "enum": ENUM},
            "titledSingle": {"type": "string", "oneOf": TITLED},
            "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]},
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ENUM}},
            "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
        },
    ),
}


def go_through(rounds: list[JsonObject], context: Context, *, stateless: bool = False) -> JsonObject:
    """Returns the answers of the last round; until then, ends the call with what the next round asks for."""
    assert isinstance(context, Call)
    era = context.era
    asked = era.resumed.note["round"] if era.resumed else 0 if stateless else -1
    if asked >= 0 and set(rounds[asked]) <= set(era.input_responses):
        asked += 1
        if asked == len(rounds):
            return era.input_responses
    wanted = rounds[max(asked, 0)]
    able = {key: each for key, each in wanted.items() if CAPABILITY_OF[each["method"]] in era.client_capabilities}
    raise InputRequired(able, {"round": max(asked, 0)})


TEMPLATE = ("test://template/", "/data")


def embedded(uri: str, text: str, kind: str = "text/plain") -> JsonObject:
    """A content block with a resource in it."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}}


def said(*contents: JsonObject) -> JsonObject:
    """A prompt of the user's, a message for each content."""
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def text(words: str) -> JsonObject:
    """A content block."""
    return {"type": "text", "text": words}


class ConformanceLibrary:
    """Resources and prompts."""

    capabilities = ("resources", "prompts", "completions")

    def __init__(self) -> None:
        both = [{"name": "arg1", "required": True}, {"name": "arg2", "required": True}]
        uri = [{"name": "resourceUri", "required": True}]
        self._listings: dict[str, list[JsonObject]] = {
            "resources": [
                {"uri": "test://static-text", "name": "text", "mimeType": "text/plain"},
                {"uri": "test://static-binary", "name": "binary", "mimeType": "image/png"},
            ],
            "resourceTemplates": [{"uriTemplate": "{id}".join(TEMPLATE), "name": "data"}],
            "prompts": [
                {"name": "test_simple_prompt", "description": PURPOSE},
                {"name": "test_prompt_with_arguments", "description": PURPOSE, "arguments": both},
                {"name": "test_prompt_with_embedded_resource", "description": PURPOSE, "arguments": uri},
                {"name": "test_prompt_with_image", "description": PURPOSE},
                {"name": "test_input_required_result_prompt", "description": PURPOSE},
            ],
        }

    def listing(self, kind: str) -> list[JsonObject]:
        """What there is of a kind."""
        return self._listings[kind]

    def contents(self, uri: str, context: Context) -> list[JsonObject]:
        """Two resources and one template."""
        start, end = TEMPLATE
        if uri == "test://static-text":
            return [{"uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource."}]
        if uri == "test://static-binary":
            return [{"uri": uri, "mimeType": "image/png", "blob": PNG}]
        if uri.startswith(start) and uri.endswith(end):
            return [{"uri": uri, "mimeType": "text/plain", "text": f"Data for ID: {uri[len(start) : -len(end)]}"}]
        raise ProtocolError(RESOURCE_NOT_FOUND, "there is no such resource", {"uri": uri})

    def prompt(self, name: str, arguments: dict[str, str], context: Context) -> JsonObject:
        """One of the five."""
        if name == "test_prompt_with_arguments":
            return said(text("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'".format(**arguments)))
        if name == "test_prompt_with_embedded_resource":
            resource = embedded(arguments["resourceUri"], "Embedded resource content for testing.")
            return said(resource, text("Please process the embedded resource above."))
        if name == "test_input_required_result_prompt":
            return said(text(to_json(go_through(PROMPT_ROUNDS, context))))
        if name == "test_prompt_with_image":
            return said(IMAGE, text("Please analyze the image above."))
        return said(text("This is a simple prompt for testing."))

    def suggestions(
        self, reference: JsonObject, argument: str, begun: str, known: dict[str, str], context: Context
    ) -> list[str]:
        """Words that go on from what was typed."""
        if reference.get("type") != "ref/prompt":
            raise ProtocolError(INVALID_PARAMS, "there is nothing to complete")
        return [begun + ending for ending in ("", "er", "ing")]


class ConformanceTools:
    """Tools that need no network and no arguments."""

    instructions = "Fixtures of the conformance suite."
    title = "SikkerKey"
    capabilities: tuple[str, ...] = ("tools", *ConformanceLibrary.capabilities)

    def __init__(self) -> None:
        self.resources: ResourceProvider = ConformanceLibrary()
        self._contents: dict[str, list[JsonObject]] = {
            "test_simple_text": [text("This is a simple text response for testing.")],
            "test_image_content": [IMAGE],
            "test_audio_content": [AUDIO],
            "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
            "test_multiple_content_types": [
                text("Multiple content types test:"),
                IMAGE,
                embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
            ],
        }
        self._deeds: dict[str, Callable[[Context], JsonObject]] = {
            "test_tool_with_logging": self._log,
            "test_logging_tool": self._log,
            "test_missing_capability": self._need_sampling,
            "test_tool_with_progress": self._progress,
            "test_error_handling": lambda _context: error_result(Error("this tool always fails")),
            "json_schema_2020_12_tool": lambda _context: text_result("done"),
        }

    def listing(self) -> list[JsonObject]:
        """Every tool; one has a schema that uses what JSON Schema offers."""
        schemas = {"json_schema_2020_12_tool": SCHEMA_2020_12}
        return [
            {"name": name, "description": PURPOSE, "inputSchema": schemas.get(name, {"type": "object"})}
            for name in (*self._contents, *self._deeds, *FORMS, *ROUNDS)
        ]

    def has(self, name: str) -> bool:
        """True if there is a tool of that name."""
        return any(name in some for some in (self._contents, self._deeds, FORMS, ROUNDS))

    def prepare(self) -> None:
        """Nothing needs to be loaded."""

    def call(self, name: str, arguments: JsonObject, context: Context) -> JsonObject:
        """What the suite expects of it."""
        if name in FORMS:
            answered = context.ask(FORMS[name])
            return text_result(f"User response: action={answered.action}, content={to_json(answered.content)}")
        if name in ROUNDS:
            return text_result("state-ok " + to_json(go_through(ROUNDS[name], context, stateless=name in STATELESS)))
        return {"content": self._contents[name]} if name in self._contents else self._deeds[name](context)

    def _need_sampling(self, context: Context) -> JsonObject:
        assert isinstance(context, Call)
        if "sampling" not in context.era.client_capabilities:
            data: JsonObject = {"requiredCapabilities": {"sampling": {}}}
            raise ProtocolError(MISSING_CAPABILITY, "this needs a capability that the client did not declare", data)
        return text_result("done")

    def _log(self, context: Context) -> JsonObject:
        for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            context.log("info", words)
        return text_result("logged")

    def _progress(self, context: Context) -> JsonObject:
        for words in ("begun", "half done", "done"):
            context.progress(words)
        return text_result("reported")


if __name__ == "__main__":
    serve(ConformanceTools())
