"""The two ways in which the vault says no.

    Exception
    +-- VaultError   to the owner, on the terminal: a message and a hint
    +-- Refusal      to a client, over HTTP: a status and {"error": message}
        +-- Denied   a refusal of identity or rights, which is audited as auth_failure

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
    """A request that the vault answers with an error. The message may name a key, never a value."""

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
    """A refusal because of who asks; `agent_id` is set once the identity is known."""

    def __init__(self, status: int, message: str, agent_id: str | None = None, scope: str | None = None) -> None:
        super().__init__(status, message, extra={"requiredScopes": [scope]} if scope else NOTHING)
        self.agent_id = agent_id
