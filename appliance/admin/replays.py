"""Changes that are sent again: the same `Idempotency-Key` of an account runs once.

Only in memory, and only what succeeded: what failed changed nothing and may be tried again under
the same key. A secret is never kept: its answer is given again without it.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec

from appliance.admin.errors import (
    AnswerNotKept,
    BadRequest,
    KeyOfAnotherRequest,
    body_of,
    status_of,
)
from appliance.domain.clock import Clock

KEPT_S: Final = 24 * 3_600
ANSWERS_MAX: Final = 4_096
ANSWER_BYTES_MAX: Final = 256 * 1024  # of one; a larger one is told to have been given
KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
_KEY_CHARS_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it is sent; `again` is what is sent when it is asked for once more."""

    status: int
    body: bytes
    again: bytes | None = None  # None: the same


@dataclass(frozen=True, slots=True)
class _Kept:
    digest: bytes
    at_s: float
    answer: asyncio.Future[Answered]
    done_bytes: int = 0


class Replays:
    """The answers of the last day by account and key, the oldest given up first."""

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._secret = entropy(32)  # bodies may hold secrets: what is kept of them tells nothing
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    async def once(
        self, actor: str, key: str, request: bytes, run: Callable[[], Awaitable[Answered]]
    ) -> tuple[Answered, bool]:
        """The answer to this request of this account, and whether it is given again.

        Who asks while the first still runs waits for its answer, whatever that is. Raises
        KeyOfAnotherRequest, and what `run` raises.
        """
        if not key or len(key) > _KEY_CHARS_MAX or not (key.isascii() and key.isprintable()):
            raise BadRequest(
                f"An Idempotency-Key has 1 to {_KEY_CHARS_MAX} printable ASCII characters."
            )
        self._expire()
        digest = hashlib.blake2b(request, key=self._secret, digest_size=32).digest()
        name = (actor, key)
        kept = self._kept.get(name)
        if kept is None:
            return await self._first(name, digest, run), False
        if kept.digest != digest:
            raise KeyOfAnotherRequest(
                "This Idempotency-Key was used for another request.",
                next_step="Send a new key with a new request.",
            )
        answer = await asyncio.shield(kept.answer)
        return Answered(answer.status, answer.body if answer.again is None else answer.again), True

    async def _first(
        self, name: tuple[str, str], digest: bytes, run: Callable[[], Awaitable[Answered]]
    ) -> Answered:
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting; then a failure that is only the first's is nobody's to take.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._kept[name] = _Kept(digest, self._clock.monotonic_s(), future)
        try:
            answer = await run()
        except BaseException as error:
            self._forget(name)
            future.set_exception(error if isinstance(error, Exception) else ConnectionResetError())
            raise
        future.set_result(_without_secret(answer))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            self._forget(name)
        else:
            self._keep(name, future, digest)
        return answer

    def _keep(self, name: tuple[str, str], future: asyncio.Future[Answered], digest: bytes) -> None:
        size = len(future.result().body)
        self._kept[name] = _Kept(digest, self._clock.monotonic_s(), future, size)
        self._bytes += size

    def _forget(self, name: tuple[str, str]) -> None:
        gone = self._kept.pop(name, None)
        if gone is not None:
            self._bytes -= gone.done_bytes

    def _expire(self) -> None:
        """Give up what is a day old, and the oldest of what is too much."""
        now_s = self._clock.monotonic_s()
        for name, kept in list(self._kept.items()):
            crowded = len(self._kept) >= ANSWERS_MAX or self._bytes > KEPT_BYTES_MAX
            if not crowded and now_s - kept.at_s < KEPT_S:
                return
            if kept.answer.done():  # one that runs is kept: it must not run twice
                self._forget(name)


def _without_secret(answer: Answered) -> Answered:
    """What may stay in memory: the answer as it is given again."""
    body = answer.body if answer.again is None else answer.again
    if len(body) > ANSWER_BYTES_MAX:
        told = AnswerNotKept(
            "This request was carried out; its answer was too large to be kept.",
            next_step="Read what it made.",
        )
        return Answered(status_of(told), msgspec.json.encode(body_of(told)))
    return Answered(answer.status, body)


def blanked(body: bytes, secrets: frozenset[str]) -> bytes:
    """A JSON object with these fields empty, and saying that they were shown."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in secrets & members.keys():
        members[name] = msgspec.Raw(b'""')
    members["secret_shown"] = msgspec.Raw(b"true")
    return msgspec.json.encode(members)
