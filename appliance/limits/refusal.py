"""Why a request was refused and when it would fit: the slow path, only walked by refusals. Pure.

No wait is longer than its window, not even a forecast: clients ignore a Retry-After above 60.
"""

from collections.abc import Iterator, Sequence

from appliance.domain.limits import LayerLimits
from appliance.limits.reservation import Dimension, Gauge, Refusal
from appliance.limits.scope import Scope
from appliance.limits.window import DAY_S, MINUTE_S, Window


def explain(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], tokens: int, now_s: float
) -> Refusal:
    """The refusal of a request of `tokens`. `scopes` have forgotten all they can; one refuses."""
    reasons = (
        (retry_s, layer, dimension, limit)
        for layer, scope in zip(layers, scopes, strict=True)
        for dimension, limit, retry_s in _refusing(layer, scope, tokens, now_s)
    )
    retry_s, layer, dimension, limit = max(reasons, key=lambda reason: reason[0])
    return Refusal(
        layer=layer.layer,
        dimension=dimension,
        limit=limit,
        retry_after_s=retry_s,
        requests_gauge=_tightest(_requests(layers, scopes, now_s)),
        tokens_gauge=_tightest(_tokens(layers, scopes, now_s)),
    )


def _refusing(
    layer: LayerLimits, scope: Scope, tokens: int, now_s: float
) -> Iterator[tuple[Dimension, int, float]]:
    """Each limit of this layer that the request does not fit, and how long that will last."""
    limits = layer.limits
    if (limit := limits.concurrency) is not None and scope.running >= limit:
        # Of n running requests one ends after about an n-th of their time.
        wait_s = min(scope.held_s / max(scope.running, 1), MINUTE_S)
        yield Dimension.CONCURRENCY, limit, wait_s
    if (limit := limits.requests_per_min) is not None:
        excess = scope.requests.total + 1 - limit
        if excess > 0:
            free_s = scope.requests.free_in_s(excess, now_s)
            yield Dimension.REQUESTS_PER_MIN, limit, MINUTE_S if free_s is None else free_s
    for dimension, limit, window, longest_s in (
        (Dimension.TOKENS_PER_MIN, limits.tokens_per_min, scope.minute, MINUTE_S),
        (Dimension.TOKENS_PER_DAY, limits.tokens_per_day, scope.day, DAY_S),
    ):
        if limit is None:
            continue
        excess = window.total + scope.held + min(tokens, limit) - limit
        if limit < 1:
            yield dimension, limit, longest_s
        elif excess > 0:
            yield dimension, limit, _tokens_wait_s(scope, window, excess, longest_s, now_s)


def _tokens_wait_s(
    scope: Scope, window: Window, excess: int, longest_s: float, now_s: float
) -> float:
    """Until `excess` tokens are free: by being forgotten, or by running requests that end."""
    forgotten_s = window.free_in_s(excess, now_s)
    longest_s = longest_s if forgotten_s is None else forgotten_s
    if not scope.held:
        return longest_s
    # Running requests give back the share that they do not use; the rest stays for a whole window.
    unused = int(scope.held * max(0.0, 1.0 - scope.used_share))
    settled_s = window.free_in_s(excess - unused, now_s)
    return longest_s if settled_s is None else min(max(settled_s, scope.held_s), longest_s)


def _requests(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], now_s: float
) -> Iterator[Gauge]:
    for layer, scope in zip(layers, scopes, strict=True):
        if (limit := layer.limits.requests_per_min) is not None:
            reset_s = scope.requests.empty_in_s(now_s)
            yield Gauge(limit, max(0, limit - scope.requests.total), reset_s)


def _tokens(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], now_s: float
) -> Iterator[Gauge]:
    for layer, scope in zip(layers, scopes, strict=True):
        limits = layer.limits
        for limit, window, longest_s in (
            (limits.tokens_per_min, scope.minute, MINUTE_S),
            (limits.tokens_per_day, scope.day, DAY_S),
        ):
            if limit is None:
                continue
            # What is held will be counted for a whole window after it is settled.
            reset_s = longest_s if scope.held else window.empty_in_s(now_s)
            yield Gauge(limit, max(0, limit - window.total - scope.held), reset_s)


def _tightest(gauges: Iterator[Gauge]) -> Gauge | None:
    return min(gauges, key=lambda gauge: gauge.remaining, default=None)
