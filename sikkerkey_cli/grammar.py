"""The command line: a table of commands with their arguments and options, and the parser and help made from it."""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import sikkerkey_mcp
import sikkerkey_options
from sikkerkey_cli import terminal
from sikkerkey_cli.clients import CLIENTS

# ---------------------------------------------------------------------------------------------------------------------
# the table of commands
# ---------------------------------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An option of a command. Without a metavar it is a flag and takes no value."""

    flags: tuple[str, ...]
    help: str
    metavar: str = ""
    repeatable: bool = False
    exclusive: bool = False  # cannot be combined with the command's other exclusive options
    may_be_empty: bool = False


class Argument(NamedTuple):
    """A positional argument. `nargs` is that of argparse."""

    name: str
    metavar: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    nargs: str = ""


class Command(NamedTuple):
    """A command, as the help describes it and as completion offers it."""

    help: str
    examples: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    usage: str = ""  # if empty, argparse generates it


NEAR = 0.6  # how similar a word must be to the command, client or option that a message proposes
SHELLS = ("bash", "zsh", "fish", "powershell")
AGENT = Option(("--agent",), "which agent, by id or name, if several are installed", "ID")
FORMATS = ("json", "table")
OUTPUT = (
    Option(("-o", "--output"), "json or table", "|".join(FORMATS)),
    Option(("--json",), "the same as --output json"),
)
REFUSE = Option(("--refuse",), "refuse the call and tell your assistant", exclusive=True)
HELP = Option(("-h", "--help"), "show this help message and exit")
GLOBAL_OPTIONS = (
    Option(("--version",), "print the version and exit"),
    Option(("--verbose",), "with --version: also print how the program was loaded"),
)
PROTECTION_OPTIONS = (
    Option(("--passphrase",), "protect the key with a passphrase, which it asks for", exclusive=True),
    Option(("--key-store",), "protect it with one that the system's key store keeps", exclusive=True),
)
KEY_OPTIONS = (
    Option(("--name", "-name"), "the agent's name in the vault", "NAME", may_be_empty=True),
    *PROTECTION_OPTIONS,
)
SERVE_OPTIONS = tuple(
    Option((option.name,), option.text, option.placeholder or "|".join(option.choices), option.repeatable)
    for option in sikkerkey_options.OPTIONS.values()
)
PASSED_ON = ("--prefix", "--confirm", "--values", "--browser", "--max-calls", "--max-destructive")  # by `config`
CONFIG_OPTIONS = (
    Option(("--read-only",), "the server offers only actions that change nothing and create no credential"),
    Option(("--tools",), "the server offers only these: TOOL or TOOL.ACTION", "A,B", repeatable=True),
    Option(("--exclude",), "the server does not offer these: TOOL or TOOL.ACTION", "A,B", repeatable=True),
    Option(("--split-reads",), "the server offers reads as tools of their own, such as read_secrets"),
    Option((sikkerkey_options.NO_ACTIVITY_LOG,), "the server keeps no record of its calls"),
    *(option for option in SERVE_OPTIONS if option.flags[0] in PASSED_ON),
)

COMMANDS = {
    "serve": Command(
        "serve MCP on stdin and stdout (the default)",
        """\
  sikkerkey-mcp serve                  started by MCP clients; it speaks JSON-RPC
  sikkerkey-mcp serve --agent "my laptop"
  sikkerkey-mcp serve --read-only --exclude manage_team,read_audit.export""",
        options=(
            *SERVE_OPTIONS,
            AGENT,
        ),
    ),
    "setup": Command(
        "set up everything: an agent for this computer, and your MCP clients",
        """\
  sikkerkey-mcp setup                  asks what is needed, shows what will change, then does it
  sikkerkey-mcp setup --dry-run        shows what would change; changes nothing and sends nothing
  sikkerkey-mcp setup --agent new --name ci --client cursor --read-only --yes < token.txt

Enter takes the default of a question, which is in brackets. Ctrl-C changes nothing, until you agree to the plan. An
option answers its question; --yes takes the defaults of all others and agrees to the plan. You can run it again: what
is set up already is offered as the default.""",
        options=(
            Option(
                ("--agent",), "which agent; `new` registers one, with a token that is asked for or on stdin", "ID|new"
            ),
            Option(("--vault",), "with a new agent: the vault's address (default: SIKKERKEY_API_URL)", "URL"),
            Option(("--name",), "with a new agent: its name in the vault", "NAME"),
            *(option._replace(help=f"with a new agent: {option.help}") for option in PROTECTION_OPTIONS),
            Option(("--client",), "set up this client; repeat it for others", "CLIENT", repeatable=True),
            *CONFIG_OPTIONS,
            Option(("--wait",), "how long to wait for the owner to approve the agent", "MINUTES"),
            Option(("--dry-run",), "show what would change, and change nothing"),
            Option(("--yes",), "do not ask"),
        ),
    ),
    "install": Command(
        "register this computer as a new agent",
        """\
  sikkerkey-mcp install -              asks for the token without showing it
  sikkerkey-mcp install - --name "my laptop" < token.txt
  SIKKERKEY_API_URL=http://127.0.0.1:8300 sikkerkey-mcp install -
                                       a vault other than https://api.sikkerkey.com""",
        arguments=(Argument("token", "TOKEN", "one-time token; - reads it from stdin, so that no process can see it"),),
        options=(*KEY_OPTIONS, *OUTPUT),
    ),
    "rotate-key": Command(
        "replace an agent by a new one with a new key",
        """\
  sikkerkey-mcp rotate-key -           registers the new agent with a new token; the old key keeps working
  sikkerkey-mcp rotate-key --finish    once the vault's owner has approved it: switches to it
  sikkerkey-mcp rotate-key --cancel    keeps the old one

--finish deletes the old key here and has the vault revoke the old agent; if the new one lacks the scope
aiagents.write, the owner does that. Entries of clients need no change. It can be run again after an interruption.""",
        arguments=(Argument("token", "TOKEN", "one-time token; - reads it from stdin", nargs="?"),),
        options=(
            Option(("--finish",), "switch to the new agent", exclusive=True),
            Option(("--cancel",), "delete the new key", exclusive=True),
            *(option._replace(exclusive=False) for option in KEY_OPTIONS),
            AGENT,
        ),
    ),
    "whoami": Command(
        "list the agents of this computer",
        """\
  sikkerkey-mcp whoami                 id, name, vault, API and key fingerprint of each agent here
  sikkerkey-mcp whoami --remote        what the vault says about the agent: approval, scopes, projects
  sikkerkey-mcp whoami --remote --agent "my laptop"
  sikkerkey-mcp whoami --json          the same for other programs""",
        options=(Option(("--remote",), "ask the vault about one of them"), *OUTPUT, AGENT),
    ),
    "revoke": Command(
        "delete an agent's key from this computer",
        """\
  sikkerkey-mcp revoke                 delete the key of the only agent; the vault still lists the agent
  sikkerkey-mcp revoke ID --server     revoke it at the vault first, then delete the key

It asks first, and names the agent and its vault. No agent can revoke itself: with --server, another agent of this
computer does it, one of the same vault with the scope aiagents.write. Without such an agent, revoke it on the
dashboard. If the vault does not confirm, the key stays.""",
        arguments=(Argument("agent", "AGENT_ID", "required if several are installed", nargs="?"),),
        options=(
            Option(("--server",), "also revoke it at the vault"),
            Option(("--by",), "with --server: the agent that revokes it (no agent can revoke itself)", "ID"),
            Option(("--yes",), "do not ask"),
        ),
    ),
    "config": Command(
        "print the configuration for an MCP client, or write it",
        """\
  sikkerkey-mcp config claude-code     prints the block; stderr says where to add it
  sikkerkey-mcp config codex --write   adds it to the client's own file; --dry-run shows the change
  sikkerkey-mcp config codex --agent ID --write
  sikkerkey-mcp config cursor --project --write
  sikkerkey-mcp config zed --remove""",
        arguments=(Argument("client", "CLIENT", f"one of: {', '.join(CLIENTS)}", tuple(CLIENTS)),),
        options=(
            Option(("--write",), "add it to the client's own file", exclusive=True),
            Option(("--remove",), "remove it from the client's own file", exclusive=True),
            Option(("--dry-run",), "show what would change, and change nothing"),
            Option(("--project",), "use the client's file in the current directory's project"),
            *CONFIG_OPTIONS,
            *OUTPUT,
            AGENT,
        ),
    ),
    "doctor": Command(
        "check everything from Python to the vault, and show how to fix problems",
        """\
  sikkerkey-mcp doctor                 a line for each check: ok, warn or fail, and how to fix it
  sikkerkey-mcp doctor --agent ID      check one agent only
  sikkerkey-mcp doctor --json          the same as JSON

The exit status is 1 if a check failed. No secrets are shown.""",
        options=(*OUTPUT, AGENT),
    ),
    "tools": Command(
        "list the tools, or describe a tool or an action",
        """\
  sikkerkey-mcp tools                  every tool
  sikkerkey-mcp tools manage_secrets   its actions
  sikkerkey-mcp tools manage_secrets.rotate
                                       the arguments of an action, their limits and an example
  sikkerkey-mcp tools list --json""",
        arguments=(Argument("words", "list | TOOL [ACTION]", "what to show (default: list)", nargs="*"),),
        options=OUTPUT,
        usage="sikkerkey-mcp tools [list | TOOL [ACTION]] [--output FORMAT]",
    ),
    "call": Command(
        "run one action, for scripts and for trying it out",
        """\
  sikkerkey-mcp call whoami
  sikkerkey-mcp call manage_projects list -o json
  sikkerkey-mcp call manage_projects create name=web description='The shop'
  sikkerkey-mcp call manage_secrets create project=Webshop name=db value=-
  sikkerkey-mcp call manage_secrets create project=Webshop name=tls value=@key.pem
  sikkerkey-mcp call manage_secrets delete project=Webshop secret=db
  sikkerkey-mcp call read_audit query severities=high,critical from=-24h pageSize=20
  sikkerkey-mcp call support attachment attachmentId=ID --to-file log.txt

arguments:
  key=TEXT    text, a number, true or false; a list as A,B or as JSON; an object as JSON
              a name, an id or the beginning of an id where an id is wanted: project=Webshop is projectId=ID
              a time as 2026-01-31T08:00:00Z (UTC unless it has an offset), 2026-01-31, yesterday, -24h, +90d, or Unix
              milliseconds; 7d without a sign is in the past for a read, in the future for a change
  key=@FILE   the content of a file
  key=-       stdin; on a terminal, asks without showing the input
  key=@@TEXT  text that begins with @
The line end of a single line is dropped; text of several lines is used as it is. Plaintext is accepted only as
key=@FILE or key=-, because every process of a computer can read command lines.

exit status: 0 success, 1 refused or failed (stderr says why), 2 wrong usage""",
        arguments=(
            Argument("words", "TOOL [ACTION] [key=value ...]", "see `sikkerkey-mcp tools`, and below", nargs="*"),
        ),
        options=(
            *OUTPUT,
            Option(("--table",), "the same as --output table: columns also in a pipe or a file"),
            Option(("--columns",), "with a table: only these columns, in this order", "A,B", repeatable=True),
            Option(("--exact",), "keep times as epoch milliseconds, and members that are null in rows"),
            Option(("--to-file",), "write the result to a file that only you can read", "FILE"),
            Option(("--overwrite",), "with --to-file: replace an existing file"),
            Option(("--yes",), "do not ask before a destructive action"),
            AGENT,
        ),
        usage="sikkerkey-mcp call TOOL [ACTION] [key=value ...] [options]",
    ),
    "fill": Command(
        "type a value that your assistant must not see",
        """\
  sikkerkey-mcp fill                   what is waiting; if it is one value, asks for it
  sikkerkey-mcp fill 4F7K              shows the call, then asks for the value without showing it
  sikkerkey-mcp fill 4F7K --file key.pem
  sikkerkey-mcp fill 4F7K --file - < value.txt

Compare the code with the one that your assistant shows. The value goes to the vault, never to the assistant. A file is
stored as it is, except that the line end of a single line is dropped. For a structured secret it must be a JSON object
of the fields. Ctrl-C sends nothing, and the call keeps waiting: 10 minutes in all.""",
        arguments=(Argument("code", "CODE", "required if several values are waiting", nargs="?"),),
        options=(
            Option(("--file",), "store the content of this file; - reads standard input", "FILE", exclusive=True),
            REFUSE,
            *OUTPUT,
        ),
    ),
    "show": Command(
        "create a credential that your assistant must not see, and show it here",
        """\
  sikkerkey-mcp show 4F7K              shows the call, creates the credential and prints it once

It prints to a terminal only. Your assistant learns that it was created, and its id.""",
        arguments=(Argument("code", "CODE", "the code that your assistant shows"),),
        options=(REFUSE,),
    ),
    "confirm": Command(
        "let your assistant's call happen, or refuse it",
        """\
  sikkerkey-mcp confirm 4F7K           shows the call and asks for the code; anything else changes nothing
  sikkerkey-mcp confirm 4F7K --refuse
                                       tells your assistant no""",
        arguments=(Argument("code", "CODE", "the code that your assistant shows"),),
        options=(REFUSE,),
    ),
    "log": Command(
        "show what the assistants on this computer did",
        """\
  sikkerkey-mcp log                    the calls of the only agent, oldest first
  sikkerkey-mcp log --since -24h       also a date, or a time such as 2026-01-31T08:00:00Z
  sikkerkey-mcp log --follow           and further calls as they end, until Ctrl-C
  sikkerkey-mcp log --json             an object a line, for other programs

A line has the time, the outcome, how long it took, the client, the action, ids among its arguments, and what a person
did. The outcome is ok, refused (nothing was sent), waiting (for a person), cancelled, failed, or the vault's HTTP
status. No other argument is recorded, and no answer. `serve --no-activity-log` keeps no record.""",
        options=(
            Option(("--follow",), "wait for further calls, and show them"),
            Option(("--since",), "only calls from this time on", "TIME"),
            *OUTPUT,
            AGENT,
        ),
    ),
    "completion": Command(
        "print the completion script for a shell",
        """\
  eval "$(sikkerkey-mcp completion bash)"      in ~/.bashrc
  eval "$(sikkerkey-mcp completion zsh)"       in ~/.zshrc, after compinit
  sikkerkey-mcp completion fish > ~/.config/fish/completions/sikkerkey-mcp.fish
  sikkerkey-mcp completion powershell >> $PROFILE

It completes the commands `sikkerkey-mcp` and `sikkerkey-mcp.pyz`: add a link to the archive to a directory in PATH.""",
        arguments=(Argument("shell", "SHELL", f"one of: {', '.join(SHELLS)}", SHELLS),),
    ),
}

FIRST_STEPS = """\
In the examples, sikkerkey-mcp stands for the command that starts this program, such as python3 sikkerkey-mcp.pyz.

examples:
  sikkerkey-mcp setup                  set up this computer, step by step
  sikkerkey-mcp install -              register this computer; type or pipe the token from the vault's dashboard
  sikkerkey-mcp config claude-code     print the configuration for your MCP client; --write adds it to its file
  sikkerkey-mcp doctor                 if anything does not work
  sikkerkey-mcp COMMAND --help         help and examples for a command"""

# ---------------------------------------------------------------------------------------------------------------------
# parsing
# ---------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse without its own colors (Python 3.14), and with short errors that never repeat a token."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        vars(self)["color"] = False

    def error(self, message: str) -> NoReturn:
        """Prints the message and a hint, and exits with status 2."""
        told = sikkerkey_mcp.clean(re.sub("[0-9A-Fa-f]{64}", "(a token)", _in_plain_words(message)))
        hint = "" if "did you mean" in told else f"\nhint: {self.prog} --help has examples"
        self.exit(2, f"{self.prog}: error: {told}{hint}\n")


# What argparse says, and what the error says instead. The first that matches counts.
PLAIN_WORDS = (
    ("the following arguments are required: TOKEN", "TOKEN is missing; `sikkerkey-mcp install -` asks for it"),
    ("the following arguments are required: (.*)", r"\1 is missing"),
    ("argument (.*): expected one argument", r"\1 needs a value"),
    ("argument (.*): ignored explicit argument .*", r"\1 takes no value"),
    ("argument (.*): not allowed with argument (.*)", r"choose one of \1 and \2"),
    ("argument (.*): unknown: (.*)", r"unknown \1: \2"),
    ("argument (.*): (must .*)", r"\1 \2"),
)


def _in_plain_words(message: str) -> str:
    for pattern, words in PLAIN_WORDS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return found.expand(words)
    return message


@functools.cache
def parser() -> Parser:
    """The parser of the whole command line. Each result has `command`, and `parser`, the command's own parser."""
    columns = terminal.width()
    root = Parser(
        prog="sikkerkey-mcp",
        description="MCP server that manages a SikkerKey vault and cannot read its secrets.",
        epilog=wrapped_help(FIRST_STEPS, columns),
    )
    root.set_defaults(command="", parser=root)
    for option in GLOBAL_OPTIONS:
        _add_option(root.add_argument, option)
    subparsers = root.add_subparsers(metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        epilog = wrapped_help(f"examples:\n{command.examples}", columns)
        made = subparsers.add_parser(
            name, help=command.help, description=description, epilog=epilog, usage=command.usage or None
        )
        made.set_defaults(command=name, parser=made)
        for argument in command.arguments:
            _add_argument(made, argument)
        if exclusive := [option for option in command.options if option.exclusive]:
            group = made.add_mutually_exclusive_group()
            for option in exclusive:
                _add_option(group.add_argument, option)
        for option in command.options:
            if not option.exclusive:
                _add_option(made.add_argument, option)
    return root


def wrapped_help(text: str, columns: int | None) -> str:
    """`text` of a help message with lines of at most `columns`: prose as paragraphs, other lines with their indent."""
    if columns is None:
        return text
    wrap = functools.partial(textwrap.fill, width=max(columns, 40), break_long_words=False, break_on_hyphens=False)
    shown = []
    for is_prose, group in itertools.groupby(text.split("\n"), lambda line: line[:1].strip() != ""):
        lines = list(group)
        lines = [" ".join(lines)] if is_prose else lines
        shown += [wrap(line, subsequent_indent=" " * _indent_below(line, columns)) for line in lines]
    return "\n".join(shown)


def _indent_below(line: str, columns: int) -> int:
    """Where a line goes on: below its remark if there is room, else a little further in than it begins."""
    remark = re.match(r" +\S.*?\S {2,}(?=\S)", line)
    if remark and len(remark[0]) <= columns - 24:
        return len(remark[0])
    begin = len(line) - len(line.lstrip())
    return begin + 4 if 0 < begin < 8 else begin


class _Given(argparse.Action):
    """Stores the value of an option. An empty one is refused: a variable that a script meant to pass was not set."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, value: Any, _option: object = None) -> None:
        if not value.strip():
            raise argparse.ArgumentError(self, "must not be empty")
        earlier = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*earlier, value] if isinstance(earlier, list) else value)


def _add_argument(target: argparse.ArgumentParser, argument: Argument) -> None:
    settings: dict[str, Any] = {"help": argument.help or None, "metavar": argument.metavar or None}
    if argument.choices:
        settings["type"] = functools.partial(one_of, argument.choices)
    if argument.nargs:
        settings["nargs"] = argument.nargs
    if argument.nargs == "?":
        settings["default"] = ""
    target.add_argument(argument.name, **settings)


def one_of(choices: Sequence[str], word: str) -> str:
    """The word, if it is a choice. Raises argparse.ArgumentTypeError, which names a similar one."""
    if word in choices:
        return word
    near = sikkerkey_mcp.did_you_mean(word, choices, NEAR)
    raise argparse.ArgumentTypeError(f"unknown: {near}" if near else f"must be one of: {', '.join(choices)}")


def _add_option(add_argument: Callable[..., Any], option: Option) -> None:
    if not option.metavar:
        add_argument(*option.flags, action="store_true", help=option.help)
    elif option.may_be_empty:
        add_argument(*option.flags, metavar=option.metavar, default="", help=option.help)
    else:
        default: Any = [] if option.repeatable else ""
        add_argument(*option.flags, metavar=option.metavar, action=_Given, default=default, help=option.help)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of a command line. On wrong usage and for --help, argparse exits the process."""
    root = parser()
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    _refuse_unknown_command(root, arguments)
    options, rest = root.parse_known_args(_joined_times(arguments))
    if rest and (not hasattr(options, "words") or any(word.startswith("-") for word in rest)):
        # argparse's own message would repeat the words, which may be secret values.
        names = [word.partition("=")[0] for word in rest if re.fullmatch("--?[a-z-]{1,20}(=.*)?", word, re.DOTALL)]
        options.parser.error(_unknown_option(options.command, names[0]) if names else "too many arguments")
    if rest:  # argparse takes only the words before the first option
        options.words += rest
    _choose_output(options)
    return options


def _choose_output(options: argparse.Namespace) -> None:
    """Settles `json` and `table`, at most one of which is true, from all options that name a format."""
    if not hasattr(options, "output"):
        return
    options.table = getattr(options, "table", False)
    if hasattr(options, "to_file") and re.search(r"[./\\]", options.output):  # --output FILE, as it once was
        if options.to_file:
            options.parser.error("--output takes json or table; --to-file names the file")
        options.to_file, options.output = options.output, ""
    if options.output not in ("", *FORMATS):
        to_file = "; --to-file FILE writes to a file" if hasattr(options, "to_file") else ""
        options.parser.error(f"argument -o/--output: must be {' or '.join(FORMATS)}{to_file}")
    options.table = options.table or options.output == "table" or bool(getattr(options, "columns", []))
    options.json = options.json or options.output == "json"
    if options.json and options.table:
        options.parser.error("the result is either JSON or a table; --columns is for tables")


def _joined_times(arguments: list[str]) -> list[str]:
    """The words with `--since -24h` as one word: argparse would take -24h for an option."""
    pairs = zip(["", *arguments], arguments)
    joined = ["=".join(pair) if pair[0] == "--since" and re.match("-[0-9]", pair[1]) else pair[1] for pair in pairs]
    return [
        word for word, after in zip(joined, [*joined[1:], ""]) if not (word == "--since" and after[:8] == "--since=")
    ]


def _refuse_unknown_command(root: Parser, arguments: list[str]) -> None:
    word = next((word for word in arguments if not word.startswith("-")), None)
    if word is not None and word not in COMMANDS:
        near = sikkerkey_mcp.did_you_mean(word, [*COMMANDS, "help", "--version"], NEAR)
        root.error(f"unknown command: {near}" if near else "unknown command")


def _unknown_option(command: str, name: str) -> str:
    options = COMMANDS[command].options if command else GLOBAL_OPTIONS
    near = sikkerkey_mcp.did_you_mean(name, [flag for option in (HELP, *options) for flag in option.flags], NEAR)
    return f"unknown option {name}{near and f': {near}'}"
