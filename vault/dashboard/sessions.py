"""One-time links and sessions. Both are kept in memory only, so a restart of the server ends them.

A link is minted over the control socket, so only the user who runs the vault gets one. It opens one session, once.
Tokens have 256 random bits, and only their hashes are kept.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass, field

from vault.router import Clock

LINK_LIFE_MS = 5 * 60 * 1000
IDLE_MS = 30 * 60 * 1000
LIFE_MS = 12 * 3600 * 1000
MAX_LINKS = 20  # more are of no use, and the oldest is dropped
MAX_SESSIONS = 20


@dataclass
class Session:
    """A signed-in browser. `csrf` is in every form of its pages. `messages` are shown on the next page."""

    csrf: str
    started_ms: int
    seen_ms: int
    messages: list[str] = field(default_factory=list)

    def has_ended(self, now_ms: int) -> bool:
        """Whether it was idle for too long, or is too old."""
        return now_ms - self.seen_ms >= IDLE_MS or now_ms - self.started_ms >= LIFE_MS


class Sessions:
    """All links and sessions of a server. Its methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._links: dict[str, int] = {}  # hash of the token -> when it was minted
        self._sessions: dict[str, Session] = {}  # hash of the cookie -> session

    def mint_link(self) -> str:
        """The token of a new link."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            _drop_oldest(self._links, MAX_LINKS)
            self._links[_hash(token)] = self._clock()
        return token

    def sign_in(self, token: str) -> str | None:
        """The cookie of a new session, or None if the link is unknown, used or too old."""
        now_ms = self._clock()
        with self._lock:
            minted_ms = self._links.pop(_hash(token), None)
            if minted_ms is None or now_ms - minted_ms >= LINK_LIFE_MS:
                return None
            cookie = secrets.token_urlsafe(32)
            _drop_oldest(self._sessions, MAX_SESSIONS)
            self._sessions[_hash(cookie)] = Session(secrets.token_urlsafe(32), now_ms, now_ms)
            return cookie

    def find(self, cookie: str, *, by_person: bool = True) -> Session | None:
        """The session of a cookie. A request that no person caused, as for a live update, does not keep it alive."""
        now_ms = self._clock()
        with self._lock:
            session = self._sessions.get(_hash(cookie))
            if session is None or session.has_ended(now_ms):
                self._sessions.pop(_hash(cookie), None)
                return None
            if by_person:
                session.seen_ms = now_ms
            return session

    def end(self, cookie: str) -> None:
        """End one session."""
        with self._lock:
            self._sessions.pop(_hash(cookie), None)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _drop_oldest(kept: dict[str, int] | dict[str, Session], most: int) -> None:
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
