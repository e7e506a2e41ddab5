"""Why a request was refused and when it would fit: the slow path, only walked by refusals. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from appliance.domain.limits import LayerLimits
from appliance.limits.reservation import Dimension, Gauge, Refusal
from appliance.limits.scope import Scope
from appliance.limits.window import DAY_SLOT_S, DAY_SPAN, MINUTE_SLOT_S, MINUTE_SPAN, Window

_MINUTE_S: Final = (MINUTE_SPAN + 1) * MINUTE_SLOT_S  # the longest that anything stays counted
_DAY_S: Final = (DAY_SPAN + 1) * DAY_SLOT_S


def explain(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], tokens: int, now_s: float
) -> Refusal:
    """The refusal of a request of `tokens`. `scopes` are advanced to now; at least one refuses."""
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
        yield Dimension.CONCURRENCY, limit, scope.held_s / max(scope.running, 1)
    if (limit := limits.requests_per_min) is not None:
        excess = scope.requests.total + 1 - limit
        if excess > 0:
            slot = scope.requests.free_at(excess)
            yield (
                Dimension.REQUESTS_PER_MIN,
                limit,
                _MINUTE_S if slot is None else slot * MINUTE_SLOT_S - now_s,
            )
    for dimension, limit, window, slot_s, longest_s in (
        (Dimension.TOKENS_PER_MIN, limits.tokens_per_min, scope.minute, MINUTE_SLOT_S, _MINUTE_S),
        (Dimension.TOKENS_PER_DAY, limits.tokens_per_day, scope.day, DAY_SLOT_S, _DAY_S),
    ):
        if limit is None:
            continue
        excess = window.total + scope.held + min(tokens, limit) - limit
        if limit < 1:
            yield dimension, limit, longest_s
        elif excess > 0:
            wait_s = _tokens_wait_s(scope, window, excess, slot_s, longest_s, now_s)
            yield dimension, limit, wait_s


def _tokens_wait_s(
    scope: Scope, window: Window, excess: int, slot_s: int, longest_s: int, now_s: float
) -> float:
    """Until `excess` tokens are free: by being forgotten, or by running requests that end."""
    slot = window.free_at(excess)
    forgotten_s = None if slot is None else slot * slot_s - now_s
    if not scope.held:
        return longest_s if forgotten_s is None else forgotten_s
    # Running requests give back the share that they do not use; the rest stays for a whole window.
    unused = int(scope.held * max(0.0, 1.0 - scope.used_share))
    slot = window.free_at(excess - unused)
    settled_s = scope.held_s + longest_s if slot is None else slot * slot_s - now_s
    settled_s = max(settled_s, scope.held_s)
    return settled_s if forgotten_s is None else min(forgotten_s, settled_s)


def _requests(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], now_s: float
) -> Iterator[Gauge]:
    for layer, scope in zip(layers, scopes, strict=True):
        if (limit := layer.limits.requests_per_min) is not None:
            reset_s = max(0.0, scope.requests.empty_at * MINUTE_SLOT_S - now_s)
            yield Gauge(limit, max(0, limit - scope.requests.total), reset_s)


def _tokens(
    layers: Sequence[LayerLimits], scopes: Sequence[Scope], now_s: float
) -> Iterator[Gauge]:
    for layer, scope in zip(layers, scopes, strict=True):
        limits = layer.limits
        for limit, window, slot_s, longest_s in (
            (limits.tokens_per_min, scope.minute, MINUTE_SLOT_S, _MINUTE_S),
            (limits.tokens_per_day, scope.day, DAY_SLOT_S, _DAY_S),
        ):
            if limit is None:
                continue
            # What is held will be counted for a whole window after it is settled.
            reset_s = longest_s if scope.held else max(0.0, window.empty_at * slot_s - now_s)
            yield Gauge(limit, max(0, limit - window.total - scope.held), reset_s)


def _tightest(gauges: Iterator[Gauge]) -> Gauge | None:
    return min(gauges, key=lambda gauge: gauge.remaining, default=None)
