"""What a load measurement of an endpoint says: pure, from the samples of its requests."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Sample:
    """One streamed request. Times are seconds since its sending; a failed one has its `error`."""

    error: str | None  # the endpoint's error code, or what the connection did; None: answered
    token_times_s: tuple[float, ...]  # when each piece of text came
    output_tokens: int  # as the endpoint counted them
    total_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles by nearest rank, in milliseconds; zeros when there was nothing to measure."""

    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole measurement. Rates are over the wall time from the first request to the end."""

    requests: int
    answered: int
    errors: dict[str, int]
    elapsed_s: float
    requests_per_s: float
    output_tokens: int
    output_tokens_per_s: float
    first_token: Spread
    between_tokens: Spread
    total: Spread


def report(samples: Sequence[Sample], elapsed_s: float) -> Report:
    """Failed requests count as errors and are left out of all times and rates."""
    answered = [sample for sample in samples if sample.error is None]
    errors = Counter(sample.error for sample in samples if sample.error is not None)
    tokens = sum(sample.output_tokens for sample in answered)
    return Report(
        requests=len(samples),
        answered=len(answered),
        errors=dict(errors.most_common()),
        elapsed_s=round(elapsed_s, 3),
        requests_per_s=_rate(len(answered), elapsed_s),
        output_tokens=tokens,
        output_tokens_per_s=_rate(tokens, elapsed_s),
        first_token=spread(s.token_times_s[0] for s in answered if s.token_times_s),
        between_tokens=spread(gap for s in answered for gap in gaps(s.token_times_s)),
        total=spread(sample.total_s for sample in answered),
    )


def gaps(times_s: Sequence[float]) -> list[float]:
    """The time between each piece and the next."""
    return [later - sooner for sooner, later in pairwise(times_s)]


def spread(times_s: Iterable[float]) -> Spread:
    ordered = sorted(times_s)
    p50, p90, p99 = (round(quantile(ordered, q) * 1000, 2) for q in (0.5, 0.9, 0.99))
    return Spread(p50, p90, p99)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of all values does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else 0.0


def _rate(count: int, elapsed_s: float) -> float:
    return round(count / elapsed_s, 2) if elapsed_s > 0 else 0.0
