"""The two ways in which the vault says no.

    Exception
    +-- VaultError   to the owner, on the terminal: a message and a hint
    +-- Refusal      to a client, over HTTP: a status and {"error": message}
        +-- Denied   a refusal of identity or rights, which is audited as auth_failure
            +-- ReadDenied    a machine's read, which is audited as secret_read_denied
            +-- SealedDenied  the vault has no root key in memory, audited as vault_sealed_refusal

Everything else is a mistake in the program: the client reads "internal error" and the owner one line of log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING: Mapping[str, Any] = {}


class VaultError(Exception):
    """An expected failure of an owner's command: what is wrong, and what mends it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Refusal(Exception):
    """A request that the vault answers with an error. The message may name a key, never a value.

    What the handler did before is undone, unless `keeps` is set: a co-sign request outlives its refusal.
    """

    keeps = False

    def __init__(
        self, status: int, message: str, *, extra: Mapping[str, object] = NOTHING, headers: Mapping[str, str] = NOTHING
    ) -> None:
        super().__init__(message)
        self.status = status
        self.extra = extra
        self.headers = headers

    def body(self) -> dict[str, object]:
        """The JSON that the client reads."""
        return {"error": str(self), **self.extra}


class Denied(Refusal):
    """A refusal because of who asks; `caller_id` is set once the identity is known. Audited outside what is undone."""

    action = "auth_failure"

    def __init__(self, status: int, message: str, caller_id: str | None = None, scope: str | None = None) -> None:
        super().__init__(status, message, extra={"requiredScopes": [scope]} if scope else NOTHING)
        self.caller_id = caller_id


class ReadDenied(Denied):
    """A machine's read that a grant, a freeze or a policy forbids: audited as secret_read_denied, with the secret."""

    def __init__(self, status: int, message: str, machine_id: str, secret_id: str, project_id: str | None) -> None:
        super().__init__(status, message, machine_id)
        self.secret_id = secret_id
        self.project_id = project_id


class SealedDenied(Denied):
    """Nobody is served while the vault is sealed."""

    action = "vault_sealed_refusal"

    def __init__(self, caller_id: str | None = None) -> None:
        super().__init__(503, "the vault is sealed", caller_id)
