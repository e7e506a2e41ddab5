"""Why a request is not served, in words for its client."""

from typing import Final

from appliance.gateway import head
from appliance.gateway.errors import (
    GatewayError,
    InsufficientQuota,
    LedgerDown,
    ModelLoading,
    ModelUnavailable,
    Overloaded,
    RateLimitExceeded,
)
from appliance.limits.reservation import Dimension, Refusal
from appliance.scheduler.tickets import ShedReason

_UNREACHABLE_RETRY_S: Final = 5


def shed(reason: ShedReason, retry_after_s: int, model: str) -> GatewayError:
    """No replica can take it."""
    if reason is ShedReason.MODEL_LOADING:
        return ModelLoading(f"The model '{model}' is loading.", retry_after_s=retry_after_s)
    if reason is ShedReason.UNAVAILABLE:
        return ModelUnavailable(
            f"The model '{model}' is not running at the moment.", retry_after_s=retry_after_s
        )
    return Overloaded(
        f"The model '{model}' has more requests than it can serve.", retry_after_s=retry_after_s
    )


def unreachable(model: str) -> GatewayError:
    """The hosts that serve it are cut off. It is soon seen, and others may take it over."""
    return ModelUnavailable(
        f"The model '{model}' cannot be reached at the moment.", retry_after_s=_UNREACHABLE_RETRY_S
    )


def limited(refusal: Refusal) -> GatewayError:
    """A limit is reached. A spent day is no matter of trying again soon."""
    lines = head.rate_limits(refusal.requests_gauge, refusal.tokens_gauge)
    what = refusal.dimension.replace("_", " ")
    message = f"The limit of {refusal.limit} {what} of this {refusal.layer} is reached."
    if refusal.dimension is Dimension.TOKENS_PER_DAY:
        return InsufficientQuota(message, headers=lines)
    retry_after_s = max(1, -int(-refusal.retry_after_s // 1))
    return RateLimitExceeded(message, retry_after_s=retry_after_s, headers=lines)


def unrecorded() -> LedgerDown:
    """What can not be recorded is not served."""
    return LedgerDown("Requests can not be recorded at the moment.", retry_after_s=5)
