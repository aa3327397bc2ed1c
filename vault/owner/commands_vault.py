"""Commands about the vault itself and its audit log."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from vault import audit, audit_index, backup, chain, control, reads, totals, verification
from vault.audit_index import Filters
from vault.domains import alerts, secrets
from vault.errors import VaultError
from vault.files import quoted
from vault.owner import browser
from vault.owner.console import (
    PROMPT,
    Output,
    has_vault,
    is_interactive,
    open_existing,
    owner_transaction,
    read_passphrase,
)
from vault.owner.looks import format_table, format_time
from vault.owner.naming import PROJECT, find
from vault.owner.parser import CommandLine, add_passphrase_option
from vault.place import command_line
from vault.router import wall_clock
from vault.schema import open_store
from vault.store import Store
from vault.terminal import printable

NEW_PROMPT = "New passphrase of the vault"
HINT_LOST_PASSPHRASE = "the vault cannot be opened without the passphrase: store it safely"  # noqa: S105  # not a passphrase
HINT_SEALS = "the seals of rows are not checked: pass the passphrase with --passphrase-file"
HINT_HEAD = "save the head elsewhere, to check later that the log was not changed"
COUNTS = {
    "projects": "SELECT " + totals.in_vault("projects"),
    "secrets": "SELECT " + totals.in_vault("secrets"),
    "agents": "SELECT COUNT(*) FROM ai_agents",
    "agentsPending": "SELECT COUNT(*) FROM ai_agents WHERE approved_ms IS NULL",
    "machines": "SELECT " + totals.in_vault("machines"),
    "machinesPending": "SELECT COUNT(*) FROM machines WHERE approved_ms IS NULL",
    "auditEntries": "SELECT coalesce(max(id), 0) FROM audit",
    "integrityFailures": "SELECT COUNT(*) FROM audit WHERE action = 'integrity_failure'",
}
COLUMNS = ("TIME", "SEVERITY", "ACTION", "ACTOR", "DETAIL")
POLL_S = 1.0
LIMIT_MAX = 1_000  # entries per query or poll; the next poll gets the rest


def add_all(line: CommandLine) -> None:
    """Declare the commands of this module."""
    _add_vault_commands(line)
    _add_audit_commands(line)


# ---- the vault -------------------------------------------------------------------------------------------------------


def _add_vault_commands(line: CommandLine) -> None:
    line.section("Vault")
    _add_dev(line)
    making = line.add("init", _init, "create a vault; serve creates one with a key file if there is none")
    making.add_argument(
        "--passphrase", action="store_true", help="protect the root key with a passphrase instead of a key file"
    )
    add_passphrase_option(making)
    making.add_argument(
        "--no-reveal",
        action="store_true",
        help="never show a value on the dashboard or the terminal; this cannot be undone",
    )
    serving = line.add("serve", _serve, "serve the vault and print its URL", prints=False)
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serving.add_argument("--port", type=_port, default=0, help="port to listen on; 0, the default, takes a free one")
    serving.add_argument(
        "--tls-port",
        type=_port,
        help="port for HTTPS on 127.0.0.1; 0 takes a free one (default: as before, at first the one after --port)",
    )
    serving.add_argument(
        "--public-url", type=_url, help="the vault's public URL if it differs from the listening address"
    )
    serving.add_argument(
        "--webhooks-to-loopback", action="store_true", help="allow webhooks to http://localhost, for tests"
    )
    serving.add_argument("--no-reveal", action="store_true", help="refuse to show values while it is served")
    add_passphrase_option(serving, text="start unsealed with the passphrase")
    opening = line.add("dashboard", _dashboard, "open the dashboard in the browser, with a one-time link")
    opening.add_argument("--no-browser", action="store_true", help="only print the link")
    line.add("status", _status, "show the state of the vault and its server")
    checking = line.add("verify", _verify, "check that the vault was not changed from outside")
    add_passphrase_option(checking, text="for a vault with a passphrase: the passphrase, to check the seals too")
    checking.add_argument(
        "--head",
        type=_head,
        metavar="HEAD",
        help="the head that status or backup printed: check that the log contains it",
    )
    line.add("seal", _seal, "make the running server drop the root key")
    add_passphrase_option(line.add("unseal", _unseal, "make the running server load the root key"))
    changing = line.add("rekey", _rekey, "change the root key and its passphrase; stop the server first")
    changing.add_argument(
        "--to", choices=("passphrase", "key-file"), help="how to protect the new root key (default: as before)"
    )
    add_passphrase_option(changing)
    add_passphrase_option(changing, "--new-passphrase-file", "the new passphrase")
    saving = line.add("backup", _backup, "write the vault to one file; the server can keep running")
    saving.add_argument("file", metavar="FILE", type=Path, help="the file to create")
    add_passphrase_option(saving, text="for a vault with a key file: the passphrase of the backup")
    restoring = line.add("restore", _restore, "create a vault from a backup")
    restoring.add_argument("file", metavar="FILE", type=Path, help="the backup")


def _add_dev(line: CommandLine) -> None:
    trying = line.add(
        "dev",
        _dev,
        "try it: serve a new vault with a demo project and an agent for your assistant",
        description="Serve a new vault with a demo project and an agent for your assistant, and print what to paste to"
        " connect it. Without --dir, everything is deleted at the end.",
    )
    trying.add_argument("--port", type=_port, help="port to listen on (8300 if it is free; 0 takes any)")
    trying.add_argument("--mcp", type=Path, metavar="FILE", help="sikkerkey-mcp.pyz (default: beside this program)")
    trying.add_argument("--no-browser", action="store_true", help="print the dashboard's link instead of opening it")


def _init(options: argparse.Namespace) -> Output:
    if has_vault(options.dir):
        raise VaultError(f"there is already a vault in {quoted(options.dir)}", "name another --dir")
    with_passphrase = options.passphrase or options.passphrase_file is not None
    passphrase = read_passphrase(options.passphrase_file, NEW_PROMPT, new=True) if with_passphrase else None
    with open_store(options.dir, passphrase) as store:
        if options.no_reveal:
            with store.transaction() as db:
                secrets.forbid_reveal(db, wall_clock())
        data = {"vaultId": store.vault_id, "rootKey": _protection(store)}
    protection = "protected by a passphrase" if passphrase else "in a key file"
    return Output(
        data, f"created {data['vaultId']}, its root key {protection}", [HINT_LOST_PASSPHRASE] if with_passphrase else []
    )


def _serve(options: argparse.Namespace) -> None:
    from vault import server  # loads uvicorn, which takes longer than the other commands

    source = options.passphrase_file
    asked = source is not None or (is_interactive() and _needs_passphrase(options.dir))
    passphrase = read_passphrase(source, PROMPT) if asked else None
    listening = server.ListenOptions(
        host=options.host,
        port=options.port,
        tls_port=options.tls_port,
        public_url=options.public_url,
        webhooks_to_loopback=options.webhooks_to_loopback,
        reveal=not options.no_reveal,
    )
    server.serve(options.dir, listening, passphrase)


def _dashboard(options: argparse.Namespace) -> Output:
    answer = _running(options.dir, "dashboard")
    url = answer["dashboardUrl"]
    if not options.no_browser and browser.can_open() and browser.open_link(url, options.dir):
        return Output(answer, "opened the dashboard in your browser")
    return Output(answer, url, ["the link works once, within five minutes"])


def _dev(options: argparse.Namespace) -> None:
    from vault.owner import dev  # see _serve

    dev.run(options)


def _needs_passphrase(directory: Path) -> bool:
    """Whether the vault exists, is sealed by a passphrase, and is not served already."""
    if not has_vault(directory) or control.ask(directory, "status") is not None:
        return False
    with open_existing(directory) as store:
        return store.sealed


def _status(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        running = control.ask(options.dir, "status")
        data: dict[str, Any] = {"vaultId": store.vault_id, "rootKey": _protection(store)}
        with store.transaction() as db:
            counts = {name: db.execute(statement).fetchone()[0] for name, statement in COUNTS.items()}
            created_ms = db.execute("SELECT created_ms FROM vault").fetchone()[0]
            head = chain.head(db)
    url, sealed = (running["url"], running["sealed"]) if running else (None, None)
    state = "not served" if running is None else f"served at {url}, {'sealed' if sealed else 'open'}"
    lines = [
        f"{data['vaultId']}, created {format_time(created_ms)}",
        f"root key: {data['rootKey']}",
        f"server: {state}",
        *([f"for agents: {running['agentUrl']}"] if running and "agentUrl" in running else []),
    ]
    lines.append("{secrets} secrets in {projects} projects".format(**counts))
    lines.append("{agents} agents, {agentsPending} pending".format(**counts))
    lines.append("{machines} machines, {machinesPending} pending".format(**counts))
    lines.append(f"audit log: {counts['auditEntries']} entries, head {head or 'none'}")
    if counts["integrityFailures"]:
        failures = command_line(options.dir, "audit", "--action", "integrity_failure")
        lines.append(f"CHANGED FROM OUTSIDE: {counts['integrityFailures']} times, listed by: {failures}")
    urls = {"url": url, "agentUrl": running.get("agentUrl") if running else None}
    data = {**data, "createdAt": created_ms, **urls, "sealed": sealed, **counts}
    return Output({**data, "auditHead": str(head) if head else None}, "\n".join(lines))


def _verify(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        if store.sealed and options.passphrase_file is not None:
            store.unseal(wall_clock(), read_passphrase(options.passphrase_file, PROMPT))
        with store.transaction() as db:
            found = verification.verify(db, options.head, is_open=not store.sealed)
        hints = [HINT_SEALS] if store.sealed else []
    if found.entriesOfSealedVault:
        number = found.entriesOfSealedVault
        hints = [f"the last {number} entries have no seal: they should date from a time when the vault was sealed"]
    return Output(found._asdict(), f"intact: {found.auditEntries} audit entries, head {found.auditHead}", hints)


def _seal(options: argparse.Namespace) -> Output:
    answer = _running(options.dir, "seal")
    return Output(answer, "sealed", [f"the vault answers 503 until you run: {command_line(options.dir, 'unseal')}"])


def _unseal(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        needed = store.has_passphrase
    _running(options.dir, "status")  # fail before asking for a passphrase
    passphrase = read_passphrase(options.passphrase_file, PROMPT) if needed else None
    return Output(_running(options.dir, "unseal", passphrase), "unsealed")


def _rekey(options: argparse.Namespace) -> Output:
    from vault import server  # see _serve

    with server.server_lock(options.dir), _open_unsealed(options) as store:
        kind = options.to or ("passphrase" if store.has_passphrase else "key-file")
        if kind == "key-file" and options.new_passphrase_file is not None:
            raise VaultError("a key file has no passphrase", "use --to passphrase, or omit --new-passphrase-file")
        passphrase = (
            read_passphrase(options.new_passphrase_file, NEW_PROMPT, new=True) if kind == "passphrase" else None
        )
        store.rekey(wall_clock(), passphrase)
        data = {"vaultId": store.vault_id, "rootKey": _protection(store)}
    hints = ["copies of the old key and the old vault.db, including backups, still open what they contain"]
    return Output(
        data, f"new root key, protected by a {data['rootKey']}", hints + ([HINT_LOST_PASSPHRASE] if passphrase else [])
    )


def _backup(options: argparse.Namespace) -> Output:
    with open_existing(options.dir) as store:
        sealed = store.has_passphrase
        passphrase = None
        if not sealed or options.passphrase_file is not None:
            passphrase = read_passphrase(options.passphrase_file, "Passphrase for the backup", new=True)
        head = backup.backup(store, options.file, wall_clock(), passphrase)
        size = options.file.stat().st_size
        data = {"vaultId": store.vault_id, "file": str(options.file), "bytes": size, "auditHead": head}
    needed_passphrase = "the vault's passphrase" if sealed else "that passphrase"
    return Output(
        data,
        f"wrote {quoted(options.file)}, {size} bytes, head of the audit log {head}",
        [
            f"the backup opens only with {needed_passphrase}",
            f"{HINT_HEAD}: {command_line(options.dir, 'verify', '--head', head)}",
        ],
    )


def _restore(options: argparse.Namespace) -> Output:
    vault_id = backup.restore(options.file, options.dir, wall_clock())
    hints = ["the vault opens with the passphrase of the backup", "rekey --to key-file switches to a key file"]
    return Output({"vaultId": vault_id, "rootKey": "passphrase"}, f"restored {vault_id}", hints)


@contextlib.contextmanager
def _open_unsealed(options: argparse.Namespace) -> Iterator[Store]:
    """The vault with its root key in memory. The caller must hold server.lock."""
    with open_existing(options.dir, has_server_lock=True) as store:
        if store.sealed:
            store.unseal(wall_clock(), read_passphrase(options.passphrase_file, PROMPT))
        yield store


def _running(directory: Path, command: str, passphrase: str | None = None) -> dict[str, Any]:
    answer = control.ask(directory, command, passphrase)
    if answer is None:
        raise VaultError(
            f"no server is running for {quoted(directory)}", f"start one: {command_line(directory, 'serve')}"
        )
    return answer


def _protection(store: Store) -> str:
    return "passphrase" if store.has_passphrase else "key file"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _head(text: str) -> chain.Head:
    try:
        return chain.parse_head(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be a head as status prints it: a number, a colon and hex digits"
        ) from None


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or text.endswith("/"):
        raise argparse.ArgumentTypeError("must be a URL without a slash at its end, such as https://vault.example.com")
    return text


# ---- the audit log ---------------------------------------------------------------------------------------------------


def _add_audit_commands(line: CommandLine) -> None:
    line.section("Audit log and alerts")
    reading = line.add("audit", _audit, "show the audit log, oldest first")
    reading.add_argument("--limit", type=_limit, default=50, metavar="N", help=f"the last N, at most {LIMIT_MAX} (50)")
    reading.add_argument("--action", choices=sorted(audit.ACTIONS), metavar="ACTION", help="only this action")
    reading.add_argument("--severity", choices=audit.SEVERITIES, default="info", help="this severity and above")
    reading.add_argument("--project", metavar="PROJECT", help="only entries of this project")
    reading.add_argument("--search", metavar="TEXT", help="only entries whose action or detail contains this text")
    reading.add_argument(
        "--follow", action="store_true", help="keep printing new entries, one per line, until interrupted"
    )
    line.add("alerts", _alerts, f"show the last {alerts.MAX_SHOWN} alerts, newest first")


def _audit(options: argparse.Namespace) -> Output | None:
    with open_existing(options.dir) as store:
        with store.transaction() as db:
            if options.project is not None:
                options.project = find(db, options.dir, options.project, PROJECT).id
            # What agents looked at in this minute counts too. While it follows, the server's job records it.
            reads.record_until(db, wall_clock(), wall_clock())
        entries = latest(store, _filters(options), options.limit)
        if not options.follow:
            return Output(entries, format_table(COLUMNS, [_row(entry) for entry in entries]))
        for entry in entries:
            _print(entry, as_json=options.json)
        follow(store, options, max((entry["id"] for entry in entries), default=0), _wait)
    return None


def _alerts(options: argparse.Namespace) -> Output:
    with owner_transaction(options) as db:
        found: list[dict[str, Any]] = alerts.overview(db)
    return Output(found, format_table(COLUMNS, [_row(entry) for entry in found]))


def latest(store: Store, filters: Filters, limit: int) -> list[dict[str, Any]]:
    """The newest entries that match the filters, oldest first."""
    with store.reader() as db:
        return [audit.entry(row) for row in audit_index.find(db, filters, limit)][::-1]


def follow(store: Store, options: argparse.Namespace, after: int, wait: Callable[[], bool]) -> None:
    """Print new entries after each wait, until `wait` returns False."""
    while wait():
        with store.reader() as db:
            entries = [audit.entry(row) for row in audit_index.find_next(db, _filters(options), after, LIMIT_MAX)]
        for entry in entries:
            _print(entry, as_json=options.json)
            after = int(str(entry["id"]))


def _wait() -> bool:
    time.sleep(POLL_S)
    return True


def _filters(options: argparse.Namespace) -> Filters:
    wanted = audit.SEVERITIES[audit.SEVERITIES.index(options.severity) :]
    severities = None if options.severity == audit.SEVERITIES[0] else wanted
    actions = None if options.action is None else [options.action]
    projects = None if options.project is None else [options.project]
    return Filters(actions=actions, severities=severities, projects=projects, search=options.search)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    identity = entry["userId"] or entry["machineId"] or entry["aiAgentId"]
    actor = entry["actorKind"] if identity is None else f"{entry['actorKind']} {identity}"
    return format_time(entry["timestamp"]), entry["severity"], entry["action"], actor, entry["detail"]


def _print(entry: dict[str, Any], *, as_json: bool) -> None:
    line = json.dumps(entry) if as_json else "  ".join(printable(cell) for cell in _row(entry))
    print(line, flush=True)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {LIMIT_MAX}")
    return int(text)
