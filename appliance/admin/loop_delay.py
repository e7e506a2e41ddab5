"""How late the event loop is: every token passes through it."""

import asyncio
from collections import deque
from typing import Final

_EVERY_S: Final = 0.25
_KEPT_S: Final = 60.0


class LoopDelay:
    """Measures for as long as `run` runs, by the loop's own clock; four wake-ups a second."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=int(_KEPT_S / _EVERY_S))

    @property
    def latest_s(self) -> float | None:
        """The longest of the last minute; None: nothing was measured yet."""
        return max(self._late) if self._late else None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self._late.append(max(0.0, loop.time() - due_s))
