"""Reads this machine's own figures now and then, and never waits for its disk."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from agent.gpu.faults import Condition
from agent.host_faults import disk_hung, host_conditions
from agent.host_figures import HostFigures
from appliance.domain.clock import Clock

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
HUNG_S: Final = 15.0  # a reading that is not there by then waits for the disk


class ReadsHost(Protocol):
    def read(self, now_s: float) -> HostFigures: ...


class HostWatch:
    """`run` reads until it is cancelled; `conditions` answers from memory."""

    def __init__(self, reader: ReadsHost, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._raised: frozenset[str] = frozenset()
        self._found: tuple[Condition, ...] = ()
        self._asked_s: float | None = None  # since when a reading is under way

    def conditions(self) -> Sequence[Condition]:
        asked_s = self._asked_s
        if asked_s is None or (silent_s := self._clock.monotonic_s() - asked_s) < HUNG_S:
            return self._found
        return (*self._found, disk_hung(silent_s))

    def raised(self, codes: frozenset[str]) -> None:
        """What counts as a fault by now, and ends only when it is clearly better."""
        self._raised = codes

    async def run(self) -> None:
        while True:
            await self._read()
            await asyncio.sleep(EVERY_S)

    async def _read(self) -> None:
        """In a thread of its own, one at a time: a disk that hangs holds nothing else up."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[HostFigures | None] = loop.create_future()
        self._asked_s = now_s = self._clock.monotonic_s()

        def settle(figures: HostFigures | None) -> None:
            if not done.done():
                done.set_result(figures)

        def read() -> None:
            figures: HostFigures | None = None
            try:
                figures = self._reader.read(now_s)
            except OSError as error:
                log.warning("host cannot be read", extra={"why": str(error)})
            with contextlib.suppress(RuntimeError):  # the agent has ended meanwhile
                loop.call_soon_threadsafe(settle, figures)

        threading.Thread(target=read, name="host figures", daemon=True).start()
        figures = await done
        self._asked_s = None
        if figures is not None:
            self._found = tuple(host_conditions(figures, self._raised))
