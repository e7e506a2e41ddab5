"""How a figure of each row went, a minute a cell: from the appliance's past and from the stream."""

from collections.abc import Iterable, Mapping
from typing import Final

from appliance.wire.stream import HistorySeries

_MINUTE_S: Final = 60
# Of the answer of `GET /v1/history`: the ring whose step is a minute.
SPAN: Final = "24h"


class Trends:
    """The last `minutes` of each name, the one under way among them; each is a mean."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes
        self._newest = 0  # minutes since the epoch
        self._means: dict[str, dict[int, tuple[float, int]]] = {}  # minute -> mean, of how many

    def seed(self, past: Iterable[HistorySeries]) -> None:
        """What the appliance kept, in steps of a minute. What was seen since is better known."""
        for series in past:
            own = self._means.setdefault(series.of, {})
            for point in series.points:
                minute = point.at_s // _MINUTE_S
                if point.mean is not None and (minute not in own or minute < self._newest):
                    own[minute] = point.mean, 1
        self._trim()

    def note(self, at_s: float, values: Mapping[str, float | None]) -> bool:
        """Every row as it is now. Whether another minute began: then all of them moved."""
        minute = int(at_s) // _MINUTE_S
        began = minute != self._newest
        self._newest = minute
        for name, value in values.items():
            own = self._means.setdefault(name, {})
            if value is not None:
                mean, number = own.get(minute, (0.0, 0))
                own[minute] = (mean * number + value) / (number + 1), number + 1
        if began:
            for name in [each for each in self._means if each not in values]:
                del self._means[name]
            self._trim()
        return began

    def of(self, name: str) -> list[float | None]:
        """Oldest first; None: nothing was known of that minute."""
        own = self._means.get(name, {})
        first = self._newest - self.minutes + 1
        return [own[at][0] if at in own else None for at in range(first, self._newest + 1)]

    def _trim(self) -> None:
        oldest = self._newest - self.minutes
        for own in self._means.values():
            for minute in [each for each in own if each <= oldest]:
                del own[minute]
