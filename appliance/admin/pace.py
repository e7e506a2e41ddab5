"""How fast things go: rates and percentiles from counters read some seconds apart. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

# Rates are over the last seconds, so that they follow; percentiles over a minute.
_RATE_S: Final = 5.0
_SPAN_S: Final = 60.0
_APART_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters since the start. `first_token` are observations in each band of the histogram."""

    requests: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    first_token: tuple[int, ...] = ()


class Rates(msgspec.Struct, frozen=True):
    """None: nothing was measured for as long as that takes. Made for every tenant each second."""

    requests_per_s: float | None = None
    failures_per_min: float | None = None
    input_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    first_token_p50_ms: float | None = None
    first_token_p95_ms: float | None = None


NO_RATES: Final = Rates()
_STILL: Final = Rates(0.0, 0.0, 0.0, 0.0)
_NOTHING: Final = Counted()


_Sample = tuple[float, Mapping[str, Counted]]


class Pace:
    """What is needed of the last minute. `bounds_s` are those of the histogram's bands."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        self._now: _Sample | None = None
        self._recent: deque[_Sample] = deque()  # the first is what rates are from
        self._minute: deque[_Sample] = deque()  # some seconds apart

    def take(self, now_s: float, counted: Mapping[str, Counted]) -> None:
        """Counters by any name, read at `now_s` (monotonic)."""
        self._now = now_s, counted
        self._recent.append(self._now)
        while len(self._recent) > 1 and self._recent[1][0] <= now_s - _RATE_S:
            self._recent.popleft()
        if not self._minute or now_s - self._minute[-1][0] >= _APART_S:
            self._minute.append(self._now)
        while len(self._minute) > 1 and self._minute[1][0] <= now_s - _SPAN_S:
            self._minute.popleft()

    def of(self, name: str, *, percentiles: bool = True) -> Rates:
        """Whoever was not counted before began at zero. Percentiles are the dearer part."""
        if self._now is None:
            return NO_RATES
        now_s, newest = self._now
        then_s, before = self._recent[0]
        first_s, first = self._minute[0]
        past_s, minute_s = now_s - then_s, now_s - first_s
        if past_s <= 0:
            return NO_RATES
        new, begun = newest.get(name, _NOTHING), first.get(name, _NOTHING)
        if new is begun:  # most of a large site's tenants, most of the time
            return _STILL
        old = before.get(name, _NOTHING)
        p50_ms = p95_ms = None
        if percentiles and new.first_token != begun.first_token:
            bands = _less(new.first_token, begun.first_token)
            p50_ms, p95_ms = self._percentile_ms(bands, 0.5), self._percentile_ms(bands, 0.95)
        failed = new.failures - begun.failures
        return Rates(
            requests_per_s=_per(new.requests - old.requests, past_s),
            failures_per_min=_per(failed * 60, max(minute_s, _SPAN_S)),
            input_tokens_per_s=_per(new.input_tokens - old.input_tokens, past_s),
            output_tokens_per_s=_per(new.output_tokens - old.output_tokens, past_s),
            first_token_p50_ms=p50_ms,
            first_token_p95_ms=p95_ms,
        )

    def _percentile_ms(self, bands: Sequence[int], share: float) -> float | None:
        """Inside its band in proportion; None where nothing was observed."""
        total = sum(bands)
        if not total:
            return None
        wanted, below, low_s = share * total, 0, 0.0
        for number, high_s in zip(bands, self._bounds_s, strict=False):
            if below + number >= wanted:
                return round((low_s + (wanted - below) / number * (high_s - low_s)) * 1000, 1)
            below, low_s = below + number, high_s
        return round(self._bounds_s[-1] * 1000, 1)


def _less(new: Sequence[int], old: Sequence[int]) -> list[int]:
    if not old:
        return list(new)
    return [max(0, high - low) for high, low in zip(new, old, strict=False)]


def _per(amount: float, seconds: float) -> float:
    return round(max(0.0, amount) / seconds, 1)
