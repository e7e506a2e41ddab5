"""Two connections made one: what comes in at either goes out at the other, and ends with it."""

import asyncio
from collections.abc import Callable
from typing import cast


class Leg(asyncio.Protocol):
    """One end of a pump. Reads nothing until it is joined, and no faster than the other writes.

    `ended` is called once, when the connection is gone.
    """

    __slots__ = ("_ended", "_other", "transport")

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self._ended = ended
        self._other: Leg | None = None
        self.transport: asyncio.Transport | None = None

    def join(self, other: "Leg") -> None:
        """Begin to pump. Where one of the two is gone already, so is the other."""
        self._other, other._other = other, self
        for leg in (self, other):
            if leg.transport is None:
                self.abort()
                other.abort()
                return
        for leg in (self, other):
            assert leg.transport is not None  # just seen
            leg.transport.resume_reading()

    def abort(self) -> None:
        """End at once; what was not sent is lost."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """End when everything was sent."""
        if self.transport is not None:
            self.transport.close()

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        other = self._other
        if other is None or other.transport is None or other.transport.is_closing():
            return
        other.transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        other, self._other = self._other, None
        if other is not None:
            self.pass_on(other, broken=exc is not None)
        self._ended()

    def pass_on(self, other: "Leg", *, broken: bool) -> None:
        """End the other as this one ended: a broken answer must not look like a whole one."""
        if broken:
            other.abort()
        else:
            other.close()


class AskingLeg(Leg):
    """The end of who asks: when it is gone, nobody wants the answer, however it went."""

    __slots__ = ()

    def pass_on(self, other: Leg, *, broken: bool) -> None:
        del broken
        other.abort()
