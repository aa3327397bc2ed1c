"""Creates a machine and its identity files in the format of the vendor's client.

    HOME/vaults/{vaultId}/identity.json   0600  {machineId, machineName, vaultId, apiUrl, privateKeyPath}
    HOME/vaults/{vaultId}/private.pem     0600  Ed25519, PKCS8, PEM

Existing files are never overwritten. The vault stores only the public key. The machine is pending until it is approved.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vault import audit
from vault.domains import machines
from vault.errors import VaultError
from vault.files import private_directory, quoted
from vault.router import OWNER
from vault.store import Store
from vault.terminal import printable

TEMP_LIFE_MS = 3600 * 1000
KINDS = ("standard", "temp")


def write_bundle(store: Store, now_ms: int, home: Path, api_url: str, name: str, *, kind: str = "standard") -> str:
    """Register a pending machine, write its identity files and return its id. Raises VaultError.

    A temporary machine expires after an hour.
    """
    _check(api_url, name, kind)
    directory = _directory(home, store.vault_id)
    key = Ed25519PrivateKey.generate()
    # The files are written inside the transaction: if that fails, the machine is not registered, and they are deleted.
    with _deleted_after_failure(directory), store.transaction() as db:
        public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        expires_ms = now_ms + TEMP_LIFE_MS if kind == "temp" else None
        machine_id = machines.register(
            db, now_ms, name, kind=kind, hostname=socket.gethostname(), public_key=public_key, expires_ms=expires_ms
        )
        action = "temp_machine_create" if kind == "temp" else "machine_register"
        audit.record(db, now_ms, OWNER, action, f"machine {machine_id} registered as {name}, pending approval")
        identity = {"machineId": machine_id, "machineName": name, "vaultId": store.vault_id, "apiUrl": api_url}
        _write(directory, identity, key)
    return machine_id


def _check(api_url: str, name: str, kind: str) -> None:
    parts = urlsplit(api_url)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname == "localhost")):
        raise VaultError(f"machines cannot use the URL {printable(api_url)}", "use a URL such as http://localhost:PORT")
    if not 1 <= len(name) <= 255:
        raise VaultError("the name must have 1 to 255 characters", "choose another name")
    if kind not in KINDS:
        raise VaultError(f"unknown kind {printable(kind)}", f"choose from: {', '.join(KINDS)}")


def _directory(home: Path, vault_id: str) -> Path:
    directory = home / "vaults" / vault_id
    for each in (home, home / "vaults", directory):
        private_directory(each)
    for path in (directory / "identity.json", directory / "private.pem"):
        if os.path.lexists(path):
            raise VaultError(f"file {quoted(path)} already exists", "move it, or choose another directory")
    return directory


@contextlib.contextmanager
def _deleted_after_failure(directory: Path) -> Iterator[None]:
    """Delete the identity files if the block fails. Before it, there are none."""
    try:
        yield
    except BaseException:
        for name in ("identity.json", "private.pem"):
            (directory / name).unlink(missing_ok=True)
        raise


def _write(directory: Path, identity: dict[str, str], key: Ed25519PrivateKey) -> None:
    key_path = directory.absolute() / "private.pem"
    _write_once(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    described = json.dumps({**identity, "privateKeyPath": str(key_path)}, indent=2, ensure_ascii=False)
    _write_once(directory / "identity.json", described.encode() + b"\n")


def _write_once(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
