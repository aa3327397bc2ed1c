"""One-time links and sessions. Both are kept in memory only, so a restart of the server ends them.

A link is minted over the control socket, so only the user who runs the vault gets one. It opens one session, once.
Tokens have 256 random bits, and only their hashes are kept.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any

from vault.router import Clock

LINK_LIFE_MS = 5 * 60 * 1000
IDLE_MS = 30 * 60 * 1000
LIFE_MS = 12 * 3600 * 1000
MAX_LINKS = 20  # beyond that, the oldest is dropped
MAX_SESSIONS = 20
MAX_STEP_BACK_MS = 60_000  # a clock that is set back by less is only corrected
MAX_WRONG, WRONG_WINDOW_MS = 5, 15 * 60 * 1000  # wrong confirmations, in all sessions together


@dataclass
class Session:
    """A signed-in browser. `csrf` is in every form of its pages. `messages` are shown on the next page."""

    csrf: str
    started_ms: int
    seen_ms: int
    messages: list[str] = field(default_factory=list)
    _kept: dict[str, tuple[int, Any]] = field(default_factory=dict, repr=False)

    def keep(self, name: str, thing: Any, until_ms: int) -> None:
        """Keep something under a name for a later request of this session, in memory only. Replaces an earlier one."""
        self._kept[name] = (until_ms, thing)

    def kept(self, name: str, now_ms: int) -> Any:
        """What is kept under a name, or None."""
        self.drop_old(now_ms)
        return self._kept.get(name, (0, None))[1]

    def take(self, name: str, now_ms: int) -> Any:
        """What is kept under a name, which is then forgotten. Of two concurrent requests, one gets it."""
        self.drop_old(now_ms)
        return self._kept.pop(name, (0, None))[1]

    def drop_old(self, now_ms: int) -> None:
        """Forget what was kept for long enough."""
        for name in [name for name, (until_ms, _) in list(self._kept.items()) if now_ms >= until_ms]:
            self._kept.pop(name, None)

    def has_ended(self, now_ms: int) -> bool:
        """Whether it was idle for too long, or is too old."""
        return not (_is_younger(self.seen_ms, IDLE_MS, now_ms) and _is_younger(self.started_ms, LIFE_MS, now_ms))


class Sessions:
    """All links and sessions of a server. Its methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._links: dict[str, int] = {}  # hash of the token -> when it was minted
        self._sessions: dict[str, Session] = {}  # hash of the cookie -> session
        self._wrong_ms: list[int] = []  # when a confirmation was wrong

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
            if minted_ms is None or not _is_younger(minted_ms, LINK_LIFE_MS, now_ms):
                return None
            cookie = secrets.token_urlsafe(32)
            _drop_oldest(self._sessions, MAX_SESSIONS)
            self._sessions[_hash(cookie)] = Session(secrets.token_urlsafe(32), now_ms, now_ms)
            return cookie

    def find(self, cookie: str, *, by_person: bool = True) -> Session | None:
        """The session of a cookie. A request that no person caused, as for a live update, does not keep it alive."""
        now_ms = self._clock()
        with self._lock:
            self._drop_ended(now_ms)
            session = self._sessions.get(_hash(cookie))
            if session is None:
                return None
            if by_person:
                session.seen_ms = now_ms
            return session

    def end(self, cookie: str) -> None:
        """End one session."""
        with self._lock:
            self._sessions.pop(_hash(cookie), None)

    def wait_ms(self) -> int:
        """How long nobody may confirm anything, because of too many wrong confirmations; 0 if somebody may."""
        now_ms = self._clock()
        with self._lock:
            self._wrong_ms = [at_ms for at_ms in self._wrong_ms if _is_younger(at_ms, WRONG_WINDOW_MS, now_ms)]
            if len(self._wrong_ms) < MAX_WRONG:
                return 0
            return self._wrong_ms[-MAX_WRONG] + WRONG_WINDOW_MS - now_ms

    def count_wrong(self) -> None:
        """Count a wrong confirmation."""
        with self._lock:
            self._wrong_ms.append(self._clock())

    def forget_kept(self) -> None:
        """Forget what every session keeps, because the vault is sealed: values are among it."""
        with self._lock:
            for session in self._sessions.values():
                session._kept.clear()

    def _drop_ended(self, now_ms: int) -> None:
        """Drop every session that has ended, with what it kept."""
        for key, session in list(self._sessions.items()):
            session.drop_old(now_ms)
            if session.has_ended(now_ms):
                del self._sessions[key]


def _is_younger(since_ms: int, age_ms: int, now_ms: int) -> bool:
    """Whether something is younger than an age. Not if the clock was set back since: it would stay young for long."""
    return -MAX_STEP_BACK_MS < now_ms - since_ms < age_ms


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _drop_oldest(kept: dict[str, int] | dict[str, Session], most: int) -> None:
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
