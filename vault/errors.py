"""The expected errors of the vault.

    Exception
    +-- VaultError   shown to the owner on the terminal: a message and a hint
    +-- Refusal      sent to a client over HTTP: a status and {"error": message}
        +-- Denied   failed authentication or authorization, audited as auth_failure
            +-- UnprovenDenied  nobody proved to have sent the request: counted, not audited one by one
            +-- StateDenied     the caller is pending, disabled or expired: counted too
            +-- ReadDenied    a machine may not read a secret, audited as secret_read_denied
            +-- SealedDenied  the root key is not in memory, audited as vault_sealed_refusal
            +-- Tampered      stored data was changed from outside, audited as integrity_failure

Any other exception is a bug: the client receives "internal error", and the log gets one line.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from typing import Any

EMPTY: Mapping[str, Any] = {}


class VaultError(Exception):
    """An expected failure of an owner's command: what is wrong, and how to fix it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Refusal(Exception):
    """An error answer to a request. The message may name a key, never a value.

    The handler's changes are rolled back unless `keep_changes` is set: a co-sign request is kept although it is
    refused.
    """

    keep_changes = False

    def __init__(
        self, status: int, message: str, *, extra: Mapping[str, object] = EMPTY, headers: Mapping[str, str] = EMPTY
    ) -> None:
        super().__init__(message)
        self.status = status
        self.extra = extra
        self.headers = headers

    def body(self) -> dict[str, object]:
        """The JSON body of the answer."""
        return {"error": str(self), **self.extra}


def storage_refusal(error: Exception) -> Refusal | None:
    """What a client is told if the disk is full or the database is busy. None for any other error."""
    message = str(error) if isinstance(error, sqlite3.OperationalError) else ""
    if "disk is full" in message or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return Refusal(507, "the disk of this vault is full: nothing was changed")
    if "database is locked" in message:
        return Refusal(503, "this vault is busy: nothing was changed", headers={"retry-after": "1"})
    return None


class Denied(Refusal):
    """The caller is not allowed. `caller_id` is set if the identity is known. The audit entry is never rolled back."""

    action = "auth_failure"
    is_counted = False

    def __init__(self, status: int, message: str, caller_id: str | None = None, scope: str | None = None) -> None:
        super().__init__(status, message, extra={"requiredScopes": [scope]} if scope else EMPTY)
        self.caller_id = caller_id


class UnprovenDenied(Denied):
    """A request that anybody may have sent. `caller_id` is only the identity that it claims."""

    is_counted = True


class StateDenied(Denied):
    """The caller is pending, disabled or expired. Counted, because it may ask again and again."""

    is_counted = True


class ReadDenied(Denied):
    """A machine's read that a grant, a freeze or a policy forbids. `axis` names the condition of the policy."""

    axis: str | None = None

    def __init__(self, status: int, message: str, machine_id: str, secret_id: str, project_id: str | None) -> None:
        super().__init__(status, message, machine_id)
        self.secret_id = secret_id
        self.project_id = project_id


class SealedDenied(Denied):
    """The vault is sealed and refuses all requests."""

    action = "vault_sealed_refusal"

    def __init__(self, caller_id: str | None = None) -> None:
        super().__init__(503, "the vault is sealed", caller_id)


class Tampered(Denied):
    """Stored data does not decrypt or does not match its seal. The audit entry, which is critical, says which data."""

    action = "integrity_failure"

    def __init__(
        self,
        what: str,
        *,
        caller_id: str | None = None,
        secret_id: str | None = None,
        project_id: str | None = None,
    ) -> None:
        super().__init__(500, "data of this vault was changed from outside: its owner finds it in the audit log")
        self.what = what
        self.caller_id = caller_id
        self.ids = {"secret_id": secret_id, "project_id": project_id}
