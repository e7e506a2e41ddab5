"""What the gateway asks of the limits: reserve before the work, settle with the true count after.

Both results carry the figures of the `x-ratelimit-*` headers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from appliance.domain.limits import Layer, LayerLimits


class Dimension(StrEnum):
    REQUESTS_PER_MIN = "requests_per_min"
    TOKENS_PER_MIN = "tokens_per_min"
    TOKENS_PER_DAY = "tokens_per_day"
    CONCURRENCY = "concurrency"


@dataclass(slots=True)  # two for each request: a frozen one takes three times as long to make
class Gauge:
    """The tightest limit of one kind, over all layers that have it. Never changed once made."""

    limit: int
    remaining: int
    reset_s: float  # until all of `limit` is free again


@dataclass(slots=True, eq=False)
class Reservation:
    """Held budget of one request. Settled exactly once; settling again changes nothing.

    It ends in `settle` or `release`; whichever comes first counts. `open` tells whether it still
    holds anything.
    """

    layers: tuple[LayerLimits, ...]
    tokens: int  # held in each layer: what was asked for, at least 1
    made_at_s: float
    requests_gauge: Gauge | None  # None: no layer limits requests
    tokens_gauge: Gauge | None
    open: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request does not fit. Nothing is held.

    When several limits refuse, this is the one that will refuse the longest. TOKENS_PER_DAY is a
    used-up quota: asking again soon is useless. `retry_after_s` is exact where only counted usage
    stands in the way; where running requests do, it is a forecast from how long requests of
    this scope have run and how much of their reservation they used.
    """

    layer: Layer
    dimension: Dimension
    limit: int
    retry_after_s: float  # when the same request would fit, if nothing else comes
    requests_gauge: Gauge | None
    tokens_gauge: Gauge | None


class LimitStore(Protocol):
    """Counters of all scopes. In memory here; a Redis twin hands out leases later.

    All times are seconds of one monotonic clock, given by the caller.
    """

    def reserve(
        self, layers: tuple[LayerLimits, ...], tokens: int, now_s: float
    ) -> Reservation | Refusal:
        """Hold one request, one concurrency slot and `tokens` in every layer, or nothing at all.

        A request larger than a layer's whole limit passes when nothing else is counted there
        ("limit + one request"); a limit of 0 lets nothing pass. A limit that changed counts from
        this call on, with all that was counted before.
        """
        ...

    def settle(self, reservation: Reservation, tokens: int, now_s: float) -> None:
        """Replace the held tokens by the true count and free the concurrency slot.

        The count may exceed what was held; then the window goes over its limit, and nothing more
        passes until it is back under it.
        """
        ...

    def release(self, reservation: Reservation, now_s: float) -> None:
        """Give everything back, the request too: nothing was served."""
        ...

    def count(self, layers: tuple[LayerLimits, ...], tokens: int, now_s: float) -> None:
        """Count a request that was not held in these layers. It is over, and is not refused."""
        ...

    def gauges(self, layer: LayerLimits, now_s: float) -> Mapping[Dimension, Gauge]:
        """What is left of each limit that the layer sets, for its owner to see."""
        ...
