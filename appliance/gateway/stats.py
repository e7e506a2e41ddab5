"""Plain counters of what the gateway did since it started, for the metrics page."""

from bisect import bisect_left
from collections import Counter
from typing import Final

from appliance.domain.usage import Operation, Status, TokenCount

SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip


class Histogram:
    """How often a duration fell below each bound."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...] = SECONDS) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)  # of each band; the last has no upper bound
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> tuple[int, ...]:
        """Observations not above each bound; the last is all of them."""
        total = 0
        sums = []
        for count in self.counts:
            total += count
            sums.append(total)
        return tuple(sums)


class Stats:
    """Written by the gateway on the event loop, read by whoever shows them."""

    __slots__ = (
        "cached_tokens",
        "connections_open",
        "connections_refused",
        "first_token",
        "input_tokens",
        "latency",
        "output_tokens",
        "refusals",
        "replays",
        "requests",
        "retries",
        "streams_open",
    )

    def __init__(self) -> None:
        self.requests: Counter[tuple[Operation, str, Status]] = Counter()  # with the model's name
        self.refusals: Counter[str] = Counter()  # never admitted, by error code
        self.retries = 0
        self.replays = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.connections_open = 0
        self.connections_refused = 0
        self.streams_open = 0
        self.first_token = Histogram()
        self.latency = Histogram()

    def settled(
        self,
        operation: Operation,
        model: str,
        status: Status,
        tokens: TokenCount,
        latency_s: float,
    ) -> None:
        self.requests[operation, model, status] += 1
        self.input_tokens += tokens.input
        self.output_tokens += tokens.output
        self.cached_tokens += tokens.cached
        self.latency.observe(latency_s)
