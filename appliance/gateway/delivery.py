"""What leaves for the client, and when it may."""

from collections.abc import Callable
from typing import Final

from appliance.gateway.call import Call
from appliance.gateway.errors import GatewayError
from appliance.gateway.idempotency import Kept
from appliance.gateway.stats import Stats

# Kept back until the opening is durable; more than this and the engine has to wait.
_EARLY_BYTES_MAX: Final = 64 * 1024


class Delivery:
    """The answer of one admitted request. No byte of it leaves before `allow`."""

    __slots__ = ("_allowed", "_call", "_early", "_lines", "_stats", "write")

    def __init__(self, call: Call, lines: bytes, stats: Stats) -> None:
        self._call = call
        self._lines = lines
        self._stats = stats
        self._allowed = False
        self._early: list[bytes] = []  # framed
        # For bytes of a stream, framed. This is called for every event, so it is exchanged for the
        # connection's own method as soon as there is nothing left to decide.
        self.write: Callable[[bytes], None] = self._write_first

    @property
    def streamed(self) -> bool:
        """Whether a stream has begun: its head says, or will say, 200."""
        return self._call.stream_begun or bool(self._early)

    @property
    def crowded(self) -> bool:
        """Whether so much is kept back that the engine should wait."""
        return sum(map(len, self._early)) > _EARLY_BYTES_MAX

    def allow(self) -> None:
        """The opening is durable."""
        self._allowed = True
        self._flush()

    def discard(self) -> None:
        """The opening will not be durable: what was kept back never leaves."""
        self._early.clear()

    def answer(self, kept: Kept) -> None:
        """A whole success."""
        self._call.answer(
            kept.status, kept.body, self._lines + kept.lines, content_type=kept.content_type
        )

    def end_stream(self, last: bytes) -> None:
        """The end of a stream that succeeded. `last` is not framed."""
        self._flush()
        if not self._call.stream_begun:
            self._begin(b"")
        self._call.end_stream(last)
        self._stats.streams_open -= 1

    def fail(self, error: GatewayError) -> None:
        """An error: an answer of its own, or the last event of what has begun."""
        self._flush()
        if self._call.stream_begun:
            self._stats.streams_open -= 1
        self._call.fail(error, self._lines)

    def _write_first(self, data: bytes) -> None:
        if self._allowed:
            self._begin(data)
        else:
            self._early.append(data)

    def _flush(self) -> None:
        if self._early:
            early, self._early = b"".join(self._early), []
            self._begin(early)

    def _begin(self, first: bytes) -> None:
        self._stats.streams_open += 1
        self._call.begin_stream(self._lines, first)
        self.write = self._call.connection.write
