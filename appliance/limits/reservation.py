"""What the gateway asks of the limits: reserve before the work, settle with the true count after.

Both results carry the figures of the `x-ratelimit-*` headers.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from appliance.domain.limits import Layer, LayerLimits


class Dimension(StrEnum):
    REQUESTS_PER_MIN = "requests_per_min"
    TOKENS_PER_MIN = "tokens_per_min"
    TOKENS_PER_DAY = "tokens_per_day"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Gauge:
    """The tightest limit of one kind, over all layers that have it."""

    limit: int
    remaining: int
    reset_s: float  # until all of `limit` is free again


@dataclass(slots=True, eq=False)
class Reservation:
    """Held budget of one request. Settled exactly once; settling again changes nothing."""

    layers: tuple[LayerLimits, ...]
    tokens: int
    made_at_s: float
    requests_gauge: Gauge | None  # None: no layer limits requests
    tokens_gauge: Gauge | None
    open: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request does not fit. Nothing is held."""

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

        A request larger than a layer's whole limit is held as exactly that limit, so it passes
        when nothing else was served in the window ("limit + one request").
        """
        ...

    def settle(self, reservation: Reservation, tokens: int, now_s: float) -> None:
        """Replace the held tokens by the true count and free the concurrency slot."""
        ...

    def release(self, reservation: Reservation, now_s: float) -> None:
        """Give everything back, the request too: nothing was served."""
        ...
