"""Figures of the past in rings: an hour of 10 s, a day of minutes, 30 days of hours. Pure."""

from array import array
from collections.abc import Mapping
from math import nan
from typing import Final, Literal

import msgspec

from appliance.wire.stream import HistoryPoint, HistorySeries

Span = Literal["1h", "24h", "30d"]

# Step in seconds and how many, finest first.
RINGS: Final[Mapping[Span, tuple[int, int]]] = {
    "1h": (10, 360),
    "24h": (60, 1_440),
    "30d": (3_600, 720),
}
POINTS_MAX: Final = max(count for _, count in RINGS.values())
# Series of whoever was not heard of for longer are forgotten first where there are too many.
SERIES_MAX: Final = 2_000  # about 20 KiB each
UNITS: Final[Mapping[str, str]] = {
    "output_tokens_per_s": "tokens/s",
    "input_tokens_per_s": "tokens/s",
    "requests_per_s": "requests/s",
    "running": "requests",
    "queued": "requests",
    "first_token_p95_ms": "ms",
    "failures_per_min": "failures/min",
    "utilisation": "%",
    "temperature": "°C",
}

Name = tuple[str, str, str]  # series, what it is of (site, deployment, tenant, node), and its name


class SavedRing(msgspec.Struct, frozen=True, array_like=True):
    """A ring as it is written down: 32-bit floats in the machine's order, NaN for gaps."""

    newest: int
    means: bytes
    peaks: bytes


class _Ring:
    """A slot for each step of time, the oldest overwritten. 8 bytes a slot, whatever is known."""

    __slots__ = ("_count", "_means", "_newest", "_number", "_peaks", "step_s")

    def __init__(self, step_s: int, count: int) -> None:
        self.step_s = step_s
        self._count = count
        self._means = array("f", [nan]) * count
        self._peaks = array("f", [nan]) * count
        self._newest = 0  # slots since the epoch
        self._number = 0  # samples in the newest

    def add(self, at_s: int, value: float | None) -> None:
        slot = at_s // self.step_s
        if slot > self._newest or slot < self._newest - self._count:
            # Also where the clock was set back beyond all that is known: that is a new beginning.
            for passed in range(max(self._newest + 1, slot - self._count + 1), slot + 1):
                self._means[passed % self._count] = self._peaks[passed % self._count] = nan
            if slot < self._newest:
                self._means = array("f", [nan]) * self._count
                self._peaks = array("f", [nan]) * self._count
            self._newest, self._number = slot, 0
        if value is None or slot < self._newest:
            return
        at, number = slot % self._count, self._number
        before = self._means[at] if number else 0.0
        self._means[at] = (before * number + value) / (number + 1)
        self._peaks[at] = value if not number else max(self._peaks[at], value)
        self._number = number + 1

    def points(self, now_s: int, newest: int) -> list[HistoryPoint]:
        """Oldest first, of the time this ring spans, or only of so many of the newest steps;
        spans without a sample are left out."""
        first = max(now_s // self.step_s, self._newest) - min(self._count, newest) + 1
        found = []
        for slot in range(first, self._newest + 1):
            mean = self._means[slot % self._count]
            if mean == mean:  # noqa: PLR0124 (NaN is the one value that is not itself)
                peak = self._peaks[slot % self._count]
                point = HistoryPoint(
                    at_s=slot * self.step_s, mean=round(mean, 2), largest=round(peak, 2)
                )
                found.append(point)
        return found

    def saved(self) -> SavedRing:
        return SavedRing(self._newest, self._means.tobytes(), self._peaks.tobytes())

    def restore(self, saved: SavedRing) -> None:
        """What has another length is of another version, and left out."""
        means, peaks = array("f"), array("f")
        means.frombytes(saved.means[: len(saved.means) // 4 * 4])
        peaks.frombytes(saved.peaks[: len(saved.peaks) // 4 * 4])
        if len(means) == len(peaks) == self._count and saved.newest >= 0:
            self._means, self._peaks, self._newest = means, peaks, saved.newest


class History:
    """Samples in, series out. Times are seconds on the wall clock."""

    def __init__(self) -> None:
        self._series: dict[Name, dict[Span, _Ring]] = {}
        self._heard_s: dict[Name, int] = {}

    def take(self, at_s: int, values: Mapping[Name, float | None]) -> None:
        """One look. What is not named in it has a gap."""
        for name, value in values.items():
            rings = self._series.get(name)
            if rings is None:
                if value is None:
                    continue
                self._make_room()
                rings = self._series[name] = _rings()
            self._heard_s[name] = at_s
            for ring in rings.values():
                ring.add(at_s, value)

    def series(
        self, series: str, of: str, span: Span, now_s: int, newest: int = POINTS_MAX
    ) -> list[HistorySeries]:
        """`series` "" for all; `of` is "" for the site, `deployment/NAME`, `tenant/ID`,
        `node/NAME`, or a kind alone for everything of it."""
        kind, _, name = of.partition("/")
        kind = kind or "site"
        found = []
        for (each, each_kind, each_name), rings in sorted(self._series.items()):
            if series not in ("", each) or each_kind != kind or name not in ("", each_name):
                continue
            points = rings[span].points(now_s, newest)
            if points:
                found.append(
                    HistorySeries(
                        series=each,
                        of=each_name,
                        unit=UNITS.get(each, ""),
                        step_s=rings[span].step_s,
                        points=points,
                    )
                )
        return found

    def saved(self) -> dict[str, dict[Span, SavedRing]]:
        """Everything, to be written down."""
        return {
            "\0".join(name): {span: ring.saved() for span, ring in rings.items()}
            for name, rings in self._series.items()
        }

    def restore(self, saved: Mapping[str, Mapping[Span, SavedRing]]) -> None:
        """What was saved before a restart; what does not fit is left out."""
        for text, rings in list(saved.items())[:SERIES_MAX]:
            parts = text.split("\0")
            if len(parts) != 3:
                continue
            fresh = self._series[parts[0], parts[1], parts[2]] = _rings()
            for span, ring in fresh.items():
                if span in rings:
                    ring.restore(rings[span])

    def _make_room(self) -> None:
        while len(self._series) >= SERIES_MAX:
            oldest = min(self._series, key=lambda name: self._heard_s.get(name, 0))
            del self._series[oldest]
            self._heard_s.pop(oldest, None)


def _rings() -> dict[Span, _Ring]:
    return {span: _Ring(step_s, count) for span, (step_s, count) in RINGS.items()}
