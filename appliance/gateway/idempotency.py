"""Answers kept for clients that ask again: the same key and the same request get the same answer.

Only in memory: an answer is never written to disk. Only successes are kept, so that a failure may
be tried again under the same key.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.domain.ids import KeyId
from appliance.gateway.errors import BadRequest, IdempotencyInProgress, IdempotencyMismatch

KEPT_S: Final = 24 * 3600
KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
ANSWER_BYTES_MAX: Final = 1024 * 1024
KEYS_MAX: Final = 65_536
_KEY_CHARS_MAX: Final = 255
_OVERHEAD_BYTES: Final = 512


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A success as it was answered."""

    status: int
    content_type: bytes
    body: bytes
    lines: bytes  # of the head: names the ledger record


@dataclass(slots=True)
class _Entry:
    digest: bytes
    made_at_s: float
    answer: Kept | None = None  # None: its request still runs

    @property
    def size(self) -> int:
        return _OVERHEAD_BYTES + (0 if self.answer is None else len(self.answer.body))


class Idempotency:
    """The answers of the last day, bounded: the oldest go first."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[KeyId, str], _Entry] = OrderedDict()
        self._bytes = 0

    def begin(self, owner: KeyId, key: str, path: str, body: bytes, now_s: float) -> Kept | None:
        """The answer kept for this request; None: it is the first, and `end` must follow.

        Raises IdempotencyMismatch when the key stands for another request, IdempotencyInProgress
        while the first still runs, BadRequest when the key itself is not acceptable.
        """
        if not key or len(key) > _KEY_CHARS_MAX or not key.isprintable():
            raise BadRequest(f"An Idempotency-Key has 1 to {_KEY_CHARS_MAX} printable characters.")
        self._expire(now_s)
        digest = hashlib.sha256(path.encode() + b"\0" + body).digest()
        entry = self._entries.get((owner, key))
        if entry is None:
            self._entries[owner, key] = entry = _Entry(digest, now_s)
            self._bytes += entry.size
            return None
        if entry.digest != digest:
            raise IdempotencyMismatch("This Idempotency-Key was used for another request.")
        if entry.answer is None:
            raise IdempotencyInProgress(
                "The first request with this Idempotency-Key still runs.", retry_after_s=1
            )
        return entry.answer

    def end(self, owner: KeyId, key: str, answer: Kept | None) -> None:
        """The request ended; None: with nothing worth keeping."""
        entry = self._entries[owner, key]
        self._bytes -= entry.size
        if answer is None or len(answer.body) > ANSWER_BYTES_MAX:
            del self._entries[owner, key]
            return
        entry.answer = answer
        self._bytes += entry.size

    def _expire(self, now_s: float) -> None:
        while self._entries:
            name, oldest = next(iter(self._entries.items()))
            crowded = self._bytes > KEPT_BYTES_MAX or len(self._entries) >= KEYS_MAX
            if now_s - oldest.made_at_s < KEPT_S and not crowded:
                return
            if oldest.answer is None:
                # It still runs and `end` will come for it: look at it again as if it were new.
                self._entries.move_to_end(name)
                oldest.made_at_s = now_s
                return
            self._bytes -= oldest.size
            del self._entries[name]
