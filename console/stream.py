"""The subscription to the live stream: one connection, of the topics that are looked at now."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from appliance.wire.stream import Tick, Topic
from console.client import AdminError, Query

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0
# The stream is given up when it is silent for so many of its intervals.
_SILENT_INTERVALS: Final = 5


class Reader(Protocol):
    """What the feed needs of the client."""

    def lines(
        self, path: str, query: Query | None, *, headers: dict[str, str], silence_s: float
    ) -> AsyncGenerator[bytes, None]: ...


@dataclass(slots=True)
class SseEvent:
    """One server-sent event (WHATWG HTML, "Server-sent events"), of the fields that are used."""

    id: str = ""
    data: bytes = b""
    retry_ms: int | None = None


@dataclass(slots=True)
class SseReader:
    """Lines in, events out."""

    _id: str = ""
    _data: list[bytes] = field(default_factory=list)
    _retry_ms: int | None = None

    def take(self, line: bytes) -> SseEvent | None:
        line = line.removesuffix(b"\r")
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
            elif name == b"id":
                self._id = value.decode("latin-1")
            elif name == b"retry" and value.isdigit():
                self._retry_ms = int(value)
            return None
        if not self._data:
            return None
        event = SseEvent(self._id, b"\n".join(self._data), self._retry_ms)
        self._data = []
        return event


class Feed:
    """Keeps the subscription going: resumes where it broke off, waits longer each time it fails.

    `on_tick` gets each Tick with the topics it was subscribed to; `on_begin` is told that a
    connection stands, `on_loss` why there is none.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        every_s: float,
        on_begin: Callable[[frozenset[Topic]], None],
        on_tick: Callable[[Tick], None],
        on_loss: Callable[[AdminError], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reader = reader
        self._every_s = every_s
        self._on_begin = on_begin
        self._on_tick = on_tick
        self._on_loss = on_loss
        self._chance = chance
        self._wanted: frozenset[Topic] = frozenset()
        self._changed = asyncio.Event()
        self._last_id = ""
        self._held: frozenset[Topic] = frozenset()  # what `_last_id` is good for

    def want(self, topics: frozenset[Topic]) -> None:
        """Subscribe to these from now on; none: be silent."""
        if topics != self._wanted:
            self._wanted = topics
            self._changed.set()

    def again(self) -> None:
        """Ask at once, for whoever does not want to wait for the next attempt."""
        self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            topics = self._wanted
            if not topics:
                await self._changed.wait()
                continue
            reading = asyncio.ensure_future(self._read(topics))
            changing = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    continue
                failures = 1 if reading.result() else failures + 1
                longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (failures - 1))
                wait_s = longest * (0.5 + self._chance() / 2)
                await asyncio.wait((changing,), timeout=wait_s)
            finally:
                for task in (reading, changing):
                    task.cancel()
                await asyncio.gather(reading, changing, return_exceptions=True)

    async def _read(self, topics: frozenset[Topic]) -> bool:
        """One connection, to its end. Whether anything came."""
        came = False
        headers = {"Accept": "text/event-stream"}
        if self._last_id and topics <= self._held:
            headers["Last-Event-ID"] = self._last_id
        query: Query = {"topics": ",".join(sorted(topics)), "every_s": self._every_s}
        events = SseReader()
        try:
            lines = self._reader.lines(
                "/v1/stream",
                query,
                headers=headers,
                silence_s=max(10.0, _SILENT_INTERVALS * self._every_s),
            )
            async with aclosing(lines):
                async for line in lines:
                    event = events.take(line)
                    if event is None:
                        continue
                    tick = msgspec.json.decode(event.data, type=Tick)
                    if not came:
                        came = True
                        self._on_begin(topics)
                    self._last_id, self._held = event.id, topics
                    self._on_tick(tick)
            self._on_loss(AdminError("broken_off", "The appliance ended the live stream."))
        except AdminError as error:
            self._on_loss(error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._last_id = ""
            self._on_loss(AdminError("bad_answer", f"The live stream is not understood: {error}."))
        return came
