"""The options of `serve`: one table, from which the command line, the variables and the help are read.

Nothing here knows the vault's actions: what restricts them is in `sikkerkey_mcp`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from sikkerkey_actions import did_you_mean
from sikkerkey_core import NO, UsageError, clean, is_yes, wrong_setting
from sikkerkey_results import RESULT_CHARACTERS

SPLIT_READS, NO_ACTIVITY_LOG = "--split-reads", "--no-activity-log"
ANSWER_LIMIT, PREFIX = "--answer-limit", "--prefix"
CONFIRM, VALUES, BROWSER = "--confirm", "--values", "--browser"
MAX_CALLS, MAX_DESTRUCTIVE = "--max-calls", "--max-destructive"

ACTIVITY_LOG_VARIABLE = "SIKKERKEY_ACTIVITY_LOG"  # on or off, unlike the option
RESULT_LIMITS = (1_000, 1_000_000)  # characters, of `--answer-limit`
PREFIX_RULE = "[A-Za-z][A-Za-z0-9-]{0,15}"  # with a tool's name it fits into the 64 characters that APIs allow
LIMIT_UNITS_S = {"minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
LIMIT_MAX = 100_000  # the times of so many calls are kept
NO_LIMIT = "none"
LIMIT_RULE = (
    f"must be a number of calls up to {LIMIT_MAX:,} for each {', '.join(LIMIT_UNITS_S)}, such as 120/minute, "
    f"or {NO_LIMIT}"
)


class ServeOption(NamedTuple):
    """An option beside --agent. Without a placeholder and choices it is a switch."""

    name: str
    variable: str
    text: str
    placeholder: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""
    repeatable: bool = False

    @property
    def attribute(self) -> str:
        """Its name in the result of argparse."""
        return self.name.strip("-").replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether nothing follows it."""
        return not self.placeholder and not self.choices


# fmt: off
_OPTIONS = (
    ServeOption("--read-only", "SIKKERKEY_READ_ONLY",
                "offer only actions that change nothing and create no credential"),
    ServeOption("--tools", "SIKKERKEY_TOOLS",
                "offer only these: TOOL or TOOL.ACTION, separated by commas", "NAMES", repeatable=True),
    ServeOption("--exclude", "SIKKERKEY_EXCLUDE",
                "do not offer these: TOOL or TOOL.ACTION, separated by commas", "NAMES", repeatable=True),
    ServeOption(SPLIT_READS, "SIKKERKEY_SPLIT_READS",
                "offer reads as tools of their own (read_secrets), which clients can approve separately"),
    ServeOption(NO_ACTIVITY_LOG, "", "keep no record of the calls (see sikkerkey-mcp log) on this computer"),
    ServeOption(ANSWER_LIMIT, "SIKKERKEY_ANSWER_LIMIT",
                f"characters that a result may have; default {RESULT_CHARACTERS:,}", "N"),
    ServeOption(PREFIX, "",
                "what the tools' names begin with, for clients that mix up the tools of several servers", "NAME"),
    ServeOption(CONFIRM, "SIKKERKEY_CONFIRM",
                "which calls a person must confirm: what cannot be undone, widens access or disarms an alarm (the "
                "default), all that is destructive, every write, or none",
                choices=("irreversible", "destructive", "writes", "never"), default="irreversible"),
    ServeOption(VALUES, "SIKKERKEY_VALUES", "from-person: the model cannot give values, people type them",
                choices=("any", "from-person"), default="any"),
    ServeOption(BROWSER, "SIKKERKEY_BROWSER", "never: do not open a page in a browser, only offer commands",
                choices=("auto", "never"), default="auto"),
    # A person at work causes far fewer calls; a script or a model in a loop soon has more.
    ServeOption(MAX_CALLS, "SIKKERKEY_MAX_CALLS",
                "how many calls are carried out; default 120/minute", "N/UNIT", default="120/minute"),
    ServeOption(MAX_DESTRUCTIVE, "SIKKERKEY_MAX_DESTRUCTIVE",
                "how many destructive calls are sent that no person completes; default 60/hour", "N/UNIT",
                default="60/hour"),
)
# fmt: on
OPTIONS = {option.name: option for option in _OPTIONS}


def parse_serve_options(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The chosen agent, and the text of each other option by its name. Raises UsageError."""
    if not arguments:
        return "", {}
    import argparse  # not at the top: with a parser it takes 5 ms, and clients rarely pass options

    class OptionParser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            known = re.sub("[0-9A-Fa-f]{64}", "(a token)", message)
            raise UsageError(clean(known), "correct the server's arguments; `sikkerkey-mcp serve --help` lists them")

    parser = OptionParser(
        prog="sikkerkey-mcp serve",
        description="Serves MCP on stdin and stdout.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),  # measuring the terminal takes 4 ms
    )
    parser.add_argument("--agent", default="", metavar="ID", help="which agent, if several are installed")
    for option in OPTIONS.values():
        if option.is_switch:
            parser.add_argument(option.name, action="store_const", const="1", help=option.text)
        elif option.choices:
            parser.add_argument(option.name, choices=option.choices, help=option.text)
        else:
            action = "append" if option.repeatable else "store"
            parser.add_argument(option.name, action=action, metavar=option.placeholder, help=option.text)
    found, rest = parser.parse_known_args(arguments)
    if rest:
        parser.error(_unknown_option(rest))
    texts = {option.name: getattr(found, option.attribute) for option in OPTIONS.values()}
    joined = {name: ",".join(text) if isinstance(text, list) else text for name, text in texts.items()}
    return found.agent, {name: text for name, text in joined.items() if text is not None}


def _unknown_option(words: Sequence[str]) -> str:
    """What is wrong with words that are no options. Only the name of an option is repeated: a word may be a token."""
    names = [name for name in (word.partition("=")[0] for word in words) if re.fullmatch("--?[a-z-]{1,20}", name)]
    if not names:
        return "unknown option or argument"
    similar = did_you_mean(names[0], ["--agent", *OPTIONS])
    return f"unknown option {names[0]}{similar and f' ({similar})'}"


def chosen(name: str, options: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str]:
    """What says an option, and its text: the command line, else the variable, else the default."""
    if name in options:
        return name, options[name]
    option = OPTIONS[name]
    return option.variable, environ.get(option.variable, option.default)


def reads_are_split(options: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> bool:
    """True if `options` (by option name) or the environment set --split-reads. Raises ConfigError."""
    variable = OPTIONS[SPLIT_READS].variable
    return is_yes(variable, environ.get(variable) or NO[0]) or SPLIT_READS in options


def activity_is_logged(options: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> bool:
    """False if `options` (by option name) or the environment turn the activity log off. Raises ConfigError."""
    return NO_ACTIVITY_LOG not in options and is_yes(ACTIVITY_LOG_VARIABLE, environ.get(ACTIVITY_LOG_VARIABLE, "1"))


def read_answer_limit(options: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> int:
    """The characters of one result. Raises ConfigError."""
    source, text = chosen(ANSWER_LIMIT, options, environ)
    least, most = RESULT_LIMITS
    if not text:
        return RESULT_CHARACTERS
    if not re.fullmatch("[0-9]{1,9}", text.strip()) or not least <= int(text) <= most:
        raise wrong_setting(source, f"must be an integer between {least:,} and {most:,}")
    return int(text)


def read_prefix(options: Mapping[str, str]) -> str:
    """What the tools' names begin with, before a `_`. Raises ConfigError."""
    prefix = options.get(PREFIX, "")
    if prefix and not re.fullmatch(PREFIX_RULE, prefix):
        raise wrong_setting(PREFIX, "must be 1 to 16 letters, digits and -, beginning with a letter")
    return prefix


class PersonPolicy(NamedTuple):
    """When a person is asked: the texts of the options of these names. `values_source` is what set `values`."""

    confirm: str = OPTIONS[CONFIRM].default
    values: str = OPTIONS[VALUES].default
    browser: str = OPTIONS[BROWSER].default
    values_source: str = ""


def read_person_policy(options: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> PersonPolicy:
    """When a person is asked. Raises ConfigError."""
    found = {name: chosen(name, options, environ) for name in (CONFIRM, VALUES, BROWSER)}
    for name, (source, text) in found.items():
        if text not in OPTIONS[name].choices:
            raise wrong_setting(source, f"must be one of: {', '.join(OPTIONS[name].choices)}")
    confirm, values, browser = (text for _, text in found.values())
    return PersonPolicy(confirm, values, browser, values_source=found[VALUES][0])


class Limit(NamedTuple):
    """At most `most` calls in any `period_s` seconds, as `source` says."""

    source: str
    most: int
    period_s: float


def read_limits(options: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, Limit]:
    """The limits by their options' names, without those that are `none`. Raises ConfigError."""
    found = {}
    for name in (MAX_CALLS, MAX_DESTRUCTIVE):
        source, text = chosen(name, options, environ)
        match = re.fullmatch("([1-9][0-9]{0,5})/([a-z]+)", text.strip())
        if text.strip() == NO_LIMIT:
            continue
        if not match or match[2] not in LIMIT_UNITS_S or int(match[1]) > LIMIT_MAX:
            raise wrong_setting(source, LIMIT_RULE)
        found[name] = Limit(name, int(match[1]), LIMIT_UNITS_S[match[2]])
    return found
