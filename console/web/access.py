"""Who may look: one-time tokens, sessions, and which requests are believed. Pure."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

TOKEN_BYTES: Final = 32
TOKEN_S: Final = 600.0  # a token that nobody used
SESSION_IDLE_S: Final = 1_800.0
SESSIONS_MAX: Final = 8
_TRIES_MAX: Final = 10  # wrong tokens in a window
_TRIES_S: Final = 60.0

Entropy = Callable[[int], bytes]


class Access:
    """Tokens and sessions of one server. Seconds are monotonic."""

    __slots__ = ("_entropy", "_sessions", "_token", "_token_s", "_wrong")

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._token: str | None = None
        self._token_s = 0.0
        self._sessions: dict[str, float] = {}  # and when each was used last
        self._wrong: list[float] = []

    def new_token(self, now_s: float) -> str:
        """For one browser; the one before is worth nothing any more."""
        self._token, self._token_s = self._secret(), now_s
        return self._token

    def held_off(self, now_s: float) -> bool:
        """Whether so many wrong tokens came that none is looked at for a while."""
        self._wrong = [at_s for at_s in self._wrong if now_s - at_s < _TRIES_S]
        return len(self._wrong) >= _TRIES_MAX

    def enter(self, token: str, now_s: float) -> str | None:
        """A session for the token, which is used up; None: it is not the one."""
        known = self._token if now_s - self._token_s < TOKEN_S else None
        right = known is not None and hmac.compare_digest(token.encode(), known.encode())
        if not right or self.held_off(now_s):
            self._wrong.append(now_s)
            return None
        self._token = None
        self._forget(now_s)
        if len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[min(self._sessions, key=self._sessions.__getitem__)]
        session = self._secret()
        self._sessions[session] = now_s
        return session

    def knows(self, session: str | None, now_s: float) -> bool:
        """Whether a session is one; it is used by asking."""
        self._forget(now_s)
        if session is None:
            return False
        for known in self._sessions:
            if hmac.compare_digest(session.encode(), known.encode()):
                self._sessions[known] = now_s
                return True
        return False

    def _forget(self, now_s: float) -> None:
        self._sessions = {
            known: used_s
            for known, used_s in self._sessions.items()
            if now_s - used_s < SESSION_IDLE_S
        }

    def _secret(self) -> str:
        return urlsafe_b64encode(self._entropy(TOKEN_BYTES)).decode().rstrip("=")


def own_hosts(port: int) -> frozenset[str]:
    """What `Host` may be. Another name that leads to loopback is somebody's trick."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


def same_origin(origin: str | None, host: str | None, port: int) -> bool:
    """Whether a page of this server asks for a socket. Browsers always say which page it is."""
    return host in own_hosts(port) and origin == f"http://{host}"


def policy(host: str) -> str:
    """Content-Security-Policy: nothing from anywhere else. xterm.js makes styles of its own."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " font-src 'self'; img-src 'self' data:;"
        f" connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
