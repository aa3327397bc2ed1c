"""Commands about projects, secrets, policies and canaries."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vault import audit, control, dotenv, env_import
from vault.desk import Desk
from vault.domains import canaries, policies, secrets
from vault.domains.secrets import GeneratorOptions
from vault.errors import Tampered, VaultError
from vault.files import quoted
from vault.inputs import checked
from vault.owner.console import Output, confirm, is_interactive, owner_desk, read_hidden
from vault.owner.looks import format_table, format_time
from vault.owner.naming import PROJECT, SECRET, TRASHED, Found, Kind, find, find_exact
from vault.owner.parser import CommandLine, Parser, add_opening, add_yes
from vault.place import command_line
from vault.router import Call
from vault.terminal import printable

PROJECT_TEXT = "its id, the beginning of its id, or its name"
SECRET_TEXT = "its id, the beginning of its id, or its name"  # noqa: S105  # not a secret


def add_all(line: CommandLine) -> None:
    """Declare the commands of this module."""
    _add_project_commands(line)
    _add_secret_commands(line)
    _add_control_commands(line)


def _add_project_commands(line: CommandLine) -> None:
    line.section("Projects and secrets")
    add_opening(line.add("projects", _projects, "list the projects"))
    making = line.add("project-create", _project_create, "create a project")
    making.add_argument("name", metavar="NAME", help="its name")
    making.add_argument("--description", metavar="TEXT", help="what it is for")
    add_opening(making)


def _add_secret_commands(line: CommandLine) -> None:
    listing = line.add("secrets", _secrets, "list the secrets of a project, without values")
    listing.add_argument("project", metavar="PROJECT", help=PROJECT_TEXT)
    add_opening(listing)
    _add_put(line)
    showing = line.add(
        "reveal",
        _reveal,
        "show the value of a secret",
        description="Show the value of a secret, after a confirmation. The audit log and the alerts record it.",
    )
    _add_secret(showing)
    showing.add_argument("--version", type=int, metavar="N", help="an earlier version (default: the current one)")
    showing.add_argument("--field", metavar="NAME", help="only this field of a structured secret")
    add_yes(showing)
    add_opening(showing)
    importing = line.add(
        "import",
        _import,
        "import a .env file into a project",
        description="Import a .env file into a project: show what is new, replaced and unchanged, ask, then import.",
    )
    importing.add_argument("project", metavar="PROJECT", help=PROJECT_TEXT)
    importing.add_argument("file", metavar="FILE", help="the .env file; - reads standard input")
    importing.add_argument("--dry-run", action="store_true", help="only show what would happen")
    add_yes(importing)
    add_opening(importing)
    deleting = line.add(
        "delete",
        _delete,
        "move a secret to the trash",
        description="Move a secret to the trash, after a question. It can be restored for 30 days.",
    )
    _add_secret(deleting)
    add_yes(deleting)
    add_opening(deleting)
    trashed = line.add(
        "trash",
        _trash,
        "list the deleted secrets, or restore one of them",
        description="List the deleted secrets, or restore one of them. (To restore a backup, use the command restore.)",
    )
    trashed.add_argument("--restore", metavar="TRASHED", help=f"first restore this secret: {SECRET_TEXT}")
    add_opening(trashed)


def _add_secret(command: Parser) -> None:
    """Add the arguments that say which secret is meant."""
    command.add_argument("secret", metavar="SECRET", help=SECRET_TEXT)
    command.add_argument("--project", metavar="PROJECT", help="the project, if secrets of several have this name")


def _add_put(line: CommandLine) -> None:
    putting = line.add(
        "put",
        _put,
        "create a secret, or replace its value",
        description="Create a secret, or replace its value after a confirmation. Type the value twice, without echo.",
    )
    putting.add_argument("project", metavar="PROJECT", help=PROJECT_TEXT)
    putting.add_argument("name", metavar="NAME", help="the secret's name, or the id of an existing one")
    putting.add_argument(
        "--file",
        metavar="FILE",
        help="read the value from a file, or - for standard input; the final line break is dropped",
    )
    putting.add_argument("--generate", action="store_true", help="let the vault generate the value")
    putting.add_argument("--length", type=int, metavar="N", help="with --generate: the number of characters (32)")
    putting.add_argument(
        "--charset", choices=(*secrets.ALPHABETS, "uuid"), help="with --generate: the characters (symbols)"
    )
    putting.add_argument(
        "--field",
        metavar="NAME",
        action="append",
        default=[],
        help="create a structured secret with this field; repeat the option for each field",
    )
    putting.add_argument("--note", metavar="TEXT", help="a note, which agents can read")
    add_yes(putting)
    add_opening(putting)


def _add_control_commands(line: CommandLine) -> None:
    thawing = line.add("unfreeze", _unfreeze, "let machines read again in a project that a canary froze")
    thawing.add_argument("project", metavar="PROJECT", help=PROJECT_TEXT)
    add_opening(thawing)
    listing = line.add("policies", _policies, "list the policies of a project, and say what they mean")
    listing.add_argument("project", metavar="PROJECT", help=PROJECT_TEXT)
    add_opening(listing)
    listing = line.add("canaries", _canaries, "list the canaries and what they have frozen")
    listing.add_argument("--project", metavar="PROJECT", help=f"only those of this project: {PROJECT_TEXT}")
    add_opening(listing)


def _find(desk: Desk, text: str, kind: Kind, project_id: str | None = None) -> Found:
    with desk.transaction() as db:
        return find(db, desk.store.directory, text, kind, project_id=project_id)


# ---- projects --------------------------------------------------------------------------------------------------------


def _projects(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        found = desk.call("GET", "/v1/ai/projects")
        with desk.transaction() as db:
            for project in found:
                project["frozen"] = canaries.is_frozen(db, project["id"])
    rows = [
        (each["id"], each["name"], each["secretCount"], "frozen" if each["frozen"] else "open", each["description"])
        for each in found
    ]
    hints = [
        f"to unfreeze {printable(each['name'])}: {command_line(options.dir, 'unfreeze', each['id'])}"
        for each in found
        if each["frozen"]
    ][:1]
    if not found:
        hints = [f"no projects yet; create one: {command_line(options.dir, 'project-create', 'Webshop')}"]
    return Output(found, format_table(("ID", "NAME", "SECRETS", "STATE", "DESCRIPTION"), rows), hints)


def _project_create(options: argparse.Namespace) -> Output:
    body = {"name": options.name}
    if options.description is not None:
        body["description"] = options.description
    with owner_desk(options) as desk:
        made = desk.call("POST", "/v1/ai/projects", body)
    putting = command_line(options.dir, "put", made["id"], "API_KEY")
    return Output(made, f"created {printable(made['name'])} ({made['id']})", [f"add a secret: {putting}"])


def _unfreeze(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        project = _find(desk, options.project, PROJECT)
        with desk.transaction() as db:
            was_frozen = canaries.is_frozen(db, project.id)
        answer = desk.call("POST", f"/v1/ai/projects/{project.id}/unfreeze")
    name = f"{printable(project.name)} ({project.id})"
    if not was_frozen:
        return Output({**answer, "wasFrozen": False}, f"{name} was not frozen")
    rotating = "its canaries stay enabled; rotate the secrets that the intruder may have read"
    return Output({**answer, "wasFrozen": True}, f"unfroze {name}", [rotating])


# ---- secrets ---------------------------------------------------------------------------------------------------------


def _secrets(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        project = _find(desk, options.project, PROJECT)
        found = desk.call("GET", f"/v1/ai/projects/{project.id}/secrets")
    keys = ("id", "name", "type", "version")
    rows = [(*(each[key] for key in keys), format_time(each["updatedAt"]), each["note"]) for each in found]
    putting = command_line(options.dir, "put", project.id, "API_KEY")
    hints = [] if found else [f"no secrets yet; add one: {putting}"]
    return Output(found, format_table(("ID", "NAME", "TYPE", "VERSION", "CHANGED", "NOTE"), rows), hints)


def _put(options: argparse.Namespace) -> Output:
    """Create or replace a secret. Everything is checked and asked before a value is typed."""
    _check_put(options)
    with owner_desk(options) as desk:
        project = _find(desk, options.project, PROJECT)
        existing = _existing(desk, project, options.name)
        if existing is None:
            return _put_new(desk, project, options)
        secret = desk.call("GET", f"/v1/ai/projects/{project.id}/secrets/{existing.id}")
        if options.field and options.field != secret["fieldNames"]:
            raise VaultError("the fields of a secret cannot be changed", "omit --field: each field is asked for")
        question = f"Replace the value of {printable(secret['name'])}, now version {secret['version']}?"
        confirm(question, yes=options.yes)
        return _put_existing(desk, project, secret, options)


def _check_put(options: argparse.Namespace) -> None:
    _check_one_source(options)
    if options.generate and options.file is not None:
        raise VaultError("--generate cannot be combined with --file", "use one of them")
    if options.field and options.file is not None:
        raise VaultError("--field cannot be combined with --file", "type the values, or use --generate")
    if not options.generate and (options.length is not None or options.charset is not None):
        raise VaultError("--length and --charset require --generate", "add --generate")
    note = {} if options.note is None else {"note": options.note}
    checked({"name": options.name, **note}, {"name": secrets.NAME, "note": secrets.NOTE})
    secrets.check_names(options.field, "--field")


def _check_one_source(options: argparse.Namespace) -> None:
    if options.file == options.passphrase_file == "-":
        raise VaultError("standard input cannot be both the file and the passphrase", "put one of them into a file")


def _existing(desk: Desk, project: Found, text: str) -> Found | None:
    """The secret of the project with this id or name. The beginning of an id does not count: it may be a new name."""
    with desk.transaction() as db:
        return find_exact(db, text, SECRET, project_id=project.id)


def _put_new(desk: Desk, project: Found, options: argparse.Namespace) -> Output:
    fields = options.field or None
    body = {"name": options.name, "value": _new_value(options, fields)}
    if fields is not None:
        body["fieldNames"] = fields
    if options.note is not None:
        body["note"] = options.note

    def create(call: Call) -> Any:
        # Another process may have created it while the value was typed.
        if find_exact(call.db, options.name, SECRET, project_id=project.id) is not None:
            raise VaultError(f"a secret {printable(options.name)} was just created", "run put again to replace it")
        return secrets.create(call)

    made = desk.run("put", create, {"projectId": project.id}, checked(body, secrets.CREATE_FIELDS))
    data = {**made, "projectId": project.id, "version": 1, "created": True}
    return Output(data, f"created {printable(made['name'])} ({made['id']}) in {printable(project.name)}")


def _put_existing(desk: Desk, project: Found, secret: dict[str, Any], options: argparse.Namespace) -> Output:
    path = f"/v1/ai/projects/{project.id}/secrets/{secret['id']}"
    if options.generate:
        given = {"length": options.length, "charset": options.charset}
        answer = desk.call("POST", f"{path}/rotate", {key: value for key, value in given.items() if value is not None})
    else:
        answer = desk.call("POST", f"{path}/update", {"value": _new_value(options, secret["fieldNames"])})
    if options.note is not None:
        desk.call("POST", f"{path}/note", {"note": options.note})
    data = {"id": secret["id"], "name": secret["name"], "projectId": project.id}
    text = f"replaced {printable(secret['name'])} ({secret['id']}), now version {answer['version']}"
    return Output({**data, "version": answer["version"], "created": False}, text)


def _new_value(options: argparse.Namespace, fields: list[str] | None) -> str:
    """The value that is generated, read or typed."""
    if options.generate:
        generator = GeneratorOptions().updated(
            {key: getattr(options, key) for key in ("length", "charset") if getattr(options, key) is not None}
        )
        _check_length(generator)
        return secrets.generate_value(generator, fields, {})
    if options.file is not None:
        return _read_value(options.file)
    if fields is None:
        return _typed(f"Value of {printable(options.name)}")
    return json.dumps({name: _typed(f"Value of the field {printable(name)}") for name in fields}, ensure_ascii=False)


def _check_length(generator: GeneratorOptions) -> None:
    if not secrets.LENGTH.low <= generator.length <= secrets.LENGTH.high:
        limits = f"{secrets.LENGTH.low} to {secrets.LENGTH.high}"
        raise VaultError(f"--length must be {limits}", "choose another length")


def _typed(prompt: str) -> str:
    return read_hidden(prompt, twice=True, what="value", option="--file -, or use --generate")


def _read_value(source: str) -> str:
    """The content of a file or of standard input. A single line loses its end, which editors and echo add."""
    text = _read(source, secrets.MAX_VALUE_BYTES + 2)
    line = text[:-1].removesuffix("\r") if text.endswith("\n") else text
    return line if "\n" not in line else text


def _read(source: str, limit: int) -> str:
    try:
        if source == "-":
            content = sys.stdin.read(limit + 1).encode()
        else:
            with Path(source).open("rb") as file:
                content = file.read(limit + 1)
        if len(content) > limit:
            raise VaultError(f"the input has more than {limit} bytes", "give a smaller one")
        return content.decode()
    except UnicodeError:
        raise VaultError("the input is not UTF-8", "give a text file") from None
    except OSError as error:
        reason = (error.strerror or "no reason").lower()
        raise VaultError(f"file {quoted(Path(source))} cannot be read: {reason}", "name another one") from None


# ---- values on the terminal ------------------------------------------------------------------------------------------


def _reveal(options: argparse.Namespace) -> Output:
    running = control.ask(options.dir, "status")
    if running is not None and running.get("noReveal"):
        raise VaultError("this vault is served with --no-reveal", "only machines can read its values")
    with owner_desk(options) as desk:
        project = None if options.project is None else _find(desk, options.project, PROJECT).id
        secret = _find(desk, options.secret, SECRET, project)
        if not options.yes and not (is_interactive() and sys.stdout.isatty()):
            raise VaultError("the value would go to a pipe or a file", "pass --yes if you want that")
        confirm(f"Show the value of {printable(secret.name)} here? The audit log records it.", yes=options.yes)
        value = _value(desk, secret.id, options.version)
    shown = value if options.field is None else _field(value, options.field)
    data = {"id": secret.id, "name": secret.name, "value": shown}
    if options.json or sys.stdout.isatty():
        return Output(data, "\n".join(map(printable, shown.split("\n"))))
    sys.stdout.write(shown)  # exactly the value, for programs
    return Output(data)


def _value(desk: Desk, secret_id: str, version: int | None) -> str:
    try:
        with desk.transaction() as db:
            return secrets.reveal_as_owner(db, desk.store.keys, desk.clock(), secret_id, version, actor=desk.actor)
    except Tampered as found:
        with desk.transaction() as db:
            audit.note_tampered(db, desk.clock(), desk.actor, found, "reveal")
        raise


def _field(value: str, name: str) -> str:
    try:
        found = json.loads(value)[name]
    except (ValueError, TypeError, LookupError):
        raise VaultError(f"the secret has no field {printable(name)}", "`secrets PROJECT --json` lists them") from None
    return found if isinstance(found, str) else json.dumps(found)


# ---- import ----------------------------------------------------------------------------------------------------------


def _import(options: argparse.Namespace) -> Output:
    _check_one_source(options)
    entries = dotenv.parse(_read(options.file, env_import.MAX_FILE_BYTES))
    with owner_desk(options) as desk:
        project = _find(desk, options.project, PROJECT)
        steps = env_import.plan(desk, project.id, entries)
        counts = {
            word: sum(step.outcome == word for step in steps) for word in ("new", "replaced", "unchanged", "refused")
        }
        rows = [(step.entry.line, step.entry.name, step.outcome, step.reason) for step in steps]
        table = format_table(("LINE", "NAME", "OUTCOME", "REASON"), rows)
        summary = ", ".join(f"{number} {word}" for word, number in counts.items() if number) or "nothing"
        applies = bool(counts["new"] or counts["replaced"]) and not options.dry_run
        if applies:
            if not options.yes and is_interactive():
                print(table, file=sys.stderr)
            confirm(f"Import into {printable(project.name)}: {summary}?", yes=options.yes)
            env_import.apply(desk, project.id, steps)
    data = {"projectId": project.id, **counts, "imported": applies, "entries": [step.as_json() for step in steps]}
    if applies:
        return Output(data, f"imported into {printable(project.name)}: {summary}", [_HINT_FILE])
    return Output(data, f"{table}\n{summary}".strip(), ["nothing was changed"])


_HINT_FILE = "the file still contains the values: delete it once programs read them from the vault"


# ---- trash -----------------------------------------------------------------------------------------------------------


def _delete(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        project = None if options.project is None else _find(desk, options.project, PROJECT).id
        found = _find(desk, options.secret, SECRET, project)
        with desk.transaction() as db:
            secret = secrets.find(db, found.id)
        question = f"Move {printable(secret['name'])} to the trash? Machines cannot read it any more."
        confirm(question, yes=options.yes)
        answer = desk.call("POST", f"/v1/ai/projects/{secret['project_id']}/secrets/{secret['id']}/delete")
    restoring = command_line(options.dir, "trash", "--restore", secret["id"])
    data = {**answer, "name": secret["name"], "projectId": secret["project_id"]}
    return Output(data, f"moved {printable(secret['name'])} ({secret['id']}) to the trash", [f"undo it: {restoring}"])


def _trash(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        if options.restore is not None:
            secret = _find(desk, options.restore, TRASHED)
            answer = desk.call("POST", f"/v1/ai/trash/{secret.id}/restore")
            return Output(answer, f"restored {printable(secret.name)} ({secret.id})")
        found = desk.call("GET", "/v1/ai/trash")
    rows = [
        (each["id"], each["name"], format_time(each["deletedAt"]), format_time(each["purgeAt"]), each["projectName"])
        for each in found
    ]
    hints = [] if found else ["the trash is empty"]
    return Output(found, format_table(("ID", "NAME", "DELETED", "PURGED ON", "PROJECT"), rows), hints)


# ---- policies and canaries -------------------------------------------------------------------------------------------


def _policies(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        project = _find(desk, options.project, PROJECT)
        found = desk.call("GET", f"/v1/ai/projects/{project.id}/policies")
        machine_names = {each["id"]: each["name"] for each in desk.call("GET", "/v1/ai/machines")}
    for policy in found:
        policy["meaning"] = policies.describe(policy, machine_names)
    rows = [(each["id"], each["name"], each["meaning"]) for each in found]
    hints = [] if found else ["no policies yet: a machine with a grant can read at any time"]
    return Output(found, format_table(("ID", "NAME", "MEANING"), rows), hints)


def _canaries(options: argparse.Namespace) -> Output:
    with owner_desk(options) as desk:
        projects = {each["id"]: each["name"] for each in desk.call("GET", "/v1/ai/projects")}
        wanted = projects if options.project is None else [_find(desk, options.project, PROJECT).id]
        found = [each for project in wanted for each in desk.call("GET", f"/v1/ai/projects/{project}/canaries")]
    rows = [
        (
            each["id"],
            each["name"],
            "enabled" if each["enabled"] else "disabled",
            each["triggerCount"],
            format_time(each["lastTriggeredAt"]),
            projects[each["projectId"]] + (" (frozen)" if each["projectFrozenAt"] else ""),
        )
        for each in found
    ]
    hints = [] if found else ["no canaries yet; agents with the scope projects.policies.write can plant one"]
    return Output(found, format_table(("ID", "NAME", "STATE", "READS", "LAST READ", "PROJECT"), rows), hints)
