"""What every part of the server needs: limits, errors, text and JSON. Nothing here knows MCP or the vault's actions."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, NoReturn

import sikkerkey_redact
import sikkerkey_shell

JsonObject = dict[str, Any]  # a decoded JSON object; its members are whatever the peer sent


# ---------------------------------------------------------------------------------------------------------------------
# limits: every external input is bounded. If a model can reach a bound, the error message names it.
# ---------------------------------------------------------------------------------------------------------------------

ERROR_MAX_CHARACTERS = 500  # of the vault's own error text that is shown to the model
JSON_MAX_VALUES = 300_000  # of one text: 10,000 audit rows are about 100,000; each takes up to 250 bytes of memory
INTEGER_MAX = 2**63 - 1  # the vault's integers are 64 bits wide
FLOAT_EXACT_MAX = 2**53  # a float may have lost digits of a larger integer
TOKEN_CHARACTERS = 64  # of a registration token, hexadecimal
INTEGER_MAX_DIGITS = 1_000  # old Pythons need quadratic time for more; newer ones refuse 4,301


# ---------------------------------------------------------------------------------------------------------------------
# errors: caught in two places only, `tools/call` and the command line. A message is in lower case, names the argument,
# file or host and the rule, never a value, and has no full stop at the end; `hint` says how to fix it.
#
#     Error
#     +-- ConfigError      this computer: files, modes, environment
#     |   +-- UsageError       the command line
#     +-- ArgumentError    what the model sent
#     +-- ServiceError     what the vault answered, or that it did not answer
#         +-- AnswerTooLarge   an answer that was not read
#     +-- ProtocolError    what the MCP client sent
# ---------------------------------------------------------------------------------------------------------------------


class Error(Exception):
    """An error that this program reports in words. Any other exception that escapes is a bug."""

    exit_status = 1  # of a command that ends with it

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def full_text(self) -> str:
        """The message, and the hint on a line of its own."""
        return readable(f"{self}\nhint: {self.hint}" if self.hint else str(self))


class ConfigError(Error):
    """Something on this computer must be fixed by its user."""


class UsageError(ConfigError):
    """The command line is wrong; nothing was sent and nothing was changed."""

    exit_status = 2


class ArgumentError(Error):
    """An argument was refused; nothing has been written."""


class ServiceError(Error):
    """The vault refused the request (`status` is its HTTP status) or could not be reached (`status` is 0)."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class AnswerTooLarge(ServiceError):
    """The vault's answer has more than ANSWER_MAX_BYTES."""


def missing_module(error: ImportError) -> ConfigError:
    """The error for a Python that lacks a part of its standard library, such as Debian's python3-minimal."""
    hint = "install all of Python: on Debian and Ubuntu with apt-get install python3, elsewhere from python.org"
    return ConfigError(f"this Python has no usable module {error.name or 'of that name'}", hint)


class ProtocolError(Error):
    """A message that JSON-RPC or MCP does not allow; `code` is the JSON-RPC error code, `data` its extra data."""

    def __init__(self, code: int, message: str, data: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code, self.data = code, data


PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
RESOURCE_NOT_FOUND = -32002

ASK_FOR_LESS = "ask for less: a smaller pageSize, a shorter time span, a filter"
MAY_HAVE_BEEN_PROCESSED = "the request may have been processed: look (list, get) before repeating it"
CHECK_INTERMEDIARY_HINT = "check what is between this computer and the vault: a proxy, a portal, a gateway"


# ---------------------------------------------------------------------------------------------------------------------
# settings: what an option or a variable says.
# ---------------------------------------------------------------------------------------------------------------------

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def is_yes(source: str, text: str) -> bool:
    """Whether a switch is on. `source` is the option or the variable with this text. Raises ConfigError."""
    if text.strip().lower() not in YES + NO:
        raise wrong_setting(source, f"must be one of: {', '.join(YES + NO)}", "set it to 1 or 0, or unset it")
    return text.strip().lower() in YES


def wrong_setting(source: str, rule: str, hint: str = "") -> ConfigError:
    """The error for an option or a variable whose text breaks a rule."""
    return (UsageError if source.startswith("--") else ConfigError)(f"{source} {rule}", hint)


# ---------------------------------------------------------------------------------------------------------------------
# text and JSON: nothing here knows MCP or the vault.
# ---------------------------------------------------------------------------------------------------------------------

# Characters that are invisible or change how others look: controls, bidirectional marks, joiners, fillers, blanks
# that are no spaces, variation selectors, tags, private use, lone surrogates. Listed here because unicodedata differs
# between Python versions.
HIDDEN = (
    "\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff\U00013430-\U0001343f"
    "\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
)
# The hidden characters that ordinary text needs: line breaks, and what joins or colours emoji and connected scripts.
# Elsewhere a selector or joiner behind each letter would carry words that nobody sees.
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff\u3030\u303d"
    "\u3297\u3299\U0001f000-\U0001faff"
)
# From Arabic to Myanmar, from Tagalog to Vedic, Syloti Nagri to Meetei Mayek, Arabic forms, Kharoshthi to Tamil signs.
_JOINED_SCRIPTS = (
    "\u0600-\u109f\u1700-\u18af\u1900-\u1cff\ua800-\uabff\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"
)
NEEDED = (
    r"[\t\n]|\r(?=\n)"
    rf"|(?<=[{_EMOJI}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    rf"|(?<=[{_EMOJI}\ufe0f])\u200d(?=[{_EMOJI}])"
    rf"|(?<=[{_JOINED_SCRIPTS}])(?<![{HIDDEN}])[\u200c\u200d](?=[{_JOINED_SCRIPTS}])(?![\u200c\u200d][{HIDDEN}])"
)


def clean(text: str, limit: int = ERROR_MAX_CHARACTERS) -> str:
    """`text` on one line for people to read: every hidden character becomes `<U+XXXX>`.

    Names and error texts are chosen by others; without this they could move the cursor, reverse a line or hide words.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():  # nearly every text
        return text
    return re.sub(f"[{HIDDEN}]", _code_point, text[:limit]) + ("..." if len(text) > limit else "")


def readable(text: str) -> str:
    """`text` of any length for a model and the person watching it: like `clean`, but keeps lines and emoji."""
    if text.isascii() and text.isprintable():  # nearly every text
        return text
    return re.sub(f"[{HIDDEN}]", _code_point_unless_needed, text)


def _code_point(match: re.Match[str]) -> str:
    return f"<U+{ord(match[0]):04X}>"


def _code_point_unless_needed(match: re.Match[str]) -> str:
    return match[0] if re.compile(NEEDED).match(match.string, match.start()) else _code_point(match)


def parse_json(data: bytes) -> Any:
    """The value of UTF-8 JSON bytes.

    Raises ValueError for anything else, and for NaN, infinite numbers, too much nesting, too many values or digits.
    """
    if data.count(b",") > JSON_MAX_VALUES:
        raise ValueError("too many values")
    if sikkerkey_redact.nests_too_deeply(data):
        raise ValueError("nested too deeply")
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_int(text: str) -> int:
    if len(text) > INTEGER_MAX_DIGITS:
        raise ValueError("an integer has too many digits")
    return int(text)


def _parse_float(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError("a number is too large")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """Compact JSON. Characters stand as themselves unless there are lone surrogates, which UTF-8 cannot encode."""
    text = _ENCODER.encode(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


# ---------------------------------------------------------------------------------------------------------------------
# commands: how messages name the commands of this program.
# ---------------------------------------------------------------------------------------------------------------------


def program() -> list[str]:
    """The command that runs the commands of this program, in absolute paths."""
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) == "sikkerkey_mcp.py":  # started directly: it only serves
        path = os.path.join(os.path.dirname(path), "sikkerkey_cli", "__main__.py")
    return [os.path.abspath(sys.executable), path]


# The commands that hints name. Whoever shows a hint to a person or a model makes them runnable.
HINTED_COMMAND = (
    r"(?<![\w./-])sikkerkey-mcp "
    r"(?=(serve|setup|install|rotate-key|whoami|revoke|config|doctor|tools|call|fill|show|confirm|log)\b)"
)


def runnable(hint: str) -> str:
    """The hint with the command that started this program instead of its name."""
    return re.sub(HINTED_COMMAND, lambda _: f"{sikkerkey_shell.command_line(program())} ", hint)
