"""`config`: prints the block for an MCP client, or adds it to the client's own file, or removes it.

A file is changed in the smallest possible span, written atomically, and backed up beside it; a file that is a link,
beside the link; and a file in a directory that is a link, in our own directory: the target may be in a repository.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_options
import sikkerkey_shell
from sikkerkey_cli import edit
from sikkerkey_cli.clients import CLIENTS, MANUAL_EDIT_HINT, Client, Located, System, is_redirected, this_system
from sikkerkey_cli.entries import (
    MISSING,
    PASSED_VARIABLES,
    RESTRICTING_VARIABLES,
    Entries,
    FileContent,
    Server,
    additional_members,
    as_stored,
    check_starts,
    container_in,
    entry_members,
    entry_path,
    file_to_change,
    has_password,
    is_blank,
    kept_members,
    loosens,
    parse,
    proxy_variables,
    read_file,
    read_now,
    server_entry,
    server_keys,
    servers,
)
from sikkerkey_cli.terminal import UsageError
from sikkerkey_mcp import ConfigError, JsonObject, clean, print_notice

SECRET_MIN_CHARACTERS = 6  # shorter values are flags such as 1 or true
FOREIGN_HINT = (
    "the author of the project's file chose them, and they could run something, send calls elsewhere or approve calls: "
    "remove them or the entry, then try again"
)
PREFIX_HINT = "choose one with --agent ID; add each further one with --agent ID --prefix NAME"
# A part of an interpreter's path, and what will happen to that interpreter.
TEMPORARY_INTERPRETERS = (
    ("/uv/python/", "was installed by uv; removing or upgrading that"),
    ("/.pyenv/", "was installed by pyenv; removing that version"),
    ("/pyenv-win/", "was installed by pyenv; removing that version"),
    ("/Cellar/", "is one version of Homebrew's Python; upgrading that"),
    ("/installs/python/", "was installed by a version manager; removing that version"),
)
EMPTY_FILE = {"json": "{}\n", "toml": "", "yaml": ""}

# ---------------------------------------------------------------------------------------------------------------------
# changing a text
# ---------------------------------------------------------------------------------------------------------------------


def with_entry(client: Client, text: str, key: str, block: JsonObject, system: System | None = None) -> str:
    """The text with the entry. In an existing entry, only our members that differ are changed. Raises ConfigError."""
    added = additional_members(client.shape, system or this_system())
    text = (client.initial_text or EMPTY_FILE[client.format]) if is_blank(text) else text
    form, shape, path = edit.FORMATS[client.format], client.shape, entry_path(client.shape, key)
    existing = servers(shape, form.read(text)).get(key)
    wanted = entry_members(shape, key, block)
    if existing is None:
        return form.put(text, path, {**wanted, **added, **shape.defaults})
    if not existing.starts_this_program:
        raise ConfigError(f"the entry {key} starts another program", "rename or remove it in the file, then try again")
    for name, value in wanted.items():
        if name == shape.env and isinstance(existing.members.get(name), dict):
            for variable, setting in value.items():
                held = existing.environment.get(variable)
                users = variable == "HTTPS_PROXY" and has_password(str(held))  # its password is known only there
                if held != setting and not users:
                    text = form.put(text, (*path, name, variable), setting)
        elif existing.members.get(name) != value:
            text = form.put(text, (*path, name), value)
    for name in added.keys() - existing.members.keys():
        text = form.put(text, (*path, name), added[name])
    return _drop_unset_variables(client, text, existing, block.get("env", {}))


def _drop_unset_variables(client: Client, text: str, existing: Server, wanted: JsonObject) -> str:
    """Removes PASSED_VARIABLES that are no longer set. All other variables in the entry are the user's."""
    form, path = edit.FORMATS[client.format], (*entry_path(client.shape, existing.key), client.shape.env)
    unset = [name for name in PASSED_VARIABLES if name in existing.environment and name not in wanted]
    if unset and set(unset) == set(existing.environment) and not wanted:
        return form.drop(text, path)
    for name in unset:
        text = form.drop(text, (*path, name))
    return text


def without_entry(client: Client, text: str, key: str) -> str:
    """The text without the entry. Raises ConfigError."""
    return edit.FORMATS[client.format].drop(text, entry_path(client.shape, key))


def check_only_entries_changed(client: Client, old: str, new: str, keys: set[str]) -> None:
    """Reads both texts and compares everything but the entries of those keys. Raises ConfigError if it differs."""
    before, after = (_everything_else(client, text, keys) for text in (old, new))
    if before != after:
        raise ConfigError("the change would affect more than the sikkerkey entry", MANUAL_EDIT_HINT)


def _everything_else(client: Client, text: str, keys: set[str]) -> tuple[JsonObject, list[Any]]:
    """What a document contains besides the entries of those keys. An empty file counts as a new one."""
    document = parse(client, client.initial_text if is_blank(text) else text)
    container = container_in(client.shape, document) or {}
    document = edit.without_value_at(document, client.shape.path)
    if isinstance(container, dict):
        return document, [(key, value) for key, value in container.items() if key not in keys]
    return document, [item for item in container if not (isinstance(item, dict) and item.get("name") in keys)]


def block_text(client: Client, entries: Entries, system: System | None = None) -> str:
    """What `config` prints on a system, by default this one: the entries as a file that contains nothing else."""
    text = EMPTY_FILE[client.format]
    for key, block in entries.items():
        text = with_entry(client._replace(initial_text=""), text, key, block, system)
    return text


# ---------------------------------------------------------------------------------------------------------------------
# changing a file
# ---------------------------------------------------------------------------------------------------------------------


def replace_file(path: str, old: FileContent, new: str | None, kept: bytes | None, backup: str) -> str:
    """Replaces a file atomically, or deletes it; returns the path of the backup, empty if there is none.

    `kept` is what is saved at `backup`. Raises ConfigError, also if the file has changed since `old` was read.
    """
    if not old.mode & stat.S_IWUSR:  # renaming a file over it would ignore the mode
        hint = f"{sikkerkey_shell.make_writable(path)}, or {MANUAL_EDIT_HINT}"
        raise ConfigError(f"{clean(path)} is read-only", hint)
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        make_directories(directory)
        backup = back_up(backup, kept)
        try:
            if new is not None:
                _write_new(temporary, old.bom + new.encode("utf-8"), old.mode)
            if read_now(path).data != old.data:
                raise ConfigError(f"{clean(path)} was just changed by another program", "run this command again")
            if new is None:
                os.unlink(path)
                _remove_if_empty(directory)
            else:
                os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_directory(directory if os.path.isdir(directory) else os.path.dirname(directory))
    except OSError as error:
        raise ConfigError(f"{clean(path)} cannot be written: {error.strerror}", MANUAL_EDIT_HINT) from None
    return backup


def _remove_if_empty(directory: str) -> None:
    """Removes Continue's directory of server blocks, if ours was the only one. No other directory has one purpose."""
    if os.path.basename(directory) == "mcpServers":
        with suppress(OSError):
            os.rmdir(directory)


def make_directories(directory: str) -> None:
    """Creates missing directories with mode 0700. Raises OSError, and ConfigError if root would do so for a user."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    if hasattr(os, "getuid") and os.getuid() == 0 and os.stat(directory).st_uid != 0:
        raise ConfigError(f"{clean(directory)} belongs to another user", "run this as its owner")
    for path in reversed(missing):
        os.mkdir(path, 0o700)


def _write_new(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(path, mode)
    except BaseException:  # an incomplete file must not be mistaken for a backup
        os.unlink(path)
        raise


def _sync_directory(directory: str) -> None:
    """Makes the new name survive a power failure. Windows cannot open directories."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def backup_path(path: str, base: str) -> str:
    """Where the previous content is kept. The name is ours, so that no backup of the user's is replaced.

    `base` is the user's home or the project. If a directory between it and the file is a link, the file is probably in
    a repository, and the backup is not put there.
    """
    directory = unlinked = os.path.dirname(path)
    if os.path.join(directory, "").startswith(os.path.join(base, "")):  # links above it are not the user's doing
        unlinked = os.path.join(os.path.realpath(base), os.path.relpath(directory, base))
    if os.path.normcase(os.path.normpath(unlinked)) == os.path.normcase(os.path.realpath(directory)):
        return f"{path}.sikkerkey.bak"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]  # two files may have the same name
    return os.path.join(sikkerkey_identity.home(), "backups", f"{digest}-{os.path.basename(path)}.sikkerkey.bak")


def back_up(path: str, data: bytes | None) -> str:
    """Saves `data` at `path`, in place of an earlier backup, and returns `path`; empty if there is nothing to save."""
    if data is None:
        return ""
    make_directories(os.path.dirname(path))
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    _write_new(temporary, data, 0o600)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


# ---------------------------------------------------------------------------------------------------------------------
# restoring a file
# ---------------------------------------------------------------------------------------------------------------------


def without_own_entries(client: Client, text: str, backup: FileContent) -> str | None:
    """The text as it would be if --write had never changed it; None if there would be no file. Raises ConfigError.

    `backup` tells whether there was a file, and whether it had a container.
    """
    for key, server in servers(client.shape, parse(client, text)).items():
        text = without_entry(client, text, key) if server.starts_this_program else text
    if container_in(client.shape, parse(client, text)):
        return text
    is_as_created = "".join(text.split()) == "".join(_created_text(client).split())
    if backup.data is None or is_blank(backup.text):
        return (backup.text if backup.data is not None else None) if is_as_created else text
    if container_in(client.shape, parse(client, backup.text)):
        return text
    return _with_container_of(client, text, backup.text)


def _created_text(client: Client) -> str:
    """What remains of a file that --write created when its entry is removed."""
    text = with_entry(client, "", "sikkerkey", {"command": "python3", "args": []})
    return without_entry(client, text, "sikkerkey")


def _with_container_of(client: Client, text: str, backup: str) -> str:
    """The text, whose container is empty, with a container that is missing, null or empty as in the backup."""
    form, path = edit.FORMATS[client.format], client.shape.path
    rest, original = form.drop(text, path), form.drop(backup, path)
    if "".join(rest.split()) == "".join(original.split()) and parse(client, rest) == parse(client, original):
        return backup
    return text if form.locate(backup, path) else rest


# ---------------------------------------------------------------------------------------------------------------------
# showing a change
# ---------------------------------------------------------------------------------------------------------------------


def diff_lines(client: Client, old: str, new: str, keys: set[str]) -> Iterator[str]:
    """The hunks of a unified diff without context, in which text of other programs on a changed line is cut out.

    That text may be a token: a neighbour's line gets a comma when an entry follows it, and some files are one line.
    """
    before, after = ([line.rstrip("\r") for line in text.split("\n")] for text in (old, new))
    own = [lines_of_entries(client, text, keys) for text in (old, new)]
    hidden = _user_settings(client, old, keys)
    head = common_prefix_length(before, after)
    tail = common_prefix_length(before[head:][::-1], after[head:][::-1])
    middle = [lines[head : len(lines) - tail] for lines in (before, after)]
    for tag, *bounds in difflib.SequenceMatcher(None, middle[0], middle[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        spans = [range(head + bounds[0], head + bounds[1]), range(head + bounds[2], head + bounds[3])]
        removed, added = ([lines[number] for number in span] for lines, span in zip((before, after), spans))
        if removed and added and not all(set(span) <= numbers for span, numbers in zip(spans, own)):
            removed, added = _redact_neighbours(removed, added)
        yield f"@@ -{_hunk_range(spans[0])} +{_hunk_range(spans[1])} @@"
        for sign, lines in (("-", removed), ("+", added)):
            yield from (f"{sign}{clean(hidden.sub('...', line), 4_000)}" for line in lines)


def _user_settings(client: Client, text: str, keys: set[str]) -> re.Pattern[str]:
    """Matches values that users set in the environment of our entries: the address of a proxy contains a password."""
    existing = servers(client.shape, parse(client, text))
    each = [existing[key].environment for key in keys if key in existing]
    values = [str(value) for held in each for name, value in held.items() if name not in PASSED_VARIABLES]
    written = [form for value in values if len(value) >= SECRET_MIN_CHARACTERS for form in (value, _escaped(value))]
    return re.compile("|".join(map(re.escape, written)) or r"\Z.")


def _escaped(value: str) -> str:
    return json.dumps(value)[1:-1]


def lines_of_entries(client: Client, text: str, keys: set[str]) -> set[int]:
    """The numbers, from 0, of the lines that contain nothing but those entries."""
    if is_blank(text):
        return set()
    found: set[int] = set()
    for key in keys:
        for start, end in edit.FORMATS[client.format].locate(text, entry_path(client.shape, key)):
            first, last = text.count("\n", 0, start), text.count("\n", 0, end)
            begins_line = not text[edit.line_start(text, start) : start].strip(" \t-")
            ends_line = re.compile(r"[ \t]*,?[ \t]*(?=\r?\n|\Z)").match(text, end)
            found |= set(range(first + (not begins_line), last + bool(ends_line)))
    return found


def _redact_neighbours(removed: list[str], added: list[str]) -> tuple[list[str], list[str]]:
    """Both without their common beginning and end, which are unchanged; the indentation stays."""
    texts = ["\n".join(lines) for lines in (removed, added)]
    head = common_prefix_length(*texts)
    tail = common_prefix_length(*(text[head:][::-1] for text in texts))
    indent = len(texts[0]) - len(texts[0].lstrip())
    begin, end = texts[0][: min(indent, head)] + "..." * (head > indent), "..." * (tail > 0)
    middles = [text[head : len(text) - tail] for text in texts]
    cut = [begin + middle + end * (middle != "" or not begin.endswith("...")) for middle in middles]
    return cut[0].split("\n"), cut[1].split("\n")


def common_prefix_length(one: Sequence[object], other: Sequence[object]) -> int:
    """How many of the first items are equal."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _hunk_range(span: range) -> str:
    """A range of lines in the notation of diff: counted from 1, and an empty range by the line before it."""
    return f"{span.start + bool(span)},{len(span)}"


# ---------------------------------------------------------------------------------------------------------------------
# the command
# ---------------------------------------------------------------------------------------------------------------------


class Agents(NamedTuple):
    """The agents that get an entry, and all that are installed; `new` names those that are about to be, by id."""

    chosen: list[str | None]
    installed: list[str]
    new: Mapping[str, str] = MappingProxyType({})


def command_config(options: argparse.Namespace) -> int:
    """Prints the block for one client, or changes the client's file."""
    if options.json and (options.write or options.dry_run or options.remove):
        raise UsageError("--output json is for the block that is printed, not for a change of the file")
    if options.remove:
        planned = _planned(options, *_located(options, CLIENTS[options.client]), _removal(options.agent))
        return _finish(options, planned)
    installed = sikkerkey_identity.installed_agents()
    is_chosen = options.agent or os.environ.get("SIKKERKEY_AGENT_ID")
    chosen: list[str | None] = [sikkerkey_identity.choose_agent(options.agent)] if is_chosen else [*installed] or [None]
    client, path = _located(options, CLIENTS[options.client])
    blocks = _blocks(options, client, chosen)
    if chosen == [None]:
        print_notice(f"no agent is installed yet: {sikkerkey_shell.command_line(sikkerkey_mcp.program())} install -")
    for note in notes(client):
        print_notice(note)
    if options.write or options.dry_run:
        return _finish(options, planned_addition(options, Agents(chosen, installed)))
    keys = server_keys(installed)
    entries = {keys[agent]: block for agent, block in blocks.items()}
    text = block_text(client, entries).rstrip("\n")
    if options.json:
        print(json.dumps({"client": options.client, "file": path, "format": client.format, "block": text}, indent=2))
        return 0
    print(text)
    print_notice(_where_to_put_it(options, path))
    return 0


def notes(client: Client) -> list[str]:
    """The notices before an entry for this client is written."""
    found = []
    if why := why_it_goes_away(sys.executable, sys.prefix, sys.base_prefix):
        found.append(f"note: {clean(sys.executable)} {why} breaks this server")
    if not client.passes_proxies_on and has_password(proxy_variables(os.environ).get("HTTPS_PROXY", "")):
        found.append("note: HTTPS_PROXY contains a password and is not added: if needed, add it to the entry yourself")
    return found


def _blocks(options: argparse.Namespace, client: Client, chosen: Sequence[str | None]) -> dict[str | None, JsonObject]:
    if client.bare_tool_names and len(chosen) > 1:
        raise ConfigError(f"{client.title} cannot tell the tools of several servers apart", PREFIX_HINT)
    return {agent: server_entry(client, agent, serve_options(options)) for agent in chosen}


def planned_addition(options: argparse.Namespace, agents: Agents) -> Planned:
    """What `--write` will do to the file of `options.client`. Raises ConfigError."""
    client, path = _located(options, CLIENTS[options.client])
    blocks = _blocks(options, client, agents.chosen)
    return _planned(options, client, path, _addition(blocks, agents, in_project=options.project))


def _finish(options: argparse.Namespace, planned: Planned) -> int:
    if options.dry_run:
        show(planned)
    else:
        carry_out(planned)
        if planned.done and not options.remove:
            print_notice(f"restart {planned.client.title}; then {planned.client.success_sign}")
    return 0


def why_it_goes_away(executable: str, prefix: str, base_prefix: str) -> str:
    """A warning about an interpreter that may be deleted one day, such as `is X; deleting that`; else empty."""
    if prefix != base_prefix:
        return "is in a virtual environment; deleting that"
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return "is in a conda environment; deleting that"
    path = executable.replace("\\", "/")
    return next((why for part, why in TEMPORARY_INTERPRETERS if part in path), "")


def serve_options(options: argparse.Namespace) -> list[str]:
    """The options after `serve`. Raises ConfigError if the server would not start with them in this environment."""
    words: list[str] = []
    for option in sikkerkey_options.OPTIONS.values():
        if given := getattr(options, option.attribute, None):
            text = ",".join(given) if option.repeatable else given
            words += [option.name] if option.is_switch else [option.name, text]
    sikkerkey_mcp.read_settings(words)
    return words


def _where_to_put_it(options: argparse.Namespace, path: str) -> str:
    if options.client == "generic":
        return "add it where your client keeps its MCP servers"
    return f"add it to {clean(path)}, or let --write do it"


def _located(options: argparse.Namespace, client: Client) -> Located:
    """The file to change, and the client as it stores servers in that file. Raises ConfigError."""
    if client.files is None and not (options.write or options.dry_run or options.remove):
        return Located(client, "")
    if not options.project:
        return file_to_change(client, os.environ)
    if client.project:
        client = file_to_change(client, os.environ).client
        return Located(client, os.path.join(os.getcwd(), client.project))
    raise UsageError(f"{options.client} has no project file", "without --project, the user's file is changed")


class Outcome(NamedTuple):
    """A new text, and what was done for each key, such as `added to`."""

    text: str
    done: dict[str, str]


Change = Callable[[Client, str], Outcome]


def _addition(blocks: dict[str | None, JsonObject], agents: Agents, *, in_project: bool) -> Change:
    """Adds or updates an entry for each agent. An agent's existing entry keeps its key.

    In a project, whose author may be anybody, an entry that contains more than we write is refused.

    Entries of agents that are gone can never work again: they become those of new agents, or are removed.
    """
    installed, keys = agents.installed, server_keys(agents.installed, agents.new)

    def change(client: Client, text: str) -> Outcome:
        done = {}
        for agent, block in blocks.items():
            existing = servers(client.shape, parse(client, text))
            gone = [server for server in existing.values() if installed and _is_of_a_gone_agent(server, installed)]
            key = _key_for(agent, keys[agent], existing, gone)
            replaced = key in existing and existing[key] in gone
            wanted = _with_options_of(existing[key], block) if replaced else block
            if in_project and wanted is not block and loosens(existing[key].options, {}):
                words = clean(sikkerkey_shell.command_line(existing[key].options), 1_000)
                raise ConfigError(f"the entry {clean(key)} was started with {words}", FOREIGN_HINT)
            if key in existing:
                _warn_about_dropped_options(existing[key], wanted)
            new = with_entry(client, text, key, wanted)
            if written := servers(client.shape, parse(client, new)).get(key):
                check_starts(written)
                _name_kept_members(client, written, wanted, in_project=in_project)
                if in_project:
                    _refuse_duplicates(client, new, written)
            done[key] = "is up to date in" if new == text else "updated in" if key in existing else "added to"
            text = new
        for key, server in servers(client.shape, parse(client, text)).items():
            if installed and _is_of_a_gone_agent(server, installed):
                text, done[key] = without_entry(client, text, key), "removed from"
        if client.bare_tool_names:
            _require_different_names(client, text)
        return Outcome(text, done)

    return change


def _name_kept_members(client: Client, written: Server, block: JsonObject, *, in_project: bool) -> None:
    """Says what stays in an entry although `config` did not write it. Raises ConfigError for it in a project."""
    harmless, others = kept_members(client.shape, written, block)
    if others and in_project:
        names = clean(", ".join(others), 1_000)
        raise ConfigError(
            f"the entry {clean(written.key)} has members that config did not write: {names}", FOREIGN_HINT
        )
    if harmless or others:
        print_notice(f"note: {clean(written.key)} keeps what it had: {clean(', '.join([*harmless, *others]), 1_000)}")


def _refuse_duplicates(client: Client, text: str, written: Server) -> None:
    """Raises ConfigError for a name that is used twice in an entry: the client may read the one that we do not see."""
    form, path = edit.FORMATS[client.format], entry_path(client.shape, written.key)
    for name in written.members:
        form.locate(text, (*path, name))
    for variable in written.environment:
        form.locate(text, (*path, client.shape.env, variable))


def _is_of_a_gone_agent(server: Server, installed: Sequence[str]) -> bool:
    named = server.starts_this_program and server.is_in_this_home and sikkerkey_mcp.is_id(server.agent)
    return named and server.agent not in installed


def _with_options_of(gone: Server, block: JsonObject) -> JsonObject:
    """The block with the restrictions of the entry that it replaces, unless it has its own."""
    words = block["args"][block["args"].index("serve") + 1 :]
    own = [word for before, word in zip(["", *words], words) if "--agent" not in (before, word)]
    return block if own else {**block, "args": [*block["args"], *gone.options]}


def _require_different_names(client: Client, text: str) -> None:
    """Raises ConfigError if two entries offer tools of the same names to a client that uses these names alone."""
    ours = [server for server in servers(client.shape, parse(client, text)).values() if server.starts_this_program]
    if len({server.prefix for server in ours}) < len(ours):
        raise ConfigError(f"{client.title} cannot tell the tools of several servers apart", PREFIX_HINT)


def _warn_about_dropped_options(existing: Server, block: JsonObject) -> None:
    """A restricted server should not lose its restrictions unnoticed."""
    if not set(existing.options) <= set(block["args"]):
        words = clean(sikkerkey_shell.command_line(existing.options), 1_000)
        print_notice(f"note: {clean(existing.key)} was started with {words}; repeat these options to keep them")
    for variable in RESTRICTING_VARIABLES:
        held, wanted = existing.environment.get(variable), block.get("env", {}).get(variable)
        if held is not None and wanted not in (None, held):
            print_notice(f"note: {clean(existing.key)} had {variable}={clean(str(held), 1_000)}")


def _key_for(agent: str | None, usual: str, existing: dict[str, Server], gone: Sequence[Server]) -> str:
    """The key of the agent's entry, else the usual one; instead of a new entry, that of an agent that is gone."""
    keys = [key for key, server in existing.items() if agent and server.starts_this_program and server.agent == agent]
    if not keys and usual not in existing:
        keys = [server.key for server in gone]
    return usual if usual in keys or not keys else keys[0]


def _removal(agent: str) -> Change:
    """Removes the entries that start this program, or only those of one agent."""

    def change(client: Client, text: str) -> Outcome:
        existing = servers(client.shape, parse(client, text)).values()
        keys = [server.key for server in existing if server.starts_this_program and agent in ("", server.agent)]
        for key in keys:
            text = without_entry(client, text, key)
        return Outcome(text, dict.fromkeys(keys, "removed from"))

    return change


class Planned(NamedTuple):
    """A change of a client's file that has not happened yet: `new` replaces `old` (None: the file is deleted).

    `shown` is the path as the user knows it, `kept` what is saved at `backup`, and `done` what happens to each key.
    """

    client: Client
    path: str
    shown: str
    old: FileContent
    new: str | None
    kept: bytes | None
    backup: str
    done: dict[str, str]
    in_project: bool

    @property
    def changes_something(self) -> bool:
        """Whether the file will differ."""
        return self.new != self.old.text


def _planned(options: argparse.Namespace, client: Client, shown: str, change: Change) -> Planned:
    """Reads the client's file and makes the new one. Raises ConfigError."""
    path = os.path.realpath(shown)  # managers of dot files use symbolic links; these stay
    if options.project and not path.startswith(os.path.join(os.path.realpath(os.getcwd()), "")):
        raise ConfigError(f"{clean(shown)} leads out of the project, to {clean(path)}", MANUAL_EDIT_HINT)
    if is_redirected(path, sys.base_prefix, this_system()) and not options.dry_run:
        reason = f"Windows redirects what this Python, from the Microsoft Store, writes to {clean(path)}"
        raise ConfigError(reason, f"use Python from python.org, or {MANUAL_EDIT_HINT}")
    backup = backup_path(shown, os.getcwd() if options.project else os.path.expanduser("~"))
    try:
        old = read_file(path)
        client = as_stored(client, old.text)
        changed, done = change(client, old.text)
        new, kept = _new_and_kept(client, old, changed, _readable(backup))
        check_only_entries_changed(client, old.text, new or "", set(done))
    except ConfigError as error:
        named = str(error) if clean(path) in str(error) else f"{clean(path)}, {error}"
        raise ConfigError(named, error.hint or MANUAL_EDIT_HINT) from None
    return Planned(client, path, shown, old, new, kept, backup, done, options.project)


def carry_out(planned: Planned) -> None:
    """Changes the file and says what was done. Raises ConfigError, and then the file is unchanged."""
    shown, old = clean(planned.shown, 4_000), planned.old
    backup = ""
    if planned.changes_something:
        backup = replace_file(planned.path, old, planned.new, planned.kept, planned.backup)
    for key, what in planned.done.items():
        print(f"{clean(key)} {what} {shown}")
    if not planned.done:
        print_notice(f"no sikkerkey entry in {shown}")
    if backup:
        what = "the previous file" if planned.kept == old.data else "the file without this entry"
        print_notice(f"{what} is kept as {clean(backup, 4_000)}")
    if planned.new is None and planned.done:
        print_notice("the file contained nothing else and is deleted")
    profiles = os.path.join(os.path.dirname(planned.shown), "profiles")
    if planned.client.has_profiles and not planned.in_project and os.path.isdir(profiles):
        notice = "note: this is the file of the default profile; for others, add the block to"
        print_notice(f"{notice} {clean(os.path.join(profiles, '*', os.path.basename(planned.shown)), 4_000)}")


def _readable(backup: str) -> FileContent:
    """An earlier backup. One that cannot be read is of no use and counts as missing."""
    with suppress(ConfigError):
        return read_now(backup)
    return MISSING


def _new_and_kept(
    client: Client, old: FileContent, changed: str, backup: FileContent
) -> tuple[str | None, bytes | None]:
    """The new text (None: delete the file), and the data of the backup (None: none is needed)."""
    if changed == old.text or not _has_own_entries(client, old.text):
        return changed, old.data
    try:
        original = without_own_entries(client, old.text, backup)
    except ConfigError:  # an entry that can be changed, but not removed
        return changed, old.data
    if not _has_own_entries(client, changed):
        return original, None if original is None else old.data
    # An update changes our entry alone. What a later --remove needs is the file without it.
    return changed, None if original is None else old.bom + original.encode("utf-8")


def _has_own_entries(client: Client, text: str) -> bool:
    return any(server.starts_this_program for server in servers(client.shape, parse(client, text)).values())


def show(planned: Planned) -> None:
    """Prints the change as a unified diff."""
    name, old, new = clean(planned.path, 4_000), planned.old, planned.new
    if not planned.changes_something:
        print_notice(f"nothing would change in {name}")
        return
    print(f"--- {name if old.data is not None else os.devnull}\n+++ {name if new is not None else os.devnull}")
    for line in diff_lines(planned.client, old.text, new or "", set(planned.done)):
        print(line)
