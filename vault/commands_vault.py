"""Commands about the vault itself: making, serving, sealing, changing the root key, saving and restoring."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vault import backup, control, server
from vault.calls import wall_clock
from vault.console import Output, add, add_passphrase, existing, moment, passphrase
from vault.errors import VaultError
from vault.files import shown
from vault.store import Store
from vault.terminal import PROGRAM

if TYPE_CHECKING:
    from vault.console import Commands

ASK, ASK_NEW = "Passphrase of the vault", "New passphrase of the vault"
ADVICE_LOST = "without the passphrase nothing opens the vault: keep it where you keep such things"
COUNTS = {
    "projects": "SELECT COUNT(*) FROM projects",
    "secrets": "SELECT COUNT(*) FROM secrets WHERE deleted_ms IS NULL",
    "agents": "SELECT COUNT(*) FROM ai_agents",
    "agentsPending": "SELECT COUNT(*) FROM ai_agents WHERE approved_ms IS NULL",
    "machines": "SELECT COUNT(*) FROM machines",
    "machinesPending": "SELECT COUNT(*) FROM machines WHERE approved_ms IS NULL",
}


def add_all(commands: Commands) -> None:
    """Declare the commands of this file."""
    making = add(commands, "init", _init, "make a vault; serve makes one with a key file by itself")
    making.add_argument("--passphrase", action="store_true", help="seal the root key by a passphrase, not a key file")
    add_passphrase(making)
    serving = add(commands, "serve", _serve, "serve the vault and print its URL", prints=False)
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serving.add_argument("--port", type=_port, default=0, help="port to listen on; 0, the default, takes a free one")
    serving.add_argument("--public-url", type=_url, help="where people reach the vault, if not at that address")
    add_passphrase(serving, text="start unsealed with the passphrase")
    add(commands, "status", _status, "what the vault is, and whether a server runs")
    add(commands, "seal", _seal, "make the running server forget the root key")
    add_passphrase(add(commands, "unseal", _unseal, "give the running server the root key back"))
    changing = add(commands, "rekey", _rekey, "change the root key, and with it the passphrase; stop the server first")
    changing.add_argument("--to", choices=("passphrase", "key-file"), help="how to keep the new one (as the old one)")
    add_passphrase(changing)
    add_passphrase(changing, "--new-passphrase-file", "the new passphrase")
    saving = add(commands, "backup", _backup, "write everything into one file, while the server runs")
    saving.add_argument("file", metavar="FILE", type=Path, help="the file to make")
    add_passphrase(saving, text="for a vault with a key file: a passphrase that the backup will open with")
    restoring = add(commands, "restore", _restore, "make a vault of a backup")
    restoring.add_argument("file", metavar="FILE", type=Path, help="the backup")


def _init(options: argparse.Namespace) -> Output:
    if os.path.lexists(options.dir / "vault.db"):
        raise VaultError(f"there is a vault in {shown(options.dir)}", "name another --dir")
    wanted = options.passphrase or options.passphrase_file is not None
    words = passphrase(options.passphrase_file, ASK_NEW, new=True) if wanted else None
    with Store(options.dir, words) as store:
        data = {"vaultId": store.vault_id, "rootKey": _kept(store)}
    text = f"made {data['vaultId']}, its root key in a {data['rootKey']}"
    return Output(data, text.replace("in a passphrase", "sealed by a passphrase"), [ADVICE_LOST] if wanted else [])


def _serve(options: argparse.Namespace) -> None:
    source = options.passphrase_file
    words = None if source is None else passphrase(source, ASK)
    server.serve(options.dir, server.Place(options.host, options.port, options.public_url), words)


def _status(options: argparse.Namespace) -> Output:
    with existing(options.dir) as store:
        running = control.ask(options.dir, "status")
        data: dict[str, Any] = {"vaultId": store.vault_id, "rootKey": _kept(store)}
        with store.transaction() as db:
            counts = {name: db.execute(statement).fetchone()[0] for name, statement in COUNTS.items()}
            created_ms = db.execute("SELECT created_ms FROM vault").fetchone()[0]
    url, sealed = (running["url"], running["sealed"]) if running else (None, None)
    state = "not served" if running is None else f"served at {url}, {'sealed' if sealed else 'open'}"
    lines = [f"{data['vaultId']}, made {moment(created_ms)}", f"root key: {data['rootKey']}", f"server: {state}"]
    lines.append("{secrets} secrets in {projects} projects".format(**counts))
    lines.append("{agents} agents, {agentsPending} pending".format(**counts))
    lines.append("{machines} machines, {machinesPending} pending".format(**counts))
    return Output({**data, "createdAt": created_ms, "url": url, "sealed": sealed, **counts}, "\n".join(lines))


def _seal(options: argparse.Namespace) -> Output:
    answer = _running(options.dir, "seal")
    return Output(answer, "sealed", [f"it answers 503 until: {PROGRAM} unseal --dir DIR"])


def _unseal(options: argparse.Namespace) -> Output:
    with existing(options.dir) as store:
        needed = store.has_passphrase
    _running(options.dir, "status")  # before anybody types a passphrase for nothing
    words = passphrase(options.passphrase_file, ASK) if needed else None
    return Output(_running(options.dir, "unseal", words), "unsealed")


def _rekey(options: argparse.Namespace) -> Output:
    with server.sole(options.dir), _opened(options) as store:
        kind = options.to or ("passphrase" if store.has_passphrase else "key-file")
        if kind == "key-file" and options.new_passphrase_file is not None:
            raise VaultError("a key file has no passphrase", "say --to passphrase, or leave --new-passphrase-file away")
        words = passphrase(options.new_passphrase_file, ASK_NEW, new=True) if kind == "passphrase" else None
        store.rekey(wall_clock(), words)
        data = {"vaultId": store.vault_id, "rootKey": _kept(store)}
    hints = ["a copy of the old key and of vault.db, backups included, still opens what was in it"]
    return Output(data, f"new root key, kept by a {data['rootKey']}", hints + ([ADVICE_LOST] if words else []))


def _backup(options: argparse.Namespace) -> Output:
    with existing(options.dir) as store:
        sealed = store.has_passphrase
        words = None
        if not sealed or options.passphrase_file is not None:
            words = passphrase(options.passphrase_file, "Passphrase for the backup", new=True)
        backup.backup(store, options.file, wall_clock(), words)
        data = {"vaultId": store.vault_id, "file": str(options.file), "bytes": options.file.stat().st_size}
    which = "the vault's passphrase" if sealed else "that passphrase"
    return Output(data, f"wrote {shown(options.file)}, {data['bytes']} bytes", [f"it opens with {which} only"])


def _restore(options: argparse.Namespace) -> Output:
    vault_id = backup.restore(options.file, options.dir, wall_clock())
    hints = ["the vault opens with the passphrase of the backup", "rekey --to key-file gives it a key file again"]
    return Output({"vaultId": vault_id, "rootKey": "passphrase"}, f"restored {vault_id}", hints)


@contextlib.contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Store]:
    """The vault with its root key in memory; the caller holds server.lock."""
    with existing(options.dir, sole=True) as store:
        if store.sealed:
            store.unseal(wall_clock(), passphrase(options.passphrase_file, ASK))
        yield store


def _running(directory: Path, command: str, words: str | None = None) -> dict[str, Any]:
    answer = control.ask(directory, command, words)
    if answer is None:
        raise VaultError(f"no server runs on {shown(directory)}", f"start one: {PROGRAM} serve --dir DIR")
    return answer


def _kept(store: Store) -> str:
    return "passphrase" if store.has_passphrase else "key file"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or text.endswith("/"):
        raise argparse.ArgumentTypeError("must be a URL without a slash at its end, such as https://vault.example.com")
    return text
