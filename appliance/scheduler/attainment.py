"""What became of a promise: promised, offered and delivered tokens, minute by minute. Pure.

Offered is what was delivered, what was refused, and what waited too long at the minute's end: a
tenant that asks for less than was promised is owed no more than it asked for. Attained is what was
delivered of the lesser of promised and offered.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.scheduler.lanes import LaneView

MINUTES_KEPT: Final = 60
SLIPPED_PERCENT: Final = 95.0
_SLIPS: Final = 2  # minutes in a row; one alone is a wave
_MINUTE_NS: Final = 60_000_000_000
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Minute:
    """Tokens of one minute, or of the part of it in which the promise held."""

    start_ns: int  # wall clock
    promised: int
    offered: int
    delivered: int

    @property
    def attained_percent(self) -> float | None:
        """None: nothing was asked for."""
        owed = min(self.promised, self.offered)
        return None if owed <= 0 else min(100.0, 100.0 * self.delivered / owed)


class Attainment:
    """The minutes of one reservation since it is watched."""

    __slots__ = (
        "_begun",
        "_counted",
        "_delivered",
        "_last_ns",
        "_minutes",
        "_promised",
        "_refused",
        "_turned_away",
        "now",
    )

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=MINUTES_KEPT)
        self._begun = 0  # of the present minute
        self._last_ns: int | None = None
        self._promised = 0.0
        self._delivered = 0
        self._refused = 0.0
        self._counted = 0  # delivered and refused, as the lane told them last
        self._turned_away = 0.0
        self.now: Minute | None = None  # the present minute, as far as it has come

    def look(self, view: LaneView, flying: int, now_ns: int) -> None:
        """Take in a lane as it is. `flying` are tokens its requests at work have made so far."""
        delivered = view.delivered + flying
        if view.delivered < self._counted or view.refused < self._turned_away:
            # The lane was made anew: it counts from 0, and the minute goes on.
            self._delivered -= self._counted
            self._refused -= self._turned_away
        self._counted, self._turned_away = view.delivered, view.refused
        if self._last_ns is None or not 0 <= now_ns - self._last_ns <= 2 * _MINUTE_NS:
            self._begin(view, delivered, now_ns)  # the first look, or the clock was set
        else:
            self._promised += view.spec.tokens_per_s * (now_ns - self._last_ns) / _NS
        self._last_ns = now_ns
        came = max(0, delivered - self._delivered)
        late = view.late_tokens + view.refused - self._refused
        self.now = Minute(
            self._begun // _MINUTE_NS * _MINUTE_NS,
            round(self._promised),
            came + round(late),
            came,
        )
        if now_ns // _MINUTE_NS > self._begun // _MINUTE_NS:
            self._minutes.append(self.now)
            self._begin(view, delivered, now_ns)

    @property
    def minutes(self) -> Sequence[Minute]:
        """Those that are over, the oldest first."""
        return tuple(self._minutes)

    @property
    def slipping(self) -> bool:
        """Whether less than was owed was delivered in each of the last minutes."""
        last = list(self._minutes)[-_SLIPS:]
        percents = [minute.attained_percent for minute in last]
        return len(last) == _SLIPS and all(
            percent is not None and percent < SLIPPED_PERCENT for percent in percents
        )

    def _begin(self, view: LaneView, delivered: int, now_ns: int) -> None:
        self._begun = now_ns
        self._promised = 0.0
        self._delivered = delivered
        self._refused = view.refused
