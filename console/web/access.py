"""Who may look: one-time tokens, sessions, and which requests are believed. Pure."""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

TOKEN_BYTES: Final = 32
TOKEN_S: Final = 600.0  # a token that nobody used
SESSION_IDLE_S: Final = 1_800.0
SESSIONS_MAX: Final = 8
_TRIES_MAX: Final = 10  # wrong tokens in a window
_TRIES_S: Final = 60.0
_OWN_HOST: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}", re.ASCII)

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

    def invites(self, now_s: float) -> bool:
        """Whether there is a token that somebody may still use."""
        return self._token is not None and now_s - self._token_s < TOKEN_S

    def held_off(self, now_s: float) -> bool:
        """Whether so many wrong tokens came that who brings one more is told to wait.

        The right one is taken all the same: it cannot be guessed, and else whoever guesses would
        keep everybody out.
        """
        self._wrong = [at_s for at_s in self._wrong if now_s - at_s < _TRIES_S]
        return len(self._wrong) >= _TRIES_MAX

    def enter(self, token: str, now_s: float) -> str | None:
        """A session for the token, which is used up; None: it is not the one."""
        known = self._token if self.invites(now_s) else None
        if known is None or not hmac.compare_digest(_bytes(token), _bytes(known)):
            if not self.held_off(now_s):
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
            if hmac.compare_digest(_bytes(session), _bytes(known)):
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


def _bytes(text: str) -> bytes:
    """Of what a request brought: headers that are no text come as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def place_of(session: str) -> str:
    """Where the pages of a session are, and its cookie goes. It cannot be guessed.

    A browser sends a cookie to every port of a host: what another account of this machine serves
    there would be shown it, did it not belong to one path.
    """
    return sha256(_bytes(session)).hexdigest()[:32]


def own_host(host: str | None) -> bool:
    """Whether `Host` means this machine. Another name that leads here is somebody's trick.

    The port may be any: that of `ssh -L` is the caller's.
    """
    return host is not None and _OWN_HOST.fullmatch(host) is not None


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a page of this server asks for a socket. Browsers always say which page it is."""
    return own_host(host) and origin == f"http://{host}"


def policy(host: str) -> str:
    """Content-Security-Policy: nothing from anywhere else. xterm.js makes styles of its own."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " font-src 'self'; img-src 'self' data:;"
        f" connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
