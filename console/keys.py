"""Keys and pastes one after the other: each is carried out before the next is looked at.

Textual gives a key to the widget that has the keyboard when the key arrives, and carries it out
later. Keys that arrive together, as over a slow line or in a macro, would so all go to the first
widget: `:` and then `quit` would be four keys of a table. Here the next key waits until the one
before it went its way, from the widget up to the app.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from textual import events
from textual.message_pump import MessagePump

Typed = events.Key | events.Paste

_WAITING_MAX: Final = 4_096
_LONGEST_S: Final = 2.0


class KeyOrder:
    """`deliver` gives a key to the app; `way` names who may handle a key now, the app last."""

    def __init__(
        self,
        deliver: Callable[[Typed], Awaitable[None]],
        way: Callable[[], Sequence[MessagePump]],
        now_s: Callable[[], float],
    ) -> None:
        self._deliver = deliver
        self._way = way
        self._now_s = now_s
        self._waiting: deque[Typed] = deque(maxlen=_WAITING_MAX)
        self._since_s: float | None = None  # a key is on its way since then
        self._turn = 0

    async def take(self, key: Typed) -> None:
        """A key or a paste from the terminal."""
        self._waiting.append(key)
        late = self._since_s is not None and self._now_s() - self._since_s > _LONGEST_S
        if self._since_s is None or late:  # a widget that is stuck holds nobody up for long
            await self._next()

    async def _next(self) -> None:
        self._turn += 1
        if not self._waiting:
            self._since_s = None
            return
        self._since_s = self._now_s()
        way = list(self._way())
        await self._deliver(self._waiting.popleft())
        self._follow(way, self._turn)

    def _follow(self, way: list[MessagePump], turn: int) -> None:
        """Behind the key, in the queue of each who may see it; a pump that is gone is passed."""
        while way:
            pump, *way = way
            behind = events.Callback(callback=lambda rest=way: self._passed(rest, turn))
            if pump.post_message(behind):
                return

    async def _passed(self, rest: list[MessagePump], turn: int) -> None:
        if turn != self._turn:
            return
        if rest:
            self._follow(rest, turn)
        else:
            await self._next()
