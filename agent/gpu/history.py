"""The last hour and the last day of every GPU, for plots: small, and kept over a restart.

Each GPU has two rings of points. A point is the mean of the samples of its span, the hottest moment
and the lowest score of it: a plot that shows an hour must not hide a minute of throttling.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.wire.gpu import Gpu, GpuHistory, GpuPoint, GpuRing, GpuSeries

_NS: Final = 1_000_000_000
# Seconds of a point, and how many: an hour in steps of 10 s, a day in steps of 120 s.
RINGS: Final = ((10, 360), (120, 720))
GPUS_MAX: Final = 32  # of which points are kept, gone ones included


@dataclass(slots=True)
class _Span:
    """The samples of a point that is not over yet."""

    number: int = -1
    samples: list[Gpu] = field(default_factory=list)


class _Ring:
    __slots__ = ("_span", "points", "step_s")

    def __init__(self, step_s: int, count: int, points: Sequence[GpuPoint] = ()) -> None:
        self.step_s = step_s
        self.points: deque[GpuPoint] = deque(points, maxlen=count)
        self._span = _Span()

    def add(self, gpu: Gpu, now_ns: int) -> None:
        number = now_ns // (self.step_s * _NS)
        if number != self._span.number:
            if self._span.samples:
                self.points.append(_point(self._span.number * self.step_s, self._span.samples))
            self._span = _Span(number)
        self._span.samples.append(gpu)


class History:
    """Takes a sample of every GPU now and then; `tell` gives what a plot needs."""

    __slots__ = ("_rings",)

    def __init__(self, kept: GpuHistory | None = None) -> None:
        self._rings: dict[str, tuple[_Ring, ...]] = {}
        for series in kept.gpus if kept is not None else ():
            points = {ring.step_s: ring.points for ring in series.rings}
            self._rings[series.uuid] = tuple(
                _Ring(step_s, count, points.get(step_s, ())) for step_s, count in RINGS
            )

    def add(self, gpus: Sequence[Gpu], now_ns: int) -> None:
        for gpu in gpus:
            if gpu.uuid not in self._rings:
                if len(self._rings) >= GPUS_MAX:
                    del self._rings[next(iter(self._rings))]
                self._rings[gpu.uuid] = tuple(_Ring(step_s, count) for step_s, count in RINGS)
            for ring in self._rings[gpu.uuid]:
                ring.add(gpu, now_ns)

    def tell(self, uuid: str = "") -> GpuHistory:
        """Of one GPU, or of all."""
        return GpuHistory(
            gpus=tuple(
                GpuSeries(
                    uuid=each,
                    rings=tuple(
                        GpuRing(step_s=ring.step_s, points=tuple(ring.points)) for ring in rings
                    ),
                )
                for each, rings in self._rings.items()
                if uuid in {"", each}
            )
        )


def _point(at_s: int, samples: Sequence[Gpu]) -> GpuPoint:
    return GpuPoint(
        at_s=at_s,
        utilisation=_mean([gpu.utilisation for gpu in samples]),
        memory_used_bytes=_mean([gpu.memory_used_bytes for gpu in samples]),
        temperature=max(
            (g.temperature for g in samples if g.temperature is not None), default=None
        ),
        power=_mean([None if gpu.power is None else round(gpu.power) for gpu in samples]),
        sm_clock=_mean([gpu.sm_clock for gpu in samples]),
        score=min(gpu.score for gpu in samples),
    )


def _mean(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known)) if known else None
