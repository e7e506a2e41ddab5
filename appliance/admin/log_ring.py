"""The last lines of the appliance's own log, kept in memory for whoever asks.

What is kept is what is written to standard error, the same line: no prompt, completion, key or
secret is in it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.wire.log_lines import LOG_LEVELS, LogLevel, LogLine
from appliance.wire.logs import JsonLines

LINES_MAX: Final = 10_000
BYTES_MAX: Final = 8 * 1024 * 1024
_LINE_BYTES_MAX: Final = 64 * 1024  # a traceback may be long
_WAKE_S: Final = 15.0  # an empty line tells that the reader is still there
_PAGE: Final = 500  # lines

_DECODE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Kept:
    """A line as it was written; `wall_s` for `since`."""

    seq: int
    wall_s: float
    level: int  # of `logging`
    line: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for. `contains` is looked for in the whole line, in any case."""

    after: int = 0
    since_s: float = 0.0
    level: LogLevel = "debug"
    contains: str = ""
    lines: int | None = None  # at most so many of the last

    def fits(self, kept: Kept) -> bool:
        return (
            kept.seq > self.after
            and kept.wall_s >= self.since_s
            and kept.level >= number_of(self.level)
            and (not self.contains or self.contains.casefold() in kept.line.casefold())
        )


class LogRing(logging.Handler):
    """Attach it to the root logger. Lines come from any thread, readers live on one loop."""

    def __init__(self, *, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX) -> None:
        super().__init__()
        assert self.lock is not None  # made by the line above
        self._guard = self.lock
        self.setFormatter(JsonLines())
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._kept: deque[Kept] = deque()
        self._bytes = 0
        self._seq = 0
        self._readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging` under this handler's lock."""
        try:
            line = self.format(record)
        # logging's own rule: what cannot be formatted must not end the program that logs it.
        except Exception:  # noqa: BLE001
            self.handleError(record)
            return
        self._seq += 1
        self._kept.append(Kept(self._seq, record.created, record.levelno, line))
        self._bytes += len(line)
        while len(self._kept) > self._lines_max or self._bytes > self._bytes_max:
            self._bytes -= len(self._kept.popleft().line)
        for event, loop in list(self._readers.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def lines(self, wanted: Wanted) -> list[LogLine]:
        """What is there now, oldest first."""
        with self._guard:
            found = [kept for kept in self._kept if wanted.fits(kept)]
        if wanted.lines is not None:
            found = found[max(0, len(found) - wanted.lines) :]
        return [parsed(kept) for kept in found]

    async def follow(self, wanted: Wanted) -> AsyncIterator[LogLine | None]:
        """What is there, then what comes. None now and then, when nothing does."""
        event = asyncio.Event()
        self._readers[event] = asyncio.get_running_loop()
        try:
            last = self._seq
            for line in await asyncio.to_thread(self.lines, wanted):
                yield line
                last = max(last, line.seq)
            while True:
                event.clear()
                page, missed = self._after(last)
                for kept in page:
                    last = kept.seq
                    if wanted.fits(kept):
                        yield msgspec.structs.replace(parsed(kept), missed=missed)
                        missed = 0
                if page:
                    continue
                try:
                    async with asyncio.timeout(_WAKE_S):
                        await event.wait()
                except TimeoutError:
                    yield None
        finally:
            del self._readers[event]

    def _after(self, seq: int) -> tuple[list[Kept], int]:
        """The next lines, and how many before them are forgotten."""
        with self._guard:
            if not self._kept or self._kept[-1].seq <= seq:
                return [], 0
            first = self._kept[0].seq
            skipped = max(0, seq + 1 - first)
            page = [self._kept[n] for n in range(skipped, min(len(self._kept), skipped + _PAGE))]
        return page, max(0, first - seq - 1)


def number_of(level: LogLevel) -> int:
    """10 for debug, as `logging` has it."""
    return (LOG_LEVELS.index(level) + 1) * 10


def parsed(kept: Kept) -> LogLine:
    """The line taken apart; one that is too long loses what was told with it."""
    fields = _DECODE.decode(kept.line)
    at, level, logger, event = (
        _TEXT.decode(fields.pop(name)) for name in ("at", "level", "logger", "event")
    )
    if len(kept.line) > _LINE_BYTES_MAX:
        fields = {"cut": msgspec.Raw(msgspec.json.encode(f"{len(kept.line)} bytes"))}
        event = event[:1_000]
    return LogLine(
        seq=kept.seq,
        at=at,
        level=level if level in LOG_LEVELS else "info",
        logger=logger,
        event=event,
        fields=fields,
    )
